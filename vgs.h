/* vgs.h - v0.1.0 - Value Gradient Sampler in C99 - SPDX-License-Identifier: MIT, text at the end

   Given only an energy E(x), learns to draw independent samples of the density exp(-E(x)/tau)/Z.

   Do this in ONE C or C++ file:

       #define VGS_IMPLEMENTATION
       #include "vgs.h"

   and #include "vgs.h" wherever else it is used. (A two-line vgs.c is what build systems like.) Build:

       cc -O2 prog.c -o prog -lm              full speed: the best kernels are chosen at run time
       cc -O2 -fopenmp prog.c -o prog -lm     ... on all cores, with the same bits

   A COMPLETE PROGRAM (examples/ring.c)

       #define VGS_IMPLEMENTATION
       #include "vgs.h"
       #include <stdio.h>

       static int ring(void *user, const float *x, int n, int dim, float *e, float *g)
       {
           int i;                                       // E = (|x|^2 - 4)^2, and its gradient
           (void)user;
           for (i = 0; i < n; ++i) {
               float a = x[i * dim], b = x[i * dim + 1], u = a * a + b * b - 4.0f;
               e[i] = u * u;
               if (g) { g[i * dim] = 4.0f * u * a; g[i * dim + 1] = 4.0f * u * b; }
           }
           return 0;
       }

       int main(void)
       {
           vgs_config c = { 0 };                        // zero means default
           vgs_error err;
           vgs_stats st;
           vgs_sampler *s;
           float x[10][2];
           int i;
           c.energy.eval = ring;
           c.energy.dim = 2;
           c.length_scale = 3.0f;                       // how far samples spread
           s = vgs_sampler_create(&c, &err);
           if (!s || vgs_sampler_train(s, 200, &st, &err) || vgs_sampler_draw(s, NULL, 10, x[0], &err)) {
               fprintf(stderr, "ring: %s\n", err.msg);
               return 1;
           }
           printf("log Z >= %.2f, mean energy %.2f\n", st.elbo, st.energy_mean);
           for (i = 0; i < 10; ++i) printf("%8.3f %8.3f\n", (double)x[i][0], (double)x[i][1]);
           vgs_sampler_free(s);
           return 0;
       }

   WHAT IT IS
       The method of "Value Gradient Sampler" with everything it needs: tensors recorded into a graph,
       reverse-mode gradients, value networks, TD training, targets, metrics, .npy and .safetensors files.

   vgs.h DOES NOT
       call a GPU (another backend may; see >>backend), link anything but libm, start threads of its own
       (OpenMP does, if you compile with it), print, exit, abort, or keep any global state.

   CONTENTS (search for the tag)
       >>errors >>rng >>gemm >>backend >>energy >>graph >>nets >>targets >>metropolis >>mcmc >>sampler
       >>files >>checkpoint >>metrics >>presets

   COMPILE-TIME OPTIONS      where            meaning
       VGS_IMPLEMENTATION    one file         the implementation, too
       VGS_STATIC            that file        all functions static
       VGS_MALLOC, VGS_FREE  implementation   both or none; default malloc and free
       VGS_NO_STDIO          everywhere       without files (>>files, >>checkpoint)
       VGS_PORTABLE          implementation   plain C kernels only: the same bits on every processor and
                                              compiler, if built with -ffp-contract=off
       VGS_USE_CBLAS         implementation   products by your cblas_sgemm (#include <cblas.h> before);
                                              bits may then depend on threads and rows
       VGS_ALLOW_FAST_MATH   implementation   do not refuse -ffast-math
       VGS_API               everywhere       linkage of the declarations

   MEMORY
       x_create allocates, x_free(NULL) is fine. A sampler allocates when created; a training iteration and a
       draw without extras and corrections allocate nothing. What a function hands over is freed with
       vgs_free. Pointers in a configuration (energy.user, backend) are borrowed and must outlive the sampler.

   ERRORS
       A status, and one sentence in the caller's vgs_error: "config.s2_end = -1: must be > 0". Nothing is
       printed. Graph calls keep the first failure; vgs_graph_compile reports it.

   THREADS
       One thread at a time for each object (sampler, graph, backend); different objects are independent,
       but objects that share a backend count as one. An energy callback runs on the calling thread unless
       energy.thread_safe is set. Built-in targets may be shared freely.

   REPRODUCIBILITY
       Same build, same machine, same seed: same bits, for any number of threads and however a draw is
       split. Random numbers are functions of (seed, row, step, purpose, iteration); every sum has a fixed
       order. A second draw with the same seed therefore has the same noise: give it a seed of its own.
       On a busy machine OMP_WAIT_POLICY=passive avoids waiting for a core that others use.
       Where a compiler computes floats in more than float precision (FLT_EVAL_METHOD 1 or 2: 32-bit x86
       without SSE) results are right, but their bits may depend on threads and split.

   UNITS AND NAMES
       Energies and tau in the same unit; lengths as in x. Arrays are row-major float, [rows, cols].
       B batch, D = dim, n particles, d space dimension, h hidden width, T steps, t step 0..T-1.

   THE METHOD   ([VGS] section 3; t = 0 is noise, T the sample)
       x_0 ~ N(0, s0^2 I);  z_t = a_t x_t;  x_{t+1} = z_t - mu_t + sqrt(rho_t) s_t a_t eps;
       mu_t = kappa_t (s_t^2 a_t / tau) grad V_t(x_t), at last kappa_t (s_t^2 a_t^2 / tau) grad E(z_t)
       Against the noising chain qt(x_t | x_{t+1}) = N(x_{t+1} / a_t, s_t^2 I) a step costs
           c_t = tau log [ pi(x_{t+1} | x_t) / qt(x_t | x_{t+1}) ];
       what is still to be paid, on average, is the value V_t. Training rolls out B trajectories with a
       target network Vbar and fits V_t(x_t) to
           y_t = c_t + (1 - lambda) Vbar_{t+1}(x_{t+1}) + lambda y_{t+1},   y_T = min(E, energy_max);
       then Vbar <- ema Vbar + (1 - ema) V, one step on s0 along d/ds0 [ mean Vbar_0(s0 eps) - D tau log s0 ],
       and kappa_t, rho_t move towards what minimises the cost of their step. Minimising the control cost
           KL(path || target times the noising chain) = log Z - ELBO
       makes the ELBO the figure to watch: it rises towards log Z, and what is missing is the error. A path
       has the weight w = exp(-E/tau - sum c_t/tau) / p0(x_0), exactly: E[w] = Z.
       With `replay`, every other iteration starts from samples of earlier ones, chosen by weight, which the
       noising chain takes back to a random step: modes that the sampler visits rarely are not forgotten.
       With `slope_loss` the fit is also to what grad V_t should be: along a path of the exact value
       grad V_t(x_t) is the mean of a_t grad V_{t+1}(x_{t+1}), and at last of a_t grad E(x_T), so that
           g_t = a_t [(1 - lambda) grad Vbar_{t+1}(x_{t+1}) + lambda g_{t+1}],  g_T = grad E(x_T),
       D numbers where y_t is one; its gradient takes V at x +- d along the error, no second derivative.
       With `local_noise` the eps of all steps but the last has the covariance I - s_t^2 V_t''(x_t)/tau, V_t''
       the second derivatives of V_t by D differences of its slope, eigenvalues kept within limits: that of
       the exact reverse kernel, narrow across modes and bonds, along which it stays wide. It depends on x_t
       alone: the density of a step stays known.
       With `correct` a draw takes Metropolis-adjusted Langevin steps on V_t in front of step t. They leave
       exp(-V_t/tau) as it is and forget what earlier steps did wrong; log w grows by the change of V_t/tau,
       after which E[w] = Z as before: annealed importance sampling [Neal 2001] along the learned path.
       Particles live in the mean-free subspace (D = (n-1) d): x_0 and every eps are projected.
       Where this is not [VGS], and the fields that give [VGS] (the paper presets set them):
           explicit_drift  mu_t = (s_t^2 a_t^2 / tau) grad V_{t+1}(z_t): right to first order, unstable where
                         A k > 1 (A = s_t^2 a_t^2, k the curvature of V). For the exact value ours leads to
                         the exact mean (Tweedie).
           one_step      a target is one step of fresh noise with the mean of c_t. Ours has the same mean, but
                         c_t + V_{t+1} hardly depends on the noise of the path, so it can be followed to its
                         end, and early steps know the energy at once.
           fixed_kernel  kappa = rho = 1. The exact reverse kernel of a Gaussian has rho = 1/(1 + A k).
           drift_max     |mu_t| has no limit (1e30). Here it is at most drift_max s_t a_t sqrt(D).
           no_base       V is the network alone; here that of a Gaussian is added to an mlp or egnn, and an
                         mlp is blind beyond four standard deviations.

   REFERENCES
       [VGS]  Value Gradient Sampler, arXiv:2502.13280; AISTATS 2026, PMLR 300:3979
       [EGNN] Satorras et al., E(n) Equivariant Graph Neural Networks, arXiv:2102.09844
       [Tancik 2020] Fourier features let networks learn high frequency functions, arXiv:2006.10739
       [PSIS] Vehtari et al., Pareto Smoothed Importance Sampling, arXiv:1507.02646; JMLR 25 (2024)
       [Zhang 2009] Zhang & Stephens, a new estimator for the generalized Pareto, Technometrics 51
       [Salmon 2011] Parallel random numbers: as easy as 1, 2, 3, SC11
       [Geyer 1992] Practical Markov chain Monte Carlo, Statistical Science 7
       [Neal 2001] Annealed importance sampling, Statistics and Computing 11; arXiv:physics/9803008
       [Roberts and Tweedie 1996] Exponential convergence of Langevin distributions, Bernoulli 2
       [Roberts and Rosenthal 2001] Optimal scaling for Metropolis-Hastings algorithms, Statistical Science 16
       [Neal 2011] MCMC using Hamiltonian dynamics, arXiv:1206.1901
       [Hoffman and Gelman 2014] The No-U-Turn sampler, arXiv:1111.4246
       [Vehtari 2021] Rank-normalization, folding, and localization: an improved R-hat, arXiv:1903.08008
       [Syed 2022] Non-reversible parallel tempering, arXiv:1905.02939
*/
#ifndef VGS_H
#define VGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VGS_VERSION_MAJOR 0
#define VGS_VERSION_MINOR 1
#define VGS_VERSION_PATCH 0

#ifndef VGS_API                                   /* decides the linkage of the declarations */
#  if !defined VGS_STATIC
#    define VGS_API extern
#  elif defined __GNUC__ || defined __clang__
#    define VGS_API static __attribute__((unused))
#  else
#    define VGS_API static
#  endif
#endif

#ifdef __cplusplus
extern "C" {
#endif


/* ==== >>errors =====================================================================================
   A function that can fail returns a status (or NULL) and fills the caller's vgs_error with one sentence
   that names the field, the value and the place. `err` is always last and may be NULL. */

typedef enum vgs_status {
    VGS_OK = 0,
    VGS_E_ARG,          /* an argument or field is out of range                          */
    VGS_E_SHAPE,        /* shapes that do not fit together                               */
    VGS_E_NOMEM,        /* out of memory                                                 */
    VGS_E_NONFINITE,    /* NaN or infinity where a finite number is needed               */
    VGS_E_ENERGY,       /* the user's energy callback returned nonzero                   */
    VGS_E_IO,           /* a file cannot be opened, read, written or renamed             */
    VGS_E_FORMAT,       /* a file is not what it should be                               */
    VGS_E_DEVICE,       /* a backend failed                                              */
    VGS_E_CANCELLED     /* the progress callback asked to stop                           */
} vgs_status;

typedef struct vgs_error { vgs_status code; char msg[252]; } vgs_error;

VGS_API const char *vgs_status_name(vgs_status code);                /* "VGS_E_ARG", ...              */

/* ==== >>rng ========================================================================================
   Philox4x32-10 [Salmon 2011]: number i of a stream is a pure function of (seed, stream, i), so the three
   fields below are the whole state: copy it, save it, jump in it. */

typedef struct vgs_rng {
    uint64_t seed;
    uint32_t stream;    /* < 2^24; streams of one seed are independent                   */
    uint64_t pos;       /* blocks of four 32-bit words used so far                       */
} vgs_rng;

VGS_API void     vgs_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);
VGS_API uint64_t vgs_rng_u64(vgs_rng *r);                            /* 64 random bits; one block     */
VGS_API double   vgs_rng_uniform(vgs_rng *r);                        /* in (0,1), 53 bits; one block  */
VGS_API void     vgs_rng_normals(vgs_rng *r, float *out, size_t n);  /* N(0,1); (n+3)/4 blocks        */
VGS_API uint32_t vgs_rng_below(vgs_rng *r, uint32_t n);              /* uniform in 0..n-1, unbiased   */


/* ==== >>gemm =======================================================================================
   Matrix products choose their kernel once per call from what the processor has. Every element of a
   product is the same chain of operations whatever the number of rows, of threads, and its place. */

typedef enum vgs_isa {
    VGS_ISA_AUTO,       /* the best one; the default                                     */
    VGS_ISA_PORTABLE,   /* plain C: every compiler, every processor                      */
    VGS_ISA_NEON,       /* 64-bit ARM                                                    */
    VGS_ISA_AVX2,       /* x86-64 with AVX2 and FMA                                      */
    VGS_ISA_AVX512      /* x86-64 with AVX-512F                                          */
} vgs_isa;

typedef enum vgs_act {
    VGS_ACT_NONE,
    VGS_ACT_RELU,       /* max(x, 0)                                                     */
    VGS_ACT_SIGMOID,    /* 1 / (1 + e^-x)                                                */
    VGS_ACT_TANH,
    VGS_ACT_SILU,       /* x / (1 + e^-x)                                                */
    VGS_ACT_SOFTPLUS    /* log(1 + e^x)                                                  */
} vgs_act;

VGS_API vgs_isa     vgs_cpu_isa(void);               /* the best one this processor and this build have */
VGS_API const char *vgs_isa_name(vgs_isa isa);       /* "portable", "neon", "avx2", "avx512"            */

/* ==== >>backend ====================================================================================
   Where tensors live and ops run. The CPU backend is built in; another one fills this table and is passed
   to the sampler's configuration. Sizes and offsets count elements of 4 bytes (float or int32). A backend
   only ever sees buffers of its own, so its memory need not be the host's. */

typedef enum vgs_type { VGS_F32, VGS_I32 } vgs_type;
typedef struct vgs_buffer vgs_buffer;            /* the backend's own; opaque to everybody else       */

typedef struct vgs_tensor {                      /* element (i,j) is at offset + i*ld + j             */
    vgs_buffer *buf;                             /* NULL = absent (an optional operand)               */
    size_t offset;
    int rows, cols, ld;
} vgs_tensor;

enum { VGS_MAX_IN = 6, VGS_MAX_ATTR = 8 };

/* The op table: what a backend has to run. kind: M = elementwise map, R = rows are independent, W = the
   whole tensor at once. Forward and gradient of each op stand side by side under >>ops. */
#define VGS_OPS(X) \
    X(M, ADD, add)               X(M, SUB, sub)                   X(M, MUL, mul)                \
    X(M, DIV, div)               X(M, AFFINE, affine)             X(M, COMBINE, combine)        \
    X(M, EXP, exp)               X(M, LOG, log)                   X(M, SQRT, sqrt)              \
    X(M, SQUARE, square)         X(M, RECIPROCAL, reciprocal)     X(M, ABS, abs)                \
    X(M, ABS_GRAD, abs_grad)     X(M, SIN, sin)                   X(M, COS, cos)                \
    X(M, RELU, relu)             X(M, RELU_GRAD, relu_grad)       X(M, SILU, silu)              \
    X(M, SOFTPLUS, softplus)     X(M, SIGMOID, sigmoid)           X(M, SIGMOID_GRAD, sigmoid_grad) \
    X(M, TANH, tanh)             X(M, TANH_GRAD, tanh_grad)                                     \
    X(M, CLAMP, clamp)           X(M, CLAMP_GRAD, clamp_grad)     X(M, FILL, fill)              \
    X(M, LOSS, loss)             X(M, LOSS_GRAD, loss_grad)       X(M, MASK_ABOVE, mask_above)  \
    X(M, FILL_INT, fill_int)     X(M, INT_DIV, int_div)                                         \
    X(R, SUM_COLS, sum_cols)     X(R, LOGSUMEXP, logsumexp)       X(R, LAYERNORM, layernorm)    \
    X(R, LAYERNORM_GRAD, layernorm_grad) X(R, LAYERNORM_HAT, layernorm_hat)                     \
    X(R, PAD_COLS, pad_cols)     X(R, CONCAT, concat)             X(R, GATHER, gather)          \
    X(R, SEGMENT_GATHER, segment_gather) X(R, SEGMENT_SUM, segment_sum)                         \
    X(R, PAIR_DISTANCE, pair_distance)   X(R, PAIR_DISTANCE_GRAD, pair_distance_grad)           \
    X(R, REMOVE_MEAN, remove_mean)       X(R, SORT_COLS, sort_cols)  X(R, UNSORT_COLS, unsort_cols) \
    X(R, NORMAL, normal)         X(R, PERMUTATION, permutation)   X(R, LIMIT_ROWS, limit_rows)  \
    X(R, EIGEN, eigen)                                                                          \
    X(R, SPHERE_TANGENT, sphere_tangent) X(R, SPHERE_MOVE, sphere_move)                         \
    X(W, MATMUL, matmul)         X(W, SUM_ROWS, sum_rows)         X(W, SCATTER_ROWS, scatter_rows) \
    X(W, SUM_SQUARES, sum_squares) X(W, ENERGY, energy)           X(W, RESAMPLE, resample)      \
    X(W, STORE, store)           X(M, ADAM, adam)                 X(M, EMA, ema)                \
    X(R, CHECK, check)

typedef enum vgs_op {
    VGS_OP_INPUT, VGS_OP_PARAMS, VGS_OP_STATE, VGS_OP_TABLE, VGS_OP_VIEW, VGS_OP_TAP,  /* never run */
#define VGS_OP_ENUM(kind, ID, name) VGS_OP_##ID,
    VGS_OPS(VGS_OP_ENUM)
#undef VGS_OP_ENUM
    VGS_OP_COUNT
} vgs_op;

VGS_API const char *vgs_op_name(int op);

typedef struct vgs_call {                        /* one op, ready to run                              */
    int op;                                      /* vgs_op                                            */
    vgs_tensor out, out2, in[VGS_MAX_IN];        /* out2: second output, absent if nobody wants it    */
    int   i[VGS_MAX_ATTR];                       /* integer attributes: see the op's entry            */
    float f[VGS_MAX_ATTR];                       /* real attributes and run-time scalars              */
    const struct vgs_energy *energy;             /* VGS_OP_ENERGY only                                */
    int   group, parts;                          /* see run_list                                      */
    bool  local;                                 /* out and out2 are read within this group only      */
                                                 /* (another part may then reuse their place)         */
} vgs_call;

typedef struct vgs_backend {
    void *self;                                  /* first argument of every function below            */
    vgs_buffer *(*buffer_create)(void *self, size_t n, vgs_error *err);              /* zeroed        */
    void        (*buffer_free)  (void *self, vgs_buffer *b);                         /* NULL is fine  */
    vgs_status  (*upload)  (void *self, vgs_buffer *dst, size_t offset, const void *src, size_t n,
                            vgs_type type, vgs_error *err);
    vgs_status  (*download)(void *self, void *dst, vgs_buffer *src, size_t offset, size_t n,
                            vgs_type type, vgs_error *err);
    vgs_status  (*run)     (void *self, const vgs_call *call, vgs_error *err);
    vgs_status  (*finish)  (void *self, vgs_error *err);                             /* wait for all  */
    /* Optional, NULL = `run` one after the other. Neighbours of equal `group` need not wait for each other:
       if parts > 0, all rows fall into that many equal parts, and a part depends on the same part of earlier
       calls only; if parts = 0 they do not depend on each other. reserve is told of a list beforehand, with
       the largest batch, so that run_list need not allocate. */
    vgs_status  (*run_list)(void *self, const vgs_call *calls, int n, vgs_error *err);
    vgs_status  (*reserve) (void *self, const vgs_call *calls, int n, vgs_error *err);
} vgs_backend;

typedef struct vgs_cpu_config {
    int     threads;                             /* 0 = all that OpenMP offers; > 1 needs -fopenmp    */
    vgs_isa isa;                                 /* 0 = the best one here                             */
} vgs_cpu_config;

VGS_API vgs_backend *vgs_cpu_create (const vgs_cpu_config *cfg, vgs_error *err); /* cfg may be NULL   */
VGS_API int          vgs_cpu_threads(const vgs_backend *cpu);
VGS_API void         vgs_cpu_free   (vgs_backend *cpu);              /* NULL is fine                  */
VGS_API vgs_status   vgs_cpu_run    (const vgs_backend *cpu, const vgs_call *call, vgs_error *err);
                                                 /* runs a call whose buffers are plain float arrays  */

/* ==== >>energy =====================================================================================
   E(x) of the density exp(-E/tau): a C callback, or a function that records it into a graph.
   Callback: x [n,dim] -> e [n] and, unless g is NULL, g = dE/dx [n,dim]; returns nonzero to fail. Energies
   in double stay so in path weights, log Z, statistics, vgs_energy_check and classical samplers, where a
   constant of E then costs no digits; training rounds them to float. */

typedef struct vgs_graph vgs_graph;
typedef struct vgs_var { uint32_t id; } vgs_var;                     /* {0} = "no value"              */

typedef int vgs_energy_fn  (void *user, const float  *x, int n, int dim, float  *e, float  *g);
typedef int vgs_energy_fn64(void *user, const double *x, int n, int dim, double *e, double *g);
typedef vgs_var vgs_energy_record(void *user, vgs_graph *g, vgs_var x);    /* [B,dim] -> [B,1];        */
                                                 /* vgs_params in it: vgs_bind them there and then     */

typedef struct vgs_energy {                      /* exactly one of eval, eval64, record               */
    vgs_energy_fn     *eval;
    vgs_energy_fn64   *eval64;
    vgs_energy_record *record;
    void *user;                                  /* first argument of the function                    */
    int   dim;                                   /* D: columns of x; required                         */
    int   particles;                             /* n > 0: x is n points side by side, E is invariant */
                                                 /* under translation, D_eff = dim - dim/n            */
    bool  thread_safe;                           /* may be called at once on several blocks of rows   */
} vgs_energy;

/* E of the rows of x [n,dim] into e [n], and dE/dx into g [n,dim] unless NULL. eval and eval64 only. */
VGS_API vgs_status vgs_energy_eval(const vgs_energy *energy, const float *x, int n, float *e, float *g,
                                   int threads, vgs_error *err);
/* Compares dE/dx with central differences of E at the n points x [n,dim]; *worst is the largest
   |difference| / (1 + |gradient|); err names the component when it is not finite. eval and eval64 only. */
VGS_API vgs_status vgs_energy_check(const vgs_energy *e, const float *x, int n, double *worst,
                                    vgs_error *err);

/* ==== >>graph ======================================================================================
   Calls below record ops on [rows, cols] tensors; nothing is computed before vgs_graph_run. Rows are
   either fixed or a multiple of the batch B, which is chosen at every run. The first failure (a shape, a
   stale handle, memory) is kept; every later op returns {0}; vgs_graph_compile reports it with the op's
   name and the shapes. Ops that depend on parameters and tables only form the prologue, which runs
   again only after vgs_graph_touch: what depends on t alone costs T rows, not B.

   A graph: record, ask for gradients, mark outputs, compile once, then bind or set, run, get. */

VGS_API vgs_graph *vgs_graph_create(vgs_error *err);
VGS_API void       vgs_graph_free  (vgs_graph *g);                   /* NULL is fine                  */
VGS_API void       vgs_graph_reset (vgs_graph *g);                   /* forget all; handles go stale  */
VGS_API vgs_status vgs_graph_status(const vgs_graph *g, vgs_error *err);   /* the first failure       */
VGS_API void       vgs_shape(const vgs_graph *g, vgs_var v, int *rows, int *cols);
                                                 /* rows < 0: -rows times the batch                   */
/* leaves; inputs, indices and parameters must be set or bound before the first run */
VGS_API vgs_var vgs_input (vgs_graph *g, int cols);                  /* [B,cols] float                */
VGS_API vgs_var vgs_index (vgs_graph *g);                            /* [B,1] int32                   */
VGS_API vgs_var vgs_params(vgs_graph *g, int n);                     /* [1,n]: flat parameters        */
VGS_API vgs_var vgs_state (vgs_graph *g, int rows, int cols, vgs_type type);  /* fixed; may be written */
VGS_API vgs_var vgs_table (vgs_graph *g, const float *x, int rows, int cols); /* constant, copied     */
VGS_API vgs_var vgs_table_int(vgs_graph *g, const int32_t *x, int rows, int cols);
VGS_API vgs_var vgs_view  (vgs_graph *g, vgs_var params, int offset, int rows, int cols, int ld);

/* run-time scalars: attributes that may change between runs without recording again */
typedef struct vgs_scalar { uint32_t id; } vgs_scalar;
VGS_API vgs_scalar vgs_scalar_create(vgs_graph *g, double value);
VGS_API void       vgs_scalar_set   (vgs_graph *g, vgs_scalar s, double value);

/* elementwise; binary ops stretch an operand of one row, one column, or both */
VGS_API vgs_var vgs_add     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_sub     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_mul     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_div     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_affine  (vgs_graph *g, vgs_var x, float a, float b);           /* a x + b         */
VGS_API vgs_var vgs_affine_by(vgs_graph *g, vgs_var x, vgs_scalar a, vgs_scalar b);
VGS_API vgs_var vgs_exp     (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_log     (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_sqrt    (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_square  (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_reciprocal(vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_abs     (vgs_graph *g, vgs_var x);               /* gradient 0 at 0               */
VGS_API vgs_var vgs_sin     (vgs_graph *g, vgs_var x);               /* radians; error ~ 1e-7 (1+|x|) */
VGS_API vgs_var vgs_cos     (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_relu    (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_silu    (vgs_graph *g, vgs_var x);               /* x sigmoid(x)                  */
VGS_API vgs_var vgs_softplus(vgs_graph *g, vgs_var x);               /* log(1 + exp x)                */
VGS_API vgs_var vgs_sigmoid (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_tanh    (vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_clamp   (vgs_graph *g, vgs_var x, float lo, float hi); /* gradient 0 outside      */

/* products: w [out,in] as in PyTorch, b [1,out] or {0}; table [T,out] gathered by t [B,1] as the bias */
VGS_API vgs_var vgs_linear   (vgs_graph *g, vgs_var x, vgs_var w, vgs_var b);      /* x w^T + b       */
VGS_API vgs_var vgs_linear_at(vgs_graph *g, vgs_var x, vgs_var w, vgs_var table, vgs_var t);
VGS_API vgs_var vgs_matmul   (vgs_graph *g, vgs_var a, vgs_var b);                 /* a b             */

/* reductions */
VGS_API vgs_var vgs_sum_cols (vgs_graph *g, vgs_var x);              /* [r,c] -> [r,1]                */
VGS_API vgs_var vgs_mean_cols(vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_sum_rows (vgs_graph *g, vgs_var x);              /* [r,c] -> [1,c], in double     */
VGS_API vgs_var vgs_mean_rows(vgs_graph *g, vgs_var x);
VGS_API vgs_var vgs_logsumexp(vgs_graph *g, vgs_var x);              /* over columns, -> [r,1]        */
VGS_API vgs_var vgs_layernorm(vgs_graph *g, vgs_var x, vgs_var gain, vgs_var bias); /* eps 1e-5       */

/* shape, gather, segments */
VGS_API vgs_var vgs_reshape  (vgs_graph *g, vgs_var x, int cols);    /* same elements, other columns  */
VGS_API vgs_var vgs_cols     (vgs_graph *g, vgs_var x, int first, int n);          /* x[:, first..]   */
VGS_API vgs_var vgs_concat   (vgs_graph *g, vgs_var a, vgs_var b);   /* columns of a, then of b       */
VGS_API vgs_var vgs_gather   (vgs_graph *g, vgs_var x, vgs_var idx); /* row idx[i] of x; an index is    */
                                                                     /* dense, and must lie in range   */
/* every sample owns n rows of x; e-th row of its m new ones is its row which[e] (m = length of which) */
VGS_API vgs_var vgs_segment_gather(vgs_graph *g, vgs_var x, int n, const int32_t *which, int m);
VGS_API vgs_var vgs_segment_sum   (vgs_graph *g, vgs_var x, int n, const int32_t *which, int m); /* adjoint */

/* particles: x [B, n*d], n points of d coordinates side by side; pairs (0,1) (0,2) .. (1,2) .. */
VGS_API vgs_var vgs_pair_distance(vgs_graph *g, vgs_var x, int n);   /* [B, n(n-1)/2]; safe at r = 0  */
VGS_API vgs_var vgs_remove_mean  (vgs_graph *g, vgs_var x, int n);   /* subtracts the mean point      */
VGS_API vgs_var vgs_sort_cols    (vgs_graph *g, vgs_var x);          /* each row, descending          */

/* losses, elementwise */
typedef enum vgs_loss { VGS_SMOOTH_L1, VGS_L2, VGS_L1 } vgs_loss;    /* smooth_l1: delta = 1          */
VGS_API vgs_var vgs_loss_of(vgs_graph *g, vgs_var prediction, vgs_var target, vgs_loss kind);

/* a C energy as an op: [B,dim] -> [B,1]; differentiable; `energy` is borrowed */
VGS_API vgs_var vgs_energy_of(vgs_graph *g, const vgs_energy *energy, vgs_var x);

/* gradients: d(sum of y)/dx_k -> gx[k], recorded as ops; x: inputs or recorded values, not vgs_params */
VGS_API vgs_status vgs_gradient(vgs_graph *g, vgs_var y, const vgs_var *x, int n, vgs_var *gx);
/* d(sum of y)/d(params) is written into `grad`, a vgs_state of the parameters' shape, at every run */
VGS_API vgs_status vgs_gradient_params(vgs_graph *g, vgs_var y, vgs_var params, vgs_var grad);

/* compile and run */
VGS_API void       vgs_output(vgs_graph *g, vgs_var v);              /* keep v for vgs_get            */
VGS_API vgs_status vgs_graph_compile(vgs_graph *g, vgs_backend *backend, int capacity, vgs_error *err);
VGS_API size_t     vgs_graph_bytes(const vgs_graph *g);              /* memory taken by compile       */
VGS_API int        vgs_graph_ops  (const vgs_graph *g, bool prologue);   /* launches of a run         */
VGS_API vgs_status vgs_bind(vgs_graph *g, vgs_var leaf, vgs_buffer *buf, size_t offset, vgs_error *err);
VGS_API vgs_status vgs_set (vgs_graph *g, vgs_var leaf, const void *x, int batch, vgs_error *err);
VGS_API vgs_status vgs_get (vgs_graph *g, vgs_var v, void *x, int batch, vgs_error *err);
                                                 /* an output, a leaf, or another view of one          */
VGS_API void       vgs_graph_touch(vgs_graph *g);                    /* parameters or tables changed  */
VGS_API vgs_status vgs_graph_run(vgs_graph *g, int batch, vgs_error *err);

/* ==== >>nets =======================================================================================
   Value networks V(x,t). A vgs_net is an immutable description; its weights are one flat array that the
   caller owns, laid out as vgs_net_param lists them, under the names of the reference implementation. */

typedef enum vgs_net_kind {
    VGS_NET_MLP,        /* ours: every layer's bias is a function of t                   */
    VGS_NET_TEMB,       /* the four networks of the reference implementation             */
    VGS_NET_DEEPER,
    VGS_NET_DEEPERV2,
    VGS_NET_DEEPERV3,
    VGS_NET_EGNN        /* messages on squared distances between particles; invariant    */
} vgs_net_kind;

typedef enum vgs_wrapper {
    VGS_WRAPPER_NONE,
    VGS_WRAPPER_SORTED,      /* the network sees sqrt(r^2 + 1) of all pairs, sorted descending */
    VGS_WRAPPER_RECIPROCAL   /* ... 1/sqrt(r^2 + 1)                                            */
} vgs_wrapper;

typedef struct vgs_net_config {
    vgs_net_kind kind;
    int dim;                 /* D, columns of x; required                                       */
    int hidden;              /* h; 128                                                          */
    int layers;              /* MLP: hidden layers, 3; EGNN: message rounds, 2                  */
    int time_dim;            /* m, width of the sinusoid: even, >= 4; 64                        */
    int time_hidden;         /* f, width of te in MLP, deeper and deeperv3; hidden              */
    int particles;           /* n, for a wrapper or EGNN                                        */
    vgs_wrapper wrapper;
    bool relu;               /* MLP: ReLU in place of SiLU                                      */
    bool move_coordinates;   /* EGNN: layers also move the points                               */
    float x_scale;           /* MLP: the network sees x, or what the wrapper gives, over x_scale; 1 */
    int windows;             /* Gaussians of deviation x_scale, x_scale apart, for narrow features; */
                             /* 0. MLP: of every number it sees, centred around 0, with a wrapper   */
                             /* from 0 on; EGNN: messages see them beside r^2, of r, from 0 on      */
} vgs_net_config;

typedef struct vgs_param_info {
    char name[64];
    int offset, rows, cols;  /* [rows, cols]; rows = 0: a vector of cols numbers                */
} vgs_param_info;

typedef struct vgs_net vgs_net;
VGS_API vgs_net *vgs_net_create(const vgs_net_config *cfg, vgs_error *err);
VGS_API void     vgs_net_free  (vgs_net *net);                       /* NULL is fine                  */
VGS_API vgs_net_config vgs_net_configuration(const vgs_net *net);    /* with defaults filled in       */
VGS_API int      vgs_net_size  (const vgs_net *net);                 /* number of weights             */
VGS_API int      vgs_net_params(const vgs_net *net);                 /* number of named arrays        */
VGS_API const vgs_param_info *vgs_net_param(const vgs_net *net, int i);
/* PyTorch's: weights and biases of a Linear uniform in +-1/sqrt(fan_in), LayerNorm 1 and 0. w: [size] */
VGS_API void     vgs_net_init  (const vgs_net *net, vgs_rng *r, float *w);
/* V [B,1] of x [B,dim] at step t [B,1] in 0..steps-1. All that depends on t alone is a table of `steps`
   rows in the prologue (exact savings: equal to rounding to the direct form). */
VGS_API vgs_var vgs_net_apply(vgs_graph *g, const vgs_net *net, vgs_var params, vgs_var x, vgs_var t,
                              int steps);

/* ==== >>targets ====================================================================================
   A target is an energy E on R^D with what is known about it; its density at temperature tau is
   exp(-E/tau)/Z. Nine are built in (tau = 1), immutable and shared: four-gauss gmm9 gmm25 gmm40 funnel
   manywell32 dw4 lj13 lj55. For one of your own, zero a vgs_target and fill name, dim, eval, user and,
   if x is a configuration of particles, particles and space_dim. The built-in energies are reentrant: they
   may be called from several threads. */

typedef struct vgs_target {
    const char    *name;
    const char    *summary;       /* one line for people                                              */
    int            dim;           /* D, floats in a row; a particle's coordinates are side by side    */
    int            particles;     /* n points in d dimensions, D = n d; 0 if x is a single point      */
    int            space_dim;     /* d; 0 if x is a single point                                      */
    vgs_energy_fn *eval;          /* the energy; as in vgs_energy                                     */
    void          *user;          /* first argument of eval                                           */
    bool           exact_samples; /* vgs_target_sample works                                          */
    bool           log_z_known;   /* then log q(x) = -E(x) - log_z is the exact density at tau = 1    */
    double         log_z;
    int            modes;         /* equal modes of a mixture, see vgs_target_mode; 0 if no mixture   */
    double         length_scale;  /* typical spread of a coordinate; 0 = not known                    */
    double         plot_half;     /* 2-D: [-plot_half, plot_half]^2 shows the target; else 0          */
    const struct vgs__builtin *builtin;                                  /* NULL in a target of yours */
} vgs_target;

VGS_API const vgs_target *vgs_target_at(int i);                          /* NULL past the last one    */
VGS_API const vgs_target *vgs_target_find(const char *name);             /* NULL if there is none     */
VGS_API double vgs_target_std(const vgs_target *t, int i);            /* of coordinate i; NaN if not known */
VGS_API void   vgs_target_mode(const vgs_target *t, int k, float *x); /* x: [dim], centre of mode k        */

/* n exact, independent samples: x [n,dim]. VGS_E_ARG if exact_samples is false. */
VGS_API vgs_status vgs_target_sample(const vgs_target *t, vgs_rng *r, int n, float *x, vgs_error *err);

/* n reference samples at tau = 1: exact ones where they exist, else vgs_metropolis with settings that were
   checked for the built-in targets. Particles: each row has mean 0; rows of built-in ones are turned,
   reflected and permuted at random. Any part of the rows is as good a sample as the whole. threads 0 is
   all. */
VGS_API vgs_status vgs_target_reference(const vgs_target *t, uint64_t seed, int n, float *x, int threads,
                                        vgs_error *err);

/* ==== >>metropolis =================================================================================
   Many independent Metropolis chains. Built-in particles move one at a time, at the price of n - 1 pair
   terms; any other energy is called once for a move of all chains, on the calling thread. While burning in,
   the temperature falls from `hot` times tau to tau (so that clusters form from random starts) and each
   chain fits its step to an acceptance of 0.3; after that both are fixed. A zeroed field takes the default
   shown. The result depends on the seed, not on the number of threads. */

typedef struct vgs_metropolis_config {
    const vgs_target *target;     /* required                                                         */
    int               chains;     /* 64, but no more than n                                           */
    int               burn_in;    /* sweeps before the first sample; 4000                             */
    int               thin;       /* sweeps from one sample of a chain to the next; 50                */
    double            tau;        /* temperature; 1                                                   */
    double            hot;        /* where the temperature starts, in units of tau, >= 1; 4           */
    double            step;       /* first step size; length_scale / 2                                */
    const float      *start;      /* [chains,dim]; NULL: normal numbers times length_scale            */
    uint64_t          seed;
    int               threads;    /* 0 = all                                                          */
} vgs_metropolis_config;

typedef struct vgs_metropolis_stats {
    double acceptance;            /* of the moves after burn-in                                       */
    double energy_calls;          /* energies computed; for built-in particles, pair terms / (n(n-1)/2) */
    double energy_mean;           /* of the samples                                                   */
    double energy_error;          /* its standard error, from the means of the chains                 */
} vgs_metropolis_stats;

/* x: [n,dim], row i from chain i modulo chains, particles with mean 0. stats may be NULL. */
VGS_API vgs_status vgs_metropolis(const vgs_metropolis_config *cfg, int n, float *x,
                                  vgs_metropolis_stats *stats, vgs_error *err);

/* ==== >>mcmc =======================================================================================
   Classical samplers of exp(-E/tau) for any energy with a C callback, as baseline, reference and refinement.
   All chains move at once, so that a callback sees many rows. A zeroed field takes the default shown.

   hmc         leapfrog steps from a fresh momentum, then accept or stay [Neal 2011]; their number is uniform
               in 1..2 leapfrog - 1, so that no period resonates
   mala        one such step: Langevin with the right density [Roberts and Tweedie 1996]
   metropolis  a normal step in all coordinates; needs no gradient (vgs_metropolis, which moves the built-in
               particles one by one, is faster for these)
   lmc         a Langevin step that is always taken: the density is wrong by O(step^2)
   pt          parallel tempering: each chain is a ladder of replicas, their densities going from
               N = N(0, length_scale^2), drawn exactly, to exp(-E/tau) by N^(1-beta) exp(-beta E/tau).
               Neighbours try to swap, even and odd pairs in turn, which is non-reversible; the burn-in
               places the betas so that all pairs are refused equally often [Syed 2022]. As N is normalised,
               log Z comes with it: the product of the steps' mean weights (stepping stones)

   Forces are limited to 2 (sqrt(D) + 4)/step, D the dimension (D_eff for particles), which a stable step only
   meets at bad places: a kick by any function of the place keeps volume and can be reversed, so hmc and
   mala stay exact, and a bad start is left quickly.
   Steps are fitted to `acceptance` while burning in, by dual averaging [Hoffman and Gelman 2014, 3.2] of
   the mean over all chains, then fixed. Particles stay in the mean-free subspace; log Z is that of this
   subspace. An energy that is not finite is never moved to. Random numbers are functions of (seed, chain,
   level, iteration): the result does not depend on threads. A recorded energy (energy.record) has no
   callback for these: what remains for it is `refine` of the sampler, and path weights. */

typedef enum vgs_mcmc_method { VGS_HMC, VGS_MALA, VGS_METROPOLIS, VGS_LMC, VGS_PT } vgs_mcmc_method;
VGS_API const char *vgs_mcmc_method_name(int i);         /* "hmc", "mala", ...; NULL past the last one */

typedef struct vgs_mcmc_config {
    vgs_energy   energy;          /* E(x), eval or eval64; required                                   */
    vgs_mcmc_method method;       /* VGS_HMC                                                          */
    vgs_mcmc_method local;        /* of pt, between swaps: VGS_HMC, VGS_MALA or VGS_METROPOLIS        */
    int          chains;          /* chains, or ladders of pt; 16, but no more than n                 */
    int          levels;          /* replicas of a ladder, >= 2; 0 = twice the barrier (about half of */
                                  /* all swaps are then taken), at most 128                           */
    int          burn_in;         /* iterations before the first sample; 1000                         */
    int          thin;            /* iterations from one sample of a chain to the next; 10            */
    int          leapfrog;        /* mean number of leapfrog steps; 10, in pt 5                       */
    double       calls;           /* limit of energy calls: a third at most for the burn-in, and as   */
                                  /* many iterations between samples as it allows; 0 = burn_in, thin  */
    double       tau;             /* temperature; 1                                                   */
    double       length_scale;    /* std of a coordinate, of starts and of N; 1                       */
    double       step;            /* first step size; length_scale / 10. lmc: if given, it stays      */
    double       acceptance;      /* aimed at; hmc 0.8, mala 0.574, metropolis 0.234 [Roberts and     */
                                  /* Rosenthal 2001]; lmc: what mala would accept at its step; 0.9    */
    const float *start;           /* [chains,dim]; NULL: N(0, length_scale^2)                         */
    uint64_t     seed;
    int          threads;         /* 0 = all; used if energy.thread_safe                              */
    bool         shuffle;         /* particles: turn, reflect and permute every sample at random (the */
                                  /* energy must not care): chains do so slowly                       */
    int        (*progress)(void *user, double done);     /* now and then, done in 0..1; nonzero cancels */
    void        *progress_user;
} vgs_mcmc_config;

typedef struct vgs_mcmc_stats {   /* after burn-in, of the density itself (beta = 1)                  */
    double energy_calls;          /* rows evaluated, burn-in included; one with gradient counts as 1  */
    double gradient_calls;        /* of these, with gradient                                          */
    double acceptance, step;
    double energy_mean;           /* of the samples                                                   */
    double energy_se;             /* its standard error, std / sqrt(ESS)                              */
    double rhat, ess;             /* the worst vgs_diagnose of the energy and, of points, every       */
                                  /* coordinate; of particles |x|^2, nearest and farthest pair        */
    int    levels;                /* pt, else 1                                                       */
    double log_z, log_z_se;       /* pt, else NaN; error from the ladders                             */
    double barrier;               /* pt: sum of the neighbours' rates of refusal, about Lambda        */
    double round_trips;           /* pt: replicas that went from N to the target and back             */
    double round_trip_rate;       /* pt: ... per iteration and ladder; 1/(2 + 2 barrier) at best      */
} vgs_mcmc_stats;

/* x: [n,dim], row i from chain i modulo chains; particles have mean 0. stats may be NULL, and must be for
   more than 5e8 rows. VGS_E_NONFINITE: a start has no finite energy. */
VGS_API vgs_status vgs_mcmc(const vgs_mcmc_config *cfg, int n, float *x, vgs_mcmc_stats *stats,
                            vgs_error *err);

/* Moves each row of x [n,dim], in place, by `steps` iterations of hmc, mala or metropolis (of cfg also
   energy, leapfrog, tau, length_scale, step, acceptance, seed, threads are used): what is distributed right
   stays so, what is not comes closer. The step is fitted in the first half of them. log_weight, NULL or
   [n]: rows are first resampled by their weights (systematically: row i comes n w_i/sum w times, rounded up
   or down), so that the result counts equally; a row of weight 0 may be anything. VGS_E_NONFINITE: a row
   that is left has no finite energy; x is then as it was. stats: calls, acceptance, step, energy_mean;
   the rest is NaN. */
VGS_API vgs_status vgs_refine(const vgs_mcmc_config *cfg, int steps, const double *log_weight, int n,
                              float *x, vgs_mcmc_stats *stats, vgs_error *err);

/* Do chains agree, and how many independent values are theirs worth? v: [draws,chains], draws >= 4. Each
   chain is split into halves [Vehtari 2021]. NaN if v is constant or not finite. */
typedef struct vgs_diagnosis {
    double mean, mean_se;         /* std / sqrt(ESS of v itself)                                      */
    double rhat;                  /* split R-hat, rank-normalised; the larger of bulk and folded      */
    double ess;                   /* bulk ESS: of the rank-normalised values                          */
} vgs_diagnosis;
VGS_API vgs_status vgs_diagnose(const double *v, int draws, int chains, vgs_diagnosis *out, vgs_error *err);

/* ==== >>sampler ====================================================================================
   Noise x_0 ~ N(0, s0^2) becomes a sample x_T of exp(-E/tau) in T steps; the drift of each is the gradient
   of a value network, trained by temporal differences. Method: the top comment. A zeroed field takes the
   default shown; a value out of range is VGS_E_ARG with the field's name. The same names are the examples'
   flags (--s2-start) and the checkpoint's metadata. */

typedef enum vgs_schedule { VGS_EXP, VGS_LINEAR, VGS_QUAD, VGS_SIGMOID, VGS_CONSTANT } vgs_schedule;
typedef enum vgs_alpha    { VGS_VE, VGS_VP } vgs_alpha;              /* variance exploding, preserving */

typedef struct vgs_config {
    vgs_energy     energy;        /* E(x); required. A record function's `user` must outlive the sampler   */
    vgs_net_config net;           /* V(x,t); dim and particles are taken from energy                       */
    float  length_scale;          /* how far samples spread (std of a coordinate), for the defaults of     */
    float  detail_scale;          /* s2_start, s2_end, steps; width of the finest feature; 1, length/10    */
    int    steps;                 /* T; D ln(length/detail)^2, within 20..100                              */
    vgs_schedule schedule;        /* VGS_EXP                                                               */
    float  s2_start, s2_end;      /* s_t^2 at t = 0 and T-1, > 0, < 1 if VP; from the two scales           */
    vgs_alpha alpha;              /* VGS_VE                                                                */
    float  init_sigma;            /* s0 at first; sqrt(1 + sum s_t^2) if VE, 1 if VP                       */
    float  tau;                   /* temperature, energy units; 1                                          */
    int    batch;                 /* B trajectories an iteration; 128                                      */
    int    passes;                /* over the B T transitions, an iteration; 1                             */
    float  value_lr;              /* Adam step of V; 5e-4                                                  */
    float  lr_half;               /* iterations in which value_lr halves; 0 = it stays                     */
    float  sigma_lr;              /* Adam step of s0; 0 = s0 stays                                         */
    float  target_ema;            /* in [0,1): share of the old target kept per iteration; 0.9, or 0 with  */
                                  /* one_step (for none pass 1e-30)                                        */
    float  lambda;                /* TD(lambda), in (0,1]: how far a target follows the trajectory before  */
                                  /* it trusts Vbar; 0.9 (0 with one_step)                                 */
    float  explore;               /* noise multiplier while training: of all noise with one_step, else of  */
                                  /* a trajectory's first part, whose length changes; 1                    */
    int    replay;                /* iterations whose samples are kept, to start from again: keeps rare    */
                                  /* modes; 0 = none. Not with one_step                                    */
    int    refine;                /* MALA steps on E that samples take before they are kept; 0             */
    int    correct;               /* MALA steps on V_t in front of every step of a draw that has weights,  */
                                  /* each for one more gradient; 0. Training and vgs_stats take none       */
    float  slope_loss;            /* weight of the loss of grad V, beside that of V: for many dimensions; 0 */
                                  /* Not with one_step, explicit_drift or explore                          */
    vgs_loss loss;                /* VGS_SMOOTH_L1                                                         */
    float  energy_max;            /* E is cut here in the target and, unless unclamped_drift, in the last  */
                                  /* drift; 0 = not cut (to cut at 0 pass 1e-30)                           */
    float  drift_max;             /* limit of |mu_t| in units of s_t a_t sqrt(D); 1.5 (none: 1e30). With  */
                                  /* A = s_t^2 a_t^2 and curvature k of V, TD is unstable where A k > 1    */
    float  grad_max;              /* limit of the global gradient norm; 1 (for no limit pass 1e30)         */
    int    dim_effective;         /* D of the method; dim, dim - dim/n for particles, dim - 1 on a sphere  */
    bool   no_base;               /* V is the network alone; else an mlp or egnn adds to it the value of a */
                                  /* Gaussian of std length_scale, tau |x|^2 / (2 v_t): it confines        */
    bool   one_step;              /* TD targets as published: one step of fresh noise, expected cost       */
    bool   fixed_kernel;          /* kappa_t = rho_t = 1, as published; else both are learned, for each    */
                                  /* dimension, but for particles one pair a step                          */
    bool   explicit_drift;        /* mu_t from grad V_{t+1}(a_t x_t), as published; else grad V_t(x_t)     */
    bool   local_noise;           /* eps has a covariance by x_t: fewer steps do, for dim more gradients   */
                                  /* and dim^2 numbers each. Not with fixed_kernel or explicit_drift       */
    bool   unclamped_drift;       /* the last drift uses the raw gradient above energy_max                 */
    bool   scale_by_dim;          /* the network gives V/D                                                 */
    bool   on_sphere;             /* |x| = 1, moves along great circles, a_t = 1; one_step, fixed_kernel   */
    bool   skip_final_noise;      /* leave out the last noise when drawing (biased: gives the mean)        */
    uint64_t seed;                /* of weights, noise and shuffles; of draws, unless vgs_draw.seed is set */
    int    threads;               /* of the built-in backend: 0 = all; > 1 needs -fopenmp                  */
    vgs_backend *backend;         /* NULL = a CPU backend of the sampler's own                             */
    int  (*progress)(void *user, int64_t iteration);      /* after every iteration; nonzero cancels        */
    void  *progress_user;
} vgs_config;

/* Defaults filled in. err tells the first field that is out of range. */
VGS_API vgs_status vgs_config_resolve(const vgs_config *cfg, vgs_config *resolved, vgs_error *err);

/* The fields as text, for flags, files and tables: steps, s2_start, ..., and the net's: value, hidden, ...
   Past the last one the texts are empty. */
VGS_API const char *vgs_field_name(int i);                           /* NULL past the last one        */
VGS_API const char *vgs_field_help(int i);
VGS_API void        vgs_field_allowed(int i, char text[64]);         /* "1..65535", "> 0", "ve vp"    */
VGS_API vgs_status  vgs_field_set (vgs_config *cfg, const char *name, const char *value, vgs_error *err);
VGS_API void        vgs_field_get (const vgs_config *cfg, int i, char text[32]);

/* s2 [steps], a [steps], both out, or NULL; returns the s0 that training starts from. */
VGS_API double vgs_schedule_fill(const vgs_config *resolved, float *s2, float *a);

typedef struct vgs_stats {        /* after the iterations of a call; from draws of `batch` rows            */
    int64_t iteration;            /* iterations so far, earlier calls included                             */
    double loss;                  /* mean over the minibatches of the last iteration                       */
    double elbo;                  /* lower bound of log Z, from the running cost                           */
    double energy_mean, energy_median, energy_min, energy_max;       /* true energies of finite samples    */
    double nonfinite;             /* share of samples whose energy is not finite                           */
    double clipped;               /* share of samples above energy_max                                     */
    double init_sigma;            /* s0                                                                    */
    double energy_calls;          /* energies evaluated in training so far, rows counted; those of these   */
                                  /* statistics (min(batch, 512), three times a call) are not among them   */
} vgs_stats;

typedef struct vgs_sampler vgs_sampler;
VGS_API vgs_sampler *vgs_sampler_create(const vgs_config *cfg, vgs_error *err);
VGS_API void         vgs_sampler_free  (vgs_sampler *s);             /* NULL is fine                  */
/* n >= 0 more iterations; stats may be NULL. VGS_E_NONFINITE names row and step of the first bad energy:
   nothing is learned from it, and the sampler can still be used. VGS_E_CANCELLED keeps what is done. */
VGS_API vgs_status   vgs_sampler_train (vgs_sampler *s, int n, vgs_stats *stats, vgs_error *err);

typedef struct vgs_draw {
    uint64_t seed;                /* 0 = the sampler's. A draw is a function of weights, seed and row (and */
                                  /* with `correct` of config.seed): the same seed is the same noise again. */
                                  /* Training on draws, as negatives, takes the iteration into the seed    */
    uint32_t first_row;           /* number of the first row: rows 64..127 can be drawn by themselves      */
    float    noise_scale;         /* c on every noise; 1, the sampler itself; below 1 is colder, biased    */
    bool     skip_final_noise;
    float   *path;                /* NULL, or [steps + 1, n, dim]: out, all x_t, where step t begins       */
    float   *energy;              /* NULL, or [n]: out, E(x_T), not cut; log_weight has eval64's digits    */
    double  *log_weight;          /* NULL, or [n]: out, log w; E[w] = Z (vgs_weigh). Not on a sphere, and  */
                                  /* only of the sampler itself: noise_scale 1, final noise on             */
    float    resample;            /* 0, or a share of n in (0,1]: twisted SMC, below. Needs log_weight     */
    int      correct;             /* MALA steps in front of every step: 0 = the configuration's, where     */
                                  /* there are weights; -1 = none                                          */
} vgs_draw;

/* n samples into x [n,dim]; draw may be NULL. E is asked n times, with energy or log_weight 2 n times.
   With `correct` MALA's step sizes are fitted at the first draw after training or loading, on 128 rows that
   only weights and config.seed decide: exactness wants them to know nothing of the rows drawn.
   With `resample` the n rows are one population. In front of step t a row has its weight so far times
   exp(-V_t(x_t)/tau), what is still to come according to the value; where the ESS of these falls below
   resample n, rows are drawn again by them (systematically) and go on as equals. mean(w) is unbiased for Z
   as before (a bad V only makes it worse), and mean(log w) a lower bound. Rows of one call then share
   ancestors: ess counts them as different, and only several calls with other first_row, which are
   independent, give error bars (vgs_weigh makes 20 blocks: let the calls be these). A draw that is split in
   parts is another one. VGS_E_ARG with path: rows have no path of their own. */
VGS_API vgs_status vgs_sampler_draw(vgs_sampler *s, const vgs_draw *draw, int n, float *x, vgs_error *err);

/* The opposite direction: from samples of the target, ref [n,dim] (particles: their mean is taken off), the
   noising chain makes paths back to x_0. log_weight [n], out, is log w of these paths, as exact as that of a
   draw; E[1/w] = 1/Z over them, and mean(log w) >= log Z: vgs_weigh_forward. A mode that the sampler misses
   lowers w there, which a draw cannot see. draw may be NULL; seed, first_row, path and correct count. E is
   asked 2 n times. VGS_E_NONFINITE names the row of ref that has a NaN; VGS_E_ARG where a draw has no
   log_weight. */
VGS_API vgs_status vgs_sampler_score(vgs_sampler *s, const vgs_draw *draw, int n, const float *ref,
                                     double *log_weight, vgs_error *err);

VGS_API const vgs_config *vgs_sampler_config(const vgs_sampler *s);  /* resolved                      */
VGS_API int64_t vgs_sampler_iteration(const vgs_sampler *s);
VGS_API size_t  vgs_sampler_bytes    (const vgs_sampler *s);         /* memory it holds on its backend */

/* ==== >>files ======================================================================================
   Arrays as NumPy's .npy, named tensors as .safetensors, logs as JSON: all open in Python without us.
   Every file is written to a temporary beside it, which replaces the old file only when it is complete,
   so a full disk or a crash leaves the old one. (A device, as /dev/stdout, is written directly.) Readers
   take hostile files: they check each count against the size of the file, and say what is wrong where. */

VGS_API void vgs_free(void *p);                  /* memory that a function here handed over; NULL is fine */

#ifndef VGS_NO_STDIO
#include <stdio.h>

/* Any file, all or nothing: begin, write to `stream`, commit (or discard). Write errors show at commit. */
typedef struct vgs_file {
    FILE *stream;       /* yours to write to; do not close it                            */
    char *path, *temp;  /* private; temp is NULL when a device is written directly       */
    int   error;        /* private; errno of the first write that failed                 */
} vgs_file;

VGS_API vgs_status vgs_file_begin(vgs_file *f, const char *path, vgs_error *err);
VGS_API vgs_status vgs_file_commit(vgs_file *f, vgs_error *err);
VGS_API void       vgs_file_discard(vgs_file *f);                    /* fine after commit, and twice  */
VGS_API vgs_status vgs_file_write(const char *path, const void *data, size_t bytes, vgs_error *err);

/* .npy: x is [rows,cols] in C order. Reads '<f4' and '<f8' (which must fit a float), 2-D, or 1-D as [n,1]. */
VGS_API vgs_status vgs_npy_write(const char *path, const float *x, int rows, int cols, vgs_error *err);
VGS_API vgs_status vgs_npy_read(const char *path, float **x, int *rows, int *cols, vgs_error *err);

typedef enum vgs_dtype {
    VGS_DTYPE_F32, VGS_DTYPE_F64, VGS_DTYPE_F16, VGS_DTYPE_BF16,
    VGS_DTYPE_I64, VGS_DTYPE_I32, VGS_DTYPE_I16, VGS_DTYPE_I8,
    VGS_DTYPE_U64, VGS_DTYPE_U32, VGS_DTYPE_U16, VGS_DTYPE_U8,
    VGS_DTYPE_BOOL
} vgs_dtype;

typedef struct vgs_file_tensor {
    const char *name;
    vgs_dtype   dtype;
    int         ndim;   /* 0 is a single number                                          */
    uint64_t    shape[8];
    size_t      count, bytes;
    const void *data;   /* little-endian as in the file, of any alignment                */
} vgs_file_tensor;

/* Reading .safetensors: the whole file is in memory, checked, until it is freed. Tensors and metadata are
   sorted by name. Files of vgs_writer carry a CRC-32 of everything in them, which is checked here. */
typedef struct vgs_safetensors vgs_safetensors;
VGS_API vgs_safetensors *vgs_safetensors_open(const char *path, vgs_error *err);
VGS_API void             vgs_safetensors_free(vgs_safetensors *s);
VGS_API bool             vgs_safetensors_has_checksum(const vgs_safetensors *s);
VGS_API int              vgs_safetensors_count(const vgs_safetensors *s);
VGS_API const vgs_file_tensor *vgs_safetensors_tensor(const vgs_safetensors *s, int i);  /* NULL: none  */
VGS_API const vgs_file_tensor *vgs_safetensors_find(const vgs_safetensors *s, const char *name);
VGS_API int              vgs_safetensors_meta_count(const vgs_safetensors *s);
VGS_API const char      *vgs_safetensors_meta_key(const vgs_safetensors *s, int i);
VGS_API const char      *vgs_safetensors_meta(const vgs_safetensors *s, const char *key);

/* The n values of a tensor, converted; a missing name, another kind or another count is an error. */
VGS_API vgs_status vgs_safetensors_floats(const vgs_safetensors *s, const char *name, float *out, size_t n,
                                          vgs_error *err);           /* F32, F64                      */
VGS_API vgs_status vgs_safetensors_doubles(const vgs_safetensors *s, const char *name, double *out, size_t n,
                                           vgs_error *err);          /* F32, F64                      */
VGS_API vgs_status vgs_safetensors_i64(const vgs_safetensors *s, const char *name, int64_t *out, size_t n,
                                       vgs_error *err);              /* any integers that fit         */
VGS_API vgs_status vgs_safetensors_u64(const vgs_safetensors *s, const char *name, uint64_t *out, size_t n,
                                       vgs_error *err);
VGS_API vgs_status vgs_safetensors_number(const vgs_safetensors *s, const char *key, double *out,
                                          vgs_error *err);           /* metadata that is a number     */

/* Writing .safetensors. Names are copied, data borrowed until the save. The first error sticks, and
   vgs_writer_save reports it. */
typedef struct vgs_writer vgs_writer;
VGS_API vgs_writer *vgs_writer_create(vgs_error *err);
VGS_API void        vgs_writer_tensor(vgs_writer *w, const char *name, vgs_dtype dtype, int ndim,
                                      const uint64_t *shape, const void *data);
VGS_API void        vgs_writer_meta(vgs_writer *w, const char *key, const char *value);
VGS_API void        vgs_writer_number(vgs_writer *w, const char *key, double value);  /* comes back exactly */
VGS_API vgs_status  vgs_writer_save(vgs_writer *w, const char *path, vgs_error *err);
VGS_API void        vgs_writer_free(vgs_writer *w);

/* JSON to a stream: start with { stream, false }. `key` is NULL inside an array and at the top. Numbers have
   the fewest digits that come back exactly, in any locale; NaN and infinity become null. */
typedef struct vgs_json { FILE *out; bool comma; } vgs_json;
VGS_API void vgs_json_open(vgs_json *j, const char *key, char bracket);               /* '{' or '['       */
VGS_API void vgs_json_close(vgs_json *j, char bracket);                               /* '}' or ']'       */
VGS_API void vgs_json_string(vgs_json *j, const char *key, const char *value);        /* NULL: null       */
VGS_API void vgs_json_double(vgs_json *j, const char *key, double value);
VGS_API void vgs_json_float(vgs_json *j, const char *key, float value);
VGS_API void vgs_json_i64(vgs_json *j, const char *key, int64_t value);
VGS_API void vgs_json_u64(vgs_json *j, const char *key, uint64_t value);
VGS_API void vgs_json_bool(vgs_json *j, const char *key, bool value);
VGS_API void vgs_json_line(vgs_json *j);                                              /* ends a .jsonl line */
#endif /* VGS_NO_STDIO */

/* ==== >>checkpoint =================================================================================
   A sampler as one safetensors file: value.* and value_on.* (the names of the reference implementation's
   state_dict), s2, alpha, init_sigma, and, so that training goes on bit for bit, Adam's moments under vgs.*;
   the metadata holds every field of the configuration, the counters, and pairs of the caller's own. */
#ifndef VGS_NO_STDIO
/* meta: NULL, or key, value, key, value, ..., NULL; keys must not be a field's name or begin with "vgs." */
VGS_API vgs_status vgs_sampler_save(const vgs_sampler *s, const char *path, const char *const *meta,
                                    vgs_error *err);
/* Overwrites the fields of cfg that the file's metadata has; *count tells how many (0: not from us). */
VGS_API vgs_status vgs_checkpoint_config(const char *path, vgs_config *cfg, int *count, vgs_error *err);
/* Into a sampler of the same network and steps: names and shapes are checked, nothing is changed on failure.
   A state_dict without our extras gives weights, schedule and s0; value_on defaults to value. */
VGS_API vgs_status vgs_sampler_load(vgs_sampler *s, const char *path, vgs_error *err);
#endif

/* ==== >>metrics ====================================================================================
   How far samples are from reference samples. No metric is zero for a perfect sampler at finite N: read each
   beside its floor (vgs_evaluate_floor). All depend on N, so both sides are cut to the shorter one. NaN means
   "no value": the metric does not apply to the target, or the samples do not allow it (said below).
   Energies are the target's own, unclamped. A row whose energy is not finite counts as outside of every
   histogram; energy_mean is then not finite either: use energy_median. */

#define VGS_METRICS_MODES 40

typedef struct vgs_metrics {
    int    n;                     /* rows compared                                                    */
    int    n_transport;           /* rows in w2 and sinkhorn: the first 2000                          */
    int    n_aligned;             /* rows in w2_aligned: the first 2000, 500 above 20 particles       */
    int    modes;                 /* entries in mode_weight; 0 if the target is no mixture            */
    double energy_mean;
    double energy_median;
    double reference_energy_mean;
    double delta_std;             /* points: mean over dimensions of |std(x) - std of the target|     */
    double sinkhorn;              /* points: <P, |x - y|>, 100 log-domain rounds at most, eps = 1e-3  */
    double w2;                    /* particles: exact 2-Wasserstein distance of mean-free coordinates */
    double w2_aligned;            /* ... where a distance is that after the best matching of particles */
                                  /*   (unsquared distances), then the best rotation or reflection    */
    double energy_w2;             /* 2-Wasserstein distance of the energies; NaN if one is not finite */
    double outliers;              /* share of the samples above the reference's highest energy        */
    double tvd_e, tvd_d;          /* particles: energies, pair distances; 200 bins over [-100, 100]   */
    double tvd_e_range;           /* energies; 200 bins over the range of the reference               */
    double tvd_d_range;           /* particles: pair distances, likewise                              */
    double outside_e, outside_d;  /* share of the samples' values outside the bins; where it, or the  */
    double outside_e_range;       /*   reference's own, is above 0.4, the histogram gives no value    */
    double outside_d_range;
    double mode_weight[VGS_METRICS_MODES];        /* share of the samples nearest to each mode        */
} vgs_metrics;

/* x: [n,dim] samples, ref: [n_ref,dim] reference samples. w2 and sinkhorn are NaN if a coordinate is not
   finite or a distance overflows a float. threads 0 = all; the figures do not depend on it. */
VGS_API vgs_status vgs_evaluate(const vgs_target *t, const float *x, int n, const float *ref, int n_ref,
                                int threads, vgs_metrics *out, vgs_error *err);

/* What a perfect sampler scores at n rows: mean and standard deviation over 5 pairs of independent reference
   sets; for particles, every configuration of one side is rotated, reflected and permuted at random. With ref
   NULL the sets are made on the spot (10 n rows); else they are ten disjoint parts of ref. *floor_n is their
   size: n, or less where ref has fewer than 10 n rows. spread and floor_n may be NULL. */
VGS_API vgs_status vgs_evaluate_floor(const vgs_target *t, int n, const float *ref, int n_ref, uint64_t seed,
                                      int threads, vgs_metrics *mean, vgs_metrics *spread, int *floor_n,
                                      vgs_error *err);

/* What path weights say (vgs_draw.log_weight): E[w] = Z. At a small ess all of these are wrong by more than
   their errors tell, and a mode that is never drawn is not missed by them: log_z and ess are then those of
   the rest. khat is the shape of a generalised Pareto fitted to the largest weights [PSIS]: below 0.5 w has a
   variance, above 0.7 no error bar can be trusted. An infinite se or khat: n is too small to tell. A weight
   of 0 (-inf: an energy that is infinite) makes elbo -inf; if all are 0, log_z is -inf, too. Never NaN. */
typedef struct vgs_weights {
    double log_z, log_z_se;       /* log mean w, never too high on average; error from 20 blocks      */
    double elbo, elbo_se;         /* mean log w <= log Z                                              */
    double ess;                   /* (sum w)^2 / (n sum w^2), in [1/n, 1]: share of rows that count   */
    double khat;                  /* Pareto shape of the largest min(n/5, 3 sqrt n) weights           */
    int    n;
} vgs_weights;
VGS_API vgs_status vgs_weigh(const double *log_weight, int n, vgs_weights *out, vgs_error *err);

/* The same from samples of the target (vgs_sampler_score), E[1/w] = 1/Z. ess and khat are those of 1/w. */
typedef struct vgs_forward {
    double log_z, log_z_se;       /* -log mean(1/w), never too low on average                         */
    double eubo, eubo_se;         /* mean log w >= log Z                                              */
    double ess, khat;
    int    n;
} vgs_forward;
VGS_API vgs_status vgs_weigh_forward(const double *log_weight, int n, vgs_forward *out, vgs_error *err);

/* One sentence on both, or on one (the other NULL): can the weights be used, and if not, what is wrong?
   "reverse and forward log Z disagree by 2.1 nats: modes are missing" */
VGS_API void vgs_weights_say(const vgs_weights *w, const vgs_forward *f, char text[200]);

/* ==== >>presets ====================================================================================
   Settings for the built-in targets: "paper" = the published ones (four-gauss, gmm9, funnel, dw4, lj13),
   "fast" = ours, for two CPU cores and minutes. The energy is the target's. */

typedef struct vgs_preset_info {
    int   iterations;             /* that the preset is meant to run                                  */
    float noise_scale;            /* of the published evaluation; 1 for ours                          */
    bool  skip_final_noise;       /* likewise                                                         */
} vgs_preset_info;

VGS_API vgs_energy vgs_target_energy(const vgs_target *t);           /* thread_safe if built in    */
VGS_API vgs_status vgs_preset(const vgs_target *t, const char *preset, vgs_config *cfg, vgs_preset_info *info,
                              vgs_error *err);

#ifdef __cplusplus
}
#endif
#endif /* VGS_H */

/* ==== end of interface; implementation below ======================================================= */

#if defined VGS_IMPLEMENTATION && !defined VGS_IMPLEMENTED
#define VGS_IMPLEMENTED

#if defined __FAST_MATH__ && !defined VGS_ALLOW_FAST_MATH
#  error "vgs.h: -ffast-math removes NaN checks; define VGS_ALLOW_FAST_MATH to accept that"
#endif
#if defined VGS_MALLOC != defined VGS_FREE
#  error "vgs.h: define both of VGS_MALLOC and VGS_FREE, or none"
#endif

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#  include <omp.h>
#endif

#ifndef VGS_MALLOC
#  define VGS_MALLOC(bytes) malloc(bytes)
#  define VGS_FREE(p)       free(p)
#endif
#ifdef VGS_STATIC
#  define VGS__DEF VGS_API
#else
#  define VGS__DEF                                /* a definition carries no `extern` */
#endif

/* Speed with one plain command. VGS__HOT marks loops that are written to be vectorised, which gcc does at -O3
   only; all of this file at -O3 would take three times as long to compile. Contraction is off so that an
   element's bits do not depend on where a vector loop ends; the matrix products use fused multiply-adds
   explicitly. -O0 and VGS_PORTABLE leave it to the command line. */
#define VGS__HOT
#if defined __clang__
#  pragma STDC FP_CONTRACT OFF
#elif defined __GNUC__ && defined __OPTIMIZE__ && !defined VGS_PORTABLE && !defined __TINYC__
#  pragma GCC push_options
#  pragma GCC optimize ("fp-contract=off")
#  define VGS__POP_OPTIONS
#  undef VGS__HOT
#  define VGS__HOT __attribute__((optimize("O3", "fp-contract=off")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>util: errors, checked sizes ================================================================ */

#if defined __GNUC__ || defined __clang__
#  define VGS__PRINTF(a, b) __attribute__((format(printf, a, b)))
#  define VGS__INLINE static inline __attribute__((always_inline, unused))
#else
#  define VGS__PRINTF(a, b)
#  define VGS__INLINE static
#endif

VGS__DEF const char *vgs_status_name(vgs_status code)
{
    static const char *const names[] = {
        "VGS_OK", "VGS_E_ARG", "VGS_E_SHAPE", "VGS_E_NOMEM", "VGS_E_NONFINITE",
        "VGS_E_ENERGY", "VGS_E_IO", "VGS_E_FORMAT", "VGS_E_DEVICE", "VGS_E_CANCELLED"
    };
    return (size_t)code < sizeof names / sizeof *names ? names[code] : "unknown status";
}

/* Records the failure and returns `code`, so that a caller can write `return vgs__fail(...)`. */
VGS__PRINTF(3, 4) static vgs_status vgs__fail(vgs_error *err, vgs_status code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

/* All allocations go through these two: count * size is checked, the memory is zeroed and 64-byte
   aligned (the offset to the block is kept just before it). NULL when there is not enough memory. */
static void *vgs__alloc(size_t count, size_t size)
{
    unsigned char *raw, *p;
    size_t bytes, shift;
    if (size && count > ((size_t)-1 - 128) / size) return NULL;
    bytes = count * size;
    raw = (unsigned char *)VGS_MALLOC(bytes + 128);
    if (!raw) return NULL;
    shift = 128 - (size_t)((uintptr_t)raw & 63);
    p = raw + shift;
    p[-1] = (unsigned char)shift;
    memset(p, 0, bytes);
    return p;
}

static void vgs__free(void *p)
{
    unsigned char *b = (unsigned char *)p;
    if (b) VGS_FREE(b - b[-1]);
}

static void *vgs__alloc_or(vgs_error *err, const char *what, size_t count, size_t size)
{
    void *p = vgs__alloc(count, size);
    if (!p)
        vgs__fail(err, VGS_E_NOMEM, "out of memory: %s needs %.0f bytes", what, (double)count * (double)size);
    return p;
}

/* ==== >>math: exp, log, sine and cosine from + - * / sqrt only ======================================
   No libm call inside a loop: these are branch-free, so compilers vectorise them, and they give the same
   bits in every lane, on every processor (with contraction off, which this file asks for). */

#if !defined VGS_PORTABLE && (defined __GNUC__ || defined __clang__) && !defined __TINYC__
#  if defined __x86_64__ && (!defined _WIN32 || defined __clang__) && !defined _MSC_VER
#    define VGS__X86              /* not gcc on Windows: it misaligns 32-byte spills (gcc bug 54412) */
#    include <immintrin.h>
#  elif defined __aarch64__ && !defined __AARCH64EB__
#    define VGS__ARM
#    include <arm_neon.h>
#  endif
#endif

VGS__INLINE float vgs__from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
VGS__INLINE uint32_t vgs__to_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

/* x rounded to a float. A compiler may keep more precision (FLT_EVAL_METHOD 1 or 2: x87, s390x with
   -std=c99), some even across an assignment; but adding 1.5 2^23 rounds to an integer, and 1 + e gives
   Kahan's correction, only as a float. Where floats are evaluated as floats this does nothing. */
VGS__INLINE float vgs__rounded(float x)
{
#if defined FLT_EVAL_METHOD && FLT_EVAL_METHOD == 0
    return x;
#else
    volatile float stored = x;
    return stored;
#endif
}

/* c ? a : b by bits. gcc turns ?: on floats into a branch, which it then does not vectorise. */
VGS__INLINE float vgs__pick(bool c, float a, float b)
{
    uint32_t m = 0u - (uint32_t)c;
    return vgs__from_bits((vgs__to_bits(a) & m) | (vgs__to_bits(b) & ~m));
}

/* exp(x), within 1.1 ulp where the result is normal; 0 below -104, inf above 88.73, NaN stays NaN.
   x = k ln2 + r, |r| <= ln2/2; the power of two is applied in two factors so that k = 128 overflows and
   k < -126 underflows gradually. k is read from the bits of a float: a cast of NaN would be undefined.
   x is cut to [-104, 89] in its bits, which are in order as integers (upwards from 0, downwards from -0). */
VGS__INLINE float vgs__exp(float x)
{
    uint32_t u = vgs__to_bits(x);
    float c, kf, r, p;
    int32_t k, half;
    u = (int32_t)u > 0x42B20000 ? 0x42B20000u : u;
    u = u > 0xC2D00000u ? 0xC2D00000u : u;
    c = vgs__from_bits(u);
    kf = vgs__rounded(c * 1.44269504088896341f + 12582912.0f);
    k = (int32_t)(vgs__to_bits(kf) - 0x4B400000u);
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
    half = k / 2;
    p = p * vgs__from_bits((uint32_t)(half + 127) << 23) * vgs__from_bits((uint32_t)(k - half + 127) << 23);
    return vgs__pick(x == x, vgs__rounded(p), x);
}

/* log(x), within 1 ulp; -inf at 0, NaN below, inf at inf. x = m 2^e with m in [sqrt(1/2), sqrt 2). */
VGS__INLINE float vgs__log(float x)
{
    uint32_t tiny = 0u - (uint32_t)(x < 1.17549435e-38f);            /* denormals: times 2^23 */
    float y = x * vgs__from_bits(0x3F800000u + (tiny & 0x0B800000u));
    uint32_t t = vgs__to_bits(y) - 0x3F3504F3u;                       /* sqrt(1/2) maps to exponent 0 */
    int32_t e = (int32_t)(t >> 23);
    float m, z, p, ef;
    e = e > 255 ? e - 512 : e;                                       /* sign of the 9-bit field */
    m = vgs__from_bits((t & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    ef = (float)(e - (int32_t)(tiny & 23u));
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
    p = vgs__pick(x > 3.402823466e38f, x, p);
    p = vgs__pick(x == 0.0f, vgs__from_bits(0xFF800000u), p);
    return vgs__pick(x >= 0.0f, p, vgs__from_bits(0x7FC00000u));
}

/* sin and cos of 2 pi u, 0 <= u < 1, within 2 ulp of the larger one; u goes to a quarter turn exactly. */
VGS__INLINE void vgs__sincos_turns(float u, float *s, float *c)
{
    float q4 = vgs__rounded(u * 4.0f + 12582912.0f);                 /* nearest quarter turn */
    uint32_t q = vgs__to_bits(q4) & 3u;
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
    a = (q & 1u) ? cs : sn;
    b = (q & 1u) ? sn : cs;
    *s = (q & 2u) ? -a : a;
    *c = ((q + 1u) & 2u) ? -b : b;
}

VGS__INLINE float vgs__sigmoid(float x) { return 1.0f / (1.0f + vgs__exp(-x)); }

VGS__INLINE float vgs__tanh(float x)                                 /* odd; series near 0 keeps the digits */
{
    float a = vgs__from_bits(vgs__to_bits(x) & 0x7FFFFFFFu), z = x * x, e, big, small;
    e = vgs__exp(-2.0f * a);
    big = (1.0f - e) / (1.0f + e);
    small = -5.70498872745e-3f;
    small = small * z + 2.06390887954e-2f;
    small = small * z - 5.37397155531e-2f;
    small = small * z + 1.33314422036e-1f;
    small = small * z - 3.33332819422e-1f;
    small = small * z * x + x;
    big = vgs__from_bits(vgs__to_bits(big) | (vgs__to_bits(x) & 0x80000000u));
    return vgs__pick(a < 0.625f, small, vgs__pick(x == x, big, x));
}

VGS__INLINE float vgs__softplus(float x)                             /* log(1 + e^x) without overflow */
{
    float a = vgs__from_bits(vgs__to_bits(x) | 0x80000000u), e = vgs__exp(a);
    float u = vgs__rounded(1.0f + e), d = u - 1.0f;                  /* log1p by Kahan's correction */
    float l = vgs__pick(d == 0.0f, e, vgs__log(u) * e / (d + (float)(d == 0.0f)));
    return vgs__pick(x > 0.0f, x, 0.0f) + vgs__pick(x == x, l, x);
}

/* ---- the same for eight lanes ----------------------------------------------------------------------
   Operation for operation what stands above, hence the same bits. Without FMA: a contracted exp would
   differ from the same exp elsewhere in this file. */

#ifdef VGS__X86
#  define VGS__AVX2 __attribute__((target("avx2")))
#  define VGS__V8   __attribute__((target("avx2"), always_inline, unused)) static inline

VGS__V8 __m256 vgs__set8(float x) { return _mm256_set1_ps(x); }
VGS__V8 __m256i vgs__int8(int x) { return _mm256_set1_epi32(x); }
VGS__V8 __m256 vgs__axpy8(__m256 a, __m256 b, float c)               /* a b + c                        */
{
    return _mm256_add_ps(_mm256_mul_ps(a, b), vgs__set8(c));
}

VGS__V8 __m256 vgs__exp8(__m256 x)
{
    __m256i u = _mm256_castps_si256(x), k, half;
    __m256 c, kf, r, p;
    u = _mm256_min_epi32(u, vgs__int8(0x42B20000));
    u = _mm256_min_epu32(u, vgs__int8((int)0xC2D00000u));
    c = _mm256_castsi256_ps(u);
    kf = vgs__axpy8(c, vgs__set8(1.44269504088896341f), 12582912.0f);
    k = _mm256_sub_epi32(_mm256_castps_si256(kf), vgs__int8(0x4B400000));
    kf = _mm256_sub_ps(kf, vgs__set8(12582912.0f));
    r = _mm256_sub_ps(c, _mm256_mul_ps(kf, vgs__set8(0.693359375f)));
    r = _mm256_sub_ps(r, _mm256_mul_ps(kf, vgs__set8(-2.12194440e-4f)));
    p = vgs__axpy8(vgs__set8(1.9875691500e-4f), r, 1.3981999507e-3f);
    p = vgs__axpy8(p, r, 8.3334519073e-3f);
    p = vgs__axpy8(p, r, 4.1665795894e-2f);
    p = vgs__axpy8(p, r, 1.6666665459e-1f);
    p = vgs__axpy8(p, r, 5.0000001201e-1f);
    p = _mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(p, r), r), r);
    p = _mm256_add_ps(p, vgs__set8(1.0f));
    half = _mm256_srai_epi32(_mm256_sub_epi32(k, _mm256_srai_epi32(k, 31)), 1);   /* k/2, towards zero */
    k = _mm256_sub_epi32(k, half);
    half = _mm256_slli_epi32(_mm256_add_epi32(half, vgs__int8(127)), 23);
    k = _mm256_slli_epi32(_mm256_add_epi32(k, vgs__int8(127)), 23);
    p = _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(half)), _mm256_castsi256_ps(k));
    return _mm256_blendv_ps(x, p, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
}

VGS__V8 __m256 vgs__sigmoid8(__m256 x)
{
    const __m256 one = vgs__set8(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, vgs__exp8(_mm256_xor_ps(x, vgs__set8(-0.0f)))));
}
VGS__V8 __m256 vgs__silu8(__m256 x) { return _mm256_mul_ps(x, vgs__sigmoid8(x)); }
VGS__V8 __m256 vgs__log8(__m256 x)
{
    const __m256 tiny = _mm256_cmp_ps(x, vgs__set8(1.17549435e-38f), _CMP_LT_OQ);
    __m256i t = _mm256_and_si256(_mm256_castps_si256(tiny), vgs__int8(0x0B800000)), e;
    __m256 m, z, p, ef;
    t = _mm256_add_epi32(vgs__int8(0x3F800000), t);
    t = _mm256_castps_si256(_mm256_mul_ps(x, _mm256_castsi256_ps(t)));
    t = _mm256_sub_epi32(t, vgs__int8(0x3F3504F3));
    e = _mm256_srli_epi32(t, 23);
    e = _mm256_sub_epi32(e, _mm256_and_si256(_mm256_cmpgt_epi32(e, vgs__int8(255)), vgs__int8(512)));
    e = _mm256_sub_epi32(e, _mm256_and_si256(_mm256_castps_si256(tiny), vgs__int8(23)));
    t = _mm256_add_epi32(_mm256_and_si256(t, vgs__int8(0x007FFFFF)), vgs__int8(0x3F3504F3));
    m = _mm256_sub_ps(_mm256_castsi256_ps(t), vgs__set8(1.0f));
    ef = _mm256_cvtepi32_ps(e);
    z = _mm256_mul_ps(m, m);
    p = vgs__axpy8(vgs__set8(7.0376836292e-2f), m, -1.1514610310e-1f);
    p = vgs__axpy8(p, m, 1.1676998740e-1f);
    p = vgs__axpy8(p, m, -1.2420140846e-1f);
    p = vgs__axpy8(p, m, 1.4249322787e-1f);
    p = vgs__axpy8(p, m, -1.6668057665e-1f);
    p = vgs__axpy8(p, m, 2.0000714765e-1f);
    p = vgs__axpy8(p, m, -2.4999993993e-1f);
    p = vgs__axpy8(p, m, 3.3333331174e-1f);
    p = _mm256_mul_ps(_mm256_mul_ps(p, m), z);
    p = _mm256_add_ps(p, _mm256_mul_ps(ef, vgs__set8(-2.12194440e-4f)));
    p = _mm256_sub_ps(p, _mm256_mul_ps(vgs__set8(0.5f), z));
    p = _mm256_add_ps(_mm256_add_ps(m, p), _mm256_mul_ps(ef, vgs__set8(0.693359375f)));
    p = _mm256_blendv_ps(p, x, _mm256_cmp_ps(x, vgs__set8(3.402823466e38f), _CMP_GT_OQ));
    z = _mm256_setzero_ps();
    p = _mm256_blendv_ps(p, vgs__set8(vgs__from_bits(0xFF800000u)), _mm256_cmp_ps(x, z, _CMP_EQ_OQ));
    return _mm256_blendv_ps(vgs__set8(vgs__from_bits(0x7FC00000u)), p, _mm256_cmp_ps(x, z, _CMP_GE_OQ));
}

VGS__V8 void vgs__sincos_turns8(__m256 u, __m256 *s, __m256 *c)
{
    const __m256 q4 = vgs__axpy8(u, vgs__set8(4.0f), 12582912.0f);
    const __m256i q = _mm256_castps_si256(q4), two = vgs__int8(2);
    const __m256 odd = _mm256_castsi256_ps(_mm256_slli_epi32(q, 31));
    const __m256i flip_s = _mm256_slli_epi32(_mm256_and_si256(q, two), 30);
    const __m256i flip_c = _mm256_slli_epi32(_mm256_and_si256(_mm256_add_epi32(q, vgs__int8(1)), two), 30);
    __m256 r = _mm256_mul_ps(_mm256_sub_ps(q4, vgs__set8(12582912.0f)), vgs__set8(0.25f)), z, sn, cs;
    r = _mm256_mul_ps(_mm256_sub_ps(u, r), vgs__set8(6.28318530717958648f));
    z = _mm256_mul_ps(r, r);
    sn = vgs__axpy8(vgs__set8(-1.9515295891e-4f), z, 8.3321608736e-3f);
    sn = vgs__axpy8(sn, z, -1.6666654611e-1f);
    sn = _mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(sn, z), r), r);
    cs = vgs__axpy8(vgs__set8(2.443315711809948e-5f), z, -1.388731625493765e-3f);
    cs = vgs__axpy8(cs, z, 4.166664568298827e-2f);
    cs = _mm256_mul_ps(_mm256_mul_ps(cs, z), z);
    cs = _mm256_add_ps(_mm256_sub_ps(cs, _mm256_mul_ps(vgs__set8(0.5f), z)), vgs__set8(1.0f));
    *s = _mm256_xor_ps(_mm256_blendv_ps(sn, cs, odd), _mm256_castsi256_ps(flip_s));
    *c = _mm256_xor_ps(_mm256_blendv_ps(cs, sn, odd), _mm256_castsi256_ps(flip_c));
}

/* The first n <= 8 lanes; the others are 0 when read and stay as they are when written. */
VGS__V8 __m256i vgs__lanes8(int n)
{
    return _mm256_cmpgt_epi32(vgs__int8(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VGS__V8 __m256 vgs__load8(const float *x, int n)
{
    return n >= 8 ? _mm256_loadu_ps(x) : _mm256_maskload_ps(x, vgs__lanes8(n));
}
VGS__V8 void vgs__store8(float *x, int n, __m256 v)
{
    if (n >= 8) _mm256_storeu_ps(x, v);
    else _mm256_maskstore_ps(x, vgs__lanes8(n), v);
}
#endif /* VGS__X86 */

/* ==== >>rng ======================================================================================== */

VGS__INLINE void vgs__philox(uint32_t k0, uint32_t k1, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3,
                             uint32_t *out)
{
    int i;
    for (i = 0; i < 10; ++i) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

VGS__DEF void vgs_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    vgs__philox(key[0], key[1], counter[0], counter[1], counter[2], counter[3], out);
}

/* Four random words to four normals (Box-Muller). The radius keeps all 32 bits: |z| reaches 6.7. */
VGS__INLINE void vgs__normal_pair(uint32_t a, uint32_t b, float *z0, float *z1)
{
    float u = (float)a * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
    float v = (float)(b >> 8) * 5.9604644775390625e-8f, s, c, r;
    r = -2.0f * vgs__log(u);
    r = sqrtf(r < 0.0f ? 0.0f : r);
    vgs__sincos_turns(v, &s, &c);
    *z0 = r * c;
    *z1 = r * s;
}

VGS__INLINE void vgs__normal4(const uint32_t *w, float *z)
{
    vgs__normal_pair(w[0], w[1], z, z + 1);
    vgs__normal_pair(w[2], w[3], z + 2, z + 3);
}

#ifdef VGS__X86
VGS__V8 void vgs__wide_product8(__m256i x, uint32_t by, __m256i *high, __m256i *low)
{
    const __m256i m = vgs__int8((int)by), even = _mm256_mul_epu32(x, m),
                  odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), m);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

/* Eight counters under one key; c becomes the four words of each. */
VGS__V8 void vgs__philox8(uint32_t k0, uint32_t k1, __m256i c[4])
{
    int i;
    for (i = 0; i < 10; ++i, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        __m256i ah, al, bh, bl;
        vgs__wide_product8(c[0], 0xD2511F53u, &ah, &al);
        vgs__wide_product8(c[2], 0xCD9E8D57u, &bh, &bl);
        c[0] = _mm256_xor_si256(_mm256_xor_si256(bh, c[1]), vgs__int8((int)k0));
        c[2] = _mm256_xor_si256(_mm256_xor_si256(ah, c[3]), vgs__int8((int)k1));
        c[1] = bl;
        c[3] = al;
    }
}

VGS__V8 void vgs__normal_pair8(__m256i a, __m256i b, float *z0, float *z1)
{
    __m256 u, v, r, s, c;
    u = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(a, 16)), vgs__set8(65536.0f));
    u = _mm256_add_ps(u, _mm256_cvtepi32_ps(_mm256_and_si256(a, vgs__int8(0xFFFF))));   /* (float)a     */
    u = vgs__axpy8(u, vgs__set8(2.3283064365386963e-10f), 1.1641532182693481e-10f);
    v = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(b, 8)), vgs__set8(5.9604644775390625e-8f));
    r = _mm256_mul_ps(vgs__set8(-2.0f), vgs__log8(u));
    r = _mm256_sqrt_ps(_mm256_max_ps(_mm256_setzero_ps(), r));
    vgs__sincos_turns8(v, &s, &c);
    _mm256_storeu_ps(z0, _mm256_mul_ps(r, c));
    _mm256_storeu_ps(z1, _mm256_mul_ps(r, s));
}
#endif

#define VGS__STREAM 0xFF000000u      /* third counter word of vgs_rng; other purposes have another top byte */

static void vgs__rng_block(vgs_rng *r, uint32_t w[4])
{
    vgs__philox((uint32_t)r->seed, (uint32_t)(r->seed >> 32), (uint32_t)r->pos, (uint32_t)(r->pos >> 32),
                VGS__STREAM | (r->stream & 0xFFFFFFu), 0, w);
    r->pos++;
}

VGS__DEF uint64_t vgs_rng_u64(vgs_rng *r)
{
    uint32_t w[4];
    vgs__rng_block(r, w);
    return (uint64_t)w[0] << 32 | w[1];
}

VGS__DEF double vgs_rng_uniform(vgs_rng *r)
{
    return ((double)(vgs_rng_u64(r) >> 11) + 0.5) * (1.0 / 9007199254740992.0);
}

VGS__DEF void vgs_rng_normals(vgs_rng *r, float *out, size_t n)
{
    uint32_t w[4];
    float z[4];
    size_t i, k;
    for (i = 0; i < n; i += 4) {
        vgs__rng_block(r, w);
        vgs__normal4(w, z);
        for (k = 0; k < 4 && i + k < n; ++k) out[i + k] = z[k];
    }
}

VGS__DEF uint32_t vgs_rng_below(vgs_rng *r, uint32_t n)
{
    uint32_t limit = n ? 0xFFFFFFFFu - (0xFFFFFFFFu % n + 1u) % n : 0, v;
    if (!n) return 0;
    do v = (uint32_t)vgs_rng_u64(r); while (v > limit);
    return v % n;
}

/* ==== >>gemm: matrix products ======================================================================
   All matrices are row-major with a leading dimension (floats from one row to the next).
   C[m,n] is cut into tiles of mr x nr held in registers; A and B are first copied ("packed") into panels
   in which a tile reads its operands one after the other:

       panel of A: [k][mr]   panel of B: [k][nr]   tile += outer product of one row of each, k times

   The sum over k runs in blocks of VGS__KC from the start, each summed from zero in the order of k and then
   added to C. Panels at the edge are filled up with zeros and computed whole. So an element sees the
   same operations wherever it lies, however many rows there are and whichever thread computes it. */

#define VGS__KC 256               /* block of k: a panel of B [KC][nr] stays in the L1 cache             */
#define VGS__MC 144               /* rows of A packed at a time, a multiple of every mr: L2              */
#define VGS__NC 1024              /* columns of B packed at a time, a multiple of every nr: L2 or L3     */
#define VGS__LANES 8              /* columns that bias and activation take at a time; divides every nr   */
#define VGS__TILE_MAX (12 * 32)   /* floats of the largest tile                                          */
#define VGS__LOW 4                /* rows, columns up to which a tile at the edge is not computed whole  */
#define VGS__NARROW 8
#define VGS__WORK (VGS__KC * (VGS__MC + VGS__NC))   /* floats of one thread's packed blocks */
#define VGS__THREAD_WORK 4000000.0 /* multiply-adds below which one more thread costs more than it gains  */

typedef enum vgs__form {
    VGS__NT,                      /* C = A[m,k] B[n,k]^T */
    VGS__NN,                      /* C = A[m,k] B[k,n]   */
    VGS__TN                       /* C = A[k,m]^T B[k,n] */
} vgs__form;

/* What happens to a sum: C = act(sum + bias[r,:]), r = rows ? rows[i] : 0;  or C += sum. NULL: C = sum. */
typedef struct vgs__epilogue {
    const float   *bias;          /* [*,n]; NULL = none                                */
    int            ldbias;        /* used with `rows` only                             */
    const int32_t *rows;          /* [m]: which row of `bias` is added to row i        */
    vgs_act        act;
    bool           accumulate;    /* C += sum; bias and act are then not looked at     */
} vgs__epilogue;

/* The operands of a tile: element i of row p of A at a[i * ai + p * ap], element j of B at b[p * bp + j].
   Packed: ai = 1, ap = mr, bp = nr. Where packing costs more than it saves they point into A and B; the panel
   that comes next then begins `ahead` of b, each of its rows on another page, and is asked for in time. */
typedef struct vgs__panels { const float *a, *b; ptrdiff_t ai, ap, bp, ahead; } vgs__panels;

/* c[mr,nr] = sum over p < k of a[p,:]^T b[p,:], or += that. */
typedef void vgs__tile_fn(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add);
/* c[rows,cols] = t[rows,nr], or += that: the part of a whole tile that lies inside of C. */
typedef void vgs__edge_fn(int rows, int cols, const float *t, int nr, float *c, ptrdiff_t ldc, bool add);
typedef void vgs__finish_fn(int n, float *x, const float *bias, vgs_act act);
/* sum over p < k of a[p] b[p], in an order that k alone decides. */
typedef float vgs__dot_fn(int k, const float *a, const float *b);
typedef struct vgs__kernel {
    int mr, nr;
    vgs__tile_fn *tile;
    vgs__tile_fn *low, *narrow;   /* the first VGS__LOW rows of a tile, the first VGS__NARROW columns of six
                                     rows of it, with the same operations; NULL = none                 */
    vgs__dot_fn *dot;             /* of products with one column; NULL = none                            */
    vgs__edge_fn *edge;
    vgs__finish_fn *finish;
} vgs__kernel;

/* ---- bias and activation -------------------------------------------------------------------------- */

VGS__INLINE void vgs__act_lanes(vgs_act act, float *x)
{
    int j;
    switch (act) {
    case VGS_ACT_RELU:     for (j = 0; j < VGS__LANES; ++j) x[j] = x[j] < 0.0f ? 0.0f : x[j]; break;
    case VGS_ACT_SIGMOID:  for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__sigmoid(x[j]); break;
    case VGS_ACT_TANH:     for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__tanh(x[j]); break;
    case VGS_ACT_SILU:     for (j = 0; j < VGS__LANES; ++j) x[j] = x[j] * vgs__sigmoid(x[j]); break;
    case VGS_ACT_SOFTPLUS: for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__softplus(x[j]); break;
    case VGS_ACT_NONE:     break;
    }
}

/* x[n] = act(x + bias), n a multiple of the lanes; bias may be NULL. */
VGS__HOT static void vgs__finish_c(int n, float *x, const float *bias, vgs_act act)
{
    int i, j;
    for (i = 0; i < n; i += VGS__LANES, x += VGS__LANES) {
        if (bias)
            for (j = 0; j < VGS__LANES; ++j) x[j] += bias[i + j];
        vgs__act_lanes(act, x);
    }
}

#ifdef VGS__X86
#define VGS__FINISH8(expr) \
    for (i = 0; i < n; i += 8) { const __m256 a = _mm256_loadu_ps(x + i); _mm256_storeu_ps(x + i, expr); }

VGS__AVX2 static void vgs__finish_avx2(int n, float *x, const float *bias, vgs_act act)
{
    const __m256 zero = _mm256_setzero_ps();
    int i;
    if (bias && (act == VGS_ACT_SILU || act == VGS_ACT_RELU)) {
        if (act == VGS_ACT_SILU) VGS__FINISH8(vgs__silu8(_mm256_add_ps(a, _mm256_loadu_ps(bias + i))))
        else VGS__FINISH8(_mm256_max_ps(zero, _mm256_add_ps(a, _mm256_loadu_ps(bias + i))))
        return;
    }
    if (bias) VGS__FINISH8(_mm256_add_ps(a, _mm256_loadu_ps(bias + i)))
    if (act == VGS_ACT_SILU) VGS__FINISH8(vgs__silu8(a))
    else if (act == VGS_ACT_RELU) VGS__FINISH8(_mm256_max_ps(zero, a))       /* NaN and -0 stay        */
    else if (act == VGS_ACT_SIGMOID) VGS__FINISH8(vgs__sigmoid8(a))
    else if (act != VGS_ACT_NONE) vgs__finish_c(n, x, NULL, act);
}
#undef VGS__FINISH8
#endif

/* ---- tiles ---------------------------------------------------------------------------------------- */

/* Half of a 4 x 16 tile at a time: 4 x 8 sums fit the sixteen registers of SSE2. */
VGS__HOT static void vgs__tile_c(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
{
    const ptrdiff_t ai = x->ai, ap = x->ap, bp = x->bp;
    int h, i, j, p;
    for (h = 0; h < 16; h += 8) {
        const float *a = x->a, *b = x->b + h;
        float s[4][8] = { { 0 } };
        for (p = 0; p < k; ++p, a += ap, b += bp)
            for (i = 0; i < 4; ++i)
                for (j = 0; j < 8; ++j) s[i][j] += a[i * ai] * b[j];
        for (i = 0; i < 4; ++i)
            for (j = 0; j < 8; ++j) {
                float *cij = c + i * ldc + h + j;
                *cij = add ? *cij + s[i][j] : s[i][j];
            }
    }
}

#define VGS__ROWS4(R)  R(0) R(1) R(2) R(3)
#define VGS__ROWS6(R)  VGS__ROWS4(R) R(4) R(5)
#define VGS__ROWS12(R) VGS__ROWS6(R) R(6) R(7) R(8) R(9) R(10) R(11)

#ifdef VGS__X86

#define VGS__ZERO(i)  __m256 u##i = _mm256_setzero_ps(), v##i = u##i;
#define VGS__MADD(i)  a0 = _mm256_broadcast_ss(a + i * ai); \
                      u##i = _mm256_fmadd_ps(a0, b0, u##i); v##i = _mm256_fmadd_ps(a0, b1, v##i);
#define VGS__ADD(i)   u##i = _mm256_add_ps(_mm256_loadu_ps(c + i * ldc), u##i); \
                      v##i = _mm256_add_ps(_mm256_loadu_ps(c + i * ldc + 8), v##i);
#define VGS__STORE(i) _mm256_storeu_ps(c + i * ldc, u##i); _mm256_storeu_ps(c + i * ldc + 8, v##i);

__attribute__((target("avx2,fma")))
static void vgs__tile_avx2(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
{
    const float *a = x->a, *b = x->b;
    const ptrdiff_t ai = x->ai, ap = x->ap, bp = x->bp;
    __m256 a0, b0, b1;
    VGS__ROWS6(VGS__ZERO)
    for (; k > 0; --k, a += ap, b += bp) {
        b0 = _mm256_loadu_ps(b);
        b1 = _mm256_loadu_ps(b + 8);
        VGS__ROWS6(VGS__MADD)
    }
    if (add) { VGS__ROWS6(VGS__ADD) }
    VGS__ROWS6(VGS__STORE)
}

#undef VGS__ZERO
#undef VGS__MADD
#undef VGS__ADD
#undef VGS__STORE
#define VGS__ZERO(i)  __m256 u##i = _mm256_setzero_ps();
#define VGS__MADD(i)  u##i = _mm256_fmadd_ps(_mm256_broadcast_ss(a + i * ai), b0, u##i);
#define VGS__ADD(i)   u##i = _mm256_add_ps(_mm256_loadu_ps(c + i * ldc), u##i);
#define VGS__STORE(i) _mm256_storeu_ps(c + i * ldc, u##i);

__attribute__((target("avx2,fma")))
static void vgs__narrow_avx2(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
{
    const float *a = x->a, *b = x->b;
    const ptrdiff_t ai = x->ai, ap = x->ap, bp = x->bp;
    __m256 b0;
    VGS__ROWS6(VGS__ZERO)
    for (; k > 0; --k, a += ap, b += bp) {
        b0 = _mm256_loadu_ps(b);
        VGS__ROWS6(VGS__MADD)
    }
    if (add) { VGS__ROWS6(VGS__ADD) }
    VGS__ROWS6(VGS__STORE)
}

#undef VGS__ZERO
#undef VGS__MADD
#undef VGS__ADD
#undef VGS__STORE
#define VGS__FETCH(i) __builtin_prefetch(c + i * ldc, 1); __builtin_prefetch(c + i * ldc + 16, 1);
#define VGS__ZERO(i)  __m512 u##i = _mm512_setzero_ps(), v##i = u##i;
#define VGS__MADD(i)  a0 = _mm512_set1_ps(a[i * ai]); \
                      u##i = _mm512_fmadd_ps(a0, b0, u##i); v##i = _mm512_fmadd_ps(a0, b1, v##i);
#define VGS__ADD(i)   u##i = _mm512_add_ps(_mm512_loadu_ps(c + i * ldc), u##i); \
                      v##i = _mm512_add_ps(_mm512_loadu_ps(c + i * ldc + 16), v##i);
#define VGS__STORE(i) _mm512_storeu_ps(c + i * ldc, u##i); _mm512_storeu_ps(c + i * ldc + 16, v##i);

__attribute__((target("avx512f")))
static void vgs__tile_avx512(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
{
    const float *a = x->a, *b = x->b;
    const ptrdiff_t ai = x->ai, ap = x->ap, bp = x->bp;
    __m512 a0, b0, b1;
    VGS__ROWS12(VGS__FETCH)                      /* rows of C far apart come late                      */
    VGS__ROWS12(VGS__ZERO)
    for (; k > 0; --k, a += ap, b += bp) {
        b0 = _mm512_loadu_ps(b);
        b1 = _mm512_loadu_ps(b + 16);
        __builtin_prefetch(b + x->ahead);
        __builtin_prefetch(b + x->ahead + 16);
        VGS__ROWS12(VGS__MADD)
    }
    if (add) { VGS__ROWS12(VGS__ADD) }
    VGS__ROWS12(VGS__STORE)
}

__attribute__((target("avx512f")))
static void vgs__low_avx512(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
{
    const float *a = x->a, *b = x->b;
    const ptrdiff_t ai = x->ai, ap = x->ap, bp = x->bp;
    __m512 a0, b0, b1;
    VGS__ROWS4(VGS__ZERO)
    for (; k > 0; --k, a += ap, b += bp) {
        b0 = _mm512_loadu_ps(b);
        b1 = _mm512_loadu_ps(b + 16);
        __builtin_prefetch(b + x->ahead);
        __builtin_prefetch(b + x->ahead + 16);
        VGS__ROWS4(VGS__MADD)
    }
    if (add) { VGS__ROWS4(VGS__ADD) }
    VGS__ROWS4(VGS__STORE)
}

#undef VGS__FETCH
#undef VGS__ZERO
#undef VGS__MADD
#undef VGS__ADD
#undef VGS__STORE
#endif /* VGS__X86 */

#ifdef VGS__ARM

#define VGS__ZERO(i)  float32x4_t s##i = vdupq_n_f32(0.0f), t##i = s##i, u##i = s##i, v##i = s##i;
#define VGS__MADD(i)  a0 = a[i * ai]; \
                      s##i = vfmaq_n_f32(s##i, b0, a0); t##i = vfmaq_n_f32(t##i, b1, a0); \
                      u##i = vfmaq_n_f32(u##i, b2, a0); v##i = vfmaq_n_f32(v##i, b3, a0);
#define VGS__ADD(i)   s##i = vaddq_f32(vld1q_f32(c + i * ldc), s##i); \
                      t##i = vaddq_f32(vld1q_f32(c + i * ldc + 4), t##i); \
                      u##i = vaddq_f32(vld1q_f32(c + i * ldc + 8), u##i); \
                      v##i = vaddq_f32(vld1q_f32(c + i * ldc + 12), v##i);
#define VGS__STORE(i) vst1q_f32(c + i * ldc, s##i); vst1q_f32(c + i * ldc + 4, t##i); \
                      vst1q_f32(c + i * ldc + 8, u##i); vst1q_f32(c + i * ldc + 12, v##i);

static void vgs__tile_neon(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
{
    const float *a = x->a, *b = x->b;
    const ptrdiff_t ai = x->ai, ap = x->ap, bp = x->bp;
    float32x4_t b0, b1, b2, b3;
    float a0;
    VGS__ROWS4(VGS__ZERO)
    for (; k > 0; --k, a += ap, b += bp) {
        b0 = vld1q_f32(b);
        b1 = vld1q_f32(b + 4);
        b2 = vld1q_f32(b + 8);
        b3 = vld1q_f32(b + 12);
        VGS__ROWS4(VGS__MADD)
    }
    if (add) { VGS__ROWS4(VGS__ADD) }
    VGS__ROWS4(VGS__STORE)
}

#undef VGS__ZERO
#undef VGS__MADD
#undef VGS__ADD
#undef VGS__STORE
#endif /* VGS__ARM */

#undef VGS__ROWS4
#undef VGS__ROWS6
#undef VGS__ROWS12

/* ---- edges ---------------------------------------------------------------------------------------- */

static void vgs__edge_c(int rows, int cols, const float *t, int nr, float *c, ptrdiff_t ldc, bool add)
{
    int i, j;
    for (i = 0; i < rows; ++i, c += ldc, t += nr)
        for (j = 0; j < cols; ++j) c[j] = add ? c[j] + t[j] : t[j];
}

#ifdef VGS__X86
VGS__AVX2 static void vgs__edge_avx2(int rows, int cols, const float *t, int nr, float *c, ptrdiff_t ldc,
                                     bool add)
{
    int i, j, whole = cols & ~7;
    for (i = 0; i < rows; ++i, c += ldc, t += nr) {
        for (j = 0; j < whole; j += 8) {
            __m256 v = _mm256_loadu_ps(t + j);
            if (add) v = _mm256_add_ps(_mm256_loadu_ps(c + j), v);
            _mm256_storeu_ps(c + j, v);
        }
        for (; j < cols; ++j) c[j] = add ? c[j] + t[j] : t[j];
    }
}
#endif

/* ---- one column ----------------------------------------------------------------------------------- */

#ifdef VGS__X86
__attribute__((target("avx2,fma")))
static float vgs__dot_avx2(int k, const float *a, const float *b)
{
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    float lane[8], rest = 0.0f;
    int p = 0;
    for (; p + 32 <= k; p += 32) {
        s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + p), _mm256_loadu_ps(b + p), s0);
        s1 = _mm256_fmadd_ps(_mm256_loadu_ps(a + p + 8), _mm256_loadu_ps(b + p + 8), s1);
        s2 = _mm256_fmadd_ps(_mm256_loadu_ps(a + p + 16), _mm256_loadu_ps(b + p + 16), s2);
        s3 = _mm256_fmadd_ps(_mm256_loadu_ps(a + p + 24), _mm256_loadu_ps(b + p + 24), s3);
    }
    for (; p + 8 <= k; p += 8) s0 = _mm256_fmadd_ps(_mm256_loadu_ps(a + p), _mm256_loadu_ps(b + p), s0);
    for (; p < k; ++p) rest += a[p] * b[p];
    _mm256_storeu_ps(lane, _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7])) + rest;
}
#endif

/* ---- which kernel --------------------------------------------------------------------------------- */

static bool vgs__cpu_has(vgs_isa isa)
{
#if defined VGS__X86
    __builtin_cpu_init();
    if (isa == VGS_ISA_AVX512) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2");
    if (isa == VGS_ISA_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined VGS__ARM
    if (isa == VGS_ISA_NEON) return true;
#endif
    return isa == VGS_ISA_PORTABLE;
}

VGS__DEF vgs_isa vgs_cpu_isa(void)
{
    if (vgs__cpu_has(VGS_ISA_AVX512)) return VGS_ISA_AVX512;
    if (vgs__cpu_has(VGS_ISA_AVX2)) return VGS_ISA_AVX2;
    if (vgs__cpu_has(VGS_ISA_NEON)) return VGS_ISA_NEON;
    return VGS_ISA_PORTABLE;
}

VGS__DEF const char *vgs_isa_name(vgs_isa isa)
{
    static const char *const names[] = { "auto", "portable", "neon", "avx2", "avx512" };
    return (size_t)isa < sizeof names / sizeof *names ? names[isa] : "unknown";
}

/* What the processor lacks is replaced by plain C. */
static vgs__kernel vgs__kernel_of(vgs_isa isa)
{
    vgs__kernel kernel = { 4, 16, vgs__tile_c, NULL, NULL, NULL, vgs__edge_c, vgs__finish_c };
    if (isa == VGS_ISA_AUTO) isa = vgs_cpu_isa();
    if (!vgs__cpu_has(isa)) return kernel;
#if defined VGS__X86
    if (isa == VGS_ISA_AVX2 || isa == VGS_ISA_AVX512) {
        bool wide = isa == VGS_ISA_AVX512;
        kernel.mr = wide ? 12 : 6;
        kernel.nr = wide ? 32 : 16;
        kernel.tile = wide ? vgs__tile_avx512 : vgs__tile_avx2;
        kernel.low = wide ? vgs__low_avx512 : NULL;
        kernel.narrow = vgs__narrow_avx2;
        kernel.dot = vgs__dot_avx2;
        kernel.edge = vgs__edge_avx2;
        kernel.finish = vgs__finish_avx2;
    }
#elif defined VGS__ARM
    if (isa == VGS_ISA_NEON) kernel.tile = vgs__tile_neon;
#endif
    return kernel;
}

/* ---- packing -------------------------------------------------------------------------------------- */

/* out[k,w] = src[k,lanes], filled up with zeros. */
VGS__INLINE void vgs__pack_rows(int k, int lanes, int w, const float *src, ptrdiff_t ld, float *out)
{
    int p, l;
    for (p = 0; p < k; ++p, src += ld, out += w) {
        for (l = 0; l < lanes; ++l) out[l] = src[l];
        for (; l < w; ++l) out[l] = 0.0f;
    }
}

/* Whole panels, with a width that the compiler knows: the loop becomes a few moves. */
VGS__HOT static void vgs__copy_panel(int k, int w, const float *src, ptrdiff_t ld, float *out)
{
    int p;
    if (w == 16) for (p = 0; p < k; ++p, src += ld, out += 16) memcpy(out, src, 16 * sizeof *out);
    else if (w == 32) for (p = 0; p < k; ++p, src += ld, out += 32) memcpy(out, src, 32 * sizeof *out);
    else if (w == 12) for (p = 0; p < k; ++p, src += ld, out += 12) memcpy(out, src, 12 * sizeof *out);
    else if (w == 6) for (p = 0; p < k; ++p, src += ld, out += 6) memcpy(out, src, 6 * sizeof *out);
    else vgs__pack_rows(k, w, w, src, ld, out);
}

/* out[4,0..3] = the transpose of the 4 x 4 block at src. */
VGS__INLINE void vgs__turn4(const float *src, ptrdiff_t ld, float *out, int w)
{
#ifdef VGS__X86
    __m128 r0 = _mm_loadu_ps(src), r1 = _mm_loadu_ps(src + ld);
    __m128 r2 = _mm_loadu_ps(src + 2 * ld), r3 = _mm_loadu_ps(src + 3 * ld);
    __m128 a = _mm_unpacklo_ps(r0, r1), b = _mm_unpacklo_ps(r2, r3);
    __m128 c = _mm_unpackhi_ps(r0, r1), d = _mm_unpackhi_ps(r2, r3);
    _mm_storeu_ps(out, _mm_movelh_ps(a, b));
    _mm_storeu_ps(out + w, _mm_movehl_ps(b, a));
    _mm_storeu_ps(out + 2 * w, _mm_movelh_ps(c, d));
    _mm_storeu_ps(out + 3 * w, _mm_movehl_ps(d, c));
#else
    int p, l;
    for (p = 0; p < 4; ++p)
        for (l = 0; l < 4; ++l) out[p * w + l] = src[l * ld + p];
#endif
}

/* out[k,w] = the transpose of src[lanes,k], filled up with zeros. */
VGS__HOT static void vgs__pack_cols(int k, int lanes, int w, const float *src, ptrdiff_t ld, float *out)
{
    int p, l, i;
    for (l = 0; l + 4 <= lanes; l += 4, src += 4 * ld) {
        for (p = 0; p + 4 <= k; p += 4) vgs__turn4(src + p, ld, out + p * w + l, w);
        for (; p < k; ++p)
            for (i = 0; i < 4; ++i) out[p * w + l + i] = src[i * ld + p];
    }
    for (; l < lanes; ++l, src += ld)
        for (p = 0; p < k; ++p) out[p * w + l] = src[p];
    for (; l < w; ++l)
        for (p = 0; p < k; ++p) out[p * w + l] = 0.0f;
}

/* ---- the product ---------------------------------------------------------------------------------- */

typedef struct vgs__product {
    vgs__form form;
    int m, n, k;
    ptrdiff_t lda, ldb, ldc;
    const float *a, *b;
    const float *packed;                         /* B as vgs__pack_share leaves it; NULL = not yet    */
    float *c, *work;
    vgs__epilogue ep;
    vgs__kernel kernel;
} vgs__product;

/* One thread's part of one block: rows i..i+m and columns j..j+n of C, p..p+k of the sum. */
typedef struct vgs__block { int i, j, p, m, n, k; bool a_direct, b_direct; } vgs__block;

VGS__INLINE int vgs__min(int a, int b) { return a < b ? a : b; }

/* Element p of row i of A, element j of row p of B. */
VGS__INLINE const float *vgs__a_at(const vgs__product *q, int i, int p)
{
    return q->form == VGS__TN ? q->a + p * q->lda + i : q->a + i * q->lda + p;
}
VGS__INLINE const float *vgs__b_at(const vgs__product *q, int p, int j)
{
    return q->form == VGS__NT ? q->b + j * q->ldb + p : q->b + p * q->ldb + j;
}

/* src[k,n] as panels [k][w] of its columns, the last one filled up with zeros. `last_only` leaves out whole
   panels. Eight rows at a time go through all of them: going down one would touch a new page with every
   row. */
static void vgs__pack_across(int k, int n, int w, const float *src, ptrdiff_t ld, bool last_only, float *out)
{
    int whole = n / w * w, j, p;
    for (p = 0; p < k && !last_only; p += 8)
        for (j = 0; j < whole; j += w)
            vgs__copy_panel(vgs__min(8, k - p), w, src + p * ld + j, ld, out + j * k + p * w);
    if (whole < n) vgs__pack_rows(k, n - whole, w, src + whole, ld, out + whole * k);
}

/* src[n,k] as panels [k][w] of its rows, likewise. */
static void vgs__pack_turned(int k, int n, int w, const float *src, ptrdiff_t ld, bool last_only, float *out)
{
    int j = last_only ? n / w * w : 0;
    for (; j < n; j += w) vgs__pack_cols(k, vgs__min(w, n - j), w, src + j * ld, ld, out + j * k);
}

/* The block's rows of A as panels [k][mr], its columns of B as panels [k][nr]; of a direct operand only the
   last panel, if it is not whole. */
static void vgs__pack_a(const vgs__product *q, const vgs__block *z, float *out)
{
    const float *src = vgs__a_at(q, z->i, z->p);
    if (q->form == VGS__TN) vgs__pack_across(z->k, z->m, q->kernel.mr, src, q->lda, z->a_direct, out);
    else vgs__pack_turned(z->k, z->m, q->kernel.mr, src, q->lda, z->a_direct, out);
}

static void vgs__pack_b(const vgs__product *q, const vgs__block *z, float *out)
{
    const float *src = vgs__b_at(q, z->p, z->j);
    if (q->form != VGS__NT) vgs__pack_across(z->k, z->n, q->kernel.nr, src, q->ldb, z->b_direct, out);
    else vgs__pack_turned(z->k, z->n, q->kernel.nr, src, q->ldb, false, out);
}

/* A tile that crosses the edge of C goes through one beside it. */
static void vgs__edge_tile(const vgs__kernel *kernel, int k, const vgs__panels *x, float *c, ptrdiff_t ldc,
                           int rows, int cols, bool add)
{
    float t[VGS__TILE_MAX];
    vgs__panels y = *x;
    int i;
    if (cols <= VGS__NARROW && kernel->narrow)
        for (i = 0; i < rows; i += 6, y.a += 6 * y.ai)
            kernel->narrow(k, &y, t + i * kernel->nr, kernel->nr, false);
    else if (rows <= VGS__LOW && kernel->low) kernel->low(k, x, t, kernel->nr, false);
    else kernel->tile(k, x, t, kernel->nr, false);
    kernel->edge(rows, cols, t, kernel->nr, c, ldc, add);
}

/* C[i..i+rows, j..j+cols] (+)= the block of the sum, for one panel of B. */
static void vgs__strip(const vgs__product *q, const vgs__block *z, int j, const float *apack,
                       const float *bpack)
{
    const vgs__kernel *kernel = &q->kernel;
    int i, mr = kernel->mr, nr = kernel->nr, rows, cols = vgs__min(nr, z->n - j);
    bool add = z->p > 0 || q->ep.accumulate, tn = q->form == VGS__TN;
    float *c = q->c + z->i * q->ldc + z->j + j;
    vgs__panels x;
    x.b = bpack + j * z->k;
    x.bp = nr;
    x.ahead = 0;
    if (z->b_direct && cols == nr) {
        x.b = vgs__b_at(q, z->p, z->j + j);
        x.bp = q->ldb;
        x.ahead = nr;
    }
    for (i = 0; i < z->m; i += mr, c += mr * q->ldc) {
        rows = vgs__min(mr, z->m - i);
        x.a = apack + i * z->k;
        x.ai = 1;
        x.ap = mr;
        if (z->a_direct && rows == mr) {
            x.a = vgs__a_at(q, z->i + i, z->p);
            x.ai = tn ? 1 : q->lda;
            x.ap = tn ? q->lda : 1;
        }
        if (rows == mr && cols == nr) kernel->tile(z->k, &x, c, q->ldc, add);
        else vgs__edge_tile(kernel, z->k, &x, c, q->ldc, rows, cols, add);
    }
}

/* Bias and activation of C[i..i+m, j..j+n], once its sums are complete. The last columns go through a whole
   group of lanes beside C, so that all elements take the same path. */
static void vgs__close(const vgs__product *q, int i, int m, int j, int n)
{
    const vgs__epilogue *ep = &q->ep;
    float x[VGS__LANES] = { 0 }, y[VGS__LANES] = { 0 }, *c = q->c + i * q->ldc + j;
    int whole = n / VGS__LANES * VGS__LANES, end = i + m;
    size_t rest = sizeof(float) * (size_t)(n - whole);
    if (ep->accumulate || (!ep->bias && ep->act == VGS_ACT_NONE)) return;
    for (; i < end; ++i, c += q->ldc) {
        ptrdiff_t row = ep->rows ? (ptrdiff_t)ep->rows[i] * ep->ldbias : 0;
        const float *b = ep->bias ? ep->bias + row + j : NULL;
        q->kernel.finish(whole, c, b, ep->act);
        if (!rest) continue;
        memcpy(x, c + whole, rest);
        if (b) memcpy(y, b + whole, rest);
        q->kernel.finish(VGS__LANES, x, b ? y : NULL, ep->act);
        memcpy(c + whole, x, rest);
    }
}

/* Columns of B when its last panel is filled up. */
static size_t vgs__padded(const vgs__product *q)
{
    return (size_t)((q->n + q->kernel.nr - 1) / q->kernel.nr * q->kernel.nr);
}

/* Whether 256 rows of a narrow strip keep out of each other's way in the L1 cache. */
static bool vgs__spread(ptrdiff_t ld) { return ld <= 32 || (ld < 512 && ld % 64 != 0); }

/* A tile reads its rows of A at once, each forwards: direct, but where more of them fall into one set of the
   L1 cache than it holds, and columns enough read them again. */
static bool vgs__crowded(const vgs__product *q, int columns)
{
    return q->kernel.mr > 8 && q->lda % 1024 == 0 && columns > 512;
}

/* One column of sums over numbers that lie side by side: a tile would leave all lanes but one idle. */
static bool vgs__is_dot(const vgs__product *q)
{
    return q->kernel.dot && q->n == 1 && (q->form == VGS__NT || (q->form == VGS__NN && q->ldb == 1));
}

static void vgs__gemm_dot(const vgs__product *q, int i0, int i1)
{
    int i;
    for (i = i0; i < i1; ++i) {
        float *c = q->c + i * q->ldc, sum = q->kernel.dot(q->k, q->a + i * q->lda, q->b);
        *c = q->ep.accumulate ? *c + sum : sum;
    }
    vgs__close(q, i0, i1 - i0, 0, 1);
}

/* C[i0..i1, j0..j1], by one thread with its own workspace. */
static void vgs__gemm_part(const vgs__product *q, int i0, int i1, int j0, int j1, float *work)
{
    float *apack = work + VGS__KC * VGS__NC;
    const float *bpack = work;
    vgs__block z;
    int j, nr = q->kernel.nr;
    if (vgs__is_dot(q)) {
        if (j1 > j0) vgs__gemm_dot(q, i0, i1);
        return;
    }
    z.a_direct = q->form == VGS__TN ? vgs__spread(q->lda) : !vgs__crowded(q, j1 - j0);
    /* B is not packed where it is read too few times */
    z.b_direct = !q->packed && q->form != VGS__NT && i1 - i0 <= 4 * q->kernel.mr;
    for (z.j = j0; z.j < j1; z.j += VGS__NC) {
        z.n = vgs__min(VGS__NC, j1 - z.j);
        for (z.p = 0; z.p == 0 || z.p < q->k; z.p += VGS__KC) {
            z.k = vgs__min(VGS__KC, q->k - z.p);
            if (q->packed) bpack = q->packed + vgs__padded(q) * (size_t)z.p + (ptrdiff_t)z.j * z.k;
            else vgs__pack_b(q, &z, work);
            for (z.i = i0; z.i < i1; z.i += VGS__MC) {
                z.m = vgs__min(VGS__MC, i1 - z.i);
                vgs__pack_a(q, &z, apack);
                for (j = 0; j < z.n; j += nr) vgs__strip(q, &z, j, apack, bpack);
                if (z.p + z.k == q->k) vgs__close(q, z.i, z.m, z.j, z.n);
            }
        }
    }
}

/* Threads share C as a grid of equal rectangles and do not wait for each other: what two of them both pack
   is little when the rectangles are near squares. Returns the rows of the grid, those that make the longest
   share shortest; besides the tiles it counts the packing of a panel of A (0.4 tiles) and of B (1 tile). */
static int vgs__grid_rows(int threads, int apanels, int bpanels)
{
    int t, best = 1;
    double least = 0.0;
    for (t = 1; t <= threads; ++t)
        if (threads % t == 0) {
            double rows = (apanels + t - 1) / t, cols = (bpanels + threads / t - 1) / (threads / t);
            double cost = rows * cols + 0.4 * rows + cols;
            if (t == 1 || cost < least) { best = t; least = cost; }
        }
    return best;
}

/* Where share `index` of `count` begins, in whole panels of `width`; at most `end`. */
static int vgs__share(int end, int width, int index, int count)
{
    long long panels = (end + width - 1) / width;
    return vgs__min(end, width * (int)(panels * index / count));
}

/* Share `me` of `threads` in packing all of B into out [vgs__padded(q) k]: for products that take C in many
   blocks of rows. */
static void vgs__pack_share(const vgs__product *q, float *out, int me, int threads)
{
    vgs__block z;
    memset(&z, 0, sizeof z);
    z.j = vgs__share(q->n, q->kernel.nr, me, threads);
    z.n = vgs__share(q->n, q->kernel.nr, me + 1, threads) - z.j;
    for (; z.p < q->k && z.n > 0; z.p += VGS__KC) {
        z.k = vgs__min(VGS__KC, q->k - z.p);
        vgs__pack_b(q, &z, out + vgs__padded(q) * (size_t)z.p + (ptrdiff_t)z.j * z.k);
    }
}

static void vgs__gemm_thread(const vgs__product *q, int me, int threads)
{
    int mr = q->kernel.mr, nr = q->kernel.nr;
    int rows = vgs__grid_rows(threads, (q->m + mr - 1) / mr, (q->n + nr - 1) / nr), cols = threads / rows;
    int row = me % rows, col = me / rows;
    vgs__gemm_part(q, vgs__share(q->m, mr, row, rows), vgs__share(q->m, mr, row + 1, rows),
                   vgs__share(q->n, nr, col, cols), vgs__share(q->n, nr, col + 1, cols),
                   q->work + (size_t)me * VGS__WORK);
}

#ifdef VGS_USE_CBLAS
/* The user's BLAS instead: its sums may depend on the number of rows and of threads. */
static void vgs__gemm_cblas(const vgs__product *q)
{
    cblas_sgemm(CblasRowMajor, q->form == VGS__TN ? CblasTrans : CblasNoTrans,
                q->form == VGS__NT ? CblasTrans : CblasNoTrans, q->m, q->n, q->k, 1.0f, q->a, (int)q->lda,
                q->b, (int)q->ldb, q->ep.accumulate ? 1.0f : 0.0f, q->c, (int)q->ldc);
    vgs__close(q, 0, q->m, 0, q->n);
}
#endif

/* Floats of workspace for any product with that many threads. */
static size_t vgs__gemm_work(int threads)
{
    return (size_t)(threads > 1 ? threads : 1) * VGS__WORK;
}

static vgs__product vgs__product_make(vgs__form form, int m, int n, int k, const float *a, int lda,
                                      const float *b, int ldb, float *c, int ldc, const vgs__epilogue *ep,
                                      float *work, vgs_isa isa)
{
    vgs__product q;
    memset(&q, 0, sizeof q);
    q.form = form;
    q.m = m;
    q.n = n;
    q.k = k;
    q.a = a;
    q.lda = lda;
    q.b = b;
    q.ldb = ldb;
    q.c = c;
    q.ldc = ldc;
    q.work = work;
    q.kernel = vgs__kernel_of(isa);
    if (ep) q.ep = *ep;
    return q;
}

/* Rows i0..i1 of C, by one thread. Not for TN, whose rows are not those of A. */
static void vgs__gemm_rows(const vgs__product *q, int i0, int i1, float *work)
{
#ifdef VGS_USE_CBLAS
    vgs__product p = *q;
    p.m = i1 - i0;
    p.a += i0 * p.lda;
    p.c += i0 * p.ldc;
    if (p.ep.rows) p.ep.rows += i0;
    if (p.k > 0) { vgs__gemm_cblas(&p); return; }
#endif
    vgs__gemm_part(q, i0, i1, 0, q->n, work);
}

/* C[m,n] = A B as `form` says, then `ep` (NULL: nothing). work: [vgs__gemm_work(threads)], 64-byte aligned.
   C must not overlap A or B. An isa that the processor lacks is computed by VGS_ISA_PORTABLE. */
VGS__INLINE void vgs__gemm(vgs__form form, int m, int n, int k, const float *a, int lda, const float *b,
                           int ldb, float *c, int ldc, const vgs__epilogue *ep, float *work, int threads,
                           vgs_isa isa)
{
    vgs__product q = vgs__product_make(form, m, n, k, a, lda, b, ldb, c, ldc, ep, work, isa);
    if (m <= 0 || n <= 0) return;
#ifdef VGS_USE_CBLAS
    if (k > 0) { vgs__gemm_cblas(&q); return; }
#endif
#ifdef _OPENMP
    if (threads > 1 && (double)m * n * k >= VGS__THREAD_WORK) {
#  pragma omp parallel num_threads(threads)
        vgs__gemm_thread(&q, omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#else
    (void)threads;
#endif
    vgs__gemm_thread(&q, 0, 1);
}

/* The same product as the formula says it: the reference for the tests. */
VGS__INLINE void vgs__gemm_naive(vgs__form form, int m, int n, int k, const float *a, int lda,
                                 const float *b, int ldb, float *c, int ldc, const vgs__epilogue *ep)
{
    int i, j, p;
    for (i = 0; i < m; ++i)
        for (j = 0; j < n; ++j) {
            float *cij = c + (ptrdiff_t)i * ldc + j, sum = 0.0f;
            float x[VGS__LANES] = { 0 };
            for (p = 0; p < k; ++p) {
                float aip = form == VGS__TN ? a[(ptrdiff_t)p * lda + i] : a[(ptrdiff_t)i * lda + p];
                sum += aip * (form == VGS__NT ? b[(ptrdiff_t)j * ldb + p] : b[(ptrdiff_t)p * ldb + j]);
            }
            if (ep && ep->accumulate) sum += *cij;
            else if (ep) {
                if (ep->bias) sum += ep->bias[(ep->rows ? (ptrdiff_t)ep->rows[i] * ep->ldbias : 0) + j];
                x[0] = sum;
                vgs__act_lanes(ep->act, x);
                sum = x[0];
            }
            *cij = sum;
        }
}

/* ==== >>graph: recording =========================================================================== */

typedef struct vgs__node {
    int op, n_in, in[VGS_MAX_IN];                /* -1 = absent operand                               */
    int rows, cols;                              /* rows < 0: -rows times the batch                   */
    vgs_type type;
    int i[VGS_MAX_ATTR];
    float f[VGS_MAX_ATTR];
    int i_slot[VGS_MAX_ATTR], f_slot[VGS_MAX_ATTR];  /* -1, or the scalar that replaces it at run     */
    int tap;                                     /* node that holds the second output, or -1          */
    int alias;                                   /* node whose storage this one looks into, or -1     */
    size_t alias_offset;                         /* in elements, from the start of that storage       */
    int ld;
    const vgs_energy *energy;                    /* borrowed; ENERGY only                             */
    void *data;                                  /* TABLE: its values until compile uploads them      */
    bool output, live, body;
    bool given;                                  /* leaves: set or bound at least once                */
    int group;                                   /* of ops that run together; grows along the order   */
    bool local;                                  /* what it makes is read within the group only       */
    vgs_buffer *buf;                             /* leaves: bound buffer; others: the arena           */
    size_t offset;
} vgs__node;

struct vgs_graph {
    uint32_t generation;
    vgs_error sticky;
    vgs__node *node;
    int n_node, cap_node;
    double *scalar;
    int n_scalar, cap_scalar;
    vgs_backend *backend;                        /* NULL until compiled                               */
    vgs_buffer *arena;
    size_t arena_size;
    int capacity;
    int *order, n_prologue, n_order;             /* nodes to run: prologue first                      */
    vgs_call *call;                              /* [n_order]: what a run hands to the backend        */
    bool dirty;                                  /* the prologue must run again                       */
};

static vgs_var vgs__no_var(void)
{
    vgs_var v = { 0 };
    return v;
}

/* Keeps the first failure; later ones are its consequences. */
VGS__PRINTF(3, 4) static vgs_var vgs__graph_fail(vgs_graph *g, vgs_status code, const char *fmt, ...)
{
    if (g->sticky.code == VGS_OK) {
        va_list ap;
        va_start(ap, fmt);
        g->sticky.code = code;
        vsnprintf(g->sticky.msg, sizeof g->sticky.msg, fmt, ap);
        va_end(ap);
    }
    return vgs__no_var();
}

/* A handle is 12 bits of generation and 20 bits of node number plus one. */
static vgs_var vgs__handle(const vgs_graph *g, int id)
{
    vgs_var v;
    v.id = g->generation << 20 | (uint32_t)(id + 1);
    return v;
}

/* Node number of a handle, or -1: "no value", or one of another graph or before a reset. */
static int vgs__id(const vgs_graph *g, vgs_var v)
{
    int id = (int)(v.id & 0xFFFFFu) - 1;
    if (v.id >> 20 != g->generation || id >= g->n_node) return -1;
    return id;
}

static bool vgs__exists(vgs_var v) { return v.id != 0; }

static int vgs__operand(vgs_graph *g, const char *op, vgs_var v)
{
    int id = vgs__id(g, v);
    if (id < 0 && g->sticky.code == VGS_OK)
        vgs__graph_fail(g, VGS_E_ARG, "%s: an operand is no value of this graph (handle %08x)", op,
                        (unsigned)v.id);
    return g->sticky.code == VGS_OK ? id : -1;
}

static const char *vgs__shape_text(const vgs__node *n, char *buf)
{
    if (n->rows >= 0) snprintf(buf, 40, "[%d,%d]", n->rows, n->cols);
    else if (n->rows == -1) snprintf(buf, 40, "[B,%d]", n->cols);
    else snprintf(buf, 40, "[%dB,%d]", -n->rows, n->cols);
    return buf;
}

static vgs_var vgs__shape_fail(vgs_graph *g, const char *op, int a, int b)
{
    char sa[40], sb[40];
    return vgs__graph_fail(g, VGS_E_SHAPE, "%s: shapes %s and %s do not fit", op,
                           vgs__shape_text(&g->node[a], sa), vgs__shape_text(&g->node[b], sb));
}

/* Doubles *array when it is full; false when memory is out. */
static bool vgs__grow(void **array, int *cap, int n, size_t size)
{
    void *bigger;
    int want = *cap ? 2 * *cap : 64;
    if (n < *cap) return true;
    bigger = vgs__alloc((size_t)want, size);
    if (!bigger) return false;
    if (*cap) memcpy(bigger, *array, (size_t)*cap * size);
    vgs__free(*array);
    *array = bigger;
    *cap = want;
    return true;
}

/* Appends a node; the caller has checked operands and shape. Returns its number or -1. */
static int vgs__push(vgs_graph *g, int op, int rows, int cols, vgs_type type)
{
    vgs__node *n;
    void *array = g->node;
    int k;
    if (g->sticky.code != VGS_OK) return -1;
    if (g->backend) {
        vgs__graph_fail(g, VGS_E_ARG, "%s: the graph is compiled; reset it to record again", vgs_op_name(op));
        return -1;
    }
    if (g->n_node >= 0xFFFFE || !vgs__grow(&array, &g->cap_node, g->n_node, sizeof *g->node)) {
        vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: graph of %d ops", g->n_node);
        return -1;
    }
    g->node = (vgs__node *)array;
    n = &g->node[g->n_node];
    memset(n, 0, sizeof *n);
    n->op = op;
    n->rows = rows;
    n->cols = cols;
    n->ld = cols;
    n->type = type;
    n->tap = n->alias = -1;
    for (k = 0; k < VGS_MAX_IN; ++k) n->in[k] = -1;
    for (k = 0; k < VGS_MAX_ATTR; ++k) n->i_slot[k] = n->f_slot[k] = -1;
    return g->n_node++;
}

static vgs_var vgs__push_op(vgs_graph *g, int op, int rows, int cols, int a, int b, int c)
{
    int id = vgs__push(g, op, rows, cols, VGS_F32);
    vgs__node *n;
    if (id < 0) return vgs__no_var();
    n = &g->node[id];
    n->in[0] = a;
    n->in[1] = b;
    n->in[2] = c;
    n->n_in = c >= 0 ? 3 : b >= 0 ? 2 : a >= 0 ? 1 : 0;
    return vgs__handle(g, id);
}

static vgs__node *vgs__node_of(vgs_graph *g, vgs_var v)
{
    int id = vgs__id(g, v);
    return id < 0 ? NULL : &g->node[id];
}

static void vgs__attr_f(vgs_graph *g, vgs_var v, int k, float value)
{
    vgs__node *n = vgs__node_of(g, v);
    if (n) n->f[k] = value;
}

static void vgs__attr_i(vgs_graph *g, vgs_var v, int k, int value)
{
    vgs__node *n = vgs__node_of(g, v);
    if (n) n->i[k] = value;
}

static void vgs__slot_f(vgs_graph *g, vgs_var v, int k, vgs_scalar s)
{
    vgs__node *n = vgs__node_of(g, v);
    if (n) n->f_slot[k] = (int)s.id - 1;
}

static void vgs__slot_i(vgs_graph *g, vgs_var v, int k, vgs_scalar s)
{
    vgs__node *n = vgs__node_of(g, v);
    if (n) n->i_slot[k] = (int)s.id - 1;
}

/* The node's second output, made on first use: energy -> its gradient, sort -> its permutation. */
static vgs_var vgs__tap(vgs_graph *g, int id, int cols, vgs_type type)
{
    int t = g->node[id].tap;
    if (t < 0) {
        t = vgs__push(g, VGS_OP_TAP, g->node[id].rows, cols, type);
        if (t < 0) return vgs__no_var();
        g->node[t].in[0] = id;
        g->node[t].n_in = 1;
        g->node[id].tap = t;
    }
    return vgs__handle(g, t);
}

/* ---- life ---------------------------------------------------------------------------------------- */

VGS__DEF vgs_graph *vgs_graph_create(vgs_error *err)
{
    vgs_graph *g = (vgs_graph *)vgs__alloc_or(err, "graph", 1, sizeof *g);
    if (g) g->generation = (uint32_t)((uintptr_t)g >> 6) & 0xFFFu;   /* tells graphs apart, mostly     */
    return g;
}

VGS__DEF void vgs_graph_reset(vgs_graph *g)
{
    int i;
    for (i = 0; i < g->n_node; ++i) vgs__free(g->node[i].data);
    if (g->backend) g->backend->buffer_free(g->backend->self, g->arena);
    vgs__free(g->order);
    vgs__free(g->call);
    g->order = NULL;
    g->call = NULL;
    g->arena = NULL;
    g->backend = NULL;
    g->n_node = g->n_scalar = g->n_order = g->n_prologue = 0;
    g->generation = (g->generation + 1) & 0xFFFu;
    memset(&g->sticky, 0, sizeof g->sticky);
}

VGS__DEF void vgs_graph_free(vgs_graph *g)
{
    if (!g) return;
    vgs_graph_reset(g);
    vgs__free(g->node);
    vgs__free(g->scalar);
    vgs__free(g);
}

VGS__DEF vgs_status vgs_graph_status(const vgs_graph *g, vgs_error *err)
{
    if (err) *err = g->sticky;
    return g->sticky.code;
}

VGS__DEF void vgs_shape(const vgs_graph *g, vgs_var v, int *rows, int *cols)
{
    int id = vgs__id(g, v);
    *rows = id < 0 ? 0 : g->node[id].rows;
    *cols = id < 0 ? 0 : g->node[id].cols;
}

/* ---- leaves and scalars -------------------------------------------------------------------------- */

static vgs_var vgs__leaf(vgs_graph *g, int op, int rows, int cols, vgs_type type)
{
    int id;
    if (rows == 0 || cols <= 0)
        return vgs__graph_fail(g, VGS_E_SHAPE, "%s: rows = %d, cols = %d: must be > 0", vgs_op_name(op), rows,
                               cols);
    id = vgs__push(g, op, rows, cols, type);
    return id < 0 ? vgs__no_var() : vgs__handle(g, id);
}

VGS__DEF vgs_var vgs_input(vgs_graph *g, int cols) { return vgs__leaf(g, VGS_OP_INPUT, -1, cols, VGS_F32); }
VGS__DEF vgs_var vgs_index(vgs_graph *g) { return vgs__leaf(g, VGS_OP_INPUT, -1, 1, VGS_I32); }
VGS__DEF vgs_var vgs_params(vgs_graph *g, int n) { return vgs__leaf(g, VGS_OP_PARAMS, 1, n, VGS_F32); }

VGS__DEF vgs_var vgs_state(vgs_graph *g, int rows, int cols, vgs_type type)
{
    if (rows < 0) rows = 0;
    return vgs__leaf(g, VGS_OP_STATE, rows, cols, type);
}

static vgs_var vgs__table(vgs_graph *g, const void *x, int rows, int cols, vgs_type type)
{
    vgs_var v = vgs__leaf(g, VGS_OP_TABLE, rows < 0 ? 0 : rows, cols, type);
    vgs__node *n = vgs__node_of(g, v);
    size_t count = (size_t)(rows > 0 ? rows : 0) * (size_t)(cols > 0 ? cols : 0);
    if (!n) return v;
    n->data = vgs__alloc(count, 4);
    if (!n->data) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: table [%d,%d]", rows, cols);
    memcpy(n->data, x, count * 4);
    return v;
}

VGS__DEF vgs_var vgs_table(vgs_graph *g, const float *x, int rows, int cols)
{
    return vgs__table(g, x, rows, cols, VGS_F32);
}

VGS__DEF vgs_var vgs_table_int(vgs_graph *g, const int32_t *x, int rows, int cols)
{
    return vgs__table(g, x, rows, cols, VGS_I32);
}

VGS__DEF vgs_scalar vgs_scalar_create(vgs_graph *g, double value)
{
    vgs_scalar s = { 0 };
    void *array = g->scalar;
    if (g->sticky.code != VGS_OK) return s;
    if (!vgs__grow(&array, &g->cap_scalar, g->n_scalar, sizeof *g->scalar)) {
        vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: %d scalars", g->n_scalar);
        return s;
    }
    g->scalar = (double *)array;
    g->scalar[g->n_scalar] = value;
    s.id = (uint32_t)++g->n_scalar;
    return s;
}

VGS__DEF void vgs_scalar_set(vgs_graph *g, vgs_scalar s, double value)
{
    if (s.id && s.id <= (uint32_t)g->n_scalar) g->scalar[s.id - 1] = value;
}

/* ---- views: other shapes of the same storage ----------------------------------------------------- */

static vgs_var vgs__alias(vgs_graph *g, int base, size_t offset, int rows, int cols, int ld)
{
    int id = vgs__push(g, VGS_OP_VIEW, rows, cols, g->node[base].type);
    vgs__node *n;
    if (id < 0) return vgs__no_var();
    n = &g->node[id];
    n->in[0] = n->alias = base;
    n->n_in = 1;
    n->alias_offset = offset;
    n->ld = ld;
    return vgs__handle(g, id);
}

/* The same view twice is the same node, so that its gradients add up in one place. */
VGS__DEF vgs_var vgs_view(vgs_graph *g, vgs_var params, int offset, int rows, int cols, int ld)
{
    int p = vgs__operand(g, "view", params), i;
    const vgs__node *n;
    if (p < 0) return vgs__no_var();
    n = &g->node[p];
    if (offset < 0 || rows <= 0 || cols <= 0 || ld < cols || n->rows != 1 ||
        (double)offset + (double)(rows - 1) * ld + cols > (double)n->cols)
        return vgs__graph_fail(g, VGS_E_SHAPE, "view: [%d,%d] at offset %d, ld %d, does not lie in [%d,%d]",
                               rows, cols, offset, ld, n->rows, n->cols);
    for (i = p + 1; i < g->n_node; ++i) {
        n = &g->node[i];
        if (n->op == VGS_OP_VIEW && n->alias == p && n->alias_offset == (size_t)offset && n->rows == rows &&
            n->cols == cols && n->ld == ld) return vgs__handle(g, i);
    }
    return vgs__alias(g, p, (size_t)offset, rows, cols, ld);
}

VGS__DEF vgs_var vgs_cols(vgs_graph *g, vgs_var x, int first, int n)
{
    int a = vgs__operand(g, "cols", x);
    if (a < 0) return vgs__no_var();
    if (first < 0 || n <= 0 || first > g->node[a].cols - n)
        return vgs__graph_fail(g, VGS_E_SHAPE, "cols: columns %d..%d of %d", first, first + n - 1,
                               g->node[a].cols);
    return vgs__alias(g, a, (size_t)first, g->node[a].rows, n, g->node[a].ld);
}

VGS__DEF vgs_var vgs_reshape(vgs_graph *g, vgs_var x, int cols)
{
    int a = vgs__operand(g, "reshape", x), rows;
    double count;
    if (a < 0) return vgs__no_var();
    count = (double)g->node[a].rows * g->node[a].cols;
    rows = cols > 0 ? (int)(count / cols) : 0;
    if (cols <= 0 || (double)rows * cols != count || g->node[a].ld != g->node[a].cols) {
        char s[40];
        return vgs__graph_fail(g, VGS_E_SHAPE, "reshape: %s cannot have %d columns",
                               vgs__shape_text(&g->node[a], s), cols);
    }
    return vgs__alias(g, a, 0, rows, cols, cols);
}

/* ==== >>ops ========================================================================================
   For each op, side by side: k_ the CPU kernel, g_ its gradient as ops of this same table, vgs_ the public
   call with its shape rule. Maps (kind M) and row ops (kind R) fill rows r0..r1, columns c0..c1 of their
   output, every element by the same operations wherever it lies: splitting changes no bit. */

typedef struct vgs__k {                          /* a call with its pointers resolved                 */
    float *out, *out2, *in[VGS_MAX_IN];          /* NULL = absent                                     */
    int rows, cols, ld_out, ld_out2;
    int full_rows;                               /* rows before a contiguous map is laid out as one row */
    int in_rows[VGS_MAX_IN], in_cols[VGS_MAX_IN], ld[VGS_MAX_IN];
    const int *i;
    const float *f;
    const vgs_energy *energy;
} vgs__k;

typedef struct vgs__job vgs__job;                /* >>cpu                                             */
typedef struct vgs__jobs vgs__jobs;

/* What one kind of list took lately, in seconds, alone and with all threads; the slower way is tried again
   after `wait` runs. */
typedef struct vgs__pace { double cost, took[2]; int runs, wait; } vgs__pace;

typedef struct vgs__cpu {
    vgs_backend base;
    int threads;
    vgs_isa isa;
    float *work;                                 /* [threads]: packing space of the matrix product    */
    float *scratch, *packed;                     /* [threads]: values local to a group; packed B's    */
    size_t scratch_size, packed_size;            /* scratch: of one thread                            */
    vgs__job *job;
    vgs__jobs *group;
    int cap_job, cap_group;
    double part[256];                            /* of sum_squares                                    */
    int bad_job, bad_row;                        /* of the check that holds the flag, -1 = none       */
    int failures, failed;                        /* of this list; group of the first one + 1, 0 = none */
    vgs__pace pace[64];
    vgs_error error;
} vgs__cpu;

/* An op on a whole tensor runs on all threads of a crew at once, each with its own `me`. */
typedef struct vgs__crew { int me, n; } vgs__crew;

static void vgs__crew_wait(vgs__crew t)
{
#ifdef _OPENMP
    if (t.n > 1) {
#  pragma omp barrier
    }
#else
    (void)t;
#endif
}

#ifdef VGS__X86                                  /* where the hottest have an AVX2 version             */
#  define VGS__MAP_HOT
#else
#  define VGS__MAP_HOT VGS__HOT
#endif
#define VGS__KERNEL(name) static void vgs__k_##name(const vgs__k *k, int r0, int r1, int c0, int c1)
#define VGS__WHOLE(name) \
    static vgs_status vgs__k_##name(vgs__cpu *cpu, const vgs__k *k, vgs__crew crew, vgs_error *err)
#define VGS__GRAD(name) \
    static void vgs__g_##name(vgs_graph *g, const vgs__node *n, vgs_var y, vgs_var gy, const bool *need, \
                              vgs_var *gx)
#define VGS__NO_GRAD(name) VGS__GRAD(name) { (void)n; (void)y; (void)gy; (void)need; (void)gx; \
    vgs__graph_fail(g, VGS_E_ARG, "gradient: " #name " has none (first derivatives only)"); }
#define VGS__IN(n, k) vgs__handle(g, (n)->in[k])

/* y = expr of a (one operand), of a and b (two); f0, f1 are the op's real attributes. */
#define VGS__MAP1(name, expr)                                                                         \
    VGS__MAP_HOT VGS__KERNEL(name)                                                                    \
    {                                                                                                 \
        const float f0 = k->f[0], f1 = k->f[1];                                                       \
        int r, c;                                                                                     \
        (void)f0; (void)f1;                                                                           \
        for (r = r0; r < r1; ++r) {                                                                   \
            const float *pa = k->in[0] + (size_t)r * (size_t)k->ld[0];                                \
            float *y = k->out + (size_t)r * (size_t)k->ld_out;                                        \
            for (c = c0; c < c1; ++c) { const float a = pa[c]; y[c] = (expr); }                       \
        }                                                                                             \
    }

#define VGS__MAP2_LOOP(ea, eb, expr) \
    for (c = c0; c < c1; ++c) { const float a = (ea), b = (eb); y[c] = (expr); }

/* An operand of one row has row stride 0; one of one column is a number for the whole row. */
#define VGS__MAP2(name, expr)                                                                         \
    VGS__MAP_HOT VGS__KERNEL(name)                                                                    \
    {                                                                                                 \
        const float f0 = k->f[0], f1 = k->f[1];                                                       \
        const size_t sa = k->in_rows[0] == 1 ? 0 : (size_t)k->ld[0];                                  \
        const size_t sb = k->in_rows[1] == 1 ? 0 : (size_t)k->ld[1];                                  \
        const bool wide_a = k->in_cols[0] == k->cols, wide_b = k->in_cols[1] == k->cols;              \
        int r, c;                                                                                     \
        (void)f0; (void)f1;                                                                           \
        for (r = r0; r < r1; ++r) {                                                                   \
            const float *pa = k->in[0] + (size_t)r * sa, *pb = k->in[1] + (size_t)r * sb;             \
            float *y = k->out + (size_t)r * (size_t)k->ld_out;                                        \
            if (wide_a && wide_b) VGS__MAP2_LOOP(pa[c], pb[c], expr)                                  \
            else if (wide_a) { const float one = pb[0]; VGS__MAP2_LOOP(pa[c], one, expr) }            \
            else { const float one = pa[0]; VGS__MAP2_LOOP(one, pb[c], expr) }                        \
        }                                                                                             \
    }

/* Kernels written for AVX2, beside the C that they repeat operation for operation; >>cpu picks them. */
#ifdef VGS__X86
#  define VGS__KERNEL8(name) VGS__AVX2 static void vgs__k_##name##_avx2(const vgs__k *k, int r0, int r1, \
                                                                        int c0, int c1)
/* For AVX-512 compilers vectorise the C itself. */
#  define VGS__KERNEL16(name) VGS__HOT __attribute__((target("avx512f")))                               \
    static void vgs__k_##name##_avx512(const vgs__k *k, int r0, int r1, int c0, int c1)
#  define VGS__MAP1_AVX2(name, expr)                                                                  \
    VGS__KERNEL8(name)                                                                                \
    {                                                                                                 \
        const __m256 f0 = vgs__set8(k->f[0]), f1 = vgs__set8(k->f[1]);                                \
        int r, c;                                                                                     \
        (void)f0; (void)f1;                                                                           \
        for (r = r0; r < r1; ++r) {                                                                   \
            const float *pa = k->in[0] + (size_t)r * (size_t)k->ld[0];                                \
            float *y = k->out + (size_t)r * (size_t)k->ld_out;                                        \
            for (c = c0; c < c1; c += 8) {                                                            \
                const __m256 a = vgs__load8(pa + c, c1 - c);                                          \
                vgs__store8(y + c, c1 - c, (expr));                                                   \
            }                                                                                         \
        }                                                                                             \
    }
#  define VGS__MAP2_AVX2(name, expr)                                                                  \
    VGS__KERNEL8(name)                                                                                \
    {                                                                                                 \
        const size_t sa = k->in_rows[0] == 1 ? 0 : (size_t)k->ld[0];                                  \
        const size_t sb = k->in_rows[1] == 1 ? 0 : (size_t)k->ld[1];                                  \
        const bool wide_a = k->in_cols[0] == k->cols, wide_b = k->in_cols[1] == k->cols;              \
        int r, c;                                                                                     \
        for (r = r0; r < r1; ++r) {                                                                   \
            const float *pa = k->in[0] + (size_t)r * sa, *pb = k->in[1] + (size_t)r * sb;             \
            float *y = k->out + (size_t)r * (size_t)k->ld_out;                                        \
            for (c = c0; c < c1; c += 8) {                                                            \
                const __m256 a = wide_a ? vgs__load8(pa + c, c1 - c) : vgs__set8(pa[0]);              \
                const __m256 b = wide_b ? vgs__load8(pb + c, c1 - c) : vgs__set8(pb[0]);              \
                vgs__store8(y + c, c1 - c, (expr));                                                   \
            }                                                                                         \
        }                                                                                             \
    }
#else
#  define VGS__MAP1_AVX2(name, expr)
#  define VGS__MAP2_AVX2(name, expr)
#endif

static vgs_var vgs__scatter_rows(vgs_graph *g, vgs_var x, vgs_var idx, int rows);

/* ---- shape rules and small helpers for gradients ------------------------------------------------- */

static int vgs__float_operand(vgs_graph *g, const char *op, vgs_var x)
{
    int a = vgs__operand(g, op, x);
    if (a < 0 || g->node[a].type == VGS_F32) return a;
    vgs__graph_fail(g, VGS_E_SHAPE, "%s: an operand is int32, not float", op);
    return -1;
}

static vgs_var vgs__unary(vgs_graph *g, int op, vgs_var x)
{
    int a = vgs__float_operand(g, vgs_op_name(op), x);
    return a < 0 ? vgs__no_var() : vgs__push_op(g, op, g->node[a].rows, g->node[a].cols, a, -1, -1);
}

static vgs_var vgs__unary_f(vgs_graph *g, int op, vgs_var x, float f0, float f1)
{
    vgs_var v = vgs__unary(g, op, x);
    vgs__attr_f(g, v, 0, f0);
    vgs__attr_f(g, v, 1, f1);
    return v;
}

static int vgs__stretch(int a, int b, bool *ok)                      /* common length of a and b       */
{
    *ok = *ok && (a == b || a == 1 || b == 1);
    return a == 1 ? b : a;
}

static vgs_var vgs__binary(vgs_graph *g, int op, vgs_var x, vgs_var z)
{
    const char *name = vgs_op_name(op);
    int a = vgs__float_operand(g, name, x), b = vgs__float_operand(g, name, z), rows, cols;
    bool ok = true;
    if (a < 0 || b < 0) return vgs__no_var();
    rows = vgs__stretch(g->node[a].rows, g->node[b].rows, &ok);
    cols = vgs__stretch(g->node[a].cols, g->node[b].cols, &ok);
    if (!ok) return vgs__shape_fail(g, name, a, b);
    return vgs__push_op(g, op, rows, cols, a, b, -1);
}

/* Sums a gradient over the rows and columns along which operand k of n was stretched. */
static vgs_var vgs__unstretch(vgs_graph *g, const vgs__node *n, int k, vgs_var gx)
{
    const vgs__node *x = &g->node[n->in[k]];
    int rows = x->rows, cols = x->cols;
    if (cols == 1 && n->cols != 1) gx = vgs_sum_cols(g, gx);
    if (rows == 1 && n->rows != 1) gx = vgs_sum_rows(g, gx);
    return gx;
}

static void vgs__give(vgs_graph *g, const vgs__node *n, int k, vgs_var gx_k, vgs_var *gx)
{
    gx[k] = vgs__unstretch(g, n, k, gx_k);
}

/* ---- arithmetic ---------------------------------------------------------------------------------- */

VGS__MAP2(add, a + b)
VGS__MAP2_AVX2(add, _mm256_add_ps(a, b))
VGS__GRAD(add)
{
    (void)y;
    if (need[0]) vgs__give(g, n, 0, gy, gx);
    if (need[1]) vgs__give(g, n, 1, gy, gx);
}
VGS__DEF vgs_var vgs_add(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__binary(g, VGS_OP_ADD, a, b); }

VGS__MAP2(sub, a - b)
VGS__MAP2_AVX2(sub, _mm256_sub_ps(a, b))
VGS__GRAD(sub)
{
    (void)y;
    if (need[0]) vgs__give(g, n, 0, gy, gx);
    if (need[1]) vgs__give(g, n, 1, vgs_affine(g, gy, -1.0f, 0.0f), gx);
}
VGS__DEF vgs_var vgs_sub(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__binary(g, VGS_OP_SUB, a, b); }

VGS__MAP2(mul, a * b)
VGS__MAP2_AVX2(mul, _mm256_mul_ps(a, b))
VGS__GRAD(mul)
{
    (void)y;
    if (need[0]) vgs__give(g, n, 0, vgs_mul(g, gy, VGS__IN(n, 1)), gx);
    if (need[1]) vgs__give(g, n, 1, vgs_mul(g, gy, VGS__IN(n, 0)), gx);
}
VGS__DEF vgs_var vgs_mul(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__binary(g, VGS_OP_MUL, a, b); }

VGS__MAP2(div, a / b)
VGS__MAP2_AVX2(div, _mm256_div_ps(a, b))
VGS__GRAD(div)
{
    vgs_var ga = vgs_div(g, gy, VGS__IN(n, 1));
    if (need[0]) vgs__give(g, n, 0, ga, gx);
    if (need[1]) vgs__give(g, n, 1, vgs_affine(g, vgs_mul(g, ga, y), -1.0f, 0.0f), gx);
}
VGS__DEF vgs_var vgs_div(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__binary(g, VGS_OP_DIV, a, b); }

VGS__MAP1(affine, a * f0 + f1)
VGS__MAP1_AVX2(affine, _mm256_add_ps(_mm256_mul_ps(a, f0), f1))
VGS__GRAD(affine)
{
    vgs_var v = vgs__unary_f(g, VGS_OP_AFFINE, gy, n->f[0], 0.0f);
    vgs__node *m = vgs__node_of(g, v);
    (void)y;
    (void)need;
    if (m) m->f_slot[0] = n->f_slot[0];
    gx[0] = v;
}
VGS__DEF vgs_var vgs_affine(vgs_graph *g, vgs_var x, float a, float b)
{
    return vgs__unary_f(g, VGS_OP_AFFINE, x, a, b);
}
VGS__DEF vgs_var vgs_affine_by(vgs_graph *g, vgs_var x, vgs_scalar a, vgs_scalar b)
{
    vgs_var v = vgs__unary_f(g, VGS_OP_AFFINE, x, 1.0f, 0.0f);
    vgs__slot_f(g, v, 0, a);
    vgs__slot_f(g, v, 1, b);
    return v;
}

/* y = f0 a + f1 b + f2 c; b and c may be absent. The schedule step: a_t x - mu + sigma eps. */
VGS__MAP_HOT VGS__KERNEL(combine)
{
    const float f0 = k->f[0], f1 = k->f[1], f2 = k->f[2];
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *pa = k->in[0] + (size_t)r * (size_t)k->ld[0];
        const float *pb = k->in[1] + (size_t)r * (size_t)k->ld[1];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        if (k->in[2]) {
            const float *pc = k->in[2] + (size_t)r * (size_t)k->ld[2];
            for (c = c0; c < c1; ++c) y[c] = pa[c] * f0 + pb[c] * f1 + pc[c] * f2;
        } else {
            for (c = c0; c < c1; ++c) y[c] = pa[c] * f0 + pb[c] * f1;
        }
    }
}
#ifdef VGS__X86
VGS__KERNEL8(combine)
{
    const __m256 f0 = vgs__set8(k->f[0]), f1 = vgs__set8(k->f[1]), f2 = vgs__set8(k->f[2]);
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *pa = k->in[0] + (size_t)r * (size_t)k->ld[0];
        const float *pb = k->in[1] + (size_t)r * (size_t)k->ld[1];
        const float *pc = k->in[2] ? k->in[2] + (size_t)r * (size_t)k->ld[2] : NULL;
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        for (c = c0; c < c1; c += 8) {
            __m256 v = _mm256_mul_ps(vgs__load8(pa + c, c1 - c), f0);
            v = _mm256_add_ps(v, _mm256_mul_ps(vgs__load8(pb + c, c1 - c), f1));
            if (pc) v = _mm256_add_ps(v, _mm256_mul_ps(vgs__load8(pc + c, c1 - c), f2));
            vgs__store8(y + c, c1 - c, v);
        }
    }
}
#endif
VGS__NO_GRAD(combine)

/* ---- functions of one number --------------------------------------------------------------------- */

#define VGS__UNARY_DEF(name, ID) \
    VGS__DEF vgs_var vgs_##name(vgs_graph *g, vgs_var x) { return vgs__unary(g, VGS_OP_##ID, x); }
/* gradient rule in one expression of gy, y and x = the operand */
#define VGS__GRAD1(name, expr) \
    VGS__GRAD(name) { const vgs_var x = VGS__IN(n, 0); (void)need; (void)x; (void)y; gx[0] = (expr); }

VGS__INLINE void vgs__exp_rows(const vgs__k *k, int r0, int r1, int c0, int c1)
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        for (c = c0; c < c1; ++c) y[c] = vgs__exp(x[c]);
    }
}
VGS__MAP_HOT VGS__KERNEL(exp) { vgs__exp_rows(k, r0, r1, c0, c1); }
#ifdef VGS__X86
VGS__KERNEL16(exp) { vgs__exp_rows(k, r0, r1, c0, c1); }
#endif
VGS__MAP1_AVX2(exp, vgs__exp8(a))
VGS__GRAD1(exp, vgs_mul(g, gy, y))
VGS__UNARY_DEF(exp, EXP)

VGS__MAP1(log, vgs__log(a))
VGS__GRAD1(log, vgs_div(g, gy, x))
VGS__UNARY_DEF(log, LOG)

VGS__MAP1(sqrt, sqrtf(a))
VGS__MAP1_AVX2(sqrt, _mm256_sqrt_ps(a))
VGS__GRAD1(sqrt, vgs_affine(g, vgs_div(g, gy, y), 0.5f, 0.0f))
VGS__UNARY_DEF(sqrt, SQRT)

VGS__MAP1(square, a * a)
VGS__MAP1_AVX2(square, _mm256_mul_ps(a, a))
VGS__GRAD1(square, vgs_affine(g, vgs_mul(g, gy, x), 2.0f, 0.0f))
VGS__UNARY_DEF(square, SQUARE)

VGS__MAP1(reciprocal, 1.0f / a)
VGS__MAP1_AVX2(reciprocal, _mm256_div_ps(vgs__set8(1.0f), a))
VGS__GRAD1(reciprocal, vgs_affine(g, vgs_mul(g, gy, vgs_square(g, y)), -1.0f, 0.0f))
VGS__UNARY_DEF(reciprocal, RECIPROCAL)

VGS__MAP1(abs, fabsf(a))
VGS__GRAD1(abs, vgs__binary(g, VGS_OP_ABS_GRAD, gy, x))
VGS__UNARY_DEF(abs, ABS)
VGS__MAP2(abs_grad, b > 0.0f ? a : b < 0.0f ? -a : 0.0f)
VGS__NO_GRAD(abs_grad)

VGS__INLINE void vgs__sincos(float x, float *s, float *c)            /* turns in [0,1) first           */
{
    float u = x * 0.159154943091895336f, n = vgs__rounded(u + 12582912.0f) - 12582912.0f;
    u = (u > -4194304.0f && u < 4194304.0f) ? u - n : u - u;         /* too large: no digits are left  */
    vgs__sincos_turns(u < 0.0f ? u + 1.0f : u, s, c);
}
VGS__INLINE float vgs__sin(float x) { float s, c; vgs__sincos(x, &s, &c); return s; }
VGS__INLINE float vgs__cos(float x) { float s, c; vgs__sincos(x, &s, &c); return c; }

VGS__MAP1(sin, vgs__sin(a))
VGS__GRAD1(sin, vgs_mul(g, gy, vgs_cos(g, x)))
VGS__UNARY_DEF(sin, SIN)

VGS__MAP1(cos, vgs__cos(a))
VGS__GRAD1(cos, vgs_affine(g, vgs_mul(g, gy, vgs_sin(g, x)), -1.0f, 0.0f))
VGS__UNARY_DEF(cos, COS)

VGS__MAP1(relu, a > 0.0f ? a : (a == a ? 0.0f : a))
VGS__GRAD1(relu, vgs__binary(g, VGS_OP_RELU_GRAD, gy, y))
VGS__UNARY_DEF(relu, RELU)
VGS__MAP2(relu_grad, b > 0.0f ? a : 0.0f)                            /* from the output                */
VGS__MAP2_AVX2(relu_grad, _mm256_and_ps(a, _mm256_cmp_ps(b, _mm256_setzero_ps(), _CMP_GT_OQ)))
VGS__NO_GRAD(relu_grad)

/* out2: the derivative, so that forward and gradient share the exponential */
VGS__INLINE void vgs__silu_rows(const vgs__k *k, int r0, int r1, int c0, int c1)
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        float *slope = k->out2 ? k->out2 + (size_t)r * (size_t)k->ld_out2 : NULL;
        if (slope)
            for (c = c0; c < c1; ++c) {
                float a = x[c], s = vgs__sigmoid(a);
                y[c] = a * s;
                slope[c] = s * (1.0f + a * (1.0f - s));
            }
        else
            for (c = c0; c < c1; ++c) y[c] = x[c] * vgs__sigmoid(x[c]);
    }
}
VGS__MAP_HOT VGS__KERNEL(silu) { vgs__silu_rows(k, r0, r1, c0, c1); }
#ifdef VGS__X86
VGS__KERNEL8(silu)
{
    const __m256 one = vgs__set8(1.0f);
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        float *slope = k->out2 ? k->out2 + (size_t)r * (size_t)k->ld_out2 : NULL;
        for (c = c0; c < c1; c += 8) {
            const __m256 a = vgs__load8(x + c, c1 - c), s = vgs__sigmoid8(a);
            vgs__store8(y + c, c1 - c, _mm256_mul_ps(a, s));
            if (slope)
                vgs__store8(slope + c, c1 - c, _mm256_mul_ps(s, _mm256_add_ps(one, _mm256_mul_ps(a,
                                                                    _mm256_sub_ps(one, s)))));
        }
    }
}
VGS__KERNEL16(silu) { vgs__silu_rows(k, r0, r1, c0, c1); }
#endif
VGS__GRAD(silu)
{
    (void)need;
    gx[0] = vgs_mul(g, gy, vgs__tap(g, vgs__id(g, y), n->cols, VGS_F32));
}
VGS__UNARY_DEF(silu, SILU)

VGS__MAP1(softplus, vgs__softplus(a))
VGS__GRAD1(softplus, vgs_mul(g, gy, vgs_sigmoid(g, x)))
VGS__UNARY_DEF(softplus, SOFTPLUS)

VGS__MAP1(sigmoid, vgs__sigmoid(a))
VGS__MAP1_AVX2(sigmoid, vgs__sigmoid8(a))
VGS__GRAD1(sigmoid, vgs__binary(g, VGS_OP_SIGMOID_GRAD, gy, y))
VGS__UNARY_DEF(sigmoid, SIGMOID)
VGS__MAP2(sigmoid_grad, a * b * (1.0f - b))
VGS__MAP2_AVX2(sigmoid_grad, _mm256_mul_ps(_mm256_mul_ps(a, b), _mm256_sub_ps(vgs__set8(1.0f), b)))
VGS__NO_GRAD(sigmoid_grad)

VGS__MAP1(tanh, vgs__tanh(a))
VGS__GRAD1(tanh, vgs__binary(g, VGS_OP_TANH_GRAD, gy, y))
VGS__UNARY_DEF(tanh, TANH)
VGS__MAP2(tanh_grad, a * (1.0f - b * b))
VGS__MAP2_AVX2(tanh_grad, _mm256_mul_ps(a, _mm256_sub_ps(vgs__set8(1.0f), _mm256_mul_ps(b, b))))
VGS__NO_GRAD(tanh_grad)

static vgs_var vgs__clamp_grad(vgs_graph *g, vgs_var gy, vgs_var x, const vgs__node *n)
{
    vgs_var v = vgs__binary(g, VGS_OP_CLAMP_GRAD, gy, x);
    vgs__attr_f(g, v, 0, n->f[0]);
    vgs__attr_f(g, v, 1, n->f[1]);
    return v;
}
VGS__MAP1(clamp, a < f0 ? f0 : a > f1 ? f1 : a)
VGS__GRAD1(clamp, vgs__clamp_grad(g, gy, x, n))
VGS__MAP2(clamp_grad, (b < f0 || b > f1) ? 0.0f : a)
VGS__NO_GRAD(clamp_grad)
VGS__DEF vgs_var vgs_clamp(vgs_graph *g, vgs_var x, float lo, float hi)
{
    return vgs__unary_f(g, VGS_OP_CLAMP, x, lo, hi);
}

/* x where e <= f0, exactly 0 above and for NaN: the drift of an energy that is cut at f0 (never 0 * inf). */
VGS__MAP2(mask_above, b <= f0 ? a : 0.0f)
VGS__NO_GRAD(mask_above)

VGS__KERNEL(fill)                                                    /* f0; over the rows of it if i0  */
{
    const float f0 = k->i[0] ? k->f[0] / (float)k->full_rows : k->f[0];
    int r, c;
    for (r = r0; r < r1; ++r)
        for (c = c0; c < c1; ++c) k->out[(size_t)r * (size_t)k->ld_out + (size_t)c] = f0;
}
VGS__NO_GRAD(fill)

static vgs_var vgs__fill(vgs_graph *g, int rows, int cols, float value)
{
    vgs_var v = vgs__push_op(g, VGS_OP_FILL, rows, cols, -1, -1, -1);
    vgs__attr_f(g, v, 0, value);
    return v;
}

/* ---- losses -------------------------------------------------------------------------------------- */

VGS__INLINE float vgs__loss(float d, int kind)
{
    float a = fabsf(d);
    if (kind == VGS_L1) return a;
    if (kind == VGS_SMOOTH_L1) return a < 1.0f ? 0.5f * d * d : a - 0.5f;
    return d * d;
}
VGS__INLINE float vgs__loss_slope(float d, int kind)
{
    if (kind == VGS_L1) return d > 0.0f ? 1.0f : d < 0.0f ? -1.0f : d;
    if (kind == VGS_SMOOTH_L1) return d > 1.0f ? 1.0f : d < -1.0f ? -1.0f : d;
    return 2.0f * d;
}
VGS__MAP2(loss, vgs__loss(a - b, k->i[0]))
VGS__MAP2(loss_grad, vgs__loss_slope(a - b, k->i[0]))
VGS__NO_GRAD(loss_grad)
VGS__GRAD(loss)                                                      /* the target is a constant       */
{
    vgs_var s = vgs__binary(g, VGS_OP_LOSS_GRAD, VGS__IN(n, 0), VGS__IN(n, 1));
    (void)y;
    vgs__attr_i(g, s, 0, n->i[0]);
    if (need[0]) vgs__give(g, n, 0, vgs_mul(g, gy, s), gx);
    if (need[1]) vgs__give(g, n, 1, vgs_affine(g, vgs_mul(g, gy, s), -1.0f, 0.0f), gx);
}
VGS__DEF vgs_var vgs_loss_of(vgs_graph *g, vgs_var prediction, vgs_var target, vgs_loss kind)
{
    vgs_var v = vgs__binary(g, VGS_OP_LOSS, prediction, target);
    vgs__attr_i(g, v, 0, (int)kind);
    return v;
}

/* ---- integers ------------------------------------------------------------------------------------ */

VGS__KERNEL(fill_int)                                                /* i0 everywhere                  */
{
    int r, c;
    for (r = r0; r < r1; ++r)
        for (c = c0; c < c1; ++c) memcpy(&k->out[(size_t)r * (size_t)k->ld_out + (size_t)c], &k->i[0], 4);
}
VGS__NO_GRAD(fill_int)

VGS__KERNEL(int_div)                                                 /* a / i0                         */
{
    int r, c, v;
    for (r = r0; r < r1; ++r)
        for (c = c0; c < c1; ++c) {
            memcpy(&v, &k->in[0][(size_t)r * (size_t)k->ld[0] + (size_t)c], 4);
            v /= k->i[0];
            memcpy(&k->out[(size_t)r * (size_t)k->ld_out + (size_t)c], &v, 4);
        }
}
VGS__NO_GRAD(int_div)

VGS__INLINE int vgs__int_at(const float *p, size_t i)                /* an int32 in a 4-byte cell      */
{
    int32_t v;
    memcpy(&v, p + i, 4);
    return v;
}

/* ---- matrix products ----------------------------------------------------------------------------- */

/* i0 = form, i1 = activation; in: a, b, bias or table, row index of the table. */
static vgs__product vgs__product_of(const vgs__cpu *cpu, const vgs__k *k)
{
    vgs__epilogue ep;
    int depth = k->i[0] == VGS__TN ? k->in_rows[0] : k->in_cols[0];
    memset(&ep, 0, sizeof ep);
    ep.bias = k->in[2];
    ep.ldbias = k->ld[2];
    ep.rows = (const int32_t *)(const void *)k->in[3];
    ep.act = (vgs_act)k->i[1];
    return vgs__product_make((vgs__form)k->i[0], k->rows, k->cols, depth, k->in[0], k->ld[0], k->in[1],
                             k->ld[1], k->out, k->ld_out, &ep, cpu->work, cpu->isa);
}
VGS__WHOLE(matmul)                                                   /* TN; others go by rows, >>cpu   */
{
    vgs__product q = vgs__product_of(cpu, k);
    (void)err;
    if (q.m <= 0 || q.n <= 0) return VGS_OK;
#ifdef VGS_USE_CBLAS
    if (q.k > 0) {
        if (crew.me == 0) vgs__gemm_cblas(&q);
        return VGS_OK;
    }
#endif
    vgs__gemm_thread(&q, crew.me, crew.n);
    return VGS_OK;
}

static vgs_var vgs__matmul_as(vgs_graph *g, int form, vgs_var x, vgs_var z)
{
    int a = vgs__float_operand(g, "matmul", x), b = vgs__float_operand(g, "matmul", z), rows, cols, da, db;
    vgs_var v;
    if (a < 0 || b < 0) return vgs__no_var();
    rows = form == VGS__TN ? g->node[a].cols : g->node[a].rows;
    cols = form == VGS__NT ? g->node[b].rows : g->node[b].cols;
    da = form == VGS__TN ? g->node[a].rows : g->node[a].cols;
    db = form == VGS__NT ? g->node[b].cols : g->node[b].rows;
    if (da != db || cols <= 0 || (form != VGS__TN && da < 0))
        return vgs__shape_fail(g, form == VGS__NT ? "linear" : "matmul", a, b);
    v = vgs__push_op(g, VGS_OP_MATMUL, rows, cols, a, b, -1);
    vgs__attr_i(g, v, 0, form);
    return v;
}

VGS__GRAD(matmul)
{
    vgs_var a = VGS__IN(n, 0), b = VGS__IN(n, 1);
    (void)y;
    if (n->i[0] == VGS__NT) {
        if (need[0]) gx[0] = vgs__matmul_as(g, VGS__NN, gy, b);
        if (need[1]) gx[1] = vgs__matmul_as(g, VGS__TN, gy, a);
    } else if (n->i[0] == VGS__NN) {
        if (need[0]) gx[0] = vgs__matmul_as(g, VGS__NT, gy, b);
        if (need[1]) gx[1] = vgs__matmul_as(g, VGS__TN, a, gy);
    } else {
        if (need[0]) gx[0] = vgs__matmul_as(g, VGS__NT, b, gy);
        if (need[1]) gx[1] = vgs__matmul_as(g, VGS__NN, a, gy);
    }
    if (need[2] && n->in[3] < 0) gx[2] = vgs_sum_rows(g, gy);
    else if (need[2]) gx[2] = vgs__scatter_rows(g, gy, VGS__IN(n, 3), g->node[n->in[2]].rows);
}

VGS__DEF vgs_var vgs_matmul(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__matmul_as(g, VGS__NN, a, b); }

static bool vgs__is_index(const vgs__node *n) { return n->type == VGS_I32 && n->cols == 1 && n->ld == 1; }

/* x w^T + bias[idx] */
static vgs_var vgs__linear(vgs_graph *g, vgs_var x, vgs_var w, vgs_var bias, vgs_var idx)
{
    vgs_var v = vgs__matmul_as(g, VGS__NT, x, w);
    int id = vgs__id(g, v), b, t = -1;
    if (id < 0 || !bias.id) return v;
    b = vgs__operand(g, "linear: bias", bias);
    if (idx.id) t = vgs__operand(g, "linear: index", idx);
    if (b < 0 || (idx.id && t < 0)) return vgs__no_var();
    if (g->node[b].cols != g->node[id].cols || (t < 0 && g->node[b].rows != 1) || g->node[b].rows < 0)
        return vgs__shape_fail(g, "linear: bias", id, b);
    if (t >= 0 && (g->node[t].rows != g->node[id].rows || !vgs__is_index(&g->node[t])))
        return vgs__shape_fail(g, "linear: index", id, t);
    g->node[id].in[2] = b;
    g->node[id].in[3] = t;
    g->node[id].n_in = t >= 0 ? 4 : 3;
    return v;
}
VGS__DEF vgs_var vgs_linear(vgs_graph *g, vgs_var x, vgs_var w, vgs_var b)
{
    return vgs__linear(g, x, w, b, vgs__no_var());
}
VGS__DEF vgs_var vgs_linear_at(vgs_graph *g, vgs_var x, vgs_var w, vgs_var table, vgs_var t)
{
    return vgs__linear(g, x, w, table, t);
}

/* ---- reductions ---------------------------------------------------------------------------------- */

VGS__INLINE float vgs__row_sum(const float *x, int n)                /* 16 lanes, then a fixed tree    */
{
    float s[16] = { 0 };
    int i = 0, j;
    for (; i + 16 <= n; i += 16)
        for (j = 0; j < 16; ++j) s[j] += x[i + j];
    for (j = 0; j < n - i; ++j) s[j] += x[i + j];
    for (j = 8; j; j >>= 1)
        for (i = 0; i < j; ++i) s[i] += s[i + j];
    return s[0];
}

VGS__HOT VGS__KERNEL(sum_cols)                                       /* f0 times the sum               */
{
    int r;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r)
        k->out[(size_t)r * (size_t)k->ld_out] =
            k->f[0] * vgs__row_sum(k->in[0] + (size_t)r * (size_t)k->ld[0], k->in_cols[0]);
}
VGS__GRAD(sum_cols)
{
    (void)y;
    (void)need;
    gx[0] = vgs_mul(g, vgs__fill(g, 1, g->node[n->in[0]].cols, n->f[0]), gy);
}
static vgs_var vgs__sum_cols(vgs_graph *g, vgs_var x, bool mean)
{
    int a = vgs__operand(g, "sum_cols", x);
    vgs_var v;
    if (a < 0) return vgs__no_var();
    v = vgs__push_op(g, VGS_OP_SUM_COLS, g->node[a].rows, 1, a, -1, -1);
    vgs__attr_f(g, v, 0, mean ? 1.0f / (float)g->node[a].cols : 1.0f);
    return v;
}
VGS__DEF vgs_var vgs_sum_cols (vgs_graph *g, vgs_var x) { return vgs__sum_cols(g, x, false); }
VGS__DEF vgs_var vgs_mean_cols(vgs_graph *g, vgs_var x) { return vgs__sum_cols(g, x, true); }

/* total[0..n] += the sum, in double, of `count` <= 64 rows of x: rows hit[0], hit[1], ..., or 0, 1, ... */
VGS__MAP_HOT static void vgs__add_rows(const float *x, int ld, const int *hit, int count, int n,
                                       double *total)
{
    int c, j, r;
    for (c = 0; c < n; c += 8) {
        double s[8] = { 0 };
        int w = n - c < 8 ? n - c : 8;
        for (r = 0; r < count; ++r) {
            const float *p = x + (ptrdiff_t)(hit ? hit[r] : r) * ld + c;
            for (j = 0; j < w; ++j) s[j] += (double)p[j];
        }
        for (j = 0; j < w; ++j) total[c + j] += s[j];
    }
}

#ifdef VGS__X86
VGS__AVX2 static void vgs__add_rows_avx2(const float *x, int ld, const int *hit, int count, int n,
                                         double *total)
{
    int c, r, whole = n & ~7;
    for (c = 0; c < whole; c += 8) {
        __m256d s0 = _mm256_setzero_pd(), s1 = s0;
        for (r = 0; r < count; ++r) {
            const float *p = x + (ptrdiff_t)(hit ? hit[r] : r) * ld + c;
            s0 = _mm256_add_pd(s0, _mm256_cvtps_pd(_mm_loadu_ps(p)));
            s1 = _mm256_add_pd(s1, _mm256_cvtps_pd(_mm_loadu_ps(p + 4)));
        }
        _mm256_storeu_pd(total + c, _mm256_add_pd(_mm256_loadu_pd(total + c), s0));
        _mm256_storeu_pd(total + c + 4, _mm256_add_pd(_mm256_loadu_pd(total + c + 4), s1));
    }
    vgs__add_rows(x + whole, ld, hit, count, n - whole, total + whole);
}
#endif

typedef void vgs__add_rows_fn(const float *x, int ld, const int *hit, int count, int n, double *total);
static vgs__add_rows_fn *vgs__add_rows_of(const vgs__cpu *cpu)
{
#ifdef VGS__X86
    if (cpu->isa == VGS_ISA_AVX2 || cpu->isa == VGS_ISA_AVX512) return vgs__add_rows_avx2;
#endif
    (void)cpu;
    return vgs__add_rows;
}

/* Columns of x summed over its rows, or over those in list[0..count), which ascend; n <= VGS__SUM_COLS.
   Blocks of 64 rows of x are each summed in double and then added to the total, in order. */
enum { VGS__SUM_ROWS = 64, VGS__SUM_COLS = 512 };
static void vgs__sum_strip(vgs__add_rows_fn *add, const float *x, int ld, const int *list, int count, int n,
                           double *total)
{
    int i, j;
    for (i = 0; i < n; ++i) total[i] = 0.0;
    for (i = 0; i < count; i = j)
        if (list) {
            for (j = i + 1; j < count && list[j] / VGS__SUM_ROWS == list[i] / VGS__SUM_ROWS; ) ++j;
            add(x, ld, list + i, j - i, n, total);
        } else {
            j = vgs__min(i + VGS__SUM_ROWS, count);
            add(x + (ptrdiff_t)i * ld, ld, NULL, j - i, n, total);
        }
}

VGS__WHOLE(sum_rows)                                                 /* i0: divide by the rows         */
{
    int strips = (k->cols + 63) / 64, s, rows = k->in_rows[0];
    vgs__add_rows_fn *add = vgs__add_rows_of(cpu);
    (void)err;
    for (s = crew.me; s < strips; s += crew.n) {
        double total[64];
        int c, c0 = s * 64, n = k->cols - c0 < 64 ? k->cols - c0 : 64;
        vgs__sum_strip(add, k->in[0] + c0, k->ld[0], NULL, rows, n, total);
        for (c = 0; c < n; ++c) k->out[c0 + c] = (float)(k->i[0] && rows ? total[c] / rows : total[c]);
    }
    return VGS_OK;
}
VGS__GRAD(sum_rows)
{
    vgs_var v = vgs__fill(g, g->node[n->in[0]].rows, 1, 1.0f);
    (void)y;
    (void)need;
    vgs__attr_i(g, v, 0, n->i[0]);
    gx[0] = vgs_mul(g, v, gy);
}
static vgs_var vgs__sum_rows(vgs_graph *g, vgs_var x, bool mean)
{
    int a = vgs__operand(g, "sum_rows", x);
    vgs_var v;
    if (a < 0) return vgs__no_var();
    v = vgs__push_op(g, VGS_OP_SUM_ROWS, 1, g->node[a].cols, a, -1, -1);
    vgs__attr_i(g, v, 0, mean);
    return v;
}
VGS__DEF vgs_var vgs_sum_rows (vgs_graph *g, vgs_var x) { return vgs__sum_rows(g, x, false); }
VGS__DEF vgs_var vgs_mean_rows(vgs_graph *g, vgs_var x) { return vgs__sum_rows(g, x, true); }

VGS__HOT VGS__KERNEL(logsumexp)                                      /* exp overflows at 88.7: minus max */
{
    int r, c, n = k->in_cols[0];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float m = x[0], s = 0.0f;
        for (c = 1; c < n; ++c) m = x[c] > m || x[c] != x[c] ? x[c] : m;
        if (m - m == 0.0f) for (c = 0; c < n; ++c) s += vgs__exp(x[c] - m);
        k->out[(size_t)r * (size_t)k->ld_out] = m - m == 0.0f ? m + vgs__log(s) : m;
    }
}
VGS__GRAD1(logsumexp, vgs_mul(g, vgs_exp(g, vgs_sub(g, x, y)), gy))
VGS__DEF vgs_var vgs_logsumexp(vgs_graph *g, vgs_var x)
{
    int a = vgs__operand(g, "logsumexp", x);
    return a < 0 ? vgs__no_var() : vgs__push_op(g, VGS_OP_LOGSUMEXP, g->node[a].rows, 1, a, -1, -1);
}

/* ---- layer norm over columns: y = gain (x - mean)/sqrt(var + eps) + bias --------------------------- */

#define VGS__NORM_EPS 1e-5f

VGS__INLINE void vgs__moments(const float *x, int n, float *mean, float *rstd)
{
    float m = vgs__row_sum(x, n) / (float)n, s[16] = { 0 };
    int i = 0, j;
    for (; i + 16 <= n; i += 16)
        for (j = 0; j < 16; ++j) s[j] += (x[i + j] - m) * (x[i + j] - m);
    for (j = 0; j < n - i; ++j) s[j] += (x[i + j] - m) * (x[i + j] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(vgs__row_sum(s, 16) / (float)n + VGS__NORM_EPS);
}

VGS__MAP_HOT VGS__KERNEL(layernorm)
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0], *gain = k->in[1], *bias = k->in[2];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s;
        vgs__moments(x, k->cols, &m, &s);
        for (c = 0; c < k->cols; ++c) y[c] = (x[c] - m) * s * gain[c] + bias[c];
    }
}
VGS__MAP_HOT VGS__KERNEL(layernorm_hat)                              /* without gain and bias          */
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s;
        vgs__moments(x, k->cols, &m, &s);
        for (c = 0; c < k->cols; ++c) y[c] = (x[c] - m) * s;
    }
}
VGS__NO_GRAD(layernorm_hat)

/* in: x, gain, gy.  With h = gain gy, xh = normalised x:  gx = rstd (h - mean h - xh mean(h xh)) */
VGS__MAP_HOT VGS__KERNEL(layernorm_grad)
{
    int r, c, j, n = k->cols;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0], *gain = k->in[1];
        const float *gy = k->in[2] + (size_t)r * (size_t)k->ld[2];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s, mh, mx, sh[16] = { 0 }, sx[16] = { 0 };
        vgs__moments(x, n, &m, &s);
        for (c = 0; c + 16 <= n; c += 16) {
            for (j = 0; j < 16; ++j) {
                float h = gain[c + j] * gy[c + j];
                sh[j] += h;
                sx[j] += h * ((x[c + j] - m) * s);
            }
        }
        for (j = 0; j < n - c; ++j) {
            float h = gain[c + j] * gy[c + j];
            sh[j] += h;
            sx[j] += h * ((x[c + j] - m) * s);
        }
        mh = vgs__row_sum(sh, 16) / (float)n;
        mx = vgs__row_sum(sx, 16) / (float)n;
        for (c = 0; c < n; ++c) y[c] = s * (gain[c] * gy[c] - mh - (x[c] - m) * s * mx);
    }
}
VGS__NO_GRAD(layernorm_grad)

#ifdef VGS__X86
VGS__V8 float vgs__tree8(__m256 v)                                   /* the end of vgs__row_sum        */
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

/* Sixteen columns of a row as two vectors; columns from n on are 0. */
typedef struct vgs__v16 { __m256 lo, hi; } vgs__v16;
VGS__V8 vgs__v16 vgs__load16(const float *x, int n)
{
    vgs__v16 v;
    v.lo = vgs__load8(x, n);
    v.hi = n > 8 ? vgs__load8(x + 8, n - 8) : _mm256_setzero_ps();
    return v;
}
VGS__V8 __m256 vgs__less8(__m256 x, float m, int n)                  /* x - m in the first n lanes, 0  */
{
    x = _mm256_sub_ps(x, vgs__set8(m));
    return n >= 8 ? x : _mm256_and_ps(x, _mm256_castsi256_ps(vgs__lanes8(n)));
}

VGS__V8 float vgs__row_sum8(const float *x, int n)
{
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    int i;
    for (i = 0; i < n; i += 16) {
        vgs__v16 v = vgs__load16(x + i, n - i);
        lo = _mm256_add_ps(lo, v.lo);
        hi = _mm256_add_ps(hi, v.hi);
    }
    return vgs__tree8(_mm256_add_ps(lo, hi));
}

VGS__V8 void vgs__moments8(const float *x, int n, float *mean, float *rstd)
{
    float m = vgs__row_sum8(x, n) / (float)n;
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    int i;
    for (i = 0; i < n; i += 16) {
        vgs__v16 v = vgs__load16(x + i, n - i);
        v.lo = vgs__less8(v.lo, m, n - i);
        v.hi = vgs__less8(v.hi, m, n - i - 8);
        lo = _mm256_add_ps(lo, _mm256_mul_ps(v.lo, v.lo));
        hi = _mm256_add_ps(hi, _mm256_mul_ps(v.hi, v.hi));
    }
    *mean = m;
    *rstd = 1.0f / sqrtf(vgs__tree8(_mm256_add_ps(lo, hi)) / (float)n + VGS__NORM_EPS);
}

VGS__V8 __m256 vgs__hat8(const float *x, int n, float m, float s)
{
    return _mm256_mul_ps(_mm256_sub_ps(vgs__load8(x, n), vgs__set8(m)), vgs__set8(s));
}

VGS__V8 void vgs__layernorm8(const vgs__k *k, int r0, int r1, int n)
{
    const float *gain = k->in[1], *bias = k->in[2];
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s;
        vgs__moments8(x, n, &m, &s);
        for (c = 0; c < n; c += 8) {
            __m256 v = _mm256_mul_ps(vgs__hat8(x + c, n - c, m, s), vgs__load8(gain + c, n - c));
            vgs__store8(y + c, n - c, _mm256_add_ps(v, vgs__load8(bias + c, n - c)));
        }
    }
}

VGS__V8 void vgs__layernorm_hat8(const vgs__k *k, int r0, int r1, int n)
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s;
        vgs__moments8(x, n, &m, &s);
        for (c = 0; c < n; c += 8) vgs__store8(y + c, n - c, vgs__hat8(x + c, n - c, m, s));
    }
}

/* Two vectors of lanes of h and of h xh, as in the C kernel: columns c..c+8 go to lanes (c / 8) % 2. */
VGS__V8 void vgs__layernorm_grad8(const vgs__k *k, int r0, int r1, int n)
{
    const float *gain = k->in[1];
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        const float *gy = k->in[2] + (size_t)r * (size_t)k->ld[2];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s, mh, mx;
        __m256 sh0 = _mm256_setzero_ps(), sh1 = sh0, sx0 = sh0, sx1 = sh0, h;
        vgs__moments8(x, n, &m, &s);
        for (c = 0; c < n; c += 16) {
            h = _mm256_mul_ps(vgs__load8(gain + c, n - c), vgs__load8(gy + c, n - c));
            sh0 = _mm256_add_ps(sh0, h);
            sx0 = _mm256_add_ps(sx0, _mm256_mul_ps(h, vgs__hat8(x + c, n - c, m, s)));
            if (n - c <= 8) break;
            h = _mm256_mul_ps(vgs__load8(gain + c + 8, n - c - 8), vgs__load8(gy + c + 8, n - c - 8));
            sh1 = _mm256_add_ps(sh1, h);
            sx1 = _mm256_add_ps(sx1, _mm256_mul_ps(h, vgs__hat8(x + c + 8, n - c - 8, m, s)));
        }
        mh = vgs__tree8(_mm256_add_ps(sh0, sh1)) / (float)n;
        mx = vgs__tree8(_mm256_add_ps(sx0, sx1)) / (float)n;
        for (c = 0; c < n; c += 8) {
            h = _mm256_mul_ps(vgs__load8(gain + c, n - c), vgs__load8(gy + c, n - c));
            h = _mm256_sub_ps(h, vgs__set8(mh));
            h = _mm256_sub_ps(h, _mm256_mul_ps(vgs__hat8(x + c, n - c, m, s), vgs__set8(mx)));
            vgs__store8(y + c, n - c, _mm256_mul_ps(vgs__set8(s), h));
        }
    }
}

/* A width that the compiler knows is a quarter faster. */
#define VGS__BY_WIDTH(name)                                                                           \
    VGS__KERNEL8(name)                                                                                \
    {                                                                                                 \
        (void)c0;                                                                                     \
        (void)c1;                                                                                     \
        switch (k->cols) {                                                                            \
        case 24: vgs__##name##8(k, r0, r1, 24); break;                                                \
        case 32: vgs__##name##8(k, r0, r1, 32); break;                                                \
        case 64: vgs__##name##8(k, r0, r1, 64); break;                                                \
        default: vgs__##name##8(k, r0, r1, k->cols);                                                  \
        }                                                                                             \
    }
VGS__BY_WIDTH(layernorm)
VGS__BY_WIDTH(layernorm_hat)
VGS__BY_WIDTH(layernorm_grad)
#undef VGS__BY_WIDTH
#endif /* VGS__X86 */

VGS__GRAD(layernorm)
{
    (void)y;
    if (need[0])
        gx[0] = vgs__push_op(g, VGS_OP_LAYERNORM_GRAD, n->rows, n->cols, n->in[0], n->in[1], vgs__id(g, gy));
    if (need[1]) gx[1] = vgs_sum_rows(g, vgs_mul(g, gy, vgs__unary(g, VGS_OP_LAYERNORM_HAT, VGS__IN(n, 0))));
    if (need[2]) gx[2] = vgs_sum_rows(g, gy);
}
VGS__DEF vgs_var vgs_layernorm(vgs_graph *g, vgs_var x, vgs_var gain, vgs_var bias)
{
    int a = vgs__operand(g, "layernorm", x), b = vgs__operand(g, "layernorm", gain);
    int c = vgs__operand(g, "layernorm", bias);
    if (a < 0 || b < 0 || c < 0) return vgs__no_var();
    if (g->node[b].rows != 1 || g->node[b].cols != g->node[a].cols)
        return vgs__shape_fail(g, "layernorm: gain", a, b);
    if (g->node[c].rows != 1 || g->node[c].cols != g->node[a].cols)
        return vgs__shape_fail(g, "layernorm: bias", a, c);
    return vgs__push_op(g, VGS_OP_LAYERNORM, g->node[a].rows, g->node[a].cols, a, b, c);
}

/* ---- columns ------------------------------------------------------------------------------------- */

VGS__KERNEL(pad_cols)                                                /* zeros, but x from column i0 on */
{
    int r, first = k->i[0], n = k->in_cols[0];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        memset(y, 0, (size_t)k->cols * sizeof *y);
        memcpy(y + first, k->in[0] + (size_t)r * (size_t)k->ld[0], (size_t)n * sizeof *y);
    }
}
VGS__GRAD(pad_cols)
{
    (void)y;
    (void)need;
    gx[0] = vgs_cols(g, gy, n->i[0], g->node[n->in[0]].cols);
}
static vgs_var vgs__pad_cols(vgs_graph *g, vgs_var x, int first, int total)
{
    int a = vgs__operand(g, "pad_cols", x);
    vgs_var v = a < 0 ? vgs__no_var() : vgs__push_op(g, VGS_OP_PAD_COLS, g->node[a].rows, total, a, -1, -1);
    vgs__attr_i(g, v, 0, first);
    return v;
}

VGS__KERNEL(concat)
{
    int r;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        memcpy(y, k->in[0] + (size_t)r * (size_t)k->ld[0], (size_t)k->in_cols[0] * sizeof *y);
        memcpy(y + k->in_cols[0], k->in[1] + (size_t)r * (size_t)k->ld[1], (size_t)k->in_cols[1] * sizeof *y);
    }
}
VGS__GRAD(concat)
{
    int ca = g->node[n->in[0]].cols, cb = g->node[n->in[1]].cols;
    (void)y;
    if (need[0]) gx[0] = vgs_cols(g, gy, 0, ca);
    if (need[1]) gx[1] = vgs_cols(g, gy, ca, cb);
}
VGS__DEF vgs_var vgs_concat(vgs_graph *g, vgs_var x, vgs_var z)
{
    int a = vgs__operand(g, "concat", x), b = vgs__operand(g, "concat", z);
    if (a < 0 || b < 0) return vgs__no_var();
    if (g->node[a].rows != g->node[b].rows || g->node[a].cols > INT_MAX - g->node[b].cols)
        return vgs__shape_fail(g, "concat", a, b);
    return vgs__push_op(g, VGS_OP_CONCAT, g->node[a].rows, g->node[a].cols + g->node[b].cols, a, b, -1);
}

/* ---- rows by index ------------------------------------------------------------------------------- */

VGS__KERNEL(gather)                                                  /* row idx[r] of x; any type      */
{
    int r;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r)
        memcpy(k->out + (size_t)r * (size_t)k->ld_out,
               k->in[0] + (size_t)vgs__int_at(k->in[1], (size_t)r * (size_t)k->ld[1]) * (size_t)k->ld[0],
               (size_t)k->cols * sizeof *k->out);
}
VGS__GRAD(gather)
{
    (void)y;
    (void)need;
    gx[0] = vgs__scatter_rows(g, gy, VGS__IN(n, 1), g->node[n->in[0]].rows);
}
VGS__DEF vgs_var vgs_gather(vgs_graph *g, vgs_var x, vgs_var idx)
{
    int a = vgs__operand(g, "gather", x), b = vgs__operand(g, "gather", idx);
    vgs_var v;
    if (a < 0 || b < 0) return vgs__no_var();
    if (!vgs__is_index(&g->node[b]) || g->node[a].rows < 0)
        return vgs__shape_fail(g, "gather", a, b);
    v = vgs__push_op(g, VGS_OP_GATHER, g->node[b].rows, g->node[a].cols, a, b, -1);
    if (v.id) g->node[vgs__id(g, v)].type = g->node[a].type;
    return v;
}

/* Counts and sorts: the rows with idx == t are list[start[t]..start[t + 1]), ascending, t < tables. */
static void vgs__rows_by_index(const float *idx, int ld, int rows, int tables, int *start, int *list)
{
    int r, t;
    memset(start, 0, ((size_t)tables + 2) * sizeof *start);
    for (r = 0; r < rows; ++r) start[vgs__int_at(idx, (size_t)r * (size_t)ld) + 2]++;
    for (t = 2; t <= tables; ++t) start[t] += start[t - 1];
    for (r = 0; r < rows; ++r) list[start[vgs__int_at(idx, (size_t)r * (size_t)ld) + 1]++] = r;
}

/* Floats of scratch that scatter_rows needs of each thread. */
static size_t vgs__scatter_work(int rows, int tables) { return (size_t)rows + (size_t)tables + 2; }

/* out[t] = sum of the rows with idx == t, in the order of the rows. */
VGS__WHOLE(scatter_rows)
{
    vgs__add_rows_fn *add = vgs__add_rows_of(cpu);
    int *start = (int *)(void *)(cpu->scratch + (size_t)crew.me * cpu->scratch_size), *list, t;
    (void)err;
    list = start + k->rows + 2;
    vgs__rows_by_index(k->in[1], k->ld[1], k->in_rows[0], k->rows, start, list);
    for (t = crew.me; t < k->rows; t += crew.n) {
        double total[VGS__SUM_COLS];
        float *y = k->out + (size_t)t * (size_t)k->ld_out;
        int c, c0, n;
        for (c0 = 0; c0 < k->cols; c0 += n) {
            n = vgs__min(k->cols - c0, VGS__SUM_COLS);
            vgs__sum_strip(add, k->in[0] + c0, k->ld[0], list + start[t], start[t + 1] - start[t], n, total);
            for (c = 0; c < n; ++c) y[c0 + c] = (float)total[c];
        }
    }
    return VGS_OK;
}
VGS__NO_GRAD(scatter_rows)
static vgs_var vgs__scatter_rows(vgs_graph *g, vgs_var x, vgs_var idx, int rows)
{
    int a = vgs__operand(g, "scatter_rows", x), b = vgs__operand(g, "scatter_rows", idx);
    return a < 0 || b < 0 ? vgs__no_var()
                          : vgs__push_op(g, VGS_OP_SCATTER_ROWS, rows, g->node[a].cols, a, b, -1);
}

/* ---- segments: i0 = n rows a sample before, i1 = m rows a sample after --------------------------- */

VGS__KERNEL(segment_gather)
{
    int r, n = k->i[0], m = k->i[1];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        size_t from = (size_t)(r / m) * (size_t)n + (size_t)vgs__int_at(k->in[1], (size_t)(r % m));
        memcpy(k->out + (size_t)r * (size_t)k->ld_out, k->in[0] + from * (size_t)k->ld[0],
               (size_t)k->cols * sizeof *k->out);
    }
}

/* in: x, start [n+1], list [m]: row i of a sample is the sum of its rows list[start[i]..start[i+1]). */
VGS__HOT VGS__KERNEL(segment_sum)
{
    int r, c, e, n = k->i[0], m = k->i[1];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)(r / n) * (size_t)m * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        int first = vgs__int_at(k->in[1], (size_t)(r % n)), last = vgs__int_at(k->in[1], (size_t)(r % n) + 1);
        memset(y, 0, (size_t)k->cols * sizeof *y);
        for (e = first; e < last; ++e) {
            const float *p = x + (size_t)vgs__int_at(k->in[2], (size_t)e) * (size_t)k->ld[0];
            for (c = 0; c < k->cols; ++c) y[c] += p[c];
        }
    }
}

/* The pattern in both directions: `which`, and its inverse as start and list (kept as tables). */
static vgs_var vgs__segment(vgs_graph *g, int op, vgs_var x, int n, int m, vgs_var which, vgs_var start,
                            vgs_var list)
{
    int a = vgs__operand(g, vgs_op_name(op), x), per = op == VGS_OP_SEGMENT_GATHER ? n : m, rows;
    bool gather = op == VGS_OP_SEGMENT_GATHER;
    vgs_var v;
    if (a < 0) return vgs__no_var();
    rows = g->node[a].rows;
    if (rows % per) {
        char s[40];
        return vgs__graph_fail(g, VGS_E_SHAPE, "%s: %s has no %d rows a sample", vgs_op_name(op),
                               vgs__shape_text(&g->node[a], s), per);
    }
    v = vgs__push_op(g, op, rows / per * (gather ? m : n), g->node[a].cols, a,
                     vgs__id(g, gather ? which : start), vgs__id(g, gather ? start : list));
    if (v.id) {
        vgs__node *d = &g->node[vgs__id(g, v)];
        d->type = g->node[a].type;
        d->in[3] = vgs__id(g, gather ? list : which);
        d->n_in = 4;
        d->i[0] = n;
        d->i[1] = m;
    }
    return v;
}

static vgs_var vgs__segment_new(vgs_graph *g, int op, vgs_var x, int n, const int32_t *which, int m)
{
    int32_t *start = n > 0 && m > 0 ? (int32_t *)vgs__alloc((size_t)n + 1 + (size_t)m, sizeof *start) : NULL,
            *list;
    vgs_var w, s, l;
    int i, e, filled = 0;
    if (n <= 0 || m <= 0)
        return vgs__graph_fail(g, VGS_E_ARG, "%s: n = %d, m = %d: must be > 0", vgs_op_name(op), n, m);
    if (!start) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: segments of %d rows", m);
    list = start + n + 1;
    for (e = 0; e < m; ++e)
        if (which[e] < 0 || which[e] >= n)
            vgs__graph_fail(g, VGS_E_ARG, "%s: which[%d] = %d is not in 0..%d", vgs_op_name(op), e,
                            (int)which[e], n - 1);
    for (i = 0; i < n; ++i) {
        start[i] = filled;
        for (e = 0; e < m; ++e) if (which[e] == i) list[filled++] = e;
    }
    start[n] = filled;
    w = vgs_table_int(g, which, m, 1);
    s = vgs_table_int(g, start, n + 1, 1);
    l = vgs_table_int(g, list, m, 1);
    vgs__free(start);
    return vgs__segment(g, op, x, n, m, w, s, l);
}

VGS__GRAD(segment_gather)                                            /* in: x, which, start, list      */
{
    (void)y;
    (void)need;
    gx[0] = vgs__segment(g, VGS_OP_SEGMENT_SUM, gy, n->i[0], n->i[1], VGS__IN(n, 1), VGS__IN(n, 2),
                         VGS__IN(n, 3));
}
VGS__GRAD(segment_sum)                                               /* in: x, start, list, which      */
{
    (void)y;
    (void)need;
    gx[0] = vgs__segment(g, VGS_OP_SEGMENT_GATHER, gy, n->i[0], n->i[1], VGS__IN(n, 3), VGS__IN(n, 1),
                         VGS__IN(n, 2));
}
VGS__DEF vgs_var vgs_segment_gather(vgs_graph *g, vgs_var x, int n, const int32_t *which, int m)
{
    return vgs__segment_new(g, VGS_OP_SEGMENT_GATHER, x, n, which, m);
}
VGS__DEF vgs_var vgs_segment_sum(vgs_graph *g, vgs_var x, int n, const int32_t *which, int m)
{
    return vgs__segment_new(g, VGS_OP_SEGMENT_SUM, x, n, which, m);
}

/* ---- particles: i0 = n points; d = columns / n --------------------------------------------------- */

VGS__HOT VGS__KERNEL(pair_distance)
{
    int r, a, b, j, n = k->i[0], d = k->in_cols[0] / n;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        for (a = 0; a < n; ++a)
            for (b = a + 1; b < n; ++b) {
                float s = 0.0f;
                for (j = 0; j < d; ++j) s += (x[a * d + j] - x[b * d + j]) * (x[a * d + j] - x[b * d + j]);
                *y++ = sqrtf(s);
            }
    }
}

/* in: x, r, gr.  gx_a += gr (x_a - x_b)/r; where two points coincide the gradient is taken as 0 */
VGS__HOT VGS__KERNEL(pair_distance_grad)
{
    int r, a, b, j, n = k->i[0], d = k->cols / n;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        const float *dist = k->in[1] + (size_t)r * (size_t)k->ld[1],
                    *gr = k->in[2] + (size_t)r * (size_t)k->ld[2];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        memset(y, 0, (size_t)k->cols * sizeof *y);
        for (a = 0; a < n; ++a)
            for (b = a + 1; b < n; ++b, ++dist, ++gr) {
                float s = *dist > 0.0f ? *gr / *dist : 0.0f;
                for (j = 0; j < d; ++j) {
                    float v = s * (x[a * d + j] - x[b * d + j]);
                    y[a * d + j] += v;
                    y[b * d + j] -= v;
                }
            }
    }
}
VGS__NO_GRAD(pair_distance_grad)
VGS__GRAD(pair_distance)
{
    (void)need;
    gx[0] = vgs__push_op(g, VGS_OP_PAIR_DISTANCE_GRAD, g->node[n->in[0]].rows, g->node[n->in[0]].cols,
                         n->in[0], vgs__id(g, y), vgs__id(g, gy));
    vgs__attr_i(g, gx[0], 0, n->i[0]);
}
static int vgs__particles(vgs_graph *g, const char *op, vgs_var x, int n)
{
    int a = vgs__operand(g, op, x);
    if (a >= 0 && (n < 2 || n > 32768 || g->node[a].cols % n)) {
        vgs__graph_fail(g, VGS_E_SHAPE, "%s: %d columns are not %d particles (2..32768)", op, g->node[a].cols,
                        n);
        return -1;
    }
    return a;
}
VGS__DEF vgs_var vgs_pair_distance(vgs_graph *g, vgs_var x, int n)
{
    int a = vgs__particles(g, "pair_distance", x, n);
    vgs_var v = a < 0 ? vgs__no_var()
                      : vgs__push_op(g, VGS_OP_PAIR_DISTANCE, g->node[a].rows, n * (n - 1) / 2, a, -1, -1);
    vgs__attr_i(g, v, 0, n);
    return v;
}

VGS__HOT VGS__KERNEL(remove_mean)
{
    int r, a, j, n = k->i[0], d = k->cols / n;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        for (j = 0; j < d; ++j) {
            float m = 0.0f;
            for (a = 0; a < n; ++a) m += x[a * d + j];
            m /= (float)n;
            for (a = 0; a < n; ++a) y[a * d + j] = x[a * d + j] - m;
        }
    }
}
VGS__GRAD1(remove_mean, vgs_remove_mean(g, gy, n->i[0]))             /* a projection is its own adjoint */
VGS__DEF vgs_var vgs_remove_mean(vgs_graph *g, vgs_var x, int n)
{
    int a = vgs__particles(g, "remove_mean", x, n);
    vgs_var v = a < 0 ? vgs__no_var() : vgs__unary(g, VGS_OP_REMOVE_MEAN, x);
    vgs__attr_i(g, v, 0, n);
    return v;
}

/* Descending; equal values keep their order. out2 = the permutation. Shell sort: in place, no workspace. */
VGS__KERNEL(sort_cols)
{
    int r, i, j, gap, n = k->cols;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        float *v = k->out + (size_t)r * (size_t)k->ld_out;
        int32_t *p = (int32_t *)(void *)(k->out2 + (size_t)r * (size_t)k->ld_out2);
        memcpy(v, k->in[0] + (size_t)r * (size_t)k->ld[0], (size_t)n * sizeof *v);
        for (i = 0; i < n; ++i) p[i] = i;
        for (gap = 1; gap < n / 9; gap = 3 * gap + 1) {}
        for (; gap > 0; gap /= 3)
            for (i = gap; i < n; ++i) {
                float key = v[i];
                int32_t at = p[i];
                for (j = i; j >= gap && (v[j - gap] < key || (v[j - gap] == key && p[j - gap] > at));
                     j -= gap) {
                    v[j] = v[j - gap];
                    p[j] = p[j - gap];
                }
                v[j] = key;
                p[j] = at;
            }
    }
}
#ifdef VGS__X86
enum { VGS__SORT_COLS = 512 };

/* Lanes of a and b change places where b is larger, or equal and earlier. */
VGS__V8 void vgs__exchange8(float *va, float *vb, int32_t *pa, int32_t *pb)
{
    const __m256 a = _mm256_loadu_ps(va), b = _mm256_loadu_ps(vb);
    const __m256 i = _mm256_loadu_ps((const float *)(void *)pa);
    const __m256 j = _mm256_loadu_ps((const float *)(void *)pb);
    __m256 swap = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_castps_si256(i), _mm256_castps_si256(j)));
    swap = _mm256_and_ps(swap, _mm256_cmp_ps(b, a, _CMP_EQ_OQ));
    swap = _mm256_or_ps(swap, _mm256_cmp_ps(b, a, _CMP_GT_OQ));
    _mm256_storeu_ps(va, _mm256_blendv_ps(a, b, swap));
    _mm256_storeu_ps(vb, _mm256_blendv_ps(b, a, swap));
    _mm256_storeu_ps((float *)(void *)pa, _mm256_blendv_ps(i, j, swap));
    _mm256_storeu_ps((float *)(void *)pb, _mm256_blendv_ps(j, i, swap));
}

/* Eight rows at once through Batcher's network for n columns (merge exchange, Knuth 5.2.2 M): which columns
   meet does not depend on the values. */
VGS__AVX2 static void vgs__sort_network(int n, float v[][8], int32_t p[][8])
{
    int top = 1, a, half, d, r, i;
    while (2 * top < n) top *= 2;
    for (half = top; half > 0; half /= 2)
        for (a = top, r = 0, d = half;; d = a - half, a /= 2, r = half) {
            for (i = 0; i + d < n; ++i)
                if ((i & half) == r) vgs__exchange8(v[i], v[i + d], p[i], p[i + d]);
            if (a == half) break;
        }
}

VGS__KERNEL8(sort_cols)
{
    float v[VGS__SORT_COLS][8];
    int32_t p[VGS__SORT_COLS][8];
    int r, c, l, n = k->cols, lanes;
    if (n > VGS__SORT_COLS) {
        vgs__k_sort_cols(k, r0, r1, c0, c1);
        return;
    }
    for (r = r0; r < r1; r += lanes) {
        lanes = r1 - r < 8 ? r1 - r : 8;
        for (l = 0; l < 8; ++l) {
            const float *x = k->in[0] + (size_t)(r + (l < lanes ? l : 0)) * (size_t)k->ld[0];
            for (c = 0; c < n; ++c) {
                v[c][l] = x[c];
                p[c][l] = c;
            }
        }
        vgs__sort_network(n, v, p);
        for (l = 0; l < lanes; ++l) {
            float *y = k->out + (size_t)(r + l) * (size_t)k->ld_out;
            int32_t *z = (int32_t *)(void *)(k->out2 + (size_t)(r + l) * (size_t)k->ld_out2);
            for (c = 0; c < n; ++c) {
                y[c] = v[c][l];
                z[c] = p[c][l];
            }
        }
    }
}
#endif
VGS__KERNEL(unsort_cols)                                             /* out[p[j]] = g[j]               */
{
    int r, j;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r)
        for (j = 0; j < k->cols; ++j)
            k->out[(size_t)r * (size_t)k->ld_out +
                   (size_t)vgs__int_at(k->in[1], (size_t)r * (size_t)k->ld[1] + (size_t)j)] =
                k->in[0][(size_t)r * (size_t)k->ld[0] + (size_t)j];
}
VGS__NO_GRAD(unsort_cols)
VGS__GRAD(sort_cols)
{
    (void)need;
    gx[0] = vgs__push_op(g, VGS_OP_UNSORT_COLS, n->rows, n->cols, vgs__id(g, gy),
                         g->node[vgs__id(g, y)].tap, -1);
}
VGS__DEF vgs_var vgs_sort_cols(vgs_graph *g, vgs_var x)
{
    vgs_var v = vgs__unary(g, VGS_OP_SORT_COLS, x);
    if (v.id) vgs__tap(g, vgs__id(g, v), g->node[vgs__id(g, v)].cols, VGS_I32);
    return v;
}

/* ---- random numbers ------------------------------------------------------------------------------ */

/* What a draw is for: the top byte of the third counter word, so that no two uses ever meet. */
enum { VGS__FOR_START = 1, VGS__FOR_STEP, VGS__FOR_TARGET, VGS__FOR_SIGMA, VGS__FOR_SHUFFLE,
       VGS__FOR_DRAW_START, VGS__FOR_DRAW_STEP, VGS__FOR_FACTOR, VGS__FOR_RECALL, VGS__FOR_BACK,
       VGS__FOR_WALK, VGS__FOR_ACCEPT, VGS__FOR_SCORE, VGS__FOR_RESAMPLE, VGS__FOR_CORRECT,
       VGS__FOR_CORRECT_ACCEPT };

/* i: 0 purpose, 1 t, 2 first row, 3 iteration, 4-5 seed.
   Counter: (row, t and column block, purpose, iteration). */
VGS__MAP_HOT VGS__KERNEL(normal)
{
    uint32_t key0 = (uint32_t)k->i[4], key1 = (uint32_t)k->i[5], w[4];
    int r, b, j;
    float z[4];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        for (b = 0; b < k->cols; b += 4) {
            vgs__philox(key0, key1, (uint32_t)k->i[2] + (uint32_t)r,
                        (uint32_t)k->i[1] << 16 | (uint32_t)b / 4u, (uint32_t)k->i[0] << 24,
                        (uint32_t)k->i[3], w);
            vgs__normal4(w, z);
            for (j = 0; j < 4 && b + j < k->cols; ++j) y[b + j] = z[j];
        }
    }
}
#ifdef VGS__X86
/* Eight blocks of four columns at a time, counted through all rows. */
VGS__KERNEL8(normal)
{
    int blocks = (k->cols + 3) / 4, l, j, r = r0, b = 0;
    (void)c0;
    (void)c1;
    while (r < r1) {
        int row[8], col[8];
        float z[4][8];
        __m256i w[4];
        for (l = 0; l < 8; ++l) {
            row[l] = r;
            col[l] = b;
            if (++b == blocks) { b = 0; ++r; }
        }
        w[0] = _mm256_add_epi32(vgs__int8(k->i[2]), _mm256_loadu_si256((const __m256i *)(const void *)row));
        w[1] = _mm256_or_si256(vgs__int8((int)((uint32_t)k->i[1] << 16)),
                               _mm256_loadu_si256((const __m256i *)(const void *)col));
        w[2] = vgs__int8((int)((uint32_t)k->i[0] << 24));
        w[3] = vgs__int8(k->i[3]);
        vgs__philox8((uint32_t)k->i[4], (uint32_t)k->i[5], w);
        vgs__normal_pair8(w[0], w[1], z[0], z[1]);
        vgs__normal_pair8(w[2], w[3], z[2], z[3]);
        for (l = 0; l < 8 && row[l] < r1; ++l)
            for (j = 0; j < 4 && 4 * col[l] + j < k->cols; ++j)
                k->out[(size_t)row[l] * (size_t)k->ld_out + (size_t)(4 * col[l] + j)] = z[j][l];
    }
}
#endif
VGS__NO_GRAD(normal)

/* Element (i6 + r) of a pseudo-random permutation of 0..i7-1: a six-round Feistel network over the next
   even power of two, walked until it lands inside. Any element alone, no memory, so any device can. */
VGS__INLINE uint32_t vgs__feistel(uint32_t v, int half, const uint32_t key[8])
{
    uint32_t mask = (1u << half) - 1u, l = v >> half, r = v & mask, h;
    int i;
    for (i = 0; i < 6; ++i) {
        h = (r ^ key[i]) * 0x9E3779B1u;
        h = (h ^ (h >> 15)) * 0x85EBCA77u;
        h ^= h >> 13;
        h = l ^ (h & mask);
        l = r;
        r = h;
    }
    return l << half | r;
}
VGS__KERNEL(permutation)
{
    uint32_t key[8], v, n = (uint32_t)k->i[7];
    int r, half = 1;
    (void)c0;
    (void)c1;
    vgs__philox((uint32_t)k->i[4], (uint32_t)k->i[5], 0, (uint32_t)k->i[1], (uint32_t)k->i[0] << 24,
                (uint32_t)k->i[3], key);
    vgs__philox((uint32_t)k->i[4], (uint32_t)k->i[5], 1, (uint32_t)k->i[1], (uint32_t)k->i[0] << 24,
                (uint32_t)k->i[3], key + 4);
    while (half < 15 && (1u << 2 * half) < n) ++half;
    for (r = r0; r < r1; ++r) {
        v = (uint32_t)k->i[6] + (uint32_t)r;
        do v = vgs__feistel(v, half, key); while (v >= n);
        memcpy(k->out + (size_t)r * (size_t)k->ld_out, &v, 4);
    }
}
VGS__NO_GRAD(permutation)

/* Rows longer than f0 are shortened to it. Scaled by the largest component: squares could overflow. */
VGS__KERNEL(limit_rows)
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, most = 0.0f, sum = 0.0f, scale = 1.0f;
        for (c = 0; c < k->cols; ++c) most = fabsf(x[c]) > most ? fabsf(x[c]) : most;
        for (c = 0; c < k->cols && most > 0.0f; ++c) sum += (x[c] / most) * (x[c] / most);
        if (most * sqrtf(sum) > k->f[0]) scale = k->f[0] / most / sqrtf(sum);
        for (c = 0; c < k->cols; ++c) y[c] = x[c] * scale;
    }
}
VGS__NO_GRAD(limit_rows)

/* ---- sphere |x| = 1 ------------------------------------------------------------------------------ */

VGS__INLINE float vgs__row_dot(const float *a, const float *b, int n)
{
    float s[16] = { 0 };
    int i = 0, j;
    for (; i + 16 <= n; i += 16)
        for (j = 0; j < 16; ++j) s[j] += a[i + j] * b[i + j];
    for (j = 0; j < n - i; ++j) s[j] += a[i + j] * b[i + j];
    return vgs__row_sum(s, 16);
}

/* ---- eigenvectors: matrices side by side, one a lane, each with the same operations as alone --------- */

enum { VGS__EIGEN_SIDE = 8, VGS__EIGEN_ROWS = 40 };                  /* larger matrices: one by one    */

/* sum[lanes] = x . y, [n,lanes] both */
VGS__INLINE void vgs__dots(int lanes, int n, const float *x, const float *y, float *sum)
{
    float s[VGS__EIGEN_SIDE] = { 0 };
    int j, l;
    for (j = 0; j < n; ++j)
        for (l = 0; l < lanes; ++l) s[l] += x[j * lanes + l] * y[j * lanes + l];
    for (l = 0; l < lanes; ++l) sum[l] = s[l];
}

/* Turns x and y, of squared lengths xx and yy, so that they become orthogonal; false: they all were. */
VGS__INLINE bool vgs__make_orthogonal(int lanes, int n, float *x, float *y, float *xx, float *yy)
{
    float c[VGS__EIGEN_SIDE], cosine[VGS__EIGEN_SIDE], sine[VGS__EIGEN_SIDE];
    int j, l, turned = 0;
    vgs__dots(lanes, n, x, y, c);
    for (l = 0; l < lanes; ++l) turned |= fabsf(c[l]) > 1e-6f;
    if (!turned) return false;
    for (l = 0; l < lanes; ++l) {
        float d = yy[l] - xx[l], c2 = d < 0.0f ? -2.0f * c[l] : 2.0f * c[l];
        float tangent = fabsf(c[l]) > 1e-6f ? c2 / (fabsf(d) + sqrtf(d * d + c2 * c2)) : 0.0f;
        cosine[l] = 1.0f / sqrtf(1.0f + tangent * tangent);
        sine[l] = cosine[l] * tangent;
        xx[l] -= tangent * c[l];
        yy[l] += tangent * c[l];
    }
    for (j = 0; j < n; ++j, x += lanes, y += lanes) {
        float a[VGS__EIGEN_SIDE], b[VGS__EIGEN_SIDE];                /* x and y do not overlap         */
        for (l = 0; l < lanes; ++l) a[l] = cosine[l] * x[l] - sine[l] * y[l];
        for (l = 0; l < lanes; ++l) b[l] = sine[l] * x[l] + cosine[l] * y[l];
        for (l = 0; l < lanes; ++l) x[l] = a[l];
        for (l = 0; l < lanes; ++l) y[l] = b[l];
    }
    return true;
}

/* One-sided Jacobi: rotations of pairs make the rows of v [n,n,lanes], positive definite matrices,
   orthogonal; they are then eigenvectors times eigenvalues. square [n,lanes]: their squared lengths. */
VGS__INLINE void vgs__orthogonal_rows(int lanes, int n, float *v, float *square)
{
    const int row = n * lanes;
    int sweep, p, q;
    bool turned = true;
    for (sweep = 0; sweep < 30 && turned; ++sweep) {
        turned = false;
        for (p = 0; p < n; ++p) vgs__dots(lanes, n, v + p * row, v + p * row, square + p * lanes);
        for (p = 0; p < n; ++p)
            for (q = p + 1; q < n; ++q)
                if (vgs__make_orthogonal(lanes, n, v + p * row, v + q * row, square + p * lanes,
                                         square + q * lanes))
                    turned = true;
    }
}

/* v [n,n,lanes] = 1 + A / scale, A the symmetric part of x: with a scale of more than twice the norm of A its
   eigenvalues are from 1/2 to 3/2. Returns scale. */
VGS__INLINE float vgs__eigen_load(int lanes, int n, const float *x, float *v)
{
    float sum = 0.0f, scale;
    int i, j;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            float a = 0.5f * (x[i * n + j] + x[j * n + i]);
            v[(i * n + j) * lanes] = a;
            sum += a * a;
        }
    scale = 1.0f + 2.0f * sqrtf(sum);
    for (i = 0; i < n * n; ++i) v[i * lanes] /= scale;
    for (i = 0; i < n; ++i) v[i * (n + 1) * lanes] += 1.0f;
    return scale;
}

/* The `rows` matrices from row r on; lanes beyond take the first again. v may be the output. */
VGS__INLINE void vgs__eigen_side(const vgs__k *k, int r, int rows, int lanes, float *v, float *square)
{
    float scale[VGS__EIGEN_SIDE];
    int i, j, l, n = k->i[0];
    for (l = 0; l < lanes; ++l)
        scale[l] = vgs__eigen_load(lanes, n, k->in[0] + (size_t)(r + (l < rows ? l : 0)) * (size_t)k->ld[0],
                                   v + l);
    vgs__orthogonal_rows(lanes, n, v, square);
    for (l = 0; l < rows; ++l) {
        float *axes = k->out + (size_t)(r + l) * (size_t)k->ld_out;
        float *value = k->out2 + (size_t)(r + l) * (size_t)k->ld_out2;
        for (i = 0; i < n; ++i) {
            float length = sqrtf(square[i * lanes + l]);
            for (j = 0; j < n; ++j)              /* + 0: turns by nothing may change the sign of a zero */
                axes[i * n + j] = v[(i * n + j) * lanes + l] / length + 0.0f;
            value[i] = (length - 1.0f) * scale[l];
        }
    }
}

/* Each row is a matrix of i0 rows, of which the symmetric part is taken. out: its eigenvectors, of length 1,
   one after the other; out2: its eigenvalues; in any order. */
VGS__HOT VGS__KERNEL(eigen)
{
    float v[VGS__EIGEN_ROWS * VGS__EIGEN_ROWS * VGS__EIGEN_SIDE], square[VGS__EIGEN_ROWS * VGS__EIGEN_SIDE];
    int r;
    (void)c0;
    (void)c1;
    if (k->i[0] <= VGS__EIGEN_ROWS)
        for (r = r0; r < r1; r += VGS__EIGEN_SIDE)
            vgs__eigen_side(k, r, r1 - r < VGS__EIGEN_SIDE ? r1 - r : VGS__EIGEN_SIDE, VGS__EIGEN_SIDE, v,
                            square);
    else
        for (r = r0; r < r1; ++r)
            vgs__eigen_side(k, r, 1, 1, k->out + (size_t)r * (size_t)k->ld_out,
                            k->out2 + (size_t)r * (size_t)k->ld_out2);
}
VGS__NO_GRAD(eigen)

VGS__KERNEL(sphere_tangent)                                          /* in: v, x.  v - (v.x) x         */
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *v = k->in[0] + (size_t)r * (size_t)k->ld[0],
                    *x = k->in[1] + (size_t)r * (size_t)k->ld[1];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, d = vgs__row_dot(v, x, k->cols);
        for (c = 0; c < k->cols; ++c) y[c] = v[c] - d * x[c];
    }
}
VGS__NO_GRAD(sphere_tangent)

/* in: x, v.  cos|v| x + sin|v| v/|v|, renormalised; v absent: x/|x| */
VGS__KERNEL(sphere_move)
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, s = 0.0f, q = 1.0f, len;
        if (k->in[1]) {
            const float *v = k->in[1] + (size_t)r * (size_t)k->ld[1];
            len = sqrtf(vgs__row_dot(v, v, k->cols));
            vgs__sincos(len, &s, &q);
            s = len > 1e-12f ? s / len : 1.0f;
            for (c = 0; c < k->cols; ++c) y[c] = q * x[c] + s * v[c];
        } else memcpy(y, x, (size_t)k->cols * sizeof *y);
        len = sqrtf(vgs__row_dot(y, y, k->cols));
        for (c = 0; c < k->cols; ++c) y[c] = y[c] / len;
    }
}
VGS__NO_GRAD(sphere_move)

/* ---- effects: ops that write state; the flag (int32 [1,4]: set, row, step, what) stops all updates ----- */

/* Eight sums in double, then a fixed tree. */
VGS__MAP_HOT static double vgs__squares(const float *x, int n)
{
    double s[8] = { 0 };
    int i, j;
    for (i = 0; i + 8 <= n; i += 8)
        for (j = 0; j < 8; ++j) s[j] += (double)x[i + j] * (double)x[i + j];
    for (j = 0; j < n - i; ++j) s[j] += (double)x[i + j] * (double)x[i + j];
    for (j = 4; j; j >>= 1)
        for (i = 0; i < j; ++i) s[i] += s[i + j];
    return s[0];
}

#ifdef VGS__X86
VGS__AVX2 static double vgs__squares_avx2(const float *x, int n)
{
    double s[8], rest;
    __m256d s0 = _mm256_setzero_pd(), s1 = s0, v;
    int i, j;
    for (i = 0; i + 8 <= n; i += 8) {
        v = _mm256_cvtps_pd(_mm_loadu_ps(x + i));
        s0 = _mm256_add_pd(s0, _mm256_mul_pd(v, v));
        v = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4));
        s1 = _mm256_add_pd(s1, _mm256_mul_pd(v, v));
    }
    _mm256_storeu_pd(s, s0);
    _mm256_storeu_pd(s + 4, s1);
    for (j = 0; j < n - i; ++j) {
        rest = (double)x[i + j];
        s[j] += rest * rest;
    }
    for (j = 4; j; j >>= 1)
        for (i = 0; i < j; ++i) s[i] += s[i + j];
    return s[0];
}
#endif

/* The squared norm in double: 256 parts whose borders depend on the length alone, added in order. */
VGS__WHOLE(sum_squares)
{
    double (*squares)(const float *x, int n) = vgs__squares, total = 0.0;
    int p, n = k->in_cols[0], each = (n + 255) / 256;
    (void)err;
#ifdef VGS__X86
    if (cpu->isa == VGS_ISA_AVX2 || cpu->isa == VGS_ISA_AVX512) squares = vgs__squares_avx2;
#endif
    for (p = crew.me; p < 256; p += crew.n) {
        int first = p * each, left = n - first;
        cpu->part[p] = left > 0 ? squares(k->in[0] + first, left < each ? left : each) : 0.0;
    }
    vgs__crew_wait(crew);
    if (crew.me) return VGS_OK;
    for (p = 0; p < 256; ++p) total += cpu->part[p];
    k->out[0] = (float)total;
    return VGS_OK;
}
VGS__NO_GRAD(sum_squares)

/* in: log w [M,1]. Each row of out: an index below M, drawn with a probability in proportion to w, truncated:
   no w counts for more than the mean of all times sqrt(M) (Ionides 2008; a few rounds, since a cut lowers the
   mean). Systematic: one uniform number, of i0..i5 as for normal, places all rows. */
static double vgs__sum_weights(const vgs__k *k, float top, float cap)
{
    double sum = 0.0;
    int j;
    for (j = 0; j < k->in_rows[0]; ++j) {
        float w = vgs__exp(k->in[0][(size_t)j * (size_t)k->ld[0]] - top);
        sum += w < cap ? (double)w : w >= cap ? (double)cap : 0.0;   /* NaN weighs nothing             */
    }
    return sum;
}
VGS__WHOLE(resample)
{
    const int m = k->in_rows[0];
    const float share = sqrtf((float)m) / (float)m;
    float top = -FLT_MAX, cap = 1.0f;
    double sum, at, below = 0.0;
    uint32_t u[4];
    int r, j, pick = -1;
    (void)cpu;
    (void)err;
    if (crew.me) return VGS_OK;
    for (j = 0; j < m; ++j) {
        float w = k->in[0][(size_t)j * (size_t)k->ld[0]];
        top = w > top && w <= FLT_MAX ? w : top;
    }
    for (j = 0, sum = vgs__sum_weights(k, top, cap); j < 16 && (double)cap > (double)share * sum; ++j) {
        cap = (float)((double)share * sum);
        sum = vgs__sum_weights(k, top, cap);
    }
    vgs__philox((uint32_t)k->i[4], (uint32_t)k->i[5], (uint32_t)k->i[2], (uint32_t)k->i[1],
                (uint32_t)k->i[0] << 24, (uint32_t)k->i[3], u);
    for (r = 0; r < k->rows; ++r) {
        at = ((double)r + (double)(u[0] >> 8) / 16777216.0) / k->rows * sum;
        while (pick < 0 || (below <= at && pick < m - 1)) {          /* below: the weights up to pick  */
            float w = vgs__exp(k->in[0][(size_t)++pick * (size_t)k->ld[0]] - top);
            below += w < cap ? (double)w : w >= cap ? (double)cap : 0.0;
        }
        memcpy(k->out + (size_t)r * (size_t)k->ld_out, &pick, sizeof pick);
    }
    return VGS_OK;
}
VGS__NO_GRAD(resample)

/* in: dst, src.  Rows of src go to row i0 of dst and on; added to what is there if i1. */
VGS__WHOLE(store)
{
    int r, c;
    (void)err;
    (void)cpu;
    for (r = 0; r < k->in_rows[1] && crew.me == 0; ++r) {
        const float *x = k->in[1] + (size_t)r * (size_t)k->ld[1];
        float *y = k->in[0] + (size_t)(r + k->i[0]) * (size_t)k->ld[0];
        if (k->i[1]) for (c = 0; c < k->in_cols[1]; ++c) y[c] += x[c];
        else memcpy(y, x, (size_t)k->in_cols[1] * sizeof *y);
    }
    return VGS_OK;
}
VGS__NO_GRAD(store)

/* Adam as PyTorch's.  in: p, g, m, v, squared norm of g (optional), flag
   f: lr/(1-b1^k), b1, b2, eps, 1/sqrt(1-b2^k), norm limit (0 = none), least p (0 = none), factor of g */
static float vgs__clip_scale(const vgs__k *k)                        /* factor of g                    */
{
    float limit;
    if (!k->in[4] || !(k->f[5] > 0.0f)) return k->f[7];
    limit = k->f[5] / (sqrtf(k->in[4][0]) + 1e-6f);
    return k->f[7] * (limit < 1.0f ? limit : 1.0f);
}
VGS__MAP_HOT VGS__KERNEL(adam)
{
    float *p = k->in[0], *m = k->in[2], *v = k->in[3];
    const float *g = k->in[1], scale = vgs__clip_scale(k);
    const float lr = k->f[0], b1 = k->f[1], b2 = k->f[2], eps = k->f[3], vs = k->f[4], least = k->f[6];
    int c;
    (void)r0;
    (void)r1;
    if (vgs__int_at(k->in[5], 0)) return;
    for (c = c0; c < c1; ++c) {
        const float gc = g[c] * scale, mc = b1 * m[c] + (1.0f - b1) * gc,
                    vc = b2 * v[c] + (1.0f - b2) * gc * gc;
        float pc = p[c] - lr * mc / (sqrtf(vc) * vs + eps);
        m[c] = mc;
        v[c] = vc;
        p[c] = (least > 0.0f && pc < least) ? least : pc;
    }
}
#ifdef VGS__X86
VGS__KERNEL8(adam)
{
    float *p = k->in[0], *m = k->in[2], *v = k->in[3];
    const __m256 scale = vgs__set8(vgs__clip_scale(k)), lr = vgs__set8(k->f[0]), eps = vgs__set8(k->f[3]),
                 vs = vgs__set8(k->f[4]), least = vgs__set8(k->f[6] > 0.0f ? k->f[6] : -FLT_MAX),
                 b1 = vgs__set8(k->f[1]), n1 = vgs__set8(1.0f - k->f[1]),
                 b2 = vgs__set8(k->f[2]), n2 = vgs__set8(1.0f - k->f[2]);
    int c, n;
    (void)r0;
    (void)r1;
    if (vgs__int_at(k->in[5], 0)) return;
    for (c = c0; c < c1; c += 8) {
        __m256 g, mc, vc, pc;
        n = c1 - c;
        g = _mm256_mul_ps(vgs__load8(k->in[1] + c, n), scale);
        mc = _mm256_add_ps(_mm256_mul_ps(b1, vgs__load8(m + c, n)), _mm256_mul_ps(n1, g));
        vc = _mm256_mul_ps(_mm256_mul_ps(n2, g), g);
        vc = _mm256_add_ps(_mm256_mul_ps(b2, vgs__load8(v + c, n)), vc);
        pc = _mm256_add_ps(_mm256_mul_ps(_mm256_sqrt_ps(vc), vs), eps);
        pc = _mm256_sub_ps(vgs__load8(p + c, n), _mm256_div_ps(_mm256_mul_ps(lr, mc), pc));
        pc = _mm256_blendv_ps(pc, least, _mm256_cmp_ps(pc, least, _CMP_LT_OQ));
        vgs__store8(m + c, n, mc);
        vgs__store8(v + c, n, vc);
        vgs__store8(p + c, n, pc);
    }
}
#endif
VGS__NO_GRAD(adam)

VGS__MAP_HOT VGS__KERNEL(ema)                                        /* dst = f0 dst + (1 - f0) src    */
{
    float *d = k->in[0];
    const float *s = k->in[1], keep = k->f[0];
    int c;
    (void)r0;
    (void)r1;
    if (vgs__int_at(k->in[2], 0)) return;
    for (c = c0; c < c1; ++c) d[c] = keep * d[c] + (1.0f - keep) * s[c];
}
#ifdef VGS__X86
VGS__KERNEL8(ema)
{
    const __m256 keep = vgs__set8(k->f[0]), take = vgs__set8(1.0f - k->f[0]);
    int c;
    (void)r0;
    (void)r1;
    if (vgs__int_at(k->in[2], 0)) return;
    for (c = c0; c < c1; c += 8) {
        __m256 v = _mm256_mul_ps(keep, vgs__load8(k->in[0] + c, c1 - c));
        v = _mm256_add_ps(v, _mm256_mul_ps(take, vgs__load8(k->in[1] + c, c1 - c)));
        vgs__store8(k->in[0] + c, c1 - c, v);
    }
}
#endif
VGS__NO_GRAD(ema)

/* in: x, flag.  The first row that is not finite sets the flag to {1, row + i2, step i0, what i1};
   i3: +infinity passes (an energy that will be cut). Returns that row or
   -1; >>cpu sets the flag. */
static int vgs__check_rows(const vgs__k *k, int r0, int r1)
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        bool bad = false;
        for (c = 0; c < k->in_cols[0]; ++c) bad |= !(x[c] - x[c] == 0.0f) && !(k->i[3] && x[c] > 0.0f);
        if (bad) return r;
    }
    return -1;
}
VGS__NO_GRAD(check)

/* ---- energies of the user ------------------------------------------------------------------------ */

static vgs_status vgs__energy_failed(const float *g, vgs_error *err)
{
    return vgs__fail(err, VGS_E_ENERGY, "the energy callback failed%s",
                     g ? ", asked for E and its gradient (an energy that has none can be sampled by "
                         "vgs_metropolis)" : "");
}

/* One block of rows through the callback; double callbacks go through buffers of 2048 numbers. out64, unless
   NULL, receives the energies as the callback gave them: to subtract from, as E may have a large constant. */
static vgs_status vgs__energy_block(const vgs_energy *e, const float *x, int n, float *out, double *out64,
                                    float *g, vgs_error *err)
{
    double xd[2048], gd[2048], ed[64], *px = xd, *pg = gd;
    int dim = e->dim, rows = dim <= 2048 ? 2048 / dim : 1, i, j, m, failed = 0;
    if (e->eval) {
        if (e->eval(e->user, x, n, dim, out, g)) return vgs__energy_failed(g, err);
        for (i = 0; out64 && i < n; ++i) out64[i] = (double)out[i];
        return VGS_OK;
    }
    if (rows > 64) rows = 64;
    if (dim > 2048) {
        px = (double *)vgs__alloc_or(err, "energy", (size_t)dim * 2, sizeof *px);
        if (!px) return VGS_E_NOMEM;
        pg = px + dim;
    }
    for (i = 0; i < n && !failed; i += rows) {
        m = n - i < rows ? n - i : rows;
        for (j = 0; j < m * dim; ++j) px[j] = (double)x[(size_t)i * (size_t)dim + (size_t)j];
        failed = e->eval64(e->user, px, m, dim, ed, g ? pg : NULL);
        for (j = 0; j < m; ++j) out[i + j] = (float)ed[j];
        for (j = 0; out64 && j < m; ++j) out64[i + j] = ed[j];
        for (j = 0; g && j < m * dim; ++j) g[(size_t)i * (size_t)dim + (size_t)j] = (float)pg[j];
    }
    if (px != xd) vgs__free(px);
    return failed ? vgs__energy_failed(g, err) : VGS_OK;
}

/* All rows: in one call, or in blocks of 64 over the threads when the energy allows it. */
static vgs_status vgs__energy_eval(const vgs_energy *e, const float *x, int n, float *out, double *out64,
                                   float *g, int threads, vgs_error *err)
{
    int b, blocks = (n + 63) / 64, bad = 0;
    size_t dim;
    if (!e || (!e->eval && !e->eval64) || e->dim < 1)
        return vgs__fail(err, VGS_E_ARG, "energy: a C callback (eval or eval64) and dim >= 1 are needed");
    dim = (size_t)e->dim;
    if (!e->thread_safe || threads < 2)
        return n > 0 ? vgs__energy_block(e, x, n, out, out64, g, err) : VGS_OK;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(+ : bad)
#endif
    for (b = 0; b < blocks; ++b) {
        int r = b * 64, m = n - r < 64 ? n - r : 64;
        bad += vgs__energy_block(e, x + (size_t)r * dim, m, out + r, out64 ? out64 + r : NULL,
                                 g ? g + (size_t)r * dim : NULL, NULL) != VGS_OK;
    }
    return bad ? vgs__energy_failed(g, err) : VGS_OK;
}

VGS__DEF vgs_status vgs_energy_eval(const vgs_energy *e, const float *x, int n, float *out, float *g,
                                    int threads, vgs_error *err)
{
    return vgs__energy_eval(e, x, n, out, NULL, g, threads, err);
}

/* out: e [r,1], out2: dE/dx [r,dim] */
static vgs_status vgs__energy_rows(const vgs__k *k, int r0, int r1, vgs_error *err)
{
    size_t at = (size_t)r0 * (size_t)k->energy->dim;
    if (r1 <= r0) return VGS_OK;
    return vgs__energy_block(k->energy, k->in[0] + at, r1 - r0, k->out + r0, NULL,
                             k->out2 ? k->out2 + at : NULL, err);
}
VGS__GRAD(energy)
{
    (void)need;
    gx[0] = vgs_mul(g, vgs__tap(g, vgs__id(g, y), g->node[n->in[0]].cols, VGS_F32), gy);
}
VGS__DEF vgs_var vgs_energy_of(vgs_graph *g, const vgs_energy *energy, vgs_var x)
{
    int a = vgs__operand(g, "energy", x);
    vgs_var v;
    if (a < 0) return vgs__no_var();
    if (!energy || (!energy->eval + !energy->eval64 + !energy->record != 2))
        return vgs__graph_fail(g, VGS_E_ARG, "energy: exactly one of eval, eval64 and record must be set");
    if (energy->dim != g->node[a].cols)
        return vgs__graph_fail(g, VGS_E_SHAPE, "energy: dim = %d, but x has %d columns", energy->dim,
                               g->node[a].cols);
    if (energy->record) {
        int rows, cols;
        v = energy->record(energy->user, g, x);
        if (!v.id) return vgs__graph_fail(g, VGS_E_ARG, "energy: record returned no value");
        vgs_shape(g, v, &rows, &cols);
        if (v.id && (rows != g->node[a].rows || cols != 1))
            return vgs__shape_fail(g, "energy: what record returned", a, vgs__id(g, v));
        return v;
    }
    if (g->node[a].ld != g->node[a].cols) x = vgs_affine(g, x, 1.0f, 0.0f);
    v = vgs__push_op(g, VGS_OP_ENERGY, g->node[a].rows, 1, vgs__id(g, x), -1, -1);
    if (v.id) g->node[vgs__id(g, v)].energy = energy;
    return v;
}

VGS__DEF vgs_status vgs_energy_check(const vgs_energy *e, const float *x, int n, double *worst,
                                     vgs_error *err)
{
    vgs_status st = VGS_OK;
    size_t dim = e && e->dim > 0 ? (size_t)e->dim : 0;
    float *g = dim && n > 0 ? (float *)vgs__alloc(dim * (size_t)n, sizeof *g) : NULL;
    float *p = g ? (float *)vgs__alloc(dim * 2, sizeof *p) : NULL, ev[2];
    double ed[2];
    int i, j;
    *worst = 0.0;
    if (!e || !dim || n <= 0)
        return vgs__fail(err, VGS_E_ARG, "energy_check: dim = %d, n = %d: must be > 0", (int)dim, n);
    if (!p) st = vgs__fail(err, VGS_E_NOMEM, "out of memory: energy_check of %d points", n);
    for (i = 0; i < n && st == VGS_OK; ++i) {
        const float *xi = x + (size_t)i * dim;
        st = vgs_energy_eval(e, xi, 1, ev, g, 1, err);
        for (j = 0; j < e->dim && st == VGS_OK; ++j) {
            float h = 4e-3f * (1.0f + fabsf(xi[j]));
            double diff, gj = (double)g[j], bad;
            memcpy(p, xi, dim * sizeof *p);
            memcpy(p + dim, xi, dim * sizeof *p);
            p[j] += h;
            p[dim + (size_t)j] -= h;
            st = vgs__energy_eval(e, p, 2, ev, ed, NULL, 1, err);
            if (st != VGS_OK) break;
            diff = (ed[0] - ed[1]) / ((double)p[j] - (double)p[dim + (size_t)j]);
            bad = fabs(diff - gj) / (1.0 + fabs(gj));
            if (!(bad - bad == 0.0))
                st = vgs__fail(err, VGS_E_NONFINITE,
                               "energy_check: point %d, component %d: gradient %g, difference %g", i, j, gj,
                               diff);
            else if (bad > *worst) *worst = bad;
        }
    }
    vgs__free(p);
    vgs__free(g);
    return st;
}

/* ==== >>gradient: reverse mode, recorded as ops ====================================================== */

typedef void vgs__grad_fn(vgs_graph *g, const vgs__node *n, vgs_var y, vgs_var gy, const bool *need,
                          vgs_var *gx);

static const struct { const char *name; vgs__grad_fn *grad; char kind; } vgs__op_table[] = {
    { "input", NULL, 0 }, { "params", NULL, 0 }, { "state", NULL, 0 }, { "table", NULL, 0 },
    { "view", NULL, 0 }, { "tap", NULL, 0 },
#define VGS__ROW(kind, ID, name) { #name, vgs__g_##name, #kind[0] },
    VGS_OPS(VGS__ROW)
#undef VGS__ROW
};

VGS__DEF const char *vgs_op_name(int op)
{
    return op >= 0 && op < VGS_OP_COUNT ? vgs__op_table[op].name : "unknown op";
}

/* A view's gradient lies in zeros of its base's shape; a reshape's is reshaped back. */
static vgs_var vgs__view_grad(vgs_graph *g, const vgs__node *n, vgs_var gy)
{
    const vgs__node *base = &g->node[n->alias];
    if (base->rows == n->rows && base->cols != n->cols)
        return vgs__pad_cols(g, gy, (int)n->alias_offset, base->cols);
    return base->cols == n->cols ? gy : vgs_reshape(g, gy, base->cols);
}

/* Second outputs are constants for the gradient: permutations, and what an energy says of itself. */
static bool vgs__is_constant(const vgs_graph *g, int id)
{
    return g->node[id].op == VGS_OP_TAP && g->node[g->node[id].in[0]].op != VGS_OP_SILU;
}

static bool vgs__is_params_view(const vgs_graph *g, int id)
{
    return g->node[id].op == VGS_OP_VIEW && g->node[g->node[id].alias].op == VGS_OP_PARAMS;
}

/* Records the adjoints of all values between the wanted ones and y; adj[id].id = 0 where there is none.
   Views of parameters are leaves here: wanted or not, nothing lies behind them. */
static void vgs__reverse(vgs_graph *g, int y, bool *on_path, vgs_var *adj)
{
    int id, k, last = g->node[y].rows;
    for (id = 0; id <= y; ++id)
        for (k = 0; k < g->node[id].n_in; ++k)
            if (g->node[id].in[k] >= 0 && on_path[g->node[id].in[k]] && !vgs__is_constant(g, id))
                on_path[id] = true;
    if (on_path[y]) adj[y] = vgs__fill(g, last, g->node[y].cols, 1.0f);
    for (id = y; id >= 0 && g->sticky.code == VGS_OK; --id) {
        const vgs__node n = g->node[id];
        vgs_var gx[VGS_MAX_IN] = { { 0 } };
        bool need[VGS_MAX_IN] = { false }, any = false;
        if (!adj[id].id || !on_path[id]) continue;
        for (k = 0; k < n.n_in; ++k) {
            need[k] = n.in[k] >= 0 && g->node[n.in[k]].type == VGS_F32 && on_path[n.in[k]];
            any = any || need[k];
        }
        if (!any || vgs__is_params_view(g, id)) continue;            /* one of x, or beyond all of them */
        if (n.op == VGS_OP_TAP)
            vgs__graph_fail(g, VGS_E_ARG, "gradient: the slope of %s has none (first derivatives only)",
                            vgs_op_name(g->node[n.in[0]].op));
        else if (n.op == VGS_OP_VIEW && need[0]) gx[0] = vgs__view_grad(g, &n, adj[id]);
        else if (vgs__op_table[n.op].grad)
            vgs__op_table[n.op].grad(g, &n, vgs__handle(g, id), adj[id], need, gx);
        for (k = 0; k < n.n_in; ++k)
            if (need[k] && gx[k].id)
                adj[n.in[k]] = adj[n.in[k]].id ? vgs_add(g, adj[n.in[k]], gx[k]) : gx[k];
    }
}

static vgs_status vgs__gradient(vgs_graph *g, int y, const int *x, int n, vgs_var *gx)
{
    int count = g->n_node, k;
    bool *on_path = (bool *)vgs__alloc((size_t)count, sizeof *on_path);
    vgs_var *adj = (vgs_var *)vgs__alloc((size_t)count, sizeof *adj);
    if (!on_path || !adj) vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: gradient of %d ops", count);
    else {
        for (k = 0; k < n; ++k) on_path[x[k]] = true;
        vgs__reverse(g, y, on_path, adj);
        for (k = 0; k < n; ++k) gx[k] = adj[x[k]];
    }
    vgs__free(on_path);
    vgs__free(adj);
    return g->sticky.code;
}

VGS__DEF vgs_status vgs_gradient(vgs_graph *g, vgs_var y, const vgs_var *x, int n, vgs_var *gx)
{
    int yid = vgs__operand(g, "gradient", y), ids[16] = { 0 }, k;
    for (k = 0; k < n; ++k) gx[k] = vgs__no_var();
    if (n > 16) vgs__graph_fail(g, VGS_E_ARG, "gradient: n = %d: at most 16 at a time", n);
    for (k = 0; k < n && k < 16; ++k) {
        char s[40];
        ids[k] = vgs__operand(g, "gradient", x[k]);
        if (ids[k] >= 0 && g->node[ids[k]].op == VGS_OP_PARAMS)
            vgs__graph_fail(g, VGS_E_ARG, "gradient: x[%d] is params %s: use vgs_gradient_params", k,
                            vgs__shape_text(&g->node[ids[k]], s));
    }
    if (g->sticky.code != VGS_OK || vgs__gradient(g, yid, ids, n, gx) != VGS_OK) return g->sticky.code;
    for (k = 0; k < n; ++k)                                          /* y does not depend on x: zeros  */
        if (!gx[k].id) gx[k] = vgs__fill(g, g->node[ids[k]].rows, g->node[ids[k]].cols, 0.0f);
    return g->sticky.code;
}

static vgs_var vgs__effect(vgs_graph *g, int op, vgs_var a, vgs_var b, vgs_var c)
{
    int ia = vgs__operand(g, vgs_op_name(op), a), ib = vgs__operand(g, vgs_op_name(op), b);
    int ic = c.id ? vgs__operand(g, vgs_op_name(op), c) : -1;
    if (ia < 0 || ib < 0) return vgs__no_var();
    return vgs__push_op(g, op, 1, 1, ia, ib, ic);
}

/* Whether an op takes the parameters as they are, not a view of them. */
static bool vgs__taken_whole(const vgs_graph *g, int params)
{
    int id, k;
    for (id = params + 1; id < g->n_node; ++id)
        for (k = 0; k < g->node[id].n_in && g->node[id].op != VGS_OP_VIEW; ++k)
            if (g->node[id].in[k] == params) return true;
    return false;
}

/* Every view of the parameters, and their whole, gets its place in `grad`. Where views overlap, their
   gradients are added to zeros; elsewhere they are stored, which compile turns into no work at all. */
VGS__DEF vgs_status vgs_gradient_params(vgs_graph *g, vgs_var y, vgs_var params, vgs_var grad)
{
    int yid = vgs__operand(g, "gradient", y), p = vgs__operand(g, "gradient", params), i, r, c, n = 0, count;
    int gid = vgs__operand(g, "gradient", grad), *ids;
    unsigned char *hit;
    bool overlap = false;
    vgs_var *gx;
    if (yid < 0 || p < 0 || gid < 0) return g->sticky.code;
    if (g->node[gid].rows != 1 || g->node[gid].cols != g->node[p].cols || g->node[gid].op != VGS_OP_STATE) {
        vgs__shape_fail(g, "gradient: grad must be a state of the parameters' shape", p, gid);
        return g->sticky.code;
    }
    count = g->n_node;
    ids = (int *)vgs__alloc((size_t)count, sizeof *ids);
    gx = (vgs_var *)vgs__alloc((size_t)count, sizeof *gx);
    hit = (unsigned char *)vgs__alloc((size_t)g->node[p].cols, 1);
    if (!ids || !gx || !hit)
        vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: gradient of %d parameters", g->node[p].cols);
    for (i = 0; i < count && g->sticky.code == VGS_OK; ++i) {
        const vgs__node *v = &g->node[i];
        if (i == p ? !vgs__taken_whole(g, p) : v->op != VGS_OP_VIEW || v->alias != p) continue;
        for (r = 0; r < v->rows; ++r)
            for (c = 0; c < v->cols; ++c)
                overlap = hit[v->alias_offset + (size_t)(r * v->ld + c)]++ > 0 || overlap;
        ids[n++] = i;
    }
    if (g->sticky.code == VGS_OK) vgs__gradient(g, yid, ids, n, gx);
    if (overlap) vgs__effect(g, VGS_OP_STORE, grad, vgs__fill(g, 1, g->node[p].cols, 0.0f), vgs__no_var());
    for (i = 0; i < n && g->sticky.code == VGS_OK; ++i) {
        const vgs__node v = g->node[ids[i]];
        vgs_var to, st;
        if (!gx[i].id) continue;
        to = vgs__alias(g, gid, v.alias_offset, v.rows, v.cols, v.ld);
        st = vgs__effect(g, VGS_OP_STORE, to, gx[i], vgs__no_var());
        vgs__attr_i(g, st, 1, overlap);
    }
    vgs__free(ids);
    vgs__free(gx);
    vgs__free(hit);
    return g->sticky.code;
}

/* ==== >>compile: prune, fuse, order, place =========================================================== */

VGS__DEF void vgs_output(vgs_graph *g, vgs_var v)
{
    int id = vgs__operand(g, "output", v);
    if (id >= 0) g->node[id].output = true;
}

static bool vgs__is_effect(int op)
{
    return op == VGS_OP_STORE || op == VGS_OP_ADAM || op == VGS_OP_EMA || op == VGS_OP_CHECK;
}

static bool vgs__is_leaf(int op) { return op <= VGS_OP_TABLE; }
static bool vgs__runs(const vgs__node *n) { return n->live && n->op > VGS_OP_TAP; }

/* The node that owns the storage, through any number of views. */
static int vgs__owner(const vgs_graph *g, int id)
{
    while (g->node[id].alias >= 0) id = g->node[id].alias;
    return id;
}

static void vgs__mark_live(vgs_graph *g)
{
    int id, k;
    for (id = 0; id < g->n_node; ++id)
        g->node[id].live = g->node[id].output || vgs__is_effect(g->node[id].op);
    for (id = g->n_node - 1; id >= 0; --id)
        for (k = 0; g->node[id].live && k < g->node[id].n_in; ++k)
            if (g->node[id].in[k] >= 0) g->node[g->node[id].in[k]].live = true;
    /* a tap is recorded after its op, and the op before it may have been passed already */
    for (id = 0; id < g->n_node; ++id)
        if (g->node[id].op == VGS_OP_SORT_COLS && g->node[id].live) g->node[g->node[id].tap].live = true;
}

static void vgs__count_uses(const vgs_graph *g, int *uses)
{
    int id, k;
    for (id = 0; id < g->n_node; ++id) {
        if (g->node[id].output) uses[id] += 2;                       /* must keep a place of its own   */
        for (k = 0; g->node[id].live && k < g->node[id].n_in; ++k)
            if (g->node[id].in[k] >= 0) uses[g->node[id].in[k]]++;
    }
}

/* linear + activation in one op, when nobody else looks at what is in between. */
static void vgs__fuse(vgs_graph *g, const int *uses)
{
    static const struct { int op; vgs_act act; } fusable[] = {
        { VGS_OP_RELU, VGS_ACT_RELU }, { VGS_OP_SIGMOID, VGS_ACT_SIGMOID }, { VGS_OP_TANH, VGS_ACT_TANH },
        { VGS_OP_SILU, VGS_ACT_SILU }, { VGS_OP_SOFTPLUS, VGS_ACT_SOFTPLUS }
    };
    int id;
    size_t k;
    for (id = 0; id < g->n_node; ++id)
        for (k = 0; k < sizeof fusable / sizeof *fusable; ++k) {
            vgs__node *n = &g->node[id], *m;
            if (!n->live || n->op != fusable[k].op || (n->tap >= 0 && g->node[n->tap].live)) continue;
            m = &g->node[n->in[0]];
            if (m->op != VGS_OP_MATMUL || uses[n->in[0]] != 1 || m->i[1] != VGS_ACT_NONE) continue;
            m->i[1] = (int)fusable[k].act;
            n->op = VGS_OP_VIEW;
            n->alias = n->in[0];
            n->ld = m->ld;
        }
}

/* A value that is only stored into a state is computed there. */
static void vgs__store_in_place(vgs_graph *g, const int *uses)
{
    int id;
    for (id = 0; id < g->n_node; ++id) {
        vgs__node *n = &g->node[id], *src;
        if (n->op != VGS_OP_STORE || n->i[1] || n->i[0] || n->i_slot[0] >= 0) continue;
        src = &g->node[n->in[1]];
        if (src->op <= VGS_OP_TAP || uses[n->in[1]] != 1) continue;
        if (src->rows != g->node[n->in[0]].rows || src->cols != g->node[n->in[0]].cols || src->body == false)
            continue;
        src->alias = n->in[0];
        src->ld = g->node[n->in[0]].ld;
        n->live = false;
    }
}

/* What depends on inputs, states or random numbers belongs to the body; the rest is the prologue. */
static void vgs__split_stages(vgs_graph *g)
{
    int id, k;
    for (id = 0; id < g->n_node; ++id) {
        vgs__node *n = &g->node[id];
        n->body = n->op == VGS_OP_INPUT || n->op == VGS_OP_STATE || n->op == VGS_OP_NORMAL ||
                  n->op == VGS_OP_PERMUTATION || n->op == VGS_OP_RESAMPLE || vgs__is_effect(n->op) ||
                  n->rows < 0;
        for (k = 0; k < VGS_MAX_ATTR; ++k) n->body = n->body || n->i_slot[k] >= 0 || n->f_slot[k] >= 0;
        for (k = 0; k < n->n_in; ++k) if (n->in[k] >= 0 && g->node[n->in[k]].body) n->body = true;
    }
}

/* ---- groups: ops that run together (vgs_backend.run_list) ---- */

/* Whether an op needs all rows at once. form: of MATMUL; energy: of ENERGY. */
static bool vgs__is_whole(int op, int form, const vgs_energy *energy)
{
    switch (op) {
    case VGS_OP_MATMUL: return form == VGS__TN;
    case VGS_OP_ENERGY: return !energy->thread_safe;
    case VGS_OP_ADAM:
    case VGS_OP_EMA:    return true;
    default:            return vgs__op_table[op].kind == 'W';
    }
}

/* Into how many parts the rows of an op fall that can be computed one by one: -1 = the batch's, 0 = none. */
static int vgs__parts(const vgs_graph *g, const vgs__node *n)
{
    if (vgs__is_whole(n->op, n->i[0], n->energy)) return 0;
    if (n->op == VGS_OP_CHECK) n = &g->node[n->in[0]];
    return n->rows < 0 ? -1 : n->rows;
}

/* Whether a part of op n needs only the same part of its operand k. */
static bool vgs__by_part(const vgs_graph *g, const vgs__node *n, int k)
{
    const vgs__node *x = &g->node[n->in[k]];
    if (vgs__parts(g, n) != (x->rows < 0 ? -1 : x->rows)) return false;
    switch (n->op) {
    case VGS_OP_MATMUL:         return k == 0 || k == 3;
    case VGS_OP_GATHER:         return k == 1;
    case VGS_OP_SEGMENT_GATHER:
    case VGS_OP_SEGMENT_SUM:    return k == 0 && x->rows < 0;        /* parts are whole samples        */
    case VGS_OP_CHECK:          return k == 0;
    default:                    return true;
    }
}

/* Storage that a set of ops writes, reads, and reads across parts: mark[id] == stamp where it does. */
typedef struct vgs__marks { int *wrote, *read, *crossed, stamp; } vgs__marks;

/* The only other effect of an op, CHECK's on the flag, commutes with itself. */
static bool vgs__is_fence(const vgs__node *n) { return vgs__is_effect(n->op) && n->op != VGS_OP_CHECK; }

static void vgs__mark(const vgs_graph *g, int id, vgs__marks *m)
{
    const vgs__node *n = &g->node[id];
    int k;
    m->wrote[vgs__owner(g, id)] = m->stamp;
    if (n->tap >= 0) m->wrote[n->tap] = m->stamp;
    for (k = 0; k < n->n_in; ++k)
        if (n->in[k] >= 0) {
            int from = vgs__owner(g, n->in[k]);
            m->read[from] = m->stamp;
            if (!vgs__by_part(g, n, k)) m->crossed[from] = m->stamp;
        }
}

/* Whether op id must wait for the marked ones; if `parted`, only for what crosses from part to part. Those
   that write into the same state write disjoint parts of it. */
static bool vgs__waits(const vgs_graph *g, int id, const vgs__marks *m, bool parted)
{
    const vgs__node *n = &g->node[id];
    int k, to = vgs__owner(g, id);
    for (k = 0; k < n->n_in; ++k)
        if (n->in[k] >= 0 && m->wrote[vgs__owner(g, n->in[k])] == m->stamp &&
            !(parted && vgs__by_part(g, n, k))) return true;
    if ((parted ? m->crossed : m->read)[to] == m->stamp) return true;
    return m->wrote[to] == m->stamp && !vgs__is_leaf(g->node[to].op);
}

/* Reorders the body so that groups become long: in turn as many ops as can run on rows of the batch, on whole
   tensors, on rows of other tensors. Those on whole tensors come in rounds in which none waits for another.
   An effect waits for all before it, and all after it for the effect. */
static void vgs__gather_groups(vgs_graph *g, vgs__marks *m, int *left)
{
    enum { BATCH, WHOLE, OTHER, TURNS };
    int n = g->n_order - g->n_prologue, done = g->n_prologue, at, kept, turn = BATCH;
    bool fenced;
    memcpy(left, g->order + g->n_prologue, (size_t)n * sizeof *left);
    for (; n > 0; turn = turn == WHOLE && kept < n ? WHOLE : (turn + 1) % TURNS, n = kept) {
        m->stamp++;
        fenced = false;
        for (at = kept = 0; at < n; ++at) {
            const vgs__node *x = &g->node[left[at]];
            int parts = vgs__parts(g, x), class_of = parts < 0 ? BATCH : parts == 0 ? WHOLE : OTHER;
            bool fence = vgs__is_fence(x);
            if (!fenced && class_of == turn && !(fence && kept) && !vgs__waits(g, left[at], m, false)) {
                g->order[done++] = left[at];
                if (turn == WHOLE) vgs__mark(g, left[at], m);
            } else {
                fenced = fenced || fence;
                vgs__mark(g, left[at], m);
                left[kept++] = left[at];
            }
        }
    }
}

/* Cuts the order into groups; effects stand alone. */
static void vgs__number_groups(vgs_graph *g, vgs__marks *m)
{
    int at, group = 0, parts = 0;
    bool after_fence = false;
    for (at = 0; at < g->n_order; ++at) {
        int id = g->order[at], p = vgs__parts(g, &g->node[id]);
        bool fence = vgs__is_fence(&g->node[id]);
        if (at == 0 || at == g->n_prologue || fence || after_fence || p != parts ||
            vgs__waits(g, id, m, p != 0)) {
            group += at > 0;
            m->stamp++;
        }
        vgs__mark(g, id, m);
        g->node[id].group = group;
        parts = p;
        after_fence = fence;
    }
}

static vgs_status vgs__make_order(vgs_graph *g)
{
    int pass, id, *memory = (int *)vgs__alloc(4 * (size_t)g->n_node + 4, sizeof *memory);
    vgs__marks m;
    g->order = (int *)vgs__alloc((size_t)g->n_node + 1, sizeof *g->order);
    if (!g->order || !memory) { vgs__free(memory); return VGS_E_NOMEM; }
    for (pass = 0; pass < 2; ++pass) {
        for (id = 0; id < g->n_node; ++id)
            if (vgs__runs(&g->node[id]) && g->node[id].body == (pass == 1)) g->order[g->n_order++] = id;
        if (!pass) g->n_prologue = g->n_order;
    }
    m.wrote = memory;
    m.read = m.wrote + g->n_node;
    m.crossed = m.read + g->n_node;
    m.stamp = 0;
    vgs__gather_groups(g, &m, m.crossed + g->n_node);
    vgs__number_groups(g, &m);
    vgs__free(memory);
    g->call = (vgs_call *)vgs__alloc((size_t)g->n_order + 1, sizeof *g->call);
    return g->call ? VGS_OK : VGS_E_NOMEM;
}

/* first, last: places in the order. */
typedef struct vgs__life { int first, last; size_t offset, size; } vgs__life;

/* More floats than any memory holds: an arena that would need more asks for these, and gets NULL. */
#define VGS__NO_ROOM ((size_t)-1 / 4)

static size_t vgs__room(const vgs_graph *g, const vgs__node *n)
{
    double rows = n->rows < 0 ? -(double)n->rows * g->capacity : n->rows;
    if (rows * n->cols > (double)VGS__NO_ROOM - 16.0) return VGS__NO_ROOM;
    return ((size_t)rows * (size_t)n->cols + 15) & ~(size_t)15;
}

/* Life of every stored value in places of the order. What the body reads of the prologue lives for ever,
   since the prologue does not run again; so do leaves of our own and outputs. */
static void vgs__find_lives(const vgs_graph *g, vgs__life *life)
{
    int at, k, id;
    for (id = 0; id < g->n_node; ++id) life[id].first = -1;
    for (id = 0; id < g->n_node; ++id) {
        const vgs__node *n = &g->node[id];
        bool own = vgs__is_leaf(n->op) && n->live && !n->buf;
        if (own) { life[id].first = 0; life[id].last = INT_MAX; life[id].size = vgs__room(g, n); }
    }
    for (at = 0; at < g->n_order; ++at) {
        const vgs__node *n = &g->node[g->order[at]];
        id = vgs__owner(g, g->order[at]);
        if (!vgs__is_leaf(g->node[id].op) && !vgs__is_effect(n->op) && life[id].first < 0) {
            life[id].first = life[id].last = at;
            life[id].size = vgs__room(g, &g->node[id]);
        }
        if (n->tap >= 0 && g->node[n->tap].live) {
            life[n->tap].first = life[n->tap].last = at;
            life[n->tap].size = vgs__room(g, &g->node[n->tap]);
        }
        for (k = 0; k < n->n_in; ++k)
            if (n->in[k] >= 0) {
                int from = vgs__owner(g, n->in[k]);
                bool kept = at >= g->n_prologue && life[from].first < g->n_prologue && !g->node[from].body;
                if (life[from].first >= 0 && life[from].last < at) life[from].last = kept ? INT_MAX : at;
            }
    }
    for (id = 0; id < g->n_node; ++id)
        if (g->node[id].output && life[vgs__owner(g, id)].first >= 0) life[vgs__owner(g, id)].last = INT_MAX;
}

/* A value that is born and read within one group of parts is local to it. All others live as long as the
   groups in which they are born and last read, since the ops of a group have no order among them. */
static void vgs__widen_lives(vgs_graph *g, vgs__life *life)
{
    int at, k, begin = 0, end;
    for (; begin < g->n_order; begin = end) {
        int group = g->node[g->order[begin]].group;
        for (end = begin; end < g->n_order && g->node[g->order[end]].group == group; ++end) {}
        for (at = begin; at < end; ++at) {
            vgs__node *n = &g->node[g->order[at]];
            int made[2];
            made[0] = vgs__is_effect(n->op) ? -1 : vgs__owner(g, g->order[at]);
            made[1] = n->tap >= 0 && g->node[n->tap].live ? n->tap : -1;
            n->local = vgs__parts(g, n) != 0 && made[0] >= 0;
            for (k = 0; k < 2; ++k)
                if (made[k] >= 0)
                    n->local = n->local && !vgs__is_leaf(g->node[made[k]].op) && life[made[k]].last < end;
            for (k = 0; k < 2; ++k)
                if (made[k] >= 0 && life[made[k]].first == at && !n->local) life[made[k]].first = begin;
        }
    }
}

/* The second half, once it is known what is local. */
static void vgs__widen_ends(const vgs_graph *g, vgs__life *life)
{
    int id, at;
    for (id = 0; id < g->n_node; ++id) {
        vgs__life *a = &life[id];
        bool local;
        if (a->first < 0 || a->last >= g->n_order || vgs__is_leaf(g->node[id].op)) continue;
        local = g->node[g->node[id].op == VGS_OP_TAP ? g->node[id].in[0] : id].local;
        for (at = a->last; !local && at + 1 < g->n_order &&
             g->node[g->order[at + 1]].group == g->node[g->order[a->last]].group; ++at) {}
        if (!local) a->last = at;
    }
}

/* Lowest free place, first come first served. Returns the end of the arena. */
static size_t vgs__place(const vgs_graph *g, vgs__life *life)
{
    size_t end = 0;
    int id, other;
    for (id = 0; id < g->n_node; ++id) {
        vgs__life *a = &life[id];
        bool moved = true;
        if (a->first < 0) continue;
        for (a->offset = 0; moved;) {
            moved = false;
            for (other = 0; other < id; ++other) {
                const vgs__life *b = &life[other];
                if (b->first < 0 || b->last < a->first || a->last < b->first) continue;
                if (a->offset < b->offset + b->size && b->offset < a->offset + a->size) {
                    a->offset = b->offset + b->size;
                    moved = true;
                }
            }
        }
        if (a->size >= VGS__NO_ROOM - a->offset) return VGS__NO_ROOM;
        if (a->offset + a->size > end) end = a->offset + a->size;
    }
    return end;
}

static vgs_status vgs__upload_tables(vgs_graph *g, vgs_error *err)
{
    int id;
    for (id = 0; id < g->n_node; ++id) {
        vgs__node *n = &g->node[id];
        vgs_status st;
        if (n->op != VGS_OP_TABLE || !n->live) continue;
        st = g->backend->upload(g->backend->self, n->buf, n->offset, n->data,
                                (size_t)n->rows * (size_t)n->cols, n->type, err);
        if (st != VGS_OK) return st;
    }
    return VGS_OK;
}

static vgs_status vgs__reserve(vgs_graph *g, vgs_error *err);        /* >>run                          */

static vgs_status vgs__plan(vgs_graph *g, int *uses, vgs__life *life, vgs_error *err)
{
    int id;
    vgs__mark_live(g);
    vgs__count_uses(g, uses);
    vgs__split_stages(g);
    vgs__fuse(g, uses);
    vgs__store_in_place(g, uses);
    if (vgs__make_order(g) != VGS_OK)
        return vgs__fail(err, VGS_E_NOMEM, "out of memory: order of %d ops", g->n_node);
    vgs__find_lives(g, life);
    vgs__widen_lives(g, life);
    vgs__widen_ends(g, life);
    g->arena_size = vgs__place(g, life);
    g->arena = g->backend->buffer_create(g->backend->self, g->arena_size ? g->arena_size : 1, err);
    if (!g->arena) return err ? err->code : VGS_E_NOMEM;
    for (id = 0; id < g->n_node; ++id)
        if (life[id].first >= 0) {
            g->node[id].buf = g->arena;
            g->node[id].offset = life[id].offset;
        }
    return vgs__upload_tables(g, err);
}

VGS__DEF vgs_status vgs_graph_compile(vgs_graph *g, vgs_backend *backend, int capacity, vgs_error *err)
{
    vgs_error local;
    int *uses;
    vgs__life *life;
    vgs_status st;
    if (!err) err = &local;
    if (g->sticky.code != VGS_OK) return vgs_graph_status(g, err);
    if (g->backend)
        return vgs__fail(err, VGS_E_ARG, "graph_compile: already compiled; reset and record again");
    if (!backend || capacity < 1)
        return vgs__fail(err, VGS_E_ARG, "graph_compile: capacity = %d, backend %s: must be >= 1 and given",
                         capacity, backend ? "given" : "NULL");
    uses = (int *)vgs__alloc((size_t)g->n_node + 1, sizeof *uses);
    life = (vgs__life *)vgs__alloc((size_t)g->n_node + 1, sizeof *life);
    g->backend = backend;
    g->capacity = capacity;
    g->dirty = true;
    if (!uses || !life) st = vgs__fail(err, VGS_E_NOMEM, "out of memory: compiling %d ops", g->n_node);
    else st = vgs__plan(g, uses, life, err);
    if (st == VGS_OK && backend->reserve) st = vgs__reserve(g, err);
    vgs__free(uses);
    vgs__free(life);
    if (st != VGS_OK) {
        vgs_graph_reset(g);
        g->sticky = *err;
    }
    return st;
}

VGS__DEF size_t vgs_graph_bytes(const vgs_graph *g) { return g->arena_size * 4; }

VGS__DEF int vgs_graph_ops(const vgs_graph *g, bool prologue)
{
    return prologue ? g->n_prologue : g->n_order - g->n_prologue;
}

/* ==== >>run ========================================================================================= */

static vgs_tensor vgs__tensor(const vgs_graph *g, int id, int batch)
{
    vgs_tensor t;
    memset(&t, 0, sizeof t);
    if (id < 0) return t;
    t.rows = g->node[id].rows < 0 ? -g->node[id].rows * batch : g->node[id].rows;
    t.cols = g->node[id].cols;
    t.ld = g->node[id].ld;
    for (; g->node[id].alias >= 0; id = g->node[id].alias) t.offset += g->node[id].alias_offset;
    t.buf = g->node[id].buf;
    t.offset += g->node[id].offset;
    return t;
}

static void vgs__make_call(const vgs_graph *g, int id, int batch, vgs_call *c)
{
    const vgs__node *n = &g->node[id];
    int k, parts = vgs__parts(g, n);
    c->op = n->op;
    c->energy = n->energy;
    c->group = n->group;
    c->parts = parts < 0 ? batch : parts;
    c->local = n->local;
    c->out = vgs__tensor(g, vgs__is_effect(n->op) ? -1 : id, batch);
    c->out2 = vgs__tensor(g, n->tap >= 0 && g->node[n->tap].live ? n->tap : -1, batch);
    for (k = 0; k < VGS_MAX_IN; ++k) c->in[k] = vgs__tensor(g, n->in[k], batch);
    for (k = 0; k < VGS_MAX_ATTR; ++k) {
        c->i[k] = n->i_slot[k] < 0 ? n->i[k] : (int)(uint32_t)(int64_t)g->scalar[n->i_slot[k]];
        c->f[k] = n->f_slot[k] < 0 ? n->f[k] : (float)g->scalar[n->f_slot[k]];
    }
}

static vgs_status vgs__reserve(vgs_graph *g, vgs_error *err)
{
    int at;
    for (at = 0; at < g->n_order; ++at) vgs__make_call(g, g->order[at], g->capacity, &g->call[at]);
    return g->backend->reserve(g->backend->self, g->call, g->n_order, err);
}

VGS__DEF void vgs_graph_touch(vgs_graph *g) { g->dirty = true; }

/* Before the first run: parameters and inputs that nobody gave are no zeros. */
static vgs_status vgs__check_leaves(const vgs_graph *g, vgs_error *err)
{
    char s[40];
    int id;
    for (id = 0; id < g->n_node; ++id) {
        const vgs__node *n = &g->node[id];
        if ((n->op == VGS_OP_PARAMS || n->op == VGS_OP_INPUT) && n->live && !n->given)
            return vgs__fail(err, VGS_E_ARG, "graph_run: %s %s was never given: vgs_set it after compile, or "
                             "vgs_bind it (always so in an energy's record function)", vgs_op_name(n->op),
                             vgs__shape_text(n, s));
    }
    return VGS_OK;
}

VGS__DEF vgs_status vgs_graph_run(vgs_graph *g, int batch, vgs_error *err)
{
    int at = g->dirty ? 0 : g->n_prologue, k;
    vgs_status st = VGS_OK;
    vgs_backend *b;
    if (!g->backend) return vgs__fail(err, VGS_E_ARG, "graph_run: the graph is not compiled");
    if (batch < 0 || batch > g->capacity)
        return vgs__fail(err, VGS_E_ARG, "graph_run: batch = %d: must be 0..%d, the capacity", batch,
                         g->capacity);
    if (g->dirty && (st = vgs__check_leaves(g, err)) != VGS_OK) return st;
    b = g->backend;
    for (k = at; k < g->n_order; ++k) vgs__make_call(g, g->order[k], batch, &g->call[k]);
    if (b->run_list) st = b->run_list(b->self, g->call + at, g->n_order - at, err);
    else for (; at < g->n_order && st == VGS_OK; ++at) st = b->run(b->self, &g->call[at], err);
    g->dirty = st != VGS_OK;
    return st;
}

VGS__DEF vgs_status vgs_bind(vgs_graph *g, vgs_var leaf, vgs_buffer *buf, size_t offset, vgs_error *err)
{
    int id = vgs__id(g, leaf);
    if (id < 0 || !vgs__is_leaf(g->node[id].op) || g->node[id].op == VGS_OP_TABLE)
        return vgs__fail(err, VGS_E_ARG, "bind: handle %08x is no input, parameter or state",
                         (unsigned)leaf.id);
    g->node[id].buf = buf;
    g->node[id].offset = offset;
    g->node[id].given = buf != NULL;
    if (g->node[id].op == VGS_OP_PARAMS) g->dirty = true;
    return VGS_OK;
}

/* Whether v's storage is a leaf's or an output's: any other may have been pruned, fused or overwritten. */
static bool vgs__is_kept(const vgs_graph *g, int id)
{
    int owner = vgs__owner(g, id), k;
    bool kept = vgs__is_leaf(g->node[owner].op) || g->node[id].output;
    for (k = 0; k < g->n_node && !kept; ++k) kept = g->node[k].output && vgs__owner(g, k) == owner;
    return kept;
}

/* Elements of a value for this batch; the status tells why it cannot be copied. */
static vgs_status vgs__copied(const vgs_graph *g, const char *what, vgs_var v, int batch, vgs_tensor *t,
                              vgs_error *err)
{
    int id = vgs__id(g, v);
    const char *name = id < 0 ? "" : vgs_op_name(g->node[id].op);
    char s[40];
    if (id < 0)
        return vgs__fail(err, VGS_E_ARG, "%s: no value of this graph (handle %08x)", what, (unsigned)v.id);
    if (!g->backend)
        return vgs__fail(err, VGS_E_ARG, "%s: %s %s: the graph is not compiled yet", what, name,
                         vgs__shape_text(&g->node[id], s));
    if (batch < 0 || batch > g->capacity)
        return vgs__fail(err, VGS_E_ARG, "%s: batch = %d: must be 0..%d", what, batch, g->capacity);
    if (!vgs__is_kept(g, id))
        return vgs__fail(err, VGS_E_ARG, "%s: %s %s is no output and no leaf; call vgs_output before compile",
                         what, name, vgs__shape_text(&g->node[id], s));
    *t = vgs__tensor(g, id, batch);
    if (!t->buf)
        return vgs__fail(err, VGS_E_ARG, "%s: %s %s has no memory: nothing that is run uses it", what, name,
                         vgs__shape_text(&g->node[id], s));
    return VGS_OK;
}

VGS__DEF vgs_status vgs_set(vgs_graph *g, vgs_var leaf, const void *x, int batch, vgs_error *err)
{
    vgs_tensor t = vgs__tensor(g, -1, 0);
    int id = vgs__id(g, leaf);
    vgs_status st;
    if (id >= 0 && !vgs__is_leaf(g->node[id].op))
        return vgs__fail(err, VGS_E_ARG, "set: %s is no leaf", vgs_op_name(g->node[id].op));
    if ((st = vgs__copied(g, "set", leaf, batch, &t, err)) != VGS_OK) return st;
    if (g->node[id].op == VGS_OP_PARAMS || g->node[id].op == VGS_OP_TABLE) g->dirty = true;
    g->node[id].given = true;
    return g->backend->upload(g->backend->self, t.buf, t.offset, x, (size_t)t.rows * (size_t)t.cols,
                              g->node[id].type, err);
}

VGS__DEF vgs_status vgs_get(vgs_graph *g, vgs_var v, void *x, int batch, vgs_error *err)
{
    vgs_tensor t = vgs__tensor(g, -1, 0);
    vgs_status st = vgs__copied(g, "get", v, batch, &t, err);
    int r;
    if (st != VGS_OK) return st;
    for (r = 0; r < (t.ld == t.cols ? 1 : t.rows) && st == VGS_OK; ++r)
        st = g->backend->download(g->backend->self, (char *)x + 4 * (size_t)r * (size_t)t.cols, t.buf,
                                  t.offset + (size_t)r * (size_t)t.ld,
                                  t.ld == t.cols ? (size_t)t.rows * (size_t)t.cols : (size_t)t.cols,
                                  g->node[vgs__id(g, v)].type, err);
    return st;
}

/* ==== >>cpu: the backend on this processor ========================================================== */

typedef void vgs__rows_fn(const vgs__k *k, int r0, int r1, int c0, int c1);
typedef vgs_status vgs__whole_fn(vgs__cpu *cpu, const vgs__k *k, vgs__crew crew, vgs_error *err);

/* Products go by rows or whole; checks and energies by rows, but with more to tell than a kernel can. */
static void vgs__k_check(const vgs__k *k, int r0, int r1, int c0, int c1)
{
    (void)k; (void)r0; (void)r1; (void)c0; (void)c1;
}
VGS__WHOLE(energy)
{
    (void)cpu;
    return crew.me ? VGS_OK : vgs__energy_rows(k, 0, k->in_rows[0], err);
}

#define VGS__ENTRY_M(name) { vgs__k_##name, NULL },
#define VGS__ENTRY_R(name) { vgs__k_##name, NULL },
#define VGS__ENTRY_W(name) { NULL, vgs__k_##name },
#define VGS__ENTRY(kind, ID, name) VGS__ENTRY_##kind(name)
static const struct { vgs__rows_fn *rows; vgs__whole_fn *whole; } vgs__cpu_table[] = {
    VGS_OPS(VGS__ENTRY)
};
#undef VGS__ENTRY_M
#undef VGS__ENTRY_R
#undef VGS__ENTRY_W
#undef VGS__ENTRY

/* The kernels that were written for AVX2. */
#define VGS__AVX2_OPS(X) \
    X(ADD, add) X(SUB, sub) X(MUL, mul) X(DIV, div) X(AFFINE, affine) X(COMBINE, combine) X(EXP, exp)   \
    X(RELU_GRAD, relu_grad) X(SIGMOID, sigmoid) X(SIGMOID_GRAD, sigmoid_grad) X(TANH_GRAD, tanh_grad)   \
    X(SQRT, sqrt) X(SQUARE, square) X(RECIPROCAL, reciprocal) X(SILU, silu)     \
    X(LAYERNORM, layernorm) X(LAYERNORM_GRAD, layernorm_grad) X(LAYERNORM_HAT, layernorm_hat)           \
    X(SORT_COLS, sort_cols) X(NORMAL, normal) X(ADAM, adam) X(EMA, ema)

static vgs__rows_fn *vgs__rows_kernel(const vgs__cpu *cpu, int op)
{
#ifdef VGS__X86
    if (cpu->isa == VGS_ISA_AVX512 && op == VGS_OP_EXP) return vgs__k_exp_avx512;
    if (cpu->isa == VGS_ISA_AVX512 && op == VGS_OP_SILU) return vgs__k_silu_avx512;
#  define VGS__CASE(ID, name) case VGS_OP_##ID: return vgs__k_##name##_avx2;
    if (cpu->isa == VGS_ISA_AVX2 || cpu->isa == VGS_ISA_AVX512)
        switch (op) { VGS__AVX2_OPS(VGS__CASE) default: break; }
#  undef VGS__CASE
#endif
    (void)cpu;
    return vgs__cpu_table[op - (VGS_OP_TAP + 1)].rows;
}

static void vgs__resolve(const vgs_call *c, vgs__k *k)
{
    const vgs_tensor *shape = c->out.buf ? &c->out : &c->in[0];
    int j;
    k->out = c->out.buf ? (float *)(void *)c->out.buf + c->out.offset : NULL;
    k->out2 = c->out2.buf ? (float *)(void *)c->out2.buf + c->out2.offset : NULL;
    k->rows = k->full_rows = shape->rows;
    k->cols = shape->cols;
    k->ld_out = c->out.ld;
    k->ld_out2 = c->out2.ld;
    for (j = 0; j < VGS_MAX_IN; ++j) {
        k->in[j] = c->in[j].buf ? (float *)(void *)c->in[j].buf + c->in[j].offset : NULL;
        k->in_rows[j] = c->in[j].rows;
        k->in_cols[j] = c->in[j].cols;
        k->ld[j] = c->in[j].ld;
    }
    k->i = c->i;
    k->f = c->f;
    k->energy = c->energy;
}

/* ---- jobs: the calls of a list, made ready ---- */

/* Rows of the largest tensor of a group that a thread takes at a time, so that what lies between its ops
   stays in the L2 cache: a multiple of every mr. */
enum { VGS__BLOCK_ROWS = 96, VGS__SLOTS = 64 };

/* A value that a job makes for its own group only: a range of the buffer that is never written; instead every
   thread keeps the rows of one block at `at` of its scratch, `part` floats for each part. */
typedef struct vgs__local { size_t offset, end, at, part; } vgs__local;

/* Where an operand lies: at `fixed`, or `shift` floats into the local value of another job. */
typedef struct vgs__operand_of { float *fixed; const vgs__local *local; size_t shift; } vgs__operand_of;

struct vgs__job {
    vgs__k k;
    int op, per;                                 /* per: rows of a part                               */
    bool whole, flat, local;
    vgs__rows_fn *rows;
    vgs__product product;                        /* MATMUL by rows                                    */
    vgs__local out, out2;                        /* if `local`                                        */
    vgs__operand_of in[VGS_MAX_IN];
    const vgs_buffer *buf;
    int last;                                    /* job that reads a local output last                */
};

/* A group: jobs first..end; `shared`: long enough for more than one thread. */
struct vgs__jobs { int first, end, parts, block; bool whole, shared; double cost; };

/* Rough nanoseconds: only decides whether threads pay. */
static double vgs__cost(const vgs__job *j)
{
    double n = (double)j->k.rows * j->k.cols;
    switch (j->op) {
    case VGS_OP_MATMUL:
        return n * (j->k.i[0] == VGS__TN ? j->k.in_rows[0] : j->k.in_cols[0]) / 40.0;
    case VGS_OP_NORMAL:         return 4.0 * n;
    case VGS_OP_ENERGY:         return 10.0 * (double)j->k.in_rows[0] * j->k.in_cols[0] + 10.0 * n;
    case VGS_OP_SORT_COLS:      return 5.0 * n;
    case VGS_OP_EIGEN:          return 4.0 * n * j->k.i[0];
    case VGS_OP_PAIR_DISTANCE:
    case VGS_OP_SUM_COLS:       return 2.0 * (double)j->k.in_rows[0] * j->k.in_cols[0];
    case VGS_OP_SCATTER_ROWS:   return 0.5 * j->k.in_rows[0] * (j->k.in_cols[0] + 8.0);
    case VGS_OP_SUM_ROWS:
    case VGS_OP_SUM_SQUARES:    return 0.2 * (double)j->k.in_rows[0] * j->k.in_cols[0];
    case VGS_OP_STORE:          return 0.0;
    case VGS_OP_ADAM:           return 0.4 * n;
    case VGS_OP_RESAMPLE:       return 0.0;                          /* one thread does it all         */
    default:                    return n;
    }
}

/* A map whose operands are dense and of one shape is one long row. */
static bool vgs__flatten(vgs__k *k)
{
    bool dense = k->ld_out == k->cols && (!k->out2 || k->ld_out2 == k->cols) &&
                 (double)k->rows * k->cols < (double)INT_MAX;
    int j;
    for (j = 0; j < VGS_MAX_IN; ++j)
        if (k->in[j])
            dense = dense && k->in_rows[j] == k->rows && k->in_cols[j] == k->cols && k->ld[j] == k->cols;
    if (!dense) return false;
    k->cols *= k->rows;
    k->rows = 1;
    for (j = 0; j < VGS_MAX_IN; ++j) {
        k->in_rows[j] = 1;
        k->in_cols[j] = k->cols;
    }
    return true;
}

static vgs__local vgs__local_of(const vgs_tensor *t, int parts)
{
    vgs__local v = { 0, 0, 0, 0 };
    size_t size = t->buf ? (size_t)t->rows * (size_t)t->ld : 0;
    v.offset = t->offset;
    v.end = v.offset + size;
    v.part = parts > 0 ? size / (size_t)parts : 0;
    return v;
}

static void vgs__job_make(const vgs__cpu *cpu, const vgs_call *c, vgs__job *j)
{
    const vgs_tensor *shape = c->out.buf ? &c->out : &c->in[0];
    vgs__resolve(c, &j->k);
    j->op = c->op;
    j->whole = vgs__is_whole(c->op, c->i[0], c->energy);
    j->per = c->parts > 0 ? shape->rows / c->parts : 0;
    j->rows = vgs__rows_kernel(cpu, c->op);
    if (c->op == VGS_OP_MATMUL && !j->whole) j->product = vgs__product_of(cpu, &j->k);
    j->flat = !j->whole && vgs__op_table[c->op].kind == 'M' && vgs__flatten(&j->k);
    j->local = c->local && !j->whole;
    j->buf = c->out.buf;
    j->out = vgs__local_of(&c->out, c->parts);
    j->out2 = vgs__local_of(&c->out2, c->parts);
    j->last = -1;
}

/* Finds the local value in which operand k of job `at` lies, if any: the latest that was written there. */
static void vgs__find_operand(vgs__job *job, int first, int at, int k, const vgs_tensor *t)
{
    vgs__operand_of *x = &job[at].in[k];
    int from;
    x->fixed = job[at].k.in[k];
    x->local = NULL;
    for (from = at - 1; from >= first && t->buf; --from) {
        vgs__job *j = &job[from];
        if (!j->local || j->buf != t->buf) continue;
        if (t->offset >= j->out.offset && t->offset < j->out.end) x->local = &j->out;
        else if (t->offset >= j->out2.offset && t->offset < j->out2.end) x->local = &j->out2;
        else continue;
        x->shift = t->offset - x->local->offset;
        j->last = at;
        return;
    }
}

/* Gives the local values of a group their places in the scratch, again and again the same where a value is
   not read any more. Returns the end. */
static size_t vgs__place_locals(vgs__job *job, const vgs__jobs *g)
{
    struct { size_t at, size; int until; } slot[VGS__SLOTS];
    size_t end = 0, size, size2, at;
    int i, s, n = 0;
    for (i = g->first; i < g->end; ++i) {
        if (!job[i].local) continue;
        size = (job[i].out.part * (size_t)g->block + 15) & ~(size_t)15;
        size2 = (job[i].out2.part * (size_t)g->block + 15) & ~(size_t)15;
        for (s = 0; s < n && (slot[s].until >= i || slot[s].size < size + size2); ++s) {}
        at = s < n ? slot[s].at : end;
        if (s == n) end += size + size2;
        if (s == n && n < VGS__SLOTS) {
            slot[n].at = at;
            slot[n++].size = size + size2;
        }
        if (s < n) slot[s].until = job[i].last > i ? job[i].last : i;
        job[i].out.at = at;
        job[i].out2.at = at + size;
    }
    return end;
}

/* ---- groups ---- */

static bool vgs__grow_to(float **p, size_t *have, size_t want, size_t copies, vgs_error *err)
{
    if (want <= *have) return true;
    vgs__free(*p);
    *have = 0;
    *p = (float *)vgs__alloc_or(err, "CPU backend", want * copies, sizeof **p);
    if (*p) *have = want;
    return *p != NULL;
}

/* Whether B of a product is packed once for all rows: not if it is read too few times. */
static bool vgs__packs(const vgs__job *j)
{
#ifdef VGS_USE_CBLAS
    return false;
#else
    return j->op == VGS_OP_MATMUL && !j->whole && j->k.rows > 4 * j->product.kernel.mr &&
           !vgs__is_dot(&j->product);
#endif
}

/* Less work than this in a group, and in all of a list, is not worth waiting for each other. */
#define VGS__SHARE_NS 12000.0
#define VGS__FORK_NS  25000.0

/* One group out of the calls from `first` on; its jobs are made. Returns where the next begins. */
static int vgs__group_make(const vgs__cpu *cpu, const vgs_call *c, int n, int first, vgs__jobs *g)
{
    int at, k, per = 1;
    double cost = 0.0;
    g->first = first;
    g->parts = c[first].parts;
    g->whole = vgs__is_whole(c[first].op, c[first].i[0], c[first].energy);
    for (at = first; at < n && c[at].group == c[first].group; ++at) {
        vgs__job *j = &cpu->job[at];
        vgs__job_make(cpu, &c[at], j);
        cost += vgs__cost(j);
        if (j->per > per) per = j->per;
        for (k = 0; k < VGS_MAX_IN; ++k) vgs__find_operand(cpu->job, first, at, k, &c[at].in[k]);
    }
    g->end = at;
    g->cost = cost;
    g->block = VGS__BLOCK_ROWS > per ? VGS__BLOCK_ROWS / per : 1;
    g->shared = cpu->threads > 1 && cost >= VGS__SHARE_NS && (g->whole || g->parts > 1);
    return at;
}

/* Makes all groups and the room that they need; returns how many there are, -1 if memory is out. */
static int vgs__list_make(vgs__cpu *cpu, const vgs_call *c, int n, vgs_error *err)
{
    int at = 0, i, groups = 0;
    size_t scratch = 0, packed = 0;
    void *p = cpu->job, *q = cpu->group;
    while (cpu->cap_job < n) if (!vgs__grow(&p, &cpu->cap_job, cpu->cap_job, sizeof *cpu->job)) break;
    while (cpu->cap_group < n) if (!vgs__grow(&q, &cpu->cap_group, cpu->cap_group, sizeof *cpu->group)) break;
    cpu->job = (vgs__job *)p;
    cpu->group = (vgs__jobs *)q;
    if (cpu->cap_job < n || cpu->cap_group < n) {
        vgs__fail(err, VGS_E_NOMEM, "out of memory: a list of %d ops", n);
        return -1;
    }
    for (; at < n; ++groups) {
        vgs__jobs *g = &cpu->group[groups];
        size_t most = 0, end;
        at = vgs__group_make(cpu, c, n, at, g);
        end = vgs__place_locals(cpu->job, g);
        for (i = g->first; i < g->end; ++i)
            if (cpu->job[i].op == VGS_OP_SCATTER_ROWS) {
                size_t own = vgs__scatter_work(cpu->job[i].k.in_rows[0], cpu->job[i].k.rows);
                if (own > end) end = own;
            } else if (vgs__packs(&cpu->job[i]))
                most += vgs__padded(&cpu->job[i].product) * (size_t)cpu->job[i].product.k;
        if (end > scratch) scratch = end;
        if (most > packed) packed = most;
    }
    if (!vgs__grow_to(&cpu->scratch, &cpu->scratch_size, scratch, (size_t)cpu->threads, err) ||
        !vgs__grow_to(&cpu->packed, &cpu->packed_size, packed, 1, err)) return -1;
    return groups;
}

/* ---- running ---- */

/* Keeps the first failure of the list; what follows its group is not run. */
static void vgs__stop_after(vgs__cpu *cpu, int group, const vgs_error *e)
{
    int before;
#ifdef _OPENMP
#  pragma omp atomic capture
#endif
    before = cpu->failures++;
    if (before) return;
    cpu->error = *e;
#ifdef _OPENMP
#  pragma omp atomic write
#endif
    cpu->failed = group + 1;
}

/* Whether a group before this one failed. All threads that have waited for each other in front of it agree on
   this: what a faster thread does in this group does not count. */
static bool vgs__stopped(vgs__cpu *cpu, int group)
{
    int failed;
#ifdef _OPENMP
#  pragma omp atomic read
#endif
    failed = cpu->failed;
    return failed && failed <= group;
}

/* The flag goes to the first check of the list that finds something, and to its first row, whichever thread
   comes first. A flag that was set before stays. */
static void vgs__report(vgs__cpu *cpu, const vgs__job *job, int row)
{
    const vgs__k *k = &job->k;
    int f[4], at = (int)(job - cpu->job);
#ifdef _OPENMP
#  pragma omp critical(vgs_check)
#endif
    if (cpu->bad_job < 0 ? !vgs__int_at(k->in[1], 0)
                         : at < cpu->bad_job || (at == cpu->bad_job && row < cpu->bad_row)) {
        cpu->bad_job = at;
        cpu->bad_row = row;
        f[0] = 1;
        f[1] = row + k->i[2];
        f[2] = k->i[0];
        f[3] = k->i[1];
        memcpy(k->in[1], f, sizeof f);
    }
}

static float *vgs__at(float *scratch, const vgs__local *v, int first, size_t shift)
{
    return scratch + v->at + shift - (size_t)first * v->part;
}

/* Parts a..b of a job, by one thread; local values are those of a block that begins with part `a`. */
static void vgs__run_parts(vgs__cpu *cpu, int group, const vgs__job *j, int me, int a, int b)
{
    float *scratch = cpu->scratch ? cpu->scratch + (size_t)me * cpu->scratch_size : NULL;
    vgs__k k = j->k;
    int i, r0 = a * j->per, r1 = b * j->per;
    vgs_error err;
    for (i = 0; i < VGS_MAX_IN; ++i)
        if (j->in[i].local) k.in[i] = vgs__at(scratch, j->in[i].local, a, j->in[i].shift);
    if (j->local) {
        k.out = vgs__at(scratch, &j->out, a, 0);
        if (k.out2) k.out2 = vgs__at(scratch, &j->out2, a, 0);
    }
    if (j->op == VGS_OP_MATMUL) {
        vgs__product q = j->product;
        q.a = k.in[0];
        q.c = k.out;
        q.ep.rows = (const int32_t *)(const void *)k.in[3];
        vgs__gemm_rows(&q, r0, r1, cpu->work + (size_t)me * VGS__WORK);
    } else if (j->op == VGS_OP_CHECK) {
        i = vgs__check_rows(&k, r0, r1);
        if (i >= 0) vgs__report(cpu, j, i);
    } else if (j->op == VGS_OP_ENERGY) {
        if (vgs__energy_rows(&k, r0, r1, &err) != VGS_OK) vgs__stop_after(cpu, group, &err);
    } else if (j->flat) {
        int each = j->k.cols / (j->k.full_rows ? j->k.full_rows : 1);
        j->rows(&k, 0, 1, r0 * each, r1 * each);
    } else j->rows(&k, r0, r1, 0, k.cols);
}

static void vgs__pack_group(vgs__cpu *cpu, const vgs__jobs *g, vgs__crew crew)
{
    size_t at = 0;
    int i;
    for (i = g->first; i < g->end; ++i) {
        vgs__product *q = &cpu->job[i].product;
        if (!vgs__packs(&cpu->job[i])) continue;
        vgs__pack_share(q, cpu->packed + at, crew.me, crew.n);
        if (crew.me == 0) q->packed = cpu->packed + at;
        at += vgs__padded(q) * (size_t)q->k;
    }
    if (at) vgs__crew_wait(crew);
}

/* A thread takes an equal share of the parts, block by block through all ops. */
static void vgs__run_blocks(vgs__cpu *cpu, int group, vgs__crew crew)
{
    const vgs__jobs *g = &cpu->group[group];
    int a = (int)((long long)g->parts * crew.me / crew.n), b, i,
        end = (int)((long long)g->parts * (crew.me + 1) / crew.n);
    vgs__pack_group(cpu, g, crew);
    for (; a < end; a = b) {
        b = a + vgs__min(g->block, end - a);
        for (i = g->first; i < g->end; ++i) vgs__run_parts(cpu, group, &cpu->job[i], crew.me, a, b);
    }
}

static void vgs__run_whole(vgs__cpu *cpu, int group, vgs__crew crew)
{
    const vgs__jobs *g = &cpu->group[group];
    vgs_error err;
    int i;
    for (i = g->first; i < g->end; ++i) {
        const vgs__job *j = &cpu->job[i];
        if (j->rows)                             /* adam, ema: one row                                */
            j->rows(&j->k, 0, 1, vgs__share(j->k.cols, 16, crew.me, crew.n),
                    vgs__share(j->k.cols, 16, crew.me + 1, crew.n));
        else if (vgs__cpu_table[j->op - VGS_OP_TAP - 1].whole(cpu, &j->k, crew, &err) != VGS_OK)
            vgs__stop_after(cpu, group, &err);
    }
}

/* What one thread does of all groups. Threads wait for each other where a shared group begins or ends, after
   a failure, too: while thread 0 runs groups of its own the others cannot know of it. */
static void vgs__run_groups(vgs__cpu *cpu, int groups, vgs__crew crew)
{
    const vgs__crew alone = { 0, 1 };
    int i;
    for (i = 0; i < groups; ++i) {
        const vgs__jobs *g = &cpu->group[i];
        if (i > 0 && (g->shared || cpu->group[i - 1].shared)) vgs__crew_wait(crew);
        if ((!g->shared && crew.me) || vgs__stopped(cpu, i)) continue;
        if (g->whole) vgs__run_whole(cpu, i, g->shared ? crew : alone);
        else vgs__run_blocks(cpu, i, g->shared ? crew : alone);
    }
}

/* Where a busy machine makes threads wait for each other's core, one alone is faster: the times tell. No bit
   depends on it. */
#ifdef _OPENMP
static vgs__pace *vgs__pace_of(vgs__cpu *cpu, int groups)
{
    double cost = 0.0;
    vgs__pace *p;
    int i;
    for (i = 0; i < groups; ++i) cost += cpu->group[i].shared ? cpu->group[i].cost : 0.0;
    if (cost < VGS__FORK_NS) return NULL;
    p = &cpu->pace[(unsigned)(cost / 64.0) % 64u];
    if (p->cost != cost) {
        memset(p, 0, sizeof *p);
        p->cost = cost;
        p->wait = 64;
    }
    return p;
}

/* The faster way; the other one when its time has come. Threads get a few runs to start with. */
static int vgs__pace_choose(vgs__pace *p)
{
    int best = p->took[0] == 0.0 ? p->runs >= 3 ? 0 : 1 : p->took[1] <= p->took[0];
    if (++p->runs % p->wait) return best;
    if (p->wait < 4096) p->wait *= 2;
    return !best;
}

/* At first the shortest time counts, and a trial as it is. Of the way in use one run tells little, for it may
   have been interrupted: it moves the average by a tenth, and counts as four times that at most. */
static void vgs__pace_note(vgs__pace *p, int way, double took)
{
    int best = p->took[1] <= p->took[0];
    double *t = &p->took[way];
    if (*t == 0.0) *t = took;
    else if (p->took[0] == 0.0) *t = fmin(*t, took);
    else if (way != best) *t = took;
    else *t += 0.1 * (fmin(took, 4.0 * *t) - *t);
    if (best != (p->took[1] <= p->took[0])) p->wait = 64;
}
#endif

static vgs_status vgs__cpu_list(void *self, const vgs_call *c, int n, vgs_error *err)
{
    vgs__cpu *cpu = (vgs__cpu *)self;
    const vgs__crew alone = { 0, 1 };
    int i, groups;
#ifdef _OPENMP
    double start;
    vgs__pace *pace;
    int way;
#endif
    for (i = 0; i < n; ++i)
        if (c[i].op <= VGS_OP_TAP || c[i].op >= VGS_OP_COUNT)
            return vgs__fail(err, VGS_E_ARG, "cpu: op %d cannot be run", c[i].op);
    groups = vgs__list_make(cpu, c, n, err);
    if (groups < 0) return VGS_E_NOMEM;
    cpu->bad_job = -1;
    cpu->failures = cpu->failed = 0;
#ifdef _OPENMP
    pace = vgs__pace_of(cpu, groups);
    way = pace ? vgs__pace_choose(pace) : 0;
    start = pace ? omp_get_wtime() : 0.0;
    if (way) {
#  pragma omp parallel num_threads(cpu->threads)
        {
            vgs__crew crew;
            crew.me = omp_get_thread_num();
            crew.n = omp_get_num_threads();
            vgs__run_groups(cpu, groups, crew);
        }
    } else vgs__run_groups(cpu, groups, alone);
    if (pace) vgs__pace_note(pace, way, omp_get_wtime() - start);
#else
    vgs__run_groups(cpu, groups, alone);
#endif
    if (!cpu->failed) return VGS_OK;
    if (err) *err = cpu->error;
    return cpu->error.code;
}

static vgs_status vgs__cpu_reserve(void *self, const vgs_call *c, int n, vgs_error *err)
{
    return vgs__list_make((vgs__cpu *)self, c, n, err) < 0 ? VGS_E_NOMEM : VGS_OK;
}

VGS__DEF vgs_status vgs_cpu_run(const vgs_backend *backend, const vgs_call *call, vgs_error *err)
{
    vgs_call c = *call;
    c.group = 0;
    c.local = false;
    c.parts = c.op == VGS_OP_CHECK || !c.out.buf ? c.in[0].rows : c.out.rows;
    return vgs__cpu_list(backend->self, &c, 1, err);
}

static vgs_buffer *vgs__cpu_buffer_create(void *self, size_t n, vgs_error *err)
{
    (void)self;
    return (vgs_buffer *)vgs__alloc_or(err, "buffer", n, 4);
}

static void vgs__cpu_buffer_free(void *self, vgs_buffer *b)
{
    (void)self;
    vgs__free(b);
}

static vgs_status vgs__cpu_upload(void *self, vgs_buffer *dst, size_t offset, const void *src, size_t n,
                                  vgs_type type, vgs_error *err)
{
    (void)self;
    (void)type;
    (void)err;
    memcpy((char *)(void *)dst + 4 * offset, src, 4 * n);
    return VGS_OK;
}

static vgs_status vgs__cpu_download(void *self, void *dst, vgs_buffer *src, size_t offset, size_t n,
                                    vgs_type type, vgs_error *err)
{
    (void)self;
    (void)type;
    (void)err;
    memcpy(dst, (char *)(void *)src + 4 * offset, 4 * n);
    return VGS_OK;
}

static vgs_status vgs__cpu_op(void *self, const vgs_call *call, vgs_error *err)
{
    return vgs_cpu_run(&((vgs__cpu *)self)->base, call, err);
}

static vgs_status vgs__cpu_finish(void *self, vgs_error *err)
{
    (void)self;
    (void)err;
    return VGS_OK;
}

VGS__DEF vgs_backend *vgs_cpu_create(const vgs_cpu_config *cfg, vgs_error *err)
{
    vgs__cpu *cpu;
    int threads = cfg ? cfg->threads : 0, most = 1;
    vgs_isa isa = cfg && cfg->isa != VGS_ISA_AUTO ? cfg->isa : vgs_cpu_isa();
#ifdef _OPENMP
    most = omp_get_max_threads();
#else
    if (threads > 1) {
        vgs__fail(err, VGS_E_ARG, "cpu.threads = %d: this build has no threads; compile with -fopenmp",
                  threads);
        return NULL;
    }
#endif
    if (threads < 0 || threads > 1024) {
        vgs__fail(err, VGS_E_ARG, "cpu.threads = %d: must be 0 (all) or 1..1024", threads);
        return NULL;
    }
    if (isa != VGS_ISA_PORTABLE && !vgs__cpu_has(isa)) {
        vgs__fail(err, VGS_E_ARG, "cpu.isa = %s: not on this processor, or not in this build",
                  vgs_isa_name(isa));
        return NULL;
    }
    cpu = (vgs__cpu *)vgs__alloc_or(err, "CPU backend", 1, sizeof *cpu);
    if (!cpu) return NULL;
    cpu->threads = threads ? threads : most;
    cpu->isa = isa;
    cpu->work = (float *)vgs__alloc_or(err, "CPU backend", vgs__gemm_work(cpu->threads), sizeof *cpu->work);
    if (!cpu->work) {
        vgs__free(cpu);
        return NULL;
    }
    cpu->base.self = cpu;
    cpu->base.buffer_create = vgs__cpu_buffer_create;
    cpu->base.buffer_free = vgs__cpu_buffer_free;
    cpu->base.upload = vgs__cpu_upload;
    cpu->base.download = vgs__cpu_download;
    cpu->base.run = vgs__cpu_op;
    cpu->base.finish = vgs__cpu_finish;
    cpu->base.run_list = vgs__cpu_list;
    cpu->base.reserve = vgs__cpu_reserve;
    return &cpu->base;
}

/* Its workspace, buffers aside; it has its full size once the graphs are compiled. */
static size_t vgs__cpu_bytes(const vgs_backend *backend)
{
    const vgs__cpu *cpu = (const vgs__cpu *)backend->self;
    size_t floats = vgs__gemm_work(cpu->threads) + (size_t)cpu->threads * cpu->scratch_size +
                    cpu->packed_size;
    return sizeof *cpu + floats * sizeof(float) + (size_t)cpu->cap_job * sizeof *cpu->job +
           (size_t)cpu->cap_group * sizeof *cpu->group;
}

VGS__DEF int vgs_cpu_threads(const vgs_backend *cpu) { return ((const vgs__cpu *)cpu->self)->threads; }

VGS__DEF void vgs_cpu_free(vgs_backend *backend)
{
    vgs__cpu *cpu = backend ? (vgs__cpu *)backend->self : NULL;
    if (!cpu) return;
    vgs__free(cpu->work);
    vgs__free(cpu->scratch);
    vgs__free(cpu->packed);
    vgs__free(cpu->job);
    vgs__free(cpu->group);
    vgs__free(cpu);
}

/* ==== >>nets ======================================================================================= */

struct vgs_net {
    vgs_net_config c;
    int inner;                                   /* columns that the network inside a wrapper sees    */
    vgs_param_info *info;
    int n_info, cap_info, size;
    bool failed;                                 /* memory ran out while listing                      */
};

static void vgs__list(vgs_net *net, const char *name, const char *suffix, int rows, int cols)
{
    vgs_param_info *p;
    void *array = net->info;
    double size = (double)net->size + (double)(rows ? rows : 1) * cols;
    if (net->failed || size > 2e9 || !vgs__grow(&array, &net->cap_info, net->n_info, sizeof *net->info)) {
        net->failed = true;
        return;
    }
    net->info = (vgs_param_info *)array;
    p = &net->info[net->n_info++];
    snprintf(p->name, sizeof p->name, "%s%.40s%s", net->c.wrapper ? "net." : "", name, suffix);
    p->offset = net->size;
    p->rows = rows;
    p->cols = cols;
    net->size = (int)size;
}

static void vgs__list_linear(vgs_net *net, const char *name, int out, int in)
{
    vgs__list(net, name, ".weight", out, in);
    vgs__list(net, name, ".bias", 0, out);
}

static void vgs__list_norm(vgs_net *net, const char *name, int width)
{
    vgs__list(net, name, ".weight", 0, width);
    vgs__list(net, name, ".bias", 0, width);
}

enum { VGS__NAME = 40 };                         /* room for any name before ".weight"                */

/* PART.L */
static const char *vgs__layer_name(char name[VGS__NAME], const char *part, int l)
{
    snprintf(name, VGS__NAME, "%.12s%d", part, l);
    return name;
}

static void vgs__list_mlp(vgs_net *net)
{
    char name[VGS__NAME];
    int l, h = net->c.hidden, f = net->c.time_hidden;
    vgs__list_linear(net, "time.0", f, net->c.time_dim);
    vgs__list_linear(net, "time.2", f, f);
    for (l = 1; l <= net->c.layers; ++l) {
        vgs__list(net, vgs__layer_name(name, "fc", l), ".weight", h,
                  l == 1 ? net->inner * (1 + net->c.windows) : h);
        vgs__list_linear(net, vgs__layer_name(name, "bias", l), h, f);
    }
    vgs__list(net, "out", ".weight", 1, h);
    vgs__list_linear(net, "level", 1, f);
    if (net->c.windows) vgs__list_linear(net, "additive", net->inner * net->c.windows, f);
}

static void vgs__list_deeperv2(vgs_net *net)
{
    int h = net->c.hidden;
    vgs__list_linear(net, "fc1", h, net->inner + net->c.time_dim);
    vgs__list_linear(net, "fc2", h, h);
    vgs__list_linear(net, "fc3", h, h);
    vgs__list_linear(net, "fc4", 1, h);
}

static void vgs__list_temb(vgs_net *net)
{
    int h = net->c.hidden;
    vgs__list_linear(net, "net1.net.0", h, net->inner);
    vgs__list_linear(net, "net2.net.0", h, net->c.time_dim);
    vgs__list_linear(net, "net2.net.2", h, h);
    vgs__list_linear(net, "net2.net.4", h, h);
    vgs__list_linear(net, "net3.net.0", h, 2 * h);
    vgs__list_linear(net, "net3.net.2", h, h);
    vgs__list_linear(net, "net3.net.4", 1, h);
}

static void vgs__list_deeper(vgs_net *net, int wide)                 /* wide = 2: deeperv3             */
{
    int h = net->c.hidden, f = net->c.time_hidden;
    vgs__list_linear(net, "fc1", h, net->inner);
    vgs__list_linear(net, "fc2", wide * h, wide * h);
    vgs__list_linear(net, "fc3", h, wide * h);
    vgs__list_linear(net, "fc4", 1, h);
    vgs__list_linear(net, "temb", f, net->c.time_dim);
    vgs__list_linear(net, "temb1", h, f);
    vgs__list_linear(net, "temb2", h, f);
}

/* layers.L.PART */
static const char *vgs__part_name(char name[VGS__NAME], int l, const char *part)
{
    snprintf(name, VGS__NAME, "layers.%d.%.12s", l, part);
    return name;
}

static void vgs__list_egnn(vgs_net *net)
{
    static const struct { const char *name; int norm, out, in; } part[] = {       /* widths in units of h */
        { "edge.0", 0, 1, 0 }, { "edge.1", 1, 1, 0 }, { "edge.3", 0, 1, 1 }, { "edge.4", 1, 1, 0 },
        { "coord.0", 0, 1, 1 }, { "coord.2", 2, 0, 1 },
        { "node.0", 0, 1, 2 }, { "node.1", 1, 1, 0 }, { "node.3", 0, 1, 1 }
    };
    char name[VGS__NAME];
    int l, h = net->c.hidden;
    size_t k;
    vgs__list_linear(net, "time.0", h, net->c.time_dim);
    vgs__list_linear(net, "time.2", h, h);
    for (l = 0; l < net->c.layers; ++l)
        for (k = 0; k < sizeof part / sizeof *part; ++k) {
            if (part[k].name[0] == 'c' && !net->c.move_coordinates) continue;
            vgs__part_name(name, l, part[k].name);
            if (part[k].norm == 1) vgs__list_norm(net, name, h);
            else if (part[k].norm == 2) vgs__list(net, name, ".weight", 1, h);
            else vgs__list_linear(net, name, h, k == 0 ? 2 * h + 1 + net->c.windows : part[k].in * h);
        }
    vgs__list_linear(net, "out.0", h, h);
    vgs__list_norm(net, "out.1", h);
    vgs__list_linear(net, "out.3", 1, h);
}

/* What a field of a configuration can be: kind 'i' an integer in lo..hi, 'e' an even one, '>' a float above
   lo, '=' one of at least lo; hi is below infinity for all floats, and may be the last one below 1. */
typedef struct vgs__limit { const char *name; size_t at; char kind; double lo, hi; } vgs__limit;

static const vgs__limit vgs__net_limits[] = {
    { "dim", offsetof(vgs_net_config, dim), 'i', 1, 1000000 },
    { "hidden", offsetof(vgs_net_config, hidden), 'i', 1, 65536 },
    { "layers", offsetof(vgs_net_config, layers), 'i', 1, 1000 },
    { "time_dim", offsetof(vgs_net_config, time_dim), 'e', 4, 65536 },
    { "time_hidden", offsetof(vgs_net_config, time_hidden), 'i', 1, 65536 },
    { "windows", offsetof(vgs_net_config, windows), 'i', 0, 1024 },
    { "x_scale", offsetof(vgs_net_config, x_scale), '>', 0, (double)FLT_MAX }
};

/* "1..65535", "even, 4..65536", "> 0", ">= 0", ">= 0, < 1" */
static void vgs__limit_text(const vgs__limit *l, char text[48])
{
    if (l->kind == 'i' || l->kind == 'e')
        snprintf(text, 48, "%s%.0f..%.0f", l->kind == 'e' ? "even, " : "", l->lo, l->hi);
    else if (l->lo < -1e30) snprintf(text, 48, "finite");
    else if (l->hi == 1.0) snprintf(text, 48, "%g..1", l->lo);
    else snprintf(text, 48, "%s %g%s", l->kind == '>' ? ">" : ">=", l->lo, l->hi < 1.0 ? ", < 1" : "");
}

/* Also false for NaN. */
static bool vgs__within(const vgs__limit *l, double v)
{
    if (l->kind == 'e' && fmod(v, 2.0) != 0.0) return false;
    return (l->kind == '>' ? v > l->lo : v >= l->lo) && v <= l->hi;
}

/* of: the struct that the limits' offsets are of, owner: what messages call it */
static vgs_status vgs__check_limits(const void *of, const char *owner, const vgs__limit *l, int n,
                                    vgs_error *err)
{
    char text[48];
    int i, whole;
    float f;
    for (i = 0; i < n; ++i, ++l) {
        bool integer = l->kind == 'i' || l->kind == 'e';
        memcpy(&whole, (const char *)of + l->at, sizeof whole);
        memcpy(&f, (const char *)of + l->at, sizeof f);
        if (vgs__within(l, integer ? (double)whole : (double)f)) continue;
        vgs__limit_text(l, text);
        if (integer)
            return vgs__fail(err, VGS_E_ARG, "%s.%s = %d: must be %s", owner, l->name, whole, text);
        return vgs__fail(err, VGS_E_ARG, "%s.%s = %g: must be %s%s", owner, l->name, (double)f, text,
                         l->hi > 1.0 && l->lo > -1e30 ? " and finite" : "");
    }
    return VGS_OK;
}

enum { VGS__MAX_INPUTS = 1 << 24 };              /* columns of the first layer                        */

static vgs_status vgs__net_check(const vgs_net_config *c, vgs_error *err)
{
    double inputs;
    bool particles = c->kind == VGS_NET_EGNN || c->wrapper != VGS_WRAPPER_NONE;
    vgs_status st;
    if ((int)c->kind < VGS_NET_MLP || c->kind > VGS_NET_EGNN)
        return vgs__fail(err, VGS_E_ARG, "net.kind = %d: unknown", (int)c->kind);
    if ((int)c->wrapper < 0 || c->wrapper > VGS_WRAPPER_RECIPROCAL)
        return vgs__fail(err, VGS_E_ARG, "net.wrapper = %d: unknown", (int)c->wrapper);
    st = vgs__check_limits(c, "net", vgs__net_limits, (int)(sizeof vgs__net_limits / sizeof *vgs__net_limits),
                           err);
    if (st != VGS_OK) return st;
    if (c->windows && c->kind != VGS_NET_MLP && c->kind != VGS_NET_EGNN)
        return vgs__fail(err, VGS_E_ARG, "net.windows = %d: must be 0 with temb, deeper, deeperv2, deeperv3",
                         c->windows);
    if (particles && (c->particles < 2 || c->dim % c->particles))
        return vgs__fail(err, VGS_E_ARG, "net.particles = %d: must be >= 2 and divide dim = %d", c->particles,
                         c->dim);
    inputs = c->wrapper ? 0.5 * c->particles * (c->particles - 1.0) : c->dim;
    if (c->kind == VGS_NET_MLP && inputs * (c->windows + 1.0) > (double)VGS__MAX_INPUTS)
        return vgs__fail(err, VGS_E_ARG, "net.windows = %d: of %.0f inputs these are more than %d columns",
                         c->windows, inputs, VGS__MAX_INPUTS);
    if (c->kind == VGS_NET_EGNN && c->wrapper != VGS_WRAPPER_NONE)
        return vgs__fail(err, VGS_E_ARG, "net.wrapper = %d: an EGNN is invariant already; leave it 0",
                         (int)c->wrapper);
    return VGS_OK;
}

VGS__DEF vgs_net *vgs_net_create(const vgs_net_config *cfg, vgs_error *err)
{
    vgs_net_config c;
    vgs_net *net;
    if (!cfg) {
        vgs__fail(err, VGS_E_ARG, "net: the configuration is NULL");
        return NULL;
    }
    c = *cfg;
    if (!c.hidden) c.hidden = 128;
    if (!c.time_dim) c.time_dim = 64;
    if (!c.time_hidden) c.time_hidden = c.hidden;
    if (!c.layers) c.layers = c.kind == VGS_NET_EGNN ? 2 : 3;
    if (c.x_scale == 0.0f) c.x_scale = 1.0f;
    if (vgs__net_check(&c, err) != VGS_OK) return NULL;
    net = (vgs_net *)vgs__alloc_or(err, "net", 1, sizeof *net);
    if (!net) return NULL;
    net->c = c;
    net->inner = c.wrapper ? c.particles * (c.particles - 1) / 2 : c.dim;
    switch (c.kind) {
    case VGS_NET_MLP:      vgs__list_mlp(net); break;
    case VGS_NET_TEMB:     vgs__list_temb(net); break;
    case VGS_NET_DEEPER:   vgs__list_deeper(net, 1); break;
    case VGS_NET_DEEPERV2: vgs__list_deeperv2(net); break;
    case VGS_NET_DEEPERV3: vgs__list_deeper(net, 2); break;
    case VGS_NET_EGNN:     vgs__list_egnn(net); break;
    }
    if (net->failed) {
        vgs__fail(err, VGS_E_NOMEM, "out of memory: net of %d hidden units, %d layers", c.hidden, c.layers);
        vgs_net_free(net);
        return NULL;
    }
    return net;
}

VGS__DEF void vgs_net_free(vgs_net *net)
{
    if (!net) return;
    vgs__free(net->info);
    vgs__free(net);
}

VGS__DEF vgs_net_config vgs_net_configuration(const vgs_net *net) { return net->c; }
VGS__DEF int vgs_net_size(const vgs_net *net) { return net->size; }
VGS__DEF int vgs_net_params(const vgs_net *net) { return net->n_info; }
VGS__DEF const vgs_param_info *vgs_net_param(const vgs_net *net, int i)
{
    return i >= 0 && i < net->n_info ? &net->info[i] : NULL;
}

/* A bias follows its weight in the list; a vector that follows no matrix is a norm's gain, then its bias. */
VGS__DEF void vgs_net_init(const vgs_net *net, vgs_rng *r, float *w)
{
    int i, j;
    double bound = 0.0;
    for (i = 0; i < net->n_info; ++i) {
        const vgs_param_info *p = &net->info[i];
        bool norm = !p->rows && (i == 0 || !net->info[i - 1].rows);
        bool gain = norm && strstr(p->name, ".weight") != NULL;
        if (!p->rows && !gain && i > 0 && !net->info[i - 1].rows) norm = true;
        if (p->rows) bound = 1.0 / sqrt((double)p->cols);
        for (j = 0; j < (p->rows ? p->rows : 1) * p->cols; ++j)
            w[p->offset + j] =
                norm ? (gain ? 1.0f : 0.0f) : (float)((2.0 * vgs_rng_uniform(r) - 1.0) * bound);
    }
}

/* ---- recording ----------------------------------------------------------------------------------- */

typedef struct vgs__apply {
    vgs_graph *g;
    const vgs_net *net;
    vgs_var params, x, t;                        /* t: int [B,1]                                      */
    vgs_var sinusoid;                            /* [T,m]                                             */
} vgs__apply;

/* sin and cos of t freq_k, freq_k = exp(-k ln(10000)/(m/2 - 1)): [steps, m] */
static vgs_var vgs__sinusoid(vgs_graph *g, int steps, int m)
{
    float *x = steps > 0 ? (float *)vgs__alloc((size_t)steps * (size_t)m, sizeof *x) : NULL;
    int t, k, half = m / 2;
    vgs_var v;
    if (!x)
        return vgs__graph_fail(g, steps > 0 ? VGS_E_NOMEM : VGS_E_ARG, "net: time table of %d steps", steps);
    for (t = 0; t < steps; ++t)
        for (k = 0; k < half; ++k) {
            double a = t * exp(-k * log(10000.0) / (half - 1));
            x[t * m + k] = (float)sin(a);
            x[t * m + half + k] = (float)cos(a);
        }
    v = vgs_table(g, x, steps, m);
    vgs__free(x);
    return v;
}

static const vgs_param_info *vgs__find_param(const vgs_net *net, const char *name, const char *suffix)
{
    char full[64];
    int i;
    snprintf(full, sizeof full, "%s%s%s", net->c.wrapper ? "net." : "", name, suffix);
    for (i = 0; i < net->n_info; ++i)
        if (!strcmp(net->info[i].name, full)) return &net->info[i];
    return NULL;
}

/* Columns first .. first+n-1 of a weight (n = 0: all of them). */
static vgs_var vgs__weight(const vgs__apply *a, const char *name, int first, int n)
{
    const vgs_param_info *p = vgs__find_param(a->net, name, ".weight");
    return vgs_view(a->g, a->params, p->offset + first, p->rows ? p->rows : 1, n ? n : p->cols, p->cols);
}

static vgs_var vgs__bias(const vgs__apply *a, const char *name)
{
    const vgs_param_info *p = vgs__find_param(a->net, name, ".bias");
    return vgs_view(a->g, a->params, p->offset, 1, p->cols, p->cols);
}

static vgs_var vgs__layer(const vgs__apply *a, vgs_var x, const char *name)
{
    return vgs_linear(a->g, x, vgs__weight(a, name, 0, 0), vgs__bias(a, name));
}

/* exp(-(x/x_scale - k - first)^2/2), k < windows, of every number x [r,1]: [r,windows] */
static vgs_var vgs__record_windows(const vgs__apply *a, vgs_var x, float first)
{
    vgs_graph *g = a->g;
    int n = a->net->c.windows, k;
    float *table = (float *)vgs__alloc(2 * (size_t)n, sizeof *table);
    vgs_var slope, at, u;
    if (!table) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: net with windows = %d", n);
    for (k = 0; k < n; ++k) {
        table[k] = 1.0f / a->net->c.x_scale;
        table[n + k] = -((float)k + first);
    }
    slope = vgs_table(g, table, n, 1);
    at = vgs_table(g, table + n, 1, n);
    vgs__free(table);
    u = vgs_square(g, vgs_linear(g, x, slope, at));
    return vgs_exp(g, vgs_affine(g, u, -0.5f, 0.0f));
}

/* The windows of all columns of a->x, one column after the other: [B,D windows]; distances are positive. */
static vgs_var vgs__record_features(const vgs__apply *a)
{
    const vgs_net_config *c = &a->net->c;
    float first = c->wrapper ? 0.0f : 0.5f * (float)(1 - c->windows);
    vgs_var w = vgs__record_windows(a, vgs_reshape(a->g, a->x, 1), first);
    return vgs_reshape(a->g, w, a->net->inner * c->windows);
}

/* phi . (A te + b) / sqrt(D), a sum of functions of x_j and t */
static vgs_var vgs__record_additive(const vgs__apply *a, vgs_var phi, vgs_var te)
{
    vgs_graph *g = a->g;
    vgs_var w = vgs_gather(g, vgs__layer(a, te, "additive"), a->t);
    return vgs_affine(g, vgs_sum_cols(g, vgs_mul(g, phi, w)), 1.0f / sqrtf((float)a->net->inner), 0.0f);
}

/* u_l = act(W_l u_{l-1} + B_l te + b_l), V = w.u + level(te): te is a function of t, so its products are
   tables of the prologue, and time costs no row anything. u_0 = x, with windows [x, phi(x)], and V has an
   additive part linear in phi. A network learns slow functions of its inputs first, and a feature much
   narrower than the range of x very late [Tancik 2020]; it is a slow function of windows as narrow as
   itself, and a sum over coordinates is linear in them, which takes few iterations. */
static vgs_var vgs__apply_mlp(const vgs__apply *a)
{
    vgs_graph *g = a->g;
    const vgs_net_config *c = &a->net->c;
    char name[VGS__NAME];
    vgs_var te = vgs_silu(g, vgs__layer(a, a->sinusoid, "time.0")), u = a->x, phi = vgs__no_var(), table;
    int l;
    te = vgs_silu(g, vgs__layer(a, te, "time.2"));
    if (c->x_scale != 1.0f) u = vgs_affine(g, u, 1.0f / c->x_scale, 0.0f);
    if (c->windows) {
        phi = vgs__record_features(a);
        u = vgs_concat(g, u, phi);
    }
    for (l = 1; l <= c->layers; ++l) {
        table = vgs__layer(a, te, vgs__layer_name(name, "bias", l));
        u = vgs_linear_at(g, u, vgs__weight(a, vgs__layer_name(name, "fc", l), 0, 0), table, a->t);
        u = c->relu ? vgs_relu(g, u) : vgs_silu(g, u);
    }
    u = vgs_linear_at(g, u, vgs__weight(a, "out", 0, 0), vgs__layer(a, te, "level"), a->t);
    return c->windows ? vgs_add(g, u, vgs__record_additive(a, phi, te)) : u;
}

/* [x, sinusoid] -> h -> h -> h -> 1: the sinusoid's half of the first layer is a table over t */
static vgs_var vgs__apply_deeperv2(const vgs__apply *a)
{
    vgs_graph *g = a->g;
    int d = a->net->inner;
    vgs_var u = vgs_linear(g, a->sinusoid, vgs__weight(a, "fc1", d, a->net->c.time_dim), vgs__bias(a, "fc1"));
    u = vgs_relu(g, vgs_linear_at(g, a->x, vgs__weight(a, "fc1", 0, d), u, a->t));
    u = vgs_relu(g, vgs__layer(a, u, "fc2"));
    u = vgs_relu(g, vgs__layer(a, u, "fc3"));
    return vgs__layer(a, u, "fc4");
}

/* L1 has no activation behind it: it folds with the x half of net3.net.0 into one [h, D] matrix */
static vgs_var vgs__apply_temb(const vgs__apply *a)
{
    vgs_graph *g = a->g;
    int h = a->net->c.hidden;
    vgs_var te, wx, fold, table, u;
    te = vgs_relu(g, vgs__layer(a, a->sinusoid, "net2.net.0"));
    te = vgs_relu(g, vgs__layer(a, te, "net2.net.2"));
    te = vgs__layer(a, te, "net2.net.4");
    wx = vgs__weight(a, "net3.net.0", 0, h);
    fold = vgs_matmul(g, wx, vgs__weight(a, "net1.net.0", 0, 0));
    table = vgs_linear(g, te, vgs__weight(a, "net3.net.0", h, h),
                       vgs_linear(g, vgs__bias(a, "net1.net.0"), wx, vgs__bias(a, "net3.net.0")));
    u = vgs_relu(g, vgs_linear_at(g, a->x, fold, table, a->t));
    u = vgs_relu(g, vgs__layer(a, u, "net3.net.2"));
    return vgs__layer(a, u, "net3.net.4");
}

static vgs_var vgs__apply_deeper(const vgs__apply *a)
{
    vgs_graph *g = a->g;
    vgs_var te = vgs__layer(a, a->sinusoid, "temb"), ta, tb, u;
    ta = vgs_relu(g, vgs__layer(a, te, "temb1"));
    tb = vgs_relu(g, vgs__layer(a, te, "temb2"));
    u = vgs_add(g, vgs_relu(g, vgs__layer(a, a->x, "fc1")), vgs_gather(g, ta, a->t));
    u = vgs_relu(g, vgs__layer(a, u, "fc2"));
    u = vgs_add(g, vgs_relu(g, vgs__layer(a, u, "fc3")), vgs_gather(g, tb, a->t));
    return vgs__layer(a, u, "fc4");
}

/* The time half of fc2 is a table; fc3, the product with Tb te and fc4 are linear in u: out = u.r_t + c_t */
static vgs_var vgs__apply_deeperv3(const vgs__apply *a)
{
    vgs_graph *g = a->g;
    int h = a->net->c.hidden;
    vgs_var te = vgs__layer(a, a->sinusoid, "temb"), ta, table, wt, r, c, u;
    ta = vgs_relu(g, vgs__layer(a, te, "temb1"));
    table = vgs_linear(g, ta, vgs__weight(a, "fc2", h, h), vgs__bias(a, "fc2"));
    wt = vgs_mul(g, vgs__layer(a, te, "temb2"), vgs__weight(a, "fc4", 0, 0));      /* w4 * Tb te [T,h] */
    r = vgs_matmul(g, wt, vgs__weight(a, "fc3", 0, 0));                            /* [T,2h]           */
    c = vgs_linear(g, wt, vgs__bias(a, "fc3"), vgs__bias(a, "fc4"));               /* [T,1]            */
    u = vgs_relu(g, vgs__layer(a, a->x, "fc1"));
    u = vgs_relu(g, vgs_linear_at(g, u, vgs__weight(a, "fc2", 0, h), table, a->t));
    return vgs_add(g, vgs_sum_cols(g, vgs_mul(g, u, vgs_gather(g, r, a->t))), vgs_gather(g, c, a->t));
}

/* ---- EGNN: n points, m = n(n-1) directed edges (i,j), i outermost ------------------------------- */

typedef struct vgs__edges { int n, m; int32_t *from, *to, *pair, *zero; } vgs__edges;

static bool vgs__make_edges(vgs__edges *e, int n)
{
    int i, j, k = 0;
    e->n = n;
    e->m = n * (n - 1);
    e->from = (int32_t *)vgs__alloc((size_t)e->m * 4, sizeof *e->from);
    if (!e->from) return false;
    e->to = e->from + e->m;
    e->pair = e->to + e->m;
    e->zero = e->pair + e->m;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            int a = i < j ? i : j, b = i < j ? j : i;
            if (i == j) continue;
            e->from[k] = i;
            e->to[k] = j;
            e->pair[k++] = a * n - a * (a + 1) / 2 + b - a - 1;
        }
    return true;
}

static vgs_var vgs__norm_silu(const vgs__apply *a, vgs_var x, const char *name)
{
    const vgs_param_info *p = vgs__find_param(a->net, name, ".weight");
    return vgs_silu(a->g, vgs_layernorm(a->g, x, vgs_view(a->g, a->params, p->offset, 1, p->cols, p->cols),
                                        vgs__bias(a, name)));
}

/* x_i += 1/(n-1) sum_j (x_i - x_j) w_ij;  x: [B, n d] */
static vgs_var vgs__move(const vgs__apply *a, const vgs__edges *e, vgs_var x, vgs_var message, int l)
{
    vgs_graph *g = a->g;
    int dim = a->net->c.dim;
    char name[VGS__NAME];
    vgs_var node = vgs_reshape(g, x, dim / e->n), w, from, to, diff;
    w = vgs_silu(g, vgs__layer(a, message, vgs__part_name(name, l, "coord.0")));
    w = vgs_linear(g, w, vgs__weight(a, vgs__part_name(name, l, "coord.2"), 0, 0), vgs__no_var());
    from = vgs_segment_gather(g, node, e->n, e->from, e->m);
    to = vgs_segment_gather(g, node, e->n, e->to, e->m);
    diff = vgs_segment_sum(g, vgs_mul(g, vgs_sub(g, from, to), w), e->n, e->from, e->m);
    return vgs_add(g, x, vgs_reshape(g, vgs_affine(g, diff, 1.0f / (float)(e->n - 1), 0.0f), dim));
}

/* What a message sees of a distance r [m,1]: r^2, and smooth windows x_scale wide, so that the width of a
   steep wall need not be learned. */
static vgs_var vgs__record_distance(const vgs__apply *a, vgs_var r)
{
    vgs_var r2 = vgs_square(a->g, r);
    return a->net->c.windows ? vgs_concat(a->g, r2, vgs__record_windows(a, r, 0.0f)) : r2;
}

/* One round. In the first, all nodes of a sample are alike and depend on t alone: h0 [T,h] and what is
   made of it are tables, h is absent, and both directions of a pair have the same message, which is computed
   once. The first layer of phi_e splits into the two ends and r^2.
   Calls that record are never two arguments of one call: C leaves their order open, and with it the order
   in which gradients are added. */
static vgs_var vgs__round(const vgs__apply *a, const vgs__edges *e, int l, vgs_var *x, vgs_var h, vgs_var h0)
{
    vgs_graph *g = a->g;
    int w = a->net->c.hidden;
    char name[VGS__NAME];
    vgs_var r2, u, message, agg, wi, wj, wr, wh, wm, t_node = vgs__no_var();
    r2 = vgs__record_distance(a, vgs_reshape(g, vgs_pair_distance(g, *x, e->n), 1));
    if (l > 0) r2 = vgs_segment_gather(g, r2, e->m / 2, e->pair, e->m);
    vgs__part_name(name, l, "edge.0");
    wi = vgs__weight(a, name, 0, w);
    wj = vgs__weight(a, name, w, w);
    wr = vgs__weight(a, name, 2 * w, 1 + a->net->c.windows);
    if (l == 0) {
        vgs_var p = vgs_linear(g, h0, wi, vgs__bias(a, name)), q = vgs_linear(g, h0, wj, vgs__no_var());
        vgs_var table = vgs_add(g, p, q), t_edge = vgs_segment_gather(g, a->t, 1, e->zero, e->m / 2);
        u = vgs_linear_at(g, r2, wr, table, t_edge);
        t_node = vgs_segment_gather(g, a->t, 1, e->zero, e->n);
    } else {
        vgs_var p = vgs_linear(g, h, wi, vgs__bias(a, name)), q = vgs_linear(g, h, wj, vgs__no_var());
        p = vgs_segment_gather(g, p, e->n, e->from, e->m);
        q = vgs_segment_gather(g, q, e->n, e->to, e->m);
        u = vgs_add(g, p, q);
        u = vgs_add(g, u, vgs_linear(g, r2, wr, vgs__no_var()));
    }
    vgs__part_name(name, l, "edge.1");
    u = vgs__norm_silu(a, u, name);
    vgs__part_name(name, l, "edge.3");
    u = vgs__layer(a, u, name);
    vgs__part_name(name, l, "edge.4");
    message = vgs__norm_silu(a, u, name);
    if (l == 0) message = vgs_segment_gather(g, message, e->m / 2, e->pair, e->m);
    if (a->net->c.move_coordinates && l + 1 < a->net->c.layers) *x = vgs__move(a, e, *x, message, l);
    agg = vgs_segment_sum(g, message, e->n, e->from, e->m);
    vgs__part_name(name, l, "node.0");
    wh = vgs__weight(a, name, 0, w);
    wm = vgs__weight(a, name, w, w);
    if (l == 0) u = vgs_linear_at(g, agg, wm, vgs_linear(g, h0, wh, vgs__bias(a, name)), t_node);
    else {
        vgs_var p = vgs_linear(g, h, wh, vgs__bias(a, name)), q = vgs_linear(g, agg, wm, vgs__no_var());
        u = vgs_add(g, p, q);
    }
    vgs__part_name(name, l, "node.1");
    u = vgs__norm_silu(a, u, name);
    vgs__part_name(name, l, "node.3");
    if (l == 0) h = vgs_gather(g, h0, t_node);
    u = vgs__layer(a, u, name);
    return vgs_add(g, h, u);
}

static vgs_var vgs__apply_egnn(const vgs__apply *a)
{
    vgs_graph *g = a->g;
    vgs__edges e;
    vgs_var h0, h = vgs__no_var(), x = a->x, u;
    int l;
    if (!vgs__make_edges(&e, a->net->c.particles))
        return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: EGNN edges");
    h0 = vgs__layer(a, vgs_silu(g, vgs__layer(a, a->sinusoid, "time.0")), "time.2");
    for (l = 0; l < a->net->c.layers; ++l) h = vgs__round(a, &e, l, &x, h, h0);
    u = vgs_segment_sum(g, h, 1, e.zero, e.n);
    u = vgs__norm_silu(a, vgs__layer(a, u, "out.0"), "out.1");
    vgs__free(e.from);
    return vgs__layer(a, u, "out.3");
}

VGS__DEF vgs_var vgs_net_apply(vgs_graph *g, const vgs_net *net, vgs_var params, vgs_var x, vgs_var t,
                               int steps)
{
    vgs__apply a;
    int rows, cols;
    vgs_shape(g, params, &rows, &cols);
    if (cols != net->size)
        return vgs__graph_fail(g, VGS_E_SHAPE, "net: params has %d numbers, the net %d", cols, net->size);
    vgs_shape(g, x, &rows, &cols);
    if (cols != net->c.dim)
        return vgs__graph_fail(g, VGS_E_SHAPE, "net: x has %d columns, net.dim = %d", cols, net->c.dim);
    a.g = g;
    a.net = net;
    a.params = params;
    a.x = x;
    a.t = t;
    a.sinusoid = vgs__sinusoid(g, steps, net->c.time_dim);
    if (net->c.wrapper) {
        a.x = vgs_sort_cols(g, vgs_pair_distance(g, x, net->c.particles));
        a.x = vgs_sqrt(g, vgs_affine(g, vgs_square(g, a.x), 1.0f, 1.0f));
        if (net->c.wrapper == VGS_WRAPPER_RECIPROCAL) a.x = vgs_reciprocal(g, a.x);
    }
    switch (net->c.kind) {
    case VGS_NET_MLP:      return vgs__apply_mlp(&a);
    case VGS_NET_TEMB:     return vgs__apply_temb(&a);
    case VGS_NET_DEEPER:   return vgs__apply_deeper(&a);
    case VGS_NET_DEEPERV2: return vgs__apply_deeperv2(&a);
    case VGS_NET_DEEPERV3: return vgs__apply_deeperv3(&a);
    case VGS_NET_EGNN:     return vgs__apply_egnn(&a);
    }
    return vgs__no_var();
}

/* ==== >>targets: energies ========================================================================== */

#define VGS__LN_2PI    1.8378770664093453         /* log(2 pi)                                          */
#define VGS__MAX_MODES 40
#define VGS__MAX_N     55                         /* particles of a built-in target                     */

typedef struct vgs__mixture { int modes; double variance; const double (*centre)[2]; } vgs__mixture;

static const double vgs__centre4[4][2] = { {-2, -2}, {-2, 2}, {2, -2}, {2, 2} };

static const double vgs__centre9[9][2] = {
    {-5, -5}, {-5, 0}, {-5, 5},   {0, -5}, {0, 0}, {0, 5},   {5, -5}, {5, 0}, {5, 5}
};

static const double vgs__centre25[25][2] = {
    {-10, -10}, {-10, -5}, {-10, 0}, {-10, 5}, {-10, 10},
    { -5, -10}, { -5, -5}, { -5, 0}, { -5, 5}, { -5, 10},
    {  0, -10}, {  0, -5}, {  0, 0}, {  0, 5}, {  0, 10},
    {  5, -10}, {  5, -5}, {  5, 0}, {  5, 5}, {  5, 10},
    { 10, -10}, { 10, -5}, { 10, 0}, { 10, 5}, { 10, 10}
};

/* Uniform in [-40,40]^2, drawn by torch's generator with seed 0: the set of FAB and iDEM. */
static const double vgs__centre40[40][2] = {
    {-0.299473, 21.457745}, {-32.921806, -29.437561}, {-15.406175, 10.726295}, {-0.792527, 31.715580},
    {-3.549762, 10.584502}, {-12.088523, -7.862616}, {-38.213940, -26.491283}, {-16.488924, 1.481743},
    {15.813408, 24.000912}, {-27.117643, -17.418514}, {14.528685, 33.215519}, {-8.232007, 29.932470},
    {-6.447334, 4.232564}, {36.219048, -37.106815}, {-25.181519, -10.126610}, {-15.591998, 34.560032},
    {-25.927185, -18.413315}, {-27.945618, -37.462440}, {-23.349619, 34.383923}, {17.848736, 19.386902},
    {2.103662, -20.507339}, {6.767387, -37.347790}, {-28.902649, -20.621201}, {25.237518, 23.452850},
    {-17.739801, -1.443295}, {25.582428, 39.765324}, {15.875287, 5.403714}, {26.819454, -23.552094},
    {7.453761, -31.012220}, {-27.723446, -20.663342}, {18.098923, 16.086416}, {-23.694099, 12.084284},
    {21.958881, -5.048695}, {1.527262, 9.268188}, {24.815063, 38.407764}, {-30.824944, -14.658790},
    {15.720396, 33.141975}, {34.808292, 35.294270}, {7.960582, -34.783306}, {3.679700, -25.024214},
};

static const vgs__mixture vgs__four_gauss = {  4, 0.13, vgs__centre4 };
static const vgs__mixture vgs__gmm9       = {  9, 0.3,  vgs__centre9 };
static const vgs__mixture vgs__gmm25      = { 25, 0.3,  vgs__centre25 };
static const vgs__mixture vgs__gmm40      = { 40, 1.7246562599032103, vgs__centre40 };  /* log(1 + e)^2 */

/* Energies take VGS__SIDE rows side by side, one a lane of arrays [...][VGS__SIDE], and the last few one by
   one: the functions below are inlined with `lanes` constant, once for any processor and once for AVX2. Every
   row sees the same operations. */
#define VGS__SIDE 8
#ifndef VGS__AVX2
#  define VGS__AVX2
#endif
typedef void vgs__side_fn(const float *x, float *e, float *g);

#define VGS__SIDE_ENERGY(name, columns, inlined, what)                                                       \
    VGS__HOT static void name##_c(const float *x, float *e, float *g) { inlined(what, VGS__SIDE, x, e, g); } \
    VGS__HOT VGS__AVX2 static void name##_avx2(const float *x, float *e, float *g)                           \
    { inlined(what, VGS__SIDE, x, e, g); }                                                                   \
    static int name(void *user, const float *x, int n, int dim, float *e, float *g)                          \
    {                                                                                                        \
        vgs__side_fn *side = vgs__cpu_has(VGS_ISA_AVX2) ? name##_avx2 : name##_c;                            \
        const int step = VGS__SIDE * columns;                                                                \
        (void)user;                                                                                          \
        (void)dim;                                                                                           \
        for (; n >= VGS__SIDE; n -= VGS__SIDE, x += step, e += VGS__SIDE, g = g ? g + step : NULL)           \
            side(x, e, g);                                                                                   \
        for (; n > 0; --n, x += columns, ++e, g = g ? g + columns : NULL) inlined(what, 1, x, e, g);         \
        return 0;                                                                                            \
    }

/* E = -log mean_k N(x; c_k, v I), dE/dx = (x - m)/v with m the mean of the c_k weighted by their share in x.
   q_k = |x - c_k|^2/(2v); the smallest is taken out before exp, so that no sum underflows to log 0. In
   double, because q overflows a float at |x| = 1e19 and E should then be large or inf, not NaN. */
VGS__INLINE void vgs__mixture_energy(const vgs__mixture *m, int lanes, const float *x, float *e, float *g)
{
    double q[VGS__MAX_MODES][VGS__SIDE], a[VGS__SIDE], b[VGS__SIDE], least[VGS__SIDE], sum[VGS__SIDE],
           ma[VGS__SIDE], mb[VGS__SIDE], half = 0.5 / m->variance;
    double base = log((double)m->modes) + VGS__LN_2PI + log(m->variance);
    float w[VGS__MAX_MODES * VGS__SIDE];
    int k, l;
    for (l = 0; l < lanes; ++l) {
        a[l] = (double)x[2 * l];
        b[l] = (double)x[2 * l + 1];
        least[l] = HUGE_VAL;
        sum[l] = ma[l] = mb[l] = 0.0;
    }
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) {
            double da = a[l] - m->centre[k][0], db = b[l] - m->centre[k][1];
            q[k][l] = (da * da + db * db) * half;
        }
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) least[l] = q[k][l] < least[l] ? q[k][l] : least[l];
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) w[k * lanes + l] = (float)(least[l] - q[k][l]);
    for (k = 0; k < m->modes * lanes; ++k)       /* below e^-87, next to 1 nothing, processors are slow */
        w[k] = vgs__exp(vgs__pick(w[k] < -87.0f, -87.0f, w[k]));
    for (k = 0; k < m->modes; ++k)
        for (l = 0; l < lanes; ++l) {
            double share = (double)w[k * lanes + l];
            sum[l] += share;
            ma[l] += share * m->centre[k][0];
            mb[l] += share * m->centre[k][1];
        }
    for (l = 0; l < lanes; ++l) {
        e[l] = (float)(least[l] - (double)vgs__log((float)sum[l]) + base);
        if (!g) continue;
        g[2 * l] = (float)(2.0 * half * (a[l] - ma[l] / sum[l]));
        g[2 * l + 1] = (float)(2.0 * half * (b[l] - mb[l] / sum[l]));
    }
}

VGS__SIDE_ENERGY(vgs__four_gauss_energy, 2, vgs__mixture_energy, &vgs__four_gauss)
VGS__SIDE_ENERGY(vgs__gmm9_energy, 2, vgs__mixture_energy, &vgs__gmm9)
VGS__SIDE_ENERGY(vgs__gmm25_energy, 2, vgs__mixture_energy, &vgs__gmm25)
VGS__SIDE_ENERGY(vgs__gmm40_energy, 2, vgs__mixture_energy, &vgs__gmm40)

/* x1 ~ N(0, 9), the others given x1 ~ N(0, exp(x1)). exp(-x1) is held below inf: 0 * inf is NaN. */
static int vgs__funnel_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, k, rest = dim - 1;
    double base = 0.5 * (dim * VGS__LN_2PI + log(9.0));
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        double a = (double)x[0], s = 0.0, p = (double)vgs__exp(x[0] < -88.0f ? 88.0f : -x[0]);
        for (k = 1; k < dim; ++k) s += (double)x[k] * (double)x[k];
        e[i] = (float)(a * a / 18.0 + 0.5 * (s * p + rest * a) + base);
        if (g) {
            float *gi = g + (size_t)i * (size_t)dim;
            gi[0] = (float)(a / 9.0 + 0.5 * (rest - s * p));
            for (k = 1; k < dim; ++k) gi[k] = (float)((double)x[k] * p);
        }
    }
    return 0;
}

/* Independent wells in (a, b): a^4 - 6 a^2 - a/2 + b^2/2. */
static int vgs__manywell_energy(void *user, const float *x, int n, int dim, float *e, float *g)
{
    int i, k;
    (void)user;
    for (i = 0; i < n; ++i, x += dim) {
        float *gi = g ? g + (size_t)i * (size_t)dim : NULL;
        double sum = 0.0;
        for (k = 0; k < dim; k += 2) {
            double a = (double)x[k], b = (double)x[k + 1];
            sum += ((a * a - 6.0) * a - 0.5) * a + 0.5 * b * b;
            if (gi) {
                gi[k] = (float)((4.0 * a * a - 12.0) * a - 0.5);
                gi[k + 1] = x[k + 1];
            }
        }
        e[i] = (float)sum;
    }
    return 0;
}

enum vgs__kind { VGS__MIX = 1, VGS__FUNNEL, VGS__MANYWELL, VGS__DW, VGS__LJ };

typedef struct vgs__builtin { enum vgs__kind kind; const vgs__mixture *mixture; } vgs__builtin;

/* Energy u of one unordered pair, of its squared distance s and distance r (of which LJ has no use), and its
   slope du/ds, finite at s = 0, where the direction is lost. LJ: s^-6 - 2 s^-3, twice because the sum runs
   over ordered pairs; 1e-6 keeps it finite at s = 0. */
VGS__INLINE double vgs__pair_at(enum vgs__kind kind, double s, double r, double *slope)
{
    if (kind == VGS__LJ) {
        double i2 = 1.0 / (s + 1e-6), i6 = i2 * i2 * i2;
        *slope = 12.0 * i6 * (1.0 - i6) * i2;
        return 2.0 * i6 * (i6 - 2.0);
    } else {
        double z = r - 4.0, z2 = z * z;
        *slope = (1.8 * z2 - 4.0) * z / (r + (double)(r == 0.0));
        return (0.9 * z2 - 4.0) * z2;
    }
}
VGS__INLINE double vgs__pair(enum vgs__kind kind, double s)
{
    double slope;
    return vgs__pair_at(kind, s, kind == VGS__DW ? sqrt(s) : 0.0, &slope);
}

typedef struct vgs__bodies { enum vgs__kind kind; int n, d; } vgs__bodies;
typedef double vgs__place3[3][VGS__SIDE];        /* of one particle in every lane                      */

/* Sums the energies of all pairs and, if asked for, their slopes; each pair is visited once and pulls on both
   of its ends. */
VGS__INLINE void vgs__pairs(vgs__bodies z, int lanes, bool slopes, vgs__place3 *p, vgs__place3 *f,
                            double *sum)
{
    double r[VGS__SIDE] = { 0 };
    int i, j, l;
    for (i = 0; i < z.n; ++i) {
        vgs__place3 at, own;                     /* of particle i: nothing else lies there, compilers see */
        memcpy(at, p[i], sizeof at);
        memcpy(own, f[i], sizeof own);
        for (j = i + 1; j < z.n; ++j) {
            for (l = 0; l < lanes && z.kind == VGS__DW; ++l) {
                double dx = at[0][l] - p[j][0][l], dy = at[1][l] - p[j][1][l], dz = at[2][l] - p[j][2][l];
                r[l] = sqrt(dx * dx + dy * dy + dz * dz);
            }
            for (l = 0; l < lanes; ++l) {
                double dx = at[0][l] - p[j][0][l], dy = at[1][l] - p[j][1][l], dz = at[2][l] - p[j][2][l];
                double slope;
                sum[l] += vgs__pair_at(z.kind, dx * dx + dy * dy + dz * dz, r[l], &slope);
                if (!slopes) continue;
                own[0][l] += 2.0 * slope * dx;
                own[1][l] += 2.0 * slope * dy;
                own[2][l] += 2.0 * slope * dz;
                f[j][0][l] -= 2.0 * slope * dx;
                f[j][1][l] -= 2.0 * slope * dy;
                f[j][2][l] -= 2.0 * slope * dz;
            }
        }
        memcpy(f[i], own, sizeof own);
    }
}

/* Pair energies of n particles in d dimensions (2 or 3; in 2 the third coordinate is 0) and, for LJ, half the
   squared distance to their mean. Inlined with `z` constant. Each pair is visited once and pulls on both of
   its ends. */
VGS__INLINE void vgs__cluster(vgs__bodies z, int lanes, const float *x, float *e, float *g)
{
    double p[VGS__MAX_N][3][VGS__SIDE], f[VGS__MAX_N][3][VGS__SIDE], sum[VGS__SIDE] = { 0 };
    const double pull = z.kind == VGS__LJ ? 1.0 : 0.0;
    const int n = z.n, d = z.d, dim = n * d;
    int i, k, l;
    for (k = 0; k < 3; ++k) {
        double mean[VGS__SIDE] = { 0 };
        for (i = 0; i < n && k < d; ++i)
            for (l = 0; l < lanes; ++l) mean[l] += (double)x[l * dim + i * d + k] / n;
        for (i = 0; i < n; ++i)
            for (l = 0; l < lanes; ++l) {
                p[i][k][l] = k < d ? (double)x[l * dim + i * d + k] - mean[l] : 0.0;
                f[i][k][l] = pull * p[i][k][l];
                sum[l] += 0.5 * f[i][k][l] * p[i][k][l];
            }
    }
    if (g) vgs__pairs(z, lanes, true, p, f, sum);
    else vgs__pairs(z, lanes, false, p, f, sum);
    for (l = 0; l < lanes; ++l) {
        e[l] = (float)sum[l];
        for (i = 0; i < (g ? n : 0); ++i)
            for (k = 0; k < d; ++k) g[l * dim + i * d + k] = (float)f[i][k][l];
    }
}

static const vgs__bodies vgs__dw4 = { VGS__DW, 4, 2 }, vgs__lj13 = { VGS__LJ, 13, 3 },
                         vgs__lj55 = { VGS__LJ, 55, 3 };
VGS__SIDE_ENERGY(vgs__dw4_energy, 8, vgs__cluster, vgs__dw4)
VGS__SIDE_ENERGY(vgs__lj13_energy, 39, vgs__cluster, vgs__lj13)
VGS__SIDE_ENERGY(vgs__lj55_energy, 165, vgs__cluster, vgs__lj55)
#undef VGS__SIDE_ENERGY

/* ==== >>targets: the table ========================================================================= */

static const vgs__builtin vgs__builtins[9] = {
    { VGS__MIX, &vgs__four_gauss }, { VGS__MIX, &vgs__gmm9 }, { VGS__MIX, &vgs__gmm25 },
    { VGS__MIX, &vgs__gmm40 }, { VGS__FUNNEL, NULL }, { VGS__MANYWELL, NULL },
    { VGS__DW, NULL }, { VGS__LJ, NULL }, { VGS__LJ, NULL }
};

/* 16 (log integral of exp(-a^4 + 6 a^2 + a/2) + log(2 pi)/2), by quadrature */
#define VGS__MANYWELL_LOG_Z 164.69567531318162

static const vgs_target vgs__targets[9] = {
    /* name, summary, D, n, d, energy, user, exact, log Z known, log Z, modes, length, plot, builtin */
    { "four-gauss", "4 Gaussians at (+-2, +-2), variance 0.13", 2, 0, 0,
      vgs__four_gauss_energy, NULL, true, true, 0.0, 4, 2.0, 4.0, &vgs__builtins[0] },
    { "gmm9", "9 Gaussians on a 3 x 3 grid of spacing 5, variance 0.3", 2, 0, 0,
      vgs__gmm9_energy, NULL, true, true, 0.0, 9, 4.1, 8.0, &vgs__builtins[1] },
    { "gmm25", "25 Gaussians on a 5 x 5 grid of spacing 5, variance 0.3", 2, 0, 0,
      vgs__gmm25_energy, NULL, true, true, 0.0, 25, 7.1, 13.0, &vgs__builtins[2] },
    { "gmm40", "40 Gaussians at random places of [-40, 40]^2, std 1.313", 2, 0, 0,
      vgs__gmm40_energy, NULL, true, true, 0.0, 40, 23.0, 48.0, &vgs__builtins[3] },
    { "funnel", "Neal's funnel in 10 dimensions: std 3, then variance exp(x1)", 10, 0, 0,
      vgs__funnel_energy, NULL, true, true, 0.0, 0, 3.0, 0.0, &vgs__builtins[4] },
    { "manywell32", "16 tilted double wells, 2 dimensions each", 32, 0, 0,
      vgs__manywell_energy, NULL, true, true, VGS__MANYWELL_LOG_Z, 0, 1.7, 0.0, &vgs__builtins[5] },
    { "dw4", "4 particles in 2-D with double-well pair energies", 8, 4, 2,
      vgs__dw4_energy, NULL, false, false, 0.0, 0, 2.0, 0.0, &vgs__builtins[6] },
    { "lj13", "13 Lennard-Jones particles in 3-D, in a harmonic trap", 39, 13, 3,
      vgs__lj13_energy, NULL, false, false, 0.0, 0, 0.8, 0.0, &vgs__builtins[7] },
    { "lj55", "55 Lennard-Jones particles in 3-D, in a harmonic trap", 165, 55, 3,
      vgs__lj55_energy, NULL, false, false, 0.0, 0, 1.2, 0.0, &vgs__builtins[8] }
};

VGS__DEF const vgs_target *vgs_target_at(int i)
{
    return i >= 0 && i < 9 ? &vgs__targets[i] : NULL;
}

VGS__DEF const vgs_target *vgs_target_find(const char *name)
{
    int i;
    for (i = 0; name && i < 9; ++i)
        if (!strcmp(vgs__targets[i].name, name)) return &vgs__targets[i];
    return NULL;
}

VGS__DEF double vgs_target_std(const vgs_target *t, int i)
{
    double mean = 0.0, square = 0.0;
    int k;
    if (!t->builtin || i < 0 || i >= t->dim) return (double)vgs__from_bits(0x7FC00000u);
    switch (t->builtin->kind) {
    case VGS__MIX:
        for (k = 0; k < t->modes; ++k) {
            double c = t->builtin->mixture->centre[k][i];
            mean += c / t->modes;
            square += c * c / t->modes;
        }
        return sqrt(t->builtin->mixture->variance + square - mean * mean);
    case VGS__FUNNEL:
        return i ? 9.4877358363585262 : 3.0;                          /* sqrt E[exp(x1)] = exp(9/4) */
    case VGS__MANYWELL:
        return i & 1 ? 1.0 : 1.2444094151302507;                      /* by quadrature */
    default:
        return (double)vgs__from_bits(0x7FC00000u);
    }
}

VGS__DEF void vgs_target_mode(const vgs_target *t, int k, float *x)
{
    if (!t->builtin || !t->builtin->mixture || k < 0 || k >= t->modes) return;
    x[0] = (float)t->builtin->mixture->centre[k][0];
    x[1] = (float)t->builtin->mixture->centre[k][1];
}

/* ==== >>targets: exact samples ===================================================================== */

static void vgs__sample_mixture(const vgs__mixture *m, vgs_rng *r, float *x)
{
    const double *c = m->centre[vgs_rng_below(r, (uint32_t)m->modes)];
    double sd = sqrt(m->variance);
    vgs_rng_normals(r, x, 2);
    x[0] = (float)(c[0] + sd * (double)x[0]);
    x[1] = (float)(c[1] + sd * (double)x[1]);
}

static void vgs__sample_funnel(vgs_rng *r, int dim, float *x)
{
    float sd;
    int k;
    vgs_rng_normals(r, x, (size_t)dim);
    x[0] *= 3.0f;
    sd = vgs__exp(0.5f * x[0]);
    for (k = 1; k < dim; ++k) x[k] *= sd;
}

/* One draw of p(a) ~ exp(-(a^2 - 3)^2 + a/2). On the side of sign s, with m = sqrt 3,
   (a^2 - 3)^2 = (s a - m)^2 (s a + m)^2 >= 3 (s a - m)^2, so p lies under a Gaussian of variance 1/6 round
   s m + 1/12 of mass ~ exp(s m/2). Rejection from the two is exact; it takes about two trials. */
static float vgs__sample_well(vgs_rng *r)
{
    const double m = 1.7320508075688772, right = 0.84967455308983850;  /* 1/(1 + exp(-m)) */
    double s, a, u, v;
    float z;
    do {
        s = vgs_rng_uniform(r) < right ? 1.0 : -1.0;
        vgs_rng_normals(r, &z, 1);
        a = s * m + 1.0 / 12.0 + 0.40824829046386302 * (double)z;
        u = a * a - 3.0;
        v = s * a - m;
    } while (s * a < 0.0 || vgs_rng_uniform(r) >= (double)vgs__exp((float)(3.0 * v * v - u * u)));
    return (float)a;
}

VGS__DEF vgs_status vgs_target_sample(const vgs_target *t, vgs_rng *r, int n, float *x, vgs_error *err)
{
    int i, k;
    if (n < 0) return vgs__fail(err, VGS_E_ARG, "vgs_target_sample: n = %d: must not be negative", n);
    if (!t->exact_samples || !t->builtin)
        return vgs__fail(err, VGS_E_ARG, "%s has no exact samples: vgs_target_reference and vgs_metropolis "
                         "make others", t->name);
    for (i = 0; i < n; ++i, x += t->dim)
        switch (t->builtin->kind) {
        case VGS__MIX:    vgs__sample_mixture(t->builtin->mixture, r, x); break;
        case VGS__FUNNEL: vgs__sample_funnel(r, t->dim, x); break;
        default:
            vgs_rng_normals(r, x, (size_t)t->dim);
            for (k = 0; k < t->dim; k += 2) x[k] = vgs__sample_well(r);
        }
    return VGS_OK;
}

/* ==== >>metropolis ================================================================================= */

#define VGS__WINDOW       20                      /* sweeps between two corrections of the step         */
#define VGS__ACCEPT       0.3                     /* share of moves that should be accepted             */
#define VGS__LEAP         5.0                     /* how much longer a long move is                     */
#define VGS__CHAIN_STREAM 0x4D0000u               /* chain c draws from this stream + c                 */

static int vgs__team(int threads)                 /* 0 = all; 1 without OpenMP                          */
{
#ifdef _OPENMP
    return threads > 0 ? threads : omp_get_max_threads();
#else
    (void)threads;
    return 1;
#endif
}

static vgs_rng vgs__chain_rng(uint64_t seed, int chain)
{
    vgs_rng r;
    r.seed = seed;
    r.stream = VGS__CHAIN_STREAM + (uint32_t)chain;
    r.pos = 0;
    return r;
}

/* Temperature of sweep s: falls geometrically from hot tau to tau in 0.6 of the burn-in, then stays. */
static double vgs__temperature(const vgs_metropolis_config *c, int s)
{
    double part = (double)s / (0.6 * c->burn_in + 1.0);
    return part < 1.0 ? c->tau * pow(c->hot, 1.0 - part) : c->tau;
}

static double vgs__fit_step(double step, double rate, double scale)
{
    double s = step * exp(rate - VGS__ACCEPT);
    s = s < 1e-6 * scale ? 1e-6 * scale : s;
    return s > 1e3 * scale ? 1e3 * scale : s;
}

/* Shifts n points so that their mean is 0. */
static void vgs__centre_points(int n, double p[][3])
{
    int i, k;
    for (k = 0; k < 3; ++k) {
        double mean = 0.0;
        for (i = 0; i < n; ++i) mean += p[i][k];
        mean /= n;
        for (i = 0; i < n; ++i) p[i][k] -= mean;
    }
}

/* u(|b - p_j|) - u(|a - p_j|), summed over all j but i. */
VGS__INLINE double vgs__rise(enum vgs__kind kind, int n, double p[][3], int i, const double *a,
                             const double *b)
{
    double sum = 0.0;
    int j;
    for (j = 0; j < n; ++j) {
        double ax = a[0] - p[j][0], ay = a[1] - p[j][1], az = a[2] - p[j][2];
        double bx = b[0] - p[j][0], by = b[1] - p[j][1], bz = b[2] - p[j][2];
        if (j == i) continue;
        sum += vgs__pair(kind, bx * bx + by * by + bz * bz)
             - vgs__pair(kind, ax * ax + ay * ay + az * az);
    }
    return sum;
}

/* One move of each particle in turn, uniform in a cube, at temperature tau; returns the number accepted.
   Every fourth move or so leaps five times as far: dw4, whose pairs must hop from well to well, then
   decorrelates ten times sooner. The trap is (sum |p|^2 - |sum p|^2/n)/2; `drift` is sum p, 0 at first. One
   random block serves one move: three words for the place, the fourth to leap (2 bits) and to accept (24). */
VGS__INLINE int vgs__sweep(enum vgs__kind kind, int n, int d, double p[][3], double step, double tau,
                           vgs_rng *r)
{
    double drift[3] = { 0.0, 0.0, 0.0 }, to[3] = { 0.0, 0.0, 0.0 }, reach, rise, u;
    int i, k, accepted = 0;
    vgs__centre_points(n, p);
    for (i = 0; i < n; ++i) {
        uint32_t w[4];
        vgs__rng_block(r, w);
        reach = w[3] & 3 ? step : VGS__LEAP * step;
        for (rise = 0.0, k = 0; k < d; ++k) {
            double move = reach * (((double)w[k] + 0.5) * (1.0 / 2147483648.0) - 1.0);
            to[k] = p[i][k] + move;
            if (kind == VGS__LJ) rise += move * (0.5 * (to[k] + p[i][k]) - (drift[k] + 0.5 * move) / n);
        }
        rise += vgs__rise(kind, n, p, i, p[i], to);
        u = ((double)(w[3] >> 8) + 0.5) * (1.0 / 16777216.0);
        if (!(u < (double)vgs__exp((float)(-rise / tau)))) continue;
        for (k = 0; k < d; ++k) {
            drift[k] += to[k] - p[i][k];
            p[i][k] = to[k];
        }
        accepted++;
    }
    return accepted;
}

static int vgs__sweep_any(const vgs_target *t, double p[][3], double step, double tau, vgs_rng *r)
{
    if (t->builtin->kind == VGS__DW) return vgs__sweep(VGS__DW, 4, 2, p, step, tau, r);
    if (t->particles == 13) return vgs__sweep(VGS__LJ, 13, 3, p, step, tau, r);
    return vgs__sweep(VGS__LJ, 55, 3, p, step, tau, r);
}

/* One chain of a built-in cluster: burns in, then fills rows chain, chain + chains, ... of x [n,dim].
   Returns the share of moves accepted after burn-in. */
static double vgs__cluster_chain(const vgs_metropolis_config *c, int chain, int n, float *x)
{
    const vgs_target *t = c->target;
    double p[VGS__MAX_N][3], step = c->step, accepted = 0.0, moves = 0.0;
    float start[3 * VGS__MAX_N];
    vgs_rng r = vgs__chain_rng(c->seed, chain);
    int i, k, s, window = 0, d = t->space_dim;
    vgs_rng_normals(&r, start, (size_t)t->dim);
    for (k = 0; k < t->dim; ++k) start[k] *= (float)t->length_scale;
    if (c->start) memcpy(start, c->start + (size_t)chain * (size_t)t->dim, (size_t)t->dim * sizeof(float));
    memset(p, 0, sizeof p);
    for (k = 0; k < t->dim; ++k) p[k / d][k % d] = (double)start[k];
    for (s = 0; s < c->burn_in; ++s) {
        window += vgs__sweep_any(t, p, step, vgs__temperature(c, s), &r);
        if ((s + 1) % VGS__WINDOW) continue;
        step = vgs__fit_step(step, (double)window / (VGS__WINDOW * t->particles), t->length_scale);
        window = 0;
    }
    for (i = chain; i < n; i += c->chains) {
        float *row = x + (size_t)i * (size_t)t->dim;
        for (s = 0; s < c->thin; ++s) accepted += vgs__sweep_any(t, p, step, c->tau, &r);
        moves += (double)c->thin * t->particles;
        vgs__centre_points(t->particles, p);
        for (k = 0; k < t->dim; ++k) row[k] = (float)p[k / d][k % d];
    }
    return accepted / moves;
}

static void vgs__cluster_chains(const vgs_metropolis_config *c, int n, float *x, vgs_metropolis_stats *stats)
{
    double accepted = 0.0, sweeps = 0.0;
    int i, team = vgs__team(c->threads);
    double rate[1024];
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team) schedule(dynamic)
#endif
    for (i = 0; i < c->chains; ++i) rate[i] = vgs__cluster_chain(c, i, n, x);
    for (i = 0; i < c->chains; ++i) accepted += rate[i] / c->chains;
    sweeps = (double)c->burn_in * c->chains + (double)c->thin * n;
    stats->acceptance = accepted;
    stats->energy_calls = 4.0 * sweeps;           /* n moves of 2(n-1) terms are 4 times n(n-1)/2 */
}

/* State of the chains that move together: x, y [chains,dim] are where they are and where they might go. */
typedef struct vgs__batch {
    float   *x, *y, *ex, *ey;
    double  *step;
    int     *accepted;            /* moves taken since the last look */
    vgs_rng *rng;
} vgs__batch;

static void vgs__batch_free(vgs__batch *b)
{
    vgs__free(b->x);
    vgs__free(b->y);
    vgs__free(b->ex);
    vgs__free(b->ey);
    vgs__free(b->step);
    vgs__free(b->accepted);
    vgs__free(b->rng);
}

/* y = scale * N(0, I) for one chain; particles: of mean 0. */
static void vgs__batch_noise(const vgs_target *t, vgs_rng *r, double scale, float *y)
{
    int i, k, n = t->particles, d = t->space_dim;
    vgs_rng_normals(r, y, (size_t)t->dim);
    for (i = 0; i < t->dim; ++i) y[i] = (float)(scale * (double)y[i]);
    for (k = 0; k < (n ? d : 0); ++k) {
        double mean = 0.0;
        for (i = 0; i < n; ++i) mean += (double)y[i * d + k];
        for (i = 0; i < n; ++i) y[i * d + k] = (float)((double)y[i * d + k] - mean / n);
    }
}

static vgs_status vgs__batch_energy(const vgs_metropolis_config *c, const float *x, float *e, vgs_error *err)
{
    const vgs_target *t = c->target;
    if (t->eval(t->user, x, c->chains, t->dim, e, NULL))
        return vgs__fail(err, VGS_E_ENERGY, "metropolis: the energy callback failed");
    return VGS_OK;
}

static vgs_status vgs__batch_open(const vgs_metropolis_config *c, vgs__batch *b, vgs_error *err)
{
    const vgs_target *t = c->target;
    size_t chains = (size_t)c->chains, dim = (size_t)t->dim;
    int i;
    memset(b, 0, sizeof *b);
    b->x = (float *)vgs__alloc_or(err, "metropolis", chains * dim, sizeof(float));
    b->y = (float *)vgs__alloc_or(err, "metropolis", chains * dim, sizeof(float));
    b->ex = (float *)vgs__alloc_or(err, "metropolis", chains, sizeof(float));
    b->ey = (float *)vgs__alloc_or(err, "metropolis", chains, sizeof(float));
    b->step = (double *)vgs__alloc_or(err, "metropolis", chains, sizeof(double));
    b->accepted = (int *)vgs__alloc_or(err, "metropolis", chains, sizeof(int));
    b->rng = (vgs_rng *)vgs__alloc_or(err, "metropolis", chains, sizeof(vgs_rng));
    if (!b->x || !b->y || !b->ex || !b->ey || !b->step || !b->accepted || !b->rng) return VGS_E_NOMEM;
    for (i = 0; i < c->chains; ++i) {
        float *xi = b->x + (size_t)i * dim;
        b->rng[i] = vgs__chain_rng(c->seed, i);
        b->step[i] = c->step;
        vgs__batch_noise(t, &b->rng[i], t->length_scale > 0.0 ? t->length_scale : 1.0, xi);
        if (c->start) memcpy(xi, c->start + (size_t)i * dim, dim * sizeof(float));
    }
    return vgs__batch_energy(c, b->x, b->ex, err);
}

/* One move of every chain. From an energy that is not finite every finite one is accepted. */
static vgs_status vgs__batch_move(const vgs_metropolis_config *c, vgs__batch *b, double tau, vgs_error *err)
{
    size_t dim = (size_t)c->target->dim, k;
    int i;
    for (i = 0; i < c->chains; ++i) {
        float *xi = b->x + (size_t)i * dim, *yi = b->y + (size_t)i * dim;
        vgs__batch_noise(c->target, &b->rng[i], b->step[i], yi);
        for (k = 0; k < dim; ++k) yi[k] += xi[k];
    }
    if (vgs__batch_energy(c, b->y, b->ey, err)) return VGS_E_ENERGY;
    for (i = 0; i < c->chains; ++i) {
        double u = vgs_rng_uniform(&b->rng[i]), rise = (double)b->ey[i] - (double)b->ex[i];
        bool lost = !(fabs((double)b->ex[i]) <= (double)FLT_MAX) && fabs((double)b->ey[i]) <= (double)FLT_MAX;
        if (!lost && !(u < (double)vgs__exp((float)(-rise / tau)))) continue;
        memcpy(b->x + (size_t)i * dim, b->y + (size_t)i * dim, dim * sizeof(float));
        b->ex[i] = b->ey[i];
        b->accepted[i]++;
    }
    return VGS_OK;
}

static vgs_status vgs__batch_run(const vgs_metropolis_config *c, int n, float *x, vgs__batch *b,
                                 vgs_metropolis_stats *stats, vgs_error *err)
{
    size_t dim = (size_t)c->target->dim;
    double accepted = 0.0, scale = c->target->length_scale > 0.0 ? c->target->length_scale : 1.0;
    int i, s, row, rounds = (n + c->chains - 1) / c->chains;
    for (s = 0; s < c->burn_in; ++s) {
        if (vgs__batch_move(c, b, vgs__temperature(c, s), err)) return VGS_E_ENERGY;
        for (i = 0; i < c->chains && (s + 1) % VGS__WINDOW == 0; ++i) {
            b->step[i] = vgs__fit_step(b->step[i], (double)b->accepted[i] / VGS__WINDOW, scale);
            b->accepted[i] = 0;
        }
    }
    memset(b->accepted, 0, (size_t)c->chains * sizeof(int));
    for (row = 0; row < n; row += c->chains) {
        size_t rows = (size_t)(n - row < c->chains ? n - row : c->chains);
        for (s = 0; s < c->thin; ++s)
            if (vgs__batch_move(c, b, c->tau, err)) return VGS_E_ENERGY;
        memcpy(x + (size_t)row * dim, b->x, rows * dim * sizeof(float));
    }
    for (i = 0; i < c->chains; ++i) accepted += b->accepted[i];
    stats->acceptance = accepted / ((double)rounds * c->thin * c->chains);
    stats->energy_calls = (double)c->chains * (1.0 + c->burn_in + (double)rounds * c->thin);
    return VGS_OK;
}

/* Mean energy of x and its standard error from the chains' means: rows i modulo chains are one chain. */
static vgs_status vgs__chain_energies(const vgs_metropolis_config *c, int n, const float *x,
                                      vgs_metropolis_stats *stats, vgs_error *err)
{
    const vgs_target *t = c->target;
    float *e = (float *)vgs__alloc_or(err, "metropolis", (size_t)n, sizeof(float));
    double mean = 0.0, square = 0.0, chains = c->chains;
    int i, k;
    if (!e) return VGS_E_NOMEM;
    if (t->eval(t->user, x, n, t->dim, e, NULL)) {
        vgs__free(e);
        return vgs__fail(err, VGS_E_ENERGY, "metropolis: the energy callback failed");
    }
    for (i = 0; i < n; ++i) mean += (double)e[i] / n;
    for (k = 0; k < c->chains; ++k) {
        double own = 0.0;
        int count = 0;
        for (i = k; i < n; i += c->chains, ++count) own += (double)e[i];
        own = own / count - mean;
        square += own * own;
    }
    stats->energy_mean = mean;
    stats->energy_error = sqrt(square / (chains * (chains > 1.0 ? chains - 1.0 : 0.0)));
    vgs__free(e);
    return VGS_OK;
}

static vgs_status vgs__metropolis_check(vgs_metropolis_config *c, int n, vgs_error *err)
{
    const vgs_target *t = c->target;
    if (!t || !t->eval || t->dim < 1)
        return vgs__fail(err, VGS_E_ARG, "metropolis: config.target is missing, or has no energy or no dim");
    if (n < 1) return vgs__fail(err, VGS_E_ARG, "metropolis: n = %d: must be > 0", n);
    if (t->particles && t->particles * t->space_dim != t->dim)
        return vgs__fail(err, VGS_E_ARG, "metropolis: target has %d particles in %d dimensions, but dim = %d",
                         t->particles, t->space_dim, t->dim);
    if (c->chains == 0) c->chains = 64;
    if (c->burn_in == 0) c->burn_in = 4000;
    if (c->thin == 0) c->thin = 50;
    if (c->tau == 0.0) c->tau = 1.0;
    if (c->hot == 0.0) c->hot = 4.0;
    if (c->step == 0.0) c->step = t->length_scale > 0.0 ? 0.5 * t->length_scale : 0.5;
    if (c->chains < 1 || c->chains > 1024)
        return vgs__fail(err, VGS_E_ARG, "metropolis: config.chains = %d: must be in 1..1024", c->chains);
    if (c->burn_in < 1 || c->thin < 1)
        return vgs__fail(err, VGS_E_ARG, "metropolis: config.burn_in = %d, config.thin = %d: must be > 0",
                         c->burn_in, c->thin);
    if (!(c->tau > 0.0 && c->tau < 1e30 && c->step > 0.0 && c->step < 1e30 && c->hot >= 1.0 && c->hot < 1e30))
        return vgs__fail(err, VGS_E_ARG, "metropolis: config.tau = %g, config.step = %g must be > 0 and "
                         "config.hot = %g >= 1", c->tau, c->step, c->hot);
    if (c->chains > n) c->chains = n;
    return VGS_OK;
}

VGS__DEF vgs_status vgs_metropolis(const vgs_metropolis_config *cfg, int n, float *x,
                                   vgs_metropolis_stats *stats, vgs_error *err)
{
    vgs_metropolis_config c = *cfg;
    vgs_metropolis_stats own;
    vgs_status status = vgs__metropolis_check(&c, n, err);
    vgs__batch b;
    if (status) return status;
    memset(&own, 0, sizeof own);
    if (c.target->builtin && c.target->particles) {
        vgs__cluster_chains(&c, n, x, &own);
    } else {
        status = vgs__batch_open(&c, &b, err);
        if (!status) status = vgs__batch_run(&c, n, x, &b, &own, err);
        vgs__batch_free(&b);
    }
    if (!status && stats) status = vgs__chain_energies(&c, n, x, &own, err);
    if (!status && stats) *stats = own;
    return status;
}

/* ==== >>targets: references ======================================================================== */

#define VGS__MAX_SPACE      8                     /* largest d of particles that can be shuffled        */
#define VGS__SHUFFLE_STREAM 0x5F0000u             /* streams from here on turn and permute              */

/* q [d,d]: a random rotation or reflection, the rows of Gaussian numbers made orthonormal (Gram-Schmidt). */
static void vgs__random_frame(vgs_rng *r, int d, double *q)
{
    float z[VGS__MAX_SPACE * VGS__MAX_SPACE];
    int i, j, k;
    vgs_rng_normals(r, z, (size_t)(d * d));
    for (i = 0; i < d; ++i) {
        double dot, norm = 0.0;
        for (k = 0; k < d; ++k) q[i * d + k] = (double)z[i * d + k];
        for (j = 0; j < i; ++j) {
            for (dot = 0.0, k = 0; k < d; ++k) dot += q[i * d + k] * q[j * d + k];
            for (k = 0; k < d; ++k) q[i * d + k] -= dot * q[j * d + k];
        }
        for (k = 0; k < d; ++k) norm += q[i * d + k] * q[i * d + k];
        for (k = 0; k < d; ++k) q[i * d + k] /= sqrt(norm);
    }
}

/* y = x [n,d], turned, reflected and permuted at random; not in place. */
static void vgs__shuffle(const vgs_target *t, vgs_rng *r, const float *x, float *y)
{
    double q[VGS__MAX_SPACE * VGS__MAX_SPACE];
    int i, j, k, n = t->particles, d = t->space_dim;
    vgs__random_frame(r, d, q);
    for (i = 0; i < n; ++i)
        for (j = 0; j < d; ++j) {
            double s = 0.0;
            for (k = 0; k < d; ++k) s += q[j * d + k] * (double)x[i * d + k];
            y[i * d + j] = (float)s;
        }
    for (i = n - 1; i > 0; --i) {
        int other = (int)vgs_rng_below(r, (uint32_t)i + 1u);
        for (k = 0; k < d; ++k) {
            float keep = y[i * d + k];
            y[i * d + k] = y[other * d + k];
            y[other * d + k] = keep;
        }
    }
}

/* Chains turn and exchange particles slowly, so the rows of one chain resemble each other. The energy cares
   about neither, so a random shuffle makes the rows as independent as their shapes are. */
static void vgs__shuffle_rows(const vgs_target *t, uint64_t seed, int n, float *x)
{
    float y[3 * VGS__MAX_N];
    vgs_rng r = vgs__chain_rng(seed, 0);
    int i;
    r.stream = VGS__SHUFFLE_STREAM;
    for (i = 0; i < n; ++i, x += t->dim) {
        vgs__shuffle(t, &r, x, y);
        memcpy(x, y, (size_t)t->dim * sizeof(float));
    }
}

VGS__DEF vgs_status vgs_target_reference(const vgs_target *t, uint64_t seed, int n, float *x, int threads,
                                         vgs_error *err)
{
    vgs_rng r = vgs__chain_rng(seed, 0);
    vgs_metropolis_config c;
    vgs_status status;
    if (t->exact_samples) return vgs_target_sample(t, &r, n, x, err);
    memset(&c, 0, sizeof c);
    c.target = t;
    c.seed = seed;
    c.threads = threads;
    c.thin = t->dim <= 8 ? 250 : t->dim <= 39 ? 400 : 1000;          /* dw4, lj13, lj55: decorrelated     */
    c.burn_in = t->dim <= 39 ? 4000 : 10000;
    status = vgs_metropolis(&c, n, x, NULL, err);
    if (!status && t->builtin) vgs__shuffle_rows(t, seed, n, x);
    return status;
}

/* ==== >>mcmc: state ================================================================================ */

#define VGS__MAX_LEVELS 128

VGS__DEF const char *vgs_mcmc_method_name(int i)
{
    static const char *const names[] = { "hmc", "mala", "metropolis", "lmc", "pt" };
    return i >= 0 && i < 5 ? names[i] : NULL;
}

/* What a random number is for: the top byte of the third counter word. */
enum vgs__mcmc_use {
    VGS__MC_START = 0xE0, VGS__MC_NOISE, VGS__MC_ACCEPT, VGS__MC_LENGTH, VGS__MC_SWAP, VGS__MC_RESAMPLE
};

/* Fits log step so that the mean acceptance becomes what is aimed at [Hoffman and Gelman 2014, (6)]. */
typedef struct vgs__dual { double centre, error, average; int t; } vgs__dual;

/* A level: its beta, its step, and what its moves did since vgs__mcmc_forget. */
typedef struct vgs__level { double beta, step; vgs__dual dual; } vgs__level;

/* Everything of one replica but its place: row [level * chains + chain]. */
typedef struct vgs__replica {
    double ex, ey;                /* energies of x and y                                              */
    double start;                 /* Hamiltonian before the move                                      */
    double alpha, alpha_sum;      /* acceptance probability of the last move; of all moves            */
    double refused;               /* sum over moves of the probability that a swap upwards is refused */
    double top, weights;          /* sum of exp((beta - beta above) V) is weights exp(top)            */
    int    trip;                  /* travels with x: 1 = came from the bottom, 2 = from the top then  */
} vgs__replica;

typedef struct vgs__ladder {      /* what belongs to a chain as a whole */
    double calls, gradient_calls;
    double trips;
} vgs__ladder;

/* x, g [levels, chains, dim]: places and gradients there; y, gy where a move leads; p momenta. */
typedef struct vgs__mcmc {
    vgs_mcmc_config c;
    const char     *name;         /* of the function that was called, for messages                    */
    vgs_mcmc_method local;
    int             levels, space;               /* space: coordinates of a particle, 0 for points    */
    double          dim_effective;
    bool            adapting;
    uint64_t        at;           /* iterations so far                                                */
    double          counted;      /* iterations since vgs__mcmc_forget                                */
    float          *x, *g, *y, *gy, *p;
    vgs__replica   *row;
    vgs__ladder    *ladder;
    vgs__level      level[VGS__MAX_LEVELS];
} vgs__mcmc;

static vgs_status vgs__mcmc_open(vgs__mcmc *m, int levels, vgs_error *err)
{
    size_t chains = (size_t)m->c.chains, rows = chains * (size_t)levels, all = rows * (size_t)m->c.energy.dim;
    bool fits = (double)rows * m->c.energy.dim < 2e9;
    m->levels = levels;
    m->x = fits ? (float *)vgs__alloc(all, sizeof(float)) : NULL;
    m->g = m->x ? (float *)vgs__alloc(all, sizeof(float)) : NULL;
    m->y = m->g ? (float *)vgs__alloc(all, sizeof(float)) : NULL;
    m->gy = m->y ? (float *)vgs__alloc(all, sizeof(float)) : NULL;
    m->p = m->gy ? (float *)vgs__alloc(all, sizeof(float)) : NULL;
    m->row = m->p ? (vgs__replica *)vgs__alloc(rows, sizeof *m->row) : NULL;
    m->ladder = m->row ? (vgs__ladder *)vgs__alloc(chains, sizeof *m->ladder) : NULL;
    if (m->ladder) return VGS_OK;
    return vgs__fail(err, VGS_E_NOMEM, "out of memory: %s of %d chains, %d levels and dim = %d", m->name,
                     m->c.chains, levels, m->c.energy.dim);
}

static void vgs__mcmc_close(vgs__mcmc *m)
{
    vgs__free(m->x);
    vgs__free(m->g);
    vgs__free(m->y);
    vgs__free(m->gy);
    vgs__free(m->p);
    vgs__free(m->row);
    vgs__free(m->ladder);
    m->x = m->g = m->y = m->gy = m->p = NULL;
    m->row = NULL;
    m->ladder = NULL;
}

static int vgs__mcmc_row(const vgs__mcmc *m, int level, int chain) { return level * m->c.chains + chain; }
static float *vgs__mcmc_at(const vgs__mcmc *m, float *v, int row)
{
    return v + (size_t)row * (size_t)m->c.energy.dim;
}

static void vgs__mcmc_words(const vgs__mcmc *m, int use, uint64_t at, int level, int chain, int block,
                            uint32_t w[4])
{
    vgs__philox((uint32_t)m->c.seed, (uint32_t)(m->c.seed >> 32), (uint32_t)chain, (uint32_t)at,
                (uint32_t)use << 24 | ((uint32_t)(at >> 32) & 0xFFFFFFu),
                (uint32_t)level << 24 | (uint32_t)block, w);
}

static double vgs__mcmc_uniform(const vgs__mcmc *m, int use, uint64_t at, int level, int chain)
{
    uint32_t w[4];
    vgs__mcmc_words(m, use, at, level, chain, 0, w);
    return ((double)w[0] + 0.5) * (1.0 / 4294967296.0);
}

/* x [n,d]: subtracts the mean point; d = 0: nothing to do. */
static void vgs__mcmc_centre(const vgs__mcmc *m, float *x)
{
    int i, k, n = m->c.energy.particles, d = m->space;
    for (k = 0; k < d; ++k) {
        double mean = 0.0;
        for (i = 0; i < n; ++i) mean += (double)x[i * d + k];
        for (mean /= n, i = 0; i < n; ++i) x[i * d + k] = (float)((double)x[i * d + k] - mean);
    }
}

/* out [dim] ~ N(0, scale^2), mean-free for particles */
static void vgs__mcmc_normals(const vgs__mcmc *m, int use, uint64_t at, int level, int chain, double scale,
                              float *out)
{
    int i, k, dim = m->c.energy.dim;
    for (i = 0; i < dim; i += 4) {
        uint32_t w[4];
        float z[4];
        vgs__mcmc_words(m, use, at, level, chain, i / 4, w);
        vgs__normal4(w, z);
        for (k = 0; k < 4 && i + k < dim; ++k) out[i + k] = (float)(scale * (double)z[k]);
    }
    vgs__mcmc_centre(m, out);
}

static double vgs__square(const float *x, int n)
{
    double s = 0.0;
    int i;
    for (i = 0; i < n; ++i) s += (double)x[i] * (double)x[i];
    return s;
}

/* Energies ey of y, and gradients gy, in rows first..first+n. What is not finite becomes +inf. */
static vgs_status vgs__mcmc_energy(vgs__mcmc *m, int first, int n, bool gradient, vgs_error *err)
{
    enum { BLOCK = 64 };
    float rounded[BLOCK];
    double e[BLOCK];
    int i, j, rows;
    vgs_status status = VGS_OK;
    for (i = 0; i < n && !status; i += rows) {
        rows = n - i < BLOCK ? n - i : BLOCK;
        status = vgs__energy_block(&m->c.energy, vgs__mcmc_at(m, m->y, first + i), rows, rounded, e,
                                   gradient ? vgs__mcmc_at(m, m->gy, first + i) : NULL, err);
        for (j = 0; j < rows && !status; ++j)
            m->row[first + i + j].ey = fabs(e[j]) <= (double)FLT_MAX ? e[j] : HUGE_VAL;
    }
    return status;
}

/* V of exp(-U0 - beta V), the densities of a ladder: V = E/tau - U0, U0 = |x|^2/(2 length_scale^2). */
static double vgs__mcmc_rise(const vgs__mcmc *m, const float *x, double e)
{
    double s = m->c.length_scale;
    return e / m->c.tau - 0.5 * vgs__square(x, m->c.energy.dim) / (s * s);
}

static double vgs__mcmc_potential(const vgs__mcmc *m, int level, const float *x, double e)
{
    double s = m->c.length_scale, beta = m->level[level].beta;
    if (beta == 1.0) return e / m->c.tau;
    return beta * e / m->c.tau + (1.0 - beta) * 0.5 * vgs__square(x, m->c.energy.dim) / (s * s);
}

/* ==== >>mcmc: moves ================================================================================ */

/* Takes y of a row with probability min(1, exp(start - end)). */
static void vgs__mcmc_accept(vgs__mcmc *m, uint64_t at, int level, int chain, double end)
{
    int row = vgs__mcmc_row(m, level, chain);
    vgs__replica *r = &m->row[row];
    size_t bytes = (size_t)m->c.energy.dim * sizeof(float);
    double rise = end - r->start;
    bool finite = r->ey <= (double)FLT_MAX;
    r->alpha = finite && rise < 700.0 ? exp(rise > 0.0 ? -rise : 0.0) : 0.0;
    r->alpha_sum += r->alpha;
    if (!finite) return;
    if (m->c.method != VGS_LMC && vgs__mcmc_uniform(m, VGS__MC_ACCEPT, at, level, chain) >= r->alpha) return;
    vgs__mcmc_centre(m, vgs__mcmc_at(m, m->y, row));                 /* rounding must not add up      */
    memcpy(vgs__mcmc_at(m, m->x, row), vgs__mcmc_at(m, m->y, row), bytes);
    memcpy(vgs__mcmc_at(m, m->g, row), vgs__mcmc_at(m, m->gy, row), bytes);
    r->ex = r->ey;
}

/* y = x + step N(0, I) */
static vgs_status vgs__mcmc_walk(vgs__mcmc *m, uint64_t at, int level, int c0, int c1, vgs_error *err)
{
    int c, i, dim = m->c.energy.dim;
    for (c = c0; c < c1; ++c) {
        int row = vgs__mcmc_row(m, level, c);
        const float *x = vgs__mcmc_at(m, m->x, row);
        float *y = vgs__mcmc_at(m, m->y, row);
        vgs__mcmc_normals(m, VGS__MC_NOISE, at, level, c, m->level[level].step, y);
        for (i = 0; i < dim; ++i) y[i] += x[i];
        m->row[row].start = vgs__mcmc_potential(m, level, x, m->row[row].ex);
    }
    if (vgs__mcmc_energy(m, vgs__mcmc_row(m, level, c0), c1 - c0, false, err)) return VGS_E_ENERGY;
    for (c = c0; c < c1; ++c) {
        int row = vgs__mcmc_row(m, level, c);
        vgs__mcmc_accept(m, at, level, c,
                         vgs__mcmc_potential(m, level, vgs__mcmc_at(m, m->y, row), m->row[row].ey));
        m->ladder[c].calls += 1.0;
    }
    return VGS_OK;
}

/* p -= (step/2) F(y), F the gradient of the potential, cut to the length 2 (sqrt(D) + 4)/step; none where it
   is not finite. */
static void vgs__mcmc_kick(vgs__mcmc *m, int level, int row)
{
    const float *y = vgs__mcmc_at(m, m->y, row), *gy = vgs__mcmc_at(m, m->gy, row);
    float *p = vgs__mcmc_at(m, m->p, row);
    double s = m->c.length_scale, beta = m->level[level].beta, step = m->level[level].step;
    double of_g = beta / m->c.tau, of_y = (1.0 - beta) / (s * s), norm = 0.0, limit;
    int i, dim = m->c.energy.dim;
    for (i = 0; i < dim; ++i) {
        double f = of_g * (double)gy[i] + of_y * (double)y[i];
        norm += f * f;
    }
    norm = sqrt(norm);
    if (!(norm <= DBL_MAX)) return;
    limit = 2.0 * (sqrt(m->dim_effective) + 4.0) / step;
    step *= norm > limit ? 0.5 * limit / norm : 0.5;
    for (i = 0; i < dim; ++i)
        p[i] = (float)((double)p[i] - step * (of_g * (double)gy[i] + of_y * (double)y[i]));
}

/* `steps` leapfrog steps from a fresh momentum; the Hamiltonian is the potential + |p|^2/2. */
static vgs_status vgs__mcmc_leap(vgs__mcmc *m, uint64_t at, int level, int c0, int c1, int steps,
                                 vgs_error *err)
{
    size_t bytes = (size_t)m->c.energy.dim * sizeof(float);
    double step = m->level[level].step;
    int c, i, s, dim = m->c.energy.dim, first = vgs__mcmc_row(m, level, 0);
    for (c = c0; c < c1; ++c) {
        float *x = vgs__mcmc_at(m, m->x, first + c), *p = vgs__mcmc_at(m, m->p, first + c);
        memcpy(vgs__mcmc_at(m, m->y, first + c), x, bytes);
        memcpy(vgs__mcmc_at(m, m->gy, first + c), vgs__mcmc_at(m, m->g, first + c), bytes);
        vgs__mcmc_normals(m, VGS__MC_NOISE, at, level, c, 1.0, p);
        m->row[first + c].start =
            vgs__mcmc_potential(m, level, x, m->row[first + c].ex) + 0.5 * vgs__square(p, dim);
    }
    for (s = 0; s < steps; ++s) {
        for (c = c0; c < c1; ++c) {
            float *y = vgs__mcmc_at(m, m->y, first + c);
            const float *p = vgs__mcmc_at(m, m->p, first + c);
            vgs__mcmc_kick(m, level, first + c);
            for (i = 0; i < dim; ++i) y[i] = (float)((double)y[i] + step * (double)p[i]);
        }
        if (vgs__mcmc_energy(m, first + c0, c1 - c0, true, err)) return VGS_E_ENERGY;
        for (c = c0; c < c1; ++c) vgs__mcmc_kick(m, level, first + c);
    }
    for (c = c0; c < c1; ++c) {
        double kinetic = 0.5 * vgs__square(vgs__mcmc_at(m, m->p, first + c), dim);
        float *y = vgs__mcmc_at(m, m->y, first + c);
        vgs__mcmc_accept(m, at, level, c, kinetic + vgs__mcmc_potential(m, level, y, m->row[first + c].ey));
        m->ladder[c].calls += steps;
        m->ladder[c].gradient_calls += steps;
    }
    return VGS_OK;
}

/* beta = 0: x is drawn anew from N(0, length_scale^2). No gradient is needed there. */
static vgs_status vgs__mcmc_renew(vgs__mcmc *m, uint64_t at, int c0, int c1, vgs_error *err)
{
    int c;
    for (c = c0; c < c1; ++c)
        vgs__mcmc_normals(m, VGS__MC_NOISE, at, 0, c, m->c.length_scale, vgs__mcmc_at(m, m->y, c));
    if (vgs__mcmc_energy(m, c0, c1 - c0, m->local != VGS_METROPOLIS, err)) return VGS_E_ENERGY;
    memcpy(vgs__mcmc_at(m, m->x, c0), vgs__mcmc_at(m, m->y, c0),
           (size_t)(c1 - c0) * (size_t)m->c.energy.dim * sizeof(float));
    memcpy(vgs__mcmc_at(m, m->g, c0), vgs__mcmc_at(m, m->gy, c0),
           (size_t)(c1 - c0) * (size_t)m->c.energy.dim * sizeof(float));
    for (c = c0; c < c1; ++c) {
        m->row[c].ex = m->row[c].ey;
        m->ladder[c].calls += 1.0;
        m->ladder[c].gradient_calls += m->local != VGS_METROPOLIS;
    }
    return VGS_OK;
}

/* Leapfrog steps of iteration `at`: the same for all chains, and no function of where they are. */
static int vgs__mcmc_length(const vgs__mcmc *m, uint64_t at)
{
    int most = 2 * m->c.leapfrog - 1;
    if (m->local != VGS_HMC || most < 2) return 1;
    return 1 + (int)(vgs__mcmc_uniform(m, VGS__MC_LENGTH, at, 0, 0) * most);
}

/* Energy calls of iteration `at`. */
static double vgs__mcmc_price(const vgs__mcmc *m, uint64_t at)
{
    double moved = m->levels - (m->c.method == VGS_PT);
    return m->c.chains * (moved * vgs__mcmc_length(m, at) + (m->c.method == VGS_PT));
}

/* ==== >>mcmc: ladders ============================================================================== */

static void vgs__mcmc_exchange(vgs__mcmc *m, int a, int b)
{
    float *xa = vgs__mcmc_at(m, m->x, a), *xb = vgs__mcmc_at(m, m->x, b);
    float *ga = vgs__mcmc_at(m, m->g, a), *gb = vgs__mcmc_at(m, m->g, b), f;
    vgs__replica *ra = &m->row[a], *rb = &m->row[b];
    double e = ra->ex;
    int i, trip = ra->trip;
    for (i = 0; i < m->c.energy.dim; ++i) {
        f = xa[i];
        xa[i] = xb[i];
        xb[i] = f;
        f = ga[i];
        ga[i] = gb[i];
        gb[i] = f;
    }
    ra->ex = rb->ex;
    rb->ex = e;
    ra->trip = rb->trip;
    rb->trip = trip;
}

/* Adds the weight exp((beta_k - beta_{k+1}) V), which may be 0, to the stepping stone of a row. */
static void vgs__mcmc_stone(vgs__replica *r, double v)
{
    if (!(v >= -DBL_MAX)) return;
    if (v > r->top) {
        r->weights = r->weights * exp(r->top - v) + 1.0;
        r->top = v;
    } else r->weights += exp(v - r->top);
}

/* Every pair of neighbours counts how often it would be refused; the even or the odd pairs do swap. */
static void vgs__mcmc_swap(vgs__mcmc *m, uint64_t at, int chain)
{
    double v[VGS__MAX_LEVELS];
    int k, top = m->levels - 1;
    vgs__ladder *l = &m->ladder[chain];
    for (k = 0; k <= top; ++k) {
        int row = vgs__mcmc_row(m, k, chain);
        v[k] = vgs__mcmc_rise(m, vgs__mcmc_at(m, m->x, row), m->row[row].ex);
    }
    for (k = 0; k < top; ++k) {
        double gap = m->level[k + 1].beta - m->level[k].beta, rise = gap * (v[k] - v[k + 1]);
        double accept = rise < 700.0 ? exp(rise > 0.0 ? -rise : 0.0) : 0.0;
        vgs__replica *r = &m->row[vgs__mcmc_row(m, k, chain)];
        r->refused += 1.0 - accept;
        vgs__mcmc_stone(r, -gap * v[k]);
    }
    for (k = (int)(at & 1); k < top; k += 2) {
        double rise = (m->level[k + 1].beta - m->level[k].beta) * (v[k] - v[k + 1]);
        if (rise > 0.0 && !(vgs__mcmc_uniform(m, VGS__MC_SWAP, at, k, chain) < exp(-rise))) continue;
        vgs__mcmc_exchange(m, vgs__mcmc_row(m, k, chain), vgs__mcmc_row(m, k + 1, chain));
    }
    l->trips += m->row[vgs__mcmc_row(m, 0, chain)].trip == 2;
    m->row[vgs__mcmc_row(m, 0, chain)].trip = 1;
    if (m->row[vgs__mcmc_row(m, top, chain)].trip == 1) m->row[vgs__mcmc_row(m, top, chain)].trip = 2;
}

/* Betas [wanted] at equal steps of the summed rates of refusal, refused [levels - 1], between the old betas.
   Between two of them the sum is taken as linear in log beta; from 0 on in beta, unless nothing passes there:
   then the first beta was far too large. */
static void vgs__mcmc_place(const double *beta, const double *refused, int levels, int wanted, double *out)
{
    double sum = 0.0, below = 0.0;
    int j, k = 0;
    for (j = 0; j < levels - 1; ++j) sum += refused[j] + 1e-6;
    for (j = 1; j < wanted - 1; ++j) {
        double at = sum * j / (wanted - 1), f;
        while (k < levels - 2 && below + refused[k] + 1e-6 < at) below += refused[k++] + 1e-6;
        f = (at - below) / (refused[k] + 1e-6);
        if (k > 0) out[j] = beta[k] * pow(beta[k + 1] / beta[k], f);
        else if (refused[0] < 0.95) out[j] = beta[1] * f;
        else out[j] = beta[1] * pow(1e-3, 1.0 - f);
    }
    out[0] = 0.0;
    out[wanted - 1] = 1.0;
}

/* The nearest old level at or below each new beta lends its replicas and its step. */
static vgs_status vgs__mcmc_resize(vgs__mcmc *m, int wanted, const double *beta, vgs_error *err)
{
    vgs__mcmc old = *m;
    size_t chains = (size_t)m->c.chains, bytes = chains * (size_t)m->c.energy.dim * sizeof(float);
    int k, from = 0;
    if (vgs__mcmc_open(m, wanted, err)) {
        vgs__mcmc_close(m);
        *m = old;
        return VGS_E_NOMEM;
    }
    memcpy(m->ladder, old.ladder, chains * sizeof *m->ladder);
    for (k = 0; k < wanted; ++k) {
        int last = old.levels - 1;
        while (from < last && old.level[from + 1].beta <= beta[k]) ++from;
        if (from == 0 && k > 0) from = 1;        /* level 0 has never moved, and may be anywhere */
        m->level[k].beta = beta[k];
        m->level[k].step = old.level[from].step;
        memcpy(vgs__mcmc_at(m, m->x, k * m->c.chains), vgs__mcmc_at(m, old.x, from * m->c.chains), bytes);
        memcpy(vgs__mcmc_at(m, m->g, k * m->c.chains), vgs__mcmc_at(m, old.g, from * m->c.chains), bytes);
        memcpy(&m->row[vgs__mcmc_row(m, k, 0)], &old.row[vgs__mcmc_row(m, from, 0)], chains * sizeof *m->row);
    }
    vgs__mcmc_close(&old);
    return VGS_OK;
}

/* Mean over the chains of the rates at which level k and k + 1 refuse; returns their sum. */
static double vgs__mcmc_refused(const vgs__mcmc *m, double *refused)
{
    double sum = 0.0;
    int k, c;
    for (k = 0; k < m->levels - 1; ++k) {
        const vgs__replica *r = &m->row[vgs__mcmc_row(m, k, 0)];
        for (refused[k] = 0.0, c = 0; c < m->c.chains; ++c)
            refused[k] += r[c].refused / (m->counted * m->c.chains);
        sum += refused[k];
    }
    return sum;
}

static vgs_status vgs__mcmc_adapt_ladder(vgs__mcmc *m, vgs_error *err)
{
    double beta[VGS__MAX_LEVELS], next[VGS__MAX_LEVELS], refused[VGS__MAX_LEVELS], sum;
    int k, wanted = m->c.levels;
    if (m->counted == 0.0) return VGS_OK;
    sum = vgs__mcmc_refused(m, refused);
    for (k = 0; k < m->levels; ++k) beta[k] = m->level[k].beta;
    if (wanted == 0) wanted = 2 + (int)ceil(2.0 * sum);
    if (wanted > VGS__MAX_LEVELS) wanted = VGS__MAX_LEVELS;
    vgs__mcmc_place(beta, refused, m->levels, wanted, next);
    return vgs__mcmc_resize(m, wanted, next, err);
}

/* log Z = log Z of N + sum_k log mean exp((beta_k - beta_{k+1}) V) under level k. All weights are bounded by
   the lowest V; those of the way back, from cold to hot, have no variance where E has a pole. The ladders are
   independent, and the error is to first order the sum of their relative deviations. */
static void vgs__mcmc_log_z(const vgs__mcmc *m, vgs_mcmc_stats *out)
{
    double square = 0.0, chains = m->c.chains, s = m->c.length_scale;
    int k, c;
    out->log_z = 0.5 * m->dim_effective * (VGS__LN_2PI + 2.0 * log(s));
    for (c = -1; c < m->c.chains; ++c) {         /* first the sum, then each ladder's share of the error */
        double off = 0.0;
        for (k = 0; k < m->levels - 1; ++k) {
            const vgs__replica *r = &m->row[vgs__mcmc_row(m, k, 0)];
            double top = r->top, mean = 0.0;
            int i;
            for (i = 0; i < m->c.chains; ++i) top = r[i].top > top ? r[i].top : top;
            for (i = 0; i < m->c.chains; ++i) mean += r[i].weights * exp(r[i].top - top) / chains;
            if (c < 0) out->log_z += top + log(mean / m->counted);
            else off += r[c].weights * exp(r[c].top - top) / mean - 1.0;
        }
        if (c >= 0) square += off * off;
    }
    out->log_z_se = chains > 1.0 ? sqrt(square / (chains * (chains - 1.0))) : (double)NAN;
}

/* ==== >>mcmc: run ================================================================================== */

/* Iterations at..at + n of the chains c0..c1. They share nothing that changes with other chains. */
static vgs_status vgs__mcmc_chains(vgs__mcmc *m, uint64_t at, int n, int c0, int c1, vgs_error *err)
{
    int i, k, c;
    vgs_status status = VGS_OK;
    for (i = 0; i < n && !status; ++i, ++at) {
        int steps = vgs__mcmc_length(m, at);
        for (k = 0; k < m->levels && !status; ++k) {
            if (m->level[k].beta == 0.0) status = vgs__mcmc_renew(m, at, c0, c1, err);
            else if (m->local == VGS_METROPOLIS) status = vgs__mcmc_walk(m, at, k, c0, c1, err);
            else status = vgs__mcmc_leap(m, at, k, c0, c1, steps, err);
        }
        for (c = c0; c < c1 && !status && m->levels > 1; ++c) vgs__mcmc_swap(m, at, c);
    }
    return status;
}

/* n iterations of all chains, in parts of 4 over the threads when the energy allows it. */
static vgs_status vgs__mcmc_advance(vgs__mcmc *m, int n, vgs_error *err)
{
    int part = m->c.energy.thread_safe ? 4 : m->c.chains, parts = (m->c.chains + part - 1) / part;
    int i, team = m->c.energy.thread_safe ? vgs__team(m->c.threads) : 1, bad = 0;
    uint64_t at = m->at;
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team) schedule(dynamic) reduction(+ : bad) if (team > 1)
#endif
    for (i = 0; i < parts; ++i) {
        int c0 = i * part, c1 = m->c.chains - c0 < part ? m->c.chains : c0 + part;
        bad += vgs__mcmc_chains(m, at, n, c0, c1, NULL) != VGS_OK;
    }
    m->at += (uint64_t)n;
    m->counted += n;
    return bad ? vgs__fail(err, VGS_E_ENERGY, "%s: the energy callback failed", m->name) : VGS_OK;
}

/* Starts counting anew. */
static void vgs__mcmc_forget(vgs__mcmc *m)
{
    int i, rows = m->levels * m->c.chains;
    m->counted = 0.0;
    for (i = 0; i < rows; ++i) {
        m->row[i].alpha_sum = m->row[i].refused = m->row[i].weights = 0.0;
        m->row[i].top = -DBL_MAX;
        m->row[i].trip = 0;
    }
    for (i = 0; i < m->c.chains; ++i) m->ladder[i].trips = 0.0;
}

static void vgs__dual_begin(vgs__dual *d, double step)
{
    d->centre = log(10.0 * step);
    d->average = log(step);
    d->error = 0.0;
    d->t = 0;
}

/* The step to try next, after `alpha` came of the last one. */
static double vgs__dual_update(vgs__dual *d, double aim, double alpha, double scale)
{
    double eta, x, low = log(1e-9 * scale), high = log(1e3 * scale);
    d->t++;
    d->error += (aim - alpha - d->error) / (d->t + 10.0);
    x = d->centre - sqrt((double)d->t) / 0.05 * d->error;
    x = x < low ? low : x > high ? high : x;
    eta = pow((double)d->t, -0.75);
    d->average += eta * (x - d->average);
    return exp(x);
}

static bool vgs__mcmc_fixed(const vgs__mcmc *m) { return m->c.method == VGS_LMC && m->c.acceptance == 0.0; }

/* n iterations that fit the steps, which then are the averages. */
static vgs_status vgs__mcmc_fit(vgs__mcmc *m, int n, vgs_error *err)
{
    int i, k, c;
    vgs_status status = VGS_OK;
    for (k = 0; k < m->levels; ++k) vgs__dual_begin(&m->level[k].dual, m->level[k].step);
    for (i = 0; i < n && !status; ++i) {
        status = vgs__mcmc_advance(m, 1, err);
        for (k = 0; k < m->levels && !vgs__mcmc_fixed(m); ++k) {
            double alpha = 0.0;
            for (c = 0; c < m->c.chains; ++c) alpha += m->row[vgs__mcmc_row(m, k, c)].alpha / m->c.chains;
            m->level[k].step =
                vgs__dual_update(&m->level[k].dual, m->c.acceptance, alpha, m->c.length_scale);
        }
        if (!status && m->c.progress && i % 16 == 15 && m->c.progress(m->c.progress_user, 0.0))
            status = vgs__fail(err, VGS_E_CANCELLED, "%s: cancelled", m->name);
    }
    for (k = 0; k < m->levels && n > 0 && !vgs__mcmc_fixed(m); ++k)
        m->level[k].step = exp(m->level[k].dual.average);
    return status;
}

/* How many iterations, `most` at most, cost no more than `calls`. */
static int vgs__mcmc_affordable(const vgs__mcmc *m, int most, double calls)
{
    double price = 0.0;
    int i;
    for (i = 0; i < most; ++i) {
        price += vgs__mcmc_price(m, m->at + (uint64_t)i);
        if (price > calls) break;
    }
    return i;
}

static double vgs__mcmc_spent(const vgs__mcmc *m)
{
    double calls = 0.0;
    int c;
    for (c = 0; c < m->c.chains; ++c) calls += m->ladder[c].calls;
    return calls;
}

/* Rounds of 1, 1, 2, 4, 8 and 16 parts of 32. Each fits the steps anew, since those of the way down are not
   those of the place; after each but the last a ladder is corrected. */
static vgs_status vgs__mcmc_burn_in(vgs__mcmc *m, vgs_error *err)
{
    static const double share[6] = { 1 / 32.0, 1 / 32.0, 1 / 16.0, 1 / 8.0, 1 / 4.0, 1 / 2.0 };
    int i;
    vgs_status status = VGS_OK;
    for (i = 0; i < 6 && !status; ++i) {
        int n = (int)(share[i] * m->c.burn_in + 0.5);
        if (m->c.calls > 0.0) n = vgs__mcmc_affordable(m, n, share[i] * m->c.calls / 3.0);
        vgs__mcmc_forget(m);
        status = vgs__mcmc_fit(m, n, err);
        if (!status && m->c.method == VGS_PT && i < 5) status = vgs__mcmc_adapt_ladder(m, err);
    }
    return status;
}

static vgs_status vgs__mcmc_sample(vgs__mcmc *m, int n, float *x, double *e, vgs_error *err)
{
    int chains = m->c.chains, rounds = (n + chains - 1) / chains, i, c;
    int top = vgs__mcmc_row(m, m->levels - 1, 0);
    vgs__mcmc_forget(m);
    for (i = 0; i < rounds; ++i) {
        int thin = m->c.thin, row = i * chains, rows = n - row < chains ? n - row : chains;
        if (m->c.calls > 0.0)
            thin = vgs__mcmc_affordable(m, INT_MAX, (m->c.calls - vgs__mcmc_spent(m)) / (rounds - i));
        if (thin < 1)
            return vgs__fail(err, VGS_E_ARG, "%s: config.calls = %g are too few: an iteration of %d chains "
                             "of %d levels takes about %.0f, and n = %d needs %d of them after the burn-in",
                             m->name, m->c.calls, chains, m->levels, vgs__mcmc_price(m, m->at), n, rounds);
        if (vgs__mcmc_advance(m, thin, err)) return VGS_E_ENERGY;
        memcpy(x + (size_t)row * (size_t)m->c.energy.dim, vgs__mcmc_at(m, m->x, top),
               (size_t)rows * (size_t)m->c.energy.dim * sizeof(float));
        for (c = 0; c < rows; ++c) e[row + c] = m->row[top + c].ex;
        if (m->c.progress && m->c.progress(m->c.progress_user, (i + 1.0) / rounds))
            return vgs__fail(err, VGS_E_CANCELLED, "%s: cancelled", m->name);
    }
    return VGS_OK;
}

/* Energies, and gradients where moves need them, of all x, through y. */
static vgs_status vgs__mcmc_look(vgs__mcmc *m, vgs_error *err)
{
    bool gradient = m->local != VGS_METROPOLIS;
    int i, c, rows = m->levels * m->c.chains;
    size_t bytes = (size_t)rows * (size_t)m->c.energy.dim * sizeof(float);
    memcpy(m->y, m->x, bytes);
    if (vgs__mcmc_energy(m, 0, rows, gradient, err)) {
        if (!gradient || vgs__mcmc_energy(m, 0, rows, false, NULL))
            return vgs__fail(err, VGS_E_ENERGY, "%s: the energy callback failed", m->name);
        return vgs__fail(err, VGS_E_ENERGY, "%s: the energy gives no gradient: metropolis, and pt with local "
                         "= metropolis, need none", m->name);
    }
    memcpy(m->g, m->gy, bytes);
    for (i = 0; i < rows; ++i) m->row[i].ex = m->row[i].ey;
    for (c = 0; c < m->c.chains; ++c) {
        m->ladder[c].calls += m->levels;
        m->ladder[c].gradient_calls += gradient ? m->levels : 0;
    }
    return VGS_OK;
}

/* Starts without a finite energy are drawn again, up to 100 times, unless the caller gave them. */
static vgs_status vgs__mcmc_start(vgs__mcmc *m, vgs_error *err)
{
    int k, c, trial, lost = -1, rows = m->levels * m->c.chains;
    size_t bytes = (size_t)m->c.energy.dim * sizeof(float);
    vgs_status status = VGS_OK;
    for (k = 0; k < m->levels; ++k) m->level[k].step = m->c.step;
    for (trial = 0; trial < 100 && !status; ++trial) {
        for (k = 0; k < m->levels; ++k)
            for (c = 0; c < m->c.chains; ++c) {
                int row = vgs__mcmc_row(m, k, c);
                float *x = vgs__mcmc_at(m, m->x, row);
                if (trial && m->row[row].ex <= (double)FLT_MAX) continue;
                if (m->c.start) memcpy(x, m->c.start + (size_t)c * (size_t)m->c.energy.dim, bytes);
                else vgs__mcmc_normals(m, VGS__MC_START, (uint64_t)trial, k, c, m->c.length_scale, x);
                vgs__mcmc_centre(m, x);
            }
        status = vgs__mcmc_look(m, err);
        for (lost = -1, k = rows - 1; k >= 0 && !status; --k)
            if (!(m->row[k].ex <= (double)FLT_MAX)) lost = k;
        if (lost < 0 || m->c.start) break;
    }
    if (status || lost < 0) return status;
    if (m->c.start)
        return vgs__fail(err, VGS_E_NONFINITE, "%s: row %d of the start has no finite energy", m->name,
                         lost % m->c.chains);
    return vgs__fail(err, VGS_E_NONFINITE, "%s: no finite energy at 100 random starts with "
                     "config.length_scale = %g", m->name, m->c.length_scale);
}

/* ==== >>mcmc: the configuration ==================================================================== */

static vgs_status vgs__mcmc_check(vgs__mcmc *m, int n, vgs_error *err)
{
    vgs_mcmc_config *c = &m->c;
    const vgs_energy *e = &c->energy;
    static const double aims[4] = { 0.8, 0.574, 0.234, 0.9 };
    if (e->record && !e->eval && !e->eval64)
        return vgs__fail(err, VGS_E_ARG, "%s: config.energy is recorded, and this needs eval or eval64; "
                         "the sampler's own refine and path weights remain", m->name);
    if (!e->eval + !e->eval64 + !e->record != 2 || e->dim < 1)
        return vgs__fail(err, VGS_E_ARG, "%s: config.energy needs eval or eval64, and dim >= 1", m->name);
    if (e->particles < 0 || e->particles == 1 || (e->particles && e->dim % e->particles))
        return vgs__fail(err, VGS_E_ARG, "%s: config.energy.particles = %d: must be 0 or a divisor > 1 of "
                         "dim = %d", m->name, e->particles, e->dim);
    if (n < 1) return vgs__fail(err, VGS_E_ARG, "%s: n = %d: must be > 0", m->name, n);
    if ((unsigned)c->method > VGS_PT || (unsigned)c->local > VGS_METROPOLIS)
        return vgs__fail(err, VGS_E_ARG, "%s: config.method = %d, config.local = %d: no such method", m->name,
                         (int)c->method, (int)c->local);
    m->space = e->particles ? e->dim / e->particles : 0;
    m->dim_effective = e->dim - m->space;
    m->local = c->method == VGS_PT ? c->local : c->method;
    if (c->chains == 0) c->chains = n < 16 ? n : 16;
    if (c->burn_in == 0) c->burn_in = 1000;
    if (c->thin == 0) c->thin = 10;
    if (c->leapfrog == 0) c->leapfrog = c->method == VGS_PT ? 5 : 10;
    if (c->tau == 0.0) c->tau = 1.0;
    if (c->length_scale == 0.0) c->length_scale = 1.0;
    if (c->acceptance == 0.0 && (c->method != VGS_LMC || c->step == 0.0)) c->acceptance = aims[m->local];
    if (c->step == 0.0) c->step = 0.1 * c->length_scale;
    if (c->chains < 1 || c->burn_in < 1 || c->thin < 1 || c->leapfrog < 1 || c->leapfrog > 100000)
        return vgs__fail(err, VGS_E_ARG, "%s: config.chains = %d, config.burn_in = %d, config.thin = %d, "
                         "config.leapfrog = %d: must be > 0", m->name, c->chains, c->burn_in, c->thin,
                         c->leapfrog);
    if (c->levels < 0 || c->levels == 1 || c->levels > VGS__MAX_LEVELS)
        return vgs__fail(err, VGS_E_ARG, "%s: config.levels = %d: must be 0 or in 2..%d", m->name, c->levels,
                         VGS__MAX_LEVELS);
    if (!(c->tau > 0.0 && c->tau < 1e30 && c->step > 0.0 && c->step < 1e30 && c->length_scale > 0.0 &&
          c->length_scale < 1e15))
        return vgs__fail(err, VGS_E_ARG, "%s: config.tau = %g, config.step = %g, config.length_scale = %g: "
                         "must be > 0", m->name, c->tau, c->step, c->length_scale);
    if (!(c->acceptance >= 0.0 && c->acceptance < 1.0) || !(c->calls >= 0.0))
        return vgs__fail(err, VGS_E_ARG, "%s: config.acceptance = %g must be in (0,1), config.calls = %g "
                         ">= 0", m->name, c->acceptance, c->calls);
    if (c->shuffle && (m->space < 1 || m->space > VGS__MAX_SPACE))
        return vgs__fail(err, VGS_E_ARG, "%s: config.shuffle needs particles of 1..%d coordinates", m->name,
                         VGS__MAX_SPACE);
    return VGS_OK;
}

/* Betas of the first ladder: 0, then evenly in log beta from 1e-8 to 1; a pole of E needs very small ones. */
static void vgs__mcmc_first_ladder(vgs__mcmc *m)
{
    int k, top = m->levels - 1;
    for (k = 1; k < top; ++k) m->level[k].beta = pow(10.0, -8.0 * (top - k) / (top - 1));
    m->level[0].beta = 0.0;
    m->level[top].beta = 1.0;
}

static void vgs__mcmc_summary(const vgs__mcmc *m, vgs_mcmc_stats *out)
{
    double refused[VGS__MAX_LEVELS];
    int c, top = m->levels - 1;
    memset(out, 0, sizeof *out);
    out->levels = m->levels;
    out->step = m->level[top].step;
    for (c = 0; c < m->c.chains; ++c) {
        out->energy_calls += m->ladder[c].calls;
        out->gradient_calls += m->ladder[c].gradient_calls;
        out->round_trips += m->ladder[c].trips;
        out->acceptance += m->row[vgs__mcmc_row(m, top, c)].alpha_sum / (m->counted * m->c.chains);
    }
    out->energy_mean = out->energy_se = out->rhat = out->ess = (double)NAN;
    out->log_z = out->log_z_se = out->barrier = out->round_trip_rate = (double)NAN;
    if (m->c.method != VGS_PT) {
        out->round_trips = (double)NAN;
        return;
    }
    out->barrier = vgs__mcmc_refused(m, refused);
    out->round_trip_rate = out->round_trips / (m->counted * m->c.chains);
    vgs__mcmc_log_z(m, out);
}

/* ==== >>mcmc: do chains agree? [Vehtari 2021] ====================================================== */

/* In place: x [n] complex (re, im side by side), n a power of two; forward, not scaled. */
static void vgs__fft(double *x, int n)
{
    int i, j = 0, k, half;
    for (i = 1; i < n; ++i) {                    /* bit reversal */
        int bit = n >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        for (k = 0; k < 2 && i < j; ++k) {
            double t = x[2 * i + k];
            x[2 * i + k] = x[2 * j + k];
            x[2 * j + k] = t;
        }
    }
    for (half = 1; half < n; half *= 2)
        for (k = 0; k < half; ++k) {
            double c = cos(3.14159265358979324 * k / half), s = -sin(3.14159265358979324 * k / half);
            for (i = k; i < n; i += 2 * half) {
                double *a = x + 2 * i, *b = a + 2 * half, re = c * b[0] - s * b[1], im = c * b[1] + s * b[0];
                b[0] = a[0] - re;
                b[1] = a[1] - im;
                a[0] += re;
                a[1] += im;
            }
        }
}

/* Adds to cov [n] the autocovariances of v [n], about its mean, over n; work: [2 size], size >= 2n - 1. */
static void vgs__autocovariance(const double *v, int n, double mean, double *work, int size, double *cov)
{
    int i;
    for (i = 0; i < 2 * size; ++i) work[i] = 0.0;
    for (i = 0; i < n; ++i) work[2 * i] = v[i] - mean;
    vgs__fft(work, size);
    for (i = 0; i < size; ++i) {                 /* the power is even, so forward is backward */
        work[2 * i] = work[2 * i] * work[2 * i] + work[2 * i + 1] * work[2 * i + 1];
        work[2 * i + 1] = 0.0;
    }
    vgs__fft(work, size);
    for (i = 0; i < n; ++i) cov[i] += work[2 * i] / ((double)size * n);
}

typedef struct vgs__ranked { double value; int at; } vgs__ranked;

enum { VGS__MAX_DIAGNOSED = 500000000 };         /* the transform's length stays an int */

/* What ESS and R-hat are made from: v [chains, n], where chains counts the two halves of each chain. */
typedef struct vgs__halves {
    int     chains, n, size;
    double *v, *z, *work, *cov;
    vgs__ranked *order;
} vgs__halves;

/* The variance of all from that within and between chains (ddof 1 each); *within the mean variance. */
static double vgs__pooled_variance(const vgs__halves *h, const double *v, double *within, double *mean)
{
    double m = h->chains, n = h->n, all = 0.0, inside = 0.0, between = 0.0;
    int c, i;
    for (c = 0; c < h->chains; ++c) {
        double own = 0.0;
        for (i = 0; i < h->n; ++i) own += v[c * h->n + i];
        mean[c] = own / n;
        all += mean[c] / m;
        for (i = 0; i < h->n; ++i) inside += (v[c * h->n + i] - mean[c]) * (v[c * h->n + i] - mean[c]);
    }
    for (c = 0; c < h->chains; ++c) between += (mean[c] - all) * (mean[c] - all) / (m - 1.0);
    *within = inside / (m * (n - 1.0));
    return *within * (n - 1.0) / n + between;
}

static double vgs__rhat(const vgs__halves *h, const double *v)
{
    double within, pooled = vgs__pooled_variance(h, v, &within, h->work);
    return sqrt(pooled / within);
}

/* chains n / tau; tau sums autocorrelations by pairs of lags, which fall and are positive for a reversible
   chain: up to the first pair that is not, and none above the one before it [Geyer 1992]. The first lag
   of the pair that ends it counts if positive; the last lags, of few products each, are left out. */
static double vgs__ess(const vgs__halves *h, const double *v)
{
    double within, pooled = vgs__pooled_variance(h, v, &within, h->cov), all = (double)h->chains * h->n;
    double tau = -1.0, last = HUGE_VAL, most, *mean = h->cov + h->n;
    int c, i, n = h->n;
    for (c = 0; c < h->chains; ++c) mean[c] = h->cov[c];
    for (i = 0; i < n; ++i) h->cov[i] = 0.0;
    for (c = 0; c < h->chains; ++c) vgs__autocovariance(v + c * n, n, mean[c], h->work, h->size, h->cov);
    for (i = 0; i < n; ++i)
        h->cov[i] = i ? 1.0 - (within - h->cov[i] / h->chains) / pooled : 1.0;      /* autocorrelation */
    for (i = 0; i + 4 < n && h->cov[i] + h->cov[i + 1] > 0.0; i += 2) {
        double pair = h->cov[i] + h->cov[i + 1];
        last = pair < last ? pair : last;
        tau += 2.0 * last;
    }
    if (h->cov[i] > 0.0) tau += h->cov[i];
    most = 1.0 / log10(all);
    return all / (tau > most ? tau : most);
}

static int vgs__by_value(const void *a, const void *b)
{
    double x = ((const vgs__ranked *)a)->value, y = ((const vgs__ranked *)b)->value;
    return (x > y) - (x < y);
}

/* z with Phi(z) = p, 0 < p <= 1/2, by Newton's method on log Phi, which is concave: from the left z only
   rises. */
static double vgs__normal_quantile(double p)
{
    double z = -sqrt(-2.0 * log(p)) - 1.0;
    int i;
    for (i = 0; i < 50; ++i) {
        double below = 0.5 * erfc(-0.70710678118654752 * z);
        double step = log(p / below) * below * 2.5066282746310005 * exp(0.5 * z * z);
        z += step;
        if (fabs(step) < 1e-14 * (1.0 + fabs(z))) break;
    }
    return z;
}

/* z = normal quantiles of the ranks of v, (rank - 3/8)/(S + 1/4); equal values share their mean rank. */
static void vgs__rank_normal(const vgs__halves *h, const double *v, double *z)
{
    int i, j, k, all = h->chains * h->n;
    for (i = 0; i < all; ++i) {
        h->order[i].value = v[i];
        h->order[i].at = i;
    }
    qsort(h->order, (size_t)all, sizeof *h->order, vgs__by_value);
    for (i = 0; i < all; i = j) {
        double p, q;
        for (j = i + 1; j < all && !(h->order[j].value > h->order[i].value); ++j) {}
        p = (0.5 * (i + 1.0 + j) - 0.375) / (all + 0.25);
        q = p <= 0.5 ? vgs__normal_quantile(p) : -vgs__normal_quantile(1.0 - p);
        for (k = i; k < j; ++k) z[h->order[k].at] = q;
    }
}

/* |v - median|, the median from the order that vgs__rank_normal left */
static void vgs__fold(const vgs__halves *h, const double *v, double *out)
{
    int i, all = h->chains * h->n;
    double median = 0.5 * (h->order[(all - 1) / 2].value + h->order[all / 2].value);
    for (i = 0; i < all; ++i) out[i] = fabs(v[i] - median);
}

static bool vgs__halves_open(vgs__halves *h, int draws, int chains)
{
    size_t n = (size_t)(draws / 2), rows = 2 * (size_t)chains;
    memset(h, 0, sizeof *h);
    h->n = (int)n;
    h->chains = (int)rows;
    for (h->size = 2; h->size < 2 * h->n; h->size *= 2) {}
    h->v = (double *)vgs__alloc(n * rows, sizeof(double));
    h->z = h->v ? (double *)vgs__alloc(n * rows, sizeof(double)) : NULL;
    h->work = h->z ? (double *)vgs__alloc(2 * (size_t)h->size + rows, sizeof(double)) : NULL;
    h->cov = h->work ? (double *)vgs__alloc(n + 2 * rows, sizeof(double)) : NULL;
    h->order = h->cov ? (vgs__ranked *)vgs__alloc(n * rows, sizeof *h->order) : NULL;
    return h->order != NULL;
}

static void vgs__halves_close(vgs__halves *h)
{
    vgs__free(h->v);
    vgs__free(h->z);
    vgs__free(h->work);
    vgs__free(h->cov);
    vgs__free(h->order);
}

VGS__DEF vgs_status vgs_diagnose(const double *v, int draws, int chains, vgs_diagnosis *out, vgs_error *err)
{
    vgs__halves h;
    double sum = 0.0, square = 0.0, folded, all = (double)draws * chains;
    int i, c;
    if (draws < 4 || chains < 1 || all > VGS__MAX_DIAGNOSED)
        return vgs__fail(err, VGS_E_ARG, "diagnose: draws = %d, chains = %d: must be at least 4 and 1, and "
                         "%d values together", draws, chains, VGS__MAX_DIAGNOSED);
    out->mean = out->mean_se = out->rhat = out->ess = (double)NAN;
    for (i = 0; i < draws * chains; ++i) sum += v[i];
    out->mean = sum / all;
    for (i = 0; i < draws * chains; ++i) square += (v[i] - out->mean) * (v[i] - out->mean);
    if (!(square > 0.0 && square <= DBL_MAX)) return VGS_OK;
    if (!vgs__halves_open(&h, draws, chains)) {
        vgs__halves_close(&h);
        return vgs__fail(err, VGS_E_NOMEM, "out of memory: diagnose of %d draws of %d chains", draws, chains);
    }
    for (c = 0; c < h.chains; ++c)               /* of an odd number of draws the middle one is left out */
        for (i = 0; i < h.n; ++i)
            h.v[c * h.n + i] = v[(size_t)(c & 1 ? draws - h.n + i : i) * (size_t)chains + (size_t)(c / 2)];
    out->mean_se = sqrt(square / (all - 1.0) / vgs__ess(&h, h.v));
    vgs__rank_normal(&h, h.v, h.z);
    out->rhat = vgs__rhat(&h, h.z);
    out->ess = vgs__ess(&h, h.z);
    vgs__fold(&h, h.v, h.v);
    vgs__rank_normal(&h, h.v, h.z);
    folded = vgs__rhat(&h, h.z);
    if (folded > out->rhat) out->rhat = folded;
    vgs__halves_close(&h);
    return VGS_OK;
}

/* What is watched, number q of row x: the energy first. */
static int vgs__watched(const vgs__mcmc *m) { return m->space ? 4 : 1 + m->c.energy.dim; }
static double vgs__watch(const vgs__mcmc *m, int q, const float *x, double e)
{
    int i, j, k, d = m->space;
    double nearest = HUGE_VAL, farthest = 0.0;
    if (q == 0) return e;
    if (!d) return (double)x[q - 1];
    if (q == 1) return vgs__square(x, m->c.energy.dim);
    for (i = 0; i < m->c.energy.particles; ++i)
        for (j = 0; j < i; ++j) {
            double r2 = 0.0;
            for (k = 0; k < d; ++k) {
                double r = (double)x[i * d + k] - (double)x[j * d + k];
                r2 += r * r;
            }
            nearest = r2 < nearest ? r2 : nearest;
            farthest = r2 > farthest ? r2 : farthest;
        }
    return sqrt(q == 2 ? nearest : farthest);
}

/* R-hat and ESS of the worst; rows that do not fill a round of all chains are left out. */
static vgs_status vgs__mcmc_diagnose(const vgs__mcmc *m, int n, const float *x, const double *e,
                                     vgs_mcmc_stats *out, vgs_error *err)
{
    int i, q, chains = m->c.chains, draws = n / chains;
    double mean = 0.0, *v;
    vgs_diagnosis d;
    for (i = 0; i < n; ++i) mean += e[i] / n;
    out->energy_mean = mean;
    if (draws < 4) return VGS_OK;
    v = (double *)vgs__alloc_or(err, m->name, (size_t)draws * (size_t)chains, sizeof *v);
    if (!v) return VGS_E_NOMEM;
    for (q = 0; q < vgs__watched(m); ++q) {
        for (i = 0; i < draws * chains; ++i)
            v[i] = vgs__watch(m, q, x + (size_t)i * (size_t)m->c.energy.dim, e[i]);
        if (vgs_diagnose(v, draws, chains, &d, err)) break;
        if (q == 0) out->energy_se = d.mean_se;
        if (q == 0 || !(d.rhat <= out->rhat)) out->rhat = d.rhat;
        if (q == 0 || !(d.ess >= out->ess)) out->ess = d.ess;
    }
    vgs__free(v);
    return q < vgs__watched(m) ? VGS_E_NOMEM : VGS_OK;
}

/* ==== >>mcmc: what users call ====================================================================== */

/* Every row turned, reflected and permuted, with random numbers of its own. */
static vgs_status vgs__mcmc_shuffle(const vgs__mcmc *m, int n, float *x, vgs_error *err)
{
    size_t dim = (size_t)m->c.energy.dim;
    float *y = (float *)vgs__alloc_or(err, m->name, dim, sizeof *y);
    vgs_target t;
    vgs_rng r = vgs__chain_rng(m->c.seed, 0);
    int i;
    if (!y) return VGS_E_NOMEM;
    memset(&t, 0, sizeof t);
    t.particles = m->c.energy.particles;
    t.space_dim = m->space;
    r.stream = VGS__SHUFFLE_STREAM;
    for (i = 0; i < n; ++i, x += dim) {
        vgs__shuffle(&t, &r, x, y);
        memcpy(x, y, dim * sizeof *y);
    }
    vgs__free(y);
    return VGS_OK;
}

VGS__DEF vgs_status vgs_mcmc(const vgs_mcmc_config *cfg, int n, float *x, vgs_mcmc_stats *stats,
                             vgs_error *err)
{
    vgs__mcmc m;
    vgs_mcmc_stats own;
    vgs_status status;
    double *e = NULL;
    memset(&m, 0, sizeof m);
    m.c = *cfg;
    m.name = "mcmc";
    status = vgs__mcmc_check(&m, n, err);
    if (!status && stats && n > VGS__MAX_DIAGNOSED)
        status = vgs__fail(err, VGS_E_ARG, "mcmc: n = %d: must be at most %d with stats", n,
                           VGS__MAX_DIAGNOSED);
    if (status) return status;
    if (m.c.chains > n) m.c.chains = n;
    e = (double *)vgs__alloc_or(err, "mcmc", (size_t)n, sizeof *e);
    if (!e) return VGS_E_NOMEM;
    status = vgs__mcmc_open(&m, m.c.method != VGS_PT ? 1 : m.c.levels ? m.c.levels : 24, err);
    m.level[0].beta = 1.0;
    if (m.c.method == VGS_PT) vgs__mcmc_first_ladder(&m);
    if (!status) status = vgs__mcmc_start(&m, err);
    if (!status) status = vgs__mcmc_burn_in(&m, err);
    if (!status) status = vgs__mcmc_sample(&m, n, x, e, err);
    if (!status && stats) {
        vgs__mcmc_summary(&m, &own);
        status = vgs__mcmc_diagnose(&m, n, x, e, &own, err);
    }
    if (!status && m.c.shuffle) status = vgs__mcmc_shuffle(&m, n, x, err);
    if (!status && stats) *stats = own;
    vgs__free(e);
    vgs__mcmc_close(&m);
    return status;
}

/* which [n]: the rows that stay, row i n w_i/sum w times, rounded up or down: the n teeth of a comb fall on
   them, which starts at u. */
static vgs_status vgs__resample(const double *log_weight, int n, double u, int *which, vgs_error *err)
{
    double top = -HUGE_VAL, sum = 0.0, below = 0.0;
    int i, j = 0;
    for (i = 0; i < n; ++i) {
        if (!(log_weight[i] <= DBL_MAX))
            return vgs__fail(err, VGS_E_NONFINITE, "refine: log_weight[%d] = %g: must be below infinity", i,
                             log_weight[i]);
        top = log_weight[i] > top ? log_weight[i] : top;
    }
    if (!(top >= -DBL_MAX)) return vgs__fail(err, VGS_E_NONFINITE, "refine: all weights are 0");
    for (i = 0; i < n; ++i) sum += exp(log_weight[i] - top);
    for (i = 0; i < n; ++i) {
        below += exp(log_weight[i] - top) / sum * n;
        while (j < n && j + u < below) which[j++] = i;
    }
    for (i = n; j < n;) {                        /* rounding may leave the last tooth beyond the end */
        while (log_weight[--i] < top - 700.0) {}
        while (j < n) which[j++] = i;
    }
    return VGS_OK;
}

/* The rows of x that stay become the state; each must have a finite energy. */
static vgs_status vgs__refine_start(vgs__mcmc *m, const double *log_weight, const float *x, vgs_error *err)
{
    int i, n = m->c.chains, *which = (int *)vgs__alloc_or(err, "refine", (size_t)n, sizeof *which);
    size_t dim = (size_t)m->c.energy.dim;
    vgs_status status = which ? VGS_OK : VGS_E_NOMEM;
    for (i = 0; i < n && which; ++i) which[i] = i;
    if (!status && log_weight)
        status = vgs__resample(log_weight, n, vgs__mcmc_uniform(m, VGS__MC_RESAMPLE, 0, 0, 0), which, err);
    for (i = 0; i < n && !status; ++i) {
        memcpy(vgs__mcmc_at(m, m->x, i), x + (size_t)which[i] * dim, dim * sizeof *x);
        vgs__mcmc_centre(m, vgs__mcmc_at(m, m->x, i));
    }
    if (!status) status = vgs__mcmc_look(m, err);
    for (i = 0; i < n && !status; ++i)
        if (!(m->row[i].ex <= (double)FLT_MAX))
            status = vgs__fail(err, VGS_E_NONFINITE, "refine: row %d of x has no finite energy: leave it "
                               "out, or give it the weight 0", which[i]);
    vgs__free(which);
    return status;
}

VGS__DEF vgs_status vgs_refine(const vgs_mcmc_config *cfg, int steps, const double *log_weight, int n,
                               float *x, vgs_mcmc_stats *stats, vgs_error *err)
{
    vgs__mcmc m;
    vgs_status status;
    int i;
    memset(&m, 0, sizeof m);
    m.c = *cfg;
    m.name = "refine";
    m.c.chains = n;
    m.c.calls = 0.0;
    m.c.start = x;
    m.c.shuffle = false;
    status = vgs__mcmc_check(&m, n, err);
    if (status) return status;
    if (m.c.method == VGS_LMC || m.c.method == VGS_PT)
        return vgs__fail(err, VGS_E_ARG, "refine: config.method = %s: must be hmc, mala or metropolis",
                         vgs_mcmc_method_name((int)m.c.method));
    if (steps < 1) return vgs__fail(err, VGS_E_ARG, "refine: steps = %d: must be > 0", steps);
    status = vgs__mcmc_open(&m, 1, err);
    m.level[0].beta = 1.0;
    m.level[0].step = m.c.step;
    if (!status) status = vgs__refine_start(&m, log_weight, x, err);
    if (!status) status = vgs__mcmc_fit(&m, steps / 4, err);
    if (!status) status = vgs__mcmc_fit(&m, steps / 2 - steps / 4, err);
    if (!status) vgs__mcmc_forget(&m);
    if (!status) status = vgs__mcmc_advance(&m, steps - steps / 2, err);
    if (!status) memcpy(x, m.x, (size_t)n * (size_t)m.c.energy.dim * sizeof *x);
    if (!status && stats) {
        vgs__mcmc_summary(&m, stats);
        for (stats->energy_mean = 0.0, i = 0; i < n; ++i) stats->energy_mean += m.row[i].ex / n;
    }
    vgs__mcmc_close(&m);
    return status;
}

/* ==== >>config: defaults, limits, fields as text ===================================================== */

static bool vgs__is_particles(const vgs_config *c) { return c->energy.particles > 0; }

static int vgs__effective_dim(const vgs_config *c)
{
    if (c->on_sphere) return c->energy.dim - 1;
    return vgs__is_particles(c) ? c->energy.dim - c->energy.dim / c->energy.particles : c->energy.dim;
}

static float vgs__default_s2(const vgs_config *c, double s2)
{
    return (float)(c->alpha == VGS_VP && s2 > 0.5 ? 0.5 : s2);       /* must stay below 1              */
}

/* A geometric path of variances from length^2 down to a quarter of detail^2. With the exact value it costs
   about D ln^2 / T nats (ln = log of the ratio of lengths), so T follows from the two scales. */
static void vgs__default_path(vgs_config *c)
{
    double length = (double)c->length_scale, detail = 0.5 * (double)c->detail_scale,
           ratio = log(length / detail), r;
    if (!c->steps) {
        double t = (double)c->dim_effective * ratio * ratio;
        c->steps = t < 20.0 ? 20 : t > 100.0 ? 100 : (int)t;
    }
    r = exp(-2.0 * ratio / (double)c->steps);
    if (c->s2_start == 0.0f) c->s2_start = vgs__default_s2(c, length * length * (1.0 - r));
    if (c->s2_end == 0.0f) c->s2_end = vgs__default_s2(c, detail * detail / r * (1.0 - r));
}

static void vgs__fill_defaults(vgs_config *c)
{
    c->net.dim = c->energy.dim;
    c->net.particles = c->energy.particles;
    if (c->length_scale == 0.0f) c->length_scale = 1.0f;
    if (c->detail_scale == 0.0f) c->detail_scale = c->length_scale / 10.0f;
    if (!c->dim_effective) c->dim_effective = vgs__effective_dim(c);
    if (c->steps >= 0 && c->length_scale > 0.0f && c->detail_scale > 0.0f &&
        c->detail_scale <= c->length_scale)
        vgs__default_path(c);
    if (c->tau == 0.0f) c->tau = 1.0f;
    if (!c->batch) c->batch = 128;
    if (!c->passes) c->passes = 1;
    if (c->value_lr == 0.0f) c->value_lr = 5e-4f;
    if (c->explore == 0.0f) c->explore = 1.0f;
    if (c->on_sphere) c->one_step = c->fixed_kernel = c->explicit_drift = true;          /* not Gaussian  */
    if (c->lambda == 0.0f && !c->one_step) c->lambda = 0.9f;
    if (c->target_ema == 0.0f && !c->one_step) c->target_ema = 0.9f;
    if (c->drift_max == 0.0f) c->drift_max = 1.5f;
    if (c->grad_max == 0.0f) c->grad_max = 1.0f;
    if (!c->net.hidden) c->net.hidden = 128;
    if (!c->net.time_dim) c->net.time_dim = 64;
    if (!c->net.time_hidden) c->net.time_hidden = c->net.hidden;
    if (!c->net.layers) c->net.layers = c->net.kind == VGS_NET_EGNN ? 2 : 3;
    if (c->net.x_scale == 0.0f) c->net.x_scale = 1.0f;
}

enum { VGS__MAX_WALKS = 1000000 };               /* below VGS__WALKS_BACK                             */
static const vgs__limit vgs__limits[] = {
    { "length_scale", offsetof(vgs_config, length_scale), '>', 0, (double)FLT_MAX },
    { "detail_scale", offsetof(vgs_config, detail_scale), '>', 0, (double)FLT_MAX },
    { "steps", offsetof(vgs_config, steps), 'i', 1, 65535 },
    { "s2_start", offsetof(vgs_config, s2_start), '>', 0, (double)FLT_MAX },
    { "s2_end", offsetof(vgs_config, s2_end), '>', 0, (double)FLT_MAX },
    { "init_sigma", offsetof(vgs_config, init_sigma), '=', 0, (double)FLT_MAX },
    { "tau", offsetof(vgs_config, tau), '>', 0, (double)FLT_MAX },
    { "batch", offsetof(vgs_config, batch), 'i', 1, 1 << 20 },
    { "passes", offsetof(vgs_config, passes), 'i', 1, 10000 },
    { "value_lr", offsetof(vgs_config, value_lr), '>', 0, (double)FLT_MAX },
    { "lr_half", offsetof(vgs_config, lr_half), '=', 0, (double)FLT_MAX },
    { "sigma_lr", offsetof(vgs_config, sigma_lr), '=', 0, (double)FLT_MAX },
    { "target_ema", offsetof(vgs_config, target_ema), '=', 0, (double)0.99999994f },
    { "explore", offsetof(vgs_config, explore), '>', 0, (double)FLT_MAX },
    { "lambda", offsetof(vgs_config, lambda), '=', 0, 1 },
    { "energy_max", offsetof(vgs_config, energy_max), '=', -(double)FLT_MAX, (double)FLT_MAX },
    { "drift_max", offsetof(vgs_config, drift_max), '>', 0, (double)FLT_MAX },
    { "grad_max", offsetof(vgs_config, grad_max), '>', 0, (double)FLT_MAX },
    { "dim_effective", offsetof(vgs_config, dim_effective), 'i', 1, 262144 },
    { "replay", offsetof(vgs_config, replay), 'i', 0, 65536 },
    { "slope_loss", offsetof(vgs_config, slope_loss), '=', 0, (double)FLT_MAX },
    { "refine", offsetof(vgs_config, refine), 'i', 0, 1000000 },
    { "correct", offsetof(vgs_config, correct), 'i', 0, VGS__MAX_WALKS }
};
enum { VGS__LIMITS = (int)(sizeof vgs__limits / sizeof *vgs__limits) };

static vgs_status vgs__check_int(const char *name, int v, int lo, int hi, vgs_error *err)
{
    if (v >= lo && v <= hi) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "config.%s = %d: must be %d..%d", name, v, lo, hi);
}

static vgs_status vgs__check_slope_loss(const vgs_config *c, vgs_error *err)
{
    const char *not_with = c->one_step ? "one_step" : c->explicit_drift ? "explicit_drift"
                         : c->explore != 1.0f ? "explore" : NULL;
    if (!(c->slope_loss > 0.0f) || !not_with) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "config.slope_loss = %g: must be 0 with %s", (double)c->slope_loss,
                     not_with);
}

/* A variance-preserving step has less noise than there is. */
static vgs_status vgs__check_vp(const vgs_config *c, vgs_error *err)
{
    bool start = !(c->s2_start < 1.0f);
    if (c->alpha != VGS_VP || (!start && c->s2_end < 1.0f)) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "config.%s = %g: must be > 0 and below 1", start ? "s2_start" : "s2_end",
                     (double)(start ? c->s2_start : c->s2_end));
}

static vgs_status vgs__check_local_noise(const vgs_config *c, vgs_error *err)
{
    const char *not_with = c->on_sphere ? "on_sphere" : c->one_step ? "one_step"
                         : c->fixed_kernel ? "fixed_kernel" : c->explicit_drift ? "explicit_drift" : NULL;
    if (!c->local_noise || !not_with) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "config.local_noise = 1: must be 0 with %s", not_with);
}

static vgs_status vgs__check_config(const vgs_config *c, vgs_error *err)
{
    vgs_status st;
    if (!c->energy.eval + !c->energy.eval64 + !c->energy.record != 2)
        return vgs__fail(err, VGS_E_ARG, "config.energy: exactly one of eval, eval64 and record must be set");
    if ((st = vgs__check_int("energy.dim", c->energy.dim, 1, 262144, err)) != VGS_OK) return st;
    if (c->energy.particles && (c->energy.particles < 2 || c->energy.dim % c->energy.particles))
        return vgs__fail(err, VGS_E_ARG,
                         "config.energy.particles = %d: must be 0, or >= 2 and divide dim = %d",
                         c->energy.particles, c->energy.dim);
    if ((st = vgs__check_limits(c, "config", vgs__limits, VGS__LIMITS, err)) != VGS_OK) return st;
    if (c->detail_scale > c->length_scale)
        return vgs__fail(err, VGS_E_ARG, "config.detail_scale = %g: must not exceed length_scale = %g",
                         (double)c->detail_scale, (double)c->length_scale);
    if ((st = vgs__check_int("schedule", (int)c->schedule, 0, VGS_CONSTANT, err)) != VGS_OK) return st;
    if ((st = vgs__check_int("alpha", (int)c->alpha, 0, VGS_VP, err)) != VGS_OK) return st;
    if ((st = vgs__check_int("loss", (int)c->loss, 0, VGS_L1, err)) != VGS_OK) return st;
    if ((st = vgs__check_vp(c, err)) != VGS_OK) return st;
    if (c->one_step && c->lambda > 0.0f)
        return vgs__fail(err, VGS_E_ARG, "config.lambda = %g: must be 0 with %s", (double)c->lambda,
                         c->on_sphere ? "on_sphere" : "one_step");
    if ((st = vgs__check_int("dim_effective", c->dim_effective, 1, c->energy.dim, err)) != VGS_OK) return st;
    if (c->replay && c->one_step)
        return vgs__fail(err, VGS_E_ARG, "config.replay = %d: must be 0 with %s", c->replay,
                         c->on_sphere ? "on_sphere" : "one_step");
    if ((st = vgs__check_slope_loss(c, err)) != VGS_OK) return st;
    if ((st = vgs__check_local_noise(c, err)) != VGS_OK) return st;
    if (c->refine && !c->replay)
        return vgs__fail(err, VGS_E_ARG, "config.refine = %d: must be 0 without replay", c->refine);
    if ((double)c->batch * c->replay * c->energy.dim > 1e9)
        return vgs__fail(err, VGS_E_ARG, "config: batch = %d times replay = %d times dim = %d is too large",
                         c->batch, c->replay, c->energy.dim);
    if ((double)c->batch * (c->steps + 1) * c->energy.dim > 1e9)
        return vgs__fail(err, VGS_E_ARG, "config: batch = %d times steps = %d times dim = %d is too large",
                         c->batch, c->steps, c->energy.dim);
    if (c->on_sphere && (c->alpha != VGS_VE || vgs__is_particles(c) || c->energy.dim < 2))
        return vgs__fail(err, VGS_E_ARG, "config.on_sphere = 1: needs alpha ve, no particles and dim >= 2");
    if (c->on_sphere && c->sigma_lr > 0.0f)
        return vgs__fail(err, VGS_E_ARG, "config.sigma_lr = %g: a sphere has no s0; leave it 0",
                         (double)c->sigma_lr);
    return vgs__net_check(&c->net, err);
}

VGS__DEF vgs_status vgs_config_resolve(const vgs_config *cfg, vgs_config *resolved, vgs_error *err)
{
    vgs_status st;
    *resolved = *cfg;
    vgs__fill_defaults(resolved);
    st = vgs__check_config(resolved, err);
    if (st == VGS_OK && resolved->init_sigma == 0.0f && !resolved->on_sphere)
        resolved->init_sigma = (float)vgs_schedule_fill(resolved, NULL, NULL);
    return st;
}

VGS__DEF double vgs_schedule_fill(const vgs_config *c, float *s2, float *a)
{
    double sum = 0.0, lo = (double)c->s2_start, hi = (double)c->s2_end, v = lo;
    int t;
    for (t = 0; t < c->steps; ++t) {
        double u = c->steps > 1 ? (double)t / (c->steps - 1) : 0.0, q = sqrt(lo) + u * (sqrt(hi) - sqrt(lo));
        switch (c->schedule) {
        case VGS_LINEAR:   v = lo + u * (hi - lo); break;
        case VGS_QUAD:     v = q * q; break;
        case VGS_SIGMOID:  v = lo + (hi - lo) / (1.0 + exp(6.0 - 12.0 * u)); break;
        case VGS_EXP:      v = exp(log(lo) + u * (log(hi) - log(lo))); break;
        case VGS_CONSTANT: v = lo; break;
        }
        sum += v;
        if (!s2 || !a) continue;
        s2[t] = (float)v;
        a[t] = c->alpha == VGS_VP ? (float)(1.0 / sqrt(1.0 - v)) : 1.0f;
    }
    if (c->init_sigma > 0.0f) return (double)c->init_sigma;
    return c->alpha == VGS_VP ? 1.0 : sqrt(1.0 + sum);
}

typedef enum vgs__field_type { VGS__INT, VGS__FLOAT, VGS__BOOL, VGS__ENUM, VGS__U64 } vgs__field_type;

static const struct {
    const char *name;
    vgs__field_type type;
    size_t at;
    const char *choices, *help;
} vgs__fields[] = {
#define VGS__F(field, type, choices, help) { #field, type, offsetof(vgs_config, field), choices, help },
#define VGS__N(field, type, choices, help) { #field, type, offsetof(vgs_config, net.field), choices, help },
    VGS__F(length_scale, VGS__FLOAT, NULL, "std of a coordinate of the samples, for the defaults")
    VGS__F(detail_scale, VGS__FLOAT, NULL, "width of the finest feature, for the defaults")
    VGS__F(steps, VGS__INT, NULL, "T, steps from noise to sample")
    VGS__F(schedule, VGS__ENUM, "exp linear quad sigmoid constant", "of s_t^2 over t")
    VGS__F(s2_start, VGS__FLOAT, NULL, "s_t^2 at t = 0")
    VGS__F(s2_end, VGS__FLOAT, NULL, "s_t^2 at t = T-1")
    VGS__F(alpha, VGS__ENUM, "ve vp", "variance exploding or preserving")
    VGS__F(init_sigma, VGS__FLOAT, NULL, "s0 at the start of training")
    VGS__F(tau, VGS__FLOAT, NULL, "temperature")
    VGS__F(batch, VGS__INT, NULL, "trajectories an iteration")
    VGS__F(passes, VGS__INT, NULL, "passes over the transitions an iteration")
    VGS__F(value_lr, VGS__FLOAT, NULL, "learning rate of the value network")
    VGS__F(lr_half, VGS__FLOAT, NULL, "iterations in which value_lr halves, 0 = never")
    VGS__F(sigma_lr, VGS__FLOAT, NULL, "learning rate of s0, 0 = fixed")
    VGS__F(target_ema, VGS__FLOAT, NULL, "share of the old target network kept")
    VGS__F(lambda, VGS__FLOAT, NULL, "TD(lambda): how far targets follow the trajectory")
    VGS__F(explore, VGS__FLOAT, NULL, "noise multiplier while training")
    VGS__F(replay, VGS__INT, NULL, "iterations whose samples are started from again, 0 = none")
    VGS__F(refine, VGS__INT, NULL, "MALA steps on samples that are kept for replay")
    VGS__F(correct, VGS__INT, NULL, "MALA steps on the value in front of every step of a draw")
    VGS__F(slope_loss, VGS__FLOAT, NULL, "weight of the loss of the value's gradient, 0 = none")
    VGS__F(loss, VGS__ENUM, "smooth_l1 l2 l1", "of the TD error")
    VGS__F(energy_max, VGS__FLOAT, NULL, "energy is cut here, 0 = not")
    VGS__F(drift_max, VGS__FLOAT, NULL, "limit of the drift in units of sigma_t sqrt(D), 1e30 = none")
    VGS__F(grad_max, VGS__FLOAT, NULL, "limit of the gradient norm, 1e30 = none")
    VGS__F(dim_effective, VGS__INT, NULL, "D of the method")
    VGS__F(no_base, VGS__BOOL, NULL, "mlp, egnn: without the Gaussian base of the value")
    VGS__F(one_step, VGS__BOOL, NULL, "targets of one step with fresh noise, as published")
    VGS__F(fixed_kernel, VGS__BOOL, NULL, "steps keep drift and noise factors of 1, as published")
    VGS__F(explicit_drift, VGS__BOOL, NULL, "drift from the value after the step, as published")
    VGS__F(local_noise, VGS__BOOL, NULL, "noise of a step from the curvature of V where it starts")
    VGS__F(unclamped_drift, VGS__BOOL, NULL, "last drift ignores energy_max")
    VGS__F(scale_by_dim, VGS__BOOL, NULL, "network gives V/D")
    VGS__F(on_sphere, VGS__BOOL, NULL, "samples live on |x| = 1")
    VGS__F(skip_final_noise, VGS__BOOL, NULL, "leave out the last noise when drawing")
    VGS__F(seed, VGS__U64, NULL, "of weights, noise and shuffles")
    { "value", VGS__ENUM, offsetof(vgs_config, net.kind), "mlp temb deeper deeperv2 deeperv3 egnn",
      "value network" },
    VGS__N(wrapper, VGS__ENUM, "none sorted reciprocal", "invariant wrapper of the value network")
    VGS__N(hidden, VGS__INT, NULL, "width of the value network")
    VGS__N(layers, VGS__INT, NULL, "hidden layers (mlp) or rounds (egnn)")
    VGS__N(time_dim, VGS__INT, NULL, "width of the time embedding")
    VGS__N(time_hidden, VGS__INT, NULL, "width of te (mlp, deeper, deeperv3)")
    VGS__N(relu, VGS__BOOL, NULL, "mlp: ReLU in place of SiLU")
    VGS__N(move_coordinates, VGS__BOOL, NULL, "egnn: layers move the points")
    VGS__N(windows, VGS__INT, NULL, "Gaussians, x_scale apart, of an mlp's x, of an egnn's distances")
    VGS__N(x_scale, VGS__FLOAT, NULL, "mlp sees x / x_scale; distance and width of the windows")
#undef VGS__F
#undef VGS__N
};
enum { VGS__FIELD_COUNT = (int)(sizeof vgs__fields / sizeof *vgs__fields) };

VGS__DEF const char *vgs_field_name(int i)
{
    return i >= 0 && i < VGS__FIELD_COUNT ? vgs__fields[i].name : NULL;
}
VGS__DEF const char *vgs_field_help(int i)
{
    return i >= 0 && i < VGS__FIELD_COUNT ? vgs__fields[i].help : NULL;
}

static const vgs__limit *vgs__limit_find(const vgs__limit *l, size_t n, const char *name)
{
    for (; n > 0; --n, ++l)
        if (!strcmp(l->name, name)) return l;
    return NULL;
}

VGS__DEF void vgs_field_allowed(int i, char text[64])
{
    const vgs__limit *l;
    text[0] = '\0';
    if (!vgs_field_name(i)) return;
    switch (vgs__fields[i].type) {
    case VGS__BOOL: snprintf(text, 64, "0 or 1"); break;
    case VGS__U64:  snprintf(text, 64, "0..2^64-1"); break;
    case VGS__ENUM: snprintf(text, 64, "%s", vgs__fields[i].choices); break;
    default:
        l = vgs__limit_find(vgs__limits, (size_t)VGS__LIMITS, vgs__fields[i].name);
        if (!l)
            l = vgs__limit_find(vgs__net_limits, sizeof vgs__net_limits / sizeof *vgs__net_limits,
                                vgs__fields[i].name);
        if (l) vgs__limit_text(l, text);
    }
}

/* k-th of the space-separated words; its length, 0 if there are not so many. */
static int vgs__word(const char *words, int k, const char **start)
{
    const char *end;
    for (; k > 0 && words; --k) {
        words = strchr(words, ' ');
        if (words) ++words;
    }
    if (!words) return 0;
    end = strchr(words, ' ');
    *start = words;
    return end ? (int)(end - words) : (int)strlen(words);
}

/* Decimal numbers are written with a point, whatever the locale says. */
static bool vgs__parse_double(const char *s, double *v)
{
    char copy[64], *end, point = '.';
    size_t i, n = strlen(s);
    char probe[8];
    snprintf(probe, sizeof probe, "%.1f", 0.5);
    point = probe[1];
    if (n == 0 || n >= sizeof copy || strchr(" \t\n", s[0])) return false;
    for (i = 0; i <= n; ++i) copy[i] = s[i] == '.' ? point : s[i];
    *v = strtod(copy, &end);
    return *end == '\0';
}

static void vgs__print_double(char *text, size_t size, double v, int digits)
{
    char *p;
    snprintf(text, size, "%.*g", digits, v);
    for (p = text; *p; ++p) if (*p == ',') *p = '.';
}

static vgs_status vgs__set_enum(void *at, const char *choices, const char *name, const char *value,
                                vgs_error *err)
{
    const char *w = NULL;
    int k, n;
    for (k = 0; (n = vgs__word(choices, k, &w)) > 0; ++k)
        if ((size_t)n == strlen(value) && !strncmp(w, value, (size_t)n)) {
            memcpy(at, &k, sizeof k);                                /* every enum here has the size of int */
            return VGS_OK;
        }
    return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be one of: %s", name, value, choices);
}

VGS__DEF vgs_status vgs_field_set(vgs_config *cfg, const char *name, const char *value, vgs_error *err)
{
    double v = 0.0;
    char *at, *end;
    int i, n;
    float f;
    for (i = 0; i < VGS__FIELD_COUNT && strcmp(vgs__fields[i].name, name); ++i) {}
    if (i == VGS__FIELD_COUNT) return vgs__fail(err, VGS_E_ARG, "%.60s: there is no such field", name);
    at = (char *)cfg + vgs__fields[i].at;
    if (vgs__fields[i].type == VGS__ENUM) return vgs__set_enum(at, vgs__fields[i].choices, name, value, err);
    if (vgs__fields[i].type == VGS__U64) {
        uint64_t u = strtoull(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || strlen(value) > 20 ||
            (u == UINT64_MAX && strcmp(value, "18446744073709551615")))
            return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be an integer in 0..2^64-1", name, value);
        memcpy(at, &u, sizeof u);
        return VGS_OK;
    }
    if (!vgs__parse_double(value, &v))
        return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be a number", name, value);
    n = v >= -2147483648.0 && v <= 2147483647.0 ? (int)v : 0;
    switch (vgs__fields[i].type) {
    case VGS__INT:
        if ((double)n != v) return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be an integer", name, value);
        memcpy(at, &n, sizeof n);
        break;
    case VGS__BOOL:
        if (v != 0.0 && v != 1.0) return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be 0 or 1", name, value);
        *(bool *)(void *)at = v != 0.0;
        break;
    default:
        if (!(fabs(v) <= (double)FLT_MAX))
            return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be finite", name, value);
        f = (float)v;
        memcpy(at, &f, sizeof f);
        break;
    }
    return VGS_OK;
}

VGS__DEF void vgs_field_get(const vgs_config *cfg, int i, char text[32])
{
    const char *at, *w = "";
    uint64_t u;
    int n;
    float f;
    text[0] = '\0';
    if (!vgs_field_name(i)) return;
    at = (const char *)cfg + vgs__fields[i].at;
    switch (vgs__fields[i].type) {
    case VGS__INT: memcpy(&n, at, sizeof n); snprintf(text, 32, "%d", n); break;
    case VGS__BOOL: snprintf(text, 32, "%d", *(const bool *)(const void *)at ? 1 : 0); break;
    case VGS__FLOAT: memcpy(&f, at, sizeof f); vgs__print_double(text, 32, (double)f, 9); break;
    case VGS__U64: memcpy(&u, at, sizeof u); snprintf(text, 32, "%llu", (unsigned long long)u); break;
    case VGS__ENUM:
        memcpy(&n, at, sizeof n);
        n = vgs__word(vgs__fields[i].choices, n, &w);
        snprintf(text, 32, "%.*s", n, w);
        break;
    }
}

/* ==== >>sampler =====================================================================================
   All state is in buffers of the backend. One iteration is a few compiled graphs, run with other scalars:
     start   x_0 = c s0 eps
     step    x_t -> x_{t+1}, mu_t, |mu_t|^2 with V_{t+1}; last: the same with E
     target  y of the transitions of one t, along the path or with one_step; target_last: with E
     fresh   y where the path explores: one step of fresh noise
     slope   what grad V should be, along the path; that of the last step comes with target_last
     split   x +- d of a minibatch, d along the error of grad V
     fit     one shuffled minibatch: V, loss, gradients, Adam
     sigma   Adam on s0         ema: the target network follows
     factor  kappa_t and rho_t from the drift at x'; factor_last: with E
     keep    the samples of an iteration and their log w; recall: some of them again, by weight
     stand, walk   E and its gradient where samples are; a MALA step from there
     back    x_t from x_{t+1} by the noising chain
   and, made for a call only,
     score   x_t from x_{t+1} by the noising chain, and what the sampler's step costs; score_last: with E
     value   V_t of a population
   Every transition is used once a pass, so its target, with one_step from noise "drawn anew", can be made for
   a whole pass at once, t by t: E is then called for the rows of t = T-1 only. */

typedef struct vgs__noise { vgs_scalar purpose, t, row, iteration, seed0, seed1; } vgs__noise;

typedef struct vgs__stage {
    vgs_graph *g;
    vgs_var params, s0, x, mu, musq, cost, later, path, path_out, kappa, root, width, axes,
        width_out, axes_out, here, slope, length, out, flag;         /* here, slope, length: of MALA     */
    vgs_scalar a, drift, limit, sigma, inv_sigma, c, t_next, step, row;  /* row: for what check says    */
    vgs_scalar inv_a, back;                          /* of the noising chain: 1/a_t and s_t           */
    vgs_scalar rate, rate_add;                       /* of MALA: how its step follows acceptance      */
    vgs_scalar nudge, curve;                         /* of local_noise: h, and -s_t^2/(tau h)         */
    vgs_scalar value_scale, cost_scale, cost_add;    /* target                                        */
    vgs__noise noise, accept;
} vgs__stage;

struct vgs_sampler {
    vgs_config c;
    vgs_backend *own, *b;                        /* own: to be freed; b: in use                       */
    vgs_net *net;
    float *s2, *a;                               /* [T]                                               */
    int64_t iteration, adam_step, sigma_step;
    double energy_calls;
    int capacity;                                /* rows of the graphs: batch or draw                 */
    vgs_buffer *online, *target, *adam_m, *adam_v, *grad;            /* [P]                           */
    vgs_buffer *sigma;                           /* s0, its gradient, Adam's two moments: at 0 16 32 48 */
    vgs_buffer *flag, *loss_log;                 /* int32 [4]; [passes T]                             */
    int factors;                                 /* F: D, or 1 for particles                          */
    vgs_buffer *factor;                          /* [T, 2, F]: kappa_t, sqrt rho_t                    */
    vgs_buffer *pool_x, *pool_mu, *pool_musq, *pool_cost, *pool_y;   /* rows T B; y: passes T B         */
    vgs_buffer *pool_width, *pool_axes;          /* [T B, D], [T B, D D]: of local_noise              */
    vgs_buffer *draw_width, *draw_axes;          /* [capacity, D], [capacity, D D]                    */
    vgs_buffer *pool_path;                       /* [T B]: y of lambda = 1 and the true E, for log w  */
    vgs_buffer *pool_slope;                      /* [T B, D]: what grad V should be                     */
    vgs_buffer *pair_x, *pair_push;              /* [2 B, D], x +- d; [B], the loss of V(x + d) - V(x - d) */
    vgs_buffer *kept_x, *kept_weight;            /* [replay B, D], log w [replay B]                   */
    int64_t kept;                                /* iterations that were kept so far                  */
    vgs_buffer *walk_x, *walk_e, *walk_g, *walk_step;  /* [B, D], [B], [B, D]; MALA's h               */
    vgs_buffer *draw_x, *draw_mu, *draw_musq, *draw_cost;  /* [2 capacity, D], [capacity, D], [capacity]  */
    float *correct_step;                         /* [T]: h of MALA on V_t, if correct_known           */
    bool correct_known;                          /* for the weights as they are                       */
    size_t bytes;
    vgs__stage start, step, last, target_step, target_last, fresh, fit, sigma_fit, ema, factor_step,
        factor_last, keep, recall, back, stand, walk, slope, split;
    vgs_scalar keep_first;
    vgs_scalar split_first;
    vgs_scalar fit_first, fit_pass, fit_iteration, fit_log, fit_lr, fit_vs, sigma_lr, sigma_vs;
};

#define VGS__RHO_MIN 0.6f                        /* of local_noise: a weight of half has no variance  */
#define VGS__RHO_MAX 4.0f
#define VGS__NUDGE   0.25                        /* h in units of s_t                                 */
#define VGS__ACCEPTANCE 0.574                    /* of MALA (Roberts and Rosenthal 1998)              */
#define VGS__WALK_RATE  0.1

/* ---- recording the stages ------------------------------------------------------------------------ */

static vgs__noise vgs__noise_slots(vgs_graph *g)
{
    vgs__noise n;
    n.purpose = vgs_scalar_create(g, 0);
    n.t = vgs_scalar_create(g, 0);
    n.row = vgs_scalar_create(g, 0);
    n.iteration = vgs_scalar_create(g, 0);
    n.seed0 = vgs_scalar_create(g, 0);
    n.seed1 = vgs_scalar_create(g, 0);
    return n;
}

static void vgs__noise_attrs(vgs_graph *g, vgs_var v, const vgs__noise *n)
{
    vgs__slot_i(g, v, 0, n->purpose);
    vgs__slot_i(g, v, 1, n->t);
    vgs__slot_i(g, v, 2, n->row);
    vgs__slot_i(g, v, 3, n->iteration);
    vgs__slot_i(g, v, 4, n->seed0);
    vgs__slot_i(g, v, 5, n->seed1);
}

/* eps [B,D], in the mean-free subspace for particles */
static vgs_var vgs__record_noise(const vgs_sampler *s, vgs_graph *g, const vgs__noise *n)
{
    vgs_var eps = vgs__push_op(g, VGS_OP_NORMAL, -1, s->c.energy.dim, -1, -1, -1);
    vgs__noise_attrs(g, eps, n);
    return vgs__is_particles(&s->c) ? vgs_remove_mean(g, eps, s->c.energy.particles) : eps;
}

static void vgs__noise_set(vgs_graph *g, const vgs__noise *n, int purpose, int t, uint32_t row,
                           uint64_t iteration, uint64_t seed)
{
    vgs_scalar_set(g, n->purpose, purpose);
    vgs_scalar_set(g, n->t, t);
    vgs_scalar_set(g, n->row, row);
    vgs_scalar_set(g, n->iteration, (double)(uint32_t)iteration);
    vgs_scalar_set(g, n->seed0, (double)(uint32_t)seed);
    vgs_scalar_set(g, n->seed1, (double)(uint32_t)(seed >> 32));
}

/* An op of the shape of its first operand; b may be absent. */
static vgs_var vgs__binary_op(vgs_graph *g, int op, vgs_var a, vgs_var b)
{
    int id = vgs__operand(g, vgs_op_name(op), a);
    if (id < 0) return vgs__no_var();
    return vgs__push_op(g, op, g->node[id].rows, g->node[id].cols, id, vgs__id(g, b), -1);
}

/* f0 a + f1 b + f2 c */
static vgs_var vgs__combine(vgs_graph *g, vgs_var a, float fa, vgs_var b, float fb, vgs_var c)
{
    int ia = vgs__operand(g, "combine", a), ib = vgs__operand(g, "combine", b);
    vgs_var v;
    if (ia < 0 || ib < 0) return vgs__no_var();
    v = vgs__push_op(g, VGS_OP_COMBINE, g->node[ia].rows, g->node[ia].cols, ia, ib, vgs__id(g, c));
    vgs__attr_f(g, v, 0, fa);
    vgs__attr_f(g, v, 1, fb);
    vgs__attr_f(g, v, 2, 1.0f);
    return v;
}

static void vgs__check(vgs_graph *g, vgs_var x, const vgs__stage *st, int what, bool inf_passes)
{
    vgs_var v = vgs__effect(g, VGS_OP_CHECK, x, st->flag, vgs__no_var());
    vgs__slot_i(g, v, 0, st->step);
    vgs__attr_i(g, v, 1, what);
    vgs__slot_i(g, v, 2, st->row);
    vgs__attr_i(g, v, 3, inf_passes);
}

enum { VGS__BAD_ENERGY = 1, VGS__BAD_GRADIENT, VGS__BAD_VALUE };

/* Each row D times over; or its adjoint, the sum of each D rows. */
static vgs_var vgs__record_copies(const vgs_sampler *s, vgs_graph *g, vgs_var x, bool sum)
{
    int d = s->c.energy.dim;
    int32_t *same = (int32_t *)vgs__alloc((size_t)d, sizeof *same);              /* zeros              */
    vgs_var v;
    if (!same) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: local_noise of %d dimensions", d);
    v = sum ? vgs_segment_sum(g, x, 1, same, d) : vgs_segment_gather(g, x, 1, same, d);
    vgs__free(same);
    return v;
}

/* What local_noise makes of white noise: stretched by st->width along each of st->axes; or back again. */
static vgs_var vgs__record_stretch(const vgs_sampler *s, vgs__stage *st, vgs_var eps, bool back)
{
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    vgs_var axes, along;
    if (!vgs__exists(st->width)) return eps;
    axes = vgs_reshape(g, st->axes, d);
    along = vgs_sum_cols(g, vgs_mul(g, vgs__record_copies(s, g, eps, false), axes));
    along = vgs_reshape(g, along, d);
    along = back ? vgs_div(g, along, st->width) : vgs_mul(g, along, st->width);
    return vgs__record_copies(s, g, vgs_mul(g, axes, vgs_reshape(g, along, 1)), true);
}

/* The step in units of sigma, c sqrt(rho) eps - mu/sigma: x' = a x + sigma u; local_noise stretches eps. */
static vgs_var vgs__record_push(vgs_sampler *s, vgs__stage *st, vgs_var mu, vgs_var eps)
{
    vgs_var v;
    eps = vgs__record_stretch(s, st, eps, false);
    if (!s->c.fixed_kernel) eps = vgs_mul(st->g, eps, st->root);
    v = vgs__combine(st->g, eps, 1.0f, mu, -1.0f, vgs__no_var());
    vgs__slot_f(st->g, v, 0, st->c);
    vgs__slot_f(st->g, v, 1, st->inv_sigma);
    return v;
}

/* Where the push leads; on the sphere the same move along the great circle. */
static vgs_var vgs__record_move(vgs_sampler *s, vgs__stage *st, vgs_var x, vgs_var push)
{
    vgs_graph *g = st->g;
    vgs_var v = vgs__combine(g, x, 1.0f, push, 1.0f, vgs__no_var());
    vgs__slot_f(g, v, 0, st->a);
    vgs__slot_f(g, v, 1, st->sigma);
    if (!s->c.on_sphere) return v;
    push = vgs_affine_by(g, push, st->sigma, vgs_scalar_create(g, 0));
    return vgs__binary_op(g, VGS_OP_SPHERE_MOVE, x, push);
}

/* log pi(x'|x) - log qt(x|x') without its constants: (|u|^2 - |eps|^2)/2 = (u - eps).(u + eps)/2, less the
   logarithm of the width along each axis */
static vgs_var vgs__record_cost(vgs__stage *st, vgs_var push, vgs_var eps)
{
    vgs_graph *g = st->g;
    vgs_var v = vgs_mul(g, vgs_sub(g, push, eps), vgs_add(g, push, eps));
    v = vgs_affine(g, vgs_sum_cols(g, v), 0.5f, 0.0f);
    if (!vgs__exists(st->width)) return v;
    return vgs_sub(g, v, vgs_sum_cols(g, vgs_log(g, st->width)));
}

/* Where widths and axes are kept that later stages need; a stage that uses them calls vgs__kept_noise. */
static void vgs__width_leaves(vgs_sampler *s, vgs__stage *st)
{
    int d = s->c.energy.dim;
    st->width_out = vgs__leaf(st->g, VGS_OP_STATE, -1, d, VGS_F32);
    vgs_bind(st->g, st->width_out, s->pool_width, 0, NULL);
    st->axes_out = vgs__leaf(st->g, VGS_OP_STATE, -1, d * d, VGS_F32);
    vgs_bind(st->g, st->axes_out, s->pool_axes, 0, NULL);
    st->nudge = vgs_scalar_create(st->g, 1);
    st->curve = vgs_scalar_create(st->g, 0);
}

static void vgs__kept_noise(const vgs_sampler *s, vgs__stage *st)
{
    if (!s->c.local_noise) return;
    st->width = st->width_out;
    st->axes = st->axes_out;
}

static void vgs__stage_leaves(vgs_sampler *s, vgs__stage *st, vgs_buffer *params)
{
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    st->params = vgs_params(g, vgs_net_size(s->net));
    vgs_bind(g, st->params, params, 0, NULL);
    st->flag = vgs_state(g, 1, 4, VGS_I32);
    vgs_bind(g, st->flag, s->flag, 0, NULL);
    st->x = vgs_input(g, d);
    vgs_bind(g, st->x, s->pool_x, 0, NULL);
    st->mu = vgs__leaf(g, VGS_OP_STATE, -1, d, VGS_F32);
    vgs_bind(g, st->mu, s->pool_mu, 0, NULL);
    st->musq = vgs__leaf(g, VGS_OP_STATE, -1, 1, VGS_F32);
    vgs_bind(g, st->musq, s->pool_musq, 0, NULL);
    st->cost = vgs__leaf(g, VGS_OP_STATE, -1, 1, VGS_F32);
    vgs_bind(g, st->cost, s->pool_cost, 0, NULL);
    st->kappa = vgs_state(g, 1, s->factors, VGS_F32);
    vgs_bind(g, st->kappa, s->factor, 0, NULL);
    st->root = vgs_state(g, 1, s->factors, VGS_F32);
    vgs_bind(g, st->root, s->factor, (size_t)s->factors, NULL);
    if (s->c.local_noise) vgs__width_leaves(s, st);
    st->a = vgs_scalar_create(g, 1);
    st->drift = vgs_scalar_create(g, 1);
    st->limit = vgs_scalar_create(g, 1);
    st->sigma = vgs_scalar_create(g, 1);
    st->inv_sigma = vgs_scalar_create(g, -1);
    st->c = vgs_scalar_create(g, 1);
    st->t_next = vgs_scalar_create(g, 0);
    st->step = vgs_scalar_create(g, 0);
    st->row = vgs_scalar_create(g, 0);
    st->value_scale = vgs_scalar_create(g, 1);
    st->cost_scale = vgs_scalar_create(g, 1);
    st->cost_add = vgs_scalar_create(g, 0);
    st->noise = vgs__noise_slots(g);
    st->accept = vgs__noise_slots(g);
}

/* The variance at step t of the noising chain, from that at t + 1. */
static double vgs__noised(const vgs_sampler *s, int t, double var)
{
    return var / ((double)s->a[t] * (double)s->a[t]) + (double)s->s2[t];
}

/* v_t [B,1] of the noising chain from a variance of var: factor / v_t, or its root if factor is 0. */
static vgs_var vgs__record_variance(const vgs_sampler *s, vgs_graph *g, vgs_var t, double var, double factor)
{
    float *k = (float *)vgs__alloc((size_t)s->c.steps, sizeof *k);
    vgs_var v;
    int i;
    if (!k) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: value of %d steps", s->c.steps);
    for (i = s->c.steps - 1; i >= 0; --i) {
        var = vgs__noised(s, i, var);
        k[i] = (float)(factor > 0.0 ? factor / var : sqrt(var));
    }
    v = vgs_gather(g, vgs_table(g, k, s->c.steps, 1), t);
    vgs__free(k);
    return v;
}

/* factor / v_t [B,1] of the Gaussian of std length_scale. */
static vgs_var vgs__record_precision(const vgs_sampler *s, vgs_graph *g, vgs_var t, double factor)
{
    return vgs__record_variance(s, g, t, (double)s->c.length_scale * (double)s->c.length_scale, factor);
}

/* V, or V/D if scale_by_dim: what the network gives and, for our own ones, tau |x|^2 / (2 v_t). That is exact
   for the Gaussian up to O(step), and keeps samples where they are until the network has learned. The mlp
   sees x / sqrt(1 + x^2 / (16 v_t)), which hardly differs within two standard deviations and ends at four:
   far out, where it never learned, it tells nothing, and the Gaussian brings the sample back. */
static vgs_var vgs__record_value(const vgs_sampler *s, vgs_graph *g, vgs_var params, vgs_var x, vgs_var t)
{
    bool egnn = s->c.net.kind == VGS_NET_EGNN;
    double half = 0.5 * (double)s->c.tau / (s->c.scale_by_dim ? s->c.dim_effective : 1);
    vgs_var u = x, v, base;
    if (s->c.no_base || (s->c.net.kind != VGS_NET_MLP && !egnn))
        return vgs_net_apply(g, s->net, params, x, t, s->c.steps);
    if (!egnn && s->c.net.wrapper == VGS_WRAPPER_NONE) {
        u = vgs_mul(g, vgs_square(g, x), vgs__record_precision(s, g, t, 1.0 / 16.0));
        u = vgs_div(g, x, vgs_sqrt(g, vgs_affine(g, u, 1.0f, 1.0f)));
    }
    v = vgs_net_apply(g, s->net, params, u, t, s->c.steps);
    base = vgs_mul(g, vgs_sum_cols(g, vgs_square(g, x)), vgs__record_precision(s, g, t, half));
    return vgs_add(g, v, base);
}

static vgs_var vgs__value_at(vgs_sampler *s, vgs__stage *st, vgs_var x)
{
    int rows = -1, cols;
    vgs_var t;
    vgs__node *n;
    vgs_shape(st->g, x, &rows, &cols);
    t = vgs__push_op(st->g, VGS_OP_FILL_INT, rows, 1, -1, -1, -1);
    if ((n = vgs__node_of(st->g, t)) != NULL) n->type = VGS_I32;
    vgs__slot_i(st->g, t, 0, st->t_next);
    return vgs__record_value(s, st->g, st->params, x, t);
}

/* The drift of step t before the factor s^2 a^2 / tau: grad V_{t+1}, or grad E in the last step. */
static vgs_var vgs__record_slope(vgs_sampler *s, vgs__stage *st, vgs_var z, bool last)
{
    vgs_graph *g = st->g;
    vgs_var e = last ? vgs_energy_of(g, &s->c.energy, z) : vgs__value_at(s, st, z), slope = vgs__no_var();
    bool cut = last && s->c.energy_max != 0.0f;
    vgs_gradient(g, e, &z, 1, &slope);
    if (last) vgs__check(g, e, st, VGS__BAD_ENERGY, cut);
    if (cut && !s->c.unclamped_drift) {
        slope = vgs__binary(g, VGS_OP_MASK_ABOVE, slope, e);
        vgs__attr_f(g, slope, 0, s->c.energy_max);
    } else if (cut) {
        slope = vgs_clamp(g, slope, -1e15f, 1e15f);                  /* squares must stay finite       */
    }
    return slope;
}

/* The published drift at x from its slope, limited. */
static vgs_var vgs__record_drift(vgs_sampler *s, vgs__stage *st, vgs_var x, vgs_var slope, bool last)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    bool invariant = s->c.net.wrapper != VGS_WRAPPER_NONE || s->c.net.kind == VGS_NET_EGNN;
    vgs_var mu = vgs_affine_by(g, slope, st->drift, none);
    if (vgs__is_particles(&s->c) && !invariant && !last) mu = vgs_remove_mean(g, mu, s->c.energy.particles);
    if (s->c.on_sphere) mu = vgs__binary_op(g, VGS_OP_SPHERE_TANGENT, mu, x);
    if (s->c.drift_max < 1e30f) {
        mu = vgs__unary(g, VGS_OP_LIMIT_ROWS, mu);
        vgs__slot_f(g, mu, 0, st->limit);
    }
    vgs__check(g, mu, st, last ? VGS__BAD_GRADIENT : VGS__BAD_VALUE, false);
    return mu;
}

/* The directions e_j of local_noise [1, D D]: unit vectors, for particles their mean-free parts. */
static vgs_var vgs__record_directions(const vgs_sampler *s, vgs_graph *g)
{
    int d = s->c.energy.dim, n = s->c.energy.particles, i, j;
    float *e = (float *)vgs__alloc((size_t)d * (size_t)d, sizeof *e);
    vgs_var v;
    if (!e) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: local_noise of %d dimensions", d);
    for (i = 0; i < d; ++i)
        for (j = 0; j < d; ++j)
            e[i * d + j] = (float)(i == j) - (n && (i - j) % (d / n) == 0 ? 1.0f / (float)n : 0.0f);
    v = vgs_table(g, e, 1, d * d);
    vgs__free(e);
    return v;
}

/* The exact reverse kernel has the covariance I - s_t^2 V'' / tau, in units of s_t^2 a_t^2, V'' the second
   derivatives of V: st->axes are its eigenvectors, st->width the roots of its eigenvalues, within limits, for
   V may be wrong. V'' is from the slopes at x + h e_j and at x, their difference over h. */
static void vgs__record_local(vgs_sampler *s, vgs__stage *st, vgs_var x, vgs_var slope)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    vgs_var e = vgs__record_directions(s, g), there, v;
    there = vgs_reshape(g, vgs__record_copies(s, g, x, false), d * d);
    there = vgs_reshape(g, vgs_add(g, there, vgs_affine_by(g, e, st->nudge, none)), d);
    v = vgs_sub(g, vgs__record_slope(s, st, there, false), vgs__record_copies(s, g, slope, false));
    if (vgs__is_particles(&s->c)) v = vgs_remove_mean(g, v, s->c.energy.particles);
    v = vgs_reshape(g, v, d * d);
    if (vgs__is_particles(&s->c))                /* over the e_j, too: differences keep it to first order */
        v = vgs_remove_mean(g, v, s->c.energy.particles);
    v = vgs_clamp(g, vgs_affine_by(g, v, st->curve, none), -1e6f, 1e6f);         /* squares stay finite */
    st->axes = vgs__unary(g, VGS_OP_EIGEN, v);
    vgs__attr_i(g, st->axes, 0, d);
    if (!vgs__exists(st->axes)) return;
    v = vgs_affine(g, vgs__tap(g, vgs__id(g, st->axes), d, VGS_F32), 1.0f, 1.0f);
    st->width = vgs_sqrt(g, vgs_clamp(g, v, VGS__RHO_MIN, VGS__RHO_MAX));
}

/* The slope that the drift from x goes by: st->slope, the gradient of V_t there, if these very rows have just
   been corrected. */
static vgs_var vgs__record_slope_from(vgs_sampler *s, vgs__stage *st, vgs_var x, bool last)
{
    const vgs_scalar none = { 0 };
    bool ahead = s->c.alpha == VGS_VP && (last || s->c.explicit_drift);
    if (!vgs__exists(st->slope))
        return vgs__record_slope(s, st, ahead ? vgs_affine_by(st->g, x, st->a, none) : x, last);
    if (!s->c.scale_by_dim) return st->slope;
    return vgs_affine(st->g, st->slope, 1.0f / (float)s->c.dim_effective, 0.0f);         /* V/D's      */
}

/* The step from x to a_t x - mu + sigma sqrt(rho) eps: mu, and the noise of local_noise. */
static vgs_var vgs__record_kernel(vgs_sampler *s, vgs__stage *st, vgs_var x, bool last)
{
    vgs_graph *g = st->g;
    vgs_var slope = vgs__record_slope_from(s, st, x, last);
    vgs_var mu = vgs__record_drift(s, st, x, slope, last);
    if (s->c.local_noise && !last) vgs__record_local(s, st, x, slope);
    return s->c.fixed_kernel ? mu : vgs_mul(g, mu, st->kappa);
}

static void vgs__record_step(vgs_sampler *s, vgs__stage *st, bool last, bool corrected)
{
    vgs_graph *g = st->g;
    vgs_var mu, eps, push;
    vgs__stage_leaves(s, st, s->target);
    if (corrected) st->slope = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(g, st->out, s->pool_x, 0, NULL);
    mu = vgs__record_kernel(s, st, st->x, last);
    eps = vgs__record_noise(s, g, &st->noise);
    if (s->c.on_sphere) eps = vgs__binary_op(g, VGS_OP_SPHERE_TANGENT, eps, st->x);
    push = vgs__record_push(s, st, mu, eps);
    vgs__effect(g, VGS_OP_STORE, st->mu, mu, vgs__no_var());
    if (s->c.one_step)                           /* what its targets need                             */
        vgs__effect(g, VGS_OP_STORE, st->musq, vgs_sum_cols(g, vgs_square(g, mu)), vgs__no_var());
    if (vgs__exists(st->width)) {
        vgs__effect(g, VGS_OP_STORE, st->width_out, st->width, vgs__no_var());
        vgs__effect(g, VGS_OP_STORE, st->axes_out, st->axes, vgs__no_var());
    }
    if (!s->c.on_sphere)                         /* there are no weights there                        */
        vgs__effect(g, VGS_OP_STORE, st->cost, vgs__record_cost(st, push, eps), vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, st->out, vgs__record_move(s, st, st->x, push), vgs__no_var());
}

/* E or V at x', in units of D, E cut at energy_max; energy, if wanted: E itself */
static vgs_var vgs__record_next(vgs_sampler *s, vgs__stage *st, vgs_var next, bool last, vgs_var *energy)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs_var v;
    if (!last) return vgs_affine_by(g, vgs__value_at(s, st, next), st->value_scale, none);
    v = vgs_energy_of(g, &s->c.energy, next);
    vgs__check(g, v, st, VGS__BAD_ENERGY, s->c.energy_max != 0.0f);
    if (energy) *energy = v;
    if (s->c.energy_max != 0.0f) v = vgs_clamp(g, v, -FLT_MAX, s->c.energy_max);
    return vgs_affine_by(g, v, st->value_scale, none);
}

/* One step of fresh noise leads to x': y/D = value_scale [E or V](x') + cost_scale cost + cost_add. As
   published the cost is |mu|^2, its mean over the noise; else the one of this very step. */
static vgs_var vgs__record_one_step(vgs_sampler *s, vgs__stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs_var eps = vgs__record_noise(s, g, &st->noise), push, cost;
    vgs__kept_noise(s, st);
    if (s->c.on_sphere) eps = vgs__binary_op(g, VGS_OP_SPHERE_TANGENT, eps, st->x);
    push = vgs__record_push(s, st, st->mu, eps);
    cost = s->c.one_step ? st->musq : vgs__record_cost(st, push, eps);
    cost = vgs_affine_by(g, cost, st->cost_scale, st->cost_add);
    if (s->c.one_step && !s->c.fixed_kernel)                         /* tau (rho - 1) / 2              */
        cost = vgs_add(g, cost, vgs_affine(g, vgs_mean_cols(g, vgs_square(g, st->root)), 0.5f * s->c.tau,
                                           -0.5f * s->c.tau));
    return vgs_add(g, vgs__record_next(s, st, vgs__record_move(s, st, st->x, push), last, NULL), cost);
}

/* Along the trajectory: y_t/D = (1 - lambda) V(x_{t+1})/D + lambda y_{t+1}/D + cost_scale cost + cost_add,
   with the cost that the path had: of the same mean as the expected one, but V(x_{t+1}) + cost hardly depends
   on the noise that led to x_{t+1}. st->x is x_{t+1}, st->later y_{t+1}/D. */
static vgs_var vgs__record_return(vgs_sampler *s, vgs__stage *st, bool last, vgs_var *energy)
{
    vgs_graph *g = st->g;
    vgs_var y, next = vgs__no_var();
    bool looks = last || s->c.lambda < 1.0f;     /* at what comes next, beside the later return        */
    st->later = vgs__leaf(g, VGS_OP_STATE, -1, 1, VGS_F32);
    vgs_bind(g, st->later, s->pool_y, 0, NULL);
    if (looks) next = vgs__record_next(s, st, st->x, last, energy);
    y = last ? next : st->later;
    if (!last && looks) y = vgs__combine(g, y, s->c.lambda, next, 1.0f - s->c.lambda, vgs__no_var());
    return vgs_add(g, y, vgs_affine_by(g, st->cost, st->cost_scale, st->cost_add));
}

/* What the path costs from here on: with E, in units of D, or what it costs after the step. */
static void vgs__record_path(vgs_sampler *s, vgs__stage *st, bool last, vgs_var energy, vgs_var log_root)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs_var later = last ? vgs_affine_by(g, energy, st->value_scale, none) : st->path, v;
    v = vgs_add(g, later, vgs_affine_by(g, st->cost, st->cost_scale, st->cost_add));
    if (!s->c.fixed_kernel) v = vgs_sub(g, v, log_root);
    vgs__effect(g, VGS_OP_STORE, st->path_out, v, vgs__no_var());
}

/* For the exact value grad V_t is the mean of a_t grad V_{t+1}(x_{t+1}), and of a_t grad E(x_T) at last: its
   target follows the trajectory as that of V does. Here the one of the last step. */
static void vgs__record_last_slope(vgs_sampler *s, vgs__stage *st, vgs_var energy)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs_var slope = vgs__no_var(), out = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_gradient(g, energy, &st->x, 1, &slope);
    if (s->c.energy_max != 0.0f) {
        slope = vgs__binary(g, VGS_OP_MASK_ABOVE, slope, energy);
        vgs__attr_f(g, slope, 0, s->c.energy_max);
    }
    vgs__check(g, slope, st, VGS__BAD_GRADIENT, false);
    vgs_bind(g, out, s->pool_slope, (size_t)(s->c.steps - 1) * (size_t)s->c.batch * (size_t)s->c.energy.dim,
             NULL);
    vgs__effect(g, VGS_OP_STORE, out, vgs_affine_by(g, slope, st->a, none), vgs__no_var());
}

/* Before that: (1 - lambda) a_t grad Vbar_{t+1}(x_{t+1}), from the drift of t+1, as st->mu and st->kappa are,
   and lambda a_t times the target of t+1; st->drift and st->limit hold the two factors. */
static void vgs__record_slope_target(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    vgs_var v;
    vgs__stage_leaves(s, st, s->target);
    st->later = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(g, st->later, s->pool_slope, 0, NULL);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(g, st->out, s->pool_slope, 0, NULL);
    v = s->c.fixed_kernel ? st->mu : vgs_div(g, st->mu, st->kappa);
    v = vgs__combine(g, v, 1.0f, st->later, 1.0f, vgs__no_var());
    vgs__slot_f(g, v, 0, st->drift);
    vgs__slot_f(g, v, 1, st->limit);
    vgs__effect(g, VGS_OP_STORE, st->out, v, vgs__no_var());
}

static void vgs__record_target(vgs_sampler *s, vgs__stage *st, bool last, bool one_step)
{
    vgs_graph *g = st->g;
    vgs_var y, energy = vgs__no_var(), log_root = vgs__no_var();
    vgs__stage_leaves(s, st, s->target);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, 1, VGS_F32);
    vgs_bind(g, st->out, s->pool_y, 0, NULL);
    if (s->c.replay && !one_step) {
        st->path = vgs__leaf(g, VGS_OP_STATE, -1, 1, VGS_F32);
        vgs_bind(g, st->path, s->pool_path, 0, NULL);
        st->path_out = vgs__leaf(g, VGS_OP_STATE, -1, 1, VGS_F32);
        vgs_bind(g, st->path_out, s->pool_path, 0, NULL);
    }
    y = one_step ? vgs__record_one_step(s, st, last) : vgs__record_return(s, st, last, &energy);
    if (!s->c.fixed_kernel) {                                        /* tau log(rho) / 2               */
        log_root = vgs_affine(g, vgs_mean_cols(g, vgs_log(g, st->root)), s->c.tau, 0.0f);
        y = vgs_sub(g, y, log_root);
    }
    vgs__check(g, y, st, VGS__BAD_VALUE, false);
    vgs__effect(g, VGS_OP_STORE, st->out, y, vgs__no_var());
    if (s->c.replay && !one_step) vgs__record_path(s, st, last, energy, log_root);
    if (s->c.slope_loss > 0.0f && last) vgs__record_last_slope(s, st, energy);
}

/* The mean over rows of a b, for each factor: by column, or of the sum over columns. */
static vgs_var vgs__record_moment(const vgs_sampler *s, vgs_graph *g, vgs_var a, vgs_var b)
{
    vgs_var v = vgs_mul(g, a, b);
    return vgs_mean_rows(g, s->factors > 1 ? v : vgs_sum_cols(g, v));
}

/* The variance that local_noise leaves to each factor: of each dimension, or the mean of all. */
static vgs_var vgs__record_stretched(const vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    vgs_var v = vgs_square(g, st->width);
    if (s->factors == 1) {                       /* without those of the mean, which are 1            */
        const float f = 1.0f / (float)s->c.dim_effective;
        return vgs_affine(g, vgs_sum_cols(g, v), f, -f * (float)(d - s->c.dim_effective));
    }
    v = vgs_mul(g, vgs_reshape(g, vgs_square(g, st->axes), d), vgs_reshape(g, v, 1));
    return vgs__record_copies(s, g, v, true);
}

/* The factors that minimise the cost of one step given the value after it. With m the published drift at x
   and m' the one at x', where the step leads, for each dimension, or with the sums over all D
       kappa = <m . m'> / <m . m>,   rho = 1 / (<w> + <m' . eps> / (sigma sqrt(rho) D)),   D = 1 for one,
   averages over the batch, w the variance of eps, 1 but for local_noise; VGS__FACTOR_RATE of the way there
   each time.
   mu . eps, of mean 0, takes out noise. */
#define VGS__FACTOR_RATE 0.05f
static void vgs__record_factor(vgs_sampler *s, vgs__stage *st, bool last)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs_var eps, x, m, ahead, v, kappa, rho;
    vgs__stage_leaves(s, st, s->target);
    eps = vgs__record_noise(s, g, &st->noise);
    if (!last) vgs__kept_noise(s, st);
    x = vgs__record_move(s, st, st->x, vgs__record_push(s, st, st->mu, eps));
    ahead = vgs__record_drift(s, st, x, vgs__record_slope(s, st, x, last), last);
    eps = vgs__record_stretch(s, st, eps, false);
    m = vgs_div(g, st->mu, st->kappa);
    v = vgs_affine(g, vgs__record_moment(s, g, m, m), 1.0f, 1e-30f);
    kappa = vgs_clamp(g, vgs_div(g, vgs__record_moment(s, g, m, ahead), v), 0.2f, 1.5f);
    v = vgs_div(g, vgs__record_moment(s, g, vgs_sub(g, ahead, st->mu), eps), st->root);
    v = vgs_affine_by(g, v, st->cost_scale, none);                   /* 1/sigma or 1/(sigma D)         */
    v = vgs__exists(st->width) ? vgs_add(g, v, vgs_mean_rows(g, vgs__record_stretched(s, st)))
                               : vgs_affine(g, v, 1.0f, 1.0f);
    rho = vgs_reciprocal(g, vgs_clamp(g, v, 0.5f, 1.8f));
    kappa = vgs__combine(g, st->kappa, 1.0f - VGS__FACTOR_RATE, kappa, VGS__FACTOR_RATE, vgs__no_var());
    rho = vgs_sqrt(g, vgs__combine(g, vgs_square(g, st->root), 1.0f - VGS__FACTOR_RATE, rho, VGS__FACTOR_RATE,
                                   vgs__no_var()));
    vgs__effect(g, VGS_OP_EMA, st->kappa, kappa, st->flag);          /* keeps 0: a store, but not of what  */
    vgs__effect(g, VGS_OP_EMA, st->root, rho, st->flag);             /* a bad energy has led to            */
}

static void vgs__record_start(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    vgs_var x;
    vgs__stage_leaves(s, st, s->target);
    st->s0 = vgs_state(g, 1, 1, VGS_F32);
    vgs_bind(g, st->s0, s->sigma, 0, NULL);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(g, st->out, s->pool_x, 0, NULL);
    x = vgs_mul(g, vgs__record_noise(s, g, &st->noise), st->s0);
    x = s->c.on_sphere ? vgs__binary_op(g, VGS_OP_SPHERE_MOVE, x, vgs__no_var())
                       : vgs_affine_by(g, x, st->sigma, vgs_scalar_create(g, 0));
    vgs__effect(g, VGS_OP_STORE, st->out, x, vgs__no_var());
}

static vgs_var vgs__adam(vgs_graph *g, vgs_var p, vgs_var grad, vgs_var m, vgs_var v, vgs_var norm,
                         vgs_var flag, vgs_scalar lr, vgs_scalar vs)
{
    vgs_var a = vgs__effect(g, VGS_OP_ADAM, p, grad, m);
    vgs__node *n = vgs__node_of(g, a);
    if (!n) return a;
    n->in[3] = vgs__id(g, v);
    n->in[4] = vgs__id(g, norm);
    n->in[5] = vgs__id(g, flag);
    n->n_in = 6;
    n->f[1] = 0.9f;
    n->f[2] = 0.999f;
    n->f[3] = 1e-8f;
    n->f[7] = 1.0f;
    vgs__slot_f(g, a, 0, lr);
    vgs__slot_f(g, a, 4, vs);
    return a;
}

static vgs_var vgs__bound_state(vgs_graph *g, int rows, int cols, vgs_buffer *buf, size_t offset)
{
    vgs_var v = vgs_state(g, rows, cols, VGS_F32);
    vgs_bind(g, v, buf, offset, NULL);
    return v;
}

static vgs_var vgs__batch_state(vgs_graph *g, int cols, vgs_buffer *buf)
{
    vgs_var v = vgs__leaf(g, VGS_OP_STATE, -1, cols, VGS_F32);
    vgs_bind(g, v, buf, 0, NULL);
    return v;
}

/* The transitions of a minibatch: their numbers and steps t. */
static vgs_var vgs__record_choice(vgs_sampler *s, vgs__stage *st, vgs_scalar first, vgs_var *t)
{
    vgs_graph *g = st->g;
    vgs_var idx = vgs__push_op(g, VGS_OP_PERMUTATION, -1, 1, -1, -1, -1);
    vgs__noise_attrs(g, idx, &st->noise);
    vgs__slot_i(g, idx, 6, first);
    vgs__attr_i(g, idx, 7, s->c.steps * s->c.batch);
    *t = vgs__push_op(g, VGS_OP_INT_DIV, -1, 1, vgs__id(g, idx), -1, -1);
    vgs__attr_i(g, *t, 0, s->c.batch);
    if (g->sticky.code == VGS_OK) g->node[vgs__id(g, idx)].type = g->node[vgs__id(g, *t)].type = VGS_I32;
    return idx;
}

/* With r = (grad V - its target)/D the loss w n_t |r|^2 / 2 has the gradient w n_t |r| d(u . grad V/D);
   u = r/|r|, and u . grad V = (V(x + h u) - V(x - h u)) / 2h: no second derivatives. sqrt(n_t) |r| is limited
   to 3/sqrt(D), as smooth L1 limits a loss; h = VGS__SPLIT sqrt(n_t), n_t the noise from x_T back to t. */
#define VGS__SPLIT 0.03f
static void vgs__record_split(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    int n = s->c.steps * s->c.batch, d = s->c.energy.dim;
    float per_dim = 1.0f / (float)s->c.dim_effective;
    vgs_var idx, t, x, y, r = vgs__no_var(), norm, root, push;
    vgs__stage_leaves(s, st, s->online);
    s->split_first = vgs_scalar_create(g, 0);
    idx = vgs__record_choice(s, st, s->split_first, &t);
    x = vgs_gather(g, vgs__bound_state(g, n, d, s->pool_x, 0), idx);
    vgs_gradient(g, vgs__record_value(s, g, st->params, x, t), &x, 1, &r);
    y = vgs_gather(g, vgs__bound_state(g, n, d, s->pool_slope, 0), idx);
    r = vgs__combine(g, r, s->c.scale_by_dim ? 1.0f : per_dim, y, -per_dim, vgs__no_var());
    norm = vgs_sqrt(g, vgs_affine(g, vgs_sum_cols(g, vgs_square(g, r)), 1.0f, 1e-30f));
    root = vgs__record_variance(s, g, t, 0.0, 0.0);
    push = vgs_clamp(g, vgs_mul(g, norm, root), 0.0f, 3.0f * (float)sqrt((double)per_dim));
    push = vgs_affine(g, push, s->c.slope_loss / (2.0f * VGS__SPLIT), 0.0f);
    r = vgs_mul(g, r, vgs_div(g, vgs_affine(g, root, VGS__SPLIT, 0.0f), norm));
    vgs__effect(g, VGS_OP_STORE, vgs__batch_state(g, 2 * d, s->pair_x),
                vgs_concat(g, vgs_add(g, x, r), vgs_sub(g, x, r)), vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, vgs__batch_state(g, 1, s->pair_push), push, vgs__no_var());
}

/* V/D at x of the minibatch, and the loss of its gradient [B,1], as far as a gradient sees it. */
static vgs_var vgs__record_fitted(vgs_sampler *s, vgs__stage *st, vgs_var idx, vgs_var t, vgs_var *slope_loss)
{
    static const int32_t twice[2] = { 0, 0 };
    static const float sign[2] = { 1.0f, -1.0f };
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    bool pair = s->c.slope_loss > 0.0f;
    vgs_var v, x = pair ? vgs__leaf(g, VGS_OP_STATE, -2, d, VGS_F32)
                        : vgs_gather(g, vgs__bound_state(g, s->c.steps * s->c.batch, d, s->pool_x, 0), idx);
    if (pair) vgs_bind(g, x, s->pair_x, 0, NULL);
    v = vgs__record_value(s, g, st->params, x, pair ? vgs_segment_gather(g, t, 1, twice, 2) : t);
    if (!s->c.scale_by_dim) v = vgs_affine(g, v, 1.0f / (float)s->c.dim_effective, 0.0f);
    if (!pair) return v;
    v = vgs_reshape(g, v, 2);
    *slope_loss = vgs_mul(g, vgs_sum_cols(g, vgs_mul(g, v, vgs_table(g, sign, 1, 2))),
                          vgs__batch_state(g, 1, s->pair_push));
    return vgs_mean_cols(g, v);
}

static void vgs__record_fit(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    int p = vgs_net_size(s->net);
    vgs_var idx, t, y, v, loss, grad, norm = vgs__no_var(), slope_loss = vgs__no_var(), a;
    vgs__stage_leaves(s, st, s->online);
    s->fit_first = vgs_scalar_create(g, 0);
    s->fit_log = vgs_scalar_create(g, 0);
    s->fit_lr = vgs_scalar_create(g, 0);
    s->fit_vs = vgs_scalar_create(g, 0);
    idx = vgs__record_choice(s, st, s->fit_first, &t);
    st->out = vgs__bound_state(g, s->c.steps * s->c.batch, 1, s->pool_y, 0);
    y = vgs_gather(g, st->out, idx);
    v = vgs__record_fitted(s, st, idx, t, &slope_loss);
    loss = vgs_loss_of(g, v, y, s->c.loss);
    v = vgs_mean_rows(g, loss);
    if (s->c.slope_loss > 0.0f) loss = vgs_add(g, loss, slope_loss);
    grad = vgs__bound_state(g, 1, p, s->grad, 0);
    vgs_gradient_params(g, vgs_mean_rows(g, loss), st->params, grad);
    if (s->c.grad_max < 1e30f) {
        norm = vgs__push_op(g, VGS_OP_SUM_SQUARES, 1, 1, vgs__id(g, grad), -1, -1);
        if (g->sticky.code == VGS_OK) g->node[vgs__id(g, norm)].body = true;
    }
    a = vgs__adam(g, st->params, grad, vgs__bound_state(g, 1, p, s->adam_m, 0),
                  vgs__bound_state(g, 1, p, s->adam_v, 0), norm, st->flag, s->fit_lr, s->fit_vs);
    vgs__attr_f(g, a, 5, s->c.grad_max);
    a = vgs__effect(g, VGS_OP_STORE, vgs__bound_state(g, s->c.passes * s->c.steps, 1, s->loss_log, 0), v,
                    vgs__no_var());
    vgs__slot_i(g, a, 0, s->fit_log);
}

/* d/ds0 of mean V_0(s0 eps) [or V/D] - D tau log s0 [or tau log s0] */
static void vgs__record_sigma(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    double d = s->c.scale_by_dim ? 1.0 : (double)s->c.dim_effective;
    vgs_var slope = vgs__no_var(), x, a;
    vgs__stage_leaves(s, st, s->target);
    s->sigma_lr = vgs_scalar_create(g, 0);
    s->sigma_vs = vgs_scalar_create(g, 0);
    st->s0 = vgs__bound_state(g, 1, 1, s->sigma, 0);
    x = vgs_mul(g, vgs__record_noise(s, g, &st->noise), st->s0);
    vgs_gradient(g, vgs_mean_rows(g, vgs__value_at(s, st, x)), &st->s0, 1, &slope);
    slope = vgs_sub(g, slope, vgs_affine(g, vgs_reciprocal(g, st->s0), (float)(d * (double)s->c.tau), 0.0f));
    a = vgs__bound_state(g, 1, 1, s->sigma, 16);
    vgs__effect(g, VGS_OP_STORE, a, slope, vgs__no_var());
    a = vgs__adam(g, st->s0, a, vgs__bound_state(g, 1, 1, s->sigma, 32),
                  vgs__bound_state(g, 1, 1, s->sigma, 48), vgs__no_var(), st->flag, s->sigma_lr, s->sigma_vs);
    vgs__attr_f(g, a, 6, 1e-6f);
}

static void vgs__record_ema(vgs_sampler *s, vgs__stage *st)
{
    int p = vgs_net_size(s->net);
    vgs_var a;
    vgs__stage_leaves(s, st, s->online);
    a = vgs__effect(st->g, VGS_OP_EMA, vgs__bound_state(st->g, 1, p, s->target, 0), st->params, st->flag);
    vgs__attr_f(st->g, a, 0, s->c.target_ema);
}

/* x_T, and log w = |x_0|^2 / (2 s0^2) + D log s0 - what the path cost / tau, without its constant */
static void vgs__record_keep(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    int n = s->c.replay * s->c.batch, d = s->c.energy.dim;
    float dim = (float)s->c.dim_effective;
    vgs_var w, v;
    vgs__stage_leaves(s, st, s->target);
    s->keep_first = vgs_scalar_create(g, 0);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, d, VGS_F32);            /* x_T                            */
    vgs_bind(g, st->out, s->pool_x, 0, NULL);
    st->s0 = vgs__bound_state(g, 1, 1, s->sigma, 0);
    w = vgs_div(g, vgs_sum_cols(g, vgs_square(g, st->x)), vgs_square(g, st->s0));
    w = vgs_add(g, vgs_affine(g, w, 0.5f, 0.0f), vgs_affine(g, vgs_log(g, st->s0), dim, 0.0f));
    w = vgs_sub(g, w, vgs_affine(g, st->cost, dim / s->c.tau, 0.0f));
    v = vgs__effect(g, VGS_OP_STORE, vgs__bound_state(g, n, 1, s->kept_weight, 0), w, vgs__no_var());
    vgs__slot_i(g, v, 0, s->keep_first);
    v = vgs__effect(g, VGS_OP_STORE, vgs__bound_state(g, n, d, s->kept_x, 0), st->out, vgs__no_var());
    vgs__slot_i(g, v, 0, s->keep_first);
}

/* ---- MALA, on E for samples that are kept, on V_t for draws ---- */

/* What a walk goes by: st->out where it stands, st->here the potential there, st->slope its gradient, and
   st->length the step h of MALA. */
static void vgs__walk_leaves(vgs_sampler *s, vgs__stage *st)
{
    vgs__stage_leaves(s, st, s->target);
    st->out = vgs__leaf(st->g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(st->g, st->out, s->walk_x, 0, NULL);
    st->here = vgs__leaf(st->g, VGS_OP_STATE, -1, 1, VGS_F32);
    vgs_bind(st->g, st->here, s->walk_e, 0, NULL);
    st->slope = vgs__leaf(st->g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(st->g, st->slope, s->walk_g, 0, NULL);
    st->length = vgs__bound_state(st->g, 1, 1, s->walk_step, 0);
    st->rate = vgs_scalar_create(st->g, VGS__WALK_RATE);
    st->rate_add = vgs_scalar_create(st->g, -VGS__WALK_RATE * VGS__ACCEPTANCE);
}

/* E, or V_t, at x, and its gradient within the mean-free subspace. */
static vgs_var vgs__record_potential(vgs_sampler *s, vgs__stage *st, vgs_var x, bool value, vgs_var *slope)
{
    vgs_graph *g = st->g;
    vgs_var v = value ? vgs__value_at(s, st, x) : vgs_energy_of(g, &s->c.energy, x);
    if (value && s->c.scale_by_dim) v = vgs_affine(g, v, (float)s->c.dim_effective, 0.0f);
    *slope = vgs__no_var();
    vgs_gradient(g, v, &x, 1, slope);
    if (value && vgs__is_particles(&s->c)) *slope = vgs_remove_mean(g, *slope, s->c.energy.particles);
    return v;
}

static void vgs__record_stand(vgs_sampler *s, vgs__stage *st, bool value)
{
    vgs_graph *g = st->g;
    vgs_var slope, v;
    vgs__walk_leaves(s, st);
    v = vgs__record_potential(s, st, st->x, value, &slope);
    if (!value) vgs__effect(g, VGS_OP_STORE, st->out, st->x, vgs__no_var());     /* leaves x as it is  */
    vgs__effect(g, VGS_OP_STORE, st->here, v, vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, st->slope, slope, vgs__no_var());
}

/* x where d <= 0, else 0 */
static vgs_var vgs__where_accepted(vgs_graph *g, vgs_var x, vgs_var d)
{
    return vgs__binary(g, VGS_OP_MASK_ABOVE, x, d);
}

/* One step of MALA: x' = x - h g/tau + sqrt(2h) xi, accepted if -log(alpha) <= an exponential number, half
   the square of two normal ones. h follows the share of accepted rows to VGS__ACCEPTANCE, or stays where the
   rate is 0. A place without a finite energy is never entered. */
static void vgs__record_walk(vgs_sampler *s, vgs__stage *st, bool value)
{
    vgs_graph *g = st->g;
    vgs_var xi, wide, drift, move, x, v, slope, back, d, two, share, h;
    vgs__walk_leaves(s, st);
    xi = vgs__record_noise(s, g, &st->noise);
    wide = vgs_sqrt(g, vgs_affine(g, st->length, 2.0f, 0.0f));
    drift = vgs_affine(g, vgs_div(g, st->length, wide), 1.0f / s->c.tau, 0.0f);          /* of xi      */
    move = vgs_mul(g, vgs_sub(g, xi, vgs_mul(g, st->slope, drift)), wide);
    x = vgs_add(g, st->out, move);
    v = vgs__record_potential(s, st, x, value, &slope);
    back = vgs_sub(g, vgs_mul(g, slope, drift), vgs_div(g, move, wide));                 /* xi of x' -> x */
    d = vgs_mul(g, vgs_sub(g, back, xi), vgs_add(g, back, xi));
    d = vgs_affine(g, vgs_sum_cols(g, d), 0.5f, 0.0f);
    d = vgs_add(g, d, vgs_affine(g, vgs_sub(g, v, st->here), 1.0f / s->c.tau, 0.0f));
    two = vgs__push_op(g, VGS_OP_NORMAL, -1, 2, -1, -1, -1);
    vgs__noise_attrs(g, two, &st->accept);
    d = vgs_sub(g, d, vgs_affine(g, vgs_sum_cols(g, vgs_square(g, two)), 0.5f, 0.0f));
    share = vgs__push_op(g, VGS_OP_FILL, -1, 1, -1, -1, -1);
    vgs__attr_f(g, share, 0, 1.0f);
    share = vgs_mean_rows(g, vgs__where_accepted(g, share, d));
    h = vgs_mul(g, st->length, vgs_exp(g, vgs_affine_by(g, share, st->rate, st->rate_add)));
    move = vgs_add(g, st->out, vgs__where_accepted(g, move, d));
    v = vgs_add(g, st->here, vgs__where_accepted(g, vgs_sub(g, v, st->here), d));
    slope = vgs_add(g, st->slope, vgs__where_accepted(g, vgs_sub(g, slope, st->slope), d));
    vgs__effect(g, VGS_OP_STORE, st->out, move, vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, st->here, v, vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, st->slope, slope, vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, st->length, h, vgs__no_var());
}

static void vgs__record_recall(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    int n = s->c.replay * s->c.batch, d = s->c.energy.dim;
    vgs_var w, idx;
    vgs__stage_leaves(s, st, s->target);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, d, VGS_F32);
    vgs_bind(g, st->out, s->pool_x, 0, NULL);
    w = vgs__bound_state(g, n, 1, s->kept_weight, 0);
    idx = vgs__push_op(g, VGS_OP_RESAMPLE, -1, 1, vgs__id(g, w), -1, -1);
    vgs__noise_attrs(g, idx, &st->noise);
    if (g->sticky.code == VGS_OK) g->node[vgs__id(g, idx)].type = VGS_I32;
    vgs__effect(g, VGS_OP_STORE, st->out, vgs_gather(g, vgs__bound_state(g, n, d, s->kept_x, 0), idx),
                vgs__no_var());
}

static void vgs__record_back(vgs_sampler *s, vgs__stage *st)
{
    vgs_graph *g = st->g;
    vgs_var x;
    vgs__stage_leaves(s, st, s->target);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(g, st->out, s->pool_x, 0, NULL);
    x = vgs__combine(g, st->x, 1.0f, vgs__record_noise(s, g, &st->noise), 1.0f, vgs__no_var());
    vgs__slot_f(g, x, 0, st->a);
    vgs__slot_f(g, x, 1, st->sigma);
    vgs__effect(g, VGS_OP_STORE, st->out, x, vgs__no_var());
}

/* The noising chain goes from x_{t+1} (st->x) to x_t = x_{t+1}/a + s xi. Seen from there the sampler's step
   had the push -xi, hence the noise (mu/sigma - xi) / sqrt(rho). */
static void vgs__record_score(vgs_sampler *s, vgs__stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs_var xi, x, mu, eps;
    vgs__stage_leaves(s, st, s->target);
    st->out = vgs__leaf(g, VGS_OP_STATE, -1, s->c.energy.dim, VGS_F32);
    vgs_bind(g, st->out, s->pool_x, 0, NULL);
    st->inv_a = vgs_scalar_create(g, 1);
    st->back = vgs_scalar_create(g, 1);
    xi = vgs__record_noise(s, g, &st->noise);
    x = vgs__combine(g, st->x, 1.0f, xi, 1.0f, vgs__no_var());
    vgs__slot_f(g, x, 0, st->inv_a);
    vgs__slot_f(g, x, 1, st->back);
    mu = vgs__record_kernel(s, st, x, last);
    eps = vgs__combine(g, xi, 1.0f, mu, -1.0f, vgs__no_var());       /* the sign does not matter       */
    vgs__slot_f(g, eps, 1, st->inv_sigma);
    if (!s->c.fixed_kernel) eps = vgs_div(g, eps, st->root);
    eps = vgs__record_stretch(s, st, eps, true);
    vgs__effect(g, VGS_OP_STORE, st->cost, vgs__record_cost(st, xi, eps), vgs__no_var());
    vgs__effect(g, VGS_OP_STORE, st->out, x, vgs__no_var());
}

/* V_t(x)/tau */
static void vgs__record_twist(vgs_sampler *s, vgs__stage *st)
{
    float scale = s->c.scale_by_dim ? (float)s->c.dim_effective / s->c.tau : 1.0f / s->c.tau;
    vgs__stage_leaves(s, st, s->target);
    vgs__effect(st->g, VGS_OP_STORE, st->cost,
                vgs_affine(st->g, vgs__value_at(s, st, st->x), scale, 0.0f), vgs__no_var());
}

/* ---- life ---------------------------------------------------------------------------------------- */

static vgs_buffer *vgs__buffer(vgs_sampler *s, size_t n, vgs_error *err)
{
    s->bytes += n * 4;
    return s->b->buffer_create(s->b->self, n, err);
}

static size_t vgs__factor_count(const vgs_sampler *s) { return 2 * (size_t)s->c.steps * (size_t)s->factors; }

static vgs_status vgs__make_buffers(vgs_sampler *s, vgs_error *err)
{
    size_t p = (size_t)vgs_net_size(s->net), d = (size_t)s->c.energy.dim, cap = (size_t)s->capacity;
    size_t rows = (size_t)s->c.steps * (size_t)s->c.batch, b = (size_t)s->c.batch;
    size_t kept = (size_t)s->c.replay * b;
    if (!(s->online = vgs__buffer(s, p, err)) || !(s->target = vgs__buffer(s, p, err)) ||
        !(s->adam_m = vgs__buffer(s, p, err)) || !(s->adam_v = vgs__buffer(s, p, err)) ||
        !(s->grad = vgs__buffer(s, p, err)) || !(s->sigma = vgs__buffer(s, 64, err)) ||
        !(s->flag = vgs__buffer(s, 16, err)) ||
        !(s->loss_log = vgs__buffer(s, (size_t)s->c.passes * (size_t)s->c.steps, err)) ||
        !(s->pool_x = vgs__buffer(s, (rows + b) * d, err)) || !(s->pool_mu = vgs__buffer(s, rows * d, err)) ||
        !(s->pool_musq = vgs__buffer(s, rows, err)) || !(s->pool_cost = vgs__buffer(s, rows, err)) ||
        !(s->factor = vgs__buffer(s, vgs__factor_count(s), err)) ||
        !(s->pool_y = vgs__buffer(s, (size_t)s->c.passes * rows, err)) ||
        !(s->draw_x = vgs__buffer(s, 2 * cap * d, err)) || !(s->draw_mu = vgs__buffer(s, cap * d, err)) ||
        !(s->draw_musq = vgs__buffer(s, cap, err)) || !(s->draw_cost = vgs__buffer(s, cap, err)))
        return VGS_E_NOMEM;
    if (s->c.slope_loss > 0.0f &&
        (!(s->pool_slope = vgs__buffer(s, rows * d, err)) || !(s->pair_x = vgs__buffer(s, 2 * b * d, err)) ||
         !(s->pair_push = vgs__buffer(s, b, err))))
        return VGS_E_NOMEM;
    if (s->c.local_noise &&
        (!(s->pool_width = vgs__buffer(s, rows * d, err)) ||
         !(s->draw_width = vgs__buffer(s, cap * d, err)) ||
         !(s->pool_axes = vgs__buffer(s, rows * d * d, err)) ||
         !(s->draw_axes = vgs__buffer(s, cap * d * d, err))))
        return VGS_E_NOMEM;
    if (!s->c.replay) return VGS_OK;
    if (!(s->pool_path = vgs__buffer(s, rows, err)) || !(s->kept_x = vgs__buffer(s, kept * d, err)) ||
        !(s->kept_weight = vgs__buffer(s, kept, err)) || !(s->walk_step = vgs__buffer(s, 1, err)) ||
        !(s->walk_x = vgs__buffer(s, b * d, err)) || !(s->walk_e = vgs__buffer(s, b, err)) ||
        !(s->walk_g = vgs__buffer(s, b * d, err)))
        return VGS_E_NOMEM;
    return VGS_OK;
}

static vgs_status vgs__compile_stage(vgs_sampler *s, vgs__stage *st, int capacity, vgs_error *err)
{
    vgs_status code = vgs_graph_compile(st->g, s->b, capacity, err);
    s->bytes += vgs_graph_bytes(st->g);
    return code;
}

enum { VGS__STAGES = 18, VGS__DRAW_STAGES = 3, VGS__SAMPLER_BUFFERS = 32 };

/* Those that draw come first. */
static void vgs__stage_list(vgs_sampler *s, vgs__stage *all[VGS__STAGES])
{
    all[0] = &s->start;
    all[1] = &s->step;
    all[2] = &s->last;
    all[3] = &s->target_step;
    all[4] = &s->target_last;
    all[5] = &s->fit;
    all[6] = &s->sigma_fit;
    all[7] = &s->ema;
    all[8] = &s->factor_step;
    all[9] = &s->factor_last;
    all[10] = &s->fresh;
    all[11] = &s->keep;
    all[12] = &s->recall;
    all[13] = &s->back;
    all[14] = &s->stand;
    all[15] = &s->walk;
    all[16] = &s->slope;
    all[17] = &s->split;
}

/* Does a trajectory of returns explore? */
static bool vgs__explores(const vgs_sampler *s) { return !s->c.one_step && s->c.explore != 1.0f; }

static bool vgs__uses_stage(const vgs_sampler *s, int k)
{
    if (k < 8) return true;
    if (k < 10) return !s->c.fixed_kernel;
    if (k < 14) return s->c.replay || (k == 10 && vgs__explores(s));
    return k < 16 ? s->c.refine > 0 : s->c.slope_loss > 0.0f;
}

static vgs_status vgs__make_stages(vgs_sampler *s, vgs_error *err)
{
    vgs__stage *all[VGS__STAGES];
    int k;
    vgs_status code = VGS_OK;
    vgs__stage_list(s, all);
    for (k = 0; k < VGS__STAGES; ++k) {
        if (vgs__uses_stage(s, k) && !(all[k]->g = vgs_graph_create(err))) return VGS_E_NOMEM;
    }
    vgs__record_start(s, &s->start);
    vgs__record_step(s, &s->step, false, false);
    vgs__record_step(s, &s->last, true, false);
    vgs__record_target(s, &s->target_step, false, s->c.one_step);
    vgs__record_target(s, &s->target_last, true, s->c.one_step);
    vgs__record_fit(s, &s->fit);
    vgs__record_sigma(s, &s->sigma_fit);
    vgs__record_ema(s, &s->ema);
    if (s->factor_step.g) vgs__record_factor(s, &s->factor_step, false);
    if (s->factor_last.g) vgs__record_factor(s, &s->factor_last, true);
    if (s->fresh.g) vgs__record_target(s, &s->fresh, false, true);
    if (s->keep.g) vgs__record_keep(s, &s->keep);
    if (s->recall.g) vgs__record_recall(s, &s->recall);
    if (s->back.g) vgs__record_back(s, &s->back);
    if (s->stand.g) vgs__record_stand(s, &s->stand, false);
    if (s->walk.g) vgs__record_walk(s, &s->walk, false);
    if (s->slope.g) vgs__record_slope_target(s, &s->slope);
    if (s->split.g) vgs__record_split(s, &s->split);
    for (k = 0; k < VGS__STAGES && code == VGS_OK; ++k)
        if (all[k]->g)
            code = vgs__compile_stage(s, all[k], k < VGS__DRAW_STAGES ? s->capacity : s->c.batch, err);
    return code;
}

/* No sample is kept: all have weight 0; MALA starts with the noise of the last step. */
static vgs_status vgs__forget(vgs_sampler *s, vgs_error *err)
{
    size_t n = (size_t)s->c.replay * (size_t)s->c.batch, i;
    float *w = (float *)vgs__alloc_or(err, "replay", n, sizeof *w), h = 0.5f * s->c.s2_end;
    vgs_status st = w ? VGS_OK : VGS_E_NOMEM;
    for (i = 0; w && i < n; ++i) w[i] = -FLT_MAX;
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->kept_weight, 0, w, n, VGS_F32, err);
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->walk_step, 0, &h, 1, VGS_F32, err);
    vgs__free(w);
    return st;
}

/* Fresh weights, moments at zero, s0 from the schedule. */
static vgs_status vgs__init_state(vgs_sampler *s, vgs_error *err)
{
    int p = vgs_net_size(s->net);
    size_t i;
    vgs_rng r = { 0, 0, 0 };
    float *w = (float *)vgs__alloc_or(err, "weights", (size_t)p, sizeof *w), s0;
    vgs_status st;
    if (!w) return VGS_E_NOMEM;
    r.seed = s->c.seed;
    vgs_net_init(s->net, &r, w);
    s0 = (float)vgs_schedule_fill(&s->c, s->s2, s->a);
    st = s->b->upload(s->b->self, s->online, 0, w, (size_t)p, VGS_F32, err);
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->target, 0, w, (size_t)p, VGS_F32, err);
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->sigma, 0, &s0, 1, VGS_F32, err);
    vgs__free(w);
    w = (float *)vgs__alloc_or(err, "factors", vgs__factor_count(s), sizeof *w);
    if (!w) return VGS_E_NOMEM;
    for (i = 0; i < vgs__factor_count(s); ++i) w[i] = 1.0f;
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->factor, 0, w, i, VGS_F32, err);
    vgs__free(w);
    return st == VGS_OK && s->c.replay ? vgs__forget(s, err) : st;
}

static vgs_status vgs__sampler_init(vgs_sampler *s, vgs_error *err)
{
    vgs_cpu_config cpu = { 0, VGS_ISA_AUTO };
    vgs_status st;
    cpu.threads = s->c.threads;
    if (!s->c.backend && !(s->own = vgs_cpu_create(&cpu, err))) return VGS_E_NOMEM;
    s->b = s->c.backend ? s->c.backend : s->own;
    if (!(s->net = vgs_net_create(&s->c.net, err))) return VGS_E_NOMEM;
    s->capacity = s->c.batch > 512 ? s->c.batch : 512;
    s->s2 = (float *)vgs__alloc_or(err, "schedule", (size_t)s->c.steps, sizeof *s->s2);
    s->a = (float *)vgs__alloc_or(err, "schedule", (size_t)s->c.steps, sizeof *s->a);
    s->correct_step = (float *)vgs__alloc_or(err, "schedule", (size_t)s->c.steps, sizeof *s->correct_step);
    if (!s->s2 || !s->a || !s->correct_step) return VGS_E_NOMEM;
    if ((st = vgs__make_buffers(s, err)) != VGS_OK) return st;
    if ((st = vgs__init_state(s, err)) != VGS_OK) return st;
    return vgs__make_stages(s, err);
}

VGS__DEF vgs_sampler *vgs_sampler_create(const vgs_config *cfg, vgs_error *err)
{
    vgs_config c;
    vgs_sampler *s;
    if (!cfg) {
        vgs__fail(err, VGS_E_ARG, "sampler: the configuration is NULL");
        return NULL;
    }
    if (vgs_config_resolve(cfg, &c, err) != VGS_OK) return NULL;
    s = (vgs_sampler *)vgs__alloc_or(err, "sampler", 1, sizeof *s);
    if (!s) return NULL;
    s->c = c;
    s->factors = vgs__is_particles(&c) ? 1 : c.energy.dim;
    if (vgs__sampler_init(s, err) != VGS_OK) {
        vgs_sampler_free(s);
        return NULL;
    }
    return s;
}

VGS__DEF void vgs_sampler_free(vgs_sampler *s)
{
    vgs__stage *stages[VGS__STAGES];
    vgs_buffer *all[VGS__SAMPLER_BUFFERS];
    int k;
    if (!s) return;
    vgs__stage_list(s, stages);
    for (k = 0; k < VGS__STAGES; ++k) vgs_graph_free(stages[k]->g);
    all[0] = s->online;     all[1] = s->target;     all[2] = s->adam_m;   all[3] = s->adam_v;
    all[4] = s->grad;       all[5] = s->sigma;      all[6] = s->flag;     all[7] = s->loss_log;
    all[8] = s->pool_x;     all[9] = s->pool_mu;    all[10] = s->pool_musq; all[11] = s->pool_y;
    all[12] = s->draw_x;    all[13] = s->draw_mu;   all[14] = s->draw_musq; all[15] = s->factor;
    all[16] = s->pool_cost; all[17] = s->draw_cost; all[18] = s->pool_path; all[19] = s->kept_x;
    all[20] = s->kept_weight; all[21] = s->walk_x; all[22] = s->walk_e; all[23] = s->walk_g;
    all[24] = s->walk_step; all[25] = s->pool_slope; all[26] = s->pair_x;    all[27] = s->pair_push;
    all[28] = s->pool_width; all[29] = s->draw_width; all[30] = s->pool_axes; all[31] = s->draw_axes;
    for (k = 0; k < VGS__SAMPLER_BUFFERS; ++k) if (s->b && all[k]) s->b->buffer_free(s->b->self, all[k]);
    vgs_net_free(s->net);
    vgs__free(s->s2);
    vgs__free(s->correct_step);
    vgs__free(s->a);
    vgs_cpu_free(s->own);
    vgs__free(s);
}

VGS__DEF const vgs_config *vgs_sampler_config(const vgs_sampler *s) { return &s->c; }
VGS__DEF int64_t vgs_sampler_iteration(const vgs_sampler *s) { return s->iteration; }
VGS__DEF size_t vgs_sampler_bytes(const vgs_sampler *s)
{
    return s->bytes + (s->own ? vgs__cpu_bytes(s->own) : 0);
}

/* ---- drawing ------------------------------------------------------------------------------------- */

/* What corrects the x_t of a draw: MALA on V_t, and the step from there, which takes its gradient. */
typedef struct vgs__corrector {
    vgs__stage stand, walk, step;                /* step: none with explicit_drift                    */
    vgs_buffer *v, *slope;                       /* [capacity], [capacity, D]: of the last block       */
    vgs_buffer *length;                          /* [T]: h of MALA at each step                       */
    int steps;
} vgs__corrector;

typedef struct vgs__roll {                       /* where and how trajectories are rolled out         */
    int n, for_start, for_step;
    uint64_t seed, iteration;
    uint32_t first_row;
    double c, step_c, last_c;                    /* noise factors: of x_0, of the steps, of the last  */
    int explored;                                /* steps before this one have c instead of step_c,   */
    bool recalled;                               /* or only tell the drift: x_t is there already      */
    vgs_buffer *x, *mu, *musq, *cost, *width, *axes;
    vgs__corrector *corrector;                   /* NULL: none                                        */
    size_t x_first;                              /* row of x where this block begins                  */
    size_t x_stride, mu_stride;                  /* rows from one step's place to the next one's      */
    int x_places;                                /* steps + 1, or 2: take turns                       */
} vgs__roll;

/* Where x_t of a block is in r->x. */
static size_t vgs__roll_place(const vgs_sampler *s, const vgs__roll *r, int t)
{
    return ((size_t)(t % r->x_places) * r->x_stride + r->x_first) * (size_t)s->c.energy.dim;
}

static void vgs__bind_step(const vgs_sampler *s, vgs__stage *st, const vgs__roll *r, int t)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_bind(st->g, st->x, r->x, vgs__roll_place(s, r, t), NULL);
    vgs_bind(st->g, st->out, r->x, vgs__roll_place(s, r, t + 1), NULL);
    vgs_bind(st->g, st->mu, r->mu, (size_t)t * r->mu_stride * d, NULL);
    vgs_bind(st->g, st->musq, r->musq, (size_t)t * r->mu_stride, NULL);
    vgs_bind(st->g, st->cost, r->cost, (size_t)t * r->mu_stride, NULL);
    if (!r->width) return;
    vgs_bind(st->g, st->width_out, r->width, (size_t)t * r->mu_stride * d, NULL);
    vgs_bind(st->g, st->axes_out, r->axes, (size_t)t * r->mu_stride * d * d, NULL);
}

/* What every stage of step t is told: sigma_t and where the step's factors are. */
static void vgs__set_step(const vgs_sampler *s, vgs__stage *st, int t, double c)
{
    size_t f = (size_t)s->factors;
    double sigma = sqrt((double)s->s2[t]) * (double)s->a[t];
    bool last = t == s->c.steps - 1;
    double scale = s->c.scale_by_dim && !last ? s->c.dim_effective : 1;
    vgs_bind(st->g, st->kappa, s->factor, 2 * (size_t)t * f, NULL);
    vgs_bind(st->g, st->root, s->factor, (2 * (size_t)t + 1) * f, NULL);
    vgs_scalar_set(st->g, st->a, (double)s->a[t]);
    vgs_scalar_set(st->g, st->drift, sigma * sigma / (double)s->c.tau * scale);
    vgs_scalar_set(st->g, st->limit, (double)s->c.drift_max * sigma * sqrt((double)s->c.dim_effective));
    vgs_scalar_set(st->g, st->sigma, sigma);
    vgs_scalar_set(st->g, st->inv_sigma, -1.0 / sigma);
    vgs_scalar_set(st->g, st->c, c);
    vgs_scalar_set(st->g, st->t_next, t + 1);
    vgs_scalar_set(st->g, st->step, t);
}

/* The drift of step t from V_t instead: a_t s_t^2 / tau grad V_t(x_t). */
static void vgs__set_drift_of(const vgs_sampler *s, vgs__stage *st, int t)
{
    double scale = s->c.scale_by_dim ? s->c.dim_effective : 1;
    vgs_scalar_set(st->g, st->drift, (double)s->s2[t] * (double)s->a[t] / (double)s->c.tau * scale);
    vgs_scalar_set(st->g, st->t_next, t);
    if (!s->c.local_noise) return;
    vgs_scalar_set(st->g, st->nudge, VGS__NUDGE * sqrt((double)s->s2[t]));
    vgs_scalar_set(st->g, st->curve, -sqrt((double)s->s2[t]) * scale / (VGS__NUDGE * (double)s->c.tau));
}

static vgs_status vgs__roll_start(vgs_sampler *s, const vgs__roll *r, vgs_error *err)
{
    vgs__stage *st = &s->start;
    vgs_bind(st->g, st->out, r->x, vgs__roll_place(s, r, 0), NULL);
    vgs_scalar_set(st->g, st->sigma, r->c);
    vgs__noise_set(st->g, &st->noise, r->for_start, 0, r->first_row, r->iteration, r->seed);
    return vgs_graph_run(st->g, r->n, err);
}

static vgs_status vgs__roll_step(vgs_sampler *s, const vgs__roll *r, int t, vgs_error *err)
{
    bool last = t == s->c.steps - 1;
    vgs__stage *st = last ? &s->last : r->corrector && r->corrector->step.g ? &r->corrector->step : &s->step;
    vgs__bind_step(s, st, r, t);
    if (vgs__exists(st->slope)) vgs_bind(st->g, st->slope, r->corrector->slope, 0, NULL);
    if (r->recalled && t < r->explored) vgs_bind(st->g, st->out, s->draw_x, 0, NULL);
    vgs__set_step(s, st, t, last ? r->last_c : t < r->explored ? r->c : r->step_c);
    if (!last && !s->c.explicit_drift) vgs__set_drift_of(s, st, t);
    vgs_scalar_set(st->g, st->row, r->first_row);
    vgs__noise_set(st->g, &st->noise, r->for_step, t, r->first_row, r->iteration, r->seed);
    return vgs_graph_run(st->g, r->n, err);
}

static void vgs__clear_flag(vgs_sampler *s)
{
    int32_t zero[4] = { 0, 0, 0, 0 };
    s->b->upload(s->b->self, s->flag, 0, zero, 4, VGS_I32, NULL);
}

/* Reads the flag; if it is set, clears it and tells what was found. */
static vgs_status vgs__read_flag(vgs_sampler *s, const char *doing, vgs_error *err)
{
    static const char *const what[] = {"a value", "the energy", "the energy's gradient", "the value network"};
    int32_t f[4] = { 0, 0, 0, 0 };
    vgs_status st = s->b->finish(s->b->self, err);
    if (st == VGS_OK) st = s->b->download(s->b->self, f, s->flag, 0, 4, VGS_I32, err);
    if (st != VGS_OK || !f[0]) return st;
    vgs__clear_flag(s);
    return vgs__fail(err, VGS_E_NONFINITE, "%s: %s is not finite at row %u, step %d of %d (iteration %lld)",
                     doing, what[f[3] & 3], (unsigned)f[1], (int)f[2], s->c.steps, (long long)s->iteration);
}

/* D [sum_t log(sqrt(rho_t) a_t) + log(s0) + log(2 pi)/2]: what log w has besides the rows' own terms */
static vgs_status vgs__log_weight_constant(vgs_sampler *s, double s0, double *out, vgs_error *err)
{
    size_t n = vgs__factor_count(s), f = (size_t)s->factors, t, j;
    float *w = (float *)vgs__alloc_or(err, "draw", n, sizeof *w);
    vgs_status st = w ? s->b->download(s->b->self, w, s->factor, 0, n, VGS_F32, err) : VGS_E_NOMEM;
    *out = log(s0) + 0.5 * log(6.283185307179586);
    for (t = 0; t < (size_t)s->c.steps && st == VGS_OK; ++t) {
        *out += log((double)s->a[t]);
        for (j = 0; j < f; ++j) *out += log((double)w[(2 * t + 1) * f + j]) / (double)f;
    }
    *out *= s->c.dim_effective;
    vgs__free(w);
    return st;
}

static vgs_status vgs__energies(vgs_sampler *s, const float *x, int n, float *e, double *e64,
                                vgs_error *err);

/* A path's log w is |x_0|^2 / (2 s0^2) + the constant ... */
static vgs_status vgs__log_weight_start(vgs_sampler *s, const vgs__roll *r, float *x, double *log_weight,
                                        vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n, i, j;
    float s0 = 1.0f;
    double constant = 0.0;
    vgs_status st = s->b->download(s->b->self, &s0, s->sigma, 0, 1, VGS_F32, err);
    if (st == VGS_OK) st = vgs__log_weight_constant(s, (double)s0, &constant, err);
    if (st == VGS_OK) st = s->b->download(s->b->self, x, r->x, vgs__roll_place(s, r, 0), n * d, VGS_F32, err);
    for (i = 0; i < n && st == VGS_OK; ++i) {
        double sum = 0.0;
        for (j = 0; j < d; ++j) sum += (double)x[i * d + j] * (double)x[i * d + j];
        log_weight[i] += sum / (2.0 * (double)s0 * (double)s0) + constant;
    }
    return st;
}

/* ... less the cost of every step ... */
static vgs_status vgs__log_weight_step(vgs_sampler *s, const vgs__roll *r, float *row, double *log_weight,
                                       vgs_error *err)
{
    vgs_status st = s->b->download(s->b->self, row, r->cost, 0, (size_t)r->n, VGS_F32, err);
    int i;
    for (i = 0; i < r->n && st == VGS_OK; ++i) log_weight[i] -= (double)row[i];
    return st;
}

/* ... less E/tau in the end; e [n] receives E. log_weight may be NULL. */
static vgs_status vgs__log_weight_end(vgs_sampler *s, int n, const float *x, float *e, double *log_weight,
                                      vgs_error *err)
{
    double *e64 = log_weight ? (double *)vgs__alloc_or(err, "draw", (size_t)n, sizeof *e64) : NULL;
    vgs_status st = log_weight && !e64 ? VGS_E_NOMEM : vgs__energies(s, x, n, e, e64, err);
    int i;
    for (i = 0; log_weight && i < n && st == VGS_OK; ++i) log_weight[i] -= e64[i] / (double)s->c.tau;
    vgs__free(e64);
    return st;
}

/* How a call that drew ends: without error, with its own, or with what the flag says. */
static vgs_status vgs__draw_end(vgs_sampler *s, const char *doing, vgs_status st, vgs_error *err)
{
    if (st == VGS_OK) return vgs__read_flag(s, doing, err);
    vgs__clear_flag(s);
    return st;
}

static vgs__roll vgs__draw_roll(const vgs_sampler *s, const vgs_draw *o, uint64_t iteration)
{
    vgs__roll r;
    memset(&r, 0, sizeof r);
    r.for_start = VGS__FOR_DRAW_START;
    r.for_step = VGS__FOR_DRAW_STEP;
    r.seed = o->seed ? o->seed : s->c.seed;
    r.iteration = iteration;
    r.c = r.step_c = o->noise_scale == 0.0f ? 1.0 : (double)o->noise_scale;
    r.last_c = o->skip_final_noise ? 0.0 : r.c;
    r.x = s->draw_x;
    r.mu = s->draw_mu;
    r.musq = s->draw_musq;
    r.cost = s->draw_cost;
    r.width = s->draw_width;
    r.axes = s->draw_axes;
    r.x_stride = (size_t)s->capacity;
    r.x_places = 2;
    return r;
}

/* ---- correction of draws ------------------------------------------------------------------------- */

/* Why there are no path weights, or NULL. */
static const char *vgs__weightless(const vgs_sampler *s, const vgs_draw *o)
{
    if (s->c.on_sphere) return "on a sphere: its steps are no Gaussians";
    if (o->skip_final_noise) return "with skip_final_noise: the last step has no density";
    if (o->noise_scale != 0.0f && o->noise_scale != 1.0f) return "of another noise_scale than 1";
    return NULL;
}

static void vgs__walk_bind(const vgs_sampler *s, vgs__stage *st, const vgs__roll *r, int t)
{
    const vgs__corrector *c = r->corrector;
    size_t place = vgs__roll_place(s, r, t);
    vgs_bind(st->g, st->x, r->x, place, NULL);
    vgs_bind(st->g, st->out, r->x, place, NULL);
    vgs_bind(st->g, st->here, c->v, 0, NULL);
    vgs_bind(st->g, st->slope, c->slope, 0, NULL);
    vgs_bind(st->g, st->length, c->length, (size_t)t, NULL);
    vgs_scalar_set(st->g, st->t_next, t);
}

static vgs_status vgs__walk_stand(vgs_sampler *s, const vgs__roll *r, int t, vgs_error *err)
{
    vgs__stage *st = &r->corrector->stand;
    vgs__walk_bind(s, st, r, t);
    return vgs_graph_run(st->g, r->n, err);
}

/* Step number k of MALA; h follows acceptance at this rate. */
static vgs_status vgs__walk_step(vgs_sampler *s, const vgs__roll *r, int t, uint32_t k, double rate,
                                 vgs_error *err)
{
    vgs__stage *st = &r->corrector->walk;
    vgs__walk_bind(s, st, r, t);
    vgs_scalar_set(st->g, st->rate, rate);
    vgs_scalar_set(st->g, st->rate_add, -rate * VGS__ACCEPTANCE);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_CORRECT, t, r->first_row, k, r->seed);
    vgs__noise_set(st->g, &st->accept, VGS__FOR_CORRECT_ACCEPT, t, r->first_row, k, r->seed);
    return vgs_graph_run(st->g, r->n, err);
}

/* log w += factor V_t(x_t)/tau; row [n] is scratch */
static vgs_status vgs__walk_weigh(vgs_sampler *s, const vgs__roll *r, double factor, float *row,
                                  double *log_weight, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int i;
    if (!log_weight) return VGS_OK;
    st = s->b->download(s->b->self, row, r->corrector->v, 0, (size_t)r->n, VGS_F32, err);
    for (i = 0; i < r->n && st == VGS_OK; ++i) log_weight[i] += factor * (double)row[i] / (double)s->c.tau;
    return st;
}

/* Numbers of MALA's steps, so that no two uses have the same noise. */
enum { VGS__WALKS_FORWARD = 0, VGS__WALKS_BACK = 1 << 28, VGS__WALKS_FIT = 1 << 29 };

/* MALA on V_t leaves exp(-V_t/tau) as it is. In front of step t it forgets where an imperfect start or step
   has led, as far as its steps reach, and moves log w by the change of V_t/tau: for the path that is then
   walked E[w] = Z as before, since a reversible move and its reverse have densities in that ratio
   [Neal 2001]. Forward (sign 1) x_t arrives and is moved on; backward (-1) it is where a path went on, and is
   taken back to where it arrived. Nothing happens if the roll has no corrector. */
static vgs_status vgs__correct(vgs_sampler *s, const vgs__roll *r, int t, double sign, float *row,
                               double *log_weight, vgs_error *err)
{
    vgs__corrector *c = r->corrector;
    uint32_t first = sign > 0.0 ? VGS__WALKS_FORWARD : VGS__WALKS_BACK;
    vgs_status st;
    int k;
    if (!c) return VGS_OK;
    st = vgs__walk_stand(s, r, t, err);
    if (st == VGS_OK) st = vgs__walk_weigh(s, r, -sign, row, log_weight, err);
    for (k = 0; k < c->steps && st == VGS_OK; ++k)
        st = vgs__walk_step(s, r, t, first + (uint32_t)k, 0.0, err);
    return st == VGS_OK ? vgs__walk_weigh(s, r, sign, row, log_weight, err) : st;
}

/* MALA's h at step t, from a few rows that adapt it there; *h is in units of s_t^2, of the step before. */
static vgs_status vgs__correct_fit_step(vgs_sampler *s, const vgs__roll *r, int t, double *h, vgs_error *err)
{
    static const double rate[12] = { 1.5, 1.5, 1.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3 };
    double unit = (double)s->s2[t] * (double)s->a[t] * (double)s->a[t];
    float *step = s->correct_step + t;
    vgs_buffer *on = r->corrector->length;
    vgs_status st;
    int k;
    *step = (float)(*h * unit);
    st = s->b->upload(s->b->self, on, (size_t)t, step, 1, VGS_F32, err);
    if (st == VGS_OK) st = vgs__walk_stand(s, r, t, err);
    for (k = 0; k < 12 && st == VGS_OK; ++k)
        st = vgs__walk_step(s, r, t, VGS__WALKS_FIT + (uint32_t)k, rate[k], err);
    if (st == VGS_OK) st = s->b->download(s->b->self, step, on, (size_t)t, 1, VGS_F32, err);
    if (st != VGS_OK) return st;
    *h = (double)*step / unit;
    *h = *h > 100.0 ? 100.0 : *h;                /* where V_t is flat                                 */
    *step = (float)(*h * unit);
    return VGS_OK;
}

/* Before the first corrected draw with these weights: a function of them and the seed alone, whatever the
   rows that are drawn, as exactness asks for. */
enum { VGS__FIT_ROWS = 128 };
static vgs_status vgs__correct_fit(vgs_sampler *s, vgs__corrector *c, vgs_error *err)
{
    double h = 4.0;
    vgs_draw o;
    vgs__roll r;
    vgs_status st;
    int t;
    if (s->correct_known) return VGS_OK;
    memset(&o, 0, sizeof o);
    r = vgs__draw_roll(s, &o, VGS__WALKS_FIT);
    r.n = VGS__FIT_ROWS < s->capacity ? VGS__FIT_ROWS : s->capacity;
    r.corrector = c;
    st = vgs__roll_start(s, &r, err);
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) {
        st = vgs__correct_fit_step(s, &r, t, &h, err);
        if (st == VGS_OK && t + 1 < s->c.steps) st = vgs__roll_step(s, &r, t, err);  /* E is not asked  */
    }
    st = vgs__draw_end(s, "draw: fitting the correction", st, err);
    s->correct_known = st == VGS_OK;
    return st;
}

static void vgs__corrector_free(vgs_sampler *s, vgs__corrector *c)
{
    vgs_graph_free(c->stand.g);
    vgs_graph_free(c->walk.g);
    vgs_graph_free(c->step.g);
    if (c->v) s->b->buffer_free(s->b->self, c->v);
    if (c->slope) s->b->buffer_free(s->b->self, c->slope);
    if (c->length) s->b->buffer_free(s->b->self, c->length);
}

/* A corrector for the draws of roll r, which from then on has it; steps = 0: none. */
static vgs_status vgs__corrector_make(vgs_sampler *s, vgs__corrector *c, int steps, vgs__roll *r,
                                      vgs_error *err)
{
    size_t cap = (size_t)s->capacity;
    vgs_status st;
    memset(c, 0, sizeof *c);
    if (!steps) return VGS_OK;
    c->steps = steps;
    if (!(c->v = s->b->buffer_create(s->b->self, cap, err)) ||
        !(c->slope = s->b->buffer_create(s->b->self, cap * (size_t)s->c.energy.dim, err)) ||
        !(c->length = s->b->buffer_create(s->b->self, (size_t)s->c.steps, err)) ||
        !(c->stand.g = vgs_graph_create(err)) || !(c->walk.g = vgs_graph_create(err)) ||
        (!s->c.explicit_drift && !(c->step.g = vgs_graph_create(err))))
        return VGS_E_NOMEM;
    vgs__record_stand(s, &c->stand, true);
    vgs__record_walk(s, &c->walk, true);
    if (c->step.g) vgs__record_step(s, &c->step, false, true);
    st = vgs_graph_compile(c->stand.g, s->b, s->capacity, err);
    if (st == VGS_OK) st = vgs_graph_compile(c->walk.g, s->b, s->capacity, err);
    if (st == VGS_OK && c->step.g) st = vgs_graph_compile(c->step.g, s->b, s->capacity, err);
    if (st == VGS_OK) st = vgs__correct_fit(s, c, err);
    if (st == VGS_OK)
        st = s->b->upload(s->b->self, c->length, 0, s->correct_step, (size_t)s->c.steps, VGS_F32, err);
    r->corrector = c;
    return st;
}

/* How many MALA steps this draw takes in front of each of its own. */
static int vgs__correct_steps(const vgs_sampler *s, const vgs_draw *o)
{
    if (o->correct) return o->correct > 0 ? o->correct : 0;
    return vgs__weightless(s, o) ? 0 : s->c.correct;
}

/* One block of rows of a draw, all steps; x and what o points to begin at its first row. */
static vgs_status vgs__draw_block(vgs_sampler *s, const vgs__roll *r, const vgs_draw *o, size_t path_rows,
                                  float *x, float *row, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n;
    vgs_status st = vgs__roll_start(s, r, err);
    int t;
    if (o->log_weight && st == VGS_OK) {
        memset(o->log_weight, 0, n * sizeof *o->log_weight);
        st = vgs__log_weight_start(s, r, x, o->log_weight, err);
    }
    for (t = 0; t <= s->c.steps && st == VGS_OK; ++t) {
        if (t < s->c.steps) st = vgs__correct(s, r, t, 1.0, row, o->log_weight, err);
        if (o->path && st == VGS_OK)
            st = s->b->download(s->b->self, o->path + (size_t)t * path_rows * d, r->x,
                                vgs__roll_place(s, r, t), n * d, VGS_F32, err);
        if (t == s->c.steps || st != VGS_OK) break;
        st = vgs__roll_step(s, r, t, err);
        if (o->log_weight && st == VGS_OK) st = vgs__log_weight_step(s, r, row, o->log_weight, err);
    }
    if (st == VGS_OK)
        st = s->b->download(s->b->self, x, r->x, vgs__roll_place(s, r, s->c.steps), n * d, VGS_F32, err);
    if (st != VGS_OK || !(o->log_weight || o->energy)) return st;
    return vgs__log_weight_end(s, r->n, x, o->energy ? o->energy : row, o->log_weight, err);
}

/* The rows of a block, out of n, that begin at i. */
static int vgs__draw_rows(const vgs_sampler *s, int n, int i)
{
    return n - i < s->capacity ? n - i : s->capacity;
}

static vgs_status vgs__draw(vgs_sampler *s, const vgs_draw *o, uint64_t iteration, int n, float *x,
                            vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs__roll r = vgs__draw_roll(s, o, iteration);
    vgs__corrector corrector;
    vgs_draw part = *o;
    vgs_status st = VGS_OK;
    float *row = NULL;
    int i;
    if (o->log_weight && !(row = (float *)vgs__alloc_or(err, "draw", (size_t)s->capacity, sizeof *row)))
        return VGS_E_NOMEM;
    st = vgs__corrector_make(s, &corrector, n > 0 ? vgs__correct_steps(s, o) : 0, &r, err);
    for (i = 0; i < n && st == VGS_OK; i += r.n) {
        r.n = vgs__draw_rows(s, n, i);
        r.first_row = o->first_row + (uint32_t)i;
        if (o->path) part.path = o->path + (size_t)i * d;
        if (o->energy) part.energy = o->energy + i;
        if (o->log_weight) part.log_weight = o->log_weight + i;
        st = vgs__draw_block(s, &r, &part, (size_t)n, x + (size_t)i * d, row, err);
    }
    vgs__corrector_free(s, &corrector);
    vgs__free(row);
    return vgs__draw_end(s, "draw", st, err);
}

/* ---- twisted SMC --------------------------------------------------------------------------------- */

typedef struct vgs__crowd {                      /* a population of n rows                            */
    int n;
    vgs__roll r;
    vgs__stage value;
    float *x, *spare, *row, *v;                  /* [n,D] the caller's, [n,D]; [n]; [n] V_t/tau       */
    double *log_weight;                          /* [n] the caller's: as without resampling, and then */
} vgs__crowd;                                    /* such that the mean weight stays unbiased          */

static void vgs__crowd_block(const vgs_sampler *s, vgs__crowd *c, const vgs_draw *o, int i)
{
    c->r.n = vgs__draw_rows(s, c->n, i);
    c->r.first_row = o->first_row + (uint32_t)i;
    c->r.x_first = (size_t)i;
}

static vgs_status vgs__crowd_start(vgs_sampler *s, vgs__crowd *c, const vgs_draw *o, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_status st = VGS_OK;
    int i;
    memset(c->log_weight, 0, (size_t)c->n * sizeof *c->log_weight);
    for (i = 0; i < c->n && st == VGS_OK; i += c->r.n) {
        vgs__crowd_block(s, c, o, i);
        st = vgs__roll_start(s, &c->r, err);
        if (st == VGS_OK)
            st = vgs__log_weight_start(s, &c->r, c->x + (size_t)i * d, c->log_weight + i, err);
    }
    return st;
}

static vgs_status vgs__crowd_step(vgs_sampler *s, vgs__crowd *c, const vgs_draw *o, int t, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int i;
    for (i = 0; i < c->n && st == VGS_OK; i += c->r.n) {
        vgs__crowd_block(s, c, o, i);
        st = vgs__correct(s, &c->r, t, 1.0, c->row, c->log_weight + i, err);
        if (st == VGS_OK) st = vgs__roll_step(s, &c->r, t, err);
        if (st == VGS_OK) st = vgs__log_weight_step(s, &c->r, c->row, c->log_weight + i, err);
    }
    return st;
}

/* v = V_t(x_t)/tau of all rows */
static vgs_status vgs__crowd_value(vgs_sampler *s, vgs__crowd *c, const vgs_draw *o, int t, vgs_error *err)
{
    vgs__stage *v = &c->value;
    vgs_status st = VGS_OK;
    int i;
    vgs_scalar_set(v->g, v->t_next, t);
    for (i = 0; i < c->n && st == VGS_OK; i += c->r.n) {
        vgs__crowd_block(s, c, o, i);
        vgs_bind(v->g, v->x, c->r.x, vgs__roll_place(s, &c->r, t), NULL);
        vgs_bind(v->g, v->cost, c->r.cost, 0, NULL);
        st = vgs_graph_run(v->g, c->r.n, err);
        if (st == VGS_OK)
            st = s->b->download(s->b->self, c->v + i, c->r.cost, 0, (size_t)c->r.n, VGS_F32, err);
    }
    return st;
}

/* Twisted weights, log w - V_t/tau: their largest logarithm, and from there their sum; their ESS/n. */
static double vgs__crowd_ess(const vgs__crowd *c, double *max, double *sum)
{
    double square = 0.0;
    int i;
    *max = -HUGE_VAL;
    *sum = 0.0;
    for (i = 0; i < c->n; ++i) {
        double v = c->log_weight[i] - (double)c->v[i];
        *max = v > *max ? v : *max;
    }
    for (i = 0; i < c->n; ++i) {
        double w = exp(c->log_weight[i] - (double)c->v[i] - *max);
        *sum += w;
        square += w * w;
    }
    return *sum * *sum / (c->n * square);
}

/* Systematic resampling: one uniform number u places n points (i + u)/n on the cumulated weights. All are
   equals after that, with the mean twisted weight. */
static vgs_status vgs__crowd_resample(vgs_sampler *s, vgs__crowd *c, const vgs_draw *o, int t, double max,
                                      double sum, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)c->n, place;
    uint32_t key[2], counter[4] = { 0, 0, (uint32_t)VGS__FOR_RESAMPLE << 24, 0 }, u[4];
    double start, below = 0.0;
    vgs_status st;
    int i, from = -1;
    c->r.x_first = 0;
    place = vgs__roll_place(s, &c->r, t);
    st = s->b->download(s->b->self, c->x, c->r.x, place, n * d, VGS_F32, err);
    key[0] = (uint32_t)c->r.seed;
    key[1] = (uint32_t)(c->r.seed >> 32);
    counter[0] = o->first_row;
    counter[1] = (uint32_t)t << 16;
    vgs_philox(key, counter, u);
    start = ((double)u[0] + ((double)u[1] + 0.5) / 4294967296.0) / 4294967296.0;
    for (i = 0; i < c->n && st == VGS_OK; ++i) {
        while (from < 0 || (below <= (i + start) / c->n * sum && from < c->n - 1)) {
            ++from;
            below += exp(c->log_weight[from] - (double)c->v[from] - max);
        }
        memcpy(c->spare + (size_t)i * d, c->x + (size_t)from * d, d * sizeof *c->spare);
        c->row[i] = c->v[from];
    }
    for (i = 0; i < c->n && st == VGS_OK; ++i) c->log_weight[i] = max + log(sum / c->n) + (double)c->row[i];
    return st == VGS_OK ? s->b->upload(s->b->self, c->r.x, place, c->spare, n * d, VGS_F32, err) : st;
}

static vgs_status vgs__crowd_run(vgs_sampler *s, vgs__crowd *c, const vgs_draw *o, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_status st = vgs__crowd_start(s, c, o, err);
    int t;
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) {
        double max, sum;
        st = vgs__crowd_value(s, c, o, t, err);
        if (st == VGS_OK && vgs__crowd_ess(c, &max, &sum) < (double)o->resample)     /* never if NaN   */
            st = vgs__crowd_resample(s, c, o, t, max, sum, err);
        if (st == VGS_OK) st = vgs__crowd_step(s, c, o, t, err);
    }
    c->r.x_first = 0;
    if (st == VGS_OK)
        st = s->b->download(s->b->self, c->x, c->r.x, vgs__roll_place(s, &c->r, t), (size_t)c->n * d, VGS_F32,
                            err);
    if (st != VGS_OK) return st;
    return vgs__log_weight_end(s, c->n, c->x, o->energy ? o->energy : c->row, c->log_weight, err);
}

static vgs_status vgs__draw_crowd(vgs_sampler *s, const vgs_draw *o, int n, float *x, vgs_error *err)
{
    size_t rows = (size_t)n, cells = rows * (size_t)s->c.energy.dim;
    vgs_status st = VGS_E_NOMEM;
    vgs__corrector corrector;
    vgs__crowd c;
    memset(&corrector, 0, sizeof corrector);
    memset(&c, 0, sizeof c);
    c.n = n;
    c.x = x;
    c.log_weight = o->log_weight;
    c.r = vgs__draw_roll(s, o, 0);
    c.r.x = s->b->buffer_create(s->b->self, 2 * cells, err);
    c.r.x_stride = rows;
    c.spare = (float *)vgs__alloc_or(err, "draw", cells + 2 * rows, sizeof *c.spare);
    c.value.g = c.spare && c.r.x ? vgs_graph_create(err) : NULL;
    if (c.value.g) {
        c.row = c.spare + cells;
        c.v = c.row + rows;
        vgs__record_twist(s, &c.value);
        st = vgs_graph_compile(c.value.g, s->b, s->capacity, err);
        if (st == VGS_OK) st = vgs__corrector_make(s, &corrector, vgs__correct_steps(s, o), &c.r, err);
        if (st == VGS_OK) st = vgs__crowd_run(s, &c, o, err);
    }
    vgs__corrector_free(s, &corrector);
    vgs_graph_free(c.value.g);
    vgs__free(c.spare);
    if (c.r.x) s->b->buffer_free(s->b->self, c.r.x);
    return vgs__draw_end(s, "draw", st, err);
}

static vgs_status vgs__check_correct(const vgs_sampler *s, const vgs_draw *o, const char *doing,
                                     vgs_error *err)
{
    if (o->correct < -1 || o->correct > VGS__MAX_WALKS)
        return vgs__fail(err, VGS_E_ARG, "%s: correct = %d: must be within -1..%d", doing, o->correct,
                         VGS__MAX_WALKS);
    if (o->correct > 0 && vgs__weightless(s, o))
        return vgs__fail(err, VGS_E_ARG, "%s: correct = %d: only draws that have weights are corrected",
                         doing, o->correct);
    return VGS_OK;
}

static vgs_status vgs__check_draw(const vgs_sampler *s, const vgs_draw *o, int n, const float *x,
                                  vgs_error *err)
{
    const char *why = o->log_weight ? vgs__weightless(s, o) : NULL;
    vgs_status st;
    if (n < 0) return vgs__fail(err, VGS_E_ARG, "draw: n = %d: must be >= 0", n);
    if (!(o->noise_scale >= 0.0f && o->noise_scale <= FLT_MAX))
        return vgs__fail(err, VGS_E_ARG, "draw: noise_scale = %g: must be > 0 and finite",
                         (double)o->noise_scale);
    if (n > 0 && !x) return vgs__fail(err, VGS_E_ARG, "draw: x = NULL: must have room for %d rows", n);
    if (why) return vgs__fail(err, VGS_E_ARG, "draw: log_weight: there are no path weights %s", why);
    if (!(o->resample >= 0.0f && o->resample <= 1.0f))
        return vgs__fail(err, VGS_E_ARG, "draw: resample = %g: must be within 0..1", (double)o->resample);
    if ((st = vgs__check_correct(s, o, "draw", err)) != VGS_OK) return st;
    if (o->resample > 0.0f && (!o->log_weight || o->path))
        return vgs__fail(err, VGS_E_ARG, "draw: resample = %g: %s", (double)o->resample,
                         o->path ? "rows have no path of their own then; path must be NULL"
                                 : "its samples need their weights; log_weight must not be NULL");
    return VGS_OK;
}

VGS__DEF vgs_status vgs_sampler_draw(vgs_sampler *s, const vgs_draw *draw, int n, float *x, vgs_error *err)
{
    vgs_draw o;
    vgs_status st;
    memset(&o, 0, sizeof o);
    if (draw) o = *draw;
    o.skip_final_noise = o.skip_final_noise || s->c.skip_final_noise;
    if ((st = vgs__check_draw(s, &o, n, x, err)) != VGS_OK) return st;
    return o.resample > 0.0f && n > 0 ? vgs__draw_crowd(s, &o, n, x, err) : vgs__draw(s, &o, 0, n, x, err);
}

/* ---- scoring samples of the target --------------------------------------------------------------- */

/* Step t backwards: x_t takes its place, the cost of the sampler's step is in r->cost. */
static vgs_status vgs__score_step(vgs_sampler *s, vgs__stage *st, const vgs__roll *r, int t, vgs_error *err)
{
    vgs_bind(st->g, st->x, r->x, vgs__roll_place(s, r, t + 1), NULL);
    vgs_bind(st->g, st->out, r->x, vgs__roll_place(s, r, t), NULL);
    vgs_bind(st->g, st->cost, r->cost, 0, NULL);
    vgs__set_step(s, st, t, 1.0);
    if (t < s->c.steps - 1 && !s->c.explicit_drift) vgs__set_drift_of(s, st, t);
    vgs_scalar_set(st->g, st->inv_a, 1.0 / (double)s->a[t]);
    vgs_scalar_set(st->g, st->back, sqrt((double)s->s2[t]));
    vgs_scalar_set(st->g, st->row, r->first_row);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_SCORE, t, r->first_row, 0, r->seed);
    return vgs_graph_run(st->g, r->n, err);
}

/* x [n,D] is x_T, and scratch after that; path and log_weight begin at the block's first row. */
static vgs_status vgs__score_block(vgs_sampler *s, vgs__stage st[2], const vgs__roll *r, float *x,
                                   float *path, size_t path_rows, float *row, double *log_weight,
                                   vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n;
    vgs_status code;
    int t;
    memset(log_weight, 0, n * sizeof *log_weight);
    code = vgs__log_weight_end(s, r->n, x, row, log_weight, err);
    if (code == VGS_OK)
        code = s->b->upload(s->b->self, r->x, vgs__roll_place(s, r, s->c.steps), x, n * d, VGS_F32, err);
    for (t = s->c.steps; t >= 0 && code == VGS_OK; --t) {
        if (t < s->c.steps) code = vgs__score_step(s, &st[t == s->c.steps - 1], r, t, err);
        if (t < s->c.steps && code == VGS_OK) code = vgs__log_weight_step(s, r, row, log_weight, err);
        if (path && code == VGS_OK)
            code = s->b->download(s->b->self, path + (size_t)t * path_rows * d, r->x,
                                  vgs__roll_place(s, r, t), n * d, VGS_F32, err);
        if (t < s->c.steps && code == VGS_OK) code = vgs__correct(s, r, t, -1.0, row, log_weight, err);
    }
    return code == VGS_OK ? vgs__log_weight_start(s, r, x, log_weight, err) : code;
}

/* y [n,D] = x, for particles with the mean over each row's particles taken off. */
static vgs_status vgs__score_rows(const vgs_sampler *s, const float *x, int n, int first, float *y,
                                  vgs_error *err)
{
    int d = s->c.energy.dim, p = s->c.energy.particles, i, j, k;
    for (i = 0; i < n; ++i, x += d, y += d) {
        for (j = 0; j < d; ++j) {
            if (!(x[j] - x[j] == 0.0f))
                return vgs__fail(err, VGS_E_NONFINITE, "score: ref: row %d, column %d is %g: must be finite",
                                 first + i, j, (double)x[j]);
            y[j] = x[j];
        }
        for (k = 0; p && k < d / p; ++k) {
            double mean = 0.0;
            for (j = k; j < d; j += d / p) mean += (double)x[j] / p;
            for (j = k; j < d; j += d / p) y[j] = (float)((double)x[j] - mean);
        }
    }
    return VGS_OK;
}

static vgs_status vgs__score(vgs_sampler *s, const vgs_draw *o, int n, const float *ref, vgs__stage st[2],
                             float *x, double *log_weight, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    float *row = x + (size_t)s->capacity * d;
    vgs__roll r = vgs__draw_roll(s, o, 0);
    vgs__corrector corrector;
    vgs_status code = vgs__corrector_make(s, &corrector, n > 0 ? vgs__correct_steps(s, o) : 0, &r, err);
    int i;
    for (i = 0; i < n && code == VGS_OK; i += r.n) {
        r.n = vgs__draw_rows(s, n, i);
        r.first_row = o->first_row + (uint32_t)i;
        code = vgs__score_rows(s, ref + (size_t)i * d, r.n, i, x, err);
        if (code == VGS_OK)
            code = vgs__score_block(s, st, &r, x, o->path ? o->path + (size_t)i * d : NULL, (size_t)n, row,
                                    log_weight + i, err);
    }
    vgs__corrector_free(s, &corrector);
    return vgs__draw_end(s, "score", code, err);
}

VGS__DEF vgs_status vgs_sampler_score(vgs_sampler *s, const vgs_draw *draw, int n, const float *ref,
                                      double *log_weight, vgs_error *err)
{
    size_t row = (size_t)s->c.energy.dim + 1;
    vgs__stage st[2];
    vgs_draw o;
    vgs_status code = VGS_OK;
    const char *why;
    float *x;
    int k;
    memset(&o, 0, sizeof o);
    memset(st, 0, sizeof st);
    if (draw) o = *draw;
    o.skip_final_noise = o.skip_final_noise || s->c.skip_final_noise;
    if (n < 0 || (n > 0 && (!ref || !log_weight)))
        return vgs__fail(err, VGS_E_ARG, "score: n = %d, or ref or log_weight is NULL: need both, and n >= 0",
                         n);
    if ((why = vgs__weightless(s, &o)) != NULL)
        return vgs__fail(err, VGS_E_ARG, "score: there are no path weights %s", why);
    if ((code = vgs__check_correct(s, &o, "score", err)) != VGS_OK) return code;
    if (!(x = (float *)vgs__alloc_or(err, "score", (size_t)s->capacity * row, sizeof *x))) return VGS_E_NOMEM;
    for (k = 0; k < 2 && code == VGS_OK; ++k) {
        if (!(st[k].g = vgs_graph_create(err))) code = VGS_E_NOMEM;
        else {
            vgs__record_score(s, &st[k], k == 1);
            code = vgs_graph_compile(st[k].g, s->b, s->capacity, err);
        }
    }
    if (code == VGS_OK) code = vgs__score(s, &o, n, ref, st, x, log_weight, err);
    for (k = 0; k < 2; ++k) vgs_graph_free(st[k].g);
    vgs__free(x);
    return code;
}

/* ---- training ------------------------------------------------------------------------------------ */

/* Where this iteration's trajectories come from. Up to step `explored` they are not those of the sampler:
   they explore, or come back from kept samples by the noising chain; there targets are of one step. None do
   so every other time on average, else the number of steps is any, so that returns start from such places
   at every t. Multiples of the golden ratio fill 0..1 evenly. */
typedef struct vgs__origin { int explored; bool recalled; } vgs__origin;

static vgs__origin vgs__origin_of(const vgs_sampler *s)
{
    vgs__origin p = { 0, false };
    double u = 0.6180339887498949 * (double)s->iteration;
    bool recall = s->c.replay && s->kept >= s->c.replay;             /* begins with a full store */
    u = 2.0 * (u - floor(u)) - 1.0;
    if (u <= 0.0 || !(recall || vgs__explores(s))) return p;
    p.explored = (int)(u * (s->c.steps - 1));
    p.recalled = recall && (!vgs__explores(s) || s->iteration % 2);
    return p;
}

/* x_t = x_next / a + sigma eps in place of t */
static vgs_status vgs__noise_back(vgs_sampler *s, int t, int next, double a, double sigma, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs__stage *st = &s->back;
    vgs_bind(st->g, st->x, s->pool_x, (size_t)next * rows, NULL);
    vgs_bind(st->g, st->out, s->pool_x, (size_t)t * rows, NULL);
    vgs_scalar_set(st->g, st->a, 1.0 / a);
    vgs_scalar_set(st->g, st->sigma, sigma);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_BACK, t, 0, (uint64_t)s->iteration, s->c.seed);
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* Kept samples, by weight, taken back to step n at once and from there step by step to x_0. */
static vgs_status vgs__recall(vgs_sampler *s, int n, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs__stage *st = &s->recall;
    double a = 1.0, var = 0.0;
    vgs_status code;
    int t;
    vgs_bind(st->g, st->out, s->pool_x, (size_t)s->c.steps * rows, NULL);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_RECALL, 0, 0, (uint64_t)s->iteration, s->c.seed);
    code = vgs_graph_run(st->g, s->c.batch, err);
    for (t = s->c.steps - 1; t >= n; --t) {
        a *= (double)s->a[t];
        var = vgs__noised(s, t, var);
    }
    if (code == VGS_OK) code = vgs__noise_back(s, n, s->c.steps, a, sqrt(var), err);
    for (t = n - 1; t >= 0 && code == VGS_OK; --t)
        code = vgs__noise_back(s, t, t + 1, (double)s->a[t], sqrt((double)s->s2[t]), err);
    return code;
}

/* x_T after `refine` steps of MALA, in walk_x. They leave the target as it is: log w stays. */
static vgs_status vgs__refine(vgs_sampler *s, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs__stage *st = &s->walk;
    vgs_status code;
    int k;
    vgs_bind(s->stand.g, s->stand.x, s->pool_x, (size_t)s->c.steps * rows, NULL);
    code = vgs_graph_run(s->stand.g, s->c.batch, err);
    for (k = 0; k < s->c.refine && code == VGS_OK; ++k) {
        vgs__noise_set(st->g, &st->noise, VGS__FOR_WALK, k, 0, (uint64_t)s->iteration, s->c.seed);
        vgs__noise_set(st->g, &st->accept, VGS__FOR_ACCEPT, k, 0, (uint64_t)s->iteration, s->c.seed);
        code = vgs_graph_run(st->g, s->c.batch, err);
    }
    s->energy_calls += (double)s->c.batch * (s->c.refine + 1);
    return code;
}

/* Remembers this iteration's samples, if its trajectories were the sampler's own. */
static vgs_status vgs__keep(vgs_sampler *s, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs__stage *st = &s->keep;
    vgs_status code = VGS_OK;
    if (!s->c.replay || vgs__origin_of(s).explored) return VGS_OK;
    if (s->c.refine) code = vgs__refine(s, err);
    if (code != VGS_OK) return code;
    vgs_bind(st->g, st->x, s->pool_x, 0, NULL);
    if (s->c.refine) vgs_bind(st->g, st->out, s->walk_x, 0, NULL);
    else vgs_bind(st->g, st->out, s->pool_x, (size_t)s->c.steps * rows, NULL);
    vgs_bind(st->g, st->cost, s->pool_path, 0, NULL);
    vgs_scalar_set(st->g, s->keep_first, (double)(s->kept % s->c.replay) * s->c.batch);
    code = vgs_graph_run(st->g, s->c.batch, err);
    if (code == VGS_OK) s->kept++;
    return code;
}

static vgs_status vgs__rollout(vgs_sampler *s, vgs_error *err)
{
    vgs__origin from = vgs__origin_of(s);
    vgs__roll r;
    vgs_status st;
    int t;
    memset(&r, 0, sizeof r);
    r.n = s->c.batch;
    r.for_start = VGS__FOR_START;
    r.for_step = VGS__FOR_STEP;
    r.seed = s->c.seed;
    r.iteration = (uint64_t)s->iteration;
    r.c = (double)s->c.explore;
    r.step_c = r.last_c = s->c.one_step ? r.c : 1.0;                 /* returns follow paths of c = 1   */
    r.explored = from.explored;
    r.recalled = from.recalled;
    r.x = s->pool_x;
    r.mu = s->pool_mu;
    r.musq = s->pool_musq;
    r.cost = s->pool_cost;
    r.width = s->pool_width;
    r.axes = s->pool_axes;
    r.x_stride = r.mu_stride = (size_t)s->c.batch;
    r.x_places = s->c.steps + 1;
    if (from.recalled || (s->c.replay && !from.explored)) r.c = 1.0;
    st = from.recalled ? vgs__recall(s, from.explored, err) : vgs__roll_start(s, &r, err);
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) st = vgs__roll_step(s, &r, t, err);
    s->energy_calls += s->c.batch;
    return st;
}

static void vgs__bind_width(vgs_sampler *s, vgs__stage *st, int t)
{
    size_t d = (size_t)s->c.energy.dim, row = (size_t)t * (size_t)s->c.batch;
    if (!s->c.local_noise) return;
    vgs_bind(st->g, st->width_out, s->pool_width, row * d, NULL);
    vgs_bind(st->g, st->axes_out, s->pool_axes, row * d * d, NULL);
}

static void vgs__bind_one_step(vgs_sampler *s, vgs__stage *st, int pass, int t)
{
    size_t d = (size_t)s->c.energy.dim, b = (size_t)s->c.batch;
    vgs_bind(st->g, st->x, s->pool_x, (size_t)t * b * d, NULL);
    vgs_bind(st->g, st->mu, s->pool_mu, (size_t)t * b * d, NULL);
    vgs_bind(st->g, st->musq, s->pool_musq, (size_t)t * b, NULL);
    vgs__bind_width(s, st, t);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_TARGET, t, 0,
                   (uint64_t)(s->iteration * s->c.passes + pass), s->c.seed);
}

static void vgs__bind_return(vgs_sampler *s, vgs__stage *st, int t)
{
    size_t d = (size_t)s->c.energy.dim, b = (size_t)s->c.batch;
    vgs_bind(st->g, st->x, s->pool_x, (size_t)(t + 1) * b * d, NULL);
    if (t + 1 < s->c.steps) vgs_bind(st->g, st->later, s->pool_y, (size_t)(t + 1) * b, NULL);
    vgs_bind(st->g, st->cost, s->pool_cost, (size_t)t * b, NULL);
    if (!s->c.replay) return;
    if (t + 1 < s->c.steps) vgs_bind(st->g, st->path, s->pool_path, (size_t)(t + 1) * b, NULL);
    vgs_bind(st->g, st->path_out, s->pool_path, (size_t)t * b, NULL);
}

static vgs_status vgs__make_target(vgs_sampler *s, int pass, int t, vgs_error *err)
{
    double dim = s->c.dim_effective, tau = (double)s->c.tau, a = (double)s->a[t], s2 = (double)s->s2[t];
    bool last = t == s->c.steps - 1;
    bool explored = t < vgs__origin_of(s).explored;
    vgs__stage *st = explored ? &s->fresh : last ? &s->target_last : &s->target_step;
    if (explored || s->c.one_step) vgs__bind_one_step(s, st, pass, t);
    else vgs__bind_return(s, st, t);
    vgs_bind(st->g, st->out, s->pool_y, (size_t)(pass * s->c.steps + t) * (size_t)s->c.batch, NULL);
    vgs__set_step(s, st, t, 1.0);
    vgs_scalar_set(st->g, st->value_scale, last || !s->c.scale_by_dim ? 1.0 / dim : 1.0);
    vgs_scalar_set(st->g, st->cost_scale, s->c.one_step ? tau / (2.0 * s2 * a * a * dim) : tau / dim);
    vgs_scalar_set(st->g, st->cost_add, -tau * log(a));
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* The drift of the last step is of E, not of V: the target before it is that of the last step. */
static vgs_status vgs__make_slope_target(vgs_sampler *s, int t, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, b = (size_t)s->c.batch, next = (size_t)t + 1;
    vgs__stage *st = &s->slope;
    double lambda = t == s->c.steps - 2 ? 1.0 : (double)s->c.lambda, a = (double)s->a[t];
    vgs_bind(st->g, st->out, s->pool_slope, (size_t)t * b * d, NULL);
    vgs_bind(st->g, st->later, s->pool_slope, next * b * d, NULL);
    vgs_bind(st->g, st->mu, s->pool_mu, next * b * d, NULL);
    vgs_bind(st->g, st->kappa, s->factor, 2 * next * (size_t)s->factors, NULL);
    vgs_scalar_set(st->g, st->limit, lambda * a);
    vgs_scalar_set(st->g, st->drift,
                   (1.0 - lambda) * a * (double)s->c.tau / ((double)s->s2[t + 1] * (double)s->a[t + 1]));
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* Targets of all transitions of a pass, the last step first: returns need the later ones. */
static vgs_status vgs__make_targets(vgs_sampler *s, int pass, vgs_error *err)
{
    vgs_status code = VGS_OK;
    int t;
    for (t = s->c.steps - 1; t >= 0 && code == VGS_OK; --t) code = vgs__make_target(s, pass, t, err);
    for (t = s->slope.g ? s->c.steps - 2 : -1; t >= 0 && code == VGS_OK; --t)
        code = vgs__make_slope_target(s, t, err);
    s->energy_calls += s->c.batch;
    return code;
}

/* Each iteration moves the factors of every VGS__FACTOR_STRIDE-th step. */
enum { VGS__FACTOR_STRIDE = 8 };
static vgs_status vgs__fit_factors(vgs_sampler *s, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, b = (size_t)s->c.batch;
    vgs_status code = VGS_OK;
    int t = (int)(s->iteration % VGS__FACTOR_STRIDE);
    if (s->c.fixed_kernel) return VGS_OK;
    for (; t < s->c.steps && code == VGS_OK; t += VGS__FACTOR_STRIDE) {
        bool last = t == s->c.steps - 1;
        vgs__stage *st = last ? &s->factor_last : &s->factor_step;
        vgs_bind(st->g, st->x, s->pool_x, (size_t)t * b * d, NULL);
        vgs_bind(st->g, st->mu, s->pool_mu, (size_t)t * b * d, NULL);
        vgs__bind_width(s, st, t);
        vgs__set_step(s, st, t, 1.0);
        vgs_scalar_set(st->g, st->cost_scale,
                       1.0 / (sqrt((double)s->s2[t]) * (double)s->a[t] *
                              (s->factors > 1 ? 1 : s->c.dim_effective)));
        vgs__noise_set(st->g, &st->noise, VGS__FOR_FACTOR, t, 0, (uint64_t)s->iteration, s->c.seed);
        code = vgs_graph_run(st->g, s->c.batch, err);
        if (last) s->energy_calls += s->c.batch;
    }
    return code;
}

/* lr/(1 - b1^k) and 1/sqrt(1 - b2^k) of Adam's step k */
static void vgs__adam_scalars(vgs_graph *g, vgs_scalar lr, vgs_scalar vs, double rate, int64_t k)
{
    vgs_scalar_set(g, lr, rate / (1.0 - pow(0.9, (double)k)));
    vgs_scalar_set(g, vs, 1.0 / sqrt(1.0 - pow(0.999, (double)k)));
}

/* Where the k-th minibatch of a pass asks for V, if its gradient counts. */
static vgs_status vgs__split_batch(vgs_sampler *s, int pass, int k, vgs_error *err)
{
    vgs__stage *st = &s->split;
    vgs__noise_set(st->g, &st->noise, VGS__FOR_SHUFFLE, pass, 0, (uint64_t)s->iteration, s->c.seed);
    vgs_scalar_set(st->g, s->split_first, (double)k * s->c.batch);
    vgs_graph_touch(st->g);
    return vgs_graph_run(st->g, s->c.batch, err);
}

static vgs_status vgs__fit_pass(vgs_sampler *s, int pass, vgs_error *err)
{
    vgs__stage *st = &s->fit;
    size_t rows = (size_t)s->c.steps * (size_t)s->c.batch;
    double rate = (double)s->c.value_lr;
    vgs_status code = VGS_OK;
    int k;
    if (s->c.lr_half > 0.0f) rate *= pow(0.5, (double)s->iteration / (double)s->c.lr_half);
    vgs_bind(st->g, st->out, s->pool_y, s->c.one_step ? (size_t)pass * rows : 0, NULL);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_SHUFFLE, pass, 0, (uint64_t)s->iteration, s->c.seed);
    for (k = 0; k < s->c.steps && code == VGS_OK; ++k) {
        vgs_scalar_set(st->g, s->fit_first, (double)k * s->c.batch);
        vgs_scalar_set(st->g, s->fit_log, pass * s->c.steps + k);
        vgs__adam_scalars(st->g, s->fit_lr, s->fit_vs, rate, ++s->adam_step);
        vgs_graph_touch(st->g);
        if (s->split.g) code = vgs__split_batch(s, pass, k, err);
        if (code == VGS_OK) code = vgs_graph_run(st->g, s->c.batch, err);
    }
    return code;
}

static void vgs__target_changed(vgs_sampler *s)
{
    vgs_graph_touch(s->step.g);
    vgs_graph_touch(s->target_step.g);
    if (s->factor_step.g) vgs_graph_touch(s->factor_step.g);
    if (s->fresh.g) vgs_graph_touch(s->fresh.g);
    vgs_graph_touch(s->sigma_fit.g);
    s->correct_known = false;
}

static vgs_status vgs__sigma_step(vgs_sampler *s, vgs_error *err)
{
    vgs__stage *st = &s->sigma_fit;
    if (!(s->c.sigma_lr > 0.0f)) return VGS_OK;
    vgs__adam_scalars(st->g, s->sigma_lr, s->sigma_vs, (double)s->c.sigma_lr, ++s->sigma_step);
    vgs__noise_set(st->g, &st->noise, VGS__FOR_SIGMA, 0, 0, (uint64_t)s->iteration, s->c.seed);
    return vgs_graph_run(st->g, s->c.batch, err);
}

static vgs_status vgs__iterate(vgs_sampler *s, vgs_error *err)
{
    int64_t adam = s->adam_step, sigma = s->sigma_step;
    vgs_status st = vgs__rollout(s, err);
    int pass, fresh = s->c.one_step ? s->c.passes : 1;               /* a return serves all passes      */
    for (pass = 0; pass < fresh && st == VGS_OK; ++pass) st = vgs__make_targets(s, pass, err);
    if (st == VGS_OK) st = vgs__fit_factors(s, err);
    for (pass = 0; pass < s->c.passes && st == VGS_OK; ++pass) st = vgs__fit_pass(s, pass, err);
    if (st == VGS_OK) st = vgs_graph_run(s->ema.g, 1, err);
    vgs__target_changed(s);
    if (st == VGS_OK) st = vgs__sigma_step(s, err);
    if (st == VGS_OK) st = vgs__read_flag(s, "train", err);
    if (st != VGS_OK) {                                              /* this iteration taught nothing  */
        s->adam_step = adam;
        s->sigma_step = sigma;
        vgs__clear_flag(s);
        return st;
    }
    st = vgs__keep(s, err);
    s->iteration++;
    return st;
}

static int vgs__compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Energies of n samples; leaves the finite ones sorted in e and returns how many there are. */
static int vgs__energy_stats(const vgs_sampler *s, double *e, int n, vgs_stats *out)
{
    int i, m = 0, above = 0;
    double sum = 0.0;
    for (i = 0; i < n; ++i) {
        above += s->c.energy_max != 0.0f && e[i] > (double)s->c.energy_max;
        if (e[i] - e[i] == 0.0) { sum += e[i]; e[m++] = e[i]; }
    }
    qsort(e, (size_t)m, sizeof *e, vgs__compare_double);
    out->nonfinite = (double)(n - m) / n;
    out->clipped = (double)above / n;
    out->energy_mean = m ? sum / m : (double)NAN;
    out->energy_median = m ? e[m / 2] : (double)NAN;
    out->energy_min = m ? e[0] : (double)NAN;
    out->energy_max = m ? e[m - 1] : (double)NAN;
    return m;
}

/* E of host rows through the sampler's own energy, whatever its kind: rounded to float into e and, unless
   NULL, with all digits that it has into e64. */
static vgs_status vgs__energies(vgs_sampler *s, const float *x, int n, float *e, double *e64, vgs_error *err)
{
    int threads = s->own ? vgs_cpu_threads(s->own) : 1, i;
    vgs_graph *g;
    vgs_var in, v;
    vgs_status st;
    if (!s->c.energy.record) return vgs__energy_eval(&s->c.energy, x, n, e, e64, NULL, threads, err);
    if (!(g = vgs_graph_create(err))) return VGS_E_NOMEM;
    in = vgs_input(g, s->c.energy.dim);
    v = vgs_energy_of(g, &s->c.energy, in);
    vgs_output(g, v);
    st = vgs_graph_compile(g, s->b, n, err);
    if (st == VGS_OK) st = vgs_set(g, in, x, n, err);
    if (st == VGS_OK) st = vgs_graph_run(g, n, err);
    if (st == VGS_OK) st = vgs_get(g, v, e, n, err);
    for (i = 0; e64 && i < n && st == VGS_OK; ++i) e64[i] = (double)e[i];
    vgs_graph_free(g);
    return st;
}

/* Draws of `batch` rows with c = 1; the ELBO is the mean of log w. */
static vgs_status vgs__measure(vgs_sampler *s, vgs_stats *out, vgs_error *err)
{
    int n = s->c.batch < 512 ? s->c.batch : 512, i;
    size_t d = (size_t)s->c.energy.dim;
    float *x = (float *)vgs__alloc_or(err, "statistics", (size_t)n * (d + 1), sizeof *x),
          *e = x ? x + (size_t)n * d : NULL;
    double *work = x ? (double *)vgs__alloc_or(err, "statistics", (size_t)n, sizeof *work) : NULL, sum = 0.0;
    vgs_draw draw;
    vgs_status st = work ? VGS_OK : VGS_E_NOMEM;
    memset(&draw, 0, sizeof draw);
    draw.log_weight = s->c.on_sphere ? NULL : work;
    draw.correct = -1;
    if (st == VGS_OK) st = vgs__draw(s, &draw, (uint64_t)s->iteration + 1, n, x, err);
    if (st == VGS_OK) {
        for (i = 0; i < n; ++i) sum += work[i];
        out->elbo = s->c.on_sphere ? (double)NAN : sum / n;          /* no Gaussian kernels there      */
        st = vgs__energies(s, x, n, e, work, err);
        if (st == VGS_OK) vgs__energy_stats(s, work, n, out);
    }
    vgs__free(x);
    vgs__free(work);
    return st;
}

static vgs_status vgs__fill_stats(vgs_sampler *s, vgs_stats *out, vgs_error *err)
{
    int n = s->c.passes * s->c.steps, i;
    float *log = (float *)vgs__alloc_or(err, "statistics", (size_t)n, sizeof *log), s0 = 0.0f;
    vgs_status st =
        log ? s->b->download(s->b->self, log, s->loss_log, 0, (size_t)n, VGS_F32, err) : VGS_E_NOMEM;
    if (st == VGS_OK) st = s->b->download(s->b->self, &s0, s->sigma, 0, 1, VGS_F32, err);
    memset(out, 0, sizeof *out);
    out->iteration = s->iteration;
    out->init_sigma = (double)s0;
    out->energy_calls = s->energy_calls;
    for (i = 0; i < n && st == VGS_OK; ++i) out->loss += (double)log[i] / n;
    vgs__free(log);
    return st == VGS_OK ? vgs__measure(s, out, err) : st;
}

VGS__DEF vgs_status vgs_sampler_train(vgs_sampler *s, int n, vgs_stats *stats, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int i;
    if (n < 0) return vgs__fail(err, VGS_E_ARG, "train: n = %d: must be >= 0", n);
    for (i = 0; i < n && st == VGS_OK; ++i) {
        st = vgs__iterate(s, err);
        if (st == VGS_OK && s->c.progress && s->c.progress(s->c.progress_user, s->iteration))
            st = vgs__fail(err, VGS_E_CANCELLED, "train: cancelled after iteration %lld",
                           (long long)s->iteration);
    }
    if (st == VGS_OK && stats) st = vgs__fill_stats(s, stats, err);
    return st;
}

/* ==== >>files ====================================================================================== */

VGS__DEF void vgs_free(void *p)
{
    vgs__free(p);
}

#ifndef VGS_NO_STDIO
#include <errno.h>
#include <time.h>

/* stat is in every Unix; fileno and fsync are hidden by -std=c99 unless POSIX is asked for, and then the
   sync is left out: the file is still replaced at once, but a power cut soon after may lose it. */
#if defined __unix__ || defined __APPLE__
#  include <sys/stat.h>
#  include <unistd.h>
#  define VGS__STAT
#  if !defined __STRICT_ANSI__ || defined __APPLE__ || \
      (defined _POSIX_C_SOURCE && _POSIX_C_SOURCE >= 200112L)
#    define VGS__FSYNC
#  endif
#endif
#ifdef _WIN32                                    /* as in windows.h, which would bring 5,000 macros along */
__declspec(dllimport) int __stdcall MoveFileExA(const char *from, const char *to, unsigned long flags);
#endif
#if !defined _WIN32 && (defined __GLIBC__ || defined __APPLE__ || \
                        (defined __STDC_VERSION__ && __STDC_VERSION__ >= 201112L))
#  define VGS__CREATE "wbx"                      /* fails if the file exists: no gap between look and open */
#else
#  define VGS__CREATE "wb"
#endif

/* The end of a long path, so that the rest of the message fits as well. */
static const char *vgs__brief(const char *path)
{
    size_t n = strlen(path);
    return n > 96 ? path + (n - 96) : path;
}

static const char *vgs__reason(int error)
{
    return error ? strerror(error) : "the system gives no reason";
}

/* ---- writing: a temporary, then one rename ---- */

/* True for a device, a pipe or a folder: a rename would put a plain file in its place (as root, for
   /dev/null too), so these are opened as they are. */
static bool vgs__is_special(const char *path)
{
#ifdef VGS__STAT
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
#else
    (void)path;
    return false;
#endif
}

static uint32_t vgs__temp_number(const void *here, int attempt)
{
    uint64_t h = (uint64_t)(uintptr_t)here + ((uint64_t)time(NULL) << 20);
    h += (uint64_t)clock() + (uint64_t)attempt;
    h *= 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

/* PATH.tmp-1a2b3c4d: beside PATH, so that the rename stays within one file system. */
static FILE *vgs__temp_open(char *temp, size_t length)
{
    FILE *f;
    int i;
    for (i = 0; i < 16; ++i) {
        snprintf(temp + length, 16, ".tmp-%08lx", (unsigned long)vgs__temp_number(temp, i));
        f = fopen(temp, "rb");
        if (f) {
            fclose(f);
            continue;
        }
        f = fopen(temp, VGS__CREATE);
        if (f || errno != EEXIST) return f;
    }
    return NULL;
}

static void vgs__file_close(vgs_file *f)
{
    vgs__free(f->path);
    memset(f, 0, sizeof *f);
}

VGS__DEF vgs_status vgs_file_begin(vgs_file *f, const char *path, vgs_error *err)
{
    size_t n = path ? strlen(path) : 0;
    memset(f, 0, sizeof *f);
    if (!n) return vgs__fail(err, VGS_E_ARG, "file: the path is empty");
    f->path = (char *)vgs__alloc_or(err, "a path", 2, n + 16);       /* both names, in one block */
    if (!f->path) return VGS_E_NOMEM;
    memcpy(f->path, path, n);
    errno = 0;
    if (vgs__is_special(path)) {
        f->stream = fopen(path, "wb");
    } else {
        f->temp = f->path + n + 1;
        memcpy(f->temp, path, n);
        f->stream = vgs__temp_open(f->temp, n);
    }
    if (f->stream) return VGS_OK;
    vgs__fail(err, VGS_E_IO, "cannot open %s for writing: %s", vgs__brief(path), vgs__reason(errno));
    vgs__file_close(f);
    return VGS_E_IO;
}

static void vgs__file_put(vgs_file *f, const void *data, size_t bytes)
{
    if (f->error || !bytes) return;
    errno = 0;
    if (fwrite(data, 1, bytes, f->stream) != bytes) f->error = errno ? errno : EIO;
}

static bool vgs__flush(FILE *stream, bool to_disk)
{
    if (fflush(stream) != 0 || ferror(stream)) return false;
#ifdef VGS__FSYNC
    return !to_disk || fsync(fileno(stream)) == 0;
#else
    (void)to_disk;
    return true;
#endif
}

static bool vgs__replace(const char *from, const char *to)
{
#ifdef _WIN32
    errno = 0;
    return MoveFileExA(from, to, 1 | 8) != 0;                        /* replace existing, write through */
#else
    return rename(from, to) == 0;
#endif
}

VGS__DEF vgs_status vgs_file_commit(vgs_file *f, vgs_error *err)
{
    bool ok;
    if (!f->stream) return vgs__fail(err, VGS_E_ARG, "file: commit without begin");
    errno = 0;
    ok = !f->error && vgs__flush(f->stream, f->temp != NULL);
    if (!ok && !f->error) f->error = errno;
    if (fclose(f->stream) != 0 && ok) {
        ok = false;
        f->error = errno;
    }
    if (ok && f->temp && !vgs__replace(f->temp, f->path)) {
        ok = false;
        f->error = errno;
    }
    if (!ok) {
        vgs__fail(err, VGS_E_IO, "cannot write %s: %s", vgs__brief(f->path), vgs__reason(f->error));
        if (f->temp) remove(f->temp);
    }
    vgs__file_close(f);
    return ok ? VGS_OK : VGS_E_IO;
}

VGS__DEF void vgs_file_discard(vgs_file *f)
{
    if (!f->stream) return;
    fclose(f->stream);
    if (f->temp) remove(f->temp);
    vgs__file_close(f);
}

VGS__DEF vgs_status vgs_file_write(const char *path, const void *data, size_t bytes, vgs_error *err)
{
    vgs_file f;
    vgs_status st = vgs_file_begin(&f, path, err);
    if (st) return st;
    vgs__file_put(&f, data, bytes);
    return vgs_file_commit(&f, err);
}

/* ---- reading: the whole file ---- */

/* What is left of the file beyond `have`, as a hint: 0 where the C library cannot tell (a pipe, or a file
   of more than 2 GB where long has 32 bits). */
static size_t vgs__file_rest(FILE *f, size_t have)
{
    long end;
    if (fseek(f, 0, SEEK_END) != 0) return 0;
    end = ftell(f);
    if (have > LONG_MAX || fseek(f, (long)have, SEEK_SET) != 0) return 0;
    return end > 0 && (unsigned long)end > have ? (size_t)((unsigned long)end - have) : 0;
}

static vgs_status vgs__stream_read(FILE *f, const char *path, unsigned char **data, size_t *size,
                                   vgs_error *err)
{
    size_t cap = 65536, n = 0, more;
    unsigned char *buf = (unsigned char *)vgs__alloc_or(err, "a file", cap, 1), *big;
    if (!buf) return VGS_E_NOMEM;
    for (;;) {
        errno = 0;
        n += fread(buf + n, 1, cap - n, f);
        if (n < cap) break;
        more = n == 65536 ? vgs__file_rest(f, n) : 0;
        more = more < n ? n : more + 1;                              /* + 1: so that the end is seen */
        big = more > (size_t)-1 - n ? NULL : (unsigned char *)vgs__alloc(n + more, 1);
        if (!big) {
            vgs__free(buf);
            return vgs__fail(err, VGS_E_NOMEM, "out of memory: %s has over %.0f bytes", vgs__brief(path),
                             (double)n);
        }
        memcpy(big, buf, n);
        vgs__free(buf);
        buf = big;
        cap = n + more;
    }
    if (ferror(f)) {
        vgs__fail(err, VGS_E_IO, "cannot read %s: %s", vgs__brief(path), vgs__reason(errno));
        vgs__free(buf);
        return VGS_E_IO;
    }
    *data = buf;
    *size = n;
    return VGS_OK;
}

static vgs_status vgs__file_read(const char *path, unsigned char **data, size_t *size, vgs_error *err)
{
    vgs_status st;
    FILE *f;
    if (!path || !*path) return vgs__fail(err, VGS_E_ARG, "file: the path is empty");
    errno = 0;
    f = fopen(path, "rb");
    if (!f) return vgs__fail(err, VGS_E_IO, "cannot open %s: %s", vgs__brief(path), vgs__reason(errno));
    st = vgs__stream_read(f, path, data, size, err);
    fclose(f);
    return st;
}

/* ---- bytes: everything in a file is little-endian, whatever the processor ---- */

static uint64_t vgs__load_le(const unsigned char *p, size_t size)
{
    uint64_t v = 0;
    while (size--) v = v << 8 | p[size];
    return v;
}

static void vgs__store_le(unsigned char *p, uint64_t v, size_t size)
{
    size_t i;
    for (i = 0; i < size; ++i) p[i] = (unsigned char)(v >> 8 * i);
}

/* One number of the host's memory as little-endian bytes. */
static void vgs__host_to_le(unsigned char *out, const unsigned char *in, size_t size)
{
    uint16_t h;
    uint32_t w;
    uint64_t d;
    if (size == 8) {
        memcpy(&d, in, 8);
        vgs__store_le(out, d, 8);
    } else if (size == 4) {
        memcpy(&w, in, 4);
        vgs__store_le(out, w, 4);
    } else if (size == 2) {
        memcpy(&h, in, 2);
        vgs__store_le(out, h, 2);
    } else {
        *out = *in;
    }
}

/* n floats from little-endian floats (size 4) or doubles (8). Returns how many could be had: all of them,
   or the place of the first double that is finite but no float. */
static size_t vgs__floats_from_le(float *out, const unsigned char *in, size_t size, size_t n)
{
    size_t i;
    for (i = 0; i < n; ++i) {
        uint64_t u = vgs__load_le(in + i * size, size);
        double d;
        if (size == 4) {
            out[i] = vgs__from_bits((uint32_t)u);
            continue;
        }
        memcpy(&d, &u, 8);
        if (d - d == 0.0 && fabs(d) > (double)FLT_MAX) break;
        out[i] = (float)d;
    }
    return i;
}

/* CRC-32 as in zip and PNG. The table lives with its user: no mutable global. */
typedef struct vgs__crc { uint32_t value, table[256]; } vgs__crc;

static void vgs__crc_init(vgs__crc *c)
{
    uint32_t i, v;
    int k;
    for (i = 0; i < 256; ++i) {
        for (v = i, k = 0; k < 8; ++k) v = v >> 1 ^ (v & 1 ? 0xEDB88320u : 0);
        c->table[i] = v;
    }
    c->value = 0xFFFFFFFFu;
}

static void vgs__crc_add(vgs__crc *c, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;
    uint32_t v = c->value;
    while (n--) v = v >> 8 ^ c->table[(v ^ *p++) & 255];
    c->value = v;
}

static uint32_t vgs__crc_end(const vgs__crc *c)
{
    return ~c->value;
}

/* Where the bytes of a file go: into the file if there is one, else into the checksum. The same code thus
   measures a header, sums a file and writes it, and no copy of it is held. */
typedef struct vgs__sink {
    vgs_file *file;
    uint64_t  size;
    vgs__crc  crc;
} vgs__sink;

static void vgs__sink_init(vgs__sink *k, vgs_file *file)
{
    k->file = file;
    k->size = 0;
    vgs__crc_init(&k->crc);
}

static void vgs__sink_put(vgs__sink *k, const void *data, size_t bytes)
{
    k->size += bytes;
    if (k->file) vgs__file_put(k->file, data, bytes);
    else vgs__crc_add(&k->crc, data, bytes);
}

/* n numbers of `size` bytes from the host's memory. */
static void vgs__sink_numbers(vgs__sink *k, const void *data, size_t size, size_t n)
{
    const unsigned char *in = (const unsigned char *)data;
    unsigned char part[4096];
    size_t i, m;
    for (; n; n -= m, in += m * size) {
        m = n < sizeof part / size ? n : sizeof part / size;
        for (i = 0; i < m; ++i) vgs__host_to_le(part + i * size, in + i * size, size);
        vgs__sink_put(k, part, m * size);
    }
}

/* ---- text: UTF-8 and numbers that do not depend on the locale ---- */

/* Length of the character at p, 0 if the bytes are not UTF-8 (Unicode 15, table 3-7). */
static int vgs__utf8(const unsigned char *p, size_t left)
{
    int n = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0, i;
    if ((size_t)n > left) return 0;
    for (i = 1; i < n; ++i)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if (p[0] == 0xE0 && p[1] < 0xA0) return 0;                       /* longer than needed          */
    if (p[0] == 0xED && p[1] > 0x9F) return 0;                       /* half of a surrogate pair    */
    if (p[0] == 0xF0 && p[1] < 0x90) return 0;                       /* longer than needed          */
    if (p[0] == 0xF4 && p[1] > 0x8F) return 0;                       /* beyond U+10FFFF             */
    return n;
}

static bool vgs__is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t left = strlen(text);
    int n;
    for (; left; p += n, left -= (size_t)n) {
        n = vgs__utf8(p, left);
        if (!n) return false;
    }
    return true;
}

/* The next character of a JSON string, escaped where it must be; *text moves on. What is not UTF-8 becomes
   U+FFFD, so that the result is always JSON. Returns the bytes in `out`. */
static int vgs__escape(const char **text, char out[8])
{
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    const unsigned char *p = (const unsigned char *)*text;
    const char *at = strchr(special, *p);
    int n = vgs__utf8(p, 4);                                         /* stops at the final 0 by itself */
    *text += n ? n : 1;
    if (at) {
        out[0] = '\\';
        out[1] = letter[at - special];
        return 2;
    }
    if (!n) return snprintf(out, 8, "\\ufffd");
    if (*p < 0x20) return snprintf(out, 8, "\\u%04x", *p);
    memcpy(out, p, (size_t)n);
    return n;
}

static void vgs__decimal(uint64_t v, char out[24])
{
    char digits[24];
    int n = 0, i;
    do digits[n++] = (char)('0' + (int)(v % 10)); while (v /= 10);
    for (i = 0; i < n; ++i) out[i] = digits[n - 1 - i];
    out[n] = 0;
}

/* A number as printf has it may hold any bytes for the decimal point: whatever is no part of a C number. */
static void vgs__decimal_point(char *text)
{
    char *from = text + strspn(text, "+-0123456789e"), *to;
    to = from + strcspn(from, "+-0123456789e");
    if (from == to) return;
    *from = '.';
    memmove(from + 1, to, strlen(to) + 1);
}

/* The shortest of `least`..`most` digits that read back as x; "null" if x is not finite. */
static void vgs__number(double x, bool is_float, char out[40])
{
    int digits = is_float ? 6 : 15, most = is_float ? 9 : 17;
    double back;
    if (!(x - x == 0.0)) {
        memcpy(out, "null", 5);
        return;
    }
    for (;; ++digits) {
        snprintf(out, 40, "%.*g", digits, x);
        back = strtod(out, NULL);
        if (digits == most || back == x || (is_float && (float)back == (float)x)) break;
    }
    vgs__decimal_point(out);
}

/* A JSON number and nothing else. */
static bool vgs__is_number(const char *s)
{
    size_t n;
    if (*s == '-') ++s;
    n = strspn(s, "0123456789");
    if (!n || (n > 1 && *s == '0')) return false;
    s += n;
    if (*s == '.') {
        n = strspn(++s, "0123456789");
        if (!n) return false;
        s += n;
    }
    if (*s == 'e' || *s == 'E') {
        ++s;
        if (*s == '+' || *s == '-') ++s;
        n = strspn(s, "0123456789");
        if (!n) return false;
        s += n;
    }
    return !*s;
}

/* strtod reads the locale's decimal point, so that is what it is given: "0" POINT "5" shows which. */
static bool vgs__parse_number(const char *s, double *out)
{
    char half[16], text[96];
    const char *dot = strchr(s, '.');
    size_t whole = dot ? (size_t)(dot - s) : strlen(s), point;
    if (!vgs__is_number(s) || strlen(s) > 64) return false;
    snprintf(half, sizeof half, "%.1f", 0.5);
    point = dot ? strlen(half) - 2 : 0;
    memcpy(text, s, whole);
    memcpy(text + whole, half + 1, point);
    strcpy(text + whole + point, dot ? dot + 1 : "");
    *out = strtod(text, NULL);
    return *out - *out == 0.0;
}

/* ---- JSON out ---- */

static void vgs__json_text(FILE *out, const char *text)
{
    char c[8];
    fputc('"', out);
    while (*text) fwrite(c, 1, (size_t)vgs__escape(&text, c), out);
    fputc('"', out);
}

static void vgs__json_key(vgs_json *j, const char *key)
{
    if (j->comma) fputs(", ", j->out);
    j->comma = true;
    if (!key) return;
    vgs__json_text(j->out, key);
    fputs(": ", j->out);
}

static void vgs__json_raw(vgs_json *j, const char *key, const char *value)
{
    vgs__json_key(j, key);
    fputs(value, j->out);
}

VGS__DEF void vgs_json_open(vgs_json *j, const char *key, char bracket)
{
    vgs__json_key(j, key);
    fputc(bracket, j->out);
    j->comma = false;
}

VGS__DEF void vgs_json_close(vgs_json *j, char bracket)
{
    fputc(bracket, j->out);
    j->comma = true;
}

VGS__DEF void vgs_json_string(vgs_json *j, const char *key, const char *value)
{
    vgs__json_key(j, key);
    if (value) vgs__json_text(j->out, value);
    else fputs("null", j->out);
}

VGS__DEF void vgs_json_double(vgs_json *j, const char *key, double value)
{
    char text[40];
    vgs__number(value, false, text);
    vgs__json_raw(j, key, text);
}

VGS__DEF void vgs_json_float(vgs_json *j, const char *key, float value)
{
    char text[40];
    vgs__number((double)value, true, text);
    vgs__json_raw(j, key, text);
}

VGS__DEF void vgs_json_u64(vgs_json *j, const char *key, uint64_t value)
{
    char text[24];
    vgs__decimal(value, text);
    vgs__json_raw(j, key, text);
}

VGS__DEF void vgs_json_i64(vgs_json *j, const char *key, int64_t value)
{
    char text[25];
    text[0] = '-';
    vgs__decimal(value < 0 ? 0 - (uint64_t)value : (uint64_t)value, text + 1);
    vgs__json_raw(j, key, value < 0 ? text : text + 1);
}

VGS__DEF void vgs_json_bool(vgs_json *j, const char *key, bool value)
{
    vgs__json_raw(j, key, value ? "true" : "false");
}

VGS__DEF void vgs_json_line(vgs_json *j)
{
    fputc('\n', j->out);
    j->comma = false;
}

/* ---- a header's text, read strictly; the first thing that is wrong is the error ---- */

typedef struct vgs__scan {
    const unsigned char *start, *p, *end;
    const char *path;
    char       *text;   /* where the next decoded string goes: with its 0 no longer than in the file */
    vgs_error  *err;
} vgs__scan;

static bool vgs__scan_fail(vgs__scan *s, const char *what)
{
    vgs__fail(s->err, VGS_E_FORMAT, "%s: byte %.0f of the header: %s", vgs__brief(s->path),
              (double)(s->p - s->start), what);
    return false;
}

/* The next byte that is no white space, or -1 at the end. */
static int vgs__scan_peek(vgs__scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) ++s->p;
    return s->p < s->end ? *s->p : -1;
}

static bool vgs__scan_accept(vgs__scan *s, int c)
{
    if (vgs__scan_peek(s) != c) return false;
    ++s->p;
    return true;
}

static bool vgs__scan_expect(vgs__scan *s, int c)
{
    char what[] = "expected ' '";
    if (vgs__scan_accept(s, c)) return true;
    what[10] = (char)c;
    return vgs__scan_fail(s, what);
}

/* After an item of a list: true if another follows. */
static bool vgs__scan_more(vgs__scan *s, int close, bool *ok)
{
    if (vgs__scan_accept(s, ',')) return true;
    *ok = vgs__scan_expect(s, close);
    return false;
}

static bool vgs__scan_u64(vgs__scan *s, uint64_t *v)
{
    int c = vgs__scan_peek(s);
    *v = 0;
    if (c < '0' || c > '9') return vgs__scan_fail(s, "expected a whole number of 0 or more");
    if (c == '0' && s->end - s->p > 1 && s->p[1] >= '0' && s->p[1] <= '9')
        return vgs__scan_fail(s, "a number starts with 0");
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; ++s->p) {
        unsigned digit = (unsigned)(*s->p - '0');
        if (*v > (UINT64_MAX - digit) / 10) return vgs__scan_fail(s, "a number is over 2^64");
        *v = *v * 10 + digit;
    }
    return true;
}

static bool vgs__scan_hex4(vgs__scan *s, uint32_t *v)
{
    int i;
    *v = 0;
    for (i = 0; i < 4 && s->p < s->end; ++i, ++s->p) {
        unsigned c = *s->p, lower = c | 32;
        if (c >= '0' && c <= '9') *v = *v << 4 | (c - '0');
        else if (lower >= 'a' && lower <= 'f') *v = *v << 4 | (lower - 'a' + 10);
        else break;
    }
    return i == 4 || vgs__scan_fail(s, "\\u needs four hexadecimal digits");
}

static char *vgs__put_utf8(char *t, uint32_t u)
{
    if (u < 0x80) {
        *t++ = (char)u;
        return t;
    }
    if (u < 0x800) {
        *t++ = (char)(0xC0 | u >> 6);
    } else {
        if (u < 0x10000) {
            *t++ = (char)(0xE0 | u >> 12);
        } else {
            *t++ = (char)(0xF0 | u >> 18);
            *t++ = (char)(0x80 | (u >> 12 & 63));
        }
        *t++ = (char)(0x80 | (u >> 6 & 63));
    }
    *t++ = (char)(0x80 | (u & 63));
    return t;
}

/* What follows a backslash. */
static bool vgs__scan_escape(vgs__scan *s, char **t)
{
    static const char simple[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    uint32_t u, low;
    int c = s->p < s->end ? *s->p++ : -1;
    size_t i;
    for (i = 0; simple[i]; i += 2)
        if (c == simple[i]) {
            *(*t)++ = simple[i + 1];
            return true;
        }
    if (c != 'u') return vgs__scan_fail(s, "unknown escape in a string");
    if (!vgs__scan_hex4(s, &u)) return false;
    if (u >= 0xD800 && u < 0xDC00 && s->end - s->p > 2 && s->p[0] == '\\' && s->p[1] == 'u') {
        s->p += 2;
        if (!vgs__scan_hex4(s, &low)) return false;
        if (low < 0xDC00 || low > 0xDFFF) return vgs__scan_fail(s, "half of a surrogate pair");
        u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00);
    }
    if (u >= 0xD800 && u < 0xE000) return vgs__scan_fail(s, "half of a surrogate pair");
    if (!u) return vgs__scan_fail(s, "a string holds the character 0");
    *t = vgs__put_utf8(*t, u);
    return true;
}

static bool vgs__scan_string(vgs__scan *s, const char **out)
{
    char *t = s->text;
    int n;
    *out = t;
    if (!vgs__scan_expect(s, '"')) return false;
    while (s->p < s->end && *s->p != '"') {
        if (*s->p == '\\') {
            ++s->p;
            if (!vgs__scan_escape(s, &t)) return false;
            continue;
        }
        n = *s->p < 0x20 ? 0 : vgs__utf8(s->p, (size_t)(s->end - s->p));
        if (!n) return vgs__scan_fail(s, "a string is not UTF-8 text");
        for (; n; --n) *t++ = (char)*s->p++;
    }
    if (s->p == s->end) return vgs__scan_fail(s, "a string does not end");
    ++s->p;
    *t++ = 0;
    s->text = t;
    return true;
}

/* Which of the three fields `key` is, as a bit; 0 with an error if it is none, or was there before. */
static int vgs__scan_field(vgs__scan *s, const char *key, const char *const fields[3], int *seen)
{
    int i;
    for (i = 0; i < 3 && strcmp(key, fields[i]) != 0; ++i) ;
    if (i < 3 && !(*seen & 1 << i)) {
        *seen |= 1 << i;
        return 1 << i;
    }
    vgs__fail(s->err, VGS_E_FORMAT, "%s: byte %.0f of the header: field '%.30s' %s", vgs__brief(s->path),
              (double)(s->p - s->start), key, i < 3 ? "appears twice" : "is not known");
    return 0;
}

static bool vgs__scan_complete(vgs__scan *s, const char *const fields[3], int seen)
{
    int i;
    for (i = 0; i < 3 && seen & 1 << i; ++i) ;
    if (i < 3) vgs__fail(s->err, VGS_E_FORMAT, "%s: byte %.0f of the header: field '%s' is missing",
                         vgs__brief(s->path), (double)(s->p - s->start), fields[i]);
    return i == 3;
}

/* ---- .npy: magic, version, length of the header, a Python dict as text, the numbers ---- */

enum { VGS__NPY_HEADER = 128 };                  /* what NumPy writes too: two sizes of int always fit */

static void vgs__npy_header(unsigned char head[VGS__NPY_HEADER], int rows, int cols)
{
    char dict[VGS__NPY_HEADER];
    int n = snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows,
                     cols);
    memset(head, ' ', VGS__NPY_HEADER);
    memcpy(head, "\x93NUMPY\x01\x00", 8);
    vgs__store_le(head + 8, VGS__NPY_HEADER - 10, 2);
    memcpy(head + 10, dict, (size_t)n);
    head[VGS__NPY_HEADER - 1] = '\n';
}

VGS__DEF vgs_status vgs_npy_write(const char *path, const float *x, int rows, int cols, vgs_error *err)
{
    unsigned char head[VGS__NPY_HEADER];
    vgs__sink k;
    vgs_file f;
    vgs_status st;
    if (rows < 0 || cols < 0 || (cols && (size_t)rows > (size_t)-1 / 4 / (size_t)cols))
        return vgs__fail(err, VGS_E_ARG, "npy_write: shape (%d, %d) is out of range", rows, cols);
    if (!x && rows && cols) return vgs__fail(err, VGS_E_ARG, "npy_write: x is NULL");
    st = vgs_file_begin(&f, path, err);
    if (st) return st;
    vgs__npy_header(head, rows, cols);
    vgs__sink_init(&k, &f);
    vgs__sink_put(&k, head, sizeof head);
    vgs__sink_numbers(&k, x, 4, (size_t)rows * (size_t)cols);
    return vgs_file_commit(&f, err);
}

/* 'text' or "text", without escapes. */
static bool vgs__scan_quoted(vgs__scan *s, char *out, size_t cap)
{
    int quote = vgs__scan_peek(s);
    size_t n = 0;
    if (quote != '\'' && quote != '"') return vgs__scan_fail(s, "expected a quoted string");
    for (++s->p; s->p < s->end && *s->p != quote; ++s->p) {
        if (n + 1 == cap || *s->p < 0x20 || *s->p > 0x7E || *s->p == '\\')
            return vgs__scan_fail(s, "a string is too long or not plain text");
        out[n++] = (char)*s->p;
    }
    out[n] = 0;
    if (s->p == s->end) return vgs__scan_fail(s, "a string does not end");
    ++s->p;
    return true;
}

static bool vgs__npy_descr(vgs__scan *s, size_t *size)
{
    char descr[32];
    if (vgs__scan_peek(s) == '[') return vgs__scan_fail(s, "descr is a list; only '<f4' and '<f8' are read");
    if (!vgs__scan_quoted(s, descr, sizeof descr)) return false;
    *size = strcmp(descr, "<f4") == 0 ? 4 : strcmp(descr, "<f8") == 0 ? 8 : 0;
    if (*size) return true;
    vgs__fail(s->err, VGS_E_FORMAT, "%s: descr is '%s'; only '<f4' and '<f8' are read", vgs__brief(s->path),
              descr);
    return false;
}

static bool vgs__npy_order(vgs__scan *s)
{
    static const char *const words[2] = { "False", "True" };
    int c = vgs__scan_peek(s), i;
    for (i = 0; i < 2; ++i) {
        size_t n = strlen(words[i]);
        if (c < 0 || (size_t)(s->end - s->p) < n || memcmp(s->p, words[i], n) != 0) continue;
        s->p += n;
        return i == 0 || vgs__scan_fail(s, "fortran_order is True; only C order is read");
    }
    return vgs__scan_fail(s, "fortran_order is neither True nor False");
}

static bool vgs__npy_shape(vgs__scan *s, uint64_t shape[2])
{
    int ndim = 0;
    bool comma = true;
    shape[0] = shape[1] = 1;
    if (!vgs__scan_expect(s, '(')) return false;
    while (!vgs__scan_accept(s, ')')) {
        if (!comma) return vgs__scan_fail(s, "expected ',' or ')'");
        if (ndim == 2) return vgs__scan_fail(s, "shape has more than 2 dimensions; only 1 or 2 are read");
        if (!vgs__scan_u64(s, &shape[ndim])) return false;
        if (shape[ndim++] > INT_MAX) return vgs__scan_fail(s, "a dimension in shape is over 2^31 - 1");
        comma = vgs__scan_accept(s, ',');
    }
    if (ndim == 0) return vgs__scan_fail(s, "shape has 0 dimensions; only 1 or 2 are read");
    return ndim == 2 || comma || vgs__scan_fail(s, "shape is a number, not a tuple");
}

static bool vgs__npy_dict(vgs__scan *s, size_t *size, uint64_t shape[2])
{
    static const char *const fields[3] = { "descr", "fortran_order", "shape" };
    char key[32];
    int seen = 0, bit;
    bool ok = vgs__scan_expect(s, '{');
    *size = 0;
    while (ok && !vgs__scan_accept(s, '}')) {
        ok = vgs__scan_quoted(s, key, sizeof key) && vgs__scan_expect(s, ':');
        bit = ok ? vgs__scan_field(s, key, fields, &seen) : 0;
        if (!bit) return false;
        ok = bit == 1 ? vgs__npy_descr(s, size) : bit == 2 ? vgs__npy_order(s) : vgs__npy_shape(s, shape);
        if (ok && !vgs__scan_accept(s, ',') && vgs__scan_peek(s) != '}') return vgs__scan_expect(s, ',');
    }
    if (!ok || !vgs__scan_complete(s, fields, seen)) return false;
    return vgs__scan_peek(s) < 0 || vgs__scan_fail(s, "something follows the closing '}'");
}

/* Where the header's text starts and ends; `name` appears in messages. */
static bool vgs__npy_frame(const unsigned char *data, size_t size, vgs__scan *s)
{
    size_t fixed = 10, length;
    const char *what = NULL;
    if (size < 10 || memcmp(data, "\x93NUMPY", 6) != 0) {
        what = "not a .npy file";
    } else if (data[6] < 1 || data[6] > 3 || data[7] != 0) {
        vgs__fail(s->err, VGS_E_FORMAT, "%s: the version of .npy is %d.%d; 1.0, 2.0 and 3.0 are read",
                  vgs__brief(s->path), data[6], data[7]);
        return false;
    } else {
        fixed = data[6] == 1 ? 10 : 12;
        length = size < fixed ? 0 : (size_t)vgs__load_le(data + 8, fixed - 8);
        if (size < fixed || length > size - fixed) what = "the file ends within the header";
        s->start = s->p = data + fixed;
        s->end = what ? s->p : s->p + length;
    }
    if (what) vgs__fail(s->err, VGS_E_FORMAT, "%s: %s", vgs__brief(s->path), what);
    return !what;
}

/* A .npy file in memory; `path` is for messages. */
static vgs_status vgs__npy_parse(const unsigned char *data, size_t size, const char *path, float **x,
                                 int *rows, int *cols, vgs_error *err)
{
    vgs__scan s;
    uint64_t shape[2];
    size_t width, n, got, rest;
    float *out;
    memset(&s, 0, sizeof s);
    s.path = path;
    s.err = err;
    if (!vgs__npy_frame(data, size, &s) || !vgs__npy_dict(&s, &width, shape)) return VGS_E_FORMAT;
    rest = size - (size_t)(s.end - data);
    if (shape[0] * shape[1] > rest / width || shape[0] * shape[1] * width != rest)
        return vgs__fail(err, VGS_E_FORMAT, "%s: shape (%.0f, %.0f) needs %.0f bytes of data; there are %.0f",
                         vgs__brief(path), (double)shape[0], (double)shape[1],
                         (double)shape[0] * (double)shape[1] * (double)width, (double)rest);
    n = (size_t)(shape[0] * shape[1]);
    out = (float *)vgs__alloc_or(err, "an array", n, sizeof *out);
    if (!out) return VGS_E_NOMEM;
    got = vgs__floats_from_le(out, s.end, width, n);
    if (got < n) {
        vgs__free(out);
        return vgs__fail(err, VGS_E_NONFINITE, "%s: number %.0f is too large for a float", vgs__brief(path),
                         (double)got);
    }
    *x = out;
    *rows = (int)shape[0];
    *cols = (int)shape[1];
    return VGS_OK;
}

VGS__DEF vgs_status vgs_npy_read(const char *path, float **x, int *rows, int *cols, vgs_error *err)
{
    unsigned char *data;
    size_t size;
    vgs_status st;
    *x = NULL;
    *rows = *cols = 0;
    st = vgs__file_read(path, &data, &size, err);
    if (st) return st;
    st = vgs__npy_parse(data, size, path, x, rows, cols, err);
    vgs__free(data);
    return st;
}

/* ---- .safetensors: length of the header (8 bytes), the header as JSON, the numbers without a gap.
   Ours have two entries in __metadata__: "vgs.checksum", 8 hexadecimal digits, the CRC-32 of the whole file
   with these digits taken as 0, and "vgs.format". The second is there so that damage to the name of the
   first is seen: a file with one of them must have both. ---- */

static const struct { char name[8]; int size; } vgs__dtypes[] = {    /* in the order of vgs_dtype */
    { "F32", 4 }, { "F64", 8 }, { "F16", 2 }, { "BF16", 2 },
    { "I64", 8 }, { "I32", 4 }, { "I16", 2 }, { "I8", 1 },
    { "U64", 8 }, { "U32", 4 }, { "U16", 2 }, { "U8", 1 }, { "BOOL", 1 }
};

enum { VGS__DTYPES = (int)(sizeof vgs__dtypes / sizeof *vgs__dtypes), VGS__HEADER_MAX = 100000000 };

typedef struct vgs__meta { const char *key, *value; } vgs__meta;

struct vgs_safetensors {
    char       *text, *path;    /* the header's strings, decoded; path lies in the same block */
    unsigned char *owned;       /* the file, where we read it; else NULL */
    const unsigned char *data;  /* the numbers */
    size_t      data_bytes;
    vgs_file_tensor *tensors;
    vgs__meta  *metas;
    int         tensor_count, meta_count;
    const unsigned char *digits;        /* of the checksum; NULL if there is none */
};

VGS__DEF void vgs_safetensors_free(vgs_safetensors *s)
{
    if (!s) return;
    vgs__free(s->text);
    vgs__free(s->owned);
    vgs__free(s->tensors);
    vgs__free(s->metas);
    vgs__free(s);
}

static bool vgs__st_dtype(vgs__scan *s, vgs_file_tensor *t)
{
    const char *name;
    int i;
    if (!vgs__scan_string(s, &name)) return false;
    for (i = 0; i < VGS__DTYPES; ++i)
        if (strcmp(name, vgs__dtypes[i].name) == 0) {
            t->dtype = (vgs_dtype)i;
            return true;
        }
    vgs__fail(s->err, VGS_E_FORMAT, "%s: tensor '%.60s': dtype '%.20s' is not known", vgs__brief(s->path),
              t->name, name);
    return false;
}

static bool vgs__st_shape(vgs__scan *s, vgs_file_tensor *t)
{
    bool ok = vgs__scan_expect(s, '[');
    if (!ok || vgs__scan_accept(s, ']')) return ok;
    do {
        if (t->ndim == 8) return vgs__scan_fail(s, "a shape has more than 8 dimensions");
        if (!vgs__scan_u64(s, &t->shape[t->ndim++])) return false;
    } while (vgs__scan_more(s, ']', &ok));
    return ok;
}

static bool vgs__st_offsets(vgs__scan *s, uint64_t range[2])
{
    return vgs__scan_expect(s, '[') && vgs__scan_u64(s, &range[0]) && vgs__scan_expect(s, ',') &&
           vgs__scan_u64(s, &range[1]) && vgs__scan_expect(s, ']');
}

/* The bytes that offsets name must lie in the file and be what dtype and shape need. */
static bool vgs__st_place(vgs_safetensors *st, vgs__scan *s, vgs_file_tensor *t, const uint64_t range[2])
{
    uint64_t n = 1, size = (uint64_t)vgs__dtypes[t->dtype].size;
    const char *what = NULL;
    int i;
    for (i = 0; i < t->ndim && !what; ++i) {
        if (t->shape[i] && n > UINT64_MAX / t->shape[i]) what = "shape overflows";
        n *= t->shape[i];
    }
    if (range[1] > st->data_bytes) what = "data_offsets lie outside the file";
    if (range[0] > range[1]) what = "data_offsets run backwards";
    if (!what && (n > UINT64_MAX / size || n * size != range[1] - range[0]))
        what = "data_offsets do not fit dtype and shape";
    if (what) {
        vgs__fail(s->err, VGS_E_FORMAT, "%s: tensor '%.60s': %s", vgs__brief(s->path), t->name, what);
        return false;
    }
    t->count = (size_t)n;
    t->bytes = (size_t)(n * size);
    t->data = st->data + range[0];
    return true;
}

static bool vgs__st_tensor(vgs_safetensors *st, vgs__scan *s, const char *name)
{
    static const char *const fields[3] = { "dtype", "shape", "data_offsets" };
    vgs_file_tensor *t = &st->tensors[st->tensor_count++];
    uint64_t range[2] = { 0, 0 };
    const char *key;
    int seen = 0, bit;
    bool ok = true;
    t->name = name;
    if (!vgs__scan_expect(s, '{')) return false;
    do {
        if (!vgs__scan_string(s, &key) || !vgs__scan_expect(s, ':')) return false;
        bit = vgs__scan_field(s, key, fields, &seen);
        if (!bit) return false;
        ok = bit == 1 ? vgs__st_dtype(s, t) : bit == 2 ? vgs__st_shape(s, t) : vgs__st_offsets(s, range);
    } while (ok && vgs__scan_more(s, '}', &ok));
    return ok && vgs__scan_complete(s, fields, seen) && vgs__st_place(st, s, t, range);
}

static bool vgs__st_digits(vgs__scan *s, const unsigned char *quote)
{
    int i;
    for (i = 1; i < 9; ++i)
        if (!((quote[i] >= '0' && quote[i] <= '9') || (quote[i] >= 'a' && quote[i] <= 'f'))) break;
    return (i == 9 && quote[9] == '"') || vgs__scan_fail(s, "vgs.checksum is not 8 hexadecimal digits");
}

static bool vgs__st_meta(vgs_safetensors *st, vgs__scan *s)
{
    const unsigned char *quote;
    bool ok = vgs__scan_expect(s, '{');
    if (!ok || vgs__scan_accept(s, '}')) return ok;
    do {
        vgs__meta *m = &st->metas[st->meta_count++];
        if (!vgs__scan_string(s, &m->key) || !vgs__scan_expect(s, ':')) return false;
        vgs__scan_peek(s);
        quote = s->p;
        if (!vgs__scan_string(s, &m->value)) return false;
        if (strcmp(m->key, "vgs.checksum") == 0) {
            if (!vgs__st_digits(s, quote)) return false;
            st->digits = quote + 1;
        }
    } while (vgs__scan_more(s, '}', &ok));
    return ok;
}

static bool vgs__st_header(vgs_safetensors *st, vgs__scan *s)
{
    const char *name;
    bool ok = true, had_meta = false;
    if (s->p == s->end || *s->p != '{') return vgs__scan_fail(s, "expected '{'");
    ++s->p;
    if (!vgs__scan_accept(s, '}')) {
        do {
            if (!vgs__scan_string(s, &name) || !vgs__scan_expect(s, ':')) return false;
            if (strcmp(name, "__metadata__") != 0) {
                ok = vgs__st_tensor(st, s, name);
            } else {
                if (had_meta) return vgs__scan_fail(s, "__metadata__ appears twice");
                had_meta = true;
                ok = vgs__st_meta(st, s);
            }
        } while (ok && vgs__scan_more(s, '}', &ok));
    }
    return ok && (vgs__scan_peek(s) < 0 || vgs__scan_fail(s, "something follows the closing '}'"));
}

static bool vgs__st_checksum(vgs_safetensors *st, const unsigned char *file, size_t size, vgs_error *err)
{
    const char *format = vgs_safetensors_meta(st, "vgs.format"), *path = vgs__brief(st->path);
    size_t before = st->digits ? (size_t)(st->digits - file) : 0;
    char got[16];
    vgs__crc c;
    if (!format && !st->digits) return true;
    if (!format || !st->digits) {
        vgs__fail(err, VGS_E_FORMAT, "%s: metadata lacks '%s'", path, format ? "vgs.checksum" : "vgs.format");
        return false;
    }
    vgs__crc_init(&c);
    vgs__crc_add(&c, file, before);
    vgs__crc_add(&c, "00000000", 8);
    vgs__crc_add(&c, file + before + 8, size - before - 8);
    snprintf(got, sizeof got, "%08lx", (unsigned long)vgs__crc_end(&c));
    if (memcmp(got, st->digits, 8) != 0) {
        vgs__fail(err, VGS_E_FORMAT, "checksum mismatch: %s says %.8s, the data give %s", path,
                  (const char *)st->digits, got);
        return false;
    }
    if (strcmp(format, "1") == 0) return true;
    vgs__fail(err, VGS_E_FORMAT, "%s: vgs.format is '%.20s'; this library reads '1'", path, format);
    return false;
}

static int vgs__by_place(const void *a, const void *b)
{
    const vgs_file_tensor *s = (const vgs_file_tensor *)a, *t = (const vgs_file_tensor *)b;
    const unsigned char *p = (const unsigned char *)s->data, *q = (const unsigned char *)t->data;
    return p != q ? (p > q) - (p < q) : (s->bytes > t->bytes) - (s->bytes < t->bytes);
}

static int vgs__by_name(const void *a, const void *b)
{
    return strcmp(((const vgs_file_tensor *)a)->name, ((const vgs_file_tensor *)b)->name);
}

static int vgs__by_key(const void *a, const void *b)
{
    return strcmp(((const vgs__meta *)a)->key, ((const vgs__meta *)b)->key);
}

/* Together the tensors must cover the data, without gap or overlap. */
static bool vgs__st_cover(vgs_safetensors *st, vgs_error *err)
{
    const unsigned char *next = st->data;
    int i;
    if (st->tensor_count) qsort(st->tensors, (size_t)st->tensor_count, sizeof *st->tensors, vgs__by_place);
    for (i = 0; i < st->tensor_count; ++i) {
        const vgs_file_tensor *t = &st->tensors[i];
        if (t->data != next) {
            vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s': data_offsets overlap or leave a gap",
                      vgs__brief(st->path), t->name);
            return false;
        }
        next += t->bytes;
    }
    if (next == st->data + st->data_bytes) return true;
    vgs__fail(err, VGS_E_FORMAT, "%s: the last %.0f bytes belong to no tensor", vgs__brief(st->path),
              (double)(st->data + st->data_bytes - next));
    return false;
}

static bool vgs__st_names(vgs_safetensors *st, vgs_error *err)
{
    const char *twice = NULL;
    int i;
    if (st->tensor_count) qsort(st->tensors, (size_t)st->tensor_count, sizeof *st->tensors, vgs__by_name);
    if (st->meta_count) qsort(st->metas, (size_t)st->meta_count, sizeof *st->metas, vgs__by_key);
    for (i = 1; i < st->tensor_count; ++i)
        if (vgs__by_name(&st->tensors[i - 1], &st->tensors[i]) == 0) twice = st->tensors[i].name;
    for (i = 1; i < st->meta_count; ++i)
        if (vgs__by_key(&st->metas[i - 1], &st->metas[i]) == 0) twice = st->metas[i].key;
    if (!twice) return true;
    vgs__fail(err, VGS_E_FORMAT, "%s: the name '%.60s' appears twice", vgs__brief(st->path), twice);
    return false;
}

/* The shortest tensor, "":{"dtype":"U8","shape":[],"data_offsets":[0,0]}, has 49 bytes and the shortest
   entry of metadata, "":"", 5: that bounds their number before anything is read. */
static vgs_safetensors *vgs__st_create(size_t header, const char *path, vgs_error *err)
{
    vgs_safetensors *st = (vgs_safetensors *)vgs__alloc_or(err, "a header", 1, sizeof *st);
    if (!st) return NULL;
    st->text = (char *)vgs__alloc(header + strlen(path) + 1, 1);
    st->tensors = (vgs_file_tensor *)vgs__alloc(header / 49 + 1, sizeof *st->tensors);
    st->metas = (vgs__meta *)vgs__alloc(header / 5 + 1, sizeof *st->metas);
    if (st->text && st->tensors && st->metas) {
        st->path = st->text + header;
        strcpy(st->path, path);
        return st;
    }
    vgs__fail(err, VGS_E_NOMEM, "out of memory: the header of %s has %.0f bytes", vgs__brief(path),
              (double)header);
    vgs_safetensors_free(st);
    return NULL;
}

/* A .safetensors file in memory, which must stay there; `path` is for messages. */
static vgs_safetensors *vgs__safetensors_parse(const unsigned char *file, size_t size, const char *path,
                                               vgs_error *err)
{
    uint64_t length = size < 8 ? 0 : vgs__load_le(file, 8);
    vgs_safetensors *st;
    vgs__scan s;
    if (size < 8 || length > size - 8 || length > VGS__HEADER_MAX) {
        vgs__fail(err, VGS_E_FORMAT, "%s: not a .safetensors file: %.0f bytes cannot hold a header of %.0f",
                  vgs__brief(path), (double)size, (double)length);
        return NULL;
    }
    st = vgs__st_create((size_t)length, path, err);
    if (!st) return NULL;
    st->data = file + 8 + (size_t)length;
    st->data_bytes = size - 8 - (size_t)length;
    s.start = s.p = file + 8;
    s.end = st->data;
    s.path = path;
    s.text = st->text;
    s.err = err;
    if (vgs__st_header(st, &s) && vgs__st_cover(st, err) && vgs__st_names(st, err) &&
        vgs__st_checksum(st, file, size, err)) return st;
    vgs_safetensors_free(st);
    return NULL;
}

VGS__DEF vgs_safetensors *vgs_safetensors_open(const char *path, vgs_error *err)
{
    vgs_safetensors *st;
    unsigned char *file;
    size_t size;
    if (vgs__file_read(path, &file, &size, err)) return NULL;
    st = vgs__safetensors_parse(file, size, path, err);
    if (st) st->owned = file;
    else vgs__free(file);
    return st;
}

VGS__DEF bool vgs_safetensors_has_checksum(const vgs_safetensors *s)
{
    return s->digits != NULL;
}

VGS__DEF int vgs_safetensors_count(const vgs_safetensors *s)
{
    return s->tensor_count;
}

VGS__DEF const vgs_file_tensor *vgs_safetensors_tensor(const vgs_safetensors *s, int i)
{
    return i >= 0 && i < s->tensor_count ? &s->tensors[i] : NULL;
}

VGS__DEF const vgs_file_tensor *vgs_safetensors_find(const vgs_safetensors *s, const char *name)
{
    vgs_file_tensor want;
    want.name = name;
    if (!s->tensor_count) return NULL;
    return (const vgs_file_tensor *)bsearch(&want, s->tensors, (size_t)s->tensor_count, sizeof want,
                                            vgs__by_name);
}

VGS__DEF int vgs_safetensors_meta_count(const vgs_safetensors *s)
{
    return s->meta_count;
}

VGS__DEF const char *vgs_safetensors_meta_key(const vgs_safetensors *s, int i)
{
    return i >= 0 && i < s->meta_count ? s->metas[i].key : NULL;
}

VGS__DEF const char *vgs_safetensors_meta(const vgs_safetensors *s, const char *key)
{
    vgs__meta want, *m;
    want.key = key;
    if (!s->meta_count) return NULL;
    m = (vgs__meta *)bsearch(&want, s->metas, (size_t)s->meta_count, sizeof want, vgs__by_key);
    return m ? m->value : NULL;
}

static const vgs_file_tensor *vgs__st_get(const vgs_safetensors *s, const char *name, size_t n,
                                          vgs_error *err)
{
    const vgs_file_tensor *t = vgs_safetensors_find(s, name);
    if (!t) {
        vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s' is missing", vgs__brief(s->path), name);
    } else if (t->count != n) {
        vgs__fail(err, VGS_E_SHAPE, "%s: tensor '%.60s' has %.0f values; %.0f are needed",
                  vgs__brief(s->path), name, (double)t->count, (double)n);
        t = NULL;
    }
    return t;
}

static vgs_status vgs__st_kind(const vgs_safetensors *s, const vgs_file_tensor *t, const char *want,
                               vgs_error *err)
{
    return vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s' is %s; %s is needed", vgs__brief(s->path),
                     t->name, vgs__dtypes[t->dtype].name, want);
}

VGS__DEF vgs_status vgs_safetensors_floats(const vgs_safetensors *s, const char *name, float *out, size_t n,
                                           vgs_error *err)
{
    const vgs_file_tensor *t = vgs__st_get(s, name, n, err);
    size_t got;
    if (!t) return vgs_safetensors_find(s, name) ? VGS_E_SHAPE : VGS_E_FORMAT;
    if (t->dtype != VGS_DTYPE_F32 && t->dtype != VGS_DTYPE_F64) return vgs__st_kind(s, t, "F32 or F64", err);
    got = vgs__floats_from_le(out, (const unsigned char *)t->data, t->dtype == VGS_DTYPE_F32 ? 4 : 8, n);
    if (got == n) return VGS_OK;
    return vgs__fail(err, VGS_E_NONFINITE, "%s: tensor '%.60s': number %.0f is too large for a float",
                     vgs__brief(s->path), name, (double)got);
}

VGS__DEF vgs_status vgs_safetensors_doubles(const vgs_safetensors *s, const char *name, double *out, size_t n,
                                            vgs_error *err)
{
    const vgs_file_tensor *t = vgs__st_get(s, name, n, err);
    size_t size = t && t->dtype == VGS_DTYPE_F32 ? 4 : 8, i;
    if (!t) return vgs_safetensors_find(s, name) ? VGS_E_SHAPE : VGS_E_FORMAT;
    if (t->dtype != VGS_DTYPE_F32 && t->dtype != VGS_DTYPE_F64) return vgs__st_kind(s, t, "F32 or F64", err);
    for (i = 0; i < n; ++i) {
        uint64_t u = vgs__load_le((const unsigned char *)t->data + i * size, size);
        if (size == 4) out[i] = (double)vgs__from_bits((uint32_t)u);
        else memcpy(&out[i], &u, 8);
    }
    return VGS_OK;
}

/* Integers as 64-bit patterns. One that has the top bit set fits only the kind it was stored as. */
static vgs_status vgs__st_integers(const vgs_safetensors *s, const char *name, void *out, size_t n,
                                   bool is_signed, vgs_error *err)
{
    const vgs_file_tensor *t = vgs__st_get(s, name, n, err);
    size_t i, size;
    bool from_signed;
    if (!t) return vgs_safetensors_find(s, name) ? VGS_E_SHAPE : VGS_E_FORMAT;
    if (t->dtype < VGS_DTYPE_I64) return vgs__st_kind(s, t, "an integer", err);
    from_signed = t->dtype <= VGS_DTYPE_I8;
    size = (size_t)vgs__dtypes[t->dtype].size;
    for (i = 0; i < n; ++i) {
        uint64_t v = vgs__load_le((const unsigned char *)t->data + i * size, size);
        if (from_signed && size < 8 && v >> (8 * size - 1)) v |= UINT64_MAX << 8 * size;
        if (v >> 63 && from_signed != is_signed)
            return vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s': number %.0f is %s", vgs__brief(s->path),
                             name, (double)i, from_signed ? "negative" : "too large");
        memcpy((unsigned char *)out + 8 * i, &v, 8);
    }
    return VGS_OK;
}

VGS__DEF vgs_status vgs_safetensors_i64(const vgs_safetensors *s, const char *name, int64_t *out, size_t n,
                                        vgs_error *err)
{
    return vgs__st_integers(s, name, out, n, true, err);
}

VGS__DEF vgs_status vgs_safetensors_u64(const vgs_safetensors *s, const char *name, uint64_t *out, size_t n,
                                        vgs_error *err)
{
    return vgs__st_integers(s, name, out, n, false, err);
}

VGS__DEF vgs_status vgs_safetensors_number(const vgs_safetensors *s, const char *key, double *out,
                                           vgs_error *err)
{
    const char *text = vgs_safetensors_meta(s, key);
    if (text && vgs__parse_number(text, out)) return VGS_OK;
    if (!text)
        return vgs__fail(err, VGS_E_FORMAT, "%s: metadata '%.60s' is missing", vgs__brief(s->path), key);
    return vgs__fail(err, VGS_E_FORMAT, "%s: metadata '%.60s' is '%.30s', not a number", vgs__brief(s->path),
                     key, text);
}

/* ---- writing .safetensors ---- */

/* A tensor, or an entry of metadata if `value` is not NULL. The texts follow in the same block. */
typedef struct vgs__item {
    struct vgs__item *next;
    vgs_file_tensor  t;
    const char *value;
} vgs__item;

struct vgs_writer {
    vgs__item *first, *last;
    vgs_error  error;   /* the first one; it sticks */
};

VGS__DEF vgs_writer *vgs_writer_create(vgs_error *err)
{
    return (vgs_writer *)vgs__alloc_or(err, "a writer", 1, sizeof(vgs_writer));
}

VGS__DEF void vgs_writer_free(vgs_writer *w)
{
    vgs__item *i, *next;
    if (!w) return;
    for (i = w->first; i; i = next) {
        next = i->next;
        vgs__free(i);
    }
    vgs__free(w);
}

static vgs__item *vgs__writer_add(vgs_writer *w, const char *name, const char *value)
{
    size_t a = name ? strlen(name) + 1 : 0, b = value ? strlen(value) + 1 : 0;
    vgs__item *i;
    char *text;
    if (w->error.code) return NULL;
    if (!name || !vgs__is_utf8(name) || (value && !vgs__is_utf8(value))) {
        vgs__fail(&w->error, VGS_E_ARG, "writer: '%.60s' is not UTF-8 text", name ? name : "NULL");
        return NULL;
    }
    for (i = w->first; i; i = i->next)
        if (!i->value == !value && strcmp(i->t.name, name) == 0) {
            vgs__fail(&w->error, VGS_E_ARG, "writer: '%.60s' is there already", name);
            return NULL;
        }
    i = (vgs__item *)vgs__alloc_or(&w->error, "an entry of a file", 1, sizeof *i + a + b);
    if (!i) return NULL;
    text = (char *)(i + 1);
    memcpy(text, name, a);
    i->t.name = text;
    if (value) {
        memcpy(text + a, value, b);
        i->value = text + a;
    }
    if (w->last) w->last->next = i;
    else w->first = i;
    w->last = i;
    return i;
}

VGS__DEF void vgs_writer_tensor(vgs_writer *w, const char *name, vgs_dtype dtype, int ndim,
                                const uint64_t *shape, const void *data)
{
    size_t size = (unsigned)dtype < VGS__DTYPES ? (size_t)vgs__dtypes[dtype].size : 0, n = 1;
    vgs__item *i;
    int k;
    bool fits = size > 0 && ndim >= 0 && ndim <= 8;
    if (w->error.code) return;
    for (k = 0; fits && k < ndim; ++k) {
        fits = !shape[k] || n <= (size_t)-1 / size / shape[k];
        n *= (size_t)shape[k];
    }
    if (!fits || (!data && n) || (name && strcmp(name, "__metadata__") == 0)) {
        vgs__fail(&w->error, VGS_E_ARG, "writer: tensor '%.60s': %s", name ? name : "NULL",
                  !fits ? "dtype or shape out of range" : data || !n ? "name is reserved" : "data is NULL");
        return;
    }
    i = vgs__writer_add(w, name, NULL);
    if (!i) return;
    i->t.dtype = dtype;
    i->t.ndim = ndim;
    for (k = 0; k < ndim; ++k) i->t.shape[k] = shape[k];
    i->t.count = n;
    i->t.bytes = n * size;
    i->t.data = data;
}

VGS__DEF void vgs_writer_meta(vgs_writer *w, const char *key, const char *value)
{
    if (w->error.code) return;
    if (key && value && strcmp(key, "vgs.checksum") != 0 && strcmp(key, "vgs.format") != 0) {
        vgs__writer_add(w, key, value);
        return;
    }
    vgs__fail(&w->error, VGS_E_ARG, "writer: metadata '%.60s' is %s", key ? key : "NULL",
              key && value ? "reserved" : "NULL");
}

VGS__DEF void vgs_writer_number(vgs_writer *w, const char *key, double value)
{
    char text[40];
    vgs__number(value, false, text);
    if (value - value == 0.0 || w->error.code) vgs_writer_meta(w, key, text);
    else vgs__fail(&w->error, VGS_E_NONFINITE, "writer: metadata '%.60s' is not finite", key ? key : "NULL");
}

static void vgs__sink_text(vgs__sink *k, const char *text)
{
    vgs__sink_put(k, text, strlen(text));
}

static void vgs__sink_string(vgs__sink *k, const char *text)
{
    char c[8];
    vgs__sink_put(k, "\"", 1);
    while (*text) vgs__sink_put(k, c, (size_t)vgs__escape(&text, c));
    vgs__sink_put(k, "\"", 1);
}

static void vgs__sink_u64(vgs__sink *k, const char *before, uint64_t v)
{
    char text[24];
    vgs__decimal(v, text);
    vgs__sink_text(k, before);
    vgs__sink_text(k, text);
}

static void vgs__sink_tensor(vgs__sink *k, const vgs_file_tensor *t, uint64_t *offset)
{
    int i;
    vgs__sink_text(k, ",");
    vgs__sink_string(k, t->name);
    vgs__sink_text(k, ":{\"dtype\":\"");
    vgs__sink_text(k, vgs__dtypes[t->dtype].name);
    vgs__sink_text(k, "\",\"shape\":[");
    for (i = 0; i < t->ndim; ++i) vgs__sink_u64(k, i ? "," : "", t->shape[i]);
    vgs__sink_u64(k, "],\"data_offsets\":[", *offset);
    *offset += t->bytes;
    vgs__sink_u64(k, ",", *offset);
    vgs__sink_text(k, "]}");
}

/* Wide numbers first: then each tensor is aligned for its kind, without a gap. */
static void vgs__sink_header(vgs__sink *k, const vgs_writer *w, uint32_t crc)
{
    const vgs__item *i;
    uint64_t offset = 0;
    char digits[16];
    int size;
    snprintf(digits, sizeof digits, "%08lx", (unsigned long)crc);
    vgs__sink_text(k, "{\"__metadata__\":{\"vgs.checksum\":\"");
    vgs__sink_text(k, digits);
    vgs__sink_text(k, "\",\"vgs.format\":\"1\"");
    for (i = w->first; i; i = i->next) {
        if (!i->value) continue;
        vgs__sink_text(k, ",");
        vgs__sink_string(k, i->t.name);
        vgs__sink_text(k, ":");
        vgs__sink_string(k, i->value);
    }
    vgs__sink_text(k, "}");
    for (size = 8; size; size /= 2)
        for (i = w->first; i; i = i->next)
            if (!i->value && vgs__dtypes[i->t.dtype].size == size) vgs__sink_tensor(k, &i->t, &offset);
    vgs__sink_text(k, "}");
}

/* The whole file; `header` is the header's length, padded. */
static void vgs__sink_file(vgs__sink *k, const vgs_writer *w, uint64_t header, uint32_t crc)
{
    unsigned char length[8];
    const vgs__item *i;
    int size;
    vgs__store_le(length, header, 8);
    vgs__sink_put(k, length, 8);
    vgs__sink_header(k, w, crc);
    while (k->size < 8 + header) vgs__sink_put(k, " ", 1);
    for (size = 8; size; size /= 2)
        for (i = w->first; i; i = i->next)
            if (!i->value && vgs__dtypes[i->t.dtype].size == size)
                vgs__sink_numbers(k, i->t.data, (size_t)size, i->t.count);
}

VGS__DEF vgs_status vgs_writer_save(vgs_writer *w, const char *path, vgs_error *err)
{
    vgs__sink k;
    vgs_file f;
    vgs_status st;
    uint64_t header;
    uint32_t crc;
    if (w->error.code) return vgs__fail(err, w->error.code, "%s", w->error.msg);
    vgs__sink_init(&k, NULL);
    vgs__sink_header(&k, w, 0);
    header = (k.size + 7) / 8 * 8;
    if (header > VGS__HEADER_MAX)
        return vgs__fail(err, VGS_E_ARG, "writer: a header of %.0f bytes; 1e8 are allowed", (double)header);
    st = vgs_file_begin(&f, path, err);
    if (st) return st;
    vgs__sink_init(&k, NULL);
    vgs__sink_file(&k, w, header, 0);
    crc = vgs__crc_end(&k.crc);
    vgs__sink_init(&k, &f);
    vgs__sink_file(&k, w, header, crc);
    return vgs_file_commit(&f, err);
}

#undef VGS__STAT
#undef VGS__FSYNC
#undef VGS__CREATE
#endif /* VGS_NO_STDIO */

/* ==== >>checkpoint ================================================================================= */
#ifndef VGS_NO_STDIO

/* Host copies of everything a checkpoint holds: p weights each, T steps, s0 and its two moments, and k
   samples for replay with their log w. */
typedef struct vgs__snapshot {
    float *target, *online, *m, *v, *factor, *s2, *a, *kept_x, *kept_weight, sigma[3], walk_step;
    int64_t iteration, adam_step, sigma_step, kept;
    double energy_calls;
} vgs__snapshot;

static size_t vgs__kept_rows(const vgs_sampler *s) { return (size_t)s->c.replay * (size_t)s->c.batch; }

static vgs_status vgs__snapshot_make(const vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    size_t p = (size_t)vgs_net_size(s->net), t = (size_t)s->c.steps, f = vgs__factor_count(s);
    size_t k = vgs__kept_rows(s), d = (size_t)s->c.energy.dim;
    memset(h, 0, sizeof *h);
    h->target = (float *)vgs__alloc_or(err, "checkpoint", 4 * p + f + 2 * t + k * (d + 1), sizeof *h->target);
    if (!h->target) return VGS_E_NOMEM;
    h->online = h->target + p;
    h->m = h->online + p;
    h->v = h->m + p;
    h->factor = h->v + p;
    h->s2 = h->factor + f;
    h->a = h->s2 + t;
    h->kept_x = h->a + t;
    h->kept_weight = h->kept_x + k * d;
    return VGS_OK;
}

/* Moves between host and backend; `up` uploads. */
static vgs_status vgs__snapshot_move(const vgs_sampler *s, vgs__snapshot *h, bool up, vgs_error *err)
{
    vgs_backend *b = s->b;
    const size_t p = (size_t)vgs_net_size(s->net), f = vgs__factor_count(s), kept = vgs__kept_rows(s);
    const struct { vgs_buffer *buf; float *host; size_t at, n; } all[11] = {
        { s->target, h->target, 0, p },      { s->online, h->online, 0, p },
        { s->adam_m, h->m, 0, p },           { s->adam_v, h->v, 0, p },
        { s->factor, h->factor, 0, f },      { s->sigma, &h->sigma[0], 0, 1 },
        { s->sigma, &h->sigma[1], 32, 1 },   { s->sigma, &h->sigma[2], 48, 1 },
        { s->kept_x, h->kept_x, 0, kept * (size_t)s->c.energy.dim },
        { s->kept_weight, h->kept_weight, 0, kept }, { s->walk_step, &h->walk_step, 0, 1 }
    };
    vgs_status st = VGS_OK;
    int k;
    for (k = 0; k < (s->c.replay ? 11 : 8) && st == VGS_OK; ++k)
        st = up ? b->upload(b->self, all[k].buf, all[k].at, all[k].host, all[k].n, VGS_F32, err)
                : b->download(b->self, all[k].host, all[k].buf, all[k].at, all[k].n, VGS_F32, err);
    return st;
}

static void vgs__write_weights(const vgs_sampler *s, vgs_writer *w, const char *prefix, const float *x)
{
    char name[80];
    uint64_t shape[2];
    int i;
    for (i = 0; i < vgs_net_params(s->net); ++i) {
        const vgs_param_info *p = vgs_net_param(s->net, i);
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        shape[0] = (uint64_t)(p->rows ? p->rows : p->cols);
        shape[1] = (uint64_t)p->cols;
        vgs_writer_tensor(w, name, VGS_DTYPE_F32, p->rows ? 2 : 1, shape, x + p->offset);
    }
}

static void vgs__write_meta(const vgs_sampler *s, vgs_writer *w, const char *const *meta)
{
    char text[32];
    int i;
    for (i = 0; vgs_field_name(i); ++i) {
        vgs_field_get(&s->c, i, text);
        vgs_writer_meta(w, vgs_field_name(i), text);
    }
    snprintf(text, sizeof text, "%lld", (long long)s->iteration);
    vgs_writer_meta(w, "vgs.iteration", text);
    snprintf(text, sizeof text, "%lld", (long long)s->adam_step);
    vgs_writer_meta(w, "vgs.adam_step", text);
    snprintf(text, sizeof text, "%lld", (long long)s->sigma_step);
    vgs_writer_meta(w, "vgs.sigma_step", text);
    snprintf(text, sizeof text, "%lld", (long long)s->kept);
    if (s->c.replay) vgs_writer_meta(w, "vgs.kept", text);
    vgs_writer_number(w, "vgs.energy_calls", s->energy_calls);
    for (i = 0; meta && meta[i] && meta[i + 1]; i += 2) vgs_writer_meta(w, meta[i], meta[i + 1]);
}

static vgs_status vgs__check_meta(const char *const *meta, vgs_error *err)
{
    int i, f;
    for (i = 0; meta && meta[i]; i += 2) {
        bool taken = !strncmp(meta[i], "vgs.", 4);
        for (f = 0; vgs_field_name(f); ++f) taken = taken || !strcmp(meta[i], vgs_field_name(f));
        if (taken)
            return vgs__fail(err, VGS_E_ARG, "sampler_save: meta key %.60s is the library's own", meta[i]);
        if (!meta[i + 1])
            return vgs__fail(err, VGS_E_ARG, "sampler_save: meta key %.60s has no value", meta[i]);
    }
    return VGS_OK;
}

VGS__DEF vgs_status vgs_sampler_save(const vgs_sampler *s, const char *path, const char *const *meta,
                                     vgs_error *err)
{
    vgs__snapshot h;
    uint64_t p = (uint64_t)vgs_net_size(s->net), t = (uint64_t)s->c.steps, two = 2, one = 1;
    uint64_t factor[3], kept[2];
    vgs_status st = vgs__check_meta(meta, err);
    vgs_writer *w;
    if (st == VGS_OK) st = vgs__snapshot_make(s, &h, err);
    if (st != VGS_OK) return st;
    st = vgs__snapshot_move(s, &h, false, err);
    w = st == VGS_OK ? vgs_writer_create(err) : NULL;
    if (w) {
        vgs__write_weights(s, w, "value.", h.target);
        vgs__write_weights(s, w, "value_on.", h.online);
        vgs_writer_tensor(w, "s2", VGS_DTYPE_F32, 1, &t, s->s2);
        vgs_writer_tensor(w, "alpha", VGS_DTYPE_F32, 1, &t, s->a);
        vgs_writer_tensor(w, "init_sigma", VGS_DTYPE_F32, s->c.alpha == VGS_VP ? 1 : 0, &one, h.sigma);
        factor[0] = t;
        factor[1] = 2;
        factor[2] = (uint64_t)s->factors;
        vgs_writer_tensor(w, "vgs.factor", VGS_DTYPE_F32, 3, factor, h.factor);
        vgs_writer_tensor(w, "vgs.adam_m", VGS_DTYPE_F32, 1, &p, h.m);
        vgs_writer_tensor(w, "vgs.adam_v", VGS_DTYPE_F32, 1, &p, h.v);
        vgs_writer_tensor(w, "vgs.sigma_moments", VGS_DTYPE_F32, 1, &two, h.sigma + 1);
        kept[0] = (uint64_t)vgs__kept_rows(s);
        kept[1] = (uint64_t)s->c.energy.dim;
        if (s->c.replay) vgs_writer_tensor(w, "vgs.kept_x", VGS_DTYPE_F32, 2, kept, h.kept_x);
        if (s->c.replay) vgs_writer_tensor(w, "vgs.kept_weight", VGS_DTYPE_F32, 1, kept, h.kept_weight);
        if (s->c.replay) vgs_writer_tensor(w, "vgs.walk_step", VGS_DTYPE_F32, 1, &one, &h.walk_step);
        vgs__write_meta(s, w, meta);
        st = vgs_writer_save(w, path, err);
        vgs_writer_free(w);
    } else if (st == VGS_OK) st = VGS_E_NOMEM;
    vgs__free(h.target);
    return st;
}

VGS__DEF vgs_status vgs_checkpoint_config(const char *path, vgs_config *cfg, int *count, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    vgs_config c = *cfg;
    vgs_error why;
    vgs_status st = VGS_OK;
    int i, n = 0;
    if (!f) return err ? err->code : VGS_E_FORMAT;
    for (i = 0; vgs_field_name(i) && st == VGS_OK; ++i) {
        const char *value = vgs_safetensors_meta(f, vgs_field_name(i));
        if (!value) continue;
        st = vgs_field_set(&c, vgs_field_name(i), value, &why);
        if (st != VGS_OK) st = vgs__fail(err, VGS_E_FORMAT, "%.100s: metadata %.120s", path, why.msg);
        ++n;
    }
    vgs_safetensors_free(f);
    if (st != VGS_OK) return st;
    *cfg = c;
    if (count) *count = n;
    return VGS_OK;
}

static vgs_status vgs__read_weights(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                    const char *prefix, float *out, vgs_error *err)
{
    char name[80];
    int i;
    vgs_status st = VGS_OK;
    for (i = 0; i < vgs_net_params(s->net) && st == VGS_OK; ++i) {
        const vgs_param_info *p = vgs_net_param(s->net, i);
        const vgs_file_tensor *t;
        bool fits;
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        t = vgs_safetensors_find(f, name);
        if (!t) return vgs__fail(err, VGS_E_FORMAT, "%.120s: there is no tensor %s", path, name);
        fits = p->rows ? t->ndim == 2 && t->shape[0] == (uint64_t)p->rows && t->shape[1] == (uint64_t)p->cols
                       : t->count == (size_t)p->cols && t->ndim <= 2;
        if (!fits)
            return vgs__fail(err, VGS_E_SHAPE, "%.100s: %s is [%llu%s%.0llu], the network needs [%d%s%.0d]",
                             path, name, (unsigned long long)(t->ndim ? t->shape[0] : 1),
                             t->ndim == 2 ? "," : "", (unsigned long long)(t->ndim == 2 ? t->shape[1] : 0),
                             p->rows ? p->rows : p->cols, p->rows ? "," : "", p->rows ? p->cols : 0);
        st = vgs_safetensors_floats(f, name, out + p->offset, t->count, err);
    }
    return st;
}

static vgs_status vgs__read_counter(const vgs_safetensors *f, const char *key, int64_t *out, vgs_error *err)
{
    double v = 0.0;
    vgs_status st = vgs_safetensors_meta(f, key) ? vgs_safetensors_number(f, key, &v, err) : VGS_OK;
    if (st == VGS_OK && !(v >= 0.0 && v < 9e15))
        return vgs__fail(err, VGS_E_FORMAT, "%s = %g: must be >= 0", key, v);
    *out = (int64_t)v;
    return st;
}

static vgs_status vgs__check_finite(const char *path, const char *name, const float *x, size_t n,
                                    bool positive, vgs_error *err)
{
    size_t i;
    for (i = 0; i < n; ++i)
        if (!(x[i] - x[i] == 0.0f) || (positive && !(x[i] > 0.0f)))
            return vgs__fail(err, VGS_E_NONFINITE, "%.120s: %s[%.0f] = %g: must be finite%s", path, name,
                             (double)i, (double)x[i], positive ? " and > 0" : "");
    return VGS_OK;
}

/* The samples for replay; a file without them, or of another `replay`, has kept none. */
static vgs_status vgs__read_kept(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                 vgs__snapshot *h, vgs_error *err)
{
    const vgs_file_tensor *t = vgs_safetensors_find(f, "vgs.kept_weight");
    size_t n = vgs__kept_rows(s), d = (size_t)s->c.energy.dim, i;
    vgs_status st = VGS_OK;
    for (i = 0; i < n; ++i) h->kept_weight[i] = -FLT_MAX;
    h->walk_step = 0.5f * s->c.s2_end;
    if (!t || t->count != n) return VGS_OK;
    st = vgs__read_counter(f, "vgs.kept", &h->kept, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.kept_weight", h->kept_weight, n, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.kept_x", h->kept_x, n * d, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.walk_step", &h->walk_step, 1, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "vgs.kept_x", h->kept_x, n * d, false, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "vgs.walk_step", &h->walk_step, 1, true, err);
    return st;
}

static vgs_status vgs__read_snapshot(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                     vgs__snapshot *h, vgs_error *err)
{
    size_t p = (size_t)vgs_net_size(s->net), t = (size_t)s->c.steps, factors = vgs__factor_count(s), j;
    bool online = false, ours = vgs_safetensors_find(f, "vgs.adam_m") != NULL;
    vgs_status st = vgs__read_weights(s, f, path, "value.", h->target, err);
    int i;
    for (i = 0; i < vgs_safetensors_count(f); ++i)
        online = online || !strncmp(vgs_safetensors_tensor(f, i)->name, "value_on.", 9);
    memcpy(h->online, h->target, p * sizeof *h->online);
    if (st == VGS_OK && (online || ours)) st = vgs__read_weights(s, f, path, "value_on.", h->online, err);
    for (j = 0; j < factors; ++j) h->factor[j] = 1.0f;                 /* a state_dict has none          */
    if (st == VGS_OK && vgs_safetensors_find(f, "vgs.factor"))
        st = vgs_safetensors_floats(f, "vgs.factor", h->factor, factors, err);
    memcpy(h->s2, s->s2, t * sizeof *h->s2);
    memcpy(h->a, s->a, t * sizeof *h->a);
    if (st == VGS_OK && (ours || vgs_safetensors_find(f, "s2")))
        st = vgs_safetensors_floats(f, "s2", h->s2, t, err);
    if (st == VGS_OK && (ours || vgs_safetensors_find(f, "alpha")))
        st = vgs_safetensors_floats(f, "alpha", h->a, t, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "init_sigma", h->sigma, 1, err);
    if (st == VGS_OK && ours) st = vgs_safetensors_floats(f, "vgs.adam_m", h->m, p, err);
    if (st == VGS_OK && ours) st = vgs_safetensors_floats(f, "vgs.adam_v", h->v, p, err);
    if (st == VGS_OK && ours) st = vgs_safetensors_floats(f, "vgs.sigma_moments", h->sigma + 1, 2, err);
    if (st == VGS_OK) st = vgs__read_counter(f, "vgs.iteration", &h->iteration, err);
    if (st == VGS_OK) st = vgs__read_counter(f, "vgs.adam_step", &h->adam_step, err);
    if (st == VGS_OK) st = vgs__read_counter(f, "vgs.sigma_step", &h->sigma_step, err);
    if (st == VGS_OK && vgs_safetensors_meta(f, "vgs.energy_calls"))
        st = vgs_safetensors_number(f, "vgs.energy_calls", &h->energy_calls, err);
    if (st == VGS_OK && s->c.replay) st = vgs__read_kept(s, f, path, h, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "value", h->target, p, false, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "value_on", h->online, p, false, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "vgs.factor", h->factor, factors, true, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "s2", h->s2, t, true, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "alpha", h->a, t, true, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "init_sigma", h->sigma, 1, true, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "vgs.adam_m", h->m, p, false, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "vgs.adam_v", h->v, p, false, err);
    if (st == VGS_OK) st = vgs__check_finite(path, "vgs.sigma_moments", h->sigma + 1, 2, false, err);
    for (j = 0; j < p && st == VGS_OK; ++j)
        if (h->v[j] < 0.0f)
            st = vgs__fail(err, VGS_E_FORMAT, "%.120s: vgs.adam_v[%.0f] = %g: must be >= 0", path, (double)j,
                           (double)h->v[j]);
    if (st == VGS_OK && h->sigma[2] < 0.0f)
        st = vgs__fail(err, VGS_E_FORMAT, "%.120s: vgs.sigma_moments[1] = %g: must be >= 0", path,
                       (double)h->sigma[2]);
    return st;
}

VGS__DEF vgs_status vgs_sampler_load(vgs_sampler *s, const char *path, vgs_error *err)
{
    vgs__snapshot h;
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    vgs_status st;
    if (!f) return err ? err->code : VGS_E_FORMAT;
    st = vgs__snapshot_make(s, &h, err);
    if (st == VGS_OK) st = vgs__read_snapshot(s, f, path, &h, err);
    if (st == VGS_OK) st = vgs__snapshot_move(s, &h, true, err);
    if (st == VGS_OK) {
        memcpy(s->s2, h.s2, (size_t)s->c.steps * sizeof *s->s2);
        memcpy(s->a, h.a, (size_t)s->c.steps * sizeof *s->a);
        s->iteration = h.iteration;
        s->adam_step = h.adam_step;
        s->sigma_step = h.sigma_step;
        s->kept = h.kept;
        s->energy_calls = h.energy_calls;
        vgs__target_changed(s);
    }
    vgs__free(h.target);
    vgs_safetensors_free(f);
    return st;
}
#endif /* VGS_NO_STDIO */

/* ==== >>metrics: histograms ======================================================================== */

#define VGS__BINS          200
#define VGS__TRANSPORT_MAX 2000

static double vgs__nan(void) { return (double)vgs__from_bits(0x7FC00000u); }
static bool vgs__finite(double v) { return fabs(v) <= (double)FLT_MAX; }

typedef struct vgs__hist { double lo, hi, total, inside; double bin[VGS__BINS]; } vgs__hist;

static void vgs__hist_open(vgs__hist *h, double lo, double hi)
{
    memset(h, 0, sizeof *h);
    h->lo = lo;
    h->hi = hi;
}

/* Values outside [lo, hi], NaN among them, only count in the total. The last bin is closed. */
static void vgs__hist_add(vgs__hist *h, const float *v, size_t n)
{
    double per_unit = h->hi > h->lo ? VGS__BINS / (h->hi - h->lo) : 0.0;       /* else it gives no value   */
    size_t i;
    for (i = 0; i < n; ++i) {
        double at = (double)v[i];
        int bin;
        if (!(at >= h->lo && at <= h->hi)) continue;
        bin = (int)((at - h->lo) * per_unit);
        h->bin[bin < VGS__BINS ? bin : VGS__BINS - 1] += 1.0;
        h->inside += 1.0;
    }
    h->total += (double)n;
}

/* Half the L1 distance, each histogram divided by its own count inside; NaN above 40 % outside. */
static double vgs__tvd(const vgs__hist *a, const vgs__hist *b, double *outside)
{
    double sum = 0.0;
    int i;
    *outside = 1.0 - a->inside / a->total;
    if (!(a->inside >= 0.6 * a->total && b->inside >= 0.6 * b->total && a->hi > a->lo)) return vgs__nan();
    for (i = 0; i < VGS__BINS; ++i) sum += fabs(a->bin[i] / a->inside - b->bin[i] / b->inside);
    return 0.5 * sum;
}

/* Widens [lo, hi] to the finite values of v. */
static void vgs__widen(const float *v, size_t n, double *lo, double *hi)
{
    size_t i;
    for (i = 0; i < n; ++i) {
        double at = (double)v[i];
        if (!vgs__finite(at)) continue;
        *lo = at < *lo ? at : *lo;
        *hi = at > *hi ? at : *hi;
    }
}

static void vgs__tvd_energies(const float *e, const float *e_ref, int n, bool particles, vgs_metrics *out)
{
    vgs__hist a, b;
    double lo = HUGE_VAL, hi = -HUGE_VAL;
    vgs__widen(e_ref, (size_t)n, &lo, &hi);
    vgs__hist_open(&a, lo, hi);
    vgs__hist_open(&b, lo, hi);
    vgs__hist_add(&a, e, (size_t)n);
    vgs__hist_add(&b, e_ref, (size_t)n);
    out->tvd_e_range = vgs__tvd(&a, &b, &out->outside_e_range);
    if (!particles) return;
    vgs__hist_open(&a, -100.0, 100.0);
    vgs__hist_open(&b, -100.0, 100.0);
    vgs__hist_add(&a, e, (size_t)n);
    vgs__hist_add(&b, e_ref, (size_t)n);
    out->tvd_e = vgs__tvd(&a, &b, &out->outside_e);
}

/* The n(n-1)/2 distances of one configuration x [n,d]. */
static void vgs__pair_distances(int n, int d, const float *x, float *r)
{
    int i, j, k;
    for (i = 0; i < n; ++i)
        for (j = i + 1; j < n; ++j) {
            double s = 0.0;
            for (k = 0; k < d; ++k) {
                double v = (double)x[i * d + k] - (double)x[j * d + k];
                s += v * v;
            }
            *r++ = (float)sqrt(s);
        }
}

/* Distances are made again for each use rather than kept: 10000 rows of 55 particles have 15 million. */
static vgs_status vgs__tvd_distances(const vgs_target *t, const float *x, const float *ref, int n,
                                     vgs_metrics *out, vgs_error *err)
{
    size_t pairs = (size_t)t->particles * (size_t)(t->particles - 1) / 2, dim = (size_t)t->dim, i;
    float *r = (float *)vgs__alloc_or(err, "metrics", pairs, sizeof(float));
    double lo = HUGE_VAL, hi = -HUGE_VAL;
    vgs__hist a, b, a_range, b_range;
    if (!r) return VGS_E_NOMEM;
    for (i = 0; i < (size_t)n; ++i) {
        vgs__pair_distances(t->particles, t->space_dim, ref + i * dim, r);
        vgs__widen(r, pairs, &lo, &hi);
    }
    vgs__hist_open(&a, -100.0, 100.0);
    vgs__hist_open(&b, -100.0, 100.0);
    vgs__hist_open(&a_range, lo, hi);
    vgs__hist_open(&b_range, lo, hi);
    for (i = 0; i < (size_t)n; ++i) {
        vgs__pair_distances(t->particles, t->space_dim, ref + i * dim, r);
        vgs__hist_add(&b, r, pairs);
        vgs__hist_add(&b_range, r, pairs);
        vgs__pair_distances(t->particles, t->space_dim, x + i * dim, r);
        vgs__hist_add(&a, r, pairs);
        vgs__hist_add(&a_range, r, pairs);
    }
    out->tvd_d = vgs__tvd(&a, &b, &out->outside_d);
    out->tvd_d_range = vgs__tvd(&a_range, &b_range, &out->outside_d_range);
    vgs__free(r);
    return VGS_OK;
}

/* ==== >>metrics: moments =========================================================================== */

static double vgs__column_std(const float *x, int n, int dim, int column)
{
    double mean = 0.0, square = 0.0;
    int i;
    for (i = 0; i < n; ++i) mean += (double)x[(size_t)i * (size_t)dim + (size_t)column] / n;
    for (i = 0; i < n; ++i) {
        double v = (double)x[(size_t)i * (size_t)dim + (size_t)column] - mean;
        square += v * v;
    }
    return sqrt(square / (n - 1));
}

static double vgs__delta_std(const vgs_target *t, const float *x, const float *ref, int n)
{
    double sum = 0.0;
    int i;
    for (i = 0; i < t->dim; ++i) {
        double want = vgs_target_std(t, i);
        if (!vgs__finite(want)) want = vgs__column_std(ref, n, t->dim, i);
        sum += fabs(vgs__column_std(x, n, t->dim, i) - want);
    }
    return sum / t->dim;
}

static int vgs__float_order(const void *a, const void *b)              /* NaN counts as larger than all */
{
    float x = *(const float *)a, y = *(const float *)b;
    if (x < y || (x == x && y != y)) return -1;
    return x > y || (x != x && y == y);
}

static double vgs__mean(const float *v, int n)
{
    double sum = 0.0;
    int i;
    for (i = 0; i < n; ++i) sum += (double)v[i];
    return sum / n;
}

static double vgs__median_in_place(float *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, vgs__float_order);
    return 0.5 * ((double)v[(n - 1) / 2] + (double)v[n / 2]);
}

static void vgs__mode_weights(const vgs_target *t, const float *x, int n, vgs_metrics *out)
{
    float c[VGS_METRICS_MODES][2];
    int i, k;
    out->modes = t->modes;
    for (k = 0; k < t->modes; ++k) vgs_target_mode(t, k, c[k]);
    for (i = 0; i < n; ++i) {
        double least = HUGE_VAL;
        int best = -1;
        for (k = 0; k < t->modes; ++k) {
            double a = (double)x[2 * i] - (double)c[k][0], b = (double)x[2 * i + 1] - (double)c[k][1];
            if (a * a + b * b >= least || a != a || b != b) continue;
            least = a * a + b * b;
            best = k;
        }
        if (best >= 0) out->mode_weight[best] += 1.0 / n;
    }
}

/* ==== >>metrics: optimal transport ================================================================= */

/* c [n,n] = |x_i - y_j|^2, or its root; x and y are [n,dim]. */
static void vgs__costs(const float *x, const float *y, int n, int dim, bool root, int threads, float *c)
{
    int i, team = vgs__team(threads);
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team)
#endif
    for (i = 0; i < n; ++i) {
        const float *a = x + (size_t)i * (size_t)dim, *b = y;
        float *row = c + (size_t)i * (size_t)n;
        int j, k;
        for (j = 0; j < n; ++j, b += dim) {
            double s = 0.0;
            for (k = 0; k < dim; ++k) s += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
            row[j] = (float)(root ? sqrt(s) : s);
        }
    }
}

static bool vgs__all_finite(const float *v, size_t n)
{
    size_t i;
    for (i = 0; i < n; ++i)
        if (!vgs__finite((double)v[i])) return false;
    return true;
}

/* One half of a Sinkhorn round: to_i = eps (log(1/n) - log sum_j exp((from_j - c_ij)/eps)). With eps = 1e-3
   all but a few terms are far below the largest, and exp gives 0 below -104: those are skipped. One pass: the
   sum is rescaled whenever a larger term turns up. Returns the largest change of `to`. */
static double vgs__sinkhorn_half(const float *c, int n, double eps, const double *from, double *to,
                                 int threads, double *change)
{
    double log_n = log((double)n), most = 0.0;
    int i, team = vgs__team(threads);
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team)
#endif
    for (i = 0; i < n; ++i) {
        const float *row = c + (size_t)i * (size_t)n;
        double top = from[0] - (double)row[0], sum = 1.0, cut = top - 104.0 * eps, next;
        int j;
        for (j = 1; j < n; ++j) {
            double at = from[j] - (double)row[j];
            if (at <= cut) continue;
            if (at > top) {
                sum = sum * (double)vgs__exp((float)((top - at) / eps)) + 1.0;
                top = at;
                cut = top - 104.0 * eps;
            } else {
                sum += (double)vgs__exp((float)((at - top) / eps));
            }
        }
        next = -eps * (log_n + (double)vgs__log((float)sum)) - top;
        change[i] = fabs(next - to[i]);
        to[i] = next;
    }
    for (i = 0; i < n; ++i) most = change[i] > most ? change[i] : most;
    return most;
}

/* <P, c> with P_ij = exp((u_i + v_j - c_ij)/eps). */
static double vgs__sinkhorn_value(const float *c, int n, double eps, const double *u, const double *v)
{
    double value = 0.0;
    int i, j;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double at = (double)c[(size_t)i * (size_t)n + (size_t)j], p = (u[i] + v[j] - at) / eps;
            if (p > -104.0) value += at * (double)vgs__exp((float)p);
        }
    return value;
}

/* c and its transpose ct are [n,n]; both marginals are uniform. */
static vgs_status vgs__sinkhorn(const float *c, const float *ct, int n, int threads, double *value,
                                vgs_error *err)
{
    const double eps = 1e-3;
    double *u = (double *)vgs__alloc_or(err, "sinkhorn", 3 * (size_t)n, sizeof(double)), *v, *change, du, dv;
    int i;
    if (!u) return VGS_E_NOMEM;
    v = u + n;
    change = v + n;
    for (i = 0; i < n; ++i) v[i] = -eps * log((double)n);
    for (i = 0; i < 100; ++i) {
        du = vgs__sinkhorn_half(c, n, eps, v, u, threads, change);
        dv = vgs__sinkhorn_half(ct, n, eps, u, v, threads, change);
        if (du < 1e-5 && dv < 1e-5) break;
    }
    *value = vgs__sinkhorn_value(c, n, eps, u, v);
    vgs__free(u);
    return VGS_OK;
}

/* Linear assignment [Jonker & Volgenant 1987]: dual v of the columns, reduced costs c_ij - v_j. Rows are
   first placed greedily while v is lowered; what remains is placed along shortest augmenting paths. */
typedef struct vgs__lap {
    int          n;
    const float *c;               /* [n,n]                                                            */
    double      *v, *dist;        /* dual of a column; its distance from the row being placed         */
    int         *row, *col;       /* row of a column, column of a row; -1 = none                      */
    int         *open, *from;     /* columns, settled ones first; row before a column on its path     */
    int         *todo;            /* rows without a column                                            */
} vgs__lap;

/* The cheapest and the second cheapest column of row i, by reduced cost. */
static void vgs__lap_best_two(const vgs__lap *a, int i, int *j1, int *j2, double *u1, double *u2)
{
    const float *c = a->c + (size_t)i * (size_t)a->n;
    int j;
    *j1 = 0;
    *j2 = -1;
    *u1 = (double)c[0] - a->v[0];
    *u2 = HUGE_VAL;
    for (j = 1; j < a->n; ++j) {
        double h = (double)c[j] - a->v[j];
        if (h >= *u2) continue;
        if (h < *u1) {
            *u2 = *u1;
            *j2 = *j1;
            *u1 = h;
            *j1 = j;
        } else {
            *u2 = h;
            *j2 = j;
        }
    }
}

/* v_j = the least cost in column j. */
static void vgs__lap_columns(vgs__lap *a)
{
    int i, j;
    for (j = 0; j < a->n; ++j) a->v[j] = HUGE_VAL;
    for (i = 0; i < a->n; ++i)
        for (j = 0; j < a->n; ++j) {
            double c = (double)a->c[(size_t)i * (size_t)a->n + (size_t)j];
            a->v[j] = c < a->v[j] ? c : a->v[j];
        }
}

/* Augmenting row reduction over the `count` rows in todo: a row takes its cheapest column and lowers its v
   until the second cheapest is as good; where v does not change, by a tie or by rounding, it takes the second
   rather than drive somebody out. Who is driven out waits for the next pass: were it to go on at once, two
   rows could outbid each other by tiny steps for very long. Returns the number of rows left in todo. */
static int vgs__lap_reduce(vgs__lap *a, int count)
{
    int k, left = 0;
    for (k = 0; k < count; ++k) {
        int i = a->todo[k], j, j2, out;
        double u1, u2, lower;
        vgs__lap_best_two(a, i, &j, &j2, &u1, &u2);
        lower = a->v[j] - (u2 - u1);
        if (!(lower < a->v[j]) && a->row[j] >= 0) j = j2;
        else a->v[j] = lower;
        out = a->row[j];
        if (out >= 0) {
            a->col[out] = -1;
            a->todo[left++] = out;
        }
        a->row[j] = i;
        a->col[i] = j;
    }
    return left;
}

/* Moves column open[at] to place `settled`: columns before it are settled. */
static int vgs__lap_settle(vgs__lap *a, int settled, int at)
{
    int j = a->open[at];
    a->open[at] = a->open[settled];
    a->open[settled] = j;
    return j;
}

/* Dijkstra from a free row to the nearest free column, which it returns; then lowers v so that the path costs
   nothing. Each step settles the nearest open column and looks on from its row. */
static int vgs__lap_path(vgs__lap *a, int start)
{
    int n = a->n, settled = 0, i = start, j = -1, k, at;
    double reach = 0.0, base = 0.0;
    for (k = 0; k < n; ++k) {
        a->open[k] = k;
        a->dist[k] = HUGE_VAL;
    }
    for (;;) {
        const float *c = a->c + (size_t)i * (size_t)n;
        double least = HUGE_VAL;
        for (k = at = settled; k < n; ++k) {
            int q = a->open[k];
            double d = (double)c[q] - a->v[q] - base;
            if (d < a->dist[q]) {
                a->dist[q] = d;
                a->from[q] = i;
            }
            if (a->dist[q] < least || (a->dist[q] == least && a->row[q] < 0)) {
                least = a->dist[q];
                at = k;
            }
        }
        reach = least;
        j = vgs__lap_settle(a, settled, at);
        if (a->row[j] < 0) break;
        settled++;
        i = a->row[j];
        base = (double)a->c[(size_t)i * (size_t)n + (size_t)j] - a->v[j] - reach;
    }
    for (k = 0; k < settled; ++k) a->v[a->open[k]] += a->dist[a->open[k]] - reach;
    return j;
}

/* duals [2 n] and index [5 n] are its memory. */
static void vgs__lap_open(vgs__lap *a, int n, const float *c, double *duals, int *index)
{
    a->n = n;
    a->c = c;
    a->v = duals;
    a->dist = duals + n;
    a->row = index;
    a->col = index + n;
    a->open = index + 2 * (ptrdiff_t)n;
    a->from = index + 3 * (ptrdiff_t)n;
    a->todo = index + 4 * (ptrdiff_t)n;
}

static void vgs__lap_solve(vgs__lap *a)
{
    int i, j, k, pass, displaced, left = a->n;
    vgs__lap_columns(a);
    for (k = 0; k < a->n; ++k) {
        a->row[k] = a->col[k] = -1;
        a->todo[k] = k;
    }
    for (pass = 0; pass < 3; ++pass) left = vgs__lap_reduce(a, left);
    for (k = 0; k < left; ++k) {
        j = vgs__lap_path(a, a->todo[k]);
        do {
            i = a->from[j];
            a->row[j] = i;
            displaced = a->col[i];
            a->col[i] = j;
            j = displaced;
        } while (i != a->todo[k]);
    }
}

/* Least total cost of a one-to-one assignment of rows to columns, c [n,n]. */
static vgs_status vgs__assignment(const float *c, int n, double *total, vgs_error *err)
{
    size_t size = (size_t)n;
    double *duals = (double *)vgs__alloc_or(err, "assignment", 2 * size, sizeof(double));
    int *index = (int *)vgs__alloc_or(err, "assignment", 5 * size, sizeof(int)), i;
    vgs__lap a;
    if (duals && index) {
        vgs__lap_open(&a, n, c, duals, index);
        vgs__lap_solve(&a);
        for (*total = 0.0, i = 0; i < n; ++i) *total += (double)c[(size_t)i * size + (size_t)a.col[i]];
    }
    vgs__free(duals);
    vgs__free(index);
    return duals && index ? VGS_OK : VGS_E_NOMEM;
}

/* ---- alignment: one distance of two configurations ---- */

/* Sum of the singular values of h [d,d], which it destroys: one-sided Jacobi turns pairs of rows until all
   are at right angles; their lengths are the singular values. */
static double vgs__nuclear_norm(double *h, int d)
{
    double sum = 0.0, square;
    bool turned = true;
    int sweep, i, j, k;
    for (sweep = 0; sweep < 30 && turned; ++sweep)
        for (turned = false, i = 0; i < d; ++i)
            for (j = i + 1; j < d; ++j) {
                double *p = h + i * d, *q = h + j * d, pp = 0.0, qq = 0.0, pq = 0.0, zeta, t, c;
                for (k = 0; k < d; ++k) { pp += p[k] * p[k]; qq += q[k] * q[k]; pq += p[k] * q[k]; }
                if (!(pq * pq > 1e-24 * pp * qq)) continue;
                turned = true;
                zeta = (qq - pp) / (2.0 * pq);
                t = (zeta < 0.0 ? -1.0 : 1.0) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
                c = 1.0 / sqrt(1.0 + t * t);
                for (k = 0; k < d; ++k) {
                    double u = p[k], v = q[k];
                    p[k] = c * (u - t * v);
                    q[k] = c * (t * u + v);
                }
            }
    for (i = 0; i < d; ++i) {
        for (square = 0.0, k = 0; k < d; ++k) square += h[i * d + k] * h[i * d + k];
        sum += sqrt(square);
    }
    return sum;
}

/* Least |x - R y|^2 over rotations and reflections R, after matching the particles of y to those of x so that
   the sum of their distances is least; a: work for n particles, its costs are in c [n,n]. */
static float vgs__aligned_cost(vgs__lap *a, float *c, const float *x, const float *y, int d)
{
    double h[VGS__MAX_SPACE * VGS__MAX_SPACE] = { 0.0 }, sum = 0.0;
    int n = a->n, i, j, k;
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double r = 0.0, v;
            for (k = 0; k < d; ++k) {
                v = (double)x[i * d + k] - (double)y[j * d + k];
                r += v * v;
            }
            c[i * n + j] = (float)sqrt(r);
        }
    vgs__lap_solve(a);
    for (i = 0; i < n; ++i) {
        const float *p = x + i * d, *q = y + a->col[i] * d;
        for (j = 0; j < d; ++j) {
            sum += (double)p[j] * (double)p[j] + (double)q[j] * (double)q[j];
            for (k = 0; k < d; ++k) h[j * d + k] += (double)p[j] * (double)q[k];
        }
    }
    sum -= 2.0 * vgs__nuclear_norm(h, d);
    return (float)(sum > 0.0 ? sum : 0.0);
}

/* cost [n,n] of all pairs; doubles, ints and costs: each row's own work. */
static void vgs__aligned_costs(const vgs_target *t, const float *x, const float *y, int n, int threads,
                               float *cost, double *duals, int *index, float *inner)
{
    size_t p = (size_t)t->particles, dim = (size_t)t->dim;
    int i, team = vgs__team(threads);
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team)
#endif
    for (i = 0; i < n; ++i) {
        vgs__lap a;
        float *c = inner + (size_t)i * p * p;
        int j;
        vgs__lap_open(&a, t->particles, c, duals + (size_t)i * 2 * p, index + (size_t)i * 5 * p);
        for (j = 0; j < n; ++j)
            cost[(size_t)i * (size_t)n + (size_t)j] =
                vgs__aligned_cost(&a, c, x + (size_t)i * dim, y + (size_t)j * dim, t->space_dim);
    }
}

/* y [n,dim] = x with the mean over each row's particles taken off. */
static void vgs__mean_free(const vgs_target *t, const float *x, int n, float *y)
{
    int i, j, k, d = t->space_dim;
    for (i = 0; i < n; ++i, x += t->dim, y += t->dim)
        for (k = 0; k < d; ++k) {
            double mean = 0.0;
            for (j = 0; j < t->particles; ++j) mean += (double)x[j * d + k] / t->particles;
            for (j = 0; j < t->particles; ++j) y[j * d + k] = (float)((double)x[j * d + k] - mean);
        }
}

static vgs_status vgs__w2(const vgs_target *t, const float *x, const float *ref, int n, int threads,
                          double *value, vgs_error *err)
{
    size_t row = (size_t)t->dim, cells = (size_t)n * (size_t)n;
    float *y = (float *)vgs__alloc_or(err, "w2", 2 * (size_t)n * row, sizeof(float));
    float *c = (float *)vgs__alloc_or(err, "w2", cells, sizeof(float));
    vgs_status status = y && c ? VGS_OK : VGS_E_NOMEM;
    double total = 0.0;
    if (!status) {
        vgs__mean_free(t, x, n, y);
        vgs__mean_free(t, ref, n, y + (size_t)n * row);
        vgs__costs(y, y + (size_t)n * row, n, t->dim, false, threads, c);
        if (vgs__all_finite(c, cells)) {
            status = vgs__assignment(c, n, &total, err);
            if (!status) *value = sqrt(total / n);
        }
    }
    vgs__free(y);
    vgs__free(c);
    return status;
}

/* W2 with aligned distances. No value where space_dim is too large for it or a coordinate is not finite. */
static vgs_status vgs__w2_aligned(const vgs_target *t, const float *x, const float *ref, int n, int threads,
                                  double *value, vgs_error *err)
{
    size_t rows = (size_t)n, p = (size_t)t->particles, dim = (size_t)t->dim;
    float *y, *c, *inner;
    double *duals, total = 0.0;
    int *index;
    vgs_status status = VGS_E_NOMEM;
    if (t->space_dim > VGS__MAX_SPACE || !vgs__all_finite(x, rows * dim) || !vgs__all_finite(ref, rows * dim))
        return VGS_OK;
    y = (float *)vgs__alloc_or(err, "w2_aligned", 2 * rows * dim, sizeof(float));
    c = (float *)vgs__alloc_or(err, "w2_aligned", rows * rows, sizeof(float));
    inner = (float *)vgs__alloc_or(err, "w2_aligned", rows * p * p, sizeof(float));
    duals = (double *)vgs__alloc_or(err, "w2_aligned", rows * 2 * p, sizeof(double));
    index = (int *)vgs__alloc_or(err, "w2_aligned", rows * 5 * p, sizeof(int));
    if (y && c && inner && duals && index) {
        vgs__mean_free(t, x, n, y);
        vgs__mean_free(t, ref, n, y + rows * dim);
        vgs__aligned_costs(t, y, y + rows * dim, n, threads, c, duals, index, inner);
        status = vgs__all_finite(c, rows * rows) ? vgs__assignment(c, n, &total, err) : VGS_OK;
        *value = status || !vgs__all_finite(c, rows * rows) ? *value : sqrt(total / n);
    }
    vgs__free(y);
    vgs__free(c);
    vgs__free(inner);
    vgs__free(duals);
    vgs__free(index);
    return status;
}

static vgs_status vgs__sinkhorn_points(const vgs_target *t, const float *x, const float *ref, int n,
                                       int threads, double *value, vgs_error *err)
{
    size_t cells = (size_t)n * (size_t)n;
    float *c = (float *)vgs__alloc_or(err, "sinkhorn", 2 * cells, sizeof(float));
    vgs_status status = VGS_OK;
    if (!c) return VGS_E_NOMEM;
    vgs__costs(x, ref, n, t->dim, true, threads, c);
    vgs__costs(ref, x, n, t->dim, true, threads, c + cells);
    if (vgs__all_finite(c, cells)) status = vgs__sinkhorn(c, c + cells, n, threads, value, err);
    vgs__free(c);
    return status;
}

/* ==== >>metrics: all of them ======================================================================= */

/* Every double of vgs_metrics but the mode weights, for what treats them alike. */
static const size_t vgs__metric_at[] = {
    offsetof(vgs_metrics, energy_mean), offsetof(vgs_metrics, energy_median),
    offsetof(vgs_metrics, reference_energy_mean), offsetof(vgs_metrics, delta_std),
    offsetof(vgs_metrics, sinkhorn), offsetof(vgs_metrics, w2), offsetof(vgs_metrics, w2_aligned),
    offsetof(vgs_metrics, energy_w2), offsetof(vgs_metrics, outliers), offsetof(vgs_metrics, tvd_e),
    offsetof(vgs_metrics, tvd_d), offsetof(vgs_metrics, tvd_e_range), offsetof(vgs_metrics, tvd_d_range),
    offsetof(vgs_metrics, outside_e), offsetof(vgs_metrics, outside_d),
    offsetof(vgs_metrics, outside_e_range), offsetof(vgs_metrics, outside_d_range)
};
#define VGS__METRICS ((int)(sizeof vgs__metric_at / sizeof *vgs__metric_at))

static double *vgs__metric(vgs_metrics *m, int k)                      /* then the mode weights follow */
{
    if (k >= VGS__METRICS) return &m->mode_weight[k - VGS__METRICS];
    return (double *)(void *)((char *)m + vgs__metric_at[k]);
}

/* Both in order afterwards. Samples whose energy is not finite are above everything. */
static void vgs__compare_energies(float *e, float *e_ref, int n, vgs_metrics *out)
{
    double square = 0.0, top = -HUGE_VAL;
    int i, above = 0;
    qsort(e, (size_t)n, sizeof *e, vgs__float_order);
    qsort(e_ref, (size_t)n, sizeof *e_ref, vgs__float_order);
    for (i = 0; i < n; ++i) {
        double v = (double)e[i] - (double)e_ref[i];
        square += v * v / n;
        if (vgs__finite((double)e_ref[i])) top = (double)e_ref[i];
    }
    for (i = 0; i < n; ++i) above += !((double)e[i] <= top);
    out->outliers = (double)above / n;
    if (vgs__all_finite(e, (size_t)n) && vgs__all_finite(e_ref, (size_t)n)) out->energy_w2 = sqrt(square);
}

static vgs_status vgs__evaluate_energies(const vgs_target *t, const float *x, const float *ref, int n,
                                         vgs_metrics *out, vgs_error *err)
{
    float *e = (float *)vgs__alloc_or(err, "metrics", 2 * (size_t)n, sizeof(float)), *e_ref;
    vgs_status status = VGS_OK;
    if (!e) return VGS_E_NOMEM;
    e_ref = e + n;
    if (t->eval(t->user, x, n, t->dim, e, NULL) || t->eval(t->user, ref, n, t->dim, e_ref, NULL)) {
        status = vgs__fail(err, VGS_E_ENERGY, "evaluate: the energy callback failed");
    } else {
        vgs__tvd_energies(e, e_ref, n, t->particles > 0, out);
        out->energy_mean = vgs__mean(e, n);
        out->reference_energy_mean = vgs__mean(e_ref, n);
        out->energy_median = vgs__median_in_place(e, n);
        vgs__compare_energies(e, e_ref, n, out);
    }
    vgs__free(e);
    return status;
}

VGS__DEF vgs_status vgs_evaluate(const vgs_target *t, const float *x, int n, const float *ref, int n_ref,
                                 int threads, vgs_metrics *out, vgs_error *err)
{
    vgs_status status;
    int k;
    if (!t || !t->eval || t->dim < 1)
        return vgs__fail(err, VGS_E_ARG, "evaluate: the target is missing, or has no energy or no dim");
    if (n < 2 || n_ref < 2)
        return vgs__fail(err, VGS_E_ARG, "evaluate: n = %d, n_ref = %d: must be at least 2", n, n_ref);
    if (t->particles && t->particles * t->space_dim != t->dim)
        return vgs__fail(err, VGS_E_ARG, "evaluate: target has %d particles in %d dimensions, but dim = %d",
                         t->particles, t->space_dim, t->dim);
    memset(out, 0, sizeof *out);
    for (k = 0; k < VGS__METRICS; ++k) *vgs__metric(out, k) = vgs__nan();
    n = n < n_ref ? n : n_ref;
    out->n = n;
    out->n_transport = n < VGS__TRANSPORT_MAX ? n : VGS__TRANSPORT_MAX;
    out->n_aligned = t->particles > 20 && n > 500 ? 500 : out->n_transport;
    status = vgs__evaluate_energies(t, x, ref, n, out, err);
    if (status) return status;
    if (t->modes && t->builtin) vgs__mode_weights(t, x, n, out);
    if (!t->particles) {
        out->delta_std = vgs__delta_std(t, x, ref, n);
        return vgs__sinkhorn_points(t, x, ref, out->n_transport, threads, &out->sinkhorn, err);
    }
    status = vgs__tvd_distances(t, x, ref, n, out, err);
    if (!status) status = vgs__w2(t, x, ref, out->n_transport, threads, &out->w2, err);
    return status ? status : vgs__w2_aligned(t, x, ref, out->n_aligned, threads, &out->w2_aligned, err);
}

/* ==== >>metrics: floors ============================================================================ */

#define VGS__PAIRS 5

/* Pair number `pair` of the ten parts of ref, n rows each. */
static vgs_status vgs__floor_pair(const vgs_target *t, const float *ref, int n, int pair, uint64_t seed,
                                  int threads, vgs_metrics *out, vgs_error *err)
{
    size_t part = (size_t)n * (size_t)t->dim, i;
    const float *a = ref + 2 * (size_t)pair * part, *b = a + part;
    float *y = (float *)vgs__alloc_or(err, "floor", part, sizeof(float));
    vgs_rng r = vgs__chain_rng(seed, 0);
    vgs_status status;
    if (!y) return VGS_E_NOMEM;
    r.stream = VGS__SHUFFLE_STREAM + 1u + (uint32_t)pair;
    memcpy(y, a, part * sizeof(float));
    for (i = 0; i < (t->particles ? part : 0); i += (size_t)t->dim) vgs__shuffle(t, &r, a + i, y + i);
    status = vgs_evaluate(t, y, n, b, n, threads, out, err);
    vgs__free(y);
    return status;
}

/* Mean and standard deviation of each figure; NaN where any is. */
static void vgs__summarise(vgs_metrics *m, vgs_metrics *mean, vgs_metrics *spread)
{
    int k, p;
    *mean = *spread = m[0];
    for (k = 0; k < VGS__METRICS + VGS_METRICS_MODES; ++k) {
        double sum = 0.0, square = 0.0;
        for (p = 0; p < VGS__PAIRS; ++p) sum += *vgs__metric(&m[p], k) / VGS__PAIRS;
        for (p = 0; p < VGS__PAIRS; ++p) {
            double v = *vgs__metric(&m[p], k) - sum;
            square += v * v;
        }
        *vgs__metric(mean, k) = sum;
        *vgs__metric(spread, k) = sqrt(square / (VGS__PAIRS - 1));
    }
}

/* A callback of the user's runs on the calling thread only; built-in energies let the pairs run at once. */
static vgs_status vgs__floor_pairs(const vgs_target *t, const float *ref, int n, uint64_t seed, int threads,
                                   vgs_metrics *m, vgs_error *err)
{
    vgs_status status[VGS__PAIRS];
    vgs_error errs[VGS__PAIRS];
    int p, team = t->builtin ? vgs__team(threads) : 1, inner = team > 1 ? 1 : threads;
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team) schedule(dynamic)
#endif
    for (p = 0; p < VGS__PAIRS; ++p) status[p] = vgs__floor_pair(t, ref, n, p, seed, inner, &m[p], &errs[p]);
    for (p = 0; p < VGS__PAIRS; ++p) {
        if (!status[p]) continue;
        if (err) *err = errs[p];
        return status[p];
    }
    return VGS_OK;
}

VGS__DEF vgs_status vgs_evaluate_floor(const vgs_target *t, int n, const float *ref, int n_ref, uint64_t seed,
                                       int threads, vgs_metrics *mean, vgs_metrics *spread, int *floor_n,
                                       vgs_error *err)
{
    int parts = 2 * VGS__PAIRS, size = ref && n_ref / parts < n ? n_ref / parts : n;
    vgs_metrics m[VGS__PAIRS], unused;
    vgs_status status = VGS_OK;
    float *own = NULL;
    if (!t || size < 2 || n > INT_MAX / parts)
        return vgs__fail(err, VGS_E_ARG, "floor: n = %d, n_ref = %d: ten parts of %d rows; need 2 or more",
                         n, n_ref, size);
    if (t->space_dim > VGS__MAX_SPACE)
        return vgs__fail(err, VGS_E_ARG, "floor: target.space_dim = %d: must be at most %d",
                         t->space_dim, VGS__MAX_SPACE);
    if (!ref) {
        size_t rows = (size_t)parts * (size_t)size;
        own = (float *)vgs__alloc_or(err, "floor", rows * (size_t)t->dim, sizeof(float));
        if (!own) return VGS_E_NOMEM;
        status = vgs_target_reference(t, seed, parts * size, own, threads, err);
        ref = own;
    }
    if (!status) status = vgs__floor_pairs(t, ref, size, seed, threads, m, err);
    if (!status) vgs__summarise(m, mean, spread ? spread : &unused);
    if (floor_n) *floor_n = size;
    vgs__free(own);
    return status;
}

/* ==== >>metrics: path weights ====================================================================== */

static double vgs__log_mean_exp(const double *v, int n, double max)
{
    double sum = 0.0;
    int i;
    for (i = 0; i < n; ++i) sum += exp(v[i] - max);
    return max + log(sum / n);
}

/* Shape k of a generalised Pareto for the m values y, ascending and > 0 [Zhang 2009]: k(theta) is the mean of
   log(1 - theta y), the profile likelihood of theta averages a grid of theta, and the prior of [PSIS] pulls k
   to 1/2 with the weight of ten values. */
static double vgs__pareto_shape(const double *y, int m)
{
    enum { MOST = 30 + 1000 };
    double theta[MOST], like[MOST], quarter = y[(m + 2) / 4 - 1], top = -HUGE_VAL, sum = 0.0, mean = 0.0, k;
    int grid = 30 + (int)sqrt((double)m), i, j;
    if (grid > MOST) grid = MOST;
    for (i = 0; i < grid; ++i) {
        theta[i] = 1.0 / y[m - 1] + (1.0 - sqrt(grid / (i + 0.5))) / (3.0 * quarter);
        for (k = 0.0, j = 0; j < m; ++j) k += log1p(-theta[i] * y[j]) / m;
        like[i] = k == 0.0 ? -HUGE_VAL : m * (log(-theta[i] / k) - k - 1.0);
        top = like[i] > top ? like[i] : top;
    }
    for (i = 0; i < grid; ++i) {
        sum += exp(like[i] - top);
        mean += theta[i] * exp(like[i] - top);
    }
    for (k = 0.0, j = 0; j < m; ++j) k += log1p(-mean / sum * y[j]) / m;
    return (m * k + 5.0) / (m + 10.0);
}

/* khat of weights of these logarithms, which are put in order: of what is above the largest of the rest.
   Fewer than five: infinite, but 0 if all weights are equal. */
static double vgs__khat(double *log_weight, int n)
{
    double most = ceil(fmin(0.2 * n, 3.0 * sqrt((double)n))), max, cut;
    int first = n - (int)most, i;
    double *y;
    qsort(log_weight, (size_t)n, sizeof *log_weight, vgs__compare_double);
    max = log_weight[n - 1];
    if (max - log_weight[0] == 0.0) return 0.0;
    if (first < 1) return HUGE_VAL;
    cut = fmax(exp(log_weight[first - 1] - max), DBL_MIN);
    while (first < n && !(exp(log_weight[first] - max) > cut)) ++first;
    y = log_weight + first;
    for (i = 0; i < n - first; ++i) y[i] = exp(y[i] - max) - cut;
    return n - first > 4 ? vgs__pareto_shape(y, n - first) : HUGE_VAL;
}

/* All but khat of weights of which not all are 0; max is the largest log_weight. */
static void vgs__weigh_moments(const double *log_weight, int n, double max, vgs_weights *out)
{
    enum { BLOCKS = 20 };
    int i, count = n < 2 * BLOCKS ? n / 2 : BLOCKS;
    double sum = 0.0, w1 = 0.0, w2 = 0.0, blocks = 0.0, spread = 0.0;
    for (i = 0; i < n; ++i) {
        double w = exp(log_weight[i] - max);
        w1 += w;
        w2 += w * w;
        sum += log_weight[i] - max;
    }
    for (i = 0; i < n; ++i) {
        double v = log_weight[i] - max - sum / n;
        spread += v * v;
    }
    for (i = 0; i < count; ++i) {
        int first = (int)((long long)n * i / count), end = (int)((long long)n * (i + 1) / count);
        double r = exp(vgs__log_mean_exp(log_weight + first, end - first, max) - max) / (w1 / n) - 1.0;
        blocks += r * r;
    }
    out->log_z = max + log(w1 / n);
    out->elbo = max + sum / n;
    out->ess = w1 * w1 / (n * w2);
    if (count > 1) out->log_z_se = sqrt(blocks / ((double)count * (count - 1)));
    if (n > 1 && sum >= -DBL_MAX) out->elbo_se = sqrt(spread / ((double)n * (n - 1)));
}

/* Of sign times log_weight. An infinity of the wrong sign, or NaN, is an error. */
static vgs_status vgs__weigh(const double *log_weight, double sign, int n, vgs_weights *out, vgs_error *err)
{
    double *v, max = -HUGE_VAL;
    int i;
    if (n < 1) return vgs__fail(err, VGS_E_ARG, "weigh: n = %d: must be > 0", n);
    for (i = 0; i < n; ++i)
        if (!(sign * log_weight[i] <= DBL_MAX))
            return vgs__fail(err, VGS_E_NONFINITE, "weigh: log_weight[%d] = %g: must be %s infinity", i,
                             log_weight[i], sign > 0.0 ? "below" : "above minus");
    if (!(v = (double *)vgs__alloc_or(err, "weights", (size_t)n, sizeof *v))) return VGS_E_NOMEM;
    for (i = 0; i < n; ++i) {
        v[i] = sign * log_weight[i];
        max = v[i] > max ? v[i] : max;
    }
    out->n = n;
    out->log_z = out->elbo = -HUGE_VAL;
    out->log_z_se = out->elbo_se = out->khat = HUGE_VAL;
    out->ess = 1.0 / n;
    if (max >= -DBL_MAX) {                                           /* else all weights are 0         */
        vgs__weigh_moments(v, n, max, out);
        out->khat = vgs__khat(v, n);
    }
    vgs__free(v);
    return VGS_OK;
}

VGS__DEF vgs_status vgs_weigh(const double *log_weight, int n, vgs_weights *out, vgs_error *err)
{
    return vgs__weigh(log_weight, 1.0, n, out, err);
}

VGS__DEF vgs_status vgs_weigh_forward(const double *log_weight, int n, vgs_forward *out, vgs_error *err)
{
    vgs_weights w;
    vgs_status st = vgs__weigh(log_weight, -1.0, n, &w, err);
    if (st != VGS_OK) return st;
    out->log_z = -w.log_z;
    out->log_z_se = w.log_z_se;
    out->eubo = -w.elbo;
    out->eubo_se = w.elbo_se;
    out->ess = w.ess;
    out->khat = w.khat;
    out->n = n;
    return VGS_OK;
}

/* What is wrong with weights of this quality, or false. */
static bool vgs__weights_complain(const char *whose, double log_z, double se, double ess, double khat, int n,
                                  char text[200])
{
    if (!vgs__finite(log_z))
        snprintf(text, 200, "all %d %sweights are 0: nothing can be said", n, whose);
    else if (n > 1 && ess * n < 2.0)
        snprintf(text, 200, "one of %d %sweights outweighs all others: log Z and ESS mean nothing", n, whose);
    else if (!(khat <= 0.7) && vgs__finite(khat))
        snprintf(text, 200, "a few large %sweights decide (k-hat %.2f is above 0.7, ESS/N %.3g): log Z and "
                 "its error cannot be trusted", whose, khat, ess);
    else if (!vgs__finite(khat) || !vgs__finite(se))
        snprintf(text, 200, "%d %sweights are too few to judge their tail: k-hat takes more rows, and the "
                 "error of log Z cannot be trusted before", n, whose);
    else if (se > 0.2)
        snprintf(text, 200, "parts of the %sweights disagree (log Z +- %.2g, ESS/N %.3g): more are needed, "
                 "or better ones", whose, se, ess);
    else return false;
    return true;
}

/* Reverse and forward log Z that differ by more than five error bars, and by more than 0.02, disagree. */
VGS__DEF void vgs_weights_say(const vgs_weights *w, const vgs_forward *f, char text[200])
{
    double gap = w && f ? f->log_z - w->log_z : 0.0, bar = w && f ? hypot(w->log_z_se, f->log_z_se) : 0.0;
    text[0] = '\0';
    if (w && f && vgs__finite(gap) && vgs__finite(bar) && fabs(gap) > 0.02 && fabs(gap) > 5.0 * bar)
        snprintf(text, 200, "reverse and forward log Z disagree by %.2g nats: %s", fabs(gap),
                 gap < 0.0 ? "the weights, or the reference, cannot be trusted" :
                 w->khat > 0.7 ? "modes are missing, or too few weights count" : "modes are missing");
    else if (w && vgs__weights_complain("", w->log_z, w->log_z_se, w->ess, w->khat, w->n, text)) return;
    else if (f && vgs__weights_complain("forward ", f->log_z, f->log_z_se, f->ess, f->khat, f->n, text))
        return;
    else if (w && f)
        snprintf(text, 200, "the weights can be used (ESS/N %.2g, k-hat %.2f), and reverse and forward log Z "
                 "agree within %.2g nats", w->ess, w->khat, fabs(gap));
    else if (w)
        snprintf(text, 200, "the weights can be used (ESS/N %.2g, k-hat %.2f), unless a mode is missing, "
                 "which only reference samples would tell", w->ess, w->khat);
    else if (f)
        snprintf(text, 200, "the forward weights can be used (ESS/N %.2g, k-hat %.2f)", f->ess, f->khat);
}

/* ==== >>presets ==================================================================================== */

typedef struct vgs__preset {
    const char *target, *preset;
    int iterations;
    float noise_scale;                           /* of the published evaluation                       */
    bool skip_final_noise;
    const char *fields;                          /* "name value name value ..."                       */
} vgs__preset;

/* Where our settings are alike: a geometric path, smooth L1, and the limits that are defaults. */
#define VGS__OURS "layers 3 time_dim 32 time_hidden 64 batch 128 "

#define VGS__AS_PUBLISHED "drift_max 1e30 grad_max 1e30 one_step 1 fixed_kernel 1 explicit_drift 1 "

static const vgs__preset vgs__presets[] = {
    { "four-gauss", "paper", 5000, 1.0f, false,
      VGS__AS_PUBLISHED
      "steps 10 schedule quad s2_start 0.1 s2_end 0.01 alpha vp value_lr 1e-4 sigma_lr 1e-2 "
      "target_ema 0.995 batch 128 passes 3 explore 1.2 loss l2 value temb hidden 128 time_dim 128" },
    { "gmm9", "paper", 3000, 1.0f, false,
      VGS__AS_PUBLISHED
      "steps 20 schedule quad s2_start 0.2 s2_end 0.1 alpha vp value_lr 1e-4 sigma_lr 1e-3 "
      "target_ema 0.9 batch 128 passes 1 explore 1.2 loss l2 value temb hidden 1024 time_dim 1024" },
    { "funnel", "paper", 2000, 1.0f, false,
      VGS__AS_PUBLISHED
      "steps 30 schedule quad s2_start 0.5 s2_end 5e-4 alpha ve value_lr 1e-4 sigma_lr 1e-2 "
      "target_ema 0.95 batch 1024 passes 3 explore 1.1 loss l2 value deeperv2 hidden 1024 time_dim 1024 "
      "energy_max 100 scale_by_dim 1" },
    { "dw4", "paper", 3000, 1.0f, true,
      VGS__AS_PUBLISHED
      "steps 30 schedule quad s2_start 0.1 s2_end 1e-4 alpha ve value_lr 1e-5 sigma_lr 1e-3 "
      "target_ema 0 batch 512 passes 3 explore 1.2 loss smooth_l1 value temb hidden 512 time_dim 512 "
      "wrapper sorted scale_by_dim 1" },
    { "lj13", "paper", 30000, 0.9f, true,
      VGS__AS_PUBLISHED
      "steps 100 schedule exp s2_start 0.05 s2_end 1e-4 alpha ve value_lr 1e-5 sigma_lr 1e-4 "
      "target_ema 0.9 batch 512 passes 3 explore 1.2 loss smooth_l1 value deeperv3 hidden 512 time_dim 128 "
      "time_hidden 512 wrapper reciprocal energy_max 100 grad_max 1 unclamped_drift 1 scale_by_dim 1" },
    { "four-gauss", "fast", 800, 1.0f, false,
      VGS__OURS
      "hidden 64 length_scale 2.03 steps 16 s2_start 0.82 s2_end 0.026 init_sigma 2.8 energy_max 100 "
      "local_noise 1 value_lr 7e-4 lr_half 250 sigma_lr 1e-3" },
    { "gmm9", "fast", 900, 1.0f, false,
      VGS__OURS
      "hidden 96 length_scale 4.1 steps 24 s2_start 5.15 s2_end 0.05 init_sigma 7.2 energy_max 100 "
      "local_noise 1 value_lr 7e-4 lr_half 300 sigma_lr 1e-3 replay 32 refine 20 correct 1" },
    { "gmm25", "fast", 1600, 1.0f, false,
      VGS__OURS
      "hidden 128 length_scale 7.1 steps 32 s2_start 11.2 s2_end 0.015 init_sigma 10.4 energy_max 25 "
      "local_noise 1 value_lr 1e-3 lr_half 530 sigma_lr 3e-3 replay 64 refine 20 correct 1" },
    { "gmm40", "fast", 900, 1.0f, false,
      VGS__OURS
      "hidden 128 length_scale 23 steps 60 s2_start 80 s2_end 0.067 init_sigma 33 x_scale 2.3 energy_max 20 "
      "windows 40 value_lr 1e-3 lr_half 350 sigma_lr 1e-2 replay 64 refine 20 correct 1" },
    { "funnel", "fast", 2500, 1.0f, false,
      VGS__OURS
      "hidden 128 length_scale 9 steps 80 s2_start 6 s2_end 1e-3 init_sigma 8 energy_max 200 scale_by_dim 1 "
      "explicit_drift 1 value_lr 7e-4 lr_half 700 sigma_lr 1e-3" },
    { "manywell32", "fast", 350, 1.0f, false,
      VGS__OURS
      "hidden 128 windows 32 x_scale 0.5 length_scale 1.5 steps 80 s2_start 3 s2_end 0.004 init_sigma 6 "
      "scale_by_dim 1 slope_loss 1 value_lr 7e-4 lr_half 100 sigma_lr 1e-3" },
    { "dw4", "fast", 700, 1.0f, false,
      VGS__OURS
      "value egnn hidden 32 length_scale 2.1 steps 80 s2_start 0.22 s2_end 0.0015 init_sigma 2.85 "
      "scale_by_dim 1 value_lr 1e-3 lr_half 200 sigma_lr 1e-3 correct 1" },
    { "lj13", "fast", 160, 1.0f, false,
      VGS__OURS
      "value egnn hidden 24 layers 1 windows 16 x_scale 0.15 length_scale 0.71 steps 200 s2_start 0.0256 "
      "s2_end 5e-5 init_sigma 1.15 energy_max 100 scale_by_dim 1 lambda 0.97 batch 64 slope_loss 1 "
      "value_lr 1e-3 lr_half 64 sigma_lr 1e-3 correct 4" },
    { "lj55", "fast", 600, 1.0f, false,
      VGS__OURS
      "hidden 128 length_scale 1.2 steps 100 s2_start 0.05 s2_end 1e-4 init_sigma 1.5 energy_max 20000 "
      "scale_by_dim 1 wrapper reciprocal x_scale 0.3 lambda 0.97 batch 32 value_lr 1e-3 lr_half 150 "
      "sigma_lr 5e-4" },
};

VGS__DEF vgs_energy vgs_target_energy(const vgs_target *t)
{
    vgs_energy e;
    memset(&e, 0, sizeof e);
    e.eval = t->eval;
    e.user = t->user;
    e.dim = t->dim;
    e.particles = t->particles;
    e.thread_safe = t->builtin != NULL;          /* of a user's own it is not known                   */
    return e;
}

/* "name value name value ..." into the configuration */
static vgs_status vgs__set_fields(vgs_config *cfg, const char *text, vgs_error *err)
{
    char name[32], value[32];
    const char *w = NULL;
    vgs_status st = VGS_OK;
    int k, n;
    for (k = 0; st == VGS_OK && (n = vgs__word(text, k, &w)) > 0; k += 2) {
        snprintf(name, sizeof name, "%.*s", n, w);
        n = vgs__word(text, k + 1, &w);
        snprintf(value, sizeof value, "%.*s", n, w);
        st = vgs_field_set(cfg, name, value, err);
    }
    return st;
}

VGS__DEF vgs_status vgs_preset(const vgs_target *t, const char *preset, vgs_config *cfg,
                               vgs_preset_info *info, vgs_error *err)
{
    size_t i;
    bool known = !strcmp(preset, "paper") || !strcmp(preset, "fast");
    for (i = 0; i < sizeof vgs__presets / sizeof *vgs__presets; ++i) {
        const vgs__preset *p = &vgs__presets[i];
        if (strcmp(p->target, t->name) || strcmp(p->preset, preset)) continue;
        memset(cfg, 0, sizeof *cfg);
        cfg->energy = vgs_target_energy(t);
        if (info) {
            info->iterations = p->iterations;
            info->noise_scale = p->noise_scale;
            info->skip_final_noise = p->skip_final_noise;
        }
        return vgs__set_fields(cfg, p->fields, err);
    }
    if (known) return vgs__fail(err, VGS_E_ARG, "preset = %s: none for the target %s", preset, t->name);
    return vgs__fail(err, VGS_E_ARG, "preset = %.40s: must be fast or paper", preset);
}
#undef VGS__OURS
#undef VGS__AS_PUBLISHED

#ifdef VGS__POP_OPTIONS
#  undef VGS__POP_OPTIONS
#  pragma GCC pop_options
#endif
#ifdef __cplusplus
}
#endif
#endif /* VGS_IMPLEMENTATION */

/* HISTORY
   0.1.0  first version: core, networks, targets, sampler, metrics, files, presets

   LICENCE (MIT)
   Copyright (c) 2026 the vgs.h authors
   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
   associated documentation files (the "Software"), to deal in the Software without restriction, including
   without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
   copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the
   following conditions: The above copyright notice and this permission notice shall be included in all
   copies or substantial portions of the Software.
   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
   LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO
   EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
   IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR
   THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
