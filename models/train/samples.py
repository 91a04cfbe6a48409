"""Training samples and batches of them: four buckets of one length each, filled with as many turns as fit.

Sample `i` of a stage is a function of its seed alone, and so is every batch: the number of workers changes nothing.
"""

import numpy as np

from . import pictures, wording
from .prng import Draw
from .prompts import COMPOSITION_SYSTEM, IMAGE_ID, N_PATCHES, SYSTEM, Form, encode
from .scenes import draw_scene
from .tasks import IMAGE, captions, composition, questions, several, text

# Seeds: what is reported, what was looked at while the recipe was made, and what is trained on, never meet.
REPORT, TUNE, TRAIN = range(0, 100_000), range(100_000, 200_000), range(1_000_000, 1 << 63)

LENGTHS = {"one": 416, "two": 512, "many": 960, "text": 256}
SEPARATORS = ["", "", "", "", "\n", " "]
MAX_PICTURES = 5  # of a sample


def draw_system(draw, percent):
    """A system text or none."""
    if not draw.chance(percent):
        return None
    return [SYSTEM, SYSTEM + "\n", COMPOSITION_SYSTEM][draw.weighted([72, 14, 14])]


def fill(coder, turns, room, next_turns, tries=9):
    """Adds turns while they fit into `room` tokens."""
    for _ in range(tries):
        new = next_turns() or []
        needed = sum(map(coder.length, new))
        if needed > room:
            break
        turns += new
        room -= needed
    return turns


def one_picture(draw, coder):
    """A conversation about one picture."""
    scene = draw_scene(draw)

    def next_turns():
        if draw.chance(11):
            return [captions.ask(draw, scene)]
        return (questions.follow_up(draw, scene) if draw.chance(8) else None) or [questions.ask(draw, scene)]

    first = captions.ask(draw, scene) if draw.chance(50) else questions.ask(draw, scene)
    before = draw.chance(95)
    first.query = IMAGE + draw.pick(SEPARATORS) + first.query if before else first.query + "\n" + IMAGE
    system = draw_system(draw, 45)
    place = ["body", "front", "before"][draw.weighted([80, 12, 8])]
    form = Form(system, "each" if place == "body" and draw.chance(70) else "once", place)
    room = LENGTHS["one"] - len(encode(coder, [first], form)[0])
    return [scene], fill(coder, [first], room, next_turns), form


def two_pictures(draw, coder):
    """A question about two pictures, and often some about one of them."""
    ask = several.ask(draw, 2)
    form = Form(draw_system(draw, 35), "each" if draw.chance(60) else "once")
    more = draw.chance(80)

    def next_turns():
        pair = several.about_one(draw, ask.scenes, 20)
        return pair and [questions.Ask(*pair)]

    room = LENGTHS["two"] - len(encode(coder, [ask], form)[0])
    return ask.scenes, fill(coder, [ask], room, next_turns, 3 if more else 0), form


def many_pictures(draw, coder):
    """Three pictures, or a composition stage with pictures."""
    way = draw.weighted([30, 15, 38, 17])
    if way == 3:
        ask = several.ask(draw, 3)
        return ask.scenes, [ask], Form(draw_system(draw, 40), "each" if draw.chance(60) else "once")
    ask = [composition.article_from_pictures, composition.positions, composition.selection][way](draw)
    chat = way == 0 and draw.chance(50)
    return ask.scenes, [ask], Form(draw_system(draw, 60 if chat else 10), "each" if chat or draw.chance(10) else "once")


def talk(draw, coder):
    """No picture: talk, scenes told in words, composition stages in text."""
    way = draw.weighted([36, 15, 22, 27])
    form = Form(
        draw_system(draw, 25 if way != 3 else 40) if way in (0, 3) else None, "double" if draw.chance(50) else "once"
    )
    if way == 2:
        stages = [
            composition.article_from_outline,
            lambda d: composition.positions(d, False),
            composition.place_caption,
            lambda d: composition.selection(d, wording.brief),
            composition.edit,
        ]
        return [], [stages[draw.weighted([26, 16, 22, 22, 14])](draw)], form
    if way == 3:
        return [], fill_talk(draw, coder, form, [text.ask(draw)], lambda: [text.ask(draw)]), form
    if way == 1:
        ask = several.ask(draw, 2, show=lambda s: text.told(draw, s))
        scenes, ask.scenes = ask.scenes, []
        return (
            [],
            fill_talk(
                draw,
                coder,
                form,
                [ask],
                lambda: [questions.Ask(*(several.about_one(draw, scenes, 20) or text_pair(draw)))],
            ),
            form,
        )
    scene = draw_scene(draw)
    first = captions.ask(draw, scene) if draw.chance(30) else questions.ask(draw, scene)
    first.query = draw.pick(["Scene: ", "Image: ", "Picture: ", ""]) + text.told(draw, scene) + "\n" + first.query
    return [], fill_talk(draw, coder, form, [first], lambda: [questions.ask(draw, scene)]), form


def text_pair(draw):
    """A question and its answer that need nothing."""
    ask = text.ask(draw)
    return ask.query, ask.answer


def fill_talk(draw, coder, form, turns, next_turns):
    """`fill` for the text bucket."""
    return fill(coder, turns, LENGTHS["text"] - len(encode(coder, turns, form)[0]), next_turns)


BUCKETS = {"one": one_picture, "two": two_pictures, "many": many_pictures, "text": talk}


def sample(seed, coder, bucket):
    """(scenes, ids, weights) of a seed; draws again where the sample is too long for its bucket."""
    draw = Draw(seed)
    while True:
        scenes, turns, form = BUCKETS[bucket](draw, coder)
        ids, weights = encode(coder, turns, form)
        if len(ids) <= LENGTHS[bucket] and len(scenes) <= MAX_PICTURES:
            return scenes, ids, weights


def pack(rows, length):
    """Rows of (ids, weights) as arrays; places are flat indices into [rows, length].

    tokens [rows, length]; image: places of picture rows; at: places whose output is a target; target: its id; weight.
    """
    tokens = np.zeros((len(rows), length), np.int16)
    image, at, target, weight = [], [], [], []
    for i, (ids, weights) in enumerate(rows):
        ids, weights = np.array(ids), np.array(weights, np.float32)
        tokens[i, : len(ids)] = ids
        said = np.nonzero(weights)[0]
        image.append(np.nonzero(ids == IMAGE_ID)[0] + i * length)
        at.append(said - 1 + i * length)
        target.append(ids[said])
        weight.append(weights[said])
    joined = {
        name: np.concatenate(parts).astype(np.int64)
        for name, parts in (("image", image), ("at", at), ("target", target))
    }
    return dict(tokens=tokens, weight=np.concatenate(weight), **joined)


def batch(coder, counts, first_seed):
    """One batch: {"pictures": arrays, bucket: packed rows and where its pictures begin}.

    counts: bucket -> rows; the bucket `picture` stands for pictures alone.
    """
    out, scenes, seed = {}, [], first_seed
    for bucket, count in counts.items():
        if bucket == "picture":
            scenes += [draw_scene(Draw(seed + i), digits=20) for i in range(count)]
        else:
            samples = [sample(seed + i, coder, bucket) for i in range(count)]
            out[bucket] = pack([s[1:] for s in samples], LENGTHS[bucket])
            out[bucket]["first_picture"] = len(scenes)
            scenes += [scene for s in samples for scene in s[0]]
            assert len(out[bucket]["image"]) == N_PATCHES * (len(scenes) - out[bucket]["first_picture"])
        seed += count
    if scenes:
        out["pictures"] = pictures.arrays(scenes)
    return out
