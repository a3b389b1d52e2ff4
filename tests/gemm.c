/* cc -O2 tests/gemm.c -o gemm -lm && ./gemm
   Matrix products: every form against double, edges, strides, epilogues, and the promise of equal bits
   (-fopenmp: also one thread against several). */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

#define GUARD 12345.678f

static void check(bool ok, const char *what, const char *isa, vgs__form form, int m, int n, int k)
{
    static const char *const forms[] = { "NT", "NN", "TN" };
    CHECK(ok, "%s: %s %s m=%d n=%d k=%d", what, isa, forms[form], m, n, k);
}

/* One product with everything that belongs to it. a, b, c lie in larger blocks, c between guards. */
typedef struct problem {
    vgs__form form;
    int m, n, k, lda, ldb, ldc;
    float *a, *b, *c, *block;
    size_t c_size;
    float *bias;                                  /* [3,n] */
    int32_t *rows;                                /* [m]   */
} problem;

static vgs_rng rng = { 7, 0, 0 };

/* Exactly what a [rows,cols] matrix with that stride holds, so that a sanitizer sees every step outside. */
static size_t extent(int rows, int cols, int ld)
{
    return rows && cols ? (size_t)(rows - 1) * (size_t)ld + (size_t)cols : 0;
}

static float *randoms(size_t size)
{
    float *x = (float *)malloc((size ? size : 1) * sizeof *x);
    vgs_rng_normals(&rng, x, size);
    return x;
}

static problem make(vgs__form form, int m, int n, int k)
{
    problem q;
    int i, pad[3];
    for (i = 0; i < 3; ++i) pad[i] = vgs_rng_below(&rng, 2) ? 0 : (int)vgs_rng_below(&rng, 9);
    q.form = form;
    q.m = m;
    q.n = n;
    q.k = k;
    q.lda = (form == VGS__TN ? m : k) + pad[0];
    q.ldb = (form == VGS__NT ? k : n) + pad[1];
    q.ldc = n + pad[2];
    q.a = randoms(form == VGS__TN ? extent(k, m, q.lda) : extent(m, k, q.lda));
    q.b = randoms(form == VGS__NT ? extent(n, k, q.ldb) : extent(k, n, q.ldb));
    q.c_size = (size_t)m * (size_t)q.ldc;
    q.block = (float *)malloc((q.c_size + 32) * sizeof(float));
    for (i = 0; i < (int)q.c_size + 32; ++i) q.block[i] = GUARD;
    q.c = q.block + 16;
    q.bias = randoms(3 * (size_t)n);
    q.rows = (int32_t *)malloc(((size_t)m + 1) * sizeof *q.rows);
    for (i = 0; i < m; ++i) q.rows[i] = (int32_t)vgs_rng_below(&rng, 3);
    return q;
}

static void drop(problem *q)
{
    free(q->a);
    free(q->b);
    free(q->block);
    free(q->bias);
    free(q->rows);
}

static float *a_row(const problem *q, int i) { return q->a + (q->form == VGS__TN ? i : i * q->lda); }

/* Rows i..i+m of q's product into c. */
static void multiply(const problem *q, int i, int m, float *c, const vgs__epilogue *ep, int threads,
                     vgs_isa isa)
{
    float *work = (float *)vgs__alloc(vgs__gemm_work(threads), sizeof(float));
    vgs__epilogue part;
    if (ep) {
        part = *ep;
        if (part.rows) part.rows += i;
    }
    vgs__gemm(q->form, m, q->n, q->k, a_row(q, i), q->lda, q->b, q->ldb, c + i * q->ldc, q->ldc,
              ep ? &part : NULL, work, threads, isa);
    vgs__free(work);
}

static double act(vgs_act f, double x)
{
    switch (f) {
    case VGS_ACT_RELU:     return x > 0 ? x : 0;
    case VGS_ACT_SIGMOID:  return 1 / (1 + exp(-x));
    case VGS_ACT_TANH:     return tanh(x);
    case VGS_ACT_SILU:     return x / (1 + exp(-x));
    case VGS_ACT_SOFTPLUS: return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x));
    case VGS_ACT_CLAMP:    return x < -0.75 ? -0.75 : x > 1.5 ? 1.5 : x;
    case VGS_ACT_NONE:     break;
    }
    return x;
}

