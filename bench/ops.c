/* What every op of a graph costs by itself, forward and with its gradient, at sizes that samplers have:
   nanoseconds an element of its largest tensor, and GB/s of its operands, weights and result.
   cc -O2 bench/ops.c -o bench_ops -lm && ./bench_ops add exp          (--help: the options)
   cc -O2 -DVGS_USE_CL bench/ops.c -o bench_ops -lOpenCL -lm && ./bench_ops --device auto */
#define _POSIX_C_SOURCE 200809L
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#ifdef VGS_USE_CL
#include "../vgs_cl.h"
#endif
#include "clock.h"

#define SECONDS 0.004                             /* at least so long is each trial                    */
enum { TRIALS = 5, STEPS = 32, MOST = 64 };       /* rows of a table; points of particles           */

/* below > 0: integers in 0..below-1; else numbers in 0.1..0.9, where every op is finite */
typedef struct operand { vgs_var v; int below; } operand;

typedef struct bench {
    vgs_backend *backend;
    vgs_graph *g;                                 /* one for all: it is reset for each op              */
    vgs_model *net, *average, *arrays;            /* two networks of `cols` inputs; bare arrays        */
    vgs_energy energy;                            /* a C callback                                      */
    vgs_buffer *weights;                          /* what vgs_params are bound to                      */
    float *host;                                  /* room for a tensor on its way                      */
    double weight;                                /* elements of weights and tables that the op reads  */
    int rows, cols, operands;
    operand operand[4];                         /* the gradient is that of the first                 */
} bench;

static void die(const vgs_error *err)
{
    fprintf(stderr, "bench_ops: %s: %s\n", vgs_status_name(err->code), err->msg);
    exit(1);
}

/* ==== operands ====================================================================================== */

static vgs_var operand_add(bench *k, vgs_var v, int below)
{
    k->operand[k->operands].v = v;
    k->operand[k->operands++].below = below;
    return v;
}
static vgs_var wide(bench *k, int cols) { return operand_add(k, vgs_input(k->g, cols), 0); }
static vgs_var input(bench *k) { return wide(k, k->cols); }
static vgs_var index_to(bench *k, int below) { return operand_add(k, vgs_index(k->g), below); }

static vgs_var weights(bench *k, int n)           /* [1,n], bound to a buffer of ours                  */
{
    vgs_error err;
    vgs_var w = vgs_params(k->g, n);
    if (w.id && vgs_bind(k->g, w, k->weights, 0, &err)) die(&err);
    k->weight += n;
    return w;
}
static vgs_model *model(bench *k, vgs_model *m)
{
    k->weight += vgs_model_size(m);
    return m;
}
static vgs_var matrix(bench *k, vgs_var w) { return vgs_view(k->g, w, 0, k->cols, k->cols, k->cols); }
static vgs_var vector(bench *k, vgs_var w, int i)
{
    return vgs_view(k->g, w, i * k->cols, 1, k->cols, k->cols);
}
static vgs_scalar scalar(bench *k, double value) { return vgs_scalar_create(k->g, value); }

static vgs_noise noise(bench *k)
{
    vgs_noise n = vgs_noise_create(k->g);
    vgs_noise_set(k->g, &n, 1, 64, 0, 0, 0);
    return n;
}

static int points(const bench *k) { return k->cols < 16 ? 2 : k->cols / 8; }

/* ==== the ops ======================================================================================= */

static vgs_var affine(bench *k) { return vgs_affine(k->g, input(k), 1.5f, 0.5f); }
static vgs_var affine_by(bench *k)
{
    return vgs_affine_by(k->g, input(k), scalar(k, 1.5), scalar(k, 0.5));
}
static vgs_var combine(bench *k) { vgs_var x = input(k); return vgs_combine(k->g, x, 1.5f, input(k), 0.5f); }
static vgs_var combine_by(bench *k)
{
    vgs_var x = input(k);
    return vgs_combine_by(k->g, x, scalar(k, 1.5), input(k), scalar(k, 0.5));
}
static vgs_var clamp(bench *k) { return vgs_clamp(k->g, input(k), 0.3f, 0.7f); }
static vgs_var mask_above(bench *k)
{
    vgs_var x = input(k);
    return vgs_mask_above(k->g, x, wide(k, 1), 0.5f);
}
static vgs_var fill(bench *k) { return vgs_fill(k->g, -1, k->cols, 1.0f); }
static vgs_var fill_int(bench *k) { return vgs_fill_int(k->g, -1, scalar(k, 3)); }
static vgs_var limit_rows(bench *k) { return vgs_limit_rows(k->g, input(k), scalar(k, 0.5)); }
static vgs_var loss_of(bench *k)
{
    vgs_var x = input(k);
    return vgs_loss_of(k->g, x, input(k), VGS_SMOOTH_L1);
}

