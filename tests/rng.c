/* cc -O2 tests/rng.c -o rng -lm && ./rng
   Philox against Random123's known answers; exp, log, sine and their kin over the float range; moments. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "t.h"

static void known_answers(void)
{
    static const struct { uint32_t counter[4], key[2], out[4]; } known[] = {
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u } },
        { { ~0u, ~0u, ~0u, ~0u }, { ~0u, ~0u }, { 0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu } },
        { { 0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u }, { 0xa4093822u, 0x299f31d0u },
          { 0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u } }
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
        uint32_t out[4];
        vgs_philox(known[i].key, known[i].counter, out);
        for (int k = 0; k < 4; ++k)
            CHECK(out[k] == known[i].out[k], "case %d word %d: %08x", (int)i, k, out[k]);
    }
}

/* largest error of got against want, in units of the last place of want */
static double ulps(float got, double want)
{
    float w = (float)want;
    return fabs((double)got - want) / ((double)nextafterf(fabsf(w), INFINITY) - (double)fabsf(w));
}

static void functions(void)
{
    double worst[7] = { 0 };
    for (uint32_t u = 1; u < 0x7f800000u; u += 1009) {               /* every 1009th positive float    */
        float x = vgs__from_bits(u);
        double d = (double)x;
        worst[0] = fmax(worst[0], ulps(vgs__log(x), log(d)));
        if (u < 0x00800000u) continue;                               /* denormal                       */
        for (int sign = -1; sign <= 1; sign += 2) {
            float v = sign < 0 ? -x : x;
            double w = sign < 0 ? -d : d;
            if (fabs(w) < 87.0) worst[1] = fmax(worst[1], ulps(vgs__exp(v), exp(w)));
            if (fabs(w) < 87.0) worst[2] = fmax(worst[2], ulps(vgs__sigmoid(v), 1.0 / (1.0 + exp(-w))));
            worst[3] = fmax(worst[3], ulps(vgs__tanh(v), tanh(w)));
            if (d < 1e6) {                                           /* in units of 1e-7 (1 + |x|)     */
                double es = fabs((double)vgs__sin(v) - sin(w)), ec = fabs((double)vgs__cos(v) - cos(w));
                worst[6] = fmax(worst[6], fmax(es, ec) / (1e-7 * (1.0 + d)));
            }
            if (w > -87.0) worst[4] = fmax(worst[4], ulps(vgs__softplus(v), w > 40 ? w : log1p(exp(w))));
        }
    }
    for (uint32_t u = 0; u < 1u << 24; u += 11) {
        float turn = (float)u / 16777216.0f, s, c;
        double a = 6.283185307179586 * (double)turn;
        vgs__sincos_turns(turn, &s, &c);
        worst[5] = fmax(worst[5], fmax(fabs((double)s - sin(a)), fabs((double)c - cos(a))) / 5.96e-8);
    }
    static const char *const name[] = { "log", "exp", "sigmoid", "tanh", "softplus", "turns", "sine" };
    /* softplus: 1.1 of exp, 1 of log, and 1/2 each of a product and a quotient */
    static const double bound[] = { 1.0, 1.1, 2.6, 2.5, 3.1, 2.0, 2.0 };
    for (int k = 0; k < 7; ++k)
        CHECK(worst[k] <= bound[k], "%s: %g ulp, bound %g", name[k], worst[k], bound[k]);
}

