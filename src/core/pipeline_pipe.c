/* pipeline_pipe.c -- one connection in libpq's pipeline mode: what it owes answers for, and reading them.
 *
 * The ring lists what was sent, in order: the statements to prepare, the queries, the syncs that end groups.
 * libpq gives the answers in the same order, and an answer that does not fit the head of the ring ends the
 * connection.
 *
 * In a group of reads each answer counts at once.  A statement that writes is alone in its group, and counts
 * when its sync came: a success before it can still be rolled back.  A statement to prepare has a group of
 * its own, so that no other error undoes it unseen; if it is refused, the queries that follow get its reason,
 * and no longer that it "does not exist". */
#include "pipeline_io.h"
#include "server_error.h"

#include <stdlib.h>
#include <string.h>

/* --- The ring --- */

static fpc_sent *entry(const fpc_pipe *pipe, size_t index) {
    return &pipe->ring[(pipe->head + index) & (pipe->capacity - 1)];
}

bool fpc_pipe_reserve(fpc_pipe *pipe, size_t more) {
    size_t capacity = pipe->capacity == 0 ? 64 : pipe->capacity;
    while (capacity < pipe->owed + more) capacity *= 2;
    if (capacity == pipe->capacity) return true;
    fpc_sent *ring = malloc(capacity * sizeof *ring);
    if (ring == NULL) return false;
    for (size_t i = 0; i < pipe->owed; i++) ring[i] = *entry(pipe, i);
    free(pipe->ring);
    pipe->ring = ring;
    pipe->head = 0;
    pipe->capacity = capacity;
    return true;
}

static void pop(fpc_pipe *pipe) {
    fpc_sent *done = entry(pipe, 0);
    if (done->kind == FPC_SENT_QUERY) {
        pipe->in_flight--;
        atomic_fetch_sub_explicit(&pipe->io->engine->counters.in_flight, 1, memory_order_relaxed);
        free(done->many);
    }
    pipe->head = (pipe->head + 1) & (pipe->capacity - 1);
    if (--pipe->owed == 0) pipe->gathered = false; /* nothing is sent behind them before their sync came */
    pipe->has_result = false;
}

/* --- Life --- */

void fpc_pipe_begin(fpc_pipe *pipe, fpc_conn *conn) {
    pipe->conn = conn;
    pipe->pg = fpc_conn_pg(conn);
    pipe->state = FPC_PIPE_OPEN;
    pipe->silent = pipe->retiring = pipe->unflushed = pipe->has_result = pipe->commit_failed = false;
    pipe->broken = pipe->unread = pipe->gathered = false;
    pipe->not_run = false;
    pipe->lost.status = FPC_OK;
    pipe->opened_ns = pipe->heard_ns = pipe->io->now;
    atomic_fetch_add(&pipe->io->engine->counters.open, 1);
    if (!PQenterPipelineMode(pipe->pg)) pipe->retiring = true; /* it cannot be used, and owes nothing */
}

bool fpc_pipe_is_usable(const fpc_pipe *pipe) {
    return pipe->state == FPC_PIPE_OPEN && !pipe->silent && !pipe->retiring && !pipe->broken;
}

bool fpc_pipe_is_idle(const fpc_pipe *pipe) {
    return pipe->state == FPC_PIPE_OPEN && pipe->owed == 0;
}

/* Each request of the entry that is not given up, by its `place` there. */
#define FOR_EACH_REQUEST(sent)                                                                               \
    for (fpc_request **place = (sent)->many != NULL ? (sent)->many : &(sent)->one,                           \
                     **end_ = place + ((sent)->many != NULL ? (sent)->count : 1);                            \
         place < end_; place++)                                                                              \
        if (*place != NULL)

bool fpc_pipe_is_wanted(const fpc_pipe *pipe) {
    for (size_t i = 0; i < pipe->owed; i++) {
        fpc_sent *sent = entry(pipe, i);
        if (sent->kind != FPC_SENT_QUERY) continue;
        FOR_EACH_REQUEST(sent) return true;
    }
    return pipe->committing != NULL;
}

void fpc_pipe_give_up(fpc_pipe *pipe, bool (*is_out)(const fpc_request *request, void *arg), void *arg,
                      void (*finish)(fpc_io *io, fpc_request *request, void *arg)) {
    for (size_t i = 0; i < pipe->owed; i++) {
        fpc_sent *sent = entry(pipe, i);
        if (sent->kind != FPC_SENT_QUERY) continue;
        FOR_EACH_REQUEST(sent) {
            if (!is_out(*place, arg)) continue;
            fpc_request *request = *place;
            *place = NULL;
            finish(pipe->io, request, arg);
        }
    }
    for (fpc_request **place = &pipe->committing; *place != NULL;) {
        fpc_request *request = *place;
        if (!is_out(request, arg)) {
            place = &request->next;
            continue;
        }
        *place = request->next;
        fpc_request_clear_answer(request);
        finish(pipe->io, request, arg);
    }
}

