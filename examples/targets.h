/* targets.h - energies to try a sampler on, with what is known of them, and settings to train one on each.
   Include it after vgs.h, in the file that has the implementation. It brings metropolis.h with it.

       target_at(i), target_find(name)        those of target_list: mixtures, funnel, many wells, particles
       target_energy(t)                       as a vgs_energy; targets_cl.h has it on an OpenCL device
       target_std(t, i), target_mode(t, k, x) what is known of the density
       target_sample, target_reference        exact samples; reference samples of any target
       preset_fill                            a configuration for a target

   TO ADD ONE: its energy in C and in OpenCL C, with what only it has (a target_builtin; MIXTURE and CLUSTER
   make all of this from a line); its row in target_list; its row in preset_list; its formula in
   tests/energy.c.

   All is static inline because no program uses all of it. The built-in energies may be called from several
   threads at once. */
#ifndef TARGETS_H
#define TARGETS_H

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#  include <omp.h>
#endif

/* An element's bits must not depend on where a vector loop ends: no contraction, as in vgs.h. */
#if defined __GNUC__ && !defined __clang__ && defined __OPTIMIZE__ && !defined VGS_PORTABLE && \
    !defined __TINYC__
#  pragma GCC push_options
#  pragma GCC optimize ("fp-contract=off")
#  define TARGETS_POP_OPTIONS
#endif

/* An energy E on R^D with what is known about it; its density at temperature tau is exp(-E/tau)/Z. For one of
   your own, zero it and fill name, dim, eval, user and, if x is a configuration of particles, particles and
   space_dim. */
typedef struct target {
    const char    *name;
    const char    *summary;       /* one line for people                                              */
    int            dim;           /* D, floats in a row; a particle's coordinates are side by side    */
    int            particles;     /* n points in d dimensions, D = n d; 0 if x is a single point      */
    int            space_dim;     /* d; 0 if x is a single point                                      */
    vgs_energy_fn *eval;          /* the energy; as in vgs_energy                                     */
    void          *user;          /* first argument of eval                                           */
    bool           exact_samples; /* target_sample works                                              */
    bool           log_z_known;   /* then log q(x) = -E(x) - log_z is the exact density at tau = 1    */
    double         log_z;
    int            modes;         /* equal modes of a mixture, see target_mode; 0 if no mixture       */
    double         length_scale;  /* typical spread of a coordinate; 0 = not known                    */
    double         plot_half;     /* 2-D: [-plot_half, plot_half]^2 shows the target; else 0          */
    const struct target_builtin *builtin;                            /* NULL in a target of yours     */
} target;

typedef struct target_mixture { int modes; double variance; const double (*centre)[2]; } target_mixture;

/* What only a built-in target has; what does not apply to it is NULL. */
typedef struct target_builtin {
    const target_mixture *mixture;
    double (*std)(const target *t, int i);                           /* of coordinate i               */
    void   (*sample)(const target *t, vgs_rng *r, float *x);         /* one exact sample              */
    int    (*sweep)(double p[][3], double step, double tau, vgs_rng *r);     /* cluster_sweep         */
    const char *source[2];        /* OpenCL C of energy and gradient, in up to two pieces: targets_cl.h */
} target_builtin;

/* ==== errors, memory, random numbers, threads ======================================================= */

#if defined __GNUC__ || defined __clang__
__attribute__((format(printf, 3, 4)))
#endif
static inline vgs_status target_fail(vgs_error *err, vgs_status code, const char *format, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, format);
        err->code = code;
        vsnprintf(err->msg, sizeof err->msg, format, ap);
        va_end(ap);
    }
    return code;
}

/* Zeroed; NULL, said in err, if there is not enough memory. */
static inline void *target_alloc(vgs_error *err, const char *what, size_t count, size_t size)
{
    bool fits = !size || count < (size_t)-1 / size;
    void *p = fits ? VGS_MALLOC(count * size + 1) : NULL;
    if (p) memset(p, 0, count * size);
    else target_fail(err, VGS_E_NOMEM, "out of memory: %s needs %.0f bytes", what,
                     (double)count * (double)size);
    return p;
}

static inline void target_free(void *p) { if (p) VGS_FREE(p); }

#define TARGET_CHAINS  0x4D0000u                 /* streams from here on are those of chains          */
#define TARGET_SHUFFLE 0x5F0000u                 /* streams from here on turn and permute             */

static inline vgs_rng target_rng(uint64_t seed, uint32_t stream)
{
    vgs_rng r;
    r.seed = seed;
    r.stream = stream;
    r.pos = 0;
    return r;
}

/* The four words of r's next block; vgs_rng_u64 has two of them. */
static inline void target_words(vgs_rng *r, uint32_t w[4])
{
    const uint32_t key[2] = { (uint32_t)r->seed, (uint32_t)(r->seed >> 32) };
    const uint32_t at[4] = { (uint32_t)r->pos, (uint32_t)(r->pos >> 32), 0xFF000000u + r->stream, 0 };
    vgs_philox(key, at, w);
    r->pos++;
}

/* 0 = all; 1 without OpenMP. */
static inline int target_threads(int threads)
{
#ifdef _OPENMP
    return threads > 0 ? threads : omp_get_max_threads();
#else
    (void)threads;
    return 1;
#endif
}

/* ==== energies: rows side by side =================================================================== */

#define TARGET_LN_2PI        1.8378770664093453  /* log(2 pi)                                         */
#define TARGET_MAX_MODES     40
#define TARGET_MAX_PARTICLES 55

/* Mixtures and clusters take TARGET_LANES rows side by side, one a lane of arrays [...][TARGET_LANES], and
   the last few one by one: the functions below are inlined with `lanes` constant, once for any processor and
   once for AVX2. Every row sees the same operations. */
#define TARGET_LANES 8
typedef void target_rows_fn(const float *x, float *e, float *g);

