/* cc -O2 tests/sampler.c -o sampler -lm && ./sampler
   What sampling and training do: values of a Gaussian against the closed recursion, noise, subspaces, limits,
   failures, settings. Statistical checks allow 6 sigma: less than one false alarm in 1e8 of them. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include <stdlib.h>

/* ---- energies with switches ------------------------------------------------------------------------ */

typedef struct bowl {                            /* E = k |x|^2 / 2                                   */
    float k;
    int calls, fail_at, nan_at, row;             /* 1-based number of the call that misbehaves; 0: none */
    float bad;                                   /* what E and its gradient become there              */
    bool grad_bad;
} bowl;

static int bowl_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    bowl *b = (bowl *)user;
    int i, j;
    ++b->calls;
    for (i = 0; i < n; ++i) {
        const float *p = x + i * dim;
        e[i] = 0;
        for (j = 0; j < dim; ++j) e[i] += 0.5f * b->k * p[j] * p[j];
        for (j = 0; g && j < dim; ++j) g[i * dim + j] = b->k * p[j];
        if (b->calls == b->nan_at && i == b->row) {
            if (!b->grad_bad) e[i] = b->bad;
            for (j = 0; g && j < dim; ++j) g[i * dim + j] = b->bad;
        }
    }
    return b->calls == b->fail_at;
}

static vgs_config small(bowl *b)
{
    vgs_config c;
    memset(b, 0, sizeof *b);
    b->k = 1;
    memset(&c, 0, sizeof c);
    c.energy.eval = bowl_energy;
    c.energy.user = b;
    c.energy.dim = 2;
    c.steps = 5;
    c.s2_start = 0.3f;
    c.s2_end = 0.1f;
    c.batch = 64;
    c.drift_max = 1e30f;
    c.published = c.fixed_kernel = c.explicit_drift = true;
    c.net.hidden = 16;
    c.net.time_dim = 8;
    c.seed = 1;
    return c;
}

static vgs_sampler *create(const vgs_config *c)
{
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) exit(t_end());
    return s;
}

static void train(vgs_sampler *s, int n, vgs_stats *stats)
{
    vgs_error err = { VGS_OK, "" };
    CHECK(vgs_sampler_train(s, n, stats, &err) == VGS_OK, "%s", err.msg);
}

static void draw(vgs_sampler *s, const vgs_draw *d, int n, float *x)
{
    vgs_error err = { VGS_OK, "" };
    CHECK(vgs_sampler_draw(s, d, n, x, &err) == VGS_OK, "%s", err.msg);
}

/* Target weights, online weights, s0 with its moments, and the moments of the weights. */
static float *weights(const vgs_sampler *s, size_t *n)
{
    size_t p = (size_t)vgs_model_size(s->online);
    float *w = (float *)malloc((4 * p + 64) * sizeof *w);
    s->b->download(s->b->self, w, s->target->w, 0, p, VGS_F32, NULL);
    s->b->download(s->b->self, w + p, s->online->w, 0, p, VGS_F32, NULL);
    s->b->download(s->b->self, w + 2 * p, s->sigma, 0, 64, VGS_F32, NULL);
    w[2 * p + 16] = 0;                           /* its gradient, which is no state                   */
    s->b->download(s->b->self, w + 2 * p + 64, s->online->adam_m, 0, p, VGS_F32, NULL);
    s->b->download(s->b->self, w + 3 * p + 64, s->online->adam_v, 0, p, VGS_F32, NULL);
    *n = 4 * p + 64;
    return w;
}

/* |mean| and variance of n independent normal numbers of that variance, within 6 sigma */
static void check_normal(const char *what, const float *x, int n, int stride, double mean, double var)
{
    double m = 0, v = 0;
    int i;
    for (i = 0; i < n; ++i) m += (double)x[i * stride] / n;
    for (i = 0; i < n; ++i) v += ((double)x[i * stride] - m) * ((double)x[i * stride] - m) / (n - 1);
    CHECK(fabs(m - mean) < 6 * sqrt(var / n), "%s: mean %g, want %g", what, m, mean);
    CHECK(fabs(v / var - 1) < 6 * sqrt(2.0 / n), "%s: variance %g, want %g", what, v, var);
}

static double square_norm(const float *x, int d)
{
    double s = 0;
    int j;
    for (j = 0; j < d; ++j) s += (double)x[j] * (double)x[j];
    return s;
}

/* ---- V_t of a Gaussian ------------------------------------------------------------------------------ */

/* k_t = a^2 [k (1 - A k)^2 + A k^2]: what TD learns for E = k |x|^2/2 (not V*: the policy takes gradient
   steps). With the drift from V_t itself it learns V*, k_t = k/(1 + A k), but in the last step, whose drift
   is that of E. The curvature of the network's V_t where the samples are, from the mean of x.grad V / mean of
   |x|^2. */
static double learned_curvature(vgs_sampler *s, int t, const float *x, int n)
{
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var in = vgs_input(g, 2), idx = vgs_index(g), v, gx;
    float *grad = (float *)malloc((size_t)n * 2 * sizeof *grad);
    int32_t *ts = (int32_t *)malloc((size_t)n * sizeof *ts);
    double xg = 0, xx = 0;
    int i;
    v = vgs__value(s, g, s->online, in, idx, NULL);
    vgs_gradient(g, v, &in, 1, &gx);
    vgs_output(g, gx);
    for (i = 0; i < n; ++i) ts[i] = t;
    OK(!vgs_graph_compile(g, s->b, n, NULL) && !vgs_set(g, in, x, n, NULL) &&
       !vgs_set(g, idx, ts, n, NULL) && !vgs_graph_run(g, n, NULL) && !vgs_get(g, gx, grad, n, NULL));
    for (i = 0; i < 2 * n; ++i) { xg += (double)x[i] * (double)grad[i]; xx += (double)x[i] * (double)x[i]; }
    free(grad);
    free(ts);
    vgs_graph_free(g);
    return xg / xx;
}

/* V_t of n rows of this network, as the sampler's graphs have it */
static void value_of(vgs_sampler *s, vgs_model *m, int t, const float *x, int n, float *v)
{
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var in = vgs_input(g, s->c.energy.dim), idx = vgs_index(g), out;
    int32_t *ts = (int32_t *)malloc((size_t)n * sizeof *ts);
    int i;
    out = vgs__value(s, g, m, in, idx, NULL);
    vgs_output(g, out);
    for (i = 0; i < n; ++i) ts[i] = t;
    OK(!vgs_graph_compile(g, s->b, n, NULL) && !vgs_set(g, in, x, n, NULL) &&
       !vgs_set(g, idx, ts, n, NULL) && !vgs_graph_run(g, n, NULL) && !vgs_get(g, out, v, n, NULL));
    free(ts);
    vgs_graph_free(g);
}

/* ---- a recorded energy with parameters of its own ---------------------------------------------------- */

typedef struct recorded {                        /* E = k |x|^2 / 2, k in buf or nowhere               */
    vgs_buffer *buf;
    vgs_status set;                              /* of a vgs_set while recording                       */
    vgs_error err;
} recorded;

static vgs_var recorded_bowl(void *user, vgs_graph *g, vgs_var x)
{
    recorded *r = (recorded *)user;
    vgs_var k = vgs_params(g, 1);
    const float two = 2;
    if (r->buf) vgs_bind(g, k, r->buf, 0, NULL);
    else r->set = vgs_set(g, k, &two, 1, &r->err);
    return vgs_affine(g, vgs_mul(g, vgs_sum_cols(g, vgs_square(g, x)), vgs_view(g, k, 0, 1, 1, 1)), 0.5f, 0);
}

/* Parameters that the record function does not bind are an error, not zeros. */
static void parameters_in_record(void)
{
    bowl b;
    vgs_config c = small(&b);
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    recorded r = { NULL, VGS_OK, { VGS_OK, "" } };
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    const float two = 2;
    float x[4], e[2];
    vgs_draw d;
    memset(&d, 0, sizeof d);
    d.energy = e;
    c.backend = cpu;
    c.energy.eval = NULL;
    c.energy.record = recorded_bowl;
    c.energy.user = &r;
    s = create(&c);
    CHECK(r.set == VGS_E_ARG && strstr(r.err.msg, "params [1,1]") && strstr(r.err.msg, "compile"), "%s",
          r.err.msg);
    CHECK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_ARG && strstr(err.msg, "params [1,1]") &&
          strstr(err.msg, "vgs_bind"), "%s", err.msg);
    vgs_sampler_free(s);
    r.buf = cpu->buffer_create(cpu->self, 1, NULL);
    cpu->upload(cpu->self, r.buf, 0, &two, 1, VGS_F32, NULL);
    s = create(&c);
    train(s, 1, NULL);
    draw(s, &d, 2, x);
    CHECK_NEAR(e[1], square_norm(x + 2, 2), 1e-6, 0);
    vgs_sampler_free(s);
    cpu->buffer_free(cpu->self, r.buf);
    vgs_cpu_free(cpu);
}

static void gaussian_value(void)
{
    enum { N = 1024, T = 5 };
    static float path[T + 1][N][2], x[N][2];
    int kind;
    for (kind = 0; kind < 3; ++kind) {           /* as published, its kernel alone, drift from V_t    */
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        vgs_draw d;
        vgs_stats stats;
        double k[T + 1], slope[T], cost = 0, var, elbo, got = 0;
        int t, i;
        b.k = 2;
        c.published = kind == 0;
        c.explicit_drift = kind < 2;
        if (kind) c.lambda = 1e-6f, c.target_ema = 1e-30f;           /* targets of one step, too       */
        c.batch = 128;
        c.passes = 2;
        c.value_lr = 1e-2f;
        c.lr_half = 25;
        c.loss = VGS_L2;
        c.sigma_lr = 1e-2f;
        c.net.hidden = 24;
        s = create(&c);
        train(s, 160, &stats);
        memset(&d, 0, sizeof d);
        d.path = &path[0][0][0];
        draw(s, &d, N, &x[0][0]);
        T_IN("gaussian, kind %d", kind);
        for (k[T] = 2, t = T - 1; t >= 0; --t) {
            double A = (double)s->s2[t];
            slope[t] = k[t + 1] / (kind == 2 && t < T - 1 ? 1 + A * k[t + 1] : 1);
            k[t] = k[t + 1] * (1 - A * slope[t]) * (1 - A * slope[t]) + A * slope[t] * slope[t];
            cost += 2 * k[t + 1] * A / 2;                            /* c_t = c_{t+1} + D k A/2, a = 1 */
            CHECK_NEAR(learned_curvature(s, t, &path[t][0][0], N), k[t], 0.06, 0);
        }
        for (var = stats.init_sigma * stats.init_sigma, t = 0; t < T; ++t)
            var = var * pow(1 - (double)s->s2[t] * slope[t], 2) + (double)s->s2[t];
        for (i = 0; i < N; ++i)
            got += ((double)x[i][0] * (double)x[i][0] + (double)x[i][1] * (double)x[i][1]) / (2 * N);
        CHECK_NEAR(got, var, 0.05 + 6 / sqrt(N), 0);
        var = stats.init_sigma * stats.init_sigma;
        elbo = -(k[0] * var + cost) + 1 + log(6.283185307179586 * var);
        CHECK_NEAR(stats.elbo, elbo, 0, 0.05 + 6 * 1.0 / sqrt(128)); /* deviation of a row: 1 at most */
        CHECK(elbo < log(6.283185307179586 / 2), "the bound %g is above log Z", elbo);
        CHECK(stats.iteration == 160 && stats.energy_calls == 160.0 * (kind ? 2 : 3) * 128,
              "%g energy calls", stats.energy_calls);
        OK(stats.nonfinite == 0 && stats.energy_min <= stats.energy_median &&
           stats.energy_median <= stats.energy_max);
        vgs_sampler_free(s);
    }
}

