/* ebm.c - learns an energy from data, scores rows by it, draws from it
   cc -O2 examples/ebm.c -o ebm -lm                     (add -fopenmp to use all cores: the same bits)
   ./ebm demo 8gauss --out 8gauss                       (./ebm --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime, isatty, mkdir; precedes every include */
#define _DARWIN_C_SOURCE                         /* flock, on macOS                                      */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "ebm"
#include "common.h"
#include "device.h"
#include "ebm_flags.h"
#include "ebm_presets.h"
#include "json.h"
#include "page.h"
#include "plane.h"
#include "roc.h"
#include "room.h"
#include "rows.h"
#include "run.h"

/* SLOW_ROWS: of draws that take 1000 steps of Langevin each, and of large images. */
enum { DEMO_ROWS = 20000, SHOWN_ROWS = 10000, SLOW_ROWS = 1000, PATH_ROWS = 3000, TILES = 40,
       RECENT = 10 };                            /* measurements that a warning is drawn from             */
enum { LOW = 16,                                 /* columns, at most, that gcd with VGS is good for       */
       LONG = 20, REPORT = 10 };                 /* seconds: said beforehand; of the report's draws       */

typedef struct job {
    const char *command, *arg[3], *dir, *out, *valid_path, *preset, *policy_from;
    bool pretrained;                             /* DIR holds a policy that ebm pretrain has made         */
    int args;
    bool resume, force, json;
    int n, refine, threads, iterations;          /* iterations 0: the preset's, or the checkpoint's       */
    double minutes;
    uint64_t seed;
    bool has_seed, follows;                      /* follows: the rate of E falls until the run ends       */
    device device;
    given_fields set;
    /* the run */
    vgs_ebm_config config;
    vgs_ebm *m;
    units units;
    rows data, valid;
    vgs_ebm_stats stats;
    int64_t first;
    int goal;
    int begun_rows;                              /* of the data that the checkpoint began with, or 0      */
    char goal_text[32];
    double excess[RECENT];                       /* e of data above what is worth a warning, measured     */
    int measured;                                /* times since iteration 200                             */
    double fit_loss, e_valid, started, earlier, began;       /* began: seconds before the first iteration */
    FILE *log;
    char warning[200];
} job;

/* ==== command line ================================================================================== */

static int help(void)
{
    char flag[72], allowed[64];
    const given_fields none = { .n = 0 };
    puts("ebm - an energy-based model: an energy E is learned from data, its density is exp(-E/tau)/Z\n"
         "\n"
         "usage: ebm train DATA --out DIR [options]     learn E from rows: .npy [N,D], or the tensor x of a\n"
         "                                              .safetensors file\n"
         "       ebm demo 8gauss|rings|moons|arms --out DIR [options]\n"
         "       ebm demo digits FILE.npy --out DIR [options]            the same with data made here, or\n"
         "                                              pictures of 8 x 8\n"
         "       ebm pretrain DATA --out DIR --steps T  a policy of T steps, as denoising diffusion has it;\n"
         "                                              ebm train DATA --objective dxmi --out DIR goes on\n"
         "       ebm score DIR DATA -o FILE.npy         E of every row, float32 [N,1]\n"
         "       ebm sample DIR -n N -o FILE [--refine K] [--seed N]     .npy, or .safetensors with x, "
         "energy\n"
         "                                              and, where there are weights, log_weight; K\n"
         "                                              iterations of HMC on E, not on the sphere\n"
         "       ebm evaluate DIR GOOD BAD [--json]     does E tell bad rows from good ones?\n"
         "\n"
         "  --energy KIND         mlp, autoencoder: E = g^2 |x - r|^2/tau_e, or resnet, of images (mlp;\n"
         "                        autoencoder on the sphere)\n"
         "  --objective NAME      cd gcd langevin persistent discrepancy none dxmi (gcd; cd on the sphere;\n"
         "                        dxmi of demo digits)\n"
         "  --starts NAME         data near noise store (by objective)\n"
         "  --langevin-steps N    of langevin and persistent (20)\n"
         "  --sphere 0|1          rows are directions: each is divided by its length (0). Else rows are\n"
         "                        centred and divided by one number, their standard deviation\n"
         "  --fit-autoencoder N   iterations of pretraining as an autoencoder, for a third of --minutes at\n"
         "                        most (of preset fast 1000, else 0)\n"
         "  --policy-tau X        dxmi: tau for each dimension of entropy and velocity, 0 = none (0.1)\n"
         "  --pretrain N          dxmi: iterations of pretraining of the policy, in train for a third of\n"
         "                        --minutes at most (the preset's); 0 = none\n"
         "  --policy-from DIR     dxmi: the policy of another run, which may have another T where both have\n"
         "                        --schedule cosine, in place of pretraining\n"
         "  --energy-shared 1     dxmi: value and energy are one network of x and t, E = V_T\n"
         "  --preset NAME         settings to start from: plane (low dimensions), dxmi (low dimensions, or\n"
         "                        small images: draws), fast (features on two cores: scores), mvtec (as\n"
         "                        published); on the sphere fast, with objective dxmi dxmi, else plane.\n"
         "                        Each with --batch of all rows where they are fewer\n"
         "  --iterations N        train until N iterations in all (the preset's)\n"
         "  --minutes M           train for M minutes of wall time at most, this time: the rate of E falls\n"
         "                        until then\n"
         "  --valid FILE          rows whose mean energy is logged, too\n"
         "  --seed N              of weights, noise and shuffles (0)\n"
         "  --threads N           0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         DEVICE_HELP
         "  --resume              go on where DIR/checkpoint.safetensors stopped, bit for bit; what may be\n"
         "                        another: --iterations, --energy-lr, -decay, -gamma and -limit\n"
         "  --force               start anew in a DIR that holds a run\n"
         "\n"
         "DIR receives checkpoint.safetensors, log.jsonl and report.html. Ctrl-C saves a checkpoint and "
         "stops\n"
         "with exit status 130. Otherwise it is 0 for done, 1 for failed, 2 for wrong usage.");
    puts("\nFields of the energy: what it is; what it can be. 0 is 0: no gamma, no average, nothing that "
         "confines");
    for (int i = 0; vgs_ebm_field_name(i); ++i) {
        vgs_ebm_field_allowed(i, allowed);
        if (energy_zero(vgs_ebm_field_name(i)) && !strncmp(allowed, "> 0", 3)) strcpy(allowed, ">= 0");
        printf("  %-24s %s; %s\n", energy_flag(&none, vgs_ebm_field_name(i), flag), vgs_ebm_field_help(i),
               allowed);
    }
    puts("\nThose of the sampler follow. What trains it is no field here: --objective says what E learns "
         "from, and\nthe sampler's own objective follows.");
    print_fields(NULL);
    puts("\nExamples:\n"
         "  ebm demo rings --out rings\n"
         "  ebm train points.npy --out run --minutes 5\n"
         "  ebm train table.npy --out run --energy autoencoder --fit-autoencoder 2000 --objective none "
         "--iterations 500\n"
         "  ebm train features.npy --out run --sphere 1 --fit-autoencoder 2000 --objective cd --starts near\n"
         "  ebm evaluate run good.npy bad.npy --json");
    return finish_stdout();
}

/* As fail, but fields of the energy are flags. */
static int failed(const job *j, const vgs_error *err)
{
    char text[TYPED];
    const bool fields = err->code == VGS_E_ARG || err->code == VGS_E_NONFINITE;
    say("%s", fields ? typed_energy(&j->set, err->msg, text) : err->msg);
    return EXIT_FAILED;
}

static bool is(const job *j, const char *command) { return !strcmp(j->command, command); }

