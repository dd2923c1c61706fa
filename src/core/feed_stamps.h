/* feed_stamps.h -- numbers that move when keys change.
 *
 * A stamp is epoch * 2^32 + counter: one counter for all keys of a spot, one epoch for all keys.  Both only
 * move, so a stamp that is the same twice says that neither moved in between.  (A counter comes round after
 * 2^32 changes, the epoch after 2^21 - 1: a copy that old and never looked at meanwhile is beyond any near
 * cache's time to live.)  A stamp is below 2^53, so a Lua number holds it exactly, and never 0.
 *
 * `moves` counts the moves of all of them, each after it was made.  Who compared a stamp after he read that
 * count need not compare it again while the count is the same: stamps lie all over the memory, the count in
 * one place.
 *
 * Beside them stands when they moved last, for copies that come from another process, which has stamps of its
 * own: all that such a move is about was known here then.
 *
 * Order: who moves stamps and then publishes something with release, and who reads that with acquire and then
 * the stamp, agree.
 * Thread rule: everything from any thread. */
#ifndef FPC_FEED_STAMPS_H
#define FPC_FEED_STAMPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FPC_STAMP_SPOTS     (UINT64_C(1) << 17)
#define FPC_STAMP_MAX_EPOCH ((UINT32_C(1) << 21) - 1)

typedef struct fpc_feed_stamps {
    _Atomic uint64_t moves; /* from 1 on */
    _Atomic uint32_t epoch; /* 1 to FPC_STAMP_MAX_EPOCH */
    _Atomic uint32_t counters[FPC_STAMP_SPOTS];
    _Atomic int64_t all_moved_at; /* nanoseconds on the monotonic clock */
    _Atomic int64_t moved_at[FPC_STAMP_SPOTS];
} fpc_feed_stamps;

fpc_feed_stamps *fpc_feed_stamps_new(void); /* NULL when out of memory; free() it */

/* `now` is when the change was known at the latest, the monotonic clock. */
void fpc_feed_stamps_move_all(fpc_feed_stamps *stamps, int64_t now);

static inline void fpc_feed_stamps_note(_Atomic int64_t *moved_at, int64_t now) {
    int64_t before = atomic_load_explicit(moved_at, memory_order_relaxed);
    while (before < now && !atomic_compare_exchange_weak_explicit(
                               moved_at, &before, now, memory_order_release, memory_order_relaxed)) {
    }
}

static inline void fpc_feed_stamps_move(fpc_feed_stamps *stamps, const uint64_t *hashes, size_t count,
                                        int64_t now) {
    for (size_t i = 0; i < count; i++) {
        uint64_t spot = hashes[i] & (FPC_STAMP_SPOTS - 1);
        fpc_feed_stamps_note(&stamps->moved_at[spot], now);
        atomic_fetch_add_explicit(&stamps->counters[spot], 1, memory_order_acq_rel);
    }
    atomic_fetch_add_explicit(&stamps->moves, 1, memory_order_acq_rel);
}

static inline uint64_t fpc_feed_stamps_moves(const fpc_feed_stamps *stamps) {
    return atomic_load_explicit(&stamps->moves, memory_order_acquire);
}

static inline uint64_t fpc_feed_stamps_get(const fpc_feed_stamps *stamps, uint64_t hash) {
    uint64_t epoch = atomic_load_explicit(&stamps->epoch, memory_order_acquire);
    return epoch << 32 |
           atomic_load_explicit(&stamps->counters[hash & (FPC_STAMP_SPOTS - 1)], memory_order_acquire);
}

/* Whether nothing moved at `time` or later. */
static inline bool fpc_feed_stamps_rest_since(const fpc_feed_stamps *stamps, uint64_t hash, int64_t time) {
    return atomic_load_explicit(&stamps->all_moved_at, memory_order_acquire) < time &&
           atomic_load_explicit(&stamps->moved_at[hash & (FPC_STAMP_SPOTS - 1)], memory_order_acquire) < time;
}

#endif
