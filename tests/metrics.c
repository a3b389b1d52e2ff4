/* cc -O2 tests/metrics.c -o metrics -lm && ./metrics
   The metrics against numpy, scipy and POT (vectors/metrics.h), against small cases
   done by hand, and what they do with samples that are broken. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/metrics.h"
#include "t.h"
#include "vectors/metrics.h"

static void test_golden_particles(void)
{
    const target *t = target_find("dw4");
    metrics m;
    vgs_error err;
    OK(metrics_evaluate(t, dw4_x, 60, dw4_y, 60, 1, &m, &err) == VGS_OK);
    OK(m.n == 60 && m.n_transport == 60 && m.n_aligned == 60 && m.modes == 0);
    CHECK_NEAR(m.w2_aligned, DW4_W2_ALIGNED, 0, 1e-6);
    CHECK_NEAR(m.energy_w2, DW4_ENERGY_W2, 0, 1e-5);
    CHECK_NEAR(m.outliers, DW4_OUTLIERS, 0, 1e-12);
    CHECK_NEAR(m.w2, DW4_W2, 0, 1e-6);
    CHECK_NEAR(m.tvd_e, DW4_TVD_E, 0, 1e-9);
    CHECK_NEAR(m.tvd_d, DW4_TVD_D, 0, 1e-9);
    CHECK_NEAR(m.tvd_e_range, DW4_TVD_E_RANGE, 0, 1e-9);
    CHECK_NEAR(m.tvd_d_range, DW4_TVD_D_RANGE, 0, 1e-9);
    CHECK_NEAR(m.outside_e, 0, 0, 0);
    CHECK_NEAR(m.outside_e_range, DW4_OUTSIDE_E_RANGE, 0, 1e-9);
    CHECK_NEAR(m.outside_d_range, DW4_OUTSIDE_D_RANGE, 0, 1e-9);
    CHECK_NEAR(m.energy_mean, DW4_ENERGY_MEAN, 0, 1e-5);
    CHECK_NEAR(m.energy_median, DW4_ENERGY_MEDIAN, 0, 1e-5);
    CHECK_NEAR(m.reference_energy_mean, DW4_REFERENCE_ENERGY_MEAN, 0, 1e-5);
    OK(m.delta_std != m.delta_std && m.sinkhorn != m.sinkhorn);     /* for points only */
    OK(metrics_evaluate(t, dw4_x, 60, dw4_y, 20, 1, &m, &err) == VGS_OK && m.n == 20);
    OK(metrics_evaluate(t, dw4_x, 1, dw4_y, 20, 1, &m, &err) == VGS_E_ARG && strstr(err.msg, "n = 1"));
}

static void test_golden_points(void)
{
    const target *t = target_find("gmm9");
    metrics m, again;
    int k;
    OK(metrics_evaluate(t, gmm9_x, 90, gmm9_y, 90, 1, &m, NULL) == VGS_OK);
    CHECK_NEAR(m.sinkhorn, GMM9_SINKHORN, 0, 2e-5);
    CHECK_NEAR(m.delta_std, GMM9_DELTA_STD, 0, 1e-6);
    CHECK_NEAR(m.tvd_e_range, GMM9_TVD_E_RANGE, 0, 1e-9);
    CHECK_NEAR(m.outside_e_range, GMM9_OUTSIDE_E_RANGE, 0, 1e-9);
    CHECK_NEAR(m.energy_median, GMM9_ENERGY_MEDIAN, 0, 1e-5);
    CHECK_NEAR(m.energy_w2, GMM9_ENERGY_W2, 0, 1e-5);
    OK(m.outliers == GMM9_OUTLIERS && m.w2_aligned != m.w2_aligned);
    OK(m.modes == 9);
    for (k = 0; k < 9; ++k) CHECK_NEAR(m.mode_weight[k], gmm9_weight[k], 0, 1e-9);
    OK(m.w2 != m.w2 && m.tvd_d != m.tvd_d && m.tvd_e != m.tvd_e);   /* for particles only */
    OK(metrics_evaluate(t, gmm9_x, 90, gmm9_y, 90, 3, &again, NULL) == VGS_OK);
    OK(again.sinkhorn == m.sinkhorn);
}

/* ---- assignment -------------------------------------------------------------------------------------- */

/* The least total by trying all permutations of the columns left for rows i, i + 1, ... */
static double brute(const float *c, int n, int i, int *column)
{
    double best = HUGE_VAL, total;
    int k, keep;
    if (i == n) return 0;
    for (k = i; k < n; ++k) {
        keep = column[k]; column[k] = column[i]; column[i] = keep;
        total = (double)c[i * n + keep] + brute(c, n, i + 1, column);
        best = total < best ? total : best;
        keep = column[k]; column[k] = column[i]; column[i] = keep;
    }
    return best;
}

