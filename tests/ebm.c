/* cc -O2 tests/ebm.c -o ebm -lm && ./ebm
   Energy-based models: against PyTorch's numbers, whose noise a backend in front of the CPU's hands out; bits
   under threads and after a checkpoint; allocations; von Mises-Fisher densities; what is refused. */
#define _POSIX_C_SOURCE 200809L
#include <stdlib.h>
static size_t allocations;
static void *counted(size_t n) { ++allocations; return malloc(n); }
#define VGS_MALLOC(n) counted(n)
#define VGS_FREE(p)   free(p)
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include "vectors/ebm.h"

static vgs_error err;
#define PATH "ebm.safetensors"

static float *at(const vgs_tensor *t) { return (float *)(void *)t->buf + t->offset; }

/* ---- a backend that hands out recorded noise ----------------------------------------------------------- */

static struct {
    vgs_backend *cpu;
    const float *eps, *wide;                     /* the next normal numbers; those of more columns    */
    int dim, adam;                               /* columns of eps; parameters of the energy          */
    float grad[4096];
} look;

static vgs_status look_run(void *self, const vgs_call *c, vgs_error *e)
{
    vgs_status st;
    int i, j;
    (void)self;
    if (c->op == VGS_OP_ADAM && c->in[0].cols == look.adam)
        memcpy(look.grad, at(&c->in[1]), (size_t)look.adam * sizeof(float));
    st = vgs_cpu_run(look.cpu, c, e);
    if (c->op != VGS_OP_NORMAL || !look.eps) return st;
    for (i = 0; i < c->out.rows; ++i)
        for (j = 0; j < c->out.cols; ++j)
            at(&c->out)[i * c->out.ld + j] = c->out.cols == look.dim ? *look.eps++ : *look.wide++;
    return st;
}

static vgs_backend looking(void)
{
    vgs_backend b = *look.cpu;
    b.run = look_run;
    b.run_list = NULL;
    b.reserve = NULL;
    return b;
}

static vgs_ebm *made(const vgs_ebm_config *c)
{
    vgs_ebm *m = vgs_ebm_create(c, &err);
    CHECK(m != NULL, "%s", err.msg);
    return m;
}

/* ---- contrastive divergence on the sphere, a whole step ------------------------------------------------ */

enum { D = GOLDEN_EBM_D, B = GOLDEN_EBM_B, T = GOLDEN_EBM_T, P = GOLDEN_EBM_P };

/* The batch first, then the rows that starts are made of. */
static int golden_rows(void *calls, const int64_t *row, int n, int dim, float *x)
{
    (void)row;
    memcpy(x, (*(int *)calls)++ ? golden_sphere_source : golden_sphere_data, (size_t)(n * dim) * sizeof *x);
    return 0;
}

static vgs_ebm_config golden_sphere(vgs_backend *b)
{
    vgs_ebm_config c;
    memset(&c, 0, sizeof c);
    c.net.kind = VGS_NET_AUTOENCODER;
    c.net.dim = D;
    c.net.hidden = GOLDEN_EBM_H;
    c.net.layers = GOLDEN_EBM_LAYERS;
    c.net.code = GOLDEN_EBM_CODE;
    c.net.relu = true;
    c.ema = 1e-30f;
    c.sampler.on_sphere = true;
    c.sampler.backend = b;
    c.sampler.batch = B;
    c.sampler.steps = T;
    c.sampler.s2_start = c.sampler.s2_end = 0.05f;
    c.sampler.drift_max = c.sampler.grad_max = 1e30f;
    c.sampler.net.kind = VGS_NET_DEEPERV3;
    c.sampler.net.hidden = GOLDEN_EBM_VH;
    c.sampler.net.time_hidden = GOLDEN_EBM_VF;
    c.sampler.net.time_dim = GOLDEN_EBM_VM;
    return c;
}

static void sphere_step(void)
{
    vgs_backend b = looking();
    vgs_ebm_config c = golden_sphere(&b);
    vgs_ebm *m = made(&c);
    float w[P], v[GOLDEN_EBM_V], e[B], g[B * D], x[2][B * D];
    int calls = 0;
    vgs_data data = { NULL, golden_rows, NULL, B, D };
    vgs_energy energy;
    if (!m) return;
    data.user = &calls;
    OK(vgs_model_size(vgs_ebm_model(m, false)) == P && vgs_model_size(vgs_ebm_sampler(m)->target) ==
       GOLDEN_EBM_V);
    t_params(5, 2.0f, P, w);
    w[0] = 1.25f;
    t_params(6, 2.0f, GOLDEN_EBM_V, v);
    OK(!vgs_model_write(vgs_ebm_model(m, false), w, &err) && !vgs_model_write(vgs_ebm_model(m, true), w,
                                                                              &err));
    OK(!vgs_model_write(vgs_ebm_sampler(m)->target, v, &err));
    energy = vgs_ebm_energy(m);
    OK(!vgs_energy_eval(&energy, golden_sphere_data, B, e, g, 1, &err));
    t_near_all("E", e, golden_sphere_e, B, 1e-6, 0);
    t_near_all("dE/dx", g, golden_sphere_g, B * D, 1e-5, 0);
    OK(!vgs_ebm_score(m, golden_sphere_data, B, e, &err));
    t_near_all("score", e, golden_sphere_e, B, 1e-6, 0);
    look.eps = golden_sphere_eps;
    look.dim = D;
    look.adam = P;
    OK(!vgs__ebm_read_batch(m, &data, 0, &err) && !vgs__ebm_negatives(m, &data, 0, &err));
    OK(look.eps == golden_sphere_eps + 2 * T * B * D);
    look.eps = NULL;
    OK(!vgs__ebm_download(m, false, x[0], &err) && !vgs__ebm_download(m, true, x[1], &err));
    t_near_all("start", x[0], golden_sphere_start, B * D, 1e-6, 0);
    t_near_all("negatives", x[1], golden_sphere_draws, B * D, 2e-6, 0);
    {
        vgs_ebm_stats s;
        OK(!vgs__ebm_stats(m, true, &s, &err));
        CHECK_NEAR(s.loss, golden_sphere_loss[0], 1e-5, 0);
        CHECK_NEAR(s.scale, 1.25, 1e-6, 0);
    }
    OK(!vgs__ebm_update_run(m, &err) && !vgs__ebm_check_flag(m, &err));
    t_near_all("gradient", look.grad, golden_sphere_grad, P, 1e-5, 0);
    OK(!vgs_model_read(vgs_ebm_model(m, false), w, &err));
    t_near_all("after Adam", w, golden_sphere_after, P, 0, 1e-6);
    vgs_ebm_free(m);
}

