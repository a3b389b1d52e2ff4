/* What contrastive divergence adds to the detector's energy over its autoencoder alone, at equal processor
   time: each training below gets `--seconds` of one core, then scores the test images by themselves, without
   the calibration of `detect` (which changes no AUROC of a single method).

       cc -O2 bench/detect_cd.c -o bench_detect_cd -lm
       ./bench_detect_cd FOLDER WEIGHTS.safetensors CACHE [--seconds S] [--only NAMES] [--KEY VALUE ...]

   --only "autoencoder cd": these of the trainings alone, by the names below.
   FOLDER as `detect evaluate` takes it; CACHE: a folder for the features, which are extracted once. Prints a
   line for each training; bench/detect_cd.sh makes tables of these. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_detect_cd"
#include "../examples/common.h"
#include <errno.h>
#include "../examples/json.h"
#include "../examples/image.h"
#include "../examples/folder.h"
#include "../examples/settings.h"
#include "../examples/view.h"
#include "../examples/moments.h"
#include "../examples/store.h"
#include "../examples/features.h"
#include "../examples/gaussian.h"
#include "../examples/neighbour.h"
#include "../examples/energy.h"
#include "../examples/efficientnet.h"
#include "../examples/extractor.h"
#include "../examples/detector.h"
#include "../examples/roc.h"
#include "../examples/judge.h"
#include "clock.h"
#include "detect_cache.h"

/* All go on from the same `--fit-steps` of reconstruction, whose time counts for each. s2 is the variance
   of a move: of the ten that lead from data to where negatives start (1e-3: 76 degrees, 1e-4: 31, 3e-5: 17),
   of the sampler's, of Langevin's, of each of the two noises of discrepancy. gamma 0: the loss has none. */
typedef enum first_g { G_ONE, G_LEAST, G_UNIT } first_g;
typedef struct variant {
    const char *name;
    vgs_ebm_objective objective;
    float s2, gamma;
    first_g g;               /* 1; where the loss is least; where exp(-E) is as wide as its residuals     */
} variant;

static const variant variants[] = {
    { "cd", VGS_CD, 1e-3f, 1, G_LEAST },
    { "none", VGS_NO_SAMPLER, 1e-3f, 1, G_LEAST },
    { "langevin", VGS_LANGEVIN, 1e-3f, 1, G_LEAST },
    { "persistent", VGS_PERSISTENT, 1e-3f, 1, G_LEAST },
    { "discrepancy", VGS_DISCREPANCY, 1e-3f, 0, G_ONE },
    { "cd-fine", VGS_CD, 1e-4f, 0.1f, G_UNIT },
    { "none-fine", VGS_NO_SAMPLER, 1e-4f, 0.1f, G_UNIT },
    { "none-finer", VGS_NO_SAMPLER, 3e-5f, 0.1f, G_UNIT },
    { "langevin-fine", VGS_LANGEVIN, 1e-4f, 0.1f, G_UNIT },
    { "persistent-fine", VGS_PERSISTENT, 1e-4f, 0.1f, G_UNIT },
    { "discrepancy-fine", VGS_DISCREPANCY, 1e-4f, 0, G_ONE },
};
enum { VARIANTS = (int)(sizeof variants / sizeof *variants) };
static const float RATE = 1e-3f;                 /* of E, at first                                        */

typedef struct bench {
    settings how;
    const char *folder, *weights, *cache, *only;
    double seconds;
    extractor extract;
    store train;
    float *rows;             /* [n_rows, channels], good features to learn from                          */
    int    n_rows;
    float *test;             /* [images, cells, channels]                                                */
    evaluated e;
    bool      masks;         /* there are some                                                           */
    detector  d;             /* settings only                                                            */
    energy    scorer;
} bench;

/* ==== features ====================================================================================== */

static void prepare(bench *b)
{
    photos good;
    store test;
    vgs_error err;
    size_t numbers;
    bool *use;
    must(extractor_create(&b->extract, &b->how, b->weights, NULL, 1, &err), &err);
    numbers = (size_t)(b->how.grid * b->how.grid) * (size_t)b->extract.score.channels;
    if (!photos_scan(&good, b->folder, false) || !photos_scan(&b->e.all, b->folder, true)) exit(EXIT_FAILED);
    extract_all(&b->extract, &good, &b->train, b->cache, "train");
    extract_all(&b->extract, &b->e.all, &test, b->cache, "test");
    b->train.seen = test.seen = &b->extract.score;
    use = (bool *)room_for((size_t)good.n, sizeof *use);
    memset(use, 1, (size_t)good.n * sizeof *use);
    b->rows = (float *)room_for((size_t)ENERGY_ROWS * (size_t)b->extract.score.channels, sizeof *b->rows);
    b->n_rows = neighbour_candidates(&b->train, use, b->how.grid * b->how.grid, b->extract.score.channels,
                                     &(vgs_rng){ b->how.seed, 66, 0 }, ENERGY_ROWS, b->rows);
    b->test = (float *)room_for((size_t)b->e.all.n * numbers, sizeof *b->test);
    for (int i = 0; i < b->e.all.n; ++i) store_get(&test, i, b->test + (size_t)i * numbers);
    b->e.maps = (float *)room_for((size_t)b->e.all.n * (size_t)(b->how.grid * b->how.grid), sizeof(float));
    b->e.score = (double *)room_for(2 * (size_t)b->e.all.n, sizeof(double));
    b->e.p = b->e.score + b->e.all.n;
    for (int i = 0; i < b->e.all.n; ++i) b->masks = b->masks || b->e.all.at[i].mask;
    b->d.how = b->how;
    must(energy_create(&b->scorer, &b->how, b->extract.score.channels, 1, &err), &err);
    store_close(&test);
    photos_free(&good);
    free(use);
}

