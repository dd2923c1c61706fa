/* feed.c -- the life of a feed and its answers.
 *
 * Reading order of every answer: first `known_until`, which says up to when all changes were applied, then
 * the filter or the stamp.  The thread writes in the opposite order. */
#include "feed_internal.h"
#include "fpcache/wait.h"
#include "thread.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* --- Life --- */

static bool copy_text(const char *text, const char **out) {
    *out = text == NULL ? NULL : strdup(text);
    return text == NULL || *out != NULL;
}

static bool make_statements(fpc_feed *feed, const fpc_feed_sql *sql) {
    static const uint32_t SNAPSHOT[] = {FPC_OID_TEXT};
    feed->statements[FPC_FEED_POLL] = fpc_statement_new(sql->poll, SNAPSHOT, 1, true);
    feed->statements[FPC_FEED_ROTATE] = fpc_statement_new(sql->rotate, NULL, 0, false);
    feed->statements[FPC_FEED_BEGIN_INCARNATION] = fpc_statement_new(sql->begin_incarnation, NULL, 0, false);
    for (int i = 0; i < FPC_FEED_LOAD_STEPS; i++) {
        feed->statements[FPC_FEED_LOAD + i] = fpc_statement_new(sql->load[i], NULL, 0, true);
    }
    for (int i = 0; i < FPC_FEED_STATEMENTS; i++) {
        if (feed->statements[i] == NULL) return false;
    }
    return true;
}

fpc_status fpc_feed_make(const fpc_conninfo *info, const char *quoted_schema, const fpc_feed_options *options,
                         fpc_feed **out, fpc_error *err) {
    fpc_feed *feed = aligned_alloc(64, (sizeof *feed + 63) / 64 * 64); /* the shards of the filter want it */
    if (feed == NULL) return fpc_fail(err, FPC_NOMEM, "feed");
    memset(feed, 0, sizeof *feed);
    atomic_init(&feed->known_until, FPC_FEED_UNKNOWN);
    atomic_init(&feed->off_at, FPC_FEED_UNKNOWN);
    atomic_init(&feed->max_staleness_ns, (int64_t)(options->max_staleness_s * (double)FPC_NS_PER_SECOND));
    atomic_init(&feed->want_filter, options->filter);
    feed->fork_generation = fpc_fork_generation();
    feed->references = 1;
    feed->options = *options;
    fpc_feed_filter_init(&feed->filter);
    pthread_mutex_init(&feed->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&feed->moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
    feed->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    feed->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    feed->stamps = fpc_feed_stamps_new();
    feed->info = fpc_conninfo_copy(info);
    feed->schema = strdup(quoted_schema);
    bool has_texts = copy_text(options->sql.session, &feed->options.sql.session);
    has_texts = copy_text(options->sql.is_listening, &feed->options.sql.is_listening) && has_texts;
    has_texts = copy_text(options->sql.load_session, &feed->options.sql.load_session) && has_texts;
    fpc_status status = FPC_OK;
    if (feed->stop_fd < 0 || feed->wake_fd < 0) {
        status =
            fpc_fail(err, FPC_NOMEM, "could not start the feed: no memory or no descriptors (ulimit -n)");
    } else if (!has_texts || !make_statements(feed, &options->sql) || feed->stamps == NULL ||
               feed->info == NULL || feed->schema == NULL) {
        status = fpc_fail(err, FPC_NOMEM, "feed");
    } else {
        int failure = fpc_thread_start(&feed->thread, "fpcache-feed", fpc_feed_run, feed);
        if (failure != 0)
            status = fpc_fail(err, FPC_NOMEM, "could not start the feed's thread: %s", strerror(failure));
    }
    if (status == FPC_OK)
        *out = feed;
    else
        fpc_feed_free(feed);
    return status;
}

void fpc_feed_free(fpc_feed *feed) {
    for (int i = 0; i < FPC_FEED_STATEMENTS; i++) fpc_statement_delete(feed->statements[i]);
    fpc_feed_filter_destroy(&feed->filter);
    if (feed->stop_fd >= 0) close(feed->stop_fd);
    if (feed->wake_fd >= 0) close(feed->wake_fd);
    free(feed->stamps);
    fpc_conninfo_delete(feed->info);
    free(feed->schema);
    free((char *)feed->options.sql.session);
    free((char *)feed->options.sql.is_listening);
    free((char *)feed->options.sql.load_session);
    pthread_cond_destroy(&feed->moved);
    pthread_mutex_destroy(&feed->lock);
    free(feed);
}

static void make_readable(int fd) {
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) { /* full: it is readable already */
    }
}

