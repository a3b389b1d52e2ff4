/* metropolis.h - many independent Metropolis chains: the reference samples of targets.h, which includes it.
   Built-in particles move one at a time, at the price of n - 1 pair terms; any other energy is called once
   for a move of all chains, on the calling thread. While burning in, the temperature falls from `hot` times
   tau to tau (so that clusters form from random starts) and each chain fits its step to an acceptance of 0.3;
   after that both are fixed. The result depends on the seed, not on the number of threads. */
#ifndef METROPOLIS_H
#define METROPOLIS_H

/* A zeroed field takes the default shown. */
typedef struct metropolis_config {
    const struct target *target;  /* required                                                         */
    int           chains;         /* 64, but no more than n                                           */
    int           burn_in;        /* sweeps before the first sample; 4000                             */
    int           thin;           /* sweeps from one sample of a chain to the next; 50                */
    double        tau;            /* temperature; 1                                                   */
    double        hot;            /* where the temperature starts, in units of tau, >= 1; 4           */
    double        step;           /* first step size; length_scale / 2                                */
    const float  *start;          /* [chains,dim]; NULL: normal numbers times length_scale            */
    uint64_t      seed;
    int           threads;        /* 0 = all                                                          */
} metropolis_config;

typedef struct metropolis_stats {
    double acceptance;            /* of the moves after burn-in                                       */
    double energy_calls;          /* energies computed; for built-in particles, pair terms / (n(n-1)/2) */
    double energy_mean;           /* of the samples                                                   */
    double energy_error;          /* its standard error, from the means of the chains                 */
} metropolis_stats;

#define METROPOLIS_WINDOW 20                     /* sweeps between two corrections of the step        */
#define METROPOLIS_ACCEPT 0.3                    /* share of moves that should be accepted            */

/* Temperature of sweep s: falls geometrically from hot tau to tau in 0.6 of the burn-in, then stays. */
static inline double metropolis_temperature(const metropolis_config *c, int s)
{
    double part = (double)s / (0.6 * c->burn_in + 1.0);
    return part < 1.0 ? c->tau * pow(c->hot, 1.0 - part) : c->tau;
}

static inline double metropolis_step(double step, double rate, double scale)
{
    double s = step * exp(rate - METROPOLIS_ACCEPT);
    s = s < 1e-6 * scale ? 1e-6 * scale : s;
    return s > 1e3 * scale ? 1e3 * scale : s;
}

/* One chain of a built-in cluster: burns in, then fills rows chain, chain + chains, ... of x [n,dim].
   Returns the share of moves accepted after burn-in. */
static inline double metropolis_cluster(const metropolis_config *c, int chain, int n, float *x)
{
    const target *t = c->target;
    double p[TARGET_MAX_PARTICLES][3], step = c->step, accepted = 0.0, moves = 0.0;
    float start[3 * TARGET_MAX_PARTICLES];
    vgs_rng r = target_rng(c->seed, TARGET_CHAINS + (uint32_t)chain);
    int i, k, s, window = 0, d = t->space_dim;
    vgs_rng_normals(&r, start, (size_t)t->dim);
    for (k = 0; k < t->dim; ++k) start[k] *= (float)t->length_scale;
    if (c->start) memcpy(start, c->start + (size_t)chain * (size_t)t->dim, (size_t)t->dim * sizeof(float));
    memset(p, 0, sizeof p);
    for (k = 0; k < t->dim; ++k) p[k / d][k % d] = (double)start[k];
    for (s = 0; s < c->burn_in; ++s) {
        window += t->builtin->sweep(p, step, metropolis_temperature(c, s), &r);
        if ((s + 1) % METROPOLIS_WINDOW) continue;
        step = metropolis_step(step, (double)window / (METROPOLIS_WINDOW * t->particles), t->length_scale);
        window = 0;
    }
    for (i = chain; i < n; i += c->chains) {
        float *row = x + (size_t)i * (size_t)t->dim;
        for (s = 0; s < c->thin; ++s) accepted += t->builtin->sweep(p, step, c->tau, &r);
        moves += (double)c->thin * t->particles;
        centre_points(t->particles, p);
        for (k = 0; k < t->dim; ++k) row[k] = (float)p[k / d][k % d];
    }
    return accepted / moves;
}

static inline void metropolis_clusters(const metropolis_config *c, int n, float *x, metropolis_stats *stats)
{
    double accepted = 0.0, sweeps = 0.0;
    int i, team = target_threads(c->threads);
    double rate[1024];
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team) schedule(dynamic)
#endif
    for (i = 0; i < c->chains; ++i) rate[i] = metropolis_cluster(c, i, n, x);
    for (i = 0; i < c->chains; ++i) accepted += rate[i] / c->chains;
    sweeps = (double)c->burn_in * c->chains + (double)c->thin * n;
    stats->acceptance = accepted;
    stats->energy_calls = 4.0 * sweeps;           /* n moves of 2(n-1) terms are 4 times n(n-1)/2 */
}

