/* cc -O2 tests/backend.c -o backend -lm && ./backend
   A backend whose memory nobody else can touch: its buffers are numbers, not pointers. It counts what moves.
   A steady training iteration must move nothing but the flag, allocate nothing, and give the bits of the
   plain CPU backend. */
#include "weak.h"
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

enum { MOST = 256 };

typedef struct device {
    vgs_backend base;
    vgs_backend *cpu;
    float *memory[MOST];
    size_t size[MOST];
    long created, alive, up, down, up_bytes, down_bytes, launches, energies, faults, finishes;
    long largest_down;
} device;

/* Handle k + 1 as an address in the first page: whoever follows it crashes. */
static vgs_buffer *handle(size_t k) { return (vgs_buffer *)(k + 1); }
static size_t number(const vgs_buffer *b) { return (size_t)b - 1; }

static vgs_buffer *device_create(void *self, size_t n, vgs_error *err)
{
    device *d = (device *)self;
    size_t k = 0;
    while (k < MOST && d->memory[k]) ++k;
    if (k == MOST) { vgs__fail(err, VGS_E_DEVICE, "no handles left"); return NULL; }
    d->memory[k] = (float *)calloc(n ? n : 1, sizeof(float));
    d->size[k] = n;
    d->created++;
    d->alive++;
    return handle(k);
}

static void device_free(void *self, vgs_buffer *b)
{
    device *d = (device *)self;
    if (!b) return;
    if (number(b) >= MOST || !d->memory[number(b)]) { d->faults++; return; }
    free(d->memory[number(b)]);
    d->memory[number(b)] = NULL;
    d->alive--;
}

static float *device_at(device *d, const vgs_buffer *b, size_t offset, size_t n)
{
    if (b && number(b) < MOST && d->memory[number(b)] && offset + n <= d->size[number(b)])
        return d->memory[number(b)] + offset;
    d->faults++;
    return NULL;
}

static vgs_status device_upload(void *self, vgs_buffer *dst, size_t offset, const void *src, size_t n,
                                vgs_type type, vgs_error *err)
{
    device *d = (device *)self;
    float *to = device_at(d, dst, offset, n);
    (void)type;
    (void)err;
    d->up++;
    d->up_bytes += (long)(4 * n);
    if (to) memcpy(to, src, 4 * n);
    return to ? VGS_OK : VGS_E_DEVICE;
}

static vgs_status device_download(void *self, void *dst, vgs_buffer *src, size_t offset, size_t n,
                                  vgs_type type, vgs_error *err)
{
    device *d = (device *)self;
    const float *from = device_at(d, src, offset, n);
    (void)type;
    (void)err;
    d->down++;
    d->down_bytes += (long)(4 * n);
    if ((long)(4 * n) > d->largest_down) d->largest_down = (long)(4 * n);
    if (from) memcpy(dst, from, 4 * n);
    return from ? VGS_OK : VGS_E_DEVICE;
}

/* The tensor where it really lies; every element of it must be inside. */
static vgs_tensor translate(device *d, vgs_tensor t)
{
    size_t n = t.rows > 0 && t.cols > 0 ? (size_t)(t.rows - 1) * (size_t)t.ld + (size_t)t.cols : 0;
    if (!t.buf) return t;
    t.buf = (vgs_buffer *)(void *)device_at(d, t.buf, t.offset, n);
    t.offset = 0;
    if (t.ld < t.cols) d->faults++;
    return t;
}

/* A callback lives on the host: its rows go down, energies and gradients come up. */
static vgs_status device_energy(device *d, const vgs_call *c, vgs_error *err)
{
    size_t n = (size_t)c->in[0].rows, dim = (size_t)c->in[0].cols;
    float *x = (float *)malloc((n * (2 * dim + 1) + 1) * sizeof *x), *g = x + n * dim, *e = g + n * dim;
    vgs_status st = device_download(d, x, c->in[0].buf, c->in[0].offset, n * dim, VGS_F32, err);
    d->energies += (long)n;
    if (st == VGS_OK) st = vgs_energy_eval(c->energy, x, (int)n, e, c->out2.buf ? g : NULL, 1, err);
    if (st == VGS_OK) st = device_upload(d, c->out.buf, c->out.offset, e, n, VGS_F32, err);
    if (st == VGS_OK && c->out2.buf)
        st = device_upload(d, c->out2.buf, c->out2.offset, g, n * dim, VGS_F32, err);
    free(x);
    return st;
}

