#pragma once

// clang-format off
/// The old godwitd's part of an exchange between two partitions of its host: divides CPUs and memory,
/// starts the new godwitd on its part, hands it one machine after the other, and bequeaths the rest to it
/// (requirements MP-1 to MP-8). Docs: docs/formats/partition-region.md; the exchange of each machine is an
/// ExchangeRun, their order and the report are ExchangeAll's.
///
///   #  step     what is done                                         undo until the seal: abort()
///   1  region   shared region, our own memory in the pool            given back
///   2  divide   tokens, free frames, CPU partitions                  reclaimed once the new one has ended
///   3  start    the new godwitd, on its CPUs, says hello             goodbye, and SIGKILL if it does not go
///   4  beside   both beat for a second and more                      as 3
///   5  move     one machine at a time; freed CPUs go over            ExchangeAll exchanges them back
///   6  estate   last report, deadline, pointers; sealed              none: POINT OF NO RETURN
///   7  leave    this process ends                                    none
///
/// Numbers stand in fault points ("control.division.3"). Machines the new godwitd has taken are still
/// watched by this one: should it die, nothing of them has to be found again. Control thread only.
// clang-format on

#include "control/reply.h"
#include "control/vmm_instance.h"
#include "exchange/partition/cpu_partition.h"
#include "exchange/partition/old_instance.h"
#include "sys/event_loop.h"
#include "sys/process.h"
#include "sys/unix_socket.h"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

namespace godwit::control {

class Supervisor;

struct DivisionRequest {
    std::string daemon_program;
    std::string vmm_program;
    exchange::partition::CpuSet target_cpus;
    std::uint64_t operation = 0;
    std::size_t machines = 0; ///< That are to move.
};

class HostDivision : public std::enable_shared_from_this<HostDivision> {
  public:
    /// `lost` is told once if the new godwitd ends while it should not.
    HostDivision(Supervisor& supervisor,
                 DivisionRequest request,
                 std::function<void(const Error&)> lost);
    HostDivision(const HostDivision&) = delete;
    HostDivision& operator=(const HostDivision&) = delete;
    ~HostDivision();

    /// Steps 1 to 4. After an error abort() clears up.
    void open(Reply<void> opened);
    /// Step 5: offers a machine and has the new godwitd start its successor with `incoming`, the
    /// successor's end of the handover connection.
    void launch(const std::string& machine,
                sys::Fd incoming,
                Reply<std::shared_ptr<VmmInstance>> launched);
    /// The machine's exchange is over. `arrived`: the successor runs it; otherwise it has ended and
    /// the machine is ours. Not to be said while neither is known.
    void exchange_ended(const std::string& machine, bool arrived);
    /// Steps 6 and 7. `report` is for the new godwitd to complete. Answered only if it fails: then
    /// nothing is sealed.
    void bequeath(const Json& report, Reply<void> failed);
    /// Everything comes back: the new godwitd ends, its memory and CPUs are ours. Its VMMs run on
    /// and are watched by us. Answered when that is so.
    void abort(Reply<void> done);

    /// For the report.
    [[nodiscard]] Json facts() const;
    [[nodiscard]] bool moved(const std::string& machine) const { return moves_.contains(machine); }

  private:
    struct Move {
        std::size_t slot = 0;
        std::size_t extents = 0;
        std::uint64_t frames = 0;
        bool arrived = false;
    };
    struct Launch {
        std::string machine;
        std::size_t slot = 0;
        Reply<std::shared_ptr<VmmInstance>> reply;
        sys::EventLoop::Handle timer;
    };

    [[nodiscard]] Status begin();
    [[nodiscard]] Status make_region();
    [[nodiscard]] Status divide();
    [[nodiscard]] Status partition_cpus();
    [[nodiscard]] Status start_heir();
    [[nodiscard]] Status watch_heir();
    [[nodiscard]] Status welcome();
    void tick();
    void look_at_news();
    void greeted();
    void check_beside();
    void hear();
    void answered(const Json& answer);
    void launch_failed(const Error& why);
    [[nodiscard]] Status offer(const std::string& machine, const sys::Fd& incoming);
    [[nodiscard]] Status write_testament(const Json& report);
    [[nodiscard]] Status give_free_memory();
    [[nodiscard]] Status seal_estate(const Json& report);
    void heir_ended();
    void end_unwatched_heir();
    [[nodiscard]] Status take_everything_back();
    void give_freed_cpus();
    void fail(const Error& why);
    void arm(std::chrono::milliseconds delay, void (HostDivision::*action)());

    Supervisor& supervisor_;
    const DivisionRequest request_;
    std::function<void(const Error&)> lost_;
    exchange::partition::CpuSet host_cpus_;
    std::optional<exchange::partition::Region> region_;
    std::optional<sys::EventFd> own_bell_;
    std::optional<sys::EventFd> heir_bell_;
    std::optional<exchange::partition::OldInstance> old_;
    std::vector<memory::Extent> own_memory_;
    std::optional<exchange::partition::CpuPartition> own_cpus_;
    std::optional<exchange::partition::CpuPartition> heir_cpus_;
    std::optional<sys::Process> heir_;
    std::optional<sys::MessageSocket> socket_;
    std::map<std::string, Move> moves_;
    std::optional<Launch> launch_;
    Reply<void> opened_;
    Reply<void> failed_;
    Reply<void> aborted_;
    sys::Moment met_at_;
    std::array<std::uint64_t, 2> met_beats_{};
    std::array<std::uint64_t, 2> beats_together_{};
    std::int64_t together_us_ = 0;
    std::uint64_t frames_given_ = 0;
    bool heir_lives_ = false;
    bool aborting_ = false;
    sys::EventLoop::Handle tick_;
    sys::EventLoop::Handle timer_;
    sys::EventLoop::Handle bell_watch_;
    sys::EventLoop::Handle socket_watch_;
    sys::EventLoop::Handle heir_watch_;
};

/// How many CPUs the old instance keeps while `left` of `total` machines are still its own, of
/// `had`: its share, at least one.
[[nodiscard]] std::size_t cpus_to_keep(std::size_t had, std::size_t left, std::size_t total);

} // namespace godwit::control
