/* loss_test.c -- sessions killed, links cut and stalled, servers stopped: what is lost, repeated, in doubt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "db.h"
#include "proxy.h"
#include "server.h"

#define MB ((size_t)1 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* Ends its own session the first time it is run after `restart`, and adds a row each time it gets through. */
#define KILL_ONCE                                                                                            \
    "CASE WHEN nextval('runs') = 1 THEN (SELECT 1 FROM (SELECT pg_terminate_backend(pg_backend_pid()), "     \
    "pg_sleep(30)) AS x) ELSE 7 END"

static proxy *link_to_server;
static fpc_pool *pool;
static fpc_conn *conn;
static fpc_statement *statement;
static fpc_result *result;
static fpc_params none;

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    link_to_server = proxy_start(server_socket_path());
    db_admin("TRUNCATE t; ALTER SEQUENCE runs RESTART");
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_result_delete(result);
    fpc_conn_delete(conn);
    fpc_pool_delete(pool);
    fpc_statement_delete(statement);
    proxy_stop(link_to_server);
    result = NULL;
    conn = NULL;
    pool = NULL;
    statement = NULL;
    return 0;
}

static void make_pool(bool through_proxy) {
    fpc_pool_options options = {.max_connections = 2, .connect_timeout_s = 10, .conn = {.prepared = true}};
    pool = fpc_pool_new(through_proxy ? db_info_port(proxy_port(link_to_server)) : db_info(NULL), &options);
    assert_non_null(pool);
}

static uint64_t opened(void) {
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    return stats.opened;
}

static int pool_pid(void) {
    fpc_conn *lent = NULL;
    assert_int_equal(FPC_OK, fpc_pool_acquire(pool, SOON, &lent, &db_err));
    int pid = db_backend_pid(lent);
    fpc_pool_release(pool, lent);
    return pid;
}

static fpc_status pool_try(double seconds) {
    fpc_result_delete(result);
    result = NULL;
    return fpc_pool_exec(pool, statement, &none, fpc_deadline_in(seconds), &result, &db_err);
}

static fpc_status conn_try(double seconds) {
    fpc_result_delete(result);
    result = NULL;
    return fpc_conn_exec(conn, statement, &none, fpc_deadline_in(seconds), &result, &db_err);
}

