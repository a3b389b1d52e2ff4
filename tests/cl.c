/* cc -O2 tests/cl.c -o cl -lOpenCL -lm && ./cl
   Training and drawing on an OpenCL device against the CPU, checkpoints that change sides, energies of every
   kind, every way to make products, what moves between host and device, and what is refused.
   Ops: cl_ops.c, networks: cl_nets.c, failures: cl_faults.c. */
#define CL_TARGET_OPENCL_VERSION 120
#include <stdbool.h>
#include <string.h>
#ifdef __APPLE__
#  include <OpenCL/opencl.h>
#else
#  include <CL/cl.h>
#endif

/* Counts the programs that vgs_cl.h compiles from source. */
static int compiled;
static cl_program count_source(cl_context c, cl_uint n, const char **line, const size_t *length, cl_int *e)
{
    ++compiled;
    return clCreateProgramWithSource(c, n, line, length, e);
}
#define clCreateProgramWithSource count_source

/* With own_clock the choice of products does not depend on how busy the machine is: a product by tall takes
   1 us, one by tile tile_us, and one by CLBlast nothing. The two stamps are the fills that have an event. */
static bool own_clock;
static cl_ulong now, stamp[2], tile_us = 10;
static int stamps;

static cl_int clock_launch(cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset,
                           const size_t *global, const size_t *local, cl_uint n, const cl_event *wait,
                           cl_event *event)
{
    char name[40] = "";
    clGetKernelInfo(k, CL_KERNEL_FUNCTION_NAME, sizeof name, name, NULL);
    now += !strcmp(name, "vgs_tile") ? 1000 * tile_us : !strcmp(name, "vgs_tall") ? 1000 : 0;
    return clEnqueueNDRangeKernel(q, k, dims, offset, global, local, n, wait, event);
}

static cl_int clock_fill(cl_command_queue q, cl_mem m, const void *pattern, size_t size, size_t at,
                         size_t bytes, cl_uint n, const cl_event *wait, cl_event *event)
{
    if (event) stamp[stamps++ % 2] = ++now;
    return clEnqueueFillBuffer(q, m, pattern, size, at, bytes, n, wait, event);
}

/* END is asked of the stamp before the last, START of the last. */
static cl_int clock_ask(cl_event event, cl_profiling_info what, size_t size, void *value, size_t *got)
{
    if (!own_clock) return clGetEventProfilingInfo(event, what, size, value, got);
    memcpy(value, &stamp[(stamps + (what == CL_PROFILING_COMMAND_START)) % 2], size);
    return CL_SUCCESS;
}
#define clEnqueueNDRangeKernel  clock_launch
#define clEnqueueFillBuffer     clock_fill
#define clGetEventProfilingInfo clock_ask

#define VGS_IMPLEMENTATION
#include "../vgs.h"
#ifdef VGS_CL_CLBLAST
#  include "cl_clblast.h"
#endif
#include "../vgs_cl.h"
#include "../examples/targets.h"
#include "../examples/targets_cl.h"
#include "t.h"
#include "cl.h"

static vgs_error err;

/* The fast preset of a target on a backend, with the energy there; NULL: the CPU. */
static vgs_config config_of(const char *name, vgs_backend *b)
{
    const target *t = target_find(name);
    vgs_config c;
    memset(&c, 0, sizeof c);
    OK(preset_fill(t, "fast", &c, NULL, &err) == VGS_OK);
    if (b) CHECK(target_cl_energy(t, b, &c.energy, &err) == VGS_OK, "%s", err.msg);
    c.backend = b;
    c.threads = 1;
    return c;
}

static int weights(vgs_sampler *s, float *w, int room)
{
    int p = vgs_model_size(s->online);
    if (!CHECK(p <= room, "%d weights", p)) return 0;
    OK(!vgs_model_read(s->online, w, &err));
    return p;
}

