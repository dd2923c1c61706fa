/* pool_fork_test.c -- connections, statements and pools on both sides of a fork(2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db.h"
#include "fpcache/fork.h"
#include "server.h"

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#else
#define TSAN 0
#endif

static fpc_pool *pool;
static fpc_conn *lent;
static fpc_statement *statement;
static fpc_params none;

static int make(void **state) {
    (void)state;
    memset(&db_err, 0, sizeof db_err);
    fpc_pool_options options = {.max_connections = 2, .connect_timeout_s = 10, .conn = {.prepared = true}};
    pool = fpc_pool_new(db_info(NULL), &options);
    statement = db_statement("SELECT pg_backend_pid()");
    return pool == NULL;
}

static int drop(void **state) {
    (void)state;
    if (lent != NULL) fpc_pool_release(pool, lent);
    lent = NULL;
    fpc_pool_delete(pool);
    fpc_statement_delete(statement);
    return 0;
}

static fpc_conn *acquire(void) {
    fpc_conn *conn = NULL;
    if (fpc_pool_acquire(pool, SOON, &conn, &db_err) != FPC_OK) fail_msg("%s", db_err.message);
    return conn;
}

/* Runs `work` in a child, which must end by itself. */
static void in_child(void (*work)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL);
        alarm(30);
        work();
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with %d (line %d)", status, WEXITSTATUS(status));
}

/* In a child cmocka cannot help: the exit code says about where. */
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "child, line %d: %s\n", __LINE__, #condition);                                   \
            _exit(1);                                                                                        \
        }                                                                                                    \
    } while (0)

static void counts(int idle, int in_hand) {
    fpc_pool_stats stats;
    fpc_pool_get_stats(pool, &stats);
    CHECK(stats.idle == idle);
    CHECK(stats.lent == in_hand);
    CHECK(stats.opening == 0 && stats.waiting == 0);
}

static int64_t pid_by_pool(void) {
    fpc_result *result = NULL;
    CHECK(fpc_pool_exec(pool, statement, &none, SOON, &result, &db_err) == FPC_OK);
    int64_t pid = fpc_result_int64(result, 0, 0);
    fpc_result_delete(result);
    return pid;
}

static unsigned parents_generation;

static void another_generation(void) {
    CHECK(fpc_fork_generation() == parents_generation + 1);
}

static void a_child_is_another_generation(void **state) {
    (void)state;
    parents_generation = fpc_fork_generation();
    in_child(another_generation);
    assert_int_equal(parents_generation, fpc_fork_generation());
}

static int64_t idle_pid;

static void use_and_delete_pool(void) {
    counts(0, 0);
    int64_t pid = pid_by_pool();
    CHECK(pid != idle_pid);
    CHECK(pid_by_pool() == pid);
    counts(1, 0);
    fpc_pool_delete(pool);
}

static void a_childs_pool_starts_empty_and_the_parents_goes_on(void **state) {
    (void)state;
    idle_pid = db_pool_run(pool, statement);
    in_child(use_and_delete_pool);
    assert_int_equal(idle_pid, db_pool_run(pool, statement));
}

static void delete_pool(void) {
    fpc_pool_delete(pool);
}

static void close_pool(void) {
    fpc_pool_close(pool);
}

static void a_child_that_only_closes_sends_nothing(void **state) {
    (void)state;
    idle_pid = db_pool_run(pool, statement);
    in_child(delete_pool);
    in_child(close_pool);
    assert_int_equal(idle_pid, db_pool_run(pool, statement));
}

static void use_inherited(void) {
    fpc_result *result = NULL;
    CHECK(fpc_conn_is_inherited(lent));
    CHECK(fpc_conn_is_broken(lent));
    CHECK(!fpc_conn_is_alive(lent));
    CHECK(fpc_conn_exec(lent, statement, &none, SOON, &result, &db_err) == FPC_CLOSED);
    CHECK(fpc_conn_send(lent, statement, &none, SOON, &db_err) == FPC_CLOSED);
    CHECK(fpc_conn_receive(lent, SOON, &result, &db_err) == FPC_CLOSED);
    CHECK(fpc_conn_query(lent, "SELECT 1", 0, NULL, SOON, &result, &db_err) == FPC_CLOSED);
    CHECK(fpc_conn_script(lent, "SELECT 1", SOON, NULL, &db_err) == FPC_CLOSED);
    fpc_conn_delete(lent);
}

