/* terms.c -- `core.terms(feed)`: when the copies of one near cache may be given out (see fpcache/terms.h).
 *
 * Spots and stamps are Lua numbers, as feed.c has them; ends are seconds as system.now() has them. */
#include "fpcache/terms.h"
#include "types.h"

#include <math.h>
#include <string.h>

#define TERMS_TYPE "fpcache.terms"
#define LAST_END   9e9 /* seconds; in nanoseconds more would not fit */

typedef struct terms_ud {
    fpc_feed **feed; /* of the feed's userdata, which whoever asks is_current() keeps; a closed one has it */
    fpc_terms terms;
} terms_ud;

static terms_ud *check(lua_State *L) {
    return luaL_checkudata(L, 1, TERMS_TYPE);
}

static size_t check_slot(lua_State *L) {
    lua_Number slot = luaL_checknumber(L, 2);
    luaL_argcheck(L, slot >= 0 && slot <= INT32_MAX, 2, "a slot is expected");
    return (size_t)slot;
}

/* terms:put(slot, spot, stamp, ends) -> true | false when there is no memory */
static int terms_put(lua_State *L) {
    terms_ud *ud = check(L);
    size_t slot = check_slot(L);
    double spot = luaL_checknumber(L, 3), stamp = luaL_checknumber(L, 4), ends = luaL_checknumber(L, 5);
    fpc_deadline until = ends < LAST_END ? (fpc_deadline)(ends * (double)FPC_NS_PER_SECOND) : FPC_NEVER;
    lua_pushboolean(L, fpc_terms_put(&ud->terms, slot, (uint64_t)spot, (uint64_t)stamp, until));
    return 1;
}

/* terms:get(slot) -> spot, stamp, ends as they were put; nothing for a slot without terms */
static int terms_get(lua_State *L) {
    terms_ud *ud = check(L);
    size_t slot = check_slot(L);
    const fpc_term *term = slot < ud->terms.room ? &ud->terms.of[slot] : NULL;
    if (term == NULL || term->stamp == 0) return 0;
    lua_pushnumber(L, (lua_Number)term->spot);
    lua_pushnumber(L, (lua_Number)term->stamp);
    lua_pushnumber(L, term->ends == FPC_NEVER ? HUGE_VAL : (double)term->ends / (double)FPC_NS_PER_SECOND);
    return 3;
}

/* terms:held() -> how often is_current() was true */
static int terms_held(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check(L)->terms.held);
    return 1;
}

/* LuaJIT's FFI calls this without the detour by its stack (see lua/fpcache/fast_feed.lua). */
static bool is_current(terms_ud *ud, int32_t slot) {
    return fpc_terms_hold(&ud->terms, *ud->feed, (size_t)slot);
}

static int bound_is_current(lua_State *L) {
    terms_ud *ud = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushboolean(L, is_current(ud, (int32_t)lua_tonumber(L, 1)));
    return 1;
}

/* core.terms(feed) -> terms, is_current: is_current(slot) says whether what was put there holds, keeps both
 * alive, and takes its argument as it is */
static int terms_new(lua_State *L) {
    fpc_feed **feed = fpc_lua_check_feed(L, 1);
    terms_ud *ud = lua_newuserdata(L, sizeof *ud);
    *ud = (terms_ud){.feed = feed};
    luaL_setmetatable(L, TERMS_TYPE);
    lua_pushvalue(L, -1);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, bound_is_current, 2);
    return 2;
}

/* core.terms_function() -> the address of is_current() as light userdata */
static int terms_function(lua_State *L) {
    bool (*to_is_current)(terms_ud *, int32_t) = is_current;
    void *address;
    memcpy(&address, &to_is_current, sizeof address); /* C has no cast from one to the other */
    lua_pushlightuserdata(L, address);
    return 1;
}

static int terms_close(lua_State *L) {
    fpc_terms_clear(&check(L)->terms);
    return 0;
}

void fpc_lua_register_terms(lua_State *L) {
    static const luaL_Reg METHODS[] = {
        {"put", terms_put}, {"get", terms_get}, {"held", terms_held}, {NULL, NULL}};
    fpc_lua_new_type(L, TERMS_TYPE, METHODS, terms_close);
    lua_pushcfunction(L, terms_new);
    lua_setfield(L, -2, "terms");
    lua_pushcfunction(L, terms_function);
    lua_setfield(L, -2, "terms_function");
}
