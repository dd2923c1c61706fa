/* token_schedule_test.c -- when passwords are fetched and what they are worth, on a clock of our own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fpcache/clock.h"
#include "token/schedule.h"

#define S FPC_NS_PER_SECOND

static const fpc_token_failure PASSING = {{0}, false, 0}, LASTING = {{0}, true, 0};

static fpc_token_schedule s;

static void fresh(double max_age_s) {
    fpc_token_schedule_init(&s, max_age_s, 42);
}

/* A token that lives for so long, fetched at `at`. */
static void got(int64_t at, double life_s) {
    fpc_token_schedule_begin(&s);
    fpc_token_schedule_succeed(&s, at, life_s);
}

static void failed(int64_t at, const fpc_token_failure *failure) {
    fpc_token_schedule_begin(&s);
    fpc_token_schedule_fail(&s, at, failure);
}

static double next_s(void) {
    return (double)fpc_token_schedule_next(&s) / (double)S;
}

#define assert_between(low, value, high)                                                                     \
    do {                                                                                                     \
        double v_ = (value);                                                                                 \
        if (v_ < (low) || v_ > (high)) fail_msg("%s is %f", #value, v_);                                     \
    } while (0)

static void test_nothing_is_fetched_before_somebody_asks(void **state) {
    (void)state;
    fresh(0);
    assert_int_equal(fpc_token_schedule_worth(&s, 100 * S), FPC_TOKEN_DEAD);
    assert_int_equal(fpc_token_schedule_next(&s), FPC_NEVER);
    s.is_wanted = true;
    assert_int_equal(fpc_token_schedule_next(&s), 0);
    assert_false(fpc_token_schedule_begin(&s));
    assert_int_equal(fpc_token_schedule_next(&s), FPC_NEVER); /* one at a time */
}

static void test_points_of_an_hour(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        fpc_token_schedule_init(&s, 0, seed * UINT64_C(0x9E3779B97F4A7C15));
        got(0, 3600);
        assert_between(3600 - 1320, next_s(), 3600 - 1080); /* 20 minutes before the end, 10 % either way */
        assert_int_equal(fpc_token_schedule_worth(&s, 3479 * S), FPC_TOKEN_GOOD);
        assert_int_equal(fpc_token_schedule_worth(&s, 3480 * S), FPC_TOKEN_TIRED);
        assert_int_equal(fpc_token_schedule_worth(&s, 3600 * S), FPC_TOKEN_DEAD);
    }
}

static void test_points_of_three_seconds(void **state) {
    (void)state;
    fresh(0);
    got(10 * S, 3);
    assert_between(11.35, next_s(), 11.65);
    assert_int_equal(fpc_token_schedule_worth(&s, 12 * S), FPC_TOKEN_GOOD);
    assert_int_equal(fpc_token_schedule_worth(&s, 12 * S + S / 2), FPC_TOKEN_TIRED);
    assert_int_equal(fpc_token_schedule_worth(&s, 13 * S), FPC_TOKEN_DEAD);
}

static void test_tokens_that_end_at_once_are_not_asked_for_without_pause(void **state) {
    (void)state;
    fresh(0);
    s.is_wanted = true;
    got(1000 * S, 0);
    assert_int_equal(fpc_token_schedule_worth(&s, 1000 * S), FPC_TOKEN_DEAD);
    assert_int_equal(fpc_token_schedule_next(&s), 1001 * S);
    s.is_wanted = true; /* by whoever finds it dead */
    assert_int_equal(fpc_token_schedule_next(&s), 1001 * S);
    s.must_be_fresh = true; /* who asks for another one whatever it is worth */
    assert_int_equal(fpc_token_schedule_next(&s), 0);
    got(1001 * S, -0.5);
    assert_int_equal(fpc_token_schedule_refused(&s, 2, 1001 * S), FPC_TOKEN_AWAIT);
    assert_int_equal(fpc_token_schedule_next(&s), 0); /* a refusal: paced by itself */
    fresh(0.25);
    s.is_wanted = true;
    got(1000 * S, -1);
    s.is_wanted = true; /* it costs little: as young as its kind allows */
    assert_int_equal(fpc_token_schedule_next(&s), 1000 * S + S / 4);
}

static void test_an_unknown_end(void **state) {
    (void)state;
    fresh(0);
    got(0, -1);
    assert_between(810, next_s(), 990); /* replaced now and then, but never given up by the clock */
    assert_int_equal(fpc_token_schedule_worth(&s, 1000000 * S), FPC_TOKEN_GOOD);
    fresh(1); /* a file */
    got(0, -1);
    assert_int_equal(fpc_token_schedule_next(&s), FPC_NEVER); /* nobody asks: nobody reads */
    assert_int_equal(fpc_token_schedule_worth(&s, S - 1), FPC_TOKEN_GOOD);
    assert_int_equal(fpc_token_schedule_worth(&s, S), FPC_TOKEN_TIRED);
}

