/* judge.h - figures of a detector on test images: of images, of pixels, and of regions; a class at a time.
   Include it after detector.h, folder.h, roc.h and json.h.

   average_precision is of pixels. f1_best is of images, at the best of all thresholds: optimistic, for it
   has seen the answers. lost_masks are regions of the masks that have no pixel left at the size of the
   evaluation. */
#ifndef JUDGE_H
#define JUDGE_H

typedef struct result { double image_auroc, pixel_auroc, aupro_30, aupro_5, average_precision, f1_best,
    false_alarm_rate, detection_rate; int n_good, n_bad, lost_masks, regions; } result;

typedef struct figure { const char *name; size_t at; bool count; } figure;
static const figure figures[] = {
#define FIGURE(name, count) { #name, offsetof(result, name), count },
    FIGURE(image_auroc, false) FIGURE(pixel_auroc, false) FIGURE(aupro_30, false) FIGURE(aupro_5, false)
    FIGURE(average_precision, false) FIGURE(f1_best, false) FIGURE(false_alarm_rate, false)
    FIGURE(detection_rate, false) FIGURE(n_good, true) FIGURE(n_bad, true) FIGURE(lost_masks, true)
#undef FIGURE
};
enum { FIGURES = (int)(sizeof figures / sizeof *figures) };

typedef struct evaluated {
    photos all;
    float *maps;             /* [n, cells]                                                               */
    double *score;           /* [n]; NaN: could not be read                                              */
    double *p;
} evaluated;

/* The mask of a photo at size x size, NULL if there is none; its lost regions are added to *lost. */
static inline unsigned char *read_mask(const photo *p, int size, int *lost, vgs_error *err)
{
    image m, photo_itself;
    unsigned char *out = NULL;
    err->code = VGS_OK;
    if (!p->mask || image_read(p->mask, 1, &m, err)) return NULL;
    if (!image_read(p->path, 1, &photo_itself, err)) {
        if (m.width != photo_itself.width || m.height != photo_itself.height) {
            err->code = VGS_E_SHAPE;
            snprintf(err->msg, sizeof err->msg, "%.150s: a mask of %d x %d, for an image of %d x %d", p->mask,
                     m.width, m.height, photo_itself.width, photo_itself.height);
        } else {
            out = (unsigned char *)room_for((size_t)size * (size_t)size, 1);
            image_nearest(&m, size, size, out);
            *lost += lost_regions(m.data, m.width, m.height, size);
        }
        image_free(&photo_itself);
    }
    image_free(&m);
    return out;
}

/* Pixel figures of the photos of one class, or of all (which < 0), and, unless NULL, what they come from. A
   bad image without a mask is left out. Returns the number of masks that cannot be used. */
static inline int pixel_figures(const evaluated *e, const detector *d, int which, result *r, pixel_bins *out)
{
    int cells = d->how.grid * d->how.grid, wrong = 0;
    pixel_bins b = pixel_bins_create(e->maps, (size_t)e->all.n * (size_t)cells);
    vgs_error err;
    for (int i = 0; i < e->all.n; ++i) {
        const photo *p = e->all.at + i;
        unsigned char *mask = NULL;
        if ((which >= 0 && p->class_index != which) || isnan(e->score[i])) continue;
        if (p->bad && !p->mask) continue;
        mask = read_mask(p, d->how.size, &r->lost_masks, &err);
        if (p->bad && !mask) say("%s", err.msg), ++wrong;
        else r->regions += pixel_bins_add(&b, e->maps + (size_t)i * (size_t)cells, d->how.grid, mask,
                                          d->how.size);
        free(mask);
    }
    r->pixel_auroc = roc_area(b.roc.good, b.roc.bad, b.roc.n);
    r->aupro_30 = partial_area(b.roc.good, b.roc.region, b.roc.n, 0.3);
    r->aupro_5 = partial_area(b.roc.good, b.roc.region, b.roc.n, 0.05);
    r->average_precision = average_precision(b.roc.good, b.roc.bad, b.roc.n);
    if (out) *out = b;
    else pixel_bins_free(&b);
    return wrong;
}

static inline void image_figures(const evaluated *e, const detector *d, int which, result *r)
{
    scored *s = (scored *)room_for((size_t)e->all.n, sizeof *s);
    int n = 0, alarms = 0, found = 0;
    roc_bins b;
    for (int i = 0; i < e->all.n; ++i) {
        const photo *p = e->all.at + i;
        bool called = is_bad(d, e->p[i]);
        if ((which >= 0 && p->class_index != which) || isnan(e->score[i])) continue;
        s[n++] = (scored){ e->score[i], p->bad };
        if (p->bad) ++r->n_bad, found += called;
        else ++r->n_good, alarms += called;
    }
    b = roc_of_images(s, n);
    r->image_auroc = roc_area(b.good, b.bad, b.n);
    r->f1_best = best_f1(b.good, b.bad, b.n);
    r->false_alarm_rate = r->n_good ? (double)alarms / r->n_good : (double)NAN;
    r->detection_rate = r->n_bad ? (double)found / r->n_bad : (double)NAN;
    roc_free(&b);
    free(s);
}

/* Means over the classes; counts are summed. */
static inline result mean_result(const result *r, int n)
{
    result mean = { 0 };
    for (int k = 0; k < FIGURES; ++k) {
        double sum = 0;
        int count = 0;
        for (int i = 0; i < n; ++i) {
            const char *at = (const char *)(r + i) + figures[k].at;
            double v = figures[k].count ? *(const int *)(const void *)at : *(const double *)(const void *)at;
            if (!isnan(v)) sum += v, ++count;
        }
        if (figures[k].count) *(int *)(void *)((char *)&mean + figures[k].at) = (int)sum;
        else *(double *)(void *)((char *)&mean + figures[k].at) = count ? sum / count : (double)NAN;
    }
    return mean;
}

static inline void json_result(json *j, const char *key, const result *r)
{
    json_open(j, key, '{');
    for (int k = 0; k < FIGURES; ++k) {
        const char *at = (const char *)r + figures[k].at;
        if (figures[k].count) json_i64(j, figures[k].name, *(const int *)(const void *)at);
        else json_double(j, figures[k].name, *(const double *)(const void *)at);
    }
    json_close(j, '}');
}

#endif /* JUDGE_H */
