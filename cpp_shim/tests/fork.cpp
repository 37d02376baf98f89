// SPDX-License-Identifier: GPL-3.0-or-later
//
// The host process forks while the plugin runs, between two blocks. The child, which has none of the plugin's threads,
// goes on with it and ends by itself; the parent notices nothing.

#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "commands.hpp"
#include "session.hpp"

namespace host {

namespace {

using Clock = std::chrono::steady_clock;

// What a child may do with its copy of the plugin.
enum class Fate { kTearDown, kProcessAndTearDown, kProcessAndLeave, kLeave, kNewInstance };
constexpr const char* kFates[] = {"tears down", "processes and tears down", "processes and leaves", "leaves",
                                  "makes a new instance"};

[[noreturn]] void beChild(Fate fate, std::unique_ptr<Module>& module, std::unique_ptr<Plugin>& plugin,
                          std::unique_ptr<Session>& session, unsigned bound) {
    alarm(bound);
    session->faults.clear();
    if (fate == Fate::kProcessAndTearDown || fate == Fate::kProcessAndLeave)
        for (int block = 0; block < 100; ++block) session->process(session->setup.block);
    if (fate == Fate::kNewInstance) {
        Plugin another(*module);
        Session fresh(another);
        for (int block = 0; block < 50; ++block) fresh.process(fresh.setup.block);
    }
    const bool fine = session->faults.empty();
    if (fate != Fate::kLeave && fate != Fate::kProcessAndLeave) {
        session.reset();
        plugin.reset();
        module.reset();
    }
    std::exit(fine ? 0 : 3);
}

}  // namespace

int fork(Options& options) {
    const std::string path = options.next("PLUGIN");
    const auto bound = static_cast<unsigned>(options.number("bound", 10));
    const double run = options.number("run", 1.5);
    const Setup setup{.rate = options.number("rate", 48000), .block = static_cast<int32>(options.number("block", 512))};
    options.done();

    auto module = std::make_unique<Module>(path);
    auto plugin = std::make_unique<Plugin>(*module);
    auto session = std::make_unique<Session>(*plugin, setup);
    const int64 latency = plugin->processor->getLatencySamples();
    const auto period = std::chrono::nanoseconds(std::llround(setup.block / setup.rate * 1e9));
    Failures failures;
    std::vector<Json> children;
    auto next = Clock::now();
    float error = 0;
    const auto play = [&] {
        std::this_thread::sleep_until(next += period);
        session->process(setup.block);
        error = std::max({error, session->mainError(latency), session->auxError(latency)});
    };
    for (const Fate fate :
         {Fate::kTearDown, Fate::kProcessAndTearDown, Fate::kProcessAndLeave, Fate::kLeave, Fate::kNewInstance}) {
        const char* name = kFates[static_cast<int>(fate)];
        for (const auto end = next + std::chrono::duration<double>(run); next < end;) play();
        std::cout.flush();
        const auto begin = Clock::now();
        const pid_t child = ::fork();
        if (child < 0) throw std::runtime_error("fork failed");
        if (child == 0) beChild(fate, module, plugin, session, bound);
        int status = 0;
        while (waitpid(child, &status, WNOHANG) == 0) play();
        const std::chrono::duration<double> took = Clock::now() - begin;
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
            failures.add("a child that ", name, " hangs for more than ", bound, " s");
        else if (WIFSIGNALED(status))
            failures.add("a child that ", name, " crashes: ", strsignal(WTERMSIG(status)));
        else if (WEXITSTATUS(status) != 0)
            failures.add("a child that ", name, " ends with exit code ", WEXITSTATUS(status));
        children.push_back(Json()("child", name)("seconds", took.count()));
    }
    for (const auto end = next + std::chrono::duration<double>(run); next < end;) play();
    if (!(error <= 2e-6f)) failures.add("the output of the parent is off by ", error);
    session->deactivate();
    for (const auto& fault : session->faults) failures.add("the parent: ", fault);
    const auto status = plugin->display(900, plugin->controller->getParamNormalized(900));
    return finish(Json()("children", children)("parent_error", error)("status", status), failures);
}

}  // namespace host
