/* conn_test.c -- statements on one connection: halves, prepared names, statuses, what breaks it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "db.h"
#include "fpcache/wait.h"
#include "server.h"

static fpc_conn *conn;
static fpc_statement *statement; /* deleted after each test */
static fpc_result *result;

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    conn = db_open();
    db_script(conn, "DROP TABLE IF EXISTS t; CREATE TABLE t (a int, b int); INSERT INTO t VALUES (1, 2)");
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_result_delete(result);
    fpc_statement_delete(statement);
    fpc_conn_delete(conn);
    result = NULL;
    statement = NULL;
    conn = NULL;
    return 0;
}

static void use(const char *sql, bool read_only) {
    fpc_statement_delete(statement);
    statement = fpc_statement_new(sql, NULL, 0, read_only);
    assert_non_null(statement);
}

static fpc_status send_it(fpc_deadline deadline) {
    fpc_params none = {0};
    return fpc_conn_send(conn, statement, &none, deadline, &db_err);
}

static fpc_status receive_it(fpc_deadline deadline) {
    fpc_result_delete(result);
    result = NULL;
    return fpc_conn_receive(conn, deadline, &result, &db_err);
}

/* A caller's own SQL: its status. */
static fpc_status query(const char *sql) {
    fpc_result *out = NULL;
    fpc_status status = fpc_conn_query(conn, sql, 0, NULL, SOON, &out, &db_err);
    if (status == FPC_OK) fpc_result_delete(out);
    return status;
}

static fpc_status ours(const char *sql) {
    use(sql, false);
    return db_try(conn, statement);
}

static int64_t names(void) {
    return db_number(conn, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'fpc\\_%'");
}

/* --- two halves --- */

static void an_answer_is_sent_for_and_received(void **state) {
    (void)state;
    use("SELECT 7::bigint", true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(FPC_OK, send_it(SOON));
        assert_true(fpc_conn_in_transaction(conn)); /* busy: nobody else may have it */
        assert_int_equal(FPC_OK, receive_it(SOON));
        assert_int_equal(7, fpc_result_int64(result, 0, 0));
        assert_false(fpc_conn_in_transaction(conn));
    }
}

static void a_second_send_is_refused_and_harms_nothing(void **state) {
    (void)state;
    use("SELECT 7::bigint", true);
    assert_int_equal(FPC_OK, send_it(SOON));
    assert_int_equal(FPC_INVALID, send_it(SOON));
    assert_int_equal(FPC_INVALID, query("SELECT 8"));
    assert_int_equal(FPC_INVALID, fpc_conn_script(conn, "SELECT 8", SOON, NULL, &db_err));
    assert_int_equal(FPC_OK, receive_it(SOON));
    assert_int_equal(7, fpc_result_int64(result, 0, 0));
    assert_false(fpc_conn_is_broken(conn));
}

static void nothing_sent_is_nothing_to_receive(void **state) {
    (void)state;
    db_script(conn, "SELECT 1");
    assert_int_equal(FPC_INVALID, receive_it(SOON));
    assert_false(fpc_conn_is_broken(conn));
    assert_int_equal(1, db_number(conn, "SELECT 1"));
}

static void a_receive_past_the_deadline_breaks_the_connection(void **state) {
    (void)state;
    use("SELECT pg_sleep(30)", true);
    assert_int_equal(FPC_OK, send_it(SOON));
    assert_int_equal(FPC_TIMEOUT, receive_it(fpc_deadline_in(0.05)));
    assert_null(strstr(db_err.message, "change"));
    assert_true(fpc_conn_is_broken(conn));
    assert_false(fpc_conn_is_alive(conn));
    assert_int_equal(FPC_CONNECT, receive_it(SOON));
    assert_int_equal(FPC_CONNECT, send_it(SOON));
    assert_int_equal(FPC_CONNECT, query("SELECT 1"));
}

static void a_write_past_the_deadline_may_still_happen(void **state) {
    (void)state;
    int pid = db_backend_pid(conn);
    fpc_params none = {0};
    use("INSERT INTO t SELECT 3, 4 FROM pg_sleep(30)", false);
    assert_int_equal(FPC_TIMEOUT,
                     fpc_conn_exec(conn, statement, &none, fpc_deadline_in(0.1), &result, &db_err));
    assert_non_null(strstr(db_err.message, "the change may still happen"));
    assert_true(fpc_conn_is_broken(conn));
    assert_null(result);
    db_kill(pid); /* it goes on, with a lock on the table */
}

static void *interrupt_busy(void *pid) {
    db_await_busy(*(int *)pid);
    fpc_interrupt_raise();
    return NULL;
}

static void an_interrupt_ends_a_statement(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_interrupt_enable(&db_err));
    int pid = db_backend_pid(conn);
    pthread_t thread;
    assert_int_equal(0, pthread_create(&thread, NULL, interrupt_busy, &pid));
    int64_t start = fpc_clock_ns();
    fpc_status status = query("SELECT pg_sleep(30)");
    pthread_join(thread, NULL);
    bool raised = fpc_interrupt_raised();
    fpc_interrupt_clear();
    assert_int_equal(FPC_INTERRUPTED, status);
    assert_true(raised);
    assert_true(fpc_clock_ns() - start < 10 * FPC_NS_PER_SECOND);
    assert_true(fpc_conn_is_broken(conn));
}

