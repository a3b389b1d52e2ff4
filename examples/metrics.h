/* metrics.h - how far samples of a target are from reference samples, beside what a perfect sampler scores
   Include it after vgs.h, in the file that has the implementation.

       metrics_evaluate                       how far samples are from reference samples
       metrics_floor                          the same of a perfect sampler's samples

   No metric is zero for a perfect sampler at finite N: read each beside its floor. All depend on N, so both
   sides are cut to the shorter one. NaN means "no value": the metric does not apply to the target, or the
   samples do not allow it (said below). Energies are the target's own, unclamped. A row whose energy is not
   finite counts as outside of every histogram; energy_mean is then not finite either: use energy_median. */
#ifndef METRICS_H
#define METRICS_H

#include <limits.h>
#include "targets.h"

enum {
    METRICS_MODES = 40,                          /* of a mixture, at most                              */
    METRICS_BINS = 200,
    METRICS_TRANSPORT_MAX = 2000,                /* rows                                               */
    METRICS_PAIRS = 5,                           /* of reference sets, for a floor                     */
    METRICS_MAX_SPACE = 8,                       /* largest d of particles that can be aligned         */
    METRICS_SHUFFLE_STREAM = 0x5F0001            /* of random numbers: pair p of a floor has this + p  */
};

typedef struct metrics {
    int    n;                     /* rows compared                                                    */
    int    n_transport;           /* rows in w2 and sinkhorn: the first 2000                          */
    int    n_aligned;             /* rows in w2_aligned: the first 2000, 500 above 20 particles       */
    int    modes;                 /* entries in mode_weight; 0 if the target is no mixture            */
    double energy_mean;
    double energy_median;
    double reference_energy_mean;
    double delta_std;             /* points: mean over dimensions of |std(x) - std of the target|     */
    double sinkhorn;              /* points: <P, |x - y|>, 100 log-domain rounds at most, eps = 1e-3  */
    double w2;                    /* particles: exact 2-Wasserstein distance of mean-free coordinates */
    double w2_aligned;            /* ... where a distance is that after the best matching of particles */
                                  /*   (unsquared distances), then the best rotation or reflection    */
    double energy_w2;             /* 2-Wasserstein distance of the energies; NaN if one is not finite */
    double outliers;              /* share of the samples above the reference's highest energy        */
    double tvd_e, tvd_d;          /* particles: energies, pair distances; 200 bins over [-100, 100]   */
    double tvd_e_range;           /* energies; 200 bins over the range of the reference               */
    double tvd_d_range;           /* particles: pair distances, likewise                              */
    double outside_e, outside_d;  /* share of the samples' values outside the bins; where it, or the  */
    double outside_e_range;       /*   reference's own, is above 0.4, the histogram gives no value    */
    double outside_d_range;
    double mode_weight[METRICS_MODES];            /* share of the samples nearest to each mode        */
} metrics;

/* ==== histograms ==================================================================================== */

typedef struct metrics_hist { double lo, hi, total, inside; double bin[METRICS_BINS]; } metrics_hist;

static inline void metrics_hist_open(metrics_hist *h, double lo, double hi)
{
    memset(h, 0, sizeof *h);
    h->lo = lo;
    h->hi = hi;
}

/* Values outside [lo, hi], NaN among them, only count in the total. The last bin is closed. */
static inline void metrics_hist_add(metrics_hist *h, const float *v, size_t n)
{
    double per_unit = h->hi > h->lo ? METRICS_BINS / (h->hi - h->lo) : 0.0;        /* else no value */
    size_t i;
    for (i = 0; i < n; ++i) {
        double at = (double)v[i];
        int bin;
        if (!(at >= h->lo && at <= h->hi)) continue;
        bin = (int)((at - h->lo) * per_unit);
        h->bin[bin < METRICS_BINS ? bin : METRICS_BINS - 1] += 1.0;
        h->inside += 1.0;
    }
    h->total += (double)n;
}

/* Half the L1 distance, each histogram divided by its own count inside; NaN above 40 % outside. */
static inline double metrics_tvd(const metrics_hist *a, const metrics_hist *b, double *outside)
{
    double sum = 0.0;
    int i;
    *outside = 1.0 - a->inside / a->total;
    if (!(a->inside >= 0.6 * a->total && b->inside >= 0.6 * b->total && a->hi > a->lo)) return (double)NAN;
    for (i = 0; i < METRICS_BINS; ++i) sum += fabs(a->bin[i] / a->inside - b->bin[i] / b->inside);
    return 0.5 * sum;
}

/* Widens [lo, hi] to the finite values of v. */
static inline void metrics_widen(const float *v, size_t n, double *lo, double *hi)
{
    size_t i;
    for (i = 0; i < n; ++i) {
        double at = (double)v[i];
        if (!isfinite(at)) continue;
        *lo = at < *lo ? at : *lo;
        *hi = at > *hi ? at : *hi;
    }
}

