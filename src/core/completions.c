/* completions.c -- a list under a lock, and an eventfd that is readable while the list is not empty.
 *
 * The eventfd is written when the list stops being empty and read when it is taken as a whole, both under the
 * lock: one wake-up for many answers.  What was taken waits in `taken`, which only the owner touches.
 *
 * The queue lives until its owner deleted it and every request that wants to go there is gone. */
#include "completions_internal.h"
#include "fpcache/fork.h"
#include "fpcache/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct fpc_completions {
    size_t max_outstanding;
    int fd;
    atomic_size_t outstanding; /* also references: each request is one */
    atomic_size_t references;
    /* -- the owner's -- */
    unsigned fork_generation;
    fpc_request *taken;
    pthread_mutex_t lock;
    /* -- only while `lock` is held -- */
    bool closed, readable;
    int bell; /* rung instead of making `fd` readable; -1: none */
    fpc_request *first, *last;
};

fpc_status fpc_completions_new(size_t max_outstanding, fpc_completions **out, fpc_error *err) {
    fpc_completions *queue = calloc(1, sizeof *queue);
    if (queue == NULL) return fpc_fail(err, FPC_NOMEM, "completion queue");
    queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->fd < 0) {
        free(queue);
        return fpc_fail(err, FPC_NOMEM, "could not make an eventfd: %s", strerror(errno));
    }
    queue->bell = -1;
    queue->max_outstanding = max_outstanding;
    queue->fork_generation = fpc_fork_generation();
    atomic_init(&queue->references, 1);
    pthread_mutex_init(&queue->lock, NULL);
    *out = queue;
    return FPC_OK;
}

