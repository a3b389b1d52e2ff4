/* C[m,n] = act(sum_k A(i,k) B(k,j) + bias[r,j]), r = idx ? idx[i] : 0. Each element of a product is one chain
   of additions over k, whatever its place. form: 0 NT (B is [n,k]), 1 NN, 2 TN (A is [k,m]). */

#ifdef VGS_FMA
#  define MADD(a, b, c) fma(a, b, c)
#else
#  define MADD(a, b, c) ((a) * (b) + (c))
#endif

typedef struct product { int m, n, k, form, act, tiles, rows; float f0, f1; } product;

inline float act_of(float a, const product q)
{
    const float f0 = q.f0, f1 = q.f1;
#define ACT(act, operands, expr) case act: return (expr);
    switch (q.act) {
    ACTS(ACT)
    default: return a;
    }
}

/* ---- tiles of any device: 4 x 4 elements a work-item, operands through local memory ------------------ */

#if WG >= 256
#  define LX 16
#elif WG >= 64
#  define LX 8
#elif WG >= 16
#  define LX 4
#else
#  define LX 1
#endif
#define LY (WG / LX)
#define TX (4 * LX)
#define TY (4 * LY)
#define TK 16

KERNEL vgs_tile(HEAP, int2 a_at, int2 b_at, int2 bias_at, int2 idx_at, int2 c_at, const product q)
{
    __global float *page[8] = HEAP_PAGES;
    __local float sa[TK * (TY + 1)], sb[TK * (TX + 1)];
    view a = view_of(page, a_at.x, a_at.y), b = view_of(page, b_at.x, b_at.y);
    view bias = view_of(page, bias_at.x, bias_at.y), idx = view_of(page, idx_at.x, idx_at.y);
    view out = view_of(page, c_at.x, c_at.y);
    int i0 = GROUP(1) * TY, j0 = GROUP(0) * TX, x = LID % LX, y = LID / LX, k0, k, e, i, j;
    float acc[4][4];
    for (i = 0; i < 4; ++i) for (j = 0; j < 4; ++j) acc[i][j] = 0.0f;
    for (k0 = 0; k0 < q.k; k0 += TK) {
        SYNC();
        for (e = LID; e < TK * TY; e += WG) {         /* neighbours read neighbours in memory            */
            int kk = q.form == 2 ? e / TY : e % TK, ii = q.form == 2 ? e % TY : e / TK;
            int gi = i0 + ii, gk = k0 + kk;
            float v = 0.0f;
            if (gi < q.m && gk < q.k) v = q.form == 2 ? ROW(a, gk)[gi] : ROW(a, gi)[gk];
            sa[kk * (TY + 1) + ii] = v;
        }
        for (e = LID; e < TK * TX; e += WG) {
            int kk = q.form == 0 ? e % TK : e / TX, jj = q.form == 0 ? e / TK : e % TX;
            int gj = j0 + jj, gk = k0 + kk;
            float v = 0.0f;
            if (gj < q.n && gk < q.k) v = q.form == 0 ? ROW(b, gj)[gk] : ROW(b, gk)[gj];
            sb[kk * (TX + 1) + jj] = v;
        }
        SYNC();
        for (k = 0; k < TK; ++k)
            for (i = 0; i < 4; ++i)
                for (j = 0; j < 4; ++j)
                    acc[i][j] = MADD(sa[k * (TY + 1) + y + i * LY], sb[k * (TX + 1) + x + j * LX], acc[i][j]);
    }
    for (i = 0; i < 4; ++i) {
        int gi = i0 + y + i * LY;
        __global const float *from = bias.p;
        if (gi >= q.m) continue;
        if (idx.p) from = ROW(bias, *(__global int *)ROW(idx, gi));
        for (j = 0; j < 4; ++j) {
            int gj = j0 + x + j * LX;
            if (gj < q.n) ROW(out, gi)[gj] = act_of(acc[i][j] + (from ? from[gj] : 0.0f), q);
        }
    }
}

/* What CLBlast's products lack: out = act(out + bias). Group: `each` rows. */
KERNEL vgs_bias_act(HEAP, int2 bias_at, int2 idx_at, int2 c_at, const product q, int each)
{
    __global float *page[8] = HEAP_PAGES;
    view bias = view_of(page, bias_at.x, bias_at.y), idx = view_of(page, idx_at.x, idx_at.y);
    view out = view_of(page, c_at.x, c_at.y);
    int r, c;
    for (r = GROUP(0) * each; r < min((GROUP(0) + 1) * each, q.m); ++r) {
        __global const float *from = bias.p;
        __global float *y = ROW(out, r);
        if (idx.p) from = ROW(bias, *(__global int *)ROW(idx, r));
        LANES(c, q.n) y[c] = act_of(y[c] + (from ? from[c] : 0.0f), q);
    }
}

