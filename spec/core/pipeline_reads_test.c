/* pipeline_reads_test.c -- over how many connections reads travel, and those that wait as one statement: from
 * how many on, whose answer is whose, and what fails alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <stdio.h>

#include "db.h"
#include "requests.h"
#include "server.h"

#define MERGED 16 /* from so many on, as docs/pipeline.md says */

static fpc_pipeline *engine;
static fpc_completions *queue;
static fpc_statement *single, *other;

static const fpc_pipeline_options OPTIONS = {
    .readers = 1, .silence_s = 30, .connect_timeout_s = 10, .conn = {.prepared = true}};

static int make(void **state) {
    (void)state;
    static const uint32_t TYPES[] = {FPC_OID_BYTEA_ARRAY, FPC_OID_INT8};
    db_admin("DROP TABLE IF EXISTS t; CREATE TABLE t (k bytea PRIMARY KEY, n bigint);"
             "INSERT INTO t SELECT convert_to('k' || i, 'UTF8'), i FROM generate_series(0, 39) AS i");
    engine = requests_engine(db_info(NULL), &OPTIONS);
    queue = requests_queue(1000);
    fpc_statement *many =
        fpc_statement_new("SELECT k.i, t.n + 0 * (100 / ($2 - t.n)) FROM unnest($1) WITH ORDINALITY "
                          "AS k (key, i) JOIN t ON t.k = k.key",
                          TYPES, 2, true);
    single = requests_key_statement("SELECT n + 0 * (100 / ($2 - n)) FROM t WHERE k = $1", true);
    fpc_statement_set_many(single, many, 0);
    fpc_statement_delete(many);
    other = requests_key_statement("SELECT n FROM t WHERE k = $1 AND $2 = $2", true);
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_completions_delete(queue);
    fpc_statement_delete(single);
    fpc_statement_delete(other);
    return 0;
}

static fpc_pipeline_stats stats(void) {
    fpc_pipeline_stats s;
    fpc_pipeline_get_stats(engine, &s);
    return s;
}

/* Asks for `count` keys, each of them twice; `culprit` is the number that no row may have. */
static void ask(fpc_request **sent, int count, int culprit) {
    char key[20];
    for (int i = 0; i < count; i++) {
        snprintf(key, sizeof key, "k%d", i / 2 * 2); /* from 40 on there is none */
        sent[i] = requests_send_key(engine, queue, single, key, culprit);
    }
}

static int next_place(fpc_request **sent, fpc_request **request) {
    int n = 0;
    *request = requests_next(engine, queue);
    while (sent[n] != *request) n++;
    return n;
}

static void assert_answers(fpc_request **sent, int count) {
    for (int i = 0; i < count; i++) {
        fpc_request *request;
        int n = next_place(sent, &request);
        assert_int_equal(n < 40 ? n / 2 * 2 : -1, requests_number(request));
        fpc_request_delete(request);
    }
}

static void test_merged(void **state) {
    (void)state;
    enum { COUNT = 64 };
    fpc_request *sent[COUNT];
    for (int round = 0; round < 2; round++) {
        ask(sent, COUNT, -1);
        fpc_request_abandon(sent[3]);
        assert_answers(sent, COUNT - 1);
    }
    assert_true(stats().merged >= COUNT);
}

/* Fewer travel by themselves; the thread may take so many in two parts when it is awake, but not each time.
 */
static void test_from_how_many(void **state) {
    (void)state;
    fpc_request *sent[MERGED];
    for (int round = 0; round < 50; round++) {
        ask(sent, MERGED - 1, -1);
        assert_answers(sent, MERGED - 1);
    }
    assert_int_equal(0, stats().merged);
    for (int round = 0; round < 1000 && stats().merged == 0; round++) {
        ask(sent, MERGED, -1);
        assert_answers(sent, MERGED);
    }
    assert_int_equal(MERGED, stats().merged);
}

/* Nobody is blamed for another one: a merged statement that fails is taken apart. */
static void test_one_fails(void **state) {
    (void)state;
    enum { COUNT = 64, CULPRIT = 6 };
    fpc_request *sent[COUNT];
    uint64_t before = 0;
    for (int round = 0; round < 1000 && stats().merged < before + COUNT; round++) {
        before = stats().merged;
        ask(sent, COUNT, CULPRIT);
        for (int i = 0; i < COUNT; i++) {
            fpc_request *request;
            int n = next_place(sent, &request);
            if (n / 2 * 2 == CULPRIT) {
                assert_int_equal(FPC_INVALID, requests_status(request));
                assert_string_equal("22012", db_err.sqlstate);
            } else {
                assert_int_equal(n < 40 ? n / 2 * 2 : -1, requests_number(request));
            }
            fpc_request_delete(request);
        }
    }
    assert_true(stats().merged >= before + COUNT);
}

/* All of them for the same reason, for which none of the three statements can be prepared. */
static void test_all_fail(void **state) {
    (void)state;
    enum { COUNT = 64 };
    db_admin("ALTER TABLE t RENAME TO t2");
    for (int i = 0; i < COUNT; i++) requests_send_key(engine, queue, i == 0 ? other : single, "k2", 5);
    for (int i = 0; i < COUNT; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(FPC_SCHEMA, requests_status(request));
        assert_string_equal("42P01", db_err.sqlstate);
        fpc_request_delete(request);
    }
    db_admin("ALTER TABLE t2 RENAME TO t");
}

/* Behind eight that are not answered nobody has to stand; and there are never more than two. */
static void test_second_connection(void **state) {
    (void)state;
    enum { BUSY = 8 };
    fpc_pipeline_options options = OPTIONS;
    options.readers = 2;
    fpc_pipeline_delete(engine);
    engine = requests_engine(db_info(NULL), &options);
    fpc_statement *wait = requests_statement("SELECT $1 FROM pg_advisory_xact_lock_shared(72)", true);
    fpc_statement *twice = requests_statement("SELECT $1 * 2", true);
    fpc_statement *insert = requests_statement("INSERT INTO t VALUES ('', $1) RETURNING n", false);
    fpc_conn *locker = db_open();
    assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    assert_int_equal(1, requests_ask(engine, queue, wait, 1)); /* it is prepared: from now on no answers come */
    db_script(locker, "SELECT pg_advisory_lock(72)");
    for (int i = 0; i < 2 * BUSY; i++) {
        requests_send(engine, queue, wait, i, FPC_NEVER);
        fpc_pipeline_kick(engine);
        if (i + 1 != BUSY) continue;
        struct pollfd pause = {.fd = -1};
        for (int n = 0; n < 4000 && stats().opened < 2; n++) poll(&pause, 1, 5);
        assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    }
    assert_int_equal(7, requests_ask(engine, queue, insert, 7));
    assert_int_equal(3, stats().opened);
    assert_int_equal(0, stats().opening);
    fpc_conn_delete(locker);
    for (int i = 0; i < 2 * BUSY; i++) fpc_request_delete(requests_next(engine, queue));
    fpc_statement_delete(wait);
    fpc_statement_delete(twice);
    fpc_statement_delete(insert);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_merged),   TEST(test_from_how_many),     TEST(test_one_fails),
        TEST(test_all_fail), TEST(test_second_connection),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
