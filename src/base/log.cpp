#include "base/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace godwit::log {

namespace {

spdlog::level::level_enum to_spdlog(Level level) noexcept {
    switch (level) {
    case Level::debug:
        return spdlog::level::debug;
    case Level::info:
        return spdlog::level::info;
    case Level::warn:
        return spdlog::level::warn;
    case Level::error:
        return spdlog::level::err;
    }
    return spdlog::level::info;
}

spdlog::logger& logger() {
    // The pattern makes the time, level and writer JSON fields; the payload is the rest of the
    // object.
    static const std::shared_ptr<spdlog::logger> instance = [] {
        auto made = std::make_shared<spdlog::logger>(
            "godwit", std::make_shared<spdlog::sinks::stderr_sink_mt>());
        made->set_level(spdlog::level::warn);
        made->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","pid":%P,%v})");
        made->flush_on(spdlog::level::debug);
        return made;
    }();
    return *instance;
}

void append_value(fmt::memory_buffer& out, const Field::Value& value) {
    std::visit(
        [&out](const auto& v) {
            if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::string_view>) {
                fmt::format_to(std::back_inserter(out), "{}", json_quoted(v));
            } else {
                fmt::format_to(std::back_inserter(out), "{}", v);
            }
        },
        value);
}

} // namespace

std::string json_quoted(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (byte < 0x20 || byte >= 0x7f) {
            out += fmt::format("\\u{:04x}", byte);
        } else {
            out += c;
        }
    }
    out += '"';
    return out;
}

void configure(std::string_view writer, Level lowest) {
    logger().set_level(to_spdlog(lowest));
    logger().set_pattern(
        fmt::format(R"({{"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","writer":{},"pid":%P,%v}})",
                    json_quoted(writer)));
}

Level level_named(std::string_view name) noexcept {
    if (name == "debug") {
        return Level::debug;
    }
    if (name == "warn") {
        return Level::warn;
    }
    if (name == "error") {
        return Level::error;
    }
    return Level::info;
}

void write(Level level, std::string_view event, Fields fields) {
    if (!logger().should_log(to_spdlog(level))) {
        return;
    }
    fmt::memory_buffer out;
    fmt::format_to(std::back_inserter(out), "\"event\":{}", json_quoted(event));
    for (const Field& field : fields) {
        fmt::format_to(std::back_inserter(out), ",{}:", json_quoted(field.name));
        append_value(out, field.value);
    }
    logger().log(to_spdlog(level), std::string_view(out.data(), out.size()));
}

} // namespace godwit::log
