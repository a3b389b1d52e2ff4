/* cc -O2 tests/model.c -o model -lm && ./model
   Models: in graphs, under their optimiser, in files; what is wrong is told and changes nothing. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include "ref.h"
#include <stdlib.h>

#define PATH "model.safetensors"
enum { MOST = 512, B = 5 };

static vgs_error err;
static vgs_backend *cpu;
static const vgs_var none = { 0 };

static vgs_net_config mlp(int steps)
{
    vgs_net_config c;
    memset(&c, 0, sizeof c);
    c.dim = 2;
    c.out = steps ? 1 : 2;
    c.steps = steps;
    c.hidden = 4;
    c.layers = 1;
    c.time_dim = 4;
    return c;
}

static vgs_model *create(const vgs_net_config *c, vgs_backend *b, uint64_t seed)
{
    vgs_model *m = vgs_model_create(c, b, seed, &err);
    if (!CHECK(m && vgs_model_size(m) <= MOST, "%s", err.msg)) exit(t_end());
    return m;
}

static void compiled(vgs_graph *g, vgs_backend *b)
{
    CHECK(!vgs_graph_compile(g, b, B, &err), "%s", err.msg);
}

static void ran(vgs_graph *g) { CHECK(!vgs_graph_run(g, B, &err), "%s", err.msg); }

/* g applies m to fixed rows x, at steps t if m knows time. */
typedef struct net { vgs_graph *g; vgs_var x, t, y; vgs_scalar rate; } net;

static net applied(vgs_model *m)
{
    net n;
    n.g = vgs_graph_create(NULL);
    n.x = vgs_input(n.g, 2);
    n.t = vgs_model_config(m)->steps ? vgs_index(n.g) : none;
    n.y = vgs_model_apply(n.g, m, n.x, n.t);
    n.rate = vgs_scalar_create(n.g, 0.05);
    vgs_output(n.g, n.y);
    return n;
}

static void set_rows(const net *n)
{
    static const float x[2 * B] = { 0.5f, -1, 2, 0.25f, -0.75f, 1.5f, 0.1f, 0.3f, -2, -1 };
    static const int32_t t[B] = { 0, 2, 1, 1, 0 };
    OK(!vgs_set(n->g, n->x, x, B, NULL) && (!n->t.id || !vgs_set(n->g, n->t, t, B, NULL)));
}

static void values(const net *n, float *y)
{
    ran(n->g);
    OK(vgs_get(n->g, n->y, y, B, NULL) == VGS_OK);
}

/* ---- Adam in double: clipped to a norm, three steps -------------------------------------------------- */

/* loss = sum_i (a_i w_i^4 / 4 - b_i w_i): its gradient a w^3 - b is known without any graph */
static void adam(double limit, vgs_backend *backend, double tol)
{
    enum { N = 6 };
    static const float w0[N] = { 1, -2, 0.5f, 3, -1, 0.25f }, a[N] = { 1, 2, 0.5f, 1, 3, 0 },
                       b[N] = { 0.5f, 1, -1, 2, 0, 1 };
    static const vgs_param_info arrays[2] = { { "u", 0, 0, 4 }, { "v", 0, 2, 1 } };
    static const double rate[3] = { 0.125, 0.0625, 0.25 };
    double w[N], m[N] = { 0 }, v[N] = { 0 }, g[N], norm, f;
    float got[N], m1[N], v1[N];
    int64_t step = -1;
    vgs_model *model = vgs_model_create_arrays(arrays, 2, w0, backend, &err);
    vgs_graph *q = vgs_graph_create(NULL);
    vgs_var p = vgs_model_weights(q, model), loss;
    vgs_scalar lr = vgs_scalar_create(q, 0);
    uint64_t version = vgs_model_version(model);
    int k, i;
    T_IN("adam, limit %g, tol %g", limit, tol);
    loss = vgs_mul(q, vgs_affine(q, vgs_square(q, vgs_square(q, p)), 0.25f, 0), vgs_table(q, a, 1, N));
    loss = vgs_sub(q, loss, vgs_mul(q, p, vgs_table(q, b, 1, N)));
    vgs_descend(q, loss, model, lr, (float)limit);
    compiled(q, backend);
    OK(!vgs_model_read_adam(model, m1, v1, &step, NULL) && step == 0 && m1[0] == 0 && v1[N - 1] == 0);
    for (i = 0; i < N; ++i) w[i] = (double)w0[i];
    for (k = 0; k < 3; ++k) {
        for (norm = 0, i = 0; i < N; ++i) {
            g[i] = (double)a[i] * w[i] * w[i] * w[i] - (double)b[i];
            norm += g[i] * g[i];
        }
        f = limit > 0 ? fmin(1, limit / (sqrt(norm) + 1e-6)) : 1;
        for (i = 0; i < N; ++i) {
            m[i] = 0.9 * m[i] + 0.1 * f * g[i];
            v[i] = 0.999 * v[i] + 0.001 * f * f * g[i] * g[i];
            w[i] -= rate[k] * m[i] / (1 - pow(0.9, k + 1)) / (sqrt(v[i] / (1 - pow(0.999, k + 1))) + 1e-8);
        }
        vgs_scalar_set(q, lr, rate[k]);
        ran(q);
        OK(!vgs_model_read(model, got, NULL) && !vgs_model_read_adam(model, m1, v1, &step, NULL));
        OK(step == k + 1 && vgs_model_version(model) > version && vgs_model_check(model, NULL) == VGS_OK);
        version = vgs_model_version(model);
        for (i = 0; i < N; ++i) {
            CHECK_NEAR(got[i], w[i], tol, tol);
            CHECK_NEAR(m1[i], m[i], tol, tol);
            CHECK_NEAR(v1[i], v[i], tol, 1e-3 * tol);
        }
    }
    vgs_graph_free(q);
    vgs_model_free(model);
}

