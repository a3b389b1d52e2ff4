/* The op table again, in double, one element at a time: what the tests hold the library to. A buffer is an
   array of doubles, an int32 element is a double too; run() reads a call as its entry under >>ops says.
   Include after the implementation of vgs.h. */
#ifndef REF_H
#define REF_H
#include <stdlib.h>

struct vgs_buffer { size_t n; double *x; };

static int ref_faults;                           /* reads and writes outside of a buffer: must stay 0 */

/* Element (i,j); an operand of one row or one column is stretched. */
static double *ref_at(const vgs_tensor *t, int i, int j)
{
    static double nothing;
    size_t r = (size_t)(t->rows == 1 ? 0 : i), c = (size_t)(t->cols == 1 ? 0 : j);
    size_t at = t->offset + r * (size_t)t->ld + c;
    if (t->buf && at < t->buf->n && i >= 0 && j >= 0) return &t->buf->x[at];
    ++ref_faults;
    nothing = 0;
    return &nothing;
}
#define IN(k, i, j)  (*ref_at(&call->in[k], i, j))
#define OUT(i, j)    (*ref_at(&call->out, i, j))
#define OUT2(i, j)   (*ref_at(&call->out2, i, j))
#define F(k)         ((double)call->f[k])
#define EACH(n, m)   for (i = 0; i < (n); ++i) for (j = 0; j < (m); ++j)

static double ref_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double ref_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

static double ref_loss(double d, int kind)
{
    if (kind == VGS_L1) return fabs(d);
    return kind == VGS_L2 ? d * d : fabs(d) < 1 ? d * d / 2 : fabs(d) - 0.5;
}

static double ref_loss_slope(double d, int kind)
{
    if (kind == VGS_L2) return 2 * d;
    if (kind == VGS_SMOOTH_L1 && fabs(d) < 1) return d;
    return d > 0 ? 1 : d < 0 ? -1 : 0;
}

static double ref_act(const vgs_call *call, int f, double x)
{
    switch (f) {
    case VGS_ACT_RELU:     return x > 0 ? x : 0;
    case VGS_ACT_SIGMOID:  return ref_sigmoid(x);
    case VGS_ACT_TANH:     return tanh(x);
    case VGS_ACT_SILU:     return x * ref_sigmoid(x);
    case VGS_ACT_SOFTPLUS: return ref_softplus(x);
    case VGS_ACT_CLAMP:    return x < F(0) ? F(0) : x > F(1) ? F(1) : x;
    default:               return x;
    }
}

/* Elementwise ops: how many operands; the ranges of a and b, and the attributes f0, f1, i0, with which
   tests/ops.c runs it; one element of the result. */
