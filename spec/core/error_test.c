/* error_test.c -- statuses have stable names, messages never overflow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "fpcache/error.h"

/* Programs compare these words, so a change here breaks users. */
static void every_status_has_its_documented_name(void **state) {
    (void)state;
    const char *const names[FPC_STATUS_COUNT] = {
        [FPC_OK] = "ok",           [FPC_CONNECT] = "connect",
        [FPC_AUTH] = "auth",       [FPC_TIMEOUT] = "timeout",
        [FPC_BUSY] = "busy",       [FPC_SCHEMA] = "schema",
        [FPC_DENIED] = "denied",   [FPC_INVALID] = "invalid",
        [FPC_CLOSED] = "closed",   [FPC_CONFLICT] = "conflict",
        [FPC_UNKNOWN] = "unknown", [FPC_SERVER] = "server",
        [FPC_NOMEM] = "memory",    [FPC_INTERRUPTED] = "interrupted",
        [FPC_FULL] = "full",
    };
    for (int status = 0; status < FPC_STATUS_COUNT; status++) {
        assert_non_null(names[status]);
        assert_string_equal(names[status], fpc_status_name((fpc_status)status));
    }
}

static void a_number_that_is_no_status_is_unknown(void **state) {
    (void)state;
    assert_string_equal("unknown", fpc_status_name(FPC_STATUS_COUNT));
    assert_string_equal("unknown", fpc_status_name((fpc_status)-1));
    assert_string_equal("unknown", fpc_status_name((fpc_status)1000));
}

static void fail_fills_and_returns_the_status(void **state) {
    (void)state;
    fpc_error err = {.sqlstate = "23505"};
    assert_int_equal(FPC_TIMEOUT, fpc_fail(&err, FPC_TIMEOUT, "no answer in %d ms from %s", 250, "db1"));
    assert_int_equal(FPC_TIMEOUT, err.status);
    assert_string_equal("no answer in 250 ms from db1", err.message);
    assert_string_equal("", err.sqlstate);
}

static void fail_and_prefix_accept_null(void **state) {
    (void)state;
    assert_int_equal(FPC_NOMEM, fpc_fail(NULL, FPC_NOMEM, "filter of %d", 1));
    fpc_error_prefix(NULL, "could not start: ");
}

static void fail_cuts_a_long_message(void **state) {
    (void)state;
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    fpc_error err;
    fpc_fail(&err, FPC_SERVER, "%s", longer);
    assert_int_equal(sizeof err.message - 1, strlen(err.message));
    assert_int_equal(0, strncmp(longer, err.message, sizeof err.message - 1));
}

static void prefix_goes_before_and_keeps_the_rest(void **state) {
    (void)state;
    fpc_error err;
    fpc_fail(&err, FPC_DENIED, "permission denied for table cache");
    snprintf(err.sqlstate, sizeof err.sqlstate, "42501");
    fpc_error_prefix(&err, "could not read %s: ", "\"app\".cache");
    fpc_error_prefix(&err, "warm-up: ");
    assert_string_equal("warm-up: could not read \"app\".cache: permission denied for table cache",
                        err.message);
    assert_int_equal(FPC_DENIED, err.status);
    assert_string_equal("42501", err.sqlstate);
}

static void prefix_cuts_the_end(void **state) {
    (void)state;
    fpc_error err;
    char old[sizeof err.message];
    memset(old, 'o', sizeof old - 1);
    old[sizeof old - 1] = '\0';
    fpc_fail(&err, FPC_SERVER, "%s", old);
    fpc_error_prefix(&err, "could not start: ");
    assert_int_equal(sizeof err.message - 1, strlen(err.message));
    assert_int_equal(0, strncmp("could not start: ooo", err.message, 20));

    /* The prefix alone fills the message. */
    fpc_fail(&err, FPC_SERVER, "short");
    memset(old, 'p', sizeof old - 1);
    fpc_error_prefix(&err, "%s%s", old, old);
    assert_int_equal(sizeof err.message - 1, strlen(err.message));
    assert_int_equal('p', err.message[sizeof err.message - 2]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_its_documented_name),
        cmocka_unit_test(a_number_that_is_no_status_is_unknown),
        cmocka_unit_test(fail_fills_and_returns_the_status),
        cmocka_unit_test(fail_and_prefix_accept_null),
        cmocka_unit_test(fail_cuts_a_long_message),
        cmocka_unit_test(prefix_goes_before_and_keeps_the_rest),
        cmocka_unit_test(prefix_cuts_the_end),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
