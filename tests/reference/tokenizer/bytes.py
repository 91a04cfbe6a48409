"""Writes bytes.jsonl: bytes, and the text that sentencepiece decodes from their byte pieces.

Run in this directory with sentencepiece 0.2.3 or so.
"""

import json
import random

import sentencepiece

processor = sentencepiece.SentencePieceProcessor(model_file="../tiny-vl/tokenizer.model")
ids = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]

# Every kind of byte: leads that are overlong, too large or of five and six bytes; surrogates' halves.
EDGES = bytes.fromhex("41 00 20 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 f8 fc fe ff")
CHARACTERS = "Aé中😀\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff"


def cases():
    yield from ([byte] for byte in range(256))
    for character in CHARACTERS:
        whole = character.encode()
        yield from (whole[:n] for n in range(1, len(whole) + 1))
        yield from (whole[n:] + b"x" + whole[:n] for n in range(1, len(whole)))
    draw = random.Random(21)
    for _ in range(900):
        n = draw.randint(2, 7)
        yield [draw.choice(EDGES) if draw.random() < 0.8 else draw.randrange(256) for _ in range(n)]
    for _ in range(200):
        text = "".join(draw.choices(CHARACTERS, k=3)).encode()
        cut = draw.randrange(len(text))
        yield text[:cut] + text[cut + draw.randint(1, 2):]


with open("bytes.jsonl", "w", encoding="utf-8") as out:
    for case in cases():
        case = bytes(case)
        text = processor.decode([ids[byte] for byte in case])
        print(json.dumps([case.hex(), text]), file=out)
