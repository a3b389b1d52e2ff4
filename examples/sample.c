/* sample.c - draws samples from a checkpoint into a .npy or .safetensors file
   cc -O2 examples/sample.c -o sample -lm               (add -fopenmp to use all cores: the same bits)
   ./sample gmm9 -n 1000 -o x.npy                       (./sample --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime; must precede every include */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "sample"
#include "on_target.h"
#include "room.h"

enum { DRAW_BLOCK = 4096, POPULATIONS = 20 };

typedef struct options {
    const char *checkpoint, *out, *target, *preset;
    int n, threads, refine;
    bool weighted;                               /* the file has a place for weights                     */
    device device;
    vgs_draw draw;
    field_list fields;
} options;

static int help(void)
{
    puts("sample - draws samples from a checkpoint\n"
         "\n"
         "usage: sample CHECKPOINT -n N -o FILE [options]\n"
         "\n"
         "  CHECKPOINT            a .safetensors file, or the folder of a run of train\n"
         "  -n N                  number of samples\n"
         "  -o FILE.npy           float32 [N, D]; particles have mean 0\n"
         "  -o FILE.safetensors   x float32 [N, D], energy [N], log_weight float64 [N], and the number of\n"
         "                        energy calls; prints log Z and whether the weights can be used\n"
         "  --smc SHARE           resamples along the way where the effective sample size falls below\n"
         "                        this share of the rows, in 20 independent populations\n"
         "  --correct K           K steps of MALA on the value in front of every step (the training's\n"
         "                        field, 0: none); the weights stay exact\n"
         "  --refine K            then K iterations of HMC on E for each sample, step size fitted to an\n"
         "                        acceptance of 0.8; weighted ones are resampled before, and equals then;\n"
         "                        not on the sphere\n"
         "  --seed N              of the noise (0: the seed of the training); same seed, same rows\n"
         "  --noise-scale C       multiplies every noise (1); below 1 is colder and biased\n"
         "  --skip-final-noise    leaves out the last noise (biased: gives the mean)\n"
         "                        either of these: samples without weights\n"
         "  --threads N           0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         DEVICE_HELP
         "\n"
         "A file without metadata, as the reference implementation writes them, also needs\n"
         "\n"
         "  --target NAME         the energy\n"
         "  --preset fast|paper   settings to start from\n"
         "  --KEY VALUE           any field below\n"
         "\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage.");
    print_targets();
    print_fields(NULL);
    puts("\nExamples:\n"
         "  sample gmm9 -n 100000 -o gmm9.npy --seed 1\n"
         "  sample funnel -n 100000 -o funnel.safetensors --smc 0.5\n"
         "  sample gmm9/checkpoint.safetensors -n 1000 -o cold.npy --noise-scale 0.9\n"
         "  sample state.safetensors -n 2000 -o x.npy --target dw4 --preset paper --skip-final-noise");
    return finish_stdout();
}

/* As vgs_draw has it, where 0 means what the training said. */
static int correction(int steps) { return steps ? steps : -1; }

