/* For the tests of vgs_cl.h: one device for a whole program. Without one the program counts as skipped. */
#ifndef CL_H
#define CL_H
#include <stdlib.h>

static vgs_backend *the_device;
static vgs_cl_config the_config;

/* VGS_TEST_DEVICE names another device than "auto", VGS_TEST_GROUP another size of its groups,
   VGS_TEST_PRODUCTS a way to make products (vgs_cl_config.products); VGS_TEST_SMALL wants smaller tensors. */
static bool open_device(void)
{
    const char *group = getenv("VGS_TEST_GROUP");
    char text[200];
    vgs_error err = { VGS_OK, "" };
    if (!vgs_cl_list(0, text, &err)) {
        printf("skipped: %s\n0 passed, 0 failed, 1 skipped\n", err.msg);
        return false;
    }
    the_config.device = getenv("VGS_TEST_DEVICE");
    the_config.work_group = group ? atoi(group) : 0;
    the_config.products = getenv("VGS_TEST_PRODUCTS");
    the_device = vgs_cl_create(&the_config, &err);
    CHECK(the_device != NULL, "%s", err.msg);
    return the_device != NULL;
}
#endif
