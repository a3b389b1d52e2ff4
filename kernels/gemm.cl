/* C[m,n] = act(sum_k A(i,k) B(k,j) + bias[r,j]), r = idx ? idx[i] : 0. Each element of a product is one chain
   of additions over k, whatever its place. form: 0 NT (B is [n,k]), 1 NN, 2 TN (A is [k,m]). */

#ifdef VGS_FMA
#  define MADD(a, b, c) fma(a, b, c)
#else
#  define MADD(a, b, c) ((a) * (b) + (c))
#endif

typedef struct product { int m, n, k, form, act, tiles; float f0, f1; } product;

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
/* ---- tiles of a CPU: one work-item 8 x 48 elements, rows of B in vectors of 16 -----------------------
   With AVX-512 the registers hold all sums; elsewhere those of 4 x 16, one such part after the other. */

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

#ifndef __AVX512F__
/* t [4,48] = 4 rows of A times a panel. */
inline void tall_panel(__global const float *a0, __global const float *a1, __global const float *a2,
                       __global const float *a3, size_t ak, __global const float *b, int depth, float *t)
{
    float16 u0 = 0.0f, u1 = 0.0f, u2 = 0.0f, u3 = 0.0f;
    size_t at = 0;
    int k;
    for (k = 0; k < depth; ++k, b += 16, at += ak) {
        const float16 row = vload16(0, b);
        u0 = MADD((float16)a0[at], row, u0);
        u1 = MADD((float16)a1[at], row, u1);
        u2 = MADD((float16)a2[at], row, u2);
        u3 = MADD((float16)a3[at], row, u3);
    }
    vstore16(u0, 0, t);
    vstore16(u1, 0, t + 48);
    vstore16(u2, 0, t + 96);
    vstore16(u3, 0, t + 144);
}
#endif

#define EACH8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ZERO(i)  float16 u##i = 0.0f, v##i = 0.0f, w##i = 0.0f;
#define STEP3(i) { const float16 s = a##i[at]; \
                   u##i = MADD(s, b0, u##i); v##i = MADD(s, b1, v##i); w##i = MADD(s, b2, w##i); }
#define STEP2(i) { const float16 s = a##i[at]; u##i = MADD(s, b0, u##i); v##i = MADD(s, b1, v##i); }
#define STEP1(i) { const float16 s = a##i[at]; u##i = MADD(s, b0, u##i); }
#define A_ROW(i) __global const float *a##i = a.p + (size_t)min(i0 + i, q.m - 1) * (size_t)ai;
#define KEEP(i)  vstore16(u##i, 0, t + 48 * i); vstore16(v##i, 0, t + 48 * i + 16); \
                 vstore16(w##i, 0, t + 48 * i + 32);
#define LINE(expr) for (j = 0; j < n; ++j) { const float a = line[j]; y[j] = (expr); }
#define ACT_LINE(act, operands, expr) case act: LINE(expr) break;

/* Group (columns, rows); q.tiles tiles share the panels evenly. */
KERNEL vgs_tall(HEAP, int2 a_at, int2 packed_at, int2 bias_at, int2 idx_at, int2 c_at, const product q)
{
    __global float *page[8] = HEAP_PAGES;
    view a = view_of(page, a_at.x, a_at.y), bias = view_of(page, bias_at.x, bias_at.y);
    view idx = view_of(page, idx_at.x, idx_at.y), out = view_of(page, c_at.x, c_at.y);
    int panels = (q.n + 15) / 16, p0 = panels * GROUP(0) / q.tiles, p1 = panels * (GROUP(0) + 1) / q.tiles;
    int i0 = GROUP(1) * 8, n = min(q.n - 16 * p0, 16 * (p1 - p0)), i, j;
    int ai = q.form == 2 ? 1 : a.ld, ak = q.form == 2 ? a.ld : 1;
    __global const float *b = view_of(page, packed_at.x, packed_at.y).p + (size_t)(16 * p0) * (size_t)q.k;
    const float f0 = q.f0, f1 = q.f1;
    float t[8 * 48];
    EACH8(A_ROW)
#ifndef __AVX512F__
    for (j = 0; j < p1 - p0; ++j, b += 16 * (size_t)q.k) {
        tall_panel(a0, a1, a2, a3, ak, b, q.k, t + 16 * j);
        if (i0 + 4 < q.m) tall_panel(a4, a5, a6, a7, ak, b, q.k, t + 4 * 48 + 16 * j);
    }
#else
    __global const float *bb = b + 16 * (size_t)q.k, *bbb = bb + 16 * (size_t)q.k;
    size_t at = 0;
    float16 b0, b1, b2;
    int k;
    EACH8(ZERO)
    if (p1 - p0 == 3)
        for (k = 0; k < q.k; ++k, at += ak, b += 16, bb += 16, bbb += 16) {
            b0 = vload16(0, b);
            b1 = vload16(0, bb);
            b2 = vload16(0, bbb);
            EACH8(STEP3)
        }
    else if (p1 - p0 == 2)
        for (k = 0; k < q.k; ++k, at += ak, b += 16, bb += 16) {
            b0 = vload16(0, b);
            b1 = vload16(0, bb);
            EACH8(STEP2)
        }
    else
        for (k = 0; k < q.k; ++k, at += ak, b += 16) {
            b0 = vload16(0, b);
            EACH8(STEP1)
        }
    EACH8(KEEP)
#endif
    for (i = 0; i < 8 && i0 + i < q.m; ++i) {
        float *line = t + 48 * i;
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
