/* feed_reader.c -- the feed's thread: ask, apply, publish, load a little, sleep.
 *
 * The position outlives connections: after a loss the next poll asks for all that came since the last one
 * that was applied.  Whatever makes it doubtful that nothing was skipped ends in forget(): all stamps move,
 * the filter goes. */
#include "feed_internal.h"
#include "feed_keys.h"
#include "feed_load.h"
#include "feed_pace.h"
#include "feed_poll.h"
#include "fpcache/wait.h"

#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PAUSE_S      1.0  /* between two attempts to reach the server */
#define MAX_LOAD_PAUSE_S 10.0 /* between two attempts to load the filter */
#define MAX_LATE_POLLS   3 /* polls without an answer in time, in a row: there is too much to catch up with */
#define MIN_DEAD         1000 /* lookups in vain that are not worth a new filter, however small it is */
#define HASHES           256  /* applied under one lock */
#define WAKE_SHARE       0.2  /* of the interval: two polls that were woken are so far apart */

typedef struct reader {
    fpc_feed *feed;
    fpc_conn *conn; /* NULL: not connected */
    char *position; /* see feed_poll.h */
    char incarnation[FPC_FEED_INCARNATION_SIZE], started[40];
    double pause_s;    /* the pace */
    unsigned failures; /* in a row */
    unsigned late_polls;
    uint64_t random;
    fpc_feed_load load;
    unsigned load_failures; /* in a row */
    int64_t load_not_before_ns, rebuild_not_before_ns;
    bool wants_rebuild;
} reader;

/* --- Applying --- */

static void forget_filter(reader *r) {
    fpc_feed_load_abandon(&r->load);
    fpc_feed_filter_drop_all(&r->feed->filter);
}

/* Nothing that is kept is known to be true any more. */
static void forget(reader *r) {
    forget_filter(r);
    fpc_feed_stamps_move_all(r->feed->stamps, fpc_clock_ns());
}

static void apply_hashes(reader *r, const uint64_t *hashes, size_t count) {
    fpc_feed_filter_add(&r->feed->filter, hashes, count);
    fpc_feed_stamps_move(r->feed->stamps, hashes, count, fpc_clock_ns());
    atomic_fetch_add_explicit(&r->feed->changes, count, memory_order_relaxed);
}

/* False when the bytes are no list of keys. */
static bool apply_change(reader *r, const fpc_feed_change *change) {
    if (change->space == NULL || change->keys == NULL) {
        /* Such a change only takes keys away (who adds keys names them), so the filter stays true, if
         * emptier. */
        fpc_feed_stamps_move_all(r->feed->stamps, fpc_clock_ns());
        atomic_fetch_add_explicit(&r->feed->changes, 1, memory_order_relaxed);
        r->wants_rebuild = true;
        return true;
    }
    uint64_t seed = fpc_feed_seed(change->space, change->space_length), hashes[HASHES];
    size_t count = 0, length;
    const char *key;
    fpc_feed_keys keys;
    if (!fpc_feed_keys_begin(&keys, change->keys, change->keys_length)) return false;
    fpc_feed_keys_step step;
    while ((step = fpc_feed_keys_next(&keys, &key, &length)) == FPC_FEED_KEYS_KEY) {
        hashes[count++] = fpc_feed_hash(seed, key, length);
        if (count < HASHES) continue;
        apply_hashes(r, hashes, count);
        count = 0;
    }
    apply_hashes(r, hashes, count);
    return step == FPC_FEED_KEYS_END;
}

/* Whether the answer follows on what was applied before; counts why not. */
static bool follows(reader *r, const fpc_feed_answer *answer) {
    fpc_feed *feed = r->feed;
    if (r->position == NULL) return true;
    if (strcmp(answer->incarnation, r->incarnation) != 0 ||
        fpc_feed_goes_back(r->position, answer->snapshot)) {
        atomic_fetch_add_explicit(&feed->incarnation_changes, 1, memory_order_relaxed);
        return false;
    }
    /* A restart keeps what is logged; but it may be a standby that took over and lacks the last transactions,
     * whose numbers are then used again. */
    if (answer->fell_behind || strcmp(answer->started, r->started) != 0) {
        atomic_fetch_add_explicit(&feed->fell_behind, 1, memory_order_relaxed);
        return false;
    }
    return true;
}

