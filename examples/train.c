/* train.c - trains a sampler of a built-in target and writes a checkpoint, a log, samples and a report
   cc -O2 examples/train.c -o train -lm                 (add -fopenmp to use all cores: the same bits)
   ./train gmm9                                         (./train --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime, isatty, mkdir; precedes every include */
#define _DARWIN_C_SOURCE                         /* flock, on macOS                                      */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "train"
#include "json.h"
#include "on_target.h"
#include "report.h"
#include "room.h"
#include "rows.h"
#include "run.h"

enum { PATHS = 48, DRAW_BLOCK = 5000 };

typedef struct run {
    /* what the command line says */
    const target *target;
    const char *preset, *dir, *warm;
    bool   resume, force, cpu_time;
    device device;
    int    iterations, threads, draws;       /* iterations 0: the preset's, or the checkpoint's      */
    double minutes;                          /* 0: no limit                                              */
    field_list fields;
    /* the run itself */
    char   preset_text[64], goal_text[32];   /* for the checkpoint's metadata                            */
    int    goal;                             /* iterations in all                                        */
    vgs_config config;
    vgs_sampler *sampler;
    vgs_stats stats;
    FILE  *log;
    double started, earlier;                 /* clock at the start; seconds of the runs before this one  */
    int64_t first;                           /* iteration at which this run starts                       */
    /* for the summary and the report */
    float *x, *ref, *path;
    int    n, n_ref;
    evaluation metrics;
    bool   has_metrics;
    vgs_weights weights;                     /* of the samples, if there are any                         */
    vgs_forward forward;                     /* of reference samples, likewise                           */
    bool   has_forward;
} run;

/* ==== command line ================================================================================== */

/* c: NULL, or the configuration of the target, preset and fields that are given */
static int help(const vgs_config *c)
{
    puts("train - trains a sampler of exp(-E(x)/tau) for a built-in target\n"
         "\n"
         "usage: train TARGET [options]\n"
         "\n"
         "  --preset fast|paper|policy|none  settings to start from (fast; policy with --kernel policy);\n"
         "                        none: energy and dimension alone, a pilot finds what else is needed\n"
         "  --kernel value|policy what drives a step: the gradient of the value (VGS), or a network (value)\n"
         "  --objective td|dxdp|logvar  what trains it (td; of a policy dxdp): temporal differences;\n"
         "                        dynamic programming (DxMI's); the variance of log w, as of SDE samplers\n"
         "  --reference pis|dis   logvar: paths from 0, or from noise (dis); --drift-energy 1: the policy\n"
         "                        sees the gradient of the energy\n"
         "  --out DIR             folder for the results (./TARGET)\n"
         "  --seed N              of weights, noise and shuffles (0)\n"
         "  --iterations N        train until N iterations in all (the preset's)\n"
         "  --minutes M           train for M minutes of wall time, this time\n"
         "  --cpu-time            minutes and seconds are the processor's, over the threads: for a machine "
         "that\n"
         "                        others use\n"
         "  --draws N             rows drawn and weighed at the end (100000; of particles 10000), >= 10000\n"
         "  --target-ess X        train until ESS/N of 10000 draws is X; with --preset none\n"
         "  --pilot-calls N       energy calls of the pilot (20000; of particles 300000), 0 = none; with\n"
         "                        --preset none\n"
         "  --warm FILE           samples of your own in the pilot's place: .npy [N,D] or a tensor x of a\n"
         "                        .safetensors; with --preset none\n"
         "  --threads N           0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         DEVICE_HELP
         "  --resume              go on where DIR/checkpoint.safetensors stopped, bit for bit\n"
         "  --force               start anew in a DIR that holds a run\n"
         "  --KEY VALUE           any field below\n"
         "\n"
         "DIR receives checkpoint.safetensors (every minute and at the end), log.jsonl (a JSON object per\n"
         "measurement), samples.npy (float32) and report.html. Ctrl-C saves a checkpoint and stops with "
         "exit\n"
         "status 130. Otherwise it is 0 for done, 1 for failed, 2 for wrong usage. Memory does not grow "
         "with\n"
         "iterations. TARGET --help, with a preset and fields, shows their values and how much memory it\n"
         "takes.");
    print_targets();
    print_fields(c);
    puts("\nExamples:\n"
         "  train gmm9\n"
         "  train gmm9 --resume --iterations 3000\n"
         "  train funnel --preset paper --minutes 10 --out runs/funnel\n"
         "  train gmm9 --kernel policy --objective logvar --reference pis --minutes 1 --out pis\n"
         "  train dw4 --preset paper --hidden 64 --time-dim 32 --batch 128 --seed 7");
    return finish_stdout();
}

