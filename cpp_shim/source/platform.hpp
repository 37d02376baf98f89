// SPDX-License-Identifier: GPL-3.0-or-later
//
// What differs between operating systems. platform_linux.cpp is built and tested; platform_other.cpp lets the plugin be
// built elsewhere, where it passes its input through (untested).

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace stemplug {

struct SharedMemory {
    int fd;
    void* data;
    size_t size;
};

// Zeroed memory of a fixed size, which another process may map or read by its descriptor; `resident` makes its pages
// present, so that no first access is slow. Throws std::system_error.
SharedMemory createSharedMemory(size_t size, bool resident);
void freeSharedMemory(const SharedMemory& memory);

// The bundle's Contents/Resources, found from the address of this library.
std::filesystem::path resourceFolder();
// Where worker.sock lies: $STEMPLUG_RUNTIME_DIR, or $XDG_RUNTIME_DIR/stemplug, or /tmp/stemplug-UID.
std::filesystem::path runtimeFolder();

// Appends a line to plugin.log in the user's state folder; says nothing where it cannot.
void logLine(std::string_view instance, std::string_view text);

// Counts the forks between the first process that loaded this library and this one.
uint32_t forkCount();

// Starts `python -E -m stemplug.worker --detach` and waits until it has gone into the background, which takes some ten
// milliseconds. False where it cannot be started.
bool startWorker(const std::string& python);

// Lets a thread be woken that waits in Connection::receive or waitFor.
class Waker {
public:
    Waker();
    ~Waker();
    Waker(const Waker&) = delete;
    Waker& operator=(const Waker&) = delete;
    void wake();   // any thread; a system call
    void clear();  // the waiting thread
    int fd() const { return fd_; }
    // Returns early when woken.
    void waitFor(std::chrono::milliseconds time);

private:
    int fd_;
};

// A connection to the worker of the same user.
class Connection {
public:
    // Empty where nobody listens, or somebody else does.
    static std::optional<Connection> open(const std::filesystem::path& socket);
    Connection(Connection&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
    Connection& operator=(Connection&& other) noexcept;
    ~Connection();

    // Never waits; false where not all could be sent. `descriptor` goes along unless it is negative.
    bool send(std::string_view bytes, int descriptor = -1);
    // Waits for bytes and appends them to `buffer`. False where the worker is gone. Returns early when woken.
    bool receive(std::string& buffer, std::chrono::milliseconds time, Waker& waker);

private:
    explicit Connection(int fd) : fd_(fd) {}
    int fd_;
};

}  // namespace stemplug
