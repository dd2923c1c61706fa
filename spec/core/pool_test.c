/* pool_test.c -- a pool in the hands of one thread: what it opens, keeps, closes, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "db.h"
#include "server.h"

#define MANY 20

static fpc_pool *pool;
static fpc_pool_options options;
static fpc_pool_stats stats;
static fpc_conn *lent[MANY];
static int64_t now; /* what the injected clock shows; it ticks, so that no two moments are the same */

static int64_t injected(void) {
    return now += 1000;
}

static int clean(void **state) {
    (void)state;
    fpc_clock_override(NULL);
    for (int i = 0; i < MANY; i++) {
        if (lent[i] != NULL) fpc_pool_release(pool, lent[i]);
        lent[i] = NULL;
    }
    fpc_pool_delete(pool);
    pool = NULL;
    memset(&db_err, 0, sizeof db_err);
    options = (fpc_pool_options){.max_connections = 3, .connect_timeout_s = 10, .conn = {.prepared = true}};
    return 0;
}

static int inject(void **state) {
    clean(state);
    now = 1000 * FPC_NS_PER_SECOND;
    fpc_clock_override(injected);
    return 0;
}

static void advance(double seconds) {
    now += (int64_t)(seconds * (double)FPC_NS_PER_SECOND);
}

static void make_pool(const char *settings) {
    pool = fpc_pool_new(db_info(settings), &options);
    assert_non_null(pool);
}

static fpc_status acquire_in(int i, double seconds) {
    return fpc_pool_acquire(pool, fpc_deadline_in(seconds), &lent[i], &db_err);
}

static void acquire(int i) {
    fpc_status status = acquire_in(i, 20);
    if (status != FPC_OK) fail_msg("%s", db_err.message);
}

static void release(int i) {
    fpc_pool_release(pool, lent[i]);
    lent[i] = NULL;
}

static void acquire_and_release(int count) {
    for (int i = 0; i < count; i++) acquire(i);
    for (int i = 0; i < count; i++) release(i);
}

static fpc_pool_stats *look(void) {
    fpc_pool_get_stats(pool, &stats);
    return &stats;
}

static void counts_are(int idle, int in_hand, uint64_t opened) {
    look();
    assert_int_equal(idle, stats.idle);
    assert_int_equal(in_hand, stats.lent);
    assert_int_equal(opened, stats.opened);
    assert_int_equal(0, stats.opening);
    assert_int_equal(0, stats.waiting);
}

/* --- what it opens --- */

static void opens_when_asked_and_keeps(void **state) {
    (void)state;
    make_pool(NULL);
    counts_are(0, 0, 0);
    acquire(0);
    counts_are(0, 1, 1);
    acquire(1);
    counts_are(0, 2, 2);
    release(0);
    release(1);
    counts_are(2, 0, 2);
    acquire(0);
    counts_are(1, 1, 2);
}

static void the_newest_idle_one_is_lent_first(void **state) {
    (void)state;
    make_pool(NULL);
    acquire(0);
    acquire(1);
    fpc_conn *last = lent[0];
    release(1);
    release(0);
    acquire(2);
    assert_ptr_equal(last, lent[2]);
}

static void never_more_than_the_maximum(void **state) {
    (void)state;
    make_pool(NULL);
    for (int i = 0; i < 3; i++) acquire(i);
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_BUSY, acquire_in(3, 0.05));
    assert_true(fpc_clock_ns() - start >= FPC_NS_PER_SECOND / 20);
    assert_true(fpc_clock_ns() - start < 5 * FPC_NS_PER_SECOND);
    assert_non_null(strstr(db_err.message, "all 3 connections"));
    assert_int_equal(FPC_BUSY, acquire_in(3, 0));
    counts_are(0, 3, 3);
    assert_int_equal(2, stats.waits);
    assert_int_equal(2, stats.wait_timeouts);
    release(1);
    acquire(3);
    counts_are(0, 3, 3);
}

