// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checks of process(): sizes, buffers, transport, silence, threads.

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "validate.hpp"

namespace host {

namespace {

float nothing(int64, int32) {
    return 0;
}

void blockSizes(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin, {.block = 1024, .capacity = 16384});
    const auto latency = plugin.processor->getLatencySamples();
    float error = 0;
    const auto pass = [&](int32 frames) {
        session.process(frames);
        error = std::max(error, session.mainError(latency));
    };
    for (int32 i = 0; i < 300; ++i) pass(i % 5 == 0 ? 0 : 1);
    std::mt19937 random(3);
    for (int i = 0; i < 300; ++i) pass(std::uniform_int_distribution<int32>(0, 1024)(random));
    for (int32 frames = 1024; frames > 0; frames -= 31) pass(frames);
    check.expect(error <= 2e-6f, "with changing block sizes the main output is off by ", error);
    check.expectSound(session, "changing block sizes");

    session.faults.clear();
    for (const int32 frames : {1025, 16384, 1024, 4096, 1}) {  // against the rules: it must only be survived
        session.prepare(frames);
        const tresult result = plugin.processor->process(session.data);
        check.note("a block of ", frames, " where 1024 was the largest returned ", result);
    }
    for (const int32 frames : {-1, kMinInt32}) {
        session.prepare(0);
        session.data.numSamples = frames;
        plugin.processor->process(session.data);
        session.verify();
    }
    check.expectSound(session, "blocks of negative size");
    session.deactivate();
    session.activate();
    check.expectDelays(session, "after blocks that were too large");
}

void inPlace(Check& check) {
    Plugin plugin(check.module);
    for (const int32 channels : {2, 1}) {
        Session session(plugin, {.channels = channels});
        const auto latency = plugin.processor->getLatencySamples();
        session.in_place = true;
        check.expectDelays(session, text("in place, ", channels, " channels"));
        float error = 0;
        for (int i = 0; i < 100; ++i) {
            session.process(1 + i * 5);
            error = std::max(error, session.mainError(latency));
        }
        check.expect(error <= 2e-6f, "in place, the output is off by ", error);
        check.expectSound(session, text("in place, ", channels, " channels"));
    }
    // The input in the buffers of the last aux bus, and one buffer for all: hosts that do not listen to aux buses do
    // so.
    Session session(plugin);
    const auto latency = plugin.processor->getLatencySamples();
    session.pass(latency + 4800);
    session.prepare(512);
    for (int32 bus = 1; bus < session.data.numOutputs; ++bus)
        for (int32 c = 0; c < 2; ++c)
            session.data.outputs[bus].channelBuffers32[c] = session.data.inputs[0].channelBuffers32[c];
    session.run();
    check.expect(session.mainError(latency) <= 2e-6f, "aux buses in the input's buffers disturb the main output");
}

// Whatever is missing of the buffers, what is there is right, and what comes later too.
void missingBuffers(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    const int64 latency = plugin.processor->getLatencySamples();
    const auto outputs = static_cast<int32>(plugin.buses(kOutput).size());
    using Bend = std::function<void(ProcessData&)>;
    std::vector<std::pair<std::string, Bend>> cases{
        {"no inputs", [](auto& data) { data.numInputs = 0, data.inputs = nullptr; }},
        {"no outputs", [](auto& data) { data.numOutputs = 0, data.outputs = nullptr; }},
        {"nothing", [](auto& data) { data.numInputs = data.numOutputs = 0, data.inputs = data.outputs = nullptr; }},
        {"counts without arrays", [](auto& data) { data.inputs = data.outputs = nullptr; }},
        {"only the main output", [](auto& data) { data.numOutputs = 1; }},
        {"one output too many is announced by none", [](auto& data) { data.numOutputs -= 1; }},
        {"an input without channels", [](auto& data) { data.inputs[0].numChannels = 0; }},
        {"an input of one channel", [](auto& data) { data.inputs[0].numChannels = 1; }},
        {"outputs of one channel",
         [](auto& data) {
             for (int32 bus = 0; bus < data.numOutputs; ++bus) data.outputs[bus].numChannels = 1;
         }},
        {"an input without an array", [](auto& data) { data.inputs[0].channelBuffers32 = nullptr; }},
        {"outputs without arrays",
         [](auto& data) {
             for (int32 bus = 0; bus < data.numOutputs; ++bus) data.outputs[bus].channelBuffers32 = nullptr;
         }},
        {"no channels anywhere",
         [](auto& data) {
             data.inputs[0].numChannels = 0;
             data.inputs[0].channelBuffers32 = nullptr;
             for (int32 bus = 0; bus < data.numOutputs; ++bus)
                 data.outputs[bus].numChannels = 0, data.outputs[bus].channelBuffers32 = nullptr;
         }},
        {"no parameter changes",
         [](auto& data) { data.inputParameterChanges = data.outputParameterChanges = nullptr; }},
        {"no process context", [](auto& data) { data.processContext = nullptr; }},
    };
    for (int32 c = 0; c < 2; ++c) {
        cases.emplace_back(text("input channel ", c, " null"),
                           [=](auto& data) { data.inputs[0].channelBuffers32[c] = nullptr; });
        for (int32 bus = 0; bus < outputs; ++bus)
            cases.emplace_back(text("output ", bus, " channel ", c, " null"),
                               [=](auto& data) { data.outputs[bus].channelBuffers32[c] = nullptr; });
    }
    for (const auto& [what, bend] : cases) {
        session.faults.clear();
        for (const int32 frames : {512, 1, 0, 333}) {
            session.prepare(frames);
            bend(session.data);
            session.run();
            session.verify();
        }
        check.expectSound(session, what);
        session.faults.clear();
        session.pass(latency + 4800);
        check.expect(session.mainError(latency) <= 2e-6f, "after ", what, ": the main output is off by ",
                     session.mainError(latency));
        check.expectSound(session, "after " + what);
    }
    // While outputs are missing, time goes on.
    session.pass(latency + 4800);
    session.prepare(512);
    session.data.numOutputs = 0;
    session.data.outputs = nullptr;
    session.run();
    session.process(512);
    check.expect(session.mainError(latency) <= 2e-6f, "a block without outputs loses its frames");
}

void transport(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    const auto latency = plugin.processor->getLatencySamples();
    session.pass(latency + 4800);
    const std::vector<int64> positions{0, -1, -100000, 1, 0, 1 << 30, kMaxInt64, kMinInt64, -512, 48000, 48000, 48512};
    for (const uint32 state :
         {0u, static_cast<uint32>(ProcessContext::kPlaying),
          static_cast<uint32>(ProcessContext::kPlaying | ProcessContext::kRecording),
          static_cast<uint32>(ProcessContext::kPlaying | ProcessContext::kCycleActive | ProcessContext::kCycleValid),
          ~0u}) {
        for (const int64 position : positions) {
            session.prepare(512);
            session.context.projectTimeSamples = position;
            session.context.continousTimeSamples = position;
            session.context.state = state;
            session.context.tempo = position == 0 ? NAN : 120;
            session.context.sampleRate = position < 0 ? 0 : 48000;  // some hosts leave it empty
            session.run();
            session.verify();
            check.expect(session.mainError(latency) <= 2e-6f, "the position ", position, " disturbs the sound");
        }
    }
    for (const int32 mode : {int32{kOffline}, int32{kPrefetch}, int32{kRealtime}, int32{99}}) {  // said by blocks only
        session.prepare(512);
        session.data.processMode = mode;
        session.run();
        session.verify();
        check.expect(session.mainError(latency) <= 2e-6f, "a block of mode ", mode, " disturbs the sound");
        check.expect(plugin.processor->getLatencySamples() == latency, "a block of mode ", mode,
                     " changes the latency");
    }
    check.expectSound(session, "transport");
}

void silence(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    const auto latency = plugin.processor->getLatencySamples();
    const auto pass = [&](uint64 silent) {
        session.source = [=](int64 frame, int32 channel) { return silent >> channel & 1 ? 0 : noise(frame, channel); };
        session.prepare(512);
        session.data.inputs[0].silenceFlags = silent;
        for (int32 bus = 0; bus < session.data.numOutputs; ++bus) session.data.outputs[bus].silenceFlags = ~0ull;
        session.run();
        session.verify();
    };
    for (const uint64 silent : {0, 1, 2, 3, 0, 3}) {
        for (int64 at = 0; at < latency + 4800; at += 512) pass(silent);
        check.expect(session.mainError(latency) <= 2e-6f, "silence flags ", silent, " in: the main output is off by ",
                     session.mainError(latency));
    }
    for (int64 at = 0; at < 48000; at += 512) pass(3);  // some effects flag only after a while
    for (int32 bus = 0; bus < session.data.numOutputs; ++bus)
        check.note("silent for long: flags of output ", bus, " are ", session.data.outputs[bus].silenceFlags);
    check.expect(session.peak() == 0, "silent for long, the output is ", session.peak());
    // Flags that lie: the samples count, or nothing.
    session.source = noise;
    for (int i = 0; i < 20; ++i) {
        session.prepare(512);
        session.data.inputs[0].silenceFlags = ~0ull;
        session.run();
        session.verify();
    }
    check.expectSound(session, "silence");
}

void tail(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    const int64 latency = plugin.processor->getLatencySamples(), tail = plugin.processor->getTailSamples();
    check.note("latency ", latency, ", tail ", tail);
    if (!check.expect(tail < kInfiniteTail, "an infinite tail")) return;
    session.pass(latency + 4800);
    session.source = nothing;
    const int64 end = session.position;
    float after = 0;
    while (session.position < end + std::max(tail, latency) + 48000) {
        session.process(512);
        if (session.position - 512 >= end + tail) after = std::max(after, session.peak());
        check.expect(plugin.processor->getLatencySamples() == latency, "the latency changes while active");
        check.expect(plugin.processor->getTailSamples() == tail, "the tail changes while active");
    }
    check.expect(after < 1e-7f, "after a tail of ", tail, " samples there is ", after);
    // Whatever a parameter does to the latency, an active instance keeps it.
    for (const auto& info : plugin.parameters()) {
        if (info.flags & ParameterInfo::kIsReadOnly) continue;
        for (const double value : {0.0, 1.0, 0.5, info.defaultNormalizedValue}) {
            plugin.controller->setParamNormalized(info.id, value);
            session.changes.add(info.id, 3, value);
            session.process(512);
            check.expect(plugin.processor->getLatencySamples() == latency, "parameter ", info.id,
                         " changes the latency while active");
        }
    }
    for (const auto& restart : plugin.handler.restarts()) {
        check.note("restartComponent(", restart.flags, ")");
        check.expect(restart.on_main_thread, "restartComponent from another than the main thread");
    }
    check.expectSound(session, "tail");
}

void notFinite(Check& check) {
    Plugin plugin(check.module);
    const auto infinity = std::numeric_limits<float>::infinity();
    const auto denormal = std::numeric_limits<float>::denorm_min();
    for (const float odd : {denormal, 1e-39f, 1e30f, 3e38f, infinity, -infinity, std::nanf("")}) {
        Session session(plugin);
        const int64 latency = plugin.processor->getLatencySamples(), tail = plugin.processor->getTailSamples();
        session.pass(4800);
        session.source = [=](int64 frame, int32 channel) { return frame % 3 == 0 ? odd : noise(frame, channel); };
        session.pass(4800);
        if (std::isfinite(odd)) check.expectSound(session, text("input with ", odd));
        session.source = noise;
        session.pass(std::max(latency, tail) + 48000);
        session.faults.clear();
        check.expectDelays(session, text("after input with ", odd));
        check.expectSound(session, text("after input with ", odd));
    }
}

// The host's other threads do what they may while one processes.
void threads(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin, {.block = 64});
    const auto latency = plugin.processor->getLatencySamples();
    const auto infos = plugin.parameters();
    const std::string saved = plugin.state();
    std::atomic<bool> done = false;
    std::thread audio([&] {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(3);
        for (int block = 0; std::chrono::steady_clock::now() < end; ++block) {
            const auto& info = infos[static_cast<std::size_t>(block) % infos.size()];
            if (block % 3 == 0) session.changes.add(info.id, block % 64, block % 101 / 100.0);
            session.process(64);
        }
        done = true;
    });
    std::vector<std::string> wrong;
    for (int i = 0; !done; ++i) {  // the thread of the user interface
        const auto& info = infos[static_cast<std::size_t>(i) % infos.size()];
        plugin.controller->setParamNormalized(info.id, i % 101 / 100.0);
        plugin.controller->getParamNormalized(info.id);
        plugin.display(info.id, i % 101 / 100.0);
        if (plugin.processor->getLatencySamples() != latency) wrong.push_back("the latency changed");
        plugin.processor->getTailSamples();
        if (i % 16 == 0 && plugin.state().empty()) wrong.push_back("no state");
        if (i % 64 == 0 && plugin.restore(saved) != kResultOk) wrong.push_back("the state is refused");
        plugin.buses(kOutput);
    }
    audio.join();
    check.expect(wrong.empty(), wrong.empty() ? "" : wrong.front());
    check.expectSound(session, "while other threads are busy");
    session.deactivate();
    for (const auto& info : infos) plugin.controller->setParamNormalized(info.id, info.defaultNormalizedValue);
    check.expectWorks(plugin, "after threads");
}

