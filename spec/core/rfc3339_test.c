/* rfc3339_test.c -- points in time as servers write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <time.h>

#include "rfc3339.h"

static void expect(const char *text, double expected) {
    double seconds = -1;
    if (!fpc_rfc3339_parse(text, &seconds)) fail_msg("%s was refused", text);
    assert_true(seconds > expected - 1e-6 && seconds < expected + 1e-6);
}

static void times_are_read_with_zone_and_fraction(void **state) {
    (void)state;
    expect("1970-01-01T00:00:00Z", 0);
    expect("2026-02-06T18:00:00Z", 1770400800);
    expect("2026-02-06t19:30:00+01:30", 1770400800);
    expect("2026-02-06 13:00:00-0500", 1770400800);
    expect("2026-02-06T18:00:00.25Z", 1770400800.25);
    expect("2026-02-06T18:00:00.123456789Z", 1770400800.123457);
    expect("2016-12-31T23:59:60z", 1483228800);
    expect("2000-02-29T00:00:00Z", 951782400);
}

static void every_day_of_a_century_is_the_systems(void **state) {
    (void)state;
    for (time_t day = 0; day < (time_t)86400 * 366 * 150; day += 86400) {
        struct tm utc;
        char text[40];
        gmtime_r(&day, &utc);
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
        expect(text, (double)day);
    }
}

static void anything_else_is_refused(void **state) {
    (void)state;
    static const char *const BAD[] = {"",
                                      "2026",
                                      "2026-02-06",
                                      "2026-02-06T18:00Z",
                                      "2026-02-06T18:00:00",
                                      "2026-02-06T18:00:00 ",
                                      "2026-02-06T18:00:00.Z",
                                      "2026-02-06T18:00:00Z ",
                                      "2026-02-29T18:00:00Z",
                                      "2026-13-06T18:00:00Z",
                                      "2026-00-06T18:00:00Z",
                                      "2026-02-06T24:00:00Z",
                                      "2026-02-06T18:61:00Z",
                                      "2026-02-06T18:00:00+24:00",
                                      "2026-02-06T18:00:00+1:00",
                                      "1969-12-31T23:59:59Z",
                                      "Fri, 06 Feb 2026 18:00:00 GMT",
                                      "+026-02-06T18:00:00Z"};
    double seconds;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        if (fpc_rfc3339_parse(BAD[i], &seconds)) fail_msg("\"%s\" was taken", BAD[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_read_with_zone_and_fraction),
        cmocka_unit_test(every_day_of_a_century_is_the_systems),
        cmocka_unit_test(anything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
