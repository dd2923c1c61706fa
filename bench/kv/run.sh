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

# shellcheck source=bench/support.sh
. "$(dirname "$0")/../support.sh"
bench_begin "$0" "" "$@"

bench_side libpq
bench_side hiredis
bench_server
bench_redis
bench_machine
redis-server --version | cut -d' ' -f1-3
"$BENCH_BUILD/fpcache" "$BENCH_HERE/drive.lua"
