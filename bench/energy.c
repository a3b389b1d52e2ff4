/* The energies of the built-in targets, with and without gradient: rows a second, one thread.
   cc -O2 bench/energy.c -o bench_energy -lm && ./bench_energy  (--json: a list of {target, gradient, ...}) */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"

#include "clock.h"

enum { ROWS = 512, TRIALS = 7 };

/* The best of several trials of at least 10 ms */
static double rows_per_second(const target *t, const float *x, float *e, float *g)
{
    double best = 0.0;
    int i;
    for (i = 0; i < TRIALS; ++i) {
        double start = now(), seconds;
        long rows = 0;
        do {
            t->eval(t->user, x, ROWS, t->dim, e, g);
            rows += ROWS;
        } while ((seconds = now() - start) < 0.01);
        if ((double)rows / seconds > best) best = (double)rows / seconds;
    }
    return best;
}

int main(int argc, char **argv)
{
    bool json = argc > 1 && !strcmp(argv[1], "--json");
    int k, gradient;
    if (argc > 1 && !json) {
        puts("usage: bench_energy [--json]");
        return strcmp(argv[1], "--help") ? 2 : 0;
    }
    for (k = 0; target_at(k); ++k) {
        const target *t = target_at(k);
        size_t n = (size_t)ROWS * (size_t)t->dim, i;
        float *x = (float *)calloc(2 * n + ROWS, sizeof *x), *g = x ? x + n : NULL, *e = x ? g + n : NULL;
        vgs_rng rng = { 1, 0, 0 };
        if (!x) {
            fprintf(stderr, "bench_energy: out of memory\n");
            return 1;
        }
        vgs_rng_normals(&rng, x, n);
        for (i = 0; i < n; ++i) x[i] *= (float)(t->length_scale > 0.0 ? t->length_scale : 1.0);
        for (gradient = 0; gradient < 2; ++gradient) {
            double rate = rows_per_second(t, x, e, gradient ? g : NULL);
            if (json)
                printf("%s\n  {\"target\": \"%s\", \"gradient\": %s, \"rows_per_second\": %.4g}",
                       k || gradient ? "," : "[", t->name, gradient ? "true" : "false", rate);
            else printf("%-12s %-13s %10.0f rows a second  %8.1f ns a row\n", t->name,
                        gradient ? "with gradient" : "", rate, 1e9 / rate);
        }
        free(x);
    }
    if (json) puts("\n]");
    return 0;
}
