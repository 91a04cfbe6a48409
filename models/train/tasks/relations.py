"""Questions that hold two things, or two kinds of thing, against each other; of the form that `questions` describes."""

from ..scenes import COLOR_NAMES, KINDS
from ..wording import plural
from .references import COLOR_WORDS, IMAGE_WORDS, only, pair


def relation(draw, scene):
    """Left of, right of, above, below."""
    two = pair(draw, scene)
    if not two:
        return None
    a, b = two
    ways = []
    if a.col != b.col:
        ways.append(("to the left of", "to the right of", a.col < b.col))
    if a.row != b.row:
        ways.append(("above", "below", a.row < b.row))
    word, other, true = draw.pick(ways)
    if draw.chance(50):
        word, other, true = other, word, not true
    one, two = a.color_noun, b.color_noun
    question = draw.pick(
        [f"Is the {one} {word} the {two}?", f"Is the {one} {word} the {two} in the {draw.pick(IMAGE_WORDS)}?"]
    )
    return (
        question,
        f"Yes, the {one} is {word} the {two}." if true else f"No, the {one} is {other} the {two}.",
        "yes" if true else "no",
    )


def which(draw, scene):
    """Which of two is larger, higher, further left."""
    two = pair(draw, scene)
    if not two:
        return None
    a, b = two
    ways = []
    if a.size != b.size:
        ways += [("larger", a.size == "large"), ("smaller", a.size == "small"), ("bigger", a.size == "large")]
    if a.row != b.row:
        ways += [("higher", a.row < b.row), ("lower", a.row > b.row)]
    if a.col != b.col:
        ways += [("further left", a.col < b.col), ("further right", a.col > b.col)]
    word, first = draw.pick(ways)
    right = (a if first else b).color_noun
    return f"Which is {word}, the {a.color_noun} or the {b.color_noun}?", f"The {right} is {word}.", right


def compare(draw, scene):
    """More of these than of those?"""
    by_kind = draw.chance(60)
    value = (lambda t: t.kind) if by_kind else (lambda t: t.color)
    names = KINDS if by_kind else COLOR_NAMES
    one = value(draw.pick(scene.things))
    two = value(draw.pick(scene.things)) if draw.chance(70) else draw.pick(names)
    if one == two:
        return None
    if draw.chance(50):
        one, two = two, one
    n, m = (sum(value(t) == v for t in scene.things) for v in (one, two))
    a, b = (plural(v) if by_kind else v + " objects" for v in (one, two))
    question = f"Are there more {a} than {b}?"
    if n > m:
        return question, f"Yes, there are more {a} than {b}.", "yes"
    return question, f"No, there are fewer {a} than {b}." if n < m else f"No, there are as many {a} as {b}.", "no"


def extreme(draw, scene):
    """The leftmost, rightmost, topmost or lowest thing."""
    word, key = draw.pick(
        [
            ("leftmost", lambda t: t.col),
            ("rightmost", lambda t: -t.col),
            ("topmost", lambda t: t.row),
            ("lowest", lambda t: -t.row),
        ]
    )
    order = sorted(scene.things, key=key)
    if len(order) < 2 or key(order[0]) == key(order[1]):
        return None
    return (
        draw.pick([f"Which object is {word}?", f"What is the {word} object?"]),
        f"The {order[0].full} is {word}.",
        order[0].full,
    )


def same_color(draw, scene):
    """Whether two things, named by their shapes, have one colour."""
    if len(scene.things) < 2:
        return None
    a, b = draw.sample(scene.things, 2)
    if a.noun == b.noun or not all(only(scene, lambda t, o=o: t.noun == o.noun) for o in (a, b)):
        return None
    question = f"Do the {a.noun} and the {b.noun} have the same {draw.pick(COLOR_WORDS)}?"
    if a.color == b.color:
        return question, f"Yes, both are {a.color}.", "yes"
    return question, f"No, the {a.noun} is {a.color} and the {b.noun} is {b.color}.", "no"