/* ---- noise ------------------------------------------------------------------------------------------ */

static vgs_draw plain(void)
{
    vgs_draw d;
    memset(&d, 0, sizeof d);
    return d;
}

/* x_0 has deviation c s0; path and cost belong together; the last step's mean is known for a bowl. */
static void draws(void)
{
    enum { N = 2000, T = 5 };
    static float path[T + 1][N][2], x[N][2], y[N][2], part[N][2], eps[N];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    vgs_draw d = plain();
    float s0;
    int i, j, t;
    c.init_sigma = 1.7f;
    s = create(&c);
    d.path = &path[0][0][0];
    d.noise_scale = 1.5f;
    draw(s, &d, N, &x[0][0]);
    check_normal("x_0", &path[0][0][0], N, 2, 0, 1.7 * 1.7 * 2.25);
    check_normal("x_0", &path[0][0][1], N, 2, 0, 1.7 * 1.7 * 2.25);
    OK(!memcmp(x, path[T], sizeof x));
    for (i = 0; i < N; ++i) eps[i] = path[T][i][0] - path[T - 1][i][0] * (1 - s->s2[T - 1] * b.k);
    check_normal("last noise", eps, N, 1, 0, 2.25 * (double)s->s2[T - 1]);
    d.skip_final_noise = true;
    draw(s, &d, N, &y[0][0]);
    for (i = 0; i < N; ++i)
        for (j = 0; j < 2; ++j)
            if (!CHECK_NEAR(y[i][j], (double)path[T - 1][i][j] * (1 - (double)s->s2[T - 1]), 1e-5, 1e-6))
                i = N - 1;
    OK(memcmp(path[T - 1], x, sizeof x) != 0);
    d = plain();                                 /* noise 0 is 1; colder draws spread less            */
    draw(s, &d, N, &x[0][0]);
    d.noise_scale = 1;
    draw(s, &d, N, &y[0][0]);
    OK(!memcmp(x, y, sizeof x));
    d.seed = c.seed;
    draw(s, &d, N, &y[0][0]);
    OK(!memcmp(x, y, sizeof x));
    d.seed = 99;
    draw(s, &d, N, &y[0][0]);
    OK(memcmp(x, y, sizeof x) != 0);
    d = plain();                                 /* rows are what they are, however the draw is split */
    draw(s, &d, 700, &part[0][0]);
    d.first_row = 700;
    draw(s, &d, 1, &part[700][0]);
    d.first_row = 701;
    draw(s, &d, N - 701, &part[701][0]);
    OK(!memcmp(x, part, sizeof x));
    draw(s, NULL, 128, &part[0][0]);
    OK(!memcmp(x, part, 128 * sizeof *x));
    draw(s, NULL, 0, NULL);
    s->b->download(s->b->self, &s0, s->sigma, 0, 1, VGS_F32, NULL);
    OK(s0 == 1.7f);
    for (t = 0; t < 2; ++t) {                    /* arguments that make no sense                      */
        vgs_error err = { VGS_OK, "" };
        d = plain();
        d.noise_scale = t ? (float)NAN : -1.0f;
        OK(vgs_sampler_draw(s, &d, 3, &x[0][0], &err) == VGS_E_ARG && strstr(err.msg, "noise_scale"));
        OK(vgs_sampler_draw(s, NULL, -1, &x[0][0], &err) == VGS_E_ARG && strstr(err.msg, "n = -1"));
        OK(vgs_sampler_train(s, -1, NULL, &err) == VGS_E_ARG && strstr(err.msg, "n = -1"));
    }
    vgs_sampler_free(s);
}

/* explore scales every noise of a rollout; the trajectories show it. */
static void explore(void)
{
    enum { B = 2000 };
    static float traj[6 * B * 2], last[B];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    int i;
    c.batch = B;
    c.explore = 1.3f;
    c.init_sigma = 2;
    s = create(&c);
    OK(vgs__train_rollout(s, false, NULL) == VGS_OK);
    s->b->download(s->b->self, traj, s->traj_x, 0, 6 * B * 2, VGS_F32, NULL);
    check_normal("x_0", traj, B, 2, 0, 4 * 1.69);
    for (i = 0; i < B; ++i) last[i] = traj[(5 * B + i) * 2] - traj[(4 * B + i) * 2] * (1 - s->s2[4]);
    check_normal("last noise", last, B, 1, 0, 1.69 * (double)s->s2[4]);
    vgs_sampler_free(s);
}

/* Where targets are returns it scales those of the first part of a trajectory, as long as the iteration
   says. */
static void explored_part(void)
{
    enum { B = 2000, T = 5 };
    static float x[(T + 1) * B][2], mu[T * B][2], eps[B];
    int iteration, parts = 0, t, i;
    for (iteration = 0; iteration < 12; ++iteration) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        int n;
        c.batch = B;
        c.explore = 1.3f;
        c.published = false;
        s = create(&c);
        s->iteration = iteration;
        n = vgs__replay_detour(s).steps;
        parts |= 1 << n;
        OK(n < T && !vgs__train_rollout(s, false, NULL));
        s->b->download(s->b->self, x, s->traj_x, 0, (T + 1) * B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, mu, s->traj_mu, 0, T * B * 2, VGS_F32, NULL);
        for (t = 0; t < T; ++t) {
            T_IN("iteration %d, t %d", iteration, t);
            for (i = 0; i < B; ++i) eps[i] = x[(t + 1) * B + i][0] - x[t * B + i][0] + mu[t * B + i][0];
            check_normal("noise", eps, B, 1, 0, (double)s->s2[t] * (t < n ? 1.69 : 1));
        }
        vgs_sampler_free(s);
    }
    CHECK(parts == 15, "parts of length 0..3: %x", (unsigned)parts);
}

/* What is kept of an iteration: x_T and, but for a constant, the log w that a draw would report. */
static void kept_weights(void)
{
    enum { B = 64, T = 5 };
    static float x[(T + 1) * B][2], mu[T * B][2], kept[2 * B][2], w[2 * B], f[4 * T];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    float s0;
    int t, i, j, slot = 1;
    c.published = c.fixed_kernel = c.explicit_drift = false;
    c.replay = 2;
    c.sigma_lr = 0.05f;
    c.tau = 1.5f;
    c.energy_max = 0.2f;                         /* log w takes the true energy                       */
    s = create(&c);
    train(s, 14, NULL);                          /* iterations 10 and 13 were the last of its own     */
    s->b->download(s->b->self, x, s->traj_x, 0, (T + 1) * B * 2, VGS_F32, NULL);
    s->iteration = 15;
    OK(!vgs__replay_detour(s).steps && !vgs__train_rollout(s, false, NULL) &&
       !vgs__train_targets(s, 0, NULL));
    slot = (int)(s->kept % 2);
    OK(s->kept >= 2 && !vgs__train_keep(s, NULL));
    s->b->download(s->b->self, x, s->traj_x, 0, (T + 1) * B * 2, VGS_F32, NULL);
    s->b->download(s->b->self, mu, s->traj_mu, 0, T * B * 2, VGS_F32, NULL);
    s->b->download(s->b->self, kept, s->replay_x, 0, 2 * B * 2, VGS_F32, NULL);
    s->b->download(s->b->self, w, s->replay_weight, 0, 2 * B, VGS_F32, NULL);
    s->b->download(s->b->self, f, s->factor, 0, 4 * T, VGS_F32, NULL);
    s->b->download(s->b->self, &s0, s->sigma, 0, 1, VGS_F32, NULL);
    for (i = 0; i < B; ++i) {
        double want = square_norm(x[i], 2) / (2 * (double)s0 * (double)s0) + 2 * log((double)s0);
        for (t = 0; t < T; ++t)
            for (j = 0; j < 2; ++j) {
                double sigma = sqrt((double)s->s2[t]), root = (double)f[4 * t + 2 + j];
                double u = ((double)x[(t + 1) * B + i][j] - (double)x[t * B + i][j]) / sigma;
                want -= (u * u - pow((u + (double)mu[t * B + i][j] / sigma) / root, 2)) / 2 - log(root);
            }
        want -= square_norm(x[T * B + i], 2) / 2 / (double)c.tau;
        OK(!memcmp(kept[slot * B + i], x[T * B + i], sizeof kept[0]));
        if (!CHECK_NEAR(w[slot * B + i], want, 3e-4, 3e-4)) break;
    }
    vgs_sampler_free(s);
}

/* From one kept sample p: x_t has mean p / prod a and the variance of the noising chain, and the drift told
   there is that of a step at x_t. */
static void noised_back(void)
{
    enum { B = 2000, T = 5 };
    static float x[(T + 1) * B][2], w[2 * B], p[2 * B][2], mu[2][B][2];
    int vp, t, i;
    for (vp = 0; vp < 2; ++vp) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        vgs__step_stage *step;
        double a = 1, var = 0;
        int n;
        c.batch = B;
        c.replay = 2;
        c.published = c.explicit_drift = false;
        c.alpha = vp ? VGS_VP : VGS_VE;
        s = create(&c);
        train(s, 2, NULL);
        for (i = 0; i < 2 * B; ++i) p[i][0] = 1.5f, p[i][1] = i == 77 ? -0.5f : 9, w[i] = i == 77 ? 3 : -300;
        s->b->upload(s->b->self, s->replay_x, 0, p, 4 * B, VGS_F32, NULL);
        s->b->upload(s->b->self, s->replay_weight, 0, w, 2 * B, VGS_F32, NULL);
        s->iteration = 11;
        n = vgs__replay_detour(s).steps;
        OK(n == 2 && vgs__replay_detour(s).recalled && !vgs__train_rollout(s, false, NULL));
        s->b->download(s->b->self, x, s->traj_x, 0, (T + 1) * B * 2, VGS_F32, NULL);
        for (t = T - 1; t >= 0; --t) {
            T_IN("vp %d, t %d", vp, t);
            a *= (double)s->a[t];
            var = var / ((double)s->a[t] * (double)s->a[t]) + (double)s->s2[t];
            if (t > n) continue;
            check_normal("x", &x[t * B][0], B, 2, 1.5 / a, var);
            check_normal("y", &x[t * B][1], B, 2, -0.5 / a, var);
        }
        s->b->download(s->b->self, mu[0], s->traj_mu, B * 2, B * 2, VGS_F32, NULL);
        step = &s->stage->step;
        vgs_bind(step->g, step->x, s->traj_x, B * 2, NULL);
        vgs_bind(step->g, step->mu, s->draw_mu, 0, NULL);
        vgs_bind(step->g, step->next, s->draw_x, 0, NULL);
        vgs__kernel_set_step(s, &step->k, 1, 1, 0);
        OK(!vgs_graph_run(step->g, B, NULL));
        s->b->download(s->b->self, mu[1], s->draw_mu, 0, B * 2, VGS_F32, NULL);
        OK(!memcmp(mu[0], mu[1], sizeof mu[0]));
        vgs_sampler_free(s);
    }
}

