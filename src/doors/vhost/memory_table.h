#pragma once

/// The guest's memory as a front end describes it: regions of memory objects, each with its guest
/// address and its address in the front end's process. Everything is hostile.
///
/// Thread rule: the session's thread; what memory() gave may be used on any thread and outlives
/// the table.

#include "base/result.h"
#include "base/units.h"
#include "doors/vhost/protocol.h"
#include "memory/guest_memory.h"
#include "sys/fd.h"
#include "sys/peer_mapping.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace godwit::doors::vhost {

/// Regions at once; SET_MEM_TABLE brings at most 8, ADD_MEM_REG more.
inline constexpr std::size_t memory_slots_max = 64;

class MemoryTable {
  public:
    void clear() noexcept { slots_.clear(); }
    /// One more region, which overlaps no other, neither for the guest nor in the front end.
    [[nodiscard]] Status add(const MemoryRegion& region, const sys::Fd& object);
    /// not_found if there is no such region.
    [[nodiscard]] Status remove(const MemoryRegion& region);

    /// The regions as guest memory.
    [[nodiscard]] Result<std::shared_ptr<memory::GuestMemory>> memory() const;
    /// Where an address of the front end's process lies for the guest.
    [[nodiscard]] Result<Gpa> guest_address(std::uint64_t user_address) const;
    struct Slot {
        MemoryRegion region;
        sys::Fd object; ///< For a successor.
        std::shared_ptr<sys::PeerMapping> mapping;
    };
    [[nodiscard]] const std::vector<Slot>& slots() const noexcept { return slots_; }
    /// A memory object became smaller while it was in use.
    [[nodiscard]] bool torn() const noexcept;

  private:
    std::vector<Slot> slots_;
};

} // namespace godwit::doors::vhost
