/* clock.h -- monotonic time and deadlines.
 *
 * A deadline is a point on the monotonic clock in nanoseconds, so a step of the wall clock
 * neither shortens nor prolongs a wait.  Every wait of this library takes one.
 * Thread rule: all functions may be called from any thread, except the override. */
#ifndef FPCACHE_CLOCK_H
#define FPCACHE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

typedef int64_t fpc_deadline; /* nanoseconds on the monotonic clock */

#define FPC_NS_PER_SECOND INT64_C(1000000000)
#define FPC_NEVER         INT64_MAX

/* Nanoseconds since an arbitrary point; never goes back. */
int64_t fpc_clock_ns(void);

/* The same, and it goes on while the machine sleeps: for what ends elsewhere meanwhile.  Not for deadlines.
 */
int64_t fpc_clock_boot_ns(void);

/* As fpc_clock_ns(), cheap enough for millions of calls a second: up to FPC_CLOCK_COARSE_LAG behind. */
int64_t fpc_clock_coarse_ns(void);
#define FPC_CLOCK_COARSE_LAG INT64_C(10000000) /* one tick of the slowest kernel, HZ = 100 */

/* The deadline `seconds` from now.  Negative and NaN mean "already passed"; infinite or very
 * large values mean FPC_NEVER. */
fpc_deadline fpc_deadline_in(double seconds);

bool fpc_deadline_passed(fpc_deadline deadline);

/* Whole milliseconds until `deadline`, rounded up, for poll(2): 0 when passed, -1 for FPC_NEVER. */
int fpc_deadline_poll_ms(fpc_deadline deadline);

/* Replaces the source of fpc_clock_ns() for tests; NULL restores the real clock.
 * Not thread-safe: call it while no other thread uses the library. */
void fpc_clock_override(int64_t (*source)(void));

#endif
