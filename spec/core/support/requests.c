/* requests.c -- short words for tests of the pipeline. */
#include "requests.h"
#include "db.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void ok(fpc_status status) {
    if (status != FPC_OK) fail_msg("%s: %s", fpc_status_name(status), db_err.message);
}

fpc_pipeline *requests_engine(fpc_conninfo *info, const fpc_pipeline_options *options) {
    fpc_pipeline *engine = NULL;
    fpc_status status = fpc_pipeline_new(info, options, &engine, &db_err);
    fpc_conninfo_delete(info);
    ok(status);
    return engine;
}

fpc_completions *requests_queue(size_t max_outstanding) {
    fpc_completions *queue = NULL;
    ok(fpc_completions_new(max_outstanding, &queue, &db_err));
    return queue;
}

fpc_statement *requests_statement(const char *sql, bool read_only) {
    static const uint32_t TYPES[] = {FPC_OID_INT8};
    fpc_statement *statement = fpc_statement_new(sql, TYPES, 1, read_only);
    assert_non_null(statement);
    return statement;
}

fpc_statement *requests_key_statement(const char *sql, bool read_only) {
    static const uint32_t TYPES[] = {FPC_OID_BYTEA, FPC_OID_INT8};
    fpc_statement *statement = fpc_statement_new(sql, TYPES, 2, read_only);
    assert_non_null(statement);
    return statement;
}

fpc_request *requests_send(fpc_pipeline *engine, fpc_completions *to, const fpc_statement *statement,
                           int64_t number, fpc_deadline deadline) {
    fpc_params params;
    fpc_request *request = NULL;
    fpc_params_init(&params);
    fpc_params_int64(&params, number);
    ok(fpc_pipeline_submit(engine, to, statement, &params, deadline, &request, &db_err));
    return request;
}

fpc_request *requests_send_key(fpc_pipeline *engine, fpc_completions *to, const fpc_statement *statement,
                               const char *key, int64_t number) {
    fpc_params params;
    fpc_request *request = NULL;
    fpc_params_init(&params);
    fpc_params_bytes(&params, key, strlen(key));
    fpc_params_int64(&params, number);
    ok(fpc_pipeline_submit(engine, to, statement, &params, SOON, &request, &db_err));
    return request;
}

fpc_request *requests_next(fpc_pipeline *engine, fpc_completions *from) {
    fpc_request *request;
    fpc_pipeline_kick(engine);
    while ((request = fpc_completions_next(from)) == NULL) ok(fpc_completions_wait(from, SOON, &db_err));
    return request;
}

fpc_status requests_status(const fpc_request *request) {
    fpc_answer answer;
    db_err.message[0] = '\0';
    return fpc_request_answer(request, &answer, &db_err);
}

int64_t requests_number(const fpc_request *request) {
    fpc_answer answer;
    ok(fpc_request_answer(request, &answer, &db_err));
    return answer.rows > 0 ? fpc_result_int64(answer.result, answer.row, answer.column) : -1;
}

int64_t requests_ask(fpc_pipeline *engine, fpc_completions *queue, const fpc_statement *statement,
                     int64_t number) {
    requests_send(engine, queue, statement, number, SOON);
    fpc_request *request = requests_next(engine, queue);
    int64_t answer = requests_number(request);
    fpc_request_delete(request);
    return answer;
}

fpc_status requests_try(fpc_pipeline *engine, fpc_completions *queue, const fpc_statement *statement,
                        int64_t number, double timeout_s) {
    requests_send(engine, queue, statement, number, fpc_deadline_in(timeout_s));
    fpc_request *request = requests_next(engine, queue);
    fpc_status status = requests_status(request);
    fpc_request_delete(request);
    return status;
}
