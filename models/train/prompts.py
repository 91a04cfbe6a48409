"""From turns to tokens: the chat template, the places of `<s>` and of the pictures, and which tokens are learned.

The forms are those in which the published models were trained and are called; see `Form`.
"""

import functools
import math
from dataclasses import dataclass

import sentencepiece

from .tasks import IMAGE

TURN, END = "[UNUSED_TOKEN_146]", "[UNUSED_TOKEN_145]"
IMAGE_ID = -1  # stands for one row of a picture in a list of ids
N_PATCHES = 144

SYSTEM = (
    "You are an AI assistant whose name is InternLM-XComposer (浦语·灵笔).\n"
    "- InternLM-XComposer (浦语·灵笔) is a multi-modality conversational language model that is developed by Shanghai AI Laboratory "
    "(上海人工智能实验室). It is designed to be helpful, honest, and harmless.\n"
    "- InternLM-XComposer (浦语·灵笔) can understand and communicate fluently in the language chosen by the user such as English and 中文.\n"
    "- InternLM-XComposer (浦语·灵笔) is capable of comprehending and articulating responses effectively based on the provided image."
)
LINES = SYSTEM.split("\n")
COMPOSITION_SYSTEM = "\n".join([LINES[0], LINES[1].replace("multi-modality ", ""), LINES[2], ""])


@dataclass(frozen=True, slots=True)
class Form:
    """How a prompt is laid out."""

    system: str | None = SYSTEM
    bos: str = "each"  # `<s>` before `each` piece of text, `once`, or `double` (text only)
    pictures: str = "body"  # where `<ImageHere>` stands, right `before` the user turn, or in `front` of everything


class Coder:
    """The tokenizer with a memory for texts that come again."""

    def __init__(self, path):
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.bos, self.eos = self.model.bos_id(), self.model.eos_id()
        self.end = self.model.piece_to_id(END)
        self.piece = functools.lru_cache(maxsize=60000)(lambda text: tuple(self.model.encode(text)))
        self.system = tuple(self.model.encode(SYSTEM))

    def ids(self, text):
        """Token ids without `<s>`. A line break is always a token of its own, so the system text can be looked up."""
        out = []
        for i, part in enumerate(text.split(SYSTEM)):
            out += self.system if i else ()
            if part:
                out += self.piece(part) if len(part) < 120 else self.model.encode(part)
        return out

    def text(self, ids):
        """The text of ids."""
        return self.model.decode(list(ids))

    def length(self, ask):
        """Tokens of a turn, pictures left out."""
        return sum(len(self.ids(text)) for text in (ask.query.replace(IMAGE, ""), ask.forced, ask.answer)) + 12


def prompt_pieces(turns, form):
    """Alternating (text, answer): what is given and what is to be said, turn by turn."""
    text = f"{TURN}system\n{form.system}{END}\n" if form.system else ""
    pieces = []
    for i, ask in enumerate(turns):
        query = ask.query
        if i == 0 and form.pictures != "body":
            pictures = IMAGE * query.count(IMAGE)
            query = query.replace(IMAGE, "").lstrip()
            text = pictures + text if form.pictures == "front" else text + pictures
        text += f"{TURN}user\n{query}{END}\n{TURN}assistant\n{ask.forced}"
        pieces.append((text, ask.answer))
        text = "\n"
    return pieces


def encode(coder, turns, form):
    """(ids with IMAGE_ID for picture rows, weight of each id as a target: 0 where it is given)."""
    ids = [coder.bos] * (2 if form.bos == "double" else 1)
    weights = [0.0] * len(ids)
    for text, answer in prompt_pieces(turns, form):
        for i, part in enumerate(text.split(IMAGE)):
            new = [IMAGE_ID] * N_PATCHES if i else []
            if part:
                new += ([coder.bos] if i and form.bos == "each" else []) + list(coder.ids(part))
            ids += new
            weights += [0.0] * len(new)
        said = list(coder.ids(answer)) + [coder.end]
        ids += said
        weights += [1 / math.sqrt(len(said))] * len(said)
    return ids, weights