/* The largest difference, in units of the largest number. */
static double distance(const float *a, const float *b, int n)
{
    double top = 1e-30, worst = 0.0;
    int i;
    for (i = 0; i < n; ++i) {
        top = fmax(top, fabs((double)b[i]));
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst / top;
}

/* One iteration of each target's preset, smaller: the weights agree within 1e-4. A CPU runs the work-items of
   a group one after the other, most of them idle: large groups get fewer rows. */
static void one_step(void)
{
    static const char *const name[] = { "gmm9", "gmm40", "funnel", "manywell32", "dw4", "lj13" };
    static float w[2][1 << 20];
    int k, side, n = 0;
    for (k = 0; k < 6; ++k) {
        T_IN("%s", name[k]);
        for (side = 0; side < 2; ++side) {
            vgs_config c = config_of(name[k], side ? the_device : NULL);
            vgs_sampler *s;
            c.steps = the_config.work_group > 32 ? 3 : 4;
            c.batch = the_config.work_group > 32 ? 8 : 32;
            c.net.hidden = 24;
            c.slope_loss = k == 4 ? 0.5f : 0.0f;
            c.local_noise = k == 0 || k == 4;
            s = vgs_sampler_create(&c, &err);
            if (!CHECK(s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg)) return;
            n = weights(s, w[side], 1 << 20);
            vgs_sampler_free(s);
        }
        CHECK(distance(w[1], w[0], n) < 1e-4, "weights differ by %.2g", distance(w[1], w[0], n));
    }
}

/* 200 iterations of gmm9 on both: mean loss of the last 100 within five standard errors, ELBO alike. */
static void same_loss(void)
{
    double mean[2] = { 0, 0 }, square[2] = { 0, 0 }, elbo[2], error;
    int side, i;
    for (side = 0; side < 2; ++side) {
        vgs_config c = config_of("gmm9", side ? the_device : NULL);
        vgs_sampler *s;
        vgs_stats st;
        c.steps = 20;
        c.batch = 64;
        c.net.hidden = 32;
        s = vgs_sampler_create(&c, &err);
        if (!CHECK(s != NULL, "%s", err.msg)) return;
        OK(vgs_sampler_train(s, 100, NULL, &err) == VGS_OK);
        for (i = 0; i < 100; ++i) {
            OK(vgs_sampler_train(s, 1, &st, &err) == VGS_OK);
            mean[side] += st.loss / 100;
            square[side] += st.loss * st.loss / 100;
        }
        elbo[side] = st.elbo;
        vgs_sampler_free(s);
    }
    error = sqrt((square[0] - mean[0] * mean[0] + square[1] - mean[1] * mean[1]) / 100);
    printf("gmm9, 200 iterations: loss %.5f on the CPU, %.5f on the device (standard error %.5f); "
           "ELBO %.3f, %.3f\n",
           mean[0], mean[1], error, elbo[0], elbo[1]);
    OK(fabs(mean[0] - mean[1]) < 5 * error);
    CHECK_NEAR(elbo[1], elbo[0], 0, 0.5);
}

/* Train on one side, save, load on the other, go on: as if it had stayed. */
static void checkpoints(void)
{
    static float w[3][1 << 18], x[2][100 * 2];
    const char *path = "build/cl_checkpoint.safetensors";
    int from, k, n = 0;
    for (from = 0; from < 2; ++from) {
        vgs_config c[2] = { config_of("gmm9", NULL), config_of("gmm9", the_device) };
        vgs_sampler *s, *r;
        T_IN("from the %s", from ? "device" : "CPU");
        for (k = 0; k < 2; ++k) {
            c[k].steps = 5;
            c[k].batch = 32;
            c[k].replay = 2;
            c[k].net.hidden = 24;
        }
        s = vgs_sampler_create(&c[from], &err);
        r = vgs_sampler_create(&c[!from], &err);
        if (!CHECK(s && r, "%s", err.msg)) return;
        CHECK(!vgs_sampler_train(s, 3, NULL, &err) && !vgs_sampler_save(s, path, NULL, &err) &&
              !vgs_sampler_load(r, path, &err), "%s", err.msg);
        n = weights(s, w[0], 1 << 18);
        weights(r, w[1], 1 << 18);
        OK(!memcmp(w[0], w[1], (size_t)n * sizeof(float)));          /* bit for bit                   */
        OK(!vgs_sampler_draw(s, NULL, 100, x[0], &err) && !vgs_sampler_draw(r, NULL, 100, x[1], &err));
        CHECK(distance(x[1], x[0], 200) < 1e-3, "draws differ by %.2g", distance(x[1], x[0], 200));
        OK(!vgs_sampler_train(s, 2, NULL, &err) && !vgs_sampler_train(r, 2, NULL, &err));
        weights(s, w[0], 1 << 18);
        weights(r, w[1], 1 << 18);
        CHECK(distance(w[1], w[0], n) < 1e-3, "weights differ by %.2g", distance(w[1], w[0], n));
        vgs_sampler_free(s);
        vgs_sampler_free(r);
    }
    remove(path);
}

/* Three iterations of energies that learn: weights and scores of the processor. The loss of discrepancy is
   that of E plus any constant: of the last bias the gradient is rounding, of which Adam makes a step. */
static void ebm(void)
{
    static const vgs_ebm_objective objectives[] = { VGS_CD, VGS_GCD, VGS_PERSISTENT, VGS_DISCREPANCY };
    static float x[64 * 3], w[2][4000], e[2][64];
    const vgs_data data = { x, NULL, NULL, 64, 3 };
    vgs_rng r = { 1, 0, 0 };
    int k, side, n = 0;
    vgs_rng_normals(&r, x, 64 * 3);
    for (k = 0; k < 4; ++k) {
        T_IN("objective %d", (int)objectives[k]);
        for (side = 0; side < 2; ++side) {
            vgs_ebm_config c;
            vgs_ebm *m;
            memset(&c, 0, sizeof c);
            c.objective = objectives[k];
            c.net.dim = 3;
            c.net.hidden = c.sampler.net.hidden = 8;
            c.sampler.net.time_dim = 4;
            c.langevin_steps = c.ed_samples = 3;
            c.sampler.on_sphere = k == 0;
            c.sampler.steps = 4;
            c.sampler.batch = 16;
            c.sampler.threads = 1;
            c.sampler.backend = side ? the_device : NULL;
            if (!CHECK((m = vgs_ebm_create(&c, &err)) != NULL, "%s", err.msg)) return;
            n = vgs_model_size(vgs_ebm_model(m, true));
            if (!CHECK(n <= 4000, "%d weights", n)) return;
            CHECK(!vgs_ebm_train(m, &data, 3, NULL, &err), "%s", err.msg);
            OK(!vgs_model_read(vgs_ebm_model(m, false), w[side], &err));
            CHECK(!vgs_ebm_score(m, x, 64, e[side], &err), "%s", err.msg);
            vgs_ebm_free(m);
        }
        n -= objectives[k] == VGS_DISCREPANCY;
        CHECK(distance(w[1], w[0], n) < 1e-4, "weights differ by %.2g", distance(w[1], w[0], n));
        CHECK(distance(e[1], e[0], 64) < 1e-4, "scores differ by %.2g", distance(e[1], e[0], 64));
    }
}

/* Where MALA accepts on one side only, rows part for good: so weights are compared as a whole. */
static void corrected(void)
{
    enum { N = 2000 };
    static float x[N * 8];
    static double lw[N];
    vgs_weights w[2];
    int k, side;
    for (k = 0; k < 2; ++k) {
        T_IN("%s", k ? "dw4" : "gmm9");
        for (side = 0; side < 2; ++side) {
            vgs_config c = config_of(k ? "dw4" : "gmm9", side ? the_device : NULL);
            vgs_sampler *s;
            vgs_draw d;
            c.steps = 16;
            c.batch = 32;
            c.net.hidden = 16;
            c.local_noise = true;
            c.correct = 2;
            memset(&d, 0, sizeof d);
            d.log_weight = lw;
            s = vgs_sampler_create(&c, &err);
            if (!CHECK(s && vgs_sampler_train(s, k ? 20 : 40, NULL, &err) == VGS_OK, "%s", err.msg)) return;
            CHECK(!vgs_sampler_draw(s, &d, N, x, &err) && !vgs_weigh(lw, N, &w[side], &err), "%s", err.msg);
            vgs_sampler_free(s);
        }
        CHECK(fabs(w[0].elbo - w[1].elbo) < 5 * (w[0].elbo_se + w[1].elbo_se), "ELBO %g +- %g, device %g",
              w[0].elbo, w[0].elbo_se, w[1].elbo);
    }
}

/* E = -3 x_1, behind a wall at x_1 = -1/2 where it is NaN; on the sphere, and in space with x^2/2 to hold. */
static vgs_var walled(void *on_sphere, vgs_graph *g, vgs_var x)
{
    vgs_var first = vgs_cols(g, x, 0, 1), v = vgs_affine(g, first, -3, 0);
    if (!on_sphere) v = vgs_add(g, v, vgs_affine(g, vgs_sum_cols(g, vgs_square(g, x)), 0.5f, 0));
    return vgs_add(g, v, vgs_affine(g, vgs_log(g, vgs_affine(g, first, 1, 0.5f)), 0, 0));
}

/* Walls, and densities on the sphere, row by row as on the CPU. */
static void walls_and_sphere(void)
{
    enum { N = 300 };
    static float x[N * 3];
    static double lw[2][2][N];
    static int mark;
    int sphere, side, i, apart = 0, outside = 0;
    for (sphere = 0; sphere < 2; ++sphere) {
        T_IN("%s", sphere ? "sphere" : "space");
        for (side = 0; side < 2; ++side) {
            vgs_config c = config_of("gmm9", side ? the_device : NULL);
            vgs_sampler *s;
            vgs_draw d;
            memset(&c.energy, 0, sizeof c.energy);
            c.energy.record = walled;
            c.energy.user = sphere ? &mark : NULL;
            c.energy.dim = 3;
            c.on_sphere = sphere;
            c.local_noise = false;
            c.steps = 4;
            c.s2_start = 2;
            c.s2_end = 0.1f;
            c.batch = 32;
            c.net.hidden = 16;
            c.correct = 0;
            c.replay = c.refine = 0;
            c.lambda = c.sigma_lr = c.energy_max = c.init_sigma = 0;
            memset(&d, 0, sizeof d);
            d.log_weight = lw[side][0];
            s = vgs_sampler_create(&c, &err);
            if (!CHECK(s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg)) return;
            CHECK(!vgs_sampler_draw(s, &d, N, x, &err), "%s", err.msg);
            CHECK(!vgs_sampler_score(s, NULL, N, x, lw[side][1], &err), "%s", err.msg);
            vgs_sampler_free(s);
        }
        for (i = 0; i < 2 * N; ++i) {
            double a = lw[0][i / N][i % N], b = lw[1][i / N][i % N];
            outside += a < -DBL_MAX;
            if (a < -DBL_MAX || b < -DBL_MAX) apart += (a < -DBL_MAX) != (b < -DBL_MAX);
            else apart += !(fabs(a - b) < 1e-2 * (1 + fabs(a)));
        }
        CHECK(apart < 8 && outside > 20, "%d of %d rows differ, %d are outside", apart, 2 * N, outside);
    }
}

/* ---- energies ------------------------------------------------------------------------------------- */

static int ring(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i) {
        float a = x[i * dim], b = x[i * dim + 1], u = a * a + b * b - 4.0f;
        e[i] = u * u;
        if (g) { g[i * dim] = 4.0f * u * a; g[i * dim + 1] = 4.0f * u * b; }
    }
    return 0;
}