/* The rates 0.9, 0.999 are floats, and 1 - 0.999 has lost digits: 1e-5 in the second moment. */
static void descend(void)
{
    adam(0, &ref_backend, 3e-5);
    adam(0.5, &ref_backend, 3e-5);
    adam(1e-7, &ref_backend, 3e-5);
    adam(0, cpu, 3e-5);
    adam(0.5, cpu, 3e-5);
    OK(ref_faults == 0);
}

/* Moments without a gradient end at 0, where processors are fast, and not at a denormal number. */
static void moments_end(vgs_backend *backend)
{
    enum { N = 19 };                             /* a vector, and a rest                              */
    static const vgs_param_info arrays[1] = { { "w", 0, 0, N } };
    float w[N], m[N], v[N];
    int64_t step;
    int i;
    for (i = 0; i < N; ++i) {
        w[i] = (float)(i + 1);
        m[i] = (i % 2 ? -1 : 1) * (i % 3 ? 1.1e-30f : 2e-30f);
        v[i] = (i % 3 ? 1.0001f : 2.0f) * FLT_MIN;
    }
    vgs_model *model = vgs_model_create_arrays(arrays, 1, w, backend, &err);
    vgs_graph *q = vgs_graph_create(NULL);
    vgs_var loss = vgs_affine(q, vgs_square(q, vgs_model_weights(q, model)), 0.0f, 1.0f);
    OK(vgs_model_write_adam(model, m, v, 1, NULL) == VGS_OK);
    vgs_descend(q, loss, model, vgs_scalar_create(q, 1e-3), 0);
    compiled(q, backend);
    ran(q);
    OK(vgs_model_read(model, w, NULL) == VGS_OK && vgs_model_read_adam(model, m, v, &step, NULL) == VGS_OK);
    for (i = 0; i < N; ++i) {
        OK(w[i] == (float)(i + 1));
        OK(i % 3 ? m[i] == 0 && v[i] == 0 : fabsf(m[i]) > 1e-30f && v[i] > FLT_MIN);
    }
    vgs_graph_free(q);
    vgs_model_free(model);
}

static void moments_end_everywhere(void)
{
    for (int isa = VGS_ISA_PORTABLE; isa <= VGS_ISA_AVX512; ++isa) {
        vgs_backend *b = vgs_cpu_create(&(vgs_cpu_config){ .isa = (vgs_isa)isa }, NULL);
        T_IN("%s", vgs_isa_name((vgs_isa)isa));
        if (b) moments_end(b);
        vgs_cpu_free(b);
    }
}

/* ---- denormal numbers: 0 in kernels, as they are in a callback and after a run ------------------------ */

static volatile float tiny = 1e-30f;

