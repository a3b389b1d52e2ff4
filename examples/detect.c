/* detect.c - learns what good images look like, and finds what is not like them
   cc -O2 examples/detect.c -o detect -lm               (add -fopenmp to use all cores: the same results)
   ./detect train FOLDER --out DIR &&
       ./detect score DIR IMAGE --maps MAPS      (./detect --help tells the rest)
   Needs stb_image.h and stb_image_write.h: examples/image.h says where they are had. */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime, fseeko, opendir, mkdir; precedes every
   include */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "detect"
#include "common.h"
#include <errno.h>
#include <signal.h>
#include "json.h"
#include "room.h"
#include "image.h"
#include "folder.h"
#include "settings.h"
#include "view.h"
#include "moments.h"
#include "store.h"
#include "features.h"
#include "gaussian.h"
#include "neighbour.h"
#include "energy.h"
#include "efficientnet.h"
#include "extractor.h"
#include "detector.h"
#include "roc.h"
#include "heat.h"
#include "judge.h"
#include "page.h"
#include "detect_report.h"

enum { LEAST_GOOD = 5, MOST_GROUP = 10000000 };  /* MOST_GROUP: of what a file may say                   */

typedef struct options {
    settings how;
    const char *command, *out, *groups, *maps, *weights;
    char **names;            /* the words that are no keys                                               */
    int    n, threads;
    bool   json, resume, force;
} options;

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
    signal(sig, SIG_DFL);                        /* a second one ends the program at once                */
    stopped = 1;
}

static int help(void)
{
    puts("detect - learns what good images look like, and finds what is not like them\n"
         "\n"
         "usage: detect train FOLDER --out DIR [options]\n"
         "       detect score DIR IMAGE_OR_FOLDER...|- [--maps OUT] [--json]\n"
         "       detect evaluate DIR FOLDER [--json]\n"
         "       detect add DIR FOLDER\n"
         "\n"
         "  FOLDER            train/good, test/KIND, ground_truth/KIND/STEM_mask.png as in MVTec-AD; a\n"
         "                    folder of such classes (one detector for all); or any folder of good images\n"
         "  --out DIR         detector.safetensors, and what `add` and --resume need\n"
         "  --weights FILE    an EfficientNet (B0..B7, Lite0..Lite4) as .safetensors, whose features are\n"
         "                    better than those of the filters that are built in\n"
         "  --groups FILE     lines FILE,GROUP: images of one group show the same thing, which calibration\n"
         "                    never splits; or --group-gap, below; else each image is alone\n"
         "  --resume          goes on with features that a stopped training has left in DIR\n"
         "  --force           replaces a detector that is in DIR\n"
         "  --maps OUT        OUT/STEM_overlay.png, OUT/STEM_mask.png, OUT/STEM_map.npy of each image\n"
         "  --json            results only: a line of JSON an image, or one object\n"
         "  -                 names of images from standard input, one a line\n"
         "  --threads N       0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         "\n"
         "Of a training (and, where said, what is kept with the detector):");
    settings_help();
    puts("\nExit status: 0 done (also where images are bad), 1 failed or an image could not be read,\n"
         "2 wrong usage, 130 stopped by Ctrl-C.");
    return finish_stdout();
}

static void wrong_text(const setting *k, const char *value)
{
    const char *const *words = setting_words(k);
    char flag[72], list[200] = "";
    if (!words)
        wrong_usage("%s %.80s: must be shorter than %g bytes", flag_text(k->name, flag), value, k->most);
    for (int i = 0; words[i]; ++i)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", words[i]);
    wrong_usage("%s %.60s: must be one of %s", flag_text(k->name, flag), value, list);
}

static void set_setting(args *a, settings *s)
{
    const setting *k = setting_find(a->key);
    const char *value;
    char flag[72];
    if (!k) wrong_usage("%.80s: there is no such option", a->word);
    value = args_value(a);
    if (setting_set(s, k, value)) return;
    if (k->kind == 'm') wrong_usage("--method %.60s: must be %s", value, k->help);
    if (k->kind == 't') wrong_text(k, value);
    wrong_usage("%s = %.40s: must be %s in %g..%g", flag_text(k->name, flag), value,
                k->kind == 'd' ? "a number" : "an integer", k->least, k->most);
}