static vgs_status device_run(void *self, const vgs_call *call, vgs_error *err)
{
    device *d = (device *)self;
    vgs_call c = *call;
    int k;
    d->launches++;
    if (c.op == VGS_OP_ENERGY) return device_energy(d, call, err);
    c.out = translate(d, c.out);
    c.out2 = translate(d, c.out2);
    for (k = 0; k < VGS_MAX_IN; ++k) c.in[k] = translate(d, c.in[k]);
    if (d->faults) return vgs__fail(err, VGS_E_DEVICE, "%s: outside of its buffers", vgs_op_name(call->op));
    return vgs_cpu_run(d->cpu, &c, err);
}

static vgs_status device_finish(void *self, vgs_error *err)
{
    (void)err;
    ((device *)self)->finishes++;
    return VGS_OK;
}

static void device_start(device *d)
{
    memset(d, 0, sizeof *d);
    d->cpu = vgs_cpu_create(NULL, NULL);
    d->base.self = d;
    d->base.buffer_create = device_create;
    d->base.buffer_free = device_free;
    d->base.upload = device_upload;
    d->base.download = device_download;
    d->base.run = device_run;
    d->base.finish = device_finish;
}

static void forget_counts(device *d)
{
    d->created = d->up = d->down = d->up_bytes = d->down_bytes = d->launches = d->energies = d->finishes =
        d->largest_down = 0;
}

/* ---- energies ------------------------------------------------------------------------------------- */

/* four Gaussians of variance 1/4 at (+-1, +-1), recorded: -logsumexp(-2 |x - c|^2) */
static vgs_var mixture(void *user, vgs_graph *g, vgs_var x)
{
    static const float centre[4][2] = { { -1, -1 }, { -1, 1 }, { 1, -1 }, { 1, 1 } };
    vgs_var all = { 0 };
    int k;
    (void)user;
    for (k = 0; k < 4; ++k) {
        vgs_var q = vgs_sum_cols(g, vgs_square(g, vgs_sub(g, x, vgs_table(g, centre[k], 1, 2))));
        q = vgs_affine(g, q, -2, 0);
        all = k ? vgs_concat(g, all, q) : q;
    }
    return vgs_affine(g, vgs_logsumexp(g, all), -1, 0);
}

static int ring(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)user;
    for (i = 0; i < n; ++i) {
        float a = x[i * dim], b = x[i * dim + 1], u = a * a + b * b - 4.0f;
        e[i] = u * u;
        if (g) { g[i * dim] = 4.0f * u * a; g[i * dim + 1] = 4.0f * u * b; }
    }
    return 0;
}

static vgs_config config_of(bool recorded)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    if (recorded) c.energy.record = mixture; else c.energy.eval = ring;
    c.energy.dim = 2;
    c.length_scale = 2;
    c.coordinates = VGS_PLAIN;
    c.steps = 6;
    c.batch = 32;
    c.passes = 2;
    c.sigma_lr = 1e-2f;
    c.target_ema = 0.5f;
    c.replay = 2;
    c.slope_loss = 1;
    c.local_noise = true;
    c.net.hidden = 24;
    c.net.time_dim = 8;
    c.seed = 11;
    return c;
}

static void get_weights(vgs_sampler *s, float *w)
{
    int p = vgs_model_size(s->target);
    OK(!vgs_model_read(s->online, w, NULL) && !vgs_model_read(s->target, w + p, NULL));
    OK(!s->b->download(s->b->self, w + 2 * p, s->sigma, 0, 64, VGS_F32, NULL));
}

