/* cc -O2 tests/checkpoint.c -o checkpoint -lm && ./checkpoint
   Checkpoints: round trip; every truncation and every flipped bit is refused and changes nothing; a
   state_dict written by Python or by hand loads; what does not fit is named; files of before go on, in the
   portable build (-DVGS_PORTABLE -ffp-contract=off) bit for bit. */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#include "../examples/targets.h"
#include "t.h"
#include "vectors/before.h"
#include "vectors/checkpoint.h"
#include <stdlib.h>

#define PATH "checkpoint.safetensors"

static vgs_error err;

static vgs_config config_of(void)
{
    vgs_config c;
    memset(&c, 0, sizeof c);
    c.energy = target_energy(target_find("four-gauss"));
    c.net.kind = VGS_NET_DEEPERV2;
    c.net.hidden = 2;
    c.net.time_dim = 4;
    c.steps = 3;
    c.batch = 4;
    c.s2_start = 0.3f;
    c.s2_end = 0.1f;
    c.sigma_lr = 1e-2f;
    c.seed = 5;
    return c;
}

static vgs_sampler *create(const vgs_config *c)
{
    vgs_sampler *s = vgs_sampler_create(c, &err);
    if (!CHECK(s != NULL, "%s", err.msg)) exit(t_end());
    return s;
}

/* Everything a checkpoint holds, as one array. */
typedef struct state { float x[512]; size_t n; int64_t iteration, adam, sigma; double calls; } state;

static void get_state(const vgs_sampler *s, state *out)
{
    vgs_buffer *all[4];
    size_t p = (size_t)vgs_model_size(s->target), t = (size_t)s->c.steps;
    int k;
    memset(out, 0, sizeof *out);
    all[0] = s->target->w, all[1] = s->online->w, all[2] = s->online->adam_m, all[3] = s->online->adam_v;
    for (k = 0; k < 4; ++k, out->n += p)
        s->b->download(s->b->self, out->x + out->n, all[k], 0, p, VGS_F32, NULL);
    for (k = 0; k < 4; ++k)
        if (k != 1)
            s->b->download(s->b->self, out->x + out->n++, s->sigma, (size_t)(16 * k), 1, VGS_F32, NULL);
    for (k = 0; k < (int)t; ++k) { out->x[out->n++] = s->s2[k]; out->x[out->n++] = s->a[k]; }
    s->b->download(s->b->self, out->x + out->n, s->factor, 0, vgs__sampler_factor_count(s), VGS_F32, NULL);
    out->n += vgs__sampler_factor_count(s);
    out->iteration = s->iteration, out->adam = s->online->step, out->sigma = s->sigma_step,
    out->calls = s->energy_calls;
}

static bool same(const state *a, const state *b)
{
    return a->n == b->n && !memcmp(a->x, b->x, a->n * sizeof *a->x) && a->iteration == b->iteration &&
           a->adam == b->adam && a->sigma == b->sigma && a->calls == b->calls;
}

