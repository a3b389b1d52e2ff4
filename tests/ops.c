/* cc -O2 tests/ops.c -o ops -lm && ./ops
   Every op of the table on every kernel against ref.h in double; every gradient against central differences
   of the same graph in double; the sticky errors of a recording. */
#include <stddef.h>
#include <stdlib.h>
/* absurd sizes fail alike everywhere */
#define VGS_MALLOC(bytes) ((bytes) > (size_t)1 << 30 ? NULL : malloc(bytes))
#define VGS_FREE(p)       free(p)
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"
#include "ref.h"

static vgs_rng rng = { 5, 0, 0 };
static float between(float lo, float hi) { return lo + (hi - lo) * (float)vgs_rng_uniform(&rng); }
static int below(int n) { return (int)vgs_rng_below(&rng, (uint32_t)n); }

/* ==== one op at a time: the same call on float buffers and on double buffers ======================== */

enum { OUT = VGS_MAX_IN, OUT2, SLOTS };          /* slots of a job: operands, then the outputs        */
#define GUARD 777.0f

typedef struct job {
    vgs_call cpu, ref;
    bool used[SLOTS], is_int[SLOTS];
    size_t size[SLOTS];
    bool dense;                                  /* ld = cols, for ops that ask for it                */
} job;

static bool ran[VGS_OP_COUNT];
static vgs_backend *cpu;
static double rel_tol, abs_tol;

static vgs_tensor *slot_of(vgs_call *c, int k)
{
    return k == OUT ? &c->out : k == OUT2 ? &c->out2 : &c->in[k];
}
static float *floats(const vgs_tensor *t) { return (float *)(void *)t->buf; }

static void start(job *q, int op)
{
    memset(q, 0, sizeof *q);
    q->cpu.op = q->ref.op = op;
    rel_tol = abs_tol = 3e-6;
}

/* A tensor at a random offset with a random stride, between guards; values come after. */
static void place(job *q, int k, int rows, int cols, bool is_int)
{
    vgs_tensor t;
    size_t i;
    t.rows = rows;
    t.cols = cols;
    t.ld = cols + (q->dense ? 0 : below(3));
    t.offset = (size_t)below(4);
    q->size[k] = t.offset + (size_t)rows * (size_t)t.ld + 3;
    t.buf = (vgs_buffer *)malloc(q->size[k] * sizeof(float));
    for (i = 0; i < q->size[k]; ++i) floats(&t)[i] = GUARD;
    *slot_of(&q->cpu, k) = t;
    t.buf = ref_create(NULL, q->size[k], NULL);
    *slot_of(&q->ref, k) = t;
    q->used[k] = true;
    q->is_int[k] = is_int;
}

static void set(job *q, int k, int r, int c, double v)
{
    const vgs_tensor *t = slot_of(&q->cpu, k);
    size_t at = t->offset + (size_t)r * (size_t)t->ld + (size_t)c;
    int32_t n = q->is_int[k] ? (int32_t)v : 0;
    if (q->is_int[k]) memcpy(floats(t) + at, &n, 4);
    else floats(t)[at] = (float)v;
    slot_of(&q->ref, k)->buf->x[at] = q->is_int[k] ? (double)n : (double)(float)v;
}

static void put(job *q, int k, int rows, int cols, float lo, float hi)
{
    int r, c;
    place(q, k, rows, cols, false);
    for (r = 0; r < rows; ++r) for (c = 0; c < cols; ++c) set(q, k, r, c, (double)between(lo, hi));
}

static void put_ints(job *q, int k, int rows, int cols, int limit)
{
    int r, c;
    place(q, k, rows, cols, true);
    for (r = 0; r < rows; ++r) for (c = 0; c < cols; ++c) set(q, k, r, c, below(limit > 0 ? limit : 1));
}

static void attr_f(job *q, int k, double v) { q->cpu.f[k] = q->ref.f[k] = (float)v; }
static void attr_i(job *q, int k, int v) { q->cpu.i[k] = q->ref.i[k] = v; }

static bool is_inside(const vgs_tensor *t, size_t at)
{
    size_t p = at - t->offset;
    return at >= t->offset && t->ld && p / (size_t)t->ld < (size_t)t->rows &&
           p % (size_t)t->ld < (size_t)t->cols;
}

static void compare(job *q, int k)
{
    const vgs_tensor *t = slot_of(&q->cpu, k), *u = slot_of(&q->ref, k);
    size_t at, bad = 0;
    for (at = 0; at < q->size[k]; ++at) {
        double want = u->buf->x[at], got = (double)floats(t)[at];
        int32_t n;
        memcpy(&n, floats(t) + at, 4);
        if (!is_inside(t, at)) bad += floats(t)[at] != GUARD;
        else if (q->is_int[k]) bad += (double)n != want;
        else if (!(isnan(want) ? isnan(got)
                               : got == want || fabs(got - want) <= abs_tol + rel_tol * fabs(want))) {
            if (!bad++)
                CHECK(false, "%s slot %d at %d: %.9g, want %.9g", vgs_op_name(q->cpu.op), k,
                      (int)(at - t->offset), got, want);
        }
    }
    CHECK(!bad, "%s slot %d: %d elements differ (cols %d, rows %d)", vgs_op_name(q->cpu.op), k, (int)bad,
          t->cols, t->rows);
}

static void run_both(job *q)
{
    vgs_error err = { VGS_OK, "" };
    q->cpu.energy = q->ref.energy;
    OK(vgs_cpu_run(cpu, &q->cpu, &err) == VGS_OK && ref_run(NULL, &q->ref, &err) == VGS_OK);
    ran[q->cpu.op] = true;
}

static void release(job *q)
{
    int k;
    for (k = 0; k < SLOTS; ++k) {
        if (!q->used[k]) continue;
        free(slot_of(&q->cpu, k)->buf);
        ref_free(NULL, slot_of(&q->ref, k)->buf);
    }
}

/* Runs both, compares every operand (effects change them) and output, frees. */
static void finish(job *q)
{
    int k;
    run_both(q);
    for (k = 0; k < SLOTS; ++k) if (q->used[k]) compare(q, k);
    release(q);
}

/* operands, ranges of a and b, attributes */
static const struct { int op, n; float lo, hi, lo_b, hi_b, f0, f1; int i0; } maps[] = {
#define MAP(ID, n, lo, hi, lo_b, hi_b, f0, f1, i0, expr) { VGS_OP_##ID, n, lo, hi, lo_b, hi_b, f0, f1, i0 },
    REF_MAPS(MAP)
#undef MAP
    { VGS_OP_SILU, 1, -30, 30, 0, 0, 0, 0, 1 },
    { VGS_OP_FILL, 0, 0, 0, 0, 0, 2.5f, 0, 1 },
    { VGS_OP_LOSS, 2, -3, 3, -3, 3, 0, 0, VGS_L1 },
    { VGS_OP_LOSS_GRAD, 2, -3, 3, -3, 3, 0, 0, VGS_L1 },
    { VGS_OP_LOSS, 2, -3, 3, -3, 3, 0, 0, VGS_SMOOTH_L1 },
    { VGS_OP_LOSS_GRAD, 2, -3, 3, -3, 3, 0, 0, VGS_SMOOTH_L1 }
};

/* shape 0..3: [r,c] [1,c] [r,1] [1,1] of a, of b; the output is what both stretch to */
static void one_map(size_t m, int r, int c, int shape_a, int shape_b)
{
    int ra = shape_a & 1 ? 1 : r, ca = shape_a & 2 ? 1 : c, rb = shape_b & 1 ? 1 : r,
        cb = shape_b & 2 ? 1 : c;
    job q;
    start(&q, maps[m].op);
    if (maps[m].n == 1) rb = ra, cb = ca;
    if (maps[m].n > 0) put(&q, 0, ra, ca, maps[m].lo, maps[m].hi);
    if (maps[m].n > 1) put(&q, 1, rb, cb, maps[m].lo_b, maps[m].hi_b);
    attr_f(&q, 0, (double)maps[m].f0);
    attr_f(&q, 1, (double)maps[m].f1);
    attr_i(&q, 0, maps[m].i0);
    place(&q, OUT, maps[m].n ? (ra == 1 ? rb : ra) : r, maps[m].n ? (ca == 1 ? cb : ca) : c, false);
    if (maps[m].op == VGS_OP_SILU && maps[m].i0)                     /* with its slope                 */
        place(&q, OUT2, ra, ca, false);
    finish(&q);
}

static void limit_act(job *q)                    /* of VGS_ACT_CLAMP                                   */
{
    attr_f(q, 0, -0.75);
    attr_f(q, 1, 1.5);
}

static void one_matmul(int form, int m, int n, int k, int bias, int act)     /* bias 1: row, 2: table */
{
    job q;
    start(&q, VGS_OP_MATMUL);
    abs_tol = 2e-5;
    put(&q, 0, form == VGS__TN ? k : m, form == VGS__TN ? m : k, -2, 2);
    put(&q, 1, form == VGS__NT ? n : k, form == VGS__NT ? k : n, -2, 2);
    if (bias) put(&q, 2, bias == 2 ? 4 : 1, n, -2, 2);
    q.dense = true;
    if (bias == 2) put_ints(&q, 3, m, 1, 4);
    q.dense = false;
    attr_i(&q, 0, form);
    attr_i(&q, 1, act);
    limit_act(&q);
    place(&q, OUT, m, n, false);
    finish(&q);
}

/* Weights as panels, and a product that takes them so. */
static void packed_matmul(int form, int m, int n, int k)
{
    int width = cpu->panel, padded = (n + width - 1) / width * width, rows = form == VGS__NT ? n : k, i, j;
    float *b = (float *)malloc((size_t)(padded * k) * sizeof *b);
    job q;
    ref_panel = width;
    start(&q, VGS_OP_PACK);
    put(&q, 0, rows, form == VGS__NT ? k : n, -2, 2);
    attr_i(&q, 0, form);
    attr_i(&q, 1, width);
    q.dense = true;
    place(&q, OUT, padded, k, false);
    run_both(&q);
    compare(&q, OUT);
    for (i = 0; i < padded * k; ++i) b[i] = floats(&q.cpu.out)[(int)q.cpu.out.offset + i];
    release(&q);
    start(&q, VGS_OP_MATMUL);
    abs_tol = 2e-5 + 3e-7 * k;                   /* rounding of k products                             */
    put(&q, 0, m, k, -2, 2);
    q.dense = true;
    place(&q, 1, padded, k, false);
    for (i = 0; i < padded; ++i) for (j = 0; j < k; ++j) set(&q, 1, i, j, (double)b[i * k + j]);
    q.dense = false;
    attr_i(&q, 0, form);
    attr_i(&q, 2, 1);
    place(&q, OUT, m, n, false);
    finish(&q);
    free(b);
}

/* A product of r samples' windows: n pixels before, m after, `places` pixels or gaps in each. */
static void windows_matmul(int r, int c, int n, int m, int places, int out)
{
    job q;
    int e, filled = 0;
    start(&q, VGS_OP_MATMUL);
    abs_tol = 2e-5;
    put(&q, 0, r * n, c, -2, 2);
    put(&q, 1, out, places * c, -2, 2);
    put(&q, 2, 1, out, -2, 2);
    q.dense = true;
    place(&q, 4, m * places + 1, 1, true);
    place(&q, 5, m * places + 1, 2, true);
    q.dense = false;
    for (e = 0; e <= m * places; ++e) {
        bool there = e < m * places && below(4) > 0;
        set(&q, 4, e, 0, filled);
        set(&q, 5, e, 0, 0);
        set(&q, 5, e, 1, 0);
        if (there) set(&q, 5, filled++, 0, below(n));
    }
    attr_i(&q, 1, VGS_ACT_CLAMP);
    attr_i(&q, 3, n);
    attr_i(&q, 4, m);
    limit_act(&q);
    place(&q, OUT, r * m, out, false);
    finish(&q);
}

static void rows_ops(int r, int c)
{
    static const int reduce[] = { VGS_OP_SUM_COLS, VGS_OP_LOGSUMEXP, VGS_OP_SUM_ROWS, VGS_OP_SUM_ROWS };
    static const int norm[] = { VGS_OP_LAYERNORM, VGS_OP_LAYERNORM_HAT, VGS_OP_LAYERNORM_GRAD };
    int k, s;
    job q;
    for (k = 0; k < (r ? 4 : 3); ++k) {          /* the mean of no rows is nobody's concern           */
        start(&q, reduce[k]);
        abs_tol = 2e-5;
        put(&q, 0, r, c, k == 1 ? -90 : -3, k == 1 ? 90 : 3);
        attr_f(&q, 0, 0.7);
        attr_i(&q, 0, k == 3);
        place(&q, OUT, k < 2 ? r : 1, k < 2 ? 1 : c, false);
        finish(&q);
    }
    for (k = 0; k < 3; ++k) {
        start(&q, norm[k]);
        abs_tol = 3e-5;
        put(&q, 0, r, c, -2, 3);
        put(&q, 1, 1, c, 0.5f, 2);
        put(&q, 2, k == 2 ? r : 1, c, -1, 1);
        place(&q, OUT, r, c, false);
        finish(&q);
    }
    start(&q, VGS_OP_PAD_COLS);
    put(&q, 0, r, c, -1, 1);
    attr_i(&q, 0, 2);
    place(&q, OUT, r, c + 3, false);
    finish(&q);
    start(&q, VGS_OP_CONCAT);
    put(&q, 0, r, c, -1, 1);
    put(&q, 1, r, 2, -1, 1);
    place(&q, OUT, r, c + 2, false);
    finish(&q);
    start(&q, VGS_OP_GATHER);
    put(&q, 0, 5, c, -1, 1);
    put_ints(&q, 1, r, 1, 5);
    place(&q, OUT, r, c, false);
    finish(&q);
    start(&q, VGS_OP_SCATTER_ROWS);
    put(&q, 0, r, c, -1, 1);
    put_ints(&q, 1, r, 1, 5);                    /* any stride, as gather takes it                    */
    place(&q, OUT, 5, c, false);
    finish(&q);
    for (s = 0; s < 2; ++s) {                    /* sort and back: with ties, and without             */
        start(&q, VGS_OP_SORT_COLS);
        place(&q, 0, r, c, false);
        for (k = 0; k < r * c; ++k) set(&q, 0, k / c, k % c, s ? below(3) : (double)between(-2, 2));
        place(&q, OUT, r, c, false);
        place(&q, OUT2, r, c, true);
        finish(&q);
    }
    start(&q, VGS_OP_UNSORT_COLS);
    put(&q, 0, r, c, -1, 1);
    place(&q, 1, r, c, true);
    for (k = 0; k < r * c; ++k) set(&q, 1, k / c, k % c, (k % c * 1 + k / c) % c);
    place(&q, OUT, r, c, false);
    finish(&q);
    for (k = 0; k < 2; ++k) {            /* some rows longer than that; numbers whose squares overflow */
        start(&q, VGS_OP_LIMIT_ROWS);
        put(&q, 0, r, c, k ? 1e25f : -1, k ? 1e30f : 1);
        attr_f(&q, 0, k ? 2.5 : 0.5 * sqrt(c));
        place(&q, OUT, r, c, false);
        finish(&q);
    }
    for (k = 0; k < 3; ++k) {                    /* tangent; move; x/|x| */
        start(&q, k ? VGS_OP_SPHERE_MOVE : VGS_OP_SPHERE_TANGENT);
        put(&q, 0, r, c, 0.2f, 1);
        if (k < 2) put(&q, 1, r, c, -0.4f, 0.4f);
        abs_tol = 1e-5;
        place(&q, OUT, r, c, false);
        finish(&q);
    }
}

