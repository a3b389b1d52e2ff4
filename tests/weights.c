/* cc -O2 tests/weights.c -o weights -lm && ./weights
   Can the samples be trusted? Path weights both ways against densities in double, estimates against ArviZ and
   scipy (vectors/weights.h), twisted SMC against the normalisation that it must have on average. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "t.h"
#include "vectors/weights.h"
#include <stdlib.h>

#define TWO_PI 6.283185307179586

/* E = k |x|^2 / 2, or that of the mean-free part of particles in the plane. */
typedef struct bowl { double k; int particles; } bowl;

static int bowl_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    const bowl *b = (const bowl *)user;
    int i, j;
    for (i = 0; i < n; ++i) {
        double mean[2] = { 0, 0 }, sum = 0;
        for (j = 0; b->particles && j < dim; ++j) mean[j % 2] += (double)x[i * dim + j] / b->particles;
        for (j = 0; j < dim; ++j) {
            double v = (double)x[i * dim + j] - mean[j % 2];
            sum += v * v;
            if (g) g[i * dim + j] = (float)(b->k * v);
        }
        e[i] = (float)(b->k * sum / 2);
    }
    return 0;
}

static vgs_config small(bowl *b, double k, int particles)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    b->k = k;
    b->particles = particles;
    c.energy.eval = bowl_energy;
    c.energy.user = b;
    c.energy.dim = particles ? 2 * particles : 2;
    c.energy.particles = particles;
    c.steps = 5;
    c.s2_start = 0.3f;
    c.s2_end = 0.1f;
    c.init_sigma = 1;
    c.batch = 64;
    c.net.hidden = 16;
    c.net.time_dim = 8;
    c.seed = 1;
    c.threads = 1;
    return c;
}

static vgs_sampler *create(const vgs_config *c)
{
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) exit(t_end());
    return s;
}

static vgs_draw plain(double *log_weight)
{
    vgs_draw d;
    memset(&d, 0, sizeof d);
    d.log_weight = log_weight;
    return d;
}

static bool went_well(vgs_status st, const vgs_error *err) { return CHECK(st == VGS_OK, "%s", err->msg); }

/* E = |x|^2/2 + the constant: of -1e8 a float keeps multiples of 8. */
static int shifted_bowl(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    for (i = 0; i < n; ++i) {
        e[i] = *(const double *)user;
        for (j = 0; j < dim; ++j) {
            double v = x[i * dim + j];
            e[i] += v * v / 2;
            if (g) g[i * dim + j] = v;
        }
    }
    return 0;
}

/* A constant in a double energy costs no digits in weights (of draws, populations, scores), log Z and
   statistics. */
static void constant_in_energy(void)
{
    enum { N = 200 };
    static const double constant[2] = { 0, -1e8 };
    static float x[2][N * 2];
    static double lw[2][3][N];
    vgs_stats st[2];
    vgs_weights w[2];
    vgs_error err = { VGS_OK, "" };
    bowl b;
    double worst[3] = { 0, 0, 0 };
    int k, i;
    for (k = 0; k < 2; ++k) {
        vgs_config c = small(&b, 1, 0);
        double now = constant[k];
        vgs_draw d = plain(lw[k][0]);
        vgs_sampler *s;
        c.energy.eval = NULL;
        c.energy.eval64 = shifted_bowl;
        c.energy.user = &now;
        c.tau = 2;
        s = create(&c);
        went_well(vgs_sampler_draw(s, &d, N, x[k], &err), &err);
        went_well(vgs_sampler_score(s, NULL, N, x[k], lw[k][1], &err), &err);
        went_well(vgs_weigh(lw[k][0], N, &w[k], &err), &err);
        d.log_weight = lw[k][2];
        d.resample = 0.9f;
        went_well(vgs_sampler_draw(s, &d, N, x[k], &err), &err);
        went_well(vgs_sampler_train(s, 0, &st[k], &err), &err);
        vgs_sampler_free(s);
    }
    OK(!memcmp(x[0], x[1], sizeof x[0]));
    for (k = 0; k < 3; ++k)
        for (i = 0; i < N; ++i) worst[k] = fmax(worst[k], fabs(lw[1][k][i] - lw[0][k][i] - 0.5e8));
    CHECK(worst[0] < 1e-6 && worst[1] < 1e-6 && worst[2] < 1e-6, "log weights off by %g, %g, %g", worst[0],
          worst[1], worst[2]);
    CHECK_NEAR(w[1].log_z - 0.5e8, w[0].log_z, 0, 1e-6);
    CHECK_NEAR(w[1].ess, w[0].ess, 0, 1e-6);
    CHECK_NEAR(st[1].elbo - 0.5e8, st[0].elbo, 0, 1e-6);
    CHECK_NEAR(st[1].energy_mean + 1e8, st[0].energy_mean, 0, 1e-6);
    CHECK_NEAR(st[1].energy_median + 1e8, st[0].energy_median, 0, 1e-6);
    CHECK_NEAR(st[1].energy_max + 1e8, st[0].energy_max, 0, 1e-6);
}

/* ---- densities of paths -------------------------------------------------------------------------------- */

/* A network of one layer without time: V = out . silu(in u), for the mlp of create() below. */
enum { HIDDEN = 16, MOST = 6 };
typedef struct known { float in[HIDDEN][MOST], out[HIDDEN]; } known;

static void set_weights(const vgs_sampler *s, const char *name, const float *from, int stride, float *w)
{
    int i, j, k;
    const vgs_param_info *p;
    for (i = 0; (p = vgs_model_param(s->target, i)) != NULL; ++i) {
        int rows = p->rows ? p->rows : 1;
        if (strcmp(p->name, name)) continue;
        for (j = 0; j < rows; ++j)
            for (k = 0; k < p->cols; ++k) w[p->offset + j * p->cols + k] = from[j * stride + k];
        return;
    }
    CHECK(false, "the network has no %s", name);
}

/* The value is the base |x|^2 / (2 v_t) and this network; factors of our own change every step. */
static void make_known(vgs_sampler *s, const known *net, float *factor)
{
    int p = vgs_model_size(s->target), n = (int)vgs__sampler_factor_count(s), i;
    float *w = (float *)calloc((size_t)p, sizeof *w);
    for (i = 0; i < n; ++i)
        factor[i] = i / s->factors % 2 ? 0.8f + 0.03f * (float)i : 0.9f - 0.01f * (float)i;
    set_weights(s, "fc1.weight", net->in[0], MOST, w);
    set_weights(s, "out.weight", net->out, HIDDEN, w);
    OK(!vgs_model_write(s->target, w, NULL));
    OK(!s->b->upload(s->b->self, s->factor, 0, factor, (size_t)n, VGS_F32, NULL));
    free(w);
}

/* v_t */
static double base_variance(const vgs_sampler *s, int t)
{
    double v = pow((double)s->c.length_scale, 2);
    int i;
    for (i = s->c.steps - 1; i >= t; --i) v = v / pow((double)s->a[i], 2) + (double)s->s2[i];
    return v;
}

static void remove_mean(const vgs_sampler *s, double *x)
{
    int d = s->c.energy.dim, n = s->c.energy.particles, j, c;
    for (c = 0; n && c < 2; ++c) {
        double mean = 0;
        for (j = c; j < d; j += 2) mean += x[j] / n;
        for (j = c; j < d; j += 2) x[j] -= mean;
    }
}

/* grad V_t(x): of the base and of the network, which sees u = x / sqrt(1 + x^2 / (16 v_t)) */
static void slope_in_double(const vgs_sampler *s, const known *net, int t, const double *x, double *g)
{
    double v = base_variance(s, t), u[MOST], du[MOST];
    int d = s->c.energy.dim, j, k;
    for (j = 0; j < d; ++j) {
        double root = sqrt(1 + x[j] * x[j] / (16 * v));
        u[j] = x[j] / root;
        du[j] = 1 / (root * root * root);
        g[j] = x[j] / v;
    }
    for (k = 0; k < HIDDEN; ++k) {
        double z = 0, sigmoid;
        for (j = 0; j < d; ++j) z += (double)net->in[k][j] * u[j];
        sigmoid = 1 / (1 + exp(-z));
        for (j = 0; j < d; ++j)
            g[j] += (double)net->out[k] * sigmoid * (1 + z * (1 - sigmoid)) * (double)net->in[k][j] * du[j];
    }
    remove_mean(s, g);
}

