# libtorch from the `torch` wheel of the virtual environment, and one precompiled header for all rooms that use it.
if(NOT Python_EXECUTABLE)
  find_package(Python REQUIRED COMPONENTS Interpreter)
endif()
execute_process(COMMAND ${Python_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
                OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_missing)
if(torch_missing)
  message(FATAL_ERROR "torch is not importable by ${Python_EXECUTABLE}; run scripts/setup.sh first")
endif()
list(APPEND CMAKE_PREFIX_PATH ${torch_prefix})
set(STEEPEST_TORCH_LIB ${torch_prefix}/../../lib)
get_filename_component(STEEPEST_TORCH_LIB ${STEEPEST_TORCH_LIB} ABSOLUTE)
find_package(Torch REQUIRED)

# The wheel's own OpenMP runtime (same soname as the system's) must be the one that is loaded: one pool for all.
set(CMAKE_BUILD_RPATH ${STEEPEST_TORCH_LIB})
set(CMAKE_INSTALL_RPATH ${STEEPEST_TORCH_LIB})

add_library(steepest_torch INTERFACE)
target_include_directories(steepest_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(steepest_torch INTERFACE ${TORCH_LIBRARIES})

file(WRITE ${CMAKE_BINARY_DIR}/steepest_pch.cc.in "")
configure_file(${CMAKE_BINARY_DIR}/steepest_pch.cc.in ${CMAKE_BINARY_DIR}/steepest_pch.cc COPYONLY)
add_library(steepest_pch OBJECT ${CMAKE_BINARY_DIR}/steepest_pch.cc)
steepest_compile_options(steepest_pch)
target_link_libraries(steepest_pch PRIVATE steepest_torch OpenMP::OpenMP_CXX)
target_precompile_headers(steepest_pch PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h>
                          <torch/csrc/autograd/generated/variable_factories.h>
                          <algorithm> <array> <cstdint> <filesystem> <functional> <map> <memory> <optional> <span> <string>
                          <string_view> <vector>)
