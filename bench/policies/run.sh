#!/bin/sh
# run.sh BUILD_DIR [--quick] [--only PART] -- what do the policies cost, and what do they save?
#
# Parts, a file each, run on a private server that is removed at the end:
#   overhead   fetch over get on a hit, near and at the server
#   zipf       loads and waits saved by refresh-ahead and XFetch
#   sweep      how fast sweeps and evictions are, and what they do to reads
#   sealing    compression and encryption
#   dead       fetch over the bare loader without a server
# Takes three minutes; --quick half of one.
#
# Last run of overhead and dead: 2026-11-24, 2 virtual processors (AMD EPYC), PostgreSQL 15.18, machine quiet (load 0.1); zipf the day before.
#   near    get 0.137 us  fetch 0.169 us (bar: 0.5 us more)
#   server  get 54.4 us  fetch 55.0 us (bar: 5 % more); processor time of both processes 2 % more
#   zipf    readers that met an expired key, of 6,000: plain 1234, refresh_ahead 939, XFetch 1200
#   dead    1.01 times a loader of 0.5 ms (bar: 1.1)
set -eu
# shellcheck source=bench/support.sh
. "$(dirname "$0")/../support.sh"
bench_begin "$0" "overhead zipf sweep sealing dead" "$@"
bench_server
FPCACHE_URL=$BENCH_URL
export FPCACHE_URL
bench_machine
for part in $BENCH_PARTS; do
    echo "== $part"
    "$BENCH_BUILD/fpcache" "$BENCH_HERE/$part.lua"
done