/* The drift of step t at x: the slope, or that of E, times s^2 a or s^2 a^2; limited. */
static void drift_in_double(const vgs_sampler *s, const known *net, int t, const float *x, double curvature,
                            double *mu)
{
    double a = (double)s->a[t], s2 = (double)s->s2[t], norm = 0, limit, at[MOST];
    int d = s->c.energy.dim, last = t == s->c.steps - 1, j;
    bool ahead = last || s->c.explicit_drift;
    for (j = 0; j < d; ++j) at[j] = (ahead ? a : 1) * (double)x[j];
    if (!last) slope_in_double(s, net, s->c.explicit_drift ? t + 1 : t, at, mu);
    for (j = 0; j < d; ++j) {
        mu[j] = (last ? curvature * at[j] : mu[j]) * s2 * a * (ahead ? a : 1);
        norm += mu[j] * mu[j];
    }
    limit = (double)s->c.drift_max * sqrt(s2 * s->dim) * a;
    for (j = 0; j < d && sqrt(norm) > limit; ++j) mu[j] *= limit / sqrt(norm);
}

/* The covariance of local_noise, I - s_t^2 V'' / tau, from slopes a step h apart; none is near the limits. */
static void covariance_in_double(const vgs_sampler *s, const known *net, int t, const float *x,
                                 double c[MOST][MOST])
{
    double s2 = (double)s->s2[t], h = 0.25 * sqrt(s2), here[MOST], there[MOST], v[MOST][MOST];
    int d = s->c.energy.dim, i, j;
    for (i = 0; i < d; ++i) there[i] = (double)x[i];
    slope_in_double(s, net, t, there, here);
    for (j = 0; j < d; ++j) {
        double step[MOST] = { 0 };
        step[j] = h;
        remove_mean(s, step);
        for (i = 0; i < d; ++i) step[i] += (double)x[i];
        slope_in_double(s, net, t, step, there);
        for (i = 0; i < d; ++i) v[i][j] = (there[i] - here[i]) / h;
    }
    for (i = 0; i < d; ++i) remove_mean(s, v[i]);
    for (i = 0; i < d; ++i)
        for (j = 0; j < d; ++j) c[i][j] = (i == j) - s2 * (v[i][j] + v[j][i]) / 2;
}

/* z^T C^-1 z + log det C, by C = L L^T */
static double gaussian_in_double(int d, double c[MOST][MOST], const double *z)
{
    double l[MOST][MOST], y[MOST], sum = 0;
    int i, j, k;
    for (i = 0; i < d; ++i) {
        for (j = 0; j <= i; ++j) {
            l[i][j] = c[i][j];
            for (k = 0; k < j; ++k) l[i][j] -= l[i][k] * l[j][k];
            l[i][j] = i == j ? sqrt(l[i][j]) : l[i][j] / l[j][j];
        }
        y[i] = z[i];
        for (k = 0; k < i; ++k) y[i] -= l[i][k] * y[k];
        y[i] /= l[i][i];
        sum += y[i] * y[i] + 2 * log(l[i][i]);
    }
    return sum;
}

/* log of q(x_T) prod qt / (p0(x_0) prod pi) for row i of a path [T+1,n,d], densities written out; D = 2 or
   4. */
static double weight_in_double(const vgs_sampler *s, const known *net, const float *factor, const float *path,
                               int n, int i, double curvature)
{
    int d = s->c.energy.dim, f = s->factors, t, j;
    double dim = s->dim, s0 = (double)s->c.init_sigma, w = 0, mu[MOST], z[MOST], c[MOST][MOST];
    for (j = 0; j < d; ++j) {
        double first = (double)path[i * d + j], end = (double)path[(s->c.steps * n + i) * d + j];
        w += first * first / (2 * s0 * s0) - curvature * end * end / 2;
    }
    w += dim / 2 * log(TWO_PI * s0 * s0);
    for (t = 0; t < s->c.steps; ++t) {
        const float *x = path + (t * n + i) * d, *y = x + n * d;
        double a = (double)s->a[t], s2 = (double)s->s2[t], log_rho = 0, square = 0;
        drift_in_double(s, net, t, x, curvature, mu);
        for (j = 0; j < d; ++j) {
            double kappa = (double)factor[2 * t * f + j % f], root = (double)factor[(2 * t + 1) * f + j % f];
            double back = (double)x[j] - (double)y[j] / a;
            z[j] = ((double)y[j] - a * (double)x[j] + kappa * mu[j]) / (sqrt(s2) * a * root);
            log_rho += 2 * log(root) / d;
            square += z[j] * z[j];
            w -= back * back / (2 * s2);
        }
        w += dim / 2 * (log(TWO_PI * s2 * a * a) + log_rho - log(TWO_PI * s2));
        if (s->c.local_noise && t < s->c.steps - 1) {
            covariance_in_double(s, net, t, x, c);
            square = gaussian_in_double(d, c, z);
        }
        w += square / 2;
    }
    return w;
}

static void densities(void)
{
    enum { N = 600, T = 5 };                     /* more rows than fit at once                        */
    static float path[(T + 1) * N * 6], ref[N * 6], x[N * 6], factor[4 * T * 6];
    static double lw[N];
    int k, i;
    for (k = 0; k < 16; ++k) {                   /* from 8 on local_noise, from 12 on a network       */
        bowl b;
        bool points = k < 4 || k == 8 || k == 9 || k == 12 || k == 13;
        vgs_config c = small(&b, 2, points ? 0 : 3);
        vgs_error err = { VGS_OK, "" };
        vgs_rng r = { 5, 0, 0 };
        vgs_sampler *s;
        vgs_draw d = plain(NULL);
        known net;
        memset(&net, 0, sizeof net);
        if (k >= 12) vgs_rng_normals(&r, net.in[0], HIDDEN * MOST);
        if (k >= 12) vgs_rng_normals(&r, net.out, HIDDEN);
        for (i = 0; i < HIDDEN * MOST; ++i) net.in[i / MOST][i % MOST] *= 0.6f;
        for (i = 0; i < HIDDEN; ++i) net.out[i] *= 0.3f;
        c.alpha = k % 2 ? VGS_VP : VGS_VE;
        c.explicit_drift = k < 8 && k / 2 % 2;
        c.local_noise = k >= 8;
        c.drift_max = 0.3f;                      /* some rows are limited                             */
        c.energy_max = 1e20f;
        c.net.x_scale = 1;
        c.net.layers = 1;
        s = create(&c);
        make_known(s, &net, factor);
        T_IN("case %d", k);
        vgs_rng_normals(&r, ref, N * 6);
        for (i = 0; i < N * 6; ++i) ref[i] = 0.8f * ref[i] + 3.0f * !points;    /* the mean comes off */
        d.path = path;
        went_well(vgs_sampler_score(s, &d, N, ref, lw, &err), &err);
        for (i = 0; i < N; ++i)
            if (!CHECK_NEAR(lw[i], weight_in_double(s, &net, factor, path, N, i, 2), 1e-5, 1e-4)) break;
        if (points) OK(!memcmp(path + T * N * 2, ref, N * 2 * sizeof *ref));
        else CHECK_NEAR((double)path[0] + (double)path[2] + (double)path[4], 0, 0, 1e-5);
        d.log_weight = lw;                       /* and a draw, by the same formula                    */
        went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
        for (i = 0; i < N; ++i)
            if (!CHECK_NEAR(lw[i], weight_in_double(s, &net, factor, path, N, i, 2), 1e-5, 1e-4)) break;
        vgs_sampler_free(s);
    }
}

/* The noising chain itself: x_t of a constant reference is a Gaussian whose moments are known. */
static void chain(void)
{
    enum { N = 20000, T = 5 };
    static float path[(T + 1) * N * 2], ref[N * 2];
    static double lw[N];
    bowl b;
    vgs_config c = small(&b, 1, 0);
    vgs_error err = { VGS_OK, "" };
    vgs_draw d = plain(NULL);
    vgs_sampler *s;
    double scale = 1, var = 0;
    int t, i;
    c.alpha = VGS_VP;
    s = create(&c);
    for (i = 0; i < 2 * N; ++i) ref[i] = 3;
    d.path = path;
    went_well(vgs_sampler_score(s, &d, N, ref, lw, &err), &err);
    for (t = T - 1; t >= 0; --t) {
        double mean = 0, square = 0;
        scale /= (double)s->a[t];
        var = var / pow((double)s->a[t], 2) + (double)s->s2[t];
        for (i = 0; i < 2 * N; ++i) mean += (double)path[t * N * 2 + i] / (2 * N);
        for (i = 0; i < 2 * N; ++i) square += pow((double)path[t * N * 2 + i] - mean, 2) / (2 * N);
        CHECK(fabs(mean - 3 * scale) < 6 * sqrt(var / (2 * N)), "t %d: mean %g, want %g", t, mean, 3 * scale);
        CHECK(fabs(square / var - 1) < 6 / sqrt(N), "t %d: variance %g, want %g", t, square, var);
    }
    vgs_sampler_free(s);
}

