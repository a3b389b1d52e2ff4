/* cc -O2 tests/nets.c -o nets -lm && ./nets
   The value networks against PyTorch's numbers, against their direct forms, and under symmetries. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include "ref.h"
#include "vectors/networks.h"
#include "vectors/images.h"
#include "vectors/plain.h"

enum { MOST = 4096, B = GOLDEN_B };

/* One network in one graph: V [B,out], dV/dx, and d(sum c V)/d(weights), on a backend. */
typedef vgs_var form_fn(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t);
typedef struct applied {
    vgs_graph *g;
    vgs_model *model;
    vgs_var x, t, c, v, gx, grad;
    double value[512], slope[512], gradient[MOST];
} applied;

static vgs_var library_form(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    return vgs_model_apply(g, m, x, t);
}

static bool apply(applied *a, const vgs_net_config *config, form_fn *form, vgs_backend *backend, int batch)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g;
    const vgs_var none = { 0 };
    a->model = vgs_model_create(config, backend, 1, &err);
    a->g = g = vgs_graph_create(&err);
    if (!CHECK(a->model && g, "%s", err.msg)) return false;
    a->x = vgs_input(g, config->dim);
    a->t = config->steps ? vgs_index(g) : none;
    a->c = vgs_input(g, vgs_model_config(a->model)->out);
    a->grad = vgs_state(g, 1, vgs_model_size(a->model), VGS_F32);
    a->v = form(g, a->model, a->x, a->t);
    vgs_gradient(g, a->v, &a->x, 1, &a->gx);
    vgs_gradient_params(g, vgs_mul(g, a->v, a->c), vgs_model_weights(g, a->model), a->grad);
    vgs_output(g, a->v);
    vgs_output(g, a->gx);
    vgs_output(g, a->grad);
    return CHECK(vgs_graph_compile(g, backend, batch, &err) == VGS_OK, "%s", err.msg);
}

/* Runs and fetches: as doubles where the backend holds doubles. */
static void run(applied *a, int batch)
{
    static float x[MOST];
    vgs_error err = { VGS_OK, "" };
    vgs_var from[3];
    double *to[3];
    int k, i, rows, cols;
    CHECK(vgs_graph_run(a->g, batch, &err) == VGS_OK, "%s", err.msg);
    from[0] = a->v, to[0] = a->value, from[1] = a->gx, to[1] = a->slope, from[2] = a->grad,
    to[2] = a->gradient;
    for (k = 0; k < 3; ++k) {
        vgs_shape(a->g, from[k], &rows, &cols);
        rows = rows < 0 ? -rows * batch : rows;
        if (a->g->backend == &ref_backend) ref_get(a->g, from[k], batch, to[k]);
        else {
            OK(vgs_get(a->g, from[k], x, batch, &err) == VGS_OK);
            for (i = 0; i < rows * cols; ++i) to[k][i] = (double)x[i];
        }
    }
}

static void drop(applied *a)
{
    vgs_graph_free(a->g);
    vgs_model_free(a->model);
}

static void near_all(const char *what, const double *got, const double *want, int n, double tol)
{
    double top = 0, worst = 0;
    int i, at = 0;
    for (i = 0; i < n; ++i) top = fmax(top, fabs(want[i]));
    for (i = 0; i < n; ++i) if (!(fabs(got[i] - want[i]) <= worst)) worst = fabs(got[i] - want[i]), at = i;
    CHECK(worst <= tol * (1 + top), "%s[%d] = %.12g, want %.12g", what, at, got[at], want[at]);
    CHECK(top > 1e-4, "%s: the largest is %g", what, top);      /* zeros would agree, too */
}

static vgs_net_config golden_config(const golden_net *n)
{
    static const char *const kind[] = { "mlp", "temb", "deeper", "deeperv2", "deeperv3", "egnn" };
    vgs_net_config c;
    int k;
    memset(&c, 0, sizeof c);
    for (k = 0; k < 6; ++k) if (!strcmp(kind[k], n->kind)) c.kind = (vgs_net_kind)k;
    c.dim = n->n * n->d;
    c.steps = GOLDEN_T;
    c.hidden = n->h;
    c.time_hidden = n->f;
    c.time_dim = n->m;
    c.layers = n->layers;
    c.move_coordinates = n->coord != 0;
    c.windows = n->windows;
    c.x_scale = n->windows ? 0.5f : 0;
    c.particles = n->n > 1 ? n->n : 0;
    c.wrapper = !strcmp(n->wrapper, "sqrt") ? VGS_WRAPPER_SORTED
                : n->wrapper[0]             ? VGS_WRAPPER_RECIPROCAL
                                            : VGS_WRAPPER_NONE;
    return c;
}

