/* conn.h -- one connection to PostgreSQL: never blocks without a deadline.
 *
 *   session SQL   run right after each connect, before anything else
 *   broken        lost, or in the middle of an answer that was given up: only fpc_conn_delete() is left
 *
 * Statements go in two halves, send and receive, so that the caller can work while the
 * server does.  Parameters and results are binary, except for fpc_conn_query().
 * Failures: FPC_CONNECT means that the statement was surely not executed (or only read); FPC_UNKNOWN,
 * FPC_TIMEOUT and FPC_INTERRUPTED that it may have been.  Values of more than 1 GB in all, a statement sent
 * before the answer to the last one was received, and COPY are FPC_INVALID.
 * Thread rule: one thread at a time.  After fork(2) the child may only delete it. */
#ifndef FPCACHE_CONN_H
#define FPCACHE_CONN_H

#include "fpcache/clock.h"
#include "fpcache/conninfo.h"
#include "fpcache/error.h"
#include "fpcache/params.h"
#include "fpcache/result.h"
#include "fpcache/statement.h"

#include <stdbool.h>

typedef struct fpc_conn fpc_conn;

#define FPC_BACKEND "$backend"

typedef struct fpc_conn_options {
    bool prepared;           /* keep prepared statements; false for a transaction pooler */
    const char *session_sql; /* NULL: none.  Must outlive the connection's opening.  FPC_BACKEND stands in it
                                for the process number that the server told at login: where it is not
                                pg_backend_pid(), a pooler is in between, and what is set reaches others */
} fpc_conn_options;

/* Connects and runs the session SQL; FPC_CONNECT when that does not end in time.  Names are resolved by
 * libpq, which may block for as long as the system's resolver does; all else ends at the deadline. */
fpc_status fpc_conn_open(const fpc_conninfo *info, const fpc_conn_options *options, fpc_deadline deadline,
                         fpc_conn **out, fpc_error *err);
/* Says good-bye without waiting for an answer.  NULL is allowed. */
void fpc_conn_delete(fpc_conn *conn);

/* Prepares the statement where that is still to do, and sends it. */
fpc_status fpc_conn_send(fpc_conn *conn, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_error *err);
/* Waits until an answer is there to be received.  FPC_TIMEOUT leaves the connection as it was: wait again. */
fpc_status fpc_conn_wait(fpc_conn *conn, fpc_deadline deadline, fpc_error *err);
/* The answer to what was sent.  *out is the caller's, only when FPC_OK. */
fpc_status fpc_conn_receive(fpc_conn *conn, fpc_deadline deadline, fpc_result **out, fpc_error *err);

/* Send and receive; a prepared statement that the server forgot or that became stale is prepared anew.  In a
 * transaction that error costs the transaction; the next one finds all in order. */
fpc_status fpc_conn_exec(fpc_conn *conn, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_result **out, fpc_error *err);

/* A caller's own SQL, one statement, with text parameters (NULL for SQL NULL) and text results. */
fpc_status fpc_conn_query(fpc_conn *conn, const char *sql, int count, const char *const *values,
                          fpc_deadline deadline, fpc_result **out, fpc_error *err);

/* One or many statements without parameters; only the last answer is kept.  *out may be NULL. */
fpc_status fpc_conn_script(fpc_conn *conn, const char *sql, fpc_deadline deadline, fpc_result **out,
                           fpc_error *err);

/* Whether it was opened by the parent process, before fork(2). */
bool fpc_conn_is_inherited(const fpc_conn *conn);
bool fpc_conn_is_broken(const fpc_conn *conn);
bool fpc_conn_in_transaction(const fpc_conn *conn);
/* Reads what the server said meanwhile: false when it has closed the connection.  Does not wait. */
bool fpc_conn_is_alive(fpc_conn *conn);
/* Where the server's words arrive, for poll(2); may change with the next call. */
int fpc_conn_fd(const fpc_conn *conn);
/* Reads what the server said meanwhile: whether it sent a notification with this payload.  Does not wait. */
bool fpc_conn_heard(fpc_conn *conn, const char *payload);
int fpc_conn_server_version(const fpc_conn *conn); /* such as 150020 */
const char *fpc_conn_user(const fpc_conn *conn);
int64_t fpc_conn_opened_ns(const fpc_conn *conn); /* on the monotonic clock */

#endif
