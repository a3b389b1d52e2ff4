/* moments.h - sums of rows and of their products, from which covariances are made. Include it after
   common.h. */
#ifndef MOMENTS_H
#define MOMENTS_H

#ifdef _OPENMP
#  include <omp.h>
#endif

/* Before a loop whose rounds do not depend on each other: the same results with any number of `threads`,
   which is a variable where it stands. */
#ifdef _OPENMP
#  define EACH_BY_ITSELF _Pragma("omp parallel for num_threads(threads)")
static inline int threads_in_use(int threads) { return threads > 0 ? threads : omp_get_max_threads(); }
#else
#  define EACH_BY_ITSELF (void)threads;
static inline int threads_in_use(int threads) { (void)threads; return 1; }
#endif

static inline size_t triangle(int n) { return (size_t)n * (size_t)(n + 1) / 2; }

/* Sums of rows less an origin, so that little is lost when means are taken off, and of their products, the
   lower triangle. */
typedef struct moments { double count; double *sum, *product; } moments;

/* Rows are padded with zeros to a multiple of so many channels, which compilers turn into vectors. */
enum { LANES = 8, MOST_ROWS = 32 };

static inline int padded(int channels) { return (channels + LANES - 1) / LANES * LANES; }

/* x [rows, padded(channels)], at most MOST_ROWS: few enough for sums of these in single precision. */
static inline void moments_add(moments *m, const float *x, int rows, int channels)
{
    int wide = padded(channels);
    double *p = m->product;
    m->count += rows;
    for (int i = 0; i < channels; p += ++i) {
        for (int r = 0; r < rows; ++r) m->sum[i] += (double)x[r * wide + i];
        for (int j = 0; j <= i; j += LANES) {
            const float *a = x + i, *b = x + j;
            float s[LANES] = { 0 };
            for (int r = 0; r < rows; ++r, a += wide, b += wide)
                for (int k = 0; k < LANES; ++k) s[k] += *a * b[k];
            for (int k = 0; k < LANES && j + k <= i; ++k) p[j + k] += (double)s[k];
        }
    }
}

static inline moments moments_create(int channels)
{
    moments m = { .sum = (double *)room_for((size_t)channels + triangle(channels), sizeof(double)) };
    m.product = m.sum + channels;
    return m;
}

static inline void moments_free(moments *m)
{
    free(m->sum);
    m->sum = m->product = NULL;
}

/* n: a multiple of LANES */
static inline double dot_double(const double *a, const double *b, int n)
{
    double s[LANES] = { 0 };
    for (int i = 0; i < n; i += LANES) for (int k = 0; k < LANES; ++k) s[k] += a[i + k] * b[i + k];
    return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

/* to [channels] = x - origin */
static inline void less_origin(const float *x, const float *origin, int channels, float *to)
{
    for (int i = 0; i < channels; ++i) to[i] = x[i] - origin[i];
}

#endif /* MOMENTS_H */