static void test_pauses_grow_and_end(void **state) {
    (void)state;
    fresh(0);
    double most[] = {1, 2, 4, 8, 16, 32, 60, 60};
    for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
        s.is_wanted = true;
        failed(0, &PASSING);
        s.is_wanted = true;
        assert_between(most[i] / 2, next_s(), most[i]);
    }
    got(0, 3600);
    assert_int_equal(s.failures, 0);
    failed(0, &PASSING);
    assert_between(0.5, (double)s.not_before_ns / (double)S, 1);
}

static void test_short_lives_do_not_wait_for_a_minute(void **state) {
    (void)state;
    fresh(0);
    got(0, 3);
    for (int i = 0; i < 10; i++) failed(2 * S, &PASSING);
    assert_between(2.5, next_s(), 3);
}

static void test_lasting_failures_are_tried_rarely(void **state) {
    (void)state;
    fresh(0);
    got(0, 3600);
    failed(3000 * S, &LASTING);
    assert_between(3030, next_s(), 3060);
    for (int i = 0; i < 10; i++) failed(3000 * S, &LASTING);
    assert_between(3150, next_s(), 3300);
}

static void test_retry_after(void **state) {
    (void)state;
    fresh(0);
    got(0, 3600);
    fpc_token_failure busy = {.retry_after_s = 17};
    failed(3000 * S, &busy);
    assert_between(3017, next_s(), 3017);
    busy.retry_after_s = 1e9; /* no more than five minutes */
    failed(3000 * S, &busy);
    assert_between(3300, next_s(), 3300);
}

static void test_a_failure_discards_nothing(void **state) {
    (void)state;
    fresh(0);
    got(0, 3600);
    failed(3500 * S, &LASTING);
    assert_int_equal(fpc_token_schedule_worth(&s, 3501 * S), FPC_TOKEN_TIRED);
    assert_int_equal(s.generation, 1);
}

static void test_one_refresh_for_all_who_were_refused(void **state) {
    (void)state;
    fresh(0);
    got(0, 3600);
    assert_int_equal(fpc_token_schedule_refused(&s, 1, 5 * S), FPC_TOKEN_AWAIT);
    assert_int_equal(fpc_token_schedule_worth(&s, 5 * S), FPC_TOKEN_DEAD);
    assert_int_equal(fpc_token_schedule_next(&s), 0);
    assert_int_equal(fpc_token_schedule_refused(&s, 1, 5 * S), FPC_TOKEN_AWAIT);
    assert_true(fpc_token_schedule_begin(&s)); /* a fresh one, please */
    assert_int_equal(fpc_token_schedule_refused(&s, 1, 6 * S), FPC_TOKEN_AWAIT);
    fpc_token_schedule_succeed(&s, 6 * S, 3600);
    assert_int_equal(fpc_token_schedule_refused(&s, 1, 7 * S), FPC_TOKEN_NEWER); /* a late one */
    assert_int_equal(fpc_token_schedule_worth(&s, 7 * S), FPC_TOKEN_GOOD);
    assert_int_equal(s.forced, 1);
}

static void test_refusals_without_end(void **state) {
    (void)state;
    fresh(0);
    got(0, 3600);
    assert_int_equal(fpc_token_schedule_refused(&s, 1, 0), FPC_TOKEN_AWAIT);
    got(0, 3600);
    assert_int_equal(fpc_token_schedule_refused(&s, 2, S / 10), FPC_TOKEN_USELESS);
    assert_int_equal(fpc_token_schedule_worth(&s, S), FPC_TOKEN_GOOD); /* it may be the server's fault */
    assert_int_equal(fpc_token_schedule_refused(&s, 2, 2 * S), FPC_TOKEN_AWAIT);
    got(2 * S, 3600);
    fpc_token_schedule_accepted(&s, 3);
    assert_int_equal(fpc_token_schedule_refused(&s, 3, 2 * S), FPC_TOKEN_AWAIT);
}

static void test_refused_while_no_new_one_can_be_had(void **state) {
    (void)state;
    fresh(0);
    got(0, 3600);
    fpc_token_schedule_refused(&s, 1, 0);
    failed(0, &PASSING);
    assert_int_equal(fpc_token_schedule_worth(&s, S), FPC_TOKEN_GOOD); /* the last hope */
    assert_true(s.must_be_fresh);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_fetched_before_somebody_asks),
        cmocka_unit_test(test_points_of_an_hour),
        cmocka_unit_test(test_points_of_three_seconds),
        cmocka_unit_test(test_tokens_that_end_at_once_are_not_asked_for_without_pause),
        cmocka_unit_test(test_an_unknown_end),
        cmocka_unit_test(test_pauses_grow_and_end),
        cmocka_unit_test(test_short_lives_do_not_wait_for_a_minute),
        cmocka_unit_test(test_lasting_failures_are_tried_rarely),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_a_failure_discards_nothing),
        cmocka_unit_test(test_one_refresh_for_all_who_were_refused),
        cmocka_unit_test(test_refusals_without_end),
        cmocka_unit_test(test_refused_while_no_new_one_can_be_had),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