static int product(void *user, const float *x, int n, int dim, float *e, float *g)
{
    (void)user;
    (void)dim;
    for (int i = 0; i < n; ++i) {
        e[i] = x[i] * tiny * 1e30f;
        if (g) g[i] = 0;
    }
    return 0;
}

/* 1e-10 as x 1e-30 1e30 comes out of a callback that goes by 1e-40; of an op's 1e-40 nothing is left, where
   there are kernels of their own for the processor. */
static void denormals(void)
{
    enum { N = 4096 };                           /* enough for threads                                */
    vgs_energy energy = { .eval = product, .dim = 1, .thread_safe = true };
    static float x[N], e[N], y[N];
    vgs_graph *q = vgs_graph_create(NULL);
    vgs_var in = vgs_input(q, 1), small, out;
    for (int i = 0; i < N; ++i) x[i] = 1e-10f;
    out = vgs_energy_of(q, &energy, in);
    small = vgs_affine(q, vgs_affine(q, in, 1e-30f, 0), 1e30f, 0);
    vgs_output(q, out);
    vgs_output(q, small);
    CHECK(!vgs_graph_compile(q, cpu, N, &err), "%s", err.msg);
    OK(vgs_set(q, in, x, N, NULL) == VGS_OK && vgs_graph_run(q, N, &err) == VGS_OK);
    OK(vgs_get(q, out, e, N, NULL) == VGS_OK && vgs_get(q, small, y, N, NULL) == VGS_OK);
    for (int i = 0; i < N; ++i) {
        OK(fabsf(e[i] - 1e-10f) < 1e-14f);
#if defined VGS__X86 || (defined __aarch64__ && !defined VGS_PORTABLE && !defined __TINYC__)
        OK(y[i] == 0);
#else
        OK(y[i] == 0 || fabsf(y[i] - 1e-10f) < 1e-14f);
#endif
    }
    OK(tiny * 1e-10f > 0);
    vgs_graph_free(q);
}

/* ---- what is not finite teaches nothing --------------------------------------------------------------- */

static void nonfinite(void)
{
    vgs_net_config c = mlp(0);
    vgs_model *m = create(&c, cpu, 1), *average = create(&c, cpu, 2);
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var x = vgs_input(g, 2), y = vgs_model_apply(g, m, x, none);
    float w[MOST], after[MOST], mean[MOST], m1[MOST], v1[MOST];
    float rows[2 * B] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 1 };
    size_t bytes = (size_t)vgs_model_size(m) * sizeof *w;
    int64_t step;
    vgs_check(g, x, m);
    vgs_descend(g, vgs_square(g, y), m, vgs_scalar_create(g, 0.1), 0);
    vgs_ema(g, average, m, 0.5f);
    compiled(g, cpu);
    rows[2 * 3 + 1] = (float)NAN;
    OK(!vgs_model_read(m, w, NULL) && !vgs_model_read(average, mean, NULL) && !vgs_set(g, x, rows, B, NULL));
    ran(g);
    rows[2 * 3 + 1] = 0;
    OK(!vgs_set(g, x, rows, B, NULL));
    ran(g);                                      /* fine again, but nobody has looked yet             */
    OK(!vgs_model_read(m, after, NULL) && !memcmp(w, after, bytes));
    OK(!vgs_model_read(average, after, NULL) && !memcmp(mean, after, bytes));
    OK(!vgs_model_read_adam(m, m1, v1, &step, NULL) && m1[0] == 0 && v1[0] == 0);
    OK(vgs_model_check(m, &err) == VGS_E_NONFINITE && strstr(err.msg, "row 3"));
    OK(vgs_model_check(m, &err) == VGS_OK);
    ran(g);                                      /* and now it learns                                 */
    OK(!vgs_model_read(m, after, NULL) && memcmp(w, after, bytes) && vgs_model_check(m, &err) == VGS_OK);
    rows[0] = 3e38f;                             /* every row is finite, the loss is not              */
    OK(!vgs_model_read(m, w, NULL) && !vgs_set(g, x, rows, B, NULL));
    ran(g);
    OK(!vgs_model_read(m, after, NULL) && !memcmp(w, after, bytes));
    OK(vgs_model_check(m, &err) == VGS_E_NONFINITE && strstr(err.msg, "row 0"));
    vgs_graph_free(g);
    vgs_model_free(m);
    vgs_model_free(average);
}

