/* Coordinates that curve: the map itself against differences, and what the pilot finds. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

enum { N = 4000 };
#define LOG_2PI 1.8378770664093453

/* ---- the map: inverse, slopes and volume against differences ---- */

enum { D = 4 };
#include "volume.h"

static int quartic(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g)
        for (e[i] = 0.1 * x[0] * x[1], j = 0; j < dim; ++j) {
            e[i] += 0.5 * (x[j] - 0.3 * j) * (x[j] - 0.3 * j) + 0.01 * x[j] * x[j] * x[j] * x[j];
            if (g) g[j] = x[j] - 0.3 * j + 0.04 * x[j] * x[j] * x[j] + (j < 2 ? 0.1 * x[1 - j] : 0.0);
        }
    return 0;
}

static vgs_config quartic_config(void)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = quartic;
    c.energy.dim = D;
    c.net.hidden = 16;
    c.threads = 1;
    c.tau = 0.5f;
    return c;
}

/* An order, a curve, peaks and a wall, none of which is the identity. */
static void make_curved(vgs_sampler *s, bool wall, bool turned)
{
    static const double order[D] = { 2, 0, 3, 1 };
    static const double parents[D][2] = { { 2, -1 }, { 3, 2 }, { -1, -1 }, { 0, 2 } };
    vgs__frame *f = &s->frame;
    vgs_rng r = { 5, 1, 0 };
    int i, j;
    for (i = 0; i < D; ++i) {
        double *row = f->curve + i * VGS__CURVE_CELLS, *own = row + VGS__CURVE_OWN;
        f->order[i] = order[i];
        f->m[i] = 0.2 * i - 0.1;
        for (j = 0; j < 2; ++j) row[j] = parents[i][j];
        for (j = 0; j < 10 && row[0] >= 0.0; ++j)
            row[VGS__CURVE_PARENTS + j] = 0.4 * vgs_rng_uniform(&r) - 0.2;
        for (j = 0; j < 5 && row[0] >= 0.0; ++j)
            row[VGS__CURVE_PARENTS + VGS__CURVE_MEAN + j] = 0.6 * vgs_rng_uniform(&r) - 0.3;
        for (j = 0; j < 2 && i % 3 == 0; ++j) {
            own[j] = j ? 0.7 : 0.3;
            own[VGS__CURVE_PEAKS + j] = j ? 0.8 : -1.1;
            own[2 * VGS__CURVE_PEAKS + j] = j ? 0.4 : 0.25;
        }
    }
    for (i = 0; i < D; ++i)
        for (j = 0; j < D; ++j)
            f->l[turned ? i * D + j : (int)order[i] * D + (int)order[j]] =
                j == i ? 0.8 + 0.1 * i : j < i ? 0.3 - 0.2 * j : 0.0;
    for (i = 0; i < D && turned; ++i)
        for (j = 0; j < i; ++j) vgs__turn_plane(f->turn, D, i, j, 0.3 + 0.2 * i - 0.5 * j);
    if (wall) f->wall[1] = -3.0;
    OK(vgs__frame_changed(f, NULL) == VGS_OK && f->curved && f->walled == wall && f->turned == turned);
    OK(f->bent == 3 && f->peaked == 2);
}

static void map_of(bool turned)
{
    vgs_config c = quartic_config();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(&c, &err);
    const vgs__frame *f = &s->frame;
    vgs_rng r = { 3, 1, 0 };
    int row, j, side;
    OK(s->c.coordinates == VGS_CURVED && f->can_curve && !f->curved);
    make_curved(s, true, turned);
    for (row = 0; row < 200; ++row) {
        float z[D];
        double u[D], x[D], y[D], back[D], g[D], e, near[D], to[2], slope[D];
        T_IN("row %d", row);
        vgs_rng_normals(&r, z, D);
        for (j = 0; j < D; ++j) u[j] = 1.3 * (double)z[j];
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
    }
    vgs_sampler_free(s);
}

