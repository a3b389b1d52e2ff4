/* cc -O2 tests/mcmc.c -o mcmc -lm && ./mcmc
   The classical samplers on densities whose moments and log Z are known, detailed balance of one step,
   R-hat and ESS against ArviZ (vectors/mcmc.h), refinement, threads, limits and what is refused.
   Statistics are allowed 4.5 standard errors: all together fail by chance once in about 3000 seeds, and
   the seeds are fixed. */
#include <stdlib.h>
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "t.h"
#include "vectors/mcmc.h"

static vgs_error err;

static vgs_mcmc_config config_of(vgs_energy_fn *eval, int dim, vgs_mcmc_method method)
{
    vgs_mcmc_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval = eval;
    c.energy.dim = dim;
    c.method = method;
    c.seed = 7;
    c.threads = 1;
    return c;
}

/* ==== densities with known answers ================================================================== */

/* Coordinate k has variance (1 + k)^2 / 4 at tau = 1, and the mean k. */
static int gauss(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, k;
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        double s = 0;
        for (k = 0; k < dim; ++k) {
            double v = 0.25 * (k + 1) * (k + 1), u = (double)x[k] - k;
            s += 0.5 * u * u / v;
            if (g) g[i * dim + k] = (float)(u / v);
        }
        e[i] = (float)s;
    }
    return 0;
}

/* -log of (0.8 N((-4,0), 1/4) + 0.2 N((4,0), 1/4)) times e^2: log Z = 2. */
static int two_modes(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        double a = (double)x[0], b = (double)x[1];
        double l = log(0.8) - 2 * ((a + 4) * (a + 4) + b * b), r = log(0.2) - 2 * ((a - 4) * (a - 4) + b * b);
        double top = l > r ? l : r, w = exp(l - top) + exp(r - top), share = exp(r - top) / w;
        e[i] = (float)(-top - log(w) + log(2 * 3.14159265358979324 * 0.25) - 2);
        if (g) {
            g[i * dim] = (float)(4 * (a + 4 - 8 * share));
            g[i * dim + 1] = (float)(4 * b);
        }
    }
    return 0;
}

/* 3 particles in the plane, a spring 1/2 r^2 between each pair: D_eff = 4 modes of curvature 3. */
static int springs(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        double s = 0;
        for (j = 0; j < dim; ++j) {
            double next = (double)x[j] - (double)x[(j + 2) % dim],
                   last = (double)x[j] - (double)x[(j + 4) % dim];
            s += 0.5 * next * next;
            if (g) g[i * dim + j] = (float)(next + last);
        }
        e[i] = (float)s;
    }
    return 0;
}

/* One well of manywell32: x^4 - 6 x^2 - x/2 */
static int quartic(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    (void)dim;
    for (i = 0; i < n; ++i) {
        double a = (double)x[i];
        e[i] = (float)(((a * a - 6) * a - 0.5) * a);
        if (g) g[i] = (float)((4 * a * a - 12) * a - 0.5);
    }
    return 0;
}

/* |x|^2/2, but nothing is known beyond 1: half of the rows there give NaN, the others -infinity. */
static int cliff(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    (void)dim;
    for (i = 0; i < n; ++i) {
        e[i] = x[i] > 1 ? (i & 1 ? (float)NAN : -(float)HUGE_VAL) : 0.5f * x[i] * x[i];
        if (g) g[i] = x[i] > 1 ? (float)NAN : x[i];
    }
    return 0;
}

typedef struct counter { double rows, with_gradient; } counter;
static int counted(void *user, const float *x, int n, int dim, float *e, float *g)
{
    counter *c = (counter *)user;
    c->rows += n;
    c->with_gradient += g ? n : 0;
    return gauss(NULL, x, n, dim, e, g);
}

static int without_gradient(void *user, const float *x, int n, int dim, float *e, float *g)
{
    return g ? 1 : gauss(user, x, n, dim, e, g);
}

static int broken(void *user, const float *x, int n, int dim, float *e, float *g)
{
    (void)user; (void)x; (void)n; (void)dim; (void)e; (void)g;
    return 1;
}

static int nowhere(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user; (void)x; (void)dim; (void)g;
    for (i = 0; i < n; ++i) e[i] = (float)HUGE_VAL;
    return 0;
}

/* E = x^2, recorded and as a callback: the same floats. */
static vgs_var recorded(void *user, vgs_graph *g, vgs_var x)
{
    (void)user;
    return vgs_sum_cols(g, vgs_square(g, x));
}
static int called(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    for (i = 0; i < n * dim; ++i) {
        e[i] = x[i] * x[i];
        if (g) g[i] = x[i] * 2;
    }
    return 0;
}

