/* device.h - where the programs compute: --device, --list-devices, --profile. Include it after common.h.
   OpenCL devices are in a build with it:  cc -O2 -DVGS_USE_CL examples/train.c -o train -lOpenCL -lm */
#ifndef DEVICE_H
#define DEVICE_H

typedef struct device { const char *name; bool profile; vgs_backend *backend; } device;

/* A built-in target's energy as a callback that computes on a device; it must stay where it is while used. */
enum { DEVICE_ROWS = 64 };
typedef struct device_energy {
    vgs_energy of;
    vgs_graph *graph[2];                         /* of E; of E and its gradient                       */
    vgs_var x[2], e[2], g;
    vgs_error err;                               /* why the callback failed                           */
} device_energy;

#define DEVICE_HELP \
         "  --device NAME         cpu; auto: the best GPU, else another device; a part of its name;\n" \
         "                        its number (cpu). All but cpu need a build with -DVGS_USE_CL, -lOpenCL\n" \
         "  --list-devices        what there is\n" \
         "  --profile             times every kernel on the device, and counts what moves\n"

#ifdef VGS_USE_CL
#include "../vgs_cl.h"

static inline int device_list(void)
{
    char text[200];
    vgs_error err = { VGS_OK, "" };
    puts("cpu: this processor, without OpenCL");
    for (int i = 0; vgs_cl_list(i, text, &err); ++i) printf("%d: %s\n", i, text);
    if (err.code) say("%s", err.msg);
    return finish_stdout();
}

/* NULL in d->backend is the processor. */
static inline vgs_status device_open(device *d, vgs_error *err)
{
    static char log[20000];
    vgs_cl_config c = { .device = d->name, .profile = d->profile, .log = log, .log_size = sizeof log };
    if (!d->name || !strcmp(d->name, "cpu")) return VGS_OK;
    d->backend = vgs_cl_create(&c, err);
    if (!d->backend && log[0]) fputs(log, stderr);
    if (!d->backend) return err->code;
    say("on %s", vgs_cl_device(d->backend));
    return VGS_OK;
}

/* The time per kernel of each of n iterations, or of all (n = 0), and what moved; then counts begin anew. */
static inline void device_report(const device *d, long long n)
{
    vgs_cl_counts c;
    const char *name;
    uint64_t launches;
    double seconds, per = 1.0 / (double)(n > 0 ? n : 1);
    if (!d->backend || !d->profile) return;
    c = vgs_cl_counted(d->backend);
    fprintf(stderr, "%s: %.1f launches; %.1f uploads, %.0f bytes; %.1f downloads, %.0f bytes; %.1f rows of a "
            "C callback\n", n ? "an iteration" : "in all", (double)c.launches * per, (double)c.uploads * per,
            (double)c.upload_bytes * per, (double)c.downloads * per, (double)c.download_bytes * per,
            (double)c.callback_rows * per);
    for (int i = 0; vgs_cl_profile(d->backend, i, &name, &launches, &seconds); ++i)
        if (launches)
            fprintf(stderr, "  %-12s %9.1f launches %9.3f ms\n", name, (double)launches * per,
                    1e3 * seconds * per);
    vgs_cl_reset(d->backend);
}

static inline void device_reset(const device *d) { if (d->backend) vgs_cl_reset(d->backend); }
static inline void device_close(device *d) { vgs_cl_free(d->backend); }

static inline int device_energy_rows(void *user, const float *x, int n, int dim, float *e, float *g)
{
    device_energy *d = user;
    int k = g != NULL;
    vgs_status st = VGS_OK;
    for (int i = 0, rows; i < n && st == VGS_OK; i += rows) {
        rows = n - i < DEVICE_ROWS ? n - i : DEVICE_ROWS;
        st = vgs_set(d->graph[k], d->x[k], x + (size_t)i * (size_t)dim, rows, &d->err);
        if (st == VGS_OK) st = vgs_graph_run(d->graph[k], rows, &d->err);
        if (st == VGS_OK) st = vgs_get(d->graph[k], d->e[k], e + i, rows, &d->err);
        if (st == VGS_OK && g)
            st = vgs_get(d->graph[k], d->g, g + (size_t)i * (size_t)dim, rows, &d->err);
    }
    return st != VGS_OK;
}

/* Puts *energy on the device, if there is one: its rows go there, E and gradient come back. */
static inline vgs_status device_energy_open(device_energy *d, const device *at, vgs_energy *energy,
                                            vgs_error *err)
{
    vgs_status st = VGS_OK;
    *d = (device_energy){ .of = *energy };
    for (int k = 0; k < 2 && at->backend && st == VGS_OK; ++k) {
        vgs_graph *graph = d->graph[k] = vgs_graph_create(err);
        if (!graph) return err->code;
        d->x[k] = vgs_input(graph, energy->dim);
        d->e[k] = vgs_energy_of(graph, &d->of, d->x[k]);
        vgs_output(graph, d->e[k]);
        if (k) vgs_gradient(graph, d->e[k], &d->x[k], 1, &d->g);
        if (k) vgs_output(graph, d->g);
        st = vgs_graph_compile(graph, at->backend, DEVICE_ROWS, err);
    }
    if (!at->backend) return VGS_OK;
    energy->eval = device_energy_rows;
    energy->user = d;
    energy->thread_safe = false;
    return st;
}

static inline void device_energy_close(device_energy *d)
{
    for (int k = 0; k < 2; ++k) vgs_graph_free(d->graph[k]);
}

#else

static inline int device_list(void)
{
    puts("cpu: this processor (no other in this build: compile with -DVGS_USE_CL and -lOpenCL)");
    return finish_stdout();
}
static inline vgs_status device_open(device *d, vgs_error *err)
{
    (void)err;
    if (d->name && strcmp(d->name, "cpu"))
        wrong_usage("--device %.60s: this build has the processor only; compile with -DVGS_USE_CL and "
                    "-lOpenCL", d->name);
    if (d->profile) wrong_usage("--profile: of OpenCL devices; compile with -DVGS_USE_CL and -lOpenCL");
    return VGS_OK;
}
static inline void device_report(const device *d, long long n) { (void)d; (void)n; }
static inline void device_reset(const device *d) { (void)d; }
static inline void device_close(device *d) { (void)d; }
static inline vgs_status device_energy_open(device_energy *d, const device *at, vgs_energy *energy,
                                            vgs_error *err)
{
    (void)at;
    (void)err;
    *d = (device_energy){ .of = *energy };
    return VGS_OK;
}
static inline void device_energy_close(device_energy *d) { (void)d; }
#endif
#endif
