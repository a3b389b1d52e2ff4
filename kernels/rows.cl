/* Ops whose rows are independent. One launch runs a list of calls: a group takes a block of parts (vgs.h,
   run_list) through all of them, so that what lies between two ops stays in its cache, and a chain of
   elementwise ops is one launch. The list travels as an argument: no transfer, no wait. Words of a call:
   0 op, or'd with FLAT: dense operands of one shape    1 rows of a part    2 columns    3 columns of in[0]
   4 out    6 out2    8 10 12 14 in[0..3]    16 i0..i3, f0..f3, or i0..i7 of a random op */

typedef struct calls { int w[VGS_CALLS * VGS_WORDS]; } calls;

#define FLAT 0x10000
#define I(k) w[16 + (k)]
#define F(k) as_float(w[20 + (k)])

#define ROWS for (r = r0; r < r1; ++r)
/* Maps come as their formulas in vgs.h: MAPS is a MAP(op, operands, formula) for each, ACTS(X) an
   X(activation, operands, formula) for each that a product takes with it. 0 operands: more than a formula. */
#define MAP(ID, operands, expr) MAP##operands(ID, expr)
#define MAP0(ID, expr)
#define MAP1(ID, expr) \
    case ID: \
        ROWS { \
            const float f0 = F(0), f1 = F(1); \
            __global const float *pa = ROW(x0, r); \
            __global float *y = ROW(out, r); \
            LANES(c, cols) { const float a = pa[c]; y[c] = (expr); } \
        } \
        break;
#define MAP2(ID, expr) \
    case ID: \
        ROWS { \
            const float f0 = F(0), f1 = F(1); \
            const int i0 = I(0); \
            __global const float *pa = ROW(x0, r), *pb = ROW(x1, r); \
            __global float *y = ROW(out, r); \
            if (x0.narrow) { \
                const float a = *pa; \
                LANES(c, cols) { const float b = pb[c]; y[c] = (expr); } \
            } else if (x1.narrow) { \
                const float b = *pb; \
                LANES(c, cols) { const float a = pa[c]; y[c] = (expr); } \
            } else LANES(c, cols) { const float a = pa[c], b = pb[c]; y[c] = (expr); } \
        } \
        break;

inline float vgs__loss(float d, int kind)               /* 0 smooth L1, 1 squares, 2 L1                    */
{
    float a = fabs(d);
    return kind == 2 ? a : kind == 0 ? (a < 1.0f ? 0.5f * d * d : a - 0.5f) : d * d;
}
inline float vgs__loss_slope(float d, int kind)
{
    return kind == 2 ? (d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : d)
         : kind == 0 ? (d > 1.0f ? 1.0f : d < -1.0f ? -1.0f : d) : 2.0f * d;
}

inline uint feistel(uint v, int half_bits, uint4 k0, uint4 k1)
{
    uint mask = (1u << half_bits) - 1u, l = v >> half_bits, r = v & mask, h;
    uint key[6] = { k0.x, k0.y, k0.z, k0.w, k1.x, k1.y };
    int i;
    for (i = 0; i < 6; ++i) {
        h = (r ^ key[i]) * 0x9E3779B1u;
        h = (h ^ (h >> 15)) * 0x85EBCA77u;
        h ^= h >> 13;
        h = l ^ (h & mask);
        l = r;
        r = h;
    }
    return l << half_bits | r;
}

inline void copy_row(__global float *to, __global const float *from, int n)  /* any type: as integers    */
{
    __global int *y = (__global int *)to;
    __global const int *x = (__global const int *)from;
    int c;
    LANES(c, n) y[c] = x[c];
}

/* Order of floats as order of integers; the two zeros are equal. */
inline int sort_key(float x)
{
    int k = as_int(x + 0.0f);
    return k ^ ((k >> 31) & 0x7FFFFFFF);
}

/* ---- eigenvectors by one-sided Jacobi, as vgs.h has it ------------------------------------------------
   As many matrices at once as keep the work-items busy. Each turns a pair of rows, of pairs without a row in
   common: the same bits for any size of a group. */

