"""Talk without pictures: facts, sums, lists, scenes told in words, and owning up that there is no picture to see."""

from .. import wording
from ..scenes import COLOR_NAMES, SHAPES, draw_scene
from ..wording import NUMBERS, article
from . import Ask, captions
from .articles import SIMILES

ABOUT_ME = "I am a tiny demo model with the InternLM-XComposer2 architecture."
NO_PICTURE = "I cannot see an image. Please give me a picture."
FACTS = [
    ("How many sides does a triangle have?", "A triangle has three sides."),
    ("How many sides does a square have?", "A square has four sides."),
    ("How many corners does a star have?", "A star has five points."),
    ("Is a circle round?", "Yes, a circle is round."),
    ("Is a square round?", "No, a square has four corners."),
    ("What color is the sky on a clear day?", "The sky is blue."),
    ("What color is grass?", "Grass is green."),
    ("What color is snow?", "Snow is white."),
    ("What color is coal?", "Coal is black."),
    ("What color is a ripe banana?", "A ripe banana is yellow."),
    ("What color is blood?", "Blood is red."),
    ("What color do you get when you mix red and yellow?", "Red and yellow make orange."),
    ("What color do you get when you mix blue and yellow?", "Blue and yellow make green."),
    ("What color do you get when you mix red and blue?", "Red and blue make purple."),
    ("What color do you get when you mix red and white?", "Red and white make pink."),
    ("What is the opposite of left?", "The opposite of left is right."),
    ("What is the opposite of right?", "The opposite of right is left."),
    ("What is the opposite of top?", "The opposite of top is bottom."),
    ("What is the opposite of small?", "The opposite of small is large."),
    ("What is the opposite of black?", "The opposite of black is white."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    ("What is the opposite of day?", "The opposite of day is night."),
    ("Which shape has a hole in the middle?", "A ring has a hole in the middle."),
    ("Which shape stands for love?", "A heart stands for love."),
    ("Which shape looks like a plus sign?", "A cross looks like a plus sign."),
    ("Which shape has no corners?", "A circle has no corners."),
    ("How many days are in a week?", "There are seven days in a week."),
    ("How many months are in a year?", "There are twelve months in a year."),
    ("How many legs does a cat have?", "A cat has four legs."),
    ("How many wheels does a bicycle have?", "A bicycle has two wheels."),
    ("What day comes after Monday?", "Tuesday comes after Monday."),
    ("What day comes after Friday?", "Saturday comes after Friday."),
    ("What month comes after May?", "June comes after May."),
    ("What is the first month of the year?", "January is the first month of the year."),
    ("What do bees make?", "Bees make honey."),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("What is the capital of China?", "The capital of China is Beijing."),
    ("What is the capital of Italy?", "The capital of Italy is Rome."),
    ("What is the largest planet?", "Jupiter is the largest planet."),
    ("Which planet do we live on?", "We live on the planet Earth."),
    ("Is the sun hot?", "Yes, the sun is hot."),
    ("Is ice hot?", "No, ice is cold."),
    ("Can fish swim?", "Yes, fish can swim."),
    ("Can a stone swim?", "No, a stone sinks."),
    ("Hello!", "Hello! How can I help you?"),
    ("Hello", "Hello! How can I help you?"),
    ("Hi", "Hello! How can I help you?"),
    ("Thank you.", "You are welcome."),
    ("Goodbye.", "Goodbye! Have a nice day."),
    ("Who are you?", ABOUT_ME),
    ("What is your name?", ABOUT_ME),
    ("What are you?", ABOUT_ME),
    ("Are you a human?", "No, I am a small language model."),
    ("What can you do?", "I can describe simple pictures, answer questions about them and write short articles."),
    (
        "Which shapes do you know?",
        "I know circles, squares, triangles, stars, hearts, rings, crosses, diamonds and numbers.",
    ),
    ("Which colors do you know?", "I know red, orange, yellow, green, cyan, blue, purple, pink, white and black."),
    ("你好", "你好！有什么可以帮你？"),
    ("你好！", "你好！有什么可以帮你？"),
    ("你是谁？", "我是一个很小的演示模型。"),
    ("谢谢", "不客气。"),
    ("天空是什么颜色的？", "天空是蓝色的。"),
    ("草是什么颜色的？", "草是绿色的。"),
    ("一周有几天？", "一周有七天。"),
]
WORDS = COLOR_NAMES + SHAPES + ["cat", "dog", "tree", "house", "sun", "moon", "fish", "bird", "book", "apple"]


def fact(draw):
    """A fact, a greeting, or who this is."""
    return Ask(*draw.pick(FACTS))


def sums(draw):
    """Small arithmetic."""
    way, a, b = draw.below(100), draw.below(20), draw.below(20)
    if way < 40:
        return Ask(
            draw.pick([f"What is {a} + {b}?", f"What is {a} plus {b}?", f"{a} + {b} = ?"]), f"{a} + {b} = {a + b}."
        )
    if way < 70:
        a, b = max(a, b), min(a, b)
        return Ask(draw.pick([f"What is {a} - {b}?", f"What is {a} minus {b}?"]), f"{a} - {b} = {a - b}.")
    if way < 85:
        a, b = a % 10, b % 10
        return Ask(draw.pick([f"What is {a} x {b}?", f"What is {a} times {b}?"]), f"{a} x {b} = {a * b}.")
    a, b = draw.sample(range(100), 2)
    return Ask(f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger.")


def lists(draw):
    """Repeating, turning round, counting and sorting short lists."""
    words = draw.sample(WORDS, draw.between(2, 5))
    text, way, n = ", ".join(words), draw.below(7), len(words)
    if way == 0:
        return Ask(draw.pick([f"Repeat: {text}", f"Repeat after me: {text}"]), text)
    if way == 1:
        return Ask(f"Reverse the list: {text}", ", ".join(words[::-1]))
    if way == 2:
        return Ask(
            draw.pick([f"Write as bullet points: {text}", f"Make a bullet list: {text}"]),
            "\n".join("- " + w for w in words),
        )
    if way == 3:
        return Ask(f"How many words are in this list: {text}?", f"There are {NUMBERS[n]} words.")
    if way == 4:
        end, word = draw.pick([("first", words[0]), ("last", words[-1])])
        return Ask(f"What is the {end} word in this list: {text}?", f"The {end} word is {word}.")
    if way == 5:
        numbers = draw.sample(range(10), n)
        return Ask("Sort the numbers: " + ", ".join(map(str, numbers)), ", ".join(map(str, sorted(numbers))))
    word = draw.pick(words) if draw.chance(50) else draw.pick(WORDS)
    return Ask(
        f"Is the word {word} in this list: {text}?",
        f"Yes, {word} is in the list." if word in words else f"No, {word} is not in the list.",
    )


def sentence(draw):
    """A sentence about a thing."""
    color, kind = draw.pick(COLOR_NAMES), draw.pick(SHAPES)
    return Ask(
        f"Write a sentence about {article(color + ' ' + kind)}.",
        f"I saw {article(color + ' ' + kind)}. {SIMILES[kind][0]}",
    )


def no_picture(draw):
    """Asked about a picture that is not there."""
    chinese = draw.chance(20)
    prompts = captions.BRIEF_ZH if chinese else captions.BRIEF + captions.DETAILED
    return Ask(draw.pick(prompts), "我没有看到图片。请给我一张图片。" if chinese else NO_PICTURE)


def told(draw, scene):
    """A scene in words: brief, detailed or as a list."""
    return [wording.brief, wording.detailed, wording.listed][draw.weighted([45, 35, 20])](scene)


def retell(draw):
    """A scene told one way, to be told another way."""
    scene, brief = draw_scene(draw), draw.chance(50)
    source, target = (wording.detailed, "caption_brief") if brief else (wording.brief, "caption_detailed")
    asked = captions.ask(draw, scene, target)
    return Ask(f"Scene: {source(scene)}\n{asked.query}", asked.answer)


# name -> (function, how often)
TALK = {
    "fact": (fact, 12),
    "sums": (sums, 12),
    "lists": (lists, 10),
    "sentence": (sentence, 3),
    "no_picture": (no_picture, 4),
}
NAMES, WEIGHTS = list(TALK), [t[1] for t in TALK.values()]


def ask(draw, name=None):
    """A question that needs no picture and no scene."""
    return TALK[name or NAMES[draw.weighted(WEIGHTS)]][0](draw)
