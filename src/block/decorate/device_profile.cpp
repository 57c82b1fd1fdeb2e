#include "block/decorate/device_profile.h"

#include "sys/fd.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace godwit::block {

namespace {

constexpr std::uint64_t rate_max = std::uint64_t{1} << 40U; // 1 TiB/s
constexpr std::uint64_t microseconds_max = 60'000'000;      // a minute
constexpr std::uint32_t wear_thousandths_max = 1'000'000;
constexpr std::size_t name_bytes_max = 64;
constexpr std::string_view blanks = " \t\r";

struct Line {
    std::size_t number = 0;
    std::string_view key;
    std::string_view value;
};

Error wrong(const Line& line, const std::string& why) {
    return {ErrorCode::corrupt, "device profile, line " + std::to_string(line.number) + ": " + why};
}

std::string_view trimmed(std::string_view text) noexcept {
    const std::size_t first = text.find_first_not_of(blanks);
    return first == std::string_view::npos
               ? std::string_view()
               : text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

Result<std::uint64_t> number(const Line& line, std::uint64_t max) {
    std::uint64_t value = 0;
    const std::string_view text = line.value;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value > max) {
        return wrong(line,
                     "'" + std::string(line.key) + "' takes a number up to " + std::to_string(max));
    }
    return value;
}

struct RateField {
    std::string_view key;
    std::uint64_t& (*place)(DeviceProfile&);
};
struct TimeField {
    std::string_view key;
    sys::Nanoseconds& (*place)(DeviceProfile&);
};

constexpr std::array<RateField, 2> rate_fields{{
    {"read_bytes_per_second", [](DeviceProfile& p) -> auto& { return p.read.bytes_per_second; }},
    {"write_bytes_per_second", [](DeviceProfile& p) -> auto& { return p.write.bytes_per_second; }},
}};
constexpr std::array<TimeField, 7> time_fields{{
    {"read_operation_us", [](DeviceProfile& p) -> auto& { return p.read.operation; }},
    {"write_operation_us", [](DeviceProfile& p) -> auto& { return p.write.operation; }},
    {"read_seek_us", [](DeviceProfile& p) -> auto& { return p.read.seek; }},
    {"write_seek_us", [](DeviceProfile& p) -> auto& { return p.write.seek; }},
    {"read_latency_us", [](DeviceProfile& p) -> auto& { return p.read.latency; }},
    {"write_latency_us", [](DeviceProfile& p) -> auto& { return p.write.latency; }},
    {"flush_us", [](DeviceProfile& p) -> auto& { return p.flush; }},
}};

Status apply(const Line& line, DeviceProfile& profile) {
    const auto is_key = [&](const auto& field) { return field.key == line.key; };
    if (const auto* field = std::ranges::find_if(rate_fields, is_key); field != rate_fields.end()) {
        field->place(profile) = GODWIT_TRY(number(line, rate_max));
        return ok();
    }
    if (const auto* field = std::ranges::find_if(time_fields, is_key); field != time_fields.end()) {
        field->place(profile) =
            std::chrono::microseconds(GODWIT_TRY(number(line, microseconds_max)));
        return ok();
    }
    if (line.key == "wear_thousandths") {
        profile.wear_thousandths =
            static_cast<std::uint32_t>(GODWIT_TRY(number(line, wear_thousandths_max)));
        return ok();
    }
    if (line.key == "name" && !line.value.empty() && line.value.size() <= name_bytes_max) {
        profile.name = line.value;
        return ok();
    }
    return wrong(line, "'" + std::string(line.key.substr(0, name_bytes_max)) + "' is not known");
}

} // namespace

Result<DeviceProfile> parse_profile(std::string_view text) {
    if (text.size() > profile_text_bytes_max) {
        return Error(ErrorCode::corrupt, "a device profile is too long");
    }
    DeviceProfile profile;
    for (std::size_t number = 1; !text.empty(); ++number) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view rest = trimmed(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        rest = trimmed(rest.substr(0, std::min(rest.find('#'), rest.size())));
        if (rest.empty()) {
            continue;
        }
        const std::size_t key_end = std::min(rest.find_first_of(blanks), rest.size());
        GODWIT_TRY(apply({.number = number,
                          .key = rest.substr(0, key_end),
                          .value = trimmed(rest.substr(key_end))},
                         profile));
    }
    if (profile.name.empty()) {
        return Error(ErrorCode::corrupt, "a device profile needs a name");
    }
    return profile;
}

Result<DeviceProfile> load_profile(const std::string& path) {
    const std::string text = GODWIT_TRY(sys::read_file(path, profile_text_bytes_max));
    return parse_profile(text).with_context("'" + path + "'");
}

} // namespace godwit::block
