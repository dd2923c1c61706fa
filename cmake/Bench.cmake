# Programs of bench/, not part of `all`: `cmake --build build --target filter_bench`.
# The compared side is compiled for this machine, as its users do; ours as it is shipped.
add_executable(filter_bench EXCLUDE_FROM_ALL bench/filter/filter_bench.c bench/filter/sides_fpc.c
               bench/filter/sides_layouts.c bench/filter/sides_other.c)
target_link_libraries(filter_bench PRIVATE fpc_flags fpc_core)
set_source_files_properties(bench/filter/sides_layouts.c bench/filter/sides_other.c PROPERTIES COMPILE_OPTIONS "-O3;-march=native")
set_target_properties(filter_bench PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
foreach(name IN ITEMS filter_layouts filter_readers)
  add_executable(${name} EXCLUDE_FROM_ALL bench/filter/${name}.c)
  target_link_libraries(${name} PRIVATE fpc_flags fpc_core)
  set_target_properties(${name} PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
endforeach()
add_executable(pipeline_engine EXCLUDE_FROM_ALL bench/pipeline/side_engine.c)
target_link_libraries(pipeline_engine PRIVATE fpc_flags fpc_core)
set_target_properties(pipeline_engine PROPERTIES C_EXTENSIONS OFF RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bench)
