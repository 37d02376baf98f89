// SPDX-License-Identifier: GPL-3.0-or-later
#include "parameters.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>

#include "pluginterfaces/base/ustring.h"

namespace stemplug {
namespace {

using namespace Steinberg;
using namespace Steinberg::Vst;

constexpr double kMaxGainDb = 12.0;
constexpr double kSilentDb = -400.0;  // shown and read as -inf
constexpr ParamID kSingles[] = {id::kBypass, id::kOutputGain, id::kLatency, id::kRender, id::kModel, id::kCapture};
constexpr size_t kSingleCount = std::size(kSingles);

double decibels(ParamValue normalized) {
    return kMaxGainDb * std::log(normalized / kUnityGain) / std::log(1.0 / kUnityGain);
}

class GainParameter final : public Parameter {
public:
    GainParameter(const TChar* title, ParamID number)
        : Parameter(title, number, u"dB", kUnityGain, 0, ParameterInfo::kCanAutomate) {
        setPrecision(1);
    }
    ParamValue toPlain(ParamValue normalized) const override {
        return normalized > 0 ? std::max(kSilentDb, decibels(normalized)) : kSilentDb;
    }
    ParamValue toNormalized(ParamValue db) const override {
        return db <= kSilentDb ? 0.0 : std::min(1.0, kUnityGain * std::pow(1.0 / kUnityGain, db / kMaxGainDb));
    }
    void toString(ParamValue normalized, String128 string) const override {
        UString text(string, str16BufferSize(String128));
        if (normalized <= 0) {
            text.assign(u"-inf");
        } else {
            const double shown = decibels(normalized);
            text.printFloat(std::fabs(shown) < 0.05 ? 0.0 : shown, 1);
        }
    }
    bool fromString(const TChar* string, ParamValue& normalized) const override {
        const std::string text = narrow(string);
        char* end = nullptr;
        const double db = std::strtod(text.c_str(), &end);
        if (end == text.c_str() || std::isnan(db)) return false;
        normalized = toNormalized(std::isinf(db) && db < 0 ? kSilentDb : db);
        return true;
    }
    OBJ_METHODS(GainParameter, Parameter)
};

std::u16string wide(const std::string& ascii) {
    return {ascii.begin(), ascii.end()};
}

template <typename Names>
void addList(ParameterContainer& parameters, const char* title, ParamID number, const Names& names, ParamValue preset,
             int32 flags) {
    auto* list = new StringListParameter(wide(title).c_str(), number, nullptr, flags | ParameterInfo::kIsList);
    for (const auto& name : names) list->appendString(wide(name).c_str());
    list->getInfo().defaultNormalizedValue = preset;
    list->setNormalized(preset);
    parameters.addParameter(list);
}

void addToggle(ParameterContainer& parameters, const std::string& title, ParamID number, int32 flags = 0) {
    auto* toggle = new StringListParameter(wide(title).c_str(), number, nullptr, ParameterInfo::kCanAutomate | flags);
    toggle->appendString(u"Off");
    toggle->appendString(u"On");
    parameters.addParameter(toggle);
}

}  // namespace

std::string narrow(const TChar* string) {
    std::string text;
    for (size_t i = 0; i < str16BufferSize(String128) && string[i]; ++i)
        text.push_back(string[i] < 0x80 ? static_cast<char>(string[i]) : '?');
    return text;
}

double amplitude(ParamValue normalized) {
    return normalized <= 0            ? 0.0
           : normalized == kUnityGain ? 1.0
                                      : std::pow(10.0, decibels(std::min(normalized, 1.0)) / 20.0);
}

void Values::reset() {
    for (auto& value : values_) value.store(0.0, std::memory_order_relaxed);
    set(id::kOutputGain, kUnityGain);
    set(id::kLatency, 0.5);
    for (ParamID stem = 0; stem < kStems; ++stem) set(id::kGain + stem, kUnityGain);
}

size_t Values::slotOf(ParamID parameter) {
    const auto single = std::find(std::begin(kSingles), std::end(kSingles), parameter);
    if (single != std::end(kSingles)) return static_cast<size_t>(single - std::begin(kSingles));
    if (parameter == id::kStatus || parameter == id::kLoad) return kSlots - 2 + (parameter - id::kStatus);
    size_t slot = kSingleCount;
    for (const ParamID first : {id::kGain, id::kMute, id::kSolo}) {
        if (parameter >= first && parameter < first + kStems) return slot + (parameter - first);
        slot += kStems;
    }
    return kSlots;
}

ParamValue Values::get(ParamID parameter) const {
    const size_t slot = slotOf(parameter);
    return slot < kSlots ? values_[slot].load(std::memory_order_relaxed) : 0.0;
}

bool Values::set(ParamID parameter, ParamValue normalized) {
    const size_t slot = slotOf(parameter);
    if (slot == kSlots || std::isnan(normalized)) return false;
    values_[slot].store(std::clamp(normalized, 0.0, 1.0), std::memory_order_relaxed);
    return true;
}

size_t Values::choice(ParamID parameter, size_t count) const {
    return std::min(count - 1, static_cast<size_t>(get(parameter) * static_cast<double>(count)));
}

void forEachSaved(const std::function<void(ParamID, const std::string&)>& action) {
    action(id::kBypass, "bypass");
    action(id::kOutputGain, "output_gain");
    action(id::kLatency, "latency");
    action(id::kRender, "render");
    action(id::kCapture, "capture");
    for (ParamID stem = 0; stem < kStems; ++stem) {
        const std::string name(1, static_cast<char>(std::tolower(kStemNames[stem][0])));
        const std::string prefix = name + (kStemNames[stem] + 1);
        action(id::kGain + stem, prefix + "_gain");
        action(id::kMute + stem, prefix + "_mute");
        action(id::kSolo + stem, prefix + "_solo");
    }
}

std::vector<std::string> modelNames(const Catalogue& catalogue) {
    std::vector<std::string> names{"default"};
    for (const Model& model : catalogue.models) names.push_back(model.name);
    if (names.size() == 1) names.push_back("none");
    return names;
}

void addParameters(ParameterContainer& parameters, const Catalogue& catalogue) {
    addToggle(parameters, "Bypass", id::kBypass, ParameterInfo::kIsBypass);
    parameters.addParameter(new GainParameter(u"Output Gain", id::kOutputGain));
    addList(parameters, "Latency", id::kLatency, kLatencyNames, 0.5, ParameterInfo::kCanAutomate);
    addList(parameters, "Render", id::kRender, std::array{"Follow host", "Live", "Offline"}, 0.0,
            ParameterInfo::kCanAutomate);
    addList(parameters, "Model", id::kModel, modelNames(catalogue), 0.0, ParameterInfo::kCanAutomate);
    addToggle(parameters, "Capture", id::kCapture);
    for (ParamID stem = 0; stem < kStems; ++stem) {
        const std::string name = kStemNames[stem];
        parameters.addParameter(new GainParameter(wide(name + " Gain").c_str(), id::kGain + stem));
        addToggle(parameters, name + " Mute", id::kMute + stem);
        addToggle(parameters, name + " Solo", id::kSolo + stem);
    }
    addList(parameters, "Status", id::kStatus, std::array{"starting", "ready", "dry", "overloaded"}, 0.0,
            ParameterInfo::kIsReadOnly);
    parameters.addParameter(
        new RangeParameter(u"Worker Load", id::kLoad, u"%", 0, 100, 0, 0, ParameterInfo::kIsReadOnly));
}

}  // namespace stemplug
