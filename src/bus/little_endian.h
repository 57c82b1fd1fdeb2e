#pragma once

/// Registers as devices see them: little-endian numbers in byte ranges of bus accesses. Values.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace godwit::bus {

/// The number in up to eight bytes.
[[nodiscard]] inline std::uint64_t load_little(std::span<const std::byte> data) noexcept {
    std::uint64_t value = 0;
    std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
    return value;
}

/// The low bytes of `value`, as many as fit; zeroes beyond the eighth.
inline void store_little(std::span<std::byte> out, std::uint64_t value) noexcept {
    std::fill(out.begin(), out.end(), std::byte{0});
    std::memcpy(out.data(), &value, std::min(out.size(), sizeof(value)));
}

/// Part of a structure of `fields` read at `offset`; zeroes beyond its end.
inline void copy_from(std::span<const std::byte> fields,
                      std::uint64_t offset,
                      std::span<std::byte> out) noexcept {
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset < fields.size()) {
        const std::size_t count = std::min<std::size_t>(out.size(), fields.size() - offset);
        std::ranges::copy(fields.subspan(offset, count), out.begin());
    }
}

} // namespace godwit::bus
