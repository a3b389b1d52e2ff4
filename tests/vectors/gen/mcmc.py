#!/usr/bin/env python3
"""R-hat, bulk ESS and the error of the mean as ArviZ computes them, for small sets of chains:

    python3 mcmc.py > ../mcmc.h                  (pip install arviz; written with 0.23)
"""
import arviz
import numpy as np
from arviz.stats.diagnostics import _rhat, _split_chains, _z_scale


def autoregressive(random, chains, draws, rho):
    x = np.zeros((chains, draws))
    for t in range(draws):
        noise = random.standard_normal(chains) * np.sqrt(1 - rho * rho)
        x[:, t] = (rho * x[:, t - 1] if t else 0) + (noise if t else random.standard_normal(chains))
    return x


def sets():
    random = np.random.default_rng(1)
    yield "slow", autoregressive(random, 4, 60, 0.7)
    yield "alternating", autoregressive(random, 3, 41, -0.5)                    # an odd number of draws
    yield "apart", autoregressive(random, 4, 40, 0.2) + np.array([[0], [0], [0], [1.5]])
    yield "wide", autoregressive(random, 4, 40, 0.2) * np.array([[1], [1], [1], [4]])    # only the folded one sees it
    yield "ties", np.round(2 * autoregressive(random, 2, 50, 0.5)) / 2
    yield "cauchy", random.standard_cauchy((4, 48))
    yield "one", autoregressive(random, 1, 64, 0.4)
    yield "shortest", random.standard_normal((2, 4))


def rhat(x):
    if len(x) > 1:
        return arviz.rhat(x, method="rank")
    halves = _split_chains(x)                                                   # rhat() itself refuses one chain
    return max(_rhat(_z_scale(halves)), _rhat(_z_scale(abs(halves - np.median(halves)))))


def main():
    print("/* mcmc.h: chains [draws,chains] and what ArviZ %s says of them, made by gen/mcmc.py; do not edit. */"
          % arviz.__version__)
    print("#ifndef VGS_GOLDEN_MCMC_H\n#define VGS_GOLDEN_MCMC_H\n")
    rows = []
    for name, x in sets():
        x = np.round(x, 4)
        print("static const double mcmc_%s[%d] = {" % (name, x.size))
        for i in range(0, x.size, 12):
            print("    " + " ".join("%.4f," % v for v in x.T.flatten()[i:i + 12]))
        print("};")
        rows.append("    { \"%s\", mcmc_%s, %d, %d, %.15g, %.15g, %.15g }," %
                    (name, name, x.shape[1], x.shape[0], rhat(x),
                     arviz.ess(x, method="bulk"), arviz.mcse(x, method="mean")))
    print("\nstatic const struct { const char *name; const double *v; int draws, chains; "
          "double rhat, ess, mean_se; }\nmcmc_golden[%d] = {" % len(rows))
    print("\n".join(rows))
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
