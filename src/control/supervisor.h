#pragma once

/// The host's machines: starts, finds, watches and ends their VMM processes and carries out what
/// the API asks for. All it knows can be found again from the run directory and the processes.
///
/// Control thread only. Nothing here waits; long things are Operations, short ones answer a Reply
/// within a time limit.

#include "control/event_log.h"
#include "control/exchange_mode.h"
#include "control/exchange_order.h"
#include "control/host_pool.h"
#include "control/machine_entry.h"
#include "control/metrics.h"
#include "control/operations.h"
#include "control/report_history.h"
#include "control/run_directory.h"
#include "handover/timing.h"

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

class BlackoutHistory;
class DiskMoveAll;
class DiskMoveRun;
struct DiskWork;
class HostDivision;
class ExchangeAll;
class ExchangeRun;
class PlanRun;
struct DiskMoveAllRequest;
struct DivisionRequest;
class RecoverRun;
struct ExchangePlan;
class SuspendRun;
class Suspension;

/// What another godwitd needs that takes the run directory over from this one.
struct Succession {
    const sys::Fd* lock = nullptr;      ///< Of the run directory.
    std::vector<std::string> arguments; ///< Flags it is started with as well.
    std::function<void()> leave;        ///< This godwitd ends.
};

/// What the supervisor works with; all of it outlives it.
struct SupervisorParts {
    sys::EventLoop& loop;
    const RunDirectory& run;
    EventLog& events;
    Operations& operations;
    Metrics& metrics;
    const sys::Clock& clock;
    std::string vmm_program;
    std::string keeper_program;
    /// Makes this process the new godwitd `daemon`, whose VMMs are `vmm`, as soon as it has let go
    /// of everything.
    std::function<void(std::string daemon, std::string vmm)> replace;
    std::optional<std::uint64_t> pool_bytes{}; ///< As HostPool takes it.
    Succession succession{};
    PartitionPolicy partition = PartitionPolicy::prefer; ///< Of successors.
};

class Supervisor final : public VmmWatcher {
  public:
    explicit Supervisor(SupervisorParts parts);
    ~Supervisor() override;

    /// Finds the machines that run already; `settled` is answered once each VMM has said what it is
    /// or had its time for it.
    void adopt_all(Reply<void> settled);

