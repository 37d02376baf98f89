// SPDX-License-Identifier: GPL-3.0-or-later
//
// Processes audio as a realtime or an offline host does: blocks come from a thread of their own, at their time, while
// the main thread looks at the parameters.

#include <sched.h>
#include <sys/mman.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <thread>

#include "commands.hpp"
#include "rtcheck.hpp"
#include "session.hpp"

namespace host {

namespace {

constexpr ParamID kStatus = 900, kWorkerLoad = 901;
using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point since) {
    return std::chrono::duration<double, std::milli>(Clock::now() - since).count();
}

int32 modeOf(const std::string& name) {
    if (name == "realtime") return kRealtime;
    if (name == "prefetch") return kPrefetch;
    if (name == "offline") return kOffline;
    throw std::invalid_argument("no such mode: " + name);
}

std::string readFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

void writeFile(const std::filesystem::path& path, const void* bytes, std::size_t size) {
    std::ofstream file(path, std::ios::binary);
    if (!file.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(size)).flush())
        throw std::runtime_error("cannot write " + path.string());
}

struct SetPoint {
    ParamID id;
    ParamValue value;
    int64 frame;                                         // negative: before activation
    static SetPoint parse(const std::string& written) {  // ID=VALUE[@FRAME]
        const auto equals = written.find('='), at = written.find('@');
        if (equals == std::string::npos) throw std::invalid_argument("--set " + written);
        return {static_cast<ParamID>(std::stoul(written)), std::stod(written.substr(equals + 1)),
                at == std::string::npos ? -1 : std::stoll(written.substr(at + 1))};
    }
};

struct Job {
    explicit Job(Options& options);

    std::vector<float> input;  // interleaved; empty: noise
    std::vector<int32> blocks;
    std::vector<SetPoint> points;
    std::string state_in, state_out, out;
    Setup setup;
    int32 block_mode;
    int64 position;
    double seconds, warm;
    bool paced, rtcheck, stopped, also_controller, warm_with_input;
};

Job::Job(Options& options) {
    setup.rate = options.number("rate", 48000);
    setup.channels = static_cast<int32>(options.number("channels", 2));
    std::istringstream list(options.take("block", "512"));
    for (std::string size; std::getline(list, size, ',');) blocks.push_back(std::stoi(size));
    if (blocks.empty() || *std::min_element(blocks.begin(), blocks.end()) < 1)
        throw std::invalid_argument("--block needs sizes of 1 and more");
    setup.capacity = *std::max_element(blocks.begin(), blocks.end());
    setup.block = static_cast<int32>(options.number("max-block", setup.capacity));
    const std::string mode = options.take("mode", "realtime");
    setup.mode = modeOf(options.take("activate-only-as", mode));
    block_mode = modeOf(options.take("blocks-say", mode));
    const std::string pace = options.take("pace", "none"), layout = options.take("layout", "interleaved");
    paced = pace == "realtime";
    if (!paced && pace != "none") throw std::invalid_argument("--pace realtime or none");
    warm = options.number("warm", 0);
    warm_with_input = options.take("warm-with", "silence") == "input";
    seconds = options.number("seconds", -1);
    position = static_cast<int64>(options.number("position", 0));
    for (const auto& written : options.all("set")) points.push_back(SetPoint::parse(written));
    std::stable_sort(points.begin(), points.end(), [](auto& a, auto& b) { return a.frame < b.frame; });
    state_in = options.take("state-in");
    state_out = options.take("state-out");
    out = options.take("out");
    rtcheck = options.flag("rtcheck");
    stopped = options.flag("stopped");
    also_controller = options.flag("also-controller");
    if (const auto path = options.take("input"); !path.empty()) {
        const std::string bytes = readFile(path);
        input.resize(bytes.size() / sizeof(float));
        std::copy_n(bytes.data(), input.size() * sizeof(float), reinterpret_cast<char*>(input.data()));
        if (layout == "planar") {
            const std::vector<float> planar = input;
            const auto channels = static_cast<std::size_t>(setup.channels), frames = planar.size() / channels;
            for (std::size_t i = 0; i < frames * channels; ++i) input[i] = planar[i % channels * frames + i / channels];
        } else if (layout != "interleaved") {
            throw std::invalid_argument("--layout interleaved or planar");
        }
    } else if (seconds < 0) {
        throw std::invalid_argument("--input or --seconds is needed");
    }
}