#define REF_MAPS(X) \
    X(ADD, 2, -4, 4, -4, 4, 0, 0, 0, a + b) \
    X(SUB, 2, -4, 4, -4, 4, 0, 0, 0, a - b) \
    X(MUL, 2, -4, 4, -4, 4, 0, 0, 0, a * b) \
    X(DIV, 2, -4, 4, 0.2f, 5, 0, 0, 0, a / b) \
    X(AFFINE, 1, -4, 4, 0, 0, 1.7f, -0.3f, 0, a * F(0) + F(1)) \
    X(EXP, 1, -20, 20, 0, 0, 0, 0, 0, exp(a)) \
    X(LOG, 1, 1e-3f, 50, 0, 0, 0, 0, 0, log(a)) \
    X(SQRT, 1, 0, 9, 0, 0, 0, 0, 0, sqrt(a)) \
    X(SQUARE, 1, -4, 4, 0, 0, 0, 0, 0, a * a) \
    X(RECIPROCAL, 1, 0.2f, 5, 0, 0, 0, 0, 0, 1 / a) \
    X(ABS, 1, -4, 4, 0, 0, 0, 0, 0, fabs(a)) \
    X(ABS_GRAD, 2, -4, 4, -4, 4, 0, 0, 0, b > 0 ? a : b < 0 ? -a : 0 /* a: gradient, b: x */) \
    X(SIN, 1, -9, 9, 0, 0, 0, 0, 0, sin(a)) \
    X(COS, 1, -9, 9, 0, 0, 0, 0, 0, cos(a)) \
    X(RELU, 1, -4, 4, 0, 0, 0, 0, 0, a > 0 ? a : 0) \
    X(RELU_GRAD, 2, -4, 4, -4, 4, 0, 0, 0, b > 0 ? a : 0 /* b: relu x */) \
    X(SILU, 1, -30, 30, 0, 0, 0, 0, 0, a * ref_sigmoid(a)) \
    X(SOFTPLUS, 1, -40, 40, 0, 0, 0, 0, 0, ref_softplus(a)) \
    X(SIGMOID, 1, -40, 40, 0, 0, 0, 0, 0, ref_sigmoid(a)) \
    X(SIGMOID_GRAD, 2, -4, 4, 0, 1, 0, 0, 0, a * b * (1 - b) /* b: sigmoid x */) \
    X(TANH, 1, -12, 12, 0, 0, 0, 0, 0, tanh(a)) \
    X(TANH_GRAD, 2, -4, 4, -1, 1, 0, 0, 0, a * (1 - b * b) /* b: tanh x */) \
    X(CLAMP, 1, -4, 4, 0, 0, -1, 1.5f, 0, a < F(0) ? F(0) : a > F(1) ? F(1) : a) \
    X(CLAMP_GRAD, 2, -4, 4, -4, 4, -1, 1.5f, 0, b < F(0) || b > F(1) ? 0 : a) \
    X(FILL, 0, 0, 0, 0, 0, 2.5f, 0, 0, i[0] ? F(0) / call->out.rows : F(0)) \
    X(LOSS, 2, -3, 3, -3, 3, 0, 0, VGS_L2, ref_loss(a - b, i[0])) \
    X(LOSS_GRAD, 2, -3, 3, -3, 3, 0, 0, VGS_L2, ref_loss_slope(a - b, i[0])) \
    X(MASK_ABOVE, 2, -4, 4, -4, 4, 0.5f, 0, 0, b <= F(0) ? a : 0) \
    X(MAX, 2, -4, 4, -4, 4, 0, 0, 0, a != a || a > b ? a : b)

static double ref_map(const vgs_call *call, double a, double b, double c)
{
    const int *i = call->i;
    switch (call->op) {
#define REF_CASE(ID, operands, lo, hi, lo_b, hi_b, f0, f1, i0, expr) case VGS_OP_##ID: return expr;
    REF_MAPS(REF_CASE)
#undef REF_CASE
    case VGS_OP_COMBINE:  return a * F(0) + b * F(1) + (call->in[2].buf ? c * F(2) : 0);
    case VGS_OP_FILL_INT: return i[0];
    case VGS_OP_INT_DIV:  return floor(a / i[0]);
    default:              return HUGE_VAL - HUGE_VAL;
    }
}

static void ref_maps(const vgs_call *call)
{
    int i, j;
    EACH(call->out.rows, call->out.cols)
        OUT(i, j) = ref_map(call, call->in[0].buf ? IN(0, i, j) : 0, call->in[1].buf ? IN(1, i, j) : 0,
                            call->in[2].buf ? IN(2, i, j) : 0);
    if (call->op == VGS_OP_SILU && call->out2.buf)                               /* its slope           */
        EACH(call->out.rows, call->out.cols) {
            double s = ref_sigmoid(IN(0, i, j));
            OUT2(i, j) = s * (1 + IN(0, i, j) * (1 - s));
        }
}

/* Where element j of row p of a product's B lies in what PACK makes of it: blocks of 256 p, in them panels of
   `width` columns. */
static int ref_packed_at(int p, int j, int padded, int depth, int width)
{
    int block = p / 256 * 256, k = depth - block < 256 ? depth - block : 256;
    return padded * block + j / width * width * k + (p - block) * width + j % width;
}

