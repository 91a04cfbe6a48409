"""What is examined: one entry a kind of task, each a function of a seed; and the prompts of a range of seeds."""

from dataclasses import dataclass

from . import wording
from .prng import Draw
from .prompts import Form
from .samples import BUCKETS, LENGTHS, MAX_PICTURES
from .scenes import draw_scene
from .tasks import IMAGE, captions, composition, questions, several, text

PLAIN = Form()  # the default prompt: system text, `<s>` before every piece of text
BARE = Form(None, "each")
EVALUATION = Form(None, "once", "front")
STAGE = Form(None, "once")
TALK, BARE_TALK = Form(bos="double"), Form(None, "double")
SPAN = 2000  # seeds kept for each kind of task


@dataclass(slots=True)
class Paper:
    """One prompt of the exam."""

    task: str
    group: str
    bucket: str
    seed: int
    scenes: list
    turns: list
    form: Form


def shown(asks):
    """Turns about one picture: the placeholder goes before the first query."""
    asks[0].query = IMAGE + asks[0].query
    return asks[0].scenes, asks


def caption(name):
    """A caption task; the scene is the one of the seed (`scene_from_seed`)."""
    return lambda draw: shown([captions.ask(draw, draw_scene(draw), name)])


def about(name):
    """A question of one kind about the first drawn scene that it fits."""

    def make(draw):
        while True:
            ask = questions.ask(draw, draw_scene(draw), name)
            if ask:
                return shown([ask])

    return make


def follow_up(draw):
    """Two turns."""
    while True:
        asks = questions.follow_up(draw, draw_scene(draw))
        if asks:
            return shown(asks)


def pictures_of(make):
    """A task that brings its pictures and placeholders."""

    def drawn(draw):
        while True:
            ask = make(draw)
            if len(ask.scenes) <= MAX_PICTURES:
                return ask.scenes, [ask]

    return drawn


def clear_outline(draw):
    """An article from an outline that says which things share a picture: in one sentence (`about a, b and c and d`) it does not."""
    while True:
        ask = composition.article_from_outline(draw)
        paragraphs = ask.answer.split("\n")[2:-1]
        if "\n1. " in ask.query or not any(" and a" in p.split(". ")[0] for p in paragraphs):
            return ask


def told(draw):
    """A question about a scene told in words."""
    while True:
        scene = draw_scene(draw)
        ask = questions.ask(draw, scene)
        if ask:
            return [], [questions.Ask(f"Scene: {text.told(draw, scene)}\n{ask.query}", ask.answer)]


def entries():
    """(task, group, bucket, form, maker) of all that is examined."""
    out = [
        (name, "captions", "one", PLAIN, caption(name))
        for name in ("caption_brief", "caption_detailed", "caption_chinese")
    ]
    out += [
        ("caption_no_system", "captions", "one", BARE, caption("caption_brief")),
        ("caption_in_front", "captions", "one", EVALUATION, caption("caption_brief")),
    ]
    out += [(name, "lists", "one", PLAIN, caption(name)) for name in ("list", "json")]
    out += [(name, "questions", "one", PLAIN, about(name)) for name in questions.NAMES]
    out += [("follow_up", "questions", "one", PLAIN, follow_up)]
    out += [
        (name, "several", "two", PLAIN, pictures_of(lambda d, n=name: several.ask(d, 2, n))) for name in several.NAMES
    ]
    out += [("three_pictures", "several", "many", PLAIN, pictures_of(lambda d: several.ask(d, 3)))]
    out += [
        (f.__name__, "composition", "many", STAGE, pictures_of(f))
        for f in (composition.article_from_pictures, composition.positions, composition.selection)
    ]
    out += [
        ("article_from_outline", "composition", "text", STAGE, pictures_of(clear_outline)),
        ("positions_in_text", "composition", "text", STAGE, pictures_of(lambda d: composition.positions(d, False))),
        ("place_caption", "composition", "text", STAGE, pictures_of(composition.place_caption)),
        (
            "selection_in_text",
            "composition",
            "text",
            STAGE,
            pictures_of(lambda d: composition.selection(d, wording.brief)),
        ),
        ("edit", "composition", "text", STAGE, pictures_of(composition.edit)),
    ]
    out += [
        (name, "text", "text", TALK, pictures_of(lambda d, n=name: text.ask(d, n)))
        for name in ("fact", "sums", "lists", "no_picture")
    ]
    out += [
        ("sums_no_system", "text", "text", BARE_TALK, pictures_of(text.sums)),
        ("retell", "text", "text", BARE_TALK, pictures_of(text.retell)),
        ("told", "text", "text", BARE_TALK, told),
    ]
    return out


ENTRIES = entries()
assert all(entry[2] in BUCKETS and entry[2] in LENGTHS for entry in ENTRIES)


def papers(seeds, count, names=None, groups=None):
    """`count` papers of each kind (or of those named), task k with the seeds from k * SPAN on within the range."""
    out = []
    for k, (task, group, bucket, form, make) in enumerate(ENTRIES):
        if (names is None or task in names) and (groups is None or group in groups):
            for seed in range(seeds.start + k * SPAN, seeds.start + k * SPAN + count):
                assert seed in seeds
                out.append(Paper(task, group, bucket, seed, *make(Draw(seed)), form))
    return out
