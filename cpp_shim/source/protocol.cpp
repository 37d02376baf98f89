// SPDX-License-Identifier: GPL-3.0-or-later
#include "protocol.hpp"

namespace stemplug {

std::string encodeFrame(const nlohmann::json& message) {
    const std::string body = message.dump();
    std::string frame;
    for (int shift = 0; shift < 32; shift += 8) frame.push_back(static_cast<char>(body.size() >> shift & 0xff));
    return frame + body;
}

std::optional<nlohmann::json> takeFrame(std::string& buffer) {
    if (buffer.size() < 4) return {};
    size_t size = 0;
    for (size_t byte = 0; byte < 4; ++byte) size |= static_cast<size_t>(static_cast<uint8_t>(buffer[byte])) << 8 * byte;
    if (size < 2 || size > kMaxFrameBytes) throw ProtocolError("a frame of impossible size");
    if (buffer.size() < 4 + size) return {};
    // Nested beyond reason, JSON would exhaust the parser's stack or time; frames are flat.
    const auto depth = [](int nested, nlohmann::json::parse_event_t, nlohmann::json&) {
        if (nested > 4) throw ProtocolError("a frame nested too deeply");
        return true;
    };
    auto message =
        nlohmann::json::parse(buffer.begin() + 4, buffer.begin() + 4 + static_cast<ptrdiff_t>(size), depth, false);
    if (!message.is_object()) throw ProtocolError("a frame that is no JSON object");
    buffer.erase(0, 4 + size);
    return message;
}

}  // namespace stemplug
