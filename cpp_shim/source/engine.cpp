// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <new>
#include <thread>

namespace stemplug {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = 10s;  // without progress
constexpr auto kNap = 200us;
constexpr double kStallSeconds = 2.0;  // that the worker may be behind before it has to begin anew

bool isSilent(const float* samples, Frame frames) {
    return std::all_of(samples, samples + frames, [](float sample) { return sample == 0.0f; });
}

}  // namespace

History::History(size_t channels, Frame capacity, bool resident) : capacity_(capacity) {
    for (size_t channel = 0; channel < channels; ++channel) {
        auto* ring = static_cast<float*>(std::calloc(static_cast<size_t>(capacity), sizeof(float)));
        if (!ring) throw std::bad_alloc();
        rings_.emplace_back(ring, std::free);
        if (resident) std::fill_n(ring, capacity, 0.0f);
    }
}

void History::write(Frame at, size_t channel, const float* samples, Frame frames) {
    const Frame start = at % capacity_, first = std::min(frames, capacity_ - start);
    float* ring = rings_[channel].get();
    std::copy_n(samples, first, ring + start);
    std::copy_n(samples + first, frames - first, ring);
}

const float* History::piece(Frame at, size_t channel, Frame& frames) const {
    frames = std::min(frames, capacity_ - at % capacity_);
    return rings_[channel].get() + at % capacity_;
}

void History::read(Frame at, size_t channel, Frame frames, float* out) const {
    const Frame before = std::clamp<Frame>(-at, 0, frames);
    std::fill_n(out, before, 0.0f);
    for (Frame done = before; done < frames;) {
        Frame count = frames - done;
        const float* found = piece(at + done, channel, count);
        std::copy_n(found, count, out + done);
        done += count;
    }
}

Engine::Engine(Setup setup, const Values& values)
    : setup_(std::move(setup)),
      values_(values),
      latency_(setup_.model ? latencyFrames(*setup_.model, setup_.profile, setup_.sample_rate, setup_.max_block) : 0),
      fade_(fadeFrames(setup_.sample_rate)),
      margin_(marginFrames(setup_.sample_rate)),
      forks_(forkCount()),
      history_(setup_.channels, latency_ + static_cast<Frame>(kStallSeconds * setup_.sample_rate) + 2 * kChunk,
               setup_.profile != Profile::kOffline) {
    aim(true);
    if (!setup_.model) return;
    rows_.resize(setup_.model->rows.size() * setup_.channels);
    link_ = std::make_unique<Link>(Link::Request{setup_.python, *setup_.model, setup_.profile, setup_.sample_rate,
                                                 static_cast<uint32_t>(setup_.channels), latency_, setup_.offline,
                                                 setup_.name});
}

void Engine::beginBlock(const Transport& transport, bool offline) {
    waiting_ = offline;
    // A host that renders and has no transport plays from the first block on.
    transport_ = transport.playing || !offline ? transport : Transport{true, now_};
    block_ = now_;
    note();
}

void Engine::aim(bool at_once) {
    const auto go = [&](Ramp& ramp, double target) {
        if (at_once)
            ramp.jump(static_cast<float>(target));
        else
            ramp.aim(static_cast<float>(target), fade_);
    };
    go(bypass_, values_.on(id::kBypass));
    go(output_, amplitude(values_.get(id::kOutputGain)));
    bool solo = false;
    for (ParamID stem = 0; stem < kStems; ++stem) solo |= values_.on(id::kSolo + stem);
    for (ParamID stem = 0; stem < kStems; ++stem) {
        go(gain_[stem], amplitude(values_.get(id::kGain + stem)));
        go(heard_[stem], !values_.on(id::kMute + stem) && (!solo || values_.on(id::kSolo + stem)));
    }
}

void Engine::process(Chunk& chunk) {
    listen(chunk);
    const Frame at = now_ - latency_, end = at + chunk.frames;
    now_ += chunk.frames;
    pump(now_);
    if (waiting_) wait(end);
    fade(at, chunk.frames);
    mix(chunk, at);
}

