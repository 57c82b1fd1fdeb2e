#pragma once

// A driver that obeys a list of operations from the fuzzer: chains of any segments, writes
// anywhere, and in between the device works, changes owner, or is reset. Everything happens in the
// order of the input: the device works only inside wake(), which serves every queue once.

#include "input.h"
#include "virtio/testing/guest_driver.h"
#include "virtio/virtio_device.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace godwit::fuzz {

/// The event loop of every device of the process.
inline sys::IoThread& io_thread() {
    static const auto thread = virtio::testing::make_io_thread();
    return *thread;
}

class HostileDriver {
  public:
    using Device = std::unique_ptr<virtio::VirtioDevice>;
    /// Makes the next owner's device from a section.
    using Restore = std::function<Result<Device>(const state::Section&)>;
    /// What else may happen from outside (a packet, a new target).
    using Event = std::function<void(Input&, virtio::VirtioDevice&)>;

    HostileDriver(Device device, Restore restore, Event event)
        : driver_(device->queue_sizes().size(), queue_size), device_(std::move(device)),
          restore_(std::move(restore)), event_(std::move(event)) {}

    [[nodiscard]] const std::shared_ptr<memory::GuestMemory>& memory() const {
        return driver_.memory();
    }

    void run(Input& input, std::uint64_t features) {
        driver_.attach(*device_);
        discard(driver_.activate(*device_, features), "the device may refuse");
        for (std::size_t i = 0; i < operations_max && !input.empty(); ++i) {
            operate(input, features);
        }
    }

  private:
    static constexpr std::uint16_t queue_size = 16;
    static constexpr std::size_t operations_max = 256;

    void operate(Input& input, std::uint64_t features) {
        switch (input.take<std::uint8_t>() % 8) {
        case 0:
        case 1:
            offer(input);
            break;
        case 2:
            write_somewhere(input);
            break;
        case 3:
        case 4:
            device_->wake();
            device_->quiesce();
            break;
        case 5:
            event_(input, *device_);
            break;
        case 6:
            hand_over(features);
            break;
        default:
            use_config(input);
            break;
        }
    }

    void offer(Input& input) {
        const auto choice = input.take<std::uint8_t>();
        auto& queue = driver_.queue(choice % device_->queue_sizes().size());
        const std::size_t segments = 1 + (choice >> 6U);
        const std::uint16_t head = next_descriptor_ % queue_size;
        for (std::size_t i = 0; i < segments; ++i) {
            const auto kind = input.take<std::uint8_t>();
            const bool last = i + 1 == segments;
            queue.write_descriptor(
                next_descriptor_ % queue_size,
                {.address = input.take<std::uint32_t>() % (40 * mib),
                 .length = (kind & 0x80U) != 0 ? input.take<std::uint32_t>()
                                               : input.take<std::uint16_t>(),
                 .flags = static_cast<std::uint16_t>((kind & 6U) | (last ? 0U : 1U)),
                 .next = static_cast<std::uint16_t>((next_descriptor_ + 1U) % queue_size)});
            ++next_descriptor_;
        }
        queue.make_available(head);
    }

    void write_somewhere(Input& input) {
        const Gpa to{input.take<std::uint32_t>() % (32 * mib)};
        const auto bytes = input.take_bytes(input.take<std::uint8_t>());
        discard(driver_.memory()->write(to, std::as_bytes(bytes)), "may leave RAM");
    }

    /// What one owner saves, the next one takes, and would save again.
    void hand_over(std::uint64_t features) {
        const auto section = std::get<state::Section>(GODWIT_MUST(device_->save())); // at rest
        const auto states = device_->queue_states();
        device_ = GODWIT_MUST(restore_(section)); // our own section is a good one
        driver_.attach(*device_);
        discard(driver_.activate(*device_, features, states), "the device may refuse");
        const auto again = std::get<state::Section>(GODWIT_MUST(device_->save())); // at rest
        GODWIT_ASSERT(again.payload == section.payload);
    }

    void use_config(Input& input) {
        std::vector<std::byte> bytes(input.take<std::uint8_t>() % 9U);
        const auto offset = input.take<std::uint32_t>() % 32U;
        device_->read_config(offset, bytes);
        device_->write_config(offset, std::as_bytes(input.take_bytes(bytes.size())));
    }

    virtio::testing::GuestDriver driver_;
    Device device_; ///< Goes before the driver whose host it calls.
    Restore restore_;
    Event event_;
    std::uint16_t next_descriptor_ = 0;
};

} // namespace godwit::fuzz
