/* pipeline_queue.c -- waiting requests, one list for each caller, served in turns.
 *
 * The callers that wait stand in a ring; each turn takes one request of the next.  A caller with ten thousand
 * requests so delays another one by one request, not by ten thousand. */
#include "pipeline_queue.h"

#include <stdlib.h>

struct fpc_caller {
    fpc_caller *next; /* the ring */
    const fpc_completions *who;
    fpc_request *first, *last; /* never empty */
};

static fpc_caller *find(const fpc_queue *queue, const fpc_completions *who) {
    fpc_caller *at = queue->last;
    if (at == NULL) return NULL;
    do {
        if (at->who == who) return at;
        at = at->next;
    } while (at != queue->last);
    return NULL;
}

/* A new caller is served after all who wait. */
static bool add_caller(fpc_queue *queue, fpc_request *request) {
    fpc_caller *caller = malloc(sizeof *caller);
    if (caller == NULL) return false;
    *caller = (fpc_caller){.next = caller, .who = request->to, .first = request, .last = request};
    if (queue->last != NULL) {
        caller->next = queue->last->next;
        queue->last->next = caller;
    }
    queue->last = caller;
    request->next = NULL;
    return true;
}

bool fpc_queue_append(fpc_queue *queue, fpc_request *request) {
    fpc_caller *caller = find(queue, request->to);
    if (caller == NULL) {
        if (!add_caller(queue, request)) return false;
    } else {
        request->next = NULL;
        caller->last->next = request;
        caller->last = request;
    }
    queue->count++;
    return true;
}

bool fpc_queue_put_back(fpc_queue *queue, fpc_request *request) {
    fpc_caller *caller = find(queue, request->to);
    if (caller == NULL) {
        if (!add_caller(queue, request)) return false;
    } else {
        request->next = caller->first;
        caller->first = request;
    }
    queue->count++;
    return true;
}

/* Takes out the caller after `before`. */
static void remove_after(fpc_queue *queue, fpc_caller *before) {
    fpc_caller *gone = before->next;
    before->next = gone->next;
    if (queue->last == gone) queue->last = before == gone ? NULL : before;
    free(gone);
}

const fpc_request *fpc_queue_first(const fpc_queue *queue) {
    return queue->last == NULL ? NULL : queue->last->next->first;
}

fpc_request *fpc_queue_take(fpc_queue *queue) {
    if (queue->last == NULL) return NULL;
    fpc_caller *caller = queue->last->next;
    fpc_request *request = caller->first;
    caller->first = request->next;
    request->next = NULL;
    queue->count--;
    if (caller->first == NULL)
        remove_after(queue, queue->last);
    else
        queue->last = caller; /* the others come first */
    return request;
}

fpc_request *fpc_queue_filter(fpc_queue *queue, bool (*is_out)(const fpc_request *request, void *arg),
                              void *arg) {
    fpc_queue kept = {0};
    fpc_request *out = NULL, **end = &out, *request;
    size_t count = queue->count;
    (void)count;
    while ((request = fpc_queue_take(queue)) != NULL) {
        if (is_out(request, arg) || !fpc_queue_append(&kept, request)) {
            *end = request;
            end = &request->next;
        }
    }
    *end = NULL;
    *queue = kept;
    return out;
}
