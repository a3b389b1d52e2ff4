/* Coordinates of low rank: the map itself against differences, and what the pilot finds. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

enum { N = 4000, D = 6, MANY = 140, WAYS = 3 };
#include "trained.h"
#include "volume.h"
#define LOG_2PI 1.8378770664093453

/* ---- Gaussians: axes of std `std` times 1 to 10, and WAYS turned directions of widths `width` ---- */

typedef struct gauss { double std, mean, unit, width[WAYS]; } gauss;

static double axis(const gauss *q, int j) { return q->std * (1.0 + j % 10); }

/* The k-th of some orthonormal directions, none along an axis; those of MANY dimensions are kept. */
static double ways[WAYS][MANY];
static double way(int dim, int k, int j)
{
    if (dim == MANY) return ways[k][j];
    return sqrt(2.0 / dim) * cos(3.14159265358979324 * (j + 0.5) * (2 * k + 1) / dim);
}

/* y becomes that of x with the directions as wide as all others: a symmetric map. */
static void even(const gauss *q, double *y, int dim)
{
    int j, k;
    for (k = 0; k < WAYS; ++k) {
        double t = 0.0;
        for (j = 0; j < dim; ++j) t += way(dim, k, j) * y[j];
        for (j = 0; j < dim; ++j) y[j] += way(dim, k, j) * t * (1.0 / q->width[k] - 1.0);
    }
}

static int gauss_energy(void *user, const double *x, int n, int dim, double *e, double *g)
{
    const gauss *q = (const gauss *)user;
    double y[MANY];
    int i, j;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g) {
        for (j = 0; j < dim; ++j) y[j] = (x[j] - q->mean) / axis(q, j);
        even(q, y, dim);
        for (e[i] = 0.0, j = 0; j < dim; ++j) e[i] += 0.5 * q->unit * y[j] * y[j];
        even(q, y, dim);
        for (j = 0; g && j < dim; ++j) g[j] = q->unit * y[j] / axis(q, j);
    }
    return 0;
}

static double log_z_of(const gauss *q, int dim)
{
    double sum = 0.5 * dim * LOG_2PI;
    int j;
    for (j = 0; j < dim; ++j) sum += log(axis(q, j));
    for (j = 0; j < WAYS; ++j) sum += log(q->width[j]);
    return sum;
}

static vgs_config config_of(vgs_energy_fn64 *f, gauss *q, int dim)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = f;
    c.energy.user = q;
    c.energy.dim = dim;
    c.net.hidden = 16;
    c.threads = 1;
    if (q) c.tau = (float)q->unit;
    if (dim == MANY) c.coordinates = VGS_LOW_RANK;
    return c;
}

/* Columns of V with c further from 1 than `by`. */
static int used(const vgs_sampler *s, double by)
{
    const double *c = s->frame.l + vgs__rank_c(s->frame.dim);
    int k, count = 0;
    for (k = 0; k < VGS__RANK; ++k) count += fabs(log(c[k])) > by;
    return count;
}

/* ---- the map: inverse, slopes and volume against differences, of a callback and recorded ---- */

static int quartic(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g)
        for (e[i] = 0.1 * x[0] * x[1], j = 0; j < dim; ++j) {
            e[i] += 0.5 * x[j] * x[j] + 0.01 * x[j] * x[j] * x[j] * x[j];
            if (g) g[j] = x[j] + 0.04 * x[j] * x[j] * x[j] + (j < 2 ? 0.1 * x[1 - j] : 0.0);
        }
    return 0;
}

static vgs_var quartic_record(void *user, vgs_graph *g, vgs_var x)
{
    vgs_var two = vgs_square(g, x), four = vgs_square(g, two);
    vgs_var e = vgs_sum_cols(g, vgs_combine(g, two, 0.5f, four, 0.01f));
    (void)user;
    return vgs_combine(g, e, 1.0f, vgs_mul(g, vgs_cols(g, x, 0, 1), vgs_cols(g, x, 1, 1)), 0.1f);
}

