/* pipeline_internal.h -- the engine from inside.  Inside the core only.
 *
 *   engine   what callers share with the I/O thread; under a lock           pipeline.c
 *   io       what belongs to whose turn it is                               pipeline_io.h, pipeline_io.c
 *   thread   the process's one; it gives each engine its turns              pipeline_thread.c
 *   queue    waiting requests of one lane, by caller                        pipeline_queue.c
 *   lane     a queue and the connections that serve it                      pipeline_lane.c
 *   pipe     one connection, and what it owes answers for                   pipeline_pipe.c, pipeline_send.c
 *   opener   a short-lived thread that opens one connection                 pipeline_open.c */
#ifndef FPC_PIPELINE_INTERNAL_H
#define FPC_PIPELINE_INTERNAL_H

#include "completions_internal.h"
#include "conn_internal.h"
#include "fpcache/pipeline.h"
#include "id_set.h"
#include "pipeline_queue.h"

#include <pthread.h>
#include <stdatomic.h>

/* A statement is sent at most so often before its request fails. */
#define FPC_MAX_SENT   2 /* after losses and silences */
#define FPC_MAX_ABORTS 3

/* Requests that one connection owes answers for, at most: the rest waits where it is still fair. */
#define FPC_PIPE_WINDOW 256
/* Slow statements are not sent ahead: another connection may be free first. */
#define FPC_SLOW_WINDOW 4
/* From so many waiting reads on they travel merged (see docs/pipeline.md for the measurement). */
#define FPC_MERGE_FROM 16
/* More than so many at once are the thread's to send: the caller has other things to do meanwhile. */
#define FPC_CALLER_SENDS 4
/* Writes that wait travel merged in any case, up to so many bytes of parameters. */
#define FPC_MERGE_BYTES ((size_t)1 << 20)

/* --- engine --- */

typedef struct fpc_opened { /* what an opener brings */
    struct fpc_opened *next;
    struct fpc_pipe *pipe;
    fpc_conn *conn; /* NULL: it failed */
    fpc_error error;
} fpc_opened;

typedef struct fpc_pipeline_counters {
    atomic_int open, opening, silent;
    atomic_size_t waiting, in_flight;
    atomic_uint_fast64_t submitted, finished, groups, merged, resent, expired, dropped, by_callers;
    atomic_uint_fast64_t opened_total, open_failures, lost, went_silent;
} fpc_pipeline_counters;

struct fpc_pipeline {
    /* -- fixed at creation -- */
    fpc_conninfo *info;
    fpc_pipeline_options options;
    char *session_sql;

    fpc_pipeline_counters counters;
    atomic_bool asleep;     /* the thread polls for it, or is about to: who sets it to false writes wake_fd */
    pthread_mutex_t turn;   /* whoever holds it acts for the engine; the thread lets go of it between turns */
    struct fpc_io *resting; /* only while `turn` is held: while the thread has none here, to send with */
    pthread_mutex_t lock;   /* taken inside a turn or without one; never held while waiting for the server */
    pthread_cond_t ended;
    /* -- only while `lock` is held -- */
    unsigned fork_generation;
    int references;       /* owner, the thread's io, openers */
    int wake_fd, stop_fd; /* stop_fd: readable once openers shall give up */
    bool closed, running; /* running: the thread has its io */
    double grace_s;
    struct fpc_io *io;         /* the thread's; for the child of a fork */
    fpc_request *first, *last; /* submitted, not yet seen by the thread */
    fpc_opened *opened;
};

void fpc_pipeline_drop(fpc_pipeline *engine); /* a reference; lock not held */
void fpc_pipeline_wake(fpc_pipeline *engine);

/* --- pipe --- */

typedef enum fpc_pipe_state { FPC_PIPE_CLOSED, FPC_PIPE_OPENING, FPC_PIPE_OPEN } fpc_pipe_state;

typedef enum fpc_sent_kind { FPC_SENT_PREPARE, FPC_SENT_QUERY, FPC_SENT_SYNC } fpc_sent_kind;

/* One thing the server owes an answer for, in order. */
typedef struct fpc_sent {
    fpc_sent_kind kind;
    uint64_t statement_id; /* PREPARE, QUERY */
    fpc_request *one;      /* QUERY; NULL: given up, or many */
    fpc_request **many;    /* QUERY for many; an element NULL: given up */
    int count;             /* of `many` */
    bool is_refused;       /* QUERY of a statement that could not be prepared: those who asked know */
} fpc_sent;

