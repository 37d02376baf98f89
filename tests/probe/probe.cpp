// SPDX-License-Identifier: GPL-3.0-or-later
//
// Test plugins with a known answer, to check hosts and the code that drives them.
//
// LatencyProbe: delays its input by exactly N samples and reports N as its latency; N is the parameter "Latency".
// AuxProbe:     the same, plus two stereo aux outputs that are not active by default (0.25 and 0.75 of the main
//               output: exact in binary, so that aux 1 + aux 2 nulls against the main output).
//
// One source, one binary per plugin (PROBE_AUX_OUTPUTS = 0 or 2): every host then finds exactly one plugin in a file.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>

#include "../../cpp_shim/source/factory.hpp"
#include "base/source/fstreamer.h"
#include "pluginterfaces/base/ustring.h"
#include "pluginterfaces/vst/ivstaudioprocessor.h"
#include "pluginterfaces/vst/ivstcomponent.h"
#include "pluginterfaces/vst/ivstparameterchanges.h"
#include "public.sdk/source/vst/vsteditcontroller.h"

using namespace Steinberg;
using namespace Steinberg::Vst;

namespace {

constexpr int32 kAuxOutputs = PROBE_AUX_OUTPUTS;
constexpr const char* kName = kAuxOutputs ? "AuxProbe" : "LatencyProbe";
const FUID kClassId(0x6B3A51C2, 0x8E0F4D17, 0x9C25D4A1, kAuxOutputs ? 0x41555831 : 0x4C415431);

constexpr ParamID kLatencyId = 0;
constexpr int32 kMaxLatency = 8191;
constexpr int32 kDefaultLatency = 1000;
constexpr int32 kRingSize = kMaxLatency + 1;  // a power of two: positions wrap with a mask
constexpr int32 kMaxChannels = 2;
constexpr uint32 kActive = BusInfo::kDefaultActive;
constexpr std::array<float, 3> kOutputGains{1.0f, 0.25f, 0.75f};  // main, aux 1, aux 2
static_assert(kAuxOutputs < static_cast<int32>(kOutputGains.size()) && (kRingSize & kMaxLatency) == 0);

// Processor and controller in one object: what the host sets is known here before the first block, not only in it.
class Probe final : public EditController, public IComponent, public IAudioProcessor {
public:
    // A new latency holds from the next block on and is reported at once, so the two never differ for a host that asks
    // between blocks. (JUCE hosts answer kLatencyChanged by asking again, without deactivating the plugin.)
    tresult PLUGIN_API setParamNormalized(ParamID id, ParamValue value) override {
        const tresult result = EditController::setParamNormalized(id, value);
        if (id != kLatencyId) return result;
        latency = toSamples(value);
        // Compared with what the host was told, not with `latency`: process() may have got the new value first.
        if (told_latency.exchange(latency) != latency && componentHandler)
            componentHandler->restartComponent(kLatencyChanged);
        return result;
    }

    // IPluginBase
    tresult PLUGIN_API initialize(FUnknown* context) override {
        const tresult result = EditController::initialize(context);
        if (result != kResultOk) return result;
        auto* parameter = new RangeParameter(u"Latency", kLatencyId, u"samples", 0, kMaxLatency, kDefaultLatency);
        parameter->setPrecision(0);
        parameters.addParameter(parameter);
        return kResultOk;
    }
    tresult PLUGIN_API terminate() override { return EditController::terminate(); }

    // IComponent
    tresult PLUGIN_API getControllerClassId(TUID) override { return kNotImplemented; }  // this object is the controller
    tresult PLUGIN_API setIoMode(IoMode) override { return kNotImplemented; }
    tresult PLUGIN_API getRoutingInfo(RoutingInfo&, RoutingInfo&) override { return kNotImplemented; }

    int32 PLUGIN_API getBusCount(MediaType type, BusDirection direction) override {
        if (type != kAudio) return 0;
        return direction == kInput ? 1 : 1 + kAuxOutputs;
    }

    tresult PLUGIN_API getBusInfo(MediaType type, BusDirection direction, int32 index, BusInfo& bus) override {
        if (index < 0 || index >= getBusCount(type, direction)) return kInvalidArgument;
        const bool main = index == 0;
        bus = {type, direction, channels(), {}, main ? kMain : kAux, main ? kActive : 0u};
        UString name(bus.name, str16BufferSize(String128));
        name.assign(direction == kInput ? u"Input" : main ? u"Output" : index == 1 ? u"Aux 1" : u"Aux 2");
        return kResultOk;
    }

    tresult PLUGIN_API activateBus(MediaType type, BusDirection direction, int32 index, TBool) override {
        return index >= 0 && index < getBusCount(type, direction) ? kResultOk : kInvalidArgument;
    }

    tresult PLUGIN_API setActive(TBool active) override {
        if (active) {
            position = 0;
            for (auto& ring : rings) ring.fill(0.0f);
        }
        return kResultOk;
    }

