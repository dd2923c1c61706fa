/* pipeline_writes_test.c -- writes that wait travel as one statement: whose answer is whose, what fails
 * alone, and what two engines do to each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "db.h"
#include "fpcache/result.h"
#include "requests.h"
#include "server.h"

static fpc_pipeline *engine;
static fpc_completions *queue;
static fpc_statement *put;

static const fpc_pipeline_options OPTIONS = {
    .readers = 1, .silence_s = 30, .connect_timeout_s = 10, .conn = {.prepared = true}};

#define TO_TABLE                                                                                             \
    " ON CONFLICT (k) DO UPDATE SET n = excluded.n, at = nextval('t_at_seq'), x = txid_current() RETURNING "

/* Key, number, and what is added to it: the statement for many has no such thing. */
static fpc_statement *make_put(void) {
    static const uint32_t TYPES[] = {FPC_OID_BYTEA, FPC_OID_FLOAT8, FPC_OID_FLOAT8};
    static const uint32_t MANY_TYPES[] = {FPC_OID_BYTEA_ARRAY, FPC_OID_FLOAT8_ARRAY};
    fpc_statement *many = fpc_statement_new("INSERT INTO t (k, n) SELECT unnest($1), unnest($2)" TO_TABLE
                                            "k, coalesce(n, -1)::bigint",
                                            MANY_TYPES, 2, false);
    fpc_statement *single = fpc_statement_new(
        "INSERT INTO t (k, n) VALUES ($1, $2 + coalesce($3, 0))" TO_TABLE "coalesce(n, -1)::bigint", TYPES, 3,
        false);
    fpc_statement_set_many(single, many, 0);
    fpc_statement_delete(many);
    return single;
}

static int make(void **state) {
    (void)state;
    db_admin("DROP TABLE IF EXISTS t; CREATE TABLE t (k bytea PRIMARY KEY, n float8, at serial, "
             "x bigint DEFAULT txid_current())");
    engine = requests_engine(db_info(NULL), &OPTIONS);
    queue = requests_queue(1000);
    put = make_put();
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_completions_delete(queue);
    fpc_statement_delete(put);
    return 0;
}

static fpc_pipeline_stats stats(void) {
    fpc_pipeline_stats s;
    fpc_pipeline_get_stats(engine, &s);
    return s;
}

/* Submits without kicking; a negative number is NULL, `more` 0 too. */
static fpc_request *send_to(fpc_pipeline *to, fpc_completions *answers, const char *key, int number, int more,
                            fpc_deadline deadline) {
    fpc_params params;
    fpc_request *request = NULL;
    fpc_params_init(&params);
    fpc_params_bytes(&params, key, strlen(key));
    if (number < 0)
        fpc_params_null(&params);
    else
        fpc_params_double(&params, number);
    if (more == 0)
        fpc_params_null(&params);
    else
        fpc_params_double(&params, more);
    assert_int_equal(FPC_OK, fpc_pipeline_submit(to, answers, put, &params, deadline, &request, &db_err));
    return request;
}

static fpc_request *send_put(const char *key, int number, int more) {
    return send_to(engine, queue, key, number, more, SOON);
}

static int place_of(fpc_request **sent, const fpc_request *request) {
    int n = 0;
    while (sent[n] != request) n++;
    return n;
}

static void put_one(const char *key) {
    send_put(key, 1, 0);
    fpc_request_delete(requests_next(engine, queue));
}

/* Few statements, in each of them the keys in order and once; the later one of a key wins. */
static void test_merged(void **state) {
    (void)state;
    enum { COUNT = 200 };
    fpc_request *sent[COUNT];
    char key[20];
    put_one("warm");
    uint64_t groups = stats().groups;
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "k%d", i * 37 % 100);
        sent[i] = send_put(key, i % 11 == 0 ? -1 : i, i == 150 ? 1000 : 0);
    }
    for (int i = 0; i < COUNT; i++) {
        fpc_request *request = requests_next(engine, queue);
        int n = place_of(sent, request);
        assert_int_equal(n % 11 == 0 ? -1 : n == 150 ? 1150 : n, requests_number(request));
        fpc_request_delete(request);
    }
    assert_true(stats().merged >= COUNT / 2);
    assert_true(stats().groups - groups <= COUNT / 2);
    assert_int_equal(101, db_admin_number("SELECT count(*) FROM t"));
    assert_int_equal(91, db_admin_number("SELECT count(*) FROM t WHERE n >= 100")); /* and 9 times NULL */
    assert_int_equal(
        0, db_admin_number("SELECT count(*) FROM (SELECT at - lag(at) OVER (PARTITION BY x ORDER BY k) AS d "
                           "FROM t) AS steps WHERE d < 0"));
}

