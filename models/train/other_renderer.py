"""Another hand drawing the same scenes: Pillow's polygons, lines and typefaces, flat grounds, no noise. And what happens to
pictures on their way: JPEG, other sizes, other aspect ratios, turned things.

Nothing here was seen in training.
"""

import io
import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from . import outlines, renderer
from .pictures import SIDE
from .scenes import UNIT, copy_scene

SCALE = 3  # drawn larger, then reduced with Lanczos; large pictures are not
TABLE = outlines.load()["outlines"]


class Pen:
    """A canvas of width x height pixels; a scene's unit square is stretched over it, its things are not."""

    def __init__(self, width, height, ground):
        scale = SCALE if width < 1000 else 1
        self.size = (width * scale, height * scale)
        self.image = Image.new("RGB", self.size, ground)
        self.draw = ImageDraw.Draw(self.image)

    def spot(self, thing):
        """Centre and radius in pixels."""
        return thing.cx * self.size[0] / UNIT, thing.cy * self.size[1] / UNIT, thing.r * min(self.size) / UNIT

    def turned(self, thing, points):
        """Outline points in 1/1024 of the radius to pixels."""
        cx, cy, r = self.spot(thing)
        a, s = math.radians(thing.turn), thing.stretch / 256
        moved = [(x / 1024 * s, y / 1024 / s) for x, y in points]
        return [
            (cx + r * (math.cos(a) * x - math.sin(a) * y), cy + r * (math.sin(a) * x + math.cos(a) * y))
            for x, y in moved
        ]

    def stroke(self, thing, edges, pen):
        """Lines with round ends."""
        width = pen / 1024 * self.spot(thing)[2]
        for edge in edges:
            a, b = self.turned(thing, [edge[:2], edge[2:]])
            self.draw.line([a, b], fill=tuple(thing.rgb), width=max(1, round(2 * width)))
            for x, y in (a, b):
                self.draw.ellipse([x - width, y - width, x + width, y + width], fill=tuple(thing.rgb))

    def thing(self, thing, font):
        """One shape or digit; `font(size)`: a typeface for digits, or None for the strokes of the table."""
        row = TABLE[outlines.index_of(thing.kind, thing.digit, thing.face)]
        if thing.kind == "number" and font:
            cx, cy, r = self.spot(thing)
            self.draw.text((cx, cy), str(thing.digit), font=font(2.3 * r), fill=tuple(thing.rgb), anchor="mm")
        elif row["filled"]:
            self.draw.polygon(self.turned(thing, [edge[:2] for edge in row["edges"]]), fill=tuple(thing.rgb))
        else:
            self.stroke(thing, row["edges"], row["pen"] + thing.pen)


def drawn(scene, width=400, height=400, font=None):
    """A scene as Pillow draws it."""
    pen = Pen(width, height, tuple(scene.near))
    for thing in scene.things:
        pen.thing(thing, font)
    return pen.image.resize((width, height), Image.LANCZOS)


def jpeg(image, quality):
    """The picture after JPEG at this quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def ours(scene, side=SIDE):
    """A scene as our renderer draws it, as a Pillow image."""
    return Image.fromarray(renderer.render(scene, side))


def turned(scene, degrees):
    """The scene with every thing turned this far, one way or the other in turn."""
    scene = copy_scene(scene)
    for i, thing in enumerate(scene.things):
        thing.turn = degrees if i % 2 else -degrees
    return scene


def typeface(size):
    """Pillow's own font."""
    return ImageFont.load_default(size)


# name -> scene to picture, before the model's own resize
WAYS = {
    "as trained": ours,
    "Pillow": drawn,
    "Pillow, digits in a typeface": lambda s: drawn(s, font=typeface),
    "Pillow, JPEG quality 40": lambda s: jpeg(drawn(s), 40),
    "JPEG quality 40": lambda s: jpeg(ours(s), 40),
    "JPEG quality 40 at 336 px": lambda s: jpeg(ours(s, 336), 40),
    "96 px": lambda s: ours(s, 96),
    "128 px": lambda s: ours(s, 128),
    "512 px": lambda s: ours(s, 512),
    "Pillow, 1600 x 1600": lambda s: drawn(s, 1600, 1600),
    "Pillow, 4:3": lambda s: drawn(s, 480, 360),
    "Pillow, 3:4": lambda s: drawn(s, 360, 480),
    "Pillow, 16:9": lambda s: drawn(s, 640, 360),
    "all turned by 15 degrees": lambda s: ours(turned(s, 15)),
    "all turned by 25 degrees": lambda s: ours(turned(s, 25)),
    "Pillow, all turned by 25 degrees": lambda s: drawn(turned(s, 25)),
}


def prepared(image):
    """What the runtime does first: bicubic to the model's side, whatever the aspect ratio. uint8 [3, side, side]."""
    small = image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE), Image.BICUBIC)
    return np.array(small).transpose(2, 0, 1)


def seen(task):
    """(scene, way) to uint8 [3, side, side]."""
    scene, way = task
    return prepared(WAYS[way](scene))


def see(scenes, way, apply=map):
    """uint8 [n, 3, side, side] of scenes drawn a certain way; `apply` may be a pool's map."""
    return torch.from_numpy(np.stack(list(apply(seen, [(scene, way) for scene in scenes]))))
