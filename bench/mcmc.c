/* The value gradient sampler against classical samplers: quality for energy calls and for seconds.
   cc -O2 -fopenmp bench/mcmc.c -o bench_mcmc -lm && ./bench_mcmc gmm9 --html mcmc.html    (or --help)

   A sampler is trained by a preset and looked at on the way; everything it has called and taken until then is
   counted. With --runs trainings are kept, with what they took, and used again. Each classical sampler then
   gets the same numbers of energy calls, burn-in included. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_mcmc"
#include "../examples/on_target.h"
#include "../examples/json.h"
#include "clock.h"

enum { MAX_POINTS = 40, LOOKS = 3, FLOORS = 5, CLASSICAL = 4, BINS = 200 };

static const double look_at[LOOKS] = { 1 / 16.0, 1 / 4.0, 1.0 };     /* shares of the training         */
static const char *const method_names[] = { "vgs", "vgs + hmc", "pt", "hmc", "mala", "metropolis" };
enum { VGS, VGS_REFINED, FIRST_CLASSICAL, METHODS = FIRST_CLASSICAL + CLASSICAL };
static const vgs_mcmc_method classical[CLASSICAL] = { VGS_PT, VGS_HMC, VGS_MALA, VGS_METROPOLIS };

typedef struct point {
    int    method;
    double calls, seconds;       /* until these samples were there, training or burn-in included          */
    double w2, tvd, ess;         /* root of the energies' W2; TVD of energies; NaN = no value             */
    double modes;                /* mixtures: half the L1 distance of the modes' shares from equal ones   */
    double rhat;                 /* classical ones                                                        */
} point;

typedef struct contest {
    const target *target;
    int    n, points, iterations;
    double *reference;           /* energies [n], sorted */
    double w2_floor, tvd_floor, modes_floor;
    double train_calls, train_seconds, draw_seconds, ess;            /* of the trained sampler          */
    point  at[MAX_POINTS];
} contest;

typedef struct options {
    const target *targets[16];
    int count, threads, n;
    uint64_t seed;
    const char *preset, *html, *runs;
    bool json, quick, cpu;
} options;

static double clock_of(const options *o)
{
    return o->cpu ? cpu_seconds() : seconds_now();
}
static const char *clock_name(const options *o) { return o->cpu ? "cpu_seconds" : "seconds"; }

/* ==== quality ======================================================================================= */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void energies(const target *t, const float *x, int n, double *out)
{
    for (int i = 0; i < n; ++i) {
        float e;
        t->eval(t->user, x + (size_t)i * (size_t)t->dim, 1, t->dim, &e, NULL);
        out[i] = isfinite(e) ? (double)e : (double)INFINITY;         /* NaN is as bad as can be, too    */
    }
    qsort(out, (size_t)n, sizeof *out, by_value);
}

static double energy_w2(const double *a, const double *b, int n)
{
    double sum = 0.0;
    for (int i = 0; i < n; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]) / n;
    return sqrt(sum);
}

/* Half the L1 distance of two histograms over b's range, each of what lies inside (vgs.h: tvd_e_range). */
static double energy_tvd(const double *a, const double *b, int n)
{
    int ha[BINS] = { 0 }, hb[BINS] = { 0 }, in = 0;
    double width = (b[n - 1] - b[0]) / BINS, sum = 0.0;
    for (int i = 0; i < n; ++i) {
        int k = (int)fmin((b[i] - b[0]) / width, BINS - 1.0);
        ++hb[k];
        if (!(a[i] >= b[0] && a[i] <= b[n - 1])) continue;
        ++ha[(int)fmin((a[i] - b[0]) / width, BINS - 1.0)];
        ++in;
    }
    if (in < 0.6 * n) return (double)NAN;
    for (int k = 0; k < BINS; ++k) sum += 0.5 * fabs((double)ha[k] / in - (double)hb[k] / n);
    return sum;
}

/* Energies alone do not see that equal modes are missing. */
static double mode_distance(const target *t, const float *x, int n)
{
    double share[METRICS_MODES] = { 0.0 }, sum = 0.0;
    float centre[2];
    if (!t->modes) return (double)NAN;
    for (int i = 0; i < n; ++i, x += 2) {
        double nearest = INFINITY;
        int mode = 0;
        for (int k = 0; k < t->modes; ++k) {
            target_mode(t, k, centre);
            double a = (double)x[0] - (double)centre[0], b = (double)x[1] - (double)centre[1];
            if (a * a + b * b < nearest) nearest = a * a + b * b, mode = k;
        }
        share[mode] += 1.0 / n;
    }
    for (int k = 0; k < t->modes; ++k) sum += 0.5 * fabs(share[k] - 1.0 / t->modes);
    return sum;
}