/* ---- Energy Discrepancy in the plane ------------------------------------------------------------------- */

static void discrepancy_step(void)
{
    vgs_backend b = looking();
    vgs_ebm_config c;
    vgs_ebm *m;
    float w[GOLDEN_ED_P];
    memset(&c, 0, sizeof c);
    c.net.dim = 2;
    c.net.hidden = GOLDEN_EBM_H;
    c.net.layers = GOLDEN_EBM_LAYERS;
    c.objective = VGS_DISCREPANCY;
    c.ed_samples = GOLDEN_ED_M;
    c.ed_weight = 1.5f;
    c.ed_variance = 0.3f;
    c.base_std = 2.0f;
    c.lr = 1e-4f;
    c.grad_max = 1e30f;
    c.sampler.tau = 0.8f;
    c.sampler.batch = B;
    c.sampler.backend = &b;
    if (!(m = made(&c))) return;
    t_params(9, 2.0f, GOLDEN_ED_P, w);
    OK(!vgs_model_write(vgs_ebm_model(m, false), w, &err));
    /* in the order of the data, not shuffled */
    OK(!b.upload(b.self, m->data, 0, golden_plane_x, 2 * B, VGS_F32, &err));
    look.eps = golden_plane_shared;
    look.wide = golden_plane_own;
    look.dim = 2;
    look.adam = GOLDEN_ED_P;
    OK(!vgs__ebm_update_run(m, &err) && !vgs__ebm_check_flag(m, &err));
    look.eps = NULL;
    t_near_all("gradient", look.grad, golden_plane_grad, GOLDEN_ED_P, 1e-5, 0);
    OK(!vgs_model_read(vgs_ebm_model(m, false), w, &err));
    t_near_all("after Adam", w, golden_plane_after, GOLDEN_ED_P, 0, 1e-6);
    vgs_ebm_free(m);
}

/* ---- every objective and start: bits, checkpoints, allocations ----------------------------------------- */

enum { ROWS = 100, DIM = 3 };
static float rows[ROWS * DIM];

static void make_rows(void)
{
    vgs_rng r = { 3, 0, 0 };
    int i;
    vgs_rng_normals(&r, rows, ROWS * DIM);
    for (i = 0; i < ROWS * DIM; ++i) rows[i] *= 1.5f;
}

static vgs_ebm_config small(vgs_ebm_objective objective, vgs_starts starts, bool sphere, int threads)
{
    vgs_ebm_config c;
    memset(&c, 0, sizeof c);
    c.net.dim = DIM;
    c.net.hidden = 8;
    if (sphere || starts == VGS_STARTS_NEAR) c.net.kind = VGS_NET_AUTOENCODER;
    c.objective = objective;
    c.starts = starts;
    c.langevin_steps = 3;
    c.ed_samples = 3;
    c.fit = c.net.kind == VGS_NET_AUTOENCODER || objective == VGS_DXMI ? 3 : 0;
    if (objective == VGS_DXMI && sphere) c.fit = 0;                  /* no denoising diffusion there  */
    c.sampler.on_sphere = sphere;
    c.sampler.batch = 16;
    c.sampler.steps = 4;
    c.sampler.net.hidden = 8;
    c.sampler.net.time_dim = c.sampler.policy.time_dim = 4;
    c.sampler.policy.hidden = 8;
    c.sampler.threads = threads;
    return c;
}

static const struct { vgs_ebm_objective objective; vgs_starts starts; bool sphere; } cases[] = {
    { VGS_CD, VGS_STARTS_DATA, true },          { VGS_CD, VGS_STARTS_NEAR, true },
    { VGS_CD, VGS_STARTS_STORE, true },         { VGS_CD, VGS_STARTS_DATA, false },
    { VGS_CD, VGS_STARTS_NEAR, false },         { VGS_CD, VGS_STARTS_STORE, false },
    { VGS_GCD, VGS_STARTS_NOISE, false },       { VGS_GCD, VGS_STARTS_NOISE, true },
    { VGS_LANGEVIN, VGS_STARTS_NOISE, false },  { VGS_LANGEVIN, VGS_STARTS_DATA, true },
    { VGS_LANGEVIN, VGS_STARTS_NEAR, false },   { VGS_PERSISTENT, VGS_STARTS_STORE, false },
    { VGS_PERSISTENT, VGS_STARTS_STORE, true }, { VGS_NO_SAMPLER, VGS_STARTS_DATA, true },
    { VGS_NO_SAMPLER, VGS_STARTS_NEAR, true },  { VGS_NO_SAMPLER, VGS_STARTS_DATA, false },
    { VGS_DISCREPANCY, VGS_STARTS_AUTO, false }, { VGS_DISCREPANCY, VGS_STARTS_AUTO, true },
    { VGS_DXMI, VGS_STARTS_NOISE, false },      { VGS_DXMI, VGS_STARTS_NOISE, true },
    { VGS_DXMI, VGS_STARTS_NOISE, false },      { VGS_DXMI, VGS_STARTS_NOISE, true } };
enum { CASES = (int)(sizeof cases / sizeof *cases), SHARED = 2 };    /* of which the last are shared   */

static vgs_ebm_config case_of(int k)
{
    vgs_ebm_config c = small(cases[k].objective, cases[k].starts, cases[k].sphere, 1);
    if (k < CASES - SHARED) return c;
    memset(&c.net, 0, sizeof c.net);
    c.net.dim = DIM;
    c.shared = true;
    return c;
}

static const vgs_data data = { rows, NULL, NULL, ROWS, DIM };

