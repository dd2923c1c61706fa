/* versions.c -- `core.versions()`: {lua, libpq, openssl, libcurl, jansson, xxhash, zstd} as texts. */
#include "fpcache/versions.h"
#include "types.h"

#if FPC_LUAJIT
#include <luajit.h>
#define LUA_OF_HEADERS LUAJIT_VERSION
#else
#define LUA_OF_HEADERS LUA_RELEASE
#endif

static void set(lua_State *L, const char *name, const char *version) {
    lua_pushstring(L, version);
    lua_setfield(L, -2, name);
}

static int versions(lua_State *L) {
    lua_newtable(L);
    set(L, "lua", LUA_OF_HEADERS);
    int libpq = fpc_libpq_version();
    lua_pushfstring(L, "%d.%d", libpq / 10000, libpq % 10000);
    lua_setfield(L, -2, "libpq");
    set(L, "openssl", fpc_openssl_version());
    int xxhash = (int)fpc_xxhash_version();
    lua_pushfstring(L, "%d.%d.%d", xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
    lua_setfield(L, -2, "xxhash");
    set(L, "libcurl", fpc_libcurl_version());
    set(L, "jansson", fpc_jansson_version());
    set(L, "zstd", fpc_zstd_version());
    return 1;
}

void fpc_lua_register_versions(lua_State *L) {
    lua_pushcfunction(L, versions);
    lua_setfield(L, -2, "versions");
}
