/* cc -O2 tests/td.c -o td -lm && ./td
   Sampling and TD training against PyTorch's numbers, through the sampler's own stages: a backend in front of
   the CPU's hands out the recorded noise and minibatch in place of random ones, and looks on. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "t.h"
#include "vectors/training.h"

enum { D = GOLDEN_TD_D, T = GOLDEN_TD_T, B = GOLDEN_TD_B, P = GOLDEN_TD_P };

static struct {
    vgs_backend *cpu;
    const float *eps;                            /* [B,D] in place of every normal number; NULL: as drawn */
    const int *minibatch;                        /* [B] in place of every permutation                 */
    int adams;                                   /* Adam steps of the network so far                  */
    float grad[P], norm2[8], after[8][P], noise_factor[8][T], drift_factor[8][T];
    int last_purpose, last_t;
} look;

static float *at(const vgs_tensor *t) { return (float *)(void *)t->buf + t->offset; }

static vgs_status look_run(void *self, const vgs_call *c, vgs_error *err)
{
    vgs_status st;
    static float push;
    int i, j;
    int32_t row;
    (void)self;
    if (c->op == VGS_OP_ADAM && c->in[0].cols == P && !look.adams)
        memcpy(look.grad, at(&c->in[1]), sizeof look.grad);
    st = vgs_cpu_run(look.cpu, c, err);
    if (c->op == VGS_OP_NORMAL) {
        look.last_purpose = c->i[0];
        look.last_t = c->i[1];
        for (i = 0; look.eps && i < c->out.rows; ++i)
            for (j = 0; j < D; ++j) at(&c->out)[i * c->out.ld + j] = look.eps[i * D + j];
    }
    if (c->op == VGS_OP_COMBINE && c->f[1] < 0) push = c->f[0];      /* u = c eps - mu / sigma         */
    else if (c->op == VGS_OP_COMBINE) {          /* x' = a x + sigma u                                */
        look.noise_factor[look.last_purpose][look.last_t] = push * c->f[1];
        look.drift_factor[look.last_purpose][look.last_t] = c->f[0];
    }
    for (i = 0; c->op == VGS_OP_PERMUTATION && look.minibatch && i < c->out.rows; ++i) {
        row = look.minibatch[i];
        memcpy(at(&c->out) + i * c->out.ld, &row, 4);
    }
    if (c->op == VGS_OP_SUM_SQUARES && look.adams < 8) look.norm2[look.adams] = at(&c->out)[0];
    if (c->op == VGS_OP_ADAM && c->in[0].cols == P && look.adams < 8)
        memcpy(look.after[look.adams++], at(&c->in[0]), P * sizeof(float));
    return st;
}

static void schedules(void)
{
    static const vgs_schedule kind[5] = { VGS_LINEAR, VGS_QUAD, VGS_SIGMOID, VGS_EXP, VGS_CONSTANT };
    float s2[5], a[5];
    int k, vp, i;
    for (k = 0; k < 5; ++k)
        for (vp = 0; vp < 2; ++vp) {
            vgs_config c;
            memset(&c, 0, sizeof c);
            T_IN("schedule %s %s", golden_schedules[k], vp ? "vp" : "ve");
            OK(vgs_field_set(&c, "schedule", golden_schedules[k], NULL) == VGS_OK && c.schedule == kind[k]);
            c.steps = 5;
            c.s2_start = 0.2f;
            c.s2_end = 0.02f;
            c.alpha = vp ? VGS_VP : VGS_VE;
            CHECK_NEAR(vgs_schedule_fill(&c, s2, a), vp ? 1.0 : golden_s0_ve[k], 1e-6, 0);
            t_near_all("s2", s2, golden_s2[k], 5, 1e-7, 0);
            if (vp) t_near_all("a", a, golden_a_vp[k], 5, 2e-7, 0);
            for (i = 0; !vp && i < 5; ++i) OK(a[i] == 1.0f);
            c.init_sigma = 2.5f;
            OK(vgs_schedule_fill(&c, s2, a) == 2.5);
            c.steps = 1;
            c.init_sigma = 0;
            vgs_schedule_fill(&c, s2, a);
            if (kind[k] != VGS_SIGMOID) CHECK_NEAR(s2[0], 0.2, 1e-6, 0);
        }
}

