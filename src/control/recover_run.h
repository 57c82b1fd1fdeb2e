#pragma once

/// The recovery of one machine whose handover failed after its commit: it runs again, or it is said
/// why it cannot.
///
///     asking --all said what they are, or time is over--> judging
///     judging  claimed, successor lives:   waiting for it to run, once
///              claimed:                    reclaiming: the frozen source swaps the record and runs
///              anything else:              over, nothing changed
///
/// Point of no return: the source's swap on the owner record; it fails if the successor has begun
/// to run the guest. Control thread only.

#include "control/supervisor.h"

#include <memory>
#include <string>

namespace godwit::control {

class RecoverRun : public std::enable_shared_from_this<RecoverRun> {
  public:
    RecoverRun(Supervisor& supervisor, std::string machine)
        : supervisor_(supervisor), machine_(std::move(machine)) {}

    void start(std::uint64_t operation);
    /// A process of the machine has news, or is gone.
    void changed();

  private:
    enum class Step : std::uint8_t { asking, waiting, reclaiming, over };
    enum class End : std::uint8_t { good, bad };

    void judge();
    void judge_running(const MachineEntry& entry, const handover::Ownership& now);
    void judge_claimed(const MachineEntry& entry, const handover::Ownership& now);
    void wait(std::chrono::milliseconds limit);
    void reclaimed(const Result<Json>& answer);
    void finish(End end, std::string_view outcome, const std::string& done);

    Supervisor& supervisor_;
    const std::string machine_;
    std::uint64_t operation_ = 0;
    Step step_ = Step::asking;
    std::size_t unanswered_ = 0;
    bool waited_ = false;
    std::shared_ptr<handover::OwnerRecord> record_;
    handover::Ownership before_;
    std::string found_;
    std::shared_ptr<VmmInstance> kept_; ///< The frozen source that is told to go on.
    sys::EventLoop::Handle timer_;
};

} // namespace godwit::control
