/* cc -O2 -fopenmp bench/ebm_step.c -o build/bench_ebm_step -lm && build/bench_ebm_step mvtec --ops
   What an iteration of contrastive divergence costs by a preset of examples/ebm.c, on random directions of
   272 columns: seconds, FLOP and bytes as counted (bench/cost.h), memory. x bound: seconds over those of the
   FLOP at the speed of our product (512^3) and of the bytes at that of c = a + b from memory, one core.
     --torch PYTHON   bench/torch_ebm.py is timed in turn; --lean: with what a user would save by hand
     --threads N (1)  --repeat N (3)   timings, of which the median is taken
     --cpu-time       seconds of the processor over threads, for a machine that others use
     --ops            the share of the time by op
     --device NAME    in a build with -DVGS_USE_CL, -lOpenCL; --profile: the time of its kernels */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_ebm_step"
#include "../examples/common.h"
#include "../examples/device.h"
#include "../examples/ebm_presets.h"
#include "cost.h"

#include <sys/resource.h>

enum { ROWS = 20000, COLS = 272, MOST = 64 };

typedef struct options {
    const char *preset, *torch;
    bool lean, cpu, ops;
    int threads, repeat;
    device device;
} options;

typedef struct timing { double seconds, torch, ratio; size_t bytes; } timing;

static vgs_ebm *model_of(const options *o, vgs_backend *b, vgs_error *err)
{
    vgs_ebm_config c = { .net = { .dim = COLS } };
    if (!strcmp(o->preset, "fast")) preset_fast(&c);
    else preset_mvtec(&c);
    c.fit = 0;
    c.sampler.backend = b;
    c.sampler.threads = b ? 0 : o->threads;
    return vgs_ebm_create(&c, err);
}

/* FLOP and bytes of the second iteration, on one thread. */
static vgs_status count(const options *o, const vgs_data *data, counter *c, vgs_error *err)
{
    vgs_cpu_config one = { .threads = 1 };
    vgs_backend *cpu = vgs_cpu_create(&one, err);
    vgs_ebm *m = NULL;
    vgs_status st = cpu ? VGS_OK : err->code;
    if (cpu) counter_start(c, cpu);
    if (cpu && !(m = model_of(o, &c->base, err))) st = err->code;
    if (st == VGS_OK) st = vgs_ebm_train(m, data, 1, NULL, err);
    if (st == VGS_OK) {
        counter_forget(c);
        st = vgs_ebm_train(m, data, 1, NULL, err);
    }
    vgs_ebm_free(m);
    vgs_cpu_free(cpu);
    return st;
}

/* After one iteration to warm up, in turn with the rival's if there is one. */
static vgs_status time_it(const options *o, const vgs_data *data, rival *r, timing *t, vgs_error *err)
{
    double ours[MOST], theirs[MOST], ratio[MOST];
    vgs_ebm *m = model_of(o, o->device.backend, err);
    vgs_status st = m ? vgs_ebm_train(m, data, 1, NULL, err) : err->code;
    for (int i = 0; i < o->repeat && st == VGS_OK; ++i) {
        stopwatch w = start_watch(o->cpu, o->threads);
        st = vgs_ebm_train(m, data, 1, NULL, err);
        ours[i] = read_watch(&w);
        theirs[i] = r->to ? time_rival(r) : 0.0;
        ratio[i] = theirs[i] / ours[i];
    }
    if (st == VGS_OK) device_report(&o->device, o->repeat + 1);
    if (st == VGS_OK) {
        t->seconds = median(ours, o->repeat);
        t->torch = median(theirs, o->repeat);
        t->ratio = median(ratio, o->repeat);
        t->bytes = vgs_ebm_bytes(m);
    }
    vgs_ebm_free(m);
    return st;
}