/* --- prepared statements --- */

static void a_statement_is_prepared_once(void **state) {
    (void)state;
    use("SELECT a::bigint FROM t", true);
    for (int i = 0; i < 5; i++) assert_int_equal(1, db_run(conn, statement));
    assert_int_equal(1, names());
    char sql[200];
    snprintf(sql, sizeof sql,
             "SELECT generic_plans + custom_plans FROM pg_prepared_statements WHERE name = '%s'",
             statement->name);
    if (fpc_conn_server_version(conn) >= 140000) assert_int_equal(5, db_number(conn, sql));
    fpc_statement *same = db_statement("SELECT a::bigint FROM t"); /* made anew, the same to the server */
    assert_string_equal(same->name, statement->name);
    assert_int_equal(1, db_run(conn, same));
    assert_int_equal(1, names());
    fpc_statement_delete(same);
    use("SELECT b::bigint FROM t", true);
    assert_int_equal(2, db_run(conn, statement));
    assert_int_equal(2, names());
}

static void types_are_part_of_a_statements_name(void **state) {
    (void)state;
    const uint32_t int8[] = {FPC_OID_INT8}, text[] = {FPC_OID_TEXT};
    fpc_statement *a = fpc_statement_new("SELECT $1", int8, 1, true);
    fpc_statement *b = fpc_statement_new("SELECT $1", text, 1, true);
    assert_string_not_equal(a->name, b->name);
    assert_true(a->id != 0 && b->id != 0 && strlen(a->name) == 20);
    fpc_statement_delete(a);
    fpc_statement_delete(b);
    fpc_statement_delete(NULL);
}

static void many_statements_are_all_remembered(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100; i++) {
            char sql[40];
            snprintf(sql, sizeof sql, "SELECT %d::bigint", i);
            use(sql, true);
            assert_int_equal(i, db_run(conn, statement));
        }
    }
    assert_int_equal(100, names());
}

static void without_prepared_no_names_are_left(void **state) {
    (void)state;
    fpc_conn_delete(conn);
    fpc_conninfo *info = db_info(NULL);
    assert_int_equal(FPC_OK,
                     fpc_conn_open(info, &(fpc_conn_options){.prepared = false}, SOON, &conn, &db_err));
    fpc_conninfo_delete(info);
    use("SELECT a::bigint FROM t", true);
    for (int i = 0; i < 3; i++) assert_int_equal(1, db_run(conn, statement));
    assert_int_equal(0, db_number(conn, "SELECT count(*) FROM pg_prepared_statements"));
}

