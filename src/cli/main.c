/* main.c -- the interpreter: a Lua 5.4 with fpcache and cjson built in.
 *
 * What the words of the command line mean is decided in lua/fpcache/cli/main.lua.  Here: the Lua state and
 * the built-in modules. */
#include "embedded.h"
#include "preload.h"
#include "screen.h"
#include "signals.h"
#include "terminal.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

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
    fpc_embed_preload(L);
    fpc_embed_preload_function(L, "fpcache.terminal", fpc_cli_open_terminal);
    fpc_embed_preload_function(L, "fpcache.screen", fpc_cli_open_screen);
    fpc_embed_preload_function(L, "fpcache.sources", open_sources);
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
