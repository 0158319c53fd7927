# libtorch from the `torch` wheel of the virtual environment, and one precompiled header for all rooms that use it.
get_filename_component(STEEPEST_TORCH_LIB ${TORCH_INSTALL_PREFIX}/lib ABSOLUTE)

# The wheel's own OpenMP runtime (same soname as the system's) must be the one that is loaded: one pool for all.
set(CMAKE_BUILD_RPATH ${STEEPEST_TORCH_LIB})
set(CMAKE_INSTALL_RPATH ${STEEPEST_TORCH_LIB})

file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/steepest_pch.cc CONTENT "")
add_library(steepest_pch OBJECT ${CMAKE_BINARY_DIR}/steepest_pch.cc)
steepest_compile_options(steepest_pch)
target_link_libraries(steepest_pch PRIVATE steepest::libtorch OpenMP::OpenMP_CXX)
target_precompile_headers(steepest_pch PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h>
                          <torch/csrc/autograd/generated/variable_factories.h>
                          <algorithm> <array> <cstdint> <filesystem> <functional> <map> <memory> <optional> <span> <string>
                          <string_view> <vector>)
