/* efficientnet.h - EfficientNet B0..B7 and Lite0..Lite4 as an extractor of features: from the state_dict of
   efficientnet_pytorch, timm or torchvision in a .safetensors file, cut after the last block in use, batch
   norms folded into the weights (in double). Include it after settings.h.

   The three write other names for the same network, and pad, normalise and centre in other ways; a wrong
   choice gives wrong features without a word. Names tell efficientnet_pytorch, timm and torchvision apart;
   within timm they do not tell tf_efficientnet (--padding same) from efficientnet (--padding symmetric): that
   is asked. */
#ifndef EFFICIENTNET_H
#define EFFICIENTNET_H

enum { NET_BLOCKS = 64, NET_STAGES = 7, NET_LISTED = 8, NET_USED = 2 * NET_LISTED,
       NET_ARRAYS = NET_BLOCKS * 10 + 2 };

typedef struct net_kind { const char *name; double width, depth; int native; bool lite; } net_kind;
static const net_kind net_kinds[] = {
    { "b0", 1.0, 1.0, 224, false }, { "b1", 1.0, 1.1, 240, false }, { "b2", 1.1, 1.2, 260, false },
    { "b3", 1.2, 1.4, 300, false }, { "b4", 1.4, 1.8, 380, false }, { "b5", 1.6, 2.2, 456, false },
    { "b6", 1.8, 2.6, 528, false }, { "b7", 2.0, 3.1, 600, false }, { "lite0", 1.0, 1.0, 224, true },
    { "lite1", 1.0, 1.1, 240, true }, { "lite2", 1.1, 1.2, 260, true }, { "lite3", 1.2, 1.4, 280, true },
    { "lite4", 1.4, 1.8, 300, true }
};
enum { NET_KINDS = (int)(sizeof net_kinds / sizeof *net_kinds) };

typedef struct net_block { int in, hidden, out, size, stride, squeeze, stage, place; bool expand; } net_block;

typedef enum net_padding { PAD_SAME, PAD_STATIC, PAD_SYMMETRIC } net_padding;
static const char *const padding_names[] = { "same", "static", "symmetric" };

typedef struct net_blocks { int n, at[NET_LISTED]; } net_blocks;     /* numbers, ascending               */

typedef struct net_plan {
    const net_kind *kind;
    int stem, n;             /* channels after the stem; blocks                                          */
    net_block block[NET_BLOCKS];
    net_blocks score, map;   /* whose outputs are features, of an image's score and of its map           */
    int used[NET_USED], n_used;                  /* both, ascending                                      */
    net_padding padding;
    bool imagenet;           /* input less ImageNet's mean over its deviation; else (x - .5)/.5          */
} net_plan;

/* ==== what the networks are ========================================================================= */

static inline int net_channels(double c, double width)
{
    int n = (int)(c * width + 4) / 8 * 8;
    if (n < 8) n = 8;
    return n < 0.9 * c * width ? n + 8 : n;
}

/* All blocks of a kind. */
static inline void net_list(const net_kind *kind, net_plan *p)
{
    static const int size[NET_STAGES] = { 3, 3, 5, 3, 5, 5, 3 }, stride[NET_STAGES] = { 1, 2, 2, 2, 1, 2, 1 };
    static const int channels[NET_STAGES] = { 16, 24, 40, 80, 112, 192, 320 }, repeat[NET_STAGES] = { 1, 2,
        2, 3, 3, 4, 1 };
    int in = p->stem = kind->lite ? 32 : net_channels(32, kind->width);
    p->kind = kind;
    p->n = 0;
    for (int s = 0; s < NET_STAGES; ++s) {
        bool fixed = kind->lite && (s == 0 || s == NET_STAGES - 1);
        int out = net_channels(channels[s], kind->width),
            count = fixed ? repeat[s] : (int)ceil(kind->depth * repeat[s]);
        for (int k = 0; k < count; ++k, in = out)
            p->block[p->n++] = (net_block){ in, s ? 6 * in : in, out, size[s], k ? 1 : stride[s],
                                            kind->lite ? 0 : in / 4, s, k, s > 0 };
    }
}

static inline int net_last_of_stage(const net_plan *p, int stage)
{
    int last = 0;
    for (int i = 0; i < p->n; ++i) if (p->block[i].stage == stage) last = i;
    return last;
}

