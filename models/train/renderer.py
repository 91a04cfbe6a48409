"""Draws a scene: the definition, in plain whole-number arithmetic, to be repeated to the pixel elsewhere.

Points are in 1/64 pixel. A thing's coverage of a pixel is the share of 4x4 sample points inside its outline: even-odd for
filled outlines, within the pen's radius of an edge for stroked ones. Then 3x3 softening, then noise.
`renderer_cuda` is the same in one GPU kernel, and equal to the byte.
"""

import numpy as np

from . import outlines
from .prng import GAMMA, MASK
from .scenes import MAX_THINGS

SUB = 64  # 1/64 pixel
SAMPLES = 4  # per pixel and axis
MAX_LAYERS = 2 * MAX_THINGS  # a rim is a layer of its own
FIELDS = ["outline", "cx", "cy", "r", "turn", "stretch", "pen", "red", "green", "blue"]  # of a layer
TABLE = outlines.load()


def table_arrays():
    """Outlines as arrays: edges [n_outline, MAX_EDGES, 4], n_edges, filled, pen [n_outline]; sine, cosine [91]."""
    rows = TABLE["outlines"]
    edges = np.zeros((len(rows), outlines.MAX_EDGES, 4), np.int64)
    for i, row in enumerate(rows):
        edges[i, : len(row["edges"])] = row["edges"]
        edges[i, len(row["edges"]) :] = row["edges"][-1][2:] * 2  # an edge of no length changes nothing
    columns = {k: np.array([row[k] for row in rows], np.int64) for k in ("filled", "pen")}
    counts = np.array([len(row["edges"]) for row in rows], np.int64)
    return dict(edges=edges, n_edges=counts, sine=np.array(TABLE["sine"]), cosine=np.array(TABLE["cosine"]), **columns)


ARRAYS = table_arrays()


def layers_of(scene):
    """Rows of FIELDS, bottom first: the rim in a darker colour, and the thing at 7/8 of the radius on it."""
    rows = []
    for t in scene.things:
        place = [outlines.index_of(t.kind, t.digit, t.face), t.cx, t.cy]
        look = [t.turn + outlines.MAX_TURN, t.stretch, t.pen]
        if t.rim != 256:
            rows.append([*place, t.r, *look, *(v * t.rim >> 8 for v in t.rgb)])
        rows.append([*place, t.r if t.rim == 256 else t.r * 7 >> 3, *look, *t.rgb])
    return rows