/* S, two directions of widths 5 and .3, and a wall where one can be. */
static void make_low_rank(vgs_sampler *s, bool wall)
{
    vgs__frame *f = &s->frame;
    int i, k;
    OK(f->kind == VGS_LOW_RANK);
    for (i = 0; i < D; ++i) {
        f->m[i] = 0.2 * i - 0.1;
        f->l[i] = 0.5 + 0.1 * i;
        for (k = 0; k < 2; ++k) f->l[D + i * VGS__RANK + k] = way(D, k, i);
    }
    f->l[vgs__rank_c(D)] = 5.0;
    f->l[vgs__rank_c(D) + 1] = 0.3;
    if (wall) f->wall[1] = -3.0;
    OK(vgs__frame_changed(f, NULL) == VGS_OK && f->walled == wall);
}

static void map(void)
{
    vgs_config c = config_of(quartic, NULL, D), r;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s, *t;
    vgs_rng rng = { 3, 1, 0 };
    int row, j, side;
    c.coordinates = VGS_LOW_RANK;
    c.tau = 0.5f;
    r = c;
    r.energy.eval64 = NULL;
    r.energy.record = quartic_record;
    s = vgs_sampler_create(&c, &err);
    t = vgs_sampler_create(&r, &err);
    make_low_rank(s, true);
    make_low_rank(t, false);
    for (row = 0; row < 100; ++row) {
        const vgs__frame *f = &s->frame;
        float z[D], e32, g32[D];
        double u[D], x[D], y[D], back[D], g[D], e, near[D], to[2], slope[D];
        T_IN("row %d", row);
        vgs_rng_normals(&rng, z, D);
        for (j = 0; j < D; ++j) u[j] = (double)z[j];
        vgs__frame_point(f, u, x);
        if (x[1] < -2.99) continue;              /* beside the wall x keeps few digits                */
        memcpy(back, x, sizeof back);
        vgs__frame_inverse(f, back);
        for (j = 0; j < D; ++j) CHECK_NEAR(back[j], u[j], 1e-9, 1e-9);
        OK(f->energy.eval64(f->energy.user, u, 1, D, &e, g) == 0);
        for (j = 0; j < D; ++j) {
            for (side = 0; side < 2; ++side) {
                memcpy(near, u, sizeof near);
                near[j] += side ? 1e-6 : -1e-6;
                OK(f->energy.eval64(f->energy.user, near, 1, D, &to[side], NULL) == 0);
            }
            CHECK_NEAR(g[j], (to[1] - to[0]) / 2e-6, 2e-5, 2e-5 * (1.0 + fabs(e)));
        }
        vgs__frame_outward(f, u, y);
        CHECK_NEAR(vgs__frame_pull(f, u, y, NULL) + f->log_volume, volume(f, u), 1e-6, 1e-6);
        OK(quartic(NULL, x, 1, D, &e, slope) == 0);
        memcpy(g, slope, sizeof g);
        (void)vgs__frame_pull(f, u, y, g);
        vgs__frame_push(f, u, y, g);
        for (j = 0; j < D; ++j) CHECK_NEAR(g[j], slope[j], 1e-9, 1e-9);

        vgs__frame_point(&t->frame, u, x);       /* recorded                                          */
        vgs__frame_outward(&t->frame, u, y);
        OK(quartic(NULL, x, 1, D, &e, slope) == 0);
        (void)vgs__frame_pull(&t->frame, u, y, slope);
        CHECK(vgs_energy_eval(&t->frame.energy, z, 1, &e32, g32, 1, &err) == VGS_OK, "%s", err.msg);
        CHECK_NEAR((double)e32, 2.0 * e, 1e-4, 1e-3);
        for (j = 0; j < D; ++j) CHECK_NEAR((double)g32[j], slope[j], 1e-4, 1e-3 * (1.0 + fabs(e)));
    }
    vgs_sampler_free(s);
    vgs_sampler_free(t);
}

