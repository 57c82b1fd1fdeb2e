#include "virtio/balloon/balloon_statistics.h"

#include <cstring>
#include <span>

namespace godwit::virtio {

namespace {
constexpr std::size_t entry_bytes = 10; // le16 tag, le64 value, packed
constexpr std::uint64_t entries_max = 64;
} // namespace

Status read_statistics(const Chain& chain, BalloonStatistics& statistics) {
    if (chain.readable_bytes > entries_max * entry_bytes) {
        return Error(ErrorCode::corrupt,
                     "balloon: " + std::to_string(chain.readable_bytes) + " bytes of statistics");
    }
    statistics.values = {};
    std::array<std::byte, entry_bytes> entry{};
    for (std::uint64_t offset = 0; chain.copy_out(offset, entry) == entry_bytes;
         offset += entry_bytes) {
        std::uint16_t tag = 0;
        std::uint64_t value = 0;
        std::memcpy(&tag, entry.data(), sizeof(tag));
        std::memcpy(&value, entry.data() + sizeof(tag), sizeof(value));
        if (tag < balloon_statistics_count) {
            statistics.values[tag] = value;
        }
    }
    ++statistics.reports;
    return ok();
}

} // namespace godwit::virtio
