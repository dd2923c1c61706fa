/* pin.c -- a list of orders under a lock, and the thread that carries them out over a lent connection.
 *
 * Blocking calls in a thread of its own, not the pipeline: a transaction holds its connection anyway, and by
 * this way it keeps all rules of conn.h (deadlines, cancelling, plans that became stale).
 *
 * The thread is detached.  The last of the two, the owner and the thread, frees the pin; a reference to the
 * pool keeps that until then. */
#include "fpcache/pin.h"
#include "completions_internal.h"
#include "fpcache/fork.h"
#include "fpcache/wait.h"
#include "pool_internal.h"
#include "thread.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

typedef enum order_kind { ORDER_CONNECT, ORDER_EXEC, ORDER_QUERY, ORDER_SCRIPT } order_kind;

typedef struct order {
    struct order *next;
    order_kind kind;
    fpc_request *request;
    int count; /* of values */
    const char **values;
    char *sql; /* the bytes of the values follow */
} order;

struct fpc_pin {
    /* -- fixed at creation -- */
    fpc_pool *pool; /* a reference */
    double idle_s;
    unsigned fork_generation;
    int stop_fd; /* readable: the thread's waits end */

    pthread_mutex_t lock; /* never held while waiting for the server */
    pthread_cond_t told;
    /* -- only while `lock` is held -- */
    int references; /* the owner, the thread */
    bool closed;    /* by the owner */
    bool running;   /* the thread carries out an order */
    bool has_place; /* counts as one of the pool's pins */
    bool in_transaction, is_broken;
    fpc_error over; /* status FPC_OK: it is not */
    order *first, *last;
};

static void free_order(order *o) {
    free(o->values);
    free(o->sql);
    free(o);
}

static void drop(fpc_pin *pin) {
    pthread_mutex_lock(&pin->lock);
    bool is_last = --pin->references == 0;
    pthread_mutex_unlock(&pin->lock);
    if (!is_last) return;
    fpc_pool_drop(pin->pool);
    close(pin->stop_fd);
    pthread_cond_destroy(&pin->told);
    pthread_mutex_destroy(&pin->lock);
    free(pin);
}

/* Lock held. */
static void leave_place(fpc_pin *pin) {
    if (pin->has_place) fpc_pool_unpin(pin->pool);
    pin->has_place = false;
}

/* --- the thread --- */

static struct timespec idle_end(double seconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (until.tv_nsec >= FPC_NS_PER_SECOND) {
        until.tv_nsec -= FPC_NS_PER_SECOND;
        until.tv_sec++;
    }
    return until;
}

/* The next order, or NULL when there will be none.  Lock held on entry and on return. */
static order *await_order(fpc_pin *pin) {
    struct timespec until = idle_end(pin->idle_s);
    bool is_late = false;
    while (pin->first == NULL && !pin->closed && !is_late) {
        if (pin->idle_s > 0)
            is_late = pthread_cond_timedwait(&pin->told, &pin->lock, &until) != 0;
        else
            pthread_cond_wait(&pin->told, &pin->lock);
    }
    if (pin->closed) {
        fpc_fail(&pin->over, FPC_CLOSED, "the transaction has ended");
        return NULL;
    }
    order *o = pin->first;
    if (o == NULL) {
        fpc_fail(&pin->over, FPC_CLOSED, "the transaction was rolled back: it asked nothing for %g s",
                 pin->idle_s);
        return NULL;
    }
    pin->first = o->next;
    if (pin->first == NULL) pin->last = NULL;
    return o;
}

static fpc_status carry_out(fpc_conn *conn, const order *o, fpc_result **result, fpc_error *err) {
    const fpc_request *request = o->request;
    if (o->kind == ORDER_QUERY)
        return fpc_conn_query(conn, o->sql, o->count, o->values, request->deadline, result, err);
    if (o->kind == ORDER_SCRIPT) return fpc_conn_script(conn, o->sql, request->deadline, result, err);
    if (o->kind == ORDER_CONNECT) return FPC_OK;
    fpc_params params;
    fpc_params_init(&params);
    params.count = request->count;
    memcpy(params.values, request->values, sizeof params.values);
    memcpy(params.lengths, request->lengths, sizeof params.lengths);
    return fpc_conn_exec(conn, request->statement, &params, request->deadline, result, err);
}

