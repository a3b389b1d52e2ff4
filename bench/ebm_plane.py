"""python3 bench/ebm_plane.py build/ebm [--shapes NAME,...] [--seeds 0,1,2] [--no-draws] [-- FLAG ...]

How well does `ebm train points.npy` learn a density of the plane with the flags after --, none at first? Everything
is measured here with NumPy, from the files that `ebm score` and `ebm sample` write: KL(exact, exp(-E)/Z) on a
grid, and the sliced W2 of 10 000 draws beside that of 10 000 exact points. Seconds are of the processor. The
shapes are mixtures of Gaussians of one width, so that their densities are known. --no-draws: KL alone, where draws
take long (a thousand Langevin steps each, with --objective discrepancy).
"""
import argparse
import os
import resource
import subprocess
import sys
import tempfile

import numpy as np

ROWS, GRID, DIRECTIONS = 10000, 400, 200


def circle(n, radius):
    a = np.arange(n) * 2 * np.pi / n
    return radius * np.c_[np.cos(a), np.sin(a)]


def shapes():
    half, turn = np.linspace(0, np.pi, 100), np.linspace(1, 3 * np.pi, 300)
    steps = np.arange(-2, 3)
    return {
        "8gauss": (circle(8, 4 / 1.414), 0.5 / 1.414),
        "rings": (np.concatenate([circle(150, r) for r in (1, 2, 3)]), 0.1),
        "moons": (np.r_[np.c_[np.cos(half), np.sin(half)], np.c_[1 - np.cos(half), 0.5 - np.sin(half)]], 0.1),
        "spiral": (0.35 * turn[:, None] * np.c_[np.cos(turn), np.sin(turn)], 0.1),
        "grid25": (np.array([(i, j) for i in steps for j in steps], float), 0.1),
        "two": (np.array([(0.0, 0.0), (10.0, 0.0)]), 0.3),
        "gauss": (np.zeros((1, 2)), 1.0),
    }


def points(shape, rng):
    centres, std = shape
    noise = std * rng.standard_normal((ROWS, 2))
    return (centres[rng.integers(len(centres), size=ROWS)] + noise).astype(np.float32)


def log_density(shape, x):
    centres, std = shape
    square = (x * x).sum(1)[:, None] - 2 * x @ centres.T + (centres * centres).sum(1)
    d = square / (2 * std * std)
    least = d.min(1)
    return np.log(np.exp(least[:, None] - d).mean(1)) - least - np.log(2 * np.pi * std * std)


def sliced_w2(x, y):
    a = np.pi * (np.arange(DIRECTIONS) + 0.5) / DIRECTIONS
    u = np.stack([np.cos(a), np.sin(a)])
    return float(np.sqrt(((np.sort(x @ u, 0) - np.sort(y @ u, 0)) ** 2).mean()))


def grid(x):
    middle, half = (x.max(0) + x.min(0)) / 2, 0.6 * np.ptp(x, 0).max()
    side = np.linspace(-half, half, GRID)
    at = np.stack(np.meshgrid(side + middle[0], side + middle[1]), -1).reshape(-1, 2).astype(np.float32)
    return at, (side[1] - side[0]) ** 2


def divergence(shape, at, cell, e):
    log_z = np.log(np.exp(e.min() - e).sum() * cell) - e.min()
    l = np.concatenate([log_density(shape, part.astype(float)) for part in np.array_split(at, 50)])
    return float((np.exp(l) * cell * np.where(l > -60, l + e + log_z, 0)).sum())


def seconds():
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def measure(ebm, name, seed, flags, draws, folder):
    shape, rng = shapes()[name], np.random.default_rng(seed)
    path = lambda ending: os.path.join(folder, ending)
    call = lambda *words: subprocess.run([ebm, *words], check=True, stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL)
    x = points(shape, rng)
    at, cell = grid(x)
    np.save(path("x.npy"), x)
    np.save(path("grid.npy"), at)
    before = seconds()
    call("train", path("x.npy"), "--out", path("run"), "--threads", "1", "--seed", str(seed), "--force", *flags)
    spent = seconds() - before
    call("score", path("run"), path("grid.npy"), "-o", path("e.npy"))
    kl = divergence(shape, at, cell, np.load(path("e.npy"))[:, 0].astype(float))
    if not draws:
        return spent, "-", kl
    call("sample", path("run"), "-n", str(ROWS), "-o", path("draws.npy"))
    exact = points(shape, rng)
    w2, floor = sliced_w2(np.load(path("draws.npy")), exact), sliced_w2(points(shape, rng), exact)
    return spent, f"{w2:.3f} ({floor:.3f})", kl


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ebm")
    p.add_argument("--shapes", default="8gauss,rings,moons")
    p.add_argument("--seeds", default="0,1,2")
    p.add_argument("--no-draws", action="store_true")
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    o, flags = p.parse_args(sys.argv[1:cut]), sys.argv[cut + 1:]
    print("| shape, seed | s | sliced W2 (exact points) | KL |\n|---|---:|---:|---:|")
    for name in o.shapes.split(","):
        for seed in map(int, o.seeds.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                s, w2, kl = measure(o.ebm, name, seed, flags, not o.no_draws, folder)
            print(f"| {name}, {seed} | {s:.0f} | {w2} | {kl:.4f} |", flush=True)


if __name__ == "__main__":
    main()