/* An option that says nothing to this command is more likely a mistake than meant. */
static void only_for(const job *j, bool given_here, const char *flag, const char *commands)
{
    if (given_here && !strstr(commands, j->command))
        wrong_usage("%s: ebm %s has no such option", flag, j->command);
}

static void check_command(const job *j)
{
    if (!j->command) wrong_usage("a command is missing: train, demo, pretrain, score, sample or evaluate");
    if (!is(j, "train") && !is(j, "demo") && !is(j, "pretrain") && !is(j, "score") && !is(j, "sample") &&
        !is(j, "evaluate"))
        wrong_usage("%.40s: there is no such command", j->command);
    only_for(j, j->dir, "--out", "train demo pretrain");
    only_for(j, j->valid_path, "--valid", "train demo pretrain");
    only_for(j, j->preset, "--preset", "train demo pretrain");
    only_for(j, j->iterations, "--iterations", "train demo");
    only_for(j, j->minutes > 0, "--minutes", "train demo pretrain");
    only_for(j, j->resume, "--resume", "train demo pretrain");
    only_for(j, j->force, "--force", "train demo pretrain");
    only_for(j, j->out, "-o", "score sample");
    only_for(j, j->n, "-n", "sample");
    only_for(j, j->refine, "--refine", "sample");
    only_for(j, j->has_seed, "--seed", "train demo pretrain sample");
    only_for(j, j->policy_from, "--policy-from", "train demo");
    only_for(j, j->json, "--json", "evaluate");
}

static void parse(job *j, int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    while (args_next(&a)) {
        if (!*a.key && !j->command) j->command = a.word;
        else if (!*a.key && j->args < 3) j->arg[j->args++] = a.word;
        else if (!*a.key) wrong_usage("%.60s: is one word too many", a.word);
        else if (args_is(&a, "help") || args_is(&a, "h")) exit(help());
        else if (args_is(&a, "out")) j->dir = args_value(&a);
        else if (args_is(&a, "o")) j->out = args_value(&a);
        else if (args_is(&a, "n")) j->n = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "refine")) j->refine = args_int(&a, 0, 1000000);
        else if (args_is(&a, "json")) j->json = args_flag(&a);
        else if (args_is(&a, "valid")) j->valid_path = args_value(&a);
        else if (args_is(&a, "preset")) j->preset = args_value(&a);
        else if (args_is(&a, "policy_from")) j->policy_from = args_value(&a);
        else if (args_is(&a, "iterations")) j->iterations = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "minutes")) j->minutes = args_double(&a, 0.0, 1e6);
        else if (args_is(&a, "threads")) j->threads = args_threads(&a);
        else if (args_is(&a, "seed")) j->seed = args_u64(&a), j->has_seed = true;
        else if (args_is(&a, "device")) j->device.name = args_value(&a);
        else if (args_is(&a, "list_devices")) exit(device_list());
        else if (args_is(&a, "profile")) j->device.profile = args_flag(&a);
        else if (args_is(&a, "resume")) j->resume = args_flag(&a);
        else if (args_is(&a, "force")) j->force = args_flag(&a);
        else field(&a, &j->set);
    }
    check_command(j);
    if (j->resume && j->force) wrong_usage("--resume goes on with a run, --force starts anew: give one of "
                                           "them");
    if (j->dir && strlen(j->dir) > MAX_PATH_LENGTH - 64) wrong_usage("--out: the path is too long");
}

static void needs(const job *j, int count, const char *words)
{
    if (j->args > count) wrong_usage("%.60s: is one word too many", j->arg[count]);
    if (j->args < count) wrong_usage("ebm %s: needs %s", j->command, words);
}

/* ==== data ========================================================================================== */

static bool is_empty(const char *path, const rows *r)
{
    if (!r->n) say("%s: holds no rows", path);
    return !r->n;
}

/* Rows as the energy sees them. */
static vgs_status load_rows(const job *j, const char *path, rows *r, vgs_error *err)
{
    vgs_status st = read_rows(path, r, err);
    if (st == VGS_OK && r->dim != j->units.dim) {
        err->code = st = VGS_E_SHAPE;
        snprintf(err->msg, sizeof err->msg, "%.150s: has %d columns, the energy takes %d", path, r->dim,
                 j->units.dim);
    }
    if (st == VGS_OK) st = check_rows(path, r, j->config.sampler.on_sphere, err);
    if (st == VGS_OK) units_apply(&j->units, r);
    return st;
}

/* ==== presets ======================================================================================= */

static bool given_sphere(const job *j)
{
    vgs_config c = { .steps = 0 };
    fields_apply(&j->set.sampler, &c);
    return c.on_sphere;
}

/* In many dimensions gcd with VGS ranks badly and draws worse; an autoencoder's energy is another matter. */
static bool is_wide(const job *j)
{
    const char *kind = given(&j->set, "kind");
    return j->data.dim > LOW && !given_sphere(j) && !(kind && !strcmp(kind, "autoencoder")) &&
           !given_as(&j->set, "fit", "--fit-autoencoder");
}

static bool wants_dxmi(const job *j)
{
    const char *objective = given(&j->set, "objective");
    if (is(j, "pretrain")) return true;
    if (objective) return !strcmp(objective, "dxmi");
    return j->preset ? !strcmp(j->preset, "dxmi") : is(j, "demo") && is_wide(j);     /* pictures of digits */
}

/* The folder of the run whose policy this one takes over, or NULL. */
static const char *policy_dir(const job *j)
{
    return j->policy_from ? j->policy_from : j->pretrained ? j->dir : NULL;
}

/* Network, chain and units of the policy that is taken over; T only where none is given, or it is DIR's. */
static int adopt_policy(job *j)
{
    char path[1200];
    vgs_ebm_config from = { .fit = 0 };
    vgs_config *c = &j->config.sampler;
    vgs_safetensors *f;
    vgs_error err;
    int status = 0;
    if (!policy_dir(j)) return 0;
    if (!find_checkpoint(policy_dir(j), path, sizeof path)) return EXIT_FAILED;
    if (vgs_ebm_checkpoint_config(path, &from, NULL, &err)) return failed(j, &err);
    if (from.objective != VGS_DXMI || from.net.dim != j->data.dim) {
        say("%s: holds no policy of objective dxmi on %d columns", path, j->data.dim);
        return EXIT_FAILED;
    }
    c->policy = from.sampler.policy;
    c->schedule = from.sampler.schedule;
    c->alpha = from.sampler.alpha;
    c->s2_start = from.sampler.s2_start;
    c->s2_end = from.sampler.s2_end;
    c->length_scale = from.sampler.length_scale;
    c->steps = from.sampler.steps;
    if (!(f = vgs_safetensors_open(path, &err))) return failed(j, &err);
    if (units_read(&j->units, f, path, &err)) status = failed(j, &err);
    vgs_safetensors_free(f);
    return status;
}

/* The preset, by what is asked for where none is named. */
static void choose_preset(job *j)
{
    vgs_ebm_config *c = &j->config;
    if (is(j, "train") && !j->preset && !given(&j->set, "objective") && is_wide(j))
        say("%d columns: gcd learns such rows badly; to score them give --energy autoencoder "
            "--fit-autoencoder 2000 --objective none --iterations 500, to draw them --objective dxmi",
            j->data.dim);
    if (!j->preset) j->preset = given_sphere(j) ? "fast" : wants_dxmi(j) ? "dxmi" : "plane";
    if (!strcmp(j->preset, "plane")) j->goal = preset_plane(c);
    else if (!strcmp(j->preset, "dxmi")) j->goal = preset_dxmi(c, j->data.dim);
    else if (!strcmp(j->preset, "fast")) j->goal = preset_fast(c);
    else if (!strcmp(j->preset, "mvtec")) j->goal = preset_mvtec(c);
    else wrong_usage("--preset %.40s: must be one of: plane dxmi fast mvtec", j->preset);
    c->net.dim = j->data.dim;
    if (is(j, "pretrain")) c->objective = VGS_DXMI;
}

