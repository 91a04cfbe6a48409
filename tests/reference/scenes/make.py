"""Makes the other files here with the renderer that is the definition: `cd models; python3 ../tests/reference/scenes/make.py`.

Each picture is small, so that noise (which PNG cannot compress) costs little; one has the side that the model sees.
"""

import json
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, ".")

from train import renderer  # noqa: E402
from train.prng import Draw  # noqa: E402
from train.scenes import draw_scene  # noqa: E402

HERE = Path(__file__).parent
FIRST_SEED = 9000
SIDES = [168, 75, 64, 56, 49, 42, 40, 36, 33, 31, 28, 17]


def telling_scenes():
    """Scenes until every outline, and every way to draw one, has been seen: those that show something new."""
    seen, seed = set(), FIRST_SEED
    while seed < FIRST_SEED + 400:
        scene = draw_scene(Draw(seed), digits=50)
        new = {(t.kind, t.digit, t.face) for t in scene.things}
        new |= {("rim", t.rim) for t in scene.things} | {("slope", scene.slope)}
        new |= {("noise", scene.noise > 0), ("soften", scene.soften > 0)}
        if not new <= seen:
            yield seed, scene
        seen |= new
        seed += 1


if __name__ == "__main__":
    with (HERE / "scenes.jsonl").open("w") as lines:
        for i, (seed, scene) in enumerate(telling_scenes()):
            side = SIDES[i % len(SIDES)] if i else SIDES[0]
            name = f"{seed}.png"
            Image.fromarray(renderer.render(scene, side)).save(HERE / name, optimize=True)
            lines.write(json.dumps(dict(file=name, side=side, scene=scene.to_json())) + "\n")
