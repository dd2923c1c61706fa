/* token_keeper_threads_test.c -- the keeper with a source that obeys the test: single flight, refusals,
 * failures, the end, fork(2).  The clock is ours; threads meet at gates and never sleep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fpcache/clock.h"
#include "token/keeper.h"

#define USERS 8
#define SOON  fpc_deadline_in(30)

static fpc_error err;
static _Atomic int64_t skipped_ns; /* how far our clock is ahead */

static int64_t our_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * FPC_NS_PER_SECOND + now.tv_nsec + atomic_load(&skipped_ns);
}

/* --- The source --- */

static struct {
    atomic_int fetches, fresh, sources;
    atomic_bool fails, lasting;
    bool cannot_make;
    pthread_t maker; /* of the latest source */
    int gate;        /* < 0: open.  Else a fetch takes one from it, or waits for it or for its end */
    atomic_int at_gate;
    double life_s;
} plan;

typedef struct obedient {
    fpc_token_source head;
} obedient;

static fpc_status fetch(fpc_token_source *self, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    (void)self;
    int number = atomic_fetch_add(&plan.fetches, 1) + 1;
    if (how->fresh) atomic_fetch_add(&plan.fresh, 1);
    if (plan.gate >= 0) {
        struct pollfd fds[2] = {{.fd = plan.gate, .events = POLLIN}, {.fd = how->stop_fd, .events = POLLIN}};
        atomic_fetch_add(&plan.at_gate, 1);
        poll(fds, 2, 30000);
        uint64_t one;
        if (fds[1].revents != 0 || read(plan.gate, &one, sizeof one) < 0) {
            fpc_fail(&failure->error, FPC_INTERRUPTED, "stopped");
            return FPC_INTERRUPTED;
        }
    }
    if (atomic_load(&plan.fails)) {
        failure->permanent = atomic_load(&plan.lasting);
        return fpc_fail(&failure->error, FPC_CONNECT,
                        "no workspace, and dapi0123456789abcdef0123456789abcdef");
    }
    char password[32];
    snprintf(password, sizeof password, "password %d", number);
    *out = (fpc_token){.password = strdup(password), .valid_for_s = plan.life_s, .user = strdup("ann")};
    return FPC_OK;
}

static void destroy(fpc_token_source *self) {
    free(self);
}

static fpc_status make(void *arg, fpc_token_source **out, fpc_error *e) {
    (void)arg;
    static const fpc_token_source_class CLASS = {.name = "obedient", .fetch = fetch, .destroy = destroy};
    if (plan.cannot_make) return fpc_fail(e, FPC_INVALID, "the profile is gone");
    plan.maker = pthread_self();
    obedient *self = calloc(1, sizeof *self);
    self->head.class = &CLASS;
    *out = &self->head;
    atomic_fetch_add(&plan.sources, 1);
    return FPC_OK;
}

/* --- Short words --- */

static fpc_token_keeper *keeper;

static int begin(void **state) {
    (void)state;
    memset(&plan, 0, sizeof plan);
    plan.gate = -1;
    plan.life_s = 3600;
    atomic_store(&skipped_ns, 0);
    fpc_clock_override(our_clock);
    fpc_token_origin origin = {.make = make};
    return fpc_token_keeper_new("obedient", &origin, &keeper, &err) != FPC_OK;
}

static int end(void **state) {
    (void)state;
    fpc_token_keeper_close(keeper);
    keeper = NULL;
    fpc_clock_override(NULL);
    if (plan.gate >= 0) close(plan.gate);
    return 0;
}

static void leap(double seconds) {
    atomic_fetch_add(&skipped_ns, (int64_t)(seconds * (double)FPC_NS_PER_SECOND));
}

static void close_gate(void) {
    plan.gate = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
}

static void let_pass(void) {
    uint64_t one = 1;
    assert_int_equal(write(plan.gate, &one, sizeof one), sizeof one);
}

static void await(atomic_int *what, int value) {
    for (int i = 0; i < 30000 && atomic_load(what) < value; i++) poll(NULL, 0, 1);
    assert_true(atomic_load(what) >= value);
}