static void averages(void)
{
    vgs_net_config c = mlp(0), wide = c;
    vgs_model *m = create(&c, cpu, 1), *average = create(&c, cpu, 2), *other;
    vgs_graph *g = vgs_graph_create(NULL);
    float w[MOST], a[MOST], got[MOST];
    uint64_t version = vgs_model_version(average), same = vgs_model_version(m);
    int i;
    vgs_ema(g, average, m, 0.75f);
    compiled(g, cpu);
    OK(!vgs_model_read(m, w, NULL) && !vgs_model_read(average, a, NULL));
    ran(g);
    OK(!vgs_model_read(average, got, NULL) && vgs_model_version(average) > version &&
       vgs_model_version(m) == same);
    for (i = 0; i < vgs_model_size(m); ++i)
        CHECK_NEAR(got[i], 0.75 * (double)a[i] + 0.25 * (double)w[i], 1e-6, 1e-8);
    OK(!vgs_model_read(m, got, NULL) && !memcmp(w, got, (size_t)vgs_model_size(m) * sizeof *w));
    vgs_graph_reset(g);
    wide.hidden = 5;
    other = create(&wide, cpu, 1);
    vgs_ema(g, other, m, 0.5f);
    OK(vgs_graph_status(g, &err) == VGS_E_SHAPE && strstr(err.msg, "ema"));
    vgs_graph_free(g);
    vgs_model_free(m);
    vgs_model_free(average);
    vgs_model_free(other);
}

/* ---- arrays of one's own ------------------------------------------------------------------------------ */

static void refused(const vgs_param_info *list, int n, const char *says)
{
    OK(!vgs_model_create_arrays(list, n, NULL, cpu, &err));
    CHECK(err.code == VGS_E_ARG && strstr(err.msg, says), "%s", err.msg);
}