static inline void metrics_tvd_energies(const float *e, const float *e_ref, int n, bool particles,
                                        metrics *out)
{
    metrics_hist a, b;
    double lo = HUGE_VAL, hi = -HUGE_VAL;
    metrics_widen(e_ref, (size_t)n, &lo, &hi);
    metrics_hist_open(&a, lo, hi);
    metrics_hist_open(&b, lo, hi);
    metrics_hist_add(&a, e, (size_t)n);
    metrics_hist_add(&b, e_ref, (size_t)n);
    out->tvd_e_range = metrics_tvd(&a, &b, &out->outside_e_range);
    if (!particles) return;
    metrics_hist_open(&a, -100.0, 100.0);
    metrics_hist_open(&b, -100.0, 100.0);
    metrics_hist_add(&a, e, (size_t)n);
    metrics_hist_add(&b, e_ref, (size_t)n);
    out->tvd_e = metrics_tvd(&a, &b, &out->outside_e);
}

/* The n(n-1)/2 distances of one configuration x [n,d]. */
static inline void metrics_pair_distances(int n, int d, const float *x, float *r)
{
    int i, j, k;
    for (i = 0; i < n; ++i)
        for (j = i + 1; j < n; ++j) {
            double s = 0.0;
            for (k = 0; k < d; ++k) {
                double v = (double)x[i * d + k] - (double)x[j * d + k];
                s += v * v;
            }
            *r++ = (float)sqrt(s);
        }
}

/* Distances are made again for each use rather than kept: 10000 rows of 55 particles have 15 million. */
static inline vgs_status metrics_tvd_distances(const target *t, const float *x, const float *ref, int n,
                                               metrics *out, vgs_error *err)
{
    size_t pairs = (size_t)t->particles * (size_t)(t->particles - 1) / 2, dim = (size_t)t->dim, i;
    float *r = (float *)target_alloc(err, "metrics", pairs, sizeof(float));
    double lo = HUGE_VAL, hi = -HUGE_VAL;
    metrics_hist a, b, a_range, b_range;
    if (!r) return VGS_E_NOMEM;
    for (i = 0; i < (size_t)n; ++i) {
        metrics_pair_distances(t->particles, t->space_dim, ref + i * dim, r);
        metrics_widen(r, pairs, &lo, &hi);
    }
    metrics_hist_open(&a, -100.0, 100.0);
    metrics_hist_open(&b, -100.0, 100.0);
    metrics_hist_open(&a_range, lo, hi);
    metrics_hist_open(&b_range, lo, hi);
    for (i = 0; i < (size_t)n; ++i) {
        metrics_pair_distances(t->particles, t->space_dim, ref + i * dim, r);
        metrics_hist_add(&b, r, pairs);
        metrics_hist_add(&b_range, r, pairs);
        metrics_pair_distances(t->particles, t->space_dim, x + i * dim, r);
        metrics_hist_add(&a, r, pairs);
        metrics_hist_add(&a_range, r, pairs);
    }
    out->tvd_d = metrics_tvd(&a, &b, &out->outside_d);
    out->tvd_d_range = metrics_tvd(&a_range, &b_range, &out->outside_d_range);
    target_free(r);
    return VGS_OK;
}

/* ==== moments ======================================================================================== */

static inline double metrics_column_std(const float *x, int n, int dim, int column)
{
    double mean = 0.0, square = 0.0;
    int i;
    for (i = 0; i < n; ++i) mean += (double)x[(size_t)i * (size_t)dim + (size_t)column] / n;
    for (i = 0; i < n; ++i) {
        double v = (double)x[(size_t)i * (size_t)dim + (size_t)column] - mean;
        square += v * v;
    }
    return sqrt(square / (n - 1));
}

static inline double metrics_delta_std(const target *t, const float *x, const float *ref, int n)
{
    double sum = 0.0;
    int i;
    for (i = 0; i < t->dim; ++i) {
        double want = target_std(t, i);
        if (!isfinite(want)) want = metrics_column_std(ref, n, t->dim, i);
        sum += fabs(metrics_column_std(x, n, t->dim, i) - want);
    }
    return sum / t->dim;
}

static inline int metrics_float_order(const void *a, const void *b)        /* NaN counts as larger than all */
{
    float x = *(const float *)a, y = *(const float *)b;
    if (x < y || (x == x && y != y)) return -1;
    return x > y || (x != x && y == y);
}

static inline double metrics_mean(const float *v, int n)
{
    double sum = 0.0;
    int i;
    for (i = 0; i < n; ++i) sum += (double)v[i];
    return sum / n;
}

