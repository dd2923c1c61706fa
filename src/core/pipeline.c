/* pipeline.c -- the engine as its callers see it: submit, wake, stop, and what a fork leaves of it.
 *
 * Submitting is a list insertion under a lock.  The thread is woken by an eventfd, which is written only when
 * the thread said that it is about to sleep (`asleep`): it looks at the list once more after it said so.
 *
 * Openers are detached.  Whoever is the last to let go frees the engine, so that one that hangs in a name
 * lookup holds nobody up. */
#include "fpcache/fork.h"
#include "pipeline_io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define END_PATIENCE_S 0.4 /* for the thread to notice */
#define LAST_GRACE_S   0.1

static void make_readable(int fd) {
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) { /* full: it is readable already */
    }
}

/* What a life of the engine needs; again in the child of a fork. */
static void begin_life(fpc_pipeline *engine) {
    pthread_condattr_t monotonic;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_mutex_init(&engine->turn, NULL);
    engine->resting = NULL;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    engine->fork_generation = fpc_fork_generation();
    engine->references = 1;
    engine->running = false;
    engine->io = NULL;
    engine->first = engine->last = NULL;
    engine->opened = NULL;
    atomic_store(&engine->asleep, false);
    engine->wake_fd = engine->stop_fd = -1; /* until it starts */
}

static void close_descriptors(fpc_pipeline *engine) {
    if (engine->wake_fd >= 0) close(engine->wake_fd);
    if (engine->stop_fd >= 0) close(engine->stop_fd);
    engine->wake_fd = engine->stop_fd = -1;
}

static void free_engine(fpc_pipeline *engine) {
    close_descriptors(engine);
    fpc_conninfo_delete(engine->info);
    free(engine->session_sql);
    pthread_cond_destroy(&engine->ended);
    pthread_mutex_destroy(&engine->lock);
    pthread_mutex_destroy(&engine->turn);
    free(engine);
}

fpc_status fpc_pipeline_new(const fpc_conninfo *info, const fpc_pipeline_options *options, fpc_pipeline **out,
                            fpc_error *err) {
    if (options->readers < 1 || options->readers > FPC_PIPELINE_MAX_READERS) {
        return fpc_fail(err, FPC_INVALID, "readers: 1 to %d connections", FPC_PIPELINE_MAX_READERS);
    }
    if (!(options->silence_s > 0)) return fpc_fail(err, FPC_INVALID, "silence: a positive number of seconds");
    fpc_pipeline *engine = calloc(1, sizeof *engine);
    if (engine == NULL) return fpc_fail(err, FPC_NOMEM, "pipeline");
    engine->options = *options;
    engine->info = fpc_conninfo_copy(info);
    if (options->conn.session_sql != NULL) {
        engine->session_sql = strdup(options->conn.session_sql);
        engine->options.conn.session_sql = engine->session_sql;
    }
    begin_life(engine);
    if (engine->info == NULL || (options->conn.session_sql != NULL && engine->session_sql == NULL)) {
        free_engine(engine);
        return fpc_fail(err, FPC_NOMEM, "pipeline");
    }
    *out = engine;
    return FPC_OK;
}

/* The parent's sockets: closed here without a word.  The memory around them may be in any state. */
static void forget_parent(fpc_pipeline *engine) {
    for (int lane = 0; engine->io != NULL && lane < FPC_LANES; lane++) {
        for (int i = 0; i < FPC_LANE_PIPES; i++) {
            fpc_pipe *pipe = &engine->io->lanes[lane].pipes[i];
            if (pipe->state == FPC_PIPE_OPEN && pipe->pg != NULL && PQsocket(pipe->pg) >= 0) {
                close(PQsocket(pipe->pg));
            }
        }
    }
    close_descriptors(engine);
    memset(&engine->counters, 0, sizeof engine->counters);
    begin_life(engine);
}

static void lock_engine(fpc_pipeline *engine) {
    if (engine->fork_generation != fpc_fork_generation()) forget_parent(engine);
    pthread_mutex_lock(&engine->lock);
}

void fpc_pipeline_drop(fpc_pipeline *engine) {
    pthread_mutex_lock(&engine->lock);
    bool is_last = --engine->references == 0;
    pthread_mutex_unlock(&engine->lock);
    if (is_last) free_engine(engine);
}

