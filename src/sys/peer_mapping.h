#pragma once

/// Memory of another process that is not trusted, mapped here. Its owner may make the object
/// smaller at any time, and an access beyond the new end raises SIGBUS. The signal's handler then
/// puts zero pages of our own in place of the whole mapping and notes that it is torn: the process
/// lives on, what it still writes there goes nowhere, and the owner of the mapping is to end the
/// conversation. (Accesses by the kernel on our behalf fail with EFAULT instead.)
///
/// Thread rule: a value; torn() on any thread.

#include "base/result.h"
#include "sys/fd.h"
#include "sys/mapping.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace godwit::sys {

/// Mappings that exist at once.
inline constexpr std::size_t peer_mappings_max = 1024;

class PeerMapping {
  public:
    struct Part {
        std::uint64_t offset = 0; ///< Of the object; a multiple of 4096.
        std::uint64_t bytes = 0;  ///< Not 0.
    };
    /// Maps `part` of a memory object (memfd, shared memory, a file of hugetlbfs, a plain file) for
    /// reading and writing. invalid_argument if it is something else or smaller than that.
    [[nodiscard]] static Result<PeerMapping> create(const Fd& object, Part part);

    PeerMapping(PeerMapping&& other) noexcept
        : region_(std::move(other.region_)), part_(std::exchange(other.part_, {})),
          slot_(std::exchange(other.slot_, no_slot)) {}
    PeerMapping& operator=(PeerMapping&&) = delete;
    PeerMapping(const PeerMapping&) = delete;
    PeerMapping& operator=(const PeerMapping&) = delete;
    ~PeerMapping();

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return part_; }
    /// The object became smaller than the part, and somebody noticed.
    [[nodiscard]] bool torn() const noexcept;

  private:
    static constexpr std::size_t no_slot = ~std::size_t{0};
    PeerMapping(MappedRegion region, std::span<std::byte> part, std::size_t slot)
        : region_(std::move(region)), part_(part), slot_(slot) {}
    MappedRegion region_;
    std::span<std::byte> part_;
    std::size_t slot_ = no_slot; ///< Where the signal's handler finds the mapping.
};

} // namespace godwit::sys
