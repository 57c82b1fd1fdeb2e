#include "block/overlay/overlay_device.h"

#include "block/segments.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace godwit::block {

namespace {
/// Clusters written for the first time by one transfer.
constexpr std::uint64_t new_clusters_max = 64;
/// Clusters that one part of a request may be about: what is looked at for each part.
constexpr std::uint64_t run_clusters_max = 256;

bool is_out_of_space(const Status& status) {
    return !status.has_value() &&
           (status.error().os_errno() == ENOSPC || status.error().os_errno() == EDQUOT);
}
} // namespace

Result<std::unique_ptr<OverlayDevice>> OverlayDevice::create(std::unique_ptr<BlockDevice> base,
                                                             std::unique_ptr<BlockDevice> delta,
                                                             DeltaState state,
                                                             sys::AlarmClock& clock,
                                                             const OverlayOptions& options,
                                                             Hooks hooks) {
    const BlockGeometry geometry = base->geometry();
    auto made = GODWIT_TRY(create_over(
        geometry, std::move(delta), std::move(state), clock, options, std::move(hooks)));
    made->put_over(std::move(base));
    return made;
}

Result<std::unique_ptr<OverlayDevice>>
OverlayDevice::create_over(const BlockGeometry& base,
                           std::unique_ptr<BlockDevice> delta,
                           DeltaState state,
                           sys::AlarmClock& clock,
                           const OverlayOptions& options,
                           Hooks hooks) {
    if (base.bytes != state.header.disk_bytes) {
        return Error(ErrorCode::conflict,
                     "the delta is of a disk of " + std::to_string(state.header.disk_bytes) +
                         " bytes, the base has " + std::to_string(base.bytes));
    }
    if (delta->geometry().read_only ||
        base.logical_block_bytes % delta->geometry().logical_block_bytes != 0) {
        return Error(ErrorCode::unsupported, "the delta's device does not take the disk's blocks");
    }
    if (options.low_water_percent > options.high_water_percent ||
        options.high_water_percent > 100) {
        return Error(ErrorCode::invalid_argument, "water marks rise, up to 100 percent");
    }
    std::unique_ptr<OverlayDevice> made(new OverlayDevice(
        base, std::move(delta), std::move(state), clock, options, std::move(hooks)));
    if (made->metadata_.size() == 0 || made->fold_buffer_.size() == 0 ||
        made->rewrite_buffer_.size() == 0) {
        return Error(ErrorCode::resource_exhausted, "no memory for a delta's metadata");
    }
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] { raw->ring(); }));
    return made;
}

OverlayDevice::OverlayDevice(const BlockGeometry& base,
                             std::unique_ptr<BlockDevice> delta,
                             DeltaState state,
                             sys::AlarmClock& clock,
                             const OverlayOptions& options,
                             Hooks hooks)
    : clock_(clock), options_(options), hooks_(std::move(hooks)), delta_(std::move(delta)),
      state_(std::move(state)), geometry_(base), last_journal_id_(state_.header.journal_id),
      durable_journal_index_(state_.journal_index), base_flush_due_(!base.read_only),
      metadata_(delta_block_bytes), rewrite_buffer_(state_.header.cluster_bytes),
      fold_buffer_(state_.header.cluster_bytes) {
    geometry_.read_only = false;
    geometry_.can_write_zeroes = delta_->geometry().can_write_zeroes;
}

OverlayDevice::~OverlayDevice() {
    closing_ = true;
    delta_.reset();
    base_.reset();
}

void OverlayDevice::kick() {
    if (!closing_) {
        base_->kick();
        delta_->kick();
    }
}

std::unique_ptr<BlockDevice> OverlayDevice::take_base() {
    GODWIT_ASSERT(state_.map.count() == 0 && in_flight_ == 0 && !folding_now_);
    GODWIT_ASSERT(stage_ == CommitStage::none && pending_.empty() && committing_.empty());
    closing_ = true;
    return std::move(base_);
}

