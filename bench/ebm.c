/* cc -O2 bench/ebm.c -o build/bench_ebm -lm && build/bench_ebm --shape 8gauss --steps 20 --seconds 60
   An energy of points in the plane, learned in so many processor seconds, against what is known exactly. The
   shapes are mixtures of Gaussians of one width, so that their densities are. Prints one line: sliced W2 of
   10 000 draws (mean over 3 draws, 500 projections) beside that of 10 000 exact points, AUC of E against
   uniform points on [-4,4]^2, KL(exact, exp(-E/tau)/Z) by quadrature.
   --objective, --energy-KEY and --KEY as examples/ebm.c has them. Shapes: 8gauss, rings, moons, arms. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_ebm"
#include "../examples/common.h"
#include "../examples/plane.h"
#include "../examples/roc.h"
#include "clock.h"

enum { ROWS = 10000, PROJECTIONS = 500, GRID = 500 };

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The root of the mean over directions of the squared 1-D distance of the projections. */
static double sliced_w2(float (*x)[2], float (*y)[2], float *u, float *v)
{
    double sum = 0;
    for (int k = 0; k < PROJECTIONS; ++k) {
        double a = 3.14159265358979 * (k + 0.5) / PROJECTIONS;
        float c = (float)cos(a), s = (float)sin(a);
        for (int i = 0; i < ROWS; ++i) u[i] = c * x[i][0] + s * x[i][1], v[i] = c * y[i][0] + s * y[i][1];
        qsort(u, ROWS, sizeof *u, compare_floats);
        qsort(v, ROWS, sizeof *v, compare_floats);
        for (int i = 0; i < ROWS; ++i) sum += pow((double)u[i] - (double)v[i], 2) / ROWS / PROJECTIONS;
    }
    return sqrt(sum);
}

/* The chance that a point of b has the higher energy. */
static double area(const float *a, const float *b)
{
    static scored s[2 * ROWS];
    for (int i = 0; i < 2 * ROWS; ++i) s[i] = (scored){ (double)(i < ROWS ? a[i] : b[i - ROWS]), i >= ROWS };
    roc_bins roc = roc_of_images(s, 2 * ROWS);
    double share = roc_area(roc.good, roc.bad, roc.n);
    roc_free(&roc);
    return share;
}

/* sum p log(p/q) over cells of [-5,5]^2, q = exp(-E/tau)/Z; *log_z: Z as well */
static vgs_status divergence(vgs_ebm *m, const plane *p, double *kl, double *log_z, vgs_error *err)
{
    static float x[GRID * GRID][2], e[GRID * GRID];
    double cell = 100.0 / GRID / GRID, z = 0, sum = 0, least = 1e30;
    double tau = (double)vgs_ebm_settings(m)->sampler.tau;
    for (int i = 0; i < GRID * GRID; ++i) {
        x[i][0] = (float)(-5 + 10 * (i % GRID + 0.5) / GRID);
        x[i][1] = (float)(-5 + 10 * (i / GRID + 0.5) / GRID);
    }
    if (vgs_ebm_score(m, x[0], GRID * GRID, e, err)) return err->code;
    for (int i = 0; i < GRID * GRID; ++i) least = fmin(least, (double)e[i] / tau);
    for (int i = 0; i < GRID * GRID; ++i) z += exp(least - (double)e[i] / tau) * cell;
    *log_z = log(z) - least;
    for (int i = 0; i < GRID * GRID; ++i) {
        double q = -(double)e[i] / tau - *log_z, l = plane_log_density(p, x[i]);
        if (l > -60) sum += cell * exp(l) * (l - q);
    }
    *kl = sum;
    return VGS_OK;
}

typedef struct options { const char *shape; double seconds; bool each; } options;

/* An iteration's batch by the reading callback: fresh points, as many as are wanted. */
static int fresh(void *user, const int64_t *row, int n, int dim, float *x)
{
    (void)row;
    (void)dim;
    plane_sample(((void **)user)[0], ((void **)user)[1], n, (float (*)[2])(void *)x);
    return 0;
}

