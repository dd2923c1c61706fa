/* pool_pin_test.c -- pins: what they are told, in order; how they end; what is left when they do not end
 * well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "db.h"
#include "fpcache/pin.h"
#include "server.h"

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#else
#define TSAN 0
#endif

static fpc_pool *pool;
static fpc_completions *queue;
static fpc_statement *backend;

static int make(void **state) {
    (void)state;
    db_admin("DROP TABLE IF EXISTS t; CREATE TABLE t (n bigint PRIMARY KEY)");
    fpc_pool_options options = {.max_connections = 2, .connect_timeout_s = 10, .conn = {.prepared = true}};
    pool = fpc_pool_new(db_info(NULL), &options);
    backend = db_statement("SELECT pg_backend_pid()");
    return pool == NULL || fpc_completions_new(100, &queue, &db_err) != FPC_OK;
}

static int drop(void **state) {
    (void)state;
    fpc_pool_delete(pool);
    pool = NULL;
    fpc_completions_delete(queue);
    fpc_statement_delete(backend);
    return 0;
}

static fpc_pin *pin(double idle_s) {
    fpc_pin *out = NULL;
    if (fpc_pin_new(pool, idle_s, &out, &db_err) != FPC_OK) fail_msg("%s", db_err.message);
    return out;
}

static fpc_request *next(void) {
    fpc_request *request;
    while ((request = fpc_completions_next(queue)) == NULL) {
        if (fpc_completions_wait(queue, SOON, &db_err) != FPC_OK) fail_msg("%s", db_err.message);
    }
    return request;
}

/* Waits for the next answer: its status, words in db_err. */
static fpc_status finish(void) {
    fpc_answer answer;
    fpc_request *request = next();
    fpc_status status = fpc_request_answer(request, &answer, &db_err);
    fpc_request_delete(request);
    return status;
}

static fpc_status script(fpc_pin *p, const char *sql, double timeout_s) {
    fpc_request *request = NULL;
    fpc_status status = fpc_pin_script(p, queue, sql, fpc_deadline_in(timeout_s), &request, &db_err);
    return status == FPC_OK ? finish() : status;
}

static void do_script(fpc_pin *p, const char *sql) {
    if (script(p, sql, 30) != FPC_OK) fail_msg("%s: %s", sql, db_err.message);
}

static int backend_of(fpc_pin *p) {
    fpc_answer answer;
    fpc_params none;
    fpc_request *request = NULL;
    fpc_params_init(&none);
    assert_int_equal(FPC_OK, fpc_pin_exec(p, queue, backend, &none, SOON, &request, &db_err));
    request = next();
    if (fpc_request_answer(request, &answer, &db_err) != FPC_OK) fail_msg("%s", db_err.message);
    int pid = (int)fpc_result_int64(answer.result, 0, 0);
    fpc_request_delete(request);
    return pid;
}

