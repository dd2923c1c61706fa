/* compat.c -- exact 64-bit integers in both Lua runtimes. */
#include "compat.h"

#if !FPC_LUAJIT

void fpc_lua_push_int64(lua_State *L, int64_t value) {
    lua_pushinteger(L, value);
}

bool fpc_lua_to_int64(lua_State *L, int index, int64_t *out) {
    if (!lua_isinteger(L, index)) return false;
    *out = lua_tointeger(L, index);
    return true;
}

#else

/* LuaJIT's C API cannot make or read an int64_t cdata; two small Lua functions can.  They are
 * compiled once per Lua state and kept in the registry under these addresses. */
static const char MAKE_KEY = 0, SPLIT_KEY = 0;
static const char INT64_CHUNK[] =
    "local ffi = require('ffi')\n"
    "local int64, uint64 = ffi.typeof('int64_t'), ffi.typeof('uint64_t')\n"
    "local function make(high, low) return int64(high) * 4294967296LL + int64(low) end\n"
    "local function split(v)\n"
    "  if not ffi.istype(int64, v) then\n"
    "    if not ffi.istype(uint64, v) or v > 0x7fffffffffffffffULL then return nil end\n"
    "    v = int64(v)\n"
    "  end\n"
    "  local low = v % 4294967296LL\n"
    "  if low < 0 then low = low + 4294967296LL end\n"
    "  return tonumber((v - low) / 4294967296LL), tonumber(low)\n"
    "end\n"
    "return make, split\n";

static void push_helper(lua_State *L, const char *key) {
    lua_pushlightuserdata(L, (void *)key);
    lua_rawget(L, LUA_REGISTRYINDEX);
    if (!lua_isnil(L, -1)) return;
    lua_pop(L, 1);
    if (luaL_loadbuffer(L, INT64_CHUNK, sizeof INT64_CHUNK - 1, "=fpcache.int64") != 0) lua_error(L);
    lua_call(L, 0, 2);
    lua_pushlightuserdata(L, (void *)&SPLIT_KEY);
    lua_pushvalue(L, -2);
    lua_rawset(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, (void *)&MAKE_KEY);
    lua_pushvalue(L, -3);
    lua_rawset(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, key == &MAKE_KEY ? -2 : -1);
    lua_replace(L, -3);
    lua_pop(L, 1);
}

void fpc_lua_push_int64(lua_State *L, int64_t value) {
    if (value >= -FPC_MAX_DOUBLE_INT && value <= FPC_MAX_DOUBLE_INT) {
        lua_pushnumber(L, (lua_Number)value);
        return;
    }
    push_helper(L, &MAKE_KEY);
    int64_t low = value & INT64_C(0xffffffff);
    int64_t high = (value - low) / INT64_C(4294967296);
    lua_pushnumber(L, (lua_Number)high);
    lua_pushnumber(L, (lua_Number)low);
    lua_call(L, 2, 1);
}

bool fpc_lua_to_int64(lua_State *L, int index, int64_t *out) {
    int type = lua_type(L, index);
    if (type == LUA_TNUMBER) {
        lua_Number n = lua_tonumber(L, index);
        if (!(n >= -(lua_Number)FPC_MAX_DOUBLE_INT && n <= (lua_Number)FPC_MAX_DOUBLE_INT)) return false;
        int64_t integer = (int64_t)n;
        if ((lua_Number)integer != n) return false;
        if (integer == 0 && 1 / n < 0) return false; /* -0.0 is a float */
        *out = integer;
        return true;
    }
    if (type != LUA_TCDATA_) return false;
    index = lua_absindex(L, index);
    push_helper(L, &SPLIT_KEY);
    lua_pushvalue(L, index);
    lua_call(L, 1, 2);
    bool exact = !lua_isnil(L, -2);
    if (exact) *out = (int64_t)lua_tonumber(L, -2) * INT64_C(4294967296) + (int64_t)lua_tonumber(L, -1);
    lua_pop(L, 2);
    return exact;
}

#endif
