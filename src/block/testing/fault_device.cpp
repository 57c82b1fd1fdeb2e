#include "block/testing/fault_device.h"

namespace godwit::block::testing {

const FaultRule* FaultDevice::match(const BlockRequest& request) {
    for (FaultRule& rule : rules_) {
        if (rule.operation.has_value() && *rule.operation != request.operation) {
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
    ++own_;
    if (rule->fault == Fault::hold) {
        held_.push(request);
        return;
    }
    loop_.post([this, &request, os_errno = rule->os_errno] {
        --own_;
        request.done(request, Error::from_errno(os_errno, "injected fault"));
    });
}

void FaultDevice::release_held() {
    while (BlockRequest* const request = held_.try_pop()) {
        --own_;
        below_->submit(*request);
    }
    below_->kick();
}

} // namespace godwit::block::testing
