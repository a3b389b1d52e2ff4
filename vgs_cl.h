/* vgs_cl.h - v0.1.0 - vgs.h on any OpenCL 1.2 device - SPDX-License-Identifier: MIT, text at the end of vgs.h

   Include it after vgs.h, with the implementation in the same ONE file:

       #define VGS_IMPLEMENTATION
       #include "vgs.h"
       #include "vgs_cl.h"

   Build:   cc -O2 prog.c -o prog -lOpenCL -lm        (macOS: -framework OpenCL)
   It links the loader; a missing driver is an error that vgs_cl_create reports.

   USE IT
       vgs_config c = { 0 };
       c.backend = vgs_cl_create(NULL, &err);    // the fastest GPU, else a CPU device; NULL: err tells why
       ...                                       // everything else as without it
       vgs_sampler_free(s);
       vgs_cl_free(c.backend);                   // after all that used it

   Training and drawing then run on the device: weights, trajectories and moments stay there; an iteration
   moves nothing but 16 bytes that tell whether an energy was finite, and the rows of an energy that is a C
   callback. Checkpoints are those of the CPU: train on one, go on with the other.

   ENERGIES   Fastest first: recorded (vgs_energy.record: it becomes part of the graph), OpenCL C source
       (vgs_cl_energy), a C callback (its rows are transferred).

   NUMBERS    Random integers are bit for bit those of the CPU, normal numbers within 2 ulp, ops within
       rounding: the same training, but not the same bits. A device gives the same bits again: no sum has an
       order that changes, there are no atomics on floats. fp64 is not used: sums that the CPU makes in double
       are made in pairs of floats. Numbers below 1.2e-38 count as 0 where the device can do so
       (-cl-denorms-are-zero), in your OpenCL C source, too.

   PRODUCTS of matrices are made by one of several kernels. Which is the fastest, for a form and a size, is
       measured once for a device and kept beside the compiled kernels. All of ours add in one order: the same
       bits on a device with fused multiply-add. Those of CLBlast join in a build with VGS_CL_CLBLAST defined:

           cc -O2 -DVGS_CL_CLBLAST prog.c -o prog -lclblast -lOpenCL -lm

       CLBlast agrees within rounding. It repeats its bits while the choice is kept, but may add in another
       order for another number of rows: a draw in two parts is then not bit for bit that in one. It compiles
       with its first product, for some seconds at the first start.

   THREADS    One thread at a time for a backend and all that uses it; with VGS_CL_CLBLAST, for all backends
       of a program (CLBlast before 1.6.1 shares a cache between them).

   COMPILED KERNELS are kept in the user's cache directory (~/.cache/vgs; XDG_CACHE_HOME, LOCALAPPDATA), under
       a key of source, options, device and driver; a file that is damaged is ignored and written anew. */
#ifndef VGS_CL_H
#define VGS_CL_H

#ifndef VGS_H
#  error "include vgs.h before vgs_cl.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vgs_cl_config {    /* zero means default                                                     */
    const char *device;           /* NULL or "auto": the GPU that promises most, else a CPU device; a       */
                                  /* number of vgs_cl_list; a part of a name, upper and lower case alike    */
    void  *context, *queue;       /* your cl_context and in-order cl_command_queue (both or none); borrowed */
    int    work_group;            /* most work-items of a group: 1, or a power of two to 256; 0 = by device */
    size_t page_floats;           /* device memory comes in pages of at least so many; 0 = 4 M, growing     */
    const char *cache_dir;        /* where compiled kernels are kept; NULL = the user's cache directory     */
    bool   no_cache;              /* compile, and measure products, at every creation                       */
    bool   profile;               /* times every launch: vgs_cl_profile                                     */
    const char *products;         /* NULL: the fastest for each shape; or for all: "tile", "tall" (only if  */
                                  /* a group is 1 work-item), "clblast" (a build with VGS_CL_CLBLAST)       */
    char  *log;                   /* NULL, or room for the whole log of a failed build                      */
    size_t log_size;
} vgs_cl_config;

/* Device number i as "name (vendor; driver)" into text, cut at 200 bytes; false past the last one. err, which
   may be NULL, tells why there is none: no loader finds a platform, or no platform has a device. */
VGS_API bool vgs_cl_list(int i, char text[200], vgs_error *err);

/* Opens a device, builds or loads the kernels, and checks products, sums, sort and random numbers against the
   CPU (less than half a second). VGS_E_DEVICE: no platform, no such device, a build that failed (err has the
   log's first line, at the .cl file's own line), a device that computes wrongly. */
VGS_API vgs_backend *vgs_cl_create(const vgs_cl_config *cfg, vgs_error *err);        /* cfg may be NULL */
VGS_API void         vgs_cl_free  (vgs_backend *cl);                                 /* NULL is fine    */
VGS_API const char  *vgs_cl_device(const vgs_backend *cl);           /* "name (vendor; driver)"         */

/* An energy in OpenCL C 1.2: `source` defines
       float energy(__global const float *x, int dim);
       void gradient(__global const float *x, int dim, __global float *g);
   They may use vexp, vlog, vsin, vcos, vtanh (the operations of vgs.h) and ADD2(hi, lo, x), which adds x to a
   sum in two floats. *energy is filled in, with a callback that computes on the device for all that is not a
   sampler there. It lives as long as cl. VGS_E_DEVICE: the build failed, err has the log's first line
   ("energy:3:5: ..."). */
VGS_API vgs_status vgs_cl_energy(vgs_backend *cl, const char *source, int dim, vgs_energy *energy,
                                 vgs_error *err);

typedef struct vgs_cl_counts {    /* since creation, or since vgs_cl_reset                                 */
    uint64_t launches, uploads, upload_bytes, downloads, download_bytes, callback_rows;
} vgs_cl_counts;
VGS_API vgs_cl_counts vgs_cl_counted(const vgs_backend *cl);
VGS_API void          vgs_cl_reset  (vgs_backend *cl);

/* Kernel i with its launches and, if cfg.profile, its seconds on the device; false past the last one. Of a
   product of CLBlast, which may be several kernels, the last one's. */
VGS_API bool vgs_cl_profile(vgs_backend *cl, int i, const char **name, uint64_t *launches, double *seconds);

#ifdef __cplusplus
}
#endif
#endif /* VGS_CL_H */

/* ==== end of interface ==============================================================================
   What follows, in this order: kernels (generated), state, errors, devices, memory, launches, calls as words,
   calls by rows, whole calls, products, energies, running, programs and their files, self-test, the choice of
   products, creation. */

#if defined VGS_IMPLEMENTATION && !defined VGS_CL__IMPLEMENTED
#define VGS_CL__IMPLEMENTED

#ifndef CL_TARGET_OPENCL_VERSION
#  define CL_TARGET_OPENCL_VERSION 120
#endif
#ifdef __APPLE__
#  include <OpenCL/opencl.h>
#else
#  include <CL/cl.h>
#endif
#ifdef VGS_CL_CLBLAST
#  include <clblast_c.h>
#endif
#include <ctype.h>
#ifndef VGS_NO_STDIO
#  include <sys/stat.h>
#  ifdef _WIN32
#    include <direct.h>
#  endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== kernels ======================================================================================== */

