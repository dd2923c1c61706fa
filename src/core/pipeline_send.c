/* pipeline_send.c -- sending groups of requests over one connection.
 *
 * Reads: all of them, then one sync.  Writes: each with its own sync, so that no two of them share a
 * transaction (they would lock rows in the order of arrival, and deadlock with others).  A read that was
 * aborted by another one's error travels alone from then on.
 *
 * Many reads of one statement that differ in one parameter are sent as one statement for many (see
 * statement.h): it costs the server half.  Each still gets its own answer. */
#include "pipeline_internal.h"

#include <stdlib.h>
#include <string.h>

/* libpq 17: ends a group without a system call of its own.  Found when the program is loaded, or not. */
extern int PQsendPipelineSync(PGconn *conn) __attribute__((weak));

static fpc_sent *push(fpc_pipe *pipe, fpc_sent_kind kind) {
    if (pipe->owed == 0) pipe->heard_ns = pipe->io->now; /* from now on it owes something */
    fpc_sent *sent = &pipe->ring[(pipe->head + pipe->owed) & (pipe->capacity - 1)];
    *sent = (fpc_sent){.kind = kind};
    pipe->owed++;
    return sent;
}

static bool send_sync(fpc_pipe *pipe) {
    int sent = PQsendPipelineSync != NULL ? PQsendPipelineSync(pipe->pg) : PQpipelineSync(pipe->pg);
    if (!sent) return false;
    push(pipe, FPC_SENT_SYNC);
    atomic_fetch_add_explicit(&pipe->io->engine->counters.groups, 1, memory_order_relaxed);
    return true;
}

/* Prepares the statement in a group of its own, where that is still to do. */
static bool prepare(fpc_pipe *pipe, const fpc_statement *statement) {
    if (!pipe->io->engine->options.conn.prepared || fpc_id_set_has(&pipe->prepared, statement->id))
        return true;
    if (!fpc_id_set_add(&pipe->prepared, statement->id)) return false;
    if (!PQsendPrepare(pipe->pg, statement->name, statement->sql, statement->param_count,
                       statement->param_oids)) {
        return false;
    }
    push(pipe, FPC_SENT_PREPARE)->statement_id = statement->id;
    if (pipe->refused_id == statement->id) pipe->refused_id = 0; /* another try */
    return send_sync(pipe);
}

static bool send_values(fpc_pipe *pipe, const fpc_statement *statement, const char *const *values,
                        const int *lengths) {
    static const int BINARY[FPC_PARAMS_MAX] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    if (pipe->io->engine->options.conn.prepared) {
        return PQsendQueryPrepared(pipe->pg, statement->name, statement->param_count, values, lengths, BINARY,
                                   1);
    }
    return PQsendQueryParams(pipe->pg, statement->sql, statement->param_count, statement->param_oids, values,
                             lengths, BINARY, 1);
}

static fpc_sent *push_query(fpc_pipe *pipe, const fpc_statement *statement) {
    fpc_sent *sent = push(pipe, FPC_SENT_QUERY);
    sent->statement_id = statement->id;
    pipe->in_flight++;
    atomic_fetch_add_explicit(&pipe->io->engine->counters.in_flight, 1, memory_order_relaxed);
    return sent;
}

static bool send_one(fpc_pipe *pipe, fpc_request *request) {
    if (!send_values(pipe, request->statement, request->values, request->lengths)) return false;
    push_query(pipe, request->statement)->one = request;
    request->sent++;
    return true;
}

/* --- Merging --- */

static bool may_merge(const fpc_request *a, const fpc_request *b) {
    if (b->alone || b->statement->id != a->statement->id) return false;
    for (int i = 0; i < a->count; i++) {
        if (i == a->statement->many_param) continue;
        if (a->lengths[i] != b->lengths[i] || (a->values[i] == NULL) != (b->values[i] == NULL)) return false;
        if (a->values[i] != NULL && memcmp(a->values[i], b->values[i], (size_t)a->lengths[i]) != 0)
            return false;
    }
    return true;
}

