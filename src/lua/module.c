/* module.c -- `require "fpcache.core"`: gathers the types. */
#include "types.h"
#include "version.h"

int fpc_lua_failure(lua_State *L, const fpc_error *err) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", fpc_status_name(err->status), err->message);
    return 2;
}

__attribute__((visibility("default"))) int luaopen_fpcache_core(lua_State *L);

int luaopen_fpcache_core(lua_State *L) {
    lua_newtable(L);
    lua_pushliteral(L, FPC_VERSION);
    lua_setfield(L, -2, "version");
    fpc_lua_register_json(L);
    fpc_lua_register_value(L);
    return 1;
}
