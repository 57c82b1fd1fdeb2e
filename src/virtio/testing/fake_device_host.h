#pragma once

/// A DeviceHost that counts what a device tells it. Any thread.

#include "virtio/virtio_device.h"

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace godwit::virtio::testing {

class FakeDeviceHost final : public DeviceHost {
  public:
    void notify_queue(std::uint16_t queue) noexcept override;
    void notify_config() noexcept override;
    void needs_reset(const Error& reason) noexcept override;

    [[nodiscard]] std::uint32_t queue_notices(std::uint16_t queue) const;
    [[nodiscard]] std::uint32_t config_notices() const;
    [[nodiscard]] std::uint32_t resets_asked() const;
    /// The reason of the last needs_reset(), empty if there was none.
    [[nodiscard]] std::string reset_reason() const;

    /// Waits until queue `queue` was notified at least `count` times in all; false after ten
    /// seconds.
    [[nodiscard]] bool wait_for_queue(std::uint16_t queue, std::uint32_t count);
    [[nodiscard]] bool wait_for_config(std::uint32_t count);
    [[nodiscard]] bool wait_for_reset_asked();

  private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::uint16_t, std::uint32_t> queues_; ///< All below guarded by mutex_.
    std::uint32_t configs_ = 0;
    std::uint32_t resets_ = 0;
    std::string reason_;
};

} // namespace godwit::virtio::testing
