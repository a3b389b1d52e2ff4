#!/usr/bin/env python3
"""Golden vectors for the value networks:  python3 networks.py > ../networks.h

An independent PyTorch implementation of SPEC section 4 in float64, written the direct way: no tables over t,
no split or folded layers. Every network is a plain function of a dictionary of parameters. Gradients come
from autograd and are checked here against central differences; the values of the invariant networks are
checked under rotation, reflection, translation and permutation. Any failed check stops the script.
"""
import math
import sys

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)


# ---- pseudo-random numbers that C can repeat exactly ---------------------------------------------

class Lcg:
    """u <- 1664525 u + 1013904223 mod 2^32, then ((u >> 8) / 2^24 - 1/2) * scale: exact in float32."""

    def __init__(self, seed):
        self.u = seed

    def value(self, scale):
        self.u = (1664525 * self.u + 1013904223) % 2 ** 32
        return ((self.u >> 8) / 2.0 ** 24 - 0.5) * scale

    def grid(self, scale, *shape):
        """A tensor of values rounded to multiples of 1/256: short in decimal."""
        n = math.prod(shape)
        return torch.tensor([round(self.value(scale) * 256.0) / 256.0 for _ in range(n)]).reshape(shape)


def make_params(shapes, seed, scale):
    """shapes: list of (name, shape). One Lcg stream runs through all of them, rows first."""
    lcg = Lcg(seed)
    params = {}
    for name, shape in shapes:
        flat = torch.tensor([lcg.value(scale) for _ in range(math.prod(shape))])
        assert torch.equal(flat, flat.float().double())
        params[name] = flat.reshape(shape)
    return params


# ---- pieces --------------------------------------------------------------------------------------

KINKS = []  # inputs of every relu since the list was last cleared


def relu(x):
    KINKS.append(x.detach())
    return torch.relu(x)


def linear(p, name, x):
    y = x @ p[name + ".weight"].T
    return y + p[name + ".bias"] if name + ".bias" in p else y


def layer_norm(p, name, x):
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5) * p[name + ".weight"] + p[name + ".bias"]


def sinusoid(t, m):
    half = m // 2
    k = torch.arange(half, dtype=torch.float64)
    freq = torch.exp(-k * math.log(10000.0) / (half - 1))
    angle = t.double()[:, None] * freq[None, :]
    return torch.cat([torch.sin(angle), torch.cos(angle)], 1)


def lin(name, out, inp):
    return [(name + ".weight", (out, inp)), (name + ".bias", (out,))]


def norm(name, width):
    return [(name + ".weight", (width,)), (name + ".bias", (width,))]


# ---- the networks: shapes in parameter order, then the function [B,D], [B] -> [B] ----------------

def temb_shapes(D, h, f, m):
    return (lin("net1.net.0", h, D)
            + lin("net2.net.0", h, m) + lin("net2.net.2", h, h) + lin("net2.net.4", h, h)
            + lin("net3.net.0", h, 2 * h) + lin("net3.net.2", h, h) + lin("net3.net.4", 1, h))


def temb(p, x, t, m):
    X = linear(p, "net1.net.0", x)
    te = relu(linear(p, "net2.net.0", sinusoid(t, m)))
    te = relu(linear(p, "net2.net.2", te))
    te = linear(p, "net2.net.4", te)
    u = relu(linear(p, "net3.net.0", torch.cat([X, te], 1)))
    u = relu(linear(p, "net3.net.2", u))
    return linear(p, "net3.net.4", u)[:, 0]


def deeper_shapes(D, h, f, m):
    return (lin("fc1", h, D) + lin("fc2", h, h) + lin("fc3", h, h) + lin("fc4", 1, h)
            + lin("temb", f, m) + lin("temb1", h, f) + lin("temb2", h, f))


