#include "block/overlay/layered_device.h"

#include <utility>

namespace godwit::block {

Result<std::unique_ptr<LayeredDevice>> LayeredDevice::create(std::unique_ptr<BlockDevice> layers,
                                                             sys::AlarmClock& clock) {
    std::unique_ptr<LayeredDevice> made(new LayeredDevice(std::move(layers), clock));
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] { raw->make_change(); }));
    return made;
}

void LayeredDevice::submit(BlockRequest& request) {
    ++in_flight_;
    if (changing_) {
        held_.push(request);
        return;
    }
    pool_.intercept(request, this, &LayeredDevice::done);
    layers_->submit(request);
}

void LayeredDevice::done(BlockRequest& request, Status status) noexcept {
    Interception& taken = *static_cast<Interception*>(request.owner);
    auto& device = *static_cast<LayeredDevice*>(taken.device);
    device.pool_.restore(taken);
    --device.in_flight_;
    if (request.operation == BlockOperation::flush && status.has_value() &&
        device.owed_failure_.has_value()) {
        status = std::move(*device.owed_failure_);
        device.owed_failure_.reset();
    }
    request.done(request, std::move(status));
    if (device.changing_) {
        device.flush_when_drained();
    }
}

Status LayeredDevice::change(Change change, Changed changed) {
    if (changing_) {
        return Error(ErrorCode::conflict, "the layers of the disk are being changed already");
    }
    changing_ = true;
    change_ = std::move(change);
    changed_ = std::move(changed);
    flush_when_drained();
    return ok();
}

void LayeredDevice::flush_when_drained() {
    if (pool_.in_flight() > 0 || std::exchange(flushing_, true)) {
        return;
    }
    flush_ = {.operation = BlockOperation::flush, .done = &LayeredDevice::flushed, .owner = this};
    layers_->submit(flush_);
    layers_->kick();
}

void LayeredDevice::flushed(BlockRequest& request, Status status) noexcept {
    auto& device = *static_cast<LayeredDevice*>(request.owner);
    device.flushed_status_ = std::move(status);
    device.alarm_->set(device.clock_.now());
}

void LayeredDevice::make_change() {
    Status status = std::exchange(flushed_status_, ok());
    if (status.has_value()) {
        layers_ = change_(std::move(layers_));
        geometry_.bytes = layers_->geometry().bytes;
    }
    if (!status.has_value()) {
        owed_failure_ = status.error();
    }
    change_ = nullptr;
    changing_ = false;
    flushing_ = false;
    while (BlockRequest* const held = held_.try_pop()) {
        --in_flight_;
        submit(*held);
    }
    layers_->kick();
    Changed changed = std::move(changed_);
    changed(std::move(status));
}

Result<BlockGeometry> LayeredDevice::refresh() {
    geometry_.bytes = GODWIT_TRY(layers_->refresh()).bytes;
    return geometry_;
}

} // namespace godwit::block
