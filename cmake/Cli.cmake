# The interpreter, with everything built in.
fpc_embed_modules(FPC_EMBEDDED embedded)
pkg_check_modules(LIBEDIT REQUIRED IMPORTED_TARGET libedit)
add_executable(fpcache src/cli/main.c src/cli/coroutines.c src/cli/screen.c src/cli/signals.c src/cli/terminal.c src/embed/preload.c
               ${FPC_EMBEDDED} ${FPC_LUA_SOURCES})
target_include_directories(fpcache PRIVATE ${LUA54_INCLUDE_DIR} src/cli src/embed src/lua ${CMAKE_CURRENT_BINARY_DIR}/generated)
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
