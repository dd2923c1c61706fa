/* pool.c -- a stack of idle connections and a queue of waiters.
 *
 * Invariant: idle + lent + opening <= max_connections, and nobody waits while one is idle or a
 * place is free.  A place (the right to have one more connection) is therefore handed over and not
 * given back when somebody waits: the newcomer cannot overtake the queue.
 *
 * The exception: a place is of no use when the server has no room for one more connection.  Who finds that
 * out waits in the queue for one of ours, where he came, and his place is handed to nobody: it would be
 * tried by one waiter after the other, over and over.  Only when none of ours is left does he fail.
 *
 * The newest idle connection is lent first, so that the oldest ones at the bottom grow idle and can
 * be closed.  Connecting, closing and the check for life are done outside the lock. */
#include "fpcache/pool.h"
#include "fpcache/fork.h"
#include "fpcache/wait.h"
#include "pool_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PINS_PATIENCE_MS 100 /* for pins whose pool is deleted to end by themselves */

/* A waiter looks up this often: an interrupt comes from a signal handler, which cannot signal a condition. */
#define SLICE_NS (FPC_NS_PER_SECOND / 5)

typedef struct waiter {
    struct waiter *next;
    uint64_t ticket; /* the order of arrival */
    pthread_cond_t served;
    fpc_conn *conn; /* lent to it; NULL: it may open one (counted in `opening`) */
    bool is_served;
} waiter;

typedef struct idle_conn {
    fpc_conn *conn;
    int64_t since_ns;
} idle_conn;

struct fpc_pool {
    /* -- fixed at creation -- */
    fpc_conninfo *info;
    fpc_pool_options options;
    char *session_sql;
    uint64_t jitter;

    atomic_int references; /* the owner, and pins */
    pthread_mutex_t lock;  /* the only one; held for list work, never for I/O */
    /* -- only while `lock` is held -- */
    unsigned fork_generation;
    bool closed;
    idle_conn *idle; /* a stack of max_connections places; the newest is on top */
    int idle_count, lent, opening, pins;
    waiter *first_waiter;
    uint64_t next_ticket;
    fpc_pool_stats totals;
};

fpc_pool *fpc_pool_new(fpc_conninfo *info, const fpc_pool_options *options) {
    fpc_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        fpc_conninfo_delete(info);
        return NULL;
    }
    pool->info = info;
    pool->options = *options;
    pthread_mutex_init(&pool->lock, NULL);
    atomic_init(&pool->references, 1);
    pool->fork_generation = fpc_fork_generation();
    pool->jitter = (uint64_t)fpc_clock_ns() ^ (uint64_t)(uintptr_t)pool;
    pool->idle = calloc((size_t)options->max_connections, sizeof *pool->idle);
    if (options->conn.session_sql != NULL) {
        pool->session_sql = strdup(options->conn.session_sql);
        pool->options.conn.session_sql = pool->session_sql;
    }
    if (pool->idle == NULL || (options->conn.session_sql != NULL && pool->session_sql == NULL)) {
        fpc_pool_delete(pool);
        return NULL;
    }
    return pool;
}

/* Takes the lock; in a child of fork(2) it first forgets what belongs to the parent. */
static void lock_pool(fpc_pool *pool) {
    unsigned generation = fpc_fork_generation();
    if (pool->fork_generation != generation) {
        /* A thread of the parent may have held the lock, in the midst of changing the list; it does not exist
         * here, and what the list holds is left alone. */
        bool is_whole = pthread_mutex_trylock(&pool->lock) == 0;
        for (int i = 0; is_whole && i < pool->idle_count; i++) fpc_conn_delete(pool->idle[i].conn);
        if (is_whole) pthread_mutex_unlock(&pool->lock);
        pthread_mutex_init(&pool->lock, NULL);
        pool->idle_count = pool->lent = pool->opening = pool->pins = 0;
        atomic_store(&pool->references, 1); /* pins are the parent's */
        pool->first_waiter = NULL;
        pool->fork_generation = generation;
    }
    pthread_mutex_lock(&pool->lock);
}

static fpc_status closed(fpc_error *err) {
    return fpc_fail(err, FPC_CLOSED, "the pool was closed");
}

static void add_waiter(fpc_pool *pool, waiter *w) {
    waiter **place = &pool->first_waiter;
    while (*place != NULL && (*place)->ticket < w->ticket) place = &(*place)->next;
    w->next = *place;
    *place = w;
}