typedef struct fpc_pipe {
    struct fpc_io *io;
    fpc_lane lane;
    fpc_pipe_state state;
    fpc_conn *conn;
    PGconn *pg; /* of conn */
    fpc_sent *ring;
    size_t head, owed, capacity; /* of the ring; the capacity is a power of two */
    int in_flight;               /* QUERYs in it */
    bool has_result;             /* of the entry at the head */
    bool commit_failed;          /* at the sync that is the head */
    bool unflushed;              /* libpq could not write all */
    bool silent, retiring;
    bool gathered; /* writes are on their way that are sent again if they fail: no others may overtake them */
    bool broken;   /* sending failed; the thread is to end it */
    bool unread;   /* libpq read an answer while it was sending: no descriptor tells of it */
    bool not_run;  /* the server said that it ended the session before running what is in the ring */
    fpc_error lost;          /* ... and why; status FPC_OK: it said nothing */
    fpc_request *committing; /* a list: the writes of one statement, which succeeded and wait for its sync */
    int64_t heard_ns;        /* when it last said something, or was asked while it owed nothing */
    int64_t opened_ns;
    fpc_id_set prepared;
} fpc_pipe;

void fpc_pipe_begin(fpc_pipe *pipe, fpc_conn *conn); /* takes over an open connection */
/* Reads what is there.  False: the connection is lost; call fpc_pipe_lose(). */
bool fpc_pipe_read(fpc_pipe *pipe);
bool fpc_pipe_flush(fpc_pipe *pipe);
/* Ends the connection: what it owed is sent again elsewhere or fails, reads with `why` (NULL: as it was
 * lost). */
void fpc_pipe_lose(fpc_pipe *pipe, const fpc_error *why);
/* Takes the reads back that it owes, to be sent elsewhere. */
void fpc_pipe_take_back_reads(fpc_pipe *pipe);
/* Gives up all requests for which `is_out` holds; their answers will be dropped. */
void fpc_pipe_give_up(fpc_pipe *pipe, bool (*is_out)(const fpc_request *request, void *arg), void *arg,
                      void (*finish)(struct fpc_io *io, fpc_request *request, void *arg));
/* Whether anybody still waits for what it owes. */
bool fpc_pipe_is_wanted(const fpc_pipe *pipe);
bool fpc_pipe_is_usable(const fpc_pipe *pipe);
bool fpc_pipe_is_idle(const fpc_pipe *pipe);

/* Sends requests, an array that is the lane's for the call: one group, or for writes one each.  False: the
 * connection is lost; requests not sent were put back. */
bool fpc_pipe_send(fpc_pipe *pipe, fpc_request **requests, size_t count);
/* Where a key is among requests for one statement in the order of keys, or would be. */
bool fpc_find_key(fpc_request *const *requests, size_t count, const char *key, size_t length, size_t *at);
/* Room for `more` entries. */
bool fpc_pipe_reserve(fpc_pipe *pipe, size_t more);

/* --- lane --- */

#define FPC_LANE_PIPES (FPC_PIPELINE_MAX_READERS + 2) /* two more for those that replace silent ones */

typedef struct fpc_lane_state {
    struct fpc_io *io;
    fpc_lane lane;
    fpc_queue queue;
    int wanted; /* connections at full load */
    fpc_pipe pipes[FPC_LANE_PIPES];
    unsigned failures; /* to open, in a row */
    int64_t retry_ns;  /* not before */
    fpc_error last_error;
} fpc_lane_state;

void fpc_lane_init(fpc_lane_state *lane, struct fpc_io *io, fpc_lane which);
/* Opens what is needed and sends what can be sent; ends what broke. */
void fpc_lane_serve(fpc_lane_state *lane);
/* Sends what can be sent over the connections there are, and leaves the rest to the thread.  True: there is
 * something that only the thread can do. */
bool fpc_lane_send(fpc_lane_state *lane);
/* Watches over silence, idleness and age; returns when it wants to look again. */
fpc_deadline fpc_lane_watch(fpc_lane_state *lane);
void fpc_lane_opened(fpc_lane_state *lane, fpc_opened *opened);
void fpc_lane_fail_waiting(fpc_lane_state *lane, const fpc_error *why);

/* --- opener --- */

/* Starts one for the pipe; false: no thread to be had. */
bool fpc_pipeline_open(fpc_pipe *pipe);

#endif
