/* False alarms of the detector of anomalies on good images that it has never seen, beside what it promises:
   good images of a folder are split by groups at random, a detector is trained on one part, as by `detect
   train`, and scores the other.

       cc -O2 bench/detect_alarms.c -o bench_detect_alarms -lm
       ./bench_detect_alarms FOLDER WEIGHTS.safetensors CACHE [--splits 10] [--share 0.7] [--held 0]
           [--threads 1] [--KEY VALUE ...]

   FOLDER as `detect evaluate` takes it, of which all good images are used, for training and for test; WEIGHTS
   -: none; CACHE: a folder for the features, which are extracted once. KEY as of `detect train`. --held: the
   control, whose rates are exact: this share of the groups to train calibrates a detector of the others, in
   place of models that leave out a fold each.

   Of images: those with a p-value within the promised rate. Of maps: those with a place above the threshold
   of maps. Of cells: the share of all that are hotter than the promised share of good ones. p: the mean
   p-value, 0.5 if new images score like those of the calibration. Means over the splits; the error is the
   deviation of this mean when groups are drawn with replacement, those of the calibration, too (of cells: of
   the test); in brackets that of the mean of as many splits of these same groups. Beyond luck: less what the
   same splits give where an image has one value, its mean over them, in calibration and in test, which cannot
   depend on how calibration is done, but on which images fell into which test. Then what the same detectors
   find of the bad images: means over the splits +- the largest deviation. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_detect_alarms"
#include "../examples/common.h"
#include <errno.h>
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
#include "clock.h"
#include "detect_cache.h"

enum { RATES = 2, KINDS = 3, RESAMPLED = 400 };
static const double rates[RATES] = { 0.01, 0.05 };
enum { IMAGES, MAPS, CELLS };
static const char *const kind_names[KINDS] = { "images", "maps", "cells" };

enum { TEST = -1, BAD = -2, LEARNS = -3 };        /* in place of a fold                                    */

/* What a split says of an image: its fold; its score and the peak of its map, by models that have not seen
   it; the share of its cells that are too hot. */
typedef struct seen { int fold; double value[2], cells[RATES]; } seen;

typedef struct bench {
    settings how;
    const char *folder, *weights, *cache;
    int splits, threads, groups;
    double share, held;
    extractor extract;
    photos all;              /* the good ones first                                                      */
    int good;
    int *group, *fold;
    bool *use;
    store features;
    float *maps;             /* [images, layers, cells]                                                  */
    seen *seen;              /* [splits, images]                                                         */
    double *auroc, *found;   /* [splits]; [splits, RATES]                                                */
} bench;

/* ==== splits ======================================================================================== */

/* Behind those of `to`: the good or the bad ones of `from`. */
static void photos_copy(photos *to, const photos *from, bool bad)
{
    for (int i = 0; i < from->n; ++i) {
        if (from->at[i].bad != bad) continue;
        photos_add(to, from->at[i].path, from->at[i].name, NULL, bad);
        to->at[to->n - 1].class_index = from->at[i].class_index;
    }
}

static void prepare(bench *b)
{
    photos test;
    vgs_error err;
    if (!photos_scan(&b->all, b->folder, false) || !photos_scan(&test, b->folder, true)) exit(EXIT_FAILED);
    photos_copy(&b->all, &test, false);
    b->good = b->all.n;
    photos_copy(&b->all, &test, true);
    photos_free(&test);
    must(extractor_create(&b->extract, &b->how, b->weights, NULL, b->threads, &err), &err);
    extract_all(&b->extract, &b->all, &b->features, b->cache, "all");
    b->group = (int *)room_for(2 * (size_t)b->all.n, sizeof *b->group);
    b->fold = b->group + b->all.n;
    b->use = (bool *)room_for((size_t)b->all.n, sizeof *b->use);
    b->maps = (float *)room_for((size_t)b->all.n * MOST_LAYERS * (size_t)(b->how.grid * b->how.grid),
                                sizeof *b->maps);
    b->seen = (seen *)room_for((size_t)b->splits * (size_t)b->all.n, sizeof *b->seen);
    b->auroc = (double *)room_for((size_t)b->splits * (1 + RATES), sizeof *b->auroc);
    b->found = b->auroc + b->splits;
    b->all.n = b->good;                          /* groups are of the good ones                          */
    if (b->how.group_gap > 0) b->groups = group_by_gap(&b->all, b->how.group_gap, b->group);
    else for (b->groups = 0; b->groups < b->good; ++b->groups) b->group[b->groups] = b->groups;
    b->all.n = b->features.n;
}

