/* feed.c -- `core.feed(pool, options)`: the process's reader of the change feed, as one Lua state sees it.
 *
 * Spots and stamps are Lua numbers: both are below 2^53. */
#include "fpcache/feed.h"
#include "batch.h"
#include "fields.h"
#include "pool.h"

#include <math.h>
#include <string.h>

#define FEED_TYPE "fpcache.feed"
#define SPOT_MASK ((UINT64_C(1) << 32) - 1) /* the lowest bits of a hash are as good as the hash */
#define HASHES    256

fpc_feed **fpc_lua_check_feed(lua_State *L, int index) {
    return luaL_checkudata(L, index, FEED_TYPE);
}

static fpc_feed **check(lua_State *L) {
    return fpc_lua_check_feed(L, 1);
}

static int feed_close(lua_State *L) {
    fpc_feed **ud = check(L);
    if (*ud != NULL) fpc_lua_open_objects--;
    fpc_feed_close(*ud);
    *ud = NULL;
    return 0;
}

static double number_field(lua_State *L, const char *name) {
    lua_getfield(L, 2, name);
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "options.%s: a number is expected", name);
    double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

static bool flag_field(lua_State *L, const char *name) {
    lua_getfield(L, 2, name);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* A string of the table at `index`, which stays on the stack.  The table keeps the string. */
static const char *text_field(lua_State *L, int index, const char *name) {
    lua_getfield(L, index, name);
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "options: a string is expected for %s", name);
    const char *text = lua_tostring(L, -1);
    lua_pop(L, 1);
    return text;
}

/* core.feed(pool, { schema (quoted), interval, max_staleness, connect_timeout (seconds), filter,
 * filter_capacity, filter_fpr, prepared, listen, statements (of statements.feed()) }) -> feed | nil, err */
