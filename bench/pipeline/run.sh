#!/bin/sh
# run.sh BUILD_DIR [--quick] -- what do many requests in flight give in one process, against bare libpq in pipeline mode
# and against pgbench with as many clients?
#
# Takes 3 minutes; --quick 60 to 100 s.  The server is private and removed at the end.  Writes
# BUILD_DIR/bench/pipeline.json.  Last runs: docs/performance.md.
set -eu

# shellcheck source=bench/support.sh
. "$(dirname "$0")/../support.sh"
bench_begin "$0" "" "$@"

bench_side libpq
cmake --build "$BENCH_BUILD" --target pipeline_engine >"$BENCH_TMP/build.log" || { cat "$BENCH_TMP/build.log" >&2; exit 1; }
bench_server

bench_machine
"$BENCH_BUILD/fpcache" "$BENCH_HERE/drive.lua"