/* What grad V_t should be, along the path: its recursion in double. */
static void slope_targets(void)
{
    enum { B = 64, T = 5 };
    static float x[(T + 1) * B][2], mu[T * B][2], y[T * B][2], f[4 * T];
    int vp, t, i, j;
    for (vp = 0; vp < 2; ++vp) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        T_IN("vp %d", vp);
        c.published = c.fixed_kernel = c.explicit_drift = false;
        c.alpha = vp ? VGS_VP : VGS_VE;
        c.slope_loss = 1;
        c.tau = 1.5f;
        c.energy_max = 0.6f;
        s = create(&c);
        train(s, 9, NULL);
        OK(!vgs__train_rollout(s, false, NULL) && !vgs__train_targets(s, 0, NULL));
        s->b->download(s->b->self, x, s->traj_x, 0, (T + 1) * B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, mu, s->traj_mu, 0, T * B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, y, s->traj_grad, 0, T * B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, f, s->factor, 0, 4 * T, VGS_F32, NULL);
        for (i = 0; i < B; ++i)
            for (j = 0; j < 2; ++j) {
                double want = square_norm(x[T * B + i], 2) / 2 > 0.6 ? 0 : (double)x[T * B + i][j];
                for (t = T - 1; t >= 0; --t) {
                    double a = (double)s->a[t], now, lambda = t < T - 2 ? 0.9 : 1;
                    if (t < T - 1) {             /* the drift of t + 1 tells grad Vbar                */
                        now = (double)mu[(t + 1) * B + i][j] / (double)f[4 * (t + 1) + j] * 1.5 /
                              ((double)s->s2[t + 1] * (double)s->a[t + 1]);
                        want = (1 - lambda) * now + lambda * want;
                    }
                    want *= a;
                    if (!CHECK_NEAR(y[t * B + i][j], want, 1e-4, 1e-5)) { vgs_sampler_free(s); return; }
                }
            }
        vgs_sampler_free(s);
    }
}

/* The loss of a minibatch at weights w, which stay in the network: smooth L1 of V/D and the limited square of
   its gradient's error, from V and grad V of a graph. x [n,2], t, y and slope as the sampler has them. */
typedef struct minibatch { float x[64][2], y[64], slope[64][2]; int32_t t[64]; } minibatch;

static double minibatch_loss(vgs_sampler *s, const minibatch *m, const float *w)
{
    static float v[64], dv[64][2];
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var x = vgs_input(g, 2), t = vgs_index(g), value, slope;
    double sum = 0;
    int i, k;
    value = vgs__value(s, g, s->online, x, t, NULL);
    vgs_gradient(g, value, &x, 1, &slope);
    vgs_output(g, value);
    vgs_output(g, slope);
    OK(!vgs_graph_compile(g, s->b, 64, NULL) && !vgs_model_write(s->online, w, NULL) &&
       !vgs_set(g, x, m->x, 64, NULL) && !vgs_set(g, t, m->t, 64, NULL) && !vgs_graph_run(g, 64, NULL) &&
       !vgs_get(g, value, v, 64, NULL) && !vgs_get(g, slope, dv, 64, NULL));
    for (i = 0; i < 64; ++i) {
        double e = fabs((double)v[i] / 2 - (double)m->y[i]), n = 0, limit = 3 / sqrt(2.0), r;
        for (k = s->c.steps - 1; k >= m->t[i]; --k) n += (double)s->s2[k];
        r = sqrt(n) / 2 *
            hypot((double)dv[i][0] - (double)m->slope[i][0], (double)dv[i][1] - (double)m->slope[i][1]);
        sum += e < 1 ? e * e / 2 : e - 0.5;
        sum += (double)s->c.slope_loss * (r < limit ? r * r / 2 : limit * (r - limit / 2));
    }
    vgs_graph_free(g);
    return sum / 64;
}

/* Where the k-th minibatch was split: its rows, found again among the transitions of all steps. */
static void find_minibatch(vgs_sampler *s, minibatch *m)
{
    static float x[5 * 64][2], y[5 * 64], slope[5 * 64][2], pair[64][4];
    int i, k, found = 0;
    s->b->download(s->b->self, x, s->traj_x, 0, 640, VGS_F32, NULL);
    s->b->download(s->b->self, y, s->traj_y, 0, 320, VGS_F32, NULL);
    s->b->download(s->b->self, slope, s->traj_grad, 0, 640, VGS_F32, NULL);
    s->b->download(s->b->self, pair, s->fd_x, 0, 256, VGS_F32, NULL);
    for (i = 0; i < 64; ++i)
        for (k = 0; k < 320; ++k) {
            if (hypot((double)pair[i][0] + (double)pair[i][2] - 2 * (double)x[k][0],
                      (double)pair[i][1] + (double)pair[i][3] - 2 * (double)x[k][1]) > 3e-6) continue;
            memcpy(m->x[i], x[k], sizeof x[k]);
            memcpy(m->slope[i], slope[k], sizeof slope[k]);
            m->y[i] = y[k];
            m->t[i] = k / 64;
            ++found;
        }
    CHECK(found == 64, "%d of 64 rows found", found);
}

/* Two values of V make the gradient of a loss of grad V: the fit's gradient against differences of that loss,
   along itself and along another direction. */
static void slope_gradient(void)
{
    static float now[4000], w[2][4000], grad[4000];
    static minibatch m;
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    vgs__fd_stage *fd;
    vgs__fit_stage *fit;
    double h = 2e-3, norm = 0, along;
    int p, i, k;
    c.published = c.fixed_kernel = c.explicit_drift = false;
    c.slope_loss = 20;
    b.k = 3;
    s = create(&c);
    p = vgs_model_size(s->online);
    OK(p <= 4000);
    train(s, 3, NULL);
    OK(!vgs__train_rollout(s, false, NULL) && !vgs__train_targets(s, 0, NULL));
    s->b->download(s->b->self, grad, s->traj_grad, 0, 640, VGS_F32, NULL);
    for (i = 0; i < 640; ++i) grad[i] += (float)(i % 8) - 2;         /* errors that matter, some limited  */
    s->b->upload(s->b->self, s->traj_grad, 0, grad, 640, VGS_F32, NULL);
    fd = &s->stage->fd;
    vgs_noise_set(fd->g, &fd->noise, c.seed, VGS__FOR_SHUFFLE, 3, 0, 0);
    vgs_scalar_set(fd->g, fd->first, 2 * 64);
    OK(!vgs_graph_run(fd->g, 64, NULL));
    find_minibatch(s, &m);
    fit = &s->stage->fit;
    vgs_bind(fit->g, fit->y, s->traj_y, 0, NULL);
    vgs_noise_set(fit->g, &fit->noise, c.seed, VGS__FOR_SHUFFLE, 3, 0, 0);
    vgs_scalar_set(fit->g, fit->first, 2 * 64);
    vgs_scalar_set(fit->g, fit->lr, 0);
    OK(!vgs_model_read(s->online, now, NULL) && !vgs_graph_run(fit->g, 64, NULL));
    s->b->download(s->b->self, grad, s->online->grad, 0, (size_t)p, VGS_F32, NULL);
    for (i = 0; i < p; ++i) norm += (double)grad[i] * (double)grad[i];
    for (k = 0; k < 2; ++k) {
        T_IN("direction %d", k);
        memcpy(w[0], now, sizeof now);
        memcpy(w[1], now, sizeof now);
        for (i = 0, along = 0; i < p; ++i) {
            double u = k ? (i % 3 ? 1 : -1) / sqrt(p) : (double)grad[i] / sqrt(norm);
            w[0][i] -= (float)(h * u);
            w[1][i] += (float)(h * u);
            along += (double)grad[i] * u;
        }
        along -= (minibatch_loss(s, &m, w[1]) - minibatch_loss(s, &m, w[0])) / (2 * h);
        CHECK_NEAR(along, 0, 0, 2e-3 * sqrt(norm));
    }
    vgs_sampler_free(s);
}

/* MALA, from one point: the target's moments at any tau, the step adapts, and a wall of NaN is not passed. */
static int walled_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j, code = bowl_energy(user, x, n, dim, e, g);
    for (i = 0; i < n; ++i) {
        if (x[i * dim] > 0) continue;
        e[i] = x[i * dim + 1] > 0 ? (float)NAN : (float)INFINITY;
        for (j = 0; g && j < dim; ++j) g[i * dim + j] = (float)NAN;
    }
    return code;
}

static void refined(void)
{
    enum { B = 2000, T = 5 };
    static float x[B][2];
    int walled, i;
    for (walled = 0; walled < 2; ++walled) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        float h[2];
        b.k = 3;
        if (walled) c.energy.eval = walled_energy;
        c.published = false;
        c.batch = B;
        c.replay = 1;
        c.refine = 500;
        c.tau = 1.5f;
        s = create(&c);
        for (i = 0; i < B; ++i) x[i][0] = 2, x[i][1] = -3;
        s->b->upload(s->b->self, s->traj_x, T * B * 2, x, B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, h, s->mala_h, 0, 1, VGS_F32, NULL);
        OK(!vgs__keep_refine(s, &s->stage->mala_begin, &s->stage->mala_step, NULL));
        s->b->download(s->b->self, x, s->mala_x, 0, B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, h + 1, s->mala_h, 0, 1, VGS_F32, NULL);
        T_IN("walled %d", walled);
        CHECK(h[0] == 0.05f && h[1] > 0.2f && h[1] < 5, "MALA's step went from %g to %g", (double)h[0],
              (double)h[1]);
        CHECK(s->energy_calls == 501.0 * B, "%g energy calls", s->energy_calls);
        check_normal("y", &x[0][1], B, 2, 0, 0.5);
        if (walled)
            for (i = 0; i < B; ++i)
                if (!CHECK(x[i][0] > 0, "behind the wall: %g", (double)x[i][0])) break;
        if (!walled) check_normal("x", &x[0][0], B, 2, 0, 0.5);
        vgs_sampler_free(s);
    }
}