static void map(void) { map_of(false); }
static void map_turned(void) { map_of(true); }

/* Far out the map goes on, and back. */
static void far_out(void)
{
    vgs_config c = quartic_config();
    vgs_sampler *s = vgs_sampler_create(&c, NULL);
    double u[D], x[D];
    int k, j;
    make_curved(s, false, true);
    for (k = -12; k <= 12; ++k) {
        for (j = 0; j < D; ++j) u[j] = j == 2 ? (double)k : 0.5 * k;
        vgs__frame_point(&s->frame, u, x);
        vgs__frame_inverse(&s->frame, x);
        for (j = 0; j < D; ++j) CHECK_NEAR(x[j], u[j], 1e-6, 1e-6);
    }
    vgs_sampler_free(s);
}

/* ---- what the pilot finds ---- */

typedef struct shape { int kind; double unit; } shape;
enum { BANANA, SWAPPED, TURNED, NECK, GRID, BOWL };

static int shape_energy(void *user, const double *at, int n, int dim, double *e, double *g)
{
    const shape *q = (const shape *)user;
    int i, j, k;
    for (i = 0; i < n; ++i, at += dim, g = g ? g + dim : g) {
        double x[8], slope[8];
        for (j = 0; j < dim; ++j) x[j] = at[j] / q->unit;
        e[i] = 0.0;
        if (q->kind <= TURNED) {
            const int a = q->kind == SWAPPED, b = 1 - a;
            const double c = q->kind == TURNED ? 0.8 : 1.0, s = q->kind == TURNED ? 0.6 : 0.0;
            double p = c * x[a] + s * x[b], w = c * x[b] - s * x[a] - p * p;
            double by_p = p - 1.0 - 200.0 * w * p, by_w = 100.0 * w;
            e[i] = 0.5 * ((1.0 - p) * (1.0 - p) + 100.0 * w * w);
            slope[a] = c * by_p - s * by_w;
            slope[b] = s * by_p + c * by_w;
        } else if (q->kind == NECK) {
            e[i] = 0.5 * x[0] * x[0];
            slope[0] = x[0];
            for (j = 1; j < dim; ++j) {
                double z = x[j] * exp(-x[0]);
                e[i] += 0.5 * z * z + x[0];
                slope[0] += 1.0 - z * z;
                slope[j] = z * exp(-x[0]);
            }
        } else if (q->kind == GRID)
            for (j = 0; j < dim; ++j) {          /* a third each at -4, 0, 4, std .3                  */
                double p[3], sum = 0.0, down = 0.0;
                for (k = 0; k < 3; ++k) {
                    double z = (x[j] - 4.0 * (k - 1)) / 0.3;
                    sum += p[k] = exp(-0.5 * z * z);
                    down += p[k] * z / 0.3;
                }
                e[i] -= log(sum + 1e-300);
                slope[j] = sum > 0.0 ? down / sum : x[j];
            }
        else
            for (j = 0; j < dim; ++j) {
                slope[j] = x[j] + (j ? 0.5 * x[j - 1] : 0.0) + (j + 1 < dim ? 0.5 * x[j + 1] : 0.0);
                e[i] += 0.5 * x[j] * slope[j];
            }
        for (j = 0; g && j < dim; ++j) g[j] = slope[j] / q->unit;
    }
    return 0;
}

static vgs_config shape_config(shape *q, int kind, int dim, uint64_t seed)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    q->kind = kind;
    q->unit = 1.0;
    c.energy.eval64 = shape_energy;
    c.energy.user = q;
    c.energy.dim = dim;
    c.net.hidden = 16;
    c.threads = 1;
    c.seed = seed;
    return c;
}

/* After n iterations; N draws into x, their weights into w. */
static vgs_sampler *trained(const vgs_config *c, int n, float *x, vgs_weights *r)
{
    static double w[N];
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    vgs_draw d;
    memset(&d, 0, sizeof d);
    d.log_weight = w;
    CHECK(s && vgs_sampler_train(s, n, NULL, &err) == VGS_OK, "%s", err.msg);
    CHECK(vgs_sampler_draw(s, &d, N, x, &err) == VGS_OK && vgs_weigh(w, N, r, &err) == VGS_OK, "%s", err.msg);
    return s;
}

