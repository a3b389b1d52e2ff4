/* detector.h - a detector of anomalies: scores of cells by one or several methods, what scores good images
   have, and the file that holds it all. Include it after extractor.h and neighbour.h.

   An image's score is the largest of its cells' scores by the method. Its heat map is that of these scores,
   or (--map scales) of two Gaussians a cell of its own: of raw features, and of their means over a large part
   of the image, which alone see what is large and faint. What finds anomalous images best does not find best
   where they are anomalous: bench/RESULTS.md.

   Calibration: the groups of good images are dealt into folds; every image is scored by models that have not
   seen its group. From these scores come the mean and deviation that put methods on one scale, the p-value of
   an image, (1 + #{good scores >= its score})/(n + 1), the threshold for a promised rate of false alarms, and
   the colours of the maps. The promise is for a random new image, not for a random new group. */
#ifndef DETECTOR_H
#define DETECTOR_H

enum { PIXEL_LEVELS = 401, MOST_LAYERS = METHODS + 2 };

/* What is fitted to features; fine and coarse: of the map. */
typedef struct models { gaussian location, one, fine, coarse; neighbour bank; energy ebm; } models;

typedef struct detector {
    settings how;
    char weights[160];       /* name and checksum of the file that the network came from; "": none       */
    extractor extract;
    models fitted;
    double mean[MOST_LAYERS], deviation[MOST_LAYERS];    /* of the cells of good images, for each layer  */
    int    good;                                 /* n, good images                                       */
    double *scores;                              /* [good], ascending                                    */
    double rate, threshold;                      /* what can be promised; a higher score is bad          */
    double map_threshold;                        /* a higher place of the map is: of as many good images */
    float  pixels[PIXEL_LEVELS];                 /* score that a share 10^(-k/100) of good cells exceeds */
} detector;

/* ==== models ======================================================================================== */

static inline void models_free(models *m)
{
    gaussian_free(&m->location);
    gaussian_free(&m->one);
    gaussian_free(&m->fine);
    gaussian_free(&m->coarse);
    neighbour_free(&m->bank);
    energy_free(&m->ebm);
}

static inline vgs_status models_create(models *m, const extractor *e, int rows, int threads, vgs_error *err)
{
    const settings *s = e->how;
    int channels = e->score.channels, cells = s->grid * s->grid;
    *m = (models){ .bank = { 0, 0, NULL, NULL } };
    if (map_of_scales(s)) {
        m->fine = gaussian_create(cells, e->fine.channels, s->map_dims, threads);
        m->coarse = gaussian_create(cells, e->coarse.channels, s->map_dims, threads);
    }
    if (s->method & LOCATION) m->location = gaussian_create(cells, channels, s->dims, threads);
    if (s->method & MAHALANOBIS) m->one = gaussian_create(1, channels, s->dims, threads);
    if (s->method & NEIGHBOUR) m->bank = neighbour_create(rows, channels);
    return s->method & ENERGY ? energy_create(&m->ebm, s, channels, threads, err) : VGS_OK;
}

static inline bool models_fit_map(models *m, const extractor *e, store *st, const bool *use)
{
    const settings *s = e->how;
    st->seen = &e->fine;
    if (!gaussian_fit(&m->fine, st, use, s->grid, s->map_window, s->ridge)) return false;
    st->seen = &e->coarse;
    return gaussian_fit(&m->coarse, st, use, s->grid, s->map_window, s->ridge);
}

static inline vgs_status models_fit(models *m, const extractor *e, store *st, const bool *use, vgs_error *err)
{
    const settings *s = e->how;
    bool ok = !map_of_scales(s) || models_fit_map(m, e, st, use);
    st->seen = &e->score;
    if (ok && s->method & LOCATION) ok = gaussian_fit(&m->location, st, use, s->grid, s->window, s->ridge);
    if (ok && s->method & MAHALANOBIS) ok = gaussian_fit(&m->one, st, use, s->grid, 0, s->ridge);
    if (!ok) {
        err->code = VGS_E_NONFINITE;
        snprintf(err->msg, sizeof err->msg,
                 "--ridge %g: the covariance of the features is not positive; a larger "
                 "ridge helps", s->ridge);
        return err->code;
    }
    if (s->method & NEIGHBOUR) neighbour_fit(&m->bank, st, use, s->grid * s->grid, s->seed);
    return s->method & ENERGY ? energy_fit(&m->ebm, s, st, use, e->score.channels, err) : VGS_OK;
}