static vgs_status config_from_preset(run *r, vgs_error *err);

/* What the target, preset and fields given so far come to, and what their sampler holds: it allocates when it
   is created. */
static int help_of_target(run *r)
{
    vgs_error err;
    vgs_status st = config_from_preset(r, &err);
    vgs_sampler *s;
    if (st != VGS_OK) return fail(&err);
    r->config.threads = r->threads;
    if (!(s = vgs_sampler_create(&r->config, &err))) return fail(&err);
    help(vgs_sampler_config(s));
    printf("\nHere: %s, preset %s, %d iterations. Memory: the sampler holds %.1f MB, however many\n"
           "iterations it trains.\n", r->target->name, r->preset, r->goal,
           1e-6 * (double)vgs_sampler_bytes(s));
    vgs_sampler_free(s);
    return finish_stdout();
}

static void parse(run *r, int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    const char *name = NULL;
    bool wants_help = false;
    while (args_next(&a)) {
        if (!*a.key && name) wrong_usage("%.60s: only one target can be trained", a.word);
        else if (!*a.key) name = a.word;
        else if (args_is(&a, "help") || args_is(&a, "h")) wants_help = true;
        else if (args_is(&a, "preset")) r->preset = args_value(&a);
        else if (args_is(&a, "out")) r->dir = args_value(&a);
        else if (args_is(&a, "iterations")) r->iterations = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "minutes")) r->minutes = args_double(&a, 0.0, 1e6);
        else if (args_is(&a, "draws")) r->draws = args_int(&a, 10000, 1 << 24);
        else if (args_is(&a, "warm")) r->warm = args_value(&a);
        else if (args_is(&a, "cpu_time")) r->cpu_time = args_flag(&a);
        else if (args_is(&a, "threads")) r->threads = args_threads(&a);
        else if (args_is(&a, "device")) r->device.name = args_value(&a);
        else if (args_is(&a, "list_devices")) exit(device_list());
        else if (args_is(&a, "profile")) r->device.profile = args_flag(&a);
        else if (args_is(&a, "resume")) r->resume = args_flag(&a);
        else if (args_is(&a, "force")) r->force = args_flag(&a);
        else args_field(&a, &r->fields);
    }
    if (wants_help && !name) exit(help(NULL));
    if (!name) wrong_usage("a target is missing");
    if (r->resume && r->force) wrong_usage("--resume goes on with a run, --force starts anew: give one of "
                                           "them");
    if (r->resume && r->warm) wrong_usage("--warm: a run that goes on has its coordinates");
    if (!(r->target = find_target(name))) exit(EXIT_USAGE);
    if (wants_help) exit(help_of_target(r));
    if (!r->dir) r->dir = r->target->name;
    if (strlen(r->dir) > MAX_PATH_LENGTH - 64) wrong_usage("--out: the path is too long");
}

/* ==== the run's folder ============================================================================== */

static const char *in_dir(const run *r, const char *file, char path[MAX_PATH_LENGTH])
{
    return in_folder(r->dir, file, path);
}

/* ==== where the configuration comes from ============================================================ */

static bool wants_policy(const field_list *list)
{
    vgs_config c = { .steps = 0 };
    fields_apply(list, &c);
    return c.kernel == VGS_KERNEL_POLICY;
}

static vgs_status config_from_preset(run *r, vgs_error *err)
{
    preset_info info = { .iterations = 0 };
    vgs_config resolved;
    vgs_status st;
    char text[TYPED];
    if (!r->preset) r->preset = wants_policy(&r->fields) ? "policy" : "fast";
    st = preset_fill(r->target, r->preset, &r->config, &info, err);
    fields_apply(&r->fields, &r->config);
    if (st == VGS_OK) st = vgs_config_resolve(&r->config, &resolved, err);
    if (st == VGS_E_ARG) wrong_usage("%s", typed(err->msg, text));   /* a preset or a value that cannot be */
    r->goal = r->iterations ? r->iterations : info.iterations;
    return st;
}

