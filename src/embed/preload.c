/* preload.c -- modules as data (see cmake/EmbedLua.cmake) and as C functions. */
#include "preload.h"

#include "embedded.h"

#include <lauxlib.h>

int luaopen_fpcache_core(lua_State *L);
int luaopen_cjson(lua_State *L);

/* Loads a built-in module: upvalue 1 is its entry. */
static int load_embedded(lua_State *L) {
    const fpc_embedded *module = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushfstring(L, "=[built in] %s", module->name);
    if (luaL_loadbuffer(L, module->source, module->length, lua_tostring(L, -1)) != LUA_OK)
        return lua_error(L);
    lua_pushstring(L, module->name);
    lua_call(L, 1, 1);
    return 1;
}

void fpc_embed_preload_function(lua_State *L, const char *name, lua_CFunction open) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, open);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
}

void fpc_embed_preload(lua_State *L) {
    fpc_embed_preload_function(L, "fpcache.core", luaopen_fpcache_core);
    fpc_embed_preload_function(L, "cjson", luaopen_cjson);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    for (const fpc_embedded *module = FPC_EMBEDDED; module->name != NULL; module++) {
        lua_pushlightuserdata(L, (void *)module);
        lua_pushcclosure(L, load_embedded, 1);
        lua_setfield(L, -2, module->name);
    }
    lua_pop(L, 1);
}