/* State of the chains that move together: x, y [chains,dim] are where they are and where they might go. */
typedef struct metropolis_batch {
    float   *x, *y, *ex, *ey;
    double  *step;
    int     *accepted;            /* moves taken since the last look                                  */
    vgs_rng *rng;
} metropolis_batch;

static inline void metropolis_batch_free(metropolis_batch *b)
{
    target_free(b->x);
    target_free(b->y);
    target_free(b->ex);
    target_free(b->ey);
    target_free(b->step);
    target_free(b->accepted);
    target_free(b->rng);
}

/* y = scale * N(0, I) for one chain; particles: of mean 0. */
static inline void metropolis_batch_noise(const target *t, vgs_rng *r, double scale, float *y)
{
    int i, k, n = t->particles, d = t->space_dim;
    vgs_rng_normals(r, y, (size_t)t->dim);
    for (i = 0; i < t->dim; ++i) y[i] = (float)(scale * (double)y[i]);
    for (k = 0; k < (n ? d : 0); ++k) {
        double mean = 0.0;
        for (i = 0; i < n; ++i) mean += (double)y[i * d + k];
        for (i = 0; i < n; ++i) y[i * d + k] = (float)((double)y[i * d + k] - mean / n);
    }
}

static inline vgs_status metropolis_batch_energy(const metropolis_config *c, const float *x, float *e,
                                                 vgs_error *err)
{
    const target *t = c->target;
    if (t->eval(t->user, x, c->chains, t->dim, e, NULL))
        return target_fail(err, VGS_E_ENERGY, "metropolis: the energy callback failed");
    return VGS_OK;
}

static inline vgs_status metropolis_batch_open(const metropolis_config *c, metropolis_batch *b,
                                               vgs_error *err)
{
    const target *t = c->target;
    size_t chains = (size_t)c->chains, dim = (size_t)t->dim;
    int i;
    memset(b, 0, sizeof *b);
    b->x = (float *)target_alloc(err, "metropolis", chains * dim, sizeof(float));
    b->y = (float *)target_alloc(err, "metropolis", chains * dim, sizeof(float));
    b->ex = (float *)target_alloc(err, "metropolis", chains, sizeof(float));
    b->ey = (float *)target_alloc(err, "metropolis", chains, sizeof(float));
    b->step = (double *)target_alloc(err, "metropolis", chains, sizeof(double));
    b->accepted = (int *)target_alloc(err, "metropolis", chains, sizeof(int));
    b->rng = (vgs_rng *)target_alloc(err, "metropolis", chains, sizeof(vgs_rng));
    if (!b->x || !b->y || !b->ex || !b->ey || !b->step || !b->accepted || !b->rng) return VGS_E_NOMEM;
    for (i = 0; i < c->chains; ++i) {
        float *xi = b->x + (size_t)i * dim;
        b->rng[i] = target_rng(c->seed, TARGET_CHAINS + (uint32_t)i);
        b->step[i] = c->step;
        metropolis_batch_noise(t, &b->rng[i], t->length_scale > 0.0 ? t->length_scale : 1.0, xi);
        if (c->start) memcpy(xi, c->start + (size_t)i * dim, dim * sizeof(float));
    }
    return metropolis_batch_energy(c, b->x, b->ex, err);
}

/* One move of every chain. From an energy that is not finite every finite one is accepted. */
static inline vgs_status metropolis_batch_move(const metropolis_config *c, metropolis_batch *b, double tau,
                                               vgs_error *err)
{
    size_t dim = (size_t)c->target->dim, k;
    int i;
    for (i = 0; i < c->chains; ++i) {
        float *xi = b->x + (size_t)i * dim, *yi = b->y + (size_t)i * dim;
        metropolis_batch_noise(c->target, &b->rng[i], b->step[i], yi);
        for (k = 0; k < dim; ++k) yi[k] += xi[k];
    }
    if (metropolis_batch_energy(c, b->y, b->ey, err)) return VGS_E_ENERGY;
    for (i = 0; i < c->chains; ++i) {
        double u = vgs_rng_uniform(&b->rng[i]), rise = (double)b->ey[i] - (double)b->ex[i];
        bool lost = !(fabs((double)b->ex[i]) <= (double)FLT_MAX) && fabs((double)b->ey[i]) <= (double)FLT_MAX;
        if (!lost && !(u < (double)vgs_expf((float)(-rise / tau)))) continue;
        memcpy(b->x + (size_t)i * dim, b->y + (size_t)i * dim, dim * sizeof(float));
        b->ex[i] = b->ey[i];
        b->accepted[i]++;
    }
    return VGS_OK;
}