/* The bits do not depend on threads, nor on how the rows are split. */
static void score_repeats(void)
{
    enum { N = 700 };
    static float ref[N * 2];
    static double whole[N], parts[N];
    bowl b;
    vgs_config c = small(&b, 2, 0);
    vgs_error err = { VGS_OK, "" };
    vgs_rng r = { 4, 0, 0 };
    int threads;
    vgs_rng_normals(&r, ref, N * 2);
    for (threads = 1; threads < 4; threads += 2) {
        vgs_draw d = plain(NULL);
        vgs_sampler *s;
        c.threads = threads;
        if (!(s = vgs_sampler_create(&c, NULL))) break;              /* a build without threads        */
        if (threads == 1) went_well(vgs_sampler_score(s, NULL, N, ref, whole, &err), &err);
        went_well(vgs_sampler_score(s, &d, 100, ref, parts, &err), &err);
        d.first_row = 100;
        went_well(vgs_sampler_score(s, &d, N - 100, ref + 200, parts + 100, &err), &err);
        OK(!memcmp(whole, parts, sizeof whole));
        d.seed = 77;
        went_well(vgs_sampler_score(s, &d, 1, ref, parts, &err), &err);
        OK(parts[0] != whole[0]);
        vgs_sampler_free(s);
    }
}

/* ---- log Z from both sides ----------------------------------------------------------------------------- */

static void both_sides(void)
{
    enum { N = 20000 };
    static float x[N * 6], ref[N * 6];
    static double lw[N];
    int k, i;
    for (k = 0; k < 4; ++k) {
        bowl b;
        vgs_config c = small(&b, 2, k % 2 ? 3 : 0);
        vgs_error err = { VGS_OK, "" };
        vgs_rng r = { 9, 0, 0 };
        vgs_draw d = plain(lw);
        vgs_sampler *s;
        vgs_weights w;
        vgs_forward f;
        char text[200];
        double log_z = log(TWO_PI / 2) * (k % 2 ? 2 : 1);
        T_IN("%s%s", k % 2 ? "particles" : "points", k > 1 ? ", corrected" : "");
        c.correct = k > 1 ? 3 : 0;
        c.init_sigma = 1.25f;                    /* of x_0, if the chain goes there                     */
        c.value_lr = 2e-3f;
        s = create(&c);
        went_well(vgs_sampler_train(s, 60, NULL, &err), &err);
        vgs_rng_normals(&r, ref, N * 6);
        for (i = 0; i < N * 6; ++i) ref[i] *= (float)sqrt(0.5);      /* exact samples; a mean is noise too */
        went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
        OK(!vgs_weigh(lw, N, &w, NULL));
        went_well(vgs_sampler_score(s, NULL, N, ref, lw, &err), &err);
        OK(!vgs_weigh_forward(lw, N, &f, NULL));
        CHECK(fabs(w.log_z - log_z) < 6 * w.log_z_se && w.log_z_se < 0.01, "log Z %g +- %g, want %g", w.log_z,
              w.log_z_se, log_z);
        CHECK(fabs(f.log_z - log_z) < 6 * f.log_z_se && f.log_z_se < 0.01, "forward log Z %g +- %g, want %g",
              f.log_z, f.log_z_se, log_z);
        CHECK(w.elbo < log_z && f.eubo > log_z, "ELBO %g, log Z %g, EUBO %g", w.elbo, log_z, f.eubo);
        OK(f.ess > (k > 1 ? 0.3 : 0.5) && f.ess <= 1 && f.khat < 0.7 && f.n == N && f.eubo_se < 0.01);
        vgs_weights_say(&w, &f, text);
        CHECK(strstr(text, "agree within") != NULL, "%s", text);
        vgs_sampler_free(s);
    }
}

/* A sampler of the right half of four-gauss: what it draws is fine, so only the reference can tell. */
static int half_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    const target *t = target_find("four-gauss");
    int i, bad = t->eval(user, x, n, dim, e, g);
    for (i = 0; i < n; ++i) {
        float u = x[2 * i] < 0 ? x[2 * i] : 0;
        e[i] += 20 * u * u;
        if (g) g[2 * i] += 40 * u;
    }
    return bad;
}

static void missing_modes(void)
{
    enum { N = 4000 };
    static float x[N * 2], ref[N * 2];
    static double lw[N];
    const target *t = target_find("four-gauss");
    vgs_error err = { VGS_OK, "" };
    vgs_rng r = { 3, 0, 0 };
    vgs_draw d = plain(lw);
    vgs_config c;
    vgs_sampler *s;
    vgs_weights w;
    vgs_forward f;
    char text[200];
    memset(&c, 0, sizeof c);
    c.energy = target_energy(t);
    c.energy.eval = half_energy;
    c.length_scale = 2;
    c.detail_scale = 0.4f;
    c.net.hidden = 32;
    c.net.time_dim = 16;
    c.batch = 128;
    c.value_lr = 2e-3f;
    s = create(&c);
    went_well(vgs_sampler_train(s, 150, NULL, &err), &err);
    s->c.energy.eval = t->eval;                  /* what it is weighed by, and the last drift          */
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    OK(!vgs_weigh(lw, N, &w, NULL) && !target_sample(t, &r, N, ref, NULL));
    went_well(vgs_sampler_score(s, NULL, N, ref, lw, &err), &err);
    OK(!vgs_weigh_forward(lw, N, &f, NULL));
    CHECK_NEAR(w.log_z, log(0.5), 0, 0.1);       /* log Z of what it finds                             */
    CHECK(w.ess > 0.1, "ESS/N %g", w.ess);
    CHECK(f.log_z - w.log_z > 0.5 && f.eubo - w.elbo > 3, "forward %g, EUBO %g", f.log_z, f.eubo);
    vgs_weights_say(&w, &f, text);
    CHECK(strstr(text, "part of the target is not reached, about 5") && strstr(text, "disagree by 0."), "%s",
          text);
    OK(vgs_weights_verdict(&w, &f) == VGS_VERDICT_UNUSABLE);
    vgs_weights_say(&w, NULL, text);
    CHECK(strstr(text, "is not reached") == NULL, "%s", text);
    vgs_sampler_free(s);
}

/* ---- what vgs_weigh says ------------------------------------------------------------------------------- */

static void golden_values(void)
{
    size_t k;
    int i;
    for (k = 0; k < sizeof golden_weights / sizeof *golden_weights; ++k) {
        const golden *g = golden_weights + k;
        double minus[500];
        vgs_weights w;
        vgs_forward f;
        T_IN("%s", g->name);
        OK(vgs_weigh(g->lw, g->n, &w, NULL) == VGS_OK && w.n == g->n);
        CHECK_NEAR(w.log_z, g->log_z, 0, 1e-9);
        CHECK_NEAR(w.log_z_se, g->log_z_se, 0, 1e-9);
        CHECK_NEAR(w.elbo, g->elbo, 0, 1e-9);
        CHECK_NEAR(w.ess, g->ess, 0, 1e-9);
        CHECK_NEAR(w.khat, g->khat, 0, 1e-8);
        for (i = 0; i < g->n; ++i) minus[i] = -g->lw[i];
        OK(vgs_weigh_forward(minus, g->n, &f, NULL) == VGS_OK && f.n == g->n);
        OK(f.log_z == -w.log_z && f.log_z_se == w.log_z_se && f.eubo == -w.elbo && f.eubo_se == w.elbo_se);
        OK(f.ess == w.ess && f.khat == w.khat);
    }
}