static int lent(void) {
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    return stats.lent + stats.opening;
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void await_lent(int count) {
    for (int i = 0; i < 20000 && lent() != count; i++) pause_ms(1);
    assert_int_equal(count, lent());
}

static int64_t rows(void) {
    return db_admin_number("SELECT count(*) FROM t");
}

static void test_orders(void **state) {
    (void)state;
    const char *values[] = {"7", NULL};
    fpc_request *request = NULL;
    fpc_pin *p = pin(0);
    assert_int_equal(FPC_OK, fpc_pin_connect(p, queue, SOON, &request, &db_err));
    assert_int_equal(FPC_OK, finish());
    assert_false(fpc_pin_in_transaction(p) || fpc_pin_is_broken(p));
    do_script(p, "BEGIN");
    assert_true(fpc_pin_in_transaction(p));
    assert_int_equal(backend_of(p), backend_of(p));
    /* Many at once: they are carried out in order. */
    assert_int_equal(FPC_OK, fpc_pin_query(p, queue, "INSERT INTO t SELECT $1::bigint WHERE $2::text IS NULL",
                                           2, values, SOON, &request, &db_err));
    assert_int_equal(FPC_OK, fpc_pin_script(p, queue, "UPDATE t SET n = n + 1; UPDATE t SET n = n * 2", SOON,
                                            &request, &db_err));
    assert_int_equal(FPC_OK, fpc_pin_script(p, queue, "COMMIT", SOON, &request, &db_err));
    for (int i = 0; i < 3; i++) assert_int_equal(FPC_OK, finish());
    assert_false(fpc_pin_in_transaction(p));
    assert_int_equal(16, db_admin_number("SELECT n FROM t"));
    fpc_pin_delete(p);
    await_lent(0);
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(1, stats.idle); /* it lives on */
}

static void test_error(void **state) {
    (void)state;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    assert_int_equal(FPC_SERVER, script(p, "SELECT 1 / 0", 30));
    assert_true(fpc_pin_in_transaction(p));
    assert_int_equal(FPC_SERVER, script(p, "SELECT 1", 30)); /* the server refuses */
    do_script(p, "ROLLBACK");
    fpc_pin_delete(p);
    await_lent(0);
    assert_int_equal(0, rows());
}

static void test_place(void **state) {
    (void)state;
    fpc_pin *refused = NULL, *a = pin(0), *b = pin(0);
    do_script(a, "BEGIN");
    do_script(b, "BEGIN");
    assert_int_equal(FPC_BUSY, fpc_pin_new(pool, 0, &refused, &db_err));
    assert_string_equal("all 2 connections stayed in use (see maxconn)", db_err.message);
    fpc_pin_delete(a);
    a = pin(0); /* its place is free at once */
    do_script(a, "BEGIN");
    fpc_pin_delete(a);
    fpc_pin_delete(b);
    await_lent(0);
}

/* Deleted in the midst of a transaction: rolled back at once. */
static void test_delete_in_transaction(void **state) {
    (void)state;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    int pid = backend_of(p);
    fpc_pin_delete(p);
    await_lent(0);
    for (int i = 0;
         i < 20000 && db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) > 0; i++)
        pause_ms(1);
    assert_int_equal(0, rows());
}

/* Deleted in the midst of a statement: it is cancelled, and its answer is not waited for. */
static void test_delete_in_statement(void **state) {
    (void)state;
    fpc_request *request = NULL;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    int pid = backend_of(p);
    fpc_deadline late = fpc_deadline_in(600);
    assert_int_equal(FPC_OK, fpc_pin_script(p, queue, "SELECT pg_sleep(600)", late, &request, &db_err));
    assert_int_equal(FPC_OK, fpc_pin_script(p, queue, "COMMIT", late, &request, &db_err));
    db_await_busy(pid);
    fpc_pin_delete(p);
    assert_int_equal(FPC_INTERRUPTED, finish());
    assert_int_equal(FPC_CLOSED, finish()); /* what was not begun is not */
    await_lent(0);
    for (int i = 0;
         i < 20000 && db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) > 0; i++)
        pause_ms(1);
    assert_int_equal(0, rows());
}

static void test_expires(void **state) {
    (void)state;
    fpc_pin *p = pin(0.05);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    await_lent(0);
    assert_true(fpc_pin_is_broken(p));
    assert_int_equal(FPC_CLOSED, script(p, "COMMIT", 30));
    assert_string_equal("the transaction was rolled back: it asked nothing for 0.05 s", db_err.message);
    fpc_pin_delete(p);
    assert_int_equal(0, rows());
}

static void test_deadline(void **state) {
    (void)state;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    int pid = backend_of(p);
    assert_int_equal(FPC_TIMEOUT, script(p, "SELECT pg_sleep(600)", 0.05));
    assert_true(fpc_pin_is_broken(p));
    assert_int_not_equal(FPC_OK, script(p, "COMMIT", 30));
    fpc_pin_delete(p);
    await_lent(0);
    db_kill(pid); /* sessions of the product have a statement_timeout */
    assert_int_equal(0, rows());
}

static void test_lost(void **state) {
    (void)state;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    db_kill(backend_of(p));
    assert_int_equal(FPC_CONNECT, script(p, "COMMIT", 30));
    assert_true(fpc_pin_is_broken(p));
    fpc_pin_delete(p);
    await_lent(0);
    assert_int_equal(0, rows());
}