/* ==== chains ======================================================================================== */

/* mean of f over x [n,dim], rows i mod chains from chain i, against what it should be */
static void near_mean(const float *x, int n, int dim, int chains, double (*f)(const float *, int), int k,
                      double want)
{
    double *v = (double *)malloc((size_t)n * sizeof *v);
    vgs_diagnosis d;
    int i;
    for (i = 0; i < n; ++i) v[i] = f(x + (size_t)i * (size_t)dim, k);
    OK(vgs_diagnose(v, n / chains, chains, &d, &err) == VGS_OK);
    CHECK(fabs(d.mean - want) < 4.5 * d.mean_se, "mean %g +- %g, want %g", d.mean, d.mean_se, want);
    CHECK(d.rhat < 1.02, "R-hat %g", d.rhat);
    free(v);
}
static double coordinate(const float *x, int k) { return (double)x[k]; }
static double square(const float *x, int k) { return ((double)x[k] - k) * ((double)x[k] - k); }
static double right(const float *x, int k) { return x[k] > 0; }
static double length2(const float *x, int k)
{
    double s = 0;
    while (k-- > 0) s += (double)x[k] * (double)x[k];
    return s;
}

/* Mean, variance and energy of a Gaussian at tau = 2, by every method that has the right density. */
static void gaussian(void)
{
    enum { N = 32000, D = 3, CHAINS = 16 };
    static float x[N * D];
    static const vgs_mcmc_method methods[5] = { VGS_HMC, VGS_MALA, VGS_METROPOLIS, VGS_PT, VGS_PT };
    static const double aims[4] = { 0.8, 0.574, 0.234, 0.8 };
    int i, k;
    for (i = 0; i < 5; ++i) {
        vgs_mcmc_config c = config_of(gauss, D, methods[i]);
        vgs_mcmc_stats s;
        T_IN("%s, case %d", vgs_mcmc_method_name((int)c.method), i);
        c.tau = 2;
        c.local = i == 4 ? VGS_METROPOLIS : VGS_HMC;
        c.thin = c.method == VGS_METROPOLIS ? 60 : c.method == VGS_MALA ? 20 : 5;
        OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
        for (k = 0; k < D; ++k) {
            near_mean(x, N, D, CHAINS, coordinate, k, k);
            near_mean(x, N, D, CHAINS, square, k, 2 * 0.25 * (k + 1) * (k + 1));
        }
        CHECK(fabs(s.energy_mean - 2 * 0.5 * D) < 4.5 * s.energy_se, "energy %g +- %g", s.energy_mean,
              s.energy_se);
        OK(s.energy_se < 0.05 && s.rhat < 1.01 && s.ess > 1000);
        if (i < 4) CHECK_NEAR(s.acceptance, aims[i], 0, 0.04);
        OK((c.method == VGS_PT) == (s.levels > 1));
        if (c.method != VGS_PT) { OK(isnan(s.log_z)); continue; }
        CHECK_NEAR(s.log_z, 0.5 * D * log(2 * 3.14159265358979 * 2) + log(0.125 * 6), 0, 4.5 * s.log_z_se);
        OK(s.log_z_se < 0.03 && s.round_trips > 100 && s.round_trip_rate < 1 / (2 + 2 * s.barrier));
    }
}

/* E = |x|^2/2 - 1e8: a float keeps multiples of 8 of it. */
static int deep(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i) e[i] = -1e8;
    for (i = 0; i < n * dim; ++i) {
        e[i / dim] += x[i] * x[i] / 2;
        if (g) g[i] = x[i];
    }
    return 0;
}

/* Differences of double energies are taken before anything is rounded. */
static void constant(void)
{
    enum { N = 16000, D = 4, CHAINS = 16 };
    static float x[N * D];
    static const vgs_mcmc_method methods[4] = { VGS_HMC, VGS_MALA, VGS_METROPOLIS, VGS_PT };
    static const double aims[4] = { 0.8, 0.574, 0.234, 0.8 };
    vgs_mcmc_stats s;
    int i;
    for (i = 0; i < 4; ++i) {
        vgs_mcmc_config c = config_of(NULL, D, methods[i]);
        T_IN("%s", vgs_mcmc_method_name((int)c.method));
        c.energy.eval64 = deep;
        c.length_scale = 2;                      /* pt: N is not the target itself                    */
        c.thin = c.method == VGS_METROPOLIS ? 60 : 20;
        OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
        near_mean(x, N, D, CHAINS, length2, D, D);
        CHECK(fabs(s.energy_mean + 1e8 - 0.5 * D) < 4.5 * s.energy_se && s.energy_se < 0.05,
              "energy %.9g +- %g", s.energy_mean, s.energy_se);
        CHECK_NEAR(s.acceptance, aims[i], 0, 0.05);
        if (c.method != VGS_PT) continue;
        CHECK(fabs(s.log_z - 1e8 - 0.5 * D * log(2 * 3.14159265358979)) < 4.5 * s.log_z_se &&
              s.log_z_se < 0.05, "log Z %.9g +- %g", s.log_z, s.log_z_se);
        c.method = VGS_HMC;
        c.length_scale = 1;
        OK(vgs_refine(&c, 40, NULL, N, x, &s, &err) == VGS_OK);
        near_mean(x, N, D, CHAINS, length2, D, D);
        CHECK_NEAR(s.energy_mean + 1e8, 0.5 * D, 0, 4.5 * sqrt(0.5 * D / N));
        CHECK_NEAR(s.acceptance, 0.8, 0, 0.1);
    }
}