static void weigh(void)
{
    double lw[40];
    vgs_weights w;
    vgs_forward f;
    vgs_error err = { VGS_OK, "" };
    char text[200];
    int i;
    for (i = 0; i < 40; ++i) lw[i] = 1000 + log(i % 2 ? 3.0 : 1.0);
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK);
    CHECK_NEAR(w.log_z, 1000 + log(2.0), 1e-14, 0);
    CHECK_NEAR(w.elbo, 1000 + log(3.0) / 2, 1e-14, 0);
    CHECK_NEAR(w.ess, 4.0 / 5, 1e-12, 0);
    CHECK_NEAR(w.elbo_se, log(3.0) / 2 / sqrt(39.0), 1e-9, 0);
    CHECK_NEAR(w.log_z_se, 0, 0, 1e-12);         /* each of the 20 blocks has one of both             */
    for (i = 0; i < 40; ++i) lw[i] = log(i < 20 ? 3.0 : 1.0);
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK);
    CHECK_NEAR(w.log_z_se, 0.5 / sqrt(19.0), 1e-12, 0);
    for (i = 0; i < 40; ++i) lw[i] = i < 30 ? -(double)INFINITY : 0;             /* 30 are outside     */
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK && w.log_z == log(0.25) && w.ess == 0.25 && w.inside == 0.25);
    OK(w.elbo == log(0.25) && w.khat == 0);      /* as many as the tail has are equal                 */
    CHECK_NEAR(w.elbo_se, sqrt(0.75 / 10), 1e-12, 0);
    for (i = 30; i < 40; ++i) lw[i] = i % 2;
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK && w.elbo <= w.log_z);
    CHECK_NEAR(w.elbo, log(0.25) + 0.5, 1e-12, 0);
    CHECK_NEAR(w.elbo_se, sqrt(0.25 / 9 + 0.75 / 10), 1e-12, 0);
    for (i = 0; i < 40; ++i) lw[i] = -7;         /* all the same: a perfect sampler                    */
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK && w.ess == 1 && w.log_z == -7 && w.khat == 0 && w.elbo_se == 0);
    lw[3] = 1e4;                                 /* one dominates                                      */
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK && w.ess == 1.0 / 40 && w.khat == (double)INFINITY);
    CHECK_NEAR(w.log_z, 1e4 - log(40.0), 1e-14, 0);
    vgs_weights_say(&w, NULL, text);
    CHECK(strstr(text, "one of 40 weights outweighs") != NULL, "%s", text);
    for (i = 0; i < 40; ++i) lw[i] = -(double)INFINITY;
    OK(vgs_weigh(lw, 40, &w, NULL) == VGS_OK && w.ess == 1.0 / 40 && w.log_z == lw[0] && w.elbo == lw[0]);
    OK(w.log_z_se == (double)INFINITY && w.elbo_se == (double)INFINITY && w.khat == (double)INFINITY);
    vgs_weights_say(&w, NULL, text);
    CHECK(strstr(text, "all 40 weights are 0") != NULL, "%s", text);
    OK(vgs_weigh_forward(lw, 40, &f, &err) == VGS_E_NONFINITE && strstr(err.msg, "log_weight[0]"));
    OK(vgs_weigh(lw, 1, &w, NULL) == VGS_OK && w.ess == 1);
    lw[7] = (double)NAN;
    OK(vgs_weigh(lw, 40, &w, &err) == VGS_E_NONFINITE && strstr(err.msg, "log_weight[7]"));
    OK(vgs_weigh(lw, 0, &w, &err) == VGS_E_ARG && strstr(err.msg, "n = 0"));
}

/* What the pilot has found and draws do not, beside the error of log Z. */
static void sentences_of_missed(void)
{
    vgs_weights w = { 0, 0.001, -3, 0.1, 0.9, 0.2, 10000, 1, VGS_VERDICT_UNKNOWN, 0.004 };
    char text[200];
    vgs_weights_say(&w, NULL, text);
    CHECK(strstr(text, "caution: where 0.4 % of the pilot's samples lie draws hardly come"), "%s", text);
    OK(vgs_weights_verdict(&w, NULL) == VGS_VERDICT_CAUTION);
    w.missed = 0.002;
    OK(vgs_weights_verdict(&w, NULL) == VGS_VERDICT_USABLE);
}

static void sentences(void)
{
    static const struct { double log_z, se, ess, khat, forward, forward_se; const char *words; } list[] = {
        { -2.1, 0.01, 0.5, 0.3, 0, 0.01, "2.1 nats: part of the target is not reached, about 88 %" },
        { -2.1, 0.01, 0.01, 0.9, 0, 0.01, "of its mass, or too few weights count" },
        { 0, 0.01, 0.02, 0.6, 0, 0.01, "ESS/N 0.02 is below 0.03" },
        { 0, 0.01, 0.05, 0.6, 0, 0.01, "caution: few weights count (ESS/N 0.05 is below 0.1)" },
        { 0, 0.01, 0.1, 0.7, 0, 0.01, "can be used (ESS/N 0.1, k-hat 0.70" },
        { 0, 0.01, 0.59, 0.67, 0, 0.01, "caution: the weights have a heavy tail (k-hat 0.67 at ESS/N 0.59)" },
        { 0, 0.01, 0.59, 0.5, 0, 0.01, "can be used" },
        { 0.4, 0.01, 0.5, 0.3, 0, 0.01, "disagree by 0.4 nats: the weights, or the reference" },
        { -0.2, 0.1, 0.5, 0.3, 0, 0.01, "agree within 0.2 nats" },
        { 0, 0.1, 0.05, 0.8, 0, 0.1, "k-hat 0.80 is above 0.7" },
        { -0.5, 0.4, 0.9, 0.2, 0, 0.1, "caution: parts of the weights disagree (log Z +- 0.4" },
        { 0, 0.001, 0.8, 0.2, 0, 0.001, "can be used (ESS/N 0.8" },
    };
    size_t k;
    for (k = 0; k < sizeof list / sizeof *list; ++k) {
        vgs_weights w = { list[k].log_z, list[k].se, -3, 0.1, list[k].ess, list[k].khat, 10000, 1,
                          VGS_VERDICT_UNKNOWN, 0 };
        vgs_forward f = { list[k].forward, list[k].forward_se, 3, 0.1, 0.5, 0.2, 10000, 1 };
        char text[200];
        vgs_verdict v = vgs_weights_verdict(&w, &f);
        vgs_weights_say(&w, &f, text);
        CHECK(strstr(text, list[k].words) != NULL, "%d: %s", (int)k, text);
        OK((v == VGS_VERDICT_USABLE) == (strstr(text, "can be used") != NULL));
        OK((v == VGS_VERDICT_CAUTION) == (strncmp(text, "caution", 7) == 0));
        f.khat = 0.85;
        vgs_weights_say(NULL, &f, text);
        CHECK(strstr(text, "large forward weights decide") != NULL, "%s", text);
    }
}

static double normal(vgs_rng *r)
{
    float z;
    vgs_rng_normals(r, &z, 1);
    return (double)z;
}

/* Few rows and ties: what cannot be judged is not called wrong. One of few rows always outweighs the rest. */
static void few_and_ties(void)
{
    static double lw[1000];
    vgs_weights w;
    vgs_rng r = { 8, 0, 0 };
    char text[200];
    int n, i;
    for (n = 1; n <= 25; n += n < 3 ? 1 : 11) {
        for (i = 0; i < n; ++i) lw[i] = 0.3 * i;
        OK(!vgs_weigh(lw, n, &w, NULL));
        vgs_weights_say(&w, NULL, text);
        CHECK((strstr(text, "too few to judge") != NULL) == (n < 25), "%d rows: %s", n, text);
        OK((w.verdict == VGS_VERDICT_UNKNOWN) == (n < 25));
    }
    for (i = 0; i < 1000; ++i) lw[i] = log(i % 2 ? 3.0 : 1.0);       /* the largest are all equal      */
    OK(!vgs_weigh(lw, 1000, &w, NULL) && w.khat == 0 && w.verdict == VGS_VERDICT_USABLE);
    lw[0] = lw[500] = 2;                         /* but two                                           */
    OK(!vgs_weigh(lw, 1000, &w, NULL) && w.verdict == VGS_VERDICT_UNKNOWN);
    vgs_weights_say(&w, NULL, text);
    CHECK(strstr(text, "equal but for a few") != NULL, "%s", text);
    for (i = 0; i < 1000; ++i) lw[i] = i % 4 ? normal(&r) / 10 : -(double)INFINITY;
    OK(!vgs_weigh(lw, 1000, &w, NULL) && w.inside == 0.75 && w.verdict == VGS_VERDICT_USABLE);
    vgs_weights_say(&w, NULL, text);
    CHECK(strstr(text, "25 % of the draws outside") != NULL, "%s", text);
    OK(!strcmp(vgs_verdict_name(VGS_VERDICT_UNKNOWN), "unknown") &&
       !strcmp(vgs_verdict_name(VGS_VERDICT_UNUSABLE), "unusable") &&
       !strcmp(vgs_verdict_name(VGS_VERDICT_CAUTION), "caution") &&
       !strcmp(vgs_verdict_name(VGS_VERDICT_USABLE), "usable"));
}

/* Log-normal weights are judged by their ESS; t-distributed targets seen by a normal sampler have a heavy
   tail at a good ESS, in most samples. */
static void heavy_tails(void)
{
    enum { N = 20000, SEEDS = 10 };
    static double lw[N];
    vgs_weights w;
    int kind, seed, i, warned[3] = { 0, 0, 0 };
    for (kind = 0; kind < 3; ++kind)             /* ESS/N .6; .2; a Cauchy density by draws of t, nu 3 */
        for (seed = 0; seed < SEEDS; ++seed) {
            vgs_rng r = { 0, 0, 0 };
            r.seed = (uint64_t)(10 * kind + seed);
            for (i = 0; i < N; ++i) {
                double z = normal(&r), t2;
                lw[i] = kind ? 1.27 * z : 0.71 * z;
                if (kind < 2) continue;
                t2 = 3 * z * z / (pow(normal(&r), 2) + pow(normal(&r), 2) + pow(normal(&r), 2));
                lw[i] = 2 * log(1 + t2 / 3) - log(1 + t2);
            }
            OK(!vgs_weigh(lw, N, &w, NULL));
            warned[kind] += w.verdict != VGS_VERDICT_USABLE;
        }
    CHECK(warned[0] == 0 && warned[1] <= 1 && warned[2] >= SEEDS / 2, "warnings: %d, %d, %d of %d", warned[0],
          warned[1], warned[2], SEEDS);
}