/* Five iterations and a draw on both backends: the same bits. */
static void same_bits(bool recorded)
{
    static float w[2][20000], x[2][600 * 2];
    device d;
    vgs_error err = { VGS_OK, "" };
    int k, p = 0;
    device_start(&d);
    for (k = 0; k < 2; ++k) {
        vgs_config c = config_of(recorded);
        vgs_sampler *s;
        c.correct = 2;
        c.backend = k ? &d.base : NULL;
        s = vgs_sampler_create(&c, &err);
        if (!CHECK(s != NULL, "%s", err.msg)) return;
        p = vgs_model_size(s->target);
        OK(2 * p + 64 <= 20000);
        CHECK(vgs_sampler_train(s, 5, NULL, &err) == VGS_OK, "%s", err.msg);
        get_weights(s, w[k]);
        CHECK(vgs_sampler_draw(s, NULL, 600, x[k], &err) == VGS_OK, "%s", err.msg);
        vgs_sampler_free(s);
    }
    OK(!memcmp(w[0], w[1], (size_t)(2 * p + 64) * sizeof(float)));
    OK(!memcmp(x[0], x[1], sizeof x[0]));
    OK(d.faults == 0 && d.alive == 0 && d.finishes > 0);
    vgs_cpu_free(d.cpu);
}

static void bits_recorded(void) { same_bits(true); }
static void bits_callback(void) { same_bits(false); }

/* |x|^2 and a network of `user`, a model */
static vgs_var modelled(void *user, vgs_graph *g, vgs_var x)
{
    const vgs_var none = { 0 };
    vgs_var v = vgs_model_apply(g, (vgs_model *)user, x, none);
    return vgs_add(g, v, vgs_sum_cols(g, vgs_square(g, x)));
}

static vgs_model *model_on(vgs_backend *b)
{
    vgs_net_config c;
    memset(&c, 0, sizeof c);
    c.dim = 2;
    c.hidden = 8;
    c.layers = 1;
    return vgs_model_create(&c, b, 3, NULL);
}

/* Launches of n runs of a stage. Its prologue runs once for each of so many changes of V and Vbar, if it
   applies one of them, and else only where something else made it anew: the first time, or the energy. */
static long launches(const vgs_sampler *s, const vgs_graph *g, long n, long changes)
{
    bool again;
    int k;
    if (!g || !n) return 0;
    again = g->dirty;
    for (k = 0; k < g->n_model; ++k) {
        const vgs__node *m = &g->node[g->model_node[k]];
        if (m->op != VGS_OP_PARAMS) continue;
        if (m->model != s->online && m->model != s->target) again = again || m->seen != m->model->version;
        else return n * vgs_graph_ops(g, false) + changes * vgs_graph_ops(g, true);
    }
    return n * vgs_graph_ops(g, false) + again * vgs_graph_ops(g, true);
}

/* Those of the next iteration, without `refine`: V changes at every minibatch, Vbar once. */
static long budget(const vgs_sampler *s)
{
    const struct vgs__stages *a = s->stage;
    vgs__detour detour = vgs__replay_detour(s);
    long t = s->c.steps, batches = s->c.passes * t, first = detour.steps, factors = 0, factors_last = 0, k;
    bool fresh = s->c.published;
    for (k = (long)(s->iteration % VGS__FACTOR_STRIDE); k < t; k += VGS__FACTOR_STRIDE)
        if (k == t - 1) factors_last++;
        else factors++;
    return launches(s, a->start.g, !detour.recalled, 1) + launches(s, a->step.g, t - 1, 1) +
           launches(s, a->last.g, 1, 1) + launches(s, a->return_step.g, t - 1 - first, 1) +
           launches(s, a->return_last.g, 1, 1) + launches(s, a->grad.g, t - 1, 1) +
           launches(s, a->fresh_step.g, fresh ? s->c.passes * (t - 1) : first, 1) +
           launches(s, a->fresh_last.g, s->c.passes, 1) + launches(s, a->fd.g, batches, batches) +
           launches(s, a->fit.g, batches, batches) + launches(s, a->ema.g, 1, 1) +
           launches(s, a->sigma_fit.g, 1, 1) + launches(s, a->factor_step.g, factors, 1) +
           launches(s, a->factor_last.g, factors_last, 1) + launches(s, a->keep.g, !first, 1) +
           launches(s, a->recall.g, detour.recalled, 1) +
           launches(s, a->back.g, detour.recalled ? first + 1 : 0, 1);
}