/* BEGIN GENERATED KERNELS (by kernels/embed.c from kernels/; do not edit) */
static const char *const vgs_cl__src_common[] = {
    "#line 1 \"kernels/common.cl\"\n",
    "/* What every kernel shares: the heap, sums over a row, and the mathematics of vgs.h (>>math, >>rng"
        ") in the\n",
    "   same operations. Options: VGS_WG = work-items of a group (a power of two; 1 on a CPU, where a wo"
        "rk-item is\n",
    "   a loop), VGS_FMA where fused multiply-add is fast. OP_ADD ... are the numbers of vgs_op. */\n",
    "#pragma OPENCL FP_CONTRACT OFF\n",
    "\n",
    "#define WG VGS_WG\n",
    "#if WG > 1\n",
    "#  define LID    ((int)get_local_id(0))\n",
    "#  define SYNC() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)\n",
    "#else\n",
    "#  define LID    0\n",
    "#  define SYNC()\n",
    "#endif\n",
    "#define KERNEL   __kernel __attribute__((reqd_work_group_size(WG, 1, 1))) void\n",
    "#define GROUP(d) ((int)get_group_id(d))\n",
    "#define LANES(c, n) for (c = LID; c < (n); c += WG)   /* the columns of a work-item                "
        "      */\n",
    "\n",
    "/* All buffers lie in at most eight pages, so that a kernel's arguments are the same for every call"
        ". A tensor\n",
    "   is two words: its offset, and ld << 5 | stretched over columns << 4 | present << 3 | page. */\n",
    "#define HEAP __global float *h0, __global float *h1, __global float *h2, __global float *h3, \\\n",
    "             __global float *h4, __global float *h5, __global float *h6, __global float *h7\n",
    "#define HEAP_PAGES { h0, h1, h2, h3, h4, h5, h6, h7 }\n",
    "\n",
    "typedef struct view { __global float *p; int ld; bool narrow; } view;\n",
    "\n",
    "inline view view_of(__global float *const *page, int offset, int tag)\n",
    "{\n",
    "    view v;\n",
    "    v.p = tag & 8 \? page[tag & 7] + offset : 0;\n",
    "    v.ld = tag >> 5;\n",
    "    v.narrow = (tag & 16) != 0;\n",
    "    return v;\n",
    "}\n",
    "#define ROW(v, r) ((v).p + (size_t)(r) * (size_t)(v).ld)\n",
    "\n",
    "/* ---- sums over a row: 16 partial sums and a tree, as on the CPU --------------------------------"
        "------\n",
    "   Every work-item of a group makes the whole sum, all from the same addresses at once: no barrier "
        "inside an\n",
    "   op, and the same bits for any size of a group. */\n",
    "\n",
    "#define SUM(total, n, expr) \\\n",
    "    { float s_[16]; int i_, j_; \\\n",
    "      for (j_ = 0; j_ < 16; ++j_) s_[j_] = 0.0f; \\\n",
    "      for (i_ = 0; i_ + 16 <= (n); i_ += 16) for (j_ = 0; j_ < 16; ++j_) { c = i_ + j_; s_[j_] += ("
        "expr); } \\\n",
    "      for (j_ = 0; j_ < (n) - i_; ++j_) { c = i_ + j_; s_[j_] += (expr); } \\\n",
    "      for (j_ = 8; j_; j_ /= 2) for (i_ = 0; i_ < j_; ++i_) s_[i_] += s_[i_ + j_]; \\\n",
    "      total = s_[0]; }\n",
    "#define MAX(top, n, expr) /* NaN wins */ \\\n",
    "    { float max_ = -INFINITY; \\\n",
    "      for (c = 0; c < (n); ++c) { const float v_ = (expr); max_ = v_ > max_ || v_ != v_ \? v_ : max"
        "_; } \\\n",
    "      top = max_; }\n",
    "\n",
    "/* A sum in two floats: the high part and what it has lost. Good to 2^-45 without fp64. */\n",
    "#define ADD2(hi, lo, x) \\\n",
    "    { const float x_ = (x), s_ = (hi) + x_, b_ = s_ - (hi); lo += ((hi) - (s_ - b_)) + (x_ - b_); h"
        "i = s_; }\n",
    "\n",
    "/* ---- functions of one number -------------------------------------------------------------------"
        "----- */\n",
    "\n",
    "inline float vexp(float x)\n",
    "{\n",
    "    uint u = as_uint(x);\n",
    "    float c, kf, r, p;\n",
    "    int k, khalf;\n",
    "    u = (int)u > 0x42B20000 \? 0x42B20000u : u;\n",
    "    u = u > 0xC2D00000u \? 0xC2D00000u : u;\n",
    "    c = as_float(u);\n",
    "    kf = c * 1.44269504088896341f + 12582912.0f;\n",
    "    k = (int)(as_uint(kf) - 0x4B400000u);\n",
    "    kf -= 12582912.0f;\n",
    "    r = c - kf * 0.693359375f;\n",
    "    r = r - kf * -2.12194440e-4f;\n",
    "    p = 1.9875691500e-4f;\n",
    "    p = p * r + 1.3981999507e-3f;\n",
    "    p = p * r + 8.3334519073e-3f;\n",
    "    p = p * r + 4.1665795894e-2f;\n",
    "    p = p * r + 1.6666665459e-1f;\n",
    "    p = p * r + 5.0000001201e-1f;\n",
    "    p = p * r * r + r + 1.0f;\n",
    "    khalf = k / 2;\n",
    "    p = p * as_float((uint)(khalf + 127) << 23) * as_float((uint)(k - khalf + 127) << 23);\n",
    "    return x == x \? p : x;\n",
    "}\n",
    "\n",
    "inline float vlog(float x)\n",
    "{\n",
    "    uint tiny = x < 1.17549435e-38f \? 0xFFFFFFFFu : 0u, t;\n",
    "    float y = x * as_float(0x3F800000u + (tiny & 0x0B800000u)), m, z, p, ef;\n",
    "    int e;\n",
    "    t = as_uint(y) - 0x3F3504F3u;\n",
    "    e = (int)(t >> 23);\n",
    "    e = e > 255 \? e - 512 : e;\n",
    "    m = as_float((t & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;\n",
    "    ef = (float)(e - (int)(tiny & 23u));\n",
    "    z = m * m;\n",
    "    p = 7.0376836292e-2f;\n",
    "    p = p * m - 1.1514610310e-1f;\n",
    "    p = p * m + 1.1676998740e-1f;\n",
    "    p = p * m - 1.2420140846e-1f;\n",
    "    p = p * m + 1.4249322787e-1f;\n",
    "    p = p * m - 1.6668057665e-1f;\n",
    "    p = p * m + 2.0000714765e-1f;\n",
    "    p = p * m - 2.4999993993e-1f;\n",
    "    p = p * m + 3.3333331174e-1f;\n",
    "    p = p * m * z;\n",
    "    p = p + ef * -2.12194440e-4f;\n",
    "    p = p - 0.5f * z;\n",
    "    p = m + p + ef * 0.693359375f;\n",
    "    p = x > 3.402823466e38f \? x : p;\n",
    "    p = x == 0.0f \? -INFINITY : p;\n",
    "    return x >= 0.0f \? p : NAN;\n",
    "}\n",
    "\n",
    "inline void sincos_turns(float u, float *s, float *c)\n",
    "{\n",
    "    float q4 = u * 4.0f + 12582912.0f;\n",
    "    uint q = as_uint(q4) & 3u;\n",
    "    float r = (u - (q4 - 12582912.0f) * 0.25f) * 6.28318530717958648f;\n",
    "    float z = r * r, sn, cs, a, b;\n",
    "    sn = -1.9515295891e-4f;\n",
    "    sn = sn * z + 8.3321608736e-3f;\n",
    "    sn = sn * z - 1.6666654611e-1f;\n",
    "    sn = sn * z * r + r;\n",
    "    cs = 2.443315711809948e-5f;\n",
    "    cs = cs * z - 1.388731625493765e-3f;\n",
    "    cs = cs * z + 4.166664568298827e-2f;\n",
    "    cs = cs * z * z - 0.5f * z + 1.0f;\n",
    "    a = q & 1u \? cs : sn;\n",
    "    b = q & 1u \? sn : cs;\n",
    "    *s = q & 2u \? -a : a;\n",
    "    *c = (q + 1u) & 2u \? -b : b;\n",
    "}\n",
    "inline void sincos_of(float x, float *s, float *c)\n",
    "{\n",
    "    float u = x * 0.159154943091895336f, n = (u + 12582912.0f) - 12582912.0f;\n",
    "    u = u > -4194304.0f && u < 4194304.0f \? u - n : u - u;\n",
    "    sincos_turns(u < 0.0f \? u + 1.0f : u, s, c);\n",
    "}\n",
    "inline float vsin(float x) { float s, c; sincos_of(x, &s, &c); return s; }\n",
    "inline float vcos(float x) { float s, c; sincos_of(x, &s, &c); return c; }\n",
    "\n",
    "inline float vsigmoid(float x) { return 1.0f / (1.0f + vexp(-x)); }\n",
    "\n",
    "inline float vtanh(float x)\n",
    "{\n",
    "    float a = fabs(x), z = x * x, e = vexp(-2.0f * a), big = (1.0f - e) / (1.0f + e), small;\n",
    "    small = -5.70498872745e-3f;\n",
    "    small = small * z + 2.06390887954e-2f;\n",
    "    small = small * z - 5.37397155531e-2f;\n",
    "    small = small * z + 1.33314422036e-1f;\n",
    "    small = small * z - 3.33332819422e-1f;\n",
    "    small = small * z * x + x;\n",
    "    big = as_float(as_uint(big) | (as_uint(x) & 0x80000000u));\n",
    "    return a < 0.625f \? small : x == x \? big : x;\n",
    "}\n",
    "\n",
    "inline float vsoftplus(float x)\n",
    "{\n",
    "    float e = vexp(-fabs(x)), u = 1.0f + e, d = u - 1.0f;\n",
    "    float l = d == 0.0f \? e : vlog(u) * e / (d + (d == 0.0f \? 1.0f : 0.0f));\n",
    "    return (x > 0.0f \? x : 0.0f) + (x == x \? l : x);\n",
    "}\n",
    "\n",
    "/* as the formulas of vgs.h call them */\n",
    "#define vgs__exp      vexp\n",
    "#define vgs__log      vlog\n",
    "#define vgs__sin      vsin\n",
    "#define vgs__cos      vcos\n",
    "#define vgs__sigmoid  vsigmoid\n",
    "#define vgs__tanh     vtanh\n",
    "#define vgs__softplus vsoftplus\n",
    "#define sqrtf         sqrt\n",
    "#define fabsf         fabs\n",
    "\n",
    "/* ---- random numbers: Philox4x32-10, bit for bit that of vgs.h ----------------------------------"
        "----- */\n",
    "\n",
    "inline uint4 philox(uint k0, uint k1, uint4 c)\n",
    "{\n",
    "    int i;\n",
    "    for (i = 0; i < 10; ++i) {\n",
    "        uint ah = mul_hi(0xD2511F53u, c.x), al = 0xD2511F53u * c.x;\n",
    "        uint bh = mul_hi(0xCD9E8D57u, c.z), bl = 0xCD9E8D57u * c.z;\n",
    "        c = (uint4)(bh ^ c.y ^ k0, bl, ah ^ c.w ^ k1, al);\n",
    "        k0 += 0x9E3779B9u;\n",
    "        k1 += 0xBB67AE85u;\n",
    "    }\n",
    "    return c;\n",
    "}\n",
    "\n",
    "#define BLOCKS (WG > 1 \? 1 : 32)                      /* of four words, at a time: a CPU's vectors"
        "        */\n",
    "\n",
    "/* The words of BLOCKS counters, in the counters' place. */\n",
    "inline void philox_of(uint k0, uint k1, uint *c0, uint *c1, uint *c2, uint *c3)\n",
    "{\n",
    "    int i, j;\n",
    "    for (i = 0; i < 10; ++i, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)\n",
    "        for (j = 0; j < BLOCKS; ++j) {\n",
    "            const ulong a = (ulong)0xD2511F53u * c0[j], b = (ulong)0xCD9E8D57u * c2[j];\n",
    "            c0[j] = (uint)(b >> 32) ^ c1[j] ^ k0;\n",
    "            c2[j] = (uint)(a >> 32) ^ c3[j] ^ k1;\n",
    "            c1[j] = (uint)b;\n",
    "            c3[j] = (uint)a;\n",
    "        }\n",
    "}\n",
    "inline void normals_of(const uint *a, const uint *b, float *z0, float *z1)\n",
    "{\n",
    "    int j;\n",
    "    for (j = 0; j < BLOCKS; ++j) {\n",
    "        float u = convert_float_rte(a[j]) * 2.3283064365386963e-10f + 1.1641532182693481e-10f;\n",
    "        float v = (float)(b[j] >> 8) * 5.9604644775390625e-8f, s, c, r = -2.0f * vlog(u);\n",
    "        r = sqrt(r < 0.0f \? 0.0f : r);\n",
    "        sincos_turns(v, &s, &c);\n",
    "        z0[j] = r * c;\n",
    "        z1[j] = r * s;\n",
    "    }\n",
    "}\n",
    NULL
};
static const char *const vgs_cl__src_rows[] = {
    "#line 1 \"kernels/rows.cl\"\n",
    "/* Ops whose rows are independent. One launch runs a list of calls: a group takes a block of parts "
        "(vgs.h,\n",
    "   run_list) through all of them, so that what lies between two ops stays in its cache, and a chain"
        " of\n",
    "   elementwise ops is one launch. The list travels as an argument: no transfer, no wait. Words of a"
        " call:\n",
    "   0 op, or'd with FLAT: dense operands of one shape    1 rows of a part    2 columns    3 columns "
        "of in[0]\n",
    "   4 out    6 out2    8 10 12 14 in[0..3]    16 i0..i3, f0..f3, or i0..i7 of a random op */\n",
    "\n",
    "typedef struct calls { int w[VGS_CALLS * VGS_WORDS]; } calls;\n",
    "\n",
    "#define FLAT 0x10000\n",
    "#define I(k) w[16 + (k)]\n",
    "#define F(k) as_float(w[20 + (k)])\n",
    "\n",
    "#define ROWS for (r = r0; r < r1; ++r)\n",
    "/* Maps come as their formulas in vgs.h: MAPS is a MAP(op, operands, formula) for each, ACTS(X) an\n",
    "   X(activation, operands, formula) for each that a product takes with it. 0 operands: more than a "
        "formula. */\n",
    "#define MAP(ID, operands, expr) MAP##operands(ID, expr)\n",
    "#define MAP0(ID, expr)\n",
    "#define MAP1(ID, expr) \\\n",
    "    case ID: \\\n",
    "        ROWS { \\\n",
    "            const float f0 = F(0), f1 = F(1); \\\n",
    "            __global const float *pa = ROW(x0, r); \\\n",
    "            __global float *y = ROW(out, r); \\\n",
    "            LANES(c, cols) { const float a = pa[c]; y[c] = (expr); } \\\n",
    "        } \\\n",
    "        break;\n",
    "#define MAP2(ID, expr) \\\n",
    "    case ID: \\\n",
    "        ROWS { \\\n",
    "            const float f0 = F(0), f1 = F(1); \\\n",
    "            const int i0 = I(0); \\\n",
    "            __global const float *pa = ROW(x0, r), *pb = ROW(x1, r); \\\n",
    "            __global float *y = ROW(out, r); \\\n",
    "            if (x0.narrow) { \\\n",
    "                const float a = *pa; \\\n",
    "                LANES(c, cols) { const float b = pb[c]; y[c] = (expr); } \\\n",
    "            } else if (x1.narrow) { \\\n",
    "                const float b = *pb; \\\n",
    "                LANES(c, cols) { const float a = pa[c]; y[c] = (expr); } \\\n",
    "            } else LANES(c, cols) { const float a = pa[c], b = pb[c]; y[c] = (expr); } \\\n",
    "        } \\\n",
    "        break;\n",
    "\n",
    "inline float vgs__loss(float d, int kind)               /* 0 smooth L1, 1 squares, 2 L1            "
        "        */\n",
    "{\n",
    "    float a = fabs(d);\n",
    "    return kind == 2 \? a : kind == 0 \? (a < 1.0f \? 0.5f * d * d : a - 0.5f) : d * d;\n",
    "}\n",
    "inline float vgs__loss_slope(float d, int kind)\n",
    "{\n",
    "    return kind == 2 \? (d > 0.0f \? 1.0f : d < 0.0f \? -1.0f : d)\n",
    "         : kind == 0 \? (d > 1.0f \? 1.0f : d < -1.0f \? -1.0f : d) : 2.0f * d;\n",
    "}\n",
    "\n",
    "inline uint feistel(uint v, int half_bits, uint4 k0, uint4 k1)\n",
    "{\n",
    "    uint mask = (1u << half_bits) - 1u, l = v >> half_bits, r = v & mask, h;\n",
    "    uint key[6] = { k0.x, k0.y, k0.z, k0.w, k1.x, k1.y };\n",
    "    int i;\n",
    "    for (i = 0; i < 6; ++i) {\n",
    "        h = (r ^ key[i]) * 0x9E3779B1u;\n",
    "        h = (h ^ (h >> 15)) * 0x85EBCA77u;\n",
    "        h ^= h >> 13;\n",
    "        h = l ^ (h & mask);\n",
    "        l = r;\n",
    "        r = h;\n",
    "    }\n",
    "    return l << half_bits | r;\n",
    "}\n",
    "\n",
    "inline void copy_row(__global float *to, __global const float *from, int n)  /* any type: as intege"
        "rs    */\n",
    "{\n",
    "    __global int *y = (__global int *)to;\n",
    "    __global const int *x = (__global const int *)from;\n",
    "    int c;\n",
    "    LANES(c, n) y[c] = x[c];\n",
    "}\n",
    "\n",
    "/* Order of floats as order of integers; the two zeros are equal. */\n",
    "inline int sort_key(float x)\n",
    "{\n",
    "    int k = as_int(x + 0.0f);\n",
    "    return k ^ ((k >> 31) & 0x7FFFFFFF);\n",
    "}\n",
    "\n",
    "/* ---- eigenvectors by one-sided Jacobi, as vgs.h has it -----------------------------------------"
        "-------\n",
    "   As many matrices at once as keep the work-items busy. Each turns a pair of rows, of pairs withou"
        "t a row in\n",
    "   common: the same bits for any size of a group. */\n",
    "\n",
    "inline float dot_of(__global const float *x, __global const float *y, int n)\n",
    "{\n",
    "    float s = 0.0f;\n",
    "    int j;\n",
    "    for (j = 0; j < n; ++j) s += x[j] * y[j];\n",
    "    return s;\n",
    "}\n",
    "\n",
    "/* More than twice the norm of the symmetric part of x. */\n",
    "inline float eigen_scale(__global const float *x, int n)\n",
    "{\n",
    "    float sum = 0.0f;\n",
    "    int i, j;\n",
    "    for (i = 0; i < n; ++i)\n",
    "        for (j = 0; j < n; ++j) {\n",
    "            const float a = 0.5f * (x[i * n + j] + x[j * n + i]);\n",
    "            sum += a * a;\n",
    "        }\n",
    "    return 1.0f + 2.0f * sqrt(sum);\n",
    "}\n",
    "\n",
    "/* Pair j of round k of a tournament of m (even): in m - 1 rounds of m/2 pairs each meets all other"
        "s. */\n",
    "inline int2 pair_of(int m, int k, int j)\n",
    "{\n",
    "    const int a = j \? (k + j) % (m - 1) : m - 1, b = (k + m - 1 - j) % (m - 1);\n",
    "    return (int2)(min(a, b), max(a, b));\n",
    "}\n",
    "\n",
    "/* Rows p.x and p.y of v, whose squared lengths are kept. */\n",
    "inline bool make_orthogonal(__global float *v, __global float *square, int2 p, int n)\n",
    "{\n",
    "    __global float *x = v + p.x * n, *y = v + p.y * n;\n",
    "    const float c = dot_of(x, y, n), d = square[p.y] - square[p.x], c2 = d < 0.0f \? -2.0f * c : 2."
        "0f * c;\n",
    "    float tangent, cosine, sine;\n",
    "    int j;\n",
    "    if (!(fabs(c) > 1e-6f)) return false;\n",
    "    tangent = c2 / (fabs(d) + sqrt(d * d + c2 * c2));\n",
    "    cosine = 1.0f / sqrt(1.0f + tangent * tangent);\n",
    "    sine = cosine * tangent;\n",
    "    square[p.x] -= tangent * c;\n",
    "    square[p.y] += tangent * c;\n",
    "    for (j = 0; j < n; ++j) {\n",
    "        const float a = x[j], b = y[j];\n",
    "        x[j] = cosine * a - sine * b;\n",
    "        y[j] = sine * a + cosine * b;\n",
    "    }\n",
    "    return true;\n",
    "}\n",
    "\n",
    "/* Rows r0..r1-1, matrices of n rows: v = eigenvectors, value = eigenvalues; *turned is for the gro"
        "up. */\n",
    "inline void eigen(int n, int r0, int r1, view in, view v, view value, __local int *turned)\n",
    "{\n",
    "    const int m = n + n % 2, rows = r1 - r0;\n",
    "    int c, i, j, k, sweep = 0;\n",
    "    LANES(c, rows * n) {\n",
    "        __global const float *x = ROW(in, r0 + c / n);\n",
    "        __global float *y = ROW(v, r0 + c / n) + c % n * n;\n",
    "        const float scale = eigen_scale(x, n);\n",
    "        i = c % n;\n",
    "        for (j = 0; j < n; ++j) y[j] = 0.5f * (x[i * n + j] + x[j * n + i]) / scale + (i == j \? 1."
        "0f : 0.0f);\n",
    "    }\n",
    "    do {\n",
    "        SYNC();\n",
    "        if (LID == 0) *turned = 0;\n",
    "        LANES(c, rows * n) {\n",
    "            __global float *x = ROW(v, r0 + c / n) + c % n * n;\n",
    "            ROW(value, r0 + c / n)[c % n] = dot_of(x, x, n);\n",
    "        }\n",
    "        SYNC();\n",
    "        for (k = 0; k < m - 1; ++k) {\n",
    "            LANES(c, rows * (m / 2)) {\n",
    "                const int2 p = pair_of(m, k, c % (m / 2));\n",
    "                i = r0 + c / (m / 2);\n",
    "                if (p.y < n && make_orthogonal(ROW(v, i), ROW(value, i), p, n)) atomic_or(turned, 1"
        ");\n",
    "            }\n",
    "            SYNC();\n",
    "        }\n",
    "    } while (*turned && ++sweep < 30);\n",
    "    LANES(c, rows * n) {\n",
    "        __global float *y = ROW(v, r0 + c / n) + c % n * n, *square = ROW(value, r0 + c / n) + c % "
        "n;\n",
    "        const float length = sqrt(*square);\n",
    "        for (j = 0; j < n; ++j) y[j] /= length;\n",
    "        *square = (length - 1.0f) * eigen_scale(ROW(in, r0 + c / n), n);\n",
    "    }\n",
    "    SYNC();\n",
    "}\n",
    "\n",
    "KERNEL vgs_rows(HEAP, const calls list, int n, int parts, int block)\n",
    "{\n",
    "    __local int turned;\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __global const float *x, *gx;\n",
    "    __global float *y;\n",
    "    int first = GROUP(0) * block, end = min(first + block, parts), k, r, c;\n",
    "    for (k = 0; k < n; ++k) {\n",
    "        const int *w = list.w + k * VGS_WORDS;\n",
    "        const int op = w[0] & 0xFFFF;\n",
    "        int r0 = first * w[1], r1 = end * w[1], cols = w[2];\n",
    "        view out = view_of(page, w[4], w[5]), out2 = view_of(page, w[6], w[7]);\n",
    "        view x0 = view_of(page, w[8], w[9]), x1 = view_of(page, w[10], w[11]);\n",
    "        view x2 = view_of(page, w[12], w[13]);\n",
    "        if (w[0] & FLAT) {                            /* one long row                              "
        "      */\n",
    "            out.p += (size_t)r0 * (size_t)out.ld;\n",
    "            out2.p += (size_t)r0 * (size_t)out2.ld;\n",
    "            x0.p += (size_t)r0 * (size_t)x0.ld;\n",
    "            x1.p += (size_t)r0 * (size_t)x1.ld;\n",
    "            x2.p += (size_t)r0 * (size_t)x2.ld;\n",
    "            cols *= r1 - r0;\n",
    "            r0 = 0;\n",
    "            r1 = 1;\n",
    "        }\n",
    "        switch (op) {\n",
    "        MAPS\n",
    "        case OP_COMBINE:\n",
    "            ROWS {\n",
    "                __global const float *pa = ROW(x0, r), *pb = ROW(x1, r), *pc = ROW(x2, r);\n",
    "                y = ROW(out, r);\n",
    "                if (x2.p) LANES(c, cols) y[c] = pa[c] * F(0) + pb[c] * F(1) + pc[c] * F(2);\n",
    "                else LANES(c, cols) y[c] = pa[c] * F(0) + pb[c] * F(1);\n",
    "            }\n",
    "            break;\n",
    "        case OP_SILU:\n",
    "            ROWS {\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                if (w[7] & 8) {\n",
    "                    __global float *slope = ROW(out2, r);\n",
    "                    LANES(c, cols) {\n",
    "                        const float a = x[c], s = vsigmoid(a);\n",
    "                        y[c] = a * s;\n",
    "                        slope[c] = s * (1.0f + a * (1.0f - s));\n",
    "                    }\n",
    "                } else LANES(c, cols) y[c] = x[c] * vsigmoid(x[c]);\n",
    "            }\n",
    "            break;\n",
    "        case OP_FILL:                                 /* i1: all rows                              "
        "      */\n",
    "            ROWS LANES(c, cols) ROW(out, r)[c] = I(0) \? F(0) / (float)I(1) : F(0);\n",
    "            break;\n",
    "        case OP_FILL_INT:\n",
    "            ROWS LANES(c, cols) ((__global int *)ROW(out, r))[c] = I(0);\n",
    "            break;\n",
    "        case OP_INT_DIV:\n",
    "            ROWS LANES(c, cols) ((__global int *)ROW(out, r))[c] = ((__global int *)ROW(x0, r))[c] "
        "/ I(0);\n",
    "            break;\n",
    "        case OP_STORE:                                /* in[0] -> out, added if i1                 "
        "      */\n",
    "            ROWS {\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                if (I(1)) LANES(c, cols) y[c] += x[c];\n",
    "                else copy_row(y, x, cols);\n",
    "            }\n",
    "            break;\n",
    "\n",
    "        case OP_SUM_COLS:\n",
    "            ROWS {\n",
    "                float s;\n",
    "                x = ROW(x0, r);\n",
    "                SUM(s, w[3], x[c])\n",
    "                if (LID == 0) *ROW(out, r) = F(0) * s;\n",
    "            }\n",
    "            break;\n",
    "        case OP_LOGSUMEXP:\n",
    "            ROWS {\n",
    "                float m, s = 0.0f;\n",
    "                x = ROW(x0, r);\n",
    "                MAX(m, w[3], x[c])\n",
    "                if (m - m == 0.0f) SUM(s, w[3], vexp(x[c] - m))\n",
    "                if (LID == 0) *ROW(out, r) = m - m == 0.0f \? m + vlog(s) : m;\n",
    "            }\n",
    "            break;\n",
    "        case OP_LAYERNORM:\n",
    "        case OP_LAYERNORM_HAT:\n",
    "        case OP_LAYERNORM_GRAD:\n",
    "            ROWS {\n",
    "                float m, s, mh, mx;\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                SUM(m, cols, x[c])\n",
    "                m = m / (float)cols;\n",
    "                SUM(s, cols, (x[c] - m) * (x[c] - m))\n",
    "                s = 1.0f / sqrt(s / (float)cols + 1e-5f);\n",
    "                if (op == OP_LAYERNORM) LANES(c, cols) y[c] = (x[c] - m) * s * x1.p[c] + x2.p[c];\n",
    "                else if (op == OP_LAYERNORM_HAT) LANES(c, cols) y[c] = (x[c] - m) * s;\n",
    "                else {\n",
    "                    gx = ROW(x2, r);\n",
    "                    SUM(mh, cols, x1.p[c] * gx[c])\n",
    "                    SUM(mx, cols, x1.p[c] * gx[c] * ((x[c] - m) * s))\n",
    "                    mh = mh / (float)cols;\n",
    "                    mx = mx / (float)cols;\n",
    "                    LANES(c, cols) y[c] = s * (x1.p[c] * gx[c] - mh - (x[c] - m) * s * mx);\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "\n",
    "        case OP_PAD_COLS:\n",
    "            ROWS {\n",
    "                __global const int *from = (__global const int *)ROW(x0, r);\n",
    "                __global int *to = (__global int *)ROW(out, r);\n",
    "                LANES(c, cols) to[c] = c >= I(0) && c < I(0) + w[3] \? from[c - I(0)] : 0;\n",
    "            }\n",
    "            break;\n",
    "        case OP_CONCAT:\n",
    "            ROWS {\n",
    "                copy_row(ROW(out, r), ROW(x0, r), w[3]);\n",
    "                copy_row(ROW(out, r) + w[3], ROW(x1, r), cols - w[3]);\n",
    "            }\n",
    "            break;\n",
    "        case OP_GATHER:\n",
    "            ROWS copy_row(ROW(out, r), ROW(x0, *(__global int *)ROW(x1, r)), cols);\n",
    "            break;\n",
    "        case OP_SEGMENT_GATHER:                       /* i: n, m                                   "
        "      */\n",
    "            ROWS copy_row(ROW(out, r), ROW(x0, r / I(1) * I(0) + ((__global int *)x1.p)[r % I(1)]),"
        " cols);\n",
    "            break;\n",
    "        case OP_SEGMENT_SUM:\n",
    "            ROWS {\n",
    "                __global const int *start = (__global const int *)x1.p, *which = (__global const in"
        "t *)x2.p;\n",
    "                int e, e0 = start[r % I(0)], e1 = start[r % I(0) + 1];\n",
    "                x = ROW(x0, r / I(0) * I(1));\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, cols) y[c] = 0.0f;\n",
    "                for (e = e0; e < e1; ++e) {\n",
    "                    gx = x + (size_t)which[e] * (size_t)x0.ld;\n",
    "                    LANES(c, cols) y[c] += gx[c];\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "\n",
    "        case OP_STENCIL:                              /* i: n, m; in: x, w, start, list            "
        "      */\n",
    "            ROWS {\n",
    "                __global const int *start = (__global const int *)x2.p;\n",
    "                __global const int *list = (__global const int *)view_of(page, w[14], w[15]).p;\n",
    "                int e, e0 = start[r % I(1)], e1 = start[r % I(1) + 1];\n",
    "                x = ROW(x0, r / I(1) * I(0));\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, cols) y[c] = 0.0f;\n",
    "                for (e = e0; e < e1; ++e) {\n",
    "                    __global const float *tap = x1.p + (size_t)list[2 * e + 1] * (size_t)x1.ld;\n",
    "                    gx = x + (size_t)list[2 * e] * (size_t)x0.ld;\n",
    "                    LANES(c, cols) y[c] += tap[I(2) \? 0 : c] * gx[c];\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "        case OP_STENCIL_GRAD:                         /* i: n, m, taps; in: gy, x, start, list     "
        "      */\n",
    "            ROWS {\n",
    "                __global const int *start = (__global const int *)x2.p;\n",
    "                __global const int *list = (__global const int *)view_of(page, w[14], w[15]).p;\n",
    "                int e, o, sample = r / I(2);\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, cols) {\n",
    "                    float sum = 0.0f;\n",
    "                    for (o = 0; o < I(1); ++o)\n",
    "                        for (e = start[o]; e < start[o + 1]; ++e)\n",
    "                            if (list[2 * e + 1] == r % I(2))\n",
    "                                sum += ROW(x0, sample * I(1) + o)[c] *\n",
    "                                       ROW(x1, sample * I(0) + list[2 * e])[c];\n",
    "                    y[c] = sum;\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "\n",
    "        case OP_PAIR_DISTANCE:                        /* i0 points; pairs (0,1) (0,2) .. (1,2) ..  "
        "      */\n",
    "            ROWS {\n",
    "                int a, b, j, d = w[3] / I(0), p = 0;\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                for (a = 0; a < I(0); ++a)\n",
    "                    for (b = a + 1; b < I(0); ++b, ++p) {\n",
    "                        float s = 0.0f;\n",
    "                        if (p % WG != LID) continue;\n",
    "                        for (j = 0; j < d; ++j) {\n",
    "                            const float u = x[a * d + j] - x[b * d + j];\n",
    "                            s += u * u;\n",
    "                        }\n",
    "                        y[p] = sqrt(s);\n",
    "                    }\n",
    "            }\n",
    "            break;\n",
    "        case OP_PAIR_DISTANCE_GRAD:                   /* a work-item gathers the pulls on a coordin"
        "ate   */\n",
    "            ROWS {\n",
    "                int np = I(0), d = cols / np;\n",
    "                __global const float *dist = ROW(x1, r), *pull = ROW(x2, r);\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, cols) {\n",
    "                    int a = c / d, j = c % d, b, p = a - 1;\n",
    "                    float s = 0.0f;\n",
    "                    for (b = 0; b < a; p += np - 2 - b, ++b)          /* pair (b, a)               "
        "      */\n",
    "                        s += dist[p] > 0.0f \? pull[p] / dist[p] * (x[c] - x[b * d + j]) : 0.0f;\n",
    "                    for (b = a + 1, p = a * (2 * np - a - 1) / 2; b < np; ++b, ++p)\n",
    "                        s += dist[p] > 0.0f \? pull[p] / dist[p] * (x[c] - x[b * d + j]) : 0.0f;\n",
    "                    y[c] = s;\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "        case OP_REMOVE_MEAN:\n",
    "            ROWS {\n",
    "                int np = I(0), d = cols / np, a;\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, d) {\n",
    "                    float m = 0.0f;\n",
    "                    for (a = 0; a < np; ++a) m += x[a * d + c];\n",
    "                    m /= (float)np;\n",
    "                    for (a = 0; a < np; ++a) y[a * d + c] = x[a * d + c] - m;\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "        case OP_SORT_COLS:                            /* a column's place is the number of those be"
        "fore it */\n",
    "            ROWS {\n",
    "                __global int *place = (__global int *)ROW(out2, r);\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, cols) {\n",
    "                    int key = sort_key(x[c]), rank = 0, j;\n",
    "                    for (j = 0; j < c; ++j) rank += sort_key(x[j]) >= key \? 1 : 0;\n",
    "                    for (j = c + 1; j < cols; ++j) rank += sort_key(x[j]) > key \? 1 : 0;\n",
    "                    y[rank] = x[c];\n",
    "                    place[rank] = c;\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "        case OP_UNSORT_COLS:\n",
    "            ROWS {\n",
    "                __global const int *place = (__global const int *)ROW(x1, r);\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                LANES(c, cols) y[place[c]] = x[c];\n",
    "            }\n",
    "            break;\n",
    "\n",
    "        case OP_NORMAL: {                             /* i: purpose, t, first row, iteration, seed "
        "      */\n",
    "            const int blocks = (cols + 3) / 4, all = (r1 - r0) * blocks;\n",
    "            const uint k0 = (uint)I(4), k1 = (uint)I(5);\n",
    "            uint w0[BLOCKS], w1[BLOCKS], w2[BLOCKS], w3[BLOCKS];\n",
    "            float z0[BLOCKS], z1[BLOCKS], z2[BLOCKS], z3[BLOCKS];\n",
    "            int b, j;\n",
    "            for (c = LID * BLOCKS; c < all; c += WG * BLOCKS) {\n",
    "                for (r = c / blocks, b = c % blocks, j = 0; j < BLOCKS; ++j) {\n",
    "                    w0[j] = (uint)(I(2) + r0 + r);\n",
    "                    w1[j] = (uint)I(1) << 16 | (uint)b;\n",
    "                    w2[j] = (uint)I(0) << 24;\n",
    "                    w3[j] = (uint)I(3);\n",
    "                    if (++b == blocks) b = 0, ++r;\n",
    "                }\n",
    "                philox_of(k0, k1, w0, w1, w2, w3);\n",
    "                normals_of(w0, w1, z0, z1);\n",
    "                normals_of(w2, w3, z2, z3);\n",
    "                for (r = c / blocks, b = c % blocks, j = 0; j < BLOCKS && c + j < all; ++j) {\n",
    "                    const int left = cols - 4 * b;\n",
    "                    y = ROW(out, r0 + r) + 4 * b;\n",
    "                    y[0] = z0[j];\n",
    "                    if (left > 1) y[1] = z1[j];\n",
    "                    if (left > 2) y[2] = z2[j];\n",
    "                    if (left > 3) y[3] = z3[j];\n",
    "                    if (++b == blocks) b = 0, ++r;\n",
    "                }\n",
    "            }\n",
    "            break;\n",
    "        }\n",
    "        case OP_PERMUTATION: {\n",
    "            uint4 c0 = (uint4)(0, (uint)I(1), (uint)I(0) << 24, (uint)I(3)), c1 = c0;\n",
    "            uint4 k0, k1;\n",
    "            uint most = (uint)I(7);\n",
    "            int half_bits = 1;\n",
    "            c1.x = 1;\n",
    "            k0 = philox((uint)I(4), (uint)I(5), c0);\n",
    "            k1 = philox((uint)I(4), (uint)I(5), c1);\n",
    "            while (half_bits < 15 && (1u << 2 * half_bits) < most) ++half_bits;\n",
    "            for (r = r0 + LID; r < r1; r += WG) {\n",
    "                uint v = (uint)I(6) + (uint)r;\n",
    "                do v = feistel(v, half_bits, k0, k1); while (v >= most);\n",
    "                *(__global uint *)ROW(out, r) = v;\n",
    "            }\n",
    "            break;\n",
    "        }\n",
    "        case OP_LIMIT_ROWS:\n",
    "            ROWS {\n",
    "                float most, s = 0.0f, scale = 1.0f;\n",
    "                x = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                MAX(most, cols, x[c] == x[c] \? fabs(x[c]) : 0.0f)\n",
    "                if (most > 0.0f) SUM(s, cols, (x[c] / most) * (x[c] / most))\n",
    "                if (most * sqrt(s) > F(0)) scale = F(0) / most / sqrt(s);\n",
    "                LANES(c, cols) y[c] = x[c] * scale;\n",
    "            }\n",
    "            break;\n",
    "        case OP_EIGEN: {                              /* i0: rows of a matrix                      "
        "      */\n",
    "            const int step = max(WG / ((I(0) + 1) / 2), 1);\n",
    "            for (r = r0; r < r1; r += step) eigen(I(0), r, min(r + step, r1), x0, out, out2, &turne"
        "d);\n",
    "            break;\n",
    "        }\n",
    "        case OP_SPHERE_TANGENT:\n",
    "            ROWS {\n",
    "                float d;\n",
    "                x = ROW(x1, r);\n",
    "                gx = ROW(x0, r);\n",
    "                y = ROW(out, r);\n",
    "                SUM(d, cols, gx[c] * x[c])\n",
    "                LANES(c, cols) y[c] = gx[c] - d * x[c];\n",
    "            }\n",
    "            break;\n",
    "        case OP_SPHERE_MOVE:\n",
    "            ROWS {\n",
    "                float s = 0.0f, q = 1.0f, len;\n",
    "                x = ROW(x0, r);\n",
    "                gx = x1.p \? ROW(x1, r) : x;\n",
    "                y = ROW(out, r);\n",
    "                if (x1.p) {\n",
    "                    SUM(len, cols, gx[c] * gx[c])\n",
    "                    len = sqrt(len);\n",
    "                    sincos_of(len, &s, &q);\n",
    "                    s = len > 1e-12f \? s / len : 1.0f;\n",
    "                }\n",
    "                SUM(len, cols, (q * x[c] + s * gx[c]) * (q * x[c] + s * gx[c]))\n",
    "                len = sqrt(len);\n",
    "                LANES(c, cols) y[c] = (q * x[c] + s * gx[c]) / len;\n",
    "            }\n",
    "            break;\n",
    "        case OP_CHECK: {                              /* out: the least bad row so far; vgs_flag re"
        "ads it */\n",
    "            int bad = 0x7FFFFFFF;\n",
    "            ROWS {\n",
    "                x = ROW(x0, r);\n",
    "                LANES(c, w[3])\n",
    "                    if (I(3) \? x[c] < -FLT_MAX : !(x[c] - x[c] == 0.0f)) bad = min(bad, r);\n",
    "            }\n",
    "            if (bad != 0x7FFFFFFF) atomic_min((__global int *)out.p, bad);\n",
    "            break;\n",
    "        }\n",
    "        }\n",
    "        SYNC();\n",
    "    }\n",
    "}\n",
    "\n",
    "/* After the launches of a list: the first check that found something sets the flag {1, row, step, "
        "what} and\n",
    "   all places are made ready for the next. A flag that was set before stays. */\n",
    "KERNEL vgs_flag(HEAP, const calls list, int n)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    int k;\n",
    "    if (LID) return;\n",
    "    for (k = 0; k < n; ++k) {\n",
    "        const int *w = list.w + k * VGS_WORDS;\n",
    "        __global int *row = (__global int *)view_of(page, w[4], w[5]).p;\n",
    "        __global int *flag = (__global int *)view_of(page, w[10], w[11]).p;\n",
    "        if (*row != 0x7FFFFFFF && !flag[0]) {\n",
    "            flag[1] = *row + I(2);\n",
    "            flag[2] = I(0);\n",
    "            flag[3] = I(1);\n",
    "            flag[0] = 1;\n",
    "        }\n",
    "        *row = 0x7FFFFFFF;\n",
    "    }\n",
    "}\n",
    NULL
};
static const char *const vgs_cl__src_whole[] = {
    "#line 1 \"kernels/whole.cl\"\n",
    "/* Ops that need a whole tensor at once. Every sum has a fixed order, in two floats where vgs.h use"
        "s double.\n",
    "   */\n",
    "\n",
    "#if WG >= 16\n",
    "#  define STRIP 16                                    /* columns of a group: rows go to WG / 16 lan"
        "es    */\n",
    "#else\n",
    "#  define STRIP 64                                    /* one after the other, in vectors           "
        "      */\n",
    "#endif\n",
    "\n",
    "/* out[t,:] = the sum of the rows of x whose idx is t; if idx is absent of all rows, divided by the"
        "m if mean.\n",
    "   Group (strip of columns, t). */\n",
    "KERNEL vgs_sum_rows(HEAP, int2 x_at, int2 idx_at, int2 out_at, int rows, int cols, int mean)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    view x = view_of(page, x_at.x, x_at.y), idx = view_of(page, idx_at.x, idx_at.y);\n",
    "    view out = view_of(page, out_at.x, out_at.y);\n",
    "    int t = GROUP(1), c0 = GROUP(0) * STRIP, n = min(STRIP, cols - c0), r, c;\n",
    "    __global float *y = ROW(out, t) + c0;\n",
    "    float over = mean && rows \? (float)rows : 1.0f;\n",
    "#if WG >= 16\n",
    "    __local float hi[WG], lo[WG];\n",
    "    float h = 0.0f, l = 0.0f;\n",
    "    x.p += c0;\n",
    "    c = LID % STRIP;\n",
    "    for (r = LID / STRIP; r < rows; r += WG / STRIP)\n",
    "        if (c < n && (!idx.p || *(__global int *)ROW(idx, r) == t)) ADD2(h, l, ROW(x, r)[c])\n",
    "    hi[LID] = h;\n",
    "    lo[LID] = l;\n",
    "    SYNC();\n",
    "    if (LID < n) {\n",
    "        for (r = LID + STRIP; r < WG; r += STRIP) {\n",
    "            ADD2(h, l, hi[r])\n",
    "            l += lo[r];\n",
    "        }\n",
    "        y[LID] = (h + l) / over;\n",
    "    }\n",
    "#else\n",
    "    x.p += c0;\n",
    "    if (LID == 0) {\n",
    "        float hi[STRIP], lo[STRIP];\n",
    "        for (c = 0; c < STRIP; ++c) hi[c] = lo[c] = 0.0f;\n",
    "        for (r = 0; r < rows; ++r) {\n",
    "            __global const float *p = ROW(x, r);\n",
    "            if (idx.p && *(__global int *)ROW(idx, r) != t) continue;\n",
    "            if (n == STRIP) for (c = 0; c < STRIP; ++c) ADD2(hi[c], lo[c], p[c])\n",
    "            else for (c = 0; c < n; ++c) ADD2(hi[c], lo[c], p[c])\n",
    "        }\n",
    "        for (c = 0; c < n; ++c) y[c] = (hi[c] + lo[c]) / over;\n",
    "    }\n",
    "#endif\n",
    "}\n",
    "\n",
    "/* The squared norm: 256 groups leave two floats each, vgs_squares_end adds them in order. */\n",
    "KERNEL vgs_squares(HEAP, int2 x_at, int2 part_at, int n)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __global const float *x = view_of(page, x_at.x, x_at.y).p;\n",
    "    __global float *part = view_of(page, part_at.x, part_at.y).p + 2 * GROUP(0);\n",
    "    int each = (n + 255) / 256, first = min(GROUP(0) * each, n), end = min(first + each, n), c, j;\n",
    "#if WG > 1\n",
    "    __local float hi[WG], lo[WG];\n",
    "    float h = 0.0f, l = 0.0f;\n",
    "    for (c = first + LID; c < end; c += WG) ADD2(h, l, x[c] * x[c])\n",
    "    hi[LID] = h;\n",
    "    lo[LID] = l;\n",
    "    SYNC();\n",
    "    if (LID == 0) {\n",
    "        for (j = 1; j < WG; ++j) {\n",
    "            ADD2(h, l, hi[j])\n",
    "            l += lo[j];\n",
    "        }\n",
    "        part[0] = h;\n",
    "        part[1] = l;\n",
    "    }\n",
    "#else\n",
    "    float hi[16], lo[16];\n",
    "    for (j = 0; j < 16; ++j) hi[j] = lo[j] = 0.0f;\n",
    "    for (c = first; c + 16 <= end; c += 16) for (j = 0; j < 16; ++j) ADD2(hi[j], lo[j], x[c + j] * "
        "x[c + j])\n",
    "    for (j = 0; j < end - c; ++j) ADD2(hi[j], lo[j], x[c + j] * x[c + j])\n",
    "    for (j = 1; j < 16; ++j) {\n",
    "        ADD2(hi[0], lo[0], hi[j])\n",
    "        lo[0] += lo[j];\n",
    "    }\n",
    "    part[0] = hi[0];\n",
    "    part[1] = lo[0];\n",
    "#endif\n",
    "}\n",
    "KERNEL vgs_squares_end(HEAP, int2 part_at, int2 out_at)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __global const float *part = view_of(page, part_at.x, part_at.y).p;\n",
    "    float h = 0.0f, l = 0.0f;\n",
    "    int j;\n",
    "    if (LID) return;\n",
    "    for (j = 0; j < 256; ++j) {\n",
    "        ADD2(h, l, part[2 * j])\n",
    "        l += part[2 * j + 1];\n",
    "    }\n",
    "    *view_of(page, out_at.x, out_at.y).p = h + l;\n",
    "}\n",
    "\n",
    "/* ---- updates of parameters; a set flag stops them ----------------------------------------------"
        "------ */\n",
    "\n",
    "typedef struct adam_args { float lr, b1, b2, eps, vs, limit, least, scale; } adam_args;\n",
    "\n",
    "KERNEL vgs_adam(HEAP, int2 p_at, int2 g_at, int2 m_at, int2 v_at, int2 norm_at, int2 flag_at,\n",
    "                const adam_args f, int n, int each)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __global float *p = view_of(page, p_at.x, p_at.y).p, *m = view_of(page, m_at.x, m_at.y).p;\n",
    "    __global float *v = view_of(page, v_at.x, v_at.y).p;\n",
    "    __global const float *g = view_of(page, g_at.x, g_at.y).p, *norm = view_of(page, norm_at.x, nor"
        "m_at.y).p;\n",
    "    __global const int *flag = (__global const int *)view_of(page, flag_at.x, flag_at.y).p;\n",
    "    int first = GROUP(0) * each, c;\n",
    "    float scale = f.scale;\n",
    "    if (*flag) return;\n",
    "    if (norm && f.limit > 0.0f) {\n",
    "        float s = f.limit / (sqrt(*norm) + 1e-6f);\n",
    "        scale *= s < 1.0f \? s : 1.0f;\n",
    "    }\n",
    "    n = min(n - first, each);\n",
    "    p += first;\n",
    "    g += first;\n",
    "    m += first;\n",
    "    v += first;\n",
    "    LANES(c, n) {\n",
    "        const float gc = g[c] * scale, mc = f.b1 * m[c] + (1.0f - f.b1) * gc;\n",
    "        const float vc = f.b2 * v[c] + (1.0f - f.b2) * gc * gc;\n",
    "        const float pc = p[c] - f.lr * mc / (sqrt(vc) * f.vs + f.eps);\n",
    "        m[c] = fabs(mc) < 1e-30f \? 0.0f : mc;\n",
    "        v[c] = vc < FLT_MIN \? 0.0f : vc;\n",
    "        p[c] = f.least > 0.0f && pc < f.least \? f.least : pc;\n",
    "    }\n",
    "}\n",
    "\n",
    "KERNEL vgs_ema(HEAP, int2 to_at, int2 from_at, int2 flag_at, float keep, int n, int each)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __global float *d = view_of(page, to_at.x, to_at.y).p + GROUP(0) * each;\n",
    "    __global const float *s = view_of(page, from_at.x, from_at.y).p + GROUP(0) * each;\n",
    "    int c;\n",
    "    if (*(__global const int *)view_of(page, flag_at.x, flag_at.y).p) return;\n",
    "    n = min(n - GROUP(0) * each, each);\n",
    "    LANES(c, n) d[c] = keep * d[c] + (1.0f - keep) * s[c];\n",
    "}\n",
    "\n",
    "/* ---- systematic resampling with truncated weights, by one group --------------------------------"
        "------ */\n",
    "\n",
    "typedef struct two { float hi, lo; } two;\n",
    "\n",
    "inline float weight_of(float x, float top, float cap)\n",
    "{\n",
    "    float w = vexp(x - top);\n",
    "    return w < cap \? w : w >= cap \? cap : 0.0f;\n",
    "}\n",
    "inline two two_sum(two a, two b)\n",
    "{\n",
    "    two s;\n",
    "    float t = a.lo + b.lo, b_;\n",
    "    s.hi = a.hi + b.hi;\n",
    "    b_ = s.hi - a.hi;\n",
    "    t += (a.hi - (s.hi - b_)) + (b.hi - b_);\n",
    "    b_ = s.hi + t;\n",
    "    s.lo = t - (b_ - s.hi);\n",
    "    s.hi = b_;\n",
    "    return s;\n",
    "}\n",
    "inline bool two_less_equal(two a, two b) { return a.hi < b.hi || (a.hi == b.hi && a.lo <= b.lo); }\n",
    "inline two two_product(float a, float b)              /* exactly, by halves of 12 bits             "
        "      */\n",
    "{\n",
    "    two p;\n",
    "    float ta = a * 4097.0f, ah = ta - (ta - a), al = a - ah;\n",
    "    float tb = b * 4097.0f, bh = tb - (tb - b), bl = b - bh;\n",
    "    p.hi = a * b;\n",
    "    p.lo = ((ah * bh - p.hi) + ah * bl + al * bh) + al * bl;\n",
    "    return p;\n",
    "}\n",
    "inline two two_scale(two s, float f)                  /* s f                                       "
        "      */\n",
    "{\n",
    "    two p = two_product(s.hi, f), q = { s.lo * f, 0.0f };\n",
    "    return two_sum(p, q);\n",
    "}\n",
    "inline two two_over(two a, float b)                   /* a / b                                     "
        "      */\n",
    "{\n",
    "    two q = { a.hi / b, 0.0f }, p = two_product(a.hi / b, b), d;\n",
    "    p.hi = -p.hi;\n",
    "    p.lo = -p.lo;\n",
    "    d = two_sum(a, p);\n",
    "    p.hi = (d.hi + d.lo) / b;\n",
    "    p.lo = 0.0f;\n",
    "    return two_sum(q, p);\n",
    "}\n",
    "\n",
    "/* A lane sums its own stretch of the weights; sum[l] becomes what lies before lane l, sum[WG] all."
        " */\n",
    "void sum_weights(view x, int first, int end, float top, float cap, __local two *sum)\n",
    "{\n",
    "    two mine = { 0.0f, 0.0f }, all = mine, w = mine;\n",
    "    int j;\n",
    "    for (j = first; j < end; ++j) {\n",
    "        w.hi = weight_of(*ROW(x, j), top, cap);\n",
    "        mine = two_sum(mine, w);\n",
    "    }\n",
    "    SYNC();\n",
    "    sum[LID] = mine;\n",
    "    SYNC();\n",
    "    if (LID == 0) {\n",
    "        for (j = 0; j < WG; ++j) {\n",
    "            w = sum[j];\n",
    "            sum[j] = all;\n",
    "            all = two_sum(all, w);\n",
    "        }\n",
    "        sum[WG] = all;\n",
    "    }\n",
    "    SYNC();\n",
    "}\n",
    "\n",
    "KERNEL vgs_resample(HEAP, int2 x_at, int2 out_at, int m, int rows, uint4 counter, uint2 key)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __local two sum[WG + 1];\n",
    "    view x = view_of(page, x_at.x, x_at.y), out = view_of(page, out_at.x, out_at.y);\n",
    "    int each = (m + WG - 1) / WG, first = min(LID * each, m), end = min(first + each, m), j, r, c;\n",
    "    float share = sqrt((float)m) / (float)m, top, cap = 1.0f;\n",
    "    float u = (float)(philox(key.x, key.y, counter).x >> 8) / 16777216.0f;\n",
    "    two below, s;\n",
    "    MAX(top, m, *ROW(x, c) <= FLT_MAX \? fmax(*ROW(x, c), -FLT_MAX) : -FLT_MAX)\n",
    "    sum_weights(x, first, end, top, cap, sum);\n",
    "    for (j = 0; j < 16; ++j) {\n",
    "        s = two_scale(sum[WG], share);\n",
    "        if (!(cap > s.hi || (cap == s.hi && s.lo < 0.0f))) break;\n",
    "        cap = s.hi + s.lo;\n",
    "        sum_weights(x, first, end, top, cap, sum);\n",
    "    }\n",
    "    below = sum[LID];\n",
    "    r = 0;\n",
    "    for (j = first; j < end; ++j) {                   /* rows whose place lies in what j adds      "
        "      */\n",
    "        two w = { weight_of(*ROW(x, j), top, cap), 0.0f }, up = two_sum(below, w);\n",
    "        for (; r < rows; ++r) {\n",
    "            two at = { (float)r, 0.0f }, part = { u, 0.0f };\n",
    "            at = two_sum(at, part);\n",
    "            at = two_scale(two_over(at, (float)rows), sum[WG].hi);\n",
    "            part.hi = sum[WG].lo * (((float)r + u) / (float)rows);\n",
    "            at = two_sum(at, part);\n",
    "            if (two_less_equal(up, at) && j < m - 1) break;\n",
    "            if (j > 0 && !two_less_equal(below, at)) continue;        /* an earlier lane's         "
        "      */\n",
    "            *(__global int *)ROW(out, r) = j;\n",
    "        }\n",
    "        below = up;\n",
    "    }\n",
    "}\n",
    NULL
};
static const char *const vgs_cl__src_gemm[] = {
    "#line 1 \"kernels/gemm.cl\"\n",
    "/* C[m,n] = act(sum_k A(i,k) B(k,j) + bias[r,j]), r = idx \? idx[i] : 0. Each element of a product "
        "is one chain\n",
    "   of additions over k, whatever its place. form: 0 NT (B is [n,k]), 1 NN, 2 TN (A is [k,m]). */\n",
    "\n",
    "#ifdef VGS_FMA\n",
    "#  define MADD(a, b, c) fma(a, b, c)\n",
    "#else\n",
    "#  define MADD(a, b, c) ((a) * (b) + (c))\n",
    "#endif\n",
    "\n",
    "typedef struct product { int m, n, k, form, act, tiles, rows; float f0, f1; } product;\n",
    "\n",
    "inline float act_of(float a, const product q)\n",
    "{\n",
    "    const float f0 = q.f0, f1 = q.f1;\n",
    "#define ACT(act, operands, expr) case act: return (expr);\n",
    "    switch (q.act) {\n",
    "    ACTS(ACT)\n",
    "    default: return a;\n",
    "    }\n",
    "}\n",
    "\n",
    "/* ---- tiles of any device: 4 x 4 elements a work-item, operands through local memory ------------"
        "------ */\n",
    "\n",
    "#if WG >= 256\n",
    "#  define LX 16\n",
    "#elif WG >= 64\n",
    "#  define LX 8\n",
    "#elif WG >= 16\n",
    "#  define LX 4\n",
    "#else\n",
    "#  define LX 1\n",
    "#endif\n",
    "#define LY (WG / LX)\n",
    "#define TX (4 * LX)\n",
    "#define TY (4 * LY)\n",
    "#define TK 16\n",
    "\n",
    "KERNEL vgs_tile(HEAP, int2 a_at, int2 b_at, int2 bias_at, int2 idx_at, int2 c_at, const product q)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    __local float sa[TK * (TY + 1)], sb[TK * (TX + 1)];\n",
    "    view a = view_of(page, a_at.x, a_at.y), b = view_of(page, b_at.x, b_at.y);\n",
    "    view bias = view_of(page, bias_at.x, bias_at.y), idx = view_of(page, idx_at.x, idx_at.y);\n",
    "    view out = view_of(page, c_at.x, c_at.y);\n",
    "    int i0 = GROUP(1) * TY, j0 = GROUP(0) * TX, x = LID % LX, y = LID / LX, k0, k, e, i, j;\n",
    "    float acc[4][4];\n",
    "    for (i = 0; i < 4; ++i) for (j = 0; j < 4; ++j) acc[i][j] = 0.0f;\n",
    "    for (k0 = 0; k0 < q.k; k0 += TK) {\n",
    "        SYNC();\n",
    "        for (e = LID; e < TK * TY; e += WG) {         /* neighbours read neighbours in memory      "
        "      */\n",
    "            int kk = q.form == 2 \? e / TY : e % TK, ii = q.form == 2 \? e % TY : e / TK;\n",
    "            int gi = i0 + ii, gk = k0 + kk;\n",
    "            float v = 0.0f;\n",
    "            if (gi < q.m && gk < q.k) v = q.form == 2 \? ROW(a, gk)[gi] : ROW(a, gi)[gk];\n",
    "            sa[kk * (TY + 1) + ii] = v;\n",
    "        }\n",
    "        for (e = LID; e < TK * TX; e += WG) {\n",
    "            int kk = q.form == 0 \? e % TK : e / TX, jj = q.form == 0 \? e / TK : e % TX;\n",
    "            int gj = j0 + jj, gk = k0 + kk;\n",
    "            float v = 0.0f;\n",
    "            if (gj < q.n && gk < q.k) v = q.form == 0 \? ROW(b, gj)[gk] : ROW(b, gk)[gj];\n",
    "            sb[kk * (TX + 1) + jj] = v;\n",
    "        }\n",
    "        SYNC();\n",
    "        for (k = 0; k < TK; ++k)\n",
    "            for (i = 0; i < 4; ++i)\n",
    "                for (j = 0; j < 4; ++j)\n",
    "                    acc[i][j] = MADD(sa[k * (TY + 1) + y + i * LY], sb[k * (TX + 1) + x + j * LX], "
        "acc[i][j]);\n",
    "    }\n",
    "    for (i = 0; i < 4; ++i) {\n",
    "        int gi = i0 + y + i * LY;\n",
    "        __global const float *from = bias.p;\n",
    "        if (gi >= q.m) continue;\n",
    "        if (idx.p) from = ROW(bias, *(__global int *)ROW(idx, gi));\n",
    "        for (j = 0; j < 4; ++j) {\n",
    "            int gj = j0 + x + j * LX;\n",
    "            if (gj < q.n) ROW(out, gi)[gj] = act_of(acc[i][j] + (from \? from[gj] : 0.0f), q);\n",
    "        }\n",
    "    }\n",
    "}\n",
    "\n",
    "/* What CLBlast's products lack: out = act(out + bias). Group: `each` rows. */\n",
    "KERNEL vgs_bias_act(HEAP, int2 bias_at, int2 idx_at, int2 c_at, const product q, int each)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    view bias = view_of(page, bias_at.x, bias_at.y), idx = view_of(page, idx_at.x, idx_at.y);\n",
    "    view out = view_of(page, c_at.x, c_at.y);\n",
    "    int r, c;\n",
    "    for (r = GROUP(0) * each; r < min((GROUP(0) + 1) * each, q.m); ++r) {\n",
    "        __global const float *from = bias.p;\n",
    "        __global float *y = ROW(out, r);\n",
    "        if (idx.p) from = ROW(bias, *(__global int *)ROW(idx, r));\n",
    "        LANES(c, q.n) y[c] = act_of(y[c] + (from \? from[c] : 0.0f), q);\n",
    "    }\n",
    "}\n",
    "\n",
    "#if WG == 1\n",
    "/* ---- tiles of a CPU: a work-item has up to 24 x 128 elements, rows of B in vectors of 16 -------"
        "-------\n",
    "   With AVX-512 the registers hold the sums of 8 x 48; elsewhere of 4 x 16, one such part after the"
        " other. */\n",
    "\n",
    "#define TALL_ROWS 24\n",
    "#define TALL_COLS 128\n",
    "\n",
    "/* B in panels of 16 columns, [ceil(n/16)][k][16], zeros beyond n. Group: panel. */\n",
    "KERNEL vgs_pack(HEAP, int2 b_at, int2 to_at, int n, int k, int transposed)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    view b = view_of(page, b_at.x, b_at.y);\n",
    "    int j0 = GROUP(0) * 16, w = min(16, n - j0), kk, i, j;\n",
    "    __global float *to = view_of(page, to_at.x, to_at.y).p + (size_t)j0 * (size_t)k;\n",
    "    if (!transposed) {\n",
    "        for (kk = 0; kk < k; ++kk, to += 16) {\n",
    "            __global const float *p = ROW(b, kk) + j0;\n",
    "            if (w == 16) vstore16(vload16(0, p), 0, to);\n",
    "            else for (j = 0; j < 16; ++j) to[j] = j < w \? p[j] : 0.0f;\n",
    "        }\n",
    "        return;\n",
    "    }\n",
    "    for (kk = 0; kk < k; kk += 16) {\n",
    "        float t[16][16];\n",
    "        int deep = min(16, k - kk);\n",
    "        for (j = 0; j < 16; ++j) {\n",
    "            __global const float *p = ROW(b, j0 + min(j, w - 1)) + kk;\n",
    "            if (deep == 16) for (i = 0; i < 16; ++i) t[i][j] = p[i];\n",
    "            else for (i = 0; i < deep; ++i) t[i][j] = p[i];\n",
    "        }\n",
    "        for (i = 0; i < deep; ++i)\n",
    "            for (j = 0; j < 16; ++j) to[(kk + i) * 16 + j] = j < w \? t[i][j] : 0.0f;\n",
    "    }\n",
    "}\n",
    "\n",
    "#define A_ROW(i) SPACE const float *a##i = a + (size_t)min(i, last) * ai;\n",
    "#ifndef __AVX512F__\n",
    "#define EACH4(X) X(0) X(1) X(2) X(3)\n",
    "#define FETCH(i)  float16 u##i = vload16(0, t + TALL_COLS * i);\n",
    "#define STEP(i)   u##i = MADD((float16)a##i[at], row, u##i);\n",
    "#define KEEP(i)   vstore16(u##i, 0, t + TALL_COLS * i);\n",
    "/* t [4,16] += rows of A, of which `last` is the last, times `depth` rows of a panel. */\n",
    "#define TALL_PANEL(name) \\\n",
    "    inline void name(SPACE const float *a, int last, size_t ai, size_t ak, __global const float *b,"
        " \\\n",
    "                     int depth, float *t) \\\n",
    "    { \\\n",
    "        size_t at = 0; \\\n",
    "        int k; \\\n",
    "        EACH4(A_ROW) \\\n",
    "        EACH4(FETCH) \\\n",
    "        for (k = 0; k < depth; ++k, b += 16, at += ak) { \\\n",
    "            const float16 row = vload16(0, b); \\\n",
    "            EACH4(STEP) \\\n",
    "        } \\\n",
    "        EACH4(KEEP) \\\n",
    "    }\n",
    "#define SPACE __global\n",
    "TALL_PANEL(tall_panel)\n",
    "#undef SPACE\n",
    "#define SPACE\n",
    "TALL_PANEL(tall_near)\n",
    "\n",
    "/* Rows of A^T are columns in memory, whose elements may all fall into the same few lines of the L1"
        " cache:\n",
    "   a part of them at a time is copied, and used for all panels. */\n",
    "#define TALL_DEEP 128\n",
    "inline void tall_turned(__global const float *a, int rows, size_t ld, __global const float *b, int "
        "panels,\n",
    "                        int depth, float *t)\n",
    "{\n",
    "    float part[TALL_DEEP * TALL_ROWS];\n",
    "    int k0, k, i, j;\n",
    "    for (k0 = 0; k0 < depth; k0 += TALL_DEEP, b += 16 * TALL_DEEP) {\n",
    "        int deep = min(TALL_DEEP, depth - k0);\n",
    "        for (k = 0; k < deep; ++k, a += ld)\n",
    "            if (rows == TALL_ROWS) {\n",
    "                vstore16(vload16(0, a), 0, part + TALL_ROWS * k);\n",
    "                vstore8(vload8(2, a), 2, part + TALL_ROWS * k);\n",
    "            } else for (i = 0; i < rows; ++i) part[TALL_ROWS * k + i] = a[i];\n",
    "        for (j = 0; j < panels; ++j)\n",
    "            for (i = 0; i < rows; i += 4)\n",
    "                tall_near(part + i, rows - 1 - i, 1, TALL_ROWS, b + 16 * (size_t)j * (size_t)depth,"
        " deep,\n",
    "                          t + TALL_COLS * i + 16 * j);\n",
    "    }\n",
    "}\n",
    "\n",
    "inline void tall_product(__global const float *a, int rows, size_t ld, int form, __global const flo"
        "at *b,\n",
    "                         int panels, int depth, float *t)\n",
    "{\n",
    "    int i, j;\n",
    "    for (i = 0; i < (rows + 3) / 4 * 4; ++i)\n",
    "        for (j = 0; j < 16 * panels; ++j) t[TALL_COLS * i + j] = 0.0f;\n",
    "    if (form == 2) tall_turned(a, rows, ld, b, panels, depth, t);\n",
    "    else for (j = 0; j < panels; ++j)\n",
    "        for (i = 0; i < rows; i += 4)\n",
    "            tall_panel(a + (size_t)i * ld, rows - 1 - i, ld, 1, b + 16 * (size_t)j * (size_t)depth,"
        " depth,\n",
    "                       t + TALL_COLS * i + 16 * j);\n",
    "}\n",
    "#else\n",
    "#define SPACE __global\n",
    "#define EACH8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)\n",
    "#define ZERO(i)  float16 u##i = 0.0f, v##i = 0.0f, w##i = 0.0f;\n",
    "#define STEP3(i) { const float16 s = a##i[at]; \\\n",
    "                   u##i = MADD(s, b0, u##i); v##i = MADD(s, b1, v##i); w##i = MADD(s, b2, w##i); }\n",
    "#define STEP2(i) { const float16 s = a##i[at]; u##i = MADD(s, b0, u##i); v##i = MADD(s, b1, v##i); "
        "}\n",
    "#define STEP1(i) { const float16 s = a##i[at]; u##i = MADD(s, b0, u##i); }\n",
    "#define KEEP(i)  vstore16(u##i, 0, t + TALL_COLS * i); \\\n",
    "                 if (panels > 1) vstore16(v##i, 0, t + TALL_COLS * i + 16); \\\n",
    "                 if (panels > 2) vstore16(w##i, 0, t + TALL_COLS * i + 32);\n",
    "\n",
    "/* t [8,48] = rows of A, of which `last` is the last, times three panels at most. */\n",
    "inline void tall_panels(__global const float *a, int last, size_t ai, size_t ak, __global const flo"
        "at *b,\n",
    "                        int panels, int depth, float *t)\n",
    "{\n",
    "    __global const float *bb = b + 16 * (size_t)depth, *bbb = bb + 16 * (size_t)depth;\n",
    "    size_t at = 0;\n",
    "    float16 b0, b1, b2;\n",
    "    int k;\n",
    "    EACH8(A_ROW)\n",
    "    EACH8(ZERO)\n",
    "    if (panels > 2)\n",
    "        for (k = 0; k < depth; ++k, at += ak, b += 16, bb += 16, bbb += 16) {\n",
    "            b0 = vload16(0, b);\n",
    "            b1 = vload16(0, bb);\n",
    "            b2 = vload16(0, bbb);\n",
    "            EACH8(STEP3)\n",
    "        }\n",
    "    else if (panels == 2)\n",
    "        for (k = 0; k < depth; ++k, at += ak, b += 16, bb += 16) {\n",
    "            b0 = vload16(0, b);\n",
    "            b1 = vload16(0, bb);\n",
    "            EACH8(STEP2)\n",
    "        }\n",
    "    else\n",
    "        for (k = 0; k < depth; ++k, at += ak, b += 16) {\n",
    "            b0 = vload16(0, b);\n",
    "            EACH8(STEP1)\n",
    "        }\n",
    "    EACH8(KEEP)\n",
    "}\n",
    "\n",
    "inline void tall_product(__global const float *a, int rows, size_t ld, int form, __global const flo"
        "at *b,\n",
    "                         int panels, int depth, float *t)\n",
    "{\n",
    "    size_t ai = form == 2 \? 1 : ld, ak = form == 2 \? ld : 1;\n",
    "    int i, j;\n",
    "    for (j = 0; j < panels; j += 3)\n",
    "        for (i = 0; i < rows; i += 8)\n",
    "            tall_panels(a + (size_t)i * ai, rows - 1 - i, ai, ak, b + 16 * (size_t)j * (size_t)dept"
        "h,\n",
    "                        panels - j, depth, t + TALL_COLS * i + 16 * j);\n",
    "}\n",
    "#endif\n",
    "\n",
    "#define LINE(expr) for (j = 0; j < n; ++j) { const float a = line[j]; y[j] = (expr); }\n",
    "#define ACT_LINE(act, operands, expr) case act: LINE(expr) break;\n",
    "\n",
    "/* Group (columns, rows): q.rows rows, at most TALL_ROWS; q.tiles tiles share the panels evenly. */"
        "\n",
    "KERNEL vgs_tall(HEAP, int2 a_at, int2 packed_at, int2 bias_at, int2 idx_at, int2 c_at, const produc"
        "t q)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    view a = view_of(page, a_at.x, a_at.y), bias = view_of(page, bias_at.x, bias_at.y);\n",
    "    view idx = view_of(page, idx_at.x, idx_at.y), out = view_of(page, c_at.x, c_at.y);\n",
    "    int panels = (q.n + 15) / 16, p0 = panels * GROUP(0) / q.tiles, p1 = panels * (GROUP(0) + 1) / "
        "q.tiles;\n",
    "    int i0 = GROUP(1) * q.rows, rows = min(q.rows, q.m - i0), n = min(q.n - 16 * p0, 16 * (p1 - p0)"
        "), i, j;\n",
    "    const float f0 = q.f0, f1 = q.f1;\n",
    "    float t[TALL_ROWS * TALL_COLS];\n",
    "    tall_product(q.form == 2 \? a.p + i0 : ROW(a, i0), rows, (size_t)a.ld, q.form,\n",
    "                 view_of(page, packed_at.x, packed_at.y).p + (size_t)(16 * p0) * (size_t)q.k, p1 - "
        "p0, q.k,\n",
    "                 t);\n",
    "    for (i = 0; i < rows; ++i) {\n",
    "        float *line = t + TALL_COLS * i;\n",
    "        __global float *y = ROW(out, i0 + i) + 16 * p0;\n",
    "        if (bias.p) {\n",
    "            int row = idx.p \? *(__global int *)ROW(idx, i0 + i) : 0;\n",
    "            __global const float *from = ROW(bias, row) + 16 * p0;\n",
    "            for (j = 0; j < n; ++j) line[j] += from[j];\n",
    "        }\n",
    "        switch (q.act) {\n",
    "        ACTS(ACT_LINE)\n",
    "        default: LINE(a) break;\n",
    "        }\n",
    "    }\n",
    "}\n",
    "#endif\n",
    NULL
};
/* END GENERATED KERNELS */