static void by_default(void)
{
    static const struct { int dim; vgs_coordinates kind; } all[] = {
        { 64, VGS_CURVED }, { 65, VGS_FULL }, { 256, VGS_FULL }, { 257, VGS_LOW_RANK } };
    size_t k;
    for (k = 0; k < sizeof all / sizeof *all; ++k) {
        gauss q = { 1.0, 1.0, 1.0, { 1.0, 1.0, 1.0 } };
        vgs_config c = config_of(gauss_energy, &q, all[k].dim);
        vgs_sampler *s = vgs_sampler_create(&c, NULL);
        CHECK(s && s->c.coordinates == all[k].kind, "D = %d", all[k].dim);
        vgs_sampler_free(s);
    }
}

/* ---- found: three turned directions; by the axes alone nothing fits ---- */

static void found(void)
{
    gauss q = { 0.02, 3.0, 1.0, { 100.0, 0.01, 0.01 } };
    vgs_config c = config_of(gauss_energy, &q, MANY);
    static double w[N];
    vgs_weights r;
    vgs_sampler *s = trained(&c, 1, NULL, w);
    OK(s->c.coordinates == VGS_LOW_RANK && vgs_sampler_pilot(s));
    CHECK(used(s, 3.0) == 3, "%d directions", used(s, 3.0));
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
    CHECK(r.ess >= 0.95, "ESS/N %g", r.ess);
    CHECK_NEAR(r.log_z, log_z_of(&q, MANY), 0, 0.02);
    vgs_sampler_free(s);
}

/* ---- not found: independent coordinates that are no Gaussians ---- */

static int logistic(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g)
        for (e[i] = 0.0, j = 0; j < dim; ++j) {
            double t = x[j] / (1.0 + j % 7);
            e[i] += fabs(t) + 2.0 * log1p(exp(-fabs(t)));
            if (g) g[j] = tanh(0.5 * t) / (1.0 + j % 7);
        }
    return 0;
}

static void not_found(void)
{
    vgs_config c = config_of(logistic, NULL, MANY);
    vgs_sampler *s;
    int seed, i, bad;
    for (seed = 0; seed < 2; ++seed) {
        T_IN("seed %d", seed);
        c.seed = (uint64_t)seed;
        s = trained(&c, 1, NULL, NULL);
        CHECK(!vgs__rank_used(s->frame.l, MANY), "%d directions", used(s, 0.0));
        for (bad = i = 0; i < MANY; ++i) bad += fabs(log(s->frame.l[i] / (1.75 * (1.0 + i % 7)))) > 0.2;
        CHECK(bad == 0, "%d of %d scales are off", bad, (int)MANY);
        vgs_sampler_free(s);
    }
}

/* ---- recorded: pairs of coordinates of which the sum is narrow ---- */

static vgs_var narrow_record(void *user, vgs_graph *g, vgs_var x)
{
    vgs_var sum = vgs_square(g, vgs_sum_cols(g, x));
    (void)user;
    return vgs_combine(g, vgs_sum_cols(g, vgs_square(g, x)), 0.5f, sum, 50.0f);
}

static void recorded(void)
{
    vgs_config c = config_of(NULL, NULL, MANY);
    static double w[N];
    vgs_weights r;
    c.energy.record = narrow_record;
    vgs_sampler_free(trained(&c, 1, NULL, w));
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
    CHECK(r.ess >= 0.95, "ESS/N %g", r.ess);
    CHECK_NEAR(r.log_z, 0.5 * (MANY * LOG_2PI - log(1.0 + 100.0 * MANY)), 0, 0.02);
}

/* ---- other units; threads; files ---- */

