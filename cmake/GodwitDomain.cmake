# godwit_domain(NAME [DEPENDS domain...] [PRIVATE_LIBS lib...])
#
# One static library per folder under src/, found by name so that adding a file needs no edit here:
#   *.cpp              the library godwit_NAME, alias godwit::NAME
#   *.h                its public headers, checked to be self-contained
#   *_test.cpp         the unit test executable NAME_test, ctest label "unit"
#   *_vm_test.cpp      NAME_vm_test, label "vm": needs /dev/kvm
#   testing/           the library godwit_NAME_testing, alias godwit::NAME_testing: fakes and drivers
#                      for tests of this and higher domains, linked to this domain's tests
# DEPENDS names lower layers only; tests/layers checks it.
function(godwit_domain name)
    cmake_parse_arguments(ARG "" "" "DEPENDS;PRIVATE_LIBS" ${ARGN})
    file(GLOB_RECURSE all CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
    file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h)
    set(vm_tests ${all})
    list(FILTER vm_tests INCLUDE REGEX "_vm_test\\.cpp$")
    set(unit_tests ${all})
    list(FILTER unit_tests INCLUDE REGEX "_test\\.cpp$")
    list(FILTER unit_tests EXCLUDE REGEX "_vm_test\\.cpp$")
    set(sources ${all})
    list(FILTER sources EXCLUDE REGEX "_(test|fuzz)\\.cpp$")
    set(testing_sources ${sources})
    list(FILTER testing_sources INCLUDE REGEX "/testing/[^/]*$")
    list(FILTER sources EXCLUDE REGEX "/testing/[^/]*$")
    list(FILTER headers EXCLUDE REGEX "/testing/[^/]*$")

    list(TRANSFORM ARG_DEPENDS PREPEND godwit:: OUTPUT_VARIABLE depends)
    add_library(godwit_${name} STATIC ${sources})
    add_library(godwit::${name} ALIAS godwit_${name})
    target_sources(godwit_${name} PUBLIC FILE_SET HEADERS
        BASE_DIRS ${PROJECT_SOURCE_DIR}/src FILES ${headers})
    target_link_libraries(godwit_${name} PUBLIC godwit_flags ${depends} PRIVATE ${ARG_PRIVATE_LIBS})
    set_property(GLOBAL APPEND PROPERTY GODWIT_DOMAINS ${name})
    set_property(GLOBAL PROPERTY GODWIT_DEPENDS_${name} ${ARG_DEPENDS})

    if(testing_sources AND (GODWIT_TESTS OR GODWIT_FUZZ))
        add_library(godwit_${name}_testing STATIC ${testing_sources})
        add_library(godwit::${name}_testing ALIAS godwit_${name}_testing)
        target_link_libraries(godwit_${name}_testing PUBLIC godwit_${name})
        foreach(lower ${ARG_DEPENDS})
            if(TARGET godwit_${lower}_testing)
                target_link_libraries(godwit_${name}_testing PUBLIC godwit_${lower}_testing)
            endif()
        endforeach()
        set(testing_lib godwit::${name}_testing)
    endif()

    if(GODWIT_TESTS)
        godwit_test(${name}_test LABEL unit DOMAIN ${name} SOURCES ${unit_tests}
            LIBS ${testing_lib} ${ARG_PRIVATE_LIBS})
        godwit_test(${name}_vm_test LABEL vm DOMAIN ${name} SOURCES ${vm_tests}
            LIBS ${testing_lib} ${ARG_PRIVATE_LIBS})
    endif()
endfunction()

# godwit_test(TARGET LABEL label SOURCES files [DOMAIN domain] [LIBS libs]): nothing when SOURCES is empty.
function(godwit_test target)
    cmake_parse_arguments(ARG "" "LABEL;DOMAIN" "SOURCES;LIBS" ${ARGN})
    if(NOT ARG_SOURCES)
        return()
    endif()
    add_executable(${target} ${ARG_SOURCES})
    if(ARG_DOMAIN)
        target_link_libraries(${target} PRIVATE godwit::${ARG_DOMAIN})
    endif()
    target_link_libraries(${target} PRIVATE godwit_test_main ${ARG_LIBS})
    target_precompile_headers(${target} REUSE_FROM godwit_test_main)
    if(NOT TARGET tests-${ARG_LABEL})
        add_custom_target(tests-${ARG_LABEL})
    endif()
    add_dependencies(tests-${ARG_LABEL} ${target})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ARG_SOURCES})
    set(on_host)
    foreach(source ${ARG_SOURCES})
        file(STRINGS ${source} tests REGEX "^TEST_F\\([A-Za-z]+OnHost,")
        foreach(test ${tests})
            string(REGEX REPLACE "^TEST_F\\(([A-Za-z]+),.*" "\\1" suite "${test}")
            list(APPEND on_host ${suite})
        endforeach()
    endforeach()
    list(REMOVE_DUPLICATES on_host)
    godwit_test_entry(${ARG_LABEL}.${target} ${ARG_LABEL} ${target} --gtest_filter=-*OnHost.*)
    foreach(suite ${on_host})
        godwit_test_entry(${ARG_LABEL}.${target}.${suite} ${ARG_LABEL} ${target} --gtest_filter=${suite}.*)
    endforeach()
endfunction()

# One entry of ctest. A suite called ...OnHost needs what a host may lack and has an entry of its own: skipped
# there, it is listed as skipped and hides nothing else. A failure counts, whatever else was skipped.
function(godwit_test_entry name label)
    add_test(NAME ${name} COMMAND ${ARGN})
    set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 120 SKIP_RETURN_CODE 77)
endfunction()
