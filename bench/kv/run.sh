#!/bin/sh
# run.sh BUILD_DIR [--quick] -- what does one call on the cache cost, against the bare server and Redis?
#
# Takes 3 minutes; --quick 30 s.
# Everything is private and removed at the end: a PostgreSQL as `fpcache local start` makes it, for all sides, and a
# Redis without persistence on a unix socket.  Writes BUILD_DIR/bench/kv.json.
#
# Last run: 2026-11-23, 2 virtual processors shared with other programs (load 6.3), PostgreSQL 15.18, 127 s.  At that
# load a ratio moves by a third from run to run; look at the load in the first line before you believe one.
#   get      fpcache 25k (5.4) 19k (LuaJIT)    pgbench 41k  libpq 45k  Python design 17k  Redis 64k (C) 57k (Lua)
#   set      9.5k, 8.9k                        pgbench 9.9k libpq 11k  Python design 6.9k Redis 56k, 66k
#   get_many 164k, 184k keys/s                 = ANY 193k
#   set_many 150k, 131k rows/s                 INSERT 175k  upsert 112k  COPY 215k (sorted 310k)  single sets 14k
set -eu

[ $# -ge 1 ] || { echo "usage: run.sh BUILD_DIR [--quick]" >&2; exit 2; }
BENCH_QUICK=0
case ${2:-} in
'') ;;
--quick) BENCH_QUICK=1 ;;
*) echo "run.sh: no option $2 (--quick)" >&2; exit 2 ;;
esac
# shellcheck source=bench/support.sh
. "$(dirname "$0")/../support.sh"
bench_begin "$0" "$1"

for side in libpq hiredis; do
    # shellcheck disable=SC2046 # a list of flags
    cc -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -o "$BENCH_TMP/side_$side" "$BENCH_HERE/side_$side.c" \
        $(pkg-config --cflags --libs "$side")
done
bench_server

BENCH_REDIS=$BENCH_TMP/redis.sock
redis-server --port 0 --unixsocket "$BENCH_REDIS" --save '' --appendonly no --dir "$BENCH_TMP" \
    >"$BENCH_TMP/redis.log" 2>&1 &
bench_ends_with $!
tries=0
until [ -S "$BENCH_REDIS" ]; do
    tries=$((tries + 1))
    [ $tries -le 100 ] || { cat "$BENCH_TMP/redis.log" >&2; exit 1; }
    sleep 0.1
done

mkdir -p "$BENCH_BUILD/bench"
BENCH_JSON=$BENCH_BUILD/bench/kv.json
export BENCH_REDIS BENCH_JSON BENCH_QUICK
bench_machine
redis-server --version | cut -d' ' -f1-3
"$BENCH_BUILD/fpcache" "$BENCH_HERE/drive.lua"
