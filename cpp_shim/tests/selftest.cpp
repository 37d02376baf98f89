// SPDX-License-Identifier: GPL-3.0-or-later
//
// Shows that rtcheck notices what it is there for, and nothing where there is nothing.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <thread>

#include "commands.hpp"
#include "rtcheck.hpp"

namespace host {

namespace {

long rawGetppid() {
    long result = SYS_getppid;
#ifdef __x86_64__
    asm volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
#endif
    return result;
}

std::vector<std::string> watched(const std::function<void()>& action) {
    rtcheck::clear();
    rtcheck::enter();
    action();
    rtcheck::leave();
    std::vector<std::string> names;
    for (const auto& finding : rtcheck::findings()) names.push_back(finding.what);
    return names;
}

}  // namespace

int selftest(Options& options) {
    options.done();
    const auto means = rtcheck::prepareThread();
    Failures failures;
    const auto expect = [&](const char* what, bool possible, const char* name, const std::function<void()>& action) {
        const auto names = watched(action);
        const bool seen = std::find(names.begin(), names.end(), name) != names.end();
        if (possible && !seen) failures.add(what, " was not noticed");
    };

    static volatile long sink = 0;
    static void* volatile memory = nullptr;
    std::mutex mutex;
    const std::string getppid_name = "system call " + std::to_string(SYS_getppid);
    expect("malloc", means.interposer, "malloc", [] { memory = std::malloc(100); });
    expect("free", means.interposer, "free", [] { std::free(memory); });
    expect("operator new", means.interposer, "malloc", [] { delete new std::string(100, 'x'); });
    expect("a lock", means.interposer, "pthread_mutex_lock", [&] { const std::lock_guard lock(mutex); });
    expect("write", means.interposer, "write", [] { sink = write(-1, "", 0); });
    expect("a thread", means.interposer, "pthread_create", [] { std::thread([] {}).join(); });
    expect("getppid()", means.dispatch, getppid_name.c_str(), [] { sink = getppid(); });
    expect("a raw system call", means.dispatch, getppid_name.c_str(), [] { sink = rawGetppid(); });
    if (means.dispatch && sink != getppid()) failures.add("a dispatched system call had another result");
    const auto names = watched([] { sink = std::chrono::steady_clock::now().time_since_epoch().count(); });
    if (!names.empty()) failures.add("found where there is nothing: ", names.front());
    memory = std::malloc(100);
    std::free(memory);
    if (rawGetppid(); !rtcheck::findings().empty()) failures.add("found outside of enter() and leave()");

    return finish(Json()("interposer", means.interposer)("dispatch", means.dispatch), failures);
}

}  // namespace host