static void forgotten_names_are_prepared_anew(void **state) {
    (void)state;
    const char *const how[] = {"DEALLOCATE ALL", "DISCARD ALL"};
    fpc_statement *other = db_statement("SELECT b::bigint FROM t");
    use("SELECT a::bigint FROM t", true);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(1, db_run(conn, statement));
        assert_int_equal(2, db_run(conn, other));
        db_script(conn, how[i]);
        assert_int_equal(1, db_run(conn, statement));
        assert_int_equal(2, db_run(conn, other));
        assert_int_equal(2, names());
    }
    fpc_statement_delete(other);
}

static void a_changed_table_is_prepared_anew(void **state) {
    (void)state;
    use("SELECT a FROM t", true);
    assert_int_equal(1, db_run(conn, statement));
    db_admin("ALTER TABLE t ALTER a TYPE bigint");
    assert_int_equal(1, db_run(conn, statement));
    assert_int_equal(FPC_OK, send_it(SOON));
    assert_int_equal(FPC_OK, receive_it(SOON));
    assert_int_equal(FPC_OID_INT8, fpc_result_oid(result, 0));
}

/* In a transaction it cannot be mended, but the next transaction must find all in order. */
static void a_stale_name_in_a_transaction_fails_that_one_only(void **state) {
    (void)state;
    fpc_statement *other = db_statement("SELECT b::bigint FROM t");
    use("SELECT a FROM t", true);
    assert_int_equal(1, db_run(conn, statement));
    assert_int_equal(2, db_run(conn, other));
    const char *const how[] = {"ALTER TABLE t ALTER a TYPE bigint", "DEALLOCATE ALL"};
    for (int i = 0; i < 2; i++) {
        db_script(conn, how[i]);
        db_script(conn, "BEGIN");
        assert_int_equal(FPC_SERVER, db_try(conn, statement));
        db_script(conn, "ROLLBACK");
        for (int again = 0; again < 2; again++) {
            db_script(conn, "BEGIN");
            assert_int_equal(2, db_run(conn, other));
            assert_int_equal(1, db_run(conn, statement));
            db_script(conn, "COMMIT");
        }
    }
    db_script(conn, "ALTER TABLE t ALTER a TYPE int; BEGIN; SAVEPOINT s");
    assert_int_equal(FPC_SERVER, db_try(conn, statement));
    db_script(conn, "ROLLBACK TO s");
    assert_int_equal(1, db_run(conn, statement));
    db_script(conn, "COMMIT");
    fpc_statement_delete(other);
}

/* Another's name on a pooler's session: same name, same text. */
static void a_name_that_exists_already_is_used(void **state) {
    (void)state;
    char sql[100];
    use("SELECT 7::bigint", true);
    snprintf(sql, sizeof sql, "PREPARE %s AS SELECT 7::bigint", statement->name);
    db_script(conn, sql);
    assert_int_equal(7, db_run(conn, statement));
}

static void a_statement_that_cannot_be_prepared_leaves_the_connection_well(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(FPC_SERVER, ours("SELEKT 1"));
        assert_string_equal("42601", db_err.sqlstate);
        fpc_params none = {0};
        assert_int_equal(FPC_SERVER,
                         fpc_conn_exec(conn, statement, &none, SOON, &result, NULL)); /* no error asked */
    }
    assert_int_equal(0, names());
    assert_int_equal(FPC_OK, ours("SELECT 1"));
}

/* --- statuses --- */

static void errors_of_ours_say_what_to_do(void **state) {
    (void)state;
    assert_int_equal(FPC_SCHEMA, ours("SELECT * FROM no_such_table"));
    assert_string_equal("42P01", db_err.sqlstate);
    assert_non_null(strstr(db_err.message, "fpcache admin setup"));
    assert_int_equal(FPC_SCHEMA, ours("SELECT no_such_function()"));
    assert_int_equal(FPC_SCHEMA, ours("SELECT no_such_column FROM t"));
    assert_int_equal(FPC_INVALID, ours("SELECT 9223372036854775807 + 1"));
    assert_string_equal("22003", db_err.sqlstate);
    assert_int_equal(FPC_SERVER, ours("DO $$ BEGIN RAISE unique_violation; END $$"));
    db_script(conn, "SET ROLE plain");
    assert_int_equal(FPC_DENIED, ours("SELECT * FROM t"));
    assert_string_equal("42501", db_err.sqlstate);
    assert_non_null(strstr(db_err.message, "--grant"));
    assert_false(fpc_conn_is_broken(conn));
}

