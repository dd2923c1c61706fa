/* completions.h -- where the answers of asynchronous requests arrive.
 *
 *   completion queue  one for each caller who waits by himself: a Lua state, an event loop
 *   request           one statement on its way (see pipeline.h); in the queue once it is done
 *   wake-up           the queue's descriptor is readable while there may be something to fetch
 *
 * A caller fetches until the queue is empty, then waits for the descriptor, in poll(2) or in whatever loop.
 * A request given back by fpc_completions_next() is the caller's, who frees it.  Until then it may be
 * abandoned.
 * Thread rule: a queue and its requests belong to one thread at a time; only fpc_completions_wake() may be
 * called from any.  fork(2): the child's queue starts empty, with a descriptor of its own under the same
 * number; what the parent had asked for is answered to the parent only. */
#ifndef FPCACHE_COMPLETIONS_H
#define FPCACHE_COMPLETIONS_H

#include "fpcache/clock.h"
#include "fpcache/error.h"
#include "fpcache/result.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct fpc_completions fpc_completions;
typedef struct fpc_request fpc_request;

/* A queue whose owner may have `max_outstanding` requests on their way or unfetched.  FPC_NOMEM, also when
 * there is no descriptor left. */
fpc_status fpc_completions_new(size_t max_outstanding, fpc_completions **out, fpc_error *err);
/* Requests under way are abandoned, those not fetched are freed.  NULL is allowed. */
void fpc_completions_delete(fpc_completions *queue);

/* For poll(2): readable when something may be there.  Stays the same; nobody else may read from it. */
int fpc_completions_fd(fpc_completions *queue);
/* Makes the descriptor readable once, or rings the bell, to end a wait. */
void fpc_completions_wake(fpc_completions *queue);
/* Ends the ringing that fpc_bell_attach() began (see bell.h): wake-ups are the descriptor's again. */
void fpc_completions_silence(fpc_completions *queue);
/* The next finished request, or NULL when there is none now; the descriptor is then not readable any more. */
fpc_request *fpc_completions_next(fpc_completions *queue);
/* Waits until something may be there.  FPC_TIMEOUT, FPC_INTERRUPTED as fpc_wait_fd(). */
fpc_status fpc_completions_wait(fpc_completions *queue, fpc_deadline deadline, fpc_error *err);
/* Requests that were submitted and neither fetched nor, abandoned, dropped. */
size_t fpc_completions_outstanding(fpc_completions *queue);

/* --- A finished request --- */

/* The part of a result that answers one request: `rows` rows from `row` on, columns from `column` on.  Lives
 * as long as the request. */
typedef struct fpc_answer {
    const fpc_result *result;
    int row, rows, column;
} fpc_answer;

/* FPC_OK with the answer, or what went wrong. */
fpc_status fpc_request_answer(const fpc_request *request, fpc_answer *out, fpc_error *err);
/* A number of the caller's own, 0 at first; nobody else looks at it. */
void fpc_request_set_number(fpc_request *request, unsigned number);
unsigned fpc_request_number(const fpc_request *request);
/* Frees a request that was fetched.  NULL is allowed. */
void fpc_request_delete(fpc_request *request);
/* The caller no longer wants to hear of a request that he has not fetched, and must not use it any more.  One
 * that is still queued is not sent; a write that was sent may happen. */
void fpc_request_abandon(fpc_request *request);

#endif