/* A sampler that leaves the half line x > 0 at times: N(0, 1) there, seen by draws of N(1, 1) with exact
   densities. Forward log Z knows P only if it is told; sentences do it themselves. */
static void inside_both_ways(void)
{
    enum { N = 20000 };
    static double lw[N], lf[N];
    vgs_rng r = { 4, 0, 0 };
    vgs_weights w;
    vgs_forward f, g;
    char text[200];
    double log_z = log(sqrt(TWO_PI) / 2);        /* of E = x^2/2                                      */
    int i;
    for (i = 0; i < N; ++i) {
        double x = 1 + normal(&r), y = fabs(normal(&r));
        lw[i] = x > 0 ? -x * x / 2 + (x - 1) * (x - 1) / 2 + log(TWO_PI) / 2 : -(double)INFINITY;
        lf[i] = -y * y / 2 + (y - 1) * (y - 1) / 2 + log(TWO_PI) / 2;
    }
    OK(!vgs_weigh(lw, N, &w, NULL) && !vgs_weigh_forward(lf, N, &f, NULL));
    OK(!vgs_weigh_forward_inside(lf, N, &w, &g, NULL));
    CHECK_NEAR(w.inside, 0.8413, 0, 0.01);
    CHECK(fabs(w.log_z - log_z) < 5 * w.log_z_se && fabs(g.log_z - log_z) < 5 * g.log_z_se &&
          g.log_z_se < 0.01 && f.log_z - log_z > 0.15, "log Z %g, forward %g, with P %g, true %g", w.log_z,
          f.log_z, g.log_z, log_z);
    OK(w.elbo < log_z && g.eubo > log_z && g.eubo < f.eubo && g.inside == w.inside && f.inside == 1);
    vgs_weights_say(&w, &f, text);
    CHECK(strstr(text, "agree within") && strstr(text, "% of the draws outside"), "%s", text);
    vgs_weights_say(&w, &g, text);
    CHECK(strstr(text, "agree within") != NULL, "%s", text);
    for (i = 0; i < N; ++i) lw[i] = -(double)INFINITY;
    OK(!vgs_weigh(lw, N, &w, NULL) && vgs_weigh_forward_inside(lf, N, &w, &g, NULL) == VGS_E_ARG);
}

/* ---- twisted SMC --------------------------------------------------------------------------------------- */

/* Zhat/Z over `runs` populations of n rows: mean 1, and by how much single ones are off. */
static void unbiased(vgs_sampler *s, float resample, int correct, int n, int runs, double log_z, float *x,
                     double *lw)
{
    vgs_error err = { VGS_OK, "" };
    vgs_draw d = plain(lw);
    double mean = 0, square = 0, se;
    int i, j, same = 0;
    d.resample = resample;
    d.correct = correct;
    for (i = 0; i < runs; ++i) {
        vgs_weights w;
        double z;
        d.first_row = (uint32_t)(i * n);
        if (!went_well(vgs_sampler_draw(s, &d, n, x, &err), &err) || vgs_weigh(lw, n, &w, NULL)) return;
        z = exp(w.log_z - log_z);
        mean += z / runs;
        square += z * z / runs;
    }
    se = sqrt((square - mean * mean) / runs);
    for (j = 1; j < n; ++j) same += x[2 * j] == x[2 * j - 2];
    CHECK(fabs(mean - 1) < 6 * se, "resample %g, correct %d: mean Zhat/Z = %g +- %g", (double)resample,
          correct, mean, se);
    CHECK(se < 0.02 && se > 1e-4, "the error %g of Zhat/Z says nothing", se);
    OK(!same);                                   /* the last step's noise parts rows of one ancestor   */
}

/* Rows of weights 0.2, 0.3, 0.5 (the value is part of them) are drawn 0.6, 0.9, 1.5 times on average. */
static void resampling(void)
{
    enum { RUNS = 20000 };
    static const float row[6] = { 0, 0, 1, 1, 2, 2 };
    float x[6], spare[6], scratch[3], v[3] = { 1, 2, 3 };
    double lw[3], share[3] = { 0.2, 0.3, 0.5 }, count[3] = { 0, 0, 0 }, max, sum;
    bowl b;
    vgs_config cfg = small(&b, 1, 0);
    vgs_sampler *s = create(&cfg);
    vgs_draw o = plain(lw);
    vgs__smc c;
    double w[3];
    bool fine = true;
    int which[3], k, i;
    memset(&c, 0, sizeof c);
    c.n = 3;
    c.r = vgs__draw_roll(s, &o, 0);
    c.r.x_stride = 3;
    c.x = x, c.spare = spare, c.row = scratch, c.v = v, c.log_weight = lw, c.w = w, c.which = which;
    for (k = 0; k < RUNS; ++k) {
        o.first_row = (uint32_t)k;
        for (i = 0; i < 3; ++i) lw[i] = 5 + log(share[i]) + (double)v[i];
        fine = fine && !s->b->upload(s->b->self, c.r.x, 0, row, 6, VGS_F32, NULL);
        fine = fine && fabs(vgs__smc_ess(&c, &max, &sum) - 1 / (3 * 0.38)) < 1e-12;
        fine = fine && !vgs__smc_resample(s, &c, &o, 0, max, sum, NULL);
        fine = fine && !s->b->download(s->b->self, x, c.r.x, 0, 6, VGS_F32, NULL);
        for (i = 0; i < 3; ++i) {
            count[(int)x[2 * i]] += 1.0 / RUNS;
            fine = fine && fabs(lw[i] - (5 - log(3.0) + (double)v[(int)x[2 * i]])) < 1e-12;
        }
    }
    CHECK(fine, "ESS, resampled rows or their weights");
    for (i = 0; i < 3; ++i) CHECK_NEAR(count[i], 3 * share[i], 0, 6 * 0.5 / sqrt(RUNS));
    vgs_sampler_free(s);
}

/* The network knows nothing, so nearly every step resamples. */
static void smc_is_unbiased(void)
{
    enum { N = 64, RUNS = 1000 };
    static float x[N * 2];
    double lw[N];
    const target *mix = target_find("four-gauss");
    bowl b;
    vgs_config c = small(&b, 2, 0);
    vgs_sampler *s;
    vgs_error err = { VGS_OK, "" };
    c.net.kind = VGS_NET_TEMB;                   /* a value without an integral                       */
    c.init_sigma = 1.5f;
    T_IN("Gaussian");
    s = create(&c);
    unbiased(s, 0.9f, -1, N, RUNS, log(TWO_PI / 2), x, lw);
    vgs_sampler_free(s);
    c.net.kind = VGS_NET_MLP;                    /* exp(-V_t) must have one for moves to go by        */
    s = create(&c);
    unbiased(s, 0.9f, 2, N, RUNS, log(TWO_PI / 2), x, lw);
    unbiased(s, 0, 2, N, RUNS, log(TWO_PI / 2), x, lw);
    vgs_sampler_free(s);
    memset(&c.energy, 0, sizeof c.energy);
    c.energy = target_energy(mix);
    c.init_sigma = 0;
    c.length_scale = 2;
    c.s2_start = 3;
    c.s2_end = 0.05f;
    c.steps = 10;
    T_IN("mixture");
    s = create(&c);
    went_well(vgs_sampler_train(s, 100, NULL, &err), &err);
    unbiased(s, 0.9f, -1, N, RUNS, 0, x, lw);
    unbiased(s, 0.9f, 2, N, RUNS / 2, 0, x, lw);
    unbiased(s, 0, 2, N, RUNS / 2, 0, x, lw);
    vgs_sampler_free(s);
}

/* A threshold that is never reached changes no bit; one that is, the weights of all rows; neither depends on
   the number of threads. */
