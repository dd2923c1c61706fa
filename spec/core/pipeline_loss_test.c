/* pipeline_loss_test.c -- sessions ended, backends killed and frozen, links cut, the server gone: what each
 * request hears.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db.h"
#include "proxy.h"
#include "requests.h"
#include "server.h"

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#else
#define TSAN 0
#endif

static fpc_pipeline *engine;
static fpc_completions *queue;
static fpc_statement *twice, *pid, *nap, *insert, *write_pid;
static proxy *link_to_server;

static const fpc_pipeline_options OPTIONS = {
    .readers = 2, .silence_s = 0.3, .connect_timeout_s = 10, .conn = {.prepared = true}};

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    db_admin("DROP TABLE IF EXISTS t; CREATE UNLOGGED TABLE t (k bytea, n bigint)");
    queue = requests_queue(10000);
    engine = requests_engine(db_info(NULL), &OPTIONS);
    twice = requests_statement("SELECT $1 * 2", true);
    pid = requests_statement("SELECT pg_backend_pid() + 0 * $1", true);
    nap = requests_statement("SELECT $1 FROM pg_sleep($1 / 1000.0)", true);
    insert = requests_key_statement(
        "INSERT INTO t (k, n) SELECT $1, $2 FROM pg_sleep($2 / 1000.0) RETURNING n", false);
    write_pid = requests_statement("INSERT INTO t (n) VALUES ($1) RETURNING pg_backend_pid()::bigint", false);
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_completions_delete(queue);
    fpc_statement *all[] = {twice, pid, nap, insert, write_pid};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) fpc_statement_delete(all[i]);
    if (link_to_server != NULL) proxy_stop(link_to_server);
    link_to_server = NULL;
    return 0;
}

static void use_proxy(void) {
    fpc_pipeline_delete(engine);
    link_to_server = proxy_start(server_socket_path());
    engine = requests_engine(db_info_port(proxy_port(link_to_server)), &OPTIONS);
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

static void await_in_flight(size_t count) {
    for (int i = 0; i < 2000 && stats().in_flight < count; i++) pause_ms(5);
    assert_true(stats().in_flight >= count);
}

static void await_server(void) {
    for (int i = 0; i < 400 && requests_try(engine, queue, twice, 1, 5) != FPC_OK; i++) pause_ms(25);
}

/* Idle sessions that end are noticed before anything is sent to them. */
static void test_ended_while_idle(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++) {
        db_kill((int)requests_ask(engine, queue, pid, 1));
        for (int n = 0; n < 1000 && stats().open > 0; n++) pause_ms(5);
        assert_int_equal(FPC_OK, requests_try(engine, queue, write_pid, 1, 10));
        db_kill((int)requests_ask(engine, queue, write_pid, 1));
        for (int n = 0; n < 1000 && stats().open > 0; n++) pause_ms(5);
    }
    assert_int_equal(10, db_admin_number("SELECT count(*) FROM t"));
}

/* Reads under way are sent once more.  The first of them waits for a lock that we have, however long that
 * takes. */
static void test_reads_survive_an_end(void **state) {
    (void)state;
    fpc_pipeline_options options = OPTIONS;
    options.silence_s = 60;
    fpc_pipeline_delete(engine);
    engine = requests_engine(db_info(NULL), &options);
    fpc_statement *wait = requests_statement("SELECT $1 FROM pg_advisory_xact_lock_shared(51)", true);
    fpc_conn *locker = db_open();
    db_script(locker, "SELECT pg_advisory_lock(51)");
    int64_t first = requests_ask(engine, queue, pid, 1);
    requests_send(engine, queue, wait, 200, SOON);
    for (int i = 0; i < 50; i++) requests_send(engine, queue, twice, i, SOON);
    fpc_pipeline_kick(engine);
    await_in_flight(51);
    db_await_busy((int)first);
    db_kill((int)first);
    fpc_conn_delete(locker);
    for (int i = 0; i < 51; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(FPC_OK, requests_status(request));
        fpc_request_delete(request);
    }
    assert_true(stats().resent >= 51);
    fpc_statement_delete(wait);
}

