/* cc -O2 tests/oom.c -o oom -lm && ./oom
   Memory that runs out at the n-th allocation, for n = 1, 2, 3 ... until all goes well: each time an error,
   nothing left allocated, and what was there before still works. */
#include "weak.h"
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/metrics.h"
#include "t.h"

#define PATH "oom.safetensors"

static vgs_error err;

static vgs_config config_of(vgs_net_kind kind)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find(kind == VGS_NET_EGNN ? "dw4" : "gmm9"));
    c.net.kind = kind;
    c.net.hidden = 4;
    c.net.time_dim = 4;
    c.steps = 2;
    c.batch = 4;
    c.sigma_lr = 1e-3f;
    c.replay = 2;
    c.slope_loss = 1;
    c.local_noise = true;
    c.threads = 1;
    return c;
}

static bool life_of(vgs_net_kind kind)
{
    vgs_config c = config_of(kind);
    vgs_sampler *s;
    vgs_stats stats;
    vgs_draw d;
    float x[40], path[3 * 40];
    double log_weight[5];
    bool ok;
    memset(&d, 0, sizeof d);
    d.path = path;
    d.log_weight = log_weight;
    c.net.windows = 2;
    s = vgs_sampler_create(&c, &err);
    ok = s && !vgs_sampler_train(s, 1, &stats, &err) && !vgs_sampler_draw(s, &d, 5, x, &err);
    vgs_sampler_free(s);
    return ok;
}
static bool sampler_mlp(void) { return life_of(VGS_NET_MLP); }
static bool sampler_egnn(void) { return life_of(VGS_NET_EGNN); }

/* Weights in both directions, and a population that resamples, with corrections. */
static bool weights(void)
{
    vgs_config c = config_of(VGS_NET_MLP);
    vgs_sampler *s = vgs_sampler_create(&c, &err);
    float x[10];
    double log_weight[5];
    vgs_draw d;
    vgs_weights w;
    vgs_draw back;
    vgs_forward f;
    bool ok;
    memset(&d, 0, sizeof d);
    memset(&back, 0, sizeof back);
    back.correct = 1;
    d.log_weight = log_weight;
    d.resample = 1;
    d.correct = 1;
    ok = s && !vgs_sampler_draw(s, &d, 5, x, &err) && !vgs_weigh(log_weight, 5, &w, &err) &&
         !vgs_sampler_score(s, &back, 5, x, log_weight, &err) && !vgs_weigh_forward(log_weight, 5, &f, &err);
    vgs_sampler_free(s);
    return ok;
}

static vgs_var recorded(void *user, vgs_graph *g, vgs_var x)
{
    (void)user;
    return vgs_sum_cols(g, vgs_square(g, x));
}

static bool sampler_recorded(void)
{
    vgs_config c = config_of(VGS_NET_TEMB);
    vgs_sampler *s;
    vgs_stats stats;
    bool ok;
    memset(&c.energy, 0, sizeof c.energy);
    c.energy.record = recorded;
    c.energy.dim = 2;
    s = vgs_sampler_create(&c, &err);
    ok = s && !vgs_sampler_train(s, 1, &stats, &err);
    vgs_sampler_free(s);
    return ok;
}

/* A sampler of before, whose memory never fails; saving and loading leave it as it was. */
static vgs_sampler *old;

static bool save(void)
{
    return !vgs_sampler_save(old, PATH, NULL, &err);
}

static bool load(void)
{
    return !vgs_sampler_load(old, PATH, &err);
}

static bool checkpoint_config(void)
{
    vgs_config c;
    int count;
    memset(&c, 0, sizeof c);
    return !vgs_checkpoint_config(PATH, &c, &count, &err);
}

/* ---- models, and energies that have one ---- */

static vgs_net_config net_of(void)
{
    vgs_net_config c;
    memset(&c, 0, sizeof c);
    c.dim = 2;
    c.hidden = 4;
    c.layers = 1;
    return c;
}

