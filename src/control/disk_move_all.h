#pragma once

/// Moves the disks of all machines, or of one, to a pool of directories: finds out what there is,
/// has each VMM measure devices and watch its guest, plans all moves together (block/plan), and
/// carries the plan out, each move as an operation of its own. One that fails leaves the others
/// alone.
///
///     listing --room, names--> measuring --> planning --> moving --all over--> over
///        +--something speaks against it--+      +--only a plan was wanted--> over
///        +--cancelled-------------------------------------+--dropped, brought back--> over
///
/// A godwitd that dies takes the plan with it: moves under way go on in their VMMs and are found by
/// the next one; the others stay where they are. Control thread only.

#include "block/plan/move_queue.h"
#include "control/disk_fleet.h"
#include "control/disk_pool.h"
#include "control/reply.h"
#include "sys/clock.h"
#include "sys/event_loop.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

class Supervisor;
struct DiskWork;

struct DiskMoveAllRequest {
    std::vector<std::string> directories;
    std::string machine; ///< Empty: all.
    FleetWish wish;
    bool dry_run = false;
    bool keep_going = false; ///< Also when something speaks against some of the disks.
};

class DiskMoveAll : public std::enable_shared_from_this<DiskMoveAll> {
  public:
    DiskMoveAll(Supervisor& supervisor, DiskMoveAllRequest request, DiskPool pool);
    DiskMoveAll(const DiskMoveAll&) = delete;
    DiskMoveAll& operator=(const DiskMoveAll&) = delete;
    ~DiskMoveAll();

    void start(std::uint64_t operation);
    /// No disk is begun any more; those under way are brought back if they still can be.
    [[nodiscard]] Status cancel();

  private:
    enum class Step : std::uint8_t { listing, measuring, moving, over };

    void list(const std::string& machine);
    void listed(const std::string& machine, const Result<Json>& answer);
    void add(const std::string& machine, const Json& disk);
    void place_all();
    void measure_next();
    [[nodiscard]] bool measures_at(const FleetDisk& disk) const;
    void measure(std::size_t index);
    void measured(std::size_t index, const Result<Json>& report);
    /// `ended` gets `index` back.
    struct Errand {
        const DiskWork& work;
        std::size_t index;
        void (DiskMoveAll::*ended)(std::size_t index, const Result<Json>& report);
    };
    void have_done(FleetDisk& disk, const Json& params, const Errand& errand);
    void plan();
    void pump();
    void begin(std::size_t index);
    void ended(std::size_t index, const Result<Json>& report);
    void later(void (DiskMoveAll::*step)());
    void watch();
    void look();
    void refuse(FleetDisk& disk, const std::string& why);
    [[nodiscard]] bool must_stop() const;
    void cancel_under_way();
    void finish();
    [[nodiscard]] Json make_report();
    [[nodiscard]] std::string_view outcome() const;
    void fail(const Error& error);
    [[nodiscard]] std::shared_ptr<DiskMoveAll> leave();

    Supervisor& supervisor_;
    const DiskMoveAllRequest request_;
    DiskPool pool_;
    std::uint64_t operation_ = 0;
    sys::Moment started_at_;
    sys::Moment moves_began_at_;
    Step step_ = Step::listing;
    bool cancelled_ = false;
    std::size_t unanswered_ = 0;
    std::vector<FleetDisk> fleet_;
    std::vector<std::size_t> measuring_; ///< Those whose VMM is at it.
    std::optional<FleetSituation> situation_;
    std::optional<block::MovePlan> plan_;
    std::optional<block::MoveQueue> queue_; ///< Its numbers are those of the situation.
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
