// SPDX-License-Identifier: GPL-3.0-or-later

#include "rtcheck.hpp"

#ifdef RTCHECK_OFF

namespace rtcheck {
Means prepareThread() {
    return {};
}
void enter() {}
void leave() {}
std::vector<Finding> findings() {
    return {};
}
void clear() {}
}  // namespace rtcheck

#else

#include <dlfcn.h>
#include <execinfo.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <memory>

// operator new is not among them: it calls malloc.
// clang-format off
#define FUNCTIONS(X) \
    X(malloc) X(calloc) X(realloc) X(reallocarray) X(free) X(posix_memalign) X(aligned_alloc) X(memalign) \
    X(pthread_mutex_lock) X(pthread_mutex_trylock) X(pthread_mutex_timedlock) X(pthread_mutex_clocklock) \
    X(pthread_mutex_unlock) X(pthread_spin_lock) X(pthread_rwlock_rdlock) X(pthread_rwlock_wrlock) \
    X(pthread_rwlock_tryrdlock) X(pthread_rwlock_trywrlock) X(pthread_rwlock_unlock) X(pthread_cond_wait) \
    X(pthread_cond_timedwait) X(pthread_cond_clockwait) X(pthread_cond_signal) X(pthread_cond_broadcast) \
    X(pthread_barrier_wait) X(pthread_once) X(pthread_create) X(pthread_join) X(pthread_detach) X(sem_wait) \
    X(sem_trywait) X(sem_timedwait) X(sem_clockwait) X(sem_post) X(syscall) X(read) X(write) X(pread) X(pwrite) \
    X(readv) X(writev) X(send) X(sendto) X(sendmsg) X(recv) X(recvfrom) X(recvmsg) X(poll) X(ppoll) X(select) \
    X(pselect) X(epoll_wait) X(epoll_pwait) X(epoll_ctl) X(eventfd) X(eventfd_read) X(eventfd_write) \
    X(timerfd_settime) X(open) X(open64) X(openat) X(openat64) X(close) X(ioctl) X(fcntl) X(fcntl64) X(lseek) \
    X(lseek64) X(fsync) X(ftruncate) X(ftruncate64) X(access) X(stat) X(fstat) X(unlink) X(rename) X(mkdir) \
    X(opendir) X(readdir) X(memfd_create) X(shm_open) X(mmap) X(mmap64) X(munmap) X(mremap) X(madvise) X(mprotect) \
    X(mlock) X(msync) X(nanosleep) X(clock_nanosleep) X(usleep) X(sleep) X(sched_yield) X(dlopen) X(dlclose) \
    X(fopen) X(fopen64) X(fdopen) X(fclose) X(fread) X(fwrite) X(fputs) X(puts) X(putchar) X(fputc) X(fflush) \
    X(printf) X(fprintf) X(vprintf) X(vfprintf) X(__printf_chk) X(__fprintf_chk) X(__vfprintf_chk) X(perror) \
    X(syslog) X(getaddrinfo) X(socket) X(socketpair) X(connect) X(bind) X(listen) X(accept) X(accept4) X(shutdown) \
    X(pipe) X(pipe2) X(dup) X(dup2) X(fork) X(vfork) X(execve) X(posix_spawn) X(posix_spawnp) X(waitpid) X(kill) \
    X(pthread_kill) X(raise)
// clang-format on

namespace {

#define COUNT(name) +1
#define NAME(name) #name,
constexpr int kFunctions = FUNCTIONS(COUNT);
constexpr int kSyscalls = 512;
constexpr const char* kNames[] = {FUNCTIONS(NAME)};
constexpr int kFrames = 24;

struct Kind {
    std::atomic<std::uint64_t> count{0};
    std::array<void*, kFrames> frames{};
    int frame_count = 0;
};
std::array<Kind, kFunctions + kSyscalls> kinds;  // functions, then system calls by number
std::array<std::atomic<void*>, kFunctions> originals{};

// Thread-local variables of a library that is loaded later would be allocated at first use: in malloc, of all places.
#define THREAD_LOCAL thread_local __attribute__((tls_model("initial-exec")))
THREAD_LOCAL volatile bool inside = false;
THREAD_LOCAL volatile char selector = 0;  // read by the kernel: 0 lets system calls pass, 1 turns them into SIGSYS

void note(Kind& kind) {
    const int error = errno;
    const char selected = selector;
    inside = false;
    selector = 0;
    if (kind.count.fetch_add(1) == 0) kind.frame_count = backtrace(kind.frames.data(), kFrames);
    selector = selected;
    inside = true;
    errno = error;
}

}  // namespace

// Each function is a few instructions that keep all argument registers, ask for the original and jump there: so it
// need not know the arguments, and the original sees its true caller (dlopen looks at that).
extern "C" __attribute__((visibility("hidden"), used)) void* rtcheck_called(int function) {
    const auto index = static_cast<std::size_t>(function);
    if (inside) note(kinds[index]);
    void* original = originals[index].load(std::memory_order_relaxed);
    if (!original) originals[index] = original = dlsym(RTLD_NEXT, kNames[index]);
    return original;
}

