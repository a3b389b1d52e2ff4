/* Normal numbers, uniform words, exp and log: millions a second, one thread, next to the C library's.
   cc -O2 bench/rng.c -o bench_rng -lm && ./bench_rng          (--json: a list of {what, mega_per_second}) */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"

#include "clock.h"

enum { N = 1 << 16, TRIALS = 15 };

static float x[N], y[N];

static void philox_words(void)
{
    uint32_t out[4];
    int i;
    for (i = 0; i < N; i += 4) {
        vgs__philox(1, 2, (uint32_t)i, 3, 4, 5, out);
        memcpy(y + i, out, sizeof out);
    }
}

static void normals(void)                         /* as the sampler makes them                         */
{
    static vgs_backend *cpu;
    vgs_call c;
    if (!cpu) cpu = vgs_cpu_create(NULL, NULL);
    memset(&c, 0, sizeof c);
    c.op = VGS_OP_NORMAL;
    c.out.buf = (vgs_buffer *)(void *)y;
    c.out.rows = N / 64;
    c.out.cols = c.out.ld = 64;
    c.i[0] = 1;
    if (cpu) vgs_cpu_run(cpu, &c, NULL);
}

static void library_normals(void)                 /* Box and Muller on rand()                          */
{
    int i;
    for (i = 0; i < N; i += 2) {
        float u = ((float)rand() + 1.0f) / ((float)RAND_MAX + 2.0f), v = (float)rand() / (float)RAND_MAX;
        float r = sqrtf(-2.0f * logf(u));
        y[i] = r * cosf(6.2831853f * v);
        y[i + 1] = r * sinf(6.2831853f * v);
    }
}

VGS__HOT static void own_exp(void) { int i; for (i = 0; i < N; ++i) y[i] = vgs__exp(x[i]); }
VGS__HOT static void own_log(void) { int i; for (i = 0; i < N; ++i) y[i] = vgs__log(x[i]); }
static void library_exp(void) { int i; for (i = 0; i < N; ++i) y[i] = expf(x[i]); }
static void library_log(void) { int i; for (i = 0; i < N; ++i) y[i] = logf(x[i]); }

int main(int argc, char **argv)
{
    static const struct { const char *what; void (*run)(void); } list[] = {
        { "philox words", philox_words }, { "normals", normals },
        { "normals, rand and libm", library_normals },
        { "exp", own_exp }, { "exp, libm", library_exp }, { "log", own_log }, { "log, libm", library_log }
    };
    bool json = argc > 1 && !strcmp(argv[1], "--json");
    size_t k;
    int i;
    if (argc > 1 && !json) {
        puts("usage: bench_rng [--json]");
        return strcmp(argv[1], "--help") ? 2 : 0;
    }
    for (i = 0; i < N; ++i) x[i] = 0.001f + 8.0f * (float)i / N;
    for (k = 0; k < sizeof list / sizeof *list; ++k) {
        double best = 0.0;
        for (i = 0; i < TRIALS; ++i) {
            double start = now(), rate;
            list[k].run();
            rate = 1e-6 * N / (now() - start);
            if (rate > best) best = rate;
        }
        if (json)
            printf("%s\n  {\"what\": \"%s\", \"mega_per_second\": %.1f}", k ? "," : "[", list[k].what, best);
        else printf("%-24s %8.1f million a second\n", list[k].what, best);
    }
    if (json) puts("\n]");
    return y[1] != y[1];
}