static void errors_of_a_callers_sql_are_the_callers(void **state) {
    (void)state;
    const char *const sql[] = {"SELECT * FROM no_such_table", "SELECT no_such_function()", "SELECT 1 / 0",
                               "SELECT 9223372036854775807 + 1"};
    for (size_t i = 0; i < sizeof sql / sizeof *sql; i++) {
        assert_int_equal(FPC_SERVER, query(sql[i]));
        assert_null(strstr(db_err.message, "fpcache"));
    }
    db_script(conn, "SET ROLE plain");
    assert_int_equal(FPC_SERVER, query("SELECT * FROM t"));
    assert_string_equal("42501", db_err.sqlstate);
}

/* An error of another server behind this one is no word on this connection. */
static void only_the_end_of_the_session_is_a_lost_connection(void **state) {
    (void)state;
    const char *const states[] = {"08001", "08006", "57P01", "57P03", "53300", "3D000", "28P01"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        char sql[100];
        snprintf(sql, sizeof sql, "DO $$ BEGIN RAISE EXCEPTION 'far away' USING ERRCODE = '%s'; END $$",
                 states[i]);
        assert_int_equal(FPC_SERVER, ours(sql));
        assert_string_equal(states[i], db_err.sqlstate);
        assert_int_equal(FPC_SERVER, query(sql));
        assert_false(fpc_conn_is_broken(conn));
    }
    assert_int_equal(FPC_OK, query("SELECT 1"));
}

static void a_message_is_one_line_without_values(void **state) {
    (void)state;
    assert_int_equal(FPC_SERVER, query("DO $$ BEGIN RAISE EXCEPTION E'one\\ntwo'; END $$"));
    assert_null(strchr(db_err.message, '\n'));
    assert_int_equal(FPC_INVALID, ours("SELECT a::text::int + 'hunter2'::text::int FROM t"));
    assert_string_equal("22P02", db_err.sqlstate);
    assert_null(strstr(db_err.message, "hunter2"));
    assert_int_equal(FPC_SERVER, query("SELECT a + 'mine'::text::int FROM t"));
    assert_non_null(strstr(db_err.message, "mine")); /* his own words are shown to him */
}

static void a_lock_not_had_in_time_is_timeout(void **state) {
    (void)state;
    fpc_conn *holder = db_open();
    db_script(holder, "BEGIN; LOCK TABLE t");
    db_script(conn, "SET lock_timeout = 20");
    assert_int_equal(FPC_TIMEOUT, ours("INSERT INTO t VALUES (5, 5)"));
    assert_string_equal("55P03", db_err.sqlstate);
    assert_int_equal(FPC_TIMEOUT, query("INSERT INTO t VALUES (5, 5)"));
    assert_false(fpc_conn_is_broken(conn));
    fpc_conn_delete(holder);
}

static void a_statement_cancelled_by_the_server_is_timeout(void **state) {
    (void)state;
    db_script(conn, "SET statement_timeout = 20");
    assert_int_equal(FPC_TIMEOUT, ours("SELECT pg_sleep(30)"));
    assert_string_equal("57014", db_err.sqlstate);
    assert_false(fpc_conn_is_broken(conn));
    assert_int_equal(1, db_number(conn, "SELECT 1"));
}

static void *lock_other_way(void *arg) {
    fpc_conn *other = arg;
    fpc_error err;
    fpc_statement *second = fpc_statement_new("UPDATE d SET v = v + 1 WHERE id = 1", NULL, 0, false);
    fpc_params none = {0};
    fpc_result *out = NULL;
    fpc_status status = fpc_conn_exec(other, second, &none, SOON, &out, &err);
    if (status == FPC_OK) fpc_result_delete(out);
    fpc_statement_delete(second);
    return (void *)(intptr_t)status;
}

