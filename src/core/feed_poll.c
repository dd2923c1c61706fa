/* feed_poll.c -- the poll's parameters and columns; the statement itself is in lua/fpcache/statements.lua. */
#include "feed_poll.h"

#include <stdlib.h>
#include <string.h>

enum {
    SNAPSHOT,
    INCARNATION,
    STARTED,
    FELL_BEHIND,
    ROTATION_DUE,
    IS_READ_COMMITTED,
    IS_ON,
    IS_CHANGE,
    SPACE,
    KEYS,
    COLUMNS
};

static bool flag(const fpc_result *result, int row, int column) {
    size_t length;
    const char *bytes = fpc_result_bytes(result, row, column, &length);
    return length == 1 && bytes[0] != 0;
}

/* Copies a text that must fit; NULL becomes "". */
static bool copy_text(const fpc_result *result, int column, char *out, size_t size) {
    size_t length;
    const char *bytes = fpc_result_bytes(result, 0, column, &length);
    if (length >= size) return false;
    memcpy(out, bytes, length);
    out[length] = '\0';
    return true;
}

static fpc_status read_answer(fpc_feed_answer *answer, fpc_error *err) {
    const fpc_result *result = answer->result;
    if (fpc_result_columns(result) != COLUMNS || fpc_result_rows(result) == 0 ||
        !copy_text(result, INCARNATION, answer->incarnation, sizeof answer->incarnation) ||
        !copy_text(result, STARTED, answer->started, sizeof answer->started)) {
        return fpc_fail(err, FPC_INVALID, "the feed's answer is not understood");
    }
    if (!flag(result, 0, IS_READ_COMMITTED)) {
        return fpc_fail(
            err, FPC_INVALID,
            "default_transaction_isolation of this role or database must be read committed for the feed");
    }
    answer->fell_behind = flag(result, 0, FELL_BEHIND);
    answer->rotation_due = flag(result, 0, ROTATION_DUE);
    answer->is_on = flag(result, 0, IS_ON);
    size_t length;
    const char *snapshot = fpc_result_bytes(result, 0, SNAPSHOT, &length);
    answer->snapshot = strndup(snapshot, length);
    return answer->snapshot != NULL ? FPC_OK : fpc_fail(err, FPC_NOMEM, "snapshot");
}

fpc_status fpc_feed_ask(fpc_conn *conn, const fpc_statement *poll, const char *position,
                        fpc_deadline deadline, fpc_feed_answer *answer, fpc_error *err) {
    memset(answer, 0, sizeof *answer);
    fpc_params params;
    fpc_params_init(&params);
    if (position == NULL)
        fpc_params_null(&params);
    else
        fpc_params_bytes(&params, position, strlen(position));
    fpc_status status = fpc_conn_exec(conn, poll, &params, deadline, &answer->result, err);
    if (status == FPC_OK) status = read_answer(answer, err);
    if (status != FPC_OK) fpc_feed_answer_clear(answer);
    return status;
}

void fpc_feed_answer_clear(fpc_feed_answer *answer) {
    fpc_result_delete(answer->result);
    free(answer->snapshot);
    answer->result = NULL;
    answer->snapshot = NULL;
}

int fpc_feed_answer_rows(const fpc_feed_answer *answer) {
    return fpc_result_rows(answer->result);
}

bool fpc_feed_answer_change(const fpc_feed_answer *answer, int row, fpc_feed_change *out) {
    const fpc_result *result = answer->result;
    if (!flag(result, row, IS_CHANGE)) return false;
    memset(out, 0, sizeof *out);
    if (!fpc_result_is_null(result, row, SPACE))
        out->space = fpc_result_bytes(result, row, SPACE, &out->space_length);
    if (!fpc_result_is_null(result, row, KEYS))
        out->keys = fpc_result_bytes(result, row, KEYS, &out->keys_length);
    return true;
}

void fpc_feed_bounds(const char *position, char *out, size_t size) {
    const char *colon = strchr(position, ':'), *end = colon == NULL ? NULL : strchr(colon + 1, ':');
    size_t length = end == NULL ? 0 : (size_t)(end - position);
    if (length >= size) length = size - 1;
    memcpy(out, position, length);
    out[length] = '\0';
}

/* The middle number of "xmin:xmax:running,..." */
static uint64_t snapshot_xmax(const char *snapshot) {
    const char *colon = strchr(snapshot, ':');
    return colon == NULL ? 0 : strtoull(colon + 1, NULL, 10);
}

bool fpc_feed_goes_back(const char *position, const char *later) {
    return snapshot_xmax(later) < snapshot_xmax(position);
}
