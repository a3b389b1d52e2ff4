/* cc -O2 tests/energy.c -o energy -lm && ./energy
   The built-in targets: energies against their formulas written again in double, gradients against central
   differences of those, exact samples against moments, log Z against quadrature, Metropolis against known
   means. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

/* ---- The definitions again, in double and without regard to speed ------------------------------------ */

static const double PI = 3.14159265358979323846;

static double log_sum_exp(const double *v, int n)
{
    double top = v[0], sum = 0;
    int i;
    for (i = 1; i < n; ++i) top = v[i] > top ? v[i] : top;
    for (i = 0; i < n; ++i) sum += exp(v[i] - top);
    return top + log(sum);
}

static double grid(const double *x, const double *tick, int ticks, double var)    /* a grid factorises */
{
    double e = 0, v[5];
    int k, a;
    for (a = 0; a < 2; ++a) {
        for (k = 0; k < ticks; ++k) v[k] = -0.5 * pow(x[a] - tick[k], 2) / var;
        e -= log_sum_exp(v, ticks) - log(ticks) - 0.5 * log(2 * PI * var);
    }
    return e;
}

static double four_gauss(const double *x) { static const double c[] = { -2, 2 }; return grid(x, c, 2, 0.13); }
static double gmm9(const double *x) { static const double c[] = { -5, 0, 5 }; return grid(x, c, 3, 0.3); }
static double gmm25(const double *x)
{
    static const double c[] = { -10, -5, 0, 5, 10 };
    return grid(x, c, 5, 0.3);
}


static double gmm40(const double *x)
{
    const vgs_target *t = vgs_target_find("gmm40");
    double v[40], sd = log(1 + exp(1.0));
    int k;
    for (k = 0; k < 40; ++k) {
        float c[2];
        vgs_target_mode(t, k, c);
        v[k] = -0.5 * (pow(x[0] - (double)c[0], 2) + pow(x[1] - (double)c[1], 2)) / (sd * sd);
    }
    return -log_sum_exp(v, 40) + log(40.0) + log(2 * PI * sd * sd);
}

static double funnel(const double *x)
{
    double e = 0.5 * x[0] * x[0] / 9 + 0.5 * log(2 * PI * 9);
    int i;
    for (i = 1; i < 10; ++i) e += 0.5 * x[i] * x[i] / exp(x[0]) + 0.5 * log(2 * PI * exp(x[0]));
    return e;
}

static double manywell(const double *x)
{
    double e = 0;
    int i;
    for (i = 0; i < 16; ++i, x += 2) e -= -pow(x[0], 4) + 6 * x[0] * x[0] + 0.5 * x[0] - 0.5 * x[1] * x[1];
    return e;
}

static double square_distance(const double *a, const double *b, int d)
{
    double s = 0;
    int k;
    for (k = 0; k < d; ++k) s += (a[k] - b[k]) * (a[k] - b[k]);
    return s;
}

static double dw4(const double *x)
{
    double e = 0;
    int i, j;
    for (i = 0; i < 4; ++i)
        for (j = 0; j < i; ++j) {
            double z = sqrt(square_distance(x + 2 * i, x + 2 * j, 2)) - 4;
            e += 0.9 * pow(z, 4) - 4 * z * z;
        }
    return e;
}

static double lj(const double *x, int n)
{
    double e = 0, mean[3] = { 0, 0, 0 };
    int i, j;
    for (i = 0; i < 3 * n; ++i) mean[i % 3] += x[i] / n;
    for (i = 0; i < n; ++i) {
        e += 0.5 * square_distance(x + 3 * i, mean, 3);
        for (j = 0; j < n; ++j) {
            double r = sqrt(square_distance(x + 3 * i, x + 3 * j, 3) + 1e-6);
            if (j != i) e += pow(r, -12) - 2 * pow(r, -6);
        }
    }
    return e;
}

static double lj13(const double *x) { return lj(x, 13); }
static double lj55(const double *x) { return lj(x, 55); }

