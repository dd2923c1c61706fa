/* feed_internal.h -- the inside of an fpc_feed, for the feed*.c files.
 *
 * Who writes what: the thread writes `known_until` (last of all after a poll) and the counters; anybody the
 * stamps, the filter and `missed`; openers, under the registry's lock, `references`; `lock` guards what is
 * said below. */
#ifndef FPC_FEED_INTERNAL_H
#define FPC_FEED_INTERNAL_H

#include "clock_coarse.h"
#include "feed_filter.h"
#include "feed_stamps.h"
#include "fork_count.h"
#include "fpcache/feed.h"
#include "fpcache/fork.h"
#include "fpcache/statement.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#define FPC_FEED_UNKNOWN INT64_MIN /* known_until before the first poll; off_at while it is on */

enum {
    FPC_FEED_POLL,
    FPC_FEED_ROTATE,
    FPC_FEED_BEGIN_INCARNATION,
    FPC_FEED_LOAD,
    FPC_FEED_STATEMENTS = FPC_FEED_LOAD + FPC_FEED_LOAD_STEPS
};

struct fpc_feed {
    /* -- what a lookup reads -- */
    fpc_feed_filter filter;
    _Atomic int64_t known_until;      /* every change committed before this moment was applied */
    _Atomic int64_t off_at;           /* when the last poll began, if it found the feed switched off */
    _Atomic int64_t max_staleness_ns; /* only gets smaller */
    fpc_feed_stamps *stamps;
    _Atomic uint64_t missed; /* lookups in vain since the last load */
    unsigned fork_generation;
    atomic_bool want_filter;

    /* -- fixed at creation -- */
    fpc_conninfo *info;
    char *schema;
    fpc_feed_options options; /* its texts are ours */
    fpc_statement *statements[FPC_FEED_STATEMENTS];
    int stop_fd; /* readable: the thread is to end */
    int wake_fd; /* readable: a poll is wanted now */

    /* -- counters of the thread -- */
    atomic_bool is_listening;
    _Atomic uint64_t wakeups, polls, poll_failures, changes, loads, load_failures, fell_behind,
        incarnation_changes;

    /* -- the registry's, under its lock -- */
    fpc_feed *next;
    int references;

    pthread_mutex_t lock;
    pthread_cond_t moved; /* a poll or a load is done, or the thread has ended */
    /* -- under `lock` -- */
    bool has_ended;    /* the thread touches nothing any more ... */
    bool is_abandoned; /* ... but frees the feed, as nobody waited for it */
    double load_s;
    char incarnation[FPC_FEED_INCARNATION_SIZE];
    char position[FPC_FEED_POSITION_SIZE];
    char last_error[256];
    pthread_t thread;
};

/* The latest that it can be now, told fast. */
static inline int64_t fpc_feed_latest_now(void) {
    return fpc_clock_coarse_at_once() + FPC_CLOCK_COARSE_LAG;
}

static inline bool fpc_feed_is_inherited(const fpc_feed *feed) {
    return feed->fork_generation != fpc_fork_generation_again(); /* fpc_feed_make() has called the other */
}

/* Read before anything that is answered by it.  FPC_FEED_UNKNOWN is before everything. */
static inline bool fpc_feed_is_fresh_at(const fpc_feed *feed, int64_t now) {
    int64_t known_until = atomic_load_explicit(&feed->known_until, memory_order_acquire);
    return now - atomic_load_explicit(&feed->max_staleness_ns, memory_order_relaxed) < known_until &&
           !fpc_feed_is_inherited(feed);
}

/* The thread. */
void *fpc_feed_run(void *feed);

/* A feed with one reference and its thread running.  And its end: waits for the thread for a second, then
 * leaves the rest to it. */
fpc_status fpc_feed_make(const fpc_conninfo *info, const char *quoted_schema, const fpc_feed_options *options,
                         fpc_feed **out, fpc_error *err);
void fpc_feed_end(fpc_feed *feed);
void fpc_feed_free(fpc_feed *feed);
void fpc_feed_wake(fpc_feed *feed);

#endif
