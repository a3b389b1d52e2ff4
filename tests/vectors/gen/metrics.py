"""Golden values of the metrics, from numpy, scipy and POT:  python3 metrics.py > ../metrics.h"""
import numpy as np, ot
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

def table(name, x):
    v = np.asarray(x, np.float32).ravel()
    print(f"static const float {name}[{v.size}] = {{")
    for i in range(0, v.size, 8): print("    " + ", ".join(f"{a:.9g}f" if "." in f"{a:.9g}" or "e" in f"{a:.9g}" else f"{a:.9g}.0f" for a in v[i:i + 8]) + ",")
    print("};")

def dist(a, b): return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

def sinkhorn(x, y, eps=1e-3, rounds=100, stop=1e-5):
    c, n, m = dist(x, y), len(x), len(y)
    u, v = np.zeros(n), np.full(m, -eps * np.log(m))
    for _ in range(rounds):
        u0, v0 = u, v
        u = eps * (-np.log(n) - logsumexp((v[None] - c) / eps, axis=1))
        v = eps * (-np.log(m) - logsumexp((u[:, None] - c) / eps, axis=0))
        if abs(u - u0).max() < stop and abs(v - v0).max() < stop: break
    return (np.exp((u[:, None] + v[None] - c) / eps) * c).sum()

def tvd(a, b, lo, hi):
    h, k = np.histogram(a, 200, (lo, hi))[0], np.histogram(b, 200, (lo, hi))[0]
    return 0.5 * abs(h / h.sum() - k / k.sum()).sum(), 1 - h.sum() / len(a)

def pairs(x): i, j = np.triu_indices(x.shape[1], 1); return np.sqrt(((x[:, i] - x[:, j]) ** 2).sum(-1)).ravel()

def dw4(x): z = pairs(x).reshape(len(x), -1) - 4; return (0.9 * z ** 4 - 4 * z ** 2).sum(1)

def gmm9(x):
    t = np.array([-5, 0, 5]); l = logsumexp(-0.5 * (x[:, :, None] - t) ** 2 / 0.3, axis=2) - np.log(3) - 0.5 * np.log(2 * np.pi * 0.3)
    return -l.sum(1)

def energy_w2(e, f): return np.sqrt(((np.sort(e) - np.sort(f)) ** 2).mean())

def w2_aligned(x, y):                                      # x, y [N, particles, d]
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    c = np.empty((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            b = b[linear_sum_assignment(dist(a, b))[1]]
            c[i, j] = (a ** 2).sum() + (b ** 2).sum() - 2 * np.linalg.svd(a.T @ b, compute_uv=False).sum()
    u = np.full(len(x), 1 / len(x))
    return np.sqrt(ot.emd2(u, u, c))

rng = np.random.default_rng(1)
f32 = lambda a: a.astype(np.float32)
print("/* metrics.h: golden values of the metrics, made by gen/metrics.py; do not edit. */")

n = 60                                                     # dw4: squares of side 2.8 and 3.1, jittered
square = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) / 2
x = f32(2.8 * square + 0.35 * rng.normal(size=(n, 4, 2)) + rng.normal(size=(n, 1, 2)))
y = f32(3.1 * square + 0.30 * rng.normal(size=(n, 4, 2)))
table("dw4_x", x); table("dw4_y", y)
x, y = x.astype(float), y.astype(float)
a, b = (x - x.mean(1, keepdims=True)).reshape(n, -1), (y - y.mean(1, keepdims=True)).reshape(n, -1)
c = dist(a, b) ** 2
r, k = linear_sum_assignment(c)
w2 = np.sqrt(c[r, k].mean())
assert abs(w2 - np.sqrt(ot.emd2(np.full(n, 1 / n), np.full(n, 1 / n), c))) < 1e-9
e, f = dw4(x), dw4(y)
g = lambda name, v: print(f"#define {name} {v:.12g}")
g("DW4_W2", w2)
g("DW4_TVD_E", tvd(e, f, -100, 100)[0])
g("DW4_TVD_D", tvd(pairs(x), pairs(y), -100, 100)[0])
g("DW4_TVD_E_RANGE", tvd(e, f, f.min(), f.max())[0]); g("DW4_OUTSIDE_E_RANGE", tvd(e, f, f.min(), f.max())[1])
q = pairs(y).min(), pairs(y).max()
g("DW4_TVD_D_RANGE", tvd(pairs(x), pairs(y), *q)[0]); g("DW4_OUTSIDE_D_RANGE", tvd(pairs(x), pairs(y), *q)[1])
g("DW4_W2_ALIGNED", w2_aligned(x, y)); g("DW4_ENERGY_W2", energy_w2(e, f)); g("DW4_OUTLIERS", (e > f.max()).mean())
g("DW4_ENERGY_MEAN", e.mean()); g("DW4_ENERGY_MEDIAN", np.median(e)); g("DW4_REFERENCE_ENERGY_MEAN", f.mean())

n = 90                                                     # gmm9: all modes, and one mode too heavy
modes = np.array([[i, j] for i in (-5, 0, 5) for j in (-5, 0, 5)])
x = f32(modes[np.minimum(rng.integers(12, size=n), 8)] + 0.6 * rng.normal(size=(n, 2)))
y = f32(modes[rng.integers(9, size=n)] + np.sqrt(0.3) * rng.normal(size=(n, 2)))
table("gmm9_x", x); table("gmm9_y", y)
x, y = x.astype(float), y.astype(float)
g("GMM9_SINKHORN", sinkhorn(x, y))
g("GMM9_DELTA_STD", abs(x.std(0, ddof=1) - np.sqrt(0.3 + 50 / 3)).mean())
e, f = gmm9(x), gmm9(y)
g("GMM9_TVD_E_RANGE", tvd(e, f, f.min(), f.max())[0]); g("GMM9_OUTSIDE_E_RANGE", tvd(e, f, f.min(), f.max())[1])
g("GMM9_ENERGY_MEDIAN", np.median(e)); g("GMM9_ENERGY_W2", energy_w2(e, f)); g("GMM9_OUTLIERS", (e > f.max()).mean())
w = np.bincount(dist(x, modes).argmin(1), minlength=9) / n
print("static const double gmm9_weight[9] = { " + ", ".join(f"{v:.12g}" for v in w) + " };")

n = 20                                                     # five particles in space, to align
x, y = f32(rng.normal(size=(n, 5, 3))), f32(1.3 * rng.normal(size=(n, 5, 3)) + 2)
table("space_x", x); table("space_y", y)
g("SPACE_W2_ALIGNED", w2_aligned(x.astype(float), y.astype(float)))