static void check_names(const golden_net *n, const vgs_model *m)
{
    int i, offset = 0;
    CHECK(vgs_model_size(m) == n->params, "%d numbers", vgs_model_size(m));
    for (i = 0; i < n->names && CHECK(vgs_model_param(m, i) != NULL, "%d arrays", i); ++i) {
        const vgs_param_info *p = vgs_model_param(m, i);
        int rows = n->shape[i][1] ? n->shape[i][0] : 0,
            cols = n->shape[i][1] ? n->shape[i][1] : n->shape[i][0];
        CHECK(!strcmp(p->name, n->name_list[i]) ||
                  (!strncmp(p->name, "net.", 4) && !strcmp(p->name + 4, n->name_list[i])),
              "array %d is %s, want %s", i, p->name, n->name_list[i]);
        CHECK(p->rows == rows && p->cols == cols && p->offset == offset, "%s is [%d,%d] at %d", p->name,
              p->rows, p->cols, p->offset);
        offset += (rows ? rows : 1) * cols;
    }
    OK(vgs_model_param(m, n->names) == NULL && vgs_model_param(m, -1) == NULL);
}

static void golden(void)
{
    static applied a;
    static float p[MOST];
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    int k, on_ref;
    for (k = 0; k < GOLDEN_NETS; ++k)
        for (on_ref = 0; on_ref < 2; ++on_ref) {
            const golden_net *n = &golden_nets[k];
            vgs_net_config c = golden_config(n);
            double tol = on_ref ? 1e-6 : 1e-5;                       /* the sinusoid is a table of floats */
            T_IN("%s %s", n->name, on_ref ? "in double" : "cpu");
            t_params(n->seed, n->scale, n->params, p);
            if (apply(&a, &c, library_form, on_ref ? &ref_backend : cpu, B)) {
                if (on_ref) check_names(n, a.model);
                OK(!vgs_model_write(a.model, p, NULL) && !vgs_set(a.g, a.x, n->x, B, NULL));
                OK(!vgs_set(a.g, a.t, golden_t, B, NULL) && !vgs_set(a.g, a.c, golden_c, B, NULL));
                run(&a, B);
                near_all("V", a.value, n->V, B, tol);
                near_all("dV/dx", a.slope, n->dVdx, B * c.dim, tol);
                near_all("gradient", a.gradient, n->grad, n->params, tol);
                run(&a, B);                                          /* without the prologue          */
                near_all("V again", a.value, n->V, B, tol);
            }
            drop(&a);
        }
    OK(ref_faults == 0);
    vgs_cpu_free(cpu);
}

/* ---- networks without time -------------------------------------------------------------------------- */

static vgs_net_config plain_config(const golden_plain *n)
{
    vgs_net_config c;
    memset(&c, 0, sizeof c);
    c.kind = n->autoencoder ? VGS_NET_AUTOENCODER : VGS_NET_MLP;
    c.dim = n->dim;
    c.out = n->out;
    c.hidden = n->hidden;
    c.layers = n->layers;
    c.code = n->code;
    c.unit = n->unit != 0;
    c.relu = n->relu != 0;
    c.x_scale = n->x_scale;
    return c;
}

/* The gradient in the weights against central differences of sum c V; on the backend of doubles. */
static void check_differences(applied *a, const golden_plain *n)
{
    double *w = a->model->w->x, want[MOST], keep, up;
    int i, j, k, rows = B * n->out;
    for (i = 0; i < n->params; ++i) {
        keep = w[i];
        for (want[i] = 0, k = 1; k > -2; k -= 2) {
            w[i] = keep + k * 1e-6;
            vgs_graph_touch(a->g);
            OK(vgs_graph_run(a->g, B, NULL) == VGS_OK);
            ref_get(a->g, a->v, B, a->value);
            for (up = 0, j = 0; j < rows; ++j) up += (double)n->c[j] * a->value[j];
            want[i] += k * up / 2e-6;
        }
        w[i] = keep;
    }
    near_all("gradient by differences", a->gradient, want, n->params, 1e-7);
}