def placed_edges(arrays, layers, side):
    """Edges of layers [..., FIELDS] in 1/64 pixel: ([..., MAX_EDGES, 4], pen radius [...]); numpy and torch alike.

    A point (x, y) is stretched, turned, scaled by the radius and moved to the centre; shifts round down.
    """
    column = {name: layers[..., i] for i, name in enumerate(FIELDS)}
    edges = arrays["edges"][column["outline"]]
    wide = column["stretch"][..., None]
    sine, cosine = arrays["sine"][column["turn"]][..., None], arrays["cosine"][column["turn"]][..., None]
    radius = (column["r"] * side * SUB >> 12)[..., None]
    out = []
    for x, y in ((0, 1), (2, 3)):
        u, v = edges[..., x] * wide, edges[..., y] * (65536 // wide)  # 10 + 8 bits
        out.append((radius * ((cosine * u - sine * v) >> 18) >> 14) + (column["cx"] * side * SUB >> 12)[..., None])
        out.append((radius * ((sine * u + cosine * v) >> 18) >> 14) + (column["cy"] * side * SUB >> 12)[..., None])
    pen = arrays["pen"][column["outline"]] + column["pen"]
    return out, radius[..., 0] * pen >> 10


def covered(edges, filled, pen, px, py):
    """Which sample points (px, py) lie inside; edges: [n, 4]."""
    inside = np.zeros(np.broadcast_shapes(px.shape, py.shape), bool)
    for ax, ay, bx, by in edges.tolist():
        ex, ey = bx - ax, by - ay
        if filled:
            left, right = (px - ax) * ey, (py - ay) * ex
            inside ^= ((ay > py) != (by > py)) & ((left < right) if ey > 0 else (left > right))
            continue
        dx, dy, length = px - ax, py - ay, ex * ex + ey * ey
        along, across = dx * ex + dy * ey, dx * ey - dy * ex
        near_a = dx * dx + dy * dy <= pen * pen
        near_b = (dx - ex) ** 2 + (dy - ey) ** 2 <= pen * pen
        beside = (along > 0) & (along < length) & (across * across <= pen * pen * length)
        inside |= near_a | near_b | beside
    return inside


def draw_layer(picture, layer, side):
    """Blends one layer [FIELDS] into picture [side, side, 3] (int64)."""
    (ax, ay, bx, by), pen = placed_edges(ARRAYS, layer, side)
    outline = int(layer[0])
    edges = np.stack([ax, ay, bx, by], -1)[: ARRAYS["n_edges"][outline]]
    xs, ys, grow = edges[:, 0::2], edges[:, 1::2], int(pen)
    x0, x1 = (max(0, int(v) >> 6) for v in (xs.min() - grow, xs.max() + grow + SUB))
    y0, y1 = (max(0, int(v) >> 6) for v in (ys.min() - grow, ys.max() + grow + SUB))
    x1, y1 = min(x1 + 1, side), min(y1 + 1, side)
    if x0 >= x1 or y0 >= y1:
        return
    step = SUB // SAMPLES
    px = np.arange(x0 * SAMPLES, x1 * SAMPLES)[None, :] * step + step // 2
    py = np.arange(y0 * SAMPLES, y1 * SAMPLES)[:, None] * step + step // 2
    inside = covered(edges, bool(ARRAYS["filled"][outline]), grow, px, py)
    share = inside.reshape(y1 - y0, SAMPLES, x1 - x0, SAMPLES).sum((1, 3))[..., None]  # 0..16
    part = picture[y0:y1, x0:x1]
    part[:] = (part * (16 - share) + layer[7:10] * share + 8) >> 4


def scene_arrays(scenes):
    """Scenes as arrays, one row each: all that either renderer needs."""
    n = len(scenes)
    layers = np.zeros((n, MAX_LAYERS, len(FIELDS)), np.int32)
    layers[:, :, FIELDS.index("stretch")] = 256  # of the layers that are not there: no division by zero
    counts, grounds = np.zeros(n, np.int32), np.zeros((n, 8), np.int32)
    settings, seeds = np.zeros((n, 2), np.int32), np.zeros(n, np.uint64)
    for i, scene in enumerate(scenes):
        rows = layers_of(scene)
        counts[i] = len(rows)
        layers[i, : len(rows)] = rows
        grounds[i] = [*scene.near, *scene.far, *scene.slope]
        settings[i] = scene.soften, scene.noise
        seeds[i] = scene.noise_seed
    return dict(layers=layers, counts=counts, grounds=grounds, settings=settings, seeds=seeds.view(np.int64))


def gradient(ground, side):
    """The ground [near rgb, far rgb, slope x, slope y]: [side, side, 3]."""
    at = 2 * np.arange(side) + 1 - side
    t = (ground[6] * at[None, :] + ground[7] * at[:, None] + 2 * side) * 64 // side  # 0..256
    return (ground[:3] * (256 - t[..., None]) + ground[3:6] * t[..., None] + 128) >> 8


def softened(picture, weight):
    """A mix with the mean of the 3x3 neighbours; edges repeat."""
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0)), mode="edge")
    side = picture.shape[0]
    total = sum(padded[y : y + side, x : x + side] for y in range(3) for x in range(3))
    return (picture * (9 * (256 - weight)) + total * weight + 1152) // 2304


def noise_of(seed, side):
    """Triangular noise in -255..255, [side, side, 3]: splitmix64 of the pixel number, 16 bits per channel."""
    count = np.arange(1, side * side + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed & MASK) + count * np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    parts = [((z >> np.uint64(8 * i)) & np.uint64(255)).astype(np.int64) for i in range(6)]
    return np.stack([parts[2 * c] + parts[2 * c + 1] - 255 for c in range(3)], -1).reshape(side, side, 3)


def render_row(arrays, i, side):
    """The picture of row i of `scene_arrays`: uint8 [side, side, 3], RGB."""
    picture = gradient(arrays["grounds"][i].astype(np.int64), side)
    for layer in arrays["layers"][i, : arrays["counts"][i]].astype(np.int64):
        draw_layer(picture, layer, side)
    soften, noise = (int(v) for v in arrays["settings"][i])
    if soften:
        picture = softened(picture, soften)
    if noise:
        picture = picture + ((noise_of(int(arrays["seeds"][i]), side) * noise + 128) >> 8)
    return np.clip(picture, 0, 255).astype(np.uint8)


def render(scene, side):
    """The picture of a scene: uint8 [side, side, 3], RGB."""
    return render_row(scene_arrays([scene]), 0, side)
