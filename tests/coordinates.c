/* A sampler in coordinates of its own: what units, constants and origins do to it, its pilot, its choices. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

#define LOG_2PI 1.8378770664093453
enum { N = 4000 };
#include "trained.h"

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

/* Fields that were given stay; a file that needs others is refused, and nothing is changed. */
static void keeps_given(const char *path, const vgs_sampler *saved)
{
    static float x[2][100 * 2];
    vgs_config c = wells_config();
    const vgs_config *now;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *t;
    int k;
    c.value_lr = 3e-3f;
    c.tau = 1.5f;
    t = vgs_sampler_create(&c, &err);
    CHECK(t && vgs_sampler_load(t, path, &err) == VGS_OK, "%s", err.msg);
    now = vgs_sampler_config(t);
    OK(now->value_lr == c.value_lr && now->tau == c.tau && t->frame.tau == 1.5);
    OK(now->steps == vgs_sampler_config(saved)->steps && now->replay == vgs_sampler_config(saved)->replay);
    vgs_sampler_free(t);
    for (k = 0; k < 3; ++k) {
        T_IN("case %d", k);
        c = wells_config();
        if (k == 0) c.steps = vgs_sampler_config(saved)->steps + 1;
        if (k == 1) c.net.hidden = 24;
        if (k == 2) c.coordinates = VGS_FULL;
        t = vgs_sampler_create(&c, &err);
        c = *vgs_sampler_config(t);
        OK(vgs_sampler_draw(t, NULL, 100, x[0], &err) == VGS_OK);
        CHECK(vgs_sampler_load(t, path, &err) == VGS_E_SHAPE, "%s", err.msg);
        OK(!memcmp(&c, vgs_sampler_config(t), sizeof c) && !vgs_sampler_pilot(t));
        OK(vgs_sampler_draw(t, NULL, 100, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
        CHECK(vgs_sampler_train(t, 1, NULL, &err) == VGS_OK, "%s", err.msg);
        vgs_sampler_free(t);
    }
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
    keeps_given(path, t);
    T_IN("%s", "");
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

/* ---- what the pilot has found and draws do not reach ---- */

/* Two Gaussians with shares .9 and .1, in D dimensions `away` apart along each. */
static double away;
static int two_energy(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g) {
        double a = 0.0, b = 0.0, p;
        for (j = 0; j < dim; ++j) {
            a += 0.5 * x[j] * x[j];
            b += 0.5 * (x[j] - away) * (x[j] - away);
        }
        p = 1.0 / (1.0 + exp(fmin(a - b, 700.0)) / 9.0);
        e[i] = a < b ? a - log(0.9 + 0.1 * exp(a - b)) : b - log(0.1 + 0.9 * exp(b - a));
        for (j = 0; g && j < dim; ++j) g[j] = x[j] - (1.0 - p) * away;
    }
    return 0;
}

/* Its few samples of the second mode tell what weights cannot: log Z is .1 too low at an ESS/N near 1. */
static void missed(void)
{
    static double w[N];
    int k;
    for (k = 0; k < 2; ++k) {
        vgs_config c = wells_config();
        vgs_error err = { VGS_OK, "" };
        vgs_weights alone, r;
        vgs_sampler *s;
        T_IN("%s", k ? "two modes, near" : "two modes, far apart");
        away = k ? 1.0 : 7.0;
        c.energy.eval64 = two_energy;
        c.energy.dim = 8;
        s = trained(&c, 2, NULL, w);
        OK(vgs_weigh(w, N, &alone, NULL) == VGS_OK && (k || alone.verdict == VGS_VERDICT_USABLE));
        CHECK(vgs_sampler_weigh(s, w, N, &r, &err) == VGS_OK, "%s", err.msg);
        OK(r.log_z == alone.log_z && r.ess == alone.ess && alone.missed == 0);
        CHECK(k ? r.missed == 0 && r.verdict == alone.verdict
                : r.missed > 0 && r.verdict == VGS_VERDICT_CAUTION && r.log_z < 4 * LOG_2PI - 0.05,
              "missed %g, ESS/N %g, log Z %g +- %g", r.missed, r.ess, r.log_z, r.log_z_se);
        vgs_sampler_free(s);
    }
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

/* A Gaussian whose coordinates are not its own axes, with a constant; in float it may have a hole. */
typedef struct tilted { double constant; float hole; bool no_gradient, fails; } tilted;

static int tilted_energy(void *user, const double *x, int n, int dim, double *e, double *g)
{
    const tilted *q = (const tilted *)user;
    int i;
    if (q->fails || (q->no_gradient && g)) return 1;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g) {
        double z = 10 * (x[1] - 3 * x[0]);
        e[i] = 0.5 * (x[0] * x[0] + z * z) + q->constant;
        if (g) { g[0] = x[0] - 30 * z; g[1] = 10 * z; }
    }
    return 0;
}
static int holed(void *user, const float *x, int n, int dim, float *e, float *g)
{
    const float hole = ((const tilted *)user)->hole;
    int i, j, failed = 0;
    for (i = 0; i < n && !failed; ++i, x += dim, g = g ? g + dim : g) {
        double at[2], energy, slope[2];
        for (j = 0; j < 2; ++j) at[j] = (double)x[j];
        failed = tilted_energy(user, at, 1, dim, &energy, g ? slope : NULL);
        for (e[i] = (float)energy, j = 0; j < 2 && g; ++j) g[j] = (float)slope[j];
        if (!(x[0] > 0.5f && x[0] < 0.8f)) continue;
        if (hole < 0) e[i] = hole;
        else if (hole > 0 && g) g[1] = (float)NAN;
    }
    return failed;
}

/* Each is said in its own words, and what is wrong is given in x, as the callback has it. */
static void refused(void)
{
    static tilted slope = { 0, 1, false, false }, pit = { 0, -(float)INFINITY, false, false },
                  bare = { 0, 0, true, false }, fails = { 0, 0, false, true },
                  huge = { 1e300, 0, false, false }, large = { 1e30, 0, false, false },
                  bottom = { -(double)INFINITY, 0, false, false };
    static const struct { vgs_energy_fn *f; tilted *of; const char *says; } all[] = {
        { constant, NULL, "a constant has no density" }, { falling, NULL, "falls without end" },
        { nowhere, NULL, "finite nowhere" }, { holed, &slope, "gradient is not finite; E = " },
        { holed, &slope, "dE/dx[1] = " }, { holed, &pit, "E = -inf at x = (0." },
        { holed, &bottom, "pilot: the energy is not finite; E = -inf at x = (" },
        { holed, &large, "floats, differences of tau = 1" },
        { NULL, &huge, "E is about 1e+300: of energies of this size differences of tau = 1 are lost" },
        { NULL, &large, "E is about 1e+30: of energies of this size differences of tau = 1 are lost" },
        { holed, &bare, "asked for E and its gradient" }, { NULL, &bare, "asked for E and its gradient" },
        { holed, &fails, "the energy callback failed" }, { NULL, &fails, "the energy callback failed" } };
    size_t k;
    for (k = 0; k < sizeof all / sizeof *all; ++k) {
        vgs_config c;
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *s;
        T_IN("energy %d", (int)k);
        memset(&c, 0, sizeof c);
        c.energy.eval = all[k].f;
        c.energy.eval64 = all[k].f ? NULL : tilted_energy;
        c.energy.user = all[k].of;
        c.energy.dim = 2;
        c.net.hidden = 8;
        s = vgs_sampler_create(&c, &err);
        OK(s && vgs_sampler_train(s, 5, NULL, &err) != VGS_OK && vgs_sampler_iteration(s) == 0);
        CHECK(strstr(err.msg, all[k].says), "%s", err.msg);
        CHECK(!strstr(err.msg, "coordinates = plain"), "%s", err.msg);
        CHECK(all[k].of != &fails || !strstr(err.msg, "gradient"), "%s", err.msg);
        vgs_sampler_free(s);
    }
}

/* N(0, 1) but minus infinity far out, where no descent leads; or a callback that fails at its 100th call. */
static int calls;
static int abyss(void *user, const double *x, int n, int dim, double *e, double *g)
{
    const bool fails = user != NULL;
    int i, j;
    if (fails && ++calls == 100) return 1;
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g) {
        for (e[i] = 0.0, j = 0; j < dim; ++j) e[i] += 0.5 * x[j] * x[j];
        for (j = 0; g && j < dim; ++j) g[j] = x[j];
        if (!fails && x[0] > 4) e[i] = -(double)INFINITY;
    }
    return 0;
}

static void rare(void)
{
    int k, any = 0;
    for (k = 0; k < 2; ++k) {
        vgs_config c = wells_config();
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *s;
        T_IN("%s", k ? "a failing call" : "minus infinity");
        c.energy.eval64 = abyss;
        c.energy.user = k ? &any : NULL;
        c.energy.dim = 3;
        c.threads = 1;
        calls = 0;
        OK((s = vgs_sampler_create(&c, &err)) != NULL);
        OK(vgs_sampler_train(s, 5, NULL, &err) == (k ? VGS_E_ENERGY : VGS_E_NONFINITE));
        CHECK(strstr(err.msg, k ? "the energy callback failed"
                                : "pilot: the energy is not finite; E = -inf at x = ("), "%s", err.msg);
        CHECK(!strstr(err.msg, "has none"), "%s", err.msg);
        OK(vgs_sampler_iteration(s) == 0);
        vgs_sampler_free(s);
    }
}

/* E = 0 within |x| < 1: flat wherever it is finite, and no constant for that. */
static int disc(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i) e[i] = x[i * dim] * x[i * dim] + x[i * dim + 1] * x[i * dim + 1] < 1
                                       ? 0.0 : (double)INFINITY;
    if (g) memset(g, 0, (size_t)(n * dim) * sizeof *g);
    return 0;
}

