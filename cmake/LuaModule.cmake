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

# fpc_install_lua_module(NAME LUA_DIR LIB_DIR): install rules for the module and for lua/.
function(fpc_install_lua_module name lua_dir lib_dir)
  if(NOT lua_dir OR NOT lib_dir)
    message(FATAL_ERROR "FPC_LUA_INCLUDE_DIR needs FPC_INSTALL_LUADIR and FPC_INSTALL_LIBDIR too")
  endif()
  install(TARGETS ${name} LIBRARY DESTINATION ${lib_dir}/fpcache)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/lua/ DESTINATION ${lua_dir} FILES_MATCHING PATTERN "*.lua")
endfunction()
