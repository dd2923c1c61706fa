#!/bin/sh
# run.sh BUILD_DIR [--quick] [--large] [--only PART] -- what do answers without the server cost, and what do they give?
#
# Parts, a file each: near_hit, feed_cost, idle, load, hit_ratio.  Takes 3 minutes with --large, which loads 10M keys as well
# (2 GB of disk), a little less without; --quick less than one.  The server is private and removed at the end.  Writes
# BUILD_DIR/bench/layers.json.
# lua-resty-lrucache is measured where Debian's package of that name is installed.
#
# Last run: 2026-11-23, `run.sh build --large`, 2 virtual processors (AMD EPYC) shared with other programs (load 1.8 at the
# start, 3.9 at most), PostgreSQL 15.18, 157 s.  feed_cost a second time, at load 2.9 to 3.9: the figures in parentheses.
#   near hit     177 ns (5.4)  27 ns (LuaJIT)   lua-resty-lrucache 20 ns  bare table 31 ns, 9 ns   the server 70 us, 17 us
#   absent       252 ns, 54 ns
#   feed, with / without        set 0.78 (0.76; MISSED, bar 0.85)   set_many 0.94 (1.09)
#     by processor time         set (0.75)  set_many (0.98)
#   switched off / no triggers  set 1.32 (0.93)  set_many 0.99 (0.84)   bar 0.98: too noisy to judge
#     by processor time         set (0.91)  set_many (0.96)
#   idle         0.037 % of a processor (bar 0.2), the server for it 0.12 %
#   load         1M keys 0.40 s, filter 2.0 MB, RSS + 2.7 MB   10M keys 6.2 s, 20.3 MB, + 20.9 MB
#   hit ratio    zipf 1.0: SIEVE 77.5 %, LRU 73.4 %   with walks 77.3 %, 68.9 %
# docs/performance.md says what they mean.
set -eu

usage() { echo "usage: run.sh BUILD_DIR [--quick] [--large] [--only PART]" >&2; exit 2; }
[ $# -ge 1 ] || usage
BENCH_BUILD=$(cd "$1" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
shift
BENCH_QUICK=0 large=0 parts="near_hit feed_cost idle load hit_ratio"
while [ $# -gt 0 ]; do
    case $1 in
    --quick) BENCH_QUICK=1 ;;
    --large) large=1 ;;
    --only)
        [ $# -gt 1 ] || usage
        shift
        case " $parts " in *" $1 "*) parts=$1 ;; *) usage ;; esac
        ;;
    *) usage ;;
    esac
    shift
done
grep -q '^CMAKE_BUILD_TYPE:STRING=Release' "$BENCH_BUILD/CMakeCache.txt" ||
    echo "run.sh: $BENCH_BUILD is no optimised build: the figures mean little" >&2

BENCH_TMP=$(mktemp -d /tmp/fpcache-bench-XXXXXX)
chmod 755 "$BENCH_TMP" # the server may run under another account
cleanup() {
    code=$?
    trap - EXIT HUP INT TERM
    "$BENCH_BUILD/fpcache" local destroy --force --dir "$BENCH_TMP/server" >/dev/null 2>&1 || true
    rm -rf "$BENCH_TMP"
    exit $code
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

"$BENCH_BUILD/fpcache" local start --dir "$BENCH_TMP/server" >"$BENCH_TMP/start.log" 2>&1 || {
    cat "$BENCH_TMP/start.log" >&2
    exit 1
}
BENCH_SUPER=$("$BENCH_BUILD/fpcache" local url --dir "$BENCH_TMP/server")
BENCH_BINDIR=$(for bin in /usr/lib/postgresql/*/bin; do [ -x "$bin/pgbench" ] && echo "$bin"; done | tail -n 1)
[ -n "$BENCH_BINDIR" ] || BENCH_BINDIR=$(dirname "$(command -v pgbench)")
LUA_PATH="$HERE/?.lua;$ROOT/bench/support/?.lua;$ROOT/lua/?.lua;$ROOT/lua/?/init.lua;;"
export BENCH_BUILD BENCH_TMP BENCH_SUPER BENCH_BINDIR BENCH_QUICK LUA_PATH

lua54() { LUA_CPATH="$BENCH_BUILD/lua5.4/?.so;;" lua5.4 "$@"; }
luajit() { LUA_CPATH="$BENCH_BUILD/lua5.1/?.so;;" "$BENCH_BUILD/luajit-host" "$@"; }

load() { # each in a process of its own, as its memory is asked
    lua54 "$HERE/fill.lua" "$1"
    for round in $(seq "$2"); do lua54 "$HERE/load.lua" "$1" "$round"; done
}

echo "machine: $(uname -srm), $(getconf _NPROCESSORS_ONLN) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "server: $("$BENCH_BINDIR/postgres" --version)"
lua54 "$HERE/setup.lua"
for part in $parts; do
    echo
    echo "$part (load $(cut -d' ' -f1 /proc/loadavg))"
    case $part in
    near_hit)
        lua54 "$HERE/near_hit.lua" lua5.4
        luajit "$HERE/near_hit.lua" luajit
        ;;
    load)
        if [ $BENCH_QUICK = 1 ]; then load 100000 1; else load 1000000 3; fi
        [ $large = 0 ] || load 10000000 1
        ;;
    *) lua54 "$HERE/$part.lua" ;;
    esac
done
mkdir -p "$BENCH_BUILD/bench"
lua54 "$HERE/join.lua" >"$BENCH_BUILD/bench/layers.json"
echo
echo "written: $BENCH_BUILD/bench/layers.json (load $(cut -d' ' -f1-3 /proc/loadavg))"