// --- operations ---

OverlayDevice::Operation& OverlayDevice::take_operation(BlockRequest& request) {
    if (idle_.empty()) {
        idle_.push_back(&operations_.emplace_back());
        idle_.reserve(operations_.size());
    }
    Operation& operation = *idle_.back();
    idle_.pop_back();
    operation.device = this;
    operation.guest = &request;
    operation.claimed = false;
    operation.done_bytes = 0;
    operation.part_bytes = 0;
    operation.new_count = 0;
    operation.on_base = false;
    operation.filling = false;
    operation.paced = false;
    operation.needs_commit = false;
    operation.again = false;
    return operation;
}

void OverlayDevice::submit(BlockRequest& request) {
    ++in_flight_;
    if (!validate(request, geometry_).has_value() || request.operation == BlockOperation::discard) {
        at_once_.push(request);
        set_alarm();
        return;
    }
    Operation& operation = take_operation(request);
    if (request.operation == BlockOperation::flush) {
        want_commit(operation);
        return;
    }
    if (request.operation == BlockOperation::read) {
        step(operation);
        return;
    }
    operation.claim.range = {.first = request.offset / cluster_bytes(),
                             .end = (request.offset + request.bytes - 1) / cluster_bytes() + 1};
    operation.claim.granted = &OverlayDevice::granted;
    operation.claim.owner = &operation;
    operation.claimed = true;
    if (locks_.acquire(operation.claim)) {
        step(operation);
    }
}

void OverlayDevice::granted(RangeLocks::Claim& claim) noexcept {
    Operation& operation = *static_cast<Operation*>(claim.owner);
    operation.device->step(operation);
    operation.device->kick();
}

void OverlayDevice::finish(Operation& operation, Status status) {
    if (std::exchange(operation.claimed, false)) {
        locks_.release(operation.claim);
    }
    BlockRequest& guest = *operation.guest;
    idle_.push_back(&operation);
    --in_flight_;
    guest.done(guest, std::move(status));
}

/// The next part of the operation, or its end.
void OverlayDevice::step(Operation& operation) {
    if (operation.done_bytes == operation.guest->bytes && std::exchange(operation.again, false)) {
        operation.done_bytes = 0;
    }
    if (operation.done_bytes < operation.guest->bytes) {
        operation.guest->operation == BlockOperation::read ? step_read(operation)
                                                           : step_change(operation);
    } else if (operation.needs_commit) {
        // Its data is where it belongs; a commit may want the claim for others'.
        if (std::exchange(operation.claimed, false)) {
            locks_.release(operation.claim);
        }
        want_commit(operation);
    } else {
        finish(operation, ok());
    }
}

std::uint64_t OverlayDevice::cluster_end(std::uint64_t cluster) const noexcept {
    return std::min(geometry_.bytes, (cluster + 1) * cluster_bytes());
}

std::uint64_t OverlayDevice::run_at(std::uint64_t place,
                                    std::uint64_t bytes,
                                    std::uint32_t& slot) const noexcept {
    const std::uint64_t first = place / cluster_bytes();
    slot = state_.map.slot(first);
    std::uint64_t end = cluster_end(first);
    for (std::uint64_t cluster = first + 1;
         end < place + bytes && cluster < first + run_clusters_max;
         ++cluster) {
        const std::uint32_t expected =
            slot == DeltaMap::none ? slot : slot + static_cast<std::uint32_t>(cluster - first);
        if (state_.map.slot(cluster) != expected) {
            break;
        }
        end = cluster_end(cluster);
    }
    return std::min(end, place + bytes) - place;
}

