/* clock_coarse.h -- fpc_clock_coarse_ns() without a call of ours, for what is asked millions of times a
 * second.
 *
 * Thread rule: any thread. */
#ifndef FPC_CLOCK_COARSE_H
#define FPC_CLOCK_COARSE_H

#include "fpcache/clock.h"

#include <stddef.h>
#include <time.h>

extern int64_t (*fpc_clock_source)(void); /* NULL: the real clock */

static inline int64_t fpc_clock_coarse_at_once(void) {
    if (fpc_clock_source != NULL) return fpc_clock_source();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now); /* 3 ns; the exact one takes 23 */
    return (int64_t)now.tv_sec * FPC_NS_PER_SECOND + now.tv_nsec;
}

#endif
