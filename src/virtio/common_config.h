#pragma once

/// The common configuration structure of a virtio PCI device (virtio 1.2, section 4.1.4.3): feature
/// negotiation, device status and queue setup as plain registers. It decides what is allowed and
/// tells its owner what follows; it touches neither device nor guest memory.
///
/// Thread rule: locked by its owner, except what is marked "any thread".
///
///     status:  0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK      (write 0: back to 0)
///                          refused without VERSION_1 ^           ^ the device is activated

#include "base/result.h"
#include "virtio/virt_queue.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace godwit::virtio {

inline constexpr std::uint32_t common_config_bytes = 0x38;
inline constexpr std::uint16_t no_vector = 0xffff;

// Device status bits (section 2.1).
inline constexpr std::uint8_t status_acknowledge = 1;
inline constexpr std::uint8_t status_driver = 2;
inline constexpr std::uint8_t status_driver_ok = 4;
inline constexpr std::uint8_t status_features_ok = 8;
inline constexpr std::uint8_t status_needs_reset = 64;
inline constexpr std::uint8_t status_failed = 128;

/// What is saved.
struct CommonConfigState {
    struct Queue {
        QueueState queue;
        std::uint16_t vector = no_vector;
    };
    std::uint8_t status = 0;
    std::uint8_t config_generation = 0;
    std::uint64_t driver_features = 0;
    std::uint32_t device_feature_select = 0;
    std::uint32_t driver_feature_select = 0;
    std::uint16_t config_vector = no_vector;
    std::uint16_t queue_select = 0;
    std::vector<Queue> queues;
};

class CommonConfig {
  public:
    /// What a write asks its owner to do.
    enum class Effect : std::uint8_t { none, activate, reset };

    /// `features` are those offered; `queue_sizes` the largest ones; `vectors` how many MSI-X
    /// vectors there are.
    CommonConfig(std::uint64_t features,
                 std::vector<std::uint16_t> queue_sizes,
                 std::size_t vectors);

    void read(std::uint64_t offset, std::span<std::byte> out) const;
    [[nodiscard]] Effect write(std::uint64_t offset, std::span<const std::byte> data);
    /// Everything as after power-on, but for the config generation.
    void reset();

    [[nodiscard]] std::uint64_t driver_features() const noexcept { return driver_features_; }
    /// The queues as the driver has set them up.
    [[nodiscard]] const std::vector<QueueState>& queues() const noexcept { return queues_; }

    // Any thread.
    [[nodiscard]] std::uint8_t status() const noexcept { return status_.load(); }
    /// Sets NEEDS_RESET; gives the status before.
    std::uint8_t set_needs_reset() noexcept { return status_.fetch_or(status_needs_reset); }
    [[nodiscard]] std::uint16_t config_vector() const noexcept { return config_vector_.load(); }
    [[nodiscard]] std::uint16_t queue_vector(std::uint16_t queue) const noexcept;
    void count_config_change() noexcept { ++config_generation_; }

    [[nodiscard]] CommonConfigState save() const;
    /// Takes a saved state over after checking it against what this device offers.
    [[nodiscard]] Status load(const CommonConfigState& state);

  private:
    [[nodiscard]] Effect write_status(std::uint8_t value);
    void write_driver_feature(std::uint32_t value);
    void write_queue(std::uint64_t offset, std::span<const std::byte> data);
    void write_queue_address(std::uint64_t offset, std::span<const std::byte> data);
    [[nodiscard]] std::uint16_t valid_vector(std::uint64_t value) const noexcept;
    [[nodiscard]] bool features_acceptable(std::uint64_t features) const noexcept;
    [[nodiscard]] Status validate(const CommonConfigState& state) const;

    std::uint64_t features_;
    std::vector<std::uint16_t> queue_sizes_;
    std::size_t vectors_;
    std::atomic<std::uint8_t> status_{0};
    std::atomic<std::uint8_t> config_generation_{0};
    std::uint64_t driver_features_ = 0;
    std::uint32_t device_feature_select_ = 0;
    std::uint32_t driver_feature_select_ = 0;
    std::atomic<std::uint16_t> config_vector_{no_vector};
    std::uint16_t queue_select_ = 0;
    std::vector<QueueState> queues_;
    std::unique_ptr<std::atomic<std::uint16_t>[]> queue_vectors_; ///< As many as queues_.
};

} // namespace godwit::virtio