#define TARGET_ENERGY(name, columns, inlined, what)                                                       \
    VGS_HOT static inline void name##_c(const float *x, float *e, float *g)                               \
    { inlined(what, TARGET_LANES, x, e, g); }                                                             \
    VGS_HOT VGS_AVX2 static inline void name##_avx2(const float *x, float *e, float *g)                   \
    { inlined(what, TARGET_LANES, x, e, g); }                                                             \
    static inline int name(void *user, const float *x, int n, int dim, float *e, float *g)                \
    {                                                                                                     \
        target_rows_fn *rows = vgs_cpu_isa() >= VGS_ISA_AVX2 ? name##_avx2 : name##_c;                    \
        const int lanes = TARGET_LANES, step = TARGET_LANES * columns;                                    \
        (void)user;                                                                                       \
        (void)dim;                                                                                        \
        for (; n >= lanes; n -= lanes, x += step, e += lanes, g = g ? g + step : NULL) rows(x, e, g);     \
        for (; n > 0; --n, x += columns, ++e, g = g ? g + columns : NULL) inlined(what, 1, x, e, g);      \
        return 0;                                                                                         \
    }

/* ==== mixtures of Gaussians in the plane ============================================================ */

/* E = -log mean_k N(x; c_k, v I), dE/dx = (x - m)/v with m the mean of the c_k weighted by their share in x.
   q_k = |x - c_k|^2/(2v); the smallest is taken out before exp, so that no sum underflows to log 0. In
   double, because q overflows a float at |x| = 1e19 and E should then be large or inf, not NaN. */
VGS_INLINE void mixture_energy(const target_mixture *m, int lanes, const float *x, float *e, float *g)
{
    double q[TARGET_MAX_MODES][TARGET_LANES], a[TARGET_LANES], b[TARGET_LANES], least[TARGET_LANES],
           sum[TARGET_LANES], ma[TARGET_LANES], mb[TARGET_LANES], half = 0.5 / m->variance;
    double base = log((double)m->modes) + TARGET_LN_2PI + log(m->variance);
    float w[TARGET_MAX_MODES * TARGET_LANES];
    int k, l;
    for (l = 0; l < lanes; ++l) {
        a[l] = (double)x[2 * l];
        b[l] = (double)x[2 * l + 1];
        least[l] = HUGE_VAL;
        sum[l] = ma[l] = mb[l] = 0.0;
    }
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) {
            double da = a[l] - m->centre[k][0], db = b[l] - m->centre[k][1];
            q[k][l] = (da * da + db * db) * half;
        }
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) least[l] = q[k][l] < least[l] ? q[k][l] : least[l];
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) w[k * lanes + l] = (float)(least[l] - q[k][l]);
    for (k = 0; k < m->modes * lanes; ++k)       /* below e^-87, next to 1 nothing, processors are slow */
        w[k] = vgs_expf(vgs_pick(w[k] < -87.0f, -87.0f, w[k]));
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) {
            double share = (double)w[k * lanes + l];
            sum[l] += share;
            ma[l] += share * m->centre[k][0];
            mb[l] += share * m->centre[k][1];
        }
    for (l = 0; l < lanes; ++l) {
        e[l] = (float)(least[l] - (double)vgs_logf((float)sum[l]) + base);
        if (!g) continue;
        g[2 * l] = (float)(2.0 * half * (a[l] - ma[l] / sum[l]));
        g[2 * l + 1] = (float)(2.0 * half * (b[l] - mb[l] / sum[l]));
    }
}

/* MODES, CENTRE(k, i), HALF_OVER_V = 1/(2 v) and BASE come before it: targets_cl.h. Distances to the centres,
   not x itself, are averaged: in float that is exact where x is near one. */
static const char mixture_source[] =
    "inline float sums(__global const float *x, float *least, float *ma, float *mb)\n"
    "{\n"
    "    float sum = 0.0f;\n"
    "    int k;\n"
    "    *least = INFINITY;\n"
    "    *ma = *mb = 0.0f;\n"
    "    for (k = 0; k < MODES; ++k) {\n"
    "        float da = x[0] - CENTRE(k, 0), db = x[1] - CENTRE(k, 1);\n"
    "        *least = fmin(*least, (da * da + db * db) * HALF_OVER_V);\n"
    "    }\n"
    "    for (k = 0; k < MODES; ++k) {\n"
    "        float da = x[0] - CENTRE(k, 0), db = x[1] - CENTRE(k, 1);\n"
    "        float q = (da * da + db * db) * HALF_OVER_V;\n"
    "        float w = *least < INFINITY ? vexp(*least - q) : 1.0f;  /* |x| > 1e19: all are as far */\n"
    "        sum += w;\n"
    "        *ma += w * da;\n"
    "        *mb += w * db;\n"
    "    }\n"
    "    return sum;\n"
    "}\n"
    "float energy(__global const float *x, int dim)\n"
    "{\n"
    "    float least, ma, mb, sum = sums(x, &least, &ma, &mb);\n"
    "    return x[0] == x[0] && x[1] == x[1] ? least - vlog(sum) + BASE : x[0] + x[1];\n"
    "}\n"
    "void gradient(__global const float *x, int dim, __global float *g)\n"
    "{\n"
    "    float least, ma, mb, sum = sums(x, &least, &ma, &mb);\n"
    "    g[0] = 2.0f * HALF_OVER_V * (ma / sum);\n"
    "    g[1] = 2.0f * HALF_OVER_V * (mb / sum);\n"
    "}\n";

static inline double mixture_std(const target *t, int i)
{
    const target_mixture *m = t->builtin->mixture;
    double mean = 0.0, square = 0.0;
    int k;
    for (k = 0; k < m->modes; ++k) {
        double c = m->centre[k][i];
        mean += c / m->modes;
        square += c * c / m->modes;
    }
    return sqrt(m->variance + square - mean * mean);
}

static inline void mixture_sample(const target *t, vgs_rng *r, float *x)
{
    const target_mixture *m = t->builtin->mixture;
    const double *c = m->centre[vgs_rng_below(r, (uint32_t)m->modes)];
    double sd = sqrt(m->variance);
    vgs_rng_normals(r, x, 2);
    x[0] = (float)(c[0] + sd * (double)x[0]);
    x[1] = (float)(c[1] + sd * (double)x[1]);
}