/* The fold of each image, or what it is for in place of one. Returns how many folds. */
static int deal(bench *b, int split)
{
    vgs_rng r = { b->how.seed, 67, (uint32_t)split << 16 };
    int *order = (int *)room_for((size_t)b->groups, sizeof *order), train = (int)(b->share * b->groups + 0.5);
    int held = (int)(b->held * train + 0.5);
    int folds = held ? 1 : folds_in_use(&b->how, (int)(b->share * b->good), train);
    for (int g = 0; g < b->groups; ++g) {
        int k = (int)vgs_rng_below(&r, (uint32_t)g + 1);
        order[g] = order[k];
        order[k] = g;
    }
    for (int i = 0; i < b->all.n; ++i) {
        int g = i < b->good ? order[b->group[i]] : -1;
        b->fold[i] = g < 0 ? BAD : g >= train ? TEST : !held ? g % folds : g < held ? 0 : LEARNS;
    }
    free(order);
    return folds;
}

/* Maps of the calibration and of the test, by models that have not seen the image. The last model is that of
   the detector. */
static void score_all(bench *b, detector *d, int folds)
{
    size_t stride = (size_t)(b->how.grid * b->how.grid * layers_in_use(&b->how));
    float *x = (float *)room_for(b->features.numbers, sizeof *x);
    bool held = b->held > 0;
    vgs_error err;
    for (int f = 0; f < folds && !held; ++f)
        must(score_fold(d, &b->features, b->fold, f, b->use, b->threads, b->maps, &err), &err);
    for (int i = 0; i < b->all.n; ++i) b->use[i] = held ? b->fold[i] == LEARNS : b->fold[i] >= 0;
    must(models_create(&d->fitted, &b->extract, b->how.rows, b->threads, &err), &err);
    must(models_fit(&d->fitted, &b->extract, &b->features, b->use, &err), &err);
    for (int i = 0; i < b->all.n; ++i) {
        if (b->use[i]) continue;
        store_read(&b->features, i, x);
        models_score(&d->fitted, &b->extract, x, b->maps + (size_t)i * stride);
    }
    models_free(&d->fitted);
    free(x);
}

/* Copies the maps of images of the calibration one after the other; returns how many. */
static int calibration_maps(const bench *b, float *out)
{
    size_t stride = (size_t)(b->how.grid * b->how.grid * layers_in_use(&b->how));
    int n = 0;
    for (int i = 0; i < b->good; ++i)
        if (b->fold[i] >= 0)
            memcpy(out + (size_t)n++ * stride, b->maps + (size_t)i * stride, stride * sizeof *out);
    return n;
}

/* Of the cells of a map. */
static double share_hotter(const detector *d, const float *map, double limit)
{
    int cells = d->how.grid * d->how.grid, n = 0;
    for (int k = 0; k < cells; ++k) n += heat(d, (double)map[k]) > limit - 1e-9;
    return (double)n / cells;
}

static void judge_images(bench *b, const detector *d, const seen *s, int split)
{
    scored *list = (scored *)room_for((size_t)b->all.n, sizeof *list);
    double sum = 0;
    for (int c = 0; c < b->all.class_count; ++c) {
        roc_bins bins;
        int n = 0;
        for (int i = 0; i < b->all.n; ++i)
            if ((b->fold[i] == TEST || b->fold[i] == BAD) && b->all.at[i].class_index == c)
                list[n++] = (scored){ s[i].value[IMAGES], b->all.at[i].bad };
        bins = roc_of_images(list, n);
        sum += roc_area(bins.good, bins.bad, bins.n);
        roc_free(&bins);
    }
    b->auroc[split] = sum / b->all.class_count;
    for (int r = 0; r < RATES; ++r) {
        int n = 0;
        for (int i = b->good; i < b->all.n; ++i)
            n += p_value(d, s[i].value[IMAGES]) <= rates[r] * (1 + 1e-12);
        b->found[split * RATES + r] = (double)n / (b->all.n - b->good);
    }
    free(list);
}

