// SPDX-License-Identifier: GPL-3.0-or-later
//
// The factory and the module's entry points, of our plugin and of those in tests/probe. The SDK part that Debian ships
// has none.

#include "factory.hpp"

#include "pluginterfaces/vst/ivstaudioprocessor.h"
#include "pluginterfaces/vst/ivstcomponent.h"

namespace {

using namespace Steinberg;
using namespace Steinberg::Vst;

// Lives as long as the binary and ignores its reference count.
class Factory final : public IPluginFactory3 {
public:
    tresult PLUGIN_API queryInterface(const TUID iid, void** object) override {
        for (const FUID* known : {&FUnknown::iid, &IPluginFactory::iid, &IPluginFactory2::iid, &IPluginFactory3::iid}) {
            if (!FUnknownPrivate::iidEqual(iid, *known)) continue;
            *object = this;
            return kResultOk;
        }
        *object = nullptr;
        return kNoInterface;
    }
    uint32 PLUGIN_API addRef() override { return 1; }
    uint32 PLUGIN_API release() override { return 1; }

    tresult PLUGIN_API getFactoryInfo(PFactoryInfo* info) override {
        *info = PFactoryInfo(factory::kVendor, "", "", PFactoryInfo::kUnicode);
        return kResultOk;
    }
    int32 PLUGIN_API countClasses() override { return 1; }
    tresult PLUGIN_API getClassInfo(int32 index, PClassInfo* info) override {
        if (index != 0) return kInvalidArgument;
        *info = PClassInfo(factory::classId(), PClassInfo::kManyInstances, kVstAudioEffectClass, factory::kName);
        return kResultOk;
    }
    tresult PLUGIN_API getClassInfo2(int32 index, PClassInfo2* info) override {
        if (index != 0) return kInvalidArgument;
        *info = PClassInfo2(factory::classId(), PClassInfo::kManyInstances, kVstAudioEffectClass, factory::kName, 0,
                            PlugType::kFx, factory::kVendor, factory::kVersion, kVstVersionString);
        return kResultOk;
    }
    tresult PLUGIN_API getClassInfoUnicode(int32 index, PClassInfoW* info) override {
        PClassInfo2 ascii;
        const tresult result = getClassInfo2(index, &ascii);
        if (result == kResultOk) info->fromAscii(ascii);
        return result;
    }
    tresult PLUGIN_API setHostContext(FUnknown*) override { return kResultOk; }

    tresult PLUGIN_API createInstance(FIDString class_id, FIDString iid, void** object) override {
        *object = nullptr;
        if (!FUnknownPrivate::iidEqual(class_id, factory::classId())) return kInvalidArgument;
        IPtr<EditController> plugin = owned<EditController>(factory::create());
        return plugin->queryInterface(iid, object);
    }
};

}  // namespace

extern "C" {
SMTG_EXPORT_SYMBOL IPluginFactory* PLUGIN_API GetPluginFactory() {
    static Factory factory;
    return &factory;
}
// Called once per host library in a process, so possibly twice: there is nothing to set up.
SMTG_EXPORT_SYMBOL bool ModuleEntry(void*) {
    return true;
}
SMTG_EXPORT_SYMBOL bool ModuleExit() {
    return true;
}
}