static options parse(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .how = settings_initial() };
    o.names = (char **)room_for((size_t)argc, sizeof *o.names);
    while (args_next(&a)) {
        if (!*a.key && !o.command) o.command = a.word;
        else if (!*a.key) o.names[o.n++] = argv[a.at];
        else if (args_is(&a, "help") || args_is(&a, "h")) exit(help());
        else if (args_is(&a, "out")) o.out = args_value(&a);
        else if (args_is(&a, "weights")) o.weights = args_value(&a);
        else if (args_is(&a, "groups")) o.groups = args_value(&a);
        else if (args_is(&a, "maps")) o.maps = args_value(&a);
        else if (args_is(&a, "threads")) o.threads = args_threads(&a);
        else if (args_is(&a, "json")) o.json = args_flag(&a);
        else if (args_is(&a, "resume")) o.resume = args_flag(&a);
        else if (args_is(&a, "force")) o.force = args_flag(&a);
        else set_setting(&a, &o.how);
    }
    if (!o.command) wrong_usage("train, score, evaluate or add is missing");
    if (!o.how.size) o.how.size = o.weights ? 224 : 128;             /* what measures best                 */
    if (o.how.unit < 0) o.how.unit = o.weights != NULL;
    if (o.how.method & ENERGY && !o.how.unit) wrong_usage("--method energy: features must be of --unit 1");
    if (o.how.folds == 1) wrong_usage("--folds 1: must be 2 or more, or 0");
    if (o.how.pool % 2 == 0) wrong_usage("--pool %d: must be odd", o.how.pool);
    if (o.how.map_pool && o.how.map_pool % 2 == 0) wrong_usage("--map-pool %d: must be odd", o.how.map_pool);
    return o;
}

static char *in_folder(const char *folder, const char *name) { return text_format("%s/%s", folder, name); }

/* ==== train ========================================================================================= */

/* A line of progress on stderr every two seconds. */
static void progress(const char *what, int done, int all, double start)
{
    static double shown;
    double now = seconds_now();
    char text[32];
    if (now - shown < 2.0 || done < 1) return;
    shown = now;
    say("%s: %d of %d, %s left", what, done, all, duration((now - start) / done * (all - done), text));
}

/* What was read of the images: they may be fewer than the folder has. */
typedef struct training {
    options *o;
    photos all;
    int *group, groups;      /* of the images in the store                                               */
    int *fold;
    bool *use;
    int unreadable;
    store features;
} training;

/* Removes photo i; those after it move up. */
static void photos_drop(photos *p, int i)
{
    free(p->at[i].path), free(p->at[i].name), free(p->at[i].mask);
    memmove(p->at + i, p->at + i + 1, (size_t)(p->n - i - 1) * sizeof *p->at);
    --p->n;
}

/* One image into the store; a status other than OK is of this image only. */
static vgs_status extract_one(training *t, extractor *e, const photo *p, float *x, vgs_error *err)
{
    unsigned char *data;
    size_t bytes;
    image m = { 0 };
    uint64_t hash;
    vgs_status st = read_file(p->path, &data, &bytes, err);
    if (st) return st;
    hash = hash_bytes(data, bytes);
    if (store_has(&t->features, hash)) return free(data), VGS_OK;
    st = image_decode(data, bytes, 3, p->path, &m, err);
    free(data);
    if (!st) st = extractor_run(e, &m, p->path, x, err);
    image_free(&m);
    if (st || store_add(&t->features, hash, x)) return st;
    say("%s: %s", t->features.path, strerror(errno));
    exit(EXIT_FAILED);
}

/* Features of all images that can be read, from the i-th on. False: stopped. */
static bool extract_from(training *t, extractor *e, int i)
{
    float *x = (float *)room_for(extractor_numbers(e), sizeof *x);
    double start = seconds_now();
    vgs_error err;
    while (i < t->all.n && !stopped) {
        if (!extract_one(t, e, t->all.at + i, x, &err)) progress("features", ++i, t->all.n, start);
        else {
            say("%s", err.msg);
            ++t->unreadable;
            photos_drop(&t->all, i);
        }
    }
    free(x);
    return !stopped;
}

