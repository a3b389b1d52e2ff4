/* Matrix products in GFLOP/s, next to OpenBLAS where it is installed (loaded at run time: nothing to link;
   what the environment says of its kernel is not heard).
   cc -O2 -fopenmp bench/gemm.c -o bench_gemm -lm -ldl && ./bench_gemm          (--help: the options) */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"

#include <dlfcn.h>
#include "clock.h"

#define SECONDS 0.03                              /* at least so long is each trial */
enum { MOST = 64 };                               /* trials                         */

typedef void cblas_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda,
                      const float *b, int ldb, float beta, float *c, int ldc);
typedef void set_threads_fn(int threads);
typedef char *name_fn(void);

typedef struct blas { cblas_fn *sgemm; set_threads_fn *set_threads; name_fn *kernel, *config; } blas;

typedef struct shape { int m, n, k; } shape;

typedef struct problem {
    vgs__form form;
    shape s;
    float *a, *b, *c, *work;
    int threads;
    vgs_isa isa;
    const blas *other;                            /* NULL: our own product                            */
    bool cpu;                                     /* seconds of the processor over threads, not of the wall */
    int trials;
} problem;

/* OpenBLAS with the kernel that it chooses itself, or `core`. A pointer to data does not convert to one to a
   function in C; the bytes do. */
static blas load_blas(const char *core)
{
    static const char *const names[] = { "libopenblas.so.0", "libopenblas.so", "libopenblas.dylib" };
    blas x = { NULL, NULL, NULL, NULL };
    void *lib = NULL, *p;
    size_t i;
    unsetenv("OPENBLAS_L2_SIZE");
    unsetenv("OPENBLAS_CORETYPE");
    if (core) setenv("OPENBLAS_CORETYPE", core, 1);
    for (i = 0; i < 3 && !lib; ++i) lib = dlopen(names[i], RTLD_NOW);
    if (!lib) return x;
    p = dlsym(lib, "cblas_sgemm");
    memcpy(&x.sgemm, &p, sizeof p);
    p = dlsym(lib, "openblas_set_num_threads");
    memcpy(&x.set_threads, &p, sizeof p);
    p = dlsym(lib, "openblas_get_corename");
    memcpy(&x.kernel, &p, sizeof p);
    p = dlsym(lib, "openblas_get_config");
    memcpy(&x.config, &p, sizeof p);
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
    double wall = now(), start = q->cpu ? cpu_seconds() : wall, t;
    long count = 0;
    do { run(q); ++count; } while (now() - wall < SECONDS);
    t = (q->cpu ? cpu_seconds() : now()) - start;
    if (q->cpu) t /= q->threads;
    return 2e-9 * q->s.m * q->s.n * q->s.k * (double)count / t;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return x[n / 2];
}

typedef struct rates { double ours, theirs, ratio; } rates;

/* Medians. Ours and theirs in turn, so that a busy moment of the machine strikes both. */
static rates measure(problem *q, const blas *other)
{
    double ours[MOST], theirs[MOST], ratio[MOST];
    rates r = { 0.0, 0.0, 0.0 };
    int i;
    if (other->set_threads) other->set_threads(q->threads);
    for (i = 0; i < q->trials; ++i) {
        q->other = NULL;
        ours[i] = one_trial(q);
        if (!other->sgemm) continue;
        q->other = other;
        theirs[i] = one_trial(q);
        ratio[i] = ours[i] / theirs[i];
    }
    r.ours = median(ours, q->trials);
    if (!other->sgemm) return r;
    r.theirs = median(theirs, q->trials);
    r.ratio = median(ratio, q->trials);
    return r;
}

static void report(bool json, bool first, const problem *q, const rates *r)
{
    static const char *const forms[] = { "NT", "NN", "TN" };
    const char *kernel = vgs_isa_name(q->isa);
    if (!json) {
        printf("%5d %5d %5d  %s  %d  %-8s %8.1f", q->s.m, q->s.n, q->s.k, forms[q->form], q->threads, kernel,
               r->ours);
        if (r->theirs > 0.0) printf(" %8.1f %6.2f", r->theirs, r->ratio);
        printf("\n");
    } else {
        printf("%s\n  {\"m\": %d, \"n\": %d, \"k\": %d, \"form\": \"%s\", \"threads\": %d, "
               "\"kernel\": \"%s\", \"gflops\": %.2f, ", first ? "[" : ",", q->s.m, q->s.n, q->s.k,
               forms[q->form], q->threads, kernel, r->ours);
        if (r->theirs > 0.0) printf("\"openblas_gflops\": %.2f, \"ratio\": %.3f}", r->theirs, r->ratio);
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
            "usage: bench_gemm [--json] [--threads N] [--isa NAME] [--shapes named|small | --shape M,N,K]\n"
            "                  [--openblas CORE] [--trials N] [--cpu-time]\n"
            "  --json           a list of {m,n,k,form,threads,kernel,gflops,openblas_gflops,ratio}\n"
            "  --threads N      the larger number of threads; 1 is measured as well (default 2 with OpenMP)\n"
            "  --isa NAME       portable, neon, avx2 or avx512 (default: the best)\n"
            "  --shapes named   128,1024,1024 512,512,512 1024,1024,1024 2560,128,128 (default)\n"
            "  --shapes small   one row, one column, two inputs and the like\n"
            "  --shape M,N,K    this one\n"
            "  --openblas CORE  its kernel for this processor, as SkylakeX (default: its own choice)\n"
            "  --trials N       of which the median is taken, at most 64 (default 7)\n"
            "  --cpu-time       seconds of the processor over threads, for a machine that others use\n");
    return code;
}