void fpc_feed_wake(fpc_feed *feed) {
    make_readable(feed->wake_fd);
}

/* Waits until something moved, at most until `until`.  Lock held. */
static void wait_moved(fpc_feed *feed, fpc_deadline until) {
    struct timespec at = {.tv_sec = until / FPC_NS_PER_SECOND, .tv_nsec = until % FPC_NS_PER_SECOND};
    pthread_cond_timedwait(&feed->moved, &feed->lock, &at);
}

void fpc_feed_end(fpc_feed *feed) {
    make_readable(feed->stop_fd);
    fpc_deadline deadline = fpc_deadline_in(1);
    pthread_t thread = feed->thread;
    pthread_mutex_lock(&feed->lock);
    while (!feed->has_ended && !fpc_deadline_passed(deadline)) wait_moved(feed, deadline);
    bool has_ended = feed->has_ended;
    feed->is_abandoned = !has_ended; /* it hangs in a name lookup, say */
    pthread_mutex_unlock(&feed->lock);
    if (has_ended) {
        pthread_join(thread, NULL);
        fpc_feed_free(feed);
    } else {
        pthread_detach(thread);
    }
}

/* --- Hashes --- */

static uint64_t process_secret;

static void draw_secret(void) {
    /* Without it a stranger could choose keys that share a spot.  It protects speed, not truth: no bytes, no
     * secret. */
    if (getrandom(&process_secret, sizeof process_secret, GRND_NONBLOCK) < 0) process_secret = 0;
}

uint64_t fpc_feed_seed(const char *space, size_t length) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, draw_secret);
    return XXH3_64bits_withSeed(space, length, process_secret) >> 11;
}

uint64_t fpc_feed_hash(uint64_t seed, const char *stored_key, size_t length) {
    return XXH3_64bits_withSeed(stored_key, length, seed);
}

/* --- Answers --- */

static bool is_fresh(const fpc_feed *feed) {
    return fpc_feed_is_fresh_at(feed, fpc_feed_latest_now());
}

void fpc_feed_look(fpc_feed *feed, uint64_t hash, bool *absent, uint64_t *stamp) {
    bool fresh = is_fresh(feed);
    *stamp = fresh ? fpc_feed_stamps_get(feed->stamps, hash) : 0;
    *absent = fresh && fpc_feed_filter_is_loaded(&feed->filter) &&
              !fpc_feed_filter_may_contain(&feed->filter, hash);
}

uint64_t fpc_feed_stamp(const fpc_feed *feed, uint64_t hash) {
    return fpc_feed_stamps_get(feed->stamps, hash);
}

bool fpc_feed_is_current(const fpc_feed *feed, uint64_t hash, uint64_t stamp) {
    return is_fresh(feed) && fpc_feed_stamps_get(feed->stamps, hash) == stamp;
}

bool fpc_feed_is_unchanged_since(const fpc_feed *feed, uint64_t hash, int64_t asked_at, fpc_deadline ends) {
    int64_t now = fpc_feed_latest_now();
    return now < ends && fpc_feed_is_fresh_at(feed, now) &&
           fpc_feed_stamps_rest_since(feed->stamps, hash, asked_at);
}

void fpc_feed_wrote_many(fpc_feed *feed, const uint64_t *hashes, size_t count) {
    if (fpc_feed_is_inherited(feed))
        return; /* nothing is answered there, and the lock may be held for ever */
    /* Always, even if no filter is wanted: then it has none, and an opener who wants one may come meanwhile.
     */
    fpc_feed_filter_add(&feed->filter, hashes, count);
    fpc_feed_stamps_move(feed->stamps, hashes, count, fpc_clock_ns());
}

void fpc_feed_wrote(fpc_feed *feed, uint64_t hash) {
    fpc_feed_wrote_many(feed, &hash, 1);
}

void fpc_feed_wrote_all(fpc_feed *feed) {
    if (fpc_feed_is_inherited(feed)) return;
    fpc_feed_filter_drop_all(&feed->filter);
    fpc_feed_stamps_move_all(feed->stamps, fpc_clock_ns());
    fpc_feed_wake(feed);
}