static bool is_image(vgs_net_kind kind) { return kind == VGS_NET_RESNET || kind == VGS_NET_UNET; }

/* What the preset has said of networks of another kind: `hidden` of images is channels. */
static void forget_other_networks(const job *j, vgs_ebm_config *c)
{
    if (c->net.kind != VGS_NET_AUTOENCODER) {
        c->net.unit = false;
        c->net.code = 0;
    }
    if (c->shared && !given(&j->set, "hidden")) c->net.hidden = 0;   /* they are the value's              */
    if (c->shared && !given(&j->set, "x_scale")) c->net.x_scale = 0;
    if (is_image(c->net.kind) && !given(&j->set, "hidden")) c->net.hidden = 0;
    if (is_image(c->sampler.net.kind) && !given_field(&j->set, "hidden")) c->sampler.net.hidden = 0;
    if (is_image(c->sampler.policy.kind) && !given_field(&j->set, "policy_hidden") && !policy_dir(j))
        c->sampler.policy.hidden = 0;
}

/* Whether there is pretraining, and of what. */
static void check_pretraining(const job *j, vgs_ebm_config *c)
{
    const bool policy = c->objective == VGS_DXMI;
    if (is(j, "pretrain") && !policy)
        wrong_usage("--objective %s: ebm pretrain makes a policy, which dxmi has",
                    given(&j->set, "objective"));
    if (policy_dir(j) && !policy) wrong_usage("--policy-from: needs --objective dxmi");
    if (policy_dir(j)) c->fit = 0;
    else if (!given(&j->set, "fit") &&
             (policy ? c->sampler.on_sphere : c->net.kind != VGS_NET_AUTOENCODER)) c->fit = 0;
    if (is(j, "pretrain") && !c->fit) wrong_usage("--pretrain 0: ebm pretrain has nothing else to do");
}

/* The configuration of a new run: a preset, over it the flags. */
static int configure(job *j)
{
    vgs_ebm_config *c = &j->config, resolved;
    vgs_error err;
    char text[TYPED];
    int steps;
    choose_preset(j);
    if (adopt_policy(j)) return EXIT_FAILED;
    steps = c->sampler.steps;
    fields_apply(&j->set.sampler, &c->sampler);
    if (j->pretrained && c->sampler.steps != steps)
        wrong_usage("--steps %d: the policy in %s has %d; for another number give --policy-from %s and "
                    "another --out", c->sampler.steps, j->dir, steps, j->dir);
    if (c->sampler.on_sphere && strcmp(j->preset, "plane") == 0) c->net.kind = VGS_NET_AUTOENCODER;
    for (int i = 0; i < j->set.n; ++i)
        vgs_ebm_field_set(c, j->set.energy[i].name, j->set.energy[i].value, NULL);
    forget_other_networks(j, c);
    check_pretraining(j, c);
    if (j->has_seed) c->sampler.seed = j->seed;
    if (j->iterations) j->goal = j->iterations;
    j->follows = !given(&j->set, "decay") && strcmp(j->preset, "mvtec") != 0;
    if (j->follows) c->decay = j->goal;
    if (!given_field(&j->set, "batch") && j->data.n && j->data.n < c->sampler.batch) {
        say("--batch %d: as many as there are rows", j->data.n);
        c->sampler.batch = j->data.n;
    }
    if (vgs_ebm_config_resolve(c, &resolved, &err)) wrong_usage("%s", typed_energy(&j->set, err.msg, text));
    refuse_useless(&j->set, &resolved);
    return 0;
}

/* ==== checkpoints =================================================================================== */

static const char *in_dir(const job *j, const char *file, char path[MAX_PATH_LENGTH])
{
    return in_folder(j->dir, file, path);
}

static vgs_status save(const job *j, vgs_error *err)
{
    char path[MAX_PATH_LENGTH], scale[32], rows_text[32], *mean = units_text(&j->units);
    const bool pretrained = is(j, "pretrain") && vgs_ebm_fitted(j->m) == vgs_ebm_settings(j->m)->fit;
    const char *meta[] = { "preset", j->preset, "iterations", j->goal_text, "data_scale", scale, "data_mean",
                           mean, "data_rows", rows_text, "decay_follows", j->follows ? "1" : "0",
                           pretrained ? "pretrained" : NULL, "1", NULL };
    vgs_status st = VGS_E_NOMEM;
    vgs_number_text(j->units.scale, scale);
    snprintf(rows_text, sizeof rows_text, "%d", j->begun_rows ? j->begun_rows : j->data.n);
    if (mean) st = vgs_ebm_save(j->m, in_dir(j, "checkpoint.safetensors", path), meta, err);
    else snprintf(err->msg, sizeof err->msg, "out of memory: %d columns", j->units.dim);
    if (!mean) err->code = st;
    free(mean);
    return st;
}

/* What may be another when a run goes on: E runs away by them, and its rate falls until the run ends. */
static bool may_change(const char *name)
{
    return !strcmp(name, "lr") || !strcmp(name, "gamma") || !strcmp(name, "limit") || !strcmp(name, "decay");
}

/* Flags that say what the checkpoint says anyway are fine. */
static void refuse_other(const job *j)
{
    fields_refuse(&j->set.sampler, &j->config.sampler, "--resume takes the configuration from there");
    if (j->has_seed && j->seed != j->config.sampler.seed)
        wrong_usage("--seed %llu: the checkpoint has %llu, and --resume takes it from there",
                    (unsigned long long)j->seed, (unsigned long long)j->config.sampler.seed);
    for (int i = 0; i < j->set.n; ++i) {
        vgs_ebm_config other = j->config;
        int k = vgs_ebm_field_find(j->set.energy[i].name);
        char has[32], wanted[32];
        if (may_change(j->set.energy[i].name)) continue;
        vgs_ebm_field_set(&other, j->set.energy[i].name, j->set.energy[i].value, NULL);
        vgs_ebm_field_get(&j->config, k, has);
        vgs_ebm_field_get(&other, k, wanted);
        if (!strcmp(has, wanted)) continue;
        fewest_digits(has);
        fewest_digits(wanted);
        wrong_usage("%s %s: the checkpoint has %s, and --resume takes the configuration from there",
                    j->set.energy[i].flag, wanted, has);
    }
}

/* What is another from here on; the rate of E falls until the run ends, if it did before. */
static void change_fields(job *j, int old_goal)
{
    vgs_ebm_config *c = &j->config;
    for (int i = 0; i < j->set.n; ++i)
        if (may_change(j->set.energy[i].name))
            vgs_ebm_field_set(c, j->set.energy[i].name, j->set.energy[i].value, NULL);
    if (given(&j->set, "decay")) j->follows = false;
    if (j->follows) c->decay = j->goal;
    if (j->follows && j->goal > old_goal)
        say("the rate of E falls until iteration %d, where it did until %d", j->goal, old_goal);
    else if (c->decay && c->decay < j->goal)
        say("from iteration %d on the rate of E is %.2g: --energy-decay %d lets it fall until the end",
            c->decay, (double)(c->lr * c->lr_end), j->goal);
}

