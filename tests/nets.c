/* cc -O2 tests/nets.c -o nets -lm && ./nets
   The value networks against PyTorch's numbers, against their direct forms, and under symmetries. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include "ref.h"
#include "vectors/networks.h"

enum { MOST = 2048, B = GOLDEN_B };

/* One network in one graph: V [B,1], dV/dx, and d(sum c V)/d(parameters), on a backend. */
typedef vgs_var form_fn(vgs_graph *g, const vgs_net *net, vgs_var params, vgs_var x, vgs_var t);
typedef struct applied {
    vgs_graph *g;
    vgs_net *net;
    vgs_var params, x, t, c, v, gx, grad;
    double value[64], slope[512], gradient[MOST];
} applied;

static vgs_var library_form(vgs_graph *g, const vgs_net *net, vgs_var params, vgs_var x, vgs_var t)
{
    return vgs_net_apply(g, net, params, x, t, GOLDEN_T);
}

static bool apply(applied *a, const vgs_net_config *config, form_fn *form, vgs_backend *backend, int batch)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g;
    a->net = vgs_net_create(config, &err);
    a->g = g = vgs_graph_create(&err);
    if (!CHECK(a->net && g, "%s", err.msg)) return false;
    a->params = vgs_params(g, vgs_net_size(a->net));
    a->x = vgs_input(g, config->dim);
    a->t = vgs_index(g);
    a->c = vgs_input(g, 1);
    a->grad = vgs_state(g, 1, vgs_net_size(a->net), VGS_F32);
    a->v = form(g, a->net, a->params, a->x, a->t);
    vgs_gradient(g, a->v, &a->x, 1, &a->gx);
    vgs_gradient_params(g, vgs_mul(g, a->v, a->c), a->params, a->grad);
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
    vgs_net_free(a->net);
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

static void golden_params(const golden_net *n, float *p)
{
    uint32_t u = (uint32_t)n->seed;
    int i;
    for (i = 0; i < n->params; ++i) {
        u = 1664525u * u + 1013904223u;
        p[i] = ((float)(u >> 8) / 16777216.0f - 0.5f) * n->scale;
    }
}

