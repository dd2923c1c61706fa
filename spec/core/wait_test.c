/* wait_test.c -- waits end by readiness, deadline or interrupt; the interrupt survives threads and forks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fpcache/wait.h"

static fpc_error err;
static int ends[2]; /* a pipe: nothing to read until the test writes */

static int make(void **state) {
    (void)state;
    memset(&err, 0, sizeof err);
    return pipe(ends);
}

static int drop(void **state) {
    (void)state;
    fpc_interrupt_clear();
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static double seconds_since(int64_t start) {
    return (double)(fpc_clock_ns() - start) / 1e9;
}

static fpc_status wait_in(double seconds) {
    return fpc_wait_fd(ends[0], POLLIN, fpc_deadline_in(seconds), &err);
}

/* First: it needs a process in which the interrupt was not enabled yet. */
static void raising_before_enabling_does_nothing(void **state) {
    (void)state;
    fpc_interrupt_raise();
    assert_false(fpc_interrupt_raised());
    assert_int_equal(FPC_TIMEOUT, wait_in(0));
}

static void enabling_is_repeatable(void **state) {
    (void)state;
    assert_int_equal(FPC_OK, fpc_interrupt_enable(&err));
    assert_int_equal(FPC_OK, fpc_interrupt_enable(&err));
    assert_false(fpc_interrupt_raised());
}

static void readiness_ends_a_wait(void **state) {
    (void)state;
    assert_int_equal(1, write(ends[1], "x", 1));
    assert_int_equal(FPC_OK, wait_in(20));
    assert_int_equal(FPC_OK, fpc_wait_fd(ends[1], POLLOUT, FPC_NEVER, &err));
}

static void the_other_end_closed_ends_a_wait(void **state) {
    (void)state;
    close(ends[1]);
    ends[1] = -1;
    assert_int_equal(FPC_OK, wait_in(20));
}

static void the_deadline_ends_a_wait(void **state) {
    (void)state;
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_TIMEOUT, wait_in(0.05));
    assert_true(seconds_since(start) >= 0.05 && seconds_since(start) < 5);
    assert_int_equal(FPC_TIMEOUT, err.status);
    assert_int_equal(FPC_TIMEOUT, wait_in(-1));
}

/* poll(2) skips a negative descriptor, and nobody would ever end the wait. */
static void no_descriptor_is_an_error(void **state) {
    (void)state;
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_CONNECT, fpc_wait_fd(-1, POLLIN, fpc_deadline_in(5), &err));
    assert_true(seconds_since(start) < 1);
}

static void an_interrupt_stays_raised_until_cleared(void **state) {
    (void)state;
    fpc_interrupt_raise();
    fpc_interrupt_raise();
    assert_true(fpc_interrupt_raised());
    assert_int_equal(1, write(ends[1], "x", 1));
    for (int i = 0; i < 3; i++) assert_int_equal(FPC_INTERRUPTED, wait_in(20)); /* ready or not */
    fpc_interrupt_clear();
    assert_false(fpc_interrupt_raised());
    assert_int_equal(FPC_OK, wait_in(20));
}

static void *raise_soon(void *arg) {
    (void)arg;
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    fpc_interrupt_raise();
    return NULL;
}

static void an_interrupt_ends_a_wait_at_once(void **state) {
    (void)state;
    pthread_t thread;
    int64_t start = fpc_clock_ns();
    assert_int_equal(0, pthread_create(&thread, NULL, raise_soon, NULL));
    assert_int_equal(FPC_INTERRUPTED, wait_in(20));
    assert_true(seconds_since(start) < 5);
    pthread_join(thread, NULL);
}

static void on_alarm(int sig) {
    (void)sig;
    fpc_interrupt_raise();
}

static void a_signal_handler_may_raise(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_alarm}, old;
    sigaction(SIGALRM, &action, &old);
    struct itimerspec in = {.it_value.tv_nsec = 30000000};
    timer_t timer;
    assert_int_equal(0, timer_create(CLOCK_MONOTONIC, NULL, &timer)); /* sends SIGALRM */
    timer_settime(timer, 0, &in, NULL);
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_INTERRUPTED, wait_in(20));
    assert_true(seconds_since(start) < 5);
    timer_delete(timer);
    sigaction(SIGALRM, &old, NULL);
}

