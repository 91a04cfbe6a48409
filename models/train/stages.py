"""The four stages, in the order of the paper: eyes, language, then pictures for a frozen language, then all together.

`python3 -m train.stages --out DIR` trains; run it again to go on where it stopped (`--stop-after`), or after a failure.
"""

import argparse
import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from . import pictures
from .evaluation import quick
from .feed import Feed
from .model import Config, XComposer2, part_of
from .optimizer import make_optimizers
from .samples import BUCKETS, TRAIN

ALL = {"tower", "projector", "plora", "language"}
WARM_UP = 100
PROBE = (20, 80)  # steps between which the speed is measured, where a stage is given seconds
PICTURE_BLOCK = 128  # pictures of a batch are padded to a multiple, so that few shapes are compiled
TOKENIZER = Path(__file__).resolve().parent.parent / "xc2-scenes" / "tokenizer.model"


@dataclass(frozen=True)
class Stage:
    """What learns, from what, how long and how fast."""

    name: str
    learns: frozenset
    counts: dict  # bucket -> rows of a batch
    steps: int
    rate: float  # AdamW
    matrix_rate: float  # Muon
    labels: float = 0.0  # weight of the patch labels
    fade: bool = False  # whether that weight falls to nothing


# The steps are those that 55, 95, 120 and 800 seconds of an H200 came to (`--seconds`) in the run whose weights are committed.
STAGES = [
    Stage("eyes", frozenset({"tower"}), {"picture": 1024}, 1249, 1.5e-3, 3e-3, labels=1.0),
    Stage("language", frozenset({"language"}), {"text": 896}, 2142, 1.5e-3, 3e-3),
    Stage(
        "pictures", frozenset({"tower", "projector", "plora"}), {"one": 448}, 1430, 1e-3, 1.5e-3, labels=0.2, fade=True
    ),
    Stage("together", frozenset(ALL), {"one": 320, "two": 128, "many": 48, "text": 96}, 6310, 8e-4, 1.5e-3),
]


def scale_at(step, steps):
    """Warm-up, then a cosine down to 2 %."""
    return min(1, (step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, step / steps))))


def seed_of(index, stage, step):
    """The first sample's seed of a batch: stages and steps never share one."""
    return TRAIN.start + (index << 40) + step * sum(stage.counts.values())