/* No drift is longer than drift_max s_t a_t sqrt(D), and the long ones keep their direction. */
static void drift_max(void)
{
    enum { B = 64, T = 5 };
    static float mu[2][T * B * 2], x[T * B * 2];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    int k, i, cut = 0;
    b.k = 20;
    c.alpha = VGS_VP;
    for (k = 0; k < 2; ++k) {
        if (k) c.drift_max = 0.3f;
        s = create(&c);
        OK(vgs__train_rollout(s, false, NULL) == VGS_OK);
        s->b->download(s->b->self, mu[k], s->traj_mu, 0, T * B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, x, s->traj_x, 0, T * B * 2, VGS_F32, NULL);
        for (i = 0; k && i < T * B; ++i) {
            double len = hypot((double)mu[1][2 * i], (double)mu[1][2 * i + 1]),
                   most = 0.3 * sqrt(2.0 * (double)s->s2[i / B]) * (double)s->a[i / B];
            if (!CHECK(len <= most * 1.00001, "|mu| = %g, limit %g", len, most)) break;
            if (i < (T - 1) * B || len < most * 0.999) continue;
            ++cut;                               /* along the gradient, which is along x              */
            CHECK(fabs((double)(mu[1][2 * i] * x[2 * i + 1] - mu[1][2 * i + 1] * x[2 * i])) < 1e-5,
                  "another direction");
        }
        vgs_sampler_free(s);
    }
    CHECK(cut > B / 2, "%d were cut", cut);
}

/* ---- subspaces --------------------------------------------------------------------------------------- */

/* Invariant: springs between all pairs of 3 points in 2-D, D = 4. Mean 0 at every t, for every network. */
static int springs(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, a, b, j, d = dim / 3;
    (void)user;
    for (i = 0; i < n; ++i) {
        const float *p = x + i * dim;
        e[i] = 0;
        for (j = 0; g && j < dim; ++j) g[i * dim + j] = 0;
        for (a = 0; a < 3; ++a)
            for (b = 0; b < a; ++b)
                for (j = 0; j < d; ++j) {
                    float v = p[a * d + j] - p[b * d + j];
                    e[i] += 0.5f * v * v;
                    if (g) { g[i * dim + a * d + j] += v; g[i * dim + b * d + j] -= v; }
                }
    }
    return 0;
}

static void mean_free(void)
{
    static float path[6][300][6], x[300][6];
    static const vgs_net_kind kind[3] = { VGS_NET_MLP, VGS_NET_EGNN, VGS_NET_TEMB };
    int k, t, i, j;
    for (k = 0; k < 3; ++k) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        vgs_draw d = plain();
        vgs_stats stats;
        double worst = 0, r2 = 0;
        c.energy.eval = springs;
        c.energy.dim = 6;
        c.energy.particles = 3;
        c.net.kind = kind[k];
        c.net.wrapper = k == 2 ? VGS_WRAPPER_SORTED : VGS_WRAPPER_NONE;
        c.init_sigma = 1;
        s = create(&c);
        T_IN("particles, net %d", (int)kind[k]);
        OK(s->dim == 4);
        train(s, 3, &stats);
        d.path = &path[0][0][0];
        draw(s, &d, 300, &x[0][0]);
        for (t = 0; t < 6; ++t)
            for (i = 0; i < 300; ++i)
                for (j = 0; j < 2; ++j)
                    worst = fmax(worst,
                                 fabs((double)(path[t][i][j] + path[t][i][2 + j] + path[t][i][4 + j]) / 3));
        CHECK(worst < 5e-6, "mean of a row: %g", worst);
        for (i = 0; i < 300; ++i)
            for (j = 0; j < 6; ++j) r2 += (double)path[0][i][j] * (double)path[0][i][j] / 300;
        CHECK(fabs(r2 - 4) < 6 * sqrt(2.0 * 4 / 300), "|x_0|^2 = %g, want 4", r2);       /* chi^2 of 4     */
        vgs_sampler_free(s);
    }
}

static void sphere(void)
{
    static float path[6][200][3], x[200][3];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    vgs_draw d = plain();
    vgs_stats stats;
    double worst = 0, mean[3] = { 0, 0, 0 };
    int t, i, j;
    c.energy.dim = 3;
    c.on_sphere = true;
    s = create(&c);
    OK(s->dim == 2);
    train(s, 3, &stats);
    OK(stats.elbo - stats.elbo == 0);
    d.path = &path[0][0][0];
    draw(s, &d, 200, &x[0][0]);
    for (t = 0; t < 6; ++t)
        for (i = 0; i < 200; ++i) {
            double r = 0;
            for (j = 0; j < 3; ++j) r += (double)path[t][i][j] * (double)path[t][i][j];
            for (j = 0; j < 3 && t == 0; ++j) mean[j] += (double)path[0][i][j] / 200;
            worst = fmax(worst, fabs(sqrt(r) - 1));
        }
    CHECK(worst < 1e-6, "|x| - 1 = %g", worst);
    for (j = 0; j < 3; ++j)
        CHECK(fabs(mean[j]) < 6 / sqrt(3.0 * 200), "x_0 is not uniform: mean %g", mean[j]);
    OK(memcmp(path[0], path[1], sizeof path[0]) != 0);
    vgs_sampler_free(s);
}

/* ---- path weights, returns, kernel factors ----------------------------------------------------------- */

/* One step, whose drift is known: log w = -E(x_1) + log qt(x_0|x_1) - log p0(x_0) - log pi(x_1|x_0). */
static void weight_of_one_step(void)
{
    enum { N = 200 };
    static float path[2][N][2], x[N][2];
    double lw[N];
    int k, i, j;
    for (k = 0; k < 2; ++k) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        vgs_draw d = plain();
        double A, a;
        c.steps = 1;
        c.s2_start = 0.3f;
        c.alpha = k ? VGS_VP : VGS_VE;
        c.init_sigma = 1.7f;
        s = create(&c);
        a = (double)s->a[0];
        A = (double)s->s2[0] * a * a;
        d.path = &path[0][0][0];
        d.log_weight = lw;
        draw(s, &d, N, &x[0][0]);
        T_IN("%s", k ? "vp" : "ve");
        for (i = 0; i < N; ++i) {
            double want, r = 0, q = 0, v0 = 1.7 * 1.7;
            for (j = 0; j < 2; ++j) {
                double z = a * (double)path[0][i][j];
                q += pow((double)path[0][i][j] - (double)x[i][j] / a, 2) / (2 * (double)s->s2[0]);
                r += pow((double)x[i][j] - z * (1 - A), 2) / (2 * A);
            }
            want = -square_norm(x[i], 2) / 2 - q - log(6.283185307179586 * (double)s->s2[0]) +
                   square_norm(path[0][i], 2) / (2 * v0) + log(6.283185307179586 * v0) + r +
                   log(6.283185307179586 * A);
            if (!CHECK_NEAR(lw[i], want, 1e-5, 3e-5)) break;
        }
        vgs_sampler_free(s);
    }
}

/* E[w] = Z whatever the drift is: a network that knows nothing, and one that was trained for a moment. */
static void weights_are_unbiased(void)
{
    enum { N = 20000 };
    static float x[N * 6];
    static double lw[N];
    int k;
    for (k = 0; k < 8; ++k) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        vgs_draw d = plain();
        double mean = 0, var = 0, z;
        bool particles = k == 4 || k == 5 || k == 7;
        int i;
        b.k = 2;
        c.energy.dim = particles ? 6 : 2;
        c.energy.particles = particles ? 3 : 0;
        c.local_noise = k >= 6;
        c.explicit_drift = !c.local_noise;
        c.alpha = k % 2 ? VGS_VP : VGS_VE;
        c.published = c.fixed_kernel = k < 2;
        c.sigma_lr = 1e-3f;
        c.init_sigma = 1;
        if (particles) c.net.wrapper = VGS_WRAPPER_SORTED;
        s = create(&c);
        if (k >= 2) train(s, 10, NULL);
        d.log_weight = lw;
        draw(s, &d, N, x);
        z = pow(6.283185307179586 / 2, particles ? 2 : 1);           /* mean-free subspace: 4 dimensions */
        for (i = 0; i < N; ++i) mean += exp(lw[i]) / N;
        for (i = 0; i < N; ++i) var += pow(exp(lw[i]) - mean, 2) / N;
        T_IN("case %d", k);
        CHECK(fabs(mean - z) < 6 * sqrt(var / N), "E[w] = %g +- %g, Z = %g", mean, sqrt(var / N), z);
        CHECK(sqrt(var / N) < 0.05 * z, "the error %g of E[w] says nothing", sqrt(var / N));
        vgs_sampler_free(s);
    }
}

/* eps^T eps + log det C of noise z of covariance C, whose axes and widths are given */
static double unstretched(const float *axes, const float *width, const double *z, int dim)
{
    double sum = 0;
    int i, j;
    for (i = 0; i < dim; ++i) {
        double along = 0;
        for (j = 0; j < dim; ++j) along += (double)axes[i * dim + j] * z[j];
        sum += pow(along / (double)width[i], 2) + 2 * log((double)width[i]);
    }
    return sum;
}

/* TD(lambda) targets against the recursion in double, from what the trajectories hold. */
static void returns(void)
{
    enum { B = 64, T = 5 };
    static const float lambda[4] = { 0, 0.5f, 1, 0.5f };             /* the last one with local_noise  */
    static float x[(T + 1) * B][2], mu[T * B][2], width[T * B][2], axes[T * B][4], y[T * B], v[B];
    int k, t, i, j;
    for (k = 0; k < 4; ++k) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        float f[4 * T];
        double want[B] = { 0 }, l;
        c.published = c.fixed_kernel = false;
        c.lambda = lambda[k];
        c.tau = 1.5f;
        c.explore = 1.2f;
        c.local_noise = k == 3;
        c.explicit_drift = !c.local_noise;
        s = create(&c);
        l = (double)s->c.lambda;
        OK(k || s->c.lambda == 0.9f);
        train(s, 10, NULL);                      /* factors that are not 1                            */
        s->iteration = 11;                       /* two steps explore: their targets are others       */
        OK(vgs__replay_detour(s).steps == 2 && !vgs__train_rollout(s, false, NULL));
        OK(!vgs__train_targets(s, 0, NULL));
        s->b->download(s->b->self, x, s->traj_x, 0, (T + 1) * B * 2, VGS_F32, NULL);
        s->b->download(s->b->self, mu, s->traj_mu, 0, T * B * 2, VGS_F32, NULL);
        if (k == 3) s->b->download(s->b->self, width, s->traj_noise_std, 0, T * B * 2, VGS_F32, NULL);
        if (k == 3) s->b->download(s->b->self, axes, s->traj_eigvec, 0, T * B * 4, VGS_F32, NULL);
        s->b->download(s->b->self, y, s->traj_y, 0, T * B, VGS_F32, NULL);
        s->b->download(s->b->self, f, s->factor, 0, 4 * T, VGS_F32, NULL);
        OK(f[0] != 1 && f[1] != 1 && f[2] != 1 && f[3] != 1 && f[0] != f[1]);
        for (t = T - 1; t >= 2; --t) {
            double sigma = sqrt((double)s->s2[t]);
            T_IN("lambda %g, t %d", l, t);
            if (t < T - 1) value_of(s, s->target, t + 1, x[(t + 1) * B], B, v);
            for (i = 0; i < B; ++i) {
                double cost = 0, eps[2];
                const float *now = x[t * B + i], *next = x[(t + 1) * B + i];
                for (j = 0; j < 2; ++j) {
                    double m = (double)mu[t * B + i][j], u = ((double)next[j] - (double)now[j]) / sigma;
                    double root = (double)f[4 * t + 2 + j];
                    eps[j] = (u + m / sigma) / root;
                    cost += u * u / 2 - log(root);
                }
                cost -= k == 3 && t < T - 1 ? unstretched(axes[t * B + i], width[t * B + i], eps, 2) / 2
                                            : (eps[0] * eps[0] + eps[1] * eps[1]) / 2;
                if (t == T - 1) want[i] = square_norm(next, 2) / 2;
                else want[i] = l * want[i] + (1 - l) * (double)v[i];
                want[i] += (double)s->c.tau * cost;
                if (!CHECK_NEAR(2 * (double)y[t * B + i], want[i], 2e-4, 2e-4)) return;
            }
        }
        vgs_sampler_free(s);
    }
}

