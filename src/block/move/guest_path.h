#pragma once

/// The way of a guest's requests to its disk, also while the disk moves: to the source, the
/// destination or both, as the move's routing says (HS-1, HS-5). Without a move a request goes
/// straight through; only its completion is counted.
///
/// Promises: overlapping changes are done in the order they came on both sides; a flush covers, on
/// every side that has data of its own, all changes that were done before it; force-unit-access
/// changes are durable on every side they went to when they are done; a read gives the latest
/// acknowledged contents from a side that has it. During a move a discard that goes to the
/// destination becomes zeroing, so that both sides agree.
///
/// Thread rule: as BlockDevice. Used by MovingDevice and the Mover.

#include "block/block_device.h"
#include "block/decorate/interception.h"
#include "block/move/guest_operation.h"
#include "block/move/move_state.h"
#include "block/request_queue.h"
#include "sys/alarm.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::block {

class HotFilter;

/// What the guest has asked of its disk since it was opened.
struct GuestTraffic {
    std::uint64_t reads = 0;
    std::uint64_t read_bytes = 0;
    std::uint64_t changes = 0;
    std::uint64_t changed_bytes = 0;
    std::uint64_t flushes = 0;
};

class GuestPath {
  public:
    /// Who is told what moves need to know. Calls come from completions, never from submit().
    class Listener {
      public:
        Listener() = default;
        Listener(const Listener&) = delete;
        Listener& operator=(const Listener&) = delete;
        virtual ~Listener() = default;
        /// Requests have drained: no plain change, or nothing at all, is in flight.
        virtual void path_drained() noexcept = 0;
        /// The destination failed a guest's request; the guest did not notice unless it must.
        virtual void destination_failed(const Error& reason) noexcept = 0;
    };

    [[nodiscard]] static Result<std::unique_ptr<GuestPath>>
    create(std::unique_ptr<BlockDevice> disk, sys::AlarmClock& clock);
    GuestPath(const GuestPath&) = delete;
    GuestPath& operator=(const GuestPath&) = delete;
    ~GuestPath();

    void submit(BlockRequest& request);
    void kick();
    [[nodiscard]] std::uint32_t in_flight() const noexcept { return in_flight_; }
    [[nodiscard]] const GuestTraffic& traffic() const noexcept { return traffic_; }
    [[nodiscard]] BlockDevice& source() noexcept { return *source_; }
    [[nodiscard]] BlockDevice* destination() noexcept { return destination_.get(); }
    /// Sees every change from now on; null: nobody.
    void set_filter(HotFilter* filter) noexcept { filter_ = filter; }

    /// Ends what is in flight inside the devices; only the destructors follow.
    void close_devices() noexcept;

    // For the mover.

    void attach(MoveState& state, std::unique_ptr<BlockDevice> destination, Listener& listener);
    /// The move is over; nothing may be in flight. The guest's disk from now on is the destination
    /// (moved) or stays the source. Gives the other one.
    enum class Keep : std::uint8_t { source, destination };
    [[nodiscard]] std::unique_ptr<BlockDevice> detach(Keep keep);
    /// Requests that come from now on wait.
    void hold() noexcept { holding_ = true; }
    void release();
    /// Nothing is in flight but what is held.
    [[nodiscard]] bool drained() const noexcept { return active_ == 0; }
    /// Changes that went out without a claim and are not done.
    [[nodiscard]] std::uint32_t plain_changes() const noexcept { return plain_changes_; }
    /// The guest's disk has failed a flush that was not the guest's: what the guest has written may
    /// be lost all the same, so its next flush fails.
    void owe_failure(Error reason) { owed_failure_ = std::move(reason); }

    /// Changes at once that may be acknowledged while one side still writes, and their data.
    static constexpr std::uint32_t unfinished_max = 64;
    static constexpr std::uint64_t unfinished_bytes_max = std::uint64_t{16} << 20U;

  private:
    friend struct GuestOperation;
    enum class Side : std::uint8_t { source, destination };

