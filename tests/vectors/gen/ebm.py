#!/usr/bin/env python3
"""Golden vectors for energy-based models:  python3 ebm.py > ../ebm.h

An independent PyTorch implementation in float64, the direct way: contrastive divergence on the sphere with an
autoencoder's energy and the value network deeperv3, and Energy Discrepancy in the plane with an mlp. Gradients
come from autograd; the gradient of E is checked here against central differences. Any failed check stops the
script.
"""
import math
import sys

import torch
import torch.nn.functional as F

sys.dont_write_bytecode = True
from networks import Lcg, c_array, check, deeperv3, deeperv3_shapes, lin, linear, make_params

D, B, T = 6, 5, 3                                # the sphere
H, LAYERS, CODE = 7, 2, 3
VH, VF, VM = 5, 4, 6
S2, TAU_E, GAMMA, SCALE_G = 0.05, 0.1, 1.0, 1.25
M, W, VARIANCE, BASE, BETA = 4, 1.5, 0.3, 2.0, 1.0 / 0.8        # the plane; tau = 0.8
LR = 1e-4


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def tangent(v, x):
    return v - (v * x).sum(1, keepdim=True) * x


def move(x, v):
    n = v.norm(dim=1, keepdim=True)
    return unit(torch.cos(n) * x + torch.sin(n) * v / n)


def chain(p, part, u, activation):
    for k in range(LAYERS):
        u = activation(linear(p, "%s.%d" % (part, 2 * k), u))
    return linear(p, "%s.%d" % (part, 2 * LAYERS), u)


def halves(part, inp, out):
    sizes = [inp] + [H] * LAYERS + [out]
    return [s for k in range(LAYERS + 1) for s in lin("%s.%d" % (part, 2 * k), sizes[k + 1], sizes[k])]


def autoencoder(p, x):
    code = unit(chain(p, "encoder.net", x, torch.relu))
    r = unit(chain(p, "decoder.net", code, torch.relu))
    return p["out_scale"] ** 2 * ((x - r) ** 2).sum(1) / TAU_E


def mlp(p, x):
    return chain(p, "net", x, F.silu)[:, 0] + (x ** 2).sum(1) / (BETA * 2 * BASE ** 2)


def gradient(f, x):
    x = x.detach().clone().requires_grad_(True)
    return torch.autograd.grad(f(x).sum(), x)[0]


def check_gradient(name, f, x, g):
    for k in range(x.shape[1]):
        h = torch.zeros_like(x)
        h[:, k] = 1e-6
        d = (f(x + h) - f(x - h)) / 2e-6
        check((d - g[:, k]).abs().max().item() < 1e-5 * (1 + g.abs().max().item()), name + ": gradient")


def flat(p):
    return torch.cat([v.reshape(-1) for v in p.values()])


def descend(p, loss):
    """The gradient, and the parameters after one step of Adam."""
    leaves = list(p.values())
    adam = torch.optim.Adam(leaves, lr=LR)
    adam.zero_grad()
    loss.backward()
    grad = torch.cat([v.grad.reshape(-1) for v in leaves])
    adam.step()
    return grad, torch.cat([v.detach().reshape(-1) for v in leaves])


def grad_leaves(shapes, seed, scale):
    p = make_params(shapes, seed, scale)
    if "out_scale" in p:
        p["out_scale"] = torch.tensor(SCALE_G)
    return {k: v.requires_grad_(True) for k, v in p.items()}