/* map [cells] becomes log score less `level` times the median of these: what a whole image has in common, its
   light and its sharpness, counts less than what differs within it. */
static inline void take_level(float *map, int cells, double level)
{
    double *v = (double *)room_for((size_t)cells, sizeof *v), median;
    for (int k = 0; k < cells; ++k) v[k] = (double)(map[k] = logf(map[k] + FLT_MIN));
    qsort(v, (size_t)cells, sizeof *v, compare_doubles);
    median = 0.5 * (v[(cells - 1) / 2] + v[cells / 2]);
    for (int k = 0; k < cells; ++k) map[k] -= (float)(level * median);
    free(v);
}

static inline void models_score_map(models *m, const extractor *e, const float *raw, float *x, float *maps)
{
    int cells = e->how->grid * e->how->grid;
    vgs_error err;
    view_make(&e->fine, raw, "", x, &err);
    gaussian_score(&m->fine, x, cells, maps);
    view_make(&e->coarse, raw, "", x, &err);
    gaussian_score(&m->coarse, x, cells, maps + cells);
    for (int k = 0; k < 2; ++k) take_level(maps + k * cells, cells, e->how->map_level);
}

/* Scores of the cells by each method in use, then of the scales of the map, if it has some: maps [layers,
   cells]. raw: features that have passed extractor_run. */
static inline void models_score(models *m, const extractor *e, const float *raw, float *maps)
{
    const settings *s = e->how;
    int cells = s->grid * s->grid;
    float *x = e->seen;
    vgs_error err;
    view_make(&e->score, raw, "", x, &err);
    if (s->method & LOCATION) {
        gaussian_score(&m->location, x, cells, maps);
        if (s->level > 0) take_level(maps, cells, s->level);
        maps += cells;
    }
    if (s->method & MAHALANOBIS) gaussian_score(&m->one, x, cells, maps), maps += cells;
    if (s->method & NEIGHBOUR) neighbour_score(&m->bank, x, cells, maps), maps += cells;
    if (s->method & ENERGY) energy_score(&m->ebm, x, maps), maps += cells;
    if (map_of_scales(s)) models_score_map(m, e, raw, x, maps);
}

static inline int methods_in_use(const settings *s)
{
    int n = 0;
    for (int k = 0; k < METHODS; ++k) n += s->method >> k & 1;
    return n;
}

static inline int layers_in_use(const settings *s) { return methods_in_use(s) + (map_of_scales(s) ? 2 : 0); }

/* About what training on n images keeps in memory: the extractor, the images' maps, the models. */
static inline double training_bytes(const extractor *e, int n)
{
    const settings *s = e->how;
    int cells = s->grid * s->grid, channels = e->score.channels;
    double numbers = 2.0 * (double)extractor_numbers(e) + (double)n * cells * (layers_in_use(s) + 2), bytes;
    if (e->net.graph) numbers += 2.0 * vgs_model_size(e->net.weights);
    if (s->method & NEIGHBOUR) numbers += (NEIGHBOUR_ROWS + (double)s->rows) * channels;
    if (s->method & ENERGY) numbers += (double)ENERGY_ROWS * channels;
    bytes = numbers * (double)sizeof(float);
    if (e->net.graph) bytes += (double)vgs_graph_bytes(e->net.graph);
    if (s->method & LOCATION) bytes += gaussian_bytes(cells, channels, s->dims);
    if (s->method & MAHALANOBIS) bytes += gaussian_bytes(1, channels, s->dims);
    if (map_of_scales(s))
        bytes += gaussian_bytes(cells, e->fine.channels, s->map_dims) +
                 gaussian_bytes(cells, e->coarse.channels, s->map_dims);
    return bytes;
}

/* (score - mean)/deviation of cell k in layer i. */
static inline double standard_score(const detector *d, const float *maps, int i, int k)
{
    return ((double)maps[i * d->how.grid * d->how.grid + k] - d->mean[i]) / d->deviation[i];
}

/* From maps [layers, cells]: the score of each cell, the sum over the methods, into score, and what the heat
   map shows, the larger of the two scales', into map. */
