# SPDX-License-Identifier: GPL-3.0-or-later
# Sets STEMPLUG_SDK_FOUND to the folder of the VST3 SDK: the one given, or where Debian's juce-modules-source-data puts it;
# or to FETCH where the official repository answers (that path could not be tried where this was written); or to nothing
# where the SDK or nlohmann-json is neither here nor to be fetched.
set(STEMPLUG_VST3_SDK "" CACHE PATH "folder of the Steinberg VST3 SDK; empty: Debian's, or fetched")
set(vst3_repository https://github.com/steinbergmedia/vst3sdk.git)
set(STEMPLUG_SDK_FOUND "")
foreach(folder "${STEMPLUG_VST3_SDK}" /usr/share/juce/modules/juce_audio_processors/format_types/VST3_SDK)
  if(NOT STEMPLUG_SDK_FOUND AND EXISTS "${folder}/pluginterfaces/vst/ivstaudioprocessor.h")
    set(STEMPLUG_SDK_FOUND "${folder}")
  endif()
endforeach()
find_path(STEMPLUG_JSON nlohmann/json.hpp)  # Debian: nlohmann-json3-dev
if(NOT STEMPLUG_SDK_FOUND OR NOT STEMPLUG_JSON)
  find_program(git git)
  set(failed 1)
  if(git)
    execute_process(COMMAND "${git}" ls-remote --exit-code --quiet "${vst3_repository}" HEAD
                    RESULT_VARIABLE failed OUTPUT_QUIET ERROR_QUIET TIMEOUT 20)
  endif()
  if(NOT failed EQUAL 0)
    set(STEMPLUG_SDK_FOUND "")
  elseif(NOT STEMPLUG_SDK_FOUND)
    set(STEMPLUG_SDK_FOUND FETCH)
  endif()
endif()
