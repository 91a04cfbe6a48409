"""Makes `tokenizer.model`: sentencepiece BPE of 2048 pieces, with the settings of the published tokenizer.

The turn markers are user-defined pieces, ids 3 and 4: not at the end of the vocabulary, so nobody may take that for granted.
`python3 -m train.tokenizer OUT` makes it again from seed 0.
"""

import io
import sys
from pathlib import Path

import sentencepiece

from .prng import Draw
from .prompts import COMPOSITION_SYSTEM, END, SYSTEM, TURN
from .scenes import draw_scene
from .tasks import IMAGE, captions, composition, questions, several, text

N_VOCAB = 2048
STAGES = [
    composition.article_from_pictures,
    composition.article_from_outline,
    composition.positions,
    composition.place_caption,
    composition.selection,
    composition.edit,
]


def corpus(seed, rounds):
    """Lines of what is asked and answered, about as often as in training."""
    for i in range(rounds):
        draw = Draw(seed + i)
        scene = draw_scene(draw)
        asks = [captions.ask(draw, scene), several.ask(draw, 2), text.ask(draw), text.ask(draw)]
        asks += [questions.ask(draw, scene) for _ in range(3)]
        if i % 3 == 0:
            asks += [stage(draw) for stage in STAGES]
        texts = [part for ask in asks for part in (ask.query, ask.forced, ask.answer)]
        texts += ["user", "assistant", "system", SYSTEM, COMPOSITION_SYSTEM] if i % 40 == 0 else []
        for line in "\n".join(texts).replace(IMAGE, "\n").split("\n"):
            if line:
                yield line


def make(path, seed=0, rounds=9000, n_vocab=N_VOCAB):
    """Trains the tokenizer and writes it."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(seed, rounds),
        model_writer=model,
        model_type="bpe",
        vocab_size=n_vocab,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        user_defined_symbols=[END, TURN],
        max_sentence_length=20000,
        minloglevel=1,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
    )
    Path(path).write_bytes(model.getvalue())


if __name__ == "__main__":
    make(sys.argv[1])
