"""What can be in a picture: one to six things in a 3x3 grid on a plain ground, drawn from a seed.

Everything is a whole number, so that a seed gives the same scene in any language. Places and radii are in 1/4096 of the
picture's side, turns in degrees, stretch in 1/256, colours in 0..255. The order of the draws is the order of the code.
"""

from dataclasses import asdict, dataclass, field, replace

from .outlines import FACES, SHAPES
from .prng import Draw

UNIT = 4096
MAX_THINGS = 6

COLORS = {
    "red": [(220, 30, 35), (255, 0, 0), (205, 25, 45), (230, 40, 30)],
    "orange": [(245, 130, 20), (255, 165, 0), (255, 140, 0)],
    "yellow": [(250, 220, 30), (255, 255, 0), (255, 230, 20)],
    "green": [(30, 160, 60), (0, 128, 0), (0, 215, 0), (40, 140, 40), (0, 255, 0)],
    "cyan": [(40, 200, 215), (0, 255, 255), (0, 210, 210)],
    "blue": [(35, 75, 210), (0, 0, 255), (65, 105, 225), (20, 60, 190)],
    "purple": [(125, 45, 165), (128, 0, 128), (148, 0, 211), (110, 30, 150)],
    "pink": [(250, 140, 185), (255, 190, 203), (255, 105, 180), (255, 150, 190)],
    "white": [(250, 250, 250), (255, 255, 255)],
    "black": [(20, 20, 20), (0, 0, 0)],
}
GROUNDS = {
    "white": [(255, 255, 255), (246, 246, 246)],
    "black": [(0, 0, 0), (20, 20, 20)],
    "gray": [(128, 128, 128), (158, 158, 158), (112, 112, 112)],
    "light blue": [(173, 216, 230), (190, 220, 250)],
    "beige": [(245, 235, 205), (245, 245, 220), (235, 220, 185)],
    "light green": [(190, 235, 190), (170, 230, 170)],
    "dark blue": [(15, 25, 80), (0, 0, 100), (25, 35, 95)],
}
COLOR_NAMES, GROUND_NAMES = list(COLORS), list(GROUNDS)
KINDS = SHAPES + ["number"]
SIZES = ["small", "large"]
PLACES = [["top left", "top", "top right"], ["left", "center", "right"], ["bottom left", "bottom", "bottom right"]]
ALL_PLACES = [place for row in PLACES for place in row]

# A thing of this colour could hardly be seen on this ground.
TOO_ALIKE = {
    ("white", "white"),
    ("white", "beige"),
    ("black", "black"),
    ("black", "dark blue"),
    ("cyan", "light blue"),
    ("yellow", "beige"),
    ("blue", "dark blue"),
}
COUNT_WEIGHTS = [13, 15, 17, 18, 18, 19]  # of 1..6 things, in per cent
SMALL, LARGE, LONE = (246, 348), (540, 660), (660, 1000)  # radii; a lone large thing may be much larger
DIGIT_MIN_RADIUS = 290
FIRM = {"square", "diamond", "ring", "number"}  # stretched more, one could be taken for another
GAP = 26  # least distance between two things' circles
WIDE_JITTER, NARROW_JITTER = 400, 60


@dataclass(slots=True)
class Thing:
    """One shape or digit, and how it is drawn."""

    size: str
    color: str
    kind: str
    digit: int  # 0..9, or -1 for a shape
    row: int
    col: int
    cx: int = 0
    cy: int = 0
    r: int = 0
    turn: int = 0  # degrees clockwise, -25..25
    stretch: int = 256  # width times this / 256, height divided by it
    rgb: tuple = (0, 0, 0)
    rim: int = 256  # 256: none; less: a rim in the colour times this / 256
    face: int = 0  # of a digit
    pen: int = 0  # of a digit: pen radius in 1/1024 of r

    @property
    def noun(self):
        """`circle`, or `number 7`."""
        return self.kind if self.kind != "number" else f"number {self.digit}"

    @property
    def color_noun(self):
        """`red circle`"""
        return f"{self.color} {self.noun}"

    @property
    def full(self):
        """`large red circle`"""
        return f"{self.size} {self.color} {self.noun}"

    @property
    def place(self):
        """`top left`"""
        return PLACES[self.row][self.col]


@dataclass(slots=True)
class Scene:
    """A ground and the things on it, in reading order."""

    ground: str
    things: list = field(default_factory=list)
    near: tuple = (0, 0, 0)  # ground colour at one end of the gradient
    far: tuple = (0, 0, 0)  # and at the other
    slope: tuple = (0, 0)  # direction of the gradient, -1..1 each
    noise: int = 0  # amplitude, 0..26
    noise_seed: int = 0
    soften: int = 0  # weight of a 3x3 mean, 0..256

    def to_json(self):
        """Plain data, enough to draw the picture again."""
        return asdict(self)

    @staticmethod
    def from_json(data):
        """The reverse of `to_json`."""
        rest = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items() if key != "things"}
        things = [Thing(**{k: tuple(v) if isinstance(v, list) else v for k, v in t.items()}) for t in data["things"]]
        return Scene(things=things, **rest)


