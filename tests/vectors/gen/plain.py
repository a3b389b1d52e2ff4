#!/usr/bin/env python3
"""Golden vectors for the networks without time:  python3 plain.py > ../plain.h

Written with Python's own complex numbers and nothing else. A network is a plain function of lists of numbers;
derivatives are the imaginary part of f(x + i h)/h with h = 1e-30, exact to rounding (complex step), and are
checked here against central differences. Any failed check stops the script.
"""
import cmath
import struct
import sys

B, H = 5, 1e-30


class Lcg:
    """u <- 1664525 u + 1013904223 mod 2^32, then ((u >> 8) / 2^24 - 1/2) * scale: exact in float32."""

    def __init__(self, seed):
        self.u = seed

    def value(self, scale):
        self.u = (1664525 * self.u + 1013904223) % 2 ** 32
        return ((self.u >> 8) / 2.0 ** 24 - 0.5) * scale

    def grid(self, scale, n):
        return [round(self.value(scale) * 256.0) / 256.0 for _ in range(n)]


def relu(v):
    if abs(v.real) < 1e-3:
        sys.exit("a relu lies at its kink: %g" % v.real)
    return v if v.real > 0 else 0j


def silu(v):
    return v / (1 + cmath.exp(-v))


def unit(u):
    length = cmath.sqrt(sum(v * v for v in u))
    return [v / length for v in u]


def chain(p, name, u, layers, act):
    for k in range(layers + 1):
        w, b = p["%s.%d.weight" % (name, 2 * k)], p["%s.%d.bias" % (name, 2 * k)]
        u = [sum(wi * ui for wi, ui in zip(row, u)) + bi for row, bi in zip(w, b)]
        if k < layers:
            u = [act(v) for v in u]
    return u


# name, autoencoder, dim, out, hidden, layers, code, unit, relu, x_scale, seed of the parameters, their scale
CASES = [
    ("mlp", 0, 3, 1, 5, 2, 0, 0, 0, 1.0, 201, 2.0),
    ("mlp_relu_3", 0, 3, 3, 6, 1, 0, 0, 1, 1.0, 202, 2.0),
    ("mlp_scale_3", 0, 2, 3, 4, 3, 0, 0, 0, 0.5, 203, 2.0),
    ("auto", 1, 5, 5, 4, 2, 3, 0, 0, 1.0, 204, 2.0),
    ("auto_unit", 1, 4, 4, 5, 1, 2, 1, 0, 1.0, 205, 2.0),
    ("auto_relu", 1, 3, 3, 6, 1, 2, 0, 1, 1.0, 206, 2.0),
    ("auto_unit_relu", 1, 4, 4, 7, 2, 3, 1, 1, 1.0, 210, 4.0),
]


def chain_shapes(name, n_in, hidden, layers, out):
    shapes = []
    for k in range(layers + 1):
        rows, cols = hidden if k < layers else out, hidden if k else n_in
        shapes += [("%s.%d.weight" % (name, 2 * k), (rows, cols)), ("%s.%d.bias" % (name, 2 * k), (rows, 0))]
    return shapes


def unflatten(flat, shapes):
    p, at = {}, 0
    for name, (rows, cols) in shapes:
        if cols:
            p[name] = [flat[at + r * cols:at + (r + 1) * cols] for r in range(rows)]
        else:
            p[name] = flat[at:at + rows]
        at += rows * max(cols, 1)
    return p


def derivatives(f, v):
    """The gradient of f at the list v."""
    grad = []
    for k in range(len(v)):
        w = [complex(a) for a in v]
        w[k] += 1j * H
        exact = f(w).imag / H
        h = 1e-6
        w[k] = v[k] + h
        up = f(w).real
        w[k] = v[k] - h
        near = (up - f(w).real) / (2 * h)
        if abs(near - exact) > 1e-6 * (1 + abs(exact)):
            sys.exit("derivative %d: %g by difference, %g exactly" % (k, near, exact))
        grad.append(exact)
    return grad


def wrap(items, indent="    "):
    lines, line = [], indent
    for i, item in enumerate(items):
        piece = item + (", " if i + 1 < len(items) else "")
        if len(line) + len(piece) > 108:
            lines.append(line.rstrip())
            line = indent
        line += piece
    return "\n".join(lines + [line])


def c_float(v):
    return "%sf" % repr(float(v))


