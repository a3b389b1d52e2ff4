"""Writes the tensors of a PyTorch checkpoint (.pth, .pt) as .safetensors, without PyTorch:

    python3 examples/pth_to_safetensors.py weights.pth weights.safetensors

A checkpoint is a pickle, and a pickle is a program: this one may call nothing but the functions that
`Restricted` lists, so that a hostile file ends with an error. Only Python's own library is used.
"""
import collections
import itertools
import json
import math
import os
import pickle
import struct
import sys
import zipfile

TYPES = {"FloatStorage": ("F32", 4), "DoubleStorage": ("F64", 8), "HalfStorage": ("F16", 2),
         "BFloat16Storage": ("BF16", 2), "LongStorage": ("I64", 8), "IntStorage": ("I32", 4),
         "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1), "ByteStorage": ("U8", 1),
         "BoolStorage": ("BOOL", 1)}
LEGACY = 0x1950A86A20F9469CFC6C


class Tensor:
    def __init__(self, storage, offset, shape, stride, *_):
        (self.dtype, self.size), self.key = storage
        self.offset, self.shape, self.stride = offset, tuple(shape), tuple(stride)

    def bytes(self, data):
        """Its elements in C order. data: the bytes of its storage."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride))
        if 0 in self.shape:
            return b""
        if min(0, self.offset, *self.stride, *self.shape) < 0 or (last + 1) * self.size > len(data) or \
                math.prod(self.shape) * self.size > len(data):
            raise pickle.UnpicklingError(f"a tensor of shape {self.shape} is larger than its storage")
        steps = [[i * s for i in range(n)] for n, s in zip(self.shape, self.stride)]
        at = (self.size * (self.offset + sum(i)) for i in itertools.product(*steps))
        return b"".join(data[i:i + self.size] for i in at)


class Restricted(pickle.Unpickler):
    """The tensors of a pickle, without their bytes."""
    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return Tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module == "torch" and name in TYPES:
            return TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} may not be called")

    def persistent_load(self, what):
        kind, storage, key = what[:3]
        if kind != "storage" or storage not in TYPES.values():
            raise pickle.UnpicklingError(f"{what!r} is not known")
        return storage, key


def load_zip(path):
    """State and bytes of each storage, of PyTorch 1.6 or later."""
    with zipfile.ZipFile(path) as z:
        names = [n for n in z.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError(f"{len(names)} files data.pkl inside, not one")
        folder = names[0][:-len("data.pkl")] + "data/"
        with z.open(names[0]) as f:
            state = Restricted(f).load()
        return state, {n[len(folder):]: z.read(n) for n in z.namelist() if n.startswith(folder)}


def load_legacy(path):
    """The same before 1.6: magic number, version, machine, state and keys are pickles; then the storages."""
    with open(path, "rb") as f:
        if Restricted(f).load() != LEGACY:
            raise pickle.UnpicklingError("no PyTorch checkpoint")
        Restricted(f).load(), Restricted(f).load()
        state, storages = Restricted(f).load(), {}
        size = {t.key: t.size for t in state.values() if isinstance(t, Tensor)}
        for key in Restricted(f).load():
            storages[key] = f.read(struct.unpack("<q", f.read(8))[0] * size[key])
        return state, storages


def save(tensors, path):
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".tmp", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            f.write(data)
    os.replace(path + ".tmp", path)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        state, storages = (load_zip if zipfile.is_zipfile(sys.argv[1]) else load_legacy)(sys.argv[1])
        state = state.get("state_dict", state)
        tensors = {k: (t.dtype, t.shape, t.bytes(storages[t.key]))
                   for k, t in state.items() if isinstance(t, Tensor)}
        if not tensors:
            raise pickle.UnpicklingError("no dictionary of tensors inside")
        save(tensors, sys.argv[2])
        print(f"{sys.argv[2]}: {len(tensors)} tensors")
    except Exception as e:  # a hostile pickle can raise any
        sys.exit(f"{sys.argv[1]}: {e!r}")


if __name__ == "__main__":
    main()