static void plain(void)
{
    static applied a;
    static float p[MOST];
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    int k, i, on_ref;
    for (k = 0; k < GOLDEN_PLAINS; ++k)
        for (on_ref = 0; on_ref < 2; ++on_ref) {
            const golden_plain *n = &golden_plains[k];
            vgs_net_config c = plain_config(n);
            double tol = on_ref ? 1e-12 : 1e-5;
            T_IN("%s %s", n->name, on_ref ? "in double" : "cpu");
            t_params(n->seed, n->scale, n->params, p);
            if (apply(&a, &c, library_form, on_ref ? &ref_backend : cpu, B)) {
                OK(vgs_model_size(a.model) == n->params && !vgs_model_param(a.model, n->names));
                for (i = 0; i < n->names && vgs_model_param(a.model, i); ++i)
                    OK(!strcmp(vgs_model_param(a.model, i)->name, n->name_list[i]));
                OK(!vgs_model_write(a.model, p, NULL) && !vgs_set(a.g, a.x, n->x, B, NULL) &&
                   !vgs_set(a.g, a.c, n->c, B, NULL));
                run(&a, B);
                near_all("y", a.value, n->y, B * n->out, tol);
                near_all("dy/dx", a.slope, n->dydx, B * n->dim, tol);
                near_all("gradient", a.gradient, n->grad, n->params, tol);
                if (on_ref) check_differences(&a, n);
            }
            drop(&a);
        }
    OK(ref_faults == 0);
    vgs_cpu_free(cpu);
}

/* ---- networks on images ----------------------------------------------------------------------------- */

static vgs_net_config image_config(const golden_image *n)
{
    vgs_net_config c;
    memset(&c, 0, sizeof c);
    c.kind = n->unet ? VGS_NET_UNET : VGS_NET_RESNET;
    c.dim = n->height * n->width * n->channels;
    c.height = n->height;
    c.width = n->width;
    c.hidden = n->hidden;
    c.layers = n->layers;
    c.levels = n->levels;
    c.steps = n->steps;
    c.time_hidden = n->time_hidden;
    c.time_dim = n->time_dim;
    return c;
}

static void images(void)
{
    static applied a;
    static float p[MOST];
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    int32_t t[B];
    int k, i, on_ref;
    for (i = 0; i < B; ++i) t[i] = 3 * i % GOLDEN_T;
    for (k = 0; k < GOLDEN_IMAGES; ++k)
        for (on_ref = 0; on_ref < 2; ++on_ref) {
            const golden_image *n = &golden_images[k];
            vgs_net_config c = image_config(n);
            double tol = on_ref ? 1e-6 : 1e-5;                       /* sinusoid, eps, 1/pixels are floats */
            T_IN("%s %s", n->name, on_ref ? "in double" : "cpu");
            t_params(n->seed, n->scale, n->params, p);
            if (apply(&a, &c, library_form, on_ref ? &ref_backend : cpu, B)) {
                int out = vgs_model_config(a.model)->out;
                CHECK(vgs_model_size(a.model) == n->params && !vgs_model_param(a.model, n->names),
                      "%d numbers", vgs_model_size(a.model));
                for (i = 0; i < n->names && vgs_model_param(a.model, i); ++i)
                    CHECK(!strcmp(vgs_model_param(a.model, i)->name, n->name_list[i]), "array %d is %s", i,
                          vgs_model_param(a.model, i)->name);
                OK(!vgs_model_write(a.model, p, NULL) && !vgs_set(a.g, a.x, n->x, B, NULL) &&
                   !vgs_set(a.g, a.c, n->c, B, NULL) && (!n->steps || !vgs_set(a.g, a.t, t, B, NULL)));
                run(&a, B);
                near_all("y", a.value, n->y, B * out, tol);
                near_all("dy/dx", a.slope, n->dydx, B * c.dim, tol);
                near_all("gradient", a.gradient, n->grad, n->params, tol);
            }
            drop(&a);
        }
    OK(ref_faults == 0);
    vgs_cpu_free(cpu);
}

/* ---- the direct forms: no table over t, no folded layer -------------------------------------------- */

static vgs_var weight(vgs_graph *g, vgs_model *m, const char *name, const char *suffix)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return vgs_model_array(g, m, full);
}

static vgs_var layer(vgs_graph *g, vgs_model *m, vgs_var x, const char *name)
{
    return vgs_linear(g, x, weight(g, m, name, ".weight"), weight(g, m, name, ".bias"));
}

