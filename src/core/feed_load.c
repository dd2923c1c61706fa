/* feed_load.c -- count, begin, incarnation, declare, then fetches until one is short of rows.
 *
 * The next fetch is on its way while the keys of the last one are put in, so server and client work at the
 * same time. */
#include "feed_load.h"

#include <string.h>

enum { COUNT, BEGIN, INCARNATION, DECLARE, FETCH };
_Static_assert(FETCH + 1 == FPC_FEED_LOAD_STEPS, "one statement for each step");

#define STEP_SECONDS 60.0 /* for one answer of the server; polls go on meanwhile */
#define HASHES       512  /* put in under one lock: others wait some 10 us */

static fpc_status send_step(fpc_feed_load *load, int step, fpc_error *err) {
    fpc_params params;
    fpc_params_init(&params);
    load->step = step;
    load->deadline = fpc_deadline_in(STEP_SECONDS);
    return fpc_conn_send(load->conn, load->statements[step], &params,
                         fpc_deadline_in(load->options->connect_timeout_s), err);
}

fpc_status fpc_feed_load_begin(fpc_feed_load *load, fpc_deadline deadline, fpc_error *err) {
    /* Fetches of a cursor are not worth preparing. */
    fpc_conn_options options = {.prepared = false, .session_sql = load->options->sql.load_session};
    load->began_ns = fpc_clock_ns();
    load->keys = 0;
    fpc_status status = fpc_conn_open(load->info, &options, deadline, &load->conn, err);
    if (status == FPC_OK) status = send_step(load, COUNT, err);
    if (status != FPC_OK) fpc_feed_load_abandon(load);
    return status;
}

void fpc_feed_load_abandon(fpc_feed_load *load) {
    fpc_conn_delete(load->conn);
    load->conn = NULL;
    fpc_feed_filter_abandon(load->filter);
}

/* The filter is made before the snapshot is taken: see the header. */
static fpc_status make_filter(fpc_feed_load *load, const fpc_result *count, fpc_error *err) {
    uint64_t keys = (uint64_t)fpc_result_int64(count, 0, 0);
    uint64_t capacity = keys + keys / 4;
    if (capacity < load->options->filter_capacity) capacity = load->options->filter_capacity;
    if (capacity > FPC_FILTER_MAX_CAPACITY) capacity = FPC_FILTER_MAX_CAPACITY;
    fpc_filter_options options = {.capacity = capacity, .fpr = load->options->filter_fpr, .grow = true};
    return fpc_feed_filter_begin(load->filter, &options, err);
}

static fpc_status read_incarnation(fpc_feed_load *load, const fpc_result *result, fpc_error *err) {
    size_t length = 0;
    const char *text = fpc_result_rows(result) == 0 ? "" : fpc_result_bytes(result, 0, 0, &length);
    if (length == 0 || length >= sizeof load->incarnation) {
        return fpc_fail(err, FPC_CONFLICT, "the cache is being emptied");
    }
    memcpy(load->incarnation, text, length);
    load->incarnation[length] = '\0';
    return FPC_OK;
}

static fpc_status put_keys(fpc_feed_load *load, const fpc_result *result, fpc_error *err) {
    uint64_t hashes[HASHES], seed = 0;
    size_t count = 0, seed_length = 0;
    const char *seed_space = NULL;
    fpc_status status = FPC_OK;
    int rows = fpc_result_rows(result);
    for (int row = 0; row < rows && status == FPC_OK; row++) {
        size_t space_length, length;
        const char *space = fpc_result_bytes(result, row, 0, &space_length);
        const char *key = fpc_result_bytes(result, row, 1, &length);
        if (seed_space == NULL || space_length != seed_length ||
            memcmp(space, seed_space, space_length) != 0) {
            seed_space = space;
            seed_length = space_length;
            seed = fpc_feed_seed(space, space_length);
        }
        hashes[count++] = fpc_feed_hash(seed, key, length);
        if (count < HASHES && row + 1 < rows) continue;
        status = fpc_feed_filter_load(load->filter, hashes, count);
        load->keys += count;
        count = 0;
    }
    return status == FPC_OK ? FPC_OK
                            : fpc_fail(err, status, "filter of %llu keys", (unsigned long long)load->keys);
}

/* The answer to the step under way. */
static fpc_feed_progress take_answer(fpc_feed_load *load, fpc_error *err) {
    fpc_result *result = NULL;
    int step = load->step;
    fpc_status status = fpc_conn_receive(load->conn, load->deadline, &result, err);
    bool is_last = status == FPC_OK && step == FETCH && fpc_result_rows(result) == 0;
    if (status == FPC_OK && step == COUNT) status = make_filter(load, result, err);
    if (status == FPC_OK && step == INCARNATION) status = read_incarnation(load, result, err);
    if (status == FPC_OK && !is_last) status = send_step(load, step < FETCH ? step + 1 : FETCH, err);
    if (status == FPC_OK && step == FETCH) status = put_keys(load, result, err);
    fpc_result_delete(result);
    if (status != FPC_OK) return FPC_FEED_LOAD_FAILED;
    return is_last ? FPC_FEED_LOAD_DONE : FPC_FEED_LOAD_WAITING;
}

fpc_feed_progress fpc_feed_load_step(fpc_feed_load *load, fpc_deadline until, fpc_error *err) {
    fpc_feed_progress progress = FPC_FEED_LOAD_WAITING;
    while (progress == FPC_FEED_LOAD_WAITING) {
        fpc_status status = fpc_conn_wait(load->conn, until, err);
        if (status == FPC_TIMEOUT && !fpc_deadline_passed(load->deadline)) return FPC_FEED_LOAD_WAITING;
        progress = status == FPC_OK ? take_answer(load, err) : FPC_FEED_LOAD_FAILED;
        if (fpc_deadline_passed(until)) break;
    }
    if (progress == FPC_FEED_LOAD_DONE) {
        fpc_conn_delete(load->conn); /* ends its transaction */
        load->conn = NULL;
    } else if (progress == FPC_FEED_LOAD_FAILED) {
        fpc_feed_load_abandon(load);
    }
    return progress;
}
