/* key.c -- `core.shorten_key(key)`: the stored form of a long key; `core.disguise_key(secret, key)`. */
#include "fpcache/key.h"
#include "types.h"

static int shorten_key(lua_State *L) {
    size_t length;
    const char *key = luaL_checklstring(L, 1, &length);
    char stored[FPC_KEY_STORED_MAX];
    fpc_error err;
    luaL_argcheck(L, length > FPC_KEY_INLINE, 1, "a short key is stored as it is");
    if (fpc_key_shorten(key, length, stored, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushlstring(L, stored, sizeof stored);
    return 1;
}

static int disguise_key(lua_State *L) {
    size_t secret_length, length;
    const char *secret = luaL_checklstring(L, 1, &secret_length);
    const char *key = luaL_checklstring(L, 2, &length);
    char digits[FPC_KEY_DISGUISED + 1];
    fpc_error err;
    if (fpc_key_disguise(secret, secret_length, key, length, digits, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    lua_pushlstring(L, digits, FPC_KEY_DISGUISED);
    return 1;
}

void fpc_lua_register_key(lua_State *L) {
    lua_pushcfunction(L, disguise_key);
    lua_setfield(L, -2, "disguise_key");
    lua_pushcfunction(L, shorten_key);
    lua_setfield(L, -2, "shorten_key");
    lua_pushinteger(L, FPC_KEY_INLINE);
    lua_setfield(L, -2, "KEY_INLINE");
}