static void flat_inside(void)
{
    vgs_config c = wells_config();
    static double w[N];
    vgs_weights r;
    c.energy.eval64 = disc;
    vgs_sampler_free(trained(&c, 1, NULL, w));
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
    CHECK(r.ess > 0.4 && fabs(r.log_z - log(3.14159265358979)) < 5 * r.log_z_se, "ESS/N %g, log Z %g +- %g",
          r.ess, r.log_z, r.log_z_se);
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

/* ---- every kind of coordinates, and of energy ---- */

static vgs_var bowl_record(void *user, vgs_graph *g, vgs_var x)      /* |x - 3|^2 / (2 0.01^2)          */
{
    (void)user;
    return vgs_affine(g, vgs_sum_cols(g, vgs_square(g, vgs_affine(g, x, 1.0f, -3.0f))), 5000.0f, 0.0f);
}

static void kinds(void)
{
    static const struct { vgs_coordinates kind; int dim; double mean; } all[] = {
        { VGS_SCALE, 3, 0 }, { VGS_DIAGONAL, 3, 7 }, { VGS_FULL, 3, 7 }, { VGS_COORDINATES_AUTO, 150, 7 } };
    static double w[N];
    vgs_weights r;
    size_t k;
    vgs_config c;
    vgs_sampler *s;
    for (k = 0; k < sizeof all / sizeof *all; ++k) {
        gauss q = { 0.01, 0, all[k].mean, 1, 0, false, 0 };
        T_IN("coordinates %d, dim %d", (int)all[k].kind, all[k].dim);
        c = config_of(&q, all[k].dim);
        c.coordinates = all[k].kind;
        s = trained(&c, 1, NULL, w);
        OK(all[k].kind != VGS_SCALE || (s->frame.m[0] == 0 && s->frame.m[2] == 0));
        vgs_sampler_free(s);
        OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
        CHECK(r.ess >= 0.9, "ESS/N %g", r.ess);
        CHECK_NEAR(r.log_z, all[k].dim * (0.5 * LOG_2PI + log(0.01)), 0, 0.02);
    }
    for (k = 0; k < 2; ++k) {
        T_IN("recorded, coordinates %d", k ? (int)VGS_DIAGONAL : (int)VGS_FULL);
        memset(&c, 0, sizeof c);
        c.energy.record = bowl_record;
        c.energy.dim = 3;
        c.net.hidden = 16;
        c.coordinates = k ? VGS_DIAGONAL : VGS_FULL;
        vgs_sampler_free(trained(&c, 1, NULL, w));
        OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
        CHECK(r.ess >= 0.9, "ESS/N %g", r.ess);
        CHECK_NEAR(r.log_z, 3 * (0.5 * LOG_2PI + log(0.01)), 0, 0.02);
    }
}

/* ---- the target of denoise_loss: without noise where E is quadratic of the width that it takes ---- */

static void denoising(void)
{
    const double width = 0.8;
    gauss q = { 0.8, 0, 0, 1.5, 0, false, 0 };
    vgs_config c = config_of(&q, 2);
    vgs_error err = { VGS_OK, "" };
    int k, i, t;
    for (k = 0; k < 2; ++k) {
        static float x[64 * 32 * 2], g[64 * 32 * 2];
        double v = width * width, worst = 0.0;
        vgs_sampler *s;
        T_IN("%s", k ? "vp" : "ve");
        c.coordinates = VGS_PLAIN;
        c.alpha = k ? VGS_VP : VGS_VE;
        c.length_scale = 0.8f;
        c.detail_scale = 0.8f;
        c.batch = 32;
        c.replay = 2;
        c.denoise_loss = 1;
        s = vgs_sampler_create(&c, &err);
        CHECK(s && vgs_sampler_train(s, 4, NULL, &err) == VGS_OK, "%s", err.msg);
        s->iteration = 6;                        /* an even one: it denoises                          */
        OK(vgs__train_denoises(s) && vgs__train_denoise(s, &err) == VGS_OK);
        OK(s->b->download(s->b->self, x, s->traj_x, 0, (size_t)s->c.steps * 64, VGS_F32, &err) == VGS_OK);
        OK(s->b->download(s->b->self, g, s->traj_grad, 0, (size_t)s->c.steps * 64, VGS_F32, &err) == VGS_OK);
        for (t = s->c.steps - 1; t >= 0; --t) {
            v = vgs__value_chain_variance(s, t, v);
            for (i = t * 64; i < (t + 1) * 64; ++i)
                worst = fmax(worst, fabs((double)g[i] - 1.5 * (double)x[i] / v) * sqrt(v));
        }
        CHECK(worst < 1e-4, "the target is off by %g", worst);
        vgs_sampler_free(s);
    }
}

/* After a pilot half of the iterations denoise, and none with a weight of nothing, which needs no replay. */
static void denoising_off(void)
{
    gauss q = { 1, 0, 0, 1, 0, false, 0 };
    vgs_config c = config_of(&q, 2);
    vgs_error err = { VGS_OK, "" };
    int k;
    for (k = 0; k < 2; ++k) {
        vgs_sampler *s;
        T_IN("%s", k ? "off" : "on");
        c.denoise_loss = k ? 1e-30f : 0.0f;
        s = vgs_sampler_create(&c, &err);
        CHECK(s && vgs_sampler_train(s, 2, NULL, &err) == VGS_OK, "%s", err.msg);
        OK(s && vgs__train_denoises(s) == !k && (s->stage->denoise_fit.g != NULL) == !k);
        OK(s && s->kept_fixed > 0);
        vgs_sampler_free(s);
    }
    c.coordinates = VGS_PLAIN;
    vgs_sampler_free(vgs_sampler_create(&c, &err));
    CHECK(err.code == VGS_OK, "%s", err.msg);
}

/* Trained so far, saved, loaded and trained on, s [weights of at most 40000] is as without. */
static void goes_on(const vgs_config *c, const float *warm, const vgs_sampler *whole, int first, int rest)
{
    static float x[40000], y[40000];
    const char *path = "build/coordinates.safetensors";
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    CHECK(s && vgs_sampler_warm_start(s, N, warm, &err) == VGS_OK, "%s", err.msg);
    OK(vgs_sampler_train(s, first, NULL, &err) == VGS_OK && vgs_sampler_save(s, path, NULL, &err) == VGS_OK);
    vgs_sampler_free(s);
    s = vgs_sampler_create(c, &err);
    CHECK(s && vgs_sampler_load(s, path, &err) == VGS_OK, "%s", err.msg);
    OK(vgs_sampler_train(s, rest, NULL, &err) == VGS_OK && vgs_model_size(s->online) <= 40000);
    OK(vgs_model_read(s->online, x, NULL) == VGS_OK && vgs_model_read(whole->online, y, NULL) == VGS_OK);
    OK(!memcmp(x, y, (size_t)vgs_model_size(s->online) * sizeof *x) && s->kept == whole->kept);
    vgs_sampler_free(s);
    remove(path);
}

/* Samples that draws show not to be the target's are forgotten, once; V then learns from the sampler's own.
   Those of the target stay. */
static void samples_forgotten(void)
{
    enum { D = 10 };
    static float x[N * D];
    gauss q = { 1, 0, 0, 1, 0, false, 0 };
    vgs_config c = config_of(&q, D);
    vgs_error err = { VGS_OK, "" };
    int k, i;
    c.coordinates = VGS_FULL;
    for (k = 0; k < 2; ++k) {
        vgs_rng r = { 3, 1, 0 };
        vgs_sampler *s = vgs_sampler_create(&c, &err);
        T_IN("%s", k ? "of three quarters of the width" : "of the target");
        vgs_rng_normals(&r, x, N * D);
        for (i = 0; i < N * D; ++i) x[i] *= k ? 0.75f : 1.0f;
        CHECK(s && vgs_sampler_warm_start(s, N, x, &err) == VGS_OK, "%s", err.msg);
        OK((vgs_sampler_pilot(s)->rows == 0) == k && (s->kept_fixed == 0) == k);
        OK(vgs__train_denoises(s) == !k);
        OK(vgs_sampler_train(s, 26, NULL, &err) == VGS_OK && s->kept > 10);
        goes_on(&c, x, s, 5, 21);
        s->kept = s->c.replay;
        OK(vgs__train_denoises(s));
        vgs_sampler_free(s);
    }
}

static int springs(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, a, b;
    (void)user;
    memset(e, 0, (size_t)n * sizeof *e);
    if (g) memset(g, 0, (size_t)n * (size_t)dim * sizeof *g);
    for (i = 0; i < n; ++i, x += dim, g = g ? g + dim : g)
        for (a = 0; a < dim; ++a)
            for (b = a % 2; b < a; b += 2) {
                double r = x[a] - x[b];
                e[i] += 0.5 * r * r;
                if (g) { g[a] += r; g[b] -= r; }
            }
    return 0;
}

/* Two wells 2.8e-6 apart, given without a length: descents begin a million times as far out, where E is 1e24
   and its curvature 1e36. */
static int small_wells(void *user, const double *x, int n, int dim, double *e, double *g)
{
    (void)user;
    for (int i = 0; i < n; ++i, x += dim) {
        double a = x[0] * 1e6, w = a * a - 2.0, z = x[1] * 1e6 - a;
        e[i] = w * w + 0.5 * z * z;
        if (g) { g[dim * i] = (4.0 * a * w - z) * 1e6; g[dim * i + 1] = z * 1e6; }
    }
    return 0;
}

/* After one iteration with energy and dimension alone. */
static vgs_sampler *begun(vgs_energy_fn64 *f, int dim, uint64_t seed)
{
    vgs_config c;
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = f;
    c.energy.dim = dim;
    c.seed = seed;
    c.threads = 1;
    s = vgs_sampler_create(&c, &err);
    CHECK(s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);
    return s;
}

static void begins_far_out(void)
{
    vgs_sampler *s = begun(small_wells, 2, 0);
    CHECK(s->frame.l[0] > 5e-7 && s->frame.l[0] < 5e-6, "%g", s->frame.l[0]);
    vgs_sampler_free(s);
}

/* Scales a factor 1e6 apart, D = 30: rounding spoils the first fits as a whole, not their diagonal. */
static int scales_apart(void *user, const double *x, int n, int dim, double *e, double *g)
{
    (void)user;
    for (int i = 0; i < n; ++i) {
        e[i] = 0;
        for (int j = 0; j < dim; ++j) {
            double width = pow(10.0, -6.0 * j / (dim - 1)), z = x[i * dim + j] / width;
            e[i] += 0.5 * z * z;
            if (g) g[i * dim + j] = z / width;
        }
    }
    return 0;
}

static void far_apart(void)
{
    vgs_sampler *s = begun(scales_apart, 30, 1);
    CHECK(s->best_ess > 0.95, "%g", s->best_ess);
    vgs_sampler_free(s);
}

static vgs_config three_particles(void)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = springs;
    c.energy.dim = 6;
    c.energy.particles = 3;
    c.net.hidden = 4;
    c.threads = 1;
    return c;
}

