/* runtime_feed_test.c -- one reader of the change feed for each database, schema and login of a process,
 * whatever the number of its Lua states, threads and caches.  Sees the library's header only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "db.h"
#include "server.h"
#include <fpcache/fpcache.h>

#define RUNTIMES 4

static fpc_error err;

static void must(fpc_status status) {
    if (status != FPC_OK) fail_msg("%s: %s", fpc_status_text(status), err.message);
}

static void run(fpc_runtime *runtime, const char *format) {
    char code[2000];
    snprintf(code, sizeof code, format, server_url());
    must(fpc_runtime_run(runtime, code, strlen(code), "test", NULL, NULL, &err));
}

static int64_t readers(void) {
    return db_admin_number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fpcache feed'");
}

/* One Lua state in a thread of its own: two caches and a view, all of them fresh.  NULL: all went well. */
static void *open_two(void *arg) {
    static const char CODE[] =
        "one = assert(require('fpcache').new{ connection_string = '%s', maxconn = 2 })\n"
        "two = assert(require('fpcache').new{ connection_string = '%s', namespace = 'n', maxconn = 1, "
        "near_size = 5, max_staleness = 2 })\n"
        "for _, cache in ipairs { one, two, one:namespace('m') } do assert(cache:wait_ready(20)) end";
    char code[2000];
    fpc_error why;
    snprintf(code, sizeof code, CODE, server_url(), server_url());
    if (fpc_runtime_run(arg, code, strlen(code), "open", NULL, NULL, &why) == FPC_OK) return NULL;
    fprintf(stderr, "%s\n", why.message);
    return "failed";
}

static void all_states_and_caches_have_one_reader(void **state) {
    (void)state;
    fpc_runtime *runtimes[RUNTIMES];
    pthread_t threads[RUNTIMES];
    for (int i = 0; i < RUNTIMES; i++) must(fpc_runtime_open(NULL, &runtimes[i], &err));
    run(runtimes[0], "assert(require('fpcache.admin').setup{ connection_string = '%s' })");
    for (int i = 0; i < RUNTIMES; i++) pthread_create(&threads[i], NULL, open_two, runtimes[i]);
    for (int i = 0; i < RUNTIMES; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(readers(), 1);
    /* What one state writes, the others do not deny, and hold no old copy of: they share what it is told. */
    run(runtimes[1], "assert(one:get('shared') == nil)");
    run(runtimes[0], "assert(one:set('shared', 1))");
    run(runtimes[1], "assert(one:get('shared') == 1) assert(two:get('shared') == nil)");
    for (int i = 0; i < RUNTIMES - 1; i++) {
        fpc_runtime_close(runtimes[i]);
        assert_int_equal(readers(), 1); /* it lives as long as one of them does */
    }
    run(runtimes[RUNTIMES - 1],
        "assert(one:wait_ready(20)) one:close() assert(two:wait_ready(20)) two:close()");
    fpc_deadline patience = SOON;
    while (readers() > 0) assert_false(fpc_deadline_passed(patience));
    fpc_runtime_close(runtimes[RUNTIMES - 1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_states_and_caches_have_one_reader)};
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