inline float dot_of(__global const float *x, __global const float *y, int n)
{
    float s = 0.0f;
    int j;
    for (j = 0; j < n; ++j) s += x[j] * y[j];
    return s;
}

/* More than twice the norm of the symmetric part of x. */
inline float eigen_scale(__global const float *x, int n)
{
    float sum = 0.0f;
    int i, j;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            const float a = 0.5f * (x[i * n + j] + x[j * n + i]);
            sum += a * a;
        }
    return 1.0f + 2.0f * sqrt(sum);
}

/* Pair j of round k of a tournament of m (even): in m - 1 rounds of m/2 pairs each meets all others. */
inline int2 pair_of(int m, int k, int j)
{
    const int a = j ? (k + j) % (m - 1) : m - 1, b = (k + m - 1 - j) % (m - 1);
    return (int2)(min(a, b), max(a, b));
}

/* Rows p.x and p.y of v, whose squared lengths are kept. */
inline bool make_orthogonal(__global float *v, __global float *square, int2 p, int n)
{
    __global float *x = v + p.x * n, *y = v + p.y * n;
    const float c = dot_of(x, y, n), d = square[p.y] - square[p.x], c2 = d < 0.0f ? -2.0f * c : 2.0f * c;
    float tangent, cosine, sine;
    int j;
    if (!(fabs(c) > 1e-6f)) return false;
    tangent = c2 / (fabs(d) + sqrt(d * d + c2 * c2));
    cosine = 1.0f / sqrt(1.0f + tangent * tangent);
    sine = cosine * tangent;
    square[p.x] -= tangent * c;
    square[p.y] += tangent * c;
    for (j = 0; j < n; ++j) {
        const float a = x[j], b = y[j];
        x[j] = cosine * a - sine * b;
        y[j] = sine * a + cosine * b;
    }
    return true;
}

/* Rows r0..r1-1, matrices of n rows: v = eigenvectors, value = eigenvalues; *turned is for the group. */
inline void eigen(int n, int r0, int r1, view in, view v, view value, __local int *turned)
{
    const int m = n + n % 2, rows = r1 - r0;
    int c, i, j, k, sweep = 0;
    LANES(c, rows * n) {
        __global const float *x = ROW(in, r0 + c / n);
        __global float *y = ROW(v, r0 + c / n) + c % n * n;
        const float scale = eigen_scale(x, n);
        i = c % n;
        for (j = 0; j < n; ++j) y[j] = 0.5f * (x[i * n + j] + x[j * n + i]) / scale + (i == j ? 1.0f : 0.0f);
    }
    do {
        SYNC();
        if (LID == 0) *turned = 0;
        LANES(c, rows * n) {
            __global float *x = ROW(v, r0 + c / n) + c % n * n;
            ROW(value, r0 + c / n)[c % n] = dot_of(x, x, n);
        }
        SYNC();
        for (k = 0; k < m - 1; ++k) {
            LANES(c, rows * (m / 2)) {
                const int2 p = pair_of(m, k, c % (m / 2));
                i = r0 + c / (m / 2);
                if (p.y < n && make_orthogonal(ROW(v, i), ROW(value, i), p, n)) atomic_or(turned, 1);
            }
            SYNC();
        }
    } while (*turned && ++sweep < 30);
    LANES(c, rows * n) {
        __global float *y = ROW(v, r0 + c / n) + c % n * n, *square = ROW(value, r0 + c / n) + c % n;
        const float length = sqrt(*square);
        for (j = 0; j < n; ++j) y[j] /= length;
        *square = (length - 1.0f) * eigen_scale(ROW(in, r0 + c / n), n);
    }
    SYNC();
}