static void found(void)
{
    static const struct { int kind, dim, bent, peaked; double ess, log_z; } all[] = {
        { BANANA,  2, 1, 0, 0.95, LOG_2PI - 2.302585092994046 },
        { SWAPPED, 2, 1, 0, 0.95, LOG_2PI - 2.302585092994046 },
        { TURNED,  2, 1, 0, 0.6,  LOG_2PI - 2.302585092994046 },
        { NECK,    4, 3, 0, 0.5,  2.0 * LOG_2PI },
        { GRID,    2, 0, 2, 0.9,  LOG_2PI + 2.0 * (1.0986122886681098 - 1.2039728043259361) } };
    static float x[N * 4];
    size_t k;
    int seed;
    for (k = 0; k < sizeof all / sizeof *all; ++k)
        for (seed = 0; seed < 3; ++seed) {
            shape q;
            vgs_config c = shape_config(&q, all[k].kind, all[k].dim, (uint64_t)seed);
            vgs_weights r;
            vgs_sampler *s;
            T_IN("shape %d, seed %d", all[k].kind, seed);
            s = trained(&c, 1, x, &r);
            CHECK(s->pilot.bent == all[k].bent && s->pilot.peaked >= all[k].peaked, "bent %d, peaks %d",
                  s->pilot.bent, s->pilot.peaked);
            CHECK(s->pilot.turned == (q.kind == TURNED), "turned %d", s->pilot.turned);
            CHECK(r.ess > all[k].ess, "ESS/N %g", r.ess);
            CHECK_NEAR(r.log_z, all[k].log_z, 1e-12, 0.05);
            vgs_sampler_free(s);
        }
}

/* Without a curve, the same pilot; and where there is none to find. */
static void not_found(void)
{
    static float x[N * 6];
    vgs_weights r;
    vgs_sampler *s;
    shape q;
    int seed;
    for (seed = 0; seed < 5; ++seed) {
        vgs_config c = shape_config(&q, BOWL, 6, (uint64_t)seed);
        T_IN("seed %d", seed);
        s = trained(&c, 1, x, &r);
        CHECK(!s->pilot.bent && !s->pilot.peaked && r.ess > 0.95, "bent %d, peaks %d, ESS/N %g",
              s->pilot.bent, s->pilot.peaked, r.ess);
        vgs_sampler_free(s);
        c = shape_config(&q, BANANA, 2, (uint64_t)seed);
        c.coordinates = VGS_FULL;
        s = trained(&c, 1, x, &r);
        CHECK(!s->pilot.bent && r.ess < 0.5, "bent %d, ESS/N %g", s->pilot.bent, r.ess);
        vgs_sampler_free(s);
    }
}

/* The shares of peaks, which the first chains have wrong, are evened by moves across. */
static void shares(void)
{
    static float x[N * 2];
    shape q;
    vgs_config c = shape_config(&q, GRID, 2, 7);
    vgs_weights r;
    vgs_sampler *s = trained(&c, 1, x, &r);
    int i, k, count[9] = { 0 };
    for (i = 0; i < N; ++i)
        ++count[3 * (x[2 * i] > -2.0f) + 3 * (x[2 * i] > 2.0f) + (x[2 * i + 1] > -2.0f) +
                (x[2 * i + 1] > 2.0f)];
    for (k = 0; k < 9; ++k) CHECK(fabs(count[k] * 9.0 / N - 1.0) < 0.35, "peak %d: %d of %d", k, count[k], N);
    vgs_sampler_free(s);
}

/* ---- bits: other units, threads, files ---- */

