/* cc -O2 examples/contrast.c -o contrast -lm && ./contrast [ITERATIONS]
   An energy learned from data: E falls where the data lie and rises where the sampler goes, and the sampler
   learns the new E (generalised contrastive divergence, arXiv:2312.03397). Eight Gaussians in the plane; the
   loop is written with what vgs.h offers to everybody, and nothing but data rows moves. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { B = 256, N = 10000 };

static void eight_gaussians(vgs_rng *r, int n, float (*x)[2])
{
    for (int i = 0; i < n; ++i) {
        double angle = 0.785398163397448 * vgs_rng_below(r, 8);
        vgs_rng_normals(r, x[i], 2);
        x[i][0] = (float)((4 * cos(angle) + 0.5 * (double)x[i][0]) / 1.414);
        x[i][1] = (float)((4 * sin(angle) + 0.5 * (double)x[i][1]) / 1.414);
    }
}

/* The network, and a wide parabola that confines where it has seen nothing. */
static vgs_var energy(void *model, vgs_graph *g, vgs_var x)
{
    vgs_var far = vgs_affine(g, vgs_sum_cols(g, vgs_square(g, x)), 0.05f, 0);
    return vgs_add(g, vgs_model_apply(g, (vgs_model *)model, x, (vgs_var){ 0 }), far);
}

/* loss = mean E(data) - mean E(samples) + gamma (mean E(data)^2 + mean E(samples)^2) */
typedef struct update { vgs_graph *g; vgs_var data, samples, mean; vgs_scalar rate; } update;

static vgs_status make_update(update *u, vgs_sampler *s, vgs_model *m, vgs_model *average, vgs_backend *b,
                              vgs_error *err)
{
    vgs_graph *g = u->g = vgs_graph_create(err);
    u->data = vgs_input(g, 2);
    u->samples = vgs_input(g, 2);
    u->rate = vgs_scalar_create(g, 1e-3);
    vgs_var plus = energy(m, g, u->data), minus = energy(m, g, u->samples);
    vgs_var brake = vgs_add(g, vgs_square(g, plus), vgs_square(g, minus));
    vgs_var loss = vgs_add(g, vgs_sub(g, plus, minus), vgs_affine(g, brake, 0.01f, 0));
    u->mean = vgs_mean_rows(g, vgs_concat(g, plus, minus));
    vgs_output(g, u->mean);
    vgs_descend(g, vgs_mean_rows(g, loss), m, u->rate, 1.0f);
    vgs_ema(g, average, m, 0.99f);
    if (vgs_graph_compile(g, b, B, err)) return err->code;
    return vgs_sampler_bind(s, g, u->samples, vgs_sampler_config(s)->steps, err);
}

int main(int argc, char **argv)
{
    int iterations = argc > 1 ? atoi(argv[1]) : 1000, near = 0;
    vgs_error err = { VGS_OK, "" };
    vgs_backend *b = vgs_cpu_create(NULL, &err);
    vgs_net_config net = { .dim = 2, .hidden = 128, .layers = 3 };
    vgs_model *m = vgs_model_create(&net, b, 1, &err), *average = vgs_model_create(&net, b, 1, &err);
    vgs_config c = { .energy = { .record = energy, .user = m, .dim = 2, .backend = b }, .backend = b,
                     .coordinates = VGS_PLAIN, .length_scale = 2.2f, .detail_scale = 0.5f, .batch = B,
                     .value_lr = 1e-3f };
    vgs_sampler *s = vgs_sampler_create(&c, &err);
    vgs_rng r = { .seed = 1 };
    float data[B][2], mean[2] = { 0, 0 }, (*x)[2] = malloc(N * sizeof *x);
    update u;
    if (!average || !s || !x || make_update(&u, s, m, average, b, &err)) goto failed;
    for (int k = 0; k < iterations; ++k) {
        eight_gaussians(&r, B, data);
        vgs_scalar_set(u.g, u.rate, 1e-3 * (1 - (double)k / iterations));
        if (vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err) || vgs_set(u.g, u.data, data, B, &err) ||
            vgs_graph_run(u.g, B, &err) || vgs_sampler_fit(s, &err)) goto failed;
        if (k % 100 && k + 1 < iterations) continue;
        if (vgs_get(u.g, u.mean, mean, B, &err) || vgs_model_check(m, &err)) goto failed;
        printf("iteration %5d   E of data %7.3f, of samples %7.3f\n", k + 1, (double)mean[0],
               (double)mean[1]);
    }
    vgs_draw fresh = { .seed = vgs_rng_u64(&r) };        // noise that no iteration has had
    if (vgs_sampler_draw(s, &fresh, N, x[0], &err) ||
        vgs_model_save(average, "contrast.safetensors", &err)) goto failed;
    for (int i = 0; i < N; ++i) near += fabs(hypot((double)x[i][0], (double)x[i][1]) - 4 / 1.414) < 1;
    printf("%.1f %% of the draws lie on the ring of the eight (data: 99.5 %%); "
           "the averaged energy is in contrast.safetensors\n", 100.0 * near / N);
    free(x);
    vgs_graph_free(u.g);
    vgs_sampler_free(s);
    vgs_model_free(m);
    vgs_model_free(average);
    vgs_cpu_free(b);
    return 0;
failed:
    fprintf(stderr, "contrast: %s\n", err.msg);
    return 1;
}