/* Configuration, units and goal of the checkpoint. */
static vgs_status configure_from(job *j, const char *path, vgs_error *err)
{
    static char preset[64];
    vgs_safetensors *f = vgs_safetensors_open(path, err);
    const char *name, *follows;
    double goal = 1, n = 0;
    vgs_status st;
    int count = 0;
    if (!f) return err->code;
    st = vgs_ebm_checkpoint_config(path, &j->config, &count, err);
    if (st == VGS_OK && (!count || !j->config.net.dim)) {
        err->code = st = VGS_E_FORMAT;
        snprintf(err->msg, sizeof err->msg, "%.150s: holds no energy that ebm train has written", path);
    }
    name = vgs_safetensors_meta(f, "preset");
    snprintf(preset, sizeof preset, "%.60s", name ? name : "none");
    if (j->preset && strcmp(j->preset, preset))
        wrong_usage("--preset %.40s: the checkpoint has %s, and --resume takes it from there", j->preset,
                    preset);
    j->preset = preset;
    if (st == VGS_OK && !units_make(&j->units, j->config.net.dim)) exit(EXIT_FAILED);
    if (st == VGS_OK) st = units_read(&j->units, f, path, err);
    if (st == VGS_OK && vgs_safetensors_meta(f, "iterations"))
        st = vgs_safetensors_number(f, "iterations", &goal, err);
    if (st == VGS_OK && vgs_safetensors_meta(f, "data_rows"))
        st = vgs_safetensors_number(f, "data_rows", &n, err);
    j->begun_rows = n >= 1 && n <= INT_MAX ? (int)n : 0;
    follows = vgs_safetensors_meta(f, "decay_follows");
    j->follows = follows && *follows == '1';
    j->goal = goal >= 1 && goal <= INT_MAX ? (int)goal : 1;
    vgs_safetensors_free(f);
    return st;
}

static vgs_status create(job *j, vgs_error *err)
{
    j->config.sampler.threads = j->threads;
    if (device_open(&j->device, err)) return err->code;
    j->config.sampler.backend = j->device.backend;
    j->m = vgs_ebm_create(&j->config, err);
    if (!j->m) return err->code;
    j->config = *vgs_ebm_settings(j->m);
    return VGS_OK;
}

/* ==== training ====================================================================================== */

static double elapsed(const job *j) { return seconds_now() - j->started; }

/* Mean energy, by the averaged weights, of a thousand rows at most. */
static double mean_energy(const job *j, const rows *r)
{
    int n = r->n < 1000 ? r->n : 1000;
    float e[1000];
    double sum = 0;
    if (!n || vgs_ebm_score(j->m, r->x, n, e, NULL)) return (double)NAN;
    for (int i = 0; i < n; ++i) sum += (double)e[i] / n;
    return sum;
}

/* Whether data have more energy than negatives: by half, in the mean of the last measurements, and by three
   standard errors of that mean more. A batch's mean is noise; E and the sampler differ for longer. */
static bool data_above_draws(job *j)
{
    const vgs_ebm_stats *s = &j->stats;
    double mean = 0, square = 0;
    if (s->iteration <= 200 || !isfinite(s->e_draws)) return false;
    j->excess[j->measured++ % RECENT] = s->e_data - s->e_draws - 0.5 * fabs(s->e_draws) - 1e-3;
    if (j->measured < RECENT) return false;
    for (int i = 0; i < RECENT; ++i) mean += j->excess[i] / RECENT;
    for (int i = 0; i < RECENT; ++i) square += (j->excess[i] - mean) * (j->excess[i] - mean);
    return mean > 3 * sqrt(square / (RECENT * (RECENT - 1)));
}

/* What the user should know of how training goes, or "". */
static void find_warning(job *j)
{
    const vgs_ebm_stats *s = &j->stats;
    const char *advice = vgs_ebm_sampler(j->m) ? "lower --energy-lr or raise --energy-rounds"
                                               : "lower --energy-lr";
    const bool above = data_above_draws(j);
    j->warning[0] = '\0';
    if (s->spread < 0.05)
        snprintf(j->warning, sizeof j->warning, "all negatives are alike (spread %.3f of the data's): the "
                 "sampler has collapsed; %s", s->spread, advice);
    else if (s->gamma_share > 0.4 && j->config.objective != VGS_NO_SAMPLER)      /* which none follow     */
        snprintf(j->warning, sizeof j->warning, "%s: it stands at gamma's limit, |e| = 1/(2 gamma) = "
                 "%.3g; %s", vgs_ebm_sampler(j->m) ? "the sampler does not follow E"
                                                   : "negatives do not follow E",
                 0.5 / (double)j->config.gamma, advice);
    else if (above)
        snprintf(j->warning, sizeof j->warning, "data have more energy than negatives (%.3g, %.3g): the "
                 "sampler finds what E does not; %s", s->e_data, s->e_draws, advice);
    else if (s->drift_first < 0.05 && s->drift_last < 0.05 && s->iteration > 200)
        snprintf(j->warning, sizeof j->warning, "the drift of VGS is %.1f %% of its noise: negatives are "
                 "starts with more noise, so far", 100 * s->drift_last);
}

static int flush_log(const job *j)
{
    if (!fflush(j->log) && !ferror(j->log)) return 0;
    say("%s/log.jsonl: cannot be written: %s", j->dir, strerror(errno));
    return EXIT_FAILED;
}

static int write_log(job *j)
{
    const vgs_ebm_stats *s = &j->stats;
    json out = { j->log, false };
    json_open(&out, NULL, '{');
    json_i64(&out, "iteration", s->iteration);
    json_double(&out, "seconds", floor(1e3 * (j->earlier + elapsed(j))) / 1e3);
    json_double(&out, "loss", s->loss);
    json_double(&out, "e_data", s->e_data);
    json_double(&out, "e_start", s->e_start);
    json_double(&out, "e_draws", s->e_draws);
    json_double(&out, "g", s->scale);
    json_double(&out, "gamma_share", s->gamma_share);
    json_double(&out, "drift_first", s->drift_first);
    json_double(&out, "drift_last", s->drift_last);
    json_double(&out, "start_distance", s->start_distance);
    json_double(&out, "draw_distance", s->draw_distance);
    json_double(&out, "spread", s->spread);
    json_double(&out, "energy_train", mean_energy(j, &j->data));
    json_double(&out, "energy_valid", j->e_valid = mean_energy(j, &j->valid));
    if (j->warning[0]) json_string(&out, "warning", j->warning);
    json_close(&out, '}');
    json_line(&out);
    return flush_log(j);
}

/* A line of pretraining: its loss is the mean since the line before. */
static int write_fit_log(job *j, double loss)
{
    json out = { j->log, false };
    json_open(&out, NULL, '{');
    json_i64(&out, "iteration", vgs_ebm_iteration(j->m));
    json_double(&out, "seconds", floor(1e3 * (j->earlier + elapsed(j))) / 1e3);
    json_i64(&out, "fitted", vgs_ebm_fitted(j->m));
    json_double(&out, "fit_loss", loss);
    json_close(&out, '}');
    json_line(&out);
    return flush_log(j);
}

static double time_left(const job *j)            /* of training                                          */
{
    double done = (double)(vgs_ebm_iteration(j->m) - j->first), used = elapsed(j) - j->began;
    double left = ((double)j->goal - (double)vgs_ebm_iteration(j->m)) * used / (done > 0 ? done : 1);
    double by_clock = 60 * j->minutes - elapsed(j);
    if (j->minutes > 0 && by_clock < left) left = by_clock;
    return left > 0 ? left : 0;
}

static void show(const char *line, bool last)
{
    if (is_terminal()) fprintf(stderr, "\r%-100.100s%s", line, last ? "\n" : "");
    else fprintf(stderr, "%s\n", line);
}