// One thread after the other processes, as hosts with a pool do; each instance is only ever used by one at a time.
void threadPool(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin);
    const auto latency = plugin.processor->getLatencySamples();
    float error = 0;
    for (int i = 0; i < 100; ++i) {
        std::thread([&] {
            session.process(512);
            error = std::max(error, session.mainError(latency));
        }).join();
    }
    check.expect(error <= 2e-6f, "from thread to thread the main output is off by ", error);
    check.expectSound(session, "from thread to thread");
}

// Long enough that what runs beside has started and, where it can, is ready.
void seconds(Check& check) {
    Plugin plugin(check.module);
    Session session(plugin, {.rate = 48000, .block = 480});
    const auto latency = plugin.processor->getLatencySamples();
    float main = 0, aux = 0;
    auto next = std::chrono::steady_clock::now();
    for (int block = 0; block < 500; ++block, next += std::chrono::milliseconds(10)) {
        std::this_thread::sleep_until(next);
        session.process(480);
        main = std::max(main, session.mainError(latency));
        aux = std::max(aux, session.auxError(latency));
    }
    for (const auto& info : plugin.parameters())
        if (info.flags & ParameterInfo::kIsReadOnly)
            check.note(utf8(info.title), ": ", plugin.display(info.id, plugin.controller->getParamNormalized(info.id)));
    check.expect(main <= 2e-6f, "over 5 s the main output is off by up to ", main);
    check.expect(session.active[kOutput].size() < 2 || aux <= 2e-6f, "over 5 s the aux sum is off by up to ", aux);
    check.expectSound(session, "over 5 s");
}

}  // namespace

std::vector<NamedCheck> processingChecks() {
    return {{"block-sizes", blockSizes}, {"in-place", inPlace}, {"missing-buffers", missingBuffers},
            {"transport", transport},    {"silence", silence},  {"tail", tail},
            {"not-finite", notFinite},   {"threads", threads},  {"thread-pool", threadPool},
            {"seconds", seconds}};
}

}  // namespace host