static void drop_reference(fpc_completions *queue) {
    if (atomic_fetch_sub(&queue->references, 1) > 1) return;
    close(queue->fd);
    if (queue->bell >= 0) close(queue->bell);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

/* In a child of fork(2): what the parent asked for is forgotten, in whatever state it is; its memory too. */
static void check_fork(fpc_completions *queue) {
    unsigned generation = fpc_fork_generation();
    if (queue->fork_generation == generation) return;
    int own = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (own >= 0) {
        dup3(own, queue->fd, O_CLOEXEC);
        close(own);
    }
    if (queue->bell >= 0) close(queue->bell);
    queue->bell = -1;
    pthread_mutex_init(&queue->lock, NULL);
    queue->taken = queue->first = queue->last = NULL;
    queue->readable = false;
    atomic_store(&queue->outstanding, 0);
    atomic_store(&queue->references, 1);
    queue->fork_generation = generation;
}

bool fpc_completions_reserve(fpc_completions *queue) {
    check_fork(queue);
    if (atomic_fetch_add(&queue->outstanding, 1) >= queue->max_outstanding) {
        atomic_fetch_sub(&queue->outstanding, 1);
        return false;
    }
    atomic_fetch_add(&queue->references, 1);
    return true;
}

void fpc_completions_unreserve(fpc_completions *queue) {
    atomic_fetch_sub(&queue->outstanding, 1);
    drop_reference(queue);
}

fpc_request *fpc_request_new(fpc_completions *to, const fpc_statement *statement, const fpc_params *params,
                             fpc_deadline deadline) {
    size_t bytes = 0;
    for (int i = 0; i < params->count; i++) bytes += (size_t)params->lengths[i] + 1;
    fpc_request *request = malloc(sizeof *request + bytes);
    if (request == NULL) return NULL;
    memset(request, 0, offsetof(fpc_request, lengths));
    request->to = to;
    request->statement = fpc_statement_keep(statement);
    request->deadline = deadline;
    request->count = params->count;
    char *at = request->payload;
    for (int i = 0; i < params->count; i++) {
        size_t length = (size_t)params->lengths[i];
        request->lengths[i] = params->lengths[i];
        request->values[i] = params->values[i] == NULL ? NULL : at;
        if (length > 0 && params->values[i] != NULL) memcpy(at, params->values[i], length);
        at[length] = '\0';
        at += length + 1;
    }
    return request;
}

void fpc_request_fail(fpc_request *request, const fpc_error *why) {
    request->status = why->status;
    request->error = malloc(sizeof *why);
    if (request->error != NULL) *request->error = *why;
}

void fpc_request_clear_answer(fpc_request *request) {
    PQclear(request->result);
    if (request->shared != NULL && atomic_fetch_sub(&request->shared->references, 1) == 1) {
        PQclear(request->shared->pg);
        free(request->shared);
    }
    request->result = NULL;
    request->shared = NULL;
}

void fpc_request_delete(fpc_request *request) {
    if (request == NULL) return;
    fpc_request_clear_answer(request);
    fpc_statement_delete(request->statement);
    free(request->error);
    free(request);
}

/* It counts no longer and is gone. */
static void drop_request(fpc_request *request) {
    fpc_completions *queue = request->to;
    fpc_request_delete(request);
    fpc_completions_unreserve(queue);
}

static void drop_list(fpc_request *list) {
    while (list != NULL) {
        fpc_request *next = list->next;
        drop_request(list);
        list = next;
    }
}

static void make_readable(fpc_completions *queue) {
    uint64_t one = 1;
    if (queue->readable) return;
    queue->readable = true;
    if (queue->bell >= 0) {
        if (send(queue->bell, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL) <
            0) { /* full, or its other end sees it closed */
        }
    } else if (write(queue->fd, &one, sizeof one) < 0) { /* full: it is readable already */
    }
}

void fpc_completions_put(fpc_request *list) {
    while (list != NULL) {
        fpc_completions *queue = list->to;
        fpc_request *dropped = NULL;
        pthread_mutex_lock(&queue->lock);
        while (list != NULL && list->to == queue) {
            fpc_request *next = list->next;
            if (queue->closed || atomic_load(&list->abandoned)) {
                list->next = dropped;
                dropped = list;
            } else {
                list->next = NULL;
                if (queue->last == NULL)
                    queue->first = list;
                else
                    queue->last->next = list;
                queue->last = list;
            }
            list = next;
        }
        if (queue->first != NULL) make_readable(queue);
        pthread_mutex_unlock(&queue->lock);
        drop_list(dropped); /* the last one may take the queue along */
    }
}

fpc_request *fpc_completions_next(fpc_completions *queue) {
    check_fork(queue);
    for (;;) {
        if (queue->taken == NULL) {
            uint64_t count;
            pthread_mutex_lock(&queue->lock);
            queue->taken = queue->first;
            queue->first = queue->last = NULL;
            if (queue->readable && queue->bell < 0 &&
                read(queue->fd, &count, sizeof count) < 0) { /* it was empty */
            }
            queue->readable = false;
            pthread_mutex_unlock(&queue->lock);
            if (queue->taken == NULL) return NULL;
        }
        fpc_request *request = queue->taken;
        queue->taken = request->next;
        if (!atomic_load(&request->abandoned)) {
            fpc_completions_unreserve(queue);
            request->next = NULL;
            return request;
        }
        drop_request(request);
    }
}

int fpc_completions_fd(fpc_completions *queue) {
    check_fork(queue);
    return queue->fd;
}

void fpc_completions_wake(fpc_completions *queue) {
    pthread_mutex_lock(&queue->lock);
    make_readable(queue);
    pthread_mutex_unlock(&queue->lock);
}

void fpc_completions_ring(fpc_completions *queue, int fd) {
    uint64_t count;
    check_fork(queue);
    pthread_mutex_lock(&queue->lock);
    int before = queue->bell;
    if (before < 0 && read(queue->fd, &count, sizeof count) < 0) { /* it was empty */
    }
    queue->bell = fd;
    queue->readable = false;
    if (queue->first != NULL) make_readable(queue);
    pthread_mutex_unlock(&queue->lock);
    if (before >= 0) close(before);
}

void fpc_completions_silence(fpc_completions *queue) {
    fpc_completions_ring(queue, -1);
}

fpc_status fpc_completions_wait(fpc_completions *queue, fpc_deadline deadline, fpc_error *err) {
    check_fork(queue);
    if (queue->taken != NULL) return FPC_OK;
    return fpc_wait_fd(queue->fd, POLLIN, deadline, err);
}

size_t fpc_completions_outstanding(fpc_completions *queue) {
    check_fork(queue);
    return atomic_load(&queue->outstanding);
}

void fpc_completions_delete(fpc_completions *queue) {
    if (queue == NULL) return;
    check_fork(queue);
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    fpc_request *list = queue->first;
    queue->first = queue->last = NULL;
    pthread_mutex_unlock(&queue->lock);
    drop_list(list);
    drop_list(queue->taken);
    queue->taken = NULL;
    drop_reference(queue);
}

fpc_status fpc_request_answer(const fpc_request *request, fpc_answer *out, fpc_error *err) {
    if (request->status == FPC_OK) {
        *out = request->answer;
        return FPC_OK;
    }
    if (request->error == NULL) return fpc_fail(err, request->status, "no memory for the reason");
    if (err != NULL) *err = *request->error;
    return request->status;
}

void fpc_request_set_number(fpc_request *request, unsigned number) {
    request->number = number;
}

unsigned fpc_request_number(const fpc_request *request) {
    return request->number;
}

void fpc_request_abandon(fpc_request *request) {
    atomic_store(&request->abandoned, true);
}