/* A network, trained by one step, saved and loaded; then an average of it. */
static bool model(void)
{
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_net_config c = net_of();
    vgs_model *m = cpu ? vgs_model_create(&c, cpu, 1, &err) : NULL;
    vgs_model *average = m ? vgs_model_create(&c, cpu, 2, &err) : NULL;
    vgs_graph *g = average ? vgs_graph_create(&err) : NULL;
    const float x[4] = { 1, 2, 3, 4 };
    vgs_var in, none = { 0 };
    bool ok = false;
    if (g) {
        in = vgs_input(g, 2);
        vgs_descend(g, vgs_mean_rows(g, vgs_square(g, vgs_model_apply(g, m, in, none))), m,
                    vgs_scalar_create(g, 1e-3), 1);
        vgs_ema(g, average, m, 0.5f);
        ok = !vgs_graph_compile(g, cpu, 2, &err) && !vgs_set(g, in, x, 2, &err) &&
             !vgs_graph_run(g, 2, &err) && !vgs_model_check(m, &err) &&
             !vgs_model_save(m, "oom.model", &err) && !vgs_model_load(average, "oom.model", &err);
    }
    vgs_graph_free(g);
    vgs_model_free(average);
    vgs_model_free(m);
    vgs_cpu_free(cpu);
    return ok;
}

static bool model_of_arrays(void)
{
    static const vgs_param_info arrays[2] = { { "scale", 0, 0, 3 }, { "mix", 0, 2, 2 } };
    static const float w[7] = { 1, 2, 3, 4, 5, 6, 7 };
    float read[7], moment[7];
    int64_t step;
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_model *m = cpu ? vgs_model_create_arrays(arrays, 2, w, cpu, &err) : NULL;
    bool ok = m && !vgs_model_save(m, "oom.model", &err) && !vgs_model_load(m, "oom.model", &err) &&
              !vgs_model_read(m, read, &err) && !vgs_model_read_adam(m, moment, moment, &step, &err) &&
              !vgs_model_write_adam(m, w, w, 3, &err);
    vgs_model_free(m);
    vgs_cpu_free(cpu);
    return ok;
}

/* E = |x|^2 + a network of `user`, a model */
static vgs_var modelled(void *user, vgs_graph *g, vgs_var x)
{
    const vgs_var none = { 0 };
    vgs_var v = vgs_model_apply(g, (vgs_model *)user, x, none);
    return vgs_add(g, v, vgs_sum_cols(g, vgs_square(g, x)));
}

/* E = k |x|^2 with a parameter that the energy has bound by itself */
static vgs_buffer *bare_k;
static vgs_var bare(void *user, vgs_graph *g, vgs_var x)
{
    vgs_var k = vgs_params(g, 1);
    (void)user;
    vgs_bind(g, k, bare_k, 0, NULL);
    return vgs_mul(g, vgs_sum_cols(g, vgs_square(g, x)), vgs_view(g, k, 0, 1, 1, 1));
}

/* The parts of an iteration, a value, a draw from given rows, and E itself; the energy is a model. */
static bool sampler_parts(void)
{
    static const float rows[8] = { 0, 1, 1, 0, 2, 1, 1, 2 };
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_net_config net = net_of();
    vgs_config c = config_of(VGS_NET_MLP);
    vgs_model *m = cpu ? vgs_model_create(&net, cpu, 1, &err) : NULL;
    vgs_sampler *s;
    vgs_draw d;
    vgs_stats stats;
    float x[8], v[4], g[8];
    bool ok;
    memset(&d, 0, sizeof d);
    memset(&c.energy, 0, sizeof c.energy);
    d.start = rows;
    d.energy = v;
    c.energy.record = modelled;
    c.energy.user = m;
    c.energy.dim = 2;
    c.energy.backend = c.backend = cpu;
    s = m ? vgs_sampler_create(&c, &err) : NULL;
    ok = s && !vgs_sampler_rollout(s, VGS_START_ROWS, rows, &err) && !vgs_sampler_fit(s, &err) &&
         !vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err) && !vgs_sampler_stats(s, &stats, &err) &&
         !vgs_sampler_value(s, 1, rows, 4, v, NULL, &err) && !vgs_sampler_value(s, 0, rows, 4, v, g, &err) &&
         !vgs_sampler_draw(s, &d, 4, x, &err) && !vgs_energy_eval(&c.energy, rows, 4, v, g, 1, &err);
    vgs_sampler_free(s);
    vgs_model_free(m);
    vgs_cpu_free(cpu);
    return ok;
}

