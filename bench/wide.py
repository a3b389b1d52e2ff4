#!/usr/bin/env python3
"""How well does `ebm train DATA`, and what else it could do, rank rows of more than 16 columns?

    python3 bench/wide.py build/ebm [--seeds 0,1] [--sets NAME,...] [--methods NAME,...] > table

AUROC of abnormal rows against held-out normal ones, beside the distance of Mahalanobis and the nearest row. Sets:
digits of scikit-learn without class 1, 8 or 9 (64 columns); its breast cancer, benign rows normal, columns
divided by their deviations (30); a curved surface of 4 dimensions in 24 with noise, abnormal rows with five times
the noise. Half of the normal rows, of digits three quarters, train. Seconds are of the processor.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.metrics import roc_auc_score

AUTO = ["--objective", "none", "--energy-lr", "1e-12", "--iterations", "1"]
METHODS = {
    "default": [],
    "gcd": ["--preset", "plane", "--iterations", "2000"],
    "dxmi": ["--objective", "dxmi"],
    "discrepancy": ["--preset", "plane", "--objective", "discrepancy", "--iterations", "2000"],
    "none": ["--preset", "plane", "--objective", "none", "--starts", "data", "--iterations", "2000"],
    "autoencoder": ["--preset", "plane", "--energy", "autoencoder", "--fit-autoencoder", "2000"] + AUTO,
    "autoencoder, none": ["--energy", "autoencoder", "--fit-autoencoder", "2000", "--objective", "none",
                          "--iterations", "500"],
    "sphere": ["--sphere", "1", "--fit-autoencoder", "600"] + AUTO,
    "sphere, small": ["--sphere", "1", "--fit-autoencoder", "4000", "--batch", "128", "--energy-hidden", "64",
                      "--energy-layers", "1", "--energy-code", "8", "--energy-relu", "0"] + AUTO,
}


def digits(leave):
    def rows(rng):
        x, y = load_digits(return_X_y=True)
        x, first = np.unique(x, axis=0, return_index=True)
        y = y[first]
        good = rng.permutation(x[y != leave])
        cut = 3 * len(good) // 4
        return good[:cut], good[cut:], x[y == leave]
    return rows


def cancer(rng):
    x, y = load_breast_cancer(return_X_y=True)
    good = rng.permutation(x[y == 1])
    half = len(good) // 2
    mean, std = good[:half].mean(0), good[:half].std(0)
    return tuple((part - mean) / std for part in (good[:half], good[half:], x[y == 0]))


def surface(rng):
    a, b = rng.standard_normal((4, 24)), rng.standard_normal((4, 24))

    def rows(n, noise):
        z = rng.standard_normal((n, 4))
        return np.sin(z @ a) + 0.5 * z @ b + noise * rng.standard_normal((n, 24))
    return rows(2000, 0.1), rows(1000, 0.1), rows(1000, 0.5)


SETS = {"digits 1": digits(1), "digits 8": digits(8), "digits 9": digits(9), "cancer": cancer, "surface": surface}


def simple(train, test, bad):
    """AUROC of Mahalanobis (ridge of 1 % of the mean variance) and of the nearest row."""
    label, both, dim = np.r_[np.zeros(len(test)), np.ones(len(bad))], np.r_[test, bad], train.shape[1]
    cov, d = np.cov(train.T), both - train.mean(0)
    far = np.einsum("ij,jk,ik->i", d, np.linalg.inv(cov + 0.01 * np.trace(cov) / dim * np.eye(dim)), d)
    near = [((train - row) ** 2).sum(1).min() for row in both]
    return {"Mahalanobis": (roc_auc_score(label, far), 0), "nearest row": (roc_auc_score(label, near), 0)}


def measure(ebm, flags, paths, seed, folder):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    call = [ebm, "train", paths[0], "--out", folder, "--force", "--threads", "1", "--seed", str(seed)] + flags
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    verdict = subprocess.run([ebm, "evaluate", folder, *paths[1:], "--json"], capture_output=True, text=True)
    return json.loads(verdict.stdout)["auroc"], spent


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ebm")
    p.add_argument("--seeds", default="0,1")
    p.add_argument("--sets", default=",".join(SETS))
    p.add_argument("--methods", default=";".join(METHODS), help="separated by ;")
    o = p.parse_args()
    sets, table = o.sets.split(","), {}
    for name in sets:
        for seed in map(int, o.seeds.split(",")):
            parts = [part.astype(np.float32) for part in SETS[name](np.random.default_rng(seed))]
            with tempfile.TemporaryDirectory() as folder:
                paths = [os.path.join(folder, n + ".npy") for n in ("train", "test", "bad")]
                for path, part in zip(paths, parts):
                    np.save(path, part)
                results = {m: measure(o.ebm, METHODS[m], paths, seed, os.path.join(folder, "run"))
                           for m in o.methods.split(";") if m}
            results.update(simple(*parts))
            for m, result in results.items():
                table.setdefault(m, {}).setdefault(name, []).append(result)
                print(name, seed, m, "%.3f, %.0f s" % result, file=sys.stderr, flush=True)
    print("| | " + " | ".join(sets) + " | mean | s |\n|---" + "|---:" * (len(sets) + 2) + "|")
    for m, of in table.items():
        aurocs = [np.mean([a for a, _ in of[name]]) for name in sets]
        seconds = [s for name in sets for _, s in of[name]]
        print("| %s | " % m + " | ".join("%.3f" % a for a in aurocs) + " | **%.3f** | %.0f to %.0f |" % (
            np.mean(aurocs), min(seconds), max(seconds)))


main()