/* V of particles learns from kept samples alone at first, in small batches: what is rolled out between
   changes kappa, not V. */
static void particles_alone(void)
{
    static float before[20000], after[20000];
    vgs_config c = three_particles();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    int k;
    c.steps = 8;
    s = vgs_sampler_create(&c, &err);
    CHECK(s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);
    OK(s->c.net.kind == VGS_NET_EGNN && s->c.batch == 32 && s->c.value_lr > 9e-4f);
    for (k = 0; k < 4; ++k) {
        T_IN("%d", k);
        s->iteration = k == 0 ? 11 : k == 1 ? 16 : k == 2 ? 56 : 101;
        OK(vgs__train_denoises(s) == (k == 0 || k == 3));
        OK(vgs_model_size(s->online) <= 20000 && vgs_model_read(s->online, before, &err) == VGS_OK);
        OK(vgs__train_iteration(s, &err) == VGS_OK);
        OK(vgs_model_read(s->online, after, &err) == VGS_OK);
        OK((memcmp(before, after, sizeof before) == 0) == (k == 1));
    }
    vgs_sampler_free(s);
}

/* What the pilot chooses for particles: all its calls at once, so that it does not go on when ESS/N is low,
   but does if calls are given; all samples kept, four times the steps, narrow windows; when a corrector is
   chosen anew. */
