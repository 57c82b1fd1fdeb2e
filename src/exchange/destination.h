#pragma once

// clang-format off
/// The successor's end of an exchange in place: builds the machine while the old owner still runs it, then
/// takes the state, claims the machine on the owner record and runs it.
///
///   state      valid data                       leaves by
///   greeting   socket                           Offer: building; anything else: ended
///   building   + offer, resources               built, Prepared sent: standing; error, Failed sent: ended
///   standing   + machine, record, state buffer  TakeOver: claiming; Abort or closed: ended
///   claiming   + saved state                    claim won: claimed; claim lost or error, Failed sent: ended
///   claimed    the machine is ours              claim confirmed: running; reversed by a recovery: ended
///   running    we may have run the guest             Settle answered; source gone: nothing more to do
///
/// Thread rule: one thread runs it, which is the machine's control thread until it returns.
// clang-format on

#include "exchange/frames.h"
#include "exchange/wire.h"
#include "handover/owner_record.h"
#include "machine/machine.h"

#include <functional>
#include <memory>

namespace godwit::exchange {

/// What is to be taken besides the machine, before it runs: consoles. An error refuses the
/// exchange.
using AdoptEndpoints =
    std::function<Status(const machine::MachineSpec&, state::Section, sys::FdManifest)>;

/// What changes hands together with a machine that goes to another hypervisor instance: its memory,
/// by pointers (requirements MP-2, MP-3). All on the destination's thread.
class ForeignMemory {
  public:
    ForeignMemory() = default;
    ForeignMemory(const ForeignMemory&) = delete;
    ForeignMemory& operator=(const ForeignMemory&) = delete;
    virtual ~ForeignMemory() = default;
    /// It is the memory of such a machine, and offered. While the guest runs elsewhere.
    [[nodiscard]] virtual Status check(const machine::MachineSpec& spec) = 0;
    /// The last moment before the machine is claimed: after this its instance cannot take it back.
    [[nodiscard]] virtual Status claim() = 0;
    /// The machine is claimed, nobody has touched the guest since.
    [[nodiscard]] virtual Status take() = 0;
    /// Undo of both: the machine was not to be had after all.
    virtual void give_back() noexcept = 0;
};

struct DestinationParts {
    handover::InstanceId self;
    machine::MachineEvents events;
    AdoptEndpoints adopt_endpoints;
    state::SectionType endpoints_section; ///< What adopt_endpoints reads.
    const sys::Clock& clock;
    ForeignMemory* memory = nullptr; ///< Borrowed; null: it stays with its instance.
    const PageMap& page_map;
    /// Called on this thread with a duplicate of the machine's owner record as soon as it is here:
    /// who hangs later can still be told apart from who owns nothing. May be empty.
    std::function<void(const std::string& machine_id, sys::Fd record)> record_known = {};
};

struct TakenMachine {
    std::unique_ptr<machine::Machine> machine;
    handover::OwnerRecord record;
    handover::Ownership ownership;
    bool paused = false; ///< As it was at the source.
};

/// What is left to do of a handover beside the running guest.
struct LateWork {
    std::vector<Frame> frames; ///< To be looked at again.
    /// Empty: page tables are filled already (Timing::late).
    machine::Machine::Fetch fetch;
    std::uint64_t faults_before = 0; ///< Page faults of this process until the guest ran here.
};

/// Takes the machine offered over `source`. After success the machine runs. `settle` must then be
/// served by answer_settle(). An error means the guest is not here; the source has been told why.
[[nodiscard]] Result<std::pair<TakenMachine, LateWork>>
run_destination(DestinationParts parts, const sys::MessageSocket& source);

/// Serves the source's last question, once all that was to be fetched is there: until then the
/// source keeps what it has (requirement HR-5). Returns when it has been answered or the source is
/// gone.
void answer_settle(machine::Machine& machine,
                   const PageMap& page_map,
                   LateWork work,
                   const sys::MessageSocket& source);

} // namespace godwit::exchange
