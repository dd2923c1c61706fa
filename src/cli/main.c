/* main.c -- the interpreter: a Lua 5.4 with fpcache and cjson built in.
 *
 * What the words of the command line mean is decided in lua/fpcache/cli/main.lua.  Here: the Lua state and
 * the built-in modules. */
#include "embedded.h"
#include "screen.h"
#include "signals.h"
#include "terminal.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

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

/* require("fpcache.sources"): the text of every built-in module by its name, for help. */
static int open_sources(lua_State *L) {
    lua_newtable(L);
    for (const fpc_embedded *module = FPC_EMBEDDED; module->name != NULL; module++) {
        lua_pushlstring(L, module->source, module->length);
        lua_setfield(L, -2, module->name);
    }
    return 1;
}

static void preload(lua_State *L) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fpcache_core);
    lua_setfield(L, -2, "fpcache.core");
    lua_pushcfunction(L, luaopen_cjson);
    lua_setfield(L, -2, "cjson");
    lua_pushcfunction(L, fpc_cli_open_terminal);
    lua_setfield(L, -2, "fpcache.terminal");
    lua_pushcfunction(L, fpc_cli_open_screen);
    lua_setfield(L, -2, "fpcache.screen");
    lua_pushcfunction(L, open_sources);
    lua_setfield(L, -2, "fpcache.sources");
    for (const fpc_embedded *module = FPC_EMBEDDED; module->name != NULL; module++) {
        lua_pushlightuserdata(L, (void *)module);
        lua_pushcclosure(L, load_embedded, 1);
        lua_setfield(L, -2, module->name);
    }
    lua_pop(L, 1);
}

static int add_traceback(lua_State *L) {
    const char *message = luaL_tolstring(L, 1, NULL);
    luaL_traceback(L, L, message, 1);
    return 1;
}

/* require("fpcache.cli.main")(argv) -> exit code */
static int run(lua_State *L) {
    int argc = (int)lua_tointeger(L, 1);
    char **argv = lua_touserdata(L, 2);
    luaL_openlibs(L);
    fpc_cli_signals_catch(L);
    preload(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "fpcache.cli.main");
    lua_call(L, 1, 1);
    lua_createtable(L, argc, 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_call(L, 1, 1);
    return 1;
}

int main(int argc, char **argv) {
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        fprintf(stderr, "fpcache: out of memory\n");
        return EXIT_FAILURE;
    }
    lua_pushcfunction(L, add_traceback);
    lua_pushcfunction(L, run);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    int code = EXIT_FAILURE;
    if (lua_pcall(L, 2, 1, 1) == LUA_OK)
        code = (int)lua_tointeger(L, -1);
    else if (fpc_cli_signals_caught() == 0)
        fprintf(stderr, "fpcache: %s\n", lua_tostring(L, -1));
    lua_sethook(L, NULL, 0, 0); /* finalizers may run */
    lua_close(L);
    return fpc_cli_signals_caught() == 0 ? code : 128 + fpc_cli_signals_caught();
}
