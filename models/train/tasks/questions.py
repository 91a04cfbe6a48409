"""Questions about one picture; each function gives (question, full answer, short answer), or None where it does not fit.

A thing is always referred to so that only it can be meant.
"""

from ..scenes import ALL_PLACES, COLOR_NAMES, GROUND_NAMES, KINDS, SHAPES, SIZES
from ..wording import COLOR_ZH, GROUND_ZH, KIND_ZH, NUMBER_ZH, PLACE_ZH, article, at, plural, there_are
from . import Ask
from .references import COLOR_WORDS, IMAGE_WORDS, only, reference
from .relations import compare, extreme, relation, same_color, which

SHORT_FORMS = [
    "{} Answer the question using a single word or phrase.",
    "{} Answer with one word.",
    "{} Short answer:",
    "{}\nAnswer the question using a single word or phrase.",
    "Answer the question using a single word or phrase.{}",
]


def count(draw, scene):
    """How many things in all."""
    n, image = len(scene.things), draw.pick(IMAGE_WORDS)
    forms = [
        "How many objects are in the {}?",
        "How many objects are there in the {}?",
        "How many things are in this {}?",
        "What is the number of objects in the {}?",
    ]
    question = draw.pick(
        [f.format(image) for f in forms]
        + ["How many shapes are there?", "How many objects are there?", "Count the objects."]
    )
    return question, there_are(n, "object"), str(n)


def count_some(draw, scene):
    """How many of a kind, a colour, a size or both."""
    thing, way = draw.pick(scene.things), draw.below(100)
    if way < 45:
        kind = thing.kind if draw.chance(75) else draw.pick(KINDS)
        n, noun = sum(t.kind == kind for t in scene.things), kind
    elif way < 78:
        color = thing.color if draw.chance(75) else draw.pick(COLOR_NAMES)
        n, noun = sum(t.color == color for t in scene.things), color + " object"
    elif way < 90:
        size = draw.pick(SIZES)
        n, noun = sum(t.size == size for t in scene.things), size + " object"
    else:
        n = sum((t.color, t.kind) == (thing.color, thing.kind) for t in scene.things)
        noun = f"{thing.color} {thing.kind}"
    many = plural(noun)
    question = draw.pick(
        [
            f"How many {many} are there?",
            f"How many {many} are in the {draw.pick(IMAGE_WORDS)}?",
            f"How many {many} do you see?",
            f"Count the {many}.",
        ]
    )
    return question, there_are(n, noun), str(n)


def color(draw, scene):
    """The colour of a thing."""
    thing, word = draw.pick(scene.things), draw.pick(COLOR_WORDS)
    name = reference(draw, scene, thing, ("color",))
    question = draw.pick(
        [f"What {word} is the {name}?", f"What is the {word} of the {name}?", f"Which {word} does the {name} have?"]
    )
    return name and (question, f"The {name} is {thing.color}.", thing.color)


def shape(draw, scene):
    """The shape of a thing, or which number it is."""
    thing = draw.pick(scene.things)
    name = reference(draw, scene, thing, ("shape",))
    question = draw.pick(
        [
            f"What shape is the {name}?",
            f"What is the shape of the {name}?",
            f"Which shape is the {name}?",
            f"What is the {name}?",
        ]
    )
    return name and (question, f"The {name} is {article(thing.noun)}.", thing.noun)


def size(draw, scene):
    """The size of a thing."""
    thing = draw.pick(scene.things)
    name = reference(draw, scene, thing, ("size",))
    question = draw.pick([f"What size is the {name}?", f"Is the {name} small or large?", f"How big is the {name}?"])
    return name and (question, f"The {name} is {thing.size}.", thing.size)


def place(draw, scene):
    """Where a thing is."""
    thing = draw.pick(scene.things)
    name = reference(draw, scene, thing, ("place",))
    forms = [
        f"Where is the {name}?",
        f"Where is the {name} in the {draw.pick(IMAGE_WORDS)}?",
        f"What is the position of the {name}?",
        f"Where can I find the {name}?",
    ]
    return name and (draw.pick(forms), f"The {name} is {at(thing.place)}.", thing.place)


