#include "memory/pool/pool.h"

#include "base/scope_guard.h"

#include <fcntl.h>

#include <algorithm>

namespace godwit::memory {

namespace {
constexpr int pool_seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
} // namespace

Result<Pool> Pool::create(std::uint64_t bytes, PoolOwner first, std::uint64_t pool_id) {
    if (bytes == 0 || bytes % pool_frame_bytes != 0) {
        return Error(ErrorCode::invalid_argument,
                     "a memory pool of " + std::to_string(bytes) +
                         " bytes: give a multiple of 2 MiB");
    }
    const TableShape shape{.frames = bytes / pool_frame_bytes, .pool_id = pool_id};
    ExtentTable table = GODWIT_TRY(ExtentTable::create(shape, first));
    sys::Fd memory = GODWIT_TRY(sys::create_memfd("godwit-pool", bytes));
    if (::fcntl(memory.raw(), F_ADD_SEALS, pool_seals) != 0) {
        return Error::from_errno(errno, "seal the memory pool");
    }
    return Pool(std::move(memory), std::move(table));
}

Result<Pool> Pool::adopt(sys::Fd memory, sys::Fd table_fd) {
    ExtentTable table = GODWIT_TRY(ExtentTable::adopt(std::move(table_fd)));
    const int seals = ::fcntl(memory.raw(), F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 ||
        GODWIT_TRY(sys::file_size(memory)) != table.frames() * pool_frame_bytes) {
        return Error(ErrorCode::corrupt,
                     "the memory pool is not a sealed file of the size its table says");
    }
    GODWIT_TRY(table.snapshot());
    return Pool(std::move(memory), std::move(table));
}

Result<std::vector<Extent>>
Pool::allocate(PoolOwner owner, std::uint64_t frames, Purpose purpose, std::uint64_t tag) {
    const std::lock_guard lock(*mutex_);
    std::vector<Extent> available =
        extents_of(GODWIT_TRY(table_.snapshot()), owner, Purpose::free, 0);
    std::ranges::sort(available, {}, [](const Extent& extent) { return extent.run.frames; });
    if (frames == 0 || purpose == Purpose::free || frames_of(available, owner) < frames) {
        return Error(ErrorCode::resource_exhausted,
                     "the memory pool has " + std::to_string(frames_of(available, owner)) +
                         " free frames of 2 MiB, " + std::to_string(frames) + " are wanted");
    }
    std::vector<Extent> taken;
    ScopeGuard undo([&] {
        for (const Extent& extent : taken) {
            discard(table_.relabel(extent, {}), "the first error is the one to tell");
        }
    });
    for (std::uint64_t position = 0; position < frames;) {
        const std::uint64_t wanted = frames - position;
        // The smallest that is large enough, otherwise the largest.
        auto chosen = std::ranges::lower_bound(
            available, wanted, {}, [](const Extent& extent) { return extent.run.frames; });
        chosen = chosen == available.end() ? std::prev(chosen) : chosen;
        const Label label{.purpose = purpose, .tag = tag, .position = position};
        if (chosen->run.frames <= wanted) {
            taken.push_back(GODWIT_TRY(table_.relabel(*chosen, label)));
        } else {
            taken.push_back(GODWIT_TRY(table_.split(*chosen, wanted, label)).second);
        }
        position += taken.back().run.frames;
        available.erase(chosen);
    }
    undo.commit();
    return taken;
}

Status Pool::free(std::span<const Extent> extents) {
    const std::lock_guard lock(*mutex_);
    if (extents.empty()) {
        return ok();
    }
    for (const Extent& extent : extents) {
        // Only what is still ours: the bytes of an extent that was claimed are not to be touched.
        GODWIT_TRY(table_.check_current(extent));
        GODWIT_TRY(scrub(extent.run));
        GODWIT_TRY(table_.relabel(extent, {}));
    }
    return join_free(extents.front().owner);
}

Status Pool::join_free(PoolOwner owner) {
    const std::vector<Extent> all = GODWIT_TRY(table_.snapshot());
    const auto is_ours = [&](const Extent& extent) {
        return extent.owner == owner && extent.label.purpose == Purpose::free;
    };
    for (std::size_t i = 0; i < all.size(); ++i) {
        Extent left = all[i];
        while (is_ours(left) && i + 1 < all.size() && is_ours(all[i + 1])) {
            left = GODWIT_TRY(table_.merge(left, all[i + 1]));
            ++i;
        }
    }
    return ok();
}

Status Pool::scrub(const FrameRun& run) const {
    if (run.first >= table_.frames() || run.frames > table_.frames() - run.first) {
        return Error(ErrorCode::invalid_argument, "frames out of the pool cannot be scrubbed");
    }
    if (::fallocate(memory_.raw(),
                    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(run.first * pool_frame_bytes),
                    static_cast<off_t>(run.frames * pool_frame_bytes)) != 0) {
        return Error::from_errno(errno, "give frames of the memory pool back to the host");
    }
    return ok();
}

std::vector<PoolRun> ram_runs(std::span<const Extent> extents) {
    std::vector<PoolRun> runs;
    for (const Extent& extent : extents) {
        const std::uint64_t offset = extent.run.first * pool_frame_bytes;
        const std::uint64_t bytes = extent.run.frames * pool_frame_bytes;
        if (!runs.empty() && runs.back().offset + runs.back().bytes == offset) {
            runs.back().bytes += bytes;
        } else {
            runs.push_back({.offset = offset, .bytes = bytes});
        }
    }
    return runs;
}

} // namespace godwit::memory
