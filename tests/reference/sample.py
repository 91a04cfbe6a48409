#!/usr/bin/env python3
"""Keeps a sample of full recordings, so that a clone stays small.

    sample.py golden/MODEL

Which rows and columns stay depends on the place of a file in the sorted list of its folder, so that all files
together still cover every token of the vocabulary and every row of the smaller pictures. What is sampled already stays
as it is, and so does `pixel_values`, of which every value is compared.
Values keep their 32 bits: the rounding error of f16 is above most tolerances (at most 1.3e-2 in the tower's stages,
3e-2 in logits).
"""
import glob, json, os, struct, sys

import numpy as np

TYPES = {"F32": np.dtype("<f4"), "I32": np.dtype("<i4")}
LOGITS = {"step_logits", "logits_last8"}
UNREAD = {"hidden_sample"}
WHOLE = {"photo_jpg"}  # all rows, to look at after a failure
MAX_ROWS = 30


def read(path):
    data = open(path, "rb").read()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    view = lambda t: data[end + t["data_offsets"][0] : end + t["data_offsets"][1]]
    return {name: np.frombuffer(view(t), TYPES[t["dtype"]]).reshape(t["shape"]) for name, t in header.items()}


def write(path, tensors):
    header, data = {}, b""
    for name, array in sorted(tensors.items(), key=lambda t: (t[1].dtype.kind != "f", t[0])):
        begin = len(data)
        data += array.tobytes()
        dtype = "F32" if array.dtype.kind == "f" else "I32"
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, len(data)]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + data)


def sample_conversation(tensors, number):
    kept = {name: array for name, array in tensors.items() if name not in UNREAD | LOGITS}
    for name in LOGITS & tensors.keys():
        at = np.arange(number % 8, tensors[name].shape[1], 8, dtype="<i4")
        kept[name + ".columns"], kept[name + ".at"] = tensors[name][:, at], at
    return kept


def sample_picture(tensors, number, stem):
    kept = {}
    for name, array in tensors.items():
        if array.ndim == 2 and array.shape[0] > MAX_ROWS and not name.endswith(".rows"):
            if stem in WHOLE and array.shape[0] < 100:
                kept[name] = array
                continue
            step = 3 if array.shape[0] < 100 else 8
            at = np.arange(number % step, array.shape[0], step, dtype="<i4")
            kept[name + ".rows"], kept[name + ".at"] = array[at], at
        else:
            kept[name] = array
    return kept


def main(golden):
    for number, path in enumerate(sorted(glob.glob(os.path.join(golden, "*.safetensors")))):
        write(path, sample_conversation(read(path), number))
    for number, path in enumerate(sorted(glob.glob(os.path.join(golden, "images", "*.safetensors")))):
        write(path, sample_picture(read(path), number, os.path.basename(path).split(".")[0]))


main(sys.argv[1])
