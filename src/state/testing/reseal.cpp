#include "state/testing/reseal.h"

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace godwit::state::testing {

namespace {

constexpr std::size_t header_fixed_bytes = 12; // Magic and format number.
constexpr std::size_t checksum_bytes = 8;

std::uint32_t load32(const std::string& bytes, std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
}

void seal(std::string& bytes, std::size_t from, std::size_t to) {
    const std::uint64_t checksum = XXH3_64bits(bytes.data() + from, to - from);
    std::memcpy(bytes.data() + to, &checksum, sizeof(checksum));
}

std::size_t after_text(const std::string& bytes, std::size_t at) {
    return at < bytes.size() ? at + 1 + static_cast<unsigned char>(bytes[at]) : bytes.size();
}

} // namespace

void reseal(std::string& bytes) {
    std::size_t at = header_fixed_bytes;
    for (int text = 0; text < 3; ++text) {
        at = after_text(bytes, at);
    }
    at += sizeof(std::uint32_t); // Section count.
    // Each pass moves on by at least a section's fixed bytes; what is left must hold the trailer.
    while (at < bytes.size()) {
        const std::size_t integers = after_text(bytes, at);
        if (integers + 16 > bytes.size()) {
            break;
        }
        const std::size_t end = integers + 16 + load32(bytes, integers + 12);
        if (end + 2 * checksum_bytes > bytes.size()) {
            break;
        }
        seal(bytes, at, end);
        at = end + checksum_bytes;
    }
    if (bytes.size() >= checksum_bytes) {
        seal(bytes, 0, bytes.size() - checksum_bytes);
    }
}

} // namespace godwit::state::testing
