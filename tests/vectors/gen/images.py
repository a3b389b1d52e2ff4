#!/usr/bin/env python3
"""Golden vectors for the networks on images:  python3 images.py > ../images.h

PyTorch in double precision, written the direct way: images as [B,c,h,w], conv2d, avg_pool2d, bilinear interpolate,
the bias that depends on t added after the convolution. Gradients come from autograd and are checked here against
central differences. Any failed check stops the script.
"""
import sys

sys.dont_write_bytecode = True
import torch
import torch.nn.functional as F

from networks import layer_norm, lin, linear, make_params, norm, sinusoid
from plain import Lcg, c_array, c_float, wrap

B, T = 5, 4

# name, unet, height, width, channels, hidden, layers, levels, steps, f, m, seed of the parameters, their scale
CASES = [
    ("resnet", 0, 4, 6, 1, 2, 1, 2, 0, 0, 0, 301, 1.0),
    ("resnet_time", 0, 4, 2, 2, 3, 2, 1, T, 4, 6, 302, 1.0),
    ("unet", 1, 4, 4, 1, 2, 1, 3, 0, 0, 0, 303, 1.0),
    ("unet_time", 1, 4, 2, 3, 2, 1, 2, T, 4, 6, 304, 1.0),
]


def conv(name, out, into, size, f):
    """The weight [out, size size in] and its bias, with f a Linear of the embedding of t."""
    return [(name + ".weight", (out, size * size * into))] + (lin(name + ".time", out, f) if f else
                                                              [(name + ".bias", (out,))])


def block_shapes(name, into, out, f, unet):
    s = conv(name + ".skip", out, into, 1, 0) if into != out else []
    s += norm(name + ".norm0", into) if unet else []
    s += conv(name + ".conv0", out, into, 3, f)
    s += norm(name + ".norm1", out) if unet else []
    return s + conv(name + ".conv1", out, out, 3, 0)


def width(hidden, level):
    return hidden * (2 if level else 1)


def shapes_of(unet, c, hidden, layers, levels, f, m):
    s = lin("time.0", f, m) + lin("time.2", f, f) if f else []
    s += conv("first", hidden, c, 3, 0)
    now = hidden
    for l in range(levels):
        for k in range(layers):
            s += block_shapes("down.%d.%d" % (l, k), now, width(hidden, l), f, unet)
            now = width(hidden, l)
    if not unet:
        return s + lin("out", 1, now)
    for l in reversed(range(levels - 1)):
        now += width(hidden, l)
        for k in range(layers):
            s += block_shapes("up.%d.%d" % (l, k), now, width(hidden, l), f, unet)
            now = width(hidden, l)
    return s + norm("norm", now) + conv("last", c, now, 3, 0)