/* The generation of what is given out; 0 when nothing is. */
static uint64_t get(fpc_deadline deadline) {
    fpc_token token = {0};
    uint64_t generation = 0;
    fpc_status status = fpc_token_keeper_get(keeper, deadline, &token, &generation, &err);
    if (status == FPC_OK) assert_non_null(token.password);
    fpc_token_clear(&token);
    return status == FPC_OK ? generation : 0;
}

static uint64_t refused(uint64_t generation, fpc_deadline deadline) {
    fpc_token token = {0};
    fpc_status status = fpc_token_keeper_refused(keeper, deadline, &token, &generation, &err);
    fpc_token_clear(&token);
    return status == FPC_OK ? generation : 0;
}

static fpc_token_stats stats(void) {
    fpc_token_stats out;
    fpc_token_keeper_get_stats(keeper, &out);
    return out;
}

static void *get_one(void *arg) {
    uint64_t *generation = arg;
    *generation = *generation == 0 ? get(SOON) : refused(*generation, SOON);
    return NULL;
}

/* All users ask together, or were refused with `generation`; the gate opens for one fetch once they wait. */
static void all_at_once(uint64_t generation, uint64_t expected) {
    pthread_t threads[USERS];
    uint64_t answers[USERS];
    for (int i = 0; i < USERS; i++) {
        answers[i] = generation;
        pthread_create(&threads[i], NULL, get_one, &answers[i]);
    }
    int waiting = 0;
    for (int i = 0; i < 30000 && waiting < USERS; i++) {
        poll(NULL, 0, 1);
        waiting = 0;
        fpc_token_keeper_lock(keeper);
        for (const fpc_token_waiter *w = keeper->waiters; w != NULL; w = w->next) waiting++;
        fpc_token_keeper_unlock(keeper);
    }
    assert_int_equal(waiting, USERS);
    let_pass();
    for (int i = 0; i < USERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(answers[i], expected);
    }
}

/* --- Tests --- */

static void test_one_fetch_for_all(void **state) {
    (void)state;
    close_gate();
    all_at_once(0, 1);
    assert_int_equal(atomic_load(&plan.fetches), 1);
    assert_string_equal(stats().user, "ann");
}

static void test_one_forced_fetch_for_all_who_were_refused(void **state) {
    (void)state;
    close_gate();
    let_pass();
    assert_int_equal(get(SOON), 1);
    all_at_once(1, 2);
    assert_int_equal(atomic_load(&plan.fetches), 2);
    assert_int_equal(atomic_load(&plan.fresh), 1);
    assert_int_equal(stats().refusals, 1);
    assert_int_equal(refused(1, SOON), 2); /* a late one: no fetch */
    assert_int_equal(refused(2, SOON), 0); /* the new one too: no use */
    assert_int_equal(err.status, FPC_AUTH);
    assert_int_equal(atomic_load(&plan.fetches), 2);
}

static void test_the_old_one_is_given_out_while_the_next_is_fetched(void **state) {
    (void)state;
    close_gate();
    let_pass();
    assert_int_equal(get(SOON), 1);
    leap(3000); /* beyond the soft point */
    assert_int_equal(get(SOON), 1);
    fpc_token_keeper_lock(keeper); /* its nap was measured by the clock before the skip */
    assert_int_equal(fpc_token_keeper_start(keeper, &err), FPC_OK);
    fpc_token_keeper_unlock(keeper);
    await(&plan.at_gate, 2);
    assert_int_equal(get(fpc_deadline_in(0)), 1);
    let_pass();
    leap(550); /* beyond the hard point of the first */
    assert_int_equal(get(SOON), 2);
}

static void test_a_failure_does_not_take_what_still_works(void **state) {
    (void)state;
    assert_int_equal(get(SOON), 1);
    atomic_store(&plan.fails, true);
    leap(3500); /* beyond the hard point */
    assert_int_equal(get(SOON), 1);
    fpc_token_stats now = stats();
    assert_int_equal(now.failures, 1);
    assert_string_equal(now.last_error, "connect: no workspace, and ***");
    leap(200); /* beyond the end */
    atomic_store(&plan.lasting, true);
    assert_int_equal(get(fpc_deadline_in(5)), 0);
    assert_int_equal(err.status, FPC_CONNECT);
    assert_non_null(strstr(err.message, "no password from obedient: no workspace"));
    assert_null(strstr(err.message, "dapi0"));
    atomic_store(&plan.fails, false);
    leap(400); /* beyond the longest pause */
    assert_int_equal(get(SOON), 2);
    assert_string_equal(stats().last_error, "");
}