#ifdef VGS__X86
/* Eight lanes give the bits of one: on every 1009th of all floats, negative, denormal and NaN ones too. */
__attribute__((target("avx2"))) static void lanes(void)
{
    int bad[4] = { 0 };
    if (!vgs__cpu_has(VGS_ISA_AVX2)) return;
    for (uint64_t u = 0; u < 1ull << 32; u += 8 * 1009) {
        float x[8], turn[8], e[8], l[8], s[8], c[8], s1, c1;
        __m256 sv, cv;
        for (int j = 0; j < 8; ++j) {
            x[j] = vgs__from_bits((uint32_t)(u + (uint64_t)j * 1009));
            turn[j] = (float)((u + (uint64_t)j * 1009) >> 8 & 0xFFFFFFu) / 16777216.0f;
        }
        _mm256_storeu_ps(e, vgs__exp8(_mm256_loadu_ps(x)));
        _mm256_storeu_ps(l, vgs__log8(_mm256_loadu_ps(x)));
        vgs__sincos_turns8(_mm256_loadu_ps(turn), &sv, &cv);
        _mm256_storeu_ps(s, sv);
        _mm256_storeu_ps(c, cv);
        for (int j = 0; j < 8; ++j) {
            vgs__sincos_turns(turn[j], &s1, &c1);
            bad[0] += vgs__to_bits(e[j]) != vgs__to_bits(vgs__exp(x[j])) && x[j] == x[j];
            bad[1] += vgs__to_bits(l[j]) != vgs__to_bits(vgs__log(x[j])) && x[j] == x[j];
            bad[2] += vgs__to_bits(s[j]) != vgs__to_bits(s1) || vgs__to_bits(c[j]) != vgs__to_bits(c1);
            bad[3] += x[j] != x[j] && (e[j] == e[j] || l[j] == l[j]);
        }
    }
    CHECK(!bad[0] && !bad[1] && !bad[2] && !bad[3], "exp %d, log %d, sine %d, NaN %d lanes differ", bad[0],
          bad[1], bad[2], bad[3]);
}
#endif

static void special_values(void)
{
    OK(vgs__exp(-INFINITY) == 0.0f && vgs__exp(-200.0f) == 0.0f && isinf(vgs__exp(89.0f)) &&
       isnan(vgs__exp(NAN)));
    OK(vgs__exp(0.0f) == 1.0f && vgs__exp(-100.0f) > 0.0f);
    OK(vgs__log(1.0f) == 0.0f && vgs__log(0.0f) == -INFINITY && isnan(vgs__log(-1.0f)) &&
       isnan(vgs__log(NAN)));
    OK(isinf(vgs__log(INFINITY)) && fabsf(vgs__log(1e-42f) + 96.7085f) < 0.01f);
    OK(vgs__tanh(40.0f) == 1.0f && vgs__tanh(-40.0f) == -1.0f && isnan(vgs__tanh(NAN)));
    OK(vgs__softplus(100.0f) == 100.0f && vgs__softplus(-200.0f) == 0.0f && isnan(vgs__softplus(NAN)));
}

static void moments(void)
{
    enum { N = 1 << 20 };
    static float z[N];
    double m[5] = { 0 };
    vgs_rng r = { 2026, 3, 0 };
    vgs_rng_normals(&r, z, N);
    OK(r.pos == N / 4);
    for (int i = 0; i < N; ++i) {
        double v = (double)z[i], p = v;
        for (int k = 1; k < 5; ++k, p *= v) m[k] += p / N;
    }
    CHECK_NEAR(m[1], 0, 0, 6 / sqrt(N));                             /* 6 sigma: var 1, 2, 15, 96      */
    CHECK_NEAR(m[2], 1, 0, 6 * sqrt(2.0 / N));
    CHECK_NEAR(m[3], 0, 0, 6 * sqrt(15.0 / N));
    CHECK_NEAR(m[4], 3, 0, 6 * sqrt(96.0 / N));
}

static void streams(void)
{
    vgs_rng a = { 7, 1, 0 }, b = { 7, 2, 0 }, c = { 7, 1, 0 };
    int same = 0, hits[6] = { 0 };
    for (int i = 0; i < 1000; ++i) same += vgs_rng_u64(&a) == vgs_rng_u64(&b);
    OK(same == 0);
    c.pos = 1000;
    OK(vgs_rng_u64(&a) == vgs_rng_u64(&c));                          /* jumping is setting pos         */
    for (int i = 0; i < 60000; ++i) {
        double u = vgs_rng_uniform(&a);
        if (!(u > 0.0 && u < 1.0)) same++;
        hits[vgs_rng_below(&a, 6)]++;
    }
    OK(same == 0);
    for (int k = 0; k < 6; ++k) CHECK_NEAR(hits[k], 10000, 0, 6 * sqrt(60000.0 * 5 / 36));
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(known_answers);
    RUN(functions);
#ifdef VGS__X86
    RUN(lanes);
#endif
    RUN(special_values);
    RUN(moments);
    RUN(streams);
    return t_end();
}
