// SPDX-License-Identifier: GPL-3.0-or-later
//
// The helper thread of an active instance: starts the worker, connects, watches, connects again. The audio thread meets
// it in atomics only.

#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "catalogue.hpp"
#include "platform.hpp"
#include "segment.hpp"

namespace stemplug {

class Link {
public:
    struct Request {
        std::string python;
        Model model;
        Profile profile;
        double sample_rate;
        uint32_t channels;
        Frame latency;  // of the plugin, in frames
        bool offline;   // set up so by the host: connect when hear() is called, rather than after 300 ms
        std::string name;
    };

    explicit Link(Request request);
    // Ends the thread; takes as long as starting a worker at most.
    ~Link();
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;

    // Audio thread, no system call. The segment in use, or null; take() goes on to the newest where there is one.
    Segment* segment() const { return current_.load(std::memory_order_relaxed); }
    bool hasNew() const { return incoming_.load(std::memory_order_acquire) != nullptr; }
    Segment* take();
    // Whether the last try to reach the worker failed.
    bool failing() const { return failing_.load(std::memory_order_relaxed); }
    // Whether it cannot even be started.
    bool hopeless() const { return hopeless_.load(std::memory_order_relaxed); }

    // Audio thread: the host only renders, though it set the plugin up for real time (or looks at it so).
    void setOffline() { offline_.store(true, std::memory_order_relaxed); }

    // Audio thread, offline: system calls. hear() says that a worker is needed, nudge() tells it that somebody waits.
    void hear();
    void nudge();
    // Any thread: has a line written to the log.
    void complain() { complaint_.store(true, std::memory_order_relaxed); }

private:
    void run();
    bool serve();
    std::optional<Connection> reach();
    bool watch(Connection& connection, Segment& segment);
    // Waits for the next frame of the worker; throws ProtocolError where none comes.
    nlohmann::json expect(Connection& connection, const char* type, std::chrono::milliseconds limit);
    void freeUnused();
    bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

    const Request request_;
    const uint32_t forks_;
    Waker waker_;
    std::string received_;
    std::vector<std::unique_ptr<Segment>> segments_;
    std::atomic<Segment*> incoming_{nullptr}, current_{nullptr};
    std::atomic<bool> stopping_{false}, offline_, heard_{false}, nudged_{false}, failing_{false};
    std::atomic<bool> hopeless_{false}, complaint_{false};
    std::unique_ptr<std::thread> thread_;
};

}  // namespace stemplug