static void test_callers_wait_no_longer_than_they_say(void **state) {
    (void)state;
    close_gate();
    int64_t before = fpc_clock_ns();
    assert_int_equal(get(fpc_deadline_in(0.05)), 0);
    assert_true(fpc_clock_ns() - before < 10 * FPC_NS_PER_SECOND);
    assert_int_equal(err.status, FPC_CONNECT);
    assert_string_equal(err.message, "no password from obedient in time");
}

static void test_passwords_that_have_ended_are_told(void **state) {
    (void)state;
    plan.life_s = 0;
    assert_int_equal(get(fpc_deadline_in(0.05)), 0);
    assert_int_equal(err.status, FPC_CONNECT);
    assert_string_equal(err.message,
                        "the passwords from obedient have ended when they come; is a clock wrong?");
    assert_true(atomic_load(&plan.fetches) <= 2);
}

static void test_refresh_fetches_at_once(void **state) {
    (void)state;
    assert_int_equal(fpc_token_keeper_refresh(keeper, SOON, &err), FPC_OK);
    assert_int_equal(fpc_token_keeper_refresh(keeper, SOON, &err), FPC_OK);
    assert_int_equal(get(SOON), 2);
    assert_int_equal(atomic_load(&plan.fresh), 2);
}

static void test_the_end_is_prompt_while_a_fetch_hangs(void **state) {
    (void)state;
    close_gate();
    assert_int_equal(get(fpc_deadline_in(0.05)), 0);
    await(&plan.at_gate, 1);
    int64_t before = fpc_clock_ns();
    fpc_token_keeper_close(keeper);
    keeper = NULL;
    assert_true(fpc_clock_ns() - before < FPC_NS_PER_SECOND);
}

