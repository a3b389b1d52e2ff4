#!/usr/bin/env python3
"""Golden vectors for training and sampling:  python3 training.py > ../training.h

An independent PyTorch implementation of SPEC sections 1 and 2 in float64, with the network temb of
networks.py. Gradients come from autograd and are checked here against central differences; the clipped step
is checked against torch.nn.utils.clip_grad_norm_. Any failed check stops the script.
"""
import math
import sys

import torch
import torch.nn.functional as F

sys.dont_write_bytecode = True
from networks import (KINKS, Lcg, c_array, c_double, check, check_difference, check_kinks, flatten,
                      make_params, temb, temb_shapes, wrap)

D, T, B, H, M = 2, 4, 5, 5, 6
ONLINE_SEED, TARGET_SEED, SCALE = 1, 2, 2.0
VALUE_LR, SIGMA_LR = 1e-3, 1e-2


# ---- schedules (section 1) -----------------------------------------------------------------------

def schedule(kind, start, end, steps):
    if kind == "linear":
        return torch.linspace(start, end, steps)
    if kind == "quad":
        return torch.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
    if kind == "sigmoid":
        return torch.sigmoid(torch.linspace(-6.0, 6.0, steps)) * (end - start) + start
    if kind == "exp":
        return torch.exp(torch.linspace(math.log(start), math.log(end), steps))
    return torch.full((steps,), start)


def alphas(s2, vp):
    return 1.0 / torch.sqrt(1.0 - s2) if vp else torch.ones_like(s2)


def initial_s0(s2, vp):
    return 1.0 if vp else math.sqrt(1.0 + s2.sum().item())


# ---- energy: four-gauss (section 5) --------------------------------------------------------------

MEANS = torch.tensor([[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]])
VARIANCE = 0.13


def energy(x):
    q = ((x[:, None, :] - MEANS[None]) ** 2).sum(2) / (2.0 * VARIANCE)
    return -torch.logsumexp(-q, 1) + math.log(4.0) + math.log(2.0 * math.pi * VARIANCE)


def gradient_rows(f, x):
    x = x.detach().clone().requires_grad_(True)
    return torch.autograd.grad(f(x).sum(), x)[0]


# ---- sampler and temporal-difference learning (sections 1 and 2) ---------------------------------

class Setting:
    def __init__(self, name, kind, vp, start, end, tau, loss, scale_by_dim, grad_max, energy_max, explore):
        self.name, self.kind, self.vp, self.start, self.end, self.tau = name, kind, vp, start, end, tau
        self.loss, self.scale_by_dim, self.grad_max = loss, scale_by_dim, grad_max
        self.energy_max, self.explore = energy_max, explore
        self.s2 = schedule(kind, start, end, T)
        self.a = alphas(self.s2, vp)


def network_value(s, p, x, t):
    """V_t(x): the network's output, times D where the network is trained to give V/D."""
    out = temb(p, x, t, M)
    return D * out if s.scale_by_dim else out


def drift(s, target, z, t, clamp):
    """mu_t at z = a_t x_t, row by row: grad V_{t+1}, or grad E at the last step (0 where E > energy_max)."""
    mu = torch.zeros_like(z)
    for i in range(len(z)):
        zi, ti = z[i:i + 1], t[i:i + 1]
        if t[i] < T - 1:
            g = gradient_rows(lambda y: network_value(s, target, y, ti + 1), zi)
        elif clamp and s.energy_max is not None and energy(zi).item() > s.energy_max:
            g = torch.zeros_like(zi)
        else:
            g = gradient_rows(energy, zi)
        mu[i] = (s.s2[t[i]] * s.a[t[i]] ** 2 / s.tau) * g[0]
    return mu


def rollout_step(s, target, x, t, eps):
    z = s.a[t][:, None] * x
    mu = drift(s, target, z, t, True)
    sigma = torch.sqrt(s.s2[t]) * s.a[t]
    return z, mu, z - mu + s.explore * sigma[:, None] * eps


