/* keeper.h -- the inside of an fpc_token_keeper, for keeper*.c and its tests.
 *
 * Lock order: the registry's, then a keeper's. */
#ifndef FPC_TOKEN_KEEPER_H
#define FPC_TOKEN_KEEPER_H

#include "fpcache/token.h"
#include "schedule.h"

#include <pthread.h>
#include <stdatomic.h>

/* How to make the source, at first and in every child of fork(2): connections that a source keeps open are
 * the parent's. */
typedef struct fpc_token_origin {
    fpc_status (*make)(void *arg, fpc_token_source **out, fpc_error *err); /* NULL: pulled */
    void (*destroy)(void *arg);
    void *arg;
} fpc_token_origin;

typedef struct fpc_token_waiter {
    struct fpc_token_waiter *next;
    int fd; /* becomes readable */
} fpc_token_waiter;

struct fpc_token_keeper {
    char kind[32]; /* fixed */
    fpc_token_origin origin;
    atomic_int holders;

    fpc_token_keeper *next; /* the registry's, under its lock */

    pthread_mutex_t lock;
    pthread_cond_t ended; /* the thread */
    /* -- under `lock` -- */
    unsigned fork_generation;
    fpc_token_schedule schedule;
    fpc_token token;
    fpc_token_source *source;  /* used by the thread alone, while it runs */
    fpc_token_failure failure; /* the latest; of no meaning while schedule.failures is 0 */
    uint64_t refreshes, failures, refusals;
    fpc_token_waiter *waiters;
    bool has_thread, has_ended;
    bool is_abandoned; /* nobody waited for the thread's end: it frees the keeper */
    pthread_t thread;
    int stop_fd, wake_fd; /* readable: end; look at the schedule again */
};

/* Takes over the origin, also when it fails. */
fpc_status fpc_token_keeper_new(const char *kind, const fpc_token_origin *origin, fpc_token_keeper **out,
                                fpc_error *err);
/* For who holds it alone: ends the thread; and frees what is left. */
void fpc_token_keeper_end(fpc_token_keeper *keeper);
void fpc_token_keeper_free(fpc_token_keeper *keeper);

/* Takes the lock; in a child of fork(2) it first leaves behind what is the parent's. */
void fpc_token_keeper_lock(fpc_token_keeper *keeper);
void fpc_token_keeper_unlock(fpc_token_keeper *keeper);

/* The thread's side.  Lock held: starts it unless it runs; has it look at the schedule. */
fpc_status fpc_token_keeper_start(fpc_token_keeper *keeper, fpc_error *err);
/* Lock held: a fetch that began at `asked` gave this, which is taken over; or it failed. */
void fpc_token_keeper_take(fpc_token_keeper *keeper, int64_t asked, fpc_token *token);
void fpc_token_keeper_take_failure(fpc_token_keeper *keeper, const fpc_token_failure *failure);

#endif
