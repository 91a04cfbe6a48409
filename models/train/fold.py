"""Moves into PLoRA what the base weights do for pictures alone, after training. Nothing that pictures or text give changes much.

When everything learns together, the base weights learn to read pictures too, in directions of the residual stream that text
hardly uses: PLoRA off still captioned half of the pictures. For each linear W with inputs x, take the directions v with
E_pictures (v.x)^2 >= SHARE * E_text (v.x)^2 (a generalised eigenproblem of two second moments), and the part of x that they
explain, U V^T x. Then

    W x + B A x  =  (W - W U V^T) x  +  [B, W U] [A; V^T] x

exactly at picture rows. At text rows W U V^T x is missing, which is small by the choice of V.
"""

import dataclasses

import torch

from . import pictures
from .model import Config, PLoRALinear, XComposer2
from .samples import TRAIN, batch

SHARE = 100  # a direction moves if pictures use it this many times as much as text
MOST = 32  # directions of one linear; the rank grows by this
COUNTS = {"one": 24, "two": 8, "many": 8, "text": 48}  # samples that the moments are taken over
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


def directions(of_pictures, of_text):
    """(V, U), both [n_in, MOST], columns zero where a direction does not qualify; V^T U is one where it does."""
    n = len(of_text)
    of_text = of_text + RIDGE * of_text.trace() / n * torch.eye(n, dtype=of_text.dtype, device=of_text.device)
    whiten = torch.linalg.inv(torch.linalg.cholesky(of_text))
    share, basis = torch.linalg.eigh(whiten @ of_pictures @ whiten.T)
    share, v = share.flip(0)[:MOST], (whiten.T @ basis.flip(1))[:, :MOST]
    keep = share >= SHARE
    return v * keep, of_pictures @ v / share * keep


def folded(model, moments):
    """(a model of rank + MOST, directions moved per linear)."""
    state, moved = dict(model.state_dict()), {}
    for name, module in linears(model).items():
        v, u = directions(moments.of(name, "pictures"), moments.of(name, "text"))
        w = module.weight.double()
        wu = w @ u
        even = (wu.norm(dim=0) / v.norm(dim=0)).sqrt().nan_to_num(nan=1.0).clamp(min=1e-6)  # both factors alike in size
        state[name + ".weight"] = (w - wu @ v.T).float()
        state[name + ".Plora_A.weight"] = torch.cat([module.Plora_A.weight, (v * even).T.float()])
        state[name + ".Plora_B.weight"] = torch.cat([module.Plora_B.weight, (wu / even).float()], 1)
        moved[name] = int((v.norm(dim=0) > 0).sum())
    out = XComposer2(dataclasses.replace(Config(), rank=model.c.rank + MOST))
    out.load_state_dict(state)
    return out.to(next(model.parameters()).device).eval(), moved
