#!/usr/bin/env python3
"""Golden vectors of a policy:  python3 policy.py > ../policy.h

An independent PyTorch implementation in float64 of one iteration of dynamic programming (SPEC_EBM 2.1), Adam by
torch.optim, on a given energy and on one that learns in the same iteration; of the loss of denoising diffusion;
and of the gradient of the variance of log path weights by autograd (SPEC_EBM 2.5). Noise comes from the generator
of tests/t.h, in place of normal numbers.
"""
import math

import torch

from networks import Lcg

torch.set_default_dtype(torch.float64)
D, T, B, H, M, F, LAYERS = 2, 3, 4, 5, 4, 3, 2
START, STEP, POLICY, FIT = 1, 2, 18, 53          # streams of the library's random numbers
TAU, BASE, GAMMA, E_LR = 0.4, 1.5 * 1.5, 0.3, 1e-3           # of the energy that learns
LENGTH, S0 = 1.5, 1.7
ENTROPY, VELOCITY, VALUE_LR, POLICY_LR, SIGMA_LR, CLIP = 0.3, 0.2, 1e-2, 1e-3, 1e-2, 0.1


def lcg(seed, n, scale):
    g = Lcg(seed)
    return torch.tensor([g.value(scale) for _ in range(n)])


def noise(stream, step):
    return lcg(100 * stream + step, B * D, 3.0).reshape(B, D)


def shapes(out):
    s = [(F, M), (F,), (F, F), (F,)]
    for k in range(LAYERS):
        s += [(H, D if k == 0 else H), (H, F), (H,)]
    return s + [(out, H), (out, F), (out,)]


def unpack(w, out, extra=()):
    parts, at = [], 0
    for s in shapes(out) + list(extra):
        n = math.prod(s)
        parts.append(w[at:at + n].reshape(s))
        at += n
    assert at == w.numel()
    return parts


def network(p, x, t):
    half = M // 2
    freq = torch.exp(-torch.arange(half) * math.log(10000.0) / (half - 1))
    silu = torch.nn.functional.silu
    te = torch.cat([torch.sin(t[:, None] * freq), torch.cos(t[:, None] * freq)], 1)
    te = silu(te @ p[0].T + p[1])
    te = silu(te @ p[2].T + p[3])
    at = 4
    for _ in range(LAYERS):
        x = silu(x @ p[at].T + te @ p[at + 1].T + p[at + 2])
        at += 3
    return x @ p[at].T + te @ p[at + 1].T + p[at + 2]


def quartic(x):
    return (x ** 4).sum(1) / 4 + x[:, 0] * x[:, 1] / 3


def energy_grad(x):
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(quartic(x).sum(), x)[0]


class Chain:
    def __init__(self, vp, reference):
        self.s2 = torch.exp(torch.linspace(math.log(0.3), math.log(0.1), T)).float().double()
        self.a = (1 / torch.sqrt(1 - self.s2) if vp else torch.ones(T)).float().double()
        self.sigma = self.s2.sqrt() * self.a
        v, w = LENGTH ** 2, 0.0
        self.v, self.w = torch.zeros(T), torch.zeros(T)
        for t in reversed(range(T)):
            v = v / self.a[t] ** 2 + self.s2[t]
            w = w / self.a[t] ** 2 + self.s2[t]
            self.v[t], self.w[t] = v, w
        self.dev = self.v.sqrt()
        if reference == "pis":
            total = self.s2.sum()
            for t in range(T):
                share = self.s2[:t].sum() / total
                self.dev[t] = (LENGTH ** 2 * share ** 2 + self.s2[:t].sum() * (1 - share)).sqrt() if t else \
                    self.s2[0].sqrt()


def squash(u):
    return u / torch.sqrt(1 + u ** 2 / 16)


def steps(t):
    return torch.full((B,), float(t))


# ---- an energy that learns ---------------------------------------------------------------------------

class Energy:
    """An mlp of its own."""
    name = "DXMI_"

    def __init__(self):
        s, self.shapes = 0, [(H, D), (H,), (H, H), (H,), (1, H), (1,)]
        for shape in self.shapes:
            s += math.prod(shape)
        self.begin(lcg(4, s, 1.0))

    def begin(self, w):
        self.w = w.requires_grad_(True)
        self.adam = torch.optim.Adam([self.w], lr=E_LR)

    def net(self, x):
        parts, at, u = [], 0, x
        for shape in self.shapes:
            n = math.prod(shape)
            parts.append(self.w[at:at + n].reshape(shape))
            at += n
        for k in range(3):
            u = u @ parts[2 * k].T + parts[2 * k + 1]
            u = torch.nn.functional.silu(u) if k < 2 else u[:, 0]
        return u

    def __call__(self, x):
        return TAU * (self.net(x) + (x ** 2).sum(1) / (2 * BASE ** 2))

    def learn(self, data, draws):
        good, bad = self(data), self(draws)
        loss = good.mean() - bad.mean() + GAMMA * ((good ** 2).mean() + (bad ** 2).mean())
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()


