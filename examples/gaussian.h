/* gaussian.h - how far a feature lies from the good ones, in standard deviations: the Mahalanobis distance to
   one Gaussian for all cells, or to one for each cell, fitted on it and its neighbours. Include it after
   store.h. */
#ifndef GAUSSIAN_H
#define GAUSSIAN_H

enum { MOST_CHANNELS = 4096 };                   /* eight blocks of EfficientNet-B7 have as many         */

typedef struct gaussian {
    int from;                /* channels of a feature                                                    */
    float *basis;            /* NULL: channels = from; or [channels, from]: the directions in which good */
                             /* features vary most, where alone distances are measured                   */
    int cells, channels;     /* cells: 1, or one of each cell of the grid                                */
    float *mean;             /* [cells, channels]                                                        */
    float *root;             /* [cells, channels (channels + 1)/2]: R = L^-1, S = L L^T, rows of the     */
                             /* lower triangle; the distance is |R (x - mean)|                           */
} gaussian;

static inline size_t triangle(int n) { return (size_t)n * (size_t)(n + 1) / 2; }

/* dims: 0, or channels that a basis leaves. */
static inline gaussian gaussian_create(int cells, int from, int dims)
{
    gaussian g = { .from = from, .cells = cells, .channels = dims && dims < from ? dims : from };
    if (g.channels < from) g.basis = (float *)room_for((size_t)g.channels * (size_t)from, sizeof *g.basis);
    g.mean = (float *)room_for((size_t)cells * (size_t)g.channels, sizeof *g.mean);
    g.root = (float *)room_for((size_t)cells * triangle(g.channels), sizeof *g.root);
    return g;
}

static inline void gaussian_free(gaussian *g)
{
    free(g->basis);
    free(g->mean);
    free(g->root);
    g->basis = g->mean = g->root = NULL;
}

/* Sums of rows x and of their products x x^T, x less `origin`, so that little is lost when means are taken
   off */
typedef struct moments { double count; double *sum, *product; } moments;

static inline void moments_add(moments *m, const float *x, const float *origin, int channels)
{
    double *p = m->product, d[MOST_CHANNELS];
    m->count += 1;
    for (int i = 0; i < channels; ++i) {
        double v = d[i] = (double)(x[i] - origin[i]);
        m->sum[i] += v;
        for (int j = 0; j <= i; ++j) p[j] += v * d[j];
        p += i + 1;
    }
}

/* s [n,n], lower triangle: its inverse Cholesky factor in place. False: not positive. */
static inline bool inverse_root(double *s, int n)
{
    for (int i = 0; i < n; ++i)
        for (int j = 0; j <= i; ++j) {
            double v = s[i * n + j];
            for (int k = 0; k < j; ++k) v -= s[i * n + k] * s[j * n + k];
            if (i == j && !(v > 0)) return false;
            s[i * n + j] = i == j ? sqrt(v) : v / s[j * n + j];
        }
    for (int i = 0; i < n; ++i)                                      /* L R = 1, row by row            */
        for (int j = 0; j <= i; ++j) {
            double v = i == j;
            for (int k = j; k < i; ++k) v -= s[i * n + k] * s[k * n + j];
            s[i * n + j] = v / s[i * n + i];
        }
    return true;
}

/* Adds the moments m, of neighbours, to the scratch: sum [C], product [C,C] lower. */
static inline void moments_gather(const moments *m, int channels, double *count, double *sum, double *product)
{
    const double *p = m->product;
    *count += m->count;
    for (int i = 0; i < channels; ++i) {
        sum[i] += m->sum[i];
        for (int j = 0; j <= i; ++j) product[i * channels + j] += *p++;
    }
}

/* Mean and root of cell `at` from gathered sums; ridge: of the mean variance, added to each. */
static inline bool gaussian_solve(gaussian *g, int at, double count, double *sum, double *product,
                                  const float *origin, double ridge)
{
    int c = g->channels;
    double variance = 0;
    float *root = g->root + (size_t)at * triangle(c);
    for (int i = 0; i < c; ++i) sum[i] /= count;
    for (int i = 0; i < c; ++i) {
        g->mean[(size_t)at * (size_t)c + (size_t)i] = (float)(sum[i] + (double)origin[i]);
        for (int j = 0; j <= i; ++j) product[i * c + j] = product[i * c + j] / count - sum[i] * sum[j];
        variance += product[i * c + i] / c;
    }
    for (int i = 0; i < c; ++i) product[i * c + i] += ridge * variance + 1e-12;
    if (!inverse_root(product, c)) return false;
    for (int i = 0; i < c; ++i) for (int j = 0; j <= i; ++j) *root++ = (float)product[i * c + j];
    return true;
}

/* The rows of q [n, c] made orthonormal, one after the other, twice for the digits. */
static inline void orthonormal(double *q, int n, int c)
{
    for (int i = 0; i < n; ++i)
        for (int twice = 0; twice < 2; ++twice) {
            double *a = q + (size_t)i * (size_t)c, square = 0;
            for (int k = 0; k < i; ++k) {
                const double *b = q + (size_t)k * (size_t)c;
                double along = 0;
                for (int j = 0; j < c; ++j) along += a[j] * b[j];
                for (int j = 0; j < c; ++j) a[j] -= along * b[j];
            }
            for (int j = 0; j < c; ++j) square += a[j] * a[j];
            for (int j = 0; j < c; ++j) a[j] /= sqrt(square) > 1e-300 ? sqrt(square) : 1;
        }
}

