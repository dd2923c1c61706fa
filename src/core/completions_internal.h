/* completions_internal.h -- a request from inside.  Inside the core only.
 *
 * It belongs to the engine from its submission on, then to its completion queue, then to who fetched it. */
#ifndef FPC_COMPLETIONS_INTERNAL_H
#define FPC_COMPLETIONS_INTERNAL_H

#include "fpcache/completions.h"
#include "fpcache/params.h"
#include "fpcache/statement.h"

#include <libpq-fe.h>
#include <stdatomic.h>

/* One result for many requests. */
typedef struct fpc_shared_result {
    PGresult *pg;
    atomic_int references;
} fpc_shared_result;

struct fpc_request {
    fpc_request *next; /* in whatever list it is */
    fpc_completions *to;
    fpc_statement *statement; /* a reference; NULL: something else (see pin.h) */
    fpc_deadline deadline;
    atomic_bool abandoned;
    unsigned number; /* the caller's */
    /* -- the engine's -- */
    bool alone;           /* shared a group with one that failed: now in a group of its own */
    unsigned char sent;   /* how often */
    unsigned char aborts; /* how often PostgreSQL aborted it for somebody else's error */
    /* -- the outcome -- */
    fpc_status status;
    fpc_error *error;          /* NULL: there was no memory for words */
    PGresult *result;          /* its own */
    fpc_shared_result *shared; /* or one of many */
    fpc_answer answer;
    /* -- the parameters; the bytes follow -- */
    int count;
    int lengths[FPC_PARAMS_MAX];
    const char *values[FPC_PARAMS_MAX];
    char payload[];
};

/* Reserves a place in the queue: false when it is full, or the parent process made it. */
bool fpc_completions_reserve(fpc_completions *queue);
/* Gives it back: nothing was submitted. */
void fpc_completions_unreserve(fpc_completions *queue);
/* A request with a copy of the parameters, in a reserved place; NULL when out of memory. */
fpc_request *fpc_request_new(fpc_completions *to, const fpc_statement *statement, const fpc_params *params,
                             fpc_deadline deadline);
/* Forgets the answer that it got: it did not come true. */
void fpc_request_clear_answer(fpc_request *request);
/* Records a failure. */
void fpc_request_fail(fpc_request *request, const fpc_error *why);
/* Hands over finished requests, a list; the requests of one queue that follow each other go in at once. */
void fpc_completions_put(fpc_request *list);
/* From now on wake-ups are bytes on `fd`, a connected stream socket, which the queue then owns; its
 * descriptor is left alone.  At once when something is there.  -1: the descriptor again. */
void fpc_completions_ring(fpc_completions *queue, int fd);

#endif