static bool find_groups(training *t)
{
    const options *o = t->o;
    const char *alone = "";
    int n = t->all.n;
    t->group = (int *)room_for((size_t)n + 1, sizeof *t->group);
    t->fold = (int *)room_for((size_t)n + 1, sizeof *t->fold);
    t->use = (bool *)room_for((size_t)n + 1, sizeof *t->use);
    if (o->groups) t->groups = group_by_file(&t->all, o->groups, t->group);
    else if (o->how.group_gap > 0) t->groups = group_by_gap(&t->all, o->how.group_gap, t->group);
    else {
        for (t->groups = 0; t->groups < n; ++t->groups) t->group[t->groups] = t->groups;
        alone = ": each image alone (--group-gap or --groups tells otherwise)";
    }
    if (t->groups < 0) return false;
    say("%d good images in %d group%s%s", n, t->groups, t->groups == 1 ? "" : "s", alone);
    if (t->groups >= 2) return true;
    say("calibration takes 2 groups at least");
    return false;
}

/* Scores of every image by models that have not seen its fold: maps [n, layers, cells]. */
static bool cross_score(training *t, detector *d, float *maps)
{
    int folds = folds_in_use(&d->how, t->all.n, t->groups);
    double start = seconds_now();
    vgs_error err;
    vgs_status st = VGS_OK;
    deal_folds(t->group, t->all.n, t->groups, folds, d->how.seed, t->fold);
    for (int f = 0; f < folds && !st && !stopped; ++f) {
        st = score_fold(d, &t->features, t->fold, f, t->use, t->o->threads, maps, &err);
        progress("calibration", f + 1, folds + 1, start);
    }
    if (st) say("%s", err.msg);
    return !st && !stopped;
}

/* Calibration, then the models of all images. */
static bool fit_all(training *t, detector *d)
{
    int cells = d->how.grid * d->how.grid, layers = layers_in_use(&d->how), n = t->all.n;
    float *maps = (float *)room_for((size_t)n * (size_t)(cells * layers), sizeof *maps);
    float *map = (float *)room_for(2 * (size_t)n * (size_t)cells, sizeof *map), *scores = map + n * cells;
    vgs_error err;
    bool ok = cross_score(t, d, maps);
    if (ok) {
        measure_scale(d, maps, n);
        for (int i = 0; i < n; ++i)
            combine_maps(d, maps + (size_t)i * (size_t)(cells * layers), scores + (size_t)i * (size_t)cells,
                         map + (size_t)i * (size_t)cells);
        calibrate(d, scores, map, n);
        for (int i = 0; i < n; ++i) t->use[i] = true;
        ok = !models_create(&d->fitted, &d->extract, d->how.rows, t->o->threads, &err) &&
             !models_fit(&d->fitted, &d->extract, &t->features, t->use, &err);
        if (!ok) say("%s", err.msg);
    }
    free(maps);
    free(map);
    return ok;
}

static void say_result(const detector *d)
{
    if (d->rate > d->how.false_alarms)
        say("%d good images: the smallest rate of false alarms that can be promised is 1/%d = %.4f, not %g",
            d->good, d->good + 1, d->rate, d->how.false_alarms);
    say("a score above %.4f is bad: %.3g %% false alarms, on average over random good images (not parts)",
        d->threshold, 100 * d->rate);
}

/* The list of what is in the store, for `add`. */
static vgs_status write_list(const training *t, const char *path, vgs_error *err)
{
    vgs_file f;
    if (vgs_file_begin(&f, path, err)) return err->code;
    for (int i = 0; i < t->all.n; ++i)
        fprintf(f.stream, "%d,%s,%s\n", t->group[i], t->all.classes[t->all.at[i].class_index],
                t->all.at[i].name);
    return vgs_file_commit(&f, err);
}

static void training_free(training *t)
{
    photos_free(&t->all);
    free(t->group);
    free(t->fold);
    free(t->use);
    store_close(&t->features);
}

/* How the features in a store were made: what must be the same to go on with it. weights: "" of the bank. */
static char *features_key(const settings *s, const extractor *e, const char *weights)
{
    return text_format("%s, raw, blocks %s, map %s %s, padding %s, input %s, size %d, grid %d, channels %d",
                       *weights ? weights : "bank 1", s->blocks, s->map, s->map_blocks, s->padding, s->input,
                       s->size, s->grid, e->channels);
}

/* Of what did not come to its end; why it failed has been said. then: what a user can count on */
static int stopped_or_failed(const char *then)
{
    if (!stopped) return EXIT_FAILED;
    say("stopped; %s", then);
    return EXIT_STOPPED;
}

