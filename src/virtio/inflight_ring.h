#pragma once

/// One split ring's record of what was taken from it and not given back, in memory that outlives
/// the process: a successor finds there what it has to do again. The layout and the order of the
/// stores are those of "Inflight I/O tracking" in the vhost-user specification; the memory comes
/// back from another process and is not trusted.
///
/// Thread rule: VirtQueue's.

#include "base/result.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace godwit::virtio {

class InflightRing {
  public:
    /// What a ring of `size` takes; a multiple of 64.
    [[nodiscard]] static std::uint64_t bytes_for(std::uint16_t size) noexcept;

    /// Over `part` (at least bytes_for(size), aligned to 8), which `keep` holds. All zeros is a
    /// record that was never used; another version or size is corrupt.
    [[nodiscard]] static Result<InflightRing>
    open(std::span<std::byte> part, std::uint16_t size, std::shared_ptr<const void> keep);

    /// Heads of the chains that were taken and not given back, the oldest first, for a ring whose
    /// used index is `used_index` now. Nothing if the record was never used.
    [[nodiscard]] std::optional<std::vector<std::uint16_t>> recover(std::uint16_t used_index);

    void begin(std::uint16_t head) noexcept;
    /// The chain was not looked at after all.
    void revoke(std::uint16_t head) noexcept;
    /// Before, and after, the driver sees the used index that gives `head` back.
    void prepare_end(std::uint16_t head) noexcept;
    void end(std::uint16_t head, std::uint16_t used_index) noexcept;

  private:
    struct Header;
    struct Entry;
    InflightRing(std::span<std::byte> part, std::uint16_t size, std::shared_ptr<const void> keep);
    [[nodiscard]] Header& header() const noexcept;
    [[nodiscard]] Entry& entry(std::uint16_t head) const noexcept;

    std::span<std::byte> part_;
    std::uint16_t size_;
    std::uint64_t counter_ = 0; ///< Of the next chain: tells the order they were taken in.
    std::shared_ptr<const void> keep_;
};

} // namespace godwit::virtio
