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

constexpr auto kPatience = 10s;                     // without progress
constexpr auto kNap = 100us, kLongestNap = 2000us;  // many naps cost the worker its processor
constexpr double kLookSeconds = 0.25;               // of sound offline, from when on a worker is started
constexpr double kSettleSeconds = 0.3;              // in real time, until stems are taken
constexpr double kLateSeconds = 1.0;                // that the first stems of a stream may take
constexpr double kHoldSeconds = 0.5;                // for which the status tells of stems that were late
constexpr double kStallSeconds = 2.0;               // that the worker may be behind before it has to begin anew

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
               !setup_.offline) {
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
    if (offline && link_) link_->setOffline();
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
        const float* input = chunk.inputs[channel] ? chunk.inputs[channel] : silence_.data();
        history_.write(now_, channel, input, chunk.frames);
        if (sound_ < 0 && !isSilent(input, chunk.frames)) sound_ = now_;
    }
    // A host that only looks at a plugin may send it a few blocks of noise.
    const bool lasting = sound_ >= 0 && now_ - sound_ > static_cast<Frame>(kLookSeconds * setup_.sample_rate);
    if (lasting && waiting_ && link_ && !forked()) link_->hear();
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
    begun_ = now_;
    late_ = -1;
    was_ready_ = false;
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
    link_->hear();
    auto limit = Clock::now() + kPatience;
    const Segment* last = nullptr;
    uint64_t beat = 0;
    bool nudged = false;
    for (auto nap = kNap;; nap = std::min(2 * nap, kLongestNap), std::this_thread::sleep_for(nap)) {
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
    // A stream begins with what the history holds, all at once: its first windows are late.
    const bool settled = waiting_ || now_ - begun_ > static_cast<Frame>(kSettleSeconds * setup_.sample_rate);
    const bool wanted = current && settled && from <= std::max<Frame>(at, 0) && ready >= at + frames + margin_;
    fade_out_ = wanted ? at + frames : from <= at ? std::max(at, ready - fade_) : at;
    fade_out_frames_ = std::clamp<Frame>(ready - fade_out_, 1, fade_);
    if (wanted) wet_.aim(1, fade_);
    const bool silent = sound_ < 0 || at + frames + fade_ <= sound_;
    if (silent) wet_.jump(wanted ? 1.0f : 0.0f);  // nothing sounds: no fade is needed
    judge(wanted);
}

void Engine::judge(bool wanted) {
    const Segment* current = segment();
    const bool alive = current && current->alive;
    const auto frames = [this](double seconds) { return static_cast<Frame>(seconds * setup_.sample_rate); };
    if (wanted)
        was_ready_ = true;
    else if (alive && (was_ready_ || now_ - begun_ > latency_ + frames(kLateSeconds)))
        late_ = now_;
    if (late_ >= 0 && alive && now_ - late_ <= frames(kHoldSeconds))
        status_ = Status::kOverloaded;
    else if (wanted)
        status_ = Status::kReady;
    else if (!link_ || forked() || link_->failing() || gave_up_)
        status_ = Status::kDry;
    else
        status_ = Status::kStarting;
}

void Engine::mix(Chunk& chunk, Frame at) {
    const Frame frames = chunk.frames;
    readStems(at, frames);
    fillRamps(at, frames);
    for (size_t channel = 0; channel < setup_.channels; ++channel) mixChannel(chunk, channel);
}

// The delayed input and the stems of [at, at + frames); what is before frame 0 is silent.
void Engine::readStems(Frame at, Frame frames) {
    for (size_t channel = 0; channel < setup_.channels; ++channel)
        history_.read(at, channel, frames, dry_[channel].data());
    Segment* current = segment();
    const bool wanted = current && (wet_.value() > 0 || fade_out_ == at + frames);
    const Frame before = wanted ? std::clamp<Frame>(-at, 0, frames) : frames;
    for (size_t row = 0; row < rows_.size(); ++row) {
        std::fill_n(rows_[row].data(), before, 0.0f);
        if (before < frames)
            current->read(static_cast<uint32_t>(row), at + before, frames - before, rows_[row].data() + before);
    }
    if (current) current->release(at + frames);
}