/* One iteration, at once or in its parts: no upload, no new buffer, no memory of the host; the flag comes up,
   of parts once for each. */
static void iterate(vgs_sampler *s, device *d, bool in_parts)
{
    vgs_error err = { VGS_OK, "" };
    long want = budget(s), flags = in_parts ? 2 : 1;
    forget_counts(d);
    allocations = 0;
    if (!in_parts) CHECK(!vgs_sampler_train(s, 1, NULL, &err), "%s", err.msg);
    else CHECK(!vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err) && !vgs_sampler_fit(s, &err), "%s",
               err.msg);
    CHECK(d->up == 0 && d->created == 0 && allocations == 0, "%ld uploads, %ld new buffers, %ld allocations",
          d->up, d->created, allocations);
    CHECK(d->down == flags && d->down_bytes == 16 * flags, "%ld downloads of %ld bytes", d->down,
          d->down_bytes);
    CHECK(d->launches == want, "%ld launches, %ld are what it takes", d->launches, want);
}

static void steady_recorded(vgs_config *c, device *d, bool published)
{
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    int k, recalled = 0;
    if (!CHECK(s != NULL, "%s", err.msg)) return;
    CHECK(vgs_sampler_bytes(s) > 0 && d->created == d->alive, "%ld buffers", d->alive);
    OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK);
    for (k = 0; k < 10; ++k) {                   /* every stage has its turn                          */
        recalled += vgs__replay_detour(s).recalled;
        iterate(s, d, k > 1 && k % 2);
        if (k == 0)
            printf("launches per iteration: %ld (steps %d, passes %d, mlp %d wide)\n", d->launches, c->steps,
                   c->passes, c->net.hidden);
    }
    OK(published ? recalled == 0 : recalled > 2 && recalled < 8);
    vgs_sampler_free(s);
}

/* An energy that is a model costs as little; after a change of it its own prologues run again, no others. */
static void steady_modelled(vgs_config *c, device *d)
{
    float w[128];
    vgs_error err = { VGS_OK, "" };
    vgs_model *m = model_on(&d->base);
    vgs_sampler *s;
    long k;
    c->energy.record = modelled;
    c->energy.user = m;
    s = vgs_sampler_create(c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) return;
    OK(vgs_model_size(m) <= 128 && !vgs_model_read(m, w, &err));
    OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_OK);
    for (k = 0; k < 6; ++k) {
        if (k % 2) w[0] += 0.5f;
        if (k % 2) OK(!vgs_model_write(m, w, &err));
        iterate(s, d, k > 1);
    }
    vgs_sampler_free(s);
    vgs_model_free(m);
}

/* With a callback its rows move, and nothing else. */
static void steady_callback(vgs_config *c, device *d, bool published)
{
    int calls = published ? 3 : 2;               /* the rollout's last step; each pass, or its end    */
    int slopes = published ? 1 : 2;              /* those of them that tell the gradient              */
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s;
    c->energy.record = NULL;
    c->energy.eval = ring;
    s = vgs_sampler_create(c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) return;
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_OK);
    forget_counts(d);
    OK(vgs_sampler_train(s, 1, NULL, &err) == VGS_OK);
    OK(d->energies == calls * 32);
    CHECK(d->up == calls + slopes && d->up_bytes == 4 * (calls * 32 + slopes * 64),
          "callback: %ld uploads of %ld bytes", d->up, d->up_bytes);
    CHECK(d->down == calls + 1 && d->down_bytes == 16 + 4 * calls * 64 && d->created == 0,
          "callback: %ld downloads of %ld bytes", d->down, d->down_bytes);
    vgs_sampler_free(s);
}

