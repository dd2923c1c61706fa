/* pipeline_test.c -- the engine while the server is well: order, errors, deadlines, queues, threads, the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "db.h"
#include "requests.h"
#include "server.h"

#define MANY 10000

/* A statement that has its answer when we let go of the lock. */
#define LOCK    "SELECT pg_advisory_lock(71)"
#define WAIT    "SELECT $1 FROM pg_advisory_xact_lock_shared(71)"
#define WAITERS "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

static fpc_pipeline *engine;
static fpc_completions *queue;
static fpc_statement *twice, *divide, *nap, *insert, *select_key;

static const fpc_pipeline_options OPTIONS = {
    .readers = 2, .silence_s = 5, .connect_timeout_s = 10, .conn = {.prepared = true}};

static int make(void **state) {
    (void)state;
    db_admin("DROP TABLE IF EXISTS t; CREATE TABLE t (k bytea PRIMARY KEY, n bigint, at serial)");
    engine = requests_engine(db_info(NULL), &OPTIONS);
    queue = requests_queue(MANY);
    twice = requests_statement("SELECT $1 * 2", true);
    divide = requests_statement("SELECT 100 / $1", true);
    nap = requests_statement("SELECT $1 FROM pg_sleep($1 / 1000.0)", true);
    insert = requests_key_statement("INSERT INTO t (k, n) VALUES ($1, 100 / $2) RETURNING at", false);
    select_key = requests_key_statement("SELECT n FROM t WHERE k = $1 AND $2 = $2", true);
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_completions_delete(queue);
    fpc_statement *all[] = {twice, divide, nap, insert, select_key};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) fpc_statement_delete(all[i]);
    return 0;
}

static fpc_pipeline_stats stats(void) {
    fpc_pipeline_stats s;
    fpc_pipeline_get_stats(engine, &s);
    return s;
}

static void test_answers(void **state) {
    (void)state;
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    assert_int_equal(4, requests_ask(engine, queue, twice, 2));
    assert_int_equal(0, fpc_completions_outstanding(queue));
    assert_int_equal(1, stats().opened);
}

/* Every request gets its own answer, ten thousand at once. */
static void test_ten_thousand(void **state) {
    (void)state;
    static fpc_request *sent[MANY];
    for (int i = 0; i < MANY; i++) sent[i] = requests_send(engine, queue, twice, i, SOON);
    for (int i = 0; i < MANY; i++) {
        fpc_request *request = requests_next(engine, queue);
        int64_t answer = requests_number(request);
        assert_true(answer >= 0 && answer < 2 * MANY && sent[answer / 2] == request);
        sent[answer / 2] = NULL;
        fpc_request_delete(request);
    }
    assert_null(fpc_completions_next(queue));
}

static void test_full_queue(void **state) {
    (void)state;
    fpc_completions *small = requests_queue(3);
    fpc_params params;
    fpc_request *request = NULL;
    fpc_params_init(&params);
    fpc_params_int64(&params, 1);
    for (int i = 0; i < 3; i++) requests_send(engine, small, twice, i, SOON);
    assert_int_equal(FPC_BUSY, fpc_pipeline_submit(engine, small, twice, &params, SOON, &request, &db_err));
    assert_non_null(strstr(db_err.message, "pipeline_queue"));
    assert_int_equal(42, requests_ask(engine, queue, twice, 21)); /* another caller has room */
    fpc_request_delete(requests_next(engine, small));
    assert_int_equal(FPC_OK, fpc_pipeline_submit(engine, small, twice, &params, SOON, &request, &db_err));
    for (int i = 0; i < 3; i++) fpc_request_delete(requests_next(engine, small));
    fpc_completions_delete(small);
}

