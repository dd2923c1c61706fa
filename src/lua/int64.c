/* int64.c -- integers of 64 bits in either Lua: `core.int64`, `int64_add`, `int64_negate`. */
#include "compat.h"
#include "types.h"

/* Also a float without a fraction. */
static bool read_int64(lua_State *L, int index, int64_t *out) {
    if (fpc_lua_to_int64(L, index, out)) return true;
    if (lua_type(L, index) != LUA_TNUMBER) return false;
    double number = lua_tonumber(L, index);
    if (!(number >= -9223372036854775808.0 && number < 9223372036854775808.0)) return false; /* NaN too */
    *out = (int64_t)number;
    return (double)*out == number;
}

static int push_or_nil(lua_State *L, bool is_exact, int64_t value) {
    if (is_exact)
        fpc_lua_push_int64(L, value);
    else
        lua_pushnil(L);
    return 1;
}

static int64_t check_int64(lua_State *L, int index) {
    int64_t value = 0;
    luaL_argcheck(L, read_int64(L, index, &value), index, "an integer is expected");
    return value;
}

/* core.int64(value) -> the same integer as this Lua holds integers, or nil */
static int int64_of(lua_State *L) {
    int64_t value = 0;
    luaL_checkany(L, 1);
    bool is_exact = read_int64(L, 1, &value);
    return push_or_nil(L, is_exact, value);
}

/* core.int64_add(a, b) -> the sum, or nil when 64 bits do not hold it */
static int int64_add(lua_State *L) {
    int64_t sum, a = check_int64(L, 1), b = check_int64(L, 2);
    bool is_beyond = __builtin_add_overflow(a, b, &sum);
    return push_or_nil(L, !is_beyond, sum);
}

/* core.int64_negate(a) -> -a, or nil for the smallest integer */
static int int64_negate(lua_State *L) {
    int64_t a = check_int64(L, 1);
    return push_or_nil(L, a != INT64_MIN, a == INT64_MIN ? 0 : -a);
}

void fpc_lua_register_int64(lua_State *L) {
    lua_pushcfunction(L, int64_of);
    lua_setfield(L, -2, "int64");
    lua_pushcfunction(L, int64_add);
    lua_setfield(L, -2, "int64_add");
    lua_pushcfunction(L, int64_negate);
    lua_setfield(L, -2, "int64_negate");
}
