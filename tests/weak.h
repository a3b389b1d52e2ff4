/* Memory that runs out: allocation number fail_at of vgs.h fails, and whatever asks for more than a GiB, as a
   file that lies about its size does. Included before vgs.h. */
#include <stddef.h>
#include <stdlib.h>

static long allocations, alive, fail_at;         /* made so far, not yet freed, the one that fails    */

static void *weak_malloc(size_t bytes)
{
    void *p;
    if (++allocations == fail_at || bytes > (size_t)1 << 30) return NULL;
    p = malloc(bytes);
    alive += p != NULL;
    return p;
}

static void weak_free(void *p)
{
    alive -= p != NULL;
    free(p);
}

#define VGS_MALLOC(bytes) weak_malloc(bytes)
#define VGS_FREE(p)       weak_free(p)