static void particles_chosen(void)
{
    vgs_config c = three_particles();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    int k;
    for (k = 0; k < 2; ++k) {
        T_IN("%d", k);
        c.pilot_calls = k ? 3000 : 0;
        s = vgs_sampler_create(&c, &err);
        CHECK(s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);
        OK(s->c.pilot_calls == (k ? 3000 : 300000) && s->c.replay == 384);
        OK(s->c.steps == 4 * s->pilot.steps && s->c.steps >= 64);
        OK(s->c.net.windows == 32 && fabsf(s->c.net.x_scale - 0.1f) < 1e-6f);
        OK(vgs__train_resumes(s) == (k == 1));
        for (s->iteration = 0; s->iteration < 100; s->iteration += 75) OK(!vgs__choice_due(s));
        s->iteration = 100;
        OK(vgs__choice_due(s));
        vgs_sampler_free(s);
    }
}

/* ---- walls along the axes: what the pilot finds, and what the map of it does ---- */

/* A correlated Gaussian cut to x_0 > 0.3, -1 < x_1 < 2; or, `hole`, without its middle. */
typedef struct cut { bool hole; int outside; } cut;

static double cut_at(const cut *q, const double *x, double *g)
{
    double a = x[0], b = x[1] - 0.5 * x[0];
    bool in = q->hole ? a * a + x[1] * x[1] > 1.0 : a > 0.3 && x[1] > -1.0 && x[1] < 2.0;
    if (g) { g[0] = a - b; g[1] = 2.0 * b; }
    return in ? 0.5 * a * a + b * b : HUGE_VAL;
}
static int cut_energy(void *user, const double *x, int n, int dim, double *e, double *g)
{
    cut *q = (cut *)user;
    int i;
    for (i = 0; i < n; ++i) {
        e[i] = cut_at(q, x + i * dim, g ? g + i * dim : NULL);
        q->outside += !(e[i] <= DBL_MAX);
    }
    return 0;
}

