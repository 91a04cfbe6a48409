"""Marks the exam: is the greedy answer the expected one, to the letter, and by what margin.

A prompt is run once with its expected answer. If the arg-max at every place is the next token (`[UNUSED_TOKEN_145]` at the
end included), greedy decoding gives exactly this answer, and only then.
"""

from collections import defaultdict

import numpy as np
import torch

from . import exam, pictures
from .prompts import encode
from .samples import TUNE, pack

CHUNK = 100  # prompts at a time
STEP = 64  # lengths are padded to a multiple
GROUPS = {"eyes": [], "language": ["text"], "pictures": ["captions", "questions"], "together": None}


def draw_pictures(draw, scenes, device):
    """Pictures by the training's own renderer: uint8 [n, 3, side, side]."""
    arrays = {key: torch.from_numpy(value).to(device) for key, value in pictures.arrays(scenes).items()}
    return draw(arrays)


def chunks(papers):
    """Runs of papers of one bucket."""
    order = sorted(range(len(papers)), key=lambda i: papers[i].bucket)
    start = 0
    for i in range(1, len(order) + 1):
        full = i - start == CHUNK
        if i == len(order) or full or papers[order[i]].bucket != papers[order[start]].bucket:
            yield order[start:i]
            start = i


class Examiner:
    """A model and how its pictures come about."""

    def __init__(self, model, coder, device, see):
        self.model, self.coder, self.device, self.see = model, coder, device, see

    def rows(self, scenes):
        """Projector outputs [n * n_patches, D] of scenes' pictures, or None."""
        if not scenes:
            return None
        pixels = pictures.normalised(self.see(scenes))
        return self.model.vision_proj(self.model.tower(pixels)).flatten(0, 1)

    def logits(self, papers, encoded, plora):
        """(logits at the targets [n, n_vocab], target ids, paper of each target)."""
        length = -(-max(len(ids) for ids, _ in encoded) // STEP) * STEP
        packed = {key: torch.from_numpy(value).to(self.device) for key, value in pack(encoded, length).items()}
        rows = self.rows([scene for paper in papers for scene in paper.scenes])
        hidden = self.model.hidden(packed["tokens"].long(), rows, packed["image"], plora)
        logits = self.model.output(hidden.flatten(0, 1)[packed["at"]]).float()
        return logits, packed["target"], packed["at"] // length

    @torch.no_grad()
    def marks(self, papers, plora="pictures"):
        """(right [n] bool, smallest margin [n]): the margin of a place is the target's logit less the best other one."""
        right, margin = np.zeros(len(papers), bool), np.zeros(len(papers), np.float32)
        for chosen in chunks(papers):
            part = [papers[i] for i in chosen]
            logits, target, owner = self.logits(part, [encode(self.coder, p.turns, p.form) for p in part], plora)
            mine = logits.gather(1, target[:, None])[:, 0]
            gap = mine - logits.scatter(1, target[:, None], -torch.inf).amax(1)
            least = torch.full((len(part),), torch.inf, device=gap.device).scatter_reduce(0, owner, gap, "amin")
            margin[chosen], right[chosen] = least.cpu().numpy(), (least > 0).cpu().numpy()
        return right, margin


def shares(papers, right, key):
    """key(paper) -> share right, in the order of first appearance."""
    found = defaultdict(list)
    for paper, ok in zip(papers, right):
        found[key(paper)].append(bool(ok))
    return {name: sum(marks) / len(marks) for name, marks in found.items()}


def group_means(papers, right):
    """group -> mean over its tasks' shares."""
    tasks, groups = shares(papers, right, lambda p: (p.group, p.task)), defaultdict(list)
    for (group, _), share in tasks.items():
        groups[group].append(share)
    return {group: sum(values) / len(values) for group, values in groups.items()}


def quick(trainer, stage, count):
    """Shares right on the tuning seeds, as text for the log."""
    groups = GROUPS[stage]
    if groups == []:
        return ""
    papers = exam.papers(TUNE, count, groups=groups)
    if stage == "language":
        papers += exam.papers(
            TUNE,
            count,
            names=["article_from_outline", "positions_in_text", "place_caption", "selection_in_text", "edit"],
        )
    from .prompts import Coder

    coder = Coder(trainer.feed.tokenizer)
    see = lambda scenes: draw_pictures(trainer.draw, scenes, trainer.device)
    with torch.compiler.set_stance("force_eager"), trainer.autocast:
        right, _ = Examiner(trainer.model, coder, trainer.device, see).marks(papers)
    groups = " ".join(f"{k} {v:.3f}" for k, v in group_means(papers, right).items())
    weak = {k: v for k, v in shares(papers, right, lambda p: p.task).items() if v < 0.97}
    return groups + " | below 0.97: " + " ".join(f"{k} {v:.2f}" for k, v in sorted(weak.items(), key=lambda kv: kv[1]))