static bool sampler_touch(void)
{
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_config c = config_of(VGS_NET_TEMB);
    vgs_sampler *s = NULL;
    float k = 1;
    bool ok;
    memset(&c.energy, 0, sizeof c.energy);
    c.energy.record = bare;
    c.energy.dim = 2;
    c.backend = cpu;
    bare_k = cpu ? cpu->buffer_create(cpu->self, 1, &err) : NULL;
    ok = bare_k && !cpu->upload(cpu->self, bare_k, 0, &k, 1, VGS_F32, &err) &&
         (s = vgs_sampler_create(&c, &err)) != NULL;
    k = 2;
    ok = ok && !cpu->upload(cpu->self, bare_k, 0, &k, 1, VGS_F32, &err) && !vgs_sampler_touch(s, &err) &&
         !vgs_sampler_train(s, 1, NULL, &err);
    vgs_sampler_free(s);
    if (cpu) cpu->buffer_free(cpu->self, bare_k);
    vgs_cpu_free(cpu);
    return ok;
}

/* An energy that learns, saved and loaded; its starts are kept. */
static bool ebm(void)
{
    static const float rows[16] = { 0, 1, 1, 0, 2, 1, 1, 2, 0, 3, 1, 1, 2, 2, 3, 1 };
    vgs_data data = { NULL, NULL, NULL, 8, 2 };
    vgs_ebm_config c;
    vgs_ebm *m, *n;
    vgs_ebm_stats stats;
    float x[8], e[4];
    bool ok;
    memset(&c, 0, sizeof c);
    data.x = rows;
    c.objective = VGS_CD;
    c.fit = 1;
    c.net.kind = VGS_NET_AUTOENCODER;
    c.net.dim = 2;
    c.net.hidden = c.sampler.net.hidden = c.sampler.net.time_dim = 4;
    c.net.layers = c.sampler.net.layers = 1;
    c.sampler.steps = 2;
    c.sampler.batch = 4;
    c.sampler.threads = 1;
    m = vgs_ebm_create(&c, &err);
    n = m ? vgs_ebm_create(&c, &err) : NULL;
    ok = n && !vgs_ebm_fit(m, &data, 1, NULL, &err) && !vgs_ebm_train(m, &data, 1, &stats, &err) &&
         !vgs_ebm_save(m, "oom.ebm", NULL, &err) && !vgs_ebm_load(n, "oom.ebm", &err) &&
         !vgs_ebm_average(n, &err) && !vgs_ebm_sample(n, NULL, 4, x, &err) &&
         !vgs_ebm_score(n, x, 4, e, &err);
    vgs_ebm_free(m);
    vgs_ebm_free(n);
    return ok;
}