/* ==== state ========================================================================================== */

#define VGS_CL__KERNELS(X) \
    X(rows) X(flag) X(sum_rows) X(squares) X(squares_end) X(adam) X(ema) X(resample) X(tile) \
    X(bias_act) X(pack) X(tall)                  /* the last two: work_group 1                        */

enum {
#define VGS_CL__ID(name) VGS_CL__##name,
    VGS_CL__KERNELS(VGS_CL__ID)
#undef VGS_CL__ID
    VGS_CL__user, VGS_CL__clblast, VGS_CL__KERNEL_COUNT
};

enum { VGS_CL__PAGES = 8, VGS_CL__CALLS = 9, VGS_CL__WORDS = 24, VGS_CL__CHECKS = VGS_CL__CALLS,
       VGS_CL__EVENTS = 256, VGS_CL__PACKS = 64 };

/* A buffer is a range of a page; those of a page are a list in the order of their places. */
typedef struct vgs_cl__buffer {
    int page;
    size_t at, n;
    unsigned version;                            /* of its contents                                   */
    bool computed;                               /* ops write into it, not only updates of parameters */
    struct vgs_cl__buffer *next;
} vgs_cl__buffer;

typedef struct vgs_cl__page { cl_mem mem; size_t size; vgs_cl__buffer *first; } vgs_cl__page;