static void round_trip(void)
{
    const float nan = NAN;
    static const char *const meta[] = { "note", "caf\xc3\xa9 \"x\"", "run", "17", NULL };
    static const char *const taken[] = { "steps", "3", NULL }, *const ours[] = { "vgs.other", "9", NULL };
    vgs_config c = config_of(), read;
    vgs_sampler *a = create(&c), *b;
    vgs_safetensors *f;
    state was, is;
    int count = -1;
    OK(!vgs_sampler_train(a, 3, NULL, &err));
    get_state(a, &was);
    CHECK(!vgs_sampler_save(a, PATH, meta, &err), "%s", err.msg);
    get_state(a, &is);
    OK(same(&was, &is) && was.n < 500);
    c.seed = 6;
    b = create(&c);
    get_state(b, &is);
    OK(!same(&was, &is));
    CHECK(!vgs_sampler_load(b, PATH, &err), "%s", err.msg);
    get_state(b, &is);
    OK(same(&was, &is) && vgs_sampler_iteration(b) == 3);
    memset(&read, 0, sizeof read);
    OK(!vgs_checkpoint_config(PATH, &read, &count, &err) && count > 30);
    OK(read.seed == 5 && read.steps == 3 && read.net.hidden == 2 && read.net.kind == VGS_NET_DEEPERV2 &&
       read.s2_start == 0.3f);
    f = vgs_safetensors_open(PATH, &err);
    if (CHECK(f != NULL, "%s", err.msg)) {
        OK(vgs_safetensors_has_checksum(f) && !strcmp(vgs_safetensors_meta(f, "note"), meta[1]) &&
           !strcmp(vgs_safetensors_meta(f, "run"), "17"));
        OK(vgs_safetensors_find(f, "value.fc1.weight") && vgs_safetensors_find(f, "value_on.fc4.bias") &&
           vgs_safetensors_find(f, "init_sigma"));
        OK(vgs_safetensors_find(f, "s2")->count == 3 && vgs_safetensors_find(f, "init_sigma")->ndim == 0);
        vgs_safetensors_free(f);
    }
    CHECK(vgs_sampler_save(a, PATH ".no", taken, &err) != VGS_OK, "a field's name was taken as a key");
    CHECK(vgs_sampler_save(a, PATH ".no", ours, &err) != VGS_OK, "a vgs. key was taken");
    remove(PATH ".no");
    OK(vgs_sampler_save(a, "no/such/folder/x", NULL, &err) == VGS_E_IO &&
       vgs_sampler_load(a, "no_such_file", &err) == VGS_E_IO);
    OK(vgs_checkpoint_config("no_such_file", &read, &count, &err) == VGS_E_IO);
    a->b->upload(a->b->self, a->online->w, 3, &nan, 1, VGS_F32, NULL);   /* could not be loaded again      */
    OK(vgs_sampler_save(a, PATH ".no", NULL, &err) == VGS_E_NONFINITE && !fopen(PATH ".no", "rb") &&
       vgs_model_save(a->online, PATH ".no", &err) == VGS_E_NONFINITE && strstr(err.msg, "weights[3]"));
    vgs_sampler_free(a);
    vgs_sampler_free(b);
}

/* A network of which an optional field decides the arrays comes back from what the file says of it. */
static void windows_round_trip(void)
{
    vgs_config c = config_of(), read;
    vgs_sampler *a, *b;
    state was, is;
    c.net.kind = VGS_NET_MLP;
    c.net.windows = 3;
    c.net.x_scale = 0.75f;
    a = create(&c);
    OK(!vgs_sampler_train(a, 2, NULL, &err));
    get_state(a, &was);
    CHECK(!vgs_sampler_save(a, PATH, NULL, &err), "%s", err.msg);
    memset(&read, 0, sizeof read);
    OK(!vgs_checkpoint_config(PATH, &read, NULL, &err));
    OK(read.net.kind == VGS_NET_MLP && read.net.windows == 3 && read.net.x_scale == 0.75f);
    read.energy = c.energy;
    b = create(&read);
    CHECK(!vgs_sampler_load(b, PATH, &err), "%s", err.msg);
    get_state(b, &is);
    OK(same(&was, &is) && was.n < 500);
    vgs_sampler_free(b);
    c.net.windows = 2;
    b = create(&c);
    CHECK(vgs_sampler_load(b, PATH, &err) != VGS_OK && strstr(err.msg, "fc1.weight"), "%s", err.msg);
    c.net.windows = 0;
    vgs_sampler_free(b);
    b = create(&c);
    CHECK(vgs_sampler_load(b, PATH, &err) != VGS_OK && strstr(err.msg, "value."), "%s", err.msg);
    vgs_sampler_free(b);
    vgs_sampler_free(a);
}

/* The bytes are no checkpoint: for the parser that the loader begins with, and, on disk, for the loader. */
static bool refused(vgs_sampler *s, const unsigned char *data, size_t n, bool on_disk)
{
    vgs_safetensors *f = vgs__st_parse(data, n, "memory", &err);
    bool ok = CHECK(!f && err.msg[0], "the parser took it");
    vgs_safetensors_free(f);
    if (!on_disk) return ok;
    t_write(PATH, data, n);
    return CHECK(vgs_sampler_load(s, PATH, &err) != VGS_OK && err.msg[0], "it was loaded") && ok;
}

