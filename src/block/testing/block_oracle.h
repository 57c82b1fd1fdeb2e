#pragma once

/// For tests and simulations: knows which contents a disk may give, from what was asked of it and
/// answered. Every write has contents of its own, so that each block read names its write.
///
/// The rule: a version is over once a change that began after it had ended has ended itself; what
/// failed, or is a discard, may or may not have happened. After a power cut only what was made
/// durable ends others. One thread.

#include "block/block_set.h"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace godwit::block::testing {

class BlockOracle {
  public:
    enum class Change : std::uint8_t { write, zeroes, discard };
    using Number = std::size_t;

    BlockOracle(std::uint64_t blocks, std::uint32_t block_bytes)
        : block_bytes_(block_bytes), versions_(blocks) {}

    /// A change goes out. fill() gives the contents of a write.
    Number begin(Change change, BlockRange range);
    void fill(Number number, std::span<std::byte> out) const;
    enum class Durable : std::uint8_t { no, yes };
    void end(Number number, bool succeeded, Durable durable);
    /// A moment, for reads and flushes that begin now.
    [[nodiscard]] std::uint64_t now() noexcept { return ++tick_; }
    /// A flush that began then has succeeded.
    void flushed(std::uint64_t since);

    /// A flush that began then has failed: what was not durable may never become so, whatever other
    /// flushes say that were on their way with it, or come later.
    void flush_failed(std::uint64_t since) noexcept;

    /// Empty if a read of `data` at `first`, begun at `since`, is right; else what is wrong.
    [[nodiscard]] std::string
    check(std::uint64_t first, std::span<const std::byte> data, std::uint64_t since) const;
    /// The same for what is found after a power cut.
    [[nodiscard]] std::string check_after_crash(std::span<const std::byte> disk) const;
    /// Blocks with changes that failed or may not have happened, which two sides may disagree on.
    [[nodiscard]] bool settled(std::uint64_t block) const;

  private:
    static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
    struct Event {
        Change change = Change::write;
        BlockRange range;
        std::uint64_t begun = 0;
        std::uint64_t ended = never;
        bool strong = false; ///< Happened for sure.
        bool durable = false;
        std::uint64_t flushed = 0; ///< Durable since then, by a flush.
    };
    enum class By : std::uint8_t { end, durability };

    [[nodiscard]] bool
    possible(const Event* version, std::uint64_t block, std::uint64_t since, By by) const;
    [[nodiscard]] std::string check_block(std::uint64_t block,
                                          std::span<const std::byte> data,
                                          std::uint64_t since,
                                          By by) const;

    std::uint32_t block_bytes_;
    std::vector<Event> events_;
    std::vector<std::vector<Number>> versions_; ///< By block.
    std::vector<Number> volatile_;              ///< Strong, not durable.
    std::uint64_t tick_ = 0;
};

} // namespace godwit::block::testing
