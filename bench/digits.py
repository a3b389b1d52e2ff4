#!/usr/bin/env python3
"""Leave one class of digits out: which energy tells it from held-out digits of the others?

    python3 bench/digits.py build/ebm [--seeds 0,1,2] [--classes 0,1,...] [--hidden] [--iterations N] > table
    python3 bench/digits.py build/ebm --picture digits.png

scikit-learn's 1797 images of 8 x 8 (exact copies removed). For every class: train without it on three quarters of
the others, AUROC of it against the last quarter of them. --hidden: 5 % of the left-out class lie in the training
rows. All energies are the same autoencoder on rows of length 1, of 9417 weights (64-64-8-64-64 and one scale),
pretrained alike, with the same number of steps after that: contrastive divergence with VGS, Langevin, the starts
alone (none), discrepancy. "code" starts are decoded from a code with noise, "data" are taken back by the noising
chain. Beside them the autoencoder alone, Mahalanobis and the nearest training row in pixels; and, at the size of a
model, the nearest of 156 rows of 64 numbers (9984): the centres of k-means, or a random subset (mean of 5). The
table has means over the seeds, and the standard deviation of the mean over classes. --picture: data, draws of VGS
and of Langevin, by runs on all digits.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import png

NET = ["--energy-hidden", "64", "--energy-layers", "1", "--energy-code", "8", "--energy-relu", "0"]
ENERGY = ["--sphere", "1", "--fit-autoencoder", "4000", "--batch", "128", "--threads", "1", "--energy-ema", "0.98",
          "--energy-lr", "1e-3"] + NET
VALUE = ["--hidden", "32", "--time-hidden", "32", "--time-dim", "16", "--passes", "1", "--value-lr", "2e-3"]
# Moves whose noise is as wide as exp(-E): with tau_e 5e-3 and g near 1 a row's E changes by about 1 under one.
FINE = ["--energy-tau-e", "5e-3", "--s2-start", "2.5e-4", "--s2-end", "2.5e-4"]
WIDE = ["--energy-tau-e", "0.1", "--s2-start", "5e-3", "--s2-end", "5e-3"]
METHODS = {
    "autoencoder alone": None,
    "cd VGS, code": ["--objective", "cd", "--starts", "near"] + VALUE + FINE,
    "cd VGS, data": ["--objective", "cd", "--starts", "data"] + VALUE + WIDE,
    "langevin, code": ["--objective", "langevin", "--starts", "near", "--langevin-steps", "10",
                       "--energy-langevin-step", "2.5e-4", "--energy-gamma", "1"] + FINE,
    "none, code": ["--objective", "none", "--starts", "near"] + FINE,
    "none, 15 degrees": ["--objective", "none", "--starts", "near", "--energy-start-degrees", "15"] + FINE,
    "none, data": ["--objective", "none", "--starts", "data"] + WIDE,
    "discrepancy": ["--objective", "discrepancy", "--energy-ed-samples", "8", "--energy-ed-variance", "1e-3",
                    "--energy-tau-e", "5e-3"],
}


def train(ebm, out, method, good, seed, iterations):
    flags = METHODS[method] or ["--objective", "none"]
    command = [ebm, "train", good, "--out", out, "--force", "--seed", str(seed), "--iterations",
               str(iterations if METHODS[method] else 1)] + ENERGY + flags
    if not METHODS[method]:
        command += ["--energy-lr", "1e-12"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (method, done.stderr))


def run(ebm, work, method, good, test, bad, seed, iterations):
    out = os.path.join(work, "run")
    train(ebm, out, method, good, seed, iterations)
    last = open(os.path.join(out, "log.jsonl")).read().splitlines()[-1]
    verdict = subprocess.run([ebm, "evaluate", out, test, bad, "--json"], capture_output=True, text=True)
    return json.loads(verdict.stdout)["auroc"], json.loads(last)


def split(x, y, c, seed, share):
    """Rows to train on, held-out rows of the other classes, rows of class c."""
    rng = np.random.default_rng(1000 * seed + c)
    good, bad = rng.permutation(np.flatnonzero(y != c)), rng.permutation(np.flatnonzero(y == c))
    cut, hidden = 3 * len(good) // 4, int(len(bad) * share)
    return x[np.concatenate([good[:cut], bad[:hidden]])], x[good[cut:]], x[bad[hidden:]]


SIMPLE = ("Mahalanobis", "nearest row", "nearest of 156 centres", "nearest of 156 rows")


def nearest(rows, x):
    return ((x[:, None] - rows[None]) ** 2).sum(2).min(1)


def simple(train_rows, test, bad, seed):
    """AUROC of Mahalanobis (ridge of 1 % of the mean variance), of the nearest row and of the nearest of 156."""
    label, both = np.r_[np.zeros(len(test)), np.ones(len(bad))], np.r_[test, bad]
    cov = np.cov(train_rows.T)
    d = both - train_rows.mean(0)
    far = np.einsum("ij,jk,ik->i", d, np.linalg.inv(cov + 0.01 * np.trace(cov) / 64 * np.eye(64)), d)
    centres = KMeans(156, n_init=1, random_state=seed).fit(train_rows).cluster_centers_
    rng = np.random.default_rng(seed)
    few = [roc_auc_score(label, nearest(train_rows[rng.permutation(len(train_rows))[:156]], both)) for _ in range(5)]
    return (roc_auc_score(label, far), roc_auc_score(label, nearest(train_rows, both)),
            roc_auc_score(label, nearest(centres, both)), np.mean(few))


def picture(ebm, path, x, iterations):
    """20 columns: two rows each of data, of draws of VGS, of Langevin."""
    blocks = [x[np.random.default_rng(0).permutation(len(x))[:40]]]
    with tempfile.TemporaryDirectory() as work:
        good, out = os.path.join(work, "good.npy"), os.path.join(work, "draws.npy")
        np.save(good, x.astype(np.float32))
        for method in ("cd VGS, code", "langevin, code"):
            train(ebm, os.path.join(work, "run"), method, good, 0, iterations)
            subprocess.run([ebm, "sample", os.path.join(work, "run"), "-n", "40", "-o", out], check=True,
                           capture_output=True)
            blocks.append(np.load(out))
    rows = []
    for block in blocks:
        tiles = np.clip(block / block.max(1, keepdims=True), 0, 1).reshape(2, 20, 8, 8)
        tiles = np.pad(255 - 255 * tiles, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=255)
        rows += [np.concatenate(list(line), 1) for line in tiles] + [np.full((4, 200), 255.0)]
    png.write(path, np.kron(np.concatenate(rows[:-1], 0), np.ones((3, 3))))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("ebm")
    a.add_argument("--seeds", default="0")
    a.add_argument("--classes", default="0,1,2,3,4,5,6,7,8,9")
    a.add_argument("--methods", default=";".join(METHODS), help="separated by ;, none by an empty word")
    a.add_argument("--hidden", action="store_true")
    a.add_argument("--iterations", type=int, default=1000)
    a.add_argument("--picture")
    o = a.parse_args()
    x, y = load_digits(return_X_y=True)
    x, first = np.unique(x, axis=0, return_index=True)
    y = y[first]
    if o.picture:
        return picture(o.ebm, o.picture, x, o.iterations)
    methods, classes = [m for m in o.methods.split(";") if m], list(map(int, o.classes.split(",")))
    table = {m: {c: [] for c in classes} for m in methods + list(SIMPLE)}
    for seed in map(int, o.seeds.split(",")):
        for c in classes:
            rows = split(x, y, c, seed, 0.05 if o.hidden else 0)
            for m, auroc in zip(SIMPLE, simple(*rows, seed)):
                table[m][c].append(auroc)
            with tempfile.TemporaryDirectory() as work:
                paths = [os.path.join(work, n + ".npy") for n in ("good", "test", "bad")]
                for path, part in zip(paths, rows):
                    np.save(path, part.astype(np.float32))
                for m in methods:
                    auroc, log = run(o.ebm, work, m, *paths, seed, o.iterations)
                    table[m][c].append(auroc)
                    print("seed %d class %d %-18s %.4f " % (seed, c, m, auroc) + "  ".join(
                        "%s %.3g" % (k, log[k]) for k in ("e_data", "e_start", "e_draws", "g", "drift_first",
                                                          "drift_last", "start_distance", "draw_distance")
                        if log[k] is not None), file=sys.stderr, flush=True)
    print("| method | " + " | ".join(map(str, classes)) + " | mean |\n|---" + "|---:" * (len(classes) + 1) + "|")
    for m, of in table.items():
        over = np.array([of[c] for c in classes]).mean(0)            # one a seed
        print("| %s | " % m + " | ".join("%.3f" % np.mean(of[c]) for c in classes) +
              " | **%.3f** +- %.3f |" % (over.mean(), over.std()))


main()