def deeper(p, x, t, m):
    te = linear(p, "temb", sinusoid(t, m))
    u = relu(linear(p, "fc1", x)) + relu(linear(p, "temb1", te))
    u = relu(linear(p, "fc2", u))
    u = relu(linear(p, "fc3", u)) + relu(linear(p, "temb2", te))
    return linear(p, "fc4", u)[:, 0]


def deeperv2_shapes(D, h, f, m):
    return lin("fc1", h, D + m) + lin("fc2", h, h) + lin("fc3", h, h) + lin("fc4", 1, h)


def deeperv2(p, x, t, m):
    u = torch.cat([x, sinusoid(t, m)], 1)
    u = relu(linear(p, "fc1", u))
    u = relu(linear(p, "fc2", u))
    u = relu(linear(p, "fc3", u))
    return linear(p, "fc4", u)[:, 0]


def deeperv3_shapes(D, h, f, m):
    return (lin("fc1", h, D) + lin("fc2", 2 * h, 2 * h) + lin("fc3", h, 2 * h) + lin("fc4", 1, h)
            + lin("temb", f, m) + lin("temb1", h, f) + lin("temb2", h, f))


def deeperv3(p, x, t, m):
    te = linear(p, "temb", sinusoid(t, m))
    u = relu(torch.cat([linear(p, "fc1", x), linear(p, "temb1", te)], 1))
    u = relu(linear(p, "fc2", u))
    u = linear(p, "fc3", u) * linear(p, "temb2", te)
    return linear(p, "fc4", u)[:, 0]


def mlp_shapes(D, h, f, m, layers, windows):
    s = lin("time.0", f, m) + lin("time.2", f, f)
    for k in range(1, layers + 1):
        s += [("fc%d.weight" % k, (h, D * (1 + windows) if k == 1 else h))] + lin("bias%d" % k, h, f)
    return s + [("out.weight", (1, h))] + lin("level", 1, f) + lin("additive", D * windows, f)


def mlp(p, x, t, m, layers, windows, centred):
    te = F.silu(linear(p, "time.0", sinusoid(t, m)))
    te = F.silu(linear(p, "time.2", te))
    middle = (windows - 1) / 2 if centred else 0.0
    phi = [torch.exp(-(x[:, j:j + 1] / X_SCALE - (k - middle)) ** 2 / 2)
           for j in range(x.shape[1]) for k in range(windows)]
    phi = torch.cat(phi, 1)
    u = torch.cat([x / X_SCALE, phi], 1)
    for k in range(1, layers + 1):
        u = F.silu(linear(p, "fc%d" % k, u) + linear(p, "bias%d" % k, te))
    additive = (phi * linear(p, "additive", te)).sum(1) / math.sqrt(x.shape[1])
    return (linear(p, "out", u) + linear(p, "level", te))[:, 0] + additive


PLAIN = {"temb": (temb_shapes, temb), "deeper": (deeper_shapes, deeper),
         "deeperv2": (deeperv2_shapes, deeperv2), "deeperv3": (deeperv3_shapes, deeperv3)}


def pair_features(x, n, d, reciprocal):
    """[B, n d] -> [B, n (n-1)/2]: distances, sorted descending, then sqrt(r^2 + 1) or its reciprocal."""
    x = x.reshape(-1, n, d)
    r = torch.stack([(x[:, i] - x[:, j]).norm(dim=1) for i in range(n) for j in range(i + 1, n)], 1)
    r = torch.sort(r, dim=1, descending=True).values
    s = torch.sqrt(r * r + 1.0)
    return 1.0 / s if reciprocal else s


def egnn_shapes(H, m, layers, coord, windows):
    s = lin("time.0", H, m) + lin("time.2", H, H)
    for k in range(layers):
        e = "layers.%d." % k
        s += lin(e + "edge.0", H, 2 * H + 1 + windows) + norm(e + "edge.1", H)
        s += lin(e + "edge.3", H, H) + norm(e + "edge.4", H)
        if coord:
            s += lin(e + "coord.0", H, H) + [(e + "coord.2.weight", (1, H))]
        s += lin(e + "node.0", H, 2 * H) + norm(e + "node.1", H) + lin(e + "node.3", H, H)
    return s + lin("out.0", H, H) + norm("out.1", H) + lin("out.3", 1, H)


