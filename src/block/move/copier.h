#pragma once

/// Copies ranges from one device to the other beside the guest's requests, several at a time. What
/// is copied, and when a range is fixed, says its Plan; the copier knows nothing of schemes (HS-2).
/// Runs of zeros become zeroing that may deallocate, so that holes stay holes.
///
/// Thread rule: the loop of both devices. Nothing of the Plan is called from inside create().

#include "block/aligned_buffer.h"
#include "block/block_device.h"
#include "block/move/range_locks.h"
#include "sys/alarm.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::block {

struct CopierOptions {
    std::uint32_t block_bytes = 512;
    std::uint32_t chunk_bytes = 256 * 1024;   ///< A multiple of the block.
    std::uint32_t depth = 8;                  ///< Ranges on their way at once.
    std::uint64_t limit_bytes_per_second = 0; ///< 0: as fast as it goes.
};

class Copier {
  public:
    enum class FailedAt : std::uint8_t { reading, writing };

    class Plan {
      public:
        Plan() = default;
        Plan(const Plan&) = delete;
        Plan& operator=(const Plan&) = delete;
        virtual ~Plan() = default;
        /// The next range to look at, at most `blocks_max`; nothing: the pass is over for now.
        [[nodiscard]] virtual std::optional<BlockRange> next_range(std::uint64_t blocks_max) = 0;
        /// The range is the copier's now (its claim is held, if it takes one): appends what of it
        /// is to be copied, in order.
        virtual void select(const BlockRange& range, std::vector<BlockRange>& runs) = 0;
        /// Written at the destination.
        virtual void copied(const BlockRange& run) = 0;
        virtual void copy_failed(FailedAt where, const Error& reason) = 0;
        /// A range is finished; there may be room for another, or none left.
        virtual void range_finished() = 0;
    };

    [[nodiscard]] static Result<std::unique_ptr<Copier>>
    create(Plan& plan, RangeLocks& locks, sys::AlarmClock& clock, const CopierOptions& options);
    Copier(const Copier&) = delete;
    Copier& operator=(const Copier&) = delete;
    ~Copier() = default;

    enum class Claims : std::uint8_t { none, taken };
    /// The direction and rule from now on; nothing may be on its way.
    void start(BlockDevice& from, BlockDevice& to, Claims claims);
    /// Starts as many ranges as there is room for.
    void run();
    /// Nothing new from now on, until start(). What waits for its claim is given up.
    void stop();
    /// The devices are about to go; what they still bring to its end counts for nothing.
    void abandon() noexcept { abandoned_ = true; }
    [[nodiscard]] bool idle() const noexcept { return active_ == 0; }
    /// The pass had no further range when it was last asked.
    [[nodiscard]] bool exhausted() const noexcept { return exhausted_; }
    /// Counts at once, also for what waits by the limit before.
    void set_limit(std::uint64_t bytes_per_second) noexcept;

  private:
    struct Unit {
        Copier* copier = nullptr;
        RangeLocks::Claim claim;
        std::vector<BlockRange> runs;
        std::size_t run = 0;
        std::uint64_t read_from = 0; ///< Block at the buffer's beginning.
        AlignedBuffer buffer;
        iovec segment{};
        BlockRequest request;
        bool taken = false;
    };

    Copier(Plan& plan, RangeLocks& locks, sys::AlarmClock& clock, const CopierOptions& options);
    [[nodiscard]] bool paced_out();
    [[nodiscard]] Unit* idle_unit() noexcept;
    [[nodiscard]] bool start_next(Unit& unit);
    static void granted(RangeLocks::Claim& claim) noexcept;
    void begin(Unit& unit);
    static void read_done(BlockRequest& request, Status status) noexcept;
    static void write_done(BlockRequest& request, Status status) noexcept;
    void write_run(Unit& unit);
    void finish(Unit& unit);
    void fail(Unit& unit, FailedAt where, const Error& reason);

    Plan& plan_;
    RangeLocks& locks_;
    sys::AlarmClock& clock_;
    CopierOptions options_;
    BlockDevice* from_ = nullptr;
    BlockDevice* to_ = nullptr;
    Claims claims_ = Claims::none;
    std::vector<Unit> units_; ///< Fixed.
    std::uint32_t active_ = 0;
    Unit* waiting_ = nullptr; ///< For its claim; then no other starts, so that ranges go in order.
    bool stopped_ = true;
    bool abandoned_ = false;
    bool exhausted_ = false;
    sys::Moment next_start_; ///< By the limit.
    std::unique_ptr<sys::Alarm> alarm_;
};

} // namespace godwit::block