/* The file as another program saves it: the tensors from last to first, all metadata, compact JSON. */
static void save_again(void)
{
    static char header[1 << 14];
    vgs_safetensors *f = vgs_safetensors_open(PATH, &err);
    vgs_file out;
    size_t n, at = 0;
    uint64_t padded;
    unsigned char length[8];
    int i, k;
    if (!CHECK(f != NULL, "%s", err.msg)) return;
    n = (size_t)sprintf(header, "{\"__metadata__\":{");
    for (i = 0; i < vgs_safetensors_meta_count(f); ++i)
        n += (size_t)sprintf(header + n, "%s\"%s\":\"%s\"", i ? "," : "", vgs_safetensors_meta_key(f, i),
                             vgs_safetensors_meta(f, vgs_safetensors_meta_key(f, i)));
    n += (size_t)sprintf(header + n, "}");
    for (i = vgs_safetensors_count(f) - 1; i >= 0; --i) {
        const vgs_file_tensor *t = vgs_safetensors_tensor(f, i);
        n += (size_t)sprintf(header + n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->dtype_name);
        for (k = 0; k < t->ndim; ++k)
            n += (size_t)sprintf(header + n, "%s%d", k ? "," : "", (int)t->shape[k]);
        n += (size_t)sprintf(header + n, "],\"data_offsets\":[%d,%d]}", (int)at, (int)(at + t->bytes));
        at += t->bytes;
    }
    n += (size_t)sprintf(header + n, "}");
    padded = (n + 7) / 8 * 8;
    for (k = 0; k < 8; ++k) length[k] = (unsigned char)(padded >> 8 * k);
    OK(vgs_file_begin(&out, PATH, &err) == VGS_OK);
    fwrite(length, 1, 8, out.stream);
    fprintf(out.stream, "%-*s", (int)padded, header);
    for (i = vgs_safetensors_count(f) - 1; i >= 0; --i) {
        const vgs_file_tensor *t = vgs_safetensors_tensor(f, i);
        fwrite(t->data, 1, t->bytes, out.stream);
    }
    OK(vgs_file_commit(&out, &err) == VGS_OK);
    vgs_safetensors_free(f);
}

static void saved_again(void)
{
    vgs_config c = config_of(), read;
    vgs_sampler *a = create(&c), *b;
    state was, is;
    int count = 0;
    OK(!vgs_sampler_train(a, 2, NULL, &err) && !vgs_sampler_save(a, PATH, NULL, &err));
    get_state(a, &was);
    save_again();
    memset(&read, 0, sizeof read);
    CHECK(!vgs_checkpoint_config(PATH, &read, &count, &err) && count > 30, "%s", err.msg);
    c.seed = 6;
    b = create(&c);
    CHECK(!vgs_sampler_load(b, PATH, &err), "%s", err.msg);
    get_state(b, &is);
    OK(same(&was, &is));
    vgs_sampler_free(a);
    vgs_sampler_free(b);
}

/* Every prefix of the file, and the file with every single bit flipped. */
static void damage(void)
{
    static unsigned char data[1 << 16];
    vgs_config c = config_of();
    vgs_sampler *a = create(&c), *b;
    state was, is;
    size_t n, i;
    int bit;
    OK(!vgs_sampler_train(a, 1, NULL, NULL) && !vgs_sampler_save(a, PATH, NULL, NULL));
    n = t_read(PATH, data, sizeof data);
    OK(n > 1000 && n < sizeof data);
    c.seed = 7;
    b = create(&c);
    get_state(b, &was);
    for (i = 0; i < n; ++i) {                    /* all in memory, some on disk as well               */
        T_IN("cut to %d bytes", (int)i);
        if (!refused(b, data, i, i % 13 == 0)) break;
    }
    for (i = 0; i < n; ++i)
        for (bit = 0; bit < 8; ++bit) {
            data[i] = (unsigned char)(data[i] ^ 1 << bit);
            T_IN("bit %d of byte %d flipped", bit, (int)i);
            if (!refused(b, data, n, (i + (size_t)bit) % 29 == 0)) i = n - 1, bit = 7;
            data[i] = (unsigned char)(data[i] ^ 1 << bit);
        }
    get_state(b, &is);
    t_place[0] = 0;
    OK(same(&was, &is));
    t_write(PATH, data, n);
    OK(vgs_sampler_load(b, PATH, &err) == VGS_OK);
    vgs_sampler_free(a);
    vgs_sampler_free(b);
}

