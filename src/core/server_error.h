/* server_error.h -- what PostgreSQL's SQLSTATEs mean to us.  Inside the core only. */
#ifndef FPC_SERVER_ERROR_H
#define FPC_SERVER_ERROR_H

#include "fpcache/error.h"

#include <libpq-fe.h>
#include <stdbool.h>

/* Fills `err` from a failed result; FPC_CONNECT exactly when the session ended with it.  For a statement of
 * ours a missing table means that the schema is missing, and the words say what to do; a caller's own SQL is
 * his business. */
fpc_status fpc_server_error(const PGresult *result, bool is_our_sql, fpc_error *err);

/* Fills `err` from a connection that could not be opened.  Its verbosity must be PQERRORS_VERBOSE. */
fpc_status fpc_connect_error(const PGconn *conn, fpc_error *err);

#endif