static void smc_and_plain(void)
{
    enum { N = 700 };                            /* more than fit at once                              */
    static float x[3][N * 2], e[N], want[N];
    static double lw[3][N];
    bowl b;
    vgs_config c = small(&b, 2, 0);
    vgs_error err = { VGS_OK, "" };
    int k, i, threads;
    for (threads = 1; threads < 4; threads += 2) {
        vgs_sampler *s;
        c.threads = threads;
        if (!(s = vgs_sampler_create(&c, NULL))) break;              /* a build without threads        */
        for (k = 0; k < 3; ++k) {
            vgs_draw d = plain(lw[k]);
            float *out = threads == 1 || k < 2 ? x[k] : x[0];
            d.energy = e;
            d.resample = k == 0 ? 0.0f : k == 1 ? 1e-9f : 0.99f;
            if (threads > 1 && k == 2) d.log_weight = lw[0];
            went_well(vgs_sampler_draw(s, &d, N, out, &err), &err);
            bowl_energy(&b, out, N, 2, want, NULL);
            OK(!memcmp(e, want, sizeof e));
        }
        if (threads == 1) {
            vgs_weights one, two;
            OK(!memcmp(x[0], x[1], sizeof *x) && !memcmp(lw[0], lw[1], sizeof *lw));
            for (i = k = 0; i < N; ++i) k += lw[2][i] == lw[0][i];
            OK(k == 0 && !vgs_weigh(lw[0], N, &one, NULL) && !vgs_weigh(lw[2], N, &two, NULL));
            CHECK(two.ess > one.ess, "ESS/N %g with SMC, %g without", two.ess, one.ess);
        } else OK(!memcmp(x[0], x[2], sizeof *x) && !memcmp(lw[0], lw[2], sizeof *lw));
        vgs_sampler_free(s);
    }
}

/* ---- correction ---------------------------------------------------------------------------------------- */

/* One step only, so that a draw without correction tells where x_0 was: log w is that of the path from where
   it was moved to, and the change of V_0. Many moves leave the distribution of V_0 behind. */
static void corrected_weights(void)
{
    enum { N = 4000 };
    static float x[N * 2], before[2 * N * 2], after[2 * N * 2], factor[64];
    static double lw[N];
    bowl b;
    vgs_config c = small(&b, 2, 0);
    vgs_error err = { VGS_OK, "" };
    vgs_draw d = plain(lw);
    vgs_sampler *s;
    known none;
    double v, worst = 0, square = 0;
    int i, moved = 0;
    c.steps = 1;
    s = create(&c);
    memset(&none, 0, sizeof none);
    make_known(s, &none, factor);
    v = base_variance(s, 0);
    d.path = before;
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    d.path = after;
    d.correct = 40;
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    for (i = 0; i < N; ++i) {
        double s0 = (double)c.init_sigma, was = 0, is = 0,
               want = weight_in_double(s, &none, factor, after, N, i, 2);
        int j;
        for (j = 0; j < 2; ++j) {
            was += pow((double)before[2 * i + j], 2);
            is += pow((double)after[2 * i + j], 2);
        }
        want += (was - is) / (2 * s0 * s0) + (is - was) / (2 * v);
        worst = fmax(worst, fabs(lw[i] - want));
        square += is / (2 * N);
        moved += was != is;
    }
    CHECK(worst < 2e-5, "a log weight is off by %g", worst);
    CHECK(moved == N, "%d of %d rows moved", moved, N);
    CHECK(fabs(square / v - 1) < 6 / sqrt(N), "variance %g after many moves, that of V_0 is %g", square, v);
    vgs_sampler_free(s);
}

/* The bits depend neither on threads nor on how rows are split, and return when weights do. */
static void correction_repeats(void)
{
    enum { N = 700 };
    static float whole[N * 2], parts[N * 2], plainly[2][N * 2];
    bowl b;
    vgs_config c = small(&b, 2, 0);
    vgs_error err = { VGS_OK, "" };
    int threads;
    c.correct = 2;
    for (threads = 1; threads < 4; threads += 2) {
        vgs_draw d = plain(NULL);
        vgs_sampler *s;
        c.threads = threads;
        if (!(s = vgs_sampler_create(&c, NULL))) break;              /* a build without threads        */
        if (threads == 1) went_well(vgs_sampler_draw(s, NULL, N, whole, &err), &err);
        went_well(vgs_sampler_draw(s, &d, 100, parts, &err), &err);
        d.first_row = 100;
        went_well(vgs_sampler_draw(s, &d, N - 100, parts + 200, &err), &err);
        OK(!memcmp(whole, parts, sizeof whole));
        d.correct = -1;
        d.first_row = 0;
        went_well(vgs_sampler_draw(s, &d, N, plainly[0], &err), &err);
        vgs_sampler_free(s);
    }
    c.correct = 0;
    c.threads = 1;
    {
        vgs_sampler *s = create(&c);
        vgs_draw d = plain(NULL);
        went_well(vgs_sampler_draw(s, NULL, N, plainly[1], &err), &err);
        OK(!memcmp(plainly[0], plainly[1], sizeof *plainly) && memcmp(plainly[0], whole, sizeof whole));
        d.correct = 2;
        went_well(vgs_sampler_draw(s, &d, N, parts, &err), &err);
        OK(!memcmp(whole, parts, sizeof whole));
        went_well(vgs_sampler_train(s, 2, NULL, &err), &err);        /* h is fitted again              */
        went_well(vgs_sampler_draw(s, &d, 10, parts, &err), &err);
        OK(s->correct_version == vgs_model_version(s->target) && memcmp(whole, parts, sizeof *parts * 20));
        vgs_sampler_free(s);
    }
}

/* A population of several blocks that never resamples is a plain draw, bit for bit; E is asked once for the
   last drift, and once for the weight, also when the steps of MALA are fitted. */
static int energies_asked;
static int counted(void *user, const float *x, int n, int dim, float *e, float *g)
{
    energies_asked += n;
    return bowl_energy(user, x, n, dim, e, g);
}

static void correction_of_populations(void)
{
    enum { N = 1100 };
    static float x[2][N * 2];
    static double lw[2][N];
    int k, local;
    for (local = 0; local < 2; ++local) {
        bowl b;
        vgs_config c = small(&b, 2, 0);
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *s;
        c.energy.eval = counted;
        c.correct = 2;
        c.local_noise = local;
        s = create(&c);
        for (k = 0; k < 2; ++k) {
            vgs_draw d = plain(lw[k]);
            d.resample = k ? 1e-9f : 0;
            energies_asked = 0;
            went_well(vgs_sampler_draw(s, &d, N, x[k], &err), &err);
            CHECK(energies_asked == 2 * N, "E was asked %d times", energies_asked);
        }
        OK(!memcmp(x[0], x[1], sizeof x[0]) && !memcmp(lw[0], lw[1], sizeof lw[0]));
        vgs_sampler_free(s);
    }
}

/* ---- on the sphere ------------------------------------------------------------------------------------- */

/* The density of von Mises and Fisher with concentration k about the first axis: E = -k x_1 tau, tau 2. */
static int mises(void *user, const float *x, int n, int dim, float *e, float *g)
{
    const double *k = (const double *)user;
    int i, j;
    for (i = 0; i < n; ++i) {
        e[i] = (float)(-2 * *k * (double)x[i * dim]);
        for (j = 0; g && j < dim; ++j) g[i * dim + j] = (float)(j ? 0 : -2 * *k);
    }
    return 0;
}

/* log Z: the area of a sphere of one dimension less, times an integral over the angle. */
static double mises_log_z(double k, int dim)
{
    double sum = 0;
    int i, n = 20000;
    for (i = 0; i < n; ++i) {
        double t = TWO_PI / 2 * (i + 0.5) / n;
        sum += exp(k * (cos(t) - 1)) * pow(sin(t), dim - 2) * TWO_PI / 2 / n;
    }
    return k + log(sum) + log(2.0) + (dim - 1) / 2.0 * log(TWO_PI / 2) - lgamma((dim - 1) / 2.0);
}

static vgs_config on_sphere(double *k, int dim, int steps, float s2_start, float s2_end)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval = mises;
    c.energy.user = k;
    c.energy.dim = dim;
    c.tau = 2;
    c.on_sphere = true;
    c.steps = steps;
    c.s2_start = s2_start;
    c.s2_end = s2_end;
    c.batch = 64;
    c.net.hidden = 32;
    c.net.time_dim = 8;
    c.seed = 1;
    c.threads = 1;
    return c;
}

/* log density at y of a Gaussian of mean m in the plane that touches the sphere at x, taken through the
   exponential map: the sum over all of its points that end at y. */
static double wrapped_in_double(int d, double s2, const float *x, const float *y, const double *m)
{
    double dot = 0, norm = 0, along = 0, mm = 0, r, terms[81], top = -HUGE_VAL, sum = 0;
    int j, k;
    for (j = 0; j <= d; ++j) dot += (double)x[j] * (double)y[j];
    for (j = 0; j <= d; ++j) norm += pow((double)y[j] - dot * (double)x[j], 2);
    for (j = 0; j <= d; ++j) {
        along += ((double)y[j] - dot * (double)x[j]) / sqrt(norm) * m[j];
        mm += m[j] * m[j];
    }
    r = atan2(sqrt(norm), dot);
    for (k = -40; k <= 40; ++k) {
        double rho = r + TWO_PI * k;
        terms[k + 40] = (d - 1) * log(fabs(rho) / sin(r)) - (rho * rho - 2 * rho * along + mm) / (2 * s2);
        top = fmax(top, terms[k + 40]);
    }
    for (k = 0; k < 81; ++k) sum += exp(terms[k] - top);
    return top + log(sum) - d / 2.0 * log(TWO_PI * s2);
}