    GuestPath(std::unique_ptr<BlockDevice> disk, sys::AlarmClock& clock);
    void begin(BlockRequest& request);
    void begin_plain(BlockRequest& request);
    void begin_claimed(BlockRequest& request);
    static void plain_done(BlockRequest& request, Status status) noexcept;
    void plain_change_done(const BlockRequest& request, const Status& status);
    void mark(const BlockRange& range);
    void count(const BlockRequest& request) noexcept;
    [[nodiscard]] BlockRange range_of(const BlockRequest& request) const noexcept;
    void refuse(BlockRequest& request, Status why);
    void ring();
    /// After a request has left: the mover may be waiting for that.
    void after_departure();

    // Operations: requests that a move sends its own ways.
    GuestOperation& take_operation(BlockRequest& request);
    void retire(GuestOperation& operation);
    void acknowledge(GuestOperation& operation, Status status);
    void submit_part(GuestOperation& operation, Side side, BlockRange range);
    [[nodiscard]] bool replaces_durable(const GuestOperation& operation,
                                        Side side,
                                        const BlockRange& range) const noexcept;
    static void part_done(BlockRequest& part, Status status) noexcept;
    void finish_claim(GuestOperation& operation);

    // guest_changes.cpp
    void begin_change(GuestOperation& operation);
    static void granted(RangeLocks::Claim& claim) noexcept;
    void issue_change(GuestOperation& operation);
    void issue_both(GuestOperation& operation, BlockRange on_destination);
    [[nodiscard]] bool may_finish_later(GuestOperation& operation);
    void change_part_done(GuestOperation& operation, Side side);
    void acknowledge_early(GuestOperation& operation);
    void settle_change(GuestOperation& operation);
    [[nodiscard]] Status settle_both(GuestOperation& operation);
    [[nodiscard]] bool repeat_at_source(GuestOperation& operation);
    void settle_redirected(GuestOperation& operation);
    void end_unfinished(GuestOperation& operation);
    void give_room_back(GuestOperation& operation) noexcept;

    // guest_reads.cpp
    void begin_read(GuestOperation& operation);
    void read_on(GuestOperation& operation);
    struct ReadRun {
        BlockRange range;
        Side side;
    };
    [[nodiscard]] ReadRun next_read_run(const GuestOperation& operation,
                                        const BlockRange& range) const noexcept;
    [[nodiscard]] bool prefers_destination(const BlockRange& run) const noexcept;

    // guest_flushes.cpp
    void begin_flush(GuestOperation& operation);
    void issue_flush(GuestOperation& operation);
    void start_ripe_flushes();
    void settle_flush(GuestOperation& operation);
    void source_flush_failed();
    [[nodiscard]] Status take_owed_failure();

    sys::AlarmClock& clock_;
    std::unique_ptr<BlockDevice> source_; ///< What the guest's disk is.
    std::unique_ptr<BlockDevice> destination_;
    MoveState* state_ = nullptr; ///< Null: no move.
    Listener* listener_ = nullptr;
    HotFilter* filter_ = nullptr;
    GuestTraffic traffic_;

    InterceptionPool plain_;
    std::deque<GuestOperation> operations_; ///< Stable addresses; grows to the most in flight.
    std::vector<GuestOperation*> idle_;
    RequestQueue held_;
    std::vector<Interception*> refused_; ///< Fail with the next alarm.
    bool holding_ = false;
    bool closing_ = false;
    std::uint32_t in_flight_ = 0; ///< The guest's, held ones included.
    std::uint32_t active_ = 0;    ///< Requests and operations that are not at their end.
    std::uint32_t plain_changes_ = 0;

    // aio: changes that were acknowledged while one side still writes, by number.
    std::uint64_t next_acknowledged_ = 1;
    std::vector<std::uint64_t> unfinished_;
    // Changes on their way that may be: room is taken when they go out.
    std::uint32_t early_changes_ = 0;
    std::uint64_t early_bytes_ = 0; ///< Of guests' data that is kept for them.
    std::vector<GuestOperation*> waiting_flushes_;
    std::optional<Error> owed_failure_;

    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::block