static vgs_var linear(bench *k)
{
    vgs_var x = input(k), w = weights(k, (k->cols + 1) * k->cols);
    return vgs_linear(k->g, x, matrix(k, w), vector(k, w, k->cols));
}
static vgs_var linear_at(bench *k)
{
    vgs_var x = input(k), w = weights(k, k->cols * k->cols);
    vgs_var table = vgs_table(k->g, k->host, STEPS, k->cols);
    k->weight += STEPS * k->cols;
    return vgs_linear_at(k->g, x, matrix(k, w), table, index_to(k, STEPS));
}
static vgs_var matmul(bench *k)
{
    vgs_var x = input(k);
    return vgs_matmul(k->g, x, matrix(k, weights(k, k->cols * k->cols)));
}
static vgs_var layernorm(bench *k)
{
    vgs_var x = input(k), w = weights(k, 2 * k->cols);
    return vgs_layernorm(k->g, x, vector(k, w, 0), vector(k, w, 1));
}

/* reshape and cols move nothing: what reads through them is timed, and what their gradients copy. */
static vgs_var reshape(bench *k) { return vgs_square(k->g, vgs_reshape(k->g, input(k), k->cols / 2)); }
static vgs_var cols(bench *k) { return vgs_square(k->g, vgs_cols(k->g, input(k), 0, k->cols / 2)); }
static vgs_var steps(bench *k)                    /* a row for each of some steps, as gather reads them */
{
    return operand_add(k, vgs_state(k->g, STEPS, k->cols, VGS_F32), 0);
}
static vgs_var gather(bench *k) { vgs_var x = steps(k); return vgs_gather(k->g, x, index_to(k, STEPS)); }
static vgs_var gather_fixed(bench *k)             /* by an index that is part of the graph             */
{
    int32_t last_first[STEPS];
    vgs_var x = steps(k);
    int i;
    for (i = 0; i < STEPS; ++i) last_first[i] = STEPS - 1 - i;
    return vgs_gather(k->g, x, vgs_table_int(k->g, last_first, STEPS, 1));
}

typedef vgs_var segment_fn(vgs_graph *g, vgs_var x, int n, const int32_t *which, int m);
static vgs_var segments(bench *k, segment_fn *op) /* each sample's points, last first                  */
{
    int32_t which[MOST];
    int n = points(k), i;
    for (i = 0; i < n; ++i) which[i] = n - 1 - i;
    return op(k->g, vgs_reshape(k->g, input(k), k->cols / n), n, which, n);
}
static vgs_var segment_gather(bench *k) { return segments(k, vgs_segment_gather); }
static vgs_var segment_sum(bench *k) { return segments(k, vgs_segment_sum); }
/* A row is an image of 4 x 8 pixels; a short one has 2 rows of pixels with one channel. */
static int channels(const bench *k) { return k->cols >= 64 ? k->cols / 32 : 1; }
static vgs_var picture(bench *k, vgs_window *p, int size, int stride)
{
    int around = size / 2, height = k->cols >= 64 ? 4 : 2;
    *p = (vgs_window){ .height = height, .width = k->cols / channels(k) / height, .size = size,
                       .stride = stride, .top = around, .left = around, .bottom = around, .right = around };
    return vgs_reshape(k->g, input(k), channels(k));
}
static vgs_var conv2d(bench *k)
{
    vgs_window p;
    vgs_var x = picture(k, &p, 3, 2), w = weights(k, 81 * channels(k));
    return vgs_conv2d(k->g, x, &p, vgs_view(k->g, w, 0, 9, 9 * channels(k), 9 * channels(k)),
                      (vgs_var){ 0 }, 1);
}
static vgs_var depthwise(bench *k)
{
    vgs_window p;
    vgs_var x = picture(k, &p, 3, 1), w = weights(k, 9 * channels(k));
    return vgs_depthwise(k->g, x, &p, vgs_view(k->g, w, 0, 9, channels(k), channels(k)));
}
static vgs_var avg_pool(bench *k)
{
    vgs_window p;
    vgs_var x = picture(k, &p, 3, 2);
    return vgs_avg_pool(k->g, x, &p);
}
static vgs_var max_pool(bench *k)
{
    vgs_window p;
    vgs_var x = picture(k, &p, 3, 2);
    return vgs_max_pool(k->g, x, &p);
}
static vgs_var resize(bench *k)
{
    vgs_window p;
    vgs_var x = picture(k, &p, 1, 1);
    return vgs_resize(k->g, x, p.height, p.width, 3, 5, false);
}
static vgs_var pair_distance(bench *k) { return vgs_pair_distance(k->g, input(k), points(k)); }
static vgs_var remove_mean(bench *k) { return vgs_remove_mean(k->g, input(k), points(k)); }

