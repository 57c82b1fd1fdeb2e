#pragma once

/// Proof that guest pages did not move: the host frames that hold sampled pages, before and after
/// (requirements X-9, HE-2). Needs CAP_SYS_ADMIN; without it no frame is visible and nothing is
/// sampled.

#include "base/result.h"
#include "exchange/wire.h"
#include "memory/guest_memory.h"

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace godwit::exchange {

inline constexpr std::size_t frames_sampled_default = 256;

/// This process's own page map. A process without the right to see frames, or without /proc, may be
/// given the map opened by someone who has it. Any thread.
class PageMap {
  public:
    /// Used from now on instead of /proc/self/pagemap.
    void set(sys::Fd opened);
    /// Null if there is none.
    [[nodiscard]] std::shared_ptr<const sys::Fd> get() const;

  private:
    mutable std::mutex lock_;
    std::shared_ptr<const sys::Fd> given_;
};

/// Host frames of up to `count` pages that are present now, spread evenly over RAM. Empty if the
/// kernel shows no frames to us.
[[nodiscard]] std::vector<Frame>
sample_frames(const memory::GuestMemory& memory, const PageMap& map, std::size_t count);

/// How many of `frames` hold the same page here. Touches each page, so that it is mapped in this
/// process.
[[nodiscard]] std::uint32_t count_identical(const memory::GuestMemory& memory,
                                            const PageMap& map,
                                            const std::vector<Frame>& frames);

} // namespace godwit::exchange