static inline double metrics_median_in_place(float *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, metrics_float_order);
    return 0.5 * ((double)v[(n - 1) / 2] + (double)v[n / 2]);
}

static inline void metrics_mode_weights(const target *t, const float *x, int n, metrics *out)
{
    float c[METRICS_MODES][2];
    int i, k;
    out->modes = t->modes;
    for (k = 0; k < t->modes; ++k) target_mode(t, k, c[k]);
    for (i = 0; i < n; ++i) {
        double least = HUGE_VAL;
        int best = -1;
        for (k = 0; k < t->modes; ++k) {
            double a = (double)x[2 * i] - (double)c[k][0], b = (double)x[2 * i + 1] - (double)c[k][1];
            if (a * a + b * b >= least || a != a || b != b) continue;
            least = a * a + b * b;
            best = k;
        }
        if (best >= 0) out->mode_weight[best] += 1.0 / n;
    }
}

/* ==== optimal transport ============================================================================== */

/* c [n,n] = |x_i - y_j|^2, or its root; x and y are [n,dim]. */
static inline void metrics_costs(const float *x, const float *y, int n, int dim, bool root, int threads,
                                 float *c)
{
    int i, team = target_threads(threads);
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team)
#endif
    for (i = 0; i < n; ++i) {
        const float *a = x + (size_t)i * (size_t)dim, *b = y;
        float *row = c + (size_t)i * (size_t)n;
        int j, k;
        for (j = 0; j < n; ++j, b += dim) {
            double s = 0.0;
            for (k = 0; k < dim; ++k) s += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
            row[j] = (float)(root ? sqrt(s) : s);
        }
    }
}

static inline bool metrics_all_finite(const float *v, size_t n)
{
    size_t i;
    for (i = 0; i < n; ++i)
        if (!isfinite((double)v[i])) return false;
    return true;
}

/* One half of a Sinkhorn round: to_i = eps (log(1/n) - log sum_j exp((from_j - c_ij)/eps)). With eps = 1e-3
   all but a few terms are far below the largest; those that are less than exp(-104) of it are skipped. One
   pass: the sum is rescaled whenever a larger term turns up. Returns the largest change of `to`. */
static inline double metrics_sinkhorn_half(const float *c, int n, double eps, const double *from,
                                           double *to, int threads, double *change)
{
    double log_n = log((double)n), most = 0.0;
    int i, team = target_threads(threads);
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team)
#endif
    for (i = 0; i < n; ++i) {
        const float *row = c + (size_t)i * (size_t)n;
        double top = from[0] - (double)row[0], sum = 1.0, cut = top - 104.0 * eps, next;
        int j;
        for (j = 1; j < n; ++j) {
            double at = from[j] - (double)row[j];
            if (at <= cut) continue;
            if (at > top) {
                sum = sum * exp((top - at) / eps) + 1.0;
                top = at;
                cut = top - 104.0 * eps;
            } else {
                sum += exp((at - top) / eps);
            }
        }
        next = -eps * (log_n + log(sum)) - top;
        change[i] = fabs(next - to[i]);
        to[i] = next;
    }
    for (i = 0; i < n; ++i) most = change[i] > most ? change[i] : most;
    return most;
}

/* <P, c> with P_ij = exp((u_i + v_j - c_ij)/eps). */
static inline double metrics_sinkhorn_value(const float *c, int n, double eps, const double *u,
                                            const double *v)
{
    double value = 0.0;
    int i, j;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double at = (double)c[(size_t)i * (size_t)n + (size_t)j], p = (u[i] + v[j] - at) / eps;
            if (p > -104.0) value += at * exp(p);
        }
    return value;
}

/* c and its transpose ct are [n,n]; both marginals are uniform. */
static inline vgs_status metrics_sinkhorn(const float *c, const float *ct, int n, int threads,
                                          double *value, vgs_error *err)
{
    const double eps = 1e-3;
    double *u = (double *)target_alloc(err, "sinkhorn", 3 * (size_t)n, sizeof(double)), *v, *change, du, dv;
    int i;
    if (!u) return VGS_E_NOMEM;
    v = u + n;
    change = v + n;
    for (i = 0; i < n; ++i) v[i] = -eps * log((double)n);
    for (i = 0; i < 100; ++i) {
        du = metrics_sinkhorn_half(c, n, eps, v, u, threads, change);
        dv = metrics_sinkhorn_half(ct, n, eps, u, v, threads, change);
        if (du < 1e-5 && dv < 1e-5) break;
    }
    *value = metrics_sinkhorn_value(c, n, eps, u, v);
    target_free(u);
    return VGS_OK;
}

/* Linear assignment [Jonker & Volgenant 1987]: dual v of the columns, reduced costs c_ij - v_j. Rows are
   first placed greedily while v is lowered; what remains is placed along shortest augmenting paths. */