/* One line that is overwritten on a terminal; elsewhere a line every five seconds. */
static void show_progress(const job *j, double *shown, bool last)
{
    const vgs_ebm_stats *s = &j->stats;
    char line[256], left[32];
    int at;
    if (!is_terminal() && !last && elapsed(j) - *shown < 5) return;
    *shown = elapsed(j);
    at = snprintf(line, sizeof line, "%lld/%d  e+ %.4g", (long long)s->iteration, j->goal, s->e_data);
    if (isfinite(s->e_draws)) at += snprintf(line + at, sizeof line - (size_t)at, "  e- %.4g", s->e_draws);
    if (isfinite(s->scale)) at += snprintf(line + at, sizeof line - (size_t)at, "  g %.3f", s->scale);
    if (isfinite(s->draw_distance))
        at += snprintf(line + at, sizeof line - (size_t)at, "  distance %.3g", s->draw_distance);
    snprintf(line + at, sizeof line - (size_t)at, "  %s left%s%.*s", duration(time_left(j), left),
             j->warning[0] ? "  ! " : "", (int)strcspn(j->warning, ":(,"), j->warning);
    show(line, last);
    if (j->warning[0] && last) say("%s", j->warning);
}

static bool time_is_up(const job *j) { return j->minutes > 0 && elapsed(j) >= 60 * j->minutes; }

/* The time of pretraining is up: the policy, or E, is as good as it is then. */
static int pretrain_late(job *j)
{
    vgs_error err;
    int64_t done = vgs_ebm_fitted(j->m);
    int fit = vgs_ebm_settings(j->m)->fit;
    if (vgs_ebm_fit_end(j->m, &err) || save(j, &err)) return failed(j, &err);
    say("pretraining ends after %lld of %d iterations: %s", (long long)done, fit,
        is(j, "pretrain") ? "the minutes are up" : "its third of the minutes is up");
    return 0;
}

/* Pretraining as an autoencoder, or of the policy as a denoising diffusion model. */
static int pretrain(job *j, const vgs_data *data)
{
    vgs_error err;
    char line[128], text[32];
    double shown = -1e9, saved = 0, due = 0, sum = 0, left;
    int fitted = 0;                              /* since the last line of the log                    */
    const bool policy = j->config.objective == VGS_DXMI;
    const double share = is(j, "pretrain") ? 1 : 1.0 / 3, began = elapsed(j);
    const int64_t first = vgs_ebm_fitted(j->m);
    int fit = vgs_ebm_settings(j->m)->fit;
    while (!stop && vgs_ebm_iteration(j->m) == 0 && vgs_ebm_fitted(j->m) < fit) {
        if (j->minutes > 0 && elapsed(j) >= share * 60 * j->minutes) return pretrain_late(j);
        if (vgs_ebm_fit(j->m, data, 1, &j->fit_loss, &err)) return failed(j, &err);
        sum += j->fit_loss;
        ++fitted;
        left = (double)(fit - vgs_ebm_fitted(j->m)) / (double)(vgs_ebm_fitted(j->m) - first);
        left *= elapsed(j) - began;
        if (j->minutes > 0) left = fmin(left, share * 60 * j->minutes - elapsed(j));
        if (vgs_ebm_fitted(j->m) == first + 3 && left > LONG)
            say("pretraining: %d iterations, about %s", fit - (int)first, duration(left, text));
        if (elapsed(j) >= due || vgs_ebm_fitted(j->m) == fit) {
            if (write_fit_log(j, sum / fitted)) return EXIT_FAILED;
            sum = fitted = 0;
            due = elapsed(j) + fmin((j->earlier + elapsed(j)) / 20 + 0.1, 2);
        }
        if (elapsed(j) - saved > 60 && (saved = elapsed(j), save(j, &err))) return failed(j, &err);
        if (elapsed(j) - shown < (is_terminal() ? 0.2 : 5) && vgs_ebm_fitted(j->m) < fit) continue;
        shown = elapsed(j);
        snprintf(line, sizeof line, "%s %lld/%d  %s %.4g  %s left", policy ? "policy" : "autoencoder",
                 (long long)vgs_ebm_fitted(j->m), fit, policy ? "|eps - net|^2/D" : "|x - r|^2", j->fit_loss,
                 duration(fmax(left, 0), text));
        show(line, vgs_ebm_fitted(j->m) == fit);
    }
    return 0;
}

/* The iteration at which training will end, by its number or by the clock. */
static int last_iteration(const job *j)
{
    double done = (double)(vgs_ebm_iteration(j->m) - j->first), used = elapsed(j) - j->began;
    double last = (double)vgs_ebm_iteration(j->m) + time_left(j) * done / (used > 0 ? used : 1);
    return j->minutes > 0 && done > 0 && last < j->goal ? (int)last : j->goal;
}

/* Memory and time of what will take long. */
static void announce_run(const job *j)
{
    char a[32], b[32];
    double left = time_left(j), bytes = (double)vgs_ebm_bytes(j->m);
    if (left < 60 && bytes < 2e8) return;
    say("%d weights, %s of memory; about %s for %d iterations", vgs_model_size(vgs_ebm_model(j->m, false)),
        size_text(bytes, ceil, a), duration(left, b), last_iteration(j) - (int)j->first);
}

static int train_loop(job *j, const vgs_data *data)
{
    vgs_error err;
    double due = 0, shown = -1e9, saved = 0, before;
    bool last = stop || vgs_ebm_iteration(j->m) >= j->goal, measured;
    int status = 0;
    if (vgs_ebm_train(j->m, data, 0, &j->stats, &err)) return failed(j, &err);        /* g; the rest is NaN */
    j->began = elapsed(j);
    while (!last && !status) {                   /* the last iteration is always measured             */
        before = elapsed(j);
        if (j->follows && j->minutes > 0) vgs_ebm_decay(j->m, last_iteration(j));
        last = stop || time_is_up(j) || vgs_ebm_iteration(j->m) + 1 >= j->goal;
        measured = last || before >= due;
        if (vgs_ebm_train(j->m, data, 1, measured ? &j->stats : NULL, &err))
            return failed(j, &err);                                       /* the last checkpoint stays     */
        if (vgs_ebm_iteration(j->m) == j->first + 3) announce_run(j);
        if (measured) {
            find_warning(j);
            show_progress(j, &shown, last);
            status = write_log(j);
            due = elapsed(j) + fmax(fmin((j->earlier + before) / 20 + 0.1, 2), 5 * (elapsed(j) - before));
        }
        if (last || elapsed(j) - saved < 60) continue;
        if (save(j, &err)) return failed(j, &err);
        saved = elapsed(j);
    }
    if (save(j, &err)) return failed(j, &err);
    return status;
}

/* Whether ebm pretrain has written the file, and no training has followed. */
static bool is_pretrained(const char *path)
{
    vgs_safetensors *f = vgs_safetensors_open(path, NULL);
    bool yes = f && vgs_safetensors_meta(f, "pretrained");
    vgs_safetensors_free(f);
    return yes;
}

/* Whether DIR may be written into: what --resume and --force say fits what is there. */
static bool may_write(job *j)
{
    char path[MAX_PATH_LENGTH];
    bool there = file_exists(in_dir(j, "checkpoint.safetensors", path));
    if (there && is(j, "train") && wants_dxmi(j) && !given(&j->set, "fit") && !j->policy_from)
        j->pretrained = !j->resume && !j->force && is_pretrained(path);
    if (there && !j->resume && !j->force && !j->pretrained)
        wrong_usage("%s holds a run: --resume goes on with it, --force starts anew, --out takes another "
                    "folder", j->dir);
    if (!there && j->resume)
        wrong_usage("%s: no checkpoint.safetensors there to go on with; without --resume a run starts there",
                    j->dir);
    return !j->resume || !taken(j->dir);
}