def sphere():
    lcg = Lcg(31)
    data, source = unit(lcg.grid(2.0, B, D)).float().double(), unit(lcg.grid(2.0, B, D)).float().double()
    eps = lcg.grid(4.0, 2 * T, B, D)
    p = grad_leaves([("out_scale", ())] + halves("encoder.net", D, CODE) + halves("decoder.net", CODE, D), 5, 2.0)
    v = make_params(deeperv3_shapes(D, VH, VF, VM), 6, 2.0)
    energy = lambda x: autoencoder(p, x)
    e, g = energy(data), gradient(energy, data)
    check_gradient("sphere", energy, data, g)
    x = source
    for k in range(T):
        x = move(x, math.sqrt(S2) * tangent(eps[k], x))
    start = x
    for t in range(T):
        if t < T - 1:
            step = torch.full((B,), t + 1)
            mu = S2 * gradient(lambda y: deeperv3(v, y, step, VM), x)
        else:
            mu = S2 * gradient(energy, x)
        x = move(x, -tangent(mu, x) + math.sqrt(S2) * tangent(eps[T + t], x))
    plus, minus = energy(data) / D, energy(x.detach()) / D
    loss = plus.mean() - minus.mean() + GAMMA * ((plus ** 2).mean() + (minus ** 2).mean())
    grad, after = descend(p, loss)
    before = flat(make_params([(k, q.shape) for k, q in p.items()], 5, 2.0))
    check((after - before).abs()[1:].max().item() <= 1.01 * LR, "one step of Adam")
    names = ("data", data), ("source", source), ("eps", eps)
    exact("sphere", names)
    golden("sphere", (("e", e), ("g", g), ("start", start), ("draws", x), ("loss", loss), ("grad", grad),
                      ("after", after)))
    print("enum { GOLDEN_EBM_P = %d, GOLDEN_EBM_V = %d };" % (len(after), len(flat(v))))


def plane():
    lcg = Lcg(77)
    x, shared, own = lcg.grid(4.0, B, 2), lcg.grid(4.0, B, 2), lcg.grid(4.0, B, M, 2)
    p = grad_leaves(halves("net", 2, 1), 9, 2.0)
    y = x[:, None] + math.sqrt(VARIANCE) * (shared[:, None] + own)
    d = BETA * (mlp(p, x)[:, None] - mlp(p, y.reshape(-1, 2)).reshape(B, M))
    loss = torch.log(W / M + torch.exp(d).mean(1)).mean()
    grad, after = descend(p, loss)
    exact("plane", (("x", x), ("shared", shared), ("own", own)))
    golden("plane", (("loss", loss), ("grad", grad), ("after", after)))
    print("enum { GOLDEN_ED_P = %d };" % len(after))


def exact(part, named):
    for name, v in named:
        check(torch.equal(v, v.float().double()), name + " is exact in float32")
        c_array("float", "golden_%s_%s" % (part, name), "[%d]" % v.numel(), v.reshape(-1))


def golden(part, named):
    for name, v in named:
        v = v.detach()
        c_array("double", "golden_%s_%s" % (part, name), "[%d]" % v.numel(), v.reshape(-1))


print("""/* ebm.h: golden values of energy-based models, made by gen/ebm.py; do not edit.
   PyTorch %s, float64. Parameters come from the Lcg of networks.h, in the order of the arrays: of the energy on
   the sphere seed 5, scale 2 (then out_scale is 1.25), of the value seed 6, scale 2, in the plane seed 9, scale 2.
   eps: of the T moves that make the starts, then of the T steps of VGS. grad: of the loss, unclipped; after: the
   parameters after one step of Adam at 1e-4. */
#ifndef VGS_GOLDEN_EBM_H
#define VGS_GOLDEN_EBM_H
enum { GOLDEN_EBM_D = %d, GOLDEN_EBM_B = %d, GOLDEN_EBM_T = %d, GOLDEN_EBM_H = %d, GOLDEN_EBM_LAYERS = %d,
       GOLDEN_EBM_CODE = %d, GOLDEN_EBM_VH = %d, GOLDEN_EBM_VF = %d, GOLDEN_EBM_VM = %d, GOLDEN_ED_M = %d };"""
      % (torch.__version__.split("+")[0], D, B, T, H, LAYERS, CODE, VH, VF, VM, M))
sphere()
plane()
print("#endif")
