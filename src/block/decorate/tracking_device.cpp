#include "block/decorate/tracking_device.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

TrackingDevice::TrackingDevice(std::unique_ptr<BlockDevice> below, std::uint32_t granule_bytes)
    : below_(std::move(below)), granule_bytes_(granule_bytes),
      changed_((below_->geometry().bytes + granule_bytes - 1) / granule_bytes) {}

BlockSet TrackingDevice::take_changed() {
    return std::exchange(changed_, BlockSet(changed_.size()));
}

void TrackingDevice::submit(BlockRequest& request) {
    if (changes_data(request.operation)) {
        pool_.intercept(request, this, &TrackingDevice::done);
    }
    below_->submit(request);
}

void TrackingDevice::done(BlockRequest& request, Status status) noexcept {
    Interception& taken = *static_cast<Interception*>(request.owner);
    auto& device = *static_cast<TrackingDevice*>(taken.device);
    device.mark(request);
    device.pool_.restore(taken);
    request.done(request, std::move(status));
}

void TrackingDevice::mark(const BlockRequest& request) {
    if (request.bytes == 0 || request.offset >= below_->geometry().bytes) {
        return; // Refused below.
    }
    const std::uint64_t last = changed_.size() - 1;
    const std::uint64_t bytes = std::min(request.bytes, below_->geometry().bytes - request.offset);
    changed_.add({.first = std::min(last, request.offset / granule_bytes_),
                  .end = std::min(last, (request.offset + bytes - 1) / granule_bytes_) + 1});
}

} // namespace godwit::block