/* log Z by the midpoint rule. */
static double cut_log_z(void)
{
    enum { CELLS = 1000 };
    const cut q = { false, 0 };
    double sum = 0.0, x[2];
    int i, j;
    for (i = 0; i < CELLS; ++i)
        for (j = 0; j < CELLS; ++j) {
            x[0] = 0.3 + 7.0 * (i + 0.5) / CELLS;
            x[1] = -1.0 + 3.0 * (j + 0.5) / CELLS;
            sum += exp(-cut_at(&q, x, NULL)) * 21.0 / CELLS / CELLS;
        }
    return log(sum);
}

static vgs_config cut_config(cut *q)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval64 = cut_energy;
    c.energy.user = q;
    c.energy.dim = 2;
    c.net.hidden = 16;
    c.threads = 1;
    return c;
}

/* The slope of V is that of its values; energies of draws are E. */
static void cut_outputs(vgs_sampler *s, const cut *q, const float *x)
{
    static float v[3], g[6], near[6], y[64 * 2], e[64];
    vgs_draw d;
    int i, j;
    for (i = 0; i < 20; ++i)
        for (j = 0; j < 2; ++j) {
            memcpy(near, x + 2 * i, 2 * sizeof *near);
            memcpy(near + 2, near, 2 * sizeof *near);
            near[j] -= 0.002f;
            near[2 + j] += 0.002f;
            memcpy(near + 4, x + 2 * i, 2 * sizeof *near);
            if (near[0] < 0.35f || near[1] < -0.95f || near[3] > 1.95f) continue;
            OK(vgs_sampler_value(s, 0, near, 3, v, g, NULL) == VGS_OK);
            CHECK_NEAR((double)g[4 + j], (double)(v[1] - v[0]) / ((double)near[2 + j] - (double)near[j]),
                       0.02, 0.02);
        }
    memset(&d, 0, sizeof d);
    d.energy = e;
    OK(vgs_sampler_draw(s, &d, 64, y, NULL) == VGS_OK);
    for (i = 0; i < 64; ++i) {
        double at[2] = { (double)y[2 * i], (double)y[2 * i + 1] };
        CHECK_NEAR((double)e[i], cut_at(q, at, NULL), 1e-4, 1e-4);
    }
}

