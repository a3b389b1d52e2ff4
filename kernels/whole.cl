/* Ops that need a whole tensor at once. Every sum has a fixed order, in two floats where vgs.h uses double.
   */

#if WG >= 16
#  define STRIP 16                                    /* columns of a group: rows go to WG / 16 lanes    */
#else
#  define STRIP 64                                    /* one after the other, in vectors                 */
#endif

/* out[t,:] = the sum of the rows of x whose idx is t; if idx is absent of all rows, divided by them if mean.
   Group (strip of columns, t). */
KERNEL vgs_sum_rows(HEAP, int2 x_at, int2 idx_at, int2 out_at, int rows, int cols, int mean)
{
    __global float *page[8] = HEAP_PAGES;
    view x = view_of(page, x_at.x, x_at.y), idx = view_of(page, idx_at.x, idx_at.y);
    view out = view_of(page, out_at.x, out_at.y);
    int t = GROUP(1), c0 = GROUP(0) * STRIP, n = min(STRIP, cols - c0), r, c;
    __global float *y = ROW(out, t) + c0;
    float over = mean && rows ? (float)rows : 1.0f;
#if WG >= 16
    __local float hi[WG], lo[WG];
    float h = 0.0f, l = 0.0f;
    x.p += c0;
    c = LID % STRIP;
    for (r = LID / STRIP; r < rows; r += WG / STRIP)
        if (c < n && (!idx.p || *(__global int *)ROW(idx, r) == t)) ADD2(h, l, ROW(x, r)[c])
    hi[LID] = h;
    lo[LID] = l;
    SYNC();
    if (LID < n) {
        for (r = LID + STRIP; r < WG; r += STRIP) {
            ADD2(h, l, hi[r])
            l += lo[r];
        }
        y[LID] = (h + l) / over;
    }
#else
    x.p += c0;
    if (LID == 0) {
        float hi[STRIP], lo[STRIP];
        for (c = 0; c < STRIP; ++c) hi[c] = lo[c] = 0.0f;
        for (r = 0; r < rows; ++r) {
            __global const float *p = ROW(x, r);
            if (idx.p && *(__global int *)ROW(idx, r) != t) continue;
            if (n == STRIP) for (c = 0; c < STRIP; ++c) ADD2(hi[c], lo[c], p[c])
            else for (c = 0; c < n; ++c) ADD2(hi[c], lo[c], p[c])
        }
        for (c = 0; c < n; ++c) y[c] = (hi[c] + lo[c]) / over;
    }
#endif
}

/* The squared norm: 256 groups leave two floats each, vgs_squares_end adds them in order. */
KERNEL vgs_squares(HEAP, int2 x_at, int2 part_at, int n)
{
    __global float *page[8] = HEAP_PAGES;
    __global const float *x = view_of(page, x_at.x, x_at.y).p;
    __global float *part = view_of(page, part_at.x, part_at.y).p + 2 * GROUP(0);
    int each = (n + 255) / 256, first = min(GROUP(0) * each, n), end = min(first + each, n), c, j;
#if WG > 1
    __local float hi[WG], lo[WG];
    float h = 0.0f, l = 0.0f;
    for (c = first + LID; c < end; c += WG) ADD2(h, l, x[c] * x[c])
    hi[LID] = h;
    lo[LID] = l;
    SYNC();
    if (LID == 0) {
        for (j = 1; j < WG; ++j) {
            ADD2(h, l, hi[j])
            l += lo[j];
        }
        part[0] = h;
        part[1] = l;
    }
#else
    float hi[16], lo[16];
    for (j = 0; j < 16; ++j) hi[j] = lo[j] = 0.0f;
    for (c = first; c + 16 <= end; c += 16) for (j = 0; j < 16; ++j) ADD2(hi[j], lo[j], x[c + j] * x[c + j])
    for (j = 0; j < end - c; ++j) ADD2(hi[j], lo[j], x[c + j] * x[c + j])
    for (j = 1; j < 16; ++j) {
        ADD2(hi[0], lo[0], hi[j])
        lo[0] += lo[j];
    }
    part[0] = hi[0];
    part[1] = lo[0];
#endif
}
KERNEL vgs_squares_end(HEAP, int2 part_at, int2 out_at)
{
    __global float *page[8] = HEAP_PAGES;
    __global const float *part = view_of(page, part_at.x, part_at.y).p;
    float h = 0.0f, l = 0.0f;
    int j;
    if (LID) return;
    for (j = 0; j < 256; ++j) {
        ADD2(h, l, part[2 * j])
        l += part[2 * j + 1];
    }
    *view_of(page, out_at.x, out_at.y).p = h + l;
}

/* ---- updates of parameters; a set flag stops them ---------------------------------------------------- */

typedef struct adam_args { float lr, b1, b2, eps, vs, limit, least, scale; } adam_args;

KERNEL vgs_adam(HEAP, int2 p_at, int2 g_at, int2 m_at, int2 v_at, int2 norm_at, int2 flag_at,
                const adam_args f, int n, int each)
{
    __global float *page[8] = HEAP_PAGES;
    __global float *p = view_of(page, p_at.x, p_at.y).p, *m = view_of(page, m_at.x, m_at.y).p;
    __global float *v = view_of(page, v_at.x, v_at.y).p;
    __global const float *g = view_of(page, g_at.x, g_at.y).p, *norm = view_of(page, norm_at.x, norm_at.y).p;
    __global const int *flag = (__global const int *)view_of(page, flag_at.x, flag_at.y).p;
    int first = GROUP(0) * each, c;
    float scale = f.scale;
    if (*flag) return;
    if (norm && f.limit > 0.0f) {
        float s = f.limit / (sqrt(*norm) + 1e-6f);
        scale *= s < 1.0f ? s : 1.0f;
    }
    n = min(n - first, each);
    p += first;
    g += first;
    m += first;
    v += first;
    LANES(c, n) {
        const float gc = g[c] * scale, mc = f.b1 * m[c] + (1.0f - f.b1) * gc;
        const float vc = f.b2 * v[c] + (1.0f - f.b2) * gc * gc;
        const float pc = p[c] - f.lr * mc / (sqrt(vc) * f.vs + f.eps);
        m[c] = fabs(mc) < 1e-30f ? 0.0f : mc;
        v[c] = vc < FLT_MIN ? 0.0f : vc;
        p[c] = f.least > 0.0f && pc < f.least ? f.least : pc;
    }
}

