#pragma once

/// One exchange of all machines of the host: a plan first, then every machine by its own
/// ExchangeRun, several at a time, in an order. Each is rolled back by itself if it fails; the
/// others are not touched by that.
///
///     planning --nothing speaks against it--> running --last one ended--> over
///        +------refused or cancelled-----------------------------------> over
///
/// There is no point of no return of the whole: cancelling stops before the next commit and leaves
/// every machine in one of its builds, told in the report. Control thread only.

#include "control/exchange_plan.h"
#include "control/exchange_total.h"
#include "control/supervisor.h"
#include "sys/clock.h"

#include <map>
#include <memory>
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

    // What happens to a machine; others than ours are ignored.
    void phase_reached(const std::string& machine, const std::string& phase);
    void exchange_ended(const std::string& machine, const Json& report);
    /// It is no more and its exchange will not report.
    void machine_gone(const std::string& machine);

  private:
    enum class Step : std::uint8_t { planning, running, over };

    void planned(Result<ExchangePlan> plan);
    void begin(MachineResult& machine);
    void end(MachineResult& machine, MachineOutcome outcome, const std::string& reason);
    void pump_later();
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
};

} // namespace godwit::control
