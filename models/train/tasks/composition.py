"""The composition stages in small, in the prompts the published model was trained with (Chinese, whatever the article's language).

An article from pictures or an outline; the lines that want a picture (`<Seg i>`); a caption for such a line; the choice among
candidate pictures; and the four editing prompts.
"""

from ..changes import change
from ..scenes import COLOR_NAMES, SHAPES, draw_scene
from ..wording import article, capital, joined, subject
from . import IMAGE, Ask
from .articles import COLOR_SENTENCES, GENRES, SIMILES, write

PICTURE_FORMS = [
    "Write {} about {}.",
    "Write {} based on {}.",
    "Please write {} with {}.",
    "please write {} based on {}.",
    "Write {} for {}.",
]
TITLE_STARTS = ["my favorite ", "My favorite ", "The secret of the ", "A day with the ", "The lost ", "About the "]


def draw_subjects(draw, count):
    """Scenes of one thing, at times two, whose first things differ."""
    scenes = []
    while len(scenes) < count:
        scene = draw_scene(draw, 1 if draw.chance(75) else 2, digits=7)
        if all(scene.things[0].color_noun != s.things[0].color_noun for s in scenes):
            scenes.append(scene)
    return scenes


def draw_title(draw):
    """A headline that the user asks for."""
    return draw.pick(TITLE_STARTS) + (draw.pick(COLOR_NAMES) + " " if draw.chance(60) else "") + draw.pick(SHAPES)


def titled(draw, query, genre, scenes):
    """The query, at times with a title, and the article."""
    if genre == "chinese" or not draw.chance(30):
        return query, "\n".join(write(genre, scenes)[0])
    headline = draw_title(draw)
    return query + draw.pick([" Title: ", "\nTitle: "]) + headline, "\n".join(write(genre, scenes, headline)[0])


def page(genre):
    """`a story`, `an article`, `a diary page`"""
    return "a diary page" if genre == "diary" else article(genre)


def article_from_pictures(draw):
    """Stage 1 with pictures: `<image> <image>Write a story about these pictures.`"""
    genre, scenes = draw.pick(GENRES), draw_subjects(draw, draw.pick([1, 2, 2, 3]))
    slots = (" " if draw.chance(60) else "").join([IMAGE] * len(scenes))
    if genre == "chinese":
        query = draw.pick(["请根据图片写一篇文章。", "根据图片写一篇作文。", "请看图写一篇短文。"])
    else:
        what = draw.pick(["this picture", "the image"] if len(scenes) == 1 else ["these pictures", "the images"])
        query = draw.pick(PICTURE_FORMS).format(page(genre), what)
    query, text = titled(draw, query, genre, scenes)
    return Ask(slots + query, text, scenes)


def article_from_outline(draw):
    """Stage 1 without pictures: the subjects are told in words."""
    genre, scenes = draw.pick(GENRES[:4]), draw_subjects(draw, draw.pick([1, 2, 2, 3]))
    told = [subject(s) for s in scenes]
    outline = "\n".join(f"{i}. {text}" for i, text in enumerate(told, 1))
    query = (
        f"Write {page(genre)} about {joined(told)}."
        if draw.chance(45)
        else f"Write {page(genre)} with this outline:\n{outline}"
    )
    if genre == "article" and draw.chance(40):
        query = f"根据给定大纲写一篇文章：\n{outline}"
    query, text = titled(draw, query, genre, scenes)
    return Ask(query, text)


def draw_article(draw, least):
    """(scenes, lines, line of each scene, `<Seg i> line` texts)"""
    genre, scenes = draw.pick(GENRES), draw_subjects(draw, draw.pick([least, 2, 2, 3]))
    lines, where = write(genre, scenes, draw_title(draw) if draw.chance(20) and genre != "chinese" else None)
    return scenes, lines, where, [f"<Seg{i}> {line}\n" for i, line in enumerate(lines)]


