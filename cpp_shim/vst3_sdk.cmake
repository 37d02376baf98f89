# SPDX-License-Identifier: GPL-3.0-or-later
# The library vst3_sdk, and vst3_bundle().
include("${CMAKE_CURRENT_LIST_DIR}/find_sdk.cmake")
if(NOT STEMPLUG_SDK_FOUND)
  message(FATAL_ERROR "No VST3 SDK was found in '${STEMPLUG_VST3_SDK}', none of Debian's, and none can be fetched. Run "
                      "'apt-get install juce-modules-source-data', or give its folder with -DSTEMPLUG_VST3_SDK=...")
endif()
if(STEMPLUG_SDK_FOUND STREQUAL "FETCH")
  include(FetchContent)
  FetchContent_Declare(vst3sdk GIT_REPOSITORY "${vst3_repository}" GIT_TAG v3.7.12_build_20 GIT_SHALLOW TRUE
                       GIT_SUBMODULES base pluginterfaces public.sdk SOURCE_SUBDIR none)
  FetchContent_MakeAvailable(vst3sdk)
  set(sdk "${vst3sdk_SOURCE_DIR}")
else()
  set(sdk "${STEMPLUG_SDK_FOUND}")
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)  # sets NDEBUG, without which (or DEVELOPMENT, RELEASE) the SDK does not compile
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# A host has its own copy of the SDK in the same process: the two must not see each other's symbols.
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)

set(sdk_sources
  pluginterfaces/base/conststringtable pluginterfaces/base/coreiids pluginterfaces/base/funknown
  pluginterfaces/base/ustring base/source/baseiids base/source/fbuffer base/source/fdebug base/source/fobject
  base/source/fstreamer base/source/fstring base/source/updatehandler base/thread/source/flock
  public.sdk/source/vst/vstcomponentbase public.sdk/source/vst/vsteditcontroller public.sdk/source/vst/vstinitiids
  public.sdk/source/vst/vstparameters)
list(TRANSFORM sdk_sources PREPEND "${sdk}/")
list(TRANSFORM sdk_sources APPEND ".cpp")
add_library(vst3_sdk STATIC ${sdk_sources})
target_include_directories(vst3_sdk SYSTEM PUBLIC "${sdk}")
target_compile_definitions(vst3_sdk PUBLIC NO_PLUGUI)  # no editor: without it pluginview.cpp is needed too
target_compile_options(vst3_sdk PRIVATE -w)

# A VST3 bundle is a folder: NAME.vst3/Contents/x86_64-linux/NAME.so
function(vst3_bundle name)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Werror)
  target_link_libraries(${name} PRIVATE vst3_sdk)
  target_link_options(${name} PRIVATE $<$<CONFIG:Release>:-s>)
  set_target_properties(${name} PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY
    "${CMAKE_CURRENT_BINARY_DIR}/${name}.vst3/Contents/${CMAKE_SYSTEM_PROCESSOR}-linux")
endfunction()