static void walls(void)
{
    static float x[N * 2], y[N * 2];
    static double w[N], v[N];
    cut q = { false, 0 }, hole = { true, 0 };
    vgs_config c = cut_config(&q), h = cut_config(&hole);
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = trained(&c, 1, x, w), *t;
    vgs_weights r;
    int i, asked = q.outside, k;
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK);
    CHECK(r.ess > 0.9 && r.inside == 1.0 && r.khat <= 0.7, "ESS/N %g, inside %g, k-hat %g", r.ess, r.inside,
          r.khat);
    CHECK_NEAR(r.log_z, cut_log_z(), 1e-12, 0.01);
    for (i = 0; i < N; ++i)
        if (!CHECK(x[2 * i] >= 0.3f && fabsf(x[2 * i + 1] - 0.5f) <= 1.5f, "draw %d is outside", i)) break;
    CHECK(s->frame.wall[0] == nextafter(0.3, 1.0), "the wall is at %.17g", s->frame.wall[0]);
    CHECK_NEAR(s->frame.wall[1], -1.0, 1e-12, 0);
    OK(!vgs__frame_has_wall(s->frame.wall[2]));
    cut_outputs(s, &q, x);
    OK(vgs_sampler_train(s, 4, NULL, &err) == VGS_OK && q.outside == asked);
    OK(vgs_sampler_save(s, "build/walls.safetensors", NULL, &err) == VGS_OK);
    t = vgs_sampler_create(&c, &err);
    CHECK(t && vgs_sampler_load(t, "build/walls.safetensors", &err) == VGS_OK, "%s", err.msg);
    for (k = 0; k < 2; ++k) {                    /* as it is, and after more of training              */
        vgs_draw d;
        memset(&d, 0, sizeof d);
        d.log_weight = w;
        OK(vgs_sampler_draw(s, &d, N, x, &err) == VGS_OK);
        d.log_weight = v;
        OK(vgs_sampler_draw(t, &d, N, y, &err) == VGS_OK);
        OK(!memcmp(x, y, sizeof x) && !memcmp(w, v, sizeof w));
        OK(vgs_sampler_train(s, 3, NULL, &err) == VGS_OK && vgs_sampler_train(t, 3, NULL, &err) == VGS_OK);
    }
    vgs_sampler_free(s);
    vgs_sampler_free(t);
    s = trained(&h, 1, NULL, w);                 /* a hole is no wall                                 */
    OK(vgs_weigh(w, N, &r, NULL) == VGS_OK && r.inside < 1.0 && !s->frame.walled);
    vgs_sampler_free(s);
}