/* Lock held. */
static fpc_status start(fpc_pipeline *engine, fpc_error *err) {
    fpc_status status = FPC_OK;
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    engine->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    engine->io = fpc_io_new(engine);
    if (engine->wake_fd < 0 || engine->stop_fd < 0 || engine->io == NULL)
        status =
            fpc_fail(err, FPC_NOMEM, "could not start the pipeline: no memory or no descriptors (ulimit -n)");
    else
        status = fpc_io_start(engine->io, err);
    if (status != FPC_OK) {
        close_descriptors(engine);
        fpc_io_delete(engine->io);
        engine->io = NULL;
        return status;
    }
    engine->references++;
    engine->running = true;
    return FPC_OK;
}

fpc_status fpc_pipeline_submit(fpc_pipeline *engine, fpc_completions *to, const fpc_statement *statement,
                               const fpc_params *params, fpc_deadline deadline, fpc_request **out,
                               fpc_error *err) {
    size_t bytes = 0;
    for (int i = 0; i < params->count; i++) bytes += (size_t)params->lengths[i];
    fpc_status status = fpc_check_statement_size(bytes, err);
    if (status != FPC_OK) return status;
    if (!fpc_completions_reserve(to)) {
        return fpc_fail(err, FPC_BUSY, "too many requests are on their way already (see pipeline_queue)");
    }
    fpc_request *request = fpc_request_new(to, statement, params, deadline);
    if (request == NULL) {
        fpc_completions_unreserve(to);
        return fpc_fail(err, FPC_NOMEM, "request of %zu bytes", bytes);
    }
    lock_engine(engine);
    if (engine->closed)
        status = fpc_fail(err, FPC_CLOSED, "the cache was closed");
    else if (!engine->running)
        status = start(engine, err);
    if (status == FPC_OK) {
        if (engine->last == NULL)
            engine->first = request;
        else
            engine->last->next = request;
        engine->last = request;
        atomic_fetch_add_explicit(&engine->counters.submitted, 1, memory_order_relaxed);
        *out = request;
    }
    pthread_mutex_unlock(&engine->lock);
    if (status != FPC_OK) {
        fpc_request_delete(request);
        fpc_completions_unreserve(to);
    }
    return status;
}

void fpc_pipeline_wake(fpc_pipeline *engine) {
    if (atomic_exchange(&engine->asleep, false)) make_readable(engine->wake_fd);
}

void fpc_pipeline_kick(fpc_pipeline *engine) {
    if (engine->fork_generation != fpc_fork_generation()) return;
    /* A thread that is awake takes what is there before it sleeps.  It may be waiting for its turn already:
     * who then took one after the other would starve it. */
    if (!atomic_load(&engine->asleep)) return;
    bool needs_thread = true;
    if (pthread_mutex_trylock(&engine->turn) == 0) {
        if (engine->resting != NULL) needs_thread = fpc_io_send_for_caller(engine->resting);
        pthread_mutex_unlock(&engine->turn);
    }
    if (needs_thread) fpc_pipeline_wake(engine);
}

void fpc_pipeline_close(fpc_pipeline *engine, double grace_s) {
    fpc_deadline patience = fpc_deadline_in(grace_s + END_PATIENCE_S);
    struct timespec until = {.tv_sec = patience / FPC_NS_PER_SECOND, .tv_nsec = patience % FPC_NS_PER_SECOND};
    lock_engine(engine);
    if (!engine->closed) {
        engine->closed = true;
        engine->grace_s = grace_s;
        if (engine->running) {
            make_readable(engine->stop_fd);
            make_readable(engine->wake_fd);
        }
    }
    while (engine->running && pthread_cond_timedwait(&engine->ended, &engine->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&engine->lock);
}

void fpc_pipeline_delete(fpc_pipeline *engine) {
    if (engine == NULL) return;
    fpc_pipeline_close(engine, LAST_GRACE_S);
    fpc_pipeline_drop(engine);
}

void fpc_pipeline_get_stats(fpc_pipeline *engine, fpc_pipeline_stats *out) {
    lock_engine(engine);
    const fpc_pipeline_counters *c = &engine->counters;
    *out = (fpc_pipeline_stats){.open = c->open,
                                .opening = c->opening,
                                .silent = c->silent,
                                .waiting = c->waiting,
                                .in_flight = c->in_flight,
                                .submitted = c->submitted,
                                .finished = c->finished,
                                .groups = c->groups,
                                .merged = c->merged,
                                .resent = c->resent,
                                .expired = c->expired,
                                .dropped = c->dropped,
                                .by_callers = c->by_callers,
                                .opened = c->opened_total,
                                .open_failures = c->open_failures,
                                .lost = c->lost,
                                .went_silent = c->went_silent};
    pthread_mutex_unlock(&engine->lock);
}