static vgs_var normal(bench *k) { vgs_noise n = noise(k); return vgs_normal(k->g, k->cols, &n); }
static vgs_var permutation(bench *k)
{
    vgs_noise n = noise(k);
    return vgs_permutation(k->g, k->rows, scalar(k, 0), &n);
}
static vgs_var resample(bench *k) { vgs_noise n = noise(k); return vgs_resample(k->g, wide(k, 1), &n); }

static int half_square(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i) {
        const float *row = x + (size_t)i * (size_t)dim;
        e[i] = 0.0f;
        for (j = 0; j < dim; ++j) e[i] += 0.5f * row[j] * row[j];
        if (g) memcpy(g + (size_t)i * (size_t)dim, row, (size_t)dim * sizeof *g);
    }
    return 0;
}
static vgs_var energy_of(bench *k) { return vgs_energy_of(k->g, &k->energy, input(k)); }

/* effects: what they write is the result */
static vgs_var assign(bench *k)
{
    vgs_var state = vgs_state(k->g, -1, k->cols, VGS_F32);
    vgs_assign(k->g, state, input(k));
    return state;
}
static vgs_var assign_rows(bench *k)
{
    vgs_var state = vgs_state(k->g, -1, k->cols, VGS_F32);
    vgs_assign_rows(k->g, state, scalar(k, 0), input(k));
    return state;
}
static vgs_var gradient_params(bench *k)          /* a product, and d(its sum)/d(weights)              */
{
    vgs_var x = input(k), w = weights(k, k->cols * k->cols);
    vgs_var grad = vgs_state(k->g, 1, k->cols * k->cols, VGS_F32);
    vgs_gradient_params(k->g, vgs_linear(k->g, x, matrix(k, w), (vgs_var){ 0 }), w, grad);
    return grad;
}

static vgs_var model_apply(bench *k)
{
    return vgs_model_apply(k->g, model(k, k->net), input(k), (vgs_var){ 0 });
}
static vgs_var model_weights(bench *k) { return vgs_square(k->g, vgs_model_weights(k->g, model(k, k->net))); }
static vgs_var model_array(bench *k)
{
    vgs_var x = input(k);
    return vgs_linear(k->g, x, vgs_model_array(k->g, model(k, k->arrays), "weight"), (vgs_var){ 0 });
}
static vgs_var descend(bench *k)
{
    vgs_var loss = vgs_mean_rows(k->g, vgs_square(k->g, model_apply(k)));
    vgs_descend(k->g, loss, k->net, scalar(k, 1e-6), 1.0f);
    return loss;
}
static vgs_var ema(bench *k)
{
    vgs_ema(k->g, k->average, model(k, k->net), 0.9f);
    return vgs_model_weights(k->g, k->average);
}
static vgs_var check(bench *k) { vgs_var x = input(k); vgs_check(k->g, x, k->net); return x; }