/* ---- threads; failures on the way ---- */

static void threads(void)
{
    vgs_config c = wells_config();
    static float x[2][N * 2];
    static double w[N];
    int k;
    c.energy.thread_safe = true;
    for (k = 0; k < 2; ++k) {
        c.threads = k + 1;
#ifndef _OPENMP
        c.threads = 1;
#endif
        vgs_sampler_free(trained(&c, 26, x[k], w));
    }
    OK(!memcmp(x[0], x[1], sizeof x[0]));
}

static int calls_left;
static int failing(void *user, const double *x, int n, int dim, double *e, double *g)
{
    return calls_left-- <= 0 ? 1 : wells_energy(user, x, n, dim, e, g);
}

/* A pilot that fails, the first or the second one, leaves the sampler as it was. */
static void unfinished(void)
{
    static float x[2][100 * 2];
    vgs_config c = wells_config();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    int k, calls;
    c.energy.eval64 = failing;
    for (k = 0; k < 2; ++k)
        for (calls = 0; calls < 40; calls += 13) {
            T_IN("pilot %d fails after %d calls", k + 1, calls);
            calls_left = 1 << 30;
            s = vgs_sampler_create(&c, &err);
            if (k) OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK);
            OK(vgs_sampler_draw(s, NULL, 100, x[0], &err) == VGS_OK);
            calls_left = calls;
            OK((k ? vgs__pilot_again(s, true, &err) : vgs_sampler_train(s, 1, NULL, &err)) == VGS_E_ENERGY);
            calls_left = 1 << 30;
            OK(vgs_sampler_draw(s, NULL, 100, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
            OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK && vgs_sampler_pilot(s));
            vgs_sampler_free(s);
        }
}

