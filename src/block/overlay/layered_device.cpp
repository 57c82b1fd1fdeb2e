#include "block/overlay/layered_device.h"

#include <utility>

namespace godwit::block {

namespace {
/// Between two attempts at opening.
constexpr std::chrono::seconds opening_distance(1);
} // namespace

Result<std::unique_ptr<LayeredDevice>> LayeredDevice::create(std::unique_ptr<BlockDevice> layers,
                                                             sys::AlarmClock& clock,
                                                             Opening opening) {
    std::unique_ptr<LayeredDevice> made(
        new LayeredDevice(std::move(layers), clock, std::move(opening)));
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] { raw->ring(); }));
    return made;
}

void LayeredDevice::submit(BlockRequest& request) {
    ++in_flight_;
    if (changing_ || !opened()) {
        held_.push(request);
        open();
        return;
    }
    pool_.intercept(request, this, &LayeredDevice::done);
    layers_->submit(request);
}

void LayeredDevice::done(BlockRequest& request, Status status) noexcept {
    Interception& taken = *static_cast<Interception*>(request.owner);
    auto& device = *static_cast<LayeredDevice*>(taken.device);
    device.pool_.restore(taken);
    if (device.changing_ && !status.has_value() && status.error().code() == ErrorCode::cancelled) {
        device.held_.push(request); // Given back for the change: it has its turn after it.
        device.flush_when_drained();
        return;
    }
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

void LayeredDevice::open() {
    if (!opened()) {
        alarm_->set(clock_.now());
    }
}

Status LayeredDevice::change(Change change, Changed changed) {
    if (changing_ || !opened()) {
        return Error(ErrorCode::conflict,
                     changing_ ? "the layers of the disk are being changed already"
                               : "the layers of the disk are not open yet");
    }
    changing_ = true;
    change_ = std::move(change);
    changed_ = std::move(changed);
    layers_->set_patience(Patience::gives_back); // A full delta must not keep it waiting.
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

void LayeredDevice::ring() {
    opened() ? make_change() : try_opening();
}

void LayeredDevice::try_opening() {
    const Status status = opening_.open(layers_);
    if (opening_.tried) {
        opening_.tried(status);
    }
    if (status.has_value()) {
        opening_.open = nullptr;
        layers_->set_patience(patience_);
        let_held_go();
        return;
    }
    if (patience_ == Patience::gives_back) {
        while (BlockRequest* const held = held_.try_pop()) {
            --in_flight_;
            held->done(*held, Error(ErrorCode::cancelled, "the disk's layers are not open yet"));
        }
    }
    alarm_->set(clock_.now() + opening_distance);
}

void LayeredDevice::make_change() {
    Status status = std::exchange(flushed_status_, ok());
    if (!status.has_value()) {
        owed_failure_ = status.error();
    } else {
        status = change_(layers_);
        geometry_.bytes = layers_->geometry().bytes;
    }
    layers_->set_patience(patience_);
    change_ = nullptr;
    changing_ = false;
    flushing_ = false;
    let_held_go();
    Changed changed = std::move(changed_);
    changed(std::move(status));
}

void LayeredDevice::let_held_go() {
    while (BlockRequest* const held = held_.try_pop()) {
        --in_flight_;
        submit(*held);
    }
    layers_->kick();
}

void LayeredDevice::set_patience(Patience patience) {
    patience_ = patience;
    if (!changing_) {
        layers_->set_patience(patience);
    }
    if (patience == Patience::gives_back && in_flight_ > 0) {
        open(); // Once more, and what waits for it comes back.
    }
}

Result<BlockGeometry> LayeredDevice::refresh() {
    if (opened()) {
        geometry_.bytes = GODWIT_TRY(layers_->refresh()).bytes;
    }
    return geometry_;
}

} // namespace godwit::block
