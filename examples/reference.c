/* reference.c - reference samples of a built-in target by classical samplers, with what they are worth
   cc -O2 examples/reference.c -o reference -lm         (add -fopenmp to use all cores: the same bits)
   ./reference lj13 -n 2000 -o x.npy                    (./reference --help tells the rest) */
#define _POSIX_C_SOURCE 200809L                  /* clock_gettime; must precede every include */
#define VGS_IMPLEMENTATION
#include "../vgs.h"
#define PROGRAM "reference"
#include "json.h"
#include "on_target.h"
#include "room.h"
#ifdef _WIN32
#  include <io.h>
#  define is_terminal() _isatty(2)
#else
#  include <unistd.h>
#  define is_terminal() isatty(2)
#endif

enum { EXACT = -1 };                             /* beside vgs_mcmc_method                    */

typedef struct options {
    const char *target, *out;
    int n, method;
    bool method_given, json;
    device device;
    vgs_mcmc_config c;
} options;

static int help(void)
{
    puts("reference - reference samples of a built-in target by classical samplers\n"
         "\n"
         "usage: reference TARGET -n N -o FILE.npy [options]\n"
         "\n"
         "  -n N                  number of samples\n"
         "  -o FILE.npy           float32 [N, D]; particles have mean 0 and are turned, reflected and\n"
         "                        permuted at random\n"
         "  --method NAME         exact, pt (parallel tempering), hmc, mala, metropolis, or lmc (Langevin\n"
         "                        without correction: wrong by its step). Default: exact where it exists,\n"
         "                        pt for dw4, hmc for lj13 and lj55\n"
         "  --local NAME          of pt, between swaps: hmc, mala or metropolis (hmc)\n"
         "  --seed N              same seed, same rows (0)\n"
         "  --calls LIMIT         energy calls at most, counted by row, one with gradient as one; a third\n"
         "                        at most for the burn-in (0: as many as --burn-in and --thin take)\n"
         "  --chains N            chains, or ladders of pt (16; lj55 32)\n"
         "  --burn-in N           iterations before the first sample (4000; metropolis 20000)\n"
         "  --thin N              iterations from one sample of a chain to the next (by target and method)\n"
         "  --leapfrog N          mean number of leapfrog steps (10, in pt 5)\n"
         "  --levels N            replicas of a ladder (0: as many as are needed)\n"
         "  --step S              first step size; lmc: the step size\n"
         "  --acceptance A        aimed at (hmc 0.8, mala 0.574, metropolis 0.234)\n"
         "  --json                one JSON object instead of lines\n"
         "  --threads N           0 = all that there are (0); more than 1 needs a build with -fopenmp\n"
         DEVICE_HELP
         "\n"
         "On a device run energies and gradients only, those of up to 64 chains at a time; the chains\n"
         "themselves stay on the processor, on one thread. That pays for --chains 64 and more at most, and\n"
         "hardly for targets as cheap as these.\n"
         "\n"
         "R-hat (at most 1.01 for chains that agree) and ESS are those of the worst of: the energy and\n"
         "every coordinate; for particles the energy, |x|^2, nearest and farthest pair.\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage.");
    print_targets();
    puts("\nExamples:\n"
         "  reference dw4 -n 20000 -o dw4.npy --seed 1\n"
         "  reference gmm40 -n 10000 -o x.npy --method pt --calls 1e7");
    return finish_stdout();
}

static int find_method(const char *name)
{
    if (!strcmp(name, "exact")) return EXACT;
    for (int i = 0; vgs_mcmc_method_name(i); ++i)
        if (!strcmp(vgs_mcmc_method_name(i), name)) return i;
    wrong_usage("%.40s: there is no such method: exact, pt, hmc, mala, metropolis, lmc", name);
    return EXACT;
}

static vgs_mcmc_method find_local(const char *name)
{
    int m = find_method(name);
    if (m < VGS_HMC || m > VGS_METROPOLIS) wrong_usage("--local %s: must be hmc, mala or metropolis", name);
    return (vgs_mcmc_method)m;
}

