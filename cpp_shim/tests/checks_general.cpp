// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checks of the factory, of the life of an instance, and of its buses.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "pluginterfaces/gui/iplugview.h"
#include "pluginterfaces/vst/ivstmessage.h"
#include "pluginterfaces/vst/ivstunits.h"
#include "validate.hpp"

namespace host {

namespace {

const FUID kUnknownId(0x12345678, 0x9ABCDEF0, 0x12345678, 0x9ABCDEF0);

IPtr<IComponent> create(Check& check) {
    void* object = nullptr;
    if (check.module.factory->createInstance(check.module.info.cid, IComponent::iid, &object) != kResultOk || !object)
        throw std::runtime_error("createInstance failed");
    return owned(static_cast<IComponent*>(object));
}

void factory(Check& check) {
    IPluginFactory& factory = *check.module.factory;
    PFactoryInfo about;
    check.expect(factory.getFactoryInfo(&about) == kResultOk, "getFactoryInfo failed");
    check.expect(about.vendor[0] != 0, "the factory has no vendor");
    check.expect((about.flags & PFactoryInfo::kUnicode) != 0, "the factory is not flagged Unicode");

    const int32 count = factory.countClasses();
    PClassInfo info;
    for (const int32 index : {-1, count, count + 1, kMaxInt32})
        check.expect(factory.getClassInfo(index, &info) != kResultOk, "getClassInfo accepts index ", index);
    const FUnknownPtr<IPluginFactory2> factory2(&factory);
    const FUnknownPtr<IPluginFactory3> factory3(&factory);
    if (!check.expect(factory2 && factory3, "IPluginFactory2 or IPluginFactory3 is missing")) return;
    for (int32 i = 0; i < count; ++i) {
        PClassInfo2 info2;
        PClassInfoW wide;
        check.expect(factory.getClassInfo(i, &info) == kResultOk, "getClassInfo failed");
        check.expect(factory2->getClassInfo2(i, &info2) == kResultOk, "getClassInfo2 failed");
        check.expect(factory3->getClassInfoUnicode(i, &wide) == kResultOk, "getClassInfoUnicode failed");
        check.expect(FUnknownPrivate::iidEqual(info.cid, info2.cid) && FUnknownPrivate::iidEqual(info.cid, wide.cid),
                     "the class ids differ");
        check.expect(info.name[0] && std::strcmp(info.name, info2.name) == 0 && utf8(wide.name) == info.name,
                     "the names differ, or there is none");
        check.expect(info.cardinality == PClassInfo::kManyInstances && info2.cardinality == info.cardinality,
                     "cardinality is not kManyInstances");
        check.expect(info2.subCategories[0] && std::strcmp(info2.subCategories, wide.subCategories) == 0,
                     "no subcategories, or they differ");
        check.expect(info2.version[0] && utf8(wide.version) == info2.version, "no version, or they differ");
        check.expect(std::strncmp(info2.sdkVersion, "VST 3", 5) == 0, "SDK version is ", info2.sdkVersion);
        check.expect((info2.classFlags & ~static_cast<uint32>(kDistributable | kSimpleModeSupported)) == 0,
                     "unknown class flags ", info2.classFlags);
        check.note(info.name, " ", info2.version, " (", info2.vendor, ", ", info2.subCategories, ", flags ",
                   info2.classFlags, ")");
    }

    void* object = &object;
    check.expect(factory.createInstance(kUnknownId, IComponent::iid, &object) != kResultOk && !object,
                 "createInstance of an unknown class leaves an object");
    object = &object;
    check.expect(factory.createInstance(check.module.info.cid, kUnknownId, &object) != kResultOk && !object,
                 "createInstance with an unknown interface leaves an object");
    object = &object;
    check.expect(factory.queryInterface(kUnknownId, &object) == kNoInterface && !object,
                 "queryInterface of the factory knows an unknown interface");
    Application application;
    factory3->setHostContext(&application);
    factory3->setHostContext(nullptr);
    check.expect(application.references == 1, "setHostContext(nullptr) does not give back the context");
}

void interfaces(Check& check) {
    Plugin plugin(check.module);
    void* object = &object;
    for (FUnknown* unknown : {static_cast<FUnknown*>(plugin.component), static_cast<FUnknown*>(plugin.processor),
                              static_cast<FUnknown*>(plugin.controller)}) {
        object = &object;
        check.expect(unknown->queryInterface(kUnknownId, &object) == kNoInterface && !object,
                     "an unknown interface is known, or leaves a pointer");
        check.expect(FUnknownPtr<IPluginBase>(unknown) != nullptr, "IPluginBase is missing");
    }
    check.expect(FUnknownPtr<FUnknown>(plugin.component) == FUnknownPtr<FUnknown>(plugin.processor),
                 "FUnknown of component and processor differ");
    check.expect(FUnknownPtr<IComponent>(plugin.processor) == plugin.component, "the way back to IComponent differs");
    const FUnknownPtr<IProcessContextRequirements> requirements(plugin.component);
    check.note("IProcessContextRequirements ", requirements ? requirements->getProcessContextRequirements() : 0,
               ", IUnitInfo ", FUnknownPtr<IUnitInfo>(plugin.controller) != nullptr, ", IEditController2 ",
               FUnknownPtr<IEditController2>(plugin.controller) != nullptr);
    check.expect(requirements != nullptr, "IProcessContextRequirements is missing: hosts may pass no transport");
    if (const FUnknownPtr<IConnectionPoint> connection(plugin.component); connection) {
        check.expect(connection->connect(nullptr) != kResultOk, "connect(nullptr) is accepted");
        connection->notify(nullptr);
        connection->disconnect(nullptr);
    }
    // Named where there is no editor, and asked for what is none.
    for (const char* type : {ViewType::kEditor, "unknown", ""}) {
        IPlugView* view = plugin.controller->createView(type);
        check.expect(!view || std::strcmp(type, ViewType::kEditor) == 0, "createView of '", type, "' makes a view");
        if (view) view->release();
    }
    TUID id;
    plugin.component->getControllerClassId(id);
    plugin.component->setIoMode(kSimple);
    RoutingInfo from{}, to{};
    plugin.component->getRoutingInfo(from, to);
}

void life(Check& check) {
    for (int i = 0; i < 20; ++i) create(check);  // and released at once
    {
        const auto component = create(check);  // terminated without having been initialized
        component->terminate();
    }
    Application application;
    {
        const auto component = create(check);
        for (int i = 0; i < 10; ++i) {
            check.expect(component->initialize(&application) == kResultOk, "initialize failed in round ", i);
            check.expect(component->initialize(&application) != kResultOk, "a second initialize is accepted");
            check.expect(component->terminate() == kResultOk, "terminate failed in round ", i);
        }
        component->initialize(&application);  // and released without terminate
    }
    check.note("references to the host context left by a release without terminate: ", application.references - 1);
    {
        const auto component = create(check);
        check.note("initialize(nullptr) returned ", component->initialize(nullptr));
        component->terminate();
    }
    std::vector<std::unique_ptr<Plugin>> many;
    for (int i = 0; i < 50; ++i) many.push_back(std::make_unique<Plugin>(check.module));
    Session first(*many.front()), last(*many.back());
    first.pass(4096);
    last.pass(4096);
    check.expectSound(first, "first of 50");
    check.expectSound(last, "last of 50");
}

void references(Check& check) {
    for (int round = 0; round < 3; ++round) {
        Plugin plugin(check.module);
        Stream stream;
        {
            Session session(plugin);
            session.pass(4096);
            plugin.component->getState(&stream);
            stream.rewind();
            plugin.component->setState(&stream);
            stream.rewind();
            plugin.controller->setComponentState(&stream);
            session.pass(4096);
            check.expect(session.changes.references == 1 && session.reported.references == 1,
                         "references to parameter changes are kept");
        }
        check.expect(stream.references == 1, "references to a stream are kept");
        plugin.controller->setComponentHandler(nullptr);
        plugin.component->terminate();
        check.expect(plugin.handler.references == 1, "the component handler is not given back");
        check.expect(plugin.application.references == 1, "the host context is not given back by terminate");
        check.expect(plugin.component->initialize(&plugin.application) == kResultOk, "no initialize after terminate");
    }
}

void unload(Check& check) {
    using namespace std::chrono_literals;
    for (const auto pause : {0ms, 100ms, 700ms}) {  // so that what runs beside is at different points
        Module again(check.module.binary);
        Plugin plugin(again);
        Session session(plugin);
        session.pass(4096);
        std::this_thread::sleep_for(pause);
        session.pass(4096);
        check.expectSound(session, "loaded again");
    }
}

void buses(Check& check) {
    Plugin plugin(check.module);
    IComponent& component = *plugin.component;
    for (const MediaType type : {kAudio, kEvent}) {
        for (const BusDirection direction : {kInput, kOutput}) {
            const int32 count = component.getBusCount(type, direction);
            check.expect(count >= 0 && count == component.getBusCount(type, direction), "getBusCount ", count);
            std::set<std::string> names;
            for (int32 i = 0; i < count; ++i) {
                BusInfo info{};
                if (!check.expect(component.getBusInfo(type, direction, i, info) == kResultOk, "getBusInfo ", i))
                    continue;
                const std::string name = utf8(info.name);
                check.expect(info.mediaType == type && info.direction == direction, name, ": type or direction");
                check.expect(!name.empty() && names.insert(name).second, "bus ", i, " has no name of its own");
                check.expect(info.channelCount > 0, name, ": no channels");
                check.expect(info.busType == (i == 0 ? kMain : kAux), name, ": the first bus is main, all others aux");
                check.expect((info.flags & ~static_cast<uint32>(BusInfo::kDefaultActive)) == 0, name, ": flags");
                check.note(direction == kInput ? "in " : "out ", name, ", ", info.channelCount, " channels",
                           info.flags & BusInfo::kDefaultActive ? ", active by default" : "");
            }
            for (const int32 index : {-1, count, count + 1, kMaxInt32, kMinInt32}) {
                BusInfo info{}, untouched{};
                check.expect(component.getBusInfo(type, direction, index, info) != kResultOk, "getBusInfo ", index);
                check.expect(std::memcmp(&info, &untouched, sizeof info) == 0, "bus info for an invalid index");
                check.expect(component.activateBus(type, direction, index, true) != kResultOk, "activateBus ", index);
                SpeakerArrangement arrangement = 0;
                check.expect(
                    type != kAudio || plugin.processor->getBusArrangement(direction, index, arrangement) != kResultOk,
                    "getBusArrangement ", index);
            }
        }
    }
    check.expect(component.getBusCount(7, kInput) == 0 && component.getBusCount(kAudio, 7) == 0,
                 "buses of unknown types or directions");
    BusInfo info{};
    check.expect(component.getBusInfo(7, kInput, 0, info) != kResultOk, "getBusInfo of an unknown type");
    check.expect(component.getBusInfo(kAudio, 7, 0, info) != kResultOk, "getBusInfo of an unknown direction");
    check.expect(component.activateBus(7, kInput, 0, true) != kResultOk, "activateBus of an unknown type");
}

using Arrangements = std::vector<SpeakerArrangement>;

Arrangements arrangementsOf(Plugin& plugin, BusDirection direction, Check& check) {
    Arrangements all;
    int32 index = 0;
    for (const Bus& bus : plugin.buses(direction)) {
        all.push_back(0);
        check.expect(plugin.processor->getBusArrangement(direction, index++, all.back()) == kResultTrue,
                     "getBusArrangement failed");
        check.expect(SpeakerArr::getChannelCount(all.back()) == bus.channels, bus.name,
                     ": bus info and arrangement differ in the number of channels");
    }
    return all;
}

void arrangements(Check& check) {
    Plugin plugin(check.module);
    const auto inputs = arrangementsOf(plugin, kInput, check).size();
    const auto outputs = arrangementsOf(plugin, kOutput, check).size();
    const auto set = [&](Arrangements in, Arrangements out) {
        return plugin.processor->setBusArrangements(in.data(), static_cast<int32>(in.size()), out.data(),
                                                    static_cast<int32>(out.size())) == kResultTrue;
    };
    for (const int32 channels : {1, 2, 1, 2}) {
        const SpeakerArrangement wanted = channels == 1 ? SpeakerArr::kMono : SpeakerArr::kStereo;
        check.expect(plugin.setArrangement(channels), channels, " channels are refused");
        for (const BusDirection direction : {kInput, kOutput})
            for (const auto arrangement : arrangementsOf(plugin, direction, check))
                check.expect(arrangement == wanted, "accepted, and not in force: ", channels, " channels");

        // What is refused leaves all as it was.
        const auto in = arrangementsOf(plugin, kInput, check), out = arrangementsOf(plugin, kOutput, check);
        const auto refused = [&](const char* what, const Arrangements& in_wanted, const Arrangements& out_wanted) {
            check.expect(!set(in_wanted, out_wanted), what, " is accepted");
            check.expect(arrangementsOf(plugin, kInput, check) == in && arrangementsOf(plugin, kOutput, check) == out,
                         what, ": refused, and changed something");
        };
        const auto both = [&](const char* what, SpeakerArrangement arrangement) {
            refused(what, Arrangements(inputs, arrangement), Arrangements(outputs, arrangement));
        };
        both("5.1", SpeakerArr::k51);
        both("an empty arrangement", SpeakerArr::kEmpty);
        both("a speaker beyond all", ~SpeakerArrangement{0});
        both("two surround channels", SpeakerArr::kStereoSurround);
        refused("no buses", {}, {});
        refused("one bus too many", Arrangements(inputs, wanted), Arrangements(outputs + 1, wanted));
        refused("one input too many", Arrangements(inputs + 1, wanted), Arrangements(outputs, wanted));
        Arrangements mixed(outputs, wanted);
        mixed.back() = SpeakerArr::k51;
        refused("5.1 on the last output", Arrangements(inputs, wanted), mixed);
        if (outputs > 1) refused("one bus too few", Arrangements(inputs, wanted), Arrangements(outputs - 1, wanted));
        check.expect(plugin.processor->setBusArrangements(nullptr, 0, nullptr, 0) != kResultTrue,
                     "null arrangements are accepted");
        Session session(plugin, {.channels = channels});
        check.expectDelays(session, text(channels, " channels"));
        check.expectSound(session, text(channels, " channels"));
    }
}

void activation(Check& check) {
    Plugin plugin(check.module);
    for (const BusDirection direction : {kInput, kOutput}) {
        for (int32 bus = 0; bus < plugin.component->getBusCount(kAudio, direction); ++bus) {
            for (const TBool state : {false, true, true, false, false, true})
                check.expect(plugin.component->activateBus(kAudio, direction, bus, state) == kResultOk, "activateBus ",
                             bus, " ", state > 0);
        }
    }
    const auto count = static_cast<int32>(plugin.buses(kOutput).size());
    Session session(plugin);
    for (int32 off = -1; off < count; ++off) {  // -1: all aux buses
        session.deactivate();
        for (int32 bus = 0; bus < count; ++bus) {
            const bool on = off < 0 ? bus == 0 : bus != off;
            plugin.component->activateBus(kAudio, kOutput, bus, on);
            session.active[kOutput][static_cast<std::size_t>(bus)] = on;
        }
        session.activate();
        for (const bool null : {true, false}) {  // an inactive bus may have buffers or not
            for (int block = 0; block < 30; ++block) {
                session.prepare(512);
                for (int32 bus = 0; bus < count && null; ++bus)
                    for (int32 c = 0; c < 2 && !session.active[kOutput][static_cast<std::size_t>(bus)]; ++c)
                        session.data.outputs[bus].channelBuffers32[c] = nullptr;
                session.run();
                session.verify();
            }
        }
        const auto latency = plugin.processor->getLatencySamples();
        session.pass(latency + 4800);
        if (off != 0)
            check.expect(session.mainError(latency) <= 2e-6f, "the main output is wrong with output ", off,
                         " inactive");
    }
    check.expectSound(session, "with inactive buses");
}

void sampleSizes(Check& check) {
    Plugin plugin(check.module);
    IAudioProcessor& processor = *plugin.processor;
    check.expect(processor.canProcessSampleSize(kSample32) == kResultTrue, "32 bit is refused");
    for (const int32 size : {static_cast<int32>(kSample64), 2, -1}) {
        check.expect(processor.canProcessSampleSize(size) != kResultTrue, "sample size ", size, " is accepted");
        ProcessSetup setup{kRealtime, size, 512, 48000};
        check.expect(processor.setupProcessing(setup) != kResultTrue, "set up with sample size ", size);
    }
    Session session(plugin);
    session.prepare(512);
    session.data.symbolicSampleSize = kSample64;
    check.note("a 64-bit block to a 32-bit instance returned ", processor.process(session.data));
    session.deactivate();
    check.expectWorks(plugin, "after 64 bit was refused");
}

void formats(Check& check) {
    Plugin plugin(check.module);
    for (const int32 mode : {kRealtime, kPrefetch, kOffline}) {
        for (const double rate :
             {8000., 11025., 16000., 22050., 32000., 44100., 48000., 88200., 96000., 176400., 192000.}) {
            for (const int32 block : {1, 64, 512, 8192}) {
                try {
                    Session session(plugin, {.rate = rate, .block = block, .mode = mode});
                    session.source = [](int64, int32) { return 0.0f; };  // offline, silence needs no worker
                    const auto latency = plugin.processor->getLatencySamples();
                    for (int i = 0; i < 3; ++i) session.process(block);
                    check.expectSound(session, text(rate, " Hz, blocks of ", block, ", mode ", mode));
                    check.expect(latency == plugin.processor->getLatencySamples(), "the latency changes while active");
                    if (block == 512) check.note(rate, " Hz, mode ", mode, ": latency ", latency);
                } catch (const std::exception& error) {
                    check.failures.add(rate, " Hz, blocks of ", block, ", mode ", mode, ": ", error.what());
                }
            }
        }
    }
    // Steinberg's validator tries such; they may be refused. What is senseless must be survived.
    constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    for (const double rate : {384000., 1234.5678, 12345.678, 123456.78, 1234567.8, 0., -1., infinity, nan, 1e-300}) {
        for (const int32 block : {512, 1 << 20, 0, -1, kMaxInt32}) {
            ProcessSetup setup{kRealtime, kSample32, block, rate};
            const tresult result = plugin.processor->setupProcessing(setup);
            const bool sensible = rate > 1000 && rate < infinity;
            if (block == 512 && sensible) check.note(rate, " Hz: ", result == kResultOk ? "accepted" : "refused");
            check.expect(sensible || result != kResultOk, "accepted: ", rate, " Hz, blocks of ", block);
            if (result != kResultOk || block > 1 << 20 || !sensible) continue;
            if (block < 1) {
                check.note("blocks of at most ", block, " are accepted");
                plugin.component->setActive(true);
                plugin.component->setActive(false);
                continue;
            }
            Session session(plugin, {.rate = rate, .block = block});
            session.process(block);
            session.process(block / 2);
            check.expectSound(session, text(rate, " Hz, blocks of ", block));
        }
    }
    check.expectWorks(plugin, "after all rates");
}

void transitions(Check& check) {
    Plugin plugin(check.module);
    IComponent& component = *plugin.component;
    IAudioProcessor& processor = *plugin.processor;
    ProcessSetup setup{kRealtime, kSample32, 512, 48000};
    const auto active = [&](bool state, const char* when) {
        check.expect(component.setActive(state) == kResultOk, "setActive(", state, ") ", when);
    };
    check.note("setActive(false), fresh: ", component.setActive(false));
    check.note("setActive(true) before setupProcessing: ", component.setActive(true));
    component.setActive(false);
    for (int i = 0; i < 3; ++i) {  // suspend and resume, without a block
        check.expect(processor.setupProcessing(setup) == kResultOk, "setupProcessing in round ", i);
        active(true, "after setup");
        active(false, "after setActive(true)");
    }
    for (int i = 0; i < 3; ++i) {  // several times without a setup between
        active(true, "again");
        processor.setProcessing(true);
        processor.setProcessing(false);
        processor.setProcessing(true);
        active(false, "while still processing");
    }
    check.expect(processor.setupProcessing(setup) == kResultOk, "setupProcessing");
    check.expect(processor.setupProcessing(setup) == kResultOk, "setupProcessing twice");
    active(true, "once");
    check.note("setActive(true) twice: ", component.setActive(true));
    check.note("setupProcessing while active: ", processor.setupProcessing(setup));
    check.expect(component.initialize(&plugin.application) != kResultOk, "initialize while active is accepted");
    active(false, "once");
    check.note("setActive(false) twice: ", component.setActive(false));
    processor.setProcessing(true);
    processor.setProcessing(false);
    {
        Session session(plugin);
        processor.setProcessing(false);
        session.process(512);  // hosts that never call setProcessing are many
        processor.setProcessing(true);
        processor.setProcessing(true);
        check.expectDelays(session, "after setProcessing twice");
        session.deactivate();
        session.prepare(512);
        check.note("process() while inactive: ", processor.process(session.data));
        session.activate();
        check.expectDelays(session, "after a block while inactive");
        check.expectSound(session, "transitions");
    }
    for (int i = 0; i < 30; ++i) {  // start and stop as fast as can be
        Session session(plugin, {.block = 64 << i % 4, .mode = i % 3 == 0 ? kOffline : kRealtime});
        session.source = [](int64, int32) { return 0.0f; };
        session.process(64);
        check.expectSound(session, "in quick rounds");
    }
    component.setActive(true);
    check.expect(component.terminate() == kResultOk, "terminate while active");
    check.note("terminate twice: ", component.terminate());
    check.expect(component.initialize(&plugin.application) == kResultOk, "initialize after terminate");
    check.expectWorks(plugin, "after terminate while active");
}

void resets(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    for (int round = 0; round < 3; ++round) {
        const auto latency = plugin.processor->getLatencySamples();
        float before = 0;
        for (int64 at = 0; at + 512 <= latency; at += 512) {
            session.process(512);
            before = std::max(before, session.peak());
        }
        check.expect(before == 0, "sound before the latency is over, in round ", round, ": ", before);
        check.expectDelays(session, text("round ", round));
        session.pass(2 * 48000);  // so that all of a ring would hold sound
        session.deactivate();
        session.activate();
        check.expect(plugin.processor->getLatencySamples() == latency, "another latency after a restart");
    }
    check.expectSound(session, "restarts");
}

}  // namespace

std::vector<NamedCheck> generalChecks() {
    return {{"factory", factory},           {"interfaces", interfaces},   {"life", life},
            {"references", references},     {"unload", unload},           {"buses", buses},
            {"arrangements", arrangements}, {"activation", activation},   {"sample-sizes", sampleSizes},
            {"formats", formats},           {"transitions", transitions}, {"resets", resets}};
}

}  // namespace host