    // Long ones: the id of the operation, whose result is a machine or a report.
    [[nodiscard]] Result<std::uint64_t> run(std::string_view document_json);
    struct RestoreRequest {
        std::string directory;
        std::string name;      ///< Empty: the name it had.
        bool copy_ram = false; ///< Copy memory into a shared object, so that it can be exchanged.
    };
    [[nodiscard]] Result<std::uint64_t> restore(const RestoreRequest& request);
    struct StopRequest {
        bool force = false;
        std::chrono::seconds timeout{30};
    };
    [[nodiscard]] Result<std::uint64_t> stop(const std::string& name, StopRequest request);
    [[nodiscard]] Result<std::uint64_t> snapshot(const std::string& name,
                                                 const std::string& directory);
    struct ExchangeRequest {
        ExchangeMode mode = ExchangeMode::hot_restart;
        /// The new godwit-vmm or the prefix of an installation; empty: the one beside godwitd.
        std::string program;
        /// From when the devices are told to rest until the guest must run in the new VMM.
        std::chrono::milliseconds deadline{5'000};
        /// For building the machine in the new VMM, while the guest runs.
        std::chrono::milliseconds prepare{30'000};
        /// Early is for hot-restart only.
        handover::Timing timing = handover::Timing::late;
    };
    [[nodiscard]] Result<std::uint64_t> exchange(const std::string& name, ExchangeRequest request);
    enum class OnFailure : std::uint8_t { stop, keep_going };
    /// What is done with a machine that runs the new build already.
    enum class CurrentBuild : std::uint8_t { leave, exchange };
    struct ExchangeAllRequest {
        ExchangeRequest exchange;
        std::string machine; ///< Of a plan: only this one; empty: all.
        ExchangeOrder order = ExchangeOrder::name;
        unsigned concurrency = 0; ///< 0: default_concurrency().
        std::string target_cpus;  ///< Of mode partition: for the new instance, as "2-3".
        OnFailure on_failure = OnFailure::stop;
        CurrentBuild current = CurrentBuild::leave;
    };
    /// All machines of the host, one such run at a time; the result is the total report.
    [[nodiscard]] Result<std::uint64_t> exchange_all(ExchangeAllRequest request);
    /// What an exchange would do; nothing is touched.
    void plan_exchange(ExchangeAllRequest request, Reply<Json> reply);
    /// The last reports of one machine or, if it is empty, of all, oldest first; also of machines
    /// that are no more.
    [[nodiscard]] Json history(const std::string& machine, std::size_t limit) const;
    struct SuspendRequest {
        std::string id;                    ///< By which its end can be asked for; empty: made.
        std::vector<std::string> machines; ///< Empty: all of the host.
        std::string prefix;                ///< The new installation; empty: the present one.
        std::string vmm_program;           ///< Follows from the prefix.
        std::string daemon_program;        ///< Likewise; empty: godwitd stays.
        bool all = false;                  ///< The whole host, godwitd included.
        unsigned concurrency = 0;          ///< Suspended at a time; 0: one for two processors.
        /// From the order to pause until those machines must be held.
        std::chrono::milliseconds deadline{10'000};
        std::chrono::milliseconds prepare{30'000};
    };
    /// What speaks against suspending a machine that is.
    static constexpr const char* frozen_blocker =
        "it is frozen: let it run again with 'godwit recover' first";
    /// Replaces VMMs, and godwitd too, with the machines suspended in memory.
    [[nodiscard]] Result<std::uint64_t> suspend(SuspendRequest request);
    /// The report of the last such exchange, as soon as none is under way.
    void suspension(Reply<Json> reply);
    /// Makes a machine run again that nobody runs since a handover failed after its commit.
    [[nodiscard]] Result<std::uint64_t> recover(const std::string& name);

    /// Moves a disk ("disk0") while its guest uses it; `params` has the destination, and what else
    /// the VMM takes (docs/formats/vmm-control.md, "disk_move"). Pausing and asking the machine go
    /// on meanwhile.
    [[nodiscard]] Result<std::uint64_t>
    move_disk(const std::string& name, const std::string& disk, const Json& params);
    /// Moves the disks of all machines, or of one, by one plan; one such operation at a time.
    [[nodiscard]] Result<std::uint64_t> move_disks(DiskMoveAllRequest request);
    /// The operation that is told to go back.
    [[nodiscard]] Result<std::uint64_t> cancel_disk_move(const std::string& name,
                                                         const std::string& disk);

    /// Merges the deltas of a disk into its base while its guest uses it.
    [[nodiscard]] Result<std::uint64_t> merge_disk(const std::string& name,
                                                   const std::string& disk);

    // Short ones.
    /// Freezes a disk; `params` as the VMM takes them, without the disk.
    void snapshot_disk(const std::string& name,
                       const std::string& disk,
                       const Json& params,
                       Reply<Json> reply);
    /// The disks of a machine, and how far they have moved.
    void disks(const std::string& name, Reply<Json> reply);
    /// The host's memory pool.
    [[nodiscard]] Json pool_facts() const;
    [[nodiscard]] Json list() const;
    void info(const std::string& name, Reply<Json> reply);
    [[nodiscard]] Result<Json> reports(const std::string& name) const;
    /// Passes a request on to the owner of a machine that is not busy with an operation.
    void
    ask(const std::string& name, std::string_view method, const Json& params, Reply<Json> reply);

    /// The pool of an exchange between partitions that this godwitd has come out of.
    void inherit_pool(memory::Pool pool, memory::PoolOwner self);
    /// Writes the report of such an exchange down and ends its operation with it.
    void conclude(std::uint64_t operation, const Json& report);

    /// Lets go of all machines, which run on; whoever waits for them gets "cancelled".
    void let_go();
    [[nodiscard]] std::size_t machine_count() const noexcept { return machines_.size(); }
    [[nodiscard]] std::map<std::string, std::uint64_t> count_by_state() const;

    void vmm_changed(VmmInstance& vmm) override;
    void vmm_event(VmmInstance& vmm, const Json& event) override;
    void vmm_refused(VmmInstance& vmm, const std::string& what) override;
    void vmm_ended(VmmInstance& vmm, const sys::ExitStatus& exit) override;

  private:
    friend class DiskMoveAll;
    friend class DiskMoveRun;
    friend class ExchangeAll;
    friend class ExchangeRun;
    friend class HostDivision;
    friend class PlanRun;
    friend class RecoverRun;
    friend class SuspendRun;
    friend class Suspension;

    [[nodiscard]] MachineEntry* find(const std::string& name) const;
    [[nodiscard]] Result<MachineEntry*> find_or_error(const std::string& name) const;
    /// The machine if it has a reachable owner and no operation under way.
    [[nodiscard]] Result<MachineEntry*> find_idle(const std::string& name) const;
    [[nodiscard]] Json summary(const MachineEntry& entry) const;

    [[nodiscard]] Result<std::uint64_t>
    begin_start(std::string_view kind, MachineDocument document, std::vector<std::string> source);
    [[nodiscard]] Status
    launch_owner(MachineEntry& entry, std::vector<std::string> source, Reply<void> ready);
    void started(const std::string& name, std::uint64_t operation, Status outcome);
    /// Takes a machine off the list and its directory away, and tells everybody.
    void forget(const std::string& name, const MachineEnd& end);

    void suspension_over(const Json& report);
    /// The programs of the installation `prefix` (or of the godwit-vmm it names) for a request.
    [[nodiscard]] Status choose_suspend_programs(SuspendRequest& request) const;
    /// Whether the programs that suspending all needs beside this godwit-vmm can be executed.
    [[nodiscard]] Status check_suspend_programs(const std::string& vmm_program) const;
    void adopt_machine(const std::string& name);
    void read_document(MachineEntry& entry);
    /// Finds the processes of a machine that are not known yet. Only a socket that nobody can be
    /// behind is taken away; whatever else fails leaves the machine in doubt and is tried again.
    void adopt_instances(MachineEntry& entry);
    void leave_old_division(int pid) const;
    /// Makes sure that machines in doubt are looked at again, until none is.
    [[nodiscard]] Status arm_doubts();
    void look_at_doubts();
    void check_settled();
    void end_without_owner(const MachineEntry& entry);
    void promote(MachineEntry& entry, VmmInstance& vmm);
    void owner_gone(MachineEntry& entry, const sys::ExitStatus& exit);
    /// Looks for another process that owns the guest by now.
    void look_for_owner(MachineEntry& entry, MachineEnd otherwise);
    void announce_state(MachineEntry& entry);
    void force_stop(MachineEntry& entry);

    // Disks that move (supervisor_disks.cpp).
    [[nodiscard]] std::pair<std::shared_ptr<DiskMoveRun>, std::uint64_t> add_disk_work(
        const std::string& name, const std::string& disk, const DiskWork& work, Reply<Json> end);
    /// Whether something may be begun with a disk.
    [[nodiscard]] Status check_disk_idle(const std::string& name, const std::string& disk) const;
    /// `end` gets the report of what was done, or why it was not.
    [[nodiscard]] Result<std::uint64_t> begin_disk_work(const std::string& name,
                                                        const std::string& disk,
                                                        const Json& params,
                                                        const DiskWork& work,
                                                        Reply<Json> end);
    void find_disk_moves(VmmInstance& vmm);
    void disk_move_event(const VmmInstance& vmm, const Json& event);
    /// The machine's owner is gone, and with it whatever moved.
    void disk_moves_gone(const std::string& name);
    [[nodiscard]] Status check_disks_complete(const std::string& name) const;
    void disk_work_ended(const std::string& machine, const Json& report);
    void reread_document(const std::string& machine);

    // All machines at once (supervisor_fleet.cpp).
    /// The second instance that an exchange of all machines has started, or null.
    [[nodiscard]] HostDivision* division() const;
    /// Turns what was asked for into the path of a program that can be executed.
    [[nodiscard]] Status choose_program(std::string& program) const;
    /// How the host would be divided, checked; the programs are those of the new installation.
    [[nodiscard]] Result<DivisionRequest> division_of(const ExchangeAllRequest& request) const;
    void make_plan(const ExchangeAllRequest& request, Reply<ExchangePlan> reply);
    [[nodiscard]] BlackoutHistory& blackouts();
    /// Completes the report of an exchange, writes it down and tells whoever counts.
    void exchange_ended(const std::string& machine, Json& report, ExchangeMode mode);

    // Machines whose RAM lies in the host's memory pool (supervisor_pool.cpp).
    /// Gives the document a place in the pool, if it wants one.
    [[nodiscard]] Status place_memory(MachineDocument& document);
    [[nodiscard]] std::vector<InheritedFd> pool_descriptors(const MachineDocument& document);
    /// Gives a machine's frames back once all its processes have ended.
    void release_memory(const std::string& name, std::vector<std::shared_ptr<VmmInstance>> users);
    void release_ended();
    /// Asks the VMM for the pool, where this godwitd does not know it yet.
    void find_pool(const MachineEntry& entry, VmmInstance& vmm);
    /// Those that are known to lie in the pool.
    [[nodiscard]] std::set<std::string> pool_machines() const;
    /// Those whose frames nobody else may get: all there are, whatever is known of them.
    [[nodiscard]] std::set<std::string> pool_keepers() const;

    void press_power_button(MachineEntry& entry, std::uint64_t operation, StopRequest request);

    SupervisorParts parts_;
    ReportHistory history_;
    HostPool pool_;
    /// Frames of machines that are no more, and the processes that may still map them.
    std::map<std::string, std::vector<std::shared_ptr<VmmInstance>>> leaving_;
    std::map<std::string, std::unique_ptr<MachineEntry>> machines_;
    std::map<std::string, std::shared_ptr<ExchangeRun>> exchanges_;
    std::map<std::string, std::shared_ptr<RecoverRun>> recoveries_;
    /// By machine and disk.
    std::map<std::pair<std::string, std::string>, std::shared_ptr<DiskMoveRun>> disk_moves_;
    std::shared_ptr<DiskMoveAll> disk_move_all_; ///< Of many disks, under way, or null.
    std::shared_ptr<ExchangeAll> all_; ///< The exchange of all machines under way, or null.
    std::set<std::shared_ptr<PlanRun>> plans_;
    std::unique_ptr<BlackoutHistory> blackouts_; ///< Read from the history when first needed.
    std::shared_ptr<SuspendRun> suspend_;
    std::unique_ptr<Suspension> suspension_;
    std::unique_ptr<Json> last_suspension_;
    std::vector<Reply<Json>> suspension_waiters_;
    std::map<std::string, std::string> announced_states_;
    Reply<void> settled_;
    sys::EventLoop::Handle settle_timer_;
    sys::EventLoop::Handle doubt_timer_;
};

} // namespace godwit::control