/* How the op is recorded: one of three. */
typedef struct row {
    const char *name;
    vgs_var (*unary)(vgs_graph *g, vgs_var x);
    vgs_var (*binary)(vgs_graph *g, vgs_var a, vgs_var b);
    vgs_var (*record)(bench *k);
    bool flat, integers;                          /* has no gradient; its result is int32              */
} row;

static const row rows_of_table[] = {
    { "add", .binary = vgs_add }, { "sub", .binary = vgs_sub }, { "mul", .binary = vgs_mul },
    { "div", .binary = vgs_div }, { "max", .binary = vgs_max }, { "affine", .record = affine },
    { "affine_by", .record = affine_by },
    { "combine", .record = combine, .flat = true }, { "combine_by", .record = combine_by, .flat = true },
    { "exp", .unary = vgs_exp }, { "log", .unary = vgs_log }, { "sqrt", .unary = vgs_sqrt },
    { "square", .unary = vgs_square }, { "reciprocal", .unary = vgs_reciprocal },
    { "abs", .unary = vgs_abs }, { "sin", .unary = vgs_sin }, { "cos", .unary = vgs_cos },
    { "relu", .unary = vgs_relu }, { "silu", .unary = vgs_silu }, { "softplus", .unary = vgs_softplus },
    { "sigmoid", .unary = vgs_sigmoid }, { "tanh", .unary = vgs_tanh }, { "clamp", .record = clamp },
    { "mask_above", .record = mask_above, .flat = true }, { "fill", .record = fill, .flat = true },
    { "fill_int", .record = fill_int, .flat = true, .integers = true },
    { "limit_rows", .record = limit_rows, .flat = true }, { "loss_of", .record = loss_of },
    { "linear", .record = linear }, { "linear_at", .record = linear_at }, { "matmul", .record = matmul },
    { "sum_cols", .unary = vgs_sum_cols }, { "mean_cols", .unary = vgs_mean_cols },
    { "sum_rows", .unary = vgs_sum_rows }, { "mean_rows", .unary = vgs_mean_rows },
    { "logsumexp", .unary = vgs_logsumexp }, { "layernorm", .record = layernorm },
    { "reshape", .record = reshape }, { "cols", .record = cols }, { "concat", .binary = vgs_concat },
    { "gather", .record = gather }, { "gather_fixed", .record = gather_fixed },
    { "segment_gather", .record = segment_gather }, { "segment_sum", .record = segment_sum },
    { "conv2d", .record = conv2d }, { "depthwise", .record = depthwise }, { "avg_pool", .record = avg_pool },
    { "max_pool", .record = max_pool }, { "resize", .record = resize },
    { "pair_distance", .record = pair_distance }, { "remove_mean", .record = remove_mean },
    { "sort_cols", .unary = vgs_sort_cols },
    { "sphere_tangent", .binary = vgs_sphere_tangent, .flat = true },
    { "sphere_move", .binary = vgs_sphere_move, .flat = true },
    { "normal", .record = normal, .flat = true },
    { "permutation", .record = permutation, .flat = true, .integers = true },
    { "resample", .record = resample, .flat = true, .integers = true },
    { "energy_of", .record = energy_of }, { "assign", .record = assign, .flat = true },
    { "assign_rows", .record = assign_rows, .flat = true },
    { "gradient_params", .record = gradient_params, .flat = true },
    { "model_apply", .record = model_apply }, { "model_weights", .record = model_weights, .flat = true },
    { "model_array", .record = model_array }, { "descend", .record = descend, .flat = true },
    { "ema", .record = ema, .flat = true }, { "check", .record = check, .flat = true }
};
enum { OPS = (int)(sizeof rows_of_table / sizeof *rows_of_table) };

/* ==== one graph ===================================================================================== */

typedef struct options {
    int rows, cols, threads;                      /* rows, cols: 0 = all                               */
    bool json, cpu;
    const char *device, *names[OPS];
    int n_names;
} options;

/* seconds: forward, and with the gradient (0 if there is none); of the forward graph the rest */
typedef struct cost { double seconds[2], elements, bytes; int launches; size_t memory; } cost;

static size_t elements_of(const bench *k, vgs_var v)
{
    int rows, cols;
    vgs_shape(k->g, v, &rows, &cols);
    return (size_t)(rows < 0 ? -rows * k->rows : rows) * (size_t)cols;
}

