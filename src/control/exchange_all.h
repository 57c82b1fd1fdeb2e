#pragma once

/// One exchange of all machines of the host: a plan first, then every machine by its own
/// ExchangeRun, several at a time, in an order. Each is rolled back by itself if it fails; the
/// others are not touched by that.
///
///     planning --nothing speaks against it--> running --last one ended--> over
///        +------refused or cancelled-----------------------------------> over
///
/// In mode partition a second hypervisor instance is started first and the machines go to it; in
/// the end it has everything and this process leaves, or nothing has happened:
///
///     planning --> dividing --> running --all done--> bequeathing --sealed--> this process ends
///                      |           +--one failed, cancelled--+    | refused
///                      +------------------> returning <-------+----+ --all are back--> over
///
/// Otherwise there is no point of no return of the whole: cancelling stops before the next commit
/// and leaves every machine in one of its builds, told in the report. Control thread only.

#include "control/exchange_plan.h"
#include "control/exchange_total.h"
#include "control/host_division.h"
#include "control/supervisor.h"
#include "sys/clock.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

class ExchangeAll : public std::enable_shared_from_this<ExchangeAll> {
  public:
    ExchangeAll(Supervisor& supervisor, Supervisor::ExchangeAllRequest request);
    ExchangeAll(const ExchangeAll&) = delete;
    ExchangeAll& operator=(const ExchangeAll&) = delete;
    ~ExchangeAll();

    void start(std::uint64_t operation);
    /// No machine is begun any more; those under way are cancelled if they still can be.
    [[nodiscard]] Status cancel();

    /// The second hypervisor instance, in mode partition while it runs; null otherwise.
    [[nodiscard]] HostDivision* division() const noexcept { return division_.get(); }

    // What happens to a machine; others than ours are ignored.
    void phase_reached(const std::string& machine, const std::string& phase);
    void exchange_ended(const std::string& machine, const Json& report);
    /// It is no more and its exchange will not report.
    void machine_gone(const std::string& machine);

  private:
    enum class Step : std::uint8_t { planning, dividing, running, bequeathing, returning, over };

    void planned(Result<ExchangePlan> plan);
    void begin(MachineResult& machine);
    void end(MachineResult& machine, MachineOutcome outcome, const std::string& reason);
    void pump_later();
    void begin_machines();
    /// Nothing is left to begin and nothing under way.
    void conclude();
    [[nodiscard]] Json make_report();

    // Mode partition (exchange_all_partition.cpp).
    void divide();
    void divided(const Status& opened);
    void leave_or_return();
    void go_back(const Error& why);
    void return_next();
    void bring_back(MachineResult& machine);
    void exchange_back(MachineResult& machine);
    void returned(MachineResult& machine, bool back, const std::string& how);
    /// Whether another than the owner of before runs it by its record.
    [[nodiscard]] bool went_over(const std::string& machine) const;
    /// Begins what may begin; finishes when nothing is left.
    void pump();
    void tell(const MachineResult& machine);
    void finish();
    [[nodiscard]] MachineResult* find_under_way(const std::string& machine);
    [[nodiscard]] std::size_t count(MachineOutcome outcome) const noexcept;

    Supervisor& supervisor_;
    const Supervisor::ExchangeAllRequest request_;
    std::uint64_t operation_ = 0;
    sys::Moment started_at_;
    ExchangeAllSummary summary_;
    std::vector<MachineResult> machines_; ///< In the order in which they come; none while planning.
    std::map<std::string, sys::Moment> begun_at_;
    Step step_ = Step::planning;
    bool stopping_ = false; ///< No more are begun.
    std::shared_ptr<HostDivision> division_;
    std::map<std::string, std::string> programs_before_; ///< What a machine goes back to.
    std::map<std::string, handover::InstanceId> owners_before_;
    std::string returning_;        ///< The machine that goes back now.
    std::optional<Error> gave_up_; ///< Why everything goes back.
};

} // namespace godwit::control