static options parse(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .draw = { .noise_scale = 1.0f } };
    while (args_next(&a)) {
        if (!*a.key && o.checkpoint) wrong_usage("%.60s: only one checkpoint can be read", a.word);
        else if (!*a.key) o.checkpoint = a.word;
        else if (args_is(&a, "help") || args_is(&a, "h")) exit(help());
        else if (args_is(&a, "n")) o.n = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "o")) o.out = args_value(&a);
        else if (args_is(&a, "target")) o.target = args_value(&a);
        else if (args_is(&a, "preset")) o.preset = args_value(&a);
        else if (args_is(&a, "seed")) o.draw.seed = args_u64(&a);
        else if (args_is(&a, "noise_scale")) o.draw.noise_scale = (float)args_double(&a, 0.0, 1e6);
        else if (args_is(&a, "skip_final_noise")) o.draw.skip_final_noise = args_flag(&a);
        else if (args_is(&a, "smc")) o.draw.resample = (float)args_double(&a, 0.0, 1.0);
        else if (args_is(&a, "correct")) o.draw.correct = correction(args_int(&a, 0, 1000000));
        else if (args_is(&a, "refine")) o.refine = args_int(&a, 0, 1000000);
        else if (args_is(&a, "threads")) o.threads = args_threads(&a);
        else if (args_is(&a, "device")) o.device.name = args_value(&a);
        else if (args_is(&a, "list_devices")) exit(device_list());
        else if (args_is(&a, "profile")) o.device.profile = args_flag(&a);
        else args_field(&a, &o.fields);
    }
    if (!o.checkpoint) wrong_usage("a checkpoint is missing");
    if (!o.n) wrong_usage("-n is missing: how many samples?");
    if (!o.out) wrong_usage("-o is missing: where do the samples go?");
    o.weighted = ends_with(o.out, ".safetensors");
    if (!o.weighted && !ends_with(o.out, ".npy"))
        wrong_usage("-o %.200s: the name must end in .npy or .safetensors", o.out);
    if (o.draw.resample > 0.0f && !o.weighted)
        wrong_usage("--smc: its samples need their weights: -o FILE.safetensors has them");
    if (o.draw.resample > 0.0f && (o.draw.noise_scale != 1.0f || o.draw.skip_final_noise))
        wrong_usage("--smc: there are no weights with %s",
                    o.draw.skip_final_noise ? "--skip-final-noise" : "another --noise-scale than 1");
    return o;
}

/* The configuration: a preset if one is named, over it the checkpoint's metadata, over them the flags. */
static vgs_status configure(const options *o, const char *path, const target **found, vgs_config *c,
                            vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    const target *t;
    const char *name;
    vgs_status st = VGS_OK;
    int count = 0;
    if (!f) return err->code;
    if (vgs_safetensors_find(f, "x") && vgs_safetensors_meta(f, "energy_calls"))
        wrong_usage("%.200s: holds samples, not a sampler", path);
    name = vgs_safetensors_meta(f, "target");
    if (name && o->target && strcmp(name, o->target))
        wrong_usage("--target %.40s: %.200s is of the target %.40s", o->target, path, name);
    if (name && o->preset) wrong_usage("--preset: %.200s has its configuration inside", path);
    if (!name && !o->target) wrong_usage("%.200s does not say its target: give it with --target", path);
    *found = t = find_target(name ? name : o->target);
    vgs_safetensors_free(f);
    if (!t) exit(name ? EXIT_FAILED : EXIT_USAGE);
    c->energy = target_energy(t);
    if (o->preset) st = preset_fill(t, o->preset, c, NULL, err);
    if (st == VGS_OK) st = vgs_checkpoint_config(path, c, &count, err);
    if (st == VGS_OK && count > 0)
        fields_refuse(&o->fields, c, "a sampler is drawn from as it was trained");
    fields_apply(&o->fields, c);
    c->threads = o->threads;
    return st;
}

/* What the draw fills. An .npy file has no place for energy and log_weight, a biased draw has no weights. */
typedef struct samples { float *x, *energy; double *log_weight, calls; } samples;

/* Plain rows depend on their number only. Populations are the blocks from which vgs_weigh has its error. */
static int block_end(const options *o, int i, int population)
{
    if (o->draw.resample > 0.0f && o->n >= 2 * POPULATIONS)
        return (int)((long long)o->n * (population + 1) / POPULATIONS);
    return o->draw.resample > 0.0f || o->n - i <= DRAW_BLOCK ? o->n : i + DRAW_BLOCK;
}

static vgs_status draw(vgs_sampler *s, const options *o, const samples *out, vgs_error *err)
{
    int dim = vgs_sampler_config(s)->energy.dim, end;
    double shown = seconds_now();
    vgs_draw d = o->draw;
    for (int i = 0, k = 0; i < o->n; i = end, ++k) {
        end = block_end(o, i, k);
        d.first_row = (uint32_t)i;
        d.energy = out->energy ? out->energy + i : NULL;
        d.log_weight = out->log_weight ? out->log_weight + i : NULL;
        if (vgs_sampler_draw(s, &d, end - i, out->x + (size_t)i * (size_t)dim, err)) return err->code;
        if (seconds_now() - shown < 2.0) continue;
        fprintf(stderr, "%d of %d samples\n", end, o->n);
        shown = seconds_now();
    }
    return VGS_OK;
}