static const char *const ring_source =
    "float energy(__global const float *x, int dim)\n"
    "{\n"
    "    float u = x[0] * x[0] + x[1] * x[1] - 4.0f;\n"
    "    return u * u;\n"
    "}\n"
    "void gradient(__global const float *x, int dim, __global float *g)\n"
    "{\n"
    "    float u = x[0] * x[0] + x[1] * x[1] - 4.0f;\n"
    "    g[0] = 4.0f * u * x[0];\n"
    "    g[1] = 4.0f * u * x[1];\n"
    "}\n";

/* E and gradient of n rows of `energy` in a graph on a backend. */
static void evaluate(vgs_backend *b, const vgs_energy *energy, const float *x, int n, float *e, float *gx)
{
    vgs_graph *g = vgs_graph_create(&err);
    vgs_var in = vgs_input(g, energy->dim), out = vgs_energy_of(g, energy, in), slope;
    OK(!vgs_gradient(g, out, &in, 1, &slope));
    vgs_output(g, out);
    vgs_output(g, slope);
    CHECK(!vgs_graph_compile(g, b, n, &err) && !vgs_set(g, in, x, n, &err) && !vgs_graph_run(g, n, &err) &&
          !vgs_get(g, out, e, n, &err) && !vgs_get(g, slope, gx, n, &err), "%s", err.msg);
    vgs_graph_free(g);
}