static void fill_opens_up_to_the_minimum(void **state) {
    (void)state;
    options.min_connections = 2;
    make_pool(NULL);
    assert_int_equal(FPC_OK, fpc_pool_fill(pool, SOON, &db_err));
    counts_are(2, 0, 2);
    assert_int_equal(FPC_OK, fpc_pool_fill(pool, SOON, &db_err));
    counts_are(2, 0, 2);
    acquire(0);
    assert_int_equal(FPC_OK, fpc_pool_fill(pool, SOON, &db_err)); /* what is lent counts */
    counts_are(1, 1, 2);
}

static void what_cannot_be_opened_is_told_and_its_place_is_free_again(void **state) {
    (void)state;
    options.min_connections = options.max_connections = 1;
    make_pool("host=/nonexistent");
    for (int i = 0; i < 3; i++) assert_int_equal(FPC_CONNECT, acquire_in(0, 20));
    assert_int_equal(FPC_CONNECT, fpc_pool_fill(pool, SOON, &db_err));
    counts_are(0, 0, 0);
    assert_int_equal(4, stats.open_failures);
    clean(NULL);
    make_pool("user=nobody_such");
    assert_int_equal(FPC_AUTH, acquire_in(0, 20));
}

static void the_lower_of_the_two_timeouts_counts(void **state) {
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int deaf = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(0, bind(deaf, (struct sockaddr *)&address, size));
    assert_int_equal(0, listen(deaf, 5));
    getsockname(deaf, (struct sockaddr *)&address, &size);
    char settings[60];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d", ntohs(address.sin_port));
    const double connect_timeouts[] = {0.1, 20}, deadlines[] = {20, 0.1};
    for (int i = 0; i < 2; i++) {
        clean(NULL);
        options.connect_timeout_s = connect_timeouts[i];
        options.min_connections = 1;
        make_pool(settings);
        int64_t start = fpc_clock_ns();
        assert_int_equal(FPC_CONNECT, acquire_in(0, deadlines[i]));
        assert_int_equal(FPC_CONNECT, fpc_pool_fill(pool, fpc_deadline_in(deadlines[i]), &db_err));
        assert_true(fpc_clock_ns() - start < 5 * FPC_NS_PER_SECOND);
    }
    close(deaf);
}

static void the_session_sql_is_copied(void **state) {
    (void)state;
    char sql[] = "SET statement_timeout = 777";
    options.conn.session_sql = sql;
    make_pool(NULL);
    memset(sql, 'x', sizeof sql - 1);
    acquire(0);
    assert_int_equal(777,
                     db_number(lent[0], "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"));
}

/* --- what it closes --- */

static void idle_for_too_long_is_closed_down_to_the_minimum(void **state) {
    (void)state;
    options.min_connections = 1;
    options.idle_timeout_s = 60;
    make_pool(NULL);
    acquire_and_release(3);
    advance(59);
    acquire(0); /* the newest; the two below grow older */
    release(0);
    counts_are(3, 0, 3);
    advance(2);
    for (int i = 0; i < 4; i++) acquire_and_release(1);
    counts_are(1, 0, 3);
    assert_int_equal(2, stats.closed_idle);
    advance(1000);
    acquire_and_release(1); /* the minimum is kept */
    counts_are(1, 0, 3);
}

static void without_an_idle_timeout_nothing_is_closed(void **state) {
    (void)state;
    make_pool(NULL);
    acquire_and_release(3);
    advance(1e6);
    acquire_and_release(3);
    counts_are(3, 0, 3);
}

static void a_pool_without_a_minimum_starts_anew_after_a_pause(void **state) {
    (void)state;
    options.idle_timeout_s = 60;
    make_pool(NULL);
    acquire_and_release(1);
    advance(61);
    acquire_and_release(1);
    counts_are(1, 0, 2);
    assert_int_equal(1, stats.closed_idle);
}

static void alive_for_too_long_is_replaced(void **state) {
    (void)state;
    options.min_connections = 1;
    options.max_lifetime_s = 100;
    make_pool(NULL);
    acquire(0);
    int pid = db_backend_pid(lent[0]);
    advance(89);
    release(0);
    acquire(0);
    assert_int_equal(pid, db_backend_pid(lent[0]));
    release(0);
    advance(22);
    acquire(0);
    assert_int_not_equal(pid, db_backend_pid(lent[0]));
    counts_are(0, 1, 2);
    assert_int_equal(1, stats.closed_old);
}