/* At an explored place the target is one step of fresh noise: the same mean, whether the cost is the mean one
   or that of the step. */
static void fresh_targets(void)
{
    enum { B = 4096 };
    static float x[B][2], mu[B][2], y[2][B], mu2[B];
    bowl b;
    vgs_config c = small(&b);
    double mean[2] = { 0, 0 }, var[2] = { 0, 0 };
    int k, i;
    c.batch = B;
    c.explore = 1.3f;
    c.net.kind = VGS_NET_TEMB;                   /* the same value with published and without         */
    for (i = 0; i < B; ++i) {
        x[i][0] = 0.7f, x[i][1] = -0.4f;
        mu[i][0] = 0.2f, mu[i][1] = 0.1f;
        mu2[i] = 0.05f;
    }
    for (k = 0; k < 2; ++k) {
        vgs_sampler *s;
        c.published = k == 0;
        s = create(&c);
        s->iteration = 11;
        OK(vgs__replay_detour(s).steps == 2 * k);
        s->b->upload(s->b->self, s->traj_x, B * 2, x, B * 2, VGS_F32, NULL);
        s->b->upload(s->b->self, s->traj_mu, B * 2, mu, B * 2, VGS_F32, NULL);
        s->b->upload(s->b->self, s->traj_mu2, B, mu2, B, VGS_F32, NULL);
        OK(!vgs__fresh_run(s, &s->stage->fresh_step, 0, 1, NULL));
        s->b->download(s->b->self, y[k], s->traj_y, B, B, VGS_F32, NULL);
        for (i = 0; i < B; ++i) mean[k] += (double)y[k][i] / B;
        for (i = 0; i < B; ++i) var[k] += pow((double)y[k][i] - mean[k], 2) / B;
        vgs_sampler_free(s);
    }
    CHECK(fabs(mean[0] - mean[1]) < 6 * sqrt((var[0] + var[1]) / B), "means %g and %g, errors %g and %g",
          mean[0], mean[1], sqrt(var[0] / B), sqrt(var[1] / B));
    CHECK(sqrt(var[0] / B) < 0.02 && sqrt(var[1] / B) < 0.02, "the errors are too large to tell");
}

/* A Gaussian's reverse kernel is one of ours: kappa = rho = 1/(1 + A k), k_t = k/(1 + A k); then every path
   has the weight Z. */
static void factors_of(bool local)
{
    enum { T = 5 };
    static float x[1024 * 2];
    static double lw[1024];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    vgs_draw d = plain();
    vgs_weights w;
    float f[4 * T];
    double k = 2;
    int t, j;
    b.k = 2;
    c.published = c.fixed_kernel = false;
    c.local_noise = local;
    c.explicit_drift = !local;
    c.batch = 128;
    c.passes = 2;
    c.value_lr = 1e-2f;
    c.lr_half = 40;
    c.loss = VGS_L2;
    c.sigma_lr = 1e-2f;
    c.init_sigma = 1;
    s = create(&c);
    train(s, 400, NULL);
    s->b->download(s->b->self, f, s->factor, 0, 4 * T, VGS_F32, NULL);
    for (t = T - 1; t >= 0; --t) {
        double A = (double)s->s2[t];
        bool exact = local && t < T - 1;         /* mean and width are those of the value             */
        T_IN("t %d", t);
        for (j = 0; j < 2; ++j) {
            CHECK_NEAR(f[4 * t + j], exact ? 1 : 1 / (1 + A * k), 0.05, 0);
            CHECK_NEAR(f[4 * t + 2 + j], exact ? 1 : sqrt(1 / (1 + A * k)), 0.03, 0);
        }
        k /= 1 + A * k;
    }
    d.log_weight = lw;
    draw(s, &d, 1024, x);
    OK(vgs_weigh(lw, 1024, &w, NULL) == VGS_OK);
    CHECK_NEAR(w.elbo, log(6.283185307179586 / 2), 0, 0.02);
    CHECK_NEAR(w.log_z, log(6.283185307179586 / 2), 0, 0.01);
    CHECK(w.ess > 0.97 && w.ess <= 1, "ESS/N = %g", w.ess);
    vgs_sampler_free(s);
}
static void factors(void) { factors_of(false); }
static void factors_beside_local_noise(void) { factors_of(true); }

/* What local_noise measures, V'' between the directions e and f at x, by differences of V, in double as far
   as V is. */
static double curvature_at(vgs_sampler *s, int t, const float *x, const double *e, const double *f, double h,
                           int dim)
{
    const double a[4] = { h, h, 0, 0 }, b[4] = { 0.03, -0.03, 0.03, -0.03 };
    float at[4 * 6], v[4];
    int i, j;
    for (i = 0; i < 4; ++i)
        for (j = 0; j < dim; ++j) at[i * dim + j] = (float)((double)x[j] + a[i] * e[j] + b[i] * f[j]);
    value_of(s, s->target, t, at, 4, v);
    return ((double)v[0] - (double)v[1] - (double)v[2] + (double)v[3]) / (0.06 * h);
}

/* y = x, for particles without its mean */
static void without_mean(const vgs_sampler *s, const double *x, double *y)
{
    int d = s->c.energy.dim, n = s->c.energy.particles, i, j;
    for (i = 0; i < d; ++i) y[i] = x[i];
    for (i = 0; n && i < d; ++i) for (j = i % 2; j < d; j += 2) y[i] -= x[j] / n;
}

/* V'' at x for all pairs of e_i. */
static void curvatures(vgs_sampler *s, int t, const float *x, double v[6][6])
{
    double h = 0.25 * sqrt((double)s->s2[t]), e[6], f[6];
    int d = s->c.energy.dim, i, j;
    for (i = 0; i < d; ++i)
        for (j = 0; j < d; ++j) {
            double one[6] = { 0 }, other[6] = { 0 };
            one[i] = other[j] = 1;
            without_mean(s, one, e);
            without_mean(s, other, f);
            v[i][j] = (curvature_at(s, t, x, e, f, h, d) + curvature_at(s, t, x, f, e, h, d)) / 2;
        }
}

/* The noise of a row of a rollout: axes of length 1 at right angles, of which I - s^2 V'' / tau makes
   multiples of themselves, within the limits the squares of the widths. Returns how many are at a limit,
   -1: wrong. */
static int check_noise(vgs_sampler *s, int t, const float *x, const float *axes, const float *width)
{
    double curvature[6][6], axis[6][6], u[6], v[6];
    int d = s->c.energy.dim, i, j, k, l, limited = 0;
    curvatures(s, t, x, curvature);
    for (i = 0; i < d; ++i) for (k = 0; k < d; ++k) axis[i][k] = (double)axes[i * d + k];
    for (i = 0; i < d; ++i)
        for (j = 0; j < d; ++j) {
            double dot = 0, made = 0, w2 = (double)width[i] * (double)width[i];
            without_mean(s, axis[i], u);
            without_mean(s, axis[j], v);
            for (k = 0; k < d; ++k) dot += axis[i][k] * axis[j][k];
            for (k = 0; k < d; ++k) for (l = 0; l < d; ++l) made += u[k] * curvature[k][l] * v[l];
            made = (i == j) - (double)s->s2[t] * made / (double)s->c.tau;
            if (!CHECK_NEAR(dot, i == j, 0, 4e-6)) return -1;
            if (i == j && (made < (double)0.6f || made > 4.0)) {
                made = made < 1 ? (double)0.6f : 4.0;
                limited++;
            }
            if (!CHECK_NEAR(made, i == j ? w2 : 0, 0, 4e-3)) return -1;
        }
    return limited;
}

static void scale_weights(vgs_sampler *s, float by)
{
    int n = vgs_model_size(s->target), i;
    float *w = (float *)malloc((size_t)n * sizeof *w);
    OK(!vgs_model_read(s->target, w, NULL));
    for (i = 0; i < n; ++i) w[i] *= by;
    OK(!vgs_model_write(s->target, w, NULL));
    free(w);
}

/* The noise of a rollout from values alone; those of case 2 are steep, so that widths reach the limits. */
static void local_covariance(void)
{
    enum { B = 64, T = 5, ROWS = 12 };
    static float x[(T + 1) * B * 6], width[T * B * 6], axes[T * B * 36];
    int k, t, i;
    for (k = 0; k < 3; ++k) {
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        int d = k == 1 ? 6 : 2, limited = 0, more;
        c.energy.dim = d;
        c.energy.particles = k == 1 ? 3 : 0;
        c.published = c.fixed_kernel = c.explicit_drift = false;
        c.local_noise = true;
        c.tau = 1.5f;
        if (k == 1) c.net.kind = VGS_NET_EGNN;
        s = create(&c);
        train(s, 10, NULL);
        if (k == 2) scale_weights(s, 2.5f);
        OK(!vgs__train_rollout(s, false, NULL));
        s->b->download(s->b->self, x, s->traj_x, 0, (size_t)((T + 1) * B * d), VGS_F32, NULL);
        s->b->download(s->b->self, width, s->traj_noise_std, 0, (size_t)(T * B * d), VGS_F32, NULL);
        s->b->download(s->b->self, axes, s->traj_eigvec, 0, (size_t)(T * B * d * d), VGS_F32, NULL);
        for (t = 0; t < T - 1; ++t)
            for (i = 0; i < ROWS; ++i) {
                int row = t * B + i;
                const float *next = x + ((t + 1) * B + i) * d;
                T_IN("case %d, t %d, row %d", k, t, i);
                if (k == 1) CHECK_NEAR((double)next[0] + (double)next[2] + (double)next[4], 0, 0, 4e-6);
                more = check_noise(s, t, x + row * d, axes + row * d * d, width + row * d);
                if (more < 0) return;
                limited += more;
            }
        CHECK((limited > 0) == (k == 2), "case %d: %d widths at a limit", k, limited);
        vgs_sampler_free(s);
    }
}

/* An iteration whose energy is bad teaches the factors nothing either: iteration 4 moves those of the last
   step. */
