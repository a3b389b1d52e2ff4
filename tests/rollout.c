/* cc -O2 tests/rollout.c -o rollout -lm && ./rollout
   What programs build on a sampler with: energies whose parameters change, the value, draws from given
   starts, a training iteration in its parts. Most checks ask for equal bits. Writes ./rollout.safetensors. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include <stdlib.h>

#define PATH "rollout.safetensors"
enum { T = 5, B = 64 };                          /* of the samplers here; two columns but where it says   */

static vgs_error err;
static vgs_backend *cpu;

/* ---- E = g^2 |x|^2 / 2, g a parameter -------------------------------------------------------------- */

typedef struct spring { vgs_model *m; vgs_buffer *bare; float g; int calls, fail_at; } spring;

static vgs_var spring_record(void *user, vgs_graph *g, vgs_var x)
{
    spring *p = (spring *)user;
    vgs_var gain = p->m ? vgs_model_array(g, p->m, "g") : vgs_params(g, 1);
    if (!p->m) vgs_bind(g, gain, p->bare, 0, NULL);
    return vgs_mul(g, vgs_sum_cols(g, vgs_square(g, x)), vgs_affine(g, vgs_square(g, gain), 0.5f, 0.0f));
}

/* The same as a callback; a call may be told to give NaN. */
static int spring_eval(void *user, const float *x, int n, int dim, float *e, float *grad)
{
    spring *p = (spring *)user;
    int i, j;
    ++p->calls;
    for (i = 0; i < n; ++i) {
        for (e[i] = 0, j = 0; j < dim; ++j) {
            e[i] += p->g * p->g * x[i * dim + j] * x[i * dim + j] / 2;
            if (grad) grad[i * dim + j] = p->g * p->g * x[i * dim + j];
        }
        if (p->calls == p->fail_at && i == 5) e[i] = -(float)INFINITY;
    }
    return 0;
}

static void spring_set(spring *p, float g)
{
    p->g = g;
    if (p->m) OK(vgs_model_write(p->m, &g, &err) == VGS_OK);
    if (p->bare) OK(cpu->upload(cpu->self, p->bare, 0, &g, 1, VGS_F32, &err) == VGS_OK);
}

/* Of a model, or of bare parameters. */
static void spring_open(spring *p, bool model, float g)
{
    vgs_param_info info = { "g", 0, 1, 1 };
    memset(p, 0, sizeof *p);
    if (model) p->m = vgs_model_create_arrays(&info, 1, NULL, cpu, &err);
    else p->bare = cpu->buffer_create(cpu->self, 1, &err);
    OK(p->m || p->bare);
    spring_set(p, g);
}

static void spring_close(spring *p)
{
    vgs_model_free(p->m);
    if (p->bare) cpu->buffer_free(cpu->self, p->bare);
}

/* ---- samplers --------------------------------------------------------------------------------------- */

static vgs_config small(spring *p, bool record)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    if (record) c.energy.record = spring_record;
    else c.energy.eval = spring_eval;
    c.energy.user = p;
    c.energy.dim = 2;
    c.energy.backend = c.backend = cpu;
    c.steps = T;
    c.s2_start = 0.3f;
    c.s2_end = 0.1f;
    c.batch = B;
    c.drift_max = 1e30f;
    c.sigma_lr = 1e-2f;
    c.net.hidden = 16;
    c.net.time_dim = 8;
    c.seed = 1;
    return c;
}

static vgs_sampler *create(const vgs_config *c)
{
    vgs_sampler *s = vgs_sampler_create(c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) exit(t_end());
    return s;
}

static void train(vgs_sampler *s, int n) { CHECK(!vgs_sampler_train(s, n, NULL, &err), "%s", err.msg); }
static void fit(vgs_sampler *s) { CHECK(!vgs_sampler_fit(s, &err), "%s", err.msg); }
static void rollout(vgs_sampler *s)
{
    CHECK(!vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err), "%s", err.msg);
}

static void draw(vgs_sampler *s, const vgs_draw *d, int n, float *x)
{
    CHECK(vgs_sampler_draw(s, d, n, x, &err) == VGS_OK, "%s", err.msg);
}

static vgs_draw plain(void)
{
    vgs_draw d;
    memset(&d, 0, sizeof d);
    return d;
}

/* All that training goes on from: networks, moments, s0, factors, the replay store, counters. */
typedef struct state { float *x; size_t n; double count[5]; } state;

static void state_add(state *st, vgs_sampler *s, vgs_buffer *from, size_t at, size_t n)
{
    st->x = (float *)realloc(st->x, (st->n + n) * sizeof *st->x);
    OK(!s->b->download(s->b->self, st->x + st->n, from, at, n, VGS_F32, &err));
    st->n += n;
}

static state state_of(vgs_sampler *s)
{
    size_t p = (size_t)vgs_model_size(s->online);
    state st;
    memset(&st, 0, sizeof st);
    state_add(&st, s, s->target->w, 0, p);
    state_add(&st, s, s->online->w, 0, p);
    state_add(&st, s, s->online->adam_m, 0, p);
    state_add(&st, s, s->online->adam_v, 0, p);
    state_add(&st, s, s->factor, 0, vgs__sampler_factor_count(s));
    state_add(&st, s, s->sigma, 0, 1);
    state_add(&st, s, s->sigma, 32, 1);
    state_add(&st, s, s->sigma, 48, 1);
    st.count[0] = (double)s->iteration;
    st.count[1] = (double)s->online->step;
    st.count[2] = (double)s->sigma_step;
    st.count[3] = (double)s->kept;
    if (!s->c.replay) return st;
    state_add(&st, s, s->mala_h, 0, 1);
    state_add(&st, s, s->replay_weight, 0, vgs__sampler_replay_rows(s));
    if (s->kept >= s->c.replay) state_add(&st, s, s->replay_x, 0, 2 * vgs__sampler_replay_rows(s));
    return st;
}

/* Frees both. */
static bool state_same(state a, state b)
{
    bool same = a.n == b.n && !memcmp(a.x, b.x, a.n * sizeof *a.x) &&
                !memcmp(a.count, b.count, sizeof a.count);
    free(a.x);
    free(b.x);
    return same;
}

static bool same_state(vgs_sampler *a, vgs_sampler *b) { return state_same(state_of(a), state_of(b)); }

/* to, of the same configuration, goes on as from does. */
static void copy_state(vgs_sampler *from, vgs_sampler *to)
{
    vgs__snapshot h;
    OK(!vgs__snapshot_make(from, &h, &err) && !vgs__snapshot_read(from, &h, &err) &&
       !vgs__snapshot_write(to, &h, &err));
    vgs__free(h.target);
    to->iteration = from->iteration;
    to->sigma_step = from->sigma_step;
    to->kept = from->kept;
    to->energy_calls = from->energy_calls;
}