/* B of a product, packed for vgs_tall, while it is what it was. */
typedef struct vgs_cl__packed {
    const vgs_cl__buffer *of;
    vgs_cl__buffer *to;
    size_t offset;
    int rows, cols, ld, form;
    unsigned version;
} vgs_cl__packed;

/* An energy in OpenCL C; user of its vgs_energy. */
typedef struct vgs_cl__source {
    struct vgs_cl *cl;
    cl_program program;
    cl_kernel kernel;
    vgs_cl__buffer *x;                           /* x, e and g of its callback                        */
    int dim;
    struct vgs_cl__source *next;
} vgs_cl__source;

/* Ways to make a product, and the classes of shapes that are measured: form by size. */
enum { VGS_CL__BY_TALL, VGS_CL__BY_TILE, VGS_CL__BY_CLBLAST, VGS_CL__WAYS };
enum { VGS_CL__FEW_ROWS, VGS_CL__SMALL, VGS_CL__LARGE, VGS_CL__SIZES, VGS_CL__CLASSES = 3 * VGS_CL__SIZES };

typedef struct vgs_cl__list { cl_int w[VGS_CL__CALLS * VGS_CL__WORDS]; } vgs_cl__list;

/* A range of a page that a call touches, and how far apart its parts lie. */
typedef struct vgs_cl__range { int page; size_t first, end, part; } vgs_cl__range;

/* Calls that wait to go into one launch of vgs_rows: those of one group, of equal parts. */
typedef struct vgs_cl__pending {
    vgs_cl__list list;
    vgs_cl__range range[VGS_CL__CALLS * 6];      /* what they touch                                   */
    int n, group, parts, n_range;
    double part, whole;                          /* most elements of a part in one call; all elements */
    int per;                                     /* most rows of a part                               */
} vgs_cl__pending;

typedef struct vgs_cl {
    vgs_backend base;
    cl_context context;
    cl_device_id device;
    cl_command_queue queue;
    cl_program program;
    cl_kernel kernel[VGS_CL__KERNEL_COUNT];
    bool own, on_cpu, profiled;
    bool can[VGS_CL__WAYS], used_clblast;        /* ways that are there, and not found wrong          */
    unsigned char way[VGS_CL__CLASSES];
    uint64_t key;                                /* of source, options, device and driver             */
    int wg, units;
    size_t page_floats, most_alloc, memory;
    char name[200], *log;
    size_t log_size;
    vgs_cl__page page[VGS_CL__PAGES];
    vgs_cl__buffer *rows_bad, *parts;            /* checks; sums of squares                           */
    vgs_cl__packed packed[VGS_CL__PACKS];
    vgs_cl__buffer *volatile_packed;
    int n_packed, next_arg;
    cl_int arg_error;
    vgs_cl__pending pending;
    vgs_cl__list checks;
    int n_checks;
    vgs_cl__source *source;
    float *host;                                 /* rows of a C callback                              */
    size_t host_size;
    vgs_cl_counts count;
    struct { cl_event event; int kernel; } event[VGS_CL__EVENTS];
    int n_event;
    uint64_t launches[VGS_CL__KERNEL_COUNT];
    double seconds[VGS_CL__KERNEL_COUNT];
    vgs_status lost;                             /* the first failure of a command: later ones repeat it */
    vgs_error why;
} vgs_cl;

static vgs_cl *vgs_cl__of(const vgs_backend *b) { return (vgs_cl *)b->self; }

/* ==== errors ========================================================================================= */

static const char *vgs_cl__code(cl_int code)
{
    switch (code) {
    case -1: return "CL_DEVICE_NOT_FOUND";           case -2: return "CL_DEVICE_NOT_AVAILABLE";
    case -3: return "CL_COMPILER_NOT_AVAILABLE";     case -4: return "CL_MEM_OBJECT_ALLOCATION_FAILURE";
    case -5: return "CL_OUT_OF_RESOURCES";           case -6: return "CL_OUT_OF_HOST_MEMORY";
    case -11: return "CL_BUILD_PROGRAM_FAILURE";     case -30: return "CL_INVALID_VALUE";
    case -33: return "CL_INVALID_DEVICE";            case -34: return "CL_INVALID_CONTEXT";
    case -36: return "CL_INVALID_COMMAND_QUEUE";     case -38: return "CL_INVALID_MEM_OBJECT";
    case -42: return "CL_INVALID_BINARY";            case -46: return "CL_INVALID_KERNEL_NAME";
    case -48: return "CL_INVALID_KERNEL";            case -49: return "CL_INVALID_ARG_INDEX";
    case -51: return "CL_INVALID_ARG_SIZE";          case -52: return "CL_INVALID_KERNEL_ARGS";
    case -54: return "CL_INVALID_WORK_GROUP_SIZE";   case -55: return "CL_INVALID_WORK_ITEM_SIZE";
    case -61: return "CL_INVALID_BUFFER_SIZE";       case -1001: return "no platform";
    default: return "error";
    }
}

/* A command failed: the device is not used again. */
static vgs_status vgs_cl__lose(vgs_cl *cl, const char *what, cl_int code, vgs_error *err)
{
    if (!cl->lost)
        cl->lost = vgs__fail(&cl->why, VGS_E_DEVICE, "OpenCL: %s on %.80s: %s (%d)", what, cl->name,
                             vgs_cl__code(code), (int)code);
    return vgs__fail(err, cl->lost, "%s", cl->why.msg);
}

static vgs_status vgs_cl__lost(const vgs_cl *cl, vgs_error *err)
{
    return vgs__fail(err, cl->lost, "%s", cl->why.msg);
}

/* ==== devices ======================================================================================== */

enum { VGS_CL__MOST_DEVICES = 64 };

static void vgs_cl__describe(cl_device_id d, char text[200])
{
    char name[80] = "", vendor[60] = "", driver[50] = "";
    clGetDeviceInfo(d, CL_DEVICE_NAME, sizeof name - 1, name, NULL);
    clGetDeviceInfo(d, CL_DEVICE_VENDOR, sizeof vendor - 1, vendor, NULL);
    clGetDeviceInfo(d, CL_DRIVER_VERSION, sizeof driver - 1, driver, NULL);
    snprintf(text, 200, "%s (%s; %s)", name[0] ? name : "device", vendor, driver);
}

/* All devices of all platforms; returns how many, -1 with err if there are none. */
static int vgs_cl__devices(cl_device_id *d, vgs_error *err)
{
    cl_platform_id platform[16];
    cl_uint n = 0, got = 0, i;
    int all = 0;
    cl_int e = clGetPlatformIDs(16, platform, &n);
    if (e != CL_SUCCESS || n == 0) {
        vgs__fail(err, VGS_E_DEVICE, "OpenCL: no platform: no driver is installed, or the loader does not "
                  "find it (on Linux it looks in /etc/OpenCL/vendors)");
        return -1;
    }
    for (i = 0; i < (n < 16 ? n : 16) && all < VGS_CL__MOST_DEVICES; ++i) {
        const cl_uint room = (cl_uint)(VGS_CL__MOST_DEVICES - all);
        e = clGetDeviceIDs(platform[i], CL_DEVICE_TYPE_ALL, room, d + all, &got);
        if (e == CL_SUCCESS) all += (int)(got < room ? got : room);
    }
    if (!all) vgs__fail(err, VGS_E_DEVICE, "OpenCL: %u platforms, but no device", (unsigned)n);
    return all ? all : -1;
}

