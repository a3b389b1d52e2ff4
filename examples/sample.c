/* sample.c - draws samples from a checkpoint into a .npy file
   cc -O2 examples/sample.c -o sample -lm               (add -fopenmp to use all cores: the same bits)
   ./sample gmm9 -n 1000 -o x.npy                       (./sample --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime; must precede every include */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "sample"
#include "common.h"

enum { DRAW_BLOCK = 4096 };

typedef struct options {
    const char *checkpoint, *out, *target, *preset;
    int n, threads;
    vgs_draw draw;
    field_list fields;
} options;

static int help(void)
{
    puts("sample - draws samples from a checkpoint\n"
         "\n"
         "usage: sample CHECKPOINT -n N -o FILE.npy [options]\n"
         "\n"
         "  CHECKPOINT            a .safetensors file, or the folder of a run of train\n"
         "  -n N                  number of samples\n"
         "  -o FILE.npy           float32 [N, D]; particles have mean 0\n"
         "  --seed N              of the noise (0: the seed of the training); same seed, same rows\n"
         "  --noise-scale C       multiplies every noise (1); below 1 is colder and biased\n"
         "  --skip-final-noise    leaves out the last noise (biased: gives the mean)\n"
         "  --threads N           0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         "\n"
         "A file without metadata, as the reference implementation writes them, also needs\n"
         "\n"
         "  --target NAME         the energy\n"
         "  --preset fast|paper   settings to start from\n"
         "  --KEY VALUE           any field below\n"
         "\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage.");
    print_targets();
    print_fields();
    puts("\nExamples:\n"
         "  sample gmm9 -n 100000 -o gmm9.npy --seed 1\n"
         "  sample gmm9/checkpoint.safetensors -n 1000 -o cold.npy --noise-scale 0.9\n"
         "  sample state.safetensors -n 2000 -o x.npy --target dw4 --preset paper --skip-final-noise");
    return finish_stdout();
}

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
        else if (args_is(&a, "threads")) o.threads = args_threads(&a);
        else args_field(&a, &o.fields);
    }
    if (!o.checkpoint) wrong_usage("a checkpoint is missing");
    if (!o.n) wrong_usage("-n is missing: how many samples?");
    if (!o.out) wrong_usage("-o is missing: where do the samples go?");
    return o;
}

/* A folder cannot be read as a file, so what can be is taken as it is. */
static void find_checkpoint(const char *given, char *path, size_t size)
{
    char inside[1200];
    FILE *f;
    snprintf(inside, sizeof inside, "%.1100s/checkpoint.safetensors", given);
    f = fopen(inside, "rb");
    if (f) fclose(f);
    snprintf(path, size, "%s", f ? inside : given);
}

/* The configuration: a preset if one is named, over it the checkpoint's metadata, over them the flags. */
static vgs_status configure(const options *o, const char *path, vgs_config *c, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    const vgs_target *t;
    const char *name;
    vgs_status st = VGS_OK;
    int count = 0;
    if (!f) return err->code;
    name = vgs_safetensors_meta(f, "target");
    if (name && o->target && strcmp(name, o->target))
        wrong_usage("--target %.40s: %.200s is of the target %.40s", o->target, path, name);
    if (name && o->preset) wrong_usage("--preset: %.200s has its configuration inside", path);
    if (!name && !o->target) wrong_usage("%.200s does not say its target: give it with --target", path);
    t = find_target(name ? name : o->target);
    vgs_safetensors_free(f);
    if (!t) exit(name ? EXIT_FAILED : EXIT_USAGE);
    c->energy = vgs_target_energy(t);
    if (o->preset) st = vgs_preset(t, o->preset, c, NULL, err);
    if (st == VGS_OK) st = vgs_checkpoint_config(path, c, &count, err);
    if (st == VGS_OK && count > 0)
        fields_refuse(&o->fields, c, "a sampler is drawn from as it was trained");
    fields_apply(&o->fields, c);
    c->threads = o->threads;
    return st;
}

static vgs_status draw(vgs_sampler *s, const options *o, float *x, vgs_error *err)
{
    int dim = vgs_sampler_config(s)->energy.dim;
    double shown = seconds_now();
    vgs_draw d = o->draw;
    for (int i = 0; i < o->n; i += DRAW_BLOCK) {
        int m = o->n - i < DRAW_BLOCK ? o->n - i : DRAW_BLOCK;
        d.first_row = (uint32_t)i;
        if (vgs_sampler_draw(s, &d, m, x + (size_t)i * (size_t)dim, err)) return err->code;
        if (seconds_now() - shown < 2.0) continue;
        fprintf(stderr, "%d of %d samples\n", i + m, o->n);
        shown = seconds_now();
        if (o->n - i <= DRAW_BLOCK) break;                           /* i + DRAW_BLOCK could overflow */
    }
    return vgs_npy_write(o->out, x, o->n, dim, err);
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    vgs_config c = { .steps = 0 };
    vgs_sampler *s = NULL;
    vgs_error err;
    char path[1200];
    float *x = NULL;
    int status = EXIT_FAILED;
    find_checkpoint(o.checkpoint, path, sizeof path);
    if (configure(&o, path, &c, &err) || !(s = vgs_sampler_create(&c, &err)) || vgs_sampler_load(s, path,
                                                                                                 &err))
        fail(&err);
    else if (!(x = malloc((size_t)o.n * (size_t)c.energy.dim * sizeof *x)))
        say("out of memory: %d samples", o.n);
    else if (draw(s, &o, x, &err)) fail(&err);
    else {
        say("%s: %d x %d", o.out, o.n, c.energy.dim);
        status = 0;
    }
    free(x);
    vgs_sampler_free(s);
    return status;
}