static void steady_iteration(void)
{
    int published;
    for (published = 0; published < 2; ++published) {
        device d;
        vgs_config c = config_of(true);
        T_IN(published ? "published" : "returns");
        c.published = published;
        if (published) c.replay = 0, c.slope_loss = 0, c.local_noise = false;
        device_start(&d);
        c.backend = &d.base;
        steady_recorded(&c, &d, published);
        steady_modelled(&c, &d);
        steady_callback(&c, &d, published);
        OK(d.alive == 0 && d.faults == 0);
        vgs_cpu_free(d.cpu);
    }
}

/* ---- energies that learn ---------------------------------------------------------------------------- */

enum { EBM_ROWS = 64, EBM_BATCH = 16 };
static const struct { vgs_ebm_objective objective; bool sphere; int uploads; } learners[] = {
    { VGS_CD, false, 2 },                        /* the batch, and the rows that starts are made of   */
    { VGS_CD, true, 2 },  { VGS_GCD, false, 1 }, { VGS_DXMI, false, 1 }, { VGS_PERSISTENT, false, 1 },
    { VGS_DISCREPANCY, false, 1 } };
enum { LEARNERS = (int)(sizeof learners / sizeof *learners) };

static vgs_ebm *learner(int k, vgs_backend *b)
{
    vgs_error err = { VGS_OK, "" };
    vgs_ebm_config c;
    vgs_ebm *m;
    memset(&c, 0, sizeof c);
    c.objective = learners[k].objective;
    c.net.dim = 3;
    c.net.hidden = 8;
    if (learners[k].sphere) c.net.kind = VGS_NET_AUTOENCODER;
    c.langevin_steps = c.ed_samples = 3;
    c.sampler.on_sphere = learners[k].sphere;
    c.sampler.batch = EBM_BATCH;
    c.sampler.steps = 4;
    c.sampler.net.hidden = c.sampler.policy.hidden = 8;
    c.sampler.net.time_dim = c.sampler.policy.time_dim = 4;
    c.sampler.backend = b;
    m = vgs_ebm_create(&c, &err);
    CHECK(m != NULL, "%s", err.msg);
    return m;
}

/* One iteration: the data rows go up, flags come down, and nothing else. */
static void learn_steadily(vgs_ebm *m, const vgs_data *data, device *d, int uploads)
{
    vgs_error err = { VGS_OK, "" };
    forget_counts(d);
    allocations = 0;
    CHECK(!vgs_ebm_train(m, data, 1, NULL, &err), "%s", err.msg);
    CHECK(d->up == uploads && d->up_bytes == (long)uploads * EBM_BATCH * data->dim * 4,
          "%ld uploads of %ld bytes", d->up, d->up_bytes);
    CHECK(d->created == 0 && allocations == 0, "%ld new buffers, %ld allocations", d->created, allocations);
    CHECK(d->down >= 1 && d->down_bytes == 16 * d->down, "%ld downloads of %ld bytes", d->down,
          d->down_bytes);
}

