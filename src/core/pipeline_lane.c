/* pipeline_lane.c -- the connections of one lane: how many, which one next, when one is given up.
 *
 * Opening: at once when requests wait and nothing is open; a second one only while the first is busy.  After
 * a loss the first attempt follows at once, further ones after growing pauses.  While nothing is open and the
 * last attempt failed, requests fail with its reason.
 *
 * Silence: a connection that owes an answer and says nothing for silence_s takes no new requests, and another
 * one is opened in its place.  It returns to service when it speaks, if its place is still free, or ends when
 * all it owed is answered or nobody waits for it any more. */
#include "pipeline_io.h"

#include <math.h>
#include <string.h>

#define FIRST_PAUSE_S       0.05
#define MAX_PAUSE_AWAY_S    0.4 /* nobody answers: a server that is back is to be found within half a second */
#define MAX_PAUSE_REFUSED_S 1.0
#define BUSY                8 /* requests in flight that justify one more connection */

void fpc_lane_init(fpc_lane_state *lane, fpc_io *io, fpc_lane which) {
    memset(lane, 0, sizeof *lane);
    lane->io = io;
    lane->lane = which;
    lane->wanted = which == FPC_LANE_READ ? io->engine->options.readers : 1;
    for (int i = 0; i < FPC_LANE_PIPES; i++) {
        lane->pipes[i].io = io;
        lane->pipes[i].lane = which;
    }
}

static int places(const fpc_lane_state *lane) {
    return lane->wanted + 2;
}

static int64_t span_ns(double seconds) {
    return (int64_t)(fmin(seconds, 1e9) * (double)FPC_NS_PER_SECOND);
}

/* --- Opening --- */

typedef struct census {
    int usable, opening, busy;
} census;

static census count_pipes(const fpc_lane_state *lane) {
    census c = {0};
    for (int i = 0; i < places(lane); i++) {
        const fpc_pipe *pipe = &lane->pipes[i];
        c.opening += pipe->state == FPC_PIPE_OPENING;
        c.usable += fpc_pipe_is_usable(pipe);
        c.busy += fpc_pipe_is_usable(pipe) && pipe->in_flight >= BUSY;
    }
    return c;
}

static void set_pause(fpc_lane_state *lane) {
    double longest_s = lane->last_error.status == FPC_CONNECT ? MAX_PAUSE_AWAY_S : MAX_PAUSE_REFUSED_S;
    double pause_s =
        fmin(FIRST_PAUSE_S * ldexp(1, lane->failures < 10 ? (int)lane->failures : 10), longest_s);
    lane->failures++;
    lane->retry_ns = lane->io->now + span_ns(fpc_io_jitter(lane->io, pause_s));
}

void fpc_lane_fail_waiting(fpc_lane_state *lane, const fpc_error *why) {
    fpc_request *request;
    while ((request = fpc_queue_take(&lane->queue)) != NULL) fpc_io_fail(lane->io, request, why);
}

void fpc_lane_opened(fpc_lane_state *lane, fpc_opened *opened) {
    fpc_pipeline_counters *counters = &lane->io->engine->counters;
    atomic_fetch_sub(&counters->opening, 1);
    opened->pipe->state = FPC_PIPE_CLOSED;
    if (opened->conn != NULL) {
        lane->failures = 0;
        atomic_fetch_add(&counters->opened_total, 1);
        fpc_pipe_begin(opened->pipe, opened->conn);
        return;
    }
    atomic_fetch_add(&counters->open_failures, 1);
    lane->last_error = opened->error;
    set_pause(lane);
    census c = count_pipes(lane);
    if (c.usable + c.opening == 0 && !lane->io->stopping) fpc_lane_fail_waiting(lane, &lane->last_error);
}