/* The configuration and the units, but for what units_measure finds. */
static int choose(job *j)
{
    char path[MAX_PATH_LENGTH];
    vgs_error err;
    int goal;
    if (!j->resume) return units_make(&j->units, j->data.dim) ? configure(j) : EXIT_FAILED;
    if (configure_from(j, in_dir(j, "checkpoint.safetensors", path), &err)) return failed(j, &err);
    refuse_other(j);
    goal = j->goal;
    if (j->iterations) j->goal = j->iterations;
    change_fields(j, goal);
    if (j->begun_rows && j->begun_rows != j->data.n)
        say("%d rows, where training began with %d: batches are others from here on", j->data.n,
            j->begun_rows);
    if (j->units.dim == j->data.dim) return 0;
    say("the data have %d columns, the checkpoint's %d", j->data.dim, j->units.dim);
    return EXIT_FAILED;
}

/* The data, and those of --valid or of a demo that are held out, in the units of the energy. */
static int convert_data(job *j)
{
    const bool sphere = j->config.sampler.on_sphere;
    vgs_error err;
    if (is_empty(j->arg[j->args - 1], &j->data)) return EXIT_FAILED;
    if (check_rows(j->arg[j->args - 1], &j->data, sphere, &err)) return failed(j, &err);
    if (!j->resume && !sphere && !policy_dir(j)) units_measure(&j->units, &j->data);
    units_apply(&j->units, &j->data);
    if (j->valid_path) {
        free(j->valid.x);                        /* of a demo, which has rows of its own              */
        if (load_rows(j, j->valid_path, &j->valid, &err)) return failed(j, &err);
        if (is_empty(j->valid_path, &j->valid)) return EXIT_FAILED;
    } else units_apply(&j->units, &j->valid);
    if (rows_alike(&j->data, sphere)) {
        say("%s: all rows are alike: there is nothing to learn", j->arg[j->args - 1]);
        return EXIT_FAILED;
    }
    if (j->data.n >= j->config.sampler.batch) return 0;
    say("%d rows: fewer than --batch %d", j->data.n, j->config.sampler.batch);
    return EXIT_FAILED;
}

static int open_log(job *j)
{
    char path[MAX_PATH_LENGTH];
    vgs_error err;
    in_dir(j, "log.jsonl", path);
    if (j->resume && trim_log(path, (double)j->first, &j->earlier, &err)) return failed(j, &err);
    j->log = fopen(path, j->resume || j->pretrained ? "ab" : "wb");      /* on behind pretraining's         */
    if (j->log) return 0;
    say("%s: cannot be opened for writing: %s", path, strerror(errno));
    return EXIT_FAILED;
}

/* Data, configuration, model, folder. */
static int start(job *j)
{
    char path[MAX_PATH_LENGTH];
    vgs_error err;
    if (!may_write(j) || choose(j) || convert_data(j)) return EXIT_FAILED;
    if (create(j, &err)) return failed(j, &err);
    if (j->resume && vgs_ebm_load(j->m, in_dir(j, "checkpoint.safetensors", path), &err))
        return failed(j, &err);
    if (policy_dir(j) && (!find_checkpoint(policy_dir(j), path, sizeof path) ||
                          vgs_ebm_load_policy(j->m, path, &err))) return failed(j, &err);
    j->first = vgs_ebm_iteration(j->m);
    if (j->first > j->goal) j->goal = j->first < INT_MAX ? (int)j->first : INT_MAX;
    snprintf(j->goal_text, sizeof j->goal_text, "%d", j->goal);
    if (make_dir(j->dir) || (!j->resume && taken(j->dir))) return EXIT_FAILED;
    if (j->force) remove(in_dir(j, "report.html", path));
    return save(j, &err) ? failed(j, &err) : open_log(j);
}

static bool is_policy_alone(const job *j)
{
    return j->config.objective == VGS_DXMI && vgs_ebm_iteration(j->m) == 0;
}

/* Whether path weights give log Z. */
static bool is_trusted(const vgs_weights *w) { return w->verdict != VGS_VERDICT_UNUSABLE; }

#include "ebm_report.h"

/* ==== results ======================================================================================== */

static void results_free(results *r)
{
    free(r->draws);
    free(r->e_draws);
    free(r->e_data);
    free(r->e_valid);
    free(r->log_weight);
    free(r->path);
}

static bool has_weights(const job *j)            /* before training a policy knows no E                  */
{
    return vgs_ebm_sampler(j->m) && j->config.starts == VGS_STARTS_NOISE && !is_policy_alone(j);
}

/* log p of rows with energies e: -E/tau - log Z - D log scale; its error is that of both means. */
static void likelihood(const job *j, const float *e, int n, const vgs_weights *w, double *mean, double *se)
{
    double sum = 0, squares = 0, tau = (double)j->config.sampler.tau;
    for (int i = 0; i < n; ++i) sum += (double)e[i] / tau;
    for (int i = 0; i < n; ++i) squares += pow((double)e[i] / tau - sum / n, 2);
    *mean = -sum / n - w->log_z - j->units.dim * log(j->units.scale);
    *se = sqrt(squares / n / n + w->log_z_se * w->log_z_se);
}

static float *score_new(const job *j, const rows *r, int n, vgs_error *err)
{
    float *e = malloc((size_t)n * sizeof *e + 1);
    if (e && !vgs_ebm_score(j->m, r->x, n, e, err)) return e;
    if (!e) snprintf(err->msg, sizeof err->msg, "out of memory: %d energies", n), err->code = VGS_E_NOMEM;
    free(e);
    return NULL;
}

static int least(int a, int b) { return a < b ? a : b; }

/* In the plane, of a sampler that starts from noise. */
static vgs_status make_paths(const job *j, results *r, vgs_error *err)
{
    size_t times = (size_t)j->config.sampler.steps + 1;
    vgs_draw d = { .seed = 1 };
    float *x;
    vgs_status st;
    if (j->units.dim != 2 || !vgs_ebm_sampler(j->m) || j->config.starts != VGS_STARTS_NOISE ||
        j->config.sampler.on_sphere) return VGS_OK;
    x = room_for(PATH_ROWS * 2, sizeof *x);
    d.path = r->path = room_for(times * PATH_ROWS * 2, sizeof *x);
    st = vgs_ebm_sample(j->m, &d, PATH_ROWS, x, err);
    free(x);
    return st;
}

/* Draws and scores rows with this seed; their seconds. */
static vgs_status time_rows(const job *j, results *r, int n, double *seconds, vgs_error *err)
{
    vgs_draw d = { .seed = 1 };
    const double before = seconds_now();
    vgs_status st = vgs_ebm_sample(j->m, &d, n, r->draws, err);
    if (st == VGS_OK) st = vgs_ebm_score(j->m, r->draws, n, r->e_draws, err);
    *seconds = seconds_now() - before;
    return st;
}

/* As many draws as REPORT seconds are enough for, by the time of a few, and those at least. */
static vgs_status choose_draws(const job *j, results *r, vgs_error *err)
{
    double seconds = 0, all = 0;
    int few = 8;
    char text[32];
    vgs_status st;
    do {                                         /* what is over at once tells nothing                */
        few = least(2 * few, r->n);
        if ((st = time_rows(j, r, few, &seconds, err)) != VGS_OK) return st;
        all = seconds * r->n / few;
    } while (all > REPORT && seconds < 0.5 && few < r->n);
    if (all > REPORT) {
        r->n = least(r->n, (int)fmax(few, REPORT / seconds * few));
        all = seconds * r->n / few;
    }
    if (all > 3) say("measuring: %d draws, about %s", r->n, duration(all, text));
    return VGS_OK;
}

