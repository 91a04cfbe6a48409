"""The report on a trained model: `python3 -m train.report --run RUN --out FOLDER` exports it, marks the exam on the report
seeds, and writes evaluation.json, evaluation.md and heldout.jsonl.

All figures are of the float16 weights, computed in float32.
"""

import argparse
import json
import multiprocessing
import shutil
import time
from pathlib import Path

import torch

from . import exam, fold, other_renderer, pictures
from .evaluation import Examiner, draw_pictures, group_means, shares
from .export import export, load
from .greedy import MAX_NEW, write_heldout
from .model import Config, XComposer2
from .prompts import Coder
from .samples import REPORT
from .stages import TOKENIZER

GROUPS = ["captions", "lists", "questions", "several", "composition", "text"]
ASKED = dict(captions=0.99, lists=0.99, questions=0.98, several=0.96, composition=0.99, text=0.995)
PLORA = {"PLoRA on pictures": "pictures", "PLoRA off": "off", "PLoRA everywhere": "all"}
WORKERS = 14  # draw with Pillow
ROBUST = ["caption_brief", "caption_detailed"]  # what the pictures of other hands are asked


def exam_row(examiner, papers, plora):
    """One row of the first table: group means, shares per task, and per number of things where captions and lists tell all."""
    right, margins = examiner.marks(papers, plora)
    whole = [i for i, p in enumerate(papers) if p.group in ("captions", "lists")]
    by_count = shares([papers[i] for i in whole], right[whole], lambda p: len(p.scenes[0].things))
    wrong = [dict(task=p.task, seed=p.seed, expected=p.turns[-1].answer) for p, ok in zip(papers, right) if not ok]
    return dict(
        groups=group_means(papers, right),
        tasks=shares(papers, right, lambda p: p.task),
        by_count=dict(sorted(by_count.items())),
        least_margin=float(margins[right].min()) if right.any() else None,
        wrong=wrong if plora == "pictures" else len(wrong),
        prompts=len(papers),
    )


def robust_rows(examiner, count, pool):
    """Captions of the same scenes drawn in other ways, in all and by number of things."""
    papers, rows = exam.papers(REPORT, count, names=ROBUST), {}
    for way in other_renderer.WAYS:
        draw_all = lambda scenes, w=way: other_renderer.see(scenes, w, pool.map).to(examiner.device)
        seen = Examiner(examiner.model, examiner.coder, examiner.device, draw_all)
        right, _ = seen.marks(papers)
        rows[way] = dict(
            exact=float(right.mean()),
            by_count=dict(sorted(shares(papers, right, lambda p: len(p.scenes[0].things)).items())),
        )
    return rows


def mark_again(examiner, result, count, names):
    """Replaces the marks of some tasks in a report; the rest stays as it was."""
    papers = exam.papers(REPORT, count, names=names)
    for row, plora in zip(result["rows"].values(), PLORA.values()):
        new = exam_row(examiner, papers, plora)
        row["tasks"].update(new["tasks"])
        for group in GROUPS:
            tasks = [row["tasks"][task] for task, of, *_ in exam.ENTRIES if of == group]
            row["groups"][group] = sum(tasks) / len(tasks)
        if plora == "pictures":
            row["wrong"] = [w for w in row["wrong"] if w["task"] not in names] + new["wrong"]


def percent(value):
    """`99.3`"""
    return f"{100 * value:.1f}"


def markdown(result):
    """evaluation.md"""
    rows = result["rows"]
    counts = list(rows["PLoRA on pictures"]["by_count"])
    cells = lambda by_count: " | ".join(percent(by_count[n]) if n in by_count else "" for n in counts)
    out = [
        f"Exact match of the greedy answer, in per cent, {result['each']} prompts of each of {len(exam.ENTRIES)} kinds, seeds never trained on.",
        f"The rows with PLoRA off and everywhere: {result['controls_each']} of each.",
        "",
    ]
    out += ["| | " + " | ".join(GROUPS) + " |", "|---|" + "---|" * len(GROUPS)]
    out += ["| asked | " + " | ".join(percent(ASKED[g]) for g in GROUPS) + " |"]
    out += [f"| {name} | " + " | ".join(percent(row["groups"][g]) for g in GROUPS) + " |" for name, row in rows.items()]
    out += [
        "",
        "Captions and lists by number of things:",
        "",
        "| things | " + " | ".join(map(str, counts)) + " |",
        "|---|" + "---|" * len(counts),
    ]
    out += [f"| {name} | {cells(row['by_count'])} |" for name, row in rows.items()]
    out += [
        "",
        f"Brief and detailed captions of {result['robust_each']} scenes each, drawn otherwise:",
        "",
        "| pictures | all | " + " | ".join(map(str, counts)) + " |",
        "|---|---|" + "---|" * len(counts),
    ]
    for way, row in result["robust"].items():
        out.append(f"| {way} | {percent(row['exact'])} | {cells(row['by_count'])} |")
    out += [
        "",
        "Every kind of task:",
        "",
        "| task | group | " + " | ".join(rows) + " |",
        "|---|---|" + "---|" * len(rows),
    ]
    out += [
        f"| {t} | {g} | " + " | ".join(percent(row["tasks"][t]) for row in rows.values()) + " |"
        for t, g, *_ in exam.ENTRIES
    ]
    return "\n".join(out) + "\n"


