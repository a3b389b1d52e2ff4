/* A sampler in coordinates of its own: what units, constants and origins do to it, its pilot, its choices. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include <stdlib.h>

#define LOG_2PI 1.8378770664093453
enum { N = 4000 };

/* Gaussians of standard deviation std (1 - shrink)^j along axis j, about mean, turned by a reflection; E in
   units of `unit`, with a constant. */
typedef struct gauss { double std, shrink, mean, unit, constant; bool turned; int calls; } gauss;

static double axis(const gauss *q, int j) { return q->std * pow(1.0 - q->shrink, j); }

static int gauss_energy(void *user, const double *x, int n, int dim, double *e, double *g)
{
    gauss *q = (gauss *)user;
    int i, j;
    q->calls += n;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g) {
        double sum = 0.0, back = 0.0, s;
        for (j = 0; j < dim; ++j) sum += x[j] - q->mean;
        for (e[i] = 0.0, j = 0; j < dim; ++j) {
            double z = (x[j] - q->mean - (q->turned ? 2.0 / dim * sum : 0.0)) / axis(q, j);
            e[i] += 0.5 * z * z;
            if (g) back += g[j] = z / axis(q, j);
        }
        e[i] = q->unit * e[i] + q->constant;
        for (j = 0; g && j < dim; ++j) {
            s = g[j] - (q->turned ? 2.0 / dim * back : 0.0);
            g[j] = q->unit * s;
        }
    }
    return 0;
}

static vgs_config config_of(gauss *q, int dim)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = gauss_energy;
    c.energy.user = q;
    c.energy.dim = dim;
    c.tau = (float)q->unit;
    c.net.hidden = 16;
    c.threads = 1;
    return c;
}

/* Trains n iterations and draws N rows; x and w may be NULL. */
static vgs_sampler *trained(const vgs_config *c, int n, float *x, double *w)
{
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    vgs_draw d;
    float *room = (float *)malloc((size_t)N * (size_t)c->energy.dim * sizeof *room);
    memset(&d, 0, sizeof d);
    d.log_weight = w;
    CHECK(s && vgs_sampler_train(s, n, NULL, &err) == VGS_OK, "%s", err.msg);
    if (w) CHECK(vgs_sampler_draw(s, &d, N, x ? x : room, &err) == VGS_OK, "%s", err.msg);
    free(room);
    return s;
}

/* ---- any Gaussian is as good as another ---- */

static void gaussians(void)
{
    static const struct { int dim; gauss q; } all[] = {
        { 1,  { 1, 0, 0, 1, 0, false, 0 } },         { 2,  { 1e6, 0, 1e11, 1, 0, false, 0 } },
        { 5,  { 1e-6, 0, 0.1, 1, 1e9, false, 0 } },  { 5,  { 1, 0, 3, 1e-21, 0, false, 0 } },
        { 5,  { 50, 0, -20, 1e6, -1e8, false, 0 } }, { 12, { 1, 0.715, 2, 1, 0, false, 0 } },
        { 12, { 1, 0.465, 2, 1, 0, true, 0 } },      { 30, { 1, 0.2, 0, 1, 0, true, 0 } } };
    double w[N];
    size_t k;
    for (k = 0; k < sizeof all / sizeof *all; ++k) {
        gauss q = all[k].q;
        vgs_config c = config_of(&q, all[k].dim);
        vgs_weights r;
        double log_z = 0.5 * all[k].dim * LOG_2PI - q.constant / (double)c.tau;
        vgs_sampler *s;
        int j;
        T_IN("Gaussian %d of dim %d", (int)k, all[k].dim);
        for (j = 0; j < all[k].dim; ++j) log_z += log(axis(&q, j));
        s = trained(&c, 1, NULL, w);
        OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
        CHECK(r.ess >= 0.95, "ESS/N %g", r.ess);
        CHECK_NEAR(r.log_z, log_z, 1e-12, 0.02);
        vgs_sampler_free(s);
    }
}

/* ---- scaling by powers of two leaves every bit; a constant takes some of E's, and rounding spreads ---- */

