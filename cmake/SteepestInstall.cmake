# `cmake --install`: headers, static libraries, the program, and the package behind find_package(steepest), whose two
# export files keep base and kernels usable where there is no libtorch.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(steepest_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/steepest)

install(DIRECTORY steepest DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h"
        PATTERN "cli" EXCLUDE PATTERN "private" EXCLUDE PATTERN "*-inl.h" EXCLUDE)
install(TARGETS ${steepest_raw_targets} EXPORT steepest-raw)
install(TARGETS ${steepest_torch_targets} EXPORT steepest-torch)
install(EXPORT steepest-raw NAMESPACE steepest:: FILE steepestRaw.cmake DESTINATION ${steepest_package_folder})
install(EXPORT steepest-torch NAMESPACE steepest:: FILE steepestTorch.cmake DESTINATION ${steepest_package_folder})
if(TARGET steepest_cli)
  install(TARGETS steepest_cli)
endif()
install(FILES LICENSE CHANGELOG.md TYPE DOC)

configure_package_config_file(cmake/steepestConfig.cmake.in ${CMAKE_BINARY_DIR}/steepestConfig.cmake
                              INSTALL_DESTINATION ${steepest_package_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/steepestConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/steepestConfig.cmake ${CMAKE_BINARY_DIR}/steepestConfigVersion.cmake
              cmake/SteepestLibraries.cmake
        DESTINATION ${steepest_package_folder})