void Engine::fillRamps(Frame at, Frame frames) {
    const Frame until = std::clamp<Frame>(fade_out_ - at, 0, frames);
    wet_.fill(wet_now_.data(), until);
    if (until < frames) wet_.aim(0, fade_out_frames_);
    wet_.fill(wet_now_.data() + until, frames - until);
    bypass_.fill(bypass_now_.data(), frames);
    output_.fill(output_now_.data(), frames);
    for (size_t stem = 0; stem < kStems; ++stem) {
        gain_[stem].fill(gain_now_[stem].data(), frames);
        heard_[stem].fill(heard_now_[stem].data(), frames);
    }
    for (size_t i = 0; i < static_cast<size_t>(frames); ++i) {  // bypassed: dry, at the gain of the input
        wet_now_[i] *= 1 - bypass_now_[i];
        output_now_[i] = bypass_now_[i] + (1 - bypass_now_[i]) * output_now_[i];
    }
}

// Loops over frames inside, so that they become vector instructions.
void Engine::mixChannel(Chunk& chunk, size_t channel) {
    const auto frames = static_cast<size_t>(chunk.frames);
    const Samples& dry = dry_[channel];
    std::array<bool, kStems> sounds{};
    const auto add = [&](size_t stem, const Samples& samples) {
        if (sounds[stem])
            for (size_t i = 0; i < frames; ++i) stem_[stem][i] += samples[i];
        else
            std::copy_n(samples.data(), frames, stem_[stem].data());
        sounds[stem] = true;
    };
    std::copy_n(dry.data(), frames, rest_.data());
    for (size_t row = 0; row * setup_.channels < rows_.size(); ++row) {
        const Samples& samples = rows_[row * setup_.channels + channel];
        add(setup_.model->rows[row], samples);
        for (size_t i = 0; i < frames; ++i) rest_[i] -= samples[i];
    }
    add(setup_.model ? setup_.model->residual : kOther, rest_);

    const auto wanted = [&](size_t bus) { return chunk.outputs[bus][channel] || chunk.outputs[bus][kChannels - 1]; };
    const auto put = [&](size_t bus, const Samples& samples) {
        const bool silent = isSilent(samples.data(), chunk.frames);
        for (size_t c = channel; c < kChannels; c += setup_.channels) {  // one channel goes to both
            if (float* out = chunk.outputs[bus][c]) std::copy_n(samples.data(), frames, out);
            chunk.sounds[bus][c] |= !silent;
        }
    };
    std::fill_n(sum_.data(), frames, 0.0f);
    for (size_t stem = 0; stem < kStems; ++stem) {
        if (!sounds[stem] && stem != kOther) {
            if (wanted(1 + stem)) put(1 + stem, silence_);
            continue;
        }
        const Samples &gain = gain_now_[stem], &heard = heard_now_[stem];
        if (!sounds[stem]) stem_[stem] = silence_;
        for (size_t i = 0; i < frames; ++i) stem_[stem][i] *= gain[i];
        for (size_t i = 0; i < frames; ++i) sum_[i] += heard[i] * stem_[stem][i];
        if (!wanted(1 + stem)) continue;
        for (size_t i = 0; i < frames; ++i) bus_[i] = wet_now_[i] * stem_[stem][i];
        if (stem == kOther)  // dry, in fallback
            for (size_t i = 0; i < frames; ++i)
                bus_[i] += (1 - wet_now_[i]) * (bypass_now_[i] + (1 - bypass_now_[i]) * gain[i]) * dry[i];
        put(1 + stem, bus_);
    }
    for (size_t i = 0; i < frames; ++i) bus_[i] = output_now_[i] * (wet_now_[i] * sum_[i] + (1 - wet_now_[i]) * dry[i]);
    put(0, bus_);
}

}  // namespace stemplug
