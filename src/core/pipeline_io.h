/* pipeline_io.h -- what belongs to whose turn it is in an engine, and the I/O thread that gives turns. Inside
 * the core only.
 *
 *   turn     what is done for one engine while its `turn` is held: by the thread, or by a caller meanwhile
 *   rest     between two turns of the thread; it polls what the last one left
 *
 * There is one thread for all engines of the process: it starts with the first that has a request and ends
 * with the last one.  A turn waits for nothing, so engines do not hold each other up.
 * Thread rule: whose turn it is, unless told. */
#ifndef FPC_PIPELINE_IO_H
#define FPC_PIPELINE_IO_H

#include "pipeline_internal.h"

#include <poll.h>

/* Descriptors of one engine, at most: the one that wakes, and its connections. */
#define FPC_IO_FDS (1 + FPC_LANES * FPC_LANE_PIPES)

typedef struct fpc_io {
    fpc_pipeline *engine;
    fpc_lane_state lanes[FPC_LANES];
    int64_t now;                /* of this turn */
    fpc_deadline next_deadline; /* of any request; may be too early */
    bool was_asked;             /* something was submitted since the thread's last turn */
    bool stopping;
    fpc_deadline stop_by;
    uint64_t random;
    fpc_array arrays[FPC_MANY_WIDTH_MAX]; /* of the merged statement being sent */
    fpc_request *first_done, *last_done;  /* to be handed over at the end of the turn */
    /* -- of the rest: written in turns of the thread only, which also reads it without one -- */
    fpc_deadline sleeps_until; /* the next turn, when nothing wakes it; 0: at once */
    struct pollfd fds[FPC_IO_FDS];
    fpc_pipe *pipes[FPC_IO_FDS]; /* whose they are; none of the first */
    int fd_count;
    struct fpc_io *next; /* the thread's list */
} fpc_io;

fpc_io *fpc_io_new(fpc_pipeline *engine);
void fpc_io_delete(fpc_io *io); /* NULL is allowed; its connections are closed and nothing waits in it */

/* Gives it to the I/O thread, which starts if there is none.  Any thread, once for each io.  FPC_NOMEM. */
fpc_status fpc_io_start(fpc_io *io, fpc_error *err);
/* A turn of the thread, who polled io->fds with this outcome; none held.  False: the engine has ended, and
 * `io` is gone. */
bool fpc_io_turn(fpc_io *io, const struct pollfd *polled);
/* In the turn of a caller, during a rest: sends what was submitted.  True: wake the thread. */
bool fpc_io_send_for_caller(fpc_io *io);

/* The request has its outcome. */
void fpc_io_finish(fpc_io *io, fpc_request *request);
void fpc_io_fail(fpc_io *io, fpc_request *request, const fpc_error *why);
/* To the queue of its lane, as the first of its caller. */
void fpc_io_put_back(fpc_io *io, fpc_request *request);
double fpc_io_jitter(fpc_io *io, double seconds); /* half to all of it */

#endif