/* Ninety ops, so that the list of nodes must grow. */
static bool graph(void)
{
    static const int32_t which[3] = { 1, 0, 1 };
    static const float table[4] = { 1, 2, 3, 4 }, zeros[20] = { 0 };
    vgs_backend *cpu = vgs_cpu_create(NULL, &err);
    vgs_graph *g = cpu ? vgs_graph_create(&err) : NULL;
    vgs_var x, y, p, grad, gx;
    bool ok = false;
    int k;
    if (g) {
        x = y = vgs_input(g, 4);
        p = vgs_params(g, 8);
        grad = vgs_state(g, 1, 8, VGS_F32);
        for (k = 0; k < 20; ++k)
            y = vgs_tanh(g, vgs_affine_by(g, y, vgs_scalar_create(g, 1.1), vgs_scalar_create(g, 0)));
        for (k = 0; k < 30; ++k) vgs_scalar_create(g, k);
        y = vgs_linear(g, y, vgs_view(g, p, 0, 2, 4, 4), vgs_table(g, table, 1, 2));
        y = vgs_segment_sum(g, vgs_segment_gather(g, vgs_reshape(g, y, 1), 2, which, 3), 2, which, 3);
        vgs_gradient(g, y, &x, 1, &gx);
        vgs_gradient_params(g, y, p, grad);
        vgs_output(g, gx);
        ok = vgs_graph_compile(g, cpu, 5, &err) == VGS_OK && vgs_set(g, x, zeros, 5, &err) == VGS_OK &&
             vgs_set(g, p, zeros, 5, &err) == VGS_OK && vgs_graph_run(g, 5, &err) == VGS_OK;
        vgs_graph_free(g);
    }
    vgs_cpu_free(cpu);
    return ok;
}

static bool energy_check(void)
{
    static const float x[4] = { 1, 2, 3, 4 };
    vgs_energy e = target_energy(target_find("gmm9"));
    double worst;
    return !vgs_energy_check(&e, x, 2, &worst, &err);
}

static bool evaluate(const char *name)
{
    const target *t = target_find(name);
    float x[2][6 * 8];
    metrics m;
    int i;
    for (i = 0; i < 6 * 8; ++i) { x[0][i] = (float)(i % 7) - 3; x[1][i] = (float)(i % 5) - 2; }
    return !metrics_evaluate(t, x[0], 6, x[1], 6, 1, &m, &err);
}
static bool evaluate_points(void) { return evaluate("gmm9"); }
static bool evaluate_particles(void) { return evaluate("dw4"); }

static bool evaluate_floor(void)
{
    metrics mean, spread;
    int n;
    return !metrics_floor(target_find("gmm9"), 3, NULL, 0, 1, 1, &mean, &spread, &n, &err);
}

static bool npy(void)
{
    static const float x[6] = { 1, 2, 3, 4, 5, 6 };
    float *y = NULL;
    int rows, cols;
    bool ok = !vgs_npy_write("oom.npy", x, 2, 3, &err) && !vgs_npy_read("oom.npy", &y, &rows, &cols, &err);
    ok = ok && rows == 2 && cols == 3 && !memcmp(x, y, sizeof x);
    vgs_free(y);
    return ok;
}

static bool npy_fortran(void)
{
    static const char file[] = "\x93NUMPY\x01\x00\x38\x00"
        "{'descr':'<f4','fortran_order': True,'shape': (2, 1),}  " "\0\0\0\0\0\0\0";
    float *y = NULL;
    int rows, cols;
    bool ok = !vgs_file_write("oom.npy", file, sizeof file, &err) &&
              !vgs_npy_read("oom.npy", &y, &rows, &cols, &err);
    ok = ok && rows == 2 && cols == 1;
    vgs_free(y);
    return ok;
}

static bool metropolis_of(const char *name)
{
    metropolis_config c;
    metropolis_stats stats;
    float x[4 * 39];
    memset(&c, 0, sizeof c);
    c.target = target_find(name);
    c.chains = 2;
    c.burn_in = 2;
    c.thin = 1;
    c.threads = 1;
    return !metropolis(&c, 4, x, &stats, &err);
}
static bool metropolis_points(void) { return metropolis_of("gmm9"); }
static bool metropolis_particles(void) { return metropolis_of("lj13"); }