static int feed_new(lua_State *L) {
    const fpc_conninfo *info = fpc_lua_check_pool_conninfo(L, 1);
    fpc_error err;
    luaL_checktype(L, 2, LUA_TTABLE);
    const char *schema = text_field(L, 2, "schema");
    double capacity = number_field(L, "filter_capacity");
    fpc_feed_options options = {.interval_s = number_field(L, "interval"),
                                .max_staleness_s = number_field(L, "max_staleness"),
                                .connect_timeout_s = number_field(L, "connect_timeout"),
                                .filter = flag_field(L, "filter"),
                                .filter_capacity = capacity >= 1 && capacity < 1e18 ? (uint64_t)capacity : 1,
                                .filter_fpr = number_field(L, "filter_fpr"),
                                .prepared = flag_field(L, "prepared")};
    bool listen = options.prepared && flag_field(L, "listen");
    lua_getfield(L, 2, "statements");
    luaL_argcheck(L, lua_istable(L, -1), 2, "statements: a table is expected");
    int texts = lua_gettop(L);
    options.sql =
        (fpc_feed_sql){.session = !options.prepared ? NULL
                                  : listen          ? text_field(L, texts, "session_listening")
                                                    : text_field(L, texts, "session"),
                       .is_listening = listen ? text_field(L, texts, "is_listening") : NULL,
                       .poll = text_field(L, texts, "poll"),
                       .rotate = text_field(L, texts, "rotate"),
                       .begin_incarnation = text_field(L, texts, "begin_incarnation"),
                       .load_session = options.prepared ? text_field(L, texts, "load_session") : NULL,
                       .load = {text_field(L, texts, "load_count"), text_field(L, texts, "load_begin"),
                                text_field(L, texts, "load_incarnation"),
                                text_field(L, texts, "load_declare"), text_field(L, texts, "load_fetch")}};
    fpc_feed **ud = lua_newuserdata(L, sizeof(fpc_feed *));
    *ud = NULL;
    luaL_setmetatable(L, FEED_TYPE);
    fpc_status status = info == NULL ? fpc_fail(&err, FPC_CLOSED, "the cache was closed")
                                     : fpc_feed_open(info, schema, &options, ud, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_lua_open_objects++;
    return 1;
}

/* core.feed_seed(namespace) -> number, for the calls below */
static int feed_seed(lua_State *L) {
    size_t length;
    const char *space = luaL_checklstring(L, 1, &length);
    lua_pushnumber(L, (lua_Number)fpc_feed_seed(space, length));
    return 1;
}

/* Argument 2 is a seed. */
static uint64_t check_hash(lua_State *L, int index) {
    uint64_t seed = (uint64_t)luaL_checknumber(L, 2);
    size_t length;
    const char *key = luaL_checklstring(L, index, &length);
    return fpc_feed_hash(seed, key, length);
}

/* The question of a lookup.  LuaJIT's FFI calls this function without the detour by its stack (see
 * lua/fpcache/fast_feed.lua); `ud` is the userdata, which a closed feed still has. */
static bool look(fpc_feed **ud, double seed, const char *key, double length, double out[2]) {
    uint64_t hash = fpc_feed_hash((uint64_t)seed, key, (size_t)length), stamp = 0;
    bool absent = false;
    if (*ud != NULL) fpc_feed_look(*ud, hash, &absent, &stamp);
    out[0] = (double)(hash & SPOT_MASK);
    out[1] = (double)stamp;
    return absent;
}

/* core.feed_function() -> the address of look() as light userdata */
static int feed_function(lua_State *L) {
    bool (*to_look)(fpc_feed **, double, const char *, double, double *) = look;
    void *address;
    memcpy(&address, &to_look, sizeof address); /* C has no cast from one to the other */
    lua_pushlightuserdata(L, address);
    return 1;
}

/* feed:look(seed, stored_key) -> absent, spot, stamp (nil when stale) */
static int feed_look(lua_State *L) {
    fpc_feed **ud = check(L);
    double seed = luaL_checknumber(L, 2), out[2];
    size_t length;
    const char *key = luaL_checklstring(L, 3, &length);
    lua_pushboolean(L, look(ud, seed, key, (double)length, out));
    lua_pushnumber(L, (lua_Number)out[0]);
    if (out[1] == 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, (lua_Number)out[1]);
    return 3;
}

/* feed:is_current(spot, stamp) -> boolean */
static int feed_is_current(lua_State *L) {
    fpc_feed **ud = check(L);
    uint64_t spot = (uint64_t)luaL_checknumber(L, 2), stamp = (uint64_t)luaL_checknumber(L, 3);
    lua_pushboolean(L, *ud != NULL && fpc_feed_is_current(*ud, spot, stamp));
    return 1;
}

#define TIME_ROUNDING_NS 1000 /* what a Lua number may be off, and more */

/* feed:is_unchanged_since(spot, asked_at, ends) -> whether a copy that another process asked for then may be
 * given out */
static int feed_is_unchanged_since(lua_State *L) {
    fpc_feed **ud = check(L);
    uint64_t spot = (uint64_t)luaL_checknumber(L, 2);
    int64_t asked_at = (int64_t)(luaL_checknumber(L, 3) * (double)FPC_NS_PER_SECOND) - TIME_ROUNDING_NS;
    fpc_deadline ends = (fpc_deadline)(luaL_checknumber(L, 4) * (double)FPC_NS_PER_SECOND);
    lua_pushboolean(L, *ud != NULL && fpc_feed_is_unchanged_since(*ud, spot, asked_at, ends));
    return 1;
}

/* core.feed_bound(feed, most) -> look: the method without the feed, which it finds at once and keeps, and
 * with arguments that are taken as they are.  look(seed, key) answers nothing for a key that is no string of
 * 1 to `most` bytes. */
static int bound_look(lua_State *L) {
    size_t length, most = (size_t)lua_tonumber(L, lua_upvalueindex(2));
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tolstring(L, 2, &length) : NULL;
    if (key == NULL || length - 1 >= most) return 0;
    double out[2];
    fpc_feed **ud = lua_touserdata(L, lua_upvalueindex(1));
    lua_pushboolean(L, look(ud, lua_tonumber(L, 1), key, (double)length, out));
    lua_pushnumber(L, (lua_Number)out[0]);
    if (out[1] == 0) return 2;
    lua_pushnumber(L, (lua_Number)out[1]);
    return 3;
}

static int feed_bound(lua_State *L) {
    check(L);
    luaL_checknumber(L, 2);
    lua_settop(L, 2);
    lua_pushcclosure(L, bound_look, 2);
    return 1;
}

/* feed:stamp(spot) -> number, also when stale; nil when closed */
static int feed_stamp(lua_State *L) {
    fpc_feed **ud = check(L);
    uint64_t spot = (uint64_t)luaL_checknumber(L, 2);
    uint64_t stamp = *ud == NULL ? 0 : fpc_feed_stamp(*ud, spot);
    if (stamp == 0)
        lua_pushnil(L);
    else
        lua_pushnumber(L, (lua_Number)stamp);
    return 1;
}

/* feed:wrote(seed, stored_key) */
static int feed_wrote(lua_State *L) {
    fpc_feed **ud = check(L);
    uint64_t hash = check_hash(L, 3);
    if (*ud != NULL) fpc_feed_wrote(*ud, hash);
    return 0;
}

/* feed:wrote_keys(seed, list_of_stored_keys) */
static int feed_wrote_keys(lua_State *L) {
    fpc_feed **ud = check(L);
    uint64_t hashes[HASHES];
    luaL_checktype(L, 3, LUA_TTABLE);
    int rows = (int)lua_rawlen(L, 3), count = 0;
    for (int i = 1; i <= rows; i++) {
        lua_rawgeti(L, 3, i);
        hashes[count++] = check_hash(L, -1);
        lua_pop(L, 1);
        if (count < HASHES && i < rows) continue;
        if (*ud != NULL) fpc_feed_wrote_many(*ud, hashes, (size_t)count);
        count = 0;
    }
    return 0;
}

/* feed:wrote_batch(seed, batch) */
static int feed_wrote_batch(lua_State *L) {
    fpc_feed **ud = check(L);
    uint64_t seed = (uint64_t)luaL_checknumber(L, 2), hashes[HASHES];
    const fpc_batch *batch = fpc_lua_test_batch(L, 3);
    luaL_argcheck(L, batch != NULL, 3, "an open batch is expected");
    if (*ud == NULL) return 0;
    size_t rows = fpc_batch_rows(batch), count = 0;
    for (size_t i = 0; i < rows; i++) {
        char scratch[FPC_KEY_STORED_MAX];
        size_t length;
        const char *key = fpc_batch_stored_key(batch, i, scratch, &length);
        if (key == NULL) { /* no memory to hash a long key */
            fpc_feed_wrote_all(*ud);
            return 0;
        }
        hashes[count++] = fpc_feed_hash(seed, key, length);
        if (count < HASHES && i + 1 < rows) continue;
        fpc_feed_wrote_many(*ud, hashes, count);
        count = 0;
    }
    return 0;
}

/* core.feed_hashes(seed, batch) -> string for feed:wrote_hashes(), 8 bytes a row; nil when out of memory */
static int feed_hashes(lua_State *L) {
    uint64_t seed = (uint64_t)luaL_checknumber(L, 1);
    const fpc_batch *batch = fpc_lua_test_batch(L, 2);
    luaL_argcheck(L, batch != NULL, 2, "an open batch is expected");
    luaL_Buffer hashes;
    luaL_buffinit(L, &hashes);
    size_t rows = fpc_batch_rows(batch);
    for (size_t i = 0; i < rows; i++) {
        char scratch[FPC_KEY_STORED_MAX];
        size_t length;
        const char *key = fpc_batch_stored_key(batch, i, scratch, &length);
        if (key == NULL) return 0;
        uint64_t hash = fpc_feed_hash(seed, key, length);
        luaL_addlstring(&hashes, (const char *)&hash, sizeof hash);
    }
    luaL_pushresult(&hashes);
    return 1;
}

/* feed:wrote_hashes(string) */
static int feed_wrote_hashes(lua_State *L) {
    fpc_feed **ud = check(L);
    size_t length, part;
    const char *bytes = luaL_checklstring(L, 2, &length);
    uint64_t hashes[HASHES];
    for (; length >= sizeof hashes[0] && *ud != NULL; bytes += part, length -= part) {
        part = (length < sizeof hashes ? length : sizeof hashes) / sizeof hashes[0] * sizeof hashes[0];
        memcpy(hashes, bytes, part);
        fpc_feed_wrote_many(*ud, hashes, part / sizeof hashes[0]);
    }
    return 0;
}

/* feed:wrote_all() */
static int feed_wrote_all(lua_State *L) {
    fpc_feed **ud = check(L);
    if (*ud != NULL) fpc_feed_wrote_all(*ud);
    return 0;
}

/* feed:missed(count): the server had no such keys, though look() did not say so */
static int feed_missed(lua_State *L) {
    fpc_feed **ud = check(L);
    lua_Number count = luaL_checknumber(L, 2);
    if (*ud != NULL && count > 0) fpc_feed_missed(*ud, (uint64_t)count);
    return 0;
}

/* feed:wait_fresh(timeout) -> true | nil, err */
static int feed_wait_fresh(lua_State *L) {
    fpc_feed **ud = check(L);
    fpc_error err;
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 2));
    fpc_status status = *ud == NULL ? fpc_fail(&err, FPC_CLOSED, "the cache was closed")
                                    : fpc_feed_wait_fresh(*ud, deadline, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* feed:stats() -> table; names and meaning as in fpc_feed_stats */
static int feed_stats(lua_State *L) {
    static const char *const STATES[] = {"off", "loading", "fresh", "stale"};
    fpc_feed **ud = check(L);
    fpc_feed_stats stats = {.lag_s = (double)INFINITY};
    if (*ud != NULL) fpc_feed_get_stats(*ud, &stats);
    lua_newtable(L);
    fpc_lua_set_text(L, "feed", STATES[stats.feed]);
    fpc_lua_set_text(L, "filter", STATES[stats.filter]);
    fpc_lua_set_number(L, "lag_s", stats.lag_s);
    fpc_lua_set_count(L, "polls", stats.polls);
    fpc_lua_set_count(L, "poll_failures", stats.poll_failures);
    fpc_lua_set_count(L, "changes", stats.changes);
    fpc_lua_set_count(L, "wakeups", stats.wakeups);
    fpc_lua_set_boolean(L, "listening", stats.listening);
    fpc_lua_set_count(L, "reloads", stats.reloads);
    fpc_lua_set_count(L, "load_failures", stats.load_failures);
    fpc_lua_set_count(L, "fell_behind", stats.fell_behind);
    fpc_lua_set_count(L, "incarnation_changes", stats.incarnation_changes);
    fpc_lua_set_count(L, "filter_keys", stats.filter_keys);
    fpc_lua_set_count(L, "filter_capacity", stats.filter_capacity);
    fpc_lua_set_count(L, "filter_bytes", stats.filter_bytes);
    fpc_lua_set_count(L, "filter_dead", stats.filter_dead);
    fpc_lua_set_number(L, "filter_fpr", stats.filter_fpr);
    fpc_lua_set_number(L, "filter_load_s", stats.filter_load_s);
    fpc_lua_set_text(L, "incarnation", stats.incarnation);
    fpc_lua_set_text(L, "position", stats.position);
    fpc_lua_set_text(L, "last_error", stats.last_error);
    return 1;
}

void fpc_lua_register_feed(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"look", feed_look},
                                       {"is_current", feed_is_current},
                                       {"is_unchanged_since", feed_is_unchanged_since},
                                       {"stamp", feed_stamp},
                                       {"wrote", feed_wrote},
                                       {"wrote_keys", feed_wrote_keys},
                                       {"wrote_batch", feed_wrote_batch},
                                       {"wrote_hashes", feed_wrote_hashes},
                                       {"wrote_all", feed_wrote_all},
                                       {"missed", feed_missed},
                                       {"wait_fresh", feed_wait_fresh},
                                       {"stats", feed_stats},
                                       {NULL, NULL}};
    fpc_lua_new_type(L, FEED_TYPE, METHODS, feed_close);
    lua_pushcfunction(L, feed_new);
    lua_setfield(L, -2, "feed");
    lua_pushcfunction(L, feed_seed);
    lua_setfield(L, -2, "feed_seed");
    lua_pushcfunction(L, feed_hashes);
    lua_setfield(L, -2, "feed_hashes");
    lua_pushcfunction(L, feed_bound);
    lua_setfield(L, -2, "feed_bound");
    lua_pushcfunction(L, feed_function);
    lua_setfield(L, -2, "feed_function");
}