/* The next of those that wait for their sync, or NULL. */
static fpc_request *take_committing(fpc_pipe *pipe) {
    fpc_request *request = pipe->committing;
    if (request != NULL) pipe->committing = request->next;
    return request;
}

static void send_again(fpc_io *io, fpc_request *request) {
    atomic_fetch_add_explicit(&io->engine->counters.resent, 1, memory_order_relaxed);
    fpc_io_put_back(io, request);
}

/* Backwards, so that the first is the first in its queue again. */
void fpc_pipe_take_back_reads(fpc_pipe *pipe) {
    for (size_t i = pipe->owed; i-- > 0;) {
        fpc_sent *sent = entry(pipe, i);
        if (sent->kind != FPC_SENT_QUERY) continue;
        for (int n = sent->many != NULL ? sent->count : 1; n-- > 0;) {
            fpc_request **place = sent->many != NULL ? &sent->many[n] : &sent->one;
            if (*place == NULL || !(*place)->statement->read_only || (*place)->sent >= FPC_MAX_SENT) continue;
            fpc_request *request = *place;
            *place = NULL;
            send_again(pipe->io, request);
        }
    }
}

/* A write that went down with its connection. */
static void fail_write(fpc_io *io, fpc_request *request) {
    fpc_error why;
    fpc_fail(&why, FPC_UNKNOWN,
             "the connection was lost before the server answered: the change may or may not have happened");
    fpc_io_fail(io, request, &why);
}

/* What there is to say about a connection that was lost. */
static void explain_loss(const fpc_pipe *pipe, fpc_error *why) {
    *why = pipe->lost;
    if (why->status != FPC_OK) return;
    const char *reason = PQerrorMessage(pipe->pg);
    int length = (int)strcspn(reason, "\n");
    fpc_fail(why, FPC_CONNECT, "the connection to the server was lost%s%.*s", length > 0 ? ": " : "", length,
             reason);
}

void fpc_pipe_lose(fpc_pipe *pipe, const fpc_error *why) {
    fpc_io *io = pipe->io;
    fpc_error as_lost;
    if (why == NULL) {
        explain_loss(pipe, &as_lost);
        why = &as_lost;
    }
    fpc_request *request;
    while ((request = take_committing(pipe)) != NULL) {
        fpc_request_clear_answer(request);
        fail_write(io, request);
    }
    fpc_pipe_take_back_reads(pipe);
    for (size_t i = pipe->owed; i-- > 0;) {
        fpc_sent *sent = entry(pipe, i);
        if (sent->kind != FPC_SENT_QUERY) continue;
        FOR_EACH_REQUEST(sent) {
            request = *place;
            if (!request->statement->read_only && !pipe->not_run)
                fail_write(io, request);
            else if (!request->statement->read_only && request->sent < FPC_MAX_SENT)
                send_again(io, request);
            else
                fpc_io_fail(io, request, why);
        }
    }
    while (pipe->owed > 0) pop(pipe);
    fpc_conn *conn = pipe->conn;
    pipe->conn = NULL;
    pipe->pg = NULL;
    pipe->state = FPC_PIPE_CLOSED;
    atomic_fetch_sub(&io->engine->counters.open, 1);
    if (pipe->silent) atomic_fetch_sub(&io->engine->counters.silent, 1);
    pipe->silent = pipe->broken = false;
    fpc_id_set_clear(&pipe->prepared);
    fpc_conn_delete(conn);
}

bool fpc_pipe_flush(fpc_pipe *pipe) {
    int left = PQflush(pipe->pg);
    if (left >= 0 && pipe->unflushed) pipe->heard_ns = pipe->io->now; /* the other side takes something */
    pipe->unflushed = left > 0;
    return left >= 0;
}

/* --- Reading --- */

/* `why`: what it hears when it was tried often enough; NULL: that it was others. */
static void try_alone(fpc_pipe *pipe, fpc_request *request, const fpc_error *why) {
    request->alone = true;
    if (++request->aborts < FPC_MAX_ABORTS) {
        request->sent--; /* it was not run, or was undone */
        send_again(pipe->io, request);
        return;
    }
    fpc_error by_others;
    fpc_fail(&by_others, FPC_SERVER, "the statement was aborted %d times by errors of others",
             FPC_MAX_ABORTS);
    fpc_io_fail(pipe->io, request, why == NULL ? &by_others : why);
}

