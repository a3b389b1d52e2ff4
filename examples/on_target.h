/* on_target.h - what train, sample, evaluate and reference share: the built-in targets by name, where their
   energies are computed, and the one list of metrics. Include it after vgs.h, with PROGRAM defined. */
#ifndef ON_TARGET_H
#define ON_TARGET_H

#include "common.h"
#include "device.h"
#include "metrics.h"
#ifdef VGS_USE_CL
#  include "targets_cl.h"
#endif

static inline const target *find_target(const char *name)
{
    const target *t = target_find(name);
    if (t) return t;
    fprintf(stderr, PROGRAM ": %.60s: there is no such target; the targets are", name);
    for (int i = 0; target_at(i); ++i) fprintf(stderr, "%s %s", i ? "," : "", target_at(i)->name);
    fputc('\n', stderr);
    return NULL;
}

static inline void print_targets(void)
{
    puts("\nTargets:");
    for (int i = 0; target_at(i); ++i)
        printf("  %-12s %s\n", target_at(i)->name, target_at(i)->summary);
}

/* t's energy, computed where the device is. */
static inline vgs_status device_energy(const device *d, const target *t, vgs_energy *energy, vgs_error *err)
{
#ifdef VGS_USE_CL
    if (d->backend) return target_cl_energy(t, d->backend, energy, err);
#endif
    (void)d;
    (void)err;
    *energy = target_energy(t);
    return VGS_OK;
}

/* Of the target itself: not at another temperature, nor of its density on a sphere. */
static inline double true_log_z(const target *t, float tau, bool on_sphere)
{
    return t->log_z_known && tau == 1.0f && !on_sphere ? t->log_z : (double)NAN;
}

/* ==== metrics: the one list that the summary, the JSON and the report are made from ================= */

typedef struct metric { const char *name, *label; size_t at; const char *meaning; } metric;

static const metric metric_list[] = {
#define METRIC(field, label, meaning) { #field, label, offsetof(metrics, field), meaning },
    METRIC(delta_std,   "delta-std",     "mean error of the coordinates' standard deviations")
    METRIC(sinkhorn,    "Sinkhorn",      "transport distance to the reference (100 rounds, eps 1e-3)")
    METRIC(w2,          "W2",            "2-Wasserstein distance of mean-free coordinates")
    METRIC(w2_aligned,  "W2 aligned",    "the same after matching particles, turning and reflecting")
    METRIC(energy_w2,   "energy W2",     "2-Wasserstein distance of the energies")
    METRIC(outliers,    "outliers",      "share of samples above the reference's highest energy")
    METRIC(tvd_e,       "TVD-E fixed",   "energy histograms, 200 bins over [-100, 100]")
    METRIC(tvd_d,       "TVD-D fixed",   "pair-distance histograms, 200 bins over [-100, 100]")
    METRIC(tvd_e_range, "TVD-E",         "energy histograms, 200 bins over the reference's range")
    METRIC(tvd_d_range, "TVD-D",         "pair-distance histograms, 200 bins over the reference's range")
#undef METRIC
};
enum { METRICS = (int)(sizeof metric_list / sizeof *metric_list) };

typedef struct evaluation {
    metrics value, floor, spread;
    int floor_n;
    double out_of_range;     /* share of the samples' values outside the bins                            */
} evaluation;

static inline double metric_of(const metrics *m, int i)
{
    double v;
    memcpy(&v, (const char *)m + metric_list[i].at, sizeof v);
    return v;
}

/* A metric whose floor has no value does not apply to the target. */
static inline bool metric_applies(const evaluation *e, int i)
{
    return !isnan(metric_of(&e->floor, i)) || !isnan(metric_of(&e->value, i));
}

/* x [n,dim] against ref [n_ref,dim]. The floor wants ten sets as large as the samples: they are parts of
   ref where it is that long, and made on the spot otherwise, so that both are at the same n. */
static inline vgs_status evaluate(const target *t, const float *x, int n, const float *ref, int n_ref,
                                  uint64_t seed, int threads, evaluation *out, vgs_error *err)
{
    vgs_status st = metrics_evaluate(t, x, n, ref, n_ref, threads, &out->value, err);
    bool enough = st == VGS_OK && n_ref / 10 >= out->value.n;
    if (st == VGS_OK)
        st = metrics_floor(t, out->value.n, enough ? ref : NULL, enough ? n_ref : 0, seed, threads,
                                &out->floor, &out->spread, &out->floor_n, err);
    out->out_of_range = t->particles ? out->value.outside_e : out->value.outside_e_range;
    return st;
}

static inline void print_metrics(const evaluation *e, bool meanings)
{
    char v[32], f[32], s[32], r[32];
    printf("  %-12s %10s %10s   %-9s %7s%s\n", "metric", "value", "floor", "+-", "ratio",
           meanings ? "   meaning" : "");
    for (int i = 0; i < METRICS; ++i) {
        double value = metric_of(&e->value, i), base = metric_of(&e->floor, i);
        if (!metric_applies(e, i)) continue;
        number(value / base, r);
        if (!isnan(value / base)) snprintf(r, sizeof r, "%.2f", value / base);
        printf("  %-12s %10s %10s   %-9s %7s", metric_list[i].label, number(value, v), number(base, f),
               number(metric_of(&e->spread, i), s), r);
        printf(meanings ? "   %s\n" : "\n", metric_list[i].meaning);
    }
}

#endif /* ON_TARGET_H */
