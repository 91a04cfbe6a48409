"""The whole path in under a minute on a CPU: every stage for two steps, a stop in between, the export, the report.

It shows that everything runs and fits together; the model that comes out knows nothing. `python3 -m train.smoke`
"""

import tempfile
import time
from pathlib import Path

import torch

from . import changes, exam, fold, renderer, report, stages
from .outlines import build, load
from .prng import Draw
from .samples import REPORT
from .scenes import Scene, scene_from_seed


def check_scenes():
    """The outlines are those of the program, scenes survive JSON, pictures are what they were."""
    assert load() == build(), "outlines.json is not what `python3 -m train.outlines` writes"
    scene = scene_from_seed(7)
    assert Scene.from_json(scene.to_json()) == scene
    assert (renderer.render(scene, 64) == renderer.render(Scene.from_json(scene.to_json()), 64)).all()
    assert any(changes.change(Draw(i), scene) for i in range(9))
    digest = 0
    for seed in range(6):
        digest = (digest * 31 + int(renderer.render(scene_from_seed(seed), 64).astype("u8").sum())) % 1_000_000_007
    assert digest == DIGEST, f"the renderer or the scenes changed: digest {digest}, expected {DIGEST}"


DIGEST = 551_701_599  # of six pictures; changes where the scenes or the renderer do


def lighten():
    """Less of everything in the report: a few samples for the fold, the first and the last kind of task of each group."""
    assert len(exam.papers(REPORT, 1)) == len(exam.ENTRIES)
    fold.COUNTS = {"one": 1, "text": 1}
    groups = [[entry for entry in exam.ENTRIES if entry[1] == group] for group in report.GROUPS]
    exam.ENTRIES[:] = [entry for kinds in groups for entry in (kinds[0], kinds[-1])]


def main():
    """Runs it all in a temporary folder."""
    start = time.time()
    torch.set_num_threads(1)
    check_scenes()
    with tempfile.TemporaryDirectory() as folder:
        run = [
            f"--out={folder}/run",
            "--device=cpu",
            "--workers=0",
            "--steps=2",
            "--shrink=200",
            "--report=1",
            "--tune=0",
        ]
        assert stages.main([*run, "--stop-after=0"]) == 3, "it should have stopped in the first stage"
        while stages.main([*run, "--stop-after=4"]) == 3:
            pass
        lighten()
        report.build(f"{folder}/run", f"{folder}/model", "cpu", 1, 1, 1, 5, max_new=3)
        assert (Path(folder) / "model" / "model.safetensors").stat().st_size < 30e6
    print(f"smoke: all went through in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