static void add_point(contest *c, point p, const float *x)
{
    double *e = malloc((size_t)c->n * sizeof *e);
    p.w2 = p.tvd = (double)NAN;
    p.modes = mode_distance(c->target, x, c->n);
    if (e) {
        energies(c->target, x, c->n, e);
        p.w2 = energy_w2(e, c->reference, c->n);
        p.tvd = energy_tvd(e, c->reference, c->n);
    }
    free(e);
    c->at[c->points++] = p;
    fprintf(stderr, "  %-11s %9.3g calls %7.2f s  energy W2 %8.4g  TVD-E %6.3f  modes %6.3f  ESS %6.0f  "
            "R-hat %.3f\n", method_names[p.method], p.calls, p.seconds, p.w2, p.tvd, p.modes, p.ess, p.rhat);
}

/* The reference, and what a perfect sampler scores: means over five pairs of sets of n. */
static vgs_status make_reference(contest *c, const options *o, vgs_error *err)
{
    size_t n = (size_t)c->n, dim = (size_t)c->target->dim;
    float *x = malloc((2 * FLOORS + 1) * n * dim * sizeof *x);
    double *e = malloc(2 * n * sizeof *e);
    vgs_status st = VGS_E_NOMEM;
    c->reference = malloc(n * sizeof *c->reference);
    if (!x || !e || !c->reference) vgs__fail(err, st, "out of memory: reference samples");
    else st = target_reference(c->target, o->seed + 1000, (2 * FLOORS + 1) * c->n, x, o->threads, err);
    if (st == VGS_OK) energies(c->target, x, c->n, c->reference);
    for (size_t k = 0; k < FLOORS && st == VGS_OK; ++k) {
        energies(c->target, x + (2 * k + 1) * n * dim, c->n, e);
        energies(c->target, x + (2 * k + 2) * n * dim, c->n, e + n);
        c->w2_floor += energy_w2(e, e + n, c->n) / FLOORS;
        c->tvd_floor += energy_tvd(e, e + n, c->n) / FLOORS;
        c->modes_floor += mode_distance(c->target, x + (2 * k + 1) * n * dim, c->n) / FLOORS;
    }
    free(x);
    free(e);
    return st;
}

/* ==== the contestants =============================================================================== */

static vgs_mcmc_config classical_config(const contest *c, const options *o)
{
    return (vgs_mcmc_config){ .energy = target_energy(c->target),
                              .length_scale = c->target->length_scale,
                              .burn_in = 1 << 20, .seed = o->seed, .threads = o->threads };
}

/* n draws with weights, and the same after 10 iterations of hmc. A draw asks for one energy with gradient in
   its last step, and for one more to be weighted. */
static vgs_status look(contest *c, const options *o, vgs_sampler *s, float *x, double *w, vgs_error *err)
{
    double start = clock_of(o);
    point p = { .method = VGS, .calls = c->train_calls + 2.0 * c->n, .rhat = NAN };
    vgs_draw d = { .seed = o->seed + 1, .noise_scale = 1.0f, .log_weight = w };
    vgs_mcmc_config m = classical_config(c, o);
    vgs_mcmc_stats stats;
    vgs_weights weights;
    vgs_error why;
    if (vgs_sampler_draw(s, &d, c->n, x, err) || vgs_weigh(w, c->n, &weights, err)) return err->code;
    c->draw_seconds = clock_of(o) - start;
    c->ess = weights.ess * c->n;
    p.seconds = c->train_seconds + c->draw_seconds;
    p.ess = c->ess;
    add_point(c, p, x);
    m.step = 0.02 * c->target->length_scale;
    start = clock_of(o);
    if (vgs_refine(&m, 10, NULL, c->n, x, &stats, &why)) {
        fprintf(stderr, "  %s\n", why.msg);
        return VGS_OK;
    }
    p.method = VGS_REFINED;
    p.calls += stats.energy_calls;
    p.seconds += clock_of(o) - start;
    p.ess = (double)NAN;
    add_point(c, p, x);
    return VGS_OK;
}

static bool same_settings(const vgs_safetensors *f, const vgs_config *cfg)
{
    char text[32];
    for (int i = 0; vgs_field_name(i); ++i) {
        const char *saved = vgs_safetensors_meta(f, vgs_field_name(i));
        vgs_field_get(cfg, i, text);
        if (!saved || strcmp(saved, text)) return false;
    }
    return true;
}