/* ---- energies that change ---------------------------------------------------------------------------- */

/* What a sampler tells of its energy. */
typedef struct told {
    float x[100][2], path[T + 1][100][2], energy[100], traj[(T + 1) * B][2], e[100], grad[100][2];
    double log_weight[100], score[100];
    vgs_stats stats;
} told;

static void ask(vgs_sampler *s, told *out)
{
    static float ref[100][2];
    vgs_draw d = plain();
    int i;
    memset(out, 0, sizeof *out);
    for (i = 0; i < 100; ++i) ref[i][0] = 0.01f * (float)i, ref[i][1] = 0.3f - 0.004f * (float)i;
    d.path = &out->path[0][0][0];
    d.energy = out->energy;
    d.log_weight = out->log_weight;
    draw(s, &d, 100, &out->x[0][0]);
    CHECK(!vgs_sampler_score(s, NULL, 100, &ref[0][0], out->score, &err), "%s", err.msg);
    CHECK(!vgs_sampler_stats(s, &out->stats, &err), "%s", err.msg);
    OK(!vgs_energy_eval(&s->c.energy, &ref[0][0], 100, out->e, &out->grad[0][0], 1, &err));
    rollout(s);
    OK(!s->b->download(s->b->self, out->traj, s->traj_x, 0, 2 * (T + 1) * B, VGS_F32, &err));
}

static void check_told(const told *a, const told *b)
{
    OK(!memcmp(a->x, b->x, sizeof a->x) && !memcmp(a->path, b->path, sizeof a->path));
    OK(!memcmp(a->energy, b->energy, sizeof a->energy));
    OK(!memcmp(a->log_weight, b->log_weight, sizeof a->log_weight));
    OK(!memcmp(a->score, b->score, sizeof a->score));
    OK(!memcmp(a->traj, b->traj, sizeof a->traj));
    OK(!memcmp(a->e, b->e, sizeof a->e) && !memcmp(a->grad, b->grad, sizeof a->grad));
    OK(a->stats.elbo == b->stats.elbo && a->stats.energy_mean == b->stats.energy_mean &&
       a->stats.energy_min == b->stats.energy_min && a->stats.energy_max == b->stats.energy_max);
}

/* Without vgs_sampler_touch every call that asks for E says what is to be done. */
static void check_untouched(vgs_sampler *s)
{
    static float x[4][2], v[4];
    double w[4];
    vgs_stats stats;
#define UNTOUCHED(call) \
    CHECK((call) == VGS_E_ARG && strstr(err.msg, "vgs_sampler_touch"), #call ": %s", err.msg)
    UNTOUCHED(vgs_sampler_draw(s, NULL, 4, &x[0][0], &err));
    UNTOUCHED(vgs_sampler_score(s, NULL, 4, &x[0][0], w, &err));
    UNTOUCHED(vgs_sampler_train(s, 1, NULL, &err));
    UNTOUCHED(vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err));
    UNTOUCHED(vgs_sampler_fit(s, &err));
    UNTOUCHED(vgs_sampler_stats(s, &stats, &err));
#undef UNTOUCHED
    if (s->c.energy_features <= 0)               /* then V knows no E                                 */
        OK(vgs_sampler_value(s, 1, &x[0][0], 4, v, NULL, &err) == VGS_OK);
}

/* After a change of g a trained sampler tells, and learns, what one tells that was created with that g and
   has the same weights. */
static void changed_energy(bool model)
{
    static told before, after, want;
    int k;
    for (k = 0; k < 3; ++k) {                    /* ours, as published, everything at once            */
        spring p, q;
        vgs_config c;
        vgs_sampler *s, *other;
        spring_open(&p, model, 1);
        spring_open(&q, model, 3);
        c = small(&p, true);
        c.published = k == 1;
        if (k == 2) c.replay = 2, c.refine = 2, c.explore = 1.3f, c.local_noise = true;
        T_IN("%s, kind %d", model ? "model" : "bare parameters", k);
        s = create(&c);
        c.energy.user = &q;
        other = create(&c);
        train(s, 6);
        ask(s, &before);
        copy_state(s, other);
        spring_set(&p, 3);
        if (!model) {
            check_untouched(s);
            OK(vgs_sampler_touch(s, &err) == VGS_OK);
        }
        ask(s, &after);
        ask(other, &want);
        check_told(&after, &want);
        OK(memcmp(before.x, after.x, sizeof before.x) && memcmp(before.traj, after.traj, sizeof before.traj));
        OK(before.score[50] != after.score[50]);
        CHECK_NEAR(after.e[50], 9 * (double)before.e[50], 1e-6, 0);
        train(s, 5);
        train(other, 5);
        CHECK(same_state(s, other), "they learn different things");
        vgs_sampler_free(s);
        vgs_sampler_free(other);
        spring_close(&p);
        spring_close(&q);
    }
}
static void energy_of_a_model(void) { changed_energy(true); }
static void energy_of_bare_parameters(void) { changed_energy(false); }

/* In coordinates of its own a sampler draws by the state that measured best, by the energy as it is. kind: of
   a model, bare, a callback; points: features of E, whose graph binds the parameters once more. */
static void forgets_what_was_best(int kind, int points)
{
    static float x[4][2], v[4];
    const double two_pi = 6.283185307179586;
    spring p;
    vgs_config c;
    vgs_sampler *s, *other;
    vgs_stats stats;
    T_IN("kind %d, %d points", kind, points);
    spring_open(&p, kind == 0, 1);
    c = small(&p, kind < 2);
    c.steps = 16;
    c.s2_start = c.s2_end = 0.0f;
    c.coordinates = VGS_DIAGONAL;
    c.pilot_calls = 2000;
    c.energy_features = points;
    s = create(&c);
    train(s, 20);
    train(s, 30);
    OK(s->energy_since == 0);                    /* two calls are no change                           */
    OK(!vgs_sampler_stats(s, &stats, &err) && fabs(stats.elbo - log(two_pi)) < 0.1);
    rollout(s);
    spring_set(&p, 2);
    if (kind == 1) check_untouched(s);
    if (kind == 1 && points > 0)
        OK(vgs_sampler_value(s, 1, &x[0][0], 4, v, NULL, &err) == VGS_E_ARG &&
           strstr(err.msg, "vgs_sampler_touch"));
    if (kind > 0) OK(vgs_sampler_touch(s, &err) == VGS_OK);
    train(s, 30);
    OK(!vgs_sampler_save(s, PATH, NULL, &err));
    other = create(&c);
    CHECK(!vgs_sampler_load(other, PATH, &err), "%s", err.msg);
    train(s, 145);
    train(other, 145);
    CHECK(same_state(s, other), "resumed after the change");
    OK(!vgs_sampler_stats(s, &stats, &err));
    CHECK(fabs(stats.elbo - log(two_pi / 4)) < 0.4, "ELBO - log Z = %g", stats.elbo - log(two_pi / 4));
    vgs_sampler_free(s);
    vgs_sampler_free(other);
    spring_close(&p);
    remove(PATH);
}

