#include "block/decorate/throttle_device.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

namespace {

constexpr std::uint64_t nanoseconds_per_second = 1'000'000'000;

sys::Nanoseconds transfer_time(std::uint64_t bytes, std::uint64_t bytes_per_second) noexcept {
    if (bytes_per_second == 0) {
        return sys::Nanoseconds(0);
    }
    // At most 1 GiB at once: seconds and their rest keep the product within 64 bits.
    const std::uint64_t seconds = bytes / bytes_per_second;
    const double rest =
        static_cast<double>(bytes % bytes_per_second) / static_cast<double>(bytes_per_second);
    return sys::Nanoseconds(seconds * nanoseconds_per_second) +
           sys::Nanoseconds(static_cast<std::int64_t>(rest * 1e9));
}

/// Zeroing and discarding move no data: they cost an operation.
std::uint64_t moved_bytes(const BlockRequest& request) noexcept {
    const bool moves =
        request.operation == BlockOperation::read || request.operation == BlockOperation::write;
    return moves ? std::min(request.bytes, transfer_bytes_max) : 0;
}

bool later(const Interception* a, const Interception* b) noexcept {
    return a->due > b->due;
}

} // namespace

Result<std::unique_ptr<ThrottleDevice>> ThrottleDevice::create(std::unique_ptr<BlockDevice> below,
                                                               sys::AlarmClock& clock,
                                                               DeviceProfile profile) {
    std::unique_ptr<ThrottleDevice> made(
        new ThrottleDevice(std::move(below), clock, std::move(profile)));
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] { raw->ring(); }));
    return made;
}

ThrottleDevice::~ThrottleDevice() {
    below_.reset();
    while (!early_.empty()) {
        Interception& taken = *early_.back();
        early_.pop_back();
        finish(taken);
    }
    while (BlockRequest* const request = waiting_.try_pop()) {
        request->done(*request, Error(ErrorCode::cancelled, "the disk was closed"));
    }
}

void ThrottleDevice::submit(BlockRequest& request) {
    ++in_flight_;
    if (waiting_.empty()) {
        // What an idle device has not done it does not catch up on; what waited for it, it does.
        free_ = std::max(free_, clock_.now());
    }
    waiting_.push(request);
    kick_due_ = true;
}

void ThrottleDevice::kick() {
    if (std::exchange(kick_due_, false)) {
        start_due();
        set_alarm();
    }
}

void ThrottleDevice::start_due() {
    const sys::Moment now = clock_.now();
    while (!waiting_.empty() && free_ <= now) {
        start(*waiting_.try_pop());
    }
    below_->kick();
}

void ThrottleDevice::start(BlockRequest& request) {
    sys::Nanoseconds latency = profile_.flush;
    if (request.operation != BlockOperation::flush) {
        const TransferProfile& speed = profile_.of(request.operation);
        free_ += speed.operation + transfer_time(moved_bytes(request), speed.bytes_per_second);
        if (request.offset != std::exchange(next_offset_, request.offset + request.bytes)) {
            free_ += speed.seek;
        }
        latency =
            speed.latency + (request.force_unit_access ? profile_.flush : sys::Nanoseconds(0));
    }
    pool_.intercept(request, this, &ThrottleDevice::done).due = free_ + latency;
    below_->submit(request);
}

void ThrottleDevice::done(BlockRequest& request, Status status) noexcept {
    Interception& taken = *static_cast<Interception*>(request.owner);
    auto& device = *static_cast<ThrottleDevice*>(taken.device);
    taken.status = std::move(status);
    if (taken.due <= device.clock_.now()) {
        device.finish(taken);
        return;
    }
    device.early_.push_back(&taken);
    std::ranges::push_heap(device.early_, later);
    device.set_alarm();
}

void ThrottleDevice::finish(Interception& taken) {
    Status status = std::move(taken.status);
    BlockRequest& request = pool_.restore(taken);
    --in_flight_;
    request.done(request, std::move(status));
}

void ThrottleDevice::ring() {
    while (!early_.empty() && early_.front()->due <= clock_.now()) {
        std::ranges::pop_heap(early_, later);
        Interception& taken = *early_.back();
        early_.pop_back();
        finish(taken);
    }
    start_due();
    set_alarm();
}

void ThrottleDevice::set_alarm() noexcept {
    sys::Moment next = sys::Moment::max();
    if (!early_.empty()) {
        next = early_.front()->due;
    }
    if (!waiting_.empty()) {
        next = std::min(next, free_);
    }
    next == sys::Moment::max() ? alarm_->clear() : alarm_->set(next);
}

} // namespace godwit::block
