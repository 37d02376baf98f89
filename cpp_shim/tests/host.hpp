// SPDX-License-Identifier: GPL-3.0-or-later
//
// A plugin's binary, an instance of it, and the objects that a host lends to it.

#pragma once

#include <array>
#include <atomic>
#include <filesystem>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "pluginterfaces/base/ibstream.h"
#include "pluginterfaces/base/ipluginbase.h"
#include "pluginterfaces/vst/ivstaudioprocessor.h"
#include "pluginterfaces/vst/ivstcomponent.h"
#include "pluginterfaces/vst/ivsteditcontroller.h"
#include "pluginterfaces/vst/ivsthostapplication.h"
#include "pluginterfaces/vst/ivstparameterchanges.h"
#include "pluginterfaces/vst/ivstprocesscontext.h"

namespace host {

using namespace Steinberg;
using namespace Steinberg::Vst;

std::string utf8(const char16* string);

// Its owner is the host: what the plugin counts only tells whether it gave back all that it took.
template <class Interface>
class HostObject : public Interface {
public:
    tresult PLUGIN_API queryInterface(const TUID iid, void** object) override {
        const bool known =
            FUnknownPrivate::iidEqual(iid, FUnknown::iid) || FUnknownPrivate::iidEqual(iid, Interface::iid);
        *object = known ? this : nullptr;
        if (known) addRef();
        return known ? kResultOk : kNoInterface;
    }
    uint32 PLUGIN_API addRef() override { return ++references; }
    uint32 PLUGIN_API release() override { return --references; }

    std::atomic<uint32> references{1};
};

class Application final : public HostObject<IHostApplication> {
public:
    tresult PLUGIN_API getName(String128 name) override {
        std::char_traits<char16>::copy(name, u"testhost", 9);
        return kResultOk;
    }
    tresult PLUGIN_API createInstance(TUID, TUID, void** object) override {
        *object = nullptr;
        return kNotImplemented;
    }
};

// What the plugin told the host, and from which thread.
class Handler final : public HostObject<IComponentHandler> {
public:
    struct Restart {
        int32 flags;
        bool on_main_thread;
    };
    tresult PLUGIN_API beginEdit(ParamID) override { return kResultOk; }
    tresult PLUGIN_API performEdit(ParamID, ParamValue) override { return kResultOk; }
    tresult PLUGIN_API endEdit(ParamID) override { return kResultOk; }
    tresult PLUGIN_API restartComponent(int32 flags) override {
        const std::lock_guard lock(mutex);
        calls.push_back({flags, std::this_thread::get_id() == main_thread});
        return kResultOk;
    }
    std::vector<Restart> restarts() {
        const std::lock_guard lock(mutex);
        return calls;
    }

private:
    const std::thread::id main_thread = std::this_thread::get_id();
    std::mutex mutex;
    std::vector<Restart> calls;
};

class Stream final : public HostObject<IBStream> {
public:
    explicit Stream(std::string bytes = {}) : bytes(std::move(bytes)) {}
    tresult PLUGIN_API read(void* buffer, int32 size, int32* done) override;
    tresult PLUGIN_API write(void* buffer, int32 size, int32* done) override;
    tresult PLUGIN_API seek(int64 offset, int32 mode, int64* result) override;
    tresult PLUGIN_API tell(int64* result) override;
    void rewind() { position = 0; }

    std::string bytes;
    int32 at_most = kMaxInt32;  // so many bytes in one call
    bool broken = false;        // every call fails

private:
    std::size_t position = 0;
};

// Nothing in it allocates while the plugin adds points: its process() is watched.
class Queue final : public HostObject<IParamValueQueue> {
public:
    struct Point {
        int32 offset;
        ParamValue value;
    };
    Queue() { points.reserve(64); }
    ParamID PLUGIN_API getParameterId() override { return id; }
    int32 PLUGIN_API getPointCount() override { return static_cast<int32>(points.size()); }
    tresult PLUGIN_API getPoint(int32 index, int32& offset, ParamValue& value) override;
    tresult PLUGIN_API addPoint(int32 offset, ParamValue value, int32& index) override;

    ParamID id = kNoParamId;
    std::vector<Point> points;
};

class Changes final : public HostObject<IParameterChanges> {
public:
    int32 PLUGIN_API getParameterCount() override { return count; }
    IParamValueQueue* PLUGIN_API getParameterData(int32 index) override;
    IParamValueQueue* PLUGIN_API addParameterData(const ParamID& id, int32& index) override;
    void add(ParamID id, int32 offset, ParamValue value);
    void clear() { count = 0; }
    const Queue* begin() const { return queues.data(); }
    const Queue* end() const { return queues.data() + count; }

private:
    std::array<Queue, 64> queues;
    int32 count = 0;
};

// The binary. Unloaded at the end, as hosts that scan plugins do.
class Module {
public:
    explicit Module(const std::filesystem::path& bundle);
    ~Module();
    Module(const Module&) = delete;
    Module& operator=(const Module&) = delete;

    IPtr<IPluginFactory> factory;
    PClassInfo info;  // of the audio effect
    const std::filesystem::path binary;

private:
    void* library;
};

struct Bus {
    std::string name;
    int32 channels;
    bool main;
    bool active;  // by default
};

class Plugin {
public:
    explicit Plugin(Module& module);
    ~Plugin();
    Plugin(const Plugin&) = delete;
    Plugin& operator=(const Plugin&) = delete;

    std::vector<Bus> buses(BusDirection direction) const;
    std::vector<ParameterInfo> parameters() const;
    std::string display(ParamID id, ParamValue value) const;
    std::string state();                              // throws where it cannot be had
    tresult restore(const std::string& state_bytes);  // component and controller
    bool setArrangement(int32 channels);

    Application application;
    Handler handler;
    IPtr<IComponent> component;
    IPtr<IAudioProcessor> processor;
    IPtr<IEditController> controller;

private:
    bool combined = false;  // one object is both
};

}  // namespace host
