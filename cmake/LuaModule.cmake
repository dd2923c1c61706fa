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
