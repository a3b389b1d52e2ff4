/* Checks for the programs of this folder. They print what fails and, last, "N passed, N failed".
   Words after the program's name choose parts of it: ./ops gradient sticky */
#ifndef T_H
#define T_H
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined __GNUC__ || defined __clang__
#  define T_MAY __attribute__((unused))
#else
#  define T_MAY
#endif

static int t_passed, t_failed, t_argc;
static char **t_argv, t_place[160];              /* t_place: printed with every failure               */

#define CHECK(cond, ...) t_check((cond), __FILE__, __LINE__, __VA_ARGS__)        /* cond, format, ...  */
#define OK(cond)         CHECK(cond, "%s", #cond)
#define CHECK_NEAR(got, want, rel, abs) \
    t_near((double)(got), (double)(want), (double)(rel), (double)(abs), __FILE__, __LINE__, #got)
#define T_IN(...)        ((void)snprintf(t_place, sizeof t_place, __VA_ARGS__))
#define RUN(part)        do { if (t_wanted(#part)) { t_place[0] = 0; part(); } } while (0)

static T_MAY bool t_check(bool ok, const char *file, int line, const char *format, ...)
{
    va_list list;
    if (ok) return ++t_passed, true;
    if (++t_failed > 30) return false;                               /* enough to see what is wrong    */
    printf("%s:%d: %s%s", file, line, t_place, t_place[0] ? ": " : "");
    va_start(list, format);
    vprintf(format, list);
    va_end(list);
    printf("\n");
    return false;
}

/* |got - want| <= abs + rel |want|; two infinities of one sign are equal, NaN equals nothing. */
static T_MAY bool t_near(double got, double want, double rel, double abs, const char *file, int line,
                         const char *what)
{
    bool ok = got == want || fabs(got - want) <= abs + rel * fabs(want);
    return t_check(ok, file, line, "%s = %.9g, want %.9g (rel %.1e, abs %.1e)", what, got, want, rel, abs);
}

static T_MAY bool t_wanted(const char *part)
{
    int i;
    for (i = 1; i < t_argc; ++i) if (strstr(part, t_argv[i])) return true;
    return t_argc < 2;
}

static T_MAY void t_begin(int argc, char **argv) { t_argc = argc; t_argv = argv; }

static T_MAY int t_end(void)                                         /* what main returns              */
{
    printf("%d passed, %d failed\n", t_passed, t_failed);
    fflush(stdout);                                                  /* a leak checker may end it here */
    return t_failed != 0;
}
#endif