/* On the processor, also where the sampler is on a device: a move of few rows is too little to send there. */
static vgs_mcmc_config refinement(const options *o, const target *t, const vgs_config *c)
{
    return (vgs_mcmc_config){ .energy = target_energy(t), .tau = (double)c->tau, .threads = o->threads,
                              .length_scale = (double)c->length_scale,
                              .seed = o->draw.seed ? o->draw.seed : c->seed };
}

/* HMC on E, after resampling by the weights where there are some. */
static vgs_status refine(const options *o, const target *t, const vgs_config *c, samples *s,
                         vgs_error *err)
{
    vgs_mcmc_config m = refinement(o, t, c);
    vgs_mcmc_stats st;
    if (vgs_refine(&m, o->refine, s->log_weight, o->n, s->x, &st, err)) return err->code;
    s->calls += st.energy_calls;
    say("refined: %d iterations, acceptance %.2f, mean energy %.4f", o->refine, st.acceptance,
        st.energy_mean);
    return s->energy ? vgs_energy_eval(&m.energy, s->x, o->n, s->energy, NULL, o->threads, err) : VGS_OK;
}

static vgs_status write_weighted(const options *o, const samples *s, const char *name, int dim,
                                 vgs_error *err)
{
    uint64_t shape[2] = { (uint64_t)o->n, (uint64_t)dim };
    vgs_writer *w = vgs_writer_create(err);
    vgs_status st;
    if (!w) return err->code;
    vgs_writer_tensor(w, "x", VGS_DTYPE_F32, 2, shape, s->x);
    vgs_writer_tensor(w, "energy", VGS_DTYPE_F32, 1, shape, s->energy);
    if (s->log_weight && !o->refine)
        vgs_writer_tensor(w, "log_weight", VGS_DTYPE_F64, 1, shape, s->log_weight);
    vgs_writer_meta(w, "target", name);
    vgs_writer_number(w, "energy_calls", s->calls);
    if (o->refine) vgs_writer_number(w, "refine", o->refine);
    if (o->draw.resample > 0.0f) vgs_writer_number(w, "smc", (double)o->draw.resample);
    if (o->draw.correct) vgs_writer_number(w, "correct", o->draw.correct);
    st = vgs_writer_save(w, o->out, err);
    vgs_writer_free(w);
    return st;
}

static int report_weights(vgs_sampler *from, const options *o, const samples *s, const target *t)
{
    const vgs_config *c = vgs_sampler_config(from);
    char doubt[120];
    vgs_weights w;
    vgs_error err;
    if (!s->log_weight) return 0;
    if (vgs_sampler_weigh(from, s->log_weight, o->n, &w, &err)) return fail(&err);
    print_weights(&w, NULL, true_log_z(t, c->tau, c->on_sphere));
    if (*pilot_doubt(from, doubt)) printf("%s\n", doubt);
    return finish_stdout();
}

/* ==== how much, how long ============================================================================ */

static double file_size(const options *o, const vgs_config *c)
{
    return o->n * (4.0 * c->energy.dim + (o->weighted ? 12.0 : 0.0));
}

/* The rows, with what is in the file for each; beside them vgs_weigh's copy of the weights, the places and
   momenta of vgs_refine, or a population of SMC three times. */
static double memory_needed(const options *o, const vgs_config *c)
{
    double row = 4.0 * c->energy.dim, beside = o->weighted ? 8.0 : 0.0;
    int parts = o->n < 2 * POPULATIONS ? 1 : POPULATIONS;
    if (o->draw.resample > 0.0f) beside = fmax(beside, 3.0 * row / parts);
    if (o->refine) beside = fmax(beside, 5.0 * row + 100.0);
    return file_size(o, c) + o->n * beside;
}

/* Seconds that all rows will take, from a hundredth of them, 1024 at most; 0 for few rows. A first draw, of
   one row, makes what is made once. None of it leaves a trace: the rows are drawn again. */
