// Room in the delta: slots, who waits for them, and what is told of that (LS-6).
#include "block/overlay/overlay_device.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

namespace {
/// Until a delta whose storage was full is tried again, and until space that was found is told:
/// the last of it goes to the small writes while the large ones are still turned back.
constexpr std::chrono::milliseconds storage_distance(500);
} // namespace

/// The caller has seen that there is room.
std::uint32_t OverlayDevice::allocate(std::uint32_t wanted, std::uint32_t& count) {
    const BlockRange gap = state_.used.next_gap({.first = next_slot_, .end = state_.header.slots});
    GODWIT_ASSERT(!gap.empty());
    count = static_cast<std::uint32_t>(std::min<std::uint64_t>(wanted, gap.count()));
    state_.used.add({.first = gap.first, .end = gap.first + count});
    next_slot_ = gap.first + count;
    note_pressure();
    return static_cast<std::uint32_t>(gap.first);
}

/// Whether the change has to wait for room, or for its turn when there is little left (LS-6).
bool OverlayDevice::must_wait(Operation& operation) {
    const std::uint64_t used = state_.used.count();
    if (used >= state_.header.slots || storage_at_.has_value()) {
        wait_for_room(operation);
        return true;
    }
    const std::uint64_t high = state_.header.slots * options_.high_water_percent / 100;
    if (used < high || operation.paced) {
        return false;
    }
    operation.paced = true;
    const double fullness =
        static_cast<double>(used - high + 1) / static_cast<double>(state_.header.slots - high + 1);
    paced_.push_back(
        {.due = clock_.now() + sys::Nanoseconds(static_cast<std::int64_t>(
                                   static_cast<double>(options_.throttle_max.count()) * fullness)),
         .operation = &operation});
    set_alarm();
    return true;
}

void OverlayDevice::wait_for_room(Operation& operation) {
    waiting_.push_back(&operation);
    set_alarm();
}

void OverlayDevice::set_patience(Patience patience) {
    patience_ = patience;
    if (base_ != nullptr) {
        base_->set_patience(patience); // It may be an overlay as well.
    }
    set_alarm();
}

void OverlayDevice::give_waiting_back() {
    for (Operation* operation : std::exchange(waiting_, {})) {
        finish(*operation, Error(ErrorCode::cancelled, "the delta is full"));
    }
}

/// For whatever is due first.
void OverlayDevice::set_alarm() {
    if (!at_once_.empty() || (patience_ == Patience::gives_back && !waiting_.empty()) ||
        (fold_end_.has_value() && !fold_claimed_)) {
        alarm_->set(clock_.now());
        return;
    }
    std::optional<sys::Moment> due = waiting_.empty() ? std::nullopt : storage_at_;
    if (space_at_.has_value()) {
        due = std::min(due.value_or(*space_at_), *space_at_);
    }
    for (const Paced& paced : paced_) {
        due = std::min(due.value_or(paced.due), paced.due);
    }
    if (due.has_value()) {
        alarm_->set(*due);
    }
}

void OverlayDevice::wake_waiting() {
    for (Operation* operation : std::exchange(waiting_, {})) {
        step(*operation);
    }
    kick();
}

void OverlayDevice::note_pressure() {
    const std::uint64_t used = state_.used.count();
    const std::uint64_t slots = state_.header.slots;
    DeltaPressure now = pressure_;
    if (used >= slots || storage_full_) {
        now = DeltaPressure::full;
    } else if (used * 100 >= slots * options_.high_water_percent) {
        now = DeltaPressure::high;
    } else if (used * 100 < slots * options_.low_water_percent) {
        now = DeltaPressure::low;
    }
    if (std::exchange(pressure_, now) != now && hooks_.pressure) {
        hooks_.pressure(now);
    }
}

void OverlayDevice::ring() {
    while (BlockRequest* const request = at_once_.try_pop()) {
        --in_flight_;
        request->done(*request, validate(*request, geometry_));
    }
    const sys::Moment now = clock_.now();
    std::vector<Operation*> due;
    std::erase_if(paced_, [&](const Paced& paced) {
        if (paced.due <= now) {
            due.push_back(paced.operation);
        }
        return paced.due <= now;
    });
    for (Operation* operation : due) {
        step(*operation);
    }
    if (storage_at_.has_value() && *storage_at_ <= now) {
        storage_at_.reset(); // The first of them finds out.
        wake_waiting();
    }
    if (space_at_.has_value() && *space_at_ <= now) {
        space_at_.reset();
        storage_full_ = false;
        note_pressure();
    }
    if (folding_now_ && fold_end_.has_value() && !fold_claimed_) {
        fold_over(std::move(*fold_end_));
    }
    if (patience_ == Patience::gives_back) {
        give_waiting_back();
    }
    set_alarm();
    kick();
}

void OverlayDevice::note_full_storage() {
    storage_full_ = true;
    storage_at_ = clock_.now() + storage_distance;
    space_at_.reset();
    note_pressure();
}

void OverlayDevice::note_space() {
    if (!storage_full_) {
        return;
    }
    if (!space_at_.has_value()) {
        space_at_ = clock_.now() + storage_distance;
    }
    storage_at_.reset();
    set_alarm();
    wake_waiting();
}

} // namespace godwit::block