static void room(bench *k, size_t n)
{
    float *host = (float *)realloc(k->host, n * sizeof *host);
    if (!host) die(&(vgs_error){ VGS_E_NOMEM, "out of memory" });
    k->host = host;
}

/* The same numbers for every op */
static void numbers(bench *k, size_t n)
{
    vgs_rng r = { 1, 0, 0 };
    size_t i;
    room(k, n);
    for (i = 0; i < n; ++i) k->host[i] = 0.1f + 0.8f * (float)vgs_rng_uniform(&r);
}

static void set_operand(bench *k, const operand *o)
{
    size_t n = elements_of(k, o->v), i;
    vgs_rng r = { 2, 0, 0 };
    vgs_error err;
    if (!o->below) numbers(k, n);
    else {
        room(k, n);
        for (i = 0; i < n; ++i) {
            int32_t index = (int32_t)vgs_rng_below(&r, (uint32_t)o->below);
            memcpy(k->host + i, &index, sizeof index);
        }
    }
    if (vgs_set(k->g, o->v, k->host, k->rows, &err)) die(&err);
}

/* Records the op anew; y: its result, gx: its gradient if that is asked for. */
static void make_graph(bench *k, const row *r, bool gradient, vgs_var *y, vgs_var *gx)
{
    vgs_error err;
    vgs_var x;
    int i;
    vgs_graph_reset(k->g);
    k->operands = 0;
    k->weight = 0.0;
    numbers(k, (size_t)(k->rows > STEPS * k->cols ? k->rows : STEPS * k->cols));
    if (r->record) *y = r->record(k);
    else {
        x = input(k);
        *y = r->unary ? r->unary(k->g, x) : r->binary(k->g, x, input(k));
    }
    vgs_output(k->g, *y);
    if (gradient && vgs_gradient(k->g, *y, &k->operand[0].v, 1, gx) == VGS_OK) vgs_output(k->g, *gx);
    if (vgs_graph_status(k->g, &err) || vgs_graph_compile(k->g, k->backend, k->rows, &err)) {
        fprintf(stderr, "bench_ops: %s of [%d,%d]:\n", r->name, k->rows, k->cols);
        die(&err);
    }
    for (i = 0; i < k->operands; ++i) set_operand(k, &k->operand[i]);
}

/* What depends on weights and tables alone is computed again each time. */
static void run(bench *k, int times)
{
    bool prologue = vgs_graph_ops(k->g, true) > 0;
    vgs_error err;
    while (times--) {
        if (prologue) vgs_graph_touch(k->g);
        if (vgs_graph_run(k->g, k->rows, &err)) die(&err);
    }
    if (k->backend->finish(k->backend->self, &err)) die(&err);
}

/* The best of several trials; what is queued at once grows until it takes long enough. */
static double best_of(bench *k, const options *o)
{
    clockid_t clock = o->cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
    double best = 1e30;
    int times = 1, i = 0;
    run(k, 1);
    while (i < TRIALS) {
        double start = seconds_of(clock), seconds;
        run(k, times);
        seconds = seconds_of(clock) - start;
        if (seconds < SECONDS) {
            times *= 2;
            continue;
        }
        if (seconds / times < best) best = seconds / times;
        ++i;
    }
    return o->cpu ? best / o->threads : best;
}

/* A time is worth nothing if the result is wrong: it must be finite, or an index of a row. */
static void check_result(bench *k, const row *r, vgs_var v)
{
    size_t n = elements_of(k, v), i;
    vgs_error err;
    bool good = true;
    room(k, n);
    if (vgs_get(k->g, v, k->host, k->rows, &err) || vgs_model_check(k->net, &err)) die(&err);
    for (i = 0; i < n; ++i) {
        int32_t integer;
        memcpy(&integer, k->host + i, sizeof integer);
        good = good && (r->integers ? integer >= 0 && integer < k->rows : k->host[i] - k->host[i] == 0.0f);
    }
    if (good) return;
    fprintf(stderr, "bench_ops: %s of [%d,%d]: a result that is not finite, or no row\n", r->name, k->rows,
            k->cols);
    exit(1);
}

