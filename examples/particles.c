/* particles.c - a pair potential of your own, five Morse particles in the plane, with an invariant network
   cc -O2 examples/particles.c -o particles -lm && ./particles        (under a minute; -fopenmp is faster) */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 5, D = 2 * N, ROWS = 4000, BINS = 16 };

/* E = sum over pairs of depth ((1 - exp(-a (r - r0)))^2 - 1), + k/2 sum |x_i - mean|^2, which keeps the
   particles together and, because it is relative to the mean, leaves E invariant under translations. */
static int morse(void *user, const float *x, int n, int dim, float *e, float *g)
{
    const float depth = 1.0f, a = 1.2f, r0 = 1.5f, k = 0.5f;
    (void)user;
    for (int row = 0; row < n; ++row, x += dim, g += g ? dim : 0) {
        e[row] = 0.0f;
        if (g) memset(g, 0, (size_t)dim * sizeof *g);
        for (int i = 0; i < N; ++i)
            for (int j = 0; j < i; ++j) {
                float dx = x[2 * i] - x[2 * j], dy = x[2 * i + 1] - x[2 * j + 1];
                float r = sqrtf(dx * dx + dy * dy + 1e-12f), q = expf(-a * (r - r0));
                float slope = 2.0f * depth * a * (1.0f - q) * q / r + k / N;
                /* sum |x_i - mean|^2 is the sum of the squared distances of all pairs, over N */
                e[row] += depth * (q * q - 2.0f * q) + 0.5f * k / N * r * r;
                if (!g) continue;
                g[2 * i] += slope * dx; g[2 * i + 1] += slope * dy;
                g[2 * j] -= slope * dx; g[2 * j + 1] -= slope * dy;
            }
    }
    return 0;
}

/* Shares of the pair distances in BINS bins over [0, 4], and the mean energy */
static double measure(const vgs_energy *energy, const float *x, double share[BINS])
{
    static float e[ROWS];
    double sum = 0.0;
    memset(share, 0, BINS * sizeof *share);
    if (vgs_energy_eval(energy, x, ROWS, e, NULL, 1, NULL)) return (double)NAN;
    for (int row = 0; row < ROWS; ++row, x += D) {
        sum += (double)e[row];
        for (int i = 0; i < N; ++i)
            for (int j = 0; j < i; ++j) {
                double r = hypot((double)(x[2 * i] - x[2 * j]), (double)(x[2 * i + 1] - x[2 * j + 1]));
                if (r < 4.0) share[(int)(r * BINS / 4.0)] += 2.0 / ((double)ROWS * N * (N - 1));
            }
    }
    return sum / ROWS;
}

int main(void)
{
    static float x[ROWS * D], chain[ROWS * D];
    static double width[ROWS];
    vgs_config c = {
        .energy = { .eval = morse, .dim = D, .particles = N },
        .net = { .kind = VGS_NET_EGNN, .hidden = 24, .layers = 2, .time_dim = 16 },
        .length_scale = 1.5f, .detail_scale = 0.3f, .steps = 30, .energy_max = 20.0f, .scale_by_dim = true,
        .fixed_kernel = true, .batch = 64, .value_lr = 1e-3f, .lr_half = 60.0f, .sigma_lr = 3e-3f,
        .threads = 1
    };
    vgs_mcmc_config m = { .energy = c.energy, .length_scale = 1.5, .seed = 1 };
    vgs_mcmc_stats ms;
    vgs_diagnosis of_width;
    vgs_stats st;
    vgs_error err;
    vgs_rng rng = { .seed = 7 };
    vgs_sampler *s = NULL;
    double worst, ours[BINS], theirs[BINS], mean, mean_chain;
    int i;
    vgs_rng_normals(&rng, x, 20 * D);                    /* a wrong gradient is the likeliest mistake */
    if (vgs_energy_check(&c.energy, x, 20, &worst, &err)) goto failed;
    printf("gradient: worst error %.1e\n", worst);
    if (!(s = vgs_sampler_create(&c, &err))) goto failed;
    for (i = 1; i <= 6; ++i) {
        if (vgs_sampler_train(s, 25, &st, &err)) goto failed;
        printf("iteration %lld: ELBO %.2f, median energy %.2f\n", (long long)st.iteration, st.elbo,
               st.energy_median);
        fflush(stdout);
    }
    if (vgs_sampler_draw(s, NULL, ROWS, x, &err) || vgs_mcmc(&m, ROWS, chain, &ms, &err)) goto failed;
    mean = measure(&c.energy, x, ours);
    mean_chain = measure(&c.energy, chain, theirs);
    printf("mean energy %.2f, of Hamiltonian chains %.2f +- %.2f\n", mean, mean_chain, ms.energy_se);
    for (i = 0; i < ROWS; ++i)                           /* rows of chains come in the order it takes */
        width[i] = hypot((double)(chain[i * D] - chain[i * D + 2]),
                         (double)(chain[i * D + 1] - chain[i * D + 3]));
    if (vgs_diagnose(width, ROWS / ms.chains, ms.chains, &of_width, &err)) goto failed;
    printf("their distance of two particles: R-hat %.3f, ESS %.0f\n", of_width.rhat, of_width.ess);
    puts("pair distance  sampler  chains");
    for (i = 0; i < BINS; ++i)
        printf("%5.2f - %4.2f %8.4f %8.4f   %.*s\n", i * 4.0 / BINS, (i + 1) * 4.0 / BINS, ours[i],
               theirs[i], (int)(200.0 * ours[i] + 0.5), "##################################################");
    vgs_sampler_free(s);
    return 0;
failed:
    fprintf(stderr, "particles: %s\n", err.msg);
    vgs_sampler_free(s);
    return 1;
}
