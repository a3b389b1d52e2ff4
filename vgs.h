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
       reverse-mode gradients, models and their training, TD learning, exact weights, classical samplers,
       .npy and .safetensors files.

   vgs.h DOES NOT
       call a GPU (another backend may; see >>backend), link anything but libm, start threads of its own
       (OpenMP does, if you compile with it), print, exit, abort, or keep any global state.

   CONTENTS (search for the tag; the gradient of an op is VGS__GRAD(op), or the last argument of its row
   VGS__UNARY(op, ...); a training iteration is vgs__train_iteration, the list of networks VGS__NETS)
       Interface: >>errors >>energy >>sampler >>weights >>checkpoint >>ebm >>mcmc >>files >>graph >>rng
       >>model >>gemm >>backend, then the method and its references
       Implementation: >>util >>math >>rng >>gemm >>graph >>ops >>gradient >>compile >>run >>cpu >>evaluate
       >>config >>model >>mcmc >>frame >>sampler >>value >>policy >>kernel >>rollout >>mala >>fit >>dxdp
       >>logvar >>replay >>score >>life >>draw >>smc >>pilot >>train >>weights >>files >>checkpoint >>ebm

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
       printed. Graph calls keep the first failure; vgs_graph_compile reports it. A pointer may be NULL only
       where its comment says so, and vgs_error always.

   THREADS
       One thread at a time for each object (sampler, graph, backend); different objects are independent,
       but objects that share a backend count as one. An energy callback runs on the calling thread unless
       energy.thread_safe is set.

   REPRODUCIBILITY
       Same build, same machine, same seed: same bits, for any number of threads and however a draw is
       split. Random numbers are functions of (seed, stream, row, step, iteration); every sum has a fixed
       order. A second draw with the same seed therefore has the same noise: give it a seed of its own.
       On a busy machine OMP_WAIT_POLICY=passive avoids waiting for a core that others use.
       Where a compiler computes floats in more than float precision (FLT_EVAL_METHOD 1 or 2: 32-bit x86
       without SSE) results are right, but their bits may depend on threads and split.

   UNITS AND NAMES
       Energies and tau in the same unit; lengths as in x. Arrays are row-major float, [rows, cols].
       B batch, D = dim, n particles, d space dimension, h hidden width, T steps, t step 0..T-1.
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

/* ==== >>energy =====================================================================================
   E(x) of the density exp(-E/tau): a C callback, one in double, or a function that records it into a graph.
   Callback: x [n,dim] -> e [n] and, unless g is NULL, g = dE/dx [n,dim]; returns nonzero to fail. Energies
   in double stay so in path weights, log Z, statistics, vgs_energy_check and classical samplers, where a
   constant of E then costs no digits; training rounds them to float.
   Where E is +infinity or NaN, behind a wall or in a hole, x is outside: its weight is 0, it is never moved
   to, and whatever dE/dx is there is ignored. Minus infinity, and a gradient that is not finite where E is,
   are errors.
   A record function (examples/surrogate.c: one of a model's weights) is called for every graph that needs E,
   with other handles each time: it must record the same ops whenever it is called. Parameters of E belong to
   a vgs_model, whose changes all graphs follow; bare vgs_params it binds by itself (vgs_bind), and
   vgs_sampler_touch says when they have changed. */

typedef struct vgs_backend vgs_backend;                              /* where work is done: >>backend */
typedef struct vgs_model vgs_model;                                  /* a network's weights: >>model  */
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
    vgs_backend *backend;                        /* record: where calls outside of a sampler compute  */
                                                 /* E, that of its models; NULL = a CPU backend       */
} vgs_energy;

/* E of the rows of x [n,dim] into e [n], and dE/dx into g [n,dim] unless NULL. A recorded energy is recorded
   and compiled anew by each call. VGS_E_ARG: no dim, or not exactly one function; VGS_E_ENERGY: the callback
   failed. */
VGS_API vgs_status vgs_energy_eval(const vgs_energy *energy, const float *x, int n, float *e, float *g,
                                   int threads, vgs_error *err);
/* Compares dE/dx with central differences of E at the n points x [n,dim]; *worst is the largest
   |difference| / (1 + |gradient|). VGS_E_NONFINITE names the point and the component. */
VGS_API vgs_status vgs_energy_check(const vgs_energy *e, const float *x, int n, double *worst,
                                    vgs_error *err);

/* ==== >>sampler ====================================================================================
   Noise x_0 ~ N(0, s0^2) becomes a sample x_T of exp(-E/tau) in T steps; the drift of each is the gradient
   of a value network, trained by temporal differences (the method is at the end of the interface). A zeroed
   field takes the default shown; a value out of range is VGS_E_ARG with the field's name. The same names are
   the examples' flags (--s2-start) and the checkpoint's metadata. */

typedef enum vgs_net_kind {
    VGS_NET_MLP,        /* ours: every layer's bias is a function of t                   */
    VGS_NET_TEMB,       /* the four networks of the reference implementation             */
    VGS_NET_DEEPER,
    VGS_NET_DEEPERV2,
    VGS_NET_DEEPERV3,
    VGS_NET_EGNN,       /* messages on squared distances between particles; invariant    */
    VGS_NET_RESNET,     /* convolutions on images, to one number: values and energies    */
    VGS_NET_UNET,       /* convolutions on images, to an image of the same size: policies */
    VGS_NET_AUTOENCODER /* x to code to x, without time                                  */
} vgs_net_kind;

typedef enum vgs_wrapper {
    VGS_WRAPPER_NONE,
    VGS_WRAPPER_SORTED,      /* the network sees sqrt(r^2 + 1) of all pairs, sorted descending */
    VGS_WRAPPER_RECIPROCAL   /* ... 1/sqrt(r^2 + 1)                                            */
} vgs_wrapper;

typedef struct vgs_net_config {
    vgs_net_kind kind;
    int dim;                 /* D, columns of x; required                                       */
    int steps;               /* T, t in 0..T-1; 0 = without time: MLP, autoencoder, images only */
    int out;                 /* MLP: number of outputs, 1; autoencoder, U-Net: dim, with energy 1 */
    int hidden;              /* h; 128, after a pilot in up to 4 dimensions 64; of images       */
                             /* channels, 32, and below the first level 2 h                     */
    int layers;              /* MLP, each half of an autoencoder: hidden layers, 3; EGNN:       */
                             /* message rounds, 2; images: residual blocks of a level, 1        */
    int height, width;       /* images: x is height x width pixels, channels last, row by row;  */
                             /* from dim, a square of 1 or 3 channels                           */
    int levels;              /* images: sizes, each half of the one before; down to 4 pixels    */
    int code;                /* autoencoder: width of its code; dim/2, at most 128              */
    bool unit;               /* autoencoder: code and output are divided by their lengths       */
    bool energy;             /* autoencoder: gives g^2 |x - r|^2, r the reconstruction, in place */
                             /* of r; g is one more weight, out_scale, from 1 on                */
    int time_dim;            /* m, width of the sinusoid: even, >= 4; 64                        */
    int time_hidden;         /* f, width of te in MLP, deeper and deeperv3; hidden              */
    bool relative_time;      /* the sinusoid is of 1000 t/T: a network of other T then fits, too */
    int particles;           /* n, for a wrapper or EGNN                                        */
    vgs_wrapper wrapper;
    bool relu;               /* MLP, autoencoder: ReLU in place of SiLU                         */
    bool move_coordinates;   /* EGNN: layers also move the points                               */
    float x_scale;           /* MLP: the network sees x, or what the wrapper gives, over x_scale; 1 */
    int windows;             /* radial basis functions per input, exp(-(x/w - k)^2/2), w = x_scale, */
                             /* for narrow features; 0. MLP: of each coordinate, centres around 0   */
                             /* (of distances: from 0 up). EGNN: of each distance, beside r^2       */
} vgs_net_config;

typedef enum vgs_schedule {
    VGS_EXP, VGS_LINEAR, VGS_QUAD, VGS_SIGMOID, VGS_CONSTANT,
    VGS_COSINE,         /* VP, of T alone: as denoising diffusion has it [Nichol 2021]           */
    VGS_FASTDPM         /* VP, of T alone: as few steps as 1000 of denoising diffusion have [FastDPM] */
} vgs_schedule;
typedef enum vgs_alpha    { VGS_VE, VGS_VP } vgs_alpha;              /* variance exploding, preserving */
typedef enum vgs_loss { VGS_SMOOTH_L1, VGS_L2, VGS_L1 } vgs_loss;    /* smooth_l1: delta = 1          */

typedef enum vgs_kernel {
    VGS_KERNEL_VALUE,        /* x' = a_t x - mu_t + sigma_t eps, the drift mu_t a gradient of V */
    VGS_KERNEL_POLICY        /* x' = a_t x + m(x,t) + sigma_t eps, m a network with D outputs,  */
                             /* and log sigma_t one more of its weights for each t              */
} vgs_kernel;

typedef enum vgs_learn {     /* what a sampler is trained by: config.objective                  */
    VGS_LEARN_AUTO,          /* td with the kernel of the value, dxdp with a policy             */
    VGS_TD,                  /* V by temporal differences: [VGS]                                */
    VGS_DXDP,                /* V by dynamic programming, then m and sigma_t down V: [DxMI]     */
    VGS_LOGVAR               /* m down the variance of log w, sigma_t fixed: [DIS], [PIS]       */
} vgs_learn;

typedef enum vgs_reference { /* of paths of logvar                                              */
    VGS_DIS,                 /* the noising chain, and x_0 ~ N(0, s0^2 I)                       */
    VGS_PIS                  /* Brownian motion from x_0 = 0, seen from x_T: its bridge         */
} vgs_reference;

typedef enum vgs_coordinates {   /* u of x = m + L u, in which a sampler works, with (E - E0)/tau;        */
                                 /* where the pilot finds a coordinate to end at a wall, whatever the     */
                                 /* others are, m + L u is mapped to what is inside (not of recorded E)   */
    VGS_COORDINATES_AUTO,        /* plain where s2_start, s2_end, init_sigma, x_scale or windows is given, */
                                 /* on a sphere, as published and with the reference networks; else scale  */
                                 /* for particles, full up to D = 128, diagonal above                      */
    VGS_PLAIN,                   /* u = x                                                             */
    VGS_SCALE,                   /* m = 0, L = c                                                      */
    VGS_DIAGONAL,
    VGS_FULL                     /* L is a triangular matrix                                          */
} vgs_coordinates;

typedef struct vgs_stats {        /* after the iterations of a call; from min(batch, 512) draws            */
    int64_t iteration;            /* iterations so far, earlier calls included                             */
    double loss;                  /* mean over the minibatches of the last iteration                       */
    double ess;                   /* ESS/N, likewise                                                       */
    double seconds;               /* wall time of this call of train so far, whole seconds                 */
    double elbo;                  /* lower bound of log Z: the mean log weight of these draws              */
    double energy_mean, energy_median, energy_min, energy_max;       /* true energies of finite samples    */
    double nonfinite;             /* share of samples outside, where the energy is infinite or NaN         */
    const float *outside;         /* NULL, or [dim]: the first of them; the sampler's, until its next ones */
    double clipped;               /* share of samples above energy_max                                     */
    double init_sigma;            /* s0                                                                    */
    double energy_calls;          /* energies evaluated in training so far, rows counted; those of these   */
                                  /* statistics are not among them                                         */
} vgs_stats;

typedef struct vgs_config {
    vgs_energy     energy;        /* E(x); required. A record function's `user` must outlive the sampler   */
    vgs_net_config net;           /* V(x,t); its dim, particles, steps and out are set by the sampler      */
    float  length_scale;          /* std of a coordinate of the samples; 1. Where there is a pilot: how    */
                                  /* far from 0 it begins, a hint                                          */
    float  detail_scale;          /* width of the finest feature; length_scale/10. The two set s2_start,   */
                                  /* s2_end and steps                                                      */
    vgs_coordinates coordinates;  /* unless plain, s2_start, s2_end, init_sigma, x_scale and what follows  */
                                  /* from them are lengths in u; all that comes in or out is in x          */
    int    pilot_calls;           /* energy calls of the pilot, a short classical run at the first call of */
                                  /* train, which finds m, L, E0 and what is not given here; 20000, none   */
                                  /* if negative or coordinates are plain (as text: 0). Where ESS/N stays  */
                                  /* below 0.3 its chains go on in iterations 25, 50, 100, 200 and 400,    */
                                  /* each time by as many calls as were made before                        */
    int    steps;                 /* T; D ln(length/detail)^2, within 20..100                              */
    vgs_schedule schedule;        /* of s_t^2 over t; VGS_EXP                                              */
    float  s2_start, s2_end;      /* s_t^2 at t = 0 and T-1, > 0, < 1 if VP; from the two scales           */
    vgs_alpha alpha;              /* VGS_VE                                                                */
    float  init_sigma;            /* s0 at first; sqrt(1 + sum s_t^2) if VE, 1 if VP                       */
    float  tau;                   /* temperature, in energy units; 1                                       */
    int    batch;                 /* B, trajectories of an iteration; 128                                  */
    int    passes;                /* over the B T transitions of an iteration; 1                           */
    float  value_lr;              /* learning rate of V (Adam); 5e-4                                       */
    float  lr_half;               /* iterations in which value_lr halves; 0 = it stays                     */
    float  sigma_lr;              /* learning rate of s0 (Adam); 0 = s0 stays                              */
    float  target_ema;            /* in [0,1): share of the old target network that each iteration keeps;  */
                                  /* 0.9 (0 if published; for none pass 1e-30)                             */
    float  lambda;                /* TD(lambda), in (0,1]: how far a target follows the trajectory before  */
                                  /* it trusts Vbar; 0.9 (0 if published)                                  */
    float  explore;               /* factor on the noise of the first k steps in training, k random for    */
                                  /* each iteration; on that of all steps if published; 1                  */
    int    replay;                /* iterations whose samples are kept, to start from again: keeps rare    */
                                  /* modes; 0 = none. Not with published                                   */
    int    refine;                /* MALA steps on E that samples take before they are kept; 0             */
    int    correct;               /* MALA steps on V_t before each step of a draw, one gradient each. 0:   */
                                  /* 2 where measured to pay after a pilot, else none; none if negative    */
                                  /* (as text: 0). Only where there are weights; training and vgs_stats    */
                                  /* take none                                                             */
    float  slope_loss;            /* weight of the loss of grad V, beside that of V: for many dimensions;  */
                                  /* 0. Not with published, explicit_drift or explore                      */
    float  denoise_loss;          /* weight of the loss of grad V on kept samples that the noising chain   */
                                  /* takes back, in half of the iterations; 0: 1 after a pilot, else none  */
    vgs_loss loss;                /* of the TD error; VGS_SMOOTH_L1                                        */
    float  energy_max;            /* E is cut here in the target and in the last drift: for energies that  */
                                  /* are enormous in places; 0 = not cut (to cut at 0 pass 1e-30). Walls   */
                                  /* of +infinity or NaN need none                                         */
    float  drift_max;             /* limit of |mu_t| in units of s_t a_t sqrt(D); 1.5 (none: 1e30). With   */
                                  /* A = s_t^2 a_t^2 and curvature k of V, TD is unstable where A k > 1    */
    float  grad_max;              /* limit of the global gradient norm; 1 (none: 1e30)                     */
    vgs_kernel kernel;            /* VGS_KERNEL_VALUE. The next are of a policy; coordinates are then plain */
    vgs_learn objective;          /* auto                                                                  */
    vgs_net_config policy;        /* m(x,t): an mlp or U-Net; its dim, out (D) and steps are set by the    */
                                  /* sampler                                                               */
    float  policy_lr;             /* learning rate of m (Adam); 5e-4                                       */
    float  step_sigma_lr;         /* dxdp: of log sigma_t; 100 policy_lr, without entropy, which alone     */
                                  /* holds sigma_t up, none (1e-30)                                        */
    float  policy_ema;            /* share of the averaged policy, which draws go by, that each iteration  */
                                  /* keeps; 0.999 (none: 1e-30)                                            */
    float  policy_grad_max;       /* limit of the gradient norm of the policy, sigma_t included; 0.1       */
                                  /* (none: 1e30)                                                          */
    int    policy_steps;          /* dxdp: policy steps of an iteration, of B transitions each; 1          */
    float  entropy_tau;           /* dxdp: tau of the entropy; tau (none: 1e-30)                           */
    float  velocity_tau;          /* dxdp: tau of |x_{t+1} - x_t|^2/(2 v_t); tau (none: 1e-30)             */
    bool   fresh_targets;         /* dxdp: x_{t+1} of a target is drawn anew by the policy as it is        */
    vgs_reference reference;      /* logvar: VGS_DIS                                                       */
    bool   drift_energy;          /* logvar: m sees grad E, limited by drift_max, times a learned factor   */
    bool   published;             /* the algorithm of [VGS]: see the method, at the end of the interface   */
    bool   fixed_kernel;          /* kappa_t = rho_t = 1, as published; else both are learned, for each    */
                                  /* dimension, but for particles one pair a step                          */
    bool   explicit_drift;        /* mu_t from grad V_{t+1}(a_t x_t), as published; else grad V_t(x_t)     */
    bool   local_noise;           /* eps has a covariance that depends on x_t: fewer steps do, for dim     */
                                  /* more gradients and dim^2 numbers each. Not with published,            */
                                  /* fixed_kernel or explicit_drift                                        */
    int    energy_features;       /* points at which V is given E, around where the base expects x_T: V    */
                                  /* then knows what E knows, for as many energy gradients in every step   */
                                  /* of a draw. 0: the pilot decides; none if negative (as text: 0), or    */
                                  /* coordinates are plain                                                 */
    bool   scale_by_dim;          /* the network gives V/D                                                 */
    bool   on_sphere;             /* |x| = 1, moves along great circles, a_t = 1, x_0 uniform; implies     */
                                  /* published. log Z refers to the area. |mu_t| ends at pi                */
    uint64_t seed;                /* of weights, noise and shuffles: the same seed gives the same training */
                                  /* and, unless vgs_draw.seed is set, the same draws                      */
    int    threads;               /* of the built-in backend: 0 = all; > 1 needs -fopenmp                  */
    vgs_backend *backend;         /* NULL = a CPU backend of the sampler's own                             */
    float  target_ess;            /* train ends when ESS/N of 10000 draws reaches this, and tries what     */
                                  /* helps on the way; in (0,1), 0 = it makes all n iterations. Needs a    */
                                  /* pilot                                                                 */
    double minutes;               /* wall time after which a call of train ends; 0 = no limit              */
    int  (*progress)(void *user, const vgs_stats *stats);            /* after every iteration: its number, */
                                  /* and elbo and ess when last measured; nonzero cancels                  */
    void  *progress_user;
} vgs_config;

typedef struct vgs_pilot {        /* what the pilot found                                              */
    double energy_calls;
    double energy_offset;         /* E0, in units of E                                                 */
    double energy_limit;          /* (E - E0)/tau that no sample comes near                            */
    double detail;                /* width of the finest feature over that of all, along an axis of u  */
    double rhat;                  /* how far its chains spread together over how far each does alone,  */
                                  /* at worst: above 1.2 they disagree                                 */
    int    steps, rows;           /* T that follows; samples that it leaves                            */
} vgs_pilot;

typedef struct vgs_sampler vgs_sampler;
VGS_API vgs_sampler *vgs_sampler_create(const vgs_config *cfg, vgs_error *err);
VGS_API void         vgs_sampler_free  (vgs_sampler *s);             /* NULL is fine                  */
/* n >= 0 more iterations; stats may be NULL. VGS_E_NONFINITE names row and step of the first energy that is
   minus infinity, or has a gradient that is not finite, with value and x; or it says that all rows are
   outside. Nothing is learned from it, and the sampler can still be used. VGS_E_CANCELLED keeps what is
   done. */
VGS_API vgs_status   vgs_sampler_train (vgs_sampler *s, int n, vgs_stats *stats, vgs_error *err);

typedef struct vgs_draw {
    uint64_t seed;                /* 0 = the sampler's. A draw is a function of weights, seed and row (and */
                                  /* with `correct` of config.seed): the same seed repeats its noise.      */
                                  /* If draws feed training, give each iteration another seed              */
    const float *start;           /* NULL, or [n,dim]: x_0, in place of noise; without weights, but on a   */
                                  /* sphere with them: they are even where the first steps forget x_0      */
    uint32_t first_row;           /* number of the first row: rows 64..127 can be drawn by themselves      */
    float    noise_scale;         /* c on every noise; 1, the sampler itself; below 1 is colder, biased    */
    bool     skip_final_noise;
    float   *path;                /* NULL, or [steps + 1, n, dim]: out, all x_t, where step t begins       */
    float   *energy;              /* NULL, or [n]: out, E(x_T), not cut; log_weight has eval64's digits    */
    double  *log_weight;          /* NULL, or [n]: out, log w; E[w] = Z (vgs_weigh). Only of the sampler   */
                                  /* itself: noise_scale 1, final noise on                                 */
    float    resample;            /* 0, or a share of n in (0,1]: twisted SMC, below. Needs log_weight     */
    int      correct;             /* MALA steps in front of every step: 0 = the configuration's, where     */
                                  /* there are weights; -1 = none                                          */
} vgs_draw;

/* n samples into x [n,dim]; draw may be NULL. E is evaluated at n rows, with energy or log_weight at 2 n.
   With `correct` MALA's step sizes are fitted at the first draw after training or loading, on 128 rows that
   only weights and config.seed decide: exactness wants them to know nothing of the rows drawn.
   With `resample` the n rows are one population. Before step t a row has its weight so far times
   exp(-V_t(x_t)/tau), what is still to come according to the value; when the ESS of these weights falls below
   resample n, the rows are resampled (systematically) and get equal weight. mean(w) is unbiased for Z
   as before (a bad V only makes it worse), and mean(log w) a lower bound. Rows of one call then share
   ancestors: ess counts them as different, and only several calls with other first_row, which are
   independent, give error bars (vgs_weigh makes 20 blocks: let the calls be these). A draw that is split in
   parts is another one. VGS_E_ARG with path: rows have no path of their own. */
VGS_API vgs_status vgs_sampler_draw(vgs_sampler *s, const vgs_draw *draw, int n, float *x, vgs_error *err);

/* The opposite direction: from samples of the target, ref [n,dim] (particles: their mean is taken off), the
   noising chain makes paths back to x_0. log_weight [n], out, is log w of these paths, as exact as that of a
   draw; E[1/w] = 1/Z over them, and mean(log w) >= log Z: vgs_weigh_forward. A mode that the sampler misses
   lowers w there, which a draw cannot see. draw may be NULL; seed, first_row, path and correct count. E is
   evaluated at 2 n rows. VGS_E_NONFINITE names the row of ref that has a NaN; VGS_E_ARG where a draw has no
   log_weight. */
VGS_API vgs_status vgs_sampler_score(vgs_sampler *s, const vgs_draw *draw, int n, const float *ref,
                                     double *log_weight, vgs_error *err);

/* V_t(x) in energy units at x [n,dim] into v [n], and dV_t/dx into g [n,dim] unless NULL; t in 0..steps-1. It
   is that of the target network, which draws go by. V_t = -tau log(density of x_t) - tau log Z if exact. */
VGS_API vgs_status vgs_sampler_value(vgs_sampler *s, int t, const float *x, int n, float *v, float *g,
                                     vgs_error *err);

/* A training iteration in its parts, as training an energy by its samples needs it: roll out, take the
   samples as negatives, update the energy, fit the value to the new energy along these trajectories. A call
   of train with n = 1 is a rollout from noise and a fit.
     rollout  B trajectories with Vbar: from noise (x_0 ~ N(0, s0^2 I), or the detours of explore and
              replay), from the rows start [batch,dim], or from what is in place at t = 0
     bind     `leaf` [B,dim] of a graph on the sampler's backend is x_t of the last rollout, t in 0..steps:
              to be read or, at t = 0, to be assigned to. It stays so for later rollouts, as long as the
              sampler lives. Coordinates must be plain
     fit      TD targets with the energy as it is now, all passes, then Vbar; and, if x_0 was noise, also s0
              and the replay store
   VGS_E_NONFINITE: as in training. */
typedef enum vgs_start { VGS_START_NOISE, VGS_START_ROWS, VGS_START_PLACED } vgs_start;
VGS_API vgs_status vgs_sampler_rollout(vgs_sampler *s, vgs_start from, const float *start, vgs_error *err);
VGS_API vgs_status vgs_sampler_bind   (const vgs_sampler *s, vgs_graph *g, vgs_var leaf, int t,
                                       vgs_error *err);
VGS_API vgs_status vgs_sampler_fit    (vgs_sampler *s, vgs_error *err);
VGS_API vgs_status vgs_sampler_stats  (vgs_sampler *s, vgs_stats *stats, vgs_error *err);  /* as train's  */

/* The energy has changed. Of parameters that it has bound by itself: what was computed from them alone is
   computed again, and without this call the next one on the sampler is VGS_E_ARG. Of a callback, whose change
   nothing shows: the next call of train forgets what it measured by the energy of before. A vgs_model needs
   none of this. In coordinates that are not plain training then goes on from V and the coordinates as they
   are; the best state, replay, learning rate and, after 25, 50, ... more iterations, the pilot begin anew. */
VGS_API vgs_status vgs_sampler_touch(vgs_sampler *s, vgs_error *err);

/* The model Vbar is what draws go by: read its weights, or write others. Training goes on from V, the network
   that learns, which Vbar follows. */
VGS_API const vgs_config *vgs_sampler_config(const vgs_sampler *s);  /* resolved                      */
VGS_API int64_t    vgs_sampler_iteration(const vgs_sampler *s);
VGS_API const vgs_pilot *vgs_sampler_pilot(const vgs_sampler *s);    /* NULL: there was none (yet)    */
VGS_API bool       vgs_sampler_reached  (const vgs_sampler *s);      /* target_ess, when last measured */
VGS_API size_t     vgs_sampler_bytes    (const vgs_sampler *s);      /* memory it holds on its backend */
/* m and "log_sigma" [T,1] of the kernel, owned by s: the weights that learn, or their average, which draws go
   by. NULL: the kernel is that of the value. */
VGS_API vgs_model *vgs_sampler_policy   (vgs_sampler *s, bool average);
VGS_API vgs_model *vgs_sampler_model    (vgs_sampler *s);            /* Vbar, below; owned by s       */

/* Defaults filled in. err tells the first field that is out of range. */
VGS_API vgs_status vgs_config_resolve(const vgs_config *cfg, vgs_config *resolved, vgs_error *err);

/* The fields as text, for flags, files and tables: steps, s2_start, ..., and the net's: value, hidden, ...
   Past the last one the texts are empty. */
VGS_API const char *vgs_field_name(int i);                           /* NULL past the last one        */
VGS_API int         vgs_field_find(const char *name);                /* by an old name, too; -1: none */
VGS_API const char *vgs_field_help(int i);
VGS_API void        vgs_field_allowed(int i, char text[64]);         /* "1..65535", "> 0", "ve vp"    */
VGS_API vgs_status  vgs_field_set (vgs_config *cfg, const char *name, const char *value, vgs_error *err);
VGS_API void        vgs_field_get (const vgs_config *cfg, int i, char text[32]);

/* s2 [steps], a [steps], both out, or NULL; returns the s0 that training starts from. */
VGS_API double vgs_schedule_fill(const vgs_config *resolved, float *s2, float *a);

/* ==== >>weights ====================================================================================
   What the path weights of a draw say of log Z, and whether they can be trusted. */

/* What path weights say (vgs_draw.log_weight): E[w] = Z. At a small ess all of these are wrong by more than
   their errors tell, and a mode that is never drawn is not missed by them: log_z and ess are then those of
   the rest. khat is the shape of a generalised Pareto fitted to the largest weights [PSIS]: below 0.5 w has a
   variance, above 0.7 no error bar can be trusted; at most 2 log(largest/where the tail begins)/log(number in
   the tail), for weights that are almost equal. An infinite se or khat: n is too small to tell. Weights of
   0 (log w = -inf) are rows outside, where E is infinite; if all are, log_z and elbo are -inf. Never NaN. */

/* Can weighted samples be used? One rule, for sentences, programs and users:
     unknown     fewer than 25 rows, or a tail of fewer than five different weights
     unusable    ess below 0.03, or khat above 0.7, or reverse and forward log Z disagree (by more than five
                 error bars and 0.02): all that they say may be wrong by far more than its error
     caution     ess below 0.1; or blocks of rows disagree (log Z +- more than 0.2); or the tail is heavy:
                 khat is above 0.5, and by more than two of its errors above sqrt(-log ess)/z, that of
                 log-normal weights with this ess (z: the normal quantile of the tail's middle). Then log Z is
                 too low by more than its error: a body that fits hides tails that are hardly reached
     usable      else */
typedef enum vgs_verdict {
    VGS_VERDICT_UNKNOWN, VGS_VERDICT_UNUSABLE, VGS_VERDICT_CAUTION, VGS_VERDICT_USABLE
} vgs_verdict;
VGS_API const char *vgs_verdict_name(vgs_verdict v);     /* "unknown", "unusable", "caution", "usable" */

typedef struct vgs_weights {
    double log_z, log_z_se;       /* log mean w, never too high on average; error from 20 blocks      */
    double elbo, elbo_se;         /* mean log w, or log P + its mean over the rows inside; <= log Z   */
    double ess;                   /* (sum w)^2 / (n sum w^2), in [1/n, 1]: share of rows that count   */
    double khat;                  /* Pareto shape of the largest min(n/5, 3 sqrt n) weights           */
    int    n;
    double inside;                /* P, share of rows with a weight above 0: where E is finite        */
    vgs_verdict verdict;          /* of these alone; with samples of the target: vgs_weights_verdict  */
} vgs_weights;
VGS_API vgs_status vgs_weigh(const double *log_weight, int n, vgs_weights *out, vgs_error *err);

/* The same from samples of the target (vgs_sampler_score), E[1/w] = 1/Z. ess and khat are those of 1/w. */
typedef struct vgs_forward {
    double log_z, log_z_se;       /* -log mean(1/w), never too low on average                         */
    double eubo, eubo_se;         /* mean log w >= log Z                                              */
    double ess, khat;
    int    n;
    double inside;                /* P of the draws, which log_z and eubo know of: 1 if not given     */
} vgs_forward;
VGS_API vgs_status vgs_weigh_forward(const double *log_weight, int n, vgs_forward *out, vgs_error *err);
/* The same of a sampler of whose draws w tells, some of them outside: paths from samples of the target miss
   these, E[1/w] = P/Z, so that log_z and eubo are higher by log P, with its error. VGS_E_ARG: all are. */
VGS_API vgs_status vgs_weigh_forward_inside(const double *log_weight, int n, const vgs_weights *w,
                                            vgs_forward *out, vgs_error *err);

/* The rule above on both, or on one (the other NULL); and in one sentence: what is wrong, if something is?
   "reverse and forward log Z disagree by 2.1 nats: part of the target is not reached, 88 % of its mass" */
VGS_API vgs_verdict vgs_weights_verdict(const vgs_weights *w, const vgs_forward *f);
VGS_API void vgs_weights_say(const vgs_weights *w, const vgs_forward *f, char text[200]);

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
/* Into a sampler of the same network and steps, or one that leaves to a pilot what the file's pilot has
   chosen: names and shapes are checked, nothing is changed on failure.
   A state_dict without our extras gives weights, schedule and s0; value_on defaults to value. */
VGS_API vgs_status vgs_sampler_load(vgs_sampler *s, const char *path, vgs_error *err);

/* The same for one model: its arrays under their names and, once it was trained, Adam's moments under
   vgs.adam_m. and vgs.adam_v. before these. A file without moments resets them. */
VGS_API vgs_status vgs_model_save(const vgs_model *m, const char *path, vgs_error *err);
VGS_API vgs_status vgs_model_load(vgs_model *m, const char *path, vgs_error *err);
#endif

/* ==== >>ebm ========================================================================================
   An energy-based model: E of the density exp(-E/tau)/Z is learned from data. In an iteration E falls where
   a batch of data lies and rises where as many negatives lie, by one step of Adam down
       loss = mean e+ - mean e- + gamma (mean e+^2 + mean e-^2),   e = E/divide,
   and then the sampler that made the negatives is fitted to the new E. The objectives differ in these:
       cd            data taken back by the noising chain, and T steps of VGS from there   [VGS] section 4
       gcd           VGS from noise: it samples the density itself                         [GCD]
       langevin      Langevin steps on E from noise, on the sphere from where cd starts
       persistent    Langevin steps on from the negatives of before                        [PCD]
       none          where cd starts, without a sampler: what sampling adds shows beside it
       discrepancy   no negatives: mean log(w/M + 1/M sum_j exp((E(x) - E(x_j))/tau)), x_j = x with noise
                     that all share and noise of its own, each of variance ed_variance      [ED]
       dxmi          a policy from noise, in few steps: as gcd, but the sampler's kernel is a policy, which
                     learns by dxdp, after pretraining as a denoising diffusion model       [DxMI]
   With gamma the fixed point has pi/p = (1 + 2 gamma e)/(1 - 2 gamma e): a density wants it small, a score
   needs it only as the brake that ends the growth of E. E of an autoencoder is g^2 |x - r|^2/tau_e; of other
   networks it is what they give, with dxmi times tau sqrt(D/2).
   Rows on the sphere (sampler.on_sphere) are divided by their lengths, and r has length 1. */

/* Copies the n rows of these numbers, in any order and some perhaps twice, to x [n,dim]; nonzero fails. */
typedef int vgs_rows_fn(void *user, const int64_t *row, int n, int dim, float *x);

typedef struct vgs_data {                        /* rows to learn from                                */
    const float *x;                              /* [rows,dim] in memory, borrowed; or                */
    vgs_rows_fn *read;                           /* ... read when they are needed, with `user`        */
    void   *user;
    int64_t rows;                                /* up to 2^30                                        */
    int     dim;
} vgs_data;

/* E(x) [B,1] of x [B,dim], with the weights of `model`: those that learn, or their average. */
typedef vgs_var vgs_ebm_record(void *user, vgs_graph *g, vgs_model *model, vgs_var x);

typedef enum vgs_objective {
    VGS_OBJECTIVE_AUTO,                          /* gcd, on the sphere cd                             */
    VGS_CD, VGS_GCD, VGS_LANGEVIN, VGS_PERSISTENT, VGS_NO_SAMPLER, VGS_DISCREPANCY, VGS_DXMI
} vgs_objective;

typedef enum vgs_starts {        /* where negatives start                                             */
    VGS_STARTS_AUTO,             /* as the objective says above                                       */
    VGS_STARTS_DATA,             /* data taken back by all T moves of the noising chain               */
    VGS_STARTS_NEAR,             /* data less far: by start_code, start_degrees or start_steps        */
    VGS_STARTS_NOISE,            /* x_0 of the sampler, or of length_scale                            */
    VGS_STARTS_STORE             /* the negatives of before; cd takes them back as it does data       */
} vgs_starts;

typedef struct vgs_ebm_config {
    vgs_net_config net;           /* E(x): an mlp or an autoencoder without time; its dim is required       */
    vgs_ebm_record *record;       /* NULL, or E as you record it                                            */
    void      *user;              /* first argument of record                                               */
    vgs_model *model;             /* record: the weights that learn, borrowed, on sampler.backend           */
    vgs_config sampler;           /* of the negatives: batch, steps, tau, on_sphere, seed, backend ...; its */
                                  /* energy is set here; of VE init_sigma, if 0, follows from length_scale  */
                                  /* and the noise of the chain                                             */
    vgs_objective objective;
    vgs_starts starts;
    float gamma;                  /* weight of the squares; cd, none: 1, else 0.01 (for none pass 1e-30)    */
    int   divide;                 /* e = E/divide; cd and on the sphere D, else 1                           */
    float tau_e;                  /* autoencoder: E = g^2 |x - r|^2/tau_e; 0.1                              */
    float base_std;               /* mlp in R^D: tau |x|^2/(2 base_std^2) is added, so that there is a Z; */
                                  /* 1.5 length_scale (none: 1e30)                                          */
    float lr;                     /* Adam step of E; cd 1e-4, else 1e-3                                     */
    float lr_end;                 /* share of lr that is left after `decay` iterations; 0.01                */
    int   decay;                  /* iterations in which lr falls to that linearly; 0 = it stays            */
    float grad_max;               /* limit of the gradient norm of E; cd none, else 1 (none: 1e30)          */
    float ema;                    /* share of the averaged weights that each iteration keeps; 0.99 (for   */
                                  /* none pass 1e-30)                                                       */
    float limit;                  /* |e| above it ends training with an error; 10000                        */
    int   rounds;                 /* VGS: rollouts and fits of the sampler for each step of E; 1            */
    float start_code;             /* near, autoencoder: noise on the code over its length; 0.3              */
    float start_degrees;          /* near, on the sphere: about this far from the data                      */
    int   start_steps;            /* near: moves of the noising chain, its last; T/5                        */
    int   store;                  /* batches that are kept to start from; persistent 8, else 2              */
    float reinit;                 /* persistent: share of the kept that noise replaces each time; 0.05      */
    int   langevin_steps;         /* 20                                                                     */
    float langevin_step;          /* h of x - h/2 grad E/tau + sqrt(h) eps; detail_scale^2/4, on the sphere */
                                  /* s2_end                                                                */
    float ed_variance;            /* discrepancy: detail_scale^2, on the sphere s2_end                      */
    float ed_weight;              /* discrepancy: w; 1                                                      */
    int   ed_samples;             /* discrepancy: M; 16                                                     */
    float policy_tau;             /* dxmi: tau of entropy and velocity for each dimension: sampler.tau,     */
                                  /* entropy_tau and velocity_tau are policy_tau/D where they are 0; 0.1    */
                                  /* (none: 1e-30; tau is then that of 0.1)                                 */
    bool  shared;                 /* dxmi: V and E are one network, E = V_T: that of sampler.net at t = T;  */
                                  /* of net only dim is given then, the rest follows                [DxMI]  */
    int   fit;                    /* iterations of pretraining: of E as an autoencoder, with dxmi of the    */
                                  /* policy as a denoising diffusion model; 0                               */
    float fit_lr;                 /* Adam step at first, falling to 0 as a cosine; 1e-3                     */
} vgs_ebm_config;

typedef struct vgs_ebm_stats {    /* of the batch, the starts and the negatives of the last iteration, with */
    int64_t iteration, fitted;    /* E as it is now; NaN where the objective has no such thing. fitted: of  */
    double  loss;                 /* pretraining                                                            */
    double  e_data, e_start, e_draws;            /* mean e                                                  */
    double  gamma_share;          /* of the weights +-1 + 2 gamma e of the rows in the gradient, gamma's    */
    double  scale;                /* g                                                                      */
    double  drift_first, drift_last;             /* mean |mu_t| of VGS at t = 0, T-1, over sigma_t sqrt(D)  */
    double  start_distance;       /* mean, from a row of data to the start made of it: Euclidean, on the    */
    double  draw_distance;        /* sphere degrees; and from the start to the negative                     */
    double  spread;               /* std of all negatives over that of the data: 0 if they are all alike    */
} vgs_ebm_stats;

typedef struct vgs_ebm vgs_ebm;
VGS_API vgs_ebm    *vgs_ebm_create(const vgs_ebm_config *cfg, vgs_error *err);
VGS_API void        vgs_ebm_free  (vgs_ebm *m);                      /* NULL is fine                  */
/* n >= 0 more iterations, batch by batch through epochs of shuffled rows; what does not fill a batch is left
   out. Nothing is allocated, and nothing moved but data rows and an error flag. stats may be NULL, and take
   three passes of E. VGS_E_NONFINITE: a row that is NaN, by its number; an energy that is not finite, or
   above `limit`: its weights are then as before. VGS_E_ARG: a row of length 0 on the sphere; fewer rows than
   a batch. VGS_E_CANCELLED: sampler.progress. */
VGS_API vgs_status  vgs_ebm_train (vgs_ebm *m, const vgs_data *data, int n, vgs_ebm_stats *stats,
                                   vgs_error *err);
/* n >= 0 iterations of pretraining, before the first of training, down the mean over a batch, which of the
   last one is *loss unless NULL: as an autoencoder of |x - r|^2; with dxmi of |eps - net(x_t, t)|^2/D, x_t
   the noising chain's with noise eps, t any step [DDPM]. After the last of `fit` iterations sigma_t is the
   deviation of x_{t+1} given x_t and x_T. fit_end: pretraining ends here, and fit becomes what was made. */
VGS_API vgs_status  vgs_ebm_fit   (vgs_ebm *m, const vgs_data *data, int n, double *loss, vgs_error *err);
VGS_API vgs_status  vgs_ebm_fit_end(vgs_ebm *m, vgs_error *err);
/* E by the averaged weights of x [n,dim] into e [n]. */
VGS_API vgs_status  vgs_ebm_score (vgs_ebm *m, const float *x, int n, float *e, vgs_error *err);
/* n rows of what the negatives come from into x [n,dim]: the sampler's draws, which path, energy and
   log_weight may be asked of, too; without VGS `langevin_steps` of Langevin (none, discrepancy: 1000), where
   seed and first_row of draw count. Starts that are made of data are taken from the last `store` batches of
   them. draw may be NULL. */
VGS_API vgs_status  vgs_ebm_sample(vgs_ebm *m, const vgs_draw *draw, int n, float *x, vgs_error *err);
/* After training: the averaged weights become those that the sampler goes by, so that draws and their path
   weights are of the same E as scores. */
VGS_API vgs_status  vgs_ebm_average(vgs_ebm *m, vgs_error *err);

VGS_API const vgs_ebm_config *vgs_ebm_settings(const vgs_ebm *m);    /* resolved                      */
/* `decay` is n >= 0 from here on, 0 = lr stays: lr is then what it would be had n been given at the start,
   which may be far below what it was. For who ends training by the clock. */
VGS_API void         vgs_ebm_decay    (vgs_ebm *m, int n);
VGS_API int64_t      vgs_ebm_iteration(const vgs_ebm *m);
VGS_API int64_t      vgs_ebm_fitted   (const vgs_ebm *m);            /* iterations of pretraining     */
VGS_API size_t       vgs_ebm_bytes    (const vgs_ebm *m);            /* memory it holds on its backend */
VGS_API vgs_sampler *vgs_ebm_sampler  (vgs_ebm *m);                  /* owned by m; NULL: not VGS     */
VGS_API vgs_model   *vgs_ebm_model    (vgs_ebm *m, bool average);    /* owned by m, or yours          */
VGS_API vgs_energy   vgs_ebm_energy   (vgs_ebm *m);                  /* E by the averaged weights, for */
                                                 /* vgs_energy_eval, vgs_mcmc and graphs on its backend */

/* Defaults filled in; err tells the first field that is out of range, or a combination without sense. */
VGS_API vgs_status  vgs_ebm_config_resolve(const vgs_ebm_config *cfg, vgs_ebm_config *resolved,
                                           vgs_error *err);
/* The fields of E as text, as vgs_field_name and the others; in checkpoints "energy_" precedes them. */
VGS_API const char *vgs_ebm_field_name(int i);                       /* NULL past the last one        */
VGS_API int         vgs_ebm_field_find(const char *name);            /* -1: none                      */
VGS_API const char *vgs_ebm_field_help(int i);
VGS_API void        vgs_ebm_field_allowed(int i, char text[64]);
VGS_API vgs_status  vgs_ebm_field_set(vgs_ebm_config *cfg, const char *name, const char *value,
                                      vgs_error *err);
VGS_API void        vgs_ebm_field_get(const vgs_ebm_config *cfg, int i, char text[32]);

#ifndef VGS_NO_STDIO
/* One file: E's averaged weights under their own names, which for an autoencoder are those of the reference
   implementation (encoder.net.0.weight, ..., out_scale); learned.* and Adam's moments vgs.energy_*; the
   sampler as vgs_sampler_save has it; the kept starts; all fields. Training goes on from it bit for bit. */
VGS_API vgs_status  vgs_ebm_save(const vgs_ebm *m, const char *path, const char *const *meta,
                                 vgs_error *err);
/* Into a model of the same configuration; nothing is changed on failure. A state_dict of the reference's
   energy, its names with or without "state_dict." before them, gives the weights alone; without out_scale,
   which the reference's pretraining does not save, it is 1. VGS_E_FORMAT names any other that is missing. */
VGS_API vgs_status  vgs_ebm_load(vgs_ebm *m, const char *path, vgs_error *err);
/* dxmi, before any iteration: the averaged policy of a file of another run, which may have another T where
   both have the schedule cosine, in place of pretraining. VGS_E_SHAPE: another network. VGS_E_ARG: its
   pretraining is not done. */
VGS_API vgs_status  vgs_ebm_load_policy(vgs_ebm *m, const char *path, vgs_error *err);
/* Overwrites the fields of cfg that the file's metadata has; *count tells how many (0: not from us). */
VGS_API vgs_status  vgs_ebm_checkpoint_config(const char *path, vgs_ebm_config *cfg, int *count,
                                              vgs_error *err);
#endif

/* ==== >>mcmc =======================================================================================
   Classical samplers of exp(-E/tau) for any energy, as baseline, reference and refinement.
   All chains move at once, so that a callback sees many rows. A zeroed field takes the default shown.

   hmc         leapfrog steps from a fresh momentum, then accept or stay [Neal 2011]; their number is uniform
               in 1..2 leapfrog - 1, so that no period resonates
   mala        one such step: Langevin with the right density [Roberts and Tweedie 1996]
   metropolis  a normal step in all coordinates; needs no gradient
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
   level, iteration): the result does not depend on threads. */

typedef enum vgs_mcmc_method { VGS_HMC, VGS_MALA, VGS_METROPOLIS, VGS_LMC, VGS_PT } vgs_mcmc_method;
VGS_API const char *vgs_mcmc_method_name(int i);         /* "hmc", "mala", ...; NULL past the last one */

typedef struct vgs_mcmc_config {
    vgs_energy   energy;          /* E(x), of any kind; required                                     */
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
    uint64_t     seed;            /* of all its random numbers: the same seed gives the same chains   */
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
    int    levels, chains;        /* levels: pt, else 1                                               */
    double log_z, log_z_se;       /* pt, else NaN; error from the ladders                             */
    double barrier;               /* pt: sum of the neighbours' rates of refusal, about Lambda        */
    double round_trips;           /* pt: replicas that went from N to the target and back             */
    double round_trip_rate;       /* pt: ... per iteration and ladder; 1/(2 + 2 barrier) at best      */
    double log_z_half[2];         /* pt: of the first and the second half of the iterations           */
    double stone_khat;            /* pt: the largest khat of the stones' weights, as in vgs_weights   */
                                  /* but without its limit; NaN if all weights of each are alike      */
    vgs_verdict verdict;          /* below                                                            */
} vgs_mcmc_stats;

/* The verdict, and why, in one sentence. Chains agree on every mode's share, in both halves, if R-hat is 1.
     unknown     R-hat has no value: fewer than 4 rows of a chain, or all of a kind
     unusable    R-hat above 1.1: chains have not found the same modes, or not in the same shares; or, of pt,
                 stone_khat above 0.7: a few states decide log Z
     caution     R-hat above 1.01; ESS below 100; of pt, fewer round trips than ladders, whose replicas are in
                 the modes that they began in, or halves of log Z that differ by more than 0.02 and by more
                 than eight error bars (four of their difference, which has twice the whole's)
     usable      else. A mode that no chain has found is missed by all of these. */
VGS_API void vgs_mcmc_say(const vgs_mcmc_stats *s, char text[200]);

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

/* ==== >>files ======================================================================================
   Arrays as NumPy's .npy and named tensors as .safetensors: both open in Python without us.
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

/* .npy: x is [rows,cols] in C order. Reads '<f4' and '<f8' (which must fit a float), 2-D in C or Fortran
   order, or 1-D as [n,1]. */
VGS_API vgs_status vgs_npy_write(const char *path, const float *x, int rows, int cols, vgs_error *err);
VGS_API vgs_status vgs_npy_read(const char *path, float **x, int *rows, int *cols, vgs_error *err);

typedef enum vgs_dtype {
    VGS_DTYPE_F32, VGS_DTYPE_F64, VGS_DTYPE_F16, VGS_DTYPE_BF16,
    VGS_DTYPE_I64, VGS_DTYPE_I32, VGS_DTYPE_I16, VGS_DTYPE_I8,
    VGS_DTYPE_U64, VGS_DTYPE_U32, VGS_DTYPE_U16, VGS_DTYPE_U8,
    VGS_DTYPE_BOOL,
    VGS_DTYPE_OTHER     /* any other, as F8_E4M3: its bytes are there, but no function converts them */
} vgs_dtype;

typedef struct vgs_file_tensor {
    const char *name;
    vgs_dtype   dtype;
    const char *dtype_name;                      /* as the file spells it, "F32"                        */
    int         ndim;   /* 0 is a single number                                          */
    uint64_t    shape[8];
    size_t      count, bytes;
    const void *data;   /* little-endian as in the file, of any alignment                */
} vgs_file_tensor;

/* Reading .safetensors: the whole file is in memory, checked, until it is freed. Tensors and metadata are
   sorted by name. Files of vgs_writer carry a CRC-32 of everything in them, which is checked here. One that
   another program has saved again, with or without our metadata, is read without that check. */
typedef struct vgs_safetensors vgs_safetensors;
VGS_API vgs_safetensors *vgs_safetensors_open(const char *path, vgs_error *err);
VGS_API void             vgs_safetensors_free(vgs_safetensors *s);
VGS_API bool             vgs_safetensors_has_checksum(const vgs_safetensors *s);          /* and it fits   */
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

/* x with the fewest digits, 15 at least, that read back as x exactly, and a point in any locale, as in JSON;
   "null" if x is not finite. */
VGS_API void vgs_number_text(double x, char text[32]);
#endif /* VGS_NO_STDIO */

/* ==== >>graph ======================================================================================
   Calls below record ops on [rows, cols] tensors; nothing is computed before vgs_graph_run. Rows are
   either fixed or a multiple of the batch B, which is chosen at every run. The first failure (a shape, a
   stale handle, memory) is kept; every later op returns {0}; vgs_graph_compile reports it with the op's
   name and the shapes. Ops that depend on parameters and tables only form the prologue, which runs
   again only when these have changed: what depends on t alone costs T rows, not B. A graph follows the
   models that it applies and what is set or bound in it; vgs_graph_touch tells it of other changes.

   A graph: record, ask for gradients, mark outputs, compile once, then bind or set, run, get. */

typedef enum vgs_type { VGS_F32, VGS_I32 } vgs_type;
typedef struct vgs_buffer vgs_buffer;            /* memory of a backend: opaque to everybody else     */

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
VGS_API vgs_var vgs_state (vgs_graph *g, int rows, int cols, vgs_type type);  /* may be written; rows < 0: */
                                                                     /* -rows times the batch         */
VGS_API vgs_var vgs_table (vgs_graph *g, const float *x, int rows, int cols); /* constant, copied     */
VGS_API vgs_var vgs_table_int(vgs_graph *g, const int32_t *x, int rows, int cols);
VGS_API vgs_var vgs_view  (vgs_graph *g, vgs_var params, int offset, int rows, int cols, int ld);

/* run-time scalars: attributes that may change between runs without recording again */
typedef struct vgs_scalar { uint32_t id; } vgs_scalar;
VGS_API vgs_scalar vgs_scalar_create(vgs_graph *g, double value);
VGS_API void       vgs_scalar_set   (vgs_graph *g, vgs_scalar s, double value);

/* elementwise; binary ops broadcast an operand of one row, one column, or both */
VGS_API vgs_var vgs_add     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_sub     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_mul     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_div     (vgs_graph *g, vgs_var a, vgs_var b);
VGS_API vgs_var vgs_max     (vgs_graph *g, vgs_var a, vgs_var b);    /* NaN if one is; of equals the  */
                                                                     /* gradient is a's               */
VGS_API vgs_var vgs_affine  (vgs_graph *g, vgs_var x, float a, float b);           /* a x + b         */
VGS_API vgs_var vgs_affine_by(vgs_graph *g, vgs_var x, vgs_scalar a, vgs_scalar b);      /* {0}: 1, 0  */
VGS_API vgs_var vgs_combine (vgs_graph *g, vgs_var a, float fa, vgs_var b, float fb);    /* fa a + fb b */
VGS_API vgs_var vgs_combine_by(vgs_graph *g, vgs_var a, vgs_scalar fa, vgs_var b, vgs_scalar fb);
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
/* x, but 0 where e is above limit or NaN; x [r,c], e [r,c] or [r,1] */
VGS_API vgs_var vgs_mask_above(vgs_graph *g, vgs_var x, vgs_var e, float limit);
VGS_API vgs_var vgs_fill    (vgs_graph *g, int rows, int cols, float value);       /* rows as vgs_state's */
VGS_API vgs_var vgs_fill_int(vgs_graph *g, int rows, vgs_scalar value);            /* [rows,1] int32   */
VGS_API vgs_var vgs_limit_rows(vgs_graph *g, vgs_var x, vgs_scalar most);        /* longer rows are cut to  */
                                                                     /* this length; no gradient       */

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
/* x: [B n, c] -> [B m, c]; row (b, e) = row (b, which[e]) of x, e < m = length of which */
VGS_API vgs_var vgs_segment_gather(vgs_graph *g, vgs_var x, int n, const int32_t *which, int m);
VGS_API vgs_var vgs_segment_sum   (vgs_graph *g, vgs_var x, int n, const int32_t *which, int m); /* adjoint */

/* images: x [B h w, c], a row for each pixel, channels last; a window of size x size pixels moves over them,
   zeros around. Output: (height + top + bottom - size)/stride + 1 rows, rounded down, columns likewise.
   conv2d: w [out, size size c/groups], its columns a window's pixels (row by row) times channels, b [1,out]
   or {0}. depthwise: w [size size, c]. avg_pool, max_pool: the mean, the largest of those pixels that lie in
   the image, of which max_pool wants one in each window. resize: bilinear, without smoothing; with `align`
   corners keep their pixels. */
typedef struct vgs_window { int height, width, size, stride, top, left, bottom, right; } vgs_window;
VGS_API vgs_var vgs_conv2d   (vgs_graph *g, vgs_var x, const vgs_window *p, vgs_var w, vgs_var b, int groups);
VGS_API vgs_var vgs_depthwise(vgs_graph *g, vgs_var x, const vgs_window *p, vgs_var w);
VGS_API vgs_var vgs_avg_pool (vgs_graph *g, vgs_var x, const vgs_window *p);
VGS_API vgs_var vgs_max_pool (vgs_graph *g, vgs_var x, const vgs_window *p);
VGS_API vgs_var vgs_resize   (vgs_graph *g, vgs_var x, int height, int width, int to_height, int to_width,
                              bool align);

/* particles: x [B, n*d], n points of d coordinates side by side; pairs (0,1) (0,2) .. (1,2) .. */
VGS_API vgs_var vgs_pair_distance(vgs_graph *g, vgs_var x, int n);   /* [B, n(n-1)/2]; safe at r = 0  */
VGS_API vgs_var vgs_remove_mean  (vgs_graph *g, vgs_var x, int n);   /* subtracts the mean point      */
VGS_API vgs_var vgs_sort_cols    (vgs_graph *g, vgs_var x);          /* each row, descending          */

/* losses, elementwise */
VGS_API vgs_var vgs_loss_of(vgs_graph *g, vgs_var prediction, vgs_var target, vgs_loss kind);

/* sphere |x| = 1, without a gradient: v - (v.x) x; and x moved along the great circle by v, which is
   tangent at x, renormalised: cos|v| x + sin|v| v/|v|. v = {0}: x/|x| */
VGS_API vgs_var vgs_sphere_tangent(vgs_graph *g, vgs_var v, vgs_var x);
VGS_API vgs_var vgs_sphere_move   (vgs_graph *g, vgs_var x, vgs_var v);

/* Random numbers. Each row's are a function of (seed, stream, iteration, step, row), set before a run; rows
   count from first_row. Streams below 64 are the sampler's, the rest up to 255 yours; step < 65536. */
typedef struct vgs_noise { vgs_scalar stream, step, first_row, iteration, seed_low, seed_high; } vgs_noise;
VGS_API vgs_noise vgs_noise_create(vgs_graph *g);
VGS_API void    vgs_noise_set   (vgs_graph *g, const vgs_noise *n, uint64_t seed, int stream,
                                 int64_t iteration, int step, uint32_t first_row);
VGS_API vgs_var vgs_normal      (vgs_graph *g, int cols, const vgs_noise *n);      /* [B,cols] ~ N(0,1) */
VGS_API vgs_var vgs_permutation (vgs_graph *g, int n, vgs_scalar first, const vgs_noise *noise);
                                 /* [B,1] int32: entries first, first + 1, ... of a permutation of 0..n-1 */
VGS_API vgs_var vgs_resample    (vgs_graph *g, vgs_var log_weight, const vgs_noise *n);
                                 /* [B,1] int32: rows of log_weight [m,1], systematically by exp of it,  */
                                 /* none above sqrt(m) times the mean                                    */

/* an energy as ops: [B,dim] -> [B,1]; differentiable; `energy` is borrowed */
VGS_API vgs_var vgs_energy_of(vgs_graph *g, const vgs_energy *energy, vgs_var x);

/* gradients: d(sum of y)/dx_k -> gx[k], recorded as ops; x: inputs or recorded values, not vgs_params */
VGS_API vgs_status vgs_gradient(vgs_graph *g, vgs_var y, const vgs_var *x, int n, vgs_var *gx);
/* d(sum of y)/d(params) is written into `grad`, a vgs_state of the parameters' shape, at every run */
VGS_API vgs_status vgs_gradient_params(vgs_graph *g, vgs_var y, vgs_var params, vgs_var grad);

/* effects: they run in the order in which they were recorded, after all ops before and before all after */
VGS_API void vgs_assign     (vgs_graph *g, vgs_var state, vgs_var x);              /* state = x        */
VGS_API void vgs_assign_rows(vgs_graph *g, vgs_var state, vgs_scalar first, vgs_var x);
                                 /* its rows first, first + 1, ...; VGS_E_ARG of the run if it has fewer */

/* compile and run */
VGS_API void       vgs_output(vgs_graph *g, vgs_var v);              /* keep v for vgs_get            */
VGS_API vgs_status vgs_graph_compile(vgs_graph *g, vgs_backend *backend, int capacity, vgs_error *err);
VGS_API size_t     vgs_graph_bytes(const vgs_graph *g);              /* memory taken by compile       */
VGS_API int        vgs_graph_ops  (const vgs_graph *g, bool prologue);   /* launches of a run         */
/* A leaf's elements are those of buf from offset on. Leaves may share elements, of which effects see what
   effects before them have left. Other ops must read what an effect of the graph changes by the leaf that it
   changes: by another one they may find the new where they were recorded before the effect. */
VGS_API vgs_status vgs_bind(vgs_graph *g, vgs_var leaf, vgs_buffer *buf, size_t offset, vgs_error *err);
VGS_API vgs_status vgs_set (vgs_graph *g, vgs_var leaf, const void *x, int batch, vgs_error *err);
VGS_API vgs_status vgs_get (vgs_graph *g, vgs_var v, void *x, int batch, vgs_error *err);
                                                 /* an output, a leaf, or another view of one          */
VGS_API void       vgs_graph_touch(vgs_graph *g);                    /* parameters or tables changed  */
VGS_API vgs_status vgs_graph_run(vgs_graph *g, int batch, vgs_error *err);

/* ==== >>rng ========================================================================================
   Philox4x32-10 [Salmon 2011]: number i of a stream is a pure function of (seed, stream, i), so the three
   fields below are the whole state: copy it, save it, jump in it. */

typedef struct vgs_rng {
    uint64_t seed;
    uint32_t stream;    /* < 2^24; streams of one seed are independent                   */
    uint64_t pos;       /* blocks of four 32-bit words used so far                       */
} vgs_rng;                                       /* block pos is vgs_philox of the key seed (low word */
                                                 /* first), counter {pos, 0xFF000000 + stream, 0}     */

VGS_API void     vgs_philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);
VGS_API uint64_t vgs_rng_u64(vgs_rng *r);                            /* 64 random bits; one block     */
VGS_API double   vgs_rng_uniform(vgs_rng *r);                        /* in (0,1), 53 bits; one block  */
VGS_API void     vgs_rng_normals(vgs_rng *r, float *out, size_t n);  /* N(0,1); (n+3)/4 blocks        */
VGS_API uint32_t vgs_rng_below(vgs_rng *r, uint32_t n);              /* uniform in 0..n-1, unbiased   */
/* y = the particles x [n,d], turned, reflected and permuted at random. d in 1..8; y and x do not overlap. */
VGS_API vgs_status vgs_shuffle_particles(vgs_rng *r, const float *x, int n, int d, float *y, vgs_error *err);

/* ==== >>model ======================================================================================
   A network with its weights, and Adam's moments once it is trained, on a backend: value, policy, energy and
   features are all models. Graphs that apply one follow its changes. A model outlives the graphs that apply
   it, or their next run is VGS_E_ARG. Arrays have the names of PyTorch; the four reference networks those of
   the reference implementation. Initial weights are PyTorch's: of a Linear uniform in +-1/sqrt(fan_in),
   LayerNorm 1 and 0. */

typedef struct vgs_param_info {
    char name[64];
    int offset, rows, cols;  /* [rows, cols]; rows = 0: a vector of cols numbers                */
} vgs_param_info;

VGS_API vgs_model *vgs_model_create(const vgs_net_config *net, vgs_backend *b, uint64_t seed, vgs_error *err);
/* Arrays of your own, n of them, without a network: name, rows, cols count. w [size], or NULL for zeros. */
VGS_API vgs_model *vgs_model_create_arrays(const vgs_param_info *arrays, int n, const float *w,
                                           vgs_backend *b, vgs_error *err);
VGS_API void       vgs_model_free  (vgs_model *m);                   /* NULL is fine                  */
VGS_API const vgs_net_config *vgs_model_config(const vgs_model *m);  /* resolved; NULL of bare arrays */
VGS_API int        vgs_model_size  (const vgs_model *m);             /* number of weights             */
VGS_API const vgs_param_info *vgs_model_param(const vgs_model *m, int i);        /* NULL past the last one */
VGS_API uint64_t   vgs_model_version(const vgs_model *m);            /* grows with every change       */
VGS_API vgs_status vgs_model_read  (const vgs_model *m, float *w, vgs_error *err);   /* w [size], out   */
VGS_API vgs_status vgs_model_write (vgs_model *m, const float *w, vgs_error *err);   /* w [size]        */
/* Adam's two moments [size] and its steps so far. */
VGS_API vgs_status vgs_model_read_adam (const vgs_model *m, float *first, float *second, int64_t *step,
                                        vgs_error *err);
VGS_API vgs_status vgs_model_write_adam(vgs_model *m, const float *first, const float *second, int64_t step,
                                        vgs_error *err);

/* In a graph on the model's backend. apply: [B,out] of x [B,dim], at step t [B,1] (int32, 0..steps-1) if the
   network has time, else t = {0}. All that depends on t alone is a table of `steps` rows in the prologue
   (exact savings: equal to rounding to the direct form). weights: [1,size]. array: one of them,
   [rows,cols]. */
VGS_API vgs_var vgs_model_apply  (vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t);
VGS_API vgs_var vgs_model_weights(vgs_graph *g, vgs_model *m);
VGS_API vgs_var vgs_model_array  (vgs_graph *g, vgs_model *m, const char *name);

/* Effects. descend: one step of Adam (PyTorch's; betas 0.9, 0.999, eps 1e-8) down the sum of `loss`, of the
   gradient cut to a global norm of grad_max (0 = not). ema: average = keep average + (1 - keep) m. check:
   rows of x must be finite. A row that is not, or a loss, stops all updates of m until vgs_model_check,
   which then is VGS_E_NONFINITE and names the row. */
VGS_API void vgs_descend(vgs_graph *g, vgs_var loss, vgs_model *m, vgs_scalar lr, float grad_max);
VGS_API void vgs_ema    (vgs_graph *g, vgs_model *average, vgs_model *m, float keep);
VGS_API void vgs_check  (vgs_graph *g, vgs_var x, vgs_model *m);
VGS_API vgs_status vgs_model_check(const vgs_model *m, vgs_error *err);

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

VGS_API vgs_isa     vgs_cpu_isa(void);               /* the best one this processor and this build have */
VGS_API const char *vgs_isa_name(vgs_isa isa);       /* "portable", "neon", "avx2", "avx512"            */

/* ==== >>backend ====================================================================================
   Where tensors live and ops run. The CPU backend is built in; another one fills this table and is passed
   to the sampler's configuration. Sizes and offsets count elements of 4 bytes (float or int32). A backend
   only ever sees buffers of its own, so its memory need not be the host's. */

typedef enum vgs_act {
    VGS_ACT_NONE,
    VGS_ACT_RELU,       /* max(x, 0)                                                     */
    VGS_ACT_SIGMOID,    /* 1 / (1 + e^-x)                                                */
    VGS_ACT_TANH,
    VGS_ACT_SILU,       /* x / (1 + e^-x)                                                */
    VGS_ACT_SOFTPLUS,   /* log(1 + e^x)                                                  */
    VGS_ACT_CLAMP       /* at least f0, at most f1 of the call                           */
} vgs_act;

typedef struct vgs_tensor {                      /* element (i,j) is at offset + i*ld + j             */
    vgs_buffer *buf;                             /* NULL = absent (an optional operand)               */
    size_t offset;
    int rows, cols, ld;
} vgs_tensor;

enum { VGS_MAX_IN = 6, VGS_MAX_ATTR = 8 };

/* The op table: what a backend has to run. kind: M = elementwise map, R = rows are independent, W = the
   whole tensor at once, U = elementwise update of in[0]. Then what >>compile must know (VGS__RANDOM, under
   >>ops), and about how many nanoseconds it takes: out, in = elements of the output and of in[0]. Kernel and
   gradient of each op stand side by side under >>ops. */
#define VGS_OPS(X) \
    X(M, ADD, add, 0, out)              X(M, SUB, sub, 0, out)          X(M, MUL, mul, 0, out)          \
    X(M, DIV, div, 0, out)              X(M, AFFINE, affine, 0, out)    X(M, COMBINE, combine, 0, out)  \
    X(M, EXP, exp, 0, out)              X(M, LOG, log, 0, out)          X(M, SQRT, sqrt, 0, out)        \
    X(M, SQUARE, square, 0, out)        X(M, RECIPROCAL, reciprocal, 0, out)                            \
    X(M, ABS, abs, 0, out)              X(M, ABS_GRAD, abs_grad, 0, out)                                \
    X(M, SIN, sin, 0, out)              X(M, COS, cos, 0, out)                                          \
    X(M, RELU, relu, 0, out)            X(M, RELU_GRAD, relu_grad, 0, out)                              \
    X(M, SILU, silu, VGS__SLOPE, out)   X(M, SOFTPLUS, softplus, 0, out)                                \
    X(M, SIGMOID, sigmoid, 0, out)      X(M, SIGMOID_GRAD, sigmoid_grad, 0, out)                        \
    X(M, TANH, tanh, 0, out)            X(M, TANH_GRAD, tanh_grad, 0, out)                              \
    X(M, CLAMP, clamp, 0, out)          X(M, CLAMP_GRAD, clamp_grad, 0, out)                            \
    X(M, FILL, fill, 0, out)            X(M, LOSS, loss, 0, out)        X(M, LOSS_GRAD, loss_grad, 0, out) \
    X(M, MASK_ABOVE, mask_above, 0, out) X(M, MAX, max, 0, out)                                         \
    X(M, FILL_INT, fill_int, 0, out)    X(M, INT_DIV, int_div, 0, out)                                  \
    X(R, SUM_COLS, sum_cols, 0, 2 * in) X(R, LOGSUMEXP, logsumexp, 0, out)                              \
    X(R, LAYERNORM, layernorm, 0, out)  X(R, LAYERNORM_GRAD, layernorm_grad, 0, out)                    \
    X(R, LAYERNORM_HAT, layernorm_hat, 0, out)                                                          \
    X(R, PAD_COLS, pad_cols, 0, out)    X(R, CONCAT, concat, 0, out)                                    \
    X(R, GATHER, gather, VGS__MIXES(0), out)                                                            \
    X(R, SEGMENT_GATHER, segment_gather, VGS__SAMPLES | VGS__MIXES(1) | VGS__MIXES(2) | VGS__MIXES(3), out) \
    X(R, SEGMENT_SUM, segment_sum, VGS__SAMPLES | VGS__MIXES(1) | VGS__MIXES(2) | VGS__MIXES(3), out)   \
    X(R, STENCIL, stencil,                                                                              \
      VGS__SAMPLES | VGS__MIXES(1) | VGS__MIXES(2) | VGS__MIXES(3) | VGS__MIXES(4), 2 * out)            \
    X(R, STENCIL_GRAD, stencil_grad, VGS__SAMPLES | VGS__MIXES(2) | VGS__MIXES(3), 4 * in)              \
    X(R, PAIR_DISTANCE, pair_distance, 0, 2 * in)                                                       \
    X(R, PAIR_DISTANCE_GRAD, pair_distance_grad, 0, out)                                                \
    X(R, REMOVE_MEAN, remove_mean, 0, out)                                                              \
    X(R, SORT_COLS, sort_cols, VGS__SECOND, 5 * out)                                                    \
    X(R, UNSORT_COLS, unsort_cols, 0, out)                                                              \
    X(R, NORMAL, normal, VGS__RANDOM, 4 * out)                                                          \
    X(R, PERMUTATION, permutation, VGS__RANDOM, out)                                                    \
    X(R, LIMIT_ROWS, limit_rows, 0, out)                                                                \
    X(R, EIGEN, eigen, VGS__SECOND, 4 * out * i0)                                                       \
    X(R, SPHERE_TANGENT, sphere_tangent, 0, out) X(R, SPHERE_MOVE, sphere_move, 0, out)                 \
    X(W, MATMUL, matmul, VGS__MIXES(1) | VGS__MIXES(2) | VGS__MIXES(4) | VGS__MIXES(5), out * depth / 40) \
    X(W, PACK, pack, 0, out / 2)                                                                        \
    X(W, SUM_ROWS, sum_rows, 0, in / 5) X(W, SCATTER_ROWS, scatter_rows, 0, in / 2 + 4 * rows)          \
    X(W, SUM_SQUARES, sum_squares, 0, in / 5)                                                           \
    X(W, ENERGY, energy, 0, 10 * (in + out))                                                            \
    X(W, RESAMPLE, resample, VGS__RANDOM, 0) /* one thread does it all */                               \
    X(W, STORE, store, VGS__EFFECT, 0)  X(U, ADAM, adam, VGS__EFFECT, 0.4 * out)                        \
    X(U, EMA, ema, VGS__EFFECT, out)    X(R, CHECK, check, VGS__EFFECT | VGS__MIXES(1), out)

typedef enum vgs_op {
    VGS_OP_INPUT, VGS_OP_PARAMS, VGS_OP_STATE, VGS_OP_TABLE, VGS_OP_VIEW, VGS_OP_SECOND,  /* never run */
#define VGS_OP_ENUM(kind, ID, name, facts, cost) VGS_OP_##ID,
    VGS_OPS(VGS_OP_ENUM)
#undef VGS_OP_ENUM
    VGS_OP_COUNT
} vgs_op;

VGS_API const char *vgs_op_name(int op);

typedef struct vgs_call {                        /* one op, ready to run                              */
    int op;                                      /* vgs_op                                            */
    vgs_tensor out, out2, in[VGS_MAX_IN];        /* out2: second output, absent if it is not needed   */
    int   i[VGS_MAX_ATTR];                       /* integer attributes: see the op's entry            */
    float f[VGS_MAX_ATTR];                       /* real attributes and run-time scalars              */
    const struct vgs_energy *energy;             /* VGS_OP_ENERGY only                                */
    int   group, parts;                          /* see run_list                                      */
    bool  local;                                 /* out and out2 are read within this group only      */
                                                 /* (another part may then reuse their place)         */
} vgs_call;

struct vgs_backend {
    void *self;                                  /* first argument of every function below            */
    vgs_buffer *(*buffer_create)(void *self, size_t n, vgs_error *err);              /* zeroed        */
    void        (*buffer_free)  (void *self, vgs_buffer *b);                         /* NULL is fine  */
    vgs_status  (*upload)  (void *self, vgs_buffer *dst, size_t offset, const void *src, size_t n,
                            vgs_type type, vgs_error *err);
    vgs_status  (*download)(void *self, void *dst, vgs_buffer *src, size_t offset, size_t n,
                            vgs_type type, vgs_error *err);
    vgs_status  (*run)     (void *self, const vgs_call *call, vgs_error *err);
    vgs_status  (*finish)  (void *self, vgs_error *err);                             /* wait for all  */
    /* Optional, NULL = `run` for one call after the other. Consecutive calls of one group may run without a
       barrier between them. parts > 0: split the rows into `parts` equal blocks; block i reads only block i
       of earlier calls. parts = 0: the calls are independent. reserve gets each list once, with the largest
       batch, before it is first run, so that run_list need not allocate. */
    vgs_status  (*run_list)(void *self, const vgs_call *calls, int n, vgs_error *err);
    vgs_status  (*reserve) (void *self, const vgs_call *calls, int n, vgs_error *err);
    /* 0: STENCIL and MATMUL come as they were recorded, but for the activation of a product. > 0: they also
       take with them what is next to them (in[4] and i3, i4 of STENCIL; in[4], in[5], i3, i4 of MATMUL), and
       weights of products come as PACK leaves them, in panels of so many columns (i2 of MATMUL). */
    int panel;
};

typedef struct vgs_cpu_config {
    int     threads;                             /* 0 = all that OpenMP offers; > 1 needs -fopenmp    */
    vgs_isa isa;                                 /* 0 = the best one here                             */
} vgs_cpu_config;

VGS_API vgs_backend *vgs_cpu_create (const vgs_cpu_config *cfg, vgs_error *err); /* cfg may be NULL   */
VGS_API int          vgs_cpu_threads(const vgs_backend *cpu);
VGS_API void         vgs_cpu_free   (vgs_backend *cpu);              /* NULL is fine                  */
VGS_API vgs_status   vgs_cpu_run    (const vgs_backend *cpu, const vgs_call *call, vgs_error *err);
                                                 /* runs a call whose buffers are plain float arrays  */

#ifdef __cplusplus
}
#endif
#endif /* VGS_H */

/* ==== the method ===================================================================================
   [VGS] section 3; t = 0 is noise, T the sample.

   x_0 ~ N(0, s0^2 I);  z_t = a_t x_t;  x_{t+1} = z_t - mu_t + sqrt(rho_t) s_t a_t eps;
   mu_t = kappa_t (s_t^2 a_t / tau) grad V_t(x_t), and kappa_t (s_t^2 a_t^2 / tau) grad E(z_t) for t = T-1
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
   grad V_t(x_t) is the mean of a_t grad V_{t+1}(x_{t+1}), for t = T-1 of a_t grad E(x_T), so that
       g_t = a_t [(1 - lambda) grad Vbar_{t+1}(x_{t+1}) + lambda g_{t+1}],  g_T = grad E(x_T),
   D numbers where y_t is one; its gradient takes V at x +- d along the error, no second derivative.
   With `local_noise` the noise of every step but the last has the covariance I - s_t^2 H/tau, H the Hessian
   of V_t at x_t by finite differences of its gradient, eigenvalues clipped to [0.6, 4]. This is the
   covariance of the exact reverse kernel to first order: small where V curves, large along flat
   directions. It depends on x_t alone, so that the density of a step stays known.
   With `correct` a draw takes Metropolis-adjusted Langevin steps on V_t before step t. They leave
   exp(-V_t/tau) as it is and forget what earlier steps did wrong; log w grows by the change of V_t/tau,
   after which E[w] = Z as before: annealed importance sampling [Neal 2001] along the learned path.
   With a policy the step is x_{t+1} = a_t x_t + m(x_t, t) + sigma_t eps, m a network with D outputs, sigma_t
   a number for each step. Path weights are as exact; log w has D log(sigma_t/(s_t a_t)) more for each step.
       dxdp          V_t is fitted to V_{t+1}(x_{t+1}) + c_t, V_T = E, with
                     c_t = -entropy_tau D log sigma_t + velocity_tau |x_{t+1} - x_t|^2/(2 v_t), one step of
                     Adam for each t from T-1 down to 0; v_t is a running mean (0.99) of |x_{t+1} - x_t|^2/D
                     that begins at sigma_t^2. Then m and log sigma_t go down the same sum at transitions
                     whose x_{t+1} they draw anew, V as it is [DxMI].
       logvar        m goes down the variance of log w over the batch, of paths that are taken as they are
                     [Richter 2023]; m = sigma_t^2 (net + f_t grad E/tau) [DIS], [PIS]. Of pis, x_0 = 0 and,
                     with v_t the sum of sigma^2 before t, log w = -E(x_T)/tau - log N(x_T; 0, v_T)
                     + sum_t log N(x_{t+1}; x_t, sigma_t^2)/pi(x_{t+1} | x_t): the noising chain is the bridge
                     x_t ~ N(x_{t+1} v_t/v_{t+1}, sigma_t^2 v_t/v_{t+1}).
   Particles live in the mean-free subspace (D = (n-1) d): x_0 and every eps are projected.
   Where this is not [VGS]. `published` gives [VGS] in all of these but the last, which has a field:
       drift         mu_t = (s_t^2 a_t^2 / tau) grad V_{t+1}(z_t): right to first order, unstable where
                     A k > 1 (A = s_t^2 a_t^2, k the curvature of V). For the exact value ours leads to
                     the exact mean (Tweedie).
       targets       a target is one step of fresh noise with the mean of c_t. Ours has the same mean, but
                     c_t + V_{t+1} hardly depends on the noise of the path, so it can be followed to its
                     end, and early steps know the energy at once.
       factors       kappa = rho = 1. The exact reverse kernel of a Gaussian has rho = 1/(1 + A k).
       base          V is the network alone; here that of a Gaussian is added to an mlp or egnn, and an
                     mlp is blind beyond four standard deviations.
       last drift    with a finite grad_max the gradient of E as it is; here of E cut at energy_max.
       drift_max     |mu_t| has no limit (1e30). Here it is at most drift_max s_t a_t sqrt(D).
   explicit_drift and fixed_kernel give the first and the third of these alone.

   REFERENCES
   [VGS]  Value Gradient Sampler, arXiv:2502.13280; AISTATS 2026, PMLR 300:3979
   [GCD]  Yoon et al., Generalized Contrastive Divergence, arXiv:2312.03397
   [DxMI] Yoon et al., Maximum Entropy Inverse Reinforcement Learning of Diffusion Models with Energy-Based
          Models, arXiv:2407.00626; NeurIPS 2024
   [DIS]  Berner et al., An optimal control perspective on diffusion-based generative modeling,
          arXiv:2211.01364
   [PIS]  Zhang & Chen, Path Integral Sampler, arXiv:2111.15141
   [Richter 2023] Richter & Berner, Improved sampling via learned diffusions, arXiv:2307.01198
   [PCD]  Tieleman, Training restricted Boltzmann machines using approximations to the likelihood gradient,
          ICML 2008
   [ED]   Schroeder et al., Energy Discrepancies, arXiv:2307.06431
   [DDPM] Ho et al., Denoising diffusion probabilistic models, arXiv:2006.11239
   [Nichol 2021] Improved denoising diffusion probabilistic models, arXiv:2102.09672
   [FastDPM] Kong & Ping, On fast sampling of diffusion probabilistic models, arXiv:2106.00132
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
#include <time.h>
#ifdef _OPENMP
#  if _OPENMP < 201107
#    error "vgs.h: OpenMP 3.1 is needed (atomic read, write, capture); MSVC has it with /openmp:llvm"
#  endif
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

/* Private names begin with vgs__ and their section (vgs__compile_, vgs__mcmc_; vgs__ckpt_ in >>checkpoint,
   vgs__sampler_ in >>life) or a thing of it: an op and what only it needs, a network, a stage, a file format.
   The kernel of an op is vgs__k_op, its gradient vgs__g_op. Names of >>util and >>math are short and used
   everywhere, as are vgs__id, vgs__exists and vgs__no_var of a vgs_var. */

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

/* The loop that follows writes elements where it reads them or where none are read: gcc need not check. */
#if defined __GNUC__ && !defined __clang__ && !defined __TINYC__
#  define VGS__SAME_PLACES _Pragma("GCC ivdep")
#else
#  define VGS__SAME_PLACES
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>util: errors, checked sizes, numbers ======================================================= */

#if defined __GNUC__ || defined __clang__
#  define VGS__PRINTF(a, b) __attribute__((format(printf, a, b)))
#  define VGS__INLINE static inline __attribute__((always_inline, unused))
#  define VGS__UNUSED __attribute__((unused))
#else
#  define VGS__PRINTF(a, b)
#  define VGS__INLINE static
#  define VGS__UNUSED
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

static double vgs__nan(void) { return (double)NAN; }

#define VGS__PI 3.14159265358979324
static bool vgs__finite(double v) { return fabs(v) <= DBL_MAX; }

static int vgs__compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* x [n,d], n points: takes the mean point off. */
static void vgs__centre(float *x, int n, int d)
{
    int i, k;
    for (k = 0; k < d; ++k) {
        double mean = 0.0;
        for (i = 0; i < n; ++i) mean += (double)x[i * d + k];
        for (mean /= n, i = 0; i < n; ++i) x[i * d + k] = (float)((double)x[i * d + k] - mean);
    }
}

/* Systematic resampling puts points (i + u)/n sum, u in [0,1), on weights that lie one after the other.
   Returns the row that has the point `at`: `from`, which had the last one (-1: there was none), or one after
   it, up to `last`. *below holds the weights up to it, 0 at first. */
static int vgs__systematic_next(double (*weight)(const void *of, int i), const void *of, int last, double at,
                                int from, double *below)
{
    while (from < 0 || (*below <= at && from < last)) *below += weight(of, ++from);
    return from;
}

static double vgs__weight_at(const void *w, int i) { return ((const double *)w)[i]; }

/* By weights w [n] of this sum: which [n], ascending, holds row i n w_i/sum times, rounded up or down; never
   a row of weight 0, wherever rounding puts the last point. */
static void vgs__systematic(const double *w, int n, double sum, double u, int *which)
{
    int i, from = -1, last = n - 1;
    double below = 0.0;
    while (last > 0 && !(w[last] > 0.0)) --last;
    for (i = 0; i < n; ++i)
        which[i] = from = vgs__systematic_next(vgs__weight_at, w, last, (i + u) / n * sum, from, &below);
}

static int vgs__thread_count(int threads)         /* 0 = all; 1 without OpenMP                          */
{
#ifdef _OPENMP
    return threads > 0 ? threads : omp_get_max_threads();
#else
    (void)threads;
    return 1;
#endif
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
    a = vgs__pick((q & 1u) != 0, cs, sn);
    b = vgs__pick((q & 1u) != 0, sn, cs);
    *s = vgs__from_bits(vgs__to_bits(a) ^ (q & 2u) << 30);
    *c = vgs__from_bits(vgs__to_bits(b) ^ ((q + 1u) & 2u) << 30);
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

/* ---- for C that is compiled after this file ----------------------------------------------------------
   An energy in the file that has the implementation may use these (examples/targets.h does): exp and log of
   the same bits in every lane and on every processor, and a choice without a branch, inlined into loops that
   VGS_HOT makes the compiler vectorise: for any processor and, with VGS_AVX2 too, for those that have
   vgs_cpu_isa() >= VGS_ISA_AVX2. */

#define VGS_INLINE VGS__INLINE
#define VGS_HOT    VGS__HOT
#ifdef VGS__X86
#  define VGS_AVX2 VGS__AVX2
#else
#  define VGS_AVX2
#endif
VGS_INLINE float vgs_expf(float x) { return vgs__exp(x); }
VGS_INLINE float vgs_logf(float x) { return vgs__log(x); }
VGS_INLINE float vgs_pick(bool c, float a, float b) { return vgs__pick(c, a, b); }       /* c ? a : b */

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
VGS__INLINE void vgs__rng_normal_pair(uint32_t a, uint32_t b, float *z0, float *z1)
{
    float u = (float)a * 2.3283064365386963e-10f + 1.1641532182693481e-10f;
    float v = (float)(b >> 8) * 5.9604644775390625e-8f, s, c, r;
    r = -2.0f * vgs__log(u);
    r = sqrtf(r < 0.0f ? 0.0f : r);
    vgs__sincos_turns(v, &s, &c);
    *z0 = r * c;
    *z1 = r * s;
}

VGS__INLINE void vgs__rng_normal4(const uint32_t *w, float *z)
{
    vgs__rng_normal_pair(w[0], w[1], z, z + 1);
    vgs__rng_normal_pair(w[2], w[3], z + 2, z + 3);
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
        vgs__rng_normal4(w, z);
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

#define VGS__MAX_SPACE 8                         /* largest d of particles that can be shuffled        */

/* q [d,d]: a random rotation or reflection, the rows of Gaussian numbers made orthonormal (Gram-Schmidt). */
static void vgs__rng_frame(vgs_rng *r, int d, double *q)
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

VGS__DEF vgs_status vgs_shuffle_particles(vgs_rng *r, const float *x, int n, int d, float *y, vgs_error *err)
{
    double q[VGS__MAX_SPACE * VGS__MAX_SPACE];
    int i, j, k;
    if (n < 1 || d < 1 || d > VGS__MAX_SPACE)
        return vgs__fail(err, VGS_E_ARG, "shuffle_particles: n = %d, d = %d: must be at least 1, and d at "
                         "most %d", n, d, VGS__MAX_SPACE);
    vgs__rng_frame(r, d, q);
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
    return VGS_OK;
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
#define VGS__FEW_ROWS 4           /* rows, columns up to which a tile at the edge is not computed whole  */
#define VGS__FEW_COLS 8
#define VGS__WORK (VGS__KC * (VGS__MC + VGS__NC))   /* floats of one thread's packed blocks */
#define VGS__THREAD_WORK 4000000.0 /* multiply-adds below which one more thread costs more than it gains  */

typedef enum vgs__form {
    VGS__NT,                      /* C = A[m,k] B[n,k]^T */
    VGS__NN,                      /* C = A[m,k] B[k,n]   */
    VGS__TN                       /* C = A[k,m]^T B[k,n] */
} vgs__form;

/* An epilogue, what is done to a sum: C = act(sum + bias[r,:]), r = rows ? rows[i] : 0;  or C += sum. NULL: C
   = sum. */
typedef struct vgs__epilogue {
    const float   *bias;          /* [*,n]; NULL = none                                */
    int            ldbias;        /* used with `rows` only                             */
    const int32_t *rows;          /* [m]: which row of `bias` is added to row i        */
    vgs_act        act;
    bool           accumulate;    /* C += sum; bias and act are then not looked at     */
    float          lo, hi;        /* of VGS_ACT_CLAMP                                  */
} vgs__epilogue;

/* The operands of a tile: element i of row p of A at a[i * ai + p * ap], element j of B at b[p * bp + j].
   Packed: ai = 1, ap = mr, bp = nr. Where packing costs more than it saves they point into A and B; the panel
   that comes next then begins `ahead` of b, each of its rows on another page, and is fetched ahead. */
typedef struct vgs__panels { const float *a, *b; ptrdiff_t ai, ap, bp, ahead; } vgs__panels;

/* c[mr,nr] = sum over p < k of a[p,:]^T b[p,:], or += that. */
typedef void vgs__tile_fn(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add);
/* c[rows,cols] = t[rows,nr], or += that: the part of a whole tile that lies inside of C. */
typedef void vgs__edge_fn(int rows, int cols, const float *t, int nr, float *c, ptrdiff_t ldc, bool add);
/* x[n] = act(x + bias), n a multiple of the lanes; bias may be NULL, and that of ep is not looked at. */
typedef void vgs__finish_fn(int n, float *x, const float *bias, const vgs__epilogue *ep);
/* sum over p < k of a[p] b[p], in an order that k alone decides. */
typedef float vgs__dot_fn(int k, const float *a, const float *b);
typedef struct vgs__gemm_kernel {
    int mr, nr;
    vgs__tile_fn *tile;
    vgs__tile_fn *low, *narrow;   /* the first VGS__FEW_ROWS rows of a tile, the first VGS__FEW_COLS columns
                                     of six rows of it, with the same operations; NULL = none          */
    vgs__dot_fn *dot;             /* of products with one column; NULL = none                            */
    vgs__edge_fn *edge;
    vgs__finish_fn *finish;
} vgs__gemm_kernel;

/* ---- bias and activation -------------------------------------------------------------------------- */

/* Ops that a product takes with it, in the order of vgs_act. */
#define VGS__ACTS(X) X(RELU, relu) X(SIGMOID, sigmoid) X(TANH, tanh) X(SILU, silu) X(SOFTPLUS, softplus) \
                    X(CLAMP, clamp)

VGS__INLINE float vgs__clamp(float a, float lo, float hi) { return a < lo ? lo : a > hi ? hi : a; }

VGS__INLINE void vgs__gemm_act_lanes(const vgs__epilogue *ep, float *x)
{
    int j;
    switch (ep->act) {
    case VGS_ACT_RELU:     for (j = 0; j < VGS__LANES; ++j) x[j] = x[j] < 0.0f ? 0.0f : x[j]; break;
    case VGS_ACT_SIGMOID:  for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__sigmoid(x[j]); break;
    case VGS_ACT_TANH:     for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__tanh(x[j]); break;
    case VGS_ACT_SILU:     for (j = 0; j < VGS__LANES; ++j) x[j] = x[j] * vgs__sigmoid(x[j]); break;
    case VGS_ACT_SOFTPLUS: for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__softplus(x[j]); break;
    case VGS_ACT_CLAMP:    for (j = 0; j < VGS__LANES; ++j) x[j] = vgs__clamp(x[j], ep->lo, ep->hi); break;
    case VGS_ACT_NONE:     break;
    }
}

VGS__HOT static void vgs__gemm_finish_c(int n, float *x, const float *bias, const vgs__epilogue *ep)
{
    int i, j;
    for (i = 0; i < n; i += VGS__LANES, x += VGS__LANES) {
        if (bias)
            for (j = 0; j < VGS__LANES; ++j) x[j] += bias[i + j];
        vgs__gemm_act_lanes(ep, x);
    }
}

#ifdef VGS__X86
#define VGS__CLAMP8(v) _mm256_min_ps(hi, _mm256_max_ps(lo, v))       /* NaN and -0 stay, as in max(0, v) */
#define VGS__FINISH8(expr) \
    for (i = 0; i < n; i += 8) { const __m256 a = _mm256_loadu_ps(x + i); _mm256_storeu_ps(x + i, expr); }

VGS__AVX2 static void vgs__gemm_finish_avx2(int n, float *x, const float *bias, const vgs__epilogue *ep)
{
    const __m256 zero = _mm256_setzero_ps(), lo = _mm256_set1_ps(ep->lo), hi = _mm256_set1_ps(ep->hi);
    const vgs_act act = ep->act;
    int i;
    if (bias && (act == VGS_ACT_SILU || act == VGS_ACT_RELU || act == VGS_ACT_CLAMP)) {
        if (act == VGS_ACT_SILU) VGS__FINISH8(vgs__silu8(_mm256_add_ps(a, _mm256_loadu_ps(bias + i))))
        else if (act == VGS_ACT_RELU)
            VGS__FINISH8(_mm256_max_ps(zero, _mm256_add_ps(a, _mm256_loadu_ps(bias + i))))
        else VGS__FINISH8(VGS__CLAMP8(_mm256_add_ps(a, _mm256_loadu_ps(bias + i))))
        return;
    }
    if (bias) VGS__FINISH8(_mm256_add_ps(a, _mm256_loadu_ps(bias + i)))
    if (act == VGS_ACT_SILU) VGS__FINISH8(vgs__silu8(a))
    else if (act == VGS_ACT_RELU) VGS__FINISH8(_mm256_max_ps(zero, a))
    else if (act == VGS_ACT_CLAMP) VGS__FINISH8(VGS__CLAMP8(a))
    else if (act == VGS_ACT_SIGMOID) VGS__FINISH8(vgs__sigmoid8(a))
    else if (act != VGS_ACT_NONE) vgs__gemm_finish_c(n, x, NULL, ep);
}
#undef VGS__CLAMP8
#undef VGS__FINISH8
#endif

/* ---- tiles ---------------------------------------------------------------------------------------- */

/* Half of a 4 x 16 tile at a time: 4 x 8 sums fit the sixteen registers of SSE2. */
VGS__HOT static void vgs__gemm_tile_c(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
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
static void vgs__gemm_tile_avx2(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
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
static void vgs__gemm_narrow_avx2(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
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
static void vgs__gemm_tile_avx512(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
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
static void vgs__gemm_low_avx512(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
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

static void vgs__gemm_tile_neon(int k, const vgs__panels *x, float *c, ptrdiff_t ldc, bool add)
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

static void vgs__gemm_edge_c(int rows, int cols, const float *t, int nr, float *c, ptrdiff_t ldc, bool add)
{
    int i, j;
    for (i = 0; i < rows; ++i, c += ldc, t += nr)
        for (j = 0; j < cols; ++j) c[j] = add ? c[j] + t[j] : t[j];
}

#ifdef VGS__X86
VGS__AVX2 static void vgs__gemm_edge_avx2(int rows, int cols, const float *t, int nr, float *c, ptrdiff_t ldc,
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
static float vgs__gemm_dot_avx2(int k, const float *a, const float *b)
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

/* The kernel of a set of instructions; plain C takes the place of one that the processor lacks. */
static vgs__gemm_kernel vgs__gemm_kernel_of(vgs_isa isa)
{
    vgs__gemm_kernel kernel = { 4, 16, vgs__gemm_tile_c, NULL, NULL, NULL, vgs__gemm_edge_c,
                               vgs__gemm_finish_c };
    if (isa == VGS_ISA_AUTO) isa = vgs_cpu_isa();
    if (!vgs__cpu_has(isa)) return kernel;
#if defined VGS__X86
    if (isa == VGS_ISA_AVX2 || isa == VGS_ISA_AVX512) {
        bool wide = isa == VGS_ISA_AVX512;
        kernel.mr = wide ? 12 : 6;
        kernel.nr = wide ? 32 : 16;
        kernel.tile = wide ? vgs__gemm_tile_avx512 : vgs__gemm_tile_avx2;
        kernel.low = wide ? vgs__gemm_low_avx512 : NULL;
        kernel.narrow = vgs__gemm_narrow_avx2;
        kernel.dot = vgs__gemm_dot_avx2;
        kernel.edge = vgs__gemm_edge_avx2;
        kernel.finish = vgs__gemm_finish_avx2;
    }
#elif defined VGS__ARM
    if (isa == VGS_ISA_NEON) kernel.tile = vgs__gemm_tile_neon;
#endif
    return kernel;
}

/* ---- packing -------------------------------------------------------------------------------------- */

/* out[k,w] = src[k,lanes], filled up with zeros. */
VGS__INLINE void vgs__gemm_pack_rows(int k, int lanes, int w, const float *src, ptrdiff_t ld, float *out)
{
    int p, l;
    for (p = 0; p < k; ++p, src += ld, out += w) {
        for (l = 0; l < lanes; ++l) out[l] = src[l];
        for (; l < w; ++l) out[l] = 0.0f;
    }
}

/* Whole panels, with a width that the compiler knows: the loop becomes a few moves. */
VGS__HOT static void vgs__gemm_copy_panel(int k, int w, const float *src, ptrdiff_t ld, float *out)
{
    int p;
    if (w == 16) for (p = 0; p < k; ++p, src += ld, out += 16) memcpy(out, src, 16 * sizeof *out);
    else if (w == 32) for (p = 0; p < k; ++p, src += ld, out += 32) memcpy(out, src, 32 * sizeof *out);
    else if (w == 12) for (p = 0; p < k; ++p, src += ld, out += 12) memcpy(out, src, 12 * sizeof *out);
    else if (w == 6) for (p = 0; p < k; ++p, src += ld, out += 6) memcpy(out, src, 6 * sizeof *out);
    else vgs__gemm_pack_rows(k, w, w, src, ld, out);
}

/* out[4,0..3] = the transpose of the 4 x 4 block at src. */
VGS__INLINE void vgs__gemm_transpose4(const float *src, ptrdiff_t ld, float *out, int w)
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
VGS__HOT static void vgs__gemm_pack_cols(int k, int lanes, int w, const float *src, ptrdiff_t ld, float *out)
{
    int p, l, i;
    for (l = 0; l + 4 <= lanes; l += 4, src += 4 * ld) {
        for (p = 0; p + 4 <= k; p += 4) vgs__gemm_transpose4(src + p, ld, out + p * w + l, w);
        for (; p < k; ++p)
            for (i = 0; i < 4; ++i) out[p * w + l + i] = src[i * ld + p];
    }
    for (; l < lanes; ++l, src += ld)
        for (p = 0; p < k; ++p) out[p * w + l] = src[p];
    for (; l < w; ++l)
        for (p = 0; p < k; ++p) out[p * w + l] = 0.0f;
}

/* ---- the product ---------------------------------------------------------------------------------- */

/* A whose row o of a sample is a window: its places side by side, each the lda floats of one pixel, or zeros
   where the window leaves the image. Place t of window o is that of entry start[o places + t] of the list, if
   the next start is larger. */
typedef struct vgs__windows {
    const int32_t *start, *list;                 /* list: (pixel, 0)                                       */
    int before, after, places, channels;         /* before, after: pixels of a sample, of A and of C       */
} vgs__windows;

typedef struct vgs__product {
    vgs__form form;
    int m, n, k;
    ptrdiff_t lda, ldb, ldc;
    const float *a, *b;
    const float *packed;                         /* B as vgs__gemm_pack_share leaves it; NULL = not yet    */
    vgs__windows windows;                        /* what A is of; after = 0: A is a matrix                 */
    float *c, *work;
    vgs__epilogue ep;
    vgs__gemm_kernel kernel;
} vgs__product;

/* One thread's part of one block: rows i..i+m and columns j..j+n of C, p..p+k of the sum. */
typedef struct vgs__block { int i, j, p, m, n, k; bool a_direct, b_direct; } vgs__block;

VGS__INLINE int vgs__min(int a, int b) { return a < b ? a : b; }

/* Element p of row i of A, element j of row p of B. */
VGS__INLINE const float *vgs__gemm_a_at(const vgs__product *q, int i, int p)
{
    return q->form == VGS__TN ? q->a + p * q->lda + i : q->a + i * q->lda + p;
}
VGS__INLINE const float *vgs__gemm_b_at(const vgs__product *q, int p, int j)
{
    return q->form == VGS__NT ? q->b + j * q->ldb + p : q->b + p * q->ldb + j;
}

/* src[k,n] as panels [k][w] of its columns, the last one filled up with zeros. `last_only` leaves out whole
   panels. Eight rows at a time go through all of them: going down one would touch a new page with every
   row. */
static void vgs__gemm_pack_across(int k, int n, int w, const float *src, ptrdiff_t ld, bool last_only,
                                  float *out)
{
    int whole = n / w * w, j, p;
    for (p = 0; p < k && !last_only; p += 8)
        for (j = 0; j < whole; j += w)
            vgs__gemm_copy_panel(vgs__min(8, k - p), w, src + p * ld + j, ld, out + j * k + p * w);
    if (whole < n) vgs__gemm_pack_rows(k, n - whole, w, src + whole, ld, out + whole * k);
}

/* src[n,k] as panels [k][w] of its rows, likewise. */
static void vgs__gemm_pack_turned(int k, int n, int w, const float *src, ptrdiff_t ld, bool last_only,
                                  float *out)
{
    int j = last_only ? n / w * w : 0;
    for (; j < n; j += w) vgs__gemm_pack_cols(k, vgs__min(w, n - j), w, src + j * ld, ld, out + j * k);
}

/* Columns p..p+k of a window, out[k]; x: its sample. */
VGS__INLINE void vgs__gemm_window(const vgs__product *q, const float *x, int window, int p, int k, float *out)
{
    const vgs__windows *w = &q->windows;
    const int32_t *start = w->start + (ptrdiff_t)window * w->places;
    int place = p / w->channels, from = p % w->channels, n, c;
    for (; k > 0; ++place, from = 0, k -= n, out += n) {
        n = vgs__min(w->channels - from, k);
        if (start[place + 1] > start[place]) {
            const float *src = x + w->list[2 * (ptrdiff_t)start[place]] * q->lda + from;
            for (c = 0; c < n; ++c) out[c] = src[c];
        } else for (c = 0; c < n; ++c) out[c] = 0.0f;
    }
}

/* The block's rows of A as a matrix [m][k], filled up with zeros to whole tiles. */
VGS__HOT static void vgs__gemm_pack_windows(const vgs__product *q, const vgs__block *z, float *out)
{
    int i, mr = q->kernel.mr, whole = (z->m + mr - 1) / mr * mr;
    for (i = z->i; i < z->i + z->m; ++i, out += z->k)
        vgs__gemm_window(q, q->a + i / q->windows.after * (ptrdiff_t)q->windows.before * q->lda,
                         i % q->windows.after, z->p, z->k, out);
    memset(out, 0, sizeof *out * (size_t)(whole - z->m) * (size_t)z->k);
}

/* The block's rows of A as panels [k][mr], its columns of B as panels [k][nr]; of a direct operand only the
   last panel, if it is not whole. */
static void vgs__gemm_pack_a(const vgs__product *q, const vgs__block *z, float *out)
{
    const float *src = q->windows.after ? NULL : vgs__gemm_a_at(q, z->i, z->p);
    int mr = q->kernel.mr;
    if (!src) vgs__gemm_pack_windows(q, z, out);
    else if (q->form == VGS__TN) vgs__gemm_pack_across(z->k, z->m, mr, src, q->lda, z->a_direct, out);
    else vgs__gemm_pack_turned(z->k, z->m, mr, src, q->lda, z->a_direct, out);
}

static void vgs__gemm_pack_b(const vgs__product *q, const vgs__block *z, float *out)
{
    const float *src = vgs__gemm_b_at(q, z->p, z->j);
    if (q->form != VGS__NT) vgs__gemm_pack_across(z->k, z->n, q->kernel.nr, src, q->ldb, z->b_direct, out);
    else vgs__gemm_pack_turned(z->k, z->n, q->kernel.nr, src, q->ldb, false, out);
}

/* A tile that crosses the edge of C goes through one beside it. */
static void vgs__gemm_edge_tile(const vgs__gemm_kernel *kernel, int k, const vgs__panels *x, float *c,
                                ptrdiff_t ldc, int rows, int cols, bool add)
{
    float t[VGS__TILE_MAX];
    vgs__panels y = *x;
    int i;
    if (cols <= VGS__FEW_COLS && kernel->narrow)
        for (i = 0; i < rows; i += 6, y.a += 6 * y.ai)
            kernel->narrow(k, &y, t + i * kernel->nr, kernel->nr, false);
    else if (rows <= VGS__FEW_ROWS && kernel->low) kernel->low(k, x, t, kernel->nr, false);
    else kernel->tile(k, x, t, kernel->nr, false);
    kernel->edge(rows, cols, t, kernel->nr, c, ldc, add);
}

/* C[i..i+rows, j..j+cols] (+)= the block of the sum, for one panel of B. */
static void vgs__gemm_tile_row(const vgs__product *q, const vgs__block *z, int j, const float *apack,
                       const float *bpack)
{
    const vgs__gemm_kernel *kernel = &q->kernel;
    int i, mr = kernel->mr, nr = kernel->nr, rows, cols = vgs__min(nr, z->n - j);
    bool add = z->p > 0 || q->ep.accumulate, tn = q->form == VGS__TN;
    float *c = q->c + z->i * q->ldc + z->j + j;
    vgs__panels x;
    x.b = bpack + j * z->k;
    x.bp = nr;
    x.ahead = 0;
    if (z->b_direct && cols == nr) {
        x.b = vgs__gemm_b_at(q, z->p, z->j + j);
        x.bp = q->ldb;
        x.ahead = nr;
    }
    for (i = 0; i < z->m; i += mr, c += mr * q->ldc) {
        rows = vgs__min(mr, z->m - i);
        x.a = apack + i * z->k;
        x.ai = 1;
        x.ap = mr;
        if (q->windows.after) {
            x.ai = z->k;
            x.ap = 1;
        } else if (z->a_direct && rows == mr) {
            x.a = vgs__gemm_a_at(q, z->i + i, z->p);
            x.ai = tn ? 1 : q->lda;
            x.ap = tn ? q->lda : 1;
        }
        if (rows == mr && cols == nr) kernel->tile(z->k, &x, c, q->ldc, add);
        else vgs__gemm_edge_tile(kernel, z->k, &x, c, q->ldc, rows, cols, add);
    }
}

/* c[n] = act(c + bias). The last columns go through a whole group of lanes beside it, so that all elements
   take the same path. */
static void vgs__gemm_finish_row(vgs__finish_fn *finish, const vgs__epilogue *ep, int n, float *c,
                                 const float *bias)
{
    float x[VGS__LANES] = { 0 }, y[VGS__LANES] = { 0 };
    int whole = n / VGS__LANES * VGS__LANES;
    size_t rest = sizeof(float) * (size_t)(n - whole);
    finish(whole, c, bias, ep);
    if (!rest) return;
    memcpy(x, c + whole, rest);
    if (bias) memcpy(y, bias + whole, rest);
    finish(VGS__LANES, x, bias ? y : NULL, ep);
    memcpy(c + whole, x, rest);
}

/* Bias and activation of C[i..i+m, j..j+n], once its sums are complete. */
static void vgs__gemm_finish_tile(const vgs__product *q, int i, int m, int j, int n)
{
    const vgs__epilogue *ep = &q->ep;
    float *c = q->c + i * q->ldc + j;
    int end = i + m;
    if (ep->accumulate || (!ep->bias && ep->act == VGS_ACT_NONE)) return;
    for (; i < end; ++i, c += q->ldc) {
        ptrdiff_t row = ep->rows ? (ptrdiff_t)ep->rows[i] * ep->ldbias : 0;
        vgs__gemm_finish_row(q->kernel.finish, ep, n, c, ep->bias ? ep->bias + row + j : NULL);
    }
}

/* Columns of B when its last panel is filled up. */
static size_t vgs__gemm_padded(const vgs__product *q)
{
    return (size_t)((q->n + q->kernel.nr - 1) / q->kernel.nr * q->kernel.nr);
}

/* True when a strip of 256 rows has no set conflicts in the L1 cache, so that A need not be packed. */
static bool vgs__gemm_fits_l1(ptrdiff_t ld) { return ld <= 32 || (ld < 512 && ld % 64 != 0); }

/* True when A must be packed: with lda a multiple of 1024 the rows of a tile fall into one set of the L1
   cache, and columns enough read them again. */
static bool vgs__gemm_l1_conflict(const vgs__product *q, int columns)
{
    return q->kernel.mr > 8 && q->lda % 1024 == 0 && columns > 512;
}

/* One column of sums over numbers that lie side by side: a tile would leave all lanes but one idle. */
static bool vgs__gemm_is_dot(const vgs__product *q)
{
    return q->kernel.dot && q->n == 1 && !q->packed && !q->windows.after &&
           (q->form == VGS__NT || (q->form == VGS__NN && q->ldb == 1));
}

static void vgs__gemm_dot(const vgs__product *q, int i0, int i1)
{
    int i;
    for (i = i0; i < i1; ++i) {
        float *c = q->c + i * q->ldc, sum = q->kernel.dot(q->k, q->a + i * q->lda, q->b);
        *c = q->ep.accumulate ? *c + sum : sum;
    }
    vgs__gemm_finish_tile(q, i0, i1 - i0, 0, 1);
}

/* C[i0..i1, j0..j1], by one thread with its own workspace. */
static void vgs__gemm_part(const vgs__product *q, int i0, int i1, int j0, int j1, float *work)
{
    float *apack = work + VGS__KC * VGS__NC;
    const float *bpack = work;
    vgs__block z;
    int j, nr = q->kernel.nr;
    if (vgs__gemm_is_dot(q)) {
        if (j1 > j0) vgs__gemm_dot(q, i0, i1);
        return;
    }
    z.a_direct = q->form == VGS__TN ? vgs__gemm_fits_l1(q->lda) : !vgs__gemm_l1_conflict(q, j1 - j0);
    /* B is not packed where it is read too few times */
    z.b_direct = !q->packed && q->form != VGS__NT && i1 - i0 <= 4 * q->kernel.mr;
    for (z.j = j0; z.j < j1; z.j += VGS__NC) {
        z.n = vgs__min(VGS__NC, j1 - z.j);
        for (z.p = 0; z.p == 0 || z.p < q->k; z.p += VGS__KC) {
            z.k = vgs__min(VGS__KC, q->k - z.p);
            if (q->packed) bpack = q->packed + vgs__gemm_padded(q) * (size_t)z.p + (ptrdiff_t)z.j * z.k;
            else vgs__gemm_pack_b(q, &z, work);
            for (z.i = i0; z.i < i1; z.i += VGS__MC) {
                z.m = vgs__min(VGS__MC, i1 - z.i);
                vgs__gemm_pack_a(q, &z, apack);
                for (j = 0; j < z.n; j += nr) vgs__gemm_tile_row(q, &z, j, apack, bpack);
                if (z.p + z.k == q->k) vgs__gemm_finish_tile(q, z.i, z.m, z.j, z.n);
            }
        }
    }
}

/* Threads share C as a grid of equal rectangles and do not wait for each other: what two of them both pack
   is little when the rectangles are near squares. Returns the rows of the grid, those that make the longest
   share shortest; besides the tiles it counts the packing of a panel of A (0.4 tiles) and of B (1 tile). */
static int vgs__gemm_grid_rows(int threads, int apanels, int bpanels)
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

/* Returns where share `index` of `count` begins, in whole panels of `width`; at most `end`. */
static int vgs__gemm_share(int end, int width, int index, int count)
{
    long long panels = (end + width - 1) / width;
    return vgs__min(end, width * (int)(panels * index / count));
}

/* Share `me` of `threads` in packing all of B into out [vgs__gemm_padded(q) k]: for products that take C in
   many blocks of rows. */
static void vgs__gemm_pack_share(const vgs__product *q, float *out, int me, int threads)
{
    vgs__block z;
    memset(&z, 0, sizeof z);
    z.j = vgs__gemm_share(q->n, q->kernel.nr, me, threads);
    z.n = vgs__gemm_share(q->n, q->kernel.nr, me + 1, threads) - z.j;
    for (; z.p < q->k && z.n > 0; z.p += VGS__KC) {
        z.k = vgs__min(VGS__KC, q->k - z.p);
        vgs__gemm_pack_b(q, &z, out + vgs__gemm_padded(q) * (size_t)z.p + (ptrdiff_t)z.j * z.k);
    }
}

static void vgs__gemm_thread(const vgs__product *q, int me, int threads)
{
    int mr = q->kernel.mr, nr = q->kernel.nr;
    int rows = vgs__gemm_grid_rows(threads, (q->m + mr - 1) / mr, (q->n + nr - 1) / nr),
        cols = threads / rows;
    int row = me % rows, col = me / rows;
    vgs__gemm_part(q, vgs__gemm_share(q->m, mr, row, rows), vgs__gemm_share(q->m, mr, row + 1, rows),
                   vgs__gemm_share(q->n, nr, col, cols), vgs__gemm_share(q->n, nr, col + 1, cols),
                   q->work + (size_t)me * VGS__WORK);
}

#ifdef VGS_USE_CBLAS
/* The user's BLAS instead: its sums may depend on the number of rows and of threads. */
static void vgs__gemm_cblas(const vgs__product *q)
{
    cblas_sgemm(CblasRowMajor, q->form == VGS__TN ? CblasTrans : CblasNoTrans,
                q->form == VGS__NT ? CblasTrans : CblasNoTrans, q->m, q->n, q->k, 1.0f, q->a, (int)q->lda,
                q->b, (int)q->ldb, q->ep.accumulate ? 1.0f : 0.0f, q->c, (int)q->ldc);
    vgs__gemm_finish_tile(q, 0, q->m, 0, q->n);
}
#endif

/* Floats of workspace for any product with that many threads. */
static size_t vgs__gemm_work(int threads)
{
    return (size_t)(threads > 1 ? threads : 1) * VGS__WORK;
}

static vgs__product vgs__gemm_product_make(vgs__form form, int m, int n, int k, const float *a, int lda,
                                           const float *b, int ldb, float *c, int ldc,
                                           const vgs__epilogue *ep,
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
    q.kernel = vgs__gemm_kernel_of(isa);
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
    vgs__product q = vgs__gemm_product_make(form, m, n, k, a, lda, b, ldb, c, ldc, ep, work, isa);
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
                vgs__gemm_act_lanes(ep, x);
                sum = x[0];
            }
            *cij = sum;
        }
}

/* ==== >>graph: recording =========================================================================== */

/* Weights that graphs apply. `users` counts the leaves in graphs: a model that is freed while graphs use it
   stays as an empty shell, so that their next run can say so. */
struct vgs_model {
    struct vgs__net *net;                        /* what the weights are: >>model                     */
    vgs_backend *b;
    vgs_buffer *w, *grad, *adam_m, *adam_v;      /* [size]; all but w only once an optimiser is recorded */
    vgs_buffer *flag;                            /* int32 [4]; set, it stops all updates              */
    int64_t step;                                /* of Adam                                           */
    uint64_t version;                            /* grows with every change of w; never 0             */
    int users;
    bool freed;
};

typedef struct vgs__node {
    int op, n_in, in[VGS_MAX_IN];                /* -1 = absent operand                               */
    int rows, cols;                              /* rows < 0: -rows times the batch                   */
    vgs_type type;
    int i[VGS_MAX_ATTR];
    float f[VGS_MAX_ATTR];
    int i_slot[VGS_MAX_ATTR], f_slot[VGS_MAX_ATTR];  /* -1, or the scalar that replaces it at run     */
    int second;                                  /* node that holds the second output, or -1          */
    int alias;                                   /* node whose storage this one looks into, or -1     */
    size_t alias_offset;                         /* in elements, from the start of that storage       */
    int ld;
    const vgs_energy *energy;                    /* borrowed; ENERGY only                             */
    vgs_model *model;                            /* PARAMS: whose weights; ADAM: of what; else NULL   */
    uint64_t seen;                               /* PARAMS: version of the model in the prologue      */
    bool updated;                                /* PARAMS: an effect changes them                    */
    int steps;                                   /* PARAMS: steps of Adam in a run; ADAM: before it   */
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
    int *model_node, n_model;                    /* live leaves that lie in models                    */
    bool dirty;                                  /* the prologue must run again                       */
};

/* A leaf that lies in a model: its weights or its flag. */
static bool vgs__graph_of_model(const vgs__node *n) { return n->model && n->op <= VGS_OP_TABLE; }

static void vgs__graph_leave_model(vgs_model *m) /* one leaf less                                     */
{
    if (--m->users == 0 && m->freed) vgs__free(m);
}

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
static vgs_var vgs__graph_handle(const vgs_graph *g, int id)
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

static int vgs__graph_operand(vgs_graph *g, const char *op, vgs_var v)
{
    int id = vgs__id(g, v);
    if (id < 0 && g->sticky.code == VGS_OK)
        vgs__graph_fail(g, VGS_E_ARG, "%s: an operand is no value of this graph (handle %08x)", op,
                        (unsigned)v.id);
    return g->sticky.code == VGS_OK ? id : -1;
}

static const char *vgs__graph_shape_text(const vgs__node *n, char *buf)
{
    if (n->rows >= 0) snprintf(buf, 40, "[%d,%d]", n->rows, n->cols);
    else if (n->rows == -1) snprintf(buf, 40, "[B,%d]", n->cols);
    else snprintf(buf, 40, "[%dB,%d]", -n->rows, n->cols);
    return buf;
}

static vgs_var vgs__graph_shape_fail(vgs_graph *g, const char *op, int a, int b)
{
    char sa[40], sb[40];
    return vgs__graph_fail(g, VGS_E_SHAPE, "%s: shapes %s and %s do not fit", op,
                           vgs__graph_shape_text(&g->node[a], sa), vgs__graph_shape_text(&g->node[b], sb));
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
static int vgs__graph_push(vgs_graph *g, int op, int rows, int cols, vgs_type type)
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
    n->second = n->alias = -1;
    for (k = 0; k < VGS_MAX_IN; ++k) n->in[k] = -1;
    for (k = 0; k < VGS_MAX_ATTR; ++k) n->i_slot[k] = n->f_slot[k] = -1;
    return g->n_node++;
}

static vgs_var vgs__graph_push_op(vgs_graph *g, int op, int rows, int cols, int a, int b, int c)
{
    int id = vgs__graph_push(g, op, rows, cols, VGS_F32);
    vgs__node *n;
    if (id < 0) return vgs__no_var();
    n = &g->node[id];
    n->in[0] = a;
    n->in[1] = b;
    n->in[2] = c;
    n->n_in = c >= 0 ? 3 : b >= 0 ? 2 : a >= 0 ? 1 : 0;
    return vgs__graph_handle(g, id);
}

static vgs__node *vgs__graph_node_of(vgs_graph *g, vgs_var v)
{
    int id = vgs__id(g, v);
    return id < 0 ? NULL : &g->node[id];
}

static void vgs__graph_attr_f(vgs_graph *g, vgs_var v, int k, float value)
{
    vgs__node *n = vgs__graph_node_of(g, v);
    if (n) n->f[k] = value;
}

static void vgs__graph_attr_i(vgs_graph *g, vgs_var v, int k, int value)
{
    vgs__node *n = vgs__graph_node_of(g, v);
    if (n) n->i[k] = value;
}

static void vgs__graph_slot_f(vgs_graph *g, vgs_var v, int k, vgs_scalar s)
{
    vgs__node *n = vgs__graph_node_of(g, v);
    if (n) n->f_slot[k] = (int)s.id - 1;
}

static void vgs__graph_slot_i(vgs_graph *g, vgs_var v, int k, vgs_scalar s)
{
    vgs__node *n = vgs__graph_node_of(g, v);
    if (n) n->i_slot[k] = (int)s.id - 1;
}

/* The node's second output, made on first use: energy -> its gradient, sort -> its permutation. */
static vgs_var vgs__graph_second(vgs_graph *g, int id, int cols, vgs_type type)
{
    int t = g->node[id].second;
    if (t < 0) {
        t = vgs__graph_push(g, VGS_OP_SECOND, g->node[id].rows, cols, type);
        if (t < 0) return vgs__no_var();
        g->node[t].in[0] = id;
        g->node[t].n_in = 1;
        g->node[id].second = t;
    }
    return vgs__graph_handle(g, t);
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
    for (i = 0; i < g->n_node; ++i) {
        vgs__free(g->node[i].data);
        if (vgs__graph_of_model(&g->node[i])) vgs__graph_leave_model(g->node[i].model);
    }
    if (g->backend) g->backend->buffer_free(g->backend->self, g->arena);
    vgs__free(g->order);
    vgs__free(g->call);
    vgs__free(g->model_node);
    g->order = g->model_node = NULL;
    g->call = NULL;
    g->arena = NULL;
    g->backend = NULL;
    g->n_node = g->n_scalar = g->n_order = g->n_prologue = g->n_model = 0;
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

static vgs_var vgs__graph_leaf(vgs_graph *g, int op, int rows, int cols, vgs_type type)
{
    int id;
    if (rows == 0 || cols <= 0)
        return vgs__graph_fail(g, VGS_E_SHAPE, "%s: rows = %d, cols = %d: must be > 0", vgs_op_name(op), rows,
                               cols);
    id = vgs__graph_push(g, op, rows, cols, type);
    return id < 0 ? vgs__no_var() : vgs__graph_handle(g, id);
}

VGS__DEF vgs_var vgs_input(vgs_graph *g, int cols)
{
    return vgs__graph_leaf(g, VGS_OP_INPUT, -1, cols, VGS_F32);
}
VGS__DEF vgs_var vgs_index(vgs_graph *g) { return vgs__graph_leaf(g, VGS_OP_INPUT, -1, 1, VGS_I32); }
VGS__DEF vgs_var vgs_params(vgs_graph *g, int n) { return vgs__graph_leaf(g, VGS_OP_PARAMS, 1, n, VGS_F32); }

VGS__DEF vgs_var vgs_state(vgs_graph *g, int rows, int cols, vgs_type type)
{
    return vgs__graph_leaf(g, VGS_OP_STATE, rows, cols, type);
}

static vgs_var vgs__graph_table(vgs_graph *g, const void *x, int rows, int cols, vgs_type type)
{
    vgs_var v = vgs__graph_leaf(g, VGS_OP_TABLE, rows < 0 ? 0 : rows, cols, type);
    vgs__node *n = vgs__graph_node_of(g, v);
    size_t count = (size_t)(rows > 0 ? rows : 0) * (size_t)(cols > 0 ? cols : 0);
    if (!n) return v;
    n->data = vgs__alloc(count, 4);
    if (!n->data) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: table [%d,%d]", rows, cols);
    memcpy(n->data, x, count * 4);
    return v;
}

VGS__DEF vgs_var vgs_table(vgs_graph *g, const float *x, int rows, int cols)
{
    return vgs__graph_table(g, x, rows, cols, VGS_F32);
}

VGS__DEF vgs_var vgs_table_int(vgs_graph *g, const int32_t *x, int rows, int cols)
{
    return vgs__graph_table(g, x, rows, cols, VGS_I32);
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

static vgs_var vgs__graph_alias(vgs_graph *g, int base, size_t offset, int rows, int cols, int ld)
{
    int id = vgs__graph_push(g, VGS_OP_VIEW, rows, cols, g->node[base].type);
    vgs__node *n;
    if (id < 0) return vgs__no_var();
    n = &g->node[id];
    n->in[0] = n->alias = base;
    n->n_in = 1;
    n->alias_offset = offset;
    n->ld = ld;
    return vgs__graph_handle(g, id);
}

/* The same view twice is the same node, so that its gradients add up in one place. */
VGS__DEF vgs_var vgs_view(vgs_graph *g, vgs_var params, int offset, int rows, int cols, int ld)
{
    int p = vgs__graph_operand(g, "view", params), i;
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
            n->cols == cols && n->ld == ld) return vgs__graph_handle(g, i);
    }
    return vgs__graph_alias(g, p, (size_t)offset, rows, cols, ld);
}

VGS__DEF vgs_var vgs_cols(vgs_graph *g, vgs_var x, int first, int n)
{
    int a = vgs__graph_operand(g, "cols", x);
    if (a < 0) return vgs__no_var();
    if (first < 0 || n <= 0 || first > g->node[a].cols - n)
        return vgs__graph_fail(g, VGS_E_SHAPE, "cols: columns %d..%d of %d", first, first + n - 1,
                               g->node[a].cols);
    return vgs__graph_alias(g, a, (size_t)first, g->node[a].rows, n, g->node[a].ld);
}

VGS__DEF vgs_var vgs_reshape(vgs_graph *g, vgs_var x, int cols)
{
    int a = vgs__graph_operand(g, "reshape", x), rows;
    double count;
    if (a < 0) return vgs__no_var();
    count = (double)g->node[a].rows * g->node[a].cols;
    rows = cols > 0 ? (int)(count / cols) : 0;
    if (cols <= 0 || (double)rows * cols != count || g->node[a].ld != g->node[a].cols) {
        char s[40];
        return vgs__graph_fail(g, VGS_E_SHAPE, "reshape: %s cannot have %d columns",
                               vgs__graph_shape_text(&g->node[a], s), cols);
    }
    return vgs__graph_alias(g, a, 0, rows, cols, cols);
}

/* ==== >>ops ========================================================================================
   For each op, side by side: k_ the CPU kernel, g_ its gradient as ops of this same table, vgs_ the public
   call with its shape rule. Maps (kind M) and row ops (kind R) fill rows r0..r1, columns c0..c1 of their
   output, every element by the same operations wherever it lies: splitting changes no bit. */

/* Facts of an op in the table, beyond its kind; most ops have none. */
enum {
    VGS__RANDOM  = 1,                            /* other numbers at every run, by i0..i5 (vgs_noise)  */
    VGS__EFFECT  = 2,                            /* writes an operand, and runs for that alone         */
    VGS__SECOND  = 4,                            /* its second output is always made                   */
    VGS__SLOPE   = 8,                            /* its second output is its derivative                */
    VGS__SAMPLES = 16                            /* rows of in[0] are its own only for whole samples   */
};
#define VGS__MIXES(k) (256 << (k))               /* a row of the output may take any row of in[k]      */

typedef struct vgs__k {                          /* a call with its pointers resolved                 */
    float *out, *out2, *in[VGS_MAX_IN];          /* NULL = absent                                     */
    int rows, cols, ld_out, ld_out2;
    int full_rows;                               /* rows before a contiguous map is laid out as one row */
    int in_rows[VGS_MAX_IN], in_cols[VGS_MAX_IN], ld[VGS_MAX_IN];
    const int *i;
    const float *f;
    const vgs_energy *energy;
} vgs__k;

typedef struct vgs__cpu_call vgs__cpu_call;      /* >>cpu                                             */
typedef struct vgs__cpu_group vgs__cpu_group;

/* Measured seconds of one kind of call list, with one thread and with all; the slower way is tried again
   after `wait` runs. */
typedef struct vgs__timing { double cost, took[2]; int runs, wait; } vgs__timing;

typedef struct vgs__cpu {
    vgs_backend base;
    int threads;
    vgs_isa isa;
    float *work;                                 /* [threads]: packing space of the matrix product    */
    float *scratch, *packed;                     /* [threads]: values local to a group; packed B's    */
    size_t scratch_size, packed_size;            /* scratch: of one thread                            */
    vgs__cpu_call *op_call;
    vgs__cpu_group *group;
    int cap_op, cap_group;
    double part[256];                            /* of sum_squares                                    */
    int bad_op, bad_row;                         /* of the check that holds the flag, -1 = none       */
#ifdef _OPENMP
    omp_lock_t flag_lock;                        /* of bad_op, bad_row and the flag                   */
#endif
    int failures, failed;                        /* of this list; group of the first one + 1, 0 = none */
    vgs__timing timing[64];
    vgs_error error;
} vgs__cpu;

/* An op on a whole tensor runs on all threads of a team at once, each with its own `me`. */
typedef struct vgs__team { int me, n; } vgs__team;

static void vgs__team_wait(vgs__team t)
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
    static vgs_status vgs__k_##name(vgs__cpu *cpu, const vgs__k *k, vgs__team team, vgs_error *err)
#define VGS__GRAD(name) \
    static void vgs__g_##name(vgs_graph *g, const vgs__node *n, vgs_var y, vgs_var gy, const bool *need, \
                              vgs_var *gx)
#define VGS__NO_GRAD(name) VGS__GRAD(name) { (void)n; (void)y; (void)gy; (void)need; (void)gx; \
    vgs__graph_fail(g, VGS_E_ARG, "gradient: " #name " has none (first derivatives only)"); }
#define VGS__IN(n, k) vgs__graph_handle(g, (n)->in[k])

/* Kernels for AVX2 and AVX-512, beside those of any processor, of which they keep every bit; >>cpu picks. */
#ifdef VGS__X86
#  define VGS__KERNEL8(name) VGS__AVX2 static void vgs__k_##name##_avx2(const vgs__k *k, int r0, int r1, \
                                                                        int c0, int c1)
#  define VGS__VERSION(name, isa, target)                                                             \
    VGS__HOT target static void vgs__k_##name##isa(const vgs__k *k, int r0, int r1, int c0, int c1)   \
    {                                                                                                 \
        vgs__map_##name(k, r0, r1, c0, c1);                                                           \
    }
#  define VGS__VERSIONS(name) VGS__VERSION(name, _avx2, VGS__AVX2)
#  define VGS__VERSION16(name) VGS__VERSION(name, _avx512, __attribute__((target("avx512f"))))
#else
#  define VGS__VERSIONS(name)
#  define VGS__VERSION16(name)
#endif

/* A map: its loops, which compilers vectorise for each kind of processor; the kernels made of them; and its
   formula as text with the number of operands, which vgs_cl.h compiles (0: it has loops of its own there). */
#define VGS__MAP(name) \
    VGS__INLINE void vgs__map_##name(const vgs__k *k, int r0, int r1, int c0, int c1)
#define VGS__FORMULA(name, operands, expr) \
    static const char vgs__formula_##name[] VGS__UNUSED = #operands ", " #expr;
#define VGS__MAP_KERNELS(name)                                                                        \
    VGS__MAP_HOT VGS__KERNEL(name) { vgs__map_##name(k, r0, r1, c0, c1); }                            \
    VGS__VERSIONS(name)

/* y = expr of a (one operand), of a and b (two); f0, f1, i0 are the op's attributes. */
#define VGS__MAP1_LOOP(name, expr)                                                                    \
    VGS__FORMULA(name, 1, expr)                                                                       \
    VGS__MAP(name)                                                                                    \
    {                                                                                                 \
        const float f0 = k->f[0], f1 = k->f[1];                                                       \
        const int i0 = k->i[0];                                                                       \
        int r, c;                                                                                     \
        (void)f0; (void)f1; (void)i0;                                                                 \
        for (r = r0; r < r1; ++r) {                                                                   \
            const float *pa = k->in[0] + (size_t)r * (size_t)k->ld[0];                                \
            float *y = k->out + (size_t)r * (size_t)k->ld_out;                                        \
            VGS__SAME_PLACES                                                                          \
            for (c = c0; c < c1; ++c) { const float a = pa[c]; y[c] = (expr); }                       \
        }                                                                                             \
    }
#define VGS__MAP1(name, expr) VGS__MAP1_LOOP(name, expr) VGS__MAP_KERNELS(name)

#define VGS__MAP2_LOOP(ea, eb, expr) \
    VGS__SAME_PLACES for (c = c0; c < c1; ++c) { const float a = (ea), b = (eb); y[c] = (expr); }

/* An operand of one row has row stride 0; one of one column is a number for the whole row. */
#define VGS__MAP2(name, expr)                                                                         \
    VGS__FORMULA(name, 2, expr)                                                                       \
    VGS__MAP(name)                                                                                    \
    {                                                                                                 \
        const float f0 = k->f[0], f1 = k->f[1];                                                       \
        const int i0 = k->i[0];                                                                       \
        const size_t sa = k->in_rows[0] == 1 ? 0 : (size_t)k->ld[0];                                  \
        const size_t sb = k->in_rows[1] == 1 ? 0 : (size_t)k->ld[1];                                  \
        const bool wide_a = k->in_cols[0] == k->cols, wide_b = k->in_cols[1] == k->cols;              \
        int r, c;                                                                                     \
        (void)f0; (void)f1; (void)i0;                                                                 \
        for (r = r0; r < r1; ++r) {                                                                   \
            const float *pa = k->in[0] + (size_t)r * sa, *pb = k->in[1] + (size_t)r * sb;             \
            float *y = k->out + (size_t)r * (size_t)k->ld_out;                                        \
            if (wide_a && wide_b) VGS__MAP2_LOOP(pa[c], pb[c], expr)                                  \
            else if (wide_a) { const float one = pb[0]; VGS__MAP2_LOOP(pa[c], one, expr) }            \
            else { const float one = pa[0]; VGS__MAP2_LOOP(one, pb[c], expr) }                        \
        }                                                                                             \
    }                                                                                                 \
    VGS__MAP_KERNELS(name)

static vgs_var vgs__scatter_rows(vgs_graph *g, vgs_var x, vgs_var idx, int rows);

/* ---- shape rules and small helpers for gradients ------------------------------------------------- */

static int vgs__op_float_operand(vgs_graph *g, const char *op, vgs_var x)
{
    int a = vgs__graph_operand(g, op, x);
    if (a < 0 || g->node[a].type == VGS_F32) return a;
    vgs__graph_fail(g, VGS_E_SHAPE, "%s: an operand is int32, not float", op);
    return -1;
}

static vgs_var vgs__op_unary(vgs_graph *g, int op, vgs_var x)
{
    int a = vgs__op_float_operand(g, vgs_op_name(op), x);
    return a < 0 ? vgs__no_var() : vgs__graph_push_op(g, op, g->node[a].rows, g->node[a].cols, a, -1, -1);
}

static vgs_var vgs__op_unary_f(vgs_graph *g, int op, vgs_var x, float f0, float f1)
{
    vgs_var v = vgs__op_unary(g, op, x);
    vgs__graph_attr_f(g, v, 0, f0);
    vgs__graph_attr_f(g, v, 1, f1);
    return v;
}

static int vgs__op_broadcast(int a, int b, bool *ok)                   /* common length of a and b       */
{
    *ok = *ok && (a == b || a == 1 || b == 1);
    return a == 1 ? b : a;
}

static vgs_var vgs__op_binary(vgs_graph *g, int op, vgs_var x, vgs_var z)
{
    const char *name = vgs_op_name(op);
    int a = vgs__op_float_operand(g, name, x), b = vgs__op_float_operand(g, name, z), rows, cols;
    bool ok = true;
    if (a < 0 || b < 0) return vgs__no_var();
    rows = vgs__op_broadcast(g->node[a].rows, g->node[b].rows, &ok);
    cols = vgs__op_broadcast(g->node[a].cols, g->node[b].cols, &ok);
    if (!ok) return vgs__graph_shape_fail(g, name, a, b);
    return vgs__graph_push_op(g, op, rows, cols, a, b, -1);
}

/* Sums a gradient over the rows and columns along which operand k of n was stretched. */
static vgs_var vgs__reduce_to(vgs_graph *g, const vgs__node *n, int k, vgs_var gx)
{
    const vgs__node *x = &g->node[n->in[k]];
    int rows = x->rows, cols = x->cols;
    if (cols == 1 && n->cols != 1) gx = vgs_sum_cols(g, gx);
    if (rows == 1 && n->rows != 1) gx = vgs_sum_rows(g, gx);
    return gx;
}

static void vgs__op_set_grad(vgs_graph *g, const vgs__node *n, int k, vgs_var gx_k, vgs_var *gx)
{
    gx[k] = vgs__reduce_to(g, n, k, gx_k);
}

/* ---- arithmetic ---------------------------------------------------------------------------------- */

VGS__MAP2(add, a + b)
VGS__GRAD(add)
{
    (void)y;
    if (need[0]) vgs__op_set_grad(g, n, 0, gy, gx);
    if (need[1]) vgs__op_set_grad(g, n, 1, gy, gx);
}
VGS__DEF vgs_var vgs_add(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__op_binary(g, VGS_OP_ADD, a, b); }

VGS__MAP2(sub, a - b)
VGS__GRAD(sub)
{
    (void)y;
    if (need[0]) vgs__op_set_grad(g, n, 0, gy, gx);
    if (need[1]) vgs__op_set_grad(g, n, 1, vgs_affine(g, gy, -1.0f, 0.0f), gx);
}
VGS__DEF vgs_var vgs_sub(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__op_binary(g, VGS_OP_SUB, a, b); }

VGS__MAP2(mul, a * b)
VGS__GRAD(mul)
{
    (void)y;
    if (need[0]) vgs__op_set_grad(g, n, 0, vgs_mul(g, gy, VGS__IN(n, 1)), gx);
    if (need[1]) vgs__op_set_grad(g, n, 1, vgs_mul(g, gy, VGS__IN(n, 0)), gx);
}
VGS__DEF vgs_var vgs_mul(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__op_binary(g, VGS_OP_MUL, a, b); }

VGS__MAP2(div, a / b)
VGS__GRAD(div)
{
    vgs_var ga = vgs_div(g, gy, VGS__IN(n, 1));
    if (need[0]) vgs__op_set_grad(g, n, 0, ga, gx);
    if (need[1]) vgs__op_set_grad(g, n, 1, vgs_affine(g, vgs_mul(g, ga, y), -1.0f, 0.0f), gx);
}
VGS__DEF vgs_var vgs_div(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__op_binary(g, VGS_OP_DIV, a, b); }

VGS__MAP1(affine, a * f0 + f1)
VGS__GRAD(affine)
{
    vgs_var v = vgs__op_unary_f(g, VGS_OP_AFFINE, gy, n->f[0], 0.0f);
    vgs__node *m = vgs__graph_node_of(g, v);
    (void)y;
    (void)need;
    if (m) m->f_slot[0] = n->f_slot[0];
    gx[0] = v;
}
VGS__DEF vgs_var vgs_affine(vgs_graph *g, vgs_var x, float a, float b)
{
    return vgs__op_unary_f(g, VGS_OP_AFFINE, x, a, b);
}
VGS__DEF vgs_var vgs_affine_by(vgs_graph *g, vgs_var x, vgs_scalar a, vgs_scalar b)
{
    vgs_var v = vgs__op_unary_f(g, VGS_OP_AFFINE, x, 1.0f, 0.0f);
    vgs__graph_slot_f(g, v, 0, a);
    vgs__graph_slot_f(g, v, 1, b);
    return v;
}

/* y = f0 a + f1 b + f2 c; b and c may be absent. The schedule step: a_t x - mu + sigma eps. */
VGS__MAP(combine)
{
    const float f0 = k->f[0], f1 = k->f[1], f2 = k->f[2];
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *pa = k->in[0] + (size_t)r * (size_t)k->ld[0];
        const float *pb = k->in[1] + (size_t)r * (size_t)k->ld[1];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        if (k->in[2]) {
            const float *pc = k->in[2] + (size_t)r * (size_t)k->ld[2];
            VGS__SAME_PLACES
            for (c = c0; c < c1; ++c) y[c] = pa[c] * f0 + pb[c] * f1 + pc[c] * f2;
        } else {
            VGS__SAME_PLACES
            for (c = c0; c < c1; ++c) y[c] = pa[c] * f0 + pb[c] * f1;
        }
    }
}
VGS__FORMULA(combine, 0, -)
VGS__MAP_KERNELS(combine)
VGS__GRAD(combine)
{
    int k;
    (void)y;
    for (k = 0; k < 2; ++k) {
        vgs__node *scaled;
        if (!need[k]) continue;
        gx[k] = vgs_affine(g, gy, n->f[k], 0.0f);
        if ((scaled = vgs__graph_node_of(g, gx[k])) != NULL) scaled->f_slot[0] = n->f_slot[k];
    }
}
VGS__DEF vgs_var vgs_combine(vgs_graph *g, vgs_var a, float fa, vgs_var b, float fb)
{
    int ia = vgs__op_float_operand(g, "combine", a), ib = vgs__op_float_operand(g, "combine", b);
    vgs_var v;
    if (ia < 0 || ib < 0) return vgs__no_var();
    if (g->node[ia].rows != g->node[ib].rows || g->node[ia].cols != g->node[ib].cols)
        return vgs__graph_shape_fail(g, "combine", ia, ib);
    v = vgs__graph_push_op(g, VGS_OP_COMBINE, g->node[ia].rows, g->node[ia].cols, ia, ib, -1);
    vgs__graph_attr_f(g, v, 0, fa);
    vgs__graph_attr_f(g, v, 1, fb);
    return v;
}
VGS__DEF vgs_var vgs_combine_by(vgs_graph *g, vgs_var a, vgs_scalar fa, vgs_var b, vgs_scalar fb)
{
    vgs_var v = vgs_combine(g, a, 1.0f, b, 1.0f);
    vgs__graph_slot_f(g, v, 0, fa);
    vgs__graph_slot_f(g, v, 1, fb);
    return v;
}

/* ---- functions of one number --------------------------------------------------------------------- */

#define VGS__UNARY_DEF(name, ID) \
    VGS__DEF vgs_var vgs_##name(vgs_graph *g, vgs_var x) { return vgs__op_unary(g, VGS_OP_##ID, x); }
/* gradient rule in one expression of gy, y and x = the operand */
#define VGS__GRAD1(name, expr) \
    VGS__GRAD(name) { const vgs_var x = VGS__IN(n, 0); (void)need; (void)x; (void)y; gx[0] = (expr); }
/* kernel, gradient and call of a function of one number */
#define VGS__UNARY(name, ID, expr, gradient) \
    VGS__MAP1(name, expr) VGS__GRAD1(name, gradient) VGS__UNARY_DEF(name, ID)

VGS__UNARY(exp, EXP, vgs__exp(a), vgs_mul(g, gy, y))
VGS__VERSION16(exp)

VGS__UNARY(log, LOG, vgs__log(a), vgs_div(g, gy, x))

VGS__MAP1_LOOP(sqrt, sqrtf(a))
VGS__MAP_HOT VGS__KERNEL(sqrt) { vgs__map_sqrt(k, r0, r1, c0, c1); }
#ifdef VGS__X86
VGS__KERNEL8(sqrt)                                                   /* sqrtf may set errno: no lanes  */
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        for (c = c0; c < c1; c += 8) vgs__store8(y + c, c1 - c, _mm256_sqrt_ps(vgs__load8(x + c, c1 - c)));
    }
}
#endif
VGS__GRAD1(sqrt, vgs_affine(g, vgs_div(g, gy, y), 0.5f, 0.0f))
VGS__UNARY_DEF(sqrt, SQRT)

VGS__UNARY(square, SQUARE, a * a, vgs_affine(g, vgs_mul(g, gy, x), 2.0f, 0.0f))

VGS__UNARY(reciprocal, RECIPROCAL, 1.0f / a, vgs_affine(g, vgs_mul(g, gy, vgs_square(g, y)), -1.0f, 0.0f))

VGS__UNARY(abs, ABS, fabsf(a), vgs__op_binary(g, VGS_OP_ABS_GRAD, gy, x))
VGS__MAP2(abs_grad, b > 0.0f ? a : b < 0.0f ? -a : 0.0f)
VGS__NO_GRAD(abs_grad)

VGS__INLINE void vgs__sincos(float x, float *s, float *c)            /* turns in [0,1) first           */
{
    float u = x * 0.159154943091895336f, n = vgs__rounded(u + 12582912.0f) - 12582912.0f;
    u = vgs__pick(fabsf(u) < 4194304.0f, u - n, u - u);              /* too large: no digits are left  */
    vgs__sincos_turns(vgs__pick(u < 0.0f, u + 1.0f, u), s, c);
}
VGS__INLINE float vgs__sin(float x) { float s, c; vgs__sincos(x, &s, &c); return s; }
VGS__INLINE float vgs__cos(float x) { float s, c; vgs__sincos(x, &s, &c); return c; }

VGS__UNARY(sin, SIN, vgs__sin(a), vgs_mul(g, gy, vgs_cos(g, x)))

VGS__UNARY(cos, COS, vgs__cos(a), vgs_affine(g, vgs_mul(g, gy, vgs_sin(g, x)), -1.0f, 0.0f))

VGS__UNARY(relu, RELU, a > 0.0f ? a : (a == a ? 0.0f : a), vgs__op_binary(g, VGS_OP_RELU_GRAD, gy, y))
VGS__MAP2(relu_grad, b > 0.0f ? a : 0.0f)                            /* from the output                */
VGS__NO_GRAD(relu_grad)

/* out2: the derivative, so that forward and gradient share the exponential */
VGS__MAP(silu)
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        float *slope = k->out2 ? k->out2 + (size_t)r * (size_t)k->ld_out2 : NULL;
        if (slope) {
            VGS__SAME_PLACES
            for (c = c0; c < c1; ++c) {
                float a = x[c], s = vgs__sigmoid(a);
                y[c] = a * s;
                slope[c] = s * (1.0f + a * (1.0f - s));
            }
        } else {
            VGS__SAME_PLACES
            for (c = c0; c < c1; ++c) y[c] = x[c] * vgs__sigmoid(x[c]);
        }
    }
}
VGS__FORMULA(silu, 0, a * vgs__sigmoid(a))
VGS__MAP_KERNELS(silu)
VGS__VERSION16(silu)
VGS__GRAD(silu)
{
    (void)need;
    gx[0] = vgs_mul(g, gy, vgs__graph_second(g, vgs__id(g, y), n->cols, VGS_F32));
}
VGS__UNARY_DEF(silu, SILU)

VGS__UNARY(softplus, SOFTPLUS, vgs__softplus(a), vgs_mul(g, gy, vgs_sigmoid(g, x)))

VGS__UNARY(sigmoid, SIGMOID, vgs__sigmoid(a), vgs__op_binary(g, VGS_OP_SIGMOID_GRAD, gy, y))
VGS__MAP2(sigmoid_grad, a * b * (1.0f - b))
VGS__NO_GRAD(sigmoid_grad)

VGS__UNARY(tanh, TANH, vgs__tanh(a), vgs__op_binary(g, VGS_OP_TANH_GRAD, gy, y))
VGS__MAP2(tanh_grad, a * (1.0f - b * b))
VGS__NO_GRAD(tanh_grad)

static vgs_var vgs__clamp_grad(vgs_graph *g, vgs_var gy, vgs_var x, const vgs__node *n)
{
    vgs_var v = vgs__op_binary(g, VGS_OP_CLAMP_GRAD, gy, x);
    vgs__graph_attr_f(g, v, 0, n->f[0]);
    vgs__graph_attr_f(g, v, 1, n->f[1]);
    return v;
}
VGS__MAP1(clamp, a < f0 ? f0 : a > f1 ? f1 : a)
VGS__GRAD1(clamp, vgs__clamp_grad(g, gy, x, n))
VGS__MAP2(clamp_grad, (b < f0 || b > f1) ? 0.0f : a)
VGS__NO_GRAD(clamp_grad)
VGS__DEF vgs_var vgs_clamp(vgs_graph *g, vgs_var x, float lo, float hi)
{
    return vgs__op_unary_f(g, VGS_OP_CLAMP, x, lo, hi);
}

/* x where e <= f0, exactly 0 above and for NaN: the drift of an energy that is cut at f0 (never 0 * inf). */
VGS__MAP2(mask_above, b <= f0 ? a : 0.0f)
VGS__GRAD(mask_above)                                                /* of x; e only decides           */
{
    (void)y;
    if (need[0]) vgs__op_set_grad(g, n, 0, vgs_mask_above(g, gy, VGS__IN(n, 1), n->f[0]), gx);
}
VGS__DEF vgs_var vgs_mask_above(vgs_graph *g, vgs_var x, vgs_var e, float limit)
{
    vgs_var v = vgs__op_binary(g, VGS_OP_MASK_ABOVE, x, e);
    vgs__graph_attr_f(g, v, 0, limit);
    return v;
}

VGS__MAP2(max, a >= b || a != a ? a : b)                              /* NaN if one is               */
VGS__GRAD(max)
{
    vgs_var to_a = vgs_mask_above(g, gy, vgs_sub(g, VGS__IN(n, 1), VGS__IN(n, 0)), 0.0f);
    (void)y;
    if (need[0]) vgs__op_set_grad(g, n, 0, to_a, gx);
    if (need[1]) vgs__op_set_grad(g, n, 1, vgs_sub(g, gy, to_a), gx);
}
VGS__DEF vgs_var vgs_max(vgs_graph *g, vgs_var a, vgs_var b) { return vgs__op_binary(g, VGS_OP_MAX, a, b); }

VGS__MAP(fill)                                                       /* f0; over the rows of it if i0  */
{
    const float f0 = k->i[0] ? k->f[0] / (float)k->full_rows : k->f[0];
    int r, c;
    for (r = r0; r < r1; ++r)
        for (c = c0; c < c1; ++c) k->out[(size_t)r * (size_t)k->ld_out + (size_t)c] = f0;
}
VGS__FORMULA(fill, 0, -)
VGS__MAP_KERNELS(fill)
VGS__NO_GRAD(fill)

VGS__DEF vgs_var vgs_fill(vgs_graph *g, int rows, int cols, float value)
{
    vgs_var v = vgs__graph_leaf(g, VGS_OP_FILL, rows, cols, VGS_F32);
    vgs__graph_attr_f(g, v, 0, value);
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
VGS__MAP2(loss, vgs__loss(a - b, i0))
VGS__MAP2(loss_grad, vgs__loss_slope(a - b, i0))
VGS__NO_GRAD(loss_grad)
VGS__GRAD(loss)                                                      /* the target is a constant       */
{
    vgs_var s = vgs__op_binary(g, VGS_OP_LOSS_GRAD, VGS__IN(n, 0), VGS__IN(n, 1));
    (void)y;
    vgs__graph_attr_i(g, s, 0, n->i[0]);
    if (need[0]) vgs__op_set_grad(g, n, 0, vgs_mul(g, gy, s), gx);
    if (need[1]) vgs__op_set_grad(g, n, 1, vgs_affine(g, vgs_mul(g, gy, s), -1.0f, 0.0f), gx);
}
VGS__DEF vgs_var vgs_loss_of(vgs_graph *g, vgs_var prediction, vgs_var target, vgs_loss kind)
{
    vgs_var v = vgs__op_binary(g, VGS_OP_LOSS, prediction, target);
    vgs__graph_attr_i(g, v, 0, (int)kind);
    return v;
}

/* ---- integers ------------------------------------------------------------------------------------ */

VGS__MAP(fill_int)                                                   /* i0 everywhere                  */
{
    int r, c;
    for (r = r0; r < r1; ++r)
        for (c = c0; c < c1; ++c) memcpy(&k->out[(size_t)r * (size_t)k->ld_out + (size_t)c], &k->i[0], 4);
}
VGS__FORMULA(fill_int, 0, -)
VGS__MAP_KERNELS(fill_int)
VGS__NO_GRAD(fill_int)
VGS__DEF vgs_var vgs_fill_int(vgs_graph *g, int rows, vgs_scalar value)
{
    vgs_var v = vgs__graph_leaf(g, VGS_OP_FILL_INT, rows, 1, VGS_I32);
    vgs__graph_slot_i(g, v, 0, value);
    return v;
}

VGS__MAP(int_div)                                                    /* a / i0                         */
{
    int r, c, v;
    for (r = r0; r < r1; ++r)
        for (c = c0; c < c1; ++c) {
            memcpy(&v, &k->in[0][(size_t)r * (size_t)k->ld[0] + (size_t)c], 4);
            v /= k->i[0];
            memcpy(&k->out[(size_t)r * (size_t)k->ld_out + (size_t)c], &v, 4);
        }
}
VGS__FORMULA(int_div, 0, -)
VGS__MAP_KERNELS(int_div)
VGS__NO_GRAD(int_div)
static vgs_var vgs__int_div(vgs_graph *g, vgs_var x, int by)
{
    int a = vgs__graph_operand(g, "int_div", x);
    vgs_var v = a < 0 ? vgs__no_var() : vgs__graph_leaf(g, VGS_OP_INT_DIV, g->node[a].rows, g->node[a].cols,
                                                        VGS_I32);
    vgs__node *n = vgs__graph_node_of(g, v);
    if (!n) return v;
    n->in[0] = a;
    n->n_in = 1;
    n->i[0] = by;
    return v;
}

VGS__INLINE int vgs__op_int_at(const float *p, size_t i)             /* an int32 in a 4-byte cell      */
{
    int32_t v;
    memcpy(&v, p + i, 4);
    return v;
}

/* ---- matrix products ----------------------------------------------------------------------------- */

/* i0 = form, i1 = activation (f0, f1: its limits); in: a, b, bias or table, row index of the table.
   i2: b is what PACK makes of it. i4 > 0: a row of the product is of a window of a, of whose pixels a sample
   has i3, and i4 windows; in[4] and in[5] are the start and list that STENCIL has for them (its i3). */
static vgs__product vgs__matmul_product(const vgs__cpu *cpu, const vgs__k *k)
{
    vgs__product q;
    vgs__epilogue ep;
    int depth = k->i[0] == VGS__TN ? k->in_rows[0] : k->i[4] ? k->in_cols[1] : k->in_cols[0];
    memset(&ep, 0, sizeof ep);
    ep.bias = k->in[2];
    ep.ldbias = k->ld[2];
    ep.rows = (const int32_t *)(const void *)k->in[3];
    ep.act = (vgs_act)k->i[1];
    ep.lo = k->f[0];
    ep.hi = k->f[1];
    q = vgs__gemm_product_make((vgs__form)k->i[0], k->rows, k->cols, depth, k->in[0], k->ld[0], k->in[1],
                               k->ld[1], k->out, k->ld_out, &ep, cpu->work, cpu->isa);
    if (k->i[2]) q.packed = k->in[1];
    if (!k->i[4]) return q;
    q.windows.start = (const int32_t *)(const void *)k->in[4];
    q.windows.list = (const int32_t *)(const void *)k->in[5];
    q.windows.before = k->i[3];
    q.windows.after = k->i[4];
    q.windows.channels = k->in_cols[0];
    q.windows.places = depth / k->in_cols[0];
    return q;
}
VGS__WHOLE(matmul)                                                   /* TN; others go by rows, >>cpu   */
{
    vgs__product q = vgs__matmul_product(cpu, k);
    (void)err;
    if (q.m <= 0 || q.n <= 0) return VGS_OK;
#ifdef VGS_USE_CBLAS
    if (q.k > 0) {
        if (team.me == 0) vgs__gemm_cblas(&q);
        return VGS_OK;
    }
#endif
    vgs__gemm_thread(&q, team.me, team.n);
    return VGS_OK;
}

/* i0 = form, NT or NN, of a product, i1 = width of a panel: its B [n,k] or [k,n] in blocks of KC of the sum,
   a block in panels [k][i1] of B's columns, the last one filled up with zeros. */
VGS__WHOLE(pack)
{
    bool nt = k->i[0] == VGS__NT;
    int n = nt ? k->in_rows[0] : k->in_cols[0], depth = nt ? k->in_cols[0] : k->in_rows[0];
    vgs__product q = vgs__gemm_product_make((vgs__form)k->i[0], 0, n, depth, NULL, 0, k->in[0], k->ld[0],
                                            NULL, 0, NULL, NULL, cpu->isa);
    (void)err;
    q.kernel.nr = k->i[1];
    vgs__gemm_pack_share(&q, k->out, team.me, team.n);
    return VGS_OK;
}
VGS__NO_GRAD(pack)

static vgs_var vgs__matmul_as(vgs_graph *g, int form, vgs_var x, vgs_var z)
{
    int a = vgs__op_float_operand(g, "matmul", x), b = vgs__op_float_operand(g, "matmul", z), rows, cols, da,
        db;
    vgs_var v;
    if (a < 0 || b < 0) return vgs__no_var();
    rows = form == VGS__TN ? g->node[a].cols : g->node[a].rows;
    cols = form == VGS__NT ? g->node[b].rows : g->node[b].cols;
    da = form == VGS__TN ? g->node[a].rows : g->node[a].cols;
    db = form == VGS__NT ? g->node[b].cols : g->node[b].rows;
    if (da != db || cols <= 0 || (form != VGS__TN && da < 0))
        return vgs__graph_shape_fail(g, form == VGS__NT ? "linear" : "matmul", a, b);
    v = vgs__graph_push_op(g, VGS_OP_MATMUL, rows, cols, a, b, -1);
    vgs__graph_attr_i(g, v, 0, form);
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

static bool vgs__op_is_index(const vgs__node *n) { return n->type == VGS_I32 && n->cols == 1 && n->ld == 1; }

/* x w^T + bias[idx] */
static vgs_var vgs__linear(vgs_graph *g, vgs_var x, vgs_var w, vgs_var bias, vgs_var idx)
{
    vgs_var v = vgs__matmul_as(g, VGS__NT, x, w);
    int id = vgs__id(g, v), b, t = -1;
    if (id < 0 || !bias.id) return v;
    b = vgs__graph_operand(g, "linear: bias", bias);
    if (idx.id) t = vgs__graph_operand(g, "linear: index", idx);
    if (b < 0 || (idx.id && t < 0)) return vgs__no_var();
    if (g->node[b].cols != g->node[id].cols || (t < 0 && g->node[b].rows != 1) || g->node[b].rows < 0)
        return vgs__graph_shape_fail(g, "linear: bias", id, b);
    if (t >= 0 && (g->node[t].rows != g->node[id].rows || !vgs__op_is_index(&g->node[t])))
        return vgs__graph_shape_fail(g, "linear: index", id, t);
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

VGS__INLINE float vgs__op_row_sum(const float *x, int n)             /* 16 lanes, then a fixed tree    */
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
            k->f[0] * vgs__op_row_sum(k->in[0] + (size_t)r * (size_t)k->ld[0], k->in_cols[0]);
}
VGS__GRAD(sum_cols)
{
    (void)y;
    (void)need;
    gx[0] = vgs_mul(g, vgs_fill(g, 1, g->node[n->in[0]].cols, n->f[0]), gy);
}
static vgs_var vgs__sum_cols(vgs_graph *g, vgs_var x, bool mean)
{
    int a = vgs__graph_operand(g, "sum_cols", x);
    vgs_var v;
    if (a < 0) return vgs__no_var();
    v = vgs__graph_push_op(g, VGS_OP_SUM_COLS, g->node[a].rows, 1, a, -1, -1);
    vgs__graph_attr_f(g, v, 0, mean ? 1.0f / (float)g->node[a].cols : 1.0f);
    return v;
}
VGS__DEF vgs_var vgs_sum_cols (vgs_graph *g, vgs_var x) { return vgs__sum_cols(g, x, false); }
VGS__DEF vgs_var vgs_mean_cols(vgs_graph *g, vgs_var x) { return vgs__sum_cols(g, x, true); }

/* total[0..n] += the sum, in double, of `count` <= 64 rows of x: rows hit[0], hit[1], ..., or 0, 1, ... */
VGS__MAP_HOT static void vgs__op_add_rows(const float *x, int ld, const int *hit, int count, int n,
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
VGS__AVX2 static void vgs__op_add_rows_avx2(const float *x, int ld, const int *hit, int count, int n,
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
    vgs__op_add_rows(x + whole, ld, hit, count, n - whole, total + whole);
}
#endif

typedef void vgs__add_rows_fn(const float *x, int ld, const int *hit, int count, int n, double *total);
static vgs__add_rows_fn *vgs__op_add_rows_of(const vgs__cpu *cpu)
{
#ifdef VGS__X86
    if (cpu->isa == VGS_ISA_AVX2 || cpu->isa == VGS_ISA_AVX512) return vgs__op_add_rows_avx2;
#endif
    (void)cpu;
    return vgs__op_add_rows;
}

/* Columns of x summed over its rows, or over those in list[0..count), which ascend; n <= VGS__SUM_COLS.
   Blocks of 64 rows of x are each summed in double and then added to the total, in order. */
enum { VGS__SUM_ROWS = 64, VGS__SUM_COLS = 512 };
static void vgs__sum_rows_strip(vgs__add_rows_fn *add, const float *x, int ld, const int *list, int count,
                                int n,
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
    vgs__add_rows_fn *add = vgs__op_add_rows_of(cpu);
    (void)err;
    for (s = team.me; s < strips; s += team.n) {
        double total[64];
        int c, c0 = s * 64, n = k->cols - c0 < 64 ? k->cols - c0 : 64;
        vgs__sum_rows_strip(add, k->in[0] + c0, k->ld[0], NULL, rows, n, total);
        for (c = 0; c < n; ++c) k->out[c0 + c] = (float)(k->i[0] && rows ? total[c] / rows : total[c]);
    }
    return VGS_OK;
}
VGS__GRAD(sum_rows)
{
    vgs_var v = vgs_fill(g, g->node[n->in[0]].rows, 1, 1.0f);
    (void)y;
    (void)need;
    vgs__graph_attr_i(g, v, 0, n->i[0]);
    gx[0] = vgs_mul(g, v, gy);
}
static vgs_var vgs__sum_rows(vgs_graph *g, vgs_var x, bool mean)
{
    int a = vgs__graph_operand(g, "sum_rows", x);
    vgs_var v;
    if (a < 0) return vgs__no_var();
    v = vgs__graph_push_op(g, VGS_OP_SUM_ROWS, 1, g->node[a].cols, a, -1, -1);
    vgs__graph_attr_i(g, v, 0, mean);
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
    int a = vgs__graph_operand(g, "logsumexp", x);
    return a < 0 ? vgs__no_var() : vgs__graph_push_op(g, VGS_OP_LOGSUMEXP, g->node[a].rows, 1, a, -1, -1);
}

/* ---- layer norm over columns: y = gain (x - mean)/sqrt(var + eps) + bias --------------------------- */

#define VGS__NORM_EPS 1e-5f

VGS__INLINE void vgs__layernorm_moments(const float *x, int n, float *mean, float *rstd)
{
    float m = vgs__op_row_sum(x, n) / (float)n, s[16] = { 0 };
    int i = 0, j;
    for (; i + 16 <= n; i += 16)
        for (j = 0; j < 16; ++j) s[j] += (x[i + j] - m) * (x[i + j] - m);
    for (j = 0; j < n - i; ++j) s[j] += (x[i + j] - m) * (x[i + j] - m);
    *mean = m;
    *rstd = 1.0f / sqrtf(vgs__op_row_sum(s, 16) / (float)n + VGS__NORM_EPS);
}

VGS__MAP_HOT VGS__KERNEL(layernorm)
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0], *gain = k->in[1], *bias = k->in[2];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, m, s;
        vgs__layernorm_moments(x, k->cols, &m, &s);
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
        vgs__layernorm_moments(x, k->cols, &m, &s);
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
        vgs__layernorm_moments(x, n, &m, &s);
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
        mh = vgs__op_row_sum(sh, 16) / (float)n;
        mx = vgs__op_row_sum(sx, 16) / (float)n;
        for (c = 0; c < n; ++c) y[c] = s * (gain[c] * gy[c] - mh - (x[c] - m) * s * mx);
    }
}
VGS__NO_GRAD(layernorm_grad)

#ifdef VGS__X86
VGS__V8 float vgs__tree8(__m256 v)                                   /* the end of vgs__op_row_sum        */
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
        gx[0] = vgs__graph_push_op(g, VGS_OP_LAYERNORM_GRAD, n->rows, n->cols, n->in[0], n->in[1],
                                   vgs__id(g, gy));
    if (need[1]) gx[1] = vgs_sum_rows(g,
                                      vgs_mul(g, gy, vgs__op_unary(g, VGS_OP_LAYERNORM_HAT, VGS__IN(n, 0))));
    if (need[2]) gx[2] = vgs_sum_rows(g, gy);
}
VGS__DEF vgs_var vgs_layernorm(vgs_graph *g, vgs_var x, vgs_var gain, vgs_var bias)
{
    int a = vgs__graph_operand(g, "layernorm", x), b = vgs__graph_operand(g, "layernorm", gain);
    int c = vgs__graph_operand(g, "layernorm", bias);
    if (a < 0 || b < 0 || c < 0) return vgs__no_var();
    if (g->node[b].rows != 1 || g->node[b].cols != g->node[a].cols)
        return vgs__graph_shape_fail(g, "layernorm: gain", a, b);
    if (g->node[c].rows != 1 || g->node[c].cols != g->node[a].cols)
        return vgs__graph_shape_fail(g, "layernorm: bias", a, c);
    return vgs__graph_push_op(g, VGS_OP_LAYERNORM, g->node[a].rows, g->node[a].cols, a, b, c);
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
    int a = vgs__graph_operand(g, "pad_cols", x);
    vgs_var v = a < 0 ? vgs__no_var()
        : vgs__graph_push_op(g, VGS_OP_PAD_COLS, g->node[a].rows, total, a, -1, -1);
    vgs__graph_attr_i(g, v, 0, first);
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
    int a = vgs__graph_operand(g, "concat", x), b = vgs__graph_operand(g, "concat", z);
    if (a < 0 || b < 0) return vgs__no_var();
    if (g->node[a].rows != g->node[b].rows || g->node[a].cols > INT_MAX - g->node[b].cols)
        return vgs__graph_shape_fail(g, "concat", a, b);
    return vgs__graph_push_op(g, VGS_OP_CONCAT, g->node[a].rows, g->node[a].cols + g->node[b].cols, a, b, -1);
}

/* ---- rows by index ------------------------------------------------------------------------------- */

VGS__KERNEL(gather)                                                  /* row idx[r] of x; any type      */
{
    int r;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r)
        memcpy(k->out + (size_t)r * (size_t)k->ld_out,
               k->in[0] + (size_t)vgs__op_int_at(k->in[1], (size_t)r * (size_t)k->ld[1]) * (size_t)k->ld[0],
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
    int a = vgs__graph_operand(g, "gather", x), b = vgs__graph_operand(g, "gather", idx);
    vgs_var v;
    if (a < 0 || b < 0) return vgs__no_var();
    if (!vgs__op_is_index(&g->node[b]) || g->node[a].rows < 0)
        return vgs__graph_shape_fail(g, "gather", a, b);
    v = vgs__graph_push_op(g, VGS_OP_GATHER, g->node[b].rows, g->node[a].cols, a, b, -1);
    if (v.id) g->node[vgs__id(g, v)].type = g->node[a].type;
    return v;
}

/* Counts and sorts: the rows with idx == t are list[start[t]..start[t + 1]), ascending, t < tables. */
static void vgs__op_rows_by_index(const float *idx, int ld, int rows, int tables, int *start, int *list)
{
    int r, t;
    memset(start, 0, ((size_t)tables + 2) * sizeof *start);
    for (r = 0; r < rows; ++r) start[vgs__op_int_at(idx, (size_t)r * (size_t)ld) + 2]++;
    for (t = 2; t <= tables; ++t) start[t] += start[t - 1];
    for (r = 0; r < rows; ++r) list[start[vgs__op_int_at(idx, (size_t)r * (size_t)ld) + 1]++] = r;
}

/* Floats of scratch that scatter_rows needs of each thread. */
static size_t vgs__scatter_work(int rows, int tables) { return (size_t)rows + (size_t)tables + 2; }

/* out[t] = sum of the rows with idx == t, in the order of the rows. */
VGS__WHOLE(scatter_rows)
{
    vgs__add_rows_fn *add = vgs__op_add_rows_of(cpu);
    int *start = (int *)(void *)(cpu->scratch + (size_t)team.me * cpu->scratch_size), *list, t;
    (void)err;
    list = start + k->rows + 2;
    vgs__op_rows_by_index(k->in[1], k->ld[1], k->in_rows[0], k->rows, start, list);
    for (t = team.me; t < k->rows; t += team.n) {
        double total[VGS__SUM_COLS];
        float *y = k->out + (size_t)t * (size_t)k->ld_out;
        int c, c0, n;
        for (c0 = 0; c0 < k->cols; c0 += n) {
            n = vgs__min(k->cols - c0, VGS__SUM_COLS);
            vgs__sum_rows_strip(add, k->in[0] + c0, k->ld[0], list + start[t], start[t + 1] - start[t], n,
                                total);
            for (c = 0; c < n; ++c) y[c0 + c] = (float)total[c];
        }
    }
    return VGS_OK;
}
VGS__NO_GRAD(scatter_rows)
static vgs_var vgs__scatter_rows(vgs_graph *g, vgs_var x, vgs_var idx, int rows)
{
    int a = vgs__graph_operand(g, "scatter_rows", x), b = vgs__graph_operand(g, "scatter_rows", idx);
    return a < 0 || b < 0 ? vgs__no_var()
                          : vgs__graph_push_op(g, VGS_OP_SCATTER_ROWS, rows, g->node[a].cols, a, b, -1);
}

/* ---- segments: i0 = n rows a sample before, i1 = m rows a sample after --------------------------- */

VGS__KERNEL(segment_gather)
{
    int r, n = k->i[0], m = k->i[1];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        size_t from = (size_t)(r / m) * (size_t)n + (size_t)vgs__op_int_at(k->in[1], (size_t)(r % m));
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
        int first = vgs__op_int_at(k->in[1], (size_t)(r % n)),
            last = vgs__op_int_at(k->in[1], (size_t)(r % n) + 1);
        memset(y, 0, (size_t)k->cols * sizeof *y);
        for (e = first; e < last; ++e) {
            const float *p = x + (size_t)vgs__op_int_at(k->in[2], (size_t)e) * (size_t)k->ld[0];
            for (c = 0; c < k->cols; ++c) y[c] += p[c];
        }
    }
}

/* The pattern in both directions: `which`, and its inverse as start and list (kept as tables). */
static vgs_var vgs__segment(vgs_graph *g, int op, vgs_var x, int n, int m, vgs_var which, vgs_var start,
                            vgs_var list)
{
    int a = vgs__graph_operand(g, vgs_op_name(op), x), per = op == VGS_OP_SEGMENT_GATHER ? n : m, rows;
    bool gather = op == VGS_OP_SEGMENT_GATHER;
    vgs_var v;
    if (a < 0) return vgs__no_var();
    rows = g->node[a].rows;
    if (rows % per) {
        char s[40];
        return vgs__graph_fail(g, VGS_E_SHAPE, "%s: %s has no %d rows a sample", vgs_op_name(op),
                               vgs__graph_shape_text(&g->node[a], s), per);
    }
    v = vgs__graph_push_op(g, op, rows / per * (gather ? m : n), g->node[a].cols, a,
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

/* ---- images: i0 = n pixels a sample before, i1 = m pixels after -----------------------------------
   in: x, w [taps,c] or [taps,1] (i2 = 1), start [m+1], list [entries,2]. Pixel o of a sample is the sum over
   its entries (pixel, tap), which are list[start[o]..start[o+1]), of w[tap] x[pixel]; then, where >>compile
   has joined them, in[4] [1,c] is added and activation i4 done, with limits f0, f1. i3 > 0: a pixel is a copy
   of one of x or 0, i3 of them make a window. */

/* The places where the pixel and the weights of entry e begin. */
VGS__INLINE size_t vgs__stencil_pixel(const vgs__k *k, int e)
{
    return (size_t)vgs__op_int_at(k->in[3], 2 * (size_t)e) * (size_t)k->ld[0];
}
VGS__INLINE size_t vgs__stencil_tap(const vgs__k *k, int e)
{
    return (size_t)vgs__op_int_at(k->in[3], 2 * (size_t)e + 1) * (size_t)k->ld[1];
}

/* n columns of one pixel; constant n: the sums stay in registers. */
VGS__INLINE void vgs__stencil_strip(const vgs__k *k, const float *x, int e0, int e1, int c0, int n, float *y)
{
    float sum[64];
    int e, c;
    for (c = 0; c < n; ++c) sum[c] = 0;
    for (e = e0; e < e1; ++e) {
        const float *p = x + vgs__stencil_pixel(k, e) + c0, *w = k->in[1] + vgs__stencil_tap(k, e);
        if (k->in_cols[1] == 1) for (c = 0; c < n; ++c) sum[c] += *w * p[c];
        else for (c = 0; c < n; ++c) sum[c] += w[c0 + c] * p[c];
    }
    for (c = 0; c < n; ++c) y[c0 + c] = sum[c];
}

VGS__MAP(stencil)
{
    int r, c, n = k->i[0], m = k->i[1];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)(r / m) * (size_t)n * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        int e0 = vgs__op_int_at(k->in[2], (size_t)(r % m)),
            e1 = vgs__op_int_at(k->in[2], (size_t)(r % m) + 1);
        for (c = 0; c + 64 <= k->cols; c += 64) vgs__stencil_strip(k, x, e0, e1, c, 64, y);
        for (; c + 32 <= k->cols; c += 32) vgs__stencil_strip(k, x, e0, e1, c, 32, y);
        for (; c + 16 <= k->cols; c += 16) vgs__stencil_strip(k, x, e0, e1, c, 16, y);
        if (k->cols == 3) vgs__stencil_strip(k, x, e0, e1, 0, 3, y);             /* colours            */
        else if (c < k->cols) vgs__stencil_strip(k, x, e0, e1, c, k->cols - c, y);
    }
}

/* Bias and activation of rows r0..r1. */
static void vgs__stencil_finish(const vgs__k *k, vgs__finish_fn *finish, int r0, int r1)
{
    vgs__epilogue ep;
    if (!k->in[4] && k->i[4] == VGS_ACT_NONE) return;
    memset(&ep, 0, sizeof ep);
    ep.act = (vgs_act)k->i[4];
    ep.lo = k->f[0];
    ep.hi = k->f[1];
    for (; r0 < r1; ++r0)
        vgs__gemm_finish_row(finish, &ep, k->cols, k->out + (size_t)r0 * (size_t)k->ld_out, k->in[4]);
}

VGS__MAP_HOT VGS__KERNEL(stencil)
{
    for (; r0 < r1; ++r0) {
        vgs__map_stencil(k, r0, r0 + 1, c0, c1);
        vgs__stencil_finish(k, vgs__gemm_finish_c, r0, r0 + 1);
    }
}

#ifdef VGS__X86
/* Returns how many entries each of the pixels o..o+3 of a sample has, if they are the same taps of pixels
   *step apart from one to the next; else 0. */
static int vgs__stencil_alike(const vgs__k *k, int o, size_t *step)
{
    int e0 = vgs__op_int_at(k->in[2], (size_t)o), count = vgs__op_int_at(k->in[2], (size_t)o + 1) - e0, j, e;
    if (!count || vgs__op_int_at(k->in[2], (size_t)o + 4) != e0 + 4 * count) return 0;   /* none behind it */
    *step = vgs__stencil_pixel(k, e0 + count) - vgs__stencil_pixel(k, e0);
    for (j = 1; j < 4; ++j) {
        if (vgs__op_int_at(k->in[2], (size_t)(o + j) + 1) != e0 + (j + 1) * count) return 0;
        for (e = e0; e < e0 + count; ++e)
            if (vgs__stencil_tap(k, e) != vgs__stencil_tap(k, e + j * count) ||
                vgs__stencil_pixel(k, e) + (size_t)j * *step != vgs__stencil_pixel(k, e + j * count))
                return 0;
    }
    return count;
}

#define VGS__FOUR(R) R(0) R(1) R(2) R(3)
#define VGS__ZERO(j) __m256 u##j = _mm256_setzero_ps(), v##j = u##j;
#define VGS__TAP(j)  u##j = _mm256_add_ps(u##j, _mm256_mul_ps(w0, _mm256_loadu_ps(p + j * step))); \
                     v##j = _mm256_add_ps(v##j, _mm256_mul_ps(w1, _mm256_loadu_ps(p + j * step + 8)));
#define VGS__STORE(j) _mm256_storeu_ps(y + j * ld + c0, u##j); _mm256_storeu_ps(y + j * ld + c0 + 8, v##j);

/* Sixteen columns of four pixels that are alike: weights are read once. The sums are those of a strip. */
VGS__AVX2 static void vgs__stencil_four(const vgs__k *k, const float *x, size_t step, int e0, int count,
                                        int c0, float *y)
{
    const size_t ld = (size_t)k->ld_out;
    int e;
    VGS__FOUR(VGS__ZERO)
    for (e = e0; e < e0 + count; ++e) {
        const float *w = k->in[1] + vgs__stencil_tap(k, e) + c0, *p = x + vgs__stencil_pixel(k, e) + c0;
        const __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
        VGS__FOUR(VGS__TAP)
    }
    VGS__FOUR(VGS__STORE)
}
#undef VGS__FOUR
#undef VGS__ZERO
#undef VGS__TAP
#undef VGS__STORE

VGS__HOT VGS__KERNEL8(stencil)
{
    int r = r0, c, j, n = k->i[0], m = k->i[1], done;
    size_t step;
    while (r < r1) {
        const float *x = k->in[0] + (size_t)(r / m) * (size_t)n * (size_t)k->ld[0];
        float *y = k->out + (size_t)r * (size_t)k->ld_out;
        int o = r % m, e0 = vgs__op_int_at(k->in[2], (size_t)o);
        bool four = k->in_cols[1] > 1 && k->cols >= 16 && r + 4 <= r1 && o + 4 <= m;
        int count = four ? vgs__stencil_alike(k, o, &step) : 0;
        for (c = 0; count && c + 16 <= k->cols; c += 16) vgs__stencil_four(k, x, step, e0, count, c, y);
        for (j = 0; j < 4 && count && c < k->cols; ++j, e0 += count, y += k->ld_out)
            vgs__stencil_strip(k, x, e0, e0 + count, c, k->cols - c, y);
        if (!count) vgs__map_stencil(k, r, r + 1, c0, c1);
        done = count ? 4 : 1;
        vgs__stencil_finish(k, vgs__gemm_finish_avx2, r, r + done);
        r += done;
    }
}

VGS__HOT __attribute__((target("avx512f")))
static void vgs__k_stencil_avx512(const vgs__k *k, int r0, int r1, int c0, int c1)
{
    for (; r0 < r1; ++r0) {
        vgs__map_stencil(k, r0, r0 + 1, c0, c1);
        vgs__stencil_finish(k, vgs__gemm_finish_avx2, r0, r0 + 1);
    }
}
#endif

/* in: gy, x, start, list; i2 taps. Row t of a sample is the sum of gy[o] x[pixel] over its entries (pixel,
   t). */
VGS__HOT VGS__KERNEL(stencil_grad)
{
    int r, o, e, c, at, n = k->i[0], m = k->i[1], taps = k->i[2];
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r)
        for (at = 0; at < k->cols; at += 64) {
            int width = vgs__min(64, k->cols - at);
            double sum[64] = { 0 };
            const float *gy = k->in[0] + (size_t)(r / taps) * (size_t)m * (size_t)k->ld[0] + at;
            const float *x = k->in[1] + (size_t)(r / taps) * (size_t)n * (size_t)k->ld[1] + at;
            for (o = 0; o < m; ++o)
                for (e = vgs__op_int_at(k->in[2], (size_t)o); e < vgs__op_int_at(k->in[2], (size_t)o + 1);
                     ++e) {
                    const float *a = gy + (size_t)o * (size_t)k->ld[0];
                    const float *b = x + (size_t)vgs__op_int_at(k->in[3], 2 * (size_t)e) * (size_t)k->ld[1];
                    if (vgs__op_int_at(k->in[3], 2 * (size_t)e + 1) != r % taps) continue;
                    for (c = 0; c < width; ++c) sum[c] += (double)a[c] * (double)b[c];
                }
            for (c = 0; c < width; ++c)
                k->out[(size_t)r * (size_t)k->ld_out + (size_t)(at + c)] = (float)sum[c];
        }
}
VGS__NO_GRAD(stencil_grad)

static vgs_var vgs__stencil(vgs_graph *g, const char *name, vgs_var x, vgs_var w, int n, int m,
                            const int32_t *start, const int32_t *list)
{
    int a = vgs__graph_operand(g, name, x), b = vgs__graph_operand(g, name, w);
    vgs_var v, s, l;
    vgs__node *d;
    if (a < 0 || b < 0) return vgs__no_var();
    if (g->node[a].rows % n || (g->node[b].cols != 1 && g->node[b].cols != g->node[a].cols)) {
        char text[40], weights[40];
        return vgs__graph_fail(g, VGS_E_SHAPE,
                               "%s: %s with weights %s: wanted are %d pixels a sample, and weights "
                               "for each channel", name, vgs__graph_shape_text(&g->node[a], text),
                               vgs__graph_shape_text(&g->node[b], weights), n);
    }
    s = vgs_table_int(g, start, m + 1, 1);
    l = vgs_table_int(g, list, start[m] > 0 ? start[m] : 1, 2);
    v = vgs__graph_push_op(g, VGS_OP_STENCIL, g->node[a].rows / n * m, g->node[a].cols, a, b, vgs__id(g, s));
    d = vgs__graph_node_of(g, v);
    if (!d) return v;
    d->in[3] = vgs__id(g, l);
    d->n_in = 4;
    d->i[0] = n;
    d->i[1] = m;
    d->i[2] = g->node[b].cols == 1;
    return v;
}

/* The same entries by input pixel: start [n+1] and list of (output pixel, tap), in one block. NULL: no
   memory. */
static int32_t *vgs__stencil_turned(int n, int m, const int32_t *start, const int32_t *list)
{
    int32_t *out = (int32_t *)vgs__alloc((size_t)n + 2 + 2 * (size_t)start[m], sizeof *out),
        *to = out + n + 1;
    int o, e, i;
    if (!out) return NULL;
    memset(out, 0, ((size_t)n + 1) * sizeof *out);
    for (e = 0; e < start[m]; ++e) out[list[2 * e] + 1]++;
    for (i = 0; i < n; ++i) out[i + 1] += out[i];
    for (o = 0; o < m; ++o)
        for (e = start[o]; e < start[o + 1]; ++e) {
            i = out[list[2 * e]]++;
            to[2 * i] = o;
            to[2 * i + 1] = list[2 * e + 1];
        }
    for (i = n; i > 0; --i) out[i] = out[i - 1];
    out[0] = 0;
    return out;
}

static void vgs__stencil_grad_x(vgs_graph *g, const vgs__node *n, vgs_var gy, vgs_var *gx)
{
    const int32_t *start = (const int32_t *)g->node[n->in[2]].data,
        *list = (const int32_t *)g->node[n->in[3]].data;
    int before = n->i[0], after = n->i[1];
    int32_t *turned = vgs__stencil_turned(before, after, start, list);
    vgs_var w = VGS__IN(n, 1);
    if (turned) *gx = vgs__stencil(g, "stencil", gy, w, after, before, turned, turned + before + 1);
    else vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: gradient of %d pixels", after);
    vgs__free(turned);
}

/* Of the weights: for each sample, then the sum over samples. */
static vgs_var vgs__stencil_grad_w(vgs_graph *g, const vgs__node *n, vgs_var gy)
{
    const vgs__node *x = &g->node[n->in[0]];
    int taps = g->node[n->in[1]].rows, cols = x->cols, before = n->i[0], after = n->i[1], list = n->in[3];
    bool narrow = g->node[n->in[1]].cols == 1;
    vgs_var v = vgs__graph_push_op(g, VGS_OP_STENCIL_GRAD, x->rows / before * taps, cols, vgs__id(g, gy),
                                   n->in[0],
                                   n->in[2]);
    vgs__node *d = vgs__graph_node_of(g, v);
    if (!d) return v;
    d->in[3] = list;
    d->n_in = 4;
    d->i[0] = before;
    d->i[1] = after;
    d->i[2] = taps;
    v = vgs_reshape(g, vgs_sum_rows(g, vgs_reshape(g, v, taps * cols)), cols);
    return narrow ? vgs_sum_cols(g, v) : v;
}

VGS__GRAD(stencil)
{
    vgs__node copy = *n;                         /* recording moves the nodes                          */
    (void)y;
    if (need[0]) vgs__stencil_grad_x(g, &copy, gy, &gx[0]);
    if (need[1]) gx[1] = vgs__stencil_grad_w(g, &copy, gy);
}

enum { VGS__SIDE = 32768 };                      /* most pixels of an image's side: indices are int32  */

/* Pixels of the output, 0 after failing where the window does not fit. */
static int vgs__window_pixels(vgs_graph *g, const char *name, const vgs_window *p, int *height, int *width)
{
    double h, w;
    bool ok = p->height > 0 && p->width > 0 && p->size > 0 && p->stride > 0 && p->top >= 0 && p->left >= 0 &&
              p->bottom >= 0 && p->right >= 0 && p->height <= VGS__SIDE && p->width <= VGS__SIDE &&
              p->top <= VGS__SIDE && p->left <= VGS__SIDE && p->bottom <= VGS__SIDE && p->right <= VGS__SIDE;
    h = ((double)p->height + p->top + p->bottom - p->size) / p->stride + 1;
    w = ((double)p->width + p->left + p->right - p->size) / p->stride + 1;
    ok = ok && h >= 1 && w >= 1 && h * w * p->size * p->size < (double)(1 << 28);
    if (!ok) {
        vgs__graph_fail(g, VGS_E_ARG,
                        "%s: a window of %d, stride %d, on %d x %d pixels with %d %d %d %d around: "
                        "does not fit", name, p->size, p->stride, p->height, p->width, p->top, p->left,
                        p->bottom, p->right);
        return 0;
    }
    *height = (int)h;
    *width = (int)w;
    return *height * *width;
}

/* Entries of window o (row, column) that lie in the image, as (pixel, tap); returns their number. */
static int vgs__window_entries(const vgs_window *p, int row, int column, int32_t *list)
{
    int y, x, n = 0;
    for (y = 0; y < p->size; ++y)
        for (x = 0; x < p->size; ++x) {
            int v = row * p->stride + y - p->top, u = column * p->stride + x - p->left;
            if (v < 0 || v >= p->height || u < 0 || u >= p->width) continue;
            list[2 * n] = v * p->width + u;
            list[2 * n++ + 1] = y * p->size + x;
        }
    return n;
}

/* The ways in which a window's entries become those of a stencil. */
typedef enum vgs__window_kind {
    VGS__WINDOW_TAPS,                            /* one pixel, a tap for each place in the window      */
    VGS__WINDOW_MEAN,                            /* one pixel, the tap is the number of entries - 1    */
    VGS__WINDOW_APART                            /* a pixel for each place, of one entry or none       */
} vgs__window_kind;

static vgs_var vgs__window(vgs_graph *g, const char *name, vgs_var x, const vgs_window *p, vgs_var w,
                           vgs__window_kind kind)
{
    int height = 0, width = 0, m = vgs__window_pixels(g, name, p, &height, &width), places, o, e, n,
        filled = 0;
    int32_t *start, *list;
    vgs_var v;
    if (!m) return vgs__no_var();
    places = p->size * p->size;
    start = (int32_t *)vgs__alloc((size_t)m * (size_t)(3 * places) + 1, sizeof *start);
    if (!start) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: %s of %d pixels", name, m);
    list = start + (size_t)m * (size_t)(kind == VGS__WINDOW_APART ? places : 1) + 1;
    for (o = 0; o < m; ++o) {
        int32_t *at = list + 2 * (size_t)filled;
        n = vgs__window_entries(p, o / width, o % width, at);
        if (kind == VGS__WINDOW_APART) {
            int place, next = 0;
            for (place = 0; place < places; ++place) {
                start[o * places + place] = filled + next;
                if (next < n && at[2 * next + 1] == place) at[2 * next++ + 1] = 0;
            }
        } else start[o] = filled;
        for (e = 0; e < n && kind == VGS__WINDOW_MEAN; ++e) at[2 * e + 1] = n - 1;
        filled += n;
    }
    n = kind == VGS__WINDOW_APART ? m * places : m;
    start[n] = filled;
    v = vgs__stencil(g, name, x, w, p->height * p->width, n, start, list);
    if (kind == VGS__WINDOW_APART) vgs__graph_attr_i(g, v, 3, places);
    vgs__free(start);
    return v;
}

VGS__DEF vgs_var vgs_depthwise(vgs_graph *g, vgs_var x, const vgs_window *p, vgs_var w)
{
    int b = vgs__graph_operand(g, "depthwise", w), height, width;
    if (b < 0 || !vgs__window_pixels(g, "depthwise", p, &height, &width)) return vgs__no_var();
    if (g->node[b].rows != p->size * p->size) {
        char s[40];
        return vgs__graph_fail(g, VGS_E_SHAPE, "depthwise: weights %s for a window of %d pixels",
                               vgs__graph_shape_text(&g->node[b], s), p->size * p->size);
    }
    return vgs__window(g, "depthwise", x, p, w, VGS__WINDOW_TAPS);
}

VGS__DEF vgs_var vgs_avg_pool(vgs_graph *g, vgs_var x, const vgs_window *p)
{
    int height, width, n, i;
    float *share;
    vgs_var w;
    if (!vgs__window_pixels(g, "avg_pool", p, &height, &width)) return vgs__no_var();
    n = p->size * p->size;
    share = (float *)vgs__alloc((size_t)n, sizeof *share);
    if (!share) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: avg_pool of %d pixels", n);
    for (i = 0; i < n; ++i) share[i] = 1.0f / (float)(i + 1);
    w = vgs_table(g, share, n, 1);
    vgs__free(share);
    return vgs__window(g, "avg_pool", x, p, w, VGS__WINDOW_MEAN);
}

/* Pixel i of a window along an axis, or the nearest that is in the image: another one of the window. */
static int vgs__window_nearest(int o, int i, const vgs_window *p, int before, int length)
{
    int at = o * p->stride + i - before;
    return at < 0 ? 0 : at < length ? at : length - 1;
}

static bool vgs__window_is_empty(const vgs_window *p, int height, int width)
{
    return p->top >= p->size || p->left >= p->size || (height - 1) * p->stride - p->top >= p->height ||
           (width - 1) * p->stride - p->left >= p->width;
}

/* Place by place of the window, the larger of this one and of those before. */
VGS__DEF vgs_var vgs_max_pool(vgs_graph *g, vgs_var x, const vgs_window *p)
{
    int height = 0, width = 0, m = vgs__window_pixels(g, "max_pool", p, &height, &width), place, o;
    int32_t *which = m ? (int32_t *)vgs__alloc((size_t)m, sizeof *which) : NULL;
    vgs_var v = vgs__no_var();
    if (!m) return v;
    if (!which) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: max_pool of %d pixels", m);
    if (vgs__window_is_empty(p, height, width))
        vgs__graph_fail(g, VGS_E_ARG,
                        "max_pool: a window of %d, stride %d, on %d x %d pixels with %d %d %d %d around: "
                        "some have no pixel", p->size, p->stride, p->height, p->width, p->top, p->left,
                        p->bottom, p->right);
    else for (place = 0; place < p->size * p->size; ++place) {
        vgs_var u;
        for (o = 0; o < m; ++o)
            which[o] = vgs__window_nearest(o / width, place / p->size, p, p->top, p->height) * p->width +
                       vgs__window_nearest(o % width, place % p->size, p, p->left, p->width);
        u = vgs_segment_gather(g, x, p->height * p->width, which, m);
        v = place ? vgs_max(g, v, u) : u;
    }
    vgs__free(which);
    return v;
}

/* Windows side by side: [B pixels, size size c] */
static vgs_var vgs__patches(vgs_graph *g, vgs_var x, const vgs_window *p)
{
    const float one = 1;
    int a = vgs__graph_operand(g, "conv2d", x);
    if (a < 0) return vgs__no_var();
    if (p->size == 1 && p->stride == 1 && !(p->top | p->left | p->bottom | p->right)) return x;
    return vgs_reshape(g, vgs__window(g, "conv2d", x, p, vgs_table(g, &one, 1, 1), VGS__WINDOW_APART),
                       p->size * p->size * g->node[a].cols);
}

/* Rows first.. of w, n of them */
static vgs_var vgs__op_rows_of(vgs_graph *g, vgs_var w, int first, int n)
{
    int32_t *row = (int32_t *)vgs__alloc((size_t)n, sizeof *row);
    vgs_var v;
    int i;
    if (!row) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: %d rows", n);
    for (i = 0; i < n; ++i) row[i] = first + i;
    v = vgs_gather(g, w, vgs_table_int(g, row, n, 1));
    vgs__free(row);
    return v;
}

VGS__DEF vgs_var vgs_conv2d(vgs_graph *g, vgs_var x, const vgs_window *p, vgs_var w, vgs_var b, int groups)
{
    int a = vgs__graph_operand(g, "conv2d", x), k = vgs__graph_operand(g, "conv2d", w), i, in, out;
    vgs_var y = vgs__no_var();
    if (a < 0 || k < 0) return y;
    in = g->node[a].cols;
    out = g->node[k].rows;
    if (groups < 1 || in % groups || out % groups)
        return vgs__graph_fail(g, VGS_E_ARG, "conv2d: groups = %d of %d channels before and %d after",
                               groups, in, out);
    if (groups == 1) return vgs_linear(g, vgs__patches(g, x, p), w, b);
    for (i = 0; i < groups; ++i) {
        vgs_var part = vgs__patches(g, vgs_cols(g, x, i * (in / groups), in / groups), p);
        part = vgs_linear(g, part, vgs__op_rows_of(g, w, i * (out / groups), out / groups), vgs__no_var());
        y = i ? vgs_concat(g, y, part) : part;
    }
    return b.id ? vgs_add(g, y, b) : y;
}

/* The two inputs of output i along an axis, and the weight of the second. */
static void vgs__resize_axis(int i, int from, int to, bool align, int *first, int *second, double *weight)
{
    double at = align ? (to > 1 ? (double)i * (from - 1) / (to - 1) : 0) : (i + 0.5) * from / to - 0.5;
    if (at < 0) at = 0;
    *first = (int)at < from - 1 ? (int)at : from - 1;
    *second = *first + 1 < from ? *first + 1 : *first;
    *weight = at - *first;
}

VGS__DEF vgs_var vgs_resize(vgs_graph *g, vgs_var x, int height, int width, int to_height, int to_width,
                            bool align)
{
    bool ok = height > 0 && width > 0 && to_height > 0 && to_width > 0 && height <= VGS__SIDE &&
              width <= VGS__SIDE && to_height <= VGS__SIDE && to_width <= VGS__SIDE &&
              (double)to_height * to_width < (double)(1 << 28);
    int m = ok ? to_height * to_width : 0, o, e, filled = 0;
    int32_t *start = m ? (int32_t *)vgs__alloc((size_t)m * 9 + 1, sizeof *start) : NULL, *list;
    float *weight = m ? (float *)vgs__alloc((size_t)m * 4, sizeof *weight) : NULL;
    vgs_var v = vgs__no_var();
    if (!ok)
        vgs__graph_fail(g, VGS_E_ARG, "resize: %d x %d to %d x %d pixels: must be > 0, at most %d a side "
                        "and below 2^28 after", height, width, to_height, to_width, VGS__SIDE);
    else if (!start || !weight) vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: resize to %d pixels", m);
    else {
        list = start + m + 1;
        for (o = 0; o < m; ++o) {
            int y[2], u[2];
            double fy, fx;
            vgs__resize_axis(o / to_width, height, to_height, align, &y[0], &y[1], &fy);
            vgs__resize_axis(o % to_width, width, to_width, align, &u[0], &u[1], &fx);
            start[o] = filled;
            for (e = 0; e < 4; ++e) {
                double w = (e > 1 ? fy : 1 - fy) * (e & 1 ? fx : 1 - fx);
                if (!(w > 0)) continue;
                weight[filled] = (float)w;
                list[2 * filled] = y[e >> 1] * width + u[e & 1];
                list[2 * filled + 1] = filled;
                ++filled;
            }
        }
        start[m] = filled;
        v = vgs__stencil(g, "resize", x, vgs_table(g, weight, filled, 1), height * width, m, start, list);
    }
    vgs__free(start);
    vgs__free(weight);
    return v;
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
    gx[0] = vgs__graph_push_op(g, VGS_OP_PAIR_DISTANCE_GRAD, g->node[n->in[0]].rows, g->node[n->in[0]].cols,
                               n->in[0], vgs__id(g, y), vgs__id(g, gy));
    vgs__graph_attr_i(g, gx[0], 0, n->i[0]);
}
static int vgs__op_particles(vgs_graph *g, const char *op, vgs_var x, int n)
{
    int a = vgs__graph_operand(g, op, x);
    if (a >= 0 && (n < 2 || n > 32768 || g->node[a].cols % n)) {
        vgs__graph_fail(g, VGS_E_SHAPE, "%s: %d columns are not %d particles (2..32768)", op, g->node[a].cols,
                        n);
        return -1;
    }
    return a;
}
VGS__DEF vgs_var vgs_pair_distance(vgs_graph *g, vgs_var x, int n)
{
    int a = vgs__op_particles(g, "pair_distance", x, n);
    vgs_var v = a < 0 ? vgs__no_var()
                      : vgs__graph_push_op(g, VGS_OP_PAIR_DISTANCE, g->node[a].rows, n * (n - 1) / 2, a, -1,
                                           -1);
    vgs__graph_attr_i(g, v, 0, n);
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
    int a = vgs__op_particles(g, "remove_mean", x, n);
    vgs_var v = a < 0 ? vgs__no_var() : vgs__op_unary(g, VGS_OP_REMOVE_MEAN, x);
    vgs__graph_attr_i(g, v, 0, n);
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
                   (size_t)vgs__op_int_at(k->in[1], (size_t)r * (size_t)k->ld[1] + (size_t)j)] =
                k->in[0][(size_t)r * (size_t)k->ld[0] + (size_t)j];
}
VGS__NO_GRAD(unsort_cols)
VGS__GRAD(sort_cols)
{
    (void)need;
    gx[0] = vgs__graph_push_op(g, VGS_OP_UNSORT_COLS, n->rows, n->cols, vgs__id(g, gy),
                               g->node[vgs__id(g, y)].second, -1);
}
VGS__DEF vgs_var vgs_sort_cols(vgs_graph *g, vgs_var x)
{
    vgs_var v = vgs__op_unary(g, VGS_OP_SORT_COLS, x);
    if (v.id) vgs__graph_second(g, vgs__id(g, v), g->node[vgs__id(g, v)].cols, VGS_I32);
    return v;
}

/* ---- random numbers ------------------------------------------------------------------------------ */

/* i: 0 stream, 1 step, 2 first row, 3 iteration, 4-5 seed.
   Counter: (row, step and column block, stream, iteration). */
VGS__DEF vgs_noise vgs_noise_create(vgs_graph *g)
{
    vgs_noise n;
    n.stream = vgs_scalar_create(g, 0);
    n.step = vgs_scalar_create(g, 0);
    n.first_row = vgs_scalar_create(g, 0);
    n.iteration = vgs_scalar_create(g, 0);
    n.seed_low = vgs_scalar_create(g, 0);
    n.seed_high = vgs_scalar_create(g, 0);
    return n;
}

VGS__DEF void vgs_noise_set(vgs_graph *g, const vgs_noise *n, uint64_t seed, int stream, int64_t iteration,
                            int step, uint32_t first_row)
{
    vgs_scalar_set(g, n->stream, stream);
    vgs_scalar_set(g, n->step, step);
    vgs_scalar_set(g, n->first_row, first_row);
    vgs_scalar_set(g, n->iteration, (double)(uint32_t)iteration);
    vgs_scalar_set(g, n->seed_low, (double)(uint32_t)seed);
    vgs_scalar_set(g, n->seed_high, (double)(uint32_t)(seed >> 32));
}

/* A random op [B,cols], its numbers by n. */
static vgs_var vgs__op_random(vgs_graph *g, int op, int cols, vgs_type type, const vgs_noise *n)
{
    vgs_var v = vgs__graph_leaf(g, op, -1, cols, type);
    vgs__graph_slot_i(g, v, 0, n->stream);
    vgs__graph_slot_i(g, v, 1, n->step);
    vgs__graph_slot_i(g, v, 2, n->first_row);
    vgs__graph_slot_i(g, v, 3, n->iteration);
    vgs__graph_slot_i(g, v, 4, n->seed_low);
    vgs__graph_slot_i(g, v, 5, n->seed_high);
    return v;
}

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
            vgs__rng_normal4(w, z);
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
VGS__DEF vgs_var vgs_normal(vgs_graph *g, int cols, const vgs_noise *noise)
{
    return vgs__op_random(g, VGS_OP_NORMAL, cols, VGS_F32, noise);
}

/* Element (i6 + r) of a pseudo-random permutation of 0..i7-1: a six-round Feistel network over the next
   even power of two, walked until it lands inside. Any element alone, no memory, so any device can. */
VGS__INLINE uint32_t vgs__permutation_feistel(uint32_t v, int half, const uint32_t key[8])
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
        do v = vgs__permutation_feistel(v, half, key); while (v >= n);
        memcpy(k->out + (size_t)r * (size_t)k->ld_out, &v, 4);
    }
}
VGS__NO_GRAD(permutation)
VGS__DEF vgs_var vgs_permutation(vgs_graph *g, int n, vgs_scalar first, const vgs_noise *noise)
{
    vgs_var v;
    if (n < 1 || n > 1 << 30)
        return vgs__graph_fail(g, VGS_E_ARG, "permutation: n = %d: must be within 1..2^30", n);
    v = vgs__op_random(g, VGS_OP_PERMUTATION, 1, VGS_I32, noise);
    vgs__graph_slot_i(g, v, 6, first);
    vgs__graph_attr_i(g, v, 7, n);
    return v;
}

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
VGS__DEF vgs_var vgs_limit_rows(vgs_graph *g, vgs_var x, vgs_scalar most)
{
    vgs_var v = vgs__op_unary(g, VGS_OP_LIMIT_ROWS, x);
    vgs__graph_slot_f(g, v, 0, most);
    return v;
}

/* ---- sphere |x| = 1 ------------------------------------------------------------------------------ */

VGS__INLINE float vgs__op_row_dot(const float *a, const float *b, int n)
{
    float s[16] = { 0 };
    int i = 0, j;
    for (; i + 16 <= n; i += 16)
        for (j = 0; j < 16; ++j) s[j] += a[i + j] * b[i + j];
    for (j = 0; j < n - i; ++j) s[j] += a[i + j] * b[i + j];
    return vgs__op_row_sum(s, 16);
}

/* ---- eigenvectors: matrices side by side, one a lane, each with the same operations as alone --------- */

enum { VGS__EIGEN_LANES = 8, VGS__EIGEN_ROWS = 40 };                  /* larger matrices: one by one    */

/* sum[lanes] = x . y, [n,lanes] both */
VGS__INLINE void vgs__eigen_dots(int lanes, int n, const float *x, const float *y, float *sum)
{
    float s[VGS__EIGEN_LANES] = { 0 };
    int j, l;
    for (j = 0; j < n; ++j)
        for (l = 0; l < lanes; ++l) s[l] += x[j * lanes + l] * y[j * lanes + l];
    for (l = 0; l < lanes; ++l) sum[l] = s[l];
}

/* Turns x and y, of squared lengths xx and yy, so that they become orthogonal; false: they all were. */
VGS__INLINE bool vgs__eigen_turn(int lanes, int n, float *x, float *y, float *xx, float *yy)
{
    float c[VGS__EIGEN_LANES], cosine[VGS__EIGEN_LANES], sine[VGS__EIGEN_LANES];
    int j, l, turned = 0;
    vgs__eigen_dots(lanes, n, x, y, c);
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
        float a[VGS__EIGEN_LANES], b[VGS__EIGEN_LANES];                /* x and y do not overlap         */
        for (l = 0; l < lanes; ++l) a[l] = cosine[l] * x[l] - sine[l] * y[l];
        for (l = 0; l < lanes; ++l) b[l] = sine[l] * x[l] + cosine[l] * y[l];
        for (l = 0; l < lanes; ++l) x[l] = a[l];
        for (l = 0; l < lanes; ++l) y[l] = b[l];
    }
    return true;
}

/* One-sided Jacobi: rotations of pairs make the rows of v [n,n,lanes], positive definite matrices,
   orthogonal; they are then eigenvectors times eigenvalues. square [n,lanes]: their squared lengths. */
VGS__INLINE void vgs__eigen_orthogonal_rows(int lanes, int n, float *v, float *square)
{
    const int row = n * lanes;
    int sweep, p, q;
    bool turned = true;
    for (sweep = 0; sweep < 30 && turned; ++sweep) {
        turned = false;
        for (p = 0; p < n; ++p) vgs__eigen_dots(lanes, n, v + p * row, v + p * row, square + p * lanes);
        for (p = 0; p < n; ++p)
            for (q = p + 1; q < n; ++q)
                if (vgs__eigen_turn(lanes, n, v + p * row, v + q * row, square + p * lanes,
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
VGS__INLINE void vgs__eigen_lanes(const vgs__k *k, int r, int rows, int lanes, float *v, float *square)
{
    float scale[VGS__EIGEN_LANES];
    int i, j, l, n = k->i[0];
    for (l = 0; l < lanes; ++l)
        scale[l] = vgs__eigen_load(lanes, n, k->in[0] + (size_t)(r + (l < rows ? l : 0)) * (size_t)k->ld[0],
                                   v + l);
    vgs__eigen_orthogonal_rows(lanes, n, v, square);
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
    float v[VGS__EIGEN_ROWS * VGS__EIGEN_ROWS * VGS__EIGEN_LANES], square[VGS__EIGEN_ROWS * VGS__EIGEN_LANES];
    int r;
    (void)c0;
    (void)c1;
    if (k->i[0] <= VGS__EIGEN_ROWS)
        for (r = r0; r < r1; r += VGS__EIGEN_LANES)
            vgs__eigen_lanes(k, r, r1 - r < VGS__EIGEN_LANES ? r1 - r : VGS__EIGEN_LANES, VGS__EIGEN_LANES, v,
                            square);
    else
        for (r = r0; r < r1; ++r)
            vgs__eigen_lanes(k, r, 1, 1, k->out + (size_t)r * (size_t)k->ld_out,
                            k->out2 + (size_t)r * (size_t)k->ld_out2);
}
VGS__NO_GRAD(eigen)
/* x [r,n n] -> eigenvectors [r,n n], *values [r,n] */
static vgs_var vgs__eigen(vgs_graph *g, vgs_var x, int n, vgs_var *values)
{
    vgs_var v = vgs__op_unary(g, VGS_OP_EIGEN, x);
    vgs__graph_attr_i(g, v, 0, n);
    *values = vgs__exists(v) ? vgs__graph_second(g, vgs__id(g, v), n, VGS_F32) : v;
    return v;
}

VGS__KERNEL(sphere_tangent)                                          /* in: v, x.  v - (v.x) x         */
{
    int r, c;
    (void)c0;
    (void)c1;
    for (r = r0; r < r1; ++r) {
        const float *v = k->in[0] + (size_t)r * (size_t)k->ld[0],
                    *x = k->in[1] + (size_t)r * (size_t)k->ld[1];
        float *y = k->out + (size_t)r * (size_t)k->ld_out, d = vgs__op_row_dot(v, x, k->cols);
        for (c = 0; c < k->cols; ++c) y[c] = v[c] - d * x[c];
    }
}
VGS__NO_GRAD(sphere_tangent)
static vgs_var vgs__op_sphere(vgs_graph *g, int op, vgs_var a, vgs_var b)
{
    int ia = vgs__op_float_operand(g, vgs_op_name(op), a), ib;
    if (ia < 0) return vgs__no_var();
    ib = vgs__exists(b) || op == VGS_OP_SPHERE_TANGENT ? vgs__op_float_operand(g, vgs_op_name(op), b) : -1;
    if (g->sticky.code != VGS_OK) return vgs__no_var();
    if (ib >= 0 && (g->node[ia].rows != g->node[ib].rows || g->node[ia].cols != g->node[ib].cols))
        return vgs__graph_shape_fail(g, vgs_op_name(op), ia, ib);
    return vgs__graph_push_op(g, op, g->node[ia].rows, g->node[ia].cols, ia, ib, -1);
}
VGS__DEF vgs_var vgs_sphere_tangent(vgs_graph *g, vgs_var v, vgs_var x)
{
    return vgs__op_sphere(g, VGS_OP_SPHERE_TANGENT, v, x);
}

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
            len = sqrtf(vgs__op_row_dot(v, v, k->cols));
            vgs__sincos(len, &s, &q);
            s = len > 1e-12f ? s / len : 1.0f;
            for (c = 0; c < k->cols; ++c) y[c] = q * x[c] + s * v[c];
        } else memcpy(y, x, (size_t)k->cols * sizeof *y);
        len = sqrtf(vgs__op_row_dot(y, y, k->cols));
        for (c = 0; c < k->cols; ++c) y[c] = y[c] / len;
    }
}
VGS__NO_GRAD(sphere_move)
VGS__DEF vgs_var vgs_sphere_move(vgs_graph *g, vgs_var x, vgs_var v)
{
    return vgs__op_sphere(g, VGS_OP_SPHERE_MOVE, x, v);
}

/* ---- effects: ops that write state; the flag (int32 [1,4]: set, row, step, what) stops all updates ----- */

/* Weights are written by descend and ema alone, which a model's version counts. */
static vgs_var vgs__op_effect(vgs_graph *g, int op, vgs_var state, vgs_var a, vgs_var b)
{
    int is = vgs__graph_operand(g, vgs_op_name(op), state), ia = vgs__graph_operand(g, vgs_op_name(op), a);
    int ib = vgs__exists(b) ? vgs__graph_operand(g, vgs_op_name(op), b) : -1;
    if (is < 0 || ia < 0) return vgs__no_var();
    return vgs__graph_push_op(g, op, 1, 1, is, ia, ib);
}

/* Eight sums in double, then a fixed tree. */
VGS__MAP_HOT static double vgs__op_squares(const float *x, int n)
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
VGS__AVX2 static double vgs__op_squares_avx2(const float *x, int n)
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
    double (*squares)(const float *x, int n) = vgs__op_squares, total = 0.0;
    int p, n = k->in_cols[0], each = (n + 255) / 256;
    (void)err;
#ifdef VGS__X86
    if (cpu->isa == VGS_ISA_AVX2 || cpu->isa == VGS_ISA_AVX512) squares = vgs__op_squares_avx2;
#endif
    for (p = team.me; p < 256; p += team.n) {
        int first = p * each, left = n - first;
        cpu->part[p] = left > 0 ? squares(k->in[0] + first, left < each ? left : each) : 0.0;
    }
    vgs__team_wait(team);
    if (team.me) return VGS_OK;
    for (p = 0; p < 256; ++p) total += cpu->part[p];
    k->out[0] = (float)total;
    return VGS_OK;
}
VGS__NO_GRAD(sum_squares)
static vgs_var vgs__sum_squares(vgs_graph *g, vgs_var x)
{
    vgs_var v = vgs__graph_push_op(g, VGS_OP_SUM_SQUARES, 1, 1, vgs__id(g, x), -1, -1);
    if (vgs__exists(v)) g->node[vgs__id(g, v)].body = true;
    return v;
}

/* in: log w [M,1]. Each row of out: an index below M, drawn with a probability in proportion to w, truncated:
   no w counts for more than the mean of all times sqrt(M) (Ionides 2008; a few rounds, since a cut lowers the
   mean). Systematic: one uniform number, of i0..i5 as for normal, places all rows. */
typedef struct vgs__cut_weights { const vgs__k *k; float top, cap; } vgs__cut_weights;
static double vgs__resample_weight(const void *of, int j)
{
    const vgs__cut_weights *c = (const vgs__cut_weights *)of;
    float w = vgs__exp(c->k->in[0][(size_t)j * (size_t)c->k->ld[0]] - c->top);
    return w < c->cap ? (double)w : w >= c->cap ? (double)c->cap : 0.0;          /* NaN weighs nothing */
}
static double vgs__resample_sum(const vgs__cut_weights *c)
{
    double sum = 0.0;
    int j;
    for (j = 0; j < c->k->in_rows[0]; ++j) sum += vgs__resample_weight(c, j);
    return sum;
}
VGS__WHOLE(resample)
{
    const int m = k->in_rows[0];
    const float share = sqrtf((float)m) / (float)m;
    vgs__cut_weights c;
    double sum, at, below = 0.0;
    uint32_t u[4];
    int r, j, pick = -1;
    (void)cpu;
    (void)err;
    if (team.me) return VGS_OK;
    c.k = k;
    c.top = -FLT_MAX;
    c.cap = 1.0f;
    for (j = 0; j < m; ++j) {
        float w = k->in[0][(size_t)j * (size_t)k->ld[0]];
        c.top = w > c.top && w <= FLT_MAX ? w : c.top;
    }
    for (j = 0, sum = vgs__resample_sum(&c); j < 16 && (double)c.cap > (double)share * sum; ++j) {
        c.cap = (float)((double)share * sum);
        sum = vgs__resample_sum(&c);
    }
    vgs__philox((uint32_t)k->i[4], (uint32_t)k->i[5], (uint32_t)k->i[2], (uint32_t)k->i[1],
                (uint32_t)k->i[0] << 24, (uint32_t)k->i[3], u);
    for (r = 0; r < k->rows; ++r) {
        at = ((double)r + (double)(u[0] >> 8) / 16777216.0) / k->rows * sum;
        pick = vgs__systematic_next(vgs__resample_weight, &c, m - 1, at, pick, &below);
        memcpy(k->out + (size_t)r * (size_t)k->ld_out, &pick, sizeof pick);
    }
    return VGS_OK;
}
VGS__NO_GRAD(resample)
VGS__DEF vgs_var vgs_resample(vgs_graph *g, vgs_var log_weight, const vgs_noise *noise)
{
    int w = vgs__op_float_operand(g, "resample", log_weight);
    vgs_var v;
    vgs__node *n;
    if (w < 0) return vgs__no_var();
    if (g->node[w].cols != 1) return vgs__graph_shape_fail(g, "resample", w, w);
    v = vgs__op_random(g, VGS_OP_RESAMPLE, 1, VGS_I32, noise);
    if ((n = vgs__graph_node_of(g, v)) != NULL) {
        n->in[0] = w;
        n->n_in = 1;
    }
    return v;
}

/* in: dst, src.  Rows of src go to row i0 of dst and on; added to what is there if i1. */
VGS__WHOLE(store)
{
    int r, c;
    (void)err;
    (void)cpu;
    for (r = 0; r < k->in_rows[1] && team.me == 0; ++r) {
        const float *x = k->in[1] + (size_t)r * (size_t)k->ld[1];
        float *y = k->in[0] + (size_t)(r + k->i[0]) * (size_t)k->ld[0];
        if (k->i[1]) for (c = 0; c < k->in_cols[1]; ++c) y[c] += x[c];
        else memcpy(y, x, (size_t)k->in_cols[1] * sizeof *y);
    }
    return VGS_OK;
}
VGS__NO_GRAD(store)

/* The number of v, which is a state or a view of one; -1 and a failure if not, or if it has other columns. */
static int vgs__op_assignable(vgs_graph *g, vgs_var v, vgs_var x)
{
    int to = vgs__graph_operand(g, "assign", v), from = vgs__graph_operand(g, "assign", x), owner = to;
    if (to < 0 || from < 0) return -1;
    while (g->node[owner].alias >= 0) owner = g->node[owner].alias;
    if (g->node[owner].op != VGS_OP_STATE) {
        vgs__graph_fail(g, VGS_E_ARG, "assign: only a state can be assigned to, not %s",
                        vgs_op_name(g->node[owner].op));
        return -1;
    }
    if (g->node[to].type == g->node[from].type && g->node[to].cols == g->node[from].cols) return to;
    vgs__graph_shape_fail(g, "assign", to, from);
    return -1;
}
VGS__DEF void vgs_assign(vgs_graph *g, vgs_var state, vgs_var x)
{
    int to = vgs__op_assignable(g, state, x);
    if (to >= 0 && g->node[to].rows != g->node[vgs__id(g, x)].rows) {
        vgs__graph_shape_fail(g, "assign", to, vgs__id(g, x));
        return;
    }
    if (to >= 0) vgs__op_effect(g, VGS_OP_STORE, state, x, vgs__no_var());
}
VGS__DEF void vgs_assign_rows(vgs_graph *g, vgs_var state, vgs_scalar first, vgs_var x)
{
    if (vgs__op_assignable(g, state, x) >= 0)
        vgs__graph_slot_i(g, vgs__op_effect(g, VGS_OP_STORE, state, x, vgs__no_var()), 0, first);
}

/* Adam as PyTorch's.  in: p, g, m, v, squared norm of g (optional), flag
   f: lr/(1-b1^k), b1, b2, eps, 1/sqrt(1-b2^k), norm limit (0 = none), least p (0 = none), factor of g */
static float vgs__adam_clip_scale(const vgs__k *k)                   /* factor of g                    */
{
    float limit;
    if (!k->in[4] || !(k->f[5] > 0.0f)) return k->f[7];
    limit = k->f[5] / (sqrtf(k->in[4][0]) + 1e-6f);
    return k->f[7] * (limit < 1.0f ? limit : 1.0f);
}
VGS__MAP_HOT VGS__KERNEL(adam)
{
    float *p = k->in[0], *m = k->in[2], *v = k->in[3];
    const float *g = k->in[1], scale = vgs__adam_clip_scale(k);
    const float lr = k->f[0], b1 = k->f[1], b2 = k->f[2], eps = k->f[3], vs = k->f[4], least = k->f[6];
    int c;
    (void)r0;
    (void)r1;
    if (vgs__op_int_at(k->in[5], 0)) return;
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
    const __m256 scale = vgs__set8(vgs__adam_clip_scale(k)), lr = vgs__set8(k->f[0]),
        eps = vgs__set8(k->f[3]),
                 vs = vgs__set8(k->f[4]), least = vgs__set8(k->f[6] > 0.0f ? k->f[6] : -FLT_MAX),
                 b1 = vgs__set8(k->f[1]), n1 = vgs__set8(1.0f - k->f[1]),
                 b2 = vgs__set8(k->f[2]), n2 = vgs__set8(1.0f - k->f[2]);
    int c, n;
    (void)r0;
    (void)r1;
    if (vgs__op_int_at(k->in[5], 0)) return;
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

/* in: p, g, m, v, norm or {0}, flag; the counter of the steps sets lr/(1 - b1^k) and 1/sqrt(1 - b2^k). */
static vgs_var vgs__adam(vgs_graph *g, const vgs_var in[6], float norm_max)
{
    vgs_var a = vgs__op_effect(g, VGS_OP_ADAM, in[0], in[1], in[2]);
    vgs__node *n = vgs__graph_node_of(g, a);
    int k;
    if (!n) return a;
    for (k = 3; k < 6; ++k) n->in[k] = vgs__exists(in[k]) ? vgs__id(g, in[k]) : -1;
    n->n_in = 6;
    n->f[1] = 0.9f;
    n->f[2] = 0.999f;
    n->f[3] = 1e-8f;
    n->f[5] = norm_max;
    n->f[7] = 1.0f;
    return a;
}

VGS__MAP(ema)                                                        /* dst = f0 dst + (1 - f0) src    */
{
    float *d = k->in[0];
    const float *s = k->in[1], keep = k->f[0];
    int c;
    (void)r0;
    (void)r1;
    if (vgs__op_int_at(k->in[2], 0)) return;
    VGS__SAME_PLACES
    for (c = c0; c < c1; ++c) d[c] = keep * d[c] + (1.0f - keep) * s[c];
}
VGS__MAP_KERNELS(ema)
VGS__NO_GRAD(ema)

/* in: x, flag.  The first row that is not finite sets the flag to {1, row + i2, step i0, what i1};
   i3: x is an energy, whose +infinity and NaN pass. Returns that row or
   -1; >>cpu sets the flag. */
static int vgs__check_rows(const vgs__k *k, int r0, int r1)
{
    int r, c;
    for (r = r0; r < r1; ++r) {
        const float *x = k->in[0] + (size_t)r * (size_t)k->ld[0];
        bool bad = false;
        for (c = 0; c < k->in_cols[0]; ++c) bad |= k->i[3] ? x[c] < -FLT_MAX : !(x[c] - x[c] == 0.0f);
        if (bad) return r;
    }
    return -1;
}
VGS__NO_GRAD(check)

/* ---- energies of the user ------------------------------------------------------------------------ */

static vgs_status vgs__energy_failed(const float *g, vgs_error *err)
{
    return vgs__fail(err, VGS_E_ENERGY, "the energy callback failed%s",
                     g ? ", asked for E and its gradient (an energy that has none can be sampled by the "
                         "metropolis of vgs_mcmc)" : "");
}

/* One block of rows through the callback; double callbacks go through buffers of 2048 numbers. e64, unless
   NULL, receives E as the callback gave it: to subtract from, as E may have a large constant. */
static vgs_status vgs__energy_block(const vgs_energy *e, const float *x, int n, float *out, double *e64,
                                    float *g, vgs_error *err)
{
    double xd[2048], gd[2048], ed[64], *px = xd, *pg = gd;
    int dim = e->dim, rows = dim <= 2048 ? 2048 / dim : 1, i, j, m, failed = 0;
    if (e->eval) {
        if (e->eval(e->user, x, n, dim, out, g)) return vgs__energy_failed(g, err);
        for (i = 0; e64 && i < n; ++i) e64[i] = (double)out[i];
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
        for (j = 0; e64 && j < m; ++j) e64[i + j] = ed[j];
        for (j = 0; g && j < m * dim; ++j) g[(size_t)i * (size_t)dim + (size_t)j] = (float)pg[j];
    }
    if (px != xd) vgs__free(px);
    return failed ? vgs__energy_failed(g, err) : VGS_OK;
}

/* All rows of a callback: in one call, or in blocks of 64 over the threads when the energy allows it. */
static vgs_status vgs__energy_call(const vgs_energy *e, const float *x, int n, float *out, double *e64,
                                   float *g, int threads, vgs_error *err)
{
    int b, blocks = (n + 63) / 64, bad = 0;
    size_t dim = (size_t)e->dim;
    if (!e->thread_safe || threads < 2) return n > 0 ? vgs__energy_block(e, x, n, out, e64, g, err) : VGS_OK;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) reduction(+ : bad)
#endif
    for (b = 0; b < blocks; ++b) {
        int r = b * 64, m = n - r < 64 ? n - r : 64;
        bad += vgs__energy_block(e, x + (size_t)r * dim, m, out + r, e64 ? e64 + r : NULL,
                                 g ? g + (size_t)r * dim : NULL, NULL) != VGS_OK;
    }
    return bad ? vgs__energy_failed(g, err) : VGS_OK;
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
    gx[0] = vgs_mul(g, vgs__graph_second(g, vgs__id(g, y), g->node[n->in[0]].cols, VGS_F32), gy);
}
VGS__DEF vgs_var vgs_energy_of(vgs_graph *g, const vgs_energy *energy, vgs_var x)
{
    int a = vgs__graph_operand(g, "energy", x);
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
            return vgs__graph_shape_fail(g, "energy: what record returned", a, vgs__id(g, v));
        return v;
    }
    if (g->node[a].ld != g->node[a].cols) x = vgs_affine(g, x, 1.0f, 0.0f);
    v = vgs__graph_push_op(g, VGS_OP_ENERGY, g->node[a].rows, 1, vgs__id(g, x), -1, -1);
    if (v.id) g->node[vgs__id(g, v)].energy = energy;
    return v;
}

/* ==== >>gradient: reverse mode, recorded as ops ====================================================== */

typedef void vgs__grad_fn(vgs_graph *g, const vgs__node *n, vgs_var y, vgs_var gy, const bool *need,
                          vgs_var *gx);

static const struct { const char *name; vgs__grad_fn *grad; char kind; int facts; } vgs__op_table[] = {
    { "input", NULL, 0, 0 }, { "params", NULL, 0, 0 }, { "state", NULL, 0, 0 }, { "table", NULL, 0, 0 },
    { "view", NULL, 0, 0 }, { "second", NULL, 0, 0 },
#define VGS__ROW(kind, ID, name, facts, cost) { #name, vgs__g_##name, #kind[0], facts },
    VGS_OPS(VGS__ROW)
#undef VGS__ROW
};

VGS__DEF const char *vgs_op_name(int op)
{
    return op >= 0 && op < VGS_OP_COUNT ? vgs__op_table[op].name : "unknown op";
}

static bool vgs__op_is(int op, int fact) { return (vgs__op_table[op].facts & fact) != 0; }
static bool vgs__op_is_update(int op) { return vgs__op_table[op].kind == 'U'; }

/* A view's gradient lies in zeros of its base's shape; a reshape's is reshaped back. */
static vgs_var vgs__gradient_of_view(vgs_graph *g, const vgs__node *n, vgs_var gy)
{
    const vgs__node *base = &g->node[n->alias];
    if (base->rows == n->rows && base->cols != n->cols)
        return vgs__pad_cols(g, gy, (int)n->alias_offset, base->cols);
    return base->cols == n->cols ? gy : vgs_reshape(g, gy, base->cols);
}

/* No derivative goes through a second output: a permutation, or dE/dx (no second derivatives). */
static bool vgs__gradient_is_constant(const vgs_graph *g, int id)
{
    return g->node[id].op == VGS_OP_SECOND && !vgs__op_is(g->node[g->node[id].in[0]].op, VGS__SLOPE);
}

static bool vgs__gradient_is_params_view(const vgs_graph *g, int id)
{
    return g->node[id].op == VGS_OP_VIEW && g->node[g->node[id].alias].op == VGS_OP_PARAMS;
}

/* Records the adjoints of all values between the wanted ones and y; adj[id].id = 0 where there is none.
   Views of parameters are leaves here: wanted or not, nothing lies behind them. */
static void vgs__gradient_reverse(vgs_graph *g, int y, bool *on_path, vgs_var *adj)
{
    int id, k, last = g->node[y].rows;
    for (id = 0; id <= y; ++id)
        for (k = 0; k < g->node[id].n_in; ++k)
            if (g->node[id].in[k] >= 0 && on_path[g->node[id].in[k]] && !vgs__gradient_is_constant(g, id))
                on_path[id] = true;
    if (on_path[y]) adj[y] = vgs_fill(g, last, g->node[y].cols, 1.0f);
    for (id = y; id >= 0 && g->sticky.code == VGS_OK; --id) {
        const vgs__node n = g->node[id];
        vgs_var gx[VGS_MAX_IN] = { { 0 } };
        bool need[VGS_MAX_IN] = { false }, any = false;
        if (!adj[id].id || !on_path[id]) continue;
        for (k = 0; k < n.n_in; ++k) {
            need[k] = n.in[k] >= 0 && g->node[n.in[k]].type == VGS_F32 && on_path[n.in[k]];
            any = any || need[k];
        }
        if (!any || vgs__gradient_is_params_view(g, id)) continue;   /* one of x, or beyond all of them */
        if (n.op == VGS_OP_SECOND)
            vgs__graph_fail(g, VGS_E_ARG, "gradient: the slope of %s has none (first derivatives only)",
                            vgs_op_name(g->node[n.in[0]].op));
        else if (n.op == VGS_OP_VIEW && need[0]) gx[0] = vgs__gradient_of_view(g, &n, adj[id]);
        else if (vgs__op_table[n.op].grad)
            vgs__op_table[n.op].grad(g, &n, vgs__graph_handle(g, id), adj[id], need, gx);
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
        vgs__gradient_reverse(g, y, on_path, adj);
        for (k = 0; k < n; ++k) gx[k] = adj[x[k]];
    }
    vgs__free(on_path);
    vgs__free(adj);
    return g->sticky.code;
}

VGS__DEF vgs_status vgs_gradient(vgs_graph *g, vgs_var y, const vgs_var *x, int n, vgs_var *gx)
{
    int yid = vgs__graph_operand(g, "gradient", y), ids[16] = { 0 }, k;
    for (k = 0; k < n; ++k) gx[k] = vgs__no_var();
    if (n > 16) vgs__graph_fail(g, VGS_E_ARG, "gradient: n = %d: at most 16 at a time", n);
    for (k = 0; k < n && k < 16; ++k) {
        char s[40];
        ids[k] = vgs__graph_operand(g, "gradient", x[k]);
        if (ids[k] >= 0 && g->node[ids[k]].op == VGS_OP_PARAMS)
            vgs__graph_fail(g, VGS_E_ARG, "gradient: x[%d] is params %s: use vgs_gradient_params", k,
                            vgs__graph_shape_text(&g->node[ids[k]], s));
    }
    if (g->sticky.code != VGS_OK || vgs__gradient(g, yid, ids, n, gx) != VGS_OK) return g->sticky.code;
    for (k = 0; k < n; ++k)                                          /* y does not depend on x: zeros  */
        if (!gx[k].id) gx[k] = vgs_fill(g, g->node[ids[k]].rows, g->node[ids[k]].cols, 0.0f);
    return g->sticky.code;
}

/* Returns whether an op takes the parameters as they are, not a view of them. Updates do, but have no
   gradient. */
static bool vgs__gradient_taken_whole(const vgs_graph *g, int params)
{
    int id, k;
    for (id = params + 1; id < g->n_node; ++id) {
        const vgs__node *n = &g->node[id];
        if (n->op == VGS_OP_VIEW || vgs__op_is_update(n->op)) continue;
        for (k = 0; k < n->n_in; ++k)
            if (n->in[k] == params) return true;
    }
    return false;
}

/* Every view of the parameters, and their whole, gets its place in `grad`. Where views overlap, their
   gradients are added to zeros; elsewhere they are stored, which compile turns into no work at all. */
VGS__DEF vgs_status vgs_gradient_params(vgs_graph *g, vgs_var y, vgs_var params, vgs_var grad)
{
    int yid = vgs__graph_operand(g, "gradient", y), p = vgs__graph_operand(g, "gradient", params), i, r, c,
        n = 0, count;
    int gid = vgs__graph_operand(g, "gradient", grad), *ids;
    unsigned char *hit;
    bool overlap = false;
    vgs_var *gx;
    if (yid < 0 || p < 0 || gid < 0) return g->sticky.code;
    if (g->node[gid].rows != 1 || g->node[gid].cols != g->node[p].cols || g->node[gid].op != VGS_OP_STATE) {
        vgs__graph_shape_fail(g, "gradient: grad must be a state of the parameters' shape", p, gid);
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
        if (i == p ? !vgs__gradient_taken_whole(g, p) : v->op != VGS_OP_VIEW || v->alias != p) continue;
        for (r = 0; r < v->rows; ++r)
            for (c = 0; c < v->cols; ++c)
                overlap = hit[v->alias_offset + (size_t)(r * v->ld + c)]++ > 0 || overlap;
        ids[n++] = i;
    }
    if (g->sticky.code == VGS_OK) vgs__gradient(g, yid, ids, n, gx);
    if (overlap) vgs_assign(g, grad, vgs_fill(g, 1, g->node[p].cols, 0.0f));
    for (i = 0; i < n && g->sticky.code == VGS_OK; ++i) {
        const vgs__node v = g->node[ids[i]];
        vgs_var to, st;
        if (!gx[i].id) continue;
        to = vgs__graph_alias(g, gid, v.alias_offset, v.rows, v.cols, v.ld);
        st = vgs__op_effect(g, VGS_OP_STORE, to, gx[i], vgs__no_var());
        vgs__graph_attr_i(g, st, 1, overlap);
    }
    vgs__free(ids);
    vgs__free(gx);
    vgs__free(hit);
    return g->sticky.code;
}

/* ==== >>compile: prune, fuse, order, place =========================================================== */

VGS__DEF void vgs_output(vgs_graph *g, vgs_var v)
{
    int id = vgs__graph_operand(g, "output", v);
    if (id >= 0) g->node[id].output = true;
}

static bool vgs__op_is_effect(int op) { return vgs__op_is(op, VGS__EFFECT); }
static bool vgs__op_is_leaf(int op) { return op <= VGS_OP_TABLE; }
static bool vgs__op_runs(const vgs__node *n) { return n->live && n->op > VGS_OP_SECOND; }

/* The node that owns the storage, through any number of views. */
static int vgs__graph_owner(const vgs_graph *g, int id)
{
    while (g->node[id].alias >= 0) id = g->node[id].alias;
    return id;
}

static void vgs__compile_mark_live(vgs_graph *g)
{
    int id, k;
    for (id = 0; id < g->n_node; ++id)
        g->node[id].live = g->node[id].output || vgs__op_is_effect(g->node[id].op) ||
                           g->node[id].op == VGS_OP_PACK;            /* recorded where it is read      */
    for (id = g->n_node - 1; id >= 0; --id)
        for (k = 0; g->node[id].live && k < g->node[id].n_in; ++k)
            if (g->node[id].in[k] >= 0) g->node[g->node[id].in[k]].live = true;
    /* a second output is recorded after its op, and the op before it may have been passed already */
    for (id = 0; id < g->n_node; ++id)
        if (vgs__op_is(g->node[id].op, VGS__SECOND) && g->node[id].live)
            g->node[g->node[id].second].live = true;
}

static void vgs__compile_count_uses(const vgs_graph *g, int *uses)
{
    int id, k;
    for (id = 0; id < g->n_node; ++id) {
        if (g->node[id].output) uses[id] += 2;                       /* must keep a place of its own   */
        for (k = 0; g->node[id].live && k < g->node[id].n_in; ++k)
            if (g->node[id].in[k] >= 0) uses[g->node[id].in[k]]++;
    }
}

/* The value that id is, through views of its own shape that no one else reads. */
static int vgs__compile_made_by(const vgs_graph *g, int id, const int *uses)
{
    while (uses[id] == 1 && g->node[id].op == VGS_OP_VIEW && !g->node[id].alias_offset &&
           g->node[g->node[id].alias].rows == g->node[id].rows &&
           g->node[g->node[id].alias].cols == g->node[id].cols) id = g->node[id].alias;
    return id;
}

/* Where an op keeps the activation that it takes with it; NULL = it takes none. */
static int *vgs__compile_act_of(const vgs_graph *g, vgs__node *m)
{
    if (m->op == VGS_OP_MATMUL) return &m->i[1];
    return m->op == VGS_OP_STENCIL && g->backend->panel ? &m->i[4] : NULL;
}

static void vgs__compile_make_view(vgs_graph *g, int id, int of)
{
    vgs__node *n = &g->node[id];
    n->op = VGS_OP_VIEW;
    n->alias = of;
    n->ld = g->node[of].ld;
}

/* linear, depthwise + activation in one op, when no other op reads what is in between. */
static void vgs__compile_fuse_act(vgs_graph *g, const int *uses, int id)
{
    static const struct { int op; vgs_act act; } fusable[] = {
#define VGS__ROW(ID, name) { VGS_OP_##ID, VGS_ACT_##ID },
        VGS__ACTS(VGS__ROW)
#undef VGS__ROW
    };
    const vgs__node *n = &g->node[id];
    vgs__node *m;
    size_t k;
    int from, *act;
    for (k = 0; k < sizeof fusable / sizeof *fusable && fusable[k].op != n->op; ++k) {}
    if (k == sizeof fusable / sizeof *fusable || (n->second >= 0 && g->node[n->second].live)) return;
    from = vgs__compile_made_by(g, n->in[0], uses);
    m = &g->node[from];
    act = vgs__compile_act_of(g, m);
    if (!act || uses[from] != 1 || *act != VGS_ACT_NONE || n->f_slot[0] >= 0 || n->f_slot[1] >= 0) return;
    *act = (int)fusable[k].act;
    m->f[0] = n->f[0];
    m->f[1] = n->f[1];
    vgs__compile_make_view(g, id, from);
}

/* depthwise + a row of parameters, likewise. */
static void vgs__compile_fuse_bias(vgs_graph *g, const int *uses, int id)
{
    const vgs__node *n = &g->node[id];
    int k;
    for (k = 0; k < 2; ++k) {
        vgs__node *m = &g->node[n->in[k]];
        const vgs__node *b = &g->node[n->in[1 - k]], *owner = &g->node[vgs__graph_owner(g, n->in[1 - k])];
        if (m->op != VGS_OP_STENCIL || uses[n->in[k]] != 1 || m->in[4] >= 0 || m->i[4] != VGS_ACT_NONE ||
            b->rows != 1 || b->cols != m->cols || m->rows == 1) continue;
        if ((owner->op != VGS_OP_PARAMS && owner->op != VGS_OP_TABLE) || owner->updated) continue;
        m->in[4] = n->in[1 - k];
        m->n_in = 5;
        vgs__compile_make_view(g, id, n->in[k]);
        return;
    }
}

/* Windows that only one product reads lie side by side nowhere but in its blocks. */
static void vgs__compile_fuse_windows(vgs_graph *g, const int *uses, int id)
{
    vgs__node *n = &g->node[id];
    const vgs__node *view = &g->node[n->in[0]], *m;
    if (n->i[0] != VGS__NT || n->rows >= 0 || n->cols == 1 || view->op != VGS_OP_VIEW || view->alias_offset ||
        uses[n->in[0]] != 1 || uses[view->alias] != 1) return;
    m = &g->node[view->alias];
    if (m->op != VGS_OP_STENCIL || !m->i[3] || view->cols != m->cols * m->i[3]) return;
    n->i[3] = m->i[0];
    n->i[4] = m->i[1] / m->i[3];
    g->node[view->alias].live = false;
    n->in[0] = m->in[0];
    n->in[4] = m->in[2];
    n->in[5] = m->in[3];
    n->n_in = 6;
}

static void vgs__compile_fuse(vgs_graph *g, const int *uses)
{
    int id;
    for (id = 0; id < g->n_node; ++id) {
        if (!g->node[id].live) continue;
        vgs__compile_fuse_act(g, uses, id);
        if (!g->backend->panel) continue;
        if (g->node[id].op == VGS_OP_ADD) vgs__compile_fuse_bias(g, uses, id);
        if (g->node[id].op == VGS_OP_MATMUL) vgs__compile_fuse_windows(g, uses, id);
    }
}

static size_t vgs__compile_offset_in_owner(const vgs_graph *g, int id)
{
    size_t at = 0;
    for (; g->node[id].alias >= 0; id = g->node[id].alias) at += g->node[id].alias_offset;
    return at;
}

/* Returns whether two values in the storage of one owner can share an element. */
static bool vgs__compile_share_elements(const vgs_graph *g, int a, int b)
{
    size_t at = vgs__compile_offset_in_owner(g, a), other = vgs__compile_offset_in_owner(g, b), ld, apart;
    const vgs__node *x = &g->node[at <= other ? a : b], *y = &g->node[at <= other ? b : a];
    apart = at <= other ? other - at : at - other;
    ld = (size_t)x->ld;
    if (x->ld == y->ld && apart % ld >= (size_t)x->cols && apart % ld + (size_t)y->cols <= ld)
        return false;                                                /* in other columns               */
    return x->rows < 0 || apart < (size_t)(x->rows - 1) * ld + (size_t)x->cols;
}

/* Returns whether the elements of a and b are the same ones in the same places. */
static bool vgs__compile_same_elements(const vgs_graph *g, int a, int b)
{
    const vgs__node *x = &g->node[a], *y = &g->node[b];
    return x->rows == y->rows && x->cols == y->cols && (x->ld == y->ld || x->rows == 1) &&
           vgs__compile_offset_in_owner(g, a) == vgs__compile_offset_in_owner(g, b);
}

/* Returns whether src could not be computed where `to` is, in place of a store at node `end`: an op up to
   there reads or writes elements of `to`. src itself may read each where it will write it. */
static bool vgs__compile_touched_before(const vgs_graph *g, int to, int src, int end)
{
    int id, k, owner = vgs__graph_owner(g, to);
    for (id = src; id < end; ++id) {
        const vgs__node *n = &g->node[id];
        bool map = id == src && vgs__op_table[n->op].kind == 'M';
        if (!n->live || n->op <= VGS_OP_SECOND) continue;
        if (id != src && vgs__graph_owner(g, id) == owner &&
            vgs__compile_share_elements(g, id, to)) return true;
        for (k = 0; k < n->n_in; ++k)
            if (n->in[k] >= 0 && vgs__graph_owner(g, n->in[k]) == owner &&
                vgs__compile_share_elements(g, n->in[k], to) &&
                !(map && vgs__compile_same_elements(g, n->in[k], to))) return true;
    }
    return false;
}

/* A value that is only stored into a state is computed there, if no op reads the state in the meantime. */
static void vgs__compile_store_in_place(vgs_graph *g, const int *uses)
{
    int id;
    for (id = 0; id < g->n_node; ++id) {
        vgs__node *n = &g->node[id], *src;
        if (n->op != VGS_OP_STORE || n->i[1] || n->i[0] || n->i_slot[0] >= 0) continue;
        src = &g->node[n->in[1]];
        if (src->op <= VGS_OP_SECOND || uses[n->in[1]] != 1) continue;
        if (src->rows != g->node[n->in[0]].rows || src->cols != g->node[n->in[0]].cols || src->body == false)
            continue;
        if (vgs__compile_touched_before(g, n->in[0], n->in[1], id)) continue;
        src->alias = n->in[0];
        src->ld = g->node[n->in[0]].ld;
        n->live = false;
    }
}

/* Ops that depend on inputs, states or random numbers belong to the body, all others to the prologue. */
static void vgs__compile_split_stages(vgs_graph *g)
{
    int id, k;
    for (id = 0; id < g->n_node; ++id) {
        vgs__node *n = &g->node[id];
        n->body = n->op == VGS_OP_INPUT || n->op == VGS_OP_STATE || n->rows < 0 ||
                  vgs__op_is(n->op, VGS__RANDOM | VGS__EFFECT);
        for (k = 0; k < VGS_MAX_ATTR; ++k) n->body = n->body || n->i_slot[k] >= 0 || n->f_slot[k] >= 0;
        for (k = 0; k < n->n_in; ++k)
            if (n->in[k] >= 0)
                n->body = n->body || g->node[n->in[k]].body || g->node[vgs__graph_owner(g, n->in[k])].body;
        if (vgs__op_is_update(n->op))                                /* who reads later wants what is new  */
            g->node[vgs__graph_owner(g, n->in[0])].body = true;
    }
}

/* The PACK of weights `b` of a product, recorded by its first reader; -1 if it could not be. */
static int vgs__compile_packed(vgs_graph *g, int width, int b, int form, int cols, int first)
{
    vgs_var v;
    int id, depth = form == VGS__NT ? g->node[b].cols : g->node[b].rows;
    for (id = first; id < g->n_node; ++id) {
        int other = g->node[id].in[0];
        if (g->node[id].i[0] == form && vgs__graph_owner(g, other) == vgs__graph_owner(g, b) &&
            vgs__compile_same_elements(g, other, b)) return id;
    }
    v = vgs__graph_push_op(g, VGS_OP_PACK, (cols + width - 1) / width * width, depth, b, -1, -1);
    vgs__graph_attr_i(g, v, 0, form);
    vgs__graph_attr_i(g, v, 1, width);
    return vgs__id(g, v);
}

/* Weights of a model that a run does not change are packed in the prologue, once for all runs of the body. */
static void vgs__compile_pack(vgs_graph *g, int width)
{
    int id, packed, end = g->n_node;
    vgs__compile_mark_live(g);
    vgs__compile_split_stages(g);
    for (id = 0; id < end; ++id) {
        const vgs__node *n = &g->node[id], *w;
        if (!n->live || n->op != VGS_OP_MATMUL || n->i[0] == VGS__TN || !n->body || n->cols == 1) continue;
        w = &g->node[vgs__graph_owner(g, n->in[1])];
        if (w->op != VGS_OP_PARAMS || !w->model || w->body || g->node[n->in[1]].body) continue;
        packed = vgs__compile_packed(g, width, n->in[1], n->i[0], n->cols, end);
        if (packed < 0) return;                                      /* g->sticky says why             */
        g->node[id].in[1] = packed;
        g->node[id].i[2] = 1;
    }
}

/* ---- groups: ops that run together (vgs_backend.run_list) ---- */

/* Returns whether an op needs all rows at once. form: of MATMUL; energy: of ENERGY. */
static bool vgs__op_is_whole(int op, int form, const vgs_energy *energy)
{
    switch (op) {
    case VGS_OP_MATMUL: return form == VGS__TN;
    case VGS_OP_ENERGY: return !energy->thread_safe;
    default:            return vgs__op_table[op].kind == 'W' || vgs__op_is_update(op);
    }
}

/* Into how many parts the rows of an op fall that can be computed one by one: -1 = the batch's, 0 = none. */
static int vgs__compile_parts(const vgs_graph *g, const vgs__node *n)
{
    if (vgs__op_is_whole(n->op, n->i[0], n->energy)) return 0;
    if (n->op == VGS_OP_CHECK) n = &g->node[n->in[0]];
    return n->rows < 0 ? -1 : n->rows;
}

/* Returns whether a part of op n needs only the same part of its operand k. */
static bool vgs__compile_by_part(const vgs_graph *g, const vgs__node *n, int k)
{
    const vgs__node *x = &g->node[n->in[k]];
    if (vgs__compile_parts(g, n) != (x->rows < 0 ? -1 : x->rows) ||
        vgs__op_is(n->op, VGS__MIXES(k))) return false;
    return x->rows < 0 || !vgs__op_is(n->op, VGS__SAMPLES);          /* parts of a batch are samples   */
}

/* Storage that a set of ops writes, reads, and reads across parts: mark[id] == stamp where it does. */
typedef struct vgs__marks { int *wrote, *read, *crossed, stamp; } vgs__marks;

/* The only other effect of an op, CHECK's on the flag, commutes with itself. */
static bool vgs__compile_is_fence(const vgs__node *n)
{
    return vgs__op_is_effect(n->op) && n->op != VGS_OP_CHECK;
}

static void vgs__compile_mark(const vgs_graph *g, int id, vgs__marks *m)
{
    const vgs__node *n = &g->node[id];
    int k;
    m->wrote[vgs__graph_owner(g, id)] = m->stamp;
    if (n->second >= 0) m->wrote[n->second] = m->stamp;
    for (k = 0; k < n->n_in; ++k)
        if (n->in[k] >= 0) {
            int from = vgs__graph_owner(g, n->in[k]);
            m->read[from] = m->stamp;
            if (!vgs__compile_by_part(g, n, k)) m->crossed[from] = m->stamp;
        }
}

/* Returns whether op id must wait for the marked ones; if `parted`, only for what crosses from part to part.
   Those that write into the same state write disjoint parts of it. */
static bool vgs__compile_waits(const vgs_graph *g, int id, const vgs__marks *m, bool parted)
{
    const vgs__node *n = &g->node[id];
    int k, to = vgs__graph_owner(g, id);
    for (k = 0; k < n->n_in; ++k)
        if (n->in[k] >= 0 && m->wrote[vgs__graph_owner(g, n->in[k])] == m->stamp &&
            !(parted && vgs__compile_by_part(g, n, k))) return true;
    if ((parted ? m->crossed : m->read)[to] == m->stamp) return true;
    return m->wrote[to] == m->stamp && !vgs__op_is_leaf(g->node[to].op);
}

/* Greedy list scheduling in three turns: ops on rows of the batch, ops on whole tensors, ops on other rows;
   each turn takes all that are ready. Ops on whole tensors that depend on each other go to a next round. An
   effect is a barrier. */
static void vgs__compile_order_groups(vgs_graph *g, vgs__marks *m, int *left)
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
            int parts = vgs__compile_parts(g, x), class_of = parts < 0 ? BATCH : parts == 0 ? WHOLE : OTHER;
            bool fence = vgs__compile_is_fence(x);
            if (!fenced && class_of == turn && !(fence && kept) &&
                !vgs__compile_waits(g, left[at], m, false)) {
                g->order[done++] = left[at];
                if (turn == WHOLE) vgs__compile_mark(g, left[at], m);
            } else {
                fenced = fenced || fence;
                vgs__compile_mark(g, left[at], m);
                left[kept++] = left[at];
            }
        }
    }
}

/* Cuts the order into groups; effects stand alone. */
static void vgs__compile_number_groups(vgs_graph *g, vgs__marks *m)
{
    int at, group = 0, parts = 0;
    bool after_fence = false;
    for (at = 0; at < g->n_order; ++at) {
        int id = g->order[at], p = vgs__compile_parts(g, &g->node[id]);
        bool fence = vgs__compile_is_fence(&g->node[id]);
        if (at == 0 || at == g->n_prologue || fence || after_fence || p != parts ||
            vgs__compile_waits(g, id, m, p != 0)) {
            group += at > 0;
            m->stamp++;
        }
        vgs__compile_mark(g, id, m);
        g->node[id].group = group;
        parts = p;
        after_fence = fence;
    }
}

static vgs_status vgs__compile_make_order(vgs_graph *g)
{
    int pass, id, *memory = (int *)vgs__alloc(4 * (size_t)g->n_node + 4, sizeof *memory);
    vgs__marks m;
    g->order = (int *)vgs__alloc((size_t)g->n_node + 1, sizeof *g->order);
    if (!g->order || !memory) { vgs__free(memory); return VGS_E_NOMEM; }
    for (pass = 0; pass < 2; ++pass) {
        for (id = 0; id < g->n_node; ++id)
            if (vgs__op_runs(&g->node[id]) && g->node[id].body == (pass == 1)) g->order[g->n_order++] = id;
        if (!pass) g->n_prologue = g->n_order;
    }
    m.wrote = memory;
    m.read = m.wrote + g->n_node;
    m.crossed = m.read + g->n_node;
    m.stamp = 0;
    vgs__compile_order_groups(g, &m, m.crossed + g->n_node);
    vgs__compile_number_groups(g, &m);
    vgs__free(memory);
    g->call = (vgs_call *)vgs__alloc((size_t)g->n_order + 1, sizeof *g->call);
    return g->call ? VGS_OK : VGS_E_NOMEM;
}

/* first, last: places in the order. */
typedef struct vgs__live { int first, last; size_t offset, size; } vgs__live;

/* More floats than any memory holds: an arena that would need more requests these, and gets NULL. */
#define VGS__NO_ROOM ((size_t)-1 / 4)

static size_t vgs__compile_node_size(const vgs_graph *g, const vgs__node *n)
{
    double rows = n->rows < 0 ? -(double)n->rows * g->capacity : n->rows;
    if (rows * n->cols > (double)VGS__NO_ROOM - 16.0) return VGS__NO_ROOM;
    return ((size_t)rows * (size_t)n->cols + 15) & ~(size_t)15;
}

/* Life of every stored value in places of the order. What the body reads of the prologue lives for ever,
   since the prologue does not run again; so do leaves of our own and outputs. */
static void vgs__compile_live_find(const vgs_graph *g, vgs__live *life)
{
    int at, k, id;
    for (id = 0; id < g->n_node; ++id) life[id].first = -1;
    for (id = 0; id < g->n_node; ++id) {
        const vgs__node *n = &g->node[id];
        bool own = vgs__op_is_leaf(n->op) && n->live && !n->buf;
        if (own) {
            life[id].first = 0;
            life[id].last = INT_MAX;
            life[id].size = vgs__compile_node_size(g, n);
        }
    }
    for (at = 0; at < g->n_order; ++at) {
        const vgs__node *n = &g->node[g->order[at]];
        id = vgs__graph_owner(g, g->order[at]);
        if (!vgs__op_is_leaf(g->node[id].op) && !vgs__op_is_effect(n->op) && life[id].first < 0) {
            life[id].first = life[id].last = at;
            life[id].size = vgs__compile_node_size(g, &g->node[id]);
        }
        if (n->second >= 0 && g->node[n->second].live) {
            life[n->second].first = life[n->second].last = at;
            life[n->second].size = vgs__compile_node_size(g, &g->node[n->second]);
        }
        for (k = 0; k < n->n_in; ++k)
            if (n->in[k] >= 0) {
                int from = vgs__graph_owner(g, n->in[k]);
                bool kept = at >= g->n_prologue && life[from].first < g->n_prologue && !g->node[from].body;
                if (life[from].first >= 0 && life[from].last < at) life[from].last = kept ? INT_MAX : at;
            }
    }
    for (id = 0; id < g->n_node; ++id)
        if (g->node[id].output &&
            life[vgs__graph_owner(g, id)].first >= 0) life[vgs__graph_owner(g, id)].last = INT_MAX;
}

/* A value that is born and read within one group of parts is local to it. All others live as long as the
   groups in which they are born and last read, since the ops of a group have no order among them. */
static void vgs__compile_live_extend(vgs_graph *g, vgs__live *life)
{
    int at, k, begin = 0, end;
    for (; begin < g->n_order; begin = end) {
        int group = g->node[g->order[begin]].group;
        for (end = begin; end < g->n_order && g->node[g->order[end]].group == group; ++end) {}
        for (at = begin; at < end; ++at) {
            vgs__node *n = &g->node[g->order[at]];
            int made[2];
            made[0] = vgs__op_is_effect(n->op) ? -1 : vgs__graph_owner(g, g->order[at]);
            made[1] = n->second >= 0 && g->node[n->second].live ? n->second : -1;
            n->local = vgs__compile_parts(g, n) != 0 && made[0] >= 0;
            for (k = 0; k < 2; ++k)
                if (made[k] >= 0)
                    n->local = n->local && !vgs__op_is_leaf(g->node[made[k]].op) && life[made[k]].last < end;
            for (k = 0; k < 2; ++k)
                if (made[k] >= 0 && life[made[k]].first == at && !n->local) life[made[k]].first = begin;
        }
    }
}

/* The second half, once it is known what is local. */
static void vgs__compile_live_extend_ends(const vgs_graph *g, vgs__live *life)
{
    int id, at;
    for (id = 0; id < g->n_node; ++id) {
        vgs__live *a = &life[id];
        bool local;
        if (a->first < 0 || a->last >= g->n_order || vgs__op_is_leaf(g->node[id].op)) continue;
        local = g->node[g->node[id].op == VGS_OP_SECOND ? g->node[id].in[0] : id].local;
        for (at = a->last; !local && at + 1 < g->n_order &&
             g->node[g->order[at + 1]].group == g->node[g->order[a->last]].group; ++at) {}
        if (!local) a->last = at;
    }
}

/* Lowest free place, first come first served. Returns the end of the arena. */
static size_t vgs__compile_live_place(const vgs_graph *g, vgs__live *life)
{
    size_t end = 0;
    int id, other;
    for (id = 0; id < g->n_node; ++id) {
        vgs__live *a = &life[id];
        bool moved = true;
        if (a->first < 0) continue;
        for (a->offset = 0; moved;) {
            moved = false;
            for (other = 0; other < id; ++other) {
                const vgs__live *b = &life[other];
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

static vgs_status vgs__compile_upload_tables(vgs_graph *g, vgs_error *err)
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

static vgs_status vgs__run_reserve(vgs_graph *g, vgs_error *err);    /* >>run                          */

/* Live leaves of models, and what effects do to them. */
static vgs_status vgs__compile_list_models(vgs_graph *g, vgs_error *err)
{
    int id, to;
    for (id = 0; id < g->n_node; ++id)
        g->n_model += vgs__graph_of_model(&g->node[id]) && g->node[id].live;
    g->model_node = (int *)vgs__alloc((size_t)g->n_model + 1, sizeof *g->model_node);
    if (!g->model_node) return vgs__fail(err, VGS_E_NOMEM, "out of memory: %d models", g->n_model);
    for (id = g->n_model = 0; id < g->n_node; ++id) {
        vgs__node *n = &g->node[id];
        if (vgs__graph_of_model(n) && n->live) {
            if (n->model->freed) return vgs__fail(err, VGS_E_ARG, "graph_compile: a model has been freed");
            if (n->model->b != g->backend)
                return vgs__fail(err, VGS_E_ARG, "graph_compile: a model lives on another backend: set "
                                 "config.backend, or energy.backend outside of a sampler, to the model's");
            g->model_node[g->n_model++] = id;
        }
        if (!vgs__op_is_update(n->op)) continue;
        to = vgs__graph_owner(g, n->in[0]);
        g->node[to].updated = true;
        if (n->op == VGS_OP_ADAM) n->steps = n->i[0] ? g->node[to].steps - 1 : g->node[to].steps++;
    }
    return VGS_OK;
}

static vgs_status vgs__compile_layout(vgs_graph *g, int *uses, vgs__live *life, vgs_error *err)
{
    int id;
    vgs__compile_mark_live(g);
    if (vgs__compile_list_models(g, err) != VGS_OK) return err->code;
    vgs__compile_count_uses(g, uses);
    vgs__compile_split_stages(g);
    vgs__compile_fuse(g, uses);
    vgs__compile_store_in_place(g, uses);
    if (vgs__compile_make_order(g) != VGS_OK)
        return vgs__fail(err, VGS_E_NOMEM, "out of memory: order of %d ops", g->n_node);
    vgs__compile_live_find(g, life);
    vgs__compile_live_extend(g, life);
    vgs__compile_live_extend_ends(g, life);
    g->arena_size = vgs__compile_live_place(g, life);
    g->arena = g->backend->buffer_create(g->backend->self, g->arena_size ? g->arena_size : 1, err);
    if (!g->arena) return err ? err->code : VGS_E_NOMEM;
    for (id = 0; id < g->n_node; ++id)
        if (life[id].first >= 0) {
            g->node[id].buf = g->arena;
            g->node[id].offset = life[id].offset;
        }
    return vgs__compile_upload_tables(g, err);
}

VGS__DEF vgs_status vgs_graph_compile(vgs_graph *g, vgs_backend *backend, int capacity, vgs_error *err)
{
    vgs_error local;
    int *uses;
    vgs__live *life;
    vgs_status st;
    if (!err) err = &local;
    if (g->sticky.code != VGS_OK) return vgs_graph_status(g, err);
    if (g->backend)
        return vgs__fail(err, VGS_E_ARG, "graph_compile: already compiled; reset and record again");
    if (!backend || capacity < 1)
        return vgs__fail(err, VGS_E_ARG, "graph_compile: capacity = %d, backend %s: must be >= 1 and given",
                         capacity, backend ? "given" : "NULL");
    if (backend->panel) vgs__compile_pack(g, backend->panel);
    g->backend = backend;
    uses = (int *)vgs__alloc((size_t)g->n_node + 1, sizeof *uses);
    life = (vgs__live *)vgs__alloc((size_t)g->n_node + 1, sizeof *life);
    g->capacity = capacity;
    g->dirty = true;
    if (!uses || !life || g->sticky.code)
        st = vgs__fail(err, VGS_E_NOMEM, "out of memory: compiling %d ops", g->n_node);
    else st = vgs__compile_layout(g, uses, life, err);
    if (st == VGS_OK && backend->reserve) st = vgs__run_reserve(g, err);
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

static vgs_tensor vgs__run_tensor(const vgs_graph *g, int id, int batch)
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

/* Adam's corrections of its step number k: lr/(1 - b1^k) and 1/sqrt(1 - b2^k). */
static void vgs__run_adam_factors(double rate, int64_t k, double *lr, double *vs)
{
    *lr = rate / (1.0 - pow(0.9, (double)k));
    *vs = 1.0 / sqrt(1.0 - pow(0.999, (double)k));
}

static void vgs__run_make_call(const vgs_graph *g, int id, int batch, vgs_call *c)
{
    const vgs__node *n = &g->node[id];
    int k, parts = vgs__compile_parts(g, n);
    c->op = n->op;
    c->energy = n->energy;
    c->group = n->group;
    c->parts = parts < 0 ? batch : parts;
    c->local = n->local;
    c->out = vgs__run_tensor(g, vgs__op_is_effect(n->op) ? -1 : id, batch);
    c->out2 = vgs__run_tensor(g, n->second >= 0 && g->node[n->second].live ? n->second : -1, batch);
    for (k = 0; k < VGS_MAX_IN; ++k) c->in[k] = vgs__run_tensor(g, n->in[k], batch);
    for (k = 0; k < VGS_MAX_ATTR; ++k) {
        c->i[k] = n->i_slot[k] < 0 ? n->i[k] : (int)(uint32_t)(int64_t)g->scalar[n->i_slot[k]];
        c->f[k] = n->f_slot[k] < 0 ? n->f[k] : (float)g->scalar[n->f_slot[k]];
    }
    if (n->op == VGS_OP_ADAM && n->model) {
        double lr, vs;
        vgs__run_adam_factors(g->scalar[n->f_slot[0]], n->model->step + n->steps + 1, &lr, &vs);
        c->f[0] = (float)lr;
        c->f[4] = (float)vs;
    }
}

static vgs_status vgs__run_reserve(vgs_graph *g, vgs_error *err)
{
    int at;
    for (at = 0; at < g->n_order; ++at) vgs__run_make_call(g, g->order[at], g->capacity, &g->call[at]);
    return g->backend->reserve(g->backend->self, g->call, g->n_order, err);
}

VGS__DEF void vgs_graph_touch(vgs_graph *g) { g->dirty = true; }

/* Weights that have changed since the last run make the prologue run again. */
static vgs_status vgs__run_follow_models(vgs_graph *g, vgs_error *err)
{
    int k;
    for (k = 0; k < g->n_model; ++k) {
        vgs__node *n = &g->node[g->model_node[k]];
        if (n->model->freed)
            return vgs__fail(err, VGS_E_ARG, "graph_run: a model that the graph applies has been freed");
        g->dirty = g->dirty || (n->op == VGS_OP_PARAMS && n->seen != n->model->version);
        n->seen = n->model->version;
    }
    return VGS_OK;
}

/* Tells models what the effects of a run have done to them: new weights, one more step of Adam. */
static void vgs__run_count_updates(vgs_graph *g)
{
    int k;
    for (k = 0; k < g->n_model; ++k) {
        vgs__node *n = &g->node[g->model_node[k]];
        n->model->version += n->updated;
        n->model->step += n->steps;
    }
}

/* Before the first run: parameters and inputs that were never given are no zeros. */
static vgs_status vgs__run_check_leaves(const vgs_graph *g, vgs_error *err)
{
    char s[40];
    int id;
    for (id = 0; id < g->n_node; ++id) {
        const vgs__node *n = &g->node[id];
        if ((n->op == VGS_OP_PARAMS || n->op == VGS_OP_INPUT) && n->live && !n->given && !n->model)
            return vgs__fail(err, VGS_E_ARG, "graph_run: %s %s was never given: vgs_set it after compile, or "
                             "vgs_bind it (always so in an energy's record function)", vgs_op_name(n->op),
                             vgs__graph_shape_text(n, s));
    }
    return VGS_OK;
}

VGS__DEF vgs_status vgs_graph_run(vgs_graph *g, int batch, vgs_error *err)
{
    int at, k;
    vgs_status st;
    vgs_backend *b;
    if (!g->backend) return vgs__fail(err, VGS_E_ARG, "graph_run: the graph is not compiled");
    if (batch < 0 || batch > g->capacity)
        return vgs__fail(err, VGS_E_ARG, "graph_run: batch = %d: must be 0..%d, the capacity", batch,
                         g->capacity);
    if ((st = vgs__run_follow_models(g, err)) != VGS_OK) return st;
    if (g->dirty && (st = vgs__run_check_leaves(g, err)) != VGS_OK) return st;
    b = g->backend;
    at = g->dirty ? 0 : g->n_prologue;
    for (k = at; k < g->n_order; ++k) {
        vgs_call *c = &g->call[k];
        vgs__run_make_call(g, g->order[k], batch, c);
        if (c->op == VGS_OP_STORE && (c->i[0] < 0 || c->i[0] > c->in[0].rows - c->in[1].rows))
            return vgs__fail(err, VGS_E_ARG, "graph_run: assign_rows: %d rows from %d on: the state has %d",
                             c->in[1].rows, c->i[0], c->in[0].rows);
    }
    if (b->run_list) st = b->run_list(b->self, g->call + at, g->n_order - at, err);
    else for (; at < g->n_order && st == VGS_OK; ++at) st = b->run(b->self, &g->call[at], err);
    g->dirty = st != VGS_OK;
    vgs__run_count_updates(g);
    return st;
}

VGS__DEF vgs_status vgs_bind(vgs_graph *g, vgs_var leaf, vgs_buffer *buf, size_t offset, vgs_error *err)
{
    int id = vgs__id(g, leaf);
    if (id < 0 || !vgs__op_is_leaf(g->node[id].op) || g->node[id].op == VGS_OP_TABLE)
        return vgs__fail(err, VGS_E_ARG, "bind: handle %08x is no input, parameter or state",
                         (unsigned)leaf.id);
    if (g->node[id].model)
        return vgs__fail(err, VGS_E_ARG, "bind: the weights of a model have their place already");
    if (!buf) return vgs__fail(err, VGS_E_ARG, "bind: the buffer is NULL");
    g->node[id].buf = buf;
    g->node[id].offset = offset;
    g->node[id].given = true;
    if (g->node[id].op == VGS_OP_PARAMS) g->dirty = true;
    return VGS_OK;
}

/* Returns whether v's storage is a leaf's or an output's: any other may have been pruned, fused or
   overwritten. */
static bool vgs__run_is_kept(const vgs_graph *g, int id)
{
    int owner = vgs__graph_owner(g, id), k;
    bool kept = vgs__op_is_leaf(g->node[owner].op) || g->node[id].output;
    for (k = 0; k < g->n_node && !kept; ++k) kept = g->node[k].output && vgs__graph_owner(g, k) == owner;
    return kept;
}

/* Elements of a value for this batch; the status tells why it cannot be copied. */
static vgs_status vgs__run_copied(const vgs_graph *g, const char *what, vgs_var v, int batch, vgs_tensor *t,
                                  vgs_error *err)
{
    int id = vgs__id(g, v);
    const char *name = id < 0 ? "" : vgs_op_name(g->node[id].op);
    const vgs_model *m = id < 0 ? NULL : g->node[vgs__graph_owner(g, id)].model;
    char s[40];
    if (id < 0)
        return vgs__fail(err, VGS_E_ARG, "%s: no value of this graph (handle %08x)", what, (unsigned)v.id);
    if (!g->backend)
        return vgs__fail(err, VGS_E_ARG, "%s: %s %s: the graph is not compiled yet", what, name,
                         vgs__graph_shape_text(&g->node[id], s));
    if (batch < 0 || batch > g->capacity)
        return vgs__fail(err, VGS_E_ARG, "%s: batch = %d: must be 0..%d", what, batch, g->capacity);
    if (m && m->freed) return vgs__fail(err, VGS_E_ARG, "%s: the model has been freed", what);
    if (!vgs__run_is_kept(g, id))
        return vgs__fail(err, VGS_E_ARG, "%s: %s %s is no output and no leaf; call vgs_output before compile",
                         what, name, vgs__graph_shape_text(&g->node[id], s));
    *t = vgs__run_tensor(g, id, batch);
    if (!t->buf)
        return vgs__fail(err, VGS_E_ARG, "%s: %s %s has no memory: nothing that is run uses it", what, name,
                         vgs__graph_shape_text(&g->node[id], s));
    return VGS_OK;
}

VGS__DEF vgs_status vgs_set(vgs_graph *g, vgs_var leaf, const void *x, int batch, vgs_error *err)
{
    vgs_tensor t = vgs__run_tensor(g, -1, 0);
    int id = vgs__id(g, leaf);
    vgs_status st;
    if (id >= 0 && !vgs__op_is_leaf(g->node[id].op))
        return vgs__fail(err, VGS_E_ARG, "set: %s is no leaf", vgs_op_name(g->node[id].op));
    if (id >= 0 && g->node[id].model)
        return vgs__fail(err, VGS_E_ARG, "set: the weights of a model are set by vgs_model_write");
    if ((st = vgs__run_copied(g, "set", leaf, batch, &t, err)) != VGS_OK) return st;
    if (g->node[id].op == VGS_OP_PARAMS || g->node[id].op == VGS_OP_TABLE) g->dirty = true;
    g->node[id].given = true;
    return g->backend->upload(g->backend->self, t.buf, t.offset, x, (size_t)t.rows * (size_t)t.cols,
                              g->node[id].type, err);
}

VGS__DEF vgs_status vgs_get(vgs_graph *g, vgs_var v, void *x, int batch, vgs_error *err)
{
    vgs_tensor t = vgs__run_tensor(g, -1, 0);
    vgs_status st = vgs__run_copied(g, "get", v, batch, &t, err);
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
typedef vgs_status vgs__whole_fn(vgs__cpu *cpu, const vgs__k *k, vgs__team team, vgs_error *err);

/* Products go by rows or whole; checks and energies by rows, but with more to tell than a kernel can. */
static void vgs__k_check(const vgs__k *k, int r0, int r1, int c0, int c1)
{
    (void)k; (void)r0; (void)r1; (void)c0; (void)c1;
}
VGS__WHOLE(energy)
{
    (void)cpu;
    return team.me ? VGS_OK : vgs__energy_rows(k, 0, k->in_rows[0], err);
}

#ifdef VGS__X86
#  define VGS__ENTRY_M(name) { vgs__k_##name, vgs__k_##name##_avx2, NULL },
#else
#  define VGS__ENTRY_M(name) { vgs__k_##name, NULL, NULL },
#endif
#define VGS__ENTRY_R(name) { vgs__k_##name, vgs__k_##name, NULL },
#define VGS__ENTRY_W(name) { NULL, NULL, vgs__k_##name },
#define VGS__ENTRY_U(name) VGS__ENTRY_M(name)
#define VGS__ENTRY(kind, ID, name, facts, cost) VGS__ENTRY_##kind(name)
static const struct { vgs__rows_fn *rows, *rows_avx2; vgs__whole_fn *whole; } vgs__cpu_table[] = {
    VGS_OPS(VGS__ENTRY)
};
#undef VGS__ENTRY_M
#undef VGS__ENTRY_R
#undef VGS__ENTRY_W
#undef VGS__ENTRY_U
#undef VGS__ENTRY

static vgs__rows_fn *vgs__cpu_rows_kernel(const vgs__cpu *cpu, int op)
{
#ifdef VGS__X86
    if (cpu->isa == VGS_ISA_AVX512 && op == VGS_OP_EXP) return vgs__k_exp_avx512;
    if (cpu->isa == VGS_ISA_AVX512 && op == VGS_OP_SILU) return vgs__k_silu_avx512;
    if (cpu->isa == VGS_ISA_AVX512 && op == VGS_OP_STENCIL) return vgs__k_stencil_avx512;
    if (cpu->isa == VGS_ISA_AVX2 || cpu->isa == VGS_ISA_AVX512)
        switch (op) {                            /* row ops that are written for AVX2                 */
        case VGS_OP_LAYERNORM:      return vgs__k_layernorm_avx2;
        case VGS_OP_LAYERNORM_GRAD: return vgs__k_layernorm_grad_avx2;
        case VGS_OP_LAYERNORM_HAT:  return vgs__k_layernorm_hat_avx2;
        case VGS_OP_SORT_COLS:      return vgs__k_sort_cols_avx2;
        case VGS_OP_NORMAL:         return vgs__k_normal_avx2;
        case VGS_OP_STENCIL:        return vgs__k_stencil_avx2;
        default:                    return vgs__cpu_table[op - (VGS_OP_SECOND + 1)].rows_avx2;
        }
#endif
    (void)cpu;
    return vgs__cpu_table[op - (VGS_OP_SECOND + 1)].rows;
}

static void vgs__cpu_resolve(const vgs_call *c, vgs__k *k)
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

/* A value that a call makes for its own group only: a range of the buffer that is never written; instead
   every thread keeps the rows of one block at `at` of its scratch, `part` floats for each part. */
typedef struct vgs__local { size_t offset, end, at, part; } vgs__local;

/* The place of an operand: at `fixed`, or `shift` floats into the local value of another call. */
typedef struct vgs__operand_of { float *fixed; const vgs__local *local; size_t shift; } vgs__operand_of;

struct vgs__cpu_call {
    vgs__k k;
    int op, per;                                 /* per: rows of a part                               */
    bool whole, flat, local;
    vgs__rows_fn *rows;
    vgs__product product;                        /* MATMUL by rows                                    */
    vgs__local out, out2;                        /* if `local`                                        */
    vgs__operand_of in[VGS_MAX_IN];
    const vgs_buffer *buf;
    int last;                                    /* call that reads a local output last                */
};

/* A group: jobs first..end; `shared`: long enough for more than one thread. */
struct vgs__cpu_group { int first, end, parts, block; bool whole, shared; double cost; };

/* Rough nanoseconds: only decides whether threads pay. */
static double vgs__cpu_cost(const vgs__cpu_call *j)
{
    const double rows = j->k.in_rows[0], in = rows * j->k.in_cols[0], out = (double)j->k.rows * j->k.cols;
    const double depth = j->whole ? rows : j->product.k;                     /* of a product            */
    const int i0 = j->k.i[0];
    switch (j->op) {
#define VGS__CASE(kind, ID, name, facts, cost) case VGS_OP_##ID: return cost;
    VGS_OPS(VGS__CASE)
#undef VGS__CASE
    default: return 0.0;
    }
}

/* A map whose operands are dense and of one shape is one long row. */
static bool vgs__cpu_flatten(vgs__k *k)
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

static vgs__local vgs__cpu_local_of(const vgs_tensor *t, int parts)
{
    vgs__local v = { 0, 0, 0, 0 };
    size_t size = t->buf ? (size_t)t->rows * (size_t)t->ld : 0;
    v.offset = t->offset;
    v.end = v.offset + size;
    v.part = parts > 0 ? size / (size_t)parts : 0;
    return v;
}

static void vgs__cpu_op_make(const vgs__cpu *cpu, const vgs_call *c, vgs__cpu_call *j)
{
    const vgs_tensor *shape = c->out.buf ? &c->out : &c->in[0];
    vgs__cpu_resolve(c, &j->k);
    j->op = c->op;
    j->whole = vgs__op_is_whole(c->op, c->i[0], c->energy);
    j->per = c->parts > 0 ? shape->rows / c->parts : 0;
    j->rows = vgs__cpu_rows_kernel(cpu, c->op);
    if (c->op == VGS_OP_MATMUL && !j->whole) j->product = vgs__matmul_product(cpu, &j->k);
    j->flat = !j->whole && vgs__op_table[c->op].kind == 'M' && vgs__cpu_flatten(&j->k);
    j->local = c->local && !j->whole;
    j->buf = c->out.buf;
    j->out = vgs__cpu_local_of(&c->out, c->parts);
    j->out2 = vgs__cpu_local_of(&c->out2, c->parts);
    j->last = -1;
}

/* Finds the local value in which operand k of call `at` lies, if any: the latest that was written there. */
static void vgs__cpu_find_operand(vgs__cpu_call *call, int first, int at, int k, const vgs_tensor *t)
{
    vgs__operand_of *x = &call[at].in[k];
    int from;
    x->fixed = call[at].k.in[k];
    x->local = NULL;
    for (from = at - 1; from >= first && t->buf; --from) {
        vgs__cpu_call *j = &call[from];
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
static size_t vgs__cpu_place_locals(vgs__cpu_call *call, const vgs__cpu_group *g)
{
    struct { size_t at, size; int until; } slot[VGS__SLOTS];
    size_t end = 0, size, size2, at;
    int i, s, n = 0;
    for (i = g->first; i < g->end; ++i) {
        if (!call[i].local) continue;
        size = (call[i].out.part * (size_t)g->block + 15) & ~(size_t)15;
        size2 = (call[i].out2.part * (size_t)g->block + 15) & ~(size_t)15;
        for (s = 0; s < n && (slot[s].until >= i || slot[s].size < size + size2); ++s) {}
        at = s < n ? slot[s].at : end;
        if (s == n) end += size + size2;
        if (s == n && n < VGS__SLOTS) {
            slot[n].at = at;
            slot[n++].size = size + size2;
        }
        if (s < n) slot[s].until = call[i].last > i ? call[i].last : i;
        call[i].out.at = at;
        call[i].out2.at = at + size;
    }
    return end;
}

/* ---- groups ---- */

static bool vgs__cpu_grow_to(float **p, size_t *have, size_t want, size_t copies, vgs_error *err)
{
    if (want <= *have) return true;
    vgs__free(*p);
    *have = 0;
    *p = (float *)vgs__alloc_or(err, "CPU backend", want * copies, sizeof **p);
    if (*p) *have = want;
    return *p != NULL;
}

/* Returns whether B of a product is packed once for all rows: not if it is read too few times. */
static bool vgs__cpu_packs(const vgs__cpu_call *j)
{
#ifdef VGS_USE_CBLAS
    return false;
#else
    return j->op == VGS_OP_MATMUL && !j->whole && !j->k.i[2] && j->k.rows > 4 * j->product.kernel.mr &&
           !vgs__gemm_is_dot(&j->product);
#endif
}

/* Less work than this in a group, and in all of a list, is not worth waiting for each other. */
#define VGS__SHARE_NS 12000.0
#define VGS__FORK_NS  25000.0

/* One group out of the calls from `first` on; its jobs are made. Returns where the next begins. */
static int vgs__cpu_group_make(const vgs__cpu *cpu, const vgs_call *c, int n, int first, vgs__cpu_group *g)
{
    int at, k, per = 1;
    double cost = 0.0;
    g->first = first;
    g->parts = c[first].parts;
    g->whole = vgs__op_is_whole(c[first].op, c[first].i[0], c[first].energy);
    for (at = first; at < n && c[at].group == c[first].group; ++at) {
        vgs__cpu_call *j = &cpu->op_call[at];
        vgs__cpu_op_make(cpu, &c[at], j);
        cost += vgs__cpu_cost(j);
        if (j->per > per) per = j->per;
        for (k = 0; k < VGS_MAX_IN; ++k) vgs__cpu_find_operand(cpu->op_call, first, at, k, &c[at].in[k]);
    }
    g->end = at;
    g->cost = cost;
    g->block = VGS__BLOCK_ROWS > per ? VGS__BLOCK_ROWS / per : 1;
    g->shared = cpu->threads > 1 && cost >= VGS__SHARE_NS && (g->whole || g->parts > 1);
    return at;
}

/* Makes all groups and the room that they need; returns how many there are, -1 if memory is out. */
static int vgs__cpu_list_make(vgs__cpu *cpu, const vgs_call *c, int n, vgs_error *err)
{
    int at = 0, i, groups = 0;
    size_t scratch = 0, packed = 0;
    void *p = cpu->op_call, *q = cpu->group;
    while (cpu->cap_op < n) if (!vgs__grow(&p, &cpu->cap_op, cpu->cap_op, sizeof *cpu->op_call)) break;
    while (cpu->cap_group < n) if (!vgs__grow(&q, &cpu->cap_group, cpu->cap_group, sizeof *cpu->group)) break;
    cpu->op_call = (vgs__cpu_call *)p;
    cpu->group = (vgs__cpu_group *)q;
    if (cpu->cap_op < n || cpu->cap_group < n) {
        vgs__fail(err, VGS_E_NOMEM, "out of memory: a list of %d ops", n);
        return -1;
    }
    for (; at < n; ++groups) {
        vgs__cpu_group *g = &cpu->group[groups];
        size_t most = 0, end;
        at = vgs__cpu_group_make(cpu, c, n, at, g);
        end = vgs__cpu_place_locals(cpu->op_call, g);
        for (i = g->first; i < g->end; ++i)
            if (cpu->op_call[i].op == VGS_OP_SCATTER_ROWS) {
                size_t own = vgs__scatter_work(cpu->op_call[i].k.in_rows[0], cpu->op_call[i].k.rows);
                if (own > end) end = own;
            } else if (vgs__cpu_packs(&cpu->op_call[i]))
                most += vgs__gemm_padded(&cpu->op_call[i].product) * (size_t)cpu->op_call[i].product.k;
        if (end > scratch) scratch = end;
        if (most > packed) packed = most;
    }
    if (!vgs__cpu_grow_to(&cpu->scratch, &cpu->scratch_size, scratch, (size_t)cpu->threads, err) ||
        !vgs__cpu_grow_to(&cpu->packed, &cpu->packed_size, packed, 1, err)) return -1;
    return groups;
}

/* ---- running ---- */

/* Keeps the first failure of the list; what follows its group is not run. */
static void vgs__cpu_stop_after(vgs__cpu *cpu, int group, const vgs_error *e)
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

/* Returns whether a group before this one failed. All threads that have waited for each other in front of it
   agree on this: what a faster thread does in this group does not count. */
static bool vgs__cpu_stopped(vgs__cpu *cpu, int group)
{
    int failed;
#ifdef _OPENMP
#  pragma omp atomic read
#endif
    failed = cpu->failed;
    return failed && failed <= group;
}

/* The flag goes to the first check of the list that finds something, and to its first row, whichever thread
   comes first. A flag that was set before stays. Threads that find nothing never take the lock; ops of later
   groups read the flag, so it cannot wait for the end of the list. */
static void vgs__cpu_report(vgs__cpu *cpu, const vgs__cpu_call *call, int row)
{
    const vgs__k *k = &call->k;
    int f[4], at = (int)(call - cpu->op_call);
#ifdef _OPENMP
    omp_set_lock(&cpu->flag_lock);
#endif
    if (cpu->bad_op < 0 ? !vgs__op_int_at(k->in[1], 0)
                         : at < cpu->bad_op || (at == cpu->bad_op && row < cpu->bad_row)) {
        cpu->bad_op = at;
        cpu->bad_row = row;
        f[0] = 1;
        f[1] = row + k->i[2];
        f[2] = k->i[0];
        f[3] = k->i[1];
        memcpy(k->in[1], f, sizeof f);
    }
#ifdef _OPENMP
    omp_unset_lock(&cpu->flag_lock);
#endif
}

static float *vgs__cpu_at(float *scratch, const vgs__local *v, int first, size_t shift)
{
    return scratch + v->at + shift - (size_t)first * v->part;
}

/* Parts a..b of a call, by one thread; local values are those of a block that begins with part `a`. */
static void vgs__cpu_run_parts(vgs__cpu *cpu, int group, const vgs__cpu_call *j, int me, int a, int b)
{
    float *scratch = cpu->scratch ? cpu->scratch + (size_t)me * cpu->scratch_size : NULL;
    vgs__k k = j->k;
    int i, r0 = a * j->per, r1 = b * j->per;
    vgs_error err;
    for (i = 0; i < VGS_MAX_IN; ++i)
        if (j->in[i].local) k.in[i] = vgs__cpu_at(scratch, j->in[i].local, a, j->in[i].shift);
    if (j->local) {
        k.out = vgs__cpu_at(scratch, &j->out, a, 0);
        if (k.out2) k.out2 = vgs__cpu_at(scratch, &j->out2, a, 0);
    }
    if (j->op == VGS_OP_MATMUL) {
        vgs__product q = j->product;
        q.a = k.in[0];
        q.c = k.out;
        q.ep.rows = (const int32_t *)(const void *)k.in[3];
        vgs__gemm_rows(&q, r0, r1, cpu->work + (size_t)me * VGS__WORK);
    } else if (j->op == VGS_OP_CHECK) {
        i = vgs__check_rows(&k, r0, r1);
        if (i >= 0) vgs__cpu_report(cpu, j, i);
    } else if (j->op == VGS_OP_ENERGY) {
        if (vgs__energy_rows(&k, r0, r1, &err) != VGS_OK) vgs__cpu_stop_after(cpu, group, &err);
    } else if (j->flat) {
        int each = j->k.cols / (j->k.full_rows ? j->k.full_rows : 1);
        j->rows(&k, 0, 1, r0 * each, r1 * each);
    } else j->rows(&k, r0, r1, 0, k.cols);
}

static void vgs__cpu_pack_group(vgs__cpu *cpu, const vgs__cpu_group *g, vgs__team team)
{
    size_t at = 0;
    int i;
    for (i = g->first; i < g->end; ++i) {
        vgs__product *q = &cpu->op_call[i].product;
        if (!vgs__cpu_packs(&cpu->op_call[i])) continue;
        vgs__gemm_pack_share(q, cpu->packed + at, team.me, team.n);
        if (team.me == 0) q->packed = cpu->packed + at;
        at += vgs__gemm_padded(q) * (size_t)q->k;
    }
    if (at) vgs__team_wait(team);
}

/* A thread takes an equal share of the parts, block by block through all ops. */
static void vgs__cpu_run_blocks(vgs__cpu *cpu, int group, vgs__team team)
{
    const vgs__cpu_group *g = &cpu->group[group];
    int a = (int)((long long)g->parts * team.me / team.n), b, i,
        end = (int)((long long)g->parts * (team.me + 1) / team.n);
    vgs__cpu_pack_group(cpu, g, team);
    for (; a < end; a = b) {
        b = a + vgs__min(g->block, end - a);
        for (i = g->first; i < g->end; ++i) vgs__cpu_run_parts(cpu, group, &cpu->op_call[i], team.me, a, b);
    }
}

static void vgs__cpu_run_whole(vgs__cpu *cpu, int group, vgs__team team)
{
    const vgs__cpu_group *g = &cpu->group[group];
    vgs_error err;
    int i;
    for (i = g->first; i < g->end; ++i) {
        const vgs__cpu_call *j = &cpu->op_call[i];
        if (j->rows)                             /* adam, ema: one row                                */
            j->rows(&j->k, 0, 1, vgs__gemm_share(j->k.cols, 16, team.me, team.n),
                    vgs__gemm_share(j->k.cols, 16, team.me + 1, team.n));
        else if (vgs__cpu_table[j->op - VGS_OP_SECOND - 1].whole(cpu, &j->k, team, &err) != VGS_OK)
            vgs__cpu_stop_after(cpu, group, &err);
    }
}

/* One thread's part of all groups. Threads wait for each other where a shared group begins or ends, after a
   failure, too: while thread 0 runs groups of its own the others cannot know of it. */
static void vgs__cpu_run_groups(vgs__cpu *cpu, int groups, vgs__team team)
{
    const vgs__team alone = { 0, 1 };
    int i;
    for (i = 0; i < groups; ++i) {
        const vgs__cpu_group *g = &cpu->group[i];
        if (i > 0 && (g->shared || cpu->group[i - 1].shared)) vgs__team_wait(team);
        if ((!g->shared && team.me) || vgs__cpu_stopped(cpu, i)) continue;
        if (g->whole) vgs__cpu_run_whole(cpu, i, g->shared ? team : alone);
        else vgs__cpu_run_blocks(cpu, i, g->shared ? team : alone);
    }
}

/* On a busy machine threads wait for each other's core, and one alone can be faster: the times tell. No bit
   depends on it. */
#ifdef _OPENMP
static vgs__timing *vgs__cpu_timing_of(vgs__cpu *cpu, int groups)
{
    double cost = 0.0;
    vgs__timing *p;
    int i;
    for (i = 0; i < groups; ++i) cost += cpu->group[i].shared ? cpu->group[i].cost : 0.0;
    if (cost < VGS__FORK_NS) return NULL;
    p = &cpu->timing[(unsigned)(cost / 64.0) % 64u];
    if (p->cost != cost) {
        memset(p, 0, sizeof *p);
        p->cost = cost;
        p->wait = 64;
    }
    return p;
}

/* The faster way; the other one when its time has come. Threads get a few runs to start with. */
static int vgs__cpu_timing_choose(vgs__timing *p)
{
    int best = p->took[0] == 0.0 ? p->runs >= 3 ? 0 : 1 : p->took[1] <= p->took[0];
    if (++p->runs % p->wait) return best;
    if (p->wait < 4096) p->wait *= 2;
    return !best;
}

/* Times are smoothed (a tenth new) and outliers count as four times the average at most, because a run may
   have been interrupted; the first runs keep the minimum. */
static void vgs__cpu_timing_note(vgs__timing *p, int way, double took)
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
    const vgs__team alone = { 0, 1 };
    int i, groups;
#ifdef _OPENMP
    double start;
    vgs__timing *timing;
    int way;
#endif
    for (i = 0; i < n; ++i)
        if (c[i].op <= VGS_OP_SECOND || c[i].op >= VGS_OP_COUNT)
            return vgs__fail(err, VGS_E_ARG, "cpu: op %d cannot be run", c[i].op);
    groups = vgs__cpu_list_make(cpu, c, n, err);
    if (groups < 0) return VGS_E_NOMEM;
    cpu->bad_op = -1;
    cpu->failures = cpu->failed = 0;
#ifdef _OPENMP
    timing = vgs__cpu_timing_of(cpu, groups);
    way = timing ? vgs__cpu_timing_choose(timing) : 0;
    start = timing ? omp_get_wtime() : 0.0;
    if (way) {
#  pragma omp parallel num_threads(cpu->threads)
        {
            vgs__team team;
            team.me = omp_get_thread_num();
            team.n = omp_get_num_threads();
            vgs__cpu_run_groups(cpu, groups, team);
        }
    } else vgs__cpu_run_groups(cpu, groups, alone);
    if (timing) vgs__cpu_timing_note(timing, way, omp_get_wtime() - start);
#else
    vgs__cpu_run_groups(cpu, groups, alone);
#endif
    if (!cpu->failed) return VGS_OK;
    if (err) *err = cpu->error;
    return cpu->error.code;
}

static vgs_status vgs__cpu_reserve(void *self, const vgs_call *c, int n, vgs_error *err)
{
    return vgs__cpu_list_make((vgs__cpu *)self, c, n, err) < 0 ? VGS_E_NOMEM : VGS_OK;
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
#ifdef _OPENMP
    omp_init_lock(&cpu->flag_lock);
#endif
    cpu->base.self = cpu;
    cpu->base.buffer_create = vgs__cpu_buffer_create;
    cpu->base.buffer_free = vgs__cpu_buffer_free;
    cpu->base.upload = vgs__cpu_upload;
    cpu->base.download = vgs__cpu_download;
    cpu->base.run = vgs__cpu_op;
    cpu->base.finish = vgs__cpu_finish;
    cpu->base.run_list = vgs__cpu_list;
    cpu->base.reserve = vgs__cpu_reserve;
#ifndef VGS_USE_CBLAS
    cpu->base.panel = vgs__gemm_kernel_of(isa).nr;
#endif
    return &cpu->base;
}

/* Its workspace, buffers aside; it has its full size once the graphs are compiled. */
static size_t vgs__cpu_bytes(const vgs_backend *backend)
{
    const vgs__cpu *cpu = (const vgs__cpu *)backend->self;
    size_t floats = vgs__gemm_work(cpu->threads) + (size_t)cpu->threads * cpu->scratch_size +
                    cpu->packed_size;
    return sizeof *cpu + floats * sizeof(float) + (size_t)cpu->cap_op * sizeof *cpu->op_call +
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
    vgs__free(cpu->op_call);
    vgs__free(cpu->group);
#ifdef _OPENMP
    omp_destroy_lock(&cpu->flag_lock);
#endif
    vgs__free(cpu);
}

/* ==== >>evaluate: energies of host rows ============================================================== */

typedef struct vgs__evaluator_graph { vgs_graph *g; vgs_var x, e, grad; } vgs__evaluator_graph;

/* An energy that is evaluated again and again on host rows, whatever its kind: a callback directly, a
   recorded one by a graph with E alone and one with dE/dx, compiled when first wanted. */
typedef struct vgs__evaluator {
    const vgs_energy *energy;
    vgs_backend *own, *b;                        /* of a recorded energy; own: to be freed            */
    vgs__evaluator_graph graph[2];               /* [1]: with dE/dx                                   */
    int threads, capacity;
    float *e;                                    /* [capacity]                                        */
} vgs__evaluator;

/* b: where a recorded energy runs; NULL = on energy->backend, or a CPU backend of its own. capacity: rows
   of a block; more are split. Close it also after a failure. */
static vgs_status vgs__evaluator_open(vgs__evaluator *v, const vgs_energy *energy, vgs_backend *b,
                                      int threads, int capacity, vgs_error *err)
{
    vgs_cpu_config cpu = { 0, VGS_ISA_AUTO };
    memset(v, 0, sizeof *v);
    if (!energy || !energy->eval + !energy->eval64 + !energy->record != 2 || energy->dim < 1)
        return vgs__fail(err, VGS_E_ARG,
                         "energy: exactly one of eval, eval64 and record, and dim >= 1 are needed");
    v->energy = energy;
    v->threads = threads;
    v->capacity = capacity;
    v->e = (float *)vgs__alloc_or(err, "energy", (size_t)capacity, sizeof *v->e);
    if (!v->e) return VGS_E_NOMEM;
    if (!energy->record) return VGS_OK;
    cpu.threads = threads;
    v->b = b ? b : energy->backend;
    if (!v->b) v->b = v->own = vgs_cpu_create(&cpu, err);
    return v->b ? VGS_OK : VGS_E_NOMEM;
}

static void vgs__evaluator_close(vgs__evaluator *v)
{
    vgs_graph_free(v->graph[0].g);
    vgs_graph_free(v->graph[1].g);
    vgs__free(v->e);
    vgs_cpu_free(v->own);
}

static void vgs__evaluator_touch(vgs__evaluator *v)
{
    int k;
    for (k = 0; k < 2; ++k)
        if (v->graph[k].g) vgs_graph_touch(v->graph[k].g);
}

static vgs_status vgs__evaluator_record(vgs__evaluator *v, bool with_grad, vgs_error *err)
{
    vgs__evaluator_graph *r = &v->graph[with_grad];
    vgs_status st;
    if (r->g) return VGS_OK;
    if (!(r->g = vgs_graph_create(err))) return VGS_E_NOMEM;
    r->x = vgs_input(r->g, v->energy->dim);
    r->e = vgs_energy_of(r->g, v->energy, r->x);
    vgs_output(r->g, r->x);                      /* so that it can be set, though E may not depend on it */
    vgs_output(r->g, r->e);
    if (with_grad) {
        vgs_gradient(r->g, r->e, &r->x, 1, &r->grad);
        vgs_output(r->g, r->grad);
    }
    st = vgs_graph_compile(r->g, v->b, v->capacity, err);
    if (st == VGS_OK) return st;
    vgs_graph_free(r->g);
    r->g = NULL;
    return st;
}

/* Up to `capacity` rows: E into v->e, and in double into e unless NULL; dE/dx into g unless NULL. */
static vgs_status vgs__evaluator_block(vgs__evaluator *v, const float *x, int n, double *e, float *g,
                                       vgs_error *err)
{
    vgs__evaluator_graph *r = &v->graph[g != NULL];
    vgs_status st;
    int i;
    if (!v->energy->record) st = vgs__energy_call(v->energy, x, n, v->e, e, g, v->threads, err);
    else {
        st = vgs__evaluator_record(v, g != NULL, err);
        if (st == VGS_OK) st = vgs_set(r->g, r->x, x, n, err);
        if (st == VGS_OK) st = vgs_graph_run(r->g, n, err);
        if (st == VGS_OK) st = vgs_get(r->g, r->e, v->e, n, err);
        if (st == VGS_OK && g) st = vgs_get(r->g, r->grad, g, n, err);
    }
    for (i = 0; e && v->energy->record && i < n && st == VGS_OK; ++i) e[i] = (double)v->e[i];
    return st;
}

/* E of x [n,dim] into e [n], in double where the energy is; dE/dx into g [n,dim] unless NULL. */
static vgs_status vgs__evaluator_run(vgs__evaluator *v, const float *x, int n, double *e, float *g,
                                     vgs_error *err)
{
    size_t d = (size_t)v->energy->dim;
    vgs_status st = VGS_OK;
    int i, m;
    for (i = 0; i < n && st == VGS_OK; i += m) {
        m = n - i < v->capacity ? n - i : v->capacity;
        st = vgs__evaluator_block(v, x + (size_t)i * d, m, e + i, g ? g + (size_t)i * d : NULL, err);
    }
    return st;
}

VGS__DEF vgs_status vgs_energy_eval(const vgs_energy *e, const float *x, int n, float *out, float *g,
                                    int threads, vgs_error *err)
{
    const int block = 4096;
    vgs__evaluator v;
    vgs_status st;
    size_t d;
    int i, m;
    if (n < 0) return vgs__fail(err, VGS_E_ARG, "energy_eval: n = %d: must be >= 0", n);
    if (e && !e->record && !e->eval + !e->eval64 == 1 && e->dim > 0)
        return vgs__energy_call(e, x, n, out, NULL, g, threads, err);
    st = vgs__evaluator_open(&v, e, NULL, threads, n < block ? n > 0 ? n : 1 : block, err);
    for (i = 0; i < n && st == VGS_OK; i += m) {
        d = (size_t)i * (size_t)e->dim;
        m = n - i < v.capacity ? n - i : v.capacity;
        st = vgs__evaluator_block(&v, x + d, m, NULL, g ? g + d : NULL, err);
        if (st == VGS_OK) memcpy(out + i, v.e, (size_t)m * sizeof *out);
    }
    vgs__evaluator_close(&v);
    return st;
}

VGS__DEF vgs_status vgs_energy_check(const vgs_energy *e, const float *x, int n, double *worst,
                                     vgs_error *err)
{
    vgs__evaluator v;
    size_t dim = e && e->dim > 0 ? (size_t)e->dim : 0;
    vgs_status st;
    float *g, *p;
    double ev[2];
    int i, j;
    *worst = 0.0;
    if (!e || !dim || n <= 0)
        return vgs__fail(err, VGS_E_ARG, "energy_check: dim = %d, n = %d: must be > 0", (int)dim, n);
    st = vgs__evaluator_open(&v, e, NULL, 1, 2, err);
    g = st == VGS_OK ? (float *)vgs__alloc_or(err, "energy_check", 3 * dim, sizeof *g) : NULL;
    if (st == VGS_OK && !g) st = VGS_E_NOMEM;
    p = g ? g + dim : NULL;
    for (i = 0; i < n && st == VGS_OK; ++i) {
        const float *xi = x + (size_t)i * dim;
        st = vgs__evaluator_run(&v, xi, 1, ev, g, err);
        for (j = 0; j < e->dim && st == VGS_OK; ++j) {
            float h = 4e-3f * (1.0f + fabsf(xi[j]));
            double diff, gj = (double)g[j], bad;
            memcpy(p, xi, dim * sizeof *p);
            memcpy(p + dim, xi, dim * sizeof *p);
            p[j] += h;
            p[dim + (size_t)j] -= h;
            st = vgs__evaluator_run(&v, p, 2, ev, NULL, err);
            if (st != VGS_OK) break;
            diff = (ev[0] - ev[1]) / ((double)p[j] - (double)p[dim + (size_t)j]);
            bad = fabs(diff - gj) / (1.0 + fabs(gj));
            if (!vgs__finite(bad))
                st = vgs__fail(err, VGS_E_NONFINITE,
                               "energy_check: point %d, component %d: gradient %g, difference %g", i, j, gj,
                               diff);
            else if (bad > *worst) *worst = bad;
        }
    }
    vgs__free(g);
    vgs__evaluator_close(&v);
    return st;
}

/* ==== >>config: fields of a configuration ============================================================
   One row a field: what it can be, what zero stands for, how people call it. */

typedef enum vgs__field_kind {
    VGS__INT, VGS__EVEN,                         /* an integer, an even one, in lo..hi                */
    VGS__OFF,                                    /* an integer; as text 0 is "none", -1 in the field  */
    VGS__ABOVE, VGS__FROM,                       /* a float > lo, >= lo, and <= hi                    */
    VGS__BOOL, VGS__ENUM, VGS__U64
} vgs__field_kind;

typedef struct vgs__field {
    const char *name;
    size_t at;                                   /* in vgs_config                                     */
    vgs__field_kind kind;
    double lo, hi, standard;                     /* standard: what zero stands for; 0 = zero, or      */
    const char *words, *help;                    /* vgs__config_fill computes it. words: of an enum   */
} vgs__field;

/* The facts of a network. */
enum {
    VGS__NET_TIMED = 1, VGS__NET_PLAIN = 2,      /* it can be with time, and without (steps = 0)      */
    VGS__NET_IMAGE = 4,                          /* its x are images: height, width and levels        */
    VGS__NET_BASE = 8,                           /* V has a part beside it, and coordinates of its own */
    VGS__NET_INVARIANT = 16,                     /* it sees particles only by their distances         */
    VGS__NET_POLICY = 32, VGS__NET_ENERGY = 64   /* it can be the policy; an E that is learned        */
};

/* The networks, in the order of vgs_net_kind: kind, word in settings and files, layers that zero stands for,
   what can be said of it. To add one: a kind in vgs_net_kind, a row here, and vgs__net_WORD, which records it
   and lists its weights, beside the others in >>model; fields that only it has are checked in
   vgs__net_check_kind. Those of V and the policy come first. */
#define VGS__NETS_OF_V(X) \
    X(MLP,         mlp,         3, VGS__NET_TIMED | VGS__NET_PLAIN | VGS__NET_BASE | VGS__NET_POLICY | \
                                   VGS__NET_ENERGY) \
    X(TEMB,        temb,        3, VGS__NET_TIMED) \
    X(DEEPER,      deeper,      3, VGS__NET_TIMED) \
    X(DEEPERV2,    deeperv2,    3, VGS__NET_TIMED) \
    X(DEEPERV3,    deeperv3,    3, VGS__NET_TIMED) \
    X(EGNN,        egnn,        2, VGS__NET_TIMED | VGS__NET_BASE | VGS__NET_INVARIANT) \
    X(RESNET,      resnet,      1, VGS__NET_TIMED | VGS__NET_PLAIN | VGS__NET_IMAGE | VGS__NET_ENERGY) \
    X(UNET,        unet,        1, VGS__NET_TIMED | VGS__NET_PLAIN | VGS__NET_IMAGE | VGS__NET_POLICY)
#define VGS__NETS(X) \
    VGS__NETS_OF_V(X) \
    X(AUTOENCODER, autoencoder, 3, VGS__NET_PLAIN | VGS__NET_ENERGY)

#define VGS__NET_ROW(KIND, word, layers, facts) { #word, layers, facts },
static const struct { const char *word; int layers; unsigned facts; } vgs__net_table[] = {
    VGS__NETS(VGS__NET_ROW)
};
#define VGS__NET_PLACE(KIND, word, layers, facts) VGS__NET_AT_##KIND,
enum { VGS__NETS(VGS__NET_PLACE) VGS__NET_COUNT };
#define VGS__NET_FITS(KIND, word, layers, facts) && (int)VGS__NET_AT_##KIND == (int)VGS_NET_##KIND
typedef char vgs__net_rows_are_in_the_order_of_vgs_net_kind[1 VGS__NETS(VGS__NET_FITS) ? 1 : -1];
#undef VGS__NET_ROW
#undef VGS__NET_PLACE
#undef VGS__NET_FITS

static bool vgs__net_known(vgs_net_kind kind) { return (unsigned)kind < (unsigned)VGS__NET_COUNT; }
static bool vgs__net_is(vgs_net_kind kind, unsigned fact)
{
    return vgs__net_known(kind) && (vgs__net_table[kind].facts & fact) != 0;
}

/* The words as a field lists them: "mlp temb ...". */
#define VGS__NET_WORD(KIND, word, layers, facts) " " #word
#define VGS__NET_WORDS_OF_V (&(VGS__NETS_OF_V(VGS__NET_WORD))[1])
#define VGS__NET_WORDS      (&(VGS__NETS(VGS__NET_WORD))[1])

#define VGS__BIG ((double)FLT_MAX)
#define VGS__WIDTH 2.0
enum { VGS__MOST_POINTS = 64 };                  /* of E in V                                         */
enum { VGS__MOST_FULL = 128 };                   /* dimensions of a sampler that takes a full matrix  */
enum { VGS__LEVELS = 12 };                       /* most sizes of a network on images             */
enum { VGS__MALA_MOST = 1000000 };               /* steps of MALA; numbers of others lie above        */
static const vgs__field vgs__fields[] = {
#define VGS__F(field, kind, lo, hi, standard, words, help) \
    { #field, offsetof(vgs_config, field), VGS__##kind, lo, hi, standard, words, help },
#define VGS__N(name, field, kind, lo, hi, standard, words, help) \
    { #name, offsetof(vgs_config, net.field), VGS__##kind, lo, hi, standard, words, help },
#define VGS__P(name, field, kind, lo, hi, standard, words, help) \
    { #name, offsetof(vgs_config, policy.field), VGS__##kind, lo, hi, standard, words, help },
    VGS__F(length_scale, ABOVE, 0, VGS__BIG, 1, NULL, "std of a coordinate of the samples, for the defaults")
    VGS__F(detail_scale, ABOVE, 0, VGS__BIG, 0, NULL, "width of the finest feature, for the defaults")
    VGS__F(coordinates, ENUM, 0, 0, 0, "auto plain scale diagonal full", "what the sampler works in")
    VGS__F(pilot_calls, OFF, -1, 1 << 30, 20000, NULL, "energy calls of the pilot, 0 = none")
    VGS__F(steps, INT, 1, 65535, 0, NULL, "T, steps from noise to sample")
    VGS__F(schedule, ENUM, 0, 0, 0, "exp linear quad sigmoid constant cosine fastdpm", "of s_t^2 over t")
    VGS__F(s2_start, ABOVE, 0, VGS__BIG, 0, NULL, "s_t^2 at t = 0")
    VGS__F(s2_end, ABOVE, 0, VGS__BIG, 0, NULL, "s_t^2 at t = T-1")
    VGS__F(alpha, ENUM, 0, 0, 0, "ve vp", "variance exploding or preserving")
    VGS__F(init_sigma, FROM, 0, VGS__BIG, 0, NULL, "s0 at the start of training")
    VGS__F(tau, ABOVE, 0, VGS__BIG, 1, NULL, "temperature")
    VGS__F(batch, INT, 1, 1 << 20, 128, NULL, "trajectories an iteration")
    VGS__F(passes, INT, 1, 10000, 1, NULL, "passes over the transitions an iteration")
    VGS__F(value_lr, ABOVE, 0, VGS__BIG, (double)5e-4f, NULL, "learning rate of the value network")
    VGS__F(lr_half, FROM, 0, VGS__BIG, 0, NULL, "iterations in which value_lr halves, 0 = never")
    VGS__F(sigma_lr, FROM, 0, VGS__BIG, 0, NULL, "learning rate of s0, 0 = fixed")
    VGS__F(target_ema, FROM, 0, (double)0.99999994f, 0, NULL, "share of the old target network kept")
    VGS__F(lambda, FROM, 0, 1, 0, NULL, "TD(lambda): how far targets follow the trajectory")
    VGS__F(explore, ABOVE, 0, VGS__BIG, 1, NULL, "noise multiplier while training")
    VGS__F(replay, INT, 0, 65536, 0, NULL, "iterations whose samples are started from again, 0 = none")
    VGS__F(refine, INT, 0, VGS__MALA_MOST, 0, NULL, "MALA steps on samples that are kept for replay")
    VGS__F(correct, OFF, -1, VGS__MALA_MOST, 0, NULL, "MALA steps on the value before every step of a draw")
    VGS__F(slope_loss, FROM, 0, VGS__BIG, 0, NULL, "weight of the loss of the value's gradient, 0 = none")
    VGS__F(denoise_loss, FROM, 0, VGS__BIG, 0, NULL, "weight of denoising score matching on kept samples")
    VGS__F(loss, ENUM, 0, 0, 0, "smooth_l1 l2 l1", "of the TD error")
    VGS__F(energy_max, FROM, -VGS__BIG, VGS__BIG, 0, NULL, "energy is cut here, 0 = not")
    VGS__F(drift_max, ABOVE, 0, VGS__BIG, 1.5, NULL,
           "limit of the drift in units of sigma_t sqrt(D), 1e30 = none")
    VGS__F(grad_max, ABOVE, 0, VGS__BIG, 1, NULL, "limit of the gradient norm, 1e30 = none")
    VGS__F(kernel, ENUM, 0, 0, 0, "value policy", "what drives a step: the value's gradient, or a network")
    VGS__F(objective, ENUM, 0, 0, 0, "auto td dxdp logvar", "what trains it; auto: td, of a policy dxdp")
    VGS__F(policy_lr, ABOVE, 0, VGS__BIG, (double)5e-4f, NULL, "policy: learning rate")
    VGS__F(step_sigma_lr, ABOVE, 0, VGS__BIG, 0, NULL, "dxdp: learning rate of log sigma_t")
    VGS__F(policy_ema, FROM, 0, (double)0.99999994f, (double)0.999f, NULL,
           "policy: share of its average that is kept")
    VGS__F(policy_grad_max, ABOVE, 0, VGS__BIG, (double)0.1f, NULL,
           "policy: limit of the gradient norm, 1e30 = none")
    VGS__F(policy_steps, INT, 1, 10000, 1, NULL, "dxdp: policy steps of an iteration")
    VGS__F(entropy_tau, ABOVE, 0, VGS__BIG, 0, NULL, "dxdp: tau of the entropy")
    VGS__F(velocity_tau, ABOVE, 0, VGS__BIG, 0, NULL, "dxdp: tau of how far steps go")
    VGS__F(fresh_targets, BOOL, 0, 0, 0, NULL, "dxdp: targets of the value from steps drawn anew")
    VGS__F(reference, ENUM, 0, 0, 0, "dis pis", "logvar: noising chain, or Brownian motion from 0")
    VGS__F(drift_energy, BOOL, 0, 0, 0, NULL, "logvar: the policy sees the gradient of the energy")
    VGS__F(published, BOOL, 0, 0, 0, NULL, "the algorithm as published")
    VGS__F(fixed_kernel, BOOL, 0, 0, 0, NULL, "steps keep drift and noise factors of 1, as published")
    VGS__F(explicit_drift, BOOL, 0, 0, 0, NULL, "drift from the value after the step, as published")
    VGS__F(local_noise, BOOL, 0, 0, 0, NULL, "noise of a step from the curvature of V where it starts")
    VGS__F(energy_features, OFF, -1, VGS__MOST_POINTS, 0, NULL, "points at which V is given E, 0 = none")
    VGS__F(scale_by_dim, BOOL, 0, 0, 0, NULL, "network gives V/D")
    VGS__F(on_sphere, BOOL, 0, 0, 0, NULL, "samples live on |x| = 1")
    VGS__F(target_ess, FROM, 0, (double)0.99999994f, 0, NULL,
           "ESS/N of 10000 draws at which training ends, 0 = not")
    VGS__F(seed, U64, 0, 0, 0, NULL, "of weights, noise and shuffles")
    VGS__N(value, kind, ENUM, 0, 0, 0, VGS__NET_WORDS_OF_V, "value network")
    VGS__N(wrapper, wrapper, ENUM, 0, 0, 0, "none sorted reciprocal",
           "invariant wrapper of the value network")
    VGS__N(hidden, hidden, INT, 1, 65536, 128, NULL, "width of the value network")
    VGS__N(layers, layers, INT, 1, 1000, 0, NULL, "hidden layers (mlp), rounds (egnn), blocks (images)")
    VGS__N(height, height, INT, 0, 4096, 0, NULL, "images: pixels from top to bottom")
    VGS__N(width, width, INT, 0, 4096, 0, NULL, "images: pixels from left to right")
    VGS__N(levels, levels, INT, 0, VGS__LEVELS, 0, NULL, "images: sizes, each half of the one before")
    VGS__N(time_dim, time_dim, EVEN, 4, 65536, 64, NULL, "width of the time embedding")
    VGS__N(time_hidden, time_hidden, INT, 1, 65536, 0, NULL, "width of te (mlp, deeper, deeperv3)")
    VGS__N(relu, relu, BOOL, 0, 0, 0, NULL, "mlp: ReLU in place of SiLU")
    VGS__N(move_coordinates, move_coordinates, BOOL, 0, 0, 0, NULL, "egnn: layers move the points")
    VGS__N(windows, windows, INT, 0, 1024, 0, NULL,
           "Gaussians, x_scale apart, of an mlp's x, of an egnn's distances")
    VGS__N(x_scale, x_scale, ABOVE, 0, VGS__BIG, 1, NULL,
           "mlp sees x / x_scale; distance and width of the windows")
    VGS__P(policy, kind, ENUM, 0, 0, 0, VGS__NET_WORDS_OF_V, "policy network: mlp or unet")
    VGS__P(policy_hidden, hidden, INT, 1, 65536, 0, NULL, "width of the policy network")
    VGS__P(policy_layers, layers, INT, 1, 1000, 0, NULL, "its hidden layers (mlp), blocks (unet)")
    VGS__P(policy_time_dim, time_dim, EVEN, 4, 65536, 64, NULL, "width of its time embedding")
    VGS__P(policy_time_hidden, time_hidden, INT, 1, 65536, 0, NULL, "width of its te")
    VGS__P(policy_relu, relu, BOOL, 0, 0, 0, NULL, "policy of mlp: ReLU in place of SiLU")
    VGS__P(policy_x_scale, x_scale, ABOVE, 0, VGS__BIG, 1, NULL, "policy of mlp: sees x / its std / this")
    VGS__P(policy_height, height, INT, 0, 4096, 0, NULL, "policy of unet: pixels from top to bottom")
    VGS__P(policy_width, width, INT, 0, 4096, 0, NULL, "policy of unet: pixels from left to right")
    VGS__P(policy_levels, levels, INT, 0, VGS__LEVELS, 0, NULL, "policy of unet: sizes")
#undef VGS__P
#undef VGS__F
#undef VGS__N
};
enum { VGS__FIELD_COUNT = (int)(sizeof vgs__fields / sizeof *vgs__fields) };

/* Names that fields had before. */
static const struct { const char *was, *is; } vgs__field_aliases[] = { { "one_step", "published" } };

static bool vgs__field_of_net(const vgs__field *f)
{
    return f->at >= offsetof(vgs_config, net) && f->at < offsetof(vgs_config, net) + sizeof(vgs_net_config);
}

/* Tells what became of a field that is gone, for the message of vgs_field_set. */
static const char *vgs__field_gone(const char *name)
{
    static const struct { const char *was, *now; } gone[] = {
        { "no_base", "; published has no base" },
        { "unclamped_drift", "; published does not clamp the drift" },
        { "dim_effective", "; it follows from the energy" },
        { "skip_final_noise", "; draws have it" } };
    size_t k;
    for (k = 0; k < sizeof gone / sizeof *gone; ++k)
        if (!strcmp(name, gone[k].was)) return gone[k].now;
    return "";
}

VGS__DEF int vgs_field_find(const char *name)
{
    size_t k;
    int i;
    for (k = 0; k < sizeof vgs__field_aliases / sizeof *vgs__field_aliases; ++k)
        if (!strcmp(name, vgs__field_aliases[k].was)) name = vgs__field_aliases[k].is;
    for (i = 0; i < VGS__FIELD_COUNT; ++i)
        if (!strcmp(name, vgs__fields[i].name)) return i;
    return -1;
}

/* Fields of numbers as doubles. */
static double vgs__field_number(const vgs__field *f, const void *config)
{
    const char *at = (const char *)config + f->at;
    int whole;
    float real;
    if (f->kind == VGS__ABOVE || f->kind == VGS__FROM) {
        memcpy(&real, at, sizeof real);
        return (double)real;
    }
    memcpy(&whole, at, sizeof whole);
    return (double)whole;
}

static void vgs__field_put(const vgs__field *f, void *config, double v)
{
    char *at = (char *)config + f->at;
    int whole = (int)(f->kind <= VGS__OFF ? v : 0.0);
    float real = (float)v;
    if (f->kind == VGS__ABOVE || f->kind == VGS__FROM) memcpy(at, &real, sizeof real);
    else memcpy(at, &whole, sizeof whole);
}

/* Zero becomes what it stands for in the fields of the network, or in all others. */
static void vgs__field_fill_all(vgs_config *c, bool of_net)
{
    int i;
    for (i = 0; i < VGS__FIELD_COUNT; ++i) {
        const vgs__field *f = &vgs__fields[i];
        if (f->standard != 0.0 && vgs__field_of_net(f) == of_net && vgs__field_number(f, c) == 0.0)
            vgs__field_put(f, c, f->standard);
    }
}

/* "1..65535", "even, 4..65536", "> 0", ">= 0", ">= 0, < 1" */
static void vgs__field_range(const vgs__field *f, char text[48])
{
    if (f->kind <= VGS__OFF)
        snprintf(text, 48, "%s%.0f..%.0f", f->kind == VGS__EVEN ? "even, " : "",
                 f->kind == VGS__OFF ? 0.0 : f->lo, f->hi);
    else if (f->lo < -1e30) snprintf(text, 48, "finite");
    else if (f->hi == 1.0) snprintf(text, 48, "%g..1", f->lo);
    else snprintf(text, 48, "%s %g%s", f->kind == VGS__ABOVE ? ">" : ">=", f->lo, f->hi < 1.0 ? ", < 1" : "");
}

/* Also false for NaN. */
static bool vgs__field_fits(const vgs__field *f, double v)
{
    if (f->kind == VGS__EVEN && fmod(v, 2.0) != 0.0) return false;
    return (f->kind == VGS__ABOVE ? v > f->lo : v >= f->lo) && v <= f->hi;
}

/* k-th of the space-separated words; its length, 0 if there are not so many. */
static int vgs__field_word(const char *words, int k, const char **start)
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

/* owner: of the field, for the message. */
static vgs_status vgs__field_check(const vgs__field *f, const void *c, const char *owner, vgs_error *err)
{
    const char *w;
    bool real = f->kind == VGS__ABOVE || f->kind == VGS__FROM;
    double v;
    char text[48];
    if (f->kind == VGS__BOOL || f->kind == VGS__U64) return VGS_OK;
    v = vgs__field_number(f, c);
    if (f->kind == VGS__ENUM) {
        if (v >= 0.0 && vgs__field_word(f->words, (int)v, &w)) return VGS_OK;
        return vgs__fail(err, VGS_E_ARG, "%s.%s = %.0f: must be one of %s, counted from 0", owner, f->name, v,
                         f->words);
    }
    if (vgs__field_fits(f, v)) return VGS_OK;
    vgs__field_range(f, text);
    return vgs__fail(err, VGS_E_ARG, "%s.%s = %.*g: must be %s%s", owner, f->name, real ? 6 : 10, v, text,
                     real && f->hi > 1.0 && f->lo > -1e30 ? " and finite" : "");
}

static vgs_status vgs__field_check_all(const vgs_config *c, bool of_net, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int i;
    for (i = 0; i < VGS__FIELD_COUNT && st == VGS_OK; ++i)
        if (vgs__field_of_net(&vgs__fields[i]) == of_net)
            st = vgs__field_check(&vgs__fields[i], c, of_net ? "net" : "config", err);
    return st;
}

static vgs_status vgs__config_check_int(const char *name, int v, int lo, int hi, vgs_error *err)
{
    if (v >= lo && v <= hi) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "%s = %d: must be %d..%d", name, v, lo, hi);
}

/* ---- the network's own rules ---- */

enum { VGS__MAX_INPUTS = 1 << 24 };              /* columns of the first layer                        */

/* The words of the networks of which `fact` can be said, for a sentence: "mlp, resnet or unet". */
static const char *vgs__net_words_of(unsigned fact, char text[128])
{
    int i, k, n = 0, at = 0;
    for (i = 0; i < VGS__NET_COUNT; ++i) n += vgs__net_is((vgs_net_kind)i, fact);
    for (text[0] = '\0', i = k = 0; i < VGS__NET_COUNT; ++i) {
        if (!vgs__net_is((vgs_net_kind)i, fact)) continue;
        at += snprintf(text + at, 128 - (size_t)at, "%s%s", !k ? "" : k + 1 < n ? ", " : " or ",
                       vgs__net_table[i].word);
        ++k;
    }
    return text;
}

/* Returns whether the output is like x: an image, a reconstruction. */
static bool vgs__net_gives_x(const vgs_net_config *c)
{
    return c->kind == VGS_NET_UNET || (c->kind == VGS_NET_AUTOENCODER && !c->energy);
}

/* A square of 1 or 3 channels, if dim is one, and levels of even sides, the last of 4 to 7 pixels. */
static void vgs__net_fill_image(vgs_net_config *n)
{
    int grey = (int)(sqrt((double)n->dim) + 0.5), colour = (int)(sqrt(n->dim / 3.0) + 0.5), h, w;
    if (!n->hidden) n->hidden = 32;
    if (!n->height && !n->width && (grey * grey == n->dim || 3 * colour * colour == n->dim))
        n->height = n->width = grey * grey == n->dim ? grey : colour;
    if (n->levels) return;
    n->levels = 1;
    for (h = n->height, w = n->width; h >= 8 && w >= 8 && h % 2 == 0 && w % 2 == 0; h /= 2, w /= 2)
        ++n->levels;
}

static vgs_status vgs__net_check_image(const vgs_net_config *c, vgs_error *err)
{
    int channels;
    vgs_status st;
    if ((st = vgs__config_check_int("net.height", c->height, 1, 4096, err)) != VGS_OK) return st;
    if ((st = vgs__config_check_int("net.width", c->width, 1, 4096, err)) != VGS_OK) return st;
    if ((st = vgs__config_check_int("net.levels", c->levels, 1, VGS__LEVELS, err)) != VGS_OK) return st;
    channels = c->dim / (c->height * c->width);
    if (channels * c->height * c->width != c->dim || !channels)
        return vgs__fail(err, VGS_E_ARG, "net.dim = %d: is no multiple of height = %d times width = %d",
                         c->dim, c->height, c->width);
    if (c->height % (1 << (c->levels - 1)) || c->width % (1 << (c->levels - 1)))
        return vgs__fail(err, VGS_E_ARG, "net.levels = %d: %d x %d pixels cannot be halved so often",
                         c->levels, c->height, c->width);
    return VGS_OK;
}

static void vgs__net_fill(vgs_net_config *n)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    if (vgs__net_is(n->kind, VGS__NET_IMAGE)) vgs__net_fill_image(n);
    c.net = *n;
    vgs__field_fill_all(&c, true);
    *n = c.net;
    if (!n->time_hidden) n->time_hidden = n->hidden;
    if (!n->layers && vgs__net_known(n->kind)) n->layers = vgs__net_table[n->kind].layers;
    if (!n->out) n->out = vgs__net_gives_x(n) ? n->dim : 1;
    if (!n->code && n->kind == VGS_NET_AUTOENCODER) n->code = n->dim < 256 ? (n->dim + 1) / 2 : 128;
}

/* Fields that only some networks have. */
static vgs_status vgs__net_check_kind(const vgs_net_config *c, vgs_error *err)
{
    bool plain = c->steps == 0, image = vgs__net_is(c->kind, VGS__NET_IMAGE);
    int out = vgs__net_gives_x(c) ? c->dim : 1;
    char list[128];
    if (plain && !vgs__net_is(c->kind, VGS__NET_PLAIN))
        return vgs__fail(err, VGS_E_ARG, "net.steps = 0: only %s can be without time",
                         vgs__net_words_of(VGS__NET_PLAIN, list));
    if (!plain && !vgs__net_is(c->kind, VGS__NET_TIMED))
        return vgs__fail(err, VGS_E_ARG, "net.steps = %d: must be 0, %s is without time", c->steps,
                         vgs__net_table[c->kind].word);
    if (c->kind != VGS_NET_MLP && c->out != out)
        return vgs__fail(err, VGS_E_ARG, "net.out = %d: must be %d, only an mlp has a choice", c->out, out);
    if (c->kind != VGS_NET_AUTOENCODER && (c->code || c->unit || c->energy))
        return vgs__fail(err, VGS_E_ARG, "net.%s: only an autoencoder has it; leave it 0",
                         c->code ? "code" : c->unit ? "unit" : "energy");
    if (!image && (c->height || c->width || c->levels))
        return vgs__fail(err, VGS_E_ARG, "net.%s: only %s has it; leave it 0",
                         c->height ? "height" : c->width ? "width" : "levels",
                         vgs__net_words_of(VGS__NET_IMAGE, list));
    if (image && c->wrapper)
        return vgs__fail(err, VGS_E_ARG, "net.wrapper = %d: an image has no particles; leave it 0",
                         (int)c->wrapper);
    if (image) return c->windows ? vgs__fail(err, VGS_E_ARG, "net.windows = %d: must be 0 for images",
                                             c->windows) : vgs__net_check_image(c, err);
    if (c->windows && (c->kind == VGS_NET_EGNN || (c->kind == VGS_NET_MLP && !plain && c->out == 1)))
        return VGS_OK;
    if (c->windows)
        return vgs__fail(err, VGS_E_ARG, "net.windows = %d: must be 0 but for an egnn, or an mlp of x and t "
                         "with one output", c->windows);
    return VGS_OK;
}

static vgs_status vgs__net_check(const vgs_net_config *c, vgs_error *err)
{
    double inputs;
    bool invariant, particles;
    vgs_config whole;
    vgs_status st;
    if (!vgs__net_known(c->kind)) return vgs__fail(err, VGS_E_ARG, "net.kind = %d: unknown", (int)c->kind);
    if ((int)c->wrapper < 0 || c->wrapper > VGS_WRAPPER_RECIPROCAL)
        return vgs__fail(err, VGS_E_ARG, "net.wrapper = %d: unknown", (int)c->wrapper);
    invariant = vgs__net_is(c->kind, VGS__NET_INVARIANT);
    particles = invariant || c->wrapper != VGS_WRAPPER_NONE;
    memset(&whole, 0, sizeof whole);
    whole.net = *c;
    if (!vgs__net_is(c->kind, VGS__NET_TIMED)) whole.net.kind = VGS_NET_MLP; /* no value network */
    if ((st = vgs__config_check_int("net.dim", c->dim, 1, 1000000, err)) != VGS_OK) return st;
    if ((st = vgs__field_check_all(&whole, true, err)) != VGS_OK) return st;
    if ((st = vgs__config_check_int("net.out", c->out, 1, 1000000, err)) != VGS_OK) return st;
    if ((st = vgs__config_check_int("net.steps", c->steps, 0, 65535, err)) != VGS_OK) return st;
    if ((st = vgs__config_check_int("net.code", c->code, 0, 1000000, err)) != VGS_OK) return st;
    if (particles && (c->particles < 2 || c->dim % c->particles))
        return vgs__fail(err, VGS_E_ARG, "net.particles = %d: must be >= 2 and divide dim = %d", c->particles,
                         c->dim);
    inputs = c->wrapper ? 0.5 * c->particles * (c->particles - 1.0) : c->dim;
    if (c->kind == VGS_NET_MLP && inputs * (c->windows + 1.0) > (double)VGS__MAX_INPUTS)
        return vgs__fail(err, VGS_E_ARG, "net.windows = %d: of %.0f inputs these are more than %d columns",
                         c->windows, inputs, VGS__MAX_INPUTS);
    if (invariant && c->wrapper != VGS_WRAPPER_NONE)
        return vgs__fail(err, VGS_E_ARG, "net.wrapper = %d: an %s is invariant already; leave it 0",
                         (int)c->wrapper, vgs__net_table[c->kind].word);
    return vgs__net_check_kind(c, err);
}

/* ---- the sampler's ---- */

static bool vgs__config_is_particles(const vgs_config *c) { return c->energy.particles > 0; }

/* D of the method: of the sphere, of the mean-free subspace, of the space. */
static int vgs__config_effective_dim(const vgs_config *c)
{
    if (c->on_sphere) return c->energy.dim - 1;
    return vgs__config_is_particles(c) ? c->energy.dim - c->energy.dim / c->energy.particles : c->energy.dim;
}

/* As published, a gradient limit goes with a last drift that takes the energy as it is. */
static bool vgs__config_last_drift_is_raw(const vgs_config *c) { return c->published && c->grad_max < 1e30f; }

static bool vgs__config_is_policy(const vgs_config *c) { return c->kernel == VGS_KERNEL_POLICY; }
static bool vgs__config_learns_by(const vgs_config *c, vgs_learn how) { return c->objective == how; }
static bool vgs__config_from_zero(const vgs_config *c)               /* x_0 = 0                       */
{
    return vgs__config_learns_by(c, VGS_LOGVAR) && c->reference == VGS_PIS;
}

static float vgs__config_default_s2(const vgs_config *c, double s2)
{
    return (float)(c->alpha == VGS_VP && s2 > 0.5 ? 0.5 : s2);       /* must stay below 1              */
}

static bool vgs__config_is_plain(const vgs_config *c) { return c->coordinates == VGS_PLAIN; }

/* Coordinates are plain if anything that has a scale is given by hand. */
static vgs_coordinates vgs__config_default_coordinates(const vgs_config *c)
{
    bool by_hand = c->s2_start != 0.0f || c->s2_end != 0.0f || c->init_sigma != 0.0f || c->net.windows ||
                   c->net.x_scale != 0.0f;
    if (by_hand || !vgs__net_is(c->net.kind, VGS__NET_BASE) || c->published || c->explicit_drift ||
        c->fixed_kernel || c->on_sphere || vgs__config_is_policy(c))
        return VGS_PLAIN;
    if (vgs__config_is_particles(c)) return VGS_SCALE;
    return c->energy.dim <= VGS__MOST_FULL ? VGS_FULL : VGS_DIAGONAL;
}

/* A geometric path of variances from length^2 down to a quarter of detail^2. With the exact value it costs
   about D ln^2 / T nats (ln = log of the ratio of lengths), so T follows from the two scales. In coordinates
   of its own a sampler has a length of VGS__WIDTH, twice that of its samples. */
static void vgs__config_default_path(vgs_config *c)
{
    const bool plain = vgs__config_is_plain(c);
    double length = plain ? (double)c->length_scale : VGS__WIDTH;
    double detail = 0.5 * (double)c->detail_scale / (plain ? 1.0 : (double)c->length_scale);
    double ratio = log(length / detail), r;
    if (!c->steps) {
        double t = (double)vgs__config_effective_dim(c) * ratio * ratio;
        c->steps = t < 20.0 ? 20 : t > 100.0 ? 100 : (int)t;
    }
    r = exp(-2.0 * ratio / (double)c->steps);
    if (c->s2_start == 0.0f) c->s2_start = vgs__config_default_s2(c, length * length * (1.0 - r));
    if (c->s2_end == 0.0f) c->s2_end = vgs__config_default_s2(c, detail * detail / r * (1.0 - r));
}

/* Schedules that T decides. */
static bool vgs__schedule_is_chain(vgs_schedule s) { return s == VGS_COSINE || s == VGS_FASTDPM; }

/* Defaults of a policy and of its training. Its kernel has neither the factors of the value's nor its
   drift. */
static void vgs__config_fill_policy(vgs_config *c)
{
    if (c->objective == VGS_LEARN_AUTO) c->objective = vgs__config_is_policy(c) ? VGS_DXDP : VGS_TD;
    if (vgs__config_is_policy(c)) c->fixed_kernel = c->explicit_drift = true;
    if (c->entropy_tau == 0.0f) c->entropy_tau = c->tau;
    if (c->step_sigma_lr == 0.0f) c->step_sigma_lr = c->entropy_tau < 1e-20f ? 1e-30f : 100.0f * c->policy_lr;
    if (c->velocity_tau == 0.0f) c->velocity_tau = c->tau;
    c->policy.dim = c->energy.dim;
    c->policy.particles = c->energy.particles;
    c->policy.steps = c->steps;
    c->policy.relative_time = vgs__schedule_is_chain(c->schedule);
    if (!c->policy.out) c->policy.out = c->energy.dim;
    vgs__net_fill(&c->policy);
}

/* The variance of noising step k of T, k = 1 next to the data: 1 - f(k/T)/f((k-1)/T), at most 0.9: a step
   back multiplies x, and the error of its mean, by 1/sqrt(1 - variance), by 32 at [Nichol 2021]'s 0.999. */
static double vgs__schedule_cosine_variance(int k, int T)
{
    double to = cos((k / (double)T + 0.008) / 1.008 * 0.5 * VGS__PI);
    double from = cos(((k - 1) / (double)T + 0.008) / 1.008 * 0.5 * VGS__PI);
    double v = 1.0 - to * to / (from * from);
    return v < 0.9 ? v : 0.9;
}

/* x of the variances 1e-4 (1 + (k - 1) x)^2, k = 1 next to the data, such that all T leave of the data what
   1000 variances from 1e-4 to 0.02 leave; at most 95/T, which T below 50 or so meet: they leave more. */
static double vgs__schedule_fastdpm_slope(int T)
{
    double lo = 0.0, hi = 95.0 / T, want = 0.0, x = hi, left;
    int i, j;
    for (i = 0; i < 1000; ++i) want += log(1.0 - (1e-4 + (0.02 - 1e-4) * i / 999.0));
    for (j = 0; j < 50; ++j) {
        x = 0.5 * (lo + hi);
        for (left = 0.0, i = 0; i < T; ++i) left += log(1.0 - 1e-4 * (1.0 + i * x) * (1.0 + i * x));
        if (left > want) lo = x;
        else hi = x;
    }
    return x;
}

/* The variance of noising step k of a schedule that T decides; x: vgs__schedule_fastdpm_slope. */
static double vgs__schedule_variance_at(const vgs_config *c, int k, double x)
{
    if (c->schedule == VGS_COSINE) return vgs__schedule_cosine_variance(k, c->steps);
    return 1e-4 * (1.0 + (k - 1) * x) * (1.0 + (k - 1) * x);
}

/* Of a schedule that T decides, the first and last variance, to be seen. */
static void vgs__schedule_fill_chain(vgs_config *c)
{
    double x = c->schedule == VGS_FASTDPM ? vgs__schedule_fastdpm_slope(c->steps) : 0.0;
    c->alpha = VGS_VP;
    c->s2_start = (float)vgs__schedule_variance_at(c, c->steps, x);
    c->s2_end = (float)vgs__schedule_variance_at(c, 1, x);
}

static void vgs__config_fill(vgs_config *c)
{
    if (c->coordinates == VGS_COORDINATES_AUTO) c->coordinates = vgs__config_default_coordinates(c);
    if (vgs__config_is_plain(c) && c->pilot_calls == 0) c->pilot_calls = -1;
    if (vgs__config_is_plain(c) && c->energy_features == 0) c->energy_features = -1;
    vgs__field_fill_all(c, false);
    if (c->detail_scale == 0.0f) c->detail_scale = c->length_scale / 10.0f;
    if (c->steps >= 0 && c->length_scale > 0.0f && c->detail_scale > 0.0f &&
        c->detail_scale <= c->length_scale)
        vgs__config_default_path(c);
    if (vgs__schedule_is_chain(c->schedule)) vgs__schedule_fill_chain(c);
    if (c->on_sphere) c->published = true;       /* the rest needs steps that are Gaussian            */
    if (c->published) c->fixed_kernel = c->explicit_drift = true;
    if (c->lambda == 0.0f && !c->published) c->lambda = 0.9f;
    if (c->target_ema == 0.0f && !c->published) c->target_ema = 0.9f;
    c->net.dim = c->energy.dim;
    c->net.particles = c->energy.particles;
    c->net.steps = c->steps;
    c->net.out = 1;
    vgs__net_fill(&c->net);
    vgs__config_fill_policy(c);
}

static vgs_status vgs__config_check_energy(const vgs_energy *e, vgs_error *err)
{
    vgs_status st;
    if (!e->eval + !e->eval64 + !e->record != 2)
        return vgs__fail(err, VGS_E_ARG, "config.energy: exactly one of eval, eval64 and record must be set");
    if ((st = vgs__config_check_int("config.energy.dim", e->dim, 1, 262144, err)) != VGS_OK) return st;
    if (e->particles && (e->particles < 2 || e->dim % e->particles))
        return vgs__fail(err, VGS_E_ARG,
                         "config.energy.particles = %d: must be 0, or >= 2 and divide dim = %d",
                         e->particles, e->dim);
    return VGS_OK;
}

/* A variance-preserving step has less noise than there is. */
static vgs_status vgs__config_check_schedule(const vgs_config *c, vgs_error *err)
{
    bool start = !(c->s2_start < 1.0f);
    if (c->alpha != VGS_VP || (!start && c->s2_end < 1.0f)) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "config.%s = %g: must be > 0 and below 1", start ? "s2_start" : "s2_end",
                     (double)(start ? c->s2_start : c->s2_end));
}

/* The first of the value's fields that a policy has no use for, or that logvar has none for. */
static vgs_status vgs__config_check_without_value(const vgs_config *c, vgs_error *err)
{
    const struct { const char *name; double is, must; bool logvar; } field[] = {
        { "explore", (double)c->explore, 1.0, false },    { "replay", (double)c->replay, 0.0, false },
        { "refine", (double)c->refine, 0.0, false },      { "slope_loss", (double)c->slope_loss, 0.0, false },
        { "denoise_loss", (double)c->denoise_loss, 0.0, false },
        { "local_noise", c->local_noise ? 1.0 : 0.0, 0.0, false },
        { "target_ess", (double)c->target_ess, 0.0, false },
        { "correct", c->correct > 0 ? (double)c->correct : 0.0, 0.0, true },
        { "sigma_lr", (double)c->sigma_lr, 0.0, true } };
    size_t k;
    for (k = 0; k < sizeof field / sizeof *field; ++k)
        if (field[k].is != field[k].must && (!field[k].logvar || vgs__config_learns_by(c, VGS_LOGVAR)))
            return vgs__fail(err, VGS_E_ARG, "config.%s = %g: must be %g with %s", field[k].name, field[k].is,
                             field[k].must, field[k].logvar ? "objective logvar" : "kernel policy");
    return VGS_OK;
}

static vgs_status vgs__config_check_policy_net(const vgs_config *c, vgs_error *err)
{
    const vgs_net_config *n = &c->policy;
    char text[32], list[128];
    vgs_error why;
    vgs_field_get(c, vgs_field_find("policy"), text);
    if (n->wrapper)
        return vgs__fail(err, VGS_E_ARG, "config.policy.wrapper = %d: must be 0, a policy is not invariant",
                         (int)n->wrapper);
    if (!vgs__net_is(n->kind, VGS__NET_POLICY))
        return vgs__fail(err, VGS_E_ARG, "config.policy = %s: must be %s, which can have as many outputs as "
                         "x has columns", text, vgs__net_words_of(VGS__NET_POLICY, list));
    if (n->out != c->energy.dim)
        return vgs__fail(err, VGS_E_ARG, "config.policy.out = %d: must be dim = %d, one for each column of x",
                         n->out, c->energy.dim);
    if (vgs__net_check(n, &why) == VGS_OK) return VGS_OK;
    return vgs__fail(err, why.code, "config.policy: %s", why.msg);
}

/* The kernel, what trains it, and the network behind it. */
static vgs_status vgs__config_check_policy(const vgs_config *c, vgs_error *err)
{
    const bool policy = vgs__config_is_policy(c), logvar = vgs__config_learns_by(c, VGS_LOGVAR);
    char text[32];
    vgs_status st;
    vgs_field_get(c, vgs_field_find("objective"), text);
    if (policy == vgs__config_learns_by(c, VGS_TD))
        return vgs__fail(err, VGS_E_ARG, "config.objective = %s: must be %s", text,
                         policy ? "dxdp or logvar with kernel policy" : "td with kernel value");
    if ((c->reference == VGS_PIS || c->drift_energy) && !logvar)
        return vgs__fail(err, VGS_E_ARG, "config.%s: only objective logvar has it",
                         c->drift_energy ? "drift_energy = 1" : "reference = pis");
    if (c->reference == VGS_PIS && c->alpha != VGS_VE)
        return vgs__fail(err, VGS_E_ARG, "config.alpha = vp: must be ve with reference pis");
    if (!policy) return VGS_OK;
    if ((st = vgs__config_check_without_value(c, err)) != VGS_OK) return st;
    if (logvar && c->on_sphere)
        return vgs__fail(err, VGS_E_ARG, "config.on_sphere = 1: must be 0 with objective logvar, which finds "
                         "a step's move from where it led: on the sphere many moves lead there");
    if (logvar && c->batch < 2)
        return vgs__fail(err, VGS_E_ARG, "config.batch = %d: a variance needs 2 or more", c->batch);
    return vgs__config_check_policy_net(c, err);
}

static vgs_status vgs__config_check_sphere(const vgs_config *c, vgs_error *err)
{
    if (!c->on_sphere) return VGS_OK;
    if (c->alpha != VGS_VE || vgs__config_is_particles(c) || c->energy.dim < 2)
        return vgs__fail(err, VGS_E_ARG, "config.on_sphere = 1: needs alpha ve, no particles and dim >= 2");
    if (c->s2_start > 40.0f || c->s2_end > 40.0f)
        return vgs__fail(err, VGS_E_ARG, "config.s2_start = %g, config.s2_end = %g: on a sphere at most 40, "
                         "the square of a turn", (double)c->s2_start, (double)c->s2_end);
    if (c->correct > 0)
        return vgs__fail(err, VGS_E_ARG, "config.correct = %d: must be 0 with on_sphere", c->correct);
    if (c->sigma_lr > 0.0f)
        return vgs__fail(err, VGS_E_ARG, "config.sigma_lr = %g: a sphere has no s0; leave it 0",
                         (double)c->sigma_lr);
    return VGS_OK;
}

/* Fields that exclude each other. */
static vgs_status vgs__config_check_together(const vgs_config *c, vgs_error *err)
{
    const char *published = c->on_sphere ? "on_sphere" : c->published ? "published" : NULL;
    const char *policy = vgs__config_is_policy(c) ? "kernel policy" : NULL;
    const char *no_slope = published ? published : c->explicit_drift ? "explicit_drift"
                         : c->explore != 1.0f ? "explore" : NULL;
    const char *no_local = policy ? policy : published ? published : c->fixed_kernel ? "fixed_kernel"
                         : c->explicit_drift ? "explicit_drift" : NULL;
    if (published && c->lambda > 0.0f)
        return vgs__fail(err, VGS_E_ARG, "config.lambda = %g: must be 0 with %s", (double)c->lambda,
                         published);
    if (published && c->replay)
        return vgs__fail(err, VGS_E_ARG, "config.replay = %d: must be 0 with %s", c->replay, published);
    if (no_slope && c->slope_loss > 0.0f)
        return vgs__fail(err, VGS_E_ARG, "config.slope_loss = %g: must be 0 with %s", (double)c->slope_loss,
                         no_slope);
    if (no_local && c->local_noise)
        return vgs__fail(err, VGS_E_ARG, "config.local_noise = 1: must be 0 with %s", no_local);
    if (vgs__config_is_plain(c) && (c->pilot_calls > 0 || c->energy_features > 0))
        return vgs__fail(err, VGS_E_ARG, "config.%s = %d: needs coordinates of its own, and nothing that "
                         "makes them plain (with a built-in target: preset none)",
                         c->energy_features > 0 ? "energy_features" : "pilot_calls",
                         c->energy_features > 0 ? c->energy_features : c->pilot_calls);
    if (c->target_ess > 0.0f && c->pilot_calls <= 0)
        return vgs__fail(err, VGS_E_ARG, "config.target_ess = %g: needs a pilot: pilot_calls > 0, and "
                         "nothing that makes coordinates plain (with a built-in target: preset none)",
                         (double)c->target_ess);
    if (!c->replay && c->denoise_loss > 0.0f)
        return vgs__fail(err, VGS_E_ARG, "config.denoise_loss = %g: must be 0 without replay",
                         (double)c->denoise_loss);
    if (c->refine && !c->replay)
        return vgs__fail(err, VGS_E_ARG, "config.refine = %d: must be 0 without replay", c->refine);
    if (!vgs__config_is_plain(c) && (no_local || !vgs__net_is(c->net.kind, VGS__NET_BASE)))
        return vgs__fail(err, VGS_E_ARG, "config.coordinates = %d: must be 1 (plain) with %s",
                         (int)c->coordinates, no_local ? no_local : "a network that V has nothing beside");
    if ((vgs__config_is_particles(c) && c->coordinates > VGS_SCALE) ||
        (c->coordinates == VGS_FULL && c->energy.dim > 4096))
        return vgs__fail(err, VGS_E_ARG, "config.coordinates = %d: particles need plain (1) or scale (2), "
                         "and a full matrix (4) dim <= 4096", (int)c->coordinates);
    return VGS_OK;
}

static vgs_status vgs__config_check(const vgs_config *c, vgs_error *err)
{
    vgs_status st = vgs__config_check_energy(&c->energy, err);
    if (st == VGS_OK && c->length_scale > 0.0f && c->detail_scale > c->length_scale)
        st = vgs__fail(err, VGS_E_ARG, "config.detail_scale = %g: must not exceed length_scale = %g",
                       (double)c->detail_scale, (double)c->length_scale);
    if (st == VGS_OK) st = vgs__field_check_all(c, false, err);
    if (st == VGS_OK) st = vgs__config_check_schedule(c, err);
    if (st == VGS_OK) st = vgs__config_check_policy(c, err);
    if (st == VGS_OK) st = vgs__config_check_together(c, err);
    if (st == VGS_OK) st = vgs__config_check_sphere(c, err);
    if (st == VGS_OK && (double)c->batch * c->replay * c->energy.dim > 1e9)
        st = vgs__fail(err, VGS_E_ARG, "config: batch = %d times replay = %d times dim = %d is too large",
                       c->batch, c->replay, c->energy.dim);
    if (st == VGS_OK && (double)c->batch * (c->steps + 1) * c->energy.dim > 1e9)
        st = vgs__fail(err, VGS_E_ARG, "config: batch = %d times steps = %d times dim = %d is too large",
                       c->batch, c->steps, c->energy.dim);
    return st == VGS_OK ? vgs__net_check(&c->net, err) : st;
}

VGS__DEF vgs_status vgs_config_resolve(const vgs_config *cfg, vgs_config *resolved, vgs_error *err)
{
    vgs_status st;
    *resolved = *cfg;
    vgs__config_fill(resolved);
    st = vgs__config_check(resolved, err);
    if (st == VGS_OK && (resolved->init_sigma == 0.0f || vgs__config_from_zero(resolved)) &&
        !resolved->on_sphere)
        resolved->init_sigma = (float)vgs_schedule_fill(resolved, NULL, NULL);
    return st;
}

VGS__DEF double vgs_schedule_fill(const vgs_config *c, float *s2, float *a)
{
    double sum = 0.0, lo = (double)c->s2_start, hi = (double)c->s2_end, v = lo, x = 0.0;
    int t;
    if (c->schedule == VGS_FASTDPM) x = vgs__schedule_fastdpm_slope(c->steps);
    for (t = 0; t < c->steps; ++t) {
        double u = c->steps > 1 ? (double)t / (c->steps - 1) : 0.0, q = sqrt(lo) + u * (sqrt(hi) - sqrt(lo));
        switch (c->schedule) {
        case VGS_LINEAR:   v = lo + u * (hi - lo); break;
        case VGS_QUAD:     v = q * q; break;
        case VGS_SIGMOID:  v = lo + (hi - lo) / (1.0 + exp(6.0 - 12.0 * u)); break;
        case VGS_EXP:      v = exp(log(lo) + u * (log(hi) - log(lo))); break;
        case VGS_CONSTANT: v = lo; break;
        case VGS_COSINE:
        case VGS_FASTDPM:  v = vgs__schedule_variance_at(c, c->steps - t, x); break;
        }
        sum += v;
        if (!s2 || !a) continue;
        s2[t] = (float)v;
        a[t] = c->alpha == VGS_VP ? (float)(1.0 / sqrt(1.0 - v)) : 1.0f;
    }
    if (vgs__config_from_zero(c)) return sqrt(sum); /* of the reference at T                             */
    if (c->init_sigma > 0.0f) return (double)c->init_sigma;
    return c->alpha == VGS_VP ? 1.0 : sqrt(1.0 + sum);
}

/* ---- fields as text ---- */

static const vgs__field *vgs__field_at(int i)
{
    return i >= 0 && i < VGS__FIELD_COUNT ? &vgs__fields[i] : NULL;
}

VGS__DEF const char *vgs_field_name(int i) { return vgs__field_at(i) ? vgs__field_at(i)->name : NULL; }
VGS__DEF const char *vgs_field_help(int i) { return vgs__field_at(i) ? vgs__field_at(i)->help : NULL; }

static void vgs__field_allowed(const vgs__field *f, char text[64])
{
    text[0] = '\0';
    if (!f) return;
    switch (f->kind) {
    case VGS__BOOL: snprintf(text, 64, "0 or 1"); break;
    case VGS__U64:  snprintf(text, 64, "0..2^64-1"); break;
    case VGS__ENUM: snprintf(text, 64, "%s", f->words); break;
    default:        vgs__field_range(f, text);
    }
}
VGS__DEF void vgs_field_allowed(int i, char text[64]) { vgs__field_allowed(vgs__field_at(i), text); }

/* Decimal numbers are written with a point, whatever the locale says. */
static bool vgs__field_parse_double(const char *s, double *v)
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

static void vgs__field_print_double(char *text, size_t size, double v, int digits)
{
    char *p;
    snprintf(text, size, "%.*g", digits, v);
    for (p = text; *p; ++p) if (*p == ',') *p = '.';
}

static vgs_status vgs__field_set_enum(const vgs__field *f, void *at, const char *name, const char *value,
                                      vgs_error *err)
{
    const char *w = NULL;
    int k, n;
    for (k = 0; (n = vgs__field_word(f->words, k, &w)) > 0; ++k)
        if ((size_t)n == strlen(value) && !strncmp(w, value, (size_t)n)) {
            memcpy(at, &k, sizeof k);                                /* every enum here has the size of int */
            return VGS_OK;
        }
    return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be one of: %s", name, value, f->words);
}

static vgs_status vgs__field_set_u64(void *at, const char *name, const char *value, vgs_error *err)
{
    char *end;
    uint64_t u = strtoull(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || strlen(value) > 20 ||
        (u == UINT64_MAX && strcmp(value, "18446744073709551615")))
        return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be an integer in 0..2^64-1", name, value);
    memcpy(at, &u, sizeof u);
    return VGS_OK;
}

static vgs_status vgs__field_set(const vgs__field *f, void *cfg, const char *name, const char *value,
                                 vgs_error *err)
{
    double v = 0.0;
    char *at = (char *)cfg + f->at;
    if (f->kind == VGS__ENUM) return vgs__field_set_enum(f, at, name, value, err);
    if (f->kind == VGS__U64) return vgs__field_set_u64(at, name, value, err);
    if (!vgs__field_parse_double(value, &v))
        return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be a number", name, value);
    switch (f->kind) {
    case VGS__BOOL:
        if (v != 0.0 && v != 1.0) return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be 0 or 1", name, value);
        *(bool *)(void *)at = v != 0.0;
        return VGS_OK;
    case VGS__OFF:
        v = v == 0.0 ? -1.0 : v;                 /* falls through */
    case VGS__INT:
    case VGS__EVEN:
        if (!(v >= -2147483648.0 && v <= 2147483647.0) || floor(v) != v)
            return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be an integer", name, value);
        break;
    default:
        if (!(fabs(v) <= VGS__BIG))
            return vgs__fail(err, VGS_E_ARG, "%s = %.40s: must be finite", name, value);
    }
    vgs__field_put(f, cfg, v);
    return VGS_OK;
}

VGS__DEF vgs_status vgs_field_set(vgs_config *cfg, const char *name, const char *value, vgs_error *err)
{
    const vgs__field *f = vgs__field_at(vgs_field_find(name));
    if (!f) return vgs__fail(err, VGS_E_ARG, "%.60s: there is no such field%s", name, vgs__field_gone(name));
    return vgs__field_set(f, cfg, name, value, err);
}

static void vgs__field_get(const vgs__field *f, const void *cfg, char text[32])
{
    const char *at = f ? (const char *)cfg + f->at : NULL, *w = "";
    uint64_t u;
    int n;
    text[0] = '\0';
    if (!f) return;
    switch (f->kind) {
    case VGS__BOOL: snprintf(text, 32, "%d", *(const bool *)(const void *)at ? 1 : 0); break;
    case VGS__U64: memcpy(&u, at, sizeof u); snprintf(text, 32, "%llu", (unsigned long long)u); break;
    case VGS__ENUM:
        memcpy(&n, at, sizeof n);
        n = vgs__field_word(f->words, n, &w);
        snprintf(text, 32, "%.*s", n, w);
        break;
    default:
        vgs__field_print_double(text, 32, f->kind == VGS__OFF ? fmax(vgs__field_number(f, cfg), 0.0)
                                                              : vgs__field_number(f, cfg),
                                f->kind <= VGS__OFF ? 10 : 9);
    }
}
VGS__DEF void vgs_field_get(const vgs_config *cfg, int i, char text[32])
{
    vgs__field_get(vgs__field_at(i), cfg, text);
}

/* ==== >>model: networks and their weights ============================================================ */

typedef struct vgs__net {                        /* what the weights of a model are                   */
    vgs_net_config c;
    bool has_net;                                /* false: arrays that the user named                 */
    int inner;                                   /* columns that the network inside a wrapper sees    */
    vgs_param_info *info;
    int n_info, cap_info, size;
    bool failed;                                 /* memory ran out while listing                      */
} vgs__net;

static void vgs__net_list(vgs__net *net, const char *name, int rows, int cols)
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
    snprintf(p->name, sizeof p->name, "%s", name);
    p->offset = net->size;
    p->rows = rows;
    p->cols = cols;
    net->size = (int)size;
}

/* One pass over a network lists its arrays (g = NULL) or records its ops. Both declare the same arrays in the
   same order, so that the pass which records finds each in its place. Calls that record are never two
   arguments of one call: C leaves their order open, and with it the order in which gradients are added. */
typedef struct vgs__pass {
    vgs__net *net;
    vgs_graph *g;
    vgs_var weights, x, t;                       /* [1,size]; [B,inner]; int [B,1], or no value       */
    vgs_var sinusoid;                            /* [T,m]                                             */
    int at;                                      /* arrays declared so far                            */
} vgs__pass;

typedef struct vgs__layer { const vgs_param_info *w, *b; } vgs__layer;   /* NULL in a pass that lists    */

/* An array [rows,cols], or a vector if rows = 0. */
static const vgs_param_info *vgs__net_array(vgs__pass *p, const char *name, const char *suffix, int rows,
                                            int cols)
{
    char full[64];
    if (p->g) return &p->net->info[p->at++];
    snprintf(full, sizeof full, "%s%.40s%s", p->net->c.wrapper ? "net." : "", name, suffix);
    vgs__net_list(p->net, full, rows, cols);
    return NULL;
}

static vgs__layer vgs__net_linear(vgs__pass *p, const char *name, int out, int in)
{
    vgs__layer l;
    l.w = vgs__net_array(p, name, ".weight", out, in);
    l.b = vgs__net_array(p, name, ".bias", 0, out);
    return l;
}

static vgs__layer vgs__net_norm(vgs__pass *p, const char *name, int width)
{
    vgs__layer l;
    l.w = vgs__net_array(p, name, ".weight", 0, width);
    l.b = vgs__net_array(p, name, ".bias", 0, width);
    return l;
}

/* Columns first .. first+n-1 of an array (n = 0: all of them). */
static vgs_var vgs__net_columns(const vgs__pass *p, const vgs_param_info *a, int first, int n)
{
    return vgs_view(p->g, p->weights, a->offset + first, a->rows ? a->rows : 1, n ? n : a->cols, a->cols);
}
static vgs_var vgs__net_view(const vgs__pass *p, const vgs_param_info *a)
{
    return vgs__net_columns(p, a, 0, 0);
}

static vgs_var vgs__net_apply_layer(const vgs__pass *p, vgs__layer l, vgs_var x)
{
    vgs_var w = vgs__net_view(p, l.w);
    return vgs_linear(p->g, x, w, vgs__net_view(p, l.b));
}

/* sin and cos of t freq_k, freq_k = exp(-k ln(10000)/(m/2 - 1)): [steps, m] */
static vgs_var vgs__net_sinusoid(vgs_graph *g, const vgs_net_config *c)
{
    int t, k, steps = c->steps, m = c->time_dim, half = m / 2;
    float *x = (float *)vgs__alloc((size_t)steps * (size_t)m, sizeof *x);
    double unit = c->relative_time ? 1000.0 / steps : 1.0;
    vgs_var v;
    if (!x) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: net of %d steps", steps);
    for (t = 0; t < steps; ++t)
        for (k = 0; k < half; ++k) {
            double a = t * unit * exp(-k * log(10000.0) / (half - 1));
            x[t * m + k] = (float)sin(a);
            x[t * m + half + k] = (float)cos(a);
        }
    v = vgs_table(g, x, steps, m);
    vgs__free(x);
    return v;
}

/* ---- plain networks ---- */

/* Linear, activation, ..., Linear under the names of PyTorch's Sequential: PART.0, PART.2, ... */
static vgs_var vgs__net_chain(vgs__pass *p, const char *part, vgs_var u, int in, int out)
{
    const vgs_net_config *c = &p->net->c;
    char name[40];
    int l;
    for (l = 0; l <= c->layers; ++l) {
        vgs__layer layer;
        snprintf(name, sizeof name, "%.20s.%d", part, 2 * l);
        layer = vgs__net_linear(p, name, l < c->layers ? c->hidden : out, l ? c->hidden : in);
        if (!p->g) continue;
        u = vgs__net_apply_layer(p, layer, u);
        if (l < c->layers) u = c->relu ? vgs_relu(p->g, u) : vgs_silu(p->g, u);
    }
    return u;
}

/* Rows of length 1. */
static vgs_var vgs__net_unit(vgs__pass *p, vgs_var u)
{
    if (!p->g || !p->net->c.unit) return u;
    return vgs_div(p->g, u, vgs_sqrt(p->g, vgs_sum_cols(p->g, vgs_square(p->g, u))));
}

static vgs_var vgs__net_encode(vgs__pass *p, vgs_var x)
{
    return vgs__net_unit(p, vgs__net_chain(p, "encoder.net", x, p->net->inner, p->net->c.code));
}

static vgs_var vgs__net_decode(vgs__pass *p, vgs_var code)
{
    return vgs__net_unit(p, vgs__net_chain(p, "decoder.net", code, p->net->c.code, p->net->c.dim));
}

/* r of x; or g^2 |x - r|^2 */
static vgs_var vgs__net_autoencoder(vgs__pass *p)
{
    vgs_graph *g = p->g;
    const vgs_param_info *scale = p->net->c.energy ? vgs__net_array(p, "out_scale", "", 0, 1) : NULL;
    vgs_var r = vgs__net_encode(p, p->x);
    r = vgs__net_decode(p, r);
    if (!g || !scale) return r;
    r = vgs_sum_cols(g, vgs_square(g, vgs_sub(g, p->x, r)));
    return vgs_mul(g, r, vgs_square(g, vgs__net_view(p, scale)));
}

/* ---- an mlp of x and t ---- */

/* exp(-(x/x_scale - k - first)^2/2), k < windows, of every number x [r,1]: [r,windows] */
static vgs_var vgs__net_windows(const vgs__pass *p, vgs_var x, float first)
{
    vgs_graph *g = p->g;
    int n = p->net->c.windows, k;
    float *table = (float *)vgs__alloc(2 * (size_t)n, sizeof *table);
    vgs_var slope, at, u;
    if (!table) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: net with windows = %d", n);
    for (k = 0; k < n; ++k) {
        table[k] = 1.0f / p->net->c.x_scale;
        table[n + k] = -((float)k + first);
    }
    slope = vgs_table(g, table, n, 1);
    at = vgs_table(g, table + n, 1, n);
    vgs__free(table);
    u = vgs_square(g, vgs_linear(g, x, slope, at));
    return vgs_exp(g, vgs_affine(g, u, -0.5f, 0.0f));
}

/* The windows of all columns of p->x, one column after the other: [B,D windows]; distances are positive. */
static vgs_var vgs__net_features(const vgs__pass *p)
{
    const vgs_net_config *c = &p->net->c;
    float first = c->wrapper ? 0.0f : 0.5f * (float)(1 - c->windows);
    vgs_var w = vgs__net_windows(p, vgs_reshape(p->g, p->x, 1), first);
    return vgs_reshape(p->g, w, p->net->inner * c->windows);
}

/* phi . (A te + b) / sqrt(D), a sum of functions of x_j and t */
static vgs_var vgs__net_additive(const vgs__pass *p, vgs__layer l, vgs_var phi, vgs_var te)
{
    vgs_graph *g = p->g;
    vgs_var w = vgs_gather(g, vgs__net_apply_layer(p, l, te), p->t);
    return vgs_affine(g, vgs_sum_cols(g, vgs_mul(g, phi, w)), 1.0f / sqrtf((float)p->net->inner), 0.0f);
}

/* u_l = act(W_l u_{l-1} + B_l te + b_l), V = w.u + level(te): te is a function of t, so its products are
   tables of the prologue, and time costs no row anything. u_0 = x, with windows [x, phi(x)], and V has an
   additive part linear in phi. A network learns slow functions of its inputs first, and a feature much
   narrower than the range of x very late [Tancik 2020]; it is a slow function of windows as narrow as
   itself, and a sum over coordinates is linear in them, which takes few iterations. */
static vgs_var vgs__net_timed_mlp(vgs__pass *p)
{
    vgs_graph *g = p->g;
    const vgs_net_config *c = &p->net->c;
    const int f = c->time_hidden, wide = p->net->inner * (1 + c->windows);
    char name[40];
    vgs__layer t0 = vgs__net_linear(p, "time.0", f, c->time_dim), t2 = vgs__net_linear(p, "time.2", f, f), l;
    vgs_var te = vgs__no_var(), u = p->x, phi = te, table;
    const vgs_param_info *w;
    int k;
    if (g) {
        te = vgs_silu(g, vgs__net_apply_layer(p, t0, p->sinusoid));
        te = vgs_silu(g, vgs__net_apply_layer(p, t2, te));
        if (c->x_scale != 1.0f) u = vgs_affine(g, u, 1.0f / c->x_scale, 0.0f);
        if (c->windows) u = vgs_concat(g, u, phi = vgs__net_features(p));
    }
    for (k = 1; k <= c->layers; ++k) {
        snprintf(name, sizeof name, "fc%d", k);
        w = vgs__net_array(p, name, ".weight", c->hidden, k == 1 ? wide : c->hidden);
        snprintf(name, sizeof name, "bias%d", k);
        l = vgs__net_linear(p, name, c->hidden, f);
        if (!g) continue;
        table = vgs__net_apply_layer(p, l, te);
        u = vgs_linear_at(g, u, vgs__net_view(p, w), table, p->t);
        u = c->relu ? vgs_relu(g, u) : vgs_silu(g, u);
    }
    w = vgs__net_array(p, "out", ".weight", c->out, c->hidden);
    l = vgs__net_linear(p, "level", c->out, f);
    if (g) {
        table = vgs__net_apply_layer(p, l, te);
        u = vgs_linear_at(g, u, vgs__net_view(p, w), table, p->t);
    }
    if (!c->windows) return u;
    l = vgs__net_linear(p, "additive", p->net->inner * c->windows, f);
    return g ? vgs_add(g, u, vgs__net_additive(p, l, phi, te)) : u;
}

static vgs_var vgs__net_mlp(vgs__pass *p)
{
    float scale = p->net->c.x_scale;
    vgs_var u = p->x;
    if (p->net->c.steps) return vgs__net_timed_mlp(p);
    if (p->g && scale != 1.0f) u = vgs_affine(p->g, u, 1.0f / scale, 0.0f);
    return vgs__net_chain(p, "net", u, p->net->inner, p->net->c.out);
}

/* ---- the networks of the reference implementation ---- */

/* [x, sinusoid] -> h -> h -> h -> 1: the sinusoid's half of the first layer is a table over t */
static vgs_var vgs__net_deeperv2(vgs__pass *p)
{
    vgs_graph *g = p->g;
    int d = p->net->inner, m = p->net->c.time_dim, h = p->net->c.hidden;
    vgs__layer fc1 = vgs__net_linear(p, "fc1", h, d + m), fc2 = vgs__net_linear(p, "fc2", h, h);
    vgs__layer fc3 = vgs__net_linear(p, "fc3", h, h), fc4 = vgs__net_linear(p, "fc4", 1, h);
    vgs_var u, w;
    if (!g) return vgs__no_var();
    w = vgs__net_columns(p, fc1.w, d, m);
    u = vgs_linear(g, p->sinusoid, w, vgs__net_view(p, fc1.b));
    u = vgs_relu(g, vgs_linear_at(g, p->x, vgs__net_columns(p, fc1.w, 0, d), u, p->t));
    u = vgs_relu(g, vgs__net_apply_layer(p, fc2, u));
    u = vgs_relu(g, vgs__net_apply_layer(p, fc3, u));
    return vgs__net_apply_layer(p, fc4, u);
}

/* The first layer of net1 has no activation behind it: it folds with the x half of net3.net.0 into one
   [h, D] matrix. */
static vgs_var vgs__net_temb(vgs__pass *p)
{
    vgs_graph *g = p->g;
    int h = p->net->c.hidden;
    vgs__layer x0 = vgs__net_linear(p, "net1.net.0", h, p->net->inner);
    vgs__layer t0 = vgs__net_linear(p, "net2.net.0", h, p->net->c.time_dim);
    vgs__layer t2 = vgs__net_linear(p, "net2.net.2", h, h), t4 = vgs__net_linear(p, "net2.net.4", h, h);
    vgs__layer u0 = vgs__net_linear(p, "net3.net.0", h, 2 * h), u2 = vgs__net_linear(p, "net3.net.2", h, h);
    vgs__layer u4 = vgs__net_linear(p, "net3.net.4", 1, h);
    vgs_var te, wx, fold, bias, table, u;
    if (!g) return vgs__no_var();
    te = vgs_relu(g, vgs__net_apply_layer(p, t0, p->sinusoid));
    te = vgs_relu(g, vgs__net_apply_layer(p, t2, te));
    te = vgs__net_apply_layer(p, t4, te);
    wx = vgs__net_columns(p, u0.w, 0, h);
    fold = vgs_matmul(g, wx, vgs__net_view(p, x0.w));
    bias = vgs_linear(g, vgs__net_view(p, x0.b), wx, vgs__net_view(p, u0.b));
    table = vgs_linear(g, te, vgs__net_columns(p, u0.w, h, h), bias);
    u = vgs_relu(g, vgs_linear_at(g, p->x, fold, table, p->t));
    u = vgs_relu(g, vgs__net_apply_layer(p, u2, u));
    return vgs__net_apply_layer(p, u4, u);
}

typedef struct vgs__deeper { vgs__layer fc1, fc2, fc3, fc4, temb, temb1, temb2; } vgs__deeper;

static vgs__deeper vgs__net_deeper_layers(vgs__pass *p, int wide)    /* wide = 2: deeperv3             */
{
    int h = p->net->c.hidden, f = p->net->c.time_hidden;
    vgs__deeper l;
    l.fc1 = vgs__net_linear(p, "fc1", h, p->net->inner);
    l.fc2 = vgs__net_linear(p, "fc2", wide * h, wide * h);
    l.fc3 = vgs__net_linear(p, "fc3", h, wide * h);
    l.fc4 = vgs__net_linear(p, "fc4", 1, h);
    l.temb = vgs__net_linear(p, "temb", f, p->net->c.time_dim);
    l.temb1 = vgs__net_linear(p, "temb1", h, f);
    l.temb2 = vgs__net_linear(p, "temb2", h, f);
    return l;
}

static vgs_var vgs__net_deeper(vgs__pass *p)
{
    vgs_graph *g = p->g;
    vgs__deeper l = vgs__net_deeper_layers(p, 1);
    vgs_var te, ta, tb, u;
    if (!g) return vgs__no_var();
    te = vgs__net_apply_layer(p, l.temb, p->sinusoid);
    ta = vgs_relu(g, vgs__net_apply_layer(p, l.temb1, te));
    tb = vgs_relu(g, vgs__net_apply_layer(p, l.temb2, te));
    u = vgs_relu(g, vgs__net_apply_layer(p, l.fc1, p->x));
    u = vgs_add(g, u, vgs_gather(g, ta, p->t));
    u = vgs_relu(g, vgs__net_apply_layer(p, l.fc2, u));
    u = vgs_relu(g, vgs__net_apply_layer(p, l.fc3, u));
    u = vgs_add(g, u, vgs_gather(g, tb, p->t));
    return vgs__net_apply_layer(p, l.fc4, u);
}

/* The time half of fc2 is a table; fc3, the product with Tb te and fc4 are linear in u: out = u.r_t + c_t */
static vgs_var vgs__net_deeperv3(vgs__pass *p)
{
    vgs_graph *g = p->g;
    int h = p->net->c.hidden;
    vgs__deeper l = vgs__net_deeper_layers(p, 2);
    vgs_var te, ta, table, wt, r, c, u;
    if (!g) return vgs__no_var();
    te = vgs__net_apply_layer(p, l.temb, p->sinusoid);
    ta = vgs_relu(g, vgs__net_apply_layer(p, l.temb1, te));
    table = vgs_linear(g, ta, vgs__net_columns(p, l.fc2.w, h, h), vgs__net_view(p, l.fc2.b));
    wt = vgs_mul(g, vgs__net_apply_layer(p, l.temb2, te), vgs__net_view(p, l.fc4.w));  /* w4 * Tb te [T,h] */
    r = vgs_matmul(g, wt, vgs__net_view(p, l.fc3.w));                                    /* [T,2h]     */
    c = vgs_linear(g, wt, vgs__net_view(p, l.fc3.b), vgs__net_view(p, l.fc4.b));         /* [T,1]      */
    u = vgs_relu(g, vgs__net_apply_layer(p, l.fc1, p->x));
    u = vgs_relu(g, vgs_linear_at(g, u, vgs__net_columns(p, l.fc2.w, 0, h), table, p->t));
    u = vgs_sum_cols(g, vgs_mul(g, u, vgs_gather(g, r, p->t)));
    return vgs_add(g, u, vgs_gather(g, c, p->t));
}

/* ---- EGNN: n points, m = n(n-1) directed edges (i,j), i outermost ---- */

typedef struct vgs__edges { int n, m; int32_t *from, *to, *pair, *zero; } vgs__edges;

static bool vgs__egnn_edges(vgs__edges *e, int n)
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

/* The layers of one round: phi_e, phi_h and, with move_coordinates, phi_x. */
typedef struct vgs__round { vgs__layer edge0, edge1, edge3, edge4, coord0, node0, node1, node3;
                            const vgs_param_info *coord2; } vgs__round;

static vgs__round vgs__egnn_layers(vgs__pass *p, int l)
{
    int h = p->net->c.hidden;
    char name[40];
    vgs__round r;
    memset(&r, 0, sizeof r);
#define VGS__PART(text) (snprintf(name, sizeof name, "layers.%d.%s", l, text), name)
    r.edge0 = vgs__net_linear(p, VGS__PART("edge.0"), h, 2 * h + 1 + p->net->c.windows);
    r.edge1 = vgs__net_norm(p, VGS__PART("edge.1"), h);
    r.edge3 = vgs__net_linear(p, VGS__PART("edge.3"), h, h);
    r.edge4 = vgs__net_norm(p, VGS__PART("edge.4"), h);
    if (p->net->c.move_coordinates) {
        r.coord0 = vgs__net_linear(p, VGS__PART("coord.0"), h, h);
        r.coord2 = vgs__net_array(p, VGS__PART("coord.2"), ".weight", 1, h);
    }
    r.node0 = vgs__net_linear(p, VGS__PART("node.0"), h, 2 * h);
    r.node1 = vgs__net_norm(p, VGS__PART("node.1"), h);
    r.node3 = vgs__net_linear(p, VGS__PART("node.3"), h, h);
#undef VGS__PART
    return r;
}

static vgs_var vgs__egnn_norm_silu(const vgs__pass *p, vgs__layer l, vgs_var x)
{
    vgs_var gain = vgs__net_view(p, l.w);
    return vgs_silu(p->g, vgs_layernorm(p->g, x, gain, vgs__net_view(p, l.b)));
}

/* x_i += 1/(n-1) sum_j (x_i - x_j) w_ij;  x: [B, n d] */
static vgs_var vgs__egnn_move(const vgs__pass *p, const vgs__round *r, const vgs__edges *e, vgs_var x,
                              vgs_var message)
{
    vgs_graph *g = p->g;
    int dim = p->net->c.dim;
    vgs_var node = vgs_reshape(g, x, dim / e->n), w, from, to, diff;
    w = vgs_silu(g, vgs__net_apply_layer(p, r->coord0, message));
    w = vgs_linear(g, w, vgs__net_view(p, r->coord2), vgs__no_var());
    from = vgs_segment_gather(g, node, e->n, e->from, e->m);
    to = vgs_segment_gather(g, node, e->n, e->to, e->m);
    diff = vgs_segment_sum(g, vgs_mul(g, vgs_sub(g, from, to), w), e->n, e->from, e->m);
    return vgs_add(g, x, vgs_reshape(g, vgs_affine(g, diff, 1.0f / (float)(e->n - 1), 0.0f), dim));
}

/* A message sees of a distance r [m,1] r^2, and smooth windows x_scale wide, so that the width of a steep
   wall need not be learned. */
static vgs_var vgs__egnn_distance(const vgs__pass *p, vgs_var r)
{
    vgs_var r2 = vgs_square(p->g, r);
    return p->net->c.windows ? vgs_concat(p->g, r2, vgs__net_windows(p, r, 0.0f)) : r2;
}

/* The first layer of phi_e splits into the two ends and r^2. In the first round all nodes of a sample are
   alike and depend on t alone: h0 [T,h] and what is made of it are tables, and both directions of a pair
   have the same message, which is computed once. */
static vgs_var vgs__egnn_message(const vgs__pass *p, const vgs__round *r, const vgs__edges *e, bool first,
                                 vgs_var x, vgs_var h)
{
    vgs_graph *g = p->g;
    int w = p->net->c.hidden;
    vgs_var r2, u, a, b, wi, wj, wr;
    r2 = vgs__egnn_distance(p, vgs_reshape(g, vgs_pair_distance(g, x, e->n), 1));
    if (!first) r2 = vgs_segment_gather(g, r2, e->m / 2, e->pair, e->m);
    wi = vgs__net_columns(p, r->edge0.w, 0, w);
    wj = vgs__net_columns(p, r->edge0.w, w, w);
    wr = vgs__net_columns(p, r->edge0.w, 2 * w, 1 + p->net->c.windows);
    a = vgs_linear(g, h, wi, vgs__net_view(p, r->edge0.b));
    b = vgs_linear(g, h, wj, vgs__no_var());
    if (first) {
        vgs_var table = vgs_add(g, a, b);
        u = vgs_linear_at(g, r2, wr, table, vgs_segment_gather(g, p->t, 1, e->zero, e->m / 2));
    } else {
        a = vgs_segment_gather(g, a, e->n, e->from, e->m);
        b = vgs_segment_gather(g, b, e->n, e->to, e->m);
        u = vgs_add(g, a, b);
        u = vgs_add(g, u, vgs_linear(g, r2, wr, vgs__no_var()));
    }
    u = vgs__egnn_norm_silu(p, r->edge1, u);
    u = vgs__net_apply_layer(p, r->edge3, u);
    u = vgs__egnn_norm_silu(p, r->edge4, u);
    return first ? vgs_segment_gather(g, u, e->m / 2, e->pair, e->m) : u;
}

/* One round, from the nodes h [B n,h] to the next ones; in the first h is h0 [T,h]. */
static vgs_var vgs__egnn_round(vgs__pass *p, const vgs__edges *e, int l, vgs_var *x, vgs_var h)
{
    vgs_graph *g = p->g;
    int w = p->net->c.hidden;
    vgs__round r = vgs__egnn_layers(p, l);
    vgs_var u, v, message, agg, wh, wm, t_node = vgs__no_var();
    if (!g) return h;
    message = vgs__egnn_message(p, &r, e, l == 0, *x, h);
    if (l == 0) t_node = vgs_segment_gather(g, p->t, 1, e->zero, e->n);
    if (p->net->c.move_coordinates && l + 1 < p->net->c.layers) *x = vgs__egnn_move(p, &r, e, *x, message);
    agg = vgs_segment_sum(g, message, e->n, e->from, e->m);
    wh = vgs__net_columns(p, r.node0.w, 0, w);
    wm = vgs__net_columns(p, r.node0.w, w, w);
    u = vgs_linear(g, h, wh, vgs__net_view(p, r.node0.b));
    if (l == 0) u = vgs_linear_at(g, agg, wm, u, t_node);
    else {
        v = vgs_linear(g, agg, wm, vgs__no_var());
        u = vgs_add(g, u, v);
    }
    u = vgs__egnn_norm_silu(p, r.node1, u);
    if (l == 0) h = vgs_gather(g, h, t_node);
    u = vgs__net_apply_layer(p, r.node3, u);
    return vgs_add(g, h, u);
}

static vgs_var vgs__net_egnn(vgs__pass *p)
{
    vgs_graph *g = p->g;
    int hidden = p->net->c.hidden, l;
    vgs__layer t0 = vgs__net_linear(p, "time.0", hidden, p->net->c.time_dim), t2, o0, o1, o3;
    vgs__edges e = { 0, 0, NULL, NULL, NULL, NULL };
    vgs_var h = vgs__no_var(), x = p->x;
    t2 = vgs__net_linear(p, "time.2", hidden, hidden);
    if (g && !vgs__egnn_edges(&e, p->net->c.particles))
        return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: EGNN edges");
    if (g) h = vgs__net_apply_layer(p, t2, vgs_silu(g, vgs__net_apply_layer(p, t0, p->sinusoid)));
    for (l = 0; l < p->net->c.layers; ++l) h = vgs__egnn_round(p, &e, l, &x, h);
    o0 = vgs__net_linear(p, "out.0", hidden, hidden);
    o1 = vgs__net_norm(p, "out.1", hidden);
    o3 = vgs__net_linear(p, "out.3", 1, hidden);
    if (!g) return vgs__no_var();
    h = vgs_segment_sum(g, h, 1, e.zero, e.n);
    h = vgs__egnn_norm_silu(p, o1, vgs__net_apply_layer(p, o0, h));
    vgs__free(e.from);
    return vgs__net_apply_layer(p, o3, h);
}

/* ---- images: rows are height x width pixels, channels last ---- */

typedef struct vgs__image {
    vgs_var u;                                   /* [B height width, channels]                        */
    int height, width, channels;
    vgs_var te;                                  /* [T,f]; no value without time                      */
} vgs__image;

static vgs__image vgs__image_begin(vgs__pass *p)
{
    const vgs_net_config *c = &p->net->c;
    vgs__image m;
    memset(&m, 0, sizeof m);
    m.height = c->height;
    m.width = c->width;
    m.channels = c->dim / (c->height * c->width);
    if (p->g) m.u = vgs_reshape(p->g, p->x, m.channels);
    if (c->steps) {
        vgs__layer t0 = vgs__net_linear(p, "time.0", c->time_hidden, c->time_dim);
        vgs__layer t2 = vgs__net_linear(p, "time.2", c->time_hidden, c->time_hidden);
        if (p->g) m.te = vgs_silu(p->g, vgs__net_apply_layer(p, t0, p->sinusoid));
        if (p->g) m.te = vgs_silu(p->g, vgs__net_apply_layer(p, t2, m.te));
    }
    return m;
}

/* All pixels of a row are one segment: to each pixel what its row has in v [B,c], or to each row the sum over
   its pixels, v [B height width, c]. */
static vgs_var vgs__image_segment(const vgs__pass *p, const vgs__image *m, vgs_var v, bool sum)
{
    int pixels = m->height * m->width;
    int32_t *zero = (int32_t *)vgs__alloc((size_t)pixels, sizeof *zero);
    if (!zero) return vgs__graph_fail(p->g, VGS_E_NOMEM, "out of memory: net of %d pixels", pixels);
    v = sum ? vgs_segment_sum(p->g, v, 1, zero, pixels) : vgs_segment_gather(p->g, v, 1, zero, pixels);
    vgs__free(zero);
    return v;
}

/* A convolution over size x size pixels; `timed`: its bias is a function of t, a table of the prologue. */
static void vgs__image_conv(vgs__pass *p, vgs__image *m, const char *name, int size, int out, bool timed)
{
    const vgs_param_info *w = vgs__net_array(p, name, ".weight", out, size * size * m->channels);
    const bool at_t = timed && p->net->c.steps;
    vgs__layer l = { NULL, NULL };
    char full[64];
    vgs_window at;
    vgs_var v, b;
    memset(&at, 0, sizeof at);
    at.height = m->height;
    at.width = m->width;
    at.size = size;
    at.stride = 1;
    at.top = at.left = at.bottom = at.right = size / 2;
    snprintf(full, sizeof full, "%.40s.time", name);
    if (at_t) l = vgs__net_linear(p, full, out, p->net->c.time_hidden);
    else l.b = vgs__net_array(p, name, ".bias", 0, out);
    m->channels = out;
    if (!p->g) return;
    v = vgs__net_view(p, w);
    b = at_t ? vgs__net_apply_layer(p, l, m->te) : vgs__net_view(p, l.b);
    m->u = vgs__patches(p->g, m->u, &at);
    if (at_t) m->u = vgs_linear_at(p->g, m->u, v, b, vgs__image_segment(p, m, p->t, false));
    else m->u = vgs_linear(p->g, m->u, v, b);
}

/* SiLU, in a U-Net of normalised channels. */
static void vgs__image_act(vgs__pass *p, vgs__image *m, const char *name)
{
    const bool norm = p->net->c.kind == VGS_NET_UNET;
    vgs__layer l = { NULL, NULL };
    vgs_var gain;
    if (norm) l = vgs__net_norm(p, name, m->channels);
    if (!p->g) return;
    if (norm) {
        gain = vgs__net_view(p, l.w);
        m->u = vgs_layernorm(p->g, m->u, gain, vgs__net_view(p, l.b));
    }
    m->u = vgs_silu(p->g, m->u);
}

/* u + conv(act(conv(act(u)))), the first u by a matrix if the number of channels changes. */
static void vgs__image_block(vgs__pass *p, vgs__image *m, const char *part, int level, int block, int out)
{
    vgs__image u = *m;
    char name[40];
#define VGS__PART(text) (snprintf(name, sizeof name, "%.8s.%d.%d.%s", part, level, block, text), name)
    if (u.channels != out) vgs__image_conv(p, &u, VGS__PART("skip"), 1, out, false);
    vgs__image_act(p, m, VGS__PART("norm0"));
    vgs__image_conv(p, m, VGS__PART("conv0"), 3, out, true);
    vgs__image_act(p, m, VGS__PART("norm1"));
    vgs__image_conv(p, m, VGS__PART("conv1"), 3, out, false);
#undef VGS__PART
    if (p->g) m->u = vgs_add(p->g, u.u, m->u);
}

static void vgs__image_halve(vgs__pass *p, vgs__image *m)
{
    vgs_window at;
    memset(&at, 0, sizeof at);
    at.height = m->height;
    at.width = m->width;
    at.size = at.stride = 2;
    if (p->g) m->u = vgs_avg_pool(p->g, m->u, &at);
    m->height /= 2;
    m->width /= 2;
}

static int vgs__image_width(const vgs__pass *p, int level) { return p->net->c.hidden * (level ? 2 : 1); }

/* Blocks on every level, downwards; skip [levels], out, or NULL: what each level gives. */
static void vgs__image_down(vgs__pass *p, vgs__image *m, vgs__image *skip)
{
    const vgs_net_config *c = &p->net->c;
    int l, k;
    vgs__image_conv(p, m, "first", 3, c->hidden, false);
    for (l = 0; l < c->levels; ++l) {
        if (l) vgs__image_halve(p, m);
        for (k = 0; k < c->layers; ++k) vgs__image_block(p, m, "down", l, k, vgs__image_width(p, l));
        if (skip) skip[l] = *m;
    }
}

/* The mean over pixels, after a last activation, by a matrix: [B,1] */
static vgs_var vgs__net_resnet(vgs__pass *p)
{
    vgs__image m = vgs__image_begin(p);
    vgs__layer out;
    vgs__image_down(p, &m, NULL);
    out = vgs__net_linear(p, "out", 1, m.channels);
    if (!p->g) return vgs__no_var();
    m.u = vgs_silu(p->g, m.u);
    m.u = vgs__image_segment(p, &m, m.u, true);
    m.u = vgs_affine(p->g, m.u, 1.0f / (float)(m.height * m.width), 0.0f);
    return vgs__net_apply_layer(p, out, m.u);
}

/* Down, and up again: each level on the way up sees what the same level gave on the way down. */
static vgs_var vgs__net_unet(vgs__pass *p)
{
    const vgs_net_config *c = &p->net->c;
    vgs__image m = vgs__image_begin(p), skip[VGS__LEVELS];
    int l, k, channels = m.channels;
    vgs__image_down(p, &m, skip);
    for (l = c->levels - 2; l >= 0; --l) {
        if (p->g) m.u = vgs_resize(p->g, m.u, m.height, m.width, 2 * m.height, 2 * m.width, false);
        m.height *= 2;
        m.width *= 2;
        m.channels += skip[l].channels;
        if (p->g) m.u = vgs_concat(p->g, m.u, skip[l].u);
        for (k = 0; k < c->layers; ++k) vgs__image_block(p, &m, "up", l, k, vgs__image_width(p, l));
    }
    vgs__image_act(p, &m, "norm");
    vgs__image_conv(p, &m, "last", 3, channels, false);
    return p->g ? vgs_reshape(p->g, m.u, c->dim) : m.u;
}

/* ---- what records each network, out of VGS__NETS ---- */

#define VGS__NET_PASS(KIND, word, layers, facts) { vgs__net_##word },
static const struct { vgs_var (*pass)(vgs__pass *p); } vgs__nets[] = { VGS__NETS(VGS__NET_PASS) };
#undef VGS__NET_PASS

static void vgs__net_free(vgs__net *net)
{
    if (!net) return;
    vgs__free(net->info);
    vgs__free(net);
}

static vgs__net *vgs__net_create(const vgs_net_config *cfg, vgs_error *err)
{
    vgs_net_config c;
    vgs__net *net;
    vgs__pass p;
    if (!cfg) {
        vgs__fail(err, VGS_E_ARG, "model: the network's configuration is NULL");
        return NULL;
    }
    c = *cfg;
    vgs__net_fill(&c);
    if (vgs__net_check(&c, err) != VGS_OK) return NULL;
    net = (vgs__net *)vgs__alloc_or(err, "net", 1, sizeof *net);
    if (!net) return NULL;
    net->c = c;
    net->has_net = true;
    net->inner = c.wrapper ? c.particles * (c.particles - 1) / 2 : c.dim;
    memset(&p, 0, sizeof p);
    p.net = net;
    vgs__nets[c.kind].pass(&p);
    if (!net->failed) return net;
    vgs__fail(err, VGS_E_NOMEM, "out of memory: net of %d hidden units, %d layers", c.hidden, c.layers);
    vgs__net_free(net);
    return NULL;
}

/* g of an autoencoder's energy: 1 at first; in files without a dimension. */
static bool vgs__net_param_is_scale(const vgs_param_info *p) { return !strcmp(p->name, "out_scale"); }

/* PyTorch's: weights and biases of a Linear uniform in +-1/sqrt(fan_in), LayerNorm 1 and 0. A bias follows
   its weight in the list; a vector that follows no matrix is a norm's gain, then its bias. */
static void vgs__net_init(const vgs__net *net, vgs_rng *r, float *w)
{
    int i, j;
    double bound = 0.0;
    for (i = 0; i < net->n_info; ++i) {
        const vgs_param_info *p = &net->info[i];
        bool norm = !p->rows && (i == 0 || !net->info[i - 1].rows);
        bool gain = norm && strstr(p->name, ".weight") != NULL;
        if (!p->rows && !gain && i > 0 && !net->info[i - 1].rows) norm = true;
        if (p->rows) bound = 1.0 / sqrt((double)p->cols);
        if (vgs__net_param_is_scale(p)) {
            w[p->offset] = 1.0f;
            continue;
        }
        for (j = 0; j < (p->rows ? p->rows : 1) * p->cols; ++j)
            w[p->offset + j] =
                norm ? (gain ? 1.0f : 0.0f) : (float)((2.0 * vgs_rng_uniform(r) - 1.0) * bound);
    }
}

/* ---- models ---- */

/* Takes net over, also when it fails. w [size]: the weights, or NULL for zeros. */
static vgs_model *vgs__model_make(vgs__net *net, vgs_backend *b, const float *w, vgs_error *err)
{
    vgs_model *m = b ? (vgs_model *)vgs__alloc_or(err, "model", 1, sizeof *m) : NULL;
    if (!b) vgs__fail(err, VGS_E_ARG, "model: backend = NULL: must be one, as vgs_cpu_create makes");
    if (!m) {
        vgs__net_free(net);
        return NULL;
    }
    m->net = net;
    m->b = b;
    m->version = 1;
    m->w = b->buffer_create(b->self, (size_t)net->size, err);
    m->flag = m->w ? b->buffer_create(b->self, 16, err) : NULL;
    if (m->flag && (!w || b->upload(b->self, m->w, 0, w, (size_t)net->size, VGS_F32,
                                    err) == VGS_OK)) return m;
    vgs_model_free(m);
    return NULL;
}

VGS__DEF vgs_model *vgs_model_create(const vgs_net_config *cfg, vgs_backend *b, uint64_t seed, vgs_error *err)
{
    vgs__net *net = vgs__net_create(cfg, err);
    vgs_rng r = { 0, 0, 0 };
    float *w = net ? (float *)vgs__alloc_or(err, "weights", (size_t)net->size, sizeof *w) : NULL;
    vgs_model *m;
    if (!w) {
        vgs__net_free(net);
        return NULL;
    }
    r.seed = seed;
    vgs__net_init(net, &r, w);
    m = vgs__model_make(net, b, w, err);
    vgs__free(w);
    return m;
}

VGS__DEF vgs_model *vgs_model_create_arrays(const vgs_param_info *arrays, int n, const float *w,
                                            vgs_backend *b, vgs_error *err)
{
    vgs__net *net = (vgs__net *)vgs__alloc_or(err, "model", 1, sizeof *net);
    int i, j;
    for (i = 0; net && i < n; ++i) {
        const vgs_param_info *a = &arrays[i];
        bool fits = a->rows >= 0 && a->cols > 0 && a->name[0] && memchr(a->name, '\0', sizeof a->name);
        for (j = 0; j < i && fits; ++j) fits = strcmp(a->name, arrays[j].name) != 0;
        if (!fits) {
            vgs__fail(err, VGS_E_ARG,
                      "model: array %d, %.40s [%d,%d]: needs a name of its own, below 64 letters, "
                      "rows >= 0 and cols > 0", i, a->name, a->rows, a->cols);
            vgs__net_free(net);
            return NULL;
        }
        vgs__net_list(net, a->name, a->rows, a->cols);
    }
    if (net && n > 0 && !net->failed) return vgs__model_make(net, b, w, err);
    if (net) vgs__fail(err, n > 0 ? VGS_E_NOMEM : VGS_E_ARG,
                       n > 0 ? "out of memory: model of %d arrays" : "model: n = %d: must be > 0", n);
    vgs__net_free(net);
    return NULL;
}

VGS__DEF void vgs_model_free(vgs_model *m)
{
    vgs_buffer **all[5];
    int k;
    if (!m || m->freed) return;
    all[0] = &m->w;
    all[1] = &m->grad;
    all[2] = &m->adam_m;
    all[3] = &m->adam_v;
    all[4] = &m->flag;
    for (k = 0; k < 5; ++k) {
        m->b->buffer_free(m->b->self, *all[k]);
        *all[k] = NULL;
    }
    vgs__net_free(m->net);
    m->net = NULL;
    m->freed = true;
    if (!m->users) vgs__free(m);                 /* else with the last graph                          */
}

VGS__DEF const vgs_net_config *vgs_model_config(const vgs_model *m)
{
    return m->net->has_net ? &m->net->c : NULL;
}
VGS__DEF int vgs_model_size(const vgs_model *m) { return m->net->size; }
VGS__DEF uint64_t vgs_model_version(const vgs_model *m) { return m->version; }
VGS__DEF const vgs_param_info *vgs_model_param(const vgs_model *m, int i)
{
    return i >= 0 && i < m->net->n_info ? &m->net->info[i] : NULL;
}

VGS__DEF vgs_status vgs_model_read(const vgs_model *m, float *w, vgs_error *err)
{
    vgs_status st = m->b->finish(m->b->self, err);
    return st == VGS_OK ? m->b->download(m->b->self, w, m->w, 0, (size_t)m->net->size, VGS_F32, err) : st;
}

VGS__DEF vgs_status vgs_model_write(vgs_model *m, const float *w, vgs_error *err)
{
    m->version++;
    return m->b->upload(m->b->self, m->w, 0, w, (size_t)m->net->size, VGS_F32, err);
}

/* The buffers of an optimiser, zeroed: made at the first use. */
static vgs_status vgs__model_moments(vgs_model *m, vgs_error *err)
{
    size_t n = (size_t)m->net->size;
    if (!m->grad) m->grad = m->b->buffer_create(m->b->self, n, err);
    if (m->grad && !m->adam_m) m->adam_m = m->b->buffer_create(m->b->self, n, err);
    if (m->adam_m && !m->adam_v) m->adam_v = m->b->buffer_create(m->b->self, n, err);
    return m->adam_v ? VGS_OK : VGS_E_NOMEM;
}

VGS__DEF vgs_status vgs_model_read_adam(const vgs_model *m, float *first, float *second, int64_t *step,
                                        vgs_error *err)
{
    size_t n = (size_t)m->net->size;
    vgs_status st = m->b->finish(m->b->self, err);
    *step = m->step;
    if (!m->adam_v) {                            /* no step was ever taken                            */
        memset(first, 0, n * sizeof *first);
        memset(second, 0, n * sizeof *second);
        return st;
    }
    if (st == VGS_OK) st = m->b->download(m->b->self, first, m->adam_m, 0, n, VGS_F32, err);
    return st == VGS_OK ? m->b->download(m->b->self, second, m->adam_v, 0, n, VGS_F32, err) : st;
}

VGS__DEF vgs_status vgs_model_write_adam(vgs_model *m, const float *first, const float *second, int64_t step,
                                         vgs_error *err)
{
    size_t n = (size_t)m->net->size;
    vgs_status st = vgs__model_moments(m, err);
    if (st == VGS_OK) st = m->b->upload(m->b->self, m->adam_m, 0, first, n, VGS_F32, err);
    if (st == VGS_OK) st = m->b->upload(m->b->self, m->adam_v, 0, second, n, VGS_F32, err);
    if (st == VGS_OK) m->step = step;
    return st;
}

static void vgs__model_clear_flag(const vgs_model *m)
{
    int32_t zero[4] = { 0, 0, 0, 0 };
    m->b->upload(m->b->self, m->flag, 0, zero, 4, VGS_I32, NULL);
}

/* Waits for the backend, reads the flag and clears it if it is set. */
static vgs_status vgs__model_read_flag(const vgs_model *m, int32_t f[4], vgs_error *err)
{
    vgs_status st = m->b->finish(m->b->self, err);
    memset(f, 0, 4 * sizeof *f);
    if (st == VGS_OK) st = m->b->download(m->b->self, f, m->flag, 0, 4, VGS_I32, err);
    if (st == VGS_OK && f[0]) vgs__model_clear_flag(m);
    return st;
}

VGS__DEF vgs_status vgs_model_check(const vgs_model *m, vgs_error *err)
{
    int32_t f[4];
    vgs_status st = vgs__model_read_flag(m, f, err);
    if (st != VGS_OK || !f[0]) return st;
    return vgs__fail(err, VGS_E_NONFINITE,
                     "model: row %u of a checked value is not finite; the weights are as "
                     "before", (unsigned)f[1]);
}

/* ---- models in a graph ---- */

/* One leaf a graph, so that the gradients of all places where a model is applied add up in it. */
static vgs_var vgs__model_leaf(vgs_graph *g, vgs_model *m, int op, int cols, vgs_type type)
{
    int i;
    vgs_var v;
    vgs__node *n;
    if (!m || m->freed)
        return vgs__graph_fail(g, VGS_E_ARG, "model: %s", m ? "it has been freed" : "NULL");
    for (i = 0; i < g->n_node; ++i)
        if (g->node[i].op == op && g->node[i].model == m) return vgs__graph_handle(g, i);
    v = vgs__graph_leaf(g, op, 1, cols, type);
    if ((n = vgs__graph_node_of(g, v)) == NULL) return v;
    n->model = m;
    n->buf = op == VGS_OP_PARAMS ? m->w : m->flag;
    m->users++;
    return v;
}

VGS__DEF vgs_var vgs_model_weights(vgs_graph *g, vgs_model *m)
{
    return vgs__model_leaf(g, m, VGS_OP_PARAMS, m && m->net ? m->net->size : 1, VGS_F32);
}

static vgs_var vgs__model_flag(vgs_graph *g, vgs_model *m)
{
    return vgs__model_leaf(g, m, VGS_OP_STATE, 4, VGS_I32);
}

VGS__DEF vgs_var vgs_model_array(vgs_graph *g, vgs_model *m, const char *name)
{
    vgs_var w = vgs_model_weights(g, m);
    int i;
    for (i = 0; vgs__exists(w) && i < m->net->n_info; ++i) {
        const vgs_param_info *a = &m->net->info[i];
        if (!strcmp(a->name, name))
            return vgs_view(g, w, a->offset, a->rows ? a->rows : 1, a->cols, a->cols);
    }
    return vgs__graph_fail(g, VGS_E_ARG, "model: there is no array %.60s", name);
}

/* A pass that records m's network, before its first array. */
static vgs__pass vgs__model_pass(vgs_graph *g, vgs_model *m, vgs_var w)
{
    vgs__pass p;
    memset(&p, 0, sizeof p);
    p.net = m->net;
    p.g = g;
    p.weights = w;
    return p;
}

VGS__DEF vgs_var vgs_model_apply(vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var w = vgs_model_weights(g, m);
    const vgs_net_config *c;
    vgs__pass p;
    int rows, cols;
    if (!vgs__exists(w)) return w;
    c = &m->net->c;
    vgs_shape(g, x, &rows, &cols);
    if (!m->net->has_net)
        return vgs__graph_fail(g, VGS_E_ARG, "model: of arrays alone; there is no network to apply");
    if (cols != c->dim)
        return vgs__graph_fail(g, VGS_E_SHAPE, "model: x has %d columns, net.dim = %d", cols, c->dim);
    if (vgs__exists(t) != (c->steps > 0))
        return vgs__graph_fail(g, VGS_E_ARG, "model: net.steps = %d: t must %sbe given", c->steps,
                               c->steps ? "" : "not ");
    p = vgs__model_pass(g, m, w);
    p.x = x;
    p.t = t;
    if (c->steps) p.sinusoid = vgs__net_sinusoid(g, c);
    if (c->wrapper) {
        p.x = vgs_sort_cols(g, vgs_pair_distance(g, x, c->particles));
        p.x = vgs_sqrt(g, vgs_affine(g, vgs_square(g, p.x), 1.0f, 1.0f));
        if (c->wrapper == VGS_WRAPPER_RECIPROCAL) p.x = vgs_reciprocal(g, p.x);
    }
    return vgs__nets[c->kind].pass(&p);
}

/* ---- training ---- */

/* x must be finite, or an energy that may be +infinity or NaN: the first row that is not sets the flag to
   {1, row + row, step, what}. */
static void vgs__model_check_rows(vgs_graph *g, vgs_var x, vgs_var flag, int what, bool energy,
                                  vgs_scalar step, vgs_scalar row)
{
    vgs_var v = vgs__op_effect(g, VGS_OP_CHECK, x, flag, vgs__no_var());
    vgs__graph_slot_i(g, v, 0, step);
    vgs__graph_attr_i(g, v, 1, what);
    vgs__graph_slot_i(g, v, 2, row);
    vgs__graph_attr_i(g, v, 3, energy);
}

VGS__DEF void vgs_check(vgs_graph *g, vgs_var x, vgs_model *m)
{
    const vgs_scalar none = { 0 };
    vgs__model_check_rows(g, x, vgs__model_flag(g, m), 0, false, none, none);
}

/* A state that lies in buf at offset. */
static vgs_var vgs__graph_bound_state(vgs_graph *g, int rows, int cols, vgs_buffer *buf, size_t offset)
{
    vgs_var v = vgs_state(g, rows, cols, VGS_F32);
    vgs_bind(g, v, buf, offset, NULL);
    return v;
}

/* Adam's step on weights first .. first + n - 1, of the gradient in m->grad, whose norm is that of all. */
static void vgs__model_adam_part(vgs_graph *g, vgs_model *m, vgs_var grad, vgs_var norm, int first, int n,
                                 vgs_scalar lr, float grad_max)
{
    vgs_var in[6], w = vgs_model_weights(g, m), a;
    const bool whole = n == m->net->size;
    vgs__node *node;
    memset(in, 0, sizeof in);
    in[0] = whole ? w : vgs_view(g, w, first, 1, n, n);
    in[1] = whole ? grad : vgs__graph_bound_state(g, 1, n, m->grad, (size_t)first);
    in[2] = vgs__graph_bound_state(g, 1, n, m->adam_m, (size_t)first);
    in[3] = vgs__graph_bound_state(g, 1, n, m->adam_v, (size_t)first);
    in[4] = norm;
    in[5] = vgs__model_flag(g, m);
    a = vgs__adam(g, in, grad_max);
    vgs__graph_slot_f(g, a, 0, lr);
    vgs__graph_attr_i(g, a, 0, first > 0);       /* the step is counted once                          */
    if ((node = vgs__graph_node_of(g, a)) != NULL) node->model = m;
}

/* A step down the gradient in m->grad: the first `net` weights by lr, the rest by lr_rest. */
static void vgs__model_adam_parts(vgs_graph *g, vgs_model *m, vgs_var grad, vgs_scalar lr, int net,
                                  vgs_scalar lr_rest, float grad_max)
{
    vgs_var norm = vgs__no_var();
    if (grad_max > 0.0f && grad_max < 1e30f) norm = vgs__sum_squares(g, grad);
    vgs__model_adam_part(g, m, grad, norm, 0, net, lr, grad_max);
    if (net < m->net->size) vgs__model_adam_part(g, m, grad, norm, net, m->net->size - net, lr_rest,
                                                 grad_max);
}

/* m->grad [1,size] as a state, moments made; no value after a failure. */
static vgs_var vgs__model_grad(vgs_graph *g, vgs_model *m)
{
    vgs_error err;
    if (!vgs__exists(vgs_model_weights(g, m))) return vgs__no_var();
    if (vgs__model_moments(m, &err) != VGS_OK) return vgs__graph_fail(g, err.code, "%s", err.msg);
    return vgs__graph_bound_state(g, 1, m->net->size, m->grad, 0);
}

static void vgs__model_descend_parts(vgs_graph *g, vgs_var loss, vgs_model *m, vgs_scalar lr, int net,
                                     vgs_scalar lr_rest, float grad_max)
{
    vgs_var grad = vgs__model_grad(g, m);
    if (!vgs__exists(grad)) return;
    vgs_check(g, loss, m);
    vgs_gradient_params(g, loss, vgs_model_weights(g, m), grad);
    vgs__model_adam_parts(g, m, grad, lr, net, lr_rest, grad_max);
}

VGS__DEF void vgs_descend(vgs_graph *g, vgs_var loss, vgs_model *m, vgs_scalar lr, float grad_max)
{
    if (vgs__exists(vgs_model_weights(g, m)))
        vgs__model_descend_parts(g, loss, m, lr, m->net->size, lr, grad_max);
}

VGS__DEF void vgs_ema(vgs_graph *g, vgs_model *average, vgs_model *m, float keep)
{
    vgs_var to = vgs_model_weights(g, average), from = vgs_model_weights(g, m), v;
    if (!vgs__exists(to) || !vgs__exists(from)) return;
    if (average->net->size != m->net->size) {
        vgs__graph_fail(g, VGS_E_SHAPE, "ema: models of %d and %d weights", average->net->size, m->net->size);
        return;
    }
    v = vgs__op_effect(g, VGS_OP_EMA, to, from, vgs__model_flag(g, m));
    vgs__graph_attr_f(g, v, 0, keep);
}

/* ==== >>mcmc ======================================================================================= */

#define VGS__MALA_ACCEPTANCE 0.574               /* aimed at [Roberts and Rosenthal 2001]             */

/* ---- state ---- */

enum { VGS__MAX_LEVELS = 128 };
#define VGS__SHUFFLE_STREAM 0x5F0000u            /* the stream that turns and permutes                 */
#define VGS__LN_2PI         1.8378770664093453   /* log(2 pi)                                          */

VGS__DEF const char *vgs_mcmc_method_name(int i)
{
    static const char *const names[] = { "hmc", "mala", "metropolis", "lmc", "pt" };
    return i >= 0 && i < 5 ? names[i] : NULL;
}

/* The use of a random number: the top byte of the third counter word. */
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
    double half_top, half_weights;/* the same after half of the iterations                            */
    int    trip;                  /* travels with x: 1 = came from the bottom, 2 = from the top then  */
} vgs__replica;

typedef struct vgs__ladder {      /* what belongs to a chain as a whole */
    double calls, gradient_calls;
    double trips;
    int    seen, kept, stride;    /* iterations since sampling began; those kept in `stone`           */
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
    vgs__evaluator  recorded;     /* of a recorded energy                                             */
    vgs__replica   *row;
    vgs__ladder    *ladder;
    double         *stone;        /* [levels - 1, chains, stones]: logarithms of some stones' weights */
    int             stones;
    double          half;         /* iterations that half_weights are of                              */
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
    vgs__free(m->stone);
    m->x = m->g = m->y = m->gy = m->p = NULL;
    m->stone = NULL;
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

/* x [n,d]; d = 0, a single point: nothing to do. */
static void vgs__mcmc_centre(const vgs__mcmc *m, float *x)
{
    vgs__centre(x, m->c.energy.particles, m->space);
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
        vgs__rng_normal4(w, z);
        for (k = 0; k < 4 && i + k < dim; ++k) out[i + k] = (float)(scale * (double)z[k]);
    }
    vgs__mcmc_centre(m, out);
}

static double vgs__sq(double x) { return x * x; }

static double vgs__mcmc_square(const float *x, int n)
{
    double s = 0.0;
    int i;
    for (i = 0; i < n; ++i) s += (double)x[i] * (double)x[i];
    return s;
}

enum { VGS__MCMC_BLOCK = 64 };                   /* rows of one call of the energy                    */

/* A recorded energy is evaluated by one thread, on its backend or a CPU backend of its own. */
static vgs_status vgs__mcmc_energy_open(vgs__mcmc *m, vgs_error *err)
{
    if (!m->c.energy.record) return VGS_OK;
    m->c.energy.thread_safe = false;
    return vgs__evaluator_open(&m->recorded, &m->c.energy, NULL, vgs__thread_count(m->c.threads),
                               VGS__MCMC_BLOCK,
                               err);
}

/* Energies ey of y, and gradients gy, in rows first..first+n. What is not finite becomes +inf. */
static vgs_status vgs__mcmc_energy(vgs__mcmc *m, int first, int n, bool gradient, vgs_error *err)
{
    float rounded[VGS__MCMC_BLOCK];
    double e[VGS__MCMC_BLOCK];
    int i, j, rows;
    vgs_status status = VGS_OK;
    for (i = 0; i < n && !status; i += rows) {
        const float *y = vgs__mcmc_at(m, m->y, first + i);
        float *gy = gradient ? vgs__mcmc_at(m, m->gy, first + i) : NULL;
        rows = n - i < VGS__MCMC_BLOCK ? n - i : VGS__MCMC_BLOCK;
        status = m->c.energy.record ? vgs__evaluator_run(&m->recorded, y, rows, e, gy, err)
                                    : vgs__energy_block(&m->c.energy, y, rows, rounded, e, gy, err);
        for (j = 0; j < rows && !status; ++j)
            m->row[first + i + j].ey = fabs(e[j]) <= (double)FLT_MAX ? e[j] : HUGE_VAL;
    }
    return status;
}

/* V of exp(-U0 - beta V), the densities of a ladder: V = E/tau - U0, U0 = |x|^2/(2 length_scale^2). */
static double vgs__mcmc_delta(const vgs__mcmc *m, const float *x, double e)
{
    double s = m->c.length_scale;
    return e / m->c.tau - 0.5 * vgs__mcmc_square(x, m->c.energy.dim) / (s * s);
}

static double vgs__mcmc_potential(const vgs__mcmc *m, int level, const float *x, double e)
{
    double s = m->c.length_scale, beta = m->level[level].beta;
    if (beta == 1.0) return e / m->c.tau;
    return beta * e / m->c.tau + (1.0 - beta) * 0.5 * vgs__mcmc_square(x, m->c.energy.dim) / (s * s);
}

/* ---- moves ---- */

/* Takes y of a row with probability min(1, exp(start - end)). */
static void vgs__mcmc_accept(vgs__mcmc *m, uint64_t at, int level, int chain, double end)
{
    int row = vgs__mcmc_row(m, level, chain);
    vgs__replica *r = &m->row[row];
    size_t bytes = (size_t)m->c.energy.dim * sizeof(float);
    double rise = end - r->start;
    bool finite = vgs__finite(r->ey);
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
    if (!vgs__finite(norm)) return;
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
            vgs__mcmc_potential(m, level, x, m->row[first + c].ex) + 0.5 * vgs__mcmc_square(p, dim);
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
        double kinetic = 0.5 * vgs__mcmc_square(vgs__mcmc_at(m, m->p, first + c), dim);
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

/* ---- ladders ---- */

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
static void vgs__mcmc_stepping_stone(vgs__replica *r, double v)
{
    if (!(v >= -DBL_MAX)) return;
    if (v > r->top) {
        r->weights = r->weights * exp(r->top - v) + 1.0;
        r->top = v;
    } else r->weights += exp(v - r->top);
}

/* Keeps what a ladder's stones weigh now, every stride-th time; when the room is full, every other stays. */
static void vgs__mcmc_keep_stones(vgs__mcmc *m, int chain, const double *v)
{
    vgs__ladder *l = &m->ladder[chain];
    int k, j, top = m->levels - 1;
    if (!m->stone || l->seen++ % l->stride) return;
    for (k = 0; k < top; ++k) {
        double *w = m->stone + ((size_t)k * (size_t)m->c.chains + (size_t)chain) * (size_t)m->stones;
        double now = -(m->level[k + 1].beta - m->level[k].beta) * v[k];
        for (j = 0; l->kept == m->stones && j < m->stones / 2; ++j) w[j] = w[2 * j];
        w[l->kept == m->stones ? m->stones / 2 : l->kept] = now <= DBL_MAX ? now : -HUGE_VAL;
    }
    if (l->kept == m->stones) {
        l->kept /= 2;
        l->stride *= 2;
    }
    l->kept++;
}

/* Every pair of neighbours counts how often it would be refused; the even or the odd pairs do swap. */
static void vgs__mcmc_swap(vgs__mcmc *m, uint64_t at, int chain)
{
    double v[VGS__MAX_LEVELS];
    int k, top = m->levels - 1;
    vgs__ladder *l = &m->ladder[chain];
    for (k = 0; k <= top; ++k) {
        int row = vgs__mcmc_row(m, k, chain);
        v[k] = vgs__mcmc_delta(m, vgs__mcmc_at(m, m->x, row), m->row[row].ex);
    }
    for (k = 0; k < top; ++k) {
        double gap = m->level[k + 1].beta - m->level[k].beta, rise = gap * (v[k] - v[k + 1]);
        double accept = rise < 700.0 ? exp(rise > 0.0 ? -rise : 0.0) : 0.0;
        vgs__replica *r = &m->row[vgs__mcmc_row(m, k, chain)];
        r->refused += 1.0 - accept;
        vgs__mcmc_stepping_stone(r, -gap * v[k]);
    }
    vgs__mcmc_keep_stones(m, chain, v);
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
    out->log_z_se = chains > 1.0 ? sqrt(square / (chains * (chains - 1.0))) : vgs__nan();
}

/* log Z of the first or the second half of the iterations. */
static double vgs__mcmc_half(const vgs__mcmc *m, int half)
{
    double n = half ? m->counted - m->half : m->half, s = m->c.length_scale;
    double log_z = 0.5 * m->dim_effective * (VGS__LN_2PI + 2.0 * log(s));
    int k, c;
    for (k = 0; k < m->levels - 1; ++k) {
        const vgs__replica *r = &m->row[vgs__mcmc_row(m, k, 0)];
        double top = r->top, sum = 0.0;
        for (c = 0; c < m->c.chains; ++c) top = r[c].top > top ? r[c].top : top;
        for (c = 0; c < m->c.chains; ++c) {
            double first = r[c].half_weights * exp(r[c].half_top - top);
            sum += half ? r[c].weights * exp(r[c].top - top) - first : first;
        }
        log_z += top + log(fmax(sum, 0.0) / (n * m->c.chains));
    }
    return log_z;
}

static double vgs__weights_khat(double *log_weight, int n, bool limited);    /* >>weights              */

/* The largest khat of all stones, from what is kept of their weights, which it puts in order; NaN if all
   stones' weights are alike. */
static double vgs__mcmc_stone_khat(vgs__mcmc *m)
{
    double worst = -HUGE_VAL, k, sum, square;
    int i, c, n;
    for (i = 0; m->stone && i < m->levels - 1; ++i) {
        double *w = m->stone + (size_t)i * (size_t)m->c.chains * (size_t)m->stones;
        for (n = 0, c = 0; c < m->c.chains; ++c) {
            memmove(w + n, w + (size_t)c * (size_t)m->stones, (size_t)m->ladder[c].kept * sizeof *w);
            n += m->ladder[c].kept;
        }
        if (n < 25 || !((k = vgs__weights_khat(w, n, false)) < HUGE_VAL)) continue;
        for (sum = square = 0.0, c = 0; c < n; ++c) {
            sum += exp(w[c] - w[n - 1]);
            square += exp(2.0 * (w[c] - w[n - 1]));
        }
        if (sum * sum > 0.99 * n * square) continue;     /* all alike: whatever the tail, it adds nothing  */
        worst = k > worst ? k : worst;
    }
    return worst >= -DBL_MAX ? worst : vgs__nan();
}

/* ---- run ---- */

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
    int i, team = m->c.energy.thread_safe ? vgs__thread_count(m->c.threads) : 1, bad = 0;
    uint64_t at = m->at;
    (void)team;
#ifdef _OPENMP
#  pragma omp parallel for num_threads(team) schedule(dynamic) reduction(+ : bad) if (team > 1)
#endif
    for (i = 0; i < parts; ++i) {
        int c0 = i * part, c1 = m->c.chains - c0 < part ? m->c.chains : c0 + part;
        bad += vgs__mcmc_chains(m, at, n, c0, c1, m->c.energy.record ? err : NULL) != VGS_OK;
    }
    m->at += (uint64_t)n;
    m->counted += n;
    if (bad && m->c.energy.record) return VGS_E_ENERGY;              /* err says why                   */
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

static void vgs__mcmc_dual_begin(vgs__dual *d, double step)
{
    d->centre = log(10.0 * step);
    d->average = log(step);
    d->error = 0.0;
    d->t = 0;
}

/* The step to try next, after `alpha` came of the last one. */
static double vgs__mcmc_dual_update(vgs__dual *d, double aim, double alpha, double scale)
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
    for (k = 0; k < m->levels; ++k) vgs__mcmc_dual_begin(&m->level[k].dual, m->level[k].step);
    for (i = 0; i < n && !status; ++i) {
        status = vgs__mcmc_advance(m, 1, err);
        for (k = 0; k < m->levels && !vgs__mcmc_fixed(m); ++k) {
            double alpha = 0.0;
            for (c = 0; c < m->c.chains; ++c) alpha += m->row[vgs__mcmc_row(m, k, c)].alpha / m->c.chains;
            m->level[k].step =
                vgs__mcmc_dual_update(&m->level[k].dual, m->c.acceptance, alpha, m->c.length_scale);
        }
        if (!status && m->c.progress && i % 16 == 15 && m->c.progress(m->c.progress_user, 0.0))
            status = vgs__fail(err, VGS_E_CANCELLED, "%s: cancelled", m->name);
    }
    for (k = 0; k < m->levels && n > 0 && !vgs__mcmc_fixed(m); ++k)
        m->level[k].step = exp(m->level[k].dual.average);
    return status;
}

/* Returns how many iterations, `most` at most, cost no more than `calls`. */
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

/* Rounds of 1, 1, 2, 4, 8 and 16 parts of 32. Each fits the step sizes again, since those that suit the
   descent are too small or large at equilibrium; after each but the last a ladder is corrected. */
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

/* Room for about 4096 weights of each stone, an even number of each ladder. */
static bool vgs__mcmc_open_stones(vgs__mcmc *m)
{
    int c;
    if (m->c.method != VGS_PT) return true;
    m->stones = 4096 / m->c.chains > 16 ? 4096 / m->c.chains / 2 * 2 : 16;
    for (c = 0; c < m->c.chains; ++c) m->ladder[c].stride = 1;
    m->stone = (double *)vgs__alloc((size_t)m->stones * (size_t)m->c.chains * (size_t)m->levels,
                                    sizeof *m->stone);
    return m->stone != NULL;
}

static void vgs__mcmc_halfway(vgs__mcmc *m)
{
    int i;
    m->half = m->counted;
    for (i = 0; i < m->levels * m->c.chains; ++i) {
        m->row[i].half_top = m->row[i].top;
        m->row[i].half_weights = m->row[i].weights;
    }
}

static vgs_status vgs__mcmc_sample(vgs__mcmc *m, int n, float *x, double *e, vgs_error *err)
{
    int chains = m->c.chains, rounds = (n + chains - 1) / chains, i, c;
    int top = vgs__mcmc_row(m, m->levels - 1, 0);
    vgs__mcmc_forget(m);
    if (!vgs__mcmc_open_stones(m)) return vgs__fail(err, VGS_E_NOMEM, "out of memory: %s", m->name);
    for (i = 0; i < rounds; ++i) {
        int thin = m->c.thin, row = i * chains, rows = n - row < chains ? n - row : chains;
        if (m->c.calls > 0.0)
            thin = vgs__mcmc_affordable(m, INT_MAX, (m->c.calls - vgs__mcmc_spent(m)) / (rounds - i));
        if (thin < 1)
            return vgs__fail(err, VGS_E_ARG, "%s: config.calls = %g are too few: an iteration of %d chains "
                             "of %d levels takes about %.0f, and n = %d needs %d of them after the burn-in",
                             m->name, m->c.calls, chains, m->levels, vgs__mcmc_price(m, m->at), n, rounds);
        if (i == rounds / 2) vgs__mcmc_halfway(m);
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
        if (m->c.energy.record) return err ? err->code : VGS_E_ENERGY;
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
                if (trial && vgs__finite(m->row[row].ex)) continue;
                if (m->c.start) memcpy(x, m->c.start + (size_t)c * (size_t)m->c.energy.dim, bytes);
                else vgs__mcmc_normals(m, VGS__MC_START, (uint64_t)trial, k, c, m->c.length_scale, x);
                vgs__mcmc_centre(m, x);
            }
        status = vgs__mcmc_look(m, err);
        for (lost = -1, k = rows - 1; k >= 0 && !status; --k)
            if (!vgs__finite(m->row[k].ex)) lost = k;
        if (lost < 0 || m->c.start) break;
    }
    if (status || lost < 0) return status;
    if (m->c.start)
        return vgs__fail(err, VGS_E_NONFINITE, "%s: row %d of the start has no finite energy", m->name,
                         lost % m->c.chains);
    return vgs__fail(err, VGS_E_NONFINITE, "%s: no finite energy at 100 random starts with "
                     "config.length_scale = %g", m->name, m->c.length_scale);
}

/* ---- the configuration ---- */

static vgs_status vgs__mcmc_check(vgs__mcmc *m, int n, vgs_error *err)
{
    vgs_mcmc_config *c = &m->c;
    const vgs_energy *e = &c->energy;
    static const double aims[4] = { 0.8, VGS__MALA_ACCEPTANCE, 0.234, 0.9 };
    if (!e->eval + !e->eval64 + !e->record != 2 || e->dim < 1)
        return vgs__fail(err, VGS_E_ARG,
                         "%s: config.energy needs one of eval, eval64 and record, and dim >= 1",
                         m->name);
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

static void vgs__mcmc_summary(vgs__mcmc *m, vgs_mcmc_stats *out)
{
    double refused[VGS__MAX_LEVELS];
    int c, top = m->levels - 1;
    memset(out, 0, sizeof *out);
    out->levels = m->levels;
    out->chains = m->c.chains;
    out->step = m->level[top].step;
    for (c = 0; c < m->c.chains; ++c) {
        out->energy_calls += m->ladder[c].calls;
        out->gradient_calls += m->ladder[c].gradient_calls;
        out->round_trips += m->ladder[c].trips;
        out->acceptance += m->row[vgs__mcmc_row(m, top, c)].alpha_sum / (m->counted * m->c.chains);
    }
    out->energy_mean = out->energy_se = out->rhat = out->ess = vgs__nan();
    out->log_z = out->log_z_se = out->barrier = out->round_trip_rate = vgs__nan();
    out->log_z_half[0] = out->log_z_half[1] = out->stone_khat = vgs__nan();
    if (m->c.method != VGS_PT) {
        out->round_trips = vgs__nan();
        return;
    }
    out->barrier = vgs__mcmc_refused(m, refused);
    out->round_trip_rate = out->round_trips / (m->counted * m->c.chains);
    vgs__mcmc_log_z(m, out);
    for (c = 0; c < 2 && m->half > 0.0; ++c) out->log_z_half[c] = vgs__mcmc_half(m, c);
    out->stone_khat = vgs__mcmc_stone_khat(m);
}

/* ---- do chains agree? [Vehtari 2021] ---- */

/* In place: x [n] complex (re, im side by side), n a power of two; forward, not scaled. */
static void vgs__mcmc_fft(double *x, int n)
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
static void vgs__mcmc_autocovariance(const double *v, int n, double mean, double *work, int size, double *cov)
{
    int i;
    for (i = 0; i < 2 * size; ++i) work[i] = 0.0;
    for (i = 0; i < n; ++i) work[2 * i] = v[i] - mean;
    vgs__mcmc_fft(work, size);
    for (i = 0; i < size; ++i) {                 /* the power is even, so forward is backward */
        work[2 * i] = work[2 * i] * work[2 * i] + work[2 * i + 1] * work[2 * i + 1];
        work[2 * i + 1] = 0.0;
    }
    vgs__mcmc_fft(work, size);
    for (i = 0; i < n; ++i) cov[i] += work[2 * i] / ((double)size * n);
}

typedef struct vgs__ranked { double value; int at; } vgs__ranked;

enum { VGS__MAX_DIAGNOSED = 500000000 };         /* the transform's length stays an int */

/* The numbers of which ESS and R-hat are made: v [chains, n], where chains counts the two halves of each
   chain. */
typedef struct vgs__halves {
    int     chains, n, size;
    double *v, *z, *work, *cov;
    vgs__ranked *order;
} vgs__halves;

/* The variance of all from that within and between chains (ddof 1 each); *within the mean variance. */
static double vgs__mcmc_pooled_variance(const vgs__halves *h, const double *v, double *within, double *mean)
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

static double vgs__mcmc_rhat(const vgs__halves *h, const double *v)
{
    double within, pooled = vgs__mcmc_pooled_variance(h, v, &within, h->work);
    return sqrt(pooled / within);
}

/* chains n / tau; tau sums autocorrelations by pairs of lags, which fall and are positive for a reversible
   chain: up to the first pair that is not, and none above the one before it [Geyer 1992]. The first lag
   of the pair that ends it counts if positive; the last lags, of few products each, are left out. */
static double vgs__mcmc_ess(const vgs__halves *h, const double *v)
{
    double within, pooled = vgs__mcmc_pooled_variance(h, v, &within, h->cov), all = (double)h->chains * h->n;
    double tau = -1.0, last = HUGE_VAL, most, *mean = h->cov + h->n;
    int c, i, n = h->n;
    for (c = 0; c < h->chains; ++c) mean[c] = h->cov[c];
    for (i = 0; i < n; ++i) h->cov[i] = 0.0;
    for (c = 0; c < h->chains; ++c) vgs__mcmc_autocovariance(v + c * n, n, mean[c], h->work, h->size, h->cov);
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

static int vgs__mcmc_by_value(const void *a, const void *b)
{
    double x = ((const vgs__ranked *)a)->value, y = ((const vgs__ranked *)b)->value;
    return (x > y) - (x < y);
}

/* z with Phi(z) = p, 0 < p <= 1/2, by Newton's method on log Phi, which is concave: from the left z only
   rises. */
static double vgs__mcmc_normal_quantile(double p)
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
static void vgs__mcmc_rank_normal(const vgs__halves *h, const double *v, double *z)
{
    int i, j, k, all = h->chains * h->n;
    for (i = 0; i < all; ++i) {
        h->order[i].value = v[i];
        h->order[i].at = i;
    }
    qsort(h->order, (size_t)all, sizeof *h->order, vgs__mcmc_by_value);
    for (i = 0; i < all; i = j) {
        double p, q;
        for (j = i + 1; j < all && !(h->order[j].value > h->order[i].value); ++j) {}
        p = (0.5 * (i + 1.0 + j) - 0.375) / (all + 0.25);
        q = p <= 0.5 ? vgs__mcmc_normal_quantile(p) : -vgs__mcmc_normal_quantile(1.0 - p);
        for (k = i; k < j; ++k) z[h->order[k].at] = q;
    }
}

/* |v - median|, the median from the order that vgs__mcmc_rank_normal left */
static void vgs__mcmc_fold(const vgs__halves *h, const double *v, double *out)
{
    int i, all = h->chains * h->n;
    double median = 0.5 * (h->order[(all - 1) / 2].value + h->order[all / 2].value);
    for (i = 0; i < all; ++i) out[i] = fabs(v[i] - median);
}

static bool vgs__mcmc_halves_open(vgs__halves *h, int draws, int chains)
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

static void vgs__mcmc_halves_close(vgs__halves *h)
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
    if (draws < 4 || chains < 1 || all > (double)VGS__MAX_DIAGNOSED)
        return vgs__fail(err, VGS_E_ARG, "diagnose: draws = %d, chains = %d: must be at least 4 and 1, and "
                         "%d values together", draws, chains, VGS__MAX_DIAGNOSED);
    out->mean = out->mean_se = out->rhat = out->ess = vgs__nan();
    for (i = 0; i < draws * chains; ++i) sum += v[i];
    out->mean = sum / all;
    for (i = 0; i < draws * chains; ++i) square += (v[i] - out->mean) * (v[i] - out->mean);
    if (!(square > 0.0 && vgs__finite(square))) return VGS_OK;
    if (!vgs__mcmc_halves_open(&h, draws, chains)) {
        vgs__mcmc_halves_close(&h);
        return vgs__fail(err, VGS_E_NOMEM, "out of memory: diagnose of %d draws of %d chains", draws, chains);
    }
    for (c = 0; c < h.chains; ++c)               /* of an odd number of draws the middle one is left out */
        for (i = 0; i < h.n; ++i)
            h.v[c * h.n + i] = v[(size_t)(c & 1 ? draws - h.n + i : i) * (size_t)chains + (size_t)(c / 2)];
    out->mean_se = sqrt(square / (all - 1.0) / vgs__mcmc_ess(&h, h.v));
    vgs__mcmc_rank_normal(&h, h.v, h.z);
    out->rhat = vgs__mcmc_rhat(&h, h.z);
    out->ess = vgs__mcmc_ess(&h, h.z);
    vgs__mcmc_fold(&h, h.v, h.v);
    vgs__mcmc_rank_normal(&h, h.v, h.z);
    folded = vgs__mcmc_rhat(&h, h.z);
    if (folded > out->rhat) out->rhat = folded;
    vgs__mcmc_halves_close(&h);
    return VGS_OK;
}

/* Number q of those that are watched, at row x: the energy is the first. */
static int vgs__mcmc_diagnosed_count(const vgs__mcmc *m) { return m->space ? 4 : 1 + m->c.energy.dim; }
static double vgs__mcmc_diagnosed(const vgs__mcmc *m, int q, const float *x, double e)
{
    int i, j, k, d = m->space;
    double nearest = HUGE_VAL, farthest = 0.0;
    if (q == 0) return e;
    if (!d) return (double)x[q - 1];
    if (q == 1) return vgs__mcmc_square(x, m->c.energy.dim);
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
    for (q = 0; q < vgs__mcmc_diagnosed_count(m); ++q) {
        for (i = 0; i < draws * chains; ++i)
            v[i] = vgs__mcmc_diagnosed(m, q, x + (size_t)i * (size_t)m->c.energy.dim, e[i]);
        if (vgs_diagnose(v, draws, chains, &d, err)) break;
        if (q == 0) out->energy_se = d.mean_se;
        if (q == 0 || !(d.rhat <= out->rhat)) out->rhat = d.rhat;
        if (q == 0 || !(d.ess >= out->ess)) out->ess = d.ess;
    }
    vgs__free(v);
    return q < vgs__mcmc_diagnosed_count(m) ? VGS_E_NOMEM : VGS_OK;
}

/* The verdict, and the sentence. */
static vgs_verdict vgs__mcmc_judge(const vgs_mcmc_stats *s, char text[200])
{
    double apart = fabs(s->log_z_half[1] - s->log_z_half[0]);
    if (!(s->rhat <= DBL_MAX)) {
        snprintf(text, 200, "too few rows, or all of a kind: nothing tells whether the chains agree");
        return VGS_VERDICT_UNKNOWN;
    }
    if (s->rhat > 1.1) {
        snprintf(text, 200, "the chains disagree (R-hat %.2f): they have not found the same modes, or not in "
                 "the same shares", s->rhat);
        return VGS_VERDICT_UNUSABLE;
    }
    if (s->stone_khat > 0.7) {
        snprintf(text, 200, "a few states decide log Z (k-hat %.2f of a stepping stone is above 0.7): it and "
                 "its error cannot be trusted", s->stone_khat);
        return VGS_VERDICT_UNUSABLE;
    }
    if (s->rhat > 1.01)
        snprintf(text, 200, "caution: R-hat %.3f is above 1.01: the chains do not agree yet", s->rhat);
    else if (apart > 0.02 && apart > 8.0 * s->log_z_se)
        snprintf(text, 200, "caution: log Z is not converged: %.4f in the first half, %.4f in the second",
                 s->log_z_half[0], s->log_z_half[1]);
    else if (s->round_trips < s->chains)
        snprintf(text, 200, "caution: %.0f round trips of %d ladders: replicas hardly leave the modes that "
                 "they began in", s->round_trips, s->chains);
    else if (s->ess < 100.0)
        snprintf(text, 200, "caution: ESS %.0f is below 100: errors are not known well", s->ess);
    else {
        snprintf(text, 200, "the chains agree (R-hat %.4f, ESS %.0f), unless a mode is missing that none has "
                 "found", s->rhat, s->ess);
        return VGS_VERDICT_USABLE;
    }
    return VGS_VERDICT_CAUTION;
}

VGS__DEF void vgs_mcmc_say(const vgs_mcmc_stats *s, char text[200]) { vgs__mcmc_judge(s, text); }

/* ---- what users call ---- */

/* Every row turned, reflected and permuted, with random numbers of its own. */
static vgs_status vgs__mcmc_shuffle(const vgs__mcmc *m, int n, float *x, vgs_error *err)
{
    size_t dim = (size_t)m->c.energy.dim;
    float *y = (float *)vgs__alloc_or(err, m->name, dim, sizeof *y);
    vgs_rng r;
    int i;
    if (!y) return VGS_E_NOMEM;
    r.seed = m->c.seed;
    r.stream = VGS__SHUFFLE_STREAM;
    r.pos = 0;
    for (i = 0; i < n; ++i, x += dim) {
        vgs_shuffle_particles(&r, x, m->c.energy.particles, m->space, y, NULL);
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
    char text[200];
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
    status = vgs__mcmc_energy_open(&m, err);
    if (!status) status = vgs__mcmc_open(&m, m.c.method != VGS_PT ? 1 : m.c.levels ? m.c.levels : 24, err);
    m.level[0].beta = 1.0;
    if (m.c.method == VGS_PT) vgs__mcmc_first_ladder(&m);
    if (!status) status = vgs__mcmc_start(&m, err);
    if (!status) status = vgs__mcmc_burn_in(&m, err);
    if (!status) status = vgs__mcmc_sample(&m, n, x, e, err);
    if (!status && stats) {
        vgs__mcmc_summary(&m, &own);
        status = vgs__mcmc_diagnose(&m, n, x, e, &own, err);
        own.verdict = vgs__mcmc_judge(&own, text);
    }
    if (!status && m.c.shuffle) status = vgs__mcmc_shuffle(&m, n, x, err);
    if (!status && stats) *stats = own;
    vgs__free(e);
    vgs__mcmc_close(&m);
    vgs__evaluator_close(&m.recorded);
    return status;
}

/* which [n]: the rows that stay, by their weights. */
static vgs_status vgs__mcmc_resample(const double *log_weight, int n, double u, int *which, vgs_error *err)
{
    double top = -HUGE_VAL, sum = 0.0, *w;
    int i;
    for (i = 0; i < n; ++i) {
        if (!(log_weight[i] <= DBL_MAX))
            return vgs__fail(err, VGS_E_NONFINITE, "refine: log_weight[%d] = %g: must be below infinity", i,
                             log_weight[i]);
        top = log_weight[i] > top ? log_weight[i] : top;
    }
    if (!(top >= -DBL_MAX)) return vgs__fail(err, VGS_E_NONFINITE, "refine: all weights are 0");
    w = (double *)vgs__alloc_or(err, "refine", (size_t)n, sizeof *w);
    if (!w) return VGS_E_NOMEM;
    for (i = 0; i < n; ++i) sum += w[i] = exp(log_weight[i] - top);
    vgs__systematic(w, n, sum, u, which);
    vgs__free(w);
    return VGS_OK;
}

/* The rows of x that stay become the state; each must have a finite energy. */
static vgs_status vgs__mcmc_refine_start(vgs__mcmc *m, const double *log_weight, const float *x,
                                         vgs_error *err)
{
    int i, n = m->c.chains, *which = (int *)vgs__alloc_or(err, "refine", (size_t)n, sizeof *which);
    size_t dim = (size_t)m->c.energy.dim;
    vgs_status status = which ? VGS_OK : VGS_E_NOMEM;
    for (i = 0; i < n && which; ++i) which[i] = i;
    if (!status && log_weight)
        status = vgs__mcmc_resample(log_weight, n, vgs__mcmc_uniform(m, VGS__MC_RESAMPLE, 0, 0, 0), which,
                                    err);
    for (i = 0; i < n && !status; ++i) {
        memcpy(vgs__mcmc_at(m, m->x, i), x + (size_t)which[i] * dim, dim * sizeof *x);
        vgs__mcmc_centre(m, vgs__mcmc_at(m, m->x, i));
    }
    if (!status) status = vgs__mcmc_look(m, err);
    for (i = 0; i < n && !status; ++i)
        if (!vgs__finite(m->row[i].ex))
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
    status = vgs__mcmc_energy_open(&m, err);
    if (!status) status = vgs__mcmc_open(&m, 1, err);
    m.level[0].beta = 1.0;
    m.level[0].step = m.c.step;
    if (!status) status = vgs__mcmc_refine_start(&m, log_weight, x, err);
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
    vgs__evaluator_close(&m.recorded);
    return status;
}

/* ==== >>frame: the coordinates that a sampler works in ===============================================
   Units of length and energy, the origin and the constant of E change nothing about a density. A sampler sees
   u of x = m + L u, where its samples have a variance of about 1 along every axis, and the energy
   (E(x) - e0)/tau at temperature 1. Where coordinate x_j ends at a wall, m + L u is y and x_j a function of
   y_j that stays inside: the energy then has -log dx_j/dy_j beside it. */

typedef struct vgs__frame {
    const vgs_energy *of;                        /* E(x)                                              */
    vgs_energy energy;                           /* in u                                              */
    vgs_coordinates kind;
    int dim;
    double *m, *l;                               /* [D], then [1], [D] or [D,D] lower triangular      */
    double *wall;                                /* [3,D]: below, above, or infinite, and the length s */
    bool walled;                                 /* one of them is not                                */
    double e0, tau;
    double log_volume;                           /* log |det L|; of particles in their subspace       */
    vgs_backend *b;                              /* of buf: m, L, e0, 1/tau, for a recorded energy    */
    vgs_buffer *buf;
} vgs__frame;

static size_t vgs__frame_l_count(const vgs__frame *f)
{
    size_t d = (size_t)f->dim;
    return f->kind == VGS_SCALE ? 1 : f->kind == VGS_DIAGONAL ? d : d * d;
}

/* m, L and the walls. */
static size_t vgs__frame_count(const vgs__frame *f)
{
    return 4 * (size_t)f->dim + vgs__frame_l_count(f);
}

/* ---- walls: x_j as a function of y_j ----
   x = a + s h(y) beside one wall, h(y) = y Phi(y) + phi(y), Phi and phi the normal distribution and its
   density; x = b - s h(-y); and a + s (h(y) - h(y - W)), W = (b - a)/s, between two. So what ends at a wall
   has a normal tail in y, and at more than s from it x is about s y: of a Gaussian cut in its middle a
   Gaussian is left, nearly. */

static double vgs__frame_normal_below(double y) { return 0.5 * erfc(-0.70710678118654752 * y); }
static double vgs__frame_normal_density(double y) { return 0.3989422804014327 * exp(-0.5 * y * y); }
static double vgs__frame_soft(double y)
{
    return y * vgs__frame_normal_below(y) + vgs__frame_normal_density(y);
}
static bool vgs__frame_has_wall(double at) { return at >= -DBL_MAX && at <= DBL_MAX; }

/* One coordinate seen from the wall that y < W/2 is nearer to. */
typedef struct vgs__wall { double at, sign, s, width; } vgs__wall;   /* width: W, or infinite               */

/* None: sign is 0. */
static vgs__wall vgs__frame_wall_of(const vgs__frame *f, int j, bool upper)
{
    double a = f->wall[j], b = f->wall[f->dim + j];
    vgs__wall w;
    w.s = f->wall[2 * f->dim + j];
    w.width = (b - a) / w.s;
    w.sign = vgs__frame_has_wall(upper ? b : a) ? upper ? -1.0 : 1.0 : 0.0;
    w.at = upper ? b : a;
    return w;
}

/* Distance from the wall over s, and its derivative. */
static double vgs__frame_wall_distance(const vgs__wall *w, double y)
{
    return vgs__frame_soft(y) - (w->width <= DBL_MAX ? vgs__frame_soft(y - w->width) : 0.0);
}

static double vgs__frame_wall_share(const vgs__wall *w, double y)
{
    return vgs__frame_normal_below(y) - (w->width <= DBL_MAX ? vgs__frame_normal_below(y - w->width) : 0.0);
}

/* y at this distance: Newton's method on the logarithm, which is concave, from below. Behind the wall there
   is none: 40 below it no density is left. */
static double vgs__frame_wall_solve(const vgs__wall *w, double distance)
{
    double y = distance < 1.0 ? -sqrt(-2.0 * log(distance)) : distance - 0.4, step = 1.0;
    int i;
    if (!(distance > 1e-300)) return -40.0;
    for (i = 0; i < 60 && step > 1e-14 * (1.0 + fabs(y)); ++i) {
        double v = vgs__frame_wall_distance(w, y);
        step = log(distance / v) * v / vgs__frame_wall_share(w, y);
        y += step;
    }
    return y;
}

/* The nearer wall of y, or of x, and y seen from it. */
static vgs__wall vgs__frame_wall_near(const vgs__frame *f, int j, double *y)
{
    vgs__wall w = vgs__frame_wall_of(f, j, false);
    if (w.sign != 0.0 && !(*y > 0.5 * w.width)) return w;
    *y = w.sign != 0.0 ? w.width - *y : -*y;
    return vgs__frame_wall_of(f, j, true);
}

static double vgs__frame_wall_x(const vgs__frame *f, int j, double y)
{
    double from = y;
    vgs__wall w = vgs__frame_wall_near(f, j, &from);
    return w.sign != 0.0 ? w.at + w.sign * w.s * vgs__frame_wall_distance(&w, from) : y;
}

static double vgs__frame_wall_y(const vgs__frame *f, int j, double x)
{
    vgs__wall a = vgs__frame_wall_of(f, j, false), b = vgs__frame_wall_of(f, j, true);
    double y;
    if (a.sign == 0.0 && b.sign == 0.0) return x;
    if (b.sign == 0.0 || x - a.at < b.at - x) return vgs__frame_wall_solve(&a, (x - a.at) / a.s);
    y = vgs__frame_wall_solve(&b, (b.at - x) / b.s);
    return a.sign != 0.0 ? b.width - y : -y;
}

/* log dx_j/dy_j; *slope: its derivative */
static double vgs__frame_wall_log(const vgs__frame *f, int j, double y, double *slope)
{
    vgs__wall w = vgs__frame_wall_near(f, j, &y);
    double share;
    *slope = 0.0;
    if (w.sign == 0.0) return 0.0;
    share = vgs__frame_wall_share(&w, y);
    *slope = vgs__frame_normal_density(y) -
        (w.width <= DBL_MAX ? vgs__frame_normal_density(y - w.width) : 0.0);
    *slope *= w.sign / share;
    return log(w.s * share);
}

/* The sum over j of a row y. */
static double vgs__frame_log_slope(const vgs__frame *f, const double *y)
{
    double sum = 0.0, slope;
    int j;
    for (j = 0; f->walled && j < f->dim; ++j) sum += vgs__frame_wall_log(f, j, y[j], &slope);
    return sum;
}

/* dE/dy - tau d(log dx/dy)/dy from g = dE/dx, in place; or back. */
static void vgs__frame_bend(const vgs__frame *f, const double *y, double *g, bool back)
{
    int j;
    for (j = 0; f->walled && j < f->dim; ++j) {
        double slope, scale = exp(vgs__frame_wall_log(f, j, y[j], &slope));
        g[j] = back ? (g[j] + f->tau * slope) / scale : g[j] * scale - f->tau * slope;
    }
}

/* ---- rows ---- */

/* y = m + L u, for one row */
static void vgs__frame_affine(const vgs__frame *f, const double *u, double *y)
{
    int d = f->dim, i, j;
    for (i = 0; i < d; ++i) {
        double s = 0.0;
        if (f->kind == VGS_FULL) for (j = 0; j <= i; ++j) s += f->l[i * d + j] * u[j];
        else s = f->l[f->kind == VGS_SCALE ? 0 : i] * u[i];
        y[i] = f->m[i] + s;
    }
}

/* x of y, in place */
static void vgs__frame_confine(const vgs__frame *f, double *y)
{
    int j;
    for (j = 0; f->walled && j < f->dim; ++j) y[j] = vgs__frame_wall_x(f, j, y[j]);
}

static void vgs__frame_point(const vgs__frame *f, const double *u, double *x)
{
    vgs__frame_affine(f, u, x);
    vgs__frame_confine(f, x);
}

/* y of x, in place */
static void vgs__frame_unbend(const vgs__frame *f, double *x)
{
    int j;
    for (j = 0; f->walled && j < f->dim; ++j) x[j] = vgs__frame_wall_y(f, j, x[j]);
}

/* g = L^T (dE/dy)/tau from dE/dx, in place: from lower rows of L, which an entry still needs, to its own */
static void vgs__frame_gradient(const vgs__frame *f, const double *y, double *g)
{
    int d = f->dim, i, j;
    vgs__frame_bend(f, y, g, false);
    for (j = 0; j < d; ++j) {
        double s = 0.0;
        if (f->kind == VGS_FULL) for (i = j; i < d; ++i) s += f->l[i * d + j] * g[i];
        else s = f->l[f->kind == VGS_SCALE ? 0 : j] * g[j];
        g[j] = s / f->tau;
    }
}

/* u of y, in place: forward substitution */
static void vgs__frame_solve(const vgs__frame *f, double *y)
{
    int d = f->dim, i, j;
    for (i = 0; i < d; ++i) {
        double s = y[i] - f->m[i];
        if (f->kind == VGS_FULL) for (j = 0; j < i; ++j) s -= f->l[i * d + j] * y[j];
        y[i] = s / f->l[f->kind == VGS_SCALE ? 0 : f->kind == VGS_FULL ? i * (d + 1) : i];
    }
}

/* u of x, in place */
static void vgs__frame_inverse(const vgs__frame *f, double *x)
{
    vgs__frame_unbend(f, x);
    vgs__frame_solve(f, x);
}

/* dE/dx of what a sampler has for a gradient, in place: tau L^-T g, back substitution, then from y to x */
static void vgs__frame_covector(const vgs__frame *f, const double *y, double *g)
{
    int d = f->dim, i, j;
    for (i = d - 1; i >= 0; --i) {
        double s = f->tau * g[i];
        if (f->kind == VGS_FULL) for (j = i + 1; j < d; ++j) s -= f->l[j * d + i] * g[j];
        g[i] = s / f->l[f->kind == VGS_SCALE ? 0 : f->kind == VGS_FULL ? i * (d + 1) : i];
    }
    vgs__frame_bend(f, y, g, true);
}

typedef enum vgs__direction { VGS__TO_X, VGS__TO_U } vgs__direction;

/* Rows x [n,D] from one to the other, in place. Nothing happens in plain coordinates. */
static void vgs__frame_rows(const vgs__frame *f, vgs__direction to, float *x, int n)
{
    double *v = f->m + f->dim, *w = v + f->dim;  /* scratch behind m                                  */
    int i, j;
    if (f->kind == VGS_PLAIN) return;
    for (i = 0; i < n; ++i, x += f->dim) {
        for (j = 0; j < f->dim; ++j) v[j] = (double)x[j];
        if (to == VGS__TO_X) vgs__frame_point(f, v, w);
        else vgs__frame_inverse(f, v);
        for (j = 0; j < f->dim; ++j) x[j] = (float)(to == VGS__TO_X ? w[j] : v[j]);
    }
}

/* y of a row u, in the scratch of frame_rows */
static double *vgs__frame_y(const vgs__frame *f, const float *u)
{
    double *v = f->m + f->dim, *w = v + f->dim;
    int j;
    for (j = 0; j < f->dim; ++j) v[j] = (double)u[j];
    vgs__frame_affine(f, v, w);
    return w;
}

/* Gradients g [n,D] at rows u to those in x, in place. */
static void vgs__frame_slopes(const vgs__frame *f, const float *u, float *g, int n)
{
    int i, j;
    if (f->kind == VGS_PLAIN) return;
    for (i = 0; i < n; ++i, u += f->dim, g += f->dim) {
        double *y = vgs__frame_y(f, u), *v = f->m + f->dim;
        for (j = 0; j < f->dim; ++j) v[j] = (double)g[j];
        vgs__frame_covector(f, y, v);
        for (j = 0; j < f->dim; ++j) g[j] = (float)v[j];
    }
}

/* Up to 64 rows of E(x) in double, from a callback of either kind. */
static int vgs__frame_call(const vgs_energy *of, const double *x, int n, double *e, double *g, float *room)
{
    size_t d = (size_t)of->dim, i, count = (size_t)n * d;
    float *xf = room, *gf = room + count, *ef = gf + count;
    int failed;
    if (of->eval64) return of->eval64(of->user, x, n, of->dim, e, g);
    for (i = 0; i < count; ++i) xf[i] = (float)x[i];
    failed = of->eval(of->user, xf, n, of->dim, ef, g ? gf : NULL);
    for (i = 0; i < (size_t)n; ++i) e[i] = (double)ef[i];
    for (i = 0; g && i < count; ++i) g[i] = (double)gf[i];
    return failed;
}

/* (E - e0)/tau at rows u [n,dim], n dim <= 2048 or n = 1; x [n,dim] and room [n (2 dim + 1)] are scratch. */
static int vgs__frame_block(const vgs__frame *f, const double *u, int n, double *e, double *g, double *x,
                            float *room)
{
    size_t d = (size_t)f->dim;
    int i, j, failed;
    for (i = 0; i < n; ++i) vgs__frame_point(f, u + (size_t)i * d, x + (size_t)i * d);
    failed = vgs__frame_call(f->of, x, n, e, g, room);
    for (i = 0; i < n && !failed; ++i) {
        double *gi = g ? g + (size_t)i * d : NULL, *y = x + (size_t)i * d;
        e[i] = vgs__finite(e[i]) ? (e[i] - f->e0) / f->tau : e[i] < 0.0 ? e[i] : HUGE_VAL;   /* NaN, too */
        if (f->walled) {
            vgs__frame_affine(f, u + (size_t)i * d, y);
            if (vgs__finite(e[i])) e[i] -= vgs__frame_log_slope(f, y);
        }
        if (gi && vgs__finite(e[i])) vgs__frame_gradient(f, y, gi);
        else for (j = 0; gi && j < f->dim; ++j) gi[j] = 0.0;
    }
    return failed;
}

/* The same of any number of rows, a vgs_energy_fn64. A place without a finite energy is outside: +infinity,
   and no gradient. It allocates for one row of more than 2048 numbers only. */
static int vgs__frame_eval(void *user, const double *u, int n, int dim, double *e, double *g)
{
    const vgs__frame *f = (const vgs__frame *)user;
    size_t d = (size_t)dim;
    double few[2048], *x = few;
    float some[2 * 2048 + 64], *room = some;
    int rows = dim <= 2048 ? 2048 / dim : 1, i, failed = 0;
    if (rows > 64) rows = 64;
    if (dim > 2048) {
        if (!(x = (double *)vgs__alloc(2 * d + 1, sizeof *x))) return 1;
        room = (float *)(void *)(x + d);
    }
    for (i = 0; i < n && !failed; i += rows)
        failed = vgs__frame_block(f, u + (size_t)i * d, n - i < rows ? n - i : rows, e + i,
                                  g ? g + (size_t)i * d : NULL, x, room);
    if (x != few) vgs__free(x);
    return failed;
}

/* The same of a recorded energy, a vgs_energy_record. */
static vgs_var vgs__frame_record(void *user, vgs_graph *g, vgs_var u)
{
    const vgs__frame *f = (const vgs__frame *)user;
    size_t d = (size_t)f->dim, at = d + vgs__frame_l_count(f);
    int rows = f->kind == VGS_FULL ? f->dim : 1, cols = f->kind == VGS_SCALE ? 1 : f->dim;
    vgs_var m = vgs__graph_bound_state(g, 1, f->dim, f->buf, 0),
        l = vgs__graph_bound_state(g, rows, cols, f->buf, d), e;
    vgs_var x = f->kind == VGS_FULL ? vgs_linear(g, u, l, m) : vgs_add(g, vgs_mul(g, u, l), m);
    e = vgs_energy_of(g, f->of, x);
    e = vgs_sub(g, e, vgs__graph_bound_state(g, 1, 1, f->buf, at));
    return vgs_mul(g, e, vgs__graph_bound_state(g, 1, 1, f->buf, at + 1));
}

/* E from what a sampler sees of it at a row u. */
static double vgs__frame_energy(const vgs__frame *f, const float *u, double e)
{
    if (f->walled) e += vgs__frame_log_slope(f, vgs__frame_y(f, u));
    return f->kind == VGS_PLAIN ? e : f->e0 + f->tau * e;
}

/* Tells what follows from m, L and e0 that they have changed. */
static vgs_status vgs__frame_changed(vgs__frame *f, vgs_error *err)
{
    size_t d = (size_t)f->dim, n = vgs__frame_l_count(f), i;
    int p = f->of->particles;
    float *v;
    vgs_status st;
    f->log_volume = 0.0;
    f->walled = false;
    for (i = 0; i < 2 * d; ++i) f->walled = f->walled || vgs__frame_has_wall(f->wall[i]);
    for (i = 0; i < d; ++i)
        f->log_volume += log(f->l[f->kind == VGS_SCALE ? 0 : f->kind == VGS_FULL ? i * (d + 1) : i]);
    if (p) f->log_volume *= 1.0 - 1.0 / p;
    if (!f->buf) return VGS_OK;
    if (!(v = (float *)vgs__alloc_or(err, "coordinates", d + n + 2, sizeof *v))) return VGS_E_NOMEM;
    for (i = 0; i < d; ++i) v[i] = (float)f->m[i];
    for (i = 0; i < n; ++i) v[d + i] = (float)f->l[i];
    v[d + n] = (float)f->e0;
    v[d + n + 1] = (float)(1.0 / f->tau);
    st = f->b->upload(f->b->self, f->buf, 0, v, d + n + 2, VGS_F32, err);
    vgs__free(v);
    return st;
}

/* m = 0, L = scale, e0 = 0. `of` must outlive the frame. An energy that is recorded, or that a backend of the
   caller's computes from a callback, is recorded; another callback keeps its digits in double. */
static vgs_status vgs__frame_open(vgs__frame *f, const vgs_energy *of, vgs_coordinates kind, double scale,
                                  double tau, vgs_backend *b, bool record, vgs_error *err)
{
    size_t d = (size_t)of->dim, i;
    memset(f, 0, sizeof *f);
    f->of = of;
    f->kind = kind;
    f->dim = of->dim;
    f->tau = tau;
    f->energy = *of;
    if (kind == VGS_PLAIN) f->tau = 1.0;
    if (kind == VGS_PLAIN) return VGS_OK;
    f->energy.eval = NULL;
    f->energy.eval64 = record ? NULL : vgs__frame_eval;
    f->energy.record = record ? vgs__frame_record : NULL;
    f->energy.user = f;
    f->energy.backend = b;
    f->m = (double *)vgs__alloc_or(err, "coordinates", 2 * d + vgs__frame_count(f), sizeof *f->m);
    if (!f->m) return VGS_E_NOMEM;
    f->l = f->m + 3 * d;
    f->wall = f->l + vgs__frame_l_count(f);
    for (i = 0; i < d; ++i) {
        f->wall[i] = -HUGE_VAL;
        f->wall[d + i] = HUGE_VAL;
        f->wall[2 * d + i] = 1.0;
    }
    for (i = 0; i < vgs__frame_l_count(f); ++i) f->l[i] = kind != VGS_FULL || i % (d + 1) == 0 ? scale : 0.0;
    f->b = b;
    if (record && !(f->buf = b->buffer_create(b->self, d + vgs__frame_l_count(f) + 2, err)))
        return VGS_E_NOMEM;
    return vgs__frame_changed(f, err);
}

/* m, L and the walls, which lie behind L, change places with v. */
static void vgs__frame_swap(vgs__frame *f, double *v)
{
    size_t d = (size_t)f->dim, n = vgs__frame_count(f), i;
    for (i = 0; i < n; ++i) {
        double *at = i < d ? f->m + i : f->l + (i - d), was = *at;
        *at = v[i];
        v[i] = was;
    }
}

static void vgs__frame_close(vgs__frame *f)
{
    if (f->buf) f->b->buffer_free(f->b->self, f->buf);
    vgs__free(f->m);
}

/* ==== >>sampler: its state ===========================================================================
   One iteration of training is a few compiled graphs, the stages, that are run with other scalars; all state
   is in buffers of the backend. Each stage has a struct with its graph, its leaves and its scalars; what it
   records and how it is run stand side by side below. The list of stages is under >>life. */

/* name, when it exists, how many numbers. T steps, B batch, D columns, F factors of a step, C capacity. */
#define VGS__BUFFERS(X) \
    X(sigma,          true,           64)              /* s0, its gradient, Adam's moments: at 0 16 32 48 */ \
    X(velocity,       dxdp,           T)               /* v_t                                         */ \
    X(policy_slope,   dxdp,           B * D)           /* d(V or E)/dx' of the policy's step          */ \
    X(path_cost,      logvar,         B)               /* what paths cost                             */ \
    X(path_weight,    logvar,         B)               /* log w, less its mean                        */ \
    X(policy_grad,    logvar,         P)               /* of one step of all paths                    */ \
    X(loss_log,       true,           passes * T)                                                     \
    X(factor,         true,           2 * T * F)       /* [T,2,F]: kappa_t, sqrt rho_t                  */ \
    X(traj_x,         true,           (T + 1) * B * D) /* the trajectories of an iteration, t by t      */ \
    X(traj_mu,        true,           T * B * D)                                                      \
    X(traj_mu2,       true,           T * B)           /* |mu|^2                                        */ \
    X(traj_cost,      true,           T * B)                                                          \
    X(traj_part,      own,            T * B)           /* all of V_t(x_t) but the network             */ \
    X(feature,        c->energy_features > 0, T)       /* lambda_t                                    */ \
    X(draw_part,      own,            C)                                                              \
    X(traj_y,         true,           passes * T * B)  /* TD targets over D                             */ \
    X(traj_noise_std, c->local_noise, T * B * D)                                                      \
    X(traj_eigvec,    c->local_noise, T * B * D * D)                                                  \
    X(traj_grad,      slope,          T * B * D)       /* what grad V_t should be                       */ \
    X(traj_slope,     c->drift_energy, T * B * D)      /* grad E at x_t as the policy sees it           */ \
    X(traj_path,      c->replay > 0,  T * B)           /* y of lambda = 1 and the true E, for log w     */ \
    X(fd_x,           slope,          2 * B * D)       /* x +- d of a minibatch                         */ \
    X(fd_weight,      slope,          B)               /* of V(x + d) - V(x - d) in the loss            */ \
    X(end_grad,       c->denoise_loss > 0.0f, B * D)   /* grad E of the kept samples                  */ \
    X(replay_x,       c->replay > 0,  kept * D)                                                       \
    X(replay_weight,  c->replay > 0,  kept)            /* log w                                         */ \
    X(mala_x,         c->replay > 0,  B * D)                                                          \
    X(mala_e,         c->replay > 0,  B)                                                              \
    X(mala_grad,      c->replay > 0,  B * D)                                                          \
    X(mala_h,         c->replay > 0,  1)                                                              \
    X(draw_x,         true,           2 * C * D)                                                      \
    X(draw_mu,        true,           C * D)                                                          \
    X(draw_mu2,       true,           C)                                                              \
    X(draw_cost,      true,           C)                                                              \
    X(draw_noise_std, c->local_noise, C * D)                                                          \
    X(draw_eigvec,    c->local_noise, C * D * D)

/* Steps of an iteration's trajectories that are not the sampler's own: they explore or are recalled. */
typedef struct vgs__detour { int steps; bool recalled; } vgs__detour;
typedef enum vgs__rolled { VGS__ROLLED_NOT, VGS__ROLLED, VGS__ROLLED_GIVEN } vgs__rolled;    /* given x_0 */

/* A copy on the host of all that a draw depends on. */
typedef struct vgs__state {
    float *w, *factor, s0;                       /* [size], [T,2,F]; w = NULL: none yet               */
    double gap;                                  /* vgs__choice_gap of it                             */
    bool last_by_value;
} vgs__state;
/* The rows of a last step: places of x_{T-1} and x_T in x, and the number of the first. */
typedef struct vgs__seen { vgs_buffer *x; size_t from, to; uint32_t first_row; int n; } vgs__seen;

struct vgs_sampler {
    vgs_config c, given;                         /* resolved, and as the caller gave it               */
    vgs_backend *own, *b;                        /* own: to be freed; b: in use                       */
    vgs_model *online, *target;                  /* V, and Vbar that draws go by                      */
    vgs_model *lent;                             /* online, where that is another's network; or NULL  */
    vgs_model *policy_on, *policy;               /* m and sigma_t, and their average, likewise        */
    vgs__evaluator energies;                     /* E of host rows                                    */
    vgs__frame frame;
    const vgs_energy *energy;                    /* in the coordinates that it works in, as are ...   */
    double tau;                                  /* ... the temperature, 1 unless they are plain, and */
    float energy_max;
    int dim, factors;                            /* D of the method; F: D, or 1 for particles         */
    int capacity;                                /* rows of the graphs that draw                      */
    double feature_width;                        /* l of lambda_t                                     */
    float feature_max;                           /* E is cut here in the feature                      */
    bool last_by_value;                          /* the drift of the last step is that of V, not of E */
    float *s2, *a;                               /* [T]                                               */
    float *log_sigma;                            /* [T]: room                                         */
    int64_t iteration, sigma_step;
    int64_t kept;                                /* iterations whose samples were kept                */
    int kept_fixed;                              /* iterations' worth of the pilot's, which stay      */
    bool piloted;
    vgs_pilot pilot;
    vgs__state best, training;                   /* draws go by the best one; that of the last iteration */
    uint64_t drawn_version;                      /* of Vbar when the best took its place              */
    float lr_factor;                             /* on value_lr: halves where the gap does not fall   */
    int stalled;                                 /* measurements since it last fell                   */
    double best_elbo, best_ess, best_inside;     /* of the best state, from VGS__CHOICE_ROWS draws    */
    bool reached;                                /* target_ess                                        */
    int harder;                                  /* how much vgs__train_try_harder has tried                */
    double energy_calls;
    double outside_max;                          /* share of a batch outside that is an error: 1, all */
    vgs__seen seen;                              /* the last step that looked at E                    */
    float *outside_x;                            /* [D]: vgs_stats.outside                            */
    vgs__rolled rolled;                          /* since the last fit                                */
    vgs__detour detour;                          /* of the last rollout                               */
    float *correct_step;                         /* [T]: h of MALA on V_t, for this version of Vbar   */
    uint64_t correct_version;
    uint64_t energy_params;                      /* checksum of the energy's bare parameters          */
    uint64_t energy_seen;                        /* vgs__sampler_energy_version at the last call of train, */
                                                 /* or at a load: another one forgets the best state  */
    uint64_t touched;                            /* calls of vgs_sampler_touch                        */
    int64_t energy_since;                        /* the iteration in which E last changed             */
    size_t bytes;
#define VGS__MEMBER(name, when, n) vgs_buffer *name;
    VGS__BUFFERS(VGS__MEMBER)
#undef VGS__MEMBER
    struct vgs__stages *stage;                   /* >>life                                            */
};

/* ==== >>value: V_t(x), recorded ====================================================================== */

/* Streams of random numbers: the top byte of the third counter word, so that no two uses meet. */
enum { VGS__FOR_START = 1, VGS__FOR_STEP, VGS__FOR_TARGET, VGS__FOR_SIGMA, VGS__FOR_SHUFFLE,
       VGS__FOR_DRAW_START, VGS__FOR_DRAW_STEP, VGS__FOR_FACTOR, VGS__FOR_RECALL, VGS__FOR_BACK,
       VGS__FOR_REFINE, VGS__FOR_REFINE_ACCEPT, VGS__FOR_SCORE, VGS__FOR_RESAMPLE, VGS__FOR_CORRECT,
       VGS__FOR_CORRECT_ACCEPT, VGS__FOR_POINTS, VGS__FOR_POLICY };

/* The step whose x_t has the density that is known: x_0, or for paths from 0 x_T, under their reference. */
static int vgs__value_known_step(const vgs_sampler *s)
{
    return vgs__config_from_zero(&s->c) ? s->c.steps : 0;
}

/* The variance at step t of the noising chain, from that at t + 1. */
static double vgs__value_chain_variance(const vgs_sampler *s, int t, double var)
{
    return var / ((double)s->a[t] * (double)s->a[t]) + (double)s->s2[t];
}

/* v_t [B,1] of the noising chain from a variance of var: factor / v_t, or its root if factor is 0. */
static vgs_var vgs__value_variance(const vgs_sampler *s, vgs_graph *g, vgs_var t, double var, double factor)
{
    float *k = (float *)vgs__alloc((size_t)s->c.steps, sizeof *k);
    vgs_var v;
    int i;
    if (!k) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: value of %d steps", s->c.steps);
    for (i = s->c.steps - 1; i >= 0; --i) {
        var = vgs__value_chain_variance(s, i, var);
        k[i] = (float)(factor > 0.0 ? factor / var : sqrt(var));
    }
    v = vgs_gather(g, vgs_table(g, k, s->c.steps, 1), t);
    vgs__free(k);
    return v;
}

/* The std of a coordinate of the samples. */
static double vgs__value_length(const vgs_sampler *s)
{
    return vgs__config_is_plain(&s->c) ? (double)s->c.length_scale : 1.0;
}

/* factor / v_t [B,1] of the Gaussian of this std. */
static vgs_var vgs__value_precision(const vgs_sampler *s, vgs_graph *g, vgs_var t, double factor)
{
    return vgs__value_variance(s, g, t, vgs__value_length(s) * vgs__value_length(s), factor);
}

/* Returns whether V has a part beside the network. */
static bool vgs__value_has_base(const vgs_sampler *s)
{
    return !s->c.published && vgs__net_is(s->c.net.kind, VGS__NET_BASE);
}

/* The standard deviation of -tau log p(x), x ~ p, of a Gaussian p. */
static float vgs__value_spread(double tau, int dim) { return (float)(tau * sqrt(0.5 * dim)); }

/* x/sqrt(1 + a square), which an mlp sees in place of x: with a square = (x/far)^2 it ends at far. */
static vgs_var vgs__value_bounded(vgs_graph *g, vgs_var x, vgs_var square, float a)
{
    return vgs_div(g, x, vgs_sqrt(g, vgs_affine(g, square, a, 1.0f)));
}

/* The network's part of V. The mlp sees x / sqrt(1 + x^2 / (16 v_t)), which hardly differs within two
   standard deviations and ends at four: far out, where it never learned, it tells nothing, and the Gaussian
   brings the sample back. Beside a policy it gives V in units of the spread of -tau log p, tau sqrt(D/2) of a
   Gaussian: Adam's steps are then as large as what they change. */
static vgs_var vgs__value_net(const vgs_sampler *s, vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var u = x;
    if (vgs__value_has_base(s) && s->c.net.kind == VGS_NET_MLP && s->c.net.wrapper == VGS_WRAPPER_NONE) {
        u = vgs_mul(g, vgs_square(g, x), vgs__value_precision(s, g, t, 1.0 / 16.0));
        u = vgs__value_bounded(g, x, u, 1.0f);
    }
    u = vgs_model_apply(g, m, u, t);
    return vgs__config_is_policy(&s->c) ? vgs_affine(g, u, vgs__value_spread(s->tau, s->dim), 0.0f) : u;
}

/* tau |x|^2 / (2 v_t), the value of a Gaussian up to O(step) and a function of t: it keeps samples where they
   are until the network has learned. In coordinates of its own it is the exact one, with D/2 log v_t. */
static vgs_var vgs__value_base(const vgs_sampler *s, vgs_graph *g, vgs_var x, vgs_var t)
{
    double unit = s->c.scale_by_dim ? 1.0 / s->dim : 1.0;
    vgs_var square = vgs_sum_cols(g, vgs_square(g, x));
    vgs_var v = vgs_mul(g, square, vgs__value_precision(s, g, t, 0.5 * s->tau * unit));
    if (vgs__config_is_plain(&s->c)) return v;
    return vgs_add(g, v, vgs_affine(g, vgs_log(g, vgs__value_precision(s, g, t, 1.0)),
                                    (float)(-0.5 * s->dim * unit), 0.0f));
}

/* ---- what V knows of E: lambda_t R(x_T), R = E - |x_T|^2/2, at the x_T that the base expects ---- */

/* c_t [B,1] of the mean c_t x_t of x_T, or its standard deviation, where x_T ~ N(0, I). */
static vgs_var vgs__value_posterior(const vgs_sampler *s, vgs_graph *g, vgs_var t, bool deviation)
{
    float *k = (float *)vgs__alloc((size_t)s->c.steps, sizeof *k);
    double v = 1.0, a = 1.0;
    vgs_var out;
    int i;
    if (!k) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: value of %d steps", s->c.steps);
    for (i = s->c.steps - 1; i >= 0; --i) {
        v = vgs__value_chain_variance(s, i, v);
        a *= (double)s->a[i];
        k[i] = (float)(deviation ? sqrt(fmax(1.0 - 1.0 / (a * a * v), 0.0)) : 1.0 / (a * v));
    }
    out = vgs_gather(g, vgs_table(g, k, s->c.steps, 1), t);
    vgs__free(k);
    return out;
}

/* K points z_k around 0, each with its opposite: [1,K D]. */
static vgs_var vgs__value_points(const vgs_sampler *s, vgs_graph *g, int count)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)count * d, i;
    float *z = (float *)vgs__alloc(n, sizeof *z);
    vgs_rng r = { 0, VGS__FOR_POINTS, 0 };
    vgs_var v;
    if (!z) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: %d points", count);
    vgs_rng_normals(&r, z, (size_t)(count / 2) * d);
    for (i = 0; i < (size_t)(count / 2) * d; ++i) z[(size_t)(count / 2) * d + i] = -z[i];
    for (i = 0; s->c.energy.particles && i < (size_t)count; ++i)
        vgs__centre(z + i * d, s->c.energy.particles, (int)d / s->c.energy.particles);
    v = vgs_table(g, z, 1, (int)n);
    vgs__free(z);
    return v;
}

/* R [B,1] at x_T, E no more than the limit: what lies outside has no slope. */
static vgs_var vgs__value_excess(const vgs_sampler *s, vgs_graph *g, vgs_var x)
{
    vgs_var e = vgs_clamp(g, vgs_energy_of(g, s->energy, x), -FLT_MAX, s->feature_max);
    return vgs_sub(g, e, vgs_affine(g, vgs_sum_cols(g, vgs_square(g, x)), 0.5f, 0.0f));
}

/* With K > 1 points the mean of exp(-R) around there. */
static vgs_var vgs__value_feature(const vgs_sampler *s, vgs_graph *g, vgs_var x, vgs_var t)
{
    int n = s->c.energy_features, d = s->c.energy.dim;
    int32_t same[VGS__MOST_POINTS] = { 0 };
    vgs_var r, at = vgs_mul(g, x, vgs__value_posterior(s, g, t, false)), wide;
    vgs_var factor = vgs_gather(g, vgs__graph_bound_state(g, s->c.steps, 1, s->feature, 0), t);
    if (n == 1) r = vgs__value_excess(s, g, at);
    else {
        at = vgs_reshape(g, vgs_segment_gather(g, at, 1, same, n), n * d);
        wide = vgs_mul(g, vgs__value_points(s, g, n), vgs__value_posterior(s, g, t, true));
        r = vgs_reshape(g, vgs__value_excess(s, g, vgs_reshape(g, vgs_add(g, at, wide), d)), n);
        r = vgs_affine(g, vgs_logsumexp(g, vgs_affine(g, r, -1.0f, 0.0f)), -1.0f, (float)log((double)n));
    }
    if (s->c.scale_by_dim) r = vgs_affine(g, r, 1.0f / (float)s->dim, 0.0f);
    return vgs_mul(g, r, factor);
}

/* Returns how many energies V at n rows takes. */
static double vgs__value_calls(const vgs_sampler *s, double n)
{
    return s->c.energy_features > 0 ? n * s->c.energy_features : 0.0;
}

/* All of V but the network. */
static vgs_var vgs__value_part(const vgs_sampler *s, vgs_graph *g, vgs_var x, vgs_var t)
{
    vgs_var v = vgs__value_base(s, g, x, t);
    return s->c.energy_features > 0 ? vgs_add(g, v, vgs__value_feature(s, g, x, t)) : v;
}

/* V, or V/D if scale_by_dim. *part: all but the network, if wanted. */
static vgs_var vgs__value(const vgs_sampler *s, vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t,
                          vgs_var *part)
{
    vgs_var v = vgs__value_net(s, g, m, x, t), known;
    if (!vgs__value_has_base(s)) return v;
    known = vgs__value_part(s, g, x, t);
    if (part) *part = known;
    return vgs_add(g, v, known);
}

/* Vbar_t at all rows of x, for a t that is set at every run. */
static vgs_var vgs__value_at(const vgs_sampler *s, vgs_graph *g, vgs_var x, vgs_scalar t)
{
    int rows = 0, cols;
    vgs_shape(g, x, &rows, &cols);
    return vgs__value(s, g, s->target, x, vgs_fill_int(g, rows, t), NULL);
}

/* A gradient within the mean-free subspace. */
static vgs_var vgs__value_centred(const vgs_sampler *s, vgs_graph *g, vgs_var x)
{
    return vgs__config_is_particles(&s->c) ? vgs_remove_mean(g, x, s->c.energy.particles) : x;
}

/* ---- the value for users and for twisted SMC: scale V_t(x), and its gradient ---- */

typedef struct vgs__value_stage { vgs_graph *g; vgs_var x, v, grad; vgs_scalar t, scale; } vgs__value_stage;

static void vgs__value_record(const vgs_sampler *s, vgs__value_stage *st, bool with_grad)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = st->g;
    vgs_var v;
    st->x = vgs_input(g, s->c.energy.dim);
    st->v = vgs_state(g, -1, 1, VGS_F32);
    st->t = vgs_scalar_create(g, 0);
    st->scale = vgs_scalar_create(g, 1);
    v = vgs_affine_by(g, vgs__value_at(s, g, st->x, st->t), st->scale, none);
    vgs_assign(g, st->v, v);
    if (!with_grad) return;
    vgs_gradient(g, v, &st->x, 1, &st->grad);
    st->grad = vgs__value_centred(s, g, st->grad);
    vgs_output(g, st->grad);
}

/* V_t in energy units is scale times what the network gives. */
static void vgs__value_stage_set(const vgs_sampler *s, vgs__value_stage *st, int t, double unit)
{
    vgs_scalar_set(st->g, st->t, t);
    vgs_scalar_set(st->g, st->scale, (s->c.scale_by_dim ? s->dim : 1) * unit);
}

/* ==== >>policy: m(x,t) and sigma_t, recorded ========================================================= */

/* A number of each step, [B,1] by t; fill computes all T of them. */
typedef void vgs__step_fn(const vgs_sampler *s, float *out);
static vgs_var vgs__policy_by_step(const vgs_sampler *s, vgs_graph *g, vgs_var t, vgs__step_fn *fill)
{
    float *k = (float *)vgs__alloc((size_t)s->c.steps, sizeof *k);
    vgs_var v;
    if (!k) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: policy of %d steps", s->c.steps);
    fill(s, k);
    v = vgs_gather(g, vgs_table(g, k, s->c.steps, 1), t);
    vgs__free(k);
    return v;
}

/* The network sees x_t over its deviation, for samples of length_scale: under the noising chain, or on a
   bridge from 0. */
static void vgs__policy_fill_input(const vgs_sampler *s, float *out)
{
    const double var = (double)s->c.length_scale * (double)s->c.length_scale;
    double v = var, sum = 0.0, now = 0.0;
    int t;
    for (t = 0; t < s->c.steps; ++t) sum += (double)s->s2[t];
    for (t = s->c.steps - 1; t >= 0; --t) {
        v = vgs__value_chain_variance(s, t, v);
        out[t] = (float)(s->c.on_sphere ? 1.0 : 1.0 / sqrt(v));
    }
    for (t = 0; t < s->c.steps && vgs__config_from_zero(&s->c); now += (double)s->s2[t++]) {
        double share = now / sum;
        v = var * share * share + now * (1.0 - share);
        out[t] = (float)(1.0 / sqrt(t ? v : (double)s->s2[0]));
    }
}

/* The factor of the network's output: sigma_t^2 over the deviation of x_t, as large as a score times
   sigma_t^2 is [DIS], [PIS]; else -s_t^2 a_t/sqrt(w_t), w_t the variance of the noise from x_T back to t.
   Then it is what a denoising diffusion model learns, the noise in x_t: the mean of such a model is a_t x_t -
   s_t^2 a_t/sqrt(w_t) noise. */
static void vgs__policy_fill_scale(const vgs_sampler *s, float *out)
{
    const bool logvar = vgs__config_learns_by(&s->c, VGS_LOGVAR);
    double w = 0.0;
    int t;
    if (logvar) vgs__policy_fill_input(s, out);
    for (t = s->c.steps - 1; t >= 0; --t) {
        double s2 = (double)s->s2[t], a = (double)s->a[t];
        w = vgs__value_chain_variance(s, t, w);
        out[t] = (float)(logvar ? (double)out[t] * s2 * a * a : -s2 * a / sqrt(w));
    }
}

/* The noise that x_t is expected to have, over x_t, if samples are Gaussian with length_scale. */
static void vgs__policy_fill_guess(const vgs_sampler *s, float *out)
{
    double w = 0.0, v = (double)s->c.length_scale * (double)s->c.length_scale;
    int t;
    for (t = s->c.steps - 1; t >= 0; --t) {
        w = vgs__value_chain_variance(s, t, w);
        v = vgs__value_chain_variance(s, t, v);
        out[t] = (float)(sqrt(w) / v);
    }
}

static void vgs__policy_fill_noise(const vgs_sampler *s, float *out) /* of the chain: s_t a_t         */
{
    int t;
    for (t = 0; t < s->c.steps; ++t) out[t] = sqrtf(s->s2[t]) * s->a[t];
}

/* m before it is scaled: [B,D], at x and t [B,1]. An mlp sees u/sqrt(1 + u^2/16), u = x over its deviation,
   and so is blind beyond four of them, as the value's is: far out it tells nothing. The network adds to what
   is right for a Gaussian, but for logvar, where m is as in [DIS], and the sphere. */
static vgs_var vgs__policy_net(const vgs_sampler *s, vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t)
{
    vgs_var u = vgs_mul(g, x, vgs__policy_by_step(s, g, t, vgs__policy_fill_input));
    if (s->c.policy.kind == VGS_NET_MLP && !s->c.on_sphere)
        u = vgs__value_bounded(g, u, vgs_square(g, u), 1.0f / 16.0f);
    u = vgs_model_apply(g, m, u, t);
    if (s->c.on_sphere || vgs__config_learns_by(&s->c, VGS_LOGVAR)) return u;
    return vgs_add(g, u, vgs_mul(g, x, vgs__policy_by_step(s, g, t, vgs__policy_fill_guess)));
}

/* v less its part along x, |x| = 1; unlike vgs_sphere_tangent it has a gradient. */
static vgs_var vgs__policy_tangent(vgs_graph *g, vgs_var v, vgs_var x)
{
    return vgs_sub(g, v, vgs_mul(g, x, vgs_sum_cols(g, vgs_mul(g, v, x))));
}

static vgs_var vgs__policy_length_of(vgs_graph *g, vgs_var v)        /* of rows, with a gradient at 0 */
{
    return vgs_sqrt(g, vgs_affine(g, vgs_sum_cols(g, vgs_square(g, v)), 1.0f, 1e-20f));
}

/* m(x,t). slope, unless it is no value: (sigma_t^2/tau) grad E, as far as it counts. On the sphere m is
   tangent at x, and not longer than half a turn. */
static vgs_var vgs__policy_mean(const vgs_sampler *s, vgs_graph *g, vgs_model *m, vgs_var x, vgs_var t,
                                vgs_var slope)
{
    vgs_var v = vgs_mul(g, vgs__policy_net(s, g, m, x, t),
                        vgs__policy_by_step(s, g, t, vgs__policy_fill_scale)), most;
    if (vgs__exists(slope))
        v = vgs_add(g, v, vgs_mul(g, slope, vgs_gather(g, vgs_model_array(g, m, "of_energy"), t)));
    if (!s->c.on_sphere) return vgs__value_centred(s, g, v);
    v = vgs__policy_tangent(g, v, x);
    most = vgs_affine(g, vgs_reciprocal(g, vgs__policy_length_of(g, v)), (float)VGS__PI, 0.0f);
    return vgs_mul(g, v, vgs_clamp(g, most, 0.0f, 1.0f));
}

static vgs_var vgs__policy_log_sigma(vgs_graph *g, vgs_model *m, vgs_var t)
{
    return vgs_gather(g, vgs_model_array(g, m, "log_sigma"), t);
}

/* sigma_t over that of the chain. */
static vgs_var vgs__policy_sqrt_rho(const vgs_sampler *s, vgs_graph *g, vgs_model *m, vgs_var t)
{
    vgs_var sigma = vgs_gather(g, vgs_exp(g, vgs_model_array(g, m, "log_sigma")), t);
    return vgs_div(g, sigma, vgs__policy_by_step(s, g, t, vgs__policy_fill_noise));
}

/* Weights of the network alone: log sigma_t comes first after them. */
static int vgs__policy_net_size(const vgs_model *m)
{
    int i = 0;
    while (strcmp(m->net->info[i].name, "log_sigma")) ++i;
    return m->net->info[i].offset;
}

/* log sigma_t [T] of m into s->log_sigma. */
static vgs_status vgs__policy_read_sigma(const vgs_sampler *s, const vgs_model *m, vgs_error *err)
{
    return s->b->download(s->b->self, s->log_sigma, m->w, (size_t)vgs__policy_net_size(m), (size_t)s->c.steps,
                          VGS_F32, err);
}

/* Noise may be so much smaller or larger than the chain's; beyond, nothing is learned any more. */
#define VGS__SIGMA_RANGE 1000.0
static vgs_status vgs__policy_check_sigma(vgs_sampler *s, vgs_error *err)
{
    vgs_status st = vgs__policy_read_sigma(s, s->policy_on, err);
    int t;
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) {
        double chain = sqrt((double)s->s2[t]) * (double)s->a[t], sigma = exp((double)s->log_sigma[t]);
        if (sigma > chain * VGS__SIGMA_RANGE || !(sigma >= chain / VGS__SIGMA_RANGE))
            st = vgs__fail(err, VGS_E_NONFINITE, "train: sigma_t = %g at step %d of %d (iteration %lld): "
                           "must be %g..%g, 1/1000 to 1000 times the noise of the chain; step_sigma_lr is "
                           "too large, or entropy_tau wrong", sigma, t, s->c.steps, (long long)s->iteration,
                           chain / VGS__SIGMA_RANGE, chain * VGS__SIGMA_RANGE);
    }
    return st;
}

/* ==== >>kernel: one step from x_t to x_{t+1} ========================================================= */

/* Step t as a stage is told of it: x' = a_t x - mu + sigma_t sqrt(rho_t) eps. */
typedef struct vgs__kernel {
    vgs_graph *g;
    vgs_var kappa, sqrt_rho, flag;               /* [1,F], [1,F]; of the check                        */
    vgs_var noise_std, eigvec;                   /* local_noise: [B,D], [B,D D]; else no values       */
    vgs_var part;                                /* all of V but the network, where the drift is of V */
    vgs_scalar a, drift_scale, drift_max, sigma, neg_inv_sigma, noise_scale;
    vgs_scalar value_t;                          /* the drift is of V at this t                       */
    vgs_scalar fd_step, hess_scale;              /* of local_noise: h, and -s_t^2/(tau h)             */
    vgs_scalar least_inside;                     /* of targets: minus the least share of rows inside  */
    vgs_scalar step, row;                        /* for what a check says                             */
    vgs_model *policy;                           /* NULL: of the value                                */
    vgs_var slope;                               /* drift_energy: (sigma_t^2/tau) grad E, limited     */
} vgs__kernel;

#define VGS__OUTSIDE 1e30f                       /* an energy that no row has, whose sums are finite  */
#define VGS__WALL 0.4f                           /* in tau: what a step that led outside adds to V    */
#define VGS__RHO_MIN 0.6f                        /* of local_noise: a weight of half has no variance  */
#define VGS__RHO_MAX 4.0f
#define VGS__FD_STEP 0.25                        /* h in units of s_t                                 */
enum { VGS__BAD_LOSS, VGS__BAD_ENERGY, VGS__BAD_GRADIENT, VGS__BAD_VALUE, VGS__BAD_POLICY, VGS__BAD_OUTSIDE };

/* `learning`: with the policy that learns, in place of its average */
static void vgs__kernel_open(const vgs_sampler *s, vgs__kernel *k, vgs_graph *g, bool learning)
{
    memset(k, 0, sizeof *k);
    k->g = g;
    k->flag = vgs__model_flag(g, s->online);
    k->kappa = vgs__graph_bound_state(g, 1, s->factors, s->factor, 0);
    k->sqrt_rho = vgs__graph_bound_state(g, 1, s->factors, s->factor, (size_t)s->factors);
    k->a = vgs_scalar_create(g, 1);
    k->drift_scale = vgs_scalar_create(g, 1);
    k->drift_max = vgs_scalar_create(g, 1);
    k->sigma = vgs_scalar_create(g, 1);
    k->neg_inv_sigma = vgs_scalar_create(g, -1);
    k->noise_scale = vgs_scalar_create(g, 1);
    k->value_t = vgs_scalar_create(g, 0);
    k->fd_step = vgs_scalar_create(g, 1);
    k->hess_scale = vgs_scalar_create(g, 0);
    k->least_inside = vgs_scalar_create(g, 0);
    k->step = vgs_scalar_create(g, 0);
    k->row = vgs_scalar_create(g, 0);
    if (!vgs__config_is_policy(&s->c)) return;
    k->policy = learning ? s->policy_on : s->policy;
    k->sqrt_rho = vgs__policy_sqrt_rho(s, g, k->policy, vgs_fill_int(g, 1, k->step));
}

/* Returns whether the noise of a step differs from that of the chain. */
static bool vgs__kernel_has_rho(const vgs_sampler *s)
{
    return !s->c.fixed_kernel || vgs__config_is_policy(&s->c);
}

/* Leaves for the noise_std and eigvec that a rollout has stored. */
static void vgs__kernel_stored_noise(const vgs_sampler *s, vgs__kernel *k)
{
    int d = s->c.energy.dim;
    if (!s->c.local_noise) return;
    k->noise_std = vgs__graph_bound_state(k->g, -1, d, s->traj_noise_std, 0);
    k->eigvec = vgs__graph_bound_state(k->g, -1, d * d, s->traj_eigvec, 0);
}

static void vgs__kernel_bind_noise(const vgs_sampler *s, vgs__kernel *k, size_t row)
{
    size_t d = (size_t)s->c.energy.dim;
    if (!s->c.local_noise) return;
    vgs_bind(k->g, k->noise_std, s->traj_noise_std, row * d, NULL);
    vgs_bind(k->g, k->eigvec, s->traj_eigvec, row * d * d, NULL);
}

/* Returns whether the drift of step t is that of E. */
static bool vgs__kernel_last_by_energy(const vgs_sampler *s, int t)
{
    return t == s->c.steps - 1 && !s->last_by_value && !vgs__config_is_policy(&s->c);
}

/* Returns whether the drift of step t is of V_{t+1}, or E, at a_t x rather than of V_t at x. */
static bool vgs__kernel_looks_ahead(const vgs_sampler *s, int t)
{
    return s->c.explicit_drift || vgs__kernel_last_by_energy(s, t);
}

/* Step t, whose drift is of V_{value_t}: t, or t + 1 with the factor that the published drift has. */
static void vgs__kernel_set(const vgs_sampler *s, vgs__kernel *k, int t, int value_t, double noise_scale)
{
    size_t f = (size_t)s->factors;
    double s2 = (double)s->s2[t], a = (double)s->a[t], tau = s->tau, sigma = sqrt(s2) * a;
    double scale = s->c.scale_by_dim && value_t < s->c.steps && !vgs__config_is_policy(&s->c) ? s->dim : 1;
    double most = (double)s->c.drift_max * sigma * sqrt((double)s->dim);
    vgs_bind(k->g, k->kappa, s->factor, 2 * (size_t)t * f, NULL);
    vgs_bind(k->g, k->sqrt_rho, s->factor, (2 * (size_t)t + 1) * f, NULL);
    vgs_scalar_set(k->g, k->a, a);
    vgs_scalar_set(k->g, k->drift_scale, value_t == t ? s2 * a / tau * scale : sigma * sigma / tau * scale);
    vgs_scalar_set(k->g, k->drift_max, s->c.on_sphere && most > VGS__PI ? VGS__PI : most);
    vgs_scalar_set(k->g, k->sigma, sigma);
    vgs_scalar_set(k->g, k->neg_inv_sigma, -1.0 / sigma);
    vgs_scalar_set(k->g, k->noise_scale, noise_scale);
    vgs_scalar_set(k->g, k->value_t, value_t);
    vgs_scalar_set(k->g, k->step, t);
    vgs_scalar_set(k->g, k->fd_step, VGS__FD_STEP * sqrt(s2));
    vgs_scalar_set(k->g, k->hess_scale, -sqrt(s2) * scale / (VGS__FD_STEP * tau));
}

/* Step t of a draw, a rollout or a score. */
static void vgs__kernel_set_step(const vgs_sampler *s, vgs__kernel *k, int t, double noise_scale,
                                 uint32_t row)
{
    vgs__kernel_set(s, k, t, vgs__kernel_looks_ahead(s, t) ? t + 1 : t, noise_scale);
    vgs_scalar_set(k->g, k->row, row);
}

static void vgs__kernel_check(vgs__kernel *k, vgs_var x, int what)
{
    vgs__model_check_rows(k->g, x, k->flag, what, what == VGS__BAD_ENERGY, k->step, k->row);
}

/* ---- outside: where E is +infinity or NaN, behind a wall or in a hole ---- */

/* x where E is finite, 0 outside, whatever x is there. Minus infinity is no wall: checks find it. */
static vgs_var vgs__kernel_inside(vgs_graph *g, vgs_var x, vgs_var e)
{
    return vgs_mask_above(g, x, e, FLT_MAX);
}

/* x where E is finite, y outside; all [B,1], y finite or [1,1]. */
static vgs_var vgs__kernel_or_outside(vgs_graph *g, vgs_var x, vgs_var e, vgs_var y)
{
    vgs_var outside = vgs_affine(g, vgs__kernel_inside(g, vgs_fill(g, -1, 1, -1.0f), e), 1.0f, 1.0f);
    return vgs_add(g, vgs__kernel_inside(g, x, e), vgs_mul(g, outside, y));
}

/* eps [B,D], in the mean-free subspace for particles */
static vgs_var vgs__kernel_eps(const vgs_sampler *s, vgs_graph *g, const vgs_noise *n)
{
    return vgs__value_centred(s, g, vgs_normal(g, s->c.energy.dim, n));
}

/* ---- the drift ---- */

/* grad V at z, or in the last step grad E, which is taken as 0 outside */
static vgs_var vgs__kernel_grad(vgs_sampler *s, vgs__kernel *k, vgs_var z, bool last)
{
    vgs_graph *g = k->g;
    vgs_var e = vgs__no_var(), grad = e;
    bool cut = last && s->energy_max != 0.0f;
    int rows = 0, cols;
    vgs_shape(g, z, &rows, &cols);
    if (last) e = vgs_energy_of(g, s->energy, z);
    else e = vgs__value(s, g, s->target, z, vgs_fill_int(g, rows, k->value_t),
                        rows == -1 ? &k->part : NULL);               /* local_noise has more rows          */
    vgs_gradient(g, e, &z, 1, &grad);
    if (!last) return grad;
    vgs__kernel_check(k, e, VGS__BAD_ENERGY);
    if (cut && !vgs__config_last_drift_is_raw(&s->c)) return vgs_mask_above(g, grad, e, s->energy_max);
    grad = vgs__kernel_inside(g, grad, e);
    return cut ? vgs_clamp(g, grad, -1e15f, 1e15f) : grad;           /* squares stay finite           */
}

/* mu at x before kappa, from the gradient there */
static vgs_var vgs__kernel_drift(vgs_sampler *s, vgs__kernel *k, vgs_var x, vgs_var grad, bool last)
{
    vgs_graph *g = k->g;
    const vgs_scalar none = { 0 };
    bool invariant = s->c.net.wrapper != VGS_WRAPPER_NONE || vgs__net_is(s->c.net.kind, VGS__NET_INVARIANT);
    vgs_var mu = vgs_affine_by(g, grad, k->drift_scale, none);
    if (!invariant && !last) mu = vgs__value_centred(s, g, mu);
    if (s->c.on_sphere) mu = vgs_sphere_tangent(g, mu, x);
    if (s->c.drift_max < 1e30f || s->c.on_sphere) mu = vgs_limit_rows(g, mu, k->drift_max);
    vgs__kernel_check(k, mu, last ? VGS__BAD_GRADIENT : VGS__BAD_VALUE);
    return mu;
}

/* ---- local_noise ---- */

/* Each row D times over; or its adjoint, the sum of each D rows. */
static vgs_var vgs__kernel_copies(const vgs_sampler *s, vgs_graph *g, vgs_var x, bool sum)
{
    int d = s->c.energy.dim;
    int32_t *same = (int32_t *)vgs__alloc((size_t)d, sizeof *same);              /* zeros              */
    vgs_var v;
    if (!same) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: local_noise of %d dimensions", d);
    v = sum ? vgs_segment_sum(g, x, 1, same, d) : vgs_segment_gather(g, x, 1, same, d);
    vgs__free(same);
    return v;
}

/* The directions e_j of local_noise [1, D D]: unit vectors, for particles their mean-free parts. */
static vgs_var vgs__kernel_directions(const vgs_sampler *s, vgs_graph *g)
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

/* The exact reverse kernel has the covariance I - s_t^2 H/tau to first order, in units of s_t^2 a_t^2, H the
   Hessian of V_t: eigvec are its eigenvectors, noise_std the roots of its eigenvalues, clipped, for V may be
   wrong. H is from the gradients at x + h e_j and at x, their difference over h. */
static void vgs__kernel_local_noise(vgs_sampler *s, vgs__kernel *k, vgs_var x, vgs_var grad)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = k->g;
    int d = s->c.energy.dim;
    vgs_var e = vgs__kernel_directions(s, g), there, v;
    there = vgs_reshape(g, vgs__kernel_copies(s, g, x, false), d * d);
    there = vgs_reshape(g, vgs_add(g, there, vgs_affine_by(g, e, k->fd_step, none)), d);
    v = vgs__kernel_grad(s, k, there, false);
    v = vgs__value_centred(s, g, vgs_sub(g, v, vgs__kernel_copies(s, g, grad, false)));
    v = vgs_reshape(g, v, d * d);
    v = vgs__value_centred(s, g, v);           /* over the e_j, too: differences keep it to first order */
    v = vgs_clamp(g, vgs_affine_by(g, v, k->hess_scale, none), -1e6f, 1e6f);     /* squares stay finite */
    k->eigvec = vgs__eigen(g, v, d, &v);
    v = vgs_affine(g, v, 1.0f, 1.0f);
    k->noise_std = vgs_sqrt(g, vgs_clamp(g, v, VGS__RHO_MIN, VGS__RHO_MAX));
}

/* White noise eps as local_noise needs it: scaled by noise_std along each eigenvector; or back again. */
static vgs_var vgs__kernel_colour(const vgs_sampler *s, vgs__kernel *k, vgs_var eps, bool back)
{
    vgs_graph *g = k->g;
    int d = s->c.energy.dim;
    vgs_var eigvec, along;
    if (!vgs__exists(k->noise_std)) return eps;
    eigvec = vgs_reshape(g, k->eigvec, d);
    along = vgs_sum_cols(g, vgs_mul(g, vgs__kernel_copies(s, g, eps, false), eigvec));
    along = vgs_reshape(g, along, d);
    along = back ? vgs_div(g, along, k->noise_std) : vgs_mul(g, along, k->noise_std);
    return vgs__kernel_copies(s, g, vgs_mul(g, eigvec, vgs_reshape(g, along, 1)), true);
}

/* ---- the step ---- */

/* drift_energy: (sigma_t^2/tau) grad E at x, no longer than drift_max allows, 0 outside */
static vgs_var vgs__kernel_slope(vgs_sampler *s, vgs__kernel *k, vgs_var x)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = k->g;
    vgs_var e = vgs_energy_of(g, s->energy, x), grad = vgs__no_var();
    vgs_gradient(g, e, &x, 1, &grad);
    vgs__kernel_check(k, e, VGS__BAD_ENERGY);
    grad = vgs__kernel_inside(g, grad, e);
    vgs__kernel_check(k, grad, VGS__BAD_GRADIENT);
    return vgs_limit_rows(g, vgs_affine_by(g, vgs__value_centred(s, g, grad), k->drift_scale, none),
                          k->drift_max);
}

/* -m(x,t) */
static vgs_var vgs__kernel_policy_mu(vgs_sampler *s, vgs__kernel *k, vgs_var x)
{
    vgs_graph *g = k->g;
    vgs_var mu;
    if (s->c.drift_energy) k->slope = vgs__kernel_slope(s, k, x);
    mu = vgs__policy_mean(s, g, k->policy, x, vgs_fill_int(g, -1, k->step), k->slope);
    mu = vgs_affine(g, mu, -1.0f, 0.0f);
    vgs__kernel_check(k, mu, VGS__BAD_POLICY);
    return mu;
}

/* mu of the step from x, and the noise of local_noise. grad, unless it is no value: grad V_t(x), which the
   corrector has just computed. */
static vgs_var vgs__kernel_mu(vgs_sampler *s, vgs__kernel *k, vgs_var x, vgs_var grad, bool last)
{
    vgs_graph *g = k->g;
    const vgs_scalar none = { 0 };
    bool ahead = s->c.alpha == VGS_VP && (last || s->c.explicit_drift);
    vgs_var mu;
    if (k->policy) return vgs__kernel_policy_mu(s, k, x);
    if (!vgs__exists(grad)) grad = vgs__kernel_grad(s, k, ahead ? vgs_affine_by(g, x, k->a, none) : x, last);
    else if (s->c.scale_by_dim) grad = vgs_affine(g, grad, 1.0f / (float)s->dim, 0.0f);
    mu = vgs__kernel_drift(s, k, x, grad, last);
    if (s->c.local_noise && !last) vgs__kernel_local_noise(s, k, x, grad);
    return s->c.fixed_kernel ? mu : vgs_mul(g, mu, k->kappa);
}

/* The step in units of sigma: u = c sqrt(rho) eps - mu/sigma, so that x' = a x + sigma u. */
static vgs_var vgs__kernel_u(vgs_sampler *s, vgs__kernel *k, vgs_var mu, vgs_var eps)
{
    eps = vgs__kernel_colour(s, k, eps, false);
    if (vgs__kernel_has_rho(s)) eps = vgs_mul(k->g, eps, k->sqrt_rho);
    return vgs_combine_by(k->g, eps, k->noise_scale, mu, k->neg_inv_sigma);
}

/* x_{t+1}, where u leads from x; on the sphere along the great circle. */
static vgs_var vgs__kernel_move(vgs_sampler *s, vgs__kernel *k, vgs_var x, vgs_var u)
{
    const vgs_scalar none = { 0 };
    if (s->c.on_sphere) return vgs_sphere_move(k->g, x, vgs_affine_by(k->g, u, k->sigma, none));
    return vgs_combine_by(k->g, x, k->a, u, k->sigma);
}

/* log pi(x'|x) - log qt(x|x') without its constants: (|u|^2 - |eps|^2)/2 = (u - eps).(u + eps)/2, less the
   logarithms of noise_std */
static vgs_var vgs__kernel_cost(vgs__kernel *k, vgs_var u, vgs_var eps)
{
    vgs_graph *g = k->g;
    vgs_var v = vgs_mul(g, vgs_sub(g, u, eps), vgs_add(g, u, eps));
    v = vgs_affine(g, vgs_sum_cols(g, v), 0.5f, 0.0f);
    if (!vgs__exists(k->noise_std)) return v;
    return vgs_sub(g, v, vgs_sum_cols(g, vgs_log(g, k->noise_std)));
}

/* ---- densities on the sphere ---- */

/* The distance that moves of a step stay within, all but 1e-14 of them: the noise has a chi distribution;
   drifts end at pi. */
static double vgs__kernel_sphere_reach(const vgs_sampler *s, double s2)
{
    return sqrt(s2) * (sqrt((double)s->dim) + 8.0);
}

/* As vgs__kernel_cost, for the move sigma u and the drift -sigma m. A move of length L ends where those of
   L + 2 pi k, k an integer, along the same great circle end; with d = D - 1 the density there is
       sum_k N(move k; mean, sigma^2 I_d) (|L + 2 pi k| / sin L)^(d - 1),
   with the mean -mu of pi, and 0 of qt: sines and constants cancel. With n_k = -2 pi k/sigma and l = |u|,
       cost = u.m - |m|^2/2 + log sum_k exp(A_k - n_k u.m/l) - log sum_k exp A_k,
       A_k = n_k l - n_k^2/2 + (d - 1) log|1 - n_k/l|,
   where nothing large is subtracted: A_0 = 0, and a short move has no other k. The noise of a policy has rho
   times the variance of the chain's, so that the exponents of pi are over rho; without (d/2) log rho, which
   the weights count elsewhere, and with F_k = n_k l - n_k^2/2,
       cost = (u.m - |m|^2/2 - l^2/2)/rho + l^2/2
            + log sum_k exp(A_k + F_k (1/rho - 1) - n_k u.m/(l rho)) - log sum_k exp A_k. */
static vgs_var vgs__kernel_sphere_cost(const vgs_sampler *s, vgs__kernel *k, vgs_var u, vgs_var m)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = k->g;
    double reach = vgs__kernel_sphere_reach(s,
                                            (double)(s->c.s2_start > s->c.s2_end ? s->c.s2_start
                                                     : s->c.s2_end));
    int wraps = (int)ceil((VGS__PI + 2.0 * reach) / (2.0 * VGS__PI)), n = 2 * wraps + 1, i;
    float *turn = (float *)vgs__alloc((size_t)n, sizeof *turn);
    vgs_var um, l, along, a, far, cost, inv_rho = vgs__no_var();
    if (!turn) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: density of %d wraps", n);
    for (i = 0; i < n; ++i) turn[i] = (float)(2.0 * VGS__PI * (i - wraps));
    a = vgs_affine_by(g, vgs_table(g, turn, 1, n), k->neg_inv_sigma, none);
    vgs__free(turn);
    um = vgs_sum_cols(g, vgs_mul(g, u, m));
    cost = vgs_combine(g, um, 1.0f, vgs_sum_cols(g, vgs_square(g, m)), -0.5f);
    if (k->policy) {
        inv_rho = vgs_reciprocal(g, vgs_square(g, k->sqrt_rho));
        l = vgs_affine(g, vgs_sum_cols(g, vgs_square(g, u)), 0.5f, 0.0f);
        cost = vgs_add(g, vgs_mul(g, vgs_sub(g, cost, l), inv_rho), l);
        um = vgs_mul(g, um, inv_rho);
    }
    l = vgs_clamp(g, vgs_sqrt(g, vgs_sum_cols(g, vgs_square(g, u))), 1e-6f, FLT_MAX);
    along = vgs_mul(g, vgs_fill(g, -1, n, 1.0f), a);                 /* n_k, in all rows              */
    um = vgs_mul(g, along, vgs_div(g, um, l));
    a = vgs_affine(g, vgs_abs(g, vgs_affine(g, vgs_div(g, along, l), -1.0f, 1.0f)), 1.0f, 1e-30f);
    a = vgs_affine(g, vgs_log(g, a), (float)(s->dim - 1), 0.0f);
    far = vgs_mul(g, along, vgs_sub(g, l, vgs_affine(g, along, 0.5f, 0.0f)));
    a = vgs_add(g, a, far);
    if (k->policy) um = vgs_sub(g, um, vgs_mul(g, far, vgs_affine(g, inv_rho, 1.0f, -1.0f)));
    cost = vgs_add(g, cost, vgs_logsumexp(g, vgs_sub(g, a, um)));
    return vgs_sub(g, cost, vgs_logsumexp(g, a));
}

/* log qt(x0|x1), one step of the noising chain, in double. */
static double vgs__kernel_sphere_log_back(const vgs_sampler *s, int t, const float *x0, const float *x1)
{
    double apart = 0.0, across = 0.0, r, sine, sum = 0.0, top = -HUGE_VAL, s2 = (double)s->s2[t];
    int wraps = (int)ceil((VGS__PI + vgs__kernel_sphere_reach(s, s2)) / (2.0 * VGS__PI)), d = s->dim, j, k,
        pass;
    for (j = 0; j <= d; ++j) {
        apart += ((double)x0[j] - (double)x1[j]) * ((double)x0[j] - (double)x1[j]);
        across += ((double)x0[j] + (double)x1[j]) * ((double)x0[j] + (double)x1[j]);
    }
    r = 2.0 * atan2(sqrt(apart), sqrt(across));
    sine = fmax(sin(r), 1e-12);
    for (pass = 0; pass < 2; ++pass)
        for (k = -wraps; k <= wraps; ++k) {
            double rho = fabs(r + 2.0 * VGS__PI * k) + 1e-12;
            double v = (d - 1) * log(rho / sine) - rho * rho / (2.0 * s2);
            if (pass) sum += exp(v - top);
            else top = v > top ? v : top;
        }
    return top + log(sum) - 0.5 * d * log(2.0 * VGS__PI * s2);
}

/* log of the area of the unit sphere in D dimensions */
static double vgs__kernel_sphere_log_area(int dim)
{
    double v = dim % 2 ? log(2.0) : log(2.0 * VGS__PI);
    for (; dim > 2; dim -= 2) v += log(2.0 * VGS__PI / (dim - 2));
    return v;
}

/* eps, on the sphere in the plane that touches it at x */
static vgs_var vgs__kernel_eps_at(const vgs_sampler *s, vgs_graph *g, vgs_var x, const vgs_noise *n)
{
    vgs_var eps = vgs__kernel_eps(s, g, n);
    return s->c.on_sphere ? vgs_sphere_tangent(g, eps, x) : eps;
}

/* ==== >>rollout: trajectories ========================================================================= */

/* ---- start: x_0 = c s0 eps ---- */

typedef struct vgs__start_stage {
    vgs_graph *g;
    vgs_var x0;
    vgs_scalar scale;
    vgs_noise noise;
} vgs__start_stage;

static void vgs__start_record(const vgs_sampler *s, vgs__start_stage *st)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = st->g;
    vgs_var x;
    st->x0 = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->scale = vgs_scalar_create(g, 1);
    st->noise = vgs_noise_create(g);
    x = vgs_mul(g, vgs__kernel_eps(s, g, &st->noise), vgs__graph_bound_state(g, 1, 1, s->sigma, 0));
    x = s->c.on_sphere ? vgs_sphere_move(g, x, vgs__no_var()) : vgs_affine_by(g, x, st->scale, none);
    vgs_assign(g, st->x0, x);
}

/* ---- step: x_t to x_{t+1}, and what later stages need of it ---- */

typedef struct vgs__step_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var x, grad, next, mu, cost;             /* grad: of the corrector's step only                */
    vgs_var slope;                               /* drift_energy, while learning                      */
    vgs_var mu2;                                 /* published: |mu|^2, in place of the cost           */
    vgs_var part;                                /* all of V_t(x_t) but the network                   */
    vgs_var noise_std, eigvec;
    vgs_noise noise;
} vgs__step_stage;

/* V at x_t is what the network gives and what a rollout stores beside: fits and targets need not evaluate it,
   nor E, again. */
static bool vgs__step_stores_part(const vgs_sampler *s) { return !vgs__config_is_plain(&s->c); }

static void vgs__step_store_part(const vgs_sampler *s, vgs__step_stage *st)
{
    vgs_graph *g = st->g;
    int rows = 0, cols;
    vgs_shape(g, st->x, &rows, &cols);
    st->part = vgs_state(g, -1, 1, VGS_F32);
    if (!vgs__exists(st->k.part))                /* the drift is of E, or was known                   */
        st->k.part = vgs__value_part(s, g, st->x, vgs_fill_int(g, rows, st->k.step));
    vgs_assign(g, st->part, st->k.part);
}

static void vgs__step_record(vgs_sampler *s, vgs__step_stage *st, bool last, bool corrected, bool learning)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    const vgs_scalar none = { 0 };
    int d = s->c.energy.dim;
    vgs_var mu, eps, u;
    vgs__kernel_open(s, k, g, learning);
    st->noise = vgs_noise_create(g);
    st->x = vgs_input(g, d);
    if (corrected) st->grad = vgs_state(g, -1, d, VGS_F32);
    st->next = vgs_state(g, -1, d, VGS_F32);
    st->mu = vgs_state(g, -1, d, VGS_F32);
    st->mu2 = vgs_state(g, -1, 1, VGS_F32);
    st->cost = vgs_state(g, -1, 1, VGS_F32);
    mu = vgs__kernel_mu(s, k, st->x, st->grad, last);
    eps = vgs__kernel_eps_at(s, g, st->x, &st->noise);
    u = vgs__kernel_u(s, k, mu, eps);
    vgs_assign(g, st->mu, mu);
    if (learning && vgs__exists(k->slope)) {
        st->slope = vgs_state(g, -1, d, VGS_F32);
        vgs_assign(g, st->slope, k->slope);
    }
    if (s->c.published) vgs_assign(g, st->mu2, vgs_sum_cols(g, vgs_square(g, mu)));
    if (s->c.local_noise) {
        st->noise_std = vgs_state(g, -1, d, VGS_F32);
        st->eigvec = vgs_state(g, -1, d * d, VGS_F32);
    }
    if (vgs__exists(k->noise_std)) {
        vgs_assign(g, st->noise_std, k->noise_std);
        vgs_assign(g, st->eigvec, k->eigvec);
    }
    vgs_assign(g, st->cost, s->c.on_sphere
                   ? vgs__kernel_sphere_cost(s, k, u, vgs_affine_by(g, mu, k->neg_inv_sigma, none))
                   : vgs__kernel_cost(k, u, eps));
    if (vgs__step_stores_part(s)) vgs__step_store_part(s, st);
    vgs_assign(g, st->next, vgs__kernel_move(s, k, st->x, u));
}

/* ---- rolling out ---- */

typedef struct vgs__corrector vgs__corrector;    /* >>draw                                            */

typedef struct vgs__roll {                       /* where and how trajectories are rolled out         */
    int n, start_stream, step_stream;
    uint64_t seed, iteration;
    uint32_t first_row;
    double start_scale, step_scale, last_scale;  /* of the noise of x_0, of the steps, of the last    */
    int detour;                                  /* steps before this one have start_scale, or only   */
    bool recalled;                               /* tell the drift: x_t is there already              */
    const float *start;                          /* NULL, or [n,D]: x_0                               */
    bool placed;                                 /* x_0 is in place                                   */
    bool learning;                               /* by the policy that learns, not by its average     */
    vgs_buffer *x, *mu, *mu2, *cost, *part, *noise_std, *eigvec;
    vgs__corrector *corrector;                   /* NULL: none                                        */
    size_t x_first;                              /* row of x where this block begins                  */
    size_t x_stride, mu_stride;                  /* rows from one step's place to the next one's      */
    int x_places;                                /* steps + 1, or 2: take turns                       */
} vgs__roll;

/* The place of x_t of a block in r->x. */
static size_t vgs__roll_place(const vgs_sampler *s, const vgs__roll *r, int t)
{
    return ((size_t)(t % r->x_places) * r->x_stride + r->x_first) * (size_t)s->c.energy.dim;
}

static vgs_status vgs__start_run(vgs_sampler *s, vgs__start_stage *st, const vgs__roll *r, vgs_error *err)
{
    size_t place = vgs__roll_place(s, r, 0);
    if (r->placed) return VGS_OK;
    if (r->start)
        return s->b->upload(s->b->self, r->x, place, r->start, (size_t)r->n * (size_t)s->c.energy.dim,
                            VGS_F32, err);
    vgs_bind(st->g, st->x0, r->x, place, NULL);
    vgs_scalar_set(st->g, st->scale, vgs__config_from_zero(&s->c) ? 0.0 : r->start_scale);
    vgs_noise_set(st->g, &st->noise, r->seed, r->start_stream, (int64_t)r->iteration, 0, r->first_row);
    return vgs_graph_run(st->g, r->n, err);
}

static void vgs__step_bind(const vgs_sampler *s, vgs__step_stage *st, const vgs__roll *r, int t)
{
    size_t d = (size_t)s->c.energy.dim, row = (size_t)t * r->mu_stride;
    vgs_bind(st->g, st->x, r->x, vgs__roll_place(s, r, t), NULL);
    vgs_bind(st->g, st->next, r->x, vgs__roll_place(s, r, t + 1), NULL);
    vgs_bind(st->g, st->mu, r->mu, row * d, NULL);
    vgs_bind(st->g, st->mu2, r->mu2, row, NULL);
    vgs_bind(st->g, st->cost, r->cost, row, NULL);
    if (vgs__step_stores_part(s)) vgs_bind(st->g, st->part, r->part, row, NULL);
    if (vgs__exists(st->slope)) vgs_bind(st->g, st->slope, s->traj_slope, row * d, NULL);
    if (!s->c.local_noise) return;
    vgs_bind(st->g, st->noise_std, r->noise_std, row * d, NULL);
    vgs_bind(st->g, st->eigvec, r->eigvec, row * d * d, NULL);
}

static void vgs__roll_see(vgs_sampler *s, const vgs__roll *r)
{
    s->seen.x = r->x;
    s->seen.from = vgs__roll_place(s, r, s->c.steps - 1);
    s->seen.to = vgs__roll_place(s, r, s->c.steps);
    s->seen.first_row = r->first_row;
    s->seen.n = r->n;
}

static vgs_status vgs__step_run(vgs_sampler *s, vgs__step_stage *st, const vgs__roll *r, int t,
                                vgs_error *err)
{
    bool last = t == s->c.steps - 1;
    vgs__step_bind(s, st, r, t);
    if (last) vgs__roll_see(s, r);
    if (r->recalled && t < r->detour) vgs_bind(st->g, st->next, s->draw_x, 0, NULL);
    vgs__kernel_set_step(s, &st->k, t, last ? r->last_scale : t < r->detour ? r->start_scale : r->step_scale,
                         r->first_row);
    vgs_noise_set(st->g, &st->noise, r->seed, r->step_stream, (int64_t)r->iteration, t, r->first_row);
    return vgs_graph_run(st->g, r->n, err);
}

/* E [n] of host rows, in double from an energy in double; +infinity wherever they are outside. */
static vgs_status vgs__sampler_energies(vgs_sampler *s, const float *x, int n, double *e, vgs_error *err)
{
    vgs_status st = vgs__evaluator_run(&s->energies, x, n, e, NULL, err);
    int i;
    for (i = 0; i < n && st == VGS_OK; ++i) if (!(e[i] <= DBL_MAX)) e[i] = HUGE_VAL;
    return st;
}

/* Is E minus infinity at x [D], or, where it is finite, a component of its gradient g [D] not? Then text, of
   the place and the gradient in x, which x and g become. */
static bool vgs__roll_energy_text(vgs_sampler *s, float *x, float *g, char text[200])
{
    int d = s->c.energy.dim, shown = d < 4 ? d : 4, j = 0, at;
    double e;
    if (vgs__evaluator_run(&s->energies, x, 1, &e, g, NULL) != VGS_OK || !(e <= DBL_MAX)) return false;
    while (e >= -DBL_MAX && j < d && vgs__finite((double)g[j])) ++j;
    if (j == d) return false;
    e = vgs__frame_energy(&s->frame, x, e);
    vgs__frame_slopes(&s->frame, x, g, 1);
    vgs__frame_rows(&s->frame, VGS__TO_X, x, 1);
    for (j = 0; j + 1 < d && vgs__finite((double)g[j]); ) ++j;
    at = e >= -DBL_MAX ? snprintf(text, 200, "; E = %g, dE/dx[%d] = %g at x = (", e, j, (double)g[j])
                       : snprintf(text, 200, "; E = %g at x = (", e);
    for (j = 0; j < shown; ++j)
        at += snprintf(text + at, 200 - (size_t)at, "%s%g", j ? ", " : "", (double)x[j]);
    snprintf(text + at, 200 - (size_t)at, "%s", shown < d ? ", ...)" : ")");
    return true;
}

/* A sentence on E at a row of the last step where a check found it bad: at a x_{T-1}, or at x_T. Empty if the
   row is gone, or E says something else now. */
static void vgs__roll_describe_row(vgs_sampler *s, uint32_t row, char text[200])
{
    size_t d = (size_t)s->c.energy.dim, at = (size_t)(row - s->seen.first_row) * d, j;
    float *x = row - s->seen.first_row < (uint32_t)s->seen.n ? (float *)vgs__alloc(2 * d, sizeof *x) : NULL;
    int k;
    text[0] = '\0';
    for (k = 0; x && k < 2 && !text[0]; ++k) {
        size_t place = k ? s->seen.to : s->seen.from;
        if (s->b->download(s->b->self, x, s->seen.x, place + at, d, VGS_F32, NULL) != VGS_OK) break;
        for (j = 0; j < d && !k; ++j) x[j] *= s->a[s->c.steps - 1];
        if (!vgs__roll_energy_text(s, x, x + d, text)) text[0] = '\0';
    }
    vgs__free(x);
}

/* Reads the flag; if it is set, clears it and tells what was found. */
static vgs_status vgs__sampler_read_flag(vgs_sampler *s, const char *doing, vgs_error *err)
{
    static const char *const what[] = { "the loss", "the energy", "the energy's gradient",
                                        "the value network", "the policy network" };
    int32_t f[4];
    char text[200] = "";
    vgs_status st = vgs__model_read_flag(s->online, f, err);
    if (st != VGS_OK || !f[0]) return st;
    if (f[3] == VGS__BAD_OUTSIDE)
        return vgs__fail(err, VGS_E_NONFINITE, "%s: the energy is infinite or NaN at %s %d rows of a batch "
                         "(iteration %lld): nothing says where it is finite", doing,
                         s->outside_max < 1.0 ? "half or more of the" : "all", s->c.batch,
                         (long long)s->iteration);
    if (f[3] == VGS__BAD_ENERGY || f[3] == VGS__BAD_GRADIENT) vgs__roll_describe_row(s, (uint32_t)f[1], text);
    return vgs__fail(err, VGS_E_NONFINITE, "%s: %s is not finite at row %u, step %d of %d (iteration %lld)%s",
                     doing, what[f[3] < 0 || f[3] > VGS__BAD_POLICY ? 0 : f[3]], (unsigned)f[1], (int)f[2],
                     s->c.steps, (long long)s->iteration, text);
}

/* ==== >>mala: Metropolis-adjusted Langevin steps ====================================================== */

/* On E for samples that are kept, on V_t for draws, in ops of any backend; mala of vgs_mcmc is one leapfrog
   step in the host's arithmetic (vgs__mcmc_leap), with a step for each level of a ladder. `begin` computes
   the potential and its gradient where the rows stand, `step` moves them. */
typedef struct vgs__mala_begin_stage {
    vgs_graph *g;
    vgs_var from, x, e, grad;                    /* the rows [B,D]; of E, x: their copy; what is there */
    vgs_scalar t;                                /* of V                                              */
} vgs__mala_begin_stage;

typedef struct vgs__mala_step_stage {
    vgs_graph *g;
    vgs_var x, e, grad, h;                       /* where they stand, what is there; the step [1,1]   */
    vgs_scalar t, rate, rate_add;                /* of V; how h follows acceptance                    */
    vgs_noise noise, accept;
} vgs__mala_step_stage;

#define VGS__MALA_RATE 0.1

/* E, or V_t, at x, and its gradient; outside E is so high that no row goes there, and flat, so that a row
   from there comes back by chance. */
static vgs_var vgs__mala_potential(vgs_sampler *s, vgs_graph *g, vgs_scalar t, vgs_var x, bool value,
                                   vgs_var *grad)
{
    vgs_var v = value ? vgs__value_at(s, g, x, t) : vgs_energy_of(g, s->energy, x);
    if (value && s->c.scale_by_dim) v = vgs_affine(g, v, (float)s->dim, 0.0f);
    *grad = vgs__no_var();
    vgs_gradient(g, v, &x, 1, grad);
    if (value) {
        *grad = vgs__value_centred(s, g, *grad);
        return v;
    }
    *grad = vgs__kernel_inside(g, *grad, v);
    return vgs__kernel_or_outside(g, v, v, vgs_fill(g, 1, 1, VGS__OUTSIDE));
}

static void vgs__mala_begin_record(vgs_sampler *s, vgs__mala_begin_stage *st, bool value)
{
    vgs_graph *g = st->g;
    vgs_var grad, v;
    st->from = vgs_input(g, s->c.energy.dim);
    if (!value) st->x = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->e = vgs_state(g, -1, 1, VGS_F32);
    st->grad = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->t = vgs_scalar_create(g, 0);
    v = vgs__mala_potential(s, g, st->t, st->from, value, &grad);
    if (!value) vgs_assign(g, st->x, st->from);  /* a copy: `from` stays as it is                     */
    vgs_assign(g, st->e, v);
    vgs_assign(g, st->grad, grad);
}

/* The rows at `place` of `from`; x, unless NULL: where their copy goes. */
static vgs_status vgs__mala_begin_run(vgs__mala_begin_stage *st, int n, vgs_buffer *from, size_t place,
                                      vgs_buffer *x, vgs_buffer *e, vgs_buffer *grad, vgs_error *err)
{
    vgs_bind(st->g, st->from, from, place, NULL);
    if (x) vgs_bind(st->g, st->x, x, 0, NULL);
    vgs_bind(st->g, st->e, e, 0, NULL);
    vgs_bind(st->g, st->grad, grad, 0, NULL);
    return vgs_graph_run(st->g, n, err);
}

/* x where d <= 0, else 0 */
static vgs_var vgs__mala_accepted(vgs_graph *g, vgs_var x, vgs_var d)
{
    return vgs_mask_above(g, x, d, 0.0f);
}

static void vgs__mala_step_leaves(const vgs_sampler *s, vgs__mala_step_stage *st)
{
    vgs_graph *g = st->g;
    st->x = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->e = vgs_state(g, -1, 1, VGS_F32);
    st->grad = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->h = vgs_state(g, 1, 1, VGS_F32);
    st->t = vgs_scalar_create(g, 0);
    st->rate = vgs_scalar_create(g, VGS__MALA_RATE);
    st->rate_add = vgs_scalar_create(g, -VGS__MALA_RATE * VGS__MALA_ACCEPTANCE);
    st->noise = vgs_noise_create(g);
    st->accept = vgs_noise_create(g);
}

static void vgs__mala_step_bind(vgs__mala_step_stage *st, vgs_buffer *x, size_t place, vgs_buffer *e,
                                vgs_buffer *grad, vgs_buffer *h, size_t h_at)
{
    vgs_bind(st->g, st->x, x, place, NULL);
    vgs_bind(st->g, st->e, e, 0, NULL);
    vgs_bind(st->g, st->grad, grad, 0, NULL);
    vgs_bind(st->g, st->h, h, h_at, NULL);
}

/* x' = x - h g/tau + sqrt(2h) xi, accepted if -log(alpha) <= an exponential number, half the square of two
   normal ones. h follows the share of accepted rows to VGS__MALA_ACCEPTANCE, or stays where the rate is 0. */
static void vgs__mala_step_record(vgs_sampler *s, vgs__mala_step_stage *st, bool value)
{
    vgs_graph *g = st->g;
    vgs_var xi, width, drift, move, x, v, grad, back, d, share, h;
    vgs__mala_step_leaves(s, st);
    xi = vgs__kernel_eps(s, g, &st->noise);
    width = vgs_sqrt(g, vgs_affine(g, st->h, 2.0f, 0.0f));
    drift = vgs_affine(g, vgs_div(g, st->h, width), 1.0f / (float)s->tau, 0.0f);      /* of xi              */
    move = vgs_mul(g, vgs_sub(g, xi, vgs_mul(g, st->grad, drift)), width);
    x = vgs_add(g, st->x, move);
    v = vgs__mala_potential(s, g, st->t, x, value, &grad);
    back = vgs_sub(g, vgs_mul(g, grad, drift), vgs_div(g, move, width));         /* xi of x' -> x      */
    d = vgs_mul(g, vgs_sub(g, back, xi), vgs_add(g, back, xi));
    d = vgs_affine(g, vgs_sum_cols(g, d), 0.5f, 0.0f);
    d = vgs_add(g, d, vgs_affine(g, vgs_sub(g, v, st->e), 1.0f / (float)s->tau, 0.0f));
    share = vgs_sum_cols(g, vgs_square(g, vgs_normal(g, 2, &st->accept)));
    d = vgs_sub(g, d, vgs_affine(g, share, 0.5f, 0.0f));
    share = vgs_mean_rows(g, vgs__mala_accepted(g, vgs_fill(g, -1, 1, 1.0f), d));
    h = vgs_mul(g, st->h, vgs_exp(g, vgs_affine_by(g, share, st->rate, st->rate_add)));
    move = vgs_add(g, st->x, vgs__mala_accepted(g, move, d));
    v = vgs_add(g, st->e, vgs__mala_accepted(g, vgs_sub(g, v, st->e), d));
    grad = vgs_add(g, st->grad, vgs__mala_accepted(g, vgs_sub(g, grad, st->grad), d));
    vgs_assign(g, st->x, move);
    vgs_assign(g, st->e, v);
    vgs_assign(g, st->grad, grad);
    vgs_assign(g, st->h, h);
}

static vgs_status vgs__mala_step_run(vgs__mala_step_stage *st, int n, uint64_t seed, int stream,
                                     int accept_stream, int64_t iteration, int step, uint32_t first_row,
                                     vgs_error *err)
{
    vgs_noise_set(st->g, &st->noise, seed, stream, iteration, step, first_row);
    vgs_noise_set(st->g, &st->accept, seed, accept_stream, iteration, step, first_row);
    return vgs_graph_run(st->g, n, err);
}

/* ==== >>fit: TD targets, fits, updates ================================================================ */

/* Returns follow the trajectory, and serve all passes. Where the trajectory is not the sampler's own, and as
   published, a target is one step of fresh noise, for a whole pass at once, t by t: every transition is used
   once a pass, so that E is called for the rows of t = T-1 only. */

/* ---- return: y_t along the trajectory ---- */

typedef struct vgs__return_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var x, next, cost, later, y;             /* x_t; x_{t+1}; c_t; y_{t+1}/D; y_t/D               */
    vgs_var part;                                /* of V at x_{t+1}                                   */
    vgs_var later_path, path;                    /* replay: what a path costs from t+1 and t on, with E */
    vgs_var grad_out;                            /* last, slope_loss: what grad V_{T-1} should be     */
    vgs_scalar value_scale, cost_scale, cost_add;
} vgs__return_stage;

/* The value that targets look at: dxdp has no target network. */
static vgs_model *vgs__target_value(const vgs_sampler *s)
{
    return vgs__config_learns_by(&s->c, VGS_DXDP) ? s->online : s->target;
}

/* The most that E counts for outside, [1,1]: energy_max if there is one, else the mean of the energies
   inside, more three times their mean distance from it, more 10 tau. Nothing is learned where the share of
   rows outside reaches s->outside_max. */
static vgs_var vgs__target_ceiling(vgs_sampler *s, vgs__kernel *k, vgs_var e)
{
    vgs_graph *g = k->g;
    const vgs_scalar none = { 0 };
    vgs_var share = vgs_mean_rows(g, vgs__kernel_inside(g, vgs_fill(g, -1, 1, 1.0f), e)), mean, far;
    mean = vgs_log(g, vgs_affine_by(g, share, none, k->least_inside));   /* not finite up to 0         */
    vgs__kernel_check(k, mean, VGS__BAD_OUTSIDE);
    if (s->energy_max != 0.0f) return vgs_fill(g, 1, 1, s->energy_max);
    mean = vgs_div(g, vgs_mean_rows(g, vgs__kernel_inside(g, e, e)), share);
    far = vgs_div(g, vgs_mean_rows(g, vgs__kernel_inside(g, vgs_abs(g, vgs_sub(g, e, mean)), e)), share);
    far = vgs_affine(g, far, 3.0f, 10.0f * (float)s->tau);
    return vgs_clamp(g, vgs_add(g, mean, far), -VGS__OUTSIDE, VGS__OUTSIDE);
}

/* y_{T-1}/D where the step from x led outside: V(x) + VGS__WALL tau, or the ceiling. A share p of such rows
   raises V(x) by p/(1 - p) times that, which follows -tau log(1 - p), what the wall takes from the target
   there: with 0.4 up to p = 0.8. Where all are outside V rises until the ceiling. (Measured on truncated
   Gaussians, ESS/N: the ceiling alone, for all of these rows, .26 to .34, samples pass or V bends far from
   the wall; 0.7 .36 to .51, 0.3 .34 to .68, 0.15 .30 to .65.) */
static vgs_var vgs__target_outside(vgs_sampler *s, vgs__kernel *k, vgs_var x, vgs_var e)
{
    vgs_graph *g = k->g;
    float per_dim = 1.0f / (float)s->dim;
    vgs_var most = vgs_affine(g, vgs__target_ceiling(s, k, e), per_dim, 0.0f);
    vgs_var v = vgs__value(s, g, vgs__target_value(s), x, vgs_fill_int(g, -1, k->step), NULL);
    v = vgs_affine(g, v, s->c.scale_by_dim ? 1.0f : per_dim, VGS__WALL * (float)s->tau * per_dim);
    v = vgs_sub(g, v, most);                     /* up to 0                                           */
    return vgs_add(g, vgs_clamp(g, v, -FLT_MAX, 0.0f), most);
}

/* y_{T-1}/D of all rows from that of those inside; the step from x led to energies e. */
static vgs_var vgs__target_last(vgs_sampler *s, vgs__kernel *k, vgs_var x, vgs_var e, vgs_var y)
{
    return vgs__kernel_or_outside(k->g, y, e, vgs__target_outside(s, k, x, e));
}

/* E or V at x', in units of D, E cut at energy_max; *energy: E itself, if `last`. part: of V there, if it is
   known. */
static vgs_var vgs__target_next(vgs_sampler *s, vgs__kernel *k, vgs_var next, vgs_var part, bool last,
                                vgs_scalar scale, vgs_var *energy)
{
    vgs_graph *g = k->g;
    const vgs_scalar none = { 0 };
    vgs_var v;
    int rows = 0, cols;
    vgs_shape(g, next, &rows, &cols);
    if (!last && vgs__exists(part)) {
        v = vgs__value_net(s, g, s->target, next, vgs_fill_int(g, rows, k->value_t));
        return vgs_affine_by(g, vgs_add(g, v, part), scale, none);
    }
    if (!last) {
        v = vgs__value(s, g, vgs__target_value(s), next, vgs_fill_int(g, rows, k->value_t), NULL);
        return vgs_affine_by(g, v, scale, none);
    }
    v = vgs_energy_of(g, s->energy, next);
    vgs__kernel_check(k, v, VGS__BAD_ENERGY);
    *energy = v;
    if (s->energy_max != 0.0f) v = vgs_clamp(g, v, -FLT_MAX, s->energy_max);
    return vgs_affine_by(g, v, scale, none);
}

/* tau log(rho) / 2, in units of D; no value where rho is 1 */
static vgs_var vgs__target_log_rho(const vgs_sampler *s, vgs__kernel *k)
{
    if (s->c.fixed_kernel) return vgs__no_var();
    return vgs_affine(k->g, vgs_mean_cols(k->g, vgs_log(k->g, k->sqrt_rho)), (float)s->tau, 0.0f);
}

/* later + cost - log_rho */
static vgs_var vgs__target_sum(vgs_graph *g, vgs_var later, vgs_var cost, vgs_var log_rho)
{
    vgs_var y = vgs_add(g, later, cost);
    return vgs__exists(log_rho) ? vgs_sub(g, y, log_rho) : y;
}

/* For the exact value grad V_t is the mean of a_t grad V_{t+1}(x_{t+1}), and of a_t grad E(x_T) for t = T-1:
   its target follows the trajectory as that of V does. Here the one of the last step. */
static void vgs__return_last_grad(vgs_sampler *s, vgs__return_stage *st, vgs_var energy)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs_var grad = vgs__no_var();
    vgs_gradient(g, energy, &st->next, 1, &grad);
    grad = vgs_mask_above(g, grad, energy, s->energy_max != 0.0f ? s->energy_max : FLT_MAX);
    vgs__kernel_check(&st->k, grad, VGS__BAD_GRADIENT);
    vgs_assign(g, st->grad_out, vgs_affine_by(g, grad, st->k.a, none));
}

/* y_t/D = (1 - lambda) V(x_{t+1})/D + lambda y_{t+1}/D + cost_scale cost + cost_add, with the cost that the
   path had: of the same mean as the expected one, but V(x_{t+1}) + cost hardly depends on the noise that led
   to x_{t+1}. */
static void vgs__return_record(vgs_sampler *s, vgs__return_stage *st, bool last)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs__kernel *k = &st->k;
    vgs_var y, cost, log_rho, next = vgs__no_var(), energy = next;
    bool looks = last || s->c.lambda < 1.0f;     /* at what comes next, beside the later return        */
    vgs__kernel_open(s, k, g, false);
    st->next = vgs_input(g, s->c.energy.dim);
    st->x = vgs_input(g, s->c.energy.dim);
    st->cost = vgs_state(g, -1, 1, VGS_F32);
    st->later = vgs_state(g, -1, 1, VGS_F32);
    st->y = vgs_state(g, -1, 1, VGS_F32);
    st->later_path = vgs_state(g, -1, 1, VGS_F32);
    st->path = vgs_state(g, -1, 1, VGS_F32);
    st->grad_out = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->value_scale = vgs_scalar_create(g, 1);
    st->cost_scale = vgs_scalar_create(g, 1);
    st->cost_add = vgs_scalar_create(g, 0);
    if (vgs__step_stores_part(s) && !last) st->part = vgs_state(g, -1, 1, VGS_F32);
    if (looks) next = vgs__target_next(s, k, st->next, st->part, last, st->value_scale, &energy);
    y = last ? next : st->later;
    if (!last && looks) y = vgs_combine(g, y, s->c.lambda, next, 1.0f - s->c.lambda);
    cost = vgs_affine_by(g, st->cost, st->cost_scale, st->cost_add);
    log_rho = vgs__target_log_rho(s, k);
    y = vgs__target_sum(g, y, cost, log_rho);
    if (last) y = vgs__target_last(s, k, st->x, energy, y);
    vgs__kernel_check(k, y, VGS__BAD_VALUE);
    vgs_assign(g, st->y, y);
    if (s->c.replay) {
        y = st->later_path;
        if (last) {
            y = vgs__kernel_or_outside(g, energy, energy, vgs_fill(g, 1, 1, VGS__OUTSIDE));  /* weight 0 */
            y = vgs_affine_by(g, y, st->value_scale, none);
        }
        vgs_assign(g, st->path, vgs__target_sum(g, y, cost, log_rho));
    }
    if (s->c.slope_loss > 0.0f && last) vgs__return_last_grad(s, st, energy);
}

/* Sets the factors by which costs and values of step t become y_t/D. */
static void vgs__target_set(const vgs_sampler *s, vgs__kernel *k, int t, vgs_scalar value_scale)
{
    vgs__kernel_set(s, k, t, t + 1, 1.0);
    vgs_scalar_set(k->g, k->least_inside, s->outside_max - 1.0);
    vgs_scalar_set(k->g, value_scale, t == s->c.steps - 1 || !s->c.scale_by_dim ? 1.0 / s->dim : 1.0);
}

static vgs_status vgs__return_run(vgs_sampler *s, vgs__return_stage *st, int t, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, b = (size_t)s->c.batch, row = (size_t)t * b;
    bool last = t == s->c.steps - 1;
    if (last) vgs_bind(st->g, st->x, s->traj_x, row * d, NULL);
    vgs_bind(st->g, st->next, s->traj_x, (row + b) * d, NULL);
    if (!last) vgs_bind(st->g, st->later, s->traj_y, row + b, NULL);
    if (!last && vgs__step_stores_part(s)) vgs_bind(st->g, st->part, s->traj_part, row + b, NULL);
    vgs_bind(st->g, st->cost, s->traj_cost, row, NULL);
    vgs_bind(st->g, st->y, s->traj_y, row, NULL);
    if (s->c.replay && !last) vgs_bind(st->g, st->later_path, s->traj_path, row + b, NULL);
    if (s->c.replay) vgs_bind(st->g, st->path, s->traj_path, row, NULL);
    if (s->c.slope_loss > 0.0f) vgs_bind(st->g, st->grad_out, s->traj_grad, row * d, NULL);
    vgs__target_set(s, &st->k, t, st->value_scale);
    vgs_scalar_set(st->g, st->cost_scale, s->tau / s->dim);
    vgs_scalar_set(st->g, st->cost_add, -s->tau * log((double)s->a[t]));
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- fresh: y_t from one step of fresh noise ---- */

typedef struct vgs__fresh_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var x, mu, mu2, y;
    vgs_noise noise;
    vgs_scalar value_scale, cost_scale, cost_add;
} vgs__fresh_stage;

/* y/D = value_scale [E or V](x') + cost_scale cost + cost_add. As published the cost is |mu|^2, its mean over
   the noise; else the one of this very step. */
static void vgs__fresh_record(vgs_sampler *s, vgs__fresh_stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    vgs_var eps, u, cost, y, energy = vgs__no_var();
    vgs__kernel_open(s, k, g, false);
    vgs__kernel_stored_noise(s, k);
    st->x = vgs_input(g, s->c.energy.dim);
    st->mu = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->mu2 = vgs_state(g, -1, 1, VGS_F32);
    st->y = vgs_state(g, -1, 1, VGS_F32);
    st->noise = vgs_noise_create(g);
    st->value_scale = vgs_scalar_create(g, 1);
    st->cost_scale = vgs_scalar_create(g, 1);
    st->cost_add = vgs_scalar_create(g, 0);
    eps = vgs__kernel_eps_at(s, g, st->x, &st->noise);
    u = vgs__kernel_u(s, k, st->mu, eps);
    cost = s->c.published ? st->mu2 : vgs__kernel_cost(k, u, eps);
    cost = vgs_affine_by(g, cost, st->cost_scale, st->cost_add);
    y = vgs__target_next(s, k, vgs__kernel_move(s, k, st->x, u), vgs__no_var(), last, st->value_scale,
                         &energy);
    y = vgs__target_sum(g, y, cost, vgs__target_log_rho(s, k));
    if (last) y = vgs__target_last(s, k, st->x, energy, y);
    vgs__kernel_check(k, y, VGS__BAD_VALUE);
    vgs_assign(g, st->y, y);
}

static vgs_status vgs__fresh_run(vgs_sampler *s, vgs__fresh_stage *st, int pass, int t, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, row = (size_t)t * (size_t)s->c.batch;
    double tau = s->tau, a = (double)s->a[t], s2 = (double)s->s2[t], dim = s->dim;
    vgs_bind(st->g, st->x, s->traj_x, row * d, NULL);
    vgs_bind(st->g, st->mu, s->traj_mu, row * d, NULL);
    vgs_bind(st->g, st->mu2, s->traj_mu2, row, NULL);
    vgs_bind(st->g, st->y, s->traj_y, (size_t)(pass * s->c.steps + t) * (size_t)s->c.batch, NULL);
    vgs__kernel_bind_noise(s, &st->k, row);
    vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_TARGET, s->iteration * s->c.passes + pass, t, 0);
    if (t < s->c.steps - 1) s->energy_calls += vgs__value_calls(s, s->c.batch);
    vgs__target_set(s, &st->k, t, st->value_scale);
    vgs_scalar_set(st->g, st->cost_scale, s->c.published ? tau / (2.0 * s2 * a * a * dim) : tau / dim);
    vgs_scalar_set(st->g, st->cost_add, -tau * log(a));
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- slope_loss: what grad V_t should be, t < T-1 ---- */

typedef struct vgs__grad_stage {
    vgs_graph *g;
    vgs_var kappa, mu, later, out;               /* of t+1, of t+1, for t+1, for t                    */
    vgs_scalar of_mu, of_later;                  /* the two factors                                   */
} vgs__grad_stage;

/* (1 - lambda) a_t grad Vbar_{t+1}(x_{t+1}), from the drift of t+1, and lambda a_t times the target of t+1 */
static void vgs__grad_record(const vgs_sampler *s, vgs__grad_stage *st)
{
    vgs_graph *g = st->g;
    vgs_var mu;
    st->kappa = vgs_state(g, 1, s->factors, VGS_F32);
    st->mu = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->later = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->out = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->of_mu = vgs_scalar_create(g, 1);
    st->of_later = vgs_scalar_create(g, 1);
    mu = s->c.fixed_kernel ? st->mu : vgs_div(g, st->mu, st->kappa);
    vgs_assign(g, st->out, vgs_combine_by(g, mu, st->of_mu, st->later, st->of_later));
}

/* The drift of the last step is of E, not of V: the target before it is that of the last step. */
static vgs_status vgs__grad_run(vgs_sampler *s, vgs__grad_stage *st, int t, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, b = (size_t)s->c.batch, next = (size_t)t + 1;
    double lambda = t == s->c.steps - 2 ? 1.0 : (double)s->c.lambda, a = (double)s->a[t];
    vgs_bind(st->g, st->out, s->traj_grad, (size_t)t * b * d, NULL);
    vgs_bind(st->g, st->later, s->traj_grad, next * b * d, NULL);
    vgs_bind(st->g, st->mu, s->traj_mu, next * b * d, NULL);
    vgs_bind(st->g, st->kappa, s->factor, 2 * next * (size_t)s->factors, NULL);
    vgs_scalar_set(st->g, st->of_later, lambda * a);
    vgs_scalar_set(st->g, st->of_mu,
                   (1.0 - lambda) * a * s->tau / ((double)s->s2[t + 1] * (double)s->a[t + 1]));
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- slope_loss and denoise_loss: x +- d of a minibatch, d along the error of grad V ---- */

/* The transitions of a minibatch of a shuffled pass: their numbers and steps t. */
static vgs_var vgs__fit_minibatch(const vgs_sampler *s, vgs_graph *g, vgs_scalar first,
                                  const vgs_noise *noise, vgs_var *t)
{
    vgs_var idx = vgs_permutation(g, s->c.steps * s->c.batch, first, noise);
    *t = vgs__int_div(g, idx, s->c.batch);
    return idx;
}

static vgs_var vgs__fit_gather(vgs_sampler *s, vgs_graph *g, vgs_buffer *all, int cols, vgs_var idx)
{
    return vgs_gather(g, vgs__graph_bound_state(g, s->c.steps * s->c.batch, cols, all, 0), idx);
}

typedef struct vgs__fd_stage { vgs_graph *g; vgs_noise noise; vgs_scalar first; } vgs__fd_stage;

/* With r = (grad V - its target)/D the loss w n_t |r|^2 / 2 has the gradient w n_t |r| d(u . grad V/D);
   u = r/|r|, and u . grad V = (V(x + h u) - V(x - h u)) / 2h: no second derivatives. sqrt(n_t) |r| is limited
   to 3/sqrt(D), as smooth L1 limits a loss; h = VGS__FD_PATH sqrt(n_t), n_t the noise from x_T back to t. */
#define VGS__FD_PATH 0.03f
static void vgs__fd_record(vgs_sampler *s, vgs__fd_stage *st, float of_loss)
{
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    float per_dim = 1.0f / (float)s->dim;
    vgs_var idx, t, x, y, r = vgs__no_var(), norm, root, weight;
    st->noise = vgs_noise_create(g);
    st->first = vgs_scalar_create(g, 0);
    idx = vgs__fit_minibatch(s, g, st->first, &st->noise, &t);
    x = vgs__fit_gather(s, g, s->traj_x, d, idx);
    vgs_gradient(g, vgs__value(s, g, s->online, x, t, NULL), &x, 1, &r);
    y = vgs__fit_gather(s, g, s->traj_grad, d, idx);
    r = vgs_combine(g, r, s->c.scale_by_dim ? 1.0f : per_dim, y, -per_dim);
    norm = vgs_sqrt(g, vgs_affine(g, vgs_sum_cols(g, vgs_square(g, r)), 1.0f, 1e-30f));
    root = vgs__value_variance(s, g, t, 0.0, 0.0);
    weight = vgs_clamp(g, vgs_mul(g, norm, root), 0.0f, 3.0f * (float)sqrt((double)per_dim));
    weight = vgs_affine(g, weight, of_loss / (2.0f * VGS__FD_PATH), 0.0f);
    r = vgs_mul(g, r, vgs_div(g, vgs_affine(g, root, VGS__FD_PATH, 0.0f), norm));
    y = vgs_add(g, x, r);
    vgs_assign(g, vgs__graph_bound_state(g, -1, 2 * d, s->fd_x, 0), vgs_concat(g, y, vgs_sub(g, x, r)));
    vgs_assign(g, vgs__graph_bound_state(g, -1, 1, s->fd_weight, 0), weight);
}

/* ---- fit: a minibatch descends the loss ---- */

typedef struct vgs__fit_stage {
    vgs_graph *g;
    vgs_var y;                                   /* of the whole pass                                 */
    vgs_noise noise;
    vgs_scalar first, log_row, lr;
} vgs__fit_stage;

/* V/D at x of the minibatch, or of a pair at x +- d in place of x: *grad_loss [B,1] then has the right
   gradient, but not the right value. */
static vgs_var vgs__fit_value(vgs_sampler *s, vgs__fit_stage *st, vgs_var idx, vgs_var t, bool pair,
                              vgs_var *grad_loss)
{
    static const int32_t twice[2] = { 0, 0 };
    static const float sign[2] = { 1.0f, -1.0f };
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    vgs_var v, x = pair ? vgs__graph_bound_state(g, -2, d, s->fd_x, 0)
        : vgs__fit_gather(s, g, s->traj_x, d, idx);
    if (pair) t = vgs_segment_gather(g, t, 1, twice, 2);
    v = vgs__step_stores_part(s) ? vgs__value_net(s, g, s->online, x, t)
        : vgs__value(s, g, s->online, x, t, NULL);
    if (!s->c.scale_by_dim) v = vgs_affine(g, v, 1.0f / (float)s->dim, 0.0f);
    if (!pair) return v;
    v = vgs_reshape(g, v, 2);
    *grad_loss = vgs_mul(g, vgs_sum_cols(g, vgs_mul(g, v, vgs_table(g, sign, 1, 2))),
                         vgs__graph_bound_state(g, -1, 1, s->fd_weight, 0));
    return vgs_mean_cols(g, v);
}

static void vgs__fit_record(vgs_sampler *s, vgs__fit_stage *st, bool slope_only)
{
    vgs_graph *g = st->g;
    vgs_var idx, t, y, loss, mean, grad_loss = vgs__no_var();
    const bool pair = slope_only || s->c.slope_loss > 0.0f;
    st->noise = vgs_noise_create(g);
    st->first = vgs_scalar_create(g, 0);
    st->log_row = vgs_scalar_create(g, 0);
    st->lr = vgs_scalar_create(g, 0);
    idx = vgs__fit_minibatch(s, g, st->first, &st->noise, &t);
    st->y = vgs__graph_bound_state(g, s->c.steps * s->c.batch, 1, s->traj_y, 0);
    y = vgs_gather(g, st->y, idx);
    if (vgs__step_stores_part(s))                /* of the network alone                              */
        y = vgs_combine(g, y, 1.0f, vgs__fit_gather(s, g, s->traj_part, 1, idx),
                        s->c.scale_by_dim ? -1.0f : -1.0f / (float)s->dim);
    loss = vgs_loss_of(g, vgs__fit_value(s, st, idx, t, pair, &grad_loss), y, s->c.loss);
    mean = vgs_mean_rows(g, loss);
    if (pair) loss = slope_only ? grad_loss : vgs_add(g, loss, grad_loss);
    vgs_descend(g, vgs_mean_rows(g, loss), s->online, st->lr, s->c.grad_max);
    vgs_assign_rows(g, vgs__graph_bound_state(g, s->c.passes * s->c.steps, 1, s->loss_log, 0), st->log_row,
                    mean);
}

/* A learning rate as it is in this iteration. */
static double vgs__fit_rate(const vgs_sampler *s, float first)
{
    if (s->c.lr_half > 0.0f) return (double)first * pow(0.5, (double)s->iteration / (double)s->c.lr_half);
    return s->piloted ? (double)first * (double)s->lr_factor : (double)first;
}

static vgs_status vgs__fit_run(vgs_sampler *s, vgs__fit_stage *st, vgs__fd_stage *fd, int pass,
                               vgs_error *err)
{
    size_t rows = (size_t)s->c.steps * (size_t)s->c.batch;
    vgs_status code = VGS_OK;
    int k;
    vgs_scalar_set(st->g, st->lr, vgs__fit_rate(s, s->c.value_lr));
    vgs_bind(st->g, st->y, s->traj_y, s->c.published ? (size_t)pass * rows : 0, NULL);
    vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_SHUFFLE, s->iteration, pass, 0);
    if (fd->g) vgs_noise_set(fd->g, &fd->noise, s->c.seed, VGS__FOR_SHUFFLE, s->iteration, pass, 0);
    if (fd->g) s->energy_calls += vgs__value_calls(s, (double)rows);
    for (k = 0; k < s->c.steps && code == VGS_OK; ++k) {
        vgs_scalar_set(st->g, st->first, (double)k * s->c.batch);
        vgs_scalar_set(st->g, st->log_row, pass * s->c.steps + k);
        if (fd->g) {
            vgs_scalar_set(fd->g, fd->first, (double)k * s->c.batch);
            code = vgs_graph_run(fd->g, s->c.batch, err);
        }
        if (code == VGS_OK) code = vgs_graph_run(st->g, s->c.batch, err);
    }
    return code;
}

/* ---- ema: the target network follows ---- */

typedef struct vgs__ema_stage { vgs_graph *g; } vgs__ema_stage;

static void vgs__ema_record(vgs_sampler *s, vgs__ema_stage *st)
{
    vgs_ema(st->g, s->target, s->online, s->c.target_ema);
}

/* ---- sigma: Adam on s0 ---- */

typedef struct vgs__sigma_stage { vgs_graph *g; vgs_noise noise; vgs_scalar lr, vs, t; } vgs__sigma_stage;

/* d/ds0 of mean V_0(s0 eps) [or V/D] - D tau log s0 [or tau log s0] */
static void vgs__sigma_record(vgs_sampler *s, vgs__sigma_stage *st)
{
    vgs_graph *g = st->g;
    double d = s->c.scale_by_dim ? 1.0 : (double)s->dim;
    vgs_var grad = vgs__no_var(), x, s0, a[6];
    memset(a, 0, sizeof a);
    st->noise = vgs_noise_create(g);
    st->lr = vgs_scalar_create(g, 0);
    st->vs = vgs_scalar_create(g, 0);
    st->t = vgs_scalar_create(g, 0);
    s0 = vgs__graph_bound_state(g, 1, 1, s->sigma, 0);
    x = vgs_mul(g, vgs__kernel_eps(s, g, &st->noise), s0);
    vgs_gradient(g, vgs_mean_rows(g, vgs__value_at(s, g, x, st->t)), &s0, 1, &grad);
    grad = vgs_sub(g, grad, vgs_affine(g, vgs_reciprocal(g, s0), (float)(d * s->tau), 0.0f));
    a[0] = s0;
    a[1] = vgs__graph_bound_state(g, 1, 1, s->sigma, 16);
    a[2] = vgs__graph_bound_state(g, 1, 1, s->sigma, 32);
    a[3] = vgs__graph_bound_state(g, 1, 1, s->sigma, 48);
    a[5] = vgs__model_flag(g, s->online);
    vgs_assign(g, a[1], grad);
    s0 = vgs__adam(g, a, 0.0f);
    vgs__graph_slot_f(g, s0, 0, st->lr);
    vgs__graph_slot_f(g, s0, 4, st->vs);
    vgs__graph_attr_f(g, s0, 6, 1e-6f);          /* s0 stays above                                    */
}

static vgs_status vgs__sigma_run(vgs_sampler *s, vgs__sigma_stage *st, vgs_error *err)
{
    double lr, vs;
    if (!(s->c.sigma_lr > 0.0f)) return VGS_OK;
    s->energy_calls += vgs__value_calls(s, s->c.batch);
    vgs__run_adam_factors((double)s->c.sigma_lr, ++s->sigma_step, &lr, &vs);
    vgs_scalar_set(st->g, st->lr, lr);
    vgs_scalar_set(st->g, st->vs, vs);
    vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_SIGMA, s->iteration, 0, 0);
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- factor: kappa_t and rho_t ---- */

typedef struct vgs__factor_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var x, mu;
    vgs_noise noise;
    vgs_scalar inv_sigma;                        /* 1/sigma, or 1/(sigma D) where F is 1              */
} vgs__factor_stage;

/* The mean over rows of a b, for each factor: by column, or of the sum over columns. */
static vgs_var vgs__factor_moment(const vgs_sampler *s, vgs_graph *g, vgs_var a, vgs_var b)
{
    vgs_var v = vgs_mul(g, a, b);
    return vgs_mean_rows(g, s->factors > 1 ? v : vgs_sum_cols(g, v));
}

/* The variance that local_noise leaves to each factor: of each dimension, or the mean of all. */
static vgs_var vgs__factor_variance(const vgs_sampler *s, vgs__kernel *k)
{
    vgs_graph *g = k->g;
    int d = s->c.energy.dim;
    vgs_var v = vgs_square(g, k->noise_std), e;
    if (s->factors == 1) {                       /* without those of the mean, which are 1            */
        const float f = 1.0f / (float)s->dim;
        return vgs_affine(g, vgs_sum_cols(g, v), f, -f * (float)(d - s->dim));
    }
    e = vgs_reshape(g, vgs_square(g, k->eigvec), d);
    return vgs__kernel_copies(s, g, vgs_mul(g, e, vgs_reshape(g, v, 1)), true);
}

/* The factors that minimise the cost of one step given the value after it. With m the published drift at x
   and m' the one at x', where the step leads, for each dimension, or with the sums over all D
       kappa = <m . m'> / <m . m>,   rho = 1 / (<w> + <m' . eps> / (sigma sqrt(rho) D)),   D = 1 for one,
   averages over the batch, w the variance of eps, 1 but for local_noise; VGS__FACTOR_RATE of the way there
   each time. mu . eps, of mean 0, takes out noise. */
#define VGS__FACTOR_RATE 0.05f
static void vgs__factor_record(vgs_sampler *s, vgs__factor_stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    const vgs_scalar none = { 0 };
    vgs_var eps, x, m, ahead, v, kappa, rho;
    vgs__kernel_open(s, k, g, false);
    if (!last) vgs__kernel_stored_noise(s, k);
    st->x = vgs_input(g, s->c.energy.dim);
    st->mu = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->noise = vgs_noise_create(g);
    st->inv_sigma = vgs_scalar_create(g, 1);
    eps = vgs__kernel_eps(s, g, &st->noise);
    x = vgs__kernel_move(s, k, st->x, vgs__kernel_u(s, k, st->mu, eps));
    ahead = vgs__kernel_drift(s, k, x, vgs__kernel_grad(s, k, x, last), last);
    eps = vgs__kernel_colour(s, k, eps, false);
    m = vgs_div(g, st->mu, k->kappa);
    v = vgs_affine(g, vgs__factor_moment(s, g, m, m), 1.0f, 1e-30f);
    kappa = vgs_clamp(g, vgs_div(g, vgs__factor_moment(s, g, m, ahead), v), 0.2f, 1.5f);
    v = vgs_div(g, vgs__factor_moment(s, g, vgs_sub(g, ahead, st->mu), eps), k->sqrt_rho);
    v = vgs_affine_by(g, v, st->inv_sigma, none);
    v = vgs__exists(k->noise_std) ? vgs_add(g, v, vgs_mean_rows(g, vgs__factor_variance(s, k)))
                                  : vgs_affine(g, v, 1.0f, 1.0f);
    rho = vgs_reciprocal(g, vgs_clamp(g, v, 0.5f, 1.8f));
    kappa = vgs_combine(g, k->kappa, 1.0f - VGS__FACTOR_RATE, kappa, VGS__FACTOR_RATE);
    rho = vgs_combine(g, vgs_square(g, k->sqrt_rho), 1.0f - VGS__FACTOR_RATE, rho, VGS__FACTOR_RATE);
    vgs__op_effect(g, VGS_OP_EMA, k->kappa, kappa, k->flag);         /* keeps 0 of what was: a copy, but   */
    vgs__op_effect(g, VGS_OP_EMA, k->sqrt_rho, vgs_sqrt(g, rho), k->flag); /* none while the flag is set */
}

/* Each iteration moves the factors of every VGS__FACTOR_STRIDE-th step. */
enum { VGS__FACTOR_STRIDE = 8 };
static vgs_status vgs__factor_run(vgs_sampler *s, vgs__factor_stage *step, vgs__factor_stage *last,
                                  vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_status code = VGS_OK;
    int t = (int)(s->iteration % VGS__FACTOR_STRIDE);
    if (s->c.fixed_kernel) return VGS_OK;
    for (; t < s->c.steps && code == VGS_OK; t += VGS__FACTOR_STRIDE) {
        vgs__factor_stage *st = t == s->c.steps - 1 ? last : step;
        size_t row = (size_t)t * (size_t)s->c.batch;
        vgs_bind(st->g, st->x, s->traj_x, row * d, NULL);
        vgs_bind(st->g, st->mu, s->traj_mu, row * d, NULL);
        if (st == step) vgs__kernel_bind_noise(s, &st->k, row);
        vgs__kernel_set(s, &st->k, t, t + 1, 1.0);
        vgs_scalar_set(st->g, st->inv_sigma, 1.0 / (sqrt((double)s->s2[t]) * (double)s->a[t] *
                                                    (s->factors > 1 ? 1 : s->dim)));
        vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_FACTOR, s->iteration, t, 0);
        code = vgs_graph_run(st->g, s->c.batch, err);
        s->energy_calls += st == last ? s->c.batch : vgs__value_calls(s, s->c.batch);
    }
    return code;
}

/* ==== >>dxdp: a policy by dynamic programming ========================================================= */

/* V_t(x_t) is what is still to be paid until E: V_t = mean of V_{t+1}(x_{t+1}) + c_t, V_T = E, with
       c_t = -entropy_tau D log sigma_t + velocity_tau |x_{t+1} - x_t|^2/(2 v_t),
   the first the policy's entropy, exactly (without its constant), v_t a running mean of |x_{t+1} - x_t|^2/D.
   One step of Adam for each t, the last first, each with the targets of V as it then is; after them m and
   sigma_t go down V_{t+1} + c_t at B of the B T transitions, x_{t+1} = a_t x_t + m + sigma_t eps. */

#define VGS__VELOCITY_KEPT 0.99f

/* c_t [B,1], of steps t [B,1] from x to next. */
static vgs_var vgs__dp_cost(const vgs_sampler *s, vgs_graph *g, vgs_var x, vgs_var next, vgs_var t)
{
    vgs_var far = vgs_sum_cols(g, vgs_square(g, vgs_sub(g, next, x)));
    vgs_var v = vgs_gather(g, vgs__graph_bound_state(g, s->c.steps, 1, s->velocity, 0), t);
    v = vgs_div(g, far, v);
    return vgs_combine(g, v, 0.5f * s->c.velocity_tau, vgs__policy_log_sigma(g, s->policy_on, t),
                       -s->c.entropy_tau * (float)s->dim);
}

/* ---- dp: the value's step at t ---- */

typedef struct vgs__dp_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var x, next, y;                          /* next: no value with fresh_targets                 */
    vgs_noise noise;
    vgs_scalar value_scale, log_row, lr;
} vgs__dp_stage;

/* y_t/D, which is no function of the weights that learn: it is kept in between. */
static void vgs__dp_target(vgs_sampler *s, vgs__dp_stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    vgs_var next = st->next, cost, y, energy = vgs__no_var();
    if (s->c.fresh_targets) {
        vgs_var eps = vgs__kernel_eps_at(s, g, st->x, &st->noise);
        next = vgs__kernel_mu(s, k, st->x, vgs__no_var(), false);
        next = vgs__kernel_move(s, k, st->x, vgs__kernel_u(s, k, next, eps));
    }
    y = vgs__target_next(s, k, next, vgs__no_var(), last, st->value_scale, &energy);
    cost = vgs__dp_cost(s, g, st->x, next, vgs_fill_int(g, -1, k->step));
    y = vgs_add(g, y, vgs_affine(g, cost, 1.0f / (float)s->dim, 0.0f));
    if (last) y = vgs__target_last(s, k, st->x, energy, y);
    vgs__kernel_check(k, y, VGS__BAD_VALUE);
    vgs_assign(g, st->y, y);
}

static void vgs__dp_record(vgs_sampler *s, vgs__dp_stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs_var v, loss;
    vgs__kernel_open(s, &st->k, g, true);
    st->x = vgs_input(g, s->c.energy.dim);
    if (!s->c.fresh_targets) st->next = vgs_input(g, s->c.energy.dim);
    st->y = vgs_state(g, -1, 1, VGS_F32);
    st->noise = vgs_noise_create(g);
    st->value_scale = vgs_scalar_create(g, 1);
    st->log_row = vgs_scalar_create(g, 0);
    st->lr = vgs_scalar_create(g, 0);
    vgs__dp_target(s, st, last);
    v = vgs__value(s, g, s->online, st->x, vgs_fill_int(g, -1, st->k.step), NULL);
    if (!s->c.scale_by_dim) v = vgs_affine(g, v, 1.0f / (float)s->dim, 0.0f);
    loss = vgs_mean_rows(g, vgs_loss_of(g, v, st->y, s->c.loss));
    vgs_descend(g, loss, s->online, st->lr, s->c.grad_max);
    vgs_assign_rows(g, vgs__graph_bound_state(g, s->c.passes * s->c.steps, 1, s->loss_log, 0), st->log_row,
                    loss);
}

static vgs_status vgs__dp_run(vgs_sampler *s, vgs__dp_stage *st, int pass, int t, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, row = (size_t)t * (size_t)s->c.batch;
    vgs_bind(st->g, st->x, s->traj_x, row * d, NULL);
    if (!s->c.fresh_targets) vgs_bind(st->g, st->next, s->traj_x, (row + (size_t)s->c.batch) * d, NULL);
    vgs_bind(st->g, st->y, s->traj_y, row, NULL);
    vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_TARGET, s->iteration * s->c.passes + pass, t, 0);
    vgs__target_set(s, &st->k, t, st->value_scale);
    vgs_scalar_set(st->g, st->lr, vgs__fit_rate(s, s->c.value_lr));
    vgs_scalar_set(st->g, st->log_row, pass * s->c.steps + s->c.steps - 1 - t);
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- policy_fit: the policy's step ---- */

typedef struct vgs__policy_fit_stage {
    vgs_graph *g;
    vgs_noise order, noise;
    vgs_scalar first, lr, sigma_lr;
} vgs__policy_fit_stage;

static void vgs__dxdp_fill_alpha(const vgs_sampler *s, float *out)
{
    memcpy(out, s->a, (size_t)s->c.steps * sizeof *out);
}
static void vgs__dxdp_fill_last(const vgs_sampler *s, float *out)    /* 1 at T-1                      */
{
    memset(out, 0, (size_t)s->c.steps * sizeof *out);
    out[s->c.steps - 1] = 1.0f;
}

/* t + 1, but T-1 at most: there V is not asked. */
static vgs_var vgs__policy_fit_next_t(const vgs_sampler *s, vgs_graph *g, vgs_var t)
{
    int32_t *k = (int32_t *)vgs__alloc((size_t)s->c.steps, sizeof *k);
    vgs_var v;
    int i;
    if (!k) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: policy of %d steps", s->c.steps);
    for (i = 0; i < s->c.steps; ++i) k[i] = i + 1 < s->c.steps ? i + 1 : i;
    v = vgs_gather(g, vgs_table_int(g, k, s->c.steps, 1), t);
    vgs__free(k);
    return v;
}

/* dV_{t+1}/dx' or, in rows of the last step, dE/dx', 0 outside: chosen, never multiplied by 0. */
static vgs_var vgs__policy_fit_slope(vgs_sampler *s, vgs__policy_fit_stage *st, vgs_var next, vgs_var t)
{
    vgs_graph *g = st->g;
    vgs_var last = vgs__policy_by_step(s, g, t, vgs__dxdp_fill_last), of_v = vgs__no_var(), of_e = of_v, v, e;
    v = vgs__value(s, g, s->online, next, vgs__policy_fit_next_t(s, g, t), NULL);
    if (s->c.scale_by_dim) v = vgs_affine(g, v, (float)s->dim, 0.0f);
    vgs_gradient(g, v, &next, 1, &of_v);
    e = vgs_energy_of(g, s->energy, next);
    vgs_gradient(g, e, &next, 1, &of_e);
    of_e = vgs_mask_above(g, of_e, e, s->energy_max != 0.0f ? s->energy_max : FLT_MAX);
    of_e = vgs_mask_above(g, of_e, vgs_affine(g, last, -1.0f, 1.0f), 0.5f);
    return vgs__value_centred(s, g, vgs_add(g, of_e, vgs_mask_above(g, of_v, last, 0.5f)));
}

/* Along the great circle by v, tangent at x; unlike vgs_sphere_move it has a gradient. */
static vgs_var vgs__policy_fit_along(vgs_graph *g, vgs_var x, vgs_var v)
{
    vgs_var l = vgs__policy_length_of(g, v);
    return vgs_add(g, vgs_mul(g, x, vgs_cos(g, l)), vgs_mul(g, v, vgs_div(g, vgs_sin(g, l), l)));
}

/* x' of a policy's step from x, a function of its weights. */
static vgs_var vgs__policy_fit_step(vgs_sampler *s, vgs__policy_fit_stage *st, vgs_var x, vgs_var t)
{
    vgs_graph *g = st->g;
    vgs_var sigma = vgs_exp(g, vgs__policy_log_sigma(g, s->policy_on, t));
    vgs_var move = vgs__policy_mean(s, g, s->policy_on, x, t, vgs__no_var());
    move = vgs_add(g, move, vgs_mul(g, vgs__kernel_eps_at(s, g, x, &st->noise), sigma));
    if (s->c.on_sphere) return vgs__policy_fit_along(g, x, move);
    return vgs_add(g, vgs_mul(g, x, vgs__policy_by_step(s, g, t, vgs__dxdp_fill_alpha)), move);
}

static void vgs__policy_fit_record(vgs_sampler *s, vgs__policy_fit_stage *st)
{
    vgs_graph *g = st->g;
    vgs_var x, t, idx, next, slope, loss;
    st->order = vgs_noise_create(g);
    st->noise = vgs_noise_create(g);
    st->first = vgs_scalar_create(g, 0);
    st->lr = vgs_scalar_create(g, 0);
    st->sigma_lr = vgs_scalar_create(g, 0);
    idx = vgs__fit_minibatch(s, g, st->first, &st->order, &t);
    x = vgs__fit_gather(s, g, s->traj_x, s->c.energy.dim, idx);
    next = vgs__policy_fit_step(s, st, x, t);
    slope = vgs__graph_bound_state(g, -1, s->c.energy.dim, s->policy_slope, 0);
    vgs_assign(g, slope, vgs__policy_fit_slope(s, st, next, t));          /* V is not what learns           */
    vgs_check(g, slope, s->policy_on);
    loss = vgs_sum_cols(g, vgs_mul(g, next, slope));
    loss = vgs_mean_rows(g, vgs_add(g, loss, vgs__dp_cost(s, g, x, next, t)));
    vgs__model_descend_parts(g, loss, s->policy_on, st->lr, vgs__policy_net_size(s->policy_on), st->sigma_lr,
                             s->c.policy_grad_max);
}

/* Policy steps take turns through permutations of the transitions. */
static vgs_status vgs__policy_fit_run(vgs_sampler *s, vgs__policy_fit_stage *st, vgs_error *err)
{
    vgs_status code = VGS_OK;
    int k;
    vgs_scalar_set(st->g, st->lr, vgs__fit_rate(s, s->c.policy_lr));
    vgs_scalar_set(st->g, st->sigma_lr, vgs__fit_rate(s, s->c.step_sigma_lr));
    for (k = 0; k < s->c.policy_steps && code == VGS_OK; ++k) {
        vgs_scalar_set(st->g, st->first, (double)(k % s->c.steps) * s->c.batch);
        vgs_noise_set(st->g, &st->order, s->c.seed, VGS__FOR_SHUFFLE, s->iteration, k / s->c.steps, 0);
        vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_POLICY, s->iteration, k, 0);
        code = vgs_graph_run(st->g, s->c.batch, err);
        s->energy_calls += s->c.batch;
    }
    return code;
}

/* ---- velocity: v_t follows the paths ---- */

typedef struct vgs__velocity_stage { vgs_graph *g; vgs_var x, next, velocity; } vgs__velocity_stage;

static void vgs__velocity_record(vgs_sampler *s, vgs__velocity_stage *st)
{
    vgs_graph *g = st->g;
    vgs_var v;
    st->x = vgs_input(g, s->c.energy.dim);
    st->next = vgs_input(g, s->c.energy.dim);
    st->velocity = vgs_state(g, 1, 1, VGS_F32);
    v = vgs_mean_rows(g, vgs_sum_cols(g, vgs_square(g, vgs_sub(g, st->next, st->x))));
    v = vgs_affine(g, v, 1.0f / (float)s->dim, 0.0f);
    v = vgs__op_effect(g, VGS_OP_EMA, st->velocity, v, vgs__model_flag(g, s->online));
    vgs__graph_attr_f(g, v, 0, VGS__VELOCITY_KEPT);
}

static vgs_status vgs__velocity_run(vgs_sampler *s, vgs__velocity_stage *st, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim, t;
    vgs_status code = VGS_OK;
    for (t = 0; t < (size_t)s->c.steps && code == VGS_OK; ++t) {
        vgs_bind(st->g, st->x, s->traj_x, t * rows, NULL);
        vgs_bind(st->g, st->next, s->traj_x, (t + 1) * rows, NULL);
        vgs_bind(st->g, st->velocity, s->velocity, t, NULL);
        code = vgs_graph_run(st->g, s->c.batch, err);
    }
    return code;
}

/* ---- the averaged policy ---- */

typedef struct vgs__average_stage { vgs_graph *g; } vgs__average_stage;

static void vgs__average_record(vgs_sampler *s, vgs__average_stage *st)
{
    vgs_ema(st->g, s->policy, s->policy_on, s->c.policy_ema);
}

/* ==== >>logvar: a policy by the variance of its path weights ========================================== */

/* With paths of the policy as they were rolled out, which its weights do not move,
       log w = -E(x_T)/tau + log(reference) - sum_t log pi(x_{t+1}|x_t),
   and the loss is its variance over the batch, whose gradient is
       2/(B-1) sum_b (log w_b - mean) d(-sum_t log pi):
   log w once for a batch, then the gradients of all steps, added up. */

/* ---- path_cost: the sum of what the steps of each path cost ---- */

typedef struct vgs__path_cost_stage { vgs_graph *g; } vgs__path_cost_stage;

/* A row [1,B] here, a column [B,1] to path_end: two names of a buffer must not meet in one graph, which would
   not see that the one waits for the other. */
static void vgs__path_cost_record(vgs_sampler *s, vgs__path_cost_stage *st)
{
    const int b = s->c.batch;
    vgs_var cost = vgs_sum_rows(st->g, vgs__graph_bound_state(st->g, s->c.steps, b, s->traj_cost, 0));
    vgs_assign(st->g, vgs__graph_bound_state(st->g, 1, b, s->path_cost, 0), cost);
}

/* ---- path_end: log w, less its mean ---- */

typedef struct vgs__path_end_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var end, known;                          /* x_T; the x_t whose density is known               */
} vgs__path_end_stage;

static void vgs__path_end_record(vgs_sampler *s, vgs__path_end_stage *st)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    int b = s->c.batch;
    vgs_var cost, e, w, s0;
    vgs__kernel_open(s, k, g, true);
    st->end = vgs_input(g, s->c.energy.dim);
    st->known = vgs_input(g, s->c.energy.dim);
    s0 = vgs__graph_bound_state(g, 1, 1, s->sigma, 0);
    cost = vgs__graph_bound_state(g, -1, 1, s->path_cost, 0);
    e = vgs_energy_of(g, s->energy, st->end);
    vgs__kernel_check(k, e, VGS__BAD_ENERGY);
    w = s->energy_max != 0.0f ? vgs_clamp(g, e, -FLT_MAX, s->energy_max) : e;
    w = vgs_affine(g, vgs__kernel_or_outside(g, w, e, vgs__target_ceiling(s, k, e)), -1.0f / (float)s->tau,
                   0.0f);
    w = vgs_sub(g, w, cost);
    cost = vgs_div(g, vgs_sum_cols(g, vgs_square(g, st->known)), vgs_square(g, s0));
    w = vgs_add(g, w, vgs_affine(g, cost, 0.5f, 0.0f));
    w = vgs_sub(g, w, vgs_mean_rows(g, w));
    vgs__kernel_check(k, w, VGS__BAD_LOSS);
    vgs_assign(g, vgs__graph_bound_state(g, -1, 1, s->path_weight, 0), w);
    w = vgs_affine(g, vgs_mean_rows(g, vgs_square(g, w)), (float)b / (float)(b - 1), 0.0f);
    vgs_assign(g, vgs__graph_bound_state(g, 1, 1, s->loss_log, 0), w);
    w = vgs_fill(g, 1, vgs_model_size(s->policy_on), 0.0f);
    vgs_assign(g, vgs__model_grad(g, s->policy_on), w);
}

static vgs_status vgs__path_end_run(vgs_sampler *s, vgs__path_end_stage *st, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs_bind(st->g, st->end, s->traj_x, (size_t)s->c.steps * rows, NULL);
    vgs_bind(st->g, st->known, s->traj_x, (size_t)vgs__value_known_step(s) * rows, NULL);
    vgs__kernel_set(s, &st->k, s->c.steps - 1, s->c.steps, 1.0);
    vgs_scalar_set(st->g, st->k.least_inside, s->outside_max - 1.0);
    s->energy_calls += s->c.batch;
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- path_step: what step t adds to the gradient ---- */

typedef struct vgs__path_step_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var x, next, slope;
    vgs_scalar minus_a, factor;                  /* factor: 1/(sigma_t^2 (B-1))                       */
} vgs__path_step_stage;

static void vgs__path_step_record(vgs_sampler *s, vgs__path_step_stage *st)
{
    vgs_graph *g = st->g;
    const vgs_scalar none = { 0 };
    vgs_var mean, r, grad = vgs__model_grad(g, s->policy_on), part;
    vgs__kernel_open(s, &st->k, g, true);
    st->x = vgs_input(g, s->c.energy.dim);
    st->next = vgs_input(g, s->c.energy.dim);
    if (s->c.drift_energy) st->slope = vgs_input(g, s->c.energy.dim);
    st->minus_a = vgs_scalar_create(g, -1);
    st->factor = vgs_scalar_create(g, 1);
    mean = vgs__policy_mean(s, g, s->policy_on, st->x, vgs_fill_int(g, -1, st->k.step), st->slope);
    r = vgs_sub(g, vgs_combine_by(g, st->next, none, st->x, st->minus_a), mean);
    r = vgs_mul(g, vgs_sum_cols(g, vgs_square(g, r)), vgs__graph_bound_state(g, -1, 1, s->path_weight, 0));
    r = vgs_affine_by(g, r, st->factor, none);
    vgs_check(g, r, s->policy_on);
    part = vgs__graph_bound_state(g, 1, vgs_model_size(s->policy_on), s->policy_grad, 0);
    vgs_gradient_params(g, r, vgs_model_weights(g, s->policy_on), part);
    vgs_assign(g, grad, vgs_add(g, grad, part));
}

static vgs_status vgs__path_step_run(vgs_sampler *s, vgs__path_step_stage *st, int t, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim, at = (size_t)t * rows;
    double a = (double)s->a[t];
    vgs_bind(st->g, st->x, s->traj_x, at, NULL);
    vgs_bind(st->g, st->next, s->traj_x, at + rows, NULL);
    if (vgs__exists(st->slope)) vgs_bind(st->g, st->slope, s->traj_slope, at, NULL);
    vgs__kernel_set(s, &st->k, t, t + 1, 1.0);
    vgs_scalar_set(st->g, st->minus_a, -a);
    vgs_scalar_set(st->g, st->factor, 1.0 / ((double)s->s2[t] * a * a * (s->c.batch - 1)));
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* ---- path_fit: one step of Adam ---- */

typedef struct vgs__path_fit_stage { vgs_graph *g; vgs_scalar lr, rest_lr; } vgs__path_fit_stage;

/* sigma_t has no gradient and stays; the factors of grad E learn a tenth as fast as sigma_t does in dxdp. */
static void vgs__path_fit_record(vgs_sampler *s, vgs__path_fit_stage *st)
{
    vgs_var grad = vgs__model_grad(st->g, s->policy_on);
    st->lr = vgs_scalar_create(st->g, 0);
    st->rest_lr = vgs_scalar_create(st->g, 0);
    vgs_check(st->g, grad, s->policy_on);
    vgs__model_adam_parts(st->g, s->policy_on, grad, st->lr, vgs__policy_net_size(s->policy_on), st->rest_lr,
                          s->c.policy_grad_max);
}

static vgs_status vgs__path_fit_run(vgs_sampler *s, vgs__path_fit_stage *st, vgs_error *err)
{
    vgs_scalar_set(st->g, st->lr, vgs__fit_rate(s, s->c.policy_lr));
    vgs_scalar_set(st->g, st->rest_lr, vgs__fit_rate(s, 0.1f * s->c.step_sigma_lr));
    return vgs_graph_run(st->g, 1, err);
}

/* ==== >>replay: samples that are kept and started from again ========================================== */

/* ---- keep: x_T, and log w = |x_0|^2 / (2 s0^2) + D log s0 - (what the path cost)/tau ---- */

typedef struct vgs__keep_stage { vgs_graph *g; vgs_var x0, x, path; vgs_scalar first; } vgs__keep_stage;

static void vgs__keep_record(vgs_sampler *s, vgs__keep_stage *st)
{
    vgs_graph *g = st->g;
    int n = s->c.replay * s->c.batch, d = s->c.energy.dim;
    float dim = (float)s->dim;
    vgs_var w, v, s0;
    st->first = vgs_scalar_create(g, 0);
    st->x0 = vgs_input(g, d);
    st->x = vgs_state(g, -1, d, VGS_F32);
    st->path = vgs_state(g, -1, 1, VGS_F32);
    s0 = vgs__graph_bound_state(g, 1, 1, s->sigma, 0);
    w = vgs_div(g, vgs_sum_cols(g, vgs_square(g, st->x0)), vgs_square(g, s0));
    v = vgs_affine(g, vgs_log(g, s0), dim, 0.0f);
    w = vgs_add(g, vgs_affine(g, w, 0.5f, 0.0f), v);
    w = vgs_sub(g, w, vgs_affine(g, st->path, dim / (float)s->tau, 0.0f));
    vgs_assign_rows(g, vgs__graph_bound_state(g, n, 1, s->replay_weight, 0), st->first, w);
    vgs_assign_rows(g, vgs__graph_bound_state(g, n, d, s->replay_x, 0), st->first, st->x);
}

/* x_T after `refine` steps of MALA, in mala_x. They leave the target as it is: log w stays. */
static vgs_status vgs__keep_refine(vgs_sampler *s, vgs__mala_begin_stage *begin, vgs__mala_step_stage *st,
                                   vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs_status code;
    int k;
    code = vgs__mala_begin_run(begin, s->c.batch, s->traj_x, (size_t)s->c.steps * rows, s->mala_x, s->mala_e,
                               s->mala_grad, err);
    vgs__mala_step_bind(st, s->mala_x, 0, s->mala_e, s->mala_grad, s->mala_h, 0);
    for (k = 0; k < s->c.refine && code == VGS_OK; ++k)
        code = vgs__mala_step_run(st, s->c.batch, s->c.seed, VGS__FOR_REFINE, VGS__FOR_REFINE_ACCEPT,
                                  s->iteration, k, 0, err);
    s->energy_calls += (double)s->c.batch * (s->c.refine + 1);
    return code;
}

static vgs_status vgs__keep_run(vgs_sampler *s, vgs__keep_stage *st, vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs_status code;
    vgs_bind(st->g, st->x0, s->traj_x, 0, NULL);
    if (s->c.refine) vgs_bind(st->g, st->x, s->mala_x, 0, NULL);
    else vgs_bind(st->g, st->x, s->traj_x, (size_t)s->c.steps * rows, NULL);
    vgs_bind(st->g, st->path, s->traj_path, 0, NULL);
    vgs_scalar_set(st->g, st->first, (double)(s->kept_fixed + s->kept % (s->c.replay - s->kept_fixed)) *
                                     s->c.batch);
    code = vgs_graph_run(st->g, s->c.batch, err);
    if (code == VGS_OK) s->kept++;
    return code;
}

/* ---- recall: kept samples, drawn by weight, taken back by the noising chain ---- */

typedef struct vgs__recall_stage { vgs_graph *g; vgs_var x; vgs_noise noise; } vgs__recall_stage;
typedef struct vgs__back_stage {
    vgs_graph *g;
    vgs_var next, x;
    vgs_scalar inv_a, sigma;
    vgs_noise noise;
} vgs__back_stage;

static void vgs__recall_record(vgs_sampler *s, vgs__recall_stage *st)
{
    vgs_graph *g = st->g;
    int n = s->c.replay * s->c.batch, d = s->c.energy.dim;
    vgs_var idx;
    st->x = vgs_state(g, -1, d, VGS_F32);
    st->noise = vgs_noise_create(g);
    idx = vgs_resample(g, vgs__graph_bound_state(g, n, 1, s->replay_weight, 0), &st->noise);
    vgs_assign(g, st->x, vgs_gather(g, vgs__graph_bound_state(g, n, d, s->replay_x, 0), idx));
}

static void vgs__back_record(const vgs_sampler *s, vgs__back_stage *st)
{
    vgs_graph *g = st->g;
    st->next = vgs_input(g, s->c.energy.dim);
    st->x = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->inv_a = vgs_scalar_create(g, 1);
    st->sigma = vgs_scalar_create(g, 1);
    st->noise = vgs_noise_create(g);
    vgs_assign(g, st->x, vgs_combine_by(g, st->next, st->inv_a, vgs__kernel_eps(s, g, &st->noise),
                                        st->sigma));
}

/* x_t = x_next / a + sigma eps in place of t */
static vgs_status vgs__back_run(vgs_sampler *s, vgs__back_stage *st, int t, int next, double a, double sigma,
                                vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs_bind(st->g, st->next, s->traj_x, (size_t)next * rows, NULL);
    vgs_bind(st->g, st->x, s->traj_x, (size_t)t * rows, NULL);
    vgs_scalar_set(st->g, st->inv_a, 1.0 / a);
    vgs_scalar_set(st->g, st->sigma, sigma);
    vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_BACK, s->iteration, t, 0);
    return vgs_graph_run(st->g, s->c.batch, err);
}

/* Kept samples go back to step n at once and from there step by step to x_0. */
static vgs_status vgs__recall_run(vgs_sampler *s, vgs__recall_stage *st, vgs__back_stage *back, int n,
                                  vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    double a = 1.0, var = 0.0;
    vgs_status code;
    int t;
    vgs_bind(st->g, st->x, s->traj_x, (size_t)s->c.steps * rows, NULL);
    vgs_noise_set(st->g, &st->noise, s->c.seed, VGS__FOR_RECALL, s->iteration, 0, 0);
    code = vgs_graph_run(st->g, s->c.batch, err);
    for (t = s->c.steps - 1; t >= n; --t) {
        a *= (double)s->a[t];
        var = vgs__value_chain_variance(s, t, var);
    }
    if (code == VGS_OK) code = vgs__back_run(s, back, n, s->c.steps, a, sqrt(var), err);
    for (t = n - 1; t >= 0 && code == VGS_OK; --t)
        code = vgs__back_run(s, back, t, t + 1, (double)s->a[t], sqrt((double)s->s2[t]), err);
    return code;
}

/* ---- denoise_loss: what grad V_t should be at kept samples that the noising chain has taken back ---- */

/* grad E at the samples themselves, not above energy_max, and 0 outside */
typedef struct vgs__end_stage { vgs_graph *g; vgs_var x, grad; } vgs__end_stage;

static void vgs__end_record(vgs_sampler *s, vgs__end_stage *st)
{
    vgs_graph *g = st->g;
    vgs_var e, grad = vgs__no_var();
    st->x = vgs_input(g, s->c.energy.dim);
    st->grad = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    e = vgs_energy_of(g, s->energy, st->x);
    vgs_gradient(g, e, &st->x, 1, &grad);
    vgs_assign(g, st->grad, vgs_mask_above(g, grad, e, s->energy_max != 0.0f ? s->energy_max : FLT_MAX));
}

typedef struct vgs__denoise_stage {
    vgs_graph *g;
    vgs_var x, end, end_grad, out;               /* x_t; x_T; grad E there; the target                */
    vgs_scalar of_x, of_end, of_grad;
} vgs__denoise_stage;

static void vgs__denoise_record(const vgs_sampler *s, vgs__denoise_stage *st)
{
    const vgs_scalar one = { 0 };
    vgs_graph *g = st->g;
    int d = s->c.energy.dim;
    st->x = vgs_input(g, d);
    st->end = vgs_input(g, d);
    st->end_grad = vgs_state(g, -1, d, VGS_F32);
    st->out = vgs_state(g, -1, d, VGS_F32);
    st->of_x = vgs_scalar_create(g, 1);
    st->of_end = vgs_scalar_create(g, 1);
    st->of_grad = vgs_scalar_create(g, 1);
    vgs_assign(g, st->out, vgs_combine_by(g, vgs_combine_by(g, st->x, st->of_x, st->end, st->of_end), one,
                                          st->end_grad, st->of_grad));
}

/* With x_t = x_T/A + noise of variance w the mean of tau (x_t - x_T/A)/w given x_t is grad V_t [Vincent
   2011], and so is that of A grad E(x_T) [target score matching, De Bortoli 2024]. The first is noisy where w
   is small, the second where it is large; weights w and l^2/A^2 leave no noise where E is quadratic of width
   l around x_T, for which the finest feature is taken. */
static vgs_status vgs__denoise_run(vgs_sampler *s, vgs__end_stage *end, vgs__denoise_stage *st,
                                   vgs_error *err)
{
    size_t rows = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    double a = 1.0, w = 0.0, detail = s->pilot.detail, share;
    vgs_status code;
    int t;
    if (!(detail > 0.0))
        detail = vgs__value_length(s) * (double)s->c.detail_scale / (double)s->c.length_scale;
    vgs_bind(end->g, end->x, s->traj_x, (size_t)s->c.steps * rows, NULL);
    vgs_bind(end->g, end->grad, s->end_grad, 0, NULL);
    code = vgs_graph_run(end->g, s->c.batch, err);
    s->energy_calls += s->c.batch;
    for (t = s->c.steps - 1; t >= 0 && code == VGS_OK; --t) {
        a *= (double)s->a[t];
        w = vgs__value_chain_variance(s, t, w);
        share = w / (w + detail * detail / (a * a));
        vgs_bind(st->g, st->x, s->traj_x, (size_t)t * rows, NULL);
        vgs_bind(st->g, st->end, s->traj_x, (size_t)s->c.steps * rows, NULL);
        vgs_bind(st->g, st->end_grad, s->end_grad, 0, NULL);
        vgs_bind(st->g, st->out, s->traj_grad, (size_t)t * rows, NULL);
        vgs_scalar_set(st->g, st->of_x, s->tau * share / w);
        vgs_scalar_set(st->g, st->of_end, -s->tau * share / (w * a));
        vgs_scalar_set(st->g, st->of_grad, (1.0 - share) * a);
        code = vgs_graph_run(st->g, s->c.batch, err);
    }
    return code;
}

/* ---- detours: where trajectories are not the sampler's own ---- */

/* Does a trajectory of returns explore? */
static bool vgs__replay_explores(const vgs_sampler *s) { return !s->c.published && s->c.explore != 1.0f; }

/* Half of the iterations are plain. In the others the first k steps explore, or come back from kept samples
   by the noising chain, k uniform in 0..T-1, so that every t sees targets that start off the sampler's own
   path; targets of these steps are of one step. Multiples of the golden ratio fill 0..1 evenly. */
static vgs__detour vgs__replay_detour(const vgs_sampler *s)
{
    vgs__detour d = { 0, false };
    double u = 0.6180339887498949 * (double)s->iteration;
    bool recall = s->c.replay && s->c.denoise_loss == 0.0f && s->kept >= s->c.replay;
    u = 2.0 * (u - floor(u)) - 1.0;
    if (u <= 0.0 || !(recall || vgs__replay_explores(s))) return d;
    d.steps = (int)(u * (s->c.steps - 1));
    d.recalled = recall && (!vgs__replay_explores(s) || s->iteration % 2);
    return d;
}

/* ==== >>score: samples of the target, taken back to noise ============================================= */

typedef struct vgs__score_stage {
    vgs_graph *g;
    vgs__kernel k;
    vgs_var next, x, cost;
    vgs_scalar inv_a, s;                         /* of the noising chain: 1/a_t and s_t               */
    vgs_noise noise;
} vgs__score_stage;

/* On the sphere x_t is x_{t+1} moved by s xi, and the sampler's step came back along the same great circle:
   with l = |xi| its u was l sin(s l) x_{t+1} - cos(s l) xi. */
static void vgs__score_sphere(vgs_sampler *s, vgs__score_stage *st, vgs_var xi, bool last)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    const vgs_scalar none = { 0 };
    vgs_var x = vgs__kernel_move(s, k, st->next, xi), l, angle, mu, u;
    l = vgs_sqrt(g, vgs_sum_cols(g, vgs_square(g, xi)));
    angle = vgs_affine_by(g, l, k->sigma, none);
    u = vgs_mul(g, st->next, vgs_mul(g, l, vgs_sin(g, angle)));
    u = vgs_sub(g, u, vgs_mul(g, xi, vgs_cos(g, angle)));
    mu = vgs__kernel_mu(s, k, x, vgs__no_var(), last);
    vgs_assign(g, st->cost, vgs__kernel_sphere_cost(s, k, u, vgs_affine_by(g, mu, k->neg_inv_sigma, none)));
    vgs_assign(g, st->x, x);
}

/* The noising chain goes from x_{t+1} to x_t = x_{t+1}/a + s xi. Seen from there the sampler's step had
   u = -xi, hence the noise (mu/sigma - xi) / sqrt(rho). */
static void vgs__score_record(vgs_sampler *s, vgs__score_stage *st, bool last)
{
    vgs_graph *g = st->g;
    vgs__kernel *k = &st->k;
    const vgs_scalar one = { 0 };
    vgs_var xi, x, mu, eps;
    vgs__kernel_open(s, k, g, false);
    st->next = vgs_input(g, s->c.energy.dim);
    st->x = vgs_state(g, -1, s->c.energy.dim, VGS_F32);
    st->cost = vgs_state(g, -1, 1, VGS_F32);
    st->inv_a = vgs_scalar_create(g, 1);
    st->s = vgs_scalar_create(g, 1);
    st->noise = vgs_noise_create(g);
    xi = vgs__kernel_eps_at(s, g, st->next, &st->noise);
    if (s->c.on_sphere) {
        vgs__score_sphere(s, st, xi, last);
        return;
    }
    x = vgs_combine_by(g, st->next, st->inv_a, xi, st->s);
    mu = vgs__kernel_mu(s, k, x, vgs__no_var(), last);
    if (vgs__config_from_zero(&s->c)) xi = vgs_affine_by(g, vgs_sub(g, st->next, x), k->neg_inv_sigma, one);
    eps = vgs_combine_by(g, xi, one, mu, k->neg_inv_sigma);          /* the sign does not matter       */
    if (vgs__kernel_has_rho(s)) eps = vgs_div(g, eps, k->sqrt_rho);
    eps = vgs__kernel_colour(s, k, eps, true);
    vgs_assign(g, st->cost, vgs__kernel_cost(k, xi, eps));
    vgs_assign(g, st->x, x);
}

/* The factor of x_{t+1} in x_t, and the noise beside it: 1/a_t and s_t of the noising chain; of a bridge from
   0 the share of the variance at t in that at t + 1, and s_t times its root. */
static double vgs__score_back_factors(const vgs_sampler *s, int t, double *noise)
{
    double so_far = 0.0, share;
    int i;
    *noise = sqrt((double)s->s2[t]);
    if (!vgs__config_from_zero(&s->c)) return 1.0 / (double)s->a[t];
    for (i = 0; i < t; ++i) so_far += (double)s->s2[i];
    share = so_far / (so_far + (double)s->s2[t]);
    *noise *= sqrt(share);
    return share;
}

/* Step t backwards: x_t takes its place, the cost of the sampler's step is in r->cost. */
static vgs_status vgs__score_run(vgs_sampler *s, vgs__score_stage *st, const vgs__roll *r, int t,
                                 vgs_error *err)
{
    double noise, left = vgs__score_back_factors(s, t, &noise);
    vgs_bind(st->g, st->next, r->x, vgs__roll_place(s, r, t + 1), NULL);
    vgs_bind(st->g, st->x, r->x, vgs__roll_place(s, r, t), NULL);
    vgs_bind(st->g, st->cost, r->cost, 0, NULL);
    if (t == s->c.steps - 1) vgs__roll_see(s, r);
    vgs__kernel_set_step(s, &st->k, t, 1.0, r->first_row);
    vgs_scalar_set(st->g, st->inv_a, left);
    vgs_scalar_set(st->g, st->s, noise);
    vgs_noise_set(st->g, &st->noise, r->seed, VGS__FOR_SCORE, 0, t, r->first_row);
    return vgs_graph_run(st->g, r->n, err);
}

static void vgs__state_free(vgs__state *h)
{
    vgs__free(h->w);
    memset(h, 0, sizeof *h);
}

/* ==== >>life: the sampler's stages, creation ========================================================== */

/* kind, name, when it exists, rows, what its record function is told. Those that never exist at first are
   made at their first use. */
#define VGS__STAGES(X) \
    X(start,      start,       true,                    s->capacity, (s, st))                         \
    X(step,       step,        true,                    s->capacity, (s, st, false, false, false))    \
    X(step,       last,        !vgs__config_is_policy(c),      s->capacity, (s, st, true, false, false)) \
    X(step,       learning,    vgs__config_is_policy(c),       c->batch,    (s, st, false, false, true)) \
    X(return,     return_step, td && !c->published,     c->batch,    (s, st, false))                  \
    X(return,     return_last, td && !c->published,     c->batch,    (s, st, true))                   \
    X(fresh,      fresh_step,  td && (c->published || c->replay || vgs__replay_explores(s)), c->batch, \
      (s, st, false))                                                                                 \
    X(fresh,      fresh_last,  td && c->published,      c->batch,    (s, st, true))                   \
    X(grad,       grad,        c->slope_loss > 0.0f,    c->batch,    (s, st))                         \
    X(fd,         fd,          c->slope_loss > 0.0f,    c->batch,    (s, st, s->c.slope_loss))        \
    X(fd,         denoise_fd,  c->denoise_loss > 0.0f,  c->batch,    (s, st, s->c.denoise_loss))      \
    X(fit,        denoise_fit, c->denoise_loss > 0.0f,  c->batch,    (s, st, true))                   \
    X(end,        end,         c->denoise_loss > 0.0f,  c->batch,    (s, st))                         \
    X(denoise,    denoise,     c->denoise_loss > 0.0f,  c->batch,    (s, st))                         \
    X(fit,        fit,         td,                      c->batch,    (s, st, false))                  \
    X(ema,        ema,         true,                    c->batch,    (s, st))                         \
    X(sigma,      sigma_fit,   true,                    c->batch,    (s, st))                         \
    X(dp,         dp_step,     dxdp,                    c->batch,    (s, st, false))                  \
    X(dp,         dp_last,     dxdp,                    c->batch,    (s, st, true))                   \
    X(policy_fit, policy_fit,  dxdp,                    c->batch,    (s, st))                         \
    X(velocity,   velocity,    dxdp,                    c->batch,    (s, st))                         \
    X(average,    average,     vgs__config_is_policy(c),       c->batch,    (s, st))                  \
    X(path_cost,  path_cost,   logvar,                  c->batch,    (s, st))                         \
    X(path_end,   path_end,    logvar,                  c->batch,    (s, st))                         \
    X(path_step,  path_step,   logvar,                  c->batch,    (s, st))                         \
    X(path_fit,   path_fit,    logvar,                  c->batch,    (s, st))                         \
    X(factor,     factor_step, !c->fixed_kernel,        c->batch,    (s, st, false))                  \
    X(factor,     factor_last, !c->fixed_kernel,        c->batch,    (s, st, true))                   \
    X(keep,       keep,        c->replay > 0,           c->batch,    (s, st))                         \
    X(recall,     recall,      c->replay > 0,           c->batch,    (s, st))                         \
    X(back,       back,        c->replay > 0,           c->batch,    (s, st))                         \
    X(mala_begin, mala_begin,  c->refine > 0,           c->batch,    (s, st, false))                  \
    X(mala_step,  mala_step,   c->refine > 0,           c->batch,    (s, st, false))                  \
    X(value,      value,       false,                   s->capacity, (s, st, true))                   \
    X(value,      twist,       false,                   s->capacity, (s, st, false))

struct vgs__stages {
#define VGS__MEMBER(kind, name, when, rows, told) vgs__##kind##_stage name;
    VGS__STAGES(VGS__MEMBER)
#undef VGS__MEMBER
};

/* Records and compiles a stage whose struct begins at `graph`. */
#define VGS__STAGE_MAKE(kind, stage, rows, told, code)                                                \
    {                                                                                                 \
        vgs__##kind##_stage *st = (stage);                                                            \
        st->g = vgs_graph_create(err);                                                                \
        if (st->g) vgs__##kind##_record told;                                                         \
        (code) = st->g ? vgs_graph_compile(st->g, s->b, (rows), err) : VGS_E_NOMEM;                   \
        if (st->g) s->bytes += vgs_graph_bytes(st->g);                                                \
    }

static vgs_status vgs__sampler_make_stages(vgs_sampler *s, vgs_error *err)
{
    const vgs_config *c = &s->c;
    const bool td = vgs__config_learns_by(c, VGS_TD), dxdp = vgs__config_learns_by(c, VGS_DXDP);
    const bool logvar = vgs__config_learns_by(c, VGS_LOGVAR);
    vgs_status code = VGS_OK;
    s->stage = (struct vgs__stages *)vgs__alloc_or(err, "sampler", 1, sizeof *s->stage);
    if (!s->stage) return VGS_E_NOMEM;
#define VGS__MAKE(kind, name, when, rows, told) \
    if (code == VGS_OK && (when)) VGS__STAGE_MAKE(kind, &s->stage->name, rows, told, code)
    VGS__STAGES(VGS__MAKE)
#undef VGS__MAKE
    return code;
}

static vgs_status vgs__sampler_make_buffers(vgs_sampler *s, vgs_error *err)
{
    const vgs_config *c = &s->c;
    const size_t T = (size_t)c->steps, B = (size_t)c->batch, D = (size_t)c->energy.dim;
    const size_t F = (size_t)s->factors, C = (size_t)s->capacity, passes = (size_t)c->passes;
    const size_t kept = (size_t)c->replay * B;
    const size_t P = s->policy ? (size_t)vgs_model_size(s->policy) : 0;
    const bool slope = c->slope_loss > 0.0f || c->denoise_loss > 0.0f, own = !vgs__config_is_plain(c);
    const bool dxdp = vgs__config_learns_by(c, VGS_DXDP), logvar = vgs__config_learns_by(c, VGS_LOGVAR);
#define VGS__MAKE(name, when, n) \
    if (when) {                                                                                       \
        s->name = s->b->buffer_create(s->b->self, (n), err);                                          \
        if (!s->name) return VGS_E_NOMEM;                                                             \
        s->bytes += 4 * (size_t)(n);                                                                  \
    }
    VGS__BUFFERS(VGS__MAKE)
#undef VGS__MAKE
    return VGS_OK;
}

static size_t vgs__sampler_factor_count(const vgs_sampler *s)
{
    return 2 * (size_t)s->c.steps * (size_t)s->factors;
}
static size_t vgs__sampler_replay_rows(const vgs_sampler *s)
{
    return (size_t)s->c.replay * (size_t)s->c.batch;
}

/* n equal numbers. */
static vgs_status vgs__sampler_upload_fill(vgs_sampler *s, vgs_buffer *to, size_t n, float v, vgs_error *err)
{
    float *x = (float *)vgs__alloc_or(err, "sampler", n, sizeof *x);
    vgs_status st = VGS_E_NOMEM;
    size_t i;
    for (i = 0; x && i < n; ++i) x[i] = v;
    if (x) st = s->b->upload(s->b->self, to, 0, x, n, VGS_F32, err);
    vgs__free(x);
    return st;
}

/* Factors of 1; in coordinates of its own those with which a step of the base is exact: of the Gaussian of
   variance v_t at t, rho_t = 1 - s_t^2 / v_t. */
static vgs_status vgs__sampler_init_factors(vgs_sampler *s, vgs_error *err)
{
    size_t n = vgs__sampler_factor_count(s), f = (size_t)s->factors, j;
    float *w = (float *)vgs__alloc_or(err, "sampler", n, sizeof *w);
    double v = 1.0;
    vgs_status st = VGS_E_NOMEM;
    int t;
    if (!w) return st;
    for (j = 0; j < n; ++j) w[j] = 1.0f;
    for (t = s->c.steps - 1; t >= 0 && !vgs__config_is_plain(&s->c); --t) {
        v = vgs__value_chain_variance(s, t, v);
        for (j = 0; j < f && !s->c.fixed_kernel; ++j)
            w[(2 * (size_t)t + 1) * f + j] = (float)sqrt(1.0 - (double)s->s2[t] / v);
    }
    st = s->b->upload(s->b->self, s->factor, 0, w, n, VGS_F32, err);
    vgs__free(w);
    return st;
}

/* lambda_t = 1 / (1 + w_t / width^2), w_t the noise from x_T back to t; 0 where width is 0. */
static vgs_status vgs__sampler_write_feature(vgs_sampler *s, vgs_error *err)
{
    size_t n = (size_t)s->c.steps;
    float *k = (float *)vgs__alloc_or(err, "sampler", n, sizeof *k);
    double w = 0.0, l2 = s->feature_width * s->feature_width;
    vgs_status st = VGS_E_NOMEM;
    int t;
    for (t = s->c.steps - 1; k && t >= 0; --t) {
        w = vgs__value_chain_variance(s, t, w);
        k[t] = (float)(l2 > 0.0 ? l2 / (l2 + w) : 0.0);
    }
    if (k) st = s->b->upload(s->b->self, s->feature, 0, k, n, VGS_F32, err);
    vgs__free(k);
    return st;
}

/* v_t = sigma_t^2 */
static vgs_status vgs__sampler_begin_velocity(vgs_sampler *s, vgs_error *err)
{
    size_t n = (size_t)s->c.steps, t;
    float *v = (float *)vgs__alloc_or(err, "policy", n, sizeof *v);
    vgs_status st = v ? vgs__policy_read_sigma(s, s->policy_on, err) : VGS_E_NOMEM;
    for (t = 0; v && t < n; ++t) v[t] = expf(2.0f * s->log_sigma[t]);
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->velocity, 0, v, n, VGS_F32, err);
    vgs__free(v);
    return st;
}

/* The deviation of x_{t+1} given x_t and x_T, under the noising chain; of the last step, which has none, 0.05
   at most. */
static void vgs__sampler_fill_posterior(const vgs_sampler *s, float *out)
{
    double w = 0.0, v, most = 0.05 * (double)s->c.length_scale;
    int t;
    for (t = s->c.steps - 1; t >= 0; --t) {
        v = (double)s->s2[t] * (double)s->a[t] * (double)s->a[t];
        out[t] = (float)sqrt(w > 0.0 ? w * v / (w + v) : v < most * most ? v : most * most);
        w = vgs__value_chain_variance(s, t, w);
    }
}

/* The network of the policy that learns has been trained as a denoising diffusion model: sigma_t goes with
   it, and the average and Adam's moments begin. */
static vgs_status vgs__sampler_begin_policy(vgs_sampler *s, vgs_error *err)
{
    size_t n = (size_t)vgs_model_size(s->policy_on), at = (size_t)vgs__policy_net_size(s->policy_on);
    float *w = (float *)vgs__alloc_or(err, "policy", 3 * n, sizeof *w);          /* zeros              */
    vgs_status st = w ? vgs_model_read(s->policy_on, w, err) : VGS_E_NOMEM;
    int t;
    if (w) vgs__sampler_fill_posterior(s, w + at);
    for (t = 0; w && t < s->c.steps; ++t) w[at + (size_t)t] = logf(w[at + (size_t)t]);
    if (st == VGS_OK) st = vgs_model_write(s->policy_on, w, err);
    if (st == VGS_OK) st = vgs_model_write(s->policy, w, err);
    if (st == VGS_OK) st = vgs_model_write_adam(s->policy_on, w + n, w + 2 * n, 0, err);
    vgs__free(w);
    return st == VGS_OK ? vgs__sampler_begin_velocity(s, err) : st;
}

/* s0 from the schedule, factors, an empty replay store (log w = -FLT_MAX) whose MALA begins with a step of
   s2_end/2. */
static vgs_status vgs__sampler_init_state(vgs_sampler *s, vgs_error *err)
{
    float s0 = (float)vgs_schedule_fill(&s->c, s->s2, s->a), h = 0.5f * s->c.s2_end;
    vgs_status st = s->b->upload(s->b->self, s->sigma, 0, &s0, 1, VGS_F32, err);
    if (st == VGS_OK) st = vgs__sampler_init_factors(s, err);
    if (st == VGS_OK && vgs__config_learns_by(&s->c, VGS_DXDP)) st = vgs__sampler_begin_velocity(s, err);
    if (st == VGS_OK && s->c.energy_features > 0) st = vgs__sampler_write_feature(s, err);
    if (st != VGS_OK || !s->c.replay) return st;
    st = vgs__sampler_upload_fill(s, s->replay_weight, vgs__sampler_replay_rows(s), -FLT_MAX, err);
    return st == VGS_OK ? s->b->upload(s->b->self, s->mala_h, 0, &h, 1, VGS_F32, err) : st;
}

/* The arrays of the last layer become 0, and so does what the network gives. */
static vgs_status vgs__sampler_begin_at_zero(vgs_model *m, vgs_error *err)
{
    static const char *const last[] = { "out.weight", "level.", "additive.", "out.3." };
    float *w = (float *)vgs__alloc_or(err, "weights", (size_t)m->net->size, sizeof *w);
    vgs_status st = w ? vgs_model_read(m, w, err) : VGS_E_NOMEM;
    int i, k;
    for (i = 0; i < m->net->n_info && st == VGS_OK; ++i) {
        const vgs_param_info *p = &m->net->info[i];
        size_t bytes = (size_t)(p->rows ? p->rows : 1) * (size_t)p->cols * sizeof *w;
        for (k = 0; k < 4; ++k)
            if (!strncmp(p->name, last[k], strlen(last[k]))) memset(w + p->offset, 0, bytes);
    }
    if (st == VGS_OK) st = vgs_model_write(m, w, err);
    vgs__free(w);
    return st;
}

/* m and log sigma_t, with drift_energy the factors of grad E, too. m begins at 0, sigma_t as that of the
   chain, the factors at 0. */
static vgs_model *vgs__sampler_create_policy(vgs_sampler *s, vgs_error *err)
{
    vgs__net *net = vgs__net_create(&s->c.policy, err);
    vgs_rng r = { 0, 1, 0 };                     /* not the value's first weights                     */
    vgs_model *m;
    float *w;
    int t, at;
    if (!net) return NULL;
    at = net->size;
    vgs__net_list(net, "log_sigma", s->c.steps, 1);
    if (s->c.drift_energy) vgs__net_list(net, "of_energy", s->c.steps, 1);
    w = net->failed ? NULL : (float *)vgs__alloc_or(err, "policy", (size_t)net->size, sizeof *w);
    if (!w) {
        if (net->failed) vgs__fail(err, VGS_E_NOMEM, "out of memory: policy of %d steps", s->c.steps);
        vgs__net_free(net);
        return NULL;
    }
    r.seed = s->c.seed;
    vgs__net_init(net, &r, w);
    memset(w + at, 0, (size_t)(net->size - at) * sizeof *w);
    for (t = 0; t < s->c.steps; ++t) w[at + t] = (float)log(sqrt((double)s->s2[t]) * (double)s->a[t]);
    m = vgs__model_make(net, s->b, w, err);
    vgs__free(w);
    if (m && vgs__sampler_begin_at_zero(m, err) == VGS_OK) return m;
    vgs_model_free(m);
    return NULL;
}

static vgs_status vgs__sampler_make_policy(vgs_sampler *s, vgs_error *err)
{
    if (!vgs__config_is_policy(&s->c)) return VGS_OK;
    s->policy_on = vgs__sampler_create_policy(s, err);
    s->policy = s->policy_on ? vgs__sampler_create_policy(s, err) : NULL;
    if (!s->policy || vgs__model_moments(s->policy_on, err) != VGS_OK) return VGS_E_NOMEM;
    s->bytes += 5 * 4 * (size_t)vgs_model_size(s->policy);
    return VGS_OK;
}

static vgs_status vgs__sampler_make_models(vgs_sampler *s, vgs_error *err)
{
    vgs_status st = VGS_OK;
    s->online = s->lent ? s->lent : vgs_model_create(&s->c.net, s->b, s->c.seed, err);
    s->target = s->online ? vgs_model_create(&s->c.net, s->b, s->c.seed, err) : NULL;
    if (!s->target) return VGS_E_NOMEM;
    s->bytes += 5 * 4 * (size_t)vgs_model_size(s->online);           /* weights twice, gradient, moments  */
    if ((st = vgs__sampler_make_policy(s, err)) != VGS_OK) return st;
    if (vgs__config_is_plain(&s->c) && !vgs__config_learns_by(&s->c, VGS_LOGVAR)) return VGS_OK;
    st = vgs__sampler_begin_at_zero(s->online, err);
    return st == VGS_OK ? vgs__sampler_begin_at_zero(s->target, err) : st;
}

/* Makes all that depends on s->c, on a backend that is there. */
static vgs_status vgs__sampler_build(vgs_sampler *s, vgs_error *err)
{
    size_t t = (size_t)s->c.steps;
    vgs_status st;
    s->capacity = s->c.batch > 512 ? s->c.batch : 512;
    s->last_by_value = !vgs__config_is_plain(&s->c); /* V begins as the exact one of a Gaussian           */
    s->s2 = (float *)vgs__alloc_or(err, "schedule", 4 * t + (size_t)s->c.energy.dim, sizeof *s->s2);
    if (!s->s2) return VGS_E_NOMEM;
    s->a = s->s2 + t;
    s->correct_step = s->a + t;
    s->log_sigma = s->correct_step + t;
    s->outside_x = s->log_sigma + t;
    s->outside_max = 1.0;
    vgs_schedule_fill(&s->c, s->s2, s->a);       /* the policy's first sigma_t                        */
    if ((st = vgs__sampler_make_models(s, err)) != VGS_OK) return st;
    if ((st = vgs__sampler_make_buffers(s, err)) != VGS_OK) return st;
    if ((st = vgs__sampler_init_state(s, err)) != VGS_OK) return st;
    st = vgs__evaluator_open(&s->energies, s->energy, s->b, s->own ? vgs_cpu_threads(s->own) : 1, s->capacity,
                             err);
    return st == VGS_OK ? vgs__sampler_make_stages(s, err) : st;
}

/* Leaves the sampler without what vgs__sampler_build makes, all of it freed before. */
static void vgs__sampler_forget(vgs_sampler *s)
{
#define VGS__FORGET(name, when, n) s->name = NULL;
    VGS__BUFFERS(VGS__FORGET)
#undef VGS__FORGET
    memset(&s->energies, 0, sizeof s->energies);
    s->stage = NULL;
    s->online = s->target = s->policy_on = s->policy = NULL;
    s->s2 = NULL;
    s->bytes = 0;
}

/* The reverse, also after a failure. */
static void vgs__sampler_unbuild(vgs_sampler *s)
{
    if (s->stage) {
#define VGS__FREE(kind, name, when, rows, told) vgs_graph_free(s->stage->name.g);
        VGS__STAGES(VGS__FREE)
#undef VGS__FREE
    }
    vgs__free(s->stage);
    vgs__evaluator_close(&s->energies);
#define VGS__FREE(name, when, n) if (s->name) s->b->buffer_free(s->b->self, s->name);
    VGS__BUFFERS(VGS__FREE)
#undef VGS__FREE
    if (!s->lent) vgs_model_free(s->online);
    vgs_model_free(s->target);
    vgs_model_free(s->policy_on);
    vgs_model_free(s->policy);
    vgs__free(s->s2);
    vgs__sampler_forget(s);
}

/* A sampler of another resolved configuration, with the same energy, backend and coordinates, takes the place
   of s; after a failure s is as it was. */
static vgs_status vgs__sampler_rebuild(vgs_sampler *s, const vgs_config *c, vgs_error *err)
{
    vgs_sampler next = *s;
    vgs_status st;
    vgs__sampler_forget(&next);
    next.c = *c;
    st = vgs__sampler_build(&next, err);
    if (st == VGS_OK) {
        vgs__sampler_unbuild(s);
        *s = next;
    } else vgs__sampler_unbuild(&next);
    return st;
}

static vgs_status vgs__sampler_init(vgs_sampler *s, vgs_error *err)
{
    vgs_cpu_config cpu = { 0, VGS_ISA_AUTO };
    const vgs_config *c = &s->c;
    bool record = c->energy.record || (c->energy.eval && c->backend), plain = vgs__config_is_plain(c);
    vgs_status st;
    cpu.threads = c->threads;
    if (!c->backend && !(s->own = vgs_cpu_create(&cpu, err))) return VGS_E_NOMEM;
    s->b = c->backend ? c->backend : s->own;
    s->energy = plain ? &s->c.energy : &s->frame.energy;
    s->tau = plain ? (double)c->tau : 1.0;
    s->energy_max = c->energy_max / (plain ? 1.0f : c->tau);
    st = vgs__frame_open(&s->frame, &s->c.energy, c->coordinates, (double)c->length_scale, (double)c->tau,
                         s->b, record, err);
    return st == VGS_OK ? vgs__sampler_build(s, err) : st;
}

/* ---- an energy whose parameters belong to no model ---- */

/* The graph of a stage that evaluates E. */
static vgs_graph *vgs__sampler_energy_graph(const vgs_sampler *s)
{
    if (vgs__config_learns_by(&s->c, VGS_DXDP)) return s->stage->dp_last.g;
    return vgs__config_learns_by(&s->c, VGS_LOGVAR) ? s->stage->path_end.g : s->stage->last.g;
}

/* Returns whether a node is parameters of the energy that no node before it has: features record E once
   more. */
static bool vgs__sampler_is_energy_params(const vgs_sampler *s, const vgs_graph *g, int id)
{
    const vgs__node *n = &g->node[id];
    int k;
    if (n->op != VGS_OP_PARAMS || !n->live) return false;
    if (n->model && (n->model == s->online || n->model == s->target || n->model == s->policy ||
                     n->model == s->policy_on)) return false;
    for (k = 0; k < id; ++k) {
        const vgs__node *o = &g->node[k];
        if (o->op == VGS_OP_PARAMS && o->live && o->buf == n->buf && o->offset == n->offset) return false;
    }
    return true;
}

/* The sum of checksums (FNV-1a) of the parameters that the energy has bound by itself; 0 where there are
   none. They have no version that would grow with a change. */
static vgs_status vgs__sampler_energy_params(vgs_sampler *s, uint64_t *sum, vgs_error *err)
{
    const vgs_graph *g = vgs__sampler_energy_graph(s);
    vgs_status st = VGS_OK;
    int id;
    *sum = 0;
    for (id = 0; id < g->n_node && st == VGS_OK; ++id) {
        const vgs__node *n = &g->node[id];
        uint64_t one = 14695981039346656037u;
        unsigned char *w;
        size_t i, bytes = (size_t)n->cols * 4;
        if (n->model || !vgs__sampler_is_energy_params(s, g, id)) continue;
        w = (unsigned char *)vgs__alloc_or(err, "parameters", bytes, 1);
        st = w ? s->b->download(s->b->self, w, n->buf, n->offset, bytes / 4, VGS_F32, err) : VGS_E_NOMEM;
        for (i = 0; i < bytes && st == VGS_OK; ++i) one = (one ^ w[i]) * 1099511628211u;
        *sum += one;
        vgs__free(w);
    }
    return st;
}

/* Another number after a change of E: of its models, of what it has bound, and where touch tells of one. */
static uint64_t vgs__sampler_energy_version(const vgs_sampler *s)
{
    const vgs_graph *g = vgs__sampler_energy_graph(s);
    uint64_t version = s->energy_params + s->touched;
    int id;
    for (id = 0; id < g->n_node; ++id)
        if (g->node[id].model && vgs__sampler_is_energy_params(s, g, id))
            version += g->node[id].model->version;
    return version;
}

/* lent: NULL, or the network of the value, whose weights are as many as those of cfg->net. */
static vgs_sampler *vgs__sampler_create(const vgs_config *cfg, vgs_model *lent, vgs_error *err)
{
    vgs_config c;
    vgs_sampler *s;
    if (vgs_config_resolve(cfg, &c, err) != VGS_OK) return NULL;
    s = (vgs_sampler *)vgs__alloc_or(err, "sampler", 1, sizeof *s);
    if (!s) return NULL;
    s->given = *cfg;
    s->lent = lent;
    s->lr_factor = 1.0f;
    s->c = c;
    s->dim = vgs__config_effective_dim(&c);
    s->factors = vgs__config_is_particles(&c) ? 1 : c.energy.dim;
    if (vgs__sampler_init(s, err) == VGS_OK && vgs__sampler_energy_params(s, &s->energy_params,
                                                                          err) == VGS_OK) return s;
    vgs_sampler_free(s);
    return NULL;
}

VGS__DEF vgs_sampler *vgs_sampler_create(const vgs_config *cfg, vgs_error *err)
{
    if (cfg) return vgs__sampler_create(cfg, NULL, err);
    vgs__fail(err, VGS_E_ARG, "sampler: the configuration is NULL");
    return NULL;
}

VGS__DEF void vgs_sampler_free(vgs_sampler *s)
{
    if (!s) return;
    vgs__state_free(&s->best);
    vgs__state_free(&s->training);
    vgs__sampler_unbuild(s);
    vgs__frame_close(&s->frame);
    vgs_cpu_free(s->own);
    vgs__free(s);
}

VGS__DEF const vgs_config *vgs_sampler_config(const vgs_sampler *s) { return &s->c; }
VGS__DEF int64_t vgs_sampler_iteration(const vgs_sampler *s) { return s->iteration; }
VGS__DEF const vgs_pilot *vgs_sampler_pilot(const vgs_sampler *s) { return s->piloted ? &s->pilot : NULL; }
VGS__DEF bool vgs_sampler_reached(const vgs_sampler *s) { return s->reached; }
VGS__DEF vgs_model *vgs_sampler_model(vgs_sampler *s) { return s->target; }
VGS__DEF vgs_model *vgs_sampler_policy(vgs_sampler *s, bool average)
{
    return average ? s->policy : s->policy_on;
}
VGS__DEF size_t vgs_sampler_bytes(const vgs_sampler *s)
{
    return s->bytes + (s->own ? vgs__cpu_bytes(s->own) : 0);
}

static vgs_status vgs__sampler_check_energy_params(vgs_sampler *s, const char *doing, vgs_error *err)
{
    uint64_t sum;
    vgs_status st = vgs__sampler_energy_params(s, &sum, err);
    if (st != VGS_OK || sum == s->energy_params) return st;
    return vgs__fail(err, VGS_E_ARG, "%s: parameters that the energy has bound have changed: call "
                     "vgs_sampler_touch after a change, or let them belong to a vgs_model", doing);
}

VGS__DEF vgs_status vgs_sampler_touch(vgs_sampler *s, vgs_error *err)
{
#define VGS__TOUCH(kind, name, when, rows, told) if (s->stage->name.g) vgs_graph_touch(s->stage->name.g);
    VGS__STAGES(VGS__TOUCH)
#undef VGS__TOUCH
    vgs__evaluator_touch(&s->energies);
    s->touched++;
    return vgs__sampler_energy_params(s, &s->energy_params, err);
}

/* ==== >>draw: samples and their path weights ========================================================== */

/* ---- path weights: log w = |x_0|^2 / (2 s0^2) + constant - sum of the steps' costs - E/tau ---- */

/* D sum_t log(sigma_t/(s_t a_t)), of a policy: what its noise adds to log w */
static vgs_status vgs__draw_weight_policy(vgs_sampler *s, double *out, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int t;
    *out = 0.0;
    if (!s->policy) return st;
    st = vgs__policy_read_sigma(s, s->policy, err);
    for (t = 0; t < s->c.steps; ++t)
        *out += s->dim * ((double)s->log_sigma[t] - log(sqrt((double)s->s2[t]) * (double)s->a[t]));
    return st;
}

/* D [sum_t log(sqrt(rho_t) a_t) + log(s0) + log(2 pi)/2], and what coordinates make of Z */
static vgs_status vgs__draw_weight_constant(vgs_sampler *s, double s0, double *out, vgs_error *err)
{
    size_t n = vgs__sampler_factor_count(s), f = (size_t)s->factors, t, j;
    float *w = (float *)vgs__alloc_or(err, "draw", n, sizeof *w);
    vgs_status st = w ? s->b->download(s->b->self, w, s->factor, 0, n, VGS_F32, err) : VGS_E_NOMEM;
    *out = log(s0) + 0.5 * log(6.283185307179586);
    for (t = 0; t < (size_t)s->c.steps && st == VGS_OK; ++t) {
        *out += log((double)s->a[t]);
        for (j = 0; j < f; ++j) *out += log((double)w[(2 * t + 1) * f + j]) / (double)f;
    }
    *out = *out * s->dim + s->frame.log_volume - s->frame.e0 / s->frame.tau;
    vgs__free(w);
    return st;
}

/* log_weight += |x_0|^2 / (2 s0^2) + constant, -log p0; on the sphere x_0 is uniform. x receives x_0. Of
   paths from 0 it is x_T, whose density under the reference is known. */
static vgs_status vgs__draw_weight_start(vgs_sampler *s, const vgs__roll *r, float *x, double *log_weight,
                                         vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n, i, j;
    float s0 = 1.0f;
    double constant = 0.0, noise = 0.0;
    vgs_status st = s->b->download(s->b->self, &s0, s->sigma, 0, 1, VGS_F32, err);
    if (st == VGS_OK) st = vgs__draw_weight_policy(s, &noise, err);
    if (st == VGS_OK && s->c.on_sphere) constant = vgs__kernel_sphere_log_area(s->c.energy.dim);
    else if (st == VGS_OK) st = vgs__draw_weight_constant(s, (double)s0, &constant, err);
    constant += noise;
    if (st == VGS_OK)
        st = s->b->download(s->b->self, x, r->x, vgs__roll_place(s, r, vgs__value_known_step(s)), n * d,
                            VGS_F32,
                            err);
    for (i = 0; i < n && st == VGS_OK; ++i) {
        double sum = 0.0;
        for (j = 0; j < d && !s->c.on_sphere; ++j) sum += (double)x[i * d + j] * (double)x[i * d + j];
        log_weight[i] += sum / (2.0 * (double)s0 * (double)s0) + constant;
    }
    return st;
}

/* Of given starts on the sphere, after the first step: a path has the density of x_1 given x_0 in place of
   that of x_0 and x_1, and the noising chain ends at x_1. log_weight -= log qt(x_0|x_1); x receives x_1. */
static vgs_status vgs__draw_weight_given(vgs_sampler *s, const vgs__roll *r, float *x, double *log_weight,
                                         vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n, i;
    vgs_status st = s->b->download(s->b->self, x, r->x, vgs__roll_place(s, r, 1), n * d, VGS_F32, err);
    for (i = 0; i < n && st == VGS_OK; ++i)
        log_weight[i] -= vgs__kernel_sphere_log_back(s, 0, r->start + i * d, x + i * d);
    return st;
}

/* log_weight += factor times a column [n] of the backend; row [n] is scratch */
static vgs_status vgs__draw_weight_add(vgs_sampler *s, vgs_buffer *column, int n, double factor, float *row,
                                       double *log_weight, vgs_error *err)
{
    vgs_status st = s->b->download(s->b->self, row, column, 0, (size_t)n, VGS_F32, err);
    int i;
    for (i = 0; i < n && st == VGS_OK; ++i) log_weight[i] += factor * (double)row[i];
    return st;
}

/* log_weight -= E/tau; e [n] receives E */
static vgs_status vgs__draw_weight_end(vgs_sampler *s, int n, const float *x, double *e, double *log_weight,
                                       vgs_error *err)
{
    vgs_status st = vgs__sampler_energies(s, x, n, e, err);
    int i;
    for (i = 0; log_weight && i < n && st == VGS_OK; ++i) log_weight[i] -= e[i] / s->tau;
    return st;
}

/* Why there are no path weights, or NULL. */
static const char *vgs__draw_weightless(const vgs_sampler *s, const vgs_draw *o)
{
    if (o->start && (!s->c.on_sphere || o->resample > 0.0f)) return "of given starts: x_0 has no density";
    if (o->skip_final_noise) return "with skip_final_noise: the last step has no density";
    if (o->noise_scale != 0.0f && o->noise_scale != 1.0f) return "of another noise_scale than 1";
    return NULL;
}

static vgs__roll vgs__draw_roll(const vgs_sampler *s, const vgs_draw *o, uint64_t iteration)
{
    vgs__roll r;
    memset(&r, 0, sizeof r);
    r.start_stream = VGS__FOR_DRAW_START;
    r.step_stream = VGS__FOR_DRAW_STEP;
    r.seed = o->seed ? o->seed : s->c.seed;
    r.iteration = iteration;
    r.start_scale = r.step_scale = o->noise_scale == 0.0f ? 1.0 : (double)o->noise_scale;
    r.last_scale = o->skip_final_noise ? 0.0 : r.start_scale;
    r.x = s->draw_x;
    r.mu = s->draw_mu;
    r.mu2 = s->draw_mu2;
    r.cost = s->draw_cost;
    r.part = s->draw_part;
    r.noise_std = s->draw_noise_std;
    r.eigvec = s->draw_eigvec;
    r.x_stride = (size_t)s->capacity;
    r.x_places = 2;
    return r;
}

/* A call that drew ends by this: without error, with its own, or with what the flag says. */
static vgs_status vgs__draw_end(vgs_sampler *s, const char *doing, vgs_status st, vgs_error *err)
{
    if (st == VGS_OK) return vgs__sampler_read_flag(s, doing, err);
    vgs__model_clear_flag(s->online);
    return st;
}

/* ---- the corrector: MALA on V_t before step t ---- */

struct vgs__corrector {
    vgs__mala_begin_stage begin;
    vgs__mala_step_stage walk;
    vgs__step_stage step;                        /* from there, with its gradient; no explicit_drift  */
    vgs_buffer *v, *grad;                        /* [capacity], [capacity, D]: of the last block      */
    vgs_buffer *h;                               /* [T]: MALA's step at each t                        */
    int steps;
};

/* Step t of a trajectory, by the stage that it takes. */
static vgs_status vgs__roll_step(vgs_sampler *s, const vgs__roll *r, int t, vgs_error *err)
{
    vgs__step_stage *st = vgs__kernel_last_by_energy(s, t) ? &s->stage->last : &s->stage->step;
    if (r->learning) st = &s->stage->learning;
    if (r->corrector && t < s->c.steps - 1 && r->corrector->step.g) {
        st = &r->corrector->step;
        vgs_bind(st->g, st->grad, r->corrector->grad, 0, NULL);
    }
    return vgs__step_run(s, st, r, t, err);
}

static vgs_status vgs__corrector_begin(vgs_sampler *s, const vgs__roll *r, int t, vgs_error *err)
{
    vgs__corrector *c = r->corrector;
    size_t place = vgs__roll_place(s, r, t);
    vgs__mala_step_bind(&c->walk, r->x, place, c->v, c->grad, c->h, (size_t)t);
    vgs_scalar_set(c->walk.g, c->walk.t, t);
    vgs_scalar_set(c->begin.g, c->begin.t, t);
    return vgs__mala_begin_run(&c->begin, r->n, r->x, place, NULL, c->v, c->grad, err);
}

/* Step number k of MALA; h follows acceptance at this rate. */
static vgs_status vgs__corrector_step(vgs_sampler *s, const vgs__roll *r, int t, int64_t k, double rate,
                                      vgs_error *err)
{
    vgs__mala_step_stage *st = &r->corrector->walk;
    (void)s;
    vgs_scalar_set(st->g, st->rate, rate);
    vgs_scalar_set(st->g, st->rate_add, -rate * VGS__MALA_ACCEPTANCE);
    return vgs__mala_step_run(st, r->n, r->seed, VGS__FOR_CORRECT, VGS__FOR_CORRECT_ACCEPT, k, t,
                              r->first_row, err);
}

/* Numbers of MALA's steps, so that no two uses have the same noise. */
enum { VGS__MALA_FORWARD = 0, VGS__MALA_BACK = 1 << 28, VGS__MALA_FIT = 1 << 29 };

/* MALA on V_t leaves exp(-V_t/tau) as it is. Before step t it forgets where an imperfect start or step has
   led, as far as its steps reach, and moves log w by the change of V_t/tau: for the path that is then walked
   E[w] = Z as before, since a reversible move and its reverse have densities in that ratio [Neal 2001].
   Forward (sign 1) x_t arrives and is moved on; backward (-1) it is where a path went on, and is taken back
   to where it arrived. Nothing happens if the roll has no corrector. */
static vgs_status vgs__draw_correct(vgs_sampler *s, const vgs__roll *r, int t, double sign, float *row,
                                    double *log_weight, vgs_error *err)
{
    vgs__corrector *c = r->corrector;
    int64_t first = sign > 0.0 ? VGS__MALA_FORWARD : VGS__MALA_BACK;
    double unit = sign / s->tau;
    vgs_status st;
    int k;
    if (!c) return VGS_OK;
    st = vgs__corrector_begin(s, r, t, err);
    if (st == VGS_OK && log_weight) st = vgs__draw_weight_add(s, c->v, r->n, -unit, row, log_weight, err);
    for (k = 0; k < c->steps && st == VGS_OK; ++k) st = vgs__corrector_step(s, r, t, first + k, 0.0, err);
    if (st == VGS_OK && log_weight) st = vgs__draw_weight_add(s, c->v, r->n, unit, row, log_weight, err);
    return st;
}

/* MALA's h at step t, from a few rows that adapt it there; *h is in units of s_t^2, of the step before. */
static vgs_status vgs__corrector_fit_step(vgs_sampler *s, const vgs__roll *r, int t, double *h,
                                          vgs_error *err)
{
    static const double rate[12] = { 1.5, 1.5, 1.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3 };
    double unit = (double)s->s2[t] * (double)s->a[t] * (double)s->a[t];
    float *step = s->correct_step + t;
    vgs_buffer *on = r->corrector->h;
    vgs_status st;
    int k;
    *step = (float)(*h * unit);
    st = s->b->upload(s->b->self, on, (size_t)t, step, 1, VGS_F32, err);
    if (st == VGS_OK) st = vgs__corrector_begin(s, r, t, err);
    for (k = 0; k < 12 && st == VGS_OK; ++k) st = vgs__corrector_step(s, r, t, VGS__MALA_FIT + k, rate[k],
                                                                      err);
    if (st == VGS_OK) st = s->b->download(s->b->self, step, on, (size_t)t, 1, VGS_F32, err);
    if (st != VGS_OK) return st;
    *h = (double)*step / unit;
    *h = *h > 100.0 ? 100.0 : *h;                /* where V_t is flat                                 */
    *step = (float)(*h * unit);
    return VGS_OK;
}

/* Before the first corrected draw with these weights: a function of them and the seed alone, whatever the
   rows that are drawn, as exactness requires. E is not evaluated. */
enum { VGS__FIT_ROWS = 128 };
static vgs_status vgs__corrector_fit(vgs_sampler *s, vgs__corrector *c, vgs_error *err)
{
    uint64_t version = vgs_model_version(s->target);
    double h = 4.0;
    vgs_draw o;
    vgs__roll r;
    vgs_status st;
    int t;
    if (s->correct_version == version) return VGS_OK;
    memset(&o, 0, sizeof o);
    r = vgs__draw_roll(s, &o, VGS__MALA_FIT);
    r.n = VGS__FIT_ROWS < s->capacity ? VGS__FIT_ROWS : s->capacity;
    r.corrector = c;
    st = vgs__start_run(s, &s->stage->start, &r, err);
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) {
        st = vgs__corrector_fit_step(s, &r, t, &h, err);
        if (st == VGS_OK && t + 1 < s->c.steps) st = vgs__roll_step(s, &r, t, err);
    }
    st = vgs__draw_end(s, "draw: fitting the correction", st, err);
    if (st == VGS_OK) s->correct_version = version;
    return st;
}

static void vgs__corrector_free(vgs_sampler *s, vgs__corrector *c)
{
    vgs_graph_free(c->begin.g);
    vgs_graph_free(c->walk.g);
    vgs_graph_free(c->step.g);
    if (c->v) s->b->buffer_free(s->b->self, c->v);
    if (c->grad) s->b->buffer_free(s->b->self, c->grad);
    if (c->h) s->b->buffer_free(s->b->self, c->h);
}

static vgs_status vgs__corrector_stages(vgs_sampler *s, vgs__corrector *c, vgs_error *err)
{
    size_t bytes = s->bytes;                     /* they live for one call                            */
    vgs_status code;
    VGS__STAGE_MAKE(mala_begin, &c->begin, s->capacity, (s, st, true), code)
    if (code == VGS_OK) VGS__STAGE_MAKE(mala_step, &c->walk, s->capacity, (s, st, true), code)
    if (code == VGS_OK && !s->c.explicit_drift)
        VGS__STAGE_MAKE(step, &c->step, s->capacity, (s, st, false, true, false), code)
    s->bytes = bytes;
    return code;
}

/* A corrector for the draws of roll r, which from then on has it; steps = 0: none. */
static vgs_status vgs__corrector_make(vgs_sampler *s, vgs__corrector *c, int steps, vgs__roll *r,
                                      vgs_error *err)
{
    size_t cap = (size_t)s->capacity, t = (size_t)s->c.steps;
    vgs_status st;
    memset(c, 0, sizeof *c);
    if (!steps) return VGS_OK;
    c->steps = steps;
    if (!(c->v = s->b->buffer_create(s->b->self, cap, err)) ||
        !(c->grad = s->b->buffer_create(s->b->self, cap * (size_t)s->c.energy.dim, err)) ||
        !(c->h = s->b->buffer_create(s->b->self, t, err)))
        return VGS_E_NOMEM;
    st = vgs__corrector_stages(s, c, err);
    if (st == VGS_OK) st = vgs__corrector_fit(s, c, err);
    if (st == VGS_OK) st = s->b->upload(s->b->self, c->h, 0, s->correct_step, t, VGS_F32, err);
    r->corrector = c;
    return st;
}

/* Returns how many MALA steps this draw takes before each of its own. */
static int vgs__draw_correct_steps(const vgs_sampler *s, const vgs_draw *o)
{
    if (o->correct) return o->correct > 0 ? o->correct : 0;
    return vgs__draw_weightless(s, o) || s->c.on_sphere || s->c.correct < 0 ? 0 : s->c.correct;
}

/* ---- a draw ---- */

/* y [n,D] = x as the method wants it: finite, for particles without the mean over each row's particles, on
   the sphere of length 1. */
static vgs_status vgs__draw_rows_given(const vgs_sampler *s, const char *what, const float *x, int n,
                                       int first, float *y, vgs_error *err)
{
    int d = s->c.energy.dim, p = s->c.energy.particles, i, j;
    for (i = 0; i < n; ++i, x += d, y += d) {
        double norm = 0.0;
        for (j = 0; j < d; ++j) {
            if (!vgs__finite((double)x[j]))
                return vgs__fail(err, VGS_E_NONFINITE, "%s: row %d, column %d is %g: must be finite", what,
                                 first + i, j, (double)x[j]);
            y[j] = x[j];
            norm += (double)x[j] * (double)x[j];
        }
        if (p) vgs__centre(y, p, d / p);
        vgs__frame_rows(&s->frame, VGS__TO_U, y, 1);
        if (!s->c.on_sphere) continue;
        if (!(norm > 0.0)) return vgs__fail(err, VGS_E_ARG, "%s: row %d has length 0", what, first + i);
        for (j = 0; j < d; ++j) y[j] = (float)((double)x[j] / sqrt(norm));
    }
    return VGS_OK;
}

/* Room on the host for one block of rows. */
typedef struct vgs__host { float *start, *row; double *e; } vgs__host;

static vgs_status vgs__draw_host_make(const vgs_sampler *s, vgs__host *m, const vgs_draw *o, vgs_error *err)
{
    size_t n = (size_t)s->capacity, starts = o->start ? n * (size_t)s->c.energy.dim : 0;
    memset(m, 0, sizeof *m);
    if (!o->log_weight && !o->energy && !o->start) return VGS_OK;
    m->e = (double *)vgs__alloc_or(err, "draw", n + (n + starts + 1) / 2, sizeof *m->e);
    if (!m->e) return VGS_E_NOMEM;
    m->row = (float *)(void *)(m->e + n);
    m->start = m->row + n;
    return VGS_OK;
}

/* One block of rows of a draw, all steps; x and what o points to begin at its first row. */
static vgs_status vgs__draw_block(vgs_sampler *s, const vgs__roll *r, const vgs_draw *o, size_t path_rows,
                                  float *x, const vgs__host *m, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n;
    vgs_status st = vgs__start_run(s, &s->stage->start, r, err);
    int t, i;
    if (o->log_weight && st == VGS_OK) {
        memset(o->log_weight, 0, n * sizeof *o->log_weight);
        if (!o->start && !vgs__value_known_step(s)) st = vgs__draw_weight_start(s, r, x, o->log_weight, err);
    }
    for (t = 0; t <= s->c.steps && st == VGS_OK; ++t) {
        if (t < s->c.steps) st = vgs__draw_correct(s, r, t, 1.0, m->row, o->log_weight, err);
        if (o->path && st == VGS_OK)
            st = s->b->download(s->b->self, o->path + (size_t)t * path_rows * d, r->x,
                                vgs__roll_place(s, r, t), n * d, VGS_F32, err);
        if (t == s->c.steps || st != VGS_OK) break;
        st = vgs__roll_step(s, r, t, err);
        if (o->log_weight && st == VGS_OK)
            st = vgs__draw_weight_add(s, r->cost, r->n, -1.0, m->row, o->log_weight, err);
        if (o->log_weight && o->start && !t && st == VGS_OK)
            st = vgs__draw_weight_given(s, r, x, o->log_weight, err);
    }
    if (o->log_weight && vgs__value_known_step(s) && st == VGS_OK)
        st = vgs__draw_weight_start(s, r, x, o->log_weight, err);
    if (st == VGS_OK)
        st = s->b->download(s->b->self, x, r->x, vgs__roll_place(s, r, s->c.steps), n * d, VGS_F32, err);
    if (st == VGS_OK && (o->log_weight || o->energy))
        st = vgs__draw_weight_end(s, r->n, x, m->e, o->log_weight, err);
    for (i = 0; o->energy && i < r->n && st == VGS_OK; ++i)
        o->energy[i] = (float)vgs__frame_energy(&s->frame, x + (size_t)i * d, m->e[i]);
    vgs__frame_rows(&s->frame, VGS__TO_X, x, r->n);
    for (t = 0; o->path && t <= s->c.steps && st == VGS_OK; ++t)
        vgs__frame_rows(&s->frame, VGS__TO_X, o->path + (size_t)t * path_rows * d, r->n);
    return st;
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
    vgs__host room;
    vgs_status st;
    int i;
    if (vgs__draw_host_make(s, &room, o, err) != VGS_OK) return VGS_E_NOMEM;
    st = vgs__corrector_make(s, &corrector, n > 0 ? vgs__draw_correct_steps(s, o) : 0, &r, err);
    for (i = 0; i < n && st == VGS_OK; i += r.n) {
        r.n = vgs__draw_rows(s, n, i);
        r.first_row = o->first_row + (uint32_t)i;
        r.start = o->start ? room.start : NULL;
        if (o->start)
            st = vgs__draw_rows_given(s, "draw: start", o->start + (size_t)i * d, r.n, i, room.start, err);
        if (o->path) part.path = o->path + (size_t)i * d;
        if (o->energy) part.energy = o->energy + i;
        if (o->log_weight) part.log_weight = o->log_weight + i;
        if (st == VGS_OK) st = vgs__draw_block(s, &r, &part, (size_t)n, x + (size_t)i * d, &room, err);
    }
    vgs__corrector_free(s, &corrector);
    vgs__free(room.e);
    return vgs__draw_end(s, "draw", st, err);
}

/* ==== >>smc: twisted sequential Monte Carlo =========================================================== */

typedef struct vgs__smc {                        /* a population of n rows                            */
    int n;
    vgs__roll r;
    float *x, *spare, *row, *v;                  /* [n,D] the caller's, [n,D]; [n]; [n] V_t/tau       */
    int *which;                                  /* [n]: rows that stay                               */
    double *w, *log_weight;                      /* [n]; [n] the caller's: as without resampling, and */
} vgs__smc;                                      /* then such that the mean weight stays unbiased     */

static void vgs__smc_block(const vgs_sampler *s, vgs__smc *c, const vgs_draw *o, int i)
{
    c->r.n = vgs__draw_rows(s, c->n, i);
    c->r.first_row = o->first_row + (uint32_t)i;
    c->r.x_first = (size_t)i;
}

/* Adds the part of x_t of all rows to log w, at the step where it is known. */
static vgs_status vgs__smc_known(vgs_sampler *s, vgs__smc *c, const vgs_draw *o, int t, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_status st = VGS_OK;
    int i;
    for (i = 0; i < c->n && st == VGS_OK && t == vgs__value_known_step(s); i += c->r.n) {
        vgs__smc_block(s, c, o, i);
        st = vgs__draw_weight_start(s, &c->r, c->x + (size_t)i * d, c->log_weight + i, err);
    }
    return st;
}

static vgs_status vgs__smc_start(vgs_sampler *s, vgs__smc *c, const vgs_draw *o, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int i;
    memset(c->log_weight, 0, (size_t)c->n * sizeof *c->log_weight);
    for (i = 0; i < c->n && st == VGS_OK; i += c->r.n) {
        vgs__smc_block(s, c, o, i);
        st = vgs__start_run(s, &s->stage->start, &c->r, err);
    }
    return st == VGS_OK ? vgs__smc_known(s, c, o, 0, err) : st;
}

static vgs_status vgs__smc_step(vgs_sampler *s, vgs__smc *c, const vgs_draw *o, int t, vgs_error *err)
{
    vgs_status st = VGS_OK;
    int i;
    for (i = 0; i < c->n && st == VGS_OK; i += c->r.n) {
        vgs__smc_block(s, c, o, i);
        st = vgs__draw_correct(s, &c->r, t, 1.0, c->row, c->log_weight + i, err);
        if (st == VGS_OK) st = vgs__roll_step(s, &c->r, t, err);
        if (st == VGS_OK)
            st = vgs__draw_weight_add(s, c->r.cost, c->r.n, -1.0, c->row, c->log_weight + i, err);
    }
    return st;
}

/* v = V_t(x_t)/tau of all rows */
static vgs_status vgs__smc_value(vgs_sampler *s, vgs__smc *c, const vgs_draw *o, int t, vgs_error *err)
{
    vgs__value_stage *v = &s->stage->twist;
    vgs_status st = VGS_OK;
    int i;
    vgs__value_stage_set(s, v, t, 1.0 / s->tau);
    for (i = 0; i < c->n && st == VGS_OK; i += c->r.n) {
        vgs__smc_block(s, c, o, i);
        vgs_bind(v->g, v->x, c->r.x, vgs__roll_place(s, &c->r, t), NULL);
        vgs_bind(v->g, v->v, c->r.cost, 0, NULL);
        st = vgs_graph_run(v->g, c->r.n, err);
        if (st == VGS_OK)
            st = s->b->download(s->b->self, c->v + i, c->r.cost, 0, (size_t)c->r.n, VGS_F32, err);
    }
    return st;
}

/* Twisted weights, log w - V_t/tau: their largest logarithm, from there w [n] and its sum; their ESS/n. */
static double vgs__smc_ess(const vgs__smc *c, double *max, double *sum)
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
        c->w[i] = exp(c->log_weight[i] - (double)c->v[i] - *max);
        *sum += c->w[i];
        square += c->w[i] * c->w[i];
    }
    return *sum * *sum / (c->n * square);
}

/* Systematic resampling by the twisted weights. All rows have the mean twisted weight after that. */
static vgs_status vgs__smc_resample(vgs_sampler *s, vgs__smc *c, const vgs_draw *o, int t, double max,
                                    double sum, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)c->n, place;
    uint32_t key[2], counter[4] = { 0, 0, (uint32_t)VGS__FOR_RESAMPLE << 24, 0 }, u[4];
    vgs_status st;
    int i;
    c->r.x_first = 0;
    place = vgs__roll_place(s, &c->r, t);
    st = s->b->download(s->b->self, c->x, c->r.x, place, n * d, VGS_F32, err);
    key[0] = (uint32_t)c->r.seed;
    key[1] = (uint32_t)(c->r.seed >> 32);
    counter[0] = o->first_row;
    counter[1] = (uint32_t)t << 16;
    vgs_philox(key, counter, u);
    vgs__systematic(c->w, c->n, sum, ((double)u[0] + ((double)u[1] + 0.5) / 4294967296.0) / 4294967296.0,
                    c->which);
    for (i = 0; i < c->n && st == VGS_OK; ++i) {
        memcpy(c->spare + (size_t)i * d, c->x + (size_t)c->which[i] * d, d * sizeof *c->spare);
        c->row[i] = c->v[c->which[i]];
    }
    for (i = 0; i < c->n && st == VGS_OK; ++i) c->log_weight[i] = max + log(sum / c->n) + (double)c->row[i];
    return st == VGS_OK ? s->b->upload(s->b->self, c->r.x, place, c->spare, n * d, VGS_F32, err) : st;
}

static vgs_status vgs__smc_run(vgs_sampler *s, vgs__smc *c, const vgs_draw *o, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_status st = vgs__smc_start(s, c, o, err);
    int t, i;
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) {
        double max, sum;
        st = vgs__smc_value(s, c, o, t, err);
        if (st == VGS_OK && vgs__smc_ess(c, &max, &sum) < (double)o->resample)       /* never if NaN   */
            st = vgs__smc_resample(s, c, o, t, max, sum, err);
        if (st == VGS_OK) st = vgs__smc_step(s, c, o, t, err);
    }
    if (st == VGS_OK) st = vgs__smc_known(s, c, o, t, err);
    c->r.x_first = 0;
    if (st == VGS_OK)
        st = s->b->download(s->b->self, c->x, c->r.x, vgs__roll_place(s, &c->r, t), (size_t)c->n * d, VGS_F32,
                            err);
    if (st == VGS_OK) st = vgs__draw_weight_end(s, c->n, c->x, c->w, c->log_weight, err);
    for (i = 0; o->energy && i < c->n && st == VGS_OK; ++i)
        o->energy[i] = (float)vgs__frame_energy(&s->frame, c->x + (size_t)i * d, c->w[i]);
    vgs__frame_rows(&s->frame, VGS__TO_X, c->x, c->n);
    return st;
}

/* The stage that computes V_t, or V_t and its gradient, when it is first wanted. */
static vgs_status vgs__smc_need_value(vgs_sampler *s, vgs__value_stage *stage, bool with_grad, vgs_error *err)
{
    vgs_status code;
    if (stage->g) return VGS_OK;
    VGS__STAGE_MAKE(value, stage, s->capacity, (s, st, with_grad), code)
    if (code == VGS_OK) return code;
    vgs_graph_free(stage->g);
    stage->g = NULL;
    return code;
}

static vgs_status vgs__smc_draw(vgs_sampler *s, const vgs_draw *o, int n, float *x, vgs_error *err)
{
    size_t rows = (size_t)n, cells = rows * (size_t)s->c.energy.dim;
    vgs_status st = vgs__smc_need_value(s, &s->stage->twist, false, err);
    vgs__corrector corrector;
    vgs__smc c;
    memset(&corrector, 0, sizeof corrector);
    memset(&c, 0, sizeof c);
    if (st != VGS_OK) return st;
    c.n = n;
    c.x = x;
    c.log_weight = o->log_weight;
    c.r = vgs__draw_roll(s, o, 0);
    c.r.x = s->b->buffer_create(s->b->self, 2 * cells, err);
    c.r.x_stride = rows;
    c.w = (double *)vgs__alloc_or(err, "draw", rows + (cells + 3 * rows + 1) / 2, sizeof *c.w);
    if (!c.w || !c.r.x) st = VGS_E_NOMEM;
    if (st == VGS_OK) {
        c.which = (int *)(void *)(c.w + rows);
        c.spare = (float *)(void *)(c.which + rows);
        c.row = c.spare + cells;
        c.v = c.row + rows;
        st = vgs__corrector_make(s, &corrector, vgs__draw_correct_steps(s, o), &c.r, err);
    }
    if (st == VGS_OK) st = vgs__smc_run(s, &c, o, err);
    vgs__corrector_free(s, &corrector);
    vgs__free(c.w);
    if (c.r.x) s->b->buffer_free(s->b->self, c.r.x);
    return vgs__draw_end(s, "draw", st, err);
}

/* ---- what users call ---- */

static vgs_status vgs__draw_check_correct(const vgs_sampler *s, const vgs_draw *o, const char *doing,
                                          vgs_error *err)
{
    if (o->correct < -1 || o->correct > VGS__MALA_MOST)
        return vgs__fail(err, VGS_E_ARG, "%s: correct = %d: must be within -1..%d", doing, o->correct,
                         (int)VGS__MALA_MOST);
    if (o->correct > 0 && s->c.on_sphere)
        return vgs__fail(err, VGS_E_ARG, "%s: correct = %d: draws on a sphere are not corrected", doing,
                         o->correct);
    if (o->correct > 0 && vgs__draw_weightless(s, o))
        return vgs__fail(err, VGS_E_ARG, "%s: correct = %d: only draws that have weights are corrected",
                         doing, o->correct);
    return VGS_OK;
}

static vgs_status vgs__draw_check(const vgs_sampler *s, const vgs_draw *o, int n, const float *x,
                                  vgs_error *err)
{
    const char *why = o->log_weight ? vgs__draw_weightless(s, o) : NULL;
    vgs_status st;
    if (n < 0) return vgs__fail(err, VGS_E_ARG, "draw: n = %d: must be >= 0", n);
    if (!(o->noise_scale >= 0.0f && o->noise_scale <= FLT_MAX))
        return vgs__fail(err, VGS_E_ARG, "draw: noise_scale = %g: must be > 0 and finite",
                         (double)o->noise_scale);
    if (n > 0 && !x) return vgs__fail(err, VGS_E_ARG, "draw: x = NULL: must have room for %d rows", n);
    if (why) return vgs__fail(err, VGS_E_ARG, "draw: log_weight: there are no path weights %s", why);
    if (!(o->resample >= 0.0f && o->resample <= 1.0f))
        return vgs__fail(err, VGS_E_ARG, "draw: resample = %g: must be within 0..1", (double)o->resample);
    if ((st = vgs__draw_check_correct(s, o, "draw", err)) != VGS_OK) return st;
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
    if ((st = vgs__draw_check(s, &o, n, x, err)) != VGS_OK) return st;
    if ((st = vgs__sampler_check_energy_params(s, "draw", err)) != VGS_OK) return st;
    return o.resample > 0.0f && n > 0 ? vgs__smc_draw(s, &o, n, x, err) : vgs__draw(s, &o, 0, n, x, err);
}

VGS__DEF vgs_status vgs_sampler_value(vgs_sampler *s, int t, const float *x, int n, float *v, float *g,
                                      vgs_error *err)
{
    vgs__value_stage *st = g ? &s->stage->value : &s->stage->twist;
    size_t d = (size_t)s->c.energy.dim;
    float *room;
    vgs_status code;
    int i, k, m;
    if (t < 0 || t >= s->c.steps)
        return vgs__fail(err, VGS_E_ARG, "value: t = %d: must be 0..%d", t, s->c.steps - 1);
    if (n < 0 || (n > 0 && (!x || !v)))
        return vgs__fail(err, VGS_E_ARG, "value: n = %d, or x or v is NULL: need both, and n >= 0", n);
    code = s->c.energy_features > 0 ? vgs__sampler_check_energy_params(s, "value", err) : VGS_OK;
    if (code != VGS_OK) return code;
    if ((code = vgs__smc_need_value(s, st, g != NULL, err)) != VGS_OK) return code;
    vgs__value_stage_set(s, st, t, 1.0);
    vgs_bind(st->g, st->x, s->draw_x, 0, NULL);
    vgs_bind(st->g, st->v, s->draw_cost, 0, NULL);
    room = (float *)vgs__alloc_or(err, "value", (size_t)s->capacity * d, sizeof *room);
    for (i = 0; i < n && room && code == VGS_OK; i += m) {
        m = vgs__draw_rows(s, n, i);
        memcpy(room, x + (size_t)i * d, (size_t)m * d * sizeof *room);
        vgs__frame_rows(&s->frame, VGS__TO_U, room, m);
        code = vgs_set(st->g, st->x, room, m, err);
        if (code == VGS_OK) code = vgs_graph_run(st->g, m, err);
        if (code == VGS_OK) code = vgs_get(st->g, st->v, v + i, m, err);
        if (code == VGS_OK && g) code = vgs_get(st->g, st->grad, g + (size_t)i * d, m, err);
        if (code == VGS_OK && g) vgs__frame_slopes(&s->frame, room, g + (size_t)i * d, m);
        for (k = i; k < i + m && code == VGS_OK; ++k)
            v[k] = (float)vgs__frame_energy(&s->frame, room + (size_t)(k - i) * d, (double)v[k]);
    }
    vgs__free(room);
    return room ? code : VGS_E_NOMEM;
}

/* ---- scoring ---- */

/* x [n,D] is x_T, and scratch after that; path and log_weight begin at the block's first row. */
static vgs_status vgs__score_block(vgs_sampler *s, vgs__score_stage st[2], const vgs__roll *r, float *x,
                                   float *path, size_t path_rows, const vgs__host *m, double *log_weight,
                                   vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, n = (size_t)r->n;
    vgs_status code;
    int t;
    memset(log_weight, 0, n * sizeof *log_weight);
    code = vgs__draw_weight_end(s, r->n, x, m->e, log_weight, err);
    if (code == VGS_OK)
        code = s->b->upload(s->b->self, r->x, vgs__roll_place(s, r, s->c.steps), x, n * d, VGS_F32, err);
    if (code == VGS_OK && vgs__value_known_step(s)) code = vgs__draw_weight_start(s, r, x, log_weight, err);
    for (t = s->c.steps; t >= 0 && code == VGS_OK; --t) {
        if (t < s->c.steps) code = vgs__score_run(s, &st[vgs__kernel_last_by_energy(s, t)], r, t, err);
        if (t < s->c.steps && code == VGS_OK)
            code = vgs__draw_weight_add(s, r->cost, r->n, -1.0, m->row, log_weight, err);
        if (path && code == VGS_OK)
            code = s->b->download(s->b->self, path + (size_t)t * path_rows * d, r->x,
                                  vgs__roll_place(s, r, t), n * d, VGS_F32, err);
        if (path && code == VGS_OK)
            vgs__frame_rows(&s->frame, VGS__TO_X, path + (size_t)t * path_rows * d, r->n);
        if (t < s->c.steps && code == VGS_OK) code = vgs__draw_correct(s, r, t, -1.0, m->row, log_weight,
                                                                       err);
    }
    return code == VGS_OK && !vgs__value_known_step(s) ? vgs__draw_weight_start(s, r, x, log_weight, err)
        : code;
}

static vgs_status vgs__score(vgs_sampler *s, const vgs_draw *o, int n, const float *ref,
                             vgs__score_stage st[2], const vgs__host *m, double *log_weight, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs__roll r = vgs__draw_roll(s, o, 0);
    vgs__corrector corrector;
    vgs_status code = vgs__corrector_make(s, &corrector, n > 0 ? vgs__draw_correct_steps(s, o) : 0, &r, err);
    int i;
    for (i = 0; i < n && code == VGS_OK; i += r.n) {
        r.n = vgs__draw_rows(s, n, i);
        r.first_row = o->first_row + (uint32_t)i;
        code = vgs__draw_rows_given(s, "score: ref", ref + (size_t)i * d, r.n, i, m->start, err);
        if (code == VGS_OK)
            code = vgs__score_block(s, st, &r, m->start, o->path ? o->path + (size_t)i * d : NULL, (size_t)n,
                                    m, log_weight + i, err);
    }
    vgs__corrector_free(s, &corrector);
    return vgs__draw_end(s, "score", code, err);
}

VGS__DEF vgs_status vgs_sampler_score(vgs_sampler *s, const vgs_draw *draw, int n, const float *ref,
                                      double *log_weight, vgs_error *err)
{
    size_t bytes = s->bytes;                     /* the stages live for this call                     */
    vgs__score_stage step[2];
    vgs__host room;
    vgs_draw o;
    vgs_status code;
    const char *why;
    int k;
    memset(&o, 0, sizeof o);
    memset(step, 0, sizeof step);
    if (draw) o = *draw;
    if (n < 0 || (n > 0 && (!ref || !log_weight)))
        return vgs__fail(err, VGS_E_ARG, "score: n = %d, or ref or log_weight is NULL: need both, and n >= 0",
                         n);
    if ((why = o.start ? "of given starts: a score begins at ref" : vgs__draw_weightless(s, &o)) != NULL)
        return vgs__fail(err, VGS_E_ARG, "score: there are no path weights %s", why);
    if ((code = vgs__draw_check_correct(s, &o, "score", err)) != VGS_OK) return code;
    if ((code = vgs__sampler_check_energy_params(s, "score", err)) != VGS_OK) return code;
    o.start = ref;                               /* room for a block of them                          */
    if ((code = vgs__draw_host_make(s, &room, &o, err)) != VGS_OK) return code;
    o.start = NULL;
    for (k = 0; k < (s->policy ? 1 : 2) && code == VGS_OK; ++k)
        VGS__STAGE_MAKE(score, &step[k], s->capacity, (s, st, k == 1), code)
    if (code == VGS_OK) code = vgs__score(s, &o, n, ref, step, &room, log_weight, err);
    for (k = 0; k < 2; ++k) vgs_graph_free(step[k].g);
    vgs__free(room.e);
    s->bytes = bytes;
    return code;
}

/* ==== >>pilot: a short classical run that finds coordinates ===========================================
   A number of chains descend from a wide start by a pooled quasi-Newton method, run hot, are cooled, and then
   sample by hmc; all in coordinates that are fitted anew on the way. What they know at the end gives m, L,
   E0, the width of the finest feature, and rows for the replay store. A function of the configuration. */

enum { VGS__PILOT_DESCENTS = 64, VGS__PILOT_CHAINS = 256, VGS__PILOT_LEAPFROG = 10,
       VGS__PILOT_FEWEST = 6, VGS__PILOT_KEPT = 24,                  /* kept iterations                    */
       VGS__PILOT_FEW = 4 };                     /* dimensions                                        */
#define VGS__PILOT_HOT 16.0                      /* temperature, in units of tau                      */
#define VGS__PILOT_COLD 0.6                      /* share of the calls after which it is 1            */
#define VGS__PILOT_SAMPLES 0.65                  /* share after which chains' places are samples      */

typedef struct vgs__pilot {
    vgs_sampler *s;
    vgs__frame *f;
    vgs__mcmc m;
    int n, dim;                                  /* chains in use: of descents, then all              */
    int all, kept;
    bool sloped;                                 /* a gradient that differs from another was seen     */
    double calls, most;
    double longest;                              /* path of hmc, in leapfrog steps                    */
    double *reach;                               /* [n]: longest step of a descent                    */
    bool whole;                                  /* matrices are [D,D]; else diagonals, [D]           */
    double *cov, *slope;                         /* second moments of u and of the slopes, matrices   */
    double *l, *work;                            /* as in a frame; four matrices, [2 D], two of x, [D] */
    double *before, e0_before;                   /* m, L, walls and E0 at the begin                   */
    double *x, *g, *e;                           /* [room,D], [room,D], [room]: samples, in x, dE/dx, E */
    int rows, room, fewest;                      /* row i is of chain i % n; the oldest give way      */
    double due;                                  /* share of the calls at which the next are kept     */
    double far;                                  /* |u|^2 above it does not count for m and L         */
    double *place, *force;                       /* [all,D], room: a round's points and slopes in u, then */
                                                 /* y = m + L u and dE/dy of the chains while m and L */
                                                 /* change; x where walls are looked for              */
} vgs__pilot;

/* Numbers in a matrix, and from one entry of its diagonal to the next. */
static size_t vgs__pilot_cells(const vgs__pilot *p)
{
    return (size_t)p->dim * (p->whole ? (size_t)p->dim : 1);
}

static int vgs__pilot_diagonal(const vgs__pilot *p) { return p->whole ? p->dim + 1 : 1; }

/* ---- symmetric matrices [n,n], in double ---- */

/* a = K K^T, K lower triangular, in place; false if a is not positive definite. */
static bool vgs__pilot_cholesky(double *a, int n)
{
    int i, j, k;
    for (j = 0; j < n; ++j) {
        for (k = 0; k < j; ++k) a[j * n + j] -= a[j * n + k] * a[j * n + k];
        if (!(a[j * n + j] > 0.0) || !vgs__finite(a[j * n + j])) return false;
        a[j * n + j] = sqrt(a[j * n + j]);
        for (i = j + 1; i < n; ++i) {
            for (k = 0; k < j; ++k) a[i * n + j] -= a[i * n + k] * a[j * n + k];
            a[i * n + j] /= a[j * n + j];
        }
        for (i = 0; i < j; ++i) a[i * n + j] = 0.0;
    }
    return true;
}

/* Cyclic Jacobi: the columns of v become the eigenvectors of a, its diagonal the eigenvalues. In double: the
   one of the op eigen, in float on many matrices at once, loses those below 1e-7 of the largest. */
static void vgs__pilot_jacobi(double *a, double *v, int n)
{
    int i, p, q, sweep;
    for (i = 0; i < n * n; ++i) v[i] = i % (n + 1) == 0;
    for (sweep = 0; sweep < 40; ++sweep) {
        double off = 0.0, all = 0.0;
        for (p = 0; p < n; ++p)
            for (q = 0; q < n; ++q) *(p == q ? &all : &off) += a[p * n + q] * a[p * n + q];
        if (!(off > 1e-26 * all)) return;
        for (p = 0; p < n; ++p)
            for (q = p + 1; q < n; ++q) {
                double apq = a[p * n + q], d, t, c, s;
                if (apq == 0.0) continue;
                d = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                t = (d < 0.0 ? -1.0 : 1.0) / (fabs(d) + sqrt(d * d + 1.0));
                c = 1.0 / sqrt(t * t + 1.0);
                s = t * c;
                for (i = 0; i < n; ++i) {
                    double x = a[i * n + p], y = a[i * n + q];
                    a[i * n + p] = c * x - s * y;
                    a[i * n + q] = s * x + c * y;
                }
                for (i = 0; i < n; ++i) {
                    double x = a[p * n + i], y = a[q * n + i];
                    a[p * n + i] = c * x - s * y;
                    a[q * n + i] = s * x + c * y;
                    x = v[i * n + p];
                    y = v[i * n + q];
                    v[i * n + p] = c * x - s * y;
                    v[i * n + q] = s * x + c * y;
                }
            }
    }
}

/* P with P Q P = C, the covariance that suits positions of second moment C and gradients of Q: exact for a
   quadratic energy, whatever the points [affine-invariant geometric mean of C and 1/Q]. With Q = K K^T it is
   K^-T (K^T C K)^(1/2) K^-1. Destroys c and q; p [n,n]; work [2 n n]. */
static bool vgs__pilot_geometric_mean(double *c, double *q, double *p, double *work, int n)
{
    double *v = work, *a = work + n * n;
    int i, j, k;
    if (!vgs__pilot_cholesky(q, n)) return false;
    for (i = 0; i < n; ++i)                      /* a = C K, then p = K^T a                           */
        for (j = 0; j < n; ++j) {
            double sum = 0.0;
            for (k = j; k < n; ++k) sum += c[i * n + k] * q[k * n + j];
            a[i * n + j] = sum;
        }
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double sum = 0.0;
            for (k = i; k < n; ++k) sum += q[k * n + i] * a[k * n + j];
            p[i * n + j] = sum;
        }
    for (i = 0; i < n; ++i)
        for (j = 0; j < i; ++j) p[i * n + j] = p[j * n + i] = 0.5 * (p[i * n + j] + p[j * n + i]);
    vgs__pilot_jacobi(p, v, n);
    for (j = 0; j < n; ++j) {                    /* columns of v = K^-T v s^(1/4)                     */
        double root = p[j * n + j] > 0.0 ? sqrt(sqrt(p[j * n + j])) : 0.0;
        for (i = n - 1; i >= 0; --i) {
            double sum = v[i * n + j] * (root > 0.0 ? 1.0 : 0.0);
            for (k = i + 1; k < n; ++k) sum -= q[k * n + i] * v[k * n + j];
            v[i * n + j] = sum / q[i * n + i];
        }
        for (i = 0; i < n; ++i) v[i * n + j] *= root;
    }
    for (i = 0; i < n; ++i)
        for (j = 0; j < n; ++j) {
            double sum = 0.0;
            for (k = 0; k < n; ++k) sum += v[i * n + k] * v[j * n + k];
            p[i * n + j] = sum;
        }
    return true;
}

/* ---- fits of L ---- */

/* L from second moments: of the geometric mean, or of cov alone (slope = NULL). ridge is added to both in
   units of their diagonals. False if it cannot be. l: as in a frame; cov and slope stay. */
static bool vgs__pilot_fit(const vgs__pilot *p, const double *cov, const double *slope, double ridge,
                           double *l)
{
    const int d = p->dim, step = vgs__pilot_diagonal(p);
    const size_t cells = vgs__pilot_cells(p);
    double *c = p->work, *q = c + cells, *scale = c + 4 * cells, sum = 0.0, of = 0.0;
    int i, j;
    for (i = 0; i < d; ++i) {                    /* of each coordinate alone                          */
        double v = cov[i * step], w = slope ? slope[i * step] : 1.0 / v;
        if (!(v > 0.0) || !(w > 0.0) || !vgs__finite(v) || !vgs__finite(w)) return false;
        scale[i] = sqrt(sqrt(v / w));
        sum += v;
        of += w;
    }
    if (p->f->kind == VGS_SCALE) l[0] = slope ? sqrt(sqrt(sum / of)) : sqrt(sum / p->s->dim);
    for (i = 0; i < d && p->f->kind == VGS_DIAGONAL; ++i) l[i] = scale[i];
    if (p->f->kind != VGS_FULL) return true;
    for (i = 0; i < d; ++i)
        for (j = 0; j < d; ++j) {
            c[i * d + j] = cov[i * d + j] / (scale[i] * scale[j]) * (i == j ? 1.0 + ridge : 1.0);
            if (slope) q[i * d + j] = slope[i * d + j] * (scale[i] * scale[j]) * (i == j ? 1.0 + ridge : 1.0);
        }
    if (slope && !vgs__pilot_geometric_mean(c, q, l, q + cells, d)) return false;
    if (!slope) memcpy(l, c, cells * sizeof *l);
    for (i = 0; i < d; ++i)
        for (j = 0; j < d; ++j) l[i * d + j] *= scale[i] * scale[j];
    return vgs__pilot_cholesky(l, d);
}

/* ---- coordinates that move with the chains ---- */

/* The second moments of n rows: of u, about its mean if `centre`, and of slopes g about 0. */
static void vgs__pilot_moments(vgs__pilot *p, const double *u, const double *g, int n, bool centre)
{
    const size_t cells = vgs__pilot_cells(p);
    const int d = p->dim;
    double *mean = p->work;
    size_t at;
    int i, j, k;
    for (j = 0; j < d; ++j) mean[j] = 0.0;
    for (i = 0; i < n && centre; ++i)
        for (j = 0; j < d; ++j) mean[j] += u[(size_t)i * (size_t)d + (size_t)j] / n;
    for (at = 0; at < cells; ++at) p->cov[at] = p->slope[at] = 0.0;
    for (i = 0; i < n; ++i, u += d, g += d)
        for (j = 0; j < d; ++j)
            for (k = p->whole ? 0 : j; k <= j; ++k) {
                at = p->whole ? (size_t)(j * d + k) : (size_t)j;
                p->cov[at] += (u[j] - mean[j]) * (u[k] - mean[k]) / n;
                p->slope[at] += g[j] * g[k] / n;
            }
    for (j = 0; j < d && p->whole; ++j)
        for (k = 0; k < j; ++k) {
            p->cov[k * d + j] = p->cov[j * d + k];
            p->slope[k * d + j] = p->slope[j * d + k];
        }
}

/* L = L K, K in p->l. */
static void vgs__pilot_times(vgs__pilot *p)
{
    int d = p->dim, i, j, k;
    double *l = p->f->l;
    size_t n = vgs__frame_l_count(p->f), at;
    for (at = 0; at < n && p->f->kind != VGS_FULL; ++at) l[at] *= p->l[at];
    for (i = 0; i < d && p->f->kind == VGS_FULL; ++i)
        for (j = 0; j <= i; ++j) {               /* entries to the right of j still are those of L     */
            double sum = 0.0;
            for (k = j; k <= i; ++k) sum += l[i * d + k] * p->l[k * d + j];
            l[i * d + j] = sum;
        }
}

/* L follows the moments in its coordinates; where they say nothing, no slope at all along a coordinate, this
   grows. */
static void vgs__pilot_compose(vgs__pilot *p, double ridge)
{
    const int d = p->dim, step = vgs__pilot_diagonal(p);
    double *l = p->f->l;
    int i, j;
    if (vgs__pilot_fit(p, p->cov, p->slope, ridge, p->l)) {
        vgs__pilot_times(p);
        return;
    }
    for (i = 0; i < d; ++i) {
        if (p->slope[i * step] > 0.0) continue;
        for (j = 0; j <= i && p->f->kind == VGS_FULL; ++j) l[i * d + j] *= 4.0;
        if (p->f->kind == VGS_DIAGONAL || (p->f->kind == VGS_SCALE && i == 0)) l[i] *= 4.0;
    }
}

/* A chain's place y and its slope dE/dx, from those in the present coordinates; and back. */
static void vgs__pilot_to_y(vgs__pilot *p, const float *u, const float *g, double *y, double *gx)
{
    int i, d = p->dim;
    for (i = 0; i < d; ++i) p->work[i] = (double)u[i];
    vgs__frame_affine(p->f, p->work, y);
    for (i = 0; i < d; ++i) gx[i] = (double)g[i];
    vgs__frame_covector(p->f, y, gx);
}

static void vgs__pilot_to_u(vgs__pilot *p, double *y, double *gx, float *u, float *g)
{
    int i, d = p->dim;
    vgs__frame_gradient(p->f, y, gx);
    vgs__frame_solve(p->f, y);
    for (i = 0; i < d; ++i) u[i] = (float)y[i];
    for (i = 0; i < d; ++i) g[i] = (float)gx[i];
}

/* ---- walls along the axes ---- */

static vgs_status vgs__pilot_energies(vgs__pilot *p, vgs_error *err);

/* How far `mean` is from the nearer wall of coordinate j. */
static double vgs__pilot_wall_away(const vgs__pilot *p, int j, double mean)
{
    return fmin(mean - p->f->wall[j], p->f->wall[p->dim + j] - mean);
}

/* A wall's length s over the mean's distance from it, unless rows say more: of a Gaussian cut in its middle
   the deviation is sqrt(pi/2) of these. */
#define VGS__WALL_LENGTH 1.25

/* What coordinate j of rows x [n,D] of this mean says of the length s: that for which y is most like a
   Gaussian. */
static double vgs__pilot_wall_length(const vgs__pilot *p, const double *x, int n, int j, double mean)
{
    static const double tried[] = { VGS__WALL_LENGTH, 0.8, 0.5, 0.3, 0.2, 2.0, 4.0, 8.0 };
    vgs__frame *f = p->f;
    double *s = f->wall + 2 * p->dim + j, best = 0.0, most = -HUGE_VAL, slope;
    double away = vgs__pilot_wall_away(p, j, mean);
    size_t k;
    int i;
    for (k = 0; k < sizeof tried / sizeof *tried; ++k) {
        double sum = 0.0, square = 0.0, log_slope = 0.0, likely;
        *s = tried[k] * away;
        for (i = 0; i < n; ++i) {
            double y = vgs__frame_wall_y(f, j, x[(size_t)i * (size_t)p->dim + (size_t)j]);
            sum += y / n;
            square += y * y / n;
            log_slope += vgs__frame_wall_log(f, j, y, &slope) / n;
        }
        likely = -0.5 * log(square - sum * sum) - log_slope;
        if (!(likely > most)) continue;
        most = likely;
        best = *s;
    }
    return best > 0.0 ? best : VGS__WALL_LENGTH * away;
}

/* y [n,D], column j, to how far it is from the nearer wall, below 0 from the upper one; and back, by a map
   that may be another now. x is a + distance of it to no digit where it is small. */
static void vgs__pilot_wall_leave(const vgs__pilot *p, double *y, int n, int j)
{
    int i;
    for (i = 0; i < n; ++i, y += p->dim) {
        vgs__wall w = vgs__frame_wall_near(p->f, j, y + j);
        y[j] = w.sign * w.s * vgs__frame_wall_distance(&w, y[j]);
    }
}

static void vgs__pilot_wall_return(const vgs__pilot *p, double *y, int n, int j, double below, double above)
{
    const vgs__wall a = vgs__frame_wall_of(p->f, j, false), b = vgs__frame_wall_of(p->f, j, true);
    int i;
    for (i = 0; i < n; ++i, y += p->dim) {
        const vgs__wall *w = y[j] < 0.0 ? &b : &a;
        if (w->sign == 0.0) y[j] = vgs__frame_wall_y(p->f, j, (y[j] < 0.0 ? above : below) + y[j]);
        else {
            y[j] = vgs__frame_wall_solve(w, fabs(y[j]) / w->s);
            if (w == &b) y[j] = a.sign != 0.0 ? b.width - y[j] : -y[j];
        }
    }
}

/* The maps of walls follow rows x [n,D]; m, L and the rows y, NULL or [n,D], follow the maps. `settled`: a
   wall that is many deviations away is none. */
static vgs_status vgs__pilot_walls_follow(vgs__pilot *p, const double *x, double *y, int n, bool settled,
                                          vgs_error *err)
{
    const double far = 8.0;
    const int d = p->dim;
    vgs__frame *f = p->f;
    double *a = f->wall, *b = a + d, *s = b + d, slope, scale;
    int i, j;
    for (j = 0; j < d; ++j) {
        double mean = 0.0, sd = 0.0, below = a[j], above = b[j];
        if (!vgs__frame_has_wall(below) && !vgs__frame_has_wall(above)) continue;
        for (i = 0; i < n; ++i) mean += x[(size_t)i * (size_t)d + (size_t)j] / n;
        for (i = 0; i < n; ++i) sd += vgs__sq(x[(size_t)i * (size_t)d + (size_t)j] - mean) / n;
        sd = sqrt(sd);
        scale = vgs__frame_wall_log(f, j, vgs__frame_wall_y(f, j, mean), &slope);
        if (y) vgs__pilot_wall_leave(p, y, n, j);
        if (settled && mean - below > far * sd) a[j] = -HUGE_VAL;
        if (settled && above - mean > far * sd) b[j] = HUGE_VAL;
        if (vgs__frame_has_wall(a[j]) || vgs__frame_has_wall(b[j]))
            s[j] = settled ? vgs__pilot_wall_length(p, x, n, j, mean)
                           : VGS__WALL_LENGTH * vgs__pilot_wall_away(p, j, mean);
        if (y) vgs__pilot_wall_return(p, y, n, j, below, above);
        f->m[j] = vgs__frame_wall_y(f, j, mean);
        scale = exp(scale - vgs__frame_wall_log(f, j, f->m[j], &slope));
        for (i = 0; i <= j && f->kind == VGS_FULL; ++i) f->l[j * d + i] *= scale;
        if (f->kind != VGS_FULL) f->l[j] *= scale;
    }
    return vgs__frame_changed(f, err);
}

/* The maps of walls follow the chains, whose y and energies follow them. Energies: but for what they have
   beside E, before and after. */
static vgs_status vgs__pilot_confine(vgs__pilot *p, vgs_error *err)
{
    double *x = p->work + 4 * vgs__pilot_cells(p) + 2 * p->dim;
    int i;
    if (!p->f->walled) return VGS_OK;
    memcpy(x, p->place, (size_t)p->n * (size_t)p->dim * sizeof *x);
    for (i = 0; i < p->n; ++i) {
        p->m.row[i].ex += vgs__frame_log_slope(p->f, p->place + (size_t)i * (size_t)p->dim);
        vgs__frame_confine(p->f, x + (size_t)i * (size_t)p->dim);
    }
    if (vgs__pilot_walls_follow(p, x, p->place, p->n, p->rows > 0, err) != VGS_OK) return VGS_E_NOMEM;
    for (i = 0; i < p->n; ++i)
        p->m.row[i].ex -= vgs__frame_log_slope(p->f, p->place + (size_t)i * (size_t)p->dim);
    return VGS_OK;
}

/* m to the mean of the chains, L as p->cov and p->slope say; the chains stay where they are. */
static vgs_status vgs__pilot_reframe(vgs__pilot *p, double ridge, vgs_error *err)
{
    size_t d = (size_t)p->dim, i, j, n = (size_t)p->n;
    vgs_status st;
    for (i = 0; i < n; ++i)
        vgs__pilot_to_y(p, p->m.x + i * d, p->m.g + i * d, p->place + i * d, p->force + i * d);
    vgs__pilot_compose(p, ridge);
    if ((st = vgs__pilot_confine(p, err)) != VGS_OK) return st;
    for (j = 0; j < d && p->f->kind != VGS_SCALE; ++j) {
        p->f->m[j] = 0.0;
        for (i = 0; i < n; ++i) p->f->m[j] += p->place[i * d + j] / (double)n;
    }
    for (i = 0; i < n; ++i)
        vgs__pilot_to_u(p, p->place + i * d, p->force + i * d, p->m.x + i * d, p->m.g + i * d);
    return vgs__frame_changed(p->f, err);
}

enum { VGS__WALL_REACH = 24, VGS__WALL_SEEN = 4, VGS__WALL_HALVES = 60, VGS__WALL_DIMS = 16 };

/* Whether rows x are outside, into out: n like that of the first chain (same) or those of the first n chains,
   but for coordinate j, which is at[]. room: [n (3 D + 2)] */
static vgs_status vgs__pilot_outside(vgs__pilot *p, bool same, int j, const double *at, int n, bool *out,
                                     double *room, vgs_error *err)
{
    size_t d = (size_t)p->dim, i, rows = (size_t)n;
    double *e = room + rows * d;
    for (i = 0; i < rows; ++i) {
        memcpy(room + i * d, p->place + (same ? 0 : i * d), d * sizeof *room);
        room[i * d + (size_t)j] = at[i];
    }
    p->calls += n;
    if (vgs__frame_call(p->f->of, room, n, e, NULL, (float *)(void *)(e + rows)))
        return vgs__fail(err, VGS_E_ENERGY, "pilot: the energy callback failed");
    for (i = 0; i < rows; ++i) out[i] = !vgs__finite(e[i]) && !(e[i] < 0.0);
    return VGS_OK;
}

/* Where coordinate j ends in one direction, the same for several chains, and E is never finite beyond, as far
   as can be seen from the first of them: *wall, inside by a hair; else it stays. */
static vgs_status vgs__pilot_find_wall(vgs__pilot *p, int j, double direction, double *wall, double *room,
                                       vgs_error *err)
{
    enum { SEEN = VGS__WALL_SEEN, REACH = VGS__WALL_REACH };
    const double *x = p->place + j, unit = p->f->l[p->f->kind == VGS_FULL ? j * (p->dim + 1) : j];
    double at[REACH], in[SEEN], behind[SEEN], edge;
    bool out[REACH];
    int k, i, first = REACH;
    vgs_status st;
    for (k = 0; k < REACH; ++k) at[k] = x[0] + direction * unit * pow(2.0, k - 3);
    st = vgs__pilot_outside(p, true, j, at, REACH, out, room, err);
    while (st == VGS_OK && first > 0 && out[first - 1]) --first;
    if (st != VGS_OK || first == REACH) return st;
    for (i = 0; i < SEEN; ++i) {
        in[i] = x[(size_t)i * (size_t)p->dim];
        behind[i] = at[first];
    }
    st = vgs__pilot_outside(p, false, j, behind, SEEN, out, room, err);
    for (i = 0; i < SEEN && st == VGS_OK; ++i)
        if (!out[i] || direction * (behind[i] - in[i]) <= 0.0) return st;
    for (k = 0; k < VGS__WALL_HALVES && st == VGS_OK; ++k) {
        for (i = 0; i < SEEN; ++i) at[i] = 0.5 * (in[i] + behind[i]);
        st = vgs__pilot_outside(p, false, j, at, SEEN, out, room, err);
        for (i = 0; i < SEEN; ++i) *(out[i] ? &behind[i] : &in[i]) = at[i];
    }
    for (edge = in[0], i = 1; i < SEEN; ++i) {
        if (fabs(in[i] - in[0]) > 1e-6 * (fabs(in[0] - x[0]) + fabs(in[0]))) return st;
        edge = direction * (in[i] - edge) < 0.0 ? in[i] : edge;
    }
    for (i = 0; i < p->n; ++i) if (direction * (x[(size_t)i * (size_t)p->dim] - edge) > 0.0) return st;
    if (st == VGS_OK) *wall = edge;
    return st;
}

/* Walls that are the same wherever the other coordinates are, of a callback: m, L and the chains' starts in
   the coordinates that they leave. In many dimensions they are looked for only if a start was outside. */
static vgs_status vgs__pilot_find_walls(vgs__pilot *p, bool outside, vgs_error *err)
{
    const int d = p->dim;
    vgs__frame *f = p->f;
    double *a = f->wall, *b = a + d, *room;
    size_t i;
    int j, k;
    vgs_status st = VGS_OK;
    if (f->energy.record || (f->kind != VGS_FULL && f->kind != VGS_DIAGONAL)) return st;
    if (f->of->particles || (d > VGS__WALL_DIMS && !outside)) return st;
    room = (double *)vgs__alloc_or(err, "pilot", VGS__WALL_REACH * (3 * (size_t)d + 2), sizeof *room);
    if (!room) return VGS_E_NOMEM;
    for (i = 0; i < (size_t)p->n; ++i) {
        for (j = 0; j < d; ++j) p->work[j] = (double)p->m.x[i * (size_t)d + (size_t)j];
        vgs__frame_point(f, p->work, p->place + i * (size_t)d);
    }
    for (j = 0; j < d && st == VGS_OK; ++j) {
        st = vgs__pilot_find_wall(p, j, -1.0, a + j, room, err);
        if (st == VGS_OK) st = vgs__pilot_find_wall(p, j, 1.0, b + j, room, err);
    }
    vgs__free(room);
    for (j = 0; j < d && st == VGS_OK; ++j) {
        double sum = 0.0, square = 0.0, *l = &f->l[f->kind == VGS_FULL ? j * (d + 1) : j];
        if (!vgs__frame_has_wall(a[j]) && !vgs__frame_has_wall(b[j])) continue;
        for (f->wall[2 * d + j] = 0.0, k = 0; k < p->n; ++k)
            f->wall[2 * d + j] += VGS__WALL_LENGTH / p->n * vgs__pilot_wall_away(p, j, p->place[k * d + j]);
        for (k = 0; k < p->n; ++k) {
            double y = vgs__frame_wall_y(f, j, p->place[k * d + j]);
            sum += y / p->n;
            square += y * y / p->n;
        }
        f->m[j] = sum;
        *l = sqrt(fmax(square - sum * sum, 1e-6));
    }
    if (st == VGS_OK) st = vgs__frame_changed(f, err);
    if (st != VGS_OK || !f->walled) return st;
    for (i = 0; i < (size_t)p->n; ++i) {
        double *u = p->place + i * (size_t)d;
        vgs__frame_inverse(f, u);
        for (j = 0; j < d; ++j) p->m.y[i * (size_t)d + (size_t)j] = (float)u[j];
    }
    return vgs__pilot_energies(p, err);
}

/* ---- descent ---- */

/* A gradient that is not finite where E is cannot be descended: said with the place. */
static vgs_status vgs__pilot_check_gradients(vgs__pilot *p, vgs_error *err)
{
    size_t d = (size_t)p->dim, i, j;
    char text[200] = "";
    for (i = 0; i < (size_t)p->n; ++i) {
        float *g = p->m.gy + i * d;
        for (j = 0; j < d && vgs__finite((double)g[j]); ) ++j;
        if (j == d || !vgs__finite(p->m.row[i].ey)) continue;
        if (!vgs__roll_energy_text(p->s, p->m.y + i * d, g, text)) text[0] = '\0';
        return vgs__fail(err, VGS_E_NONFINITE, "pilot: the energy's gradient is not finite%s", text);
    }
    return VGS_OK;
}

static vgs_status vgs__pilot_energies(vgs__pilot *p, vgs_error *err)
{
    vgs_status st = vgs__mcmc_energy(&p->m, 0, p->n, true, err);
    p->calls += p->n;
    return st == VGS_OK ? vgs__pilot_check_gradients(p, err) : st;
}

/* Chains are where they tried to go; those without a finite energy there where another is. */
static void vgs__pilot_stand(vgs__pilot *p)
{
    size_t d = (size_t)p->dim, bytes = d * sizeof(float);
    int i, k;
    for (i = 0, k = 0; i < p->n; ++i) {
        int from = i;
        while (!vgs__finite(p->m.row[from].ey)) from = k++ % p->n;
        memcpy(p->m.x + (size_t)i * d, p->m.y + (size_t)from * d, bytes);
        memcpy(p->m.g + (size_t)i * d, p->m.gy + (size_t)from * d, bytes);
        p->m.row[i].ex = p->m.row[from].ey;
        p->reach[i] = sqrt((double)p->s->dim);
    }
}

/* Chains start from N(0, L^2). If none has a finite energy, wider and narrower starts are tried. */
static vgs_status vgs__pilot_start(vgs__pilot *p, vgs_error *err)
{
    size_t d = (size_t)p->dim;
    int i, tries, found = 0;
    vgs_status st = VGS_OK;
    for (tries = 0; tries < 24 && !found && st == VGS_OK; ++tries) {
        double scale = pow(2.0, tries % 2 ? -(tries + 1) : tries);
        for (i = 0; i < p->n; ++i)
            vgs__mcmc_normals(&p->m, VGS__MC_START, (uint64_t)tries, 0, i, scale, p->m.y + (size_t)i * d);
        st = vgs__pilot_energies(p, err);
        for (i = 0; i < p->n; ++i) found += vgs__finite(p->m.row[i].ey);
    }
    if (st == VGS_OK && !found)
        return vgs__fail(err, VGS_E_NONFINITE, "pilot: the energy is finite nowhere: %d rows around 0, from "
                         "2^-24 to 2^22 times length_scale wide, were tried. Give length_scale, or an energy "
                         "that is finite near 0", (int)p->calls);
    if (st != VGS_OK) return st;
    vgs__pilot_stand(p);
    st = vgs__pilot_find_walls(p, found < p->n, err);
    for (found = i = 0; i < p->n && p->f->walled; ++i) found += vgs__finite(p->m.row[i].ey);
    if (st == VGS_OK && p->f->walled && found) vgs__pilot_stand(p);
    return st;
}

/* Chain i gets a place to try: down its slope, in these coordinates a Newton step, at most `reach` far; in
   the first round at random, to see curvature. */
static void vgs__pilot_aim(vgs__pilot *p, int i, int round)
{
    size_t d = (size_t)p->dim, j;
    const float *x = p->m.x + (size_t)i * d, *g = p->m.g + (size_t)i * d;
    float *y = p->m.y + (size_t)i * d;
    double norm = 0.0, step;
    if (round == 0) vgs__mcmc_normals(&p->m, VGS__MC_NOISE, 0, 0, i, 0.1, y);
    for (j = 0; j < d; ++j) norm += (double)g[j] * (double)g[j];
    step = norm > p->reach[i] * p->reach[i] ? p->reach[i] / sqrt(norm) : 1.0;
    for (j = 0; j < d; ++j) y[j] = (float)((double)x[j] + (round == 0 ? (double)y[j] : -step * (double)g[j]));
}

/* Takes the step of chain i if E falls; the pair of differences, scaled so that steep places do not outweigh
   all others, into u and g. False: there is no pair. */
static bool vgs__pilot_take(vgs__pilot *p, int i, double *u, double *g)
{
    size_t d = (size_t)p->dim, j;
    float *x = p->m.x + (size_t)i * d, *gx = p->m.g + (size_t)i * d;
    const float *y = p->m.y + (size_t)i * d, *gy = p->m.gy + (size_t)i * d;
    double uu = 0.0, gg = 0.0, unit;
    bool finite = vgs__finite(p->m.row[i].ey);
    for (j = 0; j < d; ++j) {
        u[j] = (double)y[j] - (double)x[j];
        g[j] = (double)gy[j] - (double)gx[j];
        uu += u[j] * u[j];
        gg += g[j] * g[j];
    }
    p->sloped = p->sloped || gg > 0.0;
    if (finite && p->m.row[i].ey <= p->m.row[i].ex) {
        memcpy(x, y, d * sizeof *x);
        memcpy(gx, gy, d * sizeof *gx);
        p->m.row[i].ex = p->m.row[i].ey;
        p->reach[i] *= 4.0;
    } else p->reach[i] = 0.25 * sqrt(uu);
    unit = uu > 0.0 && gg > 0.0 ? 1.0 / sqrt(sqrt(uu * gg)) : 1.0;
    for (j = 0; j < d; ++j) {
        u[j] *= unit;
        g[j] *= unit;
    }
    return finite && uu > 0.0 && vgs__finite(uu) && vgs__finite(gg);
}

/* An energy without a density, said before minutes are spent on it: it is the same everywhere, or falls ever
   faster. `before`, `after`: sums over the chains before and after a round. */
static vgs_status vgs__pilot_refuse(const vgs__pilot *p, int round, double before, double after,
                                    vgs_error *err)
{
    bool flat = round >= 12 && !p->sloped;
    int i;
    for (i = 0; i < p->n && flat; ++i) flat = p->m.row[i].ex == p->m.row[0].ex;
    for (i = 0; i < p->n * p->dim && flat; ++i) flat = p->m.g[i] == 0.0f;
    if (flat)
        return vgs__fail(err, VGS_E_ARG, "pilot: the energy is %g and its gradient 0 wherever it was asked, "
                         "%.0f times: a constant has no density. Is its unit far below that of tau?",
                         vgs__frame_energy(p->f, p->m.x, p->m.row[0].ex), p->calls);
    if (after < -1e12 * p->n && after < before - 0.1 * fabs(before))
        return vgs__fail(err, VGS_E_ARG, "pilot: the energy falls without end, to %g so far: exp(-E/tau) has "
                         "no integral. Is its sign right?", vgs__frame_energy(p->f, p->m.x, after / p->n));
    return VGS_OK;
}

/* Rounds until little falls: all chains step, and coordinates follow the curvature that they meet. */
static vgs_status vgs__pilot_descend(vgs__pilot *p, double most, vgs_error *err)
{
    int d = p->dim, i, round, pairs;
    double *u = p->place, *g = p->force, before, after;
    vgs_status st = VGS_OK;
    for (round = 0; p->calls + p->n <= most && st == VGS_OK; ++round) {
        for (before = after = 0.0, i = 0; i < p->n; ++i) before += p->m.row[i].ex;
        for (i = 0; i < p->n; ++i) vgs__pilot_aim(p, i, round);
        st = vgs__pilot_energies(p, err);
        for (pairs = i = 0; i < p->n && st == VGS_OK; ++i)
            pairs += vgs__pilot_take(p, i, u + (size_t)pairs * (size_t)d, g + (size_t)pairs * (size_t)d);
        if (st != VGS_OK) return st;
        vgs__pilot_moments(p, u, g, pairs > 0 ? pairs : 1, false);
        if (pairs > 0) st = vgs__pilot_reframe(p, 0.5 * d / pairs, err);
        for (i = 0; i < p->n; ++i) after += p->m.row[i].ex;
        if (st == VGS_OK) st = vgs__pilot_refuse(p, round, before, after, err);
        if (round > 12 && before - after < 0.01 * p->n) break;
    }
    return st;
}

/* ---- hot, cooling, sampling ---- */

/* One move of all chains at this temperature, and the step that follows from it. A path that ends outside is
   lost as a whole, however small its steps are: where many do, paths become shorter. */
static vgs_status vgs__pilot_move(vgs__pilot *p, double temperature, vgs_error *err)
{
    vgs__level *l = &p->m.level[0];
    double ratio = sqrt(temperature / p->m.c.tau), alpha = 0.0, spent = vgs__mcmc_spent(&p->m);
    vgs_status st;
    int i, outside = 0;
    l->step *= ratio;
    l->dual.centre += log(ratio);
    l->dual.average += log(ratio);
    p->m.c.tau = temperature;
    p->m.c.leapfrog = (int)fmin(1.0 + sqrt(temperature) / l->step, p->longest);
    st = vgs__mcmc_advance(&p->m, 1, err);
    for (i = 0; i < p->n; ++i) {
        alpha += p->m.row[i].alpha / p->n;
        outside += !vgs__finite(p->m.row[i].ey);
    }
    if (outside > 0.2 * p->n) p->longest = fmax(0.5 * p->m.c.leapfrog, 1.0);
    else p->longest = fmin(p->longest + 1.0, VGS__PILOT_LEAPFROG);
    l->step = vgs__mcmc_dual_update(&l->dual, p->m.c.acceptance, alpha, sqrt(temperature));
    l->step = fmin(l->step, 1.2 * sqrt(temperature));                /* more has no use where E curves    */
    p->calls += vgs__mcmc_spent(&p->m) - spent;
    return st;
}

/* Coordinates follow the chains: as covariance what their places and slopes say together. */
static vgs_status vgs__pilot_follow(vgs__pilot *p, vgs_error *err)
{
    int d = p->dim, i, n = p->n * d;
    double *u = p->place, *g = p->force;
    for (i = 0; i < n; ++i) {
        u[i] = (double)p->m.x[i];
        g[i] = (double)p->m.g[i];
    }
    vgs__pilot_moments(p, u, g, p->n, true);
    return vgs__pilot_reframe(p, 1.0 * d / p->n, err);
}

/* The chains' places become samples, as often as there is room for until all calls are spent; `done`: share
   of them. */
static void vgs__pilot_keep(vgs__pilot *p, double done)
{
    size_t d = (size_t)p->dim, i, to = (size_t)(p->kept++ % (p->room / p->n) * p->n);
    for (i = 0; i < (size_t)p->n; ++i, ++to) {
        vgs__pilot_to_y(p, p->m.x + i * d, p->m.g + i * d, p->x + to * d, p->g + to * d);
        vgs__frame_confine(p->f, p->x + to * d);
        p->e[to] = vgs__frame_energy(p->f, p->m.x + i * d, p->m.row[i].ex);
    }
    p->rows = p->rows < p->room ? p->rows + p->n : p->room;
    p->due = fmax(done, p->due + (1.0 - VGS__PILOT_SAMPLES) * p->n / p->room);
}

/* All chains, from the places of those that descended. */
static void vgs__pilot_multiply(vgs__pilot *p)
{
    size_t d = (size_t)p->dim, bytes = d * sizeof(float);
    int i, n = p->n;
    for (i = n; i < p->all; ++i) {
        memcpy(p->m.x + (size_t)i * d, p->m.x + (size_t)(i % n) * d, bytes);
        memcpy(p->m.g + (size_t)i * d, p->m.g + (size_t)(i % n) * d, bytes);
        p->m.row[i].ex = p->m.row[i % n].ex;
    }
    p->n = p->all;
}

/* Weights w [n] for a change of 1/temperature by `rise`, or of less, so that nine tenths of the chains count:
   in many dimensions moves must do the rest. Their sum. */
static double vgs__pilot_weights(const vgs__pilot *p, double rise, double *w)
{
    double least = HUGE_VAL, sum = 0.0, square = 1.0;
    int i;
    for (i = 0; i < p->n; ++i) least = fmin(least, p->m.row[i].ex);
    for (; sum * sum < 0.9 * p->n * square; rise *= 0.7)
        for (sum = square = 0.0, i = 0; i < p->n; ++i) {
            w[i] = exp(-rise * (p->m.row[i].ex - least));
            sum += w[i];
            square += w[i] * w[i];
        }
    return sum;
}

/* Chains are resampled for a lower temperature: so their numbers in modes and arms follow the masses. */
static void vgs__pilot_resample(vgs__pilot *p, int number, double rise)
{
    size_t d = (size_t)p->dim, i;
    double *w = p->work, *e = w + p->n, sum = vgs__pilot_weights(p, rise, w);
    int *which = (int *)(void *)(e + p->n);
    vgs__systematic(w, p->n, sum, vgs__mcmc_uniform(&p->m, VGS__MC_RESAMPLE, (uint64_t)number, 0, 0), which);
    memcpy(p->m.y, p->m.x, (size_t)p->n * d * sizeof(float));
    memcpy(p->m.gy, p->m.g, (size_t)p->n * d * sizeof(float));
    for (i = 0; i < (size_t)p->n; ++i) e[i] = p->m.row[i].ex;
    for (i = 0; i < (size_t)p->n; ++i) {
        memcpy(p->m.x + i * d, p->m.y + (size_t)which[i] * d, d * sizeof(float));
        memcpy(p->m.g + i * d, p->m.gy + (size_t)which[i] * d, d * sizeof(float));
        p->m.row[i].ex = e[which[i]];
    }
}

/* Hot for the first three tenths of the calls that are left, cooled in the next three, then at 1; or from
   `done` of it on. */
static vgs_status vgs__pilot_sample(vgs__pilot *p, double done, vgs_error *err)
{
    const double left = fmax((p->most - p->calls) / (1.0 - done), 1.0), from = p->calls - done * left;
    double before = done < VGS__PILOT_COLD ? VGS__PILOT_HOT : 1.0, now;
    vgs_status st = VGS_OK;
    int i;
    p->due = VGS__PILOT_SAMPLES;
    for (i = 0; (done < 1.0 || before > 1.0 || p->rows < p->fewest) && st == VGS_OK; ++i, before = now) {
        now = pow(VGS__PILOT_HOT, fmax(0.0, fmin(1.0, 2.0 - 2.0 * done / VGS__PILOT_COLD)));
        if (now < before) vgs__pilot_resample(p, i, 1.0 / now - 1.0 / before);
        st = vgs__pilot_move(p, now, err);
        done = (p->calls - from) / left;
        if (st == VGS_OK && now == 1.0 && done >= p->due) vgs__pilot_keep(p, done);
        if (st == VGS_OK && done > 0.25 && done < 0.9) st = vgs__pilot_follow(p, err);
    }
    return st;
}

/* ---- what the samples say ---- */

/* |u|^2 */
static double vgs__pilot_square(const vgs__pilot *p, const double *u)
{
    double sum = 0.0;
    int j;
    for (j = 0; j < p->dim; ++j) sum += u[j] * u[j];
    return sum;
}

/* A Gaussian of the samples in the present coordinates: mean [D] and l, from the rows of chains of one parity
   (2: of all), but those with |u|^2 > p->far. By places alone, or by places and slopes, which is exact where
   E is quadratic. */
static bool vgs__pilot_gaussian(vgs__pilot *p, const double *u, const double *g, int parity, bool slopes,
                                double *mean, double *l)
{
    int d = p->dim, i, j, k, n = 0;
    double *some = p->work + 4 * vgs__pilot_cells(p) + 2 * d, *mean_g = some - d;
    double *us = some, *gs = some + (size_t)p->rows * (size_t)d;
    for (i = 0; i < p->rows; ++i) {
        if (parity < 2 && i % p->n % 2 != parity) continue;
        if (vgs__pilot_square(p, u + (size_t)i * (size_t)d) > p->far) continue;
        memcpy(us + (size_t)n * (size_t)d, u + (size_t)i * (size_t)d, (size_t)d * sizeof *u);
        memcpy(gs + (size_t)n++ * (size_t)d, g + (size_t)i * (size_t)d, (size_t)d * sizeof *g);
    }
    vgs__pilot_moments(p, us, gs, n, true);
    if (n < 2 || !vgs__pilot_fit(p, p->cov, slopes ? p->slope : NULL, slopes ? 1e-9 : 1e-6, l)) return false;
    for (j = 0; j < d; ++j) mean[j] = mean_g[j] = 0.0;
    for (i = 0; i < n; ++i)
        for (j = 0; j < d; ++j) {
            mean[j] += us[(size_t)i * (size_t)d + (size_t)j] / n;
            mean_g[j] += gs[(size_t)i * (size_t)d + (size_t)j] / n;
        }
    if (p->f->kind == VGS_SCALE) for (j = 0; j < d; ++j) mean[j] = 0.0;
    else if (p->f->kind == VGS_FULL && slopes) { /* mean - L L^T mean_g                               */
        for (j = 0; j < d; ++j) {
            double sum = 0.0;
            for (k = j; k < d; ++k) sum += l[k * d + j] * mean_g[k];
            mean_g[j] = sum;
        }
        for (j = 0; j < d; ++j)
            for (k = 0; k <= j; ++k) mean[j] -= l[j * d + k] * mean_g[k];
    } else if (slopes) for (j = 0; j < d; ++j) mean[j] -= l[j] * l[j] * mean_g[j];
    return true;
}

/* log N(u; mean, l l^T) of a row, without its constant; v [D] is scratch. */
static double vgs__pilot_density(const vgs__pilot *p, const double *u, const double *mean, const double *l,
                                 double *v)
{
    int d = p->dim, i, k;
    double sum = 0.0;
    for (i = 0; i < d; ++i) {
        double c = p->f->kind == VGS_FULL ? l[i * (d + 1)] : l[p->f->kind == VGS_SCALE ? 0 : i];
        v[i] = u[i] - mean[i];
        for (k = 0; k < i && p->f->kind == VGS_FULL; ++k) v[i] -= l[i * d + k] * v[k];
        v[i] /= c;
        sum -= 0.5 * v[i] * v[i] + log(c) * (p->f->of->particles ? 1.0 - 1.0 / p->f->of->particles : 1.0);
    }
    return sum;
}

/* Which Gaussian says more of chains that it was not fitted to? One of places alone is right for several
   modes, and wrong in many dimensions, where the other may be exact. */
static bool vgs__pilot_by_slopes(vgs__pilot *p, const double *u, const double *g)
{
    double likely[2] = { 0.0, 0.0 }, *mean = p->work + 4 * vgs__pilot_cells(p);
    int parity, i, k;
    for (k = 0; k < 2; ++k)
        for (parity = 0; parity < 2; ++parity) {
            if (!vgs__pilot_gaussian(p, u, g, parity, k == 1, mean, p->l)) {
                likely[k] = -HUGE_VAL;
                continue;
            }
            for (i = 0; i < p->rows; ++i)
                if (i % p->n % 2 != parity)
                    likely[k] += vgs__pilot_density(p, u + (size_t)i * (size_t)p->dim, mean, p->l, p->work);
        }
    return likely[1] > likely[0];
}

/* Rows of chains whose mean energy is far above the middle of all are left out: a bad minimum held them. */
static void vgs__pilot_drop_strays(vgs__pilot *p)
{
    double *mean = p->work, *sorted = mean + p->n, limit;
    int i, n = p->n, rows = p->rows, kept = 0, c;
    size_t bytes = (size_t)p->dim * sizeof *p->x;
    for (c = 0; c < n; ++c)
        for (mean[c] = 0.0, i = c; i < rows; i += n) mean[c] += p->e[i] * n / rows;
    memcpy(sorted, mean, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, vgs__compare_double);
    limit = sorted[n / 2] + p->f->tau * (10.0 + 5.0 * sqrt((double)p->dim));
    for (i = 0; i < rows; ++i) {
        if (!(mean[i % n] <= limit)) continue;
        memmove(p->x + (size_t)kept * (size_t)p->dim, p->x + (size_t)i * (size_t)p->dim, bytes);
        memmove(p->g + (size_t)kept * (size_t)p->dim, p->g + (size_t)i * (size_t)p->dim, bytes);
        p->e[kept++] = p->e[i];
    }
    for (c = 0, n = 0; c < p->n; ++c) n += mean[c] <= limit;
    p->rows = kept;
    p->n = n;
}

/* The worst ratio of how far chains spread together to how far each does alone; rows u. */
static double vgs__pilot_rhat(const vgs__pilot *p, const double *u)
{
    int d = p->dim, n = p->n, each = p->rows / n, i, j, c;
    double worst = 1.0;
    for (j = 0; j < d; ++j) {
        double all = 0.0, within = 0.0, between = 0.0;
        for (i = 0; i < p->rows; ++i) all += u[(size_t)i * (size_t)d + (size_t)j] / p->rows;
        for (c = 0; c < n; ++c) {
            double mean = 0.0, v;
            for (i = c; i < p->rows; i += n) mean += u[(size_t)i * (size_t)d + (size_t)j] / each;
            for (i = c; i < p->rows; i += n) {
                v = u[(size_t)i * (size_t)d + (size_t)j] - mean;
                within += v * v / ((double)p->rows - n);
            }
            between += (mean - all) * (mean - all) / (n - 1.0);
        }
        if (sqrt(1.0 + between / within) > worst) worst = sqrt(1.0 + between / within);
    }
    return worst;
}

/* The middle one of the distances of chains from their mean, squared, over one kept iteration. */
static double vgs__pilot_spread(const vgs__pilot *p, int block)
{
    size_t d = (size_t)p->dim, j;
    const double *x = p->x + (size_t)(block * p->n) * d;
    double *v = p->work, *mean = v + p->n;
    int i;
    for (j = 0; j < d; ++j)
        for (mean[j] = 0.0, i = 0; i < p->n; ++i) mean[j] += x[(size_t)i * d + j] / p->n;
    for (i = 0; i < p->n; ++i)
        for (v[i] = 0.0, j = 0; j < d; ++j) v[i] += vgs__sq(x[(size_t)i * d + j] - mean[j]);
    qsort(v, (size_t)p->n, sizeof *v, vgs__compare_double);
    return v[p->n / 2];
}

/* Samples that spread all the time have no density to settle in. */
static vgs_status vgs__pilot_check_spread(const vgs__pilot *p, vgs_error *err)
{
    const int blocks = p->rows / p->n;
    double first = vgs__pilot_spread(p, p->kept % blocks);
    double last = vgs__pilot_spread(p, (p->kept - 1) % blocks);
    if (!(last > 4.0 * first)) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "pilot: its chains spread without end (%.3g times as far within %d "
                     "moves): %s", sqrt(last / first), blocks, p->f->of->particles
                     ? "particles drift apart, and Z is infinite without something that holds them"
                     : "exp(-E/tau) seems to have no integral; else give coordinates = plain and "
                       "length_scale");
}

/* Samples u and slopes g in the present coordinates. */
static void vgs__pilot_present(const vgs__pilot *p, double *u, double *g)
{
    size_t bytes = (size_t)p->rows * (size_t)p->dim * sizeof *u;
    int i;
    memcpy(u, p->x, bytes);
    memcpy(g, p->g, bytes);
    for (i = 0; i < p->rows; ++i) {
        memcpy(p->work, u + (size_t)i * (size_t)p->dim, (size_t)p->dim * sizeof *u);
        vgs__frame_unbend(p->f, p->work);
        vgs__frame_inverse(p->f, u + (size_t)i * (size_t)p->dim);
        vgs__frame_gradient(p->f, p->work, g + (size_t)i * (size_t)p->dim);
    }
}

/* m and L of the Gaussian that suits the samples. */
static vgs_status vgs__pilot_centre(vgs__pilot *p, double *u, double *g, vgs_error *err)
{
    double *mean = p->work + 4 * vgs__pilot_cells(p);
    bool slopes = vgs__pilot_by_slopes(p, u, g);
    if (!vgs__pilot_gaussian(p, u, g, 2, slopes, mean, p->l))
        return vgs__fail(err, VGS_E_NONFINITE, "pilot: %d samples have no covariance: give length_scale, or "
                         "coordinates = plain with s2_start and s2_end", p->rows);
    vgs__frame_affine(p->f, mean, p->work);
    memcpy(p->f->m, p->work, (size_t)p->dim * sizeof *mean);
    vgs__pilot_times(p);
    vgs__pilot_present(p, u, g);
    return VGS_OK;
}

/* The energy of row i as a sampler sees it, but for E0 and in units of E. */
static double vgs__pilot_energy(const vgs__pilot *p, int i)
{
    memcpy(p->work, p->x + (size_t)i * (size_t)p->dim, (size_t)p->dim * sizeof *p->work);
    vgs__frame_unbend(p->f, p->work);
    return p->e[i] - p->f->tau * vgs__frame_log_slope(p->f, p->work);
}

/* m and L, then E0: the mean of E less the energy of that Gaussian, so that log Z of what a sampler sees is
   about that of N(0, 1). Samples further out than any of a Gaussian are left out and the fit is made again:
   the covariance of a heavy tail is that of its few largest samples. */
static vgs_status vgs__pilot_settle(vgs__pilot *p, double *u, double *g, vgs_error *err)
{
    enum { FITS = 4 };
    const double most = p->s->dim + 8.0 * sqrt(2.0 * p->s->dim) + 12.0;
    double e0 = 0.0, square;
    int i, k, beyond = 1;
    vgs_status st = VGS_OK;
    if (p->f->walled) st = vgs__pilot_walls_follow(p, p->x, NULL, p->rows, true, err);
    vgs__pilot_present(p, u, g);
    for (k = 0, p->far = HUGE_VAL; k < FITS && beyond && st == VGS_OK; ++k, p->far = most) {
        st = vgs__pilot_centre(p, u, g, err);
        for (beyond = i = 0; i < p->rows; ++i)
            beyond += vgs__pilot_square(p, u + (size_t)i * (size_t)p->dim) > most;
    }
    if (st != VGS_OK) return st;
    for (i = 0; i < p->rows; ++i) {
        square = vgs__pilot_square(p, u + (size_t)i * (size_t)p->dim);
        e0 += (vgs__pilot_energy(p, i) - 0.5 * p->f->tau * fmin(square, most)) / p->rows;
    }
    p->f->e0 = floor(16.0 * e0 / p->f->tau + 0.5) / 16.0 * p->f->tau;            /* so that E - E0 is exact */
    return vgs__frame_changed(p->f, err);
}

/* The rest of what samples tell, in their coordinates. The mean of g g^T is that of the curvature: 1
   everywhere for a Gaussian, and 1/l^2 along an axis with features of width l. */
static void vgs__pilot_tell(vgs__pilot *p, const double *u, const double *g, vgs_pilot *found)
{
    const int d = p->dim, step = vgs__pilot_diagonal(p);
    double bend = 1.0, width = 0.0, highest = 0.0;
    int i;
    vgs__pilot_moments(p, u, g, p->rows, true);
    if (p->whole && d <= VGS__MOST_FULL) vgs__pilot_jacobi(p->slope, p->work, d);
    for (i = 0; i < d; ++i) {
        double k = p->slope[i * step];
        bend = fmax(bend, k);
        if (k > 1.0) width += 0.25 * vgs__sq(log(k));
    }
    for (i = 0; i < p->rows; ++i) highest = fmax(highest, (vgs__pilot_energy(p, i) - p->f->e0) / p->f->tau);
    found->energy_limit = 2.0 * highest + 50.0;
    found->detail = 1.0 / sqrt(bend);
    found->steps = (int)fmin(16.0 + 4.0 * width, 100.0);
    found->rhat = vgs__pilot_rhat(p, u);
    found->rows = p->rows;
    found->energy_offset = p->f->e0;
}

/* ---- the whole ---- */

/* Its chains: HMC by vgs_mcmc's parts, of one level. */
static vgs_status vgs__pilot_chains_open(vgs__pilot *p, vgs_error *err)
{
    const vgs_sampler *s = p->s;
    vgs_status st;
    p->m.name = "pilot";
    p->m.c.energy = s->frame.energy;
    p->m.c.method = VGS_HMC;
    p->m.c.chains = p->all;
    p->longest = p->m.c.leapfrog = VGS__PILOT_LEAPFROG;
    p->m.c.seed = s->c.seed;
    p->m.c.threads = s->own ? vgs_cpu_threads(s->own) : 1;
    p->m.c.step = 0.5;
    if ((st = vgs__mcmc_check(&p->m, 1, err)) != VGS_OK) return st;
    if ((st = vgs__mcmc_energy_open(&p->m, err)) != VGS_OK) return st;
    if ((st = vgs__mcmc_open(&p->m, 1, err)) != VGS_OK) return st;
    p->m.level[0].beta = 1.0;
    p->m.level[0].step = p->m.c.step;
    vgs__mcmc_dual_begin(&p->m.level[0].dual, p->m.c.step);
    p->m.level[0].dual.centre = log(p->m.c.step);
    return VGS_OK;
}

/* Its arrays, one allocation; `before` is the frame as it is now. */
static vgs_status vgs__pilot_arrays_open(vgs__pilot *p, vgs_error *err)
{
    size_t d = (size_t)p->dim, room = (size_t)p->room, cells = vgs__pilot_cells(p);
    size_t l = vgs__frame_l_count(p->f), all = vgs__frame_count(p->f);
    p->cov = (double *)vgs__alloc_or(err, "pilot", 6 * cells + 2 * d + l + all + room * (4 * d + 2) +
                                     (size_t)p->all * (2 * d + 2), sizeof *p->cov);
    if (!p->cov) return VGS_E_NOMEM;
    p->slope = p->cov + cells;
    p->l = p->slope + cells;
    p->before = p->l + l;
    memcpy(p->before, p->f->m, d * sizeof *p->before);
    memcpy(p->before + d, p->f->l, (all - d) * sizeof *p->before);
    p->e0_before = p->f->e0;
    p->reach = p->before + all;
    p->x = p->reach + p->all;
    p->g = p->x + room * d;
    p->e = p->g + room * d;
    p->place = p->e + room;
    p->force = p->place + (size_t)p->all * d;
    p->work = p->force + (size_t)p->all * d;
    return VGS_OK;
}

static vgs_status vgs__pilot_open(vgs__pilot *p, vgs_sampler *s, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim;
    vgs_status st;
    memset(p, 0, sizeof *p);
    p->s = s;
    p->f = &s->frame;
    p->dim = (int)d;
    p->whole = s->frame.kind == VGS_FULL || d <= VGS__MOST_FULL;
    p->most = (double)s->c.pilot_calls;
    p->n = VGS__PILOT_DESCENTS;
    p->all = VGS__PILOT_CHAINS;
    p->room = p->all * (d <= VGS__MOST_FULL ? VGS__PILOT_KEPT : VGS__PILOT_FEWEST);
    p->fewest = VGS__PILOT_FEWEST * p->all;
    st = vgs__pilot_chains_open(p, err);
    return st == VGS_OK ? vgs__pilot_arrays_open(p, err) : st;
}

static void vgs__pilot_close(vgs__pilot *p)
{
    vgs__mcmc_close(&p->m);
    vgs__evaluator_close(&p->m.recorded);
    vgs__free(p->cov);
}

/* ---- choices that draws decide ---- */

enum { VGS__CHOICE_ROWS = 256 };
#define VGS__CHOICE_WORST 100.0

/* A draw, or a score, that decides something about the sampler: its noise is not that of a caller's, whose
   rows must not have been chosen by. */
static vgs_draw vgs__choice_draw(const vgs_sampler *s, int correct)
{
    vgs_draw draw;
    memset(&draw, 0, sizeof draw);
    draw.seed = s->c.seed ^ 0x9E3779B97F4A7C15u;
    draw.seed += draw.seed == 0;
    draw.correct = correct ? correct : -1;
    return draw;
}

/* log w of rows that always have the same noise: what differs between two states is their doing. Forward: of
   paths back from the first of the pilot's samples, which all its chains have part in. */
static vgs_status vgs__choice_weights(vgs_sampler *s, int correct, bool forward, double *log_weight,
                                      vgs_error *err)
{
    size_t cells = VGS__CHOICE_ROWS * (size_t)s->c.energy.dim;
    float *x = (float *)vgs__alloc_or(err, "draw", cells, sizeof *x);
    vgs_draw draw = vgs__choice_draw(s, correct);
    vgs_status st = x ? VGS_OK : VGS_E_NOMEM;
    if (forward && x) {
        st = s->b->download(s->b->self, x, s->replay_x, 0, cells, VGS_F32, err);
        vgs__frame_rows(&s->frame, VGS__TO_X, x, VGS__CHOICE_ROWS);
        if (st == VGS_OK) st = vgs_sampler_score(s, &draw, VGS__CHOICE_ROWS, x, log_weight, err);
    } else if (x) {
        draw.log_weight = log_weight;
        st = vgs__draw(s, &draw, 0, VGS__CHOICE_ROWS, x, err);
    }
    vgs__free(x);
    return st;
}

/* The mean of the numbers above -infinity, and the log of their share; of those below the largest twentieth.
   A number far below the middle one counts as no worse than that: a single overlap of particles, of 1e20,
   must not decide. */
static double vgs__choice_mean(double *v, int n, bool trimmed)
{
    double sum = 0.0, least;
    int i, inside = 0;
    qsort(v, (size_t)n, sizeof *v, vgs__compare_double);
    least = v[n / 2] - VGS__CHOICE_WORST;
    if (trimmed) n -= n / 20;
    for (i = 0; i < n; ++i)
        if (v[i] >= -DBL_MAX && ++inside) sum += fmax(v[i], least);
    return inside ? log((double)inside / n) + sum / inside : -HUGE_VAL;
}

/* Energies that n rows with weights ask for, drawn or scored with so many steps of the corrector. */
static double vgs__choice_draw_calls(const vgs_sampler *s, double n, int correct)
{
    return n * (vgs__kernel_last_by_energy(s, s->c.steps - 1) ? 2.0 : 1.0) +
           vgs__value_calls(s, n * s->c.steps * (correct > 0 ? 1.0 + correct : 1.0));
}

/* The distance of the sampler from the target: what the ELBO lacks, and what the EUBO of the pilot's samples
   has too much, up to a constant. The one alone would choose a single mode. HUGE_VAL where it cannot be
   had. */
static vgs_status vgs__choice_gap(vgs_sampler *s, int correct, double *gap, vgs_weights *weights,
                                  vgs_error *err)
{
    bool both = s->kept_fixed * s->c.batch >= VGS__CHOICE_ROWS;
    double *w = (double *)vgs__alloc_or(err, "draw", VGS__CHOICE_ROWS, sizeof *w);
    vgs_status st = w ? vgs__choice_weights(s, correct, false, w, err) : VGS_E_NOMEM;
    if (st == VGS_OK && weights) st = vgs_weigh(w, VGS__CHOICE_ROWS, weights, err);
    *gap = st == VGS_OK ? -vgs__choice_mean(w, VGS__CHOICE_ROWS, false) : HUGE_VAL;
    if (st == VGS_OK && both) {
        st = vgs__choice_weights(s, correct, true, w, err);
        *gap = st == VGS_OK ? *gap + vgs__choice_mean(w, VGS__CHOICE_ROWS, true) : HUGE_VAL;
    }
    s->energy_calls += vgs__choice_draw_calls(s, VGS__CHOICE_ROWS, correct) * (both ? 2.0 : 1.0);
    vgs__free(w);
    return st == VGS_E_NONFINITE ? VGS_OK : st;  /* a choice that fails is none                       */
}

/* The width of the features by the gap of the untrained sampler; 0, none, unless they gain this much. */
#define VGS__CHOICE_GAIN 0.1
#define VGS__FEATURE_DETAIL 0.3
static vgs_status vgs__choice_width(vgs_sampler *s, vgs_error *err)
{
    double best = 0.0, width = 2.0, gap, least;
    vgs_status st = vgs__choice_gap(s, 0, &least, NULL, err);
    least = s->given.energy_features > 0 ? HUGE_VAL : least - VGS__CHOICE_GAIN;
    for (; width > 0.02 && st == VGS_OK; width *= 0.5) {
        s->feature_width = width;
        st = vgs__sampler_write_feature(s, err);
        if (st == VGS_OK) st = vgs__choice_gap(s, 0, &gap, NULL, err);
        if (gap < least) {
            least = gap;
            best = width;
        }
    }
    s->feature_width = best;
    return st == VGS_OK ? vgs__sampler_write_feature(s, err) : st;
}

/* Returns whether the last drift is that of V or of E, by the same measure. */
static vgs_status vgs__choice_last(vgs_sampler *s, vgs_error *err)
{
    double gap[2] = { 0.0, 0.0 };
    vgs_status st = VGS_OK;
    int k;
    for (k = 0; k < 2 && st == VGS_OK; ++k) {
        s->last_by_value = k == 1;
        st = vgs__choice_gap(s, 0, &gap[k], NULL, err);
    }
    s->last_by_value = gap[1] <= gap[0];
    return st;
}

/* Samples u of the pilot fill whole iterations of the replay store, at most half of it, and stay there. Their
   weight is that of a sampler whose log Z is right: e0 is such that it is about 0. */
static vgs_status vgs__pilot_fill(vgs_sampler *s, const double *u, int n, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, i, count;
    float *x;
    vgs_status st;
    s->kept_fixed = n / s->c.batch < s->c.replay / 2 ? n / s->c.batch : s->c.replay / 2;
    count = (size_t)s->kept_fixed * (size_t)s->c.batch;
    if (!count) return VGS_OK;
    if (!(x = (float *)vgs__alloc_or(err, "pilot", count * (d + 1), sizeof *x))) return VGS_E_NOMEM;
    for (i = 0; i < count; ++i) {
        size_t from = i * (size_t)n / count, j;
        for (j = 0; j < d; ++j) x[i * d + j] = (float)u[from * d + j];
        x[count * d + i] = 0.0f;
    }
    st = s->b->upload(s->b->self, s->replay_x, 0, x, count * d, VGS_F32, err);
    if (st == VGS_OK) st = s->b->upload(s->b->self, s->replay_weight, 0, x + count * d, count, VGS_F32, err);
    vgs__free(x);
    return st;
}

/* ---- the best state: training goes on from its own, draws go by the one that measured best ---- */

enum { VGS__MEASURE_EVERY = 25, VGS__STALL = 4 };
#define VGS__GOOD_ESS 0.9

static vgs_status vgs__state_read(vgs_sampler *s, vgs__state *h, vgs_error *err)
{
    size_t p = (size_t)vgs_model_size(s->target), f = vgs__sampler_factor_count(s);
    vgs_status st;
    if (!h->w && !(h->w = (float *)vgs__alloc_or(err, "state", p + f, sizeof *h->w))) return VGS_E_NOMEM;
    h->factor = h->w + p;
    h->last_by_value = s->last_by_value;
    st = vgs_model_read(s->target, h->w, err);
    if (st == VGS_OK) st = s->b->download(s->b->self, h->factor, s->factor, 0, f, VGS_F32, err);
    return st == VGS_OK ? s->b->download(s->b->self, &h->s0, s->sigma, 0, 1, VGS_F32, err) : st;
}

static vgs_status vgs__state_write(vgs_sampler *s, const vgs__state *h, vgs_error *err)
{
    vgs_status st = vgs_model_write(s->target, h->w, err);
    s->last_by_value = h->last_by_value;
    if (st == VGS_OK)
        st = s->b->upload(s->b->self, s->factor, 0, h->factor, vgs__sampler_factor_count(s), VGS_F32, err);
    return st == VGS_OK ? s->b->upload(s->b->self, s->sigma, 0, &h->s0, 1, VGS_F32, err) : st;
}

/* Steps of a corrector for draws of the best state: these, if they gain VGS__CHOICE_GAIN. (Seven particles
   of Lennard-Jones, ESS/N: .003 without, .31 with 2.) */
enum { VGS__CORRECT = 2 };
static vgs_status vgs__choice_correct(vgs_sampler *s, vgs_error *err)
{
    double gap;
    vgs_weights w;
    vgs_status st;
    memset(&w, 0, sizeof w);
    if (s->given.correct) return VGS_OK;
    s->c.correct = 0;
    if (s->best_ess > VGS__GOOD_ESS) return VGS_OK;                  /* nothing is left to gain       */
    st = vgs__choice_gap(s, VGS__CORRECT, &gap, &w, err);
    if (st != VGS_OK || !(gap < s->best.gap - VGS__CHOICE_GAIN)) return st;
    s->c.correct = VGS__CORRECT;
    s->best_ess = w.ess;
    return VGS_OK;
}

/* Measures the present state; it becomes the best if it is. The learning rate halves after VGS__STALL
   measurements without a better one. */
static vgs_status vgs__best_measure(vgs_sampler *s, vgs_error *err)
{
    double gap;
    vgs_weights w;
    vgs_status st;
    memset(&w, 0, sizeof w);
    st = vgs__choice_gap(s, 0, &gap, &w, err);
    if (st != VGS_OK) return st;
    s->training.gap = gap;
    if (!s->best.w || gap < s->best.gap) {
        s->best.gap = gap;
        s->best_elbo = w.elbo;
        s->best_ess = w.ess;
        s->best_inside = w.inside;
        s->stalled = 0;
        st = vgs__state_read(s, &s->best, err);
        return st == VGS_OK ? vgs__choice_correct(s, err) : st;
    }
    if (++s->stalled < VGS__STALL) return VGS_OK;
    s->stalled = 0;
    s->lr_factor *= s->lr_factor > 0.02f ? 0.5f : 1.0f;
    return VGS_OK;
}

/* At the end of a call of train. */
static vgs_status vgs__best_take(vgs_sampler *s, vgs_error *err)
{
    vgs_status st = VGS_OK;
    if (!s->best.w) return st;
    st = vgs__state_read(s, &s->training, err);
    if (st == VGS_OK) st = vgs__state_write(s, &s->best, err);
    s->drawn_version = vgs_model_version(s->target);
    return st;
}

/* At its begin; weights that the caller has written are those to go on from. */
static vgs_status vgs__best_leave(vgs_sampler *s, vgs_error *err)
{
    if (!s->training.w) return VGS_OK;
    if (s->drawn_version == vgs_model_version(s->target)) return vgs__state_write(s, &s->training, err);
    vgs__state_free(&s->best);
    return VGS_OK;
}

/* Figures and states kept from an energy that has changed since say nothing of the new one. What V has
   learned, and the coordinates, are a start; where they are a bad one the pilot goes on from draws. */
static void vgs__best_forget(vgs_sampler *s)
{
    vgs__state_free(&s->best);
    vgs__state_free(&s->training);
    s->lr_factor = 1.0f;
    s->stalled = s->harder = 0;
    s->kept = s->kept_fixed = 0;
    s->reached = false;
    s->energy_since = s->iteration;
}

/* Returns whether E does not care how its particles are turned, reflected and numbered: at samples of the
   pilot. */
static vgs_status vgs__pilot_identical(vgs_sampler *s, const double *u, int n, bool *same, vgs_error *err)
{
    enum { TRIES = 16 };
    int d = s->c.energy.dim, particles = s->c.energy.particles, i, j;
    float *x = (float *)vgs__alloc_or(err, "pilot", 2 * (size_t)d, sizeof *x);
    vgs_rng r = { 0, VGS__FOR_POINTS, 0 };
    double e[2];
    vgs_status st = x ? VGS_OK : VGS_E_NOMEM;
    *same = particles > 0 && d / particles <= 8;
    for (i = 0; i < TRIES && i < n && st == VGS_OK && *same; ++i) {
        for (j = 0; j < d; ++j) x[j] = (float)u[(size_t)i * (size_t)d + (size_t)j];
        st = vgs_shuffle_particles(&r, x, particles, d / particles, x + d, err);
        if (st == VGS_OK) st = vgs__evaluator_run(&s->energies, x, 2, e, NULL, err);
        if (st == VGS_OK) *same = fabs(e[0] - e[1]) <= 1e-3 * (1.0 + fabs(e[0]));
    }
    s->energy_calls += 2.0 * i;
    vgs__free(x);
    return st;
}

/* The network: an EGNN for identical particles, and windows as wide as the finest feature where that is much
   finer than the whole. (gmm25, ESS/N after 50 iterations: .10 without windows, .63 with them.) */
static vgs_status vgs__pilot_network(vgs_sampler *s, const vgs_pilot *found, const double *u, vgs_config *c,
                                     vgs_error *err)
{
    vgs_net_config *net = &c->net;
    float width = (float)fmax(1.25 * found->detail, 0.06), windows = ceilf(5.0f / width);
    bool same = false;
    vgs_status st = VGS_OK;
    if (net->kind != VGS_NET_MLP || net->wrapper != VGS_WRAPPER_NONE || net->windows || net->x_scale != 0.0f)
        return st;
    if (c->energy.particles) st = vgs__pilot_identical(s, u, found->rows, &same, err);
    if (same) {
        net->kind = VGS_NET_EGNN;
        if (!net->hidden) net->hidden = 24;
        if (!net->layers) net->layers = 1;
        net->windows = 16;
        net->x_scale = 0.2f;
    } else if (width < 0.3f && windows * (float)c->energy.dim <= 128.0f) {
        net->windows = (int)fminf(windows, 64.0f);
        net->x_scale = width;
    }
    /* With 128 an iteration takes twice as long (at equal seconds, Rosenbrock, two seeds: ESS/N .35 and .36,
       with 64 .50 and .42; gmm25: .72, .73). */
    if (net->kind == VGS_NET_MLP && !net->hidden && c->energy.dim <= VGS__PILOT_FEW) net->hidden = 64;
    return st;
}

/* Returns whether features of E are worth a try. Narrow features leave ridges in V that a network must undo:
   in few dimensions it had better learn without them (Rosenbrock, ESS/N after 60 s: .20 with them, .47
   without), in more it does not get as far alone (manywell32: log Z low by .6 with them, by 9 without). */
static bool vgs__pilot_features(const vgs_sampler *s, const vgs_pilot *found)
{
    return found->detail >= VGS__FEATURE_DETAIL ||
           (s->c.energy.dim > VGS__PILOT_FEW && !s->c.energy.particles);
}

/* Fields that the caller left open follow from what was found. */
static vgs_status vgs__pilot_choose(vgs_sampler *s, const vgs_pilot *found, const double *u, vgs_config *c,
                                    vgs_error *err)
{
    vgs_status st;
    *c = s->given;
    c->coordinates = s->c.coordinates;
    if (c->detail_scale == 0.0f) c->detail_scale = (float)found->detail * s->c.length_scale;
    if (c->steps == 0) c->steps = found->steps;
    if (c->replay == 0) c->replay = 64;
    if (c->energy_features == 0) c->energy_features = vgs__pilot_features(s, found) ? 1 : -1;
    if (c->denoise_loss == 0.0f) c->denoise_loss = 1.0f;
    st = vgs__pilot_network(s, found, u, c, err);
    return st == VGS_OK ? vgs_config_resolve(c, c, err) : st;
}

/* A sampler of this configuration in the new coordinates, with the pilot's samples in its replay store; after
   a failure s is as it was. */
static vgs_status vgs__pilot_rebuild(vgs_sampler *s, const vgs_config *c, const vgs_pilot *found,
                                     const double *u, vgs_error *err)
{
    const float energy_max = s->energy_max, feature_max = s->feature_max;
    const double width = s->feature_width;
    vgs_status st;
    s->energy_max = (float)found->energy_limit;
    if (s->given.energy_max != 0.0f)
        s->energy_max = (float)(((double)s->given.energy_max - s->frame.e0) / s->frame.tau);
    s->feature_max = s->energy_max;
    s->feature_width = 0.0;
    st = vgs__sampler_rebuild(s, c, err);
    if (st == VGS_OK) return vgs__pilot_fill(s, u, found->rows, err);
    s->energy_max = energy_max;
    s->feature_max = feature_max;
    s->feature_width = width;
    return st;
}

/* Features and the last drift, by draws. */
static vgs_status vgs__pilot_try(vgs_sampler *s, const vgs_pilot *found, const double *u, vgs_error *err)
{
    vgs_config c = s->c;
    vgs_status st = VGS_OK;
    if (c.energy_features > 0) st = vgs__choice_width(s, err);
    if (st == VGS_OK && c.energy_features > 0 && s->feature_width == 0.0) {
        c.energy_features = -1;                  /* they do not pay                                   */
        st = vgs__pilot_rebuild(s, &c, found, u, err);
    }
    return st == VGS_OK ? vgs__choice_last(s, err) : st;
}

/* The chains start from these rows in u, one each. */
static vgs_status vgs__pilot_place(vgs__pilot *p, const float *u, vgs_error *err)
{
    p->n = p->all;
    memcpy(p->m.x, u, (size_t)p->n * (size_t)p->dim * sizeof *u);
    p->calls += p->n;
    return vgs__mcmc_look(&p->m, err);
}

/* The samples: from the rows start [chains,D] in u, if they are given. */
static vgs_status vgs__pilot_walk(vgs__pilot *p, const float *start, vgs_error *err)
{
    vgs_status st;
    if (start) {
        p->most = fmax(0.5 * p->most, p->s->energy_calls);           /* as many as all before         */
        st = vgs__pilot_place(p, start, err);
    } else {
        st = vgs__pilot_start(p, err);
        if (st == VGS_OK) st = vgs__pilot_descend(p, 0.2 * p->most, err);
        if (st == VGS_OK) vgs__pilot_multiply(p);
    }
    if (st == VGS_OK) st = vgs__pilot_sample(p, start ? VGS__PILOT_COLD : 0.0, err);
    if (st == VGS_OK) st = vgs__pilot_check_spread(p, err);
    if (st == VGS_OK) vgs__pilot_drop_strays(p);
    return st;
}

/* The old coordinates, after a failure. */
static void vgs__pilot_undo(vgs__pilot *p)
{
    if (!p->cov) return;
    vgs__frame_swap(p->f, p->before);
    p->f->e0 = p->e0_before;
    vgs__frame_changed(p->f, NULL);
}

/* Coordinates and what follows from them. After a failure on the way the sampler is as it was. */
static vgs_status vgs__pilot_run(vgs_sampler *s, const float *start, vgs_error *err)
{
    vgs__pilot p;
    vgs_pilot found = s->pilot;
    vgs_config c;
    size_t cells = 0;
    double *u = NULL;
    vgs_status st = vgs__pilot_open(&p, s, err);
    if (st == VGS_OK) st = vgs__pilot_walk(&p, start, err);
    if (st == VGS_OK) {
        cells = (size_t)p.rows * (size_t)p.dim;
        u = (double *)vgs__alloc_or(err, "pilot", 2 * cells, sizeof *u);
        st = u ? vgs__pilot_settle(&p, u, u + cells, err) : VGS_E_NOMEM;
    }
    s->energy_calls += p.calls;
    found.energy_calls += p.calls;
    if (st == VGS_OK) vgs__pilot_tell(&p, u, u + cells, &found);
    if (st == VGS_OK) st = vgs__pilot_choose(s, &found, u, &c, err);
    if (st == VGS_OK) st = vgs__pilot_rebuild(s, &c, &found, u, err);
    if (st != VGS_OK) vgs__pilot_undo(&p);
    else {
        s->pilot = found;
        st = vgs__pilot_try(s, &found, u, err);
    }
    vgs__free(u);
    vgs__pilot_close(&p);
    return st;
}

/* The weights w of the coordinates of before, or the network that starts at 0, whichever is nearer to the
   target. */
static vgs_status vgs__pilot_again_network(vgs_sampler *s, const float *w, vgs_error *err)
{
    double gap[2] = { 0.0, 0.0 };
    float *zero = (float *)vgs__alloc_or(err, "pilot", (size_t)vgs_model_size(s->target), sizeof *zero);
    vgs_status st = zero ? vgs_model_read(s->target, zero, err) : VGS_E_NOMEM;
    if (st == VGS_OK) st = vgs__choice_gap(s, 0, &gap[0], NULL, err);
    if (st == VGS_OK) st = vgs_model_write(s->target, w, err);
    if (st == VGS_OK) st = vgs__choice_gap(s, 0, &gap[1], NULL, err);
    if (st == VGS_OK && gap[0] <= gap[1]) st = vgs_model_write(s->target, zero, err);
    if (st == VGS_OK && gap[0] > gap[1]) st = vgs_model_write(s->online, w, err);
    vgs__free(zero);
    return st;
}

/* ROWS: draws that say from where the pilot goes on, after FIRST iterations and then each time after twice as
   many, TIMES times in all. */
enum { VGS__AGAIN_ROWS = 4096, VGS__AGAIN_FIRST = 25, VGS__AGAIN_TIMES = 5 };
#define VGS__AGAIN_BELOW 0.3                     /* ESS/N: a sampler that is better keeps what it has */
#define VGS__AGAIN_DRAWS 0.02                    /* ESS/N above which draws are better than old chains */
#define VGS__AGAIN_KHAT 0.7                      /* and k-hat up to which                             */

/* rows [chains,D] of the pilot's samples, in u. */
static vgs_status vgs__pilot_again_kept(vgs_sampler *s, float *rows, vgs_error *err)
{
    const size_t d = (size_t)s->c.energy.dim, chains = VGS__PILOT_CHAINS;
    const size_t count = (size_t)s->kept_fixed * (size_t)s->c.batch;
    vgs_status st = VGS_OK;
    size_t i;
    for (i = 0; i < chains && st == VGS_OK; ++i)
        st = s->b->download(s->b->self, rows + i * d, s->replay_x, i * count / chains * d, d, VGS_F32, err);
    return st;
}

/* start [chains,D], in u: draws by weight or, where these are few, the pilot's samples. *wanted: unless there
   are neither or, if not `always`, draws are good. */
static vgs_status vgs__pilot_again_start(vgs_sampler *s, bool always, float *start, bool *wanted,
                                         vgs_error *err)
{
    const size_t d = (size_t)s->c.energy.dim, n = VGS__AGAIN_ROWS, chains = VGS__PILOT_CHAINS;
    float *x = (float *)vgs__alloc_or(err, "pilot", n * d, sizeof *x);
    double *w = x ? (double *)vgs__alloc_or(err, "pilot", 2 * n, sizeof *w) : NULL, sum = 0.0;
    int *which = w ? (int *)(void *)(w + n) : NULL;
    bool few;                                    /* a few weights outweigh the rest                   */
    vgs_weights quality;
    vgs_draw draw = vgs__choice_draw(s, 0);
    vgs_status st = w ? VGS_OK : VGS_E_NOMEM;
    size_t i;
    draw.log_weight = w;
    draw.first_row = VGS__CHOICE_ROWS;           /* other rows than those that the best state is chosen by */
    if (st == VGS_OK) st = vgs__draw(s, &draw, 0, (int)n, x, err);
    if (st == VGS_OK) s->energy_calls += vgs__choice_draw_calls(s, (double)n, 0);
    if (st == VGS_OK) st = vgs_weigh(w, (int)n, &quality, err);
    *wanted = st == VGS_OK && (always || quality.ess < VGS__AGAIN_BELOW) &&
              (s->kept_fixed || vgs__finite(quality.log_z));
    few = !(quality.ess > VGS__AGAIN_DRAWS && quality.khat <= VGS__AGAIN_KHAT);
    if (*wanted && s->kept_fixed && few) st = vgs__pilot_again_kept(s, start, err);
    else if (*wanted) {
        for (i = 0; i < n; ++i) sum += w[i] = exp(w[i] - quality.log_z);
        vgs__systematic(w, (int)n, sum, 0.5, which);
        for (i = 0; i < chains; ++i)
            memcpy(start + i * d, x + (size_t)which[i * n / chains + n / chains / 2] * d, d * sizeof *x);
        vgs__frame_rows(&s->frame, VGS__TO_U, start, (int)chains);
    }
    vgs__free(x);
    vgs__free(w);
    return st;
}

/* Returns whether the weights of one network mean the same in the other. */
static bool vgs__pilot_same_network(const vgs_net_config *a, const vgs_net_config *b)
{
    return a->kind == b->kind && a->hidden == b->hidden && a->windows == b->windows &&
           !(a->x_scale > b->x_scale || a->x_scale < b->x_scale) && a->steps == b->steps;
}

/* Training begins anew in the new coordinates: from `old`, or from 0. */
static vgs_status vgs__pilot_again_begin(vgs_sampler *s, const vgs_net_config *net, const vgs__state *old,
                                         vgs_error *err)
{
    vgs__state_free(&s->best);
    vgs__state_free(&s->training);
    s->lr_factor = 1.0f;
    s->stalled = 0;
    s->kept = 0;
    return vgs__pilot_same_network(net, &s->c.net) ? vgs__pilot_again_network(s, old->w, err) : VGS_OK;
}

/* The pilot goes on, from draws by weight, which may have found what it could not reach, or from its own
   samples: coordinates once more. T stays, if none was given. A second pilot that cannot be had is
   none. */
static vgs_status vgs__pilot_again(vgs_sampler *s, bool always, vgs_error *err)
{
    const int asked = s->given.steps;
    const vgs_net_config net = s->c.net;
    const size_t cells = VGS__PILOT_CHAINS * (size_t)s->c.energy.dim;
    float *start = (float *)vgs__alloc_or(err, "pilot", cells, sizeof *start);
    vgs__state old;
    bool wanted = false;
    vgs_status st = start ? vgs__pilot_again_start(s, always, start, &wanted, err) : VGS_E_NOMEM;
    memset(&old, 0, sizeof old);
    if (st == VGS_OK && wanted) {
        st = vgs__state_read(s, &old, err);
        if (asked == 0) s->given.steps = s->c.steps;
        if (st == VGS_OK) st = vgs__pilot_run(s, start, err);
        if (st == VGS_OK) st = vgs__pilot_again_begin(s, &net, &old, err);
        else s->given.steps = asked;
    }
    vgs__state_free(&old);
    vgs__free(start);
    return st == VGS_E_NONFINITE || st == VGS_E_ARG ? VGS_OK : st;
}

/* ==== >>train: an iteration, and training ============================================================= */

static vgs__roll vgs__train_roll(const vgs_sampler *s)
{
    vgs__roll r;
    memset(&r, 0, sizeof r);
    r.n = s->c.batch;
    r.start_stream = VGS__FOR_START;
    r.step_stream = VGS__FOR_STEP;
    r.seed = s->c.seed;
    r.iteration = (uint64_t)s->iteration;
    r.start_scale = (double)s->c.explore;
    r.step_scale = r.last_scale = s->c.published ? r.start_scale : 1.0;          /* returns follow c = 1 */
    r.x = s->traj_x;
    r.mu = s->traj_mu;
    r.mu2 = s->traj_mu2;
    r.cost = s->traj_cost;
    r.part = s->traj_part;
    r.noise_std = s->traj_noise_std;
    r.eigvec = s->traj_eigvec;
    r.x_stride = r.mu_stride = (size_t)s->c.batch;
    r.x_places = s->c.steps + 1;
    r.learning = vgs__config_is_policy(&s->c);
    return r;
}

/* B trajectories from noise, from kept samples that are taken back, or from x_0 as it is in place. */
static vgs_status vgs__train_rollout(vgs_sampler *s, bool placed, vgs_error *err)
{
    const vgs__detour none = { 0, false };
    vgs__roll r = vgs__train_roll(s);
    vgs_status st;
    int t;
    s->detour = placed ? none : vgs__replay_detour(s);
    s->rolled = placed ? VGS__ROLLED_GIVEN : VGS__ROLLED;
    r.detour = s->detour.steps;
    r.recalled = s->detour.recalled;
    r.placed = placed;
    if (r.recalled || (s->c.replay && !r.detour)) r.start_scale = 1.0;
    st = r.recalled ? vgs__recall_run(s, &s->stage->recall, &s->stage->back, r.detour, err)
                    : vgs__start_run(s, &s->stage->start, &r, err);
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) st = vgs__roll_step(s, &r, t, err);
    s->energy_calls += vgs__value_calls(s, (double)s->c.batch * s->c.steps);
    if (s->c.drift_energy) s->energy_calls += (double)s->c.batch * s->c.steps;
    else if (vgs__kernel_last_by_energy(s, s->c.steps - 1)) s->energy_calls += s->c.batch;
    return st;
}

/* Targets of all transitions of a pass, the last step first: returns need the later ones. */
static vgs_status vgs__train_targets(vgs_sampler *s, int pass, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    int t, last = s->c.steps - 1;
    vgs_status code = VGS_OK;
    for (t = last; t >= 0 && code == VGS_OK; --t)
        code = s->c.published || t < s->detour.steps
                   ? vgs__fresh_run(s, t == last ? &all->fresh_last : &all->fresh_step, pass, t, err)
                   : vgs__return_run(s, t == last ? &all->return_last : &all->return_step, t, err);
    for (t = all->grad.g ? last - 1 : -1; t >= 0 && code == VGS_OK; --t)
        code = vgs__grad_run(s, &all->grad, t, err);
    s->energy_calls += s->c.batch;
    return code;
}

/* Keeps the samples of the iteration, if its trajectories were the sampler's own. */
static vgs_status vgs__train_keep(vgs_sampler *s, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    vgs_status st = VGS_OK;
    if (!s->c.replay || s->detour.steps || s->rolled == VGS__ROLLED_GIVEN) return VGS_OK;
    if (s->c.refine) st = vgs__keep_refine(s, &all->mala_begin, &all->mala_step, err);
    return st == VGS_OK ? vgs__keep_run(s, &all->keep, err) : st;
}

/* V learns by temporal differences. */
static vgs_status vgs__train_fit_td(vgs_sampler *s, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    int pass, target_passes = s->c.published ? s->c.passes : 1;      /* a return serves all passes      */
    vgs_status st = VGS_OK;
    for (pass = 0; pass < target_passes && st == VGS_OK; ++pass) st = vgs__train_targets(s, pass, err);
    if (st == VGS_OK) st = vgs__factor_run(s, &all->factor_step, &all->factor_last, err);
    for (pass = 0; pass < s->c.passes && st == VGS_OK; ++pass) st = vgs__fit_run(s, &all->fit, &all->fd,
                                                                                 pass, err);
    return st;
}

/* Returns whether the policy's last update met a number that is not finite. */
static vgs_status vgs__train_read_policy_flag(vgs_sampler *s, vgs_error *err)
{
    int32_t f[4];
    vgs_status st = vgs__model_read_flag(s->policy_on, f, err);
    if (st != VGS_OK || !f[0]) return st;
    return vgs__fail(err, VGS_E_NONFINITE, "train: the policy's loss, or a gradient in it, is not finite at "
                     "row %u (iteration %lld)", (unsigned)f[1], (long long)s->iteration);
}

/* V, then the policy, then v_t. What E says is known before the policy learns of it. */
static vgs_status vgs__train_fit_dxdp(vgs_sampler *s, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    int pass, t, last = s->c.steps - 1;
    vgs_status st = VGS_OK;
    for (pass = 0; pass < s->c.passes; ++pass, s->energy_calls += s->c.batch)
        for (t = last; t >= 0 && st == VGS_OK; --t)
            st = vgs__dp_run(s, t == last ? &all->dp_last : &all->dp_step, pass, t, err);
    if (st == VGS_OK) st = vgs__sampler_read_flag(s, "train", err);
    if (st == VGS_OK) st = vgs__policy_fit_run(s, &all->policy_fit, err);
    if (st == VGS_OK) st = vgs__train_read_policy_flag(s, err);
    if (st == VGS_OK) st = vgs_graph_run(all->average.g, 1, err);
    return st == VGS_OK ? vgs__velocity_run(s, &all->velocity, err) : st;
}

static vgs_status vgs__train_fit_logvar(vgs_sampler *s, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    int t;
    vgs_status st = vgs_graph_run(all->path_cost.g, 1, err);
    if (st == VGS_OK) st = vgs__path_end_run(s, &all->path_end, err);
    for (t = 0; t < s->c.steps && st == VGS_OK; ++t) st = vgs__path_step_run(s, &all->path_step, t, err);
    if (st == VGS_OK) st = vgs__sampler_read_flag(s, "train", err);
    if (st == VGS_OK) st = vgs__path_fit_run(s, &all->path_fit, err);
    if (st == VGS_OK) st = vgs__train_read_policy_flag(s, err);
    return st == VGS_OK ? vgs_graph_run(all->average.g, 1, err) : st;
}

/* V or the policy learns from the trajectories of the last rollout, then what follows from V: Vbar, and s0
   unless x_0 was given. */
static vgs_status vgs__train_fit(vgs_sampler *s, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    int64_t adam = s->online->step, sigma = s->sigma_step, policy = s->policy ? s->policy_on->step : 0;
    const bool logvar = vgs__config_learns_by(&s->c, VGS_LOGVAR);
    vgs_status st = logvar ? vgs__train_fit_logvar(s, err)
                  : s->policy ? vgs__train_fit_dxdp(s, err) : vgs__train_fit_td(s, err);
    if (st == VGS_OK && !logvar) st = vgs_graph_run(all->ema.g, 1, err);
    if (st == VGS_OK && s->rolled != VGS__ROLLED_GIVEN) st = vgs__sigma_run(s, &all->sigma_fit, err);
    if (st == VGS_OK) st = vgs__sampler_read_flag(s, "train", err);
    if (st != VGS_OK) {                          /* nothing was learned from this iteration           */
        s->online->step = adam;
        s->sigma_step = sigma;
        if (s->policy) s->policy_on->step = policy;
        if (s->policy) vgs__model_clear_flag(s->policy_on);
        vgs__model_clear_flag(s->online);
        return st;
    }
    st = vgs__train_keep(s, err);
    s->iteration++;
    return st == VGS_OK && s->policy ? vgs__policy_check_sigma(s, err) : st;
}

/* Returns whether this iteration learns from kept samples alone. */
static bool vgs__train_denoises(const vgs_sampler *s)
{
    return s->c.denoise_loss > 0.0f && (s->kept_fixed || s->kept >= s->c.replay) && s->iteration % 2 == 0;
}

/* An iteration of denoise_loss: no trajectories, and V alone learns. */
static vgs_status vgs__train_denoise(vgs_sampler *s, vgs_error *err)
{
    struct vgs__stages *all = s->stage;
    int64_t adam = s->online->step;
    int pass;
    vgs_status st = vgs__recall_run(s, &all->recall, &all->back, s->c.steps - 1, err);
    if (st == VGS_OK) st = vgs__denoise_run(s, &all->end, &all->denoise, err);
    for (pass = 0; pass < s->c.passes && st == VGS_OK; ++pass)
        st = vgs__fit_run(s, &all->denoise_fit, &all->denoise_fd, pass, err);
    if (st == VGS_OK) st = vgs_graph_run(all->ema.g, 1, err);
    if (st == VGS_OK) st = vgs__sampler_read_flag(s, "train", err);
    s->rolled = VGS__ROLLED_NOT;
    if (st == VGS_OK) {
        s->iteration++;
        return st;
    }
    s->online->step = adam;
    vgs__model_clear_flag(s->online);
    return st;
}

static vgs_status vgs__train_iteration(vgs_sampler *s, vgs_error *err)
{
    vgs_status st;
    if (vgs__train_denoises(s)) return vgs__train_denoise(s, err);
    st = vgs__train_rollout(s, false, err);
    if (st == VGS_OK) st = vgs__train_fit(s, err);
    else vgs__model_clear_flag(s->online);
    s->rolled = VGS__ROLLED_NOT;
    return st;
}

VGS__DEF vgs_status vgs_sampler_rollout(vgs_sampler *s, vgs_start from, const float *start, vgs_error *err)
{
    size_t n = (size_t)s->c.batch * (size_t)s->c.energy.dim;
    vgs_status st = vgs__sampler_check_energy_params(s, "rollout", err);
    float *x;
    if (st != VGS_OK) return st;
    if ((int)from < 0 || from > VGS_START_PLACED)
        return vgs__fail(err, VGS_E_ARG, "rollout: from = %d: no such start", (int)from);
    if ((from == VGS_START_ROWS) != (start != NULL))
        return vgs__fail(err, VGS_E_ARG, "rollout: start = %s: rows are for VGS_START_ROWS, which needs them",
                         start ? "rows" : "NULL");
    if (from == VGS_START_ROWS) {
        if (!(x = (float *)vgs__alloc_or(err, "rollout", n, sizeof *x))) return VGS_E_NOMEM;
        st = vgs__draw_rows_given(s, "rollout: start", start, s->c.batch, 0, x, err);
        if (st == VGS_OK) st = s->b->upload(s->b->self, s->traj_x, 0, x, n, VGS_F32, err);
        vgs__free(x);
    }
    if (st == VGS_OK) st = vgs__train_rollout(s, from != VGS_START_NOISE, err);
    st = vgs__draw_end(s, "rollout", st, err);
    if (st != VGS_OK) s->rolled = VGS__ROLLED_NOT;
    return st;
}

VGS__DEF vgs_status vgs_sampler_bind(const vgs_sampler *s, vgs_graph *g, vgs_var leaf, int t, vgs_error *err)
{
    int rows, cols;
    vgs_shape(g, leaf, &rows, &cols);
    if (t < 0 || t > s->c.steps)
        return vgs__fail(err, VGS_E_ARG, "sampler_bind: t = %d: must be 0..%d", t, s->c.steps);
    if (rows != -1 || cols != s->c.energy.dim)
        return vgs__fail(err, VGS_E_SHAPE, "sampler_bind: the leaf must be [B,%d]", s->c.energy.dim);
    if (!vgs__config_is_plain(&s->c))
        return vgs__fail(err, VGS_E_ARG, "sampler_bind: x_t is there in coordinates of its own only: needs "
                         "config.coordinates = plain");
    if (g->backend && g->backend != s->b)
        return vgs__fail(err, VGS_E_ARG, "sampler_bind: the graph is compiled for another backend");
    return vgs_bind(g, leaf, s->traj_x, (size_t)t * (size_t)s->c.batch * (size_t)cols, err);
}

VGS__DEF vgs_status vgs_sampler_fit(vgs_sampler *s, vgs_error *err)
{
    vgs_status st;
    if (s->rolled == VGS__ROLLED_NOT)
        return vgs__fail(err, VGS_E_ARG, "sampler_fit: there is no rollout that it could learn from");
    if ((st = vgs__sampler_check_energy_params(s, "sampler_fit", err)) != VGS_OK) return st;
    st = vgs__train_fit(s, err);
    s->rolled = VGS__ROLLED_NOT;
    return st;
}

/* ---- statistics ---- */

/* Energies of the n samples x; leaves the finite ones sorted in e and returns how many there are. */
static int vgs__train_energy_stats(vgs_sampler *s, const float *x, double *e, int n, vgs_stats *out)
{
    size_t d = (size_t)s->c.energy.dim;
    int i, m = 0, above = 0;
    double sum = 0.0;
    for (i = 0; i < n; ++i) {
        above += s->c.energy_max != 0.0f && e[i] > (double)s->c.energy_max;
        if (vgs__finite(e[i])) { e[m++] = e[i]; sum += e[m - 1]; continue; }
        if (!out->outside) memcpy(s->outside_x, x + (size_t)i * d, d * sizeof *x);
        out->outside = s->outside_x;
    }
    qsort(e, (size_t)m, sizeof *e, vgs__compare_double);
    out->nonfinite = (double)(n - m) / n;
    out->clipped = (double)above / n;
    out->energy_mean = m ? sum / m : vgs__nan();
    out->energy_median = m ? e[m / 2] : vgs__nan();
    out->energy_min = m ? e[0] : vgs__nan();
    out->energy_max = m ? e[m - 1] : vgs__nan();
    return m;
}

/* Draws of `batch` rows with c = 1; the ELBO is the mean of log w. */
static vgs_status vgs__train_measure(vgs_sampler *s, vgs_stats *out, vgs_error *err)
{
    int n = s->c.batch < 512 ? s->c.batch : 512;
    size_t d = (size_t)s->c.energy.dim;
    float *x = (float *)vgs__alloc_or(err, "statistics", (size_t)n * d, sizeof *x);
    double *work = x ? (double *)vgs__alloc_or(err, "statistics", (size_t)n, sizeof *work) : NULL;
    vgs_weights w;
    vgs_draw draw;
    int i;
    vgs_status st = work ? VGS_OK : VGS_E_NOMEM;
    memset(&draw, 0, sizeof draw);
    draw.log_weight = work;
    draw.correct = -1;
    if (st == VGS_OK) st = vgs__draw(s, &draw, (uint64_t)s->iteration + 1, n, x, err);
    w.elbo = w.ess = vgs__nan();
    if (st == VGS_OK) st = vgs_weigh(work, n, &w, err);
    if (st == VGS_OK) vgs__frame_rows(&s->frame, VGS__TO_U, x, n);
    if (st == VGS_OK) st = vgs__sampler_energies(s, x, n, work, err);
    for (i = 0; i < n && st == VGS_OK; ++i)
        work[i] = vgs__frame_energy(&s->frame, x + (size_t)i * d, work[i]);
    if (st == VGS_OK) vgs__frame_rows(&s->frame, VGS__TO_X, x, n);
    out->elbo = w.elbo;
    out->ess = w.ess;
    if (st == VGS_OK) vgs__train_energy_stats(s, x, work, n, out);
    vgs__free(x);
    vgs__free(work);
    return st;
}

static vgs_status vgs__train_fill_stats(vgs_sampler *s, vgs_stats *out, vgs_error *err)
{
    int n = vgs__config_learns_by(&s->c, VGS_LOGVAR) ? 1 : s->c.passes * s->c.steps, i;
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
    return st == VGS_OK ? vgs__train_measure(s, out, err) : st;
}

VGS__DEF vgs_status vgs_sampler_stats(vgs_sampler *s, vgs_stats *stats, vgs_error *err)
{
    vgs_status st = vgs__sampler_check_energy_params(s, "stats", err);
    return st == VGS_OK ? vgs__train_fill_stats(s, stats, err) : st;
}

/* ---- training until it is good ---- */

/* ESS/N of 10000 draws as a caller gets them. */
static vgs_status vgs__train_confirm_ess(vgs_sampler *s, double *ess, vgs_error *err)
{
    enum { N = 10000 };
    float *x = (float *)vgs__alloc_or(err, "draw", (size_t)N * (size_t)s->c.energy.dim, sizeof *x);
    double *w = x ? (double *)vgs__alloc_or(err, "draw", N, sizeof *w) : NULL;
    vgs_weights weights;
    vgs_draw draw;
    vgs_status st = w ? vgs__best_take(s, err) : VGS_E_NOMEM;
    memset(&draw, 0, sizeof draw);
    draw.log_weight = w;
    if (st == VGS_OK) st = vgs__draw(s, &draw, (uint64_t)s->iteration + 1, N, x, err);
    s->energy_calls += vgs__choice_draw_calls(s, N, s->c.correct);
    if (st == VGS_OK) st = vgs_weigh(w, N, &weights, err);
    *ess = st == VGS_OK ? weights.ess : 0.0;
    if (st == VGS_OK) st = vgs__best_leave(s, err);
    vgs__free(x);
    vgs__free(w);
    return st;
}

/* The next thing to try when the gap has stopped to fall: a second pilot with more steps, then with a larger
   batch and the slope loss. */
static vgs_status vgs__train_try_harder(vgs_sampler *s, vgs_error *err)
{
    int more = s->c.steps * 3 / 2;
    if (s->harder++ == 0) s->given.steps = more < 200 ? more : 200;
    else {
        s->given.batch = 2 * s->c.batch;
        if (s->given.slope_loss == 0.0f) s->given.slope_loss = 1.0f;
    }
    return vgs__pilot_again(s, true, err);
}

/* After an iteration: measures now and then. *good: target_ess is reached. */
static vgs_status vgs__train_look(vgs_sampler *s, bool *good, vgs_error *err)
{
    const int64_t since = s->energy_since;
    double ess = 0.0;
    vgs_status st = VGS_OK;
    int k;
    if (!s->piloted || (s->iteration - since) % VGS__MEASURE_EVERY) return st;
    for (k = 0; k < VGS__AGAIN_TIMES && st == VGS_OK; ++k)
        if (s->iteration - since == (int64_t)VGS__AGAIN_FIRST << k) st = vgs__pilot_again(s, false, err);
    if (st == VGS_OK) st = vgs__best_measure(s, err);
    if (st != VGS_OK || s->c.target_ess == 0.0f) return st;
    if (s->best_ess >= 0.9 * (double)s->c.target_ess) st = vgs__train_confirm_ess(s, &ess, err);
    *good = s->reached = ess >= (double)s->c.target_ess;
    if (st == VGS_OK && !*good && s->lr_factor <= 0.13f && s->harder < 2) st = vgs__train_try_harder(s, err);
    return st;
}

static vgs_status vgs__train_progress(vgs_sampler *s, time_t started, vgs_error *err)
{
    vgs_stats now;
    if (!s->c.progress) return VGS_OK;
    memset(&now, 0, sizeof now);
    now.iteration = s->iteration;
    now.elbo = s->best.w ? s->best_elbo : vgs__nan();
    now.ess = s->best.w ? s->best_ess : vgs__nan();
    now.energy_calls = s->energy_calls;
    now.seconds = difftime(time(NULL), started);
    if (!s->c.progress(s->c.progress_user, &now)) return VGS_OK;
    return vgs__fail(err, VGS_E_CANCELLED, "train: cancelled after iteration %lld", (long long)s->iteration);
}

/* The first time the pilot, then the state that training goes on from. */
static vgs_status vgs__train_begin(vgs_sampler *s, vgs_error *err)
{
    const bool changed = s->energy_seen != vgs__sampler_energy_version(s);
    vgs_status st;
    if (s->piloted || s->c.pilot_calls <= 0) {
        st = vgs__best_leave(s, err);
        if (s->piloted && changed) vgs__best_forget(s);
        s->energy_seen = vgs__sampler_energy_version(s);
        return st;
    }
    if ((st = vgs__pilot_run(s, NULL, err)) != VGS_OK) return st;
    s->outside_max = 0.9;
    if ((st = vgs__best_measure(s, err)) != VGS_OK) return st;
    if (s->best_inside < 0.5)
        return vgs__fail(err, VGS_E_NONFINITE, "pilot: at %.0f %% of the draws of its Gaussian the energy is "
                         "infinite or NaN: more than half. Give coordinates = plain, with a length_scale and "
                         "init_sigma that keep samples inside", 100.0 * (1.0 - s->best_inside));
    s->piloted = true;
    s->energy_seen = vgs__sampler_energy_version(s);
    return st;
}

VGS__DEF vgs_status vgs_sampler_train(vgs_sampler *s, int n, vgs_stats *stats, vgs_error *err)
{
    const time_t started = time(NULL);
    bool good = false;
    vgs_status st, end;
    int i;
    if (n < 0) return vgs__fail(err, VGS_E_ARG, "train: n = %d: must be >= 0", n);
    st = vgs__sampler_check_energy_params(s, "train", err);
    if (st == VGS_OK && n > 0) st = vgs__train_begin(s, err);
    for (i = 0; i < n && st == VGS_OK && !good; ++i) {
        st = vgs__train_iteration(s, err);
        if (st == VGS_OK) st = vgs__train_look(s, &good, err);
        if (st == VGS_OK) st = vgs__train_progress(s, started, err);
        if (s->c.minutes > 0.0 && difftime(time(NULL), started) >= 60.0 * s->c.minutes) break;
    }
    end = n > 0 ? vgs__best_take(s, st == VGS_OK ? err : NULL) : VGS_OK;
    st = st == VGS_OK ? end : st;
    if (st != VGS_OK || !stats) return st;
    st = vgs__train_fill_stats(s, stats, err);
    stats->seconds = difftime(time(NULL), started);
    return st;
}

/* ==== >>weights ==================================================================================== */

static double vgs__weights_log_mean_exp(const double *v, int n, double max)
{
    double sum = 0.0;
    int i;
    for (i = 0; i < n; ++i) sum += exp(v[i] - max);
    return max + log(sum / n);
}

/* Shape k of a generalised Pareto for the m values y, ascending and > 0 [Zhang 2009]: k(theta) is the mean of
   log(1 - theta y), the profile likelihood of theta averages a grid of theta, and the prior of [PSIS] pulls k
   to 1/2 with the weight of ten values. */
static double vgs__weights_pareto_shape(const double *y, int m)
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

enum { VGS__FEW = 25 };                          /* fewer rows tell nothing: a tail has five of them */

/* Returns how many weights are the tail. */
static double vgs__weights_tail_rows(int n) { return ceil(fmin(0.2 * n, 3.0 * sqrt((double)n))); }

/* khat of weights of these logarithms, which are put in order: of what is above the largest of the rest.
   Fewer than five: infinite, but 0 if as many as the tail has are equal to the largest. A Pareto tail of m
   values and shape k ends about m^k times as high as it begins. limited: weights that are almost equal,
   however ragged their end, have no more than twice the k that follows from that. (Else 3.5 at ESS/N .999,
   of a cut Gaussian.) Not of the stones of parallel tempering: ragged, they tell of a missing mode. */
static double vgs__weights_khat(double *log_weight, int n, bool limited)
{
    double max, cut, k;
    int first = n - (int)vgs__weights_tail_rows(n), i;
    double *y;
    qsort(log_weight, (size_t)n, sizeof *log_weight, vgs__compare_double);
    max = log_weight[n - 1];
    if (max - log_weight[0] == 0.0 || (n >= VGS__FEW && max == log_weight[first - 1])) return 0.0;
    if (first < 1) return HUGE_VAL;
    cut = fmax(exp(log_weight[first - 1] - max), DBL_MIN);
    while (first < n && !(exp(log_weight[first] - max) > cut)) ++first;
    y = log_weight + first;
    for (i = 0; i < n - first; ++i) y[i] = exp(y[i] - max) - cut;
    if (n - first < 5) return HUGE_VAL;
    k = vgs__weights_pareto_shape(y, n - first);
    return limited ? fmin(k, -2.0 * log(cut) / log((double)(n - first))) : k;
}

/* The error of log P, from a share P of n rows. */
static double vgs__weights_log_inside_se(double inside, int n) { return sqrt((1.0 - inside) / (inside * n)); }

/* All but khat of weights of which not all are 0; max is the largest log_weight. */
static void vgs__weights_moments(const double *log_weight, int n, double max, vgs_weights *out)
{
    enum { BLOCKS = 20 };
    int i, count = n < 2 * BLOCKS ? n / 2 : BLOCKS;
    double sum = 0.0, inside = 0.0, w1 = 0.0, w2 = 0.0, blocks = 0.0, spread = 0.0;
    for (i = 0; i < n; ++i) {
        double w = exp(log_weight[i] - max);
        w1 += w;
        w2 += w * w;
        if (!(log_weight[i] >= -DBL_MAX)) continue;
        sum += log_weight[i] - max;
        inside += 1.0;
    }
    for (i = 0; i < n; ++i) {
        double v = log_weight[i] - max - sum / inside;
        if (log_weight[i] >= -DBL_MAX) spread += v * v;
    }
    for (i = 0; i < count; ++i) {
        int first = (int)((long long)n * i / count), end = (int)((long long)n * (i + 1) / count);
        double r = exp(vgs__weights_log_mean_exp(log_weight + first, end - first, max) - max) / (w1 / n) -
            1.0;
        blocks += r * r;
    }
    out->log_z = max + log(w1 / n);
    out->inside = inside / n;
    out->elbo = max + sum / inside + log(out->inside);
    out->ess = w1 * w1 / (n * w2);
    if (count > 1) out->log_z_se = sqrt(blocks / ((double)count * (count - 1)));
    if (inside > 1.0)
        out->elbo_se = hypot(sqrt(spread / (inside * (inside - 1.0))),
                             vgs__weights_log_inside_se(out->inside, n));
}

/* Of sign times log_weight. An infinity of the wrong sign, or NaN, is an error. */
static vgs_status vgs__weights_both(const double *log_weight, double sign, int n, vgs_weights *out,
                                    vgs_error *err)
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
    out->inside = 0.0;
    out->verdict = VGS_VERDICT_UNKNOWN;
    out->log_z = out->elbo = -HUGE_VAL;
    out->log_z_se = out->elbo_se = out->khat = HUGE_VAL;
    out->ess = 1.0 / n;
    if (max >= -DBL_MAX) {                                           /* else all weights are 0         */
        vgs__weights_moments(v, n, max, out);
        out->khat = vgs__weights_khat(v, n, true);
    }
    out->verdict = vgs_weights_verdict(out, NULL);
    vgs__free(v);
    return VGS_OK;
}

VGS__DEF vgs_status vgs_weigh(const double *log_weight, int n, vgs_weights *out, vgs_error *err)
{
    return vgs__weights_both(log_weight, 1.0, n, out, err);
}

VGS__DEF vgs_status vgs_weigh_forward(const double *log_weight, int n, vgs_forward *out, vgs_error *err)
{
    vgs_weights w;
    vgs_status st = vgs__weights_both(log_weight, -1.0, n, &w, err);
    if (st != VGS_OK) return st;
    out->log_z = -w.log_z;
    out->log_z_se = w.log_z_se;
    out->eubo = -w.elbo;
    out->eubo_se = w.elbo_se;
    out->ess = w.ess;
    out->khat = w.khat;
    out->n = n;
    out->inside = 1.0;
    return VGS_OK;
}

VGS__DEF vgs_status vgs_weigh_forward_inside(const double *log_weight, int n, const vgs_weights *w,
                                             vgs_forward *out, vgs_error *err)
{
    double se = vgs__weights_log_inside_se(w->inside, w->n);
    vgs_status st;
    if (!(w->inside > 0.0))
        return vgs__fail(err, VGS_E_ARG, "weigh: all %d draws are outside: nothing can be said", w->n);
    if ((st = vgs_weigh_forward(log_weight, n, out, err)) != VGS_OK) return st;
    out->inside = w->inside;
    out->log_z += log(w->inside);
    out->eubo += log(w->inside);
    out->log_z_se = hypot(out->log_z_se, se);
    out->eubo_se = hypot(out->eubo_se, se);
    return VGS_OK;
}

/* ---- the rule, in a word and in a sentence ---- */

VGS__DEF const char *vgs_verdict_name(vgs_verdict v)
{
    static const char *const names[] = { "unknown", "unusable", "caution", "usable" };
    return (unsigned)v <= VGS_VERDICT_USABLE ? names[v] : "unknown";
}

/* The figures that both directions have in common; whose: "" or "forward ". */
typedef struct vgs__quality { const char *whose; double log_z, se, ess, khat; int n; } vgs__quality;

static vgs__quality vgs__weights_quality_of(const vgs_weights *w, const vgs_forward *f)
{
    vgs__quality q;
    q.whose = w ? "" : "forward ";
    q.log_z = w ? w->log_z : f->log_z;
    q.se = w ? w->log_z_se : f->log_z_se;
    q.ess = w ? w->ess : f->ess;
    q.khat = w ? w->khat : f->khat;
    q.n = w ? w->n : f->n;
    return q;
}

/* Is the tail heavier than that of log-normal weights with this ESS? Their logarithm has the variance
   -log ESS, and at the normal quantile z their tail falls as one of shape sqrt(variance)/z. */
static bool vgs__weights_heavy(const vgs__quality *q)
{
    double rows = vgs__weights_tail_rows(q->n), z = -vgs__mcmc_normal_quantile(rows / (2.0 * q->n));
    return vgs__finite(q->khat) && q->khat > 0.5 &&
           q->khat > sqrt(fmax(-log(q->ess), 0.0)) / z + 2.0 * (1.0 + q->khat) / sqrt(rows);
}

static vgs_verdict vgs__weights_judge(const vgs__quality *q)
{
    if (!vgs__finite(q->log_z) || q->n < VGS__FEW) return VGS_VERDICT_UNKNOWN;
    if (q->ess < 0.03 || (q->khat > 0.7 && vgs__finite(q->khat))) return VGS_VERDICT_UNUSABLE;
    if (!vgs__finite(q->khat) || !vgs__finite(q->se)) return VGS_VERDICT_UNKNOWN;
    return q->ess < 0.1 || q->se > 0.2 || vgs__weights_heavy(q) ? VGS_VERDICT_CAUTION : VGS_VERDICT_USABLE;
}

/* Forward less reverse log Z, both with the share of the draws inside; *apart: they disagree. */
static double vgs__weights_gap(const vgs_weights *w, const vgs_forward *f, bool *apart)
{
    double gap = f->log_z - w->log_z + (w->inside > 0.0 ? log(w->inside / f->inside) : 0.0);
    double bar = hypot(w->log_z_se, f->log_z_se);
    *apart = vgs__finite(gap) && vgs__finite(bar) && fabs(gap) > 0.02 && fabs(gap) > 5.0 * bar;
    return gap;
}

VGS__DEF vgs_verdict vgs_weights_verdict(const vgs_weights *w, const vgs_forward *f)
{
    vgs__quality q;
    vgs_verdict v = VGS_VERDICT_UNKNOWN, other;
    bool apart = false;
    if (w) {
        q = vgs__weights_quality_of(w, NULL);
        v = vgs__weights_judge(&q);
    }
    if (!f) return v;
    q = vgs__weights_quality_of(NULL, f);
    other = vgs__weights_judge(&q);
    if (!w) return other;
    vgs__weights_gap(w, f, &apart);
    return apart ? VGS_VERDICT_UNUSABLE : other < v ? other : v;
}

/* Writes what is wrong with weights of this quality; false if nothing is. */
static bool vgs__weights_complain(const vgs__quality *q, char text[200])
{
    const char *whose = q->whose;
    if (!vgs__finite(q->log_z))
        snprintf(text, 200, "all %d %sweights are 0: nothing can be said", q->n, whose);
    else if (q->n < VGS__FEW)
        snprintf(text, 200, "%d %sweights are too few to judge: it takes %d", q->n, whose, VGS__FEW);
    else if (q->ess * q->n < 2.0)
        snprintf(text, 200, "one of %d %sweights outweighs all others: log Z and ESS mean nothing", q->n,
                 whose);
    else if (q->khat > 0.7 && vgs__finite(q->khat))
        snprintf(text, 200, "a few large %sweights decide (k-hat %.2f is above 0.7, ESS/N %.3g): log Z and "
                 "its error cannot be trusted", whose, q->khat, q->ess);
    else if (q->ess < 0.03)
        snprintf(text, 200, "too few %sweights count (ESS/N %.2g is below 0.03): log Z and its error cannot "
                 "be trusted", whose, q->ess);
    else if (!vgs__finite(q->khat) || !vgs__finite(q->se))
        snprintf(text, 200, "the largest of %d %sweights are equal but for a few: their tail cannot be "
                 "judged (ESS/N %.2g)", q->n, whose, q->ess);
    else if (vgs__weights_heavy(q))
        snprintf(text, 200, "caution: the %sweights have a heavy tail (k-hat %.2f at ESS/N %.2g): tails are "
                 "hardly reached, and log Z is off by more than its error", whose, q->khat, q->ess);
    else if (q->se > 0.2)
        snprintf(text, 200, "caution: parts of the %sweights disagree (log Z +- %.2g, ESS/N %.3g): more are "
                 "needed, or better ones", whose, q->se, q->ess);
    else if (q->ess < 0.1)
        snprintf(text, 200, "caution: few %sweights count (ESS/N %.2g is below 0.1): log Z may be off by "
                 "more than its error (k-hat %.2f)", whose, q->ess, q->khat);
    else return false;
    return true;
}

/* ", 12 % of the draws outside", or nothing. */
static const char *vgs__weights_outside_text(const vgs_weights *w, char text[48])
{
    text[0] = '\0';
    if (w->inside < 1.0) snprintf(text, 48, ", %.2g %% of the draws outside", 100.0 * (1.0 - w->inside));
    return text;
}

VGS__DEF void vgs_weights_say(const vgs_weights *w, const vgs_forward *f, char text[200])
{
    bool apart = false;
    double gap = w && f ? vgs__weights_gap(w, f, &apart) : 0.0;
    vgs__quality q;
    char outside[48];
    text[0] = '\0';
    if (apart && gap > 0.0) {
        snprintf(text, 200, "reverse and forward log Z disagree by %.2g nats: part of the target is not "
                 "reached, about %.2g %% of its mass%s", gap, 100.0 * (1.0 - exp(-gap)),
                 w->khat > 0.7 || w->ess < 0.03 ? ", or too few weights count" : "");
        return;
    }
    if (apart) {
        snprintf(text, 200, "reverse and forward log Z disagree by %.2g nats: the weights, or the reference, "
                 "cannot be trusted", -gap);
        return;
    }
    if (w) q = vgs__weights_quality_of(w, NULL);
    if (w && vgs__weights_complain(&q, text)) return;
    if (f) q = vgs__weights_quality_of(NULL, f);
    if (f && vgs__weights_complain(&q, text)) return;
    if (w && f)
        snprintf(text, 200, "the weights can be used (ESS/N %.2g, k-hat %.2f%s), and reverse and forward "
                 "log Z agree within %.2g nats", w->ess, w->khat, vgs__weights_outside_text(w, outside),
                 fabs(gap));
    else if (w)
        snprintf(text, 200, "the weights can be used (ESS/N %.2g, k-hat %.2f%s), unless part of the target "
                 "is never reached, which only reference samples would tell", w->ess, w->khat,
                 vgs__weights_outside_text(w, outside));
    else if (f)
        snprintf(text, 200, "the forward weights can be used (ESS/N %.2g, k-hat %.2f)", f->ess, f->khat);
}

/* ==== >>files ====================================================================================== */

VGS__DEF void vgs_free(void *p)
{
    vgs__free(p);
}

#ifndef VGS_NO_STDIO
#include <errno.h>

/* stat is in every Unix; fileno and fsync are hidden by -std=c99 unless POSIX is requested, and then the
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
static const char *vgs__file_brief(const char *path)
{
    size_t n = strlen(path);
    return n > 96 ? path + (n - 96) : path;
}

static const char *vgs__file_reason(int error)
{
    return error ? strerror(error) : "the system gives no reason";
}

/* ---- writing: a temporary, then one rename ---- */

/* True for a device, a pipe or a folder: a rename would put a plain file in its place (as root, for
   /dev/null too), so these are opened as they are. */
static bool vgs__file_is_special(const char *path)
{
#ifdef VGS__STAT
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
#else
    (void)path;
    return false;
#endif
}

static uint32_t vgs__file_temp_number(const void *here, int attempt)
{
    uint64_t h = (uint64_t)(uintptr_t)here + ((uint64_t)time(NULL) << 20);
    h += (uint64_t)clock() + (uint64_t)attempt;
    h *= 0x9E3779B97F4A7C15u;
    h ^= h >> 32;
    h *= 0x9E3779B97F4A7C15u;
    return (uint32_t)(h >> 32);
}

/* PATH.tmp-1a2b3c4d: beside PATH, so that the rename stays within one file system. */
static FILE *vgs__file_temp_open(char *temp, size_t length)
{
    FILE *f;
    int i;
    for (i = 0; i < 16; ++i) {
        snprintf(temp + length, 16, ".tmp-%08lx", (unsigned long)vgs__file_temp_number(temp, i));
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
    if (vgs__file_is_special(path)) {
        f->stream = fopen(path, "wb");
    } else {
        f->temp = f->path + n + 1;
        memcpy(f->temp, path, n);
        f->stream = vgs__file_temp_open(f->temp, n);
    }
    if (f->stream) return VGS_OK;
    vgs__fail(err, VGS_E_IO, "cannot open %s for writing: %s", vgs__file_brief(path),
              vgs__file_reason(errno));
    vgs__file_close(f);
    return VGS_E_IO;
}

static void vgs__file_put(vgs_file *f, const void *data, size_t bytes)
{
    if (f->error || !bytes) return;
    errno = 0;
    if (fwrite(data, 1, bytes, f->stream) != bytes) f->error = errno ? errno : EIO;
}

static bool vgs__file_flush(FILE *stream, bool to_disk)
{
    if (fflush(stream) != 0 || ferror(stream)) return false;
#ifdef VGS__FSYNC
    return !to_disk || fsync(fileno(stream)) == 0;
#else
    (void)to_disk;
    return true;
#endif
}

static bool vgs__file_replace(const char *from, const char *to)
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
    ok = !f->error && vgs__file_flush(f->stream, f->temp != NULL);
    if (!ok && !f->error) f->error = errno;
    if (fclose(f->stream) != 0 && ok) {
        ok = false;
        f->error = errno;
    }
    if (ok && f->temp && !vgs__file_replace(f->temp, f->path)) {
        ok = false;
        f->error = errno;
    }
    if (!ok) {
        vgs__fail(err, VGS_E_IO, "cannot write %s: %s", vgs__file_brief(f->path), vgs__file_reason(f->error));
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

/* Returns how many bytes of the file are left beyond `have`, as a hint: 0 where the C library cannot tell (a
   pipe, or a file of more than 2 GB where long has 32 bits). */
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
            return vgs__fail(err, VGS_E_NOMEM, "out of memory: %s has over %.0f bytes", vgs__file_brief(path),
                             (double)n);
        }
        memcpy(big, buf, n);
        vgs__free(buf);
        buf = big;
        cap = n + more;
    }
    if (ferror(f)) {
        vgs__fail(err, VGS_E_IO, "cannot read %s: %s", vgs__file_brief(path), vgs__file_reason(errno));
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
    if (!f) return vgs__fail(err, VGS_E_IO, "cannot open %s: %s", vgs__file_brief(path),
                             vgs__file_reason(errno));
    st = vgs__stream_read(f, path, data, size, err);
    fclose(f);
    return st;
}

/* ---- bytes: everything in a file is little-endian, whatever the processor ---- */

static uint64_t vgs__file_load_le(const unsigned char *p, size_t size)
{
    uint64_t v = 0;
    while (size--) v = v << 8 | p[size];
    return v;
}

static void vgs__file_store_le(unsigned char *p, uint64_t v, size_t size)
{
    size_t i;
    for (i = 0; i < size; ++i) p[i] = (unsigned char)(v >> 8 * i);
}

/* One number of the host's memory as little-endian bytes. */
static void vgs__file_host_to_le(unsigned char *out, const unsigned char *in, size_t size)
{
    uint16_t h;
    uint32_t w;
    uint64_t d;
    if (size == 8) {
        memcpy(&d, in, 8);
        vgs__file_store_le(out, d, 8);
    } else if (size == 4) {
        memcpy(&w, in, 4);
        vgs__file_store_le(out, w, 4);
    } else if (size == 2) {
        memcpy(&h, in, 2);
        vgs__file_store_le(out, h, 2);
    } else {
        *out = *in;
    }
}

/* n floats from little-endian floats (size 4) or doubles (8). Returns how many could be had: all of them,
   or the place of the first double that is finite but no float. */
static size_t vgs__file_floats_from_le(float *out, const unsigned char *in, size_t size, size_t n)
{
    size_t i;
    for (i = 0; i < n; ++i) {
        uint64_t u = vgs__file_load_le(in + i * size, size);
        double d;
        if (size == 4) {
            out[i] = vgs__from_bits((uint32_t)u);
            continue;
        }
        memcpy(&d, &u, 8);
        if (vgs__finite(d) && fabs(d) > (double)FLT_MAX) break;
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

/* The bytes of a file go into a sink: into the file if there is one, else into the checksum. The same code
   thus measures a header, sums a file and writes it, and no copy of it is held. */
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
        for (i = 0; i < m; ++i) vgs__file_host_to_le(part + i * size, in + i * size, size);
        vgs__sink_put(k, part, m * size);
    }
}

/* ---- text: UTF-8 and numbers that do not depend on the locale ---- */

/* Length of the character at p, 0 if the bytes are not UTF-8 (Unicode 15, table 3-7). */
static int vgs__scan_utf8(const unsigned char *p, size_t left)
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

static bool vgs__scan_is_utf8(const char *text)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t left = strlen(text);
    int n;
    for (; left; p += n, left -= (size_t)n) {
        n = vgs__scan_utf8(p, left);
        if (!n) return false;
    }
    return true;
}

static void vgs__scan_decimal(uint64_t v, char out[24])
{
    char digits[24];
    int n = 0, i;
    do digits[n++] = (char)('0' + (int)(v % 10)); while (v /= 10);
    for (i = 0; i < n; ++i) out[i] = digits[n - 1 - i];
    out[n] = 0;
}

/* A number as printf has it may hold any bytes for the decimal point: whatever is no part of a C number. */
static void vgs__scan_decimal_point(char *text)
{
    char *from = text + strspn(text, "+-0123456789e"), *to;
    to = from + strcspn(from, "+-0123456789e");
    if (from == to) return;
    *from = '.';
    memmove(from + 1, to, strlen(to) + 1);
}

VGS__DEF void vgs_number_text(double x, char text[32])
{
    int digits = 15;
    if (!vgs__finite(x)) {
        strcpy(text, "null");
        return;
    }
    do snprintf(text, 32, "%.*g", digits, x); while (strtod(text, NULL) != x && ++digits <= 17);
    vgs__scan_decimal_point(text);
}

/* A JSON number and nothing else. */
static bool vgs__scan_is_number(const char *s)
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
static bool vgs__scan_number(const char *s, double *out)
{
    char half[16], text[96];
    const char *dot = strchr(s, '.');
    size_t whole = dot ? (size_t)(dot - s) : strlen(s), point;
    if (!vgs__scan_is_number(s) || strlen(s) > 64) return false;
    snprintf(half, sizeof half, "%.1f", 0.5);
    point = dot ? strlen(half) - 2 : 0;
    memcpy(text, s, whole);
    memcpy(text + whole, half + 1, point);
    strcpy(text + whole + point, dot ? dot + 1 : "");
    *out = strtod(text, NULL);
    return vgs__finite(*out);
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
    vgs__fail(s->err, VGS_E_FORMAT, "%s: byte %.0f of the header: %s", vgs__file_brief(s->path),
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

static char *vgs__scan_put_utf8(char *t, uint32_t u)
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

/* Reads what follows a backslash. */
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
    *t = vgs__scan_put_utf8(*t, u);
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
        n = *s->p < 0x20 ? 0 : vgs__scan_utf8(s->p, (size_t)(s->end - s->p));
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
    vgs__fail(s->err, VGS_E_FORMAT, "%s: byte %.0f of the header: field '%.30s' %s", vgs__file_brief(s->path),
              (double)(s->p - s->start), key, i < 3 ? "appears twice" : "is not known");
    return 0;
}

static bool vgs__scan_complete(vgs__scan *s, const char *const fields[3], int seen)
{
    int i;
    for (i = 0; i < 3 && seen & 1 << i; ++i) ;
    if (i < 3) vgs__fail(s->err, VGS_E_FORMAT, "%s: byte %.0f of the header: field '%s' is missing",
                         vgs__file_brief(s->path), (double)(s->p - s->start), fields[i]);
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
    vgs__file_store_le(head + 8, VGS__NPY_HEADER - 10, 2);
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
    vgs__fail(s->err, VGS_E_FORMAT, "%s: descr is '%s'; only '<f4' and '<f8' are read",
              vgs__file_brief(s->path),
              descr);
    return false;
}

static bool vgs__npy_order(vgs__scan *s, bool *fortran)
{
    static const char *const words[2] = { "False", "True" };
    int c = vgs__scan_peek(s), i;
    for (i = 0; i < 2; ++i) {
        size_t n = strlen(words[i]);
        if (c < 0 || (size_t)(s->end - s->p) < n || memcmp(s->p, words[i], n) != 0) continue;
        s->p += n;
        *fortran = i == 1;
        return true;
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

static bool vgs__npy_dict(vgs__scan *s, size_t *size, bool *fortran, uint64_t shape[2])
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
        ok = bit == 1 ? vgs__npy_descr(s, size)
           : bit == 2 ? vgs__npy_order(s, fortran) : vgs__npy_shape(s, shape);
        if (ok && !vgs__scan_accept(s, ',') && vgs__scan_peek(s) != '}') return vgs__scan_expect(s, ',');
    }
    if (!ok || !vgs__scan_complete(s, fields, seen)) return false;
    return vgs__scan_peek(s) < 0 || vgs__scan_fail(s, "something follows the closing '}'");
}

/* Finds where the header's text starts and ends; `name` appears in messages. */
static bool vgs__npy_frame(const unsigned char *data, size_t size, vgs__scan *s)
{
    size_t fixed = 10, length;
    const char *what = NULL;
    if (size < 10 || memcmp(data, "\x93NUMPY", 6) != 0) {
        what = "not a .npy file";
    } else if (data[6] < 1 || data[6] > 3 || data[7] != 0) {
        vgs__fail(s->err, VGS_E_FORMAT, "%s: the version of .npy is %d.%d; 1.0, 2.0 and 3.0 are read",
                  vgs__file_brief(s->path), data[6], data[7]);
        return false;
    } else {
        fixed = data[6] == 1 ? 10 : 12;
        length = size < fixed ? 0 : (size_t)vgs__file_load_le(data + 8, fixed - 8);
        if (size < fixed || length > size - fixed) what = "the file ends within the header";
        s->start = s->p = data + fixed;
        s->end = what ? s->p : s->p + length;
    }
    if (what) vgs__fail(s->err, VGS_E_FORMAT, "%s: %s", vgs__file_brief(s->path), what);
    return !what;
}

/* *x [rows,cols] from the same array column by column, which it frees in any case. */
static vgs_status vgs__npy_transpose(float **x, int rows, int cols, vgs_error *err)
{
    size_t n = (size_t)rows, m = (size_t)cols, i, j;
    float *from = *x, *to = (float *)vgs__alloc_or(err, "an array", n * m, sizeof *to);
    for (i = 0; to && i < n; ++i)
        for (j = 0; j < m; ++j) to[i * m + j] = from[j * n + i];
    vgs__free(from);
    *x = to;
    return to ? VGS_OK : VGS_E_NOMEM;
}

/* A .npy file in memory; `path` is for messages. */
static vgs_status vgs__npy_parse(const unsigned char *data, size_t size, const char *path, float **x,
                                 int *rows, int *cols, vgs_error *err)
{
    vgs__scan s;
    uint64_t shape[2];
    size_t width, n, got, rest;
    bool fortran = false;
    float *out;
    memset(&s, 0, sizeof s);
    s.path = path;
    s.err = err;
    if (!vgs__npy_frame(data, size, &s) || !vgs__npy_dict(&s, &width, &fortran, shape)) return VGS_E_FORMAT;
    rest = size - (size_t)(s.end - data);
    if (shape[0] * shape[1] > rest / width || shape[0] * shape[1] * width != rest)
        return vgs__fail(err, VGS_E_FORMAT, "%s: shape (%.0f, %.0f) needs %.0f bytes of data; there are %.0f",
                         vgs__file_brief(path), (double)shape[0], (double)shape[1],
                         (double)shape[0] * (double)shape[1] * (double)width, (double)rest);
    n = (size_t)(shape[0] * shape[1]);
    out = (float *)vgs__alloc_or(err, "an array", n, sizeof *out);
    if (!out) return VGS_E_NOMEM;
    got = vgs__file_floats_from_le(out, s.end, width, n);
    if (got < n) {
        vgs__free(out);
        return vgs__fail(err, VGS_E_NONFINITE, "%s: number %.0f is too large for a float",
                         vgs__file_brief(path),
                         (double)got);
    }
    *x = out;
    *rows = (int)shape[0];
    *cols = (int)shape[1];
    return fortran ? vgs__npy_transpose(x, *rows, *cols, err) : VGS_OK;
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
   first is seen: a file of ours with one of them must have both. Another program that saves such a file again
   copies the metadata, but the checksum is that of the old bytes. So our header begins with a brace and a
   space, which others do not write, and without the space there is no check. In its place no other byte but
   white space leaves a good header, so a changed bit cannot take the check away. ---- */

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
    bool        ours;                   /* the header is as vgs_writer_save wrote it */
    const unsigned char *digits;        /* of the checksum; NULL if there is none, or it is of another file */
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
    int i;
    if (!vgs__scan_string(s, &t->dtype_name)) return false;
    for (i = 0; i < VGS__DTYPES && strcmp(t->dtype_name, vgs__dtypes[i].name) != 0; ++i) ;
    t->dtype = (vgs_dtype)i;                                         /* VGS_DTYPE_OTHER if it is none */
    return true;
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

/* The bytes that offsets name must lie in the file and be what dtype and shape need. The size of another
   dtype is not known, but a value has a bit at least. */
static bool vgs__st_place(vgs_safetensors *st, vgs__scan *s, vgs_file_tensor *t, const uint64_t range[2])
{
    uint64_t n = 1, size = t->dtype == VGS_DTYPE_OTHER ? 0 : (uint64_t)vgs__dtypes[t->dtype].size, bytes;
    const char *what = NULL;
    int i;
    for (i = 0; i < t->ndim && !what; ++i) {
        if (t->shape[i] && n > UINT64_MAX / t->shape[i]) what = "shape overflows";
        n *= t->shape[i];
    }
    if (range[1] > st->data_bytes) what = "data_offsets lie outside the file";
    if (range[0] > range[1]) what = "data_offsets run backwards";
    bytes = range[1] - range[0];
    if (!what && (size ? n > UINT64_MAX / size || n * size != bytes : n / 8 > bytes || !n != !bytes))
        what = "data_offsets do not fit dtype and shape";
    if (what) {
        vgs__fail(s->err, VGS_E_FORMAT, "%s: tensor '%.60s': %s", vgs__file_brief(s->path), t->name, what);
        return false;
    }
    t->count = (size_t)n;
    t->bytes = (size_t)bytes;
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
        if (st->ours && strcmp(m->key, "vgs.checksum") == 0) {
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
    st->ours = s->p < s->end && *s->p == ' ';
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

static bool vgs__st_checksum(const vgs_safetensors *st, const unsigned char *file, size_t size,
                             vgs_error *err)
{
    size_t before = (size_t)(st->digits - file);
    char got[16];
    vgs__crc c;
    vgs__crc_init(&c);
    vgs__crc_add(&c, file, before);
    vgs__crc_add(&c, "00000000", 8);
    vgs__crc_add(&c, file + before + 8, size - before - 8);
    snprintf(got, sizeof got, "%08lx", (unsigned long)vgs__crc_end(&c));
    if (memcmp(got, st->digits, 8) == 0) return true;
    vgs__fail(err, VGS_E_FORMAT, "checksum mismatch: %s says %.8s, the data give %s",
              vgs__file_brief(st->path),
              (const char *)st->digits, got);
    return false;
}

static bool vgs__st_format(const vgs_safetensors *st, const unsigned char *file, size_t size,
                           vgs_error *err)
{
    const char *format = vgs_safetensors_meta(st, "vgs.format"), *path = vgs__file_brief(st->path);
    if (st->ours && !format != !st->digits) {
        vgs__fail(err, VGS_E_FORMAT, "%s: metadata lacks '%s'", path, format ? "vgs.checksum" : "vgs.format");
        return false;
    }
    if (st->digits && !vgs__st_checksum(st, file, size, err)) return false;
    if (!format || strcmp(format, "1") == 0) return true;
    vgs__fail(err, VGS_E_FORMAT, "%s: vgs.format is '%.20s'; this library reads '1'", path, format);
    return false;
}

static int vgs__st_by_place(const void *a, const void *b)
{
    const vgs_file_tensor *s = (const vgs_file_tensor *)a, *t = (const vgs_file_tensor *)b;
    const unsigned char *p = (const unsigned char *)s->data, *q = (const unsigned char *)t->data;
    return p != q ? (p > q) - (p < q) : (s->bytes > t->bytes) - (s->bytes < t->bytes);
}

static int vgs__st_by_name(const void *a, const void *b)
{
    return strcmp(((const vgs_file_tensor *)a)->name, ((const vgs_file_tensor *)b)->name);
}

static int vgs__st_by_key(const void *a, const void *b)
{
    return strcmp(((const vgs__meta *)a)->key, ((const vgs__meta *)b)->key);
}

/* Together the tensors must cover the data, without gap or overlap. */
static bool vgs__st_cover(vgs_safetensors *st, vgs_error *err)
{
    const unsigned char *next = st->data;
    int i;
    if (st->tensor_count) qsort(st->tensors, (size_t)st->tensor_count, sizeof *st->tensors, vgs__st_by_place);
    for (i = 0; i < st->tensor_count; ++i) {
        const vgs_file_tensor *t = &st->tensors[i];
        if (t->data != next) {
            vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s': data_offsets overlap or leave a gap",
                      vgs__file_brief(st->path), t->name);
            return false;
        }
        next += t->bytes;
    }
    if (next == st->data + st->data_bytes) return true;
    vgs__fail(err, VGS_E_FORMAT, "%s: the last %.0f bytes belong to no tensor", vgs__file_brief(st->path),
              (double)(st->data + st->data_bytes - next));
    return false;
}

static bool vgs__st_names(vgs_safetensors *st, vgs_error *err)
{
    const char *twice = NULL;
    int i;
    if (st->tensor_count) qsort(st->tensors, (size_t)st->tensor_count, sizeof *st->tensors, vgs__st_by_name);
    if (st->meta_count) qsort(st->metas, (size_t)st->meta_count, sizeof *st->metas, vgs__st_by_key);
    for (i = 1; i < st->tensor_count; ++i)
        if (vgs__st_by_name(&st->tensors[i - 1], &st->tensors[i]) == 0) twice = st->tensors[i].name;
    for (i = 1; i < st->meta_count; ++i)
        if (vgs__st_by_key(&st->metas[i - 1], &st->metas[i]) == 0) twice = st->metas[i].key;
    if (!twice) return true;
    vgs__fail(err, VGS_E_FORMAT, "%s: the name '%.60s' appears twice", vgs__file_brief(st->path), twice);
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
    vgs__fail(err, VGS_E_NOMEM, "out of memory: the header of %s has %.0f bytes", vgs__file_brief(path),
              (double)header);
    vgs_safetensors_free(st);
    return NULL;
}

/* A .safetensors file in memory, which must stay there; `path` is for messages. */
static vgs_safetensors *vgs__st_parse(const unsigned char *file, size_t size, const char *path,
                                      vgs_error *err)
{
    uint64_t length = size < 8 ? 0 : vgs__file_load_le(file, 8);
    vgs_safetensors *st;
    vgs__scan s;
    if (size < 8 || length > size - 8 || length > VGS__HEADER_MAX) {
        vgs__fail(err, VGS_E_FORMAT, "%s: not a .safetensors file: %.0f bytes cannot hold a header of %.0f",
                  vgs__file_brief(path), (double)size, (double)length);
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
        vgs__st_format(st, file, size, err)) return st;
    vgs_safetensors_free(st);
    return NULL;
}

VGS__DEF vgs_safetensors *vgs_safetensors_open(const char *path, vgs_error *err)
{
    vgs_safetensors *st;
    unsigned char *file;
    size_t size;
    if (vgs__file_read(path, &file, &size, err)) return NULL;
    st = vgs__st_parse(file, size, path, err);
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
                                            vgs__st_by_name);
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
    m = (vgs__meta *)bsearch(&want, s->metas, (size_t)s->meta_count, sizeof want, vgs__st_by_key);
    return m ? m->value : NULL;
}

static const vgs_file_tensor *vgs__st_get(const vgs_safetensors *s, const char *name, size_t n,
                                          vgs_error *err)
{
    const vgs_file_tensor *t = vgs_safetensors_find(s, name);
    if (!t) {
        vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s' is missing", vgs__file_brief(s->path), name);
    } else if (t->count != n) {
        vgs__fail(err, VGS_E_SHAPE, "%s: tensor '%.60s' has %.0f values; %.0f are needed",
                  vgs__file_brief(s->path), name, (double)t->count, (double)n);
        t = NULL;
    }
    return t;
}

static vgs_status vgs__st_kind(const vgs_safetensors *s, const vgs_file_tensor *t, const char *want,
                               vgs_error *err)
{
    return vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s' is %s; %s is needed", vgs__file_brief(s->path),
                     t->name, t->dtype_name, want);
}

VGS__DEF vgs_status vgs_safetensors_floats(const vgs_safetensors *s, const char *name, float *out, size_t n,
                                           vgs_error *err)
{
    const vgs_file_tensor *t = vgs__st_get(s, name, n, err);
    size_t got;
    if (!t) return vgs_safetensors_find(s, name) ? VGS_E_SHAPE : VGS_E_FORMAT;
    if (t->dtype != VGS_DTYPE_F32 && t->dtype != VGS_DTYPE_F64) return vgs__st_kind(s, t, "F32 or F64", err);
    got = vgs__file_floats_from_le(out, (const unsigned char *)t->data, t->dtype == VGS_DTYPE_F32 ? 4 : 8, n);
    if (got == n) return VGS_OK;
    return vgs__fail(err, VGS_E_NONFINITE, "%s: tensor '%.60s': number %.0f is too large for a float",
                     vgs__file_brief(s->path), name, (double)got);
}

VGS__DEF vgs_status vgs_safetensors_doubles(const vgs_safetensors *s, const char *name, double *out, size_t n,
                                            vgs_error *err)
{
    const vgs_file_tensor *t = vgs__st_get(s, name, n, err);
    size_t size = t && t->dtype == VGS_DTYPE_F32 ? 4 : 8, i;
    if (!t) return vgs_safetensors_find(s, name) ? VGS_E_SHAPE : VGS_E_FORMAT;
    if (t->dtype != VGS_DTYPE_F32 && t->dtype != VGS_DTYPE_F64) return vgs__st_kind(s, t, "F32 or F64", err);
    for (i = 0; i < n; ++i) {
        uint64_t u = vgs__file_load_le((const unsigned char *)t->data + i * size, size);
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
    if (t->dtype < VGS_DTYPE_I64 || t->dtype == VGS_DTYPE_OTHER) return vgs__st_kind(s, t, "an integer", err);
    from_signed = t->dtype <= VGS_DTYPE_I8;
    size = (size_t)vgs__dtypes[t->dtype].size;
    for (i = 0; i < n; ++i) {
        uint64_t v = vgs__file_load_le((const unsigned char *)t->data + i * size, size);
        if (from_signed && size < 8 && v >> (8 * size - 1)) v |= UINT64_MAX << 8 * size;
        if (v >> 63 && from_signed != is_signed)
            return vgs__fail(err, VGS_E_FORMAT, "%s: tensor '%.60s': number %.0f is %s",
                             vgs__file_brief(s->path),
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
    if (text && vgs__scan_number(text, out)) return VGS_OK;
    if (!text)
        return vgs__fail(err, VGS_E_FORMAT, "%s: metadata '%.60s' is missing", vgs__file_brief(s->path), key);
    return vgs__fail(err, VGS_E_FORMAT, "%s: metadata '%.60s' is '%.30s', not a number",
                     vgs__file_brief(s->path),
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
    if (!name || !vgs__scan_is_utf8(name) || (value && !vgs__scan_is_utf8(value))) {
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
    char text[32];
    vgs_number_text(value, text);
    if (vgs__finite(value) || w->error.code) vgs_writer_meta(w, key, text);
    else vgs__fail(&w->error, VGS_E_NONFINITE, "writer: metadata '%.60s' is not finite", key ? key : "NULL");
}

static void vgs__sink_text(vgs__sink *k, const char *text)
{
    vgs__sink_put(k, text, strlen(text));
}

/* As a JSON string. The text is UTF-8: vgs__writer_add has seen to it. */
static void vgs__sink_string(vgs__sink *k, const char *text)
{
    static const char special[] = "\"\\\b\f\n\r\t", letter[] = "\"\\bfnrt";
    char c[8] = "\\";
    vgs__sink_text(k, "\"");
    for (; *text; ++text) {
        const char *at = strchr(special, *text);
        if (at) {
            c[1] = letter[at - special];
            vgs__sink_put(k, c, 2);
        } else if ((unsigned char)*text < 0x20) {
            vgs__sink_put(k, c, (size_t)snprintf(c, sizeof c, "\\u%04x", (unsigned)*text));
        } else {
            vgs__sink_put(k, text, 1);
        }
    }
    vgs__sink_text(k, "\"");
}

static void vgs__sink_u64(vgs__sink *k, const char *before, uint64_t v)
{
    char text[24];
    vgs__scan_decimal(v, text);
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
    vgs__sink_text(k, "{ \"__metadata__\":{\"vgs.checksum\":\"");
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
    vgs__file_store_le(length, header, 8);
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

/* ---- models ---- */

/* The arrays of m under prefix + their names, from x [size], which must outlive the save. */
static void vgs__ckpt_put_model(const vgs_model *m, vgs_writer *w, const char *prefix, const float *x)
{
    char name[128];
    uint64_t shape[2];
    int i;
    for (i = 0; i < m->net->n_info; ++i) {
        const vgs_param_info *p = &m->net->info[i];
        snprintf(name, sizeof name, "%.60s%s", prefix, p->name);
        shape[0] = (uint64_t)(p->rows ? p->rows : p->cols);
        shape[1] = (uint64_t)p->cols;
        vgs_writer_tensor(w, name, VGS_DTYPE_F32, p->rows ? 2 : !vgs__net_param_is_scale(p), shape,
                          x + p->offset);
    }
}

/* scale_or_1: without out_scale it is 1, as in the reference's pretrained file, which has none. */
static vgs_status vgs__ckpt_get_model_or(const vgs_model *m, bool scale_or_1, const vgs_safetensors *f,
                                         const char *path, const char *prefix, float *out, vgs_error *err)
{
    char name[128];
    int i;
    vgs_status st = VGS_OK;
    for (i = 0; i < m->net->n_info && st == VGS_OK; ++i) {
        const vgs_param_info *p = &m->net->info[i];
        const vgs_file_tensor *t;
        bool fits;
        snprintf(name, sizeof name, "%.60s%s", prefix, p->name);
        t = vgs_safetensors_find(f, name);
        if (!t && scale_or_1 && vgs__net_param_is_scale(p)) {
            out[p->offset] = 1.0f;
            continue;
        }
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

static vgs_status vgs__ckpt_get_model(const vgs_model *m, const vgs_safetensors *f, const char *path,
                                      const char *prefix, float *out, vgs_error *err)
{
    return vgs__ckpt_get_model_or(m, false, f, path, prefix, out, err);
}

static vgs_status vgs__ckpt_check_finite(const char *path, const char *name, const float *x, size_t n,
                                         bool positive, vgs_error *err)
{
    size_t i;
    for (i = 0; i < n; ++i)
        if (!vgs__finite((double)x[i]) || (positive && !(x[i] > 0.0f)))
            return vgs__fail(err, VGS_E_NONFINITE, "%.120s: %s[%.0f] = %g: must be finite%s", path, name,
                             (double)i, (double)x[i], positive ? " and > 0" : "");
    return VGS_OK;
}

/* Second moments are averages of squares. */
static vgs_status vgs__ckpt_check_squares(const char *path, const char *name, const float *x, size_t n,
                                          vgs_error *err)
{
    size_t i;
    for (i = 0; i < n; ++i)
        if (x[i] < 0.0f)
            return vgs__fail(err, VGS_E_FORMAT, "%.120s: %s[%.0f] = %g: must be >= 0", path, name, (double)i,
                             (double)x[i]);
    return VGS_OK;
}

static vgs_status vgs__ckpt_read_counter(const vgs_safetensors *f, const char *key, int64_t *out,
                                         vgs_error *err)
{
    double v = 0.0;
    vgs_status st = vgs_safetensors_meta(f, key) ? vgs_safetensors_number(f, key, &v, err) : VGS_OK;
    if (st == VGS_OK && !(v >= 0.0 && v < 9e15))
        return vgs__fail(err, VGS_E_FORMAT, "%s = %g: must be >= 0", key, v);
    *out = (int64_t)v;
    return st;
}

static void vgs__ckpt_write_counter(vgs_writer *w, const char *key, int64_t n)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)n);
    vgs_writer_meta(w, key, text);
}

/* Weights and moments on the host, n numbers each. */
typedef struct vgs__model_host { float *w, *first, *second; int64_t step; } vgs__model_host;

static vgs_status vgs__ckpt_host_make(const vgs_model *m, vgs__model_host *h, vgs_error *err)
{
    size_t n = (size_t)m->net->size;
    h->w = (float *)vgs__alloc_or(err, "model", 3 * n, sizeof *h->w);
    if (!h->w) return VGS_E_NOMEM;
    h->first = h->w + n;
    h->second = h->first + n;
    h->step = 0;
    return VGS_OK;
}

VGS__DEF vgs_status vgs_model_save(const vgs_model *m, const char *path, vgs_error *err)
{
    vgs__model_host h;
    vgs_status st = vgs__ckpt_host_make(m, &h, err);
    vgs_writer *w;
    if (st != VGS_OK) return st;
    st = vgs_model_read(m, h.w, err);
    if (st == VGS_OK) st = vgs_model_read_adam(m, h.first, h.second, &h.step, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "weights", h.w, (size_t)m->net->size, false, err);
    w = st == VGS_OK ? vgs_writer_create(err) : NULL;
    if (w) {
        vgs__ckpt_put_model(m, w, "", h.w);
        if (h.step) vgs__ckpt_put_model(m, w, "vgs.adam_m.", h.first);
        if (h.step) vgs__ckpt_put_model(m, w, "vgs.adam_v.", h.second);
        vgs__ckpt_write_counter(w, "vgs.adam_step", h.step);
        st = vgs_writer_save(w, path, err);
        vgs_writer_free(w);
    } else if (st == VGS_OK) st = VGS_E_NOMEM;
    vgs__free(h.w);
    return st;
}

static vgs_status vgs__ckpt_host_get(const vgs_model *m, vgs__model_host *h, const vgs_safetensors *f,
                                     const char *path, vgs_error *err)
{
    size_t n = (size_t)m->net->size;
    vgs_status st = vgs__ckpt_get_model(m, f, path, "", h->w, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.adam_step", &h->step, err);
    if (st == VGS_OK && h->step) st = vgs__ckpt_get_model(m, f, path, "vgs.adam_m.", h->first, err);
    if (st == VGS_OK && h->step) st = vgs__ckpt_get_model(m, f, path, "vgs.adam_v.", h->second, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "weights", h->w, n, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.adam_m", h->first, n, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.adam_v", h->second, n, false, err);
    return st == VGS_OK ? vgs__ckpt_check_squares(path, "vgs.adam_v", h->second, n, err) : st;
}

VGS__DEF vgs_status vgs_model_load(vgs_model *m, const char *path, vgs_error *err)
{
    vgs__model_host h;
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    vgs_status st;
    if (!f) return err ? err->code : VGS_E_FORMAT;
    st = vgs__ckpt_host_make(m, &h, err);
    if (st == VGS_OK) st = vgs__ckpt_host_get(m, &h, f, path, err);
    if (st == VGS_OK && (h.step || m->step)) st = vgs_model_write_adam(m, h.first, h.second, h.step, err);
    if (st == VGS_OK) st = vgs_model_write(m, h.w, err);
    vgs__free(h.w);
    vgs_safetensors_free(f);
    return st;
}

/* ---- samplers ---- */

/* Numbers of a sampler in coordinates of its own: type, key under "vgs.", member. */
#define VGS__OWN(X) \
    X(double, e0, frame.e0)                 X(float, energy_limit, energy_max)                        \
    X(float, feature_limit, feature_max)    X(double, feature_width, feature_width)                   \
    X(bool, last_by_value, last_by_value)   X(bool, piloted, piloted)                                 \
    X(int, kept_fixed, kept_fixed)          X(float, lr_factor, lr_factor)                            \
    X(double, best_elbo, best_elbo)         X(double, best_ess, best_ess)                             \
    X(int, harder, harder)                  X(int, correct, c.correct)                                \
    X(int, stalled, stalled)                X(double, best_gap, best.gap)                             \
    X(bool, training_last, training.last_by_value)                                                    \
    X(double, pilot_energy_calls, pilot.energy_calls) X(double, pilot_detail, pilot.detail)           \
    X(double, pilot_rhat, pilot.rhat)       X(int, pilot_steps, pilot.steps)                          \
    X(int, pilot_rows, pilot.rows)          X(double, pilot_limit, pilot.energy_limit)                \
    X(double, pilot_offset, pilot.energy_offset)

enum {
#define VGS__KEY(type, key, member) VGS__OWN_##key,
    VGS__OWN(VGS__KEY)
#undef VGS__KEY
    VGS__OWN_COUNT
};

/* Host copies of everything a checkpoint holds: p weights each, T steps, s0 and its two moments, and k
   samples for replay with their log w. */
typedef struct vgs__snapshot {
    float *target, *online, *m, *v, *factor, *s2, *a, *replay_x, *replay_weight, sigma[3], mala_h;
    int64_t iteration, adam_step, sigma_step, kept, energy_since;
    double energy_calls;
    double *frame, own[VGS__OWN_COUNT];          /* m, L, walls (vgs__frame_count); VGS__OWN, above   */
    vgs__state training;                         /* w = NULL: none                                    */
    vgs__model_host policy;                      /* of the policy that learns; w = NULL: none         */
    float *policy_average, *velocity;            /* [size], [T]                                       */
} vgs__snapshot;

static void vgs__snapshot_free(vgs__snapshot *h)
{
    vgs__free(h->target);
    vgs__free(h->frame);
    vgs__free(h->policy.w);
    vgs__state_free(&h->training);
}

static vgs_status vgs__snapshot_policy(const vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    size_t n = s->policy ? (size_t)vgs_model_size(s->policy) : 0;
    if (!s->policy) return VGS_OK;
    h->policy.w = (float *)vgs__alloc_or(err, "checkpoint", 4 * n + (size_t)s->c.steps, sizeof *h->policy.w);
    if (!h->policy.w) return VGS_E_NOMEM;
    h->policy.first = h->policy.w + n;
    h->policy.second = h->policy.first + n;
    h->policy_average = h->policy.second + n;
    h->velocity = h->policy_average + n;
    return VGS_OK;
}

static vgs_status vgs__snapshot_make(const vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    size_t p = (size_t)vgs_model_size(s->online), t = (size_t)s->c.steps, f = vgs__sampler_factor_count(s);
    size_t k = vgs__sampler_replay_rows(s), d = (size_t)s->c.energy.dim;
    memset(h, 0, sizeof *h);
    h->frame = (double *)vgs__alloc_or(err, "checkpoint", vgs__frame_count(&s->frame), sizeof *h->frame);
    if (!h->frame) return VGS_E_NOMEM;
    h->target = (float *)vgs__alloc_or(err, "checkpoint", 4 * p + f + 2 * t + k * (d + 1), sizeof *h->target);
    if (!h->target || vgs__snapshot_policy(s, h, err) != VGS_OK) {
        vgs__snapshot_free(h);
        memset(h, 0, sizeof *h);
        return VGS_E_NOMEM;
    }
    h->online = h->target + p;
    h->m = h->online + p;
    h->v = h->m + p;
    h->factor = h->v + p;
    h->s2 = h->factor + f;
    h->a = h->s2 + t;
    h->replay_x = h->a + t;
    h->replay_weight = h->replay_x + k * d;
    return VGS_OK;
}

/* Moves what does not lie in models between host and backend; `up` uploads. */
static vgs_status vgs__snapshot_move(const vgs_sampler *s, vgs__snapshot *h, bool up, vgs_error *err)
{
    vgs_backend *b = s->b;
    const size_t f = vgs__sampler_factor_count(s), kept = vgs__sampler_replay_rows(s);
    const struct { vgs_buffer *buf; float *host; size_t at, n; } all[7] = {
        { s->factor, h->factor, 0, f },      { s->sigma, &h->sigma[0], 0, 1 },
        { s->sigma, &h->sigma[1], 32, 1 },   { s->sigma, &h->sigma[2], 48, 1 },
        { s->replay_x, h->replay_x, 0, kept * (size_t)s->c.energy.dim },
        { s->replay_weight, h->replay_weight, 0, kept }, { s->mala_h, &h->mala_h, 0, 1 }
    };
    vgs_status st = VGS_OK;
    int k;
    for (k = 0; k < (s->c.replay ? 7 : 4) && st == VGS_OK; ++k)
        st = up ? b->upload(b->self, all[k].buf, all[k].at, all[k].host, all[k].n, VGS_F32, err)
                : b->download(b->self, all[k].host, all[k].buf, all[k].at, all[k].n, VGS_F32, err);
    return st;
}

static vgs_status vgs__snapshot_read_policy(const vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    vgs__model_host *p = &h->policy;
    vgs_status st;
    if (!s->policy) return VGS_OK;
    st = vgs_model_read(s->policy, h->policy_average, err);
    if (st == VGS_OK) st = vgs_model_read(s->policy_on, p->w, err);
    if (st == VGS_OK) st = vgs_model_read_adam(s->policy_on, p->first, p->second, &p->step, err);
    if (st != VGS_OK || !s->velocity) return st;
    return s->b->download(s->b->self, h->velocity, s->velocity, 0, (size_t)s->c.steps, VGS_F32, err);
}

static vgs_status vgs__snapshot_write_policy(vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    const vgs__model_host *p = &h->policy;
    vgs_status st;
    if (!s->policy) return VGS_OK;
    st = vgs_model_write(s->policy, h->policy_average, err);
    if (st == VGS_OK) st = vgs_model_write(s->policy_on, p->w, err);
    if (st == VGS_OK) st = vgs_model_write_adam(s->policy_on, p->first, p->second, p->step, err);
    if (st != VGS_OK || !s->velocity) return st;
    return s->b->upload(s->b->self, s->velocity, 0, h->velocity, (size_t)s->c.steps, VGS_F32, err);
}

static vgs_status vgs__snapshot_read(const vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    vgs_status st = vgs_model_read(s->target, h->target, err);
    if (st == VGS_OK) st = vgs__snapshot_read_policy(s, h, err);
    if (st == VGS_OK) st = vgs_model_read(s->online, h->online, err);
    if (st == VGS_OK) st = vgs_model_read_adam(s->online, h->m, h->v, &h->adam_step, err);
    return st == VGS_OK ? vgs__snapshot_move(s, h, false, err) : st;
}

static vgs_status vgs__snapshot_write(vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    vgs_status st = vgs__snapshot_move(s, h, true, err);
    if (st == VGS_OK) st = vgs__snapshot_write_policy(s, h, err);
    if (st == VGS_OK) st = vgs_model_write_adam(s->online, h->m, h->v, h->adam_step, err);
    if (st == VGS_OK) st = vgs_model_write(s->online, h->online, err);
    return st == VGS_OK ? vgs_model_write(s->target, h->target, err) : st;
}

/* A field that the caller has left open, for a pilot to choose. */
static bool vgs__ckpt_field_is_open(const vgs__field *f, const vgs_config *given)
{
    return f->kind != VGS__U64 && f->kind != VGS__BOOL && vgs__field_number(f, given) == 0.0;
}

/* Their names: a second pilot chooses them once more, also in a sampler that goes on from a file. */
static void vgs__ckpt_write_open(const vgs_sampler *s, vgs_writer *w)
{
    char text[2048];
    size_t at = 0;
    int i;
    text[0] = '\0';
    for (i = 0; i < VGS__FIELD_COUNT && at < sizeof text - 64; ++i)
        if (vgs__ckpt_field_is_open(&vgs__fields[i], &s->given))
            at += (size_t)snprintf(text + at, sizeof text - at, "%s ", vgs__fields[i].name);
    vgs_writer_meta(w, "vgs.open", text);
}

static void vgs__ckpt_read_open(vgs_sampler *s, const vgs_safetensors *f)
{
    const char *text = vgs_safetensors_meta(f, "vgs.open"), *end;
    char name[64];
    int i;
    for (; text && (end = strchr(text, ' ')) != NULL; text = end + 1) {
        snprintf(name, sizeof name, "%.*s", (int)(end - text < 63 ? end - text : 63), text);
        i = vgs_field_find(name);
        if (i >= 0 && vgs__fields[i].kind != VGS__U64 && vgs__fields[i].kind != VGS__BOOL)
            vgs__field_put(&vgs__fields[i], &s->given, 0.0);
    }
}

static void vgs__ckpt_write_meta(const vgs_sampler *s, vgs_writer *w, const char *const *meta)
{
    char text[32];
    int i;
    for (i = 0; vgs_field_name(i); ++i) {
        vgs_field_get(&s->c, i, text);
        vgs_writer_meta(w, vgs_field_name(i), text);
    }
    vgs__ckpt_write_counter(w, "vgs.iteration", s->iteration);
    vgs__ckpt_write_counter(w, "vgs.adam_step", s->online->step);
    vgs__ckpt_write_counter(w, "vgs.sigma_step", s->sigma_step);
    if (s->policy) vgs__ckpt_write_counter(w, "vgs.policy_step", s->policy_on->step);
    if (s->c.replay) vgs__ckpt_write_counter(w, "vgs.kept", s->kept);
    vgs_writer_number(w, "vgs.energy_calls", s->energy_calls);
    if (!vgs__config_is_plain(&s->c)) {
        if (s->energy_since) vgs__ckpt_write_counter(w, "vgs.energy_since", s->energy_since);
#define VGS__KEY(type, key, member) \
        vgs_writer_number(w, "vgs." #key, fmax(fmin((double)s->member, 1e300), -1e300));
        VGS__OWN(VGS__KEY)
#undef VGS__KEY
        vgs__ckpt_write_open(s, w);
    }
    for (i = 0; meta && meta[i] && meta[i + 1]; i += 2) vgs_writer_meta(w, meta[i], meta[i + 1]);
}

static vgs_status vgs__ckpt_check_meta(const char *const *meta, vgs_error *err)
{
    int i;
    for (i = 0; meta && meta[i]; i += 2) {
        if (!strncmp(meta[i], "vgs.", 4) || vgs_field_find(meta[i]) >= 0)
            return vgs__fail(err, VGS_E_ARG, "sampler_save: meta key %.60s is the library's own", meta[i]);
        if (!meta[i + 1])
            return vgs__fail(err, VGS_E_ARG, "sampler_save: meta key %.60s has no value", meta[i]);
    }
    return VGS_OK;
}

/* Coordinates, and the state of training where draws go by a better one. */
static void vgs__ckpt_write_own(const vgs_sampler *s, vgs_writer *w)
{
    const uint64_t d = (uint64_t)s->c.energy.dim, l = (uint64_t)vgs__frame_l_count(&s->frame), one = 1;
    const uint64_t p = (uint64_t)vgs_model_size(s->online), f = (uint64_t)vgs__sampler_factor_count(s);
    const uint64_t wall[2] = { 3, d };
    if (vgs__config_is_plain(&s->c)) return;
    vgs_writer_tensor(w, "vgs.coordinates_m", VGS_DTYPE_F64, 1, &d, s->frame.m);
    vgs_writer_tensor(w, "vgs.coordinates_l", VGS_DTYPE_F64, 1, &l, s->frame.l);
    if (s->frame.walled) vgs_writer_tensor(w, "vgs.coordinates_wall", VGS_DTYPE_F64, 2, wall, s->frame.wall);
    if (!s->training.w) return;
    vgs_writer_tensor(w, "vgs.training_value", VGS_DTYPE_F32, 1, &p, s->training.w);
    vgs_writer_tensor(w, "vgs.training_factor", VGS_DTYPE_F32, 1, &f, s->training.factor);
    vgs_writer_tensor(w, "vgs.training_sigma", VGS_DTYPE_F32, 1, &one, &s->training.s0);
}

static void vgs__ckpt_write_policy(const vgs_sampler *s, vgs_writer *w, const vgs__snapshot *h)
{
    const uint64_t t = (uint64_t)s->c.steps;
    if (!s->policy) return;
    vgs__ckpt_put_model(s->policy, w, "policy.", h->policy_average);
    vgs__ckpt_put_model(s->policy_on, w, "policy_on.", h->policy.w);
    vgs__ckpt_put_model(s->policy_on, w, "vgs.policy_m.", h->policy.first);
    vgs__ckpt_put_model(s->policy_on, w, "vgs.policy_v.", h->policy.second);
    if (s->velocity) vgs_writer_tensor(w, "vgs.velocity", VGS_DTYPE_F32, 1, &t, h->velocity);
}

static void vgs__ckpt_write_tensors(const vgs_sampler *s, vgs_writer *w, const vgs__snapshot *h)
{
    const uint64_t p = (uint64_t)vgs_model_size(s->online), t = (uint64_t)s->c.steps, two = 2, one = 1;
    uint64_t factor[3], kept[2];
    factor[0] = t;
    factor[1] = 2;
    factor[2] = (uint64_t)s->factors;
    kept[0] = (uint64_t)vgs__sampler_replay_rows(s);
    kept[1] = (uint64_t)s->c.energy.dim;
    vgs__ckpt_put_model(s->target, w, "value.", h->target);
    vgs__ckpt_put_model(s->online, w, "value_on.", h->online);
    vgs__ckpt_write_policy(s, w, h);
    vgs_writer_tensor(w, "s2", VGS_DTYPE_F32, 1, &t, s->s2);
    vgs_writer_tensor(w, "alpha", VGS_DTYPE_F32, 1, &t, s->a);
    vgs_writer_tensor(w, "init_sigma", VGS_DTYPE_F32, s->c.alpha == VGS_VP ? 1 : 0, &one, h->sigma);
    vgs_writer_tensor(w, "vgs.factor", VGS_DTYPE_F32, 3, factor, h->factor);
    vgs_writer_tensor(w, "vgs.adam_m", VGS_DTYPE_F32, 1, &p, h->m);
    vgs_writer_tensor(w, "vgs.adam_v", VGS_DTYPE_F32, 1, &p, h->v);
    vgs_writer_tensor(w, "vgs.sigma_moments", VGS_DTYPE_F32, 1, &two, h->sigma + 1);
    vgs__ckpt_write_own(s, w);
    if (!s->c.replay) return;
    vgs_writer_tensor(w, "vgs.kept_x", VGS_DTYPE_F32, 2, kept, h->replay_x);
    vgs_writer_tensor(w, "vgs.kept_weight", VGS_DTYPE_F32, 1, kept, h->replay_weight);
    vgs_writer_tensor(w, "vgs.walk_step", VGS_DTYPE_F32, 1, &one, &h->mala_h);
}

VGS__DEF vgs_status vgs_sampler_save(const vgs_sampler *s, const char *path, const char *const *meta,
                                     vgs_error *err)
{
    vgs__snapshot h;
    vgs_status st = vgs__ckpt_check_meta(meta, err);
    vgs_writer *w;
    if (st == VGS_OK) st = vgs__snapshot_make(s, &h, err);
    if (st != VGS_OK) return st;
    st = vgs__snapshot_read(s, &h, err);
    if (st == VGS_OK)                            /* what could not be loaded is not saved             */
        st = vgs__ckpt_check_finite(path, "value", h.target, 2 * (size_t)vgs_model_size(s->online), false,
                                    err);
    if (st == VGS_OK && s->policy)
        st = vgs__ckpt_check_finite(path, "policy_on", h.policy.w, (size_t)vgs_model_size(s->policy), false,
                                    err);
    w = st == VGS_OK ? vgs_writer_create(err) : NULL;
    if (w) {
        vgs__ckpt_write_tensors(s, w, &h);
        vgs__ckpt_write_meta(s, w, meta);
        st = vgs_writer_save(w, path, err);
        vgs_writer_free(w);
    } else if (st == VGS_OK) st = VGS_E_NOMEM;
    vgs__snapshot_free(&h);
    return st;
}

static bool vgs__ckpt_meta_is_set(const vgs_safetensors *f, const char *key)
{
    const char *v = vgs_safetensors_meta(f, key);
    return v && strcmp(v, "0") != 0;
}

/* Switches that the published algorithm was made of, in files of before: `published` has taken their place
   where they were used together. What else they say is refused, lest another sampler take its place. */
static vgs_status vgs__ckpt_old_switches(const vgs_safetensors *f, const char *path, const vgs_config *c,
                                         vgs_error *err)
{
    static const char *const other[] = { "no_base", "unclamped_drift", "skip_final_noise" };
    const bool one_step = vgs__ckpt_meta_is_set(f, "one_step");
    const bool counts[3] = { vgs__net_is(c->net.kind, VGS__NET_BASE), c->energy_max != 0.0f, true };
    const bool now[3] = { c->published, vgs__config_last_drift_is_raw(c), false };
    int k;
    if (!vgs_safetensors_meta(f, "one_step")) return VGS_OK;
    if (one_step && !(c->fixed_kernel && c->explicit_drift))
        return vgs__fail(err, VGS_E_FORMAT,
                         "%.100s: one_step = 1 without fixed_kernel and explicit_drift is no "
                         "longer supported: the published algorithm, which has all three, is left", path);
    for (k = 0; k < 3; ++k)
        if (counts[k] && vgs__ckpt_meta_is_set(f, other[k]) != now[k])
            return vgs__fail(err, VGS_E_FORMAT, "%.100s: %s = %d with one_step = %d is no longer supported%s",
                             path, other[k], !now[k], one_step, k == 2 ? ": draws have this field" : "");
    return VGS_OK;
}

VGS__DEF vgs_status vgs_checkpoint_config(const char *path, vgs_config *cfg, int *count, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    vgs_config c = *cfg;
    vgs_error why;
    vgs_status st = VGS_OK;
    int i, n = 0;
    if (!f) return err ? err->code : VGS_E_FORMAT;
    for (i = 0; i < vgs_safetensors_meta_count(f) && st == VGS_OK; ++i) {
        const char *key = vgs_safetensors_meta_key(f, i);
        if (vgs_field_find(key) < 0) continue;
        st = vgs_field_set(&c, key, vgs_safetensors_meta(f, key), &why);
        if (st != VGS_OK) st = vgs__fail(err, VGS_E_FORMAT, "%.100s: metadata %.120s", path, why.msg);
        ++n;
    }
    if (st == VGS_OK) st = vgs__ckpt_old_switches(f, path, &c, err);
    vgs_safetensors_free(f);
    if (st != VGS_OK) return st;
    *cfg = c;
    if (count) *count = n;
    return VGS_OK;
}

/* The samples for replay; a file without them, or of another `replay`, has kept none. */
static vgs_status vgs__ckpt_read_kept(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                      vgs__snapshot *h, vgs_error *err)
{
    const vgs_file_tensor *t = vgs_safetensors_find(f, "vgs.kept_weight");
    size_t n = vgs__sampler_replay_rows(s), d = (size_t)s->c.energy.dim, i;
    vgs_status st = VGS_OK;
    for (i = 0; i < n; ++i) h->replay_weight[i] = -FLT_MAX;
    h->mala_h = 0.5f * s->c.s2_end;
    if (!t || t->count != n) return VGS_OK;
    st = vgs__ckpt_read_counter(f, "vgs.kept", &h->kept, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.kept_weight", h->replay_weight, n, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.kept_x", h->replay_x, n * d, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.walk_step", &h->mala_h, 1, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.kept_x", h->replay_x, n * d, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.walk_step", &h->mala_h, 1, true, err);
    return st;
}

/* Weights; value_on defaults to value in a state_dict, which has none of our extras. */
static vgs_status vgs__ckpt_read_networks(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                          bool ours, vgs__snapshot *h, vgs_error *err)
{
    size_t p = (size_t)vgs_model_size(s->online);
    bool online = ours;
    vgs_status st = vgs__ckpt_get_model(s->target, f, path, "value.", h->target, err);
    int i;
    for (i = 0; i < vgs_safetensors_count(f); ++i)
        online = online || !strncmp(vgs_safetensors_tensor(f, i)->name, "value_on.", 9);
    memcpy(h->online, h->target, p * sizeof *h->online);
    if (st == VGS_OK && online) st = vgs__ckpt_get_model(s->online, f, path, "value_on.", h->online, err);
    if (st == VGS_OK && ours) st = vgs_safetensors_floats(f, "vgs.adam_m", h->m, p, err);
    if (st == VGS_OK && ours) st = vgs_safetensors_floats(f, "vgs.adam_v", h->v, p, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "value", h->target, p, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "value_on", h->online, p, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.adam_m", h->m, p, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.adam_v", h->v, p, false, err);
    return st == VGS_OK ? vgs__ckpt_check_squares(path, "vgs.adam_v", h->v, p, err) : st;
}

static vgs_status vgs__ckpt_read_policy(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                        vgs__snapshot *h, vgs_error *err)
{
    vgs__model_host *p = &h->policy;
    size_t n, t = (size_t)s->c.steps;
    vgs_status st;
    if (!s->policy) return VGS_OK;
    n = (size_t)vgs_model_size(s->policy);
    st = vgs__ckpt_get_model(s->policy, f, path, "policy.", h->policy_average, err);
    if (st == VGS_OK) st = vgs__ckpt_get_model(s->policy_on, f, path, "policy_on.", p->w, err);
    if (st == VGS_OK) st = vgs__ckpt_get_model(s->policy_on, f, path, "vgs.policy_m.", p->first, err);
    if (st == VGS_OK) st = vgs__ckpt_get_model(s->policy_on, f, path, "vgs.policy_v.", p->second, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.policy_step", &p->step, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "policy", h->policy_average, n, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "policy_on", p->w, n, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.policy_m", p->first, 2 * n, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_squares(path, "vgs.policy_v", p->second, n, err);
    if (st != VGS_OK || !s->velocity) return st;
    st = vgs_safetensors_floats(f, "vgs.velocity", h->velocity, t, err);
    return st == VGS_OK ? vgs__ckpt_check_finite(path, "vgs.velocity", h->velocity, t, true, err) : st;
}

/* T of the file's sampler is that of ours, if it says one. */
static vgs_status vgs__ckpt_check_steps(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                        vgs_error *err)
{
    double steps = s->c.steps;
    vgs_status st = VGS_OK;
    if (vgs_safetensors_meta(f, "steps")) st = vgs_safetensors_number(f, "steps", &steps, err);
    if (st != VGS_OK || steps == (double)s->c.steps) return st;
    return vgs__fail(err, VGS_E_SHAPE, "%.120s: has steps = %.0f, but the sampler has %d", path, steps,
                     s->c.steps);
}

/* Schedule, s0 and factors. */
static vgs_status vgs__ckpt_read_kernel(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                        bool ours, vgs__snapshot *h, vgs_error *err)
{
    size_t t = (size_t)s->c.steps, factors = vgs__sampler_factor_count(s), j;
    vgs_status st = VGS_OK;
    for (j = 0; j < factors; ++j) h->factor[j] = 1.0f;
    memcpy(h->s2, s->s2, t * sizeof *h->s2);
    memcpy(h->a, s->a, t * sizeof *h->a);
    if (vgs_safetensors_find(f, "vgs.factor")) st = vgs_safetensors_floats(f, "vgs.factor", h->factor,
                                                                           factors, err);
    if (st == VGS_OK && (ours || vgs_safetensors_find(f, "s2")))
        st = vgs_safetensors_floats(f, "s2", h->s2, t, err);
    if (st == VGS_OK && (ours || vgs_safetensors_find(f, "alpha")))
        st = vgs_safetensors_floats(f, "alpha", h->a, t, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "init_sigma", h->sigma, 1, err);
    if (st == VGS_OK && ours) st = vgs_safetensors_floats(f, "vgs.sigma_moments", h->sigma + 1, 2, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.factor", h->factor, factors, true, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "s2", h->s2, t, true, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "alpha", h->a, t, true, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "init_sigma", h->sigma, 1, true, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.sigma_moments", h->sigma + 1, 2, false, err);
    return st == VGS_OK ? vgs__ckpt_check_squares(path, "vgs.sigma_moments", h->sigma + 2, 1, err) : st;
}

static vgs_status vgs__ckpt_read_training(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                          vgs__state *h, vgs_error *err)
{
    size_t p = (size_t)vgs_model_size(s->online), n = vgs__sampler_factor_count(s);
    vgs_status st;
    if (!vgs_safetensors_find(f, "vgs.training_value")) return VGS_OK;
    if (!(h->w = (float *)vgs__alloc_or(err, "checkpoint", p + n, sizeof *h->w))) return VGS_E_NOMEM;
    h->factor = h->w + p;
    st = vgs_safetensors_floats(f, "vgs.training_value", h->w, p, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.training_factor", h->factor, n, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.training_sigma", &h->s0, 1, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.training_value", h->w, p, false, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "vgs.training_factor", h->factor, n, true, err);
    return st == VGS_OK ? vgs__ckpt_check_finite(path, "vgs.training_sigma", &h->s0, 1, true, err) : st;
}

/* Walls, where there are any. */
static vgs_status vgs__ckpt_read_walls(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                       double *wall, vgs_error *err)
{
    size_t d = (size_t)s->c.energy.dim, i;
    vgs_status st = VGS_OK;
    for (i = 0; i < 3 * d; ++i) wall[i] = i < d ? -HUGE_VAL : i < 2 * d ? HUGE_VAL : 1.0;
    if (!vgs_safetensors_find(f, "vgs.coordinates_wall")) return st;
    if (s->c.energy.record)
        return vgs__fail(err, VGS_E_SHAPE, "%.120s: vgs.coordinates_wall: a recorded energy has none", path);
    st = vgs_safetensors_doubles(f, "vgs.coordinates_wall", wall, 3 * d, err);
    for (i = 0; i < d && st == VGS_OK; ++i)
        if (!(wall[i] < wall[d + i] && wall[2 * d + i] > 0.0 && vgs__finite(wall[2 * d + i])))
            st = vgs__fail(err, VGS_E_FORMAT, "%.120s: vgs.coordinates_wall, column %d: %g to %g, length %g",
                           path, (int)i, wall[i], wall[d + i], wall[2 * d + i]);
    return st;
}

/* A file of before coordinates: u is x, E0 is 0. */
static vgs_status vgs__ckpt_read_own(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                     vgs__snapshot *h, vgs_error *err)
{
    static const char *const key[] = {
#define VGS__KEY(type, key, member) "vgs." #key,
        VGS__OWN(VGS__KEY)
#undef VGS__KEY
    };
    size_t d = (size_t)s->c.energy.dim, l = vgs__frame_l_count(&s->frame), i;
    vgs_status st = vgs_safetensors_doubles(f, "vgs.coordinates_m", h->frame, d, err);
    if (st == VGS_OK) st = vgs_safetensors_doubles(f, "vgs.coordinates_l", h->frame + d, l, err);
    if (st == VGS_OK) st = vgs__ckpt_read_walls(s, f, path, h->frame + d + l, err);
    for (i = 0; i < VGS__OWN_COUNT && st == VGS_OK; ++i)
        st = vgs_safetensors_number(f, key[i], &h->own[i], err);
#define VGS__KEY(type, key, member) \
    if (st == VGS_OK && (type)0.5 == (type)0 && !(fabs(h->own[VGS__OWN_##key]) <= 1e9))               \
        st = vgs__fail(err, VGS_E_FORMAT, "%.120s: vgs.%s = %g: is no count", path, #key,              \
                       h->own[VGS__OWN_##key]);
    VGS__OWN(VGS__KEY)
#undef VGS__KEY
    for (i = 0; i < d + l && st == VGS_OK; ++i)
        if (!vgs__finite(h->frame[i]))
            st = vgs__fail(err, VGS_E_NONFINITE, "%.120s: its coordinates are not finite", path);
    if (st == VGS_OK && !(h->own[VGS__OWN_correct] >= -1.0 &&
                          h->own[VGS__OWN_correct] <= (double)VGS__MALA_MOST))
        st = vgs__fail(err, VGS_E_FORMAT, "%.120s: vgs.correct = %g: must be 0..%d", path,
                       h->own[VGS__OWN_correct], (int)VGS__MALA_MOST);
    if (st == VGS_OK && !(h->own[VGS__OWN_kept_fixed] >= 0.0 &&
                          h->own[VGS__OWN_kept_fixed] <= 0.5 * s->c.replay))
        st = vgs__fail(err, VGS_E_FORMAT, "%.120s: vgs.kept_fixed = %g: must be 0..%d", path,
                       h->own[VGS__OWN_kept_fixed], s->c.replay / 2);
    return st == VGS_OK ? vgs__ckpt_read_training(s, f, path, &h->training, err) : st;
}

static vgs_status vgs__ckpt_read_snapshot(const vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                          vgs__snapshot *h, vgs_error *err)
{
    bool ours = vgs_safetensors_find(f, "vgs.adam_m") != NULL;
    vgs_status st = vgs__ckpt_check_steps(s, f, path, err);
    if (st == VGS_OK) st = vgs__ckpt_read_networks(s, f, path, ours, h, err);
    if (st == VGS_OK) st = vgs__ckpt_read_policy(s, f, path, h, err);
    if (st == VGS_OK) st = vgs__ckpt_read_kernel(s, f, path, ours, h, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.iteration", &h->iteration, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.energy_since", &h->energy_since, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.adam_step", &h->adam_step, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.sigma_step", &h->sigma_step, err);
    if (st == VGS_OK && vgs_safetensors_meta(f, "vgs.energy_calls"))
        st = vgs_safetensors_number(f, "vgs.energy_calls", &h->energy_calls, err);
    if (st == VGS_OK && s->c.replay) st = vgs__ckpt_read_kept(s, f, path, h, err);
    return st == VGS_OK && !vgs__config_is_plain(&s->c) ? vgs__ckpt_read_own(s, f, path, h, err) : st;
}

/* Coordinates and what goes with them. Graphs have limits of E as constants: they are made anew. */
static vgs_status vgs__ckpt_apply_own(vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    const vgs_config c = s->c;
    const vgs_sampler was = *s;                  /* its numbers, for a failure                        */
    vgs_status st;
    if (vgs__config_is_plain(&s->c)) return VGS_OK;
    vgs__frame_swap(&s->frame, h->frame);
    s->frame.e0 = h->own[VGS__OWN_e0];
    s->energy_max = (float)h->own[VGS__OWN_energy_limit];
    s->feature_max = (float)h->own[VGS__OWN_feature_limit];
    s->feature_width = h->own[VGS__OWN_feature_width];
    st = vgs__frame_changed(&s->frame, err);
    if (st == VGS_OK) st = vgs__sampler_rebuild(s, &c, err);
    if (st != VGS_OK) {
        vgs__frame_swap(&s->frame, h->frame);
        s->frame.e0 = was.frame.e0;
        s->energy_max = was.energy_max;
        s->feature_max = was.feature_max;
        s->feature_width = was.feature_width;
        vgs__frame_changed(&s->frame, NULL);
        return st;
    }
    vgs__state_free(&s->best);
    vgs__state_free(&s->training);
#define VGS__KEY(type, key, member) s->member = (type)h->own[VGS__OWN_##key];
    VGS__OWN(VGS__KEY)
#undef VGS__KEY
    return st;
}

/* The state of training, where there is one; then what draws go by is the best. */
static vgs_status vgs__ckpt_apply_training(vgs_sampler *s, vgs__snapshot *h, vgs_error *err)
{
    double gap = s->best.gap;
    vgs_status st;
    if (!h->training.w) return VGS_OK;
    h->training.last_by_value = s->training.last_by_value;
    s->training = h->training;
    h->training.w = NULL;
    st = vgs__state_read(s, &s->best, err);
    s->best.gap = gap;
    s->drawn_version = vgs_model_version(s->target);
    return st;
}

/* The choices that a pilot made for the file are taken over by a sampler that has had none and is not
   trained: it can be one of the same configuration, as the caller gave it. */
static vgs_status vgs__ckpt_adopt_choices(vgs_sampler *s, const vgs_safetensors *f, const char *path,
                                          vgs_error *err)
{
    const char *piloted = vgs_safetensors_meta(f, "vgs.piloted");
    vgs_config c = s->given;
    vgs_status st;
    if (s->piloted || s->iteration || vgs__config_is_plain(&s->c) || !piloted ||
        strcmp(piloted, "1")) return VGS_OK;
    st = vgs_checkpoint_config(path, &c, NULL, err);
    if (st == VGS_OK) st = vgs_config_resolve(&c, &c, err);
    if (st == VGS_OK && c.coordinates != s->c.coordinates)
        st = vgs__fail(err, VGS_E_SHAPE, "%.120s: coordinates = %d, but the sampler has %d", path,
                       (int)c.coordinates, (int)s->c.coordinates);
    return st == VGS_OK ? vgs__sampler_rebuild(s, &c, err) : st;
}

VGS__DEF vgs_status vgs_sampler_load(vgs_sampler *s, const char *path, vgs_error *err)
{
    vgs__snapshot h;
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    vgs_status st;
    if (!f) return err ? err->code : VGS_E_FORMAT;
    memset(&h, 0, sizeof h);
    st = vgs__ckpt_adopt_choices(s, f, path, err);
    if (st == VGS_OK) st = vgs__snapshot_make(s, &h, err);
    if (st == VGS_OK) st = vgs__ckpt_read_snapshot(s, f, path, &h, err);
    if (st == VGS_OK) st = vgs__ckpt_apply_own(s, &h, err);
    if (st == VGS_OK) st = vgs__snapshot_write(s, &h, err);
    if (st == VGS_OK) st = vgs__ckpt_apply_training(s, &h, err);
    if (st == VGS_OK) {
        memcpy(s->s2, h.s2, (size_t)s->c.steps * sizeof *s->s2);
        memcpy(s->a, h.a, (size_t)s->c.steps * sizeof *s->a);
        s->iteration = h.iteration;
        s->sigma_step = h.sigma_step;
        s->kept = h.kept;
        s->energy_since = h.energy_since;
        s->energy_seen = vgs__sampler_energy_version(s);
        s->energy_calls = h.energy_calls;
        s->rolled = VGS__ROLLED_NOT;
        vgs__ckpt_read_open(s, f);
    }
    vgs__snapshot_free(&h);
    vgs_safetensors_free(f);
    return st;
}
#endif /* VGS_NO_STDIO */

/* ==== >>ebm ======================================================================================== */

/* ---- fields ---- */

static const vgs__field vgs__ebm_fields[] = {
#define VGS__F(field, kind, lo, hi, standard, words, help) \
    { #field, offsetof(vgs_ebm_config, field), VGS__##kind, lo, hi, standard, words, help },
#define VGS__N(field, kind, lo, hi, standard, words, help) \
    { #field, offsetof(vgs_ebm_config, net.field), VGS__##kind, lo, hi, standard, words, help },
    VGS__F(objective, ENUM, 0, 0, 0, "auto cd gcd langevin persistent none discrepancy dxmi",
           "what E learns from")
    VGS__F(starts, ENUM, 0, 0, 0, "auto data near noise store", "where negatives start")
    VGS__F(gamma, ABOVE, 0, VGS__BIG, 0, NULL, "weight of the squared energies in the loss")
    VGS__F(divide, INT, 1, 1 << 20, 0, NULL, "the loss takes E over this")
    VGS__F(tau_e, ABOVE, 0, VGS__BIG, (double)0.1f, NULL, "autoencoder: E = g^2 |x - r|^2/tau_e")
    VGS__F(base_std, ABOVE, 0, VGS__BIG, 0, NULL, "mlp: std of the Gaussian that confines, 1e30 = none")
    VGS__F(lr, ABOVE, 0, VGS__BIG, 0, NULL, "learning rate of E")
    VGS__F(lr_end, ABOVE, 0, 1, (double)0.01f, NULL, "share of lr that is left after decay iterations")
    VGS__F(decay, INT, 0, INT_MAX, 0, NULL, "iterations in which lr falls, 0 = it stays")
    VGS__F(grad_max, ABOVE, 0, VGS__BIG, 0, NULL, "limit of the gradient norm, 1e30 = none")
    VGS__F(ema, FROM, 0, (double)0.99999994f, (double)0.99f, NULL, "share of the averaged weights kept")
    VGS__F(limit, ABOVE, 0, VGS__BIG, 10000, NULL, "training ends where |e| is above it")
    VGS__F(rounds, INT, 1, 1000, 1, NULL, "VGS: rollouts and fits of it for each step of E")
    VGS__F(start_code, FROM, 0, VGS__BIG, 0, NULL, "near: noise on an autoencoder's code over its length")
    VGS__F(start_degrees, FROM, 0, 90, 0, NULL, "near, on the sphere: degrees from the data")
    VGS__F(start_steps, INT, 0, 65535, 0, NULL, "near: moves of the noising chain")
    VGS__F(store, INT, 1, 65536, 0, NULL, "batches that are kept to start from")
    VGS__F(reinit, FROM, 0, 1, 0, NULL, "persistent: share of the kept that noise replaces")
    VGS__F(langevin_steps, INT, 1, 1000000, 20, NULL, "steps of a Langevin chain")
    VGS__F(langevin_step, ABOVE, 0, VGS__BIG, 0, NULL, "step h of a Langevin chain")
    VGS__F(ed_variance, ABOVE, 0, VGS__BIG, 0, NULL, "discrepancy: variance of each noise")
    VGS__F(ed_weight, ABOVE, 0, VGS__BIG, 1, NULL, "discrepancy: w")
    VGS__F(ed_samples, INT, 1, 65536, 16, NULL, "discrepancy: M")
    VGS__F(policy_tau, ABOVE, 0, VGS__BIG, (double)0.1f, NULL,
           "dxmi: tau of entropy and velocity, a dimension")
    VGS__F(shared, BOOL, 0, 0, 0, NULL, "dxmi: E is the value at t = T, one network for both")
    VGS__F(fit, INT, 0, INT_MAX, 0, NULL, "iterations of pretraining (autoencoder; dxmi: the policy)")
    VGS__F(fit_lr, ABOVE, 0, VGS__BIG, (double)1e-3f, NULL, "learning rate of pretraining at first")
    VGS__N(kind, ENUM, 0, 0, 0, VGS__NET_WORDS, "network of E")
    VGS__N(hidden, INT, 1, 65536, 0, NULL, "width of E's network")
    VGS__N(layers, INT, 1, 1000, 0, NULL, "hidden layers (mlp, half an autoencoder), blocks (resnet)")
    VGS__N(height, INT, 0, 4096, 0, NULL, "resnet: pixels from top to bottom")
    VGS__N(width, INT, 0, 4096, 0, NULL, "resnet: pixels from left to right")
    VGS__N(levels, INT, 0, VGS__LEVELS, 0, NULL, "resnet: sizes, each half of the one before")
    VGS__N(code, INT, 0, 1000000, 0, NULL, "width of an autoencoder's code")
    VGS__N(unit, BOOL, 0, 0, 0, NULL, "autoencoder: code and output have length 1")
    VGS__N(relu, BOOL, 0, 0, 0, NULL, "ReLU in place of SiLU")
    VGS__N(x_scale, ABOVE, 0, VGS__BIG, 1, NULL, "an mlp sees x over this")
#undef VGS__F
#undef VGS__N
};
enum { VGS__EBM_FIELD_COUNT = (int)(sizeof vgs__ebm_fields / sizeof *vgs__ebm_fields) };

static const vgs__field *vgs__ebm_field_at(int i)
{
    return i >= 0 && i < VGS__EBM_FIELD_COUNT ? &vgs__ebm_fields[i] : NULL;
}

VGS__DEF const char *vgs_ebm_field_name(int i)
{
    return vgs__ebm_field_at(i) ? vgs__ebm_field_at(i)->name : NULL;
}
VGS__DEF const char *vgs_ebm_field_help(int i)
{
    return vgs__ebm_field_at(i) ? vgs__ebm_field_at(i)->help : NULL;
}

VGS__DEF int vgs_ebm_field_find(const char *name)
{
    int i;
    for (i = 0; i < VGS__EBM_FIELD_COUNT; ++i)
        if (!strcmp(name, vgs__ebm_fields[i].name)) return i;
    return -1;
}

VGS__DEF void vgs_ebm_field_allowed(int i, char text[64])
{
    const vgs__field *f = vgs__ebm_field_at(i);
    vgs__field_allowed(f, text);
    if (f && !strcmp(f->name, "kind")) snprintf(text, 64, "mlp resnet autoencoder");
}

VGS__DEF vgs_status vgs_ebm_field_set(vgs_ebm_config *cfg, const char *name, const char *value,
                                      vgs_error *err)
{
    const vgs__field *f = vgs__ebm_field_at(vgs_ebm_field_find(name));
    if (!f) return vgs__fail(err, VGS_E_ARG, "%.60s: there is no such field of an energy", name);
    return vgs__field_set(f, cfg, name, value, err);
}

VGS__DEF void vgs_ebm_field_get(const vgs_ebm_config *cfg, int i, char text[32])
{
    vgs__field_get(vgs__ebm_field_at(i), cfg, text);
}

/* ---- the configuration ---- */

static bool vgs__ebm_has_sampler(const vgs_ebm_config *c)
{
    return c->objective == VGS_CD || c->objective == VGS_GCD || c->objective == VGS_DXMI;
}

static bool vgs__ebm_has_policy(const vgs_ebm_config *c) { return c->objective == VGS_DXMI; }

static bool vgs__ebm_has_chain(const vgs_ebm_config *c)
{
    return c->objective == VGS_LANGEVIN || c->objective == VGS_PERSISTENT;
}

static bool vgs__ebm_encodes(const vgs_ebm_config *c)
{
    return !c->record && c->net.kind == VGS_NET_AUTOENCODER;
}

/* Returns whether starts are made of data rows. */
static bool vgs__ebm_from_data(const vgs_ebm_config *c)
{
    return c->starts == VGS_STARTS_DATA || c->starts == VGS_STARTS_NEAR ||
           (c->starts == VGS_STARTS_STORE && c->objective == VGS_CD);
}

static void vgs__ebm_fill_objective(vgs_ebm_config *c)
{
    const bool sphere = c->sampler.on_sphere;
    if (c->objective == VGS_OBJECTIVE_AUTO) c->objective = sphere ? VGS_CD : VGS_GCD;
    if (c->starts != VGS_STARTS_AUTO) return;
    switch (c->objective) {
    case VGS_GCD:
    case VGS_DXMI:       c->starts = VGS_STARTS_NOISE; break;
    case VGS_LANGEVIN:   c->starts = sphere ? VGS_STARTS_DATA : VGS_STARTS_NOISE; break;
    case VGS_PERSISTENT: c->starts = VGS_STARTS_STORE; break;
    case VGS_DISCREPANCY: break;                 /* it has none                                       */
    default:             c->starts = VGS_STARTS_DATA;
    }
}

/* Defaults that make the sampler one of dxmi. */
static void vgs__ebm_fill_policy(vgs_ebm_config *c)
{
    vgs_config *s = &c->sampler;
    float d = (float)fmax(vgs__config_effective_dim(s), 1.0), tau = c->policy_tau / d;
    s->kernel = VGS_KERNEL_POLICY;
    if (s->entropy_tau == 0.0f) s->entropy_tau = tau;
    if (s->velocity_tau == 0.0f) s->velocity_tau = tau;
    if (s->tau == 0.0f) s->tau = tau > 1e-20f ? tau : 0.1f / d;
}

/* Before the sampler's fields are resolved. Data rows and negatives are in x: its coordinates are plain. */
static void vgs__ebm_fill(vgs_ebm_config *c)
{
    bool cd;
    int i;
    vgs__ebm_fill_objective(c);
    cd = c->objective == VGS_CD;
    for (i = 0; i < VGS__EBM_FIELD_COUNT; ++i) {
        const vgs__field *f = &vgs__ebm_fields[i];
        if (f->standard != 0.0 && vgs__field_number(f, c) == 0.0) vgs__field_put(f, c, f->standard);
    }
    if (c->sampler.coordinates == VGS_COORDINATES_AUTO) c->sampler.coordinates = VGS_PLAIN;
    if (vgs__ebm_has_policy(c)) vgs__ebm_fill_policy(c);
    if (c->net.kind == VGS_NET_AUTOENCODER) {
        c->net.energy = true;
        c->net.out = 1;
        c->net.unit = c->net.unit || c->sampler.on_sphere;
    }
    vgs__net_fill(&c->net);
    if (c->gamma == 0.0f) c->gamma = cd || c->objective == VGS_NO_SAMPLER ? 1.0f : 0.01f;
    if (!c->divide) c->divide = cd || c->sampler.on_sphere ? c->net.dim : 1;
    if (c->lr == 0.0f) c->lr = cd ? 1e-4f : 1e-3f;
    if (c->grad_max == 0.0f) c->grad_max = cd ? 1e30f : 1.0f;
    if (!c->store) c->store = c->objective == VGS_PERSISTENT ? 8 : 2;
    if (c->reinit == 0.0f) c->reinit = 0.05f;
}

/* E is the value's network, with a step more: T. What cfg says of the network of E must be that. */
static vgs_status vgs__ebm_fill_shared(vgs_ebm_config *c, const vgs_ebm_config *cfg, vgs_error *err)
{
    const size_t first = offsetof(vgs_ebm_config, net), end = first + sizeof c->net;
    char given[32], now[32];
    int i;
    if (!vgs__ebm_has_policy(c) || c->record)
        return vgs__fail(err, VGS_E_ARG, "ebm.shared = 1: must be 0 %s", c->record
                         ? "with an energy that you record" : "unless the objective is dxmi");
    c->net = c->sampler.net;
    c->net.steps = c->sampler.steps + 1;
    for (i = 0; i < VGS__EBM_FIELD_COUNT; ++i) {
        const vgs__field *f = &vgs__ebm_fields[i];
        if (f->at < first || f->at >= end || vgs__field_number(f, cfg) == 0.0 ||
            vgs__field_number(f, cfg) == vgs__field_number(f, c)) continue;
        vgs__field_get(f, cfg, given);
        vgs__field_get(f, c, now);
        return vgs__fail(err, VGS_E_ARG, "ebm.%s = %s: shared, and the value's network has %s", f->name,
                         given, now);
    }
    return VGS_OK;
}

/* Defaults that follow from the sampler's fields. x_0 has the variance of data of this length_scale at the
   end of the noising chain, unless init_sigma is given (VP: 1, for data of variance 1). */
static void vgs__ebm_fill_scales(vgs_ebm_config *c, bool fill_sigma)
{
    vgs_config *s = &c->sampler;
    double l = (double)s->length_scale, s0 = (double)s->init_sigma;
    float detail2 = s->on_sphere ? s->s2_end : s->detail_scale * s->detail_scale;
    if (fill_sigma && !s->on_sphere && s->alpha == VGS_VE) s->init_sigma = (float)sqrt(l * l + s0 * s0 - 1.0);
    if (c->base_std == 0.0f) c->base_std = 1.5f * s->length_scale;
    if (c->langevin_step == 0.0f) c->langevin_step = s->on_sphere ? detail2 : 0.25f * detail2;
    if (c->ed_variance == 0.0f) c->ed_variance = detail2;
    if (c->starts != VGS_STARTS_NEAR || c->start_code > 0.0f) return;
    if (vgs__ebm_encodes(c) && !c->start_steps && c->start_degrees == 0.0f) c->start_code = 0.3f;
    else if (!c->start_steps) c->start_steps = s->steps < 5 ? 1 : s->steps / 5;
}

static vgs_status vgs__ebm_check_starts(const vgs_ebm_config *c, vgs_error *err)
{
    static const unsigned good[] = {             /* a bit for each of vgs_starts, by objective        */
        0, 1u << VGS_STARTS_DATA | 1u << VGS_STARTS_NEAR | 1u << VGS_STARTS_STORE, 1u << VGS_STARTS_NOISE,
        1u << VGS_STARTS_DATA | 1u << VGS_STARTS_NEAR | 1u << VGS_STARTS_NOISE, 1u << VGS_STARTS_STORE,
        1u << VGS_STARTS_DATA | 1u << VGS_STARTS_NEAR, 1u << VGS_STARTS_AUTO, 1u << VGS_STARTS_NOISE };
    const vgs__field *o = &vgs__ebm_fields[0], *s = &vgs__ebm_fields[1];
    const char *a = "", *b = "";
    int n = vgs__field_word(o->words, (int)c->objective, &a),
        m = vgs__field_word(s->words, (int)c->starts, &b);
    if (good[c->objective] >> c->starts & 1) return VGS_OK;
    return vgs__fail(err, VGS_E_ARG, "ebm.starts = %.*s: makes no sense with the objective %.*s", m, b, n, a);
}

static vgs_status vgs__ebm_check(const vgs_ebm_config *c, vgs_error *err)
{
    bool near = c->starts == VGS_STARTS_NEAR;
    if ((c->net.steps && !c->shared) || c->net.out != 1)
        return vgs__fail(err, VGS_E_ARG, "ebm: net.%s = %d: an energy has no time and one output",
                         c->net.steps ? "steps" : "out", c->net.steps ? c->net.steps : c->net.out);
    if (!c->record != !c->model)
        return vgs__fail(err, VGS_E_ARG, "ebm: record and model belong together, and one is missing");
    if (c->model && !c->sampler.backend)
        return vgs__fail(err, VGS_E_ARG, "ebm: sampler.backend = NULL: must be that of your model");
    if (c->start_code > 0.0f && !(near && vgs__ebm_encodes(c)))
        return vgs__fail(err, VGS_E_ARG, "ebm.start_code = %g: needs starts near and an autoencoder",
                         (double)c->start_code);
    if (c->start_degrees > 0.0f && !(near && c->sampler.on_sphere))
        return vgs__fail(err, VGS_E_ARG, "ebm.start_degrees = %g: needs starts near, on the sphere",
                         (double)c->start_degrees);
    if (c->start_steps > c->sampler.steps)
        return vgs__fail(err, VGS_E_ARG, "ebm.start_steps = %d: the chain has %d moves", c->start_steps,
                         c->sampler.steps);
    if (c->fit && vgs__ebm_has_policy(c) && c->sampler.on_sphere)
        return vgs__fail(err, VGS_E_ARG, "ebm.fit = %d: must be 0 on the sphere, which has no denoising "
                         "diffusion model", c->fit);
    if (c->fit && !vgs__ebm_has_policy(c) && !vgs__ebm_encodes(c))
        return vgs__fail(err, VGS_E_ARG, "ebm.fit = %d: only an autoencoder, or the policy of dxmi, is "
                         "pretrained", c->fit);
    return vgs__ebm_check_starts(c, err);
}

/* "ebm.height", since "net.height" is the value's. */
static vgs_status vgs__ebm_check_net(const vgs_net_config *c, vgs_error *err)
{
    vgs_error why;
    vgs_status st = vgs__net_check(c, &why);
    return st == VGS_OK ? st : vgs__fail(err, st, "ebm.%s", why.msg + (strncmp(why.msg, "net.", 4) ? 0 : 4));
}

static vgs_var vgs__ebm_energy_record(void *view, vgs_graph *g, vgs_var x);

VGS__DEF vgs_status vgs_ebm_config_resolve(const vgs_ebm_config *cfg, vgs_ebm_config *c, vgs_error *err)
{
    vgs_status st = VGS_OK;
    char list[128];
    vgs_energy e;
    int i;
    *c = *cfg;
    memset(&e, 0, sizeof e);
    e.record = vgs__ebm_energy_record;
    e.dim = c->net.dim;
    c->sampler.energy = e;
    for (i = 0; i < 2 && st == VGS_OK; ++i)      /* what the defaults follow from                     */
        st = vgs__field_check(&vgs__ebm_fields[i], c, "ebm", err);
    if (st != VGS_OK) return st;
    if (!c->shared && !vgs__net_is(c->net.kind, VGS__NET_ENERGY))
        return vgs__fail(err, VGS_E_ARG, "ebm.kind = %d: an energy must be %s", (int)c->net.kind,
                         vgs__net_words_of(VGS__NET_ENERGY, list));
    vgs__ebm_fill(c);
    st = vgs__ebm_check_net(&c->net, err);
    if (st == VGS_OK) st = vgs_config_resolve(&c->sampler, &c->sampler, err);
    if (st == VGS_OK && c->shared) st = vgs__ebm_fill_shared(c, cfg, err);
    if (st != VGS_OK) return st;
    vgs__ebm_fill_scales(c, cfg->sampler.init_sigma == 0.0f);
    for (i = 0; i < VGS__EBM_FIELD_COUNT && st == VGS_OK; ++i)
        st = vgs__field_check(&vgs__ebm_fields[i], c, "ebm", err);
    return st == VGS_OK ? vgs__ebm_check(c, err) : st;
}

/* ---- the model ---- */

enum { VGS__FOR_EBM_START = 48, VGS__FOR_EBM_CHAIN, VGS__FOR_EBM_DISCREPANCY, VGS__FOR_EBM_SHUFFLE,
       VGS__FOR_EBM_DRAW, VGS__FOR_EBM_FIT };

/* E with these weights, as `user` of a vgs_energy. */
typedef struct vgs__ebm_view { const vgs_ebm_config *c; vgs_model *model; } vgs__ebm_view;

typedef struct vgs__ebm_stage {                  /* each has some of these                            */
    vgs_graph *g;
    vgs_var x, to;                               /* what it reads and writes [B,D]                    */
    vgs_noise noise, other;
    vgs_scalar scale, sigma, lr, first;
    vgs_var out;
} vgs__ebm_stage;

struct vgs_ebm {
    vgs_ebm_config c;
    vgs_backend *own, *b;                        /* own: to be freed                                  */
    vgs_sampler *sampler;                        /* NULL: not VGS                                     */
    vgs_model *learned, *average;
    vgs__ebm_view view[2];                       /* of learned, average                               */
    vgs_energy energy[2];
    vgs__evaluator rows[2];
    float *s2, *a;                               /* [T] of the noising chain                          */
    vgs_buffer *data, *source, *start, *draws, *kept;    /* [B,D] but kept [store B,D]                */
    vgs__ebm_stage place, chain, keep, update, fit;
    float *x;                                    /* [B,D] on the host, and which rows they are        */
    int64_t *which;
    int64_t iteration, fitted;
    size_t bytes;
};

static size_t vgs__ebm_batch(const vgs_ebm *m) { return (size_t)m->c.sampler.batch; }
static size_t vgs__ebm_size(const vgs_ebm *m) { return vgs__ebm_batch(m) * (size_t)m->c.net.dim; }

/* The value's network at t = T, which sees x as vgs__value_net has it for x_T of length_scale. */
static vgs_var vgs__ebm_record_shared(const vgs_ebm_config *c, vgs_graph *g, vgs_model *model, vgs_var x)
{
    const vgs_config *s = &c->sampler;
    float far = 1.0f / (16.0f * s->length_scale * s->length_scale);
    vgs_var u = x, t;
    int rows = 0, cols;
    if (!s->published && s->net.kind == VGS_NET_MLP && s->net.wrapper == VGS_WRAPPER_NONE)
        u = vgs__value_bounded(g, x, vgs_square(g, x), far);
    vgs_shape(g, x, &rows, &cols);
    t = vgs_fill_int(g, rows, vgs_scalar_create(g, s->steps));
    return vgs_model_apply(g, model, u, t);
}

static vgs_var vgs__ebm_record(const vgs_ebm_config *c, vgs_graph *g, vgs_model *model, vgs_var x)
{
    const vgs_var none = { 0 };
    double base = (double)c->base_std;
    vgs_var e;
    if (c->record) return c->record(c->user, g, model, x);
    e = c->shared ? vgs__ebm_record_shared(c, g, model, x) : vgs_model_apply(g, model, x, none);
    if (c->net.kind == VGS_NET_AUTOENCODER) return vgs_affine(g, e, 1.0f / c->tau_e, 0.0f);
    if (vgs__ebm_has_policy(c))
        e = vgs_affine(g, e,
                       vgs__value_spread((double)c->sampler.tau, vgs__config_effective_dim(&c->sampler)),
                       0.0f);
    if (c->sampler.on_sphere || !(base < 1e30)) return e;
    x = vgs_sum_cols(g, vgs_square(g, x));
    return vgs_add(g, e, vgs_affine(g, x, (float)((double)c->sampler.tau / (2.0 * base * base)), 0.0f));
}

static vgs_var vgs__ebm_energy_record(void *view, vgs_graph *g, vgs_var x)
{
    const vgs__ebm_view *v = (const vgs__ebm_view *)view;
    return vgs__ebm_record(v->c, g, v->model, x);
}

/* The code of x, or with `decode` x of a code. */
static vgs_var vgs__ebm_half(vgs_ebm *m, vgs_graph *g, vgs_var x, bool decode)
{
    vgs_var w = vgs_model_weights(g, m->learned);
    vgs__pass p;
    if (!vgs__exists(w) || !vgs__exists(x)) return vgs__no_var();
    p = vgs__model_pass(g, m->learned, w);
    p.at = 1 + (decode ? 2 * (m->c.net.layers + 1) : 0);             /* behind out_scale               */
    return decode ? vgs__net_decode(&p, x) : vgs__net_encode(&p, x);
}

/* Returns whether negatives are other rows than their starts. */
static bool vgs__ebm_moves(const vgs_ebm_config *c) { return c->objective != VGS_NO_SAMPLER; }

/* `leaf` is where negatives start (end false) or where VGS or a chain leads them. */
static void vgs__ebm_bind(vgs_ebm *m, vgs_graph *g, vgs_var leaf, bool end)
{
    if (m->sampler) vgs_sampler_bind(m->sampler, g, leaf, end ? m->c.sampler.steps : 0, NULL);
    else vgs_bind(g, leaf, end ? m->draws : m->start, 0, NULL);
}

/* ---- place: starts ---- */

/* The noising chain in R^D is one Gaussian, however many moves it has; on the sphere each is a move along a
   great circle, and the graph is run once for each. */
static vgs_var vgs__ebm_record_moves(const vgs_ebm *m, vgs__ebm_stage *st)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = st->g;
    vgs_var eps = vgs_normal(g, m->c.net.dim, &st->noise);
    if (!m->c.sampler.on_sphere) return vgs_combine_by(g, st->x, st->scale, eps, st->sigma);
    eps = vgs_affine_by(g, vgs_sphere_tangent(g, eps, st->x), st->sigma, none);
    return vgs_sphere_move(g, st->x, eps);
}

/* Noise on the code, in the mean of length start_code times the code's. */
static vgs_var vgs__ebm_record_code(vgs_ebm *m, vgs__ebm_stage *st)
{
    vgs_graph *g = st->g;
    const vgs_net_config *c = &m->c.net;
    vgs_var code = vgs__ebm_half(m, g, st->x, false), eps = vgs_normal(g, c->code, &st->noise), size;
    size = vgs_sqrt(g, vgs_sum_cols(g, vgs_square(g, code)));
    size = vgs_affine(g, size, m->c.start_code / sqrtf((float)c->code), 0.0f);
    code = vgs_add(g, code, vgs_mul(g, eps, size));
    if (c->unit) code = vgs_div(g, code, vgs_sqrt(g, vgs_sum_cols(g, vgs_square(g, code))));
    return vgs__ebm_half(m, g, code, true);
}

static vgs_var vgs__ebm_record_noise(const vgs_ebm *m, vgs_graph *g, const vgs_noise *n)
{
    vgs_var x = vgs_normal(g, m->c.net.dim, n);
    if (m->c.sampler.on_sphere) return vgs_sphere_move(g, x, vgs__no_var());
    return vgs_affine(g, x, m->c.sampler.length_scale, 0.0f);
}

/* Persistent: the kept x, but noise in a share `reinit` of the rows. sigma = 0: x, 1: noise for all. */
static vgs_var vgs__ebm_record_reinit(const vgs_ebm *m, vgs__ebm_stage *st)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = st->g;
    vgs_var noise, u;
    st->other = vgs_noise_create(g);
    noise = vgs__ebm_record_noise(m, g, &st->noise);
    u = vgs_affine_by(g, vgs_normal(g, 1, &st->other), none, st->sigma);
    u = vgs_clamp(g, vgs_affine(g, u, 1e6f, 0.0f), 0.0f, 1.0f);      /* 1 where normal + sigma > 0     */
    return vgs_add(g, st->x, vgs_mul(g, u, vgs_sub(g, noise, st->x)));
}

static void vgs__ebm_place_record(vgs_ebm *m, vgs__ebm_stage *st)
{
    vgs_graph *g = st->g;
    vgs_var y;
    st->x = vgs_input(g, m->c.net.dim);
    st->to = vgs_state(g, -1, m->c.net.dim, VGS_F32);
    st->noise = vgs_noise_create(g);
    st->scale = vgs_scalar_create(g, 1);
    st->sigma = vgs_scalar_create(g, 0);
    if (m->c.objective == VGS_PERSISTENT) y = vgs__ebm_record_reinit(m, st);
    else if (m->c.start_code > 0.0f) y = vgs__ebm_record_code(m, st);
    else if (m->c.starts == VGS_STARTS_NOISE) y = vgs__ebm_record_noise(m, g, &st->noise);
    else y = vgs__ebm_record_moves(m, st);
    vgs_bind(g, st->x, m->source, 0, NULL);
    vgs_assign(g, st->to, y);
    vgs__ebm_bind(m, g, st->to, false);
}

/* The normal number that a share p of all lies above; p > 0. */
static double vgs__ebm_quantile(double p)
{
    double lo = -40.0, hi = 40.0;
    int k;
    for (k = 0; k < 60; ++k) {
        double u = 0.5 * (lo + hi);
        if (0.5 * erfc(u * 0.7071067811865476) > p) lo = u;
        else hi = u;
    }
    return lo;
}

/* sigma of each of n moves on the sphere so that they lead about this far. */
static double vgs__ebm_move_sigma(const vgs_ebm *m, int n)
{
    double angle = (double)m->c.start_degrees * 0.017453292519943295;
    return acos(pow(cos(angle), 1.0 / n)) / sqrt((double)(m->c.net.dim - 1));
}

/* The last n moves of the noising chain, at this round. */
static vgs_status vgs__ebm_moves_run(vgs_ebm *m, int n, int64_t round, vgs_error *err)
{
    vgs__ebm_stage *st = &m->place;
    double scale = 1.0, var = 0.0;
    int k, T = m->c.sampler.steps;
    vgs_status code = VGS_OK;
    if (!m->c.sampler.on_sphere) {
        for (k = T - 1; k >= T - n; --k) {
            double a = (double)m->a[k];
            scale /= a;
            var = var / (a * a) + (double)m->s2[k];
        }
        vgs_scalar_set(st->g, st->scale, scale);
        vgs_scalar_set(st->g, st->sigma, sqrt(var));
        vgs_noise_set(st->g, &st->noise, m->c.sampler.seed, VGS__FOR_EBM_START, round, 0, 0);
        return vgs_graph_run(st->g, m->c.sampler.batch, err);
    }
    for (k = 0; k < n && code == VGS_OK; ++k) {
        vgs_scalar_set(st->g, st->sigma, m->c.start_degrees > 0.0f ? vgs__ebm_move_sigma(m, n)
                                                                   : sqrt((double)m->s2[T - 1 - k]));
        vgs_noise_set(st->g, &st->noise, m->c.sampler.seed, VGS__FOR_EBM_START, round, k, 0);
        code = vgs_graph_run(st->g, m->c.sampler.batch, err);
        if (k == 0) vgs__ebm_bind(m, st->g, st->x, false);           /* on from there                 */
    }
    vgs_bind(st->g, st->x, m->source, 0, NULL);
    return code;
}

/* ---- chain: Langevin steps, from where negatives start to where they are ---- */

static void vgs__ebm_chain_record(vgs_ebm *m, vgs__ebm_stage *st)
{
    const vgs_scalar none = { 0 };
    vgs_graph *g = st->g;
    double h = (double)m->c.langevin_step, most = (double)m->c.sampler.drift_max;
    vgs_var e, grad = vgs__no_var(), eps, v;
    st->x = vgs_input(g, m->c.net.dim);
    st->to = vgs_state(g, -1, m->c.net.dim, VGS_F32);
    st->noise = vgs_noise_create(g);
    e = vgs_energy_of(g, &m->energy[0], st->x);
    vgs_gradient(g, e, &st->x, 1, &grad);
    vgs_check(g, grad, m->learned);
    v = vgs_affine(g, grad, (float)(-0.5 * h / (double)m->c.sampler.tau), 0.0f);
    if (m->c.sampler.on_sphere) v = vgs_sphere_tangent(g, v, st->x);
    v = vgs_limit_rows(g, v, vgs_scalar_create(g, most * sqrt(h * m->c.net.dim)));
    eps = vgs_normal(g, m->c.net.dim, &st->noise);
    if (m->c.sampler.on_sphere) eps = vgs_sphere_tangent(g, eps, st->x);
    v = vgs_combine_by(g, v, none, eps, vgs_scalar_create(g, sqrt(h)));
    v = m->c.sampler.on_sphere ? vgs_sphere_move(g, st->x, v) : vgs_add(g, st->x, v);
    vgs_assign(g, st->to, v);
    vgs__ebm_bind(m, g, st->to, true);
}

static vgs_status vgs__ebm_chain_run(vgs_ebm *m, int rows, int steps, uint64_t seed, int stream,
                                     int64_t round, uint32_t first_row, vgs_error *err)
{
    vgs__ebm_stage *st = &m->chain;
    vgs_status code = VGS_OK;
    int k;
    for (k = 0; k < steps && code == VGS_OK; ++k) {
        vgs__ebm_bind(m, st->g, st->x, k > 0);
        vgs_noise_set(st->g, &st->noise, seed, stream, round, k, first_row);
        code = vgs_graph_run(st->g, rows, err);
    }
    return code;
}

/* ---- keep: a batch of starts, or of negatives, into the store ---- */

static void vgs__ebm_keep_record(vgs_ebm *m, vgs__ebm_stage *st)
{
    st->x = vgs_input(st->g, m->c.net.dim);
    st->to = vgs_state(st->g, -1, m->c.net.dim, VGS_F32);
    vgs__ebm_bind(m, st->g, st->x, m->c.starts == VGS_STARTS_STORE);
    vgs_bind(st->g, st->to, m->kept, 0, NULL);
    vgs_assign(st->g, st->to, st->x);
}

/* Rounds of negatives until now: VGS is rolled out `rounds` times for each step of E. */
static int64_t vgs__ebm_round(const vgs_ebm *m) { return m->iteration * (m->sampler ? m->c.rounds : 1); }

/* The place of this round's batch in the store. */
static size_t vgs__ebm_slot(const vgs_ebm *m, int64_t round)
{
    return (size_t)(round % m->c.store) * vgs__ebm_size(m);
}

static vgs_status vgs__ebm_keep_run(vgs_ebm *m, int64_t round, vgs_error *err)
{
    if (!m->kept) return VGS_OK;
    vgs_bind(m->keep.g, m->keep.to, m->kept, vgs__ebm_slot(m, round), NULL);
    return vgs_graph_run(m->keep.g, m->c.sampler.batch, err);
}

/* ---- update: a step of E ---- */

/* mean e+ - mean e- + gamma (mean e+^2 + mean e-^2), row by row */
static vgs_var vgs__ebm_record_contrast(vgs_ebm *m, vgs_graph *g, vgs_var x)
{
    vgs_var neg = vgs_input(g, m->c.net.dim), plus, minus, squares;
    float unit = 1.0f / (float)m->c.divide;
    vgs__ebm_bind(m, g, neg, vgs__ebm_moves(&m->c));
    plus = vgs_affine(g, vgs__ebm_record(&m->c, g, m->learned, x), unit, 0.0f);
    minus = vgs_affine(g, vgs__ebm_record(&m->c, g, m->learned, neg), unit, 0.0f);
    squares = vgs_square(g, plus);
    squares = vgs_add(g, squares, vgs_square(g, minus));
    x = vgs_add(g, vgs_abs(g, plus), vgs_abs(g, minus));             /* NaN above the limit           */
    vgs_check(g, vgs_log(g, vgs_affine(g, x, -1.0f, m->c.limit)), m->learned);
    return vgs_add(g, vgs_sub(g, plus, minus), vgs_affine(g, squares, m->c.gamma, 0.0f));
}

/* x [r,D] with noise [r,D] of variance ed_variance */
static vgs_var vgs__ebm_record_noised(const vgs_ebm *m, vgs_graph *g, vgs_var x, vgs_var eps)
{
    float sigma = sqrtf(m->c.ed_variance);
    if (!m->c.sampler.on_sphere) return vgs_combine(g, x, 1.0f, eps, sigma);
    return vgs_sphere_move(g, x, vgs_affine(g, vgs_sphere_tangent(g, eps, x), sigma, 0.0f));
}

/* log(w/M + 1/M sum_j exp((E(x) - E(x_j))/tau)), row by row */
static vgs_var vgs__ebm_record_discrepancy(vgs_ebm *m, vgs__ebm_stage *st, vgs_var x)
{
    vgs_graph *g = st->g;
    int d = m->c.net.dim, M = m->c.ed_samples;
    float beta = 1.0f / m->c.sampler.tau;
    int32_t *same = (int32_t *)vgs__alloc((size_t)M, sizeof *same);  /* zeros                         */
    vgs_var y, e, rest;
    if (!same) return vgs__graph_fail(g, VGS_E_NOMEM, "out of memory: ed_samples = %d", M);
    st->noise = vgs_noise_create(g);
    st->other = vgs_noise_create(g);
    y = vgs__ebm_record_noised(m, g, x, vgs_normal(g, d, &st->noise));
    y = vgs_segment_gather(g, y, 1, same, M);                        /* [B M,D]                       */
    vgs__free(same);
    y = vgs__ebm_record_noised(m, g, y, vgs_reshape(g, vgs_normal(g, M * d, &st->other), d));
    e = vgs__ebm_record(&m->c, g, m->learned, x);
    y = vgs_reshape(g, vgs__ebm_record(&m->c, g, m->learned, y), M);
    y = vgs_affine(g, vgs_sub(g, e, y), beta, 0.0f);
    rest = vgs_fill(g, -1, 1, (float)log((double)m->c.ed_weight));
    return vgs_affine(g, vgs_logsumexp(g, vgs_concat(g, y, rest)), 1.0f, -(float)log((double)M));
}

static void vgs__ebm_update_record(vgs_ebm *m, vgs__ebm_stage *st)
{
    vgs_graph *g = st->g;
    vgs_var loss;
    st->x = vgs_input(g, m->c.net.dim);
    st->lr = vgs_scalar_create(g, 0);
    vgs_bind(g, st->x, m->data, 0, NULL);
    loss = m->c.objective == VGS_DISCREPANCY ? vgs__ebm_record_discrepancy(m, st, st->x)
                                             : vgs__ebm_record_contrast(m, g, st->x);
    vgs_descend(g, vgs_mean_rows(g, loss), m->learned, st->lr, m->c.grad_max);
    vgs_ema(g, m->average, m->learned, m->c.ema);
}

static double vgs__ebm_rate(const vgs_ebm *m)
{
    double at = m->c.decay ? (double)m->iteration / m->c.decay : 0.0;
    return (double)m->c.lr * (1.0 - (1.0 - (double)m->c.lr_end) * (at < 1.0 ? at : 1.0));
}

static vgs_status vgs__ebm_update_run(vgs_ebm *m, vgs_error *err)
{
    vgs__ebm_stage *st = &m->update;
    vgs_scalar_set(st->g, st->lr, vgs__ebm_rate(m));
    if (m->c.objective == VGS_DISCREPANCY) {
        vgs_noise_set(st->g, &st->noise, m->c.sampler.seed, VGS__FOR_EBM_DISCREPANCY, m->iteration, 0, 0);
        vgs_noise_set(st->g, &st->other, m->c.sampler.seed, VGS__FOR_EBM_DISCREPANCY, m->iteration, 1, 0);
    }
    return vgs_graph_run(st->g, m->c.sampler.batch, err);
}

/* ---- fit: a step of pretraining ---- */

/* x - r */
static vgs_var vgs__ebm_record_residual(vgs_ebm *m, vgs__ebm_stage *st)
{
    vgs_var r = vgs__ebm_half(m, st->g, st->x, false);
    return vgs_sub(st->g, st->x, vgs__ebm_half(m, st->g, r, true));
}

/* x_T to x_t under the noising chain: what is left of x_T, and the deviation of the noise. */
static void vgs__ebm_fill_left(const vgs_sampler *s, float *out)
{
    double left = 1.0;
    int t;
    for (t = s->c.steps - 1; t >= 0; --t) out[t] = (float)(left /= (double)s->a[t]);
}
static void vgs__ebm_fill_deviation(const vgs_sampler *s, float *out)
{
    double w = 0.0;
    int t;
    for (t = s->c.steps - 1; t >= 0; --t) out[t] = (float)sqrt(w = vgs__value_chain_variance(s, t, w));
}

/* The noise in x_t less what the policy takes it for; t by turns through permutations of batch x steps. */
static vgs_var vgs__ebm_record_noise_error(vgs_ebm *m, vgs__ebm_stage *st)
{
    vgs_graph *g = st->g;
    vgs_sampler *s = m->sampler;
    vgs_var t, eps, x, noise;
    st->noise = vgs_noise_create(g);
    st->other = vgs_noise_create(g);
    st->first = vgs_scalar_create(g, 0);
    vgs__fit_minibatch(s, g, st->first, &st->other, &t);
    eps = vgs_normal(g, m->c.net.dim, &st->noise);
    x = vgs_mul(g, st->x, vgs__policy_by_step(s, g, t, vgs__ebm_fill_left));
    noise = vgs_mul(g, eps, vgs__policy_by_step(s, g, t, vgs__ebm_fill_deviation));
    x = vgs_add(g, x, noise);
    return vgs_sub(g, eps, vgs__policy_net(s, g, s->policy_on, x, t));
}

static vgs_model *vgs__ebm_fit_model(const vgs_ebm *m)
{
    return vgs__ebm_has_policy(&m->c) ? m->sampler->policy_on : m->learned;
}

static void vgs__ebm_fit_record(vgs_ebm *m, vgs__ebm_stage *st)
{
    const bool policy = vgs__ebm_has_policy(&m->c);
    vgs_graph *g = st->g;
    vgs_var r;
    st->x = vgs_input(g, m->c.net.dim);
    st->lr = vgs_scalar_create(g, 0);
    vgs_bind(g, st->x, m->data, 0, NULL);
    r = policy ? vgs__ebm_record_noise_error(m, st) : vgs__ebm_record_residual(m, st);
    r = vgs_mean_rows(g, vgs_sum_cols(g, vgs_square(g, r)));
    st->out = policy ? vgs_affine(g, r, 1.0f / (float)m->c.net.dim, 0.0f) : r;
    vgs_output(g, st->out);
    vgs_descend(g, st->out, vgs__ebm_fit_model(m), st->lr, 0.0f);
}

static vgs_status vgs__ebm_fit_run(vgs_ebm *m, vgs_error *err)
{
    vgs__ebm_stage *st = &m->fit;
    double at = (double)m->fitted / m->c.fit;
    int T = m->c.sampler.steps;
    vgs_scalar_set(st->g, st->lr, 0.5 * (double)m->c.fit_lr * (1.0 + cos(3.14159265358979 * at)));
    if (vgs__ebm_has_policy(&m->c)) {
        vgs_scalar_set(st->g, st->first, (double)(m->fitted % T) * m->c.sampler.batch);
        vgs_noise_set(st->g, &st->noise, m->c.sampler.seed, VGS__FOR_EBM_FIT, m->fitted, 0, 0);
        vgs_noise_set(st->g, &st->other, m->c.sampler.seed, VGS__FOR_EBM_FIT, m->fitted / T, 1, 0);
    }
    return vgs_graph_run(st->g, m->c.sampler.batch, err);
}

/* ---- creation ---- */

static vgs_status vgs__ebm_stage_make(vgs_ebm *m, vgs__ebm_stage *st, bool wanted, int rows,
                                      void (*record)(vgs_ebm *, vgs__ebm_stage *), vgs_error *err)
{
    vgs_status code;
    if (!wanted) return VGS_OK;
    if (!(st->g = vgs_graph_create(err))) return VGS_E_NOMEM;
    record(m, st);
    code = vgs_graph_compile(st->g, m->b, rows, err);
    m->bytes += vgs_graph_bytes(st->g);
    return code;
}

/* A model of the same kind and weights. */
static vgs_model *vgs__ebm_copy_model(const vgs_model *m, vgs_error *err)
{
    size_t n = (size_t)m->net->size;
    float *w = (float *)vgs__alloc_or(err, "energy", n, sizeof *w);
    vgs_model *copy = NULL;
    bool ok = w && vgs_model_read(m, w, err) == VGS_OK;
    if (ok) copy = m->net->has_net ? vgs_model_create(&m->net->c, m->b, 0, err)
                                   : vgs_model_create_arrays(m->net->info, m->net->n_info, w, m->b, err);
    if (copy && vgs_model_write(copy, w, err) != VGS_OK) {
        vgs_model_free(copy);
        copy = NULL;
    }
    vgs__free(w);
    return copy;
}

static vgs_status vgs__ebm_make_models(vgs_ebm *m, vgs_error *err)
{
    int k;
    m->learned = m->c.model ? m->c.model : vgs_model_create(&m->c.net, m->b, m->c.sampler.seed, err);
    m->average = m->learned ? vgs__ebm_copy_model(m->learned, err) : NULL;
    if (!m->average) return VGS_E_NOMEM;
    m->bytes += (m->c.shared ? 4 : 20) * (size_t)vgs_model_size(m->learned); /* the sampler counts V     */
    for (k = 0; k < 2; ++k) {
        m->view[k].c = &m->c;
        m->view[k].model = k ? m->average : m->learned;
        m->energy[k] = m->c.sampler.energy;
        m->energy[k].user = &m->view[k];
        m->energy[k].backend = m->b;
        if (vgs__evaluator_open(&m->rows[k], &m->energy[k], m->b, 1, 512, err) != VGS_OK) return VGS_E_NOMEM;
    }
    m->c.sampler.energy = m->energy[0];
    return VGS_OK;
}

static vgs_status vgs__ebm_make_buffers(vgs_ebm *m, vgs_error *err)
{
    const size_t n = vgs__ebm_size(m);
    const bool alone = !m->sampler && m->c.objective != VGS_DISCREPANCY, moved = vgs__ebm_from_data(&m->c);
    const struct { vgs_buffer **buf; bool wanted; size_t n; } all[5] = {
        { &m->data, true, n }, { &m->source, true, n }, { &m->start, !m->sampler, n },
        { &m->draws, !m->sampler, n },
        { &m->kept, moved || (alone && m->c.starts == VGS_STARTS_STORE), n * (size_t)m->c.store } };
    int k;
    for (k = 0; k < 5; ++k) {
        if (!all[k].wanted) continue;
        *all[k].buf = m->b->buffer_create(m->b->self, all[k].n, err);
        if (!*all[k].buf) return VGS_E_NOMEM;
        m->bytes += 4 * all[k].n;
    }
    return VGS_OK;
}

static vgs_status vgs__ebm_make_stages(vgs_ebm *m, vgs_error *err)
{
    const int B = m->c.sampler.batch;
    const bool ed = m->c.objective == VGS_DISCREPANCY, noise = m->c.starts == VGS_STARTS_NOISE;
    vgs_status st;
    st = vgs__ebm_stage_make(m, &m->place, !(m->sampler && noise) && !ed, B, vgs__ebm_place_record, err);
    if (st == VGS_OK) st = vgs__ebm_stage_make(m, &m->chain, !m->sampler, B, vgs__ebm_chain_record, err);
    if (st == VGS_OK) st = vgs__ebm_stage_make(m, &m->keep, m->kept && !ed, B, vgs__ebm_keep_record, err);
    if (st == VGS_OK) st = vgs__ebm_stage_make(m, &m->fit, m->c.fit > 0, B, vgs__ebm_fit_record, err);
    return st == VGS_OK ? vgs__ebm_stage_make(m, &m->update, true, B, vgs__ebm_update_record, err) : st;
}

static vgs_status vgs__ebm_init(vgs_ebm *m, vgs_error *err)
{
    vgs_cpu_config cpu = { 0, VGS_ISA_AUTO };
    size_t t = (size_t)m->c.sampler.steps;
    vgs_status st;
    cpu.threads = m->c.sampler.threads;
    if (!m->c.sampler.backend && !(m->own = vgs_cpu_create(&cpu, err))) return VGS_E_NOMEM;
    m->b = m->c.sampler.backend ? m->c.sampler.backend : m->own;
    m->c.sampler.backend = m->b;
    m->s2 = (float *)vgs__alloc_or(err, "ebm", 2 * t, sizeof *m->s2);
    m->x = (float *)vgs__alloc_or(err, "ebm", vgs__ebm_size(m), sizeof *m->x);
    m->which = (int64_t *)vgs__alloc_or(err, "ebm", vgs__ebm_batch(m), sizeof *m->which);
    if (!m->s2 || !m->x || !m->which) return VGS_E_NOMEM;
    m->a = m->s2 + t;
    vgs_schedule_fill(&m->c.sampler, m->s2, m->a);
    if ((st = vgs__ebm_make_models(m, err)) != VGS_OK) return st;
    if (vgs__ebm_has_sampler(&m->c) &&
        !(m->sampler = vgs__sampler_create(&m->c.sampler, m->c.shared ? m->learned : NULL, err)))
        return VGS_E_NOMEM;
    if (m->sampler) m->bytes += vgs_sampler_bytes(m->sampler);
    if ((st = vgs__ebm_make_buffers(m, err)) != VGS_OK) return st;
    return vgs__ebm_make_stages(m, err);
}

VGS__DEF vgs_ebm *vgs_ebm_create(const vgs_ebm_config *cfg, vgs_error *err)
{
    vgs_ebm_config c;
    vgs_ebm *m;
    if (!cfg) {
        vgs__fail(err, VGS_E_ARG, "ebm: the configuration is NULL");
        return NULL;
    }
    if (vgs_ebm_config_resolve(cfg, &c, err) != VGS_OK) return NULL;
    m = (vgs_ebm *)vgs__alloc_or(err, "ebm", 1, sizeof *m);
    if (!m) return NULL;
    m->c = c;
    if (vgs__ebm_init(m, err) == VGS_OK) return m;
    vgs_ebm_free(m);
    return NULL;
}

VGS__DEF void vgs_ebm_free(vgs_ebm *m)
{
    vgs__ebm_stage *stage[5];
    vgs_buffer *buf[5];
    int k;
    if (!m) return;
    stage[0] = &m->place;
    stage[1] = &m->chain;
    stage[2] = &m->keep;
    stage[3] = &m->update;
    stage[4] = &m->fit;
    buf[0] = m->data;
    buf[1] = m->source;
    buf[2] = m->start;
    buf[3] = m->draws;
    buf[4] = m->kept;
    vgs_sampler_free(m->sampler);
    for (k = 0; k < 5; ++k) {
        vgs_graph_free(stage[k]->g);
        if (buf[k]) m->b->buffer_free(m->b->self, buf[k]);
    }
    for (k = 0; k < 2; ++k) vgs__evaluator_close(&m->rows[k]);
    if (!m->c.model) vgs_model_free(m->learned);
    vgs_model_free(m->average);
    vgs__free(m->s2);
    vgs__free(m->x);
    vgs__free(m->which);
    vgs_cpu_free(m->own);
    vgs__free(m);
}

VGS__DEF const vgs_ebm_config *vgs_ebm_settings(const vgs_ebm *m) { return &m->c; }
VGS__DEF void vgs_ebm_decay(vgs_ebm *m, int n) { m->c.decay = n > 0 ? n : 0; }
VGS__DEF int64_t vgs_ebm_iteration(const vgs_ebm *m) { return m->iteration; }
VGS__DEF int64_t vgs_ebm_fitted(const vgs_ebm *m) { return m->fitted; }
VGS__DEF size_t vgs_ebm_bytes(const vgs_ebm *m) { return m->bytes + (m->own ? vgs__cpu_bytes(m->own) : 0); }
VGS__DEF vgs_sampler *vgs_ebm_sampler(vgs_ebm *m) { return m->sampler; }
VGS__DEF vgs_model *vgs_ebm_model(vgs_ebm *m, bool average) { return average ? m->average : m->learned; }
VGS__DEF vgs_energy vgs_ebm_energy(vgs_ebm *m) { return m->energy[1]; }

/* ---- data ---- */

static vgs_status vgs__ebm_check_data(const vgs_ebm *m, const vgs_data *d, vgs_error *err)
{
    if (!d || !d->x + !d->read != 1)
        return vgs__fail(err, VGS_E_ARG, "data: exactly one of x and read must be given");
    if (d->dim != m->c.net.dim)
        return vgs__fail(err, VGS_E_SHAPE, "data.dim = %d: the energy has %d columns", d->dim, m->c.net.dim);
    if (d->rows < m->c.sampler.batch || d->rows > (int64_t)1 << 30)
        return vgs__fail(err, VGS_E_ARG, "data.rows = %lld: must be batch = %d..2^30", (long long)d->rows,
                         m->c.sampler.batch);
    return VGS_OK;
}

/* Rows x [n,D], numbers `which` or from `first` on: finite, on the sphere made of length 1. */
static vgs_status vgs__ebm_check_rows(const vgs_ebm *m, float *x, int n, const int64_t *which, int64_t first,
                                      vgs_error *err)
{
    int i, j, d = m->c.net.dim;
    for (i = 0; i < n; ++i, x += d) {
        double norm = 0.0;
        long long row = (long long)(which ? which[i] : first + i);
        for (j = 0; j < d; ++j) {
            if (!vgs__finite((double)x[j]))
                return vgs__fail(err, VGS_E_NONFINITE, "data: row %lld, column %d is %g: must be finite", row,
                                 j, (double)x[j]);
            norm += (double)x[j] * (double)x[j];
        }
        if (!m->c.sampler.on_sphere) continue;
        if (!(norm > 0.0))
            return vgs__fail(err, VGS_E_ARG, "data: row %lld has length 0: it has no place on the sphere",
                             row);
        for (j = 0; j < d; ++j) x[j] = (float)((double)x[j] / sqrt(norm));
    }
    return VGS_OK;
}

/* The rows m->which of the data, to `to` on the backend. */
static vgs_status vgs__ebm_read(vgs_ebm *m, const vgs_data *data, vgs_buffer *to, vgs_error *err)
{
    size_t d = (size_t)m->c.net.dim, n = vgs__ebm_batch(m), i;
    int failed = data->read ? data->read(data->user, m->which, (int)n, (int)d, m->x) : 0;
    vgs_status st;
    if (failed)
        return vgs__fail(err, VGS_E_IO, "data: the reading callback failed with %d at iteration %lld", failed,
                         (long long)m->iteration);
    for (i = 0; data->x && i < n; ++i)
        memcpy(m->x + i * d, data->x + (size_t)m->which[i] * d, d * sizeof *m->x);
    st = vgs__ebm_check_rows(m, m->x, (int)n, m->which, 0, err);
    return st == VGS_OK ? m->b->upload(m->b->self, to, 0, m->x, n * d, VGS_F32, err) : st;
}

/* Batch k of endless epochs, each in an order of its own. */
static vgs_status vgs__ebm_read_batch(vgs_ebm *m, const vgs_data *data, int64_t k, vgs_error *err)
{
    uint64_t seed = m->c.sampler.seed;
    uint32_t n = (uint32_t)data->rows, key[8], v;
    int64_t per = data->rows / m->c.sampler.batch, epoch = k / per;
    int i, half = 1;
    for (i = 0; i < 2; ++i)
        vgs__philox((uint32_t)seed, (uint32_t)(seed >> 32), (uint32_t)i, (uint32_t)(epoch >> 32),
                    (uint32_t)VGS__FOR_EBM_SHUFFLE << 24, (uint32_t)epoch, key + 4 * i);
    while (half < 15 && (1u << 2 * half) < n) ++half;
    for (i = 0; i < m->c.sampler.batch; ++i) {
        v = (uint32_t)(k % per * m->c.sampler.batch + i);
        do v = vgs__permutation_feistel(v, half, key); while (v >= n);
        m->which[i] = (int64_t)v;
    }
    return vgs__ebm_read(m, data, m->data, err);
}

/* Rows drawn with replacement from all, as the published code does: where starts are made from. */
static vgs_status vgs__ebm_read_source(vgs_ebm *m, const vgs_data *data, int64_t round, vgs_error *err)
{
    vgs_rng r = { 0, 0xEB0u, 0 };
    int i;
    r.seed = m->c.sampler.seed;
    r.pos = (uint64_t)round * 4 * (uint64_t)m->c.sampler.batch;
    for (i = 0; i < m->c.sampler.batch; ++i) m->which[i] = (int64_t)vgs_rng_below(&r, (uint32_t)data->rows);
    return vgs__ebm_read(m, data, m->source, err);
}

/* ---- an iteration ---- */

/* Rows that starts are made of: data, or the kept, once there are any. */
static vgs_status vgs__ebm_source(vgs_ebm *m, const vgs_data *data, int64_t round, vgs_error *err)
{
    bool kept = m->c.starts == VGS_STARTS_STORE && round >= m->c.store;
    if (m->place.g) vgs_bind(m->place.g, m->place.x, kept ? m->kept : m->source,
                             kept ? vgs__ebm_slot(m, round) : 0, NULL);
    return vgs__ebm_from_data(&m->c) && !kept ? vgs__ebm_read_source(m, data, round, err) : VGS_OK;
}

static vgs_status vgs__ebm_place_run(vgs_ebm *m, int64_t round, vgs_error *err)
{
    vgs__ebm_stage *st = &m->place;
    const vgs_ebm_config *c = &m->c;
    bool chain = vgs__ebm_from_data(c) && !(c->start_code > 0.0f);
    if (chain) return vgs__ebm_moves_run(m, c->start_steps ? c->start_steps : c->sampler.steps, round, err);
    vgs_noise_set(st->g, &st->noise, c->sampler.seed, VGS__FOR_EBM_START, round, 0, 0);
    if (c->objective == VGS_PERSISTENT) {
        vgs_noise_set(st->g, &st->other, c->sampler.seed, VGS__FOR_EBM_START, round, 1, 0);
        vgs_scalar_set(st->g, st->sigma, round < c->store ? 1e6 : -vgs__ebm_quantile((double)c->reinit));
    }
    return vgs_graph_run(st->g, c->sampler.batch, err);
}

/* Negatives of a round, where vgs__ebm_bind says. */
static vgs_status vgs__ebm_negatives(vgs_ebm *m, const vgs_data *data, int64_t round, vgs_error *err)
{
    const vgs_ebm_config *c = &m->c;
    vgs_status st;
    if (c->objective == VGS_DISCREPANCY) return VGS_OK;
    if (!m->place.g) return vgs_sampler_rollout(m->sampler, VGS_START_NOISE, NULL, err);
    st = vgs__ebm_source(m, data, round, err);
    if (st == VGS_OK) st = vgs__ebm_place_run(m, round, err);
    if (st != VGS_OK) return st;
    if (m->sampler) st = vgs_sampler_rollout(m->sampler, VGS_START_PLACED, NULL, err);
    else st = vgs__ebm_chain_run(m, c->sampler.batch, vgs__ebm_has_chain(c) ? c->langevin_steps : 0,
                                 c->sampler.seed, VGS__FOR_EBM_CHAIN, round, 0, err);
    return st == VGS_OK ? vgs__ebm_keep_run(m, round, err) : st;
}

/* Reads the flag; of an energy that runs away the error tells what to change. */
static vgs_status vgs__ebm_check_flag(vgs_ebm *m, vgs_error *err)
{
    int32_t f[4];
    vgs_status st = vgs__model_read_flag(m->learned, f, err);
    const char *advice = "lower ebm.lr";
    if (st != VGS_OK || !f[0]) return st;
    if (m->c.objective != VGS_DISCREPANCY && m->c.gamma < 0.001f) advice = "raise ebm.gamma, the brake of E";
    else if (vgs__ebm_encodes(&m->c) && m->c.lr <= 1e-3f)
        advice = "lower ebm.lr, or begin anew with a larger ebm.tau_e, so that g need not grow";
    return vgs__fail(err, VGS_E_NONFINITE, "|e| of row %u is not finite, or above ebm.limit = %g, at "
                     "iteration %lld: %s; the weights are as before", (unsigned)f[1], (double)m->c.limit,
                     (long long)m->iteration, advice);
}

static vgs_status vgs__ebm_iterate(vgs_ebm *m, const vgs_data *data, vgs_error *err)
{
    int64_t round = vgs__ebm_round(m), adam = m->learned->step;
    vgs_status st = vgs__ebm_read_batch(m, data, m->iteration, err);
    int k;
    for (k = 1; k < m->c.rounds && m->sampler && st == VGS_OK; ++k) {            /* the sampler alone  */
        st = vgs__ebm_negatives(m, data, round++, err);
        if (st == VGS_OK) st = vgs_sampler_fit(m->sampler, err);
    }
    if (st == VGS_OK) st = vgs__ebm_negatives(m, data, round, err);
    if (st == VGS_OK) st = vgs__ebm_update_run(m, err);
    if (st == VGS_OK) st = vgs__ebm_check_flag(m, err);
    if (st != VGS_OK) {
        m->learned->step = adam;
        return st;
    }
    if (m->sampler) st = vgs_sampler_fit(m->sampler, err);
    m->iteration++;
    return st;
}

/* ---- statistics: on the host ---- */

static double vgs__ebm_distance(const vgs_ebm *m, const float *x, const float *y)
{
    double sum = 0.0, dot = 0.0;
    int i, j, d = m->c.net.dim, n = m->c.sampler.batch;
    for (i = 0; i < n; ++i) {
        double r = 0.0;
        for (dot = 0.0, j = 0; j < d; ++j, ++x, ++y) {
            dot += (double)*x * (double)*y;
            r += ((double)*x - (double)*y) * ((double)*x - (double)*y);
        }
        if (!m->c.sampler.on_sphere) sum += sqrt(r);
        else sum += acos(dot > 1.0 ? 1.0 : dot < -1.0 ? -1.0 : dot) * 57.29577951308232;
    }
    return sum / n;
}

/* The root of the total variance of the rows. */
static double vgs__ebm_std(const vgs_ebm *m, const float *x)
{
    double total = 0.0;
    int i, j, d = m->c.net.dim, n = m->c.sampler.batch;
    for (j = 0; j < d; ++j) {
        double mean = 0.0, sum = 0.0;
        for (i = 0; i < n; ++i) mean += (double)x[i * d + j] / n;
        for (i = 0; i < n; ++i) sum += ((double)x[i * d + j] - mean) * ((double)x[i * d + j] - mean);
        total += sum / n;
    }
    return sqrt(total);
}

/* Mean |mu_t| over sigma_t sqrt(D), of the last rollout. */
static double vgs__ebm_drift(vgs_ebm *m, int t, float *x, vgs_error *err)
{
    vgs_sampler *s = m->sampler;
    size_t n = vgs__ebm_size(m);
    int i, j, d = m->c.net.dim, b = m->c.sampler.batch;
    double sum = 0.0, unit = sqrt((double)s->s2[t] * s->dim) * (double)s->a[t];
    if (s->b->download(s->b->self, x, s->traj_mu, (size_t)t * n, n, VGS_F32, err) != VGS_OK)
        return vgs__nan();
    for (i = 0; i < b; ++i) {
        double r = 0.0;
        for (j = 0; j < d; ++j, ++x) r += (double)*x * (double)*x;
        sum += sqrt(r);
    }
    return sum / b / unit;
}

/* Means of e and |e|, and of its square, over the batch of rows x. */
static vgs_status vgs__ebm_means(vgs_ebm *m, const float *x, double *e, double *mean, double *size,
                                 double *square, vgs_error *err)
{
    int i, n = m->c.sampler.batch;
    vgs_status st = vgs__evaluator_run(&m->rows[0], x, n, e, NULL, err);
    *mean = 0.0;
    for (i = 0; i < n && st == VGS_OK; ++i) {
        double v = e[i] / m->c.divide;
        *mean += v / n;
        *size += fabs(v) / n;
        *square += v * v / n;
    }
    return st;
}

/* Rows of a leaf where negatives start, or are. */
static vgs_status vgs__ebm_download(vgs_ebm *m, bool end, float *x, vgs_error *err)
{
    size_t n = vgs__ebm_size(m);
    vgs_buffer *from = m->sampler ? m->sampler->traj_x : end ? m->draws : m->start;
    size_t at = m->sampler && end ? (size_t)m->c.sampler.steps * n : 0;
    return m->b->download(m->b->self, x, from, at, n, VGS_F32, err);
}

/* x: room for 4 batches, e for one. */
static vgs_status vgs__ebm_measure(vgs_ebm *m, vgs_ebm_stats *s, float *x, double *e, vgs_error *err)
{
    size_t n = vgs__ebm_size(m);
    float *source = x + n, *start = source + n, *draws = start + n;
    double size = 0.0, square = 0.0, unused = 0.0;
    vgs_status st = m->b->download(m->b->self, x, m->data, 0, n, VGS_F32, err);
    if (st == VGS_OK) st = vgs__ebm_means(m, x, e, &s->e_data, &size, &square, err);
    if (st != VGS_OK || m->c.objective == VGS_DISCREPANCY) return st;
    st = vgs__ebm_download(m, false, start, err);
    if (st == VGS_OK) st = vgs__ebm_download(m, vgs__ebm_moves(&m->c), draws, err);
    if (st == VGS_OK) st = vgs__ebm_means(m, draws, e, &s->e_draws, &size, &square, err);
    if (st == VGS_OK) st = vgs__ebm_means(m, start, e, &s->e_start, &unused, &unused, err);
    s->loss = s->e_data - s->e_draws + (double)m->c.gamma * square;
    s->gamma_share = size * (double)m->c.gamma / (1.0 + size * (double)m->c.gamma);
    s->spread = vgs__ebm_std(m, draws) / vgs__ebm_std(m, x);
    s->draw_distance = vgs__ebm_distance(m, start, draws);
    if (st == VGS_OK && vgs__ebm_from_data(&m->c) && m->c.starts != VGS_STARTS_STORE) {
        st = m->b->download(m->b->self, source, m->source, 0, n, VGS_F32, err);
        s->start_distance = vgs__ebm_distance(m, source, start);
    }
    if (st != VGS_OK || !m->sampler) return st;
    s->drift_first = vgs__ebm_drift(m, 0, x, err);
    s->drift_last = vgs__ebm_drift(m, m->c.sampler.steps - 1, x, err);
    return st;
}

static vgs_status vgs__ebm_stats(vgs_ebm *m, bool ran, vgs_ebm_stats *s, vgs_error *err)
{
    size_t n = vgs__ebm_size(m);
    float *x, g = 1.0f;
    double *e = NULL;
    vgs_status st = VGS_OK;
    s->iteration = m->iteration;
    s->fitted = m->fitted;
    s->loss = s->e_data = s->e_start = s->e_draws = s->gamma_share = s->drift_first = s->drift_last =
        s->start_distance = s->draw_distance = s->spread = s->scale = vgs__nan();
    if (vgs__ebm_encodes(&m->c)) {
        st = m->b->download(m->b->self, &g, m->learned->w, 0, 1, VGS_F32, err);
        s->scale = (double)g;
    }
    if (!ran || st != VGS_OK) return st;
    x = (float *)vgs__alloc_or(err, "statistics", 4 * n, sizeof *x);
    e = x ? (double *)vgs__alloc_or(err, "statistics", vgs__ebm_batch(m), sizeof *e) : NULL;
    st = e ? vgs__ebm_measure(m, s, x, e, err) : VGS_E_NOMEM;
    vgs__free(x);
    vgs__free(e);
    return st;
}

VGS__DEF vgs_status vgs_ebm_train(vgs_ebm *m, const vgs_data *data, int n, vgs_ebm_stats *stats,
                                  vgs_error *err)
{
    const vgs_config *c = &m->c.sampler;
    vgs_status st = vgs__ebm_check_data(m, data, err);
    vgs_stats now;
    int i;
    memset(&now, 0, sizeof now);
    if (st == VGS_OK && n < 0) st = vgs__fail(err, VGS_E_ARG, "ebm_train: n = %d: must be >= 0", n);
    for (i = 0; i < n && st == VGS_OK; ++i) {
        st = vgs__ebm_iterate(m, data, err);
        now.iteration = m->iteration;
        if (st == VGS_OK && c->progress && c->progress(c->progress_user, &now))
            st = vgs__fail(err, VGS_E_CANCELLED, "ebm_train: cancelled after iteration %lld",
                           (long long)m->iteration);
    }
    return st == VGS_OK && stats ? vgs__ebm_stats(m, n > 0, stats, err) : st;
}

/* ---- pretraining ---- */

/* Training begins with moments of its own, and averages that are the weights. */
static vgs_status vgs__ebm_begin(vgs_ebm *m, vgs_error *err)
{
    size_t n = (size_t)vgs_model_size(m->learned);
    float *w = (float *)vgs__alloc_or(err, "ebm_fit", 2 * n, sizeof *w);
    vgs_status st = w ? vgs_model_write_adam(m->learned, w, w + n, 0, err) : VGS_E_NOMEM;    /* zeros    */
    if (st == VGS_OK) st = vgs_model_read(m->learned, w, err);
    if (st == VGS_OK) st = vgs_model_write(m->average, w, err);
    vgs__free(w);
    return st;
}

static vgs_status vgs__ebm_fit_finish(vgs_ebm *m, vgs_error *err)
{
    return vgs__ebm_has_policy(&m->c) ? vgs__sampler_begin_policy(m->sampler, err) : vgs__ebm_begin(m, err);
}

static vgs_status vgs__ebm_fit_iterate(vgs_ebm *m, const vgs_data *data, vgs_error *err)
{
    vgs_model *model = vgs__ebm_fit_model(m);
    int64_t adam = model->step;
    vgs_status st = vgs__ebm_read_batch(m, data, m->fitted, err);
    if (st == VGS_OK) st = vgs__ebm_fit_run(m, err);
    if (st == VGS_OK) st = model == m->learned ? vgs__ebm_check_flag(m, err)
                                               : vgs__train_read_policy_flag(m->sampler, err);
    if (st != VGS_OK) model->step = adam;
    else if (++m->fitted == m->c.fit) st = vgs__ebm_fit_finish(m, err);
    return st;
}

VGS__DEF vgs_status vgs_ebm_fit_end(vgs_ebm *m, vgs_error *err)
{
    vgs_status st = m->fitted && m->fitted < m->c.fit ? vgs__ebm_fit_finish(m, err) : VGS_OK;
    if (st == VGS_OK) m->c.fit = (int)m->fitted;
    return st;
}

VGS__DEF vgs_status vgs_ebm_fit(vgs_ebm *m, const vgs_data *data, int n, double *loss, vgs_error *err)
{
    vgs_status st = vgs__ebm_check_data(m, data, err);
    float v = 0.0f;
    int i;
    if (st != VGS_OK) return st;
    if (n < 0 || m->fitted + n > m->c.fit || (n && m->iteration))
        return vgs__fail(err, VGS_E_ARG, "ebm_fit: n = %d: %lld of fit = %d are made%s", n,
                         (long long)m->fitted, m->c.fit, m->iteration ? ", and training has begun" : "");
    for (i = 0; i < n && st == VGS_OK; ++i) st = vgs__ebm_fit_iterate(m, data, err);
    if (st == VGS_OK && loss && n) st = vgs_get(m->fit.g, m->fit.out, &v, m->c.sampler.batch, err);
    if (st == VGS_OK && loss) *loss = (double)v;
    return st;
}

/* ---- scores and draws ---- */

VGS__DEF vgs_status vgs_ebm_score(vgs_ebm *m, const float *x, int n, float *e, vgs_error *err)
{
    size_t d = (size_t)m->c.net.dim;
    int i, k, block = m->rows[1].capacity;
    float *rows = (float *)vgs__alloc_or(err, "score", (size_t)block * d, sizeof *rows);
    vgs_status st = rows ? VGS_OK : VGS_E_NOMEM;
    for (i = 0; i < n && st == VGS_OK; i += k) {
        k = n - i < block ? n - i : block;
        memcpy(rows, x + (size_t)i * d, (size_t)k * d * sizeof *rows);
        st = vgs__ebm_check_rows(m, rows, k, NULL, i, err);
        if (st == VGS_OK) st = vgs__evaluator_block(&m->rows[1], rows, k, NULL, NULL, err);
        if (st == VGS_OK) memcpy(e + i, m->rows[1].e, (size_t)k * sizeof *e);
    }
    vgs__free(rows);
    return st;
}

VGS__DEF vgs_status vgs_ebm_average(vgs_ebm *m, vgs_error *err)
{
    size_t n = (size_t)vgs_model_size(m->learned);
    float *w = (float *)vgs__alloc_or(err, "ebm_average", n, sizeof *w);
    vgs_status st = w ? vgs_model_read(m->average, w, err) : VGS_E_NOMEM;
    if (st == VGS_OK) st = vgs_model_write(m->learned, w, err);
    vgs__free(w);
    return st;
}

/* Starts for rows first .. first+n-1 of a draw, from the kept; VGS_E_ARG before there are any. */
static vgs_status vgs__ebm_kept_rows(vgs_ebm *m, uint64_t seed, uint32_t first, int n, float *x,
                                     vgs_error *err)
{
    size_t d = (size_t)m->c.net.dim, all = vgs__ebm_size(m) * (size_t)m->c.store;
    int64_t rounds = vgs__ebm_round(m);
    uint32_t filled = (uint32_t)(rounds < m->c.store ? rounds : m->c.store) * (uint32_t)m->c.sampler.batch;
    float *kept;
    vgs_rng r = { 0, 0xEB1u, 0 };
    vgs_status st;
    int i;
    if (!filled) return vgs__fail(err, VGS_E_ARG, "ebm_sample: draws start from data that training has seen, "
                                  "and it has seen none");
    kept = (float *)vgs__alloc_or(err, "ebm_sample", all, sizeof *kept);
    st = kept ? m->b->download(m->b->self, kept, m->kept, 0, all, VGS_F32, err) : VGS_E_NOMEM;
    r.seed = seed;
    for (i = 0; i < n && st == VGS_OK; ++i) {
        r.pos = 4 * ((uint64_t)first + (uint64_t)i);
        memcpy(x + (size_t)i * d, kept + (size_t)vgs_rng_below(&r, filled) * d, d * sizeof *x);
    }
    vgs__free(kept);
    return st;
}

static vgs_status vgs__ebm_sample_vgs(vgs_ebm *m, const vgs_draw *draw, uint64_t seed, int n, float *x,
                                      vgs_error *err)
{
    vgs_draw o = *draw;
    float *start = NULL;
    vgs_status st = VGS_OK;
    if (m->kept && !o.start && n > 0) {
        start = (float *)vgs__alloc_or(err, "ebm_sample", (size_t)n * (size_t)m->c.net.dim, sizeof *start);
        st = start ? vgs__ebm_kept_rows(m, seed, o.first_row, n, start, err) : VGS_E_NOMEM;
        o.start = start;
    }
    if (st == VGS_OK) st = vgs_sampler_draw(m->sampler, &o, n, x, err);
    vgs__free(start);
    return st;
}

/* A block of rows by Langevin: from the kept, from given rows, or from noise. */
static vgs_status vgs__ebm_sample_block(vgs_ebm *m, const float *start, uint64_t seed, uint32_t first, int n,
                                        float *x, vgs_error *err)
{
    size_t d = (size_t)m->c.net.dim, count = (size_t)n * d, i, j;
    int steps = vgs__ebm_has_chain(&m->c) ? m->c.langevin_steps : 1000;
    vgs_rng r = { 0, 0xEB2u, 0 };
    vgs_status st = VGS_OK;
    r.seed = seed;
    if (start) memcpy(x, start, count * sizeof *x);
    else if (m->kept) st = vgs__ebm_kept_rows(m, seed, first, n, x, err);
    else for (i = 0; i < (size_t)n; ++i) {
        r.pos = ((uint64_t)first + i) * (d + 3) / 4 * 4;
        vgs_rng_normals(&r, x + i * d, d);
        for (j = 0; j < d; ++j) x[i * d + j] *= m->c.sampler.length_scale;
    }
    if (st == VGS_OK) st = vgs__ebm_check_rows(m, x, n, NULL, first, err);
    if (st == VGS_OK) st = m->b->upload(m->b->self, m->start, 0, x, count, VGS_F32, err);
    if (st == VGS_OK) st = vgs__ebm_chain_run(m, n, steps, seed, VGS__FOR_EBM_DRAW, 0, first, err);
    if (st == VGS_OK) st = vgs__ebm_check_flag(m, err);
    return st == VGS_OK ? m->b->download(m->b->self, x, m->draws, 0, count, VGS_F32, err) : st;
}

VGS__DEF vgs_status vgs_ebm_sample(vgs_ebm *m, const vgs_draw *draw, int n, float *x, vgs_error *err)
{
    size_t d = (size_t)m->c.net.dim;
    vgs_draw o;
    uint64_t seed;
    vgs_status st = VGS_OK;
    int i, k, block = m->c.sampler.batch;
    memset(&o, 0, sizeof o);
    if (draw) o = *draw;
    seed = o.seed ? o.seed : m->c.sampler.seed;
    if (m->sampler) return vgs__ebm_sample_vgs(m, &o, seed, n, x, err);
    if (o.path || o.energy || o.log_weight || o.correct > 0 || o.resample > 0.0f || o.skip_final_noise ||
        (o.noise_scale != 0.0f && o.noise_scale != 1.0f))
        return vgs__fail(err, VGS_E_ARG, "ebm_sample: this objective has no VGS; of draw only seed, start "
                         "and first_row count");
    for (i = 0; i < n && st == VGS_OK; i += k) {
        k = n - i < block ? n - i : block;
        st = vgs__ebm_sample_block(m, o.start ? o.start + (size_t)i * d : NULL, seed,
                                   o.first_row + (uint32_t)i, k, x + (size_t)i * d, err);
    }
    return st;
}

/* ---- checkpoints ---- */
#ifndef VGS_NO_STDIO

/* E on the host: n weights twice and Adam's moments, the kept rows. */
typedef struct vgs__ebm_host {
    float *average, *learned, *first, *second, *kept;
    int64_t step;
} vgs__ebm_host;

static size_t vgs__ebm_kept_count(const vgs_ebm *m)
{
    return m->kept ? vgs__ebm_size(m) * (size_t)m->c.store : 0;
}

static vgs_status vgs__ebm_host_make(const vgs_ebm *m, vgs__ebm_host *h, vgs_error *err)
{
    size_t n = (size_t)vgs_model_size(m->learned);
    memset(h, 0, sizeof *h);
    h->average = (float *)vgs__alloc_or(err, "checkpoint", 4 * n + vgs__ebm_kept_count(m), sizeof(float));
    if (!h->average) return VGS_E_NOMEM;
    h->learned = h->average + n;
    h->first = h->learned + n;
    h->second = h->first + n;
    h->kept = h->second + n;
    return VGS_OK;
}

static vgs_status vgs__ebm_host_read(const vgs_ebm *m, vgs__ebm_host *h, vgs_error *err)
{
    size_t kept = vgs__ebm_kept_count(m);
    vgs_status st = vgs_model_read(m->average, h->average, err);
    if (st == VGS_OK) st = vgs_model_read(m->learned, h->learned, err);
    if (st == VGS_OK) st = vgs_model_read_adam(m->learned, h->first, h->second, &h->step, err);
    return st == VGS_OK && kept ? m->b->download(m->b->self, h->kept, m->kept, 0, kept, VGS_F32, err) : st;
}

static vgs_status vgs__ebm_host_write(vgs_ebm *m, vgs__ebm_host *h, bool ours, vgs_error *err)
{
    size_t kept = ours ? vgs__ebm_kept_count(m) : 0;
    vgs_status st = vgs_model_write_adam(m->learned, h->first, h->second, h->step, err);
    if (st == VGS_OK) st = vgs_model_write(m->learned, h->learned, err);
    if (st == VGS_OK) st = vgs_model_write(m->average, h->average, err);
    return st == VGS_OK && kept ? m->b->upload(m->b->self, m->kept, 0, h->kept, kept, VGS_F32, err) : st;
}

static void vgs__ebm_put(const vgs_ebm *m, vgs_writer *w, const vgs__ebm_host *h)
{
    const uint64_t n = (uint64_t)vgs_model_size(m->learned);
    uint64_t kept[2];
    char key[72], text[32];
    int i;
    kept[0] = (uint64_t)m->c.store * (uint64_t)m->c.sampler.batch;
    kept[1] = (uint64_t)m->c.net.dim;
    vgs__ckpt_put_model(m->average, w, "", h->average);
    vgs__ckpt_put_model(m->learned, w, "learned.", h->learned);
    vgs_writer_tensor(w, "vgs.energy_m", VGS_DTYPE_F32, 1, &n, h->first);
    vgs_writer_tensor(w, "vgs.energy_v", VGS_DTYPE_F32, 1, &n, h->second);
    if (m->kept) vgs_writer_tensor(w, "vgs.energy_kept", VGS_DTYPE_F32, 2, kept, h->kept);
    for (i = 0; i < VGS__EBM_FIELD_COUNT; ++i) {
        snprintf(key, sizeof key, "energy_%s", vgs__ebm_fields[i].name);
        vgs_ebm_field_get(&m->c, i, text);
        vgs_writer_meta(w, key, text);
    }
    vgs__ckpt_write_counter(w, "vgs.energy_iteration", m->iteration);
    vgs__ckpt_write_counter(w, "vgs.energy_fitted", m->fitted);
    vgs__ckpt_write_counter(w, "vgs.energy_step", h->step);
    vgs__ckpt_write_counter(w, "vgs.energy_dim", m->c.net.dim);
}

/* Fields of a sampler that is not there, and what the caller adds. */
static void vgs__ebm_put_fields(const vgs_ebm *m, vgs_writer *w, const char *const *meta)
{
    char text[32];
    int i;
    for (i = 0; vgs_field_name(i); ++i) {
        vgs_field_get(&m->c.sampler, i, text);
        vgs_writer_meta(w, vgs_field_name(i), text);
    }
    for (i = 0; meta && meta[i] && meta[i + 1]; i += 2) vgs_writer_meta(w, meta[i], meta[i + 1]);
}

static vgs_status vgs__ebm_check_meta(const char *const *meta, vgs_error *err)
{
    vgs_status st = vgs__ckpt_check_meta(meta, err);
    int i;
    for (i = 0; meta && meta[i] && st == VGS_OK; i += 2)
        if (!strncmp(meta[i], "energy_", 7) && vgs_ebm_field_find(meta[i] + 7) >= 0)
            st = vgs__fail(err, VGS_E_ARG, "ebm_save: meta key %.60s is the library's own", meta[i]);
    return st;
}

VGS__DEF vgs_status vgs_ebm_save(const vgs_ebm *m, const char *path, const char *const *meta, vgs_error *err)
{
    const size_t n = (size_t)vgs_model_size(m->learned);
    vgs__ebm_host h;
    vgs__snapshot s;
    vgs_writer *w;
    vgs_status st = vgs__ebm_check_meta(meta, err);
    memset(&s, 0, sizeof s);
    if (st == VGS_OK) st = vgs__ebm_host_make(m, &h, err);
    if (st != VGS_OK) return st;
    st = vgs__ebm_host_read(m, &h, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "weights", h.average, 2 * n, false, err);
    if (st == VGS_OK && m->sampler) st = vgs__snapshot_make(m->sampler, &s, err);
    if (st == VGS_OK && m->sampler) st = vgs__snapshot_read(m->sampler, &s, err);
    w = st == VGS_OK ? vgs_writer_create(err) : NULL;
    if (w) {
        if (m->sampler) vgs__ckpt_write_tensors(m->sampler, w, &s);
        if (m->sampler) vgs__ckpt_write_meta(m->sampler, w, meta);
        else vgs__ebm_put_fields(m, w, meta);
        vgs__ebm_put(m, w, &h);
        st = vgs_writer_save(w, path, err);
        vgs_writer_free(w);
    } else if (st == VGS_OK) st = VGS_E_NOMEM;
    vgs__snapshot_free(&s);
    vgs__free(h.average);
    return st;
}

/* E's weights; of a state_dict learning starts from them. */
static vgs_status vgs__ebm_get_weights(const vgs_ebm *m, const vgs_safetensors *f, const char *path,
                                       vgs__ebm_host *h, vgs_error *err)
{
    const bool ours = vgs_safetensors_find(f, "vgs.energy_m") != NULL;
    size_t n = (size_t)vgs_model_size(m->learned);
    const char *prefix = "";
    vgs_status st;
    char name[128];
    snprintf(name, sizeof name, "state_dict.%s", m->learned->net->info[m->learned->net->n_info - 1].name);
    if (vgs_safetensors_find(f, name)) prefix = "state_dict.";
    st = vgs__ckpt_get_model_or(m->learned, !ours, f, path, prefix, h->average, err);
    memcpy(h->learned, h->average, n * sizeof *h->learned);
    return st == VGS_OK ? vgs__ckpt_check_finite(path, "weights", h->average, n, false, err) : st;
}

static vgs_status vgs__ebm_get(const vgs_ebm *m, const vgs_safetensors *f, const char *path,
                               vgs__ebm_host *h, int64_t *iteration, int64_t *fitted, vgs_error *err)
{
    size_t n = (size_t)vgs_model_size(m->learned), kept = vgs__ebm_kept_count(m);
    vgs_status st = vgs__ebm_get_weights(m, f, path, h, err);
    *iteration = *fitted = 0;
    if (st != VGS_OK || !vgs_safetensors_find(f, "vgs.energy_m")) return st;
    st = vgs__ckpt_get_model(m->learned, f, path, "learned.", h->learned, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.energy_m", h->first, n, err);
    if (st == VGS_OK) st = vgs_safetensors_floats(f, "vgs.energy_v", h->second, n, err);
    if (st == VGS_OK && kept) st = vgs_safetensors_floats(f, "vgs.energy_kept", h->kept, kept, err);
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "learned, moments", h->learned, 3 * n + kept, false,
                                                  err);
    if (st == VGS_OK) st = vgs__ckpt_check_squares(path, "vgs.energy_v", h->second, n, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.energy_iteration", iteration, err);
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.energy_fitted", fitted, err);
    return st == VGS_OK ? vgs__ckpt_read_counter(f, "vgs.energy_step", &h->step, err) : st;
}

/* Returns whether V and E are one network in the file as they are in m. */
static vgs_status vgs__ebm_check_shared(const vgs_ebm *m, const vgs_safetensors *f, const char *path,
                                        vgs_error *err)
{
    const bool shared = vgs__ckpt_meta_is_set(f, "energy_shared");
    if (shared == m->c.shared) return VGS_OK;
    return vgs__fail(err, VGS_E_SHAPE, "%.120s: has energy_shared = %d, but the model has shared = %d", path,
                     shared, m->c.shared);
}

VGS__DEF vgs_status vgs_ebm_load(vgs_ebm *m, const char *path, vgs_error *err)
{
    vgs__ebm_host h;
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    int64_t iteration, fitted;
    bool ours;
    vgs_status st;
    if (!f) return err ? err->code : VGS_E_FORMAT;
    ours = vgs_safetensors_find(f, "vgs.energy_m") != NULL;
    st = ours ? vgs__ebm_check_shared(m, f, path, err) : VGS_OK;
    memset(&h, 0, sizeof h);
    if (st == VGS_OK) st = vgs__ebm_host_make(m, &h, err);
    if (st == VGS_OK) st = vgs__ebm_get(m, f, path, &h, &iteration, &fitted, err);
    vgs_safetensors_free(f);
    if (st == VGS_OK && ours && m->sampler) st = vgs_sampler_load(m->sampler, path, err);
    if (st == VGS_OK) st = vgs__ebm_host_write(m, &h, ours, err);
    if (st == VGS_OK) {
        m->iteration = iteration;
        m->fitted = fitted;
    }
    vgs__free(h.average);
    return st;
}

/* Before its end pretraining changes the network that learns alone, and the average is none. */
static vgs_status vgs__ebm_check_fitted(const char *path, int fit, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    int64_t fitted = 0, iteration = 0;
    vgs_status st = f ? vgs__ckpt_read_counter(f, "vgs.energy_fitted", &fitted, err) : VGS_E_FORMAT;
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.energy_iteration", &iteration, err);
    vgs_safetensors_free(f);
    if (st != VGS_OK || iteration || fitted >= fit) return st;
    return vgs__fail(err, VGS_E_ARG, "%.120s: %lld of %d iterations of pretraining are made: its policy is "
                     "not done", path, (long long)fitted, fit);
}

/* Returns whether a policy of that file fits, but for the shapes of its arrays. */
static vgs_status vgs__ebm_check_policy_file(const vgs_ebm *m, const char *path, vgs_error *err)
{
    const vgs_config *own = &m->c.sampler, *c;
    vgs_ebm_config from;
    vgs_status st;
    if (!vgs__ebm_has_policy(&m->c))
        return vgs__fail(err, VGS_E_ARG, "ebm_load_policy: only the objective dxmi has a policy");
    if (m->iteration)
        return vgs__fail(err, VGS_E_ARG, "ebm_load_policy: training has begun, %lld iterations are made",
                         (long long)m->iteration);
    memset(&from, 0, sizeof from);
    if ((st = vgs_ebm_checkpoint_config(path, &from, NULL, err)) != VGS_OK) return st;
    c = &from.sampler;
    if (c->kernel != VGS_KERNEL_POLICY)
        return vgs__fail(err, VGS_E_FORMAT, "%.150s: holds no policy", path);
    if (c->schedule != own->schedule || (c->steps != own->steps && own->schedule != VGS_COSINE))
        return vgs__fail(err, VGS_E_ARG, "%.120s: has steps = %d: a policy of %d takes them only where both "
                         "have the schedule cosine", path, c->steps, own->steps);
    return vgs__ebm_check_fitted(path, from.fit, err);
}

VGS__DEF vgs_status vgs_ebm_load_policy(vgs_ebm *m, const char *path, vgs_error *err)
{
    vgs_safetensors *f = NULL;
    vgs_model *net = NULL;                       /* the network alone: log sigma_t [T,1] differs      */
    vgs_sampler *s = m->sampler;
    float *w = NULL;
    vgs_status st = vgs__ebm_check_policy_file(m, path, err);
    if (st != VGS_OK) return st;
    w = (float *)vgs__alloc_or(err, "policy", (size_t)vgs_model_size(s->policy_on), sizeof *w);
    net = w ? vgs_model_create(&s->c.policy, s->b, 0, err) : NULL;
    f = net ? vgs_safetensors_open(path, err) : NULL;
    st = f ? vgs__ckpt_get_model(net, f, path, "policy.", w, err) : net && err ? err->code : VGS_E_NOMEM;
    if (st == VGS_OK) st = vgs__ckpt_check_finite(path, "policy", w, (size_t)vgs_model_size(net), false, err);
    if (st == VGS_OK) st = vgs_model_write(s->policy_on, w, err);
    if (st == VGS_OK) st = vgs__sampler_begin_policy(s, err);
    vgs_safetensors_free(f);
    vgs_model_free(net);
    vgs__free(w);
    return st;
}

VGS__DEF vgs_status vgs_ebm_checkpoint_config(const char *path, vgs_ebm_config *cfg, int *count,
                                              vgs_error *err)
{
    vgs_ebm_config c = *cfg;
    vgs_safetensors *f;
    vgs_error why;
    int64_t dim = 0;
    int i, n = 0;
    vgs_status st = vgs_checkpoint_config(path, &c.sampler, &n, err);
    if (st != VGS_OK) return st;
    if (!(f = vgs_safetensors_open(path, err))) return err ? err->code : VGS_E_FORMAT;
    for (i = 0; i < vgs_safetensors_meta_count(f) && st == VGS_OK; ++i) {
        const char *key = vgs_safetensors_meta_key(f, i);
        if (strncmp(key, "energy_", 7) || vgs_ebm_field_find(key + 7) < 0) continue;
        st = vgs_ebm_field_set(&c, key + 7, vgs_safetensors_meta(f, key), &why);
        if (st != VGS_OK) st = vgs__fail(err, VGS_E_FORMAT, "%.100s: metadata energy_%.110s", path, why.msg);
        ++n;
    }
    if (st == VGS_OK) st = vgs__ckpt_read_counter(f, "vgs.energy_dim", &dim, err);
    vgs_safetensors_free(f);
    if (st != VGS_OK) return st;
    if (dim > 0 && dim <= 1000000) c.net.dim = (int)dim;
    *cfg = c;
    if (count) *count = n;
    return VGS_OK;
}
#endif /* VGS_NO_STDIO */

/* Macros of one list or one function are undefined behind it, all others here, but VGS__HOT, VGS__INLINE and
   VGS__AVX2, which public ones stand for, VGS__DEF and VGS__ACTS, with which vgs_cl.h goes on, and VGS__X86,
   which tells what kernels there are. */
#undef VGS__SAME_PLACES
#undef VGS__PRINTF
#undef VGS__UNUSED
#undef VGS__PI
#undef VGS__ARM
#undef VGS__V8
#undef VGS__STREAM
#undef VGS__MAX_SPACE
#undef VGS__KC
#undef VGS__MC
#undef VGS__NC
#undef VGS__LANES
#undef VGS__TILE_MAX
#undef VGS__FEW_ROWS
#undef VGS__FEW_COLS
#undef VGS__WORK
#undef VGS__THREAD_WORK
#undef VGS__MIXES
#undef VGS__MAP_HOT
#undef VGS__KERNEL
#undef VGS__WHOLE
#undef VGS__GRAD
#undef VGS__NO_GRAD
#undef VGS__IN
#undef VGS__KERNEL8
#undef VGS__VERSION
#undef VGS__VERSIONS
#undef VGS__VERSION16
#undef VGS__MAP
#undef VGS__FORMULA
#undef VGS__MAP_KERNELS
#undef VGS__MAP1_LOOP
#undef VGS__MAP1
#undef VGS__MAP2_LOOP
#undef VGS__MAP2
#undef VGS__UNARY_DEF
#undef VGS__GRAD1
#undef VGS__UNARY
#undef VGS__NORM_EPS
#undef VGS__NO_ROOM
#undef VGS__SHARE_NS
#undef VGS__FORK_NS
#undef VGS__NETS_OF_V
#undef VGS__NETS
#undef VGS__NET_WORD
#undef VGS__NET_WORDS_OF_V
#undef VGS__NET_WORDS
#undef VGS__BIG
#undef VGS__WIDTH
#undef VGS__MALA_ACCEPTANCE
#undef VGS__SHUFFLE_STREAM
#undef VGS__LN_2PI
#undef VGS__BUFFERS
#undef VGS__WALL_LENGTH
#undef VGS__SIGMA_RANGE
#undef VGS__OUTSIDE
#undef VGS__WALL
#undef VGS__RHO_MIN
#undef VGS__RHO_MAX
#undef VGS__FD_STEP
#undef VGS__MALA_RATE
#undef VGS__FD_PATH
#undef VGS__FACTOR_RATE
#undef VGS__VELOCITY_KEPT
#undef VGS__STAGES
#undef VGS__STAGE_MAKE
#undef VGS__PILOT_HOT
#undef VGS__PILOT_COLD
#undef VGS__PILOT_SAMPLES
#undef VGS__CHOICE_WORST
#undef VGS__CHOICE_GAIN
#undef VGS__FEATURE_DETAIL
#undef VGS__GOOD_ESS
#undef VGS__AGAIN_BELOW
#undef VGS__AGAIN_DRAWS
#undef VGS__AGAIN_KHAT
#undef VGS__OWN

#ifdef VGS__POP_OPTIONS
#  undef VGS__POP_OPTIONS
#  pragma GCC pop_options
#endif
#ifdef __cplusplus
}
#endif
#endif /* VGS_IMPLEMENTATION */

/* HISTORY
   0.1.0  first version: core, networks, sampler, files

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
