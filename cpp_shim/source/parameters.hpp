// SPDX-License-Identifier: GPL-3.0-or-later
//
// The parameters: their numbers, which never change, and their values, which the audio thread and the main thread
// share.

#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "catalogue.hpp"
#include "public.sdk/source/vst/vstparameters.h"

namespace stemplug {

using Steinberg::Vst::ParamID;
using Steinberg::Vst::ParamValue;

namespace id {
inline constexpr ParamID kBypass = 0, kOutputGain = 1, kLatency = 10, kRender = 11, kModel = 12, kCapture = 13;
inline constexpr ParamID kGain = 100, kMute = 200, kSolo = 300;  // plus the number of the stem
inline constexpr ParamID kStatus = 900, kLoad = 901;             // read-only
}  // namespace id

enum class Render { kFollowHost, kLive, kOffline };
enum class Status { kStarting, kReady, kDry, kOverloaded };

inline constexpr ParamValue kUnityGain = 0.75;  // normalized; exact in binary, so that 0 dB is 1 to the bit

// ASCII of a host's string of at most 128 characters, ended or not; what is not ASCII becomes '?'.
std::string narrow(const Steinberg::Vst::TChar* string);

// Amplitude of a normalized gain: 0 is silence, 0.75 is 1, 1 is +12 dB; straight in dB over log, like a fader.
double amplitude(ParamValue normalized);

// Values by id, each an atomic. Any thread.
class Values {
public:
    Values() { reset(); }
    void reset();
    ParamValue get(ParamID parameter) const;
    // False where there is no such parameter.
    bool set(ParamID parameter, ParamValue normalized);

    bool on(ParamID parameter) const { return get(parameter) >= 0.5; }
    // The entry of a list of `count`.
    size_t choice(ParamID parameter, size_t count) const;

private:
    static constexpr size_t kSlots = 6 + 3 * kStems + 2;
    static size_t slotOf(ParamID parameter);  // kSlots where there is none
    std::array<std::atomic<ParamValue>, kSlots> values_;
};

// Calls `action` for each id that is saved, with the name under which it is.
void forEachSaved(const std::function<void(ParamID, const std::string&)>& action);

// What the list of models shows: the default, whichever that is, then all by name. At least two: a list of one is a
// knob.
std::vector<std::string> modelNames(const Catalogue& catalogue);

// Describes all parameters to the host.
void addParameters(Steinberg::Vst::ParameterContainer& parameters, const Catalogue& catalogue);

}  // namespace stemplug
