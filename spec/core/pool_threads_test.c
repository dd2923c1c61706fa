/* pool_threads_test.c -- a pool shared by threads: the maximum, the queue, a full server, and its ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "db.h"
#include "fpcache/wait.h"
#include "server.h"

#define MAX_THREADS 16

static fpc_pool *pool;
static fpc_pool_options options;

typedef struct waiter_thread {
    pthread_t thread;
    double seconds; /* its deadline */
    fpc_status status;
    fpc_error err;
    int turn; /* when it was served: 1, 2, ...; 0: never */
} waiter_thread;

static waiter_thread waiters[MAX_THREADS];
static atomic_int turns;

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    memset(waiters, 0, sizeof waiters);
    atomic_store(&turns, 0);
    options = (fpc_pool_options){.max_connections = 1, .connect_timeout_s = 10, .conn = {.prepared = true}};
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_clock_override(NULL);
    fpc_interrupt_clear();
    fpc_pool_delete(pool);
    pool = NULL;
    return 0;
}

static void make_pool_of(const char *settings) {
    pool = fpc_pool_new(db_info(settings), &options);
    assert_non_null(pool);
}

static void make_pool(void) {
    make_pool_of(NULL);
}

static fpc_conn *acquire(void) {
    fpc_conn *conn = NULL;
    if (fpc_pool_acquire(pool, SOON, &conn, &db_err) != FPC_OK) fail_msg("%s", db_err.message);
    return conn;
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static int waiting(void) {
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    return stats.waiting;
}

static void await_waiting(int count) {
    while (waiting() != count) pause_ms(1);
}

static void *wait_for_turn(void *arg) {
    waiter_thread *self = arg;
    fpc_conn *conn = NULL;
    self->status = fpc_pool_acquire(pool, fpc_deadline_in(self->seconds), &conn, &self->err);
    if (self->status != FPC_OK) return NULL;
    self->turn = atomic_fetch_add(&turns, 1) + 1;
    fpc_result *result = NULL;
    self->status = fpc_conn_query(conn, "SELECT 1", 0, NULL, SOON, &result, &self->err);
    if (self->status == FPC_OK) fpc_result_delete(result);
    fpc_pool_release(pool, conn);
    return NULL;
}

/* Starts waiter `i`, and comes back when it stands in the queue as the `count`th. */
static void queue_up(int i, double seconds, int count) {
    waiters[i].seconds = seconds;
    assert_int_equal(0, pthread_create(&waiters[i].thread, NULL, wait_for_turn, &waiters[i]));
    await_waiting(count);
}

static void join(int count) {
    for (int i = 0; i < count; i++) pthread_join(waiters[i].thread, NULL);
}

/* --- many at once --- */

#define ROUNDS 60

static atomic_int in_hand, most_in_hand, failures;

static void *borrow_often(void *arg) {
    unsigned seed = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < ROUNDS; i++) {
        fpc_conn *conn = NULL;
        fpc_error err;
        if (fpc_pool_acquire(pool, SOON, &conn, &err) != FPC_OK) {
            atomic_fetch_add(&failures, 1);
            continue;
        }
        int mine = atomic_fetch_add(&in_hand, 1) + 1;
        int most = atomic_load(&most_in_hand);
        while (mine > most && !atomic_compare_exchange_weak(&most_in_hand, &most, mine)) {
        }
        fpc_result *result = NULL;
        int way = rand_r(&seed) % 8;
        const char *sql = way == 0   ? "BEGIN"
                          : way == 1 ? "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(30)"
                                     : "SELECT 1";
        if (fpc_conn_query(conn, sql, 0, NULL, SOON, &result, &err) == FPC_OK)
            fpc_result_delete(result);
        else if (way != 1)
            atomic_fetch_add(&failures, 1);
        atomic_fetch_sub(&in_hand, 1);
        fpc_pool_release(pool, conn);
    }
    return NULL;
}