VGS__DEF bool vgs_cl_list(int i, char text[200], vgs_error *err)
{
    cl_device_id d[VGS_CL__MOST_DEVICES];
    int n = vgs_cl__devices(d, err);
    if (i < 0 || i >= n) return false;
    vgs_cl__describe(d[i], text);
    return true;
}

/* What a device promises: GPUs before others, then units times clock. */
static double vgs_cl__promise(cl_device_id d)
{
    cl_device_type type = 0;
    cl_uint units = 0, clock = 0;
    clGetDeviceInfo(d, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    clGetDeviceInfo(d, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    clGetDeviceInfo(d, CL_DEVICE_MAX_CLOCK_FREQUENCY, sizeof clock, &clock, NULL);
    return (type & CL_DEVICE_TYPE_GPU ? 1e9 : 0.0) + (double)units * (double)(clock ? clock : 1);
}

static bool vgs_cl__contains(const char *text, const char *part)
{
    size_t k;
    for (; *text; ++text) {
        for (k = 0; part[k] && tolower((unsigned char)text[k]) == tolower((unsigned char)part[k]); ++k) {}
        if (!part[k]) return true;
    }
    return !*part;
}

static cl_device_id vgs_cl__choose(const char *want, vgs_error *err)
{
    cl_device_id d[VGS_CL__MOST_DEVICES];
    char text[200], *end;
    int n = vgs_cl__devices(d, err), i, best = 0;
    long number;
    if (n < 0) return NULL;
    if (!want || !*want || !strcmp(want, "auto")) {
        for (i = 1; i < n; ++i) if (vgs_cl__promise(d[i]) > vgs_cl__promise(d[best])) best = i;
        return d[best];
    }
    number = strtol(want, &end, 10);
    if (!*end && number >= 0 && number < n) return d[number];
    for (i = 0; i < n && *end; ++i) {
        vgs_cl__describe(d[i], text);
        if (vgs_cl__contains(text, want)) return d[i];
    }
    vgs_cl__describe(d[0], text);
    vgs__fail(err, VGS_E_DEVICE, "device = %.60s: none of the %d OpenCL devices; number 0 is %.100s", want, n,
              text);
    return NULL;
}

/* ==== memory: buffers in pages ======================================================================= */

/* All kernels have the pages as their first arguments; absent ones are page 0. */
static cl_int vgs_cl__set_pages(const vgs_cl *cl, cl_kernel k)
{
    cl_uint p;
    cl_int e = CL_SUCCESS;
    for (p = 0; p < VGS_CL__PAGES && e == CL_SUCCESS; ++p)
        e = clSetKernelArg(k, p, sizeof(cl_mem), cl->page[p].mem ? &cl->page[p].mem : &cl->page[0].mem);
    return e;
}

static cl_int vgs_cl__set_all_pages(const vgs_cl *cl)
{
    const vgs_cl__source *s;
    cl_int e = CL_SUCCESS;
    int k;
    for (k = 0; k < VGS_CL__KERNEL_COUNT && e == CL_SUCCESS; ++k)
        if (cl->kernel[k]) e = vgs_cl__set_pages(cl, cl->kernel[k]);
    for (s = cl->source; s && e == CL_SUCCESS; s = s->next) e = vgs_cl__set_pages(cl, s->kernel);
    return e;
}

/* The first gap of a page that holds n floats; NULL if there is none. *at: where. */
static vgs_cl__buffer **vgs_cl__gap(vgs_cl__page *p, size_t n, size_t *at)
{
    vgs_cl__buffer **link = &p->first;
    *at = 0;
    if (!p->mem) return NULL;
    for (; *link; link = &(*link)->next) {
        if ((*link)->at - *at >= n) return link;
        *at = (*link)->at + (*link)->n;
    }
    return p->size - *at >= n ? link : NULL;
}

static vgs_status vgs_cl__add_page(vgs_cl *cl, size_t n, vgs_error *err)
{
    size_t size = cl->page_floats, had = 0;
    int p = 0, k;
    cl_int e;
    for (k = 0; k < VGS_CL__PAGES; ++k) had += cl->page[k].size;
    while (p < VGS_CL__PAGES && cl->page[p].mem) ++p;
    if (!size) size = had > 4u << 20 ? had : 4u << 20;
    if (size > cl->most_alloc / 4) size = cl->most_alloc / 4;
    if (size < n) size = n;
    if (p == VGS_CL__PAGES || size > cl->most_alloc / 4 || size > INT_MAX)
        return vgs__fail(err, VGS_E_NOMEM, "out of device memory: %.0f MB are needed in one piece, %.60s "
                         "gives at most %.0f MB in one", (double)n * 4e-6, cl->name,
                         (double)cl->most_alloc * 1e-6);
    cl->page[p].mem = clCreateBuffer(cl->context, CL_MEM_READ_WRITE, size * 4, NULL, &e);
    if (e != CL_SUCCESS || !cl->page[p].mem) {
        cl->page[p].mem = NULL;
        return vgs__fail(err, VGS_E_NOMEM, "out of device memory: %.0f MB more are needed, %.0f MB are in "
                         "use, %.60s has %.0f MB: %s", (double)size * 4e-6, (double)had * 4e-6, cl->name,
                         (double)cl->memory * 1e-6, vgs_cl__code(e));
    }
    cl->page[p].size = size;
    e = vgs_cl__set_all_pages(cl);
    return e == CL_SUCCESS ? VGS_OK : vgs_cl__lose(cl, "clSetKernelArg", e, err);
}

static vgs_cl__buffer *vgs_cl__take(vgs_cl *cl, size_t n, vgs_error *err)
{
    vgs_cl__buffer *b = (vgs_cl__buffer *)vgs__alloc_or(err, "buffer", 1, sizeof *b), **link = NULL;
    const cl_int zero = 0;
    size_t at = 0;
    int tries, p = 0;
    cl_int e;
    if (!b) return NULL;
    b->n = ((n ? n : 1) + 63) & ~(size_t)63;
    for (tries = 0; tries < 2 && !link; ++tries) {
        for (p = 0; p < VGS_CL__PAGES && !link; ++p) link = vgs_cl__gap(&cl->page[p], b->n, &at);
        if (!link && (tries || vgs_cl__add_page(cl, b->n, err) != VGS_OK)) {
            vgs__free(b);
            return NULL;
        }
    }
    b->page = p - 1;
    b->at = at;
    b->next = *link;
    *link = b;
    e = clEnqueueFillBuffer(cl->queue, cl->page[b->page].mem, &zero, sizeof zero, at * 4, b->n * 4, 0, NULL,
                            NULL);
    if (e == CL_SUCCESS) return b;
    vgs_cl__lose(cl, "clEnqueueFillBuffer", e, err);
    *link = b->next;
    vgs__free(b);
    return NULL;
}

static void vgs_cl__drop(vgs_cl *cl, vgs_cl__buffer *b)
{
    vgs_cl__buffer **link;
    vgs_cl__page *p;
    int k;
    if (!b) return;
    for (k = 0; k < cl->n_packed; ++k)
        if (cl->packed[k].of == b) {
            vgs_cl__drop(cl, cl->packed[k].to);
            cl->packed[k] = cl->packed[--cl->n_packed];
            k = -1;                              /* the list has changed                              */
        }
    p = &cl->page[b->page];
    for (link = &p->first; *link != b; link = &(*link)->next) {}
    *link = b->next;
    vgs__free(b);
    if (p->first || p == cl->page) return;
    clReleaseMemObject(p->mem);                  /* kernels that were queued keep it until they end   */
    p->mem = NULL;
    p->size = 0;
    vgs_cl__set_all_pages(cl);
}

static vgs_buffer *vgs_cl__buffer_create(void *self, size_t n, vgs_error *err)
{
    vgs_cl *cl = (vgs_cl *)self;
    if (cl->lost) { vgs_cl__lost(cl, err); return NULL; }
    return (vgs_buffer *)(void *)vgs_cl__take(cl, n, err);
}

static void vgs_cl__buffer_free(void *self, vgs_buffer *b)
{
    vgs_cl__drop((vgs_cl *)self, (vgs_cl__buffer *)(void *)b);
}

static vgs_cl__buffer *vgs_cl__at(const vgs_tensor *t) { return (vgs_cl__buffer *)(void *)t->buf; }

static vgs_status vgs_cl__upload(void *self, vgs_buffer *dst, size_t offset, const void *src, size_t n,
                                 vgs_type type, vgs_error *err)
{
    vgs_cl *cl = (vgs_cl *)self;
    vgs_cl__buffer *b = (vgs_cl__buffer *)(void *)dst;
    cl_int e;
    (void)type;
    if (cl->lost) return vgs_cl__lost(cl, err);
    if (!n) return VGS_OK;
    if (offset + n > b->n) return vgs__fail(err, VGS_E_DEVICE, "upload: outside of its buffer");
    e = clEnqueueWriteBuffer(cl->queue, cl->page[b->page].mem, CL_TRUE, (b->at + offset) * 4, n * 4, src, 0,
                             NULL, NULL);
    if (e != CL_SUCCESS) return vgs_cl__lose(cl, "clEnqueueWriteBuffer", e, err);
    b->version++;
    cl->count.uploads++;
    cl->count.upload_bytes += 4 * n;
    return VGS_OK;
}

static vgs_status vgs_cl__download(void *self, void *dst, vgs_buffer *src, size_t offset, size_t n,
                                   vgs_type type, vgs_error *err)
{
    vgs_cl *cl = (vgs_cl *)self;
    vgs_cl__buffer *b = (vgs_cl__buffer *)(void *)src;
    cl_int e;
    (void)type;
    if (cl->lost) return vgs_cl__lost(cl, err);
    if (!n) return VGS_OK;
    if (offset + n > b->n) return vgs__fail(err, VGS_E_DEVICE, "download: outside of its buffer");
    e = clEnqueueReadBuffer(cl->queue, cl->page[b->page].mem, CL_TRUE, (b->at + offset) * 4, n * 4, dst, 0,
                            NULL, NULL);
    if (e != CL_SUCCESS) return vgs_cl__lose(cl, "clEnqueueReadBuffer", e, err);
    cl->count.downloads++;
    cl->count.download_bytes += 4 * n;
    return VGS_OK;
}

/* ==== launches ======================================================================================= */

static void vgs_cl__harvest(vgs_cl *cl)          /* adds up the times of the launches so far          */
{
    cl_ulong from, to;
    int k;
    for (k = 0; k < cl->n_event; ++k) {
        from = to = 0;
        clWaitForEvents(1, &cl->event[k].event);
        clGetEventProfilingInfo(cl->event[k].event, CL_PROFILING_COMMAND_START, sizeof from, &from, NULL);
        clGetEventProfilingInfo(cl->event[k].event, CL_PROFILING_COMMAND_END, sizeof to, &to, NULL);
        cl->seconds[cl->event[k].kernel] += (double)(to - from) * 1e-9;
        clReleaseEvent(cl->event[k].event);
    }
    cl->n_event = 0;
}

static vgs_status vgs_cl__finish(void *self, vgs_error *err)
{
    vgs_cl *cl = (vgs_cl *)self;
    cl_int e = cl->lost ? CL_SUCCESS : clFinish(cl->queue);
    if (cl->lost) return vgs_cl__lost(cl, err);
    if (e != CL_SUCCESS) return vgs_cl__lose(cl, "clFinish", e, err);
    vgs_cl__harvest(cl);
    return VGS_OK;
}

/* A launch: begin, its arguments after the pages in order, launch. */
static void vgs_cl__begin(vgs_cl *cl)
{
    cl->next_arg = VGS_CL__PAGES;
    cl->arg_error = CL_SUCCESS;
}

static void vgs_cl__arg(vgs_cl *cl, cl_kernel k, size_t size, const void *value)
{
    cl_int e = clSetKernelArg(k, (cl_uint)cl->next_arg++, size, value);
    if (e != CL_SUCCESS && cl->arg_error == CL_SUCCESS) cl->arg_error = e;
}
static void vgs_cl__arg_int(vgs_cl *cl, cl_kernel k, int value)
{
    const cl_int v = value;
    vgs_cl__arg(cl, k, sizeof v, &v);
}
static void vgs_cl__arg_float(vgs_cl *cl, cl_kernel k, float value)
{
    const cl_float v = value;
    vgs_cl__arg(cl, k, sizeof v, &v);
}

/* A launch was queued; if cl->profiled, its event is at cl->event[cl->n_event]. */
static void vgs_cl__count(vgs_cl *cl, int id)
{
    cl->count.launches++;
    cl->launches[id]++;
    if (cl->profiled) cl->event[cl->n_event++].kernel = id;
    if (cl->n_event == VGS_CL__EVENTS) vgs_cl__harvest(cl);
}

/* gx times gy groups */
static vgs_status vgs_cl__launch(vgs_cl *cl, cl_kernel kernel, int id, int gx, int gy, vgs_error *err)
{
    size_t global[2], local[2];
    cl_event *event = cl->profiled ? &cl->event[cl->n_event].event : NULL;
    cl_int e = cl->arg_error;
    if (e != CL_SUCCESS) return vgs_cl__lose(cl, "clSetKernelArg", e, err);
    if (gx <= 0 || gy <= 0) return VGS_OK;
    global[0] = (size_t)gx * (size_t)cl->wg;
    global[1] = (size_t)gy;
    local[0] = (size_t)cl->wg;
    local[1] = 1;
    e = clEnqueueNDRangeKernel(cl->queue, kernel, 2, NULL, global, local, 0, NULL, event);
    if (e != CL_SUCCESS) return vgs_cl__lose(cl, "clEnqueueNDRangeKernel", e, err);
    vgs_cl__count(cl, id);
    return VGS_OK;
}

/* ==== calls as words ================================================================================= */

/* A tensor as two words (kernels/common.cl). row, column: stretched over the rows or columns of the output.
   */
static bool vgs_cl__words(const vgs_tensor *t, bool row, bool column, cl_int *w)
{
    const vgs_cl__buffer *b = vgs_cl__at(t);
    size_t last = t->rows > 0 && t->cols > 0 ? (size_t)(t->rows - 1) * (size_t)t->ld + (size_t)t->cols : 0;
    w[0] = w[1] = 0;
    if (!b) return true;
    if (t->offset + last > b->n || t->ld < 0 || t->ld >= 1 << 26) return false;
    w[0] = (cl_int)(b->at + t->offset);
    w[1] = (cl_int)((unsigned)(row ? 0 : t->ld) << 5 | (column ? 16u : 0u) | 8u | (unsigned)b->page);
    return true;
}

static void vgs_cl__arg_tensor(vgs_cl *cl, cl_kernel k, const vgs_tensor *t)
{
    cl_int w[2];
    if (!vgs_cl__words(t, false, false, w)) cl->arg_error = CL_INVALID_VALUE;
    vgs_cl__arg(cl, k, sizeof w, w);
}

static vgs_tensor vgs_cl__tensor(vgs_cl__buffer *b, size_t offset, int rows, int cols)
{
    vgs_tensor t;
    t.buf = (vgs_buffer *)(void *)b;
    t.offset = offset;
    t.rows = rows;
    t.cols = t.ld = cols;
    return t;
}

static void vgs_cl__changed(const vgs_tensor *t, bool computed)
{
    vgs_cl__buffer *b = vgs_cl__at(t);
    if (!b) return;
    b->version++;
    b->computed = b->computed || computed;
}

static bool vgs_cl__is_map(int op) { return vgs__op_table[op].kind == 'M'; }

/* Dense operands of one shape: the rows are one long row. */
static bool vgs_cl__is_flat(const vgs_call *c)
{
    double all = (double)c->out.rows * c->out.cols;
    bool flat = vgs_cl__is_map(c->op) && c->out.ld == c->out.cols && all < (double)INT_MAX;
    int k;
    if (c->out2.buf) flat = flat && c->out2.ld == c->out.cols;
    for (k = 0; k < VGS_MAX_IN; ++k)
        if (c->in[k].buf)
            flat = flat && c->in[k].rows == c->out.rows && c->in[k].cols == c->out.cols &&
                   c->in[k].ld == c->out.cols;
    return flat;
}

/* The words of a call of vgs_rows; false: a tensor lies outside of its buffer. */
static bool vgs_cl__encode(const vgs_call *c, int parts, cl_int *w)
{
    const vgs_tensor *shape = c->out.buf ? &c->out : &c->in[0];
    bool stretch = vgs_cl__is_map(c->op) && c->in[1].buf && c->op != VGS_OP_COMBINE, ok;
    bool random = vgs__op_is(c->op, VGS__RANDOM);
    int k;
    w[0] = c->op | (vgs_cl__is_flat(c) ? 0x10000 : 0);
    w[1] = shape->rows / parts;
    w[2] = shape->cols;
    w[3] = c->in[0].cols;
    ok = vgs_cl__words(&c->out, false, false, w + 4) && vgs_cl__words(&c->out2, false, false, w + 6);
    for (k = 0; k < 4; ++k)
        ok = ok && vgs_cl__words(&c->in[k], stretch && c->in[k].rows == 1,
                                 stretch && c->in[k].cols == 1 && c->out.cols != 1, w + 8 + 2 * k);
    for (k = 0; k < (random ? 8 : 4); ++k) w[16 + k] = c->i[k];
    if (!random) memcpy(w + 20, c->f, 4 * sizeof *w);
    if (c->op == VGS_OP_FILL) w[17] = c->out.rows;
    return ok;
}

static vgs_status vgs_cl__outside(const vgs_call *c, vgs_error *err)
{
    return vgs__fail(err, VGS_E_DEVICE, "%s: a tensor lies outside of its buffer", vgs_op_name(c->op));
}

/* ==== calls by rows ================================================================================== */

/* How many parts a group takes. A CPU: enough groups for all its cores, few enough to be worth one, rows that
   stay in the L2 cache. A GPU: as many groups as there can be, unless their work-items would have nothing to
   do. */
static int vgs_cl__block(const vgs_cl *cl, const vgs_cl__pending *p)
{
    double most = cl->on_cpu ? 96.0 / p->per : (double)cl->wg / p->part;
    double groups = p->whole / 4096.0 + 1.0, block;
    if (groups > 2.0 * cl->units) groups = 2.0 * cl->units;
    block = cl->on_cpu ? p->parts / groups : most;
    if (block > most) block = most;
    if (block > p->parts) block = p->parts;
    return block < 1.0 ? 1 : (int)block;
}

static vgs_status vgs_cl__flush(vgs_cl *cl, vgs_error *err)
{
    vgs_cl__pending *p = &cl->pending;
    cl_kernel k = cl->kernel[VGS_CL__rows];
    int block;
    if (!p->n) return VGS_OK;
    block = vgs_cl__block(cl, p);
    vgs_cl__begin(cl);
    vgs_cl__arg(cl, k, sizeof p->list, &p->list);
    vgs_cl__arg_int(cl, k, p->n);
    vgs_cl__arg_int(cl, k, p->parts);
    vgs_cl__arg_int(cl, k, block);
    p->n = 0;
    return vgs_cl__launch(cl, k, VGS_CL__rows, (p->parts + block - 1) / block, 1, err);
}

static vgs_status vgs_cl__flush_checks(vgs_cl *cl, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__flag];
    vgs_status st = vgs_cl__flush(cl, err);
    if (!cl->n_checks || st != VGS_OK) return st;
    vgs_cl__begin(cl);
    vgs_cl__arg(cl, k, sizeof cl->checks, &cl->checks);
    vgs_cl__arg_int(cl, k, cl->n_checks);
    cl->n_checks = 0;
    return vgs_cl__launch(cl, k, VGS_CL__flag, 1, 1, err);
}

/* A check leaves its row at a place of its own. */
static vgs_status vgs_cl__place_check(vgs_cl *cl, vgs_call *c, vgs_error *err)
{
    vgs_status st = cl->n_checks == VGS_CL__CHECKS ? vgs_cl__flush_checks(cl, err) : VGS_OK;
    c->out = vgs_cl__tensor(cl->rows_bad, (size_t)cl->n_checks, 1, 1);
    return st;
}

static vgs_cl__range vgs_cl__range_of(const vgs_tensor *t, int parts)
{
    vgs_cl__range r = { -1, 0, 0, 0 };
    const vgs_cl__buffer *b = vgs_cl__at(t);
    if (!b || t->rows <= 0 || t->cols <= 0) return r;
    r.page = b->page;
    r.first = b->at + t->offset;
    r.end = r.first + (size_t)(t->rows - 1) * (size_t)t->ld + (size_t)t->cols;
    r.part = t->rows % parts ? 0 : (size_t)(t->rows / parts) * (size_t)t->ld;
    return r;
}

/* Groups of a launch run at any time: nothing may be written where another part of an earlier call of it
   reads or writes. It happens: values that live within one group of calls share places (vgs_call.local). */
static bool vgs_cl__collides(const vgs_cl__pending *p, const vgs_tensor *t, int parts)
{
    vgs_cl__range w = vgs_cl__range_of(t, parts);
    int k;
    for (k = 0; k < p->n_range && w.page >= 0; ++k) {
        const vgs_cl__range *r = &p->range[k];
        if (r->page == w.page && r->first < w.end && w.first < r->end &&
            !(r->first == w.first && r->part == w.part && w.part > 0)) return true;
    }
    return false;
}

static void vgs_cl__remember(vgs_cl__pending *p, const vgs_call *c, int parts)
{
    int k;
    p->range[p->n_range++] = vgs_cl__range_of(&c->out, parts);
    p->range[p->n_range++] = vgs_cl__range_of(&c->out2, parts);
    for (k = 0; k < 4; ++k) p->range[p->n_range++] = vgs_cl__range_of(&c->in[k], parts);
}

static vgs_status vgs_cl__append(vgs_cl *cl, const vgs_call *call, int parts, int group, vgs_error *err)
{
    vgs_cl__pending *p = &cl->pending;
    vgs_call c = *call;
    vgs_status st = VGS_OK;
    double size;
    cl_int *w;
    if (parts <= 0) return VGS_OK;
    if (p->n && (p->n == VGS_CL__CALLS || p->group != group || p->parts != parts ||
                 vgs_cl__collides(p, &c.out, parts) || vgs_cl__collides(p, &c.out2, parts)))
        st = vgs_cl__flush(cl, err);
    if (c.op == VGS_OP_CHECK && st == VGS_OK) st = vgs_cl__place_check(cl, &c, err);
    if (st != VGS_OK) return st;
    if (!p->n) p->part = p->whole = p->per = 1;
    if (!p->n) p->n_range = 0;
    vgs_cl__remember(p, call, parts);
    w = p->list.w + p->n * VGS_CL__WORDS;
    if (c.op == VGS_OP_CHECK) {
        c.out.rows = c.in[0].rows;               /* what follows divides these rows into parts        */
        c.out.ld = 0;
    }
    if (!vgs_cl__encode(&c, parts, w)) return vgs_cl__outside(call, err);
    if (c.op == VGS_OP_CHECK)
        memcpy(cl->checks.w + cl->n_checks++ * VGS_CL__WORDS, w, VGS_CL__WORDS * sizeof *w);
    p->n++;
    p->group = group;
    p->parts = parts;
    size = (double)c.out.rows * c.out.cols;
    if ((double)c.in[0].rows * c.in[0].cols > size && c.op != VGS_OP_GATHER)
        size = (double)c.in[0].rows * c.in[0].cols;
    p->whole += size;
    if (size / parts > p->part) p->part = size / parts;
    if (w[1] > p->per) p->per = w[1];
    vgs_cl__changed(&call->out, true);
    vgs_cl__changed(&call->out2, true);
    return VGS_OK;
}

/* dst and src become out and in[0] of a call by rows. */
static vgs_status vgs_cl__store(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    vgs_call q = *c;
    vgs_status st = vgs_cl__flush(cl, err);
    q.out = c->in[0];
    q.out.offset += (size_t)c->i[0] * (size_t)c->in[0].ld;
    q.out.rows = c->in[1].rows;
    q.in[0] = c->in[1];
    q.in[1].buf = NULL;
    if (st == VGS_OK) st = vgs_cl__append(cl, &q, q.out.rows, 0, err);
    return st == VGS_OK ? vgs_cl__flush(cl, err) : st;
}

/* ==== whole calls ==================================================================================== */

static vgs_status vgs_cl__sum_rows(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__sum_rows];
    bool scatter = c->op == VGS_OP_SCATTER_ROWS;
    int strip = cl->wg >= 16 ? 16 : 64;
    vgs_tensor none;
    memset(&none, 0, sizeof none);
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, k, &c->in[0]);
    vgs_cl__arg_tensor(cl, k, scatter ? &c->in[1] : &none);
    vgs_cl__arg_tensor(cl, k, &c->out);
    vgs_cl__arg_int(cl, k, c->in[0].rows);
    vgs_cl__arg_int(cl, k, c->out.cols);
    vgs_cl__arg_int(cl, k, scatter ? 0 : c->i[0]);
    vgs_cl__changed(&c->out, true);
    return vgs_cl__launch(cl, k, VGS_CL__sum_rows, (c->out.cols + strip - 1) / strip, c->out.rows, err);
}