static void targets(void)
{
    static float x[70 * 165], e[2][70], g[2][70 * 165];
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_rng r = { 3, 0, 0 };
    const target *t;
    int k, i;
    for (k = 0; (t = target_at(k)) != NULL; ++k) {
        vgs_energy energy = target_energy(t), there;
        T_IN("%s", t->name);
        if (!CHECK(target_cl_energy(t, the_device, &there, &err) == VGS_OK, "%s", err.msg)) continue;
        OK(there.dim == t->dim && there.particles == t->particles);
        vgs_rng_normals(&r, x, (size_t)(70 * t->dim));
        for (i = 0; i < 70 * t->dim; ++i) x[i] *= (float)t->length_scale;
        evaluate(cpu, &energy, x, 70, e[0], g[0]);
        vgs_cl_reset(the_device);
        evaluate(the_device, &there, x, 70, e[1], g[1]);
        OK(vgs_cl_counted(the_device).callback_rows == 0);
        for (i = 0; i < 70; ++i) CHECK_NEAR(e[1][i], e[0][i], 1e-5, 1e-5);
        for (i = 0; i < 70; ++i)
            CHECK(distance(g[1] + i * t->dim, g[0] + i * t->dim, t->dim) < 1e-5,
                  "gradient of row %d differs by %.2g", i,
                  distance(g[1] + i * t->dim, g[0] + i * t->dim, t->dim));
    }
    vgs_cpu_free(cpu);
}