static vgs_var sinusoid(vgs_graph *g, int m, vgs_var t)
{
    float x[GOLDEN_T * 64];
    int i, k, half = m / 2;
    for (i = 0; i < GOLDEN_T; ++i)
        for (k = 0; k < half; ++k) {
            double w = i * exp(-k * log(10000.0) / (half - 1));
            x[i * m + k] = (float)sin(w);
            x[i * m + half + k] = (float)cos(w);
        }
    return vgs_gather(g, vgs_table(g, x, GOLDEN_T, m), t);
}

static vgs_var direct_temb(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var te = vgs_relu(
                g, layer(g, m, sinusoid(g, vgs_model_config(m)->time_dim, t), "net2.net.0")),
            u;
    te = layer(g, m, vgs_relu(g, layer(g, m, te, "net2.net.2")), "net2.net.4");
    u = vgs_concat(g, layer(g, m, x, "net1.net.0"), te);
    u = vgs_relu(g, layer(g, m, u, "net3.net.0"));
    return layer(g, m, vgs_relu(g, layer(g, m, u, "net3.net.2")), "net3.net.4");
}

static vgs_var direct_deeperv3(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var te = layer(g, m, sinusoid(g, vgs_model_config(m)->time_dim, t), "temb"), u;
    u = vgs_relu(g, vgs_concat(g, layer(g, m, x, "fc1"), layer(g, m, te, "temb1")));
    u = layer(g, m, vgs_relu(g, layer(g, m, u, "fc2")), "fc3");
    return layer(g, m, vgs_mul(g, u, layer(g, m, te, "temb2")), "fc4");
}

static vgs_var direct_deeper(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var te = layer(g, m, sinusoid(g, vgs_model_config(m)->time_dim, t), "temb"), u;
    u = vgs_add(g, vgs_relu(g, layer(g, m, x, "fc1")), vgs_relu(g, layer(g, m, te, "temb1")));
    u = vgs_relu(g, layer(g, m, vgs_relu(g, layer(g, m, u, "fc2")), "fc3"));
    return layer(g, m, vgs_add(g, u, vgs_relu(g, layer(g, m, te, "temb2"))), "fc4");
}

static vgs_var direct_deeperv2(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var u = vgs_concat(g, x, sinusoid(g, vgs_model_config(m)->time_dim, t));
    u = vgs_relu(g, layer(g, m, u, "fc1"));
    u = vgs_relu(g, layer(g, m, vgs_relu(g, layer(g, m, u, "fc2")), "fc3"));
    return layer(g, m, u, "fc4");
}

static vgs_var direct_mlp(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    const vgs_var none = { 0 };
    vgs_net_config c = *vgs_model_config(m);
    vgs_var te = vgs_silu(g, layer(g, m, sinusoid(g, c.time_dim, t), "time.0")),
            u = vgs_affine(g, x, 1 / c.x_scale, 0);
    char fc[16], bias[16];
    int l;
    te = vgs_silu(g, layer(g, m, te, "time.2"));
    for (l = 1; l <= c.layers; ++l) {
        snprintf(fc, sizeof fc, "fc%d", l);
        snprintf(bias, sizeof bias, "bias%d", l);
        u = vgs_add(g, vgs_linear(g, u, weight(g, m, fc, ".weight"), none), layer(g, m, te, bias));
        u = c.relu ? vgs_relu(g, u) : vgs_silu(g, u);
    }
    return vgs_add(g, vgs_linear(g, u, weight(g, m, "out", ".weight"), none),
                   layer(g, m, te, "level"));
}

static void fill(applied *a, int batch, vgs_rng *r)
{
    static float x[MOST];
    int32_t t[64];
    int i;
    vgs__net_init(a->model->net, r, x);
    vgs_model_write(a->model, x, NULL);
    vgs_rng_normals(r, x, MOST);
    vgs_set(a->g, a->x, x, batch, NULL);
    vgs_set(a->g, a->c, x + 512, batch, NULL);
    for (i = 0; i < batch; ++i) t[i] = i * 3 % GOLDEN_T;
    vgs_set(a->g, a->t, t, batch, NULL);
}