static void ref_pack(const vgs_call *call)
{
    int i, j, at, nt = call->i[0] == VGS__NT, rows = call->in[0].rows, cols = call->in[0].cols,
        padded = call->out.rows, depth = call->out.cols;
    EACH(padded, depth) {
        bool inside = i < (nt ? rows : cols);
        at = ref_packed_at(j, i, padded, depth, call->i[1]);
        OUT(at / depth, at % depth) = inside ? nt ? IN(0, i, j) : IN(0, j, i) : 0;
    }
}

/* Element k of row i of a product's A. i4 > 0: of a window, i3 pixels before. */
static double ref_left(const vgs_call *call, int i, int k)
{
    int c = call->in[0].cols, places, at;
    if (!call->i[4]) return call->i[0] == VGS__TN ? IN(0, k, i) : IN(0, i, k);
    places = call->in[1].cols / c;
    at = i % call->i[4] * places + k / c;
    if ((int)IN(4, at + 1, 0) == (int)IN(4, at, 0)) return 0;
    return IN(0, i / call->i[4] * call->i[3] + (int)IN(5, (int)IN(4, at, 0), 0), k % c);
}

/* Element j of row k of its B. i2: packed. */
static double ref_right(const vgs_call *call, int k, int j, int width)
{
    int depth = call->in[1].cols, at;
    if (!call->i[2]) return call->i[0] == VGS__NT ? IN(1, j, k) : IN(1, k, j);
    at = ref_packed_at(k, j, call->in[1].rows, depth, width);
    return IN(1, at / depth, at % depth);
}

static int ref_panel;                            /* columns of a panel of PACK                         */

/* a b, a b^T or a^T b; then + bias, or + the row of a table that an index names; then an activation */
static void ref_matmul(const vgs_call *call)
{
    int i, j, k, form = call->i[0], depth = form == VGS__TN ? call->in[0].rows : call->in[0].cols;
    if (call->i[4]) depth = call->in[1].cols;
    EACH(call->out.rows, call->out.cols) {
        double sum = 0;
        for (k = 0; k < depth; ++k) sum += ref_left(call, i, k) * ref_right(call, k, j, ref_panel);
        if (call->in[2].buf) sum += IN(2, call->in[3].buf ? (int)IN(3, i, 0) : 0, j);
        OUT(i, j) = ref_act(call, call->i[1], sum);
    }
}

static void ref_sums(const vgs_call *call)
{
    int i, j, n = call->in[0].rows, m = call->in[0].cols;
    const vgs_tensor *out = &call->out;
    if (call->op == VGS_OP_LOGSUMEXP)
        for (i = 0; i < n; ++i) {
            double top = -HUGE_VAL, sum = 0;
            for (j = 0; j < m; ++j) top = fmax(top, IN(0, i, j));
            for (j = 0; j < m; ++j) sum += exp(IN(0, i, j) - top);
            OUT(i, 0) = top + log(sum);
        }
    else EACH(out->rows, out->cols) OUT(i, j) = 0;
    if (call->op == VGS_OP_SUM_COLS) EACH(n, m) OUT(i, 0) += IN(0, i, j) * F(0);
    if (call->op == VGS_OP_SUM_ROWS) EACH(n, m) OUT(0, j) += IN(0, i, j) / (call->i[0] ? n : 1);
    if (call->op == VGS_OP_SCATTER_ROWS) EACH(n, m) OUT((int)IN(1, i, 0), j) += IN(0, i, j);
    if (call->op == VGS_OP_SUM_SQUARES) EACH(n, m) OUT(0, 0) += IN(0, i, j) * IN(0, i, j);
}

