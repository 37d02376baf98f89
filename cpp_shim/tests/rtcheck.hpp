// SPDX-License-Identifier: GPL-3.0-or-later
//
// Notices what an audio thread does that it must not: calls of malloc, locks, files, ... (the functions are interposed)
// and system calls by whatever way (Linux' "syscall user dispatch" turns them into signals). Only the calling thread is
// watched, between enter() and leave(). Everything found is also carried out.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rtcheck {

struct Means {
    bool interposer = false;
    bool dispatch = false;
};

struct Finding {
    std::string what;
    std::uint64_t count = 0;
    std::vector<std::string> backtrace;  // of the first one; addr2line understands FILE(+OFFSET)
};

Means prepareThread();  // before the first enter() of a thread; tells what is in force
void enter();
void leave();
std::vector<Finding> findings();
void clear();

}  // namespace rtcheck