static options parse(int argc, char **argv)
{
    args a = { .argc = argc, .argv = argv };
    options o = { .c = { .shuffle = false } };
    while (args_next(&a)) {
        if (!*a.key && o.target) wrong_usage("%.60s: only one target can be sampled", a.word);
        else if (!*a.key) o.target = a.word;
        else if (args_is(&a, "help") || args_is(&a, "h")) exit(help());
        else if (args_is(&a, "n")) o.n = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "o")) o.out = args_value(&a);
        else if (args_is(&a, "method")) o.method = find_method(args_value(&a)), o.method_given = true;
        else if (args_is(&a, "local")) o.c.local = find_local(args_value(&a));
        else if (args_is(&a, "seed")) o.c.seed = args_u64(&a);
        else if (args_is(&a, "calls")) o.c.calls = args_double(&a, -1e-300, 1e15);
        else if (args_is(&a, "chains")) o.c.chains = args_int(&a, 1, 1 << 20);
        else if (args_is(&a, "burn_in")) o.c.burn_in = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "thin")) o.c.thin = args_int(&a, 1, INT_MAX);
        else if (args_is(&a, "leapfrog")) o.c.leapfrog = args_int(&a, 1, 100000);
        else if (args_is(&a, "levels")) o.c.levels = args_int(&a, 0, 128);
        else if (args_is(&a, "step")) o.c.step = args_double(&a, 0.0, 1e6);
        else if (args_is(&a, "acceptance")) o.c.acceptance = args_double(&a, 0.0, 0.999);
        else if (args_is(&a, "json")) o.json = args_flag(&a);
        else if (args_is(&a, "threads")) o.c.threads = args_threads(&a);
        else if (args_is(&a, "device")) o.device.name = args_value(&a);
        else if (args_is(&a, "list_devices")) exit(device_list());
        else if (args_is(&a, "profile")) o.device.profile = args_flag(&a);
        else wrong_usage("%.80s: there is no such option", a.word);
    }
    if (!o.target) wrong_usage("a target is missing");
    if (!o.n) wrong_usage("-n is missing: how many samples?");
    if (!o.out) wrong_usage("-o is missing: where do the samples go?");
    if (!ends_with(o.out, ".npy")) wrong_usage("-o %.200s: the name must end in .npy", o.out);
    return o;
}

/* Iterations between samples after which those of a chain hardly resemble each other: measured. */
static int default_thin(const options *o, const target *t)
{
    bool large = t->dim > 100;
    if (o->method == VGS_PT) return t->dim > 8 ? 20 : 5;
    if (o->method == VGS_HMC) return large ? 20 : 10;
    return large ? 2000 : 400;
}

static void configure(options *o, const target *t)
{
    vgs_mcmc_config *c = &o->c;
    if (!o->method_given) o->method = t->exact_samples ? EXACT : t->dim > 8 ? VGS_HMC : VGS_PT;
    if (o->method == EXACT) return;
    c->method = (vgs_mcmc_method)o->method;
    c->length_scale = t->length_scale;
    c->shuffle = t->particles > 0;
    if (!c->chains) c->chains = t->dim > 100 ? 32 : 16;
    if (c->chains > o->n) c->chains = o->n;
    if (!c->burn_in) c->burn_in = o->method == VGS_PT || o->method == VGS_HMC ? 4000 : 20000;
    if (!c->thin) c->thin = default_thin(o, t);
}

/* ==== progress ====================================================================================== */

typedef struct live { double start, shown; bool printed; } live;

/* One line that renews itself on a terminal; elsewhere a line every ten seconds. */
static int show(void *user, double done)
{
    live *l = user;
    double now = seconds_now(), spent = now - l->start;
    char since[32], left[32], line[100];
    if (now - l->shown < (is_terminal() ? 0.5 : 10.0)) return 0;
    l->shown = now;
    l->printed = is_terminal();
    if (done > 0.0)
        snprintf(line, sizeof line, "%3.0f %%, %s, about %s left", 100.0 * done, duration(spent, since),
                 duration(spent * (1.0 - done) / done, left));
    else snprintf(line, sizeof line, "burn-in, %s", duration(spent, since));
    fprintf(stderr, l->printed ? "\r%-60s" : "%s\n", line);
    return 0;
}

/* ==== results ======================================================================================= */

