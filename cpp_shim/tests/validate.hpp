// SPDX-License-Identifier: GPL-3.0-or-later

#pragma once

#include "commands.hpp"
#include "session.hpp"

namespace host {

// One check of `validate`: gets a module of its own, in a process of its own.
struct Check {
    Module& module;
    Failures failures;
    std::vector<std::string> notes;

    template <class... Parts>
    bool expect(bool fine, const Parts&... what) {
        if (!fine) failures.add(what...);
        return fine;
    }
    // An exception that leaves the plugin ends most hosts.
    template <class Call, class... Parts>
    void expectNoThrow(Call call, const Parts&... what) {
        try {
            call();
        } catch (const std::exception& error) {
            failures.add(text(what...), " throws ", error.what());
        }
    }
    template <class... Parts>
    void note(const Parts&... parts) {
        notes.push_back(text(parts...));
    }
    // Nothing was found in the session's blocks.
    void expectSound(const Session& session, std::string_view when);
    // A session, fresh or misused, delays its input on Main and on the sum of the aux buses, by exactly its latency.
    void expectDelays(Session& session, std::string_view when);
    void expectWorks(Plugin& plugin, std::string_view when);  // the same in a new session
};

struct NamedCheck {
    const char* name;
    void (*run)(Check&);
};
std::vector<NamedCheck> generalChecks();
std::vector<NamedCheck> parameterChecks();
std::vector<NamedCheck> processingChecks();

}  // namespace host
