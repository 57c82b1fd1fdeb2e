#include "block/overlay/layered_device.h"

#include <utility>

namespace godwit::block {

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
    if (pool_.in_flight() > 0) {
        return;
    }
    flush_ = {.operation = BlockOperation::flush, .done = &LayeredDevice::flushed, .owner = this};
    layers_->submit(flush_);
    layers_->kick();
}

void LayeredDevice::flushed(BlockRequest& request, Status status) noexcept {
    auto& device = *static_cast<LayeredDevice*>(request.owner);
    if (status.has_value()) {
        device.layers_ = device.change_(std::move(device.layers_));
        device.geometry_.bytes = device.layers_->geometry().bytes;
    }
    device.changing_ = false;
    while (BlockRequest* const held = device.held_.try_pop()) {
        --device.in_flight_;
        device.submit(*held);
    }
    device.layers_->kick();
    Changed changed = std::move(device.changed_);
    changed(std::move(status));
}

Result<BlockGeometry> LayeredDevice::refresh() {
    geometry_.bytes = GODWIT_TRY(layers_->refresh()).bytes;
    return geometry_;
}

} // namespace godwit::block