/* x^ = (x - mean)/sqrt(var + 1e-5); gain x^ + bias; or the gradient in x, h = gain gy */
static void ref_layernorm(const vgs_call *call)
{
    int i, j, m = call->out.cols;
    for (i = 0; i < call->out.rows; ++i) {
        double mean = 0, var = 0, s, h = 0, hx = 0;
        for (j = 0; j < m; ++j) mean += IN(0, i, j) / m;
        for (j = 0; j < m; ++j) var += (IN(0, i, j) - mean) * (IN(0, i, j) - mean) / m;
        s = 1 / sqrt(var + (double)1e-5f);
        if (call->op == VGS_OP_LAYERNORM_GRAD)
            for (j = 0; j < m; ++j) {
                h += IN(1, 0, j) * IN(2, i, j) / m;
                hx += IN(1, 0, j) * IN(2, i, j) * (IN(0, i, j) - mean) * s / m;
            }
        for (j = 0; j < m; ++j) {
            double hat = (IN(0, i, j) - mean) * s;
            OUT(i, j) = call->op == VGS_OP_LAYERNORM_HAT ? hat
                      : call->op == VGS_OP_LAYERNORM     ? hat * IN(1, 0, j) + IN(2, 0, j)
                                                         : s * (IN(1, 0, j) * IN(2, i, j) - h - hat * hx);
        }
    }
}

/* Rows and columns that go elsewhere. SEGMENT: every sample has i0 rows before and i1 after, or back. */
static void ref_moves(const vgs_call *call)
{
    int i, j, e, ca = call->in[0].cols, n = call->i[0], m = call->i[1];
    EACH(call->out.rows, call->out.cols) {
        if (call->op == VGS_OP_PAD_COLS) OUT(i, j) = j >= n && j < n + ca ? IN(0, i, ca == 1 ? 0 : j - n) : 0;
        if (call->op == VGS_OP_CONCAT) OUT(i, j) = j < ca ? IN(0, i, j) : IN(1, i, j - ca);
        if (call->op == VGS_OP_GATHER) OUT(i, j) = IN(0, (int)IN(1, i, 0), j);
        if (call->op == VGS_OP_SEGMENT_GATHER) OUT(i, j) = IN(0, i / m * n + (int)IN(1, i % m, 0), j);
        if (call->op == VGS_OP_UNSORT_COLS) OUT(i, (int)IN(1, i, j)) = IN(0, i, j);
        if (call->op == VGS_OP_SEGMENT_SUM) {                        /* in: x, start [n+1], list [m]   */
            OUT(i, j) = 0;
            for (e = (int)IN(1, i % n, 0); e < (int)IN(1, i % n + 1, 0); ++e)
                OUT(i, j) += IN(0, i / n * m + (int)IN(2, e, 0), j);
        }
    }
}

/* Weighted sums of a sample's pixels, and the gradient of the weights. */
static void ref_stencil(const vgs_call *call)
{
    int i, j, e, o, n = call->i[0], m = call->i[1], taps = call->i[2];
    EACH(call->out.rows, call->out.cols) {
        OUT(i, j) = 0;
        if (call->op == VGS_OP_STENCIL)
            for (e = (int)IN(2, i % m, 0); e < (int)IN(2, i % m + 1, 0); ++e)
                OUT(i, j) += IN(1, (int)IN(3, e, 1), call->in[1].cols == 1 ? 0 : j) *
                             IN(0, i / m * n + (int)IN(3, e, 0), j);
        if (call->op == VGS_OP_STENCIL)
            OUT(i, j) = ref_act(call, call->i[4], OUT(i, j) + (call->in[4].buf ? IN(4, 0, j) : 0));
        else
            for (o = 0; o < m; ++o)
                for (e = (int)IN(2, o, 0); e < (int)IN(2, o + 1, 0); ++e)
                    if ((int)IN(3, e, 1) == i % taps)
                        OUT(i, j) += IN(0, i / taps * m + o, j) * IN(1, i / taps * n + (int)IN(3, e, 0), j);
    }
}

/* Each element takes the place that its rank gives it: descending, equal ones in their order. */
static void ref_sort(const vgs_call *call)
{
    int i, j, k, rank;
    EACH(call->out.rows, call->out.cols) {
        double x = IN(0, i, j);
        for (rank = k = 0; k < call->out.cols; ++k) rank += IN(0, i, k) > x || (k < j && IN(0, i, k) == x);
        OUT(i, rank) = x;
        OUT2(i, rank) = j;
    }
}

static void ref_turn(double *x, double *y, double c, double s)
{
    double u = *x;
    *x = c * u - s * *y;
    *y = s * u + c * *y;
}

