#include "virtio/common_config.h"

#include "bus/little_endian.h"
#include "virtio/virtio_device.h"

#include <array>
#include <bit>

namespace godwit::virtio {

namespace {

using bus::load_little;
using bus::store_little;

// Offsets of struct virtio_pci_common_cfg (section 4.1.4.3).
constexpr std::uint64_t device_feature_select_at = 0x00;
constexpr std::uint64_t device_feature_at = 0x04;
constexpr std::uint64_t driver_feature_select_at = 0x08;
constexpr std::uint64_t driver_feature_at = 0x0c;
constexpr std::uint64_t config_vector_at = 0x10;
constexpr std::uint64_t queue_count_at = 0x12;
constexpr std::uint64_t status_at = 0x14;
constexpr std::uint64_t config_generation_at = 0x15;
constexpr std::uint64_t queue_select_at = 0x16;
constexpr std::uint64_t queue_size_at = 0x18;
constexpr std::uint64_t queue_vector_at = 0x1a;
constexpr std::uint64_t queue_enable_at = 0x1c;
constexpr std::uint64_t queue_notify_off_at = 0x1e;
constexpr std::uint64_t queue_descriptors_at = 0x20;
constexpr std::uint64_t queue_driver_at = 0x28;
constexpr std::uint64_t queue_device_at = 0x30;

constexpr std::uint8_t status_known = status_acknowledge | status_driver | status_driver_ok |
                                      status_features_ok | status_needs_reset | status_failed;

Error corrupt(std::string what) {
    return Error(ErrorCode::corrupt, "saved virtio registers: " + std::move(what));
}

} // namespace

CommonConfig::CommonConfig(std::uint64_t features,
                           std::vector<std::uint16_t> queue_sizes,
                           std::size_t vectors)
    : features_(features), queue_sizes_(std::move(queue_sizes)), vectors_(vectors),
      queues_(queue_sizes_.size()),
      queue_vectors_(std::make_unique<std::atomic<std::uint16_t>[]>(queue_sizes_.size())) {
    reset();
}

void CommonConfig::reset() {
    driver_features_ = 0;
    device_feature_select_ = 0;
    driver_feature_select_ = 0;
    config_vector_ = no_vector;
    queue_select_ = 0;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        queues_[i] = QueueState{};
        queues_[i].size = queue_sizes_[i];
        queue_vectors_[i] = no_vector;
    }
    status_ = 0;
}

void CommonConfig::read(std::uint64_t offset, std::span<std::byte> out) const {
    std::array<std::byte, common_config_bytes> registers{};
    const auto put = [&](std::uint64_t at, std::size_t bytes, std::uint64_t value) {
        store_little(std::span(registers).subspan(at, bytes), value);
    };
    const auto half = [](std::uint64_t features, std::uint32_t select) {
        return select < 2 ? (features >> (32U * select)) & 0xffff'ffffU : 0;
    };
    put(device_feature_select_at, 4, device_feature_select_);
    put(device_feature_at, 4, half(features_, device_feature_select_));
    put(driver_feature_select_at, 4, driver_feature_select_);
    put(driver_feature_at, 4, half(driver_features_, driver_feature_select_));
    put(config_vector_at, 2, config_vector_);
    put(queue_count_at, 2, queues_.size());
    put(status_at, 1, status_);
    put(config_generation_at, 1, config_generation_);
    put(queue_select_at, 2, queue_select_);
    if (queue_select_ < queues_.size()) { // Otherwise size 0: there is no such queue.
        const QueueState& queue = queues_[queue_select_];
        put(queue_size_at, 2, queue.size);
        put(queue_vector_at, 2, queue_vectors_[queue_select_]);
        put(queue_enable_at, 2, queue.ready ? 1 : 0);
        put(queue_notify_off_at, 2, queue_select_);
        put(queue_descriptors_at, 8, queue.descriptors.value);
        put(queue_driver_at, 8, queue.driver_area.value);
        put(queue_device_at, 8, queue.device_area.value);
    }
    bus::copy_from(registers, offset, out);
}

CommonConfig::Effect CommonConfig::write(std::uint64_t offset, std::span<const std::byte> data) {
    const std::uint64_t value = load_little(data);
    const std::size_t bytes = data.size();
    if (offset >= queue_size_at) {
        write_queue(offset, data);
    } else if (offset == status_at && bytes == 1) {
        return write_status(static_cast<std::uint8_t>(value));
    } else if (offset == device_feature_select_at && bytes == 4) {
        device_feature_select_ = static_cast<std::uint32_t>(value);
    } else if (offset == driver_feature_select_at && bytes == 4) {
        driver_feature_select_ = static_cast<std::uint32_t>(value);
    } else if (offset == driver_feature_at && bytes == 4) {
        write_driver_feature(static_cast<std::uint32_t>(value));
    } else if (offset == config_vector_at && bytes == 2) {
        config_vector_ = valid_vector(value);
    } else if (offset == queue_select_at && bytes == 2) {
        queue_select_ = static_cast<std::uint16_t>(value);
    }
    return Effect::none;
}

bool CommonConfig::features_acceptable(std::uint64_t features) const noexcept {
    return (features & ~features_) == 0 && (features & feature_version_1) != 0;
}