static void pause_ms(long ms) {
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static int64_t rows(void) {
    return db_admin_number("SELECT count(*) FROM t");
}

/* --- the server ends the session --- */

static void an_idle_session_killed_is_replaced(void **state) {
    (void)state;
    make_pool(false);
    int pid = pool_pid();
    db_kill(pid);
    int other = pool_pid();
    assert_int_not_equal(pid, other);
    assert_int_equal(other, pool_pid());
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(2, stats.opened);
    assert_int_equal(1, stats.closed_broken);
    assert_int_equal(1, stats.idle);
}

static void a_killed_session_is_seen_before_it_is_used(void **state) {
    (void)state;
    conn = db_open();
    assert_true(fpc_conn_is_alive(conn));
    db_kill(db_backend_pid(conn));
    assert_false(fpc_conn_is_alive(conn));
    assert_true(fpc_conn_is_broken(conn));
}

/* The word comes a moment before the end of the socket. */
static void a_session_that_said_its_end_is_dead_already(void **state) {
    (void)state;
    conn = db_open_port(proxy_port(link_to_server));
    int pid = db_backend_pid(conn);
    proxy_set(link_to_server, PROXY_KEEP_OPEN);
    long before = proxy_answered(link_to_server);
    db_kill(pid);
    while (proxy_answered(link_to_server) == before) pause_ms(1);
    for (int i = 0; i < 10000 && fpc_conn_is_alive(conn); i++) pause_ms(1); /* it is on its way */
    assert_false(fpc_conn_is_alive(conn));
}

/* Killed after the look: the statement was not executed, and the server says so. */
static void a_write_to_a_killed_session_is_connect(void **state) {
    (void)state;
    conn = db_open();
    db_kill(db_backend_pid(conn));
    statement = db_write_statement("INSERT INTO t VALUES (1)");
    assert_int_equal(FPC_CONNECT, conn_try(20));
    assert_string_equal("57P01", db_err.sqlstate);
    assert_int_equal(0, rows());
}

static void a_read_killed_is_repeated_once(void **state) {
    (void)state;
    make_pool(false);
    statement = db_statement("SELECT " KILL_ONCE "::bigint");
    assert_int_equal(7, db_pool_run(pool, statement));
    assert_int_equal(2, opened());
    assert_int_equal(2, db_admin_number("SELECT last_value FROM runs"));
}

static void a_read_killed_twice_is_connect(void **state) {
    (void)state;
    make_pool(false);
    statement = db_statement("SELECT nextval('runs'), pg_terminate_backend(pg_backend_pid()), pg_sleep(30)");
    assert_int_equal(FPC_CONNECT, pool_try(20));
    assert_int_equal(2, db_admin_number("SELECT last_value FROM runs"));
}

/* 57P01: the server rolled it back, so repeating it is safe. */
static void a_write_killed_by_the_server_is_repeated(void **state) {
    (void)state;
    make_pool(false);
    statement = db_write_statement("INSERT INTO t SELECT " KILL_ONCE);
    assert_int_equal(1, db_pool_run(pool, statement));
    assert_int_equal(1, rows());
    db_admin("TRUNCATE t; ALTER SEQUENCE runs RESTART");
    conn = db_open();
    assert_int_equal(FPC_CONNECT, conn_try(20));
    assert_string_equal("57P01", db_err.sqlstate);
    assert_true(fpc_conn_is_broken(conn));
    assert_int_equal(0, rows());
}

static void a_script_that_committed_before_its_end_is_in_doubt(void **state) {
    (void)state;
    conn = db_open();
    assert_int_equal(FPC_UNKNOWN,
                     fpc_conn_script(conn, "BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT " KILL_ONCE, SOON,
                                     NULL, &db_err));
    assert_int_equal(1, rows());
}

static void a_session_ended_while_idle_in_a_transaction_is_connect(void **state) {
    (void)state;
    conn = db_open();
    int pid = db_backend_pid(conn);
    db_script(conn, "SET idle_in_transaction_session_timeout = 500; BEGIN; INSERT INTO t VALUES (1)");
    while (db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) != 0) {
    }
    statement = db_write_statement("INSERT INTO t VALUES (2)");
    assert_int_equal(FPC_CONNECT, conn_try(20));
    assert_string_equal("25P03", db_err.sqlstate);
    assert_true(fpc_conn_is_broken(conn));
    assert_int_equal(0, rows());
}

static void a_server_stopped_and_started_again_needs_no_new_pool(void **state) {
    (void)state;
    make_pool(false);
    statement = db_statement("SELECT 7::bigint");
    assert_int_equal(7, db_pool_run(pool, statement));
    server_stop();
    for (int i = 0; i < 3; i++) assert_int_equal(FPC_CONNECT, pool_try(20));
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(0, stats.idle + stats.lent + stats.opening);
    assert_true(stats.open_failures >= 3);
    server_start();
    assert_int_equal(7, db_pool_run(pool, statement)); /* prepared anew, too */
    assert_int_equal(2, opened());
}

static void *stop_when_busy(void *pid) {
    db_await_busy(*(int *)pid);
    server_stop();
    return NULL;
}

static void a_server_stopped_under_a_write_wrote_nothing(void **state) {
    (void)state;
    conn = db_open();
    int pid = db_backend_pid(conn);
    statement = db_write_statement("INSERT INTO t SELECT 1 FROM pg_sleep(30)");
    pthread_t thread;
    assert_int_equal(0, pthread_create(&thread, NULL, stop_when_busy, &pid));
    fpc_status status = conn_try(25);
    pthread_join(thread, NULL);
    server_start();
    assert_int_equal(FPC_CONNECT, status);
    assert_int_equal(0, rows());
}

/* --- the link is cut --- */

static void a_read_cut_before_its_answer_is_repeated(void **state) {
    (void)state;
    make_pool(true);
    statement = db_statement("SELECT 7::bigint");
    assert_int_equal(7, db_pool_run(pool, statement)); /* connected and prepared */
    proxy_cut_after(link_to_server, 1);
    assert_int_equal(7, db_pool_run(pool, statement));
    assert_int_equal(2, opened());
    conn = db_open_port(proxy_port(link_to_server));
    assert_int_equal(FPC_OK, conn_try(20));
    proxy_cut_after(link_to_server, 1);
    assert_int_equal(FPC_CONNECT, conn_try(20));
    assert_true(fpc_conn_is_broken(conn));
}