static void print_lines(const options *o, const vgs_mcmc_stats *s, double seconds)
{
    char time[32], text[200];
    printf("%s: %d rows of %s by %s in %s\n", o->out, o->n, o->target,
           o->method == EXACT ? "exact draws" : vgs_mcmc_method_name(o->method), duration(seconds, time));
    printf("energy        %.5f +- %.5f\n", s->energy_mean, s->energy_se);
    if (o->method == EXACT) return;
    if (isnan(s->rhat))
        printf("R-hat, ESS    - (they take at least 4 samples of each of the %d chains)\n", o->c.chains);
    else {
        printf("R-hat         %.4f\n", s->rhat);
        printf("ESS           %.0f of %d\n", s->ess, o->n);
    }
    printf("acceptance    %.3f at step %.4g\n", s->acceptance, s->step);
    if (o->method == VGS_PT)
        printf("log Z         %.4f +- %.4f (%.4f in the first half, %.4f in the second)\n"
               "ladder        %d levels, barrier %.2f, %.0f round trips (%.4f per iteration and ladder)\n",
               s->log_z, s->log_z_se, s->log_z_half[0], s->log_z_half[1], s->levels, s->barrier,
               s->round_trips, s->round_trip_rate);
    vgs_mcmc_say(s, text);
    if (s->verdict == VGS_VERDICT_CAUTION) printf("verdict       %s\n", text);  /* which begins so */
    else printf("verdict       %s: %s\n", vgs_verdict_name(s->verdict), text);
    if (o->method == VGS_LMC) printf("lmc is not corrected: these samples are of another density\n");
    printf("energy calls  %.0f, %.0f of them with gradient\n", s->energy_calls, s->gradient_calls);
}

/* Keys that do not apply are absent. */
static void put(json *j, const char *key, double v)
{
    if (!isnan(v)) json_double(j, key, v);
}

static void print_json(const options *o, const vgs_mcmc_stats *s, double seconds)
{
    json j = { stdout, false };
    json_open(&j, NULL, '{');
    json_string(&j, "target", o->target);
    json_string(&j, "method", o->method == EXACT ? "exact" : vgs_mcmc_method_name(o->method));
    json_i64(&j, "n", o->n);
    json_u64(&j, "seed", o->c.seed);
    put(&j, "seconds", seconds);
    put(&j, "energy_mean", s->energy_mean);
    put(&j, "energy_se", s->energy_se);
    put(&j, "rhat", s->rhat);
    put(&j, "ess", s->ess);
    put(&j, "acceptance", s->acceptance);
    put(&j, "step", s->step);
    put(&j, "log_z", s->log_z);
    put(&j, "log_z_se", s->log_z_se);
    put(&j, "barrier", s->barrier);
    put(&j, "round_trips", s->round_trips);
    put(&j, "round_trip_rate", s->round_trip_rate);
    if (o->method == VGS_PT) json_i64(&j, "levels", s->levels);
    put(&j, "log_z_first_half", s->log_z_half[0]);
    put(&j, "log_z_second_half", s->log_z_half[1]);
    put(&j, "stone_khat", s->stone_khat);
    if (o->method != EXACT) json_string(&j, "verdict", vgs_verdict_name(s->verdict));
    put(&j, "energy_calls", s->energy_calls);
    put(&j, "gradient_calls", s->gradient_calls);
    json_close(&j, '}');
    json_line(&j);
}

/* Independent draws: their energies give the mean and its error, and need not be computed to draw. */
static vgs_status draw_exactly(const options *o, const target *t, float *x, vgs_mcmc_stats *s,
                               vgs_error *err)
{
    const double none = (double)NAN;             /* what only chains have */
    vgs_rng r = { .seed = o->c.seed };
    double sum = 0.0, square = 0.0;
    vgs_status st = target_sample(t, &r, o->n, x, err);
    for (int i = 0, rows; i < o->n && st == VGS_OK; i += rows) {
        float e[64];
        rows = o->n - i < 64 ? o->n - i : 64;
        st = vgs_energy_eval(&o->c.energy, x + (size_t)i * (size_t)t->dim, rows, e, NULL, 1, err);
        for (int k = 0; k < rows; ++k) {
            sum += (double)e[k];
            square += (double)e[k] * (double)e[k];
        }
    }
    sum /= o->n;
    *s = (vgs_mcmc_stats){ .energy_mean = sum, .rhat = none, .ess = o->n, .acceptance = none, .step = none,
                           .log_z = none, .log_z_se = none, .barrier = none, .round_trips = none,
                           .round_trip_rate = none,
                           .log_z_half = { none, none }, .stone_khat = none };
    s->energy_se = o->n > 1 ? sqrt(fmax(0.0, square / o->n - sum * sum) / (o->n - 1.0)) : none;
    return st;
}