class Trainer:
    """The model on its device, and where the training stands."""

    def __init__(self, args):
        self.args, self.device, self.start = args, args.device, time.time()
        self.out = Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.feed = Feed(TOKENIZER, args.workers, args.device)  # before CUDA: it forks
        torch.manual_seed(0)
        torch.set_float32_matmul_precision("high")
        self.model = XComposer2(Config()).to(self.device)
        self.heads = nn.Linear(Config.vision_embd, sum(pictures.LABEL_SIZES)).to(self.device)
        self.draw = pictures.make_renderer(self.device)
        self.at = {"stage": 0, "step": 0, "steps": 0}
        self.optimizers = None
        gpu = self.device != "cpu"
        self.autocast = torch.autocast("cuda", torch.bfloat16) if gpu else contextlib.nullcontext()
        self.load()
        if gpu:
            torch._dynamo.config.recompile_limit = 64
            for layer in [*self.model.model.layers, *self.model.vit.vision_tower.vision_model.encoder.layers]:
                layer.compile(dynamic=False)

    def log(self, *words):
        """A line to the terminal and to train.log."""
        line = f"{time.time() - self.start:7.1f} s  " + " ".join(map(str, words))
        print(line, flush=True)
        with open(self.out / "train.log", "a") as file:
            file.write(line + "\n")

    def save(self):
        """Everything to go on from, and half-precision weights alone."""
        model, heads = self.model.state_dict(), self.heads.state_dict()
        state = dict(model=model, heads=heads, at=self.at, optimizers=[o.state_dict() for o in self.optimizers or []])
        torch.save(state, self.out / "new.pt")
        (self.out / "new.pt").rename(self.out / "checkpoint.pt")
        halves = {key: value.half().cpu() for key, value in model.items()}
        torch.save(dict(model=halves, heads=heads, at=self.at), self.out / "weights.pt")

    def load(self):
        """The last checkpoint; without one, weights alone (then the optimizers begin anew)."""
        path = next((p for p in (self.out / "checkpoint.pt", self.out / "weights.pt") if p.exists()), None)
        if path is None:
            return
        state = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.at, self.stored = state["at"], state.get("optimizers")
        self.log(f"going on from {path.name} at", self.at)

    def run(self):
        """All stages that are left; False if the time was up before."""
        while self.at["stage"] < len(STAGES):
            index = self.at["stage"]
            if not self.run_stage(index, STAGES[index]):
                return False
            self.at = {"stage": index + 1, "step": 0, "steps": 0}
            self.optimizers = None
            self.save()
            self.log("tune", STAGES[index].name, quick(self, STAGES[index].name, self.args.tune))
        return True

    def prepare(self, stage):
        """Freezes what does not learn and makes the optimizers."""
        for name, p in self.model.named_parameters():
            p.requires_grad_(part_of(name) in stage.learns)
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        named += [("heads." + n, p) for n, p in self.heads.named_parameters()] if stage.labels else []
        self.optimizers = make_optimizers(named, stage.rate, stage.matrix_rate, self.device != "cpu")
        if self.at["step"] and getattr(self, "stored", None):
            for optimizer, state in zip(self.optimizers, self.stored):
                optimizer.load_state_dict(state)
        self.stored = None
        return [p for _, p in named]

    def run_stage(self, index, stage):
        """One stage to its end; False if `--stop-after` came first."""
        params = self.prepare(stage)
        seconds = self.args.seconds[index] if self.args.seconds else None
        steps = self.at["steps"] or self.args.steps or (10**6 if seconds else stage.steps)
        begun, told, known = time.time(), time.time(), self.at["step"] > 0 or not seconds
        counts = {k: max(1, v // self.args.shrink) for k, v in stage.counts.items()}
        order = lambda step: (counts, seed_of(index, stage, step))
        limit = min(steps, PROBE[1] + 1) if not known else steps
        stream, step = self.feed.stream(order, self.at["step"], limit), self.at["step"]
        self.log(f"stage {stage.name}: from step {step}, batch {counts}")
        while step < steps:
            batch = next(stream, None)
            if batch is None:  # the probe is over: the rest of the steps are known now
                stream = self.feed.stream(order, step, steps)
                continue
            notes = self.step(stage, params, batch, step, steps)
            step += 1
            if not known and step == PROBE[0]:
                self.sync()
                probe = time.time()
            if not known and step == PROBE[1]:
                self.sync()
                pace = (time.time() - probe) / (PROBE[1] - PROBE[0])
                steps, known = step + int((seconds - (time.time() - begun)) / pace), True
                self.log(f"{pace * 1e3:.0f} ms a step: {steps} steps in {seconds:.0f} s")
            if step % self.args.report == 0:
                self.sync()
                pace, told = (time.time() - told) / self.args.report, time.time()
                self.log(
                    f"{stage.name} {step}/{steps} {pace * 1e3:.0f} ms",
                    " ".join(f"{k} {float(v):.4f}" for k, v in notes.items()),
                )
            if step % self.args.tune_every == 0 and step < steps:
                self.log("tune", stage.name, quick(self, stage.name, self.args.tune))
                told = time.time()
            if known and time.time() - self.start > self.args.stop_after and step < steps:
                self.at = {"stage": index, "step": step, "steps": steps}
                self.save()
                self.log(f"time is up in stage {stage.name} at step {step} of {steps}; run again to go on")
                return False
        self.sync()
        self.log(f"stage {stage.name}: done after {steps} steps, {time.time() - begun:.0f} s in this run")
        return True

    def sync(self):
        """Waits for the GPU."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def look(self, arrays):
        """The tower's features of a batch's pictures: [n, n_patches, vision_embd]."""
        n = arrays["counts"].shape[0]
        pixels = pictures.normalised(self.draw(arrays))
        if self.device != "cpu":
            pixels = F.pad(pixels.bfloat16(), (0, 0) * 3 + (0, -n % PICTURE_BLOCK))
        return self.model.tower(pixels)[:n]

    def step(self, stage, params, batch, step, steps):
        """One update; gives what is worth logging."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * scale_at(step, steps)
        with self.autocast:
            loss, notes = self.loss(stage, batch, step / steps)
        loss.backward()
        notes["norm"] = nn.utils.clip_grad_norm_(params, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return notes

    def loss(self, stage, batch, done):
        """Patch labels, and the answers of all buckets together."""
        loss, notes, rows = 0.0, {}, None
        if "pictures" in batch:
            features = self.look(batch["pictures"])
            if stage.labels:
                label, notes["patches"] = pictures.label_loss(self.heads, features, batch["pictures"])
                loss = loss + label * stage.labels * (1 - done if stage.fade else 1)
            rows = self.model.vision_proj(features) if "projector" in stage.learns else None
        answers = {bucket: answer_loss(self.model, batch[bucket], rows) for bucket in BUCKETS if bucket in batch}
        if answers:
            loss = loss + sum(part for part, _ in answers.values()) / sum(weight for _, weight in answers.values())
        return loss, notes | {bucket: (part / weight).detach() for bucket, (part, weight) in answers.items()}


def answer_loss(model, packed, rows):
    """(weighted loss, weight) of a packed bucket; rows: projector outputs of the batch's pictures."""
    places, picture_rows = packed["image"], None
    if len(places):
        n, first = len(places) // model.c.n_patches, packed["first_picture"]
        picture_rows = rows[first : first + n].flatten(0, 1)
    hidden = model.hidden(packed["tokens"].long(), picture_rows, places)
    logits = model.output(hidden.flatten(0, 1)[packed["at"]])
    loss = (F.cross_entropy(logits.float(), packed["target"], reduction="none") * packed["weight"]).sum()
    return loss, packed["weight"].sum()


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", default="run", help="folder for checkpoints and train.log")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--workers", type=int, default=13, help="processes that make batches; 0: none")
    parser.add_argument(
        "--seconds", type=lambda s: [float(v) for v in s.split(",")], help="fit each stage's steps into this time"
    )
    parser.add_argument("--steps", type=int, help="steps of every stage, instead of the recipe's")
    parser.add_argument("--shrink", type=int, default=1, help="divide all batches by this")
    parser.add_argument("--stop-after", type=float, default=1e9, help="seconds after which to save and stop")
    parser.add_argument("--report", type=int, default=200, help="steps between log lines")
    parser.add_argument("--tune-every", type=int, default=1000, help="steps between looks at the tuning seeds")
    parser.add_argument("--tune", type=int, default=60, help="tuning prompts per task")
    return parser


def main(argv=None):
    """Exit status 3: stopped before the end, run again."""
    trainer = Trainer(arguments().parse_args(argv))
    done = trainer.run()
    trainer.feed.close()
    return 0 if done else 3


if __name__ == "__main__":
    raise SystemExit(main())
