/* pipeline_callers_test.c -- requests that a caller sends from his own thread while the I/O thread sleeps:
 * what he has to wake it for, and who else may come in between.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "db.h"
#include "fpcache/result.h"
#include "requests.h"
#include "server.h"

#define CALLERS 4

static fpc_pipeline *engine;
static fpc_completions *queue;
static fpc_statement *twice, *nap, *pid, *insert;

/* So short a silence that the thread soon sleeps until it is woken. */
static const fpc_pipeline_options OPTIONS = {
    .readers = 2, .silence_s = 0.1, .connect_timeout_s = 10, .conn = {.prepared = true}};
static const fpc_pipeline_options PATIENT_OPTIONS = {
    .readers = 2, .silence_s = 30, .connect_timeout_s = 10, .conn = {.prepared = true}};

static void begin(const fpc_pipeline_options *options) {
    db_admin("DROP TABLE IF EXISTS t; CREATE UNLOGGED TABLE t (k bytea, n bigint)");
    engine = requests_engine(db_info(NULL), options);
    queue = requests_queue(1000);
    twice = requests_statement("SELECT $1 * 2", true);
    nap = requests_statement("SELECT $1 FROM pg_sleep($1 / 1000.0)", true);
    pid = requests_statement("SELECT pg_backend_pid() + 0 * $1", true);
    insert = requests_statement("INSERT INTO t (n) VALUES ($1) RETURNING n", false);
}

static int make(void **state) {
    (void)state;
    begin(&OPTIONS);
    return 0;
}

static int make_patient(void **state) {
    (void)state;
    begin(&PATIENT_OPTIONS);
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_completions_delete(queue);
    fpc_statement *all[] = {twice, nap, pid, insert};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) fpc_statement_delete(all[i]);
    return 0;
}

static fpc_pipeline_stats stats(void) {
    fpc_pipeline_stats s;
    fpc_pipeline_get_stats(engine, &s);
    return s;
}

static void pause_ms(int ms) {
    struct pollfd none = {.fd = -1};
    poll(&none, 1, ms);
}

/* Asks until one request has gone out from this thread, over a connection that was open. */
static void ask_until_sent_here(const fpc_statement *statement) {
    uint64_t before = stats().by_callers;
    for (int i = 0; i < 10000 && stats().by_callers == before; i++) {
        assert_int_equal(2, requests_ask(engine, queue, statement, statement == twice ? 1 : 2));
    }
    assert_true(stats().by_callers > before);
}

/* From now on only a caller wakes the thread: the answer to a statement that is prepared first would. */
static void let_it_sleep(void) {
    ask_until_sent_here(twice);
    for (int i = 0; i < 5; i++) requests_ask(engine, queue, nap, 1);
    pause_ms(300);
}

static void test_sent_by_the_caller(void **state) {
    (void)state;
    ask_until_sent_here(twice);
    ask_until_sent_here(insert);
    assert_int_equal(stats().submitted, stats().finished);
}

/* The caller would be busy with sending for long: the thread does it beside him. */
static void test_many_are_for_the_thread(void **state) {
    (void)state;
    let_it_sleep();
    uint64_t before = stats().by_callers;
    for (int i = 0; i < 20; i++) requests_send(engine, queue, twice, i, SOON);
    fpc_pipeline_kick(engine);
    for (int i = 0; i < 20; i++) fpc_request_delete(requests_next(engine, queue));
    assert_int_equal(before, stats().by_callers);
}

/* The thread slept without an end when the caller sent: it has to hear of the deadline. */
static void test_deadline(void **state) {
    (void)state;
    let_it_sleep();
    int64_t began = fpc_clock_ns();
    assert_int_equal(FPC_TIMEOUT, requests_try(engine, queue, nap, 20000, 0.05));
    assert_true(fpc_clock_ns() - began < 10 * FPC_NS_PER_SECOND);
    assert_int_equal(1, stats().expired);
}

/* ... and to watch over silence. */
static void test_silence(void **state) {
    (void)state;
    let_it_sleep();
    requests_send(engine, queue, nap, 20000, SOON);
    fpc_pipeline_kick(engine);
    for (int i = 0; i < 2000 && stats().went_silent == 0; i++) pause_ms(5);
    assert_true(stats().went_silent > 0);
}

