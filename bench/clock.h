/* clock.h - the clocks of the benches. Include it with _POSIX_C_SOURCE set. */
#ifndef CLOCK_H
#define CLOCK_H

#include <time.h>

static inline double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static inline double now(void) { return seconds_of(CLOCK_MONOTONIC); }
/* Of all threads: what work costs on a machine that others use. */
static inline double cpu_seconds(void) { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

#endif
