/* db.c -- short words for tests. */
#include "db.h"
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

fpc_error db_err;

static void ok(fpc_status status) {
    if (status != FPC_OK) fail_msg("%s: %s", fpc_status_name(status), db_err.message);
}

fpc_conninfo *db_info(const char *settings) {
    fpc_conninfo *info = fpc_conninfo_new();
    assert_non_null(info);
    if (settings != NULL) ok(fpc_conninfo_parse(info, settings, &db_err));
    ok(fpc_conninfo_parse(info, server_url(), &db_err));
    return info;
}

fpc_conninfo *db_info_port(int port) {
    char settings[80];
    snprintf(settings, sizeof settings, "host=127.0.0.1 port=%d sslmode=disable gssencmode=disable", port);
    return db_info(settings);
}

static fpc_conn *open_and_drop(fpc_conninfo *info) {
    fpc_conn *conn = NULL;
    fpc_status status = fpc_conn_open(info, &(fpc_conn_options){.prepared = true}, SOON, &conn, &db_err);
    fpc_conninfo_delete(info);
    ok(status);
    return conn;
}

fpc_conn *db_open(void) {
    return open_and_drop(db_info(NULL));
}

fpc_conn *db_open_port(int port) {
    return open_and_drop(db_info_port(port));
}

void db_script(fpc_conn *conn, const char *sql) {
    ok(fpc_conn_script(conn, sql, SOON, NULL, &db_err));
}

int64_t db_number(fpc_conn *conn, const char *sql) {
    fpc_result *result = NULL;
    ok(fpc_conn_query(conn, sql, 0, NULL, SOON, &result, &db_err));
    int64_t value = -1;
    size_t length;
    if (fpc_result_rows(result) > 0) value = strtoll(fpc_result_bytes(result, 0, 0, &length), NULL, 10);
    fpc_result_delete(result);
    return value;
}

static int64_t admin_number(const char *sql) {
    fpc_conn *conn = db_open();
    int64_t value = db_number(conn, sql);
    fpc_conn_delete(conn);
    return value;
}

void db_admin(const char *format, ...) {
    char sql[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    fpc_conn *conn = db_open();
    db_script(conn, sql);
    fpc_conn_delete(conn);
}

int64_t db_admin_number(const char *format, ...) {
    char sql[1000];
    va_list args;
    va_start(args, format);
    vsnprintf(sql, sizeof sql, format, args);
    va_end(args);
    return admin_number(sql);
}

static int64_t first_and_drop(fpc_result *result) {
    int64_t value = fpc_result_rows(result) > 0 && fpc_result_columns(result) > 0
                        ? fpc_result_int64(result, 0, 0)
                        : fpc_result_affected(result);
    fpc_result_delete(result);
    return value;
}

int64_t db_run(fpc_conn *conn, const fpc_statement *statement) {
    fpc_params none = {0};
    fpc_result *result = NULL;
    ok(fpc_conn_exec(conn, statement, &none, SOON, &result, &db_err));
    return first_and_drop(result);
}

int64_t db_pool_run(fpc_pool *pool, const fpc_statement *statement) {
    fpc_params none = {0};
    fpc_result *result = NULL;
    ok(fpc_pool_exec(pool, statement, &none, SOON, &result, &db_err));
    return first_and_drop(result);
}

fpc_status db_try(fpc_conn *conn, const fpc_statement *statement) {
    fpc_params none = {0};
    fpc_result *result = NULL;
    fpc_status status = fpc_conn_exec(conn, statement, &none, SOON, &result, &db_err);
    if (status == FPC_OK) fpc_result_delete(result);
    return status;
}

static fpc_statement *statement(const char *sql, bool read_only) {
    fpc_statement *made = fpc_statement_new(sql, NULL, 0, read_only);
    assert_non_null(made);
    return made;
}

fpc_statement *db_statement(const char *sql) {
    return statement(sql, true);
}

fpc_statement *db_write_statement(const char *sql) {
    return statement(sql, false);
}

int db_backend_pid(fpc_conn *conn) {
    return (int)db_number(conn, "SELECT pg_backend_pid()");
}

/* Asks until the answer is `wanted`; 30 s at most. */
static void await(int64_t wanted, const char *sql) {
    fpc_conn *conn = db_open();
    fpc_deadline deadline = SOON;
    while (db_number(conn, sql) != wanted) {
        if (fpc_deadline_passed(deadline)) fail_msg("waited in vain: %s", sql);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    fpc_conn_delete(conn);
}

void db_kill(int pid) {
    char sql[120];
    db_admin("SELECT pg_terminate_backend(%d)", pid);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid);
    await(0, sql);
}

void db_await_busy(int pid) {
    char sql[160];
    snprintf(sql, sizeof sql,
             "SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND state = 'active' AND wait_event IS "
             "NOT NULL",
             pid);
    await(1, sql);
}
