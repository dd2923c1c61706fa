/* runtime_threads_test.c -- runtimes of libfpcache.so: values, errors, limits, and many of them on many
 * threads with one pool.  Sees the library's header only; the test server comes from the support of the
 * core's tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db.h"
#include "server.h"
#include <fpcache/fpcache.h>

#define THREADS 8
#define CALLS   60

static fpc_error err;
static fpc_runtime *runtime;
static const fpc_value *results;
static int count;

static void must(fpc_status status) {
    if (status != FPC_OK) fail_msg("%s: %s", fpc_status_text(status), err.message);
}

static int open_runtime(void **state) {
    (void)state;
    must(fpc_runtime_open(NULL, &runtime, &err));
    return 0;
}

static int close_runtime(void **state) {
    (void)state;
    fpc_runtime_close(runtime);
    runtime = NULL;
    return 0;
}

static fpc_status run(fpc_runtime *self, const char *code) {
    return fpc_runtime_run(self, code, strlen(code), "test", &results, &count, &err);
}

static void reopen(fpc_runtime_options options) {
    fpc_runtime_close(runtime);
    runtime = NULL;
    must(fpc_runtime_open(&options, &runtime, &err));
}

static void assert_text(const fpc_value *value, fpc_value_type type, const char *text) {
    assert_int_equal(value->type, type);
    assert_int_equal(value->text.length, strlen(text));
    assert_string_equal(value->text.bytes, text);
}

static void values_go_in_and_come_out(void **state) {
    (void)state;
    must(run(runtime, "function same(...) return ... end return select('#', ...)"));
    assert_int_equal(count, 1);
    assert_int_equal(results[0].integer, 0);
    fpc_value in[] = {{.type = FPC_VALUE_NIL},
                      {.type = FPC_VALUE_BOOLEAN, .boolean = true},
                      {.type = FPC_VALUE_INTEGER, .integer = INT64_MIN},
                      {.type = FPC_VALUE_NUMBER, .number = 0.1},
                      {.type = FPC_VALUE_STRING, .text = {"a\0b", 3}},
                      {.type = FPC_VALUE_JSON, .text = {"[1,{}]", 6}},
                      {.type = FPC_VALUE_JSON, .text = {"null", 4}}};
    must(fpc_runtime_call(runtime, "same", in, 7, &results, &count, &err));
    assert_int_equal(count, 7);
    assert_int_equal(results[0].type, FPC_VALUE_NIL);
    assert_true(results[1].boolean);
    assert_int_equal(results[2].type, FPC_VALUE_INTEGER);
    assert_true(results[2].integer == INT64_MIN);
    assert_int_equal(results[3].type, FPC_VALUE_NUMBER);
    assert_true(results[3].number == 0.1);
    assert_int_equal(results[4].text.length, 3);
    assert_memory_equal(results[4].text.bytes, "a\0b", 4);
    assert_text(&results[5], FPC_VALUE_JSON, "[1,{}]");
    assert_text(&results[6], FPC_VALUE_JSON, "null");
    must(run(runtime, "t = { f = { g = function() return 'deep' end } }"));
    must(fpc_runtime_call(runtime, "t.f.g", NULL, 0, &results, &count, &err));
    assert_text(&results[0], FPC_VALUE_STRING, "deep");
    must(fpc_runtime_call(runtime, "t.f.g", NULL, 0, NULL, NULL, &err));
    must(run(runtime, "return require('cjson').encode{1}, require('fpcache')._VERSION"));
    assert_text(&results[1], FPC_VALUE_STRING, fpc_library_version());
}

static void errors_are_values(void **state) {
    (void)state;
    static const struct {
        const char *code;
        fpc_status status;
        const char *message;
    } CASES[] = {
        {"error('broken')", FPC_INVALID, "test:1: broken"},
        {"assert(nil, 'connect: no server')", FPC_CONNECT, "no server"},
        {"error('denied: you')", FPC_DENIED, "you"},
        {"error('timeout:you')", FPC_INVALID, "test:1: timeout:you"},
        {"error({})", FPC_INVALID, "table: "},
        {"error()", FPC_INVALID, "nil"},
        {"x x", FPC_INVALID, "test:1: syntax error"},
        {"\x1bLua", FPC_INVALID, "attempt to load a binary chunk"},
        {"return print", FPC_INVALID, "result 1 is a function"},
        {"return { [print] = 1 }", FPC_INVALID, "result 1: "},
        {"error('two\\nlines')", FPC_INVALID, "test:1: two lines"},
        {"local s = string.rep('m', 2000) error(s)", FPC_INVALID, "mmm"},
        {"return assert(require('fpcache').new{ connection_string = 'host=/nowhere', connect_timeout = 1 })",
         FPC_CONNECT, "/nowhere"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        fpc_status status = run(runtime, CASES[i].code);
        if (status != CASES[i].status || err.status != status ||
            strstr(err.message, CASES[i].message) == NULL)
            fail_msg("%s: %s", CASES[i].code, err.message);
        assert_int_equal(count, 0);
    }
    assert_int_equal(run(runtime, "local function inner() error('x') end inner()"), FPC_INVALID);
    assert_non_null(strstr(fpc_runtime_traceback(runtime), "in local 'inner'"));
    must(run(runtime, "return 1"));
    assert_string_equal(fpc_runtime_traceback(runtime), "");
    assert_int_equal(fpc_runtime_call(runtime, "no.such", NULL, 0, NULL, NULL, &err), FPC_INVALID);
    assert_string_equal(err.message, "there is no function no.such");
    fpc_value odd = {.type = FPC_VALUE_JSON, .text = {"{", 1}};
    assert_int_equal(fpc_runtime_call(runtime, "print", &odd, 1, NULL, NULL, &err), FPC_INVALID);
    assert_int_equal(fpc_runtime_run_file(runtime, "/none.lua", NULL, NULL, &err), FPC_INVALID);
    assert_non_null(strstr(err.message, "/none.lua"));
    assert_int_equal(fpc_runtime_run(runtime, "error('x')", 10, "n", NULL, NULL, NULL), FPC_INVALID);
}

static void memory_has_a_limit(void **state) {
    (void)state;
    reopen((fpc_runtime_options){.limits = {.memory = 16 << 20}});
    assert_int_equal(run(runtime, "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end"),
                     FPC_NOMEM);
    assert_non_null(strstr(err.message, "more than 16777216 bytes"));
    assert_true(fpc_runtime_memory(runtime) <= 16 << 20);
    assert_int_equal(run(runtime, "return ('x'):rep(1 << 30)"), FPC_NOMEM);
    must(run(runtime, "collectgarbage() return require('fpcache')._VERSION"));
    fpc_runtime *none = NULL;
    fpc_runtime_options tiny = {.limits = {.memory = 20000}};
    assert_int_equal(fpc_runtime_open(&tiny, &none, &err), FPC_NOMEM);
    assert_null(none);
}

static void time_and_instructions_have_limits(void **state) {
    (void)state;
    static const char *const LOOPS[] = {
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "coroutine.wrap(function() while true do end end)()",
        "while true do coroutine.wrap(function() while true do pcall(error) end end)() end",
        "setmetatable({}, { __index = function(t, k) while true do end end }).x = nil local y = "
        "setmetatable({}, { __index = function() while true do end end }).x",
        "for _ in pairs(setmetatable({}, { __pairs = function() return function() while true do end end end "
        "})) do "
        "end",
    };
    for (int way = 0; way < 2; way++) {
        fpc_limits limits = {.instructions = way == 0 ? 1000000 : 0, .seconds = way == 0 ? 0 : 0.1};
        reopen((fpc_runtime_options){.limits = limits});
        for (size_t i = 0; i < sizeof LOOPS / sizeof *LOOPS; i++) {
            assert_int_equal(run(runtime, LOOPS[i]), FPC_TIMEOUT);
            assert_non_null(strstr(err.message, way == 0 ? "1000000 instructions" : "0.1 seconds"));
            must(run(runtime, "local n = 0 for i = 1, 10000 do n = n + i end return n"));
            assert_int_equal(results[0].integer, 50005000);
        }
    }
    /* A coroutine that caught it lives on. */
    must(run(runtime,
             "co = coroutine.wrap(function() pcall(function() while true do end end) coroutine.yield() "
             "local n = 0 for i = 1, 100000 do n = n + 1 end return n end)"));
    assert_int_equal(run(runtime, "co()"), FPC_TIMEOUT);
    if (run(runtime, "return co()") == FPC_OK && count == 0) must(run(runtime, "return co()"));
    reopen((fpc_runtime_options){.unwatched = true, .limits = {.instructions = 1000}});
    must(run(runtime, "for i = 1, 1000000 do end"));
    fpc_runtime_set_limits(runtime, &(fpc_limits){.memory = 1});
    assert_int_equal(run(runtime, "return ('x'):rep(1000)"), FPC_NOMEM);
}

