#pragma once

/// The present owner's end of an exchange in place: hands the machine to a successor process on the
/// same host. Guest memory, disks, taps and consoles go over as descriptors, the rest as one saved
/// state.
///
/// Steps and their undo: handover/engine.cpp. Thread rule: runs on a thread of its own, which is
/// the machine's control thread until it returns.

#include "exchange/frames.h"
#include "exchange/wire.h"
#include "handover/engine.h"
#include "machine/machine.h"
#include "state/state_unit.h"
#include "sys/cancel.h"

#include <functional>

namespace godwit::exchange {

/// What else the process around the machine holds for it: consoles with their clients.
/// Saved while frozen.
class Endpoints : public state::StateUnit {
  public:
    /// Stops moving bytes, so that what is saved and what is in the sockets fit together.
    virtual void freeze() = 0;
    /// Undo of freeze().
    virtual void thaw() = 0;
    /// Duplicates of the descriptors that go over. While frozen.
    [[nodiscard]] virtual Result<sys::FdManifest> descriptors() const = 0;
};

struct SourceParts {
    machine::Machine& machine;
    Endpoints& endpoints;
    handover::OwnerRecord& record;
    handover::InstanceId self;
    handover::Ownership expected; ///< The record when the exchange was asked for.
    handover::Limits limits;
    handover::Timing timing = handover::Timing::late;
    const sys::Clock& clock;
    const sys::Cancel& cancel;
    const PageMap& page_map;
    std::function<void(handover::Phase)> progress;
};

/// What an exchange of this machine would do, asked while the guest runs. Touches nothing.
struct SourcePlan {
    std::vector<std::string> blockers;
    std::vector<handover::CarriedResource> carriers; ///< Without bytes: nothing was carried yet.
    std::vector<SectionKind> sections;               ///< What the state is going to hold.
};
[[nodiscard]] SourcePlan plan_source(machine::Machine& machine, Endpoints& endpoints);

/// Runs the exchange over `successor`. Whatever happened stands in the report.
[[nodiscard]] handover::Report run_source(SourceParts parts, const sys::MessageSocket& successor);

} // namespace godwit::exchange