static inline vgs_status metropolis_batch_run(const metropolis_config *c, int n, float *x,
                                              metropolis_batch *b, metropolis_stats *stats, vgs_error *err)
{
    size_t dim = (size_t)c->target->dim;
    double accepted = 0.0, scale = c->target->length_scale > 0.0 ? c->target->length_scale : 1.0;
    int i, s, row, rounds = (n + c->chains - 1) / c->chains;
    for (s = 0; s < c->burn_in; ++s) {
        if (metropolis_batch_move(c, b, metropolis_temperature(c, s), err)) return VGS_E_ENERGY;
        for (i = 0; i < c->chains && (s + 1) % METROPOLIS_WINDOW == 0; ++i) {
            b->step[i] = metropolis_step(b->step[i], (double)b->accepted[i] / METROPOLIS_WINDOW, scale);
            b->accepted[i] = 0;
        }
    }
    memset(b->accepted, 0, (size_t)c->chains * sizeof(int));
    for (row = 0; row < n; row += c->chains) {
        size_t rows = (size_t)(n - row < c->chains ? n - row : c->chains);
        for (s = 0; s < c->thin; ++s)
            if (metropolis_batch_move(c, b, c->tau, err)) return VGS_E_ENERGY;
        memcpy(x + (size_t)row * dim, b->x, rows * dim * sizeof(float));
    }
    for (i = 0; i < c->chains; ++i) accepted += b->accepted[i];
    stats->acceptance = accepted / ((double)rounds * c->thin * c->chains);
    stats->energy_calls = (double)c->chains * (1.0 + c->burn_in + (double)rounds * c->thin);
    return VGS_OK;
}

/* Mean energy of x and its standard error from the chains' means: rows i modulo chains are one chain. */
static inline vgs_status metropolis_energies(const metropolis_config *c, int n, const float *x,
                                             metropolis_stats *stats, vgs_error *err)
{
    const target *t = c->target;
    float *e = (float *)target_alloc(err, "metropolis", (size_t)n, sizeof(float));
    double mean = 0.0, square = 0.0, chains = c->chains;
    int i, k;
    if (!e) return VGS_E_NOMEM;
    if (t->eval(t->user, x, n, t->dim, e, NULL)) {
        target_free(e);
        return target_fail(err, VGS_E_ENERGY, "metropolis: the energy callback failed");
    }
    for (i = 0; i < n; ++i) mean += (double)e[i] / n;
    for (k = 0; k < c->chains; ++k) {
        double own = 0.0;
        int count = 0;
        for (i = k; i < n; i += c->chains, ++count) own += (double)e[i];
        own = own / count - mean;
        square += own * own;
    }
    stats->energy_mean = mean;
    stats->energy_error = sqrt(square / (chains * (chains > 1.0 ? chains - 1.0 : 0.0)));
    target_free(e);
    return VGS_OK;
}

static inline vgs_status metropolis_check(metropolis_config *c, int n, vgs_error *err)
{
    const target *t = c->target;
    if (!t || !t->eval || t->dim < 1)
        return target_fail(err, VGS_E_ARG, "metropolis: config.target is missing, or has no energy or no "
                           "dim");
    if (n < 1) return target_fail(err, VGS_E_ARG, "metropolis: n = %d: must be > 0", n);
    if (t->particles && t->particles * t->space_dim != t->dim)
        return target_fail(err, VGS_E_ARG, "metropolis: target has %d particles in %d dimensions, but dim = "
                           "%d", t->particles, t->space_dim, t->dim);
    if (c->chains == 0) c->chains = 64;
    if (c->burn_in == 0) c->burn_in = 4000;
    if (c->thin == 0) c->thin = 50;
    if (c->tau == 0.0) c->tau = 1.0;
    if (c->hot == 0.0) c->hot = 4.0;
    if (c->step == 0.0) c->step = t->length_scale > 0.0 ? 0.5 * t->length_scale : 0.5;
    if (c->chains < 1 || c->chains > 1024)
        return target_fail(err, VGS_E_ARG, "metropolis: config.chains = %d: must be in 1..1024", c->chains);
    if (c->burn_in < 1 || c->thin < 1)
        return target_fail(err, VGS_E_ARG, "metropolis: config.burn_in = %d, config.thin = %d: must be > 0",
                           c->burn_in, c->thin);
    if (!(c->tau > 0.0 && c->tau < 1e30 && c->step > 0.0 && c->step < 1e30 && c->hot >= 1.0 && c->hot < 1e30))
        return target_fail(err, VGS_E_ARG, "metropolis: config.tau = %g, config.step = %g must be > 0 and "
                           "config.hot = %g >= 1", c->tau, c->step, c->hot);
    if (c->chains > n) c->chains = n;
    return VGS_OK;
}

/* x: [n,dim], row i from chain i modulo chains, particles with mean 0. stats may be NULL. */
static inline vgs_status metropolis(const metropolis_config *cfg, int n, float *x, metropolis_stats *stats,
                                    vgs_error *err)
{
    metropolis_config c = *cfg;
    metropolis_stats own;
    vgs_status status = metropolis_check(&c, n, err);
    metropolis_batch b;
    if (status) return status;
    memset(&own, 0, sizeof own);
    if (c.target->builtin && c.target->builtin->sweep) {
        metropolis_clusters(&c, n, x, &own);
    } else {
        status = metropolis_batch_open(&c, &b, err);
        if (!status) status = metropolis_batch_run(&c, n, x, &b, &own, err);
        metropolis_batch_free(&b);
    }
    if (!status && stats) status = metropolis_energies(&c, n, x, &own, err);
    if (!status && stats) *stats = own;
    return status;
}

#endif /* METROPOLIS_H */
