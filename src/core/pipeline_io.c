/* pipeline_io.c -- the turns of one engine: those of the I/O thread, and what callers do in its place.  One
 * turn of the thread:
 *
 *   1. read what the servers said
 *   2. take what was submitted, and the connections that openers bring
 *   3. let requests expire
 *   4. each lane: open what is needed, send what can be sent; look for silence
 *   5. hand over what is done, all at once
 *   6. note what the thread is to poll until somebody submits, a server speaks, or something is due
 *
 * Nothing here waits.  Between such turns a caller may have one of his own, in which he sends what he
 * submitted: the thread need not wake up for that.  He opens, closes and reads nothing, so what the thread
 * sleeps on stays as it is; whatever else there is to do he wakes the thread for.
 */
#include "pipeline_io.h"
#include "fpcache/wait.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

fpc_io *fpc_io_new(fpc_pipeline *engine) {
    fpc_io *io = calloc(1, sizeof *io);
    if (io == NULL) return NULL;
    io->engine = engine;
    io->next_deadline = FPC_NEVER;
    io->random = (uint64_t)fpc_clock_ns() ^ (uint64_t)getpid();
    for (int lane = 0; lane < FPC_LANES; lane++) fpc_lane_init(&io->lanes[lane], io, (fpc_lane)lane);
    for (int i = 0; i < FPC_MANY_WIDTH_MAX; i++) fpc_array_create(&io->arrays[i], FPC_OID_BYTEA);
    return io; /* its first turn comes at once */
}

void fpc_io_delete(fpc_io *io) {
    if (io == NULL) return;
    for (int i = 0; i < FPC_MANY_WIDTH_MAX; i++) fpc_array_destroy(&io->arrays[i]);
    free(io);
}

double fpc_io_jitter(fpc_io *io, double seconds) {
    io->random = io->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return seconds * (0.5 + 0.5 * (double)(io->random >> 40) / (double)(1 << 24));
}

/* --- Requests --- */

void fpc_io_finish(fpc_io *io, fpc_request *request) {
    request->next = NULL;
    if (io->last_done == NULL)
        io->first_done = request;
    else
        io->last_done->next = request;
    io->last_done = request;
    atomic_fetch_add_explicit(&io->engine->counters.finished, 1, memory_order_relaxed);
}

void fpc_io_fail(fpc_io *io, fpc_request *request, const fpc_error *why) {
    fpc_request_fail(request, why);
    fpc_io_finish(io, request);
}

static fpc_lane_state *lane_of(fpc_io *io, const fpc_request *request) {
    const fpc_statement *statement = request->statement;
    return &io->lanes[statement->slow        ? FPC_LANE_SLOW
                      : statement->read_only ? FPC_LANE_READ
                                             : FPC_LANE_WRITE];
}

static void no_memory(fpc_io *io, fpc_request *request) {
    fpc_error why;
    fpc_fail(&why, FPC_NOMEM, "request");
    fpc_io_fail(io, request, &why);
}

void fpc_io_put_back(fpc_io *io, fpc_request *request) {
    if (!fpc_queue_put_back(&lane_of(io, request)->queue, request)) no_memory(io, request);
}

static void enqueue(fpc_io *io, fpc_request *list) {
    if (list != NULL) io->was_asked = true;
    while (list != NULL) {
        fpc_request *request = list;
        list = list->next;
        if (request->deadline < io->next_deadline) io->next_deadline = request->deadline;
        if (!fpc_queue_append(&lane_of(io, request)->queue, request)) no_memory(io, request);
    }
}

/* --- Deadlines --- */

static bool is_overdue(const fpc_request *request, void *arg) {
    fpc_io *io = arg;
    if (request->deadline <= io->now || atomic_load(&request->abandoned)) return true;
    if (request->deadline < io->next_deadline) io->next_deadline = request->deadline;
    return false;
}

static void expire(fpc_io *io, fpc_request *request, void *was_sent) {
    fpc_error why;
    if (was_sent == NULL)
        fpc_fail(&why, FPC_TIMEOUT,
                 "the statement was not sent in time: the server is too slow, or too much waits");
    else
        fpc_fail(&why, FPC_TIMEOUT, "no answer from the server in time%s",
                 request->statement->read_only ? "" : ": the change may still happen");
    atomic_fetch_add_explicit(&io->engine->counters.expired, 1, memory_order_relaxed);
    fpc_io_fail(io, request, &why);
}