class Shared(Energy):
    """The value at t = T: one network, and one Adam, whose rate is that of whoever steps."""
    name = "SHARED_"

    def __init__(self):
        self.begin(lcg(1, sum(math.prod(s) for s in shapes(1)), 1.0))

    def net(self, x):
        return network(unpack(self.w, 1), x / torch.sqrt(1 + x ** 2 / (16 * LENGTH ** 2)), steps(T))[:, 0]


# ---- denoising diffusion -----------------------------------------------------------------------------

def denoising():
    c = Chain(True, "dis")
    net = lcg(2, sum(math.prod(s) for s in shapes(D)), 1.0).requires_grad_(True)
    i = torch.tensor([((7 * k + 3) % (T * B)) // B for k in range(B)])
    left = torch.stack([1 / c.a[t:].prod() for t in range(T)])[i]
    eps, w = noise(FIT, 0), c.w[i]
    x = left[:, None] * lcg(7, B * D, 3.0).reshape(B, D) + w.sqrt()[:, None] * eps
    guess = network(unpack(net, D), squash(x / c.dev[i][:, None]), i.double()) + (w.sqrt() / c.v[i])[:, None] * x
    loss = ((guess - eps) ** 2).mean()
    loss.backward()
    after = torch.zeros(())                      # variance of x_{t+1} given x_T
    sigma = torch.zeros(T)
    for t in reversed(range(T)):
        step = c.sigma[t] ** 2
        sigma[t] = 1 / (1 / after + 1 / step) if after > 0 else min(step, (0.05 * LENGTH) ** 2)
        after = c.w[t]
    emit("NOISE_GRAD", net.grad)
    emit("NOISE_LOSS", loss[None])
    emit("POSTERIOR", sigma.sqrt())
    return sigma


# ---- dynamic programming ---------------------------------------------------------------------------

def dxdp(learned, first_velocity=None):
    c = Chain(True, "dis")
    name, tau = (learned.name, TAU) if learned else ("", 1.0)
    shared = isinstance(learned, Shared)
    energy = learned if learned else quartic
    n_value, n_policy = sum(math.prod(s) for s in shapes(1)), sum(math.prod(s) for s in shapes(D))
    value = learned.w if shared else lcg(1, n_value, 1.0).requires_grad_(True)
    policy = lcg(2, n_policy + T, 1.0)
    net, log_sigma = policy[:n_policy].clone().requires_grad_(True), policy[n_policy:].clone().requires_grad_(True)

    def V(x, t):                                 # t: [B], of each row
        i = t.long()
        inside = x / torch.sqrt(1 + x ** 2 / (16 * c.v[i][:, None]))
        return tau * (network(unpack(value, 1), inside, t)[:, 0] + (x ** 2).sum(1) / (2 * c.v[i]))

    def move(x, t, eps):
        i = t.long()
        m = network(unpack(net, D), squash(x / c.dev[i][:, None]), t) + (c.w[i].sqrt() / c.v[i])[:, None] * x
        m = -m * (c.s2[i] * c.a[i] / c.w[i].sqrt())[:, None]
        return c.a[i][:, None] * x + m + log_sigma[i].exp()[:, None] * eps

    velocity = (first_velocity if learned else c.sigma ** 2).clone()

    def cost(x, y, t):
        i = t.long()
        return VELOCITY * ((y - x) ** 2).sum(1) / (2 * velocity[i]) - ENTROPY * D * log_sigma[i]

    x = [S0 * noise(START, 0)]
    for t in range(T):
        x.append(move(x[t], steps(t), noise(STEP, t)).detach())
    if learned:
        learned.learn(lcg(7, B * D, 3.0).reshape(B, D), x[T])
    if learned and not shared:
        emit(name + "ENERGY", learned.w)
    adam = learned.adam if shared else torch.optim.Adam([value])
    adam.param_groups[0]["lr"] = VALUE_LR
    losses = []
    for t in reversed(range(T)):
        with torch.no_grad():
            y = energy(x[T]) if t == T - 1 else V(x[t + 1], steps(t + 1))
            y = y + cost(x[t], x[t + 1], steps(t))
        loss = (((V(x[t], steps(t)) - y) / D) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    row = torch.tensor([(7 * k + 3) % (T * B) for k in range(B)])
    t = (row // B).double()
    at = torch.cat(x[:T])[row]
    y = move(at, t, noise(POLICY, 0))
    last = t == T - 1
    later = torch.where(last, energy(y), V(y, torch.clamp(t + 1, max=T - 1)))
    loss = (later + cost(at, y, t)).mean()
    adam = torch.optim.Adam([{"params": [net], "lr": POLICY_LR}, {"params": [log_sigma], "lr": SIGMA_LR}])
    adam.zero_grad()
    loss.backward()
    grad = torch.cat([net.grad, log_sigma.grad]).clone()
    for p in (net, log_sigma):                   # against central differences
        for k in range(0, p.numel(), 7):
            side = []
            for h in (1e-6, -1e-6):
                p.data[k] += h
                y = move(at, t, noise(POLICY, 0))
                later = torch.where(last, energy(y), V(y, torch.clamp(t + 1, max=T - 1)))
                side.append((later + cost(at, y, t)).mean().item())
                p.data[k] -= h
            assert abs((side[0] - side[1]) / 2e-6 - p.grad[k].item()) < 1e-7, (k, side, p.grad[k])
    torch.nn.utils.clip_grad_norm_([net, log_sigma], CLIP)
    adam.step()
    for k in range(T):
        velocity[k] = 0.99 * velocity[k] + 0.01 * ((x[k + 1] - x[k]) ** 2).sum(1).mean() / D
    emit(name + "VALUE", value)
    emit(name + "POLICY", torch.cat([net, log_sigma]))
    emit(name + "POLICY_GRAD", grad)
    emit(name + "VELOCITY", velocity)
    emit(name + "LOSS", torch.tensor([sum(losses) / T]))


# ---- variance of log w -----------------------------------------------------------------------------

def logvar(reference, seen):
    """seen: the drift sees the gradient of the energy, times a factor of each step."""
    c = Chain(reference == "dis", reference)
    n = sum(math.prod(s) for s in shapes(D))
    w = lcg(3, n + 2 * T, 1.0)
    net, factor = w[:n].clone().requires_grad_(True), w[n + T:].clone().requires_grad_(True)
    normal = torch.distributions.Normal

    def mean(x, t):
        slope = c.sigma[t] ** 2 * energy_grad(x)
        most = 1.5 * c.sigma[t] * math.sqrt(D)
        slope = slope * torch.clamp(most / slope.norm(dim=1), max=1.0)[:, None]
        m = network(unpack(net, D), squash(x / c.dev[t]), steps(t)) * c.sigma[t] ** 2 / c.dev[t]
        return c.a[t] * x + m + (factor[t] * slope if seen else 0)

    x = [torch.zeros(B, D) if reference == "pis" else S0 * noise(START, 0)]
    for t in range(T):
        x.append((mean(x[t], t) + c.sigma[t] * noise(STEP, t)).detach())
    log_w = -quartic(x[T])
    if reference == "pis":
        log_w = log_w - normal(0, c.s2.sum().sqrt()).log_prob(x[T]).sum(1)
        before = torch.zeros(())
        for t in range(T):
            log_w = log_w + normal(x[t], c.sigma[t]).log_prob(x[t + 1]).sum(1)
    else:
        log_w = log_w - normal(0, S0).log_prob(x[0]).sum(1)
        for t in range(T):
            log_w = log_w + normal(x[t + 1] / c.a[t], c.s2[t].sqrt()).log_prob(x[t]).sum(1)
    for t in range(T):
        log_w = log_w - normal(mean(x[t], t), c.sigma[t]).log_prob(x[t + 1]).sum(1)
    loss = log_w.var()
    loss.backward()
    name = reference.upper() + ("" if seen else "_BLIND")
    emit(name + "_GRAD", torch.cat([net.grad, torch.zeros(T), factor.grad] if seen else [net.grad, torch.zeros(T)]))
    emit(name + "_LOG_W", log_w)
    emit(name + "_LOSS", loss[None])


def emit(name, x):
    x = x.detach().tolist()
    print("static const double golden_policy_%s[%d] = {" % (name.lower(), len(x)))
    for i in range(0, len(x), 4):
        print("    " + ", ".join("%.17g" % v for v in x[i:i + 4]) + ("," if i + 4 < len(x) else ""))
    print("};")


print("/* Made by gen/policy.py. */")
dxdp(None)
first = denoising()
dxdp(Energy(), first)
dxdp(Shared(), first)
for seen in (True, False):
    logvar("dis", seen)
    logvar("pis", seen)
