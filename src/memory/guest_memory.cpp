#include "memory/guest_memory.h"

#include <sys/mman.h>

#include <fcntl.h>

#include <cerrno>

namespace godwit::memory {

namespace {

Error outside_ram(Gpa start, std::uint64_t bytes) {
    return Error(ErrorCode::invalid_argument,
                 "guest address " + std::to_string(start.value) + " +" + std::to_string(bytes) +
                     " bytes is not RAM");
}

} // namespace

namespace {

/// Maps all of the backing into a range that is there already.
Status place_all(const sys::MappedRegion& region, const RamBacking& backing, sys::MapMode mode) {
    const RamSpec& spec = backing.spec();
    if (spec.kind != RamKind::pool) {
        return region.place(0, backing.fd(), 0, spec.bytes, mode);
    }
    std::uint64_t at = 0;
    for (const PoolRun& run : spec.runs) {
        GODWIT_TRY(region.place(at, backing.fd(), run.offset, run.bytes, mode));
        at += run.bytes;
    }
    return ok();
}

/// All of the backing at one range of addresses, wherever its parts lie in a pool: a view may cross
/// from one run into the next, and KVM needs one slot per region however scattered the RAM is.
Result<sys::MappedRegion> map_all(const RamBacking& backing, sys::MapMode mode) {
    const RamSpec& spec = backing.spec();
    if (spec.kind != RamKind::pool) {
        return sys::MappedRegion::create(backing.fd(), 0, spec.bytes, mode);
    }
    sys::MappedRegion region = GODWIT_TRY(sys::MappedRegion::reserve(spec.bytes));
    GODWIT_TRY(place_all(region, backing, mode));
    return region;
}

} // namespace

Result<std::shared_ptr<GuestMemory>> GuestMemory::map(const RamBacking& backing,
                                                      sys::MapMode mode) {
    std::shared_ptr<GuestMemory> memory(new GuestMemory());
    const std::vector<RamRegion> layout = GODWIT_TRY(layout_of(backing.spec().bytes));
    memory->mapping_ = GODWIT_TRY(map_all(backing, mode));
    memory->ram_bytes_ = backing.spec().bytes;
    memory->mode_ = mode;
    for (const RamRegion& region : layout) {
        memory->regions_.push_back(
            {.ram = region, .host = memory->mapping_.data() + region.offset});
    }
    memory->advise(backing.spec().kind);
    return memory;
}

Result<std::shared_ptr<GuestMemory>> GuestMemory::assemble(const std::vector<Part>& parts,
                                                           std::shared_ptr<const void> keep) {
    std::shared_ptr<GuestMemory> memory(new GuestMemory());
    memory->keep_ = std::move(keep);
    for (const Part& part : parts) {
        const std::uint64_t bytes = part.bytes.size();
        const std::uint64_t first = part.start.value;
        if (bytes == 0 || first % page_size != 0 ||
            reinterpret_cast<std::uintptr_t>(part.bytes.data()) % page_size != 0 ||
            bytes > ram_bytes_max - memory->ram_bytes_ || first + bytes < first) {
            return Error(ErrorCode::invalid_argument,
                         "no RAM can lie at guest address " + std::to_string(first) + " +" +
                             std::to_string(bytes) + " bytes");
        }
        for (const Region& other : memory->regions_) {
            const std::uint64_t start = other.ram.start.value;
            if (first < start + other.ram.bytes && start < first + bytes) {
                return Error(ErrorCode::invalid_argument,
                             "two regions of guest memory overlap at " + std::to_string(first));
            }
        }
        memory->regions_.push_back(
            {.ram = {.start = part.start, .bytes = bytes, .offset = memory->ram_bytes_},
             .host = part.bytes.data()});
        memory->ram_bytes_ += round_up(bytes, page_size);
    }
    return memory;
}

void GuestMemory::advise(RamKind kind) const {
    if (kind == RamKind::memfd || kind == RamKind::pool) {
        discard(mapping_.advise(MADV_HUGEPAGE), "a kernel without huge pages serves small ones");
    }
    // RAM stays out of core dumps and out of children of a fork.
    discard(mapping_.advise(MADV_DONTDUMP), "only keeps core dumps small");
}

Status GuestMemory::grant(const RamBacking& backing) {
    if (mode_ != sys::MapMode::shared_read_only || backing.spec().bytes != ram_bytes_) {
        return Error(ErrorCode::conflict, "guest memory is not waiting for rights to it");
    }
    GODWIT_TRY(place_all(mapping_, backing, sys::MapMode::shared));
    mode_ = sys::MapMode::shared;
    advise(backing.spec().kind);
    return ok();
}

const GuestMemory::Region* GuestMemory::region_of(Gpa start, std::uint64_t bytes) const noexcept {
    for (const Region& region : regions_) {
        const std::uint64_t first = region.ram.start.value;
        if (start.value >= first && start.value - first < region.ram.bytes &&
            bytes <= region.ram.bytes - (start.value - first)) {
            return &region;
        }
    }
    return nullptr;
}

bool GuestMemory::contains(Gpa start, std::uint64_t bytes) const noexcept {
    return region_of(start, bytes) != nullptr;
}

Result<std::span<const std::byte>> GuestMemory::view(Gpa start, std::uint64_t bytes) const {
    const Region* region = region_of(start, bytes);
    if (region == nullptr) {
        return outside_ram(start, bytes);
    }
    return std::span<const std::byte>(region->host + (start.value - region->ram.start.value),
                                      bytes);
}

Result<std::span<std::byte>> GuestMemory::mutable_view(Gpa start, std::uint64_t bytes) {
    const Region* region = region_of(start, bytes);
    if (region == nullptr) {
        return outside_ram(start, bytes);
    }
    return std::span(region->host + (start.value - region->ram.start.value), bytes);
}

Status GuestMemory::read(Gpa from, std::span<std::byte> out) const {
    const auto source = GODWIT_TRY(view(from, out.size()));
    std::memcpy(out.data(), source.data(), out.size());
    return ok();
}

Status GuestMemory::write(Gpa to, std::span<const std::byte> data) {
    const auto target = GODWIT_TRY(mutable_view(to, data.size()));
    std::memcpy(target.data(), data.data(), data.size());
    note_written(to, data.size());
    return ok();
}

void GuestMemory::note_written(Gpa start, std::uint64_t bytes) noexcept {
    if (bytes == 0 || !log_on_.load(std::memory_order_acquire)) {
        return;
    }
    const Region* region = region_of(start, bytes);
    if (region == nullptr) {
        return;
    }
    const std::uint64_t offset = region->ram.offset + (start.value - region->ram.start.value);
    for (std::uint64_t page = offset / page_size; page <= (offset + bytes - 1) / page_size;
         ++page) {
        log_[page / 64].fetch_or(1ULL << (page % 64), std::memory_order_relaxed);
    }
}

namespace {
std::size_t log_words(std::uint64_t ram_bytes) {
    return (ram_bytes / page_size + 63) / 64;
}
} // namespace

void GuestMemory::start_write_log() {
    const std::size_t words = log_words(ram_bytes_);
    if (!log_) {
        log_ = std::make_unique<std::atomic<std::uint64_t>[]>(words);
    }
    for (std::size_t i = 0; i < words; ++i) {
        log_[i].store(0, std::memory_order_relaxed);
    }
    log_on_.store(true, std::memory_order_release);
}

std::vector<std::uint64_t> GuestMemory::take_write_log() {
    std::vector<std::uint64_t> words(log_words(ram_bytes_));
    if (log_) {
        for (std::size_t i = 0; i < words.size(); ++i) {
            words[i] = log_[i].exchange(0, std::memory_order_acq_rel);
        }
    }
    return words;
}

void GuestMemory::stop_write_log() {
    log_on_.store(false, std::memory_order_release);
}

Status GuestMemory::release(Gpa start, std::uint64_t bytes) {
    const auto range = GODWIT_TRY(mutable_view(start, bytes));
    // MADV_REMOVE punches the hole in the shared object; a private mapping has only its own copies.
    const int advice = mode_ == sys::MapMode::private_copy ? MADV_DONTNEED : MADV_REMOVE;
    if (::madvise(range.data(), range.size(), advice) != 0) {
        return Error::from_errno(errno, "give guest pages back to the host");
    }
    note_written(start, bytes);
    return ok();
}

} // namespace godwit::memory
