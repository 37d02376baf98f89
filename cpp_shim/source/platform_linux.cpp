// SPDX-License-Identifier: GPL-3.0-or-later
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <system_error>
#include <vector>

#include "platform.hpp"

extern char** environ;

namespace stemplug {
namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

constexpr uintmax_t kLogBytes = 1 << 20;

std::atomic<uint32_t> g_forks{0};
[[maybe_unused]] const int g_registered = pthread_atfork(nullptr, nullptr, [] { ++g_forks; });

// Python's own variables are the host's business, and libraries that a host preloads or prefers may not fit Python.
bool isKeptForWorker(std::string_view entry) {
    return !entry.starts_with("PYTHON") && !entry.starts_with("LD_");
}

}  // namespace

SharedMemory createSharedMemory(size_t size, bool resident) {
    const int fd = memfd_create("stemplug", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) fail("memfd_create");
    if (ftruncate(fd, static_cast<off_t>(size)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        close(fd);
        fail("memfd");
    }
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | (resident ? MAP_POPULATE : 0), fd, 0);
    if (data == MAP_FAILED) {
        close(fd);
        fail("mmap");
    }
    return {fd, data, size};
}

void freeSharedMemory(const SharedMemory& memory) {
    munmap(memory.data, memory.size);
    close(memory.fd);
}

std::filesystem::path resourceFolder() {
    Dl_info info{};
    if (!dladdr(reinterpret_cast<const void*>(&resourceFolder), &info) || !info.dli_fname) return {};
    std::error_code error;  // Contents/x86_64-linux/StemPlug.so
    const auto library = std::filesystem::canonical(info.dli_fname, error);
    return error ? std::filesystem::path{} : library.parent_path().parent_path() / "Resources";
}

std::filesystem::path runtimeFolder() {
    if (const char* own = std::getenv("STEMPLUG_RUNTIME_DIR"); own && *own) return own;
    if (const char* xdg = std::getenv("XDG_RUNTIME_DIR"); xdg && *xdg) return std::filesystem::path(xdg) / "stemplug";
    return "/tmp/stemplug-" + std::to_string(getuid());
}

void logLine(std::string_view instance, std::string_view text) {
    const char *state = std::getenv("XDG_STATE_HOME"), *home = std::getenv("HOME");
    if (!(state && *state) && !(home && *home)) return;
    const auto folder =
        (state && *state ? std::filesystem::path(state) : std::filesystem::path(home) / ".local/state") / "stemplug";
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    const auto file = folder / "plugin.log";
    if (std::filesystem::file_size(file, error) > kLogBytes && !error)
        std::filesystem::rename(file, folder / "plugin.log.1", error);
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    std::array<char, 32> when{};
    std::strftime(when.data(), when.size(), "%F %T", &local);
    std::ofstream(file, std::ios::app) << std::string(when.data()) + " [" + std::to_string(getpid()) + "] " +
                                              std::string(instance) + ": " + std::string(text) + "\n";
}

uint32_t forkCount() {
    return g_forks.load(std::memory_order_relaxed);
}

bool startWorker(const std::string& python) {
    std::array<std::string, 5> words{python, "-E", "-m", "stemplug.worker", "--detach"};
    std::vector<char*> arguments, environment;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    for (char** entry = environ; *entry; ++entry)
        if (isKeptForWorker(*entry)) environment.push_back(*entry);
    environment.push_back(nullptr);

    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    for (int fd : {0, 1, 2}) posix_spawn_file_actions_addopen(&files, fd, "/dev/null", fd ? O_WRONLY : O_RDONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);  // the host's files and devices are not the worker's
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

    pid_t child = 0;
    const int error = posix_spawn(&child, python.c_str(), &files, &attributes, arguments.data(), environment.data());
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    if (error) return false;
    int status = 0;
    pid_t waited = 0;
    do waited = waitpid(child, &status, 0);
    while (waited < 0 && errno == EINTR);
    return waited < 0 || status == 0;  // a host that ignores SIGCHLD leaves nothing to wait for
}

Waker::Waker() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) fail("eventfd");
}
Waker::~Waker() {
    close(fd_);
}
void Waker::wake() {
    const uint64_t one = 1;
    [[maybe_unused]] const auto written = write(fd_, &one, sizeof one);
}
void Waker::clear() {
    uint64_t count = 0;
    [[maybe_unused]] const auto got = ::read(fd_, &count, sizeof count);
}
void Waker::waitFor(std::chrono::milliseconds time) {
    pollfd woken{fd_, POLLIN, 0};
    poll(&woken, 1, static_cast<int>(time.count()));
    clear();
}

std::optional<Connection> Connection::open(const std::filesystem::path& socket_path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = socket_path.string();
    if (path.size() >= sizeof address.sun_path) return {};
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    Connection connection(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (connection.fd_ < 0) return {};
    if (connect(connection.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return {};
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(connection.fd_, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != getuid()) return {};
    return connection;
}

Connection& Connection::operator=(Connection&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}
Connection::~Connection() {
    if (fd_ >= 0) close(fd_);
}

bool Connection::send(std::string_view bytes, int descriptor) {
    iovec data{const_cast<char*>(bytes.data()), bytes.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    if (descriptor >= 0) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        cmsghdr* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
    }
    const auto sent = sendmsg(fd_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent == static_cast<ssize_t>(bytes.size());
}

bool Connection::receive(std::string& buffer, std::chrono::milliseconds time, Waker& waker) {
    std::array<pollfd, 2> waiting{{{fd_, POLLIN, 0}, {waker.fd(), POLLIN, 0}}};
    poll(waiting.data(), waiting.size(), static_cast<int>(time.count()));
    if (waiting[1].revents) waker.clear();
    if (!waiting[0].revents) return true;
    std::array<char, 4096> bytes;
    const auto got = recv(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) buffer.append(bytes.data(), static_cast<size_t>(got));
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

}  // namespace stemplug