/* ---- files of others ---------------------------------------------------------------------------------- */

typedef struct recipe {                          /* what is left out or bent                          */
    const char *name, *without, *bent, *meta_key, *meta_value;
    bool online, schedule, moments, nan, negative;
    int steps;
    vgs_status code;
    const char *says;
} recipe;

static void write_tensor(vgs_writer *w, const recipe *r, const char *name, int rows, int cols, float *x)
{
    uint64_t shape[2];
    int ndim = rows ? 2 : cols ? 1 : 0;
    shape[0] = (uint64_t)(rows ? rows : cols);
    shape[1] = (uint64_t)cols;
    if (r->without && !strcmp(r->without, name)) return;
    if (r->bent && !strcmp(r->bent, name)) {
        if (r->nan) x[0] = (float)NAN;
        else if (r->negative) x[0] = -1;
        else shape[ndim - 1]--;
    }
    vgs_writer_tensor(w, name, VGS_DTYPE_F32, ndim, shape, x);
}

static void write_weights(vgs_writer *w, const recipe *r, const vgs_model *net, const char *prefix, float *x)
{
    char name[96];
    const vgs_param_info *p;
    int i;
    for (i = 0; (p = vgs_model_param(net, i)) != NULL; ++i) {
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        write_tensor(w, r, name, p->rows, p->cols, x + p->offset);
    }
}

static vgs_status write_recipe(const recipe *r, const vgs_model *net)
{
    static float x[256], y[256], m[256], v[256], s2[8], a[8], s0, moments[2];
    vgs_writer *w = vgs_writer_create(&err);
    vgs_status st;
    int i, t = r->steps ? r->steps : 3;
    for (i = 0; i < 256; ++i) { x[i] = 0.01f * (float)i; y[i] = -x[i]; m[i] = 0.5f; v[i] = 0.25f; }
    for (i = 0; i < 8; ++i) { s2[i] = 0.1f + 0.01f * (float)i; a[i] = 1; }
    s0 = 1.5f;
    moments[0] = moments[1] = 0.125f;
    write_weights(w, r, net, "value.", x);
    if (r->online || r->moments) write_weights(w, r, net, "value_on.", y);
    if (r->schedule || r->moments) {
        write_tensor(w, r, "s2", 0, t, s2);
        write_tensor(w, r, "alpha", 0, t, a);
    }
    write_tensor(w, r, "init_sigma", 0, 0, &s0);
    if (r->moments) {
        write_tensor(w, r, "vgs.adam_m", 0, vgs_model_size(net), m);
        write_tensor(w, r, "vgs.adam_v", 0, vgs_model_size(net), v);
        write_tensor(w, r, "vgs.sigma_moments", 0, 2, moments);
    }
    if (r->meta_key) vgs_writer_meta(w, r->meta_key, r->meta_value);
    st = vgs_writer_save(w, PATH, &err);
    vgs_writer_free(w);
    return st;
}