#if WG == 1
/* ---- tiles of a CPU: a work-item has up to 24 x 128 elements, rows of B in vectors of 16 --------------
   With AVX-512 the registers hold the sums of 8 x 48; elsewhere of 4 x 16, one such part after the other. */

#define TALL_ROWS 24
#define TALL_COLS 128

/* B in panels of 16 columns, [ceil(n/16)][k][16], zeros beyond n. Group: panel. */
KERNEL vgs_pack(HEAP, int2 b_at, int2 to_at, int n, int k, int transposed)
{
    __global float *page[8] = HEAP_PAGES;
    view b = view_of(page, b_at.x, b_at.y);
    int j0 = GROUP(0) * 16, w = min(16, n - j0), kk, i, j;
    __global float *to = view_of(page, to_at.x, to_at.y).p + (size_t)j0 * (size_t)k;
    if (!transposed) {
        for (kk = 0; kk < k; ++kk, to += 16) {
            __global const float *p = ROW(b, kk) + j0;
            if (w == 16) vstore16(vload16(0, p), 0, to);
            else for (j = 0; j < 16; ++j) to[j] = j < w ? p[j] : 0.0f;
        }
        return;
    }
    for (kk = 0; kk < k; kk += 16) {
        float t[16][16];
        int deep = min(16, k - kk);
        for (j = 0; j < 16; ++j) {
            __global const float *p = ROW(b, j0 + min(j, w - 1)) + kk;
            if (deep == 16) for (i = 0; i < 16; ++i) t[i][j] = p[i];
            else for (i = 0; i < deep; ++i) t[i][j] = p[i];
        }
        for (i = 0; i < deep; ++i)
            for (j = 0; j < 16; ++j) to[(kk + i) * 16 + j] = j < w ? t[i][j] : 0.0f;
    }
}

#define A_ROW(i) SPACE const float *a##i = a + (size_t)min(i, last) * ai;
#ifndef __AVX512F__
#define EACH4(X) X(0) X(1) X(2) X(3)
#define FETCH(i)  float16 u##i = vload16(0, t + TALL_COLS * i);
#define STEP(i)   u##i = MADD((float16)a##i[at], row, u##i);
#define KEEP(i)   vstore16(u##i, 0, t + TALL_COLS * i);
/* t [4,16] += rows of A, of which `last` is the last, times `depth` rows of a panel. */
#define TALL_PANEL(name) \
    inline void name(SPACE const float *a, int last, size_t ai, size_t ak, __global const float *b, \
                     int depth, float *t) \
    { \
        size_t at = 0; \
        int k; \
        EACH4(A_ROW) \
        EACH4(FETCH) \
        for (k = 0; k < depth; ++k, b += 16, at += ak) { \
            const float16 row = vload16(0, b); \
            EACH4(STEP) \
        } \
        EACH4(KEEP) \
    }
#define SPACE __global
TALL_PANEL(tall_panel)
#undef SPACE
#define SPACE
TALL_PANEL(tall_near)

/* Rows of A^T are columns in memory, whose elements may all fall into the same few lines of the L1 cache:
   a part of them at a time is copied, and used for all panels. */
#define TALL_DEEP 128
inline void tall_turned(__global const float *a, int rows, size_t ld, __global const float *b, int panels,
                        int depth, float *t)
{
    float part[TALL_DEEP * TALL_ROWS];
    int k0, k, i, j;
    for (k0 = 0; k0 < depth; k0 += TALL_DEEP, b += 16 * TALL_DEEP) {
        int deep = min(TALL_DEEP, depth - k0);
        for (k = 0; k < deep; ++k, a += ld)
            if (rows == TALL_ROWS) {
                vstore16(vload16(0, a), 0, part + TALL_ROWS * k);
                vstore8(vload8(2, a), 2, part + TALL_ROWS * k);
            } else for (i = 0; i < rows; ++i) part[TALL_ROWS * k + i] = a[i];
        for (j = 0; j < panels; ++j)
            for (i = 0; i < rows; i += 4)
                tall_near(part + i, rows - 1 - i, 1, TALL_ROWS, b + 16 * (size_t)j * (size_t)depth, deep,
                          t + TALL_COLS * i + 16 * j);
    }
}

inline void tall_product(__global const float *a, int rows, size_t ld, int form, __global const float *b,
                         int panels, int depth, float *t)
{
    int i, j;
    for (i = 0; i < (rows + 3) / 4 * 4; ++i)
        for (j = 0; j < 16 * panels; ++j) t[TALL_COLS * i + j] = 0.0f;
    if (form == 2) tall_turned(a, rows, ld, b, panels, depth, t);
    else for (j = 0; j < panels; ++j)
        for (i = 0; i < rows; i += 4)
            tall_panel(a + (size_t)i * ld, rows - 1 - i, ld, 1, b + 16 * (size_t)j * (size_t)depth, depth,
                       t + TALL_COLS * i + 16 * j);
}
#else
#define SPACE __global
#define EACH8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ZERO(i)  float16 u##i = 0.0f, v##i = 0.0f, w##i = 0.0f;
#define STEP3(i) { const float16 s = a##i[at]; \
                   u##i = MADD(s, b0, u##i); v##i = MADD(s, b1, v##i); w##i = MADD(s, b2, w##i); }