/* Puts s where a kept training was, and takes over what that took; false if there is none, or another one. */
static bool load_run(contest *c, const options *o, vgs_sampler *s, const char *path)
{
    vgs_error why;
    vgs_safetensors *f = vgs_safetensors_open(path, &why);
    double seconds;
    bool usable = f && same_settings(f, vgs_sampler_config(s)) &&
                  !vgs_safetensors_number(f, clock_name(o), &seconds, &why) &&
                  !vgs_sampler_load(s, path, &why);
    if (usable) c->train_seconds = seconds;
    else if (f) fprintf(stderr, "  %s: of other settings or another clock, so trained again\n", path);
    vgs_safetensors_free(f);
    return usable;
}

static vgs_status save_run(const contest *c, const options *o, const vgs_sampler *s, const char *path,
                           vgs_error *err)
{
    char text[40];
    const char *meta[] = { "target", c->target->name, clock_name(o), text, NULL };
    snprintf(text, sizeof text, "%.9g", c->train_seconds);
    return vgs_sampler_save(s, path, meta, err);
}

/* Trains until an iteration, or takes the training that was kept. */
static vgs_status train_until(contest *c, const options *o, vgs_sampler *s, int until, vgs_error *err)
{
    char path[600];
    double start;
    vgs_stats stats;
    vgs_status st;
    if (o->runs) snprintf(path, sizeof path, "%.500s/%s-%d.safetensors", o->runs, c->target->name, until);
    bool loaded = o->runs && load_run(c, o, s, path);
    start = clock_of(o);
    st = vgs_sampler_train(s, loaded ? 0 : until - (int)vgs_sampler_iteration(s), &stats, err);
    if (st) return st;
    if (!loaded) c->train_seconds += clock_of(o) - start;
    c->train_calls = stats.energy_calls;
    return o->runs && !loaded ? save_run(c, o, s, path, err) : VGS_OK;
}

static vgs_status run_vgs(contest *c, const options *o, float *x, vgs_error *err)
{
    vgs_config cfg = { .threads = o->threads };
    preset_info info;
    vgs_sampler *s = NULL;
    double *w = malloc((size_t)c->n * sizeof *w);
    vgs_status st = preset_fill(c->target, o->preset, &cfg, &info, err);
    cfg.seed = o->seed;
    cfg.threads = o->threads;
    if (st == VGS_OK && !(s = vgs_sampler_create(&cfg, err))) st = err->code;
    c->iterations = o->quick ? (info.iterations + 19) / 20 : info.iterations;
    for (int i = 0; i < LOOKS && st == VGS_OK && w; ++i) {
        int until = (int)(look_at[i] * c->iterations + 0.5);
        st = train_until(c, o, s, until < 1 ? 1 : until, err);
        if (st == VGS_OK) st = look(c, o, s, x, w, err);
    }
    vgs_sampler_free(s);
    free(w);
    return st;
}

/* Where the limit is too low for a sampler there is no point; the reason goes to stderr. */
static void run_classical(contest *c, const options *o, int k, double calls, float *x)
{
    vgs_mcmc_config m = classical_config(c, o);
    vgs_mcmc_stats s;
    vgs_error why;
    double start = clock_of(o);
    m.method = classical[k];
    m.calls = calls;
    if (vgs_mcmc(&m, c->n, x, &s, &why))
        fprintf(stderr, "  %s: %s\n", vgs_mcmc_method_name((int)m.method), why.msg);
    else
        add_point(c, (point){ .method = FIRST_CLASSICAL + k, .calls = s.energy_calls, .rhat = s.rhat,
                              .seconds = clock_of(o) - start, .ess = s.ess }, x);
}

static int by_calls(const void *a, const void *b)
{
    const point *p = a, *q = b;
    return p->method != q->method ? p->method - q->method : (p->calls > q->calls) - (p->calls < q->calls);
}