void OverlayDevice::step_read(Operation& operation) {
    const std::uint64_t place = operation.guest->offset + operation.done_bytes;
    std::uint32_t slot = 0;
    const std::uint64_t bytes = run_at(place, operation.guest->bytes - operation.done_bytes, slot);
    if (slot == DeltaMap::none) {
        submit_part(operation, *base_, place, bytes);
    } else {
        submit_part(
            operation, *delta_, state_.header.slot_place(slot) + place % cluster_bytes(), bytes);
    }
}

void OverlayDevice::step_change(Operation& operation) {
    const std::uint64_t place = operation.guest->offset + operation.done_bytes;
    const std::uint64_t left = operation.guest->bytes - operation.done_bytes;
    const std::uint64_t cluster = place / cluster_bytes();
    std::uint32_t slot = 0;
    std::uint64_t bytes = run_at(place, left, slot);
    if (slot != DeltaMap::none) {
        submit_part(
            operation, *delta_, state_.header.slot_place(slot) + place % cluster_bytes(), bytes);
        return;
    }
    if (folding_) {
        submit_part(operation, *base_, place, bytes);
        return;
    }
    if (must_wait(operation)) {
        return;
    }
    const bool whole = place % cluster_bytes() == 0 && place + bytes >= cluster_end(cluster);
    whole ? write_new(operation, cluster, bytes)
          : fill(operation, cluster, std::min(bytes, cluster_end(cluster) - place));
}

void OverlayDevice::submit_part(Operation& operation,
                                BlockDevice& device,
                                std::uint64_t offset,
                                std::uint64_t bytes) {
    const BlockRequest& guest = *operation.guest;
    operation.part_bytes = bytes;
    operation.on_base = &device == base_.get() && changes_data(guest.operation);
    operation.part = {.operation = guest.operation,
                      .force_unit_access = guest.force_unit_access,
                      .may_unmap = guest.may_unmap && &device == base_.get(),
                      .offset = offset,
                      .bytes = bytes,
                      .segments = guest.segments,
                      .done = &OverlayDevice::part_done,
                      .owner = &operation};
    if (bytes != guest.bytes && !guest.segments.empty()) {
        slice(guest.segments, operation.done_bytes, bytes, operation.segments);
        operation.part.segments = operation.segments;
    }
    device.submit(operation.part);
}

/// Whole clusters that are new: as many as lie side by side in the delta.
void OverlayDevice::write_new(Operation& operation, std::uint64_t cluster, std::uint64_t bytes) {
    const std::uint64_t place = cluster * cluster_bytes();
    // The last cluster of the disk may be a short one.
    const std::uint64_t whole = place + bytes == geometry_.bytes
                                    ? (bytes + cluster_bytes() - 1) / cluster_bytes()
                                    : bytes / cluster_bytes();
    operation.new_cluster = cluster;
    operation.new_slot = allocate(static_cast<std::uint32_t>(std::min(whole, new_clusters_max)),
                                  operation.new_count);
    submit_part(operation,
                *delta_,
                state_.header.slot_place(operation.new_slot),
                std::min<std::uint64_t>(bytes, operation.new_count * cluster_bytes()));
}

/// A part of a new cluster: what the base has around it comes along.
void OverlayDevice::fill(Operation& operation, std::uint64_t cluster, std::uint64_t bytes) {
    if (operation.cluster.size() == 0) {
        operation.cluster = AlignedBuffer(cluster_bytes());
    }
    if (operation.cluster.size() == 0) {
        finish(operation, Error(ErrorCode::resource_exhausted, "no memory for a cluster"));
        return;
    }
    operation.new_cluster = cluster;
    operation.new_slot = allocate(1, operation.new_count);
    operation.part_bytes = bytes;
    operation.filling = true;
    const std::uint64_t length = cluster_end(cluster) - cluster * cluster_bytes();
    operation.cluster_segment = {.iov_base = operation.cluster.bytes().data(), .iov_len = length};
    operation.part = {.operation = BlockOperation::read,
                      .offset = cluster * cluster_bytes(),
                      .bytes = length,
                      .segments = {&operation.cluster_segment, 1},
                      .done = &OverlayDevice::part_done,
                      .owner = &operation};
    base_->submit(operation.part);
}