static void a_deadlock_is_conflict(void **state) {
    (void)state;
    db_script(conn, "DROP TABLE IF EXISTS d; CREATE TABLE d (id int PRIMARY KEY, v int);"
                    "INSERT INTO d VALUES (1, 0), (2, 0)");
    fpc_conn *other = db_open();
    db_script(conn, "BEGIN; UPDATE d SET v = 1 WHERE id = 1");
    db_script(other, "BEGIN; UPDATE d SET v = 2 WHERE id = 2");
    pthread_t thread;
    assert_int_equal(0, pthread_create(&thread, NULL, lock_other_way, other));
    fpc_status mine = ours("UPDATE d SET v = v + 1 WHERE id = 2");
    if (mine != FPC_OK) db_script(conn, "ROLLBACK"); /* lets the other one go on */
    void *theirs;
    pthread_join(thread, &theirs);
    assert_true((mine == FPC_CONFLICT) != ((intptr_t)theirs == FPC_CONFLICT)); /* one of the two */
    assert_true(mine == FPC_OK || (intptr_t)theirs == FPC_OK);
    fpc_conn_delete(other);
}

static void a_serialization_failure_is_conflict(void **state) {
    (void)state;
    db_script(conn, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM t");
    db_admin("UPDATE t SET b = b + 1");
    assert_int_equal(FPC_CONFLICT, ours("UPDATE t SET b = b + 1"));
    assert_string_equal("40001", db_err.sqlstate);
}

/* --- a caller's SQL, scripts --- */

static void a_query_takes_and_gives_text(void **state) {
    (void)state;
    const char *const values[] = {"5", NULL};
    assert_int_equal(FPC_OK, fpc_conn_query(conn, "SELECT $1::int + 1 AS six, $2::text AS none", 2, values,
                                            SOON, &result, &db_err));
    size_t length;
    assert_string_equal("six", fpc_result_name(result, 0));
    assert_string_equal("6", fpc_result_bytes(result, 0, 0, &length));
    assert_true(fpc_result_is_null(result, 0, 1));
    assert_int_equal(FPC_SERVER, query("SELECT 1; SELECT 2")); /* one statement only */
    assert_int_equal(FPC_OK, query(""));
}

static void of_a_script_the_last_answer_is_kept(void **state) {
    (void)state;
    assert_int_equal(
        FPC_OK, fpc_conn_script(conn, "INSERT INTO t VALUES (2, 2), (3, 3); SELECT 1; UPDATE t SET b = 0",
                                SOON, &result, &db_err));
    assert_int_equal(3, fpc_result_affected(result));
    assert_string_equal("UPDATE 3", fpc_result_command(result));
    assert_int_equal(FPC_SERVER, fpc_conn_script(conn, "INSERT INTO t VALUES (9, 9); SELECT 1 / 0; SELECT 2",
                                                 SOON, NULL, &db_err));
    assert_int_equal(3, db_number(conn, "SELECT count(*) FROM t")); /* all of it or nothing */
    assert_int_equal(FPC_OK, fpc_conn_script(conn, "", SOON, NULL, &db_err));
}

static void copy_is_refused(void **state) {
    (void)state;
    const char *const sql[] = {"COPY t FROM STDIN", "COPY t TO STDOUT",
                               "INSERT INTO t VALUES (7, 7); COPY t FROM STDIN"};
    for (int i = 0; i < 3; i++) {
        if (conn == NULL) conn = db_open();
        int64_t start = fpc_clock_ns();
        assert_int_equal(FPC_INVALID, fpc_conn_script(conn, sql[i], SOON, NULL, &db_err));
        assert_non_null(strstr(db_err.message, "COPY"));
        assert_true(fpc_conn_is_broken(conn)); /* libpq would wait for the copy */
        assert_true(fpc_clock_ns() - start < 10 * FPC_NS_PER_SECOND);
        fpc_conn_delete(conn);
        conn = NULL;
    }
    assert_int_equal(1, db_admin_number("SELECT count(*) FROM t"));
}

static void a_transaction_is_seen_in_each_of_its_states(void **state) {
    (void)state;
    assert_false(fpc_conn_in_transaction(conn));
    db_script(conn, "BEGIN");
    assert_true(fpc_conn_in_transaction(conn));
    assert_int_equal(FPC_SERVER, query("SELECT 1 / 0"));
    assert_true(fpc_conn_in_transaction(conn));
    assert_int_equal(FPC_OK, fpc_conn_script(conn, "COMMIT", SOON, &result, &db_err));
    assert_string_equal("ROLLBACK", fpc_result_command(result)); /* a failed one cannot be committed */
    assert_false(fpc_conn_in_transaction(conn));
}

static void a_statement_beyond_the_servers_limit_is_refused(void **state) {
    (void)state;
    size_t size = (size_t)1 << 30;
    char *zeros = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(zeros != MAP_FAILED);
    const uint32_t types[] = {FPC_OID_BYTEA, FPC_OID_BYTEA};
    statement = fpc_statement_new("SELECT length($1), length($2)", types, 2, true);
    fpc_params params;
    fpc_params_init(&params);
    fpc_params_bytes(&params, zeros, size / 2);
    fpc_params_bytes(&params, zeros, size / 2);
    assert_int_equal(FPC_INVALID, fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err));
    fpc_params_init(&params);
    fpc_params_bytes(&params, zeros, SIZE_MAX / 2); /* its length fits into no int */
    fpc_params_bytes(&params, zeros, 1);
    assert_int_equal(FPC_INVALID, fpc_conn_exec(conn, statement, &params, SOON, &result, &db_err));
    munmap(zeros, size);
    assert_false(fpc_conn_is_broken(conn));
    assert_int_equal(1, db_number(conn, "SELECT 1"));
}

