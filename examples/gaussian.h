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
    int threads;             /* that solve for cells; sums over images are too short for several         */
} gaussian;

/* dims: 0, or channels that a basis leaves. threads: 0, all that there are. */
static inline gaussian gaussian_create(int cells, int from, int dims, int threads)
{
    gaussian g = { .from = from, .cells = cells, .channels = dims && dims < from ? dims : from };
    g.threads = threads_in_use(threads);
    if (g.channels < from) g.basis = (float *)room_for((size_t)g.channels * (size_t)from, sizeof *g.basis);
    g.mean = (float *)room_for((size_t)cells * (size_t)g.channels, sizeof *g.mean);
    g.root = (float *)room_for((size_t)cells * triangle(g.channels), sizeof *g.root);
    return g;
}

/* What one takes, with the sums that it is made from. */
static inline double gaussian_bytes(int cells, int from, int dims)
{
    double c = dims && dims < from ? dims : from, numbers = c + c * (c + 1) / 2;
    return cells * numbers * (double)(sizeof(float) + sizeof(double)) + c * from * (double)sizeof(float);
}

static inline void gaussian_free(gaussian *g)
{
    free(g->basis);
    free(g->mean);
    free(g->root);
    g->basis = g->mean = g->root = NULL;
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

/* The rows of q [n, wide] made orthonormal, one after the other, twice for the digits. */
static inline void orthonormal(double *q, int n, int wide)
{
    for (int i = 0; i < n; ++i)
        for (int twice = 0; twice < 2; ++twice) {
            double *a = q + (size_t)i * (size_t)wide, length;
            for (int k = 0; k < i; ++k) {
                const double *b = q + (size_t)k * (size_t)wide;
                double along = dot_double(a, b, wide);
                for (int j = 0; j < wide; ++j) a[j] -= along * b[j];
            }
            length = sqrt(dot_double(a, a, wide));
            for (int j = 0; j < wide; ++j) a[j] /= length > 1e-300 ? length : 1;
        }
}

/* The basis: the span of the largest eigenvectors of the covariance s [c, padded(c)], whose padding is 0, by
   subspace iteration. */
static inline void gaussian_subspace(gaussian *g, const double *s)
{
    int c = g->from, n = g->channels, wide = padded(c);
    size_t row = (size_t)wide, all = (size_t)n * row;
    double *q = (double *)room_for(2 * all, sizeof *q), *p = q + all;
    for (int i = 0; i < n; ++i) q[(size_t)i * row + (size_t)(i * (c / n))] = 1;
    for (int round = 0; round < 20; ++round) {
        for (int j = 0; j < wide; j += LANES)
            for (int i = 0; i < n; ++i) {
                const double *a = q + (size_t)i * row, *b = s + j;
                double sum[LANES] = { 0 };
                for (int k = 0; k < c; ++k, b += wide)
                    for (int l = 0; l < LANES; ++l) sum[l] += a[k] * b[l];
                memcpy(p + (size_t)i * row + (size_t)j, sum, sizeof sum);
            }
        memcpy(q, p, all * sizeof *q);
        orthonormal(q, n, wide);
    }
    for (int i = 0; i < n; ++i)
        for (int k = 0; k < c; ++k) g->basis[i * c + k] = (float)q[i * wide + k];
    free(q);
}

/* From every fourth cell of the images in use: the sums of all, less those of the others. */
static inline void gaussian_basis(gaussian *g, store *s, const bool *use, float *x)
{
    int c = g->from, wide = padded(c);
    moments m = moments_create(c), others = moments_create(c);
    const moments *all = store_sums(s, x);
    double *covariance = (double *)room_for((size_t)c * (size_t)wide, sizeof *covariance);
    size_t at = 0;
    store_sum(s, use, false, x, &others);
    m.count = all->count - others.count;
    for (int i = 0; i < c; ++i) m.sum[i] = (all->sum[i] - others.sum[i]) / m.count;
    for (int i = 0; i < c; ++i)
        for (int j = 0; j <= i; ++j, ++at)
            covariance[i * wide + j] = covariance[j * wide + i] =
                (all->product[at] - others.product[at]) / m.count - m.sum[i] * m.sum[j];
    gaussian_subspace(g, covariance);
    moments_free(&m);
    moments_free(&others);
    free(covariance);
}

/* x [from] in the basis, y [channels]; without one x itself. */
static inline const float *gaussian_project(const gaussian *g, const float *x, float *y)
{
    if (!g->basis) return x;
    for (int i = 0; i < g->channels; ++i) y[i] = dot(g->basis + (size_t)i * (size_t)g->from, x, g->from);
    return y;
}

/* What is summed of each cell as soon as there are MOST_ROWS rows of it: x [cells, MOST_ROWS,
   padded(channels)], n rows each. */
typedef struct gathered { float *x, *origin; int cells, n; } gathered;

/* x [cells, from] in the basis, less the origin, each `step` floats further in out: four cells at a time, so
   that the basis, which is larger than the fastest cache, is read less often. */
static inline void project_all(const gaussian *g, const float *x, const float *origin, int cells, size_t step,
                               float *out)
{
    for (int k = 0; k < cells; k += 4)
        for (int i = 0; i < g->channels; ++i)
            for (int r = k; r < k + 4 && r < cells; ++r) {
                const float *b = g->basis + (size_t)i * (size_t)g->from, *a = x + (size_t)r * (size_t)g->from;
                out[(size_t)r * step + (size_t)i] = dot(b, a, g->from) - origin[i];
            }
}

/* The features x [cells, from] of one more image, less the origin: those of the first image's first cell. */
static inline void gather(gathered *q, const gaussian *g, const float *x, bool first)
{
    int c = g->channels;
    size_t row = (size_t)padded(c), step = MOST_ROWS * row;
    float *to = q->x + (size_t)q->n++ * row;
    float y[MOST_CHANNELS];
    if (first) memcpy(q->origin, gaussian_project(g, x, y), (size_t)c * sizeof *x);
    if (g->basis) project_all(g, x, q->origin, q->cells, step, to);
    else for (int k = 0; k < q->cells; ++k) less_origin(x + k * c, q->origin, c, to + (size_t)k * step);
}

static inline void gathered_add(gathered *q, const gaussian *g, moments *m)
{
    size_t block = MOST_ROWS * (size_t)padded(g->channels);
    for (int k = 0; k < q->cells; ++k)
        moments_add(m + (g->cells == 1 ? 0 : k), q->x + (size_t)k * block, q->n, g->channels);
    q->n = 0;
}

/* Moments [g->cells] of the images in use. */
static inline void gaussian_moments(const gaussian *g, store *s, const bool *use, gathered *q, float *x,
                                    moments *m)
{
    bool first = true;
    for (int i = 0; i < s->n; ++i) {
        if (!use[i]) continue;
        store_get(s, i, x);
        gather(q, g, x, first);
        first = false;
        if (q->n == MOST_ROWS) gathered_add(q, g, m);
    }
    gathered_add(q, g, m);
}

/* Mean and root of cell `at` from the moments [g->cells] of those within its window. */
static inline bool gaussian_cell(gaussian *g, const moments *m, int at, int grid, int window,
                                 const float *origin, double ridge)
{
    int c = g->channels, y = at / grid, x = at % grid;
    double *sum = (double *)room_for((size_t)c * (size_t)(c + 1), sizeof *sum), *product = sum + c, count = 0;
    bool ok;
    for (int k = 0; k < g->cells; ++k)
        if (g->cells == 1 || (abs(k / grid - y) <= window && abs(k % grid - x) <= window))
            moments_gather(m + k, c, &count, sum, product);
    ok = gaussian_solve(g, at, count, sum, product, origin, ridge);
    free(sum);
    return ok;
}

/* Fits to the images i of the store with use[i]. window: cells on each side that a cell shares its Gaussian
   with. grid^2 cells, or one. False: no positive covariance. */
static inline bool gaussian_fit(gaussian *g, store *s, const bool *use, int grid, int window, double ridge)
{
    int c = g->channels, threads = g->threads, wrong = 0;
    gathered q = { .cells = grid * grid };
    size_t rows = (size_t)q.cells * MOST_ROWS * (size_t)padded(c);
    moments *m = (moments *)room_for((size_t)g->cells, sizeof *m);
    float *x = (float *)room_for(s->numbers, sizeof *x);
    bool *done = (bool *)room_for((size_t)g->cells, sizeof *done);
    q.x = (float *)room_for(rows + (size_t)c, sizeof *q.x);
    q.origin = q.x + rows;
    if (g->basis) gaussian_basis(g, s, use, x);
    for (int k = 0; k < g->cells; ++k) m[k] = moments_create(c);
    gaussian_moments(g, s, use, &q, x, m);
    EACH_BY_ITSELF
    for (int k = 0; k < g->cells; ++k) done[k] = gaussian_cell(g, m, k, grid, window, q.origin, ridge);
    for (int k = 0; k < g->cells; ++k) {
        wrong += !done[k];
        moments_free(m + k);
    }
    free(m);
    free(x);
    free(done);
    free(q.x);
    return !wrong;
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
