/* connect_test.c -- opening a connection: to nobody, to the deaf, to a real server; session SQL. */
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
#include "fpcache/wait.h"
#include "proxy.h"
#include "server.h"

static fpc_conn_options options;
static fpc_conn *conn;

static int clean(void **state) {
    (void)state;
    fpc_conn_delete(conn);
    conn = NULL;
    options = (fpc_conn_options){.prepared = true};
    memset(&db_err, 0, sizeof db_err);
    return 0;
}

static fpc_status open_by(const char *settings, double seconds) {
    fpc_conninfo *info = db_info(settings);
    fpc_status status = fpc_conn_open(info, &options, fpc_deadline_in(seconds), &conn, &db_err);
    fpc_conninfo_delete(info);
    return status;
}

static double seconds_since(int64_t start) {
    return (double)(fpc_clock_ns() - start) / 1e9;
}

/* A free port of 127.0.0.1 with a listener that never accepts; the kernel does. */
static int listen_deaf(int *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(0, bind(fd, (struct sockaddr *)&address, size));
    assert_int_equal(0, listen(fd, 5));
    assert_int_equal(0, getsockname(fd, (struct sockaddr *)&address, &size));
    *port = ntohs(address.sin_port);
    return fd;
}

static void opens_and_tells_about_itself(void **state) {
    (void)state;
    int64_t before = fpc_clock_ns();
    assert_int_equal(FPC_OK, open_by(NULL, 10));
    assert_true(fpc_conn_opened_ns(conn) >= before && fpc_conn_opened_ns(conn) <= fpc_clock_ns());
    assert_string_equal("postgres", fpc_conn_user(conn));
    assert_int_equal(db_number(conn, "SHOW server_version_num"), fpc_conn_server_version(conn));
    assert_false(fpc_conn_is_broken(conn));
    assert_false(fpc_conn_in_transaction(conn));
    assert_false(fpc_conn_is_inherited(conn));
    assert_true(fpc_conn_is_alive(conn));
}

static void a_server_that_never_answers_ends_at_the_deadline(void **state) {
    (void)state;
    int port, fd = listen_deaf(&port);
    char settings[80];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d", port);
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_CONNECT, open_by(settings, 0.2));
    assert_true(seconds_since(start) >= 0.19 && seconds_since(start) < 5);
    assert_non_null(strstr(db_err.message, "no answer from 127.0.0.1"));
    assert_null(conn);
    close(fd);
}

static void a_passed_deadline_opens_nothing(void **state) {
    (void)state;
    int port, fd = listen_deaf(&port);
    char settings[80];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d", port);
    assert_int_equal(FPC_CONNECT, open_by(settings, 0));
    assert_int_equal(FPC_CONNECT, open_by(settings, -1));
    close(fd);
}

static void a_refused_port_is_told_at_once(void **state) {
    (void)state;
    int port, fd = listen_deaf(&port);
    close(fd);
    char settings[80];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d", port);
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_CONNECT, open_by(settings, 20));
    assert_true(seconds_since(start) < 5);
    assert_non_null(strstr(db_err.message, "refused"));
    assert_null(strchr(db_err.message, '\n'));
}

static void no_socket_is_told_at_once(void **state) {
    (void)state;
    assert_int_equal(FPC_CONNECT, open_by("host=/nonexistent", 20));
    assert_non_null(strstr(db_err.message, "/nonexistent"));
}

static void a_wrong_password_is_auth(void **state) {
    (void)state;
    assert_int_equal(FPC_AUTH, open_by("user=pw_user password=hunter2", 10));
    assert_string_equal("28P01", db_err.sqlstate);
    assert_int_equal(FPC_AUTH, db_err.status);
    assert_null(strstr(db_err.message, "hunter2"));
    assert_null(strstr(db_err.message, "auth.c")); /* libpq's verbose words */
    assert_null(conn);
    assert_int_equal(FPC_OK, open_by("user=pw_user password=right", 10));
}

static void no_password_where_one_is_asked_for_is_auth(void **state) {
    (void)state;
    assert_int_equal(FPC_AUTH, open_by("user=pw_user passfile=/nonexistent", 10));
}

static void an_unknown_role_is_auth(void **state) {
    (void)state;
    assert_int_equal(FPC_AUTH, open_by("user=nobody_such", 10));
    assert_string_equal("28000", db_err.sqlstate);
}

static void an_unknown_database_is_connect(void **state) {
    (void)state;
    assert_int_equal(FPC_CONNECT, open_by("dbname=no_such_db", 10));
    assert_string_equal("3D000", db_err.sqlstate);
    assert_non_null(strstr(db_err.message, "no_such_db"));
}

static void a_database_without_the_right_to_connect_is_denied(void **state) {
    (void)state;
    assert_int_equal(FPC_DENIED, open_by("dbname=private user=plain", 10));
    assert_string_equal("42501", db_err.sqlstate);
}

