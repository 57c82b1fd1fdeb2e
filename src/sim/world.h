#pragma once

/// What is true in a simulation, whoever knows it: machines, the processes that have to do with
/// them, who executes which guest, whose copy of it is complete. Every change goes through here and
/// is checked against what must never happen; the first violation is kept.
///
/// A guest has a version, which counts how often somebody began to execute it; a process's copy is
/// good for something if it is of the present version. Tasks of one Executor only.

#include "handover/engine.h"
#include "sim/executor.h"

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::sim {

class LinkEnd;

/// What a call of the daemon comes back with; never, if the VMM dies.
struct Call {
    enum class Method : std::uint8_t { exchange, reclaim };
    Method method = Method::exchange;
    std::shared_ptr<LinkEnd> successor; ///< exchange: the socket to the new VMM.
    std::uint32_t epoch = 0;            ///< exchange: of the record when it was asked for.
    std::atomic<bool> cancelled{false};
    bool answered = false;
    bool succeeded = false;                   ///< reclaim
    std::optional<handover::Outcome> outcome; ///< exchange
};

struct Machine;

/// One VMM. Dead ones stay in the list of their machine.
struct Process {
    handover::InstanceId id;
    Machine& machine;
    std::string name;
    handover::OwnerRecord record; ///< Its own mapping; a dead one's is of no machine any more.
    TaskId task = 0;
    bool alive = true;
    bool executes = false;       ///< Its vCPUs run the guest.
    bool frozen = false;         ///< Says so in its status.
    handover::Ownership lost_to; ///< If it is frozen: the claim that could be reversed.
    std::uint32_t copy = 0;      ///< Version of the guest that it has complete; 0 none.
    std::deque<std::shared_ptr<Call>> calls;
};

struct Machine {
    std::string name;
    std::string id;
    handover::OwnerRecord record; ///< The observer's and the daemon's mapping.
    std::uint32_t version = 1;
    handover::InstanceId claimed_from; ///< Who owned it before the standing claim.
    bool lost = false;                 ///< A crash hit the last copy that somebody could run.
    std::vector<std::unique_ptr<Process>> processes;
};

class World {
  public:
    explicit World(Executor& executor) : executor_(executor) {}

    Machine& add_machine();
    Process& add_process(Machine& machine);
    [[nodiscard]] const std::vector<std::unique_ptr<Machine>>& machines() const {
        return machines_;
    }
    /// Everything ends here; what it still does counts for nothing.
    void shut_down();

    // What processes do. A dead one does nothing.

    void begin_executing(Process& process);
    void stop_executing(Process& process);
    /// Ends by its own decision or the daemon's: never with the last copy.
    void end(Process& process, std::string_view why);
    /// kill -9 out of the blue.
    void crash(Process& process);
    /// Whether the report of a handover fits the record, at the moment it is made.
    void check_report(const Process& source, const handover::Report& report);

    /// Looks at everything; after every step.
    void check();
    void violate(const std::string& what);
    [[nodiscard]] const std::string& violation() const noexcept { return violation_; }

    /// One line of the trace, with the moment and the task.
    void note(const std::string& text);
    [[nodiscard]] const std::vector<std::string>& trace() const noexcept { return trace_; }

    /// The process that by the record may run the guest, or that a recovery would make run it, with
    /// a complete copy; null if there is none.
    [[nodiscard]] static Process* viable(const Machine& machine);
    [[nodiscard]] static Process* living(const Machine& machine, handover::InstanceId id);
    [[nodiscard]] Executor& executor() noexcept { return executor_; }

  private:
    void vanish(Process& process);

    Executor& executor_;
    std::vector<std::unique_ptr<Machine>> machines_;
    std::vector<std::string> trace_;
    std::string violation_;
    std::uint32_t next_id_ = 0x10;
};

} // namespace godwit::sim