static int train_into(training *t, detector *d, const char *path)
{
    const options *o = t->o;
    char *store_path = in_folder(o->out, "features.cache"), *list = in_folder(o->out, "images.csv");
    char *key = features_key(&d->how, &d->extract, d->weights), size[32], room[32];
    double bytes = (double)t->all.n * (double)extractor_numbers(&d->extract) * sizeof(float);
    vgs_error err;
    int status = EXIT_FAILED;
    if (!o->resume) remove(store_path);
    say("%d images in %d class%s: about %s of memory, and what an image takes; features take %s in %s",
        t->all.n, t->all.class_count, t->all.class_count == 1 ? "" : "es",
        size_text(training_bytes(&d->extract, t->all.n), ceil, room), size_text(bytes, ceil, size),
        store_path);
    if (store_open(&t->features, store_path, key, extractor_numbers(&d->extract), false)) {
        if (!extract_from(t, &d->extract, 0)) status = stopped_or_failed("--resume goes on");
        else if (t->all.n < LEAST_GOOD) say("%d good images: at least %d are needed", t->all.n, LEAST_GOOD);
        else if (find_groups(t)) {
            if (!fit_all(t, d)) status = stopped_or_failed("--resume goes on");
            else if (write_list(t, list, &err) || detector_save(d, path, &err)) say("%s", err.msg);
            else status = 0, say_result(d);
        }
    }
    free(store_path);
    free(list);
    free(key);
    return status;
}

/* "lite0.safetensors 57934424a1b2c3d4": the file's name and its FNV-1a. */
static bool name_weights(const char *path, char *text, size_t size)
{
    unsigned char *data;
    size_t bytes;
    char *name = last_part(path);
    vgs_error err;
    bool ok = !read_file(path, &data, &bytes, &err);
    if (!ok) say("%s", err.msg);
    else snprintf(text, size, "%.120s %016" PRIx64, name, hash_bytes(data, bytes));
    free(data);
    free(name);
    return ok;
}

static int train(options *o)
{
    training t = { .o = o };
    detector d = { .how = o->how };
    vgs_error err;
    char *path;
    int status = EXIT_FAILED;
    if (o->n != 1) wrong_usage("train: one folder is wanted, %d are given", o->n);
    if (!o->out) wrong_usage("train: --out DIR is missing");
    path = in_folder(o->out, "detector.safetensors");
    if (file_exists(path) && !o->force && !o->resume)
        wrong_usage("%s: there is a detector already; --force replaces it", path);
    if (!is_folder(o->names[0])) return say("%s: not a folder", o->names[0]), EXIT_FAILED;
    if (mkdir(o->out, 0777) && errno != EEXIST) return say("%s: %s", o->out, strerror(errno)), EXIT_FAILED;
    if (o->weights && !name_weights(o->weights, d.weights, sizeof d.weights)) return EXIT_FAILED;
    if (extractor_create(&d.extract, &d.how, o->weights, NULL, o->threads, &err))
        return say("%s", err.msg), EXIT_FAILED;
    if (photos_scan(&t.all, o->names[0], false)) status = train_into(&t, &d, path);
    if (status == 0) say("%s", path);
    if (status == 0 && t.unreadable) say("%d images could not be read", t.unreadable), status = EXIT_FAILED;
    training_free(&t);
    detector_free(&d);
    free(path);
    return status;
}

/* ==== score ========================================================================================= */

typedef struct scoring {
    const options *o;
    detector d;
    float *scratch, *map;
    uint64_t *stem;                              /* hashes of the names that maps have been written under */
    int stems, done, bad, unreadable, failed;
} scoring;

static bool open_detector(const char *folder, scoring *s)
{
    char *path = in_folder(folder, "detector.safetensors");
    vgs_error err;
    bool ok = !detector_load(&s->d, path, s->o->threads, &err);
    if (!ok) say("%s", err.msg);
    else {
        s->scratch = detector_scratch(&s->d);
        s->map = (float *)room_for((size_t)(s->d.how.grid * s->d.how.grid), sizeof *s->map);
    }
    free(path);
    return ok;
}

static void close_detector(scoring *s)
{
    detector_free(&s->d);
    free(s->scratch);
    free(s->map);
    free(s->stem);
}