/* One that has passed already is not sent. */
static void test_passed_deadline(void **state) {
    (void)state;
    for (int i = 0; i < 50; i++) {
        assert_int_equal(2, requests_ask(engine, queue, insert, 2));
        assert_int_equal(FPC_TIMEOUT, requests_try(engine, queue, insert, 7, -1));
        assert_non_null(strstr(db_err.message, "was not sent"));
    }
    assert_int_equal(0, db_admin_number("SELECT count(*) FROM t WHERE n = 7"));
}

/* What does not fit into the socket, in both directions at once. */
static void test_large(void **state) {
    (void)state;
    enum { BYTES = 3 << 20, COUNT = 12 };
    static const uint32_t TYPES[] = {FPC_OID_BYTEA};
    fpc_statement *echo = fpc_statement_new("SELECT $1", TYPES, 1, true);
    char *bytes = malloc(BYTES);
    assert_non_null(bytes);
    memset(bytes, 'x', BYTES);
    ask_until_sent_here(twice);
    for (int i = 0; i < COUNT; i++) {
        fpc_params params;
        fpc_request *request;
        fpc_params_init(&params);
        fpc_params_bytes(&params, bytes, BYTES);
        assert_int_equal(FPC_OK, fpc_pipeline_submit(engine, queue, echo, &params, SOON, &request, &db_err));
        fpc_pipeline_kick(engine);
    }
    for (int i = 0; i < COUNT; i++) {
        fpc_answer answer;
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(FPC_OK, fpc_request_answer(request, &answer, &db_err));
        size_t length = 0;
        fpc_result_bytes(answer.result, answer.row, answer.column, &length);
        assert_int_equal(BYTES, length);
        fpc_request_delete(request);
    }
    free(bytes);
    fpc_statement_delete(echo);
}

/* A caller that comes upon a session that ended leaves it to the thread. */
static void test_ended_session(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        db_kill((int)requests_ask(engine, queue, pid, 1));
        assert_int_equal(2, requests_ask(engine, queue, twice, 1));
    }
}

/* --- Several callers --- */

static atomic_bool is_over;

/* Asks until the engine is closed; each answer is his own.  Nothing of cmocka's: this is not its thread. */
static void *call(void *arg) {
    fpc_error err;
    fpc_completions *own = NULL;
    fpc_status status = fpc_completions_new(8, &own, &err);
    for (int64_t i = 0; status == FPC_OK && !atomic_load(&is_over); i++) {
        fpc_params params;
        fpc_answer answer;
        fpc_request *request = NULL, *sent = NULL;
        fpc_params_init(&params);
        fpc_params_int64(&params, i);
        status = fpc_pipeline_submit(engine, own, twice, &params, SOON, &sent, &err);
        if (status != FPC_OK) break;
        fpc_pipeline_kick(engine);
        while (status == FPC_OK && (request = fpc_completions_next(own)) == NULL)
            status = fpc_completions_wait(own, SOON, &err);
        if (status == FPC_OK) status = fpc_request_answer(request, &answer, &err);
        if (status == FPC_OK && fpc_result_int64(answer.result, answer.row, answer.column) != 2 * i)
            status = FPC_SERVER; /* somebody else's answer */
        fpc_request_delete(request);
    }
    *(bool *)arg = status == FPC_OK || status == FPC_CLOSED;
    fpc_completions_delete(own);
    return NULL;
}

static void test_callers_at_once(void **state) {
    (void)state;
    pthread_t threads[CALLERS];
    bool fine[CALLERS];
    atomic_store(&is_over, false);
    for (int i = 0; i < CALLERS; i++) {
        pthread_create(&threads[i], NULL, call, &fine[i]);
    }
    for (int i = 0; i < 2000 && stats().finished < 2000; i++) pause_ms(5);
    assert_true(stats().finished >= 2000);
    fpc_pipeline_close(engine, 0.2);
    for (int i = 0; i < 2000 && stats().open > 0; i++) pause_ms(5);
    atomic_store(&is_over, true);
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(fine[i]);
    }
    assert_int_equal(stats().submitted, stats().finished);
}

#define TEST(name)    cmocka_unit_test_setup_teardown(name, make, drop)
#define PATIENT(name) cmocka_unit_test_setup_teardown(name, make_patient, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        PATIENT(test_sent_by_the_caller),
        PATIENT(test_many_are_for_the_thread),
        TEST(test_deadline),
        TEST(test_silence),
        PATIENT(test_passed_deadline),
        PATIENT(test_large),
        PATIENT(test_ended_session),
        PATIENT(test_callers_at_once),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