/* r samples of n rows become r samples of m rows */
static void segment_ops(int r, int c, int n, int m)
{
    job q;
    int e, i, k = 0;
    int32_t which[64], list[64], first[64];
    for (e = 0; e < m; ++e) which[e] = (int32_t)(e * 7 % n);
    for (i = 0; i <= n; ++i) {
        first[i] = k;
        for (e = 0; e < m && i < n; ++e) if (which[e] == i) list[k++] = e;
    }
    q.dense = true;
    start(&q, VGS_OP_SEGMENT_GATHER);
    put(&q, 0, r * n, c, -1, 1);
    q.dense = true;
    place(&q, 1, m, 1, true);
    q.dense = false;
    for (e = 0; e < m; ++e) set(&q, 1, e, 0, which[e]);
    attr_i(&q, 0, n);
    attr_i(&q, 1, m);
    place(&q, OUT, r * m, c, false);
    finish(&q);
    start(&q, VGS_OP_SEGMENT_SUM);
    put(&q, 0, r * m, c, -1, 1);
    q.dense = true;
    place(&q, 1, n + 1, 1, true);
    place(&q, 2, m, 1, true);
    q.dense = false;
    for (i = 0; i <= n; ++i) set(&q, 1, i, 0, first[i]);
    for (e = 0; e < m; ++e) set(&q, 2, e, 0, list[e]);
    attr_i(&q, 0, n);
    attr_i(&q, 1, m);
    place(&q, OUT, r * n, c, false);
    finish(&q);
}

/* r samples of n pixels become m, each of up to four entries */
static void stencil_ops(int r, int c, int n, int m, bool narrow, int act)    /* act: with a bias, too  */
{
    job q;
    int e, o, taps = 5, entries = 0, first[65], list[256][2];
    for (o = 0; o < m; ++o) {
        first[o] = entries;
        for (e = below(5); e > 0; --e, ++entries) {
            list[entries][0] = below(n);
            list[entries][1] = below(taps);
        }
    }
    first[m] = entries;
    for (o = 0; o < 2; ++o) {
        start(&q, o ? VGS_OP_STENCIL_GRAD : VGS_OP_STENCIL);
        put(&q, 0, o ? r * m : r * n, c, -1, 1);
        if (o) put(&q, 1, r * n, c, -1, 1);
        else put(&q, 1, taps, narrow ? 1 : c, -1, 1);
        q.dense = true;
        place(&q, 2, m + 1, 1, true);
        place(&q, 3, entries + 1, 2, true);
        q.dense = false;
        for (e = 0; e <= m; ++e) set(&q, 2, e, 0, first[e]);
        for (e = 0; e < entries; ++e) set(&q, 3, e, 0, list[e][0]), set(&q, 3, e, 1, list[e][1]);
        set(&q, 3, entries, 0, 0);
        set(&q, 3, entries, 1, 0);
        attr_i(&q, 0, n);
        attr_i(&q, 1, m);
        attr_i(&q, 2, o ? taps : narrow);
        if (act && !o) {
            put(&q, 4, 1, c, -1, 1);
            attr_i(&q, 4, act);
            limit_act(&q);
        }
        place(&q, OUT, o ? r * taps : r * m, c, false);
        finish(&q);
    }
}

static void particle_ops(int r, int n, int d)
{
    job q;
    int i, pairs = n * (n - 1) / 2;
    start(&q, VGS_OP_PAIR_DISTANCE);
    put(&q, 0, r, n * d, -2, 2);
    for (i = 0; r && i < d; ++i) { set(&q, 0, 0, i, 0.5); set(&q, 0, 0, d + i, 0.5); }      /* two coincide */
    attr_i(&q, 0, n);
    place(&q, OUT, r, pairs, false);
    finish(&q);
    start(&q, VGS_OP_PAIR_DISTANCE_GRAD);
    put(&q, 0, r, n * d, -2, 2);
    for (i = 0; r && i < d; ++i) { set(&q, 0, 0, i, 0.5); set(&q, 0, 0, d + i, 0.5); }
    place(&q, 1, r, pairs, false);
    for (i = 0; i < r; ++i) {                    /* the distances, as the gradient's rule hands them over */
        int a, b, j, p = 0;
        for (a = 0; a < n; ++a)
            for (b = a + 1; b < n; ++b, ++p) {
                double s = 0;
                for (j = 0; j < d; ++j)
                    s += pow(*ref_at(&q.ref.in[0], i, a * d + j) - *ref_at(&q.ref.in[0], i, b * d + j), 2);
                set(&q, 1, i, p, sqrt(s));
            }
    }
    put(&q, 2, r, pairs, -1, 1);
    abs_tol = 1e-5;
    attr_i(&q, 0, n);
    place(&q, OUT, r, n * d, false);
    finish(&q);
    start(&q, VGS_OP_REMOVE_MEAN);
    put(&q, 0, r, n * d, -2, 2);
    attr_i(&q, 0, n);
    place(&q, OUT, r, n * d, false);
    finish(&q);
}

/* ---- eigenvectors: of free signs and order, so what they are for is compared -------------------------- */

enum { RANDOM, SMALL, LARGE, ZERO, HAS_NAN, DIAGONAL, DISTINCT, REPEATED, RANK_ONE, ASYMMETRIC, MATRICES };

/* Eigenvalue i of those kinds that have known ones. */
static double eigenvalue(int kind, int i)
{
    return kind == REPEATED ? (i ? 2 : -1) : kind == RANK_ONE ? (i ? 0 : -1e6) : 0.5 * i - 3;
}

/* Matrix `kind` into row r: random numbers, or the known eigenvalues, along the axes of a reflection at u. */
static void put_matrix(job *q, int r, int kind, int n)
{
    const double scale = kind == SMALL ? 1e-6 : kind == LARGE ? 1e6 : kind == ZERO ? 0 : 1;
    double u[66], norm = 0, a;
    int i, j, k;
    for (i = 0; i < n; ++i) u[i] = kind == DIAGONAL ? 0 : (double)between(-1, 1);
    for (i = 0; i < n; ++i) norm += u[i] * u[i];
    for (i = 0; i < n * n; ++i) {
        if (kind < DIAGONAL) a = scale * (double)between(-1, 1);
        else
            for (a = 0, j = i / n, k = 0; k < n; ++k)
                a += ((j == k) - (norm > 0 ? 2 * u[j] * u[k] / norm : 0)) * eigenvalue(kind, k) *
                     ((i % n == k) - (norm > 0 ? 2 * u[i % n] * u[k] / norm : 0));
        if (kind == ASYMMETRIC) a += i % n > i / n ? 0.5 : i % n < i / n ? -0.5 : 0;
        set(q, 0, r, i, kind == HAS_NAN && i == n ? (double)NAN : a);
    }
    if (kind == HAS_NAN) set(q, 0, r, n * n - 1, (double)NAN);
}

static void start_matrices(job *q, int rows, int n)
{
    start(q, VGS_OP_EIGEN);
    place(q, 0, rows, n * n, false);
    attr_i(q, 0, n);
    place(q, OUT, rows, n * n, false);
    place(q, OUT2, rows, n, false);
}

static const float *row_of(job *q, int k, int r)
{
    const vgs_tensor *t = slot_of(&q->cpu, k);
    return floats(t) + t->offset + (size_t)r * (size_t)t->ld;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Rounding grows with the number of turns of a row, some 6 n. */
static double eigen_tolerance(int n, double norm) { return (1e-6 + 4e-7 * n) * norm; }

/* The largest error of the axes' products, and of the matrix that they and the values make. */
static void rebuild(job *q, int r, int n, double *angle, double *matrix)
{
    const float *x = row_of(q, 0, r), *v = row_of(q, OUT, r), *l = row_of(q, OUT2, r);
    int i, j, k;
    *angle = *matrix = 0;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double dot = -(i == j), a = -((double)x[i * n + j] + (double)x[j * n + i]) / 2;
            for (k = 0; k < n; ++k) {
                dot += (double)v[i * n + k] * (double)v[j * n + k];
                a += (double)v[k * n + i] * (double)l[k] * (double)v[k * n + j];
            }
            *angle = fmax(*angle, fabs(dot));
            *matrix = fmax(*matrix, fabs(a));
        }
}

static void check_matrix(job *q, int r, int kind, int n)
{
    double got[66], want[66], known[66], norm = 0, worst = 0, angle, matrix;
    int i;
    for (i = 0; i < n; ++i) {
        got[i] = (double)row_of(q, OUT2, r)[i];
        want[i] = *ref_at(&q->ref.out2, r, i);
        known[i] = kind < DIAGONAL ? want[i] : eigenvalue(kind, i);
        norm += want[i] * want[i];
    }
    qsort(got, (size_t)n, sizeof *got, by_size);
    qsort(want, (size_t)n, sizeof *want, by_size);
    qsort(known, (size_t)n, sizeof *known, by_size);
    norm = 1 + sqrt(norm);
    for (i = 0; i < n; ++i) worst = fmax(worst, fmax(fabs(got[i] - want[i]), fabs(got[i] - known[i])));
    rebuild(q, r, n, &angle, &matrix);
    CHECK(worst < eigen_tolerance(n, norm), "n %d, matrix %d: eigenvalues are off by %g of %g", n, kind,
          worst, norm);
    CHECK(angle < 4e-6, "n %d, matrix %d: the axes' products are off by %g", n, kind, angle);
    CHECK(matrix < eigen_tolerance(n, norm), "n %d, matrix %d: rebuilt, it is off by %g of %g", n, kind,
          matrix, norm);
}

/* Matrices of all kinds side by side; each again alone has the same bits. */
static void eigen_op(int n)
{
    job q, alone;
    int r, i, k;
    start_matrices(&q, MATRICES, n);
    for (r = 0; r < MATRICES; ++r) put_matrix(&q, r, r, n);
    run_both(&q);
    for (r = 0; r < MATRICES; ++r) {
        if (r == HAS_NAN) for (i = 0; i < n; ++i) OK(isnan(row_of(&q, OUT2, r)[i]));
        else check_matrix(&q, r, r, n);
        start_matrices(&alone, 1, n);
        for (i = 0; i < n * n; ++i) set(&alone, 0, 0, i, (double)row_of(&q, 0, r)[i]);
        run_both(&alone);
        for (k = 0; k < 2 && r != HAS_NAN; ++k)
            OK(!memcmp(row_of(&q, OUT + k, r), row_of(&alone, OUT + k, 0),
                       (size_t)(k ? n : n * n) * sizeof(float)));
        release(&alone);
    }
    for (k = OUT; k <= OUT2; ++k) {
        const vgs_tensor *t = slot_of(&q.cpu, k);
        for (i = 0; i < (int)q.size[k]; ++i) if (!is_inside(t, (size_t)i)) OK(floats(t)[i] == GUARD);
    }
    release(&q);
}

static void random_ops(int r, int c)
{
    job q;
    int k;
    for (k = 0; k < 2; ++k) {
        start(&q, k ? VGS_OP_PERMUTATION : VGS_OP_NORMAL);
        attr_i(&q, 0, 3);
        attr_i(&q, 1, 11);
        attr_i(&q, 2, 64);
        attr_i(&q, 3, 5);
        attr_i(&q, 4, -2);
        attr_i(&q, 5, 77);
        attr_i(&q, 6, 2);
        attr_i(&q, 7, r + 9);
        abs_tol = 2e-5;
        place(&q, OUT, r, k ? 1 : c, k == 1);
        finish(&q);
    }
    for (k = 0; k < 5; ++k) {                    /* even weights; one that dominates; NaN, none; +inf  */
        start(&q, VGS_OP_RESAMPLE);
        put(&q, 0, 3 * c + 1, 1, -2, 2);
        if (k == 1) set(&q, 0, c, 0, 30);
        if (k == 2) set(&q, 0, 0, 0, (double)NAN);
        if (k == 3) set(&q, 0, c, 0, -(double)INFINITY);
        if (k == 4) set(&q, 0, c, 0, (double)INFINITY);
        attr_i(&q, 0, 3);
        attr_i(&q, 3, 5 + k);
        place(&q, OUT, r, 1, true);
        finish(&q);
    }
}

static void effect_ops(int n, int flag)
{
    job q;
    int k, i;
    for (k = 0; k < 4; ++k) {                    /* plain; limits of the norm; a least value          */
        start(&q, VGS_OP_ADAM);
        put(&q, 0, 1, n, k == 2 ? 0.1f : -1, 1);
        for (i = 1; i < 4; ++i) put(&q, i, 1, n, i == 3 ? 0.01f : -1, 1);
        if (k == 1) put(&q, 4, 1, 1, 4, 9);
        if (k == 3) put(&q, 4, 1, 1, 1e-12f, 4e-12f);                /* as small as the 1e-6 beside it */
        put_ints(&q, 5, 1, 4, flag ? 2 : 1);
        if (flag) set(&q, 5, 0, 0, 1);
        attr_f(&q, 0, 0.3);
        attr_f(&q, 1, 0.9);
        attr_f(&q, 2, 0.999);
        attr_f(&q, 3, 1e-8);
        attr_f(&q, 4, 1.5);
        attr_f(&q, 5, k == 1 ? 0.5 : k == 3 ? 1e-6 : 0);
        attr_f(&q, 6, k == 2 ? 0.05 : 0);
        attr_f(&q, 7, 1);
        rel_tol = abs_tol = 1e-5;
        finish(&q);
    }
    start(&q, VGS_OP_EMA);
    put(&q, 0, 1, n, -1, 1);
    put(&q, 1, 1, n, -1, 1);
    put_ints(&q, 2, 1, 4, flag ? 2 : 1);
    if (flag) set(&q, 2, 0, 0, 1);
    attr_f(&q, 0, 0.9);
    finish(&q);
    for (k = 0; k < 2; ++k) {
        start(&q, VGS_OP_STORE);
        put(&q, 0, 9, n, -1, 1);
        put(&q, 1, 4, n, -1, 1);
        attr_i(&q, 0, 3);
        attr_i(&q, 1, k);
        finish(&q);
    }
    start(&q, VGS_OP_SUM_SQUARES);
    put(&q, 0, 1, n, -1, 1);
    place(&q, OUT, 1, 1, false);
    finish(&q);
    for (k = 0; k < 8; ++k) {                    /* fine, NaN, +inf, -inf; and as energies, i3 = 1    */
        start(&q, VGS_OP_CHECK);
        put(&q, 0, 5, n, -1, 1);
        if (k % 4)
            set(&q, 0, 3, n / 2,
                k % 4 == 1 ? (double)NAN : k % 4 == 2 ? (double)INFINITY : -(double)INFINITY);
        if (k == 4) set(&q, 0, 2, 0, (double)INFINITY);
        if (k == 7) set(&q, 0, 1, 0, (double)NAN);
        put_ints(&q, 1, 1, 4, 1);
        if (flag) set(&q, 1, 0, 0, 1);
        attr_i(&q, 0, 12);
        attr_i(&q, 1, 2);
        attr_i(&q, 2, 100);
        attr_i(&q, 3, k >= 4);
        finish(&q);
    }
}

