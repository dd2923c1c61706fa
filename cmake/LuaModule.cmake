# fpc_add_lua_module(NAME INCLUDE_DIR FOLDER): builds FOLDER/fpcache/core.so for one Lua ABI.
# The module links no liblua: the host program brings it.
function(fpc_add_lua_module name include_dir folder)
  add_library(${name} MODULE ${FPC_LUA_SOURCES})
  target_include_directories(${name} PRIVATE ${include_dir} src/lua ${CMAKE_CURRENT_BINARY_DIR}/generated)
  target_link_libraries(${name} PRIVATE fpc_flags fpc_core PkgConfig::JANSSON)
  # Threads of ours may outlive the Lua state: the library must stay mapped.
  target_link_options(${name} PRIVATE -Wl,-z,nodelete)
  set_target_properties(${name} PROPERTIES PREFIX "" OUTPUT_NAME core C_EXTENSIONS OFF
                        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/${folder}/fpcache)
endfunction()

# fpc_link_lua_binding(NAME): for a C test or a fuzzer that has FPC_LUA_SOURCES among its own and brings Lua 5.4.
function(fpc_link_lua_binding name)
  target_include_directories(${name} PRIVATE src/lua ${CMAKE_CURRENT_BINARY_DIR}/generated)
  target_link_libraries(${name} PRIVATE PkgConfig::JANSSON PkgConfig::LUA54)
endfunction()

# fpc_install_lua_module(NAME LUA_DIR LIB_DIR): install rules for the module and for lua/.
function(fpc_install_lua_module name lua_dir lib_dir)
  if(NOT lua_dir OR NOT lib_dir)
    message(FATAL_ERROR "FPC_LUA_INCLUDE_DIR needs FPC_INSTALL_LUADIR and FPC_INSTALL_LIBDIR too")
  endif()
  install(TARGETS ${name} LIBRARY DESTINATION ${lib_dir}/fpcache)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/lua/ DESTINATION ${lua_dir} FILES_MATCHING PATTERN "*.lua")
endfunction()

# fpc_check_lua_headers(DIR): ends the configuration when the headers are of a Lua we do not build for.
function(fpc_check_lua_headers dir)
  if(NOT EXISTS ${dir}/lua.h)
    message(FATAL_ERROR "${dir}/lua.h is missing: install the headers of Lua 5.4 or LuaJIT, or pass LUA_INCDIR=")
  endif()
  file(STRINGS ${dir}/lua.h version REGEX "define[ \t]+LUA_VERSION_NUM[ \t]+501")
  if(version AND NOT EXISTS ${dir}/luajit.h)
    message(FATAL_ERROR "${dir} is plain Lua 5.1, fpcache needs LuaJIT 2.1 there: "
                        "pass LUA_INCDIR=/usr/include/luajit-2.1 or wherever luajit.h is")
  endif()
endfunction()
