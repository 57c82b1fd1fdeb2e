#pragma once

/// Memory at a page boundary, as direct transfers want it. Move-only; one thread at a time.

#include "base/units.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>

namespace godwit::block {

class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    /// Contents are undefined. Empty if there is no memory.
    explicit AlignedBuffer(std::uint64_t bytes)
        : memory_(
              static_cast<std::byte*>(std::aligned_alloc(page_size, round_up(bytes, page_size)))),
          bytes_(memory_ == nullptr ? 0 : bytes) {}

    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {memory_.get(), bytes_}; }
    [[nodiscard]] std::uint64_t size() const noexcept { return bytes_; }

  private:
    struct Free {
        void operator()(std::byte* memory) const noexcept { std::free(memory); }
    };
    std::unique_ptr<std::byte[], Free> memory_;
    std::uint64_t bytes_ = 0;
};

} // namespace godwit::block