/* An error among many reads is the culprit's alone. */
static void test_error_among_reads(void **state) {
    (void)state;
    enum { COUNT = 200 };
    fpc_request *sent[COUNT];
    int zeros = 0, fine = 0;
    for (int i = 0; i < COUNT; i++) sent[i] = requests_send(engine, queue, divide, i % 10, SOON);
    for (int i = 0; i < COUNT; i++) {
        fpc_request *request = requests_next(engine, queue);
        fpc_status status = requests_status(request);
        int n = 0;
        while (sent[n] != request) n++;
        if (n % 10 == 0) {
            zeros++;
            assert_int_equal(FPC_INVALID, status);
            assert_string_equal("22012", db_err.sqlstate);
        } else {
            fine++;
            assert_int_equal(FPC_OK, status);
            assert_int_equal(100 / (n % 10), requests_number(request));
        }
        fpc_request_delete(request);
    }
    assert_int_equal(20, zeros);
    assert_int_equal(180, fine);
    assert_true(stats().resent > 0);
}

/* What is reported as written is there, whatever failed beside it; in the order of submission. */
static void test_error_among_writes(void **state) {
    (void)state;
    enum { COUNT = 100 };
    fpc_request *sent[COUNT];
    char key[20];
    int64_t last = 0;
    for (int i = 0; i < COUNT; i++) {
        snprintf(key, sizeof key, "k%d", i);
        sent[i] = requests_send_key(engine, queue, insert, key, i % 3);
    }
    for (int i = 0; i < COUNT; i++) {
        fpc_request *request = requests_next(engine, queue);
        fpc_status status = requests_status(request);
        int n = 0;
        while (sent[n] != request) n++;
        assert_int_equal(n % 3 == 0 ? FPC_INVALID : FPC_OK, status);
        if (status == FPC_OK) {
            assert_true(requests_number(request) > last);
            last = requests_number(request);
        }
        fpc_request_delete(request);
    }
    assert_int_equal(66, db_admin_number("SELECT count(*) FROM t"));
    assert_true(stats().groups >= COUNT); /* each has its own */
}

/* A success can still be taken back at the commit: it is reported only after it. */
static void test_commit_fails(void **state) {
    (void)state;
    db_admin("DROP TABLE IF EXISTS late; CREATE TABLE late (k bytea UNIQUE DEFERRABLE INITIALLY DEFERRED, n "
             "bigint)");
    fpc_statement *late = requests_key_statement("INSERT INTO late VALUES ($1, $2) RETURNING n", false);
    for (int i = 0; i < 4; i++) requests_send_key(engine, queue, late, i < 3 ? "same" : "other", i);
    for (int i = 0; i < 4; i++) {
        fpc_request *request = requests_next(engine, queue);
        fpc_status status = requests_status(request);
        assert_int_equal(i == 1 || i == 2, status != FPC_OK);
        if (status != FPC_OK) assert_string_equal("23505", db_err.sqlstate);
        fpc_request_delete(request);
    }
    assert_int_equal(2, db_admin_number("SELECT count(*) FROM late"));
    assert_int_equal(0, stats().lost);
    fpc_statement_delete(late);
}

static void test_each_write_has_its_sync(void **state) {
    (void)state;
    char key[20];
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof key, "k%d", i);
        requests_send_key(engine, queue, insert, key, 1);
    }
    for (int i = 0; i < 50; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(i + 1, requests_number(request));
        fpc_request_delete(request);
    }
    assert_int_equal(51, stats().groups); /* one more to prepare the statement */
}

/* A write is visible to a read that was asked for after its answer. */
static void test_reads_its_writes(void **state) {
    (void)state;
    char key[20];
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%d", i);
        requests_send_key(engine, queue, insert, key, 1);
        fpc_request_delete(requests_next(engine, queue));
        requests_send_key(engine, queue, select_key, key, 1);
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(100, requests_number(request));
        fpc_request_delete(request);
    }
}

