/* evaluate.c - how good are samples of a built-in target? Every metric beside its floor
   cc -O2 examples/evaluate.c -o evaluate -lm           (add -fopenmp to use all cores: the same figures)
   ./evaluate gmm9 gmm9/samples.npy                     (./evaluate --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime; must precede every include */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "evaluate"
#include "json.h"
#include "on_target.h"

typedef struct options {
    const char *target, *samples, *reference, *checkpoint;
    uint64_t seed;
    int  threads;
    bool json;
} options;

static int help(void)
{
    puts("evaluate - measures samples of a built-in target, each metric beside its floor\n"
         "\n"
         "usage: evaluate TARGET SAMPLES [options]\n"
         "\n"
         "  SAMPLES               .npy, or .safetensors of sample, with weights: log Z, ELBO, ESS, k-hat\n"
         "  --checkpoint CKPT     the sampler, or the folder of its run: takes reference samples back\n"
         "                        through it, which gives log Z from above (forward) and EUBO\n"
         "  --reference REF.npy   reference samples (own ones: exact, or from Metropolis chains)\n"
         "  --seed N              of our own reference samples (0)\n"
         "  --json                one JSON object instead of a table\n"
         "  --threads N           0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         "\n"
         "The floor is what a perfect sampler scores at the same number of rows: mean and standard\n"
         "deviation over five pairs of independent reference sets. They are parts of REF.npy if that has "
         "ten\n"
         "times as many rows as the samples, and made on the spot otherwise.\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage.\n"
         "\n"
         "Metrics:");
    for (int i = 0; i < METRICS; ++i) printf("  %-12s %s\n", metric_list[i].name, metric_list[i].meaning);
    print_targets();
    puts("\nExamples:\n"
         "  evaluate gmm9 gmm9/samples.npy\n"
         "  evaluate gmm9 gmm9.safetensors --checkpoint gmm9\n"
         "  evaluate dw4 x.npy --reference chains.npy --json > dw4.json");
    return finish_stdout();
}

static options parse(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .json = false };
    while (args_next(&a)) {
        if (!*a.key && o.samples) wrong_usage("%.60s: only one file of samples can be measured", a.word);
        else if (!*a.key && o.target) o.samples = a.word;
        else if (!*a.key) o.target = a.word;
        else if (args_is(&a, "help") || args_is(&a, "h")) exit(help());
        else if (args_is(&a, "reference")) o.reference = args_value(&a);
        else if (args_is(&a, "checkpoint")) o.checkpoint = args_value(&a);
        else if (args_is(&a, "seed")) o.seed = args_u64(&a);
        else if (args_is(&a, "json")) o.json = args_flag(&a);
        else if (args_is(&a, "threads")) o.threads = args_threads(&a);
        else wrong_usage("%.80s: there is no such option", a.word);
    }
    if (!o.target) wrong_usage("a target is missing");
    if (!o.samples) wrong_usage("a file of samples is missing");
    return o;
}

static bool all_finite(const char *path, const float *x, int rows, int cols)
{
    int bad = 0, first = -1;
    for (int i = 0; i < rows; ++i) {
        bool ok = true;
        for (int k = 0; k < cols; ++k) ok = ok && isfinite(x[(size_t)i * (size_t)cols + (size_t)k]);
        if (!ok && !bad++) first = i;
    }
    if (bad)
        say("%s: %d of %d rows have a NaN or an infinity; the first is row %d (counted from 0)", path, bad,
            rows,
            first);
    return !bad;
}

/* What a file of samples holds, beside x: log weights, the energy calls that it took, the threshold at which
   rows were resampled, vgs_draw's correct; or not. */
typedef struct samples {
    float *x;
    double *log_weight;
    int rows, cols;
    double energy_calls, smc, correct;
} samples;

/* The tensors, once x is known to be of two dimensions. */
static vgs_status read_tensors(const vgs_safetensors *f, const vgs_file_tensor *x, samples *s, vgs_error *err)
{
    size_t n = x->count;
    vgs_status st = VGS_OK;
    s->rows = (int)x->shape[0];
    s->cols = (int)x->shape[1];
    s->x = malloc(n * sizeof *s->x + 1);
    if (vgs_safetensors_find(f, "log_weight")) s->log_weight = malloc((size_t)s->rows * sizeof(double) + 1);
    if (!s->x || (vgs_safetensors_find(f, "log_weight") && !s->log_weight)) {
        snprintf(err->msg, sizeof err->msg, "out of memory: %d samples", s->rows);
        return err->code = VGS_E_NOMEM;
    }
    st = vgs_safetensors_floats(f, "x", s->x, n, err);
    if (!st && s->log_weight)
        st = vgs_safetensors_doubles(f, "log_weight", s->log_weight, (size_t)s->rows, err);
    if (!st && vgs_safetensors_meta(f, "energy_calls"))
        st = vgs_safetensors_number(f, "energy_calls", &s->energy_calls, err);
    if (!st && vgs_safetensors_meta(f, "smc")) st = vgs_safetensors_number(f, "smc", &s->smc, err);
    if (!st && vgs_safetensors_meta(f, "correct"))
        st = vgs_safetensors_number(f, "correct", &s->correct, err);
    return st;
}