static vgs_status vgs_cl__squares(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__squares], end = cl->kernel[VGS_CL__squares_end];
    vgs_tensor part = vgs_cl__tensor(cl->parts, 0, 256, 2);
    vgs_status st;
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, k, &c->in[0]);
    vgs_cl__arg_tensor(cl, k, &part);
    vgs_cl__arg_int(cl, k, c->in[0].cols);
    st = vgs_cl__launch(cl, k, VGS_CL__squares, 256, 1, err);
    if (st != VGS_OK) return st;
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, end, &part);
    vgs_cl__arg_tensor(cl, end, &c->out);
    vgs_cl__changed(&c->out, true);
    return vgs_cl__launch(cl, end, VGS_CL__squares_end, 1, 1, err);
}

static int vgs_cl__each(const vgs_cl *cl) { return cl->on_cpu ? 8192 : 4 * cl->wg; }

static vgs_status vgs_cl__adam(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__adam];
    int j, each = vgs_cl__each(cl), n = c->in[0].cols;
    vgs_cl__begin(cl);
    for (j = 0; j < 6; ++j) vgs_cl__arg_tensor(cl, k, &c->in[j]);
    vgs_cl__arg(cl, k, 8 * sizeof(cl_float), c->f);
    vgs_cl__arg_int(cl, k, n);
    vgs_cl__arg_int(cl, k, each);
    vgs_cl__changed(&c->in[0], false);
    vgs_cl__changed(&c->in[2], false);
    vgs_cl__changed(&c->in[3], false);
    return vgs_cl__launch(cl, k, VGS_CL__adam, (n + each - 1) / each, 1, err);
}

static vgs_status vgs_cl__ema(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__ema];
    int j, each = vgs_cl__each(cl), n = c->in[0].cols;
    vgs_cl__begin(cl);
    for (j = 0; j < 3; ++j) vgs_cl__arg_tensor(cl, k, &c->in[j]);
    vgs_cl__arg_float(cl, k, c->f[0]);
    vgs_cl__arg_int(cl, k, n);
    vgs_cl__arg_int(cl, k, each);
    vgs_cl__changed(&c->in[0], false);
    return vgs_cl__launch(cl, k, VGS_CL__ema, (n + each - 1) / each, 1, err);
}

static vgs_status vgs_cl__resample(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__resample];
    cl_uint counter[4], key[2];
    counter[0] = (cl_uint)c->i[2];
    counter[1] = (cl_uint)c->i[1];
    counter[2] = (cl_uint)c->i[0] << 24;
    counter[3] = (cl_uint)c->i[3];
    key[0] = (cl_uint)c->i[4];
    key[1] = (cl_uint)c->i[5];
    if (c->out.rows <= 0 || c->in[0].rows <= 0) return VGS_OK;
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, k, &c->in[0]);
    vgs_cl__arg_tensor(cl, k, &c->out);
    vgs_cl__arg_int(cl, k, c->in[0].rows);
    vgs_cl__arg_int(cl, k, c->out.rows);
    vgs_cl__arg(cl, k, sizeof counter, counter);
    vgs_cl__arg(cl, k, sizeof key, key);
    vgs_cl__changed(&c->out, true);
    return vgs_cl__launch(cl, k, VGS_CL__resample, 1, 1, err);
}

/* ==== products ======================================================================================= */

typedef struct vgs_cl__product { cl_int m, n, k, form, act, tiles, rows; cl_float f0, f1; } vgs_cl__product;

static vgs_status vgs_cl__matmul(vgs_cl *cl, const vgs_call *c, vgs_error *err);

static vgs_status vgs_cl__pack(vgs_cl *cl, const vgs_tensor *b, const vgs_cl__product *q,
                               const vgs_tensor *to, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__pack];
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, k, b);
    vgs_cl__arg_tensor(cl, k, to);
    vgs_cl__arg_int(cl, k, q->n);
    vgs_cl__arg_int(cl, k, q->k);
    vgs_cl__arg_int(cl, k, q->form == 0);
    return vgs_cl__launch(cl, k, VGS_CL__pack, (q->n + 15) / 16, 1, err);
}

/* Where B, packed, is or goes: weights keep a place of their own, *fresh tells whether it holds them. Others
   share one. */
static vgs_cl__buffer *vgs_cl__packed_place(vgs_cl *cl, const vgs_tensor *b, const vgs_cl__product *q,
                                            bool *fresh, vgs_error *err)
{
    size_t need = (size_t)((q->n + 15) / 16 * 16) * (size_t)q->k;
    const vgs_cl__buffer *of = vgs_cl__at(b);
    vgs_cl__packed *p = cl->packed;
    int i;
    *fresh = false;
    for (i = 0; i < cl->n_packed; ++i, ++p)
        if (p->of == of && p->offset == b->offset && p->rows == b->rows && p->cols == b->cols &&
            p->ld == b->ld && p->form == q->form) {
            *fresh = p->version == of->version;
            p->version = of->version;
            return p->to;
        }
    if (of->computed || cl->n_packed == VGS_CL__PACKS) {
        if (cl->volatile_packed && cl->volatile_packed->n >= need) return cl->volatile_packed;
        vgs_cl__drop(cl, cl->volatile_packed);
        return cl->volatile_packed = vgs_cl__take(cl, need, err);
    }
    memset(p, 0, sizeof *p);
    p->to = vgs_cl__take(cl, need, err);
    if (!p->to) return NULL;
    p->of = of;
    p->offset = b->offset;
    p->rows = b->rows;
    p->cols = b->cols;
    p->ld = b->ld;
    p->form = q->form;
    p->version = of->version;
    cl->n_packed++;
    return p->to;
}

static vgs_cl__product vgs_cl__product_of(const vgs_cl *cl, const vgs_call *c)
{
    vgs_cl__product q;
    bool large;
    q.m = c->out.rows;
    q.n = c->out.cols;
    q.k = c->i[0] == 2 ? c->in[0].rows : c->in[0].cols;
    q.form = c->i[0];
    q.act = c->i[1];
    q.f0 = c->f[0];
    q.f1 = c->f[1];
    /* each group copies its part of A^T: large groups, where there are enough for all units */
    large = q.form == 2 && (double)q.m * q.n >= 24.0 * 128.0 * 4.0 * cl->units;
    q.rows = large ? 24 : 8;
    q.tiles = (q.n + (large ? 127 : 47)) / (large ? 128 : 48);
    return q;
}

static void vgs_cl__product_args(vgs_cl *cl, cl_kernel k, const vgs_call *c, const vgs_tensor *b,
                                 const vgs_cl__product *q)
{
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, k, &c->in[0]);
    vgs_cl__arg_tensor(cl, k, b);
    vgs_cl__arg_tensor(cl, k, &c->in[2]);
    vgs_cl__arg_tensor(cl, k, &c->in[3]);
    vgs_cl__arg_tensor(cl, k, &c->out);
    vgs_cl__arg(cl, k, sizeof *q, q);
}

static vgs_status vgs_cl__by_tall(vgs_cl *cl, const vgs_call *c, const vgs_cl__product *q, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__tall];
    bool fresh;
    vgs_cl__buffer *place = vgs_cl__packed_place(cl, &c->in[1], q, &fresh, err);
    vgs_tensor b = vgs_cl__tensor(place, 0, 1, (q->n + 15) / 16 * 16 * q->k);
    vgs_status st = VGS_OK;
    if (!place) return cl->lost ? cl->lost : VGS_E_NOMEM;
    b.ld = 0;
    if (!fresh) st = vgs_cl__pack(cl, &c->in[1], q, &b, err);
    if (st != VGS_OK) return st;
    vgs_cl__product_args(cl, k, c, &b, q);
    return vgs_cl__launch(cl, k, VGS_CL__tall, q->tiles, (q->m + q->rows - 1) / q->rows, err);
}

static vgs_status vgs_cl__by_tile(vgs_cl *cl, const vgs_call *c, const vgs_cl__product *q, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__tile];
    int x = cl->wg >= 256 ? 64 : cl->wg >= 64 ? 32 : cl->wg >= 16 ? 16 : 4, y = 16 * cl->wg / x;
    vgs_cl__product_args(cl, k, c, &c->in[1], q);
    return vgs_cl__launch(cl, k, VGS_CL__tile, (q->n + x - 1) / x, (q->m + y - 1) / y, err);
}

#ifdef VGS_CL_CLBLAST
static vgs_status vgs_cl__bias_act(vgs_cl *cl, const vgs_call *c, const vgs_cl__product *q, vgs_error *err)
{
    cl_kernel k = cl->kernel[VGS_CL__bias_act];
    int each = cl->on_cpu ? 16 : 1;
    if (!c->in[2].buf && !q->act) return VGS_OK;
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, k, &c->in[2]);
    vgs_cl__arg_tensor(cl, k, &c->in[3]);
    vgs_cl__arg_tensor(cl, k, &c->out);
    vgs_cl__arg(cl, k, sizeof *q, q);
    vgs_cl__arg_int(cl, k, each);
    return vgs_cl__launch(cl, k, VGS_CL__bias_act, (q->m + each - 1) / each, 1, err);
}

/* An error of CLBlast (it could not compile, or has no memory) ends its use: ours go on. */
static vgs_status vgs_cl__by_clblast(vgs_cl *cl, const vgs_call *c, const vgs_cl__product *q, vgs_error *err)
{
    const vgs_cl__buffer *a = vgs_cl__at(&c->in[0]), *b = vgs_cl__at(&c->in[1]), *out = vgs_cl__at(&c->out);
    cl_event *event = cl->profiled ? &cl->event[cl->n_event].event : NULL;
    const CLBlastTranspose turned[2] = { CLBlastTransposeNo, CLBlastTransposeYes };
    cl_int w[2];
    CLBlastStatusCode e;
    if (!vgs_cl__words(&c->in[0], false, false, w) || !vgs_cl__words(&c->in[1], false, false, w) ||
        !vgs_cl__words(&c->out, false, false, w)) return vgs_cl__outside(c, err);
    cl->used_clblast = true;
    e = CLBlastSgemm(CLBlastLayoutRowMajor, turned[q->form == 2], turned[q->form == 0],
                     (size_t)q->m, (size_t)q->n, (size_t)q->k, 1.0f,
                     cl->page[a->page].mem, a->at + c->in[0].offset, (size_t)c->in[0].ld,
                     cl->page[b->page].mem, b->at + c->in[1].offset, (size_t)c->in[1].ld, 0.0f,
                     cl->page[out->page].mem, out->at + c->out.offset, (size_t)c->out.ld, &cl->queue, event);
    if (e != CLBlastSuccess) {
        cl->can[VGS_CL__BY_CLBLAST] = false;
        return vgs_cl__matmul(cl, c, err);
    }
    vgs_cl__count(cl, VGS_CL__clblast);
    return vgs_cl__bias_act(cl, c, q, err);
}
#endif

/* The class of shapes whose fastest way was measured: by form; few rows, small, or from 256^3 on large. */
static int vgs_cl__class(const vgs_cl__product *q)
{
    double work = (double)q->m * q->n * q->k;
    int size = q->m < 32 ? VGS_CL__FEW_ROWS : work < 1.6e7 ? VGS_CL__SMALL : VGS_CL__LARGE;
    return VGS_CL__SIZES * q->form + size;
}

/* Our own way that suits the device by its type. */
static int vgs_cl__our_way(const vgs_cl *cl)
{
    return cl->can[VGS_CL__BY_TALL] ? VGS_CL__BY_TALL : VGS_CL__BY_TILE;
}

static void vgs_cl__all_by(vgs_cl *cl, int way) { memset(cl->way, way, sizeof cl->way); }

static int vgs_cl__way(const vgs_cl *cl, const vgs_cl__product *q)
{
    int way = cl->way[vgs_cl__class(q)];
    if (q->k <= 0) return VGS_CL__BY_TILE;
    return cl->can[way] ? way : vgs_cl__our_way(cl);
}

static vgs_status vgs_cl__matmul(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    vgs_cl__product q = vgs_cl__product_of(cl, c);
    if (q.m <= 0 || q.n <= 0) return VGS_OK;
    vgs_cl__changed(&c->out, true);
    switch (vgs_cl__way(cl, &q)) {
    case VGS_CL__BY_TALL:    return vgs_cl__by_tall(cl, c, &q, err);
#ifdef VGS_CL_CLBLAST
    case VGS_CL__BY_CLBLAST: return vgs_cl__by_clblast(cl, c, &q, err);
#endif
    default:                 return vgs_cl__by_tile(cl, c, &q, err);
    }
}

/* ==== energies ======================================================================================= */

static int vgs_cl__source_eval(void *user, const float *x, int n, int dim, float *e, float *g);

static vgs_status vgs_cl__user_energy(vgs_cl__source *s, const vgs_call *c, vgs_error *err)
{
    vgs_cl *cl = s->cl;
    int rows = c->in[0].rows, each = cl->on_cpu ? 16 : cl->wg;
    vgs_cl__begin(cl);
    vgs_cl__arg_tensor(cl, s->kernel, &c->in[0]);
    vgs_cl__arg_tensor(cl, s->kernel, &c->out);
    vgs_cl__arg_tensor(cl, s->kernel, &c->out2);
    vgs_cl__arg_int(cl, s->kernel, rows);
    vgs_cl__arg_int(cl, s->kernel, each);
    vgs_cl__arg_int(cl, s->kernel, s->dim);
    return vgs_cl__launch(cl, s->kernel, VGS_CL__user, (rows + each - 1) / each, 1, err);
}

/* A C callback lives on the host: its rows go down, energies and gradients come up. */
static vgs_status vgs_cl__callback(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    size_t n = (size_t)c->in[0].rows, dim = (size_t)c->in[0].cols, need = n * (2 * dim + 1);
    float *x, *g, *e;
    vgs_status st;
    if (c->in[0].ld != c->in[0].cols || (c->out2.buf && c->out2.ld != c->in[0].cols) || c->out.ld != 1)
        return vgs__fail(err, VGS_E_ARG, "energy: its tensors must be dense");
    if (need > cl->host_size) {
        vgs__free(cl->host);
        cl->host_size = 0;
        cl->host = (float *)vgs__alloc_or(err, "energy callback", need, sizeof *cl->host);
        if (!cl->host) return VGS_E_NOMEM;
        cl->host_size = need;
    }
    x = cl->host;
    g = x + n * dim;
    e = g + n * dim;
    cl->count.callback_rows += n;
    st = vgs_cl__download(cl, x, c->in[0].buf, c->in[0].offset, n * dim, VGS_F32, err);
    if (st == VGS_OK) st = vgs_energy_eval(c->energy, x, (int)n, e, c->out2.buf ? g : NULL, 1, err);
    if (st == VGS_OK) st = vgs_cl__upload(cl, c->out.buf, c->out.offset, e, n, VGS_F32, err);
    if (st == VGS_OK && c->out2.buf)
        st = vgs_cl__upload(cl, c->out2.buf, c->out2.offset, g, n * dim, VGS_F32, err);
    return st;
}

static vgs_status vgs_cl__energy(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    vgs_cl__source *s = c->energy->eval == vgs_cl__source_eval ? (vgs_cl__source *)c->energy->user : NULL;
    if (c->in[0].rows <= 0) return VGS_OK;
    vgs_cl__changed(&c->out, true);
    vgs_cl__changed(&c->out2, true);
    if (s && s->cl == cl) return vgs_cl__user_energy(s, c, err);
    return vgs_cl__callback(cl, c, err);
}

/* ==== running ======================================================================================== */

static vgs_status vgs_cl__whole(vgs_cl *cl, const vgs_call *c, vgs_error *err)
{
    bool reads_flag = vgs__op_is_update(c->op);
    vgs_status st = reads_flag ? vgs_cl__flush_checks(cl, err) : vgs_cl__flush(cl, err);
    if (st != VGS_OK) return st;
    switch (c->op) {
    case VGS_OP_MATMUL:       return vgs_cl__matmul(cl, c, err);
    case VGS_OP_SUM_ROWS:
    case VGS_OP_SCATTER_ROWS: return vgs_cl__sum_rows(cl, c, err);
    case VGS_OP_SUM_SQUARES:  return vgs_cl__squares(cl, c, err);
    case VGS_OP_ADAM:         return vgs_cl__adam(cl, c, err);
    case VGS_OP_EMA:          return vgs_cl__ema(cl, c, err);
    case VGS_OP_RESAMPLE:     return vgs_cl__resample(cl, c, err);
    case VGS_OP_STORE:        return vgs_cl__store(cl, c, err);
    case VGS_OP_ENERGY:       return vgs_cl__energy(cl, c, err);
    default:
        return vgs__fail(err, VGS_E_DEVICE, "OpenCL: %s has no kernel", vgs_op_name(c->op));
    }
}

static bool vgs_cl__by_rows(const vgs_call *c)
{
    return vgs_cl__is_map(c->op) || vgs__op_table[c->op].kind == 'R';
}

/* Everything is queued, in order; nothing waits but for a callback. */
static vgs_status vgs_cl__run_list(void *self, const vgs_call *c, int n, vgs_error *err)
{
    vgs_cl *cl = (vgs_cl *)self;
    vgs_status st = VGS_OK;
    int i;
    if (cl->lost) return vgs_cl__lost(cl, err);
    cl->pending.n = cl->n_checks = 0;
    for (i = 0; i < n && st == VGS_OK; ++i) {
        if (c[i].op <= VGS_OP_SECOND || c[i].op >= VGS_OP_COUNT)
            return vgs__fail(err, VGS_E_ARG, "OpenCL: op %d cannot be run", c[i].op);
        if (vgs_cl__by_rows(&c[i])) st = vgs_cl__append(cl, &c[i], c[i].parts, c[i].group, err);
        else st = vgs_cl__whole(cl, &c[i], err);
    }
    if (st == VGS_OK) st = vgs_cl__flush_checks(cl, err);
    else if (!cl->lost) {                        /* what was checked before the failure counts        */
        cl->pending.n = 0;
        vgs_cl__flush_checks(cl, NULL);
    }
    if (st == VGS_OK) clFlush(cl->queue);
    return st;
}

static vgs_status vgs_cl__run(void *self, const vgs_call *call, vgs_error *err)
{
    vgs_call c = *call;
    c.group = 0;
    c.parts = c.op == VGS_OP_CHECK || !c.out.buf ? c.in[0].rows : c.out.rows;
    return vgs_cl__run_list(self, &c, 1, err);
}

/* ==== programs ======================================================================================= */

/* The lines of a .cl file; the array ends with NULL. */
#define VGS_CL__STRINGS(name) (sizeof vgs_cl__src_##name / sizeof *vgs_cl__src_##name - 1)
enum { VGS_CL__LINES = VGS_CL__STRINGS(common) + VGS_CL__STRINGS(rows) + VGS_CL__STRINGS(whole) +
                       VGS_CL__STRINGS(gemm) + 8 };

/* The numbers of the ops, for switch. */
static const char *const vgs_cl__ops[] = {
    "enum { OP_FIRST = 6 - 1",
#define VGS_CL__OP(kind, ID, name, facts, cost) ", OP_" #ID,
    VGS_OPS(VGS_CL__OP)
#undef VGS_CL__OP
    " };\n", NULL
};
typedef char vgs_cl__ops_begin_at_6[VGS_OP_SECOND == 5 ? 1 : -1];

