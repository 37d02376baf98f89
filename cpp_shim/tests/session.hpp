// SPDX-License-Identifier: GPL-3.0-or-later
//
// An instance that is set up to process, its buffers, and what is checked of every block: that nothing is written but
// the frames asked for, that those are written and finite, and that what is flagged silent is silent.

#pragma once

#include <functional>

#include "host.hpp"

namespace host {

// A signal that is known at every frame: nothing before frame 0.
float noise(int64 frame, int32 channel);

struct Setup {
    double rate = 48000;
    int32 block = 512;  // announced as the largest
    int32 mode = kRealtime;
    int32 channels = 2;
    int32 capacity = 0;  // of the buffers, where more than one block
};

class Session {
public:
    using Source = std::function<float(int64 frame, int32 channel)>;  // asked for negative frames too

    explicit Session(Plugin& plugin, const Setup& setup = {});  // throws where the plugin refuses it
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    void activate();  // frames count from 0 again
    void deactivate();
    // One block: with its parts apart, so that `data` can be bent between them.
    bool process(int32 frames) {
        prepare(frames);
        return run() == kResultOk && verify();
    }
    void prepare(int32 frames);
    tresult run();
    bool verify();
    // Passes frames in blocks of the announced size.
    bool pass(int64 frames);

    // How far the last block is from the input `latency` frames ago: the main bus, and the sum of the others.
    float mainError(int64 latency) const { return error(0, 1, latency); }
    float auxError(int64 latency) const { return error(1, outputs.size(), latency); }
    const float* output(std::size_t bus, std::size_t channel) const { return outputs[bus].channels[channel].data(); }
    float peak() const;  // of all outputs in the last block

    Plugin& plugin;
    const Setup setup;
    ProcessData data;
    ProcessContext context{};
    Changes changes;   // to the plugin; emptied by each block
    Changes reported;  // by the plugin, in the last block
    Source source = noise;
    int64 position = 0;     // of the next block
    bool in_place = false;  // the main output in the buffers of the input
    bool watched = false;   // by rtcheck
    double seconds = 0;     // that the last process() took
    std::vector<std::string> faults;
    std::vector<std::vector<bool>> active;  // buses by direction: only active ones must be written

private:
    struct Channel {
        static constexpr int32 kGuard = 64;
        explicit Channel(int32 capacity) : memory(static_cast<std::size_t>(capacity + 2 * kGuard)) {}
        float* data() { return memory.data() + kGuard; }
        const float* data() const { return memory.data() + kGuard; }
        std::vector<float> memory;
    };
    struct BusBuffers {
        std::vector<Channel> channels;
        std::vector<float*> pointers;
    };
    void makeBuffers(BusDirection direction, std::vector<BusBuffers>& all, std::vector<AudioBusBuffers>& lent);
    void fault(const std::string& what);
    void verifyOutput(std::size_t bus, std::size_t channel);
    float error(std::size_t first, std::size_t last, int64 latency) const;

    std::vector<BusBuffers> inputs, outputs;
    std::vector<AudioBusBuffers> lent_inputs, lent_outputs;
    int32 capacity;
    int32 frames = 0;
    bool is_active = false;
};

}  // namespace host