def egnn(p, x, t, m, n, d, layers, coord, windows):
    B = x.shape[0]
    x = x.reshape(B, n, d)
    te = linear(p, "time.2", F.silu(linear(p, "time.0", sinusoid(t, m))))
    h = [te for _ in range(n)]
    pos = [x[:, i] for i in range(n)]
    for k in range(layers):
        e = "layers.%d." % k
        msg = {}
        for i in range(n):
            for j in range(n):
                if i != j:
                    r2 = ((pos[i] - pos[j]) ** 2).sum(1, keepdim=True)
                    window = (r2.sqrt() / X_SCALE - torch.arange(windows)) ** 2
                    u = torch.cat([h[i], h[j], r2, torch.exp(-window / 2)], 1)
                    u = F.silu(layer_norm(p, e + "edge.1", linear(p, e + "edge.0", u)))
                    msg[i, j] = F.silu(layer_norm(p, e + "edge.4", linear(p, e + "edge.3", u)))
        new_pos = list(pos)
        new_h = []
        for i in range(n):
            others = [j for j in range(n) if j != i]
            if coord:
                for j in others:
                    w = linear(p, e + "coord.2", F.silu(linear(p, e + "coord.0", msg[i, j])))
                    new_pos[i] = new_pos[i] + (pos[i] - pos[j]) * w / (n - 1)
            u = torch.cat([h[i], sum(msg[i, j] for j in others)], 1)
            u = F.silu(layer_norm(p, e + "node.1", linear(p, e + "node.0", u)))
            new_h.append(h[i] + linear(p, e + "node.3", u))
        pos, h = new_pos, new_h
    u = F.silu(layer_norm(p, "out.1", linear(p, "out.0", sum(h))))
    return linear(p, "out.3", u)[:, 0]


# ---- C output ------------------------------------------------------------------------------------

def c_double(v):
    return repr(float(v))  # the shortest text that reads back as the same double (at most 17 digits)


def c_float(v):
    assert float(torch.tensor(float(v)).float()) == float(v)
    s = "%.9g" % float(v)
    return s + "f" if "." in s or "e" in s else s + ".0f"


def wrap(items, indent="    ", width=110):
    lines, line = [], indent
    for k, item in enumerate(items):
        item = item + ("," if k + 1 < len(items) else "")
        if len(line) > len(indent) and len(line) + 1 + len(item) > width:
            lines.append(line)
            line = indent
        line += (" " if len(line) > len(indent) else "") + item
    return "\n".join(lines + [line])


def c_array(kind, name, dims, values):
    """kind: double, float or int. dims: text such as [5][2]; values: anything that flattens."""
    flat = torch.as_tensor(values).reshape(-1).tolist()
    text = {"double": c_double, "float": c_float, "int": lambda v: str(int(v))}[kind]
    count = 1
    for part in dims.strip("[]").split("]["):
        count *= int(part)
    assert count == len(flat), name
    inner = int(dims.strip("[]").split("][")[-1])
    if dims.count("[") == 1:
        body = wrap([text(v) for v in flat])
    else:
        rows = ["{ %s }" % ", ".join(text(v) for v in flat[k:k + inner]) for k in range(0, count, inner)]
        if all(len(r) < 104 for r in rows) and dims.count("[") == 2:
            body = wrap(rows)
        elif dims.count("[") == 2:
            body = ",\n".join("    {\n%s\n    }" % wrap([text(v) for v in flat[k:k + inner]], "        ")
                              for k in range(0, count, inner))
        else:
            raise ValueError("at most two dimensions")
    print("static const %s %s%s = {\n%s\n};" % (kind, name, dims, body))


# ---- checks --------------------------------------------------------------------------------------

def check(ok, what):
    if not ok:
        sys.exit("check failed: " + what)