static void a_full_server_is_connect(void **state) {
    (void)state;
    assert_int_equal(FPC_CONNECT, open_by("dbname=crowded user=plain", 10)); /* CONNECTION LIMIT 0 */
    assert_string_equal("53300", db_err.sqlstate);
}

static void the_second_host_is_tried(void **state) {
    (void)state;
    char settings[120];
    snprintf(settings, sizeof settings, "host=/nonexistent,%s", server_folder());
    assert_int_equal(FPC_OK, open_by(settings, 10));
    fpc_conn_delete(conn);
    conn = NULL;
    snprintf(settings, sizeof settings, "host=/nonexistent,%s user=pw_user password=x", server_folder());
    assert_int_equal(FPC_AUTH, open_by(settings, 10));
    assert_string_equal("28P01", db_err.sqlstate);
}

static void a_server_lost_during_the_handshake_is_connect(void **state) {
    (void)state;
    proxy *p = proxy_start(server_socket_path());
    proxy_cut_after(p, 1);
    char settings[80];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d sslmode=disable", proxy_port(p));
    assert_int_equal(FPC_CONNECT, open_by(settings, 10));
    proxy_stop(p);
}

/* --- session SQL --- */

static void session_sql_runs_before_anything_else(void **state) {
    (void)state;
    options.session_sql = "SET lock_timeout = 1234; SET statement_timeout = 777";
    assert_int_equal(FPC_OK, open_by(NULL, 10));
    assert_int_equal(777,
                     db_number(conn, "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"));
    assert_int_equal(1234, db_number(conn, "SELECT setting FROM pg_settings WHERE name = 'lock_timeout'"));
}

static void failing_session_sql_opens_nothing(void **state) {
    (void)state;
    options.session_sql = "SET no_such_setting = 1";
    assert_int_equal(FPC_SERVER, open_by(NULL, 10));
    assert_string_equal("42704", db_err.sqlstate);
    assert_null(conn);
}

/* Nothing of the caller's was sent yet, so nothing of his is in doubt. */
static void session_sql_without_an_answer_is_connect(void **state) {
    (void)state;
    options.session_sql = "SELECT pg_sleep(30)";
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_CONNECT, open_by(NULL, 0.3));
    assert_true(seconds_since(start) < 10);
    assert_null(strstr(db_err.message, "change"));
}

static void a_connection_lost_in_session_sql_is_connect(void **state) {
    (void)state;
    options.session_sql = "SELECT pg_terminate_backend(pg_backend_pid())";
    assert_int_equal(FPC_CONNECT, open_by(NULL, 10));
    assert_string_equal("57P01", db_err.sqlstate);
    options.session_sql = "SELECT repeat('x', 100000)";
    proxy *p = proxy_start(server_socket_path());
    proxy_cut_after(p, 50000); /* the handshake is shorter, the session's answer longer */
    char settings[80];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d sslmode=disable", proxy_port(p));
    assert_int_equal(FPC_CONNECT, open_by(settings, 10));
    assert_null(strstr(db_err.message, "may or may not"));
    proxy_stop(p);
}

static void an_interrupt_ends_the_opening(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_interrupt_enable(&db_err));
    fpc_interrupt_raise();
    fpc_status status = open_by(NULL, 10);
    fpc_interrupt_clear();
    assert_int_equal(FPC_INTERRUPTED, status);
    assert_null(conn);
}

static int start(void **state) {
    server_setup(state);
    db_admin("CREATE ROLE pw_user LOGIN PASSWORD 'right'; CREATE ROLE plain LOGIN");
    db_admin("CREATE DATABASE private");
    db_admin("REVOKE CONNECT ON DATABASE private FROM public");
    db_admin("CREATE DATABASE crowded CONNECTION LIMIT 0");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, clean, clean)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(opens_and_tells_about_itself),
        TEST(a_server_that_never_answers_ends_at_the_deadline),
        TEST(a_passed_deadline_opens_nothing),
        TEST(a_refused_port_is_told_at_once),
        TEST(no_socket_is_told_at_once),
        TEST(a_wrong_password_is_auth),
        TEST(no_password_where_one_is_asked_for_is_auth),
        TEST(an_unknown_role_is_auth),
        TEST(an_unknown_database_is_connect),
        TEST(a_database_without_the_right_to_connect_is_denied),
        TEST(a_full_server_is_connect),
        TEST(the_second_host_is_tried),
        TEST(a_server_lost_during_the_handshake_is_connect),
        TEST(session_sql_runs_before_anything_else),
        TEST(failing_session_sql_opens_nothing),
        TEST(session_sql_without_an_answer_is_connect),
        TEST(a_connection_lost_in_session_sql_is_connect),
        TEST(an_interrupt_ends_the_opening),
    };
    return cmocka_run_group_tests_name("connect", tests, start, server_teardown);
}