/* Pretraining, if any, and n iterations; FNV-1a of all weights, of draws and scores. */
static uint64_t run_of(vgs_ebm *m, int fit, int n)
{
    uint64_t h = 14695981039346656037u;
    float w[2][2000], x[40 * DIM], e[40];
    int k, size = vgs_model_size(vgs_ebm_model(m, false));
    size_t i;
    const float *all[4];
    size_t count[4];
    CHECK(size <= 2000 && !vgs_ebm_fit(m, &data, fit, NULL, &err), "%s", err.msg);
    CHECK(!vgs_ebm_train(m, &data, n, NULL, &err), "%s", err.msg);
    CHECK(!vgs_ebm_sample(m, NULL, 40, x, &err) && !vgs_ebm_score(m, x, 40, e, &err), "%s", err.msg);
    OK(!vgs_model_read(vgs_ebm_model(m, false), w[0], &err) && !vgs_model_read(vgs_ebm_model(m, true), w[1],
                                                                               &err));
    all[0] = w[0], all[1] = w[1], all[2] = x, all[3] = e;
    count[0] = count[1] = (size_t)size, count[2] = 40 * DIM, count[3] = 40;
    for (k = 0; k < 4; ++k)
        for (i = 0; i < 4 * count[k]; ++i) h = (h ^ ((const unsigned char *)all[k])[i]) * 1099511628211u;
    return h;
}

static void bits(void)
{
    int k;
    for (k = 0; k < CASES; ++k) {
        vgs_ebm_config c = case_of(k);
        vgs_ebm *one, *two, *first, *then;
        uint64_t want;
        T_IN("case %d", k);
        if (!(one = made(&c))) continue;
        want = run_of(one, c.fit, 7);
        vgs_ebm_free(one);
#ifdef _OPENMP
        c.sampler.threads = 2;
        if ((two = made(&c)) != NULL) OK(run_of(two, c.fit, 7) == want);
        vgs_ebm_free(two);
        c.sampler.threads = 1;
#else
        (void)two;
#endif
        if ((first = made(&c)) != NULL && (then = made(&c)) != NULL) {
            if (c.fit) OK(!vgs_ebm_fit(first, &data, 2, NULL, &err));
            OK(!vgs_ebm_save(first, PATH, NULL, &err) && !vgs_ebm_load(then, PATH, &err));
            OK(!vgs_ebm_fit(then, &data, c.fit ? 1 : 0, NULL, &err) && !vgs_ebm_train(then, &data, 4, NULL,
                                                                                      &err));
            CHECK(!vgs_ebm_save(then, PATH, NULL, &err), "%s", err.msg);
            vgs_ebm_free(first);
            CHECK((first = made(&c)) != NULL && !vgs_ebm_load(first, PATH, &err), "%s", err.msg);
            OK(vgs_ebm_iteration(first) == 4 && vgs_ebm_fitted(first) == c.fit);
            OK(run_of(first, 0, 3) == want);
            vgs_ebm_free(then);
        }
        vgs_ebm_free(first);
    }
    remove(PATH);
}

static void no_allocations(void)
{
    int k;
    for (k = 0; k < CASES; ++k) {
        vgs_ebm_config c = case_of(k);
        vgs_ebm *m = made(&c);
        size_t before;
        T_IN("case %d", k);
        if (!m) continue;
        OK(!vgs_ebm_fit(m, &data, c.fit, NULL, &err) && !vgs_ebm_train(m, &data, 1, NULL, &err));
        before = allocations;
        CHECK(!vgs_ebm_train(m, &data, 5, NULL, &err), "%s", err.msg);
        CHECK(allocations == before, "%d allocations", (int)(allocations - before));
        vgs_ebm_free(m);
    }
}

/* `rounds` is VGS's own: without it every chain counts, and draws start from all that were kept. */
static void rounds(void)
{
    vgs_ebm_config c = small(VGS_PERSISTENT, VGS_STARTS_STORE, false, 1);
    vgs_ebm *one = made(&c), *two;
    c.rounds = 2;
    if ((two = made(&c)) != NULL && one) OK(run_of(one, 0, 3) == run_of(two, 0, 3));
    vgs_ebm_free(one);
    vgs_ebm_free(two);
}

/* A callback in place of memory: the same rows, the same bits; every row comes once an epoch. */
static int copy_rows(void *user, const int64_t *row, int n, int dim, float *x)
{
    int i;
    for (i = 0; i < n; ++i) {
        memcpy(x + i * dim, rows + row[i] * dim, (size_t)dim * sizeof *x);
        if (user) ((int *)user)[row[i]]++;
    }
    return 0;
}

static void callback(void)
{
    vgs_ebm_config c = small(VGS_GCD, VGS_STARTS_NOISE, false, 1);
    vgs_data read = { NULL, copy_rows, NULL, ROWS, DIM };
    vgs_ebm *a = made(&c), *b = made(&c);
    float w[2][2000];
    int seen[ROWS] = { 0 }, i, most = 0, sum = 0;
    read.user = seen;
    if (!a || !b) return;
    OK(!vgs_ebm_train(a, &data, 6, NULL, &err) && !vgs_ebm_train(b, &read, 6, NULL, &err));
    for (i = 0; i < ROWS; ++i) {                 /* 6 batches of 16 of 100 rows: one epoch            */
        most = seen[i] > most ? seen[i] : most;
        sum += seen[i];
    }
    OK(most == 1 && sum == 96);
    OK(!vgs_model_read(vgs_ebm_model(a, false), w[0], &err) && !vgs_model_read(vgs_ebm_model(b, false), w[1],
                                                                               &err));
    OK(!memcmp(w[0], w[1], (size_t)vgs_model_size(vgs_ebm_model(a, false)) * sizeof(float)));
    vgs_ebm_free(a);
    vgs_ebm_free(b);
}

/* ---- an energy as the user records it ------------------------------------------------------------------ */

static vgs_var own_energy(void *calls, vgs_graph *g, vgs_model *m, vgs_var x)
{
    ++*(int *)calls;
    return vgs_sum_cols(g, vgs_mul(g, vgs_square(g, vgs_sub(g, x, vgs_model_array(g, m, "centre"))),
                                   vgs_model_array(g, m, "half")));
}