/* Element i,j in double, and the scale of its rounding errors. */
static double exact(const problem *q, int i, int j, const vgs__epilogue *ep, double before, double *scale)
{
    double sum = 0.0;
    int p;
    *scale = 1.0;
    for (p = 0; p < q->k; ++p) {
        double x = (double)q->a[q->form == VGS__TN ? p * q->lda + i : i * q->lda + p];
        double y = (double)q->b[q->form == VGS__NT ? j * q->ldb + p : p * q->ldb + j];
        sum += x * y;
        *scale += fabs(x * y);
    }
    if (ep && ep->accumulate) return sum + before;
    if (ep && ep->bias) sum += (double)ep->bias[(ep->rows ? ep->rows[i] * ep->ldbias : 0) + j];
    return ep ? act(ep->act, sum) : sum;
}

static bool close_to_exact(const problem *q, const vgs__epilogue *ep, const float *before)
{
    int i, j;
    for (i = 0; i < q->m; ++i)
        for (j = 0; j < q->n; ++j) {
            double got = (double)q->c[i * q->ldc + j], scale;
            double want = exact(q, i, j, ep, (double)before[i * q->ldc + j], &scale);
            if (!(fabs(got - want) <= 1e-6 * scale + 1e-5)) return false;
        }
    return true;
}

static bool guards_whole(const problem *q)
{
    size_t i;
    for (i = 0; i < q->c_size + 32; ++i) {
        bool inside = i >= 16 && i < 16 + q->c_size && (int)((i - 16) % (size_t)q->ldc) < q->n;
        if (!inside && q->block[i] != GUARD) return false;
    }
    return true;
}

/* A foreign BLAS promises no equal bits: there this holds always. */
static bool same_bits(const problem *q, const float *x)
{
    int i, rows = q->m;
#ifdef VGS_USE_CBLAS
    rows = 0;
#endif
    for (i = 0; i < rows; ++i)
        if (memcmp(q->c + i * q->ldc, x + i * q->ldc, (size_t)q->n * sizeof(float))) return false;
    return true;
}

/* The whole product once, then in other ways that must give the same bits. */
static void one_product(vgs__form form, int m, int n, int k, const vgs__epilogue *kind, vgs_isa isa)
{
    const char *name = vgs_isa_name(isa);
    problem q = make(form, m, n, k);
    float *before = randoms(q.c_size), *again = (float *)malloc((q.c_size + 1) * sizeof(float));
    vgs__epilogue ep = *kind;
    int i, half = m / 2;
    if (ep.bias) ep.bias = q.bias;
    if (ep.rows) ep.rows = q.rows;
    ep.ldbias = n;
    for (i = 0; i < m; ++i) {
        memcpy(q.c + i * q.ldc, before + i * q.ldc, (size_t)n * sizeof(float));
        memcpy(again + i * q.ldc, before + i * q.ldc, (size_t)n * sizeof(float));
    }
    multiply(&q, 0, m, q.c, &ep, 1, isa);
    check(close_to_exact(&q, &ep, before), "value", name, form, m, n, k);
    check(guards_whole(&q), "guards", name, form, m, n, k);
    multiply(&q, 0, half, again, &ep, 1, isa);
    multiply(&q, half, m - half, again, &ep, 3, isa);
    check(same_bits(&q, again), "two halves", name, form, m, n, k);
    memcpy(again, before, q.c_size * sizeof(float));
    multiply(&q, 0, m, again, &ep, 2, isa);
    check(same_bits(&q, again), "two threads", name, form, m, n, k);
    memcpy(again, before, q.c_size * sizeof(float));
    for (i = 0; i < m; ++i) multiply(&q, i, 1, again, &ep, 1, isa);
    check(same_bits(&q, again), "row by row", name, form, m, n, k);
    free(before);
    free(again);
    drop(&q);
}

static void random_products(vgs_isa isa, int count)
{
    static const int sizes[] = { 0, 1, 2, 3, 5, 6, 7, 13, 16, 17, 33, 64, 65, 96, 128, 200, 257 };
    static const uint32_t number = sizeof sizes / sizeof *sizes;
    static const float some_bias[1] = { 0 };
    static const int32_t some_rows[1] = { 0 };
    while (count-- > 0) {
        vgs__form form = (vgs__form)vgs_rng_below(&rng, 3);
        int m = sizes[vgs_rng_below(&rng, number)], n = sizes[vgs_rng_below(&rng, number)];
        int k = sizes[vgs_rng_below(&rng, number)];
        vgs__epilogue ep = { NULL, 0, NULL, VGS_ACT_NONE, false, -0.75f, 1.5f };
        if (vgs_rng_below(&rng, 2)) ep.bias = some_bias;
        if (ep.bias && vgs_rng_below(&rng, 2)) ep.rows = some_rows;
        if (vgs_rng_below(&rng, 4)) ep.act = (vgs_act)vgs_rng_below(&rng, VGS_ACT_CLAMP + 1);
        else ep.accumulate = true;
        one_product(form, m, n, k, &ep, isa);
    }
}

