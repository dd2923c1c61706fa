/* wait_stop_test.c -- a thread of the library's own ends its waits by a descriptor; and connection settings
 * that are copied and compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fpcache/conninfo.h"
#include "fpcache/wait.h"

static void readable_stop_ends_waits_and_the_interrupt_does_not(void **state) {
    (void)state;
    fpc_error err;
    uint64_t one = 1;
    int stop = eventfd(0, EFD_CLOEXEC), ready = eventfd(1, EFD_CLOEXEC), idle = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(fpc_interrupt_enable(&err), FPC_OK);
    fpc_interrupt_raise();
    assert_int_equal(fpc_wait_fd(ready, POLLIN, FPC_NEVER, &err), FPC_INTERRUPTED);
    fpc_wait_stop_by(stop);
    assert_int_equal(fpc_wait_fd(ready, POLLIN, FPC_NEVER, &err), FPC_OK);
    assert_int_equal(fpc_wait_fd(idle, POLLIN, fpc_deadline_in(0.01), &err), FPC_TIMEOUT);
    assert_int_equal(write(stop, &one, sizeof one), sizeof one);
    assert_int_equal(fpc_wait_fd(idle, POLLIN, FPC_NEVER, &err), FPC_INTERRUPTED);
    assert_int_equal(fpc_wait_fd(ready, POLLIN, FPC_NEVER, &err),
                     FPC_INTERRUPTED); /* it is to end, not to work */
    fpc_wait_stop_by(-1);
    fpc_interrupt_clear();
    assert_int_equal(fpc_wait_fd(ready, POLLIN, FPC_NEVER, &err), FPC_OK);
    close(stop);
    close(ready);
    close(idle);
}

static fpc_conninfo *made(const char *text) {
    fpc_conninfo *info = fpc_conninfo_new();
    assert_int_equal(fpc_conninfo_parse(info, text, NULL), FPC_OK);
    return info;
}

static void settings_are_equal_in_any_order(void **state) {
    (void)state;
    static const struct {
        const char *other;
        bool equal;
    } CASES[] = {{"user=ann port=5 host=h", true},           {"host=h port=5 user=ann", true},
                 {"host=h port=5 user=bob", false},          {"host=h port=5", false},
                 {"host=h port=5 user=ann dbname=d", false}, {"host=h port=5 dbname=ann", false}};
    fpc_conninfo *info = made("host=h port=5 user=ann");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fpc_conninfo *other = made(CASES[i].other);
        assert_int_equal(fpc_conninfo_equal(info, other), CASES[i].equal);
        assert_int_equal(fpc_conninfo_equal(other, info), CASES[i].equal);
        fpc_conninfo_delete(other);
    }
    fpc_conninfo *copy = fpc_conninfo_copy(info);
    fpc_conninfo_delete(info);
    assert_string_equal(fpc_conninfo_get(copy, "user"), "ann");
    fpc_conninfo_delete(copy);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(readable_stop_ends_waits_and_the_interrupt_does_not),
                                       cmocka_unit_test(settings_are_equal_in_any_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
