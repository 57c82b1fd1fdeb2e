#pragma once

/// One move of a disk, from being asked for until its owner has settled what came of it.
///
///     choosing (only "auto") -> moving -> over
///         |                      |  \-> stranded -> (cancel) moving
///         +------- cancel -------+
///
/// Thread rule: the disk's loop, but for what says "any thread".

#include "block/file_device.h"
#include "block/move/disk_destination.h"
#include "block/move/disk_move_request.h"
#include "block/move/moving_device.h"
#include "block/move/scheme_choice.h"
#include "sys/alarm.h"

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace godwit::block {

/// Where a move is, for people and programs.
struct DiskMoveState {
    std::uint64_t id = 0; ///< Microseconds since 1970 when it was asked for.
    std::string disk;
    std::string source;
    std::string destination;
    bool created = false; ///< The destination was made for it.
    std::string asked;    ///< Scheme, or "auto".
    bool estimate_only = false;
    Scheme scheme = Scheme::slr;
    bool safe = true;  ///< The source has everything, whenever the process may die.
    std::string phase; ///< Of choosing, or a MovePhase.
    MoveProgress progress;
    std::optional<SchemeFindings> findings;
    std::uint32_t changes = 0; ///< Of the scheme on the way, because measuring contradicted it.
    std::optional<MoveReport> report;
};

/// One JSON object: how far it is, or once there is a report, what became of it
/// (docs/reports.md, "disk-move").
[[nodiscard]] std::string to_json(const DiskMoveState& state);

/// Where an image lies, and how it is opened.
struct ImagePlace {
    std::string path;
    bool direct = true; ///< O_DIRECT.
};

/// What a move tells the disk's owner, on the disk's loop.
struct DiskMoveHooks {
    /// Notes for good that the disk lies there now; the guest waits. Empty: nothing is to be noted.
    std::function<Status(const ImagePlace& now)> note;
    /// It is over or stranded: to be settled on the owner's thread.
    std::function<void(std::string_view disk)> ended;
};

class DiskMove {
  public:
    struct Args {
        std::string name; ///< "disk0"
        std::string source;
        MovingDevice& disk;
        sys::EventLoop& loop;
        sys::AlarmClock& clock;
        DiskMoveHooks hooks;
        DiskMoveRequest request;
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
    [[nodiscard]] const std::string& name() const noexcept { return args_.name; }
    [[nodiscard]] const std::string& destination_path() const noexcept { return place_.path; }

    /// Once it is over: where the disk lies, if it was moved.
    [[nodiscard]] const ImagePlace& place() const noexcept { return place_; }
    [[nodiscard]] DiskDestination take_destination() { return std::move(*destination_); }

  private:
    explicit DiskMove(Args args);
    [[nodiscard]] Status begin(DiskDestination& destination);
    void chosen(Result<SchemeFindings> findings);
    [[nodiscard]] Status move(Scheme scheme);
    [[nodiscard]] Status commit();
    void finished(const MoveReport& report);
    /// It ends before anything was moved, as soon as no device calls.
    void end_early(Error reason);
    void ended_early();
    void end();
    void tick();
    void reconsider();
    void publish();

    Args args_;
    ImagePlace place_; ///< Of the destination.
    std::optional<DiskDestination> destination_;
    std::unique_ptr<BlockDevice> device_; ///< Of the destination, until the move has it.
    bool abandoned_ = false;
    bool cancelled_ = false;
    std::optional<Error> early_; ///< Why it ends before anything was moved.
    std::uint32_t ticks_ = 0;
    GuestTraffic traffic_;
    sys::Moment traffic_at_;

    std::atomic<bool> over_{false};
    std::atomic<bool> stranded_{false};
    mutable std::mutex mutex_;
    DiskMoveState published_; ///< Guarded by mutex_.

    std::unique_ptr<SchemeChooser> chooser_;
    std::unique_ptr<sys::Alarm> alarm_;
};

} // namespace godwit::block
