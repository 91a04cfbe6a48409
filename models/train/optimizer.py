"""Muon for the matrices inside the blocks, AdamW for the rest.

Muon (Jordan et al., 2024) replaces a matrix's averaged gradient by the nearest orthogonal matrix, found by a few steps of a
Newton-Schulz iteration. Matrices of one shape are done together. The step is scaled as in Liu et al., 2025, so that its size
is that of an AdamW step with the same rate.
"""

import torch

COEFFICIENTS = (
    3.4445,
    -4.7750,
    2.0315,
)  # of the quintic; they trade exactness for speed, singular values land in 0.7..1.2
MOMENTUM, STEPS = 0.95, 5


def orthogonal(g):
    """Nearly U V^T of each matrix of a stack [n, rows, columns]."""
    a, b, c = COEFFICIENTS
    x = g.bfloat16() if g.is_cuda else g.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        y = x @ x.mT
        x = a * x + (b * y + c * y @ y) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, then `orthogonal`, for matrices grouped by shape."""

    def __init__(self, groups, weight_decay):
        super().__init__(groups, dict(lr=0.0, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            ready = [p for p in group["params"] if p.grad is not None]
            for shape in {p.shape for p in ready}:
                self.step_shape([p for p in ready if p.shape == shape], group["lr"], group["weight_decay"])

    def step_shape(self, params, lr, weight_decay):
        """All matrices of one shape."""
        for p in params:
            if "mean" not in self.state[p]:
                self.state[p]["mean"] = torch.zeros_like(p)
        means, grads = [self.state[p]["mean"] for p in params], [p.grad for p in params]
        torch._foreach_lerp_(means, grads, 1 - MOMENTUM)
        ahead = torch.stack(torch._foreach_lerp(grads, means, MOMENTUM))  # Nesterov
        step = orthogonal(ahead) * (0.2 * max(params[0].shape) ** 0.5)
        torch._foreach_mul_(params, 1 - lr * weight_decay)
        torch._foreach_add_(params, list(step.unbind(0)), alpha=-lr)


def wants_muon(name, p):
    """Matrices that map activations to activations; PLoRA's thin factors do better with AdamW."""
    return p.ndim == 2 and "embed" not in name and "output" not in name and "Plora" not in name and "heads" not in name


def make_optimizers(named, rate, matrix_rate, fused):
    """[AdamW, Muon] over named parameters; each group keeps its full rate in `base`."""
    matrices = [p for name, p in named if wants_muon(name, p)]
    rest = [(name, p) for name, p in named if not wants_muon(name, p)]
    decayed = [p for name, p in rest if p.ndim >= 2 and "embed" not in name]
    plain = [p for name, p in rest if not (p.ndim >= 2 and "embed" not in name)]
    groups = [dict(params=ps, weight_decay=wd, base=rate) for ps, wd in ((decayed, 0.05), (plain, 0.0)) if ps]
    optimizers = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.97), eps=1e-8, fused=fused)]
    if matrices:
        optimizers.append(Muon([dict(params=matrices, base=matrix_rate)], weight_decay=0.05))
    return optimizers
