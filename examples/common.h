/* common.h - what the programs share: arguments, fields of a configuration, messages.
   Include it after vgs.h, with PROGRAM defined as the program's name. All is static inline because no
   program uses all of it, and compilers warn of unused functions that are merely static. */
#ifndef COMMON_H
#define COMMON_H

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#ifndef S_ISDIR                                  /* Microsoft's compiler                       */
#  define S_ISDIR(mode) (((mode) & _S_IFMT) == _S_IFDIR)
#  define S_ISREG(mode) (((mode) & _S_IFMT) == _S_IFREG)
#endif

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_STOPPED = 130 };        /* 130 = 128 + SIGINT, as in a shell */

#if defined __GNUC__ || defined __clang__
#  define PRINTF_LIKE __attribute__((format(printf, 1, 2)))
#else
#  define PRINTF_LIKE
#endif

/* ==== messages: all on stderr, so that stdout holds results only ==================================== */

PRINTF_LIKE static inline void say(const char *format, ...)
{
    va_list ap;
    fputs(PROGRAM ": ", stderr);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

/* Of all kinds of fields only a yes/no takes 1 and refuses 2. */
static inline bool field_is_flag(const char *name)
{
    vgs_config c = { .steps = 0 };
    return !vgs_field_set(&c, name, "1", NULL) && vgs_field_set(&c, name, "2", NULL);
}

/* "--burn-in" of burn_in, "-n" of n: a flag as --help shows it */
static inline const char *flag_text(const char *key, char text[72])
{
    snprintf(text, 72, "%s%.64s", key[1] ? "--" : "-", key);
    for (char *p = text; *p; ++p) if (*p == '_') *p = '-';
    return text;
}

/* The flag that a word of a message names: the rest of config.s2_end, cpu.threads or net.hidden, a field like
   published; NULL for any other word (net.particles is the target's). */
static inline const char *named_flag(const char *word)
{
    if (!strncmp(word, "config.", 7)) return word[7] && !strchr(word + 7, '.') ? word + 7 : NULL;
    if (!strcmp(word, "cpu.threads")) return word + 4;
    if (!strncmp(word, "net.", 4)) return vgs_field_find(word + 4) >= 0 ? word + 4 : NULL;
    return vgs_field_find(word) >= 0 && (strchr(word, '_') || field_is_flag(word)) ? word : NULL;
}

enum { TYPED = 2 * sizeof(vgs_error) };

/* The library's messages name fields as C does; text[] has them as flags. */
static inline const char *typed(const char *msg, char text[TYPED])
{
    char word[64], flag[72];
    size_t at = 0;
    while (*msg && at + sizeof flag < TYPED) {
        size_t n = strspn(msg, "abcdefghijklmnopqrstuvwxyz0123456789_.");
        if (n && n < sizeof word) {
            snprintf(word, sizeof word, "%.*s", (int)n, msg);
            at += (size_t)snprintf(text + at, TYPED - at, "%s",
                                   named_flag(word) ? flag_text(named_flag(word), flag) : word);
        } else text[at++] = *msg, n = 1;
        msg += n;
    }
    text[at] = '\0';
    return text;
}

static inline int fail(const vgs_error *err)
{
    char text[TYPED];
    say("%s", err->code == VGS_E_ARG ? typed(err->msg, text) : err->msg);
    return EXIT_FAILED;
}

PRINTF_LIKE static inline void wrong_usage(const char *format, ...)
{
    va_list ap;
    fputs(PROGRAM ": ", stderr);
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputs("\nTry '" PROGRAM " --help'.\n", stderr);
    exit(EXIT_USAGE);
}

/* Results that did not reach stdout (a full disk, a closed pipe) are a failure, not a success. */
static inline int finish_stdout(void)
{
    if (!fflush(stdout) && !ferror(stdout)) return 0;
    say("standard output could not be written");
    return EXIT_FAILED;
}

static inline double seconds_now(void)
{
#ifdef _WIN32
    return (double)clock() / CLOCKS_PER_SEC;                         /* counts wall time there */
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
}

/* "47 s", "3 min 20 s", "2 h 05 min", "9 days" */
static inline const char *duration(double s, char text[32])
{
    double m = floor(s / 60.0), h = floor(s / 3600.0);
    if (!(s < 1e9)) snprintf(text, 32, "long");
    else if (s < 9.95) snprintf(text, 32, "%.1f s", s);
    else if (s < 60.0) snprintf(text, 32, "%.0f s", floor(s));
    else if (m < 60.0) snprintf(text, 32, "%.0f min %02.0f s", m, floor(s - 60.0 * m));
    else if (h < 100.0) snprintf(text, 32, "%.0f h %02.0f min", h, floor(m - 60.0 * h));
    else snprintf(text, 32, "%.0f days", floor(h / 24.0));
    return text;
}

/* ==== arguments =====================================================================================
   --key value, --key=value; - and _ are the same in a key; a yes/no key alone means 1. */

typedef struct args {
    int    argc, at;
    char **argv;
    char   key[64];          /* without its dashes, - written as _; "" for a word that is no key         */
    const char *word;        /* the argument as typed                                                     */
    const char *joined;      /* what follows '=', or NULL                                                 */
} args;

/* Steps to the next argument; false at the end. */
static inline bool args_next(args *a)
{
    const char *w;
    size_t n, i;
    if (++a->at >= a->argc) return false;
    w = a->word = a->argv[a->at];
    a->joined = NULL;
    a->key[0] = '\0';
    if (w[0] != '-' || !w[1]) return true;
    w += w[1] == '-' ? 2 : 1;
    a->joined = strchr(w, '=');
    n = a->joined ? (size_t)(a->joined++ - w) : strlen(w);
    if (n == 0 || n >= sizeof a->key) wrong_usage("%.80s: there is no such option", a->word);
    for (i = 0; i < n; ++i) a->key[i] = w[i] == '-' ? '_' : w[i];
    a->key[n] = '\0';
    return true;
}

static inline bool args_is(const args *a, const char *key)
{
    return !strcmp(a->key, key);
}

static inline const char *args_value(args *a)
{
    const char *v = a->joined;
    if (!v && a->at + 1 < a->argc && strncmp(a->argv[a->at + 1], "--", 2)) v = a->argv[++a->at];
    if (!v) wrong_usage("%.80s: a value is missing", a->word);
    if (!*v) wrong_usage("%.80s: the value is empty", a->word);
    return v;
}

/* A yes/no key takes the next word only if that is 0 or 1: in `--resume gmm9` it is the target. */
static inline const char *args_flag_text(args *a)
{
    const char *next = a->at + 1 < a->argc ? a->argv[a->at + 1] : "";
    if (a->joined) return a->joined;
    if (strcmp(next, "0") && strcmp(next, "1")) return "1";
    ++a->at;
    return next;
}

static inline bool args_flag(args *a)
{
    const char *v = args_flag_text(a);
    char flag[72];
    if (strcmp(v, "0") && strcmp(v, "1"))
        wrong_usage("%s = %.40s: must be 0 or 1", flag_text(a->key, flag), v);
    return *v == '1';
}

static inline double args_double(args *a, double above, double max)
{
    const char *v = args_value(a);
    char *end, flag[72];
    double x = strtod(v, &end);
    if (*end || !(x > above && x <= max))
        wrong_usage("%s = %.40s: must be a number above %g, at most %g", flag_text(a->key, flag), v, above,
                    max);
    return x;
}

static inline int args_int(args *a, int min, int max)
{
    const char *v = args_value(a);
    char *end, flag[72];
    double x = strtod(v, &end);
    if (*end || !(x >= min && x <= max) || x != floor(x))
        wrong_usage("%s = %.40s: must be an integer in %d..%d", flag_text(a->key, flag), v, min, max);
    return (int)x;
}

/* 0 = all; what a build without OpenMP cannot do is said here, before any work. */
static inline int args_threads(args *a)
{
    vgs_cpu_config c = { .threads = args_int(a, 0, 4096) };
    vgs_error err;
    char text[TYPED];
    vgs_backend *cpu = vgs_cpu_create(&c, &err);
    if (!cpu) wrong_usage("%s", typed(err.msg, text));
    vgs_cpu_free(cpu);
    return c.threads;
}

static inline uint64_t args_u64(args *a)
{
    vgs_config c = { .seed = 0 };
    vgs_error err;
    if (vgs_field_set(&c, "seed", args_value(a), &err)) wrong_usage("--%s", err.msg);
    return c.seed;
}

/* The --KEY VALUE pairs that set fields of vgs_config. They are checked as they are read and kept, because
   a preset or a checkpoint comes before them. */
enum { MAX_FIELDS = 128 };
typedef struct field_list { int n; struct { char name[64]; const char *value; } at[MAX_FIELDS]; } field_list;

/* In a configuration 0 means the default; who writes a 0 for a field that must be positive means something
   else. */
static inline bool is_positive(const char *allowed)
{
    return !strncmp(allowed, "1..", 3) || !strncmp(allowed, "even", 4) || !strncmp(allowed, "> 0", 3);
}

/* How fields of one struct are typed. parse: text is the value as it is understood. zero: what is set for a 0
   that is typed, or NULL; positive: there is none. */
typedef struct field_kind {
    bool (*is_flag)(const char *name);
    vgs_status (*parse)(const char *name, const char *value, char text[32], vgs_error *err);
    const char *(*zero)(const char *name);
    bool (*positive)(const char *name);
} field_kind;

/* What --KEY VALUE sets the field to; it ends the program where the field cannot be that. */
static inline const char *field_value(args *a, const field_kind *kind, const char *name)
{
    const char *value = kind->is_flag(name) ? args_flag_text(a) : args_value(a);
    vgs_error err;
    char text[32], flag[72];
    flag_text(a->key, flag);
    if (kind->parse(name, value, text, &err))
        wrong_usage("%s%s", flag, err.msg + strlen(name));                           /* "key = value: ..." */
    if (strcmp(text, "0")) return value;
    if (kind->zero(name)) return kind->zero(name);
    if (kind->positive(name)) wrong_usage("%s = 0: must be > 0; leave it out for the default", flag);
    return value;
}

static inline vgs_status sampler_parse(const char *name, const char *value, char text[32], vgs_error *err)
{
    vgs_config scratch = { .steps = 0 };
    vgs_status st = vgs_field_set(&scratch, name, value, err);
    vgs_field_get(&scratch, vgs_field_find(name), text);
    return st;
}

/* Of fields whose default is not 0, and of which 0 has a meaning. */
static inline const char *sampler_zero(const char *name)
{
    static const char *const names[] = { "target_ema", "policy_ema", "entropy_tau", "velocity_tau" };
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (!strcmp(name, names[i])) return "1e-30";
    return NULL;
}

static inline bool sampler_positive(const char *name)
{
    char allowed[64];
    vgs_field_allowed(vgs_field_find(name), allowed);
    return is_positive(allowed);
}

static inline void args_field(args *a, field_list *list)
{
    static const field_kind sampler = { field_is_flag, sampler_parse, sampler_zero, sampler_positive };
    if (vgs_field_find(a->key) < 0) {
        vgs_config scratch = { .steps = 0 };
        vgs_error err;
        const char *gone;
        vgs_field_set(&scratch, a->key, "", &err);                 /* says what became of an old field    */
        gone = strstr(err.msg, "field; ");
        wrong_usage("%.80s: there is no such option%s", a->word, gone ? gone + 5 : "");
    }
    if (list->n == MAX_FIELDS) wrong_usage("too many options");
    strcpy(list->at[list->n].name, a->key);
    list->at[list->n].value = field_value(a, &sampler, a->key);
    ++list->n;
}

/* "0.1" where the nine digits that make a float come back exactly say 0.100000001 */
static inline void fewest_digits(char text[32])
{
    float v = (float)strtod(text, NULL);
    char shorter[32];
    if (!strpbrk(text, ".e") || strspn(text, "0123456789.e+-") != strlen(text)) return;
    for (int digits = 1; digits < 9; ++digits) {
        snprintf(shorter, sizeof shorter, "%.*g", digits, (double)v);
        if ((float)strtod(shorter, NULL) != v) continue;
        strcpy(text, shorter);
        return;
    }
}

static inline void fields_apply(const field_list *list, vgs_config *c)
{
    for (int i = 0; i < list->n; ++i) vgs_field_set(c, list->at[i].name, list->at[i].value, NULL);
}

/* A flag that says what the checkpoint says anyway is fine; another value would silently make a different
   sampler of it. */
static inline void fields_refuse(const field_list *list, const vgs_config *c, const char *why)
{
    for (int i = 0; i < list->n; ++i) {
        vgs_config other = *c;
        int k = vgs_field_find(list->at[i].name);
        char is[32], wanted[32], flag[72];
        vgs_field_set(&other, list->at[i].name, list->at[i].value, NULL);
        vgs_field_get(c, k, is);
        vgs_field_get(&other, k, wanted);
        if (!strcmp(is, wanted)) continue;
        fewest_digits(is);
        fewest_digits(wanted);
        wrong_usage("%s %s: the checkpoint has %s, and %s", flag_text(list->at[i].name, flag), wanted, is,
                    why);
    }
}

/* Zeroed memory for n things of this size, or the program's end. */
static inline void *room_for(size_t n, size_t size)
{
    void *p = n < (size_t)-1 / size ? calloc(n, size) : NULL;
    if (!p) say("out of memory: %.0f MB", (double)n * (double)size / 1e6), exit(EXIT_FAILED);
    return p;
}

static inline bool file_exists(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f) fclose(f);
    return f != NULL;
}

