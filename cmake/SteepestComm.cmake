# The torch wheel lacks Gloo's headers: one source file sees the opaque declarations of private/ in their place.
set_source_files_properties(${CMAKE_SOURCE_DIR}/steepest/comm/gloo_transport.cc
                            PROPERTIES INCLUDE_DIRECTORIES ${CMAKE_SOURCE_DIR}/steepest/comm/private)