#define STUB(name) "rtcheck_function " #name "\n"
asm(R"(
.macro rtcheck_function name
    .globl \name
    .type \name, @function
    \name:
    .cfi_startproc
    push %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    mov %rsp, %rbp
    .cfi_def_cfa_register %rbp
    sub $192, %rsp
    mov %rdi, 0(%rsp)
    mov %rsi, 8(%rsp)
    mov %rdx, 16(%rsp)
    mov %rcx, 24(%rsp)
    mov %r8, 32(%rsp)
    mov %r9, 40(%rsp)
    mov %rax, 48(%rsp)
    movaps %xmm0, 64(%rsp)
    movaps %xmm1, 80(%rsp)
    movaps %xmm2, 96(%rsp)
    movaps %xmm3, 112(%rsp)
    movaps %xmm4, 128(%rsp)
    movaps %xmm5, 144(%rsp)
    movaps %xmm6, 160(%rsp)
    movaps %xmm7, 176(%rsp)
    mov $rtcheck_number, %edi
    call rtcheck_called
    mov %rax, %r11
    mov 0(%rsp), %rdi
    mov 8(%rsp), %rsi
    mov 16(%rsp), %rdx
    mov 24(%rsp), %rcx
    mov 32(%rsp), %r8
    mov 40(%rsp), %r9
    mov 48(%rsp), %rax
    movaps 64(%rsp), %xmm0
    movaps 80(%rsp), %xmm1
    movaps 96(%rsp), %xmm2
    movaps 112(%rsp), %xmm3
    movaps 128(%rsp), %xmm4
    movaps 144(%rsp), %xmm5
    movaps 160(%rsp), %xmm6
    movaps 176(%rsp), %xmm7
    leave
    .cfi_def_cfa %rsp, 8
    jmp *%r11
    .cfi_endproc
    .size \name, . - \name
    .set rtcheck_number, rtcheck_number + 1
.endm
.text
.set rtcheck_number, 0
)" FUNCTIONS(STUB) R"(

// long rtcheck_syscall(long number, long arguments[6])
rtcheck_syscall:
    mov %rdi, %rax
    mov %rsi, %r11
    mov 0(%r11), %rdi
    mov 8(%r11), %rsi
    mov 16(%r11), %rdx
    mov 24(%r11), %r10
    mov 32(%r11), %r8
    mov 40(%r11), %r9
    syscall
    ret

// The way back from the signal handler: the only system call that passes while others do not. Its bytes are those that
// unwinders know.
rtcheck_restore:
    movq $15, %rax
    syscall
rtcheck_restore_end:
    nop
)");

extern "C" {
long rtcheck_syscall(long number, const long* arguments) __attribute__((visibility("hidden")));
void rtcheck_restore() __attribute__((visibility("hidden")));
void rtcheck_restore_end() __attribute__((visibility("hidden")));
}

namespace {

void onSyscall(int, siginfo_t* info, void* context) {
    selector = 0;
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const long number = info->si_syscall;
    note(kinds[static_cast<std::size_t>(kFunctions + (number & (kSyscalls - 1)))]);
    switch (number) {  // what cannot be done in a signal handler happens where it was; from there on nothing is seen
        case SYS_clone:
        case SYS_clone3:
        case SYS_fork:
        case SYS_vfork:
        case SYS_rt_sigreturn:
        case SYS_rt_sigprocmask:
        case SYS_exit:
            registers[REG_RIP] -= 2;
            return;
    }
    const long arguments[] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                              registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    registers[REG_RAX] = rtcheck_syscall(number, arguments);
    selector = 1;
}

bool handleSyscalls() {
    // By hand, for the C library would put in its own way back.
    struct {
        void (*handler)(int, siginfo_t*, void*) = onSyscall;
        unsigned long flags = SA_SIGINFO | SA_NODEFER | 0x04000000;  // SA_RESTORER
        void (*restorer)() = rtcheck_restore;
        unsigned long mask = 0;
    } action;
    return syscall(SYS_rt_sigaction, SIGSYS, &action, nullptr, sizeof action.mask) == 0;
}

THREAD_LOCAL bool dispatched = false;

}  // namespace

namespace rtcheck {

Means prepareThread() {
    void* frame = nullptr;
    backtrace(&frame, 1);  // loads what it needs
    static const bool handled = handleSyscalls();
    constexpr int kSetSyscallUserDispatch = 59, kOn = 1;
    const auto begin = reinterpret_cast<unsigned long>(rtcheck_restore);
    const auto end = reinterpret_cast<unsigned long>(rtcheck_restore_end) + 1;  // the kernel looks at what comes next
    dispatched = handled && prctl(kSetSyscallUserDispatch, kOn, begin, end - begin, &selector) == 0;
    return {true, dispatched};
}

void enter() {
    inside = true;
    selector = dispatched;
}

void leave() {
    selector = 0;
    inside = false;
}

std::vector<Finding> findings() {
    std::vector<Finding> all;
    for (int i = 0; i < kFunctions + kSyscalls; ++i) {
        const Kind& kind = kinds[static_cast<std::size_t>(i)];
        if (kind.count == 0) continue;
        Finding finding{i < kFunctions ? kNames[i] : "system call " + std::to_string(i - kFunctions), kind.count, {}};
        const std::unique_ptr<char*, decltype(&std::free)> lines(
            backtrace_symbols(kind.frames.data(), kind.frame_count), std::free);
        for (int line = 0; lines && line < kind.frame_count; ++line) finding.backtrace.emplace_back(lines.get()[line]);
        all.push_back(std::move(finding));
    }
    return all;
}

void clear() {
    for (Kind& kind : kinds) kind.count = 0;
}

}  // namespace rtcheck

#endif