static void best_of_another_energy(void)
{
    forgets_what_was_best(0, -1);
    forgets_what_was_best(1, 4);
    forgets_what_was_best(2, -1);
}

/* vgs_energy_eval and vgs_energy_check of a recorded energy are those of the callback; N rows are more than a
   block. */
static void recorded_energy(void)
{
    enum { N = 5000 };
    static float x[N][2], e[2][N], g[2][N][2], alone[N];
    double worst[2];
    spring p;
    vgs_energy en[2], wrong;
    int k, i;
    spring_open(&p, true, 1.5f);
    for (k = 0; k < 2; ++k) en[k] = small(&p, k == 1).energy;
    for (i = 0; i < N; ++i) x[i][0] = (float)sin(i), x[i][1] = 3 * (float)cos(3 * i);
    for (k = 0; k < 2; ++k) {
        OK(!vgs_energy_eval(&en[k], &x[0][0], N, e[k], &g[k][0][0], 1, &err));
        OK(!vgs_energy_eval(&en[k], &x[0][0], N, alone, NULL, 1, &err) && !memcmp(alone, e[k], sizeof alone));
        OK(!vgs_energy_eval(&en[k], NULL, 0, NULL, NULL, 1, &err));
        OK(!vgs_energy_check(&en[k], &x[0][0], 20, &worst[k], &err));
    }
    for (i = 0; i < N; ++i) {
        if (!CHECK_NEAR(e[1][i], e[0][i], 1e-6, 0)) break;
        if (!CHECK_NEAR(g[1][i][0], g[0][i][0], 1e-6, 0)) break;
        if (!CHECK_NEAR(g[1][i][1], g[0][i][1], 1e-6, 0)) break;
    }
    CHECK(worst[0] < 2e-3 && worst[1] < 2e-3, "differences %g and %g", worst[0], worst[1]);
    spring_set(&p, 3);
    OK(!vgs_energy_eval(&en[1], &x[0][0], 9, alone, NULL, 1, &err));
    for (i = 0; i < 9; ++i) CHECK_NEAR(alone[i], 4 * (double)e[0][i], 1e-6, 0);
    x[3][1] = (float)NAN;
    OK(vgs_energy_check(&en[1], &x[0][0], 20, &worst[1], &err) == VGS_E_NONFINITE &&
       strstr(err.msg, "point 3"));
    wrong = en[1];
    wrong.backend = NULL;                        /* its model is elsewhere                            */
    CHECK(vgs_energy_eval(&wrong, &x[0][0], 1, alone, NULL, 1, &err) == VGS_E_ARG &&
              strstr(err.msg, "backend"), "%s", err.msg);
    wrong = en[1];
    wrong.eval = spring_eval;
    OK(vgs_energy_eval(&wrong, &x[0][0], 1, alone, NULL, 1, &err) == VGS_E_ARG);
    wrong = en[1];
    wrong.dim = 0;
    OK(vgs_energy_eval(&wrong, &x[0][0], 1, alone, NULL, 1, &err) == VGS_E_ARG);
    spring_close(&p);
}

/* ---- the value ---------------------------------------------------------------------------------------- */

static void zero_weights(vgs_sampler *s)
{
    vgs_model *m = vgs_sampler_model(s);
    float *w = (float *)calloc((size_t)vgs_model_size(m), sizeof *w);
    OK(!vgs_model_write(m, w, &err));
    free(w);
}

/* Where the network gives 0 the value is tau |x|^2 / (2 v_t), v_t of the noising chain from length_scale^2
   on. */
static void value_of_zeros(void)
{
    enum { N = 1300 };
    static float x[N][2], v[N], g[N][2], v2[N];
    int k, t, i;
    for (i = 0; i < N; ++i) x[i][0] = (float)sin(i), x[i][1] = 3 * (float)cos(3 * i);
    for (k = 0; k < 4; ++k) {
        spring p;
        vgs_config c;
        vgs_sampler *s;
        float s2[T], a[T];
        double var;
        spring_open(&p, true, 1);
        c = small(&p, true);
        c.alpha = k & 1 ? VGS_VP : VGS_VE;
        c.scale_by_dim = k > 1;
        c.tau = 1.5f;
        c.length_scale = 1.7f;
        s = create(&c);
        zero_weights(s);
        vgs_schedule_fill(vgs_sampler_config(s), s2, a);
        for (var = 1.7 * 1.7, t = T - 1; t >= 0; --t) {
            T_IN("case %d, t %d", k, t);
            var = var / ((double)a[t] * (double)a[t]) + (double)s2[t];
            OK(!vgs_sampler_value(s, t, &x[0][0], N, v, &g[0][0], &err));
            OK(!vgs_sampler_value(s, t, &x[0][0], N, v2, NULL, &err));
            for (i = 0; i < N; ++i) {
                double r2 = (double)x[i][0] * (double)x[i][0] + (double)x[i][1] * (double)x[i][1];
                if (!CHECK_NEAR(v[i], 1.5 * r2 / (2 * var), 3e-6, 0)) break;
                if (!CHECK_NEAR(v2[i], v[i], 3e-7, 0)) break;
                if (!CHECK_NEAR(g[i][0], 1.5 * (double)x[i][0] / var, 3e-6, 1e-6)) break;
                if (!CHECK_NEAR(g[i][1], 1.5 * (double)x[i][1] / var, 3e-6, 1e-6)) break;
            }
        }
        vgs_sampler_free(s);
        spring_close(&p);
    }
}

/* Of a trained one: its gradient is its slope, it follows the weights, rows stand for themselves, a draw
   after it is what it was. For particles the gradient has no mean. */