typedef struct metrics_lap {
    int          n;
    const float *c;               /* [n,n]                                                            */
    double      *v, *dist;        /* dual of a column; its distance from the row being placed         */
    int         *row, *col;       /* row of a column, column of a row; -1 = none                      */
    int         *open, *from;     /* columns, settled ones first; row before a column on its path     */
    int         *todo;            /* rows without a column                                            */
} metrics_lap;

/* The cheapest and the second cheapest column of row i, by reduced cost. */
static inline void metrics_lap_best_two(const metrics_lap *a, int i, int *j1, int *j2, double *u1,
                                        double *u2)
{
    const float *c = a->c + (size_t)i * (size_t)a->n;
    int j;
    *j1 = 0;
    *j2 = -1;
    *u1 = (double)c[0] - a->v[0];
    *u2 = HUGE_VAL;
    for (j = 1; j < a->n; ++j) {
        double h = (double)c[j] - a->v[j];
        if (h >= *u2) continue;
        if (h < *u1) {
            *u2 = *u1;
            *j2 = *j1;
            *u1 = h;
            *j1 = j;
        } else {
            *u2 = h;
            *j2 = j;
        }
    }
}

/* v_j = the least cost in column j. */
static inline void metrics_lap_columns(metrics_lap *a)
{
    int i, j;
    for (j = 0; j < a->n; ++j) a->v[j] = HUGE_VAL;
    for (i = 0; i < a->n; ++i)
        for (j = 0; j < a->n; ++j) {
            double c = (double)a->c[(size_t)i * (size_t)a->n + (size_t)j];
            a->v[j] = c < a->v[j] ? c : a->v[j];
        }
}

/* Augmenting row reduction over the `count` rows in todo: a row takes its cheapest column and lowers its v
   until the second cheapest is as good; where v does not change, by a tie or by rounding, it takes the second
   rather than drive somebody out. Who is driven out waits for the next pass: were it to go on at once, two
   rows could outbid each other by tiny steps for very long. Returns the number of rows left in todo. */
static inline int metrics_lap_reduce(metrics_lap *a, int count)
{
    int k, left = 0;
    for (k = 0; k < count; ++k) {
        int i = a->todo[k], j, j2, out;
        double u1, u2, lower;
        metrics_lap_best_two(a, i, &j, &j2, &u1, &u2);
        lower = a->v[j] - (u2 - u1);
        if (!(lower < a->v[j]) && a->row[j] >= 0) j = j2;
        else a->v[j] = lower;
        out = a->row[j];
        if (out >= 0) {
            a->col[out] = -1;
            a->todo[left++] = out;
        }
        a->row[j] = i;
        a->col[i] = j;
    }
    return left;
}

/* Moves column open[at] to place `settled`: columns before it are settled. */
static inline int metrics_lap_settle(metrics_lap *a, int settled, int at)
{
    int j = a->open[at];
    a->open[at] = a->open[settled];
    a->open[settled] = j;
    return j;
}

/* Dijkstra from a free row to the nearest free column, which it returns; then lowers v so that the path costs
   nothing. Each step settles the nearest open column and looks on from its row. */
static inline int metrics_lap_path(metrics_lap *a, int start)
{
    int n = a->n, settled = 0, i = start, j = -1, k, at;
    double reach = 0.0, base = 0.0;
    for (k = 0; k < n; ++k) {
        a->open[k] = k;
        a->dist[k] = HUGE_VAL;
    }
    for (;;) {
        const float *c = a->c + (size_t)i * (size_t)n;
        double least = HUGE_VAL;
        for (k = at = settled; k < n; ++k) {
            int q = a->open[k];
            double d = (double)c[q] - a->v[q] - base;
            if (d < a->dist[q]) {
                a->dist[q] = d;
                a->from[q] = i;
            }
            if (a->dist[q] < least || (a->dist[q] == least && a->row[q] < 0)) {
                least = a->dist[q];
                at = k;
            }
        }
        reach = least;
        j = metrics_lap_settle(a, settled, at);
        if (a->row[j] < 0) break;
        settled++;
        i = a->row[j];
        base = (double)a->c[(size_t)i * (size_t)n + (size_t)j] - a->v[j] - reach;
    }
    for (k = 0; k < settled; ++k) a->v[a->open[k]] += a->dist[a->open[k]] - reach;
    return j;
}

/* duals [2 n] and index [5 n] are its memory. */
static inline void metrics_lap_open(metrics_lap *a, int n, const float *c, double *duals, int *index)
{
    a->n = n;
    a->c = c;
    a->v = duals;
    a->dist = duals + n;
    a->row = index;
    a->col = index + n;
    a->open = index + 2 * (ptrdiff_t)n;
    a->from = index + 3 * (ptrdiff_t)n;
    a->todo = index + 4 * (ptrdiff_t)n;
}