/* A recorded energy, on a CPU backend of its own or on a given one, is one as any other: the same chains. */
static void kinds(void)
{
    static const vgs_mcmc_method methods[5] = { VGS_HMC, VGS_MALA, VGS_METROPOLIS, VGS_LMC, VGS_PT };
    static float x[200], y[200];
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_mcmc_stats s, t;
    int i;
    for (i = 0; i < 5; ++i) {
        vgs_mcmc_config c = config_of(called, 1, methods[i]);
        T_IN("%s", vgs_mcmc_method_name((int)c.method));
        c.chains = 70;                           /* more than a block of the energy                   */
        c.burn_in = 50;
        OK(vgs_mcmc(&c, 200, x, NULL, &err) == VGS_OK);
        c.energy.eval = NULL;
        c.energy.record = recorded;
        c.energy.backend = i % 2 ? cpu : NULL;
        OK(vgs_mcmc(&c, 200, y, NULL, &err) == VGS_OK && !memcmp(x, y, sizeof x));
        if (c.method > VGS_METROPOLIS) continue;
        OK(vgs_refine(&c, 20, NULL, 200, y, &s, &err) == VGS_OK);
        c.energy.record = NULL;
        c.energy.eval = called;
        OK(vgs_refine(&c, 20, NULL, 200, x, &t, &err) == VGS_OK && !memcmp(x, y, sizeof x));
        OK(s.energy_mean == t.energy_mean && s.acceptance == t.acceptance);
    }
    vgs_cpu_free(cpu);
}

/* A Langevin step h that is always taken has the variance v/(1 - h^2/(4v)) of a Gaussian of variance v. */
static void langevin(void)
{
    enum { N = 64000 };
    static float x[N];
    vgs_mcmc_config c = config_of(gauss, 1, VGS_LMC);
    vgs_mcmc_stats s;
    c.step = 0.6;
    OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
    OK(s.step == 0.6);
    near_mean(x, N, 1, 16, square, 0, 0.25 / (1 - 0.36));
    c.step = 0;
    OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
    CHECK_NEAR(s.acceptance, 0.9, 0, 0.03);
}

/* Chains that cannot cross by themselves: the weights of two modes, and log Z. */
static void tempering(void)
{
    enum { N = 32000 };
    static float x[N * 2];
    vgs_mcmc_config c = config_of(two_modes, 2, VGS_PT);
    vgs_mcmc_stats s;
    c.length_scale = 4;
    OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
    near_mean(x, N, 2, 16, right, 0, 0.2);
    CHECK_NEAR(s.log_z, 2, 0, 4.5 * s.log_z_se);
    OK(s.log_z_se < 0.02 && s.rhat < 1.01);
    OK(s.verdict == VGS_VERDICT_USABLE && s.chains == 16 && s.stone_khat < 0.7);
    CHECK(fabs(exp(s.log_z_half[0] - s.log_z) + exp(s.log_z_half[1] - s.log_z) - 2) < 1e-3 &&
          s.log_z_half[0] != s.log_z_half[1], "halves %g, %g of %g", s.log_z_half[0], s.log_z_half[1],
          s.log_z);
    c.method = VGS_HMC;
    OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
    OK(s.rhat > 1.1 && s.verdict == VGS_VERDICT_UNUSABLE);           /* and hmc alone is told apart    */
    OK(isnan(s.log_z_half[0]) && isnan(s.stone_khat));
}

/* Four modes of equal mass, of different size: each coordinate is half N(0, 1), half N(5, 0.1^2). */
static int sizes(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i)
        for (e[i] = 0, j = 0; j < dim; ++j) {
            double v = (double)x[i * dim + j], wide = exp(-v * v / 2);
            double slim = 10 * exp(-50 * (v - 5) * (v - 5)), sum = wide + slim + 1e-300;
            e[i] -= (float)log(sum);
            if (g) g[i * dim + j] = (float)((v * wide + 100 * (v - 5) * slim) / sum);
        }
    return 0;
}