static void value_gradient(void)
{
    enum { N = 700 };
    static float x[N][6], at[2][N][6], v[3][N], g[N][6], y[2][50][6];
    int k, i, j;
    for (i = 0; i < N * 6; ++i) x[i / 6][i % 6] = (float)sin(0.37 * i * i);
    for (k = 0; k < 4; ++k) {
        spring p;
        vgs_config c;
        vgs_sampler *s;
        int d = k == 3 ? 6 : 2, side;
        spring_open(&p, true, 1);
        c = small(&p, true);
        c.scale_by_dim = k == 1;
        c.published = k == 2;
        c.energy.dim = d;
        if (k == 3) c.energy.particles = 3;
        s = create(&c);
        T_IN("case %d", k);
        train(s, 5);
        draw(s, NULL, 50, &y[0][0][0]);
        OK(!vgs_sampler_value(s, 2, &x[0][0], N, v[0], &g[0][0], &err));
        draw(s, NULL, 50, &y[1][0][0]);
        OK(!memcmp(y[0], y[1], (size_t)(50 * d) * sizeof y[0][0][0]));
        OK(!vgs_sampler_value(s, 2, &x[0][0] + 650 * d, 50, v[1], NULL, &err));
        for (i = 0; i < 50; ++i) if (!CHECK_NEAR(v[1][i], v[0][650 + i], 1e-6, 1e-7)) break;
        for (j = 0; j < d && k < 3; ++j) {
            const float h = 0.01f;
            for (side = 0; side < 2; ++side) {
                memcpy(at[side], x, sizeof x);
                for (i = 0; i < N; ++i) (&at[side][0][0])[i * d + j] += side ? h : -h;
                OK(!vgs_sampler_value(s, 2, &at[side][0][0], N, v[1 + side], NULL, &err));
            }
            for (i = 0; i < N; ++i)
                if (!CHECK_NEAR((&g[0][0])[i * d + j],
                                ((double)v[2][i] - (double)v[1][i]) / (2 * (double)h), 5e-3, 2e-3)) break;
        }
        for (i = 0; i < N && k == 3; ++i)
            if (!CHECK_NEAR((double)g[i][0] + (double)g[i][2] + (double)g[i][4], 0, 0, 1e-6)) break;
        train(s, 1);
        OK(!vgs_sampler_value(s, 2, &x[0][0], N, v[1], &g[0][0], &err));
        OK(!vgs_sampler_value(s, 2, &x[0][0], N, v[2], NULL, &err));
        CHECK(v[1][3] != v[0][3] && v[2][3] != v[0][3], "the value of before the training");
        CHECK_NEAR(v[2][3], v[1][3], 1e-6, 1e-7);
        vgs_sampler_free(s);
        spring_close(&p);
    }
}

static void value_arguments(void)
{
    spring p;
    vgs_config c;
    vgs_sampler *s;
    float x[2] = { 0, 0 }, v;
    spring_open(&p, true, 1);
    c = small(&p, true);
    s = create(&c);
    OK(vgs_sampler_value(s, -1, x, 1, &v, NULL, &err) == VGS_E_ARG &&
       strstr(err.msg, "t = -1: must be 0..4"));
    OK(vgs_sampler_value(s, T, x, 1, &v, NULL, &err) == VGS_E_ARG && strstr(err.msg, "t = 5: must be 0..4"));
    OK(vgs_sampler_value(s, 0, x, -1, &v, NULL, &err) == VGS_E_ARG && strstr(err.msg, "n = -1"));
    OK(vgs_sampler_value(s, 0, NULL, 1, &v, NULL, &err) == VGS_E_ARG);
    OK(vgs_sampler_value(s, 0, x, 1, NULL, NULL, &err) == VGS_E_ARG);
    OK(vgs_sampler_value(s, 0, NULL, 0, NULL, NULL, &err) == VGS_OK);
    OK(vgs_sampler_value(s, T - 1, x, 1, &v, NULL, &err) == VGS_OK);
    vgs_sampler_free(s);
    spring_close(&p);
}

/* ---- draws from given starts -------------------------------------------------------------------------- */

/* A start that an own path had goes on as that path. */
static void start_of_a_path(void)
{
    enum { N = 700 };
    static float path[2][T + 1][N][2], x[2][N][2], e[2][N];
    int k;
    for (k = 0; k < 3; ++k) {
        spring p;
        vgs_config c;
        vgs_sampler *s;
        vgs_draw d = plain();
        spring_open(&p, true, 1);
        c = small(&p, true);
        c.published = k == 1;
        c.local_noise = k == 2;
        c.correct = k == 0 ? 3 : 0;              /* takes no part where there are no weights          */
        s = create(&c);
        T_IN("case %d", k);
        train(s, 4);
        d.seed = 7;
        d.first_row = 100;
        d.correct = -1;
        d.path = &path[0][0][0][0];
        d.energy = e[0];
        draw(s, &d, N, &x[0][0][0]);
        d.start = &path[0][0][0][0];
        d.correct = 0;
        d.path = &path[1][0][0][0];
        d.energy = e[1];
        draw(s, &d, N, &x[1][0][0]);
        OK(!memcmp(x[0], x[1], sizeof x[0]) && !memcmp(path[0], path[1], sizeof path[0]));
        OK(!memcmp(e[0], e[1], sizeof e[0]));
        d.seed = 8;
        draw(s, &d, N, &x[1][0][0]);
        OK(memcmp(x[0], x[1], sizeof x[0]) && !memcmp(path[0][0], path[1][0], sizeof path[0][0]));
        vgs_sampler_free(s);
        spring_close(&p);
    }
}

static void start_refused(void)
{
    enum { N = 700 };
    static float start[N][2], x[N][2];
    static double w[N];
    spring p;
    vgs_config c;
    vgs_sampler *s;
    vgs_draw d = plain();
    spring_open(&p, true, 1);
    c = small(&p, true);
    s = create(&c);
    d.start = &start[0][0];
    start[577][1] = (float)NAN;
    CHECK(vgs_sampler_draw(s, &d, N, &x[0][0], &err) == VGS_E_NONFINITE &&
              strstr(err.msg, "row 577, column 1"), "%s", err.msg);
    start[577][1] = 0;
    start[2][0] = -(float)INFINITY;
    CHECK(vgs_sampler_draw(s, &d, N, &x[0][0], &err) == VGS_E_NONFINITE && strstr(err.msg, "row 2, column 0"),
          "%s", err.msg);
    start[2][0] = 0;
    draw(s, &d, N, &x[0][0]);
    d.log_weight = w;
    CHECK(vgs_sampler_draw(s, &d, N, &x[0][0], &err) == VGS_E_ARG &&
              strstr(err.msg, "given starts: x_0 has no density"), "%s", err.msg);
    d.resample = 0.5f;
    OK(vgs_sampler_draw(s, &d, N, &x[0][0], &err) == VGS_E_ARG);
    d = plain();
    d.start = &start[0][0];
    d.correct = 2;
    OK(vgs_sampler_draw(s, &d, N, &x[0][0], &err) == VGS_E_ARG && strstr(err.msg, "correct"));
    vgs_sampler_free(s);
    spring_close(&p);
}

