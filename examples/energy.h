/* energy.h - the energy of a feature of length 1: an autoencoder on the sphere, E = g^2 |x - r|^2, trained to
   reconstruct good features and then, with --cd-steps, as an energy-based model (vgs.h, >>ebm) that is low at
   good features and high at its own samples. Include it after neighbour.h and settings.h.

   Two trainings end at energies that differ by some percent everywhere. As a calibration compares scores of
   several models, g is set at the end so that the mean energy of what a model learned from is 1. */
#ifndef ENERGY_H
#define ENERGY_H

enum { ENERGY_ROWS = 100000,                     /* good features in memory while it learns              */
       LEVEL_ROWS = 10000 };                     /* of which the mean energy is taken                    */

typedef struct energy {
    vgs_backend *cpu;
    vgs_model *model;
    vgs_graph *graph;
    vgs_var x, e;
    int cells;
} energy;

static inline void energy_free(energy *e)
{
    vgs_graph_free(e->graph);
    vgs_model_free(e->model);
    vgs_cpu_free(e->cpu);
    *e = (energy){ .graph = NULL };
}

static inline vgs_net_config energy_net(const settings *s, int channels)
{
    return (vgs_net_config){ .kind = VGS_NET_AUTOENCODER, .dim = channels, .hidden = s->hidden, .layers = 3,
                             .code = s->code, .unit = true, .relu = true, .energy = true };
}

/* The graph that gives the energies of a map. */
static inline vgs_status energy_create(energy *e, const settings *s, int channels, int threads,
                                       vgs_error *err)
{
    vgs_net_config net = energy_net(s, channels);
    vgs_cpu_config c = { .threads = threads };
    e->cells = s->grid * s->grid;
    e->cpu = vgs_cpu_create(&c, err);
    e->model = e->cpu ? vgs_model_create(&net, e->cpu, s->seed, err) : NULL;
    e->graph = e->model ? vgs_graph_create(err) : NULL;
    if (!e->graph) return err->code;
    e->x = vgs_input(e->graph, channels);
    e->e = vgs_model_apply(e->graph, e->model, e->x, (vgs_var){ 0 });
    vgs_output(e->graph, e->e);
    return vgs_graph_compile(e->graph, e->cpu, e->cells, err);
}

/* The words of --objective are in the order of vgs_ebm_objective. */
static inline vgs_ebm_objective energy_objective(const char *name)
{
    return (vgs_ebm_objective)(VGS_CD + word_find(setting_words(setting_find("objective")), name));
}

/* The model and its sampler, in sizes for two cores. */
static inline vgs_ebm_config energy_config(const settings *s, int channels, int rows, vgs_backend *cpu)
{
    vgs_ebm_config c = { .net = energy_net(s, channels), .objective = energy_objective(s->objective),
                         .fit = s->fit_steps, .lr = (float)s->energy_lr };
    c.sampler = (vgs_config){ .on_sphere = true, .steps = 10, .schedule = VGS_CONSTANT, .s2_start = 1e-3f,
                              .s2_end = 1e-3f, .passes = 3, .loss = VGS_L2, .batch = rows < 392 ? rows : 392,
                              .value_lr = 1e-3f, .seed = s->seed, .backend = cpu };
    c.sampler.net.kind = VGS_NET_DEEPERV3;
    c.sampler.net.hidden = c.sampler.net.time_hidden = 128;
    if (s->start_degrees > 0) {
        c.starts = VGS_STARTS_NEAR;
        c.start_degrees = (float)s->start_degrees;
    }
    return c;
}

/* All steps, or as many as the time of this model allows: --minutes over all models of the calibration. */
static inline vgs_status energy_steps(vgs_ebm *m, const settings *s, const vgs_data *data, vgs_error *err)
{
    double end = seconds_now() + 60 * s->minutes / (folds_in_use(s, 1, INT_MAX) + 1);
    bool limited = s->minutes > 0;
    vgs_status st = VGS_OK;
    for (int k = 0, n; k < s->fit_steps && !st && !(limited && seconds_now() > end); k += n) {
        n = s->fit_steps - k < 20 ? s->fit_steps - k : 20;
        st = vgs_ebm_fit(m, data, n, NULL, err);
    }
    for (int k = 0, n; k < s->cd_steps && !st && !(limited && seconds_now() > end); k += n) {
        n = s->cd_steps - k < 5 ? s->cd_steps - k : 5;
        st = vgs_ebm_train(m, data, n, NULL, err);
    }
    return st;
}

