#pragma once

/// A bounded set of page-aligned buffers for transfers whose own memory is misaligned, and one
/// buffer of zeros. Memory is taken with the first use of each. Owner thread only.

#include "sys/mapping.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace godwit::block {

inline constexpr std::size_t bounce_bytes = std::size_t{128} * 1024;
inline constexpr std::size_t bounce_buffers_max = 8;

class BouncePool {
  public:
    /// All buffers and the zeros lie in one mapping, backed by pages only once they are written.
    [[nodiscard]] static Result<BouncePool> create();
    /// A buffer of bounce_bytes; empty if all are taken.
    [[nodiscard]] std::span<std::byte> try_take() noexcept;
    void give_back(std::span<std::byte> buffer) noexcept;
    /// bounce_bytes of zeros, never written.
    [[nodiscard]] std::span<std::byte> zeros() const noexcept;

  private:
    explicit BouncePool(sys::MappedRegion memory);
    sys::MappedRegion memory_;
    std::vector<std::span<std::byte>> free_;
};

} // namespace godwit::block