/* What Lua runs without its hook: finalizers, handlers of the error itself, and what is to be closed then. */
static void nothing_gets_around_the_limits(void **state) {
    (void)state;
    static const char *const WAYS[] = {
        "setmetatable({}, { __gc = function() while true do end end }) collectgarbage() while true do end",
        "for i = 1, 1000 do debug.setmetatable({}, { __gc = function() while true do end end }) end "
        "collectgarbage() while true do end",
        "while true do xpcall(function() while true do end end, function() while true do end end) end",
        "do local x <close> = setmetatable({}, { __close = function() while true do end end }) end",
        "while true do pcall(function() local x <close> = setmetatable({}, { __close = function() error(1) "
        "end }) "
        "while true do end end) end",
        "error(setmetatable({}, { __tostring = function() while true do end end }))",
        "pcall(debug.sethook) coroutine.wrap(function() pcall(debug.sethook) while true do end end)()",
        "local function f() return xpcall(f, f) end while true do f() end",
    };
    reopen((fpc_runtime_options){.limits = {.memory = 64 << 20, .instructions = 1000000}});
    for (size_t i = 0; i < sizeof WAYS / sizeof *WAYS; i++) {
        if (run(runtime, WAYS[i]) != FPC_TIMEOUT) fail_msg("%s: %s", WAYS[i], err.message);
        must(run(runtime, "local n = 0 for i = 1, 10000 do n = n + i end return n"));
        assert_int_equal(results[0].integer, 50005000);
    }
    /* Those that keep to them do what they do elsewhere. */
    must(run(runtime,
             "local log = {} do setmetatable({ name = 'a' }, { __gc = function(o) log[1] = o.name end }) "
             "end collectgarbage() collectgarbage() "
             "local a, b = xpcall(function(...) return select('#', ...) end, print, nil, nil) "
             "local c, d = xpcall(error, function(e) return e .. '!' end, 'x') "
             "local co = coroutine.wrap(function() return xpcall(function() return coroutine.yield(7) end, "
             "print) end) local y = co() local e, f = co(9) "
             "return log[1], a, b, c, d, y, e, f, getmetatable(setmetatable({}, { __index = 1 })).__index, "
             "pcall(setmetatable, 1, {})"));
    assert_text(&results[0], FPC_VALUE_STRING, "a");
    assert_true(results[1].boolean);
    assert_int_equal(results[2].integer, 2);
    assert_false(results[3].boolean);
    assert_text(&results[4], FPC_VALUE_STRING, "x!");
    assert_int_equal(results[5].integer, 7);
    assert_true(results[6].boolean);
    assert_int_equal(results[7].integer, 9);
    assert_int_equal(results[8].integer, 1);
    assert_false(results[9].boolean);
    /* Closing ends too, however many are left to finalize. */
    must(run(runtime,
             "kept = {} for i = 1, 1000 do kept[i] = setmetatable({}, { __gc = function() while true do end "
             "end }) end"));
    reopen((fpc_runtime_options){0});
}