static void made_by_hand(void)
{
    static const recipe list[] = {
        /* name, without, bent, key, value, online, schedule, moments, nan, negative, steps, code, says */
        {"weights alone", 0, 0, 0, 0, false, false, false, false, false, 0, VGS_OK, ""},
        {"both networks", 0, 0, 0, 0, true, true, false, false, false, 0, VGS_OK, ""},
        {"with moments", 0, 0, 0, 0, true, true, true, false, false, 0, VGS_OK, ""},
        {"no weight", "value.fc2.weight", 0, 0, 0, true, true, false, false, false, 0, VGS_E_FORMAT,
         "value.fc2.weight"},
        {"no online bias", "value_on.fc3.bias", 0, 0, 0, true, true, false, false, false, 0, VGS_E_FORMAT,
         "value_on.fc3.bias"},
        {"no s0", "init_sigma", 0, 0, 0, true, true, false, false, false, 0, VGS_E_FORMAT, "init_sigma"},
        {"no s2 but moments", "s2", 0, 0, 0, true, true, true, false, false, 0, VGS_E_FORMAT, "s2"},
        {"no second moments", "vgs.adam_v", 0, 0, 0, true, true, true, false, false, 0, VGS_E_FORMAT,
         "vgs.adam_v"},
        {"wrong weight", 0, "value.fc1.weight", 0, 0, true, true, false, false, false, 0, VGS_E_SHAPE,
         "value.fc1.weight is [2,5], the network needs [2,6]"},
        {"wrong bias", 0, "value.fc1.bias", 0, 0, true, true, false, false, false, 0, VGS_E_SHAPE,
         "value.fc1.bias is [1], the network needs [2]"},
        {"wrong moments", 0, "vgs.adam_m", 0, 0, true, true, true, false, false, 0, VGS_E_SHAPE,
         "vgs.adam_m"},
        {"wrong T", 0, 0, 0, 0, true, true, false, false, false, 4, VGS_E_SHAPE, "s2"},
        {"NaN weight", 0, "value.fc2.weight", 0, 0, true, true, false, true, false, 0, VGS_E_NONFINITE,
         "value["},
        {"NaN online weight", 0, "value_on.fc1.weight", 0, 0, true, true, false, true, false, 0,
         VGS_E_NONFINITE, "value_on["},
        {"NaN s2", 0, "s2", 0, 0, true, true, false, true, false, 0, VGS_E_NONFINITE, "s2[0]"},
        {"negative s2", 0, "s2", 0, 0, true, true, false, false, true, 0, VGS_E_NONFINITE, "s2[0] = -1"},
        {"negative alpha", 0, "alpha", 0, 0, true, true, false, false, true, 0, VGS_E_NONFINITE,
         "alpha[0] = -1"},
        {"negative s0", 0, "init_sigma", 0, 0, true, true, false, false, true, 0, VGS_E_NONFINITE,
         "init_sigma"},
        {"NaN first moment", 0, "vgs.adam_m", 0, 0, true, true, true, true, false, 0, VGS_E_NONFINITE,
         "adam_m"},
        {"NaN second moment", 0, "vgs.adam_v", 0, 0, true, true, true, true, false, 0, VGS_E_NONFINITE,
         "adam_v"},
        {"negative second moment", 0, "vgs.adam_v", 0, 0, true, true, true, false, true, 0, VGS_E_FORMAT,
         "adam_v"},
        {"NaN moment of s0", 0, "vgs.sigma_moments", 0, 0, true, true, true, true, false, 0, VGS_E_NONFINITE,
         "sigma_moments"},
        {"negative count", 0, 0, "vgs.iteration", "-1", true, true, true, false, false, 0, VGS_E_FORMAT,
         "vgs.iteration"},
        {"count is no number", 0, 0, "vgs.adam_step", "many", true, true, true, false, false, 0, VGS_E_FORMAT,
         "vgs.adam_step"}};
    size_t i;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        const recipe *r = &list[i];
        vgs_config c = config_of();
        vgs_sampler *s = create(&c);
        state was, is;
        vgs_status st;
        T_IN("%s", r->name);
        OK(write_recipe(r, s->target) == VGS_OK);
        get_state(s, &was);
        memset(&err, 0, sizeof err);
        st = vgs_sampler_load(s, PATH, &err);
        get_state(s, &is);
        CHECK(st == r->code && err.code == r->code && strstr(err.msg, r->says), "%s: %s", vgs_status_name(st),
              err.msg);
        CHECK(r->code == VGS_OK ? !same(&was, &is) : same(&was, &is), "the sampler's state");
        if (r->code == VGS_OK) {
            size_t p = (size_t)vgs_model_size(s->target);
            OK(is.x[1] == 0.01f && is.x[p + 1] == (r->online ? -0.01f : 0.01f) && is.x[4 * p] == 1.5f);
            OK(is.x[2 * p] == (r->moments ? 0.5f : 0.0f) &&
               s->s2[0] == (r->schedule ? 0.1f : was.x[4 * p + 3]));
        }
        CHECK(vgs_sampler_train(s, 1, NULL, &err) == VGS_OK, "%s", err.msg);     /* it can still be used */
        vgs_sampler_free(s);
    }
}