/* The blocks of a flag; "": the last ones of its stages. */
static inline vgs_status net_listed(const net_plan *p, const char *flag, const char *text,
                                    const char *stages, net_blocks *b, vgs_error *err)
{
    char *end;
    b->n = 0;
    for (; !*text && *stages; ++stages) b->at[b->n++] = net_last_of_stage(p, *stages - '0');
    for (const char *at = text; *at; at = *end ? end + 1 : end) {
        long k = strtol(at, &end, 10);
        bool order = !b->n || k > b->at[b->n - 1];
        if (end == at || (*end && *end != ',') || k < 0 || k >= p->n || !order || b->n == NET_LISTED) {
            err->code = VGS_E_ARG;
            snprintf(err->msg, sizeof err->msg,
                     "%s %.60s: must be up to %d ascending numbers in 0..%d, as of %s", flag, text,
                     NET_LISTED, p->n - 1, p->kind->name);
            return err->code;
        }
        b->at[b->n++] = (int)k;
    }
    return VGS_OK;
}

static inline bool net_has(const net_blocks *b, int block)
{
    for (int i = 0; i < b->n; ++i) if (b->at[i] == block) return true;
    return false;
}

/* What the settings ask for; blocks behind the last of these are cut off. */
static inline vgs_status net_choose(net_plan *p, const settings *s, vgs_error *err)
{
    p->n_used = p->map.n = 0;
    if (net_listed(p, "--blocks", s->blocks, "45", &p->score, err) ||
        (map_of_scales(s) && net_listed(p, "--map-blocks", s->map_blocks, "1245", &p->map, err)))
        return err->code;
    for (int k = 0; k < p->n; ++k)
        if (net_has(&p->score, k) || net_has(&p->map, k)) p->used[p->n_used++] = k;
    p->n = p->used[p->n_used - 1] + 1;
    return VGS_OK;
}

static inline int net_features(const net_plan *p)
{
    int sum = 0;
    for (int i = 0; i < p->n_used; ++i) sum += p->block[p->used[i]].out;
    return sum;
}

/* ==== reading a state_dict ========================================================================== */

typedef enum net_origin { FROM_LUKEMELAS, FROM_TIMM, FROM_TORCHVISION } net_origin;

typedef struct net_source {
    const vgs_safetensors *file;
    const char *path;
    net_origin origin;
    double eps;
} net_source;

typedef enum net_layer { LAYER_EXPAND, LAYER_DEPTHWISE, LAYER_PROJECT, LAYER_REDUCE, LAYER_EXCITE } net_layer;

/* Names of a layer's convolution and of its batch norm (of squeeze and excitation: the same). */
static inline void net_names(const net_source *s, const net_block *b, int index, net_layer layer,
                             char conv[96], char norm[96])
{
    static const char *const lukemelas[][2] = {
        { "_expand_conv", "_bn0" }, { "_depthwise_conv", "_bn1" }, { "_project_conv", "_bn2" }, {
   "_se_reduce", "" }, { "_se_expand", "" } };
    static const char *const timm[][2] = {
        { "conv_pw", "bn1" }, { "conv_dw", "bn2" }, { "conv_pwl", "bn3" }, { "se.conv_reduce", "" },
            { "se.conv_expand", "" } };
    static const char *const timm_first[][2] = {
        { "", "" }, { "conv_dw", "bn1" }, { "conv_pw", "bn2" }, { "se.conv_reduce", "" },
            { "se.conv_expand", "" } };
    int at = b->expand, torch_at = layer == LAYER_EXPAND ? 0 : layer == LAYER_DEPTHWISE ? at
        : layer == LAYER_PROJECT ? at + 1 + (b->squeeze > 0) : at + 1;
    if (s->origin == FROM_LUKEMELAS) {
        snprintf(conv, 96, "_blocks.%d.%s", index, lukemelas[layer][0]);
        snprintf(norm, 96, "_blocks.%d.%s", index, lukemelas[layer][1]);
    } else if (s->origin == FROM_TIMM) {
        snprintf(conv, 96, "blocks.%d.%d.%s", b->stage, b->place, (b->expand ? timm : timm_first)[layer][0]);
        snprintf(norm, 96, "blocks.%d.%d.%s", b->stage, b->place, (b->expand ? timm : timm_first)[layer][1]);
    } else if (layer == LAYER_REDUCE || layer == LAYER_EXCITE) {
        snprintf(conv, 96, "features.%d.%d.block.%d.fc%d", b->stage + 1, b->place, torch_at,
                 layer == LAYER_REDUCE ? 1 : 2);
    } else {
        snprintf(conv, 96, "features.%d.%d.block.%d.0", b->stage + 1, b->place, torch_at);
        snprintf(norm, 96, "features.%d.%d.block.%d.1", b->stage + 1, b->place, torch_at);
    }
}