float Engine::load() const {
    const Segment* current = link_ && !forked() ? link_->segment() : nullptr;
    return current ? std::clamp(current->header().load.load(std::memory_order_relaxed), 0.0f, 1.0f) : 0.0f;
}

// The segment in use, or null. In a forked process the worker belongs to the parent.
Segment* Engine::segment() {
    return link_ && !forked() ? link_->segment() : nullptr;
}

// Keeps the input and notices its first sound.
void Engine::listen(const Chunk& chunk) {
    for (size_t channel = 0; channel < setup_.channels; ++channel) {
        const float* input = chunk.inputs[channel] ? chunk.inputs[channel] : silence_[0].data();
        history_.write(now_, channel, input, chunk.frames);
        if (sound_ < 0 && !isSilent(input, chunk.frames)) sound_ = now_;
    }
    if (sound_ >= 0 && waiting_ && link_ && !forked()) link_->hear();
}

// A new segment begins as far back as the history reaches, so that stems are there at once. Where all before was
// silent, windows are counted from frame 0, as `Separator` counts them.
void Engine::begin(Segment& segment) {
    const Frame start = std::max<Frame>(0, now_ - latency_ - kChunk);
    segment.addMark(mark_);  // first: the worker reads it when the input has begun
    if (waiting_ && sound_ >= start)
        segment.begin(0, sound_);
    else
        segment.begin(start, start);
    gave_up_ = false;
}

// Notes where the transport does something else than go on.
void Engine::note() {
    const uint32_t flags = (transport_.playing ? Mark::kPlaying : 0) | (values_.on(id::kCapture) ? Mark::kCapture : 0);
    const auto apart = [](Frame a, Frame b) { return static_cast<uint64_t>(a) - static_cast<uint64_t>(b); };
    const bool follows = apart(transport_.position, mark_.host) == apart(block_, mark_.frame);
    if (flags == mark_.flags && (follows || !transport_.playing)) return;
    mark_ = {block_, transport_.position, flags, {}};
    if (Segment* current = segment()) current->addMark(mark_);
}

// Hands the input to the worker, up to frame `end`.
void Engine::pump(Frame end) {
    Segment* current = segment();
    if (!link_ || forked()) return;
    if (link_->hasNew() && (!current || (!current->alive && wet_.value() == 0) || (!current->alive && waiting_))) {
        current = link_->take();
        begin(*current);
    }
    if (!current || !current->alive) return;
    while (current->written() < end) {
        const Frame at = current->written();
        Frame count = std::min(end - at, current->space());
        if (count <= 0) {
            // In real time nobody waits: a worker that stays behind is left, and a new connection begins at the
            // present.
            if (now_ - at > latency_ + static_cast<Frame>(kStallSeconds * setup_.sample_rate)) current->alive = false;
            return;
        }
        std::array<const float*, kChannels> pieces{};
        for (size_t channel = 0; channel < setup_.channels; ++channel)
            pieces[channel] = history_.piece(at, channel, count);
        current->write(pieces.data(), count);
    }
}

// Offline: until the stems are there up to frame `end`, and as far as the margin beyond it.
void Engine::wait(Frame end) {
    if (!link_ || forked() || sound_ < 0 || gave_up_ || end + fade_ <= sound_) return;
    auto limit = Clock::now() + kPatience;
    const Segment* last = nullptr;
    uint64_t beat = 0;
    for (bool nudged = false;; std::this_thread::sleep_for(kNap)) {
        pump(now_);
        Segment* current = segment();
        const bool alive = current && current->alive;
        if (alive && current->stems().ready >= end + margin_) return;
        if (alive && !nudged) link_->nudge();
        nudged |= alive;
        const uint64_t now = alive ? current->header().heartbeat.load(std::memory_order_relaxed) : 0;
        if (alive && (current != last || now != beat)) limit = Clock::now() + kPatience;
        last = current;
        beat = now;
        if (Clock::now() > limit || (link_->hopeless() && !alive)) break;
    }
    gave_up_ = true;
    link_->complain();
}

