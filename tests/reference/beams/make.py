"""Writes cases.json: what beam search of transformers finds for made-up models (`src/engine/beams/search.rs`).

    pip install torch transformers==4.33.3 && python make.py > cases.json

A model's logits depend on the last two generated tokens, on how many there are (or the same tokens in
another order would be as likely), and on chance. Their formula is in integers and stands in
`search.rs` as well.
"""

import json
import random

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

STOPS = [2, 3]
PAD = 0


def logits(seed, n_vocab, ids):
    past = lambda n: ids[-1 - n] + 1 if len(ids) > n else 0
    row = []
    for token in range(n_vocab):
        x = seed * 1_000_003 + past(0) * 10_007 + past(1) * 101 + len(ids) * 7_919 + token
        for _ in range(3):
            x = (x * 1_103_515_245 + 12_345) % (1 << 31)
            x ^= x >> 15
        row.append((x % (1 << 20)) / (1 << 17))
    return row


class Model(PreTrainedModel):
    """The made-up model; `n_before` tokens of its input are the prompt."""

    def __init__(self, seed, n_vocab, n_before):
        super().__init__(PretrainedConfig(vocab_size=n_vocab))
        self.seed, self.n_vocab, self.n_before = seed, n_vocab, n_before
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, **_):
        rows = [logits(self.seed, self.n_vocab, ids[self.n_before :]) for ids in input_ids.tolist()]
        return CausalLMOutput(logits=torch.tensor(rows)[:, None, :])

    def prepare_inputs_for_generation(self, input_ids, **_):
        return {"input_ids": input_ids}

    def can_generate(self):
        return True


def case(seed, rng):
    n_beams = rng.choice([2, 3, 5, 8])
    n_vocab = rng.randrange(3 * n_beams, 40)
    n_before = rng.choice([1, 1, 7, 40])
    n_predict = rng.choice([1, 2, 5, 12, 30])
    model = Model(seed, n_vocab, n_before)
    config = GenerationConfig(
        num_beams=n_beams, length_penalty=1.0, early_stopping=False, do_sample=False, max_new_tokens=n_predict,
        eos_token_id=STOPS, pad_token_id=PAD, return_dict_in_generate=True, output_scores=True,
    )
    out = model.generate(torch.ones(1, n_before, dtype=torch.long), generation_config=config)
    ids = out.sequences[0, n_before:].tolist()
    # A hypothesis that ended is shorter than the rest or ends in the stop token that is put behind it;
    # that is always the first of them.
    ended = len(ids) < n_predict or ids[-1] in STOPS
    while ids and ids[-1] in STOPS:
        ids.pop()
    return {
        "seed": seed, "n_vocab": n_vocab, "n_beams": n_beams, "n_before": n_before, "n_predict": n_predict,
        "ids": ids, "ended": ended, "score": round(out.sequences_scores[0].item(), 6),
    }


def main():
    torch.manual_seed(0)
    rng = random.Random(0)
    cases = [json.dumps(case(seed, rng)) for seed in range(150)]
    print("[\n" + ",\n".join(cases) + "\n]")


main()
