// SPDX-License-Identifier: GPL-3.0-or-later
//
// Creates, runs and destroys many instances: one after the other, at once, and from several threads.

#include <unistd.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <memory>
#include <thread>

#include "commands.hpp"
#include "session.hpp"

namespace host {

namespace {

// What this process holds.
struct Holdings {
    double megabytes = 0;
    long threads = 0, files = 0;
    Holdings() {
        std::ifstream status("/proc/self/status");
        for (std::string line; std::getline(status, line);) {
            if (line.rfind("VmRSS:", 0) == 0) megabytes = std::stod(line.substr(6)) / 1024;
            if (line.rfind("Threads:", 0) == 0) threads = std::stol(line.substr(8));
        }
        using Entries = std::filesystem::directory_iterator;
        files = std::distance(Entries("/proc/self/fd"), Entries{});
    }
    Json json() const { return Json()("rss_mb", megabytes)("threads", threads)("files", files); }
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kGrowth = 400;  // MB: what was freed is kept for a while
#else
constexpr double kGrowth = 8;
#endif

struct Job {
    int count, at_once, threads, blocks;
    double hold;
    Setup setup;
};

// One life; what is wrong with it.
std::vector<std::string> live(Module& module, const Job& job) {
    try {
        Plugin plugin(module);
        Session session(plugin, job.setup);
        if (job.setup.mode == kOffline) session.source = [](int64, int32) { return 0.0f; };
        for (int block = 0; block < job.blocks; ++block) session.process(job.setup.block);
        session.deactivate();
        return session.faults;
    } catch (const std::exception& error) {
        return {error.what()};
    }
}

// Lives in `threads` threads at once, `count` altogether.
void liveInThreads(Module& module, const Job& job, int count, Failures& failures) {
    std::vector<std::vector<std::string>> faults(static_cast<std::size_t>(job.threads));
    std::vector<std::thread> threads;
    for (auto& mine : faults)
        threads.emplace_back([&] {
            for (int i = 0; i < count / job.threads; ++i)
                for (auto& fault : live(module, job)) mine.push_back(std::move(fault));
        });
    for (auto& thread : threads) thread.join();
    for (const auto& all : faults)
        for (const auto& fault : all) failures.add("several threads: ", fault);
}

// Instances that are there together, each processed by one of the threads, in realtime as long as `hold` says.
void liveTogether(Module& module, const Job& job, Failures& failures, Json& json) {
    std::vector<std::unique_ptr<Plugin>> plugins;
    std::vector<std::unique_ptr<Session>> sessions;
    for (int i = 0; i < job.at_once; ++i) {
        plugins.push_back(std::make_unique<Plugin>(module));
        sessions.push_back(std::make_unique<Session>(*plugins.back(), job.setup));
    }
    std::vector<double> errors(sessions.size());
    std::vector<std::thread> threads;
    for (std::size_t first = 0; first < static_cast<std::size_t>(job.threads); ++first)
        threads.emplace_back([&, first] {
            auto next = std::chrono::steady_clock::now();
            const auto end = next + std::chrono::duration<double>(job.hold);
            const auto period = std::chrono::nanoseconds(std::llround(job.setup.block / job.setup.rate * 1e9));
            for (int block = 0; block < job.blocks || next < end; ++block, next += period) {
                if (job.hold > 0) std::this_thread::sleep_until(next);
                for (std::size_t i = first; i < sessions.size(); i += static_cast<std::size_t>(job.threads)) {
                    sessions[i]->process(job.setup.block);
                    const int64 latency = plugins[i]->processor->getLatencySamples();
                    errors[i] = std::max({errors[i], static_cast<double>(sessions[i]->mainError(latency)),
                                          static_cast<double>(sessions[i]->auxError(latency))});
                }
            }
        });
    for (auto& thread : threads) thread.join();
    for (const double error : errors)
        if (!(error <= 2e-6)) failures.add("at once: the output of an instance is off by ", error);
    json("at_once", Holdings().json());
    std::vector<std::string> states;
    for (const auto& plugin : plugins)
        states.push_back(plugin->display(900, plugin->controller->getParamNormalized(900)));
    json("status", states);
    for (const auto& session : sessions) {
        session->deactivate();
        for (const auto& fault : session->faults) failures.add("at once: ", fault);
    }
}

}  // namespace

int instances(Options& options) {
    const std::string path = options.next("PLUGIN");
    const auto integer = [&](const char* name, int otherwise) {
        return static_cast<int>(options.number(name, otherwise));
    };
    Job job{integer("count", 200), integer("at-once", 8),     integer("threads", 4),
            integer("blocks", 4),  options.number("hold", 0), {}};
    const std::string mode = options.take("mode", "realtime");
    if (mode != "realtime" && mode != "offline") throw std::invalid_argument("--mode realtime or offline");
    if (mode == "offline") job.setup.mode = kOffline;
    if (job.threads < 1) throw std::invalid_argument("--threads 1 or more");
    options.done();

    Failures failures;
    Json json;
    Module module(path);
    // What is made once only (threads have their stacks, the allocator its arenas) is made before counting.
    for (int i = 0; i < 10; ++i) live(module, job);
    liveInThreads(module, job, 4 * job.threads, failures);
    const Holdings before;
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < job.count; ++i)
        for (const auto& fault : live(module, job)) failures.add("instance ", i, ": ", fault);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    json("ms_each", took.count() / std::max(1, job.count));
    const Holdings after;
    liveInThreads(module, job, job.count, failures);
    liveTogether(module, job, failures, json);
    const Holdings end;
    for (const auto* now : {&after, &end}) {
        if (now->threads > before.threads) failures.add(now->threads - before.threads, " threads are left");
        if (now->files > before.files) failures.add(now->files - before.files, " files are left open");
    }
    if (after.megabytes > before.megabytes + kGrowth)
        failures.add("memory grew from ", before.megabytes, " to ", after.megabytes, " MB");
    return finish(json("before", before.json())("after", after.json())("end", end.json()), failures);
}

}  // namespace host