/* Whether both are the same file. */
static inline bool same_file(const char *a, const char *b)
{
    struct stat s, t;
    if (!strcmp(a, b)) return true;
    return !stat(a, &s) && !stat(b, &t) && s.st_ino && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

/* The checkpoint's path: `given` itself or, of a run's folder, what is inside. False, said, if nothing is. */
static inline bool find_checkpoint(const char *given, char *path, size_t size)
{
    struct stat s;
    snprintf(path, size, "%.1100s", given);
    if (stat(given, &s) || !S_ISDIR(s.st_mode)) return true;
    snprintf(path, size, "%.1100s/checkpoint.safetensors", given);
    if (file_exists(path)) return true;
    say("%s: a folder without a checkpoint.safetensors, so not one that train has written a run to", given);
    return false;
}

/* For qsort, ascending */
static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* "0.0123", or "-" where there is no value. */
static inline const char *number(double v, char text[32])
{
    if (isnan(v)) snprintf(text, 32, "-");
    else snprintf(text, 32, "%.4g", v);
    return text;
}

static inline bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

/* Every field: what it is, what it can be and, if c is given, what it is there. */
static inline void print_fields(const vgs_config *c)
{
    char key[72], allowed[64], value[32];
    printf("\nFields (--KEY VALUE; 0 of target-ema, policy-ema, entropy-tau and velocity-tau is 0,\n"
           "elsewhere what vgs_config in vgs.h says of it):\n"
           "what it is; what it can be%s\n", c ? "; = what it is here" : "");
    for (int i = 0; vgs_field_name(i); ++i) {
        vgs_field_allowed(i, allowed);
        printf("  %-20s %s; %s", flag_text(vgs_field_name(i), key), vgs_field_help(i), allowed);
        if (c) vgs_field_get(c, i, value), fewest_digits(value);
        if (c) printf("; = %s", value);
        putchar('\n');
    }
}

/* ==== weights: what they say, for every program ===================================================== */

/* "+- 0.0123", or "+- ?" of too few rows to tell */
static inline const char *error_text(double se, char text[32])
{
    snprintf(text, 32, isfinite(se) ? "+- %.4f" : "+- ?", se);
    return text;
}

/* "k-hat 0.43"; without five weights in the tail, a fifth of the rows at most, there is none. */
static inline const char *khat_text(double khat, char text[48])
{
    snprintf(text, 48, isfinite(khat) ? "k-hat %.2f" : "no k-hat (it takes more rows)", khat);
    return text;
}

/* Either may be NULL. log_z is the true one, NaN if it is not known. */
static inline void print_weights(const vgs_weights *w, const vgs_forward *f, double log_z)
{
    char text[200], a[32], b[32], k[48];
    if (w) {
        printf("ELBO %.4f %s, log Z %.4f %s", w->elbo, error_text(w->elbo_se, a), w->log_z,
               error_text(w->log_z_se, b));
        if (!isnan(log_z)) printf(" (true: %.4f)", log_z);
        printf(", ESS/N %.3g, %s\n", w->ess, khat_text(w->khat, k));
    }
    if (f)
        printf("EUBO %.4f %s, log Z %.4f %s from %d reference samples, ESS/N %.3g, %s\n", f->eubo,
               error_text(f->eubo_se, a), f->log_z, error_text(f->log_z_se, b), f->n, f->ess,
               khat_text(f->khat, k));
    vgs_weights_say(w, f, text);
    if (w || f) printf("%s\n", text);
}

/* What no chain of the pilot has found, all figures miss; a sentence on that, or nothing. Chains of particles
   disagree because these can change places. */
static inline const char *pilot_doubt(const vgs_sampler *s, char text[120])
{
    const vgs_pilot *p = vgs_sampler_pilot(s);
    text[0] = '\0';
    if (p && p->rhat > 1.2 && !vgs_sampler_config(s)->energy.particles)
        snprintf(text, 120, "the pilot's chains disagreed (R-hat %.1f): modes may be missing, or their "
                 "shares wrong", p->rhat);
    return text;
}

#endif /* COMMON_H */