typedef double formula(const double *x);
static const struct { const char *name; formula *energy; double half_width; } known[] = {
    { "four-gauss", four_gauss, 4 }, { "gmm9", gmm9, 8 }, { "gmm25", gmm25, 14 }, { "gmm40", gmm40, 60 },
    { "funnel", funnel, 3 }, { "manywell32", manywell, 2.5 }, { "dw4", dw4, 4 }, { "lj13", lj13, 2.5 },
    { "lj55", lj55, 4 }
};

/* A random point; LJ particles keep a distance of 0.8, so that differences can be taken. */
static void random_point(const vgs_target *t, double half_width, vgs_rng *r, float *x)
{
    bool close;
    int i, j, k, d = t->space_dim;
    double a[3], b[3];
    if (t->particles < 13) {
        for (i = 0; i < t->dim; ++i) x[i] = (float)(half_width * (2 * vgs_rng_uniform(r) - 1));
        return;
    }
    for (i = 0; i < t->particles; ++i)
        do {
            for (k = 0; k < d; ++k) x[i * d + k] = (float)(half_width * (2 * vgs_rng_uniform(r) - 1));
            for (close = false, j = 0; j < i; ++j) {
                for (k = 0; k < d; ++k) { a[k] = (double)x[i * d + k]; b[k] = (double)x[j * d + k]; }
                close = close || square_distance(a, b, 3) < 0.64;
            }
        } while (close);
}

/* Fourth-order central difference of f along coordinate i. */
static double slope(formula *f, double *x, int i)
{
    double keep = x[i], h = 1e-4 * (1 + fabs(keep)), d;
    x[i] = keep + h;     d = 8 * f(x);
    x[i] = keep - h;     d -= 8 * f(x);
    x[i] = keep + 2 * h; d -= f(x);
    x[i] = keep - 2 * h; d += f(x);
    x[i] = keep;
    return d / (12 * h);
}

/* A row has the bits of its energy and gradient whether it is computed alone or side by side with others. */
static bool same_alone(const vgs_target *t, const float *x, int rows, const float *e, const float *g)
{
    float ei, gi[165];
    size_t dim = (size_t)t->dim, i;
    bool same = true;
    for (i = 0; i < (size_t)rows; ++i) {
        t->eval(t->user, x + i * dim, 1, t->dim, &ei, gi);
        same = same && !memcmp(&ei, e + i, sizeof ei) && !memcmp(gi, g + i * dim, dim * sizeof *gi);
    }
    return same;
}

enum { ROWS = 20 };

static void test_formulas(void)
{
    static float x[ROWS * 165], g[ROWS * 165], e[ROWS], e_only[ROWS];
    double point[165];
    vgs_rng r = { 11, 0, 0 };
    int k, i, j;
    for (k = 0; k < 9; ++k) {
        const vgs_target *t = vgs_target_find(known[k].name);
        double worst = 0, worst_g = 0, size = 0;
        OK(t == vgs_target_at(k));
        for (i = 0; i < ROWS; ++i) random_point(t, known[k].half_width, &r, x + i * t->dim);
        OK(t->eval(t->user, x, ROWS, t->dim, e, g) == 0);
        OK(t->eval(t->user, x, ROWS, t->dim, e_only, NULL) == 0);
        OK(!memcmp(e, e_only, sizeof e));
        OK(same_alone(t, x, ROWS, e, g));
        for (i = 0; i < ROWS; ++i) {
            double want, big = 1;
            for (j = 0; j < t->dim; ++j) point[j] = (double)x[i * t->dim + j];
            want = known[k].energy(point);
            worst = fmax(worst, fabs((double)e[i] - want) / (1 + fabs(want)));
            for (j = 0; j < t->dim; ++j) big = fmax(big, fabs((double)g[i * t->dim + j]));
            for (j = 0; j < t->dim; ++j) {
                double got = (double)g[i * t->dim + j];
                worst_g = fmax(worst_g, fabs(got - slope(known[k].energy, point, j)) / big);
                size += fabs(got);
            }
        }
        CHECK_NEAR(worst, 0, 0, 3e-7);
        CHECK_NEAR(worst_g, 0, 0, 2e-6);
        OK(size > 1);
    }
    OK(!vgs_target_at(9) && !vgs_target_at(-1) && !vgs_target_find("gmm") && !vgs_target_find(NULL));
}

