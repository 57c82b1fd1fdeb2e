#pragma once

/// The host's machines: starts, finds, watches and ends their VMM processes and carries out what
/// the API asks for. All it knows can be found again from the run directory and the processes.
///
/// Control thread only. Nothing here waits; long things are Operations, short ones answer a Reply
/// within a time limit.

#include "control/event_log.h"
#include "control/machine_entry.h"
#include "control/metrics.h"
#include "control/operations.h"
#include "control/report_history.h"
#include "control/run_directory.h"

#include <map>
#include <memory>
#include <string>
#include <string_view>

namespace godwit::control {

class ExchangeRun;
class RecoverRun;

/// What the supervisor works with; all of it outlives it.
struct SupervisorParts {
    sys::EventLoop& loop;
    const RunDirectory& run;
    EventLog& events;
    Operations& operations;
    Metrics& metrics;
    const sys::Clock& clock;
    std::string vmm_program;
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
        std::string program; ///< Empty: the godwit-vmm beside godwitd.
        /// From when the devices are told to rest until the guest must run in the new VMM.
        std::chrono::milliseconds deadline{5'000};
        /// For building the machine in the new VMM, while the guest runs.
        std::chrono::milliseconds prepare{30'000};
    };
    [[nodiscard]] Result<std::uint64_t> exchange(const std::string& name, ExchangeRequest request);
    /// Makes a machine run again that nobody runs since a handover failed after its commit.
    [[nodiscard]] Result<std::uint64_t> recover(const std::string& name);

    // Short ones.
    [[nodiscard]] Json list() const;
    void info(const std::string& name, Reply<Json> reply);
    [[nodiscard]] Result<Json> reports(const std::string& name) const;
    /// Passes a request on to the owner of a machine that is not busy with an operation.
    void
    ask(const std::string& name, std::string_view method, const Json& params, Reply<Json> reply);

    /// Lets go of all machines, which run on; whoever waits for them gets "cancelled".
    void let_go();
    [[nodiscard]] std::size_t machine_count() const noexcept { return machines_.size(); }
    [[nodiscard]] std::map<std::string, std::uint64_t> count_by_state() const;

    void vmm_changed(VmmInstance& vmm) override;
    void vmm_event(VmmInstance& vmm, const Json& event) override;
    void vmm_ended(VmmInstance& vmm, const sys::ExitStatus& exit) override;

  private:
    friend class ExchangeRun;
    friend class RecoverRun;

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

    void adopt_machine(const std::string& name);
    void check_settled();
    void end_without_owner(const MachineEntry& entry);
    void promote(MachineEntry& entry, VmmInstance& vmm);
    void owner_gone(MachineEntry& entry, const sys::ExitStatus& exit);
    /// Looks for another process that owns the guest by now.
    void look_for_owner(MachineEntry& entry, MachineEnd otherwise);
    void announce_state(MachineEntry& entry);
    void force_stop(MachineEntry& entry);
    void press_power_button(MachineEntry& entry, std::uint64_t operation, StopRequest request);

    SupervisorParts parts_;
    ReportHistory history_;
    std::map<std::string, std::unique_ptr<MachineEntry>> machines_;
    std::map<std::string, std::shared_ptr<ExchangeRun>> exchanges_;
    std::map<std::string, std::shared_ptr<RecoverRun>> recoveries_;
    std::map<std::string, std::string> announced_states_;
    Reply<void> settled_;
    sys::EventLoop::Handle settle_timer_;
};

} // namespace godwit::control
