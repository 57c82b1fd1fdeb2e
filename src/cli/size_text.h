#pragma once

/// Sizes as people write and read them. Any thread.

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace godwit::cli {

/// "4096", "512K", "256M", "4G", "1T": powers of 1024; lower case and a trailing "iB" or "B" are
/// taken too. invalid_argument for anything else, also for what does not fit into 64 bits.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);
/// The shortest exact form ("256M", "1536K", "100").
[[nodiscard]] std::string size_text(std::uint64_t bytes);
/// "1.2 ms", "35 us", "2.0 s"
[[nodiscard]] std::string duration_text(std::int64_t microseconds);

} // namespace godwit::cli
