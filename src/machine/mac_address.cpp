#include "machine/mac_address.h"

#include <charconv>
#include <cstdio>

namespace godwit::machine {

Result<MacBytes> parse_mac_address(std::string_view text) {
    constexpr std::size_t text_bytes = 17;
    MacBytes bytes{};
    bool good = text.size() == text_bytes;
    for (std::size_t i = 0; good && i < bytes.size(); ++i) {
        const char* begin = text.data() + 3 * i;
        const auto [end, error] = std::from_chars(begin, begin + 2, bytes[i], 16);
        good = error == std::errc() && end == begin + 2 &&
               (i + 1 == bytes.size() || text[3 * i + 2] == ':');
    }
    if (!good || (bytes[0] & 1U) != 0) {
        return Error(ErrorCode::invalid_argument,
                     "'" + std::string(text) + "' is no MAC address of one interface");
    }
    return bytes;
}

std::string derived_mac_address(std::string_view machine, std::size_t index) {
    // FNV-1a over name and index.
    std::uint64_t hash = 0xCBF2'9CE4'8422'2325;
    for (const char c : std::string(machine) + "/" + std::to_string(index)) {
        hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100'0000'01B3;
    }
    std::array<char, 18> text{};
    std::snprintf(text.data(),
                  text.size(),
                  "52:54:00:%02x:%02x:%02x",
                  static_cast<unsigned>(hash & 0xFFU),
                  static_cast<unsigned>(hash >> 8U & 0xFFU),
                  static_cast<unsigned>(hash >> 16U & 0xFFU));
    return text.data();
}

} // namespace godwit::machine