static vgs_status run_contest(contest *c, const options *o, vgs_error *err)
{
    float *x = malloc((size_t)c->n * (size_t)c->target->dim * sizeof *x);
    vgs_status st = x ? make_reference(c, o, err) : vgs__fail(err, VGS_E_NOMEM, "out of memory: samples");
    int ours;
    fprintf(stderr, "%s, %d samples: energy W2 of a perfect sampler %.3g, TVD-E %.3g, modes %.3g\n",
            c->target->name, c->n, c->w2_floor, c->tvd_floor, c->modes_floor);
    if (st == VGS_OK) st = run_vgs(c, o, x, err);
    ours = c->points;
    for (int i = 0; i < ours && st == VGS_OK; ++i)
        for (int k = 0; k < CLASSICAL; ++k) run_classical(c, o, k, c->at[i].calls, x);
    qsort(c->at, (size_t)c->points, sizeof *c->at, by_calls);
    free(x);
    return st;
}

/* ==== who wins ====================================================================================== */

static const point *last_of(const contest *c, int method)
{
    for (int i = c->points - 1; i >= 0; --i) if (c->at[i].method == method) return &c->at[i];
    return NULL;
}

/* Chains that have not mixed may have the right energies in the wrong modes, and at an ESS/N below 0.03 the
   weights of vgs say nothing: such points cannot win. */
static bool eligible(const contest *c, const point *p)
{
    return p->w2 < (double)INFINITY && !(p->rhat > 1.1) && !(p->method == VGS && p->ess < 0.03 * c->n);
}

/* The lowest energy W2 among points within both limits. Below the floor all are as good as can be told: of
   them the one that took least wins. */
static const point *best_within(const contest *c, double calls, double seconds)
{
    const point *best = NULL;
    bool by_seconds = isinf(calls);
    for (int i = 0; i < c->points; ++i) {
        const point *p = &c->at[i];
        if (p->calls > calls || p->seconds > seconds || !eligible(c, p)) continue;
        double ours = fmax(p->w2, c->w2_floor), its = best ? fmax(best->w2, c->w2_floor) : (double)INFINITY;
        bool less = best && (by_seconds ? p->seconds < best->seconds : p->calls < best->calls);
        if (ours < its || (ours <= its && less)) best = p;
    }
    return best;
}

/* The least of energy calls, or seconds, for one effective sample; of vgs at its end and without training. */
static double price_of(const contest *c, int method, bool seconds)
{
    double best = (double)INFINITY;
    for (int i = 0; i < c->points; ++i) {
        const point *p = &c->at[i];
        double spent = seconds ? p->seconds : p->calls;
        if (method == VGS) spent = seconds ? c->draw_seconds : 2.0 * c->n;
        if (p->method != method || !eligible(c, p) || (method == VGS && p != last_of(c, VGS))) continue;
        best = fmin(best, spent / p->ess);
    }
    return best;
}

static void print_price(const contest *c, bool seconds)
{
    const char *unit = seconds ? "s" : "energy calls";
    int best = VGS, rival = FIRST_CLASSICAL;
    double ours = price_of(c, VGS, seconds), theirs;
    for (int m = FIRST_CLASSICAL; m < METHODS; ++m)
        if (price_of(c, m, seconds) < price_of(c, rival, seconds)) rival = m;
    theirs = price_of(c, rival, seconds);
    if (theirs < ours) best = rival;
    if (isinf(ours) && isinf(theirs)) {
        printf("- for an effective sample (in %s) nobody wins: no sampler has mixed.\n", unit);
        return;
    }
    printf("- for an effective sample %s wins, training aside: vgs takes ", method_names[best]);
    if (isinf(ours)) printf("more than can be told (ESS/N below 0.03), ");
    else printf("%.3g %s, ", ours, unit);
    if (isinf(theirs)) printf("and no classical sampler has mixed.\n");
    else if (best != VGS) printf("%s %.3g %s.\n", method_names[rival], theirs, unit);
    else
        printf("%s %.3g. Training pays from %.3g effective samples on.\n", method_names[rival], theirs,
               (seconds ? c->train_seconds : c->train_calls) / (theirs - ours));
}

static void print_winners(const contest *c)
{
    const point *ours = last_of(c, VGS), *p;
    if (!ours) return;
    printf("- vgs ends at an energy W2 of %.3g; a perfect sampler has %.3g.\n", ours->w2, c->w2_floor);
    p = best_within(c, ours->calls, (double)INFINITY);
    printf("- within %.3g energy calls, training counted, ", ours->calls);
    if (!p) printf("nobody wins: none has mixed.\n");
    else printf("%s wins: energy W2 %.3g after %.3g calls.\n", method_names[p->method], p->w2, p->calls);
    p = best_within(c, (double)INFINITY, ours->seconds);
    printf("- within %.3g s, training counted, ", ours->seconds);
    if (!p) printf("nobody wins: none has mixed.\n");
    else printf("%s wins: energy W2 %.3g after %.3g s.\n", method_names[p->method], p->w2, p->seconds);
    print_price(c, false);
    print_price(c, true);
}

