// SPDX-License-Identifier: GPL-3.0-or-later
//
// What all commands share: their options, the JSON object they print, the failures they tell.

#pragma once

#include <algorithm>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace host {

template <class... Parts>
std::string text(const Parts&... parts) {
    std::ostringstream out;
    out.precision(10);
    (out << ... << parts);
    return out.str();
}

// What is left of the command line. A command takes out what it knows; done() refuses the rest.
class Options {
public:
    explicit Options(std::vector<std::string> arguments) : arguments(std::move(arguments)) {}

    bool flag(const std::string& name) {
        const auto at = std::find(arguments.begin(), arguments.end(), "--" + name);
        if (at == arguments.end()) return false;
        arguments.erase(at);
        return true;
    }
    std::string take(const std::string& name, std::string otherwise = {}) {
        const auto values = all(name);
        return values.empty() ? otherwise : values.back();
    }
    double number(const std::string& name, double otherwise) {
        const std::string value = take(name);
        return value.empty() ? otherwise : std::stod(value);
    }
    std::vector<std::string> all(const std::string& name) {
        std::vector<std::string> values;
        for (auto at = arguments.begin(); (at = std::find(at, arguments.end(), "--" + name)) != arguments.end();) {
            if (at + 1 == arguments.end()) throw std::invalid_argument("--" + name + " needs a value");
            values.push_back(*(at + 1));
            at = arguments.erase(at, at + 2);
        }
        return values;
    }
    std::string next(const char* what) {
        if (arguments.empty()) throw std::invalid_argument(text(what, " is missing"));
        const std::string argument = arguments.front();
        arguments.erase(arguments.begin());
        return argument;
    }
    void done() const {
        if (!arguments.empty()) throw std::invalid_argument("unknown option " + arguments.front());
    }

private:
    std::vector<std::string> arguments;
};

// A JSON object, or a list, as text.
class Json {
public:
    static std::string value(bool flag) { return flag ? "true" : "false"; }
    static std::string value(std::string_view string) {
        std::string quoted = "\"";
        for (const char c : string) {
            if (c == '"' || c == '\\') quoted += '\\';
            quoted += static_cast<unsigned char>(c) < ' ' ? ' ' : c;
        }
        return quoted + '"';
    }
    static std::string value(const std::string& string) { return value(std::string_view(string)); }
    static std::string value(const char* string) { return value(std::string_view(string)); }
    static std::string value(const Json& object) { return '{' + object.body + '}'; }
    template <class Number>
    requires std::is_arithmetic_v<Number>
    static std::string value(Number number) {
        return number - number == 0 ? text(number) : "null";  // neither infinite nor NaN
    }
    template <class Item>
    static std::string value(const std::vector<Item>& items) {
        std::string list;
        for (const Item& item : items) list += (list.empty() ? "" : ", ") + value(item);
        return '[' + list + ']';
    }
    template <class Value>
    Json& operator()(std::string_view key, const Value& content) {
        body += (body.empty() ? "" : ", ") + value(key) + ": " + value(content);
        return *this;
    }

private:
    std::string body;
};

struct Failures {
    std::vector<std::string> lines;
    template <class... Parts>
    void add(const Parts&... parts) {
        lines.push_back(text(parts...));
    }
};

// Prints what was found and tells the exit code.
inline int finish(Json json, const Failures& failures) {
    for (const auto& line : failures.lines) std::cerr << "FAILED " << line << '\n';
    std::cout << Json::value(json("failures", failures.lines)) << std::endl;
    return failures.lines.empty() ? 0 : 1;
}

int validate(Options& options);
int render(Options& options);
int instances(Options& options);
int fork(Options& options);
int selftest(Options& options);

}  // namespace host