static inline void combine_maps(const detector *d, const float *maps, float *score, float *map)
{
    int cells = d->how.grid * d->how.grid, methods = methods_in_use(&d->how);
    for (int k = 0; k < cells; ++k) {
        double sum = 0;
        for (int i = 0; i < methods; ++i) sum += standard_score(d, maps, i, k);
        map[k] = score[k] = (float)sum;
        if (map_of_scales(&d->how))
            map[k] = (float)fmax(standard_score(d, maps, methods, k),
                                 standard_score(d, maps, methods + 1, k));
    }
}

/* The largest of the cells' scores; NaN if one of them is not finite. */
static inline double map_score(const float *map, int cells)
{
    float most = map[0];
    for (int k = 0; k < cells; ++k) {
        if (!isfinite(map[k])) return (double)NAN;
        if (map[k] > most) most = map[k];
    }
    return (double)most;
}

/* ==== calibration =================================================================================== */

/* fold [n] of each image: groups in random order, dealt in turn */
static inline void deal_folds(const int *group, int n, int groups, int folds, uint64_t seed, int *fold)
{
    vgs_rng r = { seed, 64, 0 };
    int *order = (int *)room_for((size_t)groups, sizeof *order);
    for (int g = 0; g < groups; ++g) {
        int k = (int)vgs_rng_below(&r, (uint32_t)g + 1);
        order[g] = order[k];
        order[k] = g;
    }
    for (int i = 0; i < n; ++i) fold[i] = order[group[i]] % folds;
    free(order);
}

/* Mean and deviation of each layer's scores: maps [n, layers, cells]. */
static inline void measure_scale(detector *d, const float *maps, int n)
{
    size_t cells = (size_t)(d->how.grid * d->how.grid), layers = (size_t)layers_in_use(&d->how);
    double count = (double)n * (double)cells;
    for (size_t m = 0; m < layers; ++m) {
        double sum = 0, square = 0;
        for (int i = 0; i < n; ++i)
            for (size_t k = 0; k < cells; ++k) sum += (double)maps[((size_t)i * layers + m) * cells + k];
        d->mean[m] = sum / count;
        for (int i = 0; i < n; ++i)
            for (size_t k = 0; k < cells; ++k) {
                double v = (double)maps[((size_t)i * layers + m) * cells + k] - d->mean[m];
                square += v * v;
            }
        d->deviation[m] = square > 0 ? sqrt(square / count) : 1;
    }
}

/* The share that can be promised with n good images. */
static inline double least_rate(double wanted, int n) { return fmax(wanted, 1.0 / (n + 1)); }

/* What a new number exceeds with a probability of at most `rate`: the ceil((n+1)(1-rate))-th of n ascending
   ones. */
static inline double conformal_threshold(const double *ascending, int n, double rate)
{
    double k = ceil((n + 1) * (1 - rate) - 1e-9);
    return ascending[(int)(k < 1 ? 1 : k > n ? n : k) - 1];
}

/* p-value of an image's score. */
static inline double p_value(const detector *d, double score)
{
    int lo = 0, hi = d->good;                    /* the first that is >= score */
    while (lo < hi) {
        int middle = (lo + hi) / 2;
        if (d->scores[middle] >= score) hi = middle;
        else lo = middle + 1;
    }
    return (1.0 + d->good - lo) / (d->good + 1.0);
}

/* Whether an image's score is called bad: its p-value is within the promised rate, but for rounding. */
static inline bool is_bad(const detector *d, double p) { return p <= d->rate * (1 + 1e-12); }

/* The largest of each of the maps [n, cells], ascending, into peaks [n]. */
static inline void sorted_peaks(const float *maps, int n, int cells, double *peaks)
{
    for (int i = 0; i < n; ++i) peaks[i] = map_score(maps + (size_t)i * (size_t)cells, cells);
    qsort(peaks, (size_t)n, sizeof *peaks, compare_doubles);
}

