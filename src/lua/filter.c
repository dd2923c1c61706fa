/* filter.c -- `core.filter(...)`: the cuckoo filter as a userdata.
 *
 * Methods carry the names of the public class (lua/fpcache/cuckoo_filter.lua), whose instances these userdata
 * are.  LuaJIT's compiler cannot call C functions of Lua's API, so the calls made for every key are also
 * offered as plain C functions for its FFI (core.filter_ffi): measured, 11 ns a lookup instead of 36. */
#include "fpcache/filter.h"
#include "fields.h"
#include "types.h"

#include <math.h>

#define FILTER_TYPE "fpcache.filter"
#define FULL        "the filter holds as many keys as it has room for"
#define CHUNK       256 /* keys handed to the core at once */

typedef struct filter_ud {
    fpc_filter *filter; /* NULL: closed */
} filter_ud;

static filter_ud *check(lua_State *L, int index) {
    return luaL_checkudata(L, index, FILTER_TYPE);
}

static fpc_filter *check_open(lua_State *L, int index) {
    filter_ud *ud = check(L, index);
    luaL_argcheck(L, ud->filter != NULL, index, "filter is closed");
    return ud->filter;
}

/* Numbers are refused: 1 and 1.0 are the same key in one runtime and not in the other. */
static const char *check_key(lua_State *L, int index, size_t *length) {
    luaL_checktype(L, index, LUA_TSTRING);
    return lua_tolstring(L, index, length);
}

static int push_status(lua_State *L, fpc_status status) {
    fpc_error err;
    fpc_fail(&err, status,
             status == FPC_FULL ? "the filter holds as many keys as it has room for" : "filter");
    return fpc_lua_failure(L, &err);
}

/* --- Life --- */

static int filter_close(lua_State *L) {
    filter_ud *ud = check(L, 1);
    if (ud->filter != NULL) fpc_lua_open_objects--;
    fpc_filter_delete(ud->filter);
    ud->filter = NULL;
    return 0;
}

/* A closed filter on the stack, so that an error between here and opened() leaks nothing. */
static filter_ud *push_closed(lua_State *L) {
    filter_ud *ud = lua_newuserdata(L, sizeof *ud);
    ud->filter = NULL;
    luaL_setmetatable(L, FILTER_TYPE);
    return ud;
}

static int opened(lua_State *L, fpc_status status, const fpc_error *err) {
    if (status != FPC_OK) return fpc_lua_failure(L, err);
    fpc_lua_open_objects++;
    return 1;
}

/* filter(capacity, fpr or nil, fingerprint_bits or nil, grow, seed or nil, compact) -> filter | nil, err
 * A number that cannot be right becomes one that the core refuses in its own words. */
static int filter_new(lua_State *L) {
    fpc_error err;
    size_t seed_length = 0;
    lua_Number capacity = luaL_checknumber(L, 1);
    lua_Number fpr = luaL_optnumber(L, 2, 0), bits = luaL_optnumber(L, 3, 0);
    fpc_filter_options options = {.grow = lua_toboolean(L, 4),
                                  .seed = luaL_optlstring(L, 5, NULL, &seed_length),
                                  .compact = lua_toboolean(L, 6)};
    luaL_argcheck(L, options.seed == NULL || seed_length == FPC_FILTER_SEED_BYTES, 5,
                  "the seed has 16 bytes");
    options.capacity = capacity >= 1 && capacity <= 1e15 ? (uint64_t)capacity : 0;
    options.fpr = lua_isnoneornil(L, 2) || fpr != 0 ? fpr : -1;
    options.fingerprint_bits = lua_isnoneornil(L, 3) ? 0 : bits >= 1 && bits <= 100 ? (unsigned)bits : 100;
    filter_ud *ud = push_closed(L);
    return opened(L, fpc_filter_new(&options, &ud->filter, &err), &err);
}

static int filter_load(lua_State *L) {
    fpc_error err;
    size_t length;
    const char *bytes = check_key(L, 1, &length);
    filter_ud *ud = push_closed(L);
    return opened(L, fpc_filter_load(bytes, length, &ud->filter, &err), &err);
}

static int filter_like(lua_State *L) {
    fpc_error err;
    fpc_filter *model = check_open(L, 1);
    filter_ud *ud = push_closed(L);
    return opened(L, fpc_filter_new_like(model, &ud->filter, &err), &err);
}

static int filter_copy(lua_State *L) {
    fpc_error err;
    fpc_filter *filter = check_open(L, 1);
    filter_ud *ud = push_closed(L);
    return opened(L, fpc_filter_copy(filter, &ud->filter, &err), &err);
}