static void remove_waiter(fpc_pool *pool, waiter *w) {
    waiter **place = &pool->first_waiter;
    while (*place != w) place = &(*place)->next;
    *place = w->next;
}

/* Gives the first waiter a connection or, with NULL, a place.  Lock held. */
static bool serve_waiter(fpc_pool *pool, fpc_conn *conn) {
    waiter *w = pool->first_waiter;
    if (w == NULL) return false;
    remove_waiter(pool, w);
    w->conn = conn;
    w->is_served = true;
    if (conn == NULL)
        pool->opening++;
    else
        pool->lent++;
    pthread_cond_signal(&w->served);
    return true;
}

/* A place became free.  Lock held. */
static void place_is_free(fpc_pool *pool) {
    if (!pool->closed) serve_waiter(pool, NULL);
}

/* Whether the connection has lived long enough.  The spread depends on the connection alone, so that the
 * answer does not change from call to call. */
static bool is_old(const fpc_pool *pool, const fpc_conn *conn, int64_t now) {
    double limit = pool->options.max_lifetime_s;
    if (limit <= 0) return false;
    uint64_t mixed = ((uint64_t)fpc_conn_opened_ns(conn) ^ pool->jitter) * UINT64_C(0x9E3779B97F4A7C15);
    double spread = 0.9 + 0.2 * ((double)(mixed >> 40) / (double)(1 << 24));
    return (double)(now - fpc_conn_opened_ns(conn)) > limit * spread * (double)FPC_NS_PER_SECOND;
}

static fpc_conn *take_idle(fpc_pool *pool, int index) {
    fpc_conn *conn = pool->idle[index].conn;
    pool->idle_count--;
    memmove(&pool->idle[index], &pool->idle[index + 1],
            (size_t)(pool->idle_count - index) * sizeof pool->idle[0]);
    return conn;
}

/* Takes out at most one connection that was idle for too long, the one at the bottom, or alive for too long.
 * Lock held. */
static fpc_conn *take_overdue(fpc_pool *pool, int64_t now) {
    if (pool->idle_count == 0) return NULL;
    bool is_spare = pool->idle_count + pool->lent + pool->opening > pool->options.min_connections;
    double idle_ns = (double)(now - pool->idle[0].since_ns);
    if (is_spare && pool->options.idle_timeout_s > 0 &&
        idle_ns >= pool->options.idle_timeout_s * (double)FPC_NS_PER_SECOND) {
        pool->totals.closed_idle++;
        return take_idle(pool, 0);
    }
    for (int i = 0; pool->options.max_lifetime_s > 0 && i < pool->idle_count; i++) {
        if (!is_old(pool, pool->idle[i].conn, now)) continue;
        pool->totals.closed_old++;
        return take_idle(pool, i);
    }
    return NULL;
}

/* Sleeps until the waiter is served, `deadline`, or the end of a slice.  The condition has the system's
 * clock, which need not be the one of fpc_clock_ns().  Lock held on entry and on return. */
static void sleep_slice(fpc_pool *pool, waiter *w, fpc_deadline deadline) {
    int64_t left = deadline == FPC_NEVER ? SLICE_NS : deadline - fpc_clock_ns();
    if (left <= 0) return;
    if (left > SLICE_NS) left = SLICE_NS;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += left; /* less than two seconds in all */
    if (until.tv_nsec >= FPC_NS_PER_SECOND) {
        until.tv_nsec -= FPC_NS_PER_SECOND;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&w->served, &pool->lock, &until);
}

/* Waits in the queue.  Lock held on entry and on return. */
static fpc_status wait_turn(fpc_pool *pool, waiter *w, fpc_deadline deadline, fpc_error *err) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->served, &attributes);
    pthread_condattr_destroy(&attributes);
    w->is_served = false;
    add_waiter(pool, w);
    pool->totals.waits++;
    fpc_status status = FPC_OK;
    while (!w->is_served) {
        sleep_slice(pool, w, deadline);
        if (w->is_served) break;
        if (pool->closed)
            status = closed(err);
        else if (fpc_interrupt_raised())
            status = fpc_fail(err, FPC_INTERRUPTED, "interrupted");
        else if (fpc_deadline_passed(deadline)) {
            pool->totals.wait_timeouts++;
            status = fpc_fail(err, FPC_BUSY, "all %d connections stayed in use (see maxconn)",
                              pool->options.max_connections);
        } else
            continue;
        remove_waiter(pool, w);
        break;
    }
    pthread_cond_destroy(&w->served);
    return status;
}