def flatten(tensors):
    return torch.cat([v.reshape(-1) for v in tensors])


def check_difference(f, leaves, grads, what, step=1e-5, tol=1e-7):
    """Central differences of the scalar f() in every element of every leaf, against grads."""
    scale = max(g.abs().max().item() for g in grads)
    check(scale > 1e-2, what + ": gradient near 0")
    worst = 0.0
    with torch.no_grad():
        for leaf, grad in zip(leaves, grads):
            flat, g = leaf.reshape(-1), grad.reshape(-1)
            for i in range(flat.numel()):
                old = flat[i].item()
                flat[i] = old + step
                up = f().item()
                flat[i] = old - step
                down = f().item()
                flat[i] = old
                worst = max(worst, abs((up - down) / (2.0 * step) - g[i].item()))
    print("%-40s difference quotient: worst error %.1e of %.1e" % (what, worst, scale), file=sys.stderr)
    check(worst < tol * scale, what)


def check_kinks(what, margin=1e-3):
    """No relu input near 0 (float32 must not switch a unit) and units both on and off, over all layers."""
    nearest = min(k.abs().min().item() for k in KINKS)
    on = [(k > 0).double().mean().item() for k in KINKS]
    print("%-40s relu: nearest to 0 %.1e, share on %s" % (what, nearest, " ".join("%.2f" % v for v in on)),
          file=sys.stderr)
    check(nearest > margin, what + ": relu input near 0")
    check(all(0.1 < v < 0.9 for v in on), what + ": relu layer all on or all off")


def check_invariant(f, x, n, d, what):
    lcg = Lcg(99)
    q = torch.linalg.qr(lcg.grid(2.0, d, d)).Q  # orthogonal
    shift = lcg.grid(4.0, d)
    y = x.reshape(-1, n, d)
    for flip in (1.0, -1.0):
        rot = q.clone()
        rot[:, 0] *= flip
        moved = (y @ rot.T + shift)[:, list(range(1, n)) + [0]].reshape(x.shape)
        check((f(moved) - f(x)).abs().max().item() < 1e-12, what + ": invariance")


# ---- the cases -----------------------------------------------------------------------------------

T, B = 4, 5
STEPS = torch.tensor([0, 1, 2, 3, 1])
X_SCALE = 0.5                                    # of the windows

#     name             kind        wrapper       n  d  h  f  m  layers coord windows seed scale
CASES = [
    ("temb",           "temb",     "",           1, 2, 8, 0, 6, 0, 0, 0, 101, 2.0),
    ("deeper",         "deeper",   "",           1, 2, 8, 8, 6, 0, 0, 0, 102, 2.0),
    ("deeper_f6",      "deeper",   "",           1, 2, 8, 6, 6, 0, 0, 0, 103, 2.0),
    ("deeperv2",       "deeperv2", "",           1, 2, 8, 0, 6, 0, 0, 0, 104, 2.0),
    ("deeperv3",       "deeperv3", "",           1, 2, 8, 8, 6, 0, 0, 0, 105, 2.0),
    ("deeperv3_f6",    "deeperv3", "",           1, 2, 8, 6, 6, 0, 0, 0, 106, 2.0),
    ("inv_temb",       "temb",     "sqrt",       4, 2, 8, 0, 6, 0, 0, 0, 107, 2.0),
    ("rinv_temb",      "temb",     "reciprocal", 4, 2, 8, 0, 6, 0, 0, 0, 108, 2.0),
    ("inv_deeperv3",   "deeperv3", "sqrt",       4, 2, 8, 8, 6, 0, 0, 0, 109, 2.0),
    ("rinv_deeperv3",  "deeperv3", "reciprocal", 4, 2, 8, 8, 6, 0, 0, 0, 110, 2.0),
    ("egnn",           "egnn",     "",           4, 2, 8, 0, 6, 2, 0, 0, 111, 4.0),
    ("egnn_coord",     "egnn",     "",           3, 3, 8, 0, 6, 2, 1, 0, 112, 2.0),
    ("egnn_windows",   "egnn",     "",           4, 2, 8, 0, 6, 2, 1, 5, 115, 2.0),
    ("mlp_windows",    "mlp",      "",           1, 2, 8, 6, 6, 2, 0, 5, 116, 2.0),
    ("rinv_mlp_windows", "mlp",    "reciprocal", 4, 2, 8, 6, 6, 2, 0, 4, 117, 2.0),
]

