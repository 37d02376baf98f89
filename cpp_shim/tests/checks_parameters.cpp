// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checks of parameters, units and state.

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "pluginterfaces/vst/ivstunits.h"
#include "validate.hpp"

namespace host {

namespace {

constexpr double kClose = 1e-6;

bool isWritable(const ParameterInfo& info) {
    return (info.flags & ParameterInfo::kIsReadOnly) == 0;
}

const ParameterInfo* bypassOf(const std::vector<ParameterInfo>& all) {
    for (const auto& info : all)
        if (info.flags & ParameterInfo::kIsBypass) return &info;
    return nullptr;
}

// A value that a parameter with steps can hold, other than its default.
ParamValue otherValue(const ParameterInfo& info, double seed) {
    const double steps = info.stepCount;
    if (steps == 0 && info.flags & ParameterInfo::kIsList) return info.defaultNormalizedValue;  // a list of one
    if (steps == 0) return std::fmod(info.defaultNormalizedValue + 0.3 + 0.4 * seed, 1.0);
    return std::fmod(std::round(info.defaultNormalizedValue * steps) + 1, steps + 1) / steps;
}

using Values = std::map<ParamID, ParamValue>;

Values values(const Plugin& plugin) {
    Values all;
    for (const auto& info : plugin.parameters())
        if (isWritable(info)) all[info.id] = plugin.controller->getParamNormalized(info.id);
    return all;
}

void expectSame(Check& check, const Values& got, const Values& wanted, const std::string& what) {
    for (const auto& [id, value] : wanted)
        check.expect(std::abs(got.at(id) - value) <= kClose, what, ": parameter ", id, " is ", got.at(id), " and not ",
                     value);
}

void setAll(Plugin& plugin, double seed) {
    for (const auto& info : plugin.parameters())
        if (isWritable(info)) plugin.controller->setParamNormalized(info.id, otherValue(info, seed));
}

void parameterInfos(Check& check) {
    Plugin plugin(check.module);
    const int32 count = plugin.controller->getParameterCount();
    for (const int32 index : {-1, count, kMaxInt32, kMinInt32}) {
        ParameterInfo info{};
        check.expectNoThrow(
            [&] { check.expect(plugin.controller->getParameterInfo(index, info) != kResultOk, "index is accepted"); },
            "getParameterInfo ", index);
    }
    std::set<UnitID> units{kRootUnitId};
    if (const FUnknownPtr<IUnitInfo> unit_info(plugin.controller); unit_info) {
        UnitInfo unit{};
        for (int32 i = 0; i < unit_info->getUnitCount(); ++i) {
            check.expect(unit_info->getUnitInfo(i, unit) == kResultOk && unit.name[0], "unit ", i, " has no info");
            check.expect(units.insert(unit.id).second || unit.id == kRootUnitId, "unit ", unit.id, " is there twice");
            check.expect(i > 0 || (unit.id == kRootUnitId && unit.parentUnitId == kNoParentUnitId),
                         "the first unit is not the root");
            check.expect(i == 0 || units.count(unit.parentUnitId) > 0, "unit ", unit.id, " has no parent");
        }
        check.expect(unit_info->getUnitInfo(unit_info->getUnitCount(), unit) != kResultOk, "a unit too many");
        check.expect(unit_info->getUnitInfo(-1, unit) != kResultOk, "unit -1");
        ProgramListInfo list{};
        for (int32 i = 0; i < unit_info->getProgramListCount(); ++i)
            check.expect(unit_info->getProgramListInfo(i, list) == kResultOk, "program list ", i);
        check.expect(unit_info->getProgramListInfo(-1, list) != kResultOk, "program list -1");
    }
    std::set<ParamID> ids;
    std::set<std::string> titles;
    int bypasses = 0;
    for (const auto& info : plugin.parameters()) {
        const std::string title = utf8(info.title);
        const auto expect = [&](bool fine, const char* what) {
            check.expect(fine, "parameter ", info.id, " (", title, "): ", what);
        };
        const auto has = [&](int32 flag) { return (info.flags & flag) != 0; };
        expect(static_cast<int32>(info.id) >= 0 && ids.insert(info.id).second, "the id is there twice, or negative");
        expect(!title.empty() && titles.insert(title).second, "no title, or it is there twice");
        expect(info.stepCount >= 0, "negative step count");
        expect(info.defaultNormalizedValue >= 0 && info.defaultNormalizedValue <= 1, "the default is not in 0..1");
        expect(units.count(info.unitId) > 0, "unknown unit");
        expect(!(has(ParameterInfo::kCanAutomate) && has(ParameterInfo::kIsReadOnly)), "read-only and automatable");
        if (has(ParameterInfo::kIsList) && info.stepCount == 0)
            check.note(title, " is a list of one: hosts show a knob");
        expect(!has(ParameterInfo::kIsProgramChange), "program changes are not expected");
        expect(!has(ParameterInfo::kIsBypass) || (info.stepCount == 1 && has(ParameterInfo::kCanAutomate)),
               "bypass is a switch that can be automated");
        bypasses += has(ParameterInfo::kIsBypass);
        expect(std::abs(plugin.controller->getParamNormalized(info.id) - info.defaultNormalizedValue) <= kClose ||
                   !isWritable(info),
               "a new instance does not have the default");
        check.note(info.id, " ", title, " [", utf8(info.units), "] steps ", info.stepCount, " default ",
                   info.defaultNormalizedValue, " = ", plugin.display(info.id, info.defaultNormalizedValue), " flags ",
                   info.flags);
    }
    check.expect(bypasses == 1, bypasses, " bypass parameters");
}

void parameterValues(Check& check) {
    Plugin plugin(check.module);
    IEditController& controller = *plugin.controller;
    for (const auto& info : plugin.parameters()) {
        const int32 steps = info.stepCount;
        const auto name = text("parameter ", info.id, " at ");
        const int32 parts = steps > 0 ? steps : info.flags & ParameterInfo::kIsList ? 1 : 100;
        for (int i = 0; i <= (steps > 0 || parts == 100 ? parts : 0); ++i) {  // of a list of one only the first value
            const ParamValue value = i / static_cast<double>(parts);
            const ParamValue plain = controller.normalizedParamToPlain(info.id, value);
            const ParamValue back = controller.plainParamToNormalized(info.id, plain);
            check.expect(std::abs(back - value) <= kClose, name, value, ": plain and back gives ", back);
            check.expect(steps == 0 || std::abs(plain - std::round(plain)) < kClose, name, value, ": plain is ", plain);
            String128 string{};
            check.expect(controller.getParamStringByValue(info.id, value, string) == kResultOk && string[0], name,
                         value, ": no string");
            ParamValue parsed = -1;
            const tresult result = controller.getParamValueByString(info.id, string, parsed);
            check.expect(result == kResultOk, name, value, ": its string '", utf8(string), "' is not understood");
            // A string has few digits: it must mean a value that shows the same.
            check.expect(result != kResultOk || plugin.display(info.id, parsed) == utf8(string), name, value, ": '",
                         utf8(string), "' means ", parsed, ", shown as '", plugin.display(info.id, parsed), "'");
            check.expect(result != kResultOk || std::abs(parsed - value) <= (steps > 0 ? kClose : 0.02), name, value,
                         ": '", utf8(string), "' means ", parsed);
            if (!isWritable(info)) continue;
            check.expect(controller.setParamNormalized(info.id, value) == kResultOk, name, value, ": not set");
            check.expect(std::abs(controller.getParamNormalized(info.id) - value) <= kClose, name, value, ": get is ",
                         controller.getParamNormalized(info.id));
        }
        for (const double value : {-1.0, 2.0, 1e300, -1e300, static_cast<double>(NAN)}) {
            check.expectNoThrow(
                [&] {
                    controller.setParamNormalized(info.id, value);
                    const ParamValue got = controller.getParamNormalized(info.id);
                    check.expect(got >= 0 && got <= 1, name, value, ": not clamped, but ", got);
                },
                "set and get of ", name, value);
            String128 string{};
            check.expectNoThrow([&] { controller.getParamStringByValue(info.id, value, string); }, "the string of ",
                                name, value);
            check.expectNoThrow(
                [&] {
                    controller.plainParamToNormalized(info.id, value);
                    controller.plainParamToNormalized(info.id, controller.normalizedParamToPlain(info.id, value));
                },
                "the plain value of ", name, value);
        }
        String128 nonsense = u"\u00E9nonsense \u2603 1e999 ,.;", empty{}, full;
        std::fill(std::begin(full), std::end(full), u'9');
        for (TChar* string : {nonsense, empty, full}) {
            full[127] = 0;
            ParamValue parsed = 0.5;
            tresult result = kResultFalse;
            check.expectNoThrow([&] { result = controller.getParamValueByString(info.id, string, parsed); },
                                "a string for parameter ", info.id);
            if (result == kResultOk)
                check.expect(parsed >= 0 && parsed <= 1, "parameter ", info.id, ": a string gives ", parsed);
        }
        controller.setParamNormalized(info.id, info.defaultNormalizedValue);
    }
    String128 string{};
    ParamValue value = 0;
    for (const ParamID id : {ParamID{77777}, ParamID{0xFFFFFFFF}, ParamID{0x7FFFFFFF}}) {
        check.expect(controller.setParamNormalized(id, 0.5) != kResultOk, "an unknown parameter can be set");
        check.expect(controller.getParamStringByValue(id, 0.5, string) != kResultOk,
                     "an unknown parameter has a string");
        check.expect(controller.getParamValueByString(id, string, value) != kResultOk,
                     "an unknown parameter is parsed");
        controller.getParamNormalized(id);
        controller.normalizedParamToPlain(id, 0.5);
        controller.plainParamToNormalized(id, 0.5);
    }
    check.expectWorks(plugin, "after all values");
}

// Parameters arrive in a process() without audio, in each form that hosts give it, and are then in the state.
void flush(Check& check) {
    for (int form = 0; form < 4; ++form) {
        Plugin plugin(check.module);
        Session session(plugin);
        Values sent;
        for (const auto& info : plugin.parameters()) {
            if (!isWritable(info)) continue;
            sent[info.id] = otherValue(info, 0.5);
            session.changes.add(info.id, 0, sent[info.id]);
        }
        session.prepare(0);
        if (form == 0) session.data.numInputs = session.data.numOutputs = 0;
        if (form <= 1) session.data.inputs = session.data.outputs = nullptr;
        if (form == 1) session.data.numInputs = session.data.numOutputs = 0;
        for (int32 bus = 0; form == 2 && bus < session.data.numOutputs; ++bus)
            session.data.outputs[bus].numChannels = 0;
        if (form == 2) session.data.inputs[0].numChannels = 0;
        if (form == 3) session.data.processContext = nullptr;
        check.expect(session.run() == kResultOk, "process() without audio failed, form ", form);
        const std::string state = plugin.state();
        session.deactivate();
        Plugin other(check.module);
        check.expect(other.restore(state) == kResultOk, "the state is refused");
        expectSame(check, values(other), sent, text("flushed and saved, form ", form));
    }
}

// Points in great number, at odd places, of parameters that there are and that there are not.
void automation(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    std::mt19937 random(1);
    const auto uniform = [&] { return std::uniform_real_distribution<>(0, 1)(random); };
    const auto infos = plugin.parameters();
    for (int block = 0; block < 150; ++block) {
        const int32 frames = 1 + static_cast<int32>(uniform() * 511);
        for (const auto& info : infos) {
            if (uniform() < 0.7) continue;
            const bool every = uniform() < 0.1;
            for (int32 offset = 0; offset < frames; offset += every ? 1 : 1 + static_cast<int32>(uniform() * 200))
                session.changes.add(info.id, offset, uniform());
        }
        session.process(frames);
    }
    check.expectSound(session, "random automation");

    session.faults.clear();
    const double infinity = std::numeric_limits<double>::infinity();
    for (const auto& info : infos) {
        for (const int32 offset : {-1, 512, 511, 100, 100, 0, kMaxInt32, kMinInt32})  // and out of order
            session.changes.add(info.id, offset, uniform());
        for (const double value : {-1.0, 2.0, infinity, -infinity, static_cast<double>(NAN), 1e-320})
            session.changes.add(info.id, 7, value);
    }
    for (const ParamID id : {ParamID{77777}, kNoParamId}) session.changes.add(id, 0, 0.5);
    session.process(512);
    struct EmptyQueues final : HostObject<IParameterChanges> {
        int32 PLUGIN_API getParameterCount() override { return 3; }
        IParamValueQueue* PLUGIN_API getParameterData(int32 index) override { return index == 1 ? &queue : nullptr; }
        IParamValueQueue* PLUGIN_API addParameterData(const ParamID&, int32&) override { return nullptr; }
        Queue queue;
    } empty;
    empty.queue.id = infos.front().id;
    session.prepare(512);
    session.data.inputParameterChanges = &empty;   // a queue without points, and none
    session.data.outputParameterChanges = &empty;  // takes nothing
    session.run();
    session.verify();
    session.prepare(512);
    session.data.inputParameterChanges = session.data.outputParameterChanges = nullptr;
    session.run();
    session.verify();
    session.pass(9600);
    check.expectSound(session, "odd points");
    for (const auto& info : infos) {
        const ParamValue value = plugin.controller->getParamNormalized(info.id);
        check.expect(value >= 0 && value <= 1, "parameter ", info.id, " became ", value);
        if (isWritable(info)) session.changes.add(info.id, 0, info.defaultNormalizedValue);
        if (isWritable(info)) plugin.controller->setParamNormalized(info.id, info.defaultNormalizedValue);
    }
    session.process(512);
    session.deactivate();
    session.activate();
    check.expectDelays(session, "back at the defaults");
}

void state(Check& check) {
    Plugin plugin(check.module);
    const std::string fresh = plugin.state();
    check.expect(plugin.state() == fresh, "the state is not the same when saved again");
    const bool readable = std::all_of(fresh.begin(), fresh.end(), [](char c) { return c >= ' ' || c == '\n'; });
    check.note("the state of a new instance: ", readable ? fresh : text(fresh.size(), " bytes"));
    const auto defaults = values(plugin);
    Session session(plugin);
    check.expect(plugin.state() == fresh, "activation changes the state");
    for (const double seed : {0.0, 0.37, 1.0}) {
        setAll(plugin, seed);
        const auto set = values(plugin);
        const std::string saved = plugin.state();  // before any block
        check.expect(saved != fresh, "values that were set are not in the state");
        session.pass(2048);
        check.expect(plugin.state() == saved, "a block changes the state");
        for (const bool active : {false, true}) {
            Plugin other(check.module);
            std::unique_ptr<Session> running;
            if (active) running = std::make_unique<Session>(other);
            for (int twice = 0; twice < 2; ++twice) {
                check.expect(other.restore(saved) == kResultOk, "the state is refused");
                expectSame(check, values(other), set, text("loaded, active ", active));
                check.expect(other.state() == saved, "loaded and saved again, the state differs, active ", active);
            }
            if (active) running->pass(2048);
            check.expect(other.state() == saved, "after blocks the state differs");
            if (active) check.expectSound(*running, "state loaded while active");
            check.expect(other.restore(fresh) == kResultOk, "the state is refused");
            expectSame(check, values(other), defaults, "loaded the defaults");
        }
    }
    Stream pieces(plugin.state());
    pieces.at_most = 3;
    Plugin other(check.module);
    check.expect(other.component->setState(&pieces) == kResultOk && other.state() == plugin.state(),
                 "a stream that gives few bytes at once is not read whole");
    // The controller's own state may be empty; it is the host's to give it back.
    Stream own;
    check.note("controller getState: ", plugin.controller->getState(&own), ", ", own.bytes.size(), " bytes");
    own.rewind();
    check.note("controller setState: ", plugin.controller->setState(&own));
    check.expectSound(session, "state");
}

void brokenState(Check& check) {
    Plugin plugin(check.module);
    setAll(plugin, 0.5);
    const std::string good = plugin.state();
    std::vector<std::pair<std::string, std::string>> all{{"empty", ""},
                                                         {"zeros", std::string(1000, '\0')},
                                                         {"brackets", std::string(1 << 20, '[')},
                                                         {"braces", std::string(100000, '{')},
                                                         {"16 MB", std::string(16 << 20, 'x')},
                                                         {"16 MB of spaces before", std::string(16 << 20, ' ') + good},
                                                         {"json null", "null"},
                                                         {"json list", "[1, 2, 3]"},
                                                         {"json of other things", "{\"version\": \"x\", \"a\": [{}]}"},
                                                         {"twice", good + good},
                                                         {"huge numbers", "{\"version\": 1e999999999999999999}"}};
    std::mt19937 random(2);
    const auto at = [&](std::size_t size) { return std::uniform_int_distribution<std::size_t>(0, size - 1)(random); };
    for (std::size_t size = 1; size < good.size(); size += 1 + good.size() / 60)
        all.emplace_back(text("truncated at ", size), good.substr(0, size));
    for (int i = 0; i < 300; ++i) {
        std::string bytes = good;
        for (std::size_t changes = 1 + at(4); changes > 0; --changes)
            bytes[at(bytes.size())] = static_cast<char>(at(256));
        all.emplace_back(text("mutated, seed 2, number ", i), bytes);
    }
    for (int i = 0; i < 50; ++i) {
        std::string bytes(1 + at(300), ' ');
        for (char& byte : bytes) byte = static_cast<char>(at(256));
        all.emplace_back(text("garbage, seed 2, number ", i), bytes);
    }
    Session session(plugin);
    for (const auto& [what, bytes] : all) {
        plugin.restore(bytes);
        for (const auto& [id, value] : values(plugin))
            check.expect(value >= 0 && value <= 1, what, ": parameter ", id, " is ", value);
        check.expect(!plugin.state().empty(), what, ": nothing can be saved after it");
        session.process(64);
    }
    Stream broken(good);
    broken.broken = true;
    for (IBStream* stream : {static_cast<IBStream*>(&broken), static_cast<IBStream*>(nullptr)}) {
        const char* what = stream ? " accepts a stream that fails" : " accepts null";
        check.expect(plugin.component->setState(stream) != kResultOk, "setState", what);
        check.expect(plugin.component->getState(stream) != kResultOk, "getState", what);
        check.expect(plugin.controller->setComponentState(stream) != kResultOk, "setComponentState", what);
        plugin.controller->setState(stream);
        plugin.controller->getState(stream);
    }
    check.expectSound(session, "broken states");
    session.deactivate();
    check.expect(plugin.restore(good) == kResultOk && plugin.state() == good, "a good state after broken ones");
    Plugin fresh(check.module);
    check.expect(plugin.restore(fresh.state()) == kResultOk, "the defaults after broken ones");
    check.expectWorks(plugin, "after broken states");
}

void bypass(Check& check) {
    Plugin plugin(check.module);
    const auto infos = plugin.parameters();
    const ParameterInfo* bypass = bypassOf(infos);
    if (!check.expect(bypass, "there is no bypass")) return;
    // It lives in the state, as it was when saved.
    std::string on;
    for (const bool state : {true, false}) {
        Session session(plugin);
        session.changes.add(bypass->id, 0, state);
        plugin.controller->setParamNormalized(bypass->id, state);
        session.prepare(0);
        session.data.numInputs = session.data.numOutputs = 0;
        session.data.inputs = session.data.outputs = nullptr;
        session.run();
        check.expect(plugin.controller->getParamNormalized(bypass->id) == state, "bypass was not set to ", state);
        if (state) on = plugin.state();
    }
    check.expect(plugin.restore(on) == kResultOk && plugin.controller->getParamNormalized(bypass->id) == 1,
                 "bypass is lost with the state");
    // Everything else far from its default, what comes out is the delayed input: exactly, and of the same latency.
    Plugin processing(check.module);
    Session session(processing);
    const auto latency = processing.processor->getLatencySamples();
    const auto isMixer = [&](const ParameterInfo& info) { return info.stepCount <= 1 && isWritable(info); };
    for (const auto& info : infos)
        if (isMixer(info) && info.id != bypass->id) session.changes.add(info.id, 0, otherValue(info, 0.5));
    session.changes.add(bypass->id, 0, 1);
    session.process(512);
    check.expectDelays(session, "bypassed");
    check.expect(session.mainError(latency) == 0, "bypass is not exact, but off by ", session.mainError(latency));
    check.expect(processing.processor->getLatencySamples() == latency, "bypass changes the latency");
    for (int i = 0; i < 40; ++i) {  // on and off within blocks
        for (int32 offset = 0; offset < 512; offset += 37) session.changes.add(bypass->id, offset, offset / 37 & 1);
        session.process(512);
    }
    check.expectSound(session, "bypass");
}

}  // namespace

std::vector<NamedCheck> parameterChecks() {
    return {{"parameter-infos", parameterInfos},
            {"parameter-values", parameterValues},
            {"flush", flush},
            {"automation", automation},
            {"state", state},
            {"broken-state", brokenState},
            {"bypass", bypass}};
}

}  // namespace host