static void open_one(fpc_lane_state *lane) {
    for (int i = 0; i < places(lane); i++) {
        if (lane->pipes[i].state != FPC_PIPE_CLOSED) continue;
        if (fpc_pipeline_open(&lane->pipes[i])) {
            lane->pipes[i].state = FPC_PIPE_OPENING;
            atomic_fetch_add(&lane->io->engine->counters.opening, 1);
        } else {
            fpc_fail(&lane->last_error, FPC_NOMEM, "no thread to open a connection with");
            set_pause(lane);
        }
        return;
    }
}

static bool would_help(const fpc_lane_state *lane, census c) {
    return c.usable > 0 && c.usable == c.busy && c.opening == 0 && c.usable < lane->wanted;
}

static void open_needed(fpc_lane_state *lane) {
    census c = count_pipes(lane);
    bool is_needed = lane->queue.count > 0 && c.usable + c.opening == 0;
    if (!is_needed && !would_help(lane, c)) return;
    if (lane->failures == 0 || lane->io->now >= lane->retry_ns) open_one(lane);
    if (count_pipes(lane).opening == 0 && is_needed && lane->failures > 0) {
        fpc_lane_fail_waiting(lane, &lane->last_error); /* the last attempt is fresh enough to tell */
    }
}

/* --- Sending --- */

static size_t window(const fpc_lane_state *lane) {
    return lane->lane == FPC_LANE_SLOW ? FPC_SLOW_WINDOW : FPC_PIPE_WINDOW;
}

static bool is_old(const fpc_pipe *pipe) {
    double limit = pipe->io->engine->options.max_lifetime_s;
    uint64_t mixed = (uint64_t)pipe->opened_ns * UINT64_C(0x9E3779B97F4A7C15); /* not all at once */
    double spread = 0.9 + 0.2 * ((double)(mixed >> 40) / (double)(1 << 24));
    return limit > 0 && pipe->io->now - pipe->opened_ns > span_ns(limit * spread);
}

/* The usable connection that owes least, among those that can take more. */
static fpc_pipe *choose(fpc_lane_state *lane) {
    fpc_pipe *best = NULL;
    for (int i = 0; i < places(lane); i++) {
        fpc_pipe *pipe = &lane->pipes[i];
        if (!fpc_pipe_is_usable(pipe) || pipe->unflushed) continue;
        if ((size_t)pipe->in_flight >= window(lane)) continue;
        if (best == NULL || pipe->in_flight < best->in_flight) best = pipe;
    }
    return best;
}

static void drop_old(fpc_lane_state *lane) {
    for (int i = 0; i < places(lane); i++) {
        fpc_pipe *pipe = &lane->pipes[i];
        if (fpc_pipe_is_usable(pipe) && is_old(pipe)) pipe->retiring = true;
        if (pipe->retiring && fpc_pipe_is_idle(pipe)) fpc_pipe_lose(pipe, NULL);
    }
}

static void count_lost(fpc_lane_state *lane) {
    atomic_fetch_add_explicit(&lane->io->engine->counters.lost, 1, memory_order_relaxed);
}

/* Writes that may travel merged wait for the one that is on its way: the next statement takes all of them.
 * Behind such a statement all others wait: should it fail, its writes are sent again. */
static bool is_to_gather(const fpc_lane_state *lane, const fpc_pipe *pipe) {
    const fpc_request *first = fpc_queue_first(&lane->queue);
    if (lane->lane != FPC_LANE_WRITE) return false;
    return pipe->gathered || (pipe->in_flight > 0 && first->statement->many != NULL && !first->alone);
}

