#pragma once

/// A machine suspended in memory, as its keeper holds it: the descriptors and documents that came
/// from the old VMM, checked, and ready to be given to a new one any number of times.
///
/// The saved state is not looked into: it is for the VMM that loads it. What is checked is what the
/// keeper itself relies on: that the owner record is one and belongs to this machine, and that the
/// state buffer can neither shrink nor be written any more. One thread at a time.

#include "base/result.h"
#include "exchange/wire.h"
#include "handover/owner_record.h"

#include <string>

namespace godwit::keeper {

class Parcel {
  public:
    /// Takes an offer apart as far as a keeper must; `epoch_next` of the record is what it will be
    /// passed on under. corrupt if it is not what it says.
    [[nodiscard]] static Result<Parcel> of_offer(exchange::Offer offer);

    /// The rest, which comes while the guest stands still. Nobody can map the state writable after
    /// this.
    [[nodiscard]] Status complete(exchange::TakeOver take_over);
    [[nodiscard]] bool complete() const noexcept { return complete_; }

    /// Passes the offer on under another owner, as if it were that owner's own.
    [[nodiscard]] Status
    send_offer(const sys::MessageSocket& to, handover::InstanceId owner, std::uint32_t epoch);
    [[nodiscard]] Status send_take_over(const sys::MessageSocket& to) const;

    [[nodiscard]] handover::OwnerRecord& record() noexcept { return record_; }
    [[nodiscard]] const handover::OwnerRecord& record() const noexcept { return record_; }
    /// Who has offered the machine, and in which epoch.
    [[nodiscard]] const handover::Ownership& origin() const noexcept { return origin_; }
    [[nodiscard]] const std::string& machine_id() const noexcept { return machine_id_; }
    [[nodiscard]] const std::string& machine_name() const noexcept { return machine_name_; }
    [[nodiscard]] bool paused() const noexcept { return paused_; }
    [[nodiscard]] std::uint64_t state_bytes() const noexcept { return state_bytes_; }
    [[nodiscard]] std::size_t descriptors() const noexcept { return descriptors_; }

  private:
    Parcel(handover::OwnerRecord record, sys::Fd state)
        : record_(std::move(record)), state_(std::move(state)) {}
    handover::OwnerRecord record_;
    sys::Fd state_;
    exchange::WireMessage offer_;
    exchange::WireMessage take_over_;
    handover::Ownership origin_;
    std::string machine_id_;
    std::string machine_name_;
    bool paused_ = false;
    bool complete_ = false;
    std::uint64_t state_bytes_ = 0;
    std::size_t descriptors_ = 0;
};

} // namespace godwit::keeper