def jitter(draw, rgb, amount):
    """A colour near the given one."""
    return tuple(min(255, max(0, v + draw.between(-amount, amount))) for v in rgb)


def draw_color(draw, ground):
    """A colour that can be seen on the ground."""
    while True:
        color = draw.pick(COLOR_NAMES)
        if (color, ground) not in TOO_ALIKE:
            return color


def draw_thing(draw, ground, before, digits):
    """What a thing is; in a quarter of cases it repeats the colour or the kind of one before it."""
    size = draw.pick(SIZES)
    color = draw.pick(before).color if before and draw.chance(28) else draw_color(draw, ground)
    if before and draw.chance(28):
        kind = draw.pick(before).kind
    else:
        kind = "number" if draw.chance(digits) else draw.pick(SHAPES)
    return Thing(size, color, kind, draw.below(10) if kind == "number" else -1, 0, 0)


def draw_radius(draw, thing, alone):
    """A radius that fits the size word; the two ranges are far apart, so the word is never in doubt."""
    if thing.size == "small":
        low, high = SMALL
        return draw.between(DIGIT_MIN_RADIUS if thing.kind == "number" else low, high)
    return draw.between(*LONE) if alone and draw.chance(50) else draw.between(*LARGE)


def apart(thing, others):
    """No two things touch."""
    return all((thing.cx - o.cx) ** 2 + (thing.cy - o.cy) ** 2 > (thing.r + o.r + GAP) ** 2 for o in others)


def draw_spot(draw, thing, others, alone=False):
    """Radius and centre inside the thing's cell; False after twelve tries that touched another thing."""
    for attempt in range(12):
        thing.r = draw_radius(draw, thing, alone)
        reach = WIDE_JITTER if attempt < 8 else NARROW_JITTER
        margin = min(thing.r, 660) + 12
        thing.cx = min(max(UNIT * (2 * thing.col + 1) // 6 + draw.between(-reach, reach), margin), UNIT - margin)
        thing.cy = min(max(UNIT * (2 * thing.row + 1) // 6 + draw.between(-reach, reach), margin), UNIT - margin)
        if apart(thing, others):
            return True
    return False


def draw_style(draw, thing):
    """How the thing is drawn: nothing of this is ever asked about."""
    thing.turn = draw.between(-25, 25) if draw.chance(65) else 0
    slack = 24 if thing.kind in FIRM else 44
    thing.stretch = draw.between(256 - slack, 256 + slack) if draw.chance(50) else 256
    thing.rgb = jitter(draw, draw.pick(COLORS[thing.color]), 12)
    rimmed = thing.kind not in ("number", "ring") and thing.size == "large" and thing.color != "black"
    thing.rim = draw.pick([64, 128]) if rimmed and draw.chance(25) else 256
    thing.face = draw.below(len(FACES)) if thing.kind == "number" else 0
    thing.pen = draw.between(65, 185) if thing.kind == "number" else 0


def draw_ground(draw, scene):
    """Tint, gradient, noise and softness of the picture."""
    tint = draw.pick(GROUNDS[scene.ground])
    scene.near = jitter(draw, tint, 6)
    scene.far = jitter(draw, tint, 12) if draw.chance(30) else scene.near
    scene.slope = draw.pick([(1, 0), (0, 1), (1, 1), (1, -1)])
    scene.noise = draw.below(27) if draw.chance(35) else 0
    scene.noise_seed = draw.next()
    scene.soften = draw.below(257) if draw.chance(35) else 0


def draw_scene(draw, count=None, digits=13):
    """A scene of `count` things, or of a drawn count; `digits`: per cent of things that are digits."""
    while True:
        ground = draw.pick(GROUND_NAMES) if draw.chance(80) else "white"
        number = count or 1 + draw.weighted(COUNT_WEIGHTS)
        scene = Scene(ground)
        for cell in draw.sample(range(9), number):
            thing = draw_thing(draw, ground, scene.things, digits)
            thing.row, thing.col = divmod(cell, 3)
            if not draw_spot(draw, thing, scene.things, alone=number == 1):
                break
            draw_style(draw, thing)
            scene.things.append(thing)
        if len(scene.things) == number:
            scene.things.sort(key=lambda t: (t.row, t.col))
            draw_ground(draw, scene)
            return scene


def scene_from_seed(seed, count=None):
    """The scene that belongs to a seed."""
    return draw_scene(Draw(seed), count)


def copy_scene(scene):
    """A deep copy."""
    return replace(scene, things=[replace(thing) for thing in scene.things])
