/* cc -O2 tests/cl_nets.c -o cl_nets -lOpenCL -lm && ./cl_nets
   The cases of nets.c on an OpenCL device: each value network, its gradients in x and in its parameters,
   against PyTorch's numbers and in double. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../vgs_cl.h"
#include "t.h"
#include "cl.h"

#define vgs_cpu_create(config, err) ((void)(config), the_device)
#define vgs_cpu_free(b)             ((void)(b))
#define main                        nets_main
#include "nets.c"
#undef main

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    if (!open_device()) return t_failed ? t_end() : 0;
    RUN(golden);
    RUN(plain);
    RUN(images);
    vgs_cl_free(the_device);
    return t_end();
}