/* NAME_energy and NAME_builtin of equal Gaussians of this variance around NAME_centre[modes] */
#define MIXTURE(name, modes, variance)                                                                    \
    static const target_mixture name##_mixture = { modes, variance, name##_centre };                      \
    TARGET_ENERGY(name##_energy, 2, mixture_energy, &name##_mixture)                                      \
    static const target_builtin name##_builtin =                                                          \
        { &name##_mixture, mixture_std, mixture_sample, NULL, { mixture_source, NULL } };

static const double four_gauss_centre[4][2] = { {-2, -2}, {-2, 2}, {2, -2}, {2, 2} };
MIXTURE(four_gauss, 4, 0.13)

static const double gmm9_centre[9][2] = {
    {-5, -5}, {-5, 0}, {-5, 5},   {0, -5}, {0, 0}, {0, 5},   {5, -5}, {5, 0}, {5, 5}
};
MIXTURE(gmm9, 9, 0.3)

static const double gmm25_centre[25][2] = {
    {-10, -10}, {-10, -5}, {-10, 0}, {-10, 5}, {-10, 10},
    { -5, -10}, { -5, -5}, { -5, 0}, { -5, 5}, { -5, 10},
    {  0, -10}, {  0, -5}, {  0, 0}, {  0, 5}, {  0, 10},
    {  5, -10}, {  5, -5}, {  5, 0}, {  5, 5}, {  5, 10},
    { 10, -10}, { 10, -5}, { 10, 0}, { 10, 5}, { 10, 10}
};
MIXTURE(gmm25, 25, 0.3)

/* Uniform in [-40,40]^2, drawn by torch's generator with seed 0: the set of FAB and iDEM. */
static const double gmm40_centre[40][2] = {
    {-0.299473, 21.457745}, {-32.921806, -29.437561}, {-15.406175, 10.726295}, {-0.792527, 31.715580},
    {-3.549762, 10.584502}, {-12.088523, -7.862616}, {-38.213940, -26.491283}, {-16.488924, 1.481743},
    {15.813408, 24.000912}, {-27.117643, -17.418514}, {14.528685, 33.215519}, {-8.232007, 29.932470},
    {-6.447334, 4.232564}, {36.219048, -37.106815}, {-25.181519, -10.126610}, {-15.591998, 34.560032},
    {-25.927185, -18.413315}, {-27.945618, -37.462440}, {-23.349619, 34.383923}, {17.848736, 19.386902},
    {2.103662, -20.507339}, {6.767387, -37.347790}, {-28.902649, -20.621201}, {25.237518, 23.452850},
    {-17.739801, -1.443295}, {25.582428, 39.765324}, {15.875287, 5.403714}, {26.819454, -23.552094},
    {7.453761, -31.012220}, {-27.723446, -20.663342}, {18.098923, 16.086416}, {-23.694099, 12.084284},
    {21.958881, -5.048695}, {1.527262, 9.268188}, {24.815063, 38.407764}, {-30.824944, -14.658790},
    {15.720396, 33.141975}, {34.808292, 35.294270}, {7.960582, -34.783306}, {3.679700, -25.024214},
};
MIXTURE(gmm40, 40, 1.7246562599032103)                /* log(1 + e)^2                                      */

#undef MIXTURE

/* ==== funnel ======================================================================================== */

/* x1 ~ N(0, 9), the others given x1 ~ N(0, exp(x1)). exp(-x1) is held below inf: 0 * inf is NaN. */
static inline int funnel_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, k, rest = dim - 1;
    double base = 0.5 * (dim * TARGET_LN_2PI + log(9.0));
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        double a = (double)x[0], s = 0.0, p = (double)vgs_expf(x[0] < -88.0f ? 88.0f : -x[0]);
        for (k = 1; k < dim; ++k) s += (double)x[k] * (double)x[k];
        e[i] = (float)(a * a / 18.0 + 0.5 * (s * p + rest * a) + base);
        if (g) {
            float *gi = g + (size_t)i * (size_t)dim;
            gi[0] = (float)(a / 9.0 + 0.5 * (rest - s * p));
            for (k = 1; k < dim; ++k) gi[k] = (float)((double)x[k] * p);
        }
    }
    return 0;
}

static const char funnel_source[] =
    "float energy(__global const float *x, int dim)\n"
    "{\n"
    "    float a = x[0], s = 0.0f, w = vexp(a < -88.0f ? 88.0f : -a);\n"
    "    int k;\n"
    "    for (k = 1; k < dim; ++k) s += x[k] * x[k];\n"
    "    return a * a / 18.0f + 0.5f * (s * w + (float)(dim - 1) * a) + 10.287997620714837f;\n"
    "}\n"
    "void gradient(__global const float *x, int dim, __global float *g)\n"
    "{\n"
    "    float a = x[0], s = 0.0f, w = vexp(a < -88.0f ? 88.0f : -a);\n"
    "    int k;\n"
    "    for (k = 1; k < dim; ++k) s += x[k] * x[k];\n"
    "    g[0] = a / 9.0f + 0.5f * ((float)(dim - 1) - s * w);\n"
    "    for (k = 1; k < dim; ++k) g[k] = x[k] * w;\n"
    "}\n";

static inline double funnel_std(const target *t, int i)
{
    (void)t;
    return i ? 9.4877358363585262 : 3.0;                             /* sqrt E[exp(x1)] = exp(9/4)    */
}

static inline void funnel_sample(const target *t, vgs_rng *r, float *x)
{
    float sd;
    int k;
    vgs_rng_normals(r, x, (size_t)t->dim);
    x[0] *= 3.0f;
    sd = vgs_expf(0.5f * x[0]);
    for (k = 1; k < t->dim; ++k) x[k] *= sd;
}

static const target_builtin funnel_builtin =
    { NULL, funnel_std, funnel_sample, NULL, { funnel_source, NULL } };

/* ==== many wells ==================================================================================== */

/* Independent wells in (a, b): a^4 - 6 a^2 - a/2 + b^2/2. */
static inline int manywell_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, k;
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        float *gi = g ? g + (size_t)i * (size_t)dim : NULL;
        double sum = 0.0;
        for (k = 0; k < dim; k += 2) {
            double a = (double)x[k], b = (double)x[k + 1];
            sum += ((a * a - 6.0) * a - 0.5) * a + 0.5 * b * b;
            if (gi) {
                gi[k] = (float)((4.0 * a * a - 12.0) * a - 0.5);
                gi[k + 1] = x[k + 1];
            }
        }
        e[i] = (float)sum;
    }
    return 0;
}

