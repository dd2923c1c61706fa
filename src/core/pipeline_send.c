/* pipeline_send.c -- sending groups of requests over one connection.
 *
 * Reads: all of them, then one sync.  Writes: each statement with its own sync, so that no two of them share
 * a transaction (they would lock rows in the order of arrival, and deadlock with others).  A read that was
 * aborted by another one's error travels alone from then on.
 *
 * Many requests for one statement that differ in the key are sent as one statement for many (see
 * statement.h): it costs the server half, of writes far less.  Each still gets its own answer.  Writes go in
 * the order of keys and each key once, so that two such statements cannot deadlock. */
#include "pipeline_io.h"

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

static bool is_null(const fpc_request *request, int param) {
    return request->values[param] == NULL;
}

static bool may_merge(const fpc_request *a, const fpc_request *b) {
    const fpc_statement *single = a->statement;
    if (b->alone || b->statement->id != single->id) return false;
    for (int i = 0; i < a->count; i++) {
        if (i >= single->many_param && i < single->many_param + single->many_width) continue;
        if (i >= single->many->param_count) { /* it has none such */
            if (!is_null(a, i) || !is_null(b, i)) return false;
            continue;
        }
        if (a->lengths[i] != b->lengths[i] || is_null(a, i) != is_null(b, i)) return false;
        if (!is_null(a, i) && memcmp(a->values[i], b->values[i], (size_t)a->lengths[i]) != 0) return false;
    }
    return true;
}

static int compare_key(const fpc_request *request, const char *key, size_t length) {
    int param = request->statement->many_param;
    size_t own = (size_t)request->lengths[param], common = own < length ? own : length;
    int order = common > 0 ? memcmp(request->values[param], key, common) : 0;
    return order != 0 ? order : (own > length) - (own < length);
}

bool fpc_find_key(fpc_request *const *requests, size_t count, const char *key, size_t length, size_t *at) {
    size_t low = 0;
    while (count > 0) {
        size_t half = count / 2;
        int order = compare_key(requests[low + half], key, length);
        if (order == 0) {
            *at = low + half;
            return true;
        }
        if (order < 0) {
            low += half + 1;
            count -= half + 1;
        } else {
            count = half;
        }
    }
    *at = low;
    return false;
}

static size_t bytes_of(const fpc_request *request) {
    size_t bytes = 0;
    for (int i = 0; i < request->count; i++) bytes += (size_t)request->lengths[i];
    return bytes;
}

/* How many of the first requests may travel as one statement. */
static size_t count_mergeable(fpc_request **requests, size_t count) {
    const fpc_request *first = requests[0];
    if (first->alone || first->statement->many == NULL) return 0;
    size_t n = 0;
    while (n < count && may_merge(first, requests[n])) n++;
    return n >= FPC_MERGE_FROM ? n : 0;
}

/* The same for writes, which it puts in order. */
static size_t gather_writes(fpc_request **requests, size_t count, fpc_request **ordered) {
    const fpc_request *first = requests[0];
    if (first->alone || first->statement->many == NULL) return 0;
    size_t n = 0, bytes = 0;
    for (; n < count && may_merge(first, requests[n]); n++) {
        int param = first->statement->many_param;
        size_t at;
        bytes += bytes_of(requests[n]);
        if (n > 0 && bytes > FPC_MERGE_BYTES) break;
        if (fpc_find_key(ordered, n, requests[n]->values[param], (size_t)requests[n]->lengths[param], &at))
            break;
        memmove(ordered + at + 1, ordered + at, (n - at) * sizeof *ordered);
        ordered[at] = requests[n];
    }
    return n >= 2 ? n : 0;
}

static void add_element(fpc_array *array, const fpc_request *request, int param) {
    if (is_null(request, param))
        fpc_array_add_null(array);
    else
        fpc_array_add(array, request->values[param], (size_t)request->lengths[param]);
}

/* The parameters that are arrays, in the engine's memory for them; false: out of memory. */
static bool fill_arrays(fpc_io *io, fpc_request **requests, size_t count, fpc_params *arrays) {
    const fpc_statement *single = requests[0]->statement;
    fpc_params_init(arrays);
    for (int n = 0; n < single->many_width; n++) {
        fpc_array *array = &io->arrays[n];
        fpc_array_clear(array);
        array->element_oid = single->param_oids[single->many_param + n];
        for (size_t i = 0; i < count; i++) add_element(array, requests[i], single->many_param + n);
        if (array->failed) return false;
        fpc_params_array(arrays, array);
    }
    return true;
}

/* False when nothing was sent. */
static bool send_many(fpc_pipe *pipe, fpc_request **requests, size_t count) {
    const fpc_statement *single = requests[0]->statement, *many = single->many;
    fpc_request **kept = malloc(count * sizeof *kept);
    if (kept == NULL) return false;
    const char *values[FPC_PARAMS_MAX];
    int lengths[FPC_PARAMS_MAX];
    fpc_params arrays;
    bool sent = fill_arrays(pipe->io, requests, count, &arrays);
    if (sent) {
        memcpy(values, requests[0]->values, sizeof values);
        memcpy(lengths, requests[0]->lengths, sizeof lengths);
        memcpy(values + single->many_param, arrays.values, (size_t)arrays.count * sizeof *values);
        memcpy(lengths + single->many_param, arrays.lengths, (size_t)arrays.count * sizeof *lengths);
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

/* The same for writes. */
static size_t send_writes(fpc_pipe *pipe, fpc_request **requests, size_t at, size_t count) {
    fpc_request *ordered[FPC_PIPE_WINDOW];
    size_t many = gather_writes(requests + at, count - at, ordered);
    if (many == 0) return send_one(pipe, requests[at]) ? 1 : 0;
    pipe->gathered = send_many(pipe, ordered, many);
    return pipe->gathered ? many : 0;
}

/* From how many requests on those of this statement may travel merged. */
static size_t merge_from(const fpc_statement *statement) {
    return statement->read_only ? FPC_MERGE_FROM : 2;
}

bool fpc_pipe_send(fpc_pipe *pipe, fpc_request **requests, size_t count) {
    size_t sent = 0;
    bool is_fine = fpc_pipe_reserve(pipe, 6 * count + 6);
    /* 1. Statements that this session has not seen, in groups of their own before the reads' group opens. */
    for (size_t i = 0; is_fine && i < count; i++) {
        fpc_statement *statement = requests[i]->statement;
        is_fine = prepare(pipe, statement) && (statement->many == NULL || count < merge_from(statement) ||
                                               prepare(pipe, statement->many));
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
        size_t went = pipe->lane == FPC_LANE_WRITE ? send_writes(pipe, requests, sent, count)
                      : is_alone                   ? (size_t)send_one(pipe, request)
                                                   : send_reads(pipe, requests, sent, count);
        sent += went;
        is_fine = went > 0 && (!is_alone || send_sync(pipe));
        is_open = !is_alone;
        if (pipe->gathered) break;
    }
    if (is_fine && is_open) is_fine = send_sync(pipe);
    if (is_fine) is_fine = fpc_pipe_flush(pipe);
    if (is_fine && pipe->owed > 0) pipe->unread = !PQisBusy(pipe->pg);
    for (size_t i = count; i-- > sent;) fpc_io_put_back(pipe->io, requests[i]);
    return is_fine;
}
