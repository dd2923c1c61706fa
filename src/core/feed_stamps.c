/* feed_stamps.c -- the epoch of the stamps. */
#include "feed_stamps.h"

#include <stdlib.h>

fpc_feed_stamps *fpc_feed_stamps_new(void) {
    fpc_feed_stamps *stamps = calloc(1, sizeof *stamps); /* pages that no key uses take no memory */
    if (stamps == NULL) return NULL;
    atomic_init(&stamps->epoch, 1);
    atomic_init(&stamps->moves, 1);
    return stamps;
}

void fpc_feed_stamps_move_all(fpc_feed_stamps *stamps, int64_t now) {
    fpc_feed_stamps_note(&stamps->all_moved_at, now);
    uint32_t epoch = atomic_load_explicit(&stamps->epoch, memory_order_relaxed), next;
    do {
        next = epoch == FPC_STAMP_MAX_EPOCH ? 1 : epoch + 1;
    } while (!atomic_compare_exchange_weak_explicit(&stamps->epoch, &epoch, next, memory_order_acq_rel,
                                                    memory_order_relaxed));
    atomic_fetch_add_explicit(&stamps->moves, 1, memory_order_acq_rel);
}