static vgs_status config_from_checkpoint(run *r, const char *path, vgs_error *err)
{
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    const char *name, *preset;
    double goal = 0.0;
    vgs_status st;
    int count = 0;
    if (!f) return err->code;
    name = vgs_safetensors_meta(f, "target");
    preset = vgs_safetensors_meta(f, "preset");
    snprintf(r->preset_text, sizeof r->preset_text, "%s", preset ? preset : "none");
    if (name && strcmp(name, r->target->name))
        wrong_usage("%s holds a run of the target %.40s, not of %s", r->dir, name, r->target->name);
    if (r->preset && strcmp(r->preset, r->preset_text))
        wrong_usage("--preset %.40s: the checkpoint has %s, and --resume takes it from there", r->preset,
                    r->preset_text);
    st = vgs_safetensors_number(f, "iterations", &goal, err);
    vgs_safetensors_free(f);
    r->preset = r->preset_text;
    r->goal = r->iterations ? r->iterations : goal >= 1.0 && goal <= INT_MAX ? (int)goal : 1;
    r->config.energy = target_energy(r->target);
    if (st == VGS_OK) st = vgs_checkpoint_config(path, &r->config, &count, err);
    if (st == VGS_OK) fields_refuse(&r->fields, &r->config, "--resume takes the configuration from there");
    return st;
}

static vgs_status save_checkpoint(const run *r, vgs_error *err)
{
    const char *meta[] = { "target", r->target->name, "preset", r->preset, "iterations", r->goal_text, NULL };
    char path[MAX_PATH_LENGTH];
    return vgs_sampler_save(r->sampler, in_dir(r, "checkpoint.safetensors", path), meta, err);
}

/* A run can have more iterations than it is told to make: they stay, and that is said. */
static void keep_goal(run *r)
{
    if (r->resume && r->first >= r->goal && !(r->minutes > 0.0 && !r->iterations)) {
        say("%s has %lld iterations already, and %s asks for %d: none are made, samples and report are made "
            "anew", r->dir, (long long)r->first, r->iterations ? "--iterations" : "its configuration",
            r->goal);
        if (!r->iterations) say("to train it further: --iterations N or --minutes M");
        r->goal = r->first < INT_MAX ? (int)r->first : INT_MAX;
    }
    snprintf(r->goal_text, sizeof r->goal_text, "%d", r->goal);
}

/* Bytes that a sampler with a large batch takes, from two with a 64th and a 32nd of it; 0 for one that is not
   large. */
static double memory_needed(const vgs_config *config)
{
    double bytes[2];
    if (config->batch < 4096) return 0.0;
    for (int i = 0; i < 2; ++i) {
        vgs_config c = *config;
        vgs_sampler *s;
        c.batch = (config->batch / 64) << i;
        if (!(s = vgs_sampler_create(&c, NULL))) return 0.0;
        bytes[i] = (double)vgs_sampler_bytes(s);
        vgs_sampler_free(s);
    }
    return bytes[0] + (bytes[1] - bytes[0]) * ((double)config->batch / (config->batch / 64) - 1.0);
}

/* False, said, if memory does not hold the batch. That of a device is the device's to refuse. */
static bool has_memory(const run *r)
{
    double need = r->config.backend ? 0.0 : memory_needed(&r->config), have = memory_left();
    char a[32], b[32];
    if (!(have > 0.0 && need > have)) return true;
    say("--batch %d: takes about %s of memory, and there are %s", r->config.batch, size_text(need, ceil, a),
        size_text(have, floor, b));
    return false;
}

/* Creates or loads the sampler and writes a first checkpoint, so that a folder that cannot be written to is
   found before the training, not after it. */
