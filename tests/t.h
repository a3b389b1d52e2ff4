/* Checks for the programs of this folder. They print what fails and, last, "N passed, N failed".
   Words after the program's name choose parts of it: ./ops gradient sticky */
#ifndef T_H
#define T_H
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined __GNUC__ || defined __clang__
#  define T_MAY __attribute__((unused))
#else
#  define T_MAY
#endif

static int t_passed, t_failed, t_argc, t_line;   /* t_file, t_line: of the last check                 */
static char **t_argv, t_place[160];              /* t_place: printed with every failure               */
static const char *t_file = "", *t_part = "";
static unsigned long t_used;                     /* a bit for each word that chose a part             */

#define CHECK(cond, ...) t_check((cond), __FILE__, __LINE__, __VA_ARGS__)        /* cond, format, ...  */
#define OK(cond)         CHECK(cond, "%s", #cond)
#define CHECK_NEAR(got, want, rel, abs) \
    t_near((double)(got), (double)(want), (double)(rel), (double)(abs), __FILE__, __LINE__, #got)
#define T_IN(...)        ((void)snprintf(t_place, sizeof t_place, __VA_ARGS__))
#define RUN(part)        do { if (t_wanted(#part)) { t_part = #part; t_place[0] = 0; part(); } } while (0)

static T_MAY bool t_check(bool ok, const char *file, int line, const char *format, ...)
{
    va_list list;
    t_file = file;
    t_line = line;
    if (ok) return ++t_passed, true;
    if (++t_failed > 30) return false;                               /* enough to see what is wrong    */
    printf("%s:%d: %s%s", file, line, t_place, t_place[0] ? ": " : "");
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
    fflush(stdout);                                                  /* a crash would lose it          */
    return false;
}

/* |got - want| <= abs + rel |want|; two infinities of one sign are equal, NaN equals nothing. */
static T_MAY bool t_near(double got, double want, double rel, double abs, const char *file, int line,
                         const char *what)
{
    bool ok = got == want || fabs(got - want) <= abs + rel * fabs(want);
    return t_check(ok, file, line, "%s = %.9g, want %.9g (rel %.1e, abs %.1e)", what, got, want, rel, abs);
}

/* All of got [n] within rel of the largest |want|, and abs. */
static T_MAY void t_near_all(const char *what, const float *got, const double *want, int n, double rel,
                             double abs)
{
    double top = 0;
    int i;
    for (i = 0; i < n; ++i) top = fmax(top, fabs(want[i]));
    for (i = 0; i < n; ++i)
        if (!CHECK(fabs((double)got[i] - want[i]) <= rel * top + abs, "%s[%d] = %.9g, want %.9g", what, i,
                   (double)got[i], want[i]))
            return;
}

/* The parameters of golden vectors, by the Lcg of vectors/gen/networks.py: in -scale/2 .. scale/2. */
static T_MAY void t_params(unsigned long seed, float scale, int n, float *p)
{
    int i;
    for (i = 0; i < n; ++i) {
        seed = (1664525u * seed + 1013904223u) & 0xFFFFFFFFul;
        p[i] = ((float)(seed >> 8) / 16777216.0f - 0.5f) * scale;
    }
}

static T_MAY bool t_wanted(const char *part)
{
    bool wanted = t_argc < 2;
    int i;
    for (i = 1; i < t_argc; ++i) {
        if (!strstr(part, t_argv[i])) continue;
        wanted = true;
        t_used |= 1ul << i;
    }
    return wanted;
}

/* Says after which check a program crashes, and lets it crash. */
static T_MAY void t_crash(int sig)
{
    fprintf(stderr, "%s:%d: signal %d after this check (%s%s%s)\n", t_file, t_line, sig, t_part,
            t_place[0] ? ": " : "", t_place);
    signal(sig, SIG_DFL);
    raise(sig);
}

static T_MAY void t_begin(int argc, char **argv)
{
    static const int sig[] = { SIGABRT, SIGFPE, SIGILL, SIGSEGV };
    size_t i;
    for (i = 0; i < sizeof sig / sizeof *sig; ++i) {
        void (*before)(int) = signal(sig[i], t_crash);
        if (before != SIG_DFL) signal(sig[i], before);               /* a sanitizer reports by itself  */
    }
    t_argc = argc;
    t_argv = argv;
}

/* The bytes of a file, at most `most`; 0 if there is none. */
static T_MAY size_t t_read(const char *path, unsigned char *x, size_t most)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(x, 1, most, f) : 0;
    if (f) fclose(f);
    return n;
}

static T_MAY void t_write(const char *path, const unsigned char *x, size_t n)
{
    FILE *f = fopen(path, "wb");
    bool whole = f && fwrite(x, 1, n, f) == n;
    if (f && fclose(f)) whole = false;
    t_check(whole, __FILE__, __LINE__, "%s: cannot be written", path);
}

static T_MAY int t_end(void)                                         /* what main returns              */
{
    int i;
    for (i = 1; i < t_argc; ++i)
        if (!(t_used >> i & 1)) t_check(false, __FILE__, __LINE__, "%s: there is no such part", t_argv[i]);
    printf("%d passed, %d failed\n", t_passed, t_failed);
    fflush(stdout);                                                  /* a leak checker may end it here */
    return t_failed != 0;
}
#endif