static const char manywell_source[] =
    "float energy(__global const float *x, int dim)\n"
    "{\n"
    "    float hi = 0.0f, lo = 0.0f;\n"
    "    int k;\n"
    "    for (k = 0; k < dim; k += 2) {\n"
    "        float a = x[k], b = x[k + 1];\n"
    "        ADD2(hi, lo, ((a * a - 6.0f) * a - 0.5f) * a)\n"
    "        ADD2(hi, lo, 0.5f * b * b)\n"
    "    }\n"
    "    return hi + lo;\n"
    "}\n"
    "void gradient(__global const float *x, int dim, __global float *g)\n"
    "{\n"
    "    int k;\n"
    "    for (k = 0; k < dim; k += 2) {\n"
    "        g[k] = (4.0f * x[k] * x[k] - 12.0f) * x[k] - 0.5f;\n"
    "        g[k + 1] = x[k + 1];\n"
    "    }\n"
    "}\n";

/* One draw of p(a) ~ exp(-(a^2 - 3)^2 + a/2). On the side of sign s, with m = sqrt 3,
   (a^2 - 3)^2 = (s a - m)^2 (s a + m)^2 >= 3 (s a - m)^2, so p lies under a Gaussian of variance 1/6 round
   s m + 1/12 of mass ~ exp(s m/2). Rejection from the two is exact; it takes about two trials. */
static inline float manywell_draw(vgs_rng *r)
{
    const double m = 1.7320508075688772, right = 0.84967455308983850;  /* 1/(1 + exp(-m)) */
    double s, a, u, v;
    float z;
    do {
        s = vgs_rng_uniform(r) < right ? 1.0 : -1.0;
        vgs_rng_normals(r, &z, 1);
        a = s * m + 1.0 / 12.0 + 0.40824829046386302 * (double)z;
        u = a * a - 3.0;
        v = s * a - m;
    } while (s * a < 0.0 || vgs_rng_uniform(r) >= (double)vgs_expf((float)(3.0 * v * v - u * u)));
    return (float)a;
}

static inline double manywell_std(const target *t, int i)
{
    (void)t;
    return i & 1 ? 1.0 : 1.2444094151302507;                         /* by quadrature                 */
}

static inline void manywell_sample(const target *t, vgs_rng *r, float *x)
{
    int k;
    vgs_rng_normals(r, x, (size_t)t->dim);
    for (k = 0; k < t->dim; k += 2) x[k] = manywell_draw(r);
}

/* 16 (log integral of exp(-a^4 + 6 a^2 + a/2) + log(2 pi)/2), by quadrature */
#define MANYWELL_LOG_Z 164.69567531318162

static const target_builtin manywell_builtin =
    { NULL, manywell_std, manywell_sample, NULL, { manywell_source, NULL } };

/* ==== particles: energies of pairs ================================================================== */

typedef enum target_pair { PAIR_DOUBLE_WELL, PAIR_LENNARD_JONES } target_pair;

/* Energy u of one unordered pair, of its squared distance s and distance r (of which LJ has no use), and its
   slope du/ds, finite at s = 0, where the direction is lost. LJ: s^-6 - 2 s^-3, twice because the sum runs
   over ordered pairs; 1e-6 keeps it finite at s = 0. */
VGS_INLINE double pair_energy(target_pair kind, double s, double r, double *slope)
{
    if (kind == PAIR_LENNARD_JONES) {
        double i2 = 1.0 / (s + 1e-6), i6 = i2 * i2 * i2;
        *slope = 12.0 * i6 * (1.0 - i6) * i2;
        return 2.0 * i6 * (i6 - 2.0);
    } else {
        double z = r - 4.0, z2 = z * z;
        *slope = (1.8 * z2 - 4.0) * z / (r + (double)(r == 0.0));
        return (0.9 * z2 - 4.0) * z2;
    }
}
VGS_INLINE double pair_energy_only(target_pair kind, double s)
{
    double slope;
    return pair_energy(kind, s, kind == PAIR_DOUBLE_WELL ? sqrt(s) : 0.0, &slope);
}

typedef struct target_cluster { target_pair kind; int n, d; } target_cluster;
typedef double target_places[3][TARGET_LANES];   /* of one particle in every lane                     */

/* Sums the energies of all pairs and, if asked for, their slopes; each pair is visited once and pulls on both
   of its ends. */
VGS_INLINE void cluster_pairs(target_cluster z, int lanes, bool slopes, target_places *p, target_places *f,
                              double *sum)
{
    double r[TARGET_LANES] = { 0 };
    int i, j, l;
    for (i = 0; i < z.n; ++i) {
        target_places at, own;                   /* of particle i: nothing else lies there, compilers see */
        memcpy(at, p[i], sizeof at);
        memcpy(own, f[i], sizeof own);
        for (j = i + 1; j < z.n; ++j) {
            for (l = 0; l < lanes && z.kind == PAIR_DOUBLE_WELL; ++l) {
                double dx = at[0][l] - p[j][0][l], dy = at[1][l] - p[j][1][l], dz = at[2][l] - p[j][2][l];
                r[l] = sqrt(dx * dx + dy * dy + dz * dz);
            }
            for (l = 0; l < lanes; ++l) {
                double dx = at[0][l] - p[j][0][l], dy = at[1][l] - p[j][1][l], dz = at[2][l] - p[j][2][l];
                double slope;
                sum[l] += pair_energy(z.kind, dx * dx + dy * dy + dz * dz, r[l], &slope);
                if (!slopes) continue;
                own[0][l] += 2.0 * slope * dx;
                own[1][l] += 2.0 * slope * dy;
                own[2][l] += 2.0 * slope * dz;
                f[j][0][l] -= 2.0 * slope * dx;
                f[j][1][l] -= 2.0 * slope * dy;
                f[j][2][l] -= 2.0 * slope * dz;
            }
        }
        memcpy(f[i], own, sizeof own);
    }
}

/* Pair energies of n particles in d dimensions (2 or 3; in 2 the third coordinate is 0) and, for LJ, half the
   squared distance to their mean. Inlined with `z` constant. Each pair is visited once and pulls on both of
   its ends. */