/* E = half |x - centre|^2 learns mean and variance of the data, by maximum likelihood: half = 1/(2 var). */
static void recorded(void)
{
    static const vgs_param_info list[2] = { { "centre", 0, 0, DIM }, { "half", 0, 0, DIM } };
    static const float w[2 * DIM] = { 0, 0, 0, 0.5f, 0.5f, 0.5f };
    vgs_ebm_config c = small(VGS_GCD, VGS_STARTS_NOISE, false, 1);
    vgs_backend *b = vgs_cpu_create(NULL, &err);
    vgs_model *own = vgs_model_create_arrays(list, 2, w, b, &err);
    vgs_ebm *m;
    float got[2 * DIM];
    double mean = 0, var = 0;
    int calls = 0, i;
    c.record = own_energy;
    c.user = &calls;
    c.model = own;
    c.sampler.backend = b;
    c.sampler.batch = 64;
    c.sampler.net.hidden = 32;
    c.sampler.value_lr = 3e-3f;
    c.sampler.steps = 24;
    c.sampler.length_scale = 1.5f;
    c.sampler.detail_scale = 0.6f;
    c.gamma = 1e-30f;
    c.lr = 5e-3f;
    c.decay = 1000;
    c.ema = 0.98f;
    if ((m = made(&c)) != NULL) {
        CHECK(!vgs_ebm_train(m, &data, 1000, NULL, &err), "%s", err.msg);
        OK(calls > 0 && vgs_ebm_model(m, false) == own);
        OK(!vgs_model_read(vgs_ebm_model(m, true), got, &err));
        for (i = 0; i < ROWS; ++i) mean += (double)rows[i * DIM] / ROWS;
        for (i = 0; i < ROWS; ++i) var += pow((double)rows[i * DIM] - mean, 2) / ROWS;
        CHECK_NEAR(got[0], mean, 0, 0.15);
        CHECK_NEAR(got[DIM], 0.5 / var, 0.1, 0);
    }
    vgs_ebm_free(m);
    vgs_model_free(own);
    vgs_cpu_free(b);
}

/* ---- what is refused ----------------------------------------------------------------------------------- */

static void refused(vgs_ebm_config c, const char *says)
{
    vgs_ebm *m = vgs_ebm_create(&c, &err);
    CHECK(!m && err.code == VGS_E_ARG && strstr(err.msg, says), "%s: not %s", says, m ? "refused" : err.msg);
    vgs_ebm_free(m);
}
#define REFUSED(says, change) do { vgs_ebm_config c = small(VGS_CD, VGS_STARTS_DATA, true, 1); change; \
                                   refused(c, says); } while (0)

static void configurations(void)
{
    static const bool fits[7][5] = { { true }, { 0, 1, 1, 0, 1 }, { 0, 0, 0, 1, 0 }, { 0, 1, 1, 1, 0 },
                                     { 0, 0, 0, 0, 1 }, { 0, 1, 1, 0, 0 }, { 0, 0, 0, 0, 0 } };
    int i, k;
    char text[64];
    for (i = 1; i < 7; ++i)
        for (k = 1; k < 5; ++k) {
            vgs_ebm_config c = small((vgs_ebm_objective)i, (vgs_starts)k, true, 1), r;
            T_IN("objective %d, starts %d", i, k);
            OK((vgs_ebm_config_resolve(&c, &r, &err) == VGS_OK) == fits[i][k]);
            if (!fits[i][k]) OK(strstr(err.msg, "makes no sense with the objective") != NULL);
        }
    T_IN("fields");
    REFUSED("gamma = -1", c.gamma = -1);
    REFUSED("lr = -1", c.lr = -1);
    REFUSED("ema = 1", c.ema = 1);
    REFUSED("objective = 9", c.objective = (vgs_ebm_objective)9);
    REFUSED("starts = -1", c.starts = (vgs_starts)-1);
    REFUSED("kind = 5", c.net.kind = VGS_NET_EGNN);
    REFUSED("start_code", c.start_code = 0.5f);
    REFUSED("start_degrees = 100", c.starts = VGS_STARTS_NEAR; c.start_degrees = 100);
    REFUSED("start_steps = 5", c.starts = VGS_STARTS_NEAR; c.start_steps = 5);
    REFUSED("fit = 3", c.net.kind = VGS_NET_MLP);
    REFUSED("backend = NULL", c.record = own_energy; c.fit = 0; c.model = (vgs_model *)(void *)&c);
    REFUSED("one is missing", c.record = own_energy; c.fit = 0);
    REFUSED("ebm.dim = 0", c.net.dim = 0);
    REFUSED("ebm.height = 0", c.fit = 0; c.net.dim = 5; c.net.kind = VGS_NET_RESNET);
    REFUSED("shared = 1: must be 0 unless", c.shared = true);
    REFUSED("hidden = 9: shared, and the value's", c = case_of(CASES - SHARED); c.net.hidden = 9);
    REFUSED("kind = autoencoder: shared", c = case_of(CASES - SHARED); c.net.kind = VGS_NET_AUTOENCODER);
    OK(!vgs_ebm_create(NULL, &err) && strstr(err.msg, "NULL"));
    for (i = 0; vgs_ebm_field_name(i); ++i) {
        vgs_ebm_config c = small(VGS_CD, VGS_STARTS_DATA, true, 1), r, back;
        T_IN("field %s", vgs_ebm_field_name(i));
        OK(vgs_ebm_field_find(vgs_ebm_field_name(i)) == i && vgs_ebm_field_help(i)[0]);
        vgs_ebm_field_allowed(i, text);
        OK(text[0] != '\0');
        OK(!vgs_ebm_config_resolve(&c, &r, &err));
        vgs_ebm_field_get(&r, i, text);
        back = r;
        OK(!vgs_ebm_field_set(&back, vgs_ebm_field_name(i), text, &err) && !memcmp(&back, &r, sizeof r));
    }
    OK(!vgs_ebm_field_name(-1) && !vgs_ebm_field_name(i) && vgs_ebm_field_find("none") == -1);
    OK(vgs_ebm_field_set(NULL, "none", "1", &err) == VGS_E_ARG);
}