static void judge_split(bench *b, detector *d, int split)
{
    int cells = b->how.grid * b->how.grid, n;
    size_t stride = (size_t)(cells * layers_in_use(&b->how)), all = (size_t)b->good * (size_t)cells;
    seen *out = b->seen + (size_t)split * (size_t)b->all.n;
    float *chosen = (float *)room_for((size_t)b->good * stride, sizeof *chosen);
    float *score = (float *)room_for(2 * all, sizeof *score), *map = score + all;
    n = calibration_maps(b, chosen);
    measure_scale(d, chosen, n);
    for (int i = 0; i < n; ++i)
        combine_maps(d, chosen + (size_t)i * stride, score + (size_t)i * (size_t)cells,
                     map + (size_t)i * (size_t)cells);
    calibrate(d, score, map, n);
    for (int i = 0; i < b->all.n; ++i) {
        combine_maps(d, b->maps + (size_t)i * stride, score, map);
        out[i].fold = b->fold[i];
        out[i].value[IMAGES] = map_score(score, cells);
        out[i].value[MAPS] = map_score(map, cells);
        for (int r = 0; r < RATES; ++r) out[i].cells[r] = share_hotter(d, map, -log10(rates[r]));
    }
    judge_images(b, d, out, split);
    free(chosen);
    free(score);
}

/* ==== figures ======================================================================================= */

typedef struct figures { double alarms[KINDS][RATES], p[2]; } figures;

typedef struct valued { double value; int at; } valued;

/* The larger first. */
static int compare_valued(const void *a, const void *b)
{
    const valued *x = (const valued *)a, *y = (const valued *)b;
    return x->value > y->value ? -1 : x->value < y->value;
}

/* Of one split, for each of the images a weight, that of its group. order [images]: by falling value */
static void figures_of(const bench *b, const seen *s, int kind, const valued *order, const double *weight,
                       figures *f)
{
    int n = b->good;
    double all = 0, above = 0, tests = 0, alarms[RATES] = { 0 }, p_sum = 0;
    for (int i = 0; i < n; ++i)
        if (s[i].fold == TEST) tests += weight[b->group[i]];
        else if (s[i].fold >= 0) all += weight[b->group[i]];
    for (int i = 0, j = 0; i < n; i = j) {                           /* equal values count together      */
        double w = 0, p;
        for (j = i; j < n && order[j].value >= order[i].value; ++j)
            if (s[order[j].at].fold == TEST) w += weight[b->group[order[j].at]];
            else if (s[order[j].at].fold >= 0) above += weight[b->group[order[j].at]];
        p = (1 + above) / (1 + all);
        p_sum += w * p;
        for (int r = 0; r < RATES; ++r) if (p <= fmax(rates[r], 1 / (1 + all)) * (1 + 1e-12)) alarms[r] += w;
    }
    for (int r = 0; r < RATES; ++r) f->alarms[kind][r] += alarms[r] / tests / b->splits;
    f->p[kind] += p_sum / tests / b->splits;
}

static void cells_of(const bench *b, const seen *s, const double *weight, figures *f)
{
    double sum[RATES] = { 0 }, tests = 0;
    for (int i = 0; i < b->good; ++i) {
        if (s[i].fold != TEST) continue;
        tests += weight[b->group[i]];
        for (int r = 0; r < RATES; ++r) sum[r] += weight[b->group[i]] * s[i].cells[r];
    }
    for (int r = 0; r < RATES; ++r) f->alarms[CELLS][r] += sum[r] / tests / b->splits;
}

/* Sums over the splits from..to-1, each over the number of all splits. */
static figures sum_figures(const bench *b, const valued *order, const double *weight, int from, int to)
{
    figures f = { .p = { 0 } };
    for (int k = from; k < to; ++k) {
        const seen *s = b->seen + (size_t)k * (size_t)b->all.n;
        for (int kind = 0; kind < 2; ++kind)
            figures_of(b, s, kind, order + (size_t)(2 * k + kind) * (size_t)b->good, weight, &f);
        cells_of(b, s, weight, &f);
    }
    return f;
}