static atomic_bool was_interrupted;

/* Until it was: nothing may run yet when the first one comes. */
static void *interrupt_soon(void *arg) {
    while (!atomic_load(&was_interrupted)) {
        usleep(5000);
        fpc_runtime_interrupt(arg);
    }
    return NULL;
}

static void a_call_is_interrupted_from_another_thread(void **state) {
    (void)state;
    pthread_t thread;
    fpc_runtime_interrupt(runtime); /* nothing runs */
    must(run(runtime, "for i = 1, 100000 do end"));
    pthread_create(&thread, NULL, interrupt_soon, runtime);
    assert_int_equal(run(runtime, "while true do pcall(function() while true do end end) end"),
                     FPC_INTERRUPTED);
    atomic_store(&was_interrupted, true);
    pthread_join(thread, NULL);
    must(run(runtime, "for i = 1, 100000 do end"));
}

static fpc_status add(void *data, const fpc_value *arguments, int argument_count, fpc_value *result,
                      fpc_error *failure) {
    if (argument_count != 2 || arguments[0].type != FPC_VALUE_INTEGER) {
        failure->status = FPC_DENIED;
        snprintf(failure->message, sizeof failure->message, "two numbers, not %d", argument_count);
        return FPC_DENIED;
    }
    result->type = FPC_VALUE_INTEGER;
    result->integer = arguments[0].integer + arguments[1].integer + *(int *)data;
    return FPC_OK;
}