/* ==== training ====================================================================================== */

static vgs_ebm *create(const bench *b, const variant *v, int fit, float lr)
{
    settings s = b->how;
    vgs_ebm_config c;
    vgs_error err;
    vgs_ebm *m;
    s.fit_steps = fit;
    c = energy_config(&s, b->extract.score.channels, b->n_rows, b->scorer.cpu);
    c.objective = v->objective;
    c.lr = lr;
    c.sampler.s2_start = c.sampler.s2_end = v->s2;
    c.ed_samples = 4;                            /* of the default, 16, few steps would fit the time      */
    if (v->gamma > 0) c.gamma = v->gamma, c.grad_max = 1e30f;        /* of cd and its controls alike      */
    m = vgs_ebm_create(&c, &err);
    if (!m) must(err.code, &err);
    return m;
}

/* Weights and Adam's moments of `from` become those of m, its average too. g is multiplied by `scale`. */
static void copy_energy(vgs_ebm *from, vgs_ebm *m, double scale)
{
    size_t n = (size_t)vgs_model_size(vgs_ebm_model(m, false));
    float *w = (float *)room_for(3 * n, sizeof *w), *first = w + n, *second = first + n;
    vgs_model *to = vgs_ebm_model(m, false);
    int64_t step;
    vgs_error err;
    must(vgs_model_read(vgs_ebm_model(from, false), w, &err), &err);
    must(vgs_model_read_adam(vgs_ebm_model(from, false), first, second, &step, &err), &err);
    w[vgs_model_param(to, 0)->offset] *= (float)scale;               /* out_scale                        */
    must(vgs_model_write(to, w, &err), &err);
    must(vgs_model_write(vgs_ebm_model(m, true), w, &err), &err);
    must(vgs_model_write_adam(to, first, second, step, &err), &err);
    free(w);
}

/* g at first, by a batch at g = 1 from which nothing is learned. G_LEAST: k (e+ - e-) + k^2 (mean e+^2 +
   mean e-^2) is least over k = g^2. G_UNIT: e of data is 1/2, the mean for samples of exp(-E) around one
   minimum. */
static double scale_of(const bench *b, const variant *v, const vgs_data *data, vgs_ebm *fitted)
{
    vgs_ebm_stats s;
    vgs_error err;
    vgs_ebm *m;
    double k;
    if (v->g == G_ONE) return 1;
    m = create(b, v, 0, 1e-30f);
    copy_energy(fitted, m, 1);
    must(vgs_ebm_train(m, data, 1, &s, &err), &err);
    vgs_ebm_free(m);
    k = (s.e_draws - s.e_data) / (2 * (s.e_draws * s.e_draws + s.e_data * s.e_data));
    if (v->g == G_UNIT) k = 0.5 / s.e_data;
    return k > 0 ? sqrt(k) : 1;
}

/* AUROC of images, mean over the classes, and AUPRO(0.3), where there are masks. */
static void judge(bench *b, vgs_ebm *m, double *auroc, double *aupro)
{
    int cells = b->how.grid * b->how.grid, classes = b->e.all.class_count;
    size_t numbers = (size_t)cells * (size_t)b->extract.score.channels;
    vgs_model *learned = vgs_ebm_model(m, true);
    float *w = (float *)room_for((size_t)vgs_model_size(learned), sizeof *w);
    result *each = (result *)room_for((size_t)classes, sizeof *each), mean;
    vgs_error err;
    must(vgs_model_read(learned, w, &err), &err);
    must(vgs_model_write(b->scorer.model, w, &err), &err);
    for (int i = 0; i < b->e.all.n; ++i) {
        float *map = b->e.maps + (size_t)i * (size_t)cells;
        energy_score(&b->scorer, b->test + (size_t)i * numbers, map);
        b->e.score[i] = map_score(map, cells);
    }
    for (int c = 0; c < classes; ++c) {
        image_figures(&b->e, &b->d, c, each + c);
        each[c].aupro_30 = (double)NAN;
        if (b->masks) pixel_figures(&b->e, &b->d, c, each + c, NULL);
    }
    mean = mean_result(each, classes);
    *auroc = mean.image_auroc;
    *aupro = mean.aupro_30;
    free(w);
    free(each);
}

