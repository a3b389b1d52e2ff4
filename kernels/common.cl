/* What every kernel shares: the heap, sums over a row, and the mathematics of vgs.h (>>math, >>rng) in the
   same operations. Options: VGS_WG = work-items of a group (a power of two; 1 on a CPU, where a work-item is
   a loop), VGS_FMA where fused multiply-add is fast. OP_ADD ... are the numbers of vgs_op. */
#pragma OPENCL FP_CONTRACT OFF

#define WG VGS_WG
#if WG > 1
#  define LID    ((int)get_local_id(0))
#  define SYNC() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#else
#  define LID    0
#  define SYNC()
#endif
#define KERNEL   __kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void
#define GROUP(d) ((int)get_group_id(d))
#define LANES(c, n) for (c = LID; c < (n); c += WG)   /* the columns of a work-item                      */

/* All buffers lie in at most eight pages, so that a kernel's arguments are the same for every call. A tensor
   is two words: its offset, and ld << 5 | stretched over columns << 4 | present << 3 | page. */
#define HEAP __global float *h0, __global float *h1, __global float *h2, __global float *h3, \
             __global float *h4, __global float *h5, __global float *h6, __global float *h7
#define HEAP_PAGES { h0, h1, h2, h3, h4, h5, h6, h7 }

typedef struct view { __global float *p; int ld; bool narrow; } view;

inline view view_of(__global float *const *page, int offset, int tag)
{
    view v;
    v.p = tag & 8 ? page[tag & 7] + offset : 0;
    v.ld = tag >> 5;
    v.narrow = (tag & 16) != 0;
    return v;
}
#define ROW(v, r) ((v).p + (size_t)(r) * (size_t)(v).ld)

/* ---- sums over a row: 16 partial sums and a tree, as on the CPU --------------------------------------
   Every work-item of a group makes the whole sum, all from the same addresses at once: no barrier inside an
   op, and the same bits for any size of a group. */

#define SUM(total, n, expr) \
    { float s_[16]; int i_, j_; \
      for (j_ = 0; j_ < 16; ++j_) s_[j_] = 0.0f; \
      for (i_ = 0; i_ + 16 <= (n); i_ += 16) for (j_ = 0; j_ < 16; ++j_) { c = i_ + j_; s_[j_] += (expr); } \
      for (j_ = 0; j_ < (n) - i_; ++j_) { c = i_ + j_; s_[j_] += (expr); } \
      for (j_ = 8; j_; j_ /= 2) for (i_ = 0; i_ < j_; ++i_) s_[i_] += s_[i_ + j_]; \
      total = s_[0]; }
#define MAX(top, n, expr) /* NaN wins */ \
    { float max_ = -INFINITY; \
      for (c = 0; c < (n); ++c) { const float v_ = (expr); max_ = v_ > max_ || v_ != v_ ? v_ : max_; } \
      top = max_; }

/* A sum in two floats: the high part and what it has lost. Good to 2^-45 without fp64. */
#define ADD2(hi, lo, x) \
    { const float x_ = (x), s_ = (hi) + x_, b_ = s_ - (hi); lo += ((hi) - (s_ - b_)) + (x_ - b_); hi = s_; }

/* ---- functions of one number ------------------------------------------------------------------------ */

inline float vexp(float x)
{
    uint u = as_uint(x);
    float c, kf, r, p;
    int k, khalf;
    u = (int)u > 0x42B20000 ? 0x42B20000u : u;
    u = u > 0xC2D00000u ? 0xC2D00000u : u;
    c = as_float(u);
    kf = c * 1.44269504088896341f + 12582912.0f;
    k = (int)(as_uint(kf) - 0x4B400000u);
    kf -= 12582912.0f;
    r = c - kf * 0.693359375f;
    r = r - kf * -2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    khalf = k / 2;
    p = p * as_float((uint)(khalf + 127) << 23) * as_float((uint)(k - khalf + 127) << 23);
    return x == x ? p : x;
}