static void expire_all(fpc_io *io) {
    if (io->now < io->next_deadline) return;
    io->next_deadline = FPC_NEVER; /* is_overdue() finds the next */
    for (int i = 0; i < FPC_LANES; i++) {
        fpc_lane_state *lane = &io->lanes[i];
        fpc_request *overdue = fpc_queue_filter(&lane->queue, is_overdue, io);
        while (overdue != NULL) {
            fpc_request *request = overdue;
            overdue = overdue->next;
            expire(io, request, NULL);
        }
        for (int n = 0; n < FPC_LANE_PIPES; n++) {
            if (lane->pipes[n].state == FPC_PIPE_OPEN)
                fpc_pipe_give_up(&lane->pipes[n], is_overdue, io, expire);
        }
    }
}

/* --- One turn --- */

static void take_news(fpc_io *io) {
    fpc_pipeline *engine = io->engine;
    pthread_mutex_lock(&engine->lock);
    fpc_request *submitted = engine->first;
    fpc_opened *opened = engine->opened;
    engine->first = engine->last = NULL;
    engine->opened = NULL;
    bool begins_to_stop = engine->closed && !io->stopping;
    double grace_s = engine->grace_s;
    pthread_mutex_unlock(&engine->lock);
    if (begins_to_stop) { /* first: openers that were stopped fail for that reason only */
        io->stopping = true;
        io->stop_by = fpc_deadline_in(grace_s);
    }
    enqueue(io, submitted);
    while (opened != NULL) {
        fpc_opened *next = opened->next;
        fpc_lane_opened(&io->lanes[opened->pipe->lane], opened);
        free(opened);
        opened = next;
    }
}

static void hand_over(fpc_io *io) {
    fpc_request *list = io->first_done;
    io->first_done = io->last_done = NULL;
    fpc_completions_put(list);
}

static void count_waiting(fpc_io *io) {
    size_t waiting = 0;
    for (int i = 0; i < FPC_LANES; i++) waiting += io->lanes[i].queue.count;
    atomic_store_explicit(&io->engine->counters.waiting, waiting, memory_order_relaxed);
}

/* Steps 3 to 5; returns when something is due. */
static fpc_deadline work(fpc_io *io) {
    fpc_deadline due = FPC_NEVER;
    expire_all(io);
    for (int i = 0; i < FPC_LANES; i++) {
        fpc_deadline again =
            fpc_lane_watch(&io->lanes[i]); /* first: what a silent one owed is sent elsewhere */
        if (again < due) due = again;
        if (!io->stopping) fpc_lane_serve(&io->lanes[i]);
    }
    count_waiting(io);
    hand_over(io);
    return io->next_deadline < due ? io->next_deadline : due;
}

static int64_t silence_ns(const fpc_io *io) {
    return (int64_t)(fmin(io->engine->options.silence_s, 1e9) * (double)FPC_NS_PER_SECOND);
}

static bool is_longer(const fpc_request *list, int length) {
    while (list != NULL && length-- > 0) list = list->next;
    return list != NULL;
}

bool fpc_io_send_for_caller(fpc_io *io) {
    fpc_pipeline *engine = io->engine;
    if (io->stopping) return true;
    pthread_mutex_lock(&engine->lock);
    bool is_for_thread = engine->closed || is_longer(engine->first, FPC_CALLER_SENDS);
    fpc_request *submitted = is_for_thread ? NULL : engine->first;
    if (submitted != NULL) engine->first = engine->last = NULL;
    pthread_mutex_unlock(&engine->lock);
    if (submitted == NULL) return is_for_thread;
    io->now = fpc_clock_ns();
    enqueue(io, submitted);
    if (io->next_deadline <= io->now) return true; /* it is not to be sent, perhaps */
    bool is_left = false;
    for (int i = 0; i < FPC_LANES; i++) {
        if (io->lanes[i].queue.count > 0) is_left = fpc_lane_send(&io->lanes[i]) || is_left;
    }
    count_waiting(io);
    hand_over(io);
    atomic_fetch_add_explicit(&engine->counters.by_callers, 1, memory_order_relaxed);
    return is_left || io->next_deadline < io->sleeps_until || io->now + silence_ns(io) < io->sleeps_until;
}

/* What may be submitted between the look at the list and the sleep wakes: see pipeline.c. */
static bool has_news(fpc_pipeline *engine) {
    pthread_mutex_lock(&engine->lock);
    bool has = engine->first != NULL || engine->opened != NULL;
    pthread_mutex_unlock(&engine->lock);
    return has;
}

static void read_pipe(fpc_lane_state *lane, fpc_pipe *pipe, short revents) {
    bool is_fine = true;
    if (revents & POLLOUT) is_fine = fpc_pipe_flush(pipe);
    if (is_fine && (revents & ~POLLOUT || pipe->unread)) is_fine = fpc_pipe_read(pipe);
    if (is_fine) return;
    atomic_fetch_add_explicit(&lane->io->engine->counters.lost, 1, memory_order_relaxed);
    fpc_pipe_lose(pipe, NULL);
}

