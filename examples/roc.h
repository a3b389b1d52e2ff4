/* roc.h - how well scores tell bad from good: ROC of images and of pixels, PRO of regions, precision, F1.
   Include it after common.h. Scores are ranked as they are; ties count half.

   PRO at a threshold is the mean over all regions (8-connected) of the share of their pixels above it. With
   the weight 1/(regions x pixels of the region) for each bad pixel it is the weighted share of bad pixels,
   and one histogram gives the curve. */
#ifndef ROC_H
#define ROC_H

/* One threshold's worth of good and bad weight, in descending order of scores: points of all curves. */
typedef struct roc_bins { int n; double *good, *bad, *region; } roc_bins;

static inline double sum_of(const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += x[i];
    return sum;
}

/* Area under the ROC, of bins in descending order. NaN if one kind is missing. */
static inline double roc_area(const double *good, const double *bad, int n)
{
    double g = 0, b = 0, area = 0;
    for (int i = 0; i < n; ++i) {
        area += good[i] * (b + 0.5 * bad[i]);
        g += good[i];
        b += bad[i];
    }
    return g > 0 && b > 0 ? area / (g * b) : (double)NAN;
}

/* Area under the share of `bad` over that of `good` from 0 to `limit`, divided by limit. */
static inline double partial_area(const double *good, const double *bad, int n, double limit)
{
    double g = sum_of(good, n), b = sum_of(bad, n), x = 0, y = 0, area = 0;
    if (!(g > 0 && b > 0)) return (double)NAN;
    for (int i = 0; i < n && x < limit; ++i) {
        double dx = good[i] / g, dy = bad[i] / b;
        if (x + dx > limit) dy *= (limit - x) / dx, dx = limit - x;
        area += dx * (y + 0.5 * dy);
        x += dx;
        y += dy;
    }
    return area / limit;
}

/* The sum over thresholds of precision times the gain in recall. */
static inline double average_precision(const double *good, const double *bad, int n)
{
    double g = 0, b = 0, all = sum_of(bad, n), sum = 0;
    for (int i = 0; i < n; ++i) {
        g += good[i];
        b += bad[i];
        if (bad[i] > 0) sum += bad[i] / all * b / (g + b);
    }
    return all > 0 ? sum : (double)NAN;
}

/* The largest F1 of all thresholds: optimistic, for it has seen the answers. */
static inline double best_f1(const double *good, const double *bad, int n)
{
    double g = 0, b = 0, all = sum_of(bad, n), best = 0;
    for (int i = 0; i < n; ++i) {
        g += good[i];
        b += bad[i];
        if (2 * b / (g + b + all) > best) best = 2 * b / (g + b + all);
    }
    return all > 0 ? best : (double)NAN;
}

/* ==== images ======================================================================================== */

typedef struct scored { double score; bool bad; } scored;

static inline int compare_scored(const void *a, const void *b)
{
    double x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x < y) - (x > y);
}

static inline roc_bins roc_create(int n)
{
    roc_bins r = { n, NULL, NULL, NULL };
    r.good = (double *)room_for(3 * (size_t)n + 1, sizeof *r.good);
    r.bad = r.good + n;
    r.region = r.bad + n;
    return r;
}

static inline void roc_free(roc_bins *r)
{
    free(r->good);
    r->good = NULL;
}

/* A bin for each distinct score. Sorts s. */
static inline roc_bins roc_of_images(scored *s, int n)
{
    roc_bins r = roc_create(n);
    int at = -1;
    qsort(s, (size_t)n, sizeof *s, compare_scored);
    for (int i = 0; i < n; ++i) {
        if (!i || s[i].score < s[i - 1].score) ++at;
        r.good[at] += !s[i].bad;
        r.bad[at] += s[i].bad;
    }
    r.n = at + 1;
    return r;
}

/* ==== pixels ======================================================================================== */

/* Bins between the sorted scores of cells, which pixels are interpolated from: as fine as scores are
   dense. */
enum { SUBDIVIDE = 8 };
typedef struct pixel_bins { int n; double *edge; roc_bins roc; } pixel_bins;

/* maps [n]: of all images; what is not finite is of images without a score, and left out. */
static inline pixel_bins pixel_bins_create(const float *maps, size_t n)
{
    pixel_bins b = { 0, (double *)room_for(n, sizeof(double)), { 0 } };
    size_t m = 0;
    for (size_t i = 0; i < n; ++i) if (isfinite(maps[i])) b.edge[m++] = (double)maps[i];
    qsort(b.edge, m, sizeof *b.edge, compare_doubles);
    for (size_t i = 0; i < m; ++i) if (!i || b.edge[i] > b.edge[b.n - 1]) b.edge[b.n++] = b.edge[i];
    b.roc = roc_create(b.n * SUBDIVIDE);
    return b;
}