/* With connections that are left in transactions and killed. */
static void sixteen_threads_never_have_more_than_the_maximum(void **state) {
    (void)state;
    options.max_connections = 4;
    make_pool();
    atomic_store(&most_in_hand, 0);
    atomic_store(&failures, 0);
    pthread_t threads[MAX_THREADS];
    for (uintptr_t i = 0; i < MAX_THREADS; i++) {
        assert_int_equal(0, pthread_create(&threads[i], NULL, borrow_often, (void *)(i + 1)));
    }
    for (int i = 0; i < MAX_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(0, atomic_load(&failures));
    assert_int_equal(4, atomic_load(&most_in_hand));
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(0, stats.lent + stats.opening + stats.waiting);
    assert_true(stats.idle <= 4);
    assert_int_equal(stats.opened, (uint64_t)stats.idle + stats.closed_broken);
    assert_true(stats.waits > 0);
    assert_int_equal(0, stats.wait_timeouts);
}

static void *run_often(void *arg) {
    fpc_statement *statement = arg;
    fpc_params none = {0};
    for (int i = 0; i < ROUNDS; i++) {
        fpc_result *result = NULL;
        if (fpc_pool_exec(pool, statement, &none, SOON, &result, NULL) != FPC_OK ||
            fpc_result_int64(result, 0, 0) != 7) {
            atomic_fetch_add(&failures, 1);
        }
        fpc_result_delete(result);
    }
    return NULL;
}

static void a_statement_is_shared_by_threads(void **state) {
    (void)state;
    options.max_connections = 3;
    options.idle_timeout_s = 1e-6; /* closed and opened all the time */
    options.max_lifetime_s = 0.05;
    make_pool();
    atomic_store(&failures, 0);
    fpc_statement *statement = db_statement("SELECT 7::bigint");
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) assert_int_equal(0, pthread_create(&threads[i], NULL, run_often, statement));
    for (int i = 0; i < 8; i++) pthread_join(threads[i], NULL);
    fpc_statement_delete(statement);
    assert_int_equal(0, atomic_load(&failures));
}

/* --- the queue --- */

static void waiters_are_served_in_the_order_of_arrival(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    for (int i = 0; i < 8; i++) queue_up(i, 30, i + 1);
    fpc_pool_release(pool, conn);
    join(8);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(FPC_OK, waiters[i].status);
        assert_int_equal(i + 1, waiters[i].turn);
    }
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(1, stats.opened);
    assert_int_equal(8, stats.waits);
}

static void a_place_is_handed_on_in_the_same_order(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    for (int i = 0; i < 4; i++) queue_up(i, 30, i + 1);
    db_script(conn, "BEGIN"); /* it will be closed, and its place be given away */
    fpc_pool_release(pool, conn);
    join(4);
    for (int i = 0; i < 4; i++) assert_int_equal(i + 1, waiters[i].turn);
}

/* Who is handed a dead connection does not go back to the end of the queue. */
static void who_gets_a_dead_connection_keeps_his_turn(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    int pid = db_backend_pid(conn);
    for (int i = 0; i < 4; i++) queue_up(i, 30, i + 1);
    db_kill(pid);
    fpc_pool_release(pool, conn);
    join(4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(FPC_OK, waiters[i].status);
        assert_int_equal(i + 1, waiters[i].turn);
    }
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(2, stats.opened);
    assert_int_equal(4, stats.waits);
}

static void who_waits_in_vain_leaves_the_queue_in_order(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    queue_up(0, 30, 1);
    queue_up(1, 0.3, 2);
    queue_up(2, 30, 3);
    queue_up(3, 0.3, 4);
    await_waiting(2);
    queue_up(4, 30, 3); /* the queue's end was mended */
    fpc_pool_release(pool, conn);
    join(5);
    assert_int_equal(FPC_BUSY, waiters[1].status);
    assert_int_equal(FPC_BUSY, waiters[3].status);
    assert_int_equal(1, waiters[0].turn);
    assert_int_equal(2, waiters[2].turn);
    assert_int_equal(3, waiters[4].turn);
}

static void whose_opening_fails_hands_his_place_on(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    for (int i = 0; i < 4; i++) queue_up(i, 30, i + 1);
    server_stop();
    fpc_pool_release(pool, conn);
    join(4);
    server_start();
    for (int i = 0; i < 4; i++) assert_int_equal(FPC_CONNECT, waiters[i].status);
    fpc_pool_release(pool, acquire());
}

static void closing_sends_everybody_away(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    for (int i = 0; i < 4; i++) queue_up(i, 30, i + 1);
    int64_t start = fpc_clock_ns();
    fpc_pool_close(pool);
    join(4);
    assert_true(fpc_clock_ns() - start < 5 * FPC_NS_PER_SECOND);
    for (int i = 0; i < 4; i++) assert_int_equal(FPC_CLOSED, waiters[i].status);
    assert_int_equal(1, db_number(conn, "SELECT 1"));
    fpc_pool_release(pool, conn);
}