void fpc_feed_missed(fpc_feed *feed, uint64_t count) {
    atomic_fetch_add_explicit(&feed->missed, count, memory_order_relaxed);
}

/* --- Waiting and telling --- */

fpc_status fpc_feed_wait_fresh(fpc_feed *feed, fpc_deadline deadline, fpc_error *err) {
    if (fpc_feed_is_inherited(feed))
        return fpc_fail(err, FPC_CLOSED, "the feed belongs to the parent process");
    int64_t asked = fpc_clock_ns();
    fpc_status status = FPC_OK;
    fpc_feed_wake(feed);
    pthread_mutex_lock(&feed->lock);
    while (atomic_load(&feed->known_until) < asked ||
           (atomic_load(&feed->want_filter) && !fpc_feed_filter_is_loaded(&feed->filter))) {
        if (atomic_load(&feed->off_at) >= asked)
            status =
                fpc_fail(err, FPC_INVALID,
                         "the change feed is switched off for this schema (`fpcache admin feed on`), or this "
                         "server is a standby, where it cannot be followed");
        else if (fpc_interrupt_raised())
            status = fpc_fail(err, FPC_INTERRUPTED, "interrupted");
        else if (fpc_deadline_passed(deadline))
            status = fpc_fail(err, FPC_TIMEOUT, "the feed is not fresh%s%s",
                              feed->last_error[0] == '\0' ? "" : ": ", feed->last_error);
        if (status != FPC_OK) break;
        /* Sliced: an interrupt comes from a signal handler, which cannot signal a condition. */
        fpc_deadline slice = fpc_clock_ns() + FPC_NS_PER_SECOND / 5;
        wait_moved(feed, slice < deadline ? slice : deadline);
    }
    pthread_mutex_unlock(&feed->lock);
    return status;
}

void fpc_feed_get_stats(fpc_feed *feed, fpc_feed_stats *out) {
    memset(out, 0, sizeof *out);
    out->lag_s = INFINITY;
    if (fpc_feed_is_inherited(feed)) return;
    bool fresh = is_fresh(feed);
    int64_t known_until = atomic_load(&feed->known_until);
    if (known_until != FPC_FEED_UNKNOWN) {
        out->lag_s = (double)(fpc_clock_ns() - known_until) / (double)FPC_NS_PER_SECOND;
    }
    bool is_off = atomic_load(&feed->off_at) != FPC_FEED_UNKNOWN;
    out->feed = is_off                            ? FPC_FEED_OFF
                : known_until == FPC_FEED_UNKNOWN ? FPC_FEED_LOADING
                : fresh                           ? FPC_FEED_FRESH
                                                  : FPC_FEED_STALE;
    out->polls = atomic_load(&feed->polls);
    out->poll_failures = atomic_load(&feed->poll_failures);
    out->changes = atomic_load(&feed->changes);
    out->listening = atomic_load(&feed->is_listening);
    out->wakeups = atomic_load(&feed->wakeups);
    uint64_t loads = atomic_load(&feed->loads);
    out->reloads = loads > 0 ? loads - 1 : 0;
    out->load_failures = atomic_load(&feed->load_failures);
    out->fell_behind = atomic_load(&feed->fell_behind);
    out->incarnation_changes = atomic_load(&feed->incarnation_changes);
    fpc_filter_stats filter;
    if (fpc_feed_filter_stats(&feed->filter, &filter)) {
        out->filter = fresh ? FPC_FEED_FRESH : FPC_FEED_STALE;
        out->filter_keys = filter.size;
        out->filter_capacity = filter.capacity;
        out->filter_bytes = filter.bytes;
        out->filter_fpr = filter.estimated_fpr;
        out->filter_dead = atomic_load(&feed->missed);
    } else {
        out->filter = atomic_load(&feed->want_filter) && !is_off ? FPC_FEED_LOADING : FPC_FEED_OFF;
    }
    pthread_mutex_lock(&feed->lock);
    out->filter_load_s = feed->load_s;
    snprintf(out->incarnation, sizeof out->incarnation, "%s", feed->incarnation);
    snprintf(out->position, sizeof out->position, "%s", feed->position);
    snprintf(out->last_error, sizeof out->last_error, "%s", feed->last_error);
    pthread_mutex_unlock(&feed->lock);
}