static int quartic64(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i, j;
    (void)user;
    for (i = 0; i < n; ++i) {
        const double *p = x + i * dim;
        e[i] = p[0] * p[dim - 1];
        for (j = 0; j < dim; ++j) e[i] += (j + 1) * 0.25 * p[j] * p[j] * p[j] * p[j];
        for (j = 0; g && j < dim; ++j) g[i * dim + j] = (j + 1) * p[j] * p[j] * p[j];
        if (g) { g[i * dim] += p[dim - 1]; g[i * dim + dim - 1] += p[0]; }
    }
    return 0;
}

static void energy_and_ints(int r, int c)
{
    vgs_energy e;
    job q;
    memset(&e, 0, sizeof e);
    e.eval64 = quartic64;
    e.dim = c;
    start(&q, VGS_OP_ENERGY);
    q.dense = true;
    q.ref.energy = &e;
    put(&q, 0, r, c, -1, 1);
    place(&q, OUT, r, 1, false);
    place(&q, OUT2, r, c, false);
    finish(&q);
    start(&q, VGS_OP_FILL_INT);
    attr_i(&q, 0, -41);
    place(&q, OUT, r, c, true);
    finish(&q);
    start(&q, VGS_OP_INT_DIV);
    put_ints(&q, 0, r, c, 1000);
    attr_i(&q, 0, 7);
    place(&q, OUT, r, c, true);
    finish(&q);
    start(&q, VGS_OP_COMBINE);
    put(&q, 0, r, c, -1, 1);
    put(&q, 1, r, c, -1, 1);
    if (r % 2) put(&q, 2, r, c, -1, 1);
    attr_f(&q, 0, 1.1);
    attr_f(&q, 1, -0.9);
    attr_f(&q, 2, 0.4);
    place(&q, OUT, r, c, false);
    finish(&q);
    start(&q, VGS_OP_MAX);                       /* NaN on either side, or on both                    */
    put(&q, 0, 4, c, -1, 1);
    put(&q, 1, 4, c, -1, 1);
    set(&q, 0, 1, c - 1, (double)NAN);
    set(&q, 1, 2, 0, (double)NAN);
    set(&q, 0, 3, c / 2, (double)NAN);
    set(&q, 1, 3, c / 2, (double)NAN);
    place(&q, OUT, 4, c, false);
    finish(&q);
    start(&q, VGS_OP_MASK_ABOVE);                /* exactly 0 above, whatever the gradient is         */
    place(&q, 0, 4, 3, false);
    place(&q, 1, 4, 1, false);
    for (c = 0; c < 12; ++c)
        set(&q, 0, c / 3, c % 3, c / 3 == 0 ? c : c / 3 == 1 ? (double)NAN : (double)INFINITY);
    for (c = 0; c < 4; ++c) set(&q, 1, c, 0, c == 0 ? 2.0 : c == 1 ? (double)INFINITY : 2.5);
    attr_f(&q, 0, 2.0);
    place(&q, OUT, 4, 3, false);
    finish(&q);
}

static int large_rows = 65, large_cols = 33;

/* Calls that only a backend with panels gets */
static void joined_ops(int r, int c, int k)
{
    int act;
    for (act = 0; act <= VGS_ACT_CLAMP; ++act) stencil_ops(r, c, 7, 4, act % 2, act);
    packed_matmul(VGS__NT, r, c, k);
    packed_matmul(VGS__NN, r, c, k);
    packed_matmul(VGS__NT, r, c, 300);
    windows_matmul(r, c, 7, 5, 9, k);
    windows_matmul(r, c, 4, 13, 4, k);
}

static void every_op(void)
{
    const int size[][2] = { { 1, 1 }, { 3, 5 }, { 7, 1 }, { 1, 9 }, { large_rows, large_cols }, { 0, 4 },
                            { 2, 40 } };
    int isa, k, form, act, op;
    bool panels = false;
    size_t m;
    for (isa = VGS_ISA_PORTABLE; isa <= VGS_ISA_AVX512; ++isa) {
        vgs_cpu_config config = { 1, VGS_ISA_AUTO };
        if (!vgs__cpu_has((vgs_isa)isa)) continue;
        config.isa = (vgs_isa)isa;
        cpu = vgs_cpu_create(&config, NULL);
        for (k = 0; k < 7; ++k) {
            int r = size[k][0], c = size[k][1], a, b;
            T_IN("%s [%d,%d]", vgs_isa_name((vgs_isa)isa), r, c);
            for (m = 0; m < sizeof maps / sizeof *maps; ++m)
                for (a = 0; a < (r && maps[m].n ? 4 : 1); ++a)
                    for (b = 0; b < (r && maps[m].n == 2 ? 4 : 1); ++b) one_map(m, r, c, a, b);
            for (form = VGS__NT; form <= VGS__TN; ++form)
                for (act = 0; act <= VGS_ACT_CLAMP; ++act) one_matmul(form, r, c, k * 5 + 1, act % 3, act);
            rows_ops(r, c);
            segment_ops(r, c, 3, 5);
            stencil_ops(r, c, 7, 4, false, VGS_ACT_NONE);
            stencil_ops(r, c, 4, 9, true, VGS_ACT_NONE);
            panels = cpu->panel > 0;
            if (panels) joined_ops(r, c, k * 5 + 1);
            particle_ops(r, 2, c);
            particle_ops(r, 5, c % 3 + 1);
            random_ops(r, c);
            energy_and_ints(r, c);
            effect_ops(c, k % 2);
        }
        effect_ops(3000, 0);
        eigen_op(1);
        eigen_op(2);
        eigen_op(3);
        vgs_cpu_free(cpu);
    }
    for (op = VGS_OP_SECOND + 1; op < VGS_OP_COUNT; ++op)
        CHECK(ran[op] || (op == VGS_OP_PACK && !panels), "%s was never run", vgs_op_name(op));
    OK(ref_faults == 0);
}

/* ---- what >>compile joins, against the same graph with its ops one by one --------------------------- */

enum { JOIN_WEIGHTS = 716, JOIN_IN = 9 * 7 * 3, JOIN_OUT = 20 * (20 + 12 + 12), JOIN_BATCH = 3 };

static const vgs_param_info join_arrays[] = {    /* name, offset, rows, columns                       */
    { "stem", 0, 12, 27 }, { "stem_bias", 324, 1, 12 }, { "depthwise", 336, 9, 12 },
    { "depthwise_bias", 444, 1, 12 }, { "project", 456, 20, 12 }, { "project_bias", 696, 1, 20 }
};

/* Images through a small network. The last depthwise is read before its bias is added, the last product
   before its activation: these stay ops of their own. */
static void join_record(vgs_graph *g, vgs_model *m, vgs_var *in, vgs_var out[3])
{
    const vgs_window two = { 9, 7, 3, 2, 1, 1, 1, 1 }, one = { 5, 4, 3, 1, 1, 1, 1, 1 };
    vgs_var w[6], x, h, d;
    int k;
    *in = vgs_input(g, JOIN_IN);
    for (k = 0; k < 6; ++k) w[k] = vgs_model_array(g, m, join_arrays[k].name);
    x = vgs_clamp(g, vgs_conv2d(g, vgs_reshape(g, *in, 3), &two, w[0], w[1], 1), 0, 0.5f);
    h = vgs_clamp(g, vgs_add(g, vgs_depthwise(g, x, &one, w[2]), w[3]), -0.25f, 0.5f);
    d = vgs_depthwise(g, h, &one, w[2]);
    out[2] = vgs_add(g, w[3], d);
    x = vgs_add(g, vgs_add(g, x, vgs_silu(g, out[2])), d);
    out[0] = vgs_linear(g, x, w[4], w[5]);
    out[1] = vgs_matmul(g, vgs_relu(g, out[0]), w[4]);
    for (k = 0; k < 3; ++k) vgs_output(g, out[k]);
}

/* Its outputs for x, once with the weights w and once with others; returns the ops of its body. */
static int join_run(vgs_backend *b, const float *w, const float *x, float *y)
{
    vgs_error err;
    vgs_graph *g = vgs_graph_create(&err);
    vgs_model *m = vgs_model_create_arrays(join_arrays, 6, w, b, &err);
    vgs_var in, out[3];
    int k, turn, ops;
    join_record(g, m, &in, out);
    CHECK(vgs_graph_compile(g, b, JOIN_BATCH, &err) == VGS_OK, "%s", err.msg);
    ops = vgs_graph_ops(g, false);
    OK(!vgs_set(g, in, x, JOIN_BATCH, &err));
    for (turn = 0; turn < 2; ++turn) {
        if (turn) OK(!vgs_model_write(m, w + JOIN_WEIGHTS, &err));
        CHECK(vgs_graph_run(g, JOIN_BATCH, &err) == VGS_OK, "%s", err.msg);
        for (k = 0; k < 3; ++k, y += JOIN_BATCH * 20 * (k == 1 ? 20 : 12))
            OK(!vgs_get(g, out[k], y, JOIN_BATCH, &err));
    }
    vgs_graph_free(g);
    vgs_model_free(m);
    return ops;
}

/* Every bit is the same, on all kinds of processor, and less runs. */
static void joined(void)
{
    static float w[2 * JOIN_WEIGHTS], x[JOIN_BATCH * JOIN_IN], y[2][2 * JOIN_BATCH * JOIN_OUT];
    int isa, k, ops[2];
    for (k = 0; k < 2 * JOIN_WEIGHTS; ++k) w[k] = between(-0.5f, 0.5f);
    for (k = 0; k < JOIN_BATCH * JOIN_IN; ++k) x[k] = between(-1, 1);
    for (isa = VGS_ISA_PORTABLE; isa <= VGS_ISA_AVX512; ++isa) {
        vgs_cpu_config config = { 1, VGS_ISA_AUTO };
        if (!vgs__cpu_has((vgs_isa)isa)) continue;
        config.isa = (vgs_isa)isa;
        for (k = 0; k < 2; ++k) {
            vgs_backend *b = vgs_cpu_create(&config, NULL);
            if (!k) b->panel = 0;
            ops[k] = join_run(b, w, x, y[k]);
            vgs_cpu_free(b);
        }
        T_IN("%s", vgs_isa_name((vgs_isa)isa));
        CHECK(!memcmp(y[0], y[1], sizeof y[0]), "other bits");
        CHECK(memcmp(y[1], y[1] + JOIN_BATCH * JOIN_OUT, sizeof y[1] / 2), "other weights are not followed");
#ifndef VGS_USE_CBLAS
        /* less by the windows, the bias and the clamp of the first depthwise */
        CHECK(ops[0] == 13 && ops[1] == 10, "%d ops one by one, %d joined", ops[0], ops[1]);
#endif
    }
}

static void eigenvectors(void)
{
    static const int n[5] = { 8, 10, 39, 40, 66 };
    int isa, k;
    for (isa = VGS_ISA_PORTABLE; isa <= VGS_ISA_AVX512; ++isa) {
        vgs_cpu_config config = { 1, VGS_ISA_AUTO };
        if (!vgs__cpu_has((vgs_isa)isa)) continue;
        config.isa = (vgs_isa)isa;
        cpu = vgs_cpu_create(&config, NULL);
        for (k = 0; k < 5; ++k) eigen_op(n[k]);
        vgs_cpu_free(cpu);
    }
}

/* ==== gradients against central differences in double ================================================ */

enum { B = 3, MAX_LEAF = 4 };

/* kind: b input [B,c], s state [r,c], p parameters [1,c], i index [B,1] in 0..r-1 */
typedef struct leaf { char kind; int r, c; float lo, hi; } leaf;
typedef struct gcase {
    const char *name;
    vgs_var (*build)(vgs_graph *g, const vgs_var *x);
    leaf leaf[MAX_LEAF];
} gcase;

typedef struct built {
    vgs_graph *g;
    vgs_var x[MAX_LEAF], gx[MAX_LEAF], weight, y;
    int rows, cols;                              /* of y                                              */
} built;

static int leaves(const gcase *c)
{
    int n = 0;
    while (n < MAX_LEAF && c->leaf[n].kind) ++n;
    return n;
}

static size_t count_of(const leaf *l)
{
    int rows = l->kind == 'b' || l->kind == 'i' ? B : l->kind == 'p' ? 1 : l->r;
    return (size_t)(rows * (l->kind == 'i' ? 1 : l->c));
}

/* sum(weight * build(x)) and its gradients; the weights keep sums from cancelling (sort, layernorm) */
static vgs_status record(const gcase *c, vgs_backend *backend, built *q, vgs_error *err)
{
    vgs_graph *g = q->g = vgs_graph_create(err);
    vgs_var want[MAX_LEAF] = { { 0 } }, got[MAX_LEAF] = { { 0 } };
    int k, n = leaves(c), m = 0;
    for (k = 0; k < n; ++k) {
        const leaf *l = &c->leaf[k];
        q->x[k] = l->kind == 'b' ? vgs_input(g, l->c) : l->kind == 's' ? vgs_state(g, l->r, l->c, VGS_F32)
                : l->kind == 'p' ? vgs_params(g, l->c) : vgs_index(g);
    }
    q->y = c->build(g, q->x);
    vgs_shape(g, q->y, &q->rows, &q->cols);
    q->weight = vgs__graph_leaf(g, VGS_OP_INPUT, q->rows, q->cols, VGS_F32);
    if (q->rows < 0) q->rows *= -B;
    q->y = vgs_mul(g, q->y, q->weight);
    vgs_output(g, q->y);
    for (k = 0; k < n; ++k) if (strchr("bs", c->leaf[k].kind)) want[m++] = q->x[k];
    vgs_gradient(g, q->y, want, m, got);
    for (m = k = 0; k < n; ++k) {
        if (strchr("bs", c->leaf[k].kind)) vgs_output(g, q->gx[k] = got[m++]);
        if (c->leaf[k].kind == 'p') {
            q->gx[k] = vgs_state(g, 1, c->leaf[k].c, VGS_F32);
            vgs_gradient_params(g, q->y, q->x[k], q->gx[k]);
            vgs_output(g, q->gx[k]);
        }
    }
    return vgs_graph_compile(g, backend, B + 2, err);
}

/* Values away from the kinks at 0 (relu, abs, l1) and at +-1 (clamp, smooth l1). */
static float smooth_value(const leaf *l)
{
    float v = between(l->lo, l->hi);
    while (fabsf(v) < 0.05f || fabsf(fabsf(v) - 1) < 0.05f) v = between(l->lo, l->hi);
    return v;
}

static double total(built *q)
{
    double sum = 0, *y;
    int i;
    vgs_graph_touch(q->g);
    vgs_graph_run(q->g, B, NULL);
    y = ref_value(q->g, q->y, B);
    for (i = 0; i < q->rows * q->cols; ++i) sum += y[i];
    return sum;
}

