// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the plugin knows before any worker runs: Contents/Resources/stemplug.json, written by `stemplug.plugin`.

#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace stemplug {

inline constexpr std::array<const char*, 6> kStemNames{"Vocals", "Drums", "Bass", "Guitar", "Piano", "Other"};
inline constexpr size_t kStems = kStemNames.size(), kOther = kStems - 1;
inline constexpr std::array<const char*, 3> kLatencyNames{"low", "balanced", "high"};

// How a model is run: offline, or live at one of the latencies.
enum class Profile { kLow, kBalanced, kHigh, kOffline };

struct Model {
    std::string name;
    std::string sha256;
    // The stems that the worker sends, and the stem that is the input less all of these.
    std::vector<size_t> rows;  // the bus of each
    size_t residual = kOther;
    // The engine's latency in frames, by Profile and sample rate; none where the model has no such profile.
    std::array<std::map<double, int64_t>, 4> latencies;
    // Seconds that computing a window may take, by Profile.
    std::array<double, 4> compute;

    bool has(Profile profile) const { return !latencies[static_cast<size_t>(profile)].empty(); }
};

struct Catalogue {
    std::string python;
    std::vector<Model> models;
    std::array<std::string, 2> defaults;  // the name of the model that is the default live, and offline

    // Never throws: what cannot be read is left out.
    static Catalogue read(const std::filesystem::path& file);

    // The model that a choice from the list (see `modelNames`) means for a profile: that one where it has the profile,
    // else the profile's default. Null where there is none.
    const Model* find(size_t choice, Profile profile) const;
};

// Latency in frames: the engine's, the margin, and in real time what computing a window may take and one block, since
// stems are wanted in whole blocks.
int64_t latencyFrames(const Model& model, Profile profile, double sample_rate, int32_t max_block);

// Frames by which stems must be ahead: where they end sooner than that, they are faded out over what there is of them,
// a fade's length at most.
int64_t marginFrames(double sample_rate);

// Frames of a fade or ramp.
int64_t fadeFrames(double sample_rate);

}  // namespace stemplug
