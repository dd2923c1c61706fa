/* failure.h -- filling in why a fetch failed.
 *
 * Thread rule: any thread. */
#ifndef FPC_TOKEN_FAILURE_H
#define FPC_TOKEN_FAILURE_H

#include "fpcache/token_source.h"

/* Fills `failure` (NULL is allowed) and returns `status`.  Nothing is said about a retry. */
fpc_status fpc_token_fail(fpc_token_failure *failure, bool permanent, fpc_status status, const char *format,
                          ...) __attribute__((format(printf, 4, 5)));

fpc_status fpc_token_no_memory(fpc_token_failure *failure);

#endif