/* Starts of particles lose their mean, those on a sphere get length 1. */
static void start_in_a_subspace(void)
{
    static float path[2][T + 1][B][6], x[2][B][6], start[B][6], rolled[B][6];
    int k, i, j;
    for (k = 0; k < 2; ++k) {
        spring p;
        vgs_config c;
        vgs_sampler *s;
        vgs_draw d = plain();
        spring_open(&p, true, 1);
        c = small(&p, true);
        c.energy.dim = 6;
        if (k) c.on_sphere = true, c.sigma_lr = 0;
        else c.energy.particles = 3, c.net.wrapper = VGS_WRAPPER_SORTED;
        s = create(&c);
        T_IN("%s", k ? "sphere" : "particles");
        d.path = &path[0][0][0][0];
        draw(s, &d, B, &x[0][0][0]);
        for (i = 0; i < B; ++i)
            for (j = 0; j < 6; ++j)
                start[i][j] = k ? (float)(1 + i) * path[0][0][i][j]
                                : path[0][0][i][j] + (j % 2 ? 3.0f : (float)-i);
        d.start = &start[0][0];
        d.path = &path[1][0][0][0];
        draw(s, &d, B, &x[1][0][0]);
        for (i = 0; i < B; ++i)
            for (j = 0; j < 6; ++j) {
                if (!CHECK_NEAR(path[1][0][i][j], path[0][0][i][j], 0, 1e-5)) return;
                if (!CHECK_NEAR(x[1][i][j], x[0][i][j], 0, 1e-3)) return;
            }
        for (i = 0; i < B; ++i) {
            double sum = 0, mean = 0;
            for (j = 0; j < 6; ++j) sum += (double)path[1][0][i][j] * (double)path[1][0][i][j];
            for (j = 0; j < 6; j += 2) mean += (double)path[1][0][i][j];
            CHECK_NEAR(k ? sqrt(sum) - 1 : mean, 0, 0, 1e-6);
        }
        CHECK(!vgs_sampler_rollout(s, VGS_START_ROWS, &start[0][0], &err), "%s", err.msg);
        OK(!s->b->download(s->b->self, rolled, s->traj_x, 0, 6 * B, VGS_F32, &err));
        OK(!memcmp(rolled, path[1][0], sizeof rolled));              /* a rollout takes them the same way */
        memset(start[21], 0, sizeof start[21]);
        if (k) OK(vgs_sampler_draw(s, &d, B, &x[1][0][0], &err) == VGS_E_ARG && strstr(err.msg, "row 21"));
        else draw(s, &d, B, &x[1][0][0]);
        vgs_sampler_free(s);
        spring_close(&p);
    }
}

/* ---- a training iteration in its parts ---------------------------------------------------------------- */

static const struct kind {
    bool published, local_noise;
    int passes, replay, refine;
    float explore, slope;
} kinds[] = {
    { true, false, 1, 0, 0, 1, 0 },      { true, false, 2, 0, 0, 1.3f, 0 }, { false, false, 2, 0, 0, 1, 0 },
    { false, false, 1, 2, 2, 1.3f, 0 },  { false, true, 1, 2, 0, 1, 5 },    { false, true, 1, 0, 0, 1.3f, 0 }
};
enum { KINDS = (int)(sizeof kinds / sizeof *kinds) };

static vgs_config config_of(int k, spring *p, bool record)
{
    vgs_config c = small(p, record);
    c.published = kinds[k].published;
    c.local_noise = kinds[k].local_noise;
    c.passes = kinds[k].passes;
    c.replay = kinds[k].replay;
    c.refine = kinds[k].refine;
    c.explore = kinds[k].explore;
    c.slope_loss = kinds[k].slope;
    c.lr_half = 10;
    return c;
}

static void parts(void)
{
    int k, i;
    for (k = 0; k < KINDS; ++k) {
        spring p;
        vgs_config c;
        vgs_sampler *s, *other;
        spring_open(&p, true, 1.5f);
        c = config_of(k, &p, true);
        s = create(&c);
        other = create(&c);
        T_IN("kind %d", k);
        train(s, 12);
        for (i = 0; i < 12; ++i) { rollout(other); fit(other); }
        CHECK(same_state(s, other), "a rollout and a fit are no training iteration");
        CHECK(s->energy_calls == other->energy_calls, "%g and %g energies", s->energy_calls,
              other->energy_calls);
        OK(s->iteration == 12 && (!c.replay || s->kept > c.replay));
        rollout(other);                          /* one without a fit teaches nothing                 */
        CHECK(same_state(s, other), "a rollout alone learns");
        train(s, 3);
        train(other, 3);
        CHECK(same_state(s, other), "what follows differs");
        vgs_sampler_free(s);
        vgs_sampler_free(other);
        spring_close(&p);
    }
}

/* A graph of a program's own that assigns x to where `leaf` is bound, and one that reads it. */
typedef struct own { vgs_graph *g; vgs_var leaf, x; } own;

static own own_create(bool writes)
{
    own o;
    o.g = vgs_graph_create(&err);
    o.leaf = vgs_state(o.g, -1, 2, VGS_F32);
    o.x = vgs_input(o.g, 2);
    if (writes) vgs_assign(o.g, o.leaf, o.x);
    else vgs_output(o.g, o.x = vgs_affine(o.g, o.leaf, 2.0f, 0.0f));
    CHECK(!vgs_graph_compile(o.g, cpu, B, &err), "%s", err.msg);
    return o;
}