/* The deviation of one figure over what was resampled. at: its place in a figures */
static double deviation_at(const figures *f, int n, size_t at)
{
    double sum = 0, square = 0;
    for (int i = 0; i < n; ++i) {
        double v = *(const double *)(const void *)((const char *)(f + i) + at);
        sum += v;
        square += v * v;
    }
    return sqrt(fmax(0, square / n - sum / n * (sum / n)));
}

/* Mean of n numbers that are `step` apart, +- the largest deviation from it. */
static void say_spread(const char *name, const double *x, int n, int step)
{
    double mean = 0, far = 0;
    for (int i = 0; i < n; ++i) mean += x[i * step] / n;
    for (int i = 0; i < n; ++i) far = fmax(far, fabs(x[i * step] - mean));
    printf("%s\t%.3f +- %.3f\n", name, mean, far);
}

/* [2 splits, good]: the scores of each split, then the peaks of its maps. The caller frees it. */
static valued *sort_values(const bench *b)
{
    size_t n = (size_t)b->good;
    valued *order = (valued *)room_for(2 * (size_t)b->splits * n, sizeof *order);
    for (int k = 0; k < 2 * b->splits; ++k) {
        const seen *s = b->seen + (size_t)(k / 2) * (size_t)b->all.n;
        for (size_t i = 0; i < n; ++i) order[(size_t)k * n + i] = (valued){ s[i].value[k % 2], (int)i };
        qsort(order + (size_t)k * n, n, sizeof *order, compare_valued);
    }
    return order;
}

/* Gives an image the same values in all splits, their mean, whether it is of the calibration or the test. */
static void even_values(bench *b)
{
    size_t n = (size_t)b->all.n;
    for (size_t i = 0; i < 2 * (size_t)b->good; ++i) {
        double sum = 0, count = 0;
        seen *s = b->seen + i / 2;
        for (int k = 0; k < b->splits; ++k)
            if (s[(size_t)k * n].fold != LEARNS) sum += s[(size_t)k * n].value[i % 2], count += 1;
        for (int k = 0; k < b->splits && count > 0; ++k) s[(size_t)k * n].value[i % 2] = sum / count;
    }
}

/* each [splits]: figures of a split, over the number of all splits; all groups count alike. */
static void figures_each(const bench *b, double *weight, figures *each)
{
    valued *order = sort_values(b);
    for (int g = 0; g < b->groups; ++g) weight[g] = 1;
    for (int k = 0; k < b->splits; ++k) each[k] = sum_figures(b, order, weight, k, k + 1);
    free(order);
}

/* Figures when groups are drawn with replacement, RESAMPLED times. */
static void figures_resampled(const bench *b, double *weight, figures *again)
{
    valued *order = sort_values(b);
    vgs_rng r = { b->how.seed, 68, 0 };
    for (int k = 0; k < RESAMPLED; ++k) {
        for (int g = 0; g < b->groups; ++g) weight[g] = 0;
        for (int g = 0; g < b->groups; ++g) weight[vgs_rng_below(&r, (uint32_t)b->groups)] += 1;
        again[k] = sum_figures(b, order, weight, 0, b->splits);
    }
    free(order);
}

/* One figure: its sum over the splits, the deviation over what was resampled (unless again is NULL), and that
   over as many splits. at: its place in a figures; scale: of what is printed */
static void say_figure(const bench *b, const figures *each, const figures *again, size_t at, double scale)
{
    int digits = scale > 1 ? 2 : 3;
    double sum = 0;
    for (int k = 0; k < b->splits; ++k)
        sum += *(const double *)(const void *)((const char *)(each + k) + at);
    printf(again ? "%.*f" : "%+.*f", digits, scale * sum);
    if (again) printf(" +- %.*f", digits, scale * deviation_at(again, RESAMPLED, at));
    printf(" (%.*f)", digits, scale * sqrt(b->splits) * deviation_at(each, b->splits, at));
}

