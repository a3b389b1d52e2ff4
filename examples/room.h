/* room.h - do N samples fit, and how long will they take? What sample and reference say before they begin.
   Include it after common.h. */
#ifndef ROOM_H
#define ROOM_H

#if defined __unix__ || defined __APPLE__
#  include <sys/statvfs.h>
#  include <unistd.h>
#endif

/* The number after `key` in a system's file, 0 if it has none. */
static inline double number_in(const char *path, const char *key)
{
    FILE *f = fopen(path, "r");
    char line[256];
    double v = 0.0;
    while (f && !(v > 0.0) && fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key))) v = strtod(line + strlen(key), NULL);
    if (f) fclose(f);
    return v;
}

/* Bytes of memory that can be had without swapping: what Linux says is available, or a container's limit;
   elsewhere all that there is. 0: the system does not say. */
static inline double memory_left(void)
{
    double bytes = 1024.0 * number_in("/proc/meminfo", "MemAvailable:");
    double limit = number_in("/sys/fs/cgroup/memory.max", "");
#ifdef _SC_PHYS_PAGES
    if (!(bytes > 0.0)) bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
#endif
    return limit > 0.0 && limit < bytes ? limit : bytes;
}

/* Bytes that can be written into the folder of `path`; infinite: the system does not say. */
static inline double disk_left(const char *path)
{
#if defined __unix__ || defined __APPLE__
    struct statvfs s;
    char folder[1200];
    char *slash;
    snprintf(folder, sizeof folder, "%s", path);
    slash = strrchr(folder, '/');
    if (slash) slash[slash == folder] = '\0';                        /* "/x.npy" lies in "/"           */
    if (!statvfs(slash ? folder : ".", &s)) return (double)s.f_bavail * (double)s.f_frsize;
#else
    (void)path;
#endif
    return HUGE_VAL;
}

/* "300 kB", "412 MB", "16.0 GB". What is needed is rounded up and what there is down, so that the two differ
   if it is too little. */
static inline const char *size_text(double bytes, double (*rounded)(double), char text[32])
{
    if (bytes < 1e6) snprintf(text, 32, "%.0f kB", rounded(bytes / 1e3));
    else if (bytes < 1e9) snprintf(text, 32, "%.0f MB", rounded(bytes / 1e6));
    else snprintf(text, 32, "%.1f GB", rounded(bytes / 1e8) / 10.0);
    return text;
}

/* False, after saying why, if n samples cannot be held in memory or the file cannot be written. A pipe is
   not tried: its reader would take that for the end. */
static inline bool has_room(const char *path, int n, double memory, double disk)
{
    double have = memory_left(), room = disk_left(path);
    char need[32], is[32];
    struct stat s;
    vgs_file f;
    vgs_error err;
    bool plain = stat(path, &s) || S_ISREG(s.st_mode) || S_ISDIR(s.st_mode);
    if (plain && vgs_file_begin(&f, path, &err)) return fail(&err), false;
    if (plain) vgs_file_discard(&f);
    if (memory > (double)(size_t)-1 || (have > 0.0 && memory > have))
        say("-n %d: takes %s of memory, and there are %s; make the samples in parts, each with a --seed of "
            "its own", n, size_text(memory, ceil, need), size_text(have, floor, is));
    else if (plain && disk > room)
        say("-n %d: makes a file of %s, and where %.200s will lie there is room for %s", n,
            size_text(disk, ceil, need), path, size_text(room, floor, is));
    else return true;
    return false;
}

/* What is large or takes long is said beforehand. */
static inline void announce(int n, double memory, double disk, double seconds)
{
    char a[32], b[32], c[32];
    if (memory < 1e8 && seconds < 10.0) return;
    say("%d samples: %s of memory, a file of %s, about %s", n, size_text(memory, ceil, a),
        size_text(disk, ceil, b), duration(seconds, c));
}

#endif /* ROOM_H */
