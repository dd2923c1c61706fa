#!/bin/sh
# run.sh BUILD_DIR [--quick] -- what do many requests in flight give in one process, against bare libpq in pipeline mode
# and against pgbench with as many clients?
#
# Takes 3 minutes; --quick 60 to 100 s.  The server is private and removed at the end.  Writes
# BUILD_DIR/bench/pipeline.json.  Last runs: docs/performance.md.
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

# shellcheck disable=SC2046 # a list of flags
cc -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -o "$BENCH_TMP/side_libpq" "$BENCH_HERE/side_libpq.c" \
    $(pkg-config --cflags --libs libpq)
cmake --build "$BENCH_BUILD" --target pipeline_engine >"$BENCH_TMP/build.log" || { cat "$BENCH_TMP/build.log" >&2; exit 1; }
bench_server

mkdir -p "$BENCH_BUILD/bench"
BENCH_JSON=$BENCH_BUILD/bench/pipeline.json
export BENCH_JSON BENCH_QUICK
bench_machine
"$BENCH_BUILD/fpcache" "$BENCH_HERE/drive.lua"
