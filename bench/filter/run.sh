#!/bin/sh
# run.sh -- the benches of the cuckoo filter: in C beside other layouts, then from Lua.
#
# Usage: bench/filter/run.sh BUILD_DIR [quick]    (`./dev bench filter`; six minutes, quick half a minute)
# Prints tables and writes BUILD_DIR/bench/filter.json.
set -eu
build=$(cd "${1:?usage: run.sh BUILD_DIR [quick]}" && pwd)
quick=${2:-}
cd "$(dirname "$0")/../.."
out=$build/bench
mkdir -p "$out"
cmake --build "$build" --target filter_bench filter_layouts filter_readers >"$out/filter-build.log" || {
    cat "$out/filter-build.log" >&2
    exit 1
}

machine=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
load=$(cut -d ' ' -f 1 /proc/loadavg)
echo "machine: $machine, $(getconf _NPROCESSORS_ONLN) processors, load $load before the start"
echo
"$out/filter_bench" "$out/filter-core.json" ${quick:+"$quick"}
echo
"$out/filter_readers" "$out/filter-readers.json"
echo
if [ -z "$quick" ]; then
    "$out/filter_layouts"
    echo
fi

# bench_in ABI HOST: the Lua bench in one runtime; leaves its results in filter-ABI.json.
bench_in() {
    echo "[]" >"$out/filter-$1.json"
    [ -x "$2" ] && [ -e "$build/$1/fpcache/core.so" ] || return 0
    LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;;" LUA_CPATH="$build/$1/?.so;;" \
        "$2" bench/filter/filter_bench.lua "$out/filter-$1.json"
}
bench_in lua5.4 "$build/lua54-host"
bench_in lua5.1 "$build/luajit-host"

{
    printf '{"machine": "%s", "load_before": %s,\n  "core": ' "$machine" "$load"
    cat "$out/filter-core.json"
    printf '  ,"readers": '
    cat "$out/filter-readers.json"
    printf '  ,"lua5.4": '
    cat "$out/filter-lua5.4.json"
    printf '  ,"luajit": '
    cat "$out/filter-lua5.1.json"
    printf '}\n'
} >"$out/filter.json"
echo "written: $out/filter.json"