/* ==== how much, how long ============================================================================ */

static double file_size(const options *o, const target *t) { return 4.0 * o->n * t->dim; }

/* The rows and, of chains, their energies and what R-hat and ESS are made from. */
static double memory_needed(const options *o, const target *t)
{
    return file_size(o, t) + (o->method == EXACT ? 0.0 : 44.0 * o->n);
}

/* Seconds of exact draws, from a hundredth of them. */
static double trial_exact(const options *o, const target *t, float *x)
{
    options part = *o;
    double start = seconds_now();
    vgs_mcmc_stats s;
    part.n = o->n / 100 + 1;
    if (part.n > 4096) part.n = 4096;
    return draw_exactly(&part, t, x, &s, NULL) ? 0.0 : (seconds_now() - start) * o->n / part.n;
}

/* Seconds of chains, from a two-hundredth of their iterations, 64 at most; ladder and step are not yet those
   of the run. */
static double trial_chains(const options *o, float *x)
{
    vgs_mcmc_config c = o->c;
    double all = c.burn_in + ceil((double)o->n / c.chains) * c.thin, start = seconds_now(), seconds;
    vgs_mcmc_stats s;
    c.burn_in = all < 64.0 * 200.0 ? (int)ceil(all / 200.0) : 64;
    c.thin = 1;
    c.calls = 0.0;
    if (vgs_mcmc(&c, c.chains, x, &s, NULL)) return 0.0;             /* the run itself will say why not     */
    seconds = seconds_now() - start;
    return o->c.calls > 0.0 ? seconds * o->c.calls / s.energy_calls : seconds * all / (c.burn_in + 1.0);
}

/* ==== all together ================================================================================== */

/* Fills x [n,dim], writes it, says what it is worth. */
static int make(const options *o, const target *t, float *x)
{
    live l = { .start = seconds_now(), .shown = seconds_now() };
    vgs_mcmc_config c = o->c;
    vgs_mcmc_stats s;
    vgs_status st;
    vgs_error err;
    double seconds;
    c.progress = show;
    c.progress_user = &l;
    st = o->method == EXACT ? draw_exactly(o, t, x, &s, &err) : vgs_mcmc(&c, o->n, x, &s, &err);
    if (st == VGS_E_ENERGY && o->device.backend)                     /* the device may know why       */
        o->device.backend->finish(o->device.backend->self, &err);
    if (l.printed) fputc('\n', stderr);
    seconds = seconds_now() - l.start;
    if (st == VGS_OK) st = vgs_npy_write(o->out, x, o->n, t->dim, &err);
    if (st != VGS_OK) return fail(&err);
    if (o->json) print_json(o, &s, seconds);
    else print_lines(o, &s, seconds);
    return finish_stdout();
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    const target *t = find_target(o.target);
    vgs_error err;
    double memory, disk;
    float *x;
    int status;
    if (!t) return EXIT_USAGE;
    configure(&o, t);
    memory = memory_needed(&o, t);
    disk = file_size(&o, t);
    if (!has_room(o.out, o.n, memory, disk)) return EXIT_FAILED;
    x = malloc((size_t)o.n * (size_t)t->dim * sizeof *x);
    if (!x) {
        say("out of memory: %d samples", o.n);
        return EXIT_FAILED;
    }
    if (device_open(&o.device, &err) || device_energy(&o.device, t, &o.c.energy, &err)) {
        free(x);
        return fail(&err);
    }
    announce(o.n, memory, disk, o.method == EXACT ? trial_exact(&o, t, x) : trial_chains(&o, x));
    device_reset(&o.device);
    status = make(&o, t, x);
    free(x);
    device_report(&o.device, 0);
    device_close(&o.device);
    return status;
}
