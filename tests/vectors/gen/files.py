#!/usr/bin/env python3
"""Writes ../files.h: small files made by NumPy and by Python's safetensors, as byte arrays.

    python3 files.py > ../files.h         (numpy 2.x, safetensors 0.8, torch 2.x)

With a path as argument it checks instead that Python reads what tests/file.c left in that folder."""
import io
import os
import sys
import tempfile

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def safetensors(tensors, metadata):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x")
        save_file(tensors, path, metadata)
        return open(path, "rb").read()


def emit(name, data):
    print(f"static const unsigned char {name}[{len(data)}] = {{")
    for i in range(0, len(data), 20):
        print("    " + ", ".join(f"{b:3d}" for b in data[i:i + 20]) + ("," if i + 20 < len(data) else ""))
    print("};\n")


def check(folder):
    path = os.path.join(folder, "ours.safetensors")
    a = load_file(path)
    with safe_open(path, "pt") as f:
        b, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()
    for k in a:
        np.testing.assert_array_equal(a[k], b[k].numpy())
    assert sorted(a) == ["b", "counts", "none", "one", "seed", "w \u00e9\"\\", "wide"], sorted(a)
    assert a["w \u00e9\"\\"].shape == (2, 3) and a["w \u00e9\"\\"].dtype == np.float32
    np.testing.assert_array_equal(a["w \u00e9\"\\"].ravel(), np.float32([0, 1.5, -2, 1e-38, 3e38, 0.1]))
    assert a["seed"].dtype == np.uint64 and a["seed"].tolist() == [2**64 - 1]
    assert a["counts"].tolist() == [-1, 2**31 - 1] and a["counts"].dtype == np.int32
    assert a["wide"].tolist() == [1 / 3] and a["wide"].dtype == np.float64
    assert a["b"].tolist() == [1, 2, 255] and a["one"].shape == () and a["none"].shape == (0, 4)
    assert meta["tau"] == "0.1" and meta["text"] == "tab\there, \u20ac, \x01" and meta["vgs.format"] == "1", meta
    x = np.load(os.path.join(folder, "ours.npy"))
    assert x.dtype == np.float32 and x.tolist() == [[1, 2, 3], [4, 5, 6]]
    print("Python reads our files: ok")


def main():
    if len(sys.argv) > 1:
        return check(sys.argv[1])
    print("/* files.h: files made by NumPy and safetensors, by gen/files.py; do not edit. */\n")
    emit("py_npy_f4", npy(np.arange(1, 7, dtype="<f4").reshape(2, 3)))
    emit("py_npy_f8", npy(np.array([0.5, -1.25, 1 / 3], dtype="<f8")))
    emit("py_npy_fortran", npy(np.asfortranarray(np.arange(6, dtype="<f4").reshape(2, 3))))
    emit("py_npy_i4", npy(np.arange(6, dtype="<i4").reshape(2, 3)))
    emit("py_npy_3d", npy(np.zeros((1, 2, 1), dtype="<f4")))
    emit("py_safetensors", safetensors({
        "w": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 4,
        "d": torch.tensor([1 / 3], dtype=torch.float64),
        "n": torch.tensor([-1, 2**40], dtype=torch.int64),
        "u": torch.tensor([1, 255], dtype=torch.uint8),
        "h": torch.tensor([1.0], dtype=torch.bfloat16),
        "flag": torch.tensor([True, False, True]),
        "gr\u00f6\u00dfe": torch.tensor(2.5)}, {"format": "pt", "k\u00e9y": "\u20ac \U0001f600 \"q\" \n"}))


main()
