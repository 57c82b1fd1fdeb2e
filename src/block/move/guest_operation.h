#pragma once

/// One request of the guest while a move sends it its own ways. Used by GuestPath alone, which
/// keeps them in a pool, so that their lists keep their memory. Owner thread only.

#include "block/aligned_buffer.h"
#include "block/block_device.h"
#include "block/move/range_locks.h"
#include "block/move/scheme.h"

#include <sys/uio.h>

#include <cstdint>
#include <vector>

namespace godwit::block {

class GuestPath;

struct GuestOperation {
    GuestPath* path = nullptr;
    BlockRequest* guest = nullptr; ///< Not to be touched once acknowledged.
    BlockRange range;              ///< Empty for a flush.
    RangeLocks::Claim claim;

    BlockRequest source;
    BlockRequest destination;
    std::vector<iovec> source_segments;
    std::vector<iovec> destination_segments;
    BlockRange on_source;
    BlockRange on_destination;
    Status source_status;
    Status destination_status;

    AlignedBuffer memory; ///< The guest's data, which is the guest's again once acknowledged.
    iovec memory_segment{};
    std::uint64_t number = 0;           ///< Of an acknowledgement before the end.
    std::uint64_t waits_for_number = 0; ///< Of a flush: acknowledged changes up to it.
    std::uint64_t read_blocks = 0;      ///< Of a read: done so far.

    std::uint32_t pending = 0; ///< Parts on their way.
    BlockOperation operation = BlockOperation::read;
    Routing routing = Routing::tracked; ///< When its parts were issued.
    bool claimed = false;               ///< Held or waited for.
    bool acknowledged = false;
    /// A flush of the source failed when the source had done its part: that may be lost, and nobody
    /// has been told so. Done once more before the guest hears of it.
    bool source_again = false;
    bool repeats = false;          ///< That goes on.
    bool may_finish_later = false; ///< May be acknowledged when the first side has it.
    /// No change without a claim was on its way when this one went out: the two sides got it in the
    /// same order as all others.
    bool in_order = false;
    bool avoids_destination = false; ///< Of a read: it failed there.
    bool needs_destination = false;  ///< Of a flush: data of the guest lies only there.
    bool source_lacks = false;       ///< Of a flush: the source has refused some of it.
};

} // namespace godwit::block