class Performance {
public:
    Performance(const Job& job, Plugin& plugin, Session& session);

    void playAudio();        // the audio thread
    void watchParameters();  // the main thread, until the other one is done
    Json report(Failures& failures) const;

    std::atomic<bool> done = false;

private:
    struct Change {
        int64 frame;
        ParamID id;
        ParamValue value;
    };
    void play(int32 frames, Clock::time_point deadline);
    void playWarm(Clock::time_point& deadline);
    void collect(int32 frames);
    bool pause(Clock::time_point until) const;
    std::vector<Json> written(const std::vector<Change>& all, ParamID id) const;

    const Job& job;
    Plugin& plugin;
    Session& session;
    int64 total = 0;
    std::vector<std::vector<float>> recorded;  // by bus, interleaved
    std::vector<float> times;                  // of process(), in microseconds
    std::vector<Change> reported, seen;
    std::map<ParamID, ParamValue> last_reported, last_seen;
    std::vector<std::string> bus_names;
    std::atomic<int64> played = -1;  // frames of the measured part; negative before
    std::atomic<bool> ready = false;
    double warmed = 0;
    int64 over_period = 0, late = 0, slept_late = 0;
    float main_error = 0, aux_error = 0;
    bool fifo = false;
    rtcheck::Means means;
    uint32 latency = 0;
};

Performance::Performance(const Job& job, Plugin& plugin, Session& session)
    : job(job), plugin(plugin), session(session), latency(plugin.processor->getLatencySamples()) {
    const auto channels = static_cast<std::size_t>(job.setup.channels);
    const auto input_frames = static_cast<int64>(job.input.size() / channels);
    total = job.seconds >= 0 ? std::llround(job.seconds * job.setup.rate) : input_frames + latency;
    if (!job.input.empty())
        session.source = [&job, channels, input_frames](int64 frame, int32 channel) {
            if (frame < 0 || frame >= input_frames) return 0.0f;
            return job.input[static_cast<std::size_t>(frame) * channels + static_cast<std::size_t>(channel)];
        };
    for (const Bus& bus : plugin.buses(kOutput)) {
        bus_names.push_back(bus.name);
        if (!job.out.empty()) recorded.emplace_back(static_cast<std::size_t>(total) * channels);
    }
    const auto smallest = *std::min_element(job.blocks.begin(), job.blocks.end());
    times.reserve(static_cast<std::size_t>(total / smallest + 1));
    reported.reserve(1 << 16);
    session.watched = job.rtcheck;
}

// Returns whether the time was still to come.
bool Performance::pause(Clock::time_point until) const {
    if (Clock::now() >= until) return false;
    const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(until.time_since_epoch()).count();
    const timespec time{since / 1000000000, since % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr) != 0) {
    }
    return true;
}

void Performance::play(int32 frames, Clock::time_point deadline) {
    const auto& points = job.points;
    session.prepare(frames);
    session.data.processMode = job.block_mode;
    session.context.projectTimeSamples = job.position;
    session.context.state = ProcessContext::kTempoValid;
    if (played >= 0) {
        session.context.projectTimeSamples += session.position;
        if (!job.stopped) session.context.state |= ProcessContext::kPlaying;
        const auto after = [](int64 frame, const SetPoint& point) { return frame < point.frame; };
        auto point = std::upper_bound(points.begin(), points.end(), std::max<int64>(session.position - 1, -1), after);
        for (; point != points.end() && point->frame < session.position + frames; ++point)
            session.changes.add(point->id, static_cast<int32>(point->frame - session.position), point->value);
    }
    session.run();
    if (played >= 0) {
        times.push_back(static_cast<float>(session.seconds * 1e6));
        over_period += session.seconds > frames / job.setup.rate;
        late += job.paced && Clock::now() > deadline;
    }
    session.verify();
    for (const Queue& queue : session.reported) {
        const ParamValue value = queue.points.empty() ? 0 : queue.points.back().value;
        const auto [at, is_new] = last_reported.emplace(queue.id, value);
        if ((is_new || at->second != value) && reported.size() < reported.capacity())
            reported.push_back({played < 0 ? -1 : session.position - frames, queue.id, value});
        at->second = value;
    }
}

