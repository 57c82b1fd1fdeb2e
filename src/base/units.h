#pragma once

/// Distinct types for distinct quantities, so that an address is never taken for a page number.
/// Conversions are named and say how they round. All are plain values.

#include <compare>
#include <cstdint>

namespace godwit {

inline constexpr std::uint64_t page_size = 4096;
inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;
inline constexpr std::uint64_t sector_size = 512;

/// A guest-physical address in bytes. Whatever a guest writes is one of these and is checked on
/// use.
struct Gpa {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(Gpa, Gpa) = default;
};

/// A 4 KiB guest page number: Gpa / 4096.
struct PageIndex {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(PageIndex, PageIndex) = default;
};

/// A 512-byte disk sector number.
struct SectorIndex {
    std::uint64_t value = 0;
    friend constexpr auto operator<=>(SectorIndex, SectorIndex) = default;
};

/// An interrupt line of the in-kernel interrupt controllers (KVM's GSI).
struct Gsi {
    std::uint32_t value = 0;
    friend constexpr auto operator<=>(Gsi, Gsi) = default;
};

[[nodiscard]] constexpr PageIndex page_containing(Gpa gpa) noexcept {
    return PageIndex{gpa.value / page_size};
}
[[nodiscard]] constexpr Gpa start_of(PageIndex page) noexcept {
    return Gpa{page.value * page_size};
}
[[nodiscard]] constexpr std::uint64_t round_up(std::uint64_t value,
                                               std::uint64_t multiple) noexcept {
    return (value + multiple - 1) / multiple * multiple;
}
[[nodiscard]] constexpr std::uint64_t round_down(std::uint64_t value,
                                                 std::uint64_t multiple) noexcept {
    return value / multiple * multiple;
}

} // namespace godwit
