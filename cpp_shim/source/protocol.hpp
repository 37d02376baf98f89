// SPDX-License-Identifier: GPL-3.0-or-later
//
// Control frames: four bytes of length, little-endian, then that many bytes of JSON, an object. See PROTOCOL.md.

#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>

namespace stemplug {

inline constexpr int kProtocol = 1;
inline constexpr size_t kMaxFrameBytes = 65536;

class ProtocolError : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string encodeFrame(const nlohmann::json& message);

// Takes the first whole frame off `buffer`; empty where there is none yet. Throws ProtocolError for what is no frame.
std::optional<nlohmann::json> takeFrame(std::string& buffer);

}  // namespace stemplug