static inline vgs_status net_error(const net_source *s, const char *name, const char *what, vgs_error *err)
{
    err->code = VGS_E_FORMAT;
    snprintf(err->msg, sizeof err->msg, "%.100s: %.90s: %.50s", s->path, name, what);
    return err->code;
}

/* name.part of n numbers, in double */
static inline vgs_status net_read(const net_source *s, const char *name, const char *part, double *out,
                                  size_t n, vgs_error *err)
{
    char full[128];
    const vgs_file_tensor *t;
    char text[96];
    snprintf(full, sizeof full, "%.96s.%s", name, part);
    t = vgs_safetensors_find(s->file, full);
    if (!t) return net_error(s, full, "is not in the file", err);
    snprintf(text, sizeof text, "has %zu numbers, not %zu", t->count, n);
    if (t->count != n) return net_error(s, full, text, err);
    return vgs_safetensors_doubles(s->file, full, out, n, err);
}

/* A convolution [out, in, size, size] and its batch norm as weight [out, size size in] (depthwise, in = 1:
   [size size, out]) and bias [out]. */
static inline vgs_status net_fold(const net_source *s, const char *conv, const char *norm, int out, int in,
                                  int size,
                                  bool depthwise, float *weight, float *bias, vgs_error *err)
{
    size_t each = (size_t)in * (size_t)size * (size_t)size, n = (size_t)out;
    double *w = (double *)room_for(each * n + 4 * n, sizeof *w), *gain = w + each * n, *shift = gain + n;
    double *mean = shift + n, *var = mean + n;
    vgs_status st = net_read(s, conv, "weight", w, each * n, err);
    if (!st) st = net_read(s, norm, "weight", gain, n, err);
    if (!st) st = net_read(s, norm, "bias", shift, n, err);
    if (!st) st = net_read(s, norm, "running_mean", mean, n, err);
    if (!st) st = net_read(s, norm, "running_var", var, n, err);
    for (size_t o = 0; o < n && !st; ++o) {
        double scale = gain[o] / sqrt(var[o] + s->eps);
        if (!(scale - scale == 0)) st = net_error(s, norm, "a variance is negative or not finite", err);
        bias[o] = (float)(shift[o] - mean[o] * scale);
        for (size_t c = 0; c < (size_t)in; ++c)
            for (size_t k = 0; k < (size_t)(size * size); ++k) {
                float v = (float)(w[(o * (size_t)in + c) * (size_t)(size * size) + k] * scale);
                if (depthwise) weight[k * n + o] = v;
                else weight[o * each + k * (size_t)in + c] = v;
            }
    }
    free(w);
    return st;
}

static inline vgs_status net_plain(const net_source *s, const char *name, int out, int in, float *weight,
                                   float *bias, vgs_error *err)
{
    size_t n = (size_t)out * (size_t)in;
    double *w = (double *)room_for(n + (size_t)out, sizeof *w);
    vgs_status st = net_read(s, name, "weight", w, n, err);
    if (!st) st = net_read(s, name, "bias", w + n, (size_t)out, err);
    for (size_t i = 0; i < n && !st; ++i) weight[i] = (float)w[i];
    for (int i = 0; i < out && !st; ++i) bias[i] = (float)w[n + (size_t)i];
    free(w);
    return st;
}