/* How many of the first requests may travel as one statement. */
static size_t count_mergeable(fpc_request **requests, size_t count) {
    const fpc_request *first = requests[0];
    if (first->alone || first->statement->many == NULL) return 0;
    size_t n = 1;
    while (n < count && may_merge(first, requests[n])) n++;
    return n >= FPC_MERGE_FROM ? n : 0;
}

/* False when nothing was sent. */
static bool send_many(fpc_pipe *pipe, fpc_request **requests, size_t count) {
    fpc_array *keys = &pipe->io->keys;
    const fpc_statement *single = requests[0]->statement, *many = single->many;
    fpc_request **kept = malloc(count * sizeof *kept);
    if (kept == NULL) return false;
    const char *values[FPC_PARAMS_MAX];
    int lengths[FPC_PARAMS_MAX];
    fpc_params array;
    fpc_params_init(&array);
    fpc_array_clear(keys);
    for (size_t i = 0; i < count; i++) {
        int param = single->many_param;
        fpc_array_add(keys, requests[i]->values[param], (size_t)requests[i]->lengths[param]);
    }
    bool sent = !keys->failed;
    if (sent) {
        fpc_params_array(&array, keys);
        memcpy(values, requests[0]->values, sizeof values);
        memcpy(lengths, requests[0]->lengths, sizeof lengths);
        values[single->many_param] = array.values[0];
        lengths[single->many_param] = array.lengths[0];
        sent = send_values(pipe, many, values, lengths);
    }
    if (!sent) {
        free(kept);
        return false;
    }
    memcpy(kept, requests, count * sizeof *kept);
    fpc_sent *query = push_query(pipe, many);
    query->many = kept;
    query->count = (int)count;
    for (size_t i = 0; i < count; i++) requests[i]->sent++;
    atomic_fetch_add_explicit(&pipe->io->engine->counters.merged, count, memory_order_relaxed);
    return true;
}

/* --- Groups --- */

/* Sends reads from `at` on; returns how many went, 0 when the connection is lost. */
static size_t send_reads(fpc_pipe *pipe, fpc_request **requests, size_t at, size_t count) {
    size_t many = count_mergeable(requests + at, count - at);
    if (many > 0) return send_many(pipe, requests + at, many) ? many : 0;
    return send_one(pipe, requests[at]) ? 1 : 0;
}

bool fpc_pipe_send(fpc_pipe *pipe, fpc_request **requests, size_t count) {
    size_t sent = 0;
    bool is_fine = fpc_pipe_reserve(pipe, 6 * count + 6);
    /* 1. Statements that this session has not seen, in groups of their own before the reads' group opens. */
    for (size_t i = 0; is_fine && i < count; i++) {
        fpc_statement *statement = requests[i]->statement;
        is_fine = prepare(pipe, statement) &&
                  (statement->many == NULL || count < FPC_MERGE_FROM || prepare(pipe, statement->many));
    }
    /* 2. The requests. */
    bool is_open = false; /* a group of reads */
    while (is_fine && sent < count) {
        fpc_request *request = requests[sent];
        bool is_alone = request->alone || !request->statement->read_only || pipe->lane != FPC_LANE_READ;
        if (is_alone && is_open) {
            is_fine = send_sync(pipe);
            is_open = false;
            if (!is_fine) break;
        }
        size_t went = is_alone ? (size_t)send_one(pipe, request) : send_reads(pipe, requests, sent, count);
        sent += went;
        is_fine = went > 0 && (!is_alone || send_sync(pipe));
        is_open = !is_alone;
    }
    if (is_fine && is_open) is_fine = send_sync(pipe);
    if (is_fine) is_fine = fpc_pipe_flush(pipe);
    if (is_fine && pipe->owed > 0) pipe->unread = !PQisBusy(pipe->pg);
    for (size_t i = count; i-- > sent;) fpc_io_put_back(pipe->io, requests[i]);
    return is_fine;
}
