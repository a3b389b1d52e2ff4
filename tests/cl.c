/* cc -O2 tests/cl.c -o cl -lOpenCL -lm && ./cl
   Training and drawing on an OpenCL device against the CPU, checkpoints that change sides, energies of every kind,
   what moves between host and device, sizes of groups, and what is refused. Ops: cl_ops.c, networks: cl_nets.c. */
#define _POSIX_C_SOURCE 200809L                  /* popen */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../vgs_cl.h"
#include "t.h"
#include "cl.h"
#include <time.h>

static vgs_error err;

static vgs_config config_of(const char *target)
{
    const vgs_target *t = vgs_target_find(target);
    vgs_config c;
    memset(&c, 0, sizeof c);
    OK(vgs_preset(t, "fast", &c, NULL, &err) == VGS_OK);
    c.threads = 1;
    return c;
}

static int weights(vgs_sampler *s, float *w, int room)
{
    int p = vgs_net_size(s->net);
    if (!CHECK(p <= room, "%d weights", p)) return 0;
    OK(!s->b->download(s->b->self, w, s->online, 0, (size_t)p, VGS_F32, &err));
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

/* One iteration of each target's preset, smaller: the weights agree within 1e-4. */
static void one_step(void)
{
    static const char *const name[] = { "gmm9", "gmm40", "funnel", "manywell32", "dw4", "lj13" };
    static float w[2][1 << 20];
    int k, side, n = 0;
    for (k = 0; k < 6; ++k) {
        T_IN("%s", name[k]);
        for (side = 0; side < 2; ++side) {
            vgs_config c = config_of(name[k]);
            vgs_sampler *s;
            c.backend = side ? the_device : NULL;
            c.steps = 4;
            c.batch = 32;
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
        vgs_config c = config_of("gmm9");
        vgs_sampler *s;
        vgs_stats st;
        c.backend = side ? the_device : NULL;
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
    printf("gmm9, 200 iterations: loss %.5f on the CPU, %.5f on the device (standard error %.5f); ELBO %.3f, %.3f\n",
           mean[0], mean[1], error, elbo[0], elbo[1]);
    OK(fabs(mean[0] - mean[1]) < 5 * error);
    CHECK_NEAR(elbo[1], elbo[0], 0, 0.5);
}

/* Train on one side, save, load on the other, go on: as if it had stayed. */
static void checkpoints(void)
{
    static float w[3][1 << 18], x[2][100 * 2];
    const char *path = "build/cl_checkpoint.safetensors";
    int from, n = 0;
    for (from = 0; from < 2; ++from) {
        vgs_config c = config_of("gmm9");
        vgs_sampler *s, *r;
        T_IN("from the %s", from ? "device" : "CPU");
        c.steps = 5;
        c.batch = 32;
        c.replay = 2;
        c.net.hidden = 24;
        c.backend = from ? the_device : NULL;
        s = vgs_sampler_create(&c, &err);
        c.backend = from ? NULL : the_device;
        r = vgs_sampler_create(&c, &err);
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
    const vgs_target *t;
    int k, i;
    for (k = 0; (t = vgs_target_at(k)) != NULL; ++k) {
        vgs_energy energy = vgs_target_energy(t);
        T_IN("%s", t->name);
        vgs_rng_normals(&r, x, (size_t)(70 * t->dim));
        for (i = 0; i < 70 * t->dim; ++i) x[i] *= (float)t->length_scale;
        evaluate(cpu, &energy, x, 70, e[0], g[0]);
        vgs_cl_reset(the_device);
        evaluate(the_device, &energy, x, 70, e[1], g[1]);
        OK(vgs_cl_counted(the_device).callback_rows == 0);
        for (i = 0; i < 70; ++i) CHECK_NEAR(e[1][i], e[0][i], 1e-5, 1e-5);
        for (i = 0; i < 70; ++i)
            CHECK(distance(g[1] + i * t->dim, g[0] + i * t->dim, t->dim) < 1e-5, "gradient of row %d differs by %.2g", i,
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
        else OK(count.callback_rows == 0 && count.uploads == 0 && count.downloads == 1 && count.download_bytes == 16);
        n = weights(s, w[k], 1 << 16);
        vgs_sampler_free(s);
    }
    CHECK(distance(w[0], w[1], n) < 1e-3, "weights differ by %.2g", distance(w[0], w[1], n));
    OK(vgs_cl_energy(the_device, "float energy(int x)\n{ return y; }\n", 2, &source, &err) == VGS_E_DEVICE);
    CHECK(strstr(err.msg, "energy:2"), "%s", err.msg);
    OK(vgs_cl_energy(the_device, NULL, 2, &source, &err) == VGS_E_ARG);
}

/* ---- launches, the cache, what is refused ----------------------------------------------------------- */

/* A value with its gradient: launches after the first run. */
static void launches(void)
{
    static const struct { const char *target, *preset; int most; } net[] = {
        { "gmm9", "paper", 40 }, { "dw4", "paper", 40 }, { "lj13", "paper", 40 }, { "gmm9", "fast", 40 }
    };
    int k;
    for (k = 0; k < 4; ++k) {
        const vgs_target *t = vgs_target_find(net[k].target);
        vgs_graph *g = vgs_graph_create(&err);
        vgs_config c;
        vgs_net *n;
        vgs_var params, x, v, slope;
        char value[32];
        int field = 0, count;
        memset(&c, 0, sizeof c);
        OK(!vgs_preset(t, net[k].preset, &c, NULL, &err) && !vgs_config_resolve(&c, &c, &err));
        n = vgs_net_create(&c.net, &err);
        if (!CHECK(n != NULL, "%s", err.msg)) return;
        params = vgs_params(g, vgs_net_size(n));
        x = vgs_input(g, c.energy.dim);
        v = vgs_net_apply(g, n, params, x, vgs_index(g), c.steps);
        OK(!vgs_gradient(g, v, &x, 1, &slope));
        vgs_output(g, v);
        vgs_output(g, slope);
        OK(!vgs_graph_compile(g, the_device, 64, &err) && !vgs_graph_run(g, 64, &err));
        vgs_cl_reset(the_device);
        OK(!vgs_graph_run(g, 64, &err));
        count = (int)vgs_cl_counted(the_device).launches;
        while (strcmp(vgs_field_name(field), "value")) ++field;
        vgs_field_get(&c, field, value);
        printf("%s %s (%s): %d launches for a value with its gradient, %d ops\n", net[k].target, net[k].preset, value, count,
               vgs_graph_ops(g, false));
        OK(count <= net[k].most);
        vgs_graph_free(g);
        vgs_net_free(n);
    }
}

static void damage(const char *path)
{
    FILE *f = fopen(path, "r+b");
    if (!CHECK(f != NULL, "%s", path)) return;
    fseek(f, 100, SEEK_SET);
    fputs("not what it was", f);
    fclose(f);
}

static void cache(void)
{
    vgs_cl_config c = the_config;
    char path[600];
    vgs_backend *b;
    int k;
    c.cache_dir = "build/cl_cache";
    for (k = 0; k < 3; ++k) {                    /* makes it, takes it, finds it damaged              */
        clock_t start = clock();
        b = vgs_cl_create(&c, &err);
        CHECK(b != NULL, "%s", err.msg);
        vgs_cl_free(b);
        start = clock() - start;
        if (k == 1) CHECK(start < CLOCKS_PER_SEC / 2, "the second start took %.2f s", (double)start / CLOCKS_PER_SEC);
        if (k == 0) {
            FILE *list = popen("ls build/cl_cache/*.cl", "r");
            OK(list && fgets(path, sizeof path, list));
            if (list) pclose(list);
            path[strcspn(path, "\n")] = 0;
        }
        if (k == 1) damage(path);
    }
    remove(path);
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
    OK(clGetCommandQueueInfo((cl_command_queue)c.queue, CL_QUEUE_DEVICE, sizeof same, &same, NULL) == CL_SUCCESS);
    OK(same == d);
    clReleaseCommandQueue((cl_command_queue)c.queue);
    clReleaseContext((cl_context)c.context);
}

static void bad_input(void)
{
    vgs_cl_config c = the_config;
    vgs_backend *b;
    vgs_config s;
    char text[200];
    OK(!vgs_cl_list(-1, text, &err) && !vgs_cl_list(1000, text, &err));
    c.device = "no such device";
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_DEVICE && strstr(err.msg, "no such device"));
    c = the_config;
    c.work_group = 48;
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG && strstr(err.msg, "48"));
    c = the_config;
    c.queue = &c;
    OK(!vgs_cl_create(&c, &err) && err.code == VGS_E_ARG);
    OK(!the_device->buffer_create(the_device->self, (size_t)1 << 40, &err) && err.code == VGS_E_NOMEM);
    CHECK(strstr(err.msg, "4398047 MB"), "%s", err.msg);
    /* a device that is lost: the sampler says so, the CPU goes on in the same program */
    b = vgs_cl_create(&the_config, &err);
    s = config_of("gmm9");
    s.steps = 3;
    s.batch = 16;
    s.backend = b;
    if (CHECK(b != NULL, "%s", err.msg)) {
        vgs_sampler *device = vgs_sampler_create(&s, &err), *cpu;
        OK(device && !vgs_sampler_train(device, 1, NULL, &err));
        vgs_cl__lose(vgs_cl__of(b), "clFinish", -5, NULL);
        OK(vgs_sampler_train(device, 1, NULL, &err) == VGS_E_DEVICE && strstr(err.msg, "CL_OUT_OF_RESOURCES"));
        s.backend = NULL;
        cpu = vgs_sampler_create(&s, &err);
        OK(cpu && !vgs_sampler_train(cpu, 1, NULL, &err));
        vgs_sampler_free(device);
        vgs_sampler_free(cpu);
        vgs_cl_free(b);
    }
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
    RUN(one_step);
    RUN(same_loss);
    RUN(checkpoints);
    RUN(launches);
    RUN(cache);
    RUN(borrowed);
    RUN(bad_input);
    vgs_cl_free(the_device);
    return t_end();
}
