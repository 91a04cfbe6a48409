"""Moves into PLoRA what the base weights do for pictures alone. Nothing that pictures or text give changes much.

When everything learns together, the base weights learn to read pictures too, in directions of the residual stream that text
hardly uses: without PLoRA the model still captions half of the pictures. For each linear W with inputs x, take the directions v
with E_pictures (v.x)^2 >= SHARE * E_text (v.x)^2 (a generalised eigenproblem of two second moments), and the part of x that
they explain, U V^T x. Then

    W x + B A x  =  (W - W U V^T) x  +  (B A + W U V^T) x

exactly at picture rows; PLoRA's new product is cut back to its rank where that costs the pictures least. At text rows W U V^T x
is missing, which is small by the choice of V. On tuning seeds: SHARE 1000 leaves 5.7 % of the captions without PLoRA, 300 leaves
0.2 %, 100 none but costs questions about several pictures 2 points. Training PLoRA further after it gained nothing.
"""

import torch

from . import pictures
from .model import PLoRALinear
from .samples import TRAIN, batch

SHARE = 300  # a direction moves if pictures use it this many times as much as text
MOST = 32  # directions of one linear
COUNTS = {"one": 200, "two": 60, "many": 60, "text": 400}  # samples that the moments are taken over
SEED = TRAIN.start + (9 << 40)
RIDGE = 1e-4  # of the mean text moment: no direction is quite unused


def linears(model):
    """name -> module of all linears with PLoRA."""
    return {name: module for name, module in model.named_modules() if isinstance(module, PLoRALinear)}


class Moments:
    """Second moments of the inputs of every linear, apart for picture rows and text rows."""

    def __init__(self, model):
        self.sums, self.rows = {}, {}
        self.hooks = [
            m.register_forward_pre_hook(lambda _, args, n=n: self.add(n, args[0])) for n, m in linears(model).items()
        ]

    def add(self, name, x):
        """x: [B, T, n_in]; padding (id 0) counts as neither."""
        for kind, rows in self.rows.items():
            chosen = x.flatten(0, 1)[rows].double()
            total, count = self.sums.get((name, kind), (0, 0))
            self.sums[name, kind] = total + chosen.T @ chosen, count + len(chosen)

    def of(self, name, kind):
        """Mean of x x^T: [n_in, n_in], float64."""
        total, count = self.sums[name, kind]
        return total / count


@torch.no_grad()
def measure(model, coder, draw, device):
    """Moments over a few training samples of every bucket."""
    moments = Moments(model)
    for bucket, count in COUNTS.items():
        packed = batch(coder, {bucket: count}, SEED)
        rows, arrays = None, packed.get("pictures")
        if arrays:
            drawn = draw({key: torch.from_numpy(value).to(device) for key, value in arrays.items()})
            rows = model.vision_proj(model.tower(pictures.normalised(drawn))).flatten(0, 1)
        tokens = torch.from_numpy(packed[bucket]["tokens"]).long().to(device)
        moments.rows = {"pictures": (tokens < 0).flatten(), "text": (tokens > 0).flatten()}
        model.hidden(tokens, rows, torch.from_numpy(packed[bucket]["image"]).to(device))
    for hook in moments.hooks:
        hook.remove()
    return moments


def ridged(moment):
    """The moment with a little of every direction, so that it can be inverted."""
    n = len(moment)
    return moment + RIDGE * moment.trace() / n * torch.eye(n, dtype=moment.dtype, device=moment.device)


def directions(of_pictures, of_text):
    """(V, U), both [n_in, k], of the k directions that pictures use and text does not; V^T U is one."""
    whiten = torch.linalg.inv(torch.linalg.cholesky(ridged(of_text)))
    share, basis = torch.linalg.eigh(whiten @ of_pictures @ whiten.T)
    share, v = share.flip(0)[:MOST], (whiten.T @ basis.flip(1))[:, :MOST]
    keep = share >= SHARE
    return v[:, keep], (of_pictures @ v / share)[:, keep]


def low_rank(product, of_pictures, rank):
    """(A [rank, n_in], B [n_out, rank]) with the least E_pictures |(product - B A) x|^2; both factors alike in size."""
    root = torch.linalg.cholesky(ridged(of_pictures))
    left, size, right = torch.linalg.svd(product @ root, full_matrices=False)
    left, right = left[:, :rank] * size[:rank], torch.linalg.solve_triangular(root, right[:rank], upper=False, left=False)
    even = (left.norm(dim=0) / right.norm(dim=1)).sqrt().clamp(min=1e-3)  # nothing there: the last layer feeds no picture row
    return right * even[:, None], left / even


@torch.no_grad()
def fold(model, moments):
    """Folds the model in place; gives the number of directions moved in each linear."""
    moved = []
    for name, module in linears(model).items():
        of_pictures = moments.of(name, "pictures")
        v, u = directions(of_pictures, moments.of(name, "text"))
        w, a, b = (p.weight.double() for p in (module, module.Plora_A, module.Plora_B))
        through = w @ u @ v.T
        a, b = low_rank(b @ a + through, of_pictures, len(a))
        module.weight.copy_(w - through)
        module.Plora_A.weight.copy_(a)
        module.Plora_B.weight.copy_(b)
        moved.append(v.shape[1])
    return moved