/* The basis: the span of the largest eigenvectors of the covariance s [c, c], by subspace iteration. */
static inline void gaussian_subspace(gaussian *g, const double *s)
{
    int c = g->from, n = g->channels;
    double *q = (double *)room_for(2 * (size_t)n * (size_t)c, sizeof *q), *p = q + (size_t)n * (size_t)c;
    for (int i = 0; i < n; ++i) q[(size_t)i * (size_t)c + (size_t)(i * (c / n))] = 1;
    for (int round = 0; round < 20; ++round) {
        memset(p, 0, (size_t)n * (size_t)c * sizeof *p);
        for (int i = 0; i < n; ++i)
            for (int k = 0; k < c; ++k) {
                double v = q[(size_t)i * (size_t)c + (size_t)k];
                for (int j = 0; j < c; ++j) p[(size_t)i * (size_t)c + (size_t)j] += v * s[k * c + j];
            }
        memcpy(q, p, (size_t)n * (size_t)c * sizeof *q);
        orthonormal(q, n, c);
    }
    for (size_t i = 0; i < (size_t)n * (size_t)c; ++i) g->basis[i] = (float)q[i];
    free(q);
}

/* From every fourth cell of the images in use. */
static inline void gaussian_basis(gaussian *g, store *s, const bool *use, int cells, float *x)
{
    int c = g->from, first = -1;
    double *sum = (double *)room_for((size_t)c * (size_t)(c + 1) + triangle(c), sizeof *sum),
        *product = sum + c;
    float *origin = (float *)room_for((size_t)c, sizeof *origin);
    moments m = { 0, sum, product + (size_t)c * (size_t)c };
    const double *p = m.product;
    for (int i = 0; i < s->n; ++i) {
        if (!use[i]) continue;
        store_get(s, i, x);
        if (first < 0) memcpy(origin, x, (size_t)c * sizeof *x), first = i;
        for (int k = i % 4; k < cells; k += 4) moments_add(&m, x + (size_t)k * (size_t)c, origin, c);
    }
    for (int i = 0; i < c; ++i)
        for (int j = 0; j <= i; ++j, ++p)
            product[i * c + j] = product[j * c + i] = *p / m.count - sum[i] / m.count * (sum[j] / m.count);
    gaussian_subspace(g, product);
    free(sum);
    free(origin);
}

/* x [from] in the basis, y [channels]; without one x itself. */
static inline const float *gaussian_project(const gaussian *g, const float *x, float *y)
{
    if (!g->basis) return x;
    for (int i = 0; i < g->channels; ++i) y[i] = dot(g->basis + (size_t)i * (size_t)g->from, x, g->from);
    return y;
}

/* Fits to the images i of the store with use[i]. window: cells on each side that a cell shares its Gaussian
   with. grid^2 cells, or one. False: no positive covariance. */
static inline bool gaussian_fit(gaussian *g, store *s, const bool *use, int grid, int window, double ridge)
{
    int c = g->channels, cells = grid * grid;
    moments *m = (moments *)room_for((size_t)g->cells, sizeof *m);
    double *memory = (double *)room_for((size_t)g->cells * (triangle(c) + (size_t)c), sizeof *memory);
    double *sum = (double *)room_for((size_t)c * (size_t)(c + 1), sizeof *sum), *product = sum + c;
    float *x = (float *)room_for(s->numbers, sizeof *x), *origin = (float *)room_for((size_t)c,
        sizeof *origin);
    bool first = true, ok = true;
    float y[MOST_CHANNELS];
    if (g->basis) gaussian_basis(g, s, use, cells, x);
    for (int k = 0; k < g->cells; ++k) {
        m[k].sum = memory + (size_t)k * (triangle(c) + (size_t)c);
        m[k].product = m[k].sum + c;
    }
    for (int i = 0; i < s->n; ++i) {
        if (!use[i]) continue;
        store_get(s, i, x);
        if (first) memcpy(origin, gaussian_project(g, x, y), (size_t)c * sizeof *x);
        first = false;
        for (int k = 0; k < cells; ++k)
            moments_add(m + (g->cells == 1 ? 0 : k), gaussian_project(g, x + (size_t)k * (size_t)g->from, y),
                        origin, c);
    }
    for (int k = 0; k < g->cells && ok; ++k) {
        int y0 = k / grid - window, y1 = k / grid + window, x0 = k % grid - window, x1 = k % grid + window;
        double count = 0;
        memset(sum, 0, (size_t)c * (size_t)(c + 1) * sizeof *sum);
        if (g->cells == 1) moments_gather(m, c, &count, sum, product);
        for (int q = 0; q < g->cells && g->cells > 1; ++q)
            if (q / grid >= y0 && q / grid <= y1 && q % grid >= x0 && q % grid <= x1)
                moments_gather(m + q, c, &count, sum, product);
        ok = gaussian_solve(g, k, count, sum, product, origin, ridge);
    }
    free(m);
    free(memory);
    free(sum);
    free(x);
    free(origin);
    return ok;
}

/* Distances of the features x [cells, from] into map [cells]. */
static inline void gaussian_score(const gaussian *g, const float *x, int cells, float *map)
{
    int c = g->channels;
    float d[MOST_CHANNELS], y[MOST_CHANNELS];
    for (int k = 0; k < cells; ++k) {
        int at = g->cells == 1 ? 0 : k;
        const float *in = gaussian_project(g, x + (size_t)k * (size_t)g->from, y);
        const float *mean = g->mean + (size_t)at * (size_t)c, *row = g->root + (size_t)at * triangle(c);
        float sum = 0;
        for (int i = 0; i < c; ++i) d[i] = in[i] - mean[i];
        for (int i = 0; i < c; row += ++i) {
            float v = dot(row, d, i + 1);
            sum += v * v;
        }
        map[k] = sqrtf(sum);
    }
}

#endif /* GAUSSIAN_H */
