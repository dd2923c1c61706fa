#!/bin/sh
# run.sh BUILD_DIR [--quick] [--only PART] -- what does a request to one nginx worker cost, by who answers it: nothing, the near cache, the
# filter, what the workers share, the server, blocking libpq, Redis?
#
# And how soon reloads of nginx and restarts of PostgreSQL are over (recovery).
#
# Takes 7 minutes; --quick 2 to 3.  Servers are private and removed at the end.  Writes BUILD_DIR/bench/nginx.json and
# nginx_recovery.json.
# Last runs: docs/nginx.md.
set -eu

# shellcheck source=bench/support.sh
. "$(dirname "$0")/../support.sh"
bench_begin "$0" "costs recovery" "$@"
bench_server
bench_redis

mkdir -p "$BENCH_TMP/nginx"
BENCH_NGINX_PORT=$((20000 + $$ % 20000))
export BENCH_NGINX_PORT
bench_machine
"$BENCH_BUILD/fpcache" "$BENCH_HERE/setup.lua"

user=
[ "$(id -u)" != 0 ] || user="user root;" # the private server's socket is for root then, too
sed -e "s|@USER@|$user|; s|@TMP@|$BENCH_TMP|g; s|@ROOT@|$BENCH_ROOT|g; s|@HERE@|$BENCH_HERE|g" \
    -e "s|@BUILD@|$BENCH_BUILD|g; s|@PORT@|$BENCH_NGINX_PORT|g" \
    "$BENCH_HERE/nginx.conf" >"$BENCH_TMP/nginx.conf"
/usr/sbin/nginx -p "$BENCH_TMP/nginx" -c "$BENCH_TMP/nginx.conf" -e "$BENCH_TMP/nginx.log" &
bench_ends_with $!
for part in $BENCH_PARTS; do
    case $part in costs) script=drive.lua ;; *) script=recovery.lua ;; esac
    "$BENCH_BUILD/fpcache" "$BENCH_HERE/$script" || { tail -n 20 "$BENCH_TMP/nginx.log" >&2; exit 1; }
done