static void report(bench *b, const char *name, vgs_ebm *m, double spent, int64_t fitted,
                   const vgs_ebm_stats *s)
{
    double auroc, aupro;
    judge(b, m, &auroc, &aupro);
    printf("%s\t%d\t%.1f\t%d\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.1f\t%.1f\t%.4f\t%.4f\n", name,
           (int)b->how.seed, spent, (int)fitted, (int)vgs_ebm_iteration(m), s->scale, s->e_data,
           s->e_start, s->e_draws, s->start_distance, s->draw_distance, auroc, aupro);
    fflush(stdout);
}

/* The autoencoder after `steps`, its step size falling to 0 over these; *spent: seconds of the processor. */
static vgs_ebm *autoencoder(bench *b, const vgs_data *data, const char *name, int steps, double *spent)
{
    vgs_ebm *m = create(b, variants, steps, RATE);
    vgs_ebm_stats s;
    vgs_error err;
    double start = cpu_seconds();
    must(vgs_ebm_fit(m, data, steps, NULL, &err), &err);
    *spent = cpu_seconds() - start;
    must(vgs_ebm_train(m, data, 0, &s, &err), &err);
    report(b, name, m, *spent, steps, &s);
    return m;
}

/* The rate of E falls linearly over the time, as that of reconstruction falls over its steps. */
static void run(bench *b, const variant *v, const vgs_data *data, vgs_ebm *fitted, double spent)
{
    double start = cpu_seconds() - spent, begun, now;
    vgs_ebm *m = create(b, v, 0, RATE);
    vgs_ebm_stats s;
    vgs_error err;
    copy_energy(fitted, m, scale_of(b, v, data, fitted));
    begun = cpu_seconds();
    while ((now = cpu_seconds()) - start < b->seconds) {
        double share = (now - begun) / (start + b->seconds - begun);
        if (vgs_ebm_iteration(m)) vgs_ebm_decay(m, (int)((double)vgs_ebm_iteration(m) / share) + 1);
        must(vgs_ebm_train(m, data, 2, NULL, &err), &err);
    }
    must(vgs_ebm_train(m, data, 1, &s, &err), &err);                 /* for its statistics               */
    spent = cpu_seconds() - start;
    report(b, v->name, m, spent, vgs_ebm_fitted(fitted), &s);
    vgs_ebm_free(m);
}

/* Returns whether `only`, words between blanks, has this one, or is not given. */
static bool wanted(const char *only, const char *name)
{
    size_t n = strlen(name);
    for (const char *p = only; p && (p = strstr(p, name)) != NULL; p += n)
        if ((p == only || p[-1] == ' ') && (!p[n] || p[n] == ' ')) return true;
    return !only;
}

static void run_all(bench *b)
{
    vgs_data data = { .x = b->rows, .rows = b->n_rows, .dim = b->extract.score.channels };
    double spent, unused;
    vgs_ebm *fitted = autoencoder(b, &data, "autoencoder, short", b->how.fit_steps, &spent);
    int all = (int)(b->how.fit_steps * b->seconds / spent);
    if (wanted(b->only, "autoencoder"))
        vgs_ebm_free(autoencoder(b, &data, "autoencoder", all, &unused));
    for (int i = 0; i < VARIANTS; ++i)
        if (wanted(b->only, variants[i].name)) run(b, variants + i, &data, fitted, spent);
    vgs_ebm_free(fitted);
}

static void set(bench *b, args *a)
{
    const setting *k = setting_find(a->key);
    if (!k || !setting_set(&b->how, k, args_value(a))) wrong_usage("%.80s: no such option or value", a->word);
}

int main(int argc, char **argv)
{
    bench b = { .how = settings_initial(), .seconds = 60 };
    args a = { .argc = argc, .argv = argv };
    const char **names[] = { &b.folder, &b.weights, &b.cache };
    int n = 0;
    while (args_next(&a)) {
        if (!*a.key && n < 3) *names[n++] = a.word;
        else if (args_is(&a, "seconds")) b.seconds = args_double(&a, 0, 1e6);
        else if (args_is(&a, "only")) b.only = args_value(&a);
        else set(&b, &a);
    }
    if (n < 3) wrong_usage("FOLDER WEIGHTS.safetensors CACHE [--seconds S] [--only NAMES] [--KEY VALUE ...]");
    b.how.size = b.how.size ? b.how.size : 224;
    b.how.unit = 1;
    strcpy(b.how.map, "score");
    prepare(&b);
    run_all(&b);
    energy_free(&b.scorer);
    extractor_free(&b.extract);
    store_close(&b.train);
    photos_free(&b.e.all);
    free(b.rows);
    free(b.test);
    free(b.e.maps);
    free(b.e.score);
    return finish_stdout();
}
