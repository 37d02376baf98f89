// SPDX-License-Identifier: GPL-3.0-or-later
//
// Untested: lets the plugin be built where nothing else is written yet. It finds no worker and passes its input
// through. What another system needs is a shared memory whose descriptor can be handed over, a local socket that tells
// who is at its other end, and a process started without the host's files.

#include <atomic>
#include <system_error>
#include <thread>

#include "platform.hpp"

namespace stemplug {

SharedMemory createSharedMemory(size_t, bool) {
    throw std::system_error(std::make_error_code(std::errc::not_supported));
}
void freeSharedMemory(const SharedMemory&) {}
std::filesystem::path resourceFolder() {
    return {};
}
std::filesystem::path runtimeFolder() {
    return {};
}
void logLine(std::string_view, std::string_view) {}
uint32_t forkCount() {
    return 0;
}
bool startWorker(const std::string&) {
    return false;
}

Waker::Waker() : fd_(0) {}
Waker::~Waker() = default;
void Waker::wake() {
    std::atomic_ref<int>(fd_).store(1);
}
void Waker::clear() {
    std::atomic_ref<int>(fd_).store(0);
}
void Waker::waitFor(std::chrono::milliseconds time) {
    constexpr std::chrono::milliseconds kNap(10);
    for (auto slept = kNap; slept <= time && !std::atomic_ref<int>(fd_).load(); slept += kNap)
        std::this_thread::sleep_for(kNap);
    clear();
}

std::optional<Connection> Connection::open(const std::filesystem::path&) {
    return {};
}
Connection& Connection::operator=(Connection&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}
Connection::~Connection() = default;
bool Connection::send(std::string_view, int) {
    return false;
}
bool Connection::receive(std::string&, std::chrono::milliseconds, Waker&) {
    return false;
}

}  // namespace stemplug