static void say_kind(const bench *b, int kind, const char *after, const figures *each, const figures *again)
{
    printf("%s%s", kind_names[kind], after);
    for (int i = 0; i < RATES; ++i) {
        printf("\t%g %%: ", 100 * rates[i]);
        say_figure(b, each, again, offsetof(figures, alarms) + sizeof(double) * (size_t)(kind * RATES + i),
                   100);
    }
    if (kind != CELLS) {
        printf("\tp ");
        say_figure(b, each, again, offsetof(figures, p) + sizeof(double) * (size_t)kind, 1);
    }
    putchar('\n');
}

/* Changes what is seen: the last that is asked of it. */
static void report(bench *b)
{
    double *weight = (double *)room_for((size_t)b->groups, sizeof *weight);
    figures *again = (figures *)room_for(RESAMPLED, sizeof *again);
    figures *each = (figures *)room_for(2 * (size_t)b->splits, sizeof *each), *even = each + b->splits;
    figures_each(b, weight, each);
    figures_resampled(b, weight, again);
    for (int kind = 0; kind < KINDS; ++kind) say_kind(b, kind, "", each, again);
    even_values(b);
    figures_each(b, weight, even);
    for (int kind = 0; kind < CELLS; ++kind) {
        for (int k = 0; k < b->splits; ++k) {
            for (int r = 0; r < RATES; ++r) each[k].alarms[kind][r] -= even[k].alarms[kind][r];
            each[k].p[kind] -= even[k].p[kind];
        }
        say_kind(b, kind, " beyond luck", each, NULL);
    }
    say_spread("image AUROC", b->auroc, b->splits, 1);
    for (int r = 0; r < RATES; ++r)
        say_spread(r ? "bad images found at 5 %" : "bad images found at 1 %", b->found + r, b->splits, RATES);
    free(weight);
    free(again);
    free(each);
}

static void set(bench *b, args *a)
{
    const setting *k = setting_find(a->key);
    if (!k || !setting_set(&b->how, k, args_value(a))) wrong_usage("%.80s: no such option or value", a->word);
}

int main(int argc, char **argv)
{
    bench b = { .how = settings_initial(), .splits = 10, .share = 0.7, .threads = 1 };
    args a = { .argc = argc, .argv = argv };
    const char **names[] = { &b.folder, &b.weights, &b.cache };
    double start = cpu_seconds();
    int n = 0;
    while (args_next(&a)) {
        if (!*a.key && n < 3) *names[n++] = a.word;
        else if (args_is(&a, "splits")) b.splits = (int)args_double(&a, 1, 1000);
        else if (args_is(&a, "share")) b.share = args_double(&a, 0.1, 0.9);
        else if (args_is(&a, "held")) b.held = args_double(&a, 0, 0.9);
        else if (args_is(&a, "threads")) b.threads = args_threads(&a);
        else set(&b, &a);
    }
    if (n < 3) wrong_usage("FOLDER WEIGHTS.safetensors CACHE [--splits 10] [--share 0.7] [--held 0] "
                           "[--KEY VALUE ...]");
    if (!strcmp(b.weights, "-")) b.weights = NULL;
    if (!b.how.size) b.how.size = b.weights ? 224 : 128;
    if (b.how.unit < 0) b.how.unit = b.weights != NULL;
    prepare(&b);
    say("%d good images in %d groups, features in %.0f s", b.good, b.groups, cpu_seconds() - start);
    for (int k = 0; k < b.splits; ++k) {
        detector d = { .how = b.how };
        int folds = deal(&b, k);
        d.extract = b.extract;
        score_all(&b, &d, folds);
        judge_split(&b, &d, k);
        free(d.scores);
        say("split %d of %d, %d folds, %.0f s of the processor", k + 1, b.splits, folds,
            cpu_seconds() - start);
    }
    report(&b);
    extractor_free(&b.extract);
    store_close(&b.features);
    photos_free(&b.all);
    free(b.group);
    free(b.use);
    free(b.maps);
    free(b.seen);
    free(b.auroc);
    return finish_stdout();
}