static void direct_forms(void)
{
    static const struct {
        const char *name;
        vgs_net_kind kind;
        form_fn *form;
        int hidden, f, layers;
        bool relu;
        float scale;
    } list[] = {{"temb", VGS_NET_TEMB, direct_temb, 9, 0, 0, false, 0},
                {"deeper", VGS_NET_DEEPER, direct_deeper, 9, 7, 0, false, 0},
                {"deeperv2", VGS_NET_DEEPERV2, direct_deeperv2, 9, 0, 3, true, 0},
                {"deeperv3", VGS_NET_DEEPERV3, direct_deeperv3, 9, 7, 0, false, 0},
                {"mlp silu", VGS_NET_MLP, direct_mlp, 11, 5, 2, false, 2.5f},
                {"mlp relu", VGS_NET_MLP, direct_mlp, 6, 0, 5, true, 0}};
    static applied a, b;
    size_t k;
    int on_ref;
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    for (k = 0; k < sizeof list / sizeof *list; ++k)
        for (on_ref = 0; on_ref < 2; ++on_ref) {
            vgs_net_config c;
            vgs_rng r = { 3, 0, 0 }, again;
            double tol = on_ref ? 1e-12 : 1e-5;
            memset(&c, 0, sizeof c);
            c.kind = list[k].kind;
            c.dim = 3;
            c.steps = GOLDEN_T;
            c.hidden = list[k].hidden;
            c.time_hidden = list[k].f;
            c.layers = list[k].layers;
            c.time_dim = 8;
            c.relu = list[k].relu;
            c.x_scale = list[k].scale;
            again = r;
            T_IN("direct %s %s", list[k].name, on_ref ? "in double" : "cpu");
            if (on_ref && list[k].scale > 0) tol = 1e-7;             /* 1/x_scale is rounded to float */
            if (apply(&a, &c, library_form, on_ref ? &ref_backend : cpu, 7) &&
                apply(&b, &c, list[k].form, on_ref ? &ref_backend : cpu, 7)) {
                fill(&a, 7, &r);
                fill(&b, 7, &again);
                run(&a, 7);
                run(&b, 7);
                near_all("V", a.value, b.value, 7, tol);
                near_all("dV/dx", a.slope, b.slope, 21, tol);
                near_all("gradient", a.gradient, b.gradient, vgs_model_size(a.model), tol);
            }
            drop(&a);
            drop(&b);
        }
    OK(ref_faults == 0);
    vgs_cpu_free(cpu);
}

/* ---- symmetries ------------------------------------------------------------------------------------ */

/* y = R x_perm + shift of n points in d dimensions; R in the first two axes, mirrored in the last or not */
static void move(const double *x, double *y, int n, int d, const int *perm, double angle, bool mirror,
                 double shift)
{
    int i, j;
    for (i = 0; i < n; ++i) {
        const double *p = x + perm[i] * d;
        double *q = y + i * d;
        for (j = 0; j < d; ++j) q[j] = p[j] * (mirror && j == d - 1 ? -1 : 1);
        p = q;
        {
            double a = p[0], b = p[1];
            q[0] = cos(angle) * a - sin(angle) * b;
            q[1] = sin(angle) * a + cos(angle) * b;
        }
        for (j = 0; j < d; ++j) q[j] += shift * (j + 1);
    }
}

/* V(g x) = V(x) and grad V(g x) = g grad V(x) for all of the group, at every t. */
static void check_symmetry(const vgs_net_config *c, bool on_ref, vgs_backend *cpu)
{
    static const int same[4] = { 0, 1, 2, 3 }, swap[4] = { 2, 0, 3, 1 };
    static applied a, b;
    vgs_rng r = { 9, 0, 0 }, again = r;
    int n = c->particles, d = c->dim / n, i, g;
    double x[64], y[64], want[64], tol = on_ref ? 1e-11 : 2e-5;
    float f[64];
    if (!apply(&a, c, library_form, on_ref ? &ref_backend : cpu, 4) ||
        !apply(&b, c, library_form, on_ref ? &ref_backend : cpu, 4))
        return;
    fill(&a, 4, &r);
    fill(&b, 4, &again);
    vgs_rng_normals(&r, f, 64);
    for (i = 0; i < 64; ++i) x[i] = (double)f[i];
    for (g = 0; g < 5; ++g) {                    /* rotation, reflection, translation, permutation, all */
        bool all = g == 4;
        const int *perm = g == 3 || all ? swap : same;
        double angle = g == 0 || all ? 1.1 : 0, shift = g == 2 || all ? 0.7 : 0;
        bool mirror = g == 1 || all;
        for (i = 0; i < 4; ++i) move(x + i * c->dim, y + i * c->dim, n, d, perm, angle, mirror, shift);
        if (on_ref) {
            memcpy(ref_value(a.g, a.x, 4), x, (size_t)(4 * c->dim) * sizeof *x);
            memcpy(ref_value(b.g, b.x, 4), y, (size_t)(4 * c->dim) * sizeof *y);
        } else {
            vgs_set(a.g, a.x, f, 4, NULL);
            for (i = 0; i < 4 * c->dim; ++i) want[i] = y[i];
            {
                float h[64];
                for (i = 0; i < 4 * c->dim; ++i) h[i] = (float)want[i];
                vgs_set(b.g, b.x, h, 4, NULL);
            }
        }
        run(&a, 4);
        run(&b, 4);
        near_all("V under the group", b.value, a.value, 4, tol);
        for (i = 0; i < 4; ++i) move(a.slope + i * c->dim, want + i * c->dim, n, d, perm, angle, mirror, 0);
        near_all("drift under the group", b.slope, want, 4 * c->dim, tol);
    }
    drop(&a);
    drop(&b);
}