static void arrays(void)
{
    static const vgs_param_info list[3] = { { "A", 99, 2, 3 }, { "b", 0, 0, 2 }, { "A.more", 0, 1, 1 } };
    static const vgs_param_info twice[2] = { { "A", 0, 2, 3 }, { "A", 0, 0, 2 } },
                                flat[1] = { { "A", 0, 2, 0 } }, unnamed[1] = { { "", 0, 2, 2 } },
                                negative[1] = { { "A", 0, -1, 2 } };
    static const float w[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, x[6] = { 1, 1, 1, 1, 0, 2 };
    vgs_param_info endless[1];
    vgs_model *m = vgs_model_create_arrays(list, 3, w, cpu, &err), *zeros;
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var in = vgs_input(g, 3), y;
    float got[9];
    int i;
    y = vgs_linear(g, in, vgs_model_array(g, m, "A"), vgs_model_array(g, m, "b"));
    y = vgs_add(g, y, vgs_model_array(g, m, "A.more"));
    vgs_output(g, y);
    compiled(g, cpu);
    OK(!vgs_set(g, in, x, 2, NULL) && !vgs_graph_run(g, 2, NULL) && !vgs_get(g, y, got, 2, NULL));
    OK(got[0] == 6 + 7 + 9 && got[1] == 15 + 8 + 9 && got[2] == 7 + 7 + 9 && got[3] == 16 + 8 + 9);
    OK(vgs_model_size(m) == 9 && vgs_model_config(m) == NULL);
    OK(vgs_model_param(m, 0)->offset == 0 && vgs_model_param(m, 1)->offset == 6 &&
       !strcmp(vgs_model_param(m, 2)->name, "A.more") && !vgs_model_param(m, 3) && !vgs_model_param(m, -1));
    vgs_graph_reset(g);
    OK(!vgs_model_array(g, m, "C").id && vgs_graph_status(g, &err) == VGS_E_ARG);
    OK(strstr(err.msg, "array C") != NULL);
    vgs_graph_reset(g);
    OK(!vgs_model_apply(g, m, vgs_input(g, 3), none).id && vgs_graph_status(g, &err) == VGS_E_ARG &&
       strstr(err.msg, "no network"));
    zeros = vgs_model_create_arrays(list, 3, NULL, cpu, &err);
    OK(zeros && !vgs_model_read(zeros, got, NULL));
    for (i = 0; i < 9; ++i) OK(got[i] == 0);
    memset(endless, 'x', sizeof endless);
    endless->rows = endless->cols = 1;
    refused(twice, 2, "array 1");
    refused(flat, 1, "array 0");
    refused(unnamed, 1, "array 0");
    refused(negative, 1, "array 0");
    refused(endless, 1, "array 0");
    refused(list, 0, "n = 0");
    OK(!vgs_model_create_arrays(list, 3, NULL, NULL, &err) && err.code == VGS_E_ARG);
    OK(strstr(err.msg, "backend") != NULL);
    vgs_graph_free(g);
    vgs_model_free(m);
    vgs_model_free(zeros);
}

/* ---- several uses ------------------------------------------------------------------------------------- */

/* f(x) + 2 f(x') + |w|^2: the gradient is the sum of all, also where the weights are read as a whole. */
static void twice_in_a_graph(void)
{
    vgs_net_config c = mlp(0);
    vgs_model *m = create(&c, &ref_backend, 3);
    double g[4][MOST];
    const double *w = m->w->x;
    int k, i, n = vgs_model_size(m);
    static const float x[2 * B] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 1 }, z[2 * B] = { 0.5f, 1, -1, 2, 0.1f };
    for (k = 0; k < 4; ++k) {                    /* f(x), f(x'), |w|^2, all of them                   */
        vgs_graph *q = vgs_graph_create(NULL);
        vgs_var a = vgs_input(q, 2), b = vgs_input(q, 2), y = none, p = vgs_model_weights(q, m), s;
        vgs_var grad = vgs_state(q, 1, n, VGS_F32);
        if (k == 0 || k == 3) y = vgs_sum_rows(q, vgs_sum_cols(q, vgs_model_apply(q, m, a, none)));
        if (k == 1 || k == 3) {
            s = vgs_sum_rows(q, vgs_sum_cols(q, vgs_model_apply(q, m, b, none)));
            y = k == 3 ? vgs_add(q, y, vgs_affine(q, s, 2, 0)) : s;
        }
        if (k >= 2) {
            s = vgs_sum_cols(q, vgs_square(q, p));
            y = k == 3 ? vgs_add(q, y, s) : s;
        }
        vgs_gradient_params(q, y, p, grad);
        vgs_output(q, grad);
        compiled(q, &ref_backend);
        if (k == 0 || k == 3) OK(!vgs_set(q, a, x, B, NULL));
        if (k == 1 || k == 3) OK(!vgs_set(q, b, z, B, NULL));
        ran(q);
        ref_get(q, grad, B, g[k]);
        vgs_graph_free(q);
    }
    for (i = 0; i < n; ++i) {
        CHECK_NEAR(g[2][i], 2 * w[i], 1e-12, 0);
        CHECK_NEAR(g[3][i], g[0][i] + 2 * g[1][i] + g[2][i], 1e-12, 1e-12);
    }
    OK(ref_faults == 0);
    vgs_model_free(m);
}

/* Two graphs that apply one model, with tables over t in their prologues, follow every change of it. */
static void followed(void)
{
    vgs_net_config c = mlp(3);
    vgs_model *m = create(&c, cpu, 1), *fresh;
    net reader = applied(m), teacher = applied(m), alone;
    float y[2][B], w[MOST], at_first[B];
    int k;
    vgs_descend(teacher.g, vgs_square(teacher.g, teacher.y), m, teacher.rate, 1);
    compiled(reader.g, cpu);
    compiled(teacher.g, cpu);
    OK(vgs_graph_ops(reader.g, true) > 0);
    set_rows(&reader);
    set_rows(&teacher);
    values(&reader, at_first);
    for (k = 0; k < 4; ++k) {
        if (k == 2) {                            /* write                                             */
            OK(!vgs_model_read(m, w, NULL));
            w[0] += 1;
            w[1] -= 1;
            OK(!vgs_model_write(m, w, NULL));
        } else ran(teacher.g);
        OK(!vgs_model_read(m, w, NULL));
        fresh = create(&c, cpu, 77);
        OK(!vgs_model_write(fresh, w, NULL));
        alone = applied(fresh);
        compiled(alone.g, cpu);
        set_rows(&alone);
        values(&reader, y[0]);
        values(&alone, y[1]);
        OK(!memcmp(y[0], y[1], sizeof y[0]) && memcmp(y[0], at_first, sizeof y[0]));
        if (k == 2) {                            /* the teacher's value before its step               */
            values(&teacher, y[0]);
            OK(!memcmp(y[0], y[1], sizeof y[0]));
            OK(!vgs_model_write(m, w, NULL));
        }
        vgs_graph_free(alone.g);
        vgs_model_free(fresh);
    }
    vgs_graph_free(reader.g);
    vgs_graph_free(teacher.g);
    vgs_model_free(m);
}