static int measure(vgs_ebm *m, const plane *p, const options *o, double seconds, vgs_rng *r)
{
    static float x[ROWS][2], y[ROWS][2], u[ROWS], v[ROWS], e[ROWS], f[ROWS];
    vgs_error err;
    vgs_ebm_stats s;
    vgs_data none = { .read = fresh, .rows = 1 << 20, .dim = 2 };
    double sw = 0, least = 0, kl = 0, log_z = 0;
    for (int k = 0; k < 3; ++k) {
        vgs_draw d = { .seed = 1000 + (uint64_t)k };
        plane_sample(p, r, ROWS, x);
        plane_sample(p, r, ROWS, y);
        least += sliced_w2(x, y, u, v) / 3;
        if (vgs_ebm_sample(m, &d, ROWS, y[0], &err)) return fail(&err);
        sw += sliced_w2(x, y, u, v) / 3;
    }
    for (int i = 0; i < 2 * ROWS; ++i) y[i / 2][i % 2] = (float)(8 * vgs_rng_uniform(r) - 4);
    if (vgs_ebm_score(m, x[0], ROWS, e, &err) || vgs_ebm_score(m, y[0], ROWS, f, &err) ||
        divergence(m, p, &kl, &log_z, &err) || vgs_ebm_train(m, &none, 0, &s, &err)) return fail(&err);
    printf("%-7s it %6lld  cpu %6.1f s  SW2 %.3f (exact %.3f)  AUC %.3f  KL %.4f  log Z %.3f\n", o->shape,
           (long long)vgs_ebm_iteration(m), seconds, sw, least, area(e, f), kl, log_z);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .shape = "8gauss", .seconds = 20 };
    vgs_ebm_config c = { .net = { .dim = 2 } };
    vgs_error err;
    vgs_rng r = { .seed = 7 };
    plane p;
    c.sampler.length_scale = 2.0f;
    c.sampler.detail_scale = 0.35f;
    c.sampler.batch = 256;
    c.sampler.value_lr = 1e-3f;
    c.sampler.threads = 1;
    while (args_next(&a)) {
        if (args_is(&a, "shape")) o.shape = args_value(&a);
        else if (args_is(&a, "seconds")) o.seconds = args_double(&a, 0, 1e6);
        else if (args_is(&a, "each")) o.each = args_flag(&a);
        else if (!strncmp(a.key, "energy_", 7) && vgs_ebm_field_find(a.key + 7) >= 0) {
            if (vgs_ebm_field_set(&c, a.key + 7, args_value(&a), &err)) return fail(&err);
        } else if (vgs_ebm_field_find(a.key) == 0) {
            if (vgs_ebm_field_set(&c, a.key, args_value(&a), &err)) return fail(&err);
        } else {
            field_list list = { 0 };
            args_field(&a, &list);
            fields_apply(&list, &c.sampler);
        }
    }
    if (!plane_find(o.shape, &p)) wrong_usage("--shape %s: 8gauss, rings, moons or arms", o.shape);
    r.seed += c.sampler.seed;
    vgs_ebm *m = vgs_ebm_create(&c, &err);
    if (!m) return fail(&err);
    void *user[2] = { &p, &r };
    vgs_data data = { .read = fresh, .user = user, .rows = 1 << 20, .dim = 2 };
    vgs_rng q = { .seed = 99 };
    double used = 0, shown = 0, begun = cpu_seconds();
    if (vgs_ebm_fit(m, &data, vgs_ebm_settings(m)->fit, NULL, &err)) return fail(&err);
    used = cpu_seconds() - begun;
    if (o.each && used > 0 && measure(m, &p, &o, used, &q)) return 1;
    while (used < o.seconds && (!c.decay || vgs_ebm_iteration(m) < c.decay)) {
        double start = cpu_seconds();
        if (vgs_ebm_train(m, &data, 20, NULL, &err)) return fail(&err);
        used += cpu_seconds() - start;
        if (o.each && used - shown > 10 && (shown = used, measure(m, &p, &o, used, &q))) return 1;
    }
    if (vgs_ebm_average(m, &err)) return fail(&err);
    int status = measure(m, &p, &o, used, &q);
    vgs_ebm_free(m);
    return status;
}