static void factors_of_bad_energies(void)
{
    enum { T = 5 };
    int call, i;
    for (call = 1; call <= 3; ++call) {          /* the rollout, its end, the factors                 */
        float before[4 * T], after[4 * T];
        vgs_error err = { VGS_OK, "" };
        bowl b;
        vgs_config c = small(&b);
        vgs_sampler *s;
        c.published = c.fixed_kernel = false;
        s = create(&c);
        train(s, 4, NULL);
        s->b->download(s->b->self, before, s->factor, 0, 4 * T, VGS_F32, NULL);
        b.nan_at = b.calls + call;
        b.row = 3;
        b.bad = (float)NAN;
        b.grad_bad = true;
        T_IN("call %d", call);
        if (call != 2) OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_NONFINITE);
        else train(s, 1, NULL);                  /* only the energy is asked for there                */
        s->b->download(s->b->self, after, s->factor, 0, 4 * T, VGS_F32, NULL);
        for (i = 0; i < 4 * T; ++i) OK(after[i] - after[i] == 0.0f);
        if (call != 2) OK(!memcmp(before, after, sizeof before));
        train(s, 8, NULL);
        vgs_sampler_free(s);
    }
}

/* ---- energies that misbehave --------------------------------------------------------------------------- */

/* Above energy_max the last drift is exactly 0, whatever the gradient is; as published, with a gradient
   limit, it is that of E, but finite. */
static void energy_max(void)
{
    static float path[6][64][2], x[64][2];
    static const float bad[3] = { 1e30f, (float)INFINITY, (float)NAN };
    int k, raw, i;
    for (k = 0; k < 3; ++k)
        for (raw = 0; raw < 2; ++raw) {
            bowl b;
            vgs_config c = small(&b);
            vgs_sampler *s;
            vgs_draw d = plain();
            vgs_error err = { VGS_OK, "" };
            T_IN("energy_max, gradient %g%s", (double)bad[k], raw ? ", raw" : "");
            b.k = 1;
            c.energy_max = 1e-3f;                /* nearly all rows are above                         */
            c.grad_max = raw ? 1 : 1e30f;
            b.nan_at = 1;
            b.row = 7;
            b.bad = bad[k];
            b.grad_bad = true;
            s = create(&c);
            d.path = &path[0][0][0];
            d.skip_final_noise = true;
            if (raw && k == 2) {                 /* NaN is not cut                                    */
                OK(vgs_sampler_draw(s, &d, 64, &x[0][0], &err) == VGS_E_NONFINITE &&
                   strstr(err.msg, "gradient") && strstr(err.msg, "row 7"));
            } else {
                draw(s, &d, 64, &x[0][0]);
                for (i = 0; i < 64; ++i) {
                    bool above = path[4][i][0] * path[4][i][0] + path[4][i][1] * path[4][i][1] > 2.1e-3f;
                    OK(x[i][0] - x[i][0] == 0.0f);
                    if (above && !raw) OK(x[i][0] == path[4][i][0] && x[i][1] == path[4][i][1]);
                    if (above && raw && i != 7) OK(x[i][0] != path[4][i][0]);
                }
            }
            vgs_sampler_free(s);
        }
}

/* The limit lies where it should: rows below it move, rows above do not. */
static void energy_max_border(void)
{
    static float path[6][400][2], x[400][2];
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    vgs_draw d = plain();
    int i, below = 0, above = 0;
    c.energy_max = 0.25f;
    c.grad_max = 1e30f;
    s = create(&c);
    d.path = &path[0][0][0];
    d.skip_final_noise = true;
    draw(s, &d, 400, &x[0][0]);
    for (i = 0; i < 400; ++i) {
        float e = 0.5f * (path[4][i][0] * path[4][i][0] + path[4][i][1] * path[4][i][1]);
        bool moved = x[i][0] != path[4][i][0];
        if (e < 0.2499f) below += CHECK(moved, "row %d, E = %g, did not move", i, (double)e);
        if (e > 0.2501f) above += CHECK(!moved, "row %d, E = %g, moved", i, (double)e);
    }
    CHECK(below > 20 && above > 20, "%d below, %d above", below, above);
    vgs_sampler_free(s);
}

/* E = +inf is no failure, cut or not: training goes on and the share of such samples is told, and where the
   first of them is. Minus infinity is one. */
static void infinite_energies(void)
{
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    vgs_error err = { VGS_OK, "" };
    vgs_stats stats;
    c.energy_max = 50;
    c.grad_max = 1e30f;
    s = create(&c);
    b.nan_at = 1;
    b.row = 3;
    b.bad = (float)INFINITY;
    train(s, 2, NULL);
    b.nan_at = b.calls + 5;      /* rollout, target, the draw's last step and weights, then the statistics */
    CHECK(vgs_sampler_train(s, 1, &stats, &err) == VGS_OK, "%s", err.msg);
    CHECK(stats.nonfinite == 1.0 / 64 && stats.clipped >= 1.0 / 64 &&
              stats.energy_max - stats.energy_max == 0,
          "nonfinite %g, clipped %g", stats.nonfinite, stats.clipped);
    b.nan_at = b.calls + 1;
    b.bad = -(float)INFINITY;
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_NONFINITE);
    vgs_sampler_free(s);
    c.energy_max = 0;
    s = create(&c);
    b.nan_at = b.calls + 1;
    b.bad = (float)INFINITY;
    train(s, 1, NULL);
    vgs_sampler_free(s);
}

/* ---- walls: +infinity and NaN are outside -------------------------------------------------------------- */

/* N(0, 1) in D dimensions where x_1 > 0: a callback, with gradients of NaN outside, and the same recorded,
   where the logarithm of a negative number is NaN. */
static int wall_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i) {
        bool inside = x[i * dim] > 0;
        for (e[i] = 0, j = 0; j < dim; ++j) {
            e[i] += 0.5f * x[i * dim + j] * x[i * dim + j];
            if (g) g[i * dim + j] = inside ? x[i * dim + j] : (float)NAN;
        }
        if (!inside) e[i] = i % 2 ? (float)NAN : (float)INFINITY;
    }
    return 0;
}

static vgs_var wall_record(void *user, vgs_graph *g, vgs_var x)
{
    vgs_var v = vgs_affine(g, vgs_sum_cols(g, vgs_square(g, x)), 0.5f, 0);
    (void)user;
    return vgs_add(g, v, vgs_affine(g, vgs_log(g, vgs_cols(g, x, 0, 1)), 0, 0));
}

/* E = 2.5 everywhere, with a gradient that is NaN for x_1 > 0.5; infinite everywhere. */
static int holed_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i) {
        e[i] = 2.5f;
        for (j = 0; g && j < dim; ++j) g[i * dim + j] = j == 1 && x[i * dim] > 0.5f ? (float)NAN : 0;
    }
    return 0;
}

static int nowhere_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user, (void)x;
    for (i = 0; i < n; ++i) e[i] = (float)INFINITY;
    for (i = 0; g && i < n * dim; ++i) g[i] = 0;
    return 0;
}

/* It trains without a flag, no sampler goes far beyond the wall any more, and nothing is NaN: with replay,
   moves on E and slopes; as published; with a limit of the energy. The statistics say how many are outside,
   and where the first one is. The pilot takes the callback's wall away once training has begun. */
static void walls(void)
{
    enum { N = 2000 };
    static float x[N][2], e[N];
    static double lw[N];
    int k, i;
    for (k = 0; k < 8; ++k) {
        vgs_config c;
        vgs_sampler *s;
        vgs_draw d = plain();
        vgs_stats st[2];
        vgs_weights w;
        vgs_error err = { VGS_OK, "" };
        int outside = 0;
        memset(&c, 0, sizeof c);
        if (k % 2) c.energy.record = wall_record;
        else c.energy.eval = wall_energy;
        c.energy.dim = 2;
        c.steps = 12;
        c.batch = 128;
        c.net.hidden = 32;
        c.net.time_dim = 16;
        c.value_lr = 2e-3f;
        if (k / 2 == 1) c.replay = 8, c.refine = 3, c.slope_loss = 1;
        if (k / 2 == 2) c.published = true;
        if (k / 2 == 3) c.energy_max = 12;
        T_IN("case %d", k);
        s = create(&c);
        train(s, 0, &st[0]);
        OK(st[0].nonfinite > 0.2 && st[0].outside && !(st[0].outside[0] > 0) && st[0].outside[0] > -4);
        OK(st[0].elbo - st[0].elbo == 0 && st[0].energy_max - st[0].energy_max == 0);
        train(s, 100, &st[1]);
        CHECK(st[1].nonfinite < 0.7 * st[0].nonfinite, "%g outside, %g before training", st[1].nonfinite,
              st[0].nonfinite);
        d.log_weight = lw;
        d.energy = e;
        draw(s, &d, N, &x[0][0]);
        for (i = 0; i < N; ++i) {
            outside += !(x[i][0] > 0);
            OK(x[i][0] > 0 ? lw[i] - lw[i] == 0 : lw[i] < -DBL_MAX && e[i] > FLT_MAX);
            OK(x[i][0] - x[i][0] == 0 && x[i][1] - x[i][1] == 0);
        }
        OK(vgs_weigh(lw, N, &w, &err) == VGS_OK);
        CHECK_NEAR(w.inside, 1 - outside / (double)N, 0, 1e-12);
        CHECK(fabs(w.log_z - log(3.14159265358979)) < 5 * w.log_z_se && w.log_z_se < 0.1, "log Z %g +- %g",
              w.log_z, w.log_z_se);
        CHECK(w.elbo < log(3.14159265358979) + 3 * w.elbo_se && w.elbo_se < 0.1, "ELBO %g", w.elbo);
        OK(w.elbo <= w.log_z + 1e-9);            /* of the same weights: Jensen, without any slack    */
        OK(vgs_sampler_score(s, NULL, N, &x[0][0], lw, &err) == VGS_OK);     /* of rows outside: 0      */
        for (i = 0; i < N; ++i) OK(x[i][0] > 0 ? lw[i] - lw[i] == 0 : lw[i] < -DBL_MAX);
        vgs_sampler_free(s);
    }
}

/* What stays an error: a gradient of NaN at a finite energy, with the values and the place; a batch that is
   outside as a whole, or, once outside_max is 1/2, half of it. */
static void walls_refused(void)
{
    vgs_error err = { VGS_OK, "" };
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s;
    int k;
    c.energy.eval = holed_energy;
    for (k = 0; k < 3; ++k) {
        T_IN("case %d", k);
        c.published = k == 1;
        c.slope_loss = k == 2 ? 1 : 0;
        c.fixed_kernel = c.explicit_drift = k == 1;
        s = create(&c);
        OK(vgs_sampler_train(s, 3, NULL, &err) == VGS_E_NONFINITE);
        CHECK(strstr(err.msg, "the energy's gradient is not finite at row") &&
              strstr(err.msg, "; E = 2.5, dE/dx[1] = ") && strstr(err.msg, "nan at x = ("), "%s", err.msg);
        CHECK(strtod(strstr(err.msg, "x = (") + 5, NULL) > 0.5, "%s", err.msg);
        vgs_sampler_free(s);
    }
    c.slope_loss = 0;
    c.energy.eval = wall_energy;
    s = create(&c);
    s->outside_max = 0.5;
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_NONFINITE && vgs_sampler_iteration(s) == 0);
    CHECK(strstr(err.msg, "infinite or NaN at most of the 64 rows"), "%s", err.msg);
    s->outside_max = 0.9;
    train(s, 1, NULL);
    vgs_sampler_free(s);
    c.energy.eval = nowhere_energy;
    s = create(&c);
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_NONFINITE);
    CHECK(strstr(err.msg, "infinite or NaN at all 64 rows"), "%s", err.msg);
    vgs_sampler_free(s);
}

