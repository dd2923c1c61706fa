/* fork_count.h -- fpc_fork_generation() for one load and no call, for what is asked millions of times a
 * second.
 *
 * For who has called the other before, which installs what counts.  Thread rule: any thread. */
#ifndef FPC_FORK_COUNT_H
#define FPC_FORK_COUNT_H

#include <stdatomic.h>

extern atomic_uint fpc_fork_count;

static inline unsigned fpc_fork_generation_again(void) {
    return atomic_load_explicit(&fpc_fork_count, memory_order_relaxed);
}

#endif
