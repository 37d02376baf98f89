// SPDX-License-Identifier: GPL-3.0-or-later
//
// Holds the plugin's side of PROTOCOL.md to the bytes in golden/, and feeds it what is no protocol.
// protocol_test GOLDEN_FOLDER [--write] [--fuzz ROUNDS]

#include "../source/protocol.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "../source/segment.hpp"

namespace {

using namespace stemplug;
using nlohmann::json;

std::string g_folder;
bool g_write = false;
int g_failures = 0;

void expect(bool condition, const std::string& what) {
    if (condition) return;
    std::fprintf(stderr, "FAILED %s\n", what.c_str());
    ++g_failures;
}

std::string load(const std::string& name) {
    std::ifstream file(g_folder + "/" + name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void expectGolden(const std::string& name, const std::string& bytes) {
    if (g_write) std::ofstream(g_folder + "/" + name, std::ios::binary) << bytes;
    expect(load(name) == bytes, name + " differs");
}

void testFrames() {
    expectGolden("hello.bin", encodeFrame({{"type", "hello"}, {"protocol", kProtocol}, {"client", "plugin"}}));
    expectGolden("wake.bin", encodeFrame({{"type", "wake"}}));
    expectGolden("open.bin", encodeFrame({{"type", "open"},
                                          {"model", "spleeter-2stems"},
                                          {"sha256", std::string(64, 'a')},
                                          {"profile", "live"},
                                          {"latency", "balanced"},
                                          {"sample_rate", 48000.0},
                                          {"channels", 2},
                                          {"rows", 2},
                                          {"latency_frames", 8000},
                                          {"input_capacity", 8},
                                          {"output_capacity", 8},
                                          {"name", "Gro\xc3\x9f"}}));
    std::string received = load("opened.bin") + load("error.bin").substr(0, 7);
    const auto opened = takeFrame(received);
    expect(opened && opened->value("type", "") == "opened" && opened->value("latency_frames", 0) == 7972, "opened.bin");
    expect(!takeFrame(received), "a frame that has not come whole");
    received += load("error.bin").substr(7);
    const auto error = takeFrame(received);
    expect(error && error->value("message", "") == "of another version" && received.empty(), "error.bin");
}

void testSegment() {
    Segment segment({2, 2, 8, 8}, true);
    segment.addMark({3, 1000, Mark::kPlaying | Mark::kCapture, {}});
    segment.begin(3, 5);
    const std::array<float, 6> left{1, 2, 3, 4, 5, 6}, right{-1, -2, -3, -4, -5, -6};
    const std::array<const float*, 2> input{left.data(), right.data()};
    expect(segment.space() == 8, "room for the input");
    segment.write(input.data(), 6);
    expect(segment.space() == 2, "room that is left");
    segment.release(4);

    constexpr size_t size = 4096 + 4 * (2 * 8 + 2 * 8);
    auto* bytes = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, segment.fd(), 0));
    expectGolden("segment_plugin.bin", std::string(bytes, size));
    // What the worker adds to it: see tests/plugin/test_protocol.py.
    const std::string answered = load("segment_worker.bin");
    expect(answered.size() == size, "segment_worker.bin");
    if (answered.size() == size) std::memcpy(bytes, answered.data(), size);
    munmap(bytes, size);
    const auto [from, ready] = segment.stems();
    expect(from == 3 && ready == 9, "where stems are");
    std::array<float, 5> row{};
    segment.read(1, 4, 5, row.data());
    expect((row == std::array<float, 5>{-20, -30, -40, -50, -60}), "a row across the end of the ring");
    expect(segment.space() == 8, "room that was given back");
}

// Bytes that are almost frames: nothing but ProtocolError may come of them, and memory stays bounded.
void fuzz(int rounds) {
    std::mt19937 random(1);
    const std::array seeds{load("hello.bin"), load("open.bin"), load("opened.bin"), load("error.bin"),
                           load("wake.bin")};
    int refused = 0;
    for (int round = 0; round < rounds; ++round) {
        std::string buffer = seeds[random() % seeds.size()];
        for (auto changes = random() % 8; changes; --changes) {
            const size_t at = random() % buffer.size();
            switch (random() % 4) {
                case 0:
                    buffer[at] = static_cast<char>(random());
                    break;
                case 1:
                    buffer.erase(at, random() % 9);
                    break;
                case 2:
                    buffer.insert(at, std::string(random() % 40, "[{\"\\0}"[random() % 6]));
                    break;
                default:
                    buffer += seeds[random() % seeds.size()];
            }
            if (buffer.empty()) break;
        }
        try {
            for (size_t before = buffer.size() + 1; buffer.size() < before && takeFrame(buffer);)
                before = buffer.size() + 1;
        } catch (const ProtocolError&) {
            ++refused;
        }
    }
    expect(refused > rounds / 10, "hardly any broken frame was refused");
    std::printf("%d of %d refused\n", refused, rounds);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2) return 2;
    g_folder = arguments[1];
    int rounds = 20000;
    for (int i = 2; i < count; ++i) {
        if (!std::strcmp(arguments[i], "--write")) g_write = true;
        if (!std::strcmp(arguments[i], "--fuzz") && i + 1 < count) rounds = std::atoi(arguments[++i]);
    }
    testFrames();
    testSegment();
    fuzz(rounds);
    return g_failures ? 1 : 0;
}