def td_target(s, target, x, t, mu, eps):
    """cost_t, x', y_t of given transitions; the noise of x' has scale 1 whatever explore is."""
    A = s.s2[t] * s.a[t] ** 2
    cost = s.tau * ((mu ** 2).sum(1) / (2.0 * A) - D * torch.log(s.a[t]))
    xp = s.a[t][:, None] * x - mu + torch.sqrt(A)[:, None] * eps
    y = torch.zeros(len(x))
    for i in range(len(x)):
        if t[i] == T - 1:
            e = energy(xp[i:i + 1])[0]
            next_value = e if s.energy_max is None else min(e, torch.tensor(s.energy_max))
        else:
            next_value = network_value(s, target, xp[i:i + 1], t[i:i + 1] + 1)[0]
        y[i] = next_value + cost[i]
    return cost, xp, y.detach()


def td_loss(s, online, x, t, y):
    u, v = network_value(s, online, x, t) / D, y / D
    if s.loss == "l2":
        return ((u - v) ** 2).mean()
    if s.loss == "l1":
        return (u - v).abs().mean()
    return F.smooth_l1_loss(u, v, beta=1.0)


def global_norm(grads):
    return math.sqrt(sum((g ** 2).sum().item() for g in grads))


def train(s, target, x, t, mu, eps, steps):
    """Adam steps on one minibatch, y held fixed. Returns losses, norms, first gradient, parameters."""
    online = make_params(temb_shapes(D, H, 0, M), ONLINE_SEED, SCALE)
    leaves = [v.requires_grad_(True) for v in online.values()]
    adam = torch.optim.Adam(leaves, lr=VALUE_LR)
    _, _, y = td_target(s, target, x, t, mu, eps)
    losses, norms, first, history = [], [], None, []
    for k in range(steps):
        KINKS.clear()
        loss = td_loss(s, online, x, t, y)
        check_kinks("%s step %d" % (s.name, k))
        gap = (network_value(s, online, x, t) / D - y / D).detach().abs()
        if s.loss == "l1":
            check(gap.min().item() > 1e-2, s.name + ": loss near its kink")
        if s.loss == "smooth_l1":
            check(gap.min().item() < 0.9 and gap.max().item() > 1.1, s.name + ": one branch of smooth_l1")
        adam.zero_grad()
        loss.backward()
        grads = [v.grad for v in leaves]
        norm = global_norm(grads)
        if k == 0:
            first = [g.clone() for g in grads]
            check_difference(lambda: td_loss(s, online, x, t, y), leaves, first, s.name + " loss")
            size = flatten(first).abs()
            check(size[size > 0].min().item() > 1e-5, s.name + ": gradient too small for Adam in float32")
        if s.grad_max is not None:
            check(norm > s.grad_max, s.name + ": clip has no effect")
            before = [g.clone() for g in grads]
            total = torch.nn.utils.clip_grad_norm_(leaves, s.grad_max)
            factor = min(1.0, s.grad_max / (norm + 1e-6))
            check(abs(total.item() - norm) < 1e-12 * norm, "clip_grad_norm_")
            for g, b in zip(grads, before):
                check((g - factor * b).abs().max().item() < 1e-14, "clip factor")
        adam.step()
        losses.append(loss.item())
        norms.append(norm)
        history.append(torch.round(flatten([v.detach() for v in leaves]), decimals=12))
    return losses, norms, flatten(first), history


def s0_loss(s, target, s0, eps):
    zero = torch.zeros(len(eps), dtype=torch.long)
    loss = network_value(s, target, s0 * eps, zero).mean() - D * s.tau * torch.log(s0)
    return loss / D if s.scale_by_dim else loss