KERNEL vgs_rows(HEAP, const calls list, int n, int parts, int block)
{
    __local int turned;
    __global float *page[8] = HEAP_PAGES;
    __global const float *x, *gx;
    __global float *y;
    int first = GROUP(0) * block, end = min(first + block, parts), k, r, c;
    for (k = 0; k < n; ++k) {
        const int *w = list.w + k * VGS_WORDS;
        const int op = w[0] & 0xFFFF;
        int r0 = first * w[1], r1 = end * w[1], cols = w[2];
        view out = view_of(page, w[4], w[5]), out2 = view_of(page, w[6], w[7]);
        view x0 = view_of(page, w[8], w[9]), x1 = view_of(page, w[10], w[11]);
        view x2 = view_of(page, w[12], w[13]);
        if (w[0] & FLAT) {                            /* one long row                                    */
            out.p += (size_t)r0 * (size_t)out.ld;
            out2.p += (size_t)r0 * (size_t)out2.ld;
            x0.p += (size_t)r0 * (size_t)x0.ld;
            x1.p += (size_t)r0 * (size_t)x1.ld;
            x2.p += (size_t)r0 * (size_t)x2.ld;
            cols *= r1 - r0;
            r0 = 0;
            r1 = 1;
        }
        switch (op) {
        MAPS
        case OP_COMBINE:
            ROWS {
                __global const float *pa = ROW(x0, r), *pb = ROW(x1, r), *pc = ROW(x2, r);
                y = ROW(out, r);
                if (x2.p) LANES(c, cols) y[c] = pa[c] * F(0) + pb[c] * F(1) + pc[c] * F(2);
                else LANES(c, cols) y[c] = pa[c] * F(0) + pb[c] * F(1);
            }
            break;
        case OP_SILU:
            ROWS {
                x = ROW(x0, r);
                y = ROW(out, r);
                if (w[7] & 8) {
                    __global float *slope = ROW(out2, r);
                    LANES(c, cols) {
                        const float a = x[c], s = vsigmoid(a);
                        y[c] = a * s;
                        slope[c] = s * (1.0f + a * (1.0f - s));
                    }
                } else LANES(c, cols) y[c] = x[c] * vsigmoid(x[c]);
            }
            break;
        case OP_FILL:                                 /* i1: all rows                                    */
            ROWS LANES(c, cols) ROW(out, r)[c] = I(0) ? F(0) / (float)I(1) : F(0);
            break;
        case OP_FILL_INT:
            ROWS LANES(c, cols) ((__global int *)ROW(out, r))[c] = I(0);
            break;
        case OP_INT_DIV:
            ROWS LANES(c, cols) ((__global int *)ROW(out, r))[c] = ((__global int *)ROW(x0, r))[c] / I(0);
            break;
        case OP_STORE:                                /* in[0] -> out, added if i1                       */
            ROWS {
                x = ROW(x0, r);
                y = ROW(out, r);
                if (I(1)) LANES(c, cols) y[c] += x[c];
                else copy_row(y, x, cols);
            }
            break;

        case OP_SUM_COLS:
            ROWS {
                float s;
                x = ROW(x0, r);
                SUM(s, w[3], x[c])
                if (LID == 0) *ROW(out, r) = F(0) * s;
            }
            break;
        case OP_LOGSUMEXP:
            ROWS {
                float m, s = 0.0f;
                x = ROW(x0, r);
                MAX(m, w[3], x[c])
                if (m - m == 0.0f) SUM(s, w[3], vexp(x[c] - m))
                if (LID == 0) *ROW(out, r) = m - m == 0.0f ? m + vlog(s) : m;
            }
            break;
        case OP_LAYERNORM:
        case OP_LAYERNORM_HAT:
        case OP_LAYERNORM_GRAD:
            ROWS {
                float m, s, mh, mx;
                x = ROW(x0, r);
                y = ROW(out, r);
                SUM(m, cols, x[c])
                m = m / (float)cols;
                SUM(s, cols, (x[c] - m) * (x[c] - m))
                s = 1.0f / sqrt(s / (float)cols + 1e-5f);
                if (op == OP_LAYERNORM) LANES(c, cols) y[c] = (x[c] - m) * s * x1.p[c] + x2.p[c];
                else if (op == OP_LAYERNORM_HAT) LANES(c, cols) y[c] = (x[c] - m) * s;
                else {
                    gx = ROW(x2, r);
                    SUM(mh, cols, x1.p[c] * gx[c])
                    SUM(mx, cols, x1.p[c] * gx[c] * ((x[c] - m) * s))
                    mh = mh / (float)cols;
                    mx = mx / (float)cols;
                    LANES(c, cols) y[c] = s * (x1.p[c] * gx[c] - mh - (x[c] - m) * s * mx);
                }
            }
            break;

        case OP_PAD_COLS:
            ROWS {
                __global const int *from = (__global const int *)ROW(x0, r);
                __global int *to = (__global int *)ROW(out, r);
                LANES(c, cols) to[c] = c >= I(0) && c < I(0) + w[3] ? from[c - I(0)] : 0;
            }
            break;
        case OP_CONCAT:
            ROWS {
                copy_row(ROW(out, r), ROW(x0, r), w[3]);
                copy_row(ROW(out, r) + w[3], ROW(x1, r), cols - w[3]);
            }
            break;
        case OP_GATHER:
            ROWS copy_row(ROW(out, r), ROW(x0, *(__global int *)ROW(x1, r)), cols);
            break;
        case OP_SEGMENT_GATHER:                       /* i: n, m                                         */
            ROWS copy_row(ROW(out, r), ROW(x0, r / I(1) * I(0) + ((__global int *)x1.p)[r % I(1)]), cols);
            break;
        case OP_SEGMENT_SUM:
            ROWS {
                __global const int *start = (__global const int *)x1.p, *which = (__global const int *)x2.p;
                int e, e0 = start[r % I(0)], e1 = start[r % I(0) + 1];
                x = ROW(x0, r / I(0) * I(1));
                y = ROW(out, r);
                LANES(c, cols) y[c] = 0.0f;
                for (e = e0; e < e1; ++e) {
                    gx = x + (size_t)which[e] * (size_t)x0.ld;
                    LANES(c, cols) y[c] += gx[c];
                }
            }
            break;

        case OP_STENCIL:                              /* i: n, m; in: x, w, start, list                  */
            ROWS {
                __global const int *start = (__global const int *)x2.p;
                __global const int *list = (__global const int *)view_of(page, w[14], w[15]).p;
                int e, e0 = start[r % I(1)], e1 = start[r % I(1) + 1];
                x = ROW(x0, r / I(1) * I(0));
                y = ROW(out, r);
                LANES(c, cols) y[c] = 0.0f;
                for (e = e0; e < e1; ++e) {
                    __global const float *tap = x1.p + (size_t)list[2 * e + 1] * (size_t)x1.ld;
                    gx = x + (size_t)list[2 * e] * (size_t)x0.ld;
                    LANES(c, cols) y[c] += tap[I(2) ? 0 : c] * gx[c];
                }
            }
            break;
        case OP_STENCIL_GRAD:                         /* i: n, m, taps; in: gy, x, start, list           */
            ROWS {
                __global const int *start = (__global const int *)x2.p;
                __global const int *list = (__global const int *)view_of(page, w[14], w[15]).p;
                int e, o, sample = r / I(2);
                y = ROW(out, r);
                LANES(c, cols) {
                    float sum = 0.0f;
                    for (o = 0; o < I(1); ++o)
                        for (e = start[o]; e < start[o + 1]; ++e)
                            if (list[2 * e + 1] == r % I(2))
                                sum += ROW(x0, sample * I(1) + o)[c] *
                                       ROW(x1, sample * I(0) + list[2 * e])[c];
                    y[c] = sum;
                }
            }
            break;

        case OP_PAIR_DISTANCE:                        /* i0 points; pairs (0,1) (0,2) .. (1,2) ..        */
            ROWS {
                int a, b, j, d = w[3] / I(0), p = 0;
                x = ROW(x0, r);
                y = ROW(out, r);
                for (a = 0; a < I(0); ++a)
                    for (b = a + 1; b < I(0); ++b, ++p) {
                        float s = 0.0f;
                        if (p % WG != LID) continue;
                        for (j = 0; j < d; ++j) {
                            const float u = x[a * d + j] - x[b * d + j];
                            s += u * u;
                        }
                        y[p] = sqrt(s);
                    }
            }
            break;
        case OP_PAIR_DISTANCE_GRAD:                   /* a work-item gathers the pulls on a coordinate   */
            ROWS {
                int np = I(0), d = cols / np;
                __global const float *dist = ROW(x1, r), *pull = ROW(x2, r);
                x = ROW(x0, r);
                y = ROW(out, r);
                LANES(c, cols) {
                    int a = c / d, j = c % d, b, p = a - 1;
                    float s = 0.0f;
                    for (b = 0; b < a; p += np - 2 - b, ++b)          /* pair (b, a)                     */
                        s += dist[p] > 0.0f ? pull[p] / dist[p] * (x[c] - x[b * d + j]) : 0.0f;
                    for (b = a + 1, p = a * (2 * np - a - 1) / 2; b < np; ++b, ++p)
                        s += dist[p] > 0.0f ? pull[p] / dist[p] * (x[c] - x[b * d + j]) : 0.0f;
                    y[c] = s;
                }
            }
            break;
        case OP_REMOVE_MEAN:
            ROWS {
                int np = I(0), d = cols / np, a;
                x = ROW(x0, r);
                y = ROW(out, r);
                LANES(c, d) {
                    float m = 0.0f;
                    for (a = 0; a < np; ++a) m += x[a * d + c];
                    m /= (float)np;
                    for (a = 0; a < np; ++a) y[a * d + c] = x[a * d + c] - m;
                }
            }
            break;
        case OP_SORT_COLS:                            /* a column's place is the number of those before it */
            ROWS {
                __global int *place = (__global int *)ROW(out2, r);
                x = ROW(x0, r);
                y = ROW(out, r);
                LANES(c, cols) {
                    int key = sort_key(x[c]), rank = 0, j;
                    for (j = 0; j < c; ++j) rank += sort_key(x[j]) >= key ? 1 : 0;
                    for (j = c + 1; j < cols; ++j) rank += sort_key(x[j]) > key ? 1 : 0;
                    y[rank] = x[c];
                    place[rank] = c;
                }
            }
            break;
        case OP_UNSORT_COLS:
            ROWS {
                __global const int *place = (__global const int *)ROW(x1, r);
                x = ROW(x0, r);
                y = ROW(out, r);
                LANES(c, cols) y[place[c]] = x[c];
            }
            break;

        case OP_NORMAL: {                             /* i: purpose, t, first row, iteration, seed       */
            const int blocks = (cols + 3) / 4, all = (r1 - r0) * blocks;
            const uint k0 = (uint)I(4), k1 = (uint)I(5);
            uint w0[BLOCKS], w1[BLOCKS], w2[BLOCKS], w3[BLOCKS];
            float z0[BLOCKS], z1[BLOCKS], z2[BLOCKS], z3[BLOCKS];
            int b, j;
            for (c = LID * BLOCKS; c < all; c += WG * BLOCKS) {
                for (r = c / blocks, b = c % blocks, j = 0; j < BLOCKS; ++j) {
                    w0[j] = (uint)(I(2) + r0 + r);
                    w1[j] = (uint)I(1) << 16 | (uint)b;
                    w2[j] = (uint)I(0) << 24;
                    w3[j] = (uint)I(3);
                    if (++b == blocks) b = 0, ++r;
                }
                philox_of(k0, k1, w0, w1, w2, w3);
                normals_of(w0, w1, z0, z1);
                normals_of(w2, w3, z2, z3);
                for (r = c / blocks, b = c % blocks, j = 0; j < BLOCKS && c + j < all; ++j) {
                    const int left = cols - 4 * b;
                    y = ROW(out, r0 + r) + 4 * b;
                    y[0] = z0[j];
                    if (left > 1) y[1] = z1[j];
                    if (left > 2) y[2] = z2[j];
                    if (left > 3) y[3] = z3[j];
                    if (++b == blocks) b = 0, ++r;
                }
            }
            break;
        }
        case OP_PERMUTATION: {
            uint4 c0 = (uint4)(0, (uint)I(1), (uint)I(0) << 24, (uint)I(3)), c1 = c0;
            uint4 k0, k1;
            uint most = (uint)I(7);
            int half_bits = 1;
            c1.x = 1;
            k0 = philox((uint)I(4), (uint)I(5), c0);
            k1 = philox((uint)I(4), (uint)I(5), c1);
            while (half_bits < 15 && (1u << 2 * half_bits) < most) ++half_bits;
            for (r = r0 + LID; r < r1; r += WG) {
                uint v = (uint)I(6) + (uint)r;
                do v = feistel(v, half_bits, k0, k1); while (v >= most);
                *(__global uint *)ROW(out, r) = v;
            }
            break;
        }
        case OP_LIMIT_ROWS:
            ROWS {
                float most, s = 0.0f, scale = 1.0f;
                x = ROW(x0, r);
                y = ROW(out, r);
                MAX(most, cols, x[c] == x[c] ? fabs(x[c]) : 0.0f)
                if (most > 0.0f) SUM(s, cols, (x[c] / most) * (x[c] / most))
                if (most * sqrt(s) > F(0)) scale = F(0) / most / sqrt(s);
                LANES(c, cols) y[c] = x[c] * scale;
            }
            break;
        case OP_EIGEN: {                              /* i0: rows of a matrix                            */
            const int step = max(WG / ((I(0) + 1) / 2), 1);
            for (r = r0; r < r1; r += step) eigen(I(0), r, min(r + step, r1), x0, out, out2, &turned);
            break;
        }
        case OP_SPHERE_TANGENT:
            ROWS {
                float d;
                x = ROW(x1, r);
                gx = ROW(x0, r);
                y = ROW(out, r);
                SUM(d, cols, gx[c] * x[c])
                LANES(c, cols) y[c] = gx[c] - d * x[c];
            }
            break;
        case OP_SPHERE_MOVE:
            ROWS {
                float s = 0.0f, q = 1.0f, len;
                x = ROW(x0, r);
                gx = x1.p ? ROW(x1, r) : x;
                y = ROW(out, r);
                if (x1.p) {
                    SUM(len, cols, gx[c] * gx[c])
                    len = sqrt(len);
                    sincos_of(len, &s, &q);
                    s = len > 1e-12f ? s / len : 1.0f;
                }
                SUM(len, cols, (q * x[c] + s * gx[c]) * (q * x[c] + s * gx[c]))
                len = sqrt(len);
                LANES(c, cols) y[c] = (q * x[c] + s * gx[c]) / len;
            }
            break;
        case OP_CHECK: {                              /* out: the least bad row so far; vgs_flag reads it */
            int bad = 0x7FFFFFFF;
            ROWS {
                x = ROW(x0, r);
                LANES(c, w[3])
                    if (I(3) ? x[c] < -FLT_MAX : !(x[c] - x[c] == 0.0f)) bad = min(bad, r);
            }
            if (bad != 0x7FFFFFFF) atomic_min((__global int *)out.p, bad);
            break;
        }
        }
        SYNC();
    }
}

/* After the launches of a list: the first check that found something sets the flag {1, row, step, what} and
   all places are made ready for the next. A flag that was set before stays. */
KERNEL vgs_flag(HEAP, const calls list, int n)
{
    __global float *page[8] = HEAP_PAGES;
    int k;
    if (LID) return;
    for (k = 0; k < n; ++k) {
        const int *w = list.w + k * VGS_WORDS;
        __global int *row = (__global int *)view_of(page, w[4], w[5]).p;
        __global int *flag = (__global int *)view_of(page, w[10], w[11]).p;
        if (*row != 0x7FFFFFFF && !flag[0]) {
            flag[1] = *row + I(2);
            flag[2] = I(0);
            flag[3] = I(1);
            flag[0] = 1;
        }
        *row = 0x7FFFFFFF;
    }
}