static void compare_gradient(built *c, built *r, int k, size_t n)
{
    double *diff = (double *)malloc(n * sizeof *diff), *exact = (double *)malloc(n * sizeof *exact);
    double top = 0, h = 1e-5;
    float *got = (float *)malloc(n * sizeof *got);
    size_t i;
    total(r);
    ref_get(r->g, r->gx[k], B, exact);
    for (i = 0; i < n; ++i) {
        double *x = ref_value(r->g, r->x[k], B) + i, keep = *x, up;
        *x = keep + h;
        up = total(r);
        *x = keep - h;
        diff[i] = (up - total(r)) / (2 * h);
        *x = keep;
        top = fmax(top, fabs(diff[i]));
    }
    CHECK(top > 1e-3, "operand %d: the largest gradient is %g", k, top);
    OK(vgs_get(c->g, c->gx[k], got, B, NULL) == VGS_OK);
    for (i = 0; i < n; ++i) {
        if (!CHECK_NEAR(exact[i], diff[i], 0, 1e-7 * top + 1e-9)) break;
        if (!CHECK_NEAR(got[i], diff[i], 0, 1e-4 * top)) break;
    }
    free(diff);
    free(exact);
    free(got);
}

static void check_case(const gcase *c)
{
    const vgs_rng its_own = { 5, 0, 0 };         /* numbers that no other case moves                  */
    vgs_error err = { VGS_OK, "" };
    built q[2];
    int k, j, n = leaves(c);
    float *x;
    T_IN("gradient of %s", c->name);
    rng = its_own;
    cpu = vgs_cpu_create(NULL, NULL);
    if (CHECK(record(c, cpu, &q[0], &err) == VGS_OK && record(c, &ref_backend, &q[1], &err) == VGS_OK, "%s",
              err.msg)) {
        for (k = 0; k <= n; ++k) {               /* n: the weights                                    */
            size_t i, count = k < n ? count_of(&c->leaf[k]) : (size_t)(q->rows * q->cols);
            bool index = k < n && c->leaf[k].kind == 'i';
            x = (float *)malloc(count * sizeof *x);
            for (i = 0; i < count; ++i) {
                int32_t row = (int32_t)i * 2 % (k < n ? c->leaf[k].r + !c->leaf[k].r : 1);
                x[i] = index ? 0 : k < n ? smooth_value(&c->leaf[k])
                                         : between(0.5f, 1.5f) * (i % 2 ? -1.0f : 1.0f);
                if (index) memcpy(&x[i], &row, 4);
            }
            for (j = 0; j < 2; ++j)
                OK(vgs_set(q[j].g, k < n ? q[j].x[k] : q[j].weight, x, B, &err) == VGS_OK);
            free(x);
        }
        OK(vgs_graph_run(q[0].g, B, &err) == VGS_OK);
        for (k = 0; k < n; ++k)
            if (c->leaf[k].kind != 'i') compare_gradient(&q[0], &q[1], k, count_of(&c->leaf[k]));
        OK(vgs_graph_run(q[0].g, 0, &err) == VGS_OK && vgs_graph_run(q[0].g, B + 2, &err) == VGS_OK);
    }
    for (j = 0; j < 2; ++j) vgs_graph_free(q[j].g);
    vgs_cpu_free(cpu);
}