static void an_answer_cut_in_its_middle_is_repeated(void **state) {
    (void)state;
    make_pool(true);
    statement = db_statement("SELECT g, repeat('x', 100) FROM generate_series(1, 5000) AS g");
    assert_int_equal(FPC_OK, pool_try(20));
    proxy_cut_after(link_to_server, 200000);
    assert_int_equal(FPC_OK, pool_try(20));
    assert_int_equal(5000, fpc_result_rows(result));
    assert_int_equal(2, opened());
}

/* The server executed it and answered, but the answer never came: nobody may repeat that. */
static void a_write_cut_before_its_answer_is_in_doubt_and_not_repeated(void **state) {
    (void)state;
    make_pool(true);
    statement = db_write_statement("INSERT INTO t VALUES (1)");
    assert_int_equal(1, db_pool_run(pool, statement));
    proxy_cut_after(link_to_server, 1);
    assert_int_equal(FPC_UNKNOWN, pool_try(20));
    assert_non_null(strstr(db_err.message, "may or may not"));
    assert_int_equal(2, rows());
    assert_int_equal(1, opened());
    assert_int_equal(1, db_pool_run(pool, statement)); /* the pool goes on */
    assert_int_equal(3, rows());
}

static void a_held_answer_that_is_cut_is_in_doubt(void **state) {
    (void)state;
    conn = db_open_port(proxy_port(link_to_server));
    statement = db_write_statement("INSERT INTO t VALUES (1)");
    assert_int_equal(FPC_OK, conn_try(20));
    proxy_set(link_to_server, PROXY_HOLD_ANSWERS);
    assert_int_equal(FPC_OK, fpc_conn_send(conn, statement, &none, SOON, &db_err));
    proxy_await_held(link_to_server);
    proxy_cut(link_to_server);
    fpc_result_delete(result);
    result = NULL;
    assert_int_equal(FPC_UNKNOWN, fpc_conn_receive(conn, SOON, &result, &db_err));
    assert_int_equal(2, rows());
}

/* In a transaction nothing has happened before COMMIT, and a COMMIT without an answer is in doubt. */
static void a_cut_in_a_transaction_is_connect_and_at_its_commit_unknown(void **state) {
    (void)state;
    statement = db_write_statement("INSERT INTO t VALUES (1)");
    for (int commits = 0; commits < 2; commits++) {
        conn = db_open_port(proxy_port(link_to_server));
        db_script(conn, "BEGIN");
        assert_int_equal(FPC_OK, conn_try(20));
        proxy_cut_after(link_to_server, 1);
        if (commits)
            assert_int_equal(FPC_UNKNOWN, fpc_conn_script(conn, "COMMIT", SOON, NULL, &db_err));
        else
            assert_int_equal(FPC_CONNECT, conn_try(20));
        fpc_conn_delete(conn);
        conn = NULL;
        assert_int_equal(commits, rows());
    }
}

/* Preparing changes nothing, so a cut in its answer puts nothing in doubt. */
static void a_cut_while_preparing_a_write_is_connect(void **state) {
    (void)state;
    conn = db_open_port(proxy_port(link_to_server));
    statement = db_write_statement("INSERT INTO t VALUES (1)");
    proxy_cut_after(link_to_server, 1);
    assert_int_equal(FPC_CONNECT, conn_try(20));
    assert_int_equal(0, rows());
    fpc_conn_delete(conn);
    conn = NULL;
    make_pool(true);
    pool_pid(); /* connected, not prepared */
    proxy_cut_after(link_to_server, 1);
    assert_int_equal(1, db_pool_run(pool, statement));
    assert_int_equal(1, rows());
}

/* What the server said before the cut stands: it did not execute it. */
static void an_error_before_the_cut_is_the_answer(void **state) {
    (void)state;
    conn = db_open_port(proxy_port(link_to_server));
    long before = proxy_answered(link_to_server);
    assert_int_equal(FPC_SERVER, fpc_conn_script(conn, "SELECT 1 / 0", SOON, NULL, &db_err));
    long length = proxy_answered(link_to_server) - before;
    proxy_cut_after(link_to_server, length - 3); /* in the message behind the error */
    assert_int_equal(FPC_SERVER, fpc_conn_script(conn, "SELECT 1 / 0", SOON, NULL, &db_err));
    assert_string_equal("22012", db_err.sqlstate);
    assert_true(fpc_conn_is_broken(conn));
}