static int start(run *r)
{
    char path[MAX_PATH_LENGTH], log_path[MAX_PATH_LENGTH];
    vgs_error err;
    vgs_status st;
    in_dir(r, "checkpoint.safetensors", path);
    in_dir(r, "log.jsonl", log_path);
    if (!r->resume && !r->force && file_exists(path))
        wrong_usage("%s holds a run: --resume goes on with it, --force starts anew, --out takes another "
                    "folder",
                    r->dir);
    if (r->resume && !file_exists(path) && errno == ENOENT)
        wrong_usage("%s: no checkpoint.safetensors there to go on with; without --resume a run starts there",
                    r->dir);
    if (r->resume && taken(r->dir)) return EXIT_FAILED;              /* before its checkpoint is read */
    st = r->resume ? config_from_checkpoint(r, path, &err) : config_from_preset(r, &err);
    if (st != VGS_OK) return fail(&err);
    r->config.threads = r->threads;
    if (device_open(&r->device, &err) || device_energy(&r->device, r->target, &r->config.energy, &err))
        return fail(&err);
    r->config.backend = r->device.backend;
    if (!has_memory(r)) return EXIT_FAILED;
    if (!(r->sampler = vgs_sampler_create(&r->config, &err))) return fail(&err);
    if (r->resume && vgs_sampler_load(r->sampler, path, &err)) return fail(&err);
    r->first = vgs_sampler_iteration(r->sampler);
    keep_goal(r);
    if (make_dir(r->dir) || (!r->resume && taken(r->dir))) return EXIT_FAILED;
    if (r->force) {                              /* results of the run before are not this run's      */
        char old[MAX_PATH_LENGTH];
        remove(in_dir(r, "samples.npy", old));
        remove(in_dir(r, "report.html", old));
    }
    if (save_checkpoint(r, &err) || (r->resume && trim_log(log_path, (double)r->first, &r->earlier,
                                                           &err))) return fail(&err);
    r->log = fopen(log_path, r->resume ? "ab" : "wb");
    if (!r->log) {
        say("%s: cannot be opened for writing: %s", log_path, strerror(errno));
        return EXIT_FAILED;
    }
    return 0;
}

/* ==== training ====================================================================================== */

static double elapsed(const run *r)
{
    if (r->cpu_time) return (double)clock() / CLOCKS_PER_SEC / thread_count(r->threads);
    return seconds_now() - r->started;
}

static int write_log(run *r)
{
    const vgs_stats *s = &r->stats;
    json j = { r->log, false };
    json_open(&j, NULL, '{');
    json_i64(&j, "iteration", s->iteration);
    json_double(&j, "seconds", floor(1e3 * (r->earlier + elapsed(r))) / 1e3);
    json_double(&j, "loss", s->loss);
    json_double(&j, "elbo", s->elbo);
    json_double(&j, "energy_mean", s->energy_mean);
    json_double(&j, "energy_median", s->energy_median);
    json_double(&j, "energy_min", s->energy_min);
    json_double(&j, "energy_max", s->energy_max);
    json_double(&j, "nonfinite", s->nonfinite);
    if (s->outside) {                        /* the first of these samples */
        json_open(&j, "outside", '[');
        for (int i = 0; i < r->target->dim; ++i) json_double(&j, NULL, (double)s->outside[i]);
        json_close(&j, ']');
    }
    json_double(&j, "clipped", s->clipped);
    json_double(&j, "init_sigma", s->init_sigma);
    json_double(&j, "energy_calls", s->energy_calls);
    json_close(&j, '}');
    json_line(&j);
    if (!fflush(r->log) && !ferror(r->log)) return 0;
    say("%s/log.jsonl: cannot be written: %s", r->dir, strerror(errno));
    return EXIT_FAILED;
}

static double time_left(const run *r)
{
    double done = (double)(r->stats.iteration - r->first), used = elapsed(r);
    double by_count = ((double)r->goal - (double)r->stats.iteration) * used / (done > 0.0 ? done : 1.0);
    double by_clock = 60.0 * r->minutes - used;
    if (r->minutes > 0.0 && (!r->iterations || by_clock < by_count)) return by_clock > 0.0 ? by_clock : 0.0;
    return by_count > 0.0 ? by_count : 0.0;
}