static bool apply(reader *r, fpc_feed_answer *answer) {
    uint64_t before = atomic_load_explicit(&r->feed->changes, memory_order_relaxed);
    bool is_whole = follows(r, answer);
    int rows = fpc_feed_answer_rows(answer);
    for (int row = 0; row < rows && is_whole; row++) {
        fpc_feed_change change;
        if (fpc_feed_answer_change(answer, row, &change)) is_whole = apply_change(r, &change);
    }
    if (!is_whole) forget(r);
    if (r->position == NULL)
        fpc_feed_stamps_move_all(r->feed->stamps, fpc_clock_ns()); /* nothing is known of before */
    free(r->position);
    r->position = answer->snapshot;
    answer->snapshot = NULL;
    memcpy(r->incarnation, answer->incarnation, sizeof r->incarnation);
    memcpy(r->started, answer->started, sizeof r->started);
    return !is_whole || atomic_load_explicit(&r->feed->changes, memory_order_relaxed) != before;
}

/* --- Polling --- */

static fpc_deadline poll_deadline(const reader *r) {
    return fpc_deadline_in(r->feed->options.connect_timeout_s);
}

/* Whether the new session listens, which is asked for where the feed's SQL says so, and may not be possible.
 */
static fpc_status find_whether_listening(reader *r, fpc_error *err) {
    const char *question = r->feed->options.sql.is_listening;
    if (question == NULL) return FPC_OK;
    fpc_result *result = NULL;
    fpc_status status = fpc_conn_script(r->conn, question, poll_deadline(r), &result, err);
    atomic_store(&r->feed->is_listening, status == FPC_OK && fpc_result_rows(result) > 0);
    fpc_result_delete(result);
    return status;
}

static fpc_status connect_to(reader *r, fpc_error *err) {
    if (r->conn != NULL && !fpc_conn_is_broken(r->conn)) return FPC_OK;
    atomic_store(&r->feed->is_listening, false);
    fpc_conn_delete(r->conn);
    r->conn = NULL;
    fpc_conn_options options = {.prepared = r->feed->options.prepared,
                                .session_sql = r->feed->options.sql.session};
    fpc_status status = fpc_conn_open(r->feed->info, &options, poll_deadline(r), &r->conn, err);
    if (status == FPC_OK) status = find_whether_listening(r, err);
    return status;
}

static fpc_status call(reader *r, int statement, fpc_error *err) {
    fpc_params params;
    fpc_params_init(&params);
    fpc_result *result = NULL;
    fpc_status status =
        fpc_conn_exec(r->conn, r->feed->statements[statement], &params, poll_deadline(r), &result, err);
    fpc_result_delete(result);
    return status;
}

/* Asks; begins a new incarnation where there is none.  *began: a moment before the snapshot was taken. */
static fpc_status ask(reader *r, fpc_feed_answer *answer, int64_t *began, fpc_error *err) {
    const fpc_statement *poll = r->feed->statements[FPC_FEED_POLL];
    for (int attempt = 0;; attempt++) {
        *began = fpc_clock_ns();
        fpc_status status = fpc_feed_ask(r->conn, poll, r->position, poll_deadline(r), answer, err);
        if (status != FPC_OK) {
            r->late_polls = status == FPC_TIMEOUT ? r->late_polls + 1 : 0;
            return status;
        }
        if (answer->incarnation[0] != '\0') return FPC_OK;
        fpc_feed_answer_clear(answer);
        if (attempt > 0) return fpc_fail(err, FPC_CONFLICT, "the cache is being emptied");
        status = call(r, FPC_FEED_BEGIN_INCARNATION, err);
        if (status != FPC_OK) return status;
    }
}

