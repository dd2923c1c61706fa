/* guards.c -- Lua calls finalizers, and the message handler of an error that the hook raises, with the hook
 * off: an endless one would never end.  So finalizers run in a coroutine of their own, which has its own
 * hook; and the error of a limit has no handler.
 *
 * Who wants to get around it can: a runtime is no sandbox. */
#include "guards.h"

#include "watch.h"

#include <lauxlib.h>

/* --- finalizers --- */

/* __gc(object): upvalue 1 is the script's function. */
static int finalize(lua_State *L) {
    lua_settop(L, 1);
    if (fpc_embed_is_over(L)) return 0; /* it would be ended at once */
    lua_State *own = lua_newthread(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_xmove(L, own, 2);
    int ignored;
    if (lua_resume(own, L, 1, &ignored) > LUA_YIELD) { /* Lua makes a warning of it */
        lua_xmove(own, L, 1);
        return lua_error(L);
    }
    return 0;
}

/* Has the finalizer in the metatable at `index` run by finalize(). */
static void guard_finalizer(lua_State *L, int index) {
    if (!lua_istable(L, index)) return;
    lua_pushliteral(L, "__gc");
    lua_rawget(L, index);
    if (lua_isfunction(L, -1) && !lua_iscfunction(L, -1)) {
        lua_pushliteral(L, "__gc");
        lua_insert(L, -2);
        lua_pushcclosure(L, finalize, 1);
        lua_rawset(L, index);
    } else {
        lua_pop(L, 1);
    }
}

/* setmetatable(object, metatable): upvalue 1 is Lua's. */
static int set_metatable(lua_State *L) {
    lua_settop(L, lua_gettop(L) < 2 ? lua_gettop(L) : 2);
    if (lua_gettop(L) == 2) guard_finalizer(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, 1);
    return 1;
}

/* --- message handlers --- */

/* handler(error): upvalue 1 is the script's. */
static int handle(lua_State *L) {
    lua_settop(L, 1);
    if (fpc_embed_is_over(L)) return 1;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* f and the handler stand before true and the results. */
static int finish(lua_State *L, int status, lua_KContext context) {
    (void)context;
    if (status == LUA_OK || status == LUA_YIELD) return lua_gettop(L) - 2;
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -2);
    return 2;
}

static int guarded_xpcall(lua_State *L) {
    int count = lua_gettop(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, handle, 1);
    lua_replace(L, 2); /* f, handler, arguments */
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2); /* f, handler, true, f, arguments */
    return finish(L, lua_pcallk(L, count - 2, LUA_MULTRET, 2, 0, finish), 0);
}

static int refuse_hook(lua_State *L) {
    return luaL_error(L, "invalid: the limits of this runtime need the hook; open it unwatched for another");
}

static void wrap(lua_State *L, int table, const char *name) {
    lua_getfield(L, table, name);
    lua_pushcclosure(L, set_metatable, 1);
    lua_setfield(L, table, name);
}

void fpc_embed_guard(lua_State *L) {
    lua_pushglobaltable(L);
    int globals = lua_gettop(L);
    lua_getfield(L, globals, "debug");
    wrap(L, globals, "setmetatable");
    wrap(L, globals + 1, "setmetatable");
    lua_pushcfunction(L, guarded_xpcall);
    lua_setfield(L, globals, "xpcall");
    lua_pushcfunction(L, refuse_hook);
    lua_setfield(L, globals + 1, "sethook");
    lua_pop(L, 2);
}
