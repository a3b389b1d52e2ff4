/* cc -O2 bench/plan.c -o build/bench_plan -lm && build/bench_plan
   What an iteration of DxMI by the published settings of CIFAR-10 would cost, on paper: FLOP, bytes and
   memory are counted from the ops of the whole iteration (bench/cost.h), of networks that are not held here,
   and seconds predicted from the peak figures of two GPUs. Then an iteration of reduced width is counted in
   the same way and run, on random images; that both counts agree is checked.
     --width N (128)   channels of the policy and of value and energy; --batch N (128)
     --run N (8)       channels of the iteration that is run, 0 = none; its batch is 4
     --share X (0.4)   of the peak that products reach, assumed; --bandwidth-share X (0.8); --launch US (5) */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "bench_plan"
#include "../examples/common.h"
#include "cost.h"

enum { SIDE = 32, DIM = 3 * SIDE * SIDE, IMAGES = 50000, EPOCHS = 200 };

typedef struct gpu { const char *name; double tflops, gbs, gb; } gpu;

/* The makers' figures: products of float32 outside tensor cores; in TF32 or its like, without sparsity. */
static const gpu gpus[] = {
    { "H100 SXM, float32", 66.9, 3350, 80 },   { "H100 SXM, TF32", 494.7, 3350, 80 },
    { "MI300X, float32", 163.4, 5300, 192 },   { "MI300X, TF32", 653.7, 5300, 192 }
};
enum { GPUS = (int)(sizeof gpus / sizeof *gpus) };

/* The published policy has 36 M weights in two blocks a size, and attention; ours has none. */
typedef struct variant { const char *name; int steps, blocks; bool fresh; } variant;
static const variant variants[] = {
    { "T = 10, 2 blocks a size", 10, 2, false }, { "T = 10, 5 blocks a size", 10, 5, false },
    { "T = 4, 2 blocks a size", 4, 2, true }
};
enum { VARIANTS = (int)(sizeof variants / sizeof *variants) };

typedef struct options { int width, batch, run; double share, bandwidth_share, launch; } options;

typedef struct plan {
    counter cost;                                /* of an iteration                                   */
    double forward;                              /* FLOP of the policy's products for one image       */
    double bytes;                                /* that the model holds                              */
    int policy, value;                           /* weights                                           */
} plan;

/* As published: V = E, here one network of x and t; gamma 1; rates; the chain of FastDPM. */
static vgs_ebm_config config_of(const variant *v, int width, int batch)
{
    vgs_ebm_config c = { .net = { .dim = DIM }, .objective = VGS_DXMI, .shared = true, .gamma = 1.0f };
    c.lr = c.sampler.value_lr = c.sampler.step_sigma_lr = 1e-5f;
    c.sampler.policy_lr = 1e-7f;
    c.sampler.entropy_tau = 0.1f / DIM;          /* published: per-dimension means                    */
    c.sampler.velocity_tau = 0.01f / DIM;
    c.sampler.fresh_targets = v->fresh;
    c.sampler.steps = v->steps;
    c.sampler.schedule = VGS_FASTDPM;
    c.sampler.batch = batch;
    c.sampler.threads = 1;
    c.sampler.policy = (vgs_net_config){ .kind = VGS_NET_UNET, .hidden = width, .layers = v->blocks };
    c.sampler.net = (vgs_net_config){ .kind = VGS_NET_RESNET, .hidden = width, .layers = 2, .levels = 3 };
    return c;
}

static int random_images(void *user, const int64_t *row, int n, int dim, float *x)
{
    (void)row;
    vgs_rng_normals((vgs_rng *)user, x, (size_t)n * (size_t)dim);
    for (int i = 0; i < n * dim; ++i) x[i] *= 0.5f;
    return 0;
}

/* FLOP of the products with one row of the policy's network, from a graph of its own. */
static vgs_status count_forward(const vgs_net_config *net, double *flop, vgs_error *err)
{
    counter c;
    vgs_graph *g = vgs_graph_create(err);
    vgs_model *m;
    vgs_var x = { 0 };
    static float zero[2 * DIM];
    vgs_status st;
    if (!g) return err->code;
    counter_start(&c, NULL);
    m = vgs_model_create(net, &c.base, 0, err);
    st = m ? VGS_OK : err->code;
    if (m) {
        x = vgs_input(g, net->dim);
        vgs_output(g, vgs_model_apply(g, m, x, vgs_fill_int(g, -1, vgs_scalar_create(g, 0))));
        st = vgs_graph_compile(g, &c.base, 2, err);
    }
    for (int rows = 2; rows >= 1 && st == VGS_OK; --rows) {          /* tables of t cost rows nothing  */
        counter_forget(&c);
        st = vgs_set(g, x, zero, rows, err);
        if (st == VGS_OK) st = vgs_graph_run(g, rows, err);
        *flop = rows == 2 ? c.product : *flop - c.product;
    }
    vgs_graph_free(g);
    vgs_model_free(m);
    return st;
}