/* Jacobi's rotations from both sides. */
static void ref_eigen(const vgs_call *call)
{
    int r, i, j, k, p, q, sweep, n = call->i[0];
    double *a = (double *)calloc((size_t)(n * n), sizeof *a);
    for (r = 0; r < call->out.rows; ++r) {
        EACH(n, n) a[i * n + j] = (IN(0, r, i * n + j) + IN(0, r, j * n + i)) / 2;
        EACH(n, n) OUT(r, i * n + j) = i == j;
        for (sweep = 0; sweep < 20; ++sweep)
            for (p = 0; p < n; ++p)
                for (q = p + 1; q < n; ++q) {
                    double angle = atan2(2 * a[p * n + q], a[q * n + q] - a[p * n + p]) / 2;
                    double c = cos(angle), s = sin(angle);
                    if (a[p * n + q] == 0) continue;
                    for (k = 0; k < n; ++k) ref_turn(&a[k * n + p], &a[k * n + q], c, s);
                    for (k = 0; k < n; ++k) ref_turn(&a[p * n + k], &a[q * n + k], c, s);
                    for (k = 0; k < n; ++k) ref_turn(&OUT(r, p * n + k), &OUT(r, q * n + k), c, s);
                }
        for (i = 0; i < n; ++i) OUT2(r, i) = a[i * n + i];
    }
    free(a);
}

static void ref_particles(const vgs_call *call)
{
    int r, a, b, j, p, n = call->i[0], d = call->in[0].cols / n;
    bool grad = call->op == VGS_OP_PAIR_DISTANCE_GRAD;
    for (r = 0; r < call->out.rows; ++r) {
        for (j = 0; grad && j < n * d; ++j) OUT(r, j) = 0;
        for (p = a = 0; a < n; ++a)
            for (b = a + 1; b < n; ++b, ++p) {
                double s = 0;
                for (j = 0; j < d; ++j) s += pow(IN(0, r, a * d + j) - IN(0, r, b * d + j), 2);
                if (!grad) OUT(r, p) = sqrt(s);
                for (j = 0; grad && s > 0 && j < d; ++j) {
                    double v = IN(2, r, p) * (IN(0, r, a * d + j) - IN(0, r, b * d + j)) / sqrt(s);
                    OUT(r, a * d + j) += v;
                    OUT(r, b * d + j) -= v;
                }
            }
    }
}

static void ref_remove_mean(const vgs_call *call)
{
    int r, a, b, j, n = call->i[0], d = call->out.cols / n;
    for (r = 0; r < call->out.rows; ++r)
        for (a = 0; a < n; ++a)
            for (j = 0; j < d; ++j) {
                double mean = 0;
                for (b = 0; b < n; ++b) mean += IN(0, r, b * d + j) / n;
                OUT(r, a * d + j) = IN(0, r, a * d + j) - mean;
            }
}

/* v - (v.x) x;  cos|v| x + sin|v| v/|v|, brought back to length 1 */
static void ref_sphere(const vgs_call *call)
{
    int i, j, m = call->out.cols;
    for (i = 0; i < call->out.rows; ++i) {
        double dot = 0, len = 0, now = 0;
        for (j = 0; call->in[1].buf && j < m; ++j) {
            dot += IN(0, i, j) * IN(1, i, j);
            len += IN(1, i, j) * IN(1, i, j);
        }
        len = sqrt(len);
        for (j = 0; j < m; ++j) {
            double a = IN(0, i, j), b = call->in[1].buf ? IN(1, i, j) : 0;
            OUT(i, j) = call->op == VGS_OP_SPHERE_TANGENT ? a - dot * b
                                                          : cos(len) * a + (len > 0 ? sin(len) / len * b : 0);
            now += OUT(i, j) * OUT(i, j);
        }
        for (j = 0; call->op == VGS_OP_SPHERE_MOVE && j < m; ++j) OUT(i, j) /= sqrt(now);
    }
}