/* The call of the energy that goes wrong: 1 = rollout, 2 = target of the first pass, 3 = of the second. The
   error tells what, row and step; no weight changes; the next training is as if nothing had been. */
static void bad_energies(void)
{
    static const struct {
        const char *name;
        int call, passes;
        bool grad, fail;
        vgs_status code;
        const char *says;
    } list[] = {
        {"-inf in the rollout", 1, 1, false, false, VGS_E_NONFINITE,
         "the energy is not finite at row 5, step 4 of 5"},
        {"NaN gradient", 1, 1, true, false, VGS_E_NONFINITE, "gradient is not finite at row 5, step 4 of 5"},
        {"-inf in the target", 2, 1, false, false, VGS_E_NONFINITE,
         "the energy is not finite at row 5, step 4 of 5"},
        {"-inf in the second pass", 3, 2, false, false, VGS_E_NONFINITE,
         "the energy is not finite at row 5, step 4 of 5"},
        {"failure in the rollout", 1, 1, false, true, VGS_E_ENERGY, "callback"},
        {"failure in the target", 2, 1, false, true, VGS_E_ENERGY, "callback"},
        {"failure in the second pass", 3, 2, false, true, VGS_E_ENERGY, "callback"}};
    size_t i, n, m;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        bowl b, clean;
        vgs_config c = small(&b), c2;
        vgs_sampler *s, *other;
        vgs_error err = { VGS_OK, "" };
        float *before, *after, *want;
        T_IN("%s", list[i].name);
        c.passes = list[i].passes;
        c.sigma_lr = 1e-2f;
        s = create(&c);
        train(s, 2, NULL);
        before = weights(s, &n);
        b.row = 5;
        b.bad = list[i].grad ? (float)NAN : -(float)INFINITY;
        b.grad_bad = list[i].grad;
        if (list[i].fail) b.fail_at = b.calls + list[i].call; else b.nan_at = b.calls + list[i].call;
        CHECK(vgs_sampler_train(s, 3, NULL, &err) == list[i].code && err.code == list[i].code &&
                  strstr(err.msg, list[i].says),
              "%s", err.msg);
        OK(vgs_sampler_iteration(s) == 2);
        after = weights(s, &m);
        CHECK(!memcmp(before, after, n * sizeof *before), "weights or moments changed");
        free(after);
        CHECK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK, "afterwards: %s", err.msg);
        after = weights(s, &n);
        c2 = small(&clean);
        c2.passes = list[i].passes;
        c2.sigma_lr = 1e-2f;
        other = create(&c2);
        train(other, 4, NULL);
        want = weights(other, &m);
        CHECK(!memcmp(after, want, n * sizeof *after),
              "the next training differs from one without the failure");
        free(before);
        free(after);
        free(want);
        vgs_sampler_free(s);
        vgs_sampler_free(other);
    }
}

/* A bad energy that is seen and a callback that fails later in the same iteration: the next one must be
   clean. */
static void flag_does_not_stay(void)
{
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s = create(&c);
    vgs_error err = { VGS_OK, "" };
    static float many[600][2];
    float x[16], *w, keep;
    int n;
    b.nan_at = 1;
    b.bad = -(float)INFINITY;
    b.fail_at = 2;
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_ENERGY);
    CHECK(vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);
    b.fail_at = b.calls + 1;
    OK(vgs_sampler_draw(s, NULL, 8, x, &err) == VGS_E_ENERGY);
    CHECK(vgs_sampler_draw(s, NULL, 8, x, &err) == VGS_OK, "%s", err.msg);
    b.nan_at = b.calls + 1;
    b.row = 2;
    OK(vgs_sampler_draw(s, NULL, 8, x, &err) == VGS_E_NONFINITE && strstr(err.msg, "draw") &&
       strstr(err.msg, "row 2"));
    b.nan_at = b.calls + 1;                      /* in the first block of rows; the second one fails  */
    b.fail_at = b.calls + 2;
    OK(vgs_sampler_draw(s, NULL, 600, &many[0][0], &err) == VGS_E_ENERGY);
    CHECK(vgs_sampler_draw(s, NULL, 8, x, &err) == VGS_OK, "%s", err.msg);
    n = vgs_model_size(s->target);
    w = (float *)malloc((size_t)n * sizeof *w);
    OK(!vgs_model_read(s->target, w, &err));
    keep = w[0];
    w[0] = (float)NAN;                           /* seen on the way to E, which fails                 */
    b.fail_at = b.calls + 1;
    OK(!vgs_model_write(s->target, w, &err) && vgs_sampler_train(s, 1, NULL, &err) == VGS_E_ENERGY);
    w[0] = keep;
    OK(!vgs_model_write(s->target, w, &err));
    CHECK(vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);
    free(w);
    vgs_sampler_free(s);
}

static int stop_at(void *user, const vgs_stats *now) { return now->iteration == *(const int *)user; }

static void cancel(void)
{
    bowl b;
    vgs_config c = small(&b);
    vgs_sampler *s, *other;
    vgs_error err = { VGS_OK, "" };
    vgs_stats st = { 0 };
    int at = 3;
    size_t n;
    float *w, *v;
    other = create(&c);
    train(other, 3, NULL);
    c.progress = stop_at;
    c.progress_user = &at;
    s = create(&c);
    OK(vgs_sampler_train(s, 10, &st, &err) == VGS_E_CANCELLED && vgs_sampler_iteration(s) == 3);
    OK(st.iteration == 3 && st.energy_calls > 0 && isfinite(st.elbo) && strstr(err.msg, "cancelled after"));
    w = weights(s, &n);
    v = weights(other, &n);
    OK(!memcmp(w, v, n * sizeof *w));            /* keeps what is done                                */
    OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK && vgs_sampler_iteration(s) == 5);
    free(w);
    free(v);
    vgs_sampler_free(s);
    vgs_sampler_free(other);
}

/* ---- settings ------------------------------------------------------------------------------------------ */

static int none_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    (void)user; (void)x; (void)n; (void)dim; (void)e; (void)g;
    return 0;
}

typedef struct setting { const char *name, *value; bool vp; } setting;

static void out_of_range(void)
{
    static const setting list[] = {
        {"length_scale", "-1", false}, {"detail_scale", "-1", false},  {"detail_scale", "2", false},
        {"steps", "-1", false},        {"steps", "65536", false},      {"s2_start", "-1", false},
        {"s2_end", "-0.5", false},     {"s2_start", "1", true},        {"s2_end", "1", true},
        {"s2_start", "1.5", true},     {"s2_end", "2", true},          {"init_sigma", "-1", false},
        {"tau", "-1", false},          {"batch", "-1", false},         {"batch", "2000000", false},
        {"passes", "-1", false},       {"passes", "10001", false},     {"value_lr", "-1", false},
        {"lr_half", "-1", false},      {"sigma_lr", "-1", false},      {"target_ema", "-0.1", false},
        {"target_ema", "1", false},    {"explore", "-1", false},       {"grad_max", "-1", false},
        {"lambda", "-0.5", false},     {"lambda", "1.5", false},       {"lambda", "0.5", false},
        {"drift_max", "-1", false},
        {"hidden", "-1", false},       {"layers", "-1", false},        {"time_dim", "3", false},
        {"time_hidden", "-1", false},  {"x_scale", "-1", false},       {"replay", "-1", false},
        {"replay", "65537", false},    {"refine", "-1", false},        {"refine", "5", false},
        {"slope_loss", "-1", false},   {"windows", "-1", false},       {"windows", "1025", false}};
    static const size_t floats[] = {offsetof(vgs_config, length_scale), offsetof(vgs_config, detail_scale),
                                    offsetof(vgs_config, s2_start),     offsetof(vgs_config, s2_end),
                                    offsetof(vgs_config, init_sigma),   offsetof(vgs_config, tau),
                                    offsetof(vgs_config, value_lr),     offsetof(vgs_config, lr_half),
                                    offsetof(vgs_config, sigma_lr),     offsetof(vgs_config, target_ema),
                                    offsetof(vgs_config, explore),      offsetof(vgs_config, energy_max),
                                    offsetof(vgs_config, grad_max),     offsetof(vgs_config, drift_max),
                                    offsetof(vgs_config, net.x_scale),  offsetof(vgs_config, lambda)};
    static const char *const float_names[] = {"length_scale", "detail_scale", "s2_start", "s2_end",
                                              "init_sigma",   "tau",          "value_lr", "lr_half",
                                              "sigma_lr",     "target_ema",   "explore",  "energy_max",
                                              "grad_max",     "drift_max",    "x_scale",  "lambda"};
    size_t i;
    int k;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        bowl b;
        vgs_config c = small(&b), r;
        vgs_error err = { VGS_OK, "" };
        c.alpha = list[i].vp ? VGS_VP : VGS_VE;
        T_IN("%s = %s%s", list[i].name, list[i].value, list[i].vp ? " (vp)" : "");
        OK(vgs_field_set(&c, list[i].name, list[i].value, &err) == VGS_OK);
        CHECK(vgs_config_resolve(&c, &r, &err) == VGS_E_ARG && err.code == VGS_E_ARG &&
                  strstr(err.msg, list[i].name),
              "%s", err.msg);
        OK(!vgs_sampler_create(&c, &err) && !vgs_sampler_create(&c, NULL));
    }
    for (i = 0; i < sizeof floats / sizeof *floats; ++i)
        for (k = 0; k < 2; ++k) {
            bowl b;
            vgs_config c = small(&b), r;
            vgs_error err = { VGS_OK, "" };
            float bad = k ? (float)INFINITY : (float)NAN;
            T_IN("%s = %g", float_names[i], (double)bad);
            memcpy((char *)&c + floats[i], &bad, sizeof bad);
            CHECK(vgs_config_resolve(&c, &r, &err) == VGS_E_ARG && strstr(err.msg, float_names[i]), "%s",
                  err.msg);
        }
}

