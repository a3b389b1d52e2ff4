/* device.h - where the programs compute: --device, --list-devices, --profile. Include it after common.h.
   OpenCL devices are in a build with it:  cc -O2 -DVGS_USE_CL examples/train.c -o train -lOpenCL -lm */
#ifndef DEVICE_H
#define DEVICE_H

typedef struct device { const char *name; bool profile; vgs_backend *backend; } device;

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
#endif
#endif
