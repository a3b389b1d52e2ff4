/* cc -O2 tests/repro.c -o repro -lm && ./repro
   The same bits: for any number of threads (-fopenmp), for split draws, for a training that is saved, loaded
   and resumed; and, with -DVGS_PORTABLE -ffp-contract=off, on every compiler and processor: then the hash of
   20 iterations is the one below. ./repro hash prints it. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "t.h"
#include <stdlib.h>

#define GOLDEN_HASH 0x90963275a7aba303u

static uint64_t hash;

static void add(const void *data, size_t bytes)                      /* FNV-1a of little-endian words  */
{
    const float *x = (const float *)data;
    size_t i;
    uint32_t u;
    int k;
    for (i = 0; i < bytes / 4; ++i) {
        memcpy(&u, &x[i], 4);
        for (k = 0; k < 4; ++k) hash = (hash ^ (u >> 8 * k & 255)) * 1099511628211u;
    }
}

static vgs_config config_of(int kind)
{
    static const char *const name[] = { "gmm9", "dw4", "dw4", "four-gauss" };
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find(name[kind]));
    c.steps = 6;
    c.batch = 48;
    c.passes = 2;
    c.sigma_lr = 1e-2f;
    c.target_ema = 0.5f;
    c.seed = 42;
    c.length_scale = 3;
    c.coordinates = VGS_PLAIN;
    c.energy_max = kind == 1 ? 100.0f : 0.0f;
    c.replay = kind == 0 ? 2 : kind == 1;
    c.slope_loss = kind == 1;
    c.explicit_drift = kind == 2;
    c.net.hidden = 12;
    c.net.time_dim = 8;
    c.net.kind = kind == 0   ? VGS_NET_MLP
                 : kind == 1 ? VGS_NET_EGNN
                 : kind == 2 ? VGS_NET_DEEPERV3
                             : VGS_NET_TEMB;
    c.net.wrapper = kind == 2 ? VGS_WRAPPER_RECIPROCAL : VGS_WRAPPER_NONE;
    c.alpha = kind == 3 ? VGS_VP : VGS_VE;
    c.net.move_coordinates = kind == 1;
    c.threads = 1;
    return c;
}

static vgs_sampler *trained(const vgs_config *c, int n)
{
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    if (!CHECK(s && vgs_sampler_train(s, n, NULL, &err) == VGS_OK, "%s", err.msg)) exit(t_end());
    return s;
}

/* Hash of everything learned and of 100 samples. */
static uint64_t hash_of(vgs_sampler *s)
{
    size_t p = (size_t)vgs_model_size(s->target), d = (size_t)s->c.energy.dim;
    float *w = (float *)malloc((p > 100 * d ? p : 100 * d) * sizeof *w), s0;
    vgs_buffer *all[4];
    int k;
    all[0] = s->online->w, all[1] = s->target->w, all[2] = s->online->adam_m, all[3] = s->online->adam_v;
    hash = 14695981039346656037u;
    for (k = 0; k < 4; ++k) {
        OK(s->b->download(s->b->self, w, all[k], 0, p, VGS_F32, NULL) == VGS_OK);
        add(w, p * 4);
    }
    for (k = 0; k < 4; ++k) {
        OK(s->b->download(s->b->self, &s0, s->sigma, (size_t)(16 * k), 1, VGS_F32, NULL) == VGS_OK);
        if (k != 1) add(&s0, 4);
    }
    OK(vgs_sampler_draw(s, NULL, 100, w, NULL) == VGS_OK);
    add(w, 100 * d * 4);
    free(w);
    return hash;
}

static void threads(void)
{
#ifdef _OPENMP
    int kind, n;
    for (kind = 0; kind < 4; ++kind) {
        vgs_config c = config_of(kind);
        uint64_t first = 0;
        c.batch = 200;
        for (n = 1; n < 4; ++n) {
            vgs_sampler *s;
            c.threads = n;
            s = trained(&c, 3);
            T_IN("kind %d, %d threads", kind, n);
            if (n == 1) first = hash_of(s); else OK(hash_of(s) == first);
            vgs_sampler_free(s);
        }
    }
#else
    vgs_error err = { VGS_OK, "" };
    vgs_config c = config_of(0);
    c.threads = 2;
    OK(!vgs_sampler_create(&c, &err) && strstr(err.msg, "-fopenmp"));
#endif
}

/* A draw in parts, one row at a time, in any order. */
static void split_draws(void)
{
    static float all[700][8], part[700][8];
    int kind, i, n;
    for (kind = 0; kind < 4; ++kind) {
        vgs_config c = config_of(kind);
        vgs_sampler *s = trained(&c, 2);
        vgs_draw d;
        int dim = c.energy.dim;
        memset(&d, 0, sizeof d);
        T_IN("kind %d", kind);
        OK(!vgs_sampler_draw(s, NULL, 700, all[0], NULL));
        for (i = 0; i < 700; i += n) {
            n = i < 5 ? 1 : i < 128 ? 41 : 530;
            if (n > 700 - i) n = 700 - i;
            d.first_row = (uint32_t)i;
            OK(!vgs_sampler_draw(s, &d, n, part[0] + i * dim, NULL));
        }
        OK(!memcmp(all, part, (size_t)(700 * dim) * sizeof(float)));
        vgs_sampler_free(s);
    }
}