static int filter_save(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    size_t length = fpc_filter_save_size(filter);
    void *bytes = lua_newuserdata(L, length); /* the collector's, so an error leaks nothing */
    fpc_filter_save(filter, bytes);
    lua_pushlstring(L, bytes, length);
    return 1;
}

/* --- One key --- */

static int filter_insert(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    size_t length;
    const char *key = check_key(L, 2, &length);
    fpc_status status = fpc_filter_add(filter, key, length);
    if (status != FPC_OK) return push_status(L, status);
    lua_pushboolean(L, 1);
    return 1;
}

static int filter_insert_if_absent(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    size_t length;
    const char *key = check_key(L, 2, &length);
    bool added;
    fpc_status status = fpc_filter_add_if_absent(filter, key, length, &added);
    if (status != FPC_OK) return push_status(L, status);
    lua_pushboolean(L, added);
    return 1;
}

static int filter_lookup(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    size_t length;
    const char *key = check_key(L, 2, &length);
    lua_pushboolean(L, fpc_filter_contains(filter, key, length));
    return 1;
}

static int filter_delete(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    size_t length;
    const char *key = check_key(L, 2, &length);
    lua_pushboolean(L, fpc_filter_remove(filter, key, length));
    return 1;
}

/* --- Lists of keys --- */

typedef struct chunk {
    const void *keys[CHUNK];
    size_t lens[CHUNK];
    size_t count;
} chunk;

/* Elements `from` ... of the list at `index`.  The list keeps the strings alive: no Lua code runs until the
 * chunk was used. */
static void read_chunk(lua_State *L, int index, size_t from, size_t length, chunk *c) {
    c->count = length - from < CHUNK ? length - from : CHUNK;
    for (size_t i = 0; i < c->count; i++) {
        lua_rawgeti(L, index, (int)(from + i + 1));
        if (lua_type(L, -1) != LUA_TSTRING) {
            luaL_error(L, "bad argument #1 (key %d: string expected, got %s)", (int)(from + i + 1),
                       luaL_typename(L, -1));
        }
        c->keys[i] = lua_tolstring(L, -1, &c->lens[i]);
        lua_pop(L, 1);
    }
}

/* filter:insert_many(keys) -> how many | how many, err */
static int filter_insert_many(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t length = lua_rawlen(L, 2), added = 0;
    fpc_status status = FPC_OK;
    chunk c;
    for (size_t at = 0; at < length && status == FPC_OK; at += CHUNK) {
        read_chunk(L, 2, at, length, &c);
        added += fpc_filter_add_many(filter, c.keys, c.lens, c.count, &status);
    }
    lua_pushinteger(L, (lua_Integer)added);
    if (status == FPC_OK) return 1;
    push_status(L, status);
    lua_remove(L, -2); /* the nil */
    return 2;
}

