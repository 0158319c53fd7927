# Compiler settings shared by every target, and the system libraries.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Programs share the libraries' precompiled header, which -fpie would make unusable.
set(CMAKE_CXX_COMPILE_OPTIONS_PIE ${CMAKE_CXX_COMPILE_OPTIONS_PIC})
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(STEEPEST_WERROR "Treat warnings as errors" ON)
option(STEEPEST_BUILD_TESTS "Build the C++ tests" ON)
option(STEEPEST_BUILD_FUZZ "Build the libFuzzer targets (needs clang)" OFF)
set(STEEPEST_SANITIZE "" CACHE STRING "Sanitizers for -fsanitize=, for example address,undefined")

find_program(CCACHE ccache)
if(CCACHE)
  # Precompiled headers under ccache need the sloppiness; with the base folder, checkouts share what they compiled.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE})
endif()

set(steepest_missing "")
include(SteepestLibraries)
steepest_require_kernel_libraries()
steepest_require_trainer_libraries()
steepest_require_libtorch()
if(steepest_missing)
  list(JOIN steepest_missing "; " steepest_missing)
  message(FATAL_ERROR "Missing: ${steepest_missing}. scripts/setup.sh installs everything.")
endif()

# glibc's malloc returns torch's large temporaries to the system each time; tcmalloc keeps them (up to 2x in the head).
set(STEEPEST_ALLOCATOR "")
if(NOT STEEPEST_SANITIZE)
  find_library(TCMALLOC NAMES tcmalloc_minimal tcmalloc)
  mark_as_advanced(TCMALLOC)
  if(TCMALLOC)
    set(STEEPEST_ALLOCATOR -Wl,--no-as-needed ${TCMALLOC} -Wl,--as-needed)
  endif()
endif()

function(steepest_compile_options target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}> $<INSTALL_INTERFACE:include>)
  # No contraction: a fused multiply-add would round differently from machines that lack it.
  target_compile_options(${target} PRIVATE -Wall -Wextra -ffp-contract=off -fno-math-errno)
  if(STEEPEST_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(STEEPEST_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${STEEPEST_SANITIZE} -fno-sanitize-recover=all
                           -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${STEEPEST_SANITIZE})
  endif()
endfunction()
