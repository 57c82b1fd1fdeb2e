#include "memory/ram.h"

#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace godwit::memory {

namespace {
constexpr std::uint64_t ram_granule = 2 * mib;
} // namespace

Result<std::vector<RamRegion>> layout_of(std::uint64_t ram_bytes) {
    if (ram_bytes < ram_bytes_min || ram_bytes > ram_bytes_max || ram_bytes % ram_granule != 0) {
        return Error(ErrorCode::invalid_argument,
                     "RAM of " + std::to_string(ram_bytes) +
                         " bytes: give a multiple of 2 MiB from 32 MiB upward");
    }
    std::vector<RamRegion> regions;
    const std::uint64_t low = std::min(ram_bytes, pci_hole_start);
    regions.push_back({.start = Gpa{0}, .bytes = low, .offset = 0});
    if (ram_bytes > low) {
        regions.push_back({.start = Gpa{pci_hole_end}, .bytes = ram_bytes - low, .offset = low});
    }
    return regions;
}

namespace {

/// Host memory that a machine could use at most: all RAM. Overcommit beyond it is a mistake for
/// sure.
Status check_host_memory(std::uint64_t bytes) {
    struct sysinfo info{};
    if (::sysinfo(&info) != 0) {
        return Error::from_errno(errno, "ask how much memory the host has");
    }
    const std::uint64_t total = std::uint64_t{info.totalram} * info.mem_unit;
    if (bytes > total) {
        return Error(ErrorCode::resource_exhausted,
                     "the machine wants " + std::to_string(bytes / mib) +
                         " MiB of RAM, the host has " + std::to_string(total / mib) +
                         " MiB: give it less with --memory");
    }
    return ok();
}

Result<sys::Fd> open_ram_file(const RamSpec& spec) {
    sys::Fd fd = GODWIT_TRY(sys::open(spec.path, O_RDWR | O_CREAT));
    const std::uint64_t size = GODWIT_TRY(sys::file_size(fd));
    if (size == 0) {
        if (::ftruncate(fd.raw(), static_cast<off_t>(spec.bytes)) != 0) {
            return Error::from_errno(errno, "size the RAM file '" + spec.path + "'");
        }
    } else if (size != spec.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the RAM file '" + spec.path + "' has " + std::to_string(size) +
                         " bytes, the machine " + std::to_string(spec.bytes) +
                         ": give the same size or an empty file");
    }
    return fd;
}

} // namespace

Result<RamBacking> RamBacking::create(const std::string& machine_name, const RamSpec& spec) {
    GODWIT_TRY(layout_of(spec.bytes));
    if (spec.kind == RamKind::pool) {
        return Error(ErrorCode::unsupported,
                     "RAM of kind \"pool\" is handed out by the host's memory pool, not created");
    }
    if (spec.kind == RamKind::file) {
        return RamBacking(GODWIT_TRY(open_ram_file(spec)), spec);
    }
    GODWIT_TRY(check_host_memory(spec.bytes));
    const auto huge =
        spec.kind == RamKind::hugetlb ? sys::HugePages::hugetlb_2m : sys::HugePages::none;
    return RamBacking(GODWIT_TRY(sys::create_memfd("godwit-ram-" + machine_name, spec.bytes, huge)),
                      spec);
}

namespace {

/// Runs come from a document: they lie in the pool, do not overlap and are as long as the RAM.
Status check_runs(const RamSpec& spec, std::uint64_t pool_bytes) {
    if (spec.runs.empty() || spec.runs.size() > pool_runs_max) {
        return Error(ErrorCode::invalid_argument,
                     "RAM of kind \"pool\" has " + std::to_string(spec.runs.size()) +
                         " runs: 1 to " + std::to_string(pool_runs_max) + " are possible");
    }
    std::vector<PoolRun> sorted = spec.runs;
    std::ranges::sort(sorted, {}, &PoolRun::offset);
    std::uint64_t end = 0;
    std::uint64_t sum = 0;
    for (const PoolRun& run : sorted) {
        if (run.bytes == 0 || run.bytes % ram_granule != 0 || run.offset % ram_granule != 0 ||
            run.offset >= pool_bytes || run.bytes > pool_bytes - run.offset) {
            return Error(ErrorCode::invalid_argument,
                         "the RAM run of " + std::to_string(run.bytes) + " bytes at " +
                             std::to_string(run.offset) + " is not whole frames of the pool");
        }
        if (run.offset < end) {
            return Error(ErrorCode::invalid_argument,
                         "two RAM runs overlap at " + std::to_string(run.offset));
        }
        end = run.offset + run.bytes;
        sum += run.bytes;
    }
    if (sum != spec.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the RAM runs have " + std::to_string(sum) + " bytes, the machine " +
                         std::to_string(spec.bytes));
    }
    return ok();
}

} // namespace

Result<RamBacking> RamBacking::adopt(sys::Fd fd, const RamSpec& spec) {
    GODWIT_TRY(layout_of(spec.bytes));
    const std::uint64_t size = GODWIT_TRY(sys::file_size(fd));
    if (spec.kind == RamKind::pool) {
        GODWIT_TRY(check_runs(spec, size));
        return RamBacking(std::move(fd), spec);
    }
    if (size != spec.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the RAM handed over has " + std::to_string(size) + " bytes, the machine " +
                         std::to_string(spec.bytes));
    }
    return RamBacking(std::move(fd), spec);
}

} // namespace godwit::memory