def apply_conv(p, name, u, te):
    w = p[name + ".weight"]
    size = 3 if w.shape[1] == 9 * u.shape[1] else 1
    kernel = w.reshape(w.shape[0], size, size, u.shape[1]).permute(0, 3, 1, 2)
    if name + ".time.weight" in p:
        return F.conv2d(u, kernel, padding=size // 2) + linear(p, name + ".time", te)[:, :, None, None]
    return F.conv2d(u, kernel, p[name + ".bias"], padding=size // 2)


def act(p, name, u, unet):
    if unet:
        u = layer_norm(p, name, u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return F.silu(u)


def block(p, name, u, te, unet):
    v = apply_conv(p, name + ".conv0", act(p, name + ".norm0", u, unet), te)
    v = apply_conv(p, name + ".conv1", act(p, name + ".norm1", v, unet), te)
    return v + (apply_conv(p, name + ".skip", u, te) if name + ".skip.weight" in p else u)


def net(p, x, t, unet, h, w, c, layers, levels, m):
    te = None
    if t is not None:
        te = F.silu(linear(p, "time.2", F.silu(linear(p, "time.0", sinusoid(t, m)))))
    u = apply_conv(p, "first", x.reshape(-1, h, w, c).permute(0, 3, 1, 2), te)
    skip = []
    for l in range(levels):
        if l:
            u = F.avg_pool2d(u, 2)
        for k in range(layers):
            u = block(p, "down.%d.%d" % (l, k), u, te, unet)
        skip.append(u)
    if not unet:
        return linear(p, "out", F.silu(u).mean((2, 3)))
    for l in reversed(range(levels - 1)):
        u = F.interpolate(u, scale_factor=2, mode="bilinear", align_corners=False)
        u = torch.cat([u, skip[l]], 1)
        for k in range(layers):
            u = block(p, "up.%d.%d" % (l, k), u, te, unet)
    u = apply_conv(p, "last", act(p, "norm", u, unet), te)
    return u.permute(0, 2, 3, 1).reshape(len(x), -1)


def run_case(name, unet, h, w, c, hidden, layers, levels, steps, f, m, seed, scale, data):
    shapes = shapes_of(unet, c, hidden, layers, levels, f, m)
    p = make_params(shapes, seed, scale)
    for v in p.values():
        v.requires_grad_(True)
    dim, out = h * w * c, h * w * c if unet else 1
    x = torch.tensor(data.grid(4.0, B * dim)).reshape(B, dim).requires_grad_(True)
    weight = torch.tensor(data.grid(2.0, B * out)).reshape(B, out)
    t = (3 * torch.arange(B)) % T if steps else None
    run = lambda: net(p, x, t, unet, h, w, c, layers, levels, m)
    y = run()
    slope, = torch.autograd.grad(y.sum(), x, retain_graph=True)
    grads = torch.autograd.grad((weight * y).sum(), list(p.values()))
    with torch.no_grad():                          # autograd against central differences
        for v, g in zip(p.values(), grads):
            k = v.numel() // 2
            flat = v.view(-1)
            ends = []
            for d in (1e-6, -2e-6):
                flat[k] += d
                ends.append((weight * run()).sum().item())
            flat[k] += 1e-6
            near = (ends[0] - ends[1]) / 2e-6
            if abs(near - g.reshape(-1)[k].item()) > 1e-6 * (1 + abs(near)):
                sys.exit("%s: %g by difference, %g exactly" % (name, near, g.reshape(-1)[k]))
    grad = torch.cat([g.reshape(-1) for g in grads])
    g = "golden_" + name
    print("\n/* %s: %d x %d x %d, hidden %d, layers %d, levels %d */" % (name, h, w, c, hidden, layers, levels))
    print("static const char *const %s_names[%d] = {\n%s\n};" %
          (g, len(shapes), wrap(['"%s"' % n for n, _ in shapes])))
    c_array("float", g + "_x", x.reshape(-1).tolist())
    c_array("float", g + "_c", weight.reshape(-1).tolist())
    c_array("double", g + "_y", y.reshape(-1).tolist())
    c_array("double", g + "_dydx", slope.reshape(-1).tolist())
    c_array("double", g + "_grad", grad.tolist())
    first = '    { "%s", %d, %d, %d, %d, %d, %d, %d, %d, %d, %d, %dul, %s, %d, %d,\n' % (
        name, unet, h, w, c, hidden, layers, levels, steps, f, m, seed, c_float(scale), len(shapes), len(grad))
    return first + wrap([g + s for s in ("_names", "_x", "_c", "_y", "_dydx", "_grad")], "      ") + " }"


HEADER = """/* images.h: golden values of the networks on images, made by gen/images.py; do not edit.
   PyTorch in double precision; float arrays and all parameters are exact in float32. Parameters come from seed
   and scale as those of networks.h, t of row i is 3 i mod steps, and the arrays of a case are those of plain.h. */
#ifndef VGS_GOLDEN_IMAGES_H
#define VGS_GOLDEN_IMAGES_H

enum { GOLDEN_IMAGES_B = %d, GOLDEN_IMAGES = %d };"""

STRUCT = """
typedef struct {
    const char *name;
    int unet, height, width, channels, hidden, layers, levels, steps, time_hidden, time_dim;
    unsigned long seed;      /* of the parameters */
    float scale;
    int names, params;       /* number of named parameters, of scalars */
    const char *const *name_list;
    const float *x, *c;
    const double *y, *dydx, *grad;
} golden_image;
"""


def main():
    data = Lcg(19)
    print(HEADER % (B, len(CASES)))
    rows = [run_case(*case, data) for case in CASES]
    print(STRUCT)
    print("static const golden_image golden_images[GOLDEN_IMAGES] = {\n%s\n};\n\n#endif" % ",\n".join(rows))


if __name__ == "__main__":
    main()
