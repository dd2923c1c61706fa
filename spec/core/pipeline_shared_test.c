/* pipeline_shared_test.c -- many engines in one process: they share one I/O thread, and none feels another's
 * server, load or end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db.h"
#include "fpcache/result.h"
#include "proxy.h"
#include "requests.h"
#include "server.h"

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#else
#define TSAN 0
#endif

#define ENGINES 12 /* more than the first ones leave room for */

static fpc_completions *queue, *other_queue;
static fpc_statement *twice, *nap;
static fpc_pipeline *engine, *other;
static proxy *link_to_server;

static const fpc_pipeline_options OPTIONS = {
    .readers = 1, .silence_s = 30, .connect_timeout_s = 60, .conn = {.prepared = true}};

static int make(void **state) {
    (void)state;
    queue = requests_queue(10000);
    other_queue = requests_queue(10000);
    twice = requests_statement("SELECT $1 * 2", true);
    nap = requests_statement("SELECT $1 FROM pg_sleep($1 / 1000.0)", true);
    engine = requests_engine(db_info(NULL), &OPTIONS);
    other = NULL;
    return 0;
}

static int drop(void **state) {
    (void)state;
    fpc_pipeline_delete(engine);
    fpc_pipeline_delete(other);
    fpc_completions_delete(queue);
    fpc_completions_delete(other_queue);
    fpc_statement_delete(twice);
    fpc_statement_delete(nap);
    if (link_to_server != NULL) proxy_stop(link_to_server);
    link_to_server = NULL;
    return 0;
}

/* The second engine, behind the proxy. */
static void use_proxy(void) {
    link_to_server = proxy_start(server_socket_path());
    other = requests_engine(db_info_port(proxy_port(link_to_server)), &OPTIONS);
}

static fpc_pipeline_stats stats_of(fpc_pipeline *of) {
    fpc_pipeline_stats s;
    fpc_pipeline_get_stats(of, &s);
    return s;
}

static void pause_ms(int ms) {
    struct pollfd none = {.fd = -1};
    poll(&none, 1, ms);
}

static void submit_to(fpc_pipeline *to, int64_t number) {
    requests_send(to, other_queue, twice, number, SOON);
    fpc_pipeline_kick(to);
}

static void await_answer_of_other(fpc_status expected) {
    fpc_request *request = requests_next(other, other_queue);
    assert_int_equal(expected, requests_status(request));
    fpc_request_delete(request);
}

/* --- One thread --- */

static int count_threads(void) {
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (tasks == NULL) return -1;
    for (const struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[300], name[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "r");
        if (file == NULL) continue;
        if (fgets(name, sizeof name, file) != NULL && strcmp(name, "fpcache-io\n") == 0) count++;
        fclose(file);
    }
    closedir(tasks);
    return count;
}

/* One that ends may be seen a moment longer. */
static bool comes_to(int threads) {
    for (int i = 0; i < 4000 && count_threads() != threads; i++) pause_ms(5);
    return count_threads() == threads;
}

static void test_one_thread(void **state) {
    (void)state;
    fpc_pipeline *many[ENGINES];
    assert_true(comes_to(0));
    for (int i = 0; i < ENGINES; i++) {
        many[i] = requests_engine(db_info(NULL), &OPTIONS);
        assert_int_equal(2 * i, requests_ask(many[i], queue, twice, i));
        assert_true(comes_to(1));
    }
    for (int i = 0; i < ENGINES; i++) assert_int_equal(2 * i, requests_ask(many[i], queue, twice, i));
    for (int i = 0; i < ENGINES - 1; i++) fpc_pipeline_delete(many[i]);
    assert_int_equal(14, requests_ask(many[ENGINES - 1], queue, twice, 7));
    assert_int_equal(1, count_threads());
    fpc_pipeline_delete(many[ENGINES - 1]);
    assert_true(comes_to(0));
    assert_int_equal(16, requests_ask(engine, queue, twice, 8)); /* another one */
    assert_int_equal(1, count_threads());
}

static bool answers_in_child(fpc_pipeline *of) {
    fpc_params params;
    fpc_request *request = NULL;
    fpc_answer answer;
    fpc_params_init(&params);
    fpc_params_int64(&params, 21);
    bool fine = fpc_pipeline_submit(of, queue, twice, &params, SOON, &request, NULL) == FPC_OK;
    fpc_pipeline_kick(of);
    while (fine && (request = fpc_completions_next(queue)) == NULL)
        fine = fpc_completions_wait(queue, SOON, NULL) == FPC_OK;
    fine = fine && fpc_request_answer(request, &answer, NULL) == FPC_OK &&
           fpc_result_int64(answer.result, answer.row, answer.column) == 42;
    fpc_request_delete(request);
    return fine;
}

/* The child has a thread of its own, one again; the parent keeps his. */
static void test_fork(void **state) {
    (void)state;
    if (TSAN) skip(); /* it cannot follow new threads after a fork */
    other = requests_engine(db_info(NULL), &OPTIONS);
    assert_int_equal(42, requests_ask(engine, queue, twice, 21));
    assert_int_equal(42, requests_ask(other, queue, twice, 21));
    requests_send(engine, queue, nap, 300, SOON);
    fpc_pipeline_kick(engine);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        bool fine = count_threads() == 0 && answers_in_child(other) && answers_in_child(engine) &&
                    count_threads() == 1;
        fpc_pipeline_close(engine, 0.1);
        fpc_pipeline_close(other, 0.1);
        _exit(fine && comes_to(0) ? 0 : 1);
    }
    int status;
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_int_equal(0, status);
    fpc_request *request = requests_next(engine, queue);
    assert_int_equal(300, requests_number(request));
    fpc_request_delete(request);
    assert_int_equal(42, requests_ask(other, queue, twice, 21));
    assert_true(comes_to(1));
}

