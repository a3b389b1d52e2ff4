#!/usr/bin/env python3
"""The published method in PyTorch, to be timed against ours: same networks, batch, steps, passes, loss, target.

    python3 bench/torch_vgs.py gmm9                      seconds of a training iteration and of a draw
    build/bench_step gmm9 --torch python3                the same in turn with ours
    python3 bench/torch_vgs.py --check build/train       does it compute what vgs.h computes?

Written the way one writes PyTorch, with what makes it fast: no gradient for the parameters of the target
network, one row of time embedding where all rows share t, energies only where they are needed, fused Adam,
and torch.compile for the training loss with --compile.
"""
import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

ROWS = 2000                                       # of a draw


# ---- value networks (SPEC section 4; names as in the reference implementation's checkpoints) -------

class Sinusoid(nn.Module):
    """[sin, cos] of t times geometric frequencies: a table, as t is an integer."""

    def __init__(self, width, steps):
        super().__init__()
        half = width // 2
        freq = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
        angle = torch.arange(steps)[:, None] * freq[None]
        self.register_buffer("table", torch.cat([angle.sin(), angle.cos()], 1), persistent=False)

    def forward(self, t):
        return self.table[t]


def beside(x, te):
    """Columns of x, then those of te, which may be one row for all of x."""
    return torch.cat([x, te.expand(len(x), -1)], 1)


class Net(nn.Module):
    """A Sequential under the name that the reference gives it."""

    def __init__(self, *layers):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


class Temb(nn.Module):
    def __init__(self, dim, h, m, f, steps):
        super().__init__()
        self.sinusoid = Sinusoid(m, steps)
        self.net1 = Net(nn.Linear(dim, h))
        self.net2 = Net(nn.Linear(m, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, h))
        self.net3 = Net(nn.Linear(2 * h, h), nn.ReLU(), nn.Linear(h, h), nn.ReLU(), nn.Linear(h, 1))

    def forward(self, x, t):
        return self.net3(beside(self.net1(x), self.net2(self.sinusoid(t))))[:, 0]


class DeeperV2(nn.Module):
    def __init__(self, dim, h, m, f, steps):
        super().__init__()
        self.sinusoid = Sinusoid(m, steps)
        self.fc1, self.fc2 = nn.Linear(dim + m, h), nn.Linear(h, h)
        self.fc3, self.fc4 = nn.Linear(h, h), nn.Linear(h, 1)

    def forward(self, x, t):
        u = F.relu(self.fc1(beside(x, self.sinusoid(t))))
        return self.fc4(F.relu(self.fc3(F.relu(self.fc2(u)))))[:, 0]


class DeeperV3(nn.Module):
    def __init__(self, dim, h, m, f, steps):
        super().__init__()
        self.sinusoid = Sinusoid(m, steps)
        self.fc1, self.fc2 = nn.Linear(dim, h), nn.Linear(2 * h, 2 * h)
        self.fc3, self.fc4 = nn.Linear(2 * h, h), nn.Linear(h, 1)
        self.temb, self.temb1, self.temb2 = nn.Linear(m, f), nn.Linear(f, h), nn.Linear(f, h)

    def forward(self, x, t):
        te = self.temb(self.sinusoid(t))
        u = F.relu(beside(self.fc1(x), self.temb1(te)))
        u = F.relu(self.fc2(u))
        return self.fc4(self.fc3(u) * self.temb2(te))[:, 0]


