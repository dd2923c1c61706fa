#!/bin/sh
# install.sh -- `cmake --install` and the .deb: what is laid out works, for C programs, both Luas and the shell.
# Needs no network and no rights.  FPC_BUILD_DIR has the build; the counts go to FPC_TEST_COUNTS.
set -eu
cd "$(dirname "$0")/../.."
here=$(pwd)/spec/packaging
build=${FPC_BUILD_DIR:-build}
case $build in /*) ;; *) build=$(pwd)/$build ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
# shellcheck disable=SC1091
. "$here/must.sh"

cat >"$work/user.c" <<'END'
#include <fpcache/filter.h>
#include <stdio.h>
int main(void) {
    fpc_error err;
    fpc_filter *filter = NULL;
    if (fpc_filter_new(&(fpc_filter_options){.capacity = 100}, &filter, &err) != FPC_OK) return 1;
    fpc_filter_add(filter, "key", 3);
    printf("%d\n", fpc_filter_contains(filter, "key", 3));
    fpc_filter_delete(filter);
}
END

cat >"$work/host.c" <<'END'
#include <fpcache/fpcache.h>
#include <stdio.h>
int main(void) {
    static const char CODE[] = "return require('fpcache')._VERSION";
    const fpc_value *results;
    fpc_runtime *runtime = NULL;
    fpc_error err;
    int count;
    if (fpc_runtime_open(NULL, &runtime, &err) != FPC_OK ||
        fpc_runtime_run(runtime, CODE, sizeof CODE - 1, "host", &results, &count, &err) != FPC_OK) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s\n", results[0].text.bytes);
    fpc_runtime_close(runtime);
}
END

in_prefix() { cmake --install "$build" --prefix "$1"; }

# $1: where the headers and the library are.
by_pkg_config() {
    # shellcheck disable=SC2046 # words
    PKG_CONFIG_PATH=$(dirname "$(find "$1" -name fpcache.pc)") && export PKG_CONFIG_PATH &&
        cc -o "$work/by-pkg-config" "$work/user.c" $(pkg-config --cflags --libs fpcache-core) &&
        [ "$("$work/by-pkg-config")" = 1 ]
}

# A host of the shared library, which is found by its SONAME.
host_by_pkg_config() {
    # shellcheck disable=SC2046 # words
    PKG_CONFIG_PATH=$(dirname "$(find "$1" -name fpcache.pc)") && export PKG_CONFIG_PATH &&
        cc -o "$work/host" "$work/host.c" $(pkg-config --cflags --libs fpcache) &&
        LD_LIBRARY_PATH=$(pkg-config --variable=libdir fpcache) "$work/host" | grep -q '^[0-9]'
}

by_cmake() {
    mkdir "$work/project"
    cat >"$work/project/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.18)
project(user C)
find_package(fpcache 0.1 REQUIRED)
add_executable(user $work/user.c)
target_link_libraries(user fpcache::core)
add_executable(host $work/host.c)
target_link_libraries(host fpcache::fpcache)
END
    cmake -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$1" &&
        cmake --build "$work/project/build" && [ "$("$work/project/build/user")" = 1 ] &&
        "$work/project/build/host"
}

# runs PREFIX: the interpreter and its other name, with nothing of this checkout in sight.
runs() {
    (cd / && "$1/bin/fpcache" -e 'print(require("fpcache")._VERSION)' | grep -q '^[0-9]' && "$1/bin/fpcache-admin" --help)
}

# loads PREFIX HOST LUA_VERSION
loads() {
    (cd / && LUA_PATH="$1/share/lua/$3/?.lua;$1/share/lua/$3/?/init.lua" LUA_CPATH="$1/lib/lua/$3/?.so" "$2" - <<'END'
assert(type(require("fpcache").new) == "function")
END
    )
}

# lays_out PREFIX: the manual page and the completions, where man and the shells look.
lays_out() {
    [ -f "$1/share/man/man1/fpcache.1" ] && [ -f "$1/share/zsh/vendor-completions/_fpcache" ] &&
        bash -c '. "$1/share/bash-completion/completions/fpcache" && complete -p fpcache' - "$1"
}

deb() {
    (cd "$build" && cpack -G DEB -B "$work/deb") && mkdir "$work/root" &&
        dpkg-deb -x "$work"/deb/fpcache_*.deb "$work/root"
}

needs_its_libraries() {
    for library in libc6 libedit2 libjansson4 liblua5.4-0 libpq5 libssl3 lua-cjson libxxhash0 libzstd1; do
        dpkg-deb -f "$work"/deb/fpcache_*.deb Depends | grep -q "$library " || { echo "no $library"; return 1; }
    done
}

must "cmake --install" in_prefix "$work/prefix"
must "a C program by pkg-config" by_pkg_config "$work/prefix"
must "a C host by pkg-config" host_by_pkg_config "$work/prefix"
must "C programs by find_package" by_cmake "$work/prefix"
must "the installed interpreter runs" runs "$work/prefix"
must "the installed module loads in Lua 5.4" loads "$work/prefix" lua5.4 5.4
must "the installed module loads in LuaJIT" loads "$work/prefix" "$build/luajit-host" 5.1
must "the manual page and the completions" lays_out "$work/prefix"
must "a .deb" deb
must "the .deb names what it needs" needs_its_libraries
must "the manual page and the completions of the .deb" lays_out "$work/root/usr"
must "the interpreter of the .deb runs" runs "$work/root/usr"
must "the module of the .deb loads in Lua 5.4" loads "$work/root/usr" lua5.4 5.4
must "a C program with the files of the .deb" by_pkg_config "$work/root/usr"
must "a C host with the files of the .deb" host_by_pkg_config "$work/root/usr"
finish