static int failing(void *user, const int64_t *row, int n, int dim, float *x)
{
    (void)user;
    (void)row;
    (void)n;
    (void)dim;
    (void)x;
    return 7;
}

static void bad_data(void)
{
    vgs_ebm_config c = small(VGS_CD, VGS_STARTS_DATA, true, 1);
    vgs_ebm *m = made(&c);
    float bad[16 * DIM], e[16], w[2][2000];
    vgs_data d = { bad, NULL, NULL, 16, DIM };
    vgs_data broken = { NULL, failing, NULL, 16, DIM };
    size_t bytes;
    if (!m) return;
    bytes = (size_t)vgs_model_size(vgs_ebm_model(m, false)) * sizeof(float);
    memcpy(bad, rows, sizeof bad);
    OK(!vgs_model_read(vgs_ebm_model(m, false), w[0], &err));
    bad[5 * DIM + 1] = (float)NAN;
    OK(vgs_ebm_train(m, &d, 1, NULL, &err) == VGS_E_NONFINITE && strstr(err.msg, "row 5, column 1 is nan"));
    OK(vgs_ebm_score(m, bad, 16, e, &err) == VGS_E_NONFINITE && strstr(err.msg, "row 5"));
    memset(bad + 5 * DIM, 0, DIM * sizeof *bad);
    OK(vgs_ebm_train(m, &d, 1, NULL, &err) == VGS_E_ARG && strstr(err.msg, "row 5 has length 0"));
    OK(vgs_ebm_train(m, &broken, 1, NULL, &err) == VGS_E_IO && strstr(err.msg, "failed with 7"));
    d.rows = 15;
    OK(vgs_ebm_train(m, &d, 1, NULL, &err) == VGS_E_ARG && strstr(err.msg, "data.rows = 15"));
    d.rows = 16;
    d.dim = 2;
    OK(vgs_ebm_train(m, &d, 1, NULL, &err) == VGS_E_SHAPE && strstr(err.msg, "data.dim = 2"));
    d.dim = DIM;
    d.read = failing;
    OK(vgs_ebm_train(m, &d, 1, NULL, &err) == VGS_E_ARG && strstr(err.msg, "exactly one"));
    OK(vgs_ebm_train(m, NULL, 1, NULL, &err) == VGS_E_ARG);
    OK(vgs_ebm_train(m, &data, -1, NULL, &err) == VGS_E_ARG);
    OK(vgs_ebm_fit(m, &data, 4, NULL, &err) == VGS_E_ARG && strstr(err.msg, "fit = 3"));
    OK(vgs_ebm_sample(m, NULL, 3, bad, &err) == VGS_E_ARG && strstr(err.msg, "has seen none"));
    OK(!vgs_model_read(vgs_ebm_model(m, false), w[1], &err) && !memcmp(w[0], w[1], bytes));
    vgs_ebm_free(m);
}

/* An energy above the limit: the weights stay, and the message says what to change. */
static void runs_away(void)
{
    vgs_ebm_config c = small(VGS_GCD, VGS_STARTS_NOISE, false, 1);
    vgs_ebm *m;
    float w[2][2000];
    int k;
    for (k = 0; k < 2; ++k) {
        c.limit = 1e-3f;
        c.gamma = k ? 1e-6f : 0.01f;
        if (!(m = made(&c))) return;
        OK(!vgs_model_read(vgs_ebm_model(m, false), w[0], &err));
        OK(vgs_ebm_train(m, &data, 1, NULL, &err) == VGS_E_NONFINITE);
        CHECK(strstr(err.msg, "limit = 0.001") && strstr(err.msg, k ? "raise ebm.gamma" : "lower ebm.lr"),
              "%s", err.msg);
        OK(!vgs_model_read(vgs_ebm_model(m, false), w[1], &err));
        OK(!memcmp(w[0], w[1], (size_t)vgs_model_size(vgs_ebm_model(m, false)) * sizeof(float)));
        OK(vgs_ebm_iteration(m) == 0 && vgs_ebm_model(m, false)->step == 0);
        vgs_ebm_free(m);
    }
}

/* V and E in one network: what the sampler learns moves E; a file knows of it, and settings resolve again. */
static void shared(void)
{
    vgs_ebm_config c = case_of(CASES - SHARED), r;
    vgs_ebm *m = made(&c), *apart;
    float w[2][2000];
    if (!m) return;
    OK(vgs_ebm_model(m, false) == vgs_ebm_sampler(m)->online && vgs_ebm_settings(m)->net.steps == 5);
    r = *vgs_ebm_settings(m);
    CHECK((apart = vgs_ebm_create(&r, &err)) != NULL, "resolved settings again: %s", err.msg);
    vgs_ebm_free(apart);
    OK(!vgs_ebm_fit(m, &data, c.fit, NULL, &err) && !vgs_ebm_train(m, &data, 3, NULL, &err));
    OK(vgs_ebm_model(m, false)->step == 3 * (4 + 1) && !vgs_model_read(vgs_ebm_model(m, false), w[0], &err));
    OK(!vgs_sampler_train(vgs_ebm_sampler(m), 1, NULL, &err) && !vgs_ebm_save(m, PATH, NULL, &err));
    OK(!vgs_model_read(vgs_ebm_model(m, false), w[1], &err));
    OK(memcmp(w[0], w[1], (size_t)vgs_model_size(vgs_ebm_model(m, false)) * sizeof(float)) != 0);
    c.shared = false;
    if ((apart = made(&c)) != NULL)
        CHECK(vgs_ebm_load(apart, PATH, &err) == VGS_E_SHAPE && strstr(err.msg, "energy_shared = 1"), "%s",
              err.msg);
    vgs_ebm_free(apart);
    vgs_ebm_free(m);
    remove(PATH);
}

