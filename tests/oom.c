/* cc -O2 tests/oom.c -o oom -lm && ./oom
   Memory that runs out at the n-th allocation, for n = 1, 2, 3 ... until all goes well: each time an error,
   nothing left allocated, and what was there before still works. */
#include "weak.h"
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

#define PATH "oom.safetensors"

static vgs_error err;

static vgs_config config_of(vgs_net_kind kind)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy = vgs_target_energy(vgs_target_find(kind == VGS_NET_EGNN ? "dw4" : "gmm9"));
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

/* Ninety ops, so that the list of nodes must grow. */
static bool graph(void)
{
    static const int32_t which[3] = { 1, 0, 1 };
    static const float table[4] = { 1, 2, 3, 4 }, zero[20];
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
        ok = vgs_graph_compile(g, cpu, 5, &err) == VGS_OK && vgs_set(g, x, zero, 5, &err) == VGS_OK &&
             vgs_set(g, p, zero, 5, &err) == VGS_OK && vgs_graph_run(g, 5, &err) == VGS_OK;
        vgs_graph_free(g);
    }
    vgs_cpu_free(cpu);
    return ok;
}

static bool energy_check(void)
{
    static const float x[4] = { 1, 2, 3, 4 };
    vgs_energy e = vgs_target_energy(vgs_target_find("gmm9"));
    double worst;
    return !vgs_energy_check(&e, x, 2, &worst, &err);
}

static bool evaluate(const char *name)
{
    const vgs_target *t = vgs_target_find(name);
    float x[2][6 * 8];
    vgs_metrics m;
    int i;
    for (i = 0; i < 6 * 8; ++i) { x[0][i] = (float)(i % 7) - 3; x[1][i] = (float)(i % 5) - 2; }
    return !vgs_evaluate(t, x[0], 6, x[1], 6, 1, &m, &err);
}
static bool evaluate_points(void) { return evaluate("gmm9"); }
static bool evaluate_particles(void) { return evaluate("dw4"); }

static bool evaluate_floor(void)
{
    vgs_metrics mean, spread;
    int n;
    return !vgs_evaluate_floor(vgs_target_find("gmm9"), 3, NULL, 0, 1, 1, &mean, &spread, &n, &err);
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

static bool metropolis_of(const char *name)
{
    vgs_metropolis_config c;
    vgs_metropolis_stats stats;
    float x[4 * 39];
    memset(&c, 0, sizeof c);
    c.target = vgs_target_find(name);
    c.chains = 2;
    c.burn_in = 2;
    c.thin = 1;
    c.threads = 1;
    return !vgs_metropolis(&c, 4, x, &stats, &err);
}
static bool metropolis_points(void) { return metropolis_of("gmm9"); }
static bool metropolis_particles(void) { return metropolis_of("lj13"); }

static bool mcmc_of(vgs_mcmc_method method)
{
    vgs_mcmc_config c;
    vgs_mcmc_stats stats;
    float x[8 * 8];
    memset(&c, 0, sizeof c);
    c.energy = vgs_target_energy(vgs_target_find("dw4"));
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
    c.energy = vgs_target_energy(vgs_target_find("gmm9"));
    c.method = VGS_MALA;
    return !vgs_refine(&c, 4, w, 3, x, &stats, &err);
}

static bool reference(void)
{
    float x[3 * 10];
    return !vgs_target_reference(vgs_target_find("funnel"), 1, 3, x, 1, &err);
}

static bool preset(void)
{
    vgs_config c;
    vgs_preset_info info;
    vgs_net *net;
    bool ok =
        !vgs_preset(vgs_target_find("lj13"), "paper", &c, &info, &err) && !vgs_config_resolve(&c, &c, &err);
    net = ok ? vgs_net_create(&c.net, &err) : NULL;
    vgs_net_free(net);
    return net != NULL;
}

static float *weights_of(const vgs_sampler *s)
{
    float *w = (float *)malloc((size_t)vgs_net_size(s->net) * sizeof *w);
    s->b->download(s->b->self, w, s->online, 0, (size_t)vgs_net_size(s->net), VGS_F32, NULL);
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
    OK(!memcmp(w, now, (size_t)vgs_net_size(old->net) * sizeof *w));
    free(w);
    free(now);
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
        PART(save),
        PART(load),
        PART(checkpoint_config),
        PART(graph),
        PART(energy_check),
        PART(evaluate_points),
        PART(evaluate_particles),
        PART(evaluate_floor),
        PART(npy),
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
    vgs_sampler_free(old);
    t_place[0] = 0;
    OK(alive == 0);
    remove(PATH);
    remove("oom.npy");
    return t_end();
}