def positions(draw, pictures=True):
    """Stage 2: the lines for the uploaded pictures (all but one, at times), or the first few that want one."""
    scenes, _, where, segments = draw_article(draw, 2)
    chosen = list(range(len(scenes)))
    if pictures:
        if draw.chance(40):
            chosen = sorted(draw.sample(chosen, len(scenes) - 1))
        number, shown = str(len(chosen)), [scenes[i] for i in draw.shuffled(chosen)]
    else:
        wanted = draw.between(1, 4)
        number, shown = (str(wanted), []) if draw.chance(60) else ("", [])
        chosen = chosen[:wanted] if number else chosen
    slots = " ".join([IMAGE] * len(shown)) + (" " if shown and draw.chance(50) else "")
    query = f'{slots}给定文章"{"".join(segments)}" 根据上述文章，选择适合插入图像的{number}行'
    return Ask(query, ", ".join(f"<Seg{where[i]}>" for i in chosen) + ".", shown, "适合插入图像的行是")


def place_caption(draw):
    """Stage 3: a caption for the picture after a line, given the captions of the lines before."""
    scenes, _, where, segments = draw_article(draw, 1)
    last = draw.below(len(scenes))
    past = ""
    for i in range(last):
        past += f'{"" if i else "现在"}<Seg{where[i]}>后插入图像对应的标题是"{capital(subject(scenes[i]))}"， '
    past = past[:-2] + "。" if past else ""
    context = "".join(segments[: where[last] + 2])
    query = f'给定文章"{context}" {past}给出适合在<Seg{where[last]}>后插入的图像对应的标题。'
    return Ask(query, capital(subject(scenes[last])) + '"', [], '标题是"')


def draw_candidates(draw, scenes, right, count):
    """The right picture among others that look like it or come from the same article."""
    candidates, told = [right], {t.full for t in right.things}
    while len(candidates) < count:
        if draw.chance(35):
            changed = change(draw, right, draw.pick(["color", "shape"]))
            other = changed and changed[0]
        elif len(scenes) > 1 and draw.chance(35):
            other = draw.pick(scenes)
        else:
            other = draw_subjects(draw, 1)[0]
        if other and all(other is not c for c in candidates) and {t.full for t in other.things} != told:
            candidates.append(other)
    return draw.shuffled(candidates)


def selection(draw, tell=None):
    """Stage 4: which candidate belongs after the last line shown; `tell(scene)`: words in place of pictures."""
    scenes, lines, where, _ = draw_article(draw, 1)
    last = draw.below(len(scenes))
    candidates = draw_candidates(draw, scenes, scenes[last], draw.pick([2, 3, 4]) if last < 2 else draw.pick([2, 3]))
    show = tell or (lambda scene: IMAGE)
    context, start = "", 0
    for i in range(last + 1):
        context += "".join(line + "\n" for line in lines[start : where[i] + 1]) + (show(scenes[i]) if i < last else "")
        start = where[i] + 1
    letters = "\n".join(f"{letter}.{show(c)}" for letter, c in zip("ABCD", candidates))
    query = f"根据给定上下文和候选图像，选择合适的配图：{context}候选图像包括: {letters}"
    shown = [] if tell else scenes[:last] + candidates
    right = next(i for i, c in enumerate(candidates) if c is scenes[last])
    return Ask(query, ": " + "ABCD"[right], shown, "最合适的图是")


def edit(draw):
    """Shorten, expand, rewrite, insert."""
    scenes, lines, where, _ = draw_article(draw, 1)
    new = draw_subjects(draw, 1)[0]
    thing, line = new.things[0], lines[where[0]]
    sentence = line.split(". ")[0].rstrip(".") + "."
    simile = SIMILES[thing.kind][thing.size == "large"]
    way = draw.below(100)
    if way < 30:
        return Ask("缩写以下段落：" + line, sentence if ". " in line else line.split("。")[0] + "。")
    if way < 55:
        return Ask(
            f"扩写以下段落：{sentence}\n基于以下素材：{subject(new)}",
            f"{sentence} There was also {subject(new)}. {simile}",
        )
    if way < 80:
        return Ask(
            f"改写以下段落：{line}\n基于以下素材：{subject(new)}",
            f"There was {subject(new)}. {simile} {COLOR_SENTENCES[thing.color]}",
        )
    query = f"在以下两段中插入一段。\n第一段：{lines[1]}\n第二段：{lines[-1]}\n插入段的大纲：{subject(new)}"
    return Ask(query, f"Then there was {subject(new)}. {simile}")