static void same_bits(void)
{
    static float x[3][N * 2];
    vgs_weights r[3];
    shape q;
    vgs_config c = shape_config(&q, BANANA, 2, 1);
    vgs_sampler *s;
    int k, i, bad;
    c.length_scale = 2.0f;
    c.energy.thread_safe = true;
    for (k = 0; k < 3; ++k) {
        if (k == 1) { q.unit = 1024.0; c.length_scale = 2048.0f; }
        if (k == 2) { q.unit = 1.0; c.length_scale = 2.0f; }
#ifdef _OPENMP
        c.threads = k == 2 ? 2 : 1;
#endif
        s = trained(&c, 4, x[k], &r[k]);
        OK(s->pilot.bent == 1);
        vgs_sampler_free(s);
    }
    for (bad = i = 0; i < N * 2; ++i) bad += x[1][i] != 1024.0f * x[0][i];
    CHECK(bad == 0, "%d coordinates differ in other units", bad);
    OK(!memcmp(x[0], x[2], sizeof x[0]));
    OK(r[0].log_z == r[2].log_z);
}

static void file(void)
{
    static float x[2][N * 2];
    const char *path = "build/curve.safetensors";
    shape q;
    vgs_config c = shape_config(&q, BANANA, 2, 2);
    vgs_weights r;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = trained(&c, 3, x[0], &r), *t = vgs_sampler_create(&c, &err);
    int k;
    OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK);
    CHECK(t && vgs_sampler_load(t, path, &err) == VGS_OK, "%s", err.msg);
    OK(vgs_sampler_pilot(t)->bent == 1 && vgs_sampler_pilot(t)->peaked == s->pilot.peaked);
    for (k = 0; k < 2; ++k) {                    /* as it is, and after more of training              */
        OK(vgs_sampler_draw(s, NULL, N, x[0], &err) == VGS_OK);
        OK(vgs_sampler_draw(t, NULL, N, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
        OK(vgs_sampler_train(s, 3, NULL, &err) == VGS_OK && vgs_sampler_train(t, 3, NULL, &err) == VGS_OK);
    }
    vgs_sampler_free(t);
    for (k = 0; k < 5; ++k) {                    /* what is no curve                                  */
        double *at[5], was;
        at[0] = s->frame.order + 1;
        at[1] = s->frame.curve + 1 * VGS__CURVE_CELLS;
        at[2] = s->frame.curve + 1 * VGS__CURVE_CELLS + VGS__CURVE_PARENTS;
        at[3] = s->frame.order;
        at[4] = s->frame.curve + VGS__CURVE_CELLS + VGS__CURVE_OWN;
        T_IN("damage %d", k);
        was = *at[k];
        *at[k] = k == 0 ? s->frame.order[0] : k == 1 ? 1.0 : k == 2 ? (double)NAN : k == 3 ? 7.0 : 0.5;
        OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK);
        *at[k] = was;
        t = vgs_sampler_create(&c, &err);
        CHECK(vgs_sampler_load(t, path, &err) == VGS_E_FORMAT && strstr(err.msg, "coordinates_curve"), "%s",
              err.msg);
        OK(!t->frame.curved && vgs_sampler_draw(t, NULL, 10, x[1], &err) == VGS_OK);
        vgs_sampler_free(t);
    }
    vgs_sampler_free(s);
}