static vgs_net_config golden_config(const golden_net *n)
{
    static const char *const kind[] = { "mlp", "temb", "deeper", "deeperv2", "deeperv3", "egnn" };
    vgs_net_config c;
    int k;
    memset(&c, 0, sizeof c);
    for (k = 0; k < 6; ++k) if (!strcmp(kind[k], n->kind)) c.kind = (vgs_net_kind)k;
    c.dim = n->n * n->d;
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

static void check_names(const golden_net *n, const vgs_net *net)
{
    int i, offset = 0;
    CHECK(vgs_net_size(net) == n->params && vgs_net_params(net) == n->names, "%d numbers in %d arrays",
          vgs_net_size(net), vgs_net_params(net));
    for (i = 0; i < n->names && i < vgs_net_params(net); ++i) {
        const vgs_param_info *p = vgs_net_param(net, i);
        int rows = n->shape[i][1] ? n->shape[i][0] : 0,
            cols = n->shape[i][1] ? n->shape[i][1] : n->shape[i][0];
        CHECK(!strcmp(p->name, n->name_list[i]) ||
                  (!strncmp(p->name, "net.", 4) && !strcmp(p->name + 4, n->name_list[i])),
              "array %d is %s, want %s", i, p->name, n->name_list[i]);
        CHECK(p->rows == rows && p->cols == cols && p->offset == offset, "%s is [%d,%d] at %d", p->name,
              p->rows, p->cols, p->offset);
        offset += (rows ? rows : 1) * cols;
    }
    OK(vgs_net_param(net, n->names) == NULL && vgs_net_param(net, -1) == NULL);
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
            golden_params(n, p);
            if (apply(&a, &c, library_form, on_ref ? &ref_backend : cpu, B)) {
                if (on_ref) check_names(n, a.net);
                OK(!vgs_set(a.g, a.params, p, B, NULL) && !vgs_set(a.g, a.x, n->x, B, NULL));
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

/* ---- the direct forms: no table over t, no folded layer -------------------------------------------- */

static vgs_var weight(vgs_graph *g, const vgs_net *net, vgs_var params, const char *name, const char *suffix)
{
    char full[64];
    int i;
    snprintf(full, sizeof full, "%s%s", name, suffix);
    for (i = 0; i < vgs_net_params(net); ++i) {
        const vgs_param_info *p = vgs_net_param(net, i);
        if (!strcmp(p->name, full))
            return vgs_view(g, params, p->offset, p->rows ? p->rows : 1, p->cols, p->cols);
    }
    CHECK(false, "no parameter %s", full);
    return params;
}

static vgs_var layer(vgs_graph *g, const vgs_net *net, vgs_var params, vgs_var x, const char *name)
{
    return vgs_linear(g, x, weight(g, net, params, name, ".weight"), weight(g, net, params, name, ".bias"));
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

static vgs_var direct_temb(vgs_graph *g, const vgs_net *net, vgs_var p, vgs_var x, vgs_var t)
{
    vgs_var te = vgs_relu(
                g, layer(g, net, p, sinusoid(g, vgs_net_configuration(net).time_dim, t), "net2.net.0")),
            u;
    te = layer(g, net, p, vgs_relu(g, layer(g, net, p, te, "net2.net.2")), "net2.net.4");
    u = vgs_concat(g, layer(g, net, p, x, "net1.net.0"), te);
    u = vgs_relu(g, layer(g, net, p, u, "net3.net.0"));
    return layer(g, net, p, vgs_relu(g, layer(g, net, p, u, "net3.net.2")), "net3.net.4");
}

static vgs_var direct_deeperv3(vgs_graph *g, const vgs_net *net, vgs_var p, vgs_var x, vgs_var t)
{
    vgs_var te = layer(g, net, p, sinusoid(g, vgs_net_configuration(net).time_dim, t), "temb"), u;
    u = vgs_relu(g, vgs_concat(g, layer(g, net, p, x, "fc1"), layer(g, net, p, te, "temb1")));
    u = layer(g, net, p, vgs_relu(g, layer(g, net, p, u, "fc2")), "fc3");
    return layer(g, net, p, vgs_mul(g, u, layer(g, net, p, te, "temb2")), "fc4");
}

static vgs_var direct_deeper(vgs_graph *g, const vgs_net *net, vgs_var p, vgs_var x, vgs_var t)
{
    vgs_var te = layer(g, net, p, sinusoid(g, vgs_net_configuration(net).time_dim, t), "temb"), u;
    u = vgs_add(g, vgs_relu(g, layer(g, net, p, x, "fc1")), vgs_relu(g, layer(g, net, p, te, "temb1")));
    u = vgs_relu(g, layer(g, net, p, vgs_relu(g, layer(g, net, p, u, "fc2")), "fc3"));
    return layer(g, net, p, vgs_add(g, u, vgs_relu(g, layer(g, net, p, te, "temb2"))), "fc4");
}

static vgs_var direct_deeperv2(vgs_graph *g, const vgs_net *net, vgs_var p, vgs_var x, vgs_var t)
{
    vgs_var u = vgs_concat(g, x, sinusoid(g, vgs_net_configuration(net).time_dim, t));
    u = vgs_relu(g, layer(g, net, p, u, "fc1"));
    u = vgs_relu(g, layer(g, net, p, vgs_relu(g, layer(g, net, p, u, "fc2")), "fc3"));
    return layer(g, net, p, u, "fc4");
}

static vgs_var direct_mlp(vgs_graph *g, const vgs_net *net, vgs_var p, vgs_var x, vgs_var t)
{
    const vgs_var none = { 0 };
    vgs_net_config c = vgs_net_configuration(net);
    vgs_var te = vgs_silu(g, layer(g, net, p, sinusoid(g, c.time_dim, t), "time.0")),
            u = vgs_affine(g, x, 1 / c.x_scale, 0);
    char fc[16], bias[16];
    int l;
    te = vgs_silu(g, layer(g, net, p, te, "time.2"));
    for (l = 1; l <= c.layers; ++l) {
        snprintf(fc, sizeof fc, "fc%d", l);
        snprintf(bias, sizeof bias, "bias%d", l);
        u = vgs_add(g, vgs_linear(g, u, weight(g, net, p, fc, ".weight"), none), layer(g, net, p, te, bias));
        u = c.relu ? vgs_relu(g, u) : vgs_silu(g, u);
    }
    return vgs_add(g, vgs_linear(g, u, weight(g, net, p, "out", ".weight"), none),
                   layer(g, net, p, te, "level"));
}

static void fill(applied *a, int batch, vgs_rng *r)
{
    static float x[MOST];
    int32_t t[64];
    int i;
    vgs_net_init(a->net, r, x);
    vgs_set(a->g, a->params, x, batch, NULL);
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
                near_all("gradient", a.gradient, b.gradient, vgs_net_size(a.net), tol);
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
    vgs_net_kind kind;
    for (kind = VGS_NET_MLP; kind <= VGS_NET_EGNN; ++kind) {
        vgs_net_config c;
        vgs_net *net;
        vgs_rng r = { 1, 0, 0 }, s = { 1, 0, 0 }, other = { 2, 0, 0 };
        int i, j, fan = 1;
        memset(&c, 0, sizeof c);
        c.kind = kind;
        c.dim = 12;
        c.hidden = 64;
        c.particles = 4;
        c.move_coordinates = true;
        c.wrapper = kind == VGS_NET_TEMB ? VGS_WRAPPER_SORTED : VGS_WRAPPER_NONE;
        net = vgs_net_create(&c, NULL);
        T_IN("init of kind %d", (int)kind);
        if (!CHECK(net && vgs_net_size(net) <= 200000, "net")) return;
        vgs_net_init(net, &r, w);
        vgs_net_init(net, &s, again);
        OK(!memcmp(w, again, (size_t)vgs_net_size(net) * sizeof *w) && r.pos == s.pos);
        vgs_net_init(net, &other, again);
        OK(memcmp(w, again, (size_t)vgs_net_size(net) * sizeof *w) != 0);
        for (i = 0; i < vgs_net_params(net); ++i) {
            const vgs_param_info *p = vgs_net_param(net, i);
            int count = (p->rows ? p->rows : 1) * p->cols;
            bool norm = strstr(p->name, "edge.1.") || strstr(p->name, "edge.4.") ||
                        strstr(p->name, "node.1.") || strstr(p->name, "out.1.");
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
        vgs_net_free(net);
    }
    vgs_net_free(NULL);
}

static void bad_configurations(void)
{
    static const struct { const char *says[2]; vgs_net_config c;
    } list[] = {
#define BAD(field, text, ...) { { field, text }, { __VA_ARGS__ } }
        /* kind, dim, hidden, layers, time_dim, time_hidden, particles, wrapper, relu, move, x_scale,
           windows */
        BAD("net.dim", "0", VGS_NET_MLP, 0, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.dim", "-2", VGS_NET_MLP, -2, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.hidden", "-1", VGS_NET_MLP, 2, -1, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.hidden", "65537", VGS_NET_MLP, 2, 65537, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.layers", "-3", VGS_NET_MLP, 2, 0, -3, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.layers", "1001", VGS_NET_MLP, 2, 0, 1001, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.time_dim", "7", VGS_NET_MLP, 2, 0, 0, 7, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.time_dim", "2", VGS_NET_MLP, 2, 0, 0, 2, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.time_dim", "-4", VGS_NET_MLP, 2, 0, 0, -4, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.time_hidden", "-1", VGS_NET_DEEPER, 2, 0, 0, 0, -1, 0, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.particles", "3", VGS_NET_EGNN, 8, 0, 0, 0, 0, 3, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.particles", "1", VGS_NET_EGNN, 8, 0, 0, 0, 0, 1, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.particles", "0", VGS_NET_TEMB, 8, 0, 0, 0, 0, 0, VGS_WRAPPER_SORTED, false, false, 0, 0),
        BAD("net.wrapper", "1", VGS_NET_EGNN, 8, 0, 0, 0, 0, 4, VGS_WRAPPER_SORTED, false, false, 0, 0),
        BAD("net.wrapper", "9", VGS_NET_MLP, 8, 0, 0, 0, 0, 4, (vgs_wrapper)9, false, false, 0, 0),
        BAD("net.kind", "77", (vgs_net_kind)77, 8, 0, 0, 0, 0, 4, VGS_WRAPPER_NONE, false, false, 0, 0),
        BAD("net.x_scale", "-1", VGS_NET_MLP, 2, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, -1.0f, 0),
        BAD("net.x_scale", "inf", VGS_NET_MLP, 2, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false,
            (float)INFINITY, 0),
        BAD("net.windows", "3", VGS_NET_TEMB, 2, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 3),
        BAD("net.windows", "4", VGS_NET_DEEPERV3, 2, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 4),
        BAD("net.windows", "1025", VGS_NET_MLP, 2, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0, 1025),
        BAD("net.windows", "1024", VGS_NET_MLP, 100000, 0, 0, 0, 0, 0, VGS_WRAPPER_NONE, false, false, 0,
            1024),
        BAD("net.windows", "-1", VGS_NET_EGNN, 8, 0, 0, 0, 0, 4, VGS_WRAPPER_NONE, false, false, 0, -1)};
    size_t i;
    vgs_error err = { VGS_OK, "" };
    vgs_net_config c;
    vgs_net *net;
    vgs_graph *g;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        memset(&err, 0, sizeof err);
        T_IN("net %d", (int)i);
        OK(!vgs_net_create(&list[i].c, &err) && !vgs_net_create(&list[i].c, NULL));
        CHECK(err.code == VGS_E_ARG && strstr(err.msg, list[i].says[0]) && strstr(err.msg, list[i].says[1]),
              "%s", err.msg);
    }
    CHECK(!vgs_net_create(NULL, &err) && err.code == VGS_E_ARG && strstr(err.msg, "NULL"), "%s", err.msg);
    memset(&c, 0, sizeof c);
    c.dim = 2;
    net = vgs_net_create(&c, &err);
    c = vgs_net_configuration(net);
    OK(c.hidden == 128 && c.layers == 3 && c.time_dim == 64 && c.time_hidden == 128 && c.x_scale == 1);
    g = vgs_graph_create(NULL);
    OK(!vgs_net_apply(g, net, vgs_params(g, 5), vgs_input(g, 2), vgs_index(g), 3).id &&
       vgs_graph_status(g, &err) == VGS_E_SHAPE);
    vgs_graph_reset(g);
    OK(!vgs_net_apply(g, net, vgs_params(g, vgs_net_size(net)), vgs_input(g, 3), vgs_index(g), 3).id &&
       vgs_graph_status(g, &err) == VGS_E_SHAPE && strstr(err.msg, "3") && strstr(err.msg, "2"));
    vgs_graph_reset(g);
    OK(!vgs_net_apply(g, net, vgs_params(g, vgs_net_size(net)), vgs_input(g, 2), vgs_index(g), 0).id &&
       vgs_graph_status(g, &err) == VGS_E_ARG);
    vgs_graph_free(g);
    vgs_net_free(net);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(golden);
    RUN(direct_forms);
    RUN(symmetry);
    RUN(init);
    RUN(bad_configurations);
    return t_end();
}