static void symmetry(void)
{
    static const struct { const char *name; vgs_net_kind kind; vgs_wrapper wrapper; bool moves; int windows;
    } list[] = {{"egnn", VGS_NET_EGNN, VGS_WRAPPER_NONE, false, 0},
                {"egnn moving", VGS_NET_EGNN, VGS_WRAPPER_NONE, true, 4},
                {"sorted temb", VGS_NET_TEMB, VGS_WRAPPER_SORTED, false, 0},
                {"reciprocal mlp", VGS_NET_MLP, VGS_WRAPPER_RECIPROCAL, false, 5},
                {"sorted deeperv3", VGS_NET_DEEPERV3, VGS_WRAPPER_SORTED, false, 0}};
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    int k, d, on_ref;
    for (k = 0; k < 5; ++k)
        for (d = 2; d < 4; ++d)
            for (on_ref = 0; on_ref < 2; ++on_ref) {
                vgs_net_config c;
                memset(&c, 0, sizeof c);
                c.kind = list[k].kind;
                c.steps = GOLDEN_T;
                c.wrapper = list[k].wrapper;
                c.move_coordinates = list[k].moves;
                c.windows = list[k].windows;
                c.layers = c.kind == VGS_NET_EGNN ? 3 : 0;
                c.particles = 4;
                c.dim = 4 * d;
                c.hidden = 7;
                c.time_dim = 6;
                T_IN("%s, %d-D, %s", list[k].name, d, on_ref ? "in double" : "cpu");
                check_symmetry(&c, on_ref != 0, cpu);
            }
    OK(ref_faults == 0);
    vgs_cpu_free(cpu);
}

/* ---- weights at the start, and configurations that are wrong ---------------------------------------- */