static void energy(void)
{
    vgs_energy e = target_energy(target_find("four-gauss"));
    float v[5], g[5][2];
    OK(vgs_energy_eval(&e, &golden_energy_x[0][0], 5, v, &g[0][0], 1, NULL) == VGS_OK);
    t_near_all("E", v, golden_energy_E, 5, 1e-6, 0);
    t_near_all("dE/dx", &g[0][0], &golden_energy_g[0][0], 10, 1e-6, 0);
}

/* ---- one case: a sampler with the golden weights ---------------------------------------------------- */

/* grad_max: 0 = none. As published, a limit of the gradient goes with a last drift of the energy as it is. */
static vgs_sampler *make(const golden_td_case *q, double grad_max, vgs_backend *backend)
{
    vgs_error err = { VGS_OK, "" };
    vgs_config c;
    vgs_sampler *s;
    float p[P];
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find("four-gauss"));
    c.net.kind = VGS_NET_TEMB;
    c.net.hidden = GOLDEN_TD_H;
    c.net.time_dim = GOLDEN_TD_M;
    c.steps = T;
    c.batch = B;
    OK(vgs_field_set(&c, "schedule", q->schedule, NULL) == VGS_OK &&
       vgs_field_set(&c, "loss", q->loss, NULL) == VGS_OK);
    c.alpha = q->vp ? VGS_VP : VGS_VE;
    c.scale_by_dim = q->scale_by_dim != 0;
    c.s2_start = (float)q->s2_start;
    c.s2_end = (float)q->s2_end;
    c.tau = (float)q->tau;
    c.explore = (float)q->explore;
    c.grad_max = grad_max > 0 ? (float)grad_max : 1e30f;
    c.energy_max = (float)q->energy_max;
    c.drift_max = 1e30f;
    c.published = true;
    c.value_lr = 1e-3f;
    c.sigma_lr = 1e-2f;
    c.backend = backend;
    s = vgs_sampler_create(&c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) return NULL;
    OK(vgs_model_size(s->online) == P);
    t_params(GOLDEN_SEED_ONLINE, golden_td_scale, P, p);
    OK(vgs_model_write(s->online, p, NULL) == VGS_OK);
    t_params(GOLDEN_SEED_TARGET, golden_td_scale, P, p);
    OK(vgs_model_write(s->target, p, NULL) == VGS_OK);
    return s;
}

/* All B rows at every t, in place of a rollout. */
static void fill_trajectories(vgs_sampler *s, const float *x, const float *mu)
{
    float musq[B];
    int t, i;
    for (i = 0; mu && i < B; ++i) musq[i] = mu[2 * i] * mu[2 * i] + mu[2 * i + 1] * mu[2 * i + 1];
    for (t = 0; t < T; ++t) {
        size_t at_row = (size_t)(t * B);
        s->b->upload(s->b->self, s->traj_x, at_row * D, x, B * D, VGS_F32, NULL);
        if (mu) s->b->upload(s->b->self, s->traj_mu, at_row * D, mu, B * D, VGS_F32, NULL);
        if (mu) s->b->upload(s->b->self, s->traj_mu2, at_row, musq, B, VGS_F32, NULL);
    }
}

static void get(vgs_sampler *s, vgs_buffer *b, size_t offset, float *x, size_t n)
{
    OK(s->b->download(s->b->self, x, b, offset, n, VGS_F32, NULL) == VGS_OK);
}

/* y_t of the golden transitions; the costs alone, as the difference that tau |mu|^2 / (2 s2 a^2) - D log a
   makes */
