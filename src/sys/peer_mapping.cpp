#include "sys/peer_mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>

namespace godwit::sys {

namespace {

constexpr std::uint64_t page_bytes = 4096;

/// What the handler knows of a mapping. `start` 0: free. A slot is published by its start and is
/// taken back before the mapping goes.
struct Slot {
    std::atomic<std::uintptr_t> start{0};
    std::atomic<std::uintptr_t> length{0};
    std::atomic<bool> taken{false};
    std::atomic<bool> torn{false};
};
static_assert(std::atomic<std::uintptr_t>::is_always_lock_free);

std::array<Slot, peer_mappings_max> slots;
struct sigaction before_us{};

/// Only system calls and lock-free atomics: it runs on whichever thread touched the memory.
void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
    const int kept_errno = errno;
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    for (Slot& slot : slots) {
        const std::uintptr_t start = slot.start.load(std::memory_order_acquire);
        const std::uintptr_t length = slot.length.load(std::memory_order_relaxed);
        if (start == 0 || address < start || address - start >= length) {
            continue;
        }
        void* const replaced = ::mmap(reinterpret_cast<void*>(start), // NOLINT: an address is one
                                      length,
                                      PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                                      -1,
                                      0);
        if (replaced != MAP_FAILED) {
            slot.torn.store(true, std::memory_order_release);
            errno = kept_errno;
            return; // The access is made again, and finds zeros.
        }
    }
    // Not ours: whatever was there before sees the same fault again.
    ::sigaction(SIGBUS, &before_us, nullptr);
    errno = kept_errno;
}

Status install_handler() {
    static const int failed = [] {
        struct sigaction action{};
        action.sa_sigaction = on_bus_error;
        action.sa_flags = SA_SIGINFO | SA_NODEFER;
        sigemptyset(&action.sa_mask);
        return ::sigaction(SIGBUS, &action, &before_us) != 0 ? errno : 0;
    }();
    return failed == 0 ? ok() : Error::from_errno(failed, "guard shared memory");
}

Result<std::size_t> take_slot(const MappedRegion& region) {
    for (std::size_t i = 0; i < slots.size(); ++i) {
        if (slots[i].taken.exchange(true, std::memory_order_acq_rel)) {
            continue;
        }
        slots[i].torn.store(false, std::memory_order_relaxed);
        slots[i].length.store(region.size(), std::memory_order_relaxed);
        slots[i].start.store(reinterpret_cast<std::uintptr_t>(region.data()),
                             std::memory_order_release);
        return i;
    }
    return Error(ErrorCode::resource_exhausted,
                 "more than " + std::to_string(peer_mappings_max) + " mappings of other processes");
}

} // namespace

Result<PeerMapping> PeerMapping::create(const Fd& object, Part part) {
    GODWIT_TRY(install_handler());
    struct stat info{};
    if (::fstat(object.raw(), &info) != 0) {
        return Error::from_errno(errno, "look at memory of another process");
    }
    if (!S_ISREG(info.st_mode)) {
        return Error(ErrorCode::invalid_argument, "memory of another process is no memory object");
    }
    const auto size = static_cast<std::uint64_t>(info.st_size);
    if (part.bytes == 0 || part.offset % page_bytes != 0 || part.offset > size ||
        part.bytes > size - part.offset) {
        return Error(ErrorCode::invalid_argument,
                     "part " + std::to_string(part.offset) + " +" + std::to_string(part.bytes) +
                         " of a memory object of " + std::to_string(size) + " bytes");
    }
    // From the object's start, in whole pages of its own size: that is what huge pages ask for.
    const std::uint64_t unit =
        std::max<std::uint64_t>(page_bytes, static_cast<std::uint64_t>(info.st_blksize));
    const std::uint64_t end = part.offset + part.bytes;
    MappedRegion region = GODWIT_TRY(
        MappedRegion::create(object, 0, (end + unit - 1) / unit * unit, MapMode::shared));
    const std::size_t slot = GODWIT_TRY(take_slot(region));
    const std::span<std::byte> bytes = region.bytes().subspan(part.offset, part.bytes);
    return PeerMapping(std::move(region), bytes, slot);
}

PeerMapping::~PeerMapping() {
    if (slot_ != no_slot) {
        slots[slot_].start.store(0, std::memory_order_release);
        slots[slot_].taken.store(false, std::memory_order_release);
    }
}

bool PeerMapping::torn() const noexcept {
    return slot_ != no_slot && slots[slot_].torn.load(std::memory_order_acquire);
}

} // namespace godwit::sys