VGS_INLINE void cluster_energy(target_cluster z, int lanes, const float *x, float *e, float *g)
{
    target_places p[TARGET_MAX_PARTICLES], f[TARGET_MAX_PARTICLES];
    double sum[TARGET_LANES] = { 0 };
    const double pull = z.kind == PAIR_LENNARD_JONES ? 1.0 : 0.0;
    const int n = z.n, d = z.d, dim = n * d;
    int i, k, l;
    for (k = 0; k < 3; ++k) {
        double mean[TARGET_LANES] = { 0 };
        for (i = 0; i < n && k < d; ++i)
            for (l = 0; l < lanes; ++l) mean[l] += (double)x[l * dim + i * d + k] / n;
        for (i = 0; i < n; ++i)
            for (l = 0; l < lanes; ++l) {
                p[i][k][l] = k < d ? (double)x[l * dim + i * d + k] - mean[l] : 0.0;
                f[i][k][l] = pull * p[i][k][l];
                sum[l] += 0.5 * f[i][k][l] * p[i][k][l];
            }
    }
    if (g) cluster_pairs(z, lanes, true, p, f, sum);
    else cluster_pairs(z, lanes, false, p, f, sum);
    for (l = 0; l < lanes; ++l) {
        e[l] = (float)sum[l];
        for (i = 0; i < (g ? n : 0); ++i)
            for (k = 0; k < d; ++k) g[l * dim + i * d + k] = (float)f[i][k][l];
    }
}

/* Energy of a pair at squared distance s, and its slope du/ds, held finite, so that it times a difference of
   0 is 0. */
static const char double_well_source[] =
    "#define TRAP 0.0f\n"
    "inline float pair_energy(float s, float *slope)\n"
    "{\n"
    "    float r = sqrt(s), z = r - 4.0f, z2 = z * z;\n"
    "    *slope = s > 0.0f ? (1.8f * z2 - 4.0f) * z / r : 0.0f;\n"
    "    return (0.9f * z2 - 4.0f) * z2;\n"
    "}\n";
static const char lennard_jones_source[] =
    "#define TRAP 1.0f\n"
    "inline float pair_energy(float s, float *slope)\n"
    "{\n"
    "    float i2 = 1.0f / (s + 1e-6f), i6 = i2 * i2 * i2;\n"
    "    *slope = fmax(12.0f * i6 * i2 * (1.0f - i6), -1e38f);\n"
    "    return 2.0f * i6 * (i6 - 2.0f);\n"
    "}\n";

/* PARTICLES and SPACE come before it. Each particle gathers the pulls on it. */
static const char cluster_source[] =
    "inline float pair_of(__global const float *x, int i, int j, float *u, float *slope)\n"
    "{\n"
    "    float s = 0.0f;\n"
    "    int k;\n"
    "    for (k = 0; k < SPACE; ++k) {\n"
    "        u[k] = x[i * SPACE + k] - x[j * SPACE + k];\n"
    "        s += u[k] * u[k];\n"
    "    }\n"
    "    return pair_energy(s, slope);\n"
    "}\n"
    "inline void mean_of(__global const float *x, float *mean)\n"
    "{\n"
    "    int i, k;\n"
    "    for (k = 0; k < SPACE; ++k) {\n"
    "        mean[k] = 0.0f;\n"
    "        for (i = 0; i < PARTICLES; ++i) mean[k] += x[i * SPACE + k];\n"
    "        mean[k] /= (float)PARTICLES;\n"
    "    }\n"
    "}\n"
    "float energy(__global const float *x, int dim)\n"
    "{\n"
    "    float mean[SPACE], u[SPACE], slope, hi = 0.0f, lo = 0.0f;\n"
    "    int i, j, k;\n"
    "    mean_of(x, mean);\n"
    "    for (i = 0; i < PARTICLES; ++i) {\n"
    "        for (j = i + 1; j < PARTICLES; ++j) {\n"
    "            float pair = pair_of(x, i, j, u, &slope);\n"
    "            ADD2(hi, lo, pair)\n"
    "        }\n"
    "        for (k = 0; k < SPACE; ++k) {\n"
    "            float from_mean = TRAP != 0.0f ? x[i * SPACE + k] - mean[k] : 0.0f;\n"
    "            ADD2(hi, lo, 0.5f * from_mean * from_mean)\n"
    "        }\n"
    "    }\n"
    "    return hi + lo;\n"
    "}\n"
    "void gradient(__global const float *x, int dim, __global float *g)\n"
    "{\n"
    "    float mean[SPACE], u[SPACE], f[SPACE], slope;\n"
    "    int i, j, k;\n"
    "    mean_of(x, mean);\n"
    "    for (i = 0; i < PARTICLES; ++i) {\n"
    "        for (k = 0; k < SPACE; ++k) f[k] = 0.0f;\n"
    "        for (j = 0; j < PARTICLES; ++j) {\n"
    "            if (j == i) continue;\n"
    "            pair_of(x, i, j, u, &slope);\n"
    "            for (k = 0; k < SPACE; ++k) f[k] += slope * (2.0f * u[k]);\n"
    "        }\n"
    "        for (k = 0; k < SPACE; ++k)\n"
    "            g[i * SPACE + k] = f[k] + (TRAP != 0.0f ? x[i * SPACE + k] - mean[k] : 0.0f);\n"
    "    }\n"
    "}\n";

/* ---- a sweep of Metropolis moves, one particle at a time -------------------------------------------- */

/* Shifts n points so that their mean is 0. */
static inline void centre_points(int n, double p[][3])
{
    int i, k;
    for (k = 0; k < 3; ++k) {
        double mean = 0.0;
        for (i = 0; i < n; ++i) mean += p[i][k];
        mean /= n;
        for (i = 0; i < n; ++i) p[i][k] -= mean;
    }
}

/* u(|b - p_j|) - u(|a - p_j|), summed over all j but i. */
VGS_INLINE double cluster_rise(target_pair kind, int n, double p[][3], int i, const double *a,
                               const double *b)
{
    double sum = 0.0;
    int j;
    for (j = 0; j < n; ++j) {
        double ax = a[0] - p[j][0], ay = a[1] - p[j][1], az = a[2] - p[j][2];
        double bx = b[0] - p[j][0], by = b[1] - p[j][1], bz = b[2] - p[j][2];
        if (j == i) continue;
        sum += pair_energy_only(kind, bx * bx + by * by + bz * bz)
             - pair_energy_only(kind, ax * ax + ay * ay + az * az);
    }
    return sum;
}

