"""Greedy answers, letter by letter, and the file of held-out prompts against which another runtime is compared."""

import json
from pathlib import Path

import torch

from . import exam
from .prompts import SYSTEM, encode
from .samples import REPORT
from .tasks import Ask

MAX_NEW = 300
PROMPTS = 500
SYSTEMS = {SYSTEM: "default", None: None}


@torch.no_grad()
def answer(examiner, paper, max_new=MAX_NEW):
    """The last turn's greedy answer; earlier turns keep their expected answers."""
    last = paper.turns[-1]
    ids, _ = encode(examiner.coder, [*paper.turns[:-1], Ask(last.query, "", [], last.forced)], paper.form)
    ids = ids[:-1]  # without the end of the empty answer
    rows, start = examiner.rows(paper.scenes), len(ids)
    while len(ids) - start < max_new:
        tokens = torch.tensor([ids], device=examiner.device)
        places = (tokens[0] < 0).nonzero()[:, 0]
        hidden = examiner.model.hidden(tokens, rows, places)
        new = int(examiner.model.output(hidden[0, -1]).argmax())
        if new in (examiner.coder.end, examiner.coder.eos):
            break
        ids.append(new)
    return examiner.coder.text(ids[start:])


def with_answer(paper, text):
    """The paper with another last answer."""
    last = paper.turns[-1]
    turns = [*paper.turns[:-1], Ask(last.query, text, last.scenes, last.forced)]
    return exam.Paper(paper.task, paper.group, paper.bucket, paper.seed, paper.scenes, turns, paper.form)


def line(paper, greedy, margin):
    """One row of heldout.jsonl."""
    last = paper.turns[-1]
    return dict(
        task=paper.task,
        group=paper.group,
        seed=paper.seed,
        system=SYSTEMS[paper.form.system],
        bos=paper.form.bos,
        pictures=paper.form.pictures,
        history=[[t.query, t.answer] for t in paper.turns[:-1]],
        query=last.query,
        forced=last.forced,
        expected=last.answer,
        greedy=greedy,
        margin=round(float(margin), 4),
        scenes=[s.to_json() for s in paper.scenes],
    )


def write_heldout(examiner, path, prompts=PROMPTS, max_new=MAX_NEW):
    """`prompts` report papers, as many of each kind as of the next, with the model's greedy answers and their least margin."""
    each = -(-prompts // len(exam.ENTRIES))
    papers = exam.papers(REPORT, each)
    papers = [papers[i * len(papers) // prompts] for i in range(prompts)]
    right, margins = examiner.marks(papers)
    rows = []
    for paper, ok, margin in zip(papers, right, margins):
        text = paper.turns[-1].answer
        if not ok:
            text = answer(examiner, paper, max_new)
            margin = examiner.marks([with_answer(paper, text)])[1][0]
        rows.append(line(paper, text, margin))
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return sum(row["greedy"] == row["expected"] for row in rows), len(rows)
