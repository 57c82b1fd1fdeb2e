#pragma once

/// What the supervisor knows about one machine: its document and the VMM processes that have to do
/// with it. At most one of them owns the guest. Control thread only.

#include "control/machine_document.h"
#include "control/vmm_instance.h"

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::control {

/// Why a machine is no more; `reason` as in the event "stopped".
struct MachineEnd {
    std::string reason;
    std::string detail;
};

struct MachineEntry {
    MachineDocument document;
    std::string program; ///< The godwit-vmm its next process is started from.
    bool starting = false;
    bool adopted = false;       ///< Its owner is not our child: no exit code.
    bool document_known = true; ///< False: its file could not be read; only the name is known.
    /// Why processes of it may live that are not known here; empty: all are known. Nothing of a
    /// machine in doubt is taken away.
    std::string doubt;
    std::shared_ptr<VmmInstance> owner;
    std::vector<std::shared_ptr<VmmInstance>> others; ///< Successors and retired ones.
    std::uint64_t operation = 0;                      ///< The one under way or the last one.
    std::optional<MachineEnd> end;                    ///< What the VMM said, or why it was killed.
    std::vector<std::uint64_t> stop_operations;       ///< Wait for the end.
    std::deque<std::string> reports; ///< At most reports_per_machine_max, oldest first.
    /// Shared with its VMMs; null until one has handed it out. Tells who may run the guest.
    std::shared_ptr<handover::OwnerRecord> record;
    std::string disks_asked_of; ///< The instance that has been asked for moving disks.
    sys::EventLoop::Handle recovery_timer;
    sys::EventLoop::Handle stop_timer;

    /// "starting", "running", "paused", "frozen" (nobody runs the guest, its
    /// memory is kept), "recovering" or "unresponsive".
    [[nodiscard]] std::string state() const;
    [[nodiscard]] bool knows(const std::string& instance) const;
    /// The living process of this instance, or null.
    [[nodiscard]] std::shared_ptr<VmmInstance> living(handover::InstanceId instance) const;
    /// Whether `vmm` stands for the machine: it owns it by the record, or keeps it frozen while the
    /// owner by the record has not touched it or is gone. Without a record its own word counts.
    [[nodiscard]] bool stands_for(const VmmInstance& vmm) const;
};

} // namespace godwit::control