/* Maps under a name that this call has used would replace those of another image. */
static bool is_new_stem(scoring *s, const char *name)
{
    const char *dot = strrchr(name, '.');
    uint64_t hash = hash_bytes((const unsigned char *)name, dot ? (size_t)(dot - name) : strlen(name));
    for (int i = 0; i < s->stems; ++i) if (s->stem[i] == hash) return false;
    if (!(s->stems & (s->stems - 1))) {          /* room for the next power of two                   */
        uint64_t *more = (uint64_t *)realloc(s->stem, (s->stems ? 2 * (size_t)s->stems : 1) * sizeof *more);
        if (!more) say("out of memory: names of %d maps", s->stems), exit(EXIT_FAILED);
        s->stem = more;
    }
    s->stem[s->stems++] = hash;
    return true;
}

static void score_maps(scoring *s, const image *m, const char *path, const char *name)
{
    vgs_error err;
    if (!is_new_stem(s, name)) {
        say("%s: another image has maps of this name: give a folder that holds both", path);
        ++s->failed;
    } else if (write_maps(&s->d, m, s->map, s->o->maps, name, &err)) {
        say("%s", err.msg);
        ++s->failed;
    }
}

static void print_verdict(const scoring *s, const char *name, const verdict *v, double ms_decode)
{
    json j = { stdout, false };
    int label = is_bad(&s->d, v->p);
    if (!s->o->json) {
        printf("%s  %-4s score %.4f  p %.4f\n", name, label ? "BAD" : "good", v->score, v->p);
        return;
    }
    json_open(&j, NULL, '{');
    json_string(&j, "file", name);
    json_double(&j, "score", v->score);
    json_double(&j, "p_value", v->p);
    json_i64(&j, "label", label);
    json_double(&j, "threshold", s->d.threshold);
    json_double(&j, "ms_decode", ms_decode);
    json_double(&j, "ms_resize", v->ms_resize);
    json_double(&j, "ms_features", v->ms_features);
    json_double(&j, "ms_score", v->ms_score);
    json_close(&j, '}');
    json_line(&j);
}

static void score_one(scoring *s, const char *path, const char *name)
{
    double start = seconds_now(), decoded;
    image m;
    verdict v;
    vgs_error err;
    vgs_status st = image_read(path, 3, &m, &err);
    decoded = seconds_now();
    if (!st) st = detector_score(&s->d, &m, path, s->scratch, s->map, &v, &err);
    if (st) say("%s", err.msg), ++s->unreadable;
    else {
        print_verdict(s, path, &v, 1e3 * (decoded - start));
        ++s->done;
        if (s->o->maps) score_maps(s, &m, path, name);
    }
    image_free(&m);
}

static void score_folder(scoring *s, const char *folder)
{
    photos p = { 0 };
    photos_class(&p, last_part(folder));
    if (!walk(&p, folder, "", NULL, NULL)) ++s->failed;
    else if (!p.n) say("%s: no image (.png .jpg .jpeg .bmp) in it", folder), ++s->failed;
    for (int i = 0; i < p.n && !stopped; ++i) score_one(s, p.at[i].path, p.at[i].name);
    photos_free(&p);
}

static void score_names(scoring *s)
{
    char line[4096], *name;
    while (!stopped && fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (!*line) continue;
        name = last_part(line);
        score_one(s, line, name);
        fflush(stdout);
        free(name);
    }
}

static int score(options *o)
{
    scoring s = { .o = o };
    if (o->n < 2) wrong_usage("score: DIR and images are wanted");
    if (!open_detector(o->names[0], &s)) return EXIT_FAILED;
    for (int i = 1; i < o->n && !stopped; ++i) {
        char *name = last_part(o->names[i]);
        if (!strcmp(o->names[i], "-")) score_names(&s);
        else if (is_folder(o->names[i])) score_folder(&s, o->names[i]);
        else score_one(&s, o->names[i], name);
        free(name);
    }
    close_detector(&s);
    if (s.unreadable) say("%d images could not be scored", s.unreadable);
    if (stopped) return EXIT_STOPPED;
    return finish_stdout() || s.unreadable || s.failed ? EXIT_FAILED : 0;
}

/* ==== add =========================================================================================== */

/* One more good image, of the class of this name. */
static void photos_add_to(photos *p, const char *class_name, const char *path, const char *name)
{
    int c = 0;
    while (c < p->class_count && strcmp(p->classes[c], class_name)) ++c;
    if (c == p->class_count) photos_class(p, text_format("%s", class_name));
    photos_add(p, path, name, NULL, false);
    p->at[p->n - 1].class_index = c;
}