KERNEL vgs_ema(HEAP, int2 to_at, int2 from_at, int2 flag_at, float keep, int n, int each)
{
    __global float *page[8] = HEAP_PAGES;
    __global float *d = view_of(page, to_at.x, to_at.y).p + GROUP(0) * each;
    __global const float *s = view_of(page, from_at.x, from_at.y).p + GROUP(0) * each;
    int c;
    if (*(__global const int *)view_of(page, flag_at.x, flag_at.y).p) return;
    n = min(n - GROUP(0) * each, each);
    LANES(c, n) d[c] = keep * d[c] + (1.0f - keep) * s[c];
}

/* ---- systematic resampling with truncated weights, by one group -------------------------------------- */

typedef struct two { float hi, lo; } two;

inline float weight_of(float x, float top, float cap)
{
    float w = vexp(x - top);
    return w < cap ? w : w >= cap ? cap : 0.0f;
}
inline two two_sum(two a, two b)
{
    two s;
    float t = a.lo + b.lo, b_;
    s.hi = a.hi + b.hi;
    b_ = s.hi - a.hi;
    t += (a.hi - (s.hi - b_)) + (b.hi - b_);
    b_ = s.hi + t;
    s.lo = t - (b_ - s.hi);
    s.hi = b_;
    return s;
}
inline bool two_less_equal(two a, two b) { return a.hi < b.hi || (a.hi == b.hi && a.lo <= b.lo); }
inline two two_product(float a, float b)              /* exactly, by halves of 12 bits                   */
{
    two p;
    float ta = a * 4097.0f, ah = ta - (ta - a), al = a - ah;
    float tb = b * 4097.0f, bh = tb - (tb - b), bl = b - bh;
    p.hi = a * b;
    p.lo = ((ah * bh - p.hi) + ah * bl + al * bh) + al * bl;
    return p;
}
inline two two_scale(two s, float f)                  /* s f                                             */
{
    two p = two_product(s.hi, f), q = { s.lo * f, 0.0f };
    return two_sum(p, q);
}
inline two two_over(two a, float b)                   /* a / b                                           */
{
    two q = { a.hi / b, 0.0f }, p = two_product(a.hi / b, b), d;
    p.hi = -p.hi;
    p.lo = -p.lo;
    d = two_sum(a, p);
    p.hi = (d.hi + d.lo) / b;
    p.lo = 0.0f;
    return two_sum(q, p);
}

/* A lane sums its own stretch of the weights; sum[l] becomes what lies before lane l, sum[WG] all. */
void sum_weights(view x, int first, int end, float top, float cap, __local two *sum)
{
    two mine = { 0.0f, 0.0f }, all = mine, w = mine;
    int j;
    for (j = first; j < end; ++j) {
        w.hi = weight_of(*ROW(x, j), top, cap);
        mine = two_sum(mine, w);
    }
    SYNC();
    sum[LID] = mine;
    SYNC();
    if (LID == 0) {
        for (j = 0; j < WG; ++j) {
            w = sum[j];
            sum[j] = all;
            all = two_sum(all, w);
        }
        sum[WG] = all;
    }
    SYNC();
}

KERNEL vgs_resample(HEAP, int2 x_at, int2 out_at, int m, int rows, uint4 counter, uint2 key)
{
    __global float *page[8] = HEAP_PAGES;
    __local two sum[WG + 1];
    view x = view_of(page, x_at.x, x_at.y), out = view_of(page, out_at.x, out_at.y);
    int each = (m + WG - 1) / WG, first = min(LID * each, m), end = min(first + each, m), j, r, c;
    float share = sqrt((float)m) / (float)m, top, cap = 1.0f;
    float u = (float)(philox(key.x, key.y, counter).x >> 8) / 16777216.0f;
    two below, s;
    MAX(top, m, *ROW(x, c) <= FLT_MAX ? fmax(*ROW(x, c), -FLT_MAX) : -FLT_MAX)
    sum_weights(x, first, end, top, cap, sum);
    for (j = 0; j < 16; ++j) {
        s = two_scale(sum[WG], share);
        if (!(cap > s.hi || (cap == s.hi && s.lo < 0.0f))) break;
        cap = s.hi + s.lo;
        sum_weights(x, first, end, top, cap, sum);
    }
    below = sum[LID];
    r = 0;
    for (j = first; j < end; ++j) {                   /* rows whose place lies in what j adds            */
        two w = { weight_of(*ROW(x, j), top, cap), 0.0f }, up = two_sum(below, w);
        for (; r < rows; ++r) {
            two at = { (float)r, 0.0f }, part = { u, 0.0f };
            at = two_sum(at, part);
            at = two_scale(two_over(at, (float)rows), sum[WG].hi);
            part.hi = sum[WG].lo * (((float)r + u) / (float)rows);
            at = two_sum(at, part);
            if (two_less_equal(up, at) && j < m - 1) break;
            if (j > 0 && !two_less_equal(below, at)) continue;        /* an earlier lane's               */
            *(__global int *)ROW(out, r) = j;
        }
        below = up;
    }
}
