#include "exchange/frames.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>

namespace godwit::exchange {

namespace {

// Documentation/admin-guide/mm/pagemap.rst: bits 0-54 frame number, bit 63 present.
constexpr std::uint64_t present_bit = 1ULL << 63U;
constexpr std::uint64_t frame_mask = (1ULL << 55U) - 1;

/// Frame number of the page at `address` of this process, 0 if it is not present or not shown.
std::uint64_t frame_of(const sys::Fd& pagemap, const std::byte* address) {
    std::uint64_t entry = 0;
    const std::uint64_t offset =
        reinterpret_cast<std::uintptr_t>(address) / page_size * sizeof(entry);
    const Status read =
        sys::pread_exact(pagemap, std::as_writable_bytes(std::span(&entry, 1)), offset);
    if (!read.has_value() || (entry & present_bit) == 0) {
        return 0;
    }
    return entry & frame_mask;
}

/// Where page `page` of the backing is mapped here, or null.
const std::byte* address_of(const memory::GuestMemory& memory, std::uint64_t page) {
    for (const auto& region : memory.regions()) {
        const std::uint64_t first = region.ram.offset / page_size;
        if (page >= first && page - first < region.ram.bytes / page_size) {
            return region.host + (page - first) * page_size;
        }
    }
    return nullptr;
}

} // namespace

void PageMap::set(sys::Fd opened) {
    const std::lock_guard held(lock_);
    given_ = std::make_shared<const sys::Fd>(std::move(opened));
}

std::shared_ptr<const sys::Fd> PageMap::get() const {
    {
        const std::lock_guard held(lock_);
        if (given_ != nullptr) {
            return given_;
        }
    }
    Result<sys::Fd> own = sys::open("/proc/self/pagemap", O_RDONLY);
    return own.has_value() ? std::make_shared<const sys::Fd>(std::move(*own)) : nullptr;
}

std::vector<Frame>
sample_frames(const memory::GuestMemory& memory, const PageMap& map, std::size_t count) {
    std::vector<Frame> frames;
    const std::shared_ptr<const sys::Fd> pagemap = map.get();
    if (pagemap == nullptr || count == 0) {
        return frames;
    }
    const std::uint64_t pages = memory.ram_bytes() / page_size;
    // Most of RAM may never have been touched: look at more places than are wanted.
    const std::uint64_t looks = std::min<std::uint64_t>(pages, std::uint64_t{count} * 16);
    for (std::uint64_t i = 0; i < looks && frames.size() < count; ++i) {
        const std::uint64_t page = i * pages / looks;
        const std::uint64_t frame = frame_of(*pagemap, address_of(memory, page));
        if (frame != 0) {
            frames.push_back({.page = page, .host_frame = frame});
        }
    }
    return frames;
}

std::uint32_t count_identical(const memory::GuestMemory& memory,
                              const PageMap& map,
                              const std::vector<Frame>& frames) {
    const std::shared_ptr<const sys::Fd> pagemap = map.get();
    if (pagemap == nullptr) {
        return 0;
    }
    std::uint32_t identical = 0;
    for (const Frame& frame : frames) {
        const std::byte* address = address_of(memory, frame.page);
        if (address == nullptr) {
            continue;
        }
        [[maybe_unused]] const std::byte touched = *const_cast<const volatile std::byte*>(address);
        identical += frame_of(*pagemap, address) == frame.host_frame ? 1U : 0U;
    }
    return identical;
}

} // namespace godwit::exchange