/* The images that are in the store already, with their groups. */
static bool read_list(training *t, const char *path)
{
    FILE *f = fopen(path, "rb");
    char line[4096];
    int room = 0;
    if (!f) return say("%s: %s", path, strerror(errno)), false;
    while (fgets(line, sizeof line, f)) {
        char *class_name = strchr(line, ','), *name = class_name ? strchr(class_name + 1, ',') : NULL;
        long group = strtol(line, NULL, 10);
        line[strcspn(line, "\r\n")] = '\0';
        if (!name || group < 0 || group > MOST_GROUP)
            return say("%s: \"%.60s\" is not GROUP,CLASS,FILE", path, line), fclose(f), false;
        *class_name = *name = '\0';
        photos_add_to(&t->all, class_name + 1, "", name + 1);
        if (t->all.n > room) {
            int *more = (int *)realloc(t->group, (size_t)(room = 2 * room + 256) * sizeof *more);
            if (!more) say("out of memory"), exit(EXIT_FAILED);
            t->group = more;
        }
        t->group[t->all.n - 1] = (int)group;
        if (group >= t->groups) t->groups = (int)group + 1;
    }
    fclose(f);
    if (!t->all.n) say("%s: no image is listed", path);
    return t->all.n > 0;
}

/* How likely as many of n are below p by chance, if p-values are uniform: the binomial tail. */
static double chance_of(int below, int n, double p)
{
    double sum = 0;
    for (int k = below; k <= n; ++k)
        sum += exp(lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0) + k * log(p) +
                   (n - k) * log(1 - p));
    return sum < 1 ? sum : 1;
}

/* Says so if new good images score higher than those that calibrated the detector. */
static void check_fit(scoring *s, const photos *p)
{
    int n = 0, high = 0;
    vgs_error err;
    for (int i = 0; i < p->n && !stopped; ++i) {
        image m;
        verdict v;
        if (!image_read(p->at[i].path, 3, &m, &err) &&
            !detector_score(&s->d, &m, p->at[i].path, s->scratch, s->map, &v, &err)) ++n, high += v.p <= 0.1;
        image_free(&m);
    }
    if (n && chance_of(high, n, 0.1) < 0.01)
        say("%d of %d new good images score higher than 90 %% of those before: they no longer fit the "
            "calibration", high, n);
}

/* Groups of all images; unless the user or the names tell, the first ones keep theirs, the rest are alone. */
static bool regroup(training *t, int before)
{
    int *old = t->group, groups = t->groups;
    bool ok = find_groups(t);
    if (ok && !t->o->groups && !(t->o->how.group_gap > 0)) {
        memcpy(t->group, old, (size_t)before * sizeof *old);
        for (int i = before; i < t->all.n; ++i) t->group[i] = groups++;
        t->groups = groups;
    }
    free(old);
    return ok;
}

/* New images behind those that the store has; then all is fitted again. */
static int add_to(training *t, detector *d, photos *more, const char *folder)
{
    char *path = in_folder(folder, "detector.safetensors"), *list = in_folder(folder, "images.csv");
    int before = t->all.n, status = EXIT_FAILED;
    vgs_error err;
    for (int i = 0; i < more->n; ++i)
        photos_add_to(&t->all, more->classes[more->at[i].class_index], more->at[i].path, more->at[i].name);
    t->features.n = t->features.kept = before;
    if (!extract_from(t, &d->extract, before)) status = stopped_or_failed("the detector is as it was");
    else if (regroup(t, before)) {
        models_free(&d->fitted);
        if (!fit_all(t, d)) status = stopped_or_failed("the detector is as it was");
        else if (write_list(t, list, &err) || detector_save(d, path, &err)) say("%s", err.msg);
        else status = t->unreadable ? EXIT_FAILED : 0, say_result(d);
    }
    free(path);
    free(list);
    return status;
}

