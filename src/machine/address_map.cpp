#include "machine/address_map.h"

#include <algorithm>
#include <mutex>
#include <string>

namespace godwit::machine {

Status AddressMap::add(std::uint64_t start, std::uint64_t bytes, bus::BusDevice& device) {
    if (bytes == 0 || start + bytes - 1 < start) {
        return Error(ErrorCode::invalid_argument,
                     "an address range of " + std::to_string(bytes) + " bytes at " +
                         std::to_string(start));
    }
    const std::unique_lock lock(mutex_);
    if (ranges_.size() >= ranges_max) {
        return Error(ErrorCode::resource_exhausted, "too many address ranges");
    }
    const auto next = std::ranges::upper_bound(ranges_, start, {}, &Range::start);
    const bool hits_next = next != ranges_.end() && next->start - start < bytes;
    const bool hits_previous =
        next != ranges_.begin() && start - std::prev(next)->start < std::prev(next)->bytes;
    if (hits_next || hits_previous) {
        return Error(ErrorCode::already_exists,
                     "the address range at " + std::to_string(start) + " overlaps another device");
    }
    ranges_.insert(next, Range{start, bytes, &device});
    return ok();
}

void AddressMap::remove(std::uint64_t start) {
    const std::unique_lock lock(mutex_);
    std::erase_if(ranges_, [start](const Range& range) { return range.start == start; });
}

std::optional<AddressMap::Hit> AddressMap::find(std::uint64_t address, std::uint64_t bytes) const {
    const std::shared_lock lock(mutex_);
    const auto next = std::ranges::upper_bound(ranges_, address, {}, &Range::start);
    if (next == ranges_.begin()) {
        return std::nullopt;
    }
    const Range& range = *std::prev(next);
    const std::uint64_t offset = address - range.start;
    if (offset >= range.bytes || bytes > range.bytes - offset) {
        return std::nullopt;
    }
    return Hit{range.device, offset};
}

void AddressMap::read(std::uint64_t address, std::span<std::byte> out) const {
    const std::optional<Hit> hit = find(address, out.size());
    if (hit.has_value()) {
        hit->device->read(hit->offset, out);
    } else {
        std::ranges::fill(out, std::byte{0xFF});
    }
}

void AddressMap::write(std::uint64_t address, std::span<const std::byte> data) const {
    const std::optional<Hit> hit = find(address, data.size());
    if (hit.has_value()) {
        hit->device->write(hit->offset, data);
    }
}

} // namespace godwit::machine