static void publish(reader *r, int64_t began) {
    fpc_feed *feed = r->feed;
    atomic_store_explicit(&feed->known_until, began, memory_order_release);
    atomic_store(&feed->off_at, FPC_FEED_UNKNOWN);
    atomic_fetch_add_explicit(&feed->polls, 1, memory_order_relaxed);
    pthread_mutex_lock(&feed->lock);
    memcpy(feed->incarnation, r->incarnation, sizeof feed->incarnation);
    fpc_feed_bounds(r->position, feed->position, sizeof feed->position);
    if (r->load_failures == 0) feed->last_error[0] = '\0';
    pthread_cond_broadcast(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

/* The feed is switched off: nobody tells what changes.  Whenever it is on again, we begin from nothing. */
static void answer_nothing(reader *r, int64_t began) {
    fpc_feed *feed = r->feed;
    atomic_store(&feed->known_until, FPC_FEED_UNKNOWN);
    atomic_store(&feed->off_at, began);
    if (r->position != NULL) forget(r);
    free(r->position);
    r->position = NULL;
    atomic_fetch_add_explicit(&feed->polls, 1, memory_order_relaxed);
    pthread_mutex_lock(&feed->lock);
    feed->last_error[0] = '\0';
    pthread_cond_broadcast(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

/* One poll; *busy: something had changed. */
static fpc_status poll_once(reader *r, bool *busy, fpc_error *err) {
    fpc_feed_answer answer;
    int64_t began;
    fpc_status status = connect_to(r, err);
    if (status == FPC_OK) status = ask(r, &answer, &began, err);
    if (status != FPC_OK) return status;
    bool rotation_due = answer.rotation_due;
    if (answer.is_on) {
        *busy = apply(r, &answer);
        publish(r, began);
    } else {
        answer_nothing(r, began);
    }
    fpc_feed_answer_clear(&answer);
    r->late_polls = 0;
    fpc_error ignored; /* others rotate too, and the next poll sees what is wrong with the connection */
    if (rotation_due) call(r, FPC_FEED_ROTATE, &ignored);
    return FPC_OK;
}

/* --- Loading --- */

static double jittered(reader *r, double seconds) {
    r->random = r->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seconds * (0.5 + 0.5 * (double)(r->random >> 40) / (double)(1 << 24));
}

static double doubled(double first, unsigned times, double most) {
    return fmin(first * ldexp(1, times < 30 ? (int)times : 30), most);
}

static int64_t after(int64_t now, double seconds) {
    return now + (int64_t)(seconds * (double)FPC_NS_PER_SECOND);
}

static void note_error(fpc_feed *feed, const char *what, const fpc_error *err) {
    pthread_mutex_lock(&feed->lock);
    snprintf(feed->last_error, sizeof feed->last_error, "%s%s: %.200s", what, fpc_status_name(err->status),
             err->message);
    pthread_mutex_unlock(&feed->lock);
}

/* Whether a new filter would be better than the one there is. */
static bool is_worn(reader *r) {
    fpc_filter_stats stats;
    if (!fpc_feed_filter_stats(&r->feed->filter, &stats)) return true;
    uint64_t dead = stats.size / 10 > MIN_DEAD ? stats.size / 10 : MIN_DEAD;
    return r->wants_rebuild || stats.tables > 1 || atomic_load(&r->feed->missed) > dead;
}

static bool load_is_due(reader *r) {
    int64_t now = fpc_clock_ns();
    if (!atomic_load(&r->feed->want_filter) || r->failures > 0 || r->position == NULL) return false;
    if (now < r->load_not_before_ns) return false;
    if (!fpc_feed_filter_is_loaded(&r->feed->filter)) return true;
    return now >= r->rebuild_not_before_ns && is_worn(r);
}

static void load_failed(reader *r, const fpc_error *err) {
    atomic_fetch_add_explicit(&r->feed->load_failures, 1, memory_order_relaxed);
    note_error(r->feed, "filter: ", err);
    r->load_not_before_ns =
        after(fpc_clock_ns(), jittered(r, doubled(0.1, r->load_failures, MAX_LOAD_PAUSE_S)));
    r->load_failures++;
}

static void load_done(reader *r) {
    fpc_feed *feed = r->feed;
    fpc_error err;
    /* A second line: a poll that sees another incarnation has given the load up already (see forget). */
    if (strcmp(r->load.incarnation, r->incarnation) != 0 || !fpc_feed_filter_finish(&feed->filter)) {
        fpc_feed_filter_abandon(&feed->filter);
        fpc_fail(&err, FPC_CONFLICT, "the cache changed as a whole while the filter was loaded");
        load_failed(r, &err);
        return;
    }
    int64_t now = fpc_clock_ns();
    double took_s = (double)(now - r->load.began_ns) / (double)FPC_NS_PER_SECOND;
    atomic_store(&feed->missed, 0);
    atomic_fetch_add_explicit(&feed->loads, 1, memory_order_relaxed);
    r->load_failures = 0;
    /* A new filter beside a usable one costs the server a tenth of its time at most. */
    r->load_not_before_ns = after(now, took_s);
    r->rebuild_not_before_ns = after(now, fmax(1, 10 * took_s));
    pthread_mutex_lock(&feed->lock);
    feed->load_s = took_s;
    feed->last_error[0] = '\0';
    pthread_cond_broadcast(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
}

static void load_until(reader *r, fpc_deadline until) {
    fpc_error err;
    fpc_feed_progress progress = FPC_FEED_LOAD_WAITING;
    if (!fpc_feed_load_is_under_way(&r->load)) {
        if (!load_is_due(r)) return;
        r->wants_rebuild = false; /* what comes from now on is a reason for another one */
        /* Polls wait while we connect: at first no longer than freshness allows. */
        double patience_s = doubled((double)atomic_load(&r->feed->max_staleness_ns) / 2e9, r->load_failures,
                                    r->feed->options.connect_timeout_s);
        fpc_status status = fpc_feed_load_begin(&r->load, fpc_deadline_in(patience_s), &err);
        if (status != FPC_OK) progress = FPC_FEED_LOAD_FAILED;
    }
    if (progress == FPC_FEED_LOAD_WAITING) progress = fpc_feed_load_step(&r->load, until, &err);
    if (progress == FPC_FEED_LOAD_FAILED) load_failed(r, &err);
    if (progress == FPC_FEED_LOAD_DONE) load_done(r);
}

/* --- The thread --- */

static void drain(int event_fd) {
    uint64_t count;
    if (read(event_fd, &count, sizeof count) < 0) { /* somebody read it: nobody does */
    }
}

/* Sleeps until then, until a poll is wanted, or the end: false.  A writer's notification brings it forward,
 * to a little after the last poll began. */
static bool sleep_until(reader *r, fpc_deadline until, int64_t polled_at) {
    fpc_feed *feed = r->feed;
    struct pollfd fds[3] = {{.fd = feed->stop_fd, .events = POLLIN}, {.fd = feed->wake_fd, .events = POLLIN}};
    bool listens = atomic_load(&feed->is_listening) && r->conn != NULL;
    for (;;) {
        if (listens && fpc_conn_heard(r->conn, feed->schema)) {
            atomic_fetch_add_explicit(&feed->wakeups, 1, memory_order_relaxed);
            fpc_deadline soon = after(polled_at, feed->options.interval_s * WAKE_SHARE);
            if (soon < until) until = soon;
            listens = false; /* what is said from now on, the poll sees as well */
        }
        if (listens && fpc_conn_is_broken(r->conn)) return true; /* the next poll connects */
        if (listens) fds[2] = (struct pollfd){.fd = fpc_conn_fd(r->conn), .events = POLLIN};
        int ready = poll(fds, listens ? 3 : 2, fpc_deadline_poll_ms(until));
        if (ready < 0) return true; /* EINTR: too early does no harm */
        if (fds[1].revents != 0) drain(feed->wake_fd);
        if (fds[0].revents != 0) return false;
        if (fds[1].revents != 0 || !listens || fds[2].revents == 0) return true;
    }
}

static void poll_failed(reader *r, const fpc_error *err) {
    atomic_fetch_add_explicit(&r->feed->poll_failures, 1, memory_order_relaxed);
    note_error(r->feed, "", err);
    r->failures++;
    if (r->late_polls < MAX_LATE_POLLS || r->position == NULL) return;
    /* From nothing on: what came meanwhile counts as missed.  All stamps move with the next answer, and not
     * now: nobody has said that anything changed, and what is remembered is for a server that hangs, too. */
    forget_filter(r);
    free(r->position);
    r->position = NULL;
    r->late_polls = 0;
    atomic_fetch_add_explicit(&r->feed->fell_behind, 1, memory_order_relaxed);
}

/* When the next poll is due. */
static fpc_deadline next_poll(reader *r, int64_t began, bool busy) {
    double staleness_s = (double)atomic_load(&r->feed->max_staleness_ns) / (double)FPC_NS_PER_SECOND;
    if (r->failures == 1) return began; /* once more at once: mostly only the connection is gone */
    if (r->failures > 1) return fpc_deadline_in(jittered(r, doubled(0.05, r->failures - 2, MAX_PAUSE_S)));
    r->pause_s = fpc_feed_pause(r->pause_s, busy, r->feed->options.interval_s, staleness_s);
    return after(began, r->pause_s);
}

static void close_all(reader *r) {
    fpc_feed_load_abandon(&r->load);
    fpc_conn_delete(r->conn);
    free(r->position);
}

void *fpc_feed_run(void *arg) {
    fpc_feed *feed = arg;
    reader r = {.feed = feed,
                .pause_s = feed->options.interval_s,
                .random = (uint64_t)fpc_clock_ns() ^ (uint64_t)getpid(),
                .load = {.info = feed->info,
                         .options = &feed->options,
                         .statements = feed->statements + FPC_FEED_LOAD,
                         .filter = &feed->filter}};
    fpc_wait_stop_by(feed->stop_fd);
    fpc_deadline next;
    int64_t began;
    do {
        fpc_error err;
        bool busy = false;
        began = fpc_clock_ns();
        if (poll_once(&r, &busy, &err) == FPC_OK)
            r.failures = 0;
        else
            poll_failed(&r, &err);
        next = next_poll(&r, began, busy);
        load_until(&r, next);
        fpc_feed_filter_tidy(&feed->filter);
    } while (sleep_until(&r, next, began));
    close_all(&r);
    pthread_mutex_lock(&feed->lock);
    feed->has_ended = true;
    bool is_abandoned = feed->is_abandoned;
    pthread_cond_broadcast(&feed->moved);
    pthread_mutex_unlock(&feed->lock);
    if (is_abandoned) fpc_feed_free(feed);
    return NULL;
}
