/* types.h -- the binding's table of contents: one register function per Lua type.
 *
 * Each expects the module table on top of the stack, makes its metatable once per Lua state,
 * and adds its constructor or functions to the module table.  The stack is left as it was.
 * Bindings marshal and never decide; failures come back as nil, "code: message". */
#ifndef FPC_LUA_TYPES_H
#define FPC_LUA_TYPES_H

#include "compat.h"
#include "fpcache/error.h"

/* Pushes nil and "code: message" and returns 2, for `return fpc_lua_failure(L, &err);`. */
int fpc_lua_failure(lua_State *L, const fpc_error *err);

/* null, array_mt, empty_array, json_encode, json_decode, json_adopt */
void fpc_lua_register_json(lua_State *L);
/* value_encode, value_decode */
void fpc_lua_register_value(lua_State *L);

#endif
