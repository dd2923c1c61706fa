/* requests.h -- short words for tests of the pipeline.  A failure fails the cmocka test. */
#ifndef FPC_SPEC_REQUESTS_H
#define FPC_SPEC_REQUESTS_H

#include "fpcache/pipeline.h"

#include <stdint.h>

/* What tests mostly want; `info` is consumed. */
fpc_pipeline *requests_engine(fpc_conninfo *info, const fpc_pipeline_options *options);
fpc_completions *requests_queue(size_t max_outstanding);

/* Statements with one bigint parameter, or with a key (bytea) and a bigint. */
fpc_statement *requests_statement(const char *sql, bool read_only);
fpc_statement *requests_key_statement(const char *sql, bool read_only);

/* Submits, without kicking. */
fpc_request *requests_send(fpc_pipeline *engine, fpc_completions *to, const fpc_statement *statement,
                           int64_t number, fpc_deadline deadline);
fpc_request *requests_send_key(fpc_pipeline *engine, fpc_completions *to, const fpc_statement *statement,
                               const char *key, int64_t number);
/* Kicks and waits for the next finished request, whichever it is. */
fpc_request *requests_next(fpc_pipeline *engine, fpc_completions *from);
/* The first field of its answer as a number; fails the test when it failed.  -1: no row. */
int64_t requests_number(const fpc_request *request);
/* Its status, words in db_err. */
fpc_status requests_status(const fpc_request *request);
/* Submits, kicks, waits, frees: the number, or a failed test. */
int64_t requests_ask(fpc_pipeline *engine, fpc_completions *queue, const fpc_statement *statement,
                     int64_t number);
/* The same for its status. */
fpc_status requests_try(fpc_pipeline *engine, fpc_completions *queue, const fpc_statement *statement,
                        int64_t number, double timeout_s);

#endif