class Sorted(nn.Module):
    """A network of the pair distances, sorted descending: sqrt(r^2 + 1) or its reciprocal."""

    def __init__(self, net, n, reciprocal):
        super().__init__()
        self.net, self.n, self.reciprocal = net, n, reciprocal
        i, j = torch.triu_indices(n, n, 1)
        self.register_buffer("i", i, persistent=False)
        self.register_buffer("j", j, persistent=False)

    def forward(self, x, t):
        p = x.view(len(x), self.n, x.shape[1] // self.n)
        r2 = (p[:, self.i] - p[:, self.j]).square().sum(2).sort(1, descending=True).values + 1.0
        return self.net(r2.rsqrt() if self.reciprocal else r2.sqrt(), t)


# ---- energies (section 5) ---------------------------------------------------------------------------

def gmm9(x):
    c = torch.tensor([-5.0, 0.0, 5.0])
    means = torch.cartesian_prod(c, c)
    q = (x[:, None] - means).square().sum(2) / 0.6
    return math.log(9.0 * 2.0 * math.pi * 0.3) - torch.logsumexp(-q, 1)


def funnel(x):
    v, rest = x[:, 0], x[:, 1:]
    k = rest.shape[1]
    return (v.square() / 18.0 + 0.5 * (rest.square().sum(1) * torch.exp(-v) + k * v)
            + 0.5 * math.log(2.0 * math.pi * 9.0) + 0.5 * k * math.log(2.0 * math.pi))


def pairs(x, n):
    p = x.view(len(x), n, x.shape[1] // n)
    i, j = torch.triu_indices(n, n, 1)
    return (p[:, i] - p[:, j]).square().sum(2)


def dw4(x):
    u = pairs(x, 4).sqrt() - 4.0
    return (0.9 * u ** 4 - 4.0 * u ** 2).sum(1)


def lj13(x):
    s = (pairs(x, 13) + 1e-6).pow(-3)             # r^-6; a pair counts twice
    p = x.view(len(x), 13, 3)
    return 2.0 * (s * s - 2.0 * s).sum(1) + 0.5 * (p - p.mean(1, keepdim=True)).square().sum((1, 2))


def gradient(f, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        y = f(x)
        return y.detach(), torch.autograd.grad(y.sum(), x)[0]


# ---- published settings (section 6) -----------------------------------------------------------------

SETTINGS = {
    "gmm9": dict(energy=gmm9, dim=2, net=Temb, hidden=1024, time_dim=1024, steps=20, schedule="quad",
                 s2=(0.2, 0.1), vp=True, value_lr=1e-4, sigma_lr=1e-3, ema=0.9, batch=128, passes=1,
                 explore=1.2, loss=F.mse_loss),
    "funnel": dict(energy=funnel, dim=10, net=DeeperV2, hidden=1024, time_dim=1024, steps=30,
                   schedule="quad", s2=(0.5, 5e-4), vp=False, value_lr=1e-4, sigma_lr=1e-2, ema=0.95,
                   batch=1024, passes=3, explore=1.1, loss=F.mse_loss, energy_max=100.0, by_dim=True),
    "dw4": dict(energy=dw4, dim=8, particles=4, net=Temb, hidden=512, time_dim=512, steps=30,
                schedule="quad", s2=(0.1, 1e-4), vp=False, value_lr=1e-5, sigma_lr=1e-3, ema=0.0,
                batch=512, passes=3, explore=1.2, loss=F.smooth_l1_loss, by_dim=True),
    "lj13": dict(energy=lj13, dim=39, particles=13, reciprocal=True, net=DeeperV3, hidden=512, time_dim=128,
                 time_hidden=512, steps=100, schedule="exp", s2=(0.05, 1e-4), vp=False, value_lr=1e-5,
                 sigma_lr=1e-4, ema=0.9, batch=512, passes=3, explore=1.2, loss=F.smooth_l1_loss,
                 energy_max=100.0, unclamped=True, grad_max=1.0, by_dim=True),
}


def schedule(kind, start, end, steps):
    if kind == "quad":
        return torch.linspace(math.sqrt(start), math.sqrt(end), steps).square()
    return torch.exp(torch.linspace(math.log(start), math.log(end), steps))


# ---- the sampler (sections 1 and 2) -----------------------------------------------------------------

class Sampler:
    def __init__(self, target, compiled=False, **other):
        s = dict(particles=0, reciprocal=False, time_hidden=0, energy_max=None, unclamped=False, grad_max=None,
                 by_dim=False)
        s.update(SETTINGS[target])
        s.update(other)
        for k, v in s.items():
            setattr(self, k, v)
        self.s2 = schedule(self.schedule, *self.s2, self.steps)
        self.a = 1.0 / (1.0 - self.s2).sqrt() if self.vp else torch.ones_like(self.s2)
        self.width = self.dim - self.dim // self.particles if self.particles else self.dim
        self.scale = self.width if self.by_dim else 1.0
        self.online, self.target = self.network(), self.network().requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.adam = torch.optim.Adam(self.online.parameters(), lr=self.value_lr, fused=True)
        self.s0 = torch.tensor(1.0 if self.vp else math.sqrt(1.0 + self.s2.sum().item()), requires_grad=True)
        self.sigma_adam = torch.optim.Adam([self.s0], lr=self.sigma_lr)
        self.value = torch.compile(self.target_value) if compiled else self.target_value
        self.fit_loss = torch.compile(self.td_loss) if compiled else self.td_loss

    def network(self):
        n = self.particles
        net = self.net(n * (n - 1) // 2 if n else self.dim, self.hidden, self.time_dim,
                       self.time_hidden or self.hidden, self.steps)
        return Sorted(net, n, self.reciprocal) if n else net

    def noise(self, rows):
        eps = torch.randn(rows, self.dim)
        if self.particles:                        # mean-free
            p = eps.view(rows, self.particles, -1)
            eps = (p - p.mean(1, keepdim=True)).view(rows, -1)
        return eps

    def target_value(self, x, t):
        return self.scale * self.target(x, t)

    def td_loss(self, x, t, y):
        v = self.online(x, t)
        return self.loss(v if self.by_dim else v / self.width, y)

    def drift(self, z, t):
        if t < self.steps - 1:
            step = torch.tensor([t + 1])
            g = gradient(lambda x: self.value(x, step), z)[1]
        else:
            e, g = gradient(self.energy, z)
            if self.unclamped:
                g = g.clamp(-1e15, 1e15)
            elif self.energy_max is not None:
                g = torch.where((e > self.energy_max)[:, None], 0.0, g)
        return self.s2[t] * self.a[t] ** 2 * g

    @torch.no_grad()
    def rollout(self, rows, c):
        """x_0 ... x_T [T+1, rows, dim] and the drifts [T, rows, dim]"""
        x, path, drifts = c * self.s0 * self.noise(rows), [], []
        path.append(x)
        for t in range(self.steps):
            z = self.a[t] * x
            mu = self.drift(z, t)
            x = z - mu + c * self.s2[t].sqrt() * self.a[t] * self.noise(rows)
            path.append(x)
            drifts.append(mu)
        return path, drifts

    @torch.no_grad()
    def td_target(self, x, t, mu):
        """y_t / D of a minibatch, with fresh noise"""
        var = self.s2[t] * self.a[t] ** 2
        cost = mu.square().sum(1) / (2.0 * var) - self.width * self.a[t].log()
        x = self.a[t][:, None] * x - mu + var.sqrt()[:, None] * self.noise(len(x))
        last = t == self.steps - 1
        y = self.value(x, (t + 1).clamp(max=self.steps - 1))
        e = self.energy(x[last])
        y[last] = e if self.energy_max is None else e.clamp(max=self.energy_max)
        return (y + cost) / self.width

    def fit(self, x, t, y):
        loss = self.fit_loss(x, t, y)
        self.adam.zero_grad()
        loss.backward()
        if self.grad_max:
            nn.utils.clip_grad_norm_(self.online.parameters(), self.grad_max)
        self.adam.step()
        return loss.detach()

    def sigma_step(self):
        eps = self.noise(self.batch)
        loss = self.value(self.s0 * eps, torch.tensor([0])).mean() - self.width * self.s0.log()
        self.sigma_adam.zero_grad()
        (loss / self.scale).backward()
        self.sigma_adam.step()

    def iterate(self):
        path, drifts = self.rollout(self.batch, self.explore)
        x, mu = torch.cat(path[:-1]), torch.cat(drifts)
        t = torch.arange(self.steps).repeat_interleave(self.batch)
        losses = []
        for _ in range(self.passes):
            for i in torch.randperm(len(x)).split(self.batch):
                losses.append(self.fit(x[i], t[i], self.td_target(x[i], t[i], mu[i])))
        torch._foreach_lerp_(list(self.target.parameters()), [p.detach() for p in self.online.parameters()],
                             1.0 - self.ema)
        self.sigma_step()
        return torch.stack(losses).mean().item()

    def draw(self, rows):
        return self.rollout(rows, 1.0)[0][-1]


# ---- does it compute the same thing? ----------------------------------------------------------------

def read_checkpoint(path):
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        head, data = json.loads(f.read(size)), f.read()
    tensors = {}
    for name, v in head.items():
        if name != "__metadata__" and v["dtype"] == "F32":
            a, b = v["data_offsets"]
            tensors[name] = torch.frombuffer(bytearray(data[a:b]), dtype=torch.float32).reshape(v["shape"])
    return tensors


def take_weights(s, tensors):
    for net, prefix in ((s.target, "value."), (s.online, "value_on.")):
        net.load_state_dict({k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)})


def last_log(folder):
    with open(os.path.join(folder, "log.jsonl")) as f:
        return [json.loads(line) for line in f if '"loss"' in line][-1]


def networks_agree():
    """Each network against the direct form in double of tests/vectors/gen, by which vgs.h is tested."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "vectors", "gen"))
    sys.dont_write_bytecode = True
    import networks as direct
    torch.set_default_dtype(torch.float32)        # which that module changes
    good = True
    for name in SETTINGS:
        s = Sampler(name, hidden=12, time_dim=8, time_hidden=10 if name == "lj13" else 0)
        x, t = 2.0 * s.noise(50), torch.randint(0, s.steps, (50,))
        p = {k.removeprefix("net.") if s.particles else k: v.double() for k, v in s.online.state_dict().items()}
        seen = x.double()
        if s.particles:
            seen = direct.pair_features(seen, s.particles, s.dim // s.particles, s.reciprocal)
        want = getattr(direct, s.net.__name__.lower())(p, seen, t, 8)
        error = (s.online(x, t).double() - want).abs().max().item()
        good = good and error < 1e-5
        print("%-8s %-8s largest difference from the direct form %.1e" % (name, s.net.__name__.lower(), error))
    return good


def training_agrees(program, name, iterations=30):
    """From one checkpoint on, a narrow network is trained by both; loss, s0 and energies are compared."""
    small = dict(hidden=32, time_dim=16, time_hidden=32)
    seeds, ours, theirs = 4, [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as d:
            start, end = os.path.join(d, "start"), os.path.join(d, "end")
            flags = ["--preset", "paper", "--hidden", "32", "--time-dim", "16", "--time-hidden", "32",
                     "--seed", str(seed), "--value-lr", "1e-3"]
            for out, n in ((start, 1), (end, 1 + iterations)):
                subprocess.run([program, name, "--out", out, "--iterations", str(n), *flags], check=True,
                               stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            s = Sampler(name, **small, value_lr=1e-3)
            tensors = read_checkpoint(os.path.join(start, "checkpoint.safetensors"))
            take_weights(s, tensors)
            s.s0.data.copy_(tensors["init_sigma"].reshape(()))
            for _ in range(iterations):
                loss = s.iterate()
            e = s.energy(s.draw(ROWS)).detach()
            theirs.append([math.log(loss), s.s0.item(), e.median().item()])
            log = last_log(end)
            ours.append([math.log(log["loss"]), log["init_sigma"], log["energy_median"]])
    good = True
    for k, what in enumerate(("log loss", "s0", "median energy")):
        a, b = torch.tensor(ours)[:, k], torch.tensor(theirs)[:, k]
        error = ((a.var() + b.var()) / seeds).sqrt().item() + 0.01 * b.mean().abs().item()
        near = abs(a.mean() - b.mean()).item() < 4.0 * error
        good = good and near
        print("%-8s %-14s ours %9.4f, PyTorch %9.4f, standard error %.4f%s" %
              (name, what, a.mean(), b.mean(), error, "" if near else "  DIFFERENT"))
    return good


# ---- timing -----------------------------------------------------------------------------------------

def timed(work, cpu):
    """Seconds, or with cpu seconds of the processor over threads."""
    clock = time.process_time if cpu else time.perf_counter
    start = clock()
    work()
    return (clock() - start) / (torch.get_num_threads() if cpu else 1)


def explain(name, what, work):
    """Where the time goes: FLOP in matrix products, and the share of the time that they take."""
    from torch.profiler import profile
    with profile(with_flops=True) as p:
        work()
    times = {e.key: e.self_cpu_time_total for e in p.key_averages()}
    products = [e for e in p.key_averages() if e.key in ("aten::mm", "aten::addmm", "aten::bmm")]
    flop, spent = sum(e.flops for e in products), sum(times[e.key] for e in products)
    adam = sum(t for key, t in times.items() if "adam" in key.lower())
    print("%-8s %-5s %.1f GFLOP, products %.1f %% of the time at %.1f GFLOP/s, Adam %.1f %%" %
          (name, what, flop / 1e9, 100.0 * spent / sum(times.values()), flop / 1e3 / spent,
           100.0 * adam / sum(times.values())), flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("target", nargs="*", default=[], help=" ".join(SETTINGS))
    p.add_argument("--what", choices=["train", "draw"], help="only this (default: both; draw is of 2000 rows)")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeat", type=int, default=3, help="timings of which the median is taken")
    p.add_argument("--compile", action="store_true", help="the value and its training loss by torch.compile")
    p.add_argument("--explain", action="store_true", help="FLOP, and how much of the time products and Adam take")
    p.add_argument("--cpu-time", action="store_true", help="seconds of the processor over threads")
    p.add_argument("--serve", action="store_true", help="one timing for each line of the input")
    p.add_argument("--check", metavar="TRAIN", help="compare with vgs.h, whose program train is at TRAIN")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(1)
    if o.check:
        good = networks_agree()
        for name in o.target or SETTINGS:
            good = training_agrees(o.check, name) and good
        return 0 if good else 1
    for name in o.target or SETTINGS:
        s = Sampler(name, compiled=o.compile)
        for what in [o.what] if o.what else ["train", "draw"]:
            work = s.iterate if what == "train" else lambda: s.draw(ROWS)
            if o.explain:
                work()
                explain(name, what, work)
            elif o.serve:
                work()
                print("ready", torch.__version__, flush=True)
                for _ in sys.stdin:
                    print(timed(work, o.cpu_time), flush=True)
            else:
                work()
                times = sorted(timed(work, o.cpu_time) for _ in range(o.repeat))
                print("%-8s %-5s %.4f s" % (name, what, times[o.repeat // 2]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
