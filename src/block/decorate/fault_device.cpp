#include "block/decorate/fault_device.h"

#include "block/segments.h"

#include <algorithm>
#include <utility>

namespace godwit::block {

Result<std::unique_ptr<FaultDevice>> FaultDevice::create(std::unique_ptr<BlockDevice> below,
                                                         sys::AlarmClock& clock) {
    std::unique_ptr<FaultDevice> made(new FaultDevice(std::move(below), clock));
    made->alarm_ = GODWIT_TRY(clock.create_alarm([raw = made.get()] { raw->ring(); }));
    return made;
}

FaultDevice::~FaultDevice() {
    below_.reset();
    for (Interception* taken : std::exchange(due_, {})) {
        Status status = std::move(taken->status);
        BlockRequest& request = pool_.restore(*taken);
        request.done(request, std::move(status));
    }
    while (BlockRequest* const request = held_.try_pop()) {
        request->done(*request, Error(ErrorCode::cancelled, "the disk was closed"));
    }
}

namespace {

bool matches(const FaultRule& rule, const BlockRequest& request) noexcept {
    if (rule.operation.has_value() && *rule.operation != request.operation) {
        return false;
    }
    return !rule.range.has_value() || (request.offset < rule.range->offset + rule.range->bytes &&
                                       rule.range->offset < request.offset + request.bytes);
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
void ignore(BlockRequest& /*request*/, Status /*status*/) noexcept {
    GODWIT_ASSERT(false); // Its request never reaches the device below.
}

} // namespace

const FaultRule* FaultDevice::match(const BlockRequest& request) {
    for (FaultRule& rule : rules_) {
        if (!matches(rule, request)) {
            continue;
        }
        if (rule.skip > 0) {
            --rule.skip;
        } else if (rule.count > 0) {
            --rule.count;
            return &rule;
        }
    }
    return nullptr;
}

void FaultDevice::submit(BlockRequest& request) {
    const FaultRule* const rule = match(request);
    if (rule == nullptr) {
        below_->submit(request);
        return;
    }
    ++faults_;
    switch (rule->fault) {
    case Fault::hold:
        ++own_;
        held_.push(request);
        return;
    case Fault::delay:
        pool_.intercept(request, this, &FaultDevice::delayed_done).due = clock_.now() + rule->delay;
        below_->submit(request);
        return;
    case Fault::tear:
        if (request.operation == BlockOperation::write &&
            request.bytes >= 2ULL * below_->geometry().logical_block_bytes) {
            tear(request, rule->os_errno);
            return;
        }
        [[fallthrough]];
    case Fault::fail:
        ++own_;
        Interception& taken = pool_.intercept(request, this, ignore);
        taken.status = Error::from_errno(rule->os_errno, "injected fault");
        finish_at(taken, clock_.now());
        return;
    }
}

void FaultDevice::tear(BlockRequest& request, int os_errno) {
    const std::uint64_t block = below_->geometry().logical_block_bytes;
    auto* const tearing = new Tearing; // Its own half's owner until half_done().
    tearing->of = &pool_.intercept(request, this, ignore);
    tearing->of->status = Error::from_errno(os_errno, "injected torn write");
    tearing->half.operation = BlockOperation::write;
    tearing->half.offset = request.offset;
    tearing->half.bytes = request.bytes / block / 2 * block;
    slice(request.segments, 0, tearing->half.bytes, tearing->segments);
    tearing->half.segments = tearing->segments;
    tearing->half.done = &FaultDevice::half_done;
    tearing->half.owner = tearing;
    below_->submit(tearing->half);
}

// NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
void FaultDevice::half_done(BlockRequest& half, Status /*status*/) noexcept {
    const std::unique_ptr<Tearing> tearing(static_cast<Tearing*>(half.owner));
    Interception& taken = *tearing->of;
    auto& device = *static_cast<FaultDevice*>(taken.device);
    Status status = std::move(taken.status);
    BlockRequest& request = device.pool_.restore(taken);
    request.done(request, std::move(status));
}

void FaultDevice::delayed_done(BlockRequest& request, Status status) noexcept {
    Interception& taken = *static_cast<Interception*>(request.owner);
    auto& device = *static_cast<FaultDevice*>(taken.device);
    taken.status = std::move(status);
    ++device.own_;
    device.finish_at(taken, taken.due);
}

void FaultDevice::finish_at(Interception& taken, sys::Moment due) {
    taken.due = due;
    due_.push_back(&taken);
    set_alarm();
}

void FaultDevice::ring() {
    const sys::Moment now = clock_.now();
    for (std::size_t i = 0; i < due_.size();) {
        Interception& taken = *due_[i];
        if (taken.due > now) {
            ++i;
            continue;
        }
        due_.erase(due_.begin() + static_cast<std::ptrdiff_t>(i));
        --own_;
        Status status = std::move(taken.status);
        BlockRequest& request = pool_.restore(taken);
        request.done(request, std::move(status));
    }
    set_alarm();
}

void FaultDevice::set_alarm() noexcept {
    if (due_.empty()) {
        alarm_->clear();
        return;
    }
    alarm_->set((*std::ranges::min_element(due_, {}, &Interception::due))->due);
}

void FaultDevice::release_held() {
    while (BlockRequest* const request = held_.try_pop()) {
        --own_;
        below_->submit(*request);
    }
    below_->kick();
}

} // namespace godwit::block
