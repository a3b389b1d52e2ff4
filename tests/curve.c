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

static vgs_config quartic_of(int dim)
{
    vgs_config c = quartic_config();
    c.energy.dim = dim;
    return c;
}

/* An order, a curve, peaks and a wall, none of which is the identity; tails of one coordinate and of all. */
static void make_curved(vgs_sampler *s, bool wall, bool turned, bool tails)
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
    if (tails) {
        double *own = f->curve + 2 * VGS__CURVE_CELLS + VGS__CURVE_OWN;
        own[0] = 1.0;
        own[VGS__CURVE_PEAKS] = 0.3;
        own[2 * VGS__CURVE_PEAKS] = 0.6;
        f->tail[2] = 5.0;
        f->tail[D] = 7.0;
    }
    OK(vgs__frame_changed(f, NULL) == VGS_OK && f->curved && f->walled == wall && f->turned == turned);
    OK(f->bent == 3 && f->peaked == 2 && f->stretched == tails && (f->heaviest > 0.0) == tails);
}

static void map_of(bool turned, bool tails)
{
    vgs_config c = quartic_config();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(&c, &err);
    const vgs__frame *f = &s->frame;
    vgs_rng r = { 3, 1, 0 };
    int row, j, side;
    OK(s->c.coordinates == VGS_CURVED && f->can_curve && !f->curved);
    make_curved(s, true, turned, tails);
    for (row = 0; row < 200; ++row) {
        float z[D];
        double u[D], x[D], y[D], back[D], g[D], e, near[D], to[2], slope[D];
        T_IN("row %d", row);
        vgs_rng_normals(&r, z, D);               /* of a tail squares lose digits                     */
        for (j = 0; j < D; ++j) u[j] = (tails ? 0.7 : 1.3) * (double)z[j];
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

static void map(void) { map_of(false, false); }
static void map_turned(void) { map_of(true, false); }
static void map_tails(void) { map_of(true, true); }

/* Of t in `dim` dimensions alone: of r = |u| and R = |v| as much lies beyond, by exact integrals, of all of
   it and of one coordinate. nu 2: (1 + R^2/2)^-1 in two dimensions, of one
   1 - R/sqrt(2 + R^2); nu 1: 1 - 2/pi atan R in one, of three that less 2/pi R/(1 + R^2). */
static void tails(void)
{
    enum { STEPS = 24 };
    static const struct { double nu; int dim; } all[] = { { 2, 2 }, { 1, 2 }, { 2, 1 }, { 1, 1 }, { 1, 3 } };
    size_t k;
    int i;
    for (k = 0; k < sizeof all / sizeof *all; ++k)
        for (i = 1; i <= STEPS; ++i) {
            const double nu = all[k].nu, r = i * i / 96.0, pi = 3.141592653589793;
            const int dim = all[k].dim;
            double rate, by = r * exp(vgs__tail_log(nu, dim, r, &rate)), beyond, u[3] = { 0.0 }, v[3];
            vgs_config c = quartic_of(dim);
            vgs_sampler *s = vgs_sampler_create(&c, NULL);
            vgs__frame *f = &s->frame;
            T_IN("nu %g, D = %d, r %g", nu, dim, r);
            if (dim == 2) beyond = pow(1.0 + by * by / nu, -0.5 * nu);
            else if (nu > 1.5) beyond = 2.0 / (2.0 + by * by) / (1.0 + by / sqrt(2.0 + by * by));
            else beyond = 2.0 / pi * (atan(1.0 / by) + (dim == 3 ? by / (1.0 + by * by) : 0.0));
            CHECK_NEAR(log(beyond), log(dim == 1 ? erfc(r / sqrt(2.0)) : dim == 2 ? exp(-0.5 * r * r)
                                        : erfc(r / sqrt(2.0)) + sqrt(2.0 / pi) * r * exp(-0.5 * r * r)),
                       1e-9, 1e-9);
            f->tail[dim] = nu;
            OK(vgs__frame_changed(f, NULL) == VGS_OK && f->stretched);
            u[0] = dim > 1 ? 0.6 * r : -r;
            u[dim - 1] = dim > 1 ? 0.8 * r : -r;
            vgs__frame_point(f, u, v);
            CHECK_NEAR(v[0] / f->l[0] / u[0], by / r, 1e-5 * by / r, 0.0);
            if (dim == 1) {
                f->tail[1] = 0.0;
                f->tail[0] = nu;
                f->curve[VGS__CURVE_OWN] = f->curve[VGS__CURVE_OWN + 2 * VGS__CURVE_PEAKS] = 1.0;
                OK(vgs__frame_changed(f, NULL) == VGS_OK && !f->stretched && f->curved && !f->peaked);
                vgs__frame_point(f, u, v);
                CHECK_NEAR(v[0] / f->l[0] / u[0], by / r, 1e-5 * by / r, 0.0);
            }
            vgs_sampler_free(s);
        }
}

/* Far out the map goes on, and back. */
static void far_out(void)
{
    vgs_config c = quartic_config();
    vgs_sampler *s = vgs_sampler_create(&c, NULL);
    double u[D], x[D];
    int k, j;
    make_curved(s, false, true, false);
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
enum { BANANA, SWAPPED, TURNED, NECK, GRID, BOWL, STUDENT, STUDENTS };

/* Student's t of nu degrees in dim dimensions, without its constant. */
static double student(double nu, const double *x, int dim, double *slope)
{
    double r = 0.0;
    int j;
    for (j = 0; j < dim; ++j) r += x[j] * x[j];
    for (j = 0; j < dim; ++j) slope[j] = (nu + dim) * x[j] / (nu + r);
    return 0.5 * (nu + dim) * log1p(r / nu);
}

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
        } else if (q->kind == STUDENT) {         /* x_1 turned and three times as wide                */
            double y[2], s[2];
            y[0] = x[0];
            y[1] = (x[1] - x[0]) / 3.0;
            e[i] = student(2.5, y, dim, s);
            slope[0] = s[0] - s[1] / 3.0;
            slope[1] = s[1] / 3.0;
        } else if (q->kind == STUDENTS)          /* the first with the heaviest tail, the last normal */
            for (j = 0; j < dim; ++j) {
                if (j + 1 < dim) e[i] += student(j + 1.5, x + j, 1, slope + j);
                else e[i] += 0.5 * (slope[j] = x[j]) * x[j];
            }
        else if (q->kind == GRID)
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

/* Tails that fall by a power: all along, or of coordinates. */
static void found_tails(void)
{
    static const double log_z[2] = { LOG_2PI + 1.0986122886681098, 0.5 * LOG_2PI };
    static float x[N * 3];
    int kind, seed, j;
    for (kind = 0; kind < 2; ++kind)
        for (seed = 0; seed < 3; ++seed) {
            shape q;
            const int dim = 2 + kind;
            vgs_config c = shape_config(&q, STUDENT + kind, dim, (uint64_t)seed);
            vgs_weights r;
            vgs_sampler *s;
            double truth = log_z[kind];
            T_IN("kind %d, seed %d", kind, seed);
            s = trained(&c, 1, x, &r);
            for (j = 0; kind && j < 2; ++j)
                truth += 0.5 * log((j + 1.5) * 3.141592653589793) + lgamma(0.5 * (j + 1.5)) -
                    lgamma(0.5 * (j + 2.5));
            CHECK_NEAR(s->pilot.tail, kind ? 1.5 : 2.5, 0.3, 0.0);
            CHECK(kind ? s->frame.tail[0] > 0.0 && s->frame.tail[1] > 0.0 && !(s->frame.tail[2] > 0.0)
                       : s->frame.stretched, "tails %g, %g, %g", s->frame.tail[0], s->frame.tail[1],
                  s->frame.tail[2]);
            CHECK(r.ess > 0.95 && r.khat < 0.5, "ESS/N %g, k-hat %g", r.ess, r.khat);
            CHECK_NEAR(r.log_z, truth, 1e-12, 0.01);
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

static void file_tails(void)
{
    static float x[2][N * 3];
    static const double bad[] = { -1.0, 0.1, 1e3, (double)NAN };
    const char *path = "build/curve_tails.safetensors";
    shape q;
    int kind, k;
    for (kind = STUDENT; kind <= STUDENTS; ++kind) {
        vgs_config c = shape_config(&q, kind, kind == STUDENT ? 2 : 3, 1);
        vgs_weights r;
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *s = trained(&c, 2, x[0], &r), *t = vgs_sampler_create(&c, &err);
        double *tail = s->frame.tail + (kind == STUDENT ? 2 : 0), was = *tail;
        T_IN("kind %d", kind);
        OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK && vgs_sampler_load(t, path, &err) == VGS_OK);
        CHECK_NEAR(vgs_sampler_pilot(t)->tail, s->pilot.tail, 0.0, 0.0);
        OK(vgs_sampler_draw(t, NULL, N, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
        for (k = 0; k < 5; ++k) {                /* what is no tail                                   */
            double *at = k < 4 ? tail : s->frame.tail + (kind == STUDENT ? 0 : 2);
            if (k == 4) *tail = was;
            *at = k < 4 ? bad[k] : 2.0;
            OK(vgs_sampler_save(s, path, NULL, &err) == VGS_OK);
            CHECK(vgs_sampler_load(t, path, &err) == VGS_E_FORMAT && strstr(err.msg, "_tail"), "%s", err.msg);
            OK(vgs_sampler_draw(t, NULL, N, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
        }
        vgs_sampler_free(s);
        vgs_sampler_free(t);
    }
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
    RUN(map_tails);
    RUN(tails);
    RUN(far_out);
    RUN(found);
    RUN(found_tails);
    RUN(not_found);
    RUN(shares);
    RUN(same_bits);
    RUN(file);
    RUN(file_turned);
    RUN(file_tails);
    RUN(again);
    RUN(warm_start);
    return t_end();
}
