#pragma once

/// One move of a machine's disk, from being asked for until the machine has settled what came of
/// it.
///
///     choosing (only "auto") -> moving -> over
///         |                      |  \-> stranded -> (cancel) moving
///         +------- cancel -------+
///
/// Thread rule: the disk's loop, but for what says "any thread".

#include "block/file_device.h"
#include "block/move/moving_device.h"
#include "machine/devices/disk_destination.h"
#include "machine/devices/scheme_choice.h"
#include "machine/disk_move_request.h"
#include "machine/machine.h"
#include "sys/alarm.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace godwit::machine {

/// Where a move is, for people and programs.
struct DiskMoveState {
    std::uint64_t id = 0; ///< Microseconds since 1970 when it was asked for.
    std::string disk;
    std::string source;
    std::string destination;
    bool created = false; ///< The destination was made for it.
    std::string asked;    ///< Scheme, or "auto".
    block::Scheme scheme = block::Scheme::slr;
    bool safe = true;  ///< The source has everything, whenever the process may die.
    std::string phase; ///< Of choosing, or a block::MovePhase.
    block::MoveProgress progress;
    std::optional<SchemeFindings> findings;
    std::uint32_t changes = 0; ///< Of the scheme on the way, because measuring contradicted it.
    std::optional<block::MoveReport> report;
};

/// One JSON object: how far it is, or once there is a report, what became of it
/// (docs/reports.md, "disk-move").
[[nodiscard]] std::string to_json(const DiskMoveState& state);

class DiskMove {
  public:
    struct Args {
        std::size_t index = 0;
        block::MovingDevice& disk;
        sys::EventLoop& loop;
        sys::AlarmClock& clock;
        const MachineEvents& events;
        DiskMoveRequest request;
        DiskSpec spec_before;
        std::uint32_t queue_depth = 128;
        double source_wear = 0;
    };
    /// Starts it; on an error `destination` is as it was.
    [[nodiscard]] static Result<std::unique_ptr<DiskMove>> start(Args args,
                                                                 DiskDestination& destination);
    DiskMove(const DiskMove&) = delete;
    DiskMove& operator=(const DiskMove&) = delete;
    /// Once it is over, or abandoned and the disk is gone.
    ~DiskMove() = default;

    [[nodiscard]] Status cancel();
    /// The devices are about to go: nothing is told any more.
    void abandon() noexcept;

    /// Any thread.
    [[nodiscard]] DiskMoveState state() const;
    [[nodiscard]] bool over() const noexcept { return over_.load(); }
    [[nodiscard]] bool stranded() const noexcept { return stranded_.load(); }
    [[nodiscard]] const std::string& name() const noexcept { return name_; }
    [[nodiscard]] const std::string& destination_path() const noexcept { return destination_path_; }

    /// Once it is over: the disk as it is now described, if it was moved.
    [[nodiscard]] const DiskSpec& spec() const noexcept { return spec_; }
    [[nodiscard]] DiskDestination take_destination() { return std::move(*destination_); }

  private:
    explicit DiskMove(Args args);
    [[nodiscard]] Status begin(DiskDestination& destination);
    void chosen(Result<SchemeFindings> findings);
    [[nodiscard]] Status move(block::Scheme scheme);
    [[nodiscard]] Status commit();
    void finished(const block::MoveReport& report);
    /// It ends before anything was moved, as soon as no device calls.
    void end_early(Error reason);
    void ended_early();
    void end();
    void tick();
    void reconsider();
    void publish();

    Args args_;
    std::string name_;
    std::string destination_path_;
    DiskSpec spec_;
    std::optional<DiskDestination> destination_;
    std::unique_ptr<block::BlockDevice> device_; ///< Of the destination, until the move has it.
    bool abandoned_ = false;
    bool cancelled_ = false;
    std::optional<Error> early_; ///< Why it ends before anything was moved.
    std::uint32_t ticks_ = 0;
    block::GuestTraffic traffic_;
    sys::Moment traffic_at_;

    std::atomic<bool> over_{false};
    std::atomic<bool> stranded_{false};
    mutable std::mutex mutex_;
    DiskMoveState published_; ///< Guarded by mutex_.

    std::unique_ptr<SchemeChooser> chooser_;
    std::unique_ptr<sys::Alarm> alarm_;
};

} // namespace godwit::machine