static cost measure(bench *k, const row *r, const options *o)
{
    cost c = { { 0, 0 }, 0, 0, 0, 0 };
    vgs_var y = { 0 }, gx = { 0 };
    int i;
    make_graph(k, r, false, &y, NULL);
    c.seconds[0] = best_of(k, o);
    c.launches = vgs_graph_ops(k->g, false) + vgs_graph_ops(k->g, true);
    c.memory = vgs_graph_bytes(k->g);
    c.bytes = 4.0 * k->weight;
    for (i = -1; i < k->operands; ++i) {
        double n = (double)elements_of(k, i < 0 ? y : k->operand[i].v);
        c.bytes += 4.0 * n;
        if (n > c.elements) c.elements = n;
    }
    check_result(k, r, y);
    if (r->flat) return c;
    make_graph(k, r, true, &y, &gx);
    c.seconds[1] = best_of(k, o);
    check_result(k, r, gx);
    return c;
}

static void print_cost(const bench *k, const row *r, const options *o, const cost *c, bool *first)
{
    double ns = 1e9 * c->seconds[0] / c->elements, both = 1e9 * c->seconds[1] / c->elements;
    double rate = 1e-9 * c->bytes / c->seconds[0];
    if (!o->json) {
        printf("%-16s %5d %4d %8d %9.1f %9.3f %8.2f", r->name, k->rows, k->cols, c->launches,
               1e-3 * (double)c->memory, ns, rate);
        if (!r->flat) printf(" %9.3f", both);
        printf("\n");
    } else {
        printf("%s\n  {\"op\": \"%s\", \"rows\": %d, \"cols\": %d, \"launches\": %d, \"bytes\": %.0f, "
               "\"ns_per_element\": %.4g, \"gb_per_second\": %.4g, \"gradient_ns_per_element\": ",
               *first ? "[" : ",", r->name, k->rows, k->cols, c->launches, (double)c->memory, ns, rate);
        if (r->flat) printf("null}");
        else printf("%.4g}", both);
    }
    *first = false;
    fflush(stdout);
}

/* ==== all of them =================================================================================== */

/* Networks and weights for tensors of `cols` columns */
static void open_models(bench *k)
{
    vgs_net_config net = { 0 };
    vgs_param_info array = { "weight", 0, 0, 0 };
    size_t n = (size_t)(k->cols + 2) * (size_t)k->cols;
    vgs_error err;
    net.dim = array.rows = array.cols = k->cols;
    net.hidden = 64;
    net.layers = 2;
    numbers(k, n);
    k->net = vgs_model_create(&net, k->backend, 1, &err);
    if (k->net) k->average = vgs_model_create(&net, k->backend, 2, &err);
    if (k->average) k->arrays = vgs_model_create_arrays(&array, 1, k->host, k->backend, &err);
    if (k->arrays) k->weights = k->backend->buffer_create(k->backend->self, n, &err);
    if (!k->weights || k->backend->upload(k->backend->self, k->weights, 0, k->host, n, VGS_F32, &err))
        die(&err);
    k->energy.eval = half_square;
    k->energy.dim = k->cols;
}

static void close_models(bench *k)
{
    vgs_graph_reset(k->g);                        /* before the models that it applies                 */
    vgs_model_free(k->net);
    vgs_model_free(k->average);
    vgs_model_free(k->arrays);
    k->backend->buffer_free(k->backend->self, k->weights);
    k->net = k->average = k->arrays = NULL;
    k->weights = NULL;
}

static bool picked(const options *o, const row *r)
{
    int i;
    for (i = 0; i < o->n_names; ++i) if (!strcmp(o->names[i], r->name)) return true;
    return o->n_names == 0;
}

static void measure_all(bench *k, const options *o)
{
    static const int rows[] = { 128, 2048 }, cols[] = { 2, 64, 512 };
    bool first = true;
    int c, r, i;
    if (!o->json)
        printf("op                rows cols launches        kB ns/elem.     GB/s +gradient\n");
    for (c = 0; c < (o->cols ? 1 : 3); ++c) {
        k->cols = o->cols ? o->cols : cols[c];
        open_models(k);
        for (i = 0; i < OPS; ++i)
            for (r = 0; r < (o->rows ? 1 : 2) && picked(o, &rows_of_table[i]); ++r) {
                cost of;
                k->rows = o->rows ? o->rows : rows[r];
                of = measure(k, &rows_of_table[i], o);
                print_cost(k, &rows_of_table[i], o, &of, &first);
            }
        close_models(k);
    }
    if (o->json) printf("\n]\n");
}

