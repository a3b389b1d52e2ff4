/* Stands between vgs_cl.h and CLBlast, to make it wrong, fail, or do nothing at once. */
#ifndef CL_CLBLAST_H
#define CL_CLBLAST_H
#define CL_TARGET_OPENCL_VERSION 120
#include <clblast_c.h>

enum sgemm_mode { SGEMM_RIGHT, SGEMM_WRONG, SGEMM_WRONG_WHEN_LARGE, SGEMM_FAILS, SGEMM_INSTANT };
static enum sgemm_mode sgemm_mode;
static int sgemm_calls, sgemm_instant_after;     /* SGEMM_INSTANT is right for so many calls          */

static CLBlastStatusCode weak_sgemm(CLBlastLayout layout, CLBlastTranspose ta, CLBlastTranspose tb, size_t m,
                                    size_t n, size_t k, float alpha, cl_mem a, size_t a_at, size_t a_ld,
                                    cl_mem b, size_t b_at, size_t b_ld, float beta, cl_mem c, size_t c_at,
                                    size_t c_ld, cl_command_queue *queue, cl_event *event)
{
    bool wrong = sgemm_mode == SGEMM_WRONG || (sgemm_mode == SGEMM_WRONG_WHEN_LARGE && m > 100);
    if (sgemm_mode == SGEMM_FAILS) return CLBlastTempBufferAllocFailure;
    if (sgemm_mode == SGEMM_INSTANT && sgemm_calls++ >= sgemm_instant_after) return CLBlastSuccess;
    if (sgemm_mode == SGEMM_RIGHT) sgemm_calls++;
    return CLBlastSgemm(layout, ta, tb, m, n, k, wrong ? 1.001f : alpha, a, a_at, a_ld, b, b_at, b_ld, beta,
                        c, c_at, c_ld, queue, event);
}
#define CLBlastSgemm weak_sgemm
#endif
