// SPDX-License-Identifier: GPL-3.0-or-later
#include "catalogue.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace stemplug {
namespace {

using nlohmann::json;

constexpr double kFadeSeconds = 0.010;
constexpr double kMarginSeconds = 0.002;
constexpr double kOddRateSeconds = 0.005;  // at rates for which no latency was measured
constexpr double kMaxSeconds = 600;
constexpr double kMaxComputeSeconds = 10;
constexpr size_t kMaxRows = 16;
constexpr std::array<const char*, 4> kProfileNames{"low", "balanced", "high", "offline"};

int64_t engineFrames(const std::map<double, int64_t>& latencies, double sample_rate) {
    if (const auto known = latencies.find(sample_rate); known != latencies.end()) return known->second;
    double longest = 0;
    for (const auto& [rate, frames] : latencies) longest = std::max(longest, static_cast<double>(frames) / rate);
    return static_cast<int64_t>(std::ceil((longest + kOddRateSeconds) * sample_rate));
}

// Stems that have no bus of their own ("accompaniment") sound in Other.
size_t busOf(const std::string& stem) {
    const auto same = [&](std::string_view name) {
        return std::equal(name.begin(), name.end(), stem.begin(), stem.end(),
                          [](char a, char b) { return std::tolower(a) == b; });
    };
    return static_cast<size_t>(std::find_if(kStemNames.begin(), kStemNames.end() - 1, same) - kStemNames.begin());
}

Model readModel(const json& entry) {
    Model model{entry.at("name"), entry.at("sha256"), {}, busOf(entry.at("residual")), {}, {}};
    for (const std::string stem : entry.at("stems"))
        if (stem != entry.at("residual")) model.rows.push_back(busOf(stem));
    for (size_t i = 0; i < kProfileNames.size(); ++i) {
        const auto latencies = entry.at("latencies").find(kProfileNames[i]);
        if (latencies == entry.at("latencies").end()) continue;
        for (const auto& [rate, frames] : latencies->items()) {
            const double hz = std::stod(rate);
            if (!(hz > 0) || frames < 0 || frames > kMaxSeconds * hz) throw std::out_of_range(model.name);
            model.latencies[i][hz] = frames;
        }
        model.compute[i] = entry.at("compute").at(kProfileNames[i]);
        if (!(model.compute[i] >= 0 && model.compute[i] <= kMaxComputeSeconds)) throw std::out_of_range(model.name);
    }
    if (model.rows.empty() || model.rows.size() > kMaxRows) throw std::out_of_range(model.name);
    return model;
}

}  // namespace

Catalogue Catalogue::read(const std::filesystem::path& file) {
    Catalogue catalogue;
    try {
        std::ifstream stream(file);
        const json content = json::parse(stream);
        catalogue.python = content.at("python");
        for (const json& entry : content.at("models")) {
            try {
                catalogue.models.push_back(readModel(entry));
            } catch (const std::exception&) {
                continue;
            }
        }
        const json& defaults = content.at("defaults");
        catalogue.defaults = {defaults.at("live"), defaults.at("offline")};
    } catch (const std::exception&) {
        return catalogue;
    }
    return catalogue;
}

const Model* Catalogue::find(size_t choice, Profile profile) const {
    if (choice > 0 && choice <= models.size() && models[choice - 1].has(profile)) return &models[choice - 1];
    const std::string& name = defaults[profile == Profile::kOffline];
    const Model* found = nullptr;
    for (const Model& model : models)
        if (model.has(profile) && (!found || model.name == name)) found = &model;
    return found;
}

int64_t fadeFrames(double sample_rate) {
    return std::max<int64_t>(1, std::lround(kFadeSeconds * sample_rate));
}

int64_t marginFrames(double sample_rate) {
    return std::max<int64_t>(1, std::lround(kMarginSeconds * sample_rate));
}

int64_t latencyFrames(const Model& model, Profile profile, double sample_rate, int32_t max_block) {
    const auto index = static_cast<size_t>(profile);
    const int64_t engine = engineFrames(model.latencies[index], sample_rate);
    const auto compute = static_cast<int64_t>(std::ceil(model.compute[index] * sample_rate));
    return engine + compute + (profile != Profile::kOffline ? max_block : 0) + marginFrames(sample_rate);
}

}  // namespace stemplug
