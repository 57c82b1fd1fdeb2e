#pragma once

/// The source's side of every handover: drives plan, prepare, sync, pause, commit, resume and
/// settle, and undoes what has been done when a step fails before the commit.
///
/// What the engine touches comes through interfaces, so that the same code runs against KVM,
/// against fakes in unit tests and in simulation. Thread rule: one thread runs it, from start to
/// end.

#include "handover/carrier.h"
#include "handover/owner_record.h"
#include "handover/policy.h"
#include "handover/report.h"
#include "sys/clock.h"

#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace godwit::handover {

/// The machine that is handed over, as the engine needs it.
class SourceMachine {
  public:
    SourceMachine() = default;
    SourceMachine(const SourceMachine&) = delete;
    SourceMachine& operator=(const SourceMachine&) = delete;
    virtual ~SourceMachine() = default;
    [[nodiscard]] virtual std::vector<std::string> blockers() const = 0;
    /// Devices finish what is in flight; the guest runs.
    [[nodiscard]] virtual Status quiesce(std::chrono::milliseconds limit) = 0;
    /// The guest stops.
    [[nodiscard]] virtual Status pause(std::chrono::milliseconds limit) = 0;
    /// Undo of quiesce() and pause(): the guest runs as before.
    [[nodiscard]] virtual Status resume() = 0;
    /// When the last vCPU left the guest in pause().
    [[nodiscard]] virtual sys::Moment stopped_at() const = 0;
};

/// What the destination says once the guest runs there. Moments are of the host's monotonic clock.
struct Resumed {
    Ownership ownership;
    sys::Moment claimed_at;
    sys::Moment first_entry_at;
    /// False if the guest was paused before and stays so: no blackout to speak of.
    bool entered = true;
    /// What it had done when, in order, between the offer and the claim.
    std::vector<std::pair<std::string, sys::Moment>> marks;
};

struct Settled {
    std::uint32_t frames_sampled = 0;
    std::uint32_t frames_identical = 0;
    Fetched fetched;
};

/// The other end, as the source sees it.
class Destination {
  public:
    Destination() = default;
    Destination(const Destination&) = delete;
    Destination& operator=(const Destination&) = delete;
    virtual ~Destination() = default;
    /// Who it is and whether it can take this machine at all; reasons against go to `blockers`.
    [[nodiscard]] virtual Status introduce(std::vector<std::string>& blockers,
                                           std::chrono::milliseconds timeout) = 0;
    [[nodiscard]] virtual std::string build_id() const = 0;
    /// Builds the machine completely; returns when it stands.
    [[nodiscard]] virtual Status prepare(std::chrono::milliseconds timeout) = 0;
    /// Offers the machine: from here on the destination may claim it.
    [[nodiscard]] virtual Status offer() = 0;
    /// Waits until the guest runs there.
    [[nodiscard]] virtual Result<Resumed> await_resumed(std::chrono::milliseconds timeout) = 0;
    /// Late checks, after the guest runs there.
    [[nodiscard]] virtual Result<Settled> settle(std::chrono::milliseconds timeout) = 0;
    /// Tells it to give up and forget everything. Cannot fail.
    virtual void abort(const Error& reason) noexcept = 0;
};

struct HandoverParts {
    SourceMachine& machine;
    Destination& destination;
    std::span<Carrier* const> carriers;
    OwnerRecord& record;
    InstanceId self;
    /// The record as it was when this handover was asked for. Whoever has changed it since, to
    /// fence the handover before it began, has ended it.
    Ownership expected;
    Limits limits;
    const sys::Clock& clock;
    /// Set by someone else to cancel; obeyed until the offer.
    const std::atomic<bool>* cancel = nullptr;
    /// Told at each phase, for progress; of pause and commit once the offer is made. May be empty.
    std::function<void(Phase)> progress;
};

/// Runs a handover to its end and says what happened. `report` comes in with names and leaves
/// complete. After Outcome::done and failed_after_commit the machine must not run here again.
[[nodiscard]] Report run_handover(HandoverParts parts, Report report);

} // namespace godwit::handover