/* Energies of the features x [n, channels], n at most e->cells, into out [n]. */
static inline vgs_status energy_of(energy *e, const float *x, int n, float *out, vgs_error *err)
{
    if (vgs_set(e->graph, e->x, x, n, err) || vgs_graph_run(e->graph, n, err)) return err->code;
    return vgs_get(e->graph, e->e, out, n, err);
}

/* The mean energy of n rows becomes 1, of which LEVEL_ROWS or all are looked at. w: the weights of e */
static inline vgs_status energy_level(energy *e, const float *rows, int n, int channels, float *w,
                                      vgs_error *err)
{
    float *out = (float *)room_for((size_t)e->cells, sizeof *out);
    int most = n < LEVEL_ROWS ? n : LEVEL_ROWS;
    double sum = 0;
    vgs_status st = VGS_OK;
    for (int i = 0; i < most && !st; i += e->cells) {
        int part = most - i < e->cells ? most - i : e->cells;
        size_t from = (size_t)((double)i / most * n);
        st = energy_of(e, rows + from * (size_t)channels, part, out, err);
        for (int k = 0; k < part && !st; ++k) sum += (double)out[k];
    }
    free(out);
    if (st || !(sum > 0)) return st;
    w[vgs_model_param(e->model, 0)->offset] *= (float)sqrt(most / sum);          /* out_scale, g         */
    return vgs_model_write(e->model, w, err);
}

/* Learns from images of the store; e is as energy_create left it. */
static inline vgs_status energy_fit(energy *e, const settings *s, store *st, const bool *use, int channels,
                                    vgs_error *err)
{
    vgs_rng r = { s->seed, 66, 0 };
    float *rows = (float *)room_for((size_t)ENERGY_ROWS * (size_t)channels, sizeof *rows), *w = NULL;
    int n = neighbour_candidates(st, use, e->cells, channels, &r, ENERGY_ROWS, rows);
    vgs_data data = { .x = rows, .rows = n, .dim = channels };
    vgs_ebm_config c = energy_config(s, channels, n, e->cpu);
    vgs_ebm *m = vgs_ebm_create(&c, err);
    vgs_status status = m ? energy_steps(m, s, &data, err) : err->code;
    if (!status) {
        vgs_model *learned = vgs_ebm_model(m, true);
        w = (float *)room_for((size_t)vgs_model_size(learned), sizeof *w);
        status = vgs_model_read(learned, w, err);
        if (!status) status = vgs_model_write(e->model, w, err);
        if (!status) status = energy_level(e, rows, n, channels, w, err);
    }
    vgs_ebm_free(m);
    free(rows);
    free(w);
    return status;
}

/* Energies of the features x [cells, channels] into map [cells]. */
static inline void energy_score(energy *e, const float *x, float *map)
{
    vgs_error err;
    if (!energy_of(e, x, e->cells, map, &err)) return;
    say("%s", err.msg);
    exit(EXIT_FAILED);
}

/* In the detector's file: energy.*, as the model names its arrays. */
static inline vgs_status energy_write(const energy *e, vgs_writer *out, float *w, vgs_error *err)
{
    const vgs_param_info *a;
    char name[80];
    if (vgs_model_read(e->model, w, err)) return err->code;
    for (int i = 0; (a = vgs_model_param(e->model, i)) != NULL; ++i) {
        uint64_t shape[2] = { (uint64_t)a->rows, (uint64_t)a->cols };
        snprintf(name, sizeof name, "energy.%s", a->name);
        vgs_writer_tensor(out, name, VGS_DTYPE_F32, a->rows ? 2 : 1, a->rows ? shape : shape + 1,
                          w + a->offset);
    }
    return VGS_OK;
}

static inline vgs_status energy_read(energy *e, const vgs_safetensors *f, vgs_error *err)
{
    float *w = (float *)room_for((size_t)vgs_model_size(e->model), sizeof *w);
    const vgs_param_info *a;
    vgs_status st = VGS_OK;
    char name[80];
    for (int i = 0; !st && (a = vgs_model_param(e->model, i)) != NULL; ++i) {
        snprintf(name, sizeof name, "energy.%s", a->name);
        st = vgs_safetensors_floats(f, name, w + a->offset,
                                    (size_t)(a->rows ? a->rows : 1) * (size_t)a->cols, err);
    }
    if (!st) st = vgs_model_write(e->model, w, err);
    free(w);
    return st;
}

#endif /* ENERGY_H */
