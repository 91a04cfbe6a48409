"""Little articles about pictures: story, article, diary, guide, and one in Chinese.

The text follows from the subjects alone (which simile, which opening), so that an article too is right or wrong.
"""

from ..scenes import COLOR_NAMES, KINDS
from ..wording import COLOR_ZH, KIND_ZH, capital, subject, thing_zh

GENRES = ["story", "article", "diary", "guide", "chinese"]
NAMES = ["Mia", "Leo", "Anna", "Tom", "Lily", "Ben", "Eva", "Max", "Nina", "Paul"]
SIMILES = {
    "circle": ["It rolled along like a wheel.", "It was as round as the full moon."],
    "square": ["It stood firm like a little house.", "Its four sides were all the same."],
    "triangle": ["It pointed up like a mountain.", "Its three corners were very sharp."],
    "star": ["It shone like a lamp in the night sky.", "It made every wish come true."],
    "heart": ["It made everyone feel warm and kind.", "It was a gift from a good friend."],
    "ring": ["It was round with a hole in the middle.", "It looked like a gift for a king."],
    "cross": ["It looked like a big plus sign.", "It marked the place of a secret treasure."],
    "diamond": ["It sparkled like a jewel in the sun.", "It flew like a kite in the wind."],
    "number": ["It helped the children learn to count.", "It was painted on the door of a house."],
}
COLOR_SENTENCES = {
    "red": "Red is the color of apples and fire.",
    "orange": "Orange is the color of autumn leaves.",
    "yellow": "Yellow is the color of the sun.",
    "green": "Green is the color of grass and trees.",
    "cyan": "Cyan is the color of clear water.",
    "blue": "Blue is the color of the sea.",
    "purple": "Purple is the color of kings.",
    "pink": "Pink is the color of spring flowers.",
    "white": "White is the color of snow.",
    "black": "Black is the color of the night.",
}
SIMILES_ZH = dict(
    circle="它像满月一样圆。",
    square="它像一座小房子。",
    triangle="它像一座山。",
    star="它在夜空中发光。",
    heart="它让人感到温暖。",
    ring="它中间有一个洞。",
    cross="它像一个加号。",
    diamond="它像风筝一样飞。",
    number="它教孩子们数数。",
)
OPENINGS = {
    "story": [
        "Once upon a time, {} went for a walk in the town of shapes.",
        "One sunny morning, {} found an old book full of pictures.",
        "Long ago, {} lived in a house where every shape had a name.",
    ],
    "diary": [
        "Today I went to the museum of colors with my class.",
        "Today it rained, so I stayed at home and painted.",
        "Today my teacher gave me a box of paper shapes.",
    ],
    "guide": [
        "This guide shows how to draw simple pictures step by step.",
        "Anyone can draw with a pencil, some paper and a little time.",
    ],
    "article": [
        "Shapes and colors are everywhere around us, and each picture tells us something.",
        "This article takes a close look at some simple pictures.",
        "Every picture has a shape and a color, and both have a meaning.",
    ],
    "chinese": ["今天我看到了几幅有趣的画。", "形状和颜色就在我们身边。"],
}
VERBS = dict(story="{} saw", diary="I painted", guide="draw", article="we see")
CLOSINGS = {
    "story": [
        "{} smiled and went home happy.",
        "That night {} dreamed of all the shapes.",
        "And {} never forgot that day.",
    ],
    "diary": [
        "It was a good day and I am very tired now.",
        "Tomorrow I want to see more shapes.",
        "I will keep these pictures for a long time.",
    ],
    "guide": ["Now you can draw your own pictures.", "Practice every day and share your work with friends."],
    "article": ["In short, simple shapes can tell great stories.", "Look around you and find more shapes today."],
    "chinese": ["我很喜欢这些画。", "简单的形状也能讲故事。"],
}
ORDER = ["First", "Then", "Later", "Finally"]
ORDER_ZH = ["首先", "然后", "后来", "最后"]


def title(genre, scenes):
    """The headline where none is asked for."""
    first, last = scenes[0].things[0].color_noun, scenes[-1].things[0].color_noun
    return {
        "story": capital(f"the {first} and the {last}") if len(scenes) > 1 else capital(f"the story of the {first}"),
        "diary": "A page from my diary",
        "guide": "A short guide to shapes",
        "article": f"The beauty of the {first}",
        "chinese": f"{COLOR_ZH[scenes[0].things[0].color]}的{KIND_ZH[scenes[0].things[0].kind]}",
    }[genre]


def paragraph(genre, scene, order, name):
    """The line about one picture."""
    thing = scene.things[0]
    if genre == "chinese":
        return f"{ORDER_ZH[order]}，我看到了{'和'.join(thing_zh(t) for t in scene.things)}。{SIMILES_ZH[thing.kind]}"
    text = f"{ORDER[order]}, {VERBS[genre].format(name)} {subject(scene)}. {SIMILES[thing.kind][thing.size == 'large']}"
    return text + (" " + COLOR_SENTENCES[thing.color] if len(scene.things) == 1 else "")


def write(genre, scenes, headline=None):
    """(lines, the line number of each scene): headline, opening, a line a scene, closing."""
    first, last = scenes[0].things[0], scenes[-1].things[0]
    name = NAMES[COLOR_NAMES.index(first.color)]
    openings, closings = OPENINGS[genre], CLOSINGS[genre]
    lines = [headline or title(genre, scenes), openings[KINDS.index(first.kind) % len(openings)].format(name)]
    for i, scene in enumerate(scenes):
        order = 3 if i == len(scenes) - 1 and i > 0 else i
        lines.append(paragraph(genre, scene, order, name))
    lines.append(closings[KINDS.index(last.kind) % len(closings)].format(name))
    return lines, list(range(2, 2 + len(scenes)))