/* Rows given, and the same rows put in place by a graph: the same bits; s0 and the replay store stay. */
static void rows_and_placed(void)
{
    static float start[B][2], traj[2][(T + 1) * B][2], x[B][2];
    int k, i;
    for (i = 0; i < B; ++i) start[i][0] = (float)sin(i), start[i][1] = 2 * (float)cos(2 * i);
    for (k = 0; k < KINDS; ++k) {
        spring p;
        vgs_config c;
        vgs_sampler *s, *other;
        own write = own_create(true), read = own_create(false);
        float s0, now;
        int64_t kept;
        spring_open(&p, true, 1.5f);
        c = config_of(k, &p, true);
        s = create(&c);
        other = create(&c);
        T_IN("kind %d", k);
        train(s, 6);
        train(other, 6);
        kept = s->kept;
        OK(!s->b->download(s->b->self, &s0, s->sigma, 0, 1, VGS_F32, &err));
        OK(!vgs_sampler_bind(other, write.g, write.leaf, 0, &err));
        OK(!vgs_sampler_bind(other, read.g, read.leaf, T, &err));
        OK(!vgs_set(write.g, write.x, start, B, &err) && !vgs_graph_run(write.g, B, &err));
        CHECK(!vgs_sampler_rollout(s, VGS_START_ROWS, &start[0][0], &err), "%s", err.msg);
        CHECK(!vgs_sampler_rollout(other, VGS_START_PLACED, NULL, &err), "%s", err.msg);
        OK(!s->b->download(s->b->self, traj[0], s->traj_x, 0, 2 * (T + 1) * B, VGS_F32, &err));
        OK(!s->b->download(s->b->self, traj[1], other->traj_x, 0, 2 * (T + 1) * B, VGS_F32, &err));
        OK(!memcmp(traj[0], traj[1], sizeof traj[0]) && !memcmp(traj[0], start, sizeof start));
        for (i = 0; i < 2; ++i) {                /* the leaf stays bound                              */
            OK(!vgs_graph_run(read.g, B, &err) && !vgs_get(read.g, read.x, x, B, &err));
            OK(x[9][0] == 2 * traj[i][T * B + 9][0] && x[63][1] == 2 * traj[i][T * B + 63][1]);
            if (i) break;
            rollout(other);
            OK(!s->b->download(s->b->self, traj[1], other->traj_x, 0, 2 * (T + 1) * B, VGS_F32, &err));
            OK(memcmp(traj[0], traj[1], sizeof traj[0]) != 0);
        }
        OK(!vgs_graph_run(write.g, B, &err) && !vgs_sampler_rollout(other, VGS_START_PLACED, NULL, &err));
        fit(s);
        fit(other);
        CHECK(same_state(s, other), "they learn different things");
        OK(!s->b->download(s->b->self, &now, s->sigma, 0, 1, VGS_F32, &err));
        CHECK(now == s0 && s->kept == kept && s->iteration == 7, "s0 from %g to %g, kept %d", (double)s0,
              (double)now, (int)(s->kept - kept));
        train(s, 3);
        train(other, 3);
        CHECK(same_state(s, other), "what follows differs");
        vgs_sampler_free(s);
        vgs_sampler_free(other);
        vgs_graph_free(write.g);
        vgs_graph_free(read.g);
        spring_close(&p);
    }
}

static void part_arguments(void)
{
    static float start[B][2], x[B][2];
    spring p;
    vgs_config c;
    vgs_sampler *s;
    own o = own_create(false);
    vgs_graph *g = vgs_graph_create(&err);
    vgs_var wide = vgs_state(g, -1, 3, VGS_F32), fixed = vgs_state(g, B, 2, VGS_F32), none = { 0 };
    state before, after;
    spring_open(&p, true, 1);
    c = small(&p, true);
    s = create(&c);
#define NO_ROLLOUT() \
    CHECK(vgs_sampler_fit(s, &err) == VGS_E_ARG && strstr(err.msg, "no rollout"), "%s", err.msg)
    NO_ROLLOUT();
    train(s, 1);
    NO_ROLLOUT();
    rollout(s);
    fit(s);
    NO_ROLLOUT();
    rollout(s);
    draw(s, NULL, B, &x[0][0]);                  /* a draw between them is no trouble                 */
    fit(s);
    rollout(s);
    train(s, 1);
    NO_ROLLOUT();
    before = state_of(s);
    OK(vgs_sampler_rollout(s, VGS_START_ROWS, NULL, &err) == VGS_E_ARG && strstr(err.msg, "start = NULL"));
    OK(vgs_sampler_rollout(s, VGS_START_NOISE, &start[0][0], &err) == VGS_E_ARG && strstr(err.msg, "start"));
    OK(vgs_sampler_rollout(s, VGS_START_PLACED, &start[0][0], &err) == VGS_E_ARG);
    start[33][1] = (float)NAN;
    CHECK(vgs_sampler_rollout(s, VGS_START_ROWS, &start[0][0], &err) == VGS_E_NONFINITE &&
              strstr(err.msg, "row 33, column 1"), "%s", err.msg);
    NO_ROLLOUT();
    after = state_of(s);
    OK(state_same(before, after));
    OK(vgs_sampler_bind(s, o.g, o.leaf, -1, &err) == VGS_E_ARG && strstr(err.msg, "t = -1: must be 0..5"));
    OK(vgs_sampler_bind(s, o.g, o.leaf, T + 1, &err) == VGS_E_ARG && strstr(err.msg, "t = 6: must be 0..5"));
    OK(vgs_sampler_bind(s, g, wide, 0, &err) == VGS_E_SHAPE && strstr(err.msg, "[B,2]"));
    OK(vgs_sampler_bind(s, g, fixed, 0, &err) == VGS_E_SHAPE && vgs_sampler_bind(s, g, none, 0, &err));
#undef NO_ROLLOUT
    vgs_sampler_free(s);
    vgs_graph_free(o.g);
    vgs_graph_free(g);
    spring_close(&p);
}

/* Standard normal numbers of a stream of the sampler. */
static void normals(float *out, int stream, int64_t iteration, int t)
{
    vgs_graph *g = vgs_graph_create(&err);
    vgs_noise n = vgs_noise_create(g);
    vgs_var x = vgs_normal(g, 2, &n);
    vgs_output(g, x);
    OK(!vgs_graph_compile(g, cpu, B, &err));
    vgs_noise_set(g, &n, 1, stream, iteration, t, 0);
    OK(!vgs_graph_run(g, B, &err) && !vgs_get(g, x, out, B, &err));
    vgs_graph_free(g);
}

/* Contrastive divergence: the energy is updated between rollout and fit. The targets are those of the new
   one, along the steps that were taken with the old one. */
static void energy_between(void)
{
    static float x[(T + 1) * B][2], y[T * B], fresh[B][2];
    int k, i, j;
    for (k = 0; k < 2; ++k) {
        const int t = T - 1;
        const double old = 1.2 * 1.2, now = 3 * 3;
        spring p;
        vgs_config c;
        vgs_sampler *s;
        float f[4 * T];
        spring_open(&p, true, 1.2f);
        c = small(&p, true);
        c.published = k == 1;
        c.tau = 1.5f;
        s = create(&c);
        T_IN("%s", k ? "published" : "ours");
        train(s, 20);
        OK(!s->b->download(s->b->self, f, s->factor, 0, 4 * T, VGS_F32, &err));
        OK(k || (f[4 * t] != 1 && f[4 * t + 2] != 1));
        rollout(s);
        spring_set(&p, 3);
        fit(s);
        OK(!s->b->download(s->b->self, x, s->traj_x, 0, 2 * (T + 1) * B, VGS_F32, &err));
        OK(!s->b->download(s->b->self, y, s->traj_y, 0, T * B, VGS_F32, &err));
        normals(&fresh[0][0], VGS__FOR_TARGET, 20, t);
        for (i = 0; i < B; ++i) {
            double s2 = (double)s->s2[t], cost = 0, e = 0;
            for (j = 0; j < 2; ++j) {
                double from = (double)x[t * B + i][j], root = (double)f[4 * t + 2 + j];
                double mu = (double)f[4 * t + j] * s2 / 1.5 * old * from, to, u, eps;
                to = k ? from - mu + sqrt(s2) * (double)fresh[i][j] : (double)x[T * B + i][j];
                u = (to - from) / sqrt(s2);
                eps = (u + mu / sqrt(s2)) / root;
                e += now * to * to / 2;
                cost += k ? mu * mu / (2 * s2) : (u * u - eps * eps) / 2 - log(root);
            }
            if (!CHECK_NEAR(2 * (double)y[t * B + i], e + 1.5 * cost, 3e-5, 3e-5)) break;
        }
        vgs_sampler_free(s);
        spring_close(&p);
    }
}