static void try_each_alone(fpc_pipe *pipe, fpc_sent *sent, const fpc_error *why) {
    FOR_EACH_REQUEST(sent) {
        fpc_request *request = *place;
        *place = NULL;
        try_alone(pipe, request, why);
    }
}

/* The error is somebody else's in the same group: these are innocent. */
static void answer_aborted(fpc_pipe *pipe, fpc_sent *sent) {
    try_each_alone(pipe, sent, NULL);
}

static void fail_query(fpc_pipe *pipe, fpc_sent *sent, const fpc_error *why) {
    if (sent->count > 1) { /* whose fault it is among many shows when each is alone */
        try_each_alone(pipe, sent, why);
        return;
    }
    FOR_EACH_REQUEST(sent) {
        fpc_request *request = *place;
        *place = NULL;
        fpc_io_fail(pipe->io, request, why);
    }
}

static void answer_error(fpc_pipe *pipe, fpc_sent *sent, const PGresult *error) {
    fpc_error why;
    if (sent->is_refused) return; /* it "does not exist" */
    fpc_server_error(error, true, &why);
    if (fpc_is_stale_statement(error)) {
        pipe->retiring = true; /* the server forgot the statement: a new session has all in order */
        try_each_alone(pipe, sent, &why);
    } else {
        fail_query(pipe, sent, &why);
    }
}

/* The statement cannot be prepared: those that were sent behind it hear why.  The next one tries again. */
static void refuse(fpc_pipe *pipe, uint64_t statement_id, const PGresult *error) {
    fpc_error why;
    fpc_server_error(error, true, &why);
    fpc_id_set_remove(&pipe->prepared, statement_id);
    for (size_t i = 0; i < pipe->owed; i++) {
        fpc_sent *sent = entry(pipe, i);
        if (sent->kind != FPC_SENT_QUERY || sent->statement_id != statement_id) continue;
        sent->is_refused = true;
        fail_query(pipe, sent, &why);
    }
}

static void succeeded(fpc_pipe *pipe, fpc_request *request) {
    if (request->statement->read_only) {
        fpc_io_finish(pipe->io, request);
        return;
    }
    request->next = pipe->committing;
    pipe->committing = request;
}

static void answer_one(fpc_pipe *pipe, fpc_sent *sent, PGresult *result) {
    fpc_request *request = sent->one;
    sent->one = NULL;
    if (request == NULL) { /* given up */
        PQclear(result);
        return;
    }
    request->result = result;
    request->answer = (fpc_answer){.result = result, .rows = PQntuples(result)};
    succeeded(pipe, request);
}

static void give_row(fpc_request *request, int row) {
    request->answer.row = row;
    request->answer.rows = 1;
}

/* Rows that begin with the number of who asked, in any order. */
static void give_rows_by_number(const fpc_sent *sent, const PGresult *result) {
    for (int row = PQntuples(result); row-- > 0;) {
        uint64_t number = PQgetlength(result, row, 0) == 8 ? fpc_load_be64(PQgetvalue(result, row, 0)) : 0;
        if (number < 1 || number > (uint64_t)sent->count || sent->many[number - 1] == NULL) continue;
        give_row(sent->many[number - 1], row);
    }
}

/* Rows that begin with the key, in any order; requests are in the order of keys. */
static void give_rows_by_key(const fpc_sent *sent, const PGresult *result) {
    fpc_request *waiting[FPC_PIPE_WINDOW];
    size_t count = 0;
    for (int i = 0; i < sent->count; i++) {
        if (sent->many[i] != NULL) waiting[count++] = sent->many[i];
    }
    for (int row = PQntuples(result); row-- > 0;) {
        size_t at;
        if (fpc_find_key(waiting, count, PQgetvalue(result, row, 0), (size_t)PQgetlength(result, row, 0),
                         &at))
            give_row(waiting[at], row);
    }
}

