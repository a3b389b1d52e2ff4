/* evaluate.c - how good are samples of a built-in target? Every metric beside its floor
   cc -O2 examples/evaluate.c -o evaluate -lm           (add -fopenmp to use all cores: the same figures)
   ./evaluate gmm9 gmm9/samples.npy                     (./evaluate --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime; must precede every include */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "evaluate"
#include "common.h"

typedef struct options {
    const char *target, *samples, *reference;
    uint64_t seed;
    int  threads;
    bool json;
} options;

static int help(void)
{
    puts("evaluate - measures samples of a built-in target, each metric beside its floor\n"
         "\n"
         "usage: evaluate TARGET SAMPLES.npy [options]\n"
         "\n"
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

static float *read_samples(const char *path, const vgs_target *t, int *rows)
{
    float *x;
    vgs_error err;
    int cols;
    bool ok = false;
    if (vgs_npy_read(path, &x, rows, &cols, &err)) {
        fail(&err);
        return NULL;
    }
    if (cols != t->dim)
        say("%s: has %d columns, but the target %s has %d coordinates", path, cols, t->name, t->dim);
    else if (*rows < 2) say("%s: has %d rows, but at least 2 are needed", path, *rows);
    else ok = all_finite(path, x, *rows, cols);
    if (ok) return x;
    vgs_free(x);
    return NULL;
}

/* Ten times as many rows as the samples: the first tenth is compared with them, all of it gives the floor. */
static float *make_reference(const vgs_target *t, const options *o, int rows, int *n)
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
    if (x && vgs_target_reference(t, o->seed, *n, x, o->threads, &err)) {
        fail(&err);
        free(x);
        x = NULL;
    }
    return x;
}

/* Keys that do not apply are absent; one that applies but has no value is null. */
static void put(vgs_json *j, const char *name, const char *suffix, double v)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s", name, suffix);
    vgs_json_double(j, key, v);
}

static void print_json(const evaluation *e)
{
    vgs_json j = { stdout, false };
    const vgs_metrics *m = &e->value;
    vgs_json_open(&j, NULL, '{');
    vgs_json_i64(&j, "n", m->n);
    vgs_json_double(&j, "energy_mean", m->energy_mean);
    vgs_json_double(&j, "energy_median", m->energy_median);
    vgs_json_double(&j, "reference_energy_mean", m->reference_energy_mean);
    for (int i = 0; i < METRICS; ++i) {
        const char *name = metric_list[i].name;
        if (!metric_applies(e, i)) continue;
        put(&j, name, "", metric_of(m, i));
        put(&j, name, "_floor", metric_of(&e->floor, i));
        put(&j, name, "_floor_spread", metric_of(&e->spread, i));
        if (!strcmp(name, "w2")) vgs_json_i64(&j, "n_w2", m->n_transport);
        if (!strcmp(name, "sinkhorn")) vgs_json_i64(&j, "n_sinkhorn", m->n_transport);
    }
    vgs_json_double(&j, "out_of_range", e->out_of_range);
    vgs_json_i64(&j, "floor_n", e->floor_n);
    if (m->modes) {
        vgs_json_open(&j, "mode_weights", '[');
        for (int k = 0; k < m->modes; ++k) vgs_json_double(&j, NULL, m->mode_weight[k]);
        vgs_json_close(&j, ']');
    }
    vgs_json_close(&j, '}');
    vgs_json_line(&j);
}

static void print_table(const options *o, const evaluation *e)
{
    const vgs_metrics *m = &e->value;
    double least = 1.0, most = 0.0;
    bool unknown = false;
    printf("%s: %d rows of %s against %s\n", o->target, m->n, o->samples,
           o->reference ? o->reference : "our own reference");
    printf("energy: mean %.4f, median %.4f; of the reference: mean %.4f\n", m->energy_mean, m->energy_median,
           m->reference_energy_mean);
    print_metrics(e, true);
    printf("floor: what a perfect sampler scores at %d rows; a ratio near 1 cannot be told from perfect\n",
           e->floor_n);
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

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    const vgs_target *t = find_target(o.target);
    float *x, *ref = NULL, *own = NULL;
    evaluation e;
    vgs_error err;
    int n = 0, n_ref = 0, status = EXIT_FAILED;
    if (!t) return EXIT_USAGE;
    x = read_samples(o.samples, t, &n);
    if (x && o.reference) ref = read_samples(o.reference, t, &n_ref);
    else if (x) ref = own = make_reference(t, &o, n, &n_ref);
    if (ref && n_ref < n)
        say("%s: %d rows, fewer than the samples: only %d of these are compared", o.reference, n_ref, n_ref);
    if (ref && evaluate(t, x, n, ref, n_ref, o.seed, o.threads, &e, &err)) fail(&err);
    else if (ref) {
        if (o.json) print_json(&e);
        else print_table(&o, &e);
        status = finish_stdout();
    }
    vgs_free(x);
    free(own);
    if (!own) vgs_free(ref);
    return status;
}