/* Both with 1 and with `threads`, in all forms. Returns false if memory is out. */
static bool bench_shape(problem *q, const blas *other, int threads, bool json, bool *first)
{
    size_t m = (size_t)q->s.m, n = (size_t)q->s.n, k = (size_t)q->s.k;
    bool good;
    int form;
    q->a = randoms(m * k);
    q->b = randoms(k * n);
    q->c = randoms(m * n);
    q->work = (float *)vgs__alloc(vgs__gemm_work(threads), sizeof(float));
    good = q->a && q->b && q->c && q->work;
    for (q->threads = 1; good && q->threads <= threads; q->threads += threads > 1 ? threads - 1 : 1)
        for (form = VGS__NT; form <= VGS__TN; ++form) {
            rates r;
            q->form = (vgs__form)form;
            r = measure(q, other);
            report(json, *first, q, &r);
            *first = false;
        }
    vgs__free(q->a);
    vgs__free(q->b);
    vgs__free(q->c);
    vgs__free(q->work);
    return good;
}

static void print_head(const problem *q, const blas *other)
{
    printf("OpenBLAS: %s%s%s; median of %d trials, seconds of the %s\n",
           other->sgemm ? "kernel " : "not found", other->kernel ? other->kernel() : "",
           other->sgemm && !other->kernel ? "unknown" : "", q->trials,
           q->cpu ? "processor over threads" : "wall");
    if (other->config) printf("%s\n", other->config());
    printf("    m     n     k form thr kernel    GFLOP/s OpenBLAS  ratio\n");
}

int main(int argc, char **argv)
{
    static const shape named[] = { { 128, 1024, 1024 }, { 512, 512, 512 }, { 1024, 1024, 1024 },
                                   { 2560, 128, 128 } };
    static const shape small[] = { { 1, 64, 64 }, { 1, 1024, 1024 }, { 20, 1024, 1024 }, { 128, 64, 2 },
                                   { 128, 1, 1024 }, { 2560, 1, 128 }, { 2560, 128, 2 }, { 512, 64, 512 },
                                   { 7, 13, 257 } };
    shape one;
    const shape *shapes = named;
    const char *core = NULL;
    blas other;
    problem q;
    bool json = false, first = true;
    int i, threads = 1;
    size_t s, count = sizeof named / sizeof *named;
#ifdef _OPENMP
    threads = 2;
#endif
    memset(&q, 0, sizeof q);
    q.isa = vgs_cpu_isa();
    q.trials = 7;
    for (i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--help")) return usage(0);
        else if (!strcmp(argv[i], "--json")) json = true;
        else if (!strcmp(argv[i], "--cpu-time")) q.cpu = true;
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--trials") && i + 1 < argc) q.trials = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--openblas") && i + 1 < argc) core = argv[++i];
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc) {
            int isa = VGS_ISA_PORTABLE;
            for (++i; isa <= VGS_ISA_AVX512 && strcmp(argv[i], vgs_isa_name((vgs_isa)isa)); ) ++isa;
            if (!vgs__cpu_has((vgs_isa)isa)) {
                fprintf(stderr, "bench_gemm: no %s here\n", argv[i]);
                return 1;
            }
            q.isa = (vgs_isa)isa;
        } else if (!strcmp(argv[i], "--shapes") && i + 1 < argc) {
            bool few = !strcmp(argv[++i], "small");
            shapes = few ? small : named;
            count = few ? sizeof small / sizeof *small : sizeof named / sizeof *named;
        } else if (!strcmp(argv[i], "--shape") && i + 1 < argc) {
            count = 1;
            shapes = &one;
            if (sscanf(argv[++i], "%d,%d,%d", &one.m, &one.n, &one.k) != 3) return usage(2);
        } else return usage(2);
    }
    if (threads < 1 || q.trials < 1 || q.trials > MOST) return usage(2);
    other = load_blas(core);
    if (!json) print_head(&q, &other);
    for (s = 0; s < count; ++s) {
        q.s = shapes[s];
        if (!bench_shape(&q, &other, threads, json, &first)) {
            fprintf(stderr, "bench_gemm: out of memory\n");
            return 1;
        }
    }
    if (json) printf("\n]\n");
    return 0;
}
