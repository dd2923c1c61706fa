/* versions.c -- `core.versions()`: {libpq, openssl, xxhash, jansson} as texts. */
#include "fpcache/versions.h"
#include "types.h"

#include <jansson.h>

static int versions(lua_State *L) {
    lua_newtable(L);
    int libpq = fpc_libpq_version();
    lua_pushfstring(L, "%d.%d", libpq / 10000, libpq % 10000);
    lua_setfield(L, -2, "libpq");
    lua_pushstring(L, fpc_openssl_version());
    lua_setfield(L, -2, "openssl");
    int xxhash = (int)fpc_xxhash_version();
    lua_pushfstring(L, "%d.%d.%d", xxhash / 10000, xxhash / 100 % 100, xxhash % 100);
    lua_setfield(L, -2, "xxhash");
    lua_pushstring(L, jansson_version_str());
    lua_setfield(L, -2, "jansson");
    return 1;
}

void fpc_lua_register_versions(lua_State *L) {
    lua_pushcfunction(L, versions);
    lua_setfield(L, -2, "versions");
}