def examiner_of(folder, device):
    """The exported model, ready to be examined in full float32."""
    torch.set_float32_matmul_precision("highest")
    model, draw = load(folder, device), pictures.make_renderer(device)
    return Examiner(model, Coder(TOKENIZER), device, lambda scenes: draw_pictures(draw, scenes, device))


def write(result, out):
    """evaluation.json and evaluation.md"""
    (out / "evaluation.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (out / "evaluation.md").write_text(markdown(result))
    print(markdown(result))


def export_run(run, out, device):
    """The model of a training run, folded (see `fold`), as a Hugging Face directory."""
    model = XComposer2(Config())
    state = torch.load(Path(run) / "weights.pt", map_location="cpu")
    model.load_state_dict({key: value.float() for key, value in state["model"].items()})
    model, coder = model.to(device).eval(), Coder(TOKENIZER)
    moved = fold.fold(model, fold.measure(model, coder, pictures.make_renderer(device), device))
    print("directions moved into PLoRA:", *moved)
    export(model, out)
    if (out / "tokenizer.model").resolve() != TOKENIZER:
        shutil.copy(TOKENIZER, out / "tokenizer.model")


def build(run, out, device, count, controls, robust, prompts, max_new=MAX_NEW):
    """Export, exam, tables, held-out prompts."""
    out, start = Path(out), time.time()
    pool = multiprocessing.get_context("fork").Pool(WORKERS if device != "cpu" else 1)  # before CUDA: it forks
    export_run(run, out, device)
    examiner, rows = examiner_of(out, device), {}
    for name, plora in PLORA.items():
        rows[name] = exam_row(examiner, exam.papers(REPORT, count if plora == "pictures" else controls), plora)
        print(name, rows[name]["groups"], f"{time.time() - start:.0f} s", flush=True)
    write(
        dict(
            each=count,
            controls_each=controls,
            robust_each=robust,
            rows=rows,
            robust=robust_rows(examiner, robust, pool),
        ),
        out,
    )
    pool.terminate()
    same, total = write_heldout(examiner, out / "heldout.jsonl", prompts, max_new)
    print(f"held-out prompts: {same} of {total} as expected; {time.time() - start:.0f} s")


def build_again(out, device, names, prompts):
    """Marks some tasks of an exported model again, with as many prompts as the report has, and all held-out prompts."""
    out = Path(out)
    examiner, result = examiner_of(out, device), json.loads((out / "evaluation.json").read_text())
    mark_again(examiner, result, result["each"], names)
    write(result, out)
    print(write_heldout(examiner, out / "heldout.jsonl", prompts))


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--run", default="run", help="folder of the training")
    parser.add_argument("--out", default="xc2-scenes", help="model folder to write")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--count", type=int, default=400, help="prompts of each kind")
    parser.add_argument("--controls", type=int, default=400, help="the same with PLoRA off and everywhere")
    parser.add_argument("--robust", type=int, default=250, help="scenes for the other ways of drawing")
    parser.add_argument("--prompts", type=int, default=500, help="held-out prompts to write")
    parser.add_argument(
        "--again", nargs="+", metavar="TASK", help="mark these tasks of the exported model again, nothing else"
    )
    return parser


if __name__ == "__main__":
    a = arguments().parse_args()
    if a.again:
        build_again(a.out, a.device, a.again, a.prompts)
    else:
        build(a.run, a.out, a.device, a.count, a.controls, a.robust, a.prompts)
