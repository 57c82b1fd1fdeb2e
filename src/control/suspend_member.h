#pragma once

/// One machine of a suspend-mode exchange, as its godwitd sees it. Control thread only.

#include "control/suspend_run.h"

#include <memory>
#include <string>
#include <vector>

namespace godwit::control {

/// Up to where a machine has come. Those beyond `ready` count as at least ready.
enum class Stage : std::uint8_t {
    planned,
    starting,
    preparing,
    ready,
    holding,
    held,
    committed,
    released, ///< Its keeper goes on.
    over,     ///< And is done with it.
    failed
};

struct SuspendRun::Member {
    std::string name;
    std::string blocked; ///< Found before anything was started.
    std::string trouble; ///< Why it failed.
    Stage stage = Stage::planned;
    std::shared_ptr<VmmInstance> source;
    std::shared_ptr<VmmInstance> keeper;
    std::shared_ptr<VmmInstance> successor;
    std::shared_ptr<handover::OwnerRecord> record;
    sys::Fd source_end;    ///< The old VMM's end of the connection to the keeper, until it is sent.
    sys::Fd offer_end;     ///< The keeper's end of the connection to the new VMM, likewise.
    sys::Fd lifeline_far;  ///< The keeper's end, likewise.
    sys::Fd lifeline_near; ///< Closed when the old side has ended.
    int ready_count = 0;
    bool asked = false;      ///< The old VMM has not reported yet.
    bool reclaiming = false; ///< It has been told to take the machine back.
    bool frozen = false;     ///< Its guest was not taken back: nobody runs it.
    bool source_gone = false;
    std::unique_ptr<Json> source_report = std::make_unique<Json>();

    /// The old VMM has still to say how it ended for it.
    [[nodiscard]] bool is_awaited() const { return !source_gone && (asked || reclaiming); }
    [[nodiscard]] bool is_committed() const {
        return stage >= Stage::committed && stage != Stage::failed;
    }
    [[nodiscard]] std::vector<std::string> blockers() const;
    [[nodiscard]] Json to_json() const;
};

} // namespace godwit::control
