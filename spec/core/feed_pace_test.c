/* feed_pace_test.c -- the pace of the feed's polls, without a clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "feed_pace.h"

static void assert_near(double found, double wanted) {
    assert_true(fabs(found - wanted) < 1e-9);
}

static void idle_polls_get_further_apart_up_to_a_third_of_the_staleness(void **state) {
    (void)state;
    static const double WANTED[] = {0.2, 0.4, 0.8, 1.0, 1.0};
    double pause = 0.1;
    for (size_t i = 0; i < sizeof WANTED / sizeof *WANTED; i++) {
        pause = fpc_feed_pause(pause, false, 0.1, 3);
        assert_near(pause, WANTED[i]);
    }
}

static void a_change_makes_it_fast_at_once_and_for_as_long_as_there_are_some(void **state) {
    (void)state;
    double pause = 1;
    for (int i = 0; i < 3; i++) {
        pause = fpc_feed_pause(pause, true, 0.1, 3);
        assert_near(pause, 0.1);
    }
    assert_near(fpc_feed_pause(pause, false, 0.1, 3), 0.2);
}

static void an_interval_beyond_the_staleness_does_not_make_it_stale(void **state) {
    (void)state;
    assert_near(fpc_feed_pause(60, true, 60, 3), 1);
    assert_near(fpc_feed_pause(1, false, 60, 3), 1);
    assert_near(fpc_feed_pause(10, false, 0.1, 0.3), 0.1); /* a later opener wants it stricter */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idle_polls_get_further_apart_up_to_a_third_of_the_staleness),
        cmocka_unit_test(a_change_makes_it_fast_at_once_and_for_as_long_as_there_are_some),
        cmocka_unit_test(an_interval_beyond_the_staleness_does_not_make_it_stale)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