def c_array(kind, name, values):
    text = [c_float(v) if kind == "float" else "%.15g" % v for v in values]
    print("static const %s %s[%d] = {\n%s\n};" % (kind, name, len(text), wrap(text)))


def run_case(name, auto, dim, out, hidden, layers, code, is_unit, is_relu, x_scale, seed, scale, data):
    act = relu if is_relu else silu
    if auto:
        shapes = chain_shapes("encoder.net", dim, hidden, layers, code)
        shapes += chain_shapes("decoder.net", code, hidden, layers, dim)
    else:
        shapes = chain_shapes("net", dim, hidden, layers, out)
    end = unit if is_unit else lambda u: u

    def net(flat, x):
        p = unflatten(flat, shapes)
        if auto:
            return end(chain(p, "decoder.net", end(chain(p, "encoder.net", x, layers, act)), layers, act))
        return chain(p, "net", [v / x_scale for v in x], layers, act)

    lcg = Lcg(seed)
    flat = [lcg.value(scale) for _ in range(sum(r * max(c, 1) for _, (r, c) in shapes))]
    assert all(struct.unpack("f", struct.pack("f", v))[0] == v for v in flat), "not exact in float32"
    x, c = data.grid(4.0, B * dim), data.grid(2.0, B * out)
    row = lambda v, i: v[i * len(v) // B:(i + 1) * len(v) // B]
    y = [v.real for i in range(B) for v in net([complex(v) for v in flat], row(x, i))]
    slope = [d for i in range(B) for d in derivatives(lambda u: sum(net(flat, u)), row(x, i))]
    loss = lambda p: sum(a * b for i in range(B) for a, b in zip(row(c, i), net(p, row(x, i))))
    grad = derivatives(loss, flat)
    g = "golden_" + name
    print("\n/* %s: dim %d, out %d, hidden %d, layers %d */" % (name, dim, out, hidden, layers))
    print("static const char *const %s_names[%d] = {\n%s\n};" %
          (g, len(shapes), wrap(['"%s"' % n for n, _ in shapes])))
    c_array("float", g + "_x", x)
    c_array("float", g + "_c", c)
    c_array("double", g + "_y", y)
    c_array("double", g + "_dydx", slope)
    c_array("double", g + "_grad", grad)
    first = '    { "%s", %d, %d, %d, %d, %d, %d, %d, %d, %s, %dul, %s, %d, %d,\n' % (
        name, auto, dim, out, hidden, layers, code, is_unit, is_relu, c_float(x_scale), seed, c_float(scale),
        len(shapes), len(flat))
    return first + wrap([g + s for s in ("_names", "_x", "_c", "_y", "_dydx", "_grad")], "      ") + " }"


HEADER = """/* plain.h: golden values of the networks without time, made by gen/plain.py; do not edit.
   Complex numbers of double precision; float arrays and all parameters are exact in float32. Parameters come
   from seed and scale as those of networks.h. Of each case NAME:

       NAME_names[]        parameter names, in order
       NAME_x[5 dim]       input
       NAME_c[5 out]       weights of the outputs in the last gradient
       NAME_y[5 out]       output
       NAME_dydx[5 dim]    gradient of the sum of each row's outputs
       NAME_grad[]         gradient of sum c y, all parameters in order

   An mlp is Linear, activation, ..., Linear of x/x_scale; an autoencoder two of these, x to code to x; with
   unit both the code and what comes out are divided by their lengths. */
#ifndef VGS_GOLDEN_PLAIN_H
#define VGS_GOLDEN_PLAIN_H

enum { GOLDEN_PLAIN_B = %d, GOLDEN_PLAINS = %d };"""

STRUCT = """
typedef struct {
    const char *name;
    int autoencoder, dim, out, hidden, layers, code, unit, relu;
    float x_scale;
    unsigned long seed;      /* of the parameters */
    float scale;
    int names, params;       /* number of named parameters, of scalars */
    const char *const *name_list;
    const float *x, *c;
    const double *y, *dydx, *grad;
} golden_plain;
"""


def main():
    data = Lcg(17)
    print(HEADER % (B, len(CASES)))
    rows = [run_case(*case, data) for case in CASES]
    print(STRUCT)
    print("static const golden_plain golden_plains[GOLDEN_PLAINS] = {\n%s\n};\n\n#endif" % ",\n".join(rows))


if __name__ == "__main__":
    main()
