/* module.c -- `require "fpcache.core"`: gathers the types. */
#include "types.h"
#include "version.h"

atomic_int fpc_lua_open_objects;

int fpc_lua_failure(lua_State *L, const fpc_error *err) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", fpc_status_name(err->status), err->message);
    return 2;
}

void fpc_lua_new_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close) {
    if (!luaL_newmetatable(L, name)) {
        lua_pop(L, 1);
        return;
    }
    lua_newtable(L);
    for (const luaL_Reg *m = methods; m->name != NULL; m++) {
        lua_pushcfunction(L, m->func);
        lua_setfield(L, -2, m->name);
    }
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "close");
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__close");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pop(L, 1);
}

static int open_objects(lua_State *L) {
    lua_pushinteger(L, fpc_lua_open_objects);
    return 1;
}

__attribute__((visibility("default"))) int luaopen_fpcache_core(lua_State *L);

int luaopen_fpcache_core(lua_State *L) {
    lua_newtable(L);
    lua_pushliteral(L, FPC_VERSION);
    lua_setfield(L, -2, "version");
    lua_pushcfunction(L, open_objects);
    lua_setfield(L, -2, "open_objects");
    fpc_lua_register_statement(L);
    fpc_lua_register_batch(L);
    fpc_lua_register_pool(L);
    fpc_lua_register_conn(L);
    fpc_lua_register_pin(L);
    fpc_lua_register_completions(L);
    fpc_lua_register_feed(L);
    fpc_lua_register_terms(L);
    fpc_lua_register_key(L);
    fpc_lua_register_filter(L);
    fpc_lua_register_interrupt(L);
    fpc_lua_register_int64(L);
    fpc_lua_register_versions(L);
    fpc_lua_register_json(L);
    fpc_lua_register_value(L);
    fpc_lua_register_seal(L);
    fpc_lua_register_file_lock(L);
    fpc_lua_register_process(L);
    fpc_lua_register_download(L);
    fpc_lua_register_process_wide(L);
    fpc_lua_register_system(L);
    fpc_lua_register_token(L);
    fpc_lua_register_source(L);
    return 1;
}
