/* cc -O2 tests/cl_faults.c -o cl_faults -lOpenCL -lm && ./cl_faults
   An OpenCL device in trouble: memory of the host that runs out at the n-th allocation, and a device that is
   lost at the n-th command, for n = 1, 2, 3 ... Each time a status and a message, nothing left allocated; the
   last checkpoint is intact, and the CPU goes on from it in the same program. */
#include <stdbool.h>
#include "weak.h"

/* Commands of vgs_cl.h go through `command`: number lost_at fails with lost_code; unless lost_once, so do all
   after it. */
#define CL_TARGET_OPENCL_VERSION 120
#ifdef __APPLE__
#  include <OpenCL/opencl.h>
#else
#  include <CL/cl.h>
#endif
static long commands, lost_at;
static cl_int lost_code;
static bool lost_once;

static bool command(cl_int *e)
{
    commands++;
    *e = lost_at && (lost_once ? commands == lost_at : commands >= lost_at) ? lost_code : CL_SUCCESS;
    return *e == CL_SUCCESS;
}

static cl_int weak_launch(cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset,
                          const size_t *global, const size_t *local, cl_uint n, const cl_event *wait,
                          cl_event *event)
{
    cl_int e;
    return command(&e) ? clEnqueueNDRangeKernel(q, k, dims, offset, global, local, n, wait, event) : e;
}
static cl_int weak_read(cl_command_queue q, cl_mem m, cl_bool block, size_t at, size_t bytes, void *to,
                        cl_uint n, const cl_event *wait, cl_event *event)
{
    cl_int e;
    return command(&e) ? clEnqueueReadBuffer(q, m, block, at, bytes, to, n, wait, event) : e;
}
static cl_int weak_write(cl_command_queue q, cl_mem m, cl_bool block, size_t at, size_t bytes,
                         const void *from, cl_uint n, const cl_event *wait, cl_event *event)
{
    cl_int e;
    return command(&e) ? clEnqueueWriteBuffer(q, m, block, at, bytes, from, n, wait, event) : e;
}
static cl_int weak_fill(cl_command_queue q, cl_mem m, const void *pattern, size_t size, size_t at,
                        size_t bytes, cl_uint n, const cl_event *wait, cl_event *event)
{
    cl_int e;
    return command(&e) ? clEnqueueFillBuffer(q, m, pattern, size, at, bytes, n, wait, event) : e;
}
static cl_int weak_finish(cl_command_queue q)
{
    cl_int e;
    return command(&e) ? clFinish(q) : e;
}
static cl_mem weak_buffer(cl_context c, cl_mem_flags flags, size_t bytes, void *host, cl_int *e)
{
    return command(e) ? clCreateBuffer(c, flags, bytes, host, e) : NULL;
}
static cl_kernel weak_kernel(cl_program p, const char *name, cl_int *e)
{
    return command(e) ? clCreateKernel(p, name, e) : NULL;
}
#define clEnqueueNDRangeKernel weak_launch
#define clEnqueueReadBuffer    weak_read
#define clEnqueueWriteBuffer   weak_write
#define clEnqueueFillBuffer    weak_fill
#define clFinish               weak_finish
#define clCreateBuffer         weak_buffer
#define clCreateKernel         weak_kernel

#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../vgs_cl.h"
#include "t.h"
#include "cl.h"

#define PATH "build/cl_faults.safetensors"
enum { ROOM = 1 << 14 };

static vgs_error err;

static int ring(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i) {
        float u = x[i * dim] * x[i * dim] + x[i * dim + 1] * x[i * dim + 1] - 4.0f;
        e[i] = u * u;
        if (g) { g[i * dim] = 4.0f * u * x[i * dim]; g[i * dim + 1] = 4.0f * u * x[i * dim + 1]; }
    }
    return 0;
}

static vgs_config config_on(vgs_backend *b)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy.eval = ring;
    c.energy.dim = 2;
    c.length_scale = 2;
    c.coordinates = VGS_PLAIN;
    c.net.hidden = 8;
    c.net.time_dim = 4;
    c.steps = 3;
    c.batch = 8;
    c.replay = 2;
    c.threads = 1;
    c.backend = b;
    return c;
}

static vgs_sampler *sampler_on(vgs_backend *b)
{
    vgs_config c = config_on(b);
    return vgs_sampler_create(&c, &err);
}