/* One that ends its session each time fails after the second, and the others get through. */
static void test_reads_are_repeated_once(void **state) {
    (void)state;
    fpc_statement *killer = requests_statement(
        "SELECT $1 FROM (SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(30)) AS x", true);
    assert_int_equal(FPC_CONNECT, requests_try(engine, queue, killer, 1, 20));
    assert_string_equal("57P01", db_err.sqlstate);
    assert_int_equal(1, stats().resent);
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    fpc_statement_delete(killer);
}

/* The server says that it ended the session: what it had not run is run elsewhere, what it was running was
 * undone and is too; each write happens exactly once. */
static void test_writes_that_were_not_run(void **state) {
    (void)state;
    int64_t first = requests_ask(engine, queue, write_pid, 1);
    requests_send_key(engine, queue, insert, "slow", 400);
    for (int i = 0; i < 20; i++) requests_send_key(engine, queue, insert, "quick", 0);
    fpc_pipeline_kick(engine);
    await_in_flight(21);
    db_await_busy((int)first);
    db_kill((int)first);
    for (int i = 0; i < 21; i++) {
        fpc_request *request = requests_next(engine, queue);
        fpc_status status = requests_status(request);
        if (status != FPC_OK) fail_msg("%s", db_err.message);
        fpc_request_delete(request);
    }
    assert_int_equal(21, db_admin_number("SELECT count(*) FROM t WHERE k IS NOT NULL"));
}

/* A link that is cut says nothing: writes under way are in doubt and not repeated. */
static void test_writes_in_doubt(void **state) {
    (void)state;
    use_proxy();
    assert_true(requests_ask(engine, queue, write_pid, 1) > 0);
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    proxy_set(link_to_server, PROXY_HOLD_ANSWERS);
    fpc_request *written = requests_send_key(engine, queue, insert, "once", 0);
    fpc_request *read = requests_send(engine, queue, twice, 4, SOON);
    fpc_pipeline_kick(engine);
    proxy_await_held(link_to_server);
    for (int i = 0; i < 1000 && db_admin_number("SELECT count(*) FROM t WHERE k IS NOT NULL") == 0; i++)
        pause_ms(5);
    proxy_cut(link_to_server); /* before it passes again what it held */
    proxy_set(link_to_server, PROXY_PASS);
    for (int i = 0; i < 2; i++) {
        fpc_request *request = requests_next(engine, queue);
        fpc_status status = requests_status(request);
        assert_int_equal(request == written ? FPC_UNKNOWN : FPC_OK, status);
        if (request == read) assert_int_equal(8, requests_number(request));
        fpc_request_delete(request);
    }
    assert_int_equal(1, db_admin_number("SELECT count(*) FROM t WHERE k IS NOT NULL"));
}

/* A backend that is frozen: reads go elsewhere after the silence, and nobody else notices. */
static void test_frozen_reader(void **state) {
    (void)state;
    int64_t frozen = requests_ask(engine, queue, pid, 1);
    assert_int_equal(0, kill((pid_t)frozen, SIGSTOP));
    int64_t began = fpc_clock_ns();
    for (int i = 0; i < 40; i++) requests_send(engine, queue, twice, i, SOON);
    fpc_pipeline_kick(engine);
    assert_true(requests_ask(engine, queue, write_pid, 1) >= 0); /* writes have their own */
    for (int i = 0; i < 40; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(FPC_OK, requests_status(request));
        fpc_request_delete(request);
    }
    int64_t took = fpc_clock_ns() - began;
    assert_true(took > FPC_NS_PER_SECOND / 4 && took < 10 * FPC_NS_PER_SECOND);
    assert_int_equal(1, stats().went_silent);
    began = fpc_clock_ns();
    for (int i = 0; i < 20; i++) assert_int_equal(2 * i, requests_ask(engine, queue, twice, i));
    assert_true(fpc_clock_ns() - began < 3 * FPC_NS_PER_SECOND); /* out of rotation: not 20 silences */
    kill((pid_t)frozen, SIGCONT);
}

