#!/bin/sh
# luarocks.sh -- a user's `luarocks make`: the rockspec builds, installs and loads for Lua 5.4
# and for LuaJIT, and a machine that lacks something gets told what.
# Needs no network.  FPC_BUILD_DIR has the luajit-host; the counts go to FPC_TEST_COUNTS.
set -eu
cd "$(dirname "$0")/../.."
here=$(pwd)/spec/packaging
build=${FPC_BUILD_DIR:-build}
case $build in /*) ;; *) build=$(pwd)/$build ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# A copy of what a release has, so that the checkout stays clean.
mkdir "$work/src" "$work/home"
cp -R CMakeLists.txt LICENSE cmake include lua rockspec src "$work/src/" 2>/dev/null || [ ! -d lua ]
cd "$work/src"
rockspec=rockspec/fpcache-scm-1.rockspec
export HOME="$work/home"
# shellcheck disable=SC1091
. "$here/must.sh"

# make LUA_VERSION [VARIABLE=VALUE...]: into a tree for that version.
make() {
    version=$1
    shift
    rm -rf build.luarocks
    luarocks --lua-version "$version" --tree "$work/tree" make "$rockspec" "$@"
}

# loads INTERPRETER LUA_VERSION: the installed files, found nowhere else.
loads() {
    LUA_PATH="$work/tree/share/lua/$2/?.lua;$work/tree/share/lua/$2/?/init.lua" \
        LUA_CPATH="$work/tree/lib/lua/$2/?.so" \
        "$1" - <<'END'
assert(require("fpcache.core").version:match("^%d+%.%d+%.%d+$"))
local found = io.open("lua/fpcache.lua") or io.open("lua/fpcache/init.lua")
if found then
  found:close()
  assert(type(require("fpcache").new) == "function")
end
END
}

# refuses PATTERN COMMAND...: the command fails, and its output says why.
refuses() {
    pattern=$1
    shift
    if "$@" >"$work/refused" 2>&1; then
        echo "did not fail"
        return 1
    fi
    cat "$work/refused"
    tr '\n' ' ' <"$work/refused" | tr -s ' ' | grep -q "$pattern"
}

every_file_installed() {
    [ ! -d lua ] || diff -r lua "$work/tree/share/lua/5.4"
}

luajit=$(pkg-config --variable=includedir luajit)
must "the rockspec is valid" luarocks lint "$rockspec"
must "luarocks make for Lua 5.4" make 5.4
must "the rock loads in Lua 5.4" loads lua5.4 5.4
must "luarocks make for LuaJIT" make 5.1 LUA_INCDIR="$luajit"
must "the rock loads in LuaJIT" loads "$build/luajit-host" 5.1
must "every Lua file is installed" every_file_installed

mkdir "$work/lua51"
echo '#define LUA_VERSION_NUM 501' >"$work/lua51/lua.h"
must "plain Lua 5.1 is refused with a reason" \
    refuses "needs LuaJIT" make 5.1 LUA_INCDIR="$work/lua51"

# A pg_config of a PostgreSQL without its headers.
printf '#!/bin/sh\necho /nonexistent\n' >"$work/pg_config"
chmod +x "$work/pg_config"
must "missing headers of libpq are named" \
    refuses "install libpq-dev" cmake -S . -B "$work/nopq" -DPG_CONFIG="$work/pg_config"

finish