def at_place(draw, scene):
    """What is at a place; in a third of cases, nothing."""
    spot = draw.pick(scene.things).place if draw.chance(65) else draw.pick(ALL_PLACES)
    found = [t for t in scene.things if t.place == spot]
    forms = [
        f"What is {at(spot)}?",
        f"What is {at(spot)} of the {draw.pick(IMAGE_WORDS)}?",
        f"Which object is {at(spot)}?",
        f"What do you see {at(spot)}?",
    ]
    if found:
        return draw.pick(forms), f"There is {article(found[0].full)} {at(spot)}.", found[0].full
    return draw.pick(forms), f"There is nothing {at(spot)}.", "nothing"


def describe(draw, scene):
    """Everything about one thing."""
    thing = draw.pick(scene.things)
    name = reference(draw, scene, thing, ("place",))
    return name and (f"Describe the {name}.", f"There is {article(thing.full)} {at(thing.place)}.", None)


def exists(draw, scene):
    """Whether something is there; half of the answers are no, often by one attribute only."""
    thing, want, by = draw.pick(scene.things), draw.chance(50), draw.below(100)
    for _ in range(20):
        hue, kind = thing.color, thing.kind
        if not want:
            hue, kind = (draw.pick(COLOR_NAMES), kind) if draw.chance(50) else (hue, draw.pick(KINDS))
        if by < 55:
            name, found = f"{hue} {kind}", any((t.color, t.kind) == (hue, kind) for t in scene.things)
        elif by < 75:
            name, found = kind, any(t.kind == kind for t in scene.things)
        else:
            name, found = hue + " object", any(t.color == hue for t in scene.things)
        if found == want:
            break
    one, image = article(name), draw.pick(IMAGE_WORDS)
    question = draw.pick(
        [
            f"Is there {one}?",
            f"Is there {one} in the {image}?",
            f"Do you see {one}?",
            f"Does the {image} contain {one}?",
            f"Can you see {one} in this {image}?",
        ]
    )
    return question, f"Yes, there is {one}." if found else f"No, there is no {name}.", "yes" if found else "no"


def absent(draw, scene):
    """A question that takes something for granted which is not there: the answer says so."""
    for _ in range(20):
        thing = draw.pick(scene.things)
        hue, kind = (thing.color, draw.pick(SHAPES)) if draw.chance(50) else (draw.pick(COLOR_NAMES), thing.kind)
        if draw.chance(25):
            hue, kind = None, draw.pick(SHAPES)
        name = kind if hue is None else f"{hue} {kind}"
        if not any(t.kind == kind and hue in (None, t.color) for t in scene.things):
            forms = [
                f"Where is the {name}?",
                f"What size is the {name}?",
                f"How big is the {name}?",
                f"Describe the {name}.",
            ]
            if hue is None:
                forms += [f"What color is the {name}?", f"What is the color of the {name}?"]
            return draw.pick(forms), f"There is no {name} in the image.", None
    return None


def background(draw, scene):
    """The colour of the ground."""
    word = draw.pick(COLOR_WORDS)
    question = draw.pick(
        [f"What {word} is the background?", f"What is the background {word}?", f"What is the {word} of the background?"]
    )
    return question, f"The background is {scene.ground}.", scene.ground


def number(draw, scene):
    """Reading digits; with two of them, adding."""
    digits = [t for t in scene.things if t.kind == "number"]
    if len(digits) == 1:
        only_one = digits[0]
        if draw.chance(30):
            return (
                draw.pick(["What is the color of the number?", "What color is the number?"]),
                f"The number is {only_one.color}.",
                only_one.color,
            )
        question = draw.pick(
            ["What number is in the image?", "Which number do you see?", "What number is shown?", "Read the number."]
        )
        return question, f"The number is {only_one.digit}.", str(only_one.digit)
    if len(digits) != 2:
        return None
    x, y = digits[0].digit, digits[1].digit
    if draw.chance(60):
        return (
            draw.pick(["What is the sum of the two numbers?", "Add the numbers in the image."]),
            f"{x} + {y} = {x + y}.",
            str(x + y),
        )
    return (
        draw.pick(["Which numbers are in the image?", "Which numbers do you see?"]),
        f"The numbers are {x} and {y}.",
        f"{x} and {y}",
    )


