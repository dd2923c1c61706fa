#!/bin/sh
# run.sh BUILD_DIR -- what do answers without the server cost?  Takes 40 s.
#
# lua-resty-lrucache is measured where Debian's package of that name is installed.
set -eu

[ $# -ge 1 ] || { echo "usage: run.sh BUILD_DIR" >&2; exit 2; }
BUILD=$(cd "$1" && pwd)
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
export LUA_PATH="$ROOT/lua/?.lua;$ROOT/lua/?/init.lua;$ROOT/spec/?.lua;;"
echo "Lua 5.4"
LUA_CPATH="$BUILD/lua5.4/?.so;;" lua5.4 "$ROOT/bench/layers/near_hit.lua"
echo "LuaJIT"
LUA_CPATH="$BUILD/lua5.1/?.so;;" "$BUILD/luajit-host" "$ROOT/bench/layers/near_hit.lua"