/* Whether `f` holds in a child of fork(2). */
static void in_child(bool (*f)(void)) {
#if defined(__SANITIZE_THREAD__) /* it does not follow threads into a child */
    (void)f;
#else
    pid_t child = fork();
    if (child == 0) {
        bool ok = f();
        fpc_token_keeper_close(keeper);
        _exit(ok ? 0 : 1);
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
#endif
}

static bool goes_on(void) {
    bool ok = get(SOON) == 1; /* the token is no secret of the parent's */
    /* The source is another one, and made by who asked: it reads the environment. */
    ok = ok && atomic_load(&plan.sources) == 2 && pthread_equal(plan.maker, pthread_self());
    leap(3590);
    return ok && get(SOON) == 2 && atomic_load(&plan.sources) == 2;
}

static void test_a_child_goes_on_by_itself(void **state) {
    (void)state;
    assert_int_equal(get(SOON), 1);
    in_child(goes_on);
    assert_int_equal(atomic_load(&plan.sources), 1);
}

static bool tells_what_its_source_lacks(void) {
    plan.cannot_make = true;
    bool ok = get(SOON) == 1; /* still good */
    leap(3700);
    ok = ok && get(SOON) == 0 && err.status == FPC_INVALID &&
         strstr(err.message, "no password from obedient: the profile is gone") != NULL;
    ok = ok && strcmp(stats().last_error, "invalid: the profile is gone") == 0;
    plan.cannot_make = false;
    leap(5);
    ok = ok && get(fpc_deadline_in(1)) == 0; /* not tried again so soon */
    leap(400);                               /* beyond the pause after what somebody has to put right */
    return ok && get(SOON) == 2 && stats().last_error[0] == '\0';
}

static void test_a_child_without_a_source_says_why_and_recovers(void **state) {
    (void)state;
    assert_int_equal(get(SOON), 1);
    in_child(tells_what_its_source_lacks);
}

static fpc_token_keeper *parents;

static bool opens_and_finds_its_own(void) {
    fpc_token_setting a[] = {{"path", "/a"}}, b[] = {{"path", "/b"}};
    fpc_token_keeper *first, *second, *other;
    bool ok = fpc_token_keeper_open("password_file", a, 1, &first, &err) == FPC_OK &&
              fpc_token_keeper_open("password_file", a, 1, &second, &err) == FPC_OK && first == second &&
              fpc_token_keeper_open("password_file", b, 1, &other, &err) == FPC_OK && other != parents;
    fpc_token_keeper_close(other);
    fpc_token_keeper_close(first);
    fpc_token_keeper_close(second);
    return ok;
}

static void *open_and_close(void *over) {
    fpc_token_setting a[] = {{"path", "/a"}};
    while (!atomic_load((atomic_bool *)over)) {
        fpc_token_keeper *one;
        fpc_error e;
        if (fpc_token_keeper_open("password_file", a, 1, &one, &e) == FPC_OK) fpc_token_keeper_close(one);
    }
    return NULL;
}

/* The list may be in another thread's hands at the fork: the child begins with an empty one. */
static void test_a_child_of_a_busy_process_has_a_list_of_its_own(void **state) {
    (void)state;
    atomic_bool over = false;
    pthread_t thread;
    fpc_token_setting b[] = {{"path", "/b"}};
    assert_int_equal(fpc_token_keeper_open("password_file", b, 1, &parents, &err), FPC_OK);
    pthread_create(&thread, NULL, open_and_close, &over);
    for (int i = 0; i < 50; i++) in_child(opens_and_finds_its_own);
    atomic_store(&over, true);
    pthread_join(thread, NULL);
    fpc_token_keeper_close(parents);
}

static void test_pulled(void **state) {
    (void)state;
    fpc_token_keeper *pulled = fpc_token_keeper_new_pulled("the function");
    fpc_token token = {0};
    uint64_t generation = 0;
    assert_true(fpc_token_keeper_wants(pulled));
    assert_int_equal(fpc_token_keeper_get(pulled, SOON, &token, &generation, &err), FPC_AUTH);
    assert_string_equal(err.message, "the function has given no password yet");
    fpc_token given = {.password = strdup("one"), .valid_for_s = 100};
    fpc_token_keeper_give(pulled, &given);
    assert_false(fpc_token_keeper_wants(pulled));
    leap(60);
    assert_true(fpc_token_keeper_wants(pulled));
    leap(100); /* however old: the thread that calls functions may be busy */
    assert_int_equal(fpc_token_keeper_get(pulled, SOON, &token, &generation, &err), FPC_OK);
    assert_string_equal(token.password, "one");
    fpc_token_clear(&token);
    fpc_token_failure failure = {0};
    fpc_fail(&failure.error, FPC_AUTH, "it raised an error");
    fpc_token_keeper_give_up(pulled, &failure);
    assert_false(fpc_token_keeper_wants(pulled)); /* after a pause */
    leap(1);
    assert_true(fpc_token_keeper_wants(pulled));
    fpc_token_keeper_close(pulled);
}

static void test_one_keeper_for_equal_settings(void **state) {
    (void)state;
    fpc_token_setting a[] = {{"path", "/a"}}, b[] = {{"path", "/b"}};
    fpc_token_keeper *first, *second, *other;
    assert_int_equal(fpc_token_keeper_open("password_file", a, 1, &first, &err), FPC_OK);
    assert_int_equal(fpc_token_keeper_open("password_file", a, 1, &second, &err), FPC_OK);
    assert_int_equal(fpc_token_keeper_open("password_file", b, 1, &other, &err), FPC_OK);
    assert_ptr_equal(first, second);
    assert_ptr_not_equal(first, other);
    fpc_token_keeper_close(second);
    fpc_token_keeper_close(other);
    assert_string_equal(fpc_token_keeper_kind(first), "password_file");
    fpc_token_keeper_close(first);
    assert_int_equal(fpc_token_keeper_open("password_file", NULL, 0, &first, &err), FPC_INVALID);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_one_fetch_for_all),
        TEST(test_one_forced_fetch_for_all_who_were_refused),
        TEST(test_the_old_one_is_given_out_while_the_next_is_fetched),
        TEST(test_a_failure_does_not_take_what_still_works),
        TEST(test_callers_wait_no_longer_than_they_say),
        TEST(test_passwords_that_have_ended_are_told),
        TEST(test_refresh_fetches_at_once),
        TEST(test_the_end_is_prompt_while_a_fetch_hangs),
        TEST(test_a_child_goes_on_by_itself),
        TEST(test_a_child_without_a_source_says_why_and_recovers),
        TEST(test_a_child_of_a_busy_process_has_a_list_of_its_own),
        TEST(test_pulled),
        TEST(test_one_keeper_for_equal_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
