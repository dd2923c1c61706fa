/* json.c -- the JSON functions of the module, and the array marks. */
#include "json.h"
#include "types.h"

static const char MARKS_KEY = 0;   /* its address is the key of the marks in the registry */
static const char EMPTY_ARRAY = 0; /* its address is the value empty_array */

void fpc_lua_json_push_marks(lua_State *L) {
    lua_pushlightuserdata(L, (void *)&MARKS_KEY);
    lua_rawget(L, LUA_REGISTRYINDEX);
}

/* json_encode(value) -> text | nil, err */
static int json_encode(lua_State *L) {
    fpc_error err;
    const char *bytes;
    size_t len;
    luaL_checkany(L, 1);
    if (!fpc_lua_json_write(L, 1, &bytes, &len, &err)) return fpc_lua_failure(L, &err);
    if (lua_type(L, -1) != LUA_TSTRING) lua_pushlstring(L, bytes, len);
    return 1;
}

/* json_decode(text) -> value | nil, err */
static int json_decode(lua_State *L) {
    fpc_error err;
    size_t len;
    luaL_checktype(L, 1, LUA_TSTRING);
    const char *text = lua_tolstring(L, 1, &len);
    return fpc_lua_json_push(L, text, len, &err) ? 1 : fpc_lua_failure(L, &err);
}

/* json_adopt(mark): a metatable or a lightuserdata of another JSON library becomes an array mark. */
static int json_adopt(lua_State *L) {
    int type = lua_type(L, 1);
    luaL_argcheck(L, type == LUA_TTABLE || (type == LUA_TLIGHTUSERDATA && lua_touserdata(L, 1) != NULL), 1,
                  "table or lightuserdata expected");
    fpc_lua_json_push_marks(L);
    lua_pushvalue(L, 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    return 0;
}

static void add_mark(lua_State *L, int marks) {
    lua_pushvalue(L, -1);
    lua_pushboolean(L, 1);
    lua_rawset(L, marks);
}

void fpc_lua_register_json(lua_State *L) {
    int module = lua_gettop(L), marks = module + 1;
    fpc_lua_json_push_marks(L);
    if (lua_isnil(L, marks)) { /* first time in this Lua state */
        lua_pop(L, 1);
        lua_newtable(L);
        lua_newtable(L);
        add_mark(L, marks);
        lua_rawseti(L, marks, 1);
        lua_pushlightuserdata(L, (void *)&EMPTY_ARRAY);
        add_mark(L, marks);
        lua_pop(L, 1);
        lua_pushlightuserdata(L, (void *)&MARKS_KEY);
        lua_pushvalue(L, marks);
        lua_rawset(L, LUA_REGISTRYINDEX);
    }
    lua_rawgeti(L, marks, 1);
    lua_setfield(L, module, "array_mt");
    lua_pushlightuserdata(L, (void *)&EMPTY_ARRAY);
    lua_setfield(L, module, "empty_array");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, module, "null");
    lua_pushcfunction(L, json_encode);
    lua_setfield(L, module, "json_encode");
    lua_pushcfunction(L, json_decode);
    lua_setfield(L, module, "json_decode");
    lua_pushcfunction(L, json_adopt);
    lua_setfield(L, module, "json_adopt");
    lua_settop(L, module);
}