/* ==== output ======================================================================================== */

typedef struct cells { char w2[32], tvd[32], modes[32], ess[32], rhat[32]; } cells;

static cells cells_of(const point *p)
{
    cells t;
    number(p->w2, t.w2);
    number(p->tvd, t.tvd);
    number(p->modes, t.modes);
    snprintf(t.ess, sizeof t.ess, isnan(p->ess) ? "-" : "%.0f", p->ess);
    snprintf(t.rhat, sizeof t.rhat, isnan(p->rhat) ? "-" : "%.3f", p->rhat);
    return t;
}

static void print_row(const contest *c, const char *name, double calls, double seconds, const point *p)
{
    cells t = cells_of(p);
    printf("| %s | %s | %.3g | %.3g | %s | %s | %s | %s | %s |\n", c->target->name, name, calls, seconds,
           t.w2, t.tvd, t.modes, t.ess, t.rhat);
}

/* What a perfect sampler scores, as a last row. */
static void print_floor(const contest *c)
{
    point p = { .w2 = c->w2_floor, .tvd = c->tvd_floor, .modes = c->modes_floor, .ess = c->n, .rhat = NAN };
    print_row(c, "perfect", 0.0, 0.0, &p);
}

static void print_markdown(const contest *c, int count, const options *o)
{
    printf("Preset %s%s, seed %llu%s.\n\n", o->preset, o->quick ? " (a twentieth of its iterations)" : "",
           (unsigned long long)o->seed, o->cpu ? ", seconds of the processor" : "");
    puts("| target | sampler | energy calls | seconds | energy W2 | TVD-E | modes | ESS | R-hat |\n"
         "|---|---|---|---|---|---|---|---|---|");
    for (int i = 0; i < count; ++i) {
        const point *ours = last_of(&c[i], VGS);
        for (int m = 0; m < METHODS; ++m) {
            const point *p = last_of(&c[i], m);
            if (p) print_row(&c[i], method_names[m], p->calls, p->seconds, p);
            if (m == VGS && ours) print_row(&c[i], "vgs, trained", 2.0 * c[i].n, c[i].draw_seconds, ours);
        }
        print_floor(&c[i]);
    }
    for (int i = 0; i < count; ++i) {
        printf("\n%s:\n", c[i].target->name);
        print_winners(&c[i]);
    }
}

