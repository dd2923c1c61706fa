/* clock_test.c -- deadlines on a clock that the test turns by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <math.h>

#include "fpcache/clock.h"

static int64_t now; /* what the injected clock shows */

static int64_t injected(void) {
    return now;
}

static int inject(void **state) {
    (void)state;
    now = 5 * FPC_NS_PER_SECOND;
    fpc_clock_override(injected);
    return 0;
}

static int restore(void **state) {
    (void)state;
    fpc_clock_override(NULL);
    return 0;
}

static void real_clock_never_goes_back(void **state) {
    (void)state;
    int64_t before = fpc_clock_ns();
    for (int i = 0; i < 1000; i++) {
        int64_t after = fpc_clock_ns();
        assert_true(after >= before);
        before = after;
    }
    assert_true(before > 0);
}

static void override_replaces_and_null_restores(void **state) {
    (void)state;
    int64_t real = fpc_clock_ns();
    now = 42;
    fpc_clock_override(injected);
    assert_true(fpc_clock_ns() == 42);
    fpc_clock_override(NULL);
    assert_true(fpc_clock_ns() >= real);
}

static void deadline_is_that_many_seconds_away(void **state) {
    (void)state;
    assert_true(fpc_deadline_in(1) == now + FPC_NS_PER_SECOND);
    assert_true(fpc_deadline_in(0.25) == now + FPC_NS_PER_SECOND / 4);
    assert_true(fpc_deadline_in(1e-9) == now + 1);
    assert_true(fpc_deadline_in(86400) == now + 86400 * FPC_NS_PER_SECOND);
}

static void zero_negative_and_nan_have_passed(void **state) {
    (void)state;
    const double seconds[] = {0, -0.0, -1, -1e300, -INFINITY, NAN, 1e-10 /* less than the clock's unit */};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        fpc_deadline deadline = fpc_deadline_in(seconds[i]);
        assert_true(deadline == now);
        assert_true(fpc_deadline_passed(deadline));
        assert_int_equal(0, fpc_deadline_poll_ms(deadline));
    }
}

static void huge_and_infinite_mean_never(void **state) {
    (void)state;
    const double seconds[] = {1.0000001e9, 1e300, INFINITY};
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        assert_true(fpc_deadline_in(seconds[i]) == FPC_NEVER);
    }
    assert_true(fpc_deadline_in(1e9) == now + INT64_C(1000000000) * FPC_NS_PER_SECOND);
}

static void never_is_never_passed(void **state) {
    (void)state;
    now = INT64_MAX;
    assert_false(fpc_deadline_passed(FPC_NEVER));
    assert_int_equal(-1, fpc_deadline_poll_ms(FPC_NEVER));
}

static void passes_at_the_very_nanosecond(void **state) {
    (void)state;
    fpc_deadline deadline = fpc_deadline_in(1);
    now = deadline - 1;
    assert_false(fpc_deadline_passed(deadline));
    now = deadline;
    assert_true(fpc_deadline_passed(deadline));
    now = deadline + 1;
    assert_true(fpc_deadline_passed(deadline));
}

static void poll_rounds_up_to_whole_milliseconds(void **state) {
    (void)state;
    const struct {
        int64_t left;
        int ms;
    } cases[] = {
        {-1, 0},
        {0, 0},
        {1, 1},
        {999999, 1},
        {1000000, 1},
        {1000001, 2},
        {1500000, 2},
        {2000000, 2},
        {999999999, 1000},
        {FPC_NS_PER_SECOND, 1000},
        {INT64_C(-9) * FPC_NS_PER_SECOND, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(cases[i].ms, fpc_deadline_poll_ms(now + cases[i].left));
    }
}

/* A loop over poll(2) must neither spin (0 while time is left) nor end early. */
static void poll_is_zero_exactly_when_passed(void **state) {
    (void)state;
    fpc_deadline deadline = fpc_deadline_in(0.003);
    for (; now < deadline + 1000; now += 777) {
        assert_true((fpc_deadline_poll_ms(deadline) == 0) == fpc_deadline_passed(deadline));
    }
}

static void poll_is_capped_to_int(void **state) {
    (void)state;
    const int64_t ns_per_ms = 1000000;
    assert_int_equal(INT_MAX, fpc_deadline_poll_ms(now + (int64_t)INT_MAX * ns_per_ms));
    assert_int_equal(INT_MAX, fpc_deadline_poll_ms(now + ((int64_t)INT_MAX + 1) * ns_per_ms));
    assert_int_equal(INT_MAX, fpc_deadline_poll_ms(fpc_deadline_in(1e9)));
    assert_int_equal(INT_MAX - 1, fpc_deadline_poll_ms(now + ((int64_t)INT_MAX - 1) * ns_per_ms));
}

/* The monotonic clock may start anywhere, also below zero in tests of long waits. */
static void works_on_both_sides_of_zero(void **state) {
    (void)state;
    now = -FPC_NS_PER_SECOND / 2;
    fpc_deadline deadline = fpc_deadline_in(1);
    assert_true(deadline == FPC_NS_PER_SECOND / 2);
    assert_false(fpc_deadline_passed(deadline));
    assert_int_equal(1000, fpc_deadline_poll_ms(deadline));
    now = 0;
    assert_int_equal(500, fpc_deadline_poll_ms(deadline));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_clock_never_goes_back),
        cmocka_unit_test_teardown(override_replaces_and_null_restores, restore),
        cmocka_unit_test_setup_teardown(deadline_is_that_many_seconds_away, inject, restore),
        cmocka_unit_test_setup_teardown(zero_negative_and_nan_have_passed, inject, restore),
        cmocka_unit_test_setup_teardown(huge_and_infinite_mean_never, inject, restore),
        cmocka_unit_test_setup_teardown(never_is_never_passed, inject, restore),
        cmocka_unit_test_setup_teardown(passes_at_the_very_nanosecond, inject, restore),
        cmocka_unit_test_setup_teardown(poll_rounds_up_to_whole_milliseconds, inject, restore),
        cmocka_unit_test_setup_teardown(poll_is_zero_exactly_when_passed, inject, restore),
        cmocka_unit_test_setup_teardown(poll_is_capped_to_int, inject, restore),
        cmocka_unit_test_setup_teardown(works_on_both_sides_of_zero, inject, restore),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
