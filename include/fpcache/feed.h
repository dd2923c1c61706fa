/* feed.h -- what others changed: one reader thread for each database, schema and login of the process.
 *
 * Words of this header:
 *   incarnation  the life of the cache table between two wipes (crash, failover, TRUNCATE, --force)
 *   fresh        the last poll that succeeded began less than max_staleness ago; else the feed is stale and
 *                answers nothing: callers then ask the server
 *   stamp        a number that changes whenever a key may have changed; kept beside a copy of its value.
 *                Keys share spots, so it may change without need, never the other way
 *   spot         where the stamp of a key is: the lowest bits of its hash, which may stand for the hash
 *
 * The thread polls the change feed on a connection of its own, moves the stamps of what changed, and
 * keeps a cuckoo filter of the keys that may exist: loaded from a snapshot in the background, then
 * following the feed.  Keys are never taken out one by one (two keys may share a fingerprint); when too many
 * lookups went to the server in vain, or the filter outgrew its capacity, a new one is loaded beside the old.
 *
 * A writer may wake the reader by NOTIFY, with the quoted schema as payload; that makes it poll sooner, no
 * more.
 *
 * The feed can be switched off in the database; then nothing is answered, and what was kept is worth nothing
 * when it is switched on again.
 *
 * The order that makes it true: a poll's changes are applied first, then the moment the poll BEGAN is
 * published as the time up to which everything is known.
 *
 * Thread rule: all functions may be called from any thread, without locks on the reading side.
 * fork(2): in the child a feed of the parent answers "unknown" for ever; fpc_feed_open() makes one of its
 * own.
 * Documentation of the whole with its reasons: docs/coherence.md. */
#ifndef FPCACHE_FEED_H
#define FPCACHE_FEED_H

#include "fpcache/clock.h"
#include "fpcache/conninfo.h"
#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fpc_feed fpc_feed;

#define FPC_FEED_LOAD_STEPS       5
#define FPC_FEED_INCARNATION_SIZE 64
#define FPC_FEED_POSITION_SIZE    48

/* What the reader sends; texts for one schema.  lua/fpcache/statements.lua has them, and says what each
 * returns. */
typedef struct fpc_feed_sql {
    const char *session; /* right after each connect of the reader; NULL behind a transaction pooler */
    const char *poll;    /* $1 text: the snapshot of the last poll, or NULL */
    const char *rotate;  /* one step of the rotation of the feed's slots */
    const char *begin_incarnation;         /* after a wipe */
    const char *load_session;              /* as session, for the connection that loads the filter */
    const char *load[FPC_FEED_LOAD_STEPS]; /* count, begin, incarnation, declare, fetch; ended by closing */
    const char *is_listening; /* a row: `session` made this session listen; NULL: it does not ask for it */
} fpc_feed_sql;

typedef struct fpc_feed_options {
    double interval_s;        /* between two polls while something happens; slower when idle, never
                                 beyond max_staleness_s / 3 */
    double max_staleness_s;   /* how old an answer may be */
    double connect_timeout_s; /* also the deadline of one poll */
    bool filter;              /* keep the filter of keys that may exist */
    uint64_t filter_capacity; /* at least; it grows with the table */
    double filter_fpr;        /* most false "maybe"s wanted; 0: FPC_FILTER_DEFAULT_FPR */
    bool prepared;            /* false behind a transaction pooler */
    fpc_feed_sql sql;         /* copied */
} fpc_feed_options;

typedef enum fpc_feed_state { FPC_FEED_OFF, FPC_FEED_LOADING, FPC_FEED_FRESH, FPC_FEED_STALE } fpc_feed_state;

