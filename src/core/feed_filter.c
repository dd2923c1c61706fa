/* feed_filter.c -- swapping filters under lookups that take no lock.
 *
 * When may a dropped filter be freed?  A lookup counts itself in (a sequentially consistent add on its
 * shard), reads `current`, looks, and counts itself out.  Suppose tidy(), after the swap of `current`, reads
 * 0 in a shard.  Each lookup of that shard either had counted itself out before, and its reads happened
 * before ours (release, acquire); or it counts itself in after our read of 0, hence after the swap in the
 * single order of these operations, and sees the new pointer.  So 0 seen once in every shard, not in all at
 * the same time, is enough.  A thread that sleeps in the middle of a lookup only postpones the freeing. */
#include "feed_filter.h"

#include <stdlib.h>

struct fpc_feed_held {
    fpc_filter *filter;
    fpc_feed_held *next;
    uint32_t unseen; /* shards whose counter was not yet seen at 0 since it was dropped */
};

_Static_assert(FPC_FEED_READER_SHARDS < 32, "one bit each in unseen");

void fpc_feed_filter_init(fpc_feed_filter *f) {
    atomic_init(&f->current, NULL);
    pthread_mutex_init(&f->lock, NULL);
    f->next = f->dropped = NULL;
    for (int i = 0; i < FPC_FEED_READER_SHARDS; i++) atomic_init(&f->shards[i].readers, 0);
}

static void free_held(fpc_feed_held *held) {
    if (held == NULL) return;
    fpc_filter_delete(held->filter);
    free(held);
}

void fpc_feed_filter_destroy(fpc_feed_filter *f) {
    free_held(atomic_load(&f->current));
    free_held(f->next);
    while (f->dropped != NULL) {
        fpc_feed_held *held = f->dropped;
        f->dropped = held->next;
        free_held(held);
    }
    pthread_mutex_destroy(&f->lock);
}

bool fpc_feed_filter_may_contain(fpc_feed_filter *f, uint64_t hash) {
    char here; /* threads have different stacks; which shard is a matter of speed only */
    atomic_uint *readers = &f->shards[((uintptr_t)&here >> 16) % FPC_FEED_READER_SHARDS].readers;
    atomic_fetch_add(readers, 1);
    fpc_feed_held *held = atomic_load(&f->current);
    bool maybe = held == NULL || fpc_filter_contains_hash(held->filter, hash);
    atomic_fetch_sub_explicit(readers, 1, memory_order_release);
    return maybe;
}

/* Takes the current filter out of use, `instead` being the next one or NULL.  Lock held. */
static void replace(fpc_feed_filter *f, fpc_feed_held *instead) {
    fpc_feed_held *old = atomic_exchange(&f->current, instead);
    if (old == NULL) return;
    old->unseen = (UINT32_C(1) << FPC_FEED_READER_SHARDS) - 1;
    old->next = f->dropped;
    f->dropped = old;
}

/* FPC_OK: all are in. */
static fpc_status add_all(fpc_feed_held *held, const uint64_t *hashes, size_t count) {
    fpc_status status = FPC_OK;
    for (size_t i = 0; i < count && status == FPC_OK; i++) {
        status = fpc_filter_add_hash_if_absent(held->filter, hashes[i], NULL);
    }
    return status;
}

/* Lock held. */
static fpc_status add_to_next(fpc_feed_filter *f, const uint64_t *hashes, size_t count) {
    fpc_status status = add_all(f->next, hashes, count);
    if (status == FPC_OK) return FPC_OK;
    free_held(f->next); /* nobody reads it */
    f->next = NULL;
    return status;
}

void fpc_feed_filter_add(fpc_feed_filter *f, const uint64_t *hashes, size_t count) {
    pthread_mutex_lock(&f->lock);
    fpc_feed_held *current = atomic_load_explicit(&f->current, memory_order_relaxed);
    if (current != NULL && add_all(current, hashes, count) != FPC_OK) replace(f, NULL);
    if (f->next != NULL) (void)add_to_next(f, hashes, count);
    pthread_mutex_unlock(&f->lock);
}

void fpc_feed_filter_drop_all(fpc_feed_filter *f) {
    pthread_mutex_lock(&f->lock);
    replace(f, NULL);
    free_held(f->next);
    f->next = NULL;
    pthread_mutex_unlock(&f->lock);
}

fpc_status fpc_feed_filter_begin(fpc_feed_filter *f, const fpc_filter_options *options, fpc_error *err) {
    fpc_feed_held *held = calloc(1, sizeof *held);
    if (held == NULL) return fpc_fail(err, FPC_NOMEM, "filter");
    fpc_status status = fpc_filter_new(options, &held->filter, err);
    if (status != FPC_OK) {
        free(held);
        return status;
    }
    pthread_mutex_lock(&f->lock);
    free_held(f->next);
    f->next = held;
    pthread_mutex_unlock(&f->lock);
    return FPC_OK;
}

fpc_status fpc_feed_filter_load(fpc_feed_filter *f, const uint64_t *hashes, size_t count) {
    pthread_mutex_lock(&f->lock);
    fpc_status status = f->next == NULL ? FPC_NOMEM : add_to_next(f, hashes, count);
    pthread_mutex_unlock(&f->lock);
    return status;
}

bool fpc_feed_filter_finish(fpc_feed_filter *f) {
    pthread_mutex_lock(&f->lock);
    bool is_whole = f->next != NULL;
    if (is_whole) replace(f, f->next);
    f->next = NULL;
    pthread_mutex_unlock(&f->lock);
    return is_whole;
}

void fpc_feed_filter_abandon(fpc_feed_filter *f) {
    pthread_mutex_lock(&f->lock);
    free_held(f->next);
    f->next = NULL;
    pthread_mutex_unlock(&f->lock);
}

static bool is_unread(fpc_feed_filter *f, fpc_feed_held *held) {
    for (unsigned i = 0; i < FPC_FEED_READER_SHARDS; i++) {
        if (held->unseen >> i & 1 && atomic_load(&f->shards[i].readers) == 0)
            held->unseen &= ~(UINT32_C(1) << i);
    }
    return held->unseen == 0;
}

void fpc_feed_filter_tidy(fpc_feed_filter *f) {
    pthread_mutex_lock(&f->lock);
    for (fpc_feed_held **at = &f->dropped; *at != NULL;) {
        fpc_feed_held *held = *at;
        if (is_unread(f, held)) {
            *at = held->next;
            free_held(held);
        } else {
            at = &held->next;
        }
    }
    pthread_mutex_unlock(&f->lock);
}

bool fpc_feed_filter_stats(fpc_feed_filter *f, fpc_filter_stats *out) {
    pthread_mutex_lock(&f->lock); /* so that it is not freed meanwhile */
    fpc_feed_held *held = atomic_load(&f->current);
    if (held != NULL) fpc_filter_get_stats(held->filter, out);
    pthread_mutex_unlock(&f->lock);
    return held != NULL;
}