static void on_nothing(int sig) {
    (void)sig;
}

static void another_signal_ends_no_wait(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = on_nothing}, old; /* without SA_RESTART */
    sigaction(SIGALRM, &action, &old);
    struct itimerspec each = {.it_value.tv_nsec = 10000000, .it_interval.tv_nsec = 10000000};
    timer_t timer;
    assert_int_equal(0, timer_create(CLOCK_MONOTONIC, NULL, &timer));
    timer_settime(timer, 0, &each, NULL);
    int64_t start = fpc_clock_ns();
    assert_int_equal(FPC_TIMEOUT, wait_in(0.1));
    assert_true(seconds_since(start) >= 0.1 && seconds_since(start) < 5);
    timer_delete(timer);
    sigaction(SIGALRM, &old, NULL);
}

static int in_child(void (*work)(void)) {
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        work();
        _exit(0);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

static void raise_here(void) {
    fpc_interrupt_raise();
    if (wait_in(5) != FPC_INTERRUPTED) _exit(1);
}

/* A child that is interrupted is its own affair: the parent neither stops nor spins. */
static void a_childs_interrupt_is_not_the_parents(void **state) {
    (void)state;
    assert_int_equal(0, in_child(raise_here));
    assert_false(fpc_interrupt_raised());
    struct timespec before, after;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
    int64_t start = fpc_clock_ns();
    alarm(20);
    assert_int_equal(FPC_TIMEOUT, wait_in(0.3));
    alarm(0);
    assert_true(seconds_since(start) < 5);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
    double used = (double)(after.tv_sec - before.tv_sec) + (double)(after.tv_nsec - before.tv_nsec) / 1e9;
    assert_true(used < 0.1);
}

static void clear_here(void) {
    if (!fpc_interrupt_raised()) _exit(1); /* it was raised before the fork */
    fpc_interrupt_clear();
    if (wait_in(0) != FPC_TIMEOUT) _exit(2);
}

static void a_child_clears_its_own_only(void **state) {
    (void)state;
    fpc_interrupt_raise();
    assert_int_equal(0, in_child(clear_here));
    assert_true(fpc_interrupt_raised());
    assert_int_equal(FPC_INTERRUPTED, wait_in(20));
}

/* Raising and clearing at once may end either way, but what a wait sees must agree with what is asked. */
static void *raise_and_clear(void *arg) {
    bool raises = arg != NULL;
    for (int i = 0; i < 20000; i++) {
        if (raises)
            fpc_interrupt_raise();
        else
            fpc_interrupt_clear();
    }
    return NULL;
}

static void raising_and_clearing_at_once_leaves_no_trace(void **state) {
    (void)state;
    for (int round = 0; round < 10; round++) {
        pthread_t raiser, clearer;
        assert_int_equal(0, pthread_create(&raiser, NULL, raise_and_clear, &err));
        assert_int_equal(0, pthread_create(&clearer, NULL, raise_and_clear, NULL));
        pthread_join(raiser, NULL);
        pthread_join(clearer, NULL);
        alarm(20);
        assert_int_equal(fpc_interrupt_raised() ? FPC_INTERRUPTED : FPC_TIMEOUT, wait_in(0.001));
        alarm(0);
        fpc_interrupt_clear();
        assert_int_equal(FPC_TIMEOUT, wait_in(0));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, drop)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(raising_before_enabling_does_nothing),
        TEST(enabling_is_repeatable),
        TEST(readiness_ends_a_wait),
        TEST(the_other_end_closed_ends_a_wait),
        TEST(the_deadline_ends_a_wait),
        TEST(no_descriptor_is_an_error),
        TEST(an_interrupt_stays_raised_until_cleared),
        TEST(an_interrupt_ends_a_wait_at_once),
        TEST(a_signal_handler_may_raise),
        TEST(another_signal_ends_no_wait),
        TEST(a_childs_interrupt_is_not_the_parents),
        TEST(a_child_clears_its_own_only),
        TEST(raising_and_clearing_at_once_leaves_no_trace),
    };
    return cmocka_run_group_tests_name("wait", tests, NULL, NULL);
}