/* The narrow mode is found by few ladders: log Z, or the shares, are not to be trusted, and that is said. */
static void not_converged(void)
{
    enum { N = 1000 };
    static float x[N * 2];
    vgs_mcmc_config c = config_of(sizes, 2, VGS_PT);
    vgs_mcmc_stats s;
    char text[200];
    c.length_scale = 2.6;
    OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
    vgs_mcmc_say(&s, text);
    CHECK(s.verdict == VGS_VERDICT_UNUSABLE && strstr(text, "the chains disagree"), "%s", text);
    OK(s.stone_khat > 0.7);
}

/* Each reason by itself, in the order in which they count. */
static void verdicts(void)
{
    static const struct {
        double rhat, ess, khat, trips, first, second;
        vgs_verdict v;
        const char *words;
    } list[] = {
        { 1.2, 500, 0.2, 50, 1, 1, VGS_VERDICT_UNUSABLE, "have not found the same modes" },
        { 1.003, 500, 0.9, 50, 1, 1, VGS_VERDICT_UNUSABLE, "k-hat 0.90 of a stepping stone" },
        { 1.02, 500, 0.2, 50, 1, 1, VGS_VERDICT_CAUTION, "R-hat 1.020 is above 1.01" },
        { 1.003, 500, 0.2, 50, 1, 1.3, VGS_VERDICT_CAUTION, "log Z is not converged: 1.0000 in the first" },
        { 1.003, 500, 0.2, 3, 1, 1, VGS_VERDICT_CAUTION, "3 round trips of 16 ladders" },
        { 1.003, 50, 0.2, 50, 1, 1, VGS_VERDICT_CAUTION, "ESS 50 is below 100" },
        { 1.003, 500, 0.2, 50, 1, 1.07, VGS_VERDICT_USABLE, "the chains agree (R-hat 1.0030" },
    };
    size_t k;
    for (k = 0; k < sizeof list / sizeof *list; ++k) {
        vgs_mcmc_stats s;
        char text[200];
        memset(&s, 0, sizeof s);
        s.rhat = list[k].rhat;
        s.ess = list[k].ess;
        s.stone_khat = list[k].khat;
        s.round_trips = list[k].trips;
        s.log_z_half[0] = list[k].first;
        s.log_z_half[1] = list[k].second;
        s.log_z_se = 0.01;
        s.chains = 16;
        vgs_mcmc_say(&s, text);
        CHECK(strstr(text, list[k].words) != NULL, "%s", text);
        OK(vgs__mcmc_judge(&s, text) == list[k].v);
        s.rhat = (double)NAN;
        vgs_mcmc_say(&s, text);
        CHECK(strstr(text, "nothing tells") != NULL, "%s", text);
    }
}

/* The ladder: refusals between neighbours are equal, however the levels began. */
static void ladder(void)
{
    vgs_mcmc_config c = config_of(two_modes, 2, VGS_PT);
    vgs__mcmc m;
    double refused[VGS__MAX_LEVELS], sum, low = 1, high = 0;
    int k;
    memset(&m, 0, sizeof m);
    c.length_scale = 4;
    c.chains = 64;
    c.burn_in = 4000;
    m.c = c;
    m.name = "ladder";
    OK(vgs__mcmc_check(&m, 64, &err) == VGS_OK && vgs__mcmc_open(&m, 24, &err) == VGS_OK);
    vgs__mcmc_first_ladder(&m);
    OK(vgs__mcmc_start(&m, &err) == VGS_OK && vgs__mcmc_burn_in(&m, &err) == VGS_OK);
    vgs__mcmc_forget(&m);
    OK(vgs__mcmc_advance(&m, 1000, &err) == VGS_OK);
    sum = vgs__mcmc_refused(&m, refused);
    for (k = 0; k < m.levels - 1; ++k) {
        low = refused[k] < low ? refused[k] : low;
        high = refused[k] > high ? refused[k] : high;
    }
    CHECK(high - low < 0.08, "refused %g to %g at %d levels", low, high, m.levels);
    OK(m.levels == 2 + (int)ceil(2 * sum) || m.levels == 3 + (int)ceil(2 * sum) ||
       m.levels == 1 + (int)ceil(2 * sum));
    vgs__mcmc_close(&m);
}