static vgs_status read_file(const char *path, const target *t, samples *s, vgs_error *err)
{
    vgs_safetensors *f;
    const vgs_file_tensor *x;
    const char *name;
    vgs_status st = VGS_E_FORMAT;
    if (!ends_with(path, ".safetensors")) return vgs_npy_read(path, &s->x, &s->rows, &s->cols, err);
    if (!(f = vgs_safetensors_open(path, err))) return err->code;
    x = vgs_safetensors_find(f, "x");
    name = vgs_safetensors_meta(f, "target");
    if (name && strcmp(name, t->name))
        snprintf(err->msg, sizeof err->msg, "%.150s: has samples of %.40s, not of %s", path, name, t->name);
    else if (!x || x->ndim != 2 || x->shape[0] > INT_MAX || x->shape[1] > INT_MAX)
        snprintf(err->msg, sizeof err->msg, "%.150s: has no tensor x of two dimensions", path);
    else st = read_tensors(f, x, s, err);
    vgs_safetensors_free(f);
    return st;
}

static bool read_samples(const char *path, const target *t, samples *s)
{
    vgs_error err;
    if (read_file(path, t, s, &err)) {
        fail(&err);
        return false;
    }
    if (s->cols != t->dim)
        say("%s: has %d columns, but the target %s has %d coordinates", path, s->cols, t->name, t->dim);
    else if (s->rows < 2) say("%s: has %d rows, but at least 2 are needed", path, s->rows);
    else return all_finite(path, s->x, s->rows, s->cols);
    return false;
}

static void free_samples(const char *path, samples *s)
{
    if (path && ends_with(path, ".safetensors")) free(s->x);
    else vgs_free(s->x);
    free(s->log_weight);
}

/* ==== weights ======================================================================================= */

typedef struct weights { vgs_weights w; vgs_forward f; bool has_w, has_f; } weights;

static vgs_sampler *open_sampler(const options *o, const target *t)
{
    vgs_config c = { .threads = o->threads };
    vgs_safetensors *file;
    vgs_sampler *s = NULL;
    const char *name;
    vgs_error err;
    char path[1200];
    int count = 0;
    if (!find_checkpoint(o->checkpoint, path, sizeof path)) return NULL;
    if (!(file = vgs_safetensors_open(path, &err))) return fail(&err), NULL;
    name = vgs_safetensors_meta(file, "target");
    if (name && strcmp(name, t->name)) {
        say("%s: is a sampler of %.40s, not of %s", path, name, t->name);
        count = -1;
    }
    vgs_safetensors_free(file);
    if (count) return NULL;
    c.energy = target_energy(t);
    if (vgs_checkpoint_config(path, &c, &count, &err)) fail(&err);
    else if (!count) say("%s: has no configuration inside: it is not from train", path);
    else if (c.tau != 1.0f && c.tau != 0.0f)
        say("%s: has tau = %g, but reference samples are those of tau = 1", path, (double)c.tau);
    else if (!(s = vgs_sampler_create(&c, &err)) || vgs_sampler_load(s, path, &err)) {
        fail(&err);
        vgs_sampler_free(s);
        s = NULL;
    }
    return s;
}

/* Forward weights of n reference rows, of the sampler as it drew the samples. */
static bool score(const options *o, vgs_sampler *s, const float *ref, int n, double correct, weights *out)
{
    double *log_weight = malloc((size_t)n * sizeof *log_weight);
    vgs_draw d = { .seed = o->seed + 1, .correct = (int)correct };
    vgs_error err;
    if (!log_weight) say("out of memory: %d weights", n);
    else if (vgs_sampler_score(s, &d, n, ref, log_weight, &err) ||
             (out->has_w && out->w.inside > 0.0
                  ? vgs_weigh_forward_inside(log_weight, n, &out->w, &out->f, &err)
                  : vgs_weigh_forward(log_weight, n, &out->f, &err))) fail(&err);
    else out->has_f = true;
    free(log_weight);
    return out->has_f;
}

