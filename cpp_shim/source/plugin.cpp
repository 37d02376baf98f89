// SPDX-License-Identifier: GPL-3.0-or-later
#include "plugin.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "factory.hpp"
#include "platform.hpp"
#include "pluginterfaces/base/ibstream.h"
#include "pluginterfaces/base/ustring.h"
#include "pluginterfaces/vst/ivstparameterchanges.h"

namespace stemplug {
namespace {

using namespace Steinberg::Vst;

constexpr int kStateVersion = 1;
constexpr double kMinRate = 1e3, kMaxRate = 1e6;
constexpr size_t kMaxStateBytes = 1 << 20;
constexpr std::array<const char*, 3> kRenderNames{"follow host", "live", "offline"};

// The queues of one block, read point by point in the order of time.
class Automation {
public:
    explicit Automation(IParameterChanges* changes) {
        const int32 count = changes ? changes->getParameterCount() : 0;
        for (int32 i = 0; i < count && count_ < cursors_.size(); ++i)
            if (IParamValueQueue* queue = changes->getParameterData(i)) cursors_[count_++] = {queue, 0};
    }
    // Takes all points up to `offset`; says whether there were any. `next` becomes the offset of the next one.
    bool take(int32 offset, Values& values, int32& next) {
        bool any = false;
        for (size_t i = 0; i < count_; ++i) {
            auto& [queue, point] = cursors_[i];
            int32 at = 0;
            ParamValue value = 0;
            for (; point < queue->getPointCount(); ++point) {
                if (queue->getPoint(point, at, value) != kResultTrue) continue;
                if (at > offset) {
                    next = std::min(next, at);
                    break;
                }
                const ParamID parameter = queue->getParameterId();
                if (parameter < id::kStatus) any |= values.set(parameter, value);
            }
        }
        return any;
    }

private:
    struct Cursor {
        IParamValueQueue* queue;
        int32 point;
    };
    std::array<Cursor, 64> cursors_{};
    size_t count_ = 0;
};

float* channelOf(const AudioBusBuffers* buses, int32 bus_count, size_t bus, size_t channel) {
    if (!buses || static_cast<int32>(bus) >= bus_count) return nullptr;
    const AudioBusBuffers& buffers = buses[bus];
    return static_cast<int32>(channel) < buffers.numChannels && buffers.channelBuffers32
               ? buffers.channelBuffers32[channel]
               : nullptr;
}

void clearOutputs(ProcessData& data) {
    for (int32 bus = 0; data.outputs && bus < data.numOutputs; ++bus) {
        for (int32 channel = 0; channel < data.outputs[bus].numChannels; ++channel)
            if (float* out =
                    channelOf(data.outputs, data.numOutputs, static_cast<size_t>(bus), static_cast<size_t>(channel)))
                std::fill_n(out, data.numSamples, 0.0f);
        const int32 channels = std::clamp(data.outputs[bus].numChannels, 0, 63);
        data.outputs[bus].silenceFlags = (uint64{1} << channels) - 1;
    }
}

std::string readAll(IBStream* stream) {
    std::string text;
    char bytes[4096];
    int32 got = 0;
    while (text.size() <= kMaxStateBytes && stream->read(bytes, sizeof bytes, &got) == kResultOk && got > 0)
        text.append(bytes, static_cast<size_t>(std::min<int32>(got, sizeof bytes)));
    return text;
}

}  // namespace

tresult PLUGIN_API Plugin::initialize(FUnknown* context) {
    const tresult result = EditController::initialize(context);
    if (result != kResultOk) return result;
    catalogue_ = Catalogue::read(resourceFolder() / "stemplug.json");
    addParameters(parameters, catalogue_);
    announced_ = prospectiveLatency();
    return kResultOk;
}

tresult PLUGIN_API Plugin::terminate() {
    setActive(false);
    return EditController::terminate();
}

tresult PLUGIN_API Plugin::setParamNormalized(ParamID parameter, ParamValue value) {
    if (!parameters.getParameter(parameter)) return kInvalidArgument;
    if (parameter >= id::kStatus) return kResultFalse;
    // While blocks are processed the audio thread hears values from its queues, sample by sample; what the host sets
    // here for display may be older.
    if (!values_.set(parameter, value)) return kInvalidArgument;
    announceLatency();
    return kResultOk;
}

tresult PLUGIN_API Plugin::setComponentState(IBStream* stream) {
    char first = 0;  // the state is this object's own already; a stream that cannot be read is refused all the same
    int32 got = 0;
    return stream && stream->read(&first, 1, &got) == kResultOk && got == 1 ? kResultOk : kResultFalse;
}

tresult PLUGIN_API Plugin::getParameterInfo(int32 index, ParameterInfo& info) {
    return index >= 0 && index < getParameterCount() ? EditController::getParameterInfo(index, info) : kInvalidArgument;
}

tresult PLUGIN_API Plugin::getParamStringByValue(ParamID parameter, ParamValue value, String128 string) {
    // The SDK prints numbers into a buffer that the largest ones overflow.
    return EditController::getParamStringByValue(parameter, std::isnan(value) ? 0 : std::clamp(value, 0.0, 1.0),
                                                 string);
}

tresult PLUGIN_API Plugin::getParamValueByString(ParamID parameter, TChar* string, ParamValue& value) {
    if (!string) return kInvalidArgument;
    String128 ended{};  // the SDK's parameters read on until they find an end
    for (size_t i = 0; i + 1 < str16BufferSize(String128) && string[i]; ++i) ended[i] = string[i];
    return EditController::getParamValueByString(parameter, ended, value);
}

ParamValue PLUGIN_API Plugin::getParamNormalized(ParamID parameter) {
    return values_.get(parameter);
}

const Model* Plugin::model() const {
    return catalogue_.find(values_.choice(id::kModel, catalogue_.models.size() + 1), profile());
}

Profile Plugin::profile() const {
    const auto render = static_cast<Render>(values_.choice(id::kRender, kRenderNames.size()));
    const bool offline =
        render == Render::kOffline || (render == Render::kFollowHost && setup_.processMode == kOffline);
    return offline ? Profile::kOffline : static_cast<Profile>(values_.choice(id::kLatency, kLatencyNames.size()));
}

Frame Plugin::prospectiveLatency() const {
    const Model* chosen = model();
    return chosen ? latencyFrames(*chosen, profile(), setup_.sampleRate, setup_.maxSamplesPerBlock) : 0;
}

// Main thread. A latency that differs from the one in force takes effect when the plugin is next activated.
void Plugin::announceLatency() {
    const Frame latency = prospectiveLatency();
    if (latency == announced_) return;
    announced_ = latency;
    if (componentHandler) componentHandler->restartComponent(kLatencyChanged);
}

uint32 PLUGIN_API Plugin::getLatencySamples() {
    const int64_t active = active_latency_;
    return static_cast<uint32>(active >= 0 ? active : prospectiveLatency());
}

tresult PLUGIN_API Plugin::setState(IBStream* stream) {
    if (!stream) return kInvalidArgument;
    const auto state = nlohmann::json::parse(readAll(stream), nullptr, false);
    const bool usable = state.is_object() && state.contains("stemplug");
    {
        const std::lock_guard lock(state_mutex_);
        values_.reset();
        state_ = usable ? state : nlohmann::json::object();
        applyState(state_);
    }
    reload_ = true;
    announceLatency();
    return usable ? kResultOk : kResultFalse;
}

// Whatever is missing or of a wrong kind stays at its default.
void Plugin::applyState(const nlohmann::json& state) {
    const auto found = state.find("parameters");
    if (found == state.end() || !found->is_object()) return;
    const auto pick = [&](ParamID parameter, const auto& names, const std::string& wanted) {
        const auto at = std::find(names.begin(), names.end(), wanted);
        const auto last = static_cast<double>(names.size() - 1);
        if (at != names.end() && last > 0) values_.set(parameter, static_cast<double>(at - names.begin()) / last);
    };
    forEachSaved([&](ParamID parameter, const std::string& name) {
        const auto value = found->find(name);
        if (value == found->end()) return;
        if (parameter == id::kLatency && value->is_string()) pick(parameter, kLatencyNames, *value);
        if (parameter == id::kRender && value->is_string()) pick(parameter, kRenderNames, *value);
        if (value->is_number()) values_.set(parameter, *value);
        if (value->is_boolean()) values_.set(parameter, *value ? 1.0 : 0.0);
    });
    const auto saved = state.find("model");
    if (saved != state.end() && saved->is_object()) {
        const auto name = saved->find("name");
        if (name != saved->end() && name->is_string()) pick(id::kModel, modelNames(catalogue_), *name);
    }
}

tresult PLUGIN_API Plugin::getState(IBStream* stream) {
    if (!stream) return kInvalidArgument;
    const std::lock_guard lock(state_mutex_);
    nlohmann::json state = state_;
    state["stemplug"] = kStateVersion;
    auto& saved = state["parameters"];
    if (!saved.is_object()) saved = nlohmann::json::object();
    forEachSaved([&](ParamID parameter, const std::string& name) {
        const ParameterInfo& info = parameters.getParameter(parameter)->getInfo();
        if (parameter == id::kLatency)
            saved[name] = kLatencyNames[values_.choice(parameter, kLatencyNames.size())];
        else if (parameter == id::kRender)
            saved[name] = kRenderNames[values_.choice(parameter, kRenderNames.size())];
        else if (info.stepCount == 1)
            saved[name] = values_.on(parameter);
        else
            saved[name] = values_.get(parameter);
    });
    // A model that is not installed here stays in the state as long as no other is chosen.
    const size_t choice = values_.choice(id::kModel, catalogue_.models.size() + 1);
    if (const Model* used = model(); used && (choice > 0 || !state.contains("model")))
        state["model"] = {{"name", modelNames(catalogue_)[choice]}, {"sha256", used->sha256}};
    std::string text = state.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
    int32 written = 0;
    const tresult result = stream->write(text.data(), static_cast<int32>(text.size()), &written);
    return result == kResultOk && written == static_cast<int32>(text.size()) ? kResultOk : kResultFalse;
}

int32 PLUGIN_API Plugin::getBusCount(MediaType type, BusDirection direction) {
    if (type != kAudio) return 0;
    return direction == kInput ? 1 : direction == kOutput ? static_cast<int32>(kBuses) : 0;
}

tresult PLUGIN_API Plugin::getBusInfo(MediaType type, BusDirection direction, int32 index, BusInfo& bus) {
    if (index < 0 || index >= getBusCount(type, direction)) return kInvalidArgument;
    const char* name = direction == kInput ? "Input" : index == 0 ? "Mix" : kStemNames[static_cast<size_t>(index - 1)];
    const SpeakerArrangement arrangement = direction == kInput ? input_ : output_;
    bus = {type,
           direction,
           SpeakerArr::getChannelCount(arrangement),
           {},
           index == 0 ? kMain : kAux,
           BusInfo::kDefaultActive};
    UString(bus.name, str16BufferSize(String128)).fromAscii(name);
    return kResultOk;
}

tresult PLUGIN_API Plugin::activateBus(MediaType type, BusDirection direction, int32 index, TBool) {
    return index >= 0 && index < getBusCount(type, direction) ? kResultOk : kInvalidArgument;
}

tresult PLUGIN_API Plugin::setBusArrangements(SpeakerArrangement* inputs, int32 input_count,
                                              SpeakerArrangement* outputs, int32 output_count) {
    if (engine_ || input_count != 1 || output_count != static_cast<int32>(kBuses) || !inputs || !outputs)
        return kResultFalse;
    const SpeakerArrangement in = inputs[0], out = outputs[0];
    const bool known = (in == SpeakerArr::kStereo && out == SpeakerArr::kStereo) ||
                       (in == SpeakerArr::kMono && (out == SpeakerArr::kStereo || out == SpeakerArr::kMono));
    if (!known || !std::all_of(outputs, outputs + output_count, [=](auto each) { return each == out; }))
        return kResultFalse;
    input_ = in;
    output_ = out;
    return kResultTrue;
}

tresult PLUGIN_API Plugin::getBusArrangement(BusDirection direction, int32 index, SpeakerArrangement& result) {
    if (index < 0 || index >= getBusCount(kAudio, direction)) return kInvalidArgument;
    result = direction == kInput ? input_ : output_;
    return kResultTrue;
}

tresult PLUGIN_API Plugin::setupProcessing(ProcessSetup& setup) {
    if (engine_ || setup.symbolicSampleSize != kSample32 ||
        !(setup.sampleRate >= kMinRate && setup.sampleRate <= kMaxRate) || setup.maxSamplesPerBlock < 0)
        return kResultFalse;
    setup_ = setup;
    return kResultOk;
}

tresult PLUGIN_API Plugin::setActive(TBool active) {
    if (static_cast<bool>(active) == static_cast<bool>(engine_)) return kResultOk;
    if (!active) {
        engine_.reset();
        active_latency_ = -1;
        return kResultOk;
    }
    try {
        const auto channels = static_cast<size_t>(SpeakerArr::getChannelCount(input_));
        engine_ = std::make_unique<Engine>(
            Engine::Setup{model(), catalogue_.python, profile(), setup_.sampleRate, setup_.maxSamplesPerBlock, channels,
                          setup_.processMode == kOffline, track_},
            values_);
    } catch (const std::exception& error) {
        logLine(track_, error.what());
        return kResultFalse;
    }
    announced_ = engine_->latency();
    active_latency_ = announced_;
    return kResultOk;
}

tresult PLUGIN_API Plugin::process(ProcessData& data) {
    if (data.symbolicSampleSize != kSample32 || data.numSamples < 0) return kResultFalse;
    if (engine_)
        processBlock(data);
    else
        clearOutputs(data);
    return kResultOk;
}

void Plugin::processBlock(ProcessData& data) {
    const bool offline = data.processMode == kOffline || setup_.processMode == kOffline;
    Transport transport;
    if (data.processContext && data.processContext->state & ProcessContext::kPlaying)
        transport = {true, data.processContext->projectTimeSamples};
    Automation automation(data.inputParameterChanges);
    int32 none = 0;
    const bool loaded = reload_.exchange(false), moved = automation.take(0, values_, none);
    if (loaded || moved) engine_->aim(data.numSamples == 0);
    engine_->beginBlock(transport, offline);

    std::array<std::array<bool, kChannels>, kBuses> sounds{};
    for (int32 at = 0; at < data.numSamples;) {
        int32 next = std::min(data.numSamples, at + static_cast<int32>(kChunk));
        if (automation.take(at, values_, next)) engine_->aim(false);
        Engine::Chunk chunk;
        chunk.frames = next - at;
        for (size_t channel = 0; channel < kChannels; ++channel) {
            const float* in = channelOf(data.inputs, data.numInputs, 0, channel);
            chunk.inputs[channel] = in ? in + at : nullptr;
            for (size_t bus = 0; bus < kBuses; ++bus) {
                float* out = channelOf(data.outputs, data.numOutputs, bus, channel);
                chunk.outputs[bus][channel] = out ? out + at : nullptr;
            }
        }
        engine_->process(chunk);
        for (size_t bus = 0; bus < kBuses; ++bus)
            for (size_t channel = 0; channel < kChannels; ++channel) sounds[bus][channel] |= chunk.sounds[bus][channel];
        at = next;
    }
    if (automation.take(INT32_MAX, values_, none)) engine_->aim(data.numSamples == 0);

    for (int32 bus = 0; data.outputs && bus < data.numOutputs; ++bus) {
        AudioBusBuffers& buffers = data.outputs[bus];
        buffers.silenceFlags = 0;
        for (int32 channel = 0; channel < std::min(buffers.numChannels, 64); ++channel) {
            const bool ours = bus < static_cast<int32>(kBuses) && channel < static_cast<int32>(kChannels);
            float* out =
                channelOf(data.outputs, data.numOutputs, static_cast<size_t>(bus), static_cast<size_t>(channel));
            if (!ours && out) std::fill_n(out, data.numSamples, 0.0f);
            if (!ours || !sounds[static_cast<size_t>(bus)][static_cast<size_t>(channel)])
                buffers.silenceFlags |= uint64{1} << channel;
        }
    }
    report(data.outputParameterChanges);
}

// Tells what is read-only: the status when it changes, the load when it moves by a percent.
void Plugin::report(IParameterChanges* changes) {
    const auto tell = [&](ParamID parameter, ParamValue value) {
        values_.set(parameter, value);
        int32 index = 0;
        if (IParamValueQueue* queue = changes ? changes->addParameterData(parameter, index) : nullptr)
            queue->addPoint(0, value, index);
    };
    if (const Status status = engine_->status(); status != told_status_) {
        told_status_ = status;
        tell(id::kStatus, static_cast<double>(status) / 3);
    }
    if (const float load = engine_->load(); std::fabs(load - told_load_) > 0.01f) {
        told_load_ = load;
        tell(id::kLoad, load);
    }
}

tresult PLUGIN_API Plugin::setChannelContextInfos(IAttributeList* list) {
    String128 name{};
    if (!list || list->getString(ChannelContext::kChannelNameKey, name, sizeof name) != kResultTrue)
        return kResultFalse;
    if (const std::string text = narrow(name); !text.empty()) track_ = text;
    return kResultOk;
}

}  // namespace stemplug

const char* const factory::kName = STEMPLUG_NAME;
const char* const factory::kVendor = "StemPlug";
const char* const factory::kVersion = STEMPLUG_VERSION;
Steinberg::FUID factory::classId() {
    return {0x5374656D, 0x506C7567, 0x9D1E4B7A, 0x3C60F251};
}  // fixed for ever
Steinberg::Vst::EditController* factory::create() {
    return new stemplug::Plugin;
}
