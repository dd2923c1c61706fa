/* compat.h -- the one place that knows the differences between Lua 5.4 and LuaJIT (5.1 API). */
#ifndef FPC_LUA_COMPAT_H
#define FPC_LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#if LUA_VERSION_NUM >= 504
#define FPC_LUAJIT  0
#define LUA_TCDATA_ (-2) /* no value has this type */
#elif LUA_VERSION_NUM == 501
#define FPC_LUAJIT         1
#define lua_rawlen         lua_objlen
#define lua_absindex(L, i) ((i) > 0 || (i) <= LUA_REGISTRYINDEX ? (i) : lua_gettop(L) + (i) + 1)
#define LUA_TCDATA_        10 /* LuaJIT's own type for int64_t and the like; not in its headers */
#else
#error "fpcache builds for Lua 5.4 and for LuaJIT 2.1"
#endif

/* Largest integer up to which a double holds every integer. */
#define FPC_MAX_DOUBLE_INT (INT64_C(1) << 53)

/* Pushes an exact integer: a Lua integer, or in LuaJIT a number up to 2^53 and an int64_t
 * (cdata) beyond. */
void fpc_lua_push_int64(lua_State *L, int64_t value);

/* Whether the value at `index` is an exact integer (a float such as 5.0 is one only in LuaJIT,
 * which cannot tell); stores it in `out`. */
bool fpc_lua_to_int64(lua_State *L, int index, int64_t *out);

#endif