/* A write alone does not wait for company, and what comes meanwhile goes with the next statement. */
static void test_gathered_while_one_is_under_way(void **state) {
    (void)state;
    char key[20];
    put_one("locked");
    uint64_t groups = stats().groups;
    fpc_conn *locker = db_open();
    db_script(locker, "BEGIN; SELECT 1 FROM t WHERE k = 'locked' FOR UPDATE");
    send_put("locked", 2, 0);
    fpc_pipeline_kick(engine);
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof key, "k%d", i);
        send_put(key, i, 0);
        fpc_pipeline_kick(engine);
    }
    db_script(locker, "COMMIT");
    for (int i = 0; i < 51; i++) fpc_request_delete(requests_next(engine, queue));
    assert_true(stats().groups - groups <= 3); /* the first, the statement for many to prepare, and it */
    assert_int_equal(51, db_admin_number("SELECT count(*) FROM t"));
    fpc_conn_delete(locker);
}

/* Nobody waits for it any more, and it was not sent yet: it does not happen. */
static void test_abandoned_while_it_waits(void **state) {
    (void)state;
    put_one("locked");
    fpc_conn *locker = db_open();
    db_script(locker, "BEGIN; SELECT 1 FROM t WHERE k = 'locked' FOR UPDATE");
    fpc_request *first = send_put("locked", 2, 0);
    fpc_pipeline_kick(engine);
    fpc_request *gone = send_put("gone", 3, 0), *kept = send_put("kept", 4, 0);
    fpc_pipeline_kick(engine);
    fpc_request_abandon(gone);
    db_script(locker, "COMMIT");
    fpc_request *expected[] = {first, kept};
    for (int i = 0; i < 2; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_ptr_equal(expected[i], request);
        assert_int_equal(FPC_OK, requests_status(request));
        fpc_request_delete(request);
    }
    assert_int_equal(1, stats().dropped);
    assert_int_equal(0, db_admin_number("SELECT count(*) FROM t WHERE k = 'gone'"));
    assert_int_equal(0, fpc_completions_outstanding(queue));
    fpc_conn_delete(locker);
}

static void check_one_fails(int culprit, int count, const char *sqlstate) {
    fpc_request *sent[100];
    char key[20];
    put_one("warm");
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "k%d", i);
        sent[i] = send_put(key, i, 0);
    }
    for (int i = 0; i < count; i++) {
        fpc_request *request = requests_next(engine, queue);
        int n = place_of(sent, request);
        if (n == culprit) {
            assert_int_not_equal(FPC_OK, requests_status(request));
            assert_string_equal(sqlstate, db_err.sqlstate);
        } else {
            assert_int_equal(n, requests_number(request));
        }
        fpc_request_delete(request);
    }
    assert_true(stats().merged > 0);
    assert_int_equal(count, db_admin_number("SELECT count(*) FROM t"));
}

/* What one of them may not do the others are not told. */
static void test_one_fails(void **state) {
    (void)state;
    db_admin("ALTER TABLE t ADD CHECK (n IS DISTINCT FROM 7)");
    check_one_fails(7, 40, "23514");
}

/* ... also when it shows at the commit: nothing was reported before. */
static void test_one_fails_at_the_commit(void **state) {
    (void)state;
    db_admin("DROP TABLE IF EXISTS allowed CASCADE; CREATE TABLE allowed (n float8 PRIMARY KEY);"
             "INSERT INTO allowed SELECT i FROM generate_series(0, 100) AS i WHERE i <> 7;"
             "ALTER TABLE t ADD FOREIGN KEY (n) REFERENCES allowed DEFERRABLE INITIALLY DEFERRED");
    check_one_fails(7, 40, "23503");
    db_admin("DROP TABLE allowed CASCADE");
}

/* Neither statement can be prepared: all hear the reason. */
static void test_all_fail(void **state) {
    (void)state;
    enum { COUNT = 20 };
    char key[20];
    db_admin("ALTER TABLE t RENAME TO t2");
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "k%d", i);
        send_put(key, i, 0);
    }
    for (int i = 0; i < COUNT; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(FPC_SCHEMA, requests_status(request));
        assert_string_equal("42P01", db_err.sqlstate);
        fpc_request_delete(request);
    }
    db_admin("ALTER TABLE t2 RENAME TO t");
    put_one("k1"); /* it is not refused for ever */
    assert_int_equal(1, db_admin_number("SELECT count(*) FROM t"));
    assert_int_equal(1, stats().opened);
}