static int weights(vgs_sampler *s, float w[ROOM])
{
    int n = vgs_model_size(s->online);
    if (!CHECK(n <= ROOM, "%d weights", n)) return 0;
    OK(!vgs_model_read(s->online, w, &err));
    return n;
}

/* ---- memory of the host ------------------------------------------------------------------------------- */

static bool create(void)
{
    vgs_backend *b = vgs_cl_create(&the_config, &err);
    vgs_cl_free(b);
    return b != NULL;
}

static bool train(void)                          /* with a C callback: its rows lie on the host       */
{
    vgs_sampler *s = sampler_on(the_device);
    float x[10];
    bool ok = s && !vgs_sampler_train(s, 1, NULL, &err) && !vgs_sampler_draw(s, NULL, 5, x, &err);
    vgs_sampler_free(s);
    vgs__free(vgs_cl__of(the_device)->host);     /* the next one asks for it again                    */
    vgs_cl__of(the_device)->host = NULL;
    vgs_cl__of(the_device)->host_size = 0;
    return ok;
}

static const char *const well =
    "float energy(__global const float *x, int dim) { return x[0] * x[0]; }\n"
    "void gradient(__global const float *x, int dim, __global float *g)\n"
    "{\n"
    "    g[0] = 2.0f * x[0];\n"
    "    g[1] = 0.0f;\n"
    "}\n";

static vgs_energy of_source;

static bool source(void)
{
    vgs_cl *cl = vgs_cl__of(the_device);
    bool ok = !vgs_cl_energy(the_device, well, 2, &of_source, &err);
    vgs_cl__source *s = cl->source;
    if (!ok) return false;
    cl->source = s->next;                        /* it would live as long as the device               */
    vgs_cl__source_free(s);
    return true;
}

static bool source_evaluates(void)               /* its callback has no error but "failed"            */
{
    static const float x[2] = { 3.0f, 0.0f };
    float e, g[2];
    bool ok = !of_source.eval(of_source.user, x, 1, 2, &e, g);
    if (!ok) err.code = VGS_E_NOMEM, err.msg[0] = '!';
    return ok && e == 9.0f && g[0] == 6.0f;
}

/* Runs `what` with the n-th allocation failing until none does. in_vain: it may also do without. */
static void exhaust(const char *name, bool (*what)(void), bool in_vain)
{
    bool ok = false;
    long before = alive;
    for (fail_at = 1; fail_at < 5000; ++fail_at) {
        T_IN("%s, allocation %ld fails", name, fail_at);
        memset(&err, 0, sizeof err);
        allocations = 0;
        ok = what();
        if (!CHECK(alive == before, "%ld blocks are left", alive - before)) break;
        if (allocations < fail_at) break;
        if (!CHECK((ok && in_vain) || (!ok && err.code == VGS_E_NOMEM && err.msg[0]), "%s: %s",
                   ok ? "went well" : vgs_status_name(err.code), err.msg)) break;
    }
    CHECK(ok && fail_at < 5000, "%s", err.msg);
    CHECK(fail_at > 1, "nothing is allocated");
    fail_at = 0;
}

static void memory(void)
{
    static float w[2][ROOM];
    vgs_sampler *old = sampler_on(the_device);
    int n = weights(old, w[0]);
    exhaust("create", create, true);             /* what the cache holds is then compiled or measured */
    exhaust("train", train, false);
    exhaust("source", source, false);
    OK(!vgs_cl_energy(the_device, well, 2, &of_source, &err));
    exhaust("source_evaluates", source_evaluates, false);
    T_IN("afterwards");
    OK(weights(old, w[1]) == n && !memcmp(w[0], w[1], (size_t)n * sizeof(float)));
    OK(!vgs_sampler_train(old, 1, NULL, &err));
    vgs_sampler_free(old);
}

/* ---- a device that is lost ---------------------------------------------------------------------------- */

static void lose_at(long n, cl_int code, bool once)
{
    commands = 0;
    lost_at = n;
    lost_once = once;
    lost_code = code;
}

