# libFuzzer programs (clang): every fuzz/fuzz_NAME.c becomes build-fuzz/fuzz_NAME.
if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
  message(FATAL_ERROR "FPC_FUZZ needs clang: configure with -DCMAKE_C_COMPILER=clang")
endif()

# fpc_add_fuzzer(NAME SOURCES...): linked with the core; link more with target_link_libraries().
function(fpc_add_fuzzer name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src/core)
  target_link_libraries(${name} PRIVATE fpc_flags fpc_core)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()

fpc_add_fuzzer(fuzz_value_decode ${PROJECT_SOURCE_DIR}/fuzz/fuzz_value_decode.c ${FPC_LUA_SOURCES})
fpc_link_lua_binding(fuzz_value_decode)

file(GLOB FPC_FUZZERS CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/fuzz/fuzz_*.c)
foreach(source IN LISTS FPC_FUZZERS)
  get_filename_component(name ${source} NAME_WE)
  if(NOT TARGET ${name})
    fpc_add_fuzzer(${name} ${source})
  endif()
endforeach()
target_link_libraries(fuzz_filter_load PRIVATE PkgConfig::XXHASH)