static void targets(vgs_sampler *s, const golden_td_case *q)
{
    vgs_error err = { VGS_OK, "" };
    float y[T * B], rows[B], zero[2 * B] = { 0 };
    double want[B];
    int i;
    look.eps = &golden_td_eps[0][0];
    fill_trajectories(s, &golden_td_x[0][0], &golden_td_mu[0][0]);
    CHECK(vgs__train_targets(s, 0, &err) == VGS_OK, "%s", err.msg);
    get(s, s->traj_y, 0, y, T * B);
    for (i = 0; i < B; ++i) rows[i] = y[golden_td_t[i] * B + i] * D;
    t_near_all("y", rows, q->y, B, 2e-6, 0);
    fill_trajectories(s, &golden_td_x[0][0], &golden_td_mu[0][0]);   /* again with |mu|^2 of nothing   */
    for (i = 0; i < T; ++i) s->b->upload(s->b->self, s->traj_mu2, (size_t)(i * B), zero, B, VGS_F32, NULL);
    OK(vgs__train_targets(s, 0, NULL) == VGS_OK);
    for (i = 0; i < B; ++i) {
        int t = golden_td_t[i];
        float without;
        get(s, s->traj_y, (size_t)(t * B + i), &without, 1);
        rows[i] = (y[t * B + i] - without) * D;
        want[i] = q->cost[i] + q->tau * D * log(q->a[t]);
    }
    t_near_all("cost", rows, want, B, 1e-5, 3e-6);
    fill_trajectories(s, &golden_td_x[0][0], &golden_td_mu[0][0]);
    OK(vgs__train_targets(s, 0, NULL) == VGS_OK);
}

/* Four Adam steps on the golden minibatch: losses, norms, gradient, weights after one and three. */
static void fits(vgs_sampler *s, const golden_td_case *q)
{
    vgs_error err = { VGS_OK, "" };
    float losses[T], norm;
    double sum = 0;
    int rows[B], i;
    for (i = 0; i < B; ++i) rows[i] = golden_td_t[i] * B + i;
    look.minibatch = rows;
    look.adams = 0;
    CHECK(vgs__fit_run(s, &s->stage->fit, &s->stage->fd, 0, &err) == VGS_OK, "%s", err.msg);
    look.minibatch = NULL;
    OK(look.adams == T);
    get(s, s->loss_log, 0, losses, T);
    t_near_all("losses", losses, q->losses, 3, 2e-6, 0);
    t_near_all("gradient", look.grad, q->grad, P, 5e-6, 0);
    for (i = 0; i < P; ++i) sum += (double)look.grad[i] * (double)look.grad[i];
    CHECK_NEAR(sqrt(sum), q->norms[0], 1e-5, 0);
    for (i = 0; q->grad_max > 0 && i < 3; ++i) {
        norm = sqrtf(look.norm2[i]);
        CHECK_NEAR(norm, q->norms[i], 1e-5, 0);
    }
    t_near_all("weights after 1 step", look.after[0], q->step1, P, 0, 2e-6);
    t_near_all("weights after 3 steps", look.after[2], q->step3, P, 0, 4e-6);
}

/* mu [B,D] and x_{t+1} [B,D] of the golden rollout rows, each at its step; |mu|^2 beside it. */
static void roll_rows(vgs_sampler *s, float *rows_mu, float *rows_next)
{
    vgs_error err = { VGS_OK, "" };
    vgs__roll r = vgs__train_roll(s);
    float mu[B * D], next[B * D], mu2[B];
    int t, i;
    look.eps = &golden_ro_eps[0][0];
    for (t = 0; t < T; ++t) {
        fill_trajectories(s, &golden_ro_x[0][0], NULL);
        CHECK(vgs__roll_step(s, &r, t, &err) == VGS_OK, "%s", err.msg);
        get(s, s->traj_mu, (size_t)(t * B * D), mu, B * D);
        get(s, s->traj_x, (size_t)((t + 1) * B * D), next, B * D);
        get(s, s->traj_mu2, (size_t)(t * B), mu2, B);
        for (i = 0; i < B; ++i) {
            if (golden_ro_t[i] != t) continue;
            memcpy(rows_mu + D * i, mu + D * i, D * sizeof *mu);
            memcpy(rows_next + D * i, next + D * i, D * sizeof *next);
            CHECK_NEAR(mu2[i], mu[2 * i] * mu[2 * i] + mu[2 * i + 1] * mu[2 * i + 1], 1e-6, 1e-12);
        }
    }
}

/* With the energy cut, row 4 has no drift; without, and with a limit of the gradient, it has that of E. */
static void rollouts(const golden_td_case *q, vgs_backend *backend)
{
    float mu[B * D], next[B * D];
    vgs_sampler *s = make(q, 0, backend);
    if (!s) return;
    roll_rows(s, mu, next);
    t_near_all("mu", mu, q->mu, B * D, 3e-6, 0);
    t_near_all("next", next, q->next, B * D, 2e-6, 0);
    if (q->energy_max > 0) OK(mu[8] == 0 && mu[9] == 0);
    vgs_sampler_free(s);
    s = make(q, q->grad_max > 0 ? q->grad_max : 1, backend);
    if (!s) return;
    roll_rows(s, mu, next);
    t_near_all("mu_raw", mu, q->mu_raw, B * D, 3e-6, 0);
    vgs_sampler_free(s);
}

