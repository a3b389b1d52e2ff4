#!/usr/bin/env python3
"""Leave one class of digits out: which energy tells it from held-out digits of the others?

    python3 bench/digits.py build/ebm [--seeds 0] [--classes 0,1,...] [--hidden] [--iterations N] > table

scikit-learn's 1797 images of 8 x 8 (exact copies removed). For every class: train without it on three quarters of
the others, AUROC of it against the last quarter of them. --hidden: 5 % of the left-out class lie in the training
rows. Methods: the autoencoder alone (fit, no training after it), contrastive divergence with VGS, Langevin,
discrepancy, diffused starts alone (none), Mahalanobis and the nearest training row in pixels. All energies are the
same autoencoder of 7857 weights (64-48-16-48-64 and one scale) on rows of length 1.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

NET = ["--energy-hidden", "48", "--energy-layers", "1", "--energy-code", "16", "--energy-relu", "0"]
ENERGY = ["--sphere", "1", "--fit-autoencoder", "1000", "--batch", "128", "--threads", "1", "--hidden", "64",
          "--time-hidden", "64", "--value-lr", "1e-3"] + NET
METHODS = {
    "autoencoder alone": None,
    "cd VGS, data": ["--objective", "cd", "--starts", "data", "--s2-start", "5e-3", "--s2-end", "5e-3"],
    "cd VGS, near 20 degrees": ["--objective", "cd", "--starts", "near", "--energy-start-degrees", "20",
                                "--s2-start", "5e-3", "--s2-end", "5e-3"],
    "cd VGS, near code": ["--objective", "cd", "--starts", "near", "--s2-start", "5e-3", "--s2-end", "5e-3"],
    "langevin, data": ["--objective", "langevin", "--langevin-steps", "10", "--s2-start", "5e-3", "--s2-end", "5e-3"],
    "none, data": ["--objective", "none", "--s2-start", "5e-3", "--s2-end", "5e-3"],
    "none, near 20 degrees": ["--objective", "none", "--starts", "near", "--energy-start-degrees", "20"],
    "discrepancy": ["--objective", "discrepancy", "--energy-ed-variance", "5e-3"],
}


def run(ebm, work, method, good, test, bad, seed, iterations):
    flags = METHODS[method] or ["--objective", "none"]
    n = iterations if METHODS[method] else 1
    lr = "1e-3" if METHODS[method] else "1e-12"
    command = [ebm, "train", good, "--out", os.path.join(work, "run"), "--force", "--seed", str(seed),
               "--iterations", str(n), "--energy-lr", lr, "--energy-ema", "0.9"] + ENERGY + flags
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (method, done.stderr))
    last = open(os.path.join(work, "run", "log.jsonl")).read().splitlines()[-1]
    verdict = subprocess.run([ebm, "evaluate", os.path.join(work, "run"), test, bad, "--json"], capture_output=True,
                             text=True)
    return json.loads(verdict.stdout)["auroc"], json.loads(last)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("ebm")
    a.add_argument("--seeds", default="0")
    a.add_argument("--classes", default="0,1,2,3,4,5,6,7,8,9")
    a.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    a.add_argument("--hidden", action="store_true")
    a.add_argument("--iterations", type=int, default=1000)
    o = a.parse_args()
    x, y = load_digits(return_X_y=True)
    x, first = np.unique(x, axis=0, return_index=True)
    y = y[first]
    methods = o.methods.split(";")
    table = {m: {} for m in methods + ["mahalanobis", "nearest row"]}
    for seed in map(int, o.seeds.split(",")):
        for c in map(int, o.classes.split(",")):
            rng = np.random.default_rng(1000 * seed + c)
            good, bad = rng.permutation(np.flatnonzero(y != c)), rng.permutation(np.flatnonzero(y == c))
            cut = 3 * len(good) // 4
            hidden = len(bad) // 20 if o.hidden else 0
            train, test = x[np.concatenate([good[:cut], bad[:hidden]])], x[good[cut:]]
            bad_rows = x[bad[hidden:]]
            label = np.r_[np.zeros(len(test)), np.ones(len(bad_rows))]
            both = np.r_[test, bad_rows]
            mean, cov = train.mean(0), np.cov(train.T)
            inverse = np.linalg.inv(cov + 0.01 * np.trace(cov) / 64 * np.eye(64))
            d = both - mean
            table["mahalanobis"].setdefault(c, []).append(roc_auc_score(label, np.einsum("ij,jk,ik->i", d, inverse, d)))
            near = np.sqrt(((both[:, None] - train[None]) ** 2).sum(2)).min(1)
            table["nearest row"].setdefault(c, []).append(roc_auc_score(label, near))
            with tempfile.TemporaryDirectory() as work:
                paths = [os.path.join(work, n + ".npy") for n in ("good", "test", "bad")]
                for path, rows in zip(paths, (train, test, bad_rows)):
                    np.save(path, rows.astype(np.float32))
                for m in methods:
                    auroc, log = run(o.ebm, work, m, *paths, seed, o.iterations)
                    table[m].setdefault(c, []).append(auroc)
                    print("seed %d class %d %-24s %.4f  e+ %s e- %s g %s distance %s" %
                          (seed, c, m, auroc, log["e_data"], log["e_draws"], log["g"], log["draw_distance"]),
                          file=sys.stderr, flush=True)
    classes = sorted(next(iter(table.values())))
    print("| method | " + " | ".join(map(str, classes)) + " | mean |\n|---" + "|---:" * (len(classes) + 1) + "|")
    for m, of in table.items():
        means = [np.mean(of[c]) for c in classes]
        print("| %s | " % m + " | ".join("%.3f" % v for v in means) + " | **%.3f** |" % np.mean(means))


main()