static void nothing_is_deleted_twice(void **state) {
    (void)state;
    fpc_conn_delete(NULL);
    fpc_result_delete(NULL);
}

static int start(void **state) {
    server_setup(state);
    db_admin("CREATE ROLE plain LOGIN");
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(an_answer_is_sent_for_and_received),
        TEST(a_second_send_is_refused_and_harms_nothing),
        TEST(nothing_sent_is_nothing_to_receive),
        TEST(a_receive_past_the_deadline_breaks_the_connection),
        TEST(a_write_past_the_deadline_may_still_happen),
        TEST(an_interrupt_ends_a_statement),
        TEST(a_statement_is_prepared_once),
        TEST(types_are_part_of_a_statements_name),
        TEST(many_statements_are_all_remembered),
        TEST(without_prepared_no_names_are_left),
        TEST(forgotten_names_are_prepared_anew),
        TEST(a_changed_table_is_prepared_anew),
        TEST(a_stale_name_in_a_transaction_fails_that_one_only),
        TEST(a_name_that_exists_already_is_used),
        TEST(a_statement_that_cannot_be_prepared_leaves_the_connection_well),
        TEST(errors_of_ours_say_what_to_do),
        TEST(errors_of_a_callers_sql_are_the_callers),
        TEST(only_the_end_of_the_session_is_a_lost_connection),
        TEST(a_message_is_one_line_without_values),
        TEST(a_lock_not_had_in_time_is_timeout),
        TEST(a_statement_cancelled_by_the_server_is_timeout),
        TEST(a_deadlock_is_conflict),
        TEST(a_serialization_failure_is_conflict),
        TEST(a_query_takes_and_gives_text),
        TEST(of_a_script_the_last_answer_is_kept),
        TEST(copy_is_refused),
        TEST(a_transaction_is_seen_in_each_of_its_states),
        TEST(a_statement_beyond_the_servers_limit_is_refused),
        TEST(nothing_is_deleted_twice),
    };
    return cmocka_run_group_tests_name("conn", tests, start, server_teardown);
}