static void test_frozen_writer(void **state) {
    (void)state;
    int64_t frozen = requests_ask(engine, queue, write_pid, 1);
    assert_int_equal(0, kill((pid_t)frozen, SIGSTOP));
    fpc_request *stuck = requests_send(engine, queue, write_pid, 2, fpc_deadline_in(1));
    fpc_pipeline_kick(engine);
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    for (int i = 0; i < 400 && stats().went_silent == 0; i++) pause_ms(5);
    assert_true(requests_ask(engine, queue, write_pid, 3) != frozen); /* over another connection */
    fpc_request *request = requests_next(engine, queue);
    assert_ptr_equal(stuck, request);
    assert_int_equal(FPC_TIMEOUT, requests_status(request));
    assert_non_null(strstr(db_err.message, "may still happen"));
    fpc_request_delete(request);
    for (int i = 0; i < 4000 && stats().silent > 0; i++) pause_ms(5); /* nobody waits for it any more */
    assert_int_equal(0, stats().silent);
    assert_int_equal(1, stats().lost);
    kill((pid_t)frozen, SIGCONT);
}

/* One that was only slow comes back into service. */
static void test_slow_returns(void **state) {
    (void)state;
    int64_t before = requests_ask(engine, queue, write_pid, 1);
    requests_send_key(engine, queue, insert, "slow", 600);
    fpc_request_delete(requests_next(engine, queue));
    assert_int_equal(1, stats().went_silent);
    assert_int_equal(0, stats().silent);
    assert_int_equal(before, requests_ask(engine, queue, write_pid, 1));
    assert_int_equal(1, stats().opened);
}

/* One that answers while it owes more is heard of: its silence begins anew. */
static void test_silence_begins_anew(void **state) {
    (void)state;
    fpc_statement *wait =
        requests_statement("INSERT INTO t (n) SELECT $1 FROM pg_advisory_xact_lock(52 + $1)", false);
    fpc_conn *locker = db_open();
    db_script(locker, "SELECT pg_advisory_lock(52), pg_advisory_lock(53)");
    fpc_request *sent[2];
    for (int i = 0; i < 2; i++) sent[i] = requests_send(engine, queue, wait, i, SOON);
    for (int i = 0; i < 2; i++) {
        fpc_pipeline_kick(engine);
        for (int n = 0; n < 4000 && stats().went_silent < (uint64_t)i + 1; n++) pause_ms(5);
        assert_int_equal(i + 1, stats().went_silent);
        db_script(locker, i == 0 ? "SELECT pg_advisory_unlock(52)" : "SELECT pg_advisory_unlock(53)");
        fpc_request *request = requests_next(engine, queue);
        assert_ptr_equal(sent[i], request);
        assert_int_equal(FPC_OK, requests_status(request));
        fpc_request_delete(request);
    }
    assert_int_equal(1, stats().opened);
    fpc_conn_delete(locker);
    fpc_statement_delete(wait);
}

/* The crash of one backend takes all sessions down. */
static void test_backend_killed(void **state) {
    (void)state;
    int64_t reader = requests_ask(engine, queue, pid, 1);
    requests_ask(engine, queue, write_pid, 1);
    requests_send(engine, queue, nap, 100, SOON);
    for (int i = 0; i < 20; i++) requests_send(engine, queue, twice, i, SOON);
    requests_send_key(engine, queue, insert, "k", 100);
    fpc_pipeline_kick(engine);
    await_in_flight(22);
    assert_int_equal(0, kill((pid_t)reader, SIGKILL));
    for (int i = 0; i < 22; i++) { /* each is answered; how depends on when */
        fpc_request *request = requests_next(engine, queue);
        fpc_status status = requests_status(request);
        assert_true(status == FPC_OK || status == FPC_CONNECT || status == FPC_UNKNOWN);
        fpc_request_delete(request);
    }
    await_server();
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
}

