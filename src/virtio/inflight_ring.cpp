#include "virtio/inflight_ring.h"

#include "base/units.h"

#include <algorithm>
#include <atomic>
#include <string>

namespace godwit::virtio {

/// struct QueueRegionSplit.
struct InflightRing::Header {
    std::uint64_t features;
    std::uint16_t version;
    std::uint16_t descriptors;
    std::uint16_t last_batch_head;
    std::uint16_t used_index;
};

/// struct DescStateSplit.
struct InflightRing::Entry {
    std::uint8_t inflight;
    std::uint8_t padding[5];
    std::uint16_t next; ///< Links the heads of a batch; ours are batches of one.
    std::uint64_t counter;
};

namespace {

constexpr std::uint16_t version_1 = 1;
constexpr std::uint64_t part_alignment = 64;

/// The process may end between any two stores, so each must be made when its turn comes.
template <typename T>
void store(T& field, T value) noexcept {
    std::atomic_ref<T>(field).store(value, std::memory_order_release);
}
template <typename T>
T load(T& field) noexcept {
    return std::atomic_ref<T>(field).load(std::memory_order_acquire);
}

} // namespace

std::uint64_t InflightRing::bytes_for(std::uint16_t size) noexcept {
    return round_up(sizeof(Header) + sizeof(Entry) * size, part_alignment);
}

InflightRing::InflightRing(std::span<std::byte> part,
                           std::uint16_t size,
                           std::shared_ptr<const void> keep)
    : part_(part), size_(size), keep_(std::move(keep)) {}

InflightRing::Header& InflightRing::header() const noexcept {
    // NOLINTNEXTLINE(bugprone-casting-through-void): aligned, see open().
    return *static_cast<Header*>(static_cast<void*>(part_.data()));
}

InflightRing::Entry& InflightRing::entry(std::uint16_t head) const noexcept {
    void* const at = part_.data() + sizeof(Header) + sizeof(Entry) * head;
    return *static_cast<Entry*>(at);
}

Result<InflightRing> InflightRing::open(std::span<std::byte> part,
                                        std::uint16_t size,
                                        std::shared_ptr<const void> keep) {
    static_assert(sizeof(Header) == 16 && sizeof(Entry) == 16);
    if (part.size() < bytes_for(size) ||
        reinterpret_cast<std::uintptr_t>(part.data()) % alignof(Entry) != 0) {
        return Error(ErrorCode::invalid_argument, "in-flight memory: too small for its ring");
    }
    InflightRing ring(part, size, std::move(keep));
    const std::uint16_t version = load(ring.header().version);
    const std::uint16_t descriptors = load(ring.header().descriptors);
    if (version == 0) {
        return ring;
    }
    if (version != version_1 || descriptors != size) {
        return Error(ErrorCode::corrupt,
                     "in-flight memory: version " + std::to_string(version) + " for " +
                         std::to_string(descriptors) + " descriptors, not 1 for " +
                         std::to_string(size));
    }
    return ring;
}

std::optional<std::vector<std::uint16_t>> InflightRing::recover(std::uint16_t used_index) {
    Header& record = header();
    if (load(record.version) == 0) {
        store(record.descriptors, size_);
        store(record.used_index, used_index);
        store(record.version, version_1);
        return std::nullopt;
    }
    if (load(record.used_index) != used_index) {
        // The process ended after the driver saw the last chain and before that was noted.
        const std::uint16_t last = load(record.last_batch_head);
        if (last < size_) {
            store(entry(last).inflight, std::uint8_t{0});
        }
        store(record.used_index, used_index);
    }
    std::vector<std::pair<std::uint64_t, std::uint16_t>> found;
    for (std::uint16_t head = 0; head < size_; ++head) {
        if (load(entry(head).inflight) != 0) {
            found.emplace_back(load(entry(head).counter), head);
        }
    }
    std::sort(found.begin(), found.end());
    std::vector<std::uint16_t> heads;
    for (const auto& [counter, head] : found) {
        heads.push_back(head);
        counter_ = std::max(counter_, counter + 1);
    }
    return heads;
}

void InflightRing::begin(std::uint16_t head) noexcept {
    store(entry(head).counter, counter_++);
    store(entry(head).inflight, std::uint8_t{1});
}

void InflightRing::revoke(std::uint16_t head) noexcept {
    store(entry(head).inflight, std::uint8_t{0});
}

void InflightRing::prepare_end(std::uint16_t head) noexcept {
    store(header().last_batch_head, head);
}

void InflightRing::end(std::uint16_t head, std::uint16_t used_index) noexcept {
    store(entry(head).inflight, std::uint8_t{0});
    store(header().used_index, used_index);
}

} // namespace godwit::virtio