static vgs_status make_results(const job *j, results *r, vgs_error *err)
{
    vgs_draw d = { .seed = 0 };
    const float *likely;
    const vgs_ebm_objective of = j->config.objective;
    r->n = of == VGS_NO_SAMPLER || of == VGS_DISCREPANCY || j->units.dim > 256 ? SLOW_ROWS : SHOWN_ROWS;
    r->n_data = least(SHOWN_ROWS, j->data.n);
    r->n_valid = least(SHOWN_ROWS, j->valid.n);
    r->draws = malloc((size_t)r->n * (size_t)j->units.dim * sizeof *r->draws);
    r->e_draws = malloc((size_t)r->n * sizeof *r->e_draws);
    r->log_weight = malloc((size_t)r->n * sizeof *r->log_weight);
    if (!r->draws || !r->e_draws || !r->log_weight) {
        snprintf(err->msg, sizeof err->msg, "out of memory: %d draws", r->n);
        return err->code = VGS_E_NOMEM;
    }
    r->weighted = has_weights(j);
    if (r->weighted) d.log_weight = r->log_weight;
    if (vgs_ebm_average(j->m, err) || choose_draws(j, r, err) ||
        vgs_ebm_sample(j->m, &d, r->n, r->draws, err) ||
        vgs_ebm_score(j->m, r->draws, r->n, r->e_draws, err) ||
        !(r->e_data = score_new(j, &j->data, r->n_data, err)) ||
        !(r->e_valid = score_new(j, &j->valid, r->n_valid, err)) || make_paths(j, r, err)) return err->code;
    if (!r->weighted) return VGS_OK;
    if (vgs_weigh(r->log_weight, r->n, &r->weights, err)) return err->code;
    likely = r->n_valid ? r->e_valid : r->e_data;
    likelihood(j, likely, r->n_valid ? r->n_valid : r->n_data, &r->weights, &r->log_likelihood,
               &r->log_likelihood_se);
    return VGS_OK;
}

static int finish(job *j)
{
    vgs_error err;
    results r = { .n = 0 };
    char text[32];
    int status = 0;
    if (make_results(j, &r, &err) || write_report(j, &r, &err)) status = failed(j, &err);
    else {
        printf("%s: %lld iterations%s, %s\n", j->args > 1 ? j->arg[1] : j->arg[0],
               (long long)(is_policy_alone(j) ? vgs_ebm_fitted(j->m) : vgs_ebm_iteration(j->m)),
               is_policy_alone(j) ? " of pretraining" : "", duration(j->earlier + elapsed(j), text));
        if (r.weighted && !is_trusted(&r.weights))
            printf("no log-likelihood: the path weights do not give log Z, ESS/N %.3f\n", r.weights.ess);
        else if (r.weighted)
            printf("log-likelihood %.4f +- %.4f a row of %s, log Z %.4f, ESS/N %.3f\n", r.log_likelihood,
                   r.log_likelihood_se, j->valid.n ? "held-out data" : "the data", r.weights.log_z,
                   r.weights.ess);
        printf("report %s/report.html\n", j->dir);
        status = finish_stdout();
    }
    results_free(&r);
    return status;
}

/* ==== train and demo ================================================================================ */

static int train(job *j)
{
    vgs_data data = { .x = j->data.x, .rows = j->data.n, .dim = j->data.dim };
    vgs_error err;
    int status = start(j);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (!status) status = pretrain(j, &data);
    if (!status && is(j, "pretrain")) status = vgs_ebm_train(j->m, &data, 0, &j->stats, &err) || save(j, &err)
                                             ? failed(j, &err) : 0;
    else if (!status) status = train_loop(j, &data);
    if (!status && !stop) {
        snprintf(last_words, sizeof last_words, "\n" PROGRAM ": stopped while measuring: the checkpoint is "
                 "in %s, the report is not made\n", j->dir);
        signal(SIGINT, on_signal_measuring);
        signal(SIGTERM, on_signal_measuring);
        status = finish(j);
    } else if (!status) {
        const bool fits = vgs_ebm_iteration(j->m) == 0 && vgs_ebm_fitted(j->m) < vgs_ebm_settings(j->m)->fit;
        say("stopped at iteration %lld%s, which is saved; the same command with --resume goes on",
            (long long)(fits ? vgs_ebm_fitted(j->m) : vgs_ebm_iteration(j->m)),
            fits ? " of pretraining" : "");
        status = EXIT_STOPPED;
    }
    if (j->log && fclose(j->log) && !status) {
        say("%s/log.jsonl: cannot be written", j->dir);
        status = EXIT_FAILED;
    }
    return status;
}

static int command_train(job *j)
{
    vgs_error err;
    needs(j, 1, "the file of the data, and --out DIR");
    if (!j->dir) wrong_usage("--out is missing: where does the run go?");
    if (read_rows(j->arg[0], &j->data, &err)) return failed(j, &err);
    return train(j);
}

static int command_demo(job *j)
{
    vgs_rng r = { .seed = 20000 };
    vgs_error err;
    plane p;
    if (j->args < 1 || !j->dir) wrong_usage("ebm demo: needs a shape (8gauss, rings, moons, arms), or "
                                            "digits and a file; and --out DIR");
    if (!strcmp(j->arg[0], "digits")) {
        needs(j, 2, "digits FILE.npy, pictures of 8 x 8 as rows of 64");
        if (read_rows(j->arg[1], &j->data, &err)) return failed(j, &err);
        if (j->data.dim == 64) return train(j);
        say("%s: has %d columns, pictures of 8 x 8 have 64", j->arg[1], j->data.dim);
        return EXIT_FAILED;
    }
    needs(j, 1, "one shape");
    if (!plane_find(j->arg[0], &p)) wrong_usage("demo %.40s: must be one of: 8gauss rings moons arms digits",
                                                j->arg[0]);
    j->data = (rows){ malloc(DEMO_ROWS * 2 * sizeof(float)), DEMO_ROWS, 2 };
    j->valid = (rows){ malloc(DEMO_ROWS * 2 * sizeof(float)), DEMO_ROWS, 2 };
    if (!j->data.x || !j->valid.x) {
        say("out of memory: %d rows", DEMO_ROWS);
        return EXIT_FAILED;
    }
    plane_sample(&p, &r, DEMO_ROWS, (float (*)[2])(void *)j->data.x);
    plane_sample(&p, &r, DEMO_ROWS, (float (*)[2])(void *)j->valid.x);
    return train(j);
}

/* ==== score, sample, evaluate ======================================================================= */

/* The run in DIR, with its averaged weights everywhere. */
static int open_run(job *j, const char *dir)
{
    char path[1200];
    vgs_error err;
    if (!find_checkpoint(dir, path, sizeof path)) return EXIT_FAILED;
    j->dir = dir;
    if (j->set.n || j->set.sampler.n) wrong_usage("ebm %s: takes its settings from the run", j->command);
    if (configure_from(j, path, &err) || create(j, &err) || vgs_ebm_load(j->m, path, &err) ||
        vgs_ebm_average(j->m, &err)) return failed(j, &err);
    return 0;
}

static bool lacks_energy(const job *j)
{
    if (!is_policy_alone(j)) return false;
    say("%s: holds a pretrained policy, and no energy yet: ebm train DATA --objective dxmi --out %s learns "
        "one", j->dir, j->dir);
    return true;
}

static int command_score(job *j)
{
    vgs_error err;
    float *e;
    int status = 0;
    needs(j, 2, "DIR DATA -o FILE.npy");
    if (!j->out || !ends_with(j->out, ".npy")) wrong_usage("-o FILE.npy: where do the energies go?");
    if (open_run(j, j->arg[0]) || lacks_energy(j)) return EXIT_FAILED;
    if (load_rows(j, j->arg[1], &j->data, &err)) return failed(j, &err);
    e = score_new(j, &j->data, j->data.n, &err);
    if (!e || vgs_npy_write(j->out, e, j->data.n, 1, &err)) status = failed(j, &err);
    else say("%s: %d energies", j->out, j->data.n);
    free(e);
    return status;
}