/* A row longer than f0 is made that long. */
static void ref_limit_rows(const vgs_call *call)
{
    int i, j;
    for (i = 0; i < call->out.rows; ++i) {
        double len = 0;
        for (j = 0; j < call->out.cols; ++j) len += IN(0, i, j) * IN(0, i, j);
        len = sqrt(len);
        for (j = 0; j < call->out.cols; ++j) OUT(i, j) = IN(0, i, j) * (len > F(0) ? F(0) / len : 1);
    }
}

/* Box-Muller on Philox words, the uniform number rounded to float as it is defined */
static void ref_normal(const vgs_call *call)
{
    const int *k = call->i;
    uint32_t key[2], count[4], w[4];
    int i, j;
    EACH(call->out.rows, call->out.cols) {
        int p = j % 4 / 2 * 2;
        float u;
        key[0] = (uint32_t)k[4], key[1] = (uint32_t)k[5];
        count[0] = (uint32_t)k[2] + (uint32_t)i, count[1] = (uint32_t)k[1] << 16 | (uint32_t)j / 4;
        count[2] = (uint32_t)k[0] << 24, count[3] = (uint32_t)k[3];
        vgs_philox(key, count, w);
        u = (float)w[p] * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
        OUT(i, j) = sqrt(fmax(0, -2 * log((double)u))) *
                    (j % 2 ? sin : cos)(6.283185307179586 * (w[p + 1] >> 8) / 16777216.0);
    }
}

/* six Feistel rounds over the next even power of two, until the number is below n */
static void ref_permutation(const vgs_call *call)
{
    uint32_t key[8], n = (uint32_t)call->i[7], philox_key[2], count[4] = { 0 };
    int i, r, half = 1;
    philox_key[0] = (uint32_t)call->i[4], philox_key[1] = (uint32_t)call->i[5];
    count[1] = (uint32_t)call->i[1], count[2] = (uint32_t)call->i[0] << 24, count[3] = (uint32_t)call->i[3];
    vgs_philox(philox_key, count, key);
    count[0] = 1;
    vgs_philox(philox_key, count, key + 4);
    while (ldexp(1, 2 * half) < n) ++half;
    for (i = 0; i < call->out.rows; ++i) {
        uint32_t v = (uint32_t)(call->i[6] + i), low = ((uint32_t)1 << half) - 1, h;
        do for (r = 0; r < 6; ++r) {
            h = ((v & low) ^ key[r]) * 0x9E3779B1u;
            h = (h ^ h >> 15) * 0x85EBCA77u;
            v = (v & low) << half | ((v >> half) ^ ((h ^ h >> 13) & low));
        } while (v >= n);
        OUT(i, 0) = v;
    }
}

static void ref_adam(const vgs_call *call)                           /* in: p, g, m, v, |g|^2, flag    */
{
    int j;
    double factor = F(7);
    if (IN(5, 0, 0) != 0) return;
    if (call->in[4].buf && F(5) > 0) factor *= fmin(1, F(5) / (sqrt(IN(4, 0, 0)) + 1e-6));
    for (j = 0; j < call->in[0].cols; ++j) {
        double g = IN(1, 0, j) * factor, *m = ref_at(&call->in[2], 0, j), *v = ref_at(&call->in[3], 0, j);
        *m = F(1) * *m + (1 - F(1)) * g;
        *v = F(2) * *v + (1 - F(2)) * g * g;
        IN(0, 0, j) -= F(0) * *m / (sqrt(*v) * F(4) + F(3));
        if (F(6) > 0) IN(0, 0, j) = fmax(IN(0, 0, j), F(6));
    }
}

static void ref_effects(const vgs_call *call)
{
    int i, j, n = call->in[call->op == VGS_OP_STORE || call->op == VGS_OP_EMA].rows, m = call->in[0].cols;
    bool bad = false;
    if (call->op == VGS_OP_STORE)
        EACH(n, call->in[1].cols)
        IN(0, i + call->i[0], j) = IN(1, i, j) + (call->i[1] ? IN(0, i + call->i[0], j) : 0);
    if (call->op == VGS_OP_EMA && IN(2, 0, 0) == 0)
        EACH(n, m) IN(0, i, j) = F(0) * IN(0, i, j) + (1 - F(0)) * IN(1, i, j);
    if (call->op == VGS_OP_CHECK && IN(1, 0, 0) == 0)
        for (i = 0; i < n && !bad; ++i) {
            for (j = 0; j < m; ++j)
                bad = bad || (call->i[3] ? IN(0, i, j) == -HUGE_VAL : !isfinite(IN(0, i, j)));
            if (bad)
                IN(1, 0, 0) = 1, IN(1, 0, 1) = i + call->i[2], IN(1, 0, 2) = call->i[0],
                         IN(1, 0, 3) = call->i[1];
        }
}