/* Uniform in +-1/sqrt(fan_in), of a Linear's bias too; norms 1 and 0; the seed decides. */
static void init(void)
{
    static float w[200000], again[200000];
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    vgs_net_kind kind;
    for (kind = VGS_NET_MLP; kind <= VGS_NET_AUTOENCODER; ++kind) {
        vgs_net_config c;
        const vgs_param_info *p;
        vgs_model *m[3];
        size_t bytes;
        int i, j, fan = 1;
        memset(&c, 0, sizeof c);
        c.kind = kind;
        c.dim = vgs__net_is(kind, VGS__NET_IMAGE) ? 16 : 12;
        c.steps = kind == VGS_NET_AUTOENCODER ? 0 : GOLDEN_T;
        c.hidden = 64;
        c.particles = 4;
        c.move_coordinates = true;
        c.wrapper = kind == VGS_NET_TEMB ? VGS_WRAPPER_SORTED : VGS_WRAPPER_NONE;
        T_IN("init of kind %d", (int)kind);
        for (i = 0; i < 3; ++i) m[i] = vgs_model_create(&c, cpu, i == 2 ? 2 : 1, NULL);
        if (!CHECK(m[0] && m[1] && m[2] && vgs_model_size(m[0]) <= 200000, "models")) return;
        bytes = (size_t)vgs_model_size(m[0]) * sizeof *w;
        OK(!vgs_model_read(m[0], w, NULL) && !vgs_model_read(m[1], again, NULL) && !memcmp(w, again, bytes));
        OK(!vgs_model_read(m[2], again, NULL) && memcmp(w, again, bytes) != 0);
        for (i = 0; (p = vgs_model_param(m[0], i)) != NULL; ++i) {
            int count = (p->rows ? p->rows : 1) * p->cols;
            bool norm = strstr(p->name, "edge.1.") || strstr(p->name, "edge.4.") ||
                        strstr(p->name, "node.1.") || strstr(p->name, "out.1.") ||
                        strstr(p->name, "norm");
            double bound, top = 0, sum = 0;
            if (p->rows) fan = p->cols;
            bound = 1 / sqrt((double)fan);
            for (j = 0; j < count; ++j) {
                double v = (double)w[p->offset + j];
                top = fmax(top, fabs(v));
                sum += v;
                if (norm && v != (strstr(p->name, ".weight") ? 1 : 0))
                    CHECK(false, "%s[%d] = %g", p->name, j, v);
            }
            if (norm) continue;
            CHECK(top <= bound * 1.0000001 && (count < 60 || top > 0.9 * bound), "%s: largest %g, bound %g",
                  p->name, top, bound);
            CHECK(fabs(sum) < 6 * bound * sqrt(count / 3.0), "%s: mean %g", p->name,
                  sum / count); /* 6 sigma */
        }
        for (i = 0; i < 3; ++i) vgs_model_free(m[i]);
    }
    vgs_cpu_free(cpu);
    vgs_model_free(NULL);
}