/* Those at the bottom that nobody borrows grow old as well, and hold a place at the server. */
static void old_ones_that_nobody_borrows_are_closed_too(void **state) {
    (void)state;
    options.max_lifetime_s = 100;
    options.max_connections = 4;
    make_pool(NULL);
    for (int i = 0; i < 3; i++) acquire(i);
    advance(60);
    acquire(3);
    for (int i = 0; i < 4; i++) release(i); /* the young one on top */
    advance(55);
    for (int i = 0; i < 4; i++) acquire_and_release(1);
    counts_are(1, 0, 4);
    assert_int_equal(3, stats.closed_old);
}

static void lifetimes_are_spread_by_a_tenth(void **state) {
    (void)state;
    options.max_connections = MANY;
    options.max_lifetime_s = 1000;
    make_pool(NULL);
    acquire_and_release(MANY);
    int64_t born = now;
    acquire_and_release(MANY);
    now = born + 899 * FPC_NS_PER_SECOND;
    acquire_and_release(MANY);
    assert_int_equal(0, look()->closed_old);
    now = born + 1000 * FPC_NS_PER_SECOND;
    acquire_and_release(MANY);
    uint64_t half = look()->closed_old;
    assert_true(half >= 2 && half <= MANY - 2); /* each way with a chance below 1 in 20,000 */
    acquire_and_release(MANY);
    assert_int_equal(half, look()->closed_old); /* the same answer each time */
    now = born + 1101 * FPC_NS_PER_SECOND;
    acquire_and_release(MANY);
    assert_int_equal(MANY, look()->closed_old);
    counts_are(MANY, 0, 2 * MANY);
}

static void one_in_a_transaction_is_closed(void **state) {
    (void)state;
    db_admin("DROP TABLE IF EXISTS t; CREATE TABLE t (a int)");
    make_pool(NULL);
    acquire(0);
    db_script(lent[0], "BEGIN; INSERT INTO t VALUES (1)");
    release(0);
    counts_are(0, 0, 1);
    assert_int_equal(1, stats.closed_broken);
    acquire(0);
    assert_int_equal(0, db_number(lent[0], "SELECT count(*) FROM t"));
    fpc_result *none = NULL;
    db_script(lent[0], "BEGIN");
    assert_int_equal(FPC_SERVER, fpc_conn_query(lent[0], "SELECT 1 / 0", 0, NULL, SOON, &none, &db_err));
    release(0); /* a failed one */
    counts_are(0, 0, 2);
}

static void one_with_an_answer_outstanding_is_closed(void **state) {
    (void)state;
    make_pool(NULL);
    acquire(0);
    fpc_statement *statement = db_statement("SELECT 8::bigint");
    fpc_params none = {0};
    assert_int_equal(FPC_OK, fpc_conn_send(lent[0], statement, &none, SOON, &db_err));
    release(0);
    counts_are(0, 0, 1);
    fpc_statement_delete(statement);
    statement = db_statement("SELECT 9::bigint");
    assert_int_equal(9, db_pool_run(pool, statement)); /* not 8 */
    fpc_statement_delete(statement);
}

static void a_broken_one_is_closed(void **state) {
    (void)state;
    make_pool(NULL);
    fpc_statement *statement = db_statement("SELECT pg_sleep(30)");
    fpc_params none = {0};
    fpc_result *result = NULL;
    assert_int_equal(FPC_TIMEOUT,
                     fpc_pool_exec(pool, statement, &none, fpc_deadline_in(0.05), &result, &db_err));
    assert_null(result);
    counts_are(0, 0, 1);
    assert_int_equal(1, stats.closed_broken);
    fpc_statement_delete(statement);
}

static void one_dead_among_the_idle_is_replaced_by_another_idle_one(void **state) {
    (void)state;
    make_pool(NULL);
    for (int i = 0; i < 3; i++) acquire(i);
    int top = db_backend_pid(lent[2]), next = db_backend_pid(lent[1]);
    for (int i = 0; i < 3; i++) release(i);
    db_kill(top);
    acquire(0);
    assert_int_equal(next, db_backend_pid(lent[0]));
    counts_are(1, 1, 3);
    assert_int_equal(1, stats.closed_broken);
}

