# What `cmake --install` lays out beside the Lua modules, and the .deb that `cpack -G DEB` makes of it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# --- for C programs: runtimes as a shared library, the core as a static one, the headers, and how to find them ---
install(TARGETS fpc_core ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(FPC_EMBED)
  install(TARGETS fpc_embed LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY include/fpcache DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
# Relative, so that the file holds wherever the tree is put.
file(RELATIVE_PATH FPC_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
foreach(name IN ITEMS fpcache fpcache-core)
  configure_file(cmake/${name}.pc.in ${CMAKE_CURRENT_BINARY_DIR}/generated/${name}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/generated/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fpcache)
configure_package_config_file(cmake/fpcacheConfig.cmake.in
  ${CMAKE_CURRENT_BINARY_DIR}/generated/fpcacheConfig.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/generated/fpcacheConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/generated/fpcacheConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/generated/fpcacheConfigVersion.cmake DESTINATION ${package_dir})

# --- papers ---
install(FILES README.md CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.svg"
        PATTERN man EXCLUDE)
if(FPC_CLI)
  install(FILES docs/man/fpcache.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES completion/fpcache.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME fpcache)
  install(FILES completion/_fpcache DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
endif()

# --- the Debian package; what it needs is read off the binaries ---
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME fpcache)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "fpcache maintainers <maintainers@fpcache.invalid>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "shared cache on PostgreSQL, for Lua, nginx and the shell")
set(CPACK_PACKAGE_DESCRIPTION "Redis-like calls on an UNLOGGED table of the PostgreSQL that is there already:
exact values, TTLs, bulk calls, a near cache and a cuckoo filter that are never stale beyond a bound.
Holds the interpreter, the modules for Lua 5.4 and LuaJIT, and the C core with its headers.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION database)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "postgresql, ca-certificates")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "lua5.4, libnginx-mod-http-lua")
include(CPack)