static void test_refused_statement(void **state) {
    (void)state;
    fpc_statement *wrong = requests_statement("SELECT n FROM nowhere WHERE n = $1", true);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 10; i++) requests_send(engine, queue, i == 5 ? twice : wrong, i, SOON);
        int fine = 0;
        for (int i = 0; i < 10; i++) {
            fpc_request *request = requests_next(engine, queue);
            fpc_status status = requests_status(request);
            fine += status == FPC_OK;
            if (status != FPC_OK) {
                assert_int_equal(FPC_SCHEMA, status);
                assert_string_equal("42P01", db_err.sqlstate);
            }
            fpc_request_delete(request);
        }
        assert_int_equal(1, fine);
    }
    db_admin("CREATE TABLE nowhere (n bigint)");
    assert_int_equal(-1, requests_ask(engine, queue, wrong, 1)); /* it is not refused for ever */
    db_admin("DROP TABLE nowhere");
    fpc_statement_delete(wrong);
}

static void test_changed_table(void **state) {
    (void)state;
    db_admin("CREATE TABLE changing AS SELECT 7::bigint AS n");
    fpc_statement *all = requests_statement("SELECT * FROM changing WHERE $1 = $1", true);
    assert_int_equal(7, requests_ask(engine, queue, all, 1));
    db_admin("ALTER TABLE changing ADD COLUMN m text");
    assert_int_equal(7, requests_ask(engine, queue, all, 1));
    db_admin("DROP TABLE changing");
    fpc_statement_delete(all);
}

/* A new session is no better: three are tried, and the error is the server's. */
static void test_stale_for_ever(void **state) {
    (void)state;
    db_admin("CREATE OR REPLACE FUNCTION stale(n bigint) RETURNS bigint LANGUAGE plpgsql AS "
             "$$ BEGIN RAISE 'gone' USING ERRCODE = '26000'; END $$");
    fpc_statement *stale = requests_statement("SELECT stale($1)", true);
    requests_try(engine, queue, stale, 1, 30);
    assert_string_equal("26000", db_err.sqlstate);
    assert_int_equal(3, stats().opened);
    assert_int_equal(2, stats().resent);
    fpc_statement_delete(stale);
}

/* The server does not answer before the time is over, since it waits for us: it is the deadline that ends the
 * request, and it does so by itself. */
static void test_deadline(void **state) {
    (void)state;
    fpc_statement *wait = requests_statement(WAIT, true);
    fpc_conn *locker = db_open();
    db_script(locker, LOCK);
    fpc_deadline deadline = fpc_deadline_in(0.05);
    requests_send(engine, queue, wait, 1, deadline);
    fpc_request *request = requests_next(engine, queue);
    assert_true(fpc_clock_ns() >= deadline);
    assert_int_equal(FPC_TIMEOUT, requests_status(request));
    assert_string_equal("no answer from the server in time", db_err.message);
    fpc_request_delete(request);
    fpc_conn_delete(locker);
    assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    assert_int_equal(FPC_TIMEOUT, requests_try(engine, queue, twice, 1, -1)); /* passed before it was sent */
    assert_int_equal(2, stats().expired);
    fpc_statement_delete(wait);
}

/* 0: what time it is.  The clock is in place before the first thread and stays: the I/O thread may live on
 * for a moment when the last engine is gone. */
static _Atomic int64_t injected_now;

static int64_t injected(void) {
    int64_t now = atomic_load(&injected_now);
    if (now != 0) return now;
    struct timespec real;
    clock_gettime(CLOCK_MONOTONIC, &real);
    return (int64_t)real.tv_sec * FPC_NS_PER_SECOND + real.tv_nsec;
}

static int set_up(void **state) {
    fpc_clock_override(injected);
    return server_setup(state);
}

static int make_clocked(void **state) {
    make(state);
    fpc_pipeline_delete(engine);
    atomic_store(&injected_now, 1000 * FPC_NS_PER_SECOND);
    fpc_pipeline_options options = OPTIONS;
    options.silence_s = 1e6;
    engine = requests_engine(db_info(NULL), &options);
    return 0;
}

static int drop_clocked(void **state) {
    drop(state);
    atomic_store(&injected_now, 0);
    return 0;
}