static bool weigh(const options *o, const samples *s, weights *out)
{
    vgs_error err;
    if (!s->log_weight) return true;
    if (vgs_weigh(s->log_weight, s->rows, &out->w, &err)) {
        say("%s: %s", o->samples, err.msg);
        return false;
    }
    return out->has_w = true;
}

/* The ESS/N of independent rows whose mean weight has this error: its square is (1/ESS - 1/N). */
static double ess_by_error(const vgs_weights *w)
{
    return 1.0 / (1.0 + w->n * w->log_z_se * w->log_z_se);
}

/* ==== output ======================================================================================== */

/* Ten times as many rows as the samples: the first tenth is compared with them, all of it gives the floor. */
static float *make_reference(const target *t, const options *o, int rows, int *n)
{
    vgs_error err;
    float *x;
    if (rows > INT_MAX / 10) {
        say("%s: %d rows are too many", o->samples, rows);
        return NULL;
    }
    *n = 10 * rows;
    x = malloc((size_t)*n * (size_t)t->dim * sizeof *x);
    if (!x) say("out of memory: %d reference samples", *n);
    else if (!t->exact_samples) fprintf(stderr, "making %d reference samples\n", *n);
    if (x && target_reference(t, o->seed, *n, x, o->threads, &err)) {
        fail(&err);
        free(x);
        x = NULL;
    }
    return x;
}

/* Keys that do not apply are absent; one that applies but has no value is null. */
static void put(json *j, const char *name, const char *suffix, double v)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", name, suffix);
    json_double(j, key, v);
}

static void print_json_weights(json *j, const weights *w, double log_z)
{
    char text[200];
    if (w->has_w) {
        json_double(j, "ess", w->w.ess);
        json_double(j, "khat", w->w.khat);
        json_double(j, "log_z", w->w.log_z);
        json_double(j, "log_z_se", w->w.log_z_se);
        if (!isnan(log_z)) json_double(j, "log_z_error", fabs(w->w.log_z - log_z));
        json_double(j, "elbo", w->w.elbo);
        json_double(j, "inside", w->w.inside);
    }
    if (w->has_f) {
        json_double(j, "log_z_forward", w->f.log_z);
        json_double(j, "log_z_forward_se", w->f.log_z_se);
        json_double(j, "eubo", w->f.eubo);
    }
    vgs_weights_say(w->has_w ? &w->w : NULL, w->has_f ? &w->f : NULL, text);
    if (!*text) return;
    json_string(j, "weights_say", text);
    json_string(j, "verdict", vgs_verdict_name(vgs_weights_verdict(w->has_w ? &w->w : NULL,
                                                                   w->has_f ? &w->f : NULL)));
    say("%s", text);
}

static void print_json(const evaluation *e, const samples *s, const weights *w, double log_z)
{
    json j = { stdout, false };
    const metrics *m = &e->value;
    json_open(&j, NULL, '{');
    json_i64(&j, "n", m->n);
    json_double(&j, "energy_mean", m->energy_mean);
    json_double(&j, "energy_median", m->energy_median);
    json_double(&j, "reference_energy_mean", m->reference_energy_mean);
    for (int i = 0; i < METRICS; ++i) {
        const char *name = metric_list[i].name;
        if (!metric_applies(e, i)) continue;
        put(&j, name, "", metric_of(m, i));
        put(&j, name, "_floor", metric_of(&e->floor, i));
        put(&j, name, "_floor_spread", metric_of(&e->spread, i));
        if (!strcmp(name, "w2")) json_i64(&j, "n_w2", m->n_transport);
        if (!strcmp(name, "w2_aligned")) json_i64(&j, "n_w2_aligned", m->n_aligned);
        if (!strcmp(name, "sinkhorn")) json_i64(&j, "n_sinkhorn", m->n_transport);
    }
    print_json_weights(&j, w, log_z);
    if (s->smc > 0.0) json_double(&j, "smc", s->smc);
    if (s->smc > 0.0 && w->has_w) json_double(&j, "ess_by_error", ess_by_error(&w->w));
    if (s->energy_calls > 0.0) json_double(&j, "energy_calls", s->energy_calls);
    json_double(&j, "out_of_range", e->out_of_range);
    json_i64(&j, "floor_n", e->floor_n);
    if (m->modes) {
        json_open(&j, "mode_weights", '[');
        for (int k = 0; k < m->modes; ++k) json_double(&j, NULL, m->mode_weight[k]);
        json_close(&j, ']');
    }
    json_close(&j, '}');
    json_line(&j);
}

