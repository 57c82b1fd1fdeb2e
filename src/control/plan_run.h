#pragma once

/// Finds out what an exchange would do: asks the new program what it is, then every machine's VMM
/// what speaks against it. Nothing is paused and no machine is touched.
///
///     probing --description--> asking --all answered or late--> over
///        +------no description-----^   (the reason is a blocker of every machine)
///
/// Control thread only.

#include "control/exchange_plan.h"
#include "control/program_probe.h"
#include "control/supervisor.h"

#include <memory>

namespace godwit::control {

class PlanRun : public std::enable_shared_from_this<PlanRun> {
  public:
    /// Plans under way at a time.
    static constexpr std::size_t runs_max = 8;

    PlanRun(Supervisor& supervisor,
            Supervisor::ExchangeAllRequest request,
            Reply<ExchangePlan> done);
    PlanRun(const PlanRun&) = delete;
    PlanRun& operator=(const PlanRun&) = delete;
    ~PlanRun();

    void start();

  private:
    void probed(const Result<std::string>& text);
    void ask(std::size_t index, const Json& params);
    void answered(std::size_t index, const Result<Json>& answer);
    void finish();

    Supervisor& supervisor_;
    const Supervisor::ExchangeAllRequest request_;
    Reply<ExchangePlan> done_;
    ExchangePlan plan_;
    std::shared_ptr<ProgramProbe> probe_;
    std::size_t unanswered_ = 0;
};

} // namespace godwit::control