/* Systematic resampling from weights cut at sqrt(M) times their mean, 16 rounds. */
static void ref_resample(const vgs_call *call)
{
    int m = call->in[0].rows, r, j, pick;
    double *w = (double *)calloc((size_t)m, sizeof *w), top = -HUGE_VAL, sum = 0, cap = HUGE_VAL, at;
    uint32_t u[4];
    for (j = 0; j < m; ++j) if (IN(0, j, 0) < HUGE_VAL) top = fmax(top, IN(0, j, 0));
    for (j = 0; j < m; ++j) {
        w[j] = IN(0, j, 0) < HUGE_VAL ? exp(IN(0, j, 0) - top) : IN(0, j, 0) == HUGE_VAL;
        sum += w[j];
    }
    for (r = 0; r < 16 && sum / sqrt((double)m) < cap; ++r) {
        cap = sum / sqrt((double)m);
        for (j = 0, sum = 0; j < m; ++j) sum += w[j] = fmin(w[j], cap);
    }
    vgs__philox((uint32_t)call->i[4], (uint32_t)call->i[5], (uint32_t)call->i[2], (uint32_t)call->i[1],
                (uint32_t)call->i[0] << 24, (uint32_t)call->i[3], u);
    for (r = 0; r < call->out.rows; ++r) {
        at = (r + (u[0] >> 8) / 16777216.0) / call->out.rows * sum;
        for (pick = 0; pick < m - 1 && at >= w[pick]; ++pick) at -= w[pick];
        OUT(r, 0) = pick;
    }
    free(w);
}

/* Row by row through the double callback (or the float one). */
static vgs_status ref_energy(const vgs_call *call, vgs_error *err)
{
    const vgs_energy *e = call->energy;
    size_t d = (size_t)call->in[0].cols;
    double *x = (double *)calloc(2 * d + 1, sizeof *x), *g = x + d, value = 0;
    float *xf = (float *)calloc(2 * d + 1, sizeof *xf), vf = 0;
    int i, j, failed = 0;
    for (i = 0; i < call->in[0].rows && !failed; ++i) {
        for (j = 0; j < (int)d; ++j) xf[j] = (float)(x[j] = IN(0, i, j));
        failed = e->eval64 ? e->eval64(e->user, x, 1, (int)d, &value, g)
                           : e->eval(e->user, xf, 1, (int)d, &vf, xf + d);
        OUT(i, 0) = e->eval64 ? value : (double)vf;
        for (j = 0; call->out2.buf && j < (int)d; ++j)
            OUT2(i, j) = e->eval64 ? g[j] : (double)xf[d + (size_t)j];
    }
    free(x);
    free(xf);
    if (failed && err) err->code = VGS_E_ENERGY, strcpy(err->msg, "the energy callback failed");
    return failed ? VGS_E_ENERGY : VGS_OK;
}

