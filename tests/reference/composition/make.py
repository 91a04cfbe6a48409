"""Writes stages.jsonl: the prompts of the composition stages with their token ids, made without any code of ours.

The prompts follow gradio_demo_composition.py of the published model: strings put together as it does, one `<s>`, the user
turn cut at `<image>`, every piece encoded by sentencepiece itself. `[UNUSED_TOKEN_146]` begins a turn, `_145` ends it.

    pip install sentencepiece
    python tests/reference/composition/make.py
"""

import json
import re
from pathlib import Path

import sentencepiece

HERE = Path(__file__).parent
MODEL = sentencepiece.SentencePieceProcessor(model_file=str(HERE.parent / "tokenizer" / "tokenizer.model"))
IMAGE = -1  # stands for a picture in a list of ids

ENGLISH = [
    "The lost star",
    'Once upon a time, Mia said "hello" to the town of shapes.',
    "First, Mia saw a large red circle. It was as round as the full moon.",
    "Then, Mia saw a small blue square & <two> {others}.",
    "Mia smiled and went home happy.",
]
CHINESE = [
    "中国水墨画：流动的诗意与东方美学",
    "水墨画，是中国传统绘画的一种。它用水和墨，表现“意境”。",
    "首先，我看到了大的红色圆形。它像满月一样圆。",
    "简单的形状也能讲故事……",
]
CAPTIONS = ["A large red circle", "一幅山水画", "A small blue square"]


def ids(text, assistant):
    """One `<s>`, the turns, and -1 for each picture."""
    prompt = f"[UNUSED_TOKEN_146]user\n{text}[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]assistant\n{assistant}"
    out = [MODEL.bos_id()]
    for i, piece in enumerate(prompt.split("<image>")):
        out += ([IMAGE] if i else []) + MODEL.encode(piece)
    return out


def article(n, instruction):
    return ("<image> " * n).rstrip() + instruction, ""


def positions(n, sections, number):
    full = "".join(f"<Seg{i}> {s}\n" for i, s in enumerate(sections))
    return "<image> " * n + f'给定文章"{full}" 根据上述文章，选择适合插入图像的{number}行', "适合插入图像的行是"


def captions(sections, places, told):
    """The prompt for the last of `places`, given the captions `told` of those before."""
    pasts = ""
    for i, (p, caption) in enumerate(zip(places, told)):
        if i == 0:
            pasts = f'现在<Seg{p}>后插入图像对应的标题是"{caption}"， '
        else:
            pasts += f'<Seg{p}>后插入图像对应的标题是"{caption}"， '
    past = pasts[:-2] + "。" if pasts else ""
    p = places[-1]
    segments = "".join(f"<Seg{i}> {s}\n" for i, s in enumerate(sections) if i <= p + 1)
    return f'给定文章"{segments}" {past}给出适合在<Seg{p}>后插入的图像对应的标题。', '标题是"'


def selection(sections, places, n):
    """The prompt for the last of `places`, with pictures after those before, and `n` candidates."""
    parts, buffer = [], ""
    for i, section in enumerate(sections):
        buffer += section + "\n"
        if i in places:
            parts.append(buffer)
            buffer = ""
    letters = "\n".join(f"{'ABCDEFGHIJ'[i]}.<image>" for i in range(n))
    text = f"根据给定上下文和候选图像，选择合适的配图：{'<image>'.join(parts)}候选图像包括: {letters}"
    return text, "最合适的图是"


def cases():
    """(stage, what it is made of, prompt)"""
    instructions = ["Write a story about these pictures.", "根据以下标题：“水墨”，创作长文章，字数不少于800字。请结合以下文本素材：\n“墨”"]
    for n in (0, 1, 2, 3):
        for instruction in instructions:
            yield "article", dict(n=n, instruction=instruction), article(n, instruction)
    for sections in (ENGLISH, CHINESE):
        for n, number in ((0, ""), (0, "6"), (1, "1"), (2, "2"), (3, "2")):
            yield "positions", dict(n=n, sections=sections, count=number), positions(n, sections, number)
        for k in (0, 1, 2):
            places = [1, 2, 3][: k + 1]
            made_of = dict(sections=sections, places=places, captions=CAPTIONS[:k])
            yield "caption", made_of, captions(sections, places, CAPTIONS[:k])
        last = [len(sections) - 1]
        yield "caption", dict(sections=sections, places=last, captions=[]), captions(sections, last, [])
        for places in ([2], [1, 2], [0, 2, 3]):
            for n in (2, 4):
                yield "selection", dict(sections=sections, places=places, n=n), selection(sections, places, n)
    text, instruction, other = ENGLISH[2], "a small green star", ENGLISH[4]
    edits = {
        "rewrite": (dict(text=text, instruction=instruction), f"改写以下段落：{text}\n基于以下素材：{instruction}"),
        "expand": (dict(text=text, instruction=instruction), f"扩写以下段落：{text}\n基于以下素材：{instruction}"),
        "shorten": (dict(text=text), f"缩写以下段落：{text}"),
        "insert": (
            dict(previous=text, next=other, instruction=instruction),
            f"在以下两段中插入一段。\n第一段：{text}\n第二段：{other}\n插入段的大纲：{instruction}",
        ),
    }
    for stage, (made_of, prompt) in edits.items():
        yield stage, made_of, (prompt, "")


def main():
    with open(HERE / "stages.jsonl", "w") as file:
        for stage, made_of, (user, assistant) in cases():
            line = dict(stage=stage, made_of=made_of, user=user, assistant=assistant, ids=ids(user, assistant))
            assert len(re.findall("<image>", user)) == line["ids"].count(IMAGE)
            print(json.dumps(line, ensure_ascii=False), file=file)


main()
