/* cost.h - what the benches of steps share: a backend that counts, clocks, what the machine can do, a rival
   in PyTorch that is timed in turn. Include it after vgs.h, with _POSIX_C_SOURCE set.

   FLOP and bytes are counted from the ops that really run, by a backend in front of the CPU's that looks at
   each call: 2 m n k of a product, one of an element of anything else; bytes of every operand and result,
   once. With no backend behind it, it counts alone: of networks that this machine could not hold. */
#ifndef COST_H
#define COST_H

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "clock.h"

/* ==== the counting backend ========================================================================== */

typedef struct counter {
    vgs_backend base, *cpu;                       /* NULL: nothing is held or computed         */
    double flop, product, bytes, seconds[VGS_OP_COUNT];   /* product: of flop                             */
    long calls, count[VGS_OP_COUNT];
} counter;

static vgs_buffer *counter_create(void *self, size_t n, vgs_error *err)
{
    vgs_backend *b = ((counter *)self)->cpu;
    return b ? b->buffer_create(b->self, n, err) : (vgs_buffer *)malloc(1);
}
static void counter_free(void *self, vgs_buffer *x)
{
    vgs_backend *b = ((counter *)self)->cpu;
    if (b) b->buffer_free(b->self, x);
    else free(x);
}
static vgs_status counter_upload(void *self, vgs_buffer *x, size_t at, const void *from, size_t n,
                                 vgs_type type, vgs_error *err)
{
    vgs_backend *b = ((counter *)self)->cpu;
    return b ? b->upload(b->self, x, at, from, n, type, err) : VGS_OK;
}
static vgs_status counter_download(void *self, void *to, vgs_buffer *x, size_t at, size_t n, vgs_type type,
                                   vgs_error *err)
{
    vgs_backend *b = ((counter *)self)->cpu;
    if (!b) memset(to, 0, 4 * n);
    return !b ? VGS_OK : b->download(b->self, to, x, at, n, type, err);
}
static vgs_status counter_finish(void *self, vgs_error *err)
{
    vgs_backend *b = ((counter *)self)->cpu;
    return b ? b->finish(b->self, err) : VGS_OK;
}

static double size_of(const vgs_tensor *t) { return t->buf ? (double)t->rows * t->cols : 0.0; }

static vgs_status counter_run(void *self, const vgs_call *call, vgs_error *err)
{
    counter *c = (counter *)self;
    double elements = size_of(&call->out), start;
    vgs_status st;
    int k;
    c->bytes += 4.0 * (size_of(&call->out) + size_of(&call->out2));
    for (k = 0; k < VGS_MAX_IN; ++k) c->bytes += 4.0 * size_of(&call->in[k]);
    if (elements == 0.0) elements = size_of(&call->in[0]);
    if (call->op == VGS_OP_MATMUL)
        elements *= 2.0 * (call->i[0] == VGS__TN ? call->in[0].rows : call->in[0].cols);
    else if (size_of(&call->in[0]) > elements) elements = size_of(&call->in[0]);
    c->flop += elements;
    if (call->op == VGS_OP_MATMUL) c->product += elements;
    c->calls++;
    c->count[call->op]++;
    if (!c->cpu) return VGS_OK;
    start = now();
    st = c->cpu->run(c->cpu->self, call, err);
    c->seconds[call->op] += now() - start;
    return st;
}

static void counter_start(counter *c, vgs_backend *cpu)
{
    memset(c, 0, sizeof *c);
    c->cpu = cpu;
    c->base.self = c;
    c->base.buffer_create = counter_create;
    c->base.buffer_free = counter_free;
    c->base.upload = counter_upload;
    c->base.download = counter_download;
    c->base.run = counter_run;
    c->base.finish = counter_finish;
}

static void counter_forget(counter *c)
{
    vgs_backend *cpu = c->cpu;
    counter_start(c, cpu);
}

/* ==== clocks ======================================================================================== */

/* Seconds of the wall, or on a machine that others use of the processor, over the threads: what work costs
   then, though not what threads lose by waiting for each other. */
