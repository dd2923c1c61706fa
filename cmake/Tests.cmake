# What the tests need beside the product: C tests and two small Lua hosts.  Every
# spec/core/NAME_test.c becomes a program build/spec/NAME_test that ctest runs; those with a server start
# one of their own, so they may run side by side.
enable_testing()
pkg_check_modules(CMOCKA IMPORTED_TARGET cmocka)

# fpc_add_c_test(NAME SOURCES...): a cmocka program linked with the core; it may include headers of src/core.
function(fpc_add_c_test name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src/core)
  target_link_libraries(${name} PRIVATE fpc_flags fpc_core fpc_test_support PkgConfig::CMOCKA Threads::Threads)
  set_target_properties(${name} PROPERTIES C_EXTENSIONS OFF
                        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300)
endfunction()

# fpc_add_lua_host(NAME LIBRARY): a program that runs a Lua script; C modules see its Lua.
function(fpc_add_lua_host name library)
  add_executable(${name} spec/support/lua_host.c)
  target_link_libraries(${name} PRIVATE fpc_flags ${library})
  set_target_properties(${name} PROPERTIES ENABLE_EXPORTS ON C_EXTENSIONS OFF
                        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()

if(CMOCKA_FOUND)
  # A private server, a proxy before it, and short words for both.
  add_library(fpc_test_support STATIC spec/core/support/canned.c spec/core/support/db.c
              spec/core/support/proxy.c spec/core/support/requests.c spec/core/support/server.c)
  target_include_directories(fpc_test_support PUBLIC spec/core/support)
  target_link_libraries(fpc_test_support PRIVATE fpc_flags fpc_core PkgConfig::CMOCKA Threads::Threads)
  set_target_properties(fpc_test_support PROPERTIES C_EXTENSIONS OFF)
  file(GLOB FPC_C_TESTS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/spec/core/*_test.c)
  foreach(source IN LISTS FPC_C_TESTS)
    get_filename_component(name ${source} NAME_WE)
    fpc_add_c_test(${name} ${source})
  endforeach()
  if(FPC_LUA54) # tests of the binding below Lua: spec/lua/*_test.c, with the whole binding in the program
    file(GLOB FPC_LUA_C_TESTS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/spec/lua/*_test.c)
    foreach(source IN LISTS FPC_LUA_C_TESTS)
      get_filename_component(name ${source} NAME_WE)
      fpc_add_c_test(${name} ${source} ${FPC_LUA_SOURCES})
      fpc_link_lua_binding(${name})
    endforeach()
  endif()
  if(FPC_EMBED) # tests of libfpcache.so: spec/embed/*_test.c, which see its header alone
    file(GLOB FPC_EMBED_TESTS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/spec/embed/*_test.c)
    foreach(source IN LISTS FPC_EMBED_TESTS)
      get_filename_component(name ${source} NAME_WE)
      fpc_add_c_test(${name} ${source})
      target_link_libraries(${name} PRIVATE fpc_embed)
    endforeach()
  endif()
  # The filter's way of reading without x86's unaligned loads and AVX2, on this machine too.
  file(GLOB FPC_FILTER_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/core/filter*.c)
  foreach(name IN ITEMS filter_test filter_io_test filter_model_test filter_simd_test filter_threads_test)
    fpc_add_c_test(${name}_portable spec/core/${name}.c ${FPC_FILTER_SOURCES})
    target_link_libraries(${name}_portable PRIVATE PkgConfig::XXHASH)
    target_compile_definitions(${name}_portable PRIVATE FPC_FILTER_PORTABLE)
  endforeach()
  # The filter with a stop before each access that its readers and its writer share.
  foreach(way IN ITEMS "" _portable)
    fpc_add_c_test(filter_steps_test${way} spec/core/filter_steps.c ${FPC_FILTER_SOURCES})
    target_link_libraries(filter_steps_test${way} PRIVATE PkgConfig::XXHASH)
    target_compile_definitions(filter_steps_test${way} PRIVATE FPC_FILTER_STEPS)
  endforeach()
  target_compile_definitions(filter_steps_test_portable PRIVATE FPC_FILTER_PORTABLE)
  target_link_libraries(filter_io_test PRIVATE PkgConfig::XXHASH)
  target_link_libraries(filter_simd_test PRIVATE PkgConfig::XXHASH)
else()
  message(STATUS "cmocka not found: the C tests are not built (Debian: libcmocka-dev)")
endif()
if(FPC_LUA54)
  fpc_add_lua_host(lua54-host PkgConfig::LUA54)
endif()
if(FPC_LUAJIT)
  fpc_add_lua_host(luajit-host PkgConfig::LUAJIT)
endif()
# Run by spec/feed_threads_spec.lua, which gives it a server.
add_executable(feed_stress spec/support/feed_stress.c)
target_link_libraries(feed_stress PRIVATE fpc_flags fpc_core Threads::Threads)
set_target_properties(feed_stress PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
# Run by spec/token_load_spec.lua, which gives it a server and a workspace.
add_executable(token_load spec/support/token_load.c)
target_link_libraries(token_load PRIVATE fpc_flags fpc_core Threads::Threads)
set_target_properties(token_load PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/spec)