/* From scores of the cells and maps of good images, [n, cells] each. */
static inline void calibrate(detector *d, const float *scores, const float *maps, int n)
{
    int cells = d->how.grid * d->how.grid;
    size_t count = (size_t)n * (size_t)cells;
    double *all = (double *)room_for(count, sizeof *all);
    d->good = n;
    free(d->scores);
    d->scores = (double *)room_for((size_t)n, sizeof *d->scores);
    d->rate = least_rate(d->how.false_alarms, n);
    sorted_peaks(maps, n, cells, d->scores);
    d->map_threshold = conformal_threshold(d->scores, n, d->rate);
    sorted_peaks(scores, n, cells, d->scores);
    d->threshold = conformal_threshold(d->scores, n, d->rate);
    for (size_t i = 0; i < count; ++i) all[i] = (double)maps[i];
    qsort(all, count, sizeof *all, compare_doubles);
    for (int k = 0; k < PIXEL_LEVELS; ++k) {
        size_t above = (size_t)((double)count * pow(10.0, -k / 100.0));
        d->pixels[k] = (float)all[above < count ? count - 1 - above : 0];
    }
    free(all);
}

/* Fits models to the images of other folds and scores those of fold f: their maps among maps [st->n, layers,
   cells]. fold [st->n]; below 0: takes no part. use [st->n]: scratch */
static inline vgs_status score_fold(const detector *d, store *st, const int *fold, int f, bool *use,
                                    int threads, float *maps, vgs_error *err)
{
    const settings *s = &d->how;
    size_t stride = (size_t)(s->grid * s->grid * layers_in_use(s));
    float *x = (float *)room_for(st->numbers, sizeof *x);
    models m;
    vgs_status status = models_create(&m, &d->extract, s->rows, threads, err);
    for (int i = 0; i < st->n; ++i) use[i] = fold[i] >= 0 && fold[i] != f;
    if (!status) status = models_fit(&m, &d->extract, st, use, err);
    for (int i = 0; i < st->n && !status; ++i) {
        if (fold[i] != f) continue;
        store_read(st, i, x);
        models_score(&m, &d->extract, x, maps + (size_t)i * stride);
    }
    models_free(&m);
    free(x);
    return status;
}

/* -log10 of the share of good cells that exceed the score, 0..4; beyond all of them 4 */
static inline double heat(const detector *d, double score)
{
    int lo = 0, hi = PIXEL_LEVELS - 1;
    if (score <= (double)d->pixels[0]) return 0;
    if (score > (double)d->pixels[hi]) return 4;
    while (hi - lo > 1) {
        int middle = (lo + hi) / 2;
        if ((double)d->pixels[middle] < score) lo = middle;
        else hi = middle;
    }
    return hi / 100.0;
}

/* ==== scoring ======================================================================================= */

typedef struct verdict { double score, p, ms_resize, ms_features, ms_score; } verdict;

/* map [grid, grid], out. scratch: of detector_scratch */
static inline vgs_status detector_score(detector *d, const image *m, const char *path, float *scratch,
                                        float *map, verdict *v, vgs_error *err)
{
    int cells = d->how.grid * d->how.grid;
    float *score = scratch + extractor_numbers(&d->extract), *maps = score + cells;
    double start;
    if (extractor_run(&d->extract, m, path, scratch, err)) return err->code;
    start = seconds_now();
    models_score(&d->fitted, &d->extract, scratch, maps);
    combine_maps(d, maps, score, map);
    v->score = map_score(score, cells);
    v->p = p_value(d, v->score);
    v->ms_resize = d->extract.ms_resize;
    v->ms_features = d->extract.ms_features;
    v->ms_score = 1e3 * (seconds_now() - start);
    if (isfinite(v->score)) return VGS_OK;
    return image_error(err, VGS_E_NONFINITE, path, "the score is not finite");
}

static inline float *detector_scratch(const detector *d)
{
    size_t cells = (size_t)d->how.grid * (size_t)d->how.grid;
    return (float *)room_for(extractor_numbers(&d->extract) + (MOST_LAYERS + 1) * cells, sizeof(float));
}

/* ==== the file ====================================================================================== */

static inline void detector_free(detector *d)
{
    extractor_free(&d->extract);
    models_free(&d->fitted);
    free(d->scores);
    d->scores = NULL;
}

