/* What a training iteration and a draw of each preset cost, and of what it consists.
   cc -O2 -fopenmp bench/step.c -o bench_step -lm && ./bench_step gmm9          (--help: the options)

   FLOP and bytes are counted from the ops that really run (bench/cost.h). With --torch, the same in PyTorch
   (bench/torch_vgs.py) is timed in turn with ours. */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "cost.h"

#define ROWS 2000                                 /* of a draw                                        */

/* ==== one preset ==================================================================================== */

enum { MOST = 64 };                               /* timings                                           */

typedef struct options {
    const char *preset, *torch;
    bool json, ops, cpu;
    int threads, repeat;
    double patience;                              /* seconds after which there are no more timings    */
    double rate[2], gbs;                          /* of the product with 1 and `threads` threads      */
} options;

/* flop, bytes, calls: of one run, as counted; seconds: medians; ratio: theirs to ours, median of pairs */
typedef struct cost { double seconds, torch, ratio, flop, bytes; long calls; int timings; } cost;

static vgs_status once(vgs_sampler *s, bool draw, float *x, vgs_error *err)
{
    return draw ? vgs_sampler_draw(s, NULL, ROWS, x, err) : vgs_sampler_train(s, 1, NULL, err);
}

static vgs_sampler *sampler_of(const target *t, const options *o, int threads, vgs_backend *b,
                               vgs_error *err)
{
    vgs_config c;
    if (preset_fill(t, o->preset, &c, NULL, err)) return NULL;
    c.threads = b ? 0 : threads;
    c.backend = b;
    return vgs_sampler_create(&c, err);
}

/* Timings in turn with the rival's, if there is one, after one to warm up; at least one of each. */
static vgs_status time_it(vgs_sampler *s, bool draw, const options *o, int threads, rival *r, float *x,
                          cost *k, vgs_error *err)
{
    double ours[MOST], theirs[MOST], ratio[MOST], start = now();
    vgs_status st = once(s, draw, x, err);
    int i = 0;
    while (i < o->repeat && st == VGS_OK && (i == 0 || now() - start < o->patience)) {
        stopwatch w = start_watch(o->cpu, threads);
        st = once(s, draw, x, err);
        ours[i] = read_watch(&w);
        theirs[i] = r->to ? time_rival(r) : 0.0;
        ratio[i] = theirs[i] / ours[i];
        ++i;
    }
    k->timings = i;
    k->seconds = median(ours, i);
    k->torch = median(theirs, i);
    k->ratio = median(ratio, i);
    return st;
}

static void print_cost(const target *t, const options *o, bool draw, int threads, const cost *c,
                       bool *first)
{
    double gflops = 1e-9 * c->flop / c->seconds, peak = o->rate[threads > 1];
    double least = 1e-9 * c->flop / peak + 1e-9 * c->bytes / o->gbs;
    if (!o->json) {
        printf("%-10s %-5s %-5s %3d %10.3f %4d %9.1f %7.1f %6.1f %9.1f %6ld %6.2f", t->name, o->preset,
               draw ? "draw" : "train", threads, 1e3 * c->seconds, c->timings, 1e-6 * c->flop, gflops,
               100.0 * gflops / peak, 1e-6 * c->bytes, c->calls, c->seconds / least);
        if (c->torch > 0.0) printf(" %10.1f %6.2f", 1e3 * c->torch, c->ratio);
        printf("\n");
    } else {
        printf("%s\n  {\"target\": \"%s\", \"preset\": \"%s\", \"what\": \"%s\", \"threads\": %d, "
               "\"seconds\": %.6g, \"flop\": %.6g, \"gflops\": %.4g, \"peak_share\": %.4g, ",
               *first ? "[" : ",", t->name, o->preset, draw ? "draw" : "train", threads, c->seconds, c->flop,
               gflops, gflops / peak);
        if (c->torch > 0.0) printf("\"torch_seconds\": %.6g, \"torch_ratio\": %.4g}", c->torch, c->ratio);
        else printf("\"torch_seconds\": null, \"torch_ratio\": null}");
        *first = false;
    }
    fflush(stdout);
}

/* One row of the table: with `threads`, against PyTorch if these are all. */
static vgs_status measure_with(const target *t, const options *o, bool draw, int threads, float *x,
                               cost *k, bool *first, vgs_error *err)
{
    vgs_sampler *s = sampler_of(t, o, threads, NULL, err);
    rival r;
    char count[16];
    const char *argv[] = { o->torch, "bench/torch_vgs.py", t->name, "--what", draw ? "draw" : "train",
                           "--threads", count, "--serve", o->cpu ? "--cpu-time" : NULL, NULL };
    vgs_status st = s ? VGS_OK : err->code;
    snprintf(count, sizeof count, "%d", threads);
    memset(&r, 0, sizeof r);
    if (st == VGS_OK && o->torch && threads == o->threads && !strcmp(o->preset, "paper") &&
        !start_rival(&r, argv))
        st = vgs__fail(err, VGS_E_IO, "%s bench/torch_vgs.py %s does not run", o->torch, t->name);
    if (st == VGS_OK) st = time_it(s, draw, o, threads, &r, x, k, err);
    if (st == VGS_OK) print_cost(t, o, draw, threads, k, first);
    stop_rival(&r);
    vgs_sampler_free(s);
    return st;
}

