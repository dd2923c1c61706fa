/* pipeline_queue.h -- waiting requests of one lane of the pipeline, by caller.  Inside the core only.
 *
 * Callers (completion queues) take turns, request by request; each one's requests keep their order.  A
 * request in a queue is the queue's.  Thread rule: whose turn it is in the engine (see pipeline_internal.h).
 */
#ifndef FPC_PIPELINE_QUEUE_H
#define FPC_PIPELINE_QUEUE_H

#include "completions_internal.h"

typedef struct fpc_caller fpc_caller;

typedef struct fpc_queue {
    fpc_caller *last; /* a ring; the next to be served is last->next */
    size_t count;
} fpc_queue;

/* False when out of memory; the request is then still the caller's. */
bool fpc_queue_append(fpc_queue *queue, fpc_request *request);
bool fpc_queue_put_back(fpc_queue *queue, fpc_request *request); /* first of its caller */
fpc_request *fpc_queue_take(fpc_queue *queue);                   /* in turns; NULL: empty */
const fpc_request *fpc_queue_first(const fpc_queue *queue);      /* what take() would give */
/* Takes out those for which `is_out` holds, as a list. */
fpc_request *fpc_queue_filter(fpc_queue *queue, bool (*is_out)(const fpc_request *request, void *arg),
                              void *arg);

#endif