static inline void write_gaussian(vgs_writer *w, const char *name, const gaussian *g)
{
    uint64_t mean[2] = { (uint64_t)g->cells, (uint64_t)g->channels };
    uint64_t root[2] = { (uint64_t)g->cells, (uint64_t)triangle(g->channels) };
    char key[64];
    uint64_t basis[2] = { (uint64_t)g->channels, (uint64_t)g->from };
    if (!g->mean) return;
    snprintf(key, sizeof key, "%s.basis", name);
    if (g->basis) vgs_writer_tensor(w, key, VGS_DTYPE_F32, 2, basis, g->basis);
    vgs_writer_tensor(w, (snprintf(key, sizeof key, "%s.mean", name), key), VGS_DTYPE_F32, 2, mean, g->mean);
    vgs_writer_tensor(w, (snprintf(key, sizeof key, "%s.root", name), key), VGS_DTYPE_F32, 2, root, g->root);
}

static inline vgs_status detector_save(detector *d, const char *path, vgs_error *err)
{
    const models *m = &d->fitted;
    float *net = NULL, *ebm = NULL;
    uint64_t good = (uint64_t)d->good, levels = PIXEL_LEVELS, layers = (uint64_t)layers_in_use(&d->how);
    uint64_t bank[2] = { (uint64_t)m->bank.rows, (uint64_t)m->bank.channels };
    vgs_writer *w = vgs_writer_create(err);
    vgs_status st = VGS_OK;
    if (!w) return err->code;
    write_gaussian(w, "location", &m->location);
    write_gaussian(w, "mahalanobis", &m->one);
    write_gaussian(w, "map.fine", &m->fine);
    write_gaussian(w, "map.coarse", &m->coarse);
    if (m->bank.bank) vgs_writer_tensor(w, "neighbour.bank", VGS_DTYPE_F32, 2, bank, m->bank.bank);
    vgs_writer_tensor(w, "calibration.scores", VGS_DTYPE_F64, 1, &good, d->scores);
    vgs_writer_tensor(w, "calibration.pixels", VGS_DTYPE_F32, 1, &levels, d->pixels);
    vgs_writer_tensor(w, "calibration.mean", VGS_DTYPE_F64, 1, &layers, d->mean);
    vgs_writer_tensor(w, "calibration.deviation", VGS_DTYPE_F64, 1, &layers, d->deviation);
    vgs_writer_meta(w, "detector", "1");
    for (int i = 0; i < SETTINGS; ++i) {
        char text[64];
        vgs_writer_meta(w, setting_list[i].name, setting_text(&d->how, setting_list + i, text));
    }
    vgs_writer_meta(w, "extractor", d->extract.net.graph ? "network" : "bank 1");
    if (d->weights[0]) vgs_writer_meta(w, "net.source", d->weights);
    vgs_writer_number(w, "rate", d->rate);
    vgs_writer_number(w, "threshold", d->threshold);
    vgs_writer_number(w, "map_threshold", d->map_threshold);
    if (d->extract.net.graph) {
        net = (float *)room_for((size_t)vgs_model_size(d->extract.net.weights), sizeof *net);
        st = network_write(&d->extract.net, w, net, err);
    }
    if (!st && m->ebm.model) {
        ebm = (float *)room_for((size_t)vgs_model_size(m->ebm.model), sizeof *ebm);
        st = energy_write(&m->ebm, w, ebm, err);
    }
    if (!st) st = vgs_writer_save(w, path, err);
    vgs_writer_free(w);
    free(net);
    free(ebm);
    return st;
}

static inline vgs_status read_gaussian(const vgs_safetensors *f, const char *name, gaussian *g,
                                       vgs_error *err)
{
    char key[64];
    vgs_status st = VGS_OK;
    snprintf(key, sizeof key, "%s.basis", name);
    if (g->basis) st = vgs_safetensors_floats(f, key, g->basis, (size_t)g->channels * (size_t)g->from, err);
    snprintf(key, sizeof key, "%s.mean", name);
    if (!st) st = vgs_safetensors_floats(f, key, g->mean, (size_t)g->cells * (size_t)g->channels, err);
    snprintf(key, sizeof key, "%s.root", name);
    return st ? st : vgs_safetensors_floats(f, key, g->root, (size_t)g->cells * triangle(g->channels), err);
}

