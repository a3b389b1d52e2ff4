"""Golden values of path weights, from ArviZ (psislw) and scipy:  python3 weights.py > ../weights.h"""
import arviz, numpy as np
from scipy.special import logsumexp

rng = np.random.default_rng(2)
sets = {
    "light": rng.normal(-3, 0.4, 300),                     # as of a good sampler
    "normal": rng.normal(50, 1.5, 400),
    "heavy": rng.exponential(1 / 1.2, 500),                # weights with a Pareto tail of shape 1/1.2
    "bounded": np.log(rng.uniform(size=256)),
    "short": rng.normal(0, 1, 30),
}
print("/* weights.h: golden values of path weights, made by gen/weights.py; do not edit. */")
print("typedef struct golden { const char *name; const double *lw; int n; double log_z, log_z_se, elbo, ess, khat; } golden;")
rows = []
for name, lw in sets.items():
    n = len(lw)
    print(f"static const double lw_{name}[{n}] = {{")
    for i in range(0, n, 6): print("    " + ", ".join(f"{v:.10g}" if "." in f"{v:.10g}" else f"{v:.10g}.0" for v in lw[i:i + 6]) + ",")
    print("};")
    lw = np.array([float(f"{v:.10g}") for v in lw])
    log_z = logsumexp(lw) - np.log(n)
    blocks = 20 if n >= 40 else n // 2
    edge = [n * i // blocks for i in range(blocks + 1)]
    r = [np.exp(logsumexp(lw[a:b]) - np.log(b - a) - log_z) - 1 for a, b in zip(edge, edge[1:])]
    se = np.sqrt(np.square(r).sum() / (blocks * (blocks - 1)))
    ess = np.exp(2 * logsumexp(lw) - logsumexp(2 * lw)) / n
    rows.append(f'    {{ "{name}", lw_{name}, {n}, {log_z:.12g}, {se:.12g}, {lw.mean():.12g}, {ess:.12g}, {float(arviz.psislw(lw)[1]):.12g} }}')
print("static const golden golden_weights[] = {\n" + ",\n".join(rows) + "\n};")
