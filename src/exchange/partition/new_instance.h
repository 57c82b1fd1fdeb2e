#pragma once

/// The new instance of a partitioned exchange: takes programs through `mover()`, and in the end
/// what the old instance leaves. Steps and their undo: head of new_instance.cpp. Owner thread only.
///
///     NewInstance fresh = GODWIT_TRY(NewInstance::create(parts, witness, {}));
///     GODWIT_TRY(fresh.hello());
///     loop, on the doorbell, every millisecond and at fresh.wake_at():
///         GODWIT_TRY(fresh.mover().news()) and what it says
///         until GODWIT_TRY(fresh.settle_estate()) is NewStage::done: everything is ours

#include "exchange/partition/estate.h"
#include "exchange/partition/inherit.h"
#include "exchange/partition/program_mover.h"
#include "exchange/partition/witness.h"

#include <optional>

namespace godwit::exchange::partition {

class NewInstance {
  public:
    /// `old_instance` is borrowed.
    [[nodiscard]] static Result<NewInstance>
    create(const Parts& parts, Witness& old_instance, const EstateLimits& limits);

    /// Tells the old instance that this one runs.
    [[nodiscard]] Status hello();
    [[nodiscard]] ProgramMover& mover() noexcept { return mover_; }

    /// One round of the estate protocol, with its actions. Returns the stage reached; after an
    /// error call it again.
    [[nodiscard]] Result<NewStage> settle_estate();
    /// When settle_estate() wants to be called next, whatever else happens.
    [[nodiscard]] std::optional<sys::Moment> wake_at() const noexcept { return wake_at_; }
    /// What was inherited, complete when the stage is done. Its programs are those the old instance
    /// had not given away; their memory is untouched.
    [[nodiscard]] const Legacy& legacy() const noexcept { return legacy_; }
    /// The estate accepted, if any.
    [[nodiscard]] const std::optional<Estate>& estate() const noexcept { return state_.estate; }

  private:
    NewInstance(ProgramMover mover, Witness& old_instance, const EstateLimits& limits)
        : mover_(std::move(mover)), witness_(old_instance), limits_(limits) {}
    [[nodiscard]] Evidence gather() const;
    [[nodiscard]] Status carry_out(const NewStep& step);

    ProgramMover mover_;
    Witness& witness_;
    EstateLimits limits_;
    NewState state_;
    bool finished_ = false;
    std::optional<sys::Moment> wake_at_;
    Legacy legacy_;
};

} // namespace godwit::exchange::partition
