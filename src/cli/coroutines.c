/* coroutines.c -- Lua's own resume and wrap, with a note of who runs.
 *
 * The note lives on the C stack around lua_resume(), which raises nothing: it is always taken back. */
#include "coroutines.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct running {
    lua_State *co;
    struct running *before;
} running;

static running *volatile chain; /* read by signal handlers */
static void (*prepare_to_run)(lua_State *co);

void fpc_cli_coroutines_each(void (*act)(lua_State *co)) {
    for (running *one = chain; one != NULL; one = one->before) act(one->co);
}

static int resume_noted(lua_State *co, lua_State *from, int arguments, int *results) {
    running note = {co, chain};
    atomic_signal_fence(memory_order_seq_cst);
    chain = &note;
    prepare_to_run(co); /* after the note: a signal is seen by one of the two */
    int status = lua_resume(co, from, arguments, results);
    chain = note.before;
    return status;
}

/* Moves the arguments, resumes, moves the results; the count of these, or -1 and an error on the stack. */
static int resume(lua_State *L, lua_State *co, int arguments) {
    int results = 0;
    if (!lua_checkstack(co, arguments)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, arguments);
    int status = resume_noted(co, L, arguments, &results);
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return -1;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, results);
    return results;
}

static int tracked_resume(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTHREAD);
    int results = resume(L, lua_tothread(L, 1), lua_gettop(L) - 1);
    lua_pushboolean(L, results >= 0);
    lua_insert(L, results >= 0 ? -(results + 1) : -2);
    return results >= 0 ? results + 1 : 2;
}

static int close_coroutine(lua_State *L, lua_State *co) {
#if LUA_VERSION_RELEASE_NUM >= 50406
    return lua_closethread(co, L);
#else
    (void)L;
    return lua_resetthread(co);
#endif
}

static int call_wrapped(lua_State *L) {
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int results = resume(L, co, lua_gettop(L));
    if (results >= 0) return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) { /* its variables to be closed are */
        status = close_coroutine(L, co);
        lua_xmove(co, L, 1);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int tracked_wrap(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, call_wrapped, 1);
    return 1;
}

void fpc_cli_coroutines_track(lua_State *L, void (*prepare)(lua_State *co)) {
    prepare_to_run = prepare;
    lua_getglobal(L, "coroutine");
    lua_pushcfunction(L, tracked_resume);
    lua_setfield(L, -2, "resume");
    lua_pushcfunction(L, tracked_wrap);
    lua_setfield(L, -2, "wrap");
    lua_pop(L, 1);
}
