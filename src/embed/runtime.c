/* runtime.c -- a Lua state in the hands of C.  Whatever may raise happens inside one protected call. */
#include "guards.h"
#include "preload.h"
#include "values.h"
#include "watch.h"

#include "fpcache/versions.h"
#include "pool_family.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fpc_family {
    fpc_lua_pool_family *pools;
};

static const char ANCHOR_KEY; /* its address, in the registry: what the results live by */

/* --- families --- */

fpc_status fpc_family_open(fpc_family **out, fpc_error *err) {
    fpc_family *family = calloc(1, sizeof *family);
    if (family != NULL) family->pools = fpc_lua_pool_family_new();
    if (family == NULL || family->pools == NULL) {
        free(family);
        return fpc_fail(err, FPC_NOMEM, "family");
    }
    *out = family;
    return FPC_OK;
}

void fpc_family_close(fpc_family *family) {
    if (family == NULL) return;
    fpc_lua_pool_family_delete(family->pools);
    free(family);
}

int fpc_family_pools(fpc_family *family) {
    return fpc_lua_pool_family_count(family->pools);
}

/* --- errors --- */

/* The status whose name stands before the message, after the place "chunk:12: " that error() may have put
 * there; then *message is the words behind it.  FPC_INVALID when there is none. */
static fpc_status take_status(const char **message) {
    const char *at = *message;
    for (int attempt = 0; attempt < 2; attempt++) {
        for (int status = FPC_OK + 1; status < FPC_STATUS_COUNT; status++) {
            const char *name = fpc_status_name((fpc_status)status);
            size_t length = strlen(name);
            if (strncmp(at, name, length) != 0 || strncmp(at + length, ": ", 2) != 0) continue;
            *message = at + length + 2;
            return (fpc_status)status;
        }
        const char *place = strchr(at, ':');
        size_t digits = place == NULL ? 0 : strspn(place + 1, "0123456789");
        if (digits == 0 || strncmp(place + 1 + digits, ": ", 2) != 0) break;
        at = place + digits + 3;
    }
    return FPC_INVALID;
}

/* Message handler: keeps the traceback, and answers the message as text. */
static int describe(lua_State *L) {
    fpc_runtime *runtime = *(fpc_runtime **)lua_getextraspace(L);
    const char *message = luaL_tolstring(L, 1, NULL);
    luaL_traceback(L, L, NULL, 1);
    free(runtime->traceback);
    runtime->traceback = strdup(lua_tostring(L, -1));
    lua_pop(L, 1);
    lua_pushstring(L, message);
    return 1;
}

static fpc_status told(fpc_runtime *runtime, int code, fpc_error *err) {
    fpc_status status = runtime->violation;
    const char *message = lua_tostring(runtime->L, -1);
    if (message == NULL) message = "an error without a text";
    if (code == LUA_ERRMEM && status == FPC_OK)
        return runtime->limits.memory == 0 ? fpc_fail(err, FPC_NOMEM, "out of memory")
                                           : fpc_fail(err, FPC_NOMEM, "the runtime needs more than %zu bytes",
                                                      runtime->limits.memory);
    if (status == FPC_OK) status = take_status(&message); /* which says it */
    char line[480];
    snprintf(line, sizeof line, "%s", message);
    for (char *at = line; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ') *at = ' ';
    }
    return fpc_fail(err, status, "%s", line);
}

/* --- opening and closing --- */

static int prepare(lua_State *L) {
    fpc_family *family = lua_touserdata(L, 1);
    luaL_openlibs(L);
    fpc_embed_preload(L);
    if (lua_toboolean(L, 2)) fpc_embed_guard(L);
    if (family != NULL) fpc_lua_join_pool_family(L, family->pools);
    return 0;
}