/* The error bar of log Z means what it says: z-scores of 60 runs have mean square 1 +- 4.5 sqrt(2/60). */
static void error_bars(void)
{
    enum { N = 1600, RUNS = 60 };
    static float x[N * 6];
    vgs_mcmc_config c = config_of(springs, 6, VGS_PT);
    vgs_mcmc_stats s;
    double log_z = 0, energy = 0, z;
    int i;
    c.energy.particles = 3;
    c.burn_in = 200;
    c.thin = 2;
    for (i = 0; i < RUNS; ++i) {
        c.seed = (uint64_t)i;
        OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
        z = (s.log_z - 0.5 * 4 * log(2 * 3.14159265358979324 / 3)) / s.log_z_se;
        log_z += z * z / RUNS;
        z = (s.energy_mean - 2) / s.energy_se;
        energy += z * z / RUNS;
    }
    CHECK_NEAR(log_z, 15 / 13.0, 0, 4.5 * sqrt(2.0 / RUNS));        /* Student's t of 16 ladders      */
    CHECK_NEAR(energy, 1, 0, 4.5 * sqrt(2.0 / RUNS));
    near_mean(x, N, 6, 16, length2, 6, 4 / 3.0);
    for (i = 0; i < N; ++i) {
        const float *p = x + 6 * i;
        if (!CHECK(fabsf(p[0] + p[2] + p[4]) < 1e-5f && fabsf(p[1] + p[3] + p[5]) < 1e-5f, "row %d", i))
            break;
    }
}

/* ==== detailed balance of one step ================================================================== */

/* From exact samples x0, one step to x1: E[f(x0) g(x1)] = E[g(x0) f(x1)] and E[f(x1)] = E[f(x0)]. */
static void balance_of(vgs_mcmc_method method, double step, int leapfrog, double least, double most)
{
    enum { WELLS = 16, N = 60000 * WELLS / 16 };
    float *x0 = (float *)malloc(N * sizeof *x0), *x1 = (float *)malloc(N * sizeof *x1);
    float (*wells)[32] = (float (*)[32])malloc(N / WELLS * sizeof *wells);
    vgs_mcmc_config c = config_of(quartic, 1, method);
    vgs_mcmc_stats s;
    vgs_rng r = { 3, 0, 0 };
    double still[3] = { 0, 0, 0 }, spread[3] = { 0, 0, 0 };
    int i, k;
    T_IN("%s, step %g", vgs_mcmc_method_name((int)method), step);
    OK(target_sample(target_find("manywell32"), &r, N / WELLS, wells[0], &err) == VGS_OK);
    for (i = 0; i < N; ++i) x0[i] = x1[i] = wells[i / WELLS][2 * (i % WELLS)];
    c.step = step;
    c.leapfrog = leapfrog;
    OK(vgs_refine(&c, 1, NULL, N, x1, &s, &err) == VGS_OK && s.step == step);
    CHECK(s.acceptance > least && s.acceptance < most, "acceptance %g", s.acceptance);
    for (i = 0; i < N; ++i) {
        double a = (double)x0[i], b = (double)x1[i], d[3];
        d[0] = b - a;
        d[1] = (b * b - 6) * b * b - (a * a - 6) * a * a;
        d[2] = a * b * b - b * a * a;
        for (k = 0; k < 3; ++k) {
            still[k] += d[k] / N;
            spread[k] += d[k] * d[k] / N;
        }
    }
    for (k = 0; k < 3; ++k)
        CHECK(fabs(still[k]) < 4.5 * sqrt(spread[k] / N), "number %d: %g +- %g", k, still[k],
              sqrt(spread[k] / N));
    free(x0);
    free(x1);
    free(wells);
}

static void balance(void)
{
    balance_of(VGS_METROPOLIS, 1.0, 0, 0.2, 0.6);
    balance_of(VGS_MALA, 0.45, 0, 0.3, 0.9);
    balance_of(VGS_MALA, 0.9, 0, 0.05, 0.6);                         /* forces are cut at 11           */
    balance_of(VGS_HMC, 0.35, 4, 0.3, 0.95);
    balance_of(VGS_HMC, 0.42, 4, 0.05, 0.7);
}

/* ==== R-hat and ESS ================================================================================= */