static void print_json(const contest *c, int count, const options *o)
{
    json j = { stdout, false };
    json_open(&j, NULL, '[');
    for (int i = 0; i < count; ++i) {
        json_open(&j, NULL, '{');
        json_string(&j, "target", c[i].target->name);
        json_string(&j, "preset", o->preset);
        json_u64(&j, "seed", o->seed);
        json_i64(&j, "n", c[i].n);
        json_i64(&j, "iterations", c[i].iterations);
        json_double(&j, "energy_w2_floor", c[i].w2_floor);
        json_double(&j, "tvd_e_floor", c[i].tvd_floor);
        json_double(&j, "modes_floor", c[i].modes_floor);
        json_double(&j, "train_energy_calls", c[i].train_calls);
        json_double(&j, "train_seconds", c[i].train_seconds);
        json_double(&j, "draw_seconds", c[i].draw_seconds);
        json_open(&j, "points", '[');
        for (int k = 0; k < c[i].points; ++k) {
            const point *p = &c[i].at[k];
            json_open(&j, NULL, '{');
            json_string(&j, "sampler", method_names[p->method]);
            json_double(&j, "energy_calls", p->calls);
            json_double(&j, "seconds", p->seconds);
            json_double(&j, "energy_w2", p->w2);
            json_double(&j, "tvd_e", p->tvd);
            json_double(&j, "modes", p->modes);
            json_double(&j, "ess", p->ess);
            json_double(&j, "rhat", p->rhat);
            json_close(&j, '}');
        }
        json_close(&j, ']');
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_line(&j);
}

/* ==== the page: for each target quality against calls and against seconds, both axes logarithmic ===== */

enum { WIDTH = 460, HEIGHT = 280, LEFT = 52, BOTTOM = 36, TOP = 10, RIGHT = 12 };

static const char *const page_style[] = {
    ":root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#1b1f27;--soft:#667080;--line:#e5e5df;",
    "--c0:#2a5bd0;--c1:#14a3c7;--c2:#d9661f;--c3:#3d9140;--c4:#a23fb5;--c5:#8a6d3b}",
    "@media(prefers-color-scheme:dark){:root{--bg:#121419;--card:#1a1d23;--ink:#e7e9ec;--soft:#98a1ae;",
    "--line:#2c313a;--c0:#82a8ff;--c1:#5fd0ea;--c2:#f2a063;--c3:#7fcf82;--c4:#d98ae6;--c5:#cdb17c}}",
    "body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,sans-serif}",
    "main{max-width:1040px;margin:0 auto;padding:40px 20px}h1{font-size:32px;line-height:1.15}",
    "h2{font-size:20px;margin:40px 0 8px}p{max-width:75ch}.grid{display:grid;gap:16px;",
    "grid-template-columns:repeat(auto-fit,minmax(min(100%,400px),1fr))}figure{margin:0;padding:14px 16px;",
    "background:var(--card);border:1px solid var(--line);border-radius:12px}figcaption{font-size:14px}",
    "svg{display:block;width:100%}text{font-size:11px;fill:var(--soft)}.g{stroke:var(--line);fill:none}",
    ".f{stroke:var(--soft);stroke-dasharray:5 4}.l{fill:none;stroke-width:1.75}.key span{margin-right:16px}",
    ".key b{display:inline-block;width:14px;height:3px;margin-right:6px;vertical-align:middle}",
    "table{border-collapse:collapse;font-size:15px;background:var(--card)}th,td{padding:6px 14px;",
    "border-top:1px solid var(--line);text-align:right}th:first-child,td:first-child{text-align:left}"
};

typedef struct axes { double x0, x1, y0, y1; } axes;                 /* exponents of ten                */

typedef struct chart { const char *name; bool seconds; int quantity; } chart;
enum { ENERGY_W2, ENERGY_TVD, SAMPLES };
static const chart charts[] = {
    { "energy W2 against energy calls", false, ENERGY_W2 }, { "energy W2 against seconds", true, ENERGY_W2 },
    { "TVD of energies against energy calls", false, ENERGY_TVD },
    { "TVD of energies against seconds", true, ENERGY_TVD },
    { "effective samples against energy calls", false, SAMPLES },
    { "effective samples against seconds", true, SAMPLES },
};

static double x_of(const chart *k, const point *p) { return k->seconds ? fmax(p->seconds, 1e-4) : p->calls; }
static double y_of(const chart *k, const point *p)
{
    return k->quantity == ENERGY_W2 ? p->w2 : k->quantity == ENERGY_TVD ? p->tvd : p->ess;
}
static double perfect(const chart *k, const contest *c)
{
    return k->quantity == ENERGY_W2 ? c->w2_floor : k->quantity == ENERGY_TVD ? c->tvd_floor : c->n;
}
static bool shown(const chart *k, const point *p)
{
    return y_of(k, p) > 0.0 && y_of(k, p) < (double)INFINITY;        /* NaN is not                      */
}

static axes find_axes(const chart *k, const contest *c)
{
    double low = log10(perfect(k, c));
    axes a = { 99.0, -99.0, low, low };
    for (int i = 0; i < c->points; ++i) {
        double x = log10(x_of(k, &c->at[i])), y = log10(y_of(k, &c->at[i]));
        if (!shown(k, &c->at[i])) continue;
        a.x0 = fmin(a.x0, x);
        a.x1 = fmax(a.x1, x);
        a.y0 = fmin(a.y0, y);
        a.y1 = fmax(a.y1, y);
    }
    if (a.x1 < a.x0) a.x0 = a.x1 = 0.0;
    a.y1 = fmin(a.y1, low + 5.0);                                    /* what is worse leaves the picture */
    return (axes){ floor(a.x0), ceil(a.x1 + 1e-9), floor(a.y0), ceil(a.y1 + 1e-9) };
}

static double to_x(const axes *a, double v)
{
    return LEFT + (v - a->x0) / (a->x1 - a->x0) * (WIDTH - LEFT - RIGHT);
}
static double to_y(const axes *a, double v)
{
    double share = fmin((v - a->y0) / (a->y1 - a->y0), 1.05);
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP);
}