/* Whether a thread of ours sleeps now. */
static bool sleeps(pid_t thread) {
    char path[64], text[256] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *file = fopen(path, "r");
    if (file == NULL) return false;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    const char *name_end = length == 0 ? NULL : strrchr(text, ')');
    return name_end != NULL && strncmp(name_end, ") S", 3) == 0;
}

/* The writer waits for the stalled link when it goes on sleeping: then it learns of the cut by reading.
 * (A cut that meets it while it writes libpq takes for sent, which leaves the change in doubt.) */
static void *cut_when_stalled(void *writer) {
    while (!proxy_stalls(link_to_server)) pause_ms(1);
    for (int asleep = 0; asleep < 20; asleep = sleeps(*(pid_t *)writer) ? asleep + 1 : 0) pause_ms(2);
    proxy_cut(link_to_server);
    proxy_set(link_to_server, PROXY_PASS);
    return NULL;
}

/* The server never had the whole statement: surely not executed, and the pool may repeat it. */
static void a_write_cut_while_it_is_sent_is_connect(void **state) {
    (void)state;
    const uint32_t bytea[] = {FPC_OID_BYTEA};
    statement = fpc_statement_new("INSERT INTO t SELECT length($1)", bytea, 1, false);
    size_t size = 64 * MB;
    char *big = calloc(1, size);
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, big, size);
    conn = db_open_port(proxy_port(link_to_server));
    pthread_t thread;
    pid_t self = gettid();
    proxy_stall_after(link_to_server, (long)MB);
    assert_int_equal(0, pthread_create(&thread, NULL, cut_when_stalled, &self));
    fpc_status status = fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err);
    pthread_join(thread, NULL);
    assert_int_equal(FPC_CONNECT, status);
    assert_int_equal(0, rows());
    make_pool(true);
    proxy_stall_after(link_to_server, (long)MB);
    assert_int_equal(0, pthread_create(&thread, NULL, cut_when_stalled, &self));
    status = fpc_pool_exec(pool, statement, &params, SOON, &result, &db_err);
    pthread_join(thread, NULL);
    assert_int_equal(FPC_OK, status);
    free(big);
    assert_int_equal(1, rows());
    assert_int_equal(2, opened());
}

/* --- the link is slow --- */

static void a_stalled_link_ends_at_the_deadline_and_is_replaced(void **state) {
    (void)state;
    make_pool(true);
    statement = db_statement("SELECT 7::bigint");
    assert_int_equal(7, db_pool_run(pool, statement));
    proxy_set(link_to_server, PROXY_STALL);
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_TIMEOUT, pool_try(0.1));
    assert_true(fpc_clock_ns() - start < 10 * FPC_NS_PER_SECOND);
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    assert_int_equal(0, stats.idle + stats.lent);
    assert_int_equal(FPC_CONNECT, pool_try(0.1)); /* nobody answers a new connection */
    proxy_set(link_to_server, PROXY_PASS);
    assert_int_equal(7, db_pool_run(pool, statement));
}

static void a_big_statement_on_a_stalled_link_ends_at_the_deadline(void **state) {
    (void)state;
    const uint32_t bytea[] = {FPC_OID_BYTEA};
    statement = fpc_statement_new("INSERT INTO t SELECT length($1)", bytea, 1, false);
    char *big = calloc(1, 16 * MB);
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, big, 4);
    conn = db_open_port(proxy_port(link_to_server));
    assert_int_equal(FPC_OK, fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err));
    fpc_params_init(&params);
    fpc_params_bytes(&params, big, 16 * MB);
    proxy_set(link_to_server, PROXY_STALL);
    assert_int_equal(FPC_TIMEOUT, fpc_conn_send(conn, statement, &params, fpc_deadline_in(0.1), &db_err));
    assert_true(fpc_conn_is_broken(conn));
    free(big);
}

/* Whoever talks for ever holds nobody for ever. */
static void endless_notices_end_at_the_deadline(void **state) {
    (void)state;
    conn = db_open_port(proxy_port(link_to_server));
    proxy_flood(link_to_server, LONG_MAX);
    assert_true(fpc_conn_is_alive(conn));
    statement = db_statement("SELECT 7::bigint");
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_TIMEOUT, conn_try(0.2));
    assert_true(fpc_clock_ns() - start < 10 * FPC_NS_PER_SECOND);
}