/* Weights of draws, scores and given starts are those of the densities, written out in double, whether moves
   are short in 271 dimensions or go round several times. */
static void sphere_densities(void)
{
    enum { N = 40, T = 4, MOST_D = 272 };
    static const struct { int dim; float start, end; double tolerance; } list[] = {
        { 2, 1, 0.05f, 1e-4 }, { 3, 1, 0.05f, 1e-4 }, { 3, 20, 4, 1e-4 }, { 10, 10, 0.5f, 5e-4 },
        { 272, 4e-3f, 1e-3f, 5e-3 }, { 272, 0.3f, 0.05f, 5e-3 },
    };
    static float path[(T + 1) * N * MOST_D], x[N * MOST_D], start[N * MOST_D], v[N], g[N * MOST_D];
    static double lw[N];
    const size_t cases = sizeof list / sizeof *list;
    size_t of;
    int way, i, j, t;
    for (of = 0; of < 2 * cases; ++of) {         /* with the drift of V_t, and as published that of V_{t+1} */
        double k = 3, zero[MOST_D] = { 0 }, mu[MOST_D];
        size_t q = of % cases;
        int dim = list[q].dim, d = dim - 1, ahead = of >= cases;
        vgs_config c = on_sphere(&k, dim, T, list[q].start, list[q].end);
        vgs_error err = { VGS_OK, "" };
        vgs_rng r = { 5, 0, 0 };
        vgs_sampler *s;
        c.published = ahead;
        s = create(&c);
        went_well(vgs_sampler_train(s, 2, NULL, &err), &err);
        vgs_rng_normals(&r, start, (size_t)(N * dim));
        for (way = 0; way < 3; ++way) {          /* a draw, a score, a draw from given starts         */
            vgs_draw o = plain(lw);
            double want[N];
            o.path = path;
            o.start = way == 2 ? start : NULL;
            T_IN("case %d%s, way %d", (int)q, ahead ? ", published" : "", way);
            if (way == 1) went_well(vgs_sampler_score(s, &o, N, start, lw, &err), &err);
            else went_well(vgs_sampler_draw(s, &o, N, x, &err), &err);
            for (i = 0; i < N; ++i) {
                want[i] = k * (double)path[(T * N + i) * dim];
                if (way < 2) want[i] += log(2.0) + dim / 2.0 * log(TWO_PI / 2) - lgamma(dim / 2.0);
            }
            for (t = 0; t < T; ++t) {
                double s2 = (double)s->s2[t], most = (double)s->c.drift_max * sqrt(s2 * d);
                float *at = path + t * N * dim, *to = at + N * dim;
                if (t < T - 1) went_well(vgs_sampler_value(s, t + ahead, at, N, v, g, &err), &err);
                else mises(&k, at, N, dim, v, g);
                most = fmin(most, TWO_PI / 2);
                for (i = 0; i < N; ++i) {
                    double dot = 0, norm = 0;
                    for (j = 0; j < dim; ++j) dot += (double)g[i * dim + j] * (double)at[i * dim + j];
                    for (j = 0; j < dim; ++j) {
                        mu[j] = -s2 / 2 * ((double)g[i * dim + j] - dot * (double)at[i * dim + j]);
                        norm += mu[j] * mu[j];
                    }
                    for (j = 0; j < dim && sqrt(norm) > most; ++j) mu[j] *= most / sqrt(norm);
                    want[i] -= wrapped_in_double(d, s2, at + i * dim, to + i * dim, mu);
                    if (way < 2 || t) want[i] += wrapped_in_double(d, s2, to + i * dim, at + i * dim, zero);
                }
            }
            for (i = 0; i < N; ++i)
                if (!CHECK_NEAR(lw[i], want[i], 0, list[q].tolerance * (1 + fabs(want[i]) / 100))) break;
        }
        vgs_sampler_free(s);
    }
}

/* Where training explores, the target is V_{t+1} and the cost of one step of fresh noise. With V = 0 its mean
   is that of the densities in double: of moves that go round it is much less than |mu|^2/(2 sigma^2). */
static void sphere_targets(void)
{
    enum { B = 4096, T = 4, AT = 1 };
    static const float here[3] = { 0.6f, 0.0f, 0.8f };
    static const double m[3] = { 0, -1.6, 0 }, zero[3] = { 0, 0, 0 };
    static float x[B][3], mu[B][3], y[B];
    double k = 3, mean = 0, var = 0, want = 0, want_var = 0, cost[B], s2;
    vgs_config c = on_sphere(&k, 3, T, 4, 1);
    vgs_rng r = { 7, 0, 0 };
    vgs_sampler *s;
    float *w;
    int i, j;
    c.batch = B;
    c.explore = 1.2f;
    s = create(&c);
    s2 = (double)s->s2[AT];
    w = (float *)calloc((size_t)s->target->net->size, sizeof *w);
    OK(w && !vgs_model_write(s->target, w, NULL));
    for (i = 0; i < B; ++i)
        for (j = 0; j < 3; ++j) x[i][j] = here[j], mu[i][j] = (float)-m[j];
    OK(!s->b->upload(s->b->self, s->traj_x, AT * B * 3, x, B * 3, VGS_F32, NULL));
    OK(!s->b->upload(s->b->self, s->traj_mu, AT * B * 3, mu, B * 3, VGS_F32, NULL));
    OK(!vgs__fresh_run(s, &s->stage->fresh_step, 0, AT, NULL));
    OK(!s->b->download(s->b->self, y, s->traj_y, AT * B, B, VGS_F32, NULL));
    for (i = 0; i < B; ++i) {
        float z[4], to[3];
        double v[3], dot = 0, norm = 0, l;
        vgs_rng_normals(&r, z, 4);
        for (j = 0; j < 3; ++j) dot += (double)z[j] * (double)here[j];
        for (j = 0; j < 3; ++j) v[j] = m[j] + sqrt(s2) * ((double)z[j] - dot * (double)here[j]);
        for (j = 0; j < 3; ++j) norm += v[j] * v[j];
        l = sqrt(norm);
        for (j = 0; j < 3; ++j) to[j] = (float)(cos(l) * (double)here[j] + sin(l) / l * v[j]);
        cost[i] = wrapped_in_double(2, s2, here, to, m) - wrapped_in_double(2, s2, to, here, zero);
        want += 2 * cost[i] / B;                 /* tau 2, and y = V/D                                */
        mean += 2 * (double)y[i] / B;
    }
    for (i = 0; i < B; ++i) {
        var += pow(2 * (double)y[i] - mean, 2) / B;
        want_var += pow(2 * cost[i] - want, 2) / B;
    }
    CHECK(fabs(mean - want) < 5 * sqrt((var + want_var) / B) && sqrt((var + want_var) / B) < 0.03,
          "mean target %g, want %g +- %g", mean, want, sqrt((var + want_var) / B));
    CHECK(2 * 1.6 * 1.6 / (2 * s2) - want > 0.2, "moves that go round do not matter: %g", want);
    free(w);
    vgs_sampler_free(s);
}

/* Energy and dimension alone: noise that forgets a uniform start, and steps enough. */
static void sphere_defaults(void)
{
    enum { N = 4000 };
    static float x[N * 3];
    static double lw[N];
    double k = 5, log_z = mises_log_z(5, 3), noise = 0;
    vgs_config c = on_sphere(&k, 3, 0, 0, 0);
    vgs_draw d = plain(lw);
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = create(&c);
    vgs_weights w;
    int t;
    OK(s->c.steps == 60 && !s->c.published && s->c.fixed_kernel && s->c.lambda == 0.9f);
    for (t = 0; t < s->c.steps; ++t) noise += (double)s->s2[t];
    CHECK_NEAR(noise, 4.5, 0.05, 0);
    went_well(vgs_sampler_train(s, 100, NULL, &err), &err);
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    OK(!vgs_weigh(lw, N, &w, NULL));
    CHECK(fabs(w.log_z - log_z) < 5 * w.log_z_se && w.ess > 0.8, "log Z %g +- %g, want %g, ESS/N %g", w.log_z,
          w.log_z_se, log_z, w.ess);
    vgs_sampler_free(s);
}

/* log Z on S^2, 5.2284 at k = 5, and S^9, from both sides and from given starts; a trained sampler says it
   with small errors, and its weighted mean is that of the density; populations agree. */
