/* watch.c -- a count hook, which every coroutine inherits from the one that makes it.
 *
 * Once a limit is exceeded the hook raises at every call and every few instructions, so that a script that
 * catches errors in a loop ends too. */
#include "watch.h"

#include <lauxlib.h>
#include <stdlib.h>

#define EVERY       1000 /* instructions */
#define EVERY_AFTER 100

void *fpc_embed_allocate(void *data, void *block, size_t old_size, size_t new_size) {
    fpc_runtime *runtime = data;
    if (block == NULL) old_size = 0; /* then it tells a type */
    if (new_size == 0) {
        free(block);
        runtime->used -= old_size;
        return NULL;
    }
    size_t limit = runtime->limits.memory;
    if (limit != 0 && new_size > old_size && runtime->used - old_size + new_size > limit) return NULL;
    void *moved = realloc(block, new_size);
    if (moved != NULL) runtime->used += new_size - old_size;
    return moved;
}

static fpc_runtime *runtime_of(lua_State *L) {
    return *(fpc_runtime **)lua_getextraspace(L); /* coroutines have a copy of the main state's */
}

static fpc_status look(fpc_runtime *runtime) {
    if (runtime->violation != FPC_OK) return runtime->violation;
    if (atomic_load(&runtime->is_interrupted)) return FPC_INTERRUPTED;
    const fpc_limits *limits = &runtime->limits;
    if (limits->instructions != 0 && runtime->instructions > limits->instructions) return FPC_TIMEOUT;
    if (limits->seconds > 0 && fpc_deadline_passed(runtime->deadline)) return FPC_TIMEOUT;
    return FPC_OK;
}

static void on_event(lua_State *L, lua_Debug *event) {
    fpc_runtime *runtime = runtime_of(L);
    bool is_close = lua_gethookcount(L) == EVERY_AFTER;
    if (event->event == LUA_HOOKCOUNT) runtime->instructions += is_close ? EVERY_AFTER : EVERY;
    fpc_status status = look(runtime);
    if (status == FPC_OK) {
        if (is_close) lua_sethook(L, on_event, LUA_MASKCOUNT, EVERY); /* it outlived the call that failed */
        return;
    }
    runtime->violation = status;
    lua_sethook(L, on_event, LUA_MASKCALL | LUA_MASKRET | LUA_MASKCOUNT, EVERY_AFTER);
    if (status == FPC_INTERRUPTED)
        luaL_error(L, "the call was interrupted");
    else if (runtime->limits.seconds > 0 && fpc_deadline_passed(runtime->deadline))
        luaL_error(L, "the call takes more than %f seconds", runtime->limits.seconds);
    else
        luaL_error(L, "the call takes more than %I instructions", (LUAI_UACINT)runtime->limits.instructions);
}

bool fpc_embed_is_over(lua_State *L) {
    return runtime_of(L)->violation != FPC_OK;
}

void fpc_embed_watch(fpc_runtime *runtime) {
    *(fpc_runtime **)lua_getextraspace(runtime->L) = runtime;
    if (runtime->is_watched) lua_sethook(runtime->L, on_event, LUA_MASKCOUNT, EVERY);
}

void fpc_embed_begin_call(fpc_runtime *runtime) {
    runtime->instructions = 0;
    runtime->violation = FPC_OK;
    runtime->deadline = runtime->limits.seconds > 0 ? fpc_deadline_in(runtime->limits.seconds) : FPC_NEVER;
    atomic_store(&runtime->is_interrupted, false);
    atomic_store(&runtime->is_in_call, true);
}

void fpc_embed_end_call(fpc_runtime *runtime) {
    atomic_store(&runtime->is_in_call, false);
    fpc_embed_watch(runtime);
}