bool fpc_lane_send(fpc_lane_state *lane) {
    fpc_request *requests[FPC_PIPE_WINDOW];
    bool is_left = false;
    while (lane->queue.count > 0) {
        fpc_pipe *pipe = choose(lane);
        if (pipe == NULL) break;
        if (is_to_gather(lane, pipe)) return is_left; /* its answer wakes the thread */
        size_t room = window(lane) - (size_t)pipe->in_flight, count = 0;
        fpc_request *request;
        while (count < room && (request = fpc_queue_take(&lane->queue)) != NULL) {
            if (atomic_load_explicit(&request->abandoned, memory_order_relaxed)) {
                atomic_fetch_add_explicit(&lane->io->engine->counters.dropped, 1, memory_order_relaxed);
                fpc_io_finish(lane->io, request);
            } else {
                requests[count++] = request;
            }
        }
        if (count == 0) continue;
        if (!fpc_pipe_send(pipe, requests, count)) pipe->broken = true;
        is_left = is_left || pipe->broken || pipe->unflushed || pipe->unread;
    }
    return is_left || lane->queue.count > 0 || (lane->failures == 0 && would_help(lane, count_pipes(lane)));
}

/* Losing one puts reads back, which others can take. */
static bool end_broken(fpc_lane_state *lane) {
    bool ended = false;
    for (int i = 0; i < places(lane); i++) {
        if (!lane->pipes[i].broken) continue;
        count_lost(lane);
        fpc_pipe_lose(&lane->pipes[i], NULL);
        ended = true;
    }
    return ended;
}

void fpc_lane_serve(fpc_lane_state *lane) {
    drop_old(lane);
    end_broken(lane); /* a caller's turn left it */
    do fpc_lane_send(lane);
    while (end_broken(lane));
    open_needed(lane);
}

/* --- Watching --- */

static void went_silent(fpc_lane_state *lane, fpc_pipe *pipe) {
    fpc_pipeline_counters *counters = &lane->io->engine->counters;
    pipe->silent = true;
    atomic_fetch_add(&counters->silent, 1);
    atomic_fetch_add(&counters->went_silent, 1);
    if (lane->lane == FPC_LANE_READ) fpc_pipe_take_back_reads(pipe); /* slow ones may just be slow */
}

static void speaks_again(fpc_lane_state *lane, fpc_pipe *pipe) {
    census c = count_pipes(lane);
    pipe->silent = false;
    atomic_fetch_sub(&lane->io->engine->counters.silent, 1);
    if (c.usable + c.opening >= lane->wanted) pipe->retiring = true; /* its place is taken */
}

static void earlier(fpc_deadline *at, fpc_deadline other) {
    if (other < *at) *at = other;
}

/* One connection; returns when to look again. */
static fpc_deadline watch(fpc_lane_state *lane, fpc_pipe *pipe) {
    fpc_io *io = lane->io;
    const fpc_pipeline_options *options = &io->engine->options;
    fpc_deadline again = FPC_NEVER;
    if (fpc_pipe_is_idle(pipe)) {
        if (pipe->silent) speaks_again(lane, pipe);
        fpc_deadline ends =
            options->idle_timeout_s > 0 ? pipe->heard_ns + span_ns(options->idle_timeout_s) : FPC_NEVER;
        if (pipe->retiring || io->now >= ends) {
            fpc_pipe_lose(pipe, NULL);
        } else {
            again = ends;
        }
        return again;
    }
    fpc_deadline silence = pipe->heard_ns + span_ns(options->silence_s);
    if (io->now < silence) {
        if (pipe->silent) speaks_again(lane, pipe);
        return silence;
    }
    if (!pipe->silent) went_silent(lane, pipe);
    if (!fpc_pipe_is_wanted(pipe)) {
        fpc_error why;
        fpc_fail(&why, FPC_TIMEOUT, "the server stopped answering");
        count_lost(lane);
        fpc_pipe_lose(pipe, &why);
    }
    return again; /* deadlines of its requests, or what it says, end the wait */
}

fpc_deadline fpc_lane_watch(fpc_lane_state *lane) {
    fpc_deadline again = FPC_NEVER;
    for (int i = 0; i < places(lane); i++) {
        if (lane->pipes[i].state == FPC_PIPE_OPEN) earlier(&again, watch(lane, &lane->pipes[i]));
    }
    return again;
}