/* The second iteration, on cpu or with no backend at all. */
static vgs_status count(const variant *v, int width, int batch, vgs_backend *cpu, plan *p, vgs_error *err)
{
    vgs_rng r = { .seed = 1 };
    vgs_data data = { .read = random_images, .user = &r, .rows = IMAGES, .dim = DIM };
    vgs_ebm_config c = config_of(v, width, batch);
    vgs_ebm *m;
    vgs_status st;
    counter_start(&p->cost, cpu);
    c.sampler.backend = &p->cost.base;
    if (!(m = vgs_ebm_create(&c, err))) return err->code;
    st = vgs_ebm_train(m, &data, 1, NULL, err);
    counter_forget(&p->cost);
    if (st == VGS_OK) st = vgs_ebm_train(m, &data, 1, NULL, err);
    p->bytes = (double)vgs_ebm_bytes(m);
    p->policy = vgs_model_size(vgs_sampler_policy(vgs_ebm_sampler(m), false));
    p->value = vgs_model_size(vgs_ebm_model(m, false));
    if (st == VGS_OK) st = count_forward(&vgs_ebm_settings(m)->sampler.policy, &p->forward, err);
    vgs_ebm_free(m);
    return st;
}

static double seconds_on(const gpu *g, const plan *p, const options *o)
{
    return p->cost.product / (1e12 * g->tflops * o->share) + 1e-6 * o->launch * (double)p->cost.calls +
           p->cost.bytes / (1e9 * g->gbs * o->bandwidth_share);
}

static void print_plan(const variant *v, const plan *p, const options *o)
{
    double iterations = (double)EPOCHS * IMAGES / o->batch;
    printf("\n%s, batch %d: policy %.1f M weights, %.1f GFLOP an image; value and energy %.1f M\n", v->name,
           o->batch, 1e-6 * p->policy, 1e-9 * p->forward, 1e-6 * p->value);
    printf("an iteration: %.1f TFLOP, of these %.1f of products; %.2f TB; %ld ops; memory %.0f GB\n",
           1e-12 * p->cost.flop, 1e-12 * p->cost.product, 1e-12 * p->cost.bytes, p->cost.calls,
           1e-9 * p->bytes);
    for (int i = 0; i < GPUS; ++i) {
        double s = seconds_on(&gpus[i], p, o);
        bool holds = p->bytes <= 1e9 * gpus[i].gb;
        printf("  %-18s %6.2f s an iteration, %5.1f days of %.0f%s\n", gpus[i].name, s,
               s * iterations / 86400, iterations, holds ? "" : "; it does not hold that");
    }
}

/* Counted, and run: the same ops of the same sizes, whether there is a backend or none. */
static int run_reduced(const options *o, vgs_error *err)
{
    vgs_cpu_config one = { .threads = 1 };
    vgs_backend *cpu = vgs_cpu_create(&one, err);
    plan paper, real;
    double start;
    vgs_status st = cpu ? count(&variants[0], o->run, 4, NULL, &paper, err) : err->code;
    start = cpu_seconds();
    if (st == VGS_OK) st = count(&variants[0], o->run, 4, cpu, &real, err);
    vgs_cpu_free(cpu);
    if (st) return fail(err);
    printf("\nrun: two iterations of %d channels, batch 4, in %.1f s of the processor: %.2f GFLOP, %.2f GB, "
           "%ld ops an\niteration, memory %.2f GB\n", o->run, cpu_seconds() - start,
           1e-9 * real.cost.flop, 1e-9 * real.cost.bytes, real.cost.calls, 1e-9 * real.bytes);
    if (paper.cost.flop == real.cost.flop && paper.cost.bytes == real.cost.bytes &&
        paper.cost.calls == real.cost.calls && paper.bytes == real.bytes) return 0;
    say("counted on paper: %.17g FLOP, %.17g bytes, %ld ops: not what ran", paper.cost.flop, paper.cost.bytes,
        paper.cost.calls);
    return EXIT_FAILED;
}

int main(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .width = 128, .batch = 128, .run = 8, .share = 0.4, .bandwidth_share = 0.8, .launch = 5 };
    vgs_error err;
    plan p;
    while (args_next(&a)) {
        if (args_is(&a, "width")) o.width = args_int(&a, 1, 4096);
        else if (args_is(&a, "batch")) o.batch = args_int(&a, 1, 4096);
        else if (args_is(&a, "run")) o.run = args_int(&a, 0, 256);
        else if (args_is(&a, "share")) o.share = args_double(&a, 1e-3, 1);
        else if (args_is(&a, "bandwidth_share")) o.bandwidth_share = args_double(&a, 1e-3, 1);
        else if (args_is(&a, "launch")) o.launch = args_double(&a, 0, 1e3);
        else wrong_usage("%s%.40s: there is no such option", *a.key ? "--" : "", *a.key ? a.key : a.word);
    }
    printf("products at %.0f %% of peak, all bytes at %.0f %% of the bandwidth, %g us a launch: assumed\n",
           100 * o.share, 100 * o.bandwidth_share, o.launch);
    for (int i = 0; i < VARIANTS; ++i) {
        if (count(&variants[i], o.width, o.batch, NULL, &p, &err)) return fail(&err);
        print_plan(&variants[i], &p, &o);
        fflush(stdout);
    }
    return o.run ? run_reduced(&o, &err) : 0;
}