/* ---- after an error ------------------------------------------------------------------------------------ */

/* Minus infinity in a rollout, in a fit or in training teaches nothing: then all goes on as if it had not
   been. */
static void after_an_error(void)
{
    int k, call, way, n;
    for (k = 0; k < KINDS; ++k)
        for (call = 1; call <= 2; ++call)        /* the rollout, its target                           */
            for (way = 0; way < 4; ++way) {
                spring p, q;
                vgs_config c, c2;
                vgs_sampler *s, *other;
                spring_open(&p, true, 1.5f);
                spring_open(&q, true, 1.5f);
                c = config_of(k, &p, false);
                c2 = config_of(k, &q, false);
                s = create(&c);
                other = create(&c2);
                n = way < 2 ? 11 : 12;           /* a detour; one that moves the factors of the last step */
                T_IN("kind %d, call %d, iteration %d, %s", k, call, n, way % 2 ? "in parts" : "training");
                train(s, n);
                train(other, n);
                p.fail_at = p.calls + call;
                if (way % 2 == 0) OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_E_NONFINITE);
                else {
                    vgs_status st = vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err);
                    OK(st == (call == 1 ? VGS_E_NONFINITE : VGS_OK));
                    OK(vgs_sampler_fit(s, &err) == (call == 1 ? VGS_E_ARG : VGS_E_NONFINITE));
                    OK(vgs_sampler_fit(s, &err) == VGS_E_ARG);
                }
                CHECK(same_state(s, other), "something was learned");
                train(s, 5);
                train(other, 5);
                CHECK(same_state(s, other), "the next training differs from one without the failure");
                vgs_sampler_free(s);
                vgs_sampler_free(other);
                spring_close(&p);
                spring_close(&q);
            }
}

/* The same of a recorded energy, whose parameter is NaN for a while: then all rows are outside. Draws and
   scores have weights of 0. */
static void after_a_bad_parameter(void)
{
    static told a, b;
    float x[8] = { 0 };
    double w[4];
    int bare;
    for (bare = 0; bare < 2; ++bare) {
        spring p, q;
        vgs_config c;
        vgs_sampler *s, *other;
        vgs_draw d = plain();
        d.log_weight = w;
        spring_open(&p, !bare, 1.5f);
        spring_open(&q, !bare, 1.5f);
        c = config_of(3, &p, true);
        s = create(&c);
        c.energy.user = &q;
        other = create(&c);
        T_IN("bare %d", bare);
        train(s, 7);
        train(other, 7);
        spring_set(&p, (float)NAN);
        if (bare) OK(!vgs_sampler_touch(s, &err));
        OK(vgs_sampler_train(s, 2, NULL, &err) == VGS_E_NONFINITE && strstr(err.msg, "the energy"));
        OK(vgs_sampler_draw(s, &d, 4, x, &err) == VGS_OK && w[0] < -DBL_MAX && w[3] < -DBL_MAX);
        OK(vgs_sampler_score(s, NULL, 4, x, w, &err) == VGS_OK && w[0] < -DBL_MAX && w[3] < -DBL_MAX);
        OK(vgs_sampler_rollout(s, VGS_START_NOISE, NULL, &err) == VGS_OK);
        OK(vgs_sampler_fit(s, &err) == VGS_E_NONFINITE && strstr(err.msg, "at all"));
        spring_set(&p, 1.5f);
        if (bare) OK(!vgs_sampler_touch(s, &err));
        CHECK(same_state(s, other), "something was learned");
        ask(s, &a);
        ask(other, &b);
        check_told(&a, &b);
        train(s, 5);
        train(other, 5);
        CHECK(same_state(s, other), "the next training differs from one without the failure");
        vgs_sampler_free(s);
        vgs_sampler_free(other);
        spring_close(&p);
        spring_close(&q);
    }
}

/* ---- names of before ----------------------------------------------------------------------------------- */

static void old_names(void)
{
    vgs_config c, r;
    char text[64];
    int i, n = 0;
    memset(&c, 0, sizeof c);
    OK(!vgs_field_set(&c, "one_step", "1", &err) && c.published);
    OK(!vgs_field_set(&c, "one_step", "0", &err) && !c.published);
    OK(vgs_field_set(&c, "one_step", "2", &err) == VGS_E_ARG && strstr(err.msg, "one_step"));
    OK(vgs_field_set(&c, "dim_effective", "3", &err) == VGS_E_ARG && strstr(err.msg, "the energy"));
    OK(vgs_field_set(&c, "no_base", "1", &err) && strstr(err.msg, "published"));
    OK(vgs_field_set(&c, "unclamped_drift", "1", &err) && strstr(err.msg, "published"));
    OK(vgs_field_set(&c, "nobase", "1", &err) && !strstr(err.msg, ";"));
    while (vgs_field_name(n)) OK(strcmp(vgs_field_name(n++), "one_step") != 0);
    for (i = -1; i <= n; i += n + 1) {
        OK(!vgs_field_name(i) && !vgs_field_help(i));
        memset(text, 'x', sizeof text);
        vgs_field_allowed(i, text);
        OK(text[0] == '\0');
        memset(text, 'x', sizeof text);
        vgs_field_get(&c, i, text);
        OK(text[0] == '\0');
    }
    for (i = 0; i < n; ++i) {
        static const char *const said[][2] = {
            { "steps", "1..65535" },   { "alpha", "ve vp" },        { "published", "0 or 1" },
            { "s2_start", "> 0" },     { "init_sigma", ">= 0" },    { "target_ema", ">= 0, < 1" },
            { "lambda", "0..1" },      { "energy_max", "finite" },  { "seed", "0..2^64-1" },
            { "time_dim", "even, 4..65536" } };
        size_t k;
        vgs_field_allowed(i, text);
        for (k = 0; k < sizeof said / sizeof *said; ++k)
            if (!strcmp(said[k][0], vgs_field_name(i)))
                CHECK(!strcmp(text, said[k][1]), "%s: %s", said[k][0], text);
    }
    c.energy.eval = spring_eval;                 /* a sphere has steps without factors                */
    c.energy.dim = 3;
    c.on_sphere = true;
    CHECK(!vgs_config_resolve(&c, &r, &err), "%s", err.msg);
    OK(!r.published && r.fixed_kernel && !r.explicit_drift && vgs__config_effective_dim(&r) == 2);
    CHECK_NEAR((double)r.length_scale, 3 / sqrt(2.0), 1e-6, 0);
}