/* Trainings in one call or many, with draws and statistics between them. */
static void split_training(void)
{
    vgs_config c = config_of(0);
    vgs_sampler *a = trained(&c, 6), *b = trained(&c, 2);
    vgs_stats stats;
    float x[20];
    OK(!vgs_sampler_draw(b, NULL, 10, x, NULL) && !vgs_sampler_train(b, 0, &stats, NULL));
    OK(!vgs_sampler_train(b, 1, &stats, NULL) && !vgs_sampler_train(b, 3, &stats, NULL) &&
       stats.iteration == 6);
    OK(hash_of(a) == hash_of(b));
    vgs_sampler_free(a);
    vgs_sampler_free(b);
    c.seed = 43;
    b = trained(&c, 6);
    c.seed = 42;
    a = trained(&c, 6);
    OK(hash_of(a) != hash_of(b));
    vgs_sampler_free(a);
    vgs_sampler_free(b);
}

#ifndef VGS_NO_STDIO
static long read_all(const char *path, unsigned char *data, long most)
{
    FILE *f = fopen(path, "rb");
    long n = f ? (long)fread(data, 1, (size_t)most, f) : -1;
    if (f) fclose(f);
    return n;
}

/* Train 6; or train 3, save, load into a new sampler, train 3: one state, one checkpoint, byte by byte. */
static void resume(void)
{
    static unsigned char one[1 << 18], two[1 << 18];
    int kind;
    for (kind = 0; kind < 4; ++kind) {
        vgs_config c = config_of(kind), from_file;
        vgs_error err = { VGS_OK, "" };
        vgs_sampler *a = trained(&c, 6), *b = trained(&c, 3), *again;
        int count = 0;
        float x[4][8];
        long n;
        T_IN("kind %d", kind);
        CHECK(!vgs_sampler_save(b, "repro_resume.safetensors", NULL, &err), "%s", err.msg);
        memset(&from_file, 0, sizeof from_file);
        from_file.energy = c.energy;
        from_file.threads = 1;
        CHECK(!vgs_checkpoint_config("repro_resume.safetensors", &from_file, &count, &err) && count > 30,
              "%s", err.msg);
        again = vgs_sampler_create(&from_file, &err);
        OK(again && !vgs_sampler_draw(again, NULL, 4, x[0], NULL));  /* tables of the old weights      */
        CHECK(again && !vgs_sampler_load(again, "repro_resume.safetensors", &err), "%s", err.msg);
        OK(hash_of(again) == hash_of(b));
        OK(!vgs_sampler_train(again, 3, NULL, NULL) && vgs_sampler_iteration(again) == 6);
        OK(hash_of(again) == hash_of(a));
        OK(!vgs_sampler_save(a, "repro_one.safetensors", NULL, NULL) &&
           !vgs_sampler_save(again, "repro_two.safetensors", NULL, NULL));
        n = read_all("repro_one.safetensors", one, sizeof one);
        CHECK(n > 1000 && n < (long)sizeof one && read_all("repro_two.safetensors", two, sizeof two) == n &&
                  !memcmp(one, two, (size_t)n),
              "the checkpoints differ (%ld bytes)", n);
        vgs_sampler_free(a);
        vgs_sampler_free(b);
        vgs_sampler_free(again);
    }
    remove("repro_resume.safetensors");
    remove("repro_one.safetensors");
    remove("repro_two.safetensors");
}
#endif

static void golden_hash(void)
{
    uint64_t all = 0;
    int kind;
    for (kind = 0; kind < 4; ++kind) {
        vgs_config c = config_of(kind);
        vgs_sampler *s = trained(&c, kind == 0 ? 20 : 5);
        all = all * 31 + hash_of(s);
        vgs_sampler_free(s);
    }
    if (t_argc > 1)
        printf("hash 0x%08lx%08lxu\n", (unsigned long)(all >> 32), (unsigned long)(all & 0xFFFFFFFFu));
#ifdef VGS_PORTABLE
    CHECK(all == GOLDEN_HASH, "hash 0x%08lx%08lx: were the numbers meant to change?",
          (unsigned long)(all >> 32), (unsigned long)(all & 0xFFFFFFFFu));
#endif
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(threads);
    RUN(split_draws);
    RUN(split_training);
#ifndef VGS_NO_STDIO
    RUN(resume);
#endif
    RUN(golden_hash);
    return t_end();
}
