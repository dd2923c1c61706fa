# shellcheck shell=sh
# support.sh -- what the run.sh of the benches share; sourced by them: ". bench/support.sh".
#
#   bench_begin RUN_SH BUILD_DIR   sets BENCH_BUILD, BENCH_HERE (the bench's folder), BENCH_ROOT (the project's), BENCH_TMP (removed
#                                  at the end, whatever ends it) and LUA_PATH; says so when the build is no optimised one
#   bench_server                   a private PostgreSQL as `fpcache local start` makes it: BENCH_URL (its superuser), BENCH_BINDIR
#   bench_ends_with PID            a child to be ended at the end
#   bench_machine                  the line that says where and under which load figures were taken
#
# All that is named BENCH_ is exported.

bench_cleanup() {
    code=$?
    trap - EXIT HUP INT TERM
    for child in $bench_children; do
        kill "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
    done
    [ ! -d "$BENCH_TMP/server" ] || "$BENCH_BUILD/fpcache" local destroy --force --dir "$BENCH_TMP/server" >/dev/null 2>&1 || true
    rm -rf "$BENCH_TMP"
    exit $code
}

bench_begin() {
    BENCH_BUILD=$(cd "$2" && pwd)
    BENCH_HERE=$(cd "$(dirname "$1")" && pwd)
    BENCH_ROOT=$(cd "$BENCH_HERE/../.." && pwd)
    grep -q '^CMAKE_BUILD_TYPE:STRING=Release' "$BENCH_BUILD/CMakeCache.txt" ||
        echo "run.sh: $BENCH_BUILD is no optimised build: the figures mean little" >&2
    bench_children=
    BENCH_TMP=$(mktemp -d /tmp/fpcache-bench-XXXXXX)
    trap bench_cleanup EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$BENCH_TMP" # the server may run under another account
    LUA_PATH="$BENCH_HERE/?.lua;$BENCH_ROOT/bench/support/?.lua;$BENCH_ROOT/lua/?.lua;$BENCH_ROOT/lua/?/init.lua;;"
    export BENCH_BUILD BENCH_HERE BENCH_ROOT BENCH_TMP LUA_PATH
}

bench_ends_with() {
    bench_children="$bench_children $1"
}

bench_server() {
    "$BENCH_BUILD/fpcache" local start --dir "$BENCH_TMP/server" >"$BENCH_TMP/start.log" 2>&1 || {
        cat "$BENCH_TMP/start.log" >&2
        exit 1
    }
    BENCH_URL=$("$BENCH_BUILD/fpcache" local url --dir "$BENCH_TMP/server")
    BENCH_BINDIR=$(for bin in /usr/lib/postgresql/*/bin; do [ -x "$bin/pgbench" ] && echo "$bin"; done | tail -n 1)
    [ -n "$BENCH_BINDIR" ] || BENCH_BINDIR=$(dirname "$(command -v pgbench)")
    export BENCH_URL BENCH_BINDIR
}

bench_machine() {
    echo "machine: $(uname -srm), $(getconf _NPROCESSORS_ONLN) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
    [ -z "${BENCH_BINDIR:-}" ] || echo "server: $("$BENCH_BINDIR/postgres" --version)"
}
