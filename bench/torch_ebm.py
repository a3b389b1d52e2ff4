#!/usr/bin/env python3
"""A step of contrastive divergence as published (batch 784 of 272-D directions, autoencoder 1024 x 3, code 128,
deeperv3 512), in PyTorch, to be timed against ours.

    python3 bench/torch_ebm.py [--preset mvtec|fast] [--threads N] [--steps N] [--lean] [--cpu-time]
    build/bench_ebm_step mvtec --torch python3       the same in turn with ours

Written as the published code does it: the energy and the value run on all rows of each minibatch of the value's
update, and gradients reach back through targets. --lean saves what a user of PyTorch would save by hand:
energies only of the last step's rows, no gradient through targets and paths, no gradient of the target network's
weights. Prints seconds a step.
"""
import argparse
import resource
import sys
import time

import torch
import torch.nn as nn

sys.dont_write_bytecode = True
from torch_vgs import Sinusoid

D, T, S2, TAU_E, PASSES = 272, 10, 1e-3, 0.1, 3


def unit(x):
    return x / x.norm(dim=1, keepdim=True)


def tangent(v, x):
    return v - (v * x).sum(1, keepdim=True) * x


def move(x, v):
    n = v.norm(dim=1, keepdim=True).clamp(min=1e-8)
    return unit(torch.cos(n) * x + torch.sin(n) * v / n)


def chain(sizes):
    layers = []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Energy(nn.Module):
    def __init__(self, hidden, code):
        super().__init__()
        self.encoder, self.decoder = chain([D, hidden, hidden, hidden, code]), chain([code, hidden, hidden, hidden, D])
        self.out_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        r = unit(self.decoder(unit(self.encoder(x))))
        return self.out_scale ** 2 * ((x - r) ** 2).sum(1) / TAU_E


class Value(nn.Module):
    def __init__(self, h, f, m):
        super().__init__()
        self.sinusoid = Sinusoid(m, T)
        self.fc1, self.fc2 = nn.Linear(D, h), nn.Linear(2 * h, 2 * h)
        self.fc3, self.fc4 = nn.Linear(2 * h, h), nn.Linear(h, 1)
        self.temb, self.temb1, self.temb2 = nn.Linear(m, f), nn.Linear(f, h), nn.Linear(f, h)

    def forward(self, x, t):
        te = self.temb(self.sinusoid(t))
        u = torch.relu(torch.cat([self.fc1(x), self.temb1(te)], 1))
        u = self.fc3(torch.relu(self.fc2(u))) * self.temb2(te)
        return self.fc4(u)[:, 0]


def rollout(value, energy, x, batch):
    states, drifts = [], []
    for t in range(T):
        z = x.detach().requires_grad_(True)
        out = energy(z) if t == T - 1 else value(z, torch.full((batch,), t + 1))
        mu = tangent(S2 * torch.autograd.grad(out.sum(), z)[0], z.detach())
        states.append(z.detach())
        drifts.append(mu)
        x = move(z.detach(), -mu + S2 ** 0.5 * tangent(torch.randn_like(z), z.detach()))
    return torch.cat(states), torch.cat(drifts), x


def targets(value, energy, x, t, mu, lean):
    nxt = move(x, -mu + S2 ** 0.5 * tangent(torch.randn_like(x), x))
    cost = (mu ** 2).sum(1) / (2 * S2)
    if not lean:                                  # both networks on every row, as published
        later = value(nxt, (t + 1).clamp(max=T - 1))
        last = (t == T - 1).float()
        return last * energy(nxt) + (1 - last) * later + cost
    with torch.no_grad():
        y = cost.clone()
        last = t == T - 1
        if last.any():
            y[last] += energy(nxt[last])
        y[~last] += value(nxt[~last], t[~last] + 1)
    return y


def step(rows, energy, energy_adam, online, target, value_adam, batch, lean):
    data, x = rows[torch.randperm(len(rows))[:batch]], rows[torch.randint(len(rows), (batch,))]
    for _ in range(T):
        x = move(x, S2 ** 0.5 * tangent(torch.randn_like(x), x))
    states, drifts, negatives = rollout(target, energy, x, batch)
    plus, minus = energy(data) / D, energy(negatives) / D
    loss = plus.mean() - minus.mean() + (plus ** 2).mean() + (minus ** 2).mean()
    energy_adam.zero_grad()
    loss.backward()
    energy_adam.step()
    time_of = torch.arange(T).repeat_interleave(batch)
    for _ in range(PASSES):
        for part in torch.randperm(T * batch).split(batch):
            y = targets(target, energy, states[part], time_of[part], drifts[part], lean)
            value_loss = (((online(states[part], time_of[part]) - y) / (D - 1)) ** 2).mean()
            value_adam.zero_grad()
            value_loss.backward()
            value_adam.step()
    target.load_state_dict(online.state_dict())
    return loss.item()


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--preset", default="mvtec", choices=["mvtec", "fast"])
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--steps", type=int, default=2)
    a.add_argument("--lean", action="store_true")
    a.add_argument("--cpu-time", action="store_true", help="seconds of the processor, not of the wall")
    a.add_argument("--serve", action="store_true", help="one timing for each line of the input")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(0)
    batch, hidden, code, h, m = (784, 1024, 128, 512, 128) if o.preset == "mvtec" else (392, 384, 64, 128, 64)
    rows = unit(torch.randn(20000, D) + 0.5)
    energy, online, target = Energy(hidden, code), Value(h, h, m), Value(h, h, m)
    if o.lean:
        for p in target.parameters():
            p.requires_grad_(False)
    adam = lambda net: torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)
    made = (energy, adam(energy), online, target, adam(online))
    clock = time.process_time if o.cpu_time else time.perf_counter

    def timed():
        start = clock()
        step(rows, *made, batch, o.lean)
        return clock() - start

    timed()                                       # to warm up
    if o.serve:
        print("ready", torch.__version__, flush=True)
        for _ in sys.stdin:
            print(timed() / (o.threads if o.cpu_time else 1), flush=True)
    else:
        best = min(timed() for _ in range(o.steps))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print("%s%s: %.2f s a step, %d threads, at most %.0f MB resident" %
              (o.preset, " lean" if o.lean else "", best, o.threads, peak * 1024e-6))


main()
