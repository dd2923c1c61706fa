rockspec_format = "3.0"
package = "fpcache"
version = "scm-1"
-- `luarocks make` builds the checkout it stands in and never fetches this; a release names its archive here.
source = { url = "git+https://fpcache.invalid/fpcache.git" }
description = {
  summary = "A shared cache on the PostgreSQL you already run",
  detailed = [[
Redis-like calls on a PostgreSQL table, without an extra service: a C core with
connection pool, prepared statements and batches, for Lua 5.4 and LuaJIT.
Needs libpq (found through pg_config), OpenSSL, libcurl, jansson, xxHash, zstd, CMake and a C compiler.]],
  license = "MIT",
}
-- 5.1 means LuaJIT 2.1: the module uses its 64-bit integers.
dependencies = { "lua >= 5.1, < 5.5, ~= 5.2, ~= 5.3" }
build = {
  type = "cmake",
  variables = {
    CMAKE_BUILD_TYPE = "Release",
    FPC_CLI = "OFF",
    FPC_TESTS = "OFF",
    FPC_LUA_INCLUDE_DIR = "$(LUA_INCDIR)",
    FPC_INSTALL_LUADIR = "$(LUADIR)",
    FPC_INSTALL_LIBDIR = "$(LIBDIR)",
  },
}