def train_s0(s, target, s0, eps, steps):
    s0 = torch.tensor(s0, requires_grad=True)
    adam = torch.optim.Adam([s0], lr=SIGMA_LR)
    out = []
    for k in range(steps):
        KINKS.clear()
        loss = s0_loss(s, target, s0, eps)
        check_kinks("%s s0 step %d" % (s.name, k))
        adam.zero_grad()
        loss.backward()
        if k == 0:
            value, grad = loss.item(), s0.grad.item()
            check_difference(lambda: s0_loss(s, target, s0, eps), [s0], [s0.grad], s.name + " s0")
        adam.step()
        out.append(s0.item())
    return value, grad, out


# ---- the cases -----------------------------------------------------------------------------------

#           name            schedule   vp     start end   tau   loss         by dim  clip  Ec    explore
SETTINGS = [
    Setting("vp_l2",        "quad",    True,  0.3,  0.05, 1.0,  "l2",        False,  None, None, 1.0),
    Setting("vp_l1_dim",    "quad",    True,  0.3,  0.05, 0.75, "l1",        True,   None, 12.0, 1.2),
    Setting("vp_sl1_clip",  "quad",    True,  0.3,  0.05, 2.0,  "smooth_l1", False,  0.5,  12.0, 1.0),
    Setting("ve_l2_dim",    "exp",     False, 0.5,  0.01, 1.0,  "l2",        True,   2.0,  12.0, 1.2),
    Setting("ve_l1",        "exp",     False, 0.5,  0.01, 0.75, "l1",        False,  None, None, 1.0),
    Setting("ve_sl1_dim",   "exp",     False, 0.5,  0.01, 1.0,  "smooth_l1", True,   1e-6, 12.0, 1.2),
]  # grad_max 1e-6: Adam's step depends on the gradient's size only through its epsilon, which then counts
KINDS = ["linear", "quad", "sigmoid", "exp", "constant"]

HEADER = """\
/* training.h: golden values of sampling and training, made by gen/training.py; do not edit.
   PyTorch %s, float64, direct form. float arrays and the initial parameters are exact in float32.

   Network: temb, D 2, h 5, m 6, 201 parameters, generated as described in networks.h (scale 2, seeds below),
   in the order net1.net.0, net2.net.0, net2.net.2, net2.net.4, net3.net.0, net3.net.2, net3.net.4, each
   .weight then .bias. Energy: four-gauss, -log of the normalised density. T = 4, so t = 3 is the last step.

   golden_s2[k], golden_a_vp[k], golden_s0_ve[k]: schedule k = linear, quad, sigmoid, exp, constant, 5 steps,
   start 0.2, end 0.02 (constant: start). (VP: s0 = 1. VE: a = 1.)

   The same inputs serve every case: golden_td_x, _t, _mu, _eps (one minibatch; mu is given, not computed from
   a rollout), golden_ro_x, _t, _eps (one rollout step of rows at different t), golden_s0_eps. The cases, in
   golden_td[]:

       s2, a               [4]     s_t^2, a_t
       cost, xp, y         [5], [5][2], [5]    cost_t, x', y_t (y is V, not V/D)
       losses, norms       [3]     mean loss, unclipped gradient norm before Adam step 1, 2, 3; y held fixed
       grad                [201]   unclipped gradient of losses[0] in the online parameters
       step1, step3        [201]   online parameters after 1 and 3 Adam steps, lr 1e-3, with the clip if any;
                                   rounded to 12 decimals
       mu, mu_raw, next    [5][2]  rollout: drift; drift with E not clamped; x_{t+1} with the drift mu and
                                   noise times explore. With energy_max row 4 is clamped (mu 0), row 3 not
       s0_start            s0 at the start (VP 1, VE sqrt(1 + sum s2))
       s0_loss, s0_grad    loss and d loss / d s0 of step (4), over s0_eps, at s0_start
       s0_step[3]          s0 after 1, 2, 3 Adam steps with the same s0_eps, lr 1e-2

   Adam hardly sees a clip (a common factor of all gradients cancels); ve_sl1_dim clips to 1e-6, where its
   epsilon 1e-8 makes the clip visible in the parameters. With scale_by_dim V is 2 times the network's output,
   in drift, target and s0 loss. */
#ifndef VGS_GOLDEN_TRAINING_H
#define VGS_GOLDEN_TRAINING_H
"""

