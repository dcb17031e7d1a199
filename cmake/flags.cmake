# The one place for warnings and sanitizers.
option(PORTHOLE_WERROR "Treat warnings as errors" OFF)
option(PORTHOLE_FUZZ "Build the libFuzzer targets (clang)" OFF)
set(PORTHOLE_SANITIZE "" CACHE STRING "Comma list given to -fsanitize=")

add_library(porthole_flags INTERFACE)
target_compile_features(porthole_flags INTERFACE c_std_11)
target_compile_definitions(porthole_flags INTERFACE _GNU_SOURCE)
target_include_directories(porthole_flags INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(porthole_flags INTERFACE
    -Wall -Wextra -Wshadow -Wvla -Wformat=2 -Wpointer-arith -Wcast-align
    -Wstrict-prototypes -Wmissing-prototypes -Wundef
    -UNDEBUG                    # assert() stays on in every build
    $<$<BOOL:${PORTHOLE_WERROR}>:-Werror>)
if(PORTHOLE_SANITIZE)
    target_compile_options(porthole_flags INTERFACE
        -fsanitize=${PORTHOLE_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(porthole_flags INTERFACE -fsanitize=${PORTHOLE_SANITIZE})
endif()
if(PORTHOLE_FUZZ)
    target_compile_options(porthole_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
