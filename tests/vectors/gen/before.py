#!/usr/bin/env python3
"""Writes ../before.h: two checkpoints of before `published` took the place of one_step, no_base,
unclamped_drift, dim_effective and skip_final_noise, as text and words, and what three more iterations of the
program that wrote them made of each.

    git checkout 3ea8fb2
    cc -std=c99 -O1 -DVGS_PORTABLE -ffp-contract=off examples/train.c -o train -lm
    ./train gmm9 --steps 4 --batch 4 --replay 2 --refine 1 --hidden 2 --layers 1 --time-dim 4 \\
            --time-hidden 2 --threads 1 --iterations 2 --out ours                 a copy: ours.2
    ./train four-gauss --preset paper --steps 3 --batch 4 --passes 1 --hidden 2 --time-dim 4 \\
            --threads 1 --iterations 2 --out paper                a copy: paper.2
    and both again with --iterations 5 --resume                   copies: ours.5, paper.5
    python3 before.py ours.2 ours.5 paper.2 paper.5 > ../before.h"""
import json
import struct
import sys


def words(name, data):
    values = struct.unpack("<%dI" % (len(data) // 4), data)
    print("static const uint32_t %s[%d] = {" % (name, len(values)))
    for i in range(0, len(values), 8):
        end = "," if i + 8 < len(values) else ""
        print("    " + ", ".join("0x%08xu" % v for v in values[i:i + 8]) + end)
    print("};")


def text(name, header):
    quoted = header.replace('"', '\\"')
    print("static const char %s[] =" % name)
    while quoted:
        n = min(len(quoted), 100)
        while quoted[n - 1] == "\\":
            n -= 1
        print('    "%s"%s' % (quoted[:n], ";" if n == len(quoted) else ""))
        quoted = quoted[n:]


def fnv(header, data):
    """FNV-1a of all tensors' bytes, in the order of their names."""
    h = 14695981039346656037
    for name, t in sorted(header.items()):
        if name != "__metadata__":
            for b in data[t["data_offsets"][0]:t["data_offsets"][1]]:
                h = (h ^ b) * 1099511628211 % 2 ** 64
    return h


def parts(path):
    file = open(path, "rb").read()
    n = struct.unpack("<Q", file[:8])[0]
    return file[8:8 + n].decode(), file[8 + n:]


print("/* before.h: checkpoints of an earlier version, made by gen/before.py; do not edit. */")
print("#ifndef VGS_GOLDEN_BEFORE_H\n#define VGS_GOLDEN_BEFORE_H\n#include <stdint.h>")
for which, (first, later) in (("ours", sys.argv[1:3]), ("paper", sys.argv[3:5])):
    header, data = parts(first)
    end = parts(later)
    value = [t["data_offsets"] for name, t in json.loads(end[0]).items() if name.startswith("value.")]
    print()
    text("before_%s_header" % which, header)
    words("before_%s_data" % which, data)
    words("before_%s_value" % which, end[1][value[0][0]:value[-1][1]])
    print("static const uint64_t before_%s_hash = 0x%016xu;" % (which, fnv(json.loads(end[0]), end[1])))
print("\n#endif")