static void a_failed_statement_costs_no_connection(void **state) {
    (void)state;
    make_pool(NULL);
    fpc_statement *statement = db_statement("SELECT 1 / 0");
    fpc_params none = {0};
    fpc_result *result = NULL;
    for (int i = 0; i < 5; i++) {
        assert_int_equal(FPC_INVALID, fpc_pool_exec(pool, statement, &none, SOON, &result, &db_err));
        assert_int_equal(FPC_INVALID, fpc_pool_exec(pool, statement, &none, SOON, &result, NULL));
    }
    counts_are(1, 0, 1);
    fpc_statement_delete(statement);
}

/* --- the end --- */

static void a_closed_pool_answers_closed(void **state) {
    (void)state;
    options.min_connections = 1;
    make_pool(NULL);
    acquire_and_release(2);
    fpc_pool_close(pool);
    counts_are(0, 0, 2);
    assert_int_equal(FPC_CLOSED, acquire_in(0, 20));
    assert_int_equal(FPC_CLOSED, fpc_pool_fill(pool, SOON, &db_err));
    fpc_statement *statement = db_statement("SELECT 1");
    fpc_params none = {0};
    fpc_result *result = NULL;
    assert_int_equal(FPC_CLOSED, fpc_pool_exec(pool, statement, &none, SOON, &result, &db_err));
    fpc_statement_delete(statement);
    fpc_pool_close(pool); /* harmless */
}

static void one_lent_outlives_the_close_and_is_closed_at_its_release(void **state) {
    (void)state;
    make_pool(NULL);
    acquire(0);
    acquire(1);
    int pid = db_backend_pid(lent[0]);
    release(1);
    fpc_pool_close(pool);
    assert_int_equal(pid, db_backend_pid(lent[0]));
    counts_are(0, 1, 2);
    release(0);
    counts_are(0, 0, 2);
    while (db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) != 0) {
    }
}

static void nothing_is_left_at_the_server(void **state) {
    (void)state;
    options.max_connections = 5;
    make_pool("application_name=counted");
    acquire_and_release(5);
    assert_int_equal(
        5, db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'"));
    fpc_pool_delete(pool);
    pool = NULL;
    while (db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'counted'") != 0) {
    }
    fpc_pool_delete(NULL);
}

#define TEST(name)       cmocka_unit_test_setup_teardown(name, clean, clean)
#define TEST_CLOCK(name) cmocka_unit_test_setup_teardown(name, inject, clean)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(opens_when_asked_and_keeps),
        TEST(the_newest_idle_one_is_lent_first),
        TEST(never_more_than_the_maximum),
        TEST(fill_opens_up_to_the_minimum),
        TEST(what_cannot_be_opened_is_told_and_its_place_is_free_again),
        TEST(the_lower_of_the_two_timeouts_counts),
        TEST(the_session_sql_is_copied),
        TEST_CLOCK(idle_for_too_long_is_closed_down_to_the_minimum),
        TEST_CLOCK(without_an_idle_timeout_nothing_is_closed),
        TEST_CLOCK(a_pool_without_a_minimum_starts_anew_after_a_pause),
        TEST_CLOCK(alive_for_too_long_is_replaced),
        TEST_CLOCK(old_ones_that_nobody_borrows_are_closed_too),
        TEST_CLOCK(lifetimes_are_spread_by_a_tenth),
        TEST(one_in_a_transaction_is_closed),
        TEST(one_with_an_answer_outstanding_is_closed),
        TEST(a_broken_one_is_closed),
        TEST(one_dead_among_the_idle_is_replaced_by_another_idle_one),
        TEST(a_failed_statement_costs_no_connection),
        TEST(a_closed_pool_answers_closed),
        TEST(one_lent_outlives_the_close_and_is_closed_at_its_release),
        TEST(nothing_is_left_at_the_server),
    };
    return cmocka_run_group_tests_name("pool", tests, server_setup, server_teardown);
}
