#include "keeper/parcel.h"

#include "machine/machine_spec.h"

#include <sys/mman.h>

#include <fcntl.h>

#include <utility>

namespace godwit::keeper {

namespace {

/// A duplicate of the descriptor called `name`, which stays in the manifest.
Result<sys::Fd> duplicate_of(const sys::FdManifest& manifest, std::string_view name) {
    const std::vector<const sys::Fd*> fds = manifest.borrowed();
    for (std::size_t i = 0; i < fds.size(); ++i) {
        if (manifest.names()[i] == name) {
            return fds[i]->duplicate();
        }
    }
    return Error(ErrorCode::corrupt, "the offer has no descriptor '" + std::string(name) + "'");
}

Status check_state_buffer(const sys::Fd& state) {
    const int seals = ::fcntl(state.raw(), F_GET_SEALS);
    if (GODWIT_TRY(sys::file_size(state)) != exchange::state_buffer_bytes || seals < 0 ||
        (seals & F_SEAL_SHRINK) == 0) {
        return Error(ErrorCode::corrupt,
                     "the state buffer handed over is not a sealed one of the right size");
    }
    return ok();
}

} // namespace

Result<Parcel> Parcel::of_offer(exchange::Offer offer) {
    if (offer.protocol != exchange::protocol_version) {
        return Error(ErrorCode::unsupported,
                     "the source speaks handover protocol " + std::to_string(offer.protocol) +
                         ", this keeper " + std::to_string(exchange::protocol_version));
    }
    const machine::MachineSpec spec =
        GODWIT_TRY(machine::parse_machine_spec(offer.spec_json).with_context("the offer"));
    sys::Fd state = GODWIT_TRY(duplicate_of(offer.descriptors, "state"));
    GODWIT_TRY(check_state_buffer(state));
    auto record = GODWIT_TRY(handover::OwnerRecord::adopt(
        GODWIT_TRY(duplicate_of(offer.descriptors, "owner")), spec.id));
    Parcel parcel(std::move(record), std::move(state));
    parcel.origin_ = {.owner = handover::InstanceId{offer.instance}, .epoch = offer.epoch};
    if (parcel.origin_.owner.value == 0) {
        return Error(ErrorCode::corrupt, "the offer names nobody as its owner");
    }
    parcel.machine_id_ = spec.id;
    parcel.machine_name_ = spec.name;
    parcel.paused_ = offer.paused;
    parcel.descriptors_ = offer.descriptors.size();
    parcel.offer_ = std::move(offer);
    return parcel;
}

Status Parcel::complete(exchange::TakeOver take_over) {
    if (complete_) {
        return Error(ErrorCode::corrupt, "the machine was handed over twice");
    }
    if (take_over.state_bytes > exchange::state_buffer_bytes) {
        return Error(ErrorCode::corrupt, "the state is announced larger than its buffer");
    }
    // The old VMM's own mapping goes with its process; a new one cannot be made from here on.
    if (::fcntl(state_.raw(), F_ADD_SEALS, F_SEAL_FUTURE_WRITE) != 0) {
        return Error::from_errno(errno, "seal the state against writing");
    }
    state_bytes_ = take_over.state_bytes;
    take_over_ = std::move(take_over);
    complete_ = true;
    return ok();
}

Status
Parcel::send_offer(const sys::MessageSocket& to, handover::InstanceId owner, std::uint32_t epoch) {
    auto& offer = std::get<exchange::Offer>(offer_);
    offer.instance = owner.value;
    offer.epoch = epoch;
    return exchange::send(to, offer_);
}

Status Parcel::send_take_over(const sys::MessageSocket& to) const {
    return exchange::send(to, take_over_);
}

} // namespace godwit::keeper
