/* feed.h -- what others changed: one reader thread for each database, schema and login of the process.
 *
 * Words of this header:
 *   incarnation  the life of the cache table between two wipes (crash, failover, TRUNCATE, --force)
 *   fresh        the last poll that succeeded began less than max_staleness ago; else the feed is stale and
 *                answers nothing: callers then ask the server
 *   stamp        a number that changes whenever a key may have changed; kept beside a copy of its value.  Keys share
 *                slots, so it may change without need, never the other way
 *   spot         where the stamp of a key is
 *
 * The thread polls the change feed on a connection of its own, moves the stamps of what changed, and
 * keeps a cuckoo filter of the keys that may exist: loaded from a snapshot in the background, then
 * following the feed.  Keys are never taken out one by one (two keys may share a fingerprint); when the
 * dead share grows, a new filter is loaded beside the old one.
 *
 * The order that makes it true: a poll's changes are applied first, then the moment the poll BEGAN is
 * published as the time up to which everything is known.
 *
 * Thread rule: all functions may be called from any thread, without locks on the reading side.
 * fork(2): in the child every answer is "unknown" until fpc_feed_open() is called there. */
#ifndef FPCACHE_FEED_H
#define FPCACHE_FEED_H

#include "fpcache/clock.h"
#include "fpcache/conninfo.h"
#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fpc_feed fpc_feed;

typedef struct fpc_feed_options {
    double interval_s;        /* between two polls while something happens; slower when idle, never
                                 beyond max_staleness_s / 3 */
    double max_staleness_s;   /* how old an answer may be */
    double connect_timeout_s; /* also the deadline of one poll */
    bool filter;              /* keep the filter of keys that may exist */
    uint64_t filter_capacity; /* at least; it grows with the table */
    double filter_fpr;        /* most false "maybe"s wanted */
    bool prepared;            /* false behind a transaction pooler */
} fpc_feed_options;

typedef enum fpc_feed_state { FPC_FEED_OFF, FPC_FEED_LOADING, FPC_FEED_FRESH, FPC_FEED_STALE } fpc_feed_state;

typedef struct fpc_feed_stats {
    fpc_feed_state feed;   /* LOADING: no poll has succeeded yet */
    fpc_feed_state filter; /* OFF, LOADING, FRESH, STALE */
    double lag_s;          /* since the last successful poll began; infinite before the first */
    uint64_t polls, poll_failures, changes; /* changes: keys told by the feed */
    uint64_t reloads;      /* loads of the filter after the first */
    uint64_t fell_behind;  /* times the feed was truncated before we read it */
    uint64_t incarnation_changes;
    uint64_t filter_keys, filter_capacity, filter_bytes, filter_dead;
    double filter_fpr, filter_load_s; /* estimated now; seconds of the last load */
    char incarnation[40];  /* "" before the first poll */
} fpc_feed_stats;

/* The reader for this database, schema and login: the one that is running in this process, or a new one.
 * Does not wait for the server.  The options of the first opener count; a later one who asks for the filter
 * starts it.  `info` is copied. */
fpc_status fpc_feed_open(const fpc_conninfo *info, const char *quoted_schema, const fpc_feed_options *options,
                         fpc_feed **out, fpc_error *err);
/* The last close stops the thread, within a second, whatever the server does.  NULL is allowed. */
void fpc_feed_close(fpc_feed *feed);

/* The hash of a key: its namespace first, then the stored key (see key.h) with that as the seed. */
uint64_t fpc_feed_seed(const char *space, size_t length);
uint64_t fpc_feed_hash(uint64_t seed, const char *stored_key, size_t length);

/* True: the key surely did not exist max_staleness ago or later, and this process has not written it. */
bool fpc_feed_is_absent(const fpc_feed *feed, uint64_t hash);

/* The stamp to keep with a copy of the value of a key, taken BEFORE the value is asked for; 0 when the feed is
 * stale: then nothing may be kept. */
uint64_t fpc_feed_stamp(const fpc_feed *feed, uint64_t hash);
/* Whether a copy with that stamp may still be given out. */
bool fpc_feed_is_current(const fpc_feed *feed, uint64_t hash, uint64_t stamp);

/* This process wrote or deleted the key and the server has answered (or may have done it): called before
 * the caller returns.  The key enters the filter and its stamp moves. */
void fpc_feed_wrote(fpc_feed *feed, uint64_t hash);
/* The same for everything. */
void fpc_feed_wrote_all(fpc_feed *feed);

/* Waits until the feed (and the filter, when kept) is fresh by a poll that began after this call. */
fpc_status fpc_feed_wait_fresh(fpc_feed *feed, fpc_deadline deadline, fpc_error *err);

void fpc_feed_get_stats(const fpc_feed *feed, fpc_feed_stats *out);

#endif
