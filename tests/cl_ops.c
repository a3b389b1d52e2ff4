/* cc -O2 tests/cl_ops.c -o cl_ops -lOpenCL -lm && ./cl_ops
   The cases of ops.c on an OpenCL device: every op at odd shapes, offsets and strides against ref.h in
   double, every gradient against central differences. Each buffer of a case has a page of its own (a checker
   of memory sees where one ends), and what surrounds a tensor must stay as it was. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../vgs_cl.h"
#include "t.h"
#include "cl.h"

static vgs_status device_run(const vgs_backend *b, const vgs_call *call, vgs_error *err);

#define vgs_cpu_create(config, err) ((void)(config), the_device)
#define vgs_cpu_free(b)             ((void)(b))
#define vgs_cpu_run                 device_run
#define vgs__cpu_has(isa)           ((isa) == VGS_ISA_PORTABLE)      /* ops.c repeats for each that is */
#define main                        ops_main
#include "ops.c"
#undef main

/* A case's host buffers go to the device, the call runs there, all of them come back. */
static vgs_status device_run(const vgs_backend *b, const vgs_call *call, vgs_error *err)
{
    const job *q = (const job *)(const void *)call;                  /* the call is its first member   */
    vgs_call c = *call;
    vgs_buffer *device[SLOTS] = { NULL };
    vgs_status st = VGS_OK;
    int k;
    for (k = 0; k < SLOTS && st == VGS_OK; ++k)
        if (q->used[k]) {
            device[k] = b->buffer_create(b->self, q->size[k], err);
            slot_of(&c, k)->buf = device[k];
            st = device[k] ? b->upload(b->self, device[k], 0, floats(slot_of(&((job *)(uintptr_t)q)->cpu, k)),
                                       q->size[k], VGS_F32, err)
                           : VGS_E_DEVICE;
        }
    if (st == VGS_OK) st = b->run(b->self, &c, err);
    for (k = 0; k < SLOTS; ++k) {
        if (device[k] && st == VGS_OK)
            st = b->download(b->self, floats(slot_of(&((job *)(uintptr_t)q)->cpu, k)), device[k], 0,
                             q->size[k], VGS_F32, err);
        b->buffer_free(b->self, device[k]);
    }
    if (st != VGS_OK) CHECK(false, "%s", err->msg);
    return st;
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    the_config.page_floats = 1;
    if (getenv("VGS_TEST_SMALL")) {              /* still two tiles of a product in each direction    */
        large_rows = 33;
        large_cols = 17;
    }
    if (!open_device()) return t_failed ? t_end() : 0;
    RUN(every_op);
    RUN(eigenvectors);
    RUN(gradients);
    RUN(across_parts);
    vgs_cl_free(the_device);
    return t_end();
}