/* The means of gmm40 come from a file: sums over k of k x_k, k y_k and |c_k|^2. */
static void test_gmm40_means(void)
{
    const vgs_target *t = vgs_target_find("gmm40");
    double sx = 0, sy = 0, square = 0;
    int k;
    for (k = 0; k < 40; ++k) {
        float c[2];
        vgs_target_mode(t, k, c);
        sx += (k + 1) * (double)c[0];
        sy += (k + 1) * (double)c[1];
        square += (double)c[0] * (double)c[0] + (double)c[1] * (double)c[1];
    }
    CHECK_NEAR(sx, 1712.515589, 0, 1e-3);
    CHECK_NEAR(sy, 572.079523, 0, 1e-3);
    CHECK_NEAR(square, 42716.824157, 0, 1e-3);
}

/* ---- hard points: far away, on top of each other ---------------------------------------------------- */

static void test_extremes(void)
{
    static float x[165], g[165], many_x[ROWS * 165], many_e[ROWS], many_g[ROWS * 165];
    float e;
    int i, k;
    for (k = 0; k < 9; ++k) {
        const vgs_target *t = vgs_target_at(k);
        for (i = 0; i < ROWS * t->dim; ++i)
            many_x[i] = (float)((i % 7 - 3) * (i % 4)) * (i % 5 ? 1e3f : 1e-3f);
        t->eval(NULL, many_x, ROWS, t->dim, many_e, many_g);
        OK(same_alone(t, many_x, ROWS, many_e, many_g));
        for (i = 0; i < t->dim; ++i) x[i] = i % 3 ? -1e15f : 1e15f;
        t->eval(NULL, x, 1, t->dim, &e, g);
        OK(e > 1e20f && e == e);
        for (i = 0; i < t->dim; ++i) x[i] = 0.0f;                     /* clusters: all in one place */
        t->eval(NULL, x, 1, t->dim, &e, g);
        OK(e == e);
        for (i = 0; i < t->dim; ++i) OK(g[i] == g[i]);
    }
    vgs_target_find("lj13")->eval(NULL, x, 1, 39, &e, NULL);
    CHECK_NEAR((double)e / 1.56e38, 1, 0, 1e-5);                         /* 156 ordered pairs of 1e36 */
    x[0] = -100.0f;                                                   /* funnel: exp(100) times 0 */
    vgs_target_find("funnel")->eval(NULL, x, 1, 10, &e, g);
    OK(e == e && g[0] == g[0]);
    x[0] = vgs__from_bits(0x7FC00000u);
    for (k = 0; k < 9; ++k) {
        vgs_target_at(k)->eval(NULL, x, 1, vgs_target_at(k)->dim, &e, NULL);
        OK(e != e);
    }
}

/* ---- samples and normalisation ---------------------------------------------------------------------- */

static void test_exact_samples(void)
{
    enum { N = 40000 };
    float *x = (float *)malloc(N * 32 * sizeof(float)), *e = (float *)malloc(N * sizeof(float));
    vgs_error err;
    int i, j, k;
    for (k = 0; k < 9; ++k) {
        const vgs_target *t = vgs_target_at(k);
        vgs_rng r = { 5, 0, 0 };
        double mean = 0, square = 0;
        if (!t->exact_samples) {
            OK(vgs_target_sample(t, &r, 1, x, &err) == VGS_E_ARG && err.msg[0]);
            continue;
        }
        OK(vgs_target_sample(t, &r, N, x, &err) == VGS_OK);
        for (j = 0; j < t->dim; ++j) {
            double m = 0, s = 0, want = vgs_target_std(t, j);
            for (i = 0; i < N; ++i) m += (double)x[i * t->dim + j] / N;
            for (i = 0; i < N; ++i) s += pow((double)x[i * t->dim + j] - m, 2) / N;
            if (t->dim == 10 && j > 0) continue;                      /* too heavy a tail for its std */
            CHECK_NEAR(sqrt(s), want, 0, 0.02 * want);
        }
        t->eval(t->user, x, N, t->dim, e, NULL);
        for (i = 0; i < N; ++i) mean += (double)e[i] / N;
        for (i = 0; i < N; ++i) square += pow((double)e[i] - mean, 2) / N;
        OK(square > 0 && square < 250);
        if (t->dim == 10)                                             /* entropy of the funnel, std 13.7 */
            CHECK_NEAR(mean, 5 * (1 + log(2 * PI)) + 0.5 * log(9.0), 0,
                       5 * sqrt((10 / 2.0 + 9 * 81 / 4.0) / N));
    }
    free(x);
    free(e);
}