fpc_status fpc_runtime_open(const fpc_runtime_options *options, fpc_runtime **out, fpc_error *err) {
    fpc_runtime *runtime = calloc(1, sizeof *runtime);
    if (runtime == NULL) return fpc_fail(err, FPC_NOMEM, "runtime");
    if (options != NULL) runtime->limits = options->limits;
    runtime->is_watched = options == NULL || !options->unwatched;
    runtime->L = lua_newstate(fpc_embed_allocate, runtime);
    if (runtime->L == NULL) {
        free(runtime);
        return fpc_fail(err, FPC_NOMEM, "runtime");
    }
    *(fpc_runtime **)lua_getextraspace(runtime->L) = runtime;
    lua_pushcfunction(runtime->L, prepare);
    lua_pushlightuserdata(runtime->L, options == NULL ? NULL : options->family);
    lua_pushboolean(runtime->L, runtime->is_watched);
    int code = lua_pcall(runtime->L, 2, 0, 0);
    if (code != LUA_OK) {
        fpc_status status = told(runtime, code, err);
        fpc_runtime_close(runtime);
        return status;
    }
    fpc_embed_watch(runtime);
    *out = runtime;
    return FPC_OK;
}

void fpc_runtime_close(fpc_runtime *runtime) {
    if (runtime == NULL) return;
    runtime->limits.memory = 0; /* finalizers may run, and have the time of one call */
    fpc_embed_begin_call(runtime);
    lua_close(runtime->L);
    free(runtime->results);
    free(runtime->traceback);
    free(runtime);
}

void fpc_runtime_set_limits(fpc_runtime *runtime, const fpc_limits *limits) {
    runtime->limits = *limits;
}

size_t fpc_runtime_memory(const fpc_runtime *runtime) {
    return runtime->used;
}

void fpc_runtime_interrupt(fpc_runtime *runtime) {
    if (atomic_load(&runtime->is_in_call)) atomic_store(&runtime->is_interrupted, true);
}

const char *fpc_runtime_traceback(const fpc_runtime *runtime) {
    return runtime->traceback == NULL ? "" : runtime->traceback;
}

/* --- calls --- */

/* What is to be called, as the caller said it. */
typedef struct request {
    fpc_runtime *runtime;
    const char *code, *name; /* a chunk */
    size_t length;
    const char *path;     /* or a file */
    const char *function; /* or a function */
    const fpc_value *arguments;
    int argument_count;
    bool wants_results;
} request;

/* Pushes what a path such as "handlers.get" leads to. */
static void push_function(lua_State *L, const char *path) {
    const char *from = path;
    lua_pushglobaltable(L);
    for (;;) {
        size_t length = strcspn(from, ".");
        if (!lua_istable(L, -1)) break;
        lua_pushlstring(L, from, length);
        lua_gettable(L, -2);
        lua_remove(L, -2);
        if (from[length] == '\0') break;
        from += length + 1;
    }
    if (!lua_isfunction(L, -1)) luaL_error(L, "invalid: there is no function %s", path);
}

static void push_callee(lua_State *L, const request *what) {
    int code = LUA_OK;
    if (what->function != NULL) {
        push_function(L, what->function);
    } else if (what->path != NULL) {
        code = luaL_loadfilex(L, what->path, "t");
    } else {
        lua_pushfstring(L, "=%s", what->name);
        code = luaL_loadbufferx(L, what->code, what->length, lua_tostring(L, -1), "t");
        lua_remove(L, -2);
    }
    if (code != LUA_OK) lua_error(L);
}

static void keep_results(lua_State *L, fpc_runtime *runtime, int first) {
    int count = lua_gettop(L) - first + 1;
    if (count > runtime->result_room) {
        fpc_value *room = realloc(runtime->results, (size_t)count * sizeof *room);
        if (room == NULL) luaL_error(L, "nomem: %d results", count);
        runtime->results = room;
        runtime->result_room = count;
    }
    luaL_checkstack(L, 4, "results");
    lua_newtable(L);
    int anchor = lua_gettop(L);
    for (int i = 0; i < count; i++)
        fpc_embed_read_value(L, first + i, anchor, i + 1, "result", &runtime->results[i]);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &ANCHOR_KEY);
    runtime->result_count = count;
}