static void scripts_call_the_host(void **state) {
    (void)state;
    static int more = 100;
    must(fpc_runtime_define(runtime, "add", add, &more, &err));
    must(run(runtime, "return add(1, 2)"));
    assert_int_equal(results[0].integer, 103);
    assert_int_equal(run(runtime, "return add()"), FPC_DENIED);
    assert_string_equal(err.message, "two numbers, not 0");
    must(run(runtime, "local ok, why = pcall(add, print) return why"));
    assert_text(&results[0], FPC_VALUE_STRING, "invalid: argument 1 is a function");
}

/* --- many --- */

static fpc_family *family;

static void run_with_url(fpc_runtime *self, const char *format) {
    char code[2000];
    snprintf(code, sizeof code, format, server_url());
    if (fpc_runtime_run(self, code, strlen(code), "many", NULL, NULL, &err) != FPC_OK)
        fail_msg("%s", err.message);
}

/* One thread: a runtime of the family, calls, its end.  NULL when all went well. */
static void *live(void *arg) {
    static const char CODE[] =
        "local fpcache = require('fpcache')\n"
        "cache = assert(fpcache.new{ connection_string = '%s', maxconn = 4, feed = true })\n"
        "function step(who, i)\n"
        "  assert(cache:incr('count'))\n"
        "  assert(cache:set(who .. ':' .. i, { who = who, i = i }, 60))\n"
        "  local found = assert(cache:get(who .. ':' .. i))\n"
        "  assert(found.i == i and found.who == who)\n"
        "  local results = assert(fpcache.parallel{ jobs = 4, each = { 1, 2, 3 }, run = function(n) return "
        "cache:set(who .. n, n) end })\n"
        "  return i\n"
        "end";
    char code[2000];
    fpc_error why;
    fpc_runtime *self = NULL;
    fpc_runtime_options options = {.family = family, .limits = {.memory = 64 << 20, .seconds = 60}};
    const char *failed = NULL;
    snprintf(code, sizeof code, CODE, server_url());
    if (fpc_runtime_open(&options, &self, &why) != FPC_OK ||
        fpc_runtime_run(self, code, strlen(code), "live", NULL, NULL, &why) != FPC_OK)
        failed = "open";
    for (int i = 0; failed == NULL && i < CALLS; i++) {
        fpc_value arguments[] = {{.type = FPC_VALUE_STRING, .text = {arg, strlen(arg)}},
                                 {.type = FPC_VALUE_INTEGER, .integer = i}};
        const fpc_value *answer;
        int answers;
        if (fpc_runtime_call(self, "step", arguments, 2, &answer, &answers, &why) != FPC_OK || answers != 1 ||
            answer[0].integer != i)
            failed = "step";
    }
    if (failed != NULL) fprintf(stderr, "%s: %s\n", failed, why.message);
    fpc_runtime_close(self);
    return (void *)failed;
}

