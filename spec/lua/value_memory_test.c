/* value_memory_test.c -- the value codec when memory is refused, at every single allocation.
 * Both allocators fail in turn: jansson's, and Lua's own.  A sanitizer build shows what leaks. */
#include "value.h"

#include <lualib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

int luaopen_fpcache_core(lua_State *L);

/* Deep enough for the stack of a new coroutine to grow on the way. */
#define DEEP "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[true]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]"

static const char TEXT[] =
    "{\"a\": [1, 2.5, {\"b\": null, \"c\": [\"a rather long text, beyond short strings\"]}],"
    " \"another key\": [[], {}, " DEEP "], \"id\": 9223372036854775807}";

static long allowed = -1; /* allocations until one fails; -1: all succeed */
static long held;         /* blocks of jansson that are not freed */

static bool refuse(void) {
    if (allowed < 0) return false;
    if (allowed == 0) return true;
    allowed--;
    return false;
}

static void *json_malloc(size_t size) {
    void *block = malloc(size);
    if (block != NULL) held++;
    return block;
}

static void *json_malloc_refused(size_t size) {
    return refuse() ? NULL : json_malloc(size);
}

static void json_free(void *block) {
    if (block != NULL) held--;
    free(block);
}

static void *lua_memory(void *ud, void *block, size_t old, size_t size) {
    (void)ud, (void)old;
    if (size == 0) {
        free(block);
        return NULL;
    }
    if ((block == NULL || size > old) && refuse()) return NULL;
    return realloc(block, size);
}

static lua_State *new_state(lua_Alloc memory) {
    lua_State *L = lua_newstate(memory, NULL);
    assert_non_null(L);
    luaL_openlibs(L);
    lua_pushcfunction(L, luaopen_fpcache_core);
    lua_call(L, 0, 0);
    return L;
}

static void *plain_memory(void *ud, void *block, size_t old, size_t size) {
    (void)ud, (void)old;
    if (size > 0) return realloc(block, size);
    free(block);
    return NULL;
}

static void jansson_is_refused_memory(void **state) {
    (void)state;
    json_set_alloc_funcs(json_malloc_refused, json_free);
    lua_State *L = new_state(plain_memory);
    fpc_error err;
    bool done = false, said_memory = false;
    for (long n = 0; !done; n++) {
        assert_true(n < 10000);
        allowed = n;
        done = fpc_lua_value_push(L, TEXT, strlen(TEXT), 'j', 0, true, &err);
        allowed = -1;
        assert_int_equal(held, 0);
        assert_int_equal(lua_gettop(L), done ? 1 : 0);
        /* For some allocations jansson says "syntax error": it does not tell. */
        if (!done && err.status == FPC_NOMEM)
            said_memory = true;
        else if (!done)
            assert_int_equal(err.status, FPC_INVALID);
    }
    assert_true(said_memory);
    lua_close(L);
    json_set_alloc_funcs(malloc, free);
}

/* Decodes TEXT and encodes the value again. Returns whether there was memory, or raises. */
static int there_and_back(lua_State *L) {
    fpc_error err;
    const char *bytes;
    size_t len = 0;
    char format;
    bool done = fpc_lua_value_push(L, TEXT, strlen(TEXT), 'j', 0, true, &err);
    if (done) {
        lua_pushvalue(L, 1); /* 100 kB: the buffer of the text must grow */
        lua_setfield(L, 2, "big");
        lua_State *thread = lua_newthread(L); /* its stack is small: it must grow too */
        lua_pushvalue(L, 2);
        lua_xmove(L, thread, 1);
        done = fpc_lua_value_encode(thread, 1, 0, &bytes, &len, &format, &err);
    }
    if (!done)
        assert_int_equal(err.status, FPC_NOMEM);
    else
        assert_true(len > 100000);
    lua_pushboolean(L, done);
    return 1;
}

static void lua_is_refused_memory(void **state) {
    (void)state;
    json_set_alloc_funcs(json_malloc, json_free);
    lua_State *L = new_state(lua_memory);
    char *big = malloc(100000);
    assert_non_null(big);
    memset(big, 'x', 100000);
    bool done = false;
    for (long n = 0; !done; n++) {
        assert_true(n < 10000);
        lua_settop(L, 0);
        lua_gc(L, LUA_GCCOLLECT, 0);
        lua_pushcfunction(L, there_and_back);
        lua_pushlstring(L, big, 100000);
        allowed = n;
        int status = lua_pcall(L, 1, 1, 0);
        allowed = -1;
        done = status == LUA_OK && lua_toboolean(L, -1);
        assert_int_equal(held, 0);
        assert_true(status == LUA_OK || status == LUA_ERRMEM);
    }
    free(big);
    lua_close(L);
    json_set_alloc_funcs(malloc, free);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jansson_is_refused_memory),
        cmocka_unit_test(lua_is_refused_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