/* Metadata of files that were written when the parts of `published` were switches of their own: what it still
   means is read, what nothing means any more is refused with a sentence, and then nothing changes. */
static void old_files(void)
{
#define ALL "one_step 1 fixed_kernel 1 explicit_drift 1"
    static const struct { const char *meta, *says; } list[] = {
        { ALL " no_base 1 value mlp", NULL },
        { ALL " no_base 0 value temb", NULL },
        { ALL " no_base 1 value deeper", NULL },
        { ALL " value temb energy_max 100 grad_max 1 unclamped_drift 1", NULL },
        { ALL " value temb energy_max 100 grad_max 1e30 unclamped_drift 0", NULL },
        { ALL " value temb grad_max 1 unclamped_drift 0", NULL },
        { "one_step 0 no_base 0 value mlp energy_max 100 unclamped_drift 0 skip_final_noise 0", NULL },
        { "one_step 0 no_base 1 value temb unclamped_drift 1", NULL },
        { "one_step 0 fixed_kernel 1 explicit_drift 1 value egnn", NULL },
        { "one_step 1 fixed_kernel 0 explicit_drift 1 no_base 1 value mlp", "one_step = 1 without fixed" },
        { "one_step 1 fixed_kernel 1 explicit_drift 0 no_base 1 value mlp", "one_step = 1 without fixed" },
        { "one_step 1 value temb", "one_step = 1 without fixed_kernel" },
        { ALL " no_base 0 value mlp", "no_base = 0" },
        { ALL " value egnn", "no_base = 0" },
        { "one_step 0 no_base 1 value mlp", "no_base = 1" },
        { "one_step 0 value temb energy_max 100 unclamped_drift 1", "unclamped_drift = 1" },
        { ALL " value temb energy_max 100 grad_max 1e30 unclamped_drift 1", "unclamped_drift = 1" },
        { ALL " value temb energy_max 100 grad_max 1 unclamped_drift 0", "unclamped_drift = 0" },
        { "one_step 0 value mlp skip_final_noise 1", "skip_final_noise = 1" } };
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        vgs_writer *w = vgs_writer_create(&err);
        vgs_config c, kept;
        char meta[160], *at, *end;
        int count = -1;
        T_IN("%s", list[i].meta);
        snprintf(meta, sizeof meta, "%s dim_effective 2 tau 1.5", list[i].meta);
        for (at = strtok(meta, " "); at && (end = strtok(NULL, " ")) != NULL; at = strtok(NULL, " "))
            vgs_writer_meta(w, at, end);
        CHECK(!vgs_writer_save(w, PATH, &err), "%s", err.msg);
        vgs_writer_free(w);
        memset(&c, 0, sizeof c);
        c.grad_max = 1;
        kept = c;
        if (!list[i].says) {
            CHECK(!vgs_checkpoint_config(PATH, &c, &count, &err), "%s", err.msg);
            OK(c.published == (strncmp(list[i].meta, "one_step 1", 10) == 0) && c.tau == 1.5f && count >= 2);
        } else {
            CHECK(vgs_checkpoint_config(PATH, &c, &count, &err) == VGS_E_FORMAT &&
                      strstr(err.msg, list[i].says) && strstr(err.msg, PATH), "%s", err.msg);
            OK(!memcmp(&c, &kept, sizeof c) && count == -1);
        }
    }
    remove(PATH);
#undef ALL
}

static vgs_var of_nothing(void *user, vgs_graph *g, vgs_var x)       /* E = 1, whatever x is           */
{
    int rows, cols;
    (void)user;
    vgs_shape(g, x, &rows, &cols);
    return vgs_fill(g, rows, 1, 1);
}

/* What a first reader tried. */
static void misuse(void)
{
    vgs_backend *other = vgs_cpu_create(NULL, &err);
    vgs_graph *g = vgs_graph_create(&err);
    vgs_energy e = { NULL, NULL, of_nothing, NULL, 2, 0, false, NULL };
    float x[4] = { 1, 2, 3, 4 }, v[2];
    vgs_config c;
    vgs_sampler *s;
    vgs_var in = vgs_input(g, 2), out = vgs_square(g, in);
    memset(&c, 0, sizeof c);
    c.energy = e;
    c.coordinates = VGS_PLAIN;
    c.steps = 3;
    c.batch = 4;
    s = vgs_sampler_create(&c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) return;
    OK(vgs_energy_eval(&e, x, 2, v, NULL, 1, &err) == VGS_OK && v[0] == 1 && v[1] == 1);
    OK(vgs_energy_eval(&e, x, -4, v, NULL, 1, &err) == VGS_E_ARG && strstr(err.msg, "n = -4"));
    OK(vgs_sampler_rollout(s, (vgs_start)7, NULL, &err) == VGS_E_ARG && strstr(err.msg, "from = 7"));
    vgs_output(g, out);
    OK(vgs_graph_compile(g, other, 4, &err) == VGS_OK && vgs_set(g, in, x, 2, &err) == VGS_OK &&
       vgs_graph_run(g, 2, &err) == VGS_OK);
    OK(vgs_bind(g, in, NULL, 0, &err) == VGS_E_ARG && vgs_graph_run(g, 2, &err) == VGS_OK);
    OK(vgs_sampler_bind(s, g, in, 0, &err) == VGS_E_ARG && strstr(err.msg, "another backend"));
    c.detail_scale = 5;
    c.steps = 0;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "detail_scale = 5"));
    vgs_sampler_free(s);
    vgs_graph_free(g);
    vgs_cpu_free(other);
}

int main(int argc, char **argv)
{
    vgs_cpu_config one = { 1, VGS_ISA_AUTO };
    t_begin(argc, argv);
    cpu = vgs_cpu_create(&one, &err);
    RUN(energy_of_a_model);
    RUN(energy_of_bare_parameters);
    RUN(best_of_another_energy);
    RUN(misuse);
    RUN(recorded_energy);
    RUN(value_of_zeros);
    RUN(value_gradient);
    RUN(value_arguments);
    RUN(start_of_a_path);
    RUN(start_refused);
    RUN(start_in_a_subspace);
    RUN(parts);
    RUN(rows_and_placed);
    RUN(part_arguments);
    RUN(energy_between);
    RUN(after_an_error);
    RUN(after_a_bad_parameter);
    RUN(old_names);
    RUN(old_files);
    vgs_cpu_free(cpu);
    return t_end();
}
