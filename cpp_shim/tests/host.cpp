// SPDX-License-Identifier: GPL-3.0-or-later

#include "host.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "commands.hpp"
#include "pluginterfaces/vst/ivstmessage.h"

namespace host {

std::string utf8(const char16* string) {
    std::string result;
    for (; *string; ++string) {  // what is outside of the first plane is not needed here
        const unsigned c = *string;
        if (c < 0x80) {
            result += static_cast<char>(c);
        } else if (c < 0x800) {
            result += {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
        } else {
            result += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
                       static_cast<char>(0x80 | (c & 63))};
        }
    }
    return result;
}

tresult Stream::read(void* buffer, int32 size, int32* done) {
    if (done) *done = 0;
    if (broken || size < 0) return kResultFalse;
    const auto left = static_cast<int64>(bytes.size()) - static_cast<int64>(position);
    const auto count =
        static_cast<std::size_t>(std::clamp<int64>(std::min(size, at_most), 0, std::max<int64>(left, 0)));
    std::memcpy(buffer, bytes.data() + position, count);
    position += count;
    if (done) *done = static_cast<int32>(count);
    return kResultOk;
}

tresult Stream::write(void* buffer, int32 size, int32* done) {
    if (done) *done = 0;
    if (broken || size < 0) return kResultFalse;
    const auto count = static_cast<std::size_t>(std::min(size, at_most));
    bytes.resize(std::max(bytes.size(), position + count));
    std::memcpy(bytes.data() + position, buffer, count);
    position += count;
    if (done) *done = static_cast<int32>(count);
    return kResultOk;
}

tresult Stream::seek(int64 offset, int32 mode, int64* result) {
    if (broken) return kResultFalse;
    const int64 from = mode == kIBSeekSet ? 0 : static_cast<int64>(mode == kIBSeekCur ? position : bytes.size());
    if (from + offset < 0 || from + offset > static_cast<int64>(bytes.size())) return kResultFalse;
    position = static_cast<std::size_t>(from + offset);
    if (result) *result = from + offset;
    return kResultOk;
}

tresult Stream::tell(int64* result) {
    if (broken || !result) return kResultFalse;
    *result = static_cast<int64>(position);
    return kResultOk;
}

tresult Queue::getPoint(int32 index, int32& offset, ParamValue& value) {
    if (index < 0 || index >= getPointCount()) return kInvalidArgument;
    offset = points[static_cast<std::size_t>(index)].offset;
    value = points[static_cast<std::size_t>(index)].value;
    return kResultOk;
}

tresult Queue::addPoint(int32 offset, ParamValue value, int32& index) {
    if (points.size() == points.capacity()) return kOutOfMemory;
    index = getPointCount();
    points.push_back({offset, value});
    return kResultOk;
}

IParamValueQueue* Changes::getParameterData(int32 index) {
    return index >= 0 && index < count ? &queues[static_cast<std::size_t>(index)] : nullptr;
}

IParamValueQueue* Changes::addParameterData(const ParamID& id, int32& index) {
    for (index = 0; index < count; ++index)
        if (queues[static_cast<std::size_t>(index)].id == id) return getParameterData(index);
    if (count == static_cast<int32>(queues.size())) return nullptr;
    Queue& queue = queues[static_cast<std::size_t>(count++)];
    queue.id = id;
    queue.points.clear();
    return &queue;
}

void Changes::add(ParamID id, int32 offset, ParamValue value) {
    int32 index = 0;
    if (!addParameterData(id, index)) throw std::length_error("too many parameters in one block");
    queues[static_cast<std::size_t>(index)].points.push_back({offset, value});
}

namespace {

std::filesystem::path binaryOf(const std::filesystem::path& bundle) {
    if (!std::filesystem::is_directory(bundle)) return bundle;
    const auto name = bundle.filename().empty() ? bundle.parent_path().stem() : bundle.stem();
    return bundle / "Contents" / (text(VST3_ARCHITECTURE) + "-linux") / (name.string() + ".so");
}

template <class Function>
Function* find(void* library, const char* name) {
    return reinterpret_cast<Function*>(dlsym(library, name));
}

}  // namespace

Module::Module(const std::filesystem::path& bundle)
    : binary(binaryOf(bundle)), library(dlopen(std::filesystem::absolute(binary).c_str(), RTLD_LAZY | RTLD_LOCAL)) {
    if (!library) throw std::runtime_error(dlerror());
    const auto entry = find<bool(void*)>(library, "ModuleEntry");
    const auto get_factory = find<IPluginFactory*()>(library, "GetPluginFactory");
    if (!entry || !get_factory || !find<bool()>(library, "ModuleExit"))
        throw std::runtime_error("ModuleEntry, ModuleExit or GetPluginFactory is missing");
    if (!entry(library)) throw std::runtime_error("ModuleEntry failed");
    factory = owned(get_factory());
    for (int32 i = 0; factory && i < factory->countClasses(); ++i)
        if (factory->getClassInfo(i, &info) == kResultOk && std::strcmp(info.category, kVstAudioEffectClass) == 0)
            return;
    throw std::runtime_error("there is no audio effect in the plugin");
}

Module::~Module() {
    factory = nullptr;
    find<bool()>(library, "ModuleExit")();
    dlclose(library);
}

Plugin::Plugin(Module& module) {
    void* object = nullptr;
    if (module.factory->createInstance(module.info.cid, IComponent::iid, &object) != kResultOk || !object)
        throw std::runtime_error("createInstance failed");
    component = owned(static_cast<IComponent*>(object));
    if (component->initialize(&application) != kResultOk) throw std::runtime_error("initialize failed");
    processor = FUnknownPtr<IAudioProcessor>(component);
    if (!processor) throw std::runtime_error("there is no IAudioProcessor");
    controller = FUnknownPtr<IEditController>(component);
    combined = controller;
    if (TUID id; !combined && component->getControllerClassId(id) == kResultOk &&
                 module.factory->createInstance(id, IEditController::iid, &object) == kResultOk) {
        controller = owned(static_cast<IEditController*>(object));
        if (controller->initialize(&application) != kResultOk) throw std::runtime_error("initialize failed");
    }
    if (!controller) throw std::runtime_error("there is no IEditController");
    controller->setComponentHandler(&handler);
}

Plugin::~Plugin() {
    if (controller) controller->setComponentHandler(nullptr);
    if (controller && !combined) controller->terminate();
    if (component) component->terminate();
}

std::vector<Bus> Plugin::buses(BusDirection direction) const {
    std::vector<Bus> all;
    for (int32 i = 0; i < component->getBusCount(kAudio, direction); ++i) {
        BusInfo info{};
        if (component->getBusInfo(kAudio, direction, i, info) != kResultOk) throw std::runtime_error("no bus info");
        all.push_back(
            {utf8(info.name), info.channelCount, info.busType == kMain, (info.flags & BusInfo::kDefaultActive) != 0});
    }
    return all;
}

std::vector<ParameterInfo> Plugin::parameters() const {
    std::vector<ParameterInfo> all(static_cast<std::size_t>(controller->getParameterCount()));
    for (int32 i = 0; ParameterInfo & info : all)
        if (controller->getParameterInfo(i++, info) != kResultOk) throw std::runtime_error("no parameter info");
    return all;
}

std::string Plugin::display(ParamID id, ParamValue value) const {
    String128 string{};
    return controller->getParamStringByValue(id, value, string) == kResultOk ? utf8(string) : "?";
}

std::string Plugin::state() {
    Stream stream;
    if (component->getState(&stream) != kResultOk) throw std::runtime_error("getState failed");
    return stream.bytes;
}

tresult Plugin::restore(const std::string& state_bytes) {
    Stream stream(state_bytes);
    const tresult result = component->setState(&stream);
    stream.rewind();
    const tresult synced = controller->setComponentState(&stream);
    return result == kResultOk ? synced : result;
}

bool Plugin::setArrangement(int32 channels) {
    const SpeakerArrangement wanted = channels == 1 ? SpeakerArr::kMono : SpeakerArr::kStereo;
    std::vector<SpeakerArrangement> inputs(static_cast<std::size_t>(component->getBusCount(kAudio, kInput)), wanted);
    std::vector<SpeakerArrangement> outputs(static_cast<std::size_t>(component->getBusCount(kAudio, kOutput)), wanted);
    return processor->setBusArrangements(inputs.data(), static_cast<int32>(inputs.size()), outputs.data(),
                                         static_cast<int32>(outputs.size())) == kResultTrue;
}

}  // namespace host