/* One line that is overwritten on a terminal; elsewhere a line every five seconds. */
static void show_progress(const run *r, double *shown, bool last)
{
    char line[128], left[32], goal[32] = "";
    const vgs_stats *s = &r->stats;
    if (!is_terminal() && !last && elapsed(r) - *shown < 5.0) return;
    *shown = elapsed(r);
    if (r->minutes <= 0.0 || r->iterations) snprintf(goal, sizeof goal, "/%d", r->goal);
    snprintf(line, sizeof line, "%lld%s  loss %.4g  ELBO %.4g  energy %.4g  %s left", (long long)s->iteration,
             goal, s->loss, s->elbo, s->energy_median, duration(time_left(r), left));
    if (is_terminal()) fprintf(stderr, "\r%-78.78s%s", line, last ? "\n" : "");
    else fprintf(stderr, "%s\n", line);
}

static bool finished(const run *r)
{
    bool count = r->minutes > 0.0 && !r->iterations ? false : vgs_sampler_iteration(r->sampler) >= r->goal;
    return stop || count || (r->minutes > 0.0 && elapsed(r) >= 60.0 * r->minutes);
}

/* Measures often at first, then every two seconds, but never for more than a tenth of the time. */
static int measure(run *r, double *due, double *shown, bool last)
{
    vgs_error err;
    double before = elapsed(r), wait;
    if (!last && before < *due) return 0;
    if (vgs_sampler_train(r->sampler, 0, &r->stats, &err)) return fail(&err);
    wait = (r->earlier + before) / 20.0 < 1.9 ? (r->earlier + before) / 20.0 + 0.1 : 2.0;
    if (wait < 10.0 * (elapsed(r) - before)) wait = 10.0 * (elapsed(r) - before);
    *due = elapsed(r) + wait;
    show_progress(r, shown, last);
    return write_log(r);
}

/* What the pilot found, if there was one. */
static void show_pilot(const vgs_pilot *p)
{
    if (!p) return;
    fprintf(stderr, "pilot: %.0f energy calls; E0 %.6g, finest feature %.2g of the width, %d steps",
            p->energy_calls, p->energy_offset, p->detail, p->steps);
    if (p->bent) fprintf(stderr, "; %d coordinates bent along others", p->bent);
    if (p->turned) fprintf(stderr, ", in axes of their own");
    if (p->peaked) fprintf(stderr, "; peaks along %d made one", p->peaked);
    if (p->tail > 0.0) fprintf(stderr, "; tails of Student's t, nu %.2g, made normal", p->tail);
    if (!p->rows) fprintf(stderr, "; its samples are not the target's and were forgotten");
    fprintf(stderr, "%s\n",
            p->rhat > 1.2 ? "; its chains disagree: separate modes, or it was too short" : "");
}

/* The samples of --warm. */
static int warm_start(run *r)
{
    rows w;
    vgs_error err;
    int status = 0;
    if (read_rows(r->warm, &w, &err)) return fail(&err);
    if (w.dim != r->target->dim) {
        say("%s: %d columns, %s has %d", r->warm, w.dim, r->target->name, r->target->dim);
        status = EXIT_FAILED;
    } else if (vgs_sampler_warm_start(r->sampler, w.n, w.x, &err)) status = fail(&err);
    free(w.x);
    return status;
}

static int train(run *r)
{
    vgs_error err;
    double due = 0.0, shown = -1e9, saved = 0.0;
    bool last = finished(r);
    int status = 0;
    device_reset(&r->device);
    if (r->warm) status = warm_start(r);
    while (!last && !status) {
        if (vgs_sampler_train(r->sampler, 1, NULL, &err)) {
            status = fail(&err);                                     /* what was learned before is kept */
            break;
        }
        if (vgs_sampler_iteration(r->sampler) == 1) show_pilot(vgs_sampler_pilot(r->sampler));
        last = finished(r) || vgs_sampler_reached(r->sampler);
        status = measure(r, &due, &shown, last);
        if (last || elapsed(r) - saved < 60.0) continue;
        if (save_checkpoint(r, &err)) return fail(&err);
        saved = elapsed(r);
    }
    device_report(&r->device, (long long)(vgs_sampler_iteration(r->sampler) - r->first));
    if (save_checkpoint(r, &err)) return fail(&err);
    return status;
}

static int stopped(const run *r)
{
    say("stopped %s iteration %lld, which is saved; to go on: train %s --out %s --resume",
        r->x ? "while drawing samples, after" : "at", (long long)vgs_sampler_iteration(r->sampler),
        r->target->name, r->dir);
    return EXIT_STOPPED;
}