/* One move of each particle in turn, uniform in a cube, at temperature tau; returns the number accepted.
   Every fourth move or so leaps five times as far: dw4, whose pairs must hop from well to well, then
   decorrelates ten times sooner. The trap is (sum |p|^2 - |sum p|^2/n)/2; `drift` is sum p, 0 at first. One
   random block serves one move: three words for the place, the fourth to leap (2 bits) and to accept (24). */
VGS_INLINE int cluster_sweep(target_pair kind, int n, int d, double p[][3], double step, double tau,
                             vgs_rng *r)
{
    double drift[3] = { 0.0, 0.0, 0.0 }, to[3] = { 0.0, 0.0, 0.0 }, reach, rise, u;
    int i, k, accepted = 0;
    centre_points(n, p);
    for (i = 0; i < n; ++i) {
        uint32_t w[4];
        target_words(r, w);
        reach = w[3] & 3 ? step : 5.0 * step;
        for (rise = 0.0, k = 0; k < d; ++k) {
            double move = reach * (((double)w[k] + 0.5) * (1.0 / 2147483648.0) - 1.0);
            to[k] = p[i][k] + move;
            if (kind == PAIR_LENNARD_JONES)
                rise += move * (0.5 * (to[k] + p[i][k]) - (drift[k] + 0.5 * move) / n);
        }
        rise += cluster_rise(kind, n, p, i, p[i], to);
        u = ((double)(w[3] >> 8) + 0.5) * (1.0 / 16777216.0);
        if (!(u < (double)vgs_expf((float)(-rise / tau)))) continue;
        for (k = 0; k < d; ++k) {
            drift[k] += to[k] - p[i][k];
            p[i][k] = to[k];
        }
        accepted++;
    }
    return accepted;
}