def choice(draw, scene):
    """A question with lettered options; the answer is the letter."""
    source, options = draw.pick(
        [
            (color, COLOR_NAMES),
            (shape, SHAPES),
            (place, ALL_PLACES),
            (count, list("123456")),
            (background, GROUND_NAMES),
        ]
    )
    asked = source(draw, scene)
    if not asked or asked[2] not in options:
        return None
    question, _, right = asked
    chosen = draw.shuffled(draw.sample([o for o in options if o != right], draw.pick([2, 3, 3])) + [right])
    tail = draw.pick(
        ["\nAnswer with the option's letter from the given choices directly.", "\nAnswer with the letter.", ""]
    )
    lines = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", chosen))
    return f"{question}\n{lines}{tail}", "ABCD"[chosen.index(right)], None


def chinese(draw, scene):
    """Count, colour, ground and place in Chinese."""
    way = draw.below(4)
    if way == 0:
        return (
            draw.pick(["图中有几个物体？", "图里有多少个物体？"]),
            f"图中有{NUMBER_ZH[len(scene.things)]}个物体。",
            None,
        )
    if way == 1:
        return "背景是什么颜色？", f"背景是{GROUND_ZH[scene.ground]}。", None
    thing = draw.pick(scene.things)
    if thing.kind == "number" or not only(scene, lambda t: t.kind == thing.kind):
        return None
    name = KIND_ZH[thing.kind]
    if way == 2:
        return f"{name}是什么颜色的？", f"{name}是{COLOR_ZH[thing.color]}的。", None
    return f"{name}在哪里？", f"{name}在{PLACE_ZH[thing.place]}。", None


# name -> (function, how often)
QUESTIONS = {
    "count": (count, 10),
    "count_some": (count_some, 16),
    "color": (color, 13),
    "shape": (shape, 12),
    "size": (size, 8),
    "place": (place, 12),
    "at_place": (at_place, 12),
    "describe_thing": (describe, 6),
    "exists": (exists, 15),
    "absent": (absent, 10),
    "relation": (relation, 14),
    "which": (which, 11),
    "compare": (compare, 9),
    "background": (background, 5),
    "extreme": (extreme, 7),
    "same_color": (same_color, 12),
    "number": (number, 12),
    "choice": (choice, 11),
    "chinese": (chinese, 9),
}
NAMES, WEIGHTS = list(QUESTIONS), [q[1] for q in QUESTIONS.values()]


def ask(draw, scene, name=None, short=35):
    """A question about a scene; `short`: per cent asked for a word or two. None if nothing fits in fifty draws."""
    for _ in range(50):
        asked = QUESTIONS[name or NAMES[draw.weighted(WEIGHTS)]][0](draw, scene)
        if not asked:
            continue
        question, full, word = asked
        if word is not None and draw.chance(short):
            return Ask(draw.pick(SHORT_FORMS).format(question), word, [scene])
        return Ask(question, full, [scene])
    return None


def follow_up(draw, scene):
    """Two turns: a thing is named, then asked about as `it`; None where no noun names one thing."""
    thing = draw.pick(scene.things)
    if not only(scene, lambda t: t.noun == thing.noun):
        return None
    name = article(thing.noun)
    question, answer = draw.pick(
        [
            ("What color is it?", f"It is {thing.color}."),
            ("Where is it?", f"It is {at(thing.place)}."),
            ("How big is it?", f"It is {thing.size}."),
            ("Describe it.", f"It is {article(thing.full)} {at(thing.place)}."),
        ]
    )
    return [Ask(f"Is there {name} in the image?", f"Yes, there is {name}.", [scene]), Ask(question, answer, [scene])]