static void read_polled(fpc_io *io, const struct pollfd *polled) {
    uint64_t wakes;
    if (io->fd_count > 0 && polled[0].revents != 0 &&
        read(io->engine->wake_fd, &wakes, sizeof wakes) < 0) { /* somebody read it: nobody does */
    }
    for (int i = 1; i < io->fd_count; i++) {
        fpc_pipe *pipe = io->pipes[i];
        if (polled[i].revents != 0 || pipe->unread)
            read_pipe(&io->lanes[pipe->lane], pipe, polled[i].revents);
    }
}

/* Step 6. */
static void rest(fpc_io *io, fpc_deadline until) {
    fpc_pipeline *engine = io->engine;
    bool is_unread = false;
    io->fds[0] = (struct pollfd){.fd = engine->wake_fd, .events = POLLIN};
    io->fd_count = 1;
    for (int i = 0; i < FPC_LANES; i++) {
        for (int n = 0; n < FPC_LANE_PIPES; n++) {
            fpc_pipe *pipe = &io->lanes[i].pipes[n];
            if (pipe->state != FPC_PIPE_OPEN) continue;
            is_unread = is_unread || pipe->unread;
            io->pipes[io->fd_count] = pipe;
            io->fds[io->fd_count++] = (struct pollfd){.fd = PQsocket(pipe->pg),
                                                      .events = pipe->unflushed ? POLLIN | POLLOUT : POLLIN};
        }
    }
    /* After a request a short sleep: it ends before the watch over silence of the next one would have to. */
    io->sleeps_until = until;
    if (io->was_asked && io->now + silence_ns(io) < until) io->sleeps_until = io->now + silence_ns(io);
    io->was_asked = false;
    atomic_store(&engine->asleep, true);
    if (is_unread || has_news(engine)) io->sleeps_until = 0;
    engine->resting = io;
}

/* --- The end --- */

static bool is_owed_anything(fpc_io *io) {
    for (int i = 0; i < FPC_LANES; i++) {
        for (int n = 0; n < FPC_LANE_PIPES; n++) {
            const fpc_pipe *pipe = &io->lanes[i].pipes[n];
            if (pipe->state == FPC_PIPE_OPEN && fpc_pipe_is_wanted(pipe)) return true;
        }
    }
    return false;
}

static void closed(fpc_error *why) {
    fpc_fail(why, FPC_CLOSED, "the cache was closed");
}

static void fail_waiting(fpc_io *io) {
    fpc_error why;
    closed(&why);
    for (int i = 0; i < FPC_LANES; i++) fpc_lane_fail_waiting(&io->lanes[i], &why);
}

static void close_pipes(fpc_io *io) {
    fpc_error why;
    closed(&why);
    for (int i = 0; i < FPC_LANES; i++) {
        for (int n = 0; n < FPC_LANE_PIPES; n++) {
            fpc_pipe *pipe = &io->lanes[i].pipes[n];
            if (pipe->state == FPC_PIPE_OPEN) fpc_pipe_lose(pipe, &why);
            fpc_id_set_destroy(&pipe->prepared);
            free(pipe->ring);
            pipe->ring = NULL;
            pipe->capacity = 0;
        }
    }
    fail_waiting(io); /* reads that were to be sent again */
}

static void end(fpc_io *io) {
    fpc_pipeline *engine = io->engine;
    close_pipes(io);
    pthread_mutex_lock(&engine->lock);
    engine->running = false; /* from here on openers clean up after themselves */
    engine->io = NULL;
    pthread_mutex_unlock(&engine->lock);
    take_news(io);
    close_pipes(io);
    hand_over(io);
    fpc_io_delete(io);
    pthread_mutex_lock(&engine->lock);
    pthread_cond_broadcast(&engine->ended);
    pthread_mutex_unlock(&engine->lock);
    fpc_pipeline_drop(engine);
}

bool fpc_io_turn(fpc_io *io, const struct pollfd *polled) {
    fpc_pipeline *engine = io->engine;
    atomic_store(&engine->asleep, false);
    pthread_mutex_lock(&engine->turn);
    engine->resting = NULL;
    io->now = fpc_clock_ns();
    read_polled(io, polled);
    take_news(io);
    if (io->stopping) fail_waiting(io);
    fpc_deadline due = work(io);
    bool is_over = io->stopping && (!is_owed_anything(io) || io->now >= io->stop_by);
    if (io->stopping && io->stop_by < due) due = io->stop_by;
    if (!is_over) rest(io, due);
    pthread_mutex_unlock(&engine->turn); /* nobody else has one once it is over: nothing rests */
    if (is_over) end(io);
    return !is_over;
}