static void *close_soon(void *arg) {
    db_await_busy(*(int *)arg);
    fpc_pool_close(pool);
    return NULL;
}

/* Closed while its connection is opened: that one is not lent any more. */
static void a_connection_opened_for_a_closed_pool_is_not_lent(void **state) {
    (void)state;
    options.conn.session_sql = "SELECT pg_advisory_lock(1)";
    fpc_conn *holder = db_open();
    db_script(holder, "SELECT pg_advisory_lock(1)");
    make_pool();
    waiters[0].seconds = 30;
    assert_int_equal(0, pthread_create(&waiters[0].thread, NULL, wait_for_turn, &waiters[0]));
    int pid;
    while ((pid = (int)db_admin_number(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")) < 0) {
    }
    pthread_t thread;
    assert_int_equal(0, pthread_create(&thread, NULL, close_soon, &pid));
    pthread_join(thread, NULL);
    fpc_conn_delete(holder);
    join(1);
    assert_int_equal(FPC_CLOSED, waiters[0].status);
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(0, stats.idle + stats.lent + stats.opening);
}

static void an_interrupt_ends_the_wait(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_interrupt_enable(&db_err));
    make_pool();
    fpc_conn *conn = acquire();
    queue_up(0, 30, 1);
    queue_up(1, 30, 2);
    int64_t start = fpc_clock_ns();
    fpc_interrupt_raise();
    join(2);
    assert_true(fpc_clock_ns() - start < 5 * FPC_NS_PER_SECOND);
    assert_int_equal(FPC_INTERRUPTED, waiters[0].status);
    assert_int_equal(FPC_INTERRUPTED, waiters[1].status);
    assert_int_equal(0, waiting());
    fpc_interrupt_clear();
    fpc_pool_release(pool, conn);
}

/* --- a server without room for more --- */

/* Of three that the pool may have the server takes one. */
static void make_narrow_pool(void) {
    db_admin("DROP ROLE IF EXISTS narrow; CREATE ROLE narrow LOGIN CONNECTION LIMIT 1");
    options.max_connections = 3;
    make_pool_of("user=narrow");
}

static void assert_no_room(int i) {
    assert_int_equal(FPC_CONNECT, waiters[i].status);
    assert_string_equal("53300", waiters[i].err.sqlstate);
}

/* ... waits for one of ours, in the order of arrival, and does not ask the server again and again. */
static void who_finds_no_room_gets_the_next_that_comes_back(void **state) {
    (void)state;
    make_narrow_pool();
    fpc_conn *conn = acquire();
    for (int i = 0; i < 4; i++) queue_up(i, 30, i + 1);
    fpc_pool_release(pool, conn);
    join(4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(FPC_OK, waiters[i].status);
        assert_int_equal(i + 1, waiters[i].turn);
    }
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(1, stats.opened);
    assert_int_equal(4, stats.open_failures);
    assert_int_equal(1, stats.idle);
    assert_int_equal(0, stats.lent + stats.opening + stats.waiting);
}

/* Beside those who wait since the pool has no place left. */
static void no_room_and_no_place(void **state) {
    (void)state;
    make_narrow_pool();
    db_admin("ALTER ROLE narrow CONNECTION LIMIT 2");
    fpc_conn *first = acquire(), *second = acquire();
    queue_up(0, 30, 1); /* no room */
    db_admin("ALTER ROLE narrow CONNECTION LIMIT 3");
    fpc_conn *third = acquire();
    queue_up(1, 30, 2); /* no place */
    fpc_pool_release(pool, first);
    join(2);
    assert_int_equal(1, waiters[0].turn);
    assert_int_equal(2, waiters[1].turn);
    fpc_pool_release(pool, second);
    fpc_pool_release(pool, third);
}

/* Who waited for a place, and then finds no room, stands where he stood. */
static void who_finds_no_room_keeps_his_turn(void **state) {
    (void)state;
    make_narrow_pool();
    db_admin("ALTER ROLE narrow CONNECTION LIMIT 3");
    fpc_conn *first = acquire(), *second = acquire(), *third = acquire();
    for (int i = 0; i < 3; i++) queue_up(i, 30, i + 1);
    db_admin("ALTER ROLE narrow CONNECTION LIMIT 0");
    db_kill(db_backend_pid(first));
    fpc_pool_release(pool, first);
    fpc_pool_stats stats;
    do {
        pause_ms(1);
        fpc_pool_get_stats(pool, &stats);
    } while (stats.open_failures < 1 || stats.waiting < 3);
    fpc_pool_release(pool, second);
    join(3);
    for (int i = 0; i < 3; i++) assert_int_equal(i + 1, waiters[i].turn);
    fpc_pool_release(pool, third);
}

static void who_finds_no_room_waits_for_his_deadline_only(void **state) {
    (void)state;
    make_narrow_pool();
    fpc_conn *conn = acquire();
    queue_up(0, 30, 1);
    queue_up(1, 0.3, 2);
    await_waiting(1);
    assert_int_equal(0, pthread_join(waiters[1].thread, NULL));
    assert_no_room(1);
    fpc_pool_release(pool, conn);
    assert_int_equal(0, pthread_join(waiters[0].thread, NULL));
    assert_int_equal(FPC_OK, waiters[0].status);
}

/* The pool has nothing that could come back: others took the room, or what was out is lost. */
static void who_finds_no_room_fails_when_none_is_out(void **state) {
    (void)state;
    make_narrow_pool();
    fpc_conn *conn = acquire();
    for (int i = 0; i < 3; i++) queue_up(i, 3600, i + 1);
    db_admin("ALTER ROLE narrow CONNECTION LIMIT 0");
    db_kill(db_backend_pid(conn));
    fpc_pool_release(pool, conn);
    join(3);
    for (int i = 0; i < 3; i++) assert_no_room(i);
    waiters[3].seconds = 3600;
    assert_int_equal(0, pthread_create(&waiters[3].thread, NULL, wait_for_turn, &waiters[3]));
    pthread_join(waiters[3].thread, NULL);
    assert_no_room(3);
}

static void closing_sends_away_who_found_no_room(void **state) {
    (void)state;
    make_narrow_pool();
    fpc_conn *conn = acquire();
    queue_up(0, 3600, 1);
    fpc_pool_close(pool);
    join(1);
    assert_int_equal(FPC_CLOSED, waiters[0].status);
    fpc_pool_release(pool, conn);
}

/* --- the clock --- */

static _Atomic int64_t injected_now;

static int64_t injected(void) {
    return atomic_load(&injected_now);
}

static double cpu_seconds(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* Deadlines are those of the library's clock, whatever the system's shows; and a waiter sleeps. */
static void a_waiters_deadline_is_the_clocks(void **state) {
    (void)state;
    make_pool();
    fpc_conn *conn = acquire();
    const int64_t starts[] = {5 * FPC_NS_PER_SECOND, INT64_C(4000000000) * FPC_NS_PER_SECOND};
    for (int i = 0; i < 2; i++) {
        atomic_store(&injected_now, starts[i]);
        fpc_clock_override(injected);
        queue_up(i, 3600, 1);
        double before = cpu_seconds();
        pause_ms(300);
        double used = cpu_seconds() - before;
        assert_int_equal(1, waiting());
        atomic_fetch_add(&injected_now, 3601 * FPC_NS_PER_SECOND);
        pthread_join(waiters[i].thread, NULL);
        fpc_clock_override(NULL);
        assert_int_equal(FPC_BUSY, waiters[i].status);
        assert_true(used < 0.1);
    }
    fpc_pool_release(pool, conn);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(sixteen_threads_never_have_more_than_the_maximum),
        TEST(a_statement_is_shared_by_threads),
        TEST(waiters_are_served_in_the_order_of_arrival),
        TEST(a_place_is_handed_on_in_the_same_order),
        TEST(who_gets_a_dead_connection_keeps_his_turn),
        TEST(who_waits_in_vain_leaves_the_queue_in_order),
        TEST(whose_opening_fails_hands_his_place_on),
        TEST(closing_sends_everybody_away),
        TEST(a_connection_opened_for_a_closed_pool_is_not_lent),
        TEST(an_interrupt_ends_the_wait),
        TEST(who_finds_no_room_gets_the_next_that_comes_back),
        TEST(no_room_and_no_place),
        TEST(who_finds_no_room_keeps_his_turn),
        TEST(who_finds_no_room_waits_for_his_deadline_only),
        TEST(who_finds_no_room_fails_when_none_is_out),
        TEST(closing_sends_away_who_found_no_room),
        TEST(a_waiters_deadline_is_the_clocks),
    };
    return cmocka_run_group_tests_name("pool_threads", tests, server_setup, server_teardown);
}