static bool mcmc_of(vgs_mcmc_method method)
{
    vgs_mcmc_config c;
    vgs_mcmc_stats stats;
    float x[8 * 8];
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find("dw4"));
    c.method = method;
    c.chains = 2;
    c.burn_in = 32;
    c.thin = 1;
    c.threads = 1;
    c.shuffle = true;
    return !vgs_mcmc(&c, 8, x, &stats, &err);
}
static bool mcmc_hmc(void) { return mcmc_of(VGS_HMC); }
static bool mcmc_pt(void) { return mcmc_of(VGS_PT); }

static bool refine(void)
{
    static const double w[3] = { 0, 1, 2 };
    vgs_mcmc_config c;
    vgs_mcmc_stats stats;
    float x[3 * 2] = { 0, 0, 1, 1, 2, 2 };
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find("gmm9"));
    c.method = VGS_MALA;
    return !vgs_refine(&c, 4, w, 3, x, &stats, &err);
}

static bool reference(void)
{
    float x[3 * 10];
    return !target_reference(target_find("funnel"), 1, 3, x, 1, &err);
}

static bool preset(void)
{
    vgs_config c;
    preset_info info;
    vgs__net *net;
    bool ok =
        !preset_fill(target_find("lj13"), "paper", &c, &info, &err) && !vgs_config_resolve(&c, &c, &err);
    net = ok ? vgs__net_create(&c.net, &err) : NULL;
    vgs__net_free(net);
    return net != NULL;
}

static float *weights_of(const vgs_sampler *s)
{
    float *w = (float *)malloc((size_t)vgs_model_size(s->online) * sizeof *w);
    vgs_model_read(s->online, w, NULL);
    return w;
}

/* Runs `what` with the n-th allocation failing until none does. */
static void exhaust(const char *name, bool (*what)(void))
{
    bool ok = false;
    long before = alive;
    float *w = weights_of(old), *now;
    for (fail_at = 1; !ok && fail_at < 5000; ++fail_at) {
        T_IN("%s, allocation %ld fails", name, fail_at);
        memset(&err, 0, sizeof err);
        allocations = 0;
        ok = what();
        if (!CHECK(alive == before, "%ld blocks are left", alive - before)) break;
        if (allocations < fail_at) CHECK(ok, "%s", err.msg);
        else if (!CHECK(!ok && err.code == VGS_E_NOMEM && err.msg[0], "%s: %s",
                        ok ? "went well" : vgs_status_name(err.code), err.msg))
            break;
    }
    OK(ok && fail_at < 5000);
    fail_at = 0;
    now = weights_of(old);
    OK(!memcmp(w, now, (size_t)vgs_model_size(old->online) * sizeof *w));
    free(w);
    free(now);
}

/* What a sampler is asked for again after memory ran out gives the same numbers as if it never had. */
static bool ask(vgs_sampler *s, float out[24])
{
    static const float rows[8] = { 0, 1, 1, 0, 2, 1, 1, 2 };
    vgs_draw d;
    memset(&d, 0, sizeof d);
    d.start = rows;
    return !vgs_sampler_value(s, 0, rows, 4, out, out + 4, &err) &&
           !vgs_sampler_value(s, 1, rows, 4, out + 12, NULL, &err) &&
           !vgs_sampler_rollout(s, VGS_START_ROWS, rows, &err) && !vgs_sampler_draw(s, &d, 4, out + 16, &err);
}

static void asked_again(void)
{
    vgs_config c = config_of(VGS_NET_MLP);
    float first[24], second[24];
    bool ok = false;
    long n;
    c.correct = 1;
    for (n = 0; !ok || n < 2; ++n) {             /* n = 0: none fails                                  */
        vgs_sampler *s = vgs_sampler_create(&c, &err);
        T_IN("asked again after allocation %ld", n);
        if (!CHECK(s != NULL, "%s", err.msg)) return;
        allocations = 0;
        fail_at = n;
        ok = ask(s, n ? second : first);
        fail_at = 0;
        OK(ok == (n == 0) || allocations < n);
        CHECK(ask(s, second), "%s", err.msg);
        OK(!memcmp(first, second, sizeof first));
        vgs_sampler_free(s);
        if (!CHECK(n < 2000, "it never goes well")) return;
    }
    OK(n > 10);
}