/* The formulas of maps and activations, for kernels/rows.cl and gemm.cl. */
static const char *const vgs_cl__formulas[] = {
    "#define MAPS",
#define VGS_CL__MAP_M(ID, name) " MAP(OP_" #ID ", ", vgs__formula_##name, ")",
#define VGS_CL__MAP_R(ID, name)
#define VGS_CL__MAP_W(ID, name)
#define VGS_CL__MAP_U(ID, name)
#define VGS_CL__MAP(kind, ID, name, facts, cost) VGS_CL__MAP_##kind(ID, name)
    VGS_OPS(VGS_CL__MAP)
#undef VGS_CL__MAP
#undef VGS_CL__MAP_M
#undef VGS_CL__MAP_R
#undef VGS_CL__MAP_W
#undef VGS_CL__MAP_U
    "\nenum { ACT_NONE",
#define VGS_CL__ACT(ID, name) ", ACT_" #ID
    VGS__ACTS(VGS_CL__ACT) " };\n#define ACTS(X)",
#undef VGS_CL__ACT
#define VGS_CL__ACT(ID, name) " X(ACT_" #ID ", ", vgs__formula_##name, ")",
    VGS__ACTS(VGS_CL__ACT)
#undef VGS_CL__ACT
    "\n", NULL
};

static int vgs_cl__lines(const char **to, int n, const char *const *from)
{
    while (*from) to[n++] = *from++;
    return n;
}

static void vgs_cl__keep_log(vgs_cl *cl, cl_program p, const char *what, vgs_error *err)
{
    size_t n = 0;
    char *log, *line, *end;
    clGetProgramBuildInfo(p, cl->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &n);
    log = (char *)vgs__alloc(n + 1, 1);
    if (log && n) clGetProgramBuildInfo(p, cl->device, CL_PROGRAM_BUILD_LOG, n, log, NULL);
    if (log && cl->log && cl->log_size) snprintf(cl->log, cl->log_size, "%s", log);
    line = log ? strstr(log, "error") : NULL;
    while (line && line > log && line[-1] != '\n') --line;
    if (log && !line) for (line = log; *line && isspace((unsigned char)*line); ++line) {}
    end = line ? strchr(line, '\n') : NULL;
    if (end) *end = 0;
    vgs__fail(err, VGS_E_DEVICE, "OpenCL: %s do not build on %.60s: %.120s", what, cl->name,
              line && *line ? line : "no log");
    vgs__free(log);
}

/* Denormal numbers count as 0 where a device can do so, as in the kernels of vgs.h: CPU devices are slow with
   them. */
static void vgs_cl__options(const vgs_cl *cl, char text[200])
{
    cl_device_fp_config fp = 0;
    clGetDeviceInfo(cl->device, CL_DEVICE_SINGLE_FP_CONFIG, sizeof fp, &fp, NULL);
    snprintf(text, 200, "-cl-std=CL1.2 -cl-denorms-are-zero -DVGS_WG=%d -DVGS_CALLS=%d -DVGS_WORDS=%d%s%s",
             cl->wg, VGS_CL__CALLS, VGS_CL__WORDS, fp & CL_FP_FMA ? " -DVGS_FMA" : "",
             fp & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT ? " -cl-fp32-correctly-rounded-divide-sqrt" : "");
}

/* ---- on disk: magic, key, size and checksum of what follows; then that, a program or choices ---- */

#ifndef VGS_NO_STDIO
#define VGS_CL__MAGIC 0x314C435F534756u          /* "VGS_CL1"                                         */
#define VGS_CL__SEED  1469598103934665603u

static uint64_t vgs_cl__hash(uint64_t h, const void *p, size_t n)
{
    const unsigned char *b = (const unsigned char *)p;
    while (n--) h = (h ^ *b++) * 0x100000001B3u;
    return h;
}

static void vgs_cl__mkdir(const char *path)
{
#ifdef _WIN32
    _mkdir(path);
#else
    mkdir(path, 0700);
#endif
}

static bool vgs_cl__cache_path(const vgs_cl_config *cfg, uint64_t key, const char *kind, char path[600])
{
    const char *base = getenv("XDG_CACHE_HOME"), *below = "";
    char dir[500];
    if (cfg->no_cache) return false;
    if (!base || !*base) base = getenv("LOCALAPPDATA");
    if (!base || !*base) { base = getenv("HOME"); below = "/.cache"; }
    if (cfg->cache_dir) snprintf(dir, sizeof dir, "%.480s", cfg->cache_dir);
    else if (!base || !*base) return false;
    else {
        snprintf(dir, sizeof dir, "%.400s%s", base, below);
        vgs_cl__mkdir(dir);
        snprintf(dir, sizeof dir, "%.400s%s/vgs", base, below);
    }
    vgs_cl__mkdir(dir);
    snprintf(path, 600, "%s/%08lx%08lx.%s", dir, (unsigned long)(key >> 32),
             (unsigned long)(key & 0xFFFFFFFFu), kind);
    return true;
}

/* What a file of this key holds, *n bytes of it; NULL if it is not there, another's or damaged. */
static unsigned char *vgs_cl__load(const char *path, uint64_t key, size_t *n)
{
    uint64_t head[4] = { 0, 0, 0, 0 };
    FILE *f = fopen(path, "rb");
    unsigned char *data = NULL;
    long end;
    *n = 0;
    if (!f) return NULL;
    if (fread(head, 1, sizeof head, f) == sizeof head && head[0] == VGS_CL__MAGIC && head[1] == key &&
        !fseek(f, 0, SEEK_END) && (end = ftell(f)) > 0 && (uint64_t)end == sizeof head + head[2] &&
        !fseek(f, (long)sizeof head, SEEK_SET) &&
        (data = (unsigned char *)vgs__alloc((size_t)head[2], 1)) != NULL)
        *n = fread(data, 1, (size_t)head[2], f);
    fclose(f);
    if (data && *n == head[2] && vgs_cl__hash(VGS_CL__SEED, data, *n) == head[3]) return data;
    vgs__free(data);
    return NULL;
}

/* Whole or not at all: another program may do the same. */
static void vgs_cl__save(const char *path, uint64_t key, const unsigned char *data, size_t n)
{
    uint64_t head[4];
    char temporary[640];
    FILE *f;
    bool ok;
    head[0] = VGS_CL__MAGIC;
    head[1] = key;
    head[2] = n;
    head[3] = vgs_cl__hash(VGS_CL__SEED, data, n);
    snprintf(temporary, sizeof temporary, "%s.%p", path, (const void *)data);
    f = fopen(temporary, "wb");
    ok = f && fwrite(head, 1, sizeof head, f) == sizeof head && fwrite(data, 1, n, f) == n;
    if (f) ok = !fclose(f) && ok;
    if (!ok || rename(temporary, path)) remove(temporary);
}

static cl_program vgs_cl__load_program(vgs_cl *cl, const char *path, uint64_t key, const char *options)
{
    size_t n;
    unsigned char *data = vgs_cl__load(path, key, &n);
    const unsigned char *d = data;
    cl_program p;
    cl_int status = CL_SUCCESS, e = CL_SUCCESS;
    if (!data) return NULL;
    p = clCreateProgramWithBinary(cl->context, 1, &cl->device, &n, &d, &status, &e);
    if (p && (e != CL_SUCCESS || status != CL_SUCCESS ||
              clBuildProgram(p, 1, &cl->device, options, NULL, NULL) != CL_SUCCESS)) {
        clReleaseProgram(p);
        p = NULL;
    }
    vgs__free(data);
    return p;
}

static void vgs_cl__save_program(cl_program p, const char *path, uint64_t key)
{
    size_t n = 0;
    unsigned char *data;
    if (clGetProgramInfo(p, CL_PROGRAM_BINARY_SIZES, sizeof n, &n, NULL) != CL_SUCCESS || !n) return;
    data = (unsigned char *)vgs__alloc(n, 1);
    if (data && clGetProgramInfo(p, CL_PROGRAM_BINARIES, sizeof data, &data, NULL) == CL_SUCCESS)
        vgs_cl__save(path, key, data, n);
    vgs__free(data);
}
#endif

static cl_program vgs_cl__compile(vgs_cl *cl, const char **line, int n, const char *options, const char *what,
                                  vgs_error *err)
{
    cl_int e;
    cl_program p = clCreateProgramWithSource(cl->context, (cl_uint)n, line, NULL, &e);
    if (!p) {
        vgs__fail(err, VGS_E_DEVICE, "OpenCL: clCreateProgramWithSource: %s (%d)", vgs_cl__code(e), (int)e);
        return NULL;
    }
    if (clBuildProgram(p, 1, &cl->device, options, NULL, NULL) == CL_SUCCESS) return p;
    vgs_cl__keep_log(cl, p, what, err);
    clReleaseProgram(p);
    return NULL;
}

/* The program of these lines, from the cache if it is there; cl->key tells it from others. */
static cl_program vgs_cl__program(vgs_cl *cl, const vgs_cl_config *cfg, const char **line, int n,
                                  const char *what, vgs_error *err)
{
    char options[200];
    cl_program p;
#ifndef VGS_NO_STDIO
    char path[600];
    bool cached;
    int i;
    vgs_cl__options(cl, options);
    cl->key = VGS_CL__SEED;
    for (i = 0; i < n; ++i) cl->key = vgs_cl__hash(cl->key, line[i], strlen(line[i]));
    cl->key = vgs_cl__hash(cl->key, options, strlen(options));
    cl->key = vgs_cl__hash(cl->key, cl->name, strlen(cl->name));
    cached = vgs_cl__cache_path(cfg, cl->key, "cl", path);
    p = cached ? vgs_cl__load_program(cl, path, cl->key, options) : NULL;
    if (p) return p;
    p = vgs_cl__compile(cl, line, n, options, what, err);
    if (p && cached) vgs_cl__save_program(p, path, cl->key);
#else
    (void)cfg;
    vgs_cl__options(cl, options);
    p = vgs_cl__compile(cl, line, n, options, what, err);
#endif
    return p;
}

static vgs_status vgs_cl__build(vgs_cl *cl, const vgs_cl_config *cfg, vgs_error *err)
{
    static const char *const name[] = {
#define VGS_CL__NAME(n) "vgs_" #n,
        VGS_CL__KERNELS(VGS_CL__NAME)
#undef VGS_CL__NAME
    };
    const size_t most = (size_t)VGS_CL__LINES + VGS_OP_COUNT + sizeof vgs_cl__formulas / sizeof(char *);
    const char **line = (const char **)vgs__alloc_or(err, "kernels", most, sizeof *line);
    int n, k;
    cl_int e;
    if (!line) return VGS_E_NOMEM;
    n = vgs_cl__lines(line, 0, vgs_cl__ops);
    n = vgs_cl__lines(line, n, vgs_cl__formulas);
    n = vgs_cl__lines(line, n, vgs_cl__src_common);
    n = vgs_cl__lines(line, n, vgs_cl__src_rows);
    n = vgs_cl__lines(line, n, vgs_cl__src_whole);
    n = vgs_cl__lines(line, n, vgs_cl__src_gemm);
    cl->program = vgs_cl__program(cl, cfg, line, n, "the kernels", err);
    vgs__free((void *)line);
    if (!cl->program) return VGS_E_DEVICE;
    for (k = 0; k < VGS_CL__user; ++k) {
        if (cl->wg > 1 && (k == VGS_CL__pack || k == VGS_CL__tall)) continue;
        cl->kernel[k] = clCreateKernel(cl->program, name[k], &e);
        if (e != CL_SUCCESS)
            return vgs__fail(err, VGS_E_DEVICE, "OpenCL: kernel %s: %s (%d)", name[k], vgs_cl__code(e),
                             (int)e);
    }
    return VGS_OK;
}

/* ---- the user's energy in OpenCL C ---- */

static const char *const vgs_cl__wrapper[] = {
    "\n#line 1 \"wrapper\"\n",
    "KERNEL vgs_user(HEAP, int2 x_at, int2 e_at, int2 g_at, int rows, int each, int dim)\n",
    "{\n",
    "    __global float *page[8] = HEAP_PAGES;\n",
    "    view x = view_of(page, x_at.x, x_at.y), e = view_of(page, e_at.x, e_at.y);\n",
    "    view g = view_of(page, g_at.x, g_at.y);\n",
    "    int r;\n",
    "    for (r = GROUP(0) * each + LID; r < min((GROUP(0) + 1) * each, rows); r += WG) {\n",
    "        *ROW(e, r) = energy(ROW(x, r), dim);\n",
    "        if (g.p) gradient(ROW(x, r), dim, ROW(g, r));\n",
    "    }\n",
    "}\n", NULL
};

static vgs_status vgs_cl__source_build(vgs_cl__source *s, const char *source, vgs_error *err)
{
    const char *line[VGS_CL__STRINGS(common) + sizeof vgs_cl__wrapper / sizeof *vgs_cl__wrapper + 4];
    char options[200];
    int n = vgs_cl__lines(line, 0, vgs_cl__src_common);
    cl_int e;
    line[n++] = "#line 1 \"energy\"\n";
    line[n++] = source;
    n = vgs_cl__lines(line, n, vgs_cl__wrapper);
    vgs_cl__options(s->cl, options);
    s->program = vgs_cl__compile(s->cl, line, n, options, "energy and gradient", err);
    if (!s->program) return VGS_E_DEVICE;
    s->kernel = clCreateKernel(s->program, "vgs_user", &e);
    if (e == CL_SUCCESS) e = vgs_cl__set_pages(s->cl, s->kernel);
    return e == CL_SUCCESS ? VGS_OK : vgs__fail(err, VGS_E_DEVICE, "OpenCL: kernel vgs_user: %s (%d)",
                                                vgs_cl__code(e), (int)e);
}

static void vgs_cl__source_free(vgs_cl__source *s)
{
    if (s->kernel) clReleaseKernel(s->kernel);
    if (s->program) clReleaseProgram(s->program);
    vgs__free(s);
}

VGS__DEF vgs_status vgs_cl_energy(vgs_backend *b, const char *source, int dim, vgs_energy *energy,
                                  vgs_error *err)
{
    vgs_cl__source *s;
    vgs_status st;
    if (!b || !source || dim < 1 || !energy)
        return vgs__fail(err, VGS_E_ARG, "cl_energy: dim = %d, source %s: must be >= 1 and given", dim,
                         source ? "given" : "NULL");
    s = (vgs_cl__source *)vgs__alloc_or(err, "energy", 1, sizeof *s);
    if (!s) return VGS_E_NOMEM;
    s->cl = vgs_cl__of(b);
    s->dim = dim;
    st = vgs_cl__source_build(s, source, err);
    if (st != VGS_OK) {
        vgs_cl__source_free(s);
        return st;
    }
    s->next = s->cl->source;
    s->cl->source = s;
    memset(energy, 0, sizeof *energy);
    energy->eval = vgs_cl__source_eval;
    energy->user = s;
    energy->dim = dim;
    return VGS_OK;
}

/* On the host's rows: through the device. */
static int vgs_cl__source_eval(void *user, const float *x, int n, int dim, float *e, float *g)
{
    vgs_cl__source *s = (vgs_cl__source *)user;
    vgs_cl *cl = s->cl;
    size_t rows = (size_t)n, d = (size_t)dim;
    vgs_cl__buffer *b = vgs_cl__take(cl, rows * (2 * d + 1), NULL);
    vgs_buffer *h = (vgs_buffer *)(void *)b;
    vgs_call c;
    vgs_status st = b ? vgs_cl__upload(cl, h, 0, x, rows * d, VGS_F32, NULL) : VGS_E_NOMEM;
    memset(&c, 0, sizeof c);
    if (st == VGS_OK) {
        c.in[0] = vgs_cl__tensor(b, 0, n, dim);
        c.out = vgs_cl__tensor(b, rows * d, n, 1);
        if (g) c.out2 = vgs_cl__tensor(b, rows * (d + 1), n, dim);
        st = vgs_cl__user_energy(s, &c, NULL);
    }
    if (st == VGS_OK) st = vgs_cl__download(cl, e, h, rows * d, rows, VGS_F32, NULL);
    if (st == VGS_OK && g) st = vgs_cl__download(cl, g, h, rows * (d + 1), rows * d, VGS_F32, NULL);
    vgs_cl__drop(cl, b);
    return st != VGS_OK;
}

/* ==== self-test: a few calls of odd sizes against the CPU ============================================ */

enum { VGS_CL__TEST = 2048 };
typedef struct vgs_cl__test { vgs_backend *cpu; float *x, *want, *got; vgs_cl__buffer *b; } vgs_cl__test;

/* in[0] at 0, in[1] at 600, in[2] at 1200, out at 1300, out2 at 1700 of one buffer; `exact`: equal integers.
   */
static vgs_status vgs_cl__try(vgs_cl *cl, vgs_cl__test *t, vgs_call *c, bool exact, vgs_error *err)
{
    static const size_t place[3] = { 0, 600, 1200 };
    vgs_buffer *there = (vgs_buffer *)(void *)t->b;
    vgs_status st = vgs_cl__upload(cl, there, 0, t->x, VGS_CL__TEST, VGS_F32, err);
    int side, k;
    memcpy(t->want, t->x, VGS_CL__TEST * sizeof *t->x);
    for (side = 0; side < 2 && st == VGS_OK; ++side) {
        vgs_buffer *buf = side ? there : (vgs_buffer *)(void *)t->want;
        for (k = 0; k < 3; ++k) {
            if (c->in[k].rows) c->in[k].buf = buf;
            c->in[k].offset = place[k];
        }
        c->out.buf = buf;
        c->out.offset = 1300;
        if (c->out2.rows) c->out2.buf = buf;
        c->out2.offset = 1700;
        st = side ? vgs_cl__run(cl, c, err) : vgs_cpu_run(t->cpu, c, err);
    }
    if (st == VGS_OK) st = vgs_cl__download(cl, t->got, there, 0, VGS_CL__TEST, VGS_F32, err);
    for (k = 0; k < VGS_CL__TEST && st == VGS_OK; ++k) {
        bool good = !memcmp(&t->got[k], &t->want[k], 4) ||
                    (!exact && fabsf(t->got[k] - t->want[k]) <= 2e-5f * (1.0f + fabsf(t->want[k])));
        if (!good)
            return vgs__fail(err, VGS_E_DEVICE, "%.80s computes wrongly: %s gives %g, not %g", cl->name,
                             vgs_op_name(c->op), (double)t->got[k], (double)t->want[k]);
    }
    return st;
}

static void vgs_cl__test_shape(vgs_tensor *t, int rows, int cols)
{
    t->rows = rows;
    t->cols = t->ld = cols;
}

static vgs_status vgs_cl__test_products(vgs_cl *cl, vgs_cl__test *t, vgs_error *err)
{
    vgs_status st = VGS_OK;
    vgs_call c;
    int form;
    for (form = 0; form < 3 && st == VGS_OK; ++form) {
        memset(&c, 0, sizeof c);
        c.op = VGS_OP_MATMUL;
        c.i[0] = form;
        c.i[1] = VGS_ACT_SILU;
        vgs_cl__test_shape(&c.in[0], form == 2 ? 29 : 11, form == 2 ? 11 : 29);
        vgs_cl__test_shape(&c.in[1], form == 0 ? 19 : 29, form == 0 ? 29 : 19);
        vgs_cl__test_shape(&c.in[2], 1, 19);
        vgs_cl__test_shape(&c.out, 11, 19);
        st = vgs_cl__try(cl, t, &c, false, err);
    }
    return st;
}

/* A product of random numbers, m x k by k x n. */
typedef struct vgs_cl__trial { vgs_cl__buffer *a, *b, *out; vgs_call c; } vgs_cl__trial;

static vgs_status vgs_cl__trial_begin(vgs_cl *cl, vgs_cl__trial *t, int form, int m, int n, int k,
                                      vgs_error *err)
{
    vgs_call fill;
    vgs_status st = VGS_E_NOMEM;
    int side;
    memset(t, 0, sizeof *t);
    memset(&fill, 0, sizeof fill);
    t->a = vgs_cl__take(cl, (size_t)m * (size_t)k, err);
    t->b = t->a ? vgs_cl__take(cl, (size_t)k * (size_t)n, err) : NULL;
    t->out = t->b ? vgs_cl__take(cl, (size_t)m * (size_t)n, err) : NULL;
    if (!t->out) return cl->lost ? cl->lost : st;
    t->c.op = VGS_OP_MATMUL;
    t->c.i[0] = form;
    t->c.in[0] = form == 2 ? vgs_cl__tensor(t->a, 0, k, m) : vgs_cl__tensor(t->a, 0, m, k);
    t->c.in[1] = form == 0 ? vgs_cl__tensor(t->b, 0, n, k) : vgs_cl__tensor(t->b, 0, k, n);
    t->c.out = vgs_cl__tensor(t->out, 0, m, n);
    fill.op = VGS_OP_NORMAL;
    for (side = 0, st = VGS_OK; side < 2 && st == VGS_OK; ++side) {
        fill.i[0] = side;
        fill.out = t->c.in[side];
        st = vgs_cl__run(cl, &fill, err);
    }
    t->b->computed = form == 2;                  /* else weights, which change rarely                 */
    return st;
}

static void vgs_cl__trial_end(vgs_cl *cl, vgs_cl__trial *t)
{
    vgs_cl__drop(cl, t->a);
    vgs_cl__drop(cl, t->b);
    vgs_cl__drop(cl, t->out);
}

#ifdef VGS_CL_CLBLAST
/* CLBlast has another kernel for large products: a size for which it takes it, at most 1459. */
static int vgs_cl__large_edge(vgs_cl *cl, int form)
{
    const CLBlastTranspose turned[2] = { CLBlastTransposeNo, CLBlastTransposeYes };
    size_t room = 0;
    int edge;
    for (edge = 129; edge < 1100; edge += edge / 2) {
        const size_t n = (size_t)edge;
        CLBlastStatusCode e =
            CLBlastSGemmTempBufferSize(CLBlastLayoutRowMajor, turned[form == 2], turned[form == 0], n, n, n,
                                       0, n, 0, n, 0, n, &cl->queue, &room);
        if (e != CLBlastSuccess || room) break;
    }
    return edge;
}

/* The product, made the way that is set over numbers that are none, in y. */
static vgs_status vgs_cl__trial_product(vgs_cl *cl, const vgs_cl__trial *t, float *y, vgs_error *err)
{
    vgs_buffer *out = t->c.out.buf;
    const size_t n = (size_t)t->c.out.rows * (size_t)t->c.out.cols;
    vgs_status st;
    memset(y, 0xFF, n * sizeof *y);
    st = vgs_cl__upload(cl, out, 0, y, n, VGS_F32, err);
    if (st == VGS_OK) st = vgs_cl__matmul(cl, &t->c, err);
    return st == VGS_OK ? vgs_cl__download(cl, y, out, 0, n, VGS_F32, err) : st;
}