static void same_bits(void)
{
    gauss q = { 1, 0.3, 0.75, 1, 0, true, 0 }, scaled;
    vgs_config c = config_of(&q, 3), d;
    static float x[N * 3], y[N * 3];
    static double w[N], v[N];
    vgs_sampler *s = NULL;
    int k, i, bad;
    c.length_scale = 2;
    vgs_sampler_free(trained(&c, 6, x, w));
    for (k = 0; k < 3; ++k) {
        double length = k == 0 ? 1048576.0 : 1.0, unit = k == 1 ? 0.0009765625 : 1.0;
        T_IN("case %d", k);
        scaled = q;
        scaled.std *= length;
        scaled.mean *= length;
        scaled.unit = unit;
        scaled.constant = k == 2 ? 1024.0 : 0.0;
        d = config_of(&scaled, 3);
        d.length_scale = (float)(2 * length);
        s = trained(&d, 6, y, v);
        for (bad = 0, i = 0; i < N * 3; ++i) bad += (double)y[i] != (double)x[i] * length;
        CHECK(bad == 0 || k == 2, "%d coordinates differ", bad);
        for (bad = 0, i = 0; i < N * 3; ++i)
            bad += fabs((double)y[i] / length - (double)x[i]) > 1e-3 * (1.0 + fabs((double)x[i]));
        CHECK(bad == 0, "%d coordinates are elsewhere", bad);
        for (bad = 0, i = 0; i < N; ++i)
            bad += fabs(v[i] - w[i] - 3 * log(length) + scaled.constant) > (k == 2 ? 5e-3 : 1e-12);
        CHECK(bad == 0, "%d weights differ", bad);
        vgs_sampler_free(s);
    }
}

/* ---- calls of train in parts, checkpoints ---- */

static double wells(const double *x, double *g)      /* two modes along the first axis                  */
{
    double a = x[0] * x[0] - 4.0;
    if (g) { g[0] = 12.0 * a * x[0]; g[1] = x[1]; }
    return 3 * a * a + 0.5 * x[1] * x[1];
}
static int wells_energy(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i) e[i] = wells(x + i * dim, g ? g + i * dim : NULL);
    return 0;
}

static vgs_config wells_config(void)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = wells_energy;
    c.energy.dim = 2;
    c.net.hidden = 16;
    c.batch = 32;
    c.threads = 1;
    return c;
}

static void parts(void)
{
    const char *path = "build/coordinates.safetensors";
    vgs_config c = wells_config(), from;
    vgs_error err = { VGS_OK, "" };
    static float x[N * 2], y[N * 2];
    static double w[N], v[N];
    vgs_sampler *s = trained(&c, 120, x, w), *t = trained(&c, 20, NULL, NULL);
    int k, count = 0;
    vgs_draw d;
    memset(&d, 0, sizeof d);
    d.log_weight = v;
    for (k = 0; k < 10; ++k) OK(vgs_sampler_train(t, 10, NULL, &err) == VGS_OK);
    OK(vgs_sampler_draw(t, &d, N, y, &err) == VGS_OK && !memcmp(x, y, sizeof x) && !memcmp(w, v, sizeof w));
    vgs_sampler_free(t);
    t = trained(&c, 40, NULL, NULL);             /* saved between two measurements                    */
    OK(vgs_sampler_draw(t, &d, N, x, &err) == VGS_OK);
    CHECK(vgs_sampler_save(t, path, NULL, &err) == VGS_OK, "%s", err.msg);
    memset(&from, 0, sizeof from);
    from.energy = c.energy;
    from.threads = 1;
    OK(vgs_checkpoint_config(path, &from, &count, &err) == VGS_OK && count > 0);
    vgs_sampler_free(t);
    t = vgs_sampler_create(&c, &err);            /* as it was given at first: takes over what was found */
    CHECK(t && vgs_sampler_load(t, path, &err) == VGS_OK, "%s", err.msg);
    OK(vgs_sampler_draw(t, &d, N, y, &err) == VGS_OK && !memcmp(x, y, sizeof x));
    vgs_sampler_free(t);
    t = vgs_sampler_create(&from, &err);
    CHECK(t && vgs_sampler_load(t, path, &err) == VGS_OK, "%s", err.msg);
    OK(vgs_sampler_draw(t, &d, N, y, &err) == VGS_OK && !memcmp(x, y, sizeof x));
    OK(vgs_sampler_train(t, 80, NULL, &err) == VGS_OK && vgs_sampler_draw(t, &d, N, y, &err) == VGS_OK);
    OK(vgs_sampler_draw(s, &d, N, x, &err) == VGS_OK && !memcmp(x, y, sizeof x));
    vgs_sampler_free(t);
    vgs_sampler_free(s);
    remove(path);
}

/* ---- V and its gradient, with features of E ---- */

static void features(void)
{
    vgs_config c = wells_config();
    vgs_error err = { VGS_OK, "" };
    float x[6][2], up[2], g[2], v, hi, lo;
    vgs_sampler *s;
    int points, i, j, t;
    for (points = 1; points <= 8; points += 7) {
        c.energy_features = points;
        s = trained(&c, 30, NULL, NULL);
        for (i = 0; i < 6; ++i) {
            x[i][0] = 0.7f * (float)i - 2.0f;
            x[i][1] = 0.4f - 0.3f * (float)i;
            for (t = 0; t < 16; t += 15)
                for (j = 0; j < 2; ++j) {
                    const float h = 4e-3f;
                    OK(vgs_sampler_value(s, t, x[i], 1, &v, g, &err) == VGS_OK);
                    memcpy(up, x[i], sizeof up);
                    up[j] = x[i][j] + h;
                    OK(vgs_sampler_value(s, t, up, 1, &hi, NULL, &err) == VGS_OK);
                    up[j] = x[i][j] - h;
                    OK(vgs_sampler_value(s, t, up, 1, &lo, NULL, &err) == VGS_OK);
                    CHECK_NEAR((hi - lo) / (2 * h), g[j], 0.02, 0.03);
                }
        }
        vgs_sampler_free(s);
    }
}

