/* process.c -- fpcache.core.run{...} and fpcache.core.spawn{...}: other programs, no shell.
 *
 * A program's description is one table; its strings stay referenced from that table for the
 * length of the call, so they are not copied. */
#include "fpcache/process.h"
#include "types.h"

#include <math.h>
#include <string.h>

#define RESULT_TYPE        "fpcache.process_result"
#define DEFAULT_TIMEOUT_S  60.0
#define DEFAULT_MAX_OUTPUT (64 * 1024)
#define MAX_OUTPUT_LIMIT   (1024.0 * 1024 * 1024)

static int result_gc(lua_State *L) {
    fpc_process_result_clear(luaL_checkudata(L, 1, RESULT_TYPE));
    return 0;
}

/* Pushes field `name`; whether it is there.  Raises unless it has the type. */
static bool push_field(lua_State *L, const char *name, int type) {
    lua_getfield(L, 1, name);
    if (lua_isnil(L, -1)) return false;
    if (lua_type(L, -1) != type)
        luaL_error(L, "%s: %s expected, got %s", name, lua_typename(L, type), luaL_typename(L, -1));
    return true;
}

static double number_field(lua_State *L, const char *name, double missing) {
    double value = push_field(L, name, LUA_TNUMBER) ? lua_tonumber(L, -1) : missing;
    lua_pop(L, 1);
    return value;
}

/* A string of the table; it lives as long as the table holds it.  Raises if it has a NUL. */
static const char *text_field(lua_State *L, const char *name) {
    const char *text = NULL;
    if (push_field(L, name, LUA_TSTRING)) {
        text = lua_tostring(L, -1);
        if (strlen(text) != lua_rawlen(L, -1)) luaL_error(L, "%s: holds a NUL byte", name);
    }
    lua_pop(L, 1);
    return text;
}

/* The list of strings `name` as a NULL-terminated array, left on the stack as a userdata. */
static const char **list_field(lua_State *L, const char *name) {
    if (!push_field(L, name, LUA_TTABLE)) return NULL;
    int list = lua_gettop(L);
    size_t n = lua_rawlen(L, list);
    const char **texts = lua_newuserdata(L, (n + 1) * sizeof *texts);
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, list, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "%s[%d]: string expected", name, (int)i + 1);
        texts[i] = lua_tostring(L, -1);
        if (strlen(texts[i]) != lua_rawlen(L, -1))
            luaL_error(L, "%s[%d]: holds a NUL byte", name, (int)i + 1);
        lua_pop(L, 1);
    }
    texts[n] = NULL;
    return texts;
}

static int64_t id_field(lua_State *L, const char *name) {
    double id = number_field(L, name, -1);
    if (!(id >= -1 && id < 4294967295.0 && floor(id) == id)) luaL_error(L, "%s: not an id", name);
    return (int64_t)id;
}

static void read_options(lua_State *L, fpc_process_options *options) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    options->argv = list_field(L, "argv");
    if (options->argv == NULL) luaL_error(L, "argv: table expected, got nil");
    options->env = list_field(L, "env");
    lua_getfield(L, 1, "clear_env");
    options->clear_env = lua_toboolean(L, -1);
    options->dir = text_field(L, "dir");
    options->uid = id_field(L, "uid");
    options->gid = id_field(L, "gid");
    if (push_field(L, "input", LUA_TSTRING)) options->input = lua_tolstring(L, -1, &options->input_len);
    lua_getfield(L, 1, "lock");
    if (!lua_isnil(L, -1)) options->keep_fd = fpc_lua_lock_fd(L, lua_gettop(L));
}

static int run(lua_State *L) {
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    fpc_error err;
    read_options(L, &options);
    double timeout = number_field(L, "timeout", DEFAULT_TIMEOUT_S);
    double max_output = number_field(L, "max_output", DEFAULT_MAX_OUTPUT);
    if (!(max_output >= 0 && max_output <= MAX_OUTPUT_LIMIT))
        return luaL_error(L, "max_output: out of range");
    fpc_process_result *result = lua_newuserdata(L, sizeof *result);
    memset(result, 0, sizeof *result);
    luaL_setmetatable(L, RESULT_TYPE);
    if (fpc_process_run(&options, (size_t)max_output, fpc_deadline_in(timeout), result, &err) != FPC_OK) {
        fpc_lua_failure(L, &err);
        lua_pushlstring(L, result->output != NULL ? result->output : "", result->output_len);
        fpc_process_result_clear(result);
        return 3;
    }
    lua_createtable(L, 0, 4);
    lua_pushlstring(L, result->output, result->output_len);
    lua_setfield(L, -2, "output");
    lua_pushboolean(L, result->truncated);
    lua_setfield(L, -2, "truncated");
    lua_pushinteger(L, result->signal != 0 ? result->signal : result->exit_status);
    lua_setfield(L, -2, result->signal != 0 ? "signal" : "status");
    fpc_process_result_clear(result);
    return 1;
}

static int spawn(lua_State *L) {
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    fpc_error err;
    int64_t pid;
    read_options(L, &options);
    const char *log = text_field(L, "log");
    if (log == NULL) return luaL_error(L, "log: string expected, got nil");
    double timeout = number_field(L, "timeout", DEFAULT_TIMEOUT_S);
    if (fpc_process_spawn(&options, log, fpc_deadline_in(timeout), &pid, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    fpc_lua_push_int64(L, pid);
    return 1;
}

void fpc_lua_register_process(lua_State *L) {
    luaL_newmetatable(L, RESULT_TYPE);
    lua_pushcfunction(L, result_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_pushcfunction(L, run);
    lua_setfield(L, -2, "run");
    lua_pushcfunction(L, spawn);
    lua_setfield(L, -2, "spawn");
}