/* Each request has one row at most. */
static void answer_many(fpc_pipe *pipe, fpc_sent *sent, PGresult *result) {
    fpc_shared_result *shared = malloc(sizeof *shared);
    if (shared == NULL) {
        PQclear(result);
        answer_aborted(pipe, sent);
        return;
    }
    shared->pg = result;
    atomic_init(&shared->references, 1);
    bool is_write = pipe->lane == FPC_LANE_WRITE;
    FOR_EACH_REQUEST(sent) {
        (*place)->shared = shared;
        (*place)->answer = (fpc_answer){.result = result, .column = 1};
        atomic_fetch_add_explicit(&shared->references, 1, memory_order_relaxed);
    }
    if (is_write)
        give_rows_by_key(sent, result);
    else
        give_rows_by_number(sent, result);
    FOR_EACH_REQUEST(sent) {
        fpc_request *request = *place;
        *place = NULL;
        succeeded(pipe, request);
    }
    if (atomic_fetch_sub(&shared->references, 1) == 1) { /* all were given up */
        PQclear(result);
        free(shared);
    }
}

static void answer_sync(fpc_pipe *pipe) {
    fpc_request *request;
    while ((request = take_committing(pipe)) != NULL) fpc_io_finish(pipe->io, request);
    pop(pipe);
}

/* Of many it may be the fault of one.  */
static void fail_commit(fpc_pipe *pipe, const PGresult *error) {
    bool is_one = pipe->committing != NULL && pipe->committing->next == NULL;
    fpc_error why;
    fpc_server_error(error, true, &why);
    fpc_request *request;
    while ((request = take_committing(pipe)) != NULL) {
        fpc_request_clear_answer(request);
        if (is_one)
            fpc_io_fail(pipe->io, request, &why);
        else
            try_alone(pipe, request, &why);
    }
}

/* A session that ends says so once, to whoever is at the head.  False: the connection is lost. */
static bool take_error(fpc_pipe *pipe, fpc_sent *sent, const PGresult *error) {
    const char *state = PQresultErrorField(error, PG_DIAG_SQLSTATE);
    if (state == NULL) return false; /* libpq's own words: the connection went away */
    if (fpc_is_fatal(error)) {
        /* Class 08 comes from a pooler, which knows as little as we do about what its server did. */
        pipe->not_run = strncmp(state, "08", 2) != 0;
        fpc_server_error(error, true, &pipe->lost);
        return false;
    }
    switch (sent->kind) {
    case FPC_SENT_QUERY: answer_error(pipe, sent, error); break;
    case FPC_SENT_PREPARE:
        if (strcmp(state, "42P05") == 0) break; /* same name, same text */
        refuse(pipe, sent->statement_id, error);
        break;
    case FPC_SENT_SYNC: /* the commit itself failed; the sync still comes */
        pipe->commit_failed = true;
        fail_commit(pipe, error);
        break;
    }
    return true;
}

/* Takes over `result`.  False: the connection is lost or has got out of step. */
static bool take_result(fpc_pipe *pipe, PGresult *result) {
    fpc_sent *sent = entry(pipe, 0);
    bool go_on = true;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        if (sent->kind != FPC_SENT_SYNC) return false;
        answer_sync(pipe);
        return true;
    }
    if (sent->kind == FPC_SENT_QUERY && (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)) {
        if (pipe->has_result)
            PQclear(result); /* one statement has one answer */
        else if (sent->many != NULL)
            answer_many(pipe, sent, result);
        else
            answer_one(pipe, sent, result);
        pipe->has_result = true;
        return true;
    }
    if (status == PGRES_PIPELINE_ABORTED)
        answer_aborted(pipe, sent);
    else if (status == PGRES_FATAL_ERROR)
        go_on = take_error(pipe, sent, result);
    else if (sent->kind != FPC_SENT_PREPARE || status != PGRES_COMMAND_OK)
        go_on = false;
    pipe->has_result = sent->kind != FPC_SENT_SYNC;
    PQclear(result);
    return go_on;
}

bool fpc_pipe_read(fpc_pipe *pipe) {
    bool is_open = PQconsumeInput(pipe->pg);
    pipe->unread = false;
    pipe->heard_ns = pipe->io->now;
    while (pipe->owed > 0 && !PQisBusy(pipe->pg)) {
        PGresult *result = PQgetResult(pipe->pg);
        bool ends_error = pipe->commit_failed; /* libpq ends the words of a failed commit by NULL too */
        pipe->commit_failed = false;
        if (result == NULL && !pipe->has_result && !ends_error)
            return false; /* nothing more, but it owes something */
        if (result == NULL && pipe->has_result)
            pop(pipe); /* NULL ends the answer to one query */
        else if (result == NULL)
            continue;
        else if (!take_result(pipe, result))
            return false;
    }
    if (pipe->owed == 0) PQisBusy(pipe->pg); /* parses what is said to an idle session, such as its end */
    return is_open && PQstatus(pipe->pg) != CONNECTION_BAD && !fpc_conn_is_broken(pipe->conn);
}