    // IComponent and IEditController both declare these two; one state serves both.
    tresult PLUGIN_API setState(IBStream* stream) override {
        int32 samples = 0;
        if (!stream || !IBStreamer(stream, kLittleEndian).readInt32(samples)) return kResultFalse;
        return setParamNormalized(kLatencyId, plainParamToNormalized(kLatencyId, samples));
    }
    tresult PLUGIN_API getState(IBStream* stream) override {
        return stream && IBStreamer(stream, kLittleEndian).writeInt32(latency) ? kResultOk : kResultFalse;
    }
    tresult PLUGIN_API setComponentState(IBStream* stream) override { return setState(stream); }

    // IAudioProcessor
    tresult PLUGIN_API setBusArrangements(SpeakerArrangement* inputs, int32 input_count, SpeakerArrangement* outputs,
                                          int32 output_count) override {
        if (input_count != 1 || output_count != 1 + kAuxOutputs) return kResultFalse;
        const SpeakerArrangement wanted = inputs[0];
        if (wanted != SpeakerArr::kMono && wanted != SpeakerArr::kStereo) return kResultFalse;
        if (!std::all_of(outputs, outputs + output_count, [=](auto output) { return output == wanted; }))
            return kResultFalse;
        arrangement = wanted;
        return kResultTrue;
    }
    tresult PLUGIN_API getBusArrangement(BusDirection direction, int32 index, SpeakerArrangement& result) override {
        if (index < 0 || index >= getBusCount(kAudio, direction)) return kInvalidArgument;
        result = arrangement;
        return kResultTrue;
    }

    tresult PLUGIN_API canProcessSampleSize(int32 size) override {
        return size == kSample32 ? kResultTrue : kResultFalse;
    }
    tresult PLUGIN_API setupProcessing(ProcessSetup& setup) override {
        return canProcessSampleSize(setup.symbolicSampleSize);
    }
    tresult PLUGIN_API setProcessing(TBool) override { return kResultOk; }
    uint32 PLUGIN_API getLatencySamples() override { return static_cast<uint32>(latency.load()); }
    uint32 PLUGIN_API getTailSamples() override { return getLatencySamples(); }

    tresult PLUGIN_API process(ProcessData& data) override {
        readParameters(data.inputParameterChanges);
        if (data.numInputs < 1 || data.numOutputs < 1 || data.numSamples <= 0) return kResultOk;

        const int32 delay = latency;
        const AudioBusBuffers& input = data.inputs[0];
        for (int32 channel = 0; channel < std::min(input.numChannels, kMaxChannels); ++channel) {
            const float* source = input.channelBuffers32[channel];
            if (!source) continue;
            auto& ring = rings[static_cast<size_t>(channel)];
            for (int32 frame = 0; frame < data.numSamples; ++frame) {
                // Read before anything is written: hosts may hand in one buffer as input and output.
                const auto at = position + static_cast<uint32>(frame);
                ring[at & kMaxLatency] = source[frame];
                const float delayed = ring[(at - static_cast<uint32>(delay)) & kMaxLatency];
                for (int32 bus = 0; bus < std::min(data.numOutputs, 1 + kAuxOutputs); ++bus) {
                    const AudioBusBuffers& output = data.outputs[bus];
                    // The channels of an inactive bus may be null (ivstaudioprocessor.h, AudioBusBuffers).
                    if (channel < output.numChannels && output.channelBuffers32 && output.channelBuffers32[channel])
                        output.channelBuffers32[channel][frame] = kOutputGains[static_cast<size_t>(bus)] * delayed;
                }
            }
        }
        position += static_cast<uint32>(data.numSamples);
        for (int32 bus = 0; bus < data.numOutputs; ++bus) data.outputs[bus].silenceFlags = 0;
        return kResultOk;
    }

    OBJ_METHODS(Probe, EditController)
    DEFINE_INTERFACES
        DEF_INTERFACE(IComponent)
        DEF_INTERFACE(IAudioProcessor)
    END_DEFINE_INTERFACES(EditController)
    REFCOUNT_METHODS(EditController)

private:
    static int32 toSamples(ParamValue value) {
        return static_cast<int32>(std::lround(std::clamp(value, 0.0, 1.0) * kMaxLatency));
    }
    int32 channels() const { return SpeakerArr::getChannelCount(arrangement); }

    // The last point of a block counts: a test wants whole blocks of one latency, not a swept delay. The host is not
    // told from here: restartComponent is not for the audio thread, and a host that automates sets the controller too.
    void readParameters(IParameterChanges* changes) {
        for (int32 i = 0; changes && i < changes->getParameterCount(); ++i) {
            IParamValueQueue* queue = changes->getParameterData(i);
            int32 offset = 0;
            ParamValue value = 0;
            if (queue && queue->getParameterId() == kLatencyId &&
                queue->getPoint(queue->getPointCount() - 1, offset, value) == kResultTrue)
                latency = toSamples(value);
        }
    }

    std::atomic<int32> latency{kDefaultLatency};
    std::atomic<int32> told_latency{kDefaultLatency};
    SpeakerArrangement arrangement = SpeakerArr::kStereo;
    std::array<std::array<float, kRingSize>, kMaxChannels> rings{};
    uint32 position = 0;
};

}  // namespace

const char* const factory::kName = ::kName;
const char* const factory::kVendor = "StemPlug tests";
const char* const factory::kVersion = "1.0.0";
Steinberg::FUID factory::classId() { return kClassId; }
Steinberg::Vst::EditController* factory::create() { return new Probe; }
