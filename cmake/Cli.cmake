# The interpreter: Lua 5.4 and lua-cjson as static libraries, the C module, and every Lua module as data.
find_library(LUA54_STATIC liblua5.4.a REQUIRED)
find_library(CJSON54_STATIC liblua5.4-cjson.a REQUIRED)
find_file(ARGPARSE_LUA argparse.lua PATHS /usr/share/lua/5.4 /usr/local/share/lua/5.4 NO_DEFAULT_PATH)
if(NOT ARGPARSE_LUA)
  message(FATAL_ERROR "argparse.lua not found: install lua-argparse (Debian) or set -DARGPARSE_LUA=/path/to/argparse.lua")
endif()

file(GLOB_RECURSE lua_files CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/lua lua/fpcache/*.lua)
set(modules "argparse=${ARGPARSE_LUA}")
set(sources ${ARGPARSE_LUA})
foreach(file IN LISTS lua_files)
  string(REGEX REPLACE "(/init)?\\.lua$" "" name ${file})
  string(REPLACE "/" "." name ${name})
  list(APPEND modules "${name}=${CMAKE_CURRENT_SOURCE_DIR}/lua/${file}")
  list(APPEND sources ${CMAKE_CURRENT_SOURCE_DIR}/lua/${file})
endforeach()
set(embedded ${CMAKE_CURRENT_BINARY_DIR}/generated/embedded.c)
add_custom_command(OUTPUT ${embedded}
  COMMAND ${CMAKE_COMMAND} -DOUT=${embedded} "-DMODULES=${modules}" -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/EmbedLua.cmake
  DEPENDS ${sources} cmake/EmbedLua.cmake VERBATIM)

pkg_check_modules(LIBEDIT REQUIRED IMPORTED_TARGET libedit)
add_executable(fpcache src/cli/main.c src/cli/coroutines.c src/cli/screen.c src/cli/signals.c src/cli/terminal.c ${embedded} ${FPC_LUA_SOURCES})
target_include_directories(fpcache PRIVATE ${LUA54_INCLUDE_DIR} src/cli src/lua ${CMAKE_CURRENT_BINARY_DIR}/generated)
# The library does not tell its version when it runs.
target_compile_definitions(fpcache PRIVATE FPC_LIBEDIT_VERSION="${LIBEDIT_VERSION}")
# The whole of liblua, exported: C modules that scripts require expect it in the program.
target_link_libraries(fpcache PRIVATE fpc_flags fpc_core PkgConfig::JANSSON PkgConfig::LIBEDIT ${CJSON54_STATIC}
                      -Wl,--whole-archive ${LUA54_STATIC} -Wl,--no-whole-archive m dl)
set_target_properties(fpcache PROPERTIES ENABLE_EXPORTS ON C_EXTENSIONS OFF)
install(TARGETS fpcache)
install(CODE "file(CREATE_LINK fpcache \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/bin/fpcache-admin\" SYMBOLIC)")
add_custom_command(TARGET fpcache POST_BUILD COMMAND ${CMAKE_COMMAND} -E create_symlink fpcache fpcache-admin
                   WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR})
