#include "program_memory.h"

#include <fcntl.h>

#include <atomic>
#include <cstdio>

namespace godwit::partition_test {

namespace {

std::uint32_t checksum_of(std::uint64_t page, std::uint32_t sequence) noexcept {
    std::uint64_t mixed = (page + 1) * 0x9E3779B97F4A7C15ULL ^ (sequence * 0xC2B2AE3D27D4EB4FULL);
    mixed ^= mixed >> 29U;
    return static_cast<std::uint32_t>(mixed * 0xBF58476D1CE4E5B9ULL >> 32U);
}

} // namespace

Result<ProgramMemory>
ProgramMemory::map(const sys::Fd& pool, std::span<const memory::PoolRun> runs, sys::MapMode mode) {
    std::uint64_t bytes = 0;
    for (const memory::PoolRun& run : runs) {
        bytes += run.bytes;
    }
    sys::MappedRegion region = GODWIT_TRY(sys::MappedRegion::reserve(bytes));
    std::uint64_t at = 0;
    for (const memory::PoolRun& run : runs) {
        GODWIT_TRY(region.place(at, pool, run.offset, run.bytes, mode));
        at += run.bytes;
    }
    return ProgramMemory(std::move(region));
}

std::uint64_t ProgramMemory::pages() const noexcept {
    return region_.size() / page_size;
}

std::uint64_t& ProgramMemory::word(std::uint64_t page) const noexcept {
    return *reinterpret_cast<std::uint64_t*>(region_.data() + page * page_size);
}

bool ProgramMemory::write(std::uint64_t page) {
    const std::atomic_ref<std::uint64_t> shared(word(page));
    std::uint64_t now = shared.load();
    const auto sequence = static_cast<std::uint32_t>(now >> 32U) + 1;
    return shared.compare_exchange_strong(
        now, std::uint64_t{sequence} << 32U | checksum_of(page, sequence));
}

std::optional<std::uint32_t> ProgramMemory::read(std::uint64_t page) const {
    const std::uint64_t now = std::atomic_ref<std::uint64_t>(word(page)).load();
    const auto sequence = static_cast<std::uint32_t>(now >> 32U);
    if (now != 0 && static_cast<std::uint32_t>(now) != checksum_of(page, sequence)) {
        return {};
    }
    return sequence;
}

std::optional<std::uint64_t> ProgramMemory::sum() const {
    std::uint64_t total = 0;
    for (std::uint64_t page = 0; page < pages(); ++page) {
        const auto sequence = read(page);
        if (!sequence.has_value()) {
            return {};
        }
        total += *sequence;
    }
    return total;
}

std::uint64_t ProgramMemory::host_frame(std::uint64_t page) const {
    const auto pagemap = sys::open("/proc/self/pagemap", O_RDONLY);
    std::uint64_t entry = 0;
    const auto at = reinterpret_cast<std::uintptr_t>(&word(page)) / page_size * sizeof(entry);
    if (!pagemap.has_value() ||
        !sys::pread_exact(*pagemap, std::as_writable_bytes(std::span(&entry, 1)), at).has_value()) {
        return 0;
    }
    return entry & ((1ULL << 55U) - 1); // Documentation/admin-guide/mm/pagemap.rst
}

std::string to_text(std::span<const memory::PoolRun> runs) {
    std::string text;
    for (const memory::PoolRun& run : runs) {
        text += std::to_string(run.offset) + ":" + std::to_string(run.bytes) + ",";
    }
    return text;
}

std::vector<memory::PoolRun> parse_runs(const std::string& text) {
    std::vector<memory::PoolRun> runs;
    unsigned long long offset = 0;
    unsigned long long bytes = 0;
    int used = 0;
    for (const char* at = text.c_str();
         std::sscanf(at, "%llu:%llu,%n", &offset, &bytes, &used) == 2;
         at += used) {
        runs.push_back({.offset = offset, .bytes = bytes});
    }
    return runs;
}

} // namespace godwit::partition_test
