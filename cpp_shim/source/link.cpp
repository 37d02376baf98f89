// SPDX-License-Identifier: GPL-3.0-or-later
#include "link.hpp"

#include <algorithm>

#include "protocol.hpp"

namespace stemplug {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kSettled = 300ms;  // a host that only looks at a plugin is done by then
constexpr auto kReach = 5s;       // a worker that starts answers within
constexpr auto kGreeting = 2s;
constexpr auto kLoading = 30s;  // of a model
constexpr auto kTick = 50ms;
constexpr auto kHung = 3s;  // without a heartbeat
constexpr auto kFirstPause = 200ms, kLongestPause = 2000ms;

constexpr double kQueueSeconds = 2.5;  // that input and stems may queue, so that offline memory stays small and warm
constexpr Frame kSlack = 1 << 16;

// Whatever ends a connection, its segment is dead.
struct Abandon {
    Segment& segment;
    ~Abandon() { segment.alive = false; }
};

}  // namespace

Link::Link(Request request) : request_(std::move(request)), forks_(forkCount()), offline_(request_.offline) {
    thread_ = std::make_unique<std::thread>([this] { run(); });  // last: it uses all of the above
}

Link::~Link() {
    stopping_ = true;
    if (forks_ != forkCount()) {  // the thread lives in the parent only
        (void)thread_.release();
        return;
    }
    waker_.wake();
    thread_->join();
}

Segment* Link::take() {
    Segment* next = incoming_.load();
    if (!next) return segment();
    // In this order the helper, which frees what is in neither place, never finds it in none.
    current_.store(next);
    incoming_.store(nullptr);
    return next;
}

void Link::hear() {
    if (!heard_.exchange(true)) waker_.wake();
}

void Link::nudge() {
    if (!nudged_.exchange(true)) waker_.wake();
}

void Link::run() {
    if (!offline_ && !heard_) waker_.waitFor(kSettled);
    while (offline_ && !heard_ && !stopping()) waker_.waitFor(1h);
    for (auto pause = kFirstPause; !stopping();) {
        bool served = false;
        try {
            served = serve();
        } catch (const std::exception& error) {
            if (!stopping()) logLine(request_.name, error.what());
        }
        if (stopping()) return;
        failing_ = true;
        if (complaint_.exchange(false)) logLine(request_.name, "no stems for 10 s; dry until the worker is back");
        pause = served ? kFirstPause : std::min(2 * pause, kLongestPause);
        waker_.waitFor(pause);
        freeUnused();
    }
}

std::optional<Connection> Link::reach() {
    const auto socket = runtimeFolder() / "worker.sock";
    if (auto connection = Connection::open(socket)) return connection;
    hopeless_ = !startWorker(request_.python);
    if (hopeless_) throw ProtocolError("the worker cannot be started with '" + request_.python + "'");
    for (const auto limit = Clock::now() + kReach; Clock::now() < limit && !stopping();) {
        if (auto connection = Connection::open(socket)) return connection;
        waker_.waitFor(kTick);
    }
    return {};
}

nlohmann::json Link::expect(Connection& connection, const char* type, std::chrono::milliseconds limit) {
    for (const auto end = Clock::now() + limit; Clock::now() < end && !stopping();) {
        if (auto message = takeFrame(received_)) {
            const std::string got = message->value("type", "");
            if (got == type) return *message;
            if (got == "error") throw ProtocolError("the worker refuses: " + message->value("message", ""));
        } else if (!connection.receive(received_, kTick, waker_)) {
            throw ProtocolError("the worker hung up");
        }
    }
    throw ProtocolError(std::string("the worker did not answer; expected ") + type);
}

// True where stems were served for a while.
bool Link::serve() {
    received_.clear();
    auto connection = reach();
    if (!connection) throw ProtocolError("nobody answers in " + runtimeFolder().string());
    connection->send(encodeFrame({{"type", "hello"}, {"protocol", kProtocol}, {"client", "plugin"}}));
    const auto hello = expect(*connection, "hello", kGreeting);
    if (hello.value("protocol", 0) != kProtocol) throw ProtocolError("the worker is of another version");

    const auto channels = request_.channels;
    const auto queue = static_cast<Frame>(kQueueSeconds * request_.sample_rate);
    const Segment::Shape shape{channels, static_cast<uint32_t>(request_.model.rows.size()) * channels, queue + kSlack,
                               std::min(queue, request_.latency) + kSlack};
    const bool live = request_.profile != Profile::kOffline;
    segments_.push_back(std::make_unique<Segment>(shape, !request_.offline));
    Segment& segment = *segments_.back();
    const nlohmann::json open{
        {"type", "open"},
        {"model", request_.model.name},
        {"sha256", request_.model.sha256},
        {"profile", live ? "live" : "offline"},
        {"latency", live ? nlohmann::json(kLatencyNames[static_cast<size_t>(request_.profile)]) : nullptr},
        {"sample_rate", request_.sample_rate},
        {"channels", channels},
        {"rows", shape.rows},
        {"latency_frames", request_.latency},
        {"input_capacity", shape.input_capacity},
        {"output_capacity", shape.output_capacity},
        {"name", request_.name},
    };
    const Abandon abandon{segment};
    if (!connection->send(encodeFrame(open), segment.fd())) throw ProtocolError("the worker hung up");
    expect(*connection, "opened", kLoading);
    while (incoming_.load() && !stopping()) waker_.waitFor(kTick);  // never replaced: see take()
    incoming_ = &segment;
    failing_ = false;
    return watch(*connection, segment);
}

bool Link::watch(Connection& connection, Segment& segment) {
    uint64_t last = 0;
    auto beat = Clock::now();
    while (!stopping() && segment.alive) {
        if (nudged_.exchange(false) && !connection.send(encodeFrame({{"type", "wake"}}))) return last > 0;
        if (!connection.receive(received_, kTick, waker_)) return last > 0;
        while (const auto message = takeFrame(received_)) {
            if (message->value("type", "") == "error")
                throw ProtocolError("the worker gives up: " + message->value("message", ""));
        }
        const uint64_t now = segment.header().heartbeat.load(std::memory_order_relaxed);
        if (now != last) {
            last = now;
            beat = Clock::now();
        } else if (Clock::now() - beat > kHung) {
            throw ProtocolError("the worker hangs");
        }
        freeUnused();
    }
    return last > 0;
}

void Link::freeUnused() {
    std::erase_if(segments_, [this](const auto& segment) {
        return !segment->alive && segment.get() != incoming_.load() && segment.get() != current_.load();
    });
}

}  // namespace stemplug
