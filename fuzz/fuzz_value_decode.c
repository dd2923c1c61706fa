/* fuzz_value_decode.c -- any row (format code, bytes) becomes a value or an error, never a crash; and
 * what became a value can be stored again, and then comes back the same.
 * Input: one byte of format, one byte whose lowest bit is parse_json, the bytes of the row. */
#include "seal.h"
#include "value.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int luaopen_fpcache_core(lua_State *L);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void require_that(bool holds, const char *what, const fpc_error *err) {
    if (holds) return;
    fprintf(stderr, "%s: %s\n", what, err->message);
    abort();
}

/* Stores the value on top of the stack, which is replaced by what the row then gives. */
static size_t store_again(lua_State *L, char *format) {
    fpc_error err = {.message = ""};
    const char *bytes;
    size_t len;
    require_that(fpc_lua_value_encode(L, -1, 0, &bytes, &len, format, &err), "a decoded value was refused",
                 &err);
    require_that(fpc_lua_value_push(L, bytes, len, *format, 0, true, &err), "our own row was refused", &err);
    lua_replace(L, 1);
    lua_settop(L, 1);
    return len;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    static lua_State *L;
    if (L == NULL) {
        L = luaL_newstate();
        luaL_openlibs(L);
        lua_pushcfunction(L, luaopen_fpcache_core);
        lua_call(L, 0, 0);
    }
    if (size < 2) return 0;
    fpc_error err = {.message = ""};
    if (!fpc_lua_seal_push(L, (const char *)data + 2, size - 2, (char)data[0], 0, NULL, 0, data[1] & 1,
                           &err)) {
        require_that(lua_gettop(L) == 0, "a failure left something on the stack", &err);
        require_that(err.message[0] != '\0', "a failure without a reason", &err);
        return 0;
    }
    require_that(lua_gettop(L) == 1 && !lua_isnil(L, 1), "a success is one value", &err);
    char format, format_again;
    size_t len = store_again(L, &format), len_again = store_again(L, &format_again);
    require_that(len == len_again && format == format_again, "a value changed by being stored", &err);
    lua_settop(L, 0);
    return 0;
}