static void many_runtimes_share_one_pool(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    static char names[THREADS][8];
    must(fpc_family_open(&family, &err));
    fpc_runtime_options options = {.family = family};
    reopen(options);
    run_with_url(runtime, "assert(require('fpcache.admin').setup{ connection_string = '%s' })");
    run_with_url(
        runtime,
        "cache = assert(require('fpcache').new{ connection_string = '%s', maxconn = 4, feed = true })");
    run_with_url(
        runtime,
        "other = assert(require('fpcache').new{ connection_string = '%s', maxconn = 3, feed = false })");
    assert_int_equal(fpc_family_pools(family), 2);
    for (int i = 0; i < THREADS; i++) {
        snprintf(names[i], sizeof names[i], "t%d", i);
        pthread_create(&threads[i], NULL, live, names[i]);
    }
    void *failed = NULL;
    for (int i = 0; i < THREADS; i++) {
        void *answer;
        pthread_join(threads[i], &answer);
        if (answer != NULL) failed = answer;
    }
    assert_null(failed);
    assert_int_equal(fpc_family_pools(family), 2);
    must(run(runtime, "return cache:get('count'), cache:stats().pool.opened, cache:get('t3:5').i"));
    assert_int_equal(results[0].integer, THREADS * CALLS);
    assert_in_range(results[1].integer, 1, 4); /* eight threads, and never more than maxconn */
    assert_int_equal(results[2].integer, 5);
    must(run(runtime, "cache:close() return cache:get('count')"));
    assert_int_equal(results[0].type, FPC_VALUE_NIL);
    assert_int_equal(fpc_family_pools(family), 1);
    fpc_runtime_close(runtime);
    runtime = NULL;
    assert_int_equal(fpc_family_pools(family), 0);
    fpc_family_close(family);
}

/* With a source the pool and its token are common; a function is called in its own runtime. */
static void a_pool_with_a_token_is_shared(void **state) {
    (void)state;
    static const char OPEN[] =
        "local url = '%s' local function open(more) more.connection_string = url more.maxconn = 3 "
        "more.feed = false more.libpq = { sslmode = 'disable' } "
        "return assert(require('fpcache').new(more)) end "
        "assert(require('fpcache.admin').setup{ connection_string = url }) "
        "from_command = open{ password_command = { 'echo', 'pw' } } "
        "from_function = open{ password = function() return 'pw' end } "
        "assert(from_command:set('k', 1)) assert(from_function:get('k') == 1)";
    must(fpc_family_open(&family, &err));
    fpc_runtime *two[2];
    fpc_runtime_options options = {.family = family};
    for (int i = 0; i < 2; i++) {
        must(fpc_runtime_open(&options, &two[i], &err));
        run_with_url(two[i], OPEN);
        assert_int_equal(fpc_family_pools(family), 1); /* that of the command: the other is in no family */
    }
    static const char LOOK[] =
        "local stats = from_command:stats() return stats.token.refreshes, stats.pool.opened, "
        "from_command:get('k')";
    for (int i = 0; i < 2; i++) {
        must(run(two[i], LOOK));
        assert_int_equal(results[0].integer, 1); /* the command ran once for both */
        assert_int_equal(results[1].integer, 1);
        assert_int_equal(results[2].integer, 1);
        fpc_runtime_close(two[i]); /* the pool lives on in the other */
    }
    assert_int_equal(fpc_family_pools(family), 0);
    fpc_family_close(family);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values_go_in_and_come_out, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(errors_are_values, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(memory_has_a_limit, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(time_and_instructions_have_limits, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(nothing_gets_around_the_limits, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(a_call_is_interrupted_from_another_thread, open_runtime,
                                        close_runtime),
        cmocka_unit_test_setup_teardown(scripts_call_the_host, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(many_runtimes_share_one_pool, open_runtime, close_runtime),
        cmocka_unit_test_setup_teardown(a_pool_with_a_token_is_shared, open_runtime, close_runtime),
    };
    return cmocka_run_group_tests(tests, server_setup, server_teardown);
}