static void golden(void)
{
    size_t i;
    double v[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    vgs_diagnosis d;
    for (i = 0; i < sizeof mcmc_golden / sizeof *mcmc_golden; ++i) {
        T_IN("%s", mcmc_golden[i].name);
        OK(vgs_diagnose(mcmc_golden[i].v, mcmc_golden[i].draws, mcmc_golden[i].chains, &d, &err) == VGS_OK);
        CHECK_NEAR(d.rhat, mcmc_golden[i].rhat, 1e-9, 0);
        CHECK_NEAR(d.ess, mcmc_golden[i].ess, 1e-9, 0);
        CHECK_NEAR(d.mean_se, mcmc_golden[i].mean_se, 1e-9, 0);
    }
    T_IN("no value");
    OK(vgs_diagnose(v, 4, 2, &d, &err) == VGS_OK && isnan(d.rhat) && isnan(d.ess) && isnan(d.mean_se) &&
       d.mean == 1);
    v[3] = (double)NAN;
    OK(vgs_diagnose(v, 4, 2, &d, &err) == VGS_OK && isnan(d.rhat) && isnan(d.ess));
    v[3] = HUGE_VAL;
    OK(vgs_diagnose(v, 8, 1, &d, &err) == VGS_OK && isnan(d.rhat) && isnan(d.ess));
    OK(vgs_diagnose(v, 3, 2, &d, &err) == VGS_E_ARG && strstr(err.msg, "draws = 3"));
    OK(vgs_diagnose(v, 4, 0, &d, &err) == VGS_E_ARG && strstr(err.msg, "chains = 0"));
}

static void quantiles(void)
{
    double z;
    for (z = -7; z <= 0; z += 0.125)
        CHECK_NEAR(vgs__mcmc_normal_quantile(0.5 * erfc(-z / sqrt(2.0))), z, 1e-13, 1e-14);
}

/* ==== refinement ==================================================================================== */

/* Samples that are far too wide come to the right energy; particles that lie on each other, too. */
static void refinement(void)
{
    enum { N = 2000 };
    static float x[N * 39];
    const target *t = target_find("lj13");
    vgs_mcmc_config c = config_of(gauss, 3, VGS_MALA);
    vgs_mcmc_stats s;
    vgs_rng r = { 5, 0, 0 };
    float e[64];
    int i;
    vgs_rng_normals(&r, x, N * 3);
    for (i = 0; i < N * 3; ++i) x[i] *= 4;
    OK(vgs_refine(&c, 300, NULL, N, x, &s, &err) == VGS_OK);
    CHECK_NEAR(s.energy_mean, 1.5, 0, 4.5 * sqrt(1.5 / N));
    CHECK_NEAR(s.acceptance, 0.574, 0, 0.03);
    OK(s.energy_calls == N * 301.0 && s.gradient_calls == s.energy_calls && isnan(s.rhat) && isnan(s.log_z));

    c.energy = target_energy(t);
    vgs_rng_normals(&r, x, 64 * 39);
    for (i = 0; i < 64; ++i) memcpy(x + 39 * i, x + 39 * i + 3, 3 * sizeof *x);
    OK(t->eval(NULL, x, 64, 39, e, NULL) == 0);
    for (i = 0; i < 64; ++i) OK(e[i] > 1e30f);
    c.method = VGS_HMC;
    OK(vgs_refine(&c, 300, NULL, 64, x, &s, &err) == VGS_OK);
    CHECK(s.energy_mean < -30, "mean energy %g of particles that lay on each other", s.energy_mean);
    CHECK_NEAR((double)x[0] + (double)x[3] + (double)x[6] + (double)x[9] + (double)x[12] + (double)x[15] +
               (double)x[18] + (double)x[21] + (double)x[24] + (double)x[27] + (double)x[30] + (double)x[33] +
               (double)x[36], 0, 0, 1e-5);
}

/* Weights turn N(0,1) into N(0.5,1/4) exactly, in mean and energy; row i comes n w_i/sum w times. */
static void weighted(void)
{
    enum { N = 20000 };
    static float x[N], y[N];
    static double w[N];
    static int which[N], count[N];
    vgs_mcmc_config c = config_of(gauss, 1, VGS_METROPOLIS);
    vgs_mcmc_stats s;
    vgs_rng r = { 9, 0, 0 };
    double sum = 0;
    int i;
    vgs_rng_normals(&r, x, N);
    for (i = 0; i < N; ++i) {
        w[i] = 0.5 * (double)x[i] * (double)x[i] - 2 * (double)x[i] * (double)x[i] + 800;
        sum += exp(w[i] - 800);
    }
    OK(vgs__mcmc_resample(w, N, 0.3, which, &err) == VGS_OK);
    for (i = 0; i < N; ++i) count[which[i]]++;
    for (i = 0; i < N; ++i)
        if (!CHECK(fabs(count[i] - N * exp(w[i] - 800) / sum) < 1 + 1e-6, "row %d comes %d times", i,
                   count[i]))
            break;
    for (i = 0, sum = 0; i < 100; ++i) {                             /* on average exactly as often    */
        static const double few[3] = { -1.2039728043259361, -0.35667494393873245, -HUGE_VAL };
        /* the logarithms of 0.3, 0.7 and 0 */
        OK(vgs__mcmc_resample(few, 3, (i + 0.5) / 100, which, &err) == VGS_OK);
        sum += (which[0] == 0) + (which[1] == 0) + (which[2] == 0);
    }
    CHECK_NEAR(sum / 100, 3 * 0.3, 0, 1e-9);
    memcpy(y, x, sizeof y);
    OK(vgs_refine(&c, 10, w, N, y, &s, &err) == VGS_OK);
    CHECK_NEAR(s.energy_mean, 0.5, 0, 4.5 * sqrt(0.5 / (0.6 * N)));

    x[3] = NAN;                                                      /* of weight 0: not looked at     */
    w[3] = -HUGE_VAL;
    memcpy(y, x, sizeof y);
    OK(vgs_refine(&c, 10, w, N, y, &s, &err) == VGS_OK);
    OK(vgs_refine(&c, 10, NULL, N, x, &s, &err) == VGS_E_NONFINITE && strstr(err.msg, "row 3"));
    w[5] = (double)NAN;
    OK(vgs_refine(&c, 10, w, N, y, &s, &err) == VGS_E_NONFINITE && strstr(err.msg, "log_weight[5]"));
    for (i = 0; i < N; ++i) w[i] = -HUGE_VAL;
    OK(vgs_refine(&c, 10, w, N, y, &s, &err) == VGS_E_NONFINITE && strstr(err.msg, "all weights"));
    for (i = 0; i < N; ++i) w[i] = i == 17 ? 5 : -1e9;               /* one dominates                  */
    OK(vgs__mcmc_resample(w, N, 0.999, which, &err) == VGS_OK && which[0] == 17 && which[N - 1] == 17);
    c.method = VGS_LMC;
    OK(vgs_refine(&c, 10, NULL, N, y, &s, &err) == VGS_E_ARG && strstr(err.msg, "lmc"));
    c.method = VGS_HMC;
    OK(vgs_refine(&c, 0, NULL, N, y, &s, &err) == VGS_E_ARG && strstr(err.msg, "steps = 0"));
}

/* ==== threads, calls, errors ======================================================================== */

static void threads(void)
{
    enum { N = 600 };
    static float x[N * 8], y[N * 8];
    vgs_mcmc_config c = config_of(NULL, 0, VGS_PT);
    vgs_mcmc_stats a, b;
    int i;
    for (i = 0; i < 3; ++i) {
        c.method = i == 0 ? VGS_PT : i == 1 ? VGS_HMC : VGS_METROPOLIS;
        c.energy = target_energy(target_find("dw4"));
        c.burn_in = 60;
        c.chains = 10;
        c.threads = 1;
        c.shuffle = true;
        OK(vgs_mcmc(&c, N, x, &a, &err) == VGS_OK);
        c.threads = 3;
        OK(vgs_mcmc(&c, N, y, &b, &err) == VGS_OK);
        if (c.method != VGS_PT) b.round_trips = a.round_trips, b.log_z = a.log_z, b.log_z_se = a.log_z_se,
                                b.barrier = a.barrier, b.round_trip_rate = a.round_trip_rate;
        OK(!memcmp(x, y, sizeof x) && !memcmp(&a, &b, sizeof a));
        c.energy.thread_safe = false;
        OK(vgs_mcmc(&c, N, y, &b, &err) == VGS_OK && !memcmp(x, y, sizeof x));
        c.seed++;
        OK(vgs_mcmc(&c, N, y, &b, &err) == VGS_OK && memcmp(x, y, sizeof x));
    }
}

/* Calls are counted as the callback sees them, and a limit is one. */
static void calls(void)
{
    enum { N = 480 };
    static float x[N * 3];
    static const double limits[2] = { 0, 60000 };
    int i, k;
    for (i = 0; i < 5; ++i)
        for (k = 0; k < 2; ++k) {
            vgs_mcmc_config c = config_of(counted, 3, (vgs_mcmc_method)i);
            vgs_mcmc_stats s;
            counter n = { 0, 0 };
            T_IN("%s, limit %g", vgs_mcmc_method_name(i), limits[k]);
            c.energy.user = &n;
            c.burn_in = 100;
            c.calls = limits[k];
            OK(vgs_mcmc(&c, N, x, &s, &err) == VGS_OK);
            OK(s.energy_calls == n.rows && s.gradient_calls == n.with_gradient);
            if (k) CHECK(n.rows <= limits[k] && n.rows > 0.85 * limits[k], "%g calls", n.rows);
        }
}

/* What is NaN, or minus infinity, is never gone to: a Gaussian that ends at 1. */
static void nonfinite(void)
{
    enum { N = 16000 };
    static float x[N];
    int i, k;
    for (i = 0; i < 5; ++i) {
        vgs_mcmc_config c = config_of(cliff, 1, (vgs_mcmc_method)i);
        T_IN("%s", vgs_mcmc_method_name((int)c.method));
        c.thin = 20;
        OK(vgs_mcmc(&c, N, x, NULL, &err) == VGS_OK);
        for (k = 0; k < N; ++k) if (!CHECK(x[k] <= 1, "row %d is %g", k, (double)x[k])) break;
        if (c.method != VGS_LMC)                                     /* -phi(1)/Phi(1)                 */
            near_mean(x, N, 1, 16, coordinate, 0, -0.28759997093917834);
    }
}

static int stop(void *user, double done) { return done >= 0.5 && ++*(int *)user; }

static void refused(void)
{
    static float x[100 * 4], start[16 * 4];
    vgs_mcmc_config ok = config_of(gauss, 4, VGS_HMC), c;
    int stopped = 0;
#define REFUSED(change, status, word)                                                                        \
    do {                                                                                                     \
        c = ok;                                                                                              \
        change;                                                                                              \
        memset(&err, 0, sizeof err);                                                                         \
        CHECK(vgs_mcmc(&c, 100, x, NULL, &err) == status && strstr(err.msg, word), "%s: %s", #change,        \
              err.msg);                                                                                      \
    } while (0)
    REFUSED(c.energy.eval = NULL, VGS_E_ARG, "config.energy");
    REFUSED((c.energy.eval = NULL), VGS_E_ARG, "record");
    REFUSED((c.energy.record = recorded), VGS_E_ARG, "record");
    REFUSED(c.energy.dim = 0, VGS_E_ARG, "dim");
    REFUSED(c.energy.particles = 3, VGS_E_ARG, "particles = 3");
    REFUSED(c.energy.particles = 1, VGS_E_ARG, "particles = 1");
    REFUSED(c.method = (vgs_mcmc_method)5, VGS_E_ARG, "method = 5");
    REFUSED((c.method = VGS_PT, c.local = VGS_LMC), VGS_E_ARG, "local = 3");
    REFUSED(c.chains = -1, VGS_E_ARG, "chains = -1");
    REFUSED(c.burn_in = -1, VGS_E_ARG, "burn_in = -1");
    REFUSED(c.thin = -1, VGS_E_ARG, "thin = -1");
    REFUSED(c.leapfrog = -2, VGS_E_ARG, "leapfrog = -2");
    REFUSED(c.levels = 1, VGS_E_ARG, "levels = 1");
    REFUSED(c.levels = 129, VGS_E_ARG, "levels = 129");
    REFUSED(c.tau = -1, VGS_E_ARG, "tau = -1");
    REFUSED(c.step = (double)NAN, VGS_E_ARG, "step = ");
    REFUSED(c.length_scale = -2, VGS_E_ARG, "length_scale = -2");
    REFUSED(c.acceptance = 1, VGS_E_ARG, "acceptance = 1");
    REFUSED(c.calls = -1, VGS_E_ARG, "calls = -1");
    REFUSED(c.calls = 100, VGS_E_ARG, "too few");
    REFUSED(c.shuffle = true, VGS_E_ARG, "shuffle");
    REFUSED(c.energy.eval = broken, VGS_E_ENERGY, "failed");
    REFUSED(c.energy.eval = without_gradient, VGS_E_ENERGY, "metropolis");
    REFUSED(c.energy.eval = nowhere, VGS_E_NONFINITE, "length_scale");
    start[4 * 2 + 1] = NAN;
    REFUSED(c.start = start, VGS_E_NONFINITE, "row 2");
    REFUSED((c.progress = stop, c.progress_user = &stopped), VGS_E_CANCELLED, "cancelled");
    OK(stopped == 1);
    c = ok;
    OK(vgs_mcmc(&c, 0, x, NULL, &err) == VGS_E_ARG && strstr(err.msg, "n = 0"));
    c.energy.eval = without_gradient;
    c.method = VGS_METROPOLIS;
    OK(vgs_mcmc(&c, 100, x, NULL, &err) == VGS_OK);
    c.method = VGS_PT;
    c.local = VGS_METROPOLIS;
    OK(vgs_mcmc(&c, 100, x, NULL, &err) == VGS_OK);
    OK(!strcmp(vgs_mcmc_method_name(4), "pt") && !vgs_mcmc_method_name(5) && !vgs_mcmc_method_name(-1));
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(gaussian);
    RUN(constant);
    RUN(kinds);
    RUN(langevin);
    RUN(tempering);
    RUN(not_converged);
    RUN(verdicts);
    RUN(ladder);
    RUN(error_bars);
    RUN(balance);
    RUN(golden);
    RUN(quantiles);
    RUN(refinement);
    RUN(weighted);
    RUN(threads);
    RUN(calls);
    RUN(nonfinite);
    RUN(refused);
    return t_end();
}
