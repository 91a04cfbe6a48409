"""The outlines of the shapes and digits, as a table of whole numbers: `outlines.json`, which any renderer can read.

Unit: 1/1024 of the radius, y downwards. An outline is either filled (closed, even-odd) or stroked with a round pen. `python3
-m train.outlines` writes the file again; the curves are computed here once, so that nobody else needs sine or cosine.
"""

import json
import math
from pathlib import Path

UNIT = 1024
FILE = Path(__file__).with_name("outlines.json")
SHAPES = ["circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond"]
FACES = ["round", "based", "segments"]  # three ways to write a digit
MAX_EDGES = 32
MAX_TURN = 45  # degrees for which sine and cosine are listed
TURN_UNIT = 16384


def arc(cx, cy, rx, ry, start, end, steps):
    """Points of an ellipse from `start` to `end` degrees; 0 is right, 90 is down."""
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def heart():
    """The well-known sine heart, moved and scaled into the unit circle."""
    points = []
    for i in range(32):
        t = 2 * math.pi * i / 32
        x = 16 * math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        points.append((x / 17.5, (y + 2.5) / 17.5))
    return points


def star():
    """Five points; the inner corners at 0.42 of the radius."""
    radii = [1.0 if i % 2 == 0 else 0.42 for i in range(10)]
    return [(r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i, r in enumerate(radii)]


def cross():
    """A plus sign with arms 0.56 wide."""
    w, c = 0.28, 0.92
    return [(-w, -c), (w, -c), (w, -w), (c, -w), (c, w), (w, w), (w, c), (-w, c), (-w, w), (-c, w), (-c, -w), (-w, -w)]


def shapes():
    """name -> (filled, list of polylines, pen radius)"""
    s = 0.76
    return {
        "circle": (True, [arc(0, 0, 0.92, 0.92, 0, 360 - 360 / 32, 31)], 0),
        "square": (True, [[(-s, -s), (s, -s), (s, s), (-s, s)]], 0),
        "triangle": (True, [[(0, -0.95), (0.9, 0.68), (-0.9, 0.68)]], 0),
        "star": (True, [star()], 0),
        "heart": (True, [heart()], 0),
        "ring": (False, [arc(0, 0, 0.72, 0.72, 0, 360, 32)], 0.2),
        "cross": (True, [cross()], 0),
        "diamond": (True, [[(0, -1.0), (0.62, 0), (0, 1.0), (-0.62, 0)]], 0),
    }


def round_digits():
    """Digits as a pen writes them: polylines without a base or a bar."""
    six = [
        arc(0, 0.36, 0.47, 0.46, 0, 360, 16),
        [(-0.47, 0.36), (-0.45, -0.05), (-0.33, -0.44), (-0.08, -0.72), (0.32, -0.82)],
    ]
    nine = [[(-x, -y) for x, y in line] for line in six]
    return [
        [arc(0, 0, 0.48, 0.82, 0, 360, 20)],
        [[(-0.32, -0.50), (0.05, -0.82), (0.05, 0.82)]],
        [arc(0, -0.36, 0.46, 0.46, -165, 30, 12) + [(-0.46, 0.82), (0.48, 0.82)]],
        [arc(-0.02, -0.42, 0.42, 0.40, -155, 80, 11) + [(-0.12, -0.03)], arc(0, 0.40, 0.48, 0.42, -85, 155, 11)],
        [[(0.20, 0.82), (0.20, -0.82), (-0.55, 0.34), (0.55, 0.34)]],
        [[(0.42, -0.82), (-0.36, -0.82), (-0.40, -0.06)] + arc(0, 0.30, 0.47, 0.52, -140, 145, 12)],
        six,
        [[(-0.48, -0.82), (0.48, -0.82), (-0.12, 0.82)]],
        [arc(0, -0.42, 0.40, 0.40, 0, 360, 14), arc(0, 0.40, 0.48, 0.43, 0, 360, 14)],
        nine,
    ]


def based_digits():
    """The round face with the other habits: 1 on a base, an open 4, a 7 with a bent stem, straight 6 and 9, a flat 3."""
    digits = round_digits()
    digits[1] = [[(-0.34, -0.52), (0.0, -0.82), (0.0, 0.82)], [(-0.36, 0.82), (0.36, 0.82)]]
    digits[3] = [[(-0.45, -0.82), (0.44, -0.82), (-0.02, -0.12)], arc(-0.02, 0.35, 0.48, 0.47, -85, 150, 12)]
    digits[4] = [[(0.12, -0.82), (-0.50, 0.30), (0.52, 0.30)], [(0.24, -0.12), (0.24, 0.82)]]
    digits[6] = [arc(0, 0.36, 0.46, 0.46, 0, 360, 16), [(-0.44, 0.24), (0.18, -0.82)]]
    digits[7] = [[(-0.46, -0.82), (0.46, -0.82), (0.10, -0.10), (-0.06, 0.82)]]
    digits[9] = [arc(0, -0.36, 0.46, 0.46, 0, 360, 16), [(0.44, -0.24), (-0.18, 0.82)]]
    return digits


def segment_digits():
    """Seven segments, as on a clock."""
    h, w = 0.80, 0.44
    bars = {
        "a": [(-w, -h), (w, -h)],
        "b": [(w, -h), (w, 0)],
        "c": [(w, 0), (w, h)],
        "d": [(-w, h), (w, h)],
        "e": [(-w, 0), (-w, h)],
        "f": [(-w, -h), (-w, 0)],
        "g": [(-w, 0), (w, 0)],
    }
    lit = ["abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg"]
    return [[bars[name] for name in names] for names in lit]


def edges(filled, lines):
    """Polylines to edges [x0, y0, x1, y1]; a filled line is closed."""
    out = []
    for line in lines:
        points = [(round(x * UNIT), round(y * UNIT)) for x, y in line]
        out += [[*a, *b] for a, b in zip(points, points[1:] + points[:1] if filled else points[1:])]
    assert len(out) <= MAX_EDGES, len(out)
    return out


def build():
    """The whole table: shapes by name first, then each face's ten digits."""
    table = []
    for name, (filled, lines, pen) in shapes().items():
        table.append({"name": name, "filled": filled, "pen": round(pen * UNIT), "edges": edges(filled, lines)})
    for face, digits in zip(FACES, (round_digits(), based_digits(), segment_digits())):
        for digit, lines in enumerate(digits):
            table.append({"name": f"{face} {digit}", "filled": False, "pen": 0, "edges": edges(False, lines)})
    sine = [round(math.sin(math.radians(d)) * TURN_UNIT) for d in range(-MAX_TURN, MAX_TURN + 1)]
    cosine = [round(math.cos(math.radians(d)) * TURN_UNIT) for d in range(-MAX_TURN, MAX_TURN + 1)]
    return {
        "unit": UNIT,
        "turn_unit": TURN_UNIT,
        "max_turn": MAX_TURN,
        "sine": sine,
        "cosine": cosine,
        "outlines": table,
    }


def load():
    """The table as committed."""
    return json.loads(FILE.read_text())


def index_of(kind, digit, face):
    """The place of a thing's outline in the table."""
    return SHAPES.index(kind) if kind != "number" else len(SHAPES) + 10 * face + digit


if __name__ == "__main__":
    table = build()
    rows = ",\n".join("  " + json.dumps(row) for row in table.pop("outlines"))
    head = json.dumps(table)[:-1]
    FILE.write_text(f'{head},\n "outlines": [\n{rows}\n ]}}\n')
