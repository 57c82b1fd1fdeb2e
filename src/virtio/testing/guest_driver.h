#pragma once

/// A driver of a whole virtio device, for tests: guest RAM, a DriverQueue and a doorbell per queue,
/// and the transport's part in activating a device with them. The same driver can go on with a
/// second device, as after a handover.
///
///     GuestDriver driver(device->queue_sizes().size());
///     driver.attach(*device);
///     GODWIT_MUST(driver.activate(*device, features));
///     device->wake();
///     driver.queue(1).chain().readable(packet).offer();
///     const auto used = driver.wait_used(1);
///
/// One test thread.

#include "sys/io_thread.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/fake_device_host.h"
#include "virtio/virtio_device.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::virtio::testing {

/// A running loop for a device under test.
[[nodiscard]] std::unique_ptr<sys::IoThread> make_io_thread();

class GuestDriver {
  public:
    explicit GuestDriver(std::size_t queues, std::uint16_t queue_size = 16);

    void attach(VirtioDevice& device) { device.attach(host_); }
    /// DRIVER_OK with every queue enabled.
    [[nodiscard]] Status activate(VirtioDevice& device, std::uint64_t features);
    /// The same with queues as another device left them.
    [[nodiscard]] Status activate(VirtioDevice& device,
                                  std::uint64_t features,
                                  const std::vector<std::optional<QueueState>>& states);

    [[nodiscard]] DriverQueue& queue(std::size_t index) { return *queues_[index]; }
    [[nodiscard]] FakeDeviceHost& host() noexcept { return host_; }
    [[nodiscard]] const std::shared_ptr<memory::GuestMemory>& memory() const { return memory_; }
    /// The next used element of a queue, once the device has interrupted for it; empty after ten
    /// seconds.
    [[nodiscard]] std::optional<Used> wait_used(std::size_t index);
    void kick(std::size_t index) const { doorbells_[index].signal(); }

  private:
    std::shared_ptr<memory::GuestMemory> memory_;
    FakeDeviceHost host_;
    std::vector<sys::EventFd> doorbells_;
    std::vector<std::unique_ptr<DriverQueue>> queues_;
};

} // namespace godwit::virtio::testing
