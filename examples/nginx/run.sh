#!/bin/sh
# run.sh -- starts nginx with the nginx.conf beside this file, in the foreground; Ctrl-C ends it.
#
#     sh examples/nginx/run.sh
#
# Needs Debian's nginx, libnginx-mod-http-lua and lua-resty-core, and a build of fpcache (./dev build).
# FPCACHE_URL   a database that is set up; default: the private one, made if it is not there
# FPC_PORT      another port than 8080; the upstream has the next one
# FPC_USER      as root: the user of the workers; default: who may enter the private server
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${FPC_BUILD_DIR:-$root/build}
port=${FPC_PORT:-8080}

user=${FPC_USER:-}
if [ -z "${FPCACHE_URL:-}" ]; then
    FPCACHE_URL=$("$build/fpcache" local url)
    socket=$(printf '%s' "$FPCACHE_URL" | sed 's/.*host=\([^&]*\).*/\1/; s/%2F/\//g')
    user=${user:-$(stat -c %U "$socket")}
fi
export FPCACHE_URL

prefix=$(mktemp -d "${TMPDIR:-/tmp}/fpcache-example-nginx.XXXXXX")
trap 'rm -rf "$prefix"' EXIT
mkdir "$prefix/fpcache"
cp -r "$root/lua" "$prefix/lua"
cp "$build/lua5.1/fpcache/core.so" "$prefix/fpcache/core.so"
sed "s/127\.0\.0\.1:8080/127.0.0.1:$port/; s/127\.0\.0\.1:8081/127.0.0.1:$((port + 1))/" "$here/nginx.conf" >"$prefix/nginx.conf"
chmod -R a+rX "$prefix"

set -- -p "$prefix" -c "$prefix/nginx.conf" -e stderr
[ "$(id -u)" != 0 ] || [ -z "$user" ] || set -- "$@" -g "user $user;"
PATH=$PATH:/usr/sbin nginx "$@" &
nginx=$!
trap 'kill -QUIT $nginx 2>/dev/null' INT TERM
echo "nginx answers at http://127.0.0.1:$port/api/weather  /login?user=ann  /me  /limited/  /status  /metrics"
code=0
wait $nginx || code=$?
while kill -0 $nginx 2>/dev/null; do # a signal ends the first wait; nginx still answers what it has
    code=0
    wait $nginx || code=$?
done
exit $code
