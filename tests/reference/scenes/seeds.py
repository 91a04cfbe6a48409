"""Makes `seeds.jsonl` and `papers.jsonl` here with the code that is the definition: `cd models; python3 ../tests/reference/scenes/seeds.py`.

`seeds.jsonl`: the scenes of seeds. `papers.jsonl`: what the exam asks with a seed, and the answer; `side` and `crc` of the first
scene's picture, so that pictures need not be stored.
"""

import json
import sys
import zlib
from pathlib import Path

sys.path.insert(0, ".")

from train import exam, renderer  # noqa: E402
from train.prng import Draw  # noqa: E402
from train.scenes import scene_from_seed  # noqa: E402

HERE = Path(__file__).parent
SEEDS = [*range(9000, 9196), 0, 99_999, 1 << 32, (1 << 64) - 1]
TASKS = "caption_brief caption_detailed caption_chinese list json count color shape size place background".split()
FIRST, EACH, SIDE = 9500, 24, 48


def line(row):
    """One object a line, as short as it goes."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"


def papers():
    """The exam's tasks, each with seeds of its own."""
    makers = {entry[0]: entry[4] for entry in exam.ENTRIES}
    for k, task in enumerate(TASKS):
        for seed in range(FIRST + k * EACH, FIRST + (k + 1) * EACH):
            scenes, turns = makers[task](Draw(seed))
            picture = zlib.crc32(renderer.render(scenes[0], SIDE).tobytes())
            yield dict(task=task, seed=seed, query=turns[0].query, expected=turns[0].answer, side=SIDE, crc=picture)


if __name__ == "__main__":
    seeds = [line(dict(seed=seed, scene=scene_from_seed(seed).to_json())) for seed in SEEDS]
    (HERE / "seeds.jsonl").write_text("".join(seeds))
    (HERE / "papers.jsonl").write_text("".join(map(line, papers())))
