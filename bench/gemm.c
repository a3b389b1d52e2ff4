/* Matrix products in GFLOP/s, next to OpenBLAS where it is installed (loaded at run time: nothing to link).
   cc -O2 -fopenmp bench_gemm.c -o bench_gemm -lm -ldl && ./bench_gemm          (--help: the options) */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"

#include <dlfcn.h>
#include <time.h>

#define TRIALS 7                                  /* the best of so many is reported */
#define SECONDS 0.03                              /* at least so long each           */

typedef void cblas_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void set_threads_fn(int threads);

typedef struct blas { cblas_fn *sgemm; set_threads_fn *set_threads; } blas;

typedef struct shape { int m, n, k; } shape;

typedef struct problem {
    vgs__form form;
    shape s;
    float *a, *b, *c, *work;
    int threads;
    vgs_isa isa;
    const blas *other;                            /* NULL: our own product */
} problem;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A pointer to data does not convert to one to a function in C; the bytes do. */
static blas load_blas(void)
{
    static const char *const names[] = { "libopenblas.so.0", "libopenblas.so", "libopenblas.dylib" };
    blas x = { NULL, NULL };
    void *lib = NULL, *p;
    size_t i;
    for (i = 0; i < 3 && !lib; ++i) lib = dlopen(names[i], RTLD_NOW);
    if (!lib) return x;
    p = dlsym(lib, "cblas_sgemm");
    memcpy(&x.sgemm, &p, sizeof p);
    p = dlsym(lib, "openblas_set_num_threads");
    memcpy(&x.set_threads, &p, sizeof p);
    return x;
}

static void run(const problem *q)
{
    int m = q->s.m, n = q->s.n, k = q->s.k;
    int lda = q->form == VGS__TN ? m : k, ldb = q->form == VGS__NT ? k : n;
    if (q->other)
        q->other->sgemm(101, q->form == VGS__TN ? 112 : 111, q->form == VGS__NT ? 112 : 111, m, n, k,
                        1.0f, q->a, lda, q->b, ldb, 0.0f, q->c, n);
    else vgs__gemm(q->form, m, n, k, q->a, lda, q->b, ldb, q->c, n, NULL, q->work, q->threads, q->isa);
}

static double one_trial(const problem *q)
{
    double start = now(), t;
    long count = 0;
    do { run(q); ++count; } while ((t = now() - start) < SECONDS);
    return 2e-9 * q->s.m * q->s.n * q->s.k * (double)count / t;
}

/* Ours and theirs in turn, so that a busy moment of the machine strikes both. */
static void measure(problem *q, const blas *other, double *ours, double *theirs)
{
    int i;
    *ours = *theirs = 0.0;
    for (i = 0; i < TRIALS; ++i) {
        double g;
        q->other = NULL;
        g = one_trial(q);
        if (g > *ours) *ours = g;
        if (!other->sgemm) continue;
        q->other = other;
        if (other->set_threads) other->set_threads(q->threads);
        g = one_trial(q);
        if (g > *theirs) *theirs = g;
    }
}

static void report(bool json, bool first, const problem *q, double ours, double theirs)
{
    static const char *const forms[] = { "NT", "NN", "TN" };
    const char *kernel = vgs_isa_name(q->isa);
    if (!json) {
        printf("%5d %5d %5d  %s  %d  %-8s %8.1f", q->s.m, q->s.n, q->s.k, forms[q->form], q->threads, kernel,
               ours);
        if (theirs > 0.0) printf(" %8.1f %6.2f", theirs, ours / theirs);
        printf("\n");
    } else {
        printf("%s\n  {\"m\": %d, \"n\": %d, \"k\": %d, \"form\": \"%s\", \"threads\": %d, "
               "\"kernel\": \"%s\", \"gflops\": %.2f, ", first ? "[" : ",", q->s.m, q->s.n, q->s.k,
               forms[q->form], q->threads, kernel, ours);
        if (theirs > 0.0) printf("\"openblas_gflops\": %.2f, \"ratio\": %.3f}", theirs, ours / theirs);
        else printf("\"openblas_gflops\": null, \"ratio\": null}");
    }
    fflush(stdout);
}

static float *randoms(size_t size)
{
    static vgs_rng rng = { 1, 0, 0 };
    float *x = (float *)vgs__alloc(size, sizeof *x);
    if (x) vgs_rng_normals(&rng, x, size);
    return x;
}

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: bench_gemm [--json] [--threads N] [--isa portable|neon|avx2|avx512] [--shape M,N,K]\n"
            "  --json       a list of {m,n,k,form,threads,kernel,gflops,openblas_gflops,ratio}\n"
            "  --threads N  the larger number of threads; 1 is measured as well (default 2 with OpenMP)\n"
            "  --isa NAME   the kernel (default: the best)\n"
            "  --shape M,N,K  this one instead of the usual five\n");
    return code;
}

int main(int argc, char **argv)
{
    shape shapes[] = { { 128, 1024, 1024 }, { 512, 512, 512 }, { 1024, 1024, 1024 },
                       { 2560, 128, 128 }, { 512, 64, 512 } };
    blas other = load_blas();
    problem q;
    bool json = false, first = true;
    int i, form, threads = 1;
    size_t s, count = sizeof shapes / sizeof *shapes;
#ifdef _OPENMP
    threads = 2;
#endif
    memset(&q, 0, sizeof q);
    q.isa = vgs_cpu_isa();
    for (i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--help")) return usage(0);
        else if (!strcmp(argv[i], "--json")) json = true;
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc) {
            int isa = VGS_ISA_PORTABLE;
            for (++i; isa <= VGS_ISA_AVX512 && strcmp(argv[i], vgs_isa_name((vgs_isa)isa)); ) ++isa;
            if (!vgs__cpu_has((vgs_isa)isa)) {
                fprintf(stderr, "bench_gemm: no %s here\n", argv[i]);
                return 1;
            }
            q.isa = (vgs_isa)isa;
        } else if (!strcmp(argv[i], "--shape") && i + 1 < argc) {
            count = 1;
            if (sscanf(argv[++i], "%d,%d,%d", &shapes[0].m, &shapes[0].n, &shapes[0].k) != 3) return usage(2);
        } else return usage(2);
    }
    if (threads < 1) return usage(2);
    if (!json) printf("    m     n     k form thr kernel    GFLOP/s OpenBLAS  ratio\n");
    for (s = 0; s < count; ++s) {
        size_t m = (size_t)shapes[s].m, n = (size_t)shapes[s].n, k = (size_t)shapes[s].k;
        q.s = shapes[s];
        q.a = randoms(m * k);
        q.b = randoms(k * n);
        q.c = randoms(m * n);
        q.work = (float *)vgs__alloc(vgs__gemm_work(threads), sizeof(float));
        if (!q.a || !q.b || !q.c || !q.work) { fprintf(stderr, "bench_gemm: out of memory\n"); return 1; }
        for (q.threads = 1; q.threads <= threads; q.threads += threads > 1 ? threads - 1 : 1)
            for (form = VGS__NT; form <= VGS__TN; ++form) {
                double ours, theirs;
                q.form = (vgs__form)form;
                measure(&q, &other, &ours, &theirs);
                report(json, first, &q, ours, theirs);
                first = false;
            }
        vgs__free(q.a);
        vgs__free(q.b);
        vgs__free(q.c);
        vgs__free(q.work);
    }
    if (json) printf("\n]\n");
    return 0;
}