/* Larger than every block, so that all loops are taken more than once. */
static void large_products(vgs_isa isa)
{
    static const int sizes[][3] = { { 300, 40, 530 }, { 7, 1100, 257 }, { 150, 2049, 16 }, { 1, 1300, 600 },
                                    { 301, 1, 513 }, { 40, 2, 700 }, { 14, 530, 1024 }, { 15, 600, 2048 } };
    size_t i;
    int form;
    vgs__epilogue plain = { NULL, 0, NULL, VGS_ACT_NONE, false, 0, 0 },
        add = { NULL, 0, NULL, VGS_ACT_NONE, true, 0, 0 };
    for (form = VGS__NT; form <= VGS__TN; ++form)
        for (i = 0; i < sizeof sizes / sizeof *sizes; ++i)
            one_product((vgs__form)form, sizes[i][0], sizes[i][1], sizes[i][2], i % 2 ? &add : &plain, isa);
}

/* NULL epilogue, the naive reference, and NaN and infinity in one row that must not touch the others. */
static void odds_and_ends(vgs_isa isa)
{
    const char *name = vgs_isa_name(isa);
    problem q = make(VGS__NT, 13, 19, 300);
    float *x = (float *)malloc(q.c_size * sizeof *x);
    double scale;
    bool ok = true;
    int i, j;
    multiply(&q, 0, 13, q.c, NULL, 1, isa);
    check(close_to_exact(&q, NULL, q.c), "no epilogue", name, q.form, 13, 19, 300);
    memcpy(x, q.c, q.c_size * sizeof *x);
    vgs__gemm_naive(q.form, 13, 19, 300, q.a, q.lda, q.b, q.ldb, q.c, q.ldc, NULL);
    for (i = 0; i < 13; ++i)
        for (j = 0; j < 19; ++j) {
            exact(&q, i, j, NULL, 0.0, &scale);
            ok = ok && fabs((double)q.c[i * q.ldc + j] - (double)x[i * q.ldc + j]) <= 2e-6 * scale;
        }
    check(ok, "naive", name, q.form, 13, 19, 300);
    q.a[5 * q.lda + 7] = (float)NAN;
    q.a[6 * q.lda + 280] = (float)INFINITY;
    multiply(&q, 0, 13, q.c, NULL, 1, isa);
    for (ok = true, i = 0; i < 13; ++i)
        for (j = 0; j < 19; ++j) {
            float y = q.c[i * q.ldc + j];
            if (i == 5) ok = ok && y != y;
            else if (i == 6) ok = ok && (y > 3e38f || y < -3e38f);
            else ok = ok && !memcmp(&y, &x[i * q.ldc + j], sizeof y);
        }
    check(ok, "nan and inf", name, q.form, 13, 19, 300);
    free(x);
    drop(&q);
}

/* A batch that is summed 256 rows at a time gives the bits of the whole sum. */
static void batch_in_blocks(vgs_isa isa)
{
    problem q = make(VGS__TN, 33, 50, 700), part;
    float *whole = (float *)malloc(q.c_size * sizeof *whole);
    vgs__epilogue add = { NULL, 0, NULL, VGS_ACT_NONE, true, 0, 0 };
    int p;
    multiply(&q, 0, 33, whole, NULL, 1, isa);
    for (p = 0; p < 700; p += 256) {
        part = q;
        part.a += p * q.lda;
        part.b += p * q.ldb;
        part.k = 700 - p < 256 ? 700 - p : 256;
        multiply(&part, 0, 33, q.c, p ? &add : NULL, 2, isa);
    }
    check(same_bits(&q, whole), "blocks of the batch", vgs_isa_name(isa), VGS__TN, 33, 50, 700);
    free(whole);
    drop(&q);
}

int main(int argc, char **argv)
{
    int isa;
    t_begin(argc, argv);
    for (isa = VGS_ISA_PORTABLE; isa <= VGS_ISA_AVX512; ++isa) {
        if (!vgs__cpu_has((vgs_isa)isa) || !t_wanted(vgs_isa_name((vgs_isa)isa))) continue;
        random_products((vgs_isa)isa, 300);
        large_products((vgs_isa)isa);
        odds_and_ends((vgs_isa)isa);
        batch_in_blocks((vgs_isa)isa);
    }
    return t_end();
}