// Decides where in the stems of [at, at + frames) the fade to or from dry begins.
void Engine::fade(Frame at, Frame frames) {
    Segment* current = segment();
    const auto [from, ready] = current ? current->stems() : Segment::Range{0, 0};
    const bool wanted = current && from <= std::max<Frame>(at, 0) && ready >= at + frames + margin_;
    fade_out_ = wanted ? at + frames : from <= at ? std::max(at, ready - fade_) : at;
    fade_out_frames_ = std::clamp<Frame>(ready - fade_out_, 1, fade_);
    if (wanted) wet_.aim(1, fade_);
    const bool silent = sound_ < 0 || at + frames + fade_ <= sound_;
    if (silent) wet_.jump(wanted ? 1.0f : 0.0f);  // nothing sounds: no fade is needed
    judge(wanted);
}

void Engine::judge(bool wanted) {
    was_ready_ |= wanted;
    const Segment* current = segment();
    if (wanted)
        status_ = Status::kReady;
    else if (current && current->alive && was_ready_)
        status_ = Status::kOverloaded;
    else if (!link_ || forked() || link_->failing() || gave_up_)
        status_ = Status::kDry;
    else
        status_ = Status::kStarting;
}

void Engine::mix(Chunk& chunk, Frame at) {
    Segment* current = segment();
    const bool stems = current && (wet_.value() > 0 || fade_out_ == at + chunk.frames);
    const size_t channels = setup_.channels;
    for (size_t channel = 0; channel < channels; ++channel)
        history_.read(at, channel, chunk.frames, dry_[channel].data());
    for (size_t row = 0; row < rows_.size(); ++row) {
        const Frame before = stems ? std::clamp<Frame>(-at, 0, chunk.frames) : chunk.frames;
        std::fill_n(rows_[row].data(), before, 0.0f);
        if (before < chunk.frames)
            current->read(static_cast<uint32_t>(row), at + before, chunk.frames - before, rows_[row].data() + before);
    }
    if (current) current->release(at + chunk.frames);

    const size_t estimated = rows_.size() / channels;
    for (Frame frame = 0; frame < chunk.frames; ++frame) {
        if (at + frame == fade_out_) wet_.aim(0, fade_out_frames_);
        const float bypass = bypass_.next(), wet = wet_.next() * (1 - bypass);
        const float output = bypass + (1 - bypass) * output_.next();
        std::array<float, kStems> gain, heard;
        for (size_t stem = 0; stem < kStems; ++stem) {
            gain[stem] = gain_[stem].next();
            heard[stem] = heard_[stem].next();
        }
        for (size_t channel = 0; channel < channels; ++channel) {
            const float dry = dry_[channel][static_cast<size_t>(frame)];
            std::array<float, kStems> stem{};
            float rest = dry;
            for (size_t row = 0; row < estimated; ++row) {
                const float sample = rows_[row * channels + channel][static_cast<size_t>(frame)];
                stem[setup_.model->rows[row]] += sample;
                rest -= sample;
            }
            stem[setup_.model ? setup_.model->residual : kOther] += rest;

            float sum = 0;
            std::array<float, kBuses> bus;
            for (size_t k = 0; k < kStems; ++k) {
                const float share = gain[k] * stem[k];
                sum += heard[k] * share;
                bus[1 + k] = wet * share;
            }
            bus[1 + kOther] += (1 - wet) * (bypass + (1 - bypass) * gain[kOther]) * dry;
            bus[0] = output * (wet * sum + (1 - wet) * dry);
            for (size_t k = 0; k < kBuses; ++k) {
                for (size_t c = channel; c < kChannels; c += channels) {  // one channel goes to both
                    if (float* out = chunk.outputs[k][c]) out[frame] = bus[k];
                    chunk.sounds[k][c] |= bus[k] != 0;
                }
            }
        }
    }
}

}  // namespace stemplug