static int add(options *o)
{
    scoring s = { .o = o };
    training t = { .o = o };
    photos more = { 0 };
    char *path, *key, *list;
    int status = EXIT_FAILED;
    if (o->n != 2) wrong_usage("add: DIR and FOLDER are wanted");
    if (!open_detector(o->names[0], &s)) return EXIT_FAILED;
    o->how = s.d.how;
    path = in_folder(o->names[0], "features.cache");
    list = in_folder(o->names[0], "images.csv");
    key = features_key(&s.d.how, &s.d.extract, s.d.weights);
    if (!file_exists(path)) say("%s is not there: the detector must be trained anew with all images", path);
    else if (read_list(&t, list) && photos_scan(&more, o->names[1], false) &&
             store_open(&t.features, path, key, extractor_numbers(&s.d.extract), true)) {
        if (t.features.kept < t.all.n) say("%s: features of %d images, not %d", path, t.features.kept,
                                           t.all.n);
        else {
            check_fit(&s, &more);
            status = add_to(&t, &s.d, &more, o->names[0]);
        }
    }
    photos_free(&more);
    training_free(&t);
    close_detector(&s);
    free(path);
    free(list);
    free(key);
    return status;
}

/* ==== evaluate ====================================================================================== */

static void print_results(const photos *p, const result *mean, const result *each)
{
    json j = { stdout, false };
    json_open(&j, NULL, '{');
    json_result(&j, "mean", mean);
    json_open(&j, "classes", '{');
    for (int c = 0; c < p->class_count; ++c) json_result(&j, p->classes[c], each + c);
    json_close(&j, '}');
    json_close(&j, '}');
    json_line(&j);
}

static void score_all(scoring *s, evaluated *e)
{
    size_t cells = (size_t)(s->d.how.grid * s->d.how.grid);
    double start = seconds_now();
    vgs_error err;
    for (int i = 0; i < e->all.n && !stopped; ++i) {
        image m;
        verdict v;
        vgs_status st = image_read(e->all.at[i].path, 3, &m, &err);
        if (!st) st = detector_score(&s->d, &m, e->all.at[i].path, s->scratch, e->maps + (size_t)i * cells,
                                     &v, &err);
        image_free(&m);
        e->score[i] = st ? (double)NAN : v.score;
        e->p[i] = st ? 1 : v.p;
        if (st) say("%s", err.msg), ++s->unreadable;
        progress("scores", i + 1, e->all.n, start);
    }
}

static int evaluate_all(scoring *s, evaluated *e)
{
    result *each, mean;
    vgs_error err;
    char *path;
    int wrong = 0, classes = e->all.class_count;
    bool written;
    score_all(s, e);
    if (stopped) return EXIT_STOPPED;
    each = (result *)room_for((size_t)classes, sizeof *each);
    for (int c = 0; c < classes; ++c) {
        image_figures(e, &s->d, c, each + c);
        wrong += pixel_figures(e, &s->d, c, each + c, NULL);
    }
    mean = mean_result(each, classes);
    print_results(&e->all, &mean, each);
    path = in_folder(s->o->names[0], "report.html");
    written = !write_report(path, e, &s->d, &mean, each, &err);
    if (!written || !s->o->json) say("%s", written ? path : err.msg);
    free(path);
    free(each);
    if (s->unreadable) say("%d images could not be scored", s->unreadable);
    if (wrong) say("%d masks could not be used", wrong);
    return finish_stdout() || s->unreadable || wrong || !written ? EXIT_FAILED : 0;
}

static int evaluate_command(options *o)
{
    scoring s = { .o = o };
    evaluated e = { 0 };
    int status = EXIT_FAILED;
    if (o->n != 2) wrong_usage("evaluate: DIR and FOLDER are wanted");
    if (!open_detector(o->names[0], &s)) return EXIT_FAILED;
    if (photos_scan(&e.all, o->names[1], true)) {
        e.maps = (float *)room_for((size_t)e.all.n * (size_t)(s.d.how.grid * s.d.how.grid), sizeof *e.maps);
        e.score = (double *)room_for(2 * (size_t)e.all.n, sizeof *e.score);
        e.p = e.score + e.all.n;
        status = evaluate_all(&s, &e);
    }
    photos_free(&e.all);
    free(e.maps);
    free(e.score);
    close_detector(&s);
    return status;
}

/* ==== all together ================================================================================== */

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    int status;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (!strcmp(o.command, "train")) status = train(&o);
    else if (!strcmp(o.command, "score")) status = score(&o);
    else if (!strcmp(o.command, "evaluate")) status = evaluate_command(&o);
    else if (!strcmp(o.command, "add")) status = add(&o);
    else wrong_usage("%.60s: there is no such command; train, score, evaluate, add", o.command);
    free(o.names);
    return status;
}
