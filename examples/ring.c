/* ring.c - samples a ring, E = (|x|^2 - 4)^2, given as a C function: the program of vgs.h's top comment
   cc -O2 examples/ring.c -o ring -lm && ./ring */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include <stdio.h>

static int ring(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;                                       // E = (|x|^2 - 4)^2, and its gradient
    (void)user;
    for (i = 0; i < n; ++i) {
        float a = x[i * dim], b = x[i * dim + 1], u = a * a + b * b - 4.0f;
        e[i] = u * u;
        if (g) { g[i * dim] = 4.0f * u * a; g[i * dim + 1] = 4.0f * u * b; }
    }
    return 0;
}

int main(void)
{
    vgs_config c = { 0 };                        // zero means default (C++: { })
    vgs_error err;
    vgs_stats st;
    vgs_sampler *s;
    float x[10][2];
    int i;
    c.energy.eval = ring;
    c.energy.dim = 2;
    c.length_scale = 3.0f;                       // how far samples spread
    s = vgs_sampler_create(&c, &err);
    if (!s || vgs_sampler_train(s, 200, &st, &err) || vgs_sampler_draw(s, NULL, 10, x[0], &err)) {
        fprintf(stderr, "ring: %s\n", err.msg);
        return 1;
    }
    printf("log Z >= %.2f, mean energy %.2f\n", st.elbo, st.energy_mean);
    for (i = 0; i < 10; ++i) printf("%8.3f %8.3f\n", (double)x[i][0], (double)x[i][1]);
    vgs_sampler_free(s);
    return 0;
}