/* A ring in place of a dot: a point that cannot win. */
static void draw_dot(FILE *f, const chart *k, const contest *c, const axes *a, const point *p)
{
    char colour[12];
    snprintf(colour, sizeof colour, "--c%d", p->method);
    fprintf(f, "<circle r=\"3.5\" style=\"stroke:var(%s);fill:var(%s)\" cx=\"%.1f\" cy=\"%.1f\">", colour,
            p->method == VGS_REFINED || eligible(c, p) ? colour : "--card", to_x(a, log10(x_of(k, p))),
            to_y(a, log10(y_of(k, p))));
    fprintf(f, "<title>%s: %.3g calls, %.3g s, energy W2 %.3g, TVD-E %.3g, ESS %.0f, R-hat %.3f</title>"
            "</circle>\n", method_names[p->method], p->calls, p->seconds, p->w2, p->tvd, p->ess, p->rhat);
}

static void draw_line(FILE *f, const chart *k, const contest *c, const axes *a, int method)
{
    bool first = true;
    fprintf(f, "<path class=\"l\" style=\"stroke:var(--c%d)\" d=\"", method);
    for (int i = 0; i < c->points; ++i) {
        const point *p = &c->at[i];
        if (p->method != method || !shown(k, p)) continue;
        fprintf(f, "%s%.1f %.1f", first ? "M" : "L", to_x(a, log10(x_of(k, p))), to_y(a, log10(y_of(k, p))));
        first = false;
    }
    fputs("\"/>\n", f);
    for (int i = 0; i < c->points; ++i)
        if (c->at[i].method == method && shown(k, &c->at[i])) draw_dot(f, k, c, a, &c->at[i]);
}

static void put_text(FILE *f, double x, double y, const char *anchor, double exponent)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%g</text>\n", x, y, anchor,
            pow(10.0, exponent));
}

static void draw_chart(FILE *f, const chart *k, const contest *c)
{
    axes a = find_axes(k, c);
    double low = log10(perfect(k, c));
    fprintf(f, "<figure><figcaption>%s</figcaption><svg viewBox=\"0 0 %d %d\">\n", k->name, WIDTH, HEIGHT);
    for (double v = a.x0; v <= a.x1; v += 1.0) {
        double x = to_x(&a, v);
        fprintf(f, "<path class=\"g\" d=\"M%.1f %dV%d\"/>", x, TOP, HEIGHT - BOTTOM);
        put_text(f, x, HEIGHT - BOTTOM + 16, "middle", v);
    }
    for (double v = a.y0; v <= a.y1; v += 1.0) {
        fprintf(f, "<path class=\"g\" d=\"M%d %.1fH%d\"/>", LEFT, to_y(&a, v), WIDTH - RIGHT);
        put_text(f, LEFT - 6, to_y(&a, v) + 4.0, "end", v);
    }
    fprintf(f, "<path class=\"f\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">"
            "perfect</text>\n", LEFT, to_y(&a, low), WIDTH - RIGHT, WIDTH - RIGHT, to_y(&a, low) - 4.0);
    for (int m = METHODS - 1; m >= 0; --m) draw_line(f, k, c, &a, m);
    fputs("</svg></figure>\n", f);
}

static void draw_table(FILE *f, const contest *c)
{
    fputs("<table><tr><th>sampler<th>energy calls<th>seconds<th>energy W2<th>TVD-E<th>modes<th>ESS<th>R-hat"
          "</tr>\n", f);
    for (int i = 0; i < c->points; ++i) {
        const point *p = &c->at[i];
        cells t = cells_of(p);
        fprintf(f, "<tr><td>%s<td>%.3g<td>%.3g<td>%s<td>%s<td>%s<td>%s<td>%s</tr>\n", method_names[p->method],
                p->calls, p->seconds, t.w2, t.tvd, t.modes, t.ess, t.rhat);
    }
    fprintf(f, "<tr><td>perfect<td><td><td>%.3g<td>%.3g<td>%.3g<td>%d<td></tr></table>\n", c->w2_floor,
            c->tvd_floor, c->modes_floor, c->n);
}