static void test_assignment(void)
{
    vgs_rng r = { 4, 0, 0 };
    float c[49];
    double total = 0;
    int column[7], trial, n, i;
    for (trial = 0; trial < 200; ++trial) {
        n = 1 + trial % 7;
        for (i = 0; i < n; ++i) column[i] = i;
        for (i = 0; i < n * n; ++i)                                   /* every other one is full of ties */
            c[i] = trial & 1 ? (float)vgs_rng_below(&r, 3) : (float)vgs_rng_uniform(&r);
        OK(metrics_assignment(c, n, &total, NULL) == VGS_OK);
        CHECK_NEAR(total, brute(c, n, 0, column), 0, 1e-6);
    }
}

/* W2 of a set and the same set shifted by s in another order is s: no other pairing is cheaper. Particles are
   made mean-free, so the shift is a stretch: particle 0 by +s, particle 1 by -s. */
static void test_w2_shift(void)
{
    enum { N = 500 };
    static float x[N * 8], y[N * 8];
    const target *t = target_find("dw4");
    vgs_rng r = { 6, 0, 0 };
    metrics m;
    int i, k;
    vgs_rng_normals(&r, x, N * 8);
    for (i = 0; i < N; ++i) {
        for (k = 0; k < 8; ++k) y[(N - 1 - i) * 8 + k] = x[i * 8 + k] + 5.0f;      /* taken off again */
        y[(N - 1 - i) * 8] += 0.75f;
        y[(N - 1 - i) * 8 + 2] -= 0.75f;
    }
    OK(metrics_evaluate(t, x, N, y, N, 0, &m, NULL) == VGS_OK);
    CHECK_NEAR(m.w2, 0.75 * sqrt(2.0), 0, 1e-5);
    OK(metrics_evaluate(t, x, N, x, N, 0, &m, NULL) == VGS_OK);
    OK(m.w2 == 0 && m.tvd_e_range == 0 && m.tvd_d == 0 && m.outside_d_range == 0);
}

/* ---- alignment ----------------------------------------------------------------------------------------- */

static int nothing(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user; (void)x;
    for (i = 0; i < n; ++i) e[i] = 0;
    for (i = 0; g && i < n * dim; ++i) g[i] = 0;
    return 0;
}

static void test_aligned(void)
{
    static float x[50 * 39], y[50 * 39];
    target t = { 0 };
    const target *lj13 = target_find("lj13");
    vgs_rng r = { 8, 0, 0 };
    metrics m, again;
    int i;
    t.eval = nothing;
    t.dim = 15;
    t.particles = 5;
    t.space_dim = 3;
    OK(metrics_evaluate(&t, space_x, 20, space_y, 20, 1, &m, NULL) == VGS_OK && m.n_aligned == 20);
    CHECK_NEAR(m.w2_aligned, SPACE_W2_ALIGNED, 0, 1e-5);
    OK(metrics_evaluate(&t, space_x, 20, space_y, 20, 3, &again, NULL) == VGS_OK);
    OK(again.w2_aligned == m.w2_aligned);
    vgs_rng_normals(&r, x, 50 * 39);             /* the matching is made before the turning, so only   */
    for (i = 0; i < 50 * 39; ++i) y[i] = x[i] + 3;   /* what is not turned comes back exactly             */
    OK(metrics_evaluate(lj13, x, 50, y, 50, 0, &m, NULL) == VGS_OK);
    CHECK_NEAR(m.w2_aligned, 0, 0, 2e-3);
    for (i = 0; i < 50 * 39; ++i) y[i] = -x[i];
    OK(metrics_evaluate(lj13, x, 50, y, 50, 0, &m, NULL) == VGS_OK && m.w2_aligned < m.w2);
}

/* Singular values that are known: of diag(3, 2, 1) between two turns; and of rank 1 and 0. */
static void test_nuclear_norm(void)
{
    double q[9], p[9], h[9];
    vgs_rng r = { 1, 0, 0 };
    int i, j, k;
    for (k = 0; k < 20; ++k) {
        vgs__rng_frame(&r, 3, q);
        vgs__rng_frame(&r, 3, p);
        for (i = 0; i < 3; ++i)
            for (j = 0; j < 3; ++j)
                h[3 * i + j] = 3 * q[i] * p[j] + 2 * q[3 + i] * p[3 + j] + (k % 2) * q[6 + i] * p[6 + j];
        CHECK_NEAR(metrics_nuclear_norm(h, 3), 5 + k % 2, 0, 1e-12);
        for (i = 0; i < 9; ++i) h[i] = k % 2 ? q[i % 3] * p[i / 3] : 0;
        CHECK_NEAR(metrics_nuclear_norm(h, 3), k % 2, 0, 1e-12);
    }
}

/* ---- histograms -------------------------------------------------------------------------------------- */