/* ==== samples, metrics, report ====================================================================== */

static int draw_samples(run *r, double *log_weight)
{
    size_t dim = (size_t)r->target->dim;
    vgs_error err;
    vgs_draw draw = { .noise_scale = 1.0f };
    for (int i = 0; i < r->n && !stop; i += DRAW_BLOCK) {
        int m = r->n - i < DRAW_BLOCK ? r->n - i : DRAW_BLOCK;
        draw.first_row = (uint32_t)i;
        draw.log_weight = log_weight ? log_weight + i : NULL;
        if (vgs_sampler_draw(r->sampler, &draw, m, r->x + (size_t)i * dim, &err)) return fail(&err);
        if (is_terminal()) fprintf(stderr, "\rsamples %d/%d%s", i + m, r->n, i + m == r->n ? "\n" : "");
    }
    if (r->path && !stop) {                                          /* the first rows again, as paths */
        draw = (vgs_draw){ .noise_scale = 1.0f, .path = r->path };
        float ends[PATHS * 2];
        if (vgs_sampler_draw(r->sampler, &draw, PATHS, ends, &err)) return fail(&err);
    }
    return 0;
}

static int make_samples(run *r)
{
    const vgs_config *c = vgs_sampler_config(r->sampler);
    char path[MAX_PATH_LENGTH];
    vgs_error err;
    double *log_weight = NULL;
    int status;
    r->n = r->draws ? r->draws : r->target->particles ? 10000 : 100000;
    r->x = malloc((size_t)r->n * (size_t)r->target->dim * sizeof *r->x);
    if (r->target->dim == 2) r->path = malloc(((size_t)c->steps + 1) * PATHS * 2 * sizeof *r->path);
    log_weight = malloc((size_t)r->n * sizeof *log_weight);
    if (!r->x || !log_weight || (r->target->dim == 2 && !r->path)) {
        say("out of memory: %d samples", r->n);
        status = EXIT_FAILED;
    } else status = draw_samples(r, log_weight);
    if (!status && !stop) {
        if (vgs_npy_write(in_dir(r, "samples.npy", path), r->x, r->n, r->target->dim, &err) ||
            vgs_sampler_weigh(r->sampler, log_weight, r->n, &r->weights, &err)) status = fail(&err);
    }
    free(log_weight);
    return status;
}

/* As many rows as make the floor in reasonable time: exact references cost nothing, Metropolis chains do. */
static int rows_compared(const target *t)
{
    return t->exact_samples ? 10000 : t->particles > 20 ? 500 : 2000;
}

/* Reference samples taken back through the sampler: log Z from above, which knows of missing modes. */
static int make_forward(run *r, int n)
{
    double *log_weight = malloc((size_t)n * sizeof *log_weight);
    vgs_error err;
    int status = 0;
    if (!log_weight) {
        say("out of memory: %d weights", n);
        return EXIT_FAILED;
    }
    if (vgs_sampler_score(r->sampler, NULL, n, r->ref, log_weight, &err) ||
        (r->weights.inside > 0.0 ? vgs_weigh_forward_inside(log_weight, n, &r->weights, &r->forward, &err)
                                 : vgs_weigh_forward(log_weight, n, &r->forward, &err))) status = fail(&err);
    else r->has_forward = true;
    free(log_weight);
    return status;
}

static int make_metrics(run *r)
{
    const vgs_config *c = vgs_sampler_config(r->sampler);
    vgs_error err;
    int n = rows_compared(r->target);
    if (c->tau != 1.0f) {
        say("no metrics: the reference samples are those of tau = 1");
        return 0;
    }
    fprintf(stderr, "measuring against %d reference samples\n", 10 * n);
    r->n_ref = 10 * n;
    r->ref = malloc((size_t)r->n_ref * (size_t)r->target->dim * sizeof *r->ref);
    if (!r->ref) {
        say("out of memory: %d reference samples", r->n_ref);
        return EXIT_FAILED;
    }
    if (target_reference(r->target, c->seed + 1, r->n_ref, r->ref, r->threads, &err) ||
        evaluate(r->target, r->x, n, r->ref, r->n_ref, c->seed + 1, r->threads, &r->metrics,
                 &err)) return fail(&err);
    r->has_metrics = true;
    return c->on_sphere ? 0 : make_forward(r, n);    /* the reference is not on the sphere              */
}