static double trial(vgs_sampler *s, const options *o, const target *t, const samples *a)
{
    const vgs_config *c = vgs_sampler_config(s);
    int n = o->n / 100 < 1024 ? o->n / 100 : 1024;
    vgs_mcmc_config m = refinement(o, t, c);
    vgs_draw d = o->draw;
    double start;
    bool ok;
    if (n < 10) return 0.0;
    d.energy = a->energy;
    d.log_weight = a->log_weight;
    ok = !vgs_sampler_draw(s, &d, 1, a->x, NULL);
    start = seconds_now();
    ok = ok && !vgs_sampler_draw(s, &d, n, a->x, NULL);
    if (ok && o->refine) ok = !vgs_refine(&m, o->refine, NULL, n, a->x, NULL, NULL);
    device_reset(&o->device);
    return ok ? (seconds_now() - start) * o->n / n : 0.0;            /* the draw itself will say why not */
}

/* ==== all together ================================================================================== */

/* Says what is to come, draws, says what the weights say, refines, writes. */
static int make_into(samples *a, vgs_sampler *s, const options *o, const target *t)
{
    const vgs_config *c = vgs_sampler_config(s);
    vgs_error err;
    announce(o->n, memory_needed(o, c), file_size(o, c), trial(s, o, t, a));
    if (draw(s, o, a, &err)) return fail(&err);
    if (!vgs_sampler_iteration(s)) say("the sampler is untrained, as far as its checkpoint tells");
    if (report_weights(s, o, a, t)) return EXIT_FAILED;
    if (o->refine && refine(o, t, c, a, &err)) return fail(&err);
    if (o->weighted ? write_weighted(o, a, t->name, c->energy.dim, &err)
                    : vgs_npy_write(o->out, a->x, o->n, c->energy.dim, &err)) return fail(&err);
    say("%s: %d x %d", o->out, o->n, c->energy.dim);
    return 0;
}

static int make_samples(vgs_sampler *s, const options *o, const target *t)
{
    const vgs_config *c = vgs_sampler_config(s);
    bool biased = o->draw.noise_scale != 1.0f || o->draw.skip_final_noise;
    bool has_weights = o->weighted && (o->draw.resample > 0.0f || !biased);
    size_t n = (size_t)o->n;
    int status = EXIT_FAILED;
    samples a = { .calls = 2.0 * o->n };         /* the gradient in a row's last step, E at its end      */
    if (!has_room(o->out, o->n, memory_needed(o, c), file_size(o, c))) return EXIT_FAILED;
    if (o->refine && (double)o->n * c->energy.dim >= 2e9) {
        say("--refine: %d x %d numbers are too many, 2e9 is the limit; make the samples in parts", o->n,
            c->energy.dim);
        return EXIT_FAILED;
    }
    a.x = malloc(n * (size_t)c->energy.dim * sizeof *a.x);
    if (o->weighted) a.energy = malloc(n * sizeof *a.energy);
    if (has_weights) a.log_weight = malloc(n * sizeof *a.log_weight);
    else if (o->weighted) say("no weights: these are not samples of the sampler itself");
    if (!a.x || (o->weighted && !a.energy) || (has_weights && !a.log_weight))
        say("out of memory: %d samples", o->n);
    else status = make_into(&a, s, o, t);
    free(a.x);
    free(a.energy);
    free(a.log_weight);
    return status;
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    vgs_config c = { .steps = 0 };
    const target *t = NULL;
    vgs_sampler *s = NULL;
    vgs_error err;
    char path[1200];
    int status = EXIT_FAILED;
    if (!find_checkpoint(o.checkpoint, path, sizeof path)) return EXIT_FAILED;
    if (same_file(path, o.out)) wrong_usage("-o %.200s: is the checkpoint that is to be drawn from", o.out);
    if (configure(&o, path, &t, &c, &err) || device_open(&o.device, &err) ||
        device_energy(&o.device, t, &c.energy, &err)) return fail(&err);
    if (o.refine && c.on_sphere) wrong_usage("--refine: not on the sphere");
    c.backend = o.device.backend;
    if (!(s = vgs_sampler_create(&c, &err)) || vgs_sampler_load(s, path, &err)) fail(&err);
    else status = make_samples(s, &o, t);
    device_report(&o.device, 0);
    vgs_sampler_free(s);
    device_close(&o.device);
    return status;
}
