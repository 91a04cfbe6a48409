"""How a thing is named in a question, so that only it can be meant."""

from ..wording import at

COLOR_WORDS = ["color", "color", "color", "colour"]
IMAGE_WORDS = ["image", "image", "picture"]


def only(scene, test):
    """Whether exactly one thing passes."""
    return sum(map(test, scene.things)) == 1


def reference(draw, scene, thing, hide=()):
    """Words that mean this thing alone, without the attributes in `hide`; None if there are none."""
    ways = []
    if "color" not in hide and "shape" not in hide:
        if only(scene, lambda t: t.color_noun == thing.color_noun):
            ways += [thing.color_noun] * 3
        if "size" not in hide and only(scene, lambda t: t.full == thing.full):
            ways += [thing.full]
    if "shape" not in hide and only(scene, lambda t: t.noun == thing.noun):
        ways += [thing.noun] * 2
    if "color" not in hide and only(scene, lambda t: t.color == thing.color):
        ways += [thing.color + " object"] * (3 if "shape" in hide else 1)
    if "place" not in hide:
        ways += ["object " + at(thing.place)]
    return draw.pick(ways) if ways else None


def pair(draw, scene):
    """Two things that colour and noun name, or None."""
    if len(scene.things) < 2:
        return None
    a, b = draw.sample(scene.things, 2)
    return (a, b) if all(only(scene, lambda t, o=o: t.color_noun == o.color_noun) for o in (a, b)) else None