/* Pretraining at a rate that is far too high: the step that fails is not counted. */
static void fit_runs_away(void)
{
    vgs_ebm_config c = small(VGS_CD, VGS_STARTS_DATA, true, 1);
    vgs_ebm *m;
    c.fit_lr = 1e30f;
    if (!(m = made(&c))) return;
    CHECK(!vgs_ebm_fit(m, &data, 1, NULL, &err), "%s", err.msg);
    OK(vgs_ebm_fit(m, &data, 1, NULL, &err) == VGS_E_NONFINITE);
    OK(vgs_ebm_fitted(m) == 1 && vgs_ebm_model(m, false)->step == 1);
    vgs_ebm_free(m);
}

/* ---- files --------------------------------------------------------------------------------------------- */

/* A state_dict of the reference's energy: with or without a prefix, with or without out_scale. */
static void official_names(void)
{
    vgs_ebm_config c = small(VGS_CD, VGS_STARTS_DATA, true, 1), read;
    vgs_ebm *m, *n;
    vgs_safetensors *f;
    float w[2][2000], e[2][4];
    int k, i, count = 0, size;
    memset(&read, 0, sizeof read);
    if (!(m = made(&c))) return;
    size = vgs_model_size(vgs_ebm_model(m, true));
    OK(!vgs_ebm_fit(m, &data, 3, NULL, &err) && !vgs_ebm_train(m, &data, 2, NULL, &err));
    OK(!vgs_model_read(vgs_ebm_model(m, true), w[0], &err) && !vgs_ebm_score(m, rows, 4, e[0], &err));
    OK(!vgs_ebm_save(m, PATH, NULL, &err) && !vgs_ebm_checkpoint_config(PATH, &read, &count, &err));
    OK(read.net.dim == DIM && read.net.hidden == 8 && read.objective == VGS_CD && read.sampler.steps == 4 &&
       count > 60);
    OK((f = vgs_safetensors_open(PATH, &err)) != NULL);
    OK(vgs_safetensors_find(f, "encoder.net.0.weight") && vgs_safetensors_find(f, "decoder.net.6.bias"));
    OK(vgs_safetensors_find(f, "out_scale") && vgs_safetensors_find(f, "out_scale")->ndim == 0);
    vgs_safetensors_free(f);
    for (k = 0; k < 3; ++k) {
        vgs_writer *out = vgs_writer_create(&err);
        char name[80];
        for (i = k == 2; vgs_model_param(vgs_ebm_model(m, true), i); ++i) {
            const vgs_param_info *p = vgs_model_param(vgs_ebm_model(m, true), i);
            uint64_t shape[2];
            shape[0] = (uint64_t)(p->rows ? p->rows : p->cols);
            shape[1] = (uint64_t)p->cols;
            snprintf(name, sizeof name, "%s%.60s", k == 1 ? "state_dict." : "", p->name);
            vgs_writer_tensor(out, name, VGS_DTYPE_F32, i ? p->rows ? 2 : 1 : 0, shape, w[0] + p->offset);
        }
        OK(!vgs_writer_save(out, PATH, &err));
        vgs_writer_free(out);
        T_IN("form %d", k);
        if (!(n = made(&c))) break;
        CHECK(!vgs_ebm_load(n, PATH, &err), "%s", err.msg);
        OK(!vgs_model_read(vgs_ebm_model(n, false), w[1], &err) && vgs_ebm_iteration(n) == 0);
        OK(k < 2 ? w[1][0] == w[0][0] : w[1][0] == 1.0f);
        OK(!memcmp(w[0] + 1, w[1] + 1, (size_t)(size - 1) * sizeof(float)));
        if (k < 2) OK(!vgs_ebm_score(n, rows, 4, e[1], &err) && !memcmp(e[0], e[1], sizeof e[0]));
        vgs_ebm_free(n);
    }
    OK(vgs_ebm_save(m, PATH, (const char *const[]){ "energy_lr", "1", NULL }, &err) == VGS_E_ARG);
    c.net.hidden = 9;
    if ((n = made(&c)) != NULL) OK(vgs_ebm_load(n, PATH, &err) == VGS_E_SHAPE);
    vgs_ebm_free(n);
    vgs_ebm_free(m);
    remove(PATH);
}

/* What one file has that is not as it was saved. */
typedef struct bend { const char *name, *value; float number; vgs_status code; const char *says; } bend;

/* Copies PATH to PATH "2", but for the first number of a tensor, or a text of the metadata; number 0: without
   the tensor. */
static void bent_copy(const bend *b)
{
    vgs_safetensors *f = vgs_safetensors_open(PATH, &err);
    vgs_writer *w = vgs_writer_create(&err);
    int i;
    for (i = 0; i < vgs_safetensors_count(f); ++i) {
        const vgs_file_tensor *t = vgs_safetensors_tensor(f, i);
        static float x[4000];
        const void *from = t->data;
        bool this_one = !strcmp(t->name, b->name);
        if (this_one && b->number == 0.0f) continue;
        if (this_one) {
            memcpy(x, t->data, t->bytes);
            x[0] = b->number;
            from = x;
        }
        vgs_writer_tensor(w, t->name, t->dtype, t->ndim, t->shape, from);
    }
    for (i = 0; i < vgs_safetensors_meta_count(f); ++i) {
        const char *key = vgs_safetensors_meta_key(f, i);
        if (!strcmp(key, "vgs.checksum") || !strcmp(key, "vgs.format")) continue;        /* the writer's */
        vgs_writer_meta(w, key, b->value && !strcmp(key, b->name) ? b->value : vgs_safetensors_meta(f, key));
    }
    CHECK(!vgs_writer_save(w, PATH "2", &err), "%s", err.msg);
    vgs_writer_free(w);
    vgs_safetensors_free(f);
}

/* Files cut short, with a bit flipped, or whole with something in them that cannot be: refused, the model as
   it was. */