static void ebm(void)
{
    static float x[EBM_ROWS * 3], w[2][4000], draws[2][20 * 3], e[2][20];
    vgs_data data = { NULL, NULL, NULL, EBM_ROWS, 3 };
    vgs_error err = { VGS_OK, "" };
    vgs_rng r = { 1, 0, 0 };
    int k, side, i;
    vgs_rng_normals(&r, x, EBM_ROWS * 3);
    data.x = x;
    for (k = 0; k < LEARNERS; ++k) {
        device d;
        device_start(&d);
        T_IN("objective %d%s", (int)learners[k].objective, learners[k].sphere ? ", on the sphere" : "");
        for (side = 0; side < 2; ++side) {
            vgs_ebm *m = learner(k, side ? &d.base : NULL);
            if (!m) continue;
            OK(vgs_model_size(vgs_ebm_model(m, true)) <= 4000);
            CHECK(!vgs_ebm_train(m, &data, 2, NULL, &err), "%s", err.msg);
            for (i = 0; i < 3; ++i)
                if (side) learn_steadily(m, &data, &d, learners[k].uploads);
                else OK(!vgs_ebm_train(m, &data, 1, NULL, &err));
            OK(!vgs_model_read(vgs_ebm_model(m, true), w[side], &err));
            CHECK(!vgs_ebm_sample(m, NULL, 20, draws[side], &err) &&
                  !vgs_ebm_score(m, draws[side], 20, e[side], &err), "%s", err.msg);
            vgs_ebm_free(m);
        }
        OK(!memcmp(w[0], w[1], sizeof w[0]) && !memcmp(draws[0], draws[1], sizeof draws[0]));
        OK(!memcmp(e[0], e[1], sizeof e[0]) && d.faults == 0 && d.alive == 0);
        vgs_cpu_free(d.cpu);
    }
}

/* A draw of n rows fetches them once; extras fetch what they ask for. */
static void draw_traffic(void)
{
    static float x[40 * 2], path[7 * 40 * 2];
    device d;
    vgs_config c = config_of(true);
    vgs_draw draw;
    double log_weight[40];
    vgs_sampler *s;
    device_start(&d);
    c.backend = &d.base;
    s = vgs_sampler_create(&c, NULL);
    forget_counts(&d);
    OK(vgs_sampler_draw(s, NULL, 40, x, NULL) == VGS_OK);
    CHECK(d.up == 0 && d.created == 0 && d.down == 2 && d.down_bytes == 16 + 40 * 2 * 4, "%ld up, %ld down",
          d.up, d.down_bytes);
    memset(&draw, 0, sizeof draw);
    draw.path = path;
    draw.log_weight = log_weight;
    forget_counts(&d);
    OK(vgs_sampler_draw(s, &draw, 40, x, NULL) == VGS_OK);
    CHECK(d.down == 2 + 7 + 6 + 3 + 1, "%ld downloads", d.down);   /* s0, factors, x_0, E */
    vgs_sampler_free(s);
    vgs_cpu_free(d.cpu);
}