/* To the nanosecond, and of two that wait only the one whose time it is. */
static void test_deadline_is_the_clocks(void **state) {
    (void)state;
    fpc_statement *wait = requests_statement(WAIT, true);
    fpc_conn *locker = db_open();
    db_script(locker, LOCK);
    fpc_deadline deadline = fpc_deadline_in(3600);
    requests_send(engine, queue, wait, 1, deadline + 1);
    fpc_request *due = requests_send(engine, queue, wait, 2, deadline);
    fpc_pipeline_kick(engine);
    /* They are at the server: for a connection that is being opened an hour would be too long. */
    for (int i = 0; i < 20000 && db_number(locker, WAITERS) < 1; i++) continue;
    /* A write gives the thread turns. */
    atomic_store(&injected_now, deadline - 1);
    fpc_request *early = requests_send_key(engine, queue, insert, "early", 1);
    fpc_request *request = requests_next(engine, queue);
    assert_ptr_equal(early, request);
    fpc_request_delete(request);
    assert_int_equal(0, stats().expired);
    atomic_store(&injected_now, deadline);
    fpc_request *late = requests_send_key(engine, queue, insert, "late", 1);
    for (int i = 0; i < 2; i++) {
        request = requests_next(engine, queue);
        assert_true(request == due || request == late);
        assert_int_equal(request == due ? FPC_TIMEOUT : FPC_OK, requests_status(request));
        fpc_request_delete(request);
    }
    assert_int_equal(1, stats().expired);
    fpc_conn_delete(locker);
    request = requests_next(engine, queue);
    assert_int_equal(1, requests_number(request));
    fpc_request_delete(request);
    fpc_statement_delete(wait);
}

static void test_abandoned(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) {
        fpc_request *request = requests_send(engine, queue, i == 50 ? nap : twice, 20, SOON);
        if (i != 99) fpc_request_abandon(request);
    }
    fpc_request *request = requests_next(engine, queue);
    assert_int_equal(40, requests_number(request));
    fpc_request_delete(request);
    for (int i = 0; i < 1000 && fpc_completions_outstanding(queue) > 0; i++) {
        assert_null(fpc_completions_next(queue));
        struct pollfd pause = {.fd = -1};
        poll(&pause, 1, 5);
    }
    assert_int_equal(0, fpc_completions_outstanding(queue));
}

/* Its answer is there, and is nobody's: who fetches next gets his own. */
static void test_abandoned_when_it_was_answered(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++) {
        fpc_request *unwanted = requests_send(engine, queue, twice, 100, SOON);
        fpc_pipeline_kick(engine);
        assert_int_equal(FPC_OK, fpc_completions_wait(queue, SOON, &db_err));
        fpc_request_abandon(unwanted);
        assert_int_equal(2 * i, requests_ask(engine, queue, twice, i));
    }
    assert_null(fpc_completions_next(queue));
    assert_int_equal(0, fpc_completions_outstanding(queue));
}

/* What was idle for longer than any silence has not been silent. */
static void test_idle_is_not_silent(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++) requests_send(engine, queue, twice, i, SOON);
        for (int i = 0; i < 20; i++) fpc_request_delete(requests_next(engine, queue));
        atomic_fetch_add(&injected_now, (int64_t)2e6 * FPC_NS_PER_SECOND);
    }
    assert_int_equal(0, stats().went_silent);
}

/* Ten thousand requests of one caller do not hold up the one of another, on the only connection. */
static void test_fair(void **state) {
    (void)state;
    fpc_pipeline_options options = OPTIONS;
    options.readers = 1;
    fpc_pipeline_delete(engine);
    engine = requests_engine(db_info(NULL), &options);
    fpc_completions *modest = requests_queue(10);
    assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    bool is_fair = false;
    /* The answer may be old when a busy machine lets us see it, but not each time. */
    for (int round = 0; round < 20 && !is_fair; round++) {
        uint64_t before = stats().finished;
        for (int i = 0; i < MANY; i++) requests_send(engine, queue, twice, i, SOON);
        assert_int_equal(42, requests_ask(engine, modest, twice, 21));
        is_fair = stats().finished - before < MANY - MANY / 10;
        for (int i = 0; i < MANY; i++) fpc_request_delete(requests_next(engine, queue));
    }
    assert_true(is_fair);
    fpc_completions_delete(modest);
}