static vgs_status write_page(const contest *c, int count, const options *o, vgs_error *err)
{
    vgs_file out;
    FILE *f;
    if (vgs_file_begin(&out, o->html, err)) return err->code;
    f = out.stream;
    fputs("<!doctype html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"
          "<title>vgs.h and classical samplers</title><style>", f);
    for (size_t i = 0; i < sizeof page_style / sizeof *page_style; ++i) fputs(page_style[i], f);
    fprintf(f, "</style><main><h1>vgs.h and classical samplers</h1>\n<p>Preset %s%s, seed %llu%s. ",
            o->preset, o->quick ? " (a twentieth of its iterations)" : "", (unsigned long long)o->seed,
            o->cpu ? ", seconds of the processor" : "");
    fputs("Energy W2: root mean squared difference of the sorted energies of the samples and of reference "
          "samples; it does not see that equal modes are missing: see modes and R-hat in the figures. vgs: "
          "its training is counted; vgs + hmc: with 10 iterations of HMC on every draw. The classical ones "
          "had as many energy calls, burn-in included; where they were too few for a sampler it has no "
          "point. A ring: chains that have not mixed (R-hat above 1.1), or an ESS/N of vgs below 0.03.</p>"
          "<p class=\"key\">", f);
    for (int m = 0; m < METHODS; ++m)
        fprintf(f, "<span><b style=\"background:var(--c%d)\"></b>%s</span>", m, method_names[m]);
    fputs("</p>\n", f);
    for (int i = 0; i < count; ++i) {
        fprintf(f, "<h2>%s, %d samples</h2><div class=\"grid\">\n", c[i].target->name, c[i].n);
        for (size_t k = 0; k < sizeof charts / sizeof *charts; ++k) draw_chart(f, &charts[k], &c[i]);
        fputs("</div><details><summary>figures</summary>\n", f);
        draw_table(f, &c[i]);
        fputs("</details>\n", f);
    }
    fputs("</main>\n", f);
    return vgs_file_commit(&out, err);
}

/* ==== the program =================================================================================== */

static int help(void)
{
    puts("bench_mcmc - the value gradient sampler against classical samplers, at equal energy calls\n"
         "\n"
         "usage: bench_mcmc [TARGET ...] [options]            (all targets but lj55)\n"
         "\n"
         "  --quick           a twentieth of the training, 500 samples\n"
         "  -n N              samples (2000; lj55 500)\n"
         "  --preset NAME     fast\n"
         "  --seed N          1\n"
         "  --runs DIR        a folder where trainings are kept, and taken from if they are there\n"
         "  --cpu-time        seconds of the processor, for a machine that others use\n"
         "  --html FILE       a page with plots\n"
         "  --json            a list of {target, n, energy_w2_floor, ..., points: [{sampler, energy_calls,\n"
         "                    seconds, energy_w2, tvd_e, modes, ess, rhat}, ...]} in place of Markdown\n"
         "  --threads N       0 = all that there are (0)");
    print_targets();
    return finish_stdout();
}

static options parse(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .seed = 1, .preset = "fast" };
    while (args_next(&a)) {
        if (!*a.key && o.count == 16) wrong_usage("too many targets");
        else if (!*a.key) {
            if (!(o.targets[o.count++] = find_target(a.word))) exit(EXIT_USAGE);
        } else if (args_is(&a, "help") || args_is(&a, "h")) exit(help());
        else if (args_is(&a, "quick")) o.quick = args_flag(&a);
        else if (args_is(&a, "n")) o.n = args_int(&a, 64, 100000);
        else if (args_is(&a, "preset")) o.preset = args_value(&a);
        else if (args_is(&a, "seed")) o.seed = args_u64(&a);
        else if (args_is(&a, "runs")) o.runs = args_value(&a);
        else if (args_is(&a, "cpu_time")) o.cpu = args_flag(&a);
        else if (args_is(&a, "html")) o.html = args_value(&a);
        else if (args_is(&a, "json")) o.json = args_flag(&a);
        else if (args_is(&a, "threads")) o.threads = args_threads(&a);
        else wrong_usage("%.80s: there is no such option", a.word);
    }
    if (o.count) return o;
    for (const target *t; (t = target_at(o.count)) && strcmp(t->name, "lj55"); ++o.count)
        o.targets[o.count] = t;                                      /* lj55, the last, trains for an hour */
    return o;
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    contest *c = calloc((size_t)o.count, sizeof *c);
    vgs_status st = VGS_OK;
    vgs_error err;
    for (int i = 0; i < o.count && st == VGS_OK && c; ++i) {
        c[i].target = o.targets[i];
        c[i].n = o.n ? o.n : o.quick || o.targets[i]->dim > 100 ? 500 : 2000;
        st = run_contest(&c[i], &o, &err);
    }
    if (c && st == VGS_OK && o.html) st = write_page(c, o.count, &o, &err);
    if (!c) say("out of memory");
    else if (st) fail(&err);
    else if (o.json) print_json(c, o.count, &o);
    else print_markdown(c, o.count, &o);
    for (int i = 0; i < o.count && c; ++i) free(c[i].reference);
    free(c);
    return !c || st ? EXIT_FAILED : finish_stdout();
}
