/* http_error.h -- what an answer that is no success says, and what it means for the next try.
 *
 * What reaches a message: the status, the other side's error code and its words, without anything that
 * looks like a secret.  Never the rest of a body.
 * Thread rule: any thread. */
#ifndef FPC_HTTP_ERROR_H
#define FPC_HTTP_ERROR_H

#include "http.h"

/* Both "" when the body says nothing.  One line each. */
typedef struct fpc_http_problem {
    char code[64];
    char message[256];
} fpc_http_problem;

/* Reads the bodies of Databricks' APIs (1.2, 2.0, SCIM), of OAuth, Azure, Google and AWS, "CODE: message",
 * and pages in HTML.  `body` need not end with '\0'. */
void fpc_http_problem_read(const char *body, size_t len, fpc_http_problem *out);

/* Fills `failure` from an answer whose status is no success; `who` answered, such as "the workspace".
 * Permanent: 3xx, 4xx and 501, but not 408, 425, 429, 499 and what the error code says is passing.
 * FPC_AUTH for 401, FPC_DENIED for 403, FPC_INVALID for the other permanent ones, else FPC_SERVER. */
fpc_status fpc_http_refused(const fpc_http_response *response, const char *who, fpc_token_failure *failure);

/* The same for a success whose body is not what was asked for: `what` is missing or wrong.  It may pass. */
fpc_status fpc_http_odd_answer(const fpc_http_response *response, const char *who, const char *what,
                               fpc_token_failure *failure);

#endif