/* A server that reads on only when it was listened to: both would wait for each other. */
static void sending_does_not_wait_for_a_server_that_wants_to_be_read(void **state) {
    (void)state;
    const uint32_t bytea[] = {FPC_OID_BYTEA};
    statement = fpc_statement_new("SELECT length($1)::bigint", bytea, 1, true);
    char *big = calloc(1, 16 * MB);
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, big, 16 * MB);
    conn = db_open_port(proxy_port(link_to_server));
    proxy_flood(link_to_server, (long)(32 * MB));
    assert_int_equal(FPC_OK, fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err));
    assert_int_equal(16 * MB, fpc_result_int64(result, 0, 0));
    free(big);
}

static void sixty_four_megabytes_go_both_ways(void **state) {
    (void)state;
    const uint32_t bytea[] = {FPC_OID_BYTEA};
    statement = fpc_statement_new("SELECT $1", bytea, 1, true);
    size_t size = 64 * MB, length;
    char *big = malloc(size);
    for (size_t i = 0; i < size; i++) big[i] = (char)(i * 2654435761u >> 13);
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, big, size);
    conn = db_open_port(proxy_port(link_to_server));
    assert_int_equal(FPC_OK, fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err));
    const char *back = fpc_result_bytes(result, 0, 0, &length);
    assert_int_equal(size, length);
    assert_int_equal(0, memcmp(big, back, size));
    free(big);
}

static void refused_memory_is_told(void **state) {
    (void)state;
    if (SANITIZED) skip(); /* sanitizers reserve what they may use */
    const uint32_t bytea[] = {FPC_OID_BYTEA};
    statement = fpc_statement_new("INSERT INTO t SELECT length($1)", bytea, 1, false);
    char *big = calloc(1, 256 * MB);
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, big, 256 * MB);
    conn = db_open();
    long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    assert_int_equal(1, fscanf(statm, "%ld", &pages));
    fclose(statm);
    struct rlimit old, low;
    getrlimit(RLIMIT_AS, &old);
    low = old;
    low.rlim_cur = (rlim_t)pages * (rlim_t)getpagesize() + 32 * MB;
    setrlimit(RLIMIT_AS, &low);
    fpc_status status = fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err);
    setrlimit(RLIMIT_AS, &old);
    free(big);
    assert_int_equal(FPC_NOMEM, status);
    assert_true(fpc_conn_is_broken(conn));
    assert_int_equal(0, rows());
}

static int start(void **state) {
    server_setup(state);
    db_admin("CREATE TABLE t (a int); CREATE SEQUENCE runs");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_idle_session_killed_is_replaced),
        TEST(a_killed_session_is_seen_before_it_is_used),
        TEST(a_session_that_said_its_end_is_dead_already),
        TEST(a_write_to_a_killed_session_is_connect),
        TEST(a_read_killed_is_repeated_once),
        TEST(a_read_killed_twice_is_connect),
        TEST(a_write_killed_by_the_server_is_repeated),
        TEST(a_script_that_committed_before_its_end_is_in_doubt),
        TEST(a_session_ended_while_idle_in_a_transaction_is_connect),
        TEST(a_server_stopped_and_started_again_needs_no_new_pool),
        TEST(a_server_stopped_under_a_write_wrote_nothing),
        TEST(a_read_cut_before_its_answer_is_repeated),
        TEST(an_answer_cut_in_its_middle_is_repeated),
        TEST(a_write_cut_before_its_answer_is_in_doubt_and_not_repeated),
        TEST(a_held_answer_that_is_cut_is_in_doubt),
        TEST(a_cut_in_a_transaction_is_connect_and_at_its_commit_unknown),
        TEST(a_cut_while_preparing_a_write_is_connect),
        TEST(an_error_before_the_cut_is_the_answer),
        TEST(a_write_cut_while_it_is_sent_is_connect),
        TEST(a_stalled_link_ends_at_the_deadline_and_is_replaced),
        TEST(a_big_statement_on_a_stalled_link_ends_at_the_deadline),
        TEST(endless_notices_end_at_the_deadline),
        TEST(sending_does_not_wait_for_a_server_that_wants_to_be_read),
        TEST(sixty_four_megabytes_go_both_ways),
        TEST(refused_memory_is_told),
    };
    return cmocka_run_group_tests_name("loss", tests, start, server_teardown);
}