static inline void pixel_bins_free(pixel_bins *b)
{
    free(b->edge);
    roc_free(&b->roc);
}

/* 0 is the bin of the highest scores. */
static inline int pixel_bin(const pixel_bins *b, double score)
{
    int lo = 0, hi = b->n - 1, part;             /* edge[lo] <= score < edge[hi] */
    if (score >= b->edge[hi]) return 0;
    if (score < b->edge[0]) return b->roc.n - 1;
    while (hi - lo > 1) {
        int middle = (lo + hi) / 2;
        if (b->edge[middle] <= score) lo = middle;
        else hi = middle;
    }
    part = (int)(SUBDIVIDE * (score - b->edge[lo]) / (b->edge[hi] - b->edge[lo]));
    return b->roc.n - 1 - (lo * SUBDIVIDE + (part < SUBDIVIDE ? part : SUBDIVIDE - 1));
}

/* Regions of mask [h, w], 8-connected: label [h, w] from 1, 0 outside; returns their number. */
static inline int label_regions(const unsigned char *mask, int w, int h, int *label)
{
    int *stack = (int *)room_for((size_t)w * (size_t)h, sizeof *stack), count = 0;
    memset(label, 0, (size_t)w * (size_t)h * sizeof *label);
    for (int start = 0; start < w * h; ++start) {
        int depth = 0;
        if (mask[start] < 128 || label[start]) continue;
        label[start] = ++count;
        stack[depth++] = start;
        while (depth) {
            int at = stack[--depth];
            for (int k = 0; k < 9; ++k) {
                int x = at % w + k % 3 - 1, y = at / w + k / 3 - 1, q = y * w + x;
                if (x < 0 || x >= w || y < 0 || y >= h || mask[q] < 128 || label[q]) continue;
                label[q] = count;
                stack[depth++] = q;
            }
        }
    }
    free(stack);
    return count;
}

/* map [grid, grid] at pixel (x, y) of size x size, bilinear, corners not aligned */
static inline double map_at(const float *map, int grid, int x, int y, int width, int height)
{
    double u = (x + 0.5) * grid / width - 0.5, v = (y + 0.5) * grid / height - 0.5;
    int x0, y0, x1, y1;
    if (u < 0) u = 0;
    if (v < 0) v = 0;
    x0 = (int)u, y0 = (int)v;
    if (x0 > grid - 1) x0 = grid - 1;
    if (y0 > grid - 1) y0 = grid - 1;
    x1 = x0 + 1 < grid ? x0 + 1 : x0, y1 = y0 + 1 < grid ? y0 + 1 : y0;
    u -= x0, v -= y0;
    return (1 - v) * ((1 - u) * (double)map[y0 * grid + x0] + u * (double)map[y0 * grid + x1]) +
        v * ((1 - u) * (double)map[y1 * grid + x0] + u * (double)map[y1 * grid + x1]);
}

/* Counts an image's pixels. mask [size, size], or NULL: all are good. Returns the number of its regions. */
static inline int pixel_bins_add(pixel_bins *b, const float *map, int grid, const unsigned char *mask,
                                 int size)
{
    int pixels = size * size, regions = 0;
    int *label = mask ? (int *)room_for((size_t)pixels, sizeof *label) : NULL, *area = NULL;
    if (mask) {
        regions = label_regions(mask, size, size, label);
        area = (int *)room_for((size_t)regions + 1, sizeof *area);
        for (int i = 0; i < pixels; ++i) ++area[label[i]];
    }
    for (int i = 0; i < pixels; ++i) {
        int bin = pixel_bin(b, map_at(map, grid, i % size, i / size, size, size));
        if (!mask || !label[i]) b->roc.good[bin] += 1;
        else {
            b->roc.bad[bin] += 1;
            b->roc.region[bin] += 1.0 / area[label[i]];
        }
    }
    free(label);
    free(area);
    return regions;
}

/* Regions of a mask of which NEAREST at size x size keeps no pixel */
static inline int lost_regions(const unsigned char *mask, int w, int h, int size)
{
    int *label = (int *)room_for((size_t)w * (size_t)h, sizeof *label), count, lost = 0;
    bool *seen;
    count = label_regions(mask, w, h, label);
    seen = (bool *)room_for((size_t)count + 1, sizeof *seen);
    for (int y = 0; y < size; ++y)
        for (int x = 0; x < size; ++x)
            seen[label[(int)((y + 0.5) * h / size) * w + (int)((x + 0.5) * w / size)]] = true;
    for (int k = 1; k <= count; ++k) lost += !seen[k];
    free(label);
    free(seen);
    return lost;
}

#endif /* ROC_H */
