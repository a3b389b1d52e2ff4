/* cc -O2 -fopenmp bench/ebm_step.c -o build/bench_ebm_step -lm && build/bench_ebm_step mvtec 3
   Seconds of an iteration of contrastive divergence by a preset of examples/ebm.c, on random directions of
   272 columns: wall time, time of the processor, memory. bench/torch_ebm.py is the same in PyTorch. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_ebm_step"
#include "../examples/common.h"
#include "../examples/ebm_presets.h"

enum { ROWS = 20000, COLS = 272 };

int main(int argc, char **argv)
{
    vgs_ebm_config c = { .net = { .dim = COLS } };
    vgs_error err;
    vgs_rng r = { .seed = 1 };
    int n = argc > 2 ? atoi(argv[2]) : 3;
    bool fast = argc > 1 && !strcmp(argv[1], "fast");
    float *x = malloc((size_t)ROWS * COLS * sizeof *x);
    vgs_data data = { .x = x, .rows = ROWS, .dim = COLS };
    double wall = 1e9, cpu = 1e9;
    if (!x || n < 1) return EXIT_FAILED;
    if (fast) preset_fast(&c);
    else preset_mvtec(&c);
    c.sampler.threads = argc > 3 ? atoi(argv[3]) : 0;
    c.fit = 0;
    vgs_rng_normals(&r, x, (size_t)ROWS * COLS);
    for (int i = 0; i < ROWS * COLS; ++i) x[i] += 0.5f;
    vgs_ebm *m = vgs_ebm_create(&c, &err);
    if (!m) return fail(&err);
    for (int k = 0; k <= n; ++k) {               /* the first run is not counted                      */
        double start = seconds_now(), used = (double)clock() / CLOCKS_PER_SEC;
        if (vgs_ebm_train(m, &data, 1, NULL, &err)) return fail(&err);
        if (k && seconds_now() - start < wall) wall = seconds_now() - start;
        if (k) cpu = fmin(cpu, (double)clock() / CLOCKS_PER_SEC - used);
    }
    printf("%s: %.2f s a step, %.2f s of the processor, %.0f MB\n", fast ? "fast" : "mvtec", wall, cpu,
           1e-6 * (double)vgs_ebm_bytes(m));
    vgs_ebm_free(m);
    free(x);
    return 0;
}