/* Two steps in one run are those of two runs: what is recorded after the first sees its weights, also where
   it depends on t alone. */
static void two_steps_in_a_run(void)
{
    vgs_net_config c = mlp(3);
    vgs_model *m[2];
    float w[2][MOST], m1[MOST], v1[MOST];
    int64_t step;
    int k;
    for (k = 0; k < 2; ++k) {
        net n;
        m[k] = create(&c, cpu, 1);
        n = applied(m[k]);
        vgs_descend(n.g, vgs_square(n.g, n.y), m[k], n.rate, 1);
        if (k) vgs_descend(n.g, vgs_square(n.g, vgs_model_apply(n.g, m[k], n.x, n.t)), m[k], n.rate, 1);
        compiled(n.g, cpu);
        set_rows(&n);
        ran(n.g);
        ran(n.g);
        if (!k) { ran(n.g); ran(n.g); }
        OK(!vgs_model_read(m[k], w[k], NULL) && !vgs_model_read_adam(m[k], m1, v1, &step, NULL) && step == 4);
        vgs_graph_free(n.g);
    }
    OK(!memcmp(w[0], w[1], (size_t)vgs_model_size(m[0]) * sizeof(float)));
    vgs_model_free(m[0]);
    vgs_model_free(m[1]);
}

/* ---- life, and what does not fit ----------------------------------------------------------------------- */

static void freed(void)
{
    vgs_net_config c = mlp(0);
    vgs_model *m = create(&c, cpu, 1), *kept = create(&c, cpu, 2);
    net a = applied(m), b = applied(m);
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var w = vgs_model_weights(b.g, m);
    float y[MOST];
    vgs_descend(b.g, vgs_square(b.g, b.y), m, b.rate, 0);
    compiled(a.g, cpu);
    compiled(b.g, cpu);
    vgs_model_apply(g, m, vgs_input(g, 2), none);                    /* recorded, never compiled      */
    set_rows(&a);
    values(&a, y);
    OK(vgs_get(b.g, w, y, B, &err) == VGS_OK);
    vgs_model_free(m);
    OK(vgs_graph_run(a.g, B, &err) == VGS_E_ARG && strstr(err.msg, "freed"));
    OK(vgs_graph_run(b.g, B, &err) == VGS_E_ARG && strstr(err.msg, "freed"));
    OK(vgs_get(b.g, w, y, B, &err) == VGS_E_ARG && strstr(err.msg, "freed"));
    vgs_output(g, vgs_model_apply(g, kept, vgs_input(g, 2), none));
    OK(vgs_model_apply(g, m, vgs_input(g, 2), none).id == 0 && vgs_graph_status(g, &err) == VGS_E_ARG &&
       strstr(err.msg, "freed"));
    vgs_graph_free(a.g);
    vgs_graph_reset(g);
    vgs_graph_free(g);
    vgs_model_free(kept);                        /* while no graph uses it                            */
    vgs_graph_free(b.g);                         /* the last user                                     */
    m = create(&c, cpu, 1);
    g = vgs_graph_create(NULL);
    vgs_output(g, vgs_model_apply(g, m, vgs_input(g, 2), none));
    vgs_model_free(m);
    OK(vgs_graph_compile(g, cpu, B, &err) == VGS_E_ARG && strstr(err.msg, "freed"));
    vgs_graph_free(g);
}