static inline void metrics_lap_solve(metrics_lap *a)
{
    int i, j, k, pass, displaced, left = a->n;
    metrics_lap_columns(a);
    for (k = 0; k < a->n; ++k) {
        a->row[k] = a->col[k] = -1;
        a->todo[k] = k;
    }
    for (pass = 0; pass < 3; ++pass) left = metrics_lap_reduce(a, left);
    for (k = 0; k < left; ++k) {
        j = metrics_lap_path(a, a->todo[k]);
        do {
            i = a->from[j];
            a->row[j] = i;
            displaced = a->col[i];
            a->col[i] = j;
            j = displaced;
        } while (i != a->todo[k]);
    }
}

/* Least total cost of a one-to-one assignment of rows to columns, c [n,n]. */
static inline vgs_status metrics_assignment(const float *c, int n, double *total, vgs_error *err)
{
    size_t size = (size_t)n;
    double *duals = (double *)target_alloc(err, "assignment", 2 * size, sizeof(double));
    int *index = (int *)target_alloc(err, "assignment", 5 * size, sizeof(int)), i;
    metrics_lap a;
    if (duals && index) {
        metrics_lap_open(&a, n, c, duals, index);
        metrics_lap_solve(&a);
        for (*total = 0.0, i = 0; i < n; ++i) *total += (double)c[(size_t)i * size + (size_t)a.col[i]];
    }
    target_free(duals);
    target_free(index);
    return duals && index ? VGS_OK : VGS_E_NOMEM;
}

/* ==== alignment: one distance of two configurations ================================================= */

/* Sum of the singular values of h [d,d], which it destroys: one-sided Jacobi turns pairs of rows until all
   are at right angles; their lengths are the singular values. */
static inline double metrics_nuclear_norm(double *h, int d)
{
    double sum = 0.0, square;
    bool turned = true;
    int sweep, i, j, k;
    for (sweep = 0; sweep < 30 && turned; ++sweep)
        for (turned = false, i = 0; i < d; ++i)
            for (j = i + 1; j < d; ++j) {
                double *p = h + i * d, *q = h + j * d, pp = 0.0, qq = 0.0, pq = 0.0, zeta, t, c;
                for (k = 0; k < d; ++k) { pp += p[k] * p[k]; qq += q[k] * q[k]; pq += p[k] * q[k]; }
                if (!(pq * pq > 1e-24 * pp * qq)) continue;
                turned = true;
                zeta = (qq - pp) / (2.0 * pq);
                t = (zeta < 0.0 ? -1.0 : 1.0) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
                c = 1.0 / sqrt(1.0 + t * t);
                for (k = 0; k < d; ++k) {
                    double u = p[k], v = q[k];
                    p[k] = c * (u - t * v);
                    q[k] = c * (t * u + v);
                }
            }
    for (i = 0; i < d; ++i) {
        for (square = 0.0, k = 0; k < d; ++k) square += h[i * d + k] * h[i * d + k];
        sum += sqrt(square);
    }
    return sum;
}

/* Least |x - R y|^2 over rotations and reflections R, after matching the particles of y to those of x so that
   the sum of their distances is least; a: work for n particles, its costs are in c [n,n]. */
static inline float metrics_aligned_cost(metrics_lap *a, float *c, const float *x, const float *y, int d)
{
    double h[METRICS_MAX_SPACE * METRICS_MAX_SPACE] = { 0.0 }, sum = 0.0;
    int n = a->n, i, j, k;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double r = 0.0, v;
            for (k = 0; k < d; ++k) {
                v = (double)x[i * d + k] - (double)y[j * d + k];
                r += v * v;
            }
            c[i * n + j] = (float)sqrt(r);
        }
    metrics_lap_solve(a);
    for (i = 0; i < n; ++i) {
        const float *p = x + i * d, *q = y + a->col[i] * d;
        for (j = 0; j < d; ++j) {
            sum += (double)p[j] * (double)p[j] + (double)q[j] * (double)q[j];
            for (k = 0; k < d; ++k) h[j * d + k] += (double)p[j] * (double)q[k];
        }
    }
    sum -= 2.0 * metrics_nuclear_norm(h, d);
    return (float)(sum > 0.0 ? sum : 0.0);
}

/* cost [n,n] of all pairs; doubles, ints and costs: each row's own work. */
static inline void metrics_aligned_costs(const target *t, const float *x, const float *y, int n,
                                         int threads, float *cost, double *duals, int *index, float *inner)
{
    size_t p = (size_t)t->particles, dim = (size_t)t->dim;
    int i, team = target_threads(threads);
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team)
#endif
    for (i = 0; i < n; ++i) {
        metrics_lap a;
        float *c = inner + (size_t)i * p * p;
        int j;
        metrics_lap_open(&a, t->particles, c, duals + (size_t)i * 2 * p, index + (size_t)i * 5 * p);
        for (j = 0; j < n; ++j)
            cost[(size_t)i * (size_t)n + (size_t)j] =
                metrics_aligned_cost(&a, c, x + (size_t)i * dim, y + (size_t)j * dim, t->space_dim);
    }
}

