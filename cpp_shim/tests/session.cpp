// SPDX-License-Identifier: GPL-3.0-or-later

#include "session.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "commands.hpp"
#include "rtcheck.hpp"

namespace host {

namespace {

constexpr uint32 kCanary = 0x7FC5A5A5;  // a NaN that nothing computes

bool intact(const float* begin, const float* end) {
    return std::all_of(begin, end, [](float sample) { return std::bit_cast<uint32>(sample) == kCanary; });
}

}  // namespace

float noise(int64 frame, int32 channel) {
    if (frame < 0) return 0;
    auto bits = static_cast<uint64>(2 * frame + channel + 1) * 0x9E3779B97F4A7C15u;
    bits = (bits ^ bits >> 31) * 0xD6E8FEB86659FD93u;
    return static_cast<float>(static_cast<int32>(bits >> 40) - (1 << 23)) / static_cast<float>(1 << 25);
}

Session::Session(Plugin& plugin, const Setup& setup)
    : plugin(plugin), setup(setup), capacity(std::max(setup.block, setup.capacity)) {
    if (!plugin.setArrangement(setup.channels)) throw std::runtime_error("setBusArrangements refused");
    for (const BusDirection direction : {kInput, kOutput}) {
        active.emplace_back();
        const auto count = plugin.component->getBusCount(kAudio, direction);
        for (int32 bus = 0; bus < count; ++bus) {
            if (plugin.component->activateBus(kAudio, direction, bus, true) != kResultOk)
                throw std::runtime_error("activateBus refused");
            active.back().push_back(true);
        }
    }
    ProcessSetup process_setup{setup.mode, kSample32, setup.block, setup.rate};
    if (plugin.processor->setupProcessing(process_setup) != kResultOk)
        throw std::runtime_error("setupProcessing refused");
    makeBuffers(kInput, inputs, lent_inputs);
    makeBuffers(kOutput, outputs, lent_outputs);
    context.sampleRate = setup.rate;
    context.state = ProcessContext::kPlaying | ProcessContext::kTempoValid;
    context.tempo = 120;
    activate();
}

Session::~Session() {
    deactivate();
}

void Session::activate() {
    if (plugin.component->setActive(true) != kResultOk) throw std::runtime_error("setActive(true) refused");
    is_active = true;
    plugin.processor->setProcessing(true);  // may answer kNotImplemented
    position = 0;
}

void Session::deactivate() {
    if (!is_active) return;
    is_active = false;
    plugin.processor->setProcessing(false);
    if (plugin.component->setActive(false) != kResultOk) fault("setActive(false) refused");
}

void Session::makeBuffers(BusDirection direction, std::vector<BusBuffers>& all, std::vector<AudioBusBuffers>& lent) {
    for (const Bus& bus : plugin.buses(direction)) {
        all.push_back({std::vector<Channel>(static_cast<std::size_t>(bus.channels), Channel(capacity)), {}});
        all.back().pointers.resize(all.back().channels.size());
    }
    lent.resize(all.size());
}

void Session::prepare(int32 count) {
    if (count > capacity) throw std::length_error("a block larger than the buffers");
    frames = count;
    const auto canary = std::bit_cast<float>(kCanary);
    for (auto* all : {&inputs, &outputs}) {
        auto& lent = all == &inputs ? lent_inputs : lent_outputs;
        for (std::size_t bus = 0; bus < all->size(); ++bus) {
            BusBuffers& buffers = (*all)[bus];
            for (std::size_t c = 0; c < buffers.channels.size(); ++c) {
                Channel& channel = buffers.channels[c];
                std::fill(channel.memory.begin(), channel.memory.end(), canary);
                buffers.pointers[c] = channel.data();
                if (all == &outputs) continue;
                for (int32 i = 0; i < frames; ++i) channel.data()[i] = source(position + i, static_cast<int32>(c));
            }
            lent[bus].numChannels = static_cast<int32>(buffers.channels.size());
            lent[bus].channelBuffers32 = buffers.pointers.data();
            lent[bus].silenceFlags = 0;
        }
    }
    if (in_place) std::copy(inputs[0].pointers.begin(), inputs[0].pointers.end(), outputs[0].pointers.begin());

    context.projectTimeSamples = position;
    data = {};
    data.processMode = setup.mode;
    data.numSamples = frames;
    data.numInputs = static_cast<int32>(inputs.size());
    data.numOutputs = static_cast<int32>(outputs.size());
    data.inputs = lent_inputs.data();
    data.outputs = lent_outputs.data();
    data.inputParameterChanges = &changes;
    data.outputParameterChanges = &reported;
    data.processContext = &context;
    reported.clear();
}

tresult Session::run() {
    if (watched) rtcheck::enter();
    const auto begin = std::chrono::steady_clock::now();
    const tresult result = plugin.processor->process(data);
    const auto end = std::chrono::steady_clock::now();
    if (watched) rtcheck::leave();
    seconds = std::chrono::duration<double>(end - begin).count();
    changes.clear();
    position += frames;
    if (result != kResultOk) fault(text("process() returned ", result));
    return result;
}

void Session::verifyOutput(std::size_t bus, std::size_t c) {
    const bool replaced = in_place && bus == 0;
    const Channel& channel = replaced ? inputs[0].channels[c] : outputs[bus].channels[c];
    const float* samples = channel.data();
    const float* end = channel.memory.data() + channel.memory.size();
    const auto where = [&] { return text("output bus ", bus, " channel ", c, " of ", frames, " frames"); };
    if (!intact(channel.memory.data(), samples) || !intact(samples + frames, end))
        fault("writes beyond the frames asked for: " + where());
    const AudioBusBuffers& lent = lent_outputs[bus];
    const bool given = data.outputs && static_cast<int32>(bus) < data.numOutputs &&
                       static_cast<int32>(c) < lent.numChannels && lent.channelBuffers32 &&
                       lent.channelBuffers32[c] == samples;
    if (!given || !active[kOutput][bus]) return;
    const auto unwritten = [](float sample) { return std::bit_cast<uint32>(sample) == kCanary; };
    if (std::any_of(samples, samples + frames, unwritten))
        fault("not all frames are written: " + where());
    else if (!std::all_of(samples, samples + frames, [](float sample) { return std::isfinite(sample); }))
        fault("not finite: " + where());
    else if (lent.silenceFlags >> c & 1 && std::any_of(samples, samples + frames, [](float s) { return s != 0; }))
        fault("flagged silent, and is not: " + where());
}

bool Session::verify() {
    const auto before = faults.size();
    for (std::size_t bus = 0; bus < outputs.size(); ++bus)
        for (std::size_t c = 0; c < outputs[bus].channels.size(); ++c) verifyOutput(bus, c);
    for (const BusBuffers& buffers : inputs) {
        for (std::size_t c = 0; c < buffers.channels.size() && !in_place; ++c) {
            const float* samples = buffers.channels[c].data();
            for (int32 i = 0; i < frames; ++i) {
                const float expected = source(position - frames + i, static_cast<int32>(c));
                if (std::bit_cast<uint32>(samples[i]) == std::bit_cast<uint32>(expected)) continue;
                fault("writes into its input");
                break;
            }
        }
    }
    return faults.size() == before;
}

bool Session::pass(int64 count) {
    bool fine = true;
    for (; count > 0; count -= setup.block)
        fine = process(static_cast<int32>(std::min<int64>(count, setup.block))) && fine;
    return fine;
}

float Session::error(std::size_t first, std::size_t last, int64 latency) const {
    float largest = 0;
    for (std::size_t c = 0; c < outputs[0].channels.size(); ++c) {
        for (int32 i = 0; i < frames; ++i) {
            const int64 frame = position - frames + i - latency;
            float difference = -source(frame, static_cast<int32>(c));
            for (std::size_t bus = first; bus < last; ++bus)
                difference += (in_place && bus == 0 ? inputs : outputs)[bus].channels[c].data()[i];
            if (std::abs(difference) <= largest) continue;  // so that a NaN is the largest
            largest = std::abs(difference);
            if (std::isnan(largest)) return largest;
        }
    }
    return largest;
}

float Session::peak() const {
    float largest = 0;
    for (const BusBuffers& bus : outputs)
        for (const Channel& channel : bus.channels)
            for (int32 i = 0; i < frames; ++i) largest = std::max(largest, std::abs(channel.data()[i]));
    return largest;
}

void Session::fault(const std::string& what) {
    if (faults.size() < 20) faults.push_back(text(what, ", at frame ", position - frames));
}

}  // namespace host