/* Whether one of ours may come back to who found no room at the server.  Lock held. */
static bool may_get_another(const fpc_pool *pool, const fpc_error *why) {
    return strcmp(why->sqlstate, "53300") == 0 && !pool->closed && pool->lent + pool->opening > 0;
}

/* Opens a connection in a place that the caller has (counted in `opening`).  With a waiter: when the server
 * has no room for it, he waits for what the pool has, and `out` is another one, or NULL for a place.  Lock
 * not held. */
static fpc_status open_in_place(fpc_pool *pool, waiter *w, fpc_deadline deadline, fpc_conn **out,
                                fpc_error *err) {
    fpc_deadline own = fpc_deadline_in(pool->options.connect_timeout_s);
    if (own > deadline) own = deadline;
    fpc_conn *conn = NULL;
    fpc_error why;
    fpc_status status = fpc_conn_open(pool->info, &pool->options.conn, own, &conn, &why);
    lock_pool(pool);
    pool->opening--;
    bool is_late = status == FPC_OK && pool->closed;
    if (status == FPC_OK)
        pool->totals.opened++;
    else
        pool->totals.open_failures++;
    if (status == FPC_OK && !is_late) {
        pool->lent++;
    } else if (status != FPC_OK && w != NULL && may_get_another(pool, &why)) {
        fpc_error ended;
        fpc_status waited = wait_turn(pool, w, deadline, &ended);
        conn = w->conn;
        if (waited != FPC_BUSY) { /* else the server's words say more */
            status = waited;
            why = ended;
        }
    } else {
        place_is_free(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    if (is_late) {
        fpc_conn_delete(conn);
        return closed(err);
    }
    if (status != FPC_OK && err != NULL) *err = why;
    if (status == FPC_OK) *out = conn;
    return status;
}

/* Closes a lent connection that is of no more use and lends another idle one for it.  NULL: there is none,
 * and its place is the caller's (counted in `opening`).  Nobody else has a claim: those who wait, wait while
 * none is idle. */
static fpc_conn *replace_lent(fpc_pool *pool, fpc_conn *conn, uint64_t *counter) {
    fpc_conn *next = NULL;
    lock_pool(pool);
    (*counter)++;
    if (pool->idle_count > 0) {
        next = take_idle(pool, pool->idle_count - 1);
    } else {
        pool->lent--;
        pool->opening++;
    }
    pthread_mutex_unlock(&pool->lock);
    fpc_conn_delete(conn);
    return next;
}

fpc_status fpc_pool_acquire(fpc_pool *pool, fpc_deadline deadline, fpc_conn **out, fpc_error *err) {
    /* 1. A connection or a place to open one in. */
    lock_pool(pool);
    if (pool->closed) {
        pthread_mutex_unlock(&pool->lock);
        return closed(err);
    }
    fpc_status status = FPC_OK;
    fpc_conn *conn = NULL;
    waiter self = {.ticket = pool->next_ticket++};
    fpc_conn *overdue = take_overdue(pool, fpc_clock_ns());
    if (pool->idle_count > 0) { /* then nobody waits */
        conn = take_idle(pool, pool->idle_count - 1);
        pool->lent++;
    } else if (pool->lent + pool->opening < pool->options.max_connections) {
        pool->opening++;
    } else {
        status = wait_turn(pool, &self, deadline, err);
        conn = self.conn;
    }
    pthread_mutex_unlock(&pool->lock);
    fpc_conn_delete(overdue);
    /* 2. Is it fit?  Whatever it is, the turn is ours: who waited does not wait again. */
    while (status == FPC_OK) {
        if (conn == NULL) {
            self.conn = NULL;
            status = open_in_place(pool, &self, deadline, &conn, err);
            if (conn != self.conn) break; /* a new one */
        } else if (is_old(pool, conn, fpc_clock_ns())) {
            conn = replace_lent(pool, conn, &pool->totals.closed_old);
        } else if (!fpc_conn_is_alive(conn)) {
            conn = replace_lent(pool, conn, &pool->totals.closed_broken);
        } else {
            break;
        }
    }
    if (status == FPC_OK) *out = conn;
    return status;
}

void fpc_pool_release(fpc_pool *pool, fpc_conn *conn) {
    if (fpc_conn_is_inherited(conn)) { /* lent by the parent process: not counted here */
        fpc_conn_delete(conn);
        return;
    }
    bool is_useless = fpc_conn_is_broken(conn) || fpc_conn_in_transaction(conn);
    lock_pool(pool);
    pool->lent--;
    if (pool->closed || is_useless) {
        if (is_useless) pool->totals.closed_broken++;
        place_is_free(pool);
        pthread_mutex_unlock(&pool->lock);
        fpc_conn_delete(conn);
        return;
    }
    if (!serve_waiter(pool, conn)) {
        pool->idle[pool->idle_count++] = (idle_conn){.conn = conn, .since_ns = fpc_clock_ns()};
    }
    pthread_mutex_unlock(&pool->lock);
}

fpc_status fpc_pool_fill(fpc_pool *pool, fpc_deadline deadline, fpc_error *err) {
    for (;;) {
        lock_pool(pool);
        bool is_closed = pool->closed;
        bool enough =
            is_closed || pool->idle_count + pool->lent + pool->opening >= pool->options.min_connections;
        if (!enough) pool->opening++;
        pthread_mutex_unlock(&pool->lock);
        if (enough) return is_closed ? closed(err) : FPC_OK;
        fpc_conn *conn;
        fpc_status status = open_in_place(pool, NULL, deadline, &conn, err);
        if (status != FPC_OK) return status;
        fpc_pool_release(pool, conn);
    }
}

fpc_status fpc_pool_exec(fpc_pool *pool, const fpc_statement *statement, const fpc_params *params,
                         fpc_deadline deadline, fpc_result **out, fpc_error *err) {
    for (int attempt = 0;; attempt++) {
        fpc_conn *conn = NULL;
        fpc_status status = fpc_pool_acquire(pool, deadline, &conn, err);
        if (status != FPC_OK) return status;
        status = fpc_conn_exec(conn, statement, params, deadline, out, err);
        bool was_broken = fpc_conn_is_broken(conn);
        fpc_pool_release(pool, conn);
        if (status != FPC_CONNECT || !was_broken || attempt > 0) return status;
    }
}

const fpc_conninfo *fpc_pool_conninfo(const fpc_pool *pool) {
    return pool->info;
}

void fpc_pool_get_stats(fpc_pool *pool, fpc_pool_stats *out) {
    lock_pool(pool);
    *out = pool->totals;
    out->idle = pool->idle_count;
    out->lent = pool->lent;
    out->opening = pool->opening;
    out->waiting = 0;
    for (waiter *w = pool->first_waiter; w != NULL; w = w->next) out->waiting++;
    pthread_mutex_unlock(&pool->lock);
}

void fpc_pool_close(fpc_pool *pool) {
    lock_pool(pool);
    pool->closed = true;
    for (waiter *w = pool->first_waiter; w != NULL; w = w->next) pthread_cond_signal(&w->served);
    int count = pool->idle_count;
    pool->idle_count = 0;
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < count; i++) fpc_conn_delete(pool->idle[i].conn); /* nobody adds to a closed pool */
}

void fpc_pool_keep(fpc_pool *pool) {
    atomic_fetch_add(&pool->references, 1);
}

void fpc_pool_drop(fpc_pool *pool) {
    if (atomic_fetch_sub(&pool->references, 1) > 1) return;
    free(pool->idle);
    fpc_conninfo_delete(pool->info);
    free(pool->session_sql);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

fpc_status fpc_pool_pin(fpc_pool *pool, fpc_error *err) {
    fpc_status status = FPC_OK;
    lock_pool(pool);
    if (pool->closed)
        status = closed(err);
    else if (pool->pins >= pool->options.max_connections)
        status = fpc_fail(err, FPC_BUSY, "all %d connections stayed in use (see maxconn)",
                          pool->options.max_connections);
    else
        pool->pins++;
    pthread_mutex_unlock(&pool->lock);
    return status;
}

void fpc_pool_unpin(fpc_pool *pool) {
    lock_pool(pool);
    if (pool->pins > 0) pool->pins--;
    pthread_mutex_unlock(&pool->lock);
}

void fpc_pool_delete(fpc_pool *pool) {
    if (pool == NULL) return;
    if (pool->idle != NULL) fpc_pool_close(pool);
    for (int ms = 0; ms < PINS_PATIENCE_MS && atomic_load(&pool->references) > 1; ms++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    fpc_pool_drop(pool);
}
