// SPDX-License-Identifier: GPL-3.0-or-later

#include "validate.hpp"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

namespace host {

void Check::expectSound(const Session& session, std::string_view when) {
    for (const auto& fault : session.faults) failures.add(when, ": ", fault);
}

void Check::expectDelays(Session& session, std::string_view when) {
    const int64 latency = session.plugin.processor->getLatencySamples();
    // Until the first frame put in since the last change must have come out, and then two blocks.
    session.pass(latency + static_cast<int64>(session.setup.rate / 20));
    float main = 0, aux = 0;
    for (int block = 0; block < 2; ++block) {
        session.process(session.setup.block);
        main = std::max(main, session.mainError(latency));
        aux = std::max(aux, session.auxError(latency));
    }
    expect(main <= 2e-6f, when, ": the main output is not the delayed input, off by ", main);
    if (session.active[kOutput].size() > 1)
        expect(aux <= 2e-6f, when, ": the aux outputs do not sum to the delayed input, off by ", aux);
}

void Check::expectWorks(Plugin& plugin, std::string_view when) {
    Session session(plugin);
    expectDelays(session, when);
    expectSound(session, when);
}

namespace {

// What a check found, as lines: 'F' and a failure, 'N' and a note.
std::string perform(const NamedCheck& named, const std::filesystem::path& bundle) {
    std::string lines;
    Failures failures;
    try {
        Module module(bundle);
        Check check{module, {}, {}};
        try {
            named.run(check);
        } catch (const std::exception& error) {
            check.failures.add(error.what());
        }
        failures = check.failures;
        for (const auto& note : check.notes) lines += 'N' + note + '\n';
    } catch (const std::exception& error) {
        failures.add(error.what());
    }
    for (const auto& failure : failures.lines) lines += 'F' + failure + '\n';
    return lines;
}

// The same in a child, so that a crash or a hang is one more failure, and no check disturbs the next one.
std::string performApart(const NamedCheck& named, const std::filesystem::path& bundle, unsigned timeout) {
    std::cout.flush();
    int ends[2];  // closed in what the plugin starts
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("fork failed");
    if (child == 0) {
        close(ends[0]);
        alarm(timeout);
        const std::string lines = perform(named, bundle);
        for (std::size_t at = 0; at < lines.size();) {
            const ssize_t written = write(ends[1], lines.data() + at, lines.size() - at);
            if (written <= 0) std::_Exit(3);
            at += static_cast<std::size_t>(written);
        }
        std::exit(0);  // with all that a host process does at its end
    }
    close(ends[1]);
    std::string lines;
    char buffer[4096];
    for (ssize_t size; (size = read(ends[0], buffer, sizeof buffer)) > 0;)
        lines.append(buffer, static_cast<std::size_t>(size));
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        lines += text("Fhangs: not done after ", timeout, " s\n");
    else if (WIFSIGNALED(status))
        lines += text("Fcrashes: ", strsignal(WTERMSIG(status)), "\n");
    else if (WEXITSTATUS(status) != 0)
        lines += text("Fends with exit code ", WEXITSTATUS(status), "\n");
    return lines;
}

}  // namespace

int validate(Options& options) {
    std::vector<NamedCheck> checks;
    for (const auto& some : {generalChecks(), parameterChecks(), processingChecks()})
        checks.insert(checks.end(), some.begin(), some.end());
    if (options.flag("list")) {
        options.done();
        for (const auto& check : checks) std::cout << check.name << '\n';
        return 0;
    }
    const auto only = options.all("only");
    const bool apart = !options.flag("no-fork");
    const auto timeout = static_cast<unsigned>(options.number("timeout", 120));
    const std::filesystem::path bundle = options.next("PLUGIN");
    options.done();
    for (const auto& name : only)
        if (std::none_of(checks.begin(), checks.end(), [&](const auto& check) { return check.name == name; }))
            throw std::invalid_argument("no check is named " + name);

    Json results, all_notes;
    Failures failures;
    for (const auto& check : checks) {
        if (!only.empty() && std::find(only.begin(), only.end(), check.name) == only.end()) continue;
        std::istringstream lines(apart ? performApart(check, bundle, timeout) : perform(check, bundle));
        std::vector<std::string> notes;
        const auto before = failures.lines.size();
        for (std::string line; std::getline(lines, line);)
            line[0] == 'F' ? failures.add(check.name, ": ", line.substr(1)) : notes.push_back(line.substr(1));
        results(check.name, before == failures.lines.size() ? "ok" : "failed");
        if (!notes.empty()) all_notes(check.name, notes);
    }
    return finish(Json()("checks", results)("notes", all_notes), failures);
}

}  // namespace host
