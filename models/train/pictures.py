"""Scenes as the model gets them: drawn, normalised, and (for the tower's own lessons) labelled patch by patch."""

import numpy as np
import torch
import torch.nn.functional as F

from . import renderer
from .outlines import SHAPES
from .scenes import COLOR_NAMES, GROUND_NAMES, MAX_THINGS, SIZES, UNIT, scene_from_seed

SIDE, PATCH = 168, 14
GRID = SIDE // PATCH
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, RGB
CHECKED = 40  # scenes that both renderers must draw alike before training
N_KINDS = len(SHAPES) + 10
LABEL_SIZES = [
    N_KINDS + 1,
    len(COLOR_NAMES) + 1,
    len(SIZES) + 1,
    len(GROUND_NAMES),
]  # 0 of the first three: nothing there


def arrays(scenes):
    """`renderer.scene_arrays` with labels: things [n, MAX_THINGS, 6] (cx, cy, r, kind, colour, size) and ground [n]."""
    out = renderer.scene_arrays(scenes)
    things = np.zeros((len(scenes), MAX_THINGS, 6), np.int32)
    for i, scene in enumerate(scenes):
        for j, t in enumerate(scene.things):
            kind = SHAPES.index(t.kind) if t.kind != "number" else len(SHAPES) + t.digit
            things[i, j] = t.cx, t.cy, t.r, kind + 1, COLOR_NAMES.index(t.color) + 1, SIZES.index(t.size) + 1
    return dict(out, things=things, ground=np.array([GROUND_NAMES.index(s.ground) for s in scenes], np.int64))


class CpuRenderer:
    """`renderer.render` for batches."""

    def __call__(self, batch):
        rows = {key: value.numpy() for key, value in batch.items()}
        drawn = [renderer.render_row(rows, i, SIDE) for i in range(len(rows["counts"]))]
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)


def make_renderer(device):
    """The renderer of the device; the GPU's is first held against the definition."""
    if device == "cpu":
        return CpuRenderer()
    from .renderer_cuda import CudaRenderer, check

    draw = CudaRenderer(device, SIDE)
    difference = check(draw, [scene_from_seed(seed) for seed in range(CHECKED)], device)
    assert difference == 0, f"the GPU renderer differs from the definition by {difference} levels"
    return draw


def normalised(drawn):
    """uint8 [n, 3, side, side] to what the tower takes, float32."""
    mean, std = (torch.tensor(v, device=drawn.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (drawn.float() / 255 - mean) / std


def patch_labels(batch):
    """Kind, colour and size at the centre of each patch: [3, n, GRID * GRID], 0 where nothing is."""
    things = batch["things"].long()
    centre = (torch.arange(GRID, device=things.device) * 2 + 1) * UNIT // (2 * GRID)
    x, y = centre.repeat(GRID)[None], centre.repeat_interleave(GRID)[None]
    labels = torch.zeros(3, things.shape[0], GRID * GRID, dtype=torch.long, device=things.device)
    for j in range(MAX_THINGS):
        cx, cy, r, *names = things[:, j, :, None].unbind(1)
        hit = ((x - cx) ** 2 + (y - cy) ** 2 < r.clamp(min=UNIT // 17) ** 2) & (r > 0)
        labels = torch.stack([torch.where(hit, name, old) for name, old in zip(names, labels)])
    return labels


def label_loss(heads, features, batch):
    """(loss, share of covered patches read right): what the tower's features say of each patch, through linear heads."""
    labels = patch_labels(batch)
    *parts, ground = heads(features).float().split(LABEL_SIZES, -1)
    covered = labels[0] > 0
    weight = torch.where(covered, 1.0, 0.12)  # most patches are empty
    loss = sum(
        (F.cross_entropy(p.flatten(0, 1), y.flatten(), reduction="none").view_as(weight) * weight).sum()
        for p, y in zip(parts, labels)
    )
    every = batch["ground"][:, None].expand(-1, GRID * GRID)
    loss = loss / weight.sum() + 0.3 * F.cross_entropy(ground.flatten(0, 1), every.flatten())
    right = torch.stack([p.argmax(-1) == y for p, y in zip(parts, labels)]).all(0)
    return loss, right[covered].float().mean().detach()
