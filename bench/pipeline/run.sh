#!/bin/sh
# run.sh BUILD_DIR [--quick] -- what do many requests in flight give in one process, against bare libpq in pipeline mode
# and against pgbench with as many clients?
#
# Takes 3 minutes; --quick 60 to 100 s.  The server is private and removed at the end.  Writes
# BUILD_DIR/bench/pipeline.json.  Last runs: docs/performance.md.
set -eu

[ $# -ge 1 ] || { echo "usage: run.sh BUILD_DIR [--quick]" >&2; exit 2; }
BENCH_BUILD=$(cd "$1" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
shift
BENCH_QUICK=0
case ${1:-} in
'') ;;
--quick) BENCH_QUICK=1 ;;
*) echo "run.sh: no option $1 (--quick)" >&2; exit 2 ;;
esac
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

# shellcheck disable=SC2046 # a list of flags
cc -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -o "$BENCH_TMP/side_libpq" "$HERE/side_libpq.c" \
    $(pkg-config --cflags --libs libpq)
cmake --build "$BENCH_BUILD" --target pipeline_engine >"$BENCH_TMP/build.log" || { cat "$BENCH_TMP/build.log" >&2; exit 1; }

"$BENCH_BUILD/fpcache" local start --dir "$BENCH_TMP/server" >"$BENCH_TMP/start.log" 2>&1 || {
    cat "$BENCH_TMP/start.log" >&2
    exit 1
}
BENCH_URL=$("$BENCH_BUILD/fpcache" local url --dir "$BENCH_TMP/server")
BENCH_BINDIR=$(for bin in /usr/lib/postgresql/*/bin; do [ -x "$bin/pgbench" ] && echo "$bin"; done | tail -n 1)
[ -n "$BENCH_BINDIR" ] || BENCH_BINDIR=$(dirname "$(command -v pgbench)")
mkdir -p "$BENCH_BUILD/bench"
BENCH_JSON=$BENCH_BUILD/bench/pipeline.json
export BENCH_BUILD BENCH_TMP BENCH_URL BENCH_BINDIR BENCH_JSON BENCH_QUICK
echo "machine: $(uname -srm), $(getconf _NPROCESSORS_ONLN) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "server: $("$BENCH_BINDIR/postgres" --version)"
"$BENCH_BUILD/fpcache" "$HERE/drive.lua"