static void damaged(void)
{
    static const bend bends[] = {
        { "encoder.net.0.weight", NULL, 0, VGS_E_FORMAT, "encoder.net.0.weight" },
        { "learned.encoder.net.0.bias", NULL, 0, VGS_E_FORMAT, "learned.encoder.net.0.bias" },
        { "out_scale", NULL, 0, VGS_E_FORMAT, "out_scale" },         /* only a state_dict may lack it */
        { "learned.out_scale", NULL, 0, VGS_E_FORMAT, "learned.out_scale" },
        { "learned.out_scale", NULL, (float)INFINITY, VGS_E_NONFINITE, "learned" },
        { "vgs.energy_v", NULL, 0, VGS_E_FORMAT, "vgs.energy_v" },
        { "vgs.energy_v", NULL, -1, VGS_E_FORMAT, "vgs.energy_v" },
        { "vgs.energy_kept", NULL, 0, VGS_E_FORMAT, "vgs.energy_kept" },
        { "vgs.energy_kept", NULL, (float)NAN, VGS_E_NONFINITE, "learned" },
        { "vgs.energy_iteration", "-1", 0, VGS_E_FORMAT, "vgs.energy_iteration" },
        { "vgs.energy_step", "many", 0, VGS_E_FORMAT, "vgs.energy_step" } };
    static unsigned char bytes[1 << 17];
    vgs_ebm_config c = small(VGS_CD, VGS_STARTS_DATA, true, 1);
    vgs_ebm *m = made(&c), *other;
    float w[2][2000];
    size_t n, i, size;
    c.sampler.seed = 4;
    if (!m || !(other = made(&c))) return;
    size = (size_t)vgs_model_size(vgs_ebm_model(m, true)) * sizeof(float);
    OK(!vgs_ebm_fit(m, &data, 3, NULL, &err) && !vgs_ebm_train(m, &data, 1, NULL, &err));
    OK(!vgs_ebm_save(m, PATH, NULL, &err) && !vgs_model_read(vgs_ebm_model(other, true), w[0], &err));
    n = t_read(PATH, bytes, sizeof bytes);
    OK(n > 1000 && n < sizeof bytes);
    for (i = 0; i < n; i += i < 64 ? 1 : 211) {
        T_IN("cut to %d bytes", (int)i);
        t_write(PATH "2", bytes, i);
        OK(vgs_ebm_load(other, PATH "2", &err) != VGS_OK && err.msg[0]);
        T_IN("a bit of byte %d flipped", (int)i);
        bytes[i] = (unsigned char)(bytes[i] ^ 1 << i % 8);
        t_write(PATH "2", bytes, n);
        OK(vgs_ebm_load(other, PATH "2", &err) != VGS_OK && err.msg[0]);
        bytes[i] = (unsigned char)(bytes[i] ^ 1 << i % 8);
    }
    for (i = 0; i < sizeof bends / sizeof *bends; ++i) {
        T_IN("%s, bend %d", bends[i].name, (int)i);
        bent_copy(&bends[i]);
        CHECK(vgs_ebm_load(other, PATH "2", &err) == bends[i].code && strstr(err.msg, bends[i].says),
              "%s: %s", vgs_status_name(err.code), err.msg);
    }
    T_IN("afterwards");
    OK(!vgs_model_read(vgs_ebm_model(other, true), w[1], &err) && !memcmp(w[0], w[1], size));
    OK(vgs_ebm_iteration(other) == 0 && !vgs_ebm_load(other, PATH, &err) && vgs_ebm_iteration(other) == 1);
    vgs_ebm_free(m);
    vgs_ebm_free(other);
    remove(PATH);
    remove(PATH "2");
}

/* ---- starts near the data ------------------------------------------------------------------------------ */

static double start_distance(int dim, float degrees, int steps)
{
    enum { N = 64, MOST = 64 };
    vgs_ebm_config c;
    vgs_data d = { NULL, NULL, NULL, N, 0 };
    vgs_ebm_stats s;
    vgs_rng r = { 5, 0, 0 };
    float x[N * MOST];
    vgs_ebm *m;
    memset(&c, 0, sizeof c);
    memset(&s, 0, sizeof s);
    c.net.dim = d.dim = dim;
    c.net.hidden = 8;
    c.objective = VGS_NO_SAMPLER;
    c.starts = VGS_STARTS_NEAR;
    c.start_degrees = degrees;
    c.start_steps = steps;
    c.sampler.on_sphere = true;
    c.sampler.batch = N;
    c.sampler.steps = 10;
    c.sampler.s2_start = 1e-4f;                  /* degrees 0: move k, from 0 on, has the variance        */
    c.sampler.s2_end = 1e-3f;                    /* 1e-3 0.1^(k/9)                                        */
    vgs_rng_normals(&r, x, (size_t)(N * dim));
    d.x = x;
    if (!(m = made(&c))) return -1;
    CHECK(!vgs_ebm_train(m, &d, 1, &s, &err), "%s", err.msg);
    vgs_ebm_free(m);
    return s.start_distance;
}

/* The mean angle between data and starts: as asked for, or that of the chain's last moves. */
static void near_starts(void)
{
    static const float degrees[3] = { 5, 20, 60 };
    int k, n;
    for (k = 0; k < 3; ++k)
        for (n = 1; n <= 10; n += 9) {
            T_IN("%g degrees in %d moves", (double)degrees[k], n);
            CHECK_NEAR(start_distance(64, degrees[k], n), (double)degrees[k], 0.04, 0);
        }
    T_IN("one move of the chain");
    CHECK_NEAR(start_distance(64, 0, 1), sqrt(63 * 1e-3) * 57.2957795, 0.04, 0);
    T_IN("two moves");
    CHECK_NEAR(start_distance(64, 0, 2), sqrt(63 * 1e-3 * (1 + pow(0.1, 1.0 / 9))) * 57.2957795, 0.04, 0);
}

/* ---- von Mises-Fisher: E = -kappa x_0 on the sphere ---------------------------------------------------- */

static vgs_var mises(void *user, vgs_graph *g, vgs_model *m, vgs_var x)
{
    (void)user;
    return vgs_affine(g, vgs_mul(g, vgs_cols(g, x, 0, 1), vgs_model_array(g, m, "kappa")), -1.0f, 0.0f);
}