/* ---- training never ends below where it began; target_ess ends it ---- */

static void good_enough(void)
{
    gauss q = { 1, 0, 0, 1, 0, false, 0 };
    vgs_config c = config_of(&q, 2);
    static double w[N];
    vgs_weights r;
    vgs_sampler *s;
    c.target_ess = 0.9f;
    s = trained(&c, 1000, NULL, w);
    OK(vgs_sampler_reached(s) && vgs_sampler_iteration(s) == 25 && vgs_sampler_pilot(s));
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK && r.ess >= 0.9);
    vgs_sampler_free(s);
    c.target_ess = 0;
    c.value_lr = 3;                              /* which ruins the network                           */
    s = trained(&c, 50, NULL, w);
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
    CHECK(r.ess >= 0.9, "ESS/N %g", r.ess);
    vgs_sampler_free(s);
}

/* ---- energies that are none ---- */

static int constant(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user, (void)x;
    for (i = 0; i < n; ++i) e[i] = 3;
    for (i = 0; g && i < n * dim; ++i) g[i] = 0;
    return 0;
}
static int falling(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i)
        for (e[i] = 0, j = 0; j < dim; ++j) {
            e[i] -= x[i * dim + j] * x[i * dim + j];
            if (g) g[i * dim + j] = -2 * x[i * dim + j];
        }
    return 0;
}
static int nowhere(void *user, const float *x, int n, int dim, float *e, float *g)
{
    constant(user, x, n, dim, e, g);
    while (n--) e[n] = (float)INFINITY;
    return 0;
}

static int holed(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    for (i = 0; i < n * dim && g; ++i) g[i] = x[i] > 0.5f ? (float)NAN : x[i];
    for (i = 0; i < n; ++i) e[i] = 0.5f * (x[i * dim] * x[i * dim] + x[i * dim + 1] * x[i * dim + 1]);
    return 0;
}

static void refused(void)
{
    static const struct { vgs_energy_fn *f; const char *says; } all[] = {
        { constant, "a constant has no density" }, { falling, "falls without end" },
        { nowhere, "finite nowhere" }, { holed, "gradient is not finite; E = " } };
    int k;
    for (k = 0; k < 4; ++k) {
        vgs_config c;
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *s;
        memset(&c, 0, sizeof c);
        c.energy.eval = all[k].f;
        c.energy.dim = 2;
        c.net.hidden = 8;
        s = vgs_sampler_create(&c, &err);
        OK(s && vgs_sampler_train(s, 5, NULL, &err) != VGS_OK && vgs_sampler_iteration(s) == 0);
        CHECK(strstr(err.msg, all[k].says), "%s", err.msg);
        vgs_sampler_free(s);
    }
}

/* Descents that all end in the very minimum, where the slope is 0: not constant for that. Student, nu 2.5. */
static int student(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g) {
        double r = x[0] * x[0] + x[1] * x[1];
        e[i] = 2.25 * log1p(r / 2.5);
        for (j = 0; g && j < dim; ++j) g[j] = 4.5 * x[j] / (2.5 + r);
    }
    return 0;
}

static void heavy_tails(void)
{
    vgs_config c = wells_config();
    static double w[N];
    vgs_weights r;
    c.energy.eval64 = student;
    vgs_sampler_free(trained(&c, 1, NULL, w));
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
    CHECK(r.ess > 0.2, "ESS/N %g", r.ess);
    CHECK_NEAR(r.log_z, LOG_2PI, 0, 0.1);
}

/* No pilot, no call of E before the first iteration. */
static void no_pilot(void)
{
    gauss q = { 1, 0, 0, 1, 0, false, 0 };
    vgs_config c = config_of(&q, 2);
    vgs_error err;
    vgs_sampler *s;
    OK(vgs_field_set(&c, "pilot_calls", "0", &err) == VGS_OK && c.pilot_calls == -1);
    s = trained(&c, 2, NULL, NULL);
    OK(!vgs_sampler_pilot(s) && q.calls <= 2 * 3 * 128);
    vgs_sampler_free(s);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(gaussians);
    RUN(same_bits);
    RUN(parts);
    RUN(features);
    RUN(good_enough);
    RUN(refused);
    RUN(heavy_tails);
    RUN(no_pilot);
    return t_end();
}