/* --- Nobody else's trouble --- */

/* A server that takes and says nothing: with requests on their way, and while a connection is opened. */
static void test_stalled_server(void **state) {
    (void)state;
    use_proxy();
    submit_to(other, 1);
    await_answer_of_other(FPC_OK);
    proxy_set(link_to_server, PROXY_STALL);
    fpc_pipeline *third = requests_engine(db_info_port(proxy_port(link_to_server)), &OPTIONS);
    for (int i = 0; i < 100; i++) {
        submit_to(other, i);
        submit_to(third, i);
        assert_int_equal(2 * i, requests_ask(engine, queue, twice, i));
    }
    assert_int_equal(1, stats_of(other).finished);
    assert_int_equal(0, stats_of(third).finished);
    fpc_pipeline_close(engine, 10); /* ends although the others wait */
    assert_int_equal(0, stats_of(engine).open);
    assert_int_equal(0, stats_of(third).finished);
    proxy_set(link_to_server, PROXY_PASS);
    for (int i = 0; i < 200; i++) await_answer_of_other(FPC_OK);
    fpc_pipeline_delete(third);
}

/* One that is closed with a long grace, for a server that does not answer. */
static void *close_slowly(void *unused) {
    fpc_pipeline_close(other, 60);
    return unused;
}

static void test_slow_end(void **state) {
    (void)state;
    pthread_t closer;
    use_proxy();
    submit_to(other, 1);
    await_answer_of_other(FPC_OK);
    proxy_set(link_to_server, PROXY_STALL);
    submit_to(other, 2);
    for (int i = 0; i < 4000 && stats_of(other).in_flight == 0; i++) pause_ms(5);
    assert_int_equal(0, pthread_create(&closer, NULL, close_slowly, NULL));
    for (int i = 0; i < 100; i++) assert_int_equal(2 * i, requests_ask(engine, queue, twice, i));
    fpc_pipeline_delete(engine);
    engine = requests_engine(db_info(NULL), &OPTIONS);
    assert_int_equal(10, requests_ask(engine, queue, twice, 5));
    assert_int_equal(1, stats_of(other).in_flight);
    proxy_set(link_to_server, PROXY_PASS);
    await_answer_of_other(FPC_OK);
    pthread_join(closer, NULL);
}

/* A caller with thousands of requests keeps the thread busy, but not for himself. */
static void test_busy_engine(void **state) {
    (void)state;
    enum { MANY = 5000 };
    other = requests_engine(db_info(NULL), &OPTIONS);
    requests_ask(engine, queue, twice, 1);
    fpc_pipeline *third = requests_engine(db_info(NULL), &OPTIONS);
    requests_ask(third, queue, twice, 1);
    for (int i = 0; i < MANY; i++) requests_send(other, other_queue, twice, i, SOON);
    fpc_pipeline_kick(other);
    for (int i = 0; i < 20; i++) assert_int_equal(2 * i, requests_ask(engine, queue, twice, i));
    fpc_pipeline_close(third, 10);
    assert_int_equal(0, stats_of(third).open);
    fpc_pipeline_delete(third);
    for (int i = 0; i < MANY; i++) await_answer_of_other(FPC_OK);
}

/* --- Engines that come and go --- */

#define HOSTS 4
#define LIVES 15

/* Nothing of cmocka's: this is not its thread. */
static void *live(void *fine) {
    fpc_error err;
    fpc_completions *own = NULL;
    fpc_status status = fpc_completions_new(64, &own, &err);
    for (int life = 0; status == FPC_OK && life < LIVES; life++) {
        fpc_pipeline *mine = NULL;
        fpc_conninfo *info = db_info(NULL);
        status = fpc_pipeline_new(info, &OPTIONS, &mine, &err);
        fpc_conninfo_delete(info);
        for (int i = 0; status == FPC_OK && i < 20; i++) {
            fpc_params params;
            fpc_answer answer;
            fpc_request *request = NULL, *sent = NULL;
            fpc_params_init(&params);
            fpc_params_int64(&params, i);
            status = fpc_pipeline_submit(mine, own, twice, &params, SOON, &sent, &err);
            fpc_pipeline_kick(mine);
            if (status == FPC_OK && life % 3 == 0 && i == 10) break; /* deleted with one on its way */
            while (status == FPC_OK && (request = fpc_completions_next(own)) == NULL)
                status = fpc_completions_wait(own, SOON, &err);
            if (status == FPC_OK) status = fpc_request_answer(request, &answer, &err);
            if (status == FPC_OK &&
                fpc_result_int64(answer.result, answer.row, answer.column) != 2 * (int64_t)i)
                status = FPC_SERVER; /* somebody else's answer */
            fpc_request_delete(request);
        }
        fpc_pipeline_delete(mine);
        fpc_request *late;
        while ((late = fpc_completions_next(own)) != NULL) fpc_request_delete(late);
    }
    *(bool *)fine = status == FPC_OK;
    fpc_completions_delete(own);
    return NULL;
}

static void test_come_and_go(void **state) {
    (void)state;
    pthread_t hosts[HOSTS];
    bool fine[HOSTS];
    for (int i = 0; i < HOSTS; i++) assert_int_equal(0, pthread_create(&hosts[i], NULL, live, &fine[i]));
    for (int i = 0; i < HOSTS; i++) {
        pthread_join(hosts[i], NULL);
        assert_true(fine[i]);
    }
    assert_true(comes_to(0));
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)
    const struct CMUnitTest tests[] = {
        TEST(test_one_thread), TEST(test_fork),        TEST(test_stalled_server),
        TEST(test_slow_end),   TEST(test_busy_engine), TEST(test_come_and_go),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