static inline vgs_status read_settings(const vgs_safetensors *f, const char *path, settings *s,
                                       vgs_error *err)
{
    const char *version = vgs_safetensors_meta(f, "detector");
    char text[160];
    if (!version) return image_error(err, VGS_E_FORMAT, path, "not a detector of this program");
    if (strcmp(version, "1")) {
        snprintf(text, sizeof text, "a detector of version %.20s; this program reads version 1", version);
        return image_error(err, VGS_E_FORMAT, path, text);
    }
    *s = settings_initial();
    if (!vgs_safetensors_meta(f, "map")) strcpy(s->map, "score");    /* a file from before it            */
    for (int i = 0; i < SETTINGS; ++i) {
        const char *value = vgs_safetensors_meta(f, setting_list[i].name);
        if (value && setting_set(s, setting_list + i, value)) continue;
        if (!value && !strcmp(setting_list[i].name, "level")) continue;      /* a file from before it    */
        if (!value && !strncmp(setting_list[i].name, "map", 3)) continue;
        snprintf(text, sizeof text, "%s = %.40s", setting_list[i].name, value ? value : "missing");
        return image_error(err, VGS_E_FORMAT, path, text);
    }
    return s->size ? VGS_OK : image_error(err, VGS_E_FORMAT, path, "size = 0");
}

static inline vgs_status read_calibration(const vgs_safetensors *f, const char *path, detector *d,
                                          vgs_error *err)
{
    const vgs_file_tensor *t = vgs_safetensors_find(f, "calibration.scores");
    size_t layers = (size_t)layers_in_use(&d->how);
    vgs_status st;
    if (!t || t->count < 1 || t->count > INT_MAX) return image_error(err, VGS_E_FORMAT, path,
        "no calibration.scores");
    d->good = (int)t->count;
    d->scores = (double *)room_for(t->count, sizeof *d->scores);
    st = vgs_safetensors_doubles(f, "calibration.scores", d->scores, t->count, err);
    if (!st) st = vgs_safetensors_floats(f, "calibration.pixels", d->pixels, PIXEL_LEVELS, err);
    if (!st) st = vgs_safetensors_doubles(f, "calibration.mean", d->mean, layers, err);
    if (!st) st = vgs_safetensors_doubles(f, "calibration.deviation", d->deviation, layers, err);
    if (!st) st = vgs_safetensors_number(f, "rate", &d->rate, err);
    if (!st) st = vgs_safetensors_number(f, "threshold", &d->threshold, err);
    d->map_threshold = d->threshold;
    if (st || (!map_of_scales(&d->how) && !vgs_safetensors_meta(f, "map_threshold"))) return st;
    return vgs_safetensors_number(f, "map_threshold", &d->map_threshold, err);
}

/* d must stay where it is. */
static inline vgs_status detector_load(detector *d, const char *path, int threads, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    const vgs_file_tensor *bank = f ? vgs_safetensors_find(f, "neighbour.bank") : NULL;
    vgs_status st;
    *d = (detector){ .good = 0 };
    if (!f) return err->code;
    st = read_settings(f, path, &d->how, err);
    if (!st) {
        const char *kind = vgs_safetensors_meta(f, "extractor"), *source = vgs_safetensors_meta(f,
            "net.source");
        bool net = kind && !strcmp(kind, "network");
        snprintf(d->weights, sizeof d->weights, "%s", source ? source : "");
        st = extractor_create(&d->extract, &d->how, NULL, net ? f : NULL, threads, err);
    }
    if (!st) st = models_create(&d->fitted, &d->extract, bank && bank->ndim ? (int)bank->shape[0] : 1,
                                threads, err);
    if (!st && d->how.method & ENERGY) st = energy_read(&d->fitted.ebm, f, err);
    if (!st && d->how.method & LOCATION) st = read_gaussian(f, "location", &d->fitted.location, err);
    if (!st && d->how.method & MAHALANOBIS) st = read_gaussian(f, "mahalanobis", &d->fitted.one, err);
    if (!st && map_of_scales(&d->how)) st = read_gaussian(f, "map.fine", &d->fitted.fine, err);
    if (!st && map_of_scales(&d->how)) st = read_gaussian(f, "map.coarse", &d->fitted.coarse, err);
    if (!st && d->how.method & NEIGHBOUR) {
        neighbour *b = &d->fitted.bank;
        st = vgs_safetensors_floats(f, "neighbour.bank", b->bank, (size_t)b->rows * (size_t)b->channels, err);
        neighbour_squares(b);
    }
    if (!st) st = read_calibration(f, path, d, err);
    vgs_safetensors_free(f);
    if (st) detector_free(d);
    return st;
}

#endif /* DETECTOR_H */
