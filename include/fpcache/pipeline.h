/* pipeline.h -- many statements on their way at once, over few connections and without waiting.
 *
 *   engine   one fpc_pipeline: connections to one server, for one login; one I/O thread drives all engines of
 *            the process
 *   lane     reads, writes, and slow statements (see statement.h) each have connections of their own, so that
 *            none waits behind the other kind
 *   group    what travels up to one sync of the protocol: many reads, or one statement that writes
 *   silent   a connection that owes an answer and said nothing for `silence_s`
 *
 * What is promised for each request:
 *   - It is answered once, within its deadline (FPC_TIMEOUT; a write may still happen when it was sent).
 *   - An error is its own.  Reads that PostgreSQL aborts because another one in their group failed are sent
 *     again, and so is each write that travelled in one statement with others that failed.
 *   - A write is reported when it is committed, not before.  Writes of one engine are executed in the order
 *     of submission, except around a silent or lost connection.
 *   - On a lost connection a read is sent once more over another one; a write is only when the server said
 *     that it ended the session before running it, else it is FPC_UNKNOWN.  No write of ours is repeated
 *     blindly.
 *   - A silent connection gets nothing new.  Its reads are sent once more over another one; it comes back
 *     when it answers, and is closed when nobody waits for it any more.
 *   - Callers (completion queues) take turns, request by request.
 *   - While no connection can be opened, requests fail with the reason (FPC_CONNECT, FPC_AUTH) at once.
 *   - Engines do not wait for each other: not for a silent server, not for one that is being closed.
 *
 * The first request of any engine starts the thread, the end of the last engine ends it.  Connections are
 * opened when requests need them; idle ones are closed as the pool's are.
 * Thread rule: any thread, except delete: nobody else may use the engine then.
 * fork(2): the child's engine starts empty with its next request. */
#ifndef FPCACHE_PIPELINE_H
#define FPCACHE_PIPELINE_H

#include "fpcache/completions.h"
#include "fpcache/conn.h"

#include <stdint.h>

typedef struct fpc_pipeline fpc_pipeline;

typedef enum fpc_lane { FPC_LANE_READ, FPC_LANE_WRITE, FPC_LANE_SLOW, FPC_LANES } fpc_lane;

#define FPC_PIPELINE_MAX_READERS 16

typedef struct fpc_pipeline_options {
    int readers;      /* connections for reads, 1 to FPC_PIPELINE_MAX_READERS; the other lanes have one */
    double silence_s; /* more than 0 */
    double connect_timeout_s; /* for one connection, session SQL included */
    double idle_timeout_s;    /* an idle connection is closed; 0: never */
    double max_lifetime_s;    /* 0: no limit */
    fpc_conn_options conn;    /* session_sql is copied */
} fpc_pipeline_options;

typedef struct fpc_pipeline_stats {
    int open, opening, silent; /* connections, now */
    size_t waiting, in_flight; /* requests, now */
    uint64_t submitted, finished;
    uint64_t groups;           /* syncs sent */
    uint64_t by_callers;       /* kicks that sent from the caller's own thread */
    uint64_t merged;           /* requests that travelled in a statement for many */
    uint64_t resent;           /* after an abort, a loss or a silence */
    uint64_t expired, dropped; /* past the deadline; abandoned before they were sent */
    uint64_t opened, open_failures, lost;
    uint64_t went_silent;
} fpc_pipeline_stats;

/* Copies `info`.  Starts and opens nothing yet.  FPC_INVALID for an option out of range, FPC_NOMEM. */
fpc_status fpc_pipeline_new(const fpc_conninfo *info, const fpc_pipeline_options *options, fpc_pipeline **out,
                            fpc_error *err);
/* Ends the engine: what is queued fails (FPC_CLOSED), what was sent gets `grace_s` to be answered.  Returns
 * within grace_s and half a second.  Repeatable; later requests are FPC_CLOSED. */
void fpc_pipeline_close(fpc_pipeline *engine, double grace_s);
/* Closes with a short grace and frees.  NULL is allowed. */
void fpc_pipeline_delete(fpc_pipeline *engine);

/* Queues a request; its answer will arrive at `to`.  Everything is copied but the statement, which is kept
 * alive.  The I/O thread need not notice before fpc_pipeline_kick(): a caller queues what he has, then kicks
 * once.  FPC_BUSY at once when the queue `to` is full, FPC_CLOSED, FPC_NOMEM, FPC_INVALID for more than
 * 1 GB. */
fpc_status fpc_pipeline_submit(fpc_pipeline *engine, fpc_completions *to, const fpc_statement *statement,
                               const fpc_params *params, fpc_deadline deadline, fpc_request **out,
                               fpc_error *err);
/* Has what was submitted sent: here and now, without waiting, while the I/O thread sleeps; else by that
 * thread. */
void fpc_pipeline_kick(fpc_pipeline *engine);

void fpc_pipeline_get_stats(fpc_pipeline *engine, fpc_pipeline_stats *out);

#endif
