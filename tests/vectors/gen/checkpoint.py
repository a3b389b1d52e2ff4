#!/usr/bin/env python3
"""A state_dict as the reference implementation's trainer holds it, saved by safetensors:

    python3 checkpoint.py > ../checkpoint.h

temb, D 2, h 2, m 4, T 3, VP: value.*, value_on.*, s2, alpha, init_sigma [1]; no metadata of ours.
"""
import torch
from safetensors.torch import save

NAMES = [("net1.net.0", 2, 2), ("net2.net.0", 2, 4), ("net2.net.2", 2, 2), ("net2.net.4", 2, 2),
         ("net3.net.0", 2, 4), ("net3.net.2", 2, 2), ("net3.net.4", 1, 2)]


def network(prefix, seed):
    generator = torch.Generator().manual_seed(seed)
    out = {}
    for name, rows, cols in NAMES:
        out[prefix + name + ".weight"] = torch.rand(rows, cols, generator=generator) - 0.5
        out[prefix + name + ".bias"] = torch.rand(rows, generator=generator) - 0.5
    return out


def floats(name, x):
    text = ", ".join("%.9gf" % v if "." in "%.9g" % v or "e" in "%.9g" % v else "%.9g.0f" % v for v in x.flatten().tolist())
    lines, line = [], "   "
    for word in text.split(" "):
        if len(line) + len(word) > 106:
            lines.append(line)
            line = "   "
        line += " " + word
    print("static const float %s[%d] = {\n%s\n};" % (name, x.numel(), "\n".join(lines + [line])))


def main():
    value, online = network("value.", 1), network("value_on.", 2)
    s2 = torch.tensor([0.3, 0.2, 0.1])
    alpha = 1 / torch.sqrt(1 - s2)
    s0 = torch.tensor([1.25])
    data = save({**value, **online, "s2": s2, "alpha": alpha, "init_sigma": s0})
    flat = [torch.cat([v.flatten() for v in d.values()]) for d in (value, online)]
    print("/* checkpoint.h: a state_dict saved by Python's safetensors, made by gen/checkpoint.py; do not edit. */")
    print("#ifndef VGS_GOLDEN_CHECKPOINT_H\n#define VGS_GOLDEN_CHECKPOINT_H\n")
    print("enum { CHECKPOINT_P = %d };" % flat[0].numel())
    floats("checkpoint_value", flat[0])
    floats("checkpoint_value_on", flat[1])
    floats("checkpoint_s2", s2)
    floats("checkpoint_alpha", alpha)
    print("static const float checkpoint_s0 = %.9gf;" % s0.item())
    print("static const unsigned char checkpoint_file[%d] = {" % len(data))
    for i in range(0, len(data), 20):
        print("    " + ", ".join("%d" % b for b in data[i:i + 20]) + ("," if i + 20 < len(data) else ""))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