/* OpenCL C against the callback: in a graph there, through its own callback, in training. */
static void sources(void)
{
    static float x[50 * 2], e[2][50], g[2][100], w[2][1 << 16];
    vgs_energy source, callback;
    vgs_rng r = { 4, 0, 0 };
    double worst;
    int i, k, n = 0;
    memset(&callback, 0, sizeof callback);
    callback.eval = ring;
    callback.dim = 2;
    if (!CHECK(vgs_cl_energy(the_device, ring_source, 2, &source, &err) == VGS_OK, "%s", err.msg)) return;
    vgs_rng_normals(&r, x, 100);
    evaluate(the_device, &source, x, 50, e[0], g[0]);
    ring(NULL, x, 50, 2, e[1], g[1]);
    for (i = 0; i < 50; ++i) CHECK_NEAR(e[0][i], e[1][i], 1e-5, 1e-5);
    for (i = 0; i < 100; ++i) CHECK_NEAR(g[0][i], g[1][i], 1e-5, 1e-4);
    OK(vgs_energy_check(&source, x, 50, &worst, &err) == VGS_OK && worst < 1e-2);
    for (k = 0; k < 2; ++k) {
        vgs_config c;
        vgs_sampler *s;
        vgs_cl_counts count;
        memset(&c, 0, sizeof c);
        c.energy = k ? callback : source;
        c.length_scale = 2;
        c.coordinates = VGS_PLAIN;
        c.steps = 5;
        c.batch = 32;
        c.net.hidden = 16;
        c.backend = the_device;
        s = vgs_sampler_create(&c, &err);
        OK(s && !vgs_sampler_train(s, 2, NULL, &err));
        vgs_cl_reset(the_device);
        OK(!vgs_sampler_train(s, 1, NULL, &err));
        count = vgs_cl_counted(the_device);
        if (k) OK(count.callback_rows == 64 && count.uploads == 3 && count.downloads == 3);
        else OK(!count.callback_rows && !count.uploads && count.downloads == 1 && count.download_bytes == 16);
        n = weights(s, w[k], 1 << 16);
        vgs_sampler_free(s);
    }
    CHECK(distance(w[0], w[1], n) < 1e-3, "weights differ by %.2g", distance(w[0], w[1], n));
    OK(vgs_cl_energy(the_device, "float energy(int x)\n{ return y; }\n", 2, &source, &err) == VGS_E_DEVICE);
    CHECK(strstr(err.msg, "energy:2"), "%s", err.msg);
    OK(vgs_cl_energy(the_device, NULL, 2, &source, &err) == VGS_E_ARG);
}

/* ---- denormal numbers: 0 on a CPU device, which is slow with them ------------------------------------- */

/* 1e-10 as x 1e-30 1e30 goes by 1e-40. Devices may keep such numbers; PoCL on x86 does as it is told. */
static void denormals(void)
{
    enum { N = 64 };
    const char *name = vgs_cl_device(the_device);
    bool zero = false;
    float x[N], y[N];
    vgs_graph *q = vgs_graph_create(NULL);
    vgs_var in = vgs_input(q, 1), out = vgs_affine(q, vgs_affine(q, in, 1e-30f, 0), 1e30f, 0);
    int i;
#if defined __x86_64__
    zero = !strncmp(name, "pthread", 7) || !strncmp(name, "cpu-", 4);
#endif
    for (i = 0; i < N; ++i) x[i] = 1e-10f;
    vgs_output(q, out);
    CHECK(!vgs_graph_compile(q, the_device, N, &err), "%s", err.msg);
    OK(!vgs_set(q, in, x, N, NULL) && !vgs_graph_run(q, N, &err) && !vgs_get(q, out, y, N, NULL));
    for (i = 0; i < N; ++i)
        CHECK(y[i] == 0 || (!zero && fabsf(y[i] - 1e-10f) < 1e-14f), "%g on %s", (double)y[i], name);
    vgs_graph_free(q);
}

/* ---- files of the cache ------------------------------------------------------------------------------ */

#define CACHE "build/cl_cache"

static void damage(const char *path, long at, const char *with)
{
    FILE *f = fopen(path, "r+b");
    if (!CHECK(f != NULL, "%s", path)) return;
    fseek(f, at, SEEK_SET);
    fputs(with, f);
    fclose(f);
}

/* Where the choice of products is kept for the_config. */
static const char *choice_path(void)
{
    static char path[600];
    vgs_cl_config c = the_config;
    c.cache_dir = CACHE;
    OK(vgs_cl__cache_path(&c, vgs_cl__choice_key(vgs_cl__of(the_device)), "products", path));
    return path;
}

/* ---- products: every way, and the choice of one ------------------------------------------------------ */

