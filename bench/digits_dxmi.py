#!/usr/bin/env python3
"""Digits in few steps: a denoising diffusion model of 1000 and of 10 steps, and policies tuned by an energy (DxMI).

    python3 bench/digits_dxmi.py build/ebm [--seeds 0,1,2] [--picture FILE.png] [--work DIR]

scikit-learn's 1797 images of 8 x 8 in [-1,1]^64, exact copies removed, class 9 left out; a quarter of the rest is
held out. Rows of the table: the policies after pretraining, of T = 1000, 10 and 4 steps; DxMI of T = 10, and of T = 4
from the T = 10 policy; training rows, as many as there are held-out ones: the floor. Columns, each against the
held-out rows, means over 5 draws of as many: sliced W2 (1000 projections, root of the mean over them of the squared
distance); Frechet distance in the 32 units before the last layer of a small classifier of the training rows;
precision and recall (k = 3); the median distance to the nearest training row, and that of held-out rows beside it
(memorising); the largest difference of the shares that a 3-NN gives the classes; AUROC of E, class 9 against held-out
rows. Then those shares themselves, beside those of the held-out rows. No FID: its network says nothing about 8 x 8
pixels. --picture: training rows, then draws of T = 10 and 4, pretrained and by DxMI, of the first seed;
examples/digits.png is that of seed 0.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.neural_network import MLPClassifier

import png

DRAWS = 5
SHARED = ["--threads", "1", "--schedule", "cosine", "--batch", "128", "--policy-hidden", "256", "--policy-x-scale",
          "1"]
PRETRAIN = {1000: "3000", 10: "10000", 4: "10000"}           # a thousand steps cost more each
TRAIN = ["--hidden", "128", "--x-scale", "1", "--energy-hidden", "128", "--energy-x-scale", "1", "--policy-lr", "1e-5",
         "--value-lr", "1e-3", "--energy-lr", "5e-4", "--policy-steps", "1", "--lr-half", "1500", "--iterations",
         "3000"]


def rows():
    data = load_digits()
    x, at = np.unique(data.data, axis=0, return_index=True)
    return (x / 8 - 1).astype("f4"), data.target[at]


def sliced_w2(x, y, directions):
    u, v = np.sort(x @ directions, 0), np.sort(y @ directions, 0)
    return float(np.sqrt(((u - v) ** 2).mean()))


def frechet(f, g):
    root = sqrtm(np.cov(f.T) @ np.cov(g.T)).real
    return float(((f.mean(0) - g.mean(0)) ** 2).sum() + np.trace(np.cov(f.T) + np.cov(g.T) - 2 * root))


def within(x, y, k=3):
    """Share of y inside a ball around some x, each as wide as to its k-th neighbour in x."""
    radius = NearestNeighbors(n_neighbors=k + 1).fit(x).kneighbors(x)[0][:, k]
    far = np.sqrt(((y[:, None] - x[None]) ** 2).sum(2))
    return float((far <= radius).any(1).mean())


class Judge:
    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        x, label = rows()
        self.nine = x[label == 9]
        x, label = x[label != 9], label[label != 9]
        order = rng.permutation(len(x))
        n = len(x) // 4
        self.held, self.train, self.label = x[order[:n]], x[order[n:]], label[order[n:]]
        self.net = MLPClassifier((64, 32), max_iter=400, random_state=seed).fit(self.train, self.label)
        self.accuracy = self.net.score(self.held, label[order[:n]])
        self.near = NearestNeighbors(n_neighbors=1).fit(self.train)
        self.classes = KNeighborsClassifier(3).fit(self.train, self.label)
        d = rng.standard_normal((64, 1000))
        self.directions = (d / np.sqrt((d ** 2).sum(0))).astype("f4")

    def features(self, x):
        for k in range(2):
            x = np.maximum(x @ self.net.coefs_[k] + self.net.intercepts_[k], 0)
        return x

    def shares(self, x):
        return np.bincount(self.classes.predict(x), minlength=9)[:9] / len(x)

    def measure(self, x):
        f, g = self.features(x), self.features(self.held)
        return [sliced_w2(x, self.held, self.directions), frechet(f, g), within(g, f), within(f, g),
                float(np.median(self.near.kneighbors(x)[0])),
                float(np.abs(self.shares(x) - self.shares(self.held)).max())]


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    if done.returncode:
        sys.exit("%s: %s" % (" ".join(map(str, words)), done.stderr))
    return done


def draws(o, judge, folder, seed):
    out = []
    for k in range(DRAWS):
        path = os.path.join(folder, "draws.npy")
        run(o.ebm, "sample", folder, "-n", len(judge.held), "-o", path, "--seed", 100 * seed + k + 1)
        out.append(np.load(path))
    return out


def picture(path, sheets):
    """Sheets of 80 images side by side, black on white."""
    tiles = []
    for x in sheets:
        x = np.clip((x[:80] + 1) / 2, 0, 1).reshape(8, 10, 8, 8)
        x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        tiles.append(np.pad(x.transpose(0, 2, 1, 3).reshape(80, 100), 4))
    grey = (255 * (1 - np.concatenate(tiles, 1))).repeat(3, 0).repeat(3, 1)
    png.write(path, grey)


def pretrained(o, judge, data, folder, steps, seed, note):
    run(o.ebm, "pretrain", data, "--out", folder, "--force", "--steps", steps, "--seed", seed, "--pretrain",
        PRETRAIN[steps], *SHARED)
    sets = draws(o, judge, folder, seed)
    note("DDPM T = %d" % steps, sets)
    return sets[0]


def one_seed(o, seed, work, table):
    judge = Judge(seed)
    files = {n: os.path.join(work, n + ".npy") for n in ("train", "held", "nine")}
    for n in files:
        np.save(files[n], getattr(judge, n))
    sheets = [judge.train]
    print("seed %d: %d training rows, %d held out, accuracy of the classifier %.3f" %
          (seed, len(judge.train), len(judge.held), judge.accuracy), flush=True)

    def note(name, sets, auroc=float("nan")):
        row = np.mean([judge.measure(x) for x in sets], 0)
        table.setdefault(name, []).append(list(row) + [auroc])
        o.shares.setdefault(name, []).append(np.mean([judge.shares(x) for x in sets], 0))
        print("%d %-24s %s" % (seed, name, " ".join("%.3f" % v for v in list(row) + [auroc])), flush=True)

    o.shares.setdefault("held-out rows", []).append(judge.shares(judge.held))
    rng = np.random.default_rng(seed)
    note("training rows (floor)", [judge.train[rng.permutation(len(judge.train))[:len(judge.held)]]
                                   for _ in range(DRAWS)])
    table["training rows (floor)"][-1][4] = float(np.median(judge.near.kneighbors(judge.held)[0]))
    for steps in (10, 4):
        folder = os.path.join(work, "pre%d" % steps)
        sheets.append(pretrained(o, judge, files["train"], folder, steps, seed, note))
    for steps in (10, 4):
        folder = os.path.join(work, "dxmi%d" % steps)
        run(o.ebm, "train", files["train"], "--objective", "dxmi", "--out", folder, "--force", "--steps", steps,
            "--policy-from", os.path.join(work, "pre10"), "--seed", seed, *SHARED, *TRAIN, *o.flags)
        sets = draws(o, judge, folder, seed)
        said = json.loads(run(o.ebm, "evaluate", folder, files["held"], files["nine"], "--json").stdout)
        note("DxMI T = %d" % steps, sets, said["auroc"])
        sheets.append(sets[0])
    if o.picture and seed == int(o.seeds.split(",")[0]):
        picture(o.picture, sheets)
    pretrained(o, judge, files["train"], os.path.join(work, "pre1000"), 1000, seed, note)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("ebm")
    p.add_argument("--seeds", default="0,1,2")
    p.add_argument("--picture")
    p.add_argument("--work")
    o, o.flags = p.parse_known_args()            # the rest are flags of ebm train
    o.shares, table = {}, {}
    for seed in map(int, o.seeds.split(",")):
        if o.work:
            os.makedirs(o.work, exist_ok=True)
            one_seed(o, seed, o.work, table)
        else:
            with tempfile.TemporaryDirectory() as work:
                one_seed(o, seed, work, table)
    print("| | sliced W2 | Frechet | precision | recall | nearest | classes | AUROC of E |\n"
          "|---|---|---|---|---|---|---|---|")
    for name, all_rows in table.items():
        m, s = np.mean(all_rows, 0), np.std(all_rows, 0)
        print("| %s | %s |" % (name, " | ".join("%.3f +- %.3f" % v for v in zip(m, s))))
    print("\n| share of class | " + " | ".join(map(str, range(9))) + " |\n|---|" + "---|" * 9)
    for name, all_shares in o.shares.items():
        print("| %s | %s |" % (name, " | ".join("%.3f" % v for v in np.mean(all_shares, 0))))


if __name__ == "__main__":
    main()