static void sigmas(vgs_sampler *s, const golden_td_case *q)
{
    vgs_error err = { VGS_OK, "" };
    float s0, grad;
    int k;
    look.eps = &golden_s0_eps[0][0];
    get(s, s->sigma, 0, &s0, 1);
    CHECK_NEAR(s0, q->s0_start, 1e-6, 0);
    for (k = 0; k < 3; ++k) {
        CHECK(vgs__sigma_run(s, &s->stage->sigma_fit, &err) == VGS_OK, "%s", err.msg);
        get(s, s->sigma, 16, &grad, 1);
        get(s, s->sigma, 0, &s0, 1);
        if (!k) CHECK_NEAR(grad, q->s0_grad, 5e-6, 0);
        CHECK_NEAR(s0, q->s0_step[k], 2e-6, 0);
    }
}

/* The rollout multiplies noise by explore, the target never does; x' starts from a_t x in both. */
static void noise_factors(vgs_sampler *s, const golden_td_case *q)
{
    vgs_error err = { VGS_OK, "" };
    int t;
    look.eps = NULL;
    memset(look.noise_factor, 0, sizeof look.noise_factor);
    CHECK(vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);
    for (t = 0; t < T; ++t) {
        double sigma = sqrt(q->s2[t]) * q->a[t];
        CHECK_NEAR(look.noise_factor[VGS__FOR_STEP][t], sigma * q->explore, 1e-6, 0);
        CHECK_NEAR(look.noise_factor[VGS__FOR_TARGET][t], sigma, 1e-6, 0);
        CHECK_NEAR(look.drift_factor[VGS__FOR_STEP][t], q->a[t], 1e-6, 0);
        CHECK_NEAR(look.drift_factor[VGS__FOR_TARGET][t], q->a[t], 1e-6, 0);
    }
}

static void training(void)
{
    vgs_backend backend;
    int k;
    look.cpu = vgs_cpu_create(NULL, NULL);
    backend = *look.cpu;
    backend.run = look_run;
    backend.run_list = NULL;                     /* every op through look_run                         */
    backend.reserve = NULL;
    for (k = 0; k < GOLDEN_TD_CASES; ++k) {
        const golden_td_case *q = &golden_td[k];
        vgs_sampler *s;
        T_IN("%s", q->name);
        s = make(q, q->grad_max, &backend);
        if (!s) continue;
        t_near_all("s2", s->s2, q->s2, T, 2e-7, 0);
        t_near_all("a", s->a, q->a, T, 2e-7, 0);
        targets(s, q);
        fits(s, q);
        sigmas(s, q);
        noise_factors(s, q);
        vgs_sampler_free(s);
        rollouts(q, &backend);
    }
    vgs_cpu_free(look.cpu);
}

/* target <- ema target + (1 - ema) online, after the passes; rate halves every lr_half iterations. */
static void target_network(void)
{
    vgs_config c;
    vgs_sampler *s;
    float after[P], before[P], online[P];
    int i;
    T_IN("ema");
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find("four-gauss"));
    c.net.kind = VGS_NET_TEMB;
    c.net.hidden = GOLDEN_TD_H;
    c.net.time_dim = GOLDEN_TD_M;
    c.steps = T;
    c.batch = B;
    c.target_ema = 0.75f;
    s = vgs_sampler_create(&c, NULL);
    OK(vgs_model_read(s->target, before, NULL) == VGS_OK);
    OK(vgs_sampler_train(s, 1, NULL, NULL) == VGS_OK);
    OK(vgs_model_read(s->target, after, NULL) == VGS_OK && vgs_model_read(s->online, online, NULL) == VGS_OK);
    for (i = 0; i < P; ++i)
        if (!CHECK_NEAR(after[i], 0.75 * (double)before[i] + 0.25 * (double)online[i], 1e-6, 1e-8)) break;
    OK(memcmp(online, before, sizeof online) != 0);
    vgs_sampler_free(s);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(schedules);
    RUN(energy);
    RUN(training);
    RUN(target_network);
    return t_end();
}
