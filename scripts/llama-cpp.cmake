# CMake includes this into llama.cpp's build (`.cargo/config.toml`).
#
# llama.cpp writes the shapes of AMX's tiles to memory for one instruction, which gcc before 14 believes to read eight
# bytes of them: it drops the other stores, and the first product with `--repack on` is an illegal instruction.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14
   AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
    add_compile_options(-fno-tree-dse -fno-dse)
endif()