#define STEP2(i) { const float16 s = a##i[at]; u##i = MADD(s, b0, u##i); v##i = MADD(s, b1, v##i); }
#define STEP1(i) { const float16 s = a##i[at]; u##i = MADD(s, b0, u##i); }
#define KEEP(i)  vstore16(u##i, 0, t + TALL_COLS * i); \
                 if (panels > 1) vstore16(v##i, 0, t + TALL_COLS * i + 16); \
                 if (panels > 2) vstore16(w##i, 0, t + TALL_COLS * i + 32);

/* t [8,48] = rows of A, of which `last` is the last, times three panels at most. */
inline void tall_panels(__global const float *a, int last, size_t ai, size_t ak, __global const float *b,
                        int panels, int depth, float *t)
{
    __global const float *bb = b + 16 * (size_t)depth, *bbb = bb + 16 * (size_t)depth;
    size_t at = 0;
    float16 b0, b1, b2;
    int k;
    EACH8(A_ROW)
    EACH8(ZERO)
    if (panels > 2)
        for (k = 0; k < depth; ++k, at += ak, b += 16, bb += 16, bbb += 16) {
            b0 = vload16(0, b);
            b1 = vload16(0, bb);
            b2 = vload16(0, bbb);
            EACH8(STEP3)
        }
    else if (panels == 2)
        for (k = 0; k < depth; ++k, at += ak, b += 16, bb += 16) {
            b0 = vload16(0, b);
            b1 = vload16(0, bb);
            EACH8(STEP2)
        }
    else
        for (k = 0; k < depth; ++k, at += ak, b += 16) {
            b0 = vload16(0, b);
            EACH8(STEP1)
        }
    EACH8(KEEP)
}

inline void tall_product(__global const float *a, int rows, size_t ld, int form, __global const float *b,
                         int panels, int depth, float *t)
{
    size_t ai = form == 2 ? 1 : ld, ak = form == 2 ? ld : 1;
    int i, j;
    for (j = 0; j < panels; j += 3)
        for (i = 0; i < rows; i += 8)
            tall_panels(a + (size_t)i * ai, rows - 1 - i, ai, ak, b + 16 * (size_t)j * (size_t)depth,
                        panels - j, depth, t + TALL_COLS * i + 16 * j);
}
#endif

#define LINE(expr) for (j = 0; j < n; ++j) { const float a = line[j]; y[j] = (expr); }
#define ACT_LINE(act, operands, expr) case act: LINE(expr) break;

/* Group (columns, rows): q.rows rows, at most TALL_ROWS; q.tiles tiles share the panels evenly. */
KERNEL vgs_tall(HEAP, int2 a_at, int2 packed_at, int2 bias_at, int2 idx_at, int2 c_at, const product q)
{
    __global float *page[8] = HEAP_PAGES;
    view a = view_of(page, a_at.x, a_at.y), bias = view_of(page, bias_at.x, bias_at.y);
    view idx = view_of(page, idx_at.x, idx_at.y), out = view_of(page, c_at.x, c_at.y);
    int panels = (q.n + 15) / 16, p0 = panels * GROUP(0) / q.tiles, p1 = panels * (GROUP(0) + 1) / q.tiles;
    int i0 = GROUP(1) * q.rows, rows = min(q.rows, q.m - i0), n = min(q.n - 16 * p0, 16 * (p1 - p0)), i, j;
    const float f0 = q.f0, f1 = q.f1;
    float t[TALL_ROWS * TALL_COLS];
    tall_product(q.form == 2 ? a.p + i0 : ROW(a, i0), rows, (size_t)a.ld, q.form,
                 view_of(page, packed_at.x, packed_at.y).p + (size_t)(16 * p0) * (size_t)q.k, p1 - p0, q.k,
                 t);
    for (i = 0; i < rows; ++i) {
        float *line = t + TALL_COLS * i;
        __global float *y = ROW(out, i0 + i) + 16 * p0;
        if (bias.p) {
            int row = idx.p ? *(__global int *)ROW(idx, i0 + i) : 0;
            __global const float *from = ROW(bias, row) + 16 * p0;
            for (j = 0; j < n; ++j) line[j] += from[j];
        }
        switch (q.act) {
        ACTS(ACT_LINE)
        default: LINE(a) break;
        }
    }
}
#endif
