#include "values.h"

#include "json.h"

#include <lauxlib.h>

void fpc_embed_push_value(lua_State *L, const fpc_value *value) {
    fpc_error err;
    switch (value->type) {
    case FPC_VALUE_BOOLEAN: lua_pushboolean(L, value->boolean); break;
    case FPC_VALUE_INTEGER: lua_pushinteger(L, value->integer); break;
    case FPC_VALUE_NUMBER: lua_pushnumber(L, value->number); break;
    case FPC_VALUE_STRING: lua_pushlstring(L, value->text.bytes, value->text.length); break;
    case FPC_VALUE_JSON:
        if (!fpc_lua_json_push(L, value->text.bytes, value->text.length, &err))
            luaL_error(L, "%s: %s", fpc_status_name(err.status), err.message);
        break;
    case FPC_VALUE_NIL: lua_pushnil(L); break;
    default: luaL_error(L, "invalid: a value has the unknown type %d", (int)value->type);
    }
}

void fpc_embed_read_value(lua_State *L, int index, int anchor, int n, const char *what, fpc_value *out) {
    fpc_error err;
    *out = (fpc_value){.type = FPC_VALUE_NIL};
    switch (lua_type(L, index)) {
    case LUA_TNIL: return;
    case LUA_TBOOLEAN:
        out->type = FPC_VALUE_BOOLEAN;
        out->boolean = lua_toboolean(L, index);
        return;
    case LUA_TNUMBER:
        out->type = lua_isinteger(L, index) ? FPC_VALUE_INTEGER : FPC_VALUE_NUMBER;
        if (lua_isinteger(L, index))
            out->integer = lua_tointeger(L, index);
        else
            out->number = lua_tonumber(L, index);
        return;
    case LUA_TSTRING:
        out->type = FPC_VALUE_STRING;
        out->text.bytes = lua_tolstring(L, index, &out->text.length);
        lua_pushvalue(L, index);
        break;
    default:
        if (lua_type(L, index) != LUA_TTABLE &&
            !(lua_islightuserdata(L, index) && lua_touserdata(L, index) == NULL))
            luaL_error(L, "invalid: %s %d is a %s", what, n, luaL_typename(L, index));
        out->type = FPC_VALUE_JSON;
        if (!fpc_lua_json_write(L, index, &out->text.bytes, &out->text.length, &err))
            luaL_error(L, "%s: %s %d: %s", fpc_status_name(err.status), what, n, err.message);
    }
    lua_rawseti(L, anchor, n);
}