static vgs_backend *open_backend(options *o, vgs_error *err)
{
    vgs_cpu_config cpu = { 0, VGS_ISA_AUTO };
    vgs_backend *b;
    cpu.threads = o->threads;
#ifdef VGS_USE_CL
    if (o->device) {
        vgs_cl_config cl = { .device = o->device };
        return vgs_cl_create(&cl, err);
    }
#endif
    b = vgs_cpu_create(&cpu, err);
    if (b) o->threads = vgs_cpu_threads(b);
    return b;
}

static void close_backend(const options *o, vgs_backend *b)
{
#ifdef VGS_USE_CL
    if (o->device) {
        vgs_cl_free(b);
        return;
    }
#endif
    (void)o;
    vgs_cpu_free(b);
}

static int usage(int code)
{
    int i;
    FILE *to = code ? stderr : stdout;
    fprintf(to, "usage: bench_ops [NAME ...] [--rows N] [--cols N] [--threads N] [--cpu-time] [--device NAME]"
            " [--json]\n"
            "  --rows       only so many (default 128 and 2048)\n"
            "  --cols       only so many, even, a multiple of 8 from 16 to 512 (default 2, 64 and 512)\n"
            "  --threads    default 1\n"
            "  --cpu-time   seconds of the processor over threads, for a machine that others use\n"
            "  --device     an OpenCL device: auto, a number, a part of its name; a build with -DVGS_USE_CL\n"
            "  --json       a list of {op, rows, cols, launches, bytes, ns_per_element, gb_per_second,\n"
            "               gradient_ns_per_element}\n"
            "launches are of one run, bytes (kB) the memory that the graph takes; an element is one of the\n"
            "largest operand or result; the gradient's time has the op's own in it.\nNAME is one of:");
    for (i = 0; i < OPS; ++i) fprintf(to, "%s%s", i % 8 ? " " : "\n  ", rows_of_table[i].name);
    fputc('\n', to);
    return code;
}

static bool is_op(const char *name)
{
    int i;
    for (i = 0; i < OPS; ++i) if (!strcmp(rows_of_table[i].name, name)) return true;
    return false;
}

int main(int argc, char **argv)
{
    options o = { .threads = 1 };
    bench k = { .cols = 0 };
    vgs_error err;
    int i;
    for (i = 1; i < argc; ++i) {
        const char *a = argv[i];
        if (!strcmp(a, "--help")) return usage(0);
        else if (!strcmp(a, "--json")) o.json = true;
        else if (!strcmp(a, "--cpu-time")) o.cpu = true;
        else if (!strcmp(a, "--rows") && i + 1 < argc) o.rows = atoi(argv[++i]);
        else if (!strcmp(a, "--cols") && i + 1 < argc) o.cols = atoi(argv[++i]);
        else if (!strcmp(a, "--threads") && i + 1 < argc) o.threads = atoi(argv[++i]);
        else if (!strcmp(a, "--device") && i + 1 < argc) o.device = argv[++i];
        else if (is_op(a) && o.n_names < OPS) o.names[o.n_names++] = a;
        else return usage(2);
    }
    if (o.rows < 0 || o.rows > 1 << 20 || o.cols < 0 || o.cols > 512 || o.cols % (o.cols < 16 ? 2 : 8) ||
        o.threads < 1) return usage(2);
#ifndef VGS_USE_CL
    if (o.device) return usage(2);
#endif
    if (o.device && o.cpu) return usage(2);       /* the processor's time is not a device's            */
    k.backend = open_backend(&o, &err);
    k.g = k.backend ? vgs_graph_create(&err) : NULL;
    if (!k.g) die(&err);
    measure_all(&k, &o);
    vgs_graph_free(k.g);
    free(k.host);
    close_backend(&o, k.backend);
    return 0;
}
