// SPDX-License-Identifier: GPL-3.0-or-later
//
// A VST3 host that checks a plugin. Prints one JSON object; each failure is a line on stderr, and the exit code is 1.

#include <map>

#include "commands.hpp"

namespace {

constexpr const char* kUsage = R"(testhost COMMAND [PLUGIN.vst3] [OPTIONS]
  validate   what strict VST3 validators check, each check in a process of its own
      --only NAME (repeatable)   --list   --no-fork (in this process, for a debugger)   --timeout SECONDS (120)
  render     processes audio, as a realtime or an offline host does
      --input FILE.f32 --layout interleaved|planar --channels 2 (noise where there is no file)
      --rate 48000 --block 512[,64,...] (in turn) --max-block FRAMES --seconds S (default: the input and the latency)
      --mode realtime|prefetch|offline   --activate-only-as MODE --blocks-say MODE (where they differ)
      --pace realtime|none   --warm SECONDS (at most, until Status is "ready")   --warm-with silence|input
      --set ID=VALUE[@FRAME] (normalized; without a frame: before activation)   --also-controller
      --state-in FILE --state-out FILE   --position FRAME --stopped   --out DIR   --rtcheck
  instances  creates, runs and destroys many
      --count 200 --at-once 8 --threads 4 --blocks 4 --hold SECONDS --mode realtime|offline
  fork       the host process forks while the plugin runs
      --bound SECONDS (10) --run SECONDS (1.5) --rate 48000 --block 512
  selftest   shows that --rtcheck notices what it is there for
)";

}  // namespace

int main(int argc, char** argv) {
    const std::map<std::string, int (*)(host::Options&)> commands = {{"validate", host::validate},
                                                                     {"render", host::render},
                                                                     {"instances", host::instances},
                                                                     {"fork", host::fork},
                                                                     {"selftest", host::selftest}};
    try {
        host::Options options({argv + 1, argv + argc});
        const auto command = commands.find(options.next("COMMAND"));
        if (command == commands.end()) throw std::invalid_argument("no such command");
        return command->second(options);
    } catch (const std::invalid_argument& error) {
        std::cerr << "testhost: " << error.what() << '\n' << kUsage;
        return 2;
    } catch (const std::exception& error) {
        return host::finish({}, {{error.what()}});
    }
}
