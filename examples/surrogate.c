/* cc -O2 examples/surrogate.c -o surrogate -lm && ./surrogate
   An energy with a model: a network learns a double well from points, then a sampler learns to sample it. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include <stdio.h>

static vgs_var half_square(vgs_graph *g, vgs_var x)
{
    return vgs_affine(g, vgs_sum_cols(g, vgs_square(g, x)), 0.5f, 0);
}

/* What E should be: 2 (a^2 - 2)^2 + b^2 / 2 of x = (a, b). Nobody needs its gradient. */
static vgs_var well(vgs_graph *g, vgs_var x)
{
    vgs_var a2 = vgs_square(g, vgs_cols(g, x, 0, 1));
    vgs_var wall = vgs_affine(g, vgs_square(g, vgs_affine(g, a2, 1, -2)), 2, 0);
    return vgs_add(g, wall, half_square(g, vgs_cols(g, x, 1, 1)));
}

/* What it is taken to be: the network, and a parabola that confines where the network has seen nothing. */
static vgs_var surrogate(void *model, vgs_graph *g, vgs_var x)
{
    return vgs_add(g, vgs_model_apply(g, (vgs_model *)model, x, (vgs_var){ 0 }), half_square(g, x));
}

int main(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_model *m = vgs_model_create(&(vgs_net_config){ .dim = 2, .hidden = 64, .layers = 2 }, cpu, 1, &err);
    vgs_graph *g = vgs_graph_create(&err);
    vgs_noise noise = vgs_noise_create(g);
    vgs_scalar rate = vgs_scalar_create(g, 3e-3);
    vgs_var x = vgs_affine(g, vgs_normal(g, 2, &noise), 1.5f, 0);             /* points to learn from      */
    vgs_var loss = vgs_mean_rows(g, vgs_loss_of(g, surrogate(m, g, x), well(g, x), VGS_SMOOTH_L1));
    float last = 0, draws[1000][2], between[2][2] = { { 0, 0 }, { 1.414f, 0 } }, v[2];
    double log_weight[1000];
    vgs_output(g, loss);
    vgs_descend(g, loss, m, rate, 1.0f);
    if (vgs_graph_compile(g, cpu, 256, &err)) goto failed;
    for (int k = 0; k < 2000; ++k) {
        vgs_noise_set(g, &noise, 1, 64, k, 0, 0);
        if (vgs_graph_run(g, 256, &err)) goto failed;
    }
    vgs_config c = { .energy = { .record = surrogate, .user = m, .dim = 2 }, .length_scale = 1.5f,
                     .backend = cpu };
    vgs_sampler *s = vgs_sampler_create(&c, &err);
    vgs_weights w;
    if (vgs_get(g, loss, &last, 256, &err) || vgs_model_check(m, &err) || !s ||
        vgs_sampler_train(s, 200, NULL, &err) ||
        vgs_sampler_draw(s, &(vgs_draw){ .log_weight = log_weight }, 1000, draws[0], &err) ||
        vgs_weigh(log_weight, 1000, &w, &err) ||
        vgs_sampler_value(s, vgs_sampler_config(s)->steps / 2, between[0], 2, v, NULL, &err)) goto failed;
    printf("loss of the energy %.4f, log Z %.3f +- %.3f, ESS/N %.2f\n", (double)last, w.log_z, w.log_z_se,
           w.ess);
    printf("the value half way: %.2f between the wells, %.2f in one\n", (double)v[0], (double)v[1]);
    for (int i = 0; i < 5; ++i) printf("%8.3f %8.3f\n", (double)draws[i][0], (double)draws[i][1]);
    vgs_sampler_free(s);
    vgs_graph_free(g);
    vgs_model_free(m);
    vgs_cpu_free(cpu);
    return 0;
failed:
    fprintf(stderr, "surrogate: %s\n", err.msg);
    return 1;
}
