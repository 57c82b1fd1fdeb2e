# Warnings, sanitizers and the two interface targets every part of the tree links:
#   godwit_flags     language level, warnings, include root
#   godwit_sanitize  the sanitizers of this preset, if any
add_library(godwit_flags INTERFACE)
target_include_directories(godwit_flags INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(godwit_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wold-style-cast -Wcast-qual
    -Woverloaded-virtual -Wsuggest-override -Wnon-virtual-dtor -Wformat=2 -Wundef
    -Wimplicit-fallthrough -fno-omit-frame-pointer -Wno-missing-field-initializers>)
# (Parameter structs are named field by field; fields left out have their defaults in the struct.)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # -Wno-maybe-uninitialized: GCC 12 warns falsely inside nlohmann::json when it optimises.
    # -Wno-restrict: GCC 12 warns falsely on "literal" + std::to_string(x) when it optimises.
    target_compile_options(godwit_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
        -Wduplicated-cond -Wlogical-op -Wno-restrict -Wno-maybe-uninitialized>)
else()
    target_compile_options(godwit_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:
        -Wthread-safety -Wno-gnu-statement-expression-from-macro-expansion>)
endif()
# Every executable gets a build id: it is how two builds of the VMM are told apart.
target_link_options(godwit_flags INTERFACE -Wl,--build-id=sha1)
if(GODWIT_WERROR)
    target_compile_options(godwit_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Werror>)
endif()
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
target_link_libraries(godwit_flags INTERFACE Threads::Threads)

if(GODWIT_SANITIZE)
    target_compile_options(godwit_flags INTERFACE
        $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${GODWIT_SANITIZE} -fno-sanitize-recover=all>)
    target_link_options(godwit_flags INTERFACE -fsanitize=${GODWIT_SANITIZE})
    if(GODWIT_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        # The thread sanitizer does not model fences; ours only order ring indexes that are atomic.
        target_compile_options(godwit_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-tsan>)
    endif()
endif()
if(GODWIT_FUZZ)
    target_compile_options(godwit_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link>)
endif()