HEADER = """\
/* networks.h: golden values of the value networks made by gen/networks.py; do not edit.
   PyTorch %s, float64, direct form. float arrays and all parameters are exact in float32.

   Parameters are not listed. In C, with u = seed and the parameters taken in the order of the names below,
   weights [out, in] row by row, one stream through all of them:

       u = 1664525u * u + 1013904223u;                                         (uint32_t, wraps)
       p = (float)(u >> 8) / 16777216.0f - 0.5f, then p *= scale;              (every step exact)

   Layer-norm weights and biases come from the same stream. Of each case NAME:

       NAME_names[P]       parameter names, in order
       NAME_shape[P][2]    { out, in }, or { width, 0 } of a bias or a layer-norm vector
       NAME_x[5][D]        input, D = n d, coordinates of a particle side by side; steps are golden_t[5]
       NAME_V[5]           value of each row
       NAME_dVdx[5][D]     gradient of each row's value
       NAME_grad[]         gradient of sum_i golden_c[i] V_i, all parameters in the order above

   golden_nets[] lists the cases. Message passing (kind "egnn"): e = [h_i, h_j, r_ij^2] over ordered pairs,
   m_ij = SiLU LN edge.3 SiLU LN edge.0 e; h_i += node.3 SiLU LN node.0 [h_i, sum_j m_ij];
   h_i starts as time.2 SiLU time.0 sinusoid(t) for all i; V = out.3 SiLU LN out.0 sum_i h_i. With coord:
   x_i += sum_j (x_i - x_j) coord.2(SiLU coord.0 m_ij) / (n - 1) for all i at once, after the messages of the
   layer; the update of the last layer reaches no output, so its gradient is 0. LN: eps 1e-5, divides by
   the width. With windows e also has exp(-(r_ij/0.5 - k)^2/2), k < windows.

   Kind "mlp", with windows only: phi = exp(-(x_j/0.5 - c)^2/2) for all j and, within each, c = 0, 1, ...
   windows-1 with a wrapper, else less (windows-1)/2; te = SiLU time.2 SiLU time.0 sinusoid(t);
   u_l = SiLU(fc_l u_{l-1} + bias_l te), u_0 = [x/0.5, phi];
   V = out u + level te + phi . (additive te) / sqrt(number of j). */
#ifndef VGS_GOLDEN_NETWORKS_H
#define VGS_GOLDEN_NETWORKS_H
"""

STRUCT = """
typedef struct {
    const char *name, *kind; /* kind: mlp, temb, deeper, deeperv2, deeperv3, egnn */
    const char *wrapper;     /* "": none; on sorted distances "sqrt": sqrt(r^2+1), "reciprocal": 1/that */
    int n, d;                /* particles and space dimension; plain networks: 1 and D */
    int h, f, m;             /* hidden, width of te (0: not used by this kind), width of the sinusoid */
    int layers, coord, windows; /* of an egnn; of an mlp too, but for coord */
    unsigned long seed;      /* of the parameters */
    float scale;
    int names, params;       /* number of named parameters, of scalars */
    const char *const *name_list;
    const int (*shape)[2];
    const float *x;          /* [5][n d] */
    const double *V, *dVdx, *grad;
} golden_net;
"""


