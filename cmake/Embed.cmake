# libfpcache.so for C programs (include/fpcache/fpcache.h), and the example that uses it.
fpc_embed_modules(FPC_EMBEDDED_LIBRARY embedded_library "^fpcache/(cli|shell|top)/")
# The static libraries of Debian are made for programs: this one takes the shared ones.
find_library(CJSON54_SHARED liblua5.4-cjson.so REQUIRED)
set(abi ${CMAKE_CURRENT_SOURCE_DIR}/src/embed/abi.map)
add_library(fpc_embed SHARED src/embed/guards.c src/embed/preload.c src/embed/runtime.c src/embed/values.c src/embed/watch.c
            ${FPC_EMBEDDED_LIBRARY} ${FPC_LUA_SOURCES})
target_include_directories(fpc_embed PUBLIC include PRIVATE ${LUA54_INCLUDE_DIR} src/embed src/lua
                           ${CMAKE_CURRENT_BINARY_DIR}/generated)
target_link_libraries(fpc_embed PRIVATE fpc_flags fpc_core PkgConfig::JANSSON PkgConfig::LUA54 ${CJSON54_SHARED} m dl)
# Threads of ours may outlive a dlclose(): the library must stay mapped.  Nothing is seen but what the map lists.
target_link_options(fpc_embed PRIVATE -Wl,-z,nodelete -Wl,--version-script=${abi})
set_target_properties(fpc_embed PROPERTIES OUTPUT_NAME fpcache VERSION ${PROJECT_VERSION} SOVERSION 0 C_EXTENSIONS OFF
                      LINK_DEPENDS ${abi})

add_executable(embed_server examples/embed/server.c)
target_link_libraries(embed_server PRIVATE fpc_flags fpc_embed Threads::Threads)
set_target_properties(embed_server PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/examples)
