/* view.h - what a model sees of an image's features: some of the channels, averaged over neighbours, of
   length 1. Include it after settings.h. */
#ifndef VIEW_H
#define VIEW_H

enum { VIEW_RANGES = 16 };

typedef struct view {
    int  grid, from;         /* features [grid, grid, from] of an image                                  */
    int  channels;           /* that are seen of these                                                   */
    int  n, first[VIEW_RANGES], count[VIEW_RANGES];          /* they are these ranges, one after the other */
    int  pool;               /* averaged over pool x pool cells                                          */
    bool unit;               /* divided by their length                                                  */
} view;

static inline void view_add(view *v, int first, int count)
{
    v->first[v->n] = first;
    v->count[v->n++] = count;
    v->channels += count;
}

/* In eight partial sums, which compilers turn into vectors */
static inline float dot(const float *a, const float *b, int n)
{
    float s[8] = { 0 }, rest = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8) for (int k = 0; k < 8; ++k) s[k] += a[i + k] * b[i + k];
    for (; i < n; ++i) rest += a[i] * b[i];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])) + rest;
}

/* y += x, in parts that compilers turn into vectors */
static inline void floats_add(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) for (int k = 0; k < 8; ++k) y[i + k] += x[i + k];
    for (; i < n; ++i) y[i] += x[i];
}

/* out[k] = the mean of the cells k - r..k + r of a row of `grid` that there are; cells are `step` floats
   apart. */
static inline void pool_line(const float *x, int grid, size_t step, int channels, int r, float *out)
{
    for (int k = 0; k < grid; ++k) {
        int from = k > r ? k - r : 0, to = k + r < grid ? k + r : grid - 1;
        float *y = out + (size_t)k * step;
        memset(y, 0, (size_t)channels * sizeof *y);
        for (int j = from; j <= to; ++j) floats_add(y, x + (size_t)j * step, channels);
        for (int i = 0; i < channels; ++i) y[i] /= (float)(to - from + 1);
    }
}

/* x [grid, grid, channels] becomes the mean over `side` x `side` cells around each; at the border over those
   that there are: along the rows, then along the columns. */
static inline void pool_cells(float *x, int grid, int channels, int side)
{
    size_t row = (size_t)grid * (size_t)channels;
    float *rows = (float *)room_for((size_t)grid * row, sizeof *rows);
    for (int k = 0; k < grid; ++k)
        pool_line(x + (size_t)k * row, grid, (size_t)channels, channels, side / 2, rows + (size_t)k * row);
    for (int k = 0; k < grid; ++k)
        pool_line(rows + (size_t)k * (size_t)channels, grid, row, channels, side / 2,
                  x + (size_t)k * (size_t)channels);
    free(rows);
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

/* What is seen of the features x [grid, grid, from], into out [grid, grid, channels]. path: for messages. */
static inline vgs_status view_make(const view *v, const float *x, const char *path, float *out,
                                   vgs_error *err)
{
    float *to = out;
    for (int k = 0; k < v->grid * v->grid; ++k, x += v->from)
        for (int i = 0; i < v->n; to += v->count[i++])
            memcpy(to, x + v->first[i], (size_t)v->count[i] * sizeof *to);
    if (v->pool > 1) pool_cells(out, v->grid, v->channels, v->pool);
    return v->unit ? unit_cells(out, v->grid, v->channels, path, err) : VGS_OK;
}

#endif /* VIEW_H */
