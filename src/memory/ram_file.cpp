#include "memory/ram_file.h"

#include "base/scope_guard.h"
#include "memory/data_runs.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace godwit::memory {

namespace {

constexpr std::uint64_t step_bytes = 4 * mib;

/// next_data() where RAM lies in runs of `fd`; offsets are those of RAM.
Result<DataRun> next_data_in(const sys::Fd& fd,
                             std::span<const PoolRun> runs,
                             std::uint64_t from,
                             std::uint64_t end) {
    if (runs.empty()) {
        return next_data(fd, from, end);
    }
    std::uint64_t ram = 0;
    for (const PoolRun& run : runs) {
        const std::uint64_t next = ram + run.bytes;
        if (from < next) {
            const std::uint64_t run_end = run.offset + run.bytes;
            const DataRun found = GODWIT_TRY(next_data(fd, run.offset + (from - ram), run_end));
            if (found.start < run_end) {
                return DataRun{.start = ram + (found.start - run.offset),
                               .end = ram + (found.end - run.offset)};
            }
            from = next;
        }
        ram = next;
    }
    return DataRun{.start = end, .end = end};
}

/// Writes `data`, which belongs at offset `at` of RAM, where its runs in `fd` are.
Status write_to_runs(const sys::Fd& fd,
                     std::span<const PoolRun> runs,
                     std::span<const std::byte> data,
                     std::uint64_t at) {
    if (runs.empty()) {
        return sys::pwrite_all(fd, data, at);
    }
    std::uint64_t ram = 0;
    for (const PoolRun& run : runs) {
        const std::uint64_t next = ram + run.bytes;
        if (at < next && !data.empty()) {
            const auto piece = data.first(std::min<std::uint64_t>(data.size(), next - at));
            GODWIT_TRY(sys::pwrite_all(fd, piece, run.offset + (at - ram)));
            data = data.subspan(piece.size());
            at += piece.size();
        }
        ram = next;
    }
    return data.empty() ? ok() : Error(ErrorCode::invalid_argument, "RAM is longer than its runs");
}

bool is_zero(std::span<const std::byte> page) {
    // Comparing a run with itself shifted by one byte lets memcmp do the work.
    return page[0] == std::byte{0} &&
           std::memcmp(page.data(), page.data() + 1, page.size() - 1) == 0;
}

/// Writes the pages of `data` that are not zero, joined into runs; `at` is their place in the file.
Result<std::uint64_t>
write_pages(const sys::Fd& file, std::span<const std::byte> data, std::uint64_t at) {
    std::uint64_t written = 0;
    std::uint64_t run_start = 0;
    for (std::uint64_t offset = 0; offset <= data.size(); offset += page_size) {
        const bool ends = offset == data.size() || is_zero(data.subspan(offset, page_size));
        if (!ends) {
            continue;
        }
        if (offset > run_start) {
            GODWIT_TRY(
                sys::pwrite_all(file, data.subspan(run_start, offset - run_start), at + run_start));
            written += offset - run_start;
        }
        run_start = offset + page_size;
    }
    return written;
}

/// RAM as one range in the order of the backing.
std::span<const std::byte>
bytes_at(const GuestMemory& memory, std::uint64_t offset, std::uint64_t length) {
    for (const GuestMemory::Region& region : memory.regions()) {
        if (offset >= region.ram.offset && offset < region.ram.offset + region.ram.bytes) {
            const std::uint64_t inside = offset - region.ram.offset;
            return {region.host + inside, std::min(length, region.ram.bytes - inside)};
        }
    }
    return {};
}

Result<std::uint64_t> write_extent(const GuestMemory& memory,
                                   const sys::Fd& file,
                                   const DataRun& extent,
                                   const RamFileProgress& progress,
                                   const std::atomic<bool>& cancel) {
    std::uint64_t written = 0;
    std::uint64_t at = round_down(extent.start, page_size);
    const std::uint64_t end = round_up(extent.end, page_size);
    while (at < end) {
        if (cancel.load()) {
            return Error(ErrorCode::cancelled, "cancelled on request");
        }
        const auto data = bytes_at(memory, at, std::min(step_bytes, end - at));
        written += GODWIT_TRY(write_pages(file, data, at));
        at += data.size();
        if (progress) {
            progress(at, memory.ram_bytes());
        }
    }
    return written;
}

} // namespace

Result<RamFileResult> write_ram_file(const GuestMemory& memory,
                                     const sys::Fd& backing,
                                     const std::string& path,
                                     const RamFileProgress& progress,
                                     const std::atomic<bool>& cancel,
                                     std::span<const PoolRun> runs) {
    const sys::Fd file = GODWIT_TRY(sys::open(path, O_RDWR | O_CREAT | O_EXCL));
    ScopeGuard remove_file([&] { ::unlink(path.c_str()); });
    if (::ftruncate(file.raw(), static_cast<off_t>(memory.ram_bytes())) != 0) {
        return Error::from_errno(errno, "size '" + path + "'");
    }
    RamFileResult result{.ram_bytes = memory.ram_bytes()};
    // In a private mapping the guest may have data where the file has a hole: then everything is
    // read.
    const bool holes_are_zero = !memory.is_private();
    std::uint64_t at = 0;
    while (at < memory.ram_bytes()) {
        DataRun extent{.start = at, .end = memory.ram_bytes()};
        if (holes_are_zero) {
            extent = GODWIT_TRY(next_data_in(backing, runs, at, memory.ram_bytes()));
        }
        result.written_bytes += GODWIT_TRY(write_extent(memory, file, extent, progress, cancel)
                                               .with_context("write '" + path + "'"));
        at = round_up(extent.end, page_size);
    }
    if (::fsync(file.raw()) != 0) {
        return Error::from_errno(errno, "make '" + path + "' durable");
    }
    remove_file.commit();
    return result;
}

Status copy_ram(const sys::Fd& from,
                const sys::Fd& to,
                std::uint64_t bytes,
                std::span<const PoolRun> runs) {
    std::vector<std::byte> buffer(step_bytes);
    std::uint64_t at = 0;
    while (at < bytes) {
        const DataRun extent = GODWIT_TRY(next_data(from, at, bytes));
        for (at = extent.start; at < extent.end;) {
            const auto piece = std::span(buffer).first(std::min(step_bytes, extent.end - at));
            GODWIT_TRY(sys::pread_exact(from, piece, at));
            GODWIT_TRY(write_to_runs(to, runs, piece, at));
            at += piece.size();
        }
        at = std::max(at, extent.end);
    }
    return ok();
}

} // namespace godwit::memory
