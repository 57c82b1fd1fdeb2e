#include "cli/size_text.h"

#include <array>
#include <charconv>
#include <cstdio>
#include <limits>

namespace godwit::cli {

namespace {

constexpr std::string_view units = "KMGT";

Error not_a_size(std::string_view text) {
    return Error(ErrorCode::invalid_argument,
                 "'" + std::string(text.substr(0, 40)) +
                     "' is no size; write it like 512M or 4G (K, M, G, T are powers of 1024)");
}

} // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t number = 0;
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (failure != std::errc() || end == text.data()) {
        return not_a_size(text);
    }
    std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
    unsigned shift = 0;
    if (!unit.empty() && unit != "B") {
        const char letter =
            unit[0] >= 'a' && unit[0] <= 'z' ? static_cast<char>(unit[0] - 32) : unit[0];
        const std::size_t index = units.find(letter);
        unit.remove_prefix(1);
        if (index == std::string_view::npos || !(unit.empty() || unit == "B" || unit == "iB")) {
            return not_a_size(text);
        }
        shift = 10U * (static_cast<unsigned>(index) + 1U);
    }
    if (number > (std::numeric_limits<std::uint64_t>::max() >> shift)) {
        return not_a_size(text);
    }
    return number << shift;
}

std::string size_text(std::uint64_t bytes) {
    std::string unit;
    for (const char letter : units) {
        if (bytes < 1024 || bytes % 1024 != 0) {
            break;
        }
        bytes /= 1024;
        unit = letter;
    }
    return std::to_string(bytes) + unit;
}

std::string duration_text(std::int64_t microseconds) {
    std::array<char, 48> text{};
    const auto value = static_cast<double>(microseconds);
    if (microseconds < 1000) {
        std::snprintf(text.data(), text.size(), "%.0f us", value);
    } else if (microseconds < 1'000'000) {
        std::snprintf(text.data(), text.size(), "%.1f ms", value / 1e3);
    } else {
        std::snprintf(text.data(), text.size(), "%.1f s", value / 1e6);
    }
    return text.data();
}

} // namespace godwit::cli
