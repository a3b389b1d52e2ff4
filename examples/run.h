/* run.h - what programs that train share: the folder of a run, Ctrl-C, the log. Include it after common.h and
   page.h, in a file that defines _POSIX_C_SOURCE and _DARWIN_C_SOURCE before every include. */
#ifndef RUN_H
#define RUN_H

#include <errno.h>
#include <signal.h>
#ifdef _WIN32
#  include <direct.h>
#  include <io.h>
#  define make_folder(path) _mkdir(path)
#  define is_terminal() _isatty(2)
#  define print_raw(text, n) _write(2, text, n)
#else
#  include <fcntl.h>
#  include <sys/file.h>
#  include <unistd.h>
#  define make_folder(path) mkdir(path, 0777)
#  define is_terminal() isatty(2)
#  define print_raw(text, n) write(2, text, n)
#endif

enum { MAX_PATH_LENGTH = 1024 };

static volatile sig_atomic_t stop;
static char last_words[MAX_PATH_LENGTH + 200];   /* of a program that is stopped while it measures */

static inline void on_signal(int sig)
{
    stop = 1;
    signal(sig, SIG_DFL);                        /* a second one ends the program at once */
}

/* Measuring cannot be stopped half way, but nothing is lost by that: it ends the program. */
static inline void on_signal_measuring(int sig)
{
    (void)sig;
    if (print_raw(last_words, (unsigned)strlen(last_words)) < 0) _Exit(EXIT_FAILED);
    _Exit(EXIT_STOPPED);
}

static inline const char *in_folder(const char *dir, const char *file, char path[MAX_PATH_LENGTH])
{
    snprintf(path, MAX_PATH_LENGTH, "%s/%s", dir, file);
    return path;
}

/* Makes DIR and what is missing above it. Only the last failure counts: it is about DIR itself. */
static inline int make_dir(const char *dir)
{
    char path[MAX_PATH_LENGTH];
    int status = 0;
    for (size_t i = 1; i <= strlen(dir); ++i) {
        if (dir[i] != '/' && dir[i] != '\0') continue;
        memcpy(path, dir, i);
        path[i] = '\0';
        errno = 0;
        status = make_folder(path) && errno != EEXIST;
    }
    if (status) say("%s: the folder cannot be made: %s", dir, strerror(errno));
    return status;
}

/* True, said, if another run writes into DIR. The lock ends with the program, however that ends. Where the
   system has no flock, or none for folders (NFS), another run is not noticed. */
static inline bool taken(const char *dir)
{
#ifdef LOCK_EX
    int folder = open(dir, O_RDONLY | O_CLOEXEC);
    if (folder >= 0 && flock(folder, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) {
        say("%s: another " PROGRAM " is writing there; --out takes another folder", dir);
        return true;
    }
#else
    (void)dir;
#endif
    return false;
}

/* Keeps the measurements up to the checkpoint's iteration: a run that was killed may have logged more.
   *seconds becomes that of the last one kept. */
static inline vgs_status trim_log(const char *path, double iteration, double *seconds, vgs_error *err)
{
    FILE *old = fopen(path, "rb");
    vgs_file f;
    char line[1024];
    vgs_status st;
    if (!old) return VGS_OK;
    st = vgs_file_begin(&f, path, err);
    while (st == VGS_OK && fgets(line, sizeof line, old)) {
        if (!strchr(line, '\n') || !(log_number(line, "iteration") <= iteration)) continue;
        fputs(line, f.stream);
        *seconds = log_number(line, "seconds");
    }
    fclose(old);
    return st == VGS_OK ? vgs_file_commit(&f, err) : st;
}

/* What 0, all threads, comes to. */
static inline int thread_count(int threads)
{
    vgs_cpu_config c = { .threads = threads };
    vgs_backend *cpu = vgs_cpu_create(&c, NULL);
    int n = cpu ? vgs_cpu_threads(cpu) : 1;
    vgs_cpu_free(cpu);
    return n;
}

#endif /* RUN_H */