static vgs_status measure(const target *t, const options *o, bool draw, bool *first, vgs_error *err)
{
    vgs_cpu_config one = { 1, VGS_ISA_AUTO };
    vgs_backend *cpu = vgs_cpu_create(&one, err);
    float *x = (float *)vgs__alloc((size_t)ROWS * (size_t)t->dim, sizeof *x);
    vgs_sampler *s;
    counter c;
    cost k = { 0, 0, 0, 0, 0, 0, 0 };
    vgs_status st = cpu && x ? VGS_OK : VGS_E_NOMEM;
    int threads;
    if (st == VGS_OK) {
        counter_start(&c, cpu);
        s = sampler_of(t, o, 1, &c.base, err);
        st = s ? once(s, draw, x, err) : err->code;
        if (st == VGS_OK && draw) {                                  /* the tables are made by now     */
            counter_forget(&c);
            st = once(s, draw, x, err);
        }
        k.flop = c.flop;
        k.bytes = c.bytes;
        k.calls = c.calls;
        vgs_sampler_free(s);
    }
    for (threads = 1; threads <= o->threads && st == VGS_OK; threads += o->threads > 1 ? o->threads - 1 : 1)
        st = measure_with(t, o, draw, threads, x, &k, first, err);
    if (o->ops && !o->json && st == VGS_OK) print_ops(&c);
    vgs__free(x);
    vgs_cpu_free(cpu);
    return st;
}

static int usage(int code)
{
    fprintf(code ? stderr : stdout,
            "usage: bench_step [TARGET ...] [--preset fast|paper] [--what train|draw] [--threads N]\n"
            "                  [--repeat N] [--patience S] [--torch PYTHON] [--cpu-time] [--ops] [--json]\n"
            "  TARGET       gmm9 dw4 funnel lj13 if there is none\n"
            "  --preset     default paper\n"
            "  --what       only this (default: both; draw is of 2000 rows)\n"
            "  --threads    the larger number of threads; 1 is measured as well (default 2 with OpenMP)\n"
            "  --repeat     timings of which the median is taken, at most 64 (default 5)\n"
            "  --patience   no more timings of a row after so many seconds (default 60)\n"
            "  --torch      this python runs bench/torch_vgs.py in turn with the larger number of threads\n"
            "  --cpu-time   seconds of the processor over threads, for a machine that others use\n"
            "  --ops        the share of the time by op, one op after the other\n"
            "  --json       a list of {target, preset, what, threads, seconds, flop, gflops, peak_share,\n"
            "               torch_seconds, torch_ratio}\n"
            "x bound: the time over that of the counted FLOP at the speed of our product (512^3) and the\n"
            "counted bytes at the speed of c = a + b from memory, one core.\n");
    return code;
}

static void print_head(const options *o)
{
    printf("%s, product %.1f GFLOP/s with 1 thread, %.1f with %d; c = a + b %.1f GB/s; %s\n",
           vgs_isa_name(vgs_cpu_isa()), o->rate[0], o->rate[1], o->threads, o->gbs,
           o->cpu ? "seconds of the processor over threads" : "seconds of the wall");
    printf("target     preset what  thr         ms    n    MFLOP GFLOP/s peak %%        MB    ops xbound%s\n",
           o->torch ? "   torch ms  ratio" : "");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const usual[] = { "gmm9", "dw4", "funnel", "lj13" };
    const char *names[16], *what = "";
    options o = { "paper", NULL, false, false, false, 1, 5, 60.0, { 0, 0 }, 0 };
    vgs_error err = { VGS_OK, "" };
    bool first = true;
    int n = 0, i, draw;
#ifdef _OPENMP
    o.threads = 2;
#endif
    for (i = 1; i < argc; ++i) {
        if (!strcmp(argv[i], "--help")) return usage(0);
        else if (!strcmp(argv[i], "--json")) o.json = true;
        else if (!strcmp(argv[i], "--ops")) o.ops = true;
        else if (!strcmp(argv[i], "--cpu-time")) o.cpu = true;
        else if (!strcmp(argv[i], "--preset") && i + 1 < argc) o.preset = argv[++i];
        else if (!strcmp(argv[i], "--torch") && i + 1 < argc) o.torch = argv[++i];
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) o.threads = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--repeat") && i + 1 < argc) o.repeat = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--patience") && i + 1 < argc) o.patience = atof(argv[++i]);
        else if (!strcmp(argv[i], "--what") && i + 1 < argc) what = argv[++i];
        else if (argv[i][0] != '-' && n < 16) names[n++] = argv[i];
        else return usage(2);
    }
    if (o.threads < 1 || o.repeat < 1 || o.repeat > MOST) return usage(2);
    for (i = 0; !n && i < 4; ++i) names[i] = usual[i];
    if (!n) n = 4;
    signal(SIGPIPE, SIG_IGN);                     /* a rival that dies is noticed where it is read     */
    o.rate[0] = product_rate(o.cpu, 1);
    o.rate[1] = product_rate(o.cpu, o.threads);
    o.gbs = bandwidth(o.cpu);
    if (!o.json) print_head(&o);
    for (i = 0; i < n; ++i) {
        const target *t = target_find(names[i]);
        if (!t) {
            fprintf(stderr, "bench_step: there is no target %s\n", names[i]);
            return 2;
        }
        for (draw = 0; draw < 2; ++draw)
            if (!*what || !strcmp(what, draw ? "draw" : "train"))
                if (measure(t, &o, draw != 0, &first, &err)) {
                    fprintf(stderr, "bench_step: %s\n", err.msg);
                    return 1;
                }
    }
    if (o.json) printf("\n]\n");
    return 0;
}