static void test_histograms(void)
{
    float at[10];
    double outside;
    metrics_hist a, b;
    int i;
    for (i = 0; i < 10; ++i) at[i] = (float)i;
    metrics_hist_open(&a, 0, 10);
    metrics_hist_open(&b, 0, 10);
    metrics_hist_add(&a, at, 10);                                         /* bins 0, 20, ..., 180 */
    OK(a.bin[0] == 1 && a.bin[180] == 1 && a.inside == 10);
    at[9] = 10.0f;
    metrics_hist_add(&b, at, 10);
    OK(b.bin[199] == 1);                                            /* the last bin is closed */
    CHECK_NEAR(metrics_tvd(&a, &b, &outside), 0.1, 0, 1e-12);
    metrics_hist_open(&b, 0, 10);
    at[7] = -0.001f;
    at[8] = 10.001f;
    at[9] = vgs__from_bits(0x7FC00000u);
    metrics_hist_add(&b, at, 10);                                         /* 7 of 10 inside: 0..6 */
    CHECK_NEAR(metrics_tvd(&b, &a, &outside), 0.3, 0, 1e-12);
    CHECK_NEAR(outside, 0.3, 0, 1e-12);
    at[0] = at[1] = -1.0f;
    metrics_hist_open(&b, 0, 10);
    metrics_hist_add(&b, at, 10);                                         /* half: no value */
    OK(metrics_tvd(&b, &a, &outside) != metrics_tvd(&b, &a, &outside));
    CHECK_NEAR(outside, 0.5, 0, 1e-12);
    OK(metrics_tvd(&a, &b, &outside) != metrics_tvd(&a, &b, &outside) && outside == 0);
}

/* ---- broken samples ---------------------------------------------------------------------------------- */

static void test_broken_samples(void)
{
    static float x[60 * 8], p[90 * 2];
    const target *t = target_find("dw4");
    metrics m;
    memcpy(x, dw4_x, sizeof x);
    memcpy(p, gmm9_x, sizeof p);
    x[8] = vgs__from_bits(0x7FC00000u);
    x[24] = vgs__from_bits(0x7F800000u);
    x[40] = 1e30f;
    p[0] = vgs__from_bits(0x7FC00000u);
    OK(metrics_evaluate(t, x, 60, dw4_y, 60, 0, &m, NULL) == VGS_OK);
    OK(m.w2 != m.w2 && m.energy_mean != m.energy_mean);
    OK(m.w2_aligned != m.w2_aligned && m.energy_w2 != m.energy_w2);
    CHECK_NEAR(m.outliers, DW4_OUTLIERS + 3 / 60.0, 0, 1e-12);      /* what has no energy is above all */
    CHECK_NEAR(m.outside_e, 3 / 60.0, 0, 1e-12);
    CHECK_NEAR(m.outside_d, 9 / 360.0, 0, 1e-12);
    OK(m.tvd_e > 0 && m.tvd_e < 1 && m.tvd_d > 0 && m.tvd_d < 1);
    CHECK_NEAR(m.energy_median, DW4_ENERGY_MEDIAN, 0, 0.4);
    OK(metrics_evaluate(target_find("gmm9"), p, 90, gmm9_y, 90, 0, &m, NULL) == VGS_OK);
    OK(m.sinkhorn != m.sinkhorn && m.delta_std != m.delta_std && m.tvd_e_range < 1);
    OK(metrics_evaluate(t, dw4_y, 60, x, 60, 0, &m, NULL) == VGS_OK);   /* a broken reference */
    OK(m.tvd_e > 0 && m.tvd_e < 1 && m.outside_e == 0);
}

/* ---- floors ------------------------------------------------------------------------------------------ */

