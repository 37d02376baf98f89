// SPDX-License-Identifier: GPL-3.0-or-later
//
// The VST3 component and controller, one object: what the host sets is known here before the first block.

#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "catalogue.hpp"
#include "engine.hpp"
#include "parameters.hpp"
#include "pluginterfaces/vst/ivstaudioprocessor.h"
#include "pluginterfaces/vst/ivstchannelcontextinfo.h"
#include "pluginterfaces/vst/ivstcomponent.h"
#include "pluginterfaces/vst/ivstprocesscontext.h"
#include "public.sdk/source/vst/vsteditcontroller.h"

namespace stemplug {

using namespace Steinberg;

class Plugin final : public Vst::EditController,
                     public Vst::IComponent,
                     public Vst::IAudioProcessor,
                     public Vst::IProcessContextRequirements,
                     public Vst::ChannelContext::IInfoListener {
public:
    // IPluginBase. Main thread.
    tresult PLUGIN_API initialize(FUnknown* context) override;
    tresult PLUGIN_API terminate() override;

    // IEditController. Main thread.
    tresult PLUGIN_API setParamNormalized(Vst::ParamID id, Vst::ParamValue value) override;
    Vst::ParamValue PLUGIN_API getParamNormalized(Vst::ParamID id) override;
    tresult PLUGIN_API setComponentState(IBStream* stream) override;
    tresult PLUGIN_API getParamStringByValue(Vst::ParamID id, Vst::ParamValue value, Vst::String128 string) override;
    tresult PLUGIN_API getParamValueByString(Vst::ParamID id, Vst::TChar* string, Vst::ParamValue& value) override;
    tresult PLUGIN_API getParameterInfo(int32 index, Vst::ParameterInfo& info) override;

    // IComponent and IEditController both declare these two; one state serves both. Any thread but the audio thread.
    tresult PLUGIN_API setState(IBStream* stream) override;
    tresult PLUGIN_API getState(IBStream* stream) override;

    // IComponent. Main thread; setActive while no block is processed.
    tresult PLUGIN_API getControllerClassId(TUID) override { return kNotImplemented; }  // this object is the controller
    tresult PLUGIN_API setIoMode(Vst::IoMode) override { return kNotImplemented; }
    tresult PLUGIN_API getRoutingInfo(Vst::RoutingInfo&, Vst::RoutingInfo&) override { return kNotImplemented; }
    int32 PLUGIN_API getBusCount(Vst::MediaType type, Vst::BusDirection direction) override;
    tresult PLUGIN_API getBusInfo(Vst::MediaType type, Vst::BusDirection direction, int32 index,
                                  Vst::BusInfo& bus) override;
    tresult PLUGIN_API activateBus(Vst::MediaType type, Vst::BusDirection direction, int32 index, TBool) override;
    tresult PLUGIN_API setActive(TBool active) override;

    // IAudioProcessor. Main thread while inactive, but for process(), setProcessing() (audio thread) and the getters.
    tresult PLUGIN_API setBusArrangements(Vst::SpeakerArrangement* inputs, int32 input_count,
                                          Vst::SpeakerArrangement* outputs, int32 output_count) override;
    tresult PLUGIN_API getBusArrangement(Vst::BusDirection direction, int32 index,
                                         Vst::SpeakerArrangement& result) override;
    tresult PLUGIN_API canProcessSampleSize(int32 size) override {
        return size == Vst::kSample32 ? kResultTrue : kResultFalse;
    }
    tresult PLUGIN_API setupProcessing(Vst::ProcessSetup& setup) override;
    tresult PLUGIN_API setProcessing(TBool) override { return kResultOk; }
    uint32 PLUGIN_API getLatencySamples() override;
    uint32 PLUGIN_API getTailSamples() override { return getLatencySamples(); }
    tresult PLUGIN_API process(Vst::ProcessData& data) override;

    uint32 PLUGIN_API getProcessContextRequirements() override { return kNeedTransportState; }

    // IInfoListener. Main thread: the track's name, which captures and log lines bear.
    tresult PLUGIN_API setChannelContextInfos(Vst::IAttributeList* list) override;

    OBJ_METHODS(Plugin, EditController)
    DEFINE_INTERFACES
    DEF_INTERFACE(IComponent)
    DEF_INTERFACE(IAudioProcessor)
    DEF_INTERFACE(IProcessContextRequirements)
    DEF_INTERFACE(Vst::ChannelContext::IInfoListener)
    END_DEFINE_INTERFACES(EditController)
    REFCOUNT_METHODS(EditController)

private:
    const Model* model() const;
    Profile profile() const;
    Frame prospectiveLatency() const;
    void announceLatency();
    void applyState(const nlohmann::json& state);
    void processBlock(Vst::ProcessData& data);
    void report(Vst::IParameterChanges* changes);

    Catalogue catalogue_;
    Values values_;
    std::mutex state_mutex_;
    nlohmann::json state_ = nlohmann::json::object();  // as loaded: what this version does not know is kept

    Vst::SpeakerArrangement input_ = Vst::SpeakerArr::kStereo, output_ = Vst::SpeakerArr::kStereo;
    Vst::ProcessSetup setup_{Vst::kRealtime, Vst::kSample32, 1024, 44100};
    std::string track_ = "StemPlug";
    std::unique_ptr<Engine> engine_;           // while active
    std::atomic<int64_t> active_latency_{-1};  // negative while inactive
    Frame announced_ = 0;
    std::atomic<bool> reload_{false};  // a state was loaded: the audio thread takes all values anew

    Status told_status_ = Status::kStarting;  // audio thread
    float told_load_ = 0;
};

}  // namespace stemplug