static void a_connection_lent_before_the_fork_is_closed_in_the_child(void **state) {
    (void)state;
    lent = acquire();
    int pid = db_backend_pid(lent);
    in_child(use_inherited);
    assert_int_equal(pid, db_backend_pid(lent));
}

static void delete_inherited_without_files(void) {
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 0}); /* /dev/null cannot be opened */
    fpc_conn_delete(lent);
}

static void a_child_without_descriptors_sends_nothing_either(void **state) {
    (void)state;
    lent = acquire();
    int pid = db_backend_pid(lent);
    in_child(delete_inherited_without_files);
    assert_int_equal(pid, db_backend_pid(lent));
}

/* The parent's answer is the parent's. */
static void a_statement_under_way_is_the_parents(void **state) {
    (void)state;
    lent = acquire();
    int pid = db_backend_pid(lent);
    assert_int_equal(FPC_OK, fpc_conn_send(lent, statement, &none, SOON, &db_err));
    in_child(use_inherited);
    fpc_result *result = NULL;
    assert_int_equal(FPC_OK, fpc_conn_receive(lent, SOON, &result, &db_err));
    assert_int_equal(pid, fpc_result_int64(result, 0, 0));
    fpc_result_delete(result);
}

static void release_inherited(void) {
    fpc_conn *own = acquire();
    counts(0, 1);
    fpc_pool_release(pool, lent); /* the parent's: it was never this pool's to count */
    counts(0, 1);
    fpc_pool_release(pool, own);
    counts(1, 0);
    fpc_conn *both[2] = {acquire(), acquire()};
    counts(0, 2);
    fpc_conn *third = NULL;
    CHECK(fpc_pool_acquire(pool, fpc_deadline_in(0.01), &third, &db_err) == FPC_BUSY);
    fpc_pool_release(pool, both[0]);
    fpc_pool_release(pool, both[1]);
    fpc_pool_delete(pool);
}

static void the_parents_connection_released_in_the_child_counts_for_nothing(void **state) {
    (void)state;
    lent = acquire();
    int pid = db_backend_pid(lent);
    in_child(release_inherited);
    assert_int_equal(pid, db_backend_pid(lent));
}

static void fork_again(void) {
    int64_t mine = pid_by_pool();
    pid_t pid = fork();
    if (pid == 0) {
        alarm(30);
        CHECK(pid_by_pool() != mine);
        fpc_pool_delete(pool);
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    CHECK(status == 0);
    CHECK(pid_by_pool() == mine);
    fpc_pool_delete(pool);
}

static void a_childs_child_has_its_own_too(void **state) {
    (void)state;
    idle_pid = db_pool_run(pool, statement);
    in_child(fork_again);
    assert_int_equal(idle_pid, db_pool_run(pool, statement));
}

static atomic_bool ends;

static void *borrow(void *arg) {
    (void)arg;
    while (!atomic_load(&ends)) {
        fpc_conn *conn = NULL;
        fpc_error err;
        if (fpc_pool_acquire(pool, SOON, &conn, &err) == FPC_OK) fpc_pool_release(pool, conn);
    }
    return NULL;
}

static void use_pool(void) {
    pid_by_pool();
    counts(1, 0);
    fpc_pool_delete(pool);
}

/* The lock may be held, the lists be half-changed and others be waiting at the moment of the fork. */
static void a_fork_at_any_moment_leaves_the_child_a_pool(void **state) {
    (void)state;
    if (TSAN) skip(); /* it knows no fork of many threads */
    pthread_t threads[4];
    atomic_store(&ends, false);
    for (int i = 0; i < 4; i++) assert_int_equal(0, pthread_create(&threads[i], NULL, borrow, NULL));
    for (int i = 0; i < 30; i++) in_child(use_pool);
    atomic_store(&ends, true);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_child_is_another_generation),
        TEST(a_childs_pool_starts_empty_and_the_parents_goes_on),
        TEST(a_child_that_only_closes_sends_nothing),
        TEST(a_connection_lent_before_the_fork_is_closed_in_the_child),
        TEST(a_child_without_descriptors_sends_nothing_either),
        TEST(a_statement_under_way_is_the_parents),
        TEST(the_parents_connection_released_in_the_child_counts_for_nothing),
        TEST(a_childs_child_has_its_own_too),
        TEST(a_fork_at_any_moment_leaves_the_child_a_pool),
    };
    return cmocka_run_group_tests_name("pool_fork", tests, server_setup, server_teardown);
}