CommonConfig::Effect CommonConfig::write_status(std::uint8_t value) {
    if (value == 0) {
        return Effect::reset;
    }
    // A driver only ever adds bits; NEEDS_RESET is ours.
    const std::uint8_t before = status_;
    auto added = static_cast<std::uint8_t>(value & ~before & status_known & ~status_needs_reset);
    if ((added & status_features_ok) != 0 &&
        ((before & status_driver_ok) != 0 || !features_acceptable(driver_features_))) {
        added &= static_cast<std::uint8_t>(~status_features_ok);
    }
    if ((added & status_driver_ok) != 0 && ((before | added) & status_features_ok) == 0) {
        added &= static_cast<std::uint8_t>(~status_driver_ok);
    }
    status_.fetch_or(added);
    return (added & status_driver_ok) != 0 ? Effect::activate : Effect::none;
}

void CommonConfig::write_driver_feature(std::uint32_t value) {
    if ((status_ & status_features_ok) != 0 || driver_feature_select_ > 1) {
        return;
    }
    const unsigned shift = 32U * driver_feature_select_;
    driver_features_ = (driver_features_ & ~(0xffff'ffffULL << shift)) |
                       (static_cast<std::uint64_t>(value) << shift);
}

std::uint16_t CommonConfig::valid_vector(std::uint64_t value) const noexcept {
    return value < vectors_ ? static_cast<std::uint16_t>(value) : no_vector;
}

void CommonConfig::write_queue(std::uint64_t offset, std::span<const std::byte> data) {
    if (queue_select_ >= queues_.size()) {
        return;
    }
    const std::uint64_t value = load_little(data);
    QueueState& queue = queues_[queue_select_];
    if (offset == queue_vector_at && data.size() == 2) {
        queue_vectors_[queue_select_] = valid_vector(value);
        return;
    }
    // The rest is fixed once the queue is enabled (section 4.1.4.3.2).
    if (queue.ready || (status_ & status_driver_ok) != 0) {
        return;
    }
    if (offset == queue_size_at && data.size() == 2) {
        if (std::has_single_bit(value) && value <= queue_sizes_[queue_select_]) {
            queue.size = static_cast<std::uint16_t>(value);
        }
    } else if (offset == queue_enable_at && data.size() == 2) {
        queue.ready = value == 1 && (status_ & status_features_ok) != 0;
    } else if (offset >= queue_descriptors_at) {
        write_queue_address(offset, data);
    }
}

void CommonConfig::write_queue_address(std::uint64_t offset, std::span<const std::byte> data) {
    QueueState& queue = queues_[queue_select_];
    if ((data.size() != 4 && data.size() != 8) || offset % data.size() != 0 ||
        offset + data.size() > common_config_bytes) {
        return;
    }
    Gpa& area = offset < queue_driver_at   ? queue.descriptors
                : offset < queue_device_at ? queue.driver_area
                                           : queue.device_area;
    const std::uint64_t value = load_little(data);
    if (data.size() == 8) {
        area.value = value;
    } else if (offset % 8 == 0) {
        area.value = (area.value & ~0xffff'ffffULL) | value;
    } else {
        area.value = (area.value & 0xffff'ffffULL) | (value << 32U);
    }
}

std::uint16_t CommonConfig::queue_vector(std::uint16_t queue) const noexcept {
    return queue < queues_.size() ? queue_vectors_[queue].load() : no_vector;
}

CommonConfigState CommonConfig::save() const {
    CommonConfigState state{.status = status_,
                            .config_generation = config_generation_,
                            .driver_features = driver_features_,
                            .device_feature_select = device_feature_select_,
                            .driver_feature_select = driver_feature_select_,
                            .config_vector = config_vector_,
                            .queue_select = queue_select_,
                            .queues = {}};
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        state.queues.push_back({.queue = queues_[i], .vector = queue_vectors_[i]});
    }
    return state;
}

Status CommonConfig::validate(const CommonConfigState& state) const {
    if ((state.status & ~status_known) != 0) {
        return corrupt("status " + std::to_string(state.status));
    }
    const bool features_ok = (state.status & status_features_ok) != 0;
    if (features_ok && !features_acceptable(state.driver_features)) {
        return Error(ErrorCode::unsupported,
                     "the guest's driver uses virtio features " +
                         std::to_string(state.driver_features) + ", this device offers " +
                         std::to_string(features_));
    }
    if (!features_ok && (state.status & status_driver_ok) != 0) {
        return corrupt("DRIVER_OK without FEATURES_OK");
    }
    if (state.queues.size() != queues_.size()) {
        return corrupt(std::to_string(state.queues.size()) + " queues, the device has " +
                       std::to_string(queues_.size()));
    }
    if (state.config_vector != valid_vector(state.config_vector)) {
        return corrupt("config vector " + std::to_string(state.config_vector));
    }
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        const auto& [queue, vector] = state.queues[i];
        if (!std::has_single_bit(queue.size) || queue.size > queue_sizes_[i]) {
            return corrupt("queue " + std::to_string(i) + " of size " + std::to_string(queue.size));
        }
        if (queue.ready && !features_ok) {
            return corrupt("queue " + std::to_string(i) + " enabled before FEATURES_OK");
        }
        if (vector != valid_vector(vector)) {
            return corrupt("queue " + std::to_string(i) + " with vector " + std::to_string(vector));
        }
    }
    return ok();
}

Status CommonConfig::load(const CommonConfigState& state) {
    GODWIT_TRY(validate(state));
    config_generation_ = state.config_generation;
    driver_features_ = state.driver_features;
    device_feature_select_ = state.device_feature_select;
    driver_feature_select_ = state.driver_feature_select;
    config_vector_ = state.config_vector;
    queue_select_ = state.queue_select;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        queues_[i] = state.queues[i].queue;
        queue_vectors_[i] = state.queues[i].vector;
    }
    status_ = state.status;
    return ok();
}

} // namespace godwit::virtio
