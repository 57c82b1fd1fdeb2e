#include "sys/mapping.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

namespace godwit::sys {

namespace {

constexpr std::uint64_t huge_page_bytes = 2ULL << 20U;

int protection_of(MapMode mode) noexcept {
    return mode == MapMode::shared_read_only ? PROT_READ : PROT_READ | PROT_WRITE;
}

int flags_of(MapMode mode) noexcept {
    return (mode == MapMode::private_copy ? MAP_PRIVATE : MAP_SHARED) | MAP_NORESERVE;
}

} // namespace

Result<MappedRegion>
MappedRegion::create(const Fd& fd, std::uint64_t offset, std::uint64_t length_bytes, MapMode mode) {
    void* address = ::mmap(nullptr,
                           length_bytes,
                           protection_of(mode),
                           flags_of(mode),
                           fd.raw(),
                           static_cast<off_t>(offset));
    if (address == MAP_FAILED) {
        return Error::from_errno(errno, "map " + std::to_string(length_bytes) + " bytes");
    }
    return MappedRegion(static_cast<std::byte*>(address), length_bytes);
}

Result<MappedRegion> MappedRegion::reserve(std::uint64_t length_bytes) {
    // One huge page more, so that a boundary lies in it; what is left over goes back at once.
    const std::uint64_t taken = length_bytes + huge_page_bytes;
    void* address =
        ::mmap(nullptr, taken, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) {
        return Error::from_errno(errno, "reserve " + std::to_string(taken) + " bytes of addresses");
    }
    auto* const first = static_cast<std::byte*>(address);
    const std::uint64_t before =
        (huge_page_bytes - reinterpret_cast<std::uintptr_t>(first) % huge_page_bytes) %
        huge_page_bytes;
    if (before != 0) {
        ::munmap(first, before);
    }
    if (before != huge_page_bytes) {
        ::munmap(first + before + length_bytes, huge_page_bytes - before);
    }
    return MappedRegion(first + before, length_bytes);
}

Status MappedRegion::place(std::uint64_t at_offset,
                           const Fd& fd,
                           std::uint64_t file_offset,
                           std::uint64_t length_bytes,
                           MapMode mode) const {
    if (at_offset > length_ || length_bytes > length_ - at_offset) {
        return Error(ErrorCode::invalid_argument, "a mapping would leave its reservation");
    }
    void* address = ::mmap(data_ + at_offset,
                           length_bytes,
                           protection_of(mode),
                           flags_of(mode) | MAP_FIXED,
                           fd.raw(),
                           static_cast<off_t>(file_offset));
    if (address == MAP_FAILED) {
        return Error::from_errno(errno, "map " + std::to_string(length_bytes) + " bytes");
    }
    return ok();
}

Status MappedRegion::advise(int advice) const {
    if (::madvise(data_, length_, advice) != 0) {
        return Error::from_errno(errno, "advise the kernel on a mapping");
    }
    return ok();
}

Status MappedRegion::populate(std::uint64_t bytes) const {
    // Writable mappings for writing, so that nothing is left to fault.
    for (const int advice : {MADV_POPULATE_WRITE, MADV_POPULATE_READ}) {
        if (::madvise(data_, std::min(bytes, length_), advice) == 0) {
            return ok();
        }
    }
    return Error::from_errno(errno, "populate a mapping");
}

Status populate_for_writing(std::span<std::byte> part) {
    if (::madvise(part.data(), part.size(), MADV_POPULATE_WRITE) != 0) {
        return Error::from_errno(errno, "populate part of a mapping");
    }
    return ok();
}

void MappedRegion::unmap() noexcept {
    if (data_ != nullptr) {
        ::munmap(data_, length_);
        data_ = nullptr;
    }
}

} // namespace godwit::sys