static void creation(void)
{
    long n, before = alive;
    bool ok = false;
    for (n = 1; n < 2000 && !ok; ++n) {
        T_IN("command %ld of creation fails", n);
        lose_at(n, n % 2 ? CL_DEVICE_NOT_AVAILABLE : CL_OUT_OF_RESOURCES, false);
        memset(&err, 0, sizeof err);
        ok = create();
        if (!CHECK(alive == before, "%ld blocks are left", alive - before)) break;
        if (ok && CHECK(commands < n + 20, "%ld commands failed", commands - n)) break;
        if (!CHECK(!ok && (err.code == VGS_E_DEVICE || err.code == VGS_E_NOMEM) && err.msg[0], "%s: %s",
                   ok ? "went well" : vgs_status_name(err.code), err.msg)) break;
    }
    lose_at(0, CL_SUCCESS, false);
    CHECK(n > 50 && n < 2000, "%ld commands", n);
}

/* The n-th command of an iteration is lost. want: the weights of the checkpoint at PATH, next: those after an
   iteration of the CPU from there. */
static void lost_in_training(long n, int size, const float *want, const float *next)
{
    static const struct { cl_int code; const char *name; } how[3] = {
        { CL_DEVICE_NOT_AVAILABLE, "CL_DEVICE_NOT_AVAILABLE" },
        { CL_OUT_OF_RESOURCES, "CL_OUT_OF_RESOURCES" },
        { CL_INVALID_COMMAND_QUEUE, "CL_INVALID_COMMAND_QUEUE" }
    };
    static float w[ROOM];
    vgs_backend *b = vgs_cl_create(&the_config, &err);
    vgs_sampler *device = b ? sampler_on(b) : NULL, *cpu = sampler_on(NULL);
    vgs_error again;
    T_IN("command %ld of an iteration fails", n);
    if (CHECK(device && cpu && !vgs_sampler_load(device, PATH, &err), "%s", err.msg)) {
        lose_at(n, how[n % 3].code, n % 2);
        OK(vgs_sampler_train(device, 1, NULL, &err) == VGS_E_DEVICE && err.code == VGS_E_DEVICE);
        CHECK(strstr(err.msg, how[n % 3].name) && strstr(err.msg, "OpenCL: cl"), "%s", err.msg);
        lose_at(0, CL_SUCCESS, false);           /* it stays lost, and says the same                  */
        OK(vgs_sampler_train(device, 1, NULL, &again) == VGS_E_DEVICE && !strcmp(again.msg, err.msg));
        OK(vgs_sampler_draw(device, NULL, 2, w, &again) == VGS_E_DEVICE);
        OK(vgs_sampler_save(device, PATH, NULL, &again) == VGS_E_DEVICE);    /* and spoils no file     */
        CHECK(!vgs_sampler_load(cpu, PATH, &err), "%s", err.msg);
        OK(weights(cpu, w) == size && !memcmp(w, want, (size_t)size * sizeof *w));
        OK(!vgs_sampler_train(cpu, 1, NULL, &err));
        weights(cpu, w);
        OK(!memcmp(w, next, (size_t)size * sizeof *w));
    }
    lose_at(0, CL_SUCCESS, false);
    vgs_sampler_free(device);
    vgs_sampler_free(cpu);
    vgs_cl_free(b);
}

static void training(void)
{
    static float want[ROOM], next[ROOM];
    vgs_sampler *s = sampler_on(the_device), *cpu = sampler_on(NULL);
    long all, n, before;
    int size = 0;
    OK(s && cpu && !vgs_sampler_train(s, 2, NULL, &err) && !vgs_sampler_save(s, PATH, NULL, &err));
    commands = 0;
    OK(!vgs_sampler_train(s, 1, NULL, &err));
    all = commands;
    CHECK(!vgs_sampler_load(cpu, PATH, &err), "%s", err.msg);
    size = weights(cpu, want);
    OK(!vgs_sampler_train(cpu, 1, NULL, &err));
    weights(cpu, next);
    vgs_sampler_free(s);
    vgs_sampler_free(cpu);
    CHECK(all > 30, "%ld commands in an iteration", all);
    before = alive;
    for (n = 1; n <= all; n += n < 8 || n > all - 8 ? 1 : 7) {
        lost_in_training(n, size, want, next);
        OK(alive == before);
    }
    remove(PATH);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    if (!open_device()) return t_failed ? t_end() : 0;
    RUN(memory);
    RUN(creation);
    RUN(training);
    vgs_cl_free(the_device);
    t_place[0] = 0;
    OK(alive == 0);
    return t_end();
}
