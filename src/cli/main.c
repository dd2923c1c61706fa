/* main.c -- the interpreter: a Lua 5.4 with fpcache and cjson built in.
 *
 * What the words of the command line mean is decided in lua/fpcache/cli/main.lua.  Here: the Lua state,
 * the built-in modules, and signals.
 *
 * A first SIGINT or SIGTERM interrupts the script: waits for the server end at once, and a hook raises an
 * error at the next Lua instruction.  Then the state is closed, which closes the connections, and the server
 * rolls back what was under way.  Where the hook does not come to be called (in another coroutine, in a long
 * C function), the program ends anyway after some seconds.  A second signal kills. */
#include "embedded.h"
#include "fpcache/wait.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int luaopen_fpcache_core(lua_State *L);
int luaopen_cjson(lua_State *L);

#define GRACE_SECONDS 2 /* from the first signal to the end */

static lua_State *interrupted_state; /* written before the handlers are installed */
static volatile sig_atomic_t caught_signal;

/* Raised again every few instructions, so that a script that catches errors in a loop ends too. */
static void raise_interrupt(lua_State *L, lua_Debug *ar) {
    (void)ar;
    luaL_error(L, "interrupted");
}

static void on_grace_over(int number) {
    (void)number;
    _exit(128 + caught_signal); /* the kernel closes the connections */
}

static void on_signal(int number) {
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    sigaction(number, &fallback, NULL);
    caught_signal = number;
    alarm(GRACE_SECONDS);
    fpc_interrupt_raise();
    lua_sethook(interrupted_state, raise_interrupt, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, 100);
}

static void catch_signals(lua_State *L) {
    fpc_error err;
    if (fpc_interrupt_enable(&err) != FPC_OK) fprintf(stderr, "fpcache: %s\n", err.message);
    interrupted_state = L;
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: waits must notice */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    struct sigaction last = {.sa_handler = on_grace_over};
    sigaction(SIGALRM, &last, NULL);
}

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

static void preload(lua_State *L) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_fpcache_core);
    lua_setfield(L, -2, "fpcache.core");
    lua_pushcfunction(L, luaopen_cjson);
    lua_setfield(L, -2, "cjson");
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
    catch_signals(L);
    lua_pushcfunction(L, add_traceback);
    lua_pushcfunction(L, run);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    int code = EXIT_FAILURE;
    if (lua_pcall(L, 2, 1, 1) == LUA_OK)
        code = (int)lua_tointeger(L, -1);
    else if (caught_signal == 0)
        fprintf(stderr, "fpcache: %s\n", lua_tostring(L, -1));
    lua_sethook(L, NULL, 0, 0); /* finalizers may run */
    lua_close(L);
    return caught_signal == 0 ? code : 128 + caught_signal;
}
