/* feed_filter.h -- the filter that answers, and beside it the one that is being loaded.
 *
 *   current   the filter that lookups ask; none: every answer is "maybe"
 *   next      the filter that is being loaded; what is added meanwhile enters both
 *   dropped   a filter that a lookup may still be reading; freed by tidy() once none can be
 *
 * Thread rule: may_contain(), add() and drop_all() from any thread; the others from one thread, the feed's.
 * Lookups take no lock.  destroy() excludes everybody. */
#ifndef FPC_FEED_FILTER_H
#define FPC_FEED_FILTER_H

#include "fpcache/filter.h"

#include <pthread.h>
#include <stdatomic.h>

#define FPC_FEED_READER_SHARDS 16

typedef struct fpc_feed_held fpc_feed_held; /* a filter and what its freeing needs */

typedef struct fpc_feed_filter {
    _Atomic(fpc_feed_held *) current;
    pthread_mutex_t lock; /* whoever writes into a filter; also for the two below */
    fpc_feed_held *next, *dropped;
    /* How many lookups are under way, spread so that threads rarely share a line. */
    struct {
        _Alignas(64) atomic_uint readers;
    } shards[FPC_FEED_READER_SHARDS];
} fpc_feed_filter;

void fpc_feed_filter_init(fpc_feed_filter *f);
void fpc_feed_filter_destroy(fpc_feed_filter *f);

/* Whether there is a current filter, which may go at any moment. */
static inline bool fpc_feed_filter_is_loaded(const fpc_feed_filter *f) {
    return atomic_load_explicit(&f->current, memory_order_acquire) != NULL;
}

/* True too when there is no filter. */
bool fpc_feed_filter_may_contain(fpc_feed_filter *f, uint64_t hash);

/* Adds to both.  A filter that cannot take a key is given up. */
void fpc_feed_filter_add(fpc_feed_filter *f, const uint64_t *hashes, size_t count);

/* Gives both up: they may lack keys. */
void fpc_feed_filter_drop_all(fpc_feed_filter *f);

/* Begins the next filter (in place of an unfinished one); from now on it is told what is added. */
fpc_status fpc_feed_filter_begin(fpc_feed_filter *f, const fpc_filter_options *options, fpc_error *err);
/* Adds to the next filter only; FPC_FULL or FPC_NOMEM when it was given up. */
fpc_status fpc_feed_filter_load(fpc_feed_filter *f, const uint64_t *hashes, size_t count);
/* Makes the next filter the current one; false when it was given up meanwhile. */
bool fpc_feed_filter_finish(fpc_feed_filter *f);
/* Gives the next filter up; there may be none. */
void fpc_feed_filter_abandon(fpc_feed_filter *f);

/* Frees what was dropped and nobody reads any more; does not wait. */
void fpc_feed_filter_tidy(fpc_feed_filter *f);

/* False: there is no filter. */
bool fpc_feed_filter_stats(fpc_feed_filter *f, fpc_filter_stats *out);

#endif