static void file_turned(void)
{
    static float x[2][N * 2];
    const char *path = "build/curve_turned.safetensors";
    shape q;
    vgs_config c = shape_config(&q, TURNED, 2, 1);
    vgs_weights r;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = trained(&c, 2, x[0], &r), *t = vgs_sampler_create(&c, &err);
    OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK && vgs_sampler_load(t, path, &err) == VGS_OK);
    OK(vgs_sampler_pilot(s)->turned && vgs_sampler_pilot(t)->turned);
    OK(vgs_sampler_draw(t, NULL, N, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
    s->frame.turn[1] += 1e-3;                    /* what is no rotation                               */
    OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK);
    CHECK(vgs_sampler_load(t, path, &err) == VGS_E_FORMAT && strstr(err.msg, "_turn"), "%s", err.msg);
    OK(vgs_sampler_draw(t, NULL, N, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
    vgs_sampler_free(s);
    vgs_sampler_free(t);
}

/* A pilot that goes on in curved coordinates, and one that fails there. */
static int left;
static int failing(void *user, const double *x, int n, int dim, double *e, double *g)
{
    return left-- <= 0 ? 1 : shape_energy(user, x, n, dim, e, g);
}

static void again(void)
{
    static float x[2][N * 2];
    shape q;
    vgs_config c = shape_config(&q, BANANA, 2, 3);
    vgs_weights r;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    int calls;
    c.energy.eval64 = failing;
    left = 1 << 30;
    s = trained(&c, 2, x[0], &r);
    for (calls = 0; calls < 60; calls += 13) {
        T_IN("after %d calls", calls);
        left = calls;
        OK(vgs__pilot_again(s, true, &err) == VGS_E_ENERGY);
        left = 1 << 30;
        OK(vgs_sampler_draw(s, NULL, N, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
    }
    CHECK(vgs__pilot_again(s, true, &err) == VGS_OK && s->pilot.bent == 1, "%s", err.msg);
    vgs_sampler_free(s);
}

/* ---- samples of the caller's ---- */

static void warm_start(void)
{
    static float x[N * 2], y[2][N * 2];
    static const struct { int n; double value; vgs_status code; const char *say; } bad[] = {
        { 63, 0.0, VGS_E_ARG, "n = 63" }, { N, (double)NAN, VGS_E_NONFINITE, "row 17, column 0" },
        { N, 1e30, VGS_E_NONFINITE, "energy of row 17" } };
    vgs_rng r = { 9, 1, 0 };
    shape q;
    vgs_config c = shape_config(&q, BANANA, 2, 4);
    vgs_weights w;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(&c, &err);
    size_t k;
    int i;
    for (i = 0; i < N; ++i) {
        float z[2];
        vgs_rng_normals(&r, z, 2);
        x[2 * i] = 1.0f + z[0];
        x[2 * i + 1] = x[2 * i] * x[2 * i] + 0.1f * z[1];
    }
    for (k = 0; k < sizeof bad / sizeof *bad; ++k) {
        float was = x[2 * 17];
        if (bad[k].n == N) x[2 * 17] = (float)bad[k].value;
        T_IN("case %d", (int)k);
        CHECK(vgs_sampler_warm_start(s, bad[k].n, x, &err) == bad[k].code && strstr(err.msg, bad[k].say),
              "%s", err.msg);
        x[2 * 17] = was;
        OK(!vgs_sampler_pilot(s) && !s->frame.curved);
    }
    CHECK(vgs_sampler_warm_start(s, N, x, &err) == VGS_OK, "%s", err.msg);
    OK(vgs_sampler_pilot(s)->bent == 1 && vgs_sampler_pilot(s)->energy_calls < 12000);
    OK(vgs_sampler_warm_start(s, N, x, &err) == VGS_E_ARG);
    OK(vgs_sampler_draw(s, NULL, N, y[0], &err) == VGS_OK);
    OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK && vgs_sampler_pilot(s)->energy_calls < 12000);
    vgs_sampler_free(s);
    for (k = 0; k < 2; ++k) {                    /* few rows                                          */
        s = vgs_sampler_create(&c, &err);
        CHECK(s && vgs_sampler_warm_start(s, k ? 300 : 64, x, &err) == VGS_OK, "%s", err.msg);
        vgs_sampler_free(s);
    }
    s = trained(&c, 1, y[1], &w);
    OK(w.ess > 0.9);
    vgs_sampler_free(s);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(map);
    RUN(map_turned);
    RUN(far_out);
    RUN(found);
    RUN(not_found);
    RUN(shares);
    RUN(same_bits);
    RUN(file);
    RUN(file_turned);
    RUN(again);
    RUN(warm_start);
    return t_end();
}