static vgs_status write_draws(const job *j, const float *x, const float *e, const double *log_weight,
                              vgs_error *err)
{
    uint64_t shape[2] = { (uint64_t)j->n, (uint64_t)j->units.dim };
    vgs_writer *w;
    vgs_status st;
    if (ends_with(j->out, ".npy")) return vgs_npy_write(j->out, x, j->n, j->units.dim, err);
    if (!(w = vgs_writer_create(err))) return err->code;
    vgs_writer_tensor(w, "x", VGS_DTYPE_F32, 2, shape, x);
    vgs_writer_tensor(w, "energy", VGS_DTYPE_F32, 1, shape, e);
    if (log_weight) vgs_writer_tensor(w, "log_weight", VGS_DTYPE_F64, 1, shape, log_weight);
    st = vgs_writer_save(w, j->out, err);
    vgs_writer_free(w);
    return st;
}

/* K iterations of HMC on E. */
static vgs_status refine(const job *j, float *x, double *log_weight, vgs_error *err)
{
    vgs_mcmc_config m = { .energy = vgs_ebm_energy(j->m), .tau = (double)j->config.sampler.tau,
                          .length_scale = (double)j->config.sampler.length_scale,
                          .seed = j->seed, .threads = j->threads };
    vgs_mcmc_stats st;
    if (vgs_refine(&m, j->refine, log_weight, j->n, x, &st, err)) return err->code;
    say("refined: %d iterations, acceptance %.2f, mean energy %.4f", j->refine, st.acceptance,
        st.energy_mean);
    return VGS_OK;
}

static vgs_status draw_rows(const job *j, float *x, float *e, double *log_weight, vgs_error *err)
{
    vgs_draw d = { .seed = j->seed };
    if (has_weights(j)) d.log_weight = log_weight;
    if (vgs_ebm_sample(j->m, &d, j->n, x, err)) return err->code;
    if (j->refine && refine(j, x, d.log_weight, err)) return err->code;
    if (vgs_ebm_score(j->m, x, j->n, e, err)) return err->code;
    units_undo(&j->units, x, j->n);
    return write_draws(j, x, e, j->refine ? NULL : d.log_weight, err);
}

static int command_sample(job *j)
{
    vgs_error err;
    size_t n = (size_t)j->n;
    double row;
    float *x, *e;
    double *log_weight;
    int status = EXIT_FAILED;
    needs(j, 1, "DIR -n N -o FILE");
    if (!j->n) wrong_usage("-n is missing: how many rows?");
    if (!j->out || (!ends_with(j->out, ".npy") && !ends_with(j->out, ".safetensors")))
        wrong_usage("-o: the name must end in .npy or .safetensors");
    if (open_run(j, j->arg[0])) return EXIT_FAILED;
    if (j->refine && j->config.sampler.on_sphere) wrong_usage("--refine: not on the sphere");
    row = 4.0 * j->units.dim;
    if (!has_room(j->out, j->n, j->n * (2 * row + 12), j->n * (row + 12))) return EXIT_FAILED;
    x = malloc(n * (size_t)j->units.dim * sizeof *x);
    e = malloc(n * sizeof *e);
    log_weight = malloc(n * sizeof *log_weight);
    if (!x || !e || !log_weight) say("out of memory: %d rows", j->n);
    else if (draw_rows(j, x, e, log_weight, &err)) failed(j, &err);
    else {
        say("%s: %d x %d", j->out, j->n, j->units.dim);
        status = 0;
    }
    free(x);
    free(e);
    free(log_weight);
    return status;
}

typedef struct verdict {
    double auroc, precision, good, bad;          /* good, bad: mean E                                     */
    double log_likelihood, log_likelihood_se;    /* of a good row, if `likely`                            */
    bool likely;
} verdict;

/* The mean log-likelihood of good rows, from 10 000 path weights. */
static vgs_status find_likelihood(const job *j, const float *e, int n, verdict *v, vgs_error *err)
{
    float *x = (float *)room_for(SHOWN_ROWS * (size_t)j->units.dim, sizeof *x);
    double *log_weight = (double *)room_for(SHOWN_ROWS, sizeof *log_weight);
    vgs_draw d = { .log_weight = log_weight };
    vgs_weights w;
    vgs_status st = vgs_ebm_sample(j->m, &d, SHOWN_ROWS, x, err);
    if (st == VGS_OK) st = vgs_weigh(log_weight, SHOWN_ROWS, &w, err);
    if (st == VGS_OK) likelihood(j, e, n, &w, &v->log_likelihood, &v->log_likelihood_se);
    v->likely = st == VGS_OK && is_trusted(&w);
    free(x);
    free(log_weight);
    return st;
}

static int print_verdict(const job *j, const verdict *v)
{
    json out = { stdout, false };
    if (!j->json) {
        printf("AUROC %.4f, average precision %.4f; mean E: good %.4f, bad %.4f\n", v->auroc, v->precision,
               v->good, v->bad);
        if (v->likely) printf("log-likelihood %.4f +- %.4f a good row\n", v->log_likelihood,
                              v->log_likelihood_se);
        return finish_stdout();
    }
    json_open(&out, NULL, '{');
    json_double(&out, "auroc", v->auroc);
    json_double(&out, "average_precision", v->precision);
    json_double(&out, "energy_good", v->good);
    json_double(&out, "energy_bad", v->bad);
    if (v->likely) json_double(&out, "log_likelihood", v->log_likelihood);
    if (v->likely) json_double(&out, "log_likelihood_se", v->log_likelihood_se);
    json_close(&out, '}');
    json_line(&out);
    return finish_stdout();
}

static int command_evaluate(job *j)
{
    vgs_error err;
    verdict v = { 0 };
    rows *file[2] = { &j->data, &j->valid };
    float *e[2] = { NULL, NULL };
    scored *s = NULL;
    roc_bins roc;
    int status = EXIT_FAILED, at = 0;
    needs(j, 3, "DIR GOOD BAD");
    if (open_run(j, j->arg[0]) || lacks_energy(j)) return EXIT_FAILED;
    for (int k = 0; k < 2; ++k) {
        if (load_rows(j, j->arg[1 + k], file[k], &err)) goto failed;
        if (is_empty(j->arg[1 + k], file[k])) goto done;
        if (!(e[k] = score_new(j, file[k], file[k]->n, &err))) goto failed;
    }
    s = (scored *)room_for((size_t)j->data.n + (size_t)j->valid.n, sizeof *s);
    for (int k = 0; k < 2; ++k)
        for (int i = 0; i < file[k]->n; ++i) {
            s[at++] = (scored){ (double)e[k][i], k == 1 };
            *(k ? &v.bad : &v.good) += (double)e[k][i] / file[k]->n;
        }
    roc = roc_of_images(s, at);
    v.auroc = roc_area(roc.good, roc.bad, roc.n);
    v.precision = average_precision(roc.good, roc.bad, roc.n);
    roc_free(&roc);
    if (has_weights(j) && find_likelihood(j, e[0], j->data.n, &v, &err)) goto failed;
    status = print_verdict(j, &v);
    goto done;
failed:
    failed(j, &err);
done:
    free(e[0]);
    free(e[1]);
    free(s);
    return status;
}

int main(int argc, char **argv)
{
    job j = { .refine = 0 };
    int status = EXIT_USAGE;
    parse(&j, argc, argv);
    j.started = seconds_now();
    if (is(&j, "train") || is(&j, "pretrain")) status = command_train(&j);
    else if (is(&j, "demo")) status = command_demo(&j);
    else if (is(&j, "score")) status = command_score(&j);
    else if (is(&j, "sample")) status = command_sample(&j);
    else status = command_evaluate(&j);
    vgs_ebm_free(j.m);
    device_close(&j.device);
    free(j.data.x);
    free(j.valid.x);
    free(j.units.mean);
    return status;
}