static void test_no_connection(void **state) {
    (void)state;
    fpc_request *request = NULL;
    fpc_pool_close(pool);
    assert_int_equal(FPC_CLOSED, fpc_pin_new(pool, 0, &(fpc_pin *){NULL}, &db_err));
    fpc_pool_delete(pool);
    fpc_pool_options options = {.max_connections = 1, .connect_timeout_s = 10};
    pool = fpc_pool_new(db_info("host=/nonexistent"), &options);
    fpc_pin *p = pin(0);
    assert_int_equal(FPC_OK, fpc_pin_connect(p, queue, SOON, &request, &db_err));
    assert_int_equal(FPC_CONNECT, finish());
    for (int i = 0; i < 20000 && !fpc_pin_is_broken(p); i++) pause_ms(1);
    assert_int_equal(FPC_CONNECT, script(p, "BEGIN", 30)); /* it is over, and says why */
    fpc_pin_delete(p);
}

static void test_full_queue(void **state) {
    (void)state;
    fpc_completions *small = NULL;
    fpc_request *request = NULL;
    assert_int_equal(FPC_OK, fpc_completions_new(1, &small, &db_err));
    fpc_pin *p = pin(0);
    assert_int_equal(FPC_OK, fpc_pin_script(p, small, "SELECT pg_sleep(600)", SOON, &request, &db_err));
    assert_int_equal(FPC_BUSY, fpc_pin_script(p, small, "SELECT 1", SOON, &request, &db_err));
    fpc_pin_delete(p);
    fpc_completions_delete(small); /* before the answer */
    await_lent(0);
}

/* Given up before its turn: it is not sent. */
static void test_abandoned(void **state) {
    (void)state;
    fpc_request *slow = NULL, *given_up = NULL;
    fpc_pin *p = pin(0);
    assert_int_equal(FPC_OK, fpc_pin_script(p, queue, "SELECT pg_sleep(0.1)", SOON, &slow, &db_err));
    assert_int_equal(FPC_OK, fpc_pin_script(p, queue, "INSERT INTO t VALUES (1)", SOON, &given_up, &db_err));
    fpc_request_abandon(given_up);
    assert_int_equal(FPC_OK, finish());
    do_script(p, "INSERT INTO t VALUES (2)");
    assert_int_equal(2, db_admin_number("SELECT sum(n) FROM t"));
    fpc_pin_delete(p);
    await_lent(0);
}

/* The pool goes first: the pin's thread ends by itself, and frees it. */
static void test_pool_goes_first(void **state) {
    (void)state;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    fpc_pool_delete(pool);
    pool = NULL;
    do_script(p, "COMMIT");
    assert_int_equal(1, rows());
    fpc_pin_delete(p);
}

static void test_fork(void **state) {
    (void)state;
    if (TSAN) skip();
    fpc_request *request = NULL;
    fpc_pin *p = pin(0);
    do_script(p, "BEGIN; INSERT INTO t VALUES (1)");
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        bool is_over = fpc_pin_is_broken(p) && !fpc_pin_in_transaction(p) &&
                       fpc_pin_script(p, queue, "COMMIT", SOON, &request, &db_err) == FPC_CLOSED;
        fpc_pin_delete(p);
        fpc_pin *own = NULL; /* and one of its own works */
        bool works = fpc_pin_new(pool, 0, &own, &db_err) == FPC_OK && script(own, "SELECT 1", 30) == FPC_OK;
        fpc_pin_delete(own);
        _exit(is_over && works ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(pid, waitpid(pid, &status, 0));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    do_script(p, "COMMIT");
    assert_int_equal(1, rows());
    fpc_pin_delete(p);
    await_lent(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_orders, make, drop),
        cmocka_unit_test_setup_teardown(test_error, make, drop),
        cmocka_unit_test_setup_teardown(test_place, make, drop),
        cmocka_unit_test_setup_teardown(test_delete_in_transaction, make, drop),
        cmocka_unit_test_setup_teardown(test_delete_in_statement, make, drop),
        cmocka_unit_test_setup_teardown(test_expires, make, drop),
        cmocka_unit_test_setup_teardown(test_deadline, make, drop),
        cmocka_unit_test_setup_teardown(test_lost, make, drop),
        cmocka_unit_test_setup_teardown(test_no_connection, make, drop),
        cmocka_unit_test_setup_teardown(test_full_queue, make, drop),
        cmocka_unit_test_setup_teardown(test_abandoned, make, drop),
        cmocka_unit_test_setup_teardown(test_pool_goes_first, make, drop),
        cmocka_unit_test_setup_teardown(test_fork, make, drop),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
