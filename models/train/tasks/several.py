"""Questions about two or three pictures."""

from ..changes import change
from ..scenes import TOO_ALIKE, draw_ground, draw_scene
from ..wording import NUMBERS, article, at, brief, detailed, plural
from . import IMAGE, Ask, questions

ORDINALS = ["first", "second", "third"]
ABOUT_ONE = ["color", "shape", "place", "exists", "count", "count_some", "at_place", "background", "absent"]


def difference(draw, scenes):
    """Spot the one difference between two pictures."""
    changed = None
    while not changed:
        changed = change(draw, scenes[0])
    second, kind, before, after = changed
    scenes[1] = second
    answer = {
        "nothing": "The two images show the same scene.",
        "color": f"The {before.noun} {at(before.place)} is {before.color} in image 1 and {after.color} in image 2.",
        "shape": f"The {before.color} object {at(before.place)} is {article(before.noun)} in image 1 and {article(after.noun)} in image 2.",
        "size": f"The {before.color_noun} {at(before.place)} is {before.size} in image 1 and {after.size} in image 2.",
        "gone": f"The {before.full} {at(before.place)} is only in image 1.",
        "new": f"The {after.full} {at(after.place)} is only in image 2.",
        "ground": f"The background is {scenes[0].ground} in image 1 and {second.ground} in image 2.",
    }[kind]
    forms = [
        "What is the difference between the two images?",
        "What is different in image 2?",
        "Compare the two images.",
        "Spot the difference.",
        "What changed between the two pictures?",
    ]
    return draw.pick(forms), answer


def more(draw, scenes):
    """Which picture has more of something."""
    thing, way = draw.pick(draw.pick(scenes).things), draw.below(100)
    test = (
        (lambda t: True)
        if way < 30
        else (lambda t: t.kind == thing.kind)
        if way < 75
        else (lambda t: t.color == thing.color)
    )
    name = "objects" if way < 30 else plural(thing.kind) if way < 75 else thing.color + " objects"
    counts = [sum(map(test, s.things)) for s in scenes]
    best = [i for i, c in enumerate(counts) if c == max(counts)]
    word = "more" if len(scenes) == 2 else "the most"
    question = draw.pick([f"Which image has {word} {name}?", f"Which picture contains {word} {name}?"])
    if len(best) == 1:
        return question, f"Image {best[0] + 1} has {word} {name}."
    return (question, f"Both images have the same number of {name}.") if len(scenes) == 2 else None


def contains(draw, scenes):
    """Which picture shows something that only one has."""
    thing = draw.pick(draw.pick(scenes).things)
    name, test = draw.pick(
        [
            (f"{thing.color} {thing.kind}", lambda t: (t.color, t.kind) == (thing.color, thing.kind)),
            (thing.kind, lambda t: t.kind == thing.kind),
            (thing.color + " object", lambda t: t.color == thing.color),
        ]
    )
    found = [i for i, s in enumerate(scenes) if any(map(test, s.things))]
    if len(found) != 1:
        return None
    one = article(name)
    return draw.pick(
        [f"Which image shows {one}?", f"Which image contains {one}?", f"In which image is there {one}?"]
    ), f"Image {found[0] + 1} shows {one}."


def describe(draw, scenes):
    """A caption of one of the pictures."""
    i = draw.below(len(scenes))
    if draw.chance(50):
        return draw.pick(
            [f"Describe image {i + 1} briefly.", f"Write a short caption for the {ORDINALS[i]} image."]
        ), brief(scenes[i])
    return draw.pick(
        [f"Describe image {i + 1} in detail.", f"Please describe the {ORDINALS[i]} image in detail."]
    ), detailed(scenes[i])


def total(draw, scenes):
    """How many things in all pictures together."""
    n = sum(len(s.things) for s in scenes)
    return draw.pick(
        ["How many objects are there in all images together?", "How many objects are there in total?"]
    ), f"There are {NUMBERS[n]} objects in total."


def grounds(draw, scenes):
    """Whether two backgrounds have one colour."""
    first, second = scenes[0], scenes[1]
    if len(scenes) != 2:
        return None
    if draw.chance(40):
        if any((t.color, first.ground) in TOO_ALIKE for t in second.things):
            return None
        second.ground = first.ground
        draw_ground(draw, second)
    question = "Do both images have the same background color?"
    if first.ground == second.ground:
        return question, f"Yes, both backgrounds are {first.ground}."
    return (
        question,
        f"No, image 1 has {article(first.ground)} background and image 2 has {article(second.ground)} background.",
    )


def about_one(draw, scenes, short=0):
    """A question about one of the pictures."""
    i = draw.below(len(scenes))
    asked = questions.ask(draw, scenes[i], draw.pick(ABOUT_ONE), short)
    return asked and (f"In image {i + 1}: {asked.query}", asked.answer)


# name -> (function, how often)
SEVERAL = {
    "more": (more, 13),
    "contains": (contains, 12),
    "describe_image": (describe, 10),
    "total": (total, 10),
    "difference": (difference, 24),
    "grounds": (grounds, 5),
    "about_one": (about_one, 12),
}
NAMES, WEIGHTS = list(SEVERAL), [s[1] for s in SEVERAL.values()]


def introduce(draw, shown):
    """The pictures before the question; `shown`: a placeholder or a text for each."""
    if shown[0] == IMAGE and draw.chance(35):
        return (" " if draw.chance(30) else "").join(shown)
    way = draw.below(100)
    if way < 15:
        names = ["First", " second", " third"]
        return ",".join(f"{names[i]} picture:{text}" for i, text in enumerate(shown)) + ". "
    if way < 35:
        colon = draw.pick([": ", " "])
        return "".join(f"Image{i}{colon}{text}; " for i, text in enumerate(shown, 1))
    label, end = draw.pick(["Image ", "Image ", "Image"]), draw.pick(["\n", "\n", " "])
    return "".join(f"{label}{i}: {text}{end}" for i, text in enumerate(shown, 1))


def ask(draw, count=2, name=None, show=None):
    """A question about `count` drawn pictures; `show(scene)` gives a text in place of the picture."""
    while True:
        scenes = [draw_scene(draw) for _ in range(count)]
        kind = name or NAMES[draw.weighted(WEIGHTS)]
        if kind in ("difference", "grounds") and count != 2:
            continue
        asked = SEVERAL[kind][0](draw, scenes)
        if asked:
            shown = [show(s) if show else IMAGE for s in scenes]
            return Ask(introduce(draw, shown) + asked[0], asked[1], scenes)