void OverlayDevice::filled(Operation& operation) {
    operation.filling = false;
    const BlockRequest& guest = *operation.guest;
    const std::uint64_t place = guest.offset + operation.done_bytes;
    const auto own =
        operation.cluster.bytes().subspan(place % cluster_bytes(), operation.part_bytes);
    if (guest.operation == BlockOperation::write) {
        gather(guest.segments, operation.done_bytes, own);
    } else {
        std::ranges::fill(own, std::byte{0});
    }
    operation.part = {.operation = BlockOperation::write,
                      .force_unit_access = guest.force_unit_access,
                      .offset = state_.header.slot_place(operation.new_slot),
                      .bytes = operation.cluster_segment.iov_len,
                      .segments = {&operation.cluster_segment, 1},
                      .done = &OverlayDevice::part_done,
                      .owner = &operation};
    delta_->submit(operation.part);
}

void OverlayDevice::part_done(BlockRequest& part, Status status) noexcept {
    Operation& operation = *static_cast<Operation*>(part.owner);
    OverlayDevice& device = *operation.device;
    if (device.closing_) {
        return;
    }
    if (!status.has_value()) {
        device.part_failed(operation, std::move(status));
    } else if (operation.filling) {
        device.filled(operation);
    } else {
        device.part_over(operation);
    }
    device.kick();
}

void OverlayDevice::part_failed(Operation& operation, Status status) {
    const bool change = changes_data(operation.part.operation);
    if (change && operation.on_base && is_out_of_space(status)) {
        // The delta takes it after all.
        discard(cancel_fold(std::move(status.error())), "it may be over already");
        folding_ = false;
        step(operation);
        return;
    }
    if (change && !operation.on_base && is_out_of_space(status)) {
        if (operation.new_count > 0) {
            state_.used.remove({.first = operation.new_slot,
                                .end = std::uint64_t{operation.new_slot} + operation.new_count});
            next_slot_ = std::min<std::uint64_t>(next_slot_, operation.new_slot);
            operation.new_count = 0;
        }
        operation.turned_back = true;
        note_full_storage();
        wait_for_room(operation);
        return;
    }
    // A slot that was to be new is lost until the delta is opened again: never a wrong one.
    finish(operation, std::move(status));
}

void OverlayDevice::part_over(Operation& operation) {
    const bool written = changes_data(operation.part.operation);
    // What lies in its place already needs no space and proves none.
    if (written && !operation.on_base && (operation.new_count > 0 || operation.turned_back)) {
        operation.turned_back = false;
        note_space();
    }
    if (operation.new_count > 0) {
        for (std::uint32_t i = 0; i < operation.new_count; ++i) {
            state_.map.set(
                operation.new_cluster + i, operation.new_slot + i, DeltaMap::Durable::no);
        }
        pending_.push_back({.cluster = operation.new_cluster,
                            .slot = operation.new_slot,
                            .count = operation.new_count});
        operation.new_count = 0;
        operation.paced = false;
    } else if (operation.on_base) {
        base_written_bytes_ += operation.part_bytes;
    }
    // What the journal does not say yet must be said before a forced write is done.
    operation.needs_commit = operation.guest->force_unit_access &&
                             changes_data(operation.guest->operation) &&
                             (operation.needs_commit || !pending_.empty() || !committing_.empty());
    operation.done_bytes += operation.part_bytes;
    step(operation);
}

OverlayStatus OverlayDevice::status() const noexcept {
    return {.slots = state_.header.slots,
            .slots_used = state_.used.count(),
            .clusters_mapped = state_.map.count(),
            .base_written_bytes = base_written_bytes_,
            .waiting = waiting_.size(),
            .pressure = pressure_,
            .folding = folding_};
}

} // namespace godwit::block
