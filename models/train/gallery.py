"""Pictures to try the model on: `python3 -m train.gallery ../scenes` draws five scenes of each size and three for the README.

All are report scenes (never trained on), drawn at 336 px, the first of their range without noise, which PNG cannot compress.
"""

import json
import sys
from pathlib import Path

from PIL import Image

from . import renderer, wording
from .prng import Draw
from .samples import REPORT
from .scenes import MAX_THINGS, draw_scene, scene_from_seed

SIDE = 336
EACH = 5
FIRST_SEED = 200  # of the samples
README_SEEDS = {"three-shapes": 36, "five-shapes": 2327, "numbers": 304}


def quiet_seeds():
    """`EACH` seeds for every number of things, by number."""
    found = {n: [] for n in range(1, MAX_THINGS + 1)}
    for seed in range(FIRST_SEED, REPORT.stop):
        scene = scene_from_seed(seed)
        if not scene.noise and len(found[len(scene.things)]) < EACH:
            found[len(scene.things)].append(seed)
        if all(len(seeds) == EACH for seeds in found.values()):
            return sorted(seed for seeds in found.values() for seed in seeds)
    raise AssertionError("too few report seeds")


def truth(name, seed, scene):
    """A line of truth.jsonl."""
    things = [dict(size=t.size, color=t.color, shape=t.noun, position=t.place) for t in scene.things]
    return dict(
        file=name,
        seed=seed,
        caption=wording.brief(scene),
        detailed=wording.detailed(scene),
        chinese=wording.brief_zh(scene),
        background=scene.ground,
        things=things,
    )


def write(folder, named_seeds):
    """name -> seed: pictures and their truth."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, seed in named_seeds.items():
        scene = draw_scene(Draw(seed))
        Image.fromarray(renderer.render(scene, SIDE)).save(folder / f"{name}.png", optimize=True)
        lines.append(json.dumps(truth(f"{name}.png", seed, scene), ensure_ascii=False) + "\n")
    (folder / "truth.jsonl").write_text("".join(lines))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    write(out, README_SEEDS)
    write(out / "samples", {f"scene-{seed:05}": seed for seed in quiet_seeds()})