static void answer(fpc_request *request, fpc_status status, fpc_result *result, const fpc_error *err) {
    if (status == FPC_OK) {
        request->status = FPC_OK;
        request->result = result;
        request->answer =
            (fpc_answer){.result = result, .rows = result == NULL ? 0 : fpc_result_rows(result)};
    } else {
        fpc_request_fail(request, err);
    }
    request->next = NULL;
    fpc_completions_put(request);
}

/* Carries out one order.  Lock held on entry and on return, but not meanwhile. */
static void serve(fpc_pin *pin, fpc_conn **conn, order *o) {
    fpc_error err;
    fpc_result *result = NULL;
    fpc_status status = FPC_OK;
    pin->running = true;
    pthread_mutex_unlock(&pin->lock);
    bool is_wanted = !atomic_load(&o->request->abandoned);
    bool has_conn = *conn != NULL;
    if (is_wanted && !has_conn) status = fpc_pool_acquire(pin->pool, o->request->deadline, conn, &err);
    if (is_wanted && status == FPC_OK) status = carry_out(*conn, o, &result, &err);
    if (!is_wanted) status = fpc_fail(&err, FPC_INTERRUPTED, "given up before it was sent");
    pthread_mutex_lock(&pin->lock);
    pin->running = false;
    pin->in_transaction = *conn != NULL && fpc_conn_in_transaction(*conn);
    pin->is_broken = *conn == NULL || fpc_conn_is_broken(*conn);
    if (*conn == NULL && is_wanted) pin->over = err;
    pthread_mutex_unlock(&pin->lock);
    answer(o->request, status, result, &err);
    free_order(o);
    pthread_mutex_lock(&pin->lock);
}

static void *run(void *arg) {
    fpc_pin *pin = arg;
    fpc_conn *conn = NULL;
    order *o;
    fpc_wait_stop_by(pin->stop_fd);
    pthread_mutex_lock(&pin->lock);
    while (pin->over.status == FPC_OK && (o = await_order(pin)) != NULL) serve(pin, &conn, o);
    pin->is_broken = true;
    pin->in_transaction = false;
    order *left = pin->first;
    pin->first = pin->last = NULL;
    fpc_error why = pin->over;
    pthread_mutex_unlock(&pin->lock);
    if (conn != NULL) fpc_pool_release(pin->pool, conn);
    while (left != NULL) {
        o = left;
        left = o->next;
        answer(o->request, why.status, NULL, &why);
        free_order(o);
    }
    pthread_mutex_lock(&pin->lock);
    leave_place(pin);
    pthread_mutex_unlock(&pin->lock);
    drop(pin);
    return NULL;
}

/* --- the owner --- */

fpc_status fpc_pin_new(fpc_pool *pool, double idle_s, fpc_pin **out, fpc_error *err) {
    pthread_t thread;
    pthread_condattr_t monotonic;
    fpc_status status = fpc_pool_pin(pool, err);
    if (status != FPC_OK) return status;
    fpc_pin *pin = calloc(1, sizeof *pin);
    int stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pin == NULL || stop_fd < 0) {
        free(pin);
        if (stop_fd >= 0) close(stop_fd);
        fpc_pool_unpin(pool);
        return fpc_fail(err, FPC_NOMEM,
                        "could not begin a transaction: no memory or no descriptors (ulimit -n)");
    }
    fpc_pool_keep(pool);
    pin->pool = pool;
    pin->idle_s = idle_s;
    pin->fork_generation = fpc_fork_generation();
    pin->stop_fd = stop_fd;
    pin->references = 2;
    pin->has_place = true;
    pthread_mutex_init(&pin->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&pin->told, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int failure = fpc_thread_start(&thread, "fpcache-pin", run, pin);
    if (failure != 0) {
        fpc_pool_unpin(pool);
        pin->references = 1;
        drop(pin);
        return fpc_fail(err, FPC_NOMEM, "could not begin a transaction: no thread to be had (%s)",
                        strerror(failure));
    }
    pthread_detach(thread);
    *out = pin;
    return FPC_OK;
}

/* Whether the parent process made it: its thread, and whoever held its lock, are not here. */
static bool is_inherited(const fpc_pin *pin) {
    return pin->fork_generation != fpc_fork_generation();
}

void fpc_pin_delete(fpc_pin *pin) {
    uint64_t one = 1;
    if (pin == NULL || is_inherited(pin)) return;
    pthread_mutex_lock(&pin->lock);
    pin->closed = true;
    if (!pin->running) leave_place(pin);             /* the connection follows in no time */
    if (write(pin->stop_fd, &one, sizeof one) < 0) { /* it is readable already */
    }
    pthread_cond_signal(&pin->told);
    pthread_mutex_unlock(&pin->lock);
    drop(pin);
}