static void same_bits(void)
{
    gauss q = { 1.0, 0.75, 1.0, { 30.0, 0.05, 0.3 } }, scaled;
    vgs_config c = config_of(gauss_energy, &q, MANY), d;
    static float x[N * MANY], y[N * MANY];
    static double w[N], v[N];
    int k, i, bad;
    c.energy.thread_safe = true;
    vgs_sampler_free(trained(&c, 3, x, w));
    for (k = 0; k < 3; ++k) {
        double length = k == 0 ? 1024.0 : 1.0;
        T_IN("case %d", k);
        scaled = q;
        scaled.std *= length;
        scaled.mean *= length;
        scaled.unit = k == 1 ? 0.0009765625 : 1.0;
        d = config_of(gauss_energy, &scaled, MANY);
        d.energy.thread_safe = true;
        d.length_scale = (float)length;
#ifdef _OPENMP
        if (k == 2) d.threads = 2;
#endif
        vgs_sampler_free(trained(&d, 3, y, v));
        for (bad = 0, i = 0; i < N * MANY; ++i) bad += (double)y[i] != (double)x[i] * length;
        CHECK(bad == 0, "%d coordinates differ", bad);
        for (bad = 0, i = 0; i < N; ++i) bad += fabs(v[i] - w[i] - MANY * log(length)) > 1e-9 * MANY;
        CHECK(bad == 0, "%d weights differ", bad);
    }
}

static void files(void)
{
    const char *path = "build/low_rank.safetensors";
    gauss q = { 1.0, 0.75, 1.0, { 30.0, 0.05, 0.3 } };
    vgs_config c = config_of(gauss_energy, &q, MANY);
    vgs_error err = { VGS_OK, "" };
    static float x[N * MANY], y[N * MANY];
    vgs_sampler *s = trained(&c, 3, NULL, NULL), *t;
    double was;
    int k;
    CHECK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK, "%s", err.msg);
    t = vgs_sampler_create(&c, &err);
    CHECK(t && vgs_sampler_load(t, path, &err) == VGS_OK, "%s", err.msg);
    for (k = 0; k < 2; ++k) {                    /* as it is, and after more of training              */
        OK(vgs_sampler_draw(s, NULL, N, x, &err) == VGS_OK);
        OK(vgs_sampler_draw(t, NULL, N, y, &err) == VGS_OK);
        OK(!memcmp(x, y, sizeof x));
        OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK && vgs_sampler_train(t, 2, NULL, &err) == VGS_OK);
    }
    was = s->frame.l[MANY];                      /* a column that is longer than 1                    */
    s->frame.l[MANY] += 0.1;
    OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK);
    OK(vgs_sampler_load(t, path, &err) == VGS_E_FORMAT && strstr(err.msg, "no L of low rank"));
    s->frame.l[MANY] = was;
    vgs_sampler_free(s);
    vgs_sampler_free(t);
    c.coordinates = VGS_DIAGONAL;                /* what was the default here before there was this   */
    s = trained(&c, 2, NULL, NULL);
    OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK && vgs_sampler_draw(s, NULL, N, x, &err) == VGS_OK);
    c.coordinates = VGS_COORDINATES_AUTO;
    t = vgs_sampler_create(&c, &err);
    CHECK(t && vgs_sampler_load(t, path, &err) == VGS_OK, "%s", err.msg);
    OK(t->c.coordinates == VGS_DIAGONAL && vgs_sampler_draw(t, NULL, N, y, &err) == VGS_OK);
    OK(!memcmp(x, y, sizeof x));
    vgs_sampler_free(s);
    vgs_sampler_free(t);
    remove(path);
}

int main(int argc, char **argv)
{
    int k, j;
    t_begin(argc, argv);
    for (k = 0; k < WAYS; ++k)
        for (j = 0; j < MANY; ++j)
            ways[k][j] = sqrt(2.0 / MANY) * cos(3.14159265358979324 * (j + 0.5) * (2 * k + 1) / MANY);
    RUN(map);
    RUN(by_default);
    RUN(found);
    RUN(not_found);
    RUN(recorded);
    RUN(same_bits);
    RUN(files);
    return t_end();
}