/* The arrays of a plan under our own names, one after the other; returns how many. size: numbers in all. */
static inline int net_arrays(const net_plan *p, vgs_param_info *a, int *size)
{
    int n = 0, at = 0;
#define ARRAY(r, c, ...) \
    (snprintf(a[n].name, sizeof a[n].name, __VA_ARGS__), a[n].offset = at, a[n].rows = (r), a[n].cols = (c), \
     at += (r) * (c), ++n)
    ARRAY(p->stem, 27, "stem.weight"), ARRAY(1, p->stem, "stem.bias");
    for (int i = 0; i < p->n; ++i) {
        const net_block *b = p->block + i;
        if (b->expand) ARRAY(b->hidden, b->in, "%d.expand.weight", i), ARRAY(1, b->hidden,
            "%d.expand.bias", i);
        ARRAY(b->size * b->size, b->hidden, "%d.depthwise.weight", i), ARRAY(1, b->hidden,
            "%d.depthwise.bias", i);
        if (b->squeeze) {
            ARRAY(b->squeeze, b->hidden, "%d.reduce.weight", i), ARRAY(1, b->squeeze, "%d.reduce.bias", i);
            ARRAY(b->hidden, b->squeeze, "%d.excite.weight", i), ARRAY(1, b->hidden, "%d.excite.bias", i);
        }
        ARRAY(b->out, b->hidden, "%d.project.weight", i), ARRAY(1, b->out, "%d.project.bias", i);
    }
#undef ARRAY
    *size = at;
    return n;
}

/* All weights, in the order of net_arrays. */
static inline vgs_status net_weights(const net_source *s, const net_plan *p, const vgs_param_info *a,
                                     float *w, vgs_error *err)
{
    static const char *const stem[][2] = { { "_conv_stem", "_bn0" }, { "conv_stem", "bn1" },
                                          { "features.0.0", "features.0.1" } };
    char conv[96], norm[96];
    vgs_status st = net_fold(s, stem[s->origin][0], stem[s->origin][1], p->stem, 3, 3, false,
                             w + a[0].offset, w + a[1].offset, err);
    a += 2;
    for (int i = 0; i < p->n && !st; ++i) {
        const net_block *b = p->block + i;
        net_names(s, b, i, LAYER_EXPAND, conv, norm);
        if (b->expand) {
            st = net_fold(s, conv, norm, b->hidden, b->in, 1, false, w + a[0].offset, w + a[1].offset, err);
            a += 2;
        }
        net_names(s, b, i, LAYER_DEPTHWISE, conv, norm);
        if (!st) st = net_fold(s, conv, norm, b->hidden, 1, b->size, true, w + a[0].offset,
                               w + a[1].offset, err);
        a += 2;
        if (b->squeeze) {
            net_names(s, b, i, LAYER_REDUCE, conv, norm);
            if (!st) st = net_plain(s, conv, b->squeeze, b->hidden, w + a[0].offset, w + a[1].offset, err);
            net_names(s, b, i, LAYER_EXCITE, conv, norm);
            if (!st) st = net_plain(s, conv, b->hidden, b->squeeze, w + a[2].offset, w + a[3].offset, err);
            a += 4;
        }
        net_names(s, b, i, LAYER_PROJECT, conv, norm);
        if (!st) st = net_fold(s, conv, norm, b->out, b->hidden, 1, false, w + a[0].offset,
                               w + a[1].offset, err);
        a += 2;
    }
    return st;
}

/* Whether the last block of this kind, and none after it, is in the file, with the right channels. */
static inline bool net_is(const net_source *s, net_plan *p)
{
    const net_block *last = p->block + p->n - 1;
    net_block after = *last;
    const vgs_file_tensor *t;
    char conv[96], norm[96], full[128];
    bool squeezes;
    net_names(s, last, p->n - 1, LAYER_REDUCE, conv, norm);
    snprintf(full, sizeof full, "%s.weight", conv);
    squeezes = vgs_safetensors_find(s->file, full) != NULL;
    if (s->origin == FROM_TORCHVISION && p->kind->lite) return false;
    net_names(s, last, p->n - 1, LAYER_PROJECT, conv, norm);
    snprintf(full, sizeof full, "%s.weight", conv);
    t = vgs_safetensors_find(s->file, full);
    if (!t || t->ndim < 2 || t->shape[0] != (uint64_t)last->out || squeezes == p->kind->lite) return false;
    after.place++;
    net_names(s, &after, p->n, LAYER_PROJECT, conv, norm);
    snprintf(full, sizeof full, "%s.weight", conv);
    return !vgs_safetensors_find(s->file, full);
}

