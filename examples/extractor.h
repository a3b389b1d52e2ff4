/* extractor.h - from an image to the features of each cell: resize, then filters or a network; and what of
   them the models see. Include it after view.h, image.h, features.h and efficientnet.h. */
#ifndef EXTRACTOR_H
#define EXTRACTOR_H

typedef struct extractor {
    const settings *how;
    int channels;
    view score, fine, coarse;                    /* of the image's score, of the two scales of its map   */
    network net;             /* net.graph NULL: the bank of filters                                      */
    unsigned char *pixels;   /* [size, size, 3]                                                          */
    float *seen;             /* [grid, grid, channels], scratch of a view                                */
    double ms_resize, ms_features;               /* of the last image                                    */
} extractor;

static inline void extractor_free(extractor *e)
{
    network_free(&e->net);
    free(e->pixels);
    free(e->seen);
    e->pixels = NULL;
    e->seen = NULL;
}

/* Of the outputs of these blocks, or of all channels of the filters. */
static inline view extractor_view(const extractor *e, const net_blocks *b, int pool, bool unit)
{
    const net_plan *p = &e->net.plan;
    view v = { .grid = e->how->grid, .from = e->channels, .pool = pool, .unit = unit };
    int at = 0;
    if (!e->net.graph) view_add(&v, 0, e->channels);
    for (int i = 0; i < p->n_used && e->net.graph; at += p->block[p->used[i++]].out)
        if (net_has(b, p->used[i])) view_add(&v, at, p->block[p->used[i]].out);
    return v;
}

/* Of a network's file, or of a detector's (file), or, both NULL, the bank of filters. */
static inline vgs_status extractor_create(extractor *e, const settings *how, const char *weights,
                                          const vgs_safetensors *file, int threads, vgs_error *err)
{
    size_t cells = (size_t)how->grid * (size_t)how->grid, side = (size_t)how->size;
    *e = (extractor){ .how = how, .channels = BANK_CHANNELS };
    if (weights && network_open(&e->net, weights, how, threads, err)) return err->code;
    if (file && network_load(&e->net, file, how, threads, err)) return err->code;
    if (e->net.graph) e->channels = net_features(&e->net.plan);
    e->pixels = (unsigned char *)room_for(side * side * 3, 1);
    e->seen = (float *)room_for(cells * (size_t)e->channels, sizeof *e->seen);
    e->score = extractor_view(e, &e->net.plan.score, how->pool, how->unit);
    e->fine = extractor_view(e, &e->net.plan.map, 1, false);
    e->coarse = extractor_view(e, &e->net.plan.map, map_coarse(how), false);
    return VGS_OK;
}

static inline size_t extractor_numbers(const extractor *e)
{
    return (size_t)e->how->grid * (size_t)e->how->grid * (size_t)e->channels;
}

static inline vgs_status finite_cells(const float *x, int grid, int channels, const char *path,
                                      vgs_error *err)
{
    for (int k = 0; k < grid * grid * channels; ++k) {
        if (isfinite(x[k])) continue;
        err->code = VGS_E_NONFINITE;
        snprintf(err->msg, sizeof err->msg, "%.150s: channel %d of cell %d, %d is %g", path, k % channels,
                 k / channels / grid, k / channels % grid, (double)x[k]);
        return err->code;
    }
    return VGS_OK;
}

/* Raw features [grid, grid, channels] of an image into x. One whose length is asked for, and is 0, is an
   error. path: for messages. */
static inline vgs_status extractor_run(extractor *e, const image *m, const char *path, float *x,
                                       vgs_error *err)
{
    const settings *s = e->how;
    double start = seconds_now(), resized;
    if (!image_resize(m, s->size, s->size, e->pixels)) return image_error(err, VGS_E_NOMEM, path,
        "out of memory");
    resized = seconds_now();
    if (e->net.graph) {
        if (network_run(&e->net, e->pixels, x, err)) return err->code;
    } else if (!bank_features(e->pixels, s->size, s->grid, x))
        return image_error(err, VGS_E_NOMEM, path, "out of memory");
    if (finite_cells(x, s->grid, e->channels, path, err) ||
        view_make(&e->score, x, path, e->seen, err)) return err->code;
    e->ms_resize = 1e3 * (resized - start);
    e->ms_features = 1e3 * (seconds_now() - resized);
    return VGS_OK;
}

#endif /* EXTRACTOR_H */