/* A second pilot whose network is another one: with more hidden units its weights do not fit. */
static void second_pilot(void)
{
    static float x[100 * 2];
    static double w[100];
    vgs_config c = wells_config();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = trained(&c, 30, NULL, NULL);
    vgs_weights r;
    vgs_draw d;
    int k;
    memset(&d, 0, sizeof d);
    d.log_weight = w;
    for (k = 0; k < 2; ++k) {
        s->given.net.hidden = k ? 24 : 16;
        CHECK(vgs__pilot_again(s, true, &err) == VGS_OK, "%s", err.msg);
        OK(vgs_sampler_config(s)->net.hidden == (k ? 24 : 16));
        OK(vgs_sampler_train(s, 30, NULL, &err) == VGS_OK && vgs_sampler_draw(s, &d, 100, x, &err) == VGS_OK);
        OK(vgs_weigh(w, 100, &r, NULL) == VGS_OK && r.ess > 0.05);
    }
    vgs_sampler_free(s);
}

/* What chooses the best state has noise that no draw and no score of a caller has. */
static void own_noise(void)
{
    static double w[256], v[256];
    static float x[256 * 2];
    vgs_config c = wells_config();
    vgs_sampler *s = trained(&c, 1, NULL, NULL);
    vgs_draw d;
    int i, same;
    memset(&d, 0, sizeof d);
    d.log_weight = v;
    d.correct = -1;
    OK(vgs__choice_weights(s, 0, false, w, NULL) == VGS_OK &&
       vgs_sampler_draw(s, &d, 256, x, NULL) == VGS_OK);
    for (same = i = 0; i < 256; ++i) same += w[i] == v[i];
    CHECK(same == 0, "%d rows of a draw are those of the choice", same);
    OK(s->b->download(s->b->self, x, s->replay_x, 0, 512, VGS_F32, NULL) == VGS_OK);
    vgs__frame_rows(&s->frame, VGS__TO_X, x, 256);
    d.log_weight = NULL;
    OK(vgs__choice_weights(s, 0, true, w, NULL) == VGS_OK &&
       vgs_sampler_score(s, &d, 256, x, v, NULL) == VGS_OK);
    for (same = i = 0; i < 256; ++i) same += w[i] == v[i];
    CHECK(same == 0, "%d rows of a score are those of the choice", same);
    vgs_sampler_free(s);
}

/* A corrector is chosen where it gains a tenth of a nat, unless the caller wants none or nothing is left to
   gain; draws have it. */
static void chosen_corrector(void)
{
    static float x[2][100 * 2];
    vgs_config c = wells_config();
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = trained(&c, 1, NULL, NULL);
    vgs_draw d;
    double gap = 0.0;
    int k;
    memset(&d, 0, sizeof d);
    OK(vgs__choice_gap(s, 2, &gap, NULL, &err) == VGS_OK);
    for (k = 0; k < 4; ++k) {
        T_IN("case %d", k);
        s->best.gap = gap + (k == 1 ? 0.05 : 0.2);
        s->best_ess = k == 2 ? 0.95 : 0.1;
        s->given.correct = s->c.correct = k == 3 ? -1 : 0;
        OK(vgs__choice_correct(s, &err) == VGS_OK);
        CHECK(s->c.correct == (k ? k == 3 ? -1 : 0 : 2), "correct is %d", s->c.correct);
        d.correct = 0;
        OK(vgs_sampler_draw(s, &d, 100, x[0], &err) == VGS_OK);
        d.correct = k ? -1 : 2;
        OK(vgs_sampler_draw(s, &d, 100, x[1], &err) == VGS_OK && !memcmp(x[0], x[1], sizeof x[0]));
    }
    vgs_sampler_free(s);
}

/* Refused, not ignored: target_ess without a pilot, minutes below 0. */
static void needs_a_pilot(void)
{
    vgs_config c = wells_config();
    vgs_error err = { VGS_OK, "" };
    c.minutes = -1;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "minutes = -1: must be >= 0"));
    c.minutes = 0;
    c.target_ess = 0.5f;
    c.s2_start = 1;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "target_ess = 0.5: needs a pilot"));
    c.s2_start = 0;
    c.pilot_calls = -1;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "target_ess = 0.5: needs a pilot"));
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
    RUN(missed);
    RUN(features);
    RUN(good_enough);
    RUN(refused);
    RUN(rare);
    RUN(flat_inside);
    RUN(kinds);
    RUN(denoising);
    RUN(denoising_off);
    RUN(samples_forgotten);
    RUN(particles_alone);
    RUN(begins_far_out);
    RUN(far_apart);
    RUN(particles_chosen);
    RUN(walls);
    RUN(threads);
    RUN(unfinished);
    RUN(second_pilot);
    RUN(own_noise);
    RUN(chosen_corrector);
    RUN(needs_a_pilot);
    RUN(heavy_tails);
    RUN(no_pilot);
    return t_end();
}
