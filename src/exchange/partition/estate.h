#pragma once

/// The bequest of the last resources, which cannot be handed over actively because the old instance
/// needs them to run: both sides as pure transition functions (requirement MP-5).
///
///   old:  serving -> draining -> written -> sealed -> ended
///            ^          |           |         |
///            +--abort---+---abort---+         +-- refused --> draining
///
///   new:  waiting -> armed -> [expired -> fencing] -> claiming -> scrubbing -> taking_cpu -> done
///            |                                            ^
///            +--- the old one ended without an estate ----+
///
/// The seal is the old instance's point of no return. The new one claims nothing before the
/// deadline has passed AND the old one's end is proven; a timer alone proves nothing, an end alone
/// does not either. No clock, no process, no memory is touched here: whoever drives this brings the
/// evidence and carries the action out.

#include "base/result.h"
#include "exchange/partition/region.h"
#include "sys/clock.h"

#include <chrono>
#include <optional>
#include <string_view>

namespace godwit::exchange::partition {

enum class OldStage : std::uint8_t { serving, draining, written, sealed, ended };
enum class OldEvent : std::uint8_t {
    drain,   ///< The operator wants everything to go over.
    drained, ///< The last program has left, deadline and pointers are written.
    seal,    ///< The written estate is made claimable.
    refused, ///< The new instance does not accept the estate.
    abort,   ///< Give up: everything comes back.
    exit,    ///< The process ends now.
};
/// The next stage, or conflict where the event is not possible.
[[nodiscard]] Result<OldStage> next(OldStage stage, OldEvent event);
[[nodiscard]] std::string_view name_of(OldStage stage) noexcept;

/// What is known about the old instance.
enum class Liveness : std::uint8_t {
    alive,
    silent,     ///< Its heartbeat has stopped; that proves nothing.
    terminated, ///< Every process of it has ended: proven by the kernel, or by a fence.
};

enum class NewStage : std::uint8_t {
    waiting,    ///< For an estate.
    armed,      ///< An estate is accepted, its deadline has not come.
    expired,    ///< The deadline has passed, the old instance still lives.
    fencing,    ///< It is being killed.
    claiming,   ///< Its last memory.
    scrubbing,  ///< What it left there.
    taking_cpu, ///< Its last CPU.
    done,
};
[[nodiscard]] std::string_view name_of(NewStage stage) noexcept;

enum class NewAction : std::uint8_t {
    none,          ///< Wait until wake_at, or for news.
    refuse_estate, ///< Tell the old instance; reason in `reason`.
    fence,         ///< Kill every process of it.
    claim,         ///< Everything that is the old instance's.
    scrub,
    take_cpu,
};

/// How long which patience lasts.
struct EstateLimits {
    /// A deadline is at least this far behind its writing: less cannot be a measured shutdown.
    std::chrono::nanoseconds notice_min = std::chrono::milliseconds(1);
    /// A deadline further away is a mistake or malice.
    std::chrono::nanoseconds notice_max = std::chrono::minutes(10);
    /// How long after its deadline a living old instance is waited for before it is killed.
    std::chrono::nanoseconds grace = std::chrono::seconds(5);
    /// How often the fence is tried again.
    std::chrono::nanoseconds fence_again = std::chrono::seconds(1);
};

/// What the new instance knows when it decides.
struct Evidence {
    sys::Moment now;
    std::optional<Estate> estate; ///< The sealed one; nothing if there is none.
    /// Its pointers stand in the pool's table exactly so, under the old instance.
    bool pointers_good = true;
    Liveness old_instance = Liveness::alive;
    bool finished = false; ///< The action of this stage is done.
};

struct NewState {
    NewStage stage = NewStage::waiting;
    std::optional<Estate> estate; ///< As accepted.
    std::uint64_t refused = 0;    ///< Generation refused last.
    sys::Moment fenced_at;
};
struct NewStep {
    NewState state;
    NewAction action = NewAction::none;
    std::optional<sys::Moment> wake_at;
    std::string_view reason; ///< Of a refusal.
};
/// One decision. Call it again whenever something in the evidence changes, at wake_at, and after
/// each action.
[[nodiscard]] NewStep
next(const NewState& state, const Evidence& evidence, const EstateLimits& limits);

/// Why an estate cannot be accepted at `now`; empty if it can.
[[nodiscard]] std::string_view
reason_against(const Estate& estate, sys::Moment now, const EstateLimits& limits);

} // namespace godwit::exchange::partition