/* filter:lookup_many(keys) -> list of booleans */
static int filter_lookup_many(lua_State *L) {
    fpc_filter *filter = check_open(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t length = lua_rawlen(L, 2);
    chunk c;
    bool found[CHUNK];
    lua_createtable(L, length < 1000000 ? (int)length : 0, 0);
    for (size_t at = 0; at < length; at += CHUNK) {
        read_chunk(L, 2, at, length, &c);
        fpc_filter_contains_many(filter, c.keys, c.lens, c.count, found);
        for (size_t i = 0; i < c.count; i++) {
            lua_pushboolean(L, found[i]);
            lua_rawseti(L, -2, (int)(at + i + 1));
        }
    }
    return 1;
}

/* --- The whole filter --- */

static int filter_clear(lua_State *L) {
    fpc_filter_clear(check_open(L, 1));
    return 0;
}

static int filter_union(lua_State *L) {
    fpc_error err;
    fpc_filter *into = check_open(L, 1), *from = check_open(L, 2);
    if (fpc_filter_union(into, from, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static fpc_filter_stats stats_of(lua_State *L) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(check_open(L, 1), &stats);
    return stats;
}

static int filter_stats(lua_State *L) {
    fpc_filter_stats stats = stats_of(L);
    lua_createtable(L, 0, 13);
    fpc_lua_set_count(L, "size", stats.size);
    fpc_lua_set_count(L, "capacity", stats.capacity);
    fpc_lua_set_count(L, "slots", stats.slots);
    fpc_lua_set_count(L, "bytes", stats.bytes);
    fpc_lua_set_count(L, "overflow", stats.overflow);
    fpc_lua_set_count(L, "full_adds", stats.full_adds);
    fpc_lua_set_count(L, "fingerprint_bits", stats.fingerprint_bits);
    fpc_lua_set_count(L, "tables", stats.tables);
    fpc_lua_set_number(L, "load_factor", stats.load_factor);
    fpc_lua_set_number(L, "bits_per_key", stats.bits_per_key);
    fpc_lua_set_number(L, "estimated_fpr", stats.estimated_fpr);
    fpc_lua_set_boolean(L, "grow", stats.grow);
    fpc_lua_set_boolean(L, "compact", stats.compact);
    return 1;
}

static int filter_length(lua_State *L) {
    fpc_lua_push_int64(L, (int64_t)stats_of(L).size);
    return 1;
}

static int filter_load_factor(lua_State *L) {
    lua_pushnumber(L, stats_of(L).load_factor);
    return 1;
}

static int filter_false_positive_rate(lua_State *L) {
    lua_pushnumber(L, stats_of(L).estimated_fpr);
    return 1;
}

/* --- For LuaJIT's FFI: the payload of the userdata comes as the first argument --- */

#if FPC_LUAJIT
enum { NO = 0, YES = 1, NOT_DONE = -1 }; /* NOT_DONE: ask the method of the same name */

static int ffi_lookup(const filter_ud *ud, const char *key, size_t length) {
    if (ud->filter == NULL) return NOT_DONE;
    return fpc_filter_contains(ud->filter, key, length) ? YES : NO;
}

static int ffi_insert(filter_ud *ud, const char *key, size_t length) {
    if (ud->filter == NULL) return NOT_DONE;
    switch (fpc_filter_add(ud->filter, key, length)) {
    case FPC_OK: return YES;
    case FPC_FULL: return NO;
    default: return NOT_DONE; /* changed nothing: the Lua method tries again and says why */
    }
}

static int ffi_delete(filter_ud *ud, const char *key, size_t length) {
    if (ud->filter == NULL) return NOT_DONE;
    return fpc_filter_remove(ud->filter, key, length) ? YES : NO;
}

/* core.filter_ffi: addresses of functions int (void *, const char *, size_t); core.filter_full: what a NO of
 * insert means. */
static void push_ffi(lua_State *L) {
    static int (*const INSERT)(filter_ud *, const char *, size_t) = ffi_insert;
    static int (*const LOOKUP)(const filter_ud *, const char *, size_t) = ffi_lookup;
    static int (*const DELETE)(filter_ud *, const char *, size_t) = ffi_delete;
    lua_createtable(L, 0, 3);
    lua_pushlightuserdata(L, (void *)(uintptr_t)INSERT);
    lua_setfield(L, -2, "insert");
    lua_pushlightuserdata(L, (void *)(uintptr_t)LOOKUP);
    lua_setfield(L, -2, "lookup");
    lua_pushlightuserdata(L, (void *)(uintptr_t)DELETE);
    lua_setfield(L, -2, "delete");
    lua_setfield(L, -2, "filter_ffi");
    lua_pushfstring(L, "%s: %s", fpc_status_name(FPC_FULL), FULL);
    lua_setfield(L, -2, "filter_full");
}
#endif

void fpc_lua_register_filter(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"insert", filter_insert},
                                       {"insert_if_absent", filter_insert_if_absent},
                                       {"lookup", filter_lookup},
                                       {"delete", filter_delete},
                                       {"insert_many", filter_insert_many},
                                       {"lookup_many", filter_lookup_many},
                                       {"clear", filter_clear},
                                       {"copy", filter_copy},
                                       {"like", filter_like},
                                       {"union", filter_union},
                                       {"save", filter_save},
                                       {"stats", filter_stats},
                                       {"load_factor", filter_load_factor},
                                       {"false_positive_rate", filter_false_positive_rate},
                                       {NULL, NULL}};
    fpc_lua_new_type(L, FILTER_TYPE, METHODS, filter_close);
    luaL_getmetatable(L, FILTER_TYPE);
    lua_pushcfunction(L, filter_length);
    lua_setfield(L, -2, "__len");
    lua_setfield(L, -2, "filter_type"); /* the metatable */
    lua_pushcfunction(L, filter_new);
    lua_setfield(L, -2, "filter");
    lua_pushcfunction(L, filter_load);
    lua_setfield(L, -2, "filter_load");
#if FPC_LUAJIT
    push_ffi(L);
#endif
}
