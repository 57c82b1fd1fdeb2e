#include "memory/pool/extent_check.h"

#include <algorithm>
#include <string>

namespace godwit::memory {

namespace {

Error bad(const Extent& extent, const std::string& why) {
    return Error(ErrorCode::corrupt,
                 "extent of " + std::to_string(extent.run.frames) + " frames at frame " +
                     std::to_string(extent.run.first) + " " + why);
}

/// The row of the snapshot that starts at this frame, or null.
const Extent* row_at(std::span<const Extent> table, std::uint64_t first) {
    const auto found = std::ranges::lower_bound(
        table, first, {}, [](const Extent& extent) { return extent.run.first; });
    return found != table.end() && found->run.first == first ? &*found : nullptr;
}

Status check_row(const Extent& extent, std::span<const Extent> table, const ListRules& rules) {
    const Extent* row = row_at(table, extent.run.first);
    if (row == nullptr) {
        return bad(extent, "is not in the pool's table");
    }
    if (row->run != extent.run) {
        return bad(extent, "has another length in the pool's table");
    }
    if (extent.owner != rules.owner || row->owner != rules.owner) {
        return bad(extent,
                   "belongs to instance " + std::to_string(row->owner.value) + ", not to " +
                       std::to_string(rules.owner.value));
    }
    if (row->epoch != extent.epoch) {
        return bad(extent, "has changed since it was offered");
    }
    if (row->label != extent.label || extent.label.purpose != rules.purpose ||
        extent.label.tag != rules.tag) {
        return bad(extent, "belongs to another program");
    }
    return ok();
}

} // namespace

Status check_partition(std::span<const Extent> extents, std::uint64_t frames) {
    std::uint64_t at = 0;
    for (const Extent& extent : extents) {
        if (extent.run.first != at) {
            return bad(extent, extent.run.first < at ? "overlaps another" : "leaves a hole");
        }
        if (extent.run.frames == 0 || extent.run.frames > frames - at) {
            return bad(extent, "leaves the pool");
        }
        if (extent.owner.value == 0) {
            return bad(extent, "has no owner");
        }
        at += extent.run.frames;
    }
    if (at != frames) {
        return Error(ErrorCode::corrupt,
                     "the pool's table ends at frame " + std::to_string(at) + " of " +
                         std::to_string(frames));
    }
    return ok();
}

Status
check_list(std::span<const Extent> list, std::span<const Extent> table, const ListRules& rules) {
    if (list.empty() || list.size() > program_extents_max) {
        return Error(ErrorCode::corrupt,
                     "a list of " + std::to_string(list.size()) + " extents is not 1 to " +
                         std::to_string(program_extents_max));
    }
    // Rows of the table do not overlap, so only a doubled extent can; positions that follow each
    // other without gap leave no room for one.
    std::uint64_t position = 0;
    std::vector<std::uint64_t> firsts;
    for (const Extent& extent : list) {
        GODWIT_TRY(check_row(extent, table, rules));
        if (extent.label.position != position) {
            return bad(extent, "is not the next part of its program's memory");
        }
        position += extent.run.frames;
        firsts.push_back(extent.run.first);
    }
    std::ranges::sort(firsts);
    if (std::ranges::adjacent_find(firsts) != firsts.end()) {
        return Error(ErrorCode::corrupt, "the list names an extent twice");
    }
    if (rules.frames != 0 && position != rules.frames) {
        return Error(ErrorCode::corrupt,
                     "the list has " + std::to_string(position) + " frames, the program " +
                         std::to_string(rules.frames));
    }
    return ok();
}

std::uint64_t frames_of(std::span<const Extent> extents, PoolOwner owner) {
    std::uint64_t frames = 0;
    for (const Extent& extent : extents) {
        frames += extent.owner == owner ? extent.run.frames : 0;
    }
    return frames;
}

std::vector<Extent>
extents_of(std::span<const Extent> extents, PoolOwner owner, Purpose purpose, std::uint64_t tag) {
    std::vector<Extent> found;
    for (const Extent& extent : extents) {
        if (extent.owner == owner && extent.label.purpose == purpose && extent.label.tag == tag) {
            found.push_back(extent);
        }
    }
    std::ranges::sort(found, {}, [](const Extent& extent) { return extent.label.position; });
    return found;
}

} // namespace godwit::memory
