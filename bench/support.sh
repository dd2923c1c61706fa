# shellcheck shell=sh
# support.sh -- what the run.sh of the benches share; sourced by them: ". bench/support.sh".
#
#   bench_begin RUN_SH PARTS BUILD_DIR [--quick] [--only PART]
#                                  reads the command line, of which "$@" is the end, or says how it goes and ends; sets BENCH_QUICK
#                                  (0, 1), BENCH_PARTS (PARTS or one of them; --only is for benches that have parts), BENCH_BUILD,
#                                  BENCH_HERE (the bench's folder), BENCH_ROOT (the project's), BENCH_JSON (where results go),
#                                  BENCH_TMP (removed at the end, whatever ends it) and LUA_PATH; says so when the build is no
#                                  optimised one
#   bench_server                   a private PostgreSQL as `fpcache local start` makes it: BENCH_URL (its superuser), BENCH_BINDIR
#   bench_redis                    a Redis without persistence on the unix socket BENCH_REDIS
#   bench_side LIBRARY             compiles side_LIBRARY.c of the bench, which speaks to the bare LIBRARY, into BENCH_TMP
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

bench_usage() {
    echo "usage: run.sh BUILD_DIR [--quick]${BENCH_PARTS:+ [--only PART]    (parts: $BENCH_PARTS)}" >&2
    exit 2
}

bench_begin() {
    BENCH_HERE=$(cd "$(dirname "$1")" && pwd)
    BENCH_PARTS=$2
    [ $# -ge 3 ] || bench_usage
    BENCH_BUILD=$(cd "$3" && pwd)
    shift 3
    BENCH_QUICK=0
    while [ $# -gt 0 ]; do
        case $1 in
        --quick) BENCH_QUICK=1 ;;
        --only)
            [ $# -gt 1 ] || bench_usage
            shift
            case " $BENCH_PARTS " in *" $1 "*) BENCH_PARTS=$1 ;; *) bench_usage ;; esac
            ;;
        *) bench_usage ;;
        esac
        shift
    done
    BENCH_ROOT=$(cd "$BENCH_HERE/../.." && pwd)
    grep -q '^CMAKE_BUILD_TYPE:STRING=Release' "$BENCH_BUILD/CMakeCache.txt" ||
        echo "run.sh: $BENCH_BUILD is no optimised build: the figures mean little" >&2
    mkdir -p "$BENCH_BUILD/bench"
    BENCH_JSON=$BENCH_BUILD/bench/${BENCH_HERE##*/}.json
    bench_children=
    BENCH_TMP=$(mktemp -d /tmp/fpcache-bench-XXXXXX)
    trap bench_cleanup EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    chmod 755 "$BENCH_TMP" # the server may run under another account
    LUA_PATH="$BENCH_HERE/?.lua;$BENCH_ROOT/bench/support/?.lua;$BENCH_ROOT/lua/?.lua;$BENCH_ROOT/lua/?/init.lua;;"
    export BENCH_QUICK BENCH_PARTS BENCH_BUILD BENCH_HERE BENCH_ROOT BENCH_JSON BENCH_TMP LUA_PATH
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

bench_redis() {
    BENCH_REDIS=$BENCH_TMP/redis.sock
    redis-server --port 0 --unixsocket "$BENCH_REDIS" --save '' --appendonly no --dir "$BENCH_TMP" >"$BENCH_TMP/redis.log" 2>&1 &
    bench_ends_with $!
    tries=0
    until [ -S "$BENCH_REDIS" ]; do
        tries=$((tries + 1))
        [ $tries -le 100 ] || { cat "$BENCH_TMP/redis.log" >&2; exit 1; }
        sleep 0.1
    done
    export BENCH_REDIS
}

bench_side() {
    # shellcheck disable=SC2046 # a list of flags
    cc -O2 -Wall -Wextra -Werror -D_GNU_SOURCE -o "$BENCH_TMP/side_$1" "$BENCH_HERE/side_$1.c" $(pkg-config --cflags --libs "$1")
}

bench_machine() {
    echo "machine: $(uname -srm), $(getconf _NPROCESSORS_ONLN) processors, load $(cut -d' ' -f1-3 /proc/loadavg)"
    [ -z "${BENCH_BINDIR:-}" ] || echo "server: $("$BENCH_BINDIR/postgres" --version)"
}