/* NAME_energy and NAME_builtin of n particles in d dimensions */
#define CLUSTER(name, kind, n, d, pair_source)                                                            \
    static const target_cluster name##_cluster = { kind, n, d };                                          \
    TARGET_ENERGY(name##_energy, n * d, cluster_energy, name##_cluster)                                   \
    static inline int name##_sweep(double p[][3], double step, double tau, vgs_rng *r)                    \
    { return cluster_sweep(kind, n, d, p, step, tau, r); }                                                \
    static const target_builtin name##_builtin =                                                          \
        { NULL, NULL, NULL, name##_sweep, { pair_source, cluster_source } };

CLUSTER(dw4, PAIR_DOUBLE_WELL, 4, 2, double_well_source)
CLUSTER(lj13, PAIR_LENNARD_JONES, 13, 3, lennard_jones_source)
CLUSTER(lj55, PAIR_LENNARD_JONES, 55, 3, lennard_jones_source)
#undef CLUSTER
#undef TARGET_ENERGY

/* ==== the list ====================================================================================== */

static const target target_list[] = {
    /* name, summary, D, n, d, energy, user, exact, log Z known, log Z, modes, length, plot, builtin */
    { "four-gauss", "4 Gaussians at (+-2, +-2), variance 0.13", 2, 0, 0,
      four_gauss_energy, NULL, true, true, 0.0, 4, 2.0, 4.0, &four_gauss_builtin },
    { "gmm9", "9 Gaussians on a 3 x 3 grid of spacing 5, variance 0.3", 2, 0, 0,
      gmm9_energy, NULL, true, true, 0.0, 9, 4.1, 8.0, &gmm9_builtin },
    { "gmm25", "25 Gaussians on a 5 x 5 grid of spacing 5, variance 0.3", 2, 0, 0,
      gmm25_energy, NULL, true, true, 0.0, 25, 7.1, 13.0, &gmm25_builtin },
    { "gmm40", "40 Gaussians at random places of [-40, 40]^2, std 1.313", 2, 0, 0,
      gmm40_energy, NULL, true, true, 0.0, 40, 23.0, 48.0, &gmm40_builtin },
    { "funnel", "Neal's funnel in 10 dimensions: std 3, then variance exp(x1)", 10, 0, 0,
      funnel_energy, NULL, true, true, 0.0, 0, 3.0, 0.0, &funnel_builtin },
    { "manywell32", "16 tilted double wells, 2 dimensions each", 32, 0, 0,
      manywell_energy, NULL, true, true, MANYWELL_LOG_Z, 0, 1.7, 0.0, &manywell_builtin },
    { "dw4", "4 particles in 2-D with double-well pair energies", 8, 4, 2,
      dw4_energy, NULL, false, false, 0.0, 0, 2.0, 0.0, &dw4_builtin },
    { "lj13", "13 Lennard-Jones particles in 3-D, in a harmonic trap", 39, 13, 3,
      lj13_energy, NULL, false, false, 0.0, 0, 0.8, 0.0, &lj13_builtin },
    { "lj55", "55 Lennard-Jones particles in 3-D, in a harmonic trap", 165, 55, 3,
      lj55_energy, NULL, false, false, 0.0, 0, 1.2, 0.0, &lj55_builtin }
};

/* NULL past the last one. */
static inline const target *target_at(int i)
{
    return i >= 0 && i < (int)(sizeof target_list / sizeof *target_list) ? &target_list[i] : NULL;
}

/* NULL if there is none of that name. */
static inline const target *target_find(const char *name)
{
    const target *t;
    int i;
    for (i = 0; name && (t = target_at(i)) != NULL; ++i) if (!strcmp(t->name, name)) return t;
    return NULL;
}

static inline vgs_energy target_energy(const target *t)
{
    vgs_energy e;
    memset(&e, 0, sizeof e);
    e.eval = t->eval;
    e.user = t->user;
    e.dim = t->dim;
    e.particles = t->particles;
    e.thread_safe = t->builtin != NULL;          /* of another's callback that is not known           */
    return e;
}

/* Standard deviation of coordinate i; NaN if it is not known. */
static inline double target_std(const target *t, int i)
{
    return t->builtin && t->builtin->std && i >= 0 && i < t->dim ? t->builtin->std(t, i) : (double)NAN;
}

/* x: [dim], the centre of mode k; unchanged where there is none. */
static inline void target_mode(const target *t, int k, float *x)
{
    const target_mixture *m = t->builtin ? t->builtin->mixture : NULL;
    if (!m || k < 0 || k >= m->modes) return;
    x[0] = (float)m->centre[k][0];
    x[1] = (float)m->centre[k][1];
}

/* n exact, independent samples: x [n,dim]. VGS_E_ARG if exact_samples is false. */
static inline vgs_status target_sample(const target *t, vgs_rng *r, int n, float *x, vgs_error *err)
{
    int i;
    if (n < 0) return target_fail(err, VGS_E_ARG, "target_sample: n = %d: must not be negative", n);
    if (!t->builtin || !t->builtin->sample)
        return target_fail(err, VGS_E_ARG, "%s has no exact samples: target_reference and metropolis make "
                           "others", t->name);
    for (i = 0; i < n; ++i, x += t->dim) t->builtin->sample(t, r, x);
    return VGS_OK;
}

/* ==== reference samples ============================================================================= */

#include "metropolis.h"

/* Chains turn and exchange particles slowly, so the rows of one chain resemble each other. The energy cares
   about neither, so a random shuffle makes the rows as independent as their shapes are. */
static inline void target_shuffle(const target *t, uint64_t seed, int n, float *x)
{
    float y[3 * TARGET_MAX_PARTICLES];
    vgs_rng r = target_rng(seed, TARGET_SHUFFLE);
    int i;
    for (i = 0; i < n; ++i, x += t->dim) {
        vgs_shuffle_particles(&r, x, t->particles, t->space_dim, y, NULL);
        memcpy(x, y, (size_t)t->dim * sizeof *y);
    }
}

/* n samples at tau = 1: exact ones where they exist, else metropolis with settings that were checked for the
   built-in targets. Particles: each row has mean 0; rows of built-in ones are turned, reflected and permuted
   at random. Any part of the rows is as good a sample as the whole. threads 0 is all. */
static inline vgs_status target_reference(const target *t, uint64_t seed, int n, float *x, int threads,
                                          vgs_error *err)
{
    vgs_rng r = target_rng(seed, TARGET_CHAINS);
    metropolis_config c;
    vgs_status status;
    if (t->exact_samples) return target_sample(t, &r, n, x, err);
    memset(&c, 0, sizeof c);
    c.target = t;
    c.seed = seed;
    c.threads = threads;
    c.thin = t->dim <= 8 ? 250 : t->dim <= 39 ? 400 : 1000;          /* dw4, lj13, lj55: decorrelated */
    c.burn_in = t->dim <= 39 ? 4000 : 10000;
    status = metropolis(&c, n, x, NULL, err);
    if (!status && t->builtin && t->particles) target_shuffle(t, seed, n, x);
    return status;
}

/* ==== presets =======================================================================================
   "paper" = the published settings (four-gauss, gmm9, funnel, dw4, lj13), "fast" = ours, for two CPU cores
   and minutes. */

typedef struct preset_info {
    int   iterations;             /* that the preset is meant to run                                  */
    float noise_scale;            /* of the published evaluation; 1 for ours                          */
    bool  skip_final_noise;       /* likewise                                                         */
} preset_info;

typedef struct preset_row {
    const char *target, *preset;
    preset_info info;
    const char *fields;                          /* "name value name value ..."                       */
} preset_row;

/* Where our settings are alike: a geometric path, smooth L1, and the limits that are defaults. */
#define PRESET_OURS "layers 3 time_dim 32 time_hidden 64 batch 128 "

/* Of a policy, whatever trains it. */
#define PRESET_POLICY \
    "kernel policy hidden 64 time_dim 32 time_hidden 64 policy_hidden 64 policy_time_dim 32 " \
    "policy_time_hidden 64 batch 256 value_lr 1e-3 policy_lr 2e-4 policy_ema 0.99 "

#define PRESET_AS_PUBLISHED "drift_max 1e30 grad_max 1e30 published 1 "

static const preset_row preset_list[] = {
    { "four-gauss", "paper", { 5000, 1.0f, false },
      PRESET_AS_PUBLISHED
      "steps 10 schedule quad s2_start 0.1 s2_end 0.01 alpha vp value_lr 1e-4 sigma_lr 1e-2 "
      "target_ema 0.995 batch 128 passes 3 explore 1.2 loss l2 value temb hidden 128 time_dim 128" },
    { "gmm9", "paper", { 3000, 1.0f, false },
      PRESET_AS_PUBLISHED
      "steps 20 schedule quad s2_start 0.2 s2_end 0.1 alpha vp value_lr 1e-4 sigma_lr 1e-3 "
      "target_ema 0.9 batch 128 passes 1 explore 1.2 loss l2 value temb hidden 1024 time_dim 1024" },
    { "funnel", "paper", { 2000, 1.0f, false },
      PRESET_AS_PUBLISHED
      "steps 30 schedule quad s2_start 0.5 s2_end 5e-4 alpha ve value_lr 1e-4 sigma_lr 1e-2 "
      "target_ema 0.95 batch 1024 passes 3 explore 1.1 loss l2 value deeperv2 hidden 1024 time_dim 1024 "
      "energy_max 100 scale_by_dim 1" },
    { "dw4", "paper", { 3000, 1.0f, true },
      PRESET_AS_PUBLISHED
      "steps 30 schedule quad s2_start 0.1 s2_end 1e-4 alpha ve value_lr 1e-5 sigma_lr 1e-3 "
      "target_ema 0 batch 512 passes 3 explore 1.2 loss smooth_l1 value temb hidden 512 time_dim 512 "
      "wrapper sorted scale_by_dim 1" },
    { "lj13", "paper", { 30000, 0.9f, true },
      PRESET_AS_PUBLISHED
      "steps 100 schedule exp s2_start 0.05 s2_end 1e-4 alpha ve value_lr 1e-5 sigma_lr 1e-4 "
      "target_ema 0.9 batch 512 passes 3 explore 1.2 loss smooth_l1 value deeperv3 hidden 512 time_dim 128 "
      "time_hidden 512 wrapper reciprocal energy_max 100 grad_max 1 scale_by_dim 1" },
    { "four-gauss", "fast", { 800, 1.0f, false },
      PRESET_OURS
      "hidden 64 length_scale 2.03 steps 16 s2_start 0.82 s2_end 0.026 init_sigma 2.8 energy_max 100 "
      "local_noise 1 value_lr 7e-4 lr_half 250 sigma_lr 1e-3" },
    { "gmm9", "fast", { 900, 1.0f, false },
      PRESET_OURS
      "hidden 96 length_scale 4.1 steps 24 s2_start 5.15 s2_end 0.05 init_sigma 7.2 energy_max 100 "
      "local_noise 1 value_lr 7e-4 lr_half 300 sigma_lr 1e-3 replay 32 refine 20 correct 1" },
    { "gmm25", "fast", { 1600, 1.0f, false },
      PRESET_OURS
      "hidden 128 length_scale 7.1 steps 32 s2_start 11.2 s2_end 0.015 init_sigma 10.4 energy_max 25 "
      "local_noise 1 value_lr 1e-3 lr_half 530 sigma_lr 3e-3 replay 64 refine 20 correct 1" },
    { "gmm40", "fast", { 900, 1.0f, false },
      PRESET_OURS
      "hidden 128 length_scale 23 steps 60 s2_start 80 s2_end 0.067 init_sigma 33 x_scale 2.3 energy_max 20 "
      "windows 40 value_lr 1e-3 lr_half 350 sigma_lr 1e-2 replay 64 refine 20 correct 1" },
    { "funnel", "fast", { 2500, 1.0f, false },
      PRESET_OURS
      "hidden 128 length_scale 9 steps 80 s2_start 6 s2_end 1e-3 init_sigma 8 energy_max 200 scale_by_dim 1 "
      "explicit_drift 1 value_lr 7e-4 lr_half 700 sigma_lr 1e-3" },
    { "manywell32", "fast", { 350, 1.0f, false },
      PRESET_OURS
      "hidden 128 windows 32 x_scale 0.5 length_scale 1.5 steps 80 s2_start 3 s2_end 0.004 init_sigma 6 "
      "scale_by_dim 1 slope_loss 1 value_lr 7e-4 lr_half 100 sigma_lr 1e-3" },
    { "dw4", "fast", { 700, 1.0f, false },
      PRESET_OURS
      "value egnn hidden 32 length_scale 2.1 steps 80 s2_start 0.22 s2_end 0.0015 init_sigma 2.85 "
      "scale_by_dim 1 value_lr 1e-3 lr_half 200 sigma_lr 1e-3 correct 1" },
    { "lj13", "fast", { 160, 1.0f, false },
      PRESET_OURS
      "value egnn hidden 24 layers 1 windows 16 x_scale 0.15 length_scale 0.71 steps 200 s2_start 0.0256 "
      "s2_end 5e-5 init_sigma 1.15 energy_max 100 scale_by_dim 1 lambda 0.97 batch 64 slope_loss 1 "
      "value_lr 1e-3 lr_half 64 sigma_lr 1e-3 correct 4" },
    { "lj55", "fast", { 600, 1.0f, false },
      PRESET_OURS
      "hidden 128 length_scale 1.2 steps 100 s2_start 0.05 s2_end 1e-4 init_sigma 1.5 energy_max 20000 "
      "scale_by_dim 1 wrapper reciprocal x_scale 0.3 lambda 0.97 batch 32 value_lr 1e-3 lr_half 150 "
      "sigma_lr 5e-4" },
    { "four-gauss", "policy", { 2000, 1.0f, false },
      PRESET_POLICY "length_scale 2.03 steps 16 s2_start 0.82 s2_end 0.026 init_sigma 2.8 energy_max 100" },
    { "gmm9", "policy", { 2000, 1.0f, false },
      PRESET_POLICY "length_scale 4.1 steps 24 s2_start 5.15 s2_end 0.05 init_sigma 7.2 energy_max 100" },
    { "gmm25", "policy", { 2000, 1.0f, false },
      PRESET_POLICY "length_scale 7.1 steps 32 s2_start 11.2 s2_end 0.015 init_sigma 10.4 energy_max 100" },
    { "gmm40", "policy", { 2000, 1.0f, false },
      PRESET_POLICY "length_scale 23 steps 60 s2_start 80 s2_end 0.067 init_sigma 33 energy_max 100" },
    { "funnel", "policy", { 1000, 1.0f, false },
      PRESET_POLICY "length_scale 9 steps 80 s2_start 6 s2_end 1e-3 init_sigma 8 energy_max 200" },
    { "manywell32", "policy", { 500, 1.0f, false },
      PRESET_POLICY "length_scale 1.5 steps 80 s2_start 3 s2_end 0.004 init_sigma 6" },
    { "dw4", "policy", { 1000, 1.0f, false },
      PRESET_POLICY "length_scale 2.1 steps 80 s2_start 0.22 s2_end 0.0015 init_sigma 2.85" },
};

/* "name value name value ..." into the configuration */
static inline vgs_status preset_fields(vgs_config *cfg, const char *text, vgs_error *err)
{
    char name[32], value[32];
    int n = 0;
    for (; sscanf(text, "%31s %31s%n", name, value, &n) == 2; text += n) {
        vgs_status st = vgs_field_set(cfg, name, value, err);
        if (st) return st;
    }
    return VGS_OK;
}

/* Fills cfg, and info unless NULL; the energy is the target's. VGS_E_ARG: there is no such preset, or none
   for the target. */
static inline vgs_status preset_fill(const target *t, const char *preset, vgs_config *cfg, preset_info *info,
                                     vgs_error *err)
{
    size_t i;
    bool known = !strcmp(preset, "paper") || !strcmp(preset, "fast") || !strcmp(preset, "policy");
    if (!strcmp(preset, "none")) {               /* energy and dimension: the pilot finds the rest    */
        memset(cfg, 0, sizeof *cfg);
        cfg->energy = target_energy(t);
        if (info) info->iterations = 1000;
        return VGS_OK;
    }
    for (i = 0; i < sizeof preset_list / sizeof *preset_list; ++i) {
        const preset_row *p = &preset_list[i];
        if (strcmp(p->target, t->name) || strcmp(p->preset, preset)) continue;
        memset(cfg, 0, sizeof *cfg);
        cfg->energy = target_energy(t);
        if (info) *info = p->info;
        return preset_fields(cfg, p->fields, err);
    }
    if (known) return target_fail(err, VGS_E_ARG, "preset = %s: none for the target %s", preset, t->name);
    return target_fail(err, VGS_E_ARG, "preset = %.40s: must be fast, paper, policy or none", preset);
}
#undef PRESET_OURS
#undef PRESET_POLICY
#undef PRESET_AS_PUBLISHED

#ifdef TARGETS_POP_OPTIONS
#  undef TARGETS_POP_OPTIONS
#  pragma GCC pop_options
#endif
#endif /* TARGETS_H */