static vgs_backend *open_with(const char *products, const char *cache_dir)
{
    vgs_cl_config c = the_config;
    vgs_backend *b;
    c.products = products;
    c.cache_dir = cache_dir;
    b = vgs_cl_create(&c, &err);
    CHECK(b != NULL, "products %s: %s", products ? products : "chosen", err.msg);
    return b;
}

static vgs_tensor on(vgs_backend *b, vgs_rng *r, int rows, int cols)
{
    static float x[200 * 200];
    vgs_tensor t = { NULL, 0, rows, cols, cols };
    vgs_rng_normals(r, x, (size_t)(rows * cols));
    t.buf = b->buffer_create(b->self, (size_t)(rows * cols), &err);
    OK(t.buf && !b->upload(b->self, t.buf, 0, x, (size_t)(rows * cols), VGS_F32, &err));
    return t;
}

enum { ROWS = 83, COLS = 71, DEEP = 150 };

/* tanh(A B + bias) in one of the forms on backend b. */
static void product_on(vgs_backend *b, int form, float y[ROWS * COLS])
{
    vgs_rng r = { 7, 0, 0 };
    vgs_call c;
    int k;
    memset(&c, 0, sizeof c);
    c.op = VGS_OP_MATMUL;
    c.i[0] = form;
    c.i[1] = VGS_ACT_TANH;
    c.in[0] = form == 2 ? on(b, &r, DEEP, ROWS) : on(b, &r, ROWS, DEEP);
    c.in[1] = form == 0 ? on(b, &r, COLS, DEEP) : on(b, &r, DEEP, COLS);
    c.in[2] = on(b, &r, 1, COLS);
    c.out = on(b, &r, ROWS, COLS);
    OK(!b->run(b->self, &c, &err) && !b->download(b->self, y, c.out.buf, 0, ROWS * COLS, VGS_F32, &err));
    for (k = 0; k < 3; ++k) b->buffer_free(b->self, c.in[k].buf);
    b->buffer_free(b->self, c.out.buf);
}

static bool has_fma(void)
{
    cl_device_fp_config fp = 0;
    clGetDeviceInfo(vgs_cl__of(the_device)->device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof fp, &fp, NULL);
    return (fp & CL_FP_FMA) != 0;
}

/* Every way against the CPU; all of ours give the same bits, where no compiler need think of fma itself. */
static void products(void)
{
    static float want[ROWS * COLS], got[ROWS * COLS], tile[ROWS * COLS];
    vgs_backend *cpu = vgs_cpu_create(NULL, &err), *b, *plain = open_with("tile", NULL);
    int form, way, i;
    if (!plain) return;
    for (way = 0; way < VGS_CL__WAYS; ++way) {
        T_IN("by %s", vgs_cl__way_names[way]);
        if (!vgs_cl__of(plain)->can[way]) continue;
        b = open_with(vgs_cl__way_names[way], NULL);
        if (!b) return;
        OK(vgs_cl__of(b)->can[way]);
        for (form = 0; form < 3; ++form) {
            product_on(cpu, form, want);
            product_on(plain, form, tile);
            product_on(b, form, got);
            for (i = 0; i < ROWS * COLS; ++i) CHECK_NEAR(got[i], want[i], 1e-5, 1e-5);
            if (way != VGS_CL__BY_CLBLAST && has_fma()) OK(!memcmp(got, tile, sizeof got));
        }
        vgs_cl_free(b);
    }
    vgs_cl_free(plain);
    vgs_cpu_free(cpu);
}

/* The choice is measured, kept, taken, and made anew where the file is damaged. */
static void choice(void)
{
    vgs_cl_config c = the_config;
    vgs_backend *b;
    vgs_cl *cl;
    int k;
    c.cache_dir = CACHE;
    own_clock = true;
    remove(choice_path());
    for (k = 0; k < 5; ++k) {
        T_IN("start %d", k);
        tile_us = k == 4 ? 0 : 10;
        if (k == 4) OK(!remove(choice_path()));
        if (k == 2) damage(choice_path(), 4 * (long)sizeof(uint64_t) + 3, "\3");
        if ((b = open_with(NULL, CACHE)) == NULL) return;
        cl = vgs_cl__of(b);
        if (cl->wg == 1)                         /* else there is no tall                            */
            OK((cl->way[VGS_CL__LARGE] == VGS_CL__BY_TILE) == (k == 1 || k == 4));
        if (k == 0) {
            vgs_cl__all_by(cl, VGS_CL__BY_TILE);
            vgs_cl__save_choice(cl, &c);
        }
        vgs_cl_free(b);
    }
    OK(!remove(choice_path()));
    vgs_cl_free(open_with("tile", CACHE));       /* given, so not measured                            */
    OK(remove(choice_path()) != 0);
    own_clock = false;
    tile_us = 10;
}

