// SPDX-License-Identifier: GPL-3.0-or-later
//
// The memory that one active instance shares with the worker: a header, a ring of input, a ring of stems.
// PROTOCOL.md describes it; tests/plugin/test_protocol.py and tests/protocol_test.cpp hold both sides to the same
// bytes.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace stemplug {

using Frame = int64_t;  // counted from activation

// What the host's transport said, noted where it changes: from `frame` on, host time is `host` + (n - frame).
struct Mark {
    int64_t frame;
    int64_t host;
    uint32_t flags;
    uint32_t reserved[3];

    static constexpr uint32_t kPlaying = 1, kCapture = 2;
};

// All fields but the first six are written by one side and read by the other, with release and acquire.
struct SegmentHeader {
    static constexpr uint32_t kMagic = 0x474C5053;  // "SPLG"
    static constexpr uint32_t kVersion = 1;
    static constexpr uint32_t kMarks = 64;

    uint32_t magic;
    uint32_t version;
    uint32_t channels;         // of the input: 1 or 2
    uint32_t rows;             // of the stems: estimated stems times channels
    uint64_t input_capacity;   // frames
    uint64_t output_capacity;  // frames
    uint8_t unused_1[32];

    std::atomic<int64_t> written;  // plugin: end of the input
    std::atomic<int64_t> read;     // plugin: stems before this frame are no longer needed
    std::atomic<uint64_t> marks;   // plugin: marks made so far
    std::atomic<int64_t> origin;   // plugin: where its count of windows begins; until `start` there was silence
    std::atomic<int64_t> start;    // plugin: first frame of the input; negative until it begins
    uint8_t unused_2[24];

    std::atomic<int64_t> from;        // worker: first frame that has stems
    std::atomic<int64_t> ready;       // worker: end of the stems
    std::atomic<int64_t> consumed;    // worker: end of the input that it has taken
    std::atomic<uint64_t> heartbeat;  // worker: counts up while it lives and gets on
    std::atomic<float> load;          // worker: share of real time that separation takes
    uint8_t unused_3[860];

    Mark mark[kMarks];  // a ring
    uint8_t unused_4[1024];
};
static_assert(sizeof(Mark) == 32 && sizeof(SegmentHeader) == 4096);
static_assert(offsetof(SegmentHeader, written) == 64 && offsetof(SegmentHeader, from) == 128);
static_assert(offsetof(SegmentHeader, mark) == 1024 && std::atomic<int64_t>::is_always_lock_free);

// One mapping of such memory. Made and freed by the helper thread; used by the audio thread, which only reads and
// writes it and makes no system call.
class Segment {
public:
    struct Shape {
        uint32_t channels, rows;
        Frame input_capacity, output_capacity;
    };
    // `resident` for the audio thread's sake; throws std::system_error.
    Segment(const Shape& shape, bool resident);
    ~Segment();
    Segment(const Segment&) = delete;
    Segment& operator=(const Segment&) = delete;

    int fd() const { return fd_; }
    const SegmentHeader& header() const { return *header_; }

    // Audio thread, once: the input begins at frame `start`, after silence from frame `origin` on.
    void begin(Frame origin, Frame start);
    // Audio thread. Frames of input that may be written now.
    Frame space() const;
    // Audio thread. Appends input, one pointer a channel; at most space() frames.
    void write(const float* const* channels, Frame frames);
    Frame written() const { return header_->written.load(std::memory_order_relaxed); }
    void addMark(const Mark& mark);

    // Audio thread. The stems that may be read are [from, ready).
    struct Range {
        Frame from, ready;
    };
    Range stems() const;
    // Copies frames [at, at + frames) of a row.
    void read(uint32_t row, Frame at, Frame frames, float* out) const;
    void release(Frame before) { header_->read.store(before, std::memory_order_release); }

    // Set by the helper thread when the worker is gone or talks nonsense, by the audio thread when it fell too far
    // behind.
    std::atomic<bool> alive{true};

private:
    int fd_ = -1;
    size_t size_ = 0;
    SegmentHeader* header_ = nullptr;
    float* input_ = nullptr;
    float* output_ = nullptr;
};

}  // namespace stemplug