/* What is sent again is not sent after what came later. */
static void test_order_after_a_failure(void **state) {
    (void)state;
    enum { KEYS = 40 };
    db_admin("ALTER TABLE t ADD CHECK (n IS DISTINCT FROM 7)");
    char key[20];
    put_one("warm");
    for (int i = 0; i < 2 * KEYS; i++) {
        snprintf(key, sizeof key, "k%d", i % KEYS);
        send_put(key, i < KEYS ? i : i + 100, i == KEYS + 3 ? 1000 : 0); /* the last is no plain one */
    }
    int failed = 0;
    for (int i = 0; i < 2 * KEYS; i++) {
        fpc_request *request = requests_next(engine, queue);
        failed += requests_status(request) != FPC_OK;
        fpc_request_delete(request);
    }
    assert_int_equal(1, failed);
    assert_int_equal(KEYS, db_admin_number("SELECT count(*) FROM t WHERE n > 100"));
}

/* ... whatever statement that is. */
static void test_order_among_kinds(void **state) {
    (void)state;
    fpc_statement *add = requests_key_statement("UPDATE t SET n = n + $2 WHERE k = $1", false);
    db_admin("ALTER TABLE t ADD CHECK (n IS DISTINCT FROM 7)");
    put_one("locked");
    put_one("k3");
    fpc_conn *locker = db_open();
    db_script(locker, "BEGIN; SELECT 1 FROM t WHERE k = 'locked' FOR UPDATE");
    send_put("locked", 2, 0);
    fpc_pipeline_kick(engine);
    char key[20];
    for (int i = 0; i < 10; i++) { /* they wait for the first */
        snprintf(key, sizeof key, "k%d", i);
        send_put(key, i, 0);
    }
    requests_send_key(engine, queue, add, "k3", 1000);
    fpc_pipeline_kick(engine);
    db_script(locker, "COMMIT");
    int failed = 0;
    for (int i = 0; i < 12; i++) {
        fpc_request *request = requests_next(engine, queue);
        failed += requests_status(request) != FPC_OK;
        fpc_request_delete(request);
    }
    assert_int_equal(1, failed);
    assert_int_equal(1003, db_admin_number("SELECT n::bigint FROM t WHERE k = 'k3'"));
    fpc_conn_delete(locker);
    fpc_statement_delete(add);
}

/* One that no longer waits is skipped among the answers. */
static void test_one_gives_up(void **state) {
    (void)state;
    put_one("k1");
    put_one("k2");
    fpc_conn *locker = db_open();
    db_script(locker, "BEGIN; SELECT 1 FROM t WHERE k = 'k2' FOR UPDATE");
    fpc_request *sent[] = {send_put("k3", 3, 0), send_to(engine, queue, "k1", 1, 0, fpc_deadline_in(0.3)),
                           send_put("k2", 2, 0), send_put("k0", 0, 0)};
    fpc_request *late = requests_next(engine, queue);
    assert_ptr_equal(sent[1], late);
    assert_int_equal(FPC_TIMEOUT, requests_status(late));
    fpc_request_delete(late);
    db_script(locker, "COMMIT");
    for (int i = 0; i < 3; i++) {
        fpc_request *request = requests_next(engine, queue);
        static const int NUMBERS[] = {3, 1, 2, 0};
        assert_int_equal(NUMBERS[place_of(sent, request)], requests_number(request));
        fpc_request_delete(request);
    }
    fpc_conn_delete(locker);
}

/* Two engines that write the same keys in opposite orders never lock each other out. */
static void test_no_deadlocks(void **state) {
    (void)state;
    enum { ROUNDS = 20, KEYS = 60 };
    fpc_pipeline *other = requests_engine(db_info(NULL), &OPTIONS);
    fpc_completions *others = requests_queue(1000);
    char key[20];
    put_one("warm");
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < KEYS; i++) {
            snprintf(key, sizeof key, "k%02d", i);
            send_put(key, i, 0);
            snprintf(key, sizeof key, "k%02d", KEYS - 1 - i);
            send_to(other, others, key, i, 0, SOON);
        }
        fpc_pipeline_kick(other);
        for (int i = 0; i < KEYS; i++) {
            fpc_request *mine = requests_next(engine, queue), *theirs = requests_next(other, others);
            assert_int_equal(FPC_OK, requests_status(mine));
            assert_int_equal(FPC_OK, requests_status(theirs));
            fpc_request_delete(mine);
            fpc_request_delete(theirs);
        }
    }
    assert_true(stats().merged > 0);
    assert_int_equal(
        0, db_admin_number("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"));
    fpc_pipeline_delete(other);
    fpc_completions_delete(others);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_merged),
        TEST(test_gathered_while_one_is_under_way),
        TEST(test_abandoned_while_it_waits),
        TEST(test_one_fails),
        TEST(test_one_fails_at_the_commit),
        TEST(test_all_fail),
        TEST(test_order_after_a_failure),
        TEST(test_order_among_kinds),
        TEST(test_one_gives_up),
        TEST(test_no_deadlocks),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
