"""A second picture that differs from a first in exactly one thing, or in nothing: for "spot the difference"."""

from .scenes import (
    COLOR_NAMES,
    COLORS,
    GROUND_NAMES,
    MAX_THINGS,
    SHAPES,
    TOO_ALIKE,
    copy_scene,
    draw_ground,
    draw_spot,
    draw_style,
    draw_thing,
    jitter,
)

CHANGES = ["nothing", "color", "shape", "size", "gone", "new", "ground"]
WEIGHTS = [10, 20, 20, 15, 13, 13, 9]


def recolor(draw, scene, thing):
    """Another colour that can be seen on the ground."""
    thing.color = draw.pick([c for c in COLOR_NAMES if c != thing.color and (c, scene.ground) not in TOO_ALIKE])
    thing.rgb = jitter(draw, draw.pick(COLORS[thing.color]), 12)
    return True


def reshape(draw, thing):
    """Another shape in the same colour, size and place."""
    thing.kind, thing.digit = draw.pick([s for s in SHAPES if s != thing.kind]), -1
    color, rgb = thing.color, thing.rgb
    draw_style(draw, thing)
    thing.color, thing.rgb = color, rgb
    return True


def add(draw, scene):
    """A new thing in a free cell, or None."""
    if len(scene.things) >= MAX_THINGS:
        return None
    taken = {(t.row, t.col) for t in scene.things}
    thing = draw_thing(draw, scene.ground, scene.things, 13)
    thing.row, thing.col = draw.pick([divmod(c, 3) for c in range(9) if divmod(c, 3) not in taken])
    if not draw_spot(draw, thing, scene.things):
        return None
    draw_style(draw, thing)
    scene.things.append(thing)
    scene.things.sort(key=lambda t: (t.row, t.col))
    return thing


def change(draw, first, kind=None):
    """(second scene, kind of change, thing before, thing after); None where the drawn change does not fit."""
    second = copy_scene(first)
    kind = kind or CHANGES[draw.weighted(WEIGHTS)]
    index = draw.below(len(second.things))
    before, after = first.things[index], second.things[index]
    if kind == "color":
        recolor(draw, second, after)
    elif kind == "shape":
        reshape(draw, after)
    elif kind == "size":
        after.size = "large" if before.size == "small" else "small"
        if not draw_spot(draw, after, [t for t in second.things if t is not after]):
            return None
    elif kind == "gone":
        if len(second.things) < 2:
            return None
        second.things.pop(index)
    elif kind == "new":
        after = add(draw, second)
        if after is None:
            return None
    elif kind == "ground":
        clear = [
            g for g in GROUND_NAMES if g != first.ground and all((t.color, g) not in TOO_ALIKE for t in second.things)
        ]
        if not clear:
            return None
        second.ground = draw.pick(clear)
    if kind == "ground" or draw.chance(50):
        draw_ground(draw, second)
    return second, kind, before, after