/* Exact draws on S^{d-1}: the cosine by rejection [Wood 1994], the rest uniform. */
static void mises_rows(vgs_rng *r, double kappa, int d, int n, float *x)
{
    double b = (d - 1) / (2 * kappa + sqrt(4 * kappa * kappa + (d - 1.0) * (d - 1)));
    double x0 = (1 - b) / (1 + b), c = kappa * x0 + (d - 1) * log(1 - x0 * x0);
    int i, j;
    for (i = 0; i < n; ++i, x += d) {
        double w, z, norm = 0;
        do {                                     /* z ~ Beta((d-1)/2, (d-1)/2) from normals           */
            double u = 0, v = 0;
            float g[40];
            vgs_rng_normals(r, g, (size_t)(2 * (d - 1)));
            for (j = 0; j < d - 1; ++j) u += (double)(g[j] * g[j]), v += (double)(g[d - 1 + j] * g[d - 1 +
                                                                                                   j]);
            z = u / (u + v);
            w = (1 - (1 + b) * z) / (1 - (1 - b) * z);
        } while (kappa * w + (d - 1) * log(1 - x0 * w) - c < log(vgs_rng_uniform(r)));
        vgs_rng_normals(r, x, (size_t)d);
        for (j = 1; j < d; ++j) norm += (double)x[j] * (double)x[j];
        for (j = 1; j < d; ++j) x[j] = (float)((double)x[j] * sqrt((1 - w * w) / norm));
        x[0] = (float)w;
    }
}

/* The mean of x_0: I_{d/2}(kappa)/I_{d/2-1}(kappa), by quadrature over the cosine. */
static double mises_mean(double kappa, int d)
{
    double z = 0, sum = 0, u;
    int i;
    for (i = 0; i < 200000; ++i) {
        double p;
        u = -1 + 2 * (i + 0.5) / 200000;
        p = exp(kappa * (u - 1)) * pow(1 - u * u, 0.5 * (d - 3));
        z += p;
        sum += p * u;
    }
    return sum / z;
}

/* kappa that contrastive divergence finds from exact draws of `kappa`, and the mean of x_0 of its own draws
   over that of the kappa it has. */
static double mises_learned(int d, double kappa, float gamma, int divide, int n, double *draws)
{
    static const vgs_param_info list[1] = { { "kappa", 0, 0, 1 } };
    enum { N = 20000 };
    vgs_ebm_config c;
    vgs_data many = { NULL, NULL, NULL, N, 0 };
    vgs_rng r = { 11, 0, 0 };
    float w = (float)(0.7 * kappa), *x = (float *)malloc((size_t)(N * d) * sizeof *x);
    vgs_backend *b = vgs_cpu_create(NULL, &err);
    vgs_ebm *m;
    int i;
    memset(&c, 0, sizeof c);
    c.net.dim = d;
    c.record = mises;
    c.model = vgs_model_create_arrays(list, 1, &w, b, &err);
    c.objective = VGS_CD;
    c.gamma = gamma;
    c.divide = divide;
    c.lr = (float)(0.02 * kappa);
    c.decay = n;
    c.ema = 0.99f;
    c.sampler.on_sphere = true;
    c.sampler.backend = b;
    c.sampler.batch = 128;
    c.sampler.steps = 48;
    c.sampler.s2_start = 0.3f / (float)kappa;    /* small against the width of the density            */
    c.sampler.s2_end = 0.006f / (float)kappa;
    c.sampler.value_lr = 3e-3f;
    c.sampler.lr_half = 150;
    c.sampler.net.hidden = 32;
    many.x = x;
    many.dim = d;
    mises_rows(&r, kappa, d, N, x);
    if ((m = made(&c)) != NULL) {
        double sum = 0;
        CHECK(!vgs_ebm_train(m, &many, n, NULL, &err), "%s", err.msg);
        OK(!vgs_model_read(vgs_ebm_model(m, true), &w, &err));
        CHECK(!vgs_ebm_average(m, &err) && !vgs_ebm_sample(m, NULL, N, x, &err), "%s", err.msg);
        for (i = 0; i < N; ++i) sum += (double)x[i * d] / N;
        *draws = sum / mises_mean((double)w, d);
    }
    vgs_ebm_free(m);
    vgs_model_free(c.model);
    vgs_cpu_free(b);
    free(x);
    return (double)w;
}

static void von_mises_fisher(void)
{
    static const struct { int d; double kappa; } is[2] = { { 3, 5 }, { 10, 20 } };
    int k;
    for (k = 0; k < 2; ++k) {
        double draws = 0, biased, unused, found = mises_learned(is[k].d, is[k].kappa, 1e-30f, 1, 700, &draws);
        T_IN("S^%d", is[k].d - 1);
        CHECK_NEAR(found, is[k].kappa, 0.05, 0);
        CHECK_NEAR(draws, 1.0, 0.01, 0);
        biased = mises_learned(is[k].d, is[k].kappa, 1.0f, is[k].d, 150, &unused);
        CHECK(biased < 0.4 * is[k].kappa, "gamma 1 gives kappa %g of %g", biased, is[k].kappa);
        if (t_argc > 1) printf("S^%d: kappa %.3f of %g, mean of draws %.4f; with gamma 1 and e = E/D %.3f\n",
                               is[k].d - 1, found, is[k].kappa, draws, biased);
    }
}

/* gamma 0.01 with e = E/D biases, too: at rest pi/p = (1 + 2 gamma e)/(1 - 2 gamma e), here about -16 %. */
static void small_gamma(void)
{
    double draws = 0, found = mises_learned(3, 5, 0.01f, 3, 1000, &draws);
    CHECK(found > 0.80 * 5 && found < 0.88 * 5, "gamma 0.01 gives kappa %g of 5", found);
    if (t_argc > 1) printf("S^2: with gamma 0.01 and e = E/D kappa %.3f of 5\n", found);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    look.cpu = vgs_cpu_create(NULL, &err);
    make_rows();
    RUN(sphere_step);
    RUN(discrepancy_step);
    RUN(configurations);
    RUN(bits);
    RUN(no_allocations);
    RUN(rounds);
    RUN(callback);
    RUN(near_starts);
    RUN(recorded);
    RUN(bad_data);
    RUN(runs_away);
    RUN(fit_runs_away);
    RUN(shared);
    RUN(official_names);
    RUN(damaged);
    RUN(von_mises_fisher);
    if (t_argc > 1) RUN(small_gamma);            /* 19 s of the processor: by its name alone          */
    vgs_cpu_free(look.cpu);
    return t_end();
}