/* y [n,dim] = x with the mean over each row's particles taken off. */
static inline void metrics_mean_free(const target *t, const float *x, int n, float *y)
{
    int i, j, k, d = t->space_dim;
    for (i = 0; i < n; ++i, x += t->dim, y += t->dim)
        for (k = 0; k < d; ++k) {
            double mean = 0.0;
            for (j = 0; j < t->particles; ++j) mean += (double)x[j * d + k] / t->particles;
            for (j = 0; j < t->particles; ++j) y[j * d + k] = (float)((double)x[j * d + k] - mean);
        }
}

static inline vgs_status metrics_w2(const target *t, const float *x, const float *ref, int n,
                                    int threads, double *value, vgs_error *err)
{
    size_t row = (size_t)t->dim, cells = (size_t)n * (size_t)n;
    float *y = (float *)target_alloc(err, "w2", 2 * (size_t)n * row, sizeof(float));
    float *c = (float *)target_alloc(err, "w2", cells, sizeof(float));
    vgs_status status = y && c ? VGS_OK : VGS_E_NOMEM;
    double total = 0.0;
    if (!status) {
        metrics_mean_free(t, x, n, y);
        metrics_mean_free(t, ref, n, y + (size_t)n * row);
        metrics_costs(y, y + (size_t)n * row, n, t->dim, false, threads, c);
        if (metrics_all_finite(c, cells)) {
            status = metrics_assignment(c, n, &total, err);
            if (!status) *value = sqrt(total / n);
        }
    }
    target_free(y);
    target_free(c);
    return status;
}

/* W2 with aligned distances. No value where space_dim is too large for it or a coordinate is not finite. */
static inline vgs_status metrics_w2_aligned(const target *t, const float *x, const float *ref, int n,
                                            int threads, double *value, vgs_error *err)
{
    size_t rows = (size_t)n, p = (size_t)t->particles, dim = (size_t)t->dim;
    float *y, *c, *inner;
    double *duals, total = 0.0;
    int *index;
    vgs_status status = VGS_E_NOMEM;
    if (t->space_dim > METRICS_MAX_SPACE || !metrics_all_finite(x, rows * dim) ||
        !metrics_all_finite(ref, rows * dim)) return VGS_OK;
    y = (float *)target_alloc(err, "w2_aligned", 2 * rows * dim, sizeof(float));
    c = (float *)target_alloc(err, "w2_aligned", rows * rows, sizeof(float));
    inner = (float *)target_alloc(err, "w2_aligned", rows * p * p, sizeof(float));
    duals = (double *)target_alloc(err, "w2_aligned", rows * 2 * p, sizeof(double));
    index = (int *)target_alloc(err, "w2_aligned", rows * 5 * p, sizeof(int));
    if (y && c && inner && duals && index) {
        metrics_mean_free(t, x, n, y);
        metrics_mean_free(t, ref, n, y + rows * dim);
        metrics_aligned_costs(t, y, y + rows * dim, n, threads, c, duals, index, inner);
        status = metrics_all_finite(c, rows * rows) ? metrics_assignment(c, n, &total, err) : VGS_OK;
        *value = status || !metrics_all_finite(c, rows * rows) ? *value : sqrt(total / n);
    }
    target_free(y);
    target_free(c);
    target_free(inner);
    target_free(duals);
    target_free(index);
    return status;
}

static inline vgs_status metrics_sinkhorn_points(const target *t, const float *x, const float *ref,
                                                 int n, int threads, double *value, vgs_error *err)
{
    size_t cells = (size_t)n * (size_t)n;
    float *c = (float *)target_alloc(err, "sinkhorn", 2 * cells, sizeof(float));
    vgs_status status = VGS_OK;
    if (!c) return VGS_E_NOMEM;
    metrics_costs(x, ref, n, t->dim, true, threads, c);
    metrics_costs(ref, x, n, t->dim, true, threads, c + cells);
    if (metrics_all_finite(c, cells)) status = metrics_sinkhorn(c, c + cells, n, threads, value, err);
    target_free(c);
    return status;
}

/* ==== all of them ==================================================================================== */