/* Below this many rows a perfect sampler of gmm9 has a TVD-E above 0.17 (0.30 at 300 rows, 0.52 at 100). */
enum { FEW_ROWS = 1000 };

static const char *few_rows(const evaluation *e, char text[200])
{
    text[0] = '\0';
    if (e->value.n < FEW_ROWS)
        snprintf(text, 200, "%d rows are few: below about %d these figures mean little, for chance alone "
                 "makes a perfect sampler's large (the floor)", e->value.n, FEW_ROWS);
    return text;
}

static void print_table(const options *o, const evaluation *e)
{
    const metrics *m = &e->value;
    double least = 1.0, most = 0.0;
    bool unknown = false;
    char few[200];
    printf("%s: %d rows of %s against %s\n", o->target, m->n, o->samples,
           o->reference ? o->reference : "our own reference");
    printf("energy: mean %.4f, median %.4f; of the reference: mean %.4f\n", m->energy_mean, m->energy_median,
           m->reference_energy_mean);
    print_metrics(e, true);
    printf("floor: what a perfect sampler scores at %d rows; a ratio near 1 cannot be told from perfect\n",
           e->floor_n);
    if (*few_rows(e, few)) puts(few);
    for (int i = 0; i < METRICS && !unknown; ++i)
        unknown = metric_applies(e, i) && isnan(metric_of(m, i));
    if (unknown) printf("-: no value, since more than 40 %% of a histogram lie outside of its bins\n");
    printf("%.4g of the samples' energies lie outside of the histogram's bins\n", e->out_of_range);
    for (int k = 0; k < m->modes; ++k) {
        if (m->mode_weight[k] < least) least = m->mode_weight[k];
        if (m->mode_weight[k] > most) most = m->mode_weight[k];
    }
    if (m->modes) printf("modes: shares from %.4f to %.4f, fair is %.4f\n", least, most, 1.0 / m->modes);
}

/* sampler: NULL without --checkpoint */
static int compare(const options *o, const target *t, vgs_sampler *sampler, const samples *x,
                   const float *ref, int n_ref)
{
    evaluation e;
    weights w = { .has_w = false };
    vgs_error err;
    double log_z = true_log_z(t, 1.0f, false);
    int rows = n_ref < x->rows ? n_ref : x->rows;
    if (!weigh(o, x, &w) || (sampler && !score(o, sampler, ref, rows, x->correct, &w))) return EXIT_FAILED;
    if (evaluate(t, x->x, x->rows, ref, n_ref, o->seed, o->threads, &e, &err)) return fail(&err);
    if (o->json) {
        char few[200];
        print_json(&e, x, &w, log_z);
        if (*few_rows(&e, few)) say("%s", few);
    } else {
        print_table(o, &e);
        print_weights(w.has_w ? &w.w : NULL, w.has_f ? &w.f : NULL, log_z);
        if (x->smc > 0.0 && w.has_w)
            printf("twisted SMC: rows share ancestors, which ESS does not know; by the error of log Z it is "
                   "%.2g N\n", ess_by_error(&w.w));
        if (x->energy_calls > 0.0) printf("%.4g energy calls\n", x->energy_calls);
    }
    return finish_stdout();
}

/* Against the user's reference, or one of our own. */
static int measure(const options *o, const target *t, vgs_sampler *sampler, const samples *x)
{
    samples ref = { .x = NULL };
    float *own = NULL;
    int n = 0, status = EXIT_FAILED;
    if (!o->reference) {
        if ((own = make_reference(t, o, x->rows, &n)) != NULL) status = compare(o, t, sampler, x, own, n);
    } else if (read_samples(o->reference, t, &ref)) {
        if (ref.rows < x->rows)
            say("%s: %d rows, fewer than the samples: only %d of these are compared", o->reference, ref.rows,
                ref.rows);
        status = compare(o, t, sampler, x, ref.x, ref.rows);
    }
    free_samples(o->reference, &ref);
    free(own);
    return status;
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    const target *t = find_target(o.target);
    vgs_sampler *sampler = NULL;
    samples x = { .x = NULL };
    int status = EXIT_FAILED;
    if (!t) return EXIT_USAGE;
    if (read_samples(o.samples, t, &x) && (!o.checkpoint || (sampler = open_sampler(&o, t)) != NULL))
        status = measure(&o, t, sampler, &x);
    vgs_sampler_free(sampler);
    free_samples(o.samples, &x);
    return status;
}
