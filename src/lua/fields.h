/* fields.h -- fields of the table on top of the stack, for those who tell Lua what a struct holds. */
#ifndef FPC_LUA_FIELDS_H
#define FPC_LUA_FIELDS_H

#include "compat.h"

static inline void fpc_lua_set_number(lua_State *L, const char *name, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, name);
}

static inline void fpc_lua_set_integer(lua_State *L, const char *name, int64_t value) {
    fpc_lua_push_int64(L, value);
    lua_setfield(L, -2, name);
}

static inline void fpc_lua_set_count(lua_State *L, const char *name, uint64_t value) {
    fpc_lua_set_integer(L, name, (int64_t)value);
}

static inline void fpc_lua_set_boolean(lua_State *L, const char *name, bool value) {
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

/* NULL sets nothing. */
static inline void fpc_lua_set_text(lua_State *L, const char *name, const char *text) {
    if (text == NULL) return;
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

#endif