typedef struct stopwatch { bool cpu; int threads; double start; } stopwatch;

static inline stopwatch start_watch(bool cpu, int threads)
{
    stopwatch w = { cpu, threads, 0.0 };
    w.start = seconds_of(cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC);
    return w;
}
static inline double read_watch(const stopwatch *w)
{
    if (w->cpu) return (seconds_of(CLOCK_PROCESS_CPUTIME_ID) - w->start) / w->threads;
    return now() - w->start;
}

/* ==== what the machine can do ======================================================================= */

static inline double product_rate(bool cpu, int threads)             /* GFLOP/s at 512 x 512 x 512    */
{
    enum { N = 512 };
    float *a = (float *)vgs__alloc(3 * N * N, sizeof *a);
    float *work = (float *)vgs__alloc(vgs__gemm_work(threads), sizeof *work);
    double best = 0.0;
    int i;
    if (!a || !work) return 0.0;
    for (i = 0; i < 30; ++i) {
        stopwatch w = start_watch(cpu, threads);
        double rate;
        vgs__gemm(VGS__NT, N, N, N, a, N, a + N * N, N, a + 2 * N * N, N, NULL, work, threads, vgs_cpu_isa());
        rate = 2e-9 * N * N * N / read_watch(&w);
        if (rate > best) best = rate;
    }
    vgs__free(a);
    vgs__free(work);
    return best;
}

static inline double bandwidth(bool cpu)          /* GB/s of one core: c = a + b of 3 x 64 MB          */
{
    enum { N = 1 << 24 };
    float *a = (float *)vgs__alloc(3 * (size_t)N, sizeof *a);
    double best = 0.0;
    int i, k;
    if (!a) return 0.0;
    for (k = 0; k < 6; ++k) {
        stopwatch w = start_watch(cpu, 1);
        double rate;
        for (i = 0; i < N; ++i) a[2 * N + i] = a[i] + a[N + i];
        rate = 12e-9 * N / read_watch(&w);
        if (rate > best) best = rate;
    }
    vgs__free(a);
    return best;
}

/* ==== the rival ===================================================================================== */

/* A program as a child: it runs once for each line that it gets, and answers with its seconds. */
typedef struct rival { pid_t pid; FILE *to, *from; char version[32]; } rival;

static inline void stop_rival(rival *r)
{
    if (r->to) fclose(r->to);
    if (r->from) fclose(r->from);
    if (r->pid > 0) waitpid(r->pid, NULL, 0);
    memset(r, 0, sizeof *r);
}

/* argv ends in NULL; argv[0] is the program. */
static inline bool start_rival(rival *r, const char *const *argv)
{
    int in[2], out[2];
    memset(r, 0, sizeof *r);
    if (pipe(in) || pipe(out)) return false;
    r->pid = fork();
    if (r->pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        close(in[1]);
        close(out[0]);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    r->to = fdopen(in[1], "w");
    r->from = fdopen(out[0], "r");
    if (r->pid > 0 && r->to && r->from && fscanf(r->from, "ready %31s", r->version) == 1) return true;
    stop_rival(r);
    return false;
}

static inline double time_rival(rival *r)         /* 0 if it has died                                  */
{
    double seconds = 0.0;
    fputc('\n', r->to);
    fflush(r->to);
    return fscanf(r->from, "%lf", &seconds) == 1 ? seconds : 0.0;
}

static inline int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

static inline void print_ops(const counter *c)
{
    double sum = 0.0;
    int op, shown;
    bool done[VGS_OP_COUNT] = { false };
    for (op = 0; op < VGS_OP_COUNT; ++op) sum += c->seconds[op];
    for (shown = 0; shown < 12; ++shown) {
        int best = -1;
        for (op = 0; op < VGS_OP_COUNT; ++op)
            if (!done[op] && c->count[op] && (best < 0 || c->seconds[op] > c->seconds[best])) best = op;
        if (best < 0) break;
        done[best] = true;
        printf("    %-20s %5.1f %%  %8ld calls\n", vgs_op_name(best), 100.0 * c->seconds[best] / sum,
               c->count[best]);
    }
}

#endif
