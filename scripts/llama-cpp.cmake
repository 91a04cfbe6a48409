# CMake includes this into llama.cpp's build (`.cargo/config.toml`).

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    return()
endif()

# llama.cpp writes the shapes of AMX's tiles to memory for one instruction, which gcc before 14 believes to read eight
# bytes of them: it drops the other stores, and the first product with `--repack on` is an illegal instruction.
if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14 AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    add_compile_options(-fno-tree-dse -fno-dse)
endif()

# Leaves out what this project does not use, half of the time that llama.cpp takes to compile. Of its library `common`
# that is all but the conversion of JSON schemas to grammars: command line, chat templates, downloads, speculative
# decoding. Functions that refer to what is left out lie in sections that the linker drops.
function(xc2_compile_less)
    set(common "${CMAKE_SOURCE_DIR}/common")
    set(sources)
    foreach(name common json json-schema json-schema-to-grammar log trie unicode)
        list(APPEND sources "${common}/${name}.cpp")
    endforeach()
    set_property(TARGET llama-common PROPERTY SOURCES ${sources})
    target_compile_options(llama-common PRIVATE -O1 -ffunction-sections -fdata-sections)
    get_target_property(libraries llama-common LINK_LIBRARIES)
    list(REMOVE_ITEM libraries cpp-httplib)
    set_property(TARGET llama-common PROPERTY LINK_LIBRARIES ${libraries})
    set_property(TARGET cpp-httplib PROPERTY EXCLUDE_FROM_ALL TRUE)

    # Graphs of 120 architectures are built by code that computes nothing.
    target_compile_options(llama PRIVATE -O2)
endfunction()

if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND PROJECT_IS_TOP_LEVEL)
    cmake_language(DEFER CALL xc2_compile_less)
endif()
