/* batch.c -- `core.batch()`: the rows of one set_many. */
#include "batch.h"
#include "fpcache/key.h"
#include "seal.h"

#include <math.h>

#define BATCH_TYPE "fpcache.batch"

static fpc_batch **check(lua_State *L) {
    return luaL_checkudata(L, 1, BATCH_TYPE);
}

static fpc_batch *check_open(lua_State *L) {
    fpc_batch **ud = check(L);
    luaL_argcheck(L, *ud != NULL, 1, "batch is closed");
    return *ud;
}

fpc_batch *fpc_lua_test_batch(lua_State *L, int index) {
    fpc_batch **ud = luaL_testudata(L, index, BATCH_TYPE);
    return ud == NULL ? NULL : *ud;
}

static int batch_close(lua_State *L) {
    fpc_batch **ud = check(L);
    if (*ud != NULL) fpc_lua_open_objects--;
    fpc_batch_delete(*ud);
    *ud = NULL;
    return 0;
}

static int batch_new(lua_State *L) {
    fpc_batch **ud = lua_newuserdata(L, sizeof *ud);
    *ud = NULL;
    luaL_setmetatable(L, BATCH_TYPE);
    *ud = fpc_batch_new();
    if (*ud == NULL) return luaL_error(L, "memory: batch");
    fpc_lua_open_objects++;
    return 1;
}

/* batch:add(key, value, ttl, codec, max_value_bytes) -> true | nil, err */
static int batch_add(lua_State *L) {
    fpc_batch *batch = check_open(L);
    size_t key_length, value_length;
    const char *key = luaL_checklstring(L, 2, &key_length);
    luaL_checkany(L, 3);
    double ttl_s = lua_isnoneornil(L, 4) ? (double)INFINITY : luaL_checknumber(L, 4);
    double max_value_bytes = luaL_checknumber(L, 6);
    const char *value;
    char format;
    fpc_error err;
    int codec = lua_isnoneornil(L, 5) ? 0 : 5;
    char shortened[FPC_KEY_STORED_MAX];
    const char *stored = key;
    size_t stored_length = key_length;
    if (key_length > FPC_KEY_INLINE) {
        if (fpc_key_shorten(key, key_length, shortened, &err) != FPC_OK) return fpc_lua_failure(L, &err);
        stored = shortened, stored_length = FPC_KEY_STORED_MAX;
    }
    if (!fpc_lua_seal_encode(L, 3, codec, stored, stored_length, &value, &value_length, &format, &err))
        return fpc_lua_failure(L, &err);
    if ((double)value_length > max_value_bytes) {
        fpc_fail(&err, FPC_INVALID, "a value of %zu bytes exceeds max_value_bytes (%.0f)", value_length,
                 max_value_bytes);
        return fpc_lua_failure(L, &err);
    }
    if (fpc_batch_add(batch, key, key_length, value, value_length, format, ttl_s, &err) != FPC_OK) {
        return fpc_lua_failure(L, &err);
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int batch_rows(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)fpc_batch_rows(check_open(L)));
    return 1;
}

static int batch_bytes(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)fpc_batch_bytes(check_open(L)));
    return 1;
}

/* batch:seal() -> true | nil, err: sorts now what would be sorted when it is sent. */
static int batch_seal(lua_State *L) {
    fpc_error err;
    if (fpc_batch_seal(check_open(L), &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static int batch_clear(lua_State *L) {
    fpc_batch_clear(check_open(L));
    return 0;
}

void fpc_lua_register_batch(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"add", batch_add},   {"rows", batch_rows},   {"bytes", batch_bytes},
                                       {"seal", batch_seal}, {"clear", batch_clear}, {NULL, NULL}};
    fpc_lua_new_type(L, BATCH_TYPE, METHODS, batch_close);
    lua_pushcfunction(L, batch_new);
    lua_setfield(L, -2, "batch");
}
