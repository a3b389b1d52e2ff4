"""Writes an EfficientNet with numbers that a formula gives as .safetensors, under the names of one of three
libraries; needs nothing but Python:

    python3 tests/vectors/gen/state_dict.py b0|lite0 efficientnet_pytorch|timm|torchvision FILE

detect.py has what PyTorch makes of the same numbers.
"""
import array
import json
import math
import struct
import sys

REPEATS, SIZES = [1, 2, 2, 3, 3, 4, 1], [3, 3, 5, 3, 5, 5, 3]
CHANNELS, STRIDES = [16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 2, 1, 2, 1]


def uniform(t, i):
    x = (t * 0x9E3779B1 + i * 0x85EBCA77) & 0xFFFFFFFF
    x = (x ^ x >> 15) * 0x2C1B3C6D & 0xFFFFFFFF
    x = (x ^ x >> 12) * 0x297A2D39 & 0xFFFFFFFF
    return ((x ^ x >> 15) >> 8) / 2 ** 24


def blocks():
    """(stage, place in it, channels before, hidden, after, kernel, stride)"""
    before = 32
    for s in range(7):
        for r in range(REPEATS[s]):
            yield s, r, before, before * 6 if s else before, CHANNELS[s], SIZES[s], STRIDES[s] if r == 0 else 1
            before = CHANNELS[s]


def names(style, i, s, r, expands, squeezes):
    """Names of convolution and batch norm of each layer of block i."""
    if style == "efficientnet_pytorch":
        b = f"_blocks.{i}."
        return {"expand": (b + "_expand_conv", b + "_bn0"), "depthwise": (b + "_depthwise_conv", b + "_bn1"),
                "reduce": (b + "_se_reduce", None), "excite": (b + "_se_expand", None),
                "project": (b + "_project_conv", b + "_bn2")}
    if style == "timm":
        b = f"blocks.{s}.{r}."
        se = {"reduce": (b + "se.conv_reduce", None), "excite": (b + "se.conv_expand", None)}
        if not expands:
            return {"depthwise": (b + "conv_dw", b + "bn1"), **se, "project": (b + "conv_pw", b + "bn2")}
        return {"expand": (b + "conv_pw", b + "bn1"), "depthwise": (b + "conv_dw", b + "bn2"), **se,
                "project": (b + "conv_pwl", b + "bn3")}
    b, e = f"features.{s + 1}.{r}.block.", int(expands)
    return {"expand": (b + "0.0", b + "0.1"), "depthwise": (f"{b}{e}.0", f"{b}{e}.1"),
            "reduce": (f"{b}{e + 1}.fc1", None), "excite": (f"{b}{e + 1}.fc2", None),
            "project": (f"{b}{e + 1 + squeezes}.0", f"{b}{e + 1 + squeezes}.1")}


def layers(kind, style):
    """(name of the convolution, of its batch norm or None, shape), in the order of the network"""
    stem = {"efficientnet_pytorch": ("_conv_stem", "_bn0"), "timm": ("conv_stem", "bn1"),
            "torchvision": ("features.0.0", "features.0.1")}[style]
    yield (*stem, (32, 3, 3, 3))
    squeezes = kind == "b0"
    for i, (s, r, before, hidden, after, k, _) in enumerate(blocks()):
        n, squeezed = names(style, i, s, r, s > 0, squeezes), before // 4
        if s:
            yield (*n["expand"], (hidden, before, 1, 1))
        yield (*n["depthwise"], (hidden, 1, k, k))
        if squeezes:
            yield (*n["reduce"], (squeezed, hidden, 1, 1))
            yield (*n["excite"], (hidden, squeezed, 1, 1))
        yield (*n["project"], (after, hidden, 1, 1))


def tensors(kind, style):
    """name, shape, and the formula's offset and range of each tensor"""
    t = 0
    for conv, norm, shape in layers(kind, style):
        width = math.sqrt(3 / math.prod(shape[1:]))
        parts = [(conv + ".weight", shape, -width, 2 * width)]
        if norm:
            parts += [(norm + ".weight", shape[:1], 0.8, 0.4), (norm + ".bias", shape[:1], -0.2, 0.4),
                      (norm + ".running_mean", shape[:1], -0.2, 0.4), (norm + ".running_var", shape[:1], 0.6, 0.8)]
        else:
            parts.append((conv + ".bias", shape[:1], -0.2, 0.4))
        for name, s, low, spread in parts:
            yield t, name, s, low, spread
            t += 1


def main():
    kind, style, path = sys.argv[1:]
    header, data, at = {}, [], 0
    for t, name, shape, low, spread in tensors(kind, style):
        x = array.array("f", (low + spread * uniform(t, i) for i in range(math.prod(shape))))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * len(x)]}
        at += 4 * len(x)
        data.append(x)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for x in data:
            f.write(x.tobytes())


if __name__ == "__main__":
    main()