inline float vlog(float x)
{
    uint tiny = x < 1.17549435e-38f ? 0xFFFFFFFFu : 0u, t;
    float y = x * as_float(0x3F800000u + (tiny & 0x0B800000u)), m, z, p, ef;
    int e;
    t = as_uint(y) - 0x3F3504F3u;
    e = (int)(t >> 23);
    e = e > 255 ? e - 512 : e;
    m = as_float((t & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    ef = (float)(e - (int)(tiny & 23u));
    z = m * m;
    p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z;
    p = p + ef * -2.12194440e-4f;
    p = p - 0.5f * z;
    p = m + p + ef * 0.693359375f;
    p = x > 3.402823466e38f ? x : p;
    p = x == 0.0f ? -INFINITY : p;
    return x >= 0.0f ? p : NAN;
}

inline void sincos_turns(float u, float *s, float *c)
{
    float q4 = u * 4.0f + 12582912.0f;
    uint q = as_uint(q4) & 3u;
    float r = (u - (q4 - 12582912.0f) * 0.25f) * 6.28318530717958648f;
    float z = r * r, sn, cs, a, b;
    sn = -1.9515295891e-4f;
    sn = sn * z + 8.3321608736e-3f;
    sn = sn * z - 1.6666654611e-1f;
    sn = sn * z * r + r;
    cs = 2.443315711809948e-5f;
    cs = cs * z - 1.388731625493765e-3f;
    cs = cs * z + 4.166664568298827e-2f;
    cs = cs * z * z - 0.5f * z + 1.0f;
    a = q & 1u ? cs : sn;
    b = q & 1u ? sn : cs;
    *s = q & 2u ? -a : a;
    *c = (q + 1u) & 2u ? -b : b;
}
inline void sincos_of(float x, float *s, float *c)
{
    float u = x * 0.159154943091895336f, n = (u + 12582912.0f) - 12582912.0f;
    u = u > -4194304.0f && u < 4194304.0f ? u - n : u - u;
    sincos_turns(u < 0.0f ? u + 1.0f : u, s, c);
}
inline float vsin(float x) { float s, c; sincos_of(x, &s, &c); return s; }
inline float vcos(float x) { float s, c; sincos_of(x, &s, &c); return c; }

inline float vsigmoid(float x) { return 1.0f / (1.0f + vexp(-x)); }

inline float vtanh(float x)
{
    float a = fabs(x), z = x * x, e = vexp(-2.0f * a), big = (1.0f - e) / (1.0f + e), small;
    small = -5.70498872745e-3f;
    small = small * z + 2.06390887954e-2f;
    small = small * z - 5.37397155531e-2f;
    small = small * z + 1.33314422036e-1f;
    small = small * z - 3.33332819422e-1f;
    small = small * z * x + x;
    big = as_float(as_uint(big) | (as_uint(x) & 0x80000000u));
    return a < 0.625f ? small : x == x ? big : x;
}

inline float vsoftplus(float x)
{
    float e = vexp(-fabs(x)), u = 1.0f + e, d = u - 1.0f;
    float l = d == 0.0f ? e : vlog(u) * e / (d + (d == 0.0f ? 1.0f : 0.0f));
    return (x > 0.0f ? x : 0.0f) + (x == x ? l : x);
}

/* as the formulas of vgs.h call them */
#define vgs__exp      vexp
#define vgs__log      vlog
#define vgs__sin      vsin
#define vgs__cos      vcos
#define vgs__sigmoid  vsigmoid
#define vgs__tanh     vtanh
#define vgs__softplus vsoftplus
#define sqrtf         sqrt
#define fabsf         fabs

/* ---- random numbers: Philox4x32-10, bit for bit that of vgs.h --------------------------------------- */

inline uint4 philox(uint k0, uint k1, uint4 c)
{
    int i;
    for (i = 0; i < 10; ++i) {
        uint ah = mul_hi(0xD2511F53u, c.x), al = 0xD2511F53u * c.x;
        uint bh = mul_hi(0xCD9E8D57u, c.z), bl = 0xCD9E8D57u * c.z;
        c = (uint4)(bh ^ c.y ^ k0, bl, ah ^ c.w ^ k1, al);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

#define BLOCKS (WG > 1 ? 1 : 32)                      /* of four words, at a time: a CPU's vectors        */

/* The words of BLOCKS counters, in the counters' place. */
inline void philox_of(uint k0, uint k1, uint *c0, uint *c1, uint *c2, uint *c3)
{
    int i, j;
    for (i = 0; i < 10; ++i, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (j = 0; j < BLOCKS; ++j) {
            const ulong a = (ulong)0xD2511F53u * c0[j], b = (ulong)0xCD9E8D57u * c2[j];
            c0[j] = (uint)(b >> 32) ^ c1[j] ^ k0;
            c2[j] = (uint)(a >> 32) ^ c3[j] ^ k1;
            c1[j] = (uint)b;
            c3[j] = (uint)a;
        }
}
inline void normals_of(const uint *a, const uint *b, float *z0, float *z1)
{
    int j;
    for (j = 0; j < BLOCKS; ++j) {
        float u = convert_float_rte(a[j]) * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
        float v = (float)(b[j] >> 8) * 5.9604644775390625e-8f, s, c, r = -2.0f * vlog(u);
        r = sqrt(r < 0.0f ? 0.0f : r);
        sincos_turns(v, &s, &c);
        z0[j] = r * c;
        z1[j] = r * s;
    }
}