static int do_call(lua_State *L) {
    const request *what = lua_touserdata(L, 1);
    lua_settop(L, 0);
    push_callee(L, what);
    luaL_checkstack(L, what->argument_count + 4, "arguments");
    for (int i = 0; i < what->argument_count; i++) fpc_embed_push_value(L, &what->arguments[i]);
    lua_call(L, what->argument_count, what->wants_results ? LUA_MULTRET : 0);
    if (what->wants_results) keep_results(L, what->runtime, 1);
    return 0;
}

static fpc_status call(const request *what, const fpc_value **results, int *count, fpc_error *err) {
    fpc_runtime *runtime = what->runtime;
    lua_State *L = runtime->L;
    runtime->result_count = 0;
    free(runtime->traceback);
    runtime->traceback = NULL;
    fpc_embed_begin_call(runtime);
    lua_settop(L, 0);
    lua_pushcfunction(L, describe);
    lua_pushcfunction(L, do_call);
    lua_pushlightuserdata(L, (void *)what);
    int code = lua_pcall(L, 1, 0, 1);
    fpc_status status = code == LUA_OK ? FPC_OK : told(runtime, code, err);
    fpc_embed_end_call(runtime);
    lua_settop(L, 0);
    if (results != NULL) *results = runtime->results;
    if (count != NULL) *count = runtime->result_count;
    return status;
}

fpc_status fpc_runtime_run(fpc_runtime *runtime, const char *code, size_t length, const char *name,
                           const fpc_value **results, int *count, fpc_error *err) {
    request what = {
        .runtime = runtime, .code = code, .length = length, .name = name, .wants_results = count != NULL};
    return call(&what, results, count, err);
}

fpc_status fpc_runtime_run_file(fpc_runtime *runtime, const char *path, const fpc_value **results, int *count,
                                fpc_error *err) {
    request what = {.runtime = runtime, .path = path, .wants_results = count != NULL};
    return call(&what, results, count, err);
}

fpc_status fpc_runtime_call(fpc_runtime *runtime, const char *function, const fpc_value *arguments,
                            int argument_count, const fpc_value **results, int *count, fpc_error *err) {
    request what = {.runtime = runtime,
                    .function = function,
                    .arguments = arguments,
                    .argument_count = argument_count,
                    .wants_results = count != NULL};
    return call(&what, results, count, err);
}

/* --- functions of the host --- */

typedef struct host {
    fpc_host_function *function;
    void *data;
} host;

static int call_host(lua_State *L) {
    const host *self = lua_touserdata(L, lua_upvalueindex(1));
    int count = lua_gettop(L);
    fpc_value *arguments = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *arguments, 0);
    lua_newtable(L);
    int anchor = lua_gettop(L);
    for (int i = 1; i <= count; i++) fpc_embed_read_value(L, i, anchor, i, "argument", &arguments[i - 1]);
    fpc_error err = {.status = FPC_INVALID};
    fpc_value result = {.type = FPC_VALUE_NIL};
    fpc_status status = self->function(self->data, arguments, count, &result, &err);
    if (status != FPC_OK) return luaL_error(L, "%s: %s", fpc_status_name(status), err.message);
    fpc_embed_push_value(L, &result);
    return 1;
}

typedef struct definition {
    host self;
    const char *name;
} definition;

static int define(lua_State *L) {
    const definition *what = lua_touserdata(L, 1);
    host *self = lua_newuserdatauv(L, sizeof *self, 0);
    *self = what->self;
    lua_pushcclosure(L, call_host, 1);
    lua_setglobal(L, what->name);
    return 0;
}

fpc_status fpc_runtime_define(fpc_runtime *runtime, const char *name, fpc_host_function *function, void *data,
                              fpc_error *err) {
    definition what = {.self = {function, data}, .name = name};
    runtime->violation = FPC_OK;
    lua_pushcfunction(runtime->L, define);
    lua_pushlightuserdata(runtime->L, &what);
    int code = lua_pcall(runtime->L, 1, 0, 0);
    fpc_status status = code == LUA_OK ? FPC_OK : told(runtime, code, err);
    lua_settop(runtime->L, 0);
    return status;
}

const char *fpc_library_version(void) {
    return fpc_version();
}

const char *fpc_status_text(fpc_status status) {
    return fpc_status_name(status);
}
