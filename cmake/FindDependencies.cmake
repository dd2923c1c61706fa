# Finds what the house is given: libpq (through pg_config), OpenSSL, libcurl, jansson, xxHash, zstd, the Luas.
include(FindPackageHandleStandardArgs)
find_package(PkgConfig REQUIRED)

find_program(PG_CONFIG pg_config)
if(NOT PG_CONFIG)
  message(FATAL_ERROR "pg_config not found: install libpq-dev (Debian) or set -DPG_CONFIG=/path/to/pg_config")
endif()
execute_process(COMMAND ${PG_CONFIG} --includedir OUTPUT_VARIABLE PQ_INCLUDE_DIR OUTPUT_STRIP_TRAILING_WHITESPACE)
execute_process(COMMAND ${PG_CONFIG} --libdir OUTPUT_VARIABLE PQ_LIB_DIR OUTPUT_STRIP_TRAILING_WHITESPACE)
find_library(PQ_LIBRARY pq HINTS ${PQ_LIB_DIR} REQUIRED)
if(NOT EXISTS ${PQ_INCLUDE_DIR}/libpq-fe.h)
  message(FATAL_ERROR "${PQ_INCLUDE_DIR}/libpq-fe.h is missing: install libpq-dev (Debian)")
endif()
add_library(PostgreSQL::libpq UNKNOWN IMPORTED)
set_target_properties(PostgreSQL::libpq PROPERTIES IMPORTED_LOCATION ${PQ_LIBRARY}
                      INTERFACE_INCLUDE_DIRECTORIES ${PQ_INCLUDE_DIR})

find_package(OpenSSL REQUIRED COMPONENTS Crypto)
find_package(CURL 7.68 REQUIRED) # curl_multi_poll
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash>=0.8)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd>=1.4)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.14)

if(NOT FPC_LUA_INCLUDE_DIR)
  if(FPC_LUA54 OR FPC_CLI OR FPC_EMBED)
    pkg_check_modules(LUA54 REQUIRED IMPORTED_TARGET lua5.4)
    set(LUA54_INCLUDE_DIR ${LUA54_INCLUDE_DIRS})
  endif()
  if(FPC_LUAJIT)
    pkg_check_modules(LUAJIT REQUIRED IMPORTED_TARGET luajit)
    set(LUAJIT_INCLUDE_DIR ${LUAJIT_INCLUDE_DIRS})
  endif()
endif()
