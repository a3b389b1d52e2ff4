/* Matrix products of an OpenCL device in GFLOP/s, by every way that it has (vgs_cl_config.products): by the
   wall clock, and by seconds of this computer's processor, which tells a CPU device's rate a core.
   cc -O2 -DVGS_CL_CLBLAST bench/cl.c -o bench_cl -lclblast -lOpenCL -lm && ./bench_cl    (--help: options) */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../vgs_cl.h"
#include "clock.h"

#define SECONDS 0.05                              /* at least so long is each trial */
enum { TRIALS = 7 };

typedef struct shape { int m, n, k; } shape;
typedef struct rate { double wall, core; } rate;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void die(const vgs_error *err)
{
    fprintf(stderr, "bench_cl: %s\n", err->msg);
    exit(1);
}

static void run(vgs_backend *b, const vgs_call *c, int times)
{
    vgs_error err;
    while (times--) if (b->run(b->self, c, &err) != VGS_OK) die(&err);
    if (b->finish(b->self, &err) != VGS_OK) die(&err);
}

/* Medians; what is queued at once grows until it takes long enough. */
static rate measure(vgs_backend *b, const vgs_call *c, double flop)
{
    double wall[TRIALS], core[TRIALS], start;
    int times = 1, i;
    run(b, c, 1);
    for (i = 0; i < TRIALS; ) {
        start = now();
        core[i] = cpu_seconds();
        run(b, c, times);
        wall[i] = (now() - start) / times;
        core[i] = (cpu_seconds() - core[i]) / times;
        if (wall[i] * times < SECONDS) times *= 2;
        else ++i;
    }
    qsort(wall, TRIALS, sizeof *wall, compare);
    qsort(core, TRIALS, sizeof *core, compare);
    return (rate){ 1e-9 * flop / wall[TRIALS / 2], 1e-9 * flop / core[TRIALS / 2] };
}

static vgs_tensor tensor(vgs_backend *b, int rows, int cols, bool turned)
{
    vgs_error err;
    vgs_tensor t = { b->buffer_create(b->self, (size_t)rows * (size_t)cols, &err), 0, turned ? cols : rows,
                     turned ? rows : cols, turned ? rows : cols };
    if (!t.buf) die(&err);
    return t;
}

/* Operands are zeros: a product takes the same time for any finite numbers. */
static rate product(vgs_backend *b, shape s, int form)
{
    vgs_call c = { .op = VGS_OP_MATMUL, .i = { form } };
    rate r;
    c.in[0] = tensor(b, s.m, s.k, form == 2);
    c.in[1] = tensor(b, s.k, s.n, form == 0);
    c.out = tensor(b, s.m, s.n, false);
    r = measure(b, &c, 2.0 * s.m * s.n * s.k);
    b->buffer_free(b->self, c.in[0].buf);
    b->buffer_free(b->self, c.in[1].buf);
    b->buffer_free(b->self, c.out.buf);
    return r;
}

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: bench_cl [--json] [--device NAME] [--shape M,N,K]\n"
            "  --json           a list of {m, n, k, form, way, gflops, core_gflops}\n"
            "  --device NAME    auto, a number or a part of its name (auto)\n"
            "  --shape M,N,K    this one instead of those that a choice is measured at\n"
            "The second rate is of a second of this computer's processor: a core's, on a CPU device.\n");
    return code;
}

int main(int argc, char **argv)
{
    static const char *const ways[] = { "tall", "tile", "clblast" }, *const forms[] = { "NT", "NN", "TN" };
    shape shapes[] = { { 8, 256, 256 }, { 128, 128, 128 }, { 512, 512, 512 } };
    vgs_cl_config cfg = { 0 };
    vgs_backend *b;
    vgs_error err;
    bool json = false, first = true;
    int i, form, way, n = 3;
    for (i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--help")) return usage(0);
        else if (!strcmp(argv[i], "--json")) json = true;
        else if (!strcmp(argv[i], "--device") && i + 1 < argc) cfg.device = argv[++i];
        else if (!strcmp(argv[i], "--shape") && i + 1 < argc) {
            n = 1;
            if (sscanf(argv[++i], "%d,%d,%d", &shapes->m, &shapes->n, &shapes->k) != 3) return usage(2);
            if (shapes->m < 1 || shapes->n < 1 || shapes->k < 1) return usage(2);
        } else return usage(2);
    }
    for (way = 0; way < 3; ++way) {
        cfg.products = ways[way];
        b = vgs_cl_create(&cfg, &err);
        if (!b && err.code != VGS_E_ARG) die(&err);              /* E_ARG: this device or build lacks it */
        if (!b) continue;
        if (first && !json)
            printf("%s\n    m     n     k form way      GFLOP/s  a core\n", vgs_cl_device(b));
        for (i = 0; i < n; ++i)
            for (form = 0; form < 3; ++form, first = false) {
                const shape s = shapes[i];
                const rate r = product(b, s, form);
                if (json)
                    printf("%s\n  {\"m\": %d, \"n\": %d, \"k\": %d, \"form\": \"%s\", \"way\": \"%s\", "
                           "\"gflops\": %.2f, \"core_gflops\": %.2f}", first ? "[" : ",", s.m, s.n, s.k,
                           forms[form], ways[way], r.wall, r.core);
                else printf("%5d %5d %5d  %s  %-8s %7.1f %7.1f\n", s.m, s.n, s.k, forms[form], ways[way],
                            r.wall, r.core);
                fflush(stdout);
            }
        vgs_cl_free(b);
    }
    if (json) printf("\n]\n");
    return 0;
}
