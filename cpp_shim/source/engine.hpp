// SPDX-License-Identifier: GPL-3.0-or-later
//
// What runs while the plugin is active: delays the input, hands it to the worker, mixes the stems that come back, and
// fades to the delayed input where they do not. Knows nothing of VST3.

#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "catalogue.hpp"
#include "link.hpp"
#include "parameters.hpp"

namespace stemplug {

inline constexpr size_t kChannels = 2, kBuses = 1 + kStems;
inline constexpr Frame kChunk = 512;

// Goes to its target on a straight line.
class Ramp {
public:
    explicit Ramp(float value = 0) : value_(value), target_(value) {}
    void jump(float value) { *this = Ramp(value); }
    void aim(float target, Frame frames) {
        if (target == target_) return;
        target_ = target;
        left_ = frames;
        step_ = (target - value_) / static_cast<float>(frames);
    }
    // The values of the next frames.
    void fill(float* out, Frame frames) {
        Frame frame = 0;
        for (; frame < frames && left_; ++frame) out[frame] = value_ = --left_ ? value_ + step_ : target_;
        std::fill_n(out + frame, frames - frame, value_);
    }
    float value() const { return value_; }

private:
    float value_, target_, step_ = 0;
    Frame left_ = 0;
};

// The last frames of the input.
class History {
public:
    // `resident` touches all of its memory, so that the audio thread is not the first to do so.
    History(size_t channels, Frame capacity, bool resident);
    void write(Frame at, size_t channel, const float* samples, Frame frames);
    // Frames before 0 are silent.
    void read(Frame at, size_t channel, Frame frames, float* out) const;
    // What lies in one piece from frame `at` on.
    const float* piece(Frame at, size_t channel, Frame& frames) const;

private:
    Frame capacity_;
    std::vector<std::unique_ptr<float, void (*)(void*)>> rings_;
};

struct Transport {
    bool playing = false;
    Frame position = 0;
};

class Engine {
public:
    struct Setup {
        const Model* model;  // null where there is none: the input passes
        std::string python;
        Profile profile = Profile::kBalanced;
        double sample_rate = 0;
        int32_t max_block = 0;
        size_t channels = kChannels;
        bool offline = false;  // the host said so when it set the plugin up
        std::string name;
    };
    Engine(Setup setup, const Values& values);

    Frame latency() const { return latency_; }

    // All below on the audio thread.
    //
    // Says what the transport does and whether to wait for stems, once at the beginning of each of the host's blocks.
    void beginBlock(const Transport& transport, bool offline);
    // Takes the values of all parameters; they are reached within 10 ms, or at once.
    void aim(bool at_once);
    // `outputs` of each bus and channel may be null. At most kChunk frames.
    struct Chunk {
        std::array<const float*, kChannels> inputs{};
        std::array<std::array<float*, kChannels>, kBuses> outputs{};
        Frame frames = 0;
        // Set where something other than zero was written.
        std::array<std::array<bool, kChannels>, kBuses> sounds{};
    };
    void process(Chunk& chunk);
    Status status() const { return status_; }
    float load() const;

private:
    bool forked() const { return forks_ != forkCount(); }
    Segment* segment();
    void begin(Segment& segment);
    void pump(Frame end);
    void note();
    void wait(Frame end);
    void listen(const Chunk& chunk);
    void fade(Frame at, Frame frames);
    void fillRamps(Frame at, Frame frames);
    void readStems(Frame at, Frame frames);
    void mix(Chunk& chunk, Frame at);
    void mixChannel(Chunk& chunk, size_t channel);
    void judge(bool wanted);

    const Setup setup_;
    const Values& values_;
    const Frame latency_, fade_, margin_;
    const uint32_t forks_;
    History history_;
    std::unique_ptr<Link> link_;

    Frame now_ = 0;     // frames of input so far
    Frame block_ = 0;   // where the host's block began
    Frame sound_ = -1;  // first frame that was not silent
    Frame fade_out_frames_ = 1;
    Frame fade_out_ = 0;           // where the stems must be faded out
    bool waiting_ = false;         // for stems, in this block
    bool gave_up_ = false;         // waiting, until the worker is back
    bool was_ready_ = false;       // since the stream began
    Frame begun_ = 0, late_ = -1;  // when the stream began, and when stems were last late
    Transport transport_;
    Mark mark_{};
    Status status_ = Status::kStarting;

    Ramp wet_, bypass_, output_{1};
    std::array<Ramp, kStems> gain_, heard_;

    // One chunk: what the ramps give frame by frame, the delayed input, and the stems, in rows as the worker sends
    // them.
    using Samples = std::array<float, kChunk>;
    Samples wet_now_, bypass_now_, output_now_;
    std::array<Samples, kStems> gain_now_, heard_now_;
    std::array<Samples, kChannels> dry_{};
    std::vector<Samples> rows_;
    std::array<Samples, kStems> stem_;
    Samples rest_, sum_, bus_;
    const Samples silence_{};
};

}  // namespace stemplug