// In realtime whatever the pace: this is what a host does before the user presses play.
void Performance::playWarm(Clock::time_point& deadline) {
    const auto begin = Clock::now();
    const auto source = session.source;
    if (!job.warm_with_input) session.source = [](int64, int32) { return 0.0f; };
    while (!ready && milliseconds(begin) < job.warm * 1000) {
        pause(deadline);
        deadline += std::chrono::nanoseconds(std::llround(job.blocks[0] / job.setup.rate * 1e9));
        play(job.blocks[0], deadline);
    }
    warmed = milliseconds(begin) / 1000;
    if (!job.warm_with_input) {  // what was put in is silence, so that the nulls below need no history
        session.position = 0;
    } else {
        const int64 offset = session.position;
        session.position = 0;
        session.source = [source, offset](int64 frame, int32 channel) {
            return source(frame < 0 ? frame + offset : frame, channel);
        };
        return;
    }
    session.source = source;
}

void Performance::collect(int32 frames) {
    const auto channels = static_cast<std::size_t>(job.setup.channels);
    const auto begin = static_cast<std::size_t>(session.position - frames);
    for (std::size_t bus = 0; bus < recorded.size(); ++bus)
        for (std::size_t c = 0; c < channels; ++c)
            for (std::size_t i = 0; i < static_cast<std::size_t>(frames); ++i)
                recorded[bus][(begin + i) * channels + c] = session.output(bus, c)[i];
    main_error = std::max(main_error, session.mainError(latency));
    aux_error = std::max(aux_error, session.auxError(latency));
}

void Performance::playAudio() {
    if (job.paced) {
        const sched_param priority{.sched_priority = 70};
        fifo = pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority) == 0;
    }
    if (job.rtcheck) means = rtcheck::prepareThread();
    auto deadline = Clock::now();
    if (job.warm > 0) playWarm(deadline);
    played = 0;
    std::cerr << "running" << std::endl;
    deadline = Clock::now();
    for (std::size_t block = 0; played < total; ++block) {
        const auto frames = static_cast<int32>(std::min<int64>(job.blocks[block % job.blocks.size()], total - played));
        if (job.paced) {
            slept_late += !pause(deadline);
            deadline += std::chrono::nanoseconds(std::llround(frames / job.setup.rate * 1e9));
        }
        play(frames, deadline);
        collect(frames);
        played = session.position;
    }
    done = true;
}

