#pragma once

/// Where a RAM file holds data, so that holes are neither read nor filled. Any thread; one at a
/// time per open file, whose position moves.

#include "base/result.h"
#include "sys/fd.h"

#include <cstdint>

namespace godwit::memory {

/// Bytes [start, end) of the file.
struct DataRun {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
};

/// The next run of data at or after `from`, cut off at `end`; empty if there is none. A file system
/// that knows no holes reports all as data.
[[nodiscard]] Result<DataRun> next_data(const sys::Fd& fd, std::uint64_t from, std::uint64_t end);

} // namespace godwit::memory
