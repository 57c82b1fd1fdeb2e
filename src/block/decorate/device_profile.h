#pragma once

/// How a kind of storage behaves: speeds, delays and wear, as numbers in a text file that goes with
/// results (HS-10, docs/formats/device-profile.md). Values and pure functions; any thread.

#include "base/result.h"
#include "block/block_device.h"
#include "sys/clock.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace godwit::block {

/// Of one direction. A device serves transfers one after the other (`operation` and the bytes, and
/// `seek` if it does not go on where the one before ended); `latency` comes on top, for many at
/// once.
struct TransferProfile {
    std::uint64_t bytes_per_second = 0; ///< 0: no limit.
    sys::Nanoseconds operation{0};      ///< 1 / IOPS.
    sys::Nanoseconds seek{0};
    sys::Nanoseconds latency{0};
};

struct DeviceProfile {
    std::string name;
    TransferProfile read;
    TransferProfile write;
    sys::Nanoseconds flush{0};
    /// Writes use it up (flash): weight of its written bytes in the cost of a move, in thousandths.
    std::uint32_t wear_thousandths = 0;

    [[nodiscard]] const TransferProfile& of(BlockOperation operation) const noexcept {
        return operation == BlockOperation::read ? read : write;
    }
};

inline constexpr std::size_t profile_text_bytes_max = std::size_t{64} * 1024;

/// Reads a profile's text. Everything in it is checked; the error names the line.
[[nodiscard]] Result<DeviceProfile> parse_profile(std::string_view text);
[[nodiscard]] Result<DeviceProfile> load_profile(const std::string& path);

} // namespace godwit::block