/* The file that vectors/gen/checkpoint.py made: no metadata of ours, value_on too, VP, init_sigma [1]. */
static void made_by_python(void)
{
    vgs_config c = config_of(), read;
    vgs_sampler *s;
    state is;
    float x[2] = { 0.5f, -0.25f };
    int count = -1, i;
    size_t p;
    c.net.kind = VGS_NET_TEMB;
    c.alpha = VGS_VP;
    s = create(&c);
    p = (size_t)vgs_model_size(s->target);
    t_write(PATH, checkpoint_file, sizeof checkpoint_file);
    CHECK(vgs_sampler_load(s, PATH, &err) == VGS_OK, "%s", err.msg);
    get_state(s, &is);
    OK(p == CHECKPOINT_P);
    for (i = 0; i < CHECKPOINT_P; ++i)
        if (!CHECK(is.x[i] == checkpoint_value[i] && is.x[p + (size_t)i] == checkpoint_value_on[i],
                   "weight %d", i))
            break;
    for (i = 0; i < 3; ++i) OK(s->s2[i] == checkpoint_s2[i] && s->a[i] == checkpoint_alpha[i]);
    OK(is.x[4 * p] == checkpoint_s0 && vgs_sampler_iteration(s) == 0);
    memset(&read, 0, sizeof read);
    OK(vgs_checkpoint_config(PATH, &read, &count, &err) == VGS_OK && count == 0);
    OK(vgs_sampler_draw(s, NULL, 1, x, &err) == VGS_OK);
    vgs_sampler_free(s);
}

/* ---- files of before ---------------------------------------------------------------------------------- */

static void write_before(const char *header, const uint32_t *data, size_t words)
{
    unsigned char file[8192];
    size_t n = strlen(header), i;
    memset(file, 0, 8);
    for (i = 0; i < 4; ++i) file[i] = (unsigned char)(n >> 8 * i);
    memcpy(file + 8, header, n);
    for (i = 0; i < 4 * words; ++i) file[8 + n + i] = (unsigned char)(data[i / 4] >> i % 4 * 8);
    t_write(PATH, file, 8 + n + 4 * words);
}

/* FNV-1a of the bytes of all tensors by name, and how many words they are. */
static uint64_t hash_of_file(size_t *words)
{
    uint64_t h = 14695981039346656037u;
    vgs_safetensors *f = vgs_safetensors_open(PATH, &err);
    int i;
    size_t k;
    *words = 0;
    if (!CHECK(f != NULL, "%s", err.msg)) return 0;
    for (i = 0; i < vgs_safetensors_count(f); ++i) {
        const vgs_file_tensor *t = vgs_safetensors_tensor(f, i);
        for (k = 0; k < t->bytes; ++k) h = (h ^ ((const unsigned char *)t->data)[k]) * 1099511628211u;
        *words += t->bytes / 4;
    }
    vgs_safetensors_free(f);
    return h;
}

/* A file of 2 iterations, loaded, saved again as it was, and trained for 3 more as its program did. */
static void goes_on(const char *name, const char *header, const uint32_t *data, size_t words,
                    const uint32_t *value, uint64_t hash)
{
    vgs_config c;
    vgs_sampler *s;
    float w[64], want;
    uint64_t was;
    size_t n, i;
    int count = 0;
    T_IN("of before: %s", name);
    write_before(header, data, words);
    was = hash_of_file(&n);
    OK(n == words);
    memset(&c, 0, sizeof c);
    CHECK(!vgs_checkpoint_config(PATH, &c, &count, &err) && count > 30, "%d fields: %s", count, err.msg);
    OK(c.published == (c.net.kind == VGS_NET_TEMB) && c.fixed_kernel == c.published && c.batch == 4);
    c.energy = target_energy(target_find(name));
    c.threads = 1;
    s = create(&c);
    CHECK(!vgs_sampler_load(s, PATH, &err) && vgs_sampler_iteration(s) == 2, "%s", err.msg);
    CHECK(!vgs_sampler_save(s, PATH, NULL, &err) && hash_of_file(&n) == was && n == words, "%s", err.msg);
    CHECK(!vgs_sampler_train(s, 3, NULL, &err), "%s", err.msg);
    OK(vgs_model_size(s->target) <= 64 && !vgs_model_read(s->target, w, &err));
    for (i = 0; i < (size_t)vgs_model_size(s->target); ++i) {
        memcpy(&want, &value[i], sizeof want);
        CHECK_NEAR(w[i], want, 1e-5, 1e-6);
    }
    OK(!vgs_sampler_save(s, PATH, NULL, &err));
    was = hash_of_file(&n);
#ifdef VGS_PORTABLE
    CHECK(was == hash, "the bits are others");
#else
    (void)hash;
#endif
    vgs_sampler_free(s);
}