/* Which network a file holds, and how it pads and normalises. padding, input: "auto", or what the user says.
   */
static inline vgs_status net_identify(net_source *s, const char *padding, const char *input, net_plan *p,
                                      vgs_error *err)
{
    int k = 0;
    bool big;
    if (vgs_safetensors_find(s->file, "_conv_stem.weight")) s->origin = FROM_LUKEMELAS;
    else if (vgs_safetensors_find(s->file, "conv_stem.weight")) s->origin = FROM_TIMM;
    else if (vgs_safetensors_find(s->file, "features.0.0.weight")) s->origin = FROM_TORCHVISION;
    else return net_error(s, "_conv_stem.weight, conv_stem.weight, features.0.0.weight",
                          "none of them is in the file", err);
    for (; k < NET_KINDS; ++k) {
        net_list(net_kinds + k, p);
        if (net_is(s, p)) break;
    }
    if (k == NET_KINDS) return net_error(s, "its blocks", "are of no EfficientNet B0..B7, Lite0..Lite4", err);
    if (s->origin == FROM_TIMM && !strcmp(padding, "auto"))
        return net_error(s, "names of timm", "tf_efficientnet: --padding same; else symmetric", err);
    p->padding = !strcmp(padding, "same") ? PAD_SAME : !strcmp(padding, "symmetric") ? PAD_SYMMETRIC
               : !strcmp(padding, "static") || s->origin == FROM_LUKEMELAS ? PAD_STATIC : PAD_SYMMETRIC;
    big = p->kind->depth > 2 && s->origin == FROM_TORCHVISION;
    s->eps = s->origin == FROM_LUKEMELAS || big || (s->origin == FROM_TIMM &&
                                                    p->padding == PAD_SAME) ? 1e-3 : 1e-5;
    p->imagenet = !strcmp(input, "auto") ? !p->kind->lite : !strcmp(input, "imagenet");
    return VGS_OK;
}

/* ==== running ======================================================================================= */

typedef struct network {
    net_plan plan;
    vgs_backend *cpu;
    vgs_model *weights;
    vgs_graph *graph;
    vgs_var input, output;
    float *pixels;           /* [size, size, 3]                                                          */
    int size, grid;
} network;

static inline void network_free(network *n)
{
    vgs_graph_free(n->graph);
    vgs_model_free(n->weights);
    vgs_cpu_free(n->cpu);
    free(n->pixels);
    *n = (network){ .size = 0 };
}

/* Zeros on both sides of `in` pixels; native: what `in` is at the network's own size. */
static inline void net_pad(net_padding kind, int in, int native, int size, int stride, int *before,
                           int *after)
{
    int from = kind == PAD_STATIC ? native : in, out = (from + stride - 1) / stride,
        total = (out - 1) * stride + size - from;
    if (total < 0) total = 0;
    *before = kind == PAD_SYMMETRIC ? (size - 1) / 2 : total / 2;
    *after = kind == PAD_SYMMETRIC ? (size - 1) / 2 : total - total / 2;
}

/* side, native: of the image before and, on return, after. */
static inline vgs_window net_window(const net_plan *p, int *side, int *native, int size, int stride)
{
    vgs_window w = { .height = *side, .width = *side, .size = size, .stride = stride };
    net_pad(p->padding, *side, *native, size, stride, &w.top, &w.bottom);
    w.left = w.top;
    w.right = w.bottom;
    *side = (*side + w.top + w.bottom - size) / stride + 1;
    *native = (*native + stride - 1) / stride;
    return w;
}

static inline vgs_var net_array(network *n, int block, const char *layer, const char *part)
{
    char name[64];
    if (block < 0) snprintf(name, sizeof name, "%s.%s", layer, part);
    else snprintf(name, sizeof name, "%d.%s.%s", block, layer, part);
    return vgs_model_array(n->graph, n->weights, name);
}

static inline vgs_var net_act(network *n, vgs_var x)
{
    return n->plan.kind->lite ? vgs_clamp(n->graph, x, 0, 6) : vgs_silu(n->graph, x);
}

static inline vgs_var net_linear(network *n, vgs_var x, int block, const char *layer)
{
    return vgs_linear(n->graph, x, net_array(n, block, layer, "weight"), net_array(n, block, layer, "bias"));
}