/* The shuffle moves every configuration and leaves its distances, hence the energy, as they were. */
static void test_shuffle(void)
{
    const target *t = target_find("dw4");
    vgs_rng r = { 2, 0, 0 };
    vgs_error err;
    double mirror = 0, first = 0, norm[4];
    int k, slot[4] = { 0, 0, 0, 0 };
    float y[8], e[2], a[6], b[6];
    int i;
    for (i = 0; i < 60; ++i) {
        const float *x = dw4_x + 8 * i;
        OK(vgs_shuffle_particles(&r, x, t->particles, t->space_dim, y, NULL) == VGS_OK);
        metrics_pair_distances(4, 2, x, a);
        metrics_pair_distances(4, 2, y, b);
        qsort(a, 6, sizeof *a, metrics_float_order);
        qsort(b, 6, sizeof *b, metrics_float_order);
        CHECK_NEAR((double)a[0], (double)b[0], 0, 1e-5);
        CHECK_NEAR((double)a[5], (double)b[5], 0, 1e-5);
        t->eval(NULL, x, 1, 8, e, NULL);
        t->eval(NULL, y, 1, 8, e + 1, NULL);
        CHECK_NEAR((double)e[0], (double)e[1], 0, 1e-4);
        for (k = 0; k < 4; ++k)                                       /* where has particle 0 gone? */
            norm[k] = fabs(hypot((double)x[0], (double)x[1]) - hypot((double)y[2 * k], (double)y[2 * k + 1]));
        for (k = 0; k < 4; ++k) slot[k] += norm[k] < 1e-5;
        first += fabs((double)x[0] - (double)y[0]) > 0.05 ? 1 : 0;
    }
    OK(first > 40);
    for (k = 0; k < 4; ++k) OK(slot[k] > 4 && slot[k] < 28);       /* 15 expected */
    for (i = 0; i < 400; ++i) {
        double q[9];
        vgs__rng_frame(&r, 3, q);
        CHECK_NEAR(q[0] * q[3] + q[1] * q[4] + q[2] * q[5], 0, 0, 1e-12);
        CHECK_NEAR(q[6] * q[6] + q[7] * q[7] + q[8] * q[8], 1, 0, 1e-12);
        mirror += q[0] * (q[4] * q[8] - q[5] * q[7]) - q[1] * (q[3] * q[8] - q[5] * q[6])
                + q[2] * (q[3] * q[7] - q[4] * q[6]);
    }
    CHECK_NEAR(mirror, 0, 0, 4.5 * 20);                                   /* as many -1 as +1 */
    OK(vgs_shuffle_particles(&r, dw4_x, 4, 9, y, &err) == VGS_E_ARG && strstr(err.msg, "d = 9"));
    OK(vgs_shuffle_particles(&r, dw4_x, 0, 2, y, &err) == VGS_E_ARG && strstr(err.msg, "n = 0"));
}

static void test_summary(void)
{
    metrics m[5], mean, spread;
    int p;
    memset(m, 0, sizeof m);
    for (p = 0; p < 5; ++p) {
        m[p].w2 = p;
        m[p].mode_weight[39] = 2 * p;
        m[p].tvd_d = p == 3 ? (double)NAN : 1;
    }
    metrics_summarise(m, &mean, &spread);
    CHECK_NEAR(mean.w2, 2, 0, 1e-12);
    CHECK_NEAR(spread.w2, sqrt(2.5), 0, 1e-12);
    CHECK_NEAR(mean.mode_weight[39], 4, 0, 1e-12);
    OK(mean.tvd_d != mean.tvd_d && mean.tvd_e == 0);
}

static void test_floors(void)
{
    const target *mix = target_find("gmm9"), *dw4 = target_find("dw4");
    metrics mean, spread, other;
    float *ref = (float *)malloc(3000 * 8 * sizeof(float));
    vgs_error err;
    int n = 0;
    OK(metrics_floor(mix, 400, NULL, 0, 1, 1, &mean, &spread, &n, &err) == VGS_OK && n == 400);
    OK(mean.sinkhorn > 0.1 && mean.sinkhorn < 0.5 && spread.sinkhorn > 0 && spread.sinkhorn < 0.1);
    OK(mean.tvd_e_range > 0.1 && mean.tvd_e_range < 0.4);
    CHECK_NEAR(mean.mode_weight[4], 1 / 9.0, 0, 0.05);
    OK(mean.w2 != mean.w2 && spread.w2 != spread.w2);
    OK(metrics_floor(mix, 400, NULL, 0, 1, 2, &other, NULL, NULL, &err) == VGS_OK);
    OK(other.sinkhorn == mean.sinkhorn && other.tvd_e_range == mean.tvd_e_range);
    OK(target_reference(dw4, 1, 3000, ref, 0, &err) == VGS_OK);
    OK(metrics_floor(dw4, 2000, ref, 3000, 1, 0, &mean, &spread, &n, &err) == VGS_OK && n == 300);
    CHECK_NEAR(mean.w2, 2.54, 0, 0.25);
    CHECK_NEAR(mean.tvd_e, 0.09, 0, 0.05);
    CHECK_NEAR(mean.w2_aligned, 0.43, 0, 0.15);
    OK(mean.energy_w2 > 0.1 && mean.energy_w2 < 0.6 && mean.outliers > 0 && mean.outliers < 0.02);
    OK(metrics_floor(dw4, 2000, ref, 10, 1, 0, &mean, &spread, &n, &err) == VGS_E_ARG);
    free(ref);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(test_golden_particles);
    RUN(test_golden_points);
    RUN(test_assignment);
    RUN(test_w2_shift);
    RUN(test_aligned);
    RUN(test_nuclear_norm);
    RUN(test_histograms);
    RUN(test_broken_samples);
    RUN(test_shuffle);
    RUN(test_summary);
    RUN(test_floors);
    return t_end();
}