/* A slow statement has a connection of its own. */
static void test_lanes(void **state) {
    (void)state;
    nap->slow = true;
    fpc_request *slow =
        requests_send(engine, queue, nap, 1500, SOON); /* the next one that is done would be it */
    for (int i = 0; i < 10; i++) assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    char key[20] = "one";
    requests_send_key(engine, queue, insert, key, 1);
    fpc_request_delete(requests_next(engine, queue));
    fpc_request *request = requests_next(engine, queue);
    assert_ptr_equal(slow, request);
    fpc_request_delete(request);
    assert_int_equal(3, stats().open);
}

static void test_unprepared(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_pipeline_options options = OPTIONS;
    options.conn.prepared = false;
    engine = requests_engine(db_info(NULL), &options);
    for (int i = 1; i <= 100; i++) requests_send(engine, queue, divide, i % 10, SOON);
    int fine = 0;
    for (int i = 1; i <= 100; i++) {
        fpc_request *request = requests_next(engine, queue);
        fine += requests_status(request) == FPC_OK;
        fpc_request_delete(request);
    }
    assert_int_equal(90, fine);
}

static void *drive(void *arg) {
    fpc_completions *own = requests_queue(64);
    intptr_t wrong = 0;
    (void)arg;
    for (int round = 0; round < 20; round++) {
        fpc_request *sent[50];
        for (int i = 0; i < 50; i++)
            sent[i] = requests_send(engine, own, i % 7 == 6 ? divide : twice, i, SOON);
        for (int i = 0; i < 50; i++) {
            fpc_request *request = requests_next(engine, own);
            int n = 0;
            while (sent[n] != request) n++;
            wrong += requests_number(request) != (n % 7 == 6 ? 100 / n : 2 * n);
            fpc_request_delete(request);
        }
    }
    fpc_completions_delete(own);
    return (void *)wrong;
}

static void test_threads(void **state) {
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) assert_int_equal(0, pthread_create(&threads[i], NULL, drive, NULL));
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

static void use_limits(double idle_timeout_s, double max_lifetime_s) {
    fpc_pipeline_delete(engine);
    fpc_pipeline_options options = OPTIONS;
    options.idle_timeout_s = idle_timeout_s;
    options.max_lifetime_s = max_lifetime_s;
    engine = requests_engine(db_info(NULL), &options);
}

static void pause_ms(int ms) {
    struct pollfd none = {.fd = -1};
    poll(&none, 1, ms);
}

/* ... by themselves, and new ones are opened when they are needed. */
static void test_idle_connections_close(void **state) {
    (void)state;
    use_limits(0.05, 0);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(2, requests_ask(engine, queue, twice, 1));
        for (int i = 0; i < 2000 && stats().open > 0; i++) pause_ms(5);
        assert_int_equal(0, stats().open);
    }
    assert_int_equal(0, stats().lost);
}

/* One that is in use all the time is replaced when it is old. */
static void test_old_connections_are_replaced(void **state) {
    (void)state;
    use_limits(0, 0.02);
    for (int i = 0; i < 10000 && stats().opened < 3; i++) {
        assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    }
    assert_true(stats().opened >= 3);
    assert_int_equal(0, stats().lost);
}

