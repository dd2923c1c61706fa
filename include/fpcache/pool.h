/* pool.h -- connections shared by threads.
 *
 *   idle     open and in nobody's hands
 *   lent     in the hands of one caller, from fpc_pool_acquire() to fpc_pool_release()
 *   waiter   a caller whom no connection could be given yet; served in the order of arrival
 *
 * The pool opens connections when they are asked for, never more than its maximum, and closes those
 * that were idle or alive for too long, one at each acquire: it has no thread of its own.  A broken
 * connection is closed and never lent.
 * Thread rule: all functions may be called from any thread, except delete: nobody else may use the
 * pool then.  fork(2): the child's pool starts empty; connections of the parent are left alone.  The
 * child's first call must have returned before a second thread of it uses the pool. */
#ifndef FPCACHE_POOL_H
#define FPCACHE_POOL_H

#include "fpcache/conn.h"

#include <stdint.h>

typedef struct fpc_pool fpc_pool;

typedef struct fpc_pool_options {
    int min_connections;      /* kept open once opened; at least 0 */
    int max_connections;      /* at least 1, at least min_connections */
    double connect_timeout_s; /* for one connection, session SQL included */
    double idle_timeout_s;    /* an idle connection beyond the minimum is closed; 0: never */
    double max_lifetime_s;    /* spread by 10 % either way, so that not all end at once; 0: no limit */
    fpc_conn_options conn;    /* session_sql is copied */
} fpc_pool_options;

typedef struct fpc_pool_stats {
    int idle, lent, opening, waiting; /* now */
    uint64_t opened;                  /* connections, since the start */
    uint64_t open_failures;
    uint64_t closed_broken, closed_idle, closed_old;
    uint64_t waits, wait_timeouts; /* acquires that had to wait; those in vain */
} fpc_pool_stats;

/* Takes over `info`, also when it fails (NULL: out of memory).  Opens nothing yet. */
fpc_pool *fpc_pool_new(fpc_conninfo *info, const fpc_pool_options *options);
/* Closes what is idle; what is lent is closed at its release, which may still come after close. */
void fpc_pool_close(fpc_pool *pool);
/* Closes and frees.  Nothing may be lent any more, except to pins (see pin.h): they get a tenth of a second
 * to end, and free the pool when they need longer.  NULL is allowed. */
void fpc_pool_delete(fpc_pool *pool);

/* Opens connections up to the minimum; those that are open stay when one cannot be opened. */
fpc_status fpc_pool_fill(fpc_pool *pool, fpc_deadline deadline, fpc_error *err);

/* Lends a connection.  FPC_BUSY when all stayed in use until the deadline; FPC_CLOSED, also while it waits;
 * FPC_INTERRUPTED within 0.2 s of an interrupt while it waits.  When the server has no room for one more
 * connection, it waits for one of the pool's that is out; FPC_CONNECT in the server's words when none is, or
 * none came back by the deadline. */
fpc_status fpc_pool_acquire(fpc_pool *pool, fpc_deadline deadline, fpc_conn **out, fpc_error *err);
/* Takes it back; one that is broken or in a transaction is closed. */
void fpc_pool_release(fpc_pool *pool, fpc_conn *conn);

/* Acquires, runs, releases; once more on another connection when the statement was surely not executed
 * (FPC_CONNECT). */
fpc_status fpc_pool_exec(fpc_pool *pool, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_result **out, fpc_error *err);

/* What it connects to; lives as long as the pool. */
const fpc_conninfo *fpc_pool_conninfo(const fpc_pool *pool);

void fpc_pool_get_stats(fpc_pool *pool, fpc_pool_stats *out);

#endif