/* While the server is away requests fail at once; it is found again by itself. */
static void test_server_away(void **state) {
    (void)state;
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    server_stop();
    for (int i = 0; i < 20; i++) {
        int64_t began = fpc_clock_ns();
        assert_int_equal(FPC_CONNECT, requests_try(engine, queue, twice, 1, 60));
        assert_true(fpc_clock_ns() - began < 10 * FPC_NS_PER_SECOND); /* far less than its deadline */
    }
    assert_int_equal(FPC_CONNECT, requests_try(engine, queue, write_pid, 1, 10));
    assert_true(stats().open_failures < 20); /* not one attempt for each */
    server_start();
    await_server();
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
}

/* Nobody waits for a connection that is being opened but those who need it. */
static void test_slow_opening(void **state) {
    (void)state;
    use_proxy();
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    proxy_set(link_to_server, PROXY_STALL);
    fpc_request *written = requests_send(engine, queue, write_pid, 1, fpc_deadline_in(0.2));
    fpc_pipeline_kick(engine);
    fpc_request *request = requests_next(engine, queue);
    assert_ptr_equal(written, request);
    assert_int_equal(FPC_TIMEOUT, requests_status(request));
    assert_non_null(strstr(db_err.message, "was not sent"));
    fpc_request_delete(request);
    int64_t began = fpc_clock_ns();
    fpc_pipeline_close(engine, 0.1); /* an opener hangs, for as long as a connection may take */
    assert_true(fpc_clock_ns() - began < (int64_t)(OPTIONS.connect_timeout_s / 2) * FPC_NS_PER_SECOND);
}

/* The child of a fork starts with nothing; the parent's requests and sessions are the parent's. */
static void test_fork(void **state) {
    (void)state;
    if (TSAN) skip(); /* it cannot follow new threads after a fork */
    int64_t reader = requests_ask(engine, queue, pid, 1);
    for (int i = 0; i < 100; i++) requests_send(engine, queue, twice, i, SOON);
    fpc_pipeline_kick(engine);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        bool fine = fpc_completions_outstanding(queue) == 0 && fpc_completions_next(queue) == NULL;
        for (int i = 0; fine && i < 20; i++) {
            fpc_params params;
            fpc_request *request = NULL;
            fpc_answer answer;
            fpc_params_init(&params);
            fpc_params_int64(&params, i);
            fine = fpc_pipeline_submit(engine, queue, i % 2 ? twice : pid, &params, SOON, &request, NULL) ==
                   FPC_OK;
            fpc_pipeline_kick(engine);
            while (fine && (request = fpc_completions_next(queue)) == NULL) {
                fine = fpc_completions_wait(queue, SOON, NULL) == FPC_OK;
            }
            fine = fine && fpc_request_answer(request, &answer, NULL) == FPC_OK;
            int64_t number = fine ? fpc_result_int64(answer.result, answer.row, 0) : 0;
            fine = fine && (i % 2 ? number == 2 * i : number != reader);
            fpc_request_delete(request);
        }
        fpc_pipeline_close(engine, 0.1);
        _exit(fine ? 0 : 1);
    }
    int status;
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_int_equal(0, status);
    for (int i = 0; i < 100; i++) {
        fpc_request *request = requests_next(engine, queue);
        assert_int_equal(FPC_OK, requests_status(request));
        fpc_request_delete(request);
    }
    assert_int_equal(reader, requests_ask(engine, queue, pid, 1));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)
    const struct CMUnitTest tests[] = {
        TEST(test_ended_while_idle),
        TEST(test_reads_survive_an_end),
        TEST(test_reads_are_repeated_once),
        TEST(test_writes_that_were_not_run),
        TEST(test_writes_in_doubt),
        TEST(test_frozen_reader),
        TEST(test_frozen_writer),
        TEST(test_slow_returns),
        TEST(test_silence_begins_anew),
        TEST(test_slow_opening),
        TEST(test_fork),
        TEST(test_server_away),
        TEST(test_backend_killed),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