void Performance::watchParameters() {
    auto touched = job.points.begin();
    while (touched != job.points.end() && touched->frame < 0) ++touched;
    bool last = false;
    while (!last) {
        last = done;
        for (const ParamID id : {kStatus, kWorkerLoad}) {
            const int64 frame = played;
            const ParamValue value = plugin.controller->getParamNormalized(id);
            const auto [at, is_new] = last_seen.emplace(id, value);
            if (is_new || at->second != value) seen.push_back({frame, id, value});
            at->second = value;
        }
        ready = ready || plugin.display(kStatus, last_seen[kStatus]) == "ready";
        for (; job.also_controller && touched != job.points.end() && touched->frame < played; ++touched)
            plugin.controller->setParamNormalized(touched->id, touched->value);
        plugin.processor->getLatencySamples();
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
}

std::vector<Json> Performance::written(const std::vector<Change>& all, ParamID id) const {
    std::vector<Json> list;
    for (const Change& change : all)
        if (change.id == id) list.push_back(Json()("frame", change.frame)("value", plugin.display(id, change.value)));
    return list;
}

Json Performance::report(Failures& failures) const {
    auto sorted = times;
    std::sort(sorted.begin(), sorted.end());
    const auto at = [&](double part) {
        return sorted.empty() ? 0 : sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
    };
    const auto latency_after = plugin.processor->getLatencySamples();
    if (latency_after != latency) failures.add("the latency became ", latency_after, " while active");
    for (const auto& fault : session.faults) failures.add(fault);
    Json json;
    json("latency", latency)("tail", plugin.processor->getTailSamples())("frames", total)("blocks", times.size());
    json("process_us", Json()("median", at(0.5))("p99", at(0.99))("longest", at(1)));
    json("over_period", over_period)("late", late)("woken_late", slept_late)("fifo", fifo)("warmed_s", warmed);
    json("ready", ready.load())("main_error", main_error)("aux_error", aux_error);
    json("status", written(reported, kStatus))("status_seen", written(seen, kStatus));
    json("load", written(reported, kWorkerLoad))("load_seen", written(seen, kWorkerLoad));
    std::vector<Json> restarts;
    for (const auto& restart : plugin.handler.restarts())
        restarts.push_back(Json()("flags", restart.flags)("main_thread", restart.on_main_thread));
    json("restarts", restarts);
    if (job.rtcheck) {
        std::vector<Json> violations;
        for (const auto& finding : rtcheck::findings()) {
            failures.add("in process(): ", finding.what, ", ", finding.count, " times");
            violations.push_back(Json()("what", finding.what)("count", finding.count)("backtrace", finding.backtrace));
        }
        json("rtcheck", Json()("interposer", means.interposer)("dispatch", means.dispatch)("violations", violations));
    }
    if (!job.out.empty()) std::filesystem::create_directories(job.out);
    for (std::size_t bus = 0; bus < recorded.size(); ++bus)
        writeFile(std::filesystem::path(job.out) / (bus_names[bus] + ".f32"), recorded[bus].data(),
                  recorded[bus].size() * sizeof(float));
    return json;
}

}  // namespace

int render(Options& options) {
    const std::string path = options.next("PLUGIN");
    const Job job(options);
    options.done();

    Failures failures;
    Json json, took;  // in milliseconds
    auto since = Clock::now();
    const auto lap = [&](const char* what) {
        took(what, milliseconds(since));
        since = Clock::now();
    };
    auto module = std::make_unique<Module>(path);
    lap("load");
    auto plugin = std::make_unique<Plugin>(*module);
    lap("create");
    if (!job.state_in.empty() && plugin->restore(readFile(job.state_in)) != kResultOk)
        failures.add("the state is refused");
    for (const SetPoint& point : job.points)
        if (point.frame < 0 && plugin->controller->setParamNormalized(point.id, point.value) != kResultOk)
            failures.add("setParamNormalized(", point.id, ") failed");
    if (mlockall(MCL_CURRENT) != 0) took("unlocked_memory", 1);  // best effort
    since = Clock::now();
    auto session = std::make_unique<Session>(*plugin, job.setup);
    lap("activate");
    {
        Performance performance(job, *plugin, *session);
        since = Clock::now();
        std::thread audio([&] { performance.playAudio(); });
        performance.watchParameters();
        audio.join();
        lap("play");
        json = performance.report(failures);
        since = Clock::now();
    }
    if (!job.state_out.empty()) {
        const std::string state = plugin->state();
        writeFile(job.state_out, state.data(), state.size());
    }
    since = Clock::now();
    session->deactivate();
    for (const auto& fault : session->faults)
        if (fault.rfind("setActive", 0) == 0) failures.add(fault);
    session.reset();
    lap("deactivate");
    plugin.reset();
    lap("destroy");
    module.reset();
    lap("unload");
    return finish(json("took_ms", took), failures);
}

}  // namespace host