static void test_close_with_requests_in_flight(void **state) {
    (void)state;
    assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    fpc_request *last = NULL;
    for (int i = 0; i < 1000; i++) requests_send(engine, queue, twice, i, SOON);
    fpc_request *slow = requests_send(engine, queue, nap, 20000, SOON);
    char key[20] = "one";
    last = requests_send_key(engine, queue, insert, key, 1);
    fpc_pipeline_kick(engine);
    int64_t began = fpc_clock_ns();
    fpc_pipeline_close(engine, 0.2);
    assert_true(fpc_clock_ns() - began < 10 * FPC_NS_PER_SECOND); /* half of what the slow one takes */
    for (int i = 0; i < 1002; i++) {                              /* each is answered, one way or the other */
        fpc_request *request = fpc_completions_next(queue);
        assert_non_null(request);
        fpc_status status = requests_status(request);
        if (request == slow) assert_int_equal(FPC_CLOSED, status);
        assert_true(status == FPC_OK || status == FPC_CLOSED || (request == last && status == FPC_UNKNOWN));
        fpc_request_delete(request);
    }
    fpc_params params;
    fpc_request *request = NULL;
    fpc_params_init(&params);
    fpc_params_int64(&params, 1);
    assert_int_equal(FPC_CLOSED, fpc_pipeline_submit(engine, queue, twice, &params, SOON, &request, &db_err));
    fpc_pipeline_close(engine, 0.2); /* repeatable */
}

/* The queue may go first: what was on its way is dropped. */
static void test_queue_deleted_first(void **state) {
    (void)state;
    fpc_completions *gone = requests_queue(100);
    for (int i = 0; i < 100; i++) requests_send(engine, gone, twice, i, SOON);
    fpc_pipeline_kick(engine);
    fpc_completions_delete(gone);
    assert_int_equal(2, requests_ask(engine, queue, twice, 1));
}

static void test_wake(void **state) {
    (void)state;
    struct pollfd fd = {.fd = fpc_completions_fd(queue), .events = POLLIN};
    assert_int_equal(0, poll(&fd, 1, 0));
    fpc_completions_wake(queue);
    assert_int_equal(1, poll(&fd, 1, 0));
    assert_int_equal(FPC_OK, fpc_completions_wait(queue, SOON, &db_err));
    assert_null(fpc_completions_next(queue));
    assert_int_equal(0, poll(&fd, 1, 0));
    assert_int_equal(FPC_TIMEOUT, fpc_completions_wait(queue, fpc_deadline_in(0.01), &db_err));
}

static void test_wrong_options(void **state) {
    (void)state;
    fpc_pipeline *none = NULL;
    fpc_conninfo *info = db_info(NULL);
    fpc_pipeline_options options = OPTIONS;
    options.readers = 0;
    assert_int_equal(FPC_INVALID, fpc_pipeline_new(info, &options, &none, &db_err));
    options.readers = 1;
    options.silence_s = 0;
    assert_int_equal(FPC_INVALID, fpc_pipeline_new(info, &options, &none, &db_err));
    fpc_conninfo_delete(info);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)
    const struct CMUnitTest tests[] = {
        TEST(test_answers),
        TEST(test_ten_thousand),
        TEST(test_full_queue),
        TEST(test_error_among_reads),
        TEST(test_error_among_writes),
        TEST(test_commit_fails),
        TEST(test_each_write_has_its_sync),
        TEST(test_reads_its_writes),
        TEST(test_refused_statement),
        TEST(test_changed_table),
        TEST(test_stale_for_ever),
        TEST(test_deadline),
        cmocka_unit_test_setup_teardown(test_deadline_is_the_clocks, make_clocked, drop_clocked),
        TEST(test_abandoned),
        TEST(test_abandoned_when_it_was_answered),
        cmocka_unit_test_setup_teardown(test_idle_is_not_silent, make_clocked, drop_clocked),
        TEST(test_fair),
        TEST(test_lanes),
        TEST(test_unprepared),
        TEST(test_threads),
        TEST(test_idle_connections_close),
        TEST(test_old_connections_are_replaced),
        TEST(test_close_with_requests_in_flight),
        TEST(test_queue_deleted_first),
        TEST(test_wake),
        TEST(test_wrong_options),
    };
    return cmocka_run_group_tests(tests, set_up, server_teardown);
}