/* The share of manywell's samples in 40 bins of the first coordinate against quadrature. */
static void test_manywell_density(void)
{
    enum { N = 60000, BINS = 40, STEPS = 2000 };
    const vgs_target *t = vgs_target_find("manywell32");
    float *x = (float *)malloc((size_t)N * 32 * sizeof(float));
    double got[BINS] = { 0 }, want[BINS] = { 0 }, z = 0, worst = 0;
    vgs_rng r = { 8, 0, 0 };
    int i;
    vgs_target_sample(t, &r, N, x, NULL);
    for (i = 0; i < N; ++i) {
        int b = (int)floor(((double)x[32 * i] + 4) * BINS / 8);
        if (b >= 0 && b < BINS) got[b] += 1.0 / N;
    }
    for (i = 0; i < BINS * STEPS; ++i) {
        double a = -4 + 8 * (i + 0.5) / (BINS * STEPS), w = exp(-a * a * a * a + 6 * a * a + 0.5 * a);
        want[i / STEPS] += w;
        z += w;
    }
    for (i = 0; i < BINS; ++i) {
        double p = want[i] / z;
        worst = fmax(worst, fabs(got[i] - p) / sqrt(p * (1 - p) / N + 1e-9));
    }
    OK(worst < 4.5);
    CHECK_NEAR(16 * (log(z * 8 / (BINS * STEPS)) + 0.5 * log(2 * PI)), t->log_z, 0, 1e-7);
    free(x);
}

static void test_log_z(void)
{
    enum { SIDE = 900 };
    static float x[2 * SIDE], e[SIDE];
    int i, j, k;
    for (k = 0; k < 4; ++k) {
        const vgs_target *t = vgs_target_at(k);
        double half = 1.3 * t->plot_half, h = 2 * half / SIDE, sum = 0;
        for (i = 0; i < SIDE; ++i) {
            for (j = 0; j < SIDE; ++j) {
                x[2 * j] = (float)(-half + (i + 0.5) * h);
                x[2 * j + 1] = (float)(-half + (j + 0.5) * h);
            }
            t->eval(t->user, x, SIDE, 2, e, NULL);
            for (j = 0; j < SIDE; ++j) sum += exp(-(double)e[j]) * h * h;
        }
        OK(t->log_z_known);
        CHECK_NEAR(log(sum), t->log_z, 0, 2e-6);
    }
}

/* ---- Metropolis -------------------------------------------------------------------------------------- */

static double mean_square(const float *x, int n, int dim)
{
    double s = 0;
    int i;
    for (i = 0; i < n * dim; ++i) s += (double)x[i] * (double)x[i] / n;
    return s;
}