/* x times the gate that the mean of each channel gives */
static inline vgs_var net_squeeze(network *n, vgs_var x, int block, int side)
{
    vgs_graph *g = n->graph;
    vgs_window whole = { .height = side, .width = side, .size = side, .stride = 1 };
    int32_t *zeros = (int32_t *)room_for((size_t)side * (size_t)side, sizeof *zeros);
    vgs_var gate = net_act(n, net_linear(n, vgs_avg_pool(g, x, &whole), block, "reduce"));
    gate = vgs_sigmoid(g, net_linear(n, gate, block, "excite"));
    gate = vgs_segment_gather(g, gate, 1, zeros, side * side);
    free(zeros);
    return vgs_mul(g, x, gate);
}

static inline vgs_var net_block_apply(network *n, vgs_var x, int i, int *side, int *native)
{
    const net_block *b = n->plan.block + i;
    vgs_graph *g = n->graph;
    vgs_var h = x;
    vgs_window w = net_window(&n->plan, side, native, b->size, b->stride);
    if (b->expand) h = net_act(n, net_linear(n, h, i, "expand"));
    h = vgs_depthwise(g, h, &w, net_array(n, i, "depthwise", "weight"));
    h = net_act(n, vgs_add(g, h, net_array(n, i, "depthwise", "bias")));
    if (b->squeeze) h = net_squeeze(n, h, i, *side);
    h = net_linear(n, h, i, "project");
    return b->stride == 1 && b->in == b->out ? vgs_add(g, h, x) : h;
}

/* side x side pixels on the grid: means where it divides, else bilinear, corners not aligned. */
static inline vgs_var net_to_grid(network *n, vgs_var x, int side)
{
    vgs_window w = { .height = side, .width = side, .size = side / n->grid, .stride = side / n->grid };
    if (side == n->grid) return x;
    if (side % n->grid == 0) return vgs_avg_pool(n->graph, x, &w);
    return vgs_resize(n->graph, x, side, side, n->grid, n->grid, false);
}

static inline vgs_status network_record(network *n, vgs_error *err)
{
    const net_plan *p = &n->plan;
    vgs_graph *g = n->graph = vgs_graph_create(err);
    int side = n->size, native = p->kind->native, next = 0;
    vgs_window w = net_window(p, &side, &native, 3, 2);
    vgs_var x;
    n->input = vgs_input(g, n->size * n->size * 3);
    x = vgs_conv2d(g, vgs_reshape(g, n->input, 3), &w, net_array(n, -1, "stem", "weight"),
                   net_array(n, -1, "stem", "bias"), 1);
    x = net_act(n, x);
    for (int i = 0; i < p->n; ++i) {
        x = net_block_apply(n, x, i, &side, &native);
        if (i != p->used[next]) continue;
        n->output = next ? vgs_concat(g, n->output, net_to_grid(n, x, side)) : net_to_grid(n, x, side);
        ++next;
    }
    vgs_output(g, n->output);
    return vgs_graph_compile(g, n->cpu, 1, err);
}

/* n->plan is set. w: the weights in the order of net_arrays. */
static inline vgs_status network_create(network *n, int size, int grid, int threads, const float *w,
                                        vgs_error *err)
{
    vgs_param_info *a = (vgs_param_info *)room_for(NET_ARRAYS, sizeof *a);
    vgs_cpu_config c = { .threads = threads };
    int numbers, count = net_arrays(&n->plan, a, &numbers);
    vgs_status st = VGS_OK;
    n->size = size;
    n->grid = grid;
    n->pixels = (float *)room_for((size_t)size * (size_t)size * 3, sizeof *n->pixels);
    n->cpu = vgs_cpu_create(&c, err);
    n->weights = n->cpu ? vgs_model_create_arrays(a, count, w, n->cpu, err) : NULL;
    st = n->weights ? network_record(n, err) : err->code;
    free(a);
    return st;
}