static vgs_status ref_run(void *self, const vgs_call *call, vgs_error *err)
{
    (void)self;
    switch (call->op) {
    case VGS_OP_MATMUL: ref_matmul(call); break;
    case VGS_OP_PACK: ref_pack(call); break;
    case VGS_OP_SUM_COLS: case VGS_OP_LOGSUMEXP: case VGS_OP_SUM_ROWS:
    case VGS_OP_SCATTER_ROWS: case VGS_OP_SUM_SQUARES: ref_sums(call); break;
    case VGS_OP_LAYERNORM: case VGS_OP_LAYERNORM_GRAD: case VGS_OP_LAYERNORM_HAT: ref_layernorm(call); break;
    case VGS_OP_PAD_COLS: case VGS_OP_CONCAT: case VGS_OP_GATHER: case VGS_OP_UNSORT_COLS:
    case VGS_OP_SEGMENT_GATHER: case VGS_OP_SEGMENT_SUM: ref_moves(call); break;
    case VGS_OP_STENCIL: case VGS_OP_STENCIL_GRAD: ref_stencil(call); break;
    case VGS_OP_PAIR_DISTANCE: case VGS_OP_PAIR_DISTANCE_GRAD: ref_particles(call); break;
    case VGS_OP_REMOVE_MEAN: ref_remove_mean(call); break;
    case VGS_OP_SORT_COLS: ref_sort(call); break;
    case VGS_OP_EIGEN: ref_eigen(call); break;
    case VGS_OP_NORMAL: ref_normal(call); break;
    case VGS_OP_LIMIT_ROWS: ref_limit_rows(call); break;
    case VGS_OP_PERMUTATION: ref_permutation(call); break;
    case VGS_OP_RESAMPLE: ref_resample(call); break;
    case VGS_OP_SPHERE_TANGENT: case VGS_OP_SPHERE_MOVE: ref_sphere(call); break;
    case VGS_OP_ENERGY: return ref_energy(call, err);
    case VGS_OP_ADAM: ref_adam(call); break;
    case VGS_OP_STORE: case VGS_OP_EMA: case VGS_OP_CHECK: ref_effects(call); break;
    default: ref_maps(call); break;
    }
    return VGS_OK;
}
#undef IN
#undef OUT
#undef OUT2
#undef F
#undef EACH

static vgs_buffer *ref_create(void *self, size_t n, vgs_error *err)
{
    vgs_buffer *b = (vgs_buffer *)calloc(1, sizeof *b);
    (void)self;
    (void)err;
    b->n = n;
    b->x = (double *)calloc(n + 1, sizeof *b->x);
    return b;
}

static void ref_free(void *self, vgs_buffer *b)
{
    (void)self;
    if (b) free(b->x);
    free(b);
}

static vgs_status ref_upload(void *self, vgs_buffer *b, size_t offset, const void *src, size_t n,
                             vgs_type type, vgs_error *err)
{
    size_t i;
    (void)self;
    (void)err;
    if (offset + n > b->n) return ++ref_faults, VGS_E_DEVICE;
    for (i = 0; i < n; ++i)
        b->x[offset + i] =
            type == VGS_I32 ? (double)((const int32_t *)src)[i] : (double)((const float *)src)[i];
    return VGS_OK;
}

static vgs_status ref_download(void *self, void *dst, vgs_buffer *b, size_t offset, size_t n, vgs_type type,
                               vgs_error *err)
{
    size_t i;
    (void)self;
    (void)err;
    if (offset + n > b->n) return ++ref_faults, VGS_E_DEVICE;
    for (i = 0; i < n; ++i)
        if (type == VGS_I32) ((int32_t *)dst)[i] = (int32_t)b->x[offset + i];
        else ((float *)dst)[i] = (float)b->x[offset + i];
    return VGS_OK;
}

static vgs_status ref_finish(void *self, vgs_error *err) { (void)self; (void)err; return VGS_OK; }

static vgs_backend ref_backend = {NULL, ref_create, ref_free, ref_upload, ref_download, ref_run, ref_finish,
                                  NULL, NULL, 0};

/* The doubles of a leaf or of a dense value of a compiled graph, to read or to change. */
static T_MAY double *ref_value(const vgs_graph *g, vgs_var v, int batch)
{
    vgs_tensor t = vgs__run_tensor(g, vgs__id(g, v), batch);
    return t.buf->x + t.offset;
}

/* Any value, row by row. */
static T_MAY void ref_get(const vgs_graph *g, vgs_var v, int batch, double *x)
{
    vgs_tensor t = vgs__run_tensor(g, vgs__id(g, v), batch);
    int i, j;
    for (i = 0; i < t.rows; ++i) for (j = 0; j < t.cols; ++j) *x++ = *ref_at(&t, i, j);
}
#endif
