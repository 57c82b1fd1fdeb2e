#include "block/move/moving_device.h"

#include <utility>

namespace godwit::block {

Result<std::unique_ptr<MovingDevice>> MovingDevice::create(std::unique_ptr<BlockDevice> disk,
                                                           sys::AlarmClock& clock) {
    auto path = GODWIT_TRY(GuestPath::create(std::move(disk), clock));
    std::unique_ptr<MovingDevice> made(new MovingDevice(std::move(path), clock));
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] { raw->former_.reset(); }));
    return made;
}

MovingDevice::~MovingDevice() {
    // Devices first: what they bring to its end still finds its requests.
    if (mover_ != nullptr) {
        mover_->abandon();
    }
    path_->close_devices();
}

Status MovingDevice::start(std::unique_ptr<BlockDevice> destination,
                           const MoveOptions& options,
                           MoveHooks hooks) {
    if (moving()) {
        return Error(ErrorCode::conflict, "the disk is being moved already");
    }
    HotFilter* const filter = observed_.has_value() ? &*observed_ : nullptr;
    auto next = GODWIT_TRY(
        Mover::create(*path_, clock_, std::move(destination), options, std::move(hooks), filter));
    if (mover_ != nullptr) {
        mover_->take_retired().reset(); // Nobody has asked for it.
        former_ = std::move(mover_);
        alarm_->set(clock_.now());
    }
    mover_ = std::move(next);
    return ok();
}

Status MovingDevice::cancel() {
    if (mover_ == nullptr) {
        return Error(ErrorCode::not_found, "the disk is not being moved");
    }
    return mover_->cancel(Error(ErrorCode::cancelled, "the move was cancelled"));
}

std::optional<MoveProgress> MovingDevice::progress() const {
    if (!moving()) {
        return std::nullopt;
    }
    return mover_->progress();
}

Status MovingDevice::change_scheme(Scheme scheme) {
    if (!moving()) {
        return Error(ErrorCode::not_found, "the disk is not being moved");
    }
    return mover_->change_scheme(scheme);
}

void MovingDevice::set_limit(std::uint64_t bytes_per_second) noexcept {
    if (moving()) {
        mover_->set_limit(bytes_per_second);
    }
}

Status MovingDevice::observe(FilterOptions options) {
    if (moving()) {
        return Error(ErrorCode::conflict, "the disk is being moved");
    }
    options.disk_bytes = geometry_.bytes;
    options.block_bytes = geometry_.logical_block_bytes;
    observed_ = GODWIT_TRY(HotFilter::create(options));
    path_->set_filter(&*observed_);
    return ok();
}

Status MovingDevice::stop_observing() {
    if (moving()) {
        return Error(ErrorCode::conflict, "the disk is being moved");
    }
    path_->set_filter(nullptr);
    observed_.reset();
    return ok();
}

std::unique_ptr<BlockDevice> MovingDevice::take_retired() {
    return mover_ == nullptr || moving() ? nullptr : mover_->take_retired();
}

Result<BlockGeometry> MovingDevice::refresh() {
    const BlockGeometry below = GODWIT_TRY(path_->source().refresh());
    if (!moving()) {
        geometry_.bytes = below.bytes;
    }
    return geometry_;
}

std::string MovingDevice::description() const {
    return path_->source().description();
}

} // namespace godwit::block