static void print_cost(const options *o, const counter *c, const timing *t)
{
    double rate = product_rate(o->cpu, o->threads), gbs = bandwidth(o->cpu);
    double least = 1e-9 * c->flop / rate + 1e-9 * c->bytes / gbs, speed = 1e-9 * c->flop / t->seconds;
    printf("%s, product %.1f GFLOP/s with %d thread%s; c = a + b %.1f GB/s; %s\n",
           vgs_isa_name(vgs_cpu_isa()), rate, o->threads, o->threads > 1 ? "s" : "", gbs,
           o->cpu ? "seconds of the processor over threads" : "seconds of the wall");
    printf("%s: %.3f s an iteration, %.1f GFLOP at %.1f GFLOP/s (%.1f %% of the product's), %.2f GB, "
           "%ld ops, x bound %.2f", o->preset, t->seconds, 1e-9 * c->flop, speed, 100 * speed / rate,
           1e-9 * c->bytes, c->calls, t->seconds / least);
    if (t->torch > 0.0) printf("; PyTorch%s %.2f s, ratio %.2f", o->lean ? " lean" : "", t->torch, t->ratio);
    printf("\n");
}

static int measure(const options *o, const vgs_data *data)
{
    char threads[16];
    const char *argv[] = { o->torch, "bench/torch_ebm.py", "--preset", o->preset, "--threads", threads,
                           "--serve", o->lean ? "--lean" : o->cpu ? "--cpu-time" : NULL,
                           o->lean && o->cpu ? "--cpu-time" : NULL, NULL };
    vgs_error err;
    counter c;
    timing t;
    struct rusage used;
    rival r = { 0 };
    vgs_status st = VGS_OK;
    snprintf(threads, sizeof threads, "%d", o->threads);
    if (o->torch && !start_rival(&r, argv)) {
        say("%s bench/torch_ebm.py does not run", o->torch);
        return EXIT_FAILED;
    }
    st = time_it(o, data, &r, &t, &err);
    stop_rival(&r);
    getrusage(RUSAGE_SELF, &used);                /* before the counting model is made as well         */
    if (st == VGS_OK) st = count(o, data, &c, &err);
    if (st) return fail(&err);
    print_cost(o, &c, &t);
    printf("the model holds %.0f MB; at most %.0f MB of the process were resident, %.0f MB of these the "
           "data\n", 1e-6 * (double)t.bytes, 1.024e-3 * (double)used.ru_maxrss, 4e-6 * ROWS * COLS);
    if (o->ops) print_ops(&c);
    return 0;
}

static void parse(options *o, int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    while (args_next(&a)) {
        if (!*a.key) o->preset = a.word;
        else if (args_is(&a, "torch")) o->torch = args_value(&a);
        else if (args_is(&a, "lean")) o->lean = args_flag(&a);
        else if (args_is(&a, "cpu_time")) o->cpu = args_flag(&a);
        else if (args_is(&a, "ops")) o->ops = args_flag(&a);
        else if (args_is(&a, "threads")) o->threads = args_int(&a, 1, 4096);
        else if (args_is(&a, "repeat")) o->repeat = args_int(&a, 1, MOST);
        else if (args_is(&a, "device")) o->device.name = args_value(&a);
        else if (args_is(&a, "profile")) o->device.profile = args_flag(&a);
        else wrong_usage("--%.40s: there is no such option", a.key);
    }
    if (strcmp(o->preset, "mvtec") && strcmp(o->preset, "fast"))
        wrong_usage("%.40s: mvtec or fast", o->preset);
}

int main(int argc, char **argv)
{
    options o = { .preset = "mvtec", .threads = 1, .repeat = 3 };
    vgs_error err;
    vgs_rng r = { .seed = 1 };
    float *x = malloc((size_t)ROWS * COLS * sizeof *x);
    vgs_data data = { .x = x, .rows = ROWS, .dim = COLS };
    int status = EXIT_FAILED;
    parse(&o, argc, argv);
    signal(SIGPIPE, SIG_IGN);                     /* a rival that dies is noticed where it is read     */
    if (!x) say("out of memory");
    else if (device_open(&o.device, &err)) fail(&err);
    else {
        vgs_rng_normals(&r, x, (size_t)ROWS * COLS);
        for (int i = 0; i < ROWS * COLS; ++i) x[i] += 0.5f;
        status = measure(&o, &data);
    }
    device_close(&o.device);
    free(x);
    return status;
}