static void sphere_log_z(void)
{
    enum { N = 20000 };
    static float x[N * 10], ref[N * 3];
    static double lw[N];
    double k = 5, mean = 0, square = 0, sum = 0, log_z = mises_log_z(5, 3);
    vgs_config c = on_sphere(&k, 3, 20, 2, 0.02f);
    vgs_sampler *s = create(&c);
    vgs_draw d = plain(lw);
    vgs_error err = { VGS_OK, "" };
    vgs_rng r = { 9, 0, 0 };
    vgs_weights w;
    vgs_forward f;
    int i = 0, j;
    CHECK_NEAR(log_z, 5.2284, 0, 1e-4);
    went_well(vgs_sampler_train(s, 60, NULL, &err), &err);
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    OK(!vgs_weigh(lw, N, &w, NULL));
    CHECK(fabs(w.log_z - log_z) < 5 * w.log_z_se && w.log_z_se < 0.01 && w.ess > 0.4,
          "log Z %g +- %g, want %g, ESS/N %g", w.log_z, w.log_z_se, log_z, w.ess);
    for (j = 0; j < N; ++j) {
        double v = exp(lw[j] - w.log_z);
        sum += v, mean += v * (double)x[3 * j];
    }
    mean /= sum;
    for (j = 0; j < N; ++j) square += pow(exp(lw[j] - w.log_z) / sum * ((double)x[3 * j] - mean), 2);
    CHECK(fabs(mean - (1 / tanh(5) - 0.2)) < 5 * sqrt(square), "mean %g +- %g", mean, sqrt(square));
    while (i < N) {                              /* exact samples, by rejection                       */
        float z[3];
        double norm;
        vgs_rng_normals(&r, z, 3);
        norm = sqrt((double)z[0] * (double)z[0] + (double)z[1] * (double)z[1] + (double)z[2] * (double)z[2]);
        if (vgs_rng_uniform(&r) > exp(5 * ((double)z[0] / norm - 1))) continue;
        for (j = 0; j < 3; ++j) ref[3 * i + j] = (float)((double)z[j] / norm);
        ++i;
    }
    went_well(vgs_sampler_score(s, NULL, N, ref, lw, &err), &err);
    OK(!vgs_weigh_forward(lw, N, &f, NULL));
    CHECK(fabs(f.log_z - log_z) < 5 * f.log_z_se && f.log_z_se < 0.02 && f.eubo > log_z,
          "forward log Z %g +- %g, EUBO %g", f.log_z, f.log_z_se, f.eubo);
    d.start = ref;
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    OK(!vgs_weigh(lw, N, &w, NULL));
    CHECK(fabs(w.log_z - log_z) < 5 * w.log_z_se && w.log_z_se < 0.02, "from given starts log Z %g +- %g",
          w.log_z, w.log_z_se);
    unbiased(s, 0.9f, -1, 20, 200, log_z, x, lw);
    vgs_sampler_free(s);
    k = 3;                                       /* S^9, untrained: noise that goes round             */
    log_z = mises_log_z(3, 10);
    c = on_sphere(&k, 10, 4, 8, 2);
    s = create(&c);
    d = plain(lw);
    went_well(vgs_sampler_draw(s, &d, N, x, &err), &err);
    OK(!vgs_weigh(lw, N, &w, NULL));
    CHECK(fabs(w.log_z - log_z) < 5 * w.log_z_se && w.log_z_se < 0.05, "S^9: log Z %g +- %g, want %g",
          w.log_z, w.log_z_se, log_z);
    vgs_sampler_free(s);
}

/* ---- what there are no weights for --------------------------------------------------------------------- */

static int no_gradient(void *user, const float *x, int n, int dim, float *e, float *g)
{
    return bowl_energy(user, x, n, dim, e, NULL) || g != NULL;
}

static void refused(void)
{
    float x[20] = { 0 }, path[6 * 20];
    double lw[10];
    vgs_error err = { VGS_OK, "" };
    bowl b;
    vgs_config c = small(&b, 1, 0);
    vgs_sampler *s = create(&c);
    vgs_draw d = plain(lw);
    OK(vgs_sampler_draw(s, NULL, 2, NULL, &err) == VGS_E_ARG && strstr(err.msg, "x = NULL"));
    d.skip_final_noise = true;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "skip_final_noise"));
    OK(vgs_sampler_score(s, &d, 10, x, lw, &err) == VGS_E_ARG && strstr(err.msg, "skip_final_noise"));
    d = plain(lw);
    d.noise_scale = 0.9f;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "noise_scale"));
    OK(vgs_sampler_score(s, &d, 10, x, lw, &err) == VGS_E_ARG && strstr(err.msg, "noise_scale"));
    d = plain(lw);
    d.start = x;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "given starts"));
    OK(vgs_sampler_score(s, &d, 10, x, lw, &err) == VGS_E_ARG && strstr(err.msg, "given starts"));
    d = plain(NULL);
    d.start = x;
    d.correct = 2;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "correct = 2"));
    d.correct = 0;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_OK);
    d = plain(NULL);
    d.resample = 0.5f;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "log_weight"));
    d.log_weight = lw;
    d.path = path;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "path"));
    d.path = NULL;
    d.resample = 1.5f;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "resample = 1.5"));
    d = plain(NULL);
    d.correct = -2;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "correct = -2"));
    OK(vgs_sampler_score(s, &d, 10, x, lw, &err) == VGS_E_ARG && strstr(err.msg, "score: correct = -2"));
    d.correct = 1000001;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "correct = 1000001"));
    d.correct = 2;
    d.noise_scale = 0.9f;
    OK(vgs_sampler_draw(s, &d, 10, x, &err) == VGS_E_ARG && strstr(err.msg, "correct = 2"));
    d = plain(lw);
    d.resample = 0.5f;
    OK(vgs_sampler_draw(s, &d, 0, x, &err) == VGS_OK && vgs_sampler_draw(s, &d, 1, x, &err) == VGS_OK);
    OK(vgs_sampler_score(s, NULL, -1, x, lw, &err) == VGS_E_ARG && strstr(err.msg, "n = -1"));
    OK(vgs_sampler_score(s, NULL, 1, NULL, lw, &err) == VGS_E_ARG && strstr(err.msg, "ref"));
    OK(vgs_sampler_score(s, NULL, 0, NULL, NULL, &err) == VGS_OK);
    memset(x, 0, sizeof x);
    x[13] = (float)NAN;
    OK(vgs_sampler_score(s, NULL, 10, x, lw, &err) == VGS_E_NONFINITE && strstr(err.msg, "row 6, column 1"));
    x[13] = 0;
    OK(vgs_sampler_score(s, NULL, 10, x, lw, &err) == VGS_OK && lw[6] - lw[6] == 0);
    vgs_sampler_free(s);
    c.energy.eval = no_gradient;
    s = create(&c);
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_E_ENERGY && strstr(err.msg, "metropolis of vgs_mcmc"));
    vgs_sampler_free(s);
    OK(target_sample(target_find("dw4"), NULL, 1, x, &err) == VGS_E_ARG && strstr(err.msg, "metropolis"));
    c.energy.eval = bowl_energy;
    c.on_sphere = true;
    c.energy.dim = 3;
    s = create(&c);
    d = plain(lw);
    d.correct = 2;
    OK(vgs_sampler_draw(s, &d, 3, x, &err) == VGS_E_ARG && strstr(err.msg, "sphere"));
    d = plain(lw);
    d.start = x;
    OK(vgs_sampler_score(s, &d, 3, x, lw, &err) == VGS_E_ARG && strstr(err.msg, "given starts"));
    d.resample = 0.5f;
    OK(vgs_sampler_draw(s, &d, 3, x, &err) == VGS_E_ARG && strstr(err.msg, "given starts"));
    vgs_sampler_free(s);
    c.s2_start = 50;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "s2_start = 50"));
    c.s2_start = 1;
    c.correct = 1;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "correct = 1"));
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(densities);
    RUN(chain);
    RUN(score_repeats);
    RUN(both_sides);
    RUN(missing_modes);
    RUN(golden_values);
    RUN(weigh);
    RUN(sentences);
    RUN(sentences_of_missed);
    RUN(few_and_ties);
    RUN(heavy_tails);
    RUN(inside_both_ways);
    RUN(resampling);
    RUN(constant_in_energy);
    RUN(smc_is_unbiased);
    RUN(smc_and_plain);
    RUN(corrected_weights);
    RUN(correction_repeats);
    RUN(correction_of_populations);
    RUN(sphere_densities);
    RUN(sphere_targets);
    RUN(sphere_defaults);
    RUN(sphere_log_z);
    RUN(refused);
    return t_end();
}