static int make_report(const run *r)
{
    char path[MAX_PATH_LENGTH], log_path[MAX_PATH_LENGTH], doubt[120];
    vgs_error err;
    report p = {
        .target = r->target, .preset = r->preset, .config = vgs_sampler_config(r->sampler), .stats = r->stats,
        .seconds = r->earlier + elapsed(r),
        .threads = thread_count(r->threads), .weights = &r->weights,
        .doubt = pilot_doubt(r->sampler, doubt),
        .forward = r->has_forward ? &r->forward : NULL,
        .x = r->x, .n = r->n, .ref = r->ref, .n_ref = r->n_ref, .path = r->path, .paths = PATHS,
        .metrics = r->has_metrics ? &r->metrics : NULL
    };
    return report_write(&p, in_dir(r, "log.jsonl", log_path), in_dir(r, "report.html", path),
                        &err) ? fail(&err) : 0;
}

/* The noise of a policy's steps, which it has learned. */
static int show_policy(const run *r)
{
    vgs_model *m = vgs_sampler_policy(r->sampler, true);
    int n = m ? vgs_model_size(m) : 0, steps = vgs_sampler_config(r->sampler)->steps;
    float *w = room_for((size_t)n + 1, sizeof *w);
    vgs_error err;
    int status = 0;
    for (int i = 0; m && vgs_model_param(m, i) && !status; ++i) {
        const vgs_param_info *p = vgs_model_param(m, i);
        if (strcmp(p->name, "log_sigma")) continue;
        if (vgs_model_read(m, w, &err)) status = fail(&err);
        else printf("policy of %d weights; sigma_t from %.3g to %.3g\n", n, exp((double)w[p->offset]),
                    exp((double)w[p->offset + steps - 1]));
    }
    free(w);
    return status;
}

static int summary(const run *r)
{
    char text[32], doubt[120];
    const vgs_config *c = vgs_sampler_config(r->sampler);
    printf("%s (%s): %lld iterations, %s, %.3g energy calls\n", r->target->name, r->preset,
           (long long)r->stats.iteration, duration(r->earlier + elapsed(r), text), r->stats.energy_calls);
    print_weights(&r->weights, r->has_forward ? &r->forward : NULL,
                  true_log_z(r->target, c->tau, c->on_sphere));
    if (*pilot_doubt(r->sampler, doubt)) printf("%s\n", doubt);
    printf("samples %s/samples.npy (%d x %d)\nreport  %s/report.html\n", r->dir, r->n, r->target->dim,
           r->dir);
    if (r->has_metrics) {
        printf("at %d rows, beside the floor: what a perfect sampler scores\n", r->metrics.value.n);
        print_metrics(&r->metrics, false);
    }
    return show_policy(r) ? EXIT_FAILED : finish_stdout();
}

static int finish(run *r)
{
    vgs_error err;
    int status;
    double loss = r->stats.loss;
    if (vgs_sampler_train(r->sampler, 0, &r->stats, &err)) return fail(&err);
    r->stats.loss = loss;
    if ((status = make_samples(r)) || stop) return status;
    snprintf(last_words, sizeof last_words, "\n" PROGRAM ": stopped while measuring: checkpoint and samples "
             "are in %s, the report is not made; train %s --out %s --resume makes it\n", r->dir,
             r->target->name, r->dir);
    signal(SIGINT, on_signal_measuring);
    signal(SIGTERM, on_signal_measuring);
    if ((status = make_metrics(r))) return status;
    if ((status = make_report(r))) return status;
    return summary(r);
}

int main(int argc, char **argv)
{
    run r = { .threads = 0 };
    int status;
    parse(&r, argc, argv);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    r.started = seconds_now();
    status = start(&r);
    if (!status) status = train(&r);
    if (!status && !stop) status = finish(&r);
    if (!status && stop) status = stopped(&r);
    if (r.log && fclose(r.log) && !status) {
        say("%s/log.jsonl: cannot be written", r.dir);
        status = EXIT_FAILED;
    }
    vgs_sampler_free(r.sampler);
    device_close(&r.device);
    free(r.x);
    free(r.ref);
    free(r.path);
    return status;
}
