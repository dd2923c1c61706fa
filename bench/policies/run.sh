#!/bin/sh
# run.sh BUILD_DIR [--quick] [--only PART] -- what does fetch cost over get, and what do refresh-ahead and XFetch save?
#
# Parts, a file each, run on a private server that is removed at the end: overhead, zipf.  Takes one minute; --quick less.
#
# Last run: 2026-11-23, 2 virtual processors (AMD EPYC), PostgreSQL 15.18.
#   near    get 0.555 us  fetch 0.648 us (bar: 0.5 us more)     server  get 67.9 us  fetch 110.3 us (MISSED, bar 5 % more)
#   zipf    readers that met an expired key, of 6,000: plain 1234, refresh_ahead 939, XFetch 1200
set -eu
[ $# -ge 1 ] || { echo "usage: run.sh BUILD_DIR [--quick] [--only PART]" >&2; exit 2; }
BUILD=$(cd "$1" && pwd)
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
shift
parts="overhead zipf" quick=0
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 ;;
    --only)
        if [ $# -lt 2 ] || [ ! -f "$HERE/$2.lua" ]; then echo "run.sh: no such part" >&2; exit 2; fi
        shift
        parts=$1
        ;;
    *) echo "run.sh: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
dir=$(mktemp -d /tmp/fpcache-bench-XXXXXX)
trap '"$BUILD/fpcache" local destroy --dir "$dir/server" --force >/dev/null 2>&1 || true; rm -rf "$dir"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$dir"
"$BUILD/fpcache" local start --dir "$dir/server" >/dev/null
url=$("$BUILD/fpcache" local url --dir "$dir/server")
for part in $parts; do
    echo "== $part"
    BENCH_QUICK=$quick FPCACHE_URL=$url LUA_PATH="$ROOT/bench/support/?.lua;;" "$BUILD/fpcache" "$HERE/$part.lua"
done