/* The prologue (what depends on parameters and tables) runs again after touch and bind of parameters only. */
static void prologue_runs_once(void)
{
    static const float table[6] = { 1, 2, 3, 4, 5, 6 };
    static const int32_t t[2] = { 1, 2 };
    device d;
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var p, x, idx, y, out;
    vgs_buffer *b, *in;
    float v[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
    long body, all;
    device_start(&d);
    p = vgs_params(g, 4);
    x = vgs_input(g, 2);
    idx = vgs_index(g);
    out = vgs_state(g, 1, 2, VGS_F32);
    y = vgs_linear(g, vgs_table(g, table, 3, 2), vgs_view(g, p, 0, 2, 2, 2), vgs_view(g, p, 0, 1, 2, 2));
    y = vgs_mul(g, vgs_gather(g, vgs_tanh(g, y), idx), x);
    vgs_output(g, y);
    OK(vgs_graph_compile(g, &d.base, 2, NULL) == VGS_OK);
    body = vgs_graph_ops(g, false);
    all = body + vgs_graph_ops(g, true);
    OK(body > 0 && all > body);
    OK(!vgs_set(g, p, v, 1, NULL) && !vgs_set(g, x, v, 2, NULL) && !vgs_set(g, idx, t, 2, NULL));
    forget_counts(&d);
    OK(!vgs_graph_run(g, 2, NULL) && d.launches == all);
    OK(!vgs_graph_run(g, 2, NULL) && d.launches == all + body);
    OK(!vgs_set(g, x, v, 2, NULL) && !vgs_graph_run(g, 2, NULL) && d.launches == all + 2 * body);
    vgs_graph_touch(g);
    OK(!vgs_graph_run(g, 2, NULL) && d.launches == 2 * all + 2 * body);
    in = d.base.buffer_create(&d, 4, NULL);
    OK(!vgs_bind(g, x, in, 0, NULL) && !vgs_graph_run(g, 2, NULL));
    CHECK(d.launches == 2 * all + 3 * body, "binding an input ran the prologue again: %ld launches",
          d.launches - 2 * all - 2 * body);
    b = d.base.buffer_create(&d, 4, NULL);
    forget_counts(&d);
    OK(!vgs_bind(g, p, b, 0, NULL) && !vgs_graph_run(g, 2, NULL) && d.launches == all);
    (void)out;
    vgs_graph_free(g);
    d.base.buffer_free(&d, b);
    d.base.buffer_free(&d, in);
    OK(d.faults == 0 && d.alive == 0);
    vgs_cpu_free(d.cpu);
}

/* Every function of the backend fails once: the status arrives, nothing stays behind. */
static struct { device d; long fail_at, calls; } weak;

static bool weak_call(vgs_error *err)
{
    if (weak.calls++ != weak.fail_at) return false;
    vgs__fail(err, VGS_E_DEVICE, "the device is gone");
    return true;
}
static vgs_buffer *weak_create(void *self, size_t n, vgs_error *err)
{
    return weak_call(err) ? NULL : device_create(self, n, err);
}
static vgs_status weak_upload(void *self, vgs_buffer *b, size_t o, const void *p, size_t n, vgs_type t,
                              vgs_error *err)
{
    return weak_call(err) ? VGS_E_DEVICE : device_upload(self, b, o, p, n, t, err);
}
static vgs_status weak_download(void *self, void *p, vgs_buffer *b, size_t o, size_t n, vgs_type t,
                                vgs_error *err)
{
    return weak_call(err) ? VGS_E_DEVICE : device_download(self, p, b, o, n, t, err);
}
static vgs_status weak_run(void *self, const vgs_call *c, vgs_error *err)
{
    return weak_call(err) ? VGS_E_DEVICE : device_run(self, c, err);
}
static vgs_status weak_finish(void *self, vgs_error *err)
{
    return weak_call(err) ? VGS_E_DEVICE : device_finish(self, err);
}

static void failing_device(void)
{
    bool done = false;
    vgs_config c = config_of(true);
    vgs_stats stats;
    float x[64];
    c.steps = 2;
    c.batch = 4;
    c.passes = 1;
    device_start(&weak.d);
    weak.d.base.buffer_create = weak_create;
    weak.d.base.upload = weak_upload;
    weak.d.base.download = weak_download;
    weak.d.base.run = weak_run;
    weak.d.base.finish = weak_finish;
    c.backend = &weak.d.base;
    for (weak.fail_at = 0; !done && weak.fail_at < 2000; ++weak.fail_at) {
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *s;
        bool ok;
        weak.calls = 0;
        s = vgs_sampler_create(&c, &err);
        ok = s && !vgs_sampler_train(s, 1, &stats, &err) && !vgs_sampler_draw(s, NULL, 8, x, &err);
        done = weak.calls <= weak.fail_at;
        T_IN("call %ld of the backend fails", weak.fail_at);
        CHECK(ok == done && (ok || (err.code == VGS_E_DEVICE && strstr(err.msg, "device is gone"))), "%s",
              err.msg);
        vgs_sampler_free(s);
        if (!CHECK(weak.d.alive == 0 && weak.d.faults == 0, "%ld buffers left", weak.d.alive)) break;
    }
    OK(done);
    vgs_cpu_free(weak.d.cpu);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(bits_recorded);
    RUN(bits_callback);
    RUN(steady_iteration);
    RUN(draw_traffic);
    RUN(ebm);
    RUN(prologue_runs_once);
    RUN(failing_device);
    return t_end();
}