static order *copy_sql(const char *sql, int count, const char *const *values) {
    size_t bytes = strlen(sql) + 1;
    for (int i = 0; i < count; i++) bytes += values[i] == NULL ? 0 : strlen(values[i]) + 1;
    order *o = calloc(1, sizeof *o);
    if (o == NULL) return NULL;
    o->sql = malloc(bytes);
    o->values = calloc((size_t)count + 1, sizeof *o->values);
    if (o->sql == NULL || o->values == NULL) {
        free_order(o);
        return NULL;
    }
    char *at = stpcpy(o->sql, sql) + 1;
    for (int i = 0; i < count; i++) {
        o->values[i] = values[i] == NULL ? NULL : at;
        if (values[i] != NULL) at = stpcpy(at, values[i]) + 1;
    }
    o->count = count;
    return o;
}

/* Takes over `o`, also when it fails (NULL: out of memory). */
static fpc_status place(fpc_pin *pin, order *o, order_kind kind, fpc_completions *to,
                        const fpc_statement *statement, const fpc_params *params, fpc_deadline deadline,
                        fpc_request **out, fpc_error *err) {
    fpc_params none;
    fpc_params_init(&none);
    if (o == NULL) return fpc_fail(err, FPC_NOMEM, "statement of a transaction");
    o->kind = kind;
    if (is_inherited(pin)) {
        free_order(o);
        return fpc_fail(err, FPC_CLOSED, "the process is a fork, and the transaction is its parent's");
    }
    if (!fpc_completions_reserve(to)) {
        free_order(o);
        return fpc_fail(err, FPC_BUSY, "too many requests are on their way");
    }
    o->request = fpc_request_new(to, statement, params == NULL ? &none : params, deadline);
    if (o->request == NULL) {
        free_order(o);
        fpc_completions_unreserve(to);
        return fpc_fail(err, FPC_NOMEM, "statement of a transaction");
    }
    pthread_mutex_lock(&pin->lock);
    fpc_error over = pin->over;
    if (over.status == FPC_OK) {
        *out = o->request;
        if (pin->last == NULL)
            pin->first = o;
        else
            pin->last->next = o;
        pin->last = o;
        pthread_cond_signal(&pin->told);
    }
    pthread_mutex_unlock(&pin->lock);
    if (over.status == FPC_OK) return FPC_OK;
    fpc_request_delete(o->request);
    fpc_completions_unreserve(to);
    free_order(o);
    if (err != NULL) *err = over;
    return over.status;
}

fpc_status fpc_pin_connect(fpc_pin *pin, fpc_completions *to, fpc_deadline deadline, fpc_request **out,
                           fpc_error *err) {
    return place(pin, calloc(1, sizeof(order)), ORDER_CONNECT, to, NULL, NULL, deadline, out, err);
}

fpc_status fpc_pin_exec(fpc_pin *pin, fpc_completions *to, const fpc_statement *statement,
                        const fpc_params *params, fpc_deadline deadline, fpc_request **out, fpc_error *err) {
    return place(pin, calloc(1, sizeof(order)), ORDER_EXEC, to, statement, params, deadline, out, err);
}

fpc_status fpc_pin_query(fpc_pin *pin, fpc_completions *to, const char *sql, int count,
                         const char *const *values, fpc_deadline deadline, fpc_request **out,
                         fpc_error *err) {
    return place(pin, copy_sql(sql, count, values), ORDER_QUERY, to, NULL, NULL, deadline, out, err);
}

fpc_status fpc_pin_script(fpc_pin *pin, fpc_completions *to, const char *sql, fpc_deadline deadline,
                          fpc_request **out, fpc_error *err) {
    return place(pin, copy_sql(sql, 0, NULL), ORDER_SCRIPT, to, NULL, NULL, deadline, out, err);
}

bool fpc_pin_in_transaction(fpc_pin *pin) {
    if (is_inherited(pin)) return false;
    pthread_mutex_lock(&pin->lock);
    bool is_in = pin->in_transaction;
    pthread_mutex_unlock(&pin->lock);
    return is_in;
}

bool fpc_pin_is_broken(fpc_pin *pin) {
    if (is_inherited(pin)) return true;
    pthread_mutex_lock(&pin->lock);
    bool is_broken = pin->is_broken;
    pthread_mutex_unlock(&pin->lock);
    return is_broken;
}