static void test_clusters(void)
{
    enum { N = 6400 };
    float *x = (float *)malloc(N * 39 * sizeof(float)), *y = (float *)malloc(N * 39 * sizeof(float));
    vgs_metropolis_config c;
    vgs_metropolis_stats s;
    vgs_error err;
    memset(&c, 0, sizeof c);
    c.target = vgs_target_find("dw4");
    c.thin = 250;
    c.seed = 3;
    c.threads = 1;
    OK(vgs_metropolis(&c, N, x, &s, &err) == VGS_OK);
    CHECK_NEAR(s.energy_mean, -22.541, 0, 4.5 * 1.9 / 80);               /* std 1.9 over 80 = sqrt N */
    CHECK_NEAR(mean_square(x, N, 8), 27.27, 0, 4.5 * 6.1 / 70);
    OK(s.acceptance > 0.25 && s.acceptance < 0.35);
    CHECK_NEAR((double)x[0] + (double)x[2] + (double)x[4] + (double)x[6], 0, 0, 1e-5);
    c.threads = 3;
    OK(vgs_metropolis(&c, N, y, &s, &err) == VGS_OK && !memcmp(x, y, N * 8 * sizeof(float)));
    c.target = vgs_target_find("lj13");
    c.thin = 100;
    OK(vgs_metropolis(&c, 3200, x, &s, &err) == VGS_OK);
    CHECK_NEAR(s.energy_mean, -42.97, 0, 4.5 * 7.0 / 40);                /* about 1600 independent ones */
    CHECK_NEAR(mean_square(x, 3200, 39), 18.13, 0, 4.5 * 2.6 / 40);
    c.tau = -1;
    OK(vgs_metropolis(&c, N, x, &s, &err) == VGS_E_ARG && strstr(err.msg, "config.tau"));
    free(x);
    free(y);
}

/* A spring between each pair of three points in the plane: coordinate j and the next point's. */
static int harmonic(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j, *calls = (int *)user;
    (void)g;
    ++*calls;
    for (i = 0; i < n; ++i, x += dim) {
        double s = 0;
        for (j = 0; j < dim; ++j) s += pow((double)x[j] - (double)x[(j + 2) % dim], 2);
        e[i] = (float)(0.5 * s);
    }
    return *calls > 1000000;
}

static int broken(void *user, const float *x, int n, int dim, float *e, float *g)
{
    (void)user; (void)x; (void)n; (void)dim; (void)e; (void)g;
    return 1;
}

/* Three particles on springs: |x|^2 of the mean-free rest is chi^2 of 4 degrees over 3, energy tau 4/2. */
static void test_callback(void)
{
    enum { N = 6400 };
    static float x[N * 6];
    vgs_target t;
    vgs_metropolis_config c;
    vgs_metropolis_stats s;
    vgs_error err;
    int calls = 0;
    memset(&t, 0, sizeof t);
    memset(&c, 0, sizeof c);
    t.name = "springs";
    t.dim = 6;
    t.particles = 3;
    t.space_dim = 2;
    t.eval = harmonic;
    t.user = &calls;
    c.target = &t;
    c.tau = 2;
    c.chains = 100;
    c.burn_in = 1000;
    OK(vgs_metropolis(&c, N, x, &s, &err) == VGS_OK);
    CHECK_NEAR(s.energy_mean, 4, 0, 4.5 * 2 * sqrt(2.0) / 80);
    CHECK_NEAR(mean_square(x, N, 6), 8.0 / 3, 0, 4.5 * 2 * sqrt(8.0) / 3 / 80);
    OK(s.energy_error > 0.02 && s.energy_error < 0.06);
    OK(calls == 1 + 1000 + 64 * 50 + 1);
    t.eval = broken;
    OK(vgs_metropolis(&c, N, x, &s, &err) == VGS_E_ENERGY);
}

/* Whether a user's own energy may be called from several threads is his to say. */
static void test_thread_safe(void)
{
    vgs_target mine;
    memset(&mine, 0, sizeof mine);
    mine.name = "mine";
    mine.dim = 2;
    mine.eval = vgs_target_find("gmm9")->eval;
    OK(!vgs_target_energy(&mine).thread_safe && vgs_target_energy(vgs_target_find("gmm9")).thread_safe);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(test_formulas);
    RUN(test_gmm40_means);
    RUN(test_extremes);
    RUN(test_exact_samples);
    RUN(test_manywell_density);
    RUN(test_log_z);
    RUN(test_clusters);
    RUN(test_callback);
    RUN(test_thread_safe);
    return t_end();
}
