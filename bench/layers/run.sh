#!/bin/sh
# run.sh BUILD_DIR [--quick] [--large] [--only PART] -- what do answers without the server cost, and what do they give?
#
# Parts, a file each: near_hit, feed_cost, feed_client, idle, load, hit_ratio.  Takes 3 minutes with --large, which loads 10M keys as well
# (2 GB of disk), a little less without; --quick less than one.  The server is private and removed at the end.  Writes
# BUILD_DIR/bench/layers.json.
# lua-resty-lrucache is measured where Debian's package of that name is installed.
#
# Last run: 2026-11-24, `run.sh build --large`, 2 virtual processors (AMD EPYC), nothing else running (load 0 to 2.4), PostgreSQL 15.18
#   near hit     116 ns (5.4)  7.6 ns (LuaJIT)   lua-resty-lrucache 7.0 ns  bare table 28 ns, 2 ns     1,000 keys
#                119 ns        8.0 ns            lua-resty-lrucache 8.6 ns                            10,000 keys
#   absent       162 ns, 20 ns
#   feed_cost    on / switched off: set 0.93 (bar 0.85)  set_many 1.00  with feed_listen 0.69, 0.99
#   feed_client  the same through the client: one at a time 0.93, 64 tasks 1.00
#   idle         0.017 % of a processor (bar 0.2), the server for it 0.06 %
#   load         1M keys 0.52 s, filter 2.1 MB, RSS + 2.7 MB   10M keys 4.3 s, 20.6 MB, + 21.4 MB
#   hit ratio    zipf 1.0: SIEVE 77.5 %, LRU 73.4 %   with walks 77.3 %, 68.9 %
# docs/performance.md says what they mean.
set -eu

# shellcheck source=bench/support.sh
. "$(dirname "$0")/../support.sh"
large=0
for word; do
    shift
    case $word in --large) large=1 ;; *) set -- "$@" "$word" ;; esac
done
bench_begin "$0" "near_hit feed_cost feed_client idle load hit_ratio" "$@"
bench_server

lua54() { LUA_CPATH="$BENCH_BUILD/lua5.4/?.so;;" lua5.4 "$@"; }
luajit() { LUA_CPATH="$BENCH_BUILD/lua5.1/?.so;;" "$BENCH_BUILD/luajit-host" "$@"; }

load() { # each in a process of its own, as its memory is asked
    lua54 "$BENCH_HERE/fill.lua" "$1"
    for round in $(seq "$2"); do lua54 "$BENCH_HERE/load.lua" "$1" "$round"; done
}

bench_machine
lua54 "$BENCH_HERE/setup.lua"
for part in $BENCH_PARTS; do
    echo
    echo "$part (load $(cut -d' ' -f1 /proc/loadavg))"
    case $part in
    near_hit)
        lua54 "$BENCH_HERE/near_hit.lua" lua5.4
        luajit "$BENCH_HERE/near_hit.lua" luajit
        ;;
    load)
        if [ $BENCH_QUICK = 1 ]; then load 100000 1; else load 1000000 3; fi
        [ $large = 0 ] || load 10000000 1
        ;;
    *) lua54 "$BENCH_HERE/$part.lua" ;;
    esac
done
lua54 "$BENCH_HERE/join.lua" >"$BENCH_JSON"
echo
echo "written: $BENCH_JSON (load $(cut -d' ' -f1-3 /proc/loadavg))"