/* Rows of other parts, on fixed rows: more of them than a thread takes at a time, made in the same run. */
static void across_parts(void)
{
    enum { ROWS = 300, EACH = 5 };
    static const int32_t which[EACH] = { 4, 3, 2, 1, 0 };
    static float x[ROWS][2], got[3][ROWS][2];
    int32_t back[ROWS];
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(&err);
    vgs_var s = vgs_state(g, ROWS, 2, VGS_F32), y[3];
    int i, k;
    for (i = 0; i < ROWS; ++i) {
        x[i][0] = (float)i;
        x[i][1] = (float)(i + 1);
        back[i] = ROWS - 1 - i;
    }
    cpu = vgs_cpu_create(NULL, NULL);
    y[0] = vgs_gather(g, vgs_square(g, s), vgs_table_int(g, back, ROWS, 1));
    y[1] = vgs_segment_gather(g, vgs_square(g, s), EACH, which, EACH);
    y[2] = vgs_sort_cols(g, vgs_square(g, s));                       /* nobody wants the permutation   */
    for (k = 0; k < 3; ++k) vgs_output(g, y[k]);
    CHECK(!vgs_graph_compile(g, cpu, 1, &err) && !vgs_set(g, s, x, 1, &err) && !vgs_graph_run(g, 1, &err),
          "%s", err.msg);
    for (k = 0; k < 3; ++k) OK(!vgs_get(g, y[k], got[k], 1, &err));
    for (i = 0; i < ROWS; ++i) {
        const float *from = x[i / EACH * EACH + which[i % EACH]];
        OK(got[0][i][0] == x[back[i]][0] * x[back[i]][0]);
        OK(got[1][i][0] == from[0] * from[0]);
        OK(got[2][i][0] == x[i][1] * x[i][1]);
    }
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

#define BUILD(name, ...) static vgs_var b_##name(vgs_graph *g, const vgs_var *x) { __VA_ARGS__ }
#define BINARY(name) BUILD(name, return vgs_##name(g, x[0], x[1]);)
static const int32_t which5[5] = { 2, 0, 1, 2, 2 };
static const vgs_var none = { 0 };
static vgs_energy callback = { NULL, quartic64, NULL, NULL, 3, 0, false, NULL };

/* Functions of one operand, and from where to where. */
#define UNARIES(X) \
    X(exp, -2, 2) X(log, 0.2f, 3) X(sqrt, 0.2f, 3) X(square, -2, 2) X(reciprocal, 0.3f, 2) X(abs, -2, 2) \
    X(sin, -4, 4) X(cos, -4, 4) X(relu, -2, 2) X(silu, -3, 3) X(softplus, -3, 3) X(sigmoid, -3, 3) \
    X(tanh, -2, 2) X(sum_cols, -1, 1) X(mean_cols, -1, 1) X(sum_rows, -1, 1) X(mean_rows, -1, 1) \
    X(logsumexp, -2, 2) X(sort_cols, -2, 2)
#define BUILD_ONE(name, lo, hi) BUILD(name, return vgs_##name(g, x[0]);)
UNARIES(BUILD_ONE)
#undef BUILD_ONE
BINARY(add) BINARY(sub) BINARY(mul) BINARY(div) BINARY(matmul) BINARY(concat) BINARY(gather)
BUILD(max, return vgs_sub(g, vgs_max(g, x[0], x[1]), vgs_mul(g, x[0], x[1]));)
BUILD(affine, return vgs_affine(g, x[0], -1.5f, 0.3f);)
BUILD(affine_by, return vgs_affine_by(g, x[0], vgs_scalar_create(g, 2.5), vgs_scalar_create(g, -1));)
BUILD(clamp, return vgs_clamp(g, x[0], -1, 1);)
BUILD(combine, return vgs_combine(g, x[0], -1.5f, vgs_square(g, x[1]), 0.75f);)
BUILD(combine_by, const vgs_scalar one = { 0 };
      return vgs_combine_by(g, vgs_exp(g, x[0]), vgs_scalar_create(g, 2.5), x[1], one);)
BUILD(mask_above, return vgs_mask_above(g, vgs_square(g, x[0]), vgs_cols(g, x[0], 0, 1), 1);)
BUILD(linear, return vgs_linear(g, x[0], x[1], x[2]);)
BUILD(linear_plain, return vgs_linear(g, x[0], x[1], none);)
BUILD(linear_at, return vgs_linear_at(g, x[0], x[1], x[2], x[3]);)
BUILD(matmul_tn, return vgs__matmul_as(g, VGS__TN, x[0], x[1]);)
BUILD(fused_relu, return vgs_relu(g, vgs_linear(g, x[0], x[1], x[2]));)
BUILD(fused_silu, return vgs_silu(g, vgs_linear(g, x[0], x[1], x[2]));)
BUILD(fused_tanh, return vgs_tanh(g, vgs_linear(g, x[0], x[1], x[2]));)
BUILD(fused_sigmoid, return vgs_sigmoid(g, vgs_matmul(g, x[0], x[1]));)
BUILD(fused_softplus, return vgs_softplus(g, vgs_linear(g, x[0], x[1], x[2]));)
BUILD(shared_linear, vgs_var u = vgs_linear(g, x[0], x[1], x[2]);
                     return vgs_add(g, vgs_relu(g, u), vgs_tanh(g, u));)
BUILD(layernorm, return vgs_layernorm(g, x[0], x[1], x[2]);)
BUILD(reshape, return vgs_square(g, vgs_reshape(g, x[0], 2));)
BUILD(reshape_back, return vgs_mul(g, vgs_reshape(g, vgs_exp(g, vgs_reshape(g, x[0], 1)), 6), x[0]);)
BUILD(cols, return vgs_mul(g, vgs_cols(g, x[0], 0, 4), vgs_cols(g, x[0], 2, 4));)
BUILD(cols_of_cols, return vgs_square(g, vgs_cols(g, vgs_cols(g, x[0], 1, 4), 2, 2));)
BUILD(cols_linear,
      return vgs_linear(g, vgs_cols(g, x[0], 1, 2), vgs_cols(g, x[1], 2, 2), vgs_cols(g, x[2], 1, 4));)
BUILD(cols_layernorm,
      return vgs_layernorm(g, vgs_cols(g, x[0], 1, 3), vgs_cols(g, x[1], 0, 3), vgs_cols(g, x[1], 2, 3));)
BUILD(cols_concat, vgs_var u = vgs_concat(g, vgs_cols(g, x[0], 3, 2), x[1]); return vgs_mul(g, u, u);)
BUILD(cols_energy, return vgs_energy_of(g, &callback, vgs_cols(g, x[0], 1, 3));)
BUILD(gather_twice, return vgs_mul(g, vgs_gather(g, x[0], x[1]), vgs_gather(g, vgs_sin(g, x[0]), x[1]));)
BUILD(segment_gather, return vgs_segment_gather(g, vgs_reshape(g, x[0], 2), 3, which5, 5);)
BUILD(segment_sum, return vgs_segment_sum(g, vgs_reshape(g, x[0], 2), 3, which5, 5);)
BUILD(segment_fixed,
      return vgs_segment_sum(g, vgs_square(g, vgs_segment_gather(g, x[0], 3, which5, 5)), 3, which5, 5);)
static const vgs_window window3 = { 3, 2, 3, 1, 1, 1, 1, 1 }, window2 = { 3, 2, 2, 2, 0, 0, 1, 0 };
BUILD(conv2d, return vgs_conv2d(g, vgs_reshape(g, x[0], 2), &window3, x[1], x[2], 1);)
BUILD(conv2d_apart, return vgs_conv2d(g, vgs_reshape(g, x[0], 2), &window2, x[1], none, 1);)
BUILD(conv2d_grouped, return vgs_conv2d(g, vgs_reshape(g, x[0], 4), &window3, x[1], x[2], 2);)
BUILD(depthwise, return vgs_depthwise(g, vgs_reshape(g, x[0], 2), &window3, x[1]);)
BUILD(depthwise_fixed, return vgs_depthwise(g, vgs_square(g, x[0]), &window2, x[1]);)
BUILD(avg_pool, return vgs_square(g, vgs_avg_pool(g, vgs_reshape(g, x[0], 2), &window3));)
BUILD(max_pool, return vgs_square(g, vgs_max_pool(g, vgs_reshape(g, x[0], 2), &window3));)
BUILD(max_pool_apart, return vgs_square(g, vgs_max_pool(g, vgs_square(g, x[0]), &window2));)
BUILD(resize, return vgs_square(g, vgs_resize(g, vgs_reshape(g, x[0], 2), 3, 2, 2, 5, false));)
BUILD(resize_aligned, return vgs_square(g, vgs_resize(g, vgs_reshape(g, x[0], 2), 3, 2, 5, 3, true));)
BUILD(pair_distance, return vgs_pair_distance(g, x[0], 3);)
BUILD(remove_mean, return vgs_remove_mean(g, x[0], 3);)
BUILD(sorted_pairs,
      vgs_var r = vgs_sort_cols(g, vgs_pair_distance(g, x[0], 4));
      return vgs_sqrt(g, vgs_affine(g, vgs_square(g, r), 1, 1));)
BUILD(loss_l2, return vgs_loss_of(g, x[0], x[1], VGS_L2);)
BUILD(loss_l1, return vgs_loss_of(g, x[0], x[1], VGS_L1);)
BUILD(loss_smooth, return vgs_loss_of(g, vgs_affine(g, x[0], 1, 0), x[1], VGS_SMOOTH_L1);)
BUILD(energy, return vgs_energy_of(g, &callback, x[0]);)
BUILD(energy_of_tanh, return vgs_square(g, vgs_energy_of(g, &callback, vgs_tanh(g, x[0])));)
BUILD(same_twice, return vgs_div(g, vgs_mul(g, x[0], x[0]), vgs_add(g, vgs_exp(g, x[0]), x[0]));)
BUILD(mixture, vgs_var left = vgs_sum_cols(g, vgs_square(g, vgs_affine(g, x[0], 1, -1)));
      vgs_var right = vgs_sum_cols(g, vgs_square(g, vgs_affine(g, x[0], 1, 1)));
      return vgs_logsumexp(g, vgs_affine(g, vgs_concat(g, left, right), -0.7f, 0.1f));)

/* parameters: views that lie apart, that are used twice, that overlap, that share a stride */
static vgs_var view(vgs_graph *g, const vgs_var *x, int at, int r, int c, int ld)
{
    return vgs_view(g, x[1], at, r, c, ld);
}
BUILD(views, vgs_var u = vgs_linear(g, x[0], view(g, x, 0, 4, 2, 2), view(g, x, 8, 1, 4, 4));
    return vgs_linear(g, vgs_silu(g, u), view(g, x, 12, 1, 4, 4), view(g, x, 16, 1, 1, 1));)
BUILD(views_twice, vgs_var w = view(g, x, 0, 2, 2, 2);
    return vgs_linear(g, vgs_tanh(g, vgs_linear(g, x[0], w, none)), vgs_view(g, x[1], 0, 2, 2, 2),
                      view(g, x, 4, 1, 2, 2));)
BUILD(views_overlap, return vgs_mul(g, vgs_linear(g, x[0], view(g, x, 0, 3, 2, 2), view(g, x, 2, 1, 3, 3)),
    view(g, x, 1, 1, 3, 3));)
BUILD(params_whole, return vgs_add(g, vgs_mul(g, x[0], vgs_exp(g, x[1])), x[1]);)
BUILD(params_and_view, return vgs_mul(g, vgs_add(g, x[0], x[1]),
                                      vgs_linear(g, vgs_cols(g, x[0], 1, 3), view(g, x, 1, 1, 3, 3), none));)
BUILD(views_halves, return vgs_add(g, vgs_linear(g, x[0], view(g, x, 0, 3, 2, 4), none),
    vgs_linear(g, vgs_square(g, x[0]), view(g, x, 2, 3, 2, 4), none));)
BUILD(views_fold, return vgs_linear_at(g, x[0], vgs_matmul(g, view(g, x, 0, 3, 3, 3), view(g, x, 9, 3, 2, 2)),
    vgs_relu(g, vgs_linear(g, x[3], view(g, x, 15, 3, 2, 2), view(g, x, 21, 1, 3, 3))), x[2]);)

static const gcase cases[] = {
#define ONE(name, lo, hi) { #name, b_##name, { { 'b', 0, 5, lo, hi } } }
#define ONE_MORE(name, lo, hi) ONE(name, lo, hi),
    UNARIES(ONE_MORE)
#undef ONE_MORE
    ONE(affine, -1, 1), ONE(affine_by, -1, 1), ONE(clamp, -2, 2), ONE(same_twice, 0.1f, 2),
    ONE(mixture, -2, 2),
    { "combine", b_combine, { { 'b', 0, 3, -1, 1 }, { 'b', 0, 3, -1, 1 } } },
    { "combine_by", b_combine_by, { { 'b', 0, 3, -1, 1 }, { 'b', 0, 3, -1, 1 } } },
    ONE(mask_above, -2, 2),
    { "log of a state", b_log, { { 's', 4, 3, 0.3f, 2 } } },
    { "mean_rows of a state", b_mean_rows, { { 's', 4, 3, -1, 1 } } },
    { "matmul", b_matmul, { { 'b', 0, 4, -1, 1 }, { 's', 4, 3, -1, 1 } } },
    { "matmul of states", b_matmul, { { 's', 2, 4, -1, 1 }, { 's', 4, 3, -1, 1 } } },
    { "matmul_tn", b_matmul_tn, { { 'b', 0, 4, -1, 1 }, { 'b', 0, 2, -1, 1 } } },
    { "linear", b_linear, { { 'b', 0, 4, -1, 1 }, { 's', 3, 4, -1, 1 }, { 's', 1, 3, -1, 1 } } },
    { "linear without bias", b_linear_plain, { { 'b', 0, 4, -1, 1 }, { 's', 3, 4, -1, 1 } } },
    { "linear_at", b_linear_at,
      { { 'b', 0, 4, -1, 1 }, { 's', 2, 4, -1, 1 }, { 's', 5, 2, -1, 1 }, { 'i', 5, 1, 0, 0 } } },
#define FUSED(name) { #name, b_##name, { { 'b', 0, 4, -2, 2 }, { 's', 6, 4, -1, 1 }, { 's', 1, 6, -1, 1 } } }
    FUSED(fused_relu), FUSED(fused_silu), FUSED(fused_tanh), FUSED(fused_softplus), FUSED(shared_linear),
    { "fused_sigmoid", b_fused_sigmoid, { { 'b', 0, 4, -1, 1 }, { 's', 4, 6, -1, 1 } } },
    { "layernorm", b_layernorm, { { 'b', 0, 6, -2, 2 }, { 's', 1, 6, 0.5f, 2 }, { 's', 1, 6, -1, 1 } } },
    { "layernorm, 37 wide", b_layernorm,
      { { 'b', 0, 37, -2, 2 }, { 's', 1, 37, 0.5f, 2 }, { 's', 1, 37, -1, 1 } } },
    { "reshape", b_reshape, { { 'b', 0, 6, -1, 1 } } },
    { "reshape_back", b_reshape_back, { { 'b', 0, 6, -1, 1 } } },
    { "cols", b_cols, { { 'b', 0, 6, -1, 1 } } },
    { "cols_of_cols", b_cols_of_cols, { { 'b', 0, 6, -1, 1 } } },
    { "cols_linear", b_cols_linear, { { 'b', 0, 5, -1, 1 }, { 's', 4, 6, -1, 1 }, { 's', 1, 6, -1, 1 } } },
    { "cols_layernorm", b_cols_layernorm, { { 'b', 0, 5, -1, 1 }, { 's', 1, 5, 0.5f, 1 } } },
    { "cols_concat", b_cols_concat, { { 'b', 0, 6, -1, 1 }, { 'b', 0, 2, -1, 1 } } },
    { "concat", b_concat, { { 'b', 0, 2, -1, 1 }, { 'b', 0, 4, -1, 1 } } },
    { "gather", b_gather, { { 's', 5, 4, -1, 1 }, { 'i', 5, 1, 0, 0 } } },
    { "gather_twice", b_gather_twice, { { 's', 2, 4, -1, 1 }, { 'i', 2, 1, 0, 0 } } },
    { "segment_gather", b_segment_gather, { { 'b', 0, 6, -1, 1 } } },
    { "segment_sum", b_segment_sum, { { 'b', 0, 10, -1, 1 } } },
    { "segments of a state", b_segment_fixed, { { 's', 6, 2, -1, 1 } } },
    { "pair_distance", b_pair_distance, { { 'b', 0, 6, -2, 2 } } },
    { "remove_mean", b_remove_mean, { { 'b', 0, 6, -2, 2 } } },
    { "sorted_pairs", b_sorted_pairs, { { 'b', 0, 8, -2, 2 } } },
    { "loss_l2", b_loss_l2, { { 'b', 0, 1, -1, 1 }, { 'b', 0, 1, -1, 1 } } },
    { "loss_l1", b_loss_l1, { { 'b', 0, 2, 1.1f, 2 }, { 'b', 0, 2, -2, 0.9f } } },
    { "loss_smooth", b_loss_smooth, { { 'b', 0, 6, -0.3f, 0.4f }, { 's', 1, 1, -0.4f, 0.4f } } },
    { "loss_smooth, far", b_loss_smooth, { { 'b', 0, 2, 1.1f, 2 }, { 'b', 0, 2, -2, -0.1f } } },
    { "energy", b_energy, { { 'b', 0, 3, -1, 1 } } },
    { "cols_energy", b_cols_energy, { { 'b', 0, 5, -1, 1 } } },
    { "energy_of_tanh", b_energy_of_tanh, { { 'b', 0, 3, -1, 1 } } },
    { "views", b_views, { { 'b', 0, 2, -1, 1 }, { 'p', 0, 17, -1, 1 } } },
    { "views_twice", b_views_twice, { { 'b', 0, 2, -1, 1 }, { 'p', 0, 6, -1, 1 } } },
    { "views_overlap", b_views_overlap, { { 'b', 0, 2, -1, 1 }, { 'p', 0, 6, -1, 1 } } },
    { "views_halves", b_views_halves, { { 'b', 0, 2, -1, 1 }, { 'p', 0, 12, -1, 1 } } },
    { "views_fold", b_views_fold,
      { { 'b', 0, 2, -1, 1 }, { 'p', 0, 24, -1, 1 }, { 'i', 4, 1, 0, 0 }, { 's', 4, 2, 0.2f, 1 } } },
    { "params_whole", b_params_whole, { { 'b', 0, 4, -1, 1 }, { 'p', 0, 4, -1, 1 } } },
    { "params_and_view", b_params_and_view, { { 'b', 0, 4, -1, 1 }, { 'p', 0, 4, -1, 1 } } },
    { "conv2d", b_conv2d, { { 'b', 0, 12, -1, 1 }, { 's', 3, 18, -1, 1 }, { 's', 1, 3, -1, 1 } } },
    { "conv2d, stride 2", b_conv2d_apart, { { 'b', 0, 12, -1, 1 }, { 's', 3, 8, -1, 1 } } },
    { "conv2d, grouped", b_conv2d_grouped, { { 'b', 0, 24, -1, 1 }, { 's', 4, 18, -1, 1 }, { 's', 1, 4, -1, 1
   } } }, { "depthwise", b_depthwise, { { 'b', 0, 12, -1, 1 }, { 's', 9, 2, -1, 1 } } },
    { "depthwise of a state", b_depthwise_fixed, { { 's', 12, 2, -1, 1 }, { 's', 4, 2, -1, 1 } } },
    { "avg_pool", b_avg_pool, { { 'b', 0, 12, -1, 1 } } },
    { "max_pool", b_max_pool, { { 'b', 0, 12, -1, 1 } } },
    { "max_pool of a state, stride 2", b_max_pool_apart, { { 's', 12, 2, -1, 1 } } },
    { "resize", b_resize, { { 'b', 0, 12, -1, 1 } } },
    { "resize, aligned", b_resize_aligned, { { 'b', 0, 12, -1, 1 } } }
};

static void gradients(void)
{
    static const leaf shape[4] = {
        { 'b', 0, 4, 0.4f, 2 }, { 's', 1, 4, 0.4f, 2 }, { 'b', 0, 1, 0.4f, 2 }, { 's', 1, 1, 0.4f, 2 }
    };
    static const struct { const char *name; vgs_var (*build)(vgs_graph *, const vgs_var *); } binary[5] = {
        { "add", b_add }, { "sub", b_sub }, { "mul", b_mul }, { "div", b_div }, { "max", b_max }
    };
    size_t i;
    int a, b, k;
    for (i = 0; i < sizeof cases / sizeof *cases; ++i) check_case(&cases[i]);
    for (k = 0; k < 5; ++k)
        for (a = 0; a < 4; ++a)
            for (b = 0; b < 4; ++b) {
                gcase c;
                memset(&c, 0, sizeof c);
                c.name = binary[k].name;
                c.build = binary[k].build;
                c.leaf[0] = shape[a];
                c.leaf[1] = shape[b];
                check_case(&c);
            }
    OK(ref_faults == 0);
}

/* Where two points coincide, the distance has no gradient: 0 by definition, and finite beside it. */
static void coincident_points(void)
{
    static const float x[12] = { 1, 2, 1, 2, 4, 6,   3, 3, 3, 3, 3, 3 };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var in = vgs_input(g, 6), y = vgs_pair_distance(g, in, 3), gx;
    float got[12], r[6];
    int i;
    cpu = vgs_cpu_create(NULL, NULL);
    vgs_gradient(g, y, &in, 1, &gx);
    vgs_output(g, gx);
    vgs_output(g, y);
    OK(vgs_graph_compile(g, cpu, 2, NULL) == VGS_OK && vgs_set(g, in, x, 2, NULL) == VGS_OK);
    OK(vgs_graph_run(g, 2, NULL) == VGS_OK && vgs_get(g, gx, got, 2, NULL) == VGS_OK &&
       vgs_get(g, y, r, 2, NULL) == VGS_OK);
    OK(r[0] == 0 && r[1] == 5 && r[2] == 5 && r[3] == 0);
    for (i = 0; i < 6; ++i) CHECK_NEAR(got[i], i < 4 ? (i % 2 ? -0.8 : -0.6) : (i % 2 ? 1.6 : 1.2), 1e-6, 0);
    for (i = 6; i < 12; ++i) OK(got[i] == 0);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* An index may be a column of a wider table; its gradient and linear_at must look where gather looks. */
static void index_with_stride(void)
{
    static const int32_t table[8] = { 9, 1, 9, 0, 9, 1, 9, 1 };      /* column 1: 1 0 1 1             */
    static const float x[4] = { 1, 2, 3, 4 }, w[1] = { 1 }, bias[2] = { 10, 20 };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var idx = vgs_cols(g, vgs_table_int(g, table, 4, 2), 1, 1), in = vgs_state(g, 4, 1, VGS_F32);
    vgs_var gx, y, z;
    vgs_var b = vgs_table(g, bias, 2, 1), from = vgs_state(g, 2, 1, VGS_F32);
    float got[4];
    cpu = vgs_cpu_create(NULL, NULL);
    z = vgs_linear_at(g, in, vgs_table(g, w, 1, 1), b, idx);
    y = vgs_mul(g, vgs_gather(g, from, idx), in);
    vgs_gradient(g, y, &from, 1, &gx);
    vgs_output(g, gx);
    vgs_output(g, z);
    if (vgs_graph_compile(g, cpu, 1, NULL) == VGS_OK) {              /* refusing it would do as well  */
        OK(vgs_set(g, in, x, 1, NULL) == VGS_OK && vgs_graph_run(g, 1, NULL) == VGS_OK);
        OK(vgs_get(g, gx, got, 1, NULL) == VGS_OK);
        CHECK(got[0] == 2 && got[1] == 8, "gradient of gather by a strided index: %g %g, want 2 8",
              (double)got[0], (double)got[1]);
        OK(vgs_get(g, z, got, 1, NULL) == VGS_OK);
        CHECK(got[0] == 21 && got[1] == 12 && got[3] == 24, "linear_at by a strided index: %g %g",
              (double)got[0], (double)got[1]);
    }
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* ==== what is recorded wrongly is told, with the op's name and both shapes ============================ */

typedef struct wrong { const char *says[3]; vgs_status code; vgs_var (*record)(vgs_graph *g); } wrong;
#define WRONG(name, ...) static vgs_var w_##name(vgs_graph *g) { return __VA_ARGS__; }
#define IN(c)    vgs_input(g, c)
#define ST(r, c) vgs_state(g, r, c, VGS_F32)
static const int32_t bad_which[2] = { 0, 3 };
static const vgs_scalar no_scalar = { 0 };
static const vgs_noise no_noise = { { 0 }, { 0 }, { 0 }, { 0 }, { 0 }, { 0 } };
static vgs_energy two_kinds = { NULL, NULL, NULL, NULL, 3, 0, false, NULL };

WRONG(add, vgs_add(g, IN(3), IN(4)))
WRONG(add_rows, vgs_add(g, ST(2, 4), ST(3, 4)))
WRONG(mul_batch, vgs_mul(g, IN(4), ST(3, 4)))
WRONG(linear, vgs_linear(g, IN(64), ST(32, 63), none))
WRONG(linear_bias, vgs_linear(g, IN(4), ST(3, 4), ST(1, 5)))
WRONG(linear_bias_rows, vgs_linear(g, IN(4), ST(3, 4), ST(2, 3)))
WRONG(linear_index, vgs_linear_at(g, IN(4), ST(3, 4), ST(2, 3), IN(1)))
WRONG(linear_index_rows, vgs_linear_at(g, ST(7, 4), ST(3, 4), ST(2, 3), vgs_index(g)))
WRONG(matmul, vgs_matmul(g, IN(4), ST(5, 4)))
WRONG(layernorm_gain, vgs_layernorm(g, IN(4), ST(1, 3), ST(1, 4)))
WRONG(layernorm_bias, vgs_layernorm(g, IN(4), ST(1, 4), ST(2, 4)))
WRONG(reshape, vgs_reshape(g, IN(6), 4))
WRONG(reshape_zero, vgs_reshape(g, IN(6), 0))
WRONG(cols, vgs_cols(g, IN(6), 4, 3))
WRONG(cols_negative, vgs_cols(g, IN(6), -1, 3))
WRONG(concat, vgs_concat(g, IN(6), ST(2, 2)))
WRONG(gather, vgs_gather(g, ST(2, 2), IN(1)))
WRONG(gather_batch, vgs_gather(g, IN(2), vgs_index(g)))
WRONG(segment_which, vgs_segment_gather(g, ST(6, 2), 3, bad_which, 2))
WRONG(segment_rows, vgs_segment_gather(g, ST(7, 2), 5, bad_which, 2))
WRONG(segment_n, vgs_segment_sum(g, ST(6, 2), 0, bad_which, 2))
static const vgs_window too_large = { 3, 2, 65536, 1, 40000, 40000, 40000, 40000 };
static const vgs_window too_small = { 2, 2, 5, 1, 1, 1, 1, 1 }, fits = { 3, 2, 3, 1, 1, 1, 1, 1 };
WRONG(conv2d_window, vgs_conv2d(g, IN(3), &too_small, ST(2, 75), none, 1))
WRONG(conv2d_groups, vgs_conv2d(g, ST(6, 4), &fits, ST(2, 18), none, 3))
WRONG(depthwise_weights, vgs_depthwise(g, ST(6, 4), &fits, ST(8, 4)))
WRONG(depthwise_pixels, vgs_depthwise(g, ST(7, 4), &fits, ST(9, 4)))
WRONG(depthwise_large, vgs_depthwise(g, ST(6, 4), &too_large, ST(9, 4)))
WRONG(avg_pool_large, vgs_avg_pool(g, ST(6, 4), &too_large))
static const vgs_window beside = { 3, 2, 2, 1, 0, 2, 0, 0 };
WRONG(max_pool_large, vgs_max_pool(g, ST(6, 4), &too_large))
WRONG(max_pool_empty, vgs_max_pool(g, ST(6, 4), &beside))
WRONG(resize_large, vgs_resize(g, ST(6, 4), 65536, 65536, 4, 5, false))
WRONG(resize_none, vgs_resize(g, ST(6, 4), 3, 2, 0, 5, false))
WRONG(pairs, vgs_pair_distance(g, IN(7), 3))
WRONG(pairs_one, vgs_pair_distance(g, IN(7), 1))
WRONG(remove_mean, vgs_remove_mean(g, IN(7), 2))
WRONG(loss, vgs_loss_of(g, IN(2), IN(3), VGS_L2))
WRONG(view, vgs_view(g, vgs_params(g, 10), 4, 2, 3, 4))
WRONG(view_ld, vgs_view(g, vgs_params(g, 10), 0, 2, 3, 2))
WRONG(energy_none, vgs_energy_of(g, &two_kinds, IN(3)))
WRONG(energy_dim, vgs_energy_of(g, &callback, IN(4)))
WRONG(state, ST(0, 4))
WRONG(input, IN(0))
WRONG(params, vgs_params(g, -3))
WRONG(no_value, vgs_exp(g, none))
WRONG(add_ints, vgs_add(g, vgs_index(g), vgs_index(g)))
WRONG(combine, vgs_combine(g, IN(3), 1, IN(1), 1))
WRONG(combine_by, vgs_combine_by(g, ST(2, 3), no_scalar, ST(3, 3), no_scalar))
WRONG(mask_above, vgs_mask_above(g, IN(3), IN(2), 0))
WRONG(fill, vgs_fill(g, 0, 2, 1))
WRONG(fill_int, vgs_fill_int(g, 0, no_scalar))
WRONG(limit_rows, vgs_limit_rows(g, vgs_index(g), no_scalar))
WRONG(tangent, vgs_sphere_tangent(g, IN(3), IN(2)))
WRONG(tangent_of_nothing, vgs_sphere_tangent(g, IN(3), none))
WRONG(move, vgs_sphere_move(g, IN(3), ST(2, 3)))
WRONG(normal, vgs_normal(g, 0, &no_noise))
WRONG(permutation, vgs_permutation(g, 0, no_scalar, &no_noise))
WRONG(permutation_long, vgs_permutation(g, INT_MAX, no_scalar, &no_noise))
WRONG(resample, vgs_resample(g, ST(5, 2), &no_noise))
WRONG(resample_ints, vgs_resample(g, vgs_index(g), &no_noise))
WRONG(assign_input, (vgs_assign(g, IN(2), IN(2)), none))
WRONG(assign_op, (vgs_assign(g, vgs_exp(g, IN(2)), IN(2)), none))
WRONG(assign_params, (vgs_assign(g, vgs_view(g, vgs_params(g, 4), 0, 1, 2, 2), ST(1, 2)), none))
WRONG(assign_cols, (vgs_assign(g, ST(-1, 3), IN(2)), none))
WRONG(assign_rows, (vgs_assign(g, ST(4, 2), IN(2)), none))
WRONG(assign_type, (vgs_assign(g, vgs_state(g, -1, 1, VGS_I32), IN(1)), none))
WRONG(assign_rows_cols, (vgs_assign_rows(g, ST(9, 3), no_scalar, IN(2)), none))
WRONG(assign_rows_input, (vgs_assign_rows(g, IN(2), no_scalar, IN(2)), none))
WRONG(assign_nothing, (vgs_assign(g, ST(1, 2), none), none))

static const wrong wrongs[] = {
    { { "add", "[B,3]", "[B,4]" }, VGS_E_SHAPE, w_add },
    { { "add", "[2,4]", "[3,4]" }, VGS_E_SHAPE, w_add_rows },
    { { "mul", "[B,4]", "[3,4]" }, VGS_E_SHAPE, w_mul_batch },
    { { "linear", "[B,64]", "[32,63]" }, VGS_E_SHAPE, w_linear },
    { { "linear", "[B,3]", "[1,5]" }, VGS_E_SHAPE, w_linear_bias },
    { { "linear", "[B,3]", "[2,3]" }, VGS_E_SHAPE, w_linear_bias_rows },
    { { "linear", "[B,3]", "[B,1]" }, VGS_E_SHAPE, w_linear_index },
    { { "linear", "[7,3]", "[B,1]" }, VGS_E_SHAPE, w_linear_index_rows },
    { { "matmul", "[B,4]", "[5,4]" }, VGS_E_SHAPE, w_matmul },
    { { "layernorm", "[B,4]", "[1,3]" }, VGS_E_SHAPE, w_layernorm_gain },
    { { "layernorm", "[B,4]", "[2,4]" }, VGS_E_SHAPE, w_layernorm_bias },
    { { "reshape", "[B,6]", "4" }, VGS_E_SHAPE, w_reshape },
    { { "reshape", "[B,6]", "0" }, VGS_E_SHAPE, w_reshape_zero },
    { { "cols", "4..6", "6" }, VGS_E_SHAPE, w_cols },
    { { "cols", "-1", "6" }, VGS_E_SHAPE, w_cols_negative },
    { { "concat", "[B,6]", "[2,2]" }, VGS_E_SHAPE, w_concat },
    { { "gather", "[2,2]", "[B,1]" }, VGS_E_SHAPE, w_gather },
    { { "gather", "[B,2]", "[B,1]" }, VGS_E_SHAPE, w_gather_batch },
    { { "segment_gather", "which[1] = 3", "0..2" }, VGS_E_ARG, w_segment_which },
    { { "segment_gather", "[7,2]", "5" }, VGS_E_SHAPE, w_segment_rows },
    { { "segment_sum", "n = 0", "> 0" }, VGS_E_ARG, w_segment_n },
    { { "conv2d", "window of 5", "2 x 2" }, VGS_E_ARG, w_conv2d_window },
    { { "conv2d", "groups = 3", "4" }, VGS_E_ARG, w_conv2d_groups },
    { { "depthwise", "[8,4]", "9" }, VGS_E_SHAPE, w_depthwise_weights },
    { { "depthwise", "[7,4]", "6 pixels" }, VGS_E_SHAPE, w_depthwise_pixels },
    { { "depthwise", "window of 65536", "3 x 2" }, VGS_E_ARG, w_depthwise_large },
    { { "avg_pool", "window of 65536", "3 x 2" }, VGS_E_ARG, w_avg_pool_large },
    { { "max_pool", "window of 65536", "3 x 2" }, VGS_E_ARG, w_max_pool_large },
    { { "max_pool", "window of 2", "no pixel" }, VGS_E_ARG, w_max_pool_empty },
    { { "resize", "65536 x 65536", "32768" }, VGS_E_ARG, w_resize_large },
    { { "resize", "0 x 5", "> 0" }, VGS_E_ARG, w_resize_none },
    { { "pair_distance", "7", "3" }, VGS_E_SHAPE, w_pairs },
    { { "pair_distance", "7", "1" }, VGS_E_SHAPE, w_pairs_one },
    { { "remove_mean", "7", "2" }, VGS_E_SHAPE, w_remove_mean },
    { { "loss", "[B,2]", "[B,3]" }, VGS_E_SHAPE, w_loss },
    { { "view", "[2,3]", "[1,10]" }, VGS_E_SHAPE, w_view },
    { { "view", "[2,3]", "ld 2" }, VGS_E_SHAPE, w_view_ld },
    { { "energy", "exactly one", "eval64" }, VGS_E_ARG, w_energy_none },
    { { "energy", "dim = 3", "4" }, VGS_E_SHAPE, w_energy_dim },
    { { "state", "rows = 0", "cols = 4" }, VGS_E_SHAPE, w_state },
    { { "input", "cols = 0", "" }, VGS_E_SHAPE, w_input },
    { { "params", "-3", "" }, VGS_E_SHAPE, w_params },
    { { "exp", "no value", "00000000" }, VGS_E_ARG, w_no_value },
    { { "add", "", "" }, VGS_E_SHAPE, w_add_ints },
    { { "combine", "[B,3]", "[B,1]" }, VGS_E_SHAPE, w_combine },
    { { "combine", "[2,3]", "[3,3]" }, VGS_E_SHAPE, w_combine_by },
    { { "mask_above", "[B,3]", "[B,2]" }, VGS_E_SHAPE, w_mask_above },
    { { "fill", "rows = 0", "cols = 2" }, VGS_E_SHAPE, w_fill },
    { { "fill_int", "rows = 0", "" }, VGS_E_SHAPE, w_fill_int },
    { { "limit_rows", "", "" }, VGS_E_SHAPE, w_limit_rows },
    { { "sphere_tangent", "[B,3]", "[B,2]" }, VGS_E_SHAPE, w_tangent },
    { { "sphere_tangent", "no value", "" }, VGS_E_ARG, w_tangent_of_nothing },
    { { "sphere_move", "[B,3]", "[2,3]" }, VGS_E_SHAPE, w_move },
    { { "normal", "cols = 0", "" }, VGS_E_SHAPE, w_normal },
    { { "permutation", "n = 0", "1..2^30" }, VGS_E_ARG, w_permutation },
    { { "permutation", "n = 2147483647", "1..2^30" }, VGS_E_ARG, w_permutation_long },
    { { "resample", "[5,2]", "" }, VGS_E_SHAPE, w_resample },
    { { "resample", "", "" }, VGS_E_SHAPE, w_resample_ints },
    { { "assign", "only a state", "input" }, VGS_E_ARG, w_assign_input },
    { { "assign", "only a state", "exp" }, VGS_E_ARG, w_assign_op },
    { { "assign", "only a state", "params" }, VGS_E_ARG, w_assign_params },
    { { "assign", "[B,3]", "[B,2]" }, VGS_E_SHAPE, w_assign_cols },
    { { "assign", "[4,2]", "[B,2]" }, VGS_E_SHAPE, w_assign_rows },
    { { "assign", "[B,1]", "" }, VGS_E_SHAPE, w_assign_type },
    { { "assign", "[9,3]", "[B,2]" }, VGS_E_SHAPE, w_assign_rows_cols },
    { { "assign", "only a state", "input" }, VGS_E_ARG, w_assign_rows_input },
    { { "assign", "no value", "" }, VGS_E_ARG, w_assign_nothing }
};

static bool says(const vgs_error *err, const wrong *w)
{
    return strstr(err->msg, w->says[0]) && strstr(err->msg, w->says[1]) && strstr(err->msg, w->says[2]);
}

static void sticky(void)
{
    size_t i;
    cpu = vgs_cpu_create(NULL, NULL);
    for (i = 0; i < sizeof wrongs / sizeof *wrongs; ++i) {
        const wrong *w = &wrongs[i];
        vgs_error err = { VGS_OK, "" }, again = { VGS_OK, "" };
        vgs_graph *g = vgs_graph_create(NULL);
        vgs_var v = w->record(g), fine;
        T_IN("wrong %s %s", w->says[0], w->says[1]);
        fine = vgs_exp(g, vgs_input(g, 3));                          /* all later ops pass it on      */
        CHECK(v.id == 0 && fine.id == 0, "a value came back");
        CHECK(vgs_graph_status(g, &err) == w->code && err.code == w->code && says(&err, w), "%s: %s",
              vgs_status_name(err.code), err.msg);
        CHECK(vgs_graph_compile(g, cpu, 4, &again) == w->code && !strcmp(err.msg, again.msg), "%s",
              again.msg);
        vgs_graph_reset(g);
        OK(vgs_graph_status(g, &err) == VGS_OK && vgs_input(g, 3).id != 0);
        vgs_graph_free(g);
    }
    vgs_cpu_free(cpu);
}

/* ==== the calls of a sampler: what they compute, in the order in which they are recorded =============== */

static void got_is(vgs_graph *g, const char *what, vgs_var v, int n, const double *want, double tol)
{
    float x[64];
    int i;
    OK(vgs_get(g, v, x, 3, NULL) == VGS_OK);
    for (i = 0; i < n; ++i)
        CHECK(fabs((double)x[i] - want[i]) <= tol * (1 + fabs(want[i])), "%s[%d] = %g, want %g", what, i,
              (double)x[i], want[i]);
}

/* max_pool against loops over each window: padding on all sides, strides, windows that reach beyond. */
static void largest_of_windows(void)
{
    static const vgs_window all[] = { { 5, 4, 3, 2, 1, 0, 1, 1 }, { 2, 4, 2, 1, 0, 1, 1, 0 },
                                      { 3, 3, 3, 3, 2, 2, 2, 2 }, { 6, 2, 1, 2, 0, 0, 0, 0 } };
    size_t k;
    for (k = 0; k < sizeof all / sizeof *all; ++k) {
        const vgs_window *p = &all[k];
        int h = (p->height + p->top + p->bottom - p->size) / p->stride + 1;
        int w = (p->width + p->left + p->right - p->size) / p->stride + 1, o, i, c;
        float x[3 * 20 * 2];
        double want[3 * 20 * 2];
        vgs_graph *g = vgs_graph_create(NULL);
        vgs_var in = vgs_input(g, p->height * p->width * 2), y = vgs_max_pool(g, vgs_reshape(g, in, 2), p);
        T_IN("window %d", (int)k);
        cpu = vgs_cpu_create(NULL, NULL);
        vgs_output(g, y);
        for (i = 0; i < 3 * p->height * p->width * 2; ++i) x[i] = between(-3, -1);
        for (o = 0; o < 3 * h * w; ++o)
            for (c = 0; c < 2; ++c) {
                double most = -100;
                for (i = 0; i < p->size * p->size; ++i) {
                    int v = o % (h * w) / w * p->stride + i / p->size - p->top;
                    int u = o % w * p->stride + i % p->size - p->left;
                    if (v < 0 || u < 0 || v >= p->height || u >= p->width) continue;
                    most = fmax(most, (double)x[((o / (h * w) * p->height + v) * p->width + u) * 2 + c]);
                }
                want[o * 2 + c] = most;
            }
        OK(vgs_graph_compile(g, cpu, 3, NULL) == VGS_OK && !vgs_set(g, in, x, 3, NULL));
        OK(vgs_graph_run(g, 3, NULL) == VGS_OK);
        got_is(g, "max_pool", y, 3 * h * w * 2, want, 0);
        vgs_graph_free(g);
        vgs_cpu_free(cpu);
    }
}

static void public_values(void)
{
    static const float a[9] = { 3, 4, 0,  0.5f, 0, 0,  -1, 2, 2 }, b[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    static const float e[3] = { 1, 2.5f, 2 }, unit[9] = { 1, 0, 0, 0, 0.6f, 0.8f, 0, 1, 0 };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var x = vgs_input(g, 3), y = vgs_input(g, 3), z = vgs_input(g, 3), level = vgs_input(g, 1), v[12], to;
    vgs_scalar two = vgs_scalar_create(g, 2), seven = vgs_scalar_create(g, 7);
    double want[64];
    int32_t whole[6];
    int i, k;
    cpu = vgs_cpu_create(NULL, NULL);
    v[0] = vgs_combine(g, x, 2, y, -0.5f);
    v[1] = vgs_combine_by(g, x, two, y, no_scalar);                  /* {0} is 1                       */
    v[2] = vgs_mask_above(g, x, level, 2);
    v[3] = vgs_fill(g, -1, 2, 1.5f);
    v[4] = vgs_fill(g, 2, 3, -2);
    v[5] = vgs_fill_int(g, -2, seven);
    v[6] = vgs_limit_rows(g, x, two);
    v[7] = to = vgs_sphere_tangent(g, x, z);
    v[8] = vgs_sphere_move(g, z, to);
    v[9] = vgs_sphere_move(g, y, none);
    for (k = 0; k < 10; ++k) vgs_output(g, v[k]);
    OK(vgs_graph_compile(g, cpu, 4, NULL) == VGS_OK && !vgs_set(g, x, a, 3, NULL));
    OK(!vgs_set(g, y, b, 3, NULL) && !vgs_set(g, z, unit, 3, NULL) && !vgs_set(g, level, e, 3, NULL));
    OK(vgs_graph_run(g, 3, NULL) == VGS_OK);
    for (i = 0; i < 9; ++i) want[i] = 2 * (double)a[i] - 0.5 * (double)b[i];
    got_is(g, "combine", v[0], 9, want, 1e-6);
    for (i = 0; i < 9; ++i) want[i] = 2 * (double)a[i] + (double)b[i];
    got_is(g, "combine_by", v[1], 9, want, 1e-6);
    for (i = 0; i < 9; ++i) want[i] = i / 3 == 1 ? 0 : (double)a[i];
    got_is(g, "mask_above", v[2], 9, want, 0);
    for (i = 0; i < 6; ++i) want[i] = 1.5;
    got_is(g, "fill", v[3], 6, want, 0);
    for (i = 0; i < 6; ++i) want[i] = -2;
    got_is(g, "fill of fixed rows", v[4], 6, want, 0);
    OK(vgs_get(g, v[5], whole, 3, NULL) == VGS_OK);
    for (i = 0; i < 6; ++i) OK(whole[i] == 7);
    for (i = 0; i < 9; ++i) want[i] = (double)a[i] * (i / 3 == 0 ? 0.4 : i / 3 == 1 ? 1 : 2 / 3.0);
    got_is(g, "limit_rows", v[6], 9, want, 1e-6);
    for (k = 0; k < 9; k += 3) {
        double dot = 0, len = 0, move[9], norm = 0;
        for (i = k; i < k + 3; ++i) dot += (double)a[i] * (double)unit[i];
        for (i = k; i < k + 3; ++i) want[i] = (double)a[i] - dot * (double)unit[i], len += want[i] * want[i];
        for (i = k; i < k + 3; ++i)
            move[i] = cos(sqrt(len)) * (double)unit[i] + (len > 0 ? sin(sqrt(len)) / sqrt(len) * want[i] : 0);
        for (i = k; i < k + 3; ++i) want[9 + i] = move[i], norm += (double)b[i] * (double)b[i];
        for (i = k; i < k + 3; ++i) want[18 + i] = (double)b[i] / sqrt(norm);
    }
    got_is(g, "sphere_tangent", v[7], 9, want, 1e-6);
    got_is(g, "sphere_move", v[8], 9, want + 9, 1e-6);
    got_is(g, "x/|x|", v[9], 9, want + 18, 1e-6);
    vgs_scalar_set(g, seven, -3);
    vgs_scalar_set(g, two, 0.5);
    OK(vgs_graph_run(g, 3, NULL) == VGS_OK && vgs_get(g, v[5], whole, 3, NULL) == VGS_OK && whole[5] == -3);
    for (i = 0; i < 9; ++i) want[i] = 0.5 * (double)a[i] + (double)b[i];
    got_is(g, "combine_by, set again", v[1], 9, want, 1e-6);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* An op sees what the effects recorded before it have done, and nothing of those after it. */
static void assignments(void)
{
    static const float x[4] = { 1, 2, 3, 4 };
    static const int32_t turned[4] = { 3, 2, 1, 0 };
    static const double doubled[4] = { 2, 4, 6, 8 }, before[4] = { 1.5, 2.5, 3.5, 4.5 },
                        after[4] = { 2.5, 4.5, 6.5, 8.5 }, reversed[4] = { 4, 3, 2, 1 },
                        second[4] = { 101, 102, 103, 104 }, halves[8] = { 3, 1, 4, 2, 5, 3, 6, 4 },
                        shifted[4] = { 2, 3, 4, 5 };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var s[6], u, early, late, a, b;
    int k;
    cpu = vgs_cpu_create(NULL, NULL);
    for (k = 0; k < 6; ++k) s[k] = vgs_state(g, 4, k == 3 ? 2 : 1, VGS_F32);
    u = vgs_affine(g, s[0], 2, 0);
    early = vgs_affine(g, s[0], 1, 0.5f);        /* of s as it was, though u is there already         */
    vgs_assign(g, s[0], u);
    late = vgs_affine(g, s[0], 1, 0.5f);
    vgs_assign(g, s[1], vgs_gather(g, s[1], vgs_table_int(g, turned, 4, 1)));
    a = vgs_affine(g, s[4], 1, 100);
    b = vgs_affine(g, s[4], 1, 200);
    vgs_assign(g, s[2], b);                      /* the later of two assignments stays                */
    vgs_assign(g, s[2], a);
    a = vgs_affine(g, s[4], 1, 0);
    vgs_assign(g, vgs_cols(g, s[3], 0, 1), vgs_affine(g, s[4], 1, 2));           /* columns of it      */
    vgs_assign(g, vgs_cols(g, s[3], 1, 1), a);
    vgs_assign(g, s[5], vgs_affine(g, s[5], 1, 1));                  /* where it is read, one by one   */
    vgs_output(g, early);
    vgs_output(g, late);
    OK(vgs_graph_compile(g, cpu, 3, NULL) == VGS_OK);
    for (k = 0; k < 6; ++k) if (k != 3) OK(vgs_set(g, s[k], x, 3, NULL) == VGS_OK);
    OK(vgs_graph_run(g, 3, NULL) == VGS_OK);
    got_is(g, "early", early, 4, before, 0);
    got_is(g, "late", late, 4, after, 0);
    got_is(g, "doubled", s[0], 4, doubled, 0);
    got_is(g, "reversed", s[1], 4, reversed, 0);
    got_is(g, "the second", s[2], 4, second, 0);
    got_is(g, "columns", s[3], 8, halves, 0);
    got_is(g, "read", s[4], 4, (const double[4]){ 1, 2, 3, 4 }, 0);
    got_is(g, "shifted", s[5], 4, shifted, 0);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* Rows of the batch go to a place that is set at the run; outside of the state nothing is written. */
static void assigned_rows(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var s = vgs_state(g, 5, 2, VGS_F32), x = vgs_input(g, 2), pair = vgs_state(g, -2, 2, VGS_F32);
    vgs_scalar first = vgs_scalar_create(g, 0);
    float v[6] = { 1, 2, 3, 4, 5, 6 };
    double want[10] = { 0 };
    int i, from;
    static const int outside[4] = { 3, 5, -1, INT_MAX };
    cpu = vgs_cpu_create(NULL, NULL);
    vgs_assign_rows(g, s, first, x);
    vgs_assign_rows(g, pair, first, x);
    OK(vgs_graph_compile(g, cpu, 3, NULL) == VGS_OK && vgs_set(g, x, v, 3, NULL) == VGS_OK);
    for (from = 2; from >= 0; from -= 2) {
        vgs_scalar_set(g, first, from);
        OK(vgs_graph_run(g, 3, NULL) == VGS_OK);
        for (i = 0; i < 6; ++i) want[2 * from + i] = (double)v[i];
        got_is(g, "rows", s, 10, want, 0);
    }
    got_is(g, "rows of twice the batch", pair, 10, want, 0);
    for (i = 0; i < 4; ++i) {
        vgs_scalar_set(g, first, outside[i]);
        CHECK(vgs_graph_run(g, 3, &err) == VGS_E_ARG && strstr(err.msg, "assign_rows"), "from %d: %s",
              outside[i], err.msg);
    }
    got_is(g, "rows", s, 10, want, 0);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* Each of the six numbers makes others; a row's are its own, wherever the batch begins. */
static void noise(void)
{
    enum { ROWS = 6, COLS = 7 };
    static const struct { uint64_t seed; int stream; int64_t iteration; int step; uint32_t row; } list[] = {
        { 5, 64, 0, 0, 0 }, { 6, 64, 0, 0, 0 }, { 5 + ((uint64_t)1 << 32), 64, 0, 0, 0 }, { 5, 255, 0, 0, 0 },
        { 5, 64, 1, 0, 0 }, { 5, 64, 0, 65535, 0 }, { 5, 64, 0, 0, 2 }
    };
    static float x[7][ROWS * COLS];
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_noise n = vgs_noise_create(g), other = vgs_noise_create(g);
    vgs_var v = vgs_normal(g, COLS, &n), w = vgs_normal(g, COLS, &n), z = vgs_normal(g, COLS, &other);
    float y[ROWS * COLS];
    int k, j, i, same;
    cpu = vgs_cpu_create(NULL, NULL);
    vgs_output(g, v);
    vgs_output(g, w);
    vgs_output(g, z);
    OK(vgs_graph_compile(g, cpu, ROWS, NULL) == VGS_OK);
    vgs_noise_set(g, &other, 1, 64, 0, 0, 0);
    for (k = 0; k < 7; ++k) {
        vgs_noise_set(g, &n, list[k].seed, list[k].stream, list[k].iteration, list[k].step, list[k].row);
        OK(!vgs_graph_run(g, ROWS, NULL) && !vgs_get(g, v, x[k], ROWS, NULL));
        OK(!vgs_get(g, w, y, ROWS, NULL));
        OK(!memcmp(x[k], y, sizeof y));          /* of one noise: the same numbers                    */
        for (j = 0; j < k; ++j) {
            for (same = i = 0; i < ROWS * COLS; ++i) same += x[j][i] == x[k][i];
            CHECK(same == 0, "noises %d and %d share %d numbers", j, k, same);
        }
    }
    OK(!memcmp(x[6], x[0] + 2 * COLS, (ROWS - 2) * COLS * sizeof(float)));
    OK(!vgs_get(g, z, y, ROWS, NULL) && memcmp(y, x[6], sizeof y));
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

static void permutations(void)
{
    static const int sizes[4] = { 1, 12, 16, 17 };
    int32_t idx[4], before[20], all[20];
    int k, n, i, round, seen[20], moved;
    cpu = vgs_cpu_create(NULL, NULL);
    for (k = 0; k < 4; ++k) {
        vgs_graph *g = vgs_graph_create(NULL);
        vgs_noise z = vgs_noise_create(g);
        vgs_scalar first = vgs_scalar_create(g, 0);
        vgs_var v;
        n = sizes[k];
        v = vgs_permutation(g, n, first, &z);
        vgs_output(g, v);
        OK(vgs_graph_compile(g, cpu, 4, NULL) == VGS_OK);
        for (round = 0; round < 2; ++round) {
            memset(seen, 0, sizeof seen);
            vgs_noise_set(g, &z, 3, 70, round, 0, 0);
            for (i = 0; i < n; i += 4) {         /* page by page                                      */
                int rows = n - i < 4 ? n - i : 4, j;
                vgs_scalar_set(g, first, i);
                OK(!vgs_graph_run(g, rows, NULL) && !vgs_get(g, v, idx, rows, NULL));
                for (j = 0; j < rows; ++j) {
                    all[i + j] = idx[j];
                    if (CHECK(idx[j] >= 0 && idx[j] < n, "%d of %d", (int)idx[j], n)) seen[idx[j]]++;
                }
            }
            for (i = 0; i < n; ++i) CHECK(seen[i] == 1, "%d: %d is there %d times", n, i, seen[i]);
            for (moved = i = 0; i < n; ++i) moved += round && all[i] != before[i];
            if (round && n > 10) CHECK(moved > n / 2, "%d of %d moved", moved, n);
            memcpy(before, all, sizeof all);
        }
        vgs_graph_free(g);
    }
    vgs_cpu_free(cpu);
}

/* Systematic: a row with the share p of the weights is taken within 1 of p n times, by weights that are cut
   at sqrt(m) times their mean; -inf and NaN have none. */
static void resampling(void)
{
    enum { M = 4, ROWS = 64 };
    static const float weights[5][M] = { { 0, 0, 0, 0 },
                                         { 1, 0.5f, -(float)INFINITY, 0 },
                                         { -1000, -1001, -999, -1000 },
                                         { 1, 9, 2, 0 },             /* one is cut                     */
                                         { (float)NAN, 0, 0, 1000 } };           /* nothing but one    */
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_noise z = vgs_noise_create(g);
    vgs_var w = vgs_state(g, M, 1, VGS_F32), v = vgs_resample(g, w, &z);
    int32_t idx[ROWS];
    int k, i, j, count[M];
    cpu = vgs_cpu_create(NULL, NULL);
    vgs_output(g, v);
    OK(vgs_graph_compile(g, cpu, ROWS, NULL) == VGS_OK);
    for (k = 0; k < 15; ++k) {
        const float *x = weights[k / 3];
        double p[M], top = -1e30, sum = 0, share;
        for (i = 0; i < M; ++i) if ((double)x[i] > top) top = (double)x[i];
        for (i = 0; i < M; ++i) p[i] = isnan(x[i]) ? 0 : exp((double)x[i] - top);
        for (j = 0; j < 60; ++j) {
            for (sum = 0, i = 0; i < M; ++i) sum += p[i];
            for (i = 0; i < M && k < 12; ++i) p[i] = fmin(p[i], sum / sqrt(M));
        }
        memset(count, 0, sizeof count);
        vgs_noise_set(g, &z, 9, 80, k % 3, 0, 0);
        OK(!vgs_set(g, w, x, 1, NULL) && !vgs_graph_run(g, ROWS, NULL) && !vgs_get(g, v, idx, ROWS, NULL));
        for (i = 0; i < ROWS; ++i) {
            if (CHECK(idx[i] >= 0 && idx[i] < M, "row %d", (int)idx[i])) count[idx[i]]++;
            OK(!i || idx[i] >= idx[i - 1]);
        }
        for (i = 0; i < M; ++i) {
            share = ROWS * p[i] / sum;
            CHECK(fabs(count[i] - share) < 1.01, "weights %d: row %d is taken %d times, not %g", k / 3, i,
                  count[i], share);
        }
    }
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* Handles of another graph, of before a reset; recording into a compiled graph; runs that do not fit. */
static void handles_and_life(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(NULL), *other = vgs_graph_create(NULL);
    vgs_var mine = vgs_input(g, 2), y;
    float x[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    cpu = vgs_cpu_create(NULL, NULL);
    OK(vgs_exp(other, mine).id == 0 && vgs_graph_status(other, &err) == VGS_E_ARG && strstr(err.msg, "exp"));
    vgs_graph_reset(g);
    vgs_input(g, 2);
    OK(vgs_exp(g, mine).id == 0 && vgs_graph_status(g, &err) == VGS_E_ARG && strstr(err.msg, "exp"));
    vgs_graph_reset(g);
    OK(vgs_graph_run(g, 1, &err) == VGS_E_ARG && strstr(err.msg, "not compiled"));
    mine = vgs_input(g, 2);
    y = vgs_exp(g, vgs_exp(g, mine));
    OK(vgs_graph_compile(g, cpu, 0, &err) == VGS_E_ARG && strstr(err.msg, "capacity = 0"));
    OK(vgs_graph_compile(g, NULL, 3, &err) == VGS_E_ARG && strstr(err.msg, "NULL"));
    vgs_output(g, y);
    OK(vgs_graph_compile(g, cpu, 3, &err) == VGS_OK);
    OK(vgs_graph_compile(g, cpu, 3, &err) == VGS_E_ARG && strstr(err.msg, "already compiled"));
    OK(vgs_graph_run(g, 4, &err) == VGS_E_ARG && strstr(err.msg, "batch = 4") && strstr(err.msg, "0..3"));
    OK(vgs_graph_run(g, -1, &err) == VGS_E_ARG);
    OK(vgs_set(g, mine, x, 4, &err) == VGS_E_ARG && vgs_set(g, y, x, 3, &err) == VGS_E_ARG);
    OK(vgs_get(g, none, x, 1, &err) == VGS_E_ARG && vgs_bind(g, y, NULL, 0, &err) == VGS_E_ARG);
    OK(vgs_set(g, mine, x, 3, &err) == VGS_OK && vgs_graph_run(g, 3, &err) == VGS_OK &&
       vgs_get(g, y, x, 3, &err) == VGS_OK);
    CHECK_NEAR(x[0], exp(exp(1.0)), 1e-5, 0);
    OK(vgs_exp(g, mine).id == 0 && vgs_graph_status(g, &err) == VGS_E_ARG);
    CHECK(strstr(err.msg, "exp") && strstr(err.msg, "compiled"), "%s", err.msg);
    vgs_graph_free(g);
    vgs_graph_free(other);
    vgs_graph_free(NULL);
    vgs_cpu_free(cpu);
}

/* Only outputs and leaves, and other views of them, can be read: a value that is neither may have been
   pruned, fused or overwritten. */
static void only_outputs(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var in = vgs_input(g, 2), state = vgs_state(g, 1, 2, VGS_F32), a = vgs_exp(g, in), b, part, dead;
    float x[4] = { 1, 2, 3, 4 }, got[4] = { 7, 7, 7, 7 };
    cpu = vgs_cpu_create(NULL, NULL);
    b = vgs_add(g, vgs_square(g, a), state);
    part = vgs_cols(g, b, 1, 1);
    dead = vgs_sin(g, in);
    vgs_output(g, b);
    OK(vgs_graph_compile(g, cpu, 2, &err) == VGS_OK && vgs_set(g, in, x, 2, &err) == VGS_OK &&
       vgs_graph_run(g, 2, &err) == VGS_OK);
    CHECK(vgs_get(g, a, got, 2, &err) == VGS_E_ARG && strstr(err.msg, "exp [B,2]") &&
          strstr(err.msg, "vgs_output"), "%s", err.msg);
    CHECK(vgs_get(g, dead, got, 2, &err) == VGS_E_ARG && strstr(err.msg, "sin [B,2]"), "%s", err.msg);
    OK(got[0] == 7 && got[3] == 7);
    CHECK(vgs_get(g, part, got, 2, &err) == VGS_OK, "%s", err.msg);
    CHECK_NEAR(got[1], exp(8), 1e-5, 0);
    OK(vgs_get(g, in, got, 2, &err) == VGS_OK && got[3] == 4);
    OK(vgs_get(g, state, got, 2, &err) == VGS_OK && got[1] == 0);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* Parameters and inputs that nobody gave are no zeros. */
static void leaves_never_set(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var in = vgs_input(g, 2), p = vgs_params(g, 3), unused = vgs_params(g, 5), y;
    float x[4] = { 1, 2, 3, 4 };
    vgs_buffer *buf;
    int k;
    cpu = vgs_cpu_create(NULL, NULL);
    buf = cpu->buffer_create(cpu->self, 3, NULL);
    for (k = 0; k < 2; ++k) {
        y = vgs_mul(g, in, vgs_view(g, p, 1, 1, 2, 2));
        vgs_output(g, y);
        CHECK(vgs_set(g, p, x, 1, &err) == VGS_E_ARG && strstr(err.msg, "params [1,3]") &&
              strstr(err.msg, "compile"), "%s", err.msg);
        OK(vgs_graph_compile(g, cpu, 2, &err) == VGS_OK);
        CHECK(vgs_graph_run(g, 2, &err) == VGS_E_ARG && strstr(err.msg, "input [B,2]") &&
              strstr(err.msg, "vgs_set"), "%s", err.msg);
        OK(vgs_set(g, in, x, 2, &err) == VGS_OK);
        CHECK(vgs_graph_run(g, 2, &err) == VGS_E_ARG && strstr(err.msg, "params [1,3]") &&
              strstr(err.msg, "vgs_bind"), "%s", err.msg);
        CHECK(k || (vgs_set(g, unused, x, 1, &err) == VGS_E_ARG && strstr(err.msg, "params [1,5]")), "%s",
              err.msg);
        OK((k ? vgs_bind(g, p, buf, 0, &err) : vgs_set(g, p, x, 1, &err)) == VGS_OK);
        CHECK(vgs_graph_run(g, 2, &err) == VGS_OK && vgs_get(g, y, x, 2, &err) == VGS_OK, "%s", err.msg);
        OK(k ? x[3] == 0 : x[3] == 12);
        vgs_graph_reset(g);
        in = vgs_input(g, 2);
        p = vgs_params(g, 3);
    }
    vgs_graph_free(g);
    cpu->buffer_free(cpu->self, buf);
    vgs_cpu_free(cpu);
}

#ifdef _OPENMP
static int refuses(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i;
    (void)x; (void)dim; (void)g;
    for (i = 0; i < n; ++i) e[i] = 0;
    return *(int *)user;
}

/* An energy that fails on one thread, two ops in front of a product that all threads share: they must still
   meet there. (Where they do not, this hangs.) */
static void failure_before_shared(void)
{
    enum { N = 512, H = 256 };
    vgs_cpu_config two = { 2, VGS_ISA_AUTO };
    vgs_graph *g = vgs_graph_create(NULL);
    float *zero = (float *)calloc(N * H, sizeof *zero);
    int fails = 1, k;
    vgs_energy e;
    vgs_error err = { VGS_OK, "" };
    vgs_var x = vgs_state(g, 2, 4, VGS_F32), big = vgs_input(g, H), w = vgs_params(g, H * H), v;
    memset(&e, 0, sizeof e);
    e.eval = refuses;
    e.user = &fails;
    e.dim = 4;
    cpu = vgs_cpu_create(&two, NULL);
    v = vgs_exp(g, vgs_sum_rows(g, vgs_energy_of(g, &e, x)));
    v = vgs_linear(g, vgs_add(g, big, v), vgs_view(g, w, 0, H, H, H), none);
    vgs_output(g, v);
    OK(vgs_graph_compile(g, cpu, N, &err) == VGS_OK && vgs_set(g, big, zero, N, &err) == VGS_OK &&
       vgs_set(g, w, zero, 1, &err) == VGS_OK);
    for (k = 0; k < 20; ++k) OK(vgs_graph_run(g, N, &err) == VGS_E_ENERGY);
    fails = 0;
    OK(vgs_graph_run(g, N, &err) == VGS_OK);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
    free(zero);
}
#endif

static void huge_sizes(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var x;
    cpu = vgs_cpu_create(NULL, NULL);
    vgs_output(g, vgs_exp(g, vgs_state(g, INT_MAX, INT_MAX, VGS_F32)));
    OK(vgs_graph_compile(g, cpu, 1, &err) == VGS_E_NOMEM && strstr(err.msg, "out of memory"));
    OK(vgs_graph_status(g, NULL) == VGS_E_NOMEM);
    vgs_graph_reset(g);
    vgs_output(g, vgs_exp(g, vgs_input(g, INT_MAX)));
    OK(vgs_graph_compile(g, cpu, INT_MAX, &err) == VGS_E_NOMEM);
    vgs_graph_reset(g);
    x = vgs_state(g, 1, INT_MAX, VGS_F32);
    OK(vgs_concat(g, x, x).id == 0 && vgs_graph_status(g, &err) == VGS_E_SHAPE && strstr(err.msg, "concat"));
    vgs_graph_reset(g);
    x = vgs_input(g, 100000);
    OK(vgs_pair_distance(g, x, 100000).id == 0 && vgs_graph_status(g, &err) == VGS_E_SHAPE &&
       strstr(err.msg, "pair_distance"));
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

/* Gradients that do not exist are refused; of what does not matter they are zero. */
static void gradient_limits(void)
{
    vgs_error err = { VGS_OK, "" };
    vgs_graph *g = vgs_graph_create(NULL);
    vgs_var x[17], gx[17], y, s;
    float v[6] = { 1, 2, 3, 4, 5, 6 };
    int k;
    cpu = vgs_cpu_create(NULL, NULL);
    x[0] = vgs_input(g, 2);
    x[1] = vgs_input(g, 3);
    OK(vgs_gradient(g, vgs_square(g, x[0]), x, 2, gx) == VGS_OK);
    vgs_output(g, gx[1]);
    OK(vgs_graph_compile(g, cpu, 2, &err) == VGS_OK && vgs_graph_run(g, 2, &err) == VGS_OK &&
       vgs_get(g, gx[1], v, 2, &err) == VGS_OK);
    for (k = 0; k < 6; ++k) OK(v[k] == 0);
    vgs_graph_reset(g);
    x[0] = vgs_input(g, 2);                                          /* second derivative             */
    OK(vgs_gradient(g, vgs_silu(g, x[0]), x, 1, gx) == VGS_OK);
    OK(vgs_gradient(g, gx[0], x, 1, gx) == VGS_E_ARG && vgs_graph_status(g, &err) &&
       strstr(err.msg, "slope of silu"));
    vgs_graph_reset(g);
    for (k = 0; k < 17; ++k) x[k] = vgs_input(g, 1);
    OK(vgs_gradient(g, x[0], x, 17, gx) == VGS_E_ARG && vgs_graph_status(g, &err) && strstr(err.msg, "17"));
    vgs_graph_reset(g);
    x[0] = vgs_params(g, 4);
    y = vgs_square(g, vgs_view(g, x[0], 0, 2, 2, 2));
    s = vgs_state(g, 1, 5, VGS_F32);
    OK(vgs_gradient_params(g, y, x[0], s) == VGS_E_SHAPE && vgs_graph_status(g, &err) &&
       strstr(err.msg, "[1,4]") && strstr(err.msg, "[1,5]"));
    vgs_graph_reset(g);
    x[0] = vgs_params(g, 6);
    y = vgs_square(g, vgs_view(g, x[0], 0, 2, 3, 3));
    CHECK(vgs_gradient(g, y, x, 1, gx) == VGS_E_ARG && vgs_graph_status(g, &err) &&
          strstr(err.msg, "params [1,6]") && strstr(err.msg, "vgs_gradient_params"), "%s", err.msg);
    vgs_graph_free(g);
    vgs_cpu_free(cpu);
}

static int wrong_slope(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, mode = *(int *)user;
    (void)dim;
    for (i = 0; i < n; ++i) {
        e[i] = x[2 * i] * x[2 * i] + 3 * x[2 * i + 1];
        if (g) { g[2 * i] = 2 * x[2 * i]; g[2 * i + 1] = mode == 1 ? -3.0f : mode == 2 ? (float)NAN : 3.0f; }
    }
    return mode == 3;
}

static int deep64(void *user, const double *x, int n, int dim, double *e, double *g)
{
    int i;
    (void)user;
    (void)dim;
    for (i = 0; i < n; ++i) {
        e[i] = x[2 * i] * x[2 * i] + 3 * x[2 * i + 1] - 1e8;         /* a float keeps multiples of 8   */
        if (g) { g[2 * i] = 2 * x[2 * i]; g[2 * i + 1] = 3; }
    }
    return 0;
}

static void energy_check(void)
{
    static const float x[4] = { 0.5f, -1, 2, 0.25f };
    vgs_energy e;
    vgs_error err = { VGS_OK, "" };
    double worst = -1;
    int mode = 0;
    memset(&e, 0, sizeof e);
    e.eval = wrong_slope;
    e.user = &mode;
    e.dim = 2;
    OK(vgs_energy_check(&e, x, 2, &worst, &err) == VGS_OK && worst < 1e-3);
    mode = 1;
    OK(vgs_energy_check(&e, x, 2, &worst, &err) == VGS_OK);
    CHECK_NEAR(worst, 6.0 / 4.0, 1e-3, 0);
    mode = 2;
    OK(vgs_energy_check(&e, x, 2, &worst, &err) == VGS_E_NONFINITE && strstr(err.msg, "component 1"));
    mode = 3;
    OK(vgs_energy_check(&e, x, 2, &worst, &err) == VGS_E_ENERGY);
    e.eval = NULL;
    e.eval64 = deep64;
    OK(vgs_energy_check(&e, x, 2, &worst, &err) == VGS_OK);
    CHECK(worst < 1e-3, "with a constant of -1e8 the gradient is off by %g", worst);
    e.dim = -1;
    CHECK(vgs_energy_check(&e, x, 2, &worst, &err) == VGS_E_ARG, "%s", err.msg);
    OK(vgs_energy_check(NULL, x, 2, &worst, &err) == VGS_E_ARG);
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(every_op);
    RUN(joined);
    RUN(eigenvectors);
    RUN(gradients);
    RUN(across_parts);
    RUN(coincident_points);
    RUN(index_with_stride);
    RUN(sticky);
    RUN(public_values);
    RUN(largest_of_windows);
    RUN(assignments);
    RUN(assigned_rows);
    RUN(noise);
    RUN(permutations);
    RUN(resampling);
    RUN(handles_and_life);
    RUN(only_outputs);
    RUN(leaves_never_set);
#ifdef _OPENMP
    RUN(failure_before_shared);
#endif
    RUN(huge_sizes);
    RUN(gradient_limits);
    RUN(energy_check);
    return t_end();
}
