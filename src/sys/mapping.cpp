#include "sys/mapping.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

namespace godwit::sys {

namespace {

Result<std::byte*>
map(std::byte* at, const Fd& fd, std::uint64_t offset, std::uint64_t bytes, MapMode mode) {
    const int protection = mode == MapMode::shared_read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    const int flags = (mode == MapMode::private_copy ? MAP_PRIVATE : MAP_SHARED) | MAP_NORESERVE |
                      (at != nullptr ? MAP_FIXED : 0);
    void* address = ::mmap(at, bytes, protection, flags, fd.raw(), static_cast<off_t>(offset));
    if (address == MAP_FAILED) {
        return Error::from_errno(errno, "map " + std::to_string(bytes) + " bytes");
    }
    return static_cast<std::byte*>(address);
}

} // namespace

Result<MappedRegion>
MappedRegion::create(const Fd& fd, std::uint64_t offset, std::uint64_t length_bytes, MapMode mode) {
    return MappedRegion(GODWIT_TRY(map(nullptr, fd, offset, length_bytes, mode)), length_bytes);
}

Status MappedRegion::replace(const Fd& fd, std::uint64_t offset, MapMode mode) const {
    GODWIT_TRY(map(data_, fd, offset, length_, mode));
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

void MappedRegion::unmap() noexcept {
    if (data_ != nullptr) {
        ::munmap(data_, length_);
        data_ = nullptr;
    }
}

} // namespace godwit::sys
