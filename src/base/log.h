#pragma once

/// Log records: an event name and typed fields, one JSON line each. Any thread.
///
///     log::info("exchange_committed", {{"machine", name}, {"epoch", epoch}});
///
/// error: an action someone asked for failed. warn: abnormal, nothing asked for failed. info: a
/// rare normal change of state. debug: for developers. Never in the vCPU loop or once per request.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

namespace godwit {
class Error;
}

namespace godwit::log {

enum class Level : std::uint8_t { debug, info, warn, error };

/// A field of a record. The views live only as long as the call.
struct Field {
    using Value = std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view>;

    template <typename T>
    Field(std::string_view field_name, const T& field_value)
        : name(field_name), value(convert(field_value)) {}

    std::string_view name;
    Value value;

  private:
    template <typename T>
    static Value convert(const T& v) {
        if constexpr (std::is_same_v<T, bool>) {
            return v;
        } else if constexpr (std::is_floating_point_v<T>) {
            return static_cast<double>(v);
        } else if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
            return static_cast<std::int64_t>(v);
        } else if constexpr (std::is_integral_v<T>) {
            return static_cast<std::uint64_t>(v);
        } else {
            return std::string_view(v);
        }
    }
};

using Fields = std::initializer_list<Field>;

/// Sets who writes ("godwit-vmm web1") and the lowest level shown. Records go to stderr.
void configure(std::string_view writer, Level lowest);
/// "debug" | "info" | "warn" | "error"; anything else is info.
[[nodiscard]] Level level_named(std::string_view name) noexcept;

void write(Level level, std::string_view event, Fields fields);
inline void debug(std::string_view event, Fields fields = {}) {
    write(Level::debug, event, fields);
}
inline void info(std::string_view event, Fields fields = {}) {
    write(Level::info, event, fields);
}
inline void warn(std::string_view event, Fields fields = {}) {
    write(Level::warn, event, fields);
}
inline void error(std::string_view event, Fields fields = {}) {
    write(Level::error, event, fields);
}

/// Text as a JSON string with its quotes; control and invalid UTF-8 bytes are escaped.
[[nodiscard]] std::string json_quoted(std::string_view text);

} // namespace godwit::log
