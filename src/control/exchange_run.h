#pragma once

/// One exchange of a machine's VMM as godwitd sees it. The two VMMs decide between themselves who
/// owns the guest, on the owner record; this starts the successor, brings the two together and
/// makes sure that in the end exactly one process is left, whatever died or fell silent on the way.
/// Before it kills a successor it takes the offer back on the record, so that kill and claim cannot
/// race.
///
///     launching --ready--> handing_over --report--> settling --loser ended--> over
///         |                     | no report                                    ^
///         |                     v                                              |
///         |                 resolving (the record decides) ------> settling --+
///         +--successor failed------------------------------------> settling --+
///
/// Point of no return: the commit between the VMMs. Before it the loser is the successor, after it
/// the predecessor. Control thread only.

#include "control/supervisor.h"

#include <memory>
#include <string>

namespace godwit::control {

class ExchangeRun : public std::enable_shared_from_this<ExchangeRun> {
  public:
    ExchangeRun(Supervisor& supervisor, std::string machine, Supervisor::ExchangeRequest request);
    ExchangeRun(const ExchangeRun&) = delete;
    ExchangeRun& operator=(const ExchangeRun&) = delete;
    ~ExchangeRun();

    void start(std::uint64_t operation);
    /// conflict once the VMMs may have committed.
    [[nodiscard]] Status cancel();
    void phase_reached(const VmmInstance& vmm, const std::string& phase);
    void instance_ended(const VmmInstance& vmm);
    void instance_changed(const VmmInstance& vmm);

  private:
    enum class Step : std::uint8_t { launching, handing_over, resolving, settling, over };
    enum class Side : std::uint8_t { source, destination };

    [[nodiscard]] Status launch();
    [[nodiscard]] Status launch_elsewhere(sys::Fd successor_end);
    void launched_elsewhere(Result<std::shared_ptr<VmmInstance>> launched);
    void successor_ready(const Status& outcome);
    void hand_over();
    void let_out();
    void answered(Result<Json> answer);
    void resolve(const Error& why);
    void decide();
    void stop_waiting_for_source();
    [[nodiscard]] bool successor_owns() const;
    [[nodiscard]] bool fence();
    [[nodiscard]] Json committed_report(const Error& why) const;
    void arm(std::chrono::milliseconds delay, void (ExchangeRun::*action)());
    void kill_loser();
    void give_up_waiting();
    void roll_back(const Error& why, Side side);
    /// The successor owns the guest. `report` is the predecessor's.
    void committed(Json report);
    /// Waits for `loser` to end, then finishes with the report.
    void settle(std::shared_ptr<VmmInstance> loser, Json report);
    void add_partition(Json& report) const;
    void finish();
    [[nodiscard]] Json
    own_report(std::string_view outcome, const std::string& reason, Side side) const;

    Supervisor& supervisor_;
    const std::string machine_;
    const Supervisor::ExchangeRequest request_;
    std::uint64_t operation_ = 0;
    Step step_ = Step::launching;
    std::string phase_ = "plan";
    bool cancelled_ = false;
    std::shared_ptr<VmmInstance> source_;
    std::shared_ptr<VmmInstance> successor_;
    std::shared_ptr<VmmInstance> loser_;
    std::shared_ptr<handover::OwnerRecord> record_; ///< Null only before launch().
    std::uint32_t epoch_ = 0;        ///< Of the record when the exchange was asked for.
    bool source_is_leaving_ = false; ///< It has closed its connection and is waited for.
    bool waited_for_claim_ = false;
    bool letting_out_ = false;        ///< The successor is leaving its service partition.
    bool finish_due_ = false;         ///< Once it has.
    std::optional<Error> unresolved_; ///< Why there is no report, while resolving.
    sys::Fd source_end_;           ///< The predecessor's end of the connection, until it is sent.
    std::unique_ptr<Json> report_; ///< Never null.
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
