/* extractor.h - from an image to the features of each cell: resize, filters or a network, neighbourhood,
   length. Include it after image.h, features.h and efficientnet.h. */
#ifndef EXTRACTOR_H
#define EXTRACTOR_H

typedef struct extractor {
    const settings *how;
    int channels;
    network net;             /* net.graph NULL: the bank of filters                                      */
    unsigned char *pixels;   /* [size, size, 3]                                                          */
    float *raw;              /* [grid, grid, channels]                                                   */
    double ms_resize, ms_features;               /* of the last image                                    */
} extractor;

static inline void extractor_free(extractor *e)
{
    network_free(&e->net);
    free(e->pixels);
    free(e->raw);
    e->pixels = NULL;
    e->raw = NULL;
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
    e->raw = (float *)room_for(cells * (size_t)e->channels, sizeof *e->raw);
    return VGS_OK;
}

static inline size_t extractor_numbers(const extractor *e)
{
    return (size_t)e->how->grid * (size_t)e->how->grid * (size_t)e->channels;
}

/* to = the mean of x over `side` x `side` cells around each; at the border over those that there are.
   x, to: [grid, grid, channels] */
static inline void pool_cells(const float *x, int grid, int channels, int side, float *to)
{
    int r = side / 2;
    memset(to, 0, (size_t)(grid * grid) * (size_t)channels * sizeof *to);
    for (int k = 0; k < grid * grid; ++k) {
        float *out = to + (size_t)k * (size_t)channels, count = 0;
        for (int v = k / grid - r; v <= k / grid + r; ++v)
            for (int u = k % grid - r; u <= k % grid + r; ++u) {
                if (v < 0 || v >= grid || u < 0 || u >= grid) continue;
                const float *in = x + (size_t)(v * grid + u) * (size_t)channels;
                count += 1;
                for (int i = 0; i < channels; ++i) out[i] += in[i];
            }
        for (int i = 0; i < channels; ++i) out[i] /= count;
    }
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

/* x [grid, grid, channels]: each cell divided by its length */
static inline vgs_status unit_cells(float *x, int grid, int channels, const char *path, vgs_error *err)
{
    for (int k = 0; k < grid * grid; ++k, x += channels) {
        float length = sqrtf(dot(x, x, channels));
        if (!(length > 0 && length < FLT_MAX)) {
            err->code = VGS_E_NONFINITE;
            snprintf(err->msg, sizeof err->msg, "%.150s: the feature of cell %d, %d has length %g", path,
                     k / grid, k % grid, (double)length);
            return err->code;
        }
        for (int i = 0; i < channels; ++i) x[i] /= length;
    }
    return VGS_OK;
}

/* Features [grid, grid, channels] of an image into x. path: for messages. */
static inline vgs_status extractor_run(extractor *e, const image *m, const char *path, float *x,
                                       vgs_error *err)
{
    const settings *s = e->how;
    double start = seconds_now(), resized;
    if (!image_resize(m, s->size, s->size, e->pixels)) return image_error(err, VGS_E_NOMEM, path,
        "out of memory");
    resized = seconds_now();
    if (e->net.graph) {
        if (network_run(&e->net, e->pixels, e->raw, err)) return err->code;
    } else if (!bank_features(e->pixels, s->size, s->grid, e->raw))
        return image_error(err, VGS_E_NOMEM, path, "out of memory");
    if (s->pool > 1) pool_cells(e->raw, s->grid, e->channels, s->pool, x);
    else memcpy(x, e->raw, extractor_numbers(e) * sizeof *x);
    if (finite_cells(x, s->grid, e->channels, path, err)) return err->code;
    if (s->unit && unit_cells(x, s->grid, e->channels, path, err)) return err->code;
    e->ms_resize = 1e3 * (resized - start);
    e->ms_features = 1e3 * (seconds_now() - resized);
    return VGS_OK;
}

#endif /* EXTRACTOR_H */