/* Every double of metrics but the mode weights, for functions that treat them alike. */
static const size_t metrics_offset[] = {
    offsetof(metrics, energy_mean), offsetof(metrics, energy_median),
    offsetof(metrics, reference_energy_mean), offsetof(metrics, delta_std),
    offsetof(metrics, sinkhorn), offsetof(metrics, w2), offsetof(metrics, w2_aligned),
    offsetof(metrics, energy_w2), offsetof(metrics, outliers), offsetof(metrics, tvd_e),
    offsetof(metrics, tvd_d), offsetof(metrics, tvd_e_range), offsetof(metrics, tvd_d_range),
    offsetof(metrics, outside_e), offsetof(metrics, outside_d),
    offsetof(metrics, outside_e_range), offsetof(metrics, outside_d_range)
};
enum { METRICS_COUNT = (int)(sizeof metrics_offset / sizeof *metrics_offset) };

/* Figure k; after those of the list come the mode weights. */
static inline double *metrics_at(metrics *m, int k)
{
    if (k >= METRICS_COUNT) return &m->mode_weight[k - METRICS_COUNT];
    return (double *)(void *)((char *)m + metrics_offset[k]);
}

/* Both in order afterwards. Samples whose energy is not finite are above everything. */
static inline void metrics_compare_energies(float *e, float *e_ref, int n, metrics *out)
{
    double square = 0.0, top = -HUGE_VAL;
    int i, above = 0;
    qsort(e, (size_t)n, sizeof *e, metrics_float_order);
    qsort(e_ref, (size_t)n, sizeof *e_ref, metrics_float_order);
    for (i = 0; i < n; ++i) {
        double v = (double)e[i] - (double)e_ref[i];
        square += v * v / n;
        if (isfinite((double)e_ref[i])) top = (double)e_ref[i];
    }
    for (i = 0; i < n; ++i) above += !((double)e[i] <= top);
    out->outliers = (double)above / n;
    if (metrics_all_finite(e, (size_t)n) && metrics_all_finite(e_ref, (size_t)n))
        out->energy_w2 = sqrt(square);
}

static inline vgs_status metrics_energies(const target *t, const float *x, const float *ref, int n,
                                          metrics *out, vgs_error *err)
{
    float *e = (float *)target_alloc(err, "metrics", 2 * (size_t)n, sizeof(float)), *e_ref;
    vgs_status status = VGS_OK;
    if (!e) return VGS_E_NOMEM;
    e_ref = e + n;
    if (t->eval(t->user, x, n, t->dim, e, NULL) || t->eval(t->user, ref, n, t->dim, e_ref, NULL)) {
        status = target_fail(err, VGS_E_ENERGY, "evaluate: the energy callback failed");
    } else {
        metrics_tvd_energies(e, e_ref, n, t->particles > 0, out);
        out->energy_mean = metrics_mean(e, n);
        out->reference_energy_mean = metrics_mean(e_ref, n);
        out->energy_median = metrics_median_in_place(e, n);
        metrics_compare_energies(e, e_ref, n, out);
    }
    target_free(e);
    return status;
}

/* x: [n,dim] samples, ref: [n_ref,dim] reference samples. w2 and sinkhorn are NaN if a coordinate is not
   finite or a distance overflows a float. threads 0 = all; the figures do not depend on it. */
static inline vgs_status metrics_evaluate(const target *t, const float *x, int n, const float *ref,
                                          int n_ref, int threads, metrics *out, vgs_error *err)
{
    vgs_status status;
    int k;
    if (!t || !t->eval || t->dim < 1)
        return target_fail(err, VGS_E_ARG, "evaluate: the target is missing, or has no energy or no dim");
    if (n < 2 || n_ref < 2)
        return target_fail(err, VGS_E_ARG, "evaluate: n = %d, n_ref = %d: must be at least 2", n, n_ref);
    if (t->particles && t->particles * t->space_dim != t->dim)
        return target_fail(err, VGS_E_ARG, "evaluate: target has %d particles in %d dimensions, but "
                            "dim = %d", t->particles, t->space_dim, t->dim);
    memset(out, 0, sizeof *out);
    for (k = 0; k < METRICS_COUNT; ++k) *metrics_at(out, k) = (double)NAN;
    n = n < n_ref ? n : n_ref;
    out->n = n;
    out->n_transport = n < METRICS_TRANSPORT_MAX ? n : METRICS_TRANSPORT_MAX;
    out->n_aligned = t->particles > 20 && n > 500 ? 500 : out->n_transport;
    status = metrics_energies(t, x, ref, n, out, err);
    if (status) return status;
    if (t->modes && t->builtin) metrics_mode_weights(t, x, n, out);
    if (!t->particles) {
        out->delta_std = metrics_delta_std(t, x, ref, n);
        return metrics_sinkhorn_points(t, x, ref, out->n_transport, threads, &out->sinkhorn, err);
    }
    status = metrics_tvd_distances(t, x, ref, n, out, err);
    if (!status) status = metrics_w2(t, x, ref, out->n_transport, threads, &out->w2, err);
    return status ? status : metrics_w2_aligned(t, x, ref, out->n_aligned, threads, &out->w2_aligned, err);
}