STRUCT = """
typedef struct {
    const char *name, *schedule, *loss; /* loss: l2, l1, smooth_l1 */
    int vp, scale_by_dim;
    double s2_start, s2_end, tau, explore;
    double grad_max, energy_max; /* 0: none */
    const double *s2, *a, *cost, *xp, *y, *losses, *norms, *grad, *step1, *step3, *mu, *mu_raw, *next;
    double s0_start, s0_loss, s0_grad, s0_step[3];
} golden_td_case;
"""


def main():
    data = Lcg(11)
    td_x = data.grid(4.0, B, D)
    td_t = torch.tensor([3, 0, 2, 1, 3])
    td_mu = data.grid(1.0, B, D)
    td_eps = data.grid(4.0, B, D)
    td_x[0] = torch.tensor([1.5, -1.75])   # ends below energy_max
    td_x[4] = torch.tensor([-0.25, 0.5])   # ends above it
    ro_x = data.grid(4.0, B, D)
    ro_t = torch.tensor([0, 1, 2, 3, 3])
    ro_eps = data.grid(4.0, B, D)
    ro_x[3] = torch.tensor([-1.5, 2.25])   # below energy_max
    ro_x[4] = torch.tensor([0.25, -0.125])  # above it
    s0_eps = data.grid(4.0, B, D)
    energy_x = torch.cat([data.grid(6.0, 3, D), torch.tensor([[0.0, 0.0], [2.0, -2.0]])])

    print(HEADER % torch.__version__.split("+")[0])
    print("enum { GOLDEN_TD_D = %d, GOLDEN_TD_T = %d, GOLDEN_TD_B = %d, GOLDEN_TD_H = %d, GOLDEN_TD_M = %d,\n"
          "       GOLDEN_TD_P = %d, GOLDEN_TD_CASES = %d,\n"
          "       GOLDEN_SEED_ONLINE = %d, GOLDEN_SEED_TARGET = %d };" %
          (D, T, B, H, M, sum(math.prod(k) for _, k in temb_shapes(D, H, 0, M)), len(SETTINGS),
           ONLINE_SEED, TARGET_SEED))
    print("static const float golden_td_scale = %s;" % (c_double(SCALE) + "f"))

    print("\n/* schedules, 5 steps, 0.2 to 0.02 */")
    s2 = [schedule(k, 0.2, 0.02, 5) for k in KINDS]
    print("static const char *const golden_schedules[5] = {\n%s\n};" % wrap(['"%s"' % k for k in KINDS]))
    c_array("double", "golden_s2", "[5][5]", torch.stack(s2))
    c_array("double", "golden_a_vp", "[5][5]", torch.stack([alphas(v, True) for v in s2]))
    c_array("double", "golden_s0_ve", "[5]", [initial_s0(v, False) for v in s2])

    print("\n/* four-gauss: E and its gradient at energy_x */")
    grad = gradient_rows(energy, energy_x)
    check_difference(lambda: energy(energy_x).sum(), [energy_x], [grad], "energy", step=1e-6)
    c_array("float", "golden_energy_x", "[5][2]", energy_x)
    c_array("double", "golden_energy_E", "[5]", energy(energy_x))
    c_array("double", "golden_energy_g", "[5][2]", grad)

    print("\n/* inputs of all cases */")
    for name, v in (("td_x", td_x), ("td_mu", td_mu), ("td_eps", td_eps), ("ro_x", ro_x), ("ro_eps", ro_eps),
                    ("s0_eps", s0_eps)):
        c_array("float", "golden_" + name, "[%d][%d]" % (B, D), v)
    c_array("int", "golden_td_t", "[%d]" % B, td_t)
    c_array("int", "golden_ro_t", "[%d]" % B, ro_t)

    target = make_params(temb_shapes(D, H, 0, M), TARGET_SEED, SCALE)
    rows = []
    for s in SETTINGS:
        KINKS.clear()
        cost, xp, y = td_target(s, target, td_x, td_t, td_mu, td_eps)
        z, mu, nxt = rollout_step(s, target, ro_x, ro_t, ro_eps)
        mu_raw = drift(s, target, z, ro_t, False)
        check(min(k.abs().min().item() for k in KINKS) > 1e-3, s.name + ": target relu input near 0")
        if s.energy_max is not None:
            for e in (energy(xp)[[0, 4]], energy(z)[[3, 4]]):
                check(e[0].item() < s.energy_max - 0.5, s.name + ": energy_max of the row below")
                check(e[1].item() > s.energy_max + 0.5, s.name + ": energy_max of the row above")
            check(mu[4].abs().max().item() == 0.0 and mu_raw[4].abs().max().item() > 0.1, s.name + ": clamp")
        for k in range(B):  # the drift again, from differences of V and E
            if ro_t[k] < T - 1 or s.energy_max is None or k == 3:
                f = (lambda q: energy(q)) if ro_t[k] == T - 1 else \
                    (lambda q: network_value(s, target, q, ro_t[k:k + 1] + 1))
                point = z[k:k + 1].clone()
                g = mu[k:k + 1] * s.tau / (s.s2[ro_t[k]] * s.a[ro_t[k]] ** 2)
                what = "%s drift row %d" % (s.name, k)
                check_difference(lambda: f(point).sum(), [point], [g], what, step=1e-6)
        losses, norms, first, history = train(s, target, td_x, td_t, td_mu, td_eps, 3)
        s0 = initial_s0(s.s2, s.vp)
        s0_value, s0_grad, s0_steps = train_s0(s, target, s0, s0_eps, 3)

        g = "golden_" + s.name
        print("\n/* %s: %s, %s, %g to %g, loss %s, tau %g, explore %g%s%s%s */" %
              (s.name, "VP" if s.vp else "VE", s.kind, s.start, s.end, s.loss, s.tau, s.explore,
               ", scale_by_dim" if s.scale_by_dim else "",
               ",\n   grad_max %g" % s.grad_max if s.grad_max else "",
               ", energy_max %g" % s.energy_max if s.energy_max else ""))
        for name, v, dims in (("s2", s.s2, [T]), ("a", s.a, [T]), ("cost", cost, [B]), ("xp", xp, [B, D]),
                              ("y", y, [B]), ("losses", losses, [3]), ("norms", norms, [3]),
                              ("grad", first, [len(first)]), ("step1", history[0], [len(first)]),
                              ("step3", history[2], [len(first)]), ("mu", mu, [B, D]),
                              ("mu_raw", mu_raw, [B, D]), ("next", nxt, [B, D])):
            c_array("double", "%s_%s" % (g, name), "".join("[%d]" % k for k in dims), v)
        rows.append('    { "%s", "%s", "%s", %d, %d, %s, %s, %s, %s, %s, %s,\n' %
                    (s.name, s.kind, s.loss, s.vp, s.scale_by_dim, c_double(s.start), c_double(s.end),
                     c_double(s.tau), c_double(s.explore), c_double(s.grad_max or 0),
                     c_double(s.energy_max or 0))
                    + wrap([g + "_s2", g + "_a", g + "_cost", "&%s_xp[0][0]" % g, g + "_y", g + "_losses",
                            g + "_norms", g + "_grad", g + "_step1", g + "_step3", "&%s_mu[0][0]" % g,
                            "&%s_mu_raw[0][0]" % g, "&%s_next[0][0]" % g], "      ") + ",\n"
                    + "      %s, %s, %s,\n      { %s } }" %
                    (c_double(s0), c_double(s0_value), c_double(s0_grad),
                     ", ".join(c_double(v) for v in s0_steps)))
    print(STRUCT)
    print("static const golden_td_case golden_td[GOLDEN_TD_CASES] = {\n%s\n};\n\n#endif" % ",\n".join(rows))


if __name__ == "__main__":
    main()