def run_case(name, kind, wrapper, n, d, h, f, m, layers, coord, windows, seed, scale, c, data):
    D = n * d
    if kind == "egnn":
        shapes = egnn_shapes(h, m, layers, coord, windows)
        value = lambda p, x: egnn(p, x, STEPS, m, n, d, layers, coord, windows)
    else:
        inner = n * (n - 1) // 2 if wrapper else D
        if kind == "mlp":
            shapes = mlp_shapes(inner, h, f, m, layers, windows)
            net = lambda p, x, t, m: mlp(p, x, t, m, layers, windows, not wrapper)
        else:
            make, net = PLAIN[kind]
            shapes = make(inner, h, f, m)
        value = lambda p, x: net(p, x, STEPS, m)
        if wrapper:
            shapes = [("net." + k, s) for k, s in shapes]
            value = lambda p, x: net({k[4:]: v for k, v in p.items()},
                                     pair_features(x, n, d, wrapper == "reciprocal"), STEPS, m)

    p = make_params(shapes, seed, scale)
    leaves = [v.requires_grad_(True) for v in p.values()]
    x = data.grid(2.0 if kind == "egnn" else 4.0, B, D).requires_grad_(True)
    KINKS.clear()
    V = value(p, x)
    if KINKS:
        check_kinks(name)
    dVdx, = torch.autograd.grad(V.sum(), x, retain_graph=True)
    grads = torch.autograd.grad((c * V).sum(), leaves, allow_unused=True)
    grads = [torch.zeros_like(v) if g is None else g for g, v in zip(grads, leaves)]
    check_difference(lambda: (c * value(p, x)).sum(), leaves, grads, name + " parameters")
    check_difference(lambda: value(p, x).sum(), [x], [dVdx], name + " x")
    if wrapper or kind == "egnn":
        check_invariant(lambda y: value(p, y).detach(), x.detach(), n, d, name)
    if wrapper:
        y = pair_features(x.detach(), n, d, False)
        check((y[:, :-1] - y[:, 1:]).abs().min().item() > 1e-3, name + ": two distances nearly equal")

    print("\n/* %s%s: n %d, d %d, h %d, f %d, m %d%s; seed %d, scale %g */" %
          (kind, " on " + wrapper + " distances" if wrapper else "", n, d, h, f, m,
           ", layers %d, coord %d, windows %d" % (layers, coord, windows) if layers else "", seed, scale))
    g = "golden_" + name
    print("static const char *const %s_names[%d] = {\n%s\n};" % (g, len(p), wrap(['"%s"' % k for k in p])))
    dims = [list(s) + [0] * (2 - len(s)) for _, s in shapes]
    c_array("int", g + "_shape", "[%d][2]" % len(dims), dims)
    c_array("float", g + "_x", "[%d][%d]" % (B, D), x.detach())
    c_array("double", g + "_V", "[%d]" % B, V.detach())
    c_array("double", g + "_dVdx", "[%d][%d]" % (B, D), dVdx)
    flat = flatten(grads)
    c_array("double", g + "_grad", "[%d]" % flat.numel(), flat)
    return ('    { "%s", "%s", "%s", %d, %d, %d, %d, %d, %d, %d, %d, %dul, %s, %d, %d,\n' %
            (name, kind, wrapper, n, d, h, f, m, layers, coord, windows, seed, c_float(scale), len(p),
             flat.numel())
            + wrap([g + "_names", g + "_shape", "&%s_x[0][0]" % g, g + "_V", "&%s_dVdx[0][0]" % g,
                    g + "_grad"], "      ") + " }")


def main():
    data = Lcg(7)
    c = data.grid(2.0, B)
    print(HEADER % torch.__version__.split("+")[0])
    print("enum { GOLDEN_T = %d, GOLDEN_B = %d, GOLDEN_NETS = %d };" % (T, B, len(CASES)))
    c_array("int", "golden_t", "[%d]" % B, STEPS)
    c_array("float", "golden_c", "[%d]" % B, c)
    rows = [run_case(*case, c, data) for case in CASES]
    print(STRUCT)
    print("static const golden_net golden_nets[GOLDEN_NETS] = {\n%s\n};\n\n#endif" % ",\n".join(rows))


if __name__ == "__main__":
    main()