/* Large products of CLBlast, the way that is set, against ours. */
static vgs_status vgs_cl__test_large(vgs_cl *cl, int form, vgs_error *err)
{
    const int edge = vgs_cl__large_edge(cl, form);
    const size_t n = (size_t)edge * (size_t)edge;
    const float most = 1e-5f * sqrtf((float)edge);
    float *want = (float *)vgs__alloc_or(err, "self-test", 2 * n, sizeof *want), *got = want + n;
    vgs_cl__trial t;
    vgs_status st = want ? vgs_cl__trial_begin(cl, &t, form, edge, edge, edge, err) : VGS_E_NOMEM;
    size_t k;
    if (!want) return st;
    if (st == VGS_OK) st = vgs_cl__trial_product(cl, &t, got, err);
    vgs_cl__all_by(cl, vgs_cl__our_way(cl));
    if (st == VGS_OK) st = vgs_cl__trial_product(cl, &t, want, err);
    vgs_cl__all_by(cl, VGS_CL__BY_CLBLAST);
    for (k = 0; k < n && st == VGS_OK; ++k)
        if (!(fabsf(got[k] - want[k]) <= most))
            st = vgs__fail(err, VGS_E_DEVICE, "CLBlast computes wrongly on %.80s: %g, not %g", cl->name,
                           (double)got[k], (double)want[k]);
    vgs_cl__trial_end(cl, &t);
    vgs__free(want);
    return st;
}
#endif

static vgs_status vgs_cl__test_others(vgs_cl *cl, vgs_cl__test *t, vgs_error *err)
{
    static const int op[6] = { VGS_OP_SUM_ROWS, VGS_OP_SUM_SQUARES, VGS_OP_LAYERNORM_HAT, VGS_OP_SORT_COLS,
                               VGS_OP_NORMAL, VGS_OP_PERMUTATION };
    vgs_status st = VGS_OK;
    vgs_call c;
    int k;
    for (k = 0; k < 6 && st == VGS_OK; ++k) {
        memset(&c, 0, sizeof c);
        c.op = op[k];
        c.f[0] = 1.0f;
        c.i[0] = k < 2 ? 0 : 3;
        c.i[4] = 77;
        c.i[7] = 50;
        if (k < 4) vgs_cl__test_shape(&c.in[0], k == 1 ? 1 : 13, k == 1 ? 299 : 23);
        vgs_cl__test_shape(&c.out, k < 2 ? 1 : 13, k == 1 || k == 5 ? 1 : 23);
        if (k == 3) vgs_cl__test_shape(&c.out2, 13, 23);
        st = vgs_cl__try(cl, t, &c, k == 3 || k == 5, err);
    }
    return st;
}

/* All classes are by `way` now. */
static vgs_status vgs_cl__test_way(vgs_cl *cl, vgs_cl__test *t, int way, vgs_error *err)
{
    vgs_status st = vgs_cl__test_products(cl, t, err);
#ifdef VGS_CL_CLBLAST
    int form;
    for (form = 0; form < 3 && st == VGS_OK && way == VGS_CL__BY_CLBLAST; ++form)
        st = vgs_cl__test_large(cl, form, err);
#endif
    (void)way;
    return st;
}

/* Ways to make products that fail are not used; the one for any device must not. Tests those that a known
   choice names, else all. */
static vgs_status vgs_cl__test_ways(vgs_cl *cl, vgs_cl__test *t, bool known, vgs_error *err)
{
    unsigned char chosen[VGS_CL__CLASSES];
    vgs_status st;
    int way;
    memcpy(chosen, cl->way, sizeof chosen);
    for (way = VGS_CL__WAYS - 1; way >= 0 && !cl->lost; --way) {
        const bool wanted = !known || way == VGS_CL__BY_TILE || memchr(chosen, way, sizeof chosen);
        if (!cl->can[way] || !wanted) continue;
        vgs_cl__all_by(cl, way);
        st = vgs_cl__test_way(cl, t, way, err);
        if (st != VGS_OK && way == VGS_CL__BY_TILE) return st;
        if (st != VGS_OK) cl->can[way] = false;
    }
    memcpy(cl->way, chosen, sizeof chosen);
    return cl->lost ? vgs_cl__lost(cl, err) : VGS_OK;
}

static vgs_status vgs_cl__self_test(vgs_cl *cl, bool known_choice, vgs_error *err)
{
    vgs_cpu_config one = { 1, VGS_ISA_AUTO };
    vgs_rng r = { 1, 0, 0 };
    vgs_cl__test t;
    vgs_status st = VGS_E_NOMEM;
    memset(&t, 0, sizeof t);
    t.cpu = vgs_cpu_create(&one, err);
    t.x = (float *)vgs__alloc_or(err, "self-test", 3 * VGS_CL__TEST, sizeof *t.x);
    t.b = vgs_cl__take(cl, VGS_CL__TEST, err);
    if (t.cpu && t.x && t.b) {
        t.want = t.x + VGS_CL__TEST;
        t.got = t.want + VGS_CL__TEST;
        vgs_rng_normals(&r, t.x, VGS_CL__TEST);
        memset(t.x + 1300, 0xFF, (VGS_CL__TEST - 1300) * sizeof *t.x);       /* NaN: outputs are not read */
        st = vgs_cl__test_ways(cl, &t, known_choice, err);
        if (st == VGS_OK) st = vgs_cl__test_others(cl, &t, err);
    }
    vgs_cl__drop(cl, t.b);
    vgs__free(t.x);
    vgs_cpu_free(t.cpu);
    return st;
}

/* ==== the choice of products: measured once, then kept on disk ======================================= */

static const char *const vgs_cl__way_names[VGS_CL__WAYS] = { "tall", "tile", "clblast" };

/* The user's choice for all shapes. */
static vgs_status vgs_cl__given_way(vgs_cl *cl, const char *name, vgs_error *err)
{
    int way = 0;
    while (way < VGS_CL__WAYS && strcmp(name, vgs_cl__way_names[way])) ++way;
    if (way == VGS_CL__WAYS)
        return vgs__fail(err, VGS_E_ARG, "cl.products = %.40s: must be NULL, tile, tall or clblast", name);
    if (!cl->can[way])
        return vgs__fail(err, VGS_E_ARG, "cl.products = %s: %s", name, way == VGS_CL__BY_TALL
                         ? "only where a group is 1 work-item" : "only in a build with VGS_CL_CLBLAST");
    vgs_cl__all_by(cl, way);
    return VGS_OK;
}

#ifndef VGS_NO_STDIO
static uint64_t vgs_cl__choice_key(const vgs_cl *cl)
{
#ifdef VGS_CL_CLBLAST
    static const int version[3] = { CLBLAST_VERSION_MAJOR, CLBLAST_VERSION_MINOR, CLBLAST_VERSION_PATCH };
    return vgs_cl__hash(cl->key, version, sizeof version);
#else
    return cl->key + 1;
#endif
}

static bool vgs_cl__load_choice(vgs_cl *cl, const vgs_cl_config *cfg)
{
    const uint64_t key = vgs_cl__choice_key(cl);
    char path[600];
    size_t n;
    unsigned char *data = vgs_cl__cache_path(cfg, key, "products", path) ? vgs_cl__load(path, key, &n) : NULL;
    bool good = data && n == sizeof cl->way;
    if (good) memcpy(cl->way, data, sizeof cl->way);
    vgs__free(data);
    for (n = 0; n < sizeof cl->way; ++n) good = good && cl->way[n] < VGS_CL__WAYS && cl->can[cl->way[n]];
    return good;
}

static void vgs_cl__save_choice(const vgs_cl *cl, const vgs_cl_config *cfg)
{
    const uint64_t key = vgs_cl__choice_key(cl);
    char path[600];
    if (vgs_cl__cache_path(cfg, key, "products", path)) vgs_cl__save(path, key, cl->way, sizeof cl->way);
}
#else
static bool vgs_cl__load_choice(vgs_cl *cl, const vgs_cl_config *cfg) { (void)cl; (void)cfg; return false; }
static void vgs_cl__save_choice(const vgs_cl *cl, const vgs_cl_config *cfg) { (void)cl; (void)cfg; }
#endif

/* Before anything is measured: the user's choice or that of before, else what the device's type suggests. */
static vgs_status vgs_cl__set_up_products(vgs_cl *cl, const vgs_cl_config *cfg, bool *known, vgs_error *err)
{
    *known = true;
    if (cfg->products) return vgs_cl__given_way(cl, cfg->products, err);
    if (vgs_cl__load_choice(cl, cfg)) return VGS_OK;
    *known = false;
    vgs_cl__all_by(cl, vgs_cl__our_way(cl));
    return VGS_OK;
}

/* Queues a small command that tells when it ran. */
static bool vgs_cl__stamp(vgs_cl *cl, cl_event *event)
{
    const cl_int zero = 0;
    return clEnqueueFillBuffer(cl->queue, cl->page[cl->parts->page].mem, &zero, sizeof zero,
                               cl->parts->at * 4, sizeof zero, 0, NULL, event) == CL_SUCCESS;
}

/* Seconds on the device of `times` products, by two stamps around them; negative: it cannot tell. */
static double vgs_cl__time_products(vgs_cl *cl, const vgs_cl__trial *t, int times)
{
    const cl_profiling_info end = CL_PROFILING_COMMAND_END, start = CL_PROFILING_COMMAND_START;
    cl_event event[2] = { NULL, NULL };
    cl_ulong from = 0, to = 0;
    bool good = vgs_cl__stamp(cl, &event[0]);
    int k;
    for (k = 0; k < times && good; ++k) good = vgs_cl__matmul(cl, &t->c, NULL) == VGS_OK;
    good = good && vgs_cl__stamp(cl, &event[1]) && clFinish(cl->queue) == CL_SUCCESS &&
           clGetEventProfilingInfo(event[0], end, sizeof from, &from, NULL) == CL_SUCCESS &&
           clGetEventProfilingInfo(event[1], start, sizeof to, &to, NULL) == CL_SUCCESS && to > from;
    for (k = 0; k < 2; ++k) if (event[k]) clReleaseEvent(event[k]);
    return good ? (double)(to - from) * 1e-9 / times : -1.0;
}

/* The fastest way for one class of shapes; CLBlast's must win by a tenth. *spent: seconds, added up. */
static int vgs_cl__fastest(vgs_cl *cl, const vgs_cl__trial *t, int times, double *spent)
{
    double least = -1.0, s, mine;
    int way, round, best = VGS_CL__BY_TILE;
    for (way = 0; way < VGS_CL__WAYS; ++way) {
        if (!cl->can[way]) continue;
        vgs_cl__all_by(cl, way);
        mine = vgs_cl__time_products(cl, t, 1);  /* compiles, packs and warms up                      */
        for (round = 0; round < 3 && mine >= 0.0; ++round) {
            s = vgs_cl__time_products(cl, t, times);
            *spent += s * times;
            if (!round || s < mine) mine = s;
            if (least >= 0.0 && mine > 2.0 * least) break;
        }
        if (!cl->can[way] || mine < 0.0 || (way == VGS_CL__BY_CLBLAST && mine > 0.9 * least)) continue;
        if (least < 0.0 || mine < least) { least = mine; best = way; }
    }
    return best;
}

/* Measures each class of shapes at one of them, in at most some two seconds. A device that cannot tell times,
   is too slow or lacks memory keeps the way that its type suggests. */
static void vgs_cl__measure_products(vgs_cl *cl)
{
    static const struct { int m, n, k, times; } shape[VGS_CL__SIZES] = {
        { 8, 256, 256, 8 }, { 128, 128, 128, 4 }, { 512, 512, 512, 1 }
    };
    unsigned char chosen[VGS_CL__CLASSES];
    vgs_cl__trial t;
    double spent = 0.0;
    int size, form;
    memcpy(chosen, cl->way, sizeof chosen);
    for (size = 0; size < VGS_CL__SIZES; ++size)
        for (form = 0; form < 3 && !cl->lost && spent < 2.0; ++form) {
            if (!vgs_cl__trial_begin(cl, &t, form, shape[size].m, shape[size].n, shape[size].k, NULL))
                chosen[VGS_CL__SIZES * form + size] =
                    (unsigned char)vgs_cl__fastest(cl, &t, shape[size].times, &spent);
            vgs_cl__trial_end(cl, &t);
        }
    memcpy(cl->way, chosen, sizeof chosen);
}

/* Times are told by a queue of its own: the user's may not tell them. */
static vgs_status vgs_cl__choose_products(vgs_cl *cl, const vgs_cl_config *cfg, vgs_error *err)
{
    const cl_command_queue queue = cl->queue;
    cl_int e = CL_SUCCESS;
    int way, ways = 0;
    for (way = 0; way < VGS_CL__WAYS; ++way) ways += cl->can[way];
    clFinish(queue);
    if (ways > 1) cl->queue = clCreateCommandQueue(cl->context, cl->device, CL_QUEUE_PROFILING_ENABLE, &e);
    if (ways > 1 && e == CL_SUCCESS) {
        vgs_cl__measure_products(cl);
        clFinish(cl->queue);
        clReleaseCommandQueue(cl->queue);
    }
    cl->queue = queue;
    if (cl->lost) return vgs_cl__lost(cl, err);
    vgs_cl__save_choice(cl, cfg);
    return VGS_OK;
}

/* ==== creation ======================================================================================= */

static vgs_status vgs_cl__find_device(vgs_cl *cl, const vgs_cl_config *cfg, vgs_error *err)
{
    cl_int e = CL_SUCCESS;
    if (!cfg->context != !cfg->queue)
        return vgs__fail(err, VGS_E_ARG, "cl.context and cl.queue: give both or none");
    cl->own = !cfg->context;
    if (!cl->own) {
        cl->context = (cl_context)cfg->context;
        cl->queue = (cl_command_queue)cfg->queue;
        e = clGetCommandQueueInfo(cl->queue, CL_QUEUE_DEVICE, sizeof cl->device, &cl->device, NULL);
        if (e != CL_SUCCESS)
            return vgs__fail(err, VGS_E_DEVICE, "cl.queue: %s (%d)", vgs_cl__code(e), (int)e);
    } else {
        cl->device = vgs_cl__choose(cfg->device, err);
        if (!cl->device) return VGS_E_DEVICE;
        cl->context = clCreateContext(NULL, 1, &cl->device, NULL, NULL, &e);
        if (e == CL_SUCCESS)
            cl->queue = clCreateCommandQueue(cl->context, cl->device,
                                             cfg->profile ? CL_QUEUE_PROFILING_ENABLE : 0, &e);
        if (e != CL_SUCCESS)
            return vgs__fail(err, VGS_E_DEVICE, "OpenCL: a context and queue cannot be made: %s (%d)",
                             vgs_cl__code(e), (int)e);
    }
    cl->profiled = cfg->profile && cl->own;
    vgs_cl__describe(cl->device, cl->name);
    return VGS_OK;
}

static vgs_status vgs_cl__measure_device(vgs_cl *cl, const vgs_cl_config *cfg, vgs_error *err)
{
    cl_device_type type = 0;
    cl_ulong memory = 0, piece = 0;
    cl_uint units = 1;
    size_t most = 1, argument = 0;
    int want = cfg->work_group;
    clGetDeviceInfo(cl->device, CL_DEVICE_TYPE, sizeof type, &type, NULL);
    clGetDeviceInfo(cl->device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof memory, &memory, NULL);
    clGetDeviceInfo(cl->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof piece, &piece, NULL);
    clGetDeviceInfo(cl->device, CL_DEVICE_MAX_COMPUTE_UNITS, sizeof units, &units, NULL);
    clGetDeviceInfo(cl->device, CL_DEVICE_MAX_WORK_GROUP_SIZE, sizeof most, &most, NULL);
    clGetDeviceInfo(cl->device, CL_DEVICE_MAX_PARAMETER_SIZE, sizeof argument, &argument, NULL);
    if (want < 0 || want > 256 || (want & (want - 1)))
        return vgs__fail(err, VGS_E_ARG, "cl.work_group = %d: must be 0 (by device) or a power of two, "
                         "1..256", want);
    if (argument < 1024)
        return vgs__fail(err, VGS_E_DEVICE, "%.80s takes %d bytes of kernel arguments, 1024 are needed",
                         cl->name, (int)argument);
    cl->on_cpu = want == 1 || (!want && (type & CL_DEVICE_TYPE_CPU));
    cl->wg = want ? want : cl->on_cpu ? 1 : 64;
    while ((size_t)cl->wg > most) cl->wg /= 2;
    cl->can[VGS_CL__BY_TALL] = cl->wg == 1;
    cl->can[VGS_CL__BY_TILE] = true;
#ifdef VGS_CL_CLBLAST
    cl->can[VGS_CL__BY_CLBLAST] = true;
#endif
    cl->units = (int)units;
    cl->memory = (size_t)memory;
    cl->most_alloc = (size_t)piece;
    cl->page_floats = cfg->page_floats;
    cl->log = cfg->log;
    cl->log_size = cfg->log_size;
    return VGS_OK;
}

/* What the backend itself keeps on the device; it makes the first page. */
static vgs_status vgs_cl__own_buffers(vgs_cl *cl, vgs_error *err)
{
    const size_t keep = cl->page_floats;
    cl_int none[VGS_CL__CHECKS];
    vgs_status st;
    int k;
    for (k = 0; k < VGS_CL__CHECKS; ++k) none[k] = 0x7FFFFFFF;
    if (cl->page_floats && cl->page_floats < 2048) cl->page_floats = 2048;
    cl->rows_bad = vgs_cl__take(cl, VGS_CL__CHECKS, err);
    cl->parts = cl->rows_bad ? vgs_cl__take(cl, 512, err) : NULL;
    if (!cl->parts) return VGS_E_NOMEM;
    st = vgs_cl__upload(cl, (vgs_buffer *)(void *)cl->rows_bad, 0, none, VGS_CL__CHECKS, VGS_I32, err);
    cl->page_floats = keep;
    return st;
}

VGS__DEF vgs_backend *vgs_cl_create(const vgs_cl_config *cfg, vgs_error *err)
{
    vgs_cl_config standard;
    vgs_cl *cl = (vgs_cl *)vgs__alloc_or(err, "OpenCL backend", 1, sizeof *cl);
    vgs_status st;
    bool known = false;
    memset(&standard, 0, sizeof standard);
    if (!cfg) cfg = &standard;
    if (!cl) return NULL;
    cl->base.self = cl;
    cl->base.buffer_create = vgs_cl__buffer_create;
    cl->base.buffer_free = vgs_cl__buffer_free;
    cl->base.upload = vgs_cl__upload;
    cl->base.download = vgs_cl__download;
    cl->base.run = vgs_cl__run;
    cl->base.finish = vgs_cl__finish;
    cl->base.run_list = vgs_cl__run_list;
    st = vgs_cl__find_device(cl, cfg, err);
    if (st == VGS_OK) st = vgs_cl__measure_device(cl, cfg, err);
    if (st == VGS_OK) st = vgs_cl__build(cl, cfg, err);
    if (st == VGS_OK) st = vgs_cl__own_buffers(cl, err);
    if (st == VGS_OK) st = vgs_cl__set_up_products(cl, cfg, &known, err);
    if (st == VGS_OK) st = vgs_cl__self_test(cl, known, err);
    if (st == VGS_OK && !known) st = vgs_cl__choose_products(cl, cfg, err);
    if (st != VGS_OK) {
        vgs_cl_free(&cl->base);
        return NULL;
    }
    vgs_cl_reset(&cl->base);
    return &cl->base;
}

VGS__DEF void vgs_cl_free(vgs_backend *b)
{
    vgs_cl *cl = b ? vgs_cl__of(b) : NULL;
    vgs_cl__source *s;
    int k;
    if (!cl) return;
    if (cl->queue) clFinish(cl->queue);
    vgs_cl__harvest(cl);
    while ((s = cl->source) != NULL) {
        cl->source = s->next;
        vgs_cl__source_free(s);
    }
    for (k = 0; k < VGS_CL__PAGES; ++k) {
        while (cl->page[k].first) {
            vgs_cl__buffer *first = cl->page[k].first;
            cl->page[k].first = first->next;
            vgs__free(first);
        }
        if (cl->page[k].mem) clReleaseMemObject(cl->page[k].mem);
    }
    for (k = 0; k < VGS_CL__KERNEL_COUNT; ++k) if (cl->kernel[k]) clReleaseKernel(cl->kernel[k]);
    if (cl->program) clReleaseProgram(cl->program);
#ifdef VGS_CL_CLBLAST
    if (cl->used_clblast) CLBlastClearCache();   /* it knows contexts by address, which may come again */
#endif
    if (cl->own && cl->queue) clReleaseCommandQueue(cl->queue);
    if (cl->own && cl->context) clReleaseContext(cl->context);
    vgs__free(cl->host);
    vgs__free(cl);
}

VGS__DEF const char *vgs_cl_device(const vgs_backend *b) { return vgs_cl__of(b)->name; }
VGS__DEF vgs_cl_counts vgs_cl_counted(const vgs_backend *b) { return vgs_cl__of(b)->count; }

VGS__DEF void vgs_cl_reset(vgs_backend *b)
{
    vgs_cl *cl = vgs_cl__of(b);
    vgs_cl__harvest(cl);
    memset(&cl->count, 0, sizeof cl->count);
    memset(cl->launches, 0, sizeof cl->launches);
    memset(cl->seconds, 0, sizeof cl->seconds);
}

VGS__DEF bool vgs_cl_profile(vgs_backend *b, int i, const char **name, uint64_t *launches, double *seconds)
{
    static const char *const names[VGS_CL__KERNEL_COUNT] = {
#define VGS_CL__NAME(n) #n,
        VGS_CL__KERNELS(VGS_CL__NAME)
#undef VGS_CL__NAME
        "user", "clblast"
    };
    vgs_cl *cl = vgs_cl__of(b);
    if (i < 0 || i >= VGS_CL__KERNEL_COUNT) return false;
    vgs_cl__harvest(cl);
    *name = names[i];
    *launches = cl->launches[i];
    *seconds = cl->seconds[i];
    return true;
}

#ifdef __cplusplus
}
#endif
#endif /* VGS_IMPLEMENTATION */
