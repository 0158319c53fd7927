# The system libraries as imported targets, found in one way by the build and by the installed package (steepestConfig).
# Each macro collects in `steepest_missing` what could not be found, in words that say what to install.

macro(steepest_require_package package what)
  if(NOT ${package}_FOUND)
    find_package(${package} QUIET ${ARGN})
    if(NOT ${package}_FOUND)
      list(APPEND steepest_missing "${what}")
    endif()
  endif()
endmacro()

# A library that is one header folder and one library file.
macro(steepest_require_library target header library debian)
  if(NOT TARGET ${target})
    find_path(STEEPEST_${library}_INCLUDE ${header})
    find_library(STEEPEST_${library}_LIBRARY ${library})
    mark_as_advanced(STEEPEST_${library}_INCLUDE STEEPEST_${library}_LIBRARY)
    if(STEEPEST_${library}_INCLUDE AND STEEPEST_${library}_LIBRARY)
      add_library(${target} UNKNOWN IMPORTED)
      set_target_properties(${target} PROPERTIES IMPORTED_LOCATION ${STEEPEST_${library}_LIBRARY}
                            INTERFACE_INCLUDE_DIRECTORIES ${STEEPEST_${library}_INCLUDE})
    else()
      list(APPEND steepest_missing "${library} with ${header} (Debian: ${debian})")
    endif()
  endif()
endmacro()

# What the rooms base and kernels need.
macro(steepest_require_kernel_libraries)
  steepest_require_package(OpenMP "a C++ compiler with OpenMP" COMPONENTS CXX)
  steepest_require_package(nlohmann_json "nlohmann_json (Debian: nlohmann-json3-dev)")
  steepest_require_library(hwy::hwy hwy/highway.h hwy libhwy-dev)
endmacro()

# What the other rooms need besides libtorch.
macro(steepest_require_trainer_libraries)
  steepest_require_package(ZLIB "zlib (Debian: zlib1g-dev)")
  steepest_require_package(tomlplusplus "toml++ (Debian: libtomlplusplus-dev)")
  steepest_require_library(sentencepiece::sentencepiece sentencepiece_processor.h sentencepiece libsentencepiece-dev)
  steepest_require_library(sentencepiece_train::sentencepiece_train sentencepiece_trainer.h sentencepiece_train
                           libsentencepiece-dev)
endmacro()

# steepest::libtorch, from Torch_DIR or CMAKE_PREFIX_PATH where these name it, else from the torch wheel of
# Python_EXECUTABLE (or of the python3 in PATH), else from STEEPEST_TORCH_HINT. The wheel's folder is looked up without
# importing torch, which would take seconds.
macro(steepest_require_libtorch)
  if(NOT TARGET steepest::libtorch)
    if(NOT Python_EXECUTABLE)
      find_package(Python QUIET COMPONENTS Interpreter)
    endif()
    set(steepest_torch_folder "")
    if(Python_EXECUTABLE)
      execute_process(COMMAND ${Python_EXECUTABLE} -c
                              "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                      OUTPUT_VARIABLE steepest_torch_folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    endif()
    set(steepest_log_level ${CMAKE_MESSAGE_LOG_LEVEL})
    set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # the wheel's TorchConfig warns about a library that programs do not need
    find_package(Torch QUIET HINTS ${steepest_torch_folder}/share/cmake/Torch ${STEEPEST_TORCH_HINT})
    set(CMAKE_MESSAGE_LOG_LEVEL ${steepest_log_level})
    if(Torch_FOUND)
      add_library(steepest::libtorch INTERFACE IMPORTED)
      set_target_properties(steepest::libtorch PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${TORCH_INCLUDE_DIRS}"
                            INTERFACE_LINK_LIBRARIES "${TORCH_LIBRARIES}")
    else()
      list(APPEND steepest_missing "libtorch (pip install torch==2.13.0, then -DPython_EXECUTABLE=that Python)")
    endif()
  endif()
endmacro()
