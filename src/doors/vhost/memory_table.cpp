#include "doors/vhost/memory_table.h"

#include <algorithm>
#include <string>

namespace godwit::doors::vhost {

namespace {

bool overlap(std::uint64_t a, std::uint64_t b, std::uint64_t a_bytes, std::uint64_t b_bytes) {
    return a < b + b_bytes && b < a + a_bytes;
}

bool wraps(std::uint64_t start, std::uint64_t bytes) {
    return start + bytes < start;
}

} // namespace

Status MemoryTable::add(const MemoryRegion& region, const sys::Fd& object) {
    if (slots_.size() >= memory_slots_max) {
        return Error(ErrorCode::resource_exhausted,
                     "more than " + std::to_string(memory_slots_max) + " memory regions");
    }
    if (region.bytes == 0 || wraps(region.guest_address, region.bytes) ||
        wraps(region.user_address, region.bytes)) {
        return Error(ErrorCode::corrupt,
                     "a memory region of " + std::to_string(region.bytes) +
                         " bytes at guest address " + std::to_string(region.guest_address));
    }
    for (const Slot& slot : slots_) {
        const MemoryRegion& other = slot.region;
        if (overlap(region.guest_address, other.guest_address, region.bytes, other.bytes) ||
            overlap(region.user_address, other.user_address, region.bytes, other.bytes)) {
            return Error(ErrorCode::corrupt,
                         "two memory regions overlap at guest address " +
                             std::to_string(region.guest_address));
        }
    }
    sys::PeerMapping mapping = GODWIT_TRY(
        sys::PeerMapping::create(object, {.offset = region.mapping_offset, .bytes = region.bytes}));
    slots_.push_back({.region = region,
                      .object = GODWIT_TRY(object.duplicate()),
                      .mapping = std::make_shared<sys::PeerMapping>(std::move(mapping))});
    return ok();
}

Status MemoryTable::remove(const MemoryRegion& region) {
    const auto found = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& slot) {
        return slot.region.guest_address == region.guest_address &&
               slot.region.user_address == region.user_address && slot.region.bytes == region.bytes;
    });
    if (found == slots_.end()) {
        return Error(ErrorCode::not_found,
                     "no memory region at guest address " + std::to_string(region.guest_address) +
                         " to remove");
    }
    slots_.erase(found);
    return ok();
}

Result<std::shared_ptr<memory::GuestMemory>> MemoryTable::memory() const {
    auto kept = std::make_shared<std::vector<std::shared_ptr<sys::PeerMapping>>>();
    std::vector<memory::GuestMemory::Part> parts;
    for (const Slot& slot : slots_) {
        kept->push_back(slot.mapping);
        parts.push_back({.start = Gpa{slot.region.guest_address}, .bytes = slot.mapping->bytes()});
    }
    return memory::GuestMemory::assemble(parts, std::move(kept));
}

Result<Gpa> MemoryTable::guest_address(std::uint64_t user_address) const {
    for (const Slot& slot : slots_) {
        const std::uint64_t first = slot.region.user_address;
        if (user_address >= first && user_address - first < slot.region.bytes) {
            return Gpa{slot.region.guest_address + (user_address - first)};
        }
    }
    return Error(ErrorCode::corrupt,
                 "ring address " + std::to_string(user_address) + " is in no memory region");
}

bool MemoryTable::torn() const noexcept {
    return std::any_of(
        slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.mapping->torn(); });
}

} // namespace godwit::doors::vhost