static void of_before(void)
{
#define GOES_ON(target, which)                                                                        \
    goes_on(target, before_##which##_header, before_##which##_data,                                   \
            sizeof before_##which##_data / 4, before_##which##_value, before_##which##_hash)
    GOES_ON("gmm9", ours);
    GOES_ON("four-gauss", paper);
#undef GOES_ON
}

/* Switches of before that were used in another way than `published` has them: the file's configuration would
   mean something else. */
static void switches_of_before(void)
{
    static const struct { const char *meta[16]; const char *says;        /* NULL: it is read          */
    } list[] = {
        {{"one_step", "0", "no_base", "0", "value", "mlp"}, NULL},
        {{"one_step", "0", "no_base", "1", "value", "mlp"}, "no_base = 1 with one_step = 0"},
        {{"one_step", "0", "no_base", "1", "value", "temb"}, NULL},
        {{"one_step", "1", "value", "temb"}, "without fixed_kernel"},
        {{"one_step", "1", "fixed_kernel", "1", "value", "temb"}, "without fixed_kernel"},
        {{"one_step", "1", "fixed_kernel", "1", "explicit_drift", "1", "value", "temb"}, NULL},
        {{"one_step", "1", "fixed_kernel", "1", "explicit_drift", "1", "value", "egnn"},
         "no_base = 0 with one_step = 1"},
        {{"one_step", "1", "fixed_kernel", "1", "explicit_drift", "1", "value", "mlp", "no_base", "1"}, NULL},
        {{"one_step", "0", "unclamped_drift", "1", "energy_max", "9"},
         "unclamped_drift = 1 with one_step = 0"},
        {{"one_step", "0", "unclamped_drift", "1", "energy_max", "0"}, NULL},
        {{"one_step", "1", "fixed_kernel", "1", "explicit_drift", "1", "value", "temb", "energy_max", "9",
          "grad_max", "1"}, "unclamped_drift = 0 with one_step = 1"},
        {{"one_step", "1", "fixed_kernel", "1", "explicit_drift", "1", "value", "temb", "energy_max", "9",
          "grad_max", "1", "unclamped_drift", "1"}, NULL},
        {{"one_step", "0", "skip_final_noise", "1"}, "skip_final_noise = 1"},
        {{"published", "1", "value", "mlp"}, NULL}};
    size_t i;
    int k;
    for (i = 0; i < sizeof list / sizeof *list; ++i) {
        static const float x = 1;
        vgs_writer *w = vgs_writer_create(&err);
        vgs_config c, empty;
        vgs_status st;
        T_IN("switches %d", (int)i);
        vgs_writer_tensor(w, "x", VGS_DTYPE_F32, 0, NULL, &x);
        for (k = 0; k < 16 && list[i].meta[k]; k += 2)
            vgs_writer_meta(w, list[i].meta[k], list[i].meta[k + 1]);
        OK(vgs_writer_save(w, PATH, &err) == VGS_OK);
        vgs_writer_free(w);
        memset(&c, 0, sizeof c);
        memset(&empty, 0, sizeof empty);
        memset(&err, 0, sizeof err);
        st = vgs_checkpoint_config(PATH, &c, NULL, &err);
        if (!list[i].says) CHECK(st == VGS_OK, "%s", err.msg);
        else CHECK(st == VGS_E_FORMAT && strstr(err.msg, list[i].says) && !memcmp(&c, &empty, sizeof c),
                   "%s: %s", vgs_status_name(st), err.msg);
    }
}

int main(int argc, char **argv)
{
    t_begin(argc, argv);
    RUN(round_trip);
    RUN(windows_round_trip);
    RUN(saved_again);
    RUN(damage);
    RUN(made_by_hand);
    RUN(made_by_python);
    RUN(of_before);
    RUN(switches_of_before);
    remove(PATH);
    return t_end();
}