/* Reads, cuts and folds. */
static inline vgs_status network_open(network *n, const char *path, const settings *s, int threads,
                                      vgs_error *err)
{
    vgs_safetensors *file = vgs_safetensors_open(path, err);
    net_source from = { file, path, FROM_TIMM, 0 };
    vgs_param_info *a = (vgs_param_info *)room_for(NET_ARRAYS, sizeof *a);
    float *w = NULL;
    int size = 0;
    vgs_status st = file ? net_identify(&from, s->padding, s->input, &n->plan, err) : err->code;
    if (!st) st = net_choose(&n->plan, s, err);
    if (!st) {
        net_arrays(&n->plan, a, &size);
        w = (float *)room_for((size_t)size, sizeof *w);
        st = net_weights(&from, &n->plan, a, w, err);
    }
    if (!st) st = network_create(n, s->size, s->grid, threads, w, err);
    vgs_safetensors_free(file);
    free(a);
    free(w);
    return st;
}

/* Features [grid, grid, channels] of an RGB image [size, size, 3] into out. */
static inline vgs_status network_run(network *n, const unsigned char *rgb, float *out, vgs_error *err)
{
    static const float mean[3] = { 0.485f, 0.456f, 0.406f }, deviation[3] = { 0.229f, 0.224f, 0.225f };
    size_t count = (size_t)n->size * (size_t)n->size * 3;
    for (size_t i = 0; i < count; ++i) {
        float v = (float)rgb[i] / 255;
        n->pixels[i] = n->plan.imagenet ? (v - mean[i % 3]) / deviation[i % 3] : (v - 0.5f) / 0.5f;
    }
    if (vgs_set(n->graph, n->input, n->pixels, 1, err) || vgs_graph_run(n->graph, 1, err)) return err->code;
    return vgs_get(n->graph, n->output, out, 1, err);
}

/* ==== in the detector's file ======================================================================== */

/* Its own arrays, net.*; w [vgs_model_size] is filled and must live until the writer has saved. */
static inline vgs_status network_write(network *n, vgs_writer *out, float *w, vgs_error *err)
{
    const vgs_param_info *a;
    char name[80];
    if (vgs_model_read(n->weights, w, err)) return err->code;
    for (int i = 0; (a = vgs_model_param(n->weights, i)) != NULL; ++i) {
        uint64_t shape[2] = { (uint64_t)a->rows, (uint64_t)a->cols };
        snprintf(name, sizeof name, "net.%s", a->name);
        vgs_writer_tensor(out, name, VGS_DTYPE_F32, 2, shape, w + a->offset);
    }
    vgs_writer_meta(out, "net", n->plan.kind->name);
    vgs_writer_meta(out, "net.padding", padding_names[n->plan.padding]);
    vgs_writer_meta(out, "net.input", n->plan.imagenet ? "imagenet" : "half");
    return VGS_OK;
}

static inline vgs_status network_load(network *n, const vgs_safetensors *f, const settings *s, int threads,
                                      vgs_error *err)
{
    const char *kind = vgs_safetensors_meta(f, "net"), *padding = vgs_safetensors_meta(f, "net.padding");
    const char *input = vgs_safetensors_meta(f, "net.input");
    vgs_param_info *a = (vgs_param_info *)room_for(NET_ARRAYS, sizeof *a);
    int k = 0, size = 0, count;
    float *w;
    vgs_status st;
    while (kind && k < NET_KINDS && strcmp(net_kinds[k].name, kind)) ++k;
    if (!kind || k == NET_KINDS) {
        free(a);
        err->code = VGS_E_FORMAT;
        snprintf(err->msg, sizeof err->msg, "the network %.40s is not known", kind ? kind : "");
        return err->code;
    }
    net_list(net_kinds + k, &n->plan);
    for (int i = 0; i <= PAD_SYMMETRIC; ++i)
        if (padding && !strcmp(padding, padding_names[i])) n->plan.padding = (net_padding)i;
    n->plan.imagenet = input && !strcmp(input, "imagenet");
    st = net_choose(&n->plan, s, err);
    count = net_arrays(&n->plan, a, &size);
    w = (float *)room_for((size_t)size, sizeof *w);
    for (int i = 0; i < count && !st; ++i) {
        char name[80];
        snprintf(name, sizeof name, "net.%s", a[i].name);
        st = vgs_safetensors_floats(f, name, w + a[i].offset, (size_t)a[i].rows * (size_t)a[i].cols, err);
    }
    if (!st) st = network_create(n, s->size, s->grid, threads, w, err);
    free(a);
    free(w);
    return st;
}

#endif /* EFFICIENTNET_H */