static void misfits(void)
{
    vgs_net_config c = mlp(0), timed = mlp(3);
    vgs_backend *other = vgs_cpu_create(NULL, NULL);
    vgs_model *m = create(&c, cpu, 1), *later = create(&timed, cpu, 1);
    net a = applied(m);
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var w;
    float x[MOST] = { 0 };
    OK(vgs_graph_compile(a.g, other, B, &err) == VGS_E_ARG && strstr(err.msg, "another backend"));
    vgs_graph_free(a.g);
    OK(!vgs_model_apply(g, m, vgs_input(g, 3), none).id && vgs_graph_status(g, &err) == VGS_E_SHAPE &&
       strstr(err.msg, "3 columns") && strstr(err.msg, "2"));
    vgs_graph_reset(g);
    OK(!vgs_model_apply(g, m, vgs_input(g, 2), vgs_index(g)).id && vgs_graph_status(g, &err) == VGS_E_ARG &&
       strstr(err.msg, "not be given"));
    vgs_graph_reset(g);
    OK(!vgs_model_apply(g, later, vgs_input(g, 2), none).id && vgs_graph_status(g, &err) == VGS_E_ARG &&
       strstr(err.msg, "must be given"));
    vgs_graph_reset(g);
    OK(!vgs_model_apply(g, later, vgs_input(g, 2), vgs_input(g, 1)).id);
    OK(vgs_graph_status(g, &err) == VGS_E_SHAPE);
    vgs_graph_reset(g);
    OK(!vgs_model_apply(g, NULL, vgs_input(g, 2), none).id && vgs_graph_status(g, &err) == VGS_E_ARG);
    vgs_graph_reset(g);
    vgs_assign(g, vgs_model_weights(g, m), vgs_fill(g, 1, vgs_model_size(m), 0));
    OK(vgs_graph_status(g, &err) == VGS_E_ARG && strstr(err.msg, "only a state"));
    vgs_graph_reset(g);
    w = vgs_model_weights(g, m);
    OK(vgs_bind(g, w, m->w, 0, &err) == VGS_E_ARG);
    vgs_output(g, vgs_sum_cols(g, w));
    compiled(g, cpu);
    OK(vgs_set(g, w, x, 1, &err) == VGS_E_ARG);
    vgs_graph_free(g);
    vgs_model_free(m);
    vgs_model_free(later);
    vgs_cpu_free(other);
}

/* ---- files --------------------------------------------------------------------------------------------- */

typedef struct state { float w[MOST], m[MOST], v[MOST]; int64_t step; } state;

static void get_state(const vgs_model *m, state *s)
{
    memset(s, 0, sizeof *s);
    OK(!vgs_model_read(m, s->w, NULL) && !vgs_model_read_adam(m, s->m, s->v, &s->step, NULL));
}

/* Saves what n steps have taught; the other model then is this one, and goes on as this one does. */
static void files(void)
{
    static unsigned char file[65536];
    static state a, b, c;
    vgs_net_config config = mlp(3), wide = config;
    vgs_model *m[3];
    net n[2];
    size_t size, i;
    int k, j;
    for (k = 0; k < 2; ++k) {
        m[k] = create(&config, cpu, 1 + (uint64_t)k);
        n[k] = applied(m[k]);
        vgs_descend(n[k].g, vgs_square(n[k].g, n[k].y), m[k], n[k].rate, 1);
        compiled(n[k].g, cpu);
        set_rows(&n[k]);
    }
    OK(!vgs_model_save(m[0], PATH, &err) && !vgs_model_load(m[1], PATH, &err));  /* without moments    */
    get_state(m[0], &a);
    get_state(m[1], &b);
    OK(!memcmp(&a, &b, sizeof a) && a.step == 0);
    for (k = 0; k < 3; ++k) ran(n[0].g);
    ran(n[1].g);
    OK(!vgs_model_save(m[0], PATH, &err));
    CHECK(!vgs_model_load(m[1], PATH, &err), "%s", err.msg);
    get_state(m[0], &a);
    get_state(m[1], &b);
    OK(!memcmp(&a, &b, sizeof a) && a.step == 3 && a.m[0] != 0);
    for (k = 0; k < 2; ++k) ran(n[k].g);
    get_state(m[0], &c);
    get_state(m[1], &b);
    OK(!memcmp(&c, &b, sizeof c) && c.step == 4 && memcmp(&a, &c, sizeof a));

    size = t_read(PATH, file, sizeof file);
    OK(size > 100 && size < sizeof file);
    for (i = 0; i < size; i += 7) {              /* cut; one bit wrong                                */
        t_write(PATH, file, i);
        CHECK(vgs_model_load(m[1], PATH, &err) != VGS_OK, "a file of %d bytes", (int)i);
        file[i] ^= 4;
        t_write(PATH, file, size);
        CHECK(vgs_model_load(m[1], PATH, &err) != VGS_OK, "byte %d is wrong", (int)i);
        file[i] ^= 4;
    }
    OK(vgs_model_load(m[1], "no-such.safetensors", &err) == VGS_E_IO && !vgs_model_save(m[0], PATH, &err));
    wide.hidden = 5;
    m[2] = create(&wide, cpu, 1);
    get_state(m[2], &a);
    OK(vgs_model_load(m[2], PATH, &err) == VGS_E_SHAPE && strstr(err.msg, "time.0.weight"));
    get_state(m[2], &b);
    OK(!memcmp(&a, &b, sizeof a));
    get_state(m[1], &b);
    OK(!memcmp(&c, &b, sizeof c));               /* nothing that was refused has changed it           */
    wide = mlp(0);
    vgs_model_free(m[2]);
    m[2] = create(&wide, cpu, 1);
    OK(vgs_model_load(m[2], PATH, &err) == VGS_E_FORMAT && strstr(err.msg, "net.0.weight"));
    for (j = 0; j < 2; ++j) vgs_graph_free(n[j].g);
    for (j = 0; j < 3; ++j) vgs_model_free(m[j]);
    remove(PATH);
}

