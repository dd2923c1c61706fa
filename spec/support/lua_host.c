/* lua_host.c -- the smallest program that runs a Lua script, for the specs.
 *
 * Linked with the LuaJIT library it is `luajit-host` (Debian's program `luajit` cannot be
 * installed beside nginx's LuaJIT library); linked with Lua 5.4 it is `lua54-host`, which a
 * sanitizer build instruments, as Debian's `lua5.4` is not.
 *
 * Usage: HOST SCRIPT [ARGS...], HOST - [ARGS...] (script on stdin), HOST -e CODE [ARGS...].
 * `arg` and `...` are as with `lua`.  Exit code 0, or 1 after an error, whose traceback goes
 * to stderr. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <string.h>

static int add_traceback(lua_State *L) {
    const char *message = lua_tostring(L, 1);
    if (message == NULL) message = luaL_typename(L, 1);
    luaL_traceback(L, L, message, 1);
    return 1;
}

/* Protected body: argc and argv from the light userdata below. */
struct command_line {
    int argc;
    char **argv;
};

static int run(lua_State *L) {
    const struct command_line *line = lua_touserdata(L, 1);
    int script = strcmp(line->argv[1], "-e") == 0 ? 2 : 1; /* index of what to run */
    luaL_openlibs(L);

    lua_createtable(L, line->argc - script - 1, script + 1);
    for (int i = 0; i < line->argc; i++) {
        lua_pushstring(L, line->argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");

    const char *what = line->argv[script];
    const char *file = strcmp(what, "-") == 0 ? NULL : what; /* NULL: stdin */
    if ((script == 2 ? luaL_loadbuffer(L, what, strlen(what), "=(command line)") : luaL_loadfile(L, file)) !=
        0)
        return lua_error(L);

    int arguments = line->argc - script - 1;
    luaL_checkstack(L, arguments, "too many arguments");
    for (int i = script + 1; i < line->argc; i++) lua_pushstring(L, line->argv[i]);
    lua_call(L, arguments, 0);
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2 || (strcmp(argv[1], "-e") == 0 && argc < 3)) {
        fprintf(stderr, "usage: %s SCRIPT [ARGS...] | - [ARGS...] | -e CODE [ARGS...]\n", argv[0]);
        return 1;
    }
    lua_State *L = luaL_newstate();
    if (L == NULL) {
        fprintf(stderr, "%s: out of memory\n", argv[0]);
        return 1;
    }
    struct command_line line = {argc, argv};
    lua_pushcfunction(L, add_traceback);
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &line);
    int failed = lua_pcall(L, 1, 0, 1);
    if (failed) fprintf(stderr, "%s: %s\n", argv[0], lua_tostring(L, -1));
    lua_close(L);
    return failed ? 1 : 0;
}
