/* clock.c -- monotonic time and deadlines. */
#include "clock_coarse.h"

#include <limits.h>

int64_t (*fpc_clock_source)(void);

int64_t fpc_clock_ns(void) {
    if (fpc_clock_source != NULL) return fpc_clock_source();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * FPC_NS_PER_SECOND + now.tv_nsec;
}

int64_t fpc_clock_boot_ns(void) {
    if (fpc_clock_source != NULL) return fpc_clock_source();
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * FPC_NS_PER_SECOND + now.tv_nsec;
}

int64_t fpc_clock_coarse_ns(void) {
    return fpc_clock_coarse_at_once();
}

void fpc_clock_override(int64_t (*source)(void)) {
    fpc_clock_source = source;
}

fpc_deadline fpc_deadline_in(double seconds) {
    int64_t now = fpc_clock_ns();
    if (!(seconds > 0)) return now; /* NaN too */
    if (seconds > 1e9) return FPC_NEVER;
    return now + (int64_t)(seconds * (double)FPC_NS_PER_SECOND);
}

bool fpc_deadline_passed(fpc_deadline deadline) {
    return deadline != FPC_NEVER && fpc_clock_ns() >= deadline;
}

int fpc_deadline_poll_ms(fpc_deadline deadline) {
    if (deadline == FPC_NEVER) return -1;
    int64_t left = deadline - fpc_clock_ns();
    if (left <= 0) return 0;
    int64_t ms = (left + 999999) / 1000000; /* up: waking early would spin */
    return ms > INT_MAX ? INT_MAX : (int)ms;
}