/* PATH with an A of two numbers and a b, as another program may write it. */
static void write_as_others(const float *a, const float *b)
{
    static const uint64_t shape[2] = { 1, 2 }, one = 1;
    vgs_writer *w = vgs_writer_create(&err);
    vgs_writer_tensor(w, "A", VGS_DTYPE_F32, 2, shape, a);
    vgs_writer_tensor(w, "b", VGS_DTYPE_F32, 1, &one, b);
    OK(!vgs_writer_save(w, PATH, &err));
    vgs_writer_free(w);
}

/* A file without moments resets them; one with weights that are not finite is refused. */
static void files_of_others(void)
{
    static const vgs_param_info list[2] = { { "A", 0, 1, 2 }, { "b", 0, 0, 1 } };
    static const float w[3] = { 1, 2, 3 }, moments[3] = { 4, 5, 6 };
    float bad[3] = { 1, (float)INFINITY, 3 }, got[3], m1[3], v1[3];
    int64_t step = 9;
    vgs_model *a = vgs_model_create_arrays(list, 2, w, cpu, NULL), *b;
    OK(!vgs_model_save(a, PATH, &err));
    OK(!vgs_model_write_adam(a, moments, moments, 7, NULL) && !vgs_model_load(a, PATH, &err));
    OK(!vgs_model_read_adam(a, m1, v1, &step, NULL) && step == 0 && m1[1] == 0 && v1[2] == 0);
    b = vgs_model_create_arrays(list, 2, bad, cpu, NULL);
    OK(vgs_model_save(b, PATH, &err) == VGS_E_NONFINITE);
    write_as_others(bad, bad + 2);
    CHECK(vgs_model_load(a, PATH, &err) == VGS_E_NONFINITE, "%s", err.msg);
    OK(!vgs_model_read(a, got, NULL) && !memcmp(got, w, sizeof w));
    bad[1] = 0;
    OK(!vgs_model_write(b, bad, NULL) && !vgs_model_write_adam(b, moments, moments, 5, NULL));
    OK(!vgs_model_save(b, PATH, &err) && !vgs_model_load(a, PATH, &err));
    OK(!vgs_model_read_adam(a, m1, v1, &step, NULL) && step == 5 && !memcmp(m1, moments, sizeof m1));
    bad[2] = -1;
    OK(!vgs_model_write_adam(b, moments, bad, 5, NULL) && !vgs_model_save(b, PATH, &err));
    OK(vgs_model_load(a, PATH, &err) == VGS_E_FORMAT && strstr(err.msg, "vgs.adam_v"));
    vgs_model_free(a);
    vgs_model_free(b);
    remove(PATH);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    cpu = vgs_cpu_create(NULL, NULL);
    RUN(descend);
    RUN(moments_end_everywhere);
    RUN(denormals);
    RUN(nonfinite);
    RUN(averages);
    RUN(arrays);
    RUN(twice_in_a_graph);
    RUN(followed);
    RUN(two_steps_in_a_run);
    RUN(freed);
    RUN(misfits);
    RUN(files);
    RUN(files_of_others);
    vgs_cpu_free(cpu);
    return t_end();
}