static void bad_configurations(void)
{
    static const struct { const char *says[2]; vgs_net_config c;
    } list[] = {
#define BAD(field, text, ...) { { field, text }, { .steps = 3, __VA_ARGS__ } }
        BAD("net.dim", "0", .dim = 0),
        BAD("net.dim", "-2", .dim = -2),
        BAD("net.hidden", "-1", .dim = 2, .hidden = -1),
        BAD("net.hidden", "65537", .dim = 2, .hidden = 65537),
        BAD("net.layers", "-3", .dim = 2, .layers = -3),
        BAD("net.layers", "1001", .dim = 2, .layers = 1001),
        BAD("net.time_dim", "7", .dim = 2, .time_dim = 7),
        BAD("net.time_dim", "2", .dim = 2, .time_dim = 2),
        BAD("net.time_dim", "-4", .dim = 2, .time_dim = -4),
        BAD("net.time_hidden", "-1", .kind = VGS_NET_DEEPER, .dim = 2, .time_hidden = -1),
        BAD("net.particles", "3", .kind = VGS_NET_EGNN, .dim = 8, .particles = 3),
        BAD("net.particles", "1", .kind = VGS_NET_EGNN, .dim = 8, .particles = 1),
        BAD("net.particles", "0", .kind = VGS_NET_TEMB, .dim = 8, .wrapper = VGS_WRAPPER_SORTED),
        BAD("net.wrapper", "1", .kind = VGS_NET_EGNN, .dim = 8, .particles = 4,
            .wrapper = VGS_WRAPPER_SORTED),
        BAD("net.wrapper", "9", .dim = 8, .particles = 4, .wrapper = (vgs_wrapper)9),
        BAD("net.kind", "77", .kind = (vgs_net_kind)77, .dim = 8, .particles = 4),
        BAD("net.x_scale", "-1", .dim = 2, .x_scale = -1.0f),
        BAD("net.x_scale", "inf", .dim = 2, .x_scale = (float)INFINITY),
        BAD("net.windows", "3", .kind = VGS_NET_TEMB, .dim = 2, .windows = 3),
        BAD("net.windows", "4", .kind = VGS_NET_DEEPERV3, .dim = 2, .windows = 4),
        BAD("net.windows", "1025", .dim = 2, .windows = 1025),
        BAD("net.windows", "1024", .dim = 100000, .windows = 1024),
        BAD("net.windows", "-1", .kind = VGS_NET_EGNN, .dim = 8, .particles = 4, .windows = -1),
#undef BAD
#define BAD(field, text, ...) { { field, text }, { __VA_ARGS__ } }
        BAD("net.steps", "-1", .dim = 2, .steps = -1),
        BAD("net.steps", "65536", .dim = 2, .steps = 65536),
        BAD("net.steps", "0", .kind = VGS_NET_TEMB, .dim = 2),
        BAD("net.steps", "0", .kind = VGS_NET_EGNN, .dim = 8, .particles = 4),
        BAD("net.height", "only resnet", .dim = 4, .height = 2),
        BAD("net.levels", "only resnet", .dim = 4, .levels = 2),
        BAD("net.height", "0", .kind = VGS_NET_UNET, .dim = 5),
        BAD("net.width", "0", .kind = VGS_NET_UNET, .dim = 64, .height = 8),
        BAD("net.dim", "65", .kind = VGS_NET_RESNET, .dim = 65, .height = 8, .width = 8),
        BAD("net.levels", "8 x 4", .kind = VGS_NET_RESNET, .dim = 32, .height = 8, .width = 4, .levels = 4),
        BAD("net.levels", "13", .kind = VGS_NET_UNET, .dim = 64, .levels = 13),
        BAD("net.windows", "2", .kind = VGS_NET_UNET, .dim = 64, .windows = 2),
        BAD("net.out", "1", .kind = VGS_NET_UNET, .dim = 64, .out = 1),
        BAD("net.out", "64", .kind = VGS_NET_RESNET, .dim = 64, .out = 64),
        BAD("net.steps", "3", .kind = VGS_NET_AUTOENCODER, .dim = 4, .steps = 3),
        BAD("net.out", "-1", .dim = 2, .out = -1),
        BAD("net.out", "2", .kind = VGS_NET_DEEPER, .dim = 2, .steps = 3, .out = 2),
        BAD("net.out", "3", .kind = VGS_NET_AUTOENCODER, .dim = 4, .out = 3),
        BAD("net.code", "an autoencoder", .dim = 2, .code = 1),
        BAD("net.code", "-1", .kind = VGS_NET_AUTOENCODER, .dim = 4, .code = -1),
        BAD("net.unit", "an autoencoder", .dim = 2, .unit = true),
        BAD("net.windows", "2", .dim = 2, .windows = 2),
        BAD("net.windows", "2", .dim = 2, .steps = 3, .out = 2, .windows = 2)
#undef BAD
    };
    size_t i;
    vgs_error err = { VGS_OK, "" };
    vgs_backend *cpu = vgs_cpu_create(NULL, NULL);
    vgs_net_config c;
    vgs_model *m;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        memset(&err, 0, sizeof err);
        T_IN("net %d", (int)i);
        OK(!vgs_model_create(&list[i].c, cpu, 1, &err) && !vgs_model_create(&list[i].c, cpu, 1, NULL));
        CHECK(err.code == VGS_E_ARG && strstr(err.msg, list[i].says[0]) && strstr(err.msg, list[i].says[1]),
              "%s", err.msg);
    }
    T_IN("defaults");
    memset(&c, 0, sizeof c);
    c.dim = 3;
    c.steps = 3;
    m = vgs_model_create(&c, cpu, 1, &err);
    c = *vgs_model_config(m);
    OK(c.hidden == 128 && c.layers == 3 && c.time_dim == 64 && c.time_hidden == 128 && c.x_scale == 1);
    OK(c.out == 1 && c.code == 0 && vgs_model_version(m) > 0);
    vgs_model_free(m);
    memset(&c, 0, sizeof c);
    c.kind = VGS_NET_AUTOENCODER;
    c.dim = 300;
    m = vgs_model_create(&c, cpu, 1, &err);
    OK(vgs_model_config(m)->out == 300 && vgs_model_config(m)->code == 128);
    vgs_model_free(m);
    memset(&c, 0, sizeof c);
    c.kind = VGS_NET_UNET;
    c.dim = 3 * 28 * 28;
    m = vgs_model_create(&c, cpu, 1, &err);
    c = *vgs_model_config(m);
    OK(c.height == 28 && c.width == 28 && c.levels == 3 && c.hidden == 32 && c.layers == 1 && c.out == c.dim);
    vgs_model_free(m);
    OK(!vgs_model_create(NULL, cpu, 1, &err) && err.code == VGS_E_ARG && strstr(err.msg, "NULL"));
    OK(!vgs_model_create(&c, NULL, 1, &err) && err.code == VGS_E_ARG && strstr(err.msg, "backend"));
    vgs_cpu_free(cpu);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(golden);
    RUN(plain);
    RUN(images);
    RUN(direct_forms);
    RUN(symmetry);
    RUN(init);
    RUN(bad_configurations);
    return t_end();
}
