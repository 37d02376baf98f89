// SPDX-License-Identifier: GPL-3.0-or-later
#include "segment.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "platform.hpp"

namespace stemplug {

Segment::Segment(const Shape& shape, bool resident) {
    const auto& [channels, rows, input_capacity, output_capacity] = shape;
    size_ =
        sizeof(SegmentHeader) + sizeof(float) * static_cast<size_t>(channels * input_capacity + rows * output_capacity);
    const SharedMemory memory = createSharedMemory(size_, resident);
    fd_ = memory.fd;
    header_ = new (memory.data) SegmentHeader{};
    header_->magic = SegmentHeader::kMagic;
    header_->version = SegmentHeader::kVersion;
    header_->channels = channels;
    header_->rows = rows;
    header_->input_capacity = static_cast<uint64_t>(input_capacity);
    header_->output_capacity = static_cast<uint64_t>(output_capacity);
    header_->start = -1;
    input_ = reinterpret_cast<float*>(header_ + 1);
    output_ = input_ + channels * input_capacity;
}

Segment::~Segment() {
    freeSharedMemory({fd_, header_, size_});
}

void Segment::begin(Frame origin, Frame start) {
    for (auto* position : {&header_->written, &header_->read, &header_->consumed})
        position->store(start, std::memory_order_relaxed);
    header_->origin.store(origin, std::memory_order_relaxed);
    header_->start.store(start, std::memory_order_release);
}

Frame Segment::space() const {
    const Frame used = written() - header_->consumed.load(std::memory_order_acquire);
    const auto capacity = static_cast<Frame>(header_->input_capacity);
    return used < 0 ? 0 : std::max<Frame>(0, capacity - used);  // negative: a worker that lies
}

void Segment::write(const float* const* channels, Frame frames) {
    const auto capacity = static_cast<Frame>(header_->input_capacity);
    const Frame end = written(), at = end % capacity, first = std::min(frames, capacity - at);
    for (uint32_t channel = 0; channel < header_->channels; ++channel) {
        float* ring = input_ + channel * capacity;
        // The worker refuses what is not a number; one such sample must not cost the stems.
        const auto finite = [](float sample) { return std::isfinite(sample) ? sample : 0.0f; };
        std::transform(channels[channel], channels[channel] + first, ring + at, finite);
        std::transform(channels[channel] + first, channels[channel] + frames, ring, finite);
    }
    header_->written.store(end + frames, std::memory_order_release);
}

void Segment::addMark(const Mark& mark) {
    const uint64_t count = header_->marks.load(std::memory_order_relaxed);
    header_->mark[count % SegmentHeader::kMarks] = mark;
    header_->marks.store(count + 1, std::memory_order_release);
}

Segment::Range Segment::stems() const {
    // In this order: a worker that begins anew moves `from` first.
    const Frame ready = header_->ready.load(std::memory_order_acquire);
    const Frame from = header_->from.load(std::memory_order_acquire);
    return {from, std::min(ready, written())};
}

void Segment::read(uint32_t row, Frame at, Frame frames, float* out) const {
    const auto capacity = static_cast<Frame>(header_->output_capacity);
    const float* ring = output_ + row * capacity;
    const Frame start = ((at % capacity) + capacity) % capacity, first = std::min(frames, capacity - start);
    const auto sane = [](float sample) { return std::fabs(sample) < 1e6f ? sample : 0.0f; };  // false for NaN as well
    std::transform(ring + start, ring + start + first, out, sane);
    std::transform(ring, ring + (frames - first), out + first, sane);
}

}  // namespace stemplug