/* ==== floors ========================================================================================= */

/* Pair number `pair` of the ten parts of ref, n rows each. */
static inline vgs_status metrics_floor_pair(const target *t, const float *ref, int n, int pair,
                                            uint64_t seed, int threads, metrics *out, vgs_error *err)
{
    size_t part = (size_t)n * (size_t)t->dim, i;
    const float *a = ref + 2 * (size_t)pair * part, *b = a + part;
    float *y = (float *)target_alloc(err, "floor", part, sizeof(float));
    vgs_rng r = { seed, METRICS_SHUFFLE_STREAM + (uint32_t)pair, 0 };
    vgs_status status;
    if (!y) return VGS_E_NOMEM;
    memcpy(y, a, part * sizeof(float));
    for (i = 0; i < (t->particles ? part : 0); i += (size_t)t->dim)
        vgs_shuffle_particles(&r, a + i, t->particles, t->space_dim, y + i, NULL);
    status = metrics_evaluate(t, y, n, b, n, threads, out, err);
    target_free(y);
    return status;
}

/* Mean and standard deviation of each figure; NaN where any is. */
static inline void metrics_summarise(metrics *m, metrics *mean, metrics *spread)
{
    int k, p;
    *mean = *spread = m[0];
    for (k = 0; k < METRICS_COUNT + METRICS_MODES; ++k) {
        double sum = 0.0, square = 0.0;
        for (p = 0; p < METRICS_PAIRS; ++p) sum += *metrics_at(&m[p], k) / METRICS_PAIRS;
        for (p = 0; p < METRICS_PAIRS; ++p) {
            double v = *metrics_at(&m[p], k) - sum;
            square += v * v;
        }
        *metrics_at(mean, k) = sum;
        *metrics_at(spread, k) = sqrt(square / (METRICS_PAIRS - 1));
    }
}

/* A callback of the user's runs on the calling thread only; built-in energies let the pairs run at once. */
static inline vgs_status metrics_floor_pairs(const target *t, const float *ref, int n, uint64_t seed,
                                             int threads, metrics *m, vgs_error *err)
{
    vgs_status status[METRICS_PAIRS];
    vgs_error errs[METRICS_PAIRS];
    int p, team = t->builtin ? target_threads(threads) : 1, inner = team > 1 ? 1 : threads;
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team) schedule(dynamic)
#endif
    for (p = 0; p < METRICS_PAIRS; ++p)
        status[p] = metrics_floor_pair(t, ref, n, p, seed, inner, &m[p], &errs[p]);
    for (p = 0; p < METRICS_PAIRS; ++p) {
        if (!status[p]) continue;
        if (err) *err = errs[p];
        return status[p];
    }
    return VGS_OK;
}

/* What a perfect sampler scores at n rows: mean and standard deviation over 5 pairs of independent reference
   sets; for particles, every configuration of one side is rotated, reflected and permuted at random. With ref
   NULL the sets are made on the spot (10 n rows); else they are ten disjoint parts of ref. *floor_n is their
   size: n, or less where ref has fewer than 10 n rows. spread and floor_n may be NULL. */
static inline vgs_status metrics_floor(const target *t, int n, const float *ref, int n_ref,
                                       uint64_t seed, int threads, metrics *mean, metrics *spread,
                                       int *floor_n, vgs_error *err)
{
    int parts = 2 * METRICS_PAIRS, size = ref && n_ref / parts < n ? n_ref / parts : n;
    metrics m[METRICS_PAIRS], unused;
    vgs_status status = VGS_OK;
    float *own = NULL;
    if (!t || size < 2 || n > INT_MAX / parts)
        return target_fail(err, VGS_E_ARG, "floor: n = %d, n_ref = %d: ten parts of %d rows; need 2 or more",
                            n, n_ref, size);
    if (t->space_dim > METRICS_MAX_SPACE)
        return target_fail(err, VGS_E_ARG, "floor: target.space_dim = %d: must be at most %d",
                            t->space_dim, METRICS_MAX_SPACE);
    if (!ref) {
        size_t rows = (size_t)parts * (size_t)size;
        own = (float *)target_alloc(err, "floor", rows * (size_t)t->dim, sizeof(float));
        if (!own) return VGS_E_NOMEM;
        status = target_reference(t, seed, parts * size, own, threads, err);
        ref = own;
    }
    if (!status) status = metrics_floor_pairs(t, ref, size, seed, threads, m, err);
    if (!status) metrics_summarise(m, mean, spread ? spread : &unused);
    if (floor_n) *floor_n = size;
    target_free(own);
    return status;
}

#endif /* METRICS_H */