#ifdef VGS_CL_CLBLAST
/* CLBlast that computes wrongly or fails gives way to ours; one that is faster is taken. */
static void weak_clblast(void)
{
    static float want[ROWS * COLS], got[ROWS * COLS];
    static const enum sgemm_mode mode[3] = { SGEMM_WRONG, SGEMM_WRONG_WHEN_LARGE, SGEMM_FAILS };
    vgs_backend *cpu = vgs_cpu_create(NULL, &err), *b;
    int k, i;
    product_on(cpu, 0, want);
    for (k = 0; k < 4; ++k) {
        T_IN("CLBlast %d", k);
        sgemm_mode = k < 3 ? mode[k] : SGEMM_RIGHT;
        b = open_with("clblast", NULL);
        if (k == 3) sgemm_mode = SGEMM_FAILS;    /* later than the self-test                          */
        if (!b) return;
        OK(vgs_cl__of(b)->can[VGS_CL__BY_CLBLAST] == (k == 3));
        product_on(b, 0, got);
        for (i = 0; i < ROWS * COLS; ++i) CHECK_NEAR(got[i], want[i], 1e-5, 1e-5);
        OK(!vgs_cl__of(b)->can[VGS_CL__BY_CLBLAST]);
        vgs_cl_free(b);
    }
    vgs_cpu_free(cpu);
    T_IN("a faster CLBlast");
    sgemm_mode = SGEMM_RIGHT;
    sgemm_calls = 0;
    vgs_cl_free(open_with("clblast", NULL));
    sgemm_instant_after = sgemm_calls;           /* those of the self-test                            */
    sgemm_calls = 0;
    sgemm_mode = SGEMM_INSTANT;
    own_clock = true;
    remove(choice_path());
    b = open_with(NULL, CACHE);
    own_clock = false;
    for (k = 0; b && k < VGS_CL__CLASSES; ++k) OK(vgs_cl__of(b)->way[k] == VGS_CL__BY_CLBLAST);
    vgs_cl_free(b);
    remove(choice_path());
    sgemm_mode = SGEMM_RIGHT;
}
#endif

/* ---- launches, the cache, what is refused ----------------------------------------------------------- */

/* A value with its gradient: launches after the first run. */
static void launches(void)
{
    static const struct { const char *target, *preset; int most; } net[] = {
        { "gmm9", "paper", 40 }, { "dw4", "paper", 40 }, { "lj13", "paper", 40 }, { "gmm9", "fast", 40 }
    };
    int k;
    for (k = 0; k < 4; ++k) {
        const target *t = target_find(net[k].target);
        vgs_graph *g = vgs_graph_create(&err);
        vgs_config c;
        vgs_model *m;
        vgs_var x, step, v, slope;
        static const float points[64 * 64];      /* the widest target has 39 numbers in a row         */
        static const int32_t steps[64];
        char value[32];
        int field = 0, count;
        memset(&c, 0, sizeof c);
        OK(!preset_fill(t, net[k].preset, &c, NULL, &err) && !vgs_config_resolve(&c, &c, &err));
        m = vgs_model_create(&c.net, the_device, 0, &err);
        if (!CHECK(m != NULL, "%s", err.msg)) return;
        x = vgs_input(g, c.energy.dim);
        step = vgs_index(g);
        v = vgs_model_apply(g, m, x, step);
        OK(!vgs_gradient(g, v, &x, 1, &slope));
        vgs_output(g, v);
        vgs_output(g, slope);
        OK(!vgs_graph_compile(g, the_device, 64, &err));
        OK(!vgs_set(g, x, points, 64, &err) && !vgs_set(g, step, steps, 64, &err));
        OK(!vgs_graph_run(g, 64, &err));
        vgs_cl_reset(the_device);
        OK(!vgs_graph_run(g, 64, &err));
        count = (int)vgs_cl_counted(the_device).launches;
        while (strcmp(vgs_field_name(field), "value")) ++field;
        vgs_field_get(&c, field, value);
        printf("%s %s (%s): %d launches for a value with its gradient, %d ops\n", net[k].target,
               net[k].preset, value, count, vgs_graph_ops(g, false));
        OK(count <= net[k].most);
        vgs_graph_free(g);
        vgs_model_free(m);
    }
}