static void out_of_range_others(void)
{
    bowl b;
    vgs_config c, r;
    vgs_error err = { VGS_OK, "" };
#define REFUSED(text, ...) \
    do { \
        c = small(&b); \
        __VA_ARGS__; \
        memset(&err, 0, sizeof err); \
        CHECK(vgs_config_resolve(&c, &r, &err) == VGS_E_ARG && strstr(err.msg, text), "%s: %s", \
              #__VA_ARGS__, err.msg); \
    } while (0)
    REFUSED("energy", c.energy.eval = NULL);
    REFUSED("energy", c.energy.record = (vgs_energy_record *)0; c.energy.eval64 = (vgs_energy_fn64 *)0;
            c.energy.eval = NULL);
    REFUSED("energy.dim = 0", c.energy.dim = 0);
    REFUSED("energy.dim", c.energy.dim = -3);
    REFUSED("particles = 1", c.energy.particles = 1);
    REFUSED("particles = 3", c.energy.particles = 3);
    REFUSED("particles = -2", c.energy.particles = -2);
    REFUSED("schedule", c.schedule = (vgs_schedule)9);
    REFUSED("alpha", c.alpha = (vgs_alpha)-1);
    REFUSED("loss", c.loss = (vgs_loss)3);
    REFUSED("kind", c.net.kind = (vgs_net_kind)17);
    REFUSED("wrapper", c.net.wrapper = (vgs_wrapper)17);
    REFUSED("on_sphere", c.on_sphere = true; c.alpha = VGS_VP);
    REFUSED("dim", c.on_sphere = true; c.energy.dim = 1);
    REFUSED("sigma_lr", c.on_sphere = true; c.sigma_lr = 0.1f);
    REFUSED("0 with published", c.slope_loss = 1);
    REFUSED("0 with explicit_drift", c.slope_loss = 1; c.published = false);
    REFUSED("0 with explore", c.slope_loss = 1; c.published = c.explicit_drift = false; c.explore = 1.2f);
    REFUSED("local_noise = 1: must be 0 with published", c.local_noise = true);
    REFUSED("local_noise = 1: must be 0 with fixed", c.local_noise = true; c.published = false);
    REFUSED("local_noise = 1: must be 0 with explicit", c.local_noise = true;
            c.published = c.fixed_kernel = false);
    REFUSED("local_noise = 1: must be 0 with on_sphere", c.local_noise = c.on_sphere = true);
    REFUSED("replay = 4: must be 0 with on_sphere", c.replay = 4; c.on_sphere = true; c.published = false);
    REFUSED("slope_loss = 1: must be 0 with on_sphere", c.slope_loss = 1; c.on_sphere = true);
    REFUSED("lambda = 0.5: must be 0 with published", c.lambda = 0.5f; c.on_sphere = true);
    REFUSED("slope_loss = nan", c.slope_loss = (float)NAN);
    REFUSED("too large", c.energy.dim = 100000; c.batch = 1 << 20);
    c = small(&b);
    c.threads = -1;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "threads = -1"));
    c.threads = 2000;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "threads = 2000"));
    c = small(&b);                               /* -1e30 .. 1e30 are fine for a cut                  */
    c.energy_max = -5;
    OK(vgs_config_resolve(&c, &r, &err) == VGS_OK && r.energy_max == -5);
}

/* Every field: set, get, and set again gives the same; wrong texts are refused and change nothing. */
static void fields(void)
{
    static const char *const words[] = { "linear", "vp", "l1", "egnn", "sorted", "diagonal", "policy",
                                         "dxdp", "pis" };
    static const char *const wrong[] = { "", " 1", "1 ", "one", "1x", "nan", "inf", "1e999", "--1" };
    vgs_config c, again;
    vgs_error err = { VGS_OK, "" };
    char text[32], back[32], allowed[64];
    int i, n = 0;
    size_t k, w;
    memset(&c, 0, sizeof c);
    for (i = 0; vgs_field_name(i); ++i, ++n) {
        const char *name = vgs_field_name(i);
        bool set = false;
        T_IN("field %s", name);
        OK(vgs_field_help(i) && vgs_field_help(i)[0]);
        vgs_field_allowed(i, allowed);
        CHECK(allowed[0], "what it can be is not said");
        for (k = 0; !set && k < sizeof words / sizeof *words; ++k) {
            snprintf(text, sizeof text, "%s", words[k]);
            set = vgs_field_set(&c, name, text, &err) == VGS_OK;
        }
        for (k = 0; !set && k < 3; ++k) {
            snprintf(text, sizeof text, "%s", k == 0 ? "0.0137499999" : k == 1 ? "1234567" : "1");
            set = vgs_field_set(&c, name, text, &err) == VGS_OK;
        }
        CHECK(set, "nothing can be set");
        vgs_field_get(&c, i, text);
        again = c;
        OK(vgs_field_set(&again, name, text, &err) == VGS_OK && !memcmp(&c, &again, sizeof c));
        vgs_field_get(&again, i, back);
        CHECK(!strcmp(text, back) && strcmp(text, "0"), "%s, then %s", text, back);
        for (w = 0; w < sizeof wrong / sizeof *wrong; ++w) {
            CHECK(vgs_field_set(&again, name, wrong[w], &err) == VGS_E_ARG && strstr(err.msg, name),
                  "'%s' was taken: %s", wrong[w], err.msg);
            OK(!memcmp(&c, &again, sizeof c));
        }
    }
    OK(n >= 34 && !vgs_field_name(-1) && !vgs_field_help(n));
    for (i = -1; i <= n; i += n + 1) {
        vgs_field_allowed(i, allowed);
        vgs_field_get(&c, i, text);
        CHECK(!allowed[0] && !text[0], "field %d: %s, %s", i, allowed, text);
    }
    OK(vgs_field_set(&c, "no_such", "1", &err) == VGS_E_ARG && strstr(err.msg, "no_such"));
    OK(vgs_field_set(&c, "seed", "18446744073709551615", &err) == VGS_OK && c.seed == UINT64_MAX);
    OK(vgs_field_set(&c, "seed", "18446744073709551616", &err) == VGS_E_ARG &&
       vgs_field_set(&c, "seed", "-1", &err) == VGS_E_ARG);
    OK(vgs_field_set(&c, "steps", "1.5", &err) == VGS_E_ARG &&
       vgs_field_set(&c, "relu", "2", &err) == VGS_E_ARG);
    OK(vgs_field_set(&c, "steps", "99999999999", &err) == VGS_E_ARG);
}

/* Resolving twice is resolving once; the defaults are those of the comments. */
static void resolve(void)
{
    static const vgs_net_kind kind[2] = { VGS_NET_MLP, VGS_NET_EGNN };
    int k, vp;
    for (k = 0; k < 2; ++k)
        for (vp = 0; vp < 2; ++vp) {
            vgs_config c, once, twice;
            vgs_error err = { VGS_OK, "" };
            memset(&c, 0, sizeof c);
            c.energy.eval = none_energy;
            c.energy.dim = 6;
            c.energy.particles = k ? 3 : 0;
            c.net.kind = kind[k];
            c.alpha = vp ? VGS_VP : VGS_VE;
            T_IN("defaults of kind %d, %s", (int)kind[k], vp ? "vp" : "ve");
            memset(&once, 0, sizeof once);
            memset(&twice, 0, sizeof twice);
            CHECK(vgs_config_resolve(&c, &once, &err) == VGS_OK, "%s", err.msg);
            CHECK(vgs_config_resolve(&once, &twice, &err) == VGS_OK, "%s", err.msg);
            OK(!memcmp(&once, &twice, sizeof once));
            OK(once.batch == 128 && once.passes == 1 && once.tau == 1 && once.explore == 1 &&
               once.value_lr == 5e-4f);
            OK(once.loss == VGS_SMOOTH_L1 && once.grad_max == 1 && once.length_scale == 1 &&
               once.detail_scale == 0.1f);
            OK(vgs__config_effective_dim(&once) == (k ? 4 : 6) && once.steps >= 20 && once.steps <= 100 &&
               once.target_ema == 0.9f && once.lambda == 0.9f && !once.published && !once.fixed_kernel);
            c.published = true;
            CHECK(vgs_config_resolve(&c, &once, &err) == VGS_OK, "%s", err.msg);
            OK(once.lambda == 0 && once.target_ema == 0 && once.fixed_kernel && once.explicit_drift);
            OK(once.net.hidden == 128 && once.net.layers == (k ? 2 : 3) && once.net.time_dim == 64 &&
               once.net.dim == 6);
            OK(once.s2_start > once.s2_end && once.s2_end > 0 && (!vp || once.s2_start < 1));
        }
}

/* ---- energy calls ---------------------------------------------------------------------------------- */

typedef struct counted { bowl bowl; double rows; } counted;

static int counted_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    counted *c = (counted *)user;
    c->rows += n;
    return bowl_energy(&c->bowl, x, n, dim, e, g);
}

/* energy_calls is every row that training asks for; what statistics take of `batch` rows is not in it: a last
   drift, a weight and an energy for each. */
static void energy_calls(void)
{
    static const struct {
        bool published, learned;
        int passes, replay, refine;
        float explore, slope;
    } list[] = { { true, false, 1, 0, 0, 1, 0 },    { true, false, 3, 0, 0, 1.5f, 0 },
                 { false, true, 1, 0, 0, 1, 0 },    { false, false, 2, 0, 0, 1.3f, 0 },
                 { false, true, 1, 4, 0, 1, 0 },    { false, true, 1, 4, 3, 1, 0 },
                 { false, true, 1, 4, 3, 1.3f, 0 }, { false, false, 1, 0, 0, 1, 1 } };
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        counted count;
        vgs_config c = small(&count.bowl);
        vgs_sampler *s;
        vgs_stats stats;
        double training;
        c.energy.eval = counted_energy;
        c.energy.user = &count;
        c.published = c.explicit_drift = list[i].published;
        c.fixed_kernel = !list[i].learned;
        c.passes = list[i].passes;
        c.replay = list[i].replay;
        c.refine = list[i].refine;
        c.explore = list[i].explore;
        c.slope_loss = list[i].slope;
        s = create(&c);
        T_IN("row %d", (int)i);
        count.rows = 0;
        train(s, 11, NULL);
        training = count.rows;
        train(s, 0, &stats);
        CHECK(stats.energy_calls == training, "%g energy calls, but the callback saw %g rows",
              stats.energy_calls, training);
        CHECK(count.rows == training + 3 * 64, "%g rows for the statistics", count.rows - training);
        vgs_sampler_free(s);
    }
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(parameters_in_record);
    RUN(gaussian_value);
    RUN(draws);
    RUN(explore);
    RUN(explored_part);
    RUN(kept_weights);
    RUN(noised_back);
    RUN(slope_targets);
    RUN(slope_gradient);
    RUN(refined);
    RUN(fresh_targets);
    RUN(weight_of_one_step);
    RUN(weights_are_unbiased);
    RUN(returns);
    RUN(factors);
    RUN(factors_beside_local_noise);
    RUN(local_covariance);
    RUN(factors_of_bad_energies);
    RUN(drift_max);
    RUN(mean_free);
    RUN(sphere);
    RUN(energy_max);
    RUN(energy_max_border);
    RUN(walls);
    RUN(walls_refused);
    RUN(infinite_energies);
    RUN(bad_energies);
    RUN(flag_does_not_stay);
    RUN(cancel);
    RUN(out_of_range);
    RUN(out_of_range_others);
    RUN(fields);
    RUN(resolve);
    RUN(energy_calls);
    return t_end();
}