/* A pilot allocates thousands of times, in graphs that other parts exhaust: every 17th. */
static void pilot(void)
{
    vgs_config c = config_of(VGS_NET_MLP);
    long before = alive;
    bool ok = false;
    c.slope_loss = 0;
    c.local_noise = false;
    for (fail_at = 1; !ok; fail_at += 17) {
        vgs_sampler *s;
        T_IN("pilot, allocation %ld fails", fail_at);
        memset(&err, 0, sizeof err);
        allocations = 0;
        s = vgs_sampler_create(&c, &err);
        ok = s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK;
        vgs_sampler_free(s);
        if (!CHECK(alive == before, "%ld blocks are left", alive - before)) break;
        if (allocations >= fail_at && !CHECK(!ok && err.code == VGS_E_NOMEM, "%s", err.msg)) break;
    }
    fail_at = 0;
}

/* A sampler that takes its coordinates from a file. */
static void other_coordinates(void)
{
    vgs_config c = config_of(VGS_NET_MLP);
    vgs_sampler *s;
    long before;
    bool ok = false;
    c.slope_loss = 0;
    c.local_noise = false;
    c.coordinates = VGS_LOW_RANK;
    s = vgs_sampler_create(&c, &err);
    OK(s && vgs_sampler_train(s, 1, NULL, &err) == VGS_OK && vgs_sampler_save(s, PATH, NULL, &err) == VGS_OK);
    vgs_sampler_free(s);
    c.coordinates = VGS_COORDINATES_AUTO;
    before = alive;
    for (fail_at = 1; !ok; fail_at += 5) {
        T_IN("another kind of coordinates, allocation %ld fails", fail_at);
        memset(&err, 0, sizeof err);
        allocations = 0;
        s = vgs_sampler_create(&c, &err);
        ok = s && vgs_sampler_load(s, PATH, &err) == VGS_OK;
        OK(!ok || vgs_sampler_config(s)->coordinates == VGS_LOW_RANK);
        vgs_sampler_free(s);
        if (!CHECK(alive == before, "%ld blocks are left", alive - before)) break;
        if (allocations >= fail_at && !CHECK(!ok && err.code == VGS_E_NOMEM, "%s", err.msg)) break;
    }
    fail_at = 0;
    remove(PATH);
}

int main(int argc, char **argv)
{
    static const struct { const char *name; bool (*what)(void);
    } list[] = {
#define PART(name) { #name, name }
        PART(sampler_mlp),
        PART(sampler_egnn),
        PART(sampler_recorded),
        PART(weights),
        PART(model),
        PART(model_of_arrays),
        PART(sampler_parts),
        PART(sampler_touch),
        PART(ebm),
        PART(save),
        PART(load),
        PART(checkpoint_config),
        PART(graph),
        PART(energy_check),
        PART(evaluate_points),
        PART(evaluate_particles),
        PART(evaluate_floor),
        PART(npy),
        PART(npy_fortran),
        PART(metropolis_points),
        PART(metropolis_particles),
        PART(mcmc_hmc),
        PART(mcmc_pt),
        PART(refine),
        PART(reference),
        PART(preset)};
    vgs_config c = config_of(VGS_NET_MLP);
    size_t i;
    t_begin(argc, argv);
    old = vgs_sampler_create(&c, NULL);
    vgs_sampler_save(old, PATH, NULL, NULL);
    for (i = 0; i < sizeof list / sizeof *list; ++i)
        if (t_wanted(list[i].name)) exhaust(list[i].name, list[i].what);
    RUN(pilot);
    RUN(other_coordinates);
    vgs_sampler_free(old);
    RUN(asked_again);
    t_place[0] = 0;
    OK(alive == 0);
    remove(PATH);
    remove("oom.npy");
    remove("oom.model");
    remove("oom.ebm");
    return t_end();
}