typedef struct fpc_feed_stats {
    fpc_feed_state feed; /* OFF: closed, of the parent process, or switched off in the database.  LOADING: no
                            poll has succeeded yet */
    fpc_feed_state filter; /* OFF, LOADING, FRESH, STALE */
    double lag_s;          /* since the last successful poll began; infinite before the first */
    uint64_t polls, poll_failures, changes; /* changes: keys told by the feed */
    bool listening;   /* now: writers who notify the channel "fpcache" wake the reader */
    uint64_t wakeups; /* polls that began early for it */
    uint64_t reloads; /* loads of the filter after the first */
    uint64_t load_failures;
    uint64_t fell_behind; /* times that the feed may have been truncated before we read it */
    uint64_t incarnation_changes;
    uint64_t filter_keys, filter_capacity, filter_bytes;
    uint64_t filter_dead;                        /* lookups in vain since the load; see fpc_feed_missed() */
    double filter_fpr, filter_load_s;            /* estimated now; seconds of the last load */
    char incarnation[FPC_FEED_INCARNATION_SIZE]; /* "" before the first poll */
    char position[FPC_FEED_POSITION_SIZE];       /* "oldest:next": transactions running, and to come, when the
                                                    last poll looked; "" before the first */
    char last_error[256];                        /* of the latest failure; "" while all is well */
} fpc_feed_stats;

/* The reader for this database, schema and login (equal settings and schema): the one that is running in this
 * process, or a new one.  Does not wait for the server.  The options of the first opener count, but the
 * smallest max_staleness_s of all does, and a later one who asks for the filter starts it.  `info` is copied.
 * FPC_INVALID, FPC_NOMEM. */
fpc_status fpc_feed_open(const fpc_conninfo *info, const char *quoted_schema, const fpc_feed_options *options,
                         fpc_feed **out, fpc_error *err);
/* The last close stops the thread, within a second, whatever the server does.  NULL is allowed. */
void fpc_feed_close(fpc_feed *feed);

/* The hash of a key: its namespace first, then the stored key (see key.h) with that as the seed.  A seed is
 * below 2^53 and, as the hashes are, different in every process. */
uint64_t fpc_feed_seed(const char *space, size_t length);
uint64_t fpc_feed_hash(uint64_t seed, const char *stored_key, size_t length);

/* The two questions of a lookup, answered together.
 * *absent: the key surely did not exist max_staleness ago or later, and this process has not written it.
 * *stamp, to be kept with a copy of the value of the key, and taken BEFORE the value is asked for; 0 when the
 * feed is stale: then nothing may be kept.  A value that the caller wrote himself may not be kept with any
 * stamp: another's later write may have been told already. */
void fpc_feed_look(fpc_feed *feed, uint64_t hash, bool *absent, uint64_t *stamp);
/* The stamp however old what is known is, so never 0.  One that has moved says that the key has changed, or
 * may have; one that has not says nothing of the time since the feed got stale. */
uint64_t fpc_feed_stamp(const fpc_feed *feed, uint64_t hash);

/* Whether a copy with that stamp may still be given out.  Who keeps many copies asks terms.h, which is
 * quicker. */
bool fpc_feed_is_current(const fpc_feed *feed, uint64_t hash, uint64_t stamp);

/* The same for a copy with an end, of another process of this machine, which asked the server for it at
 * `asked_at` (the monotonic clock) or later: whether everything about the key that is known here was known
 * before that. */
bool fpc_feed_is_unchanged_since(const fpc_feed *feed, uint64_t hash, int64_t asked_at, fpc_deadline ends);

/* This process wrote or deleted the key and the server has answered (or may have done it): called before
 * the caller returns.  The key enters the filter and its stamp moves. */
void fpc_feed_wrote(fpc_feed *feed, uint64_t hash);
void fpc_feed_wrote_many(fpc_feed *feed, const uint64_t *hashes, size_t count);
/* The same for everything: the filter answers nothing until it is loaded again. */
void fpc_feed_wrote_all(fpc_feed *feed);

/* The server had none of `count` keys though the filter let the questions pass. */
void fpc_feed_missed(fpc_feed *feed, uint64_t count);

/* Waits until the feed (and the filter, when kept) is fresh by a poll that began after this call. FPC_TIMEOUT
 * with the reader's latest trouble in its message; FPC_INTERRUPTED; FPC_CLOSED for a feed of the parent
 * process; FPC_INVALID when the feed is switched off in the database. */
fpc_status fpc_feed_wait_fresh(fpc_feed *feed, fpc_deadline deadline, fpc_error *err);

void fpc_feed_get_stats(fpc_feed *feed, fpc_feed_stats *out);

#endif
