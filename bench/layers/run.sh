#!/bin/sh
# run.sh BUILD_DIR [--quick] [--large] [--only PART] -- what do answers without the server cost, and what do they give?
#
# Parts, a file each: near_hit, feed_cost, feed_client, idle, load, hit_ratio.  Takes 3 minutes with --large, which loads 10M keys as well
# (2 GB of disk), a little less without; --quick less than one.  The server is private and removed at the end.  Writes
# BUILD_DIR/bench/layers.json.
# lua-resty-lrucache is measured where Debian's package of that name is installed.
#
# Last run: 2026-11-23, `run.sh build`, 2 virtual processors (AMD EPYC), nothing else running (load 0.6 to 1.4),
# PostgreSQL 15.18; the 10M keys and the hit ratio earlier that day.
#   near hit     128 ns (5.4)  8.4 ns (LuaJIT)   lua-resty-lrucache 7.5 ns  bare table 28 ns, 2 ns     1,000 keys
#                141 ns        8.8 ns            lua-resty-lrucache 9.8 ns                            10,000 keys
#                (the day after, three runs, load 9 to 11)
#   absent       166 ns, 21 ns
#   feed_cost    on / switched off: set 0.88 (bar 0.85)  set_many 0.99  with feed_listen 0.67, 0.97  (the day after)
#   feed_client  the same through the client: one at a time 0.85, 64 tasks 0.96  (the day after)
#   idle         0.031 % of a processor (bar 0.2), the server for it 0.09 %
#   load         1M keys 0.47 to 0.57 s, filter 2.1 MB, RSS + 2.7 MB   10M keys 6.2 s, 20.3 MB, + 20.9 MB
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