static void cache(void)
{
    vgs_cl_config c = the_config;
    char path[600];
    vgs_backend *b;
    int k;
    c.cache_dir = CACHE;
    OK(vgs_cl__cache_path(&c, vgs_cl__of(the_device)->key, "cl", path));
    remove(path);
    for (k = 0; k < 3; ++k) {                    /* makes it, takes it, finds it damaged              */
        compiled = 0;
        b = vgs_cl_create(&c, &err);
        CHECK(b != NULL, "%s", err.msg);
        vgs_cl_free(b);
        CHECK(compiled == (k != 1), "start %d compiles %d programs", k, compiled);
        if (k == 1) damage(path, 100, "not what it was");
    }
    OK(!remove(path));
}

/* A context and a queue of the caller's: used, and still there afterwards. */
static void borrowed(void)
{
    vgs_cl_config c = the_config;
    cl_device_id d = vgs_cl__of(the_device)->device, same = NULL;
    cl_int e, e2;
    vgs_backend *b;
    c.context = clCreateContext(NULL, 1, &d, NULL, NULL, &e);
    c.queue = clCreateCommandQueue((cl_context)c.context, d, 0, &e2);
    OK(e == CL_SUCCESS && e2 == CL_SUCCESS);
    b = vgs_cl_create(&c, &err);
    CHECK(b != NULL, "%s", err.msg);
    vgs_cl_free(b);
    OK(!clGetCommandQueueInfo((cl_command_queue)c.queue, CL_QUEUE_DEVICE, sizeof same, &same, NULL));
    OK(same == d);
    clReleaseCommandQueue((cl_command_queue)c.queue);
    clReleaseContext((cl_context)c.context);
}

static void bad_input(void)
{
    vgs_cl_config c = the_config;
    vgs_call call;
    char text[200];
    memset(&call, 0, sizeof call);
    call.op = VGS_OP_ADD;                        /* stands for an op on whole tensors that has no kernel */
    CHECK(vgs_cl__whole((vgs_cl *)the_device->self, &call, &err) == VGS_E_DEVICE && strstr(err.msg, "add"),
          "%s", err.msg);
    OK(!vgs_cl_list(-1, text, &err) && !vgs_cl_list(1000, text, &err));
    c.device = "no such device";
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_DEVICE && strstr(err.msg, "no such device"));
    c = the_config;
    c.work_group = 48;
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG && strstr(err.msg, "48"));
    c = the_config;
    c.products = "fastest";
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG && strstr(err.msg, "fastest"));
    c.products = "tall";
    c.work_group = 32;
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG && strstr(err.msg, "tall"));
#ifndef VGS_CL_CLBLAST
    c.products = "clblast";
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG && strstr(err.msg, "VGS_CL_CLBLAST"));
#endif
    c = the_config;
    c.queue = &c;
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG);
    OK(!the_device->buffer_create(the_device->self, (size_t)1 << 40, &err) && err.code == VGS_E_NOMEM);
    CHECK(strstr(err.msg, "4398047 MB"), "%s", err.msg);
}

/* Random numbers: integers bit for bit, normal numbers within 2 ulp. */
static void random_numbers(void)
{
    static float x[2][1000 * 7];
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_call c;
    int side, i, worst = 0;
    for (side = 0; side < 2; ++side) {
        vgs_backend *b = side ? the_device : cpu;
        memset(&c, 0, sizeof c);
        c.op = VGS_OP_NORMAL;
        c.i[0] = 2, c.i[1] = 5, c.i[2] = 100, c.i[3] = 9, c.i[4] = -7, c.i[5] = 12345;
        c.out.rows = 1000;
        c.out.cols = c.out.ld = 7;
        c.out.buf = b->buffer_create(b->self, 7000, &err);
        OK(!b->run(b->self, &c, &err) && !b->download(b->self, x[side], c.out.buf, 0, 7000, VGS_F32, &err));
        b->buffer_free(b->self, c.out.buf);
    }
    for (i = 0; i < 7000; ++i) {
        int32_t a, b;
        memcpy(&a, &x[0][i], 4);
        memcpy(&b, &x[1][i], 4);
        if (abs(a - b) > worst) worst = abs(a - b);
    }
    CHECK(worst <= 2, "normal numbers differ by %d ulp", worst);
    vgs_cpu_free(cpu);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    if (!open_device()) return t_failed ? t_end() : 0;
    printf("%s\n", vgs_cl_device(the_device));
    RUN(random_numbers);
    RUN(targets);
    RUN(sources);
    RUN(denormals);
    RUN(one_step);
    RUN(same_loss);
    RUN(checkpoints);
    RUN(ebm);
    RUN(corrected);
    RUN(walls_and_sphere);
    RUN(products);
    RUN(choice);
#ifdef VGS_CL_CLBLAST
    RUN(weak_clblast);
#endif
    RUN(launches);
    RUN(cache);
    RUN(borrowed);
    RUN(bad_input);
    vgs_cl_free(the_device);
    return t_end();
}
