#include "virtio/testing/fake_device_host.h"

#include <chrono>

namespace godwit::virtio::testing {

namespace {
constexpr std::chrono::seconds patience(10);
} // namespace

void FakeDeviceHost::notify_queue(std::uint16_t queue) noexcept {
    const std::lock_guard lock(mutex_);
    ++queues_[queue];
    changed_.notify_all();
}

void FakeDeviceHost::notify_config() noexcept {
    const std::lock_guard lock(mutex_);
    ++configs_;
    changed_.notify_all();
}

void FakeDeviceHost::needs_reset(const Error& reason) noexcept {
    const std::lock_guard lock(mutex_);
    ++resets_;
    reason_ = reason.to_string();
    changed_.notify_all();
}

std::uint32_t FakeDeviceHost::queue_notices(std::uint16_t queue) const {
    const std::lock_guard lock(mutex_);
    const auto found = queues_.find(queue);
    return found == queues_.end() ? 0 : found->second;
}

std::uint32_t FakeDeviceHost::config_notices() const {
    const std::lock_guard lock(mutex_);
    return configs_;
}

std::uint32_t FakeDeviceHost::resets_asked() const {
    const std::lock_guard lock(mutex_);
    return resets_;
}

std::string FakeDeviceHost::reset_reason() const {
    const std::lock_guard lock(mutex_);
    return reason_;
}

bool FakeDeviceHost::wait_for_queue(std::uint16_t queue, std::uint32_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return queues_[queue] >= count; });
}

bool FakeDeviceHost::wait_for_config(std::uint32_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return configs_ >= count; });
}

bool FakeDeviceHost::wait_for_reset_asked() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [&] { return resets_ > 0; });
}

} // namespace godwit::virtio::testing
