#pragma once

/// Where a new delta of a disk lies: a file that is made for it, or a block device, open under its
/// lock, laid out and opened. Control thread; waits for storage.

#include "base/result.h"
#include "block/move/disk_destination.h"
#include "block/overlay/delta_format.h"
#include "machine/machine_spec.h"

#include <cstdint>
#include <span>
#include <string>

namespace godwit::machine {

struct DeltaWish {
    std::string path;
    /// Of the file; 0: enough for all of the disk, or nine tenths of the free space if that is
    /// less.
    std::uint64_t bytes = 0;
    std::uint64_t disk_bytes = 0;
    std::uint32_t logical_block_bytes = 0; ///< That the guest knows.
    bool direct = true;                    ///< O_DIRECT if the place can do it.
    std::span<const block::OwnImage> own;  ///< Which it must not be.
};

class DeltaPlace {
  public:
    /// Errors say which way the place is wrong; nothing is left behind then. The journal's room is
    /// taken at once, so that full storage never keeps a flush from naming what was written.
    [[nodiscard]] static Result<DeltaPlace> create(const DeltaWish& wish);

    [[nodiscard]] const DeltaSpec& spec() const noexcept { return spec_; }
    [[nodiscard]] const sys::Fd& image() const noexcept { return place_.image(); }
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
    /// Of the delta, before the first of the guest (LS-1).
    [[nodiscard]] std::uint64_t written_bytes() const noexcept { return written_bytes_; }
    [[nodiscard]] block::DeltaState take_state() noexcept { return std::move(state_); }
    /// The disk's writes go there; gives the descriptor.
    [[nodiscard]] sys::Fd keep() && { return std::move(place_).keep(); }
    void remove() { place_.remove(); }

  private:
    DeltaPlace(block::DiskDestination place, block::DeltaState state)
        : place_(std::move(place)), state_(std::move(state)) {}

    block::DiskDestination place_;
    block::DeltaState state_;
    DeltaSpec spec_;
    std::uint64_t bytes_ = 0;
    std::uint64_t written_bytes_ = 0;
};

/// Takes the file of a delta away that is merged, if its name is still its own. A block device
/// keeps it, empty.
void remove_delta(const DeltaSpec& delta, const sys::Fd& image);

} // namespace godwit::machine
