/* conn_internal.h -- a connection as the pipeline sees it.  Inside the core only. */
#ifndef FPC_CONN_INTERNAL_H
#define FPC_CONN_INTERNAL_H

#include "fpcache/conn.h"

#include <libpq-fe.h>

/* What is beneath; whoever changes its mode may use nothing of conn.h on it any more but fpc_conn_is_broken()
 * and fpc_conn_delete(). */
PGconn *fpc_conn_pg(const fpc_conn *conn);

/* Whether the server lost the prepared statement (DISCARD ALL, a pooler) or cannot use it any more (a changed
 * table), so that preparing it again helps. */
bool fpc_is_stale_statement(const PGresult *error);

/* The values of one statement: what one message can hold (FPC_INVALID beyond). */
fpc_status fpc_check_statement_size(size_t bytes, fpc_error *err);

#endif
