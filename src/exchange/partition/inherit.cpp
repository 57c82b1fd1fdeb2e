#include "exchange/partition/inherit.h"

#include "base/fault_point.h"

#include <algorithm>
#include <map>
#include <set>

namespace godwit::exchange::partition {

using memory::Extent;
using memory::PoolOwner;
using memory::Purpose;

Result<std::vector<Inherited>> programs_of(const memory::Pool& pool, PoolOwner owner) {
    const std::vector<Extent> all = GODWIT_TRY(pool.table().snapshot());
    std::map<std::uint64_t, Inherited> by_tag;
    for (const Extent& extent : all) {
        const Purpose purpose = extent.label.purpose;
        if (extent.owner != owner || (purpose != Purpose::machine && purpose != Purpose::program)) {
            continue;
        }
        Inherited& program = by_tag[extent.label.tag];
        program.tag = extent.label.tag;
        program.purpose = purpose;
    }
    std::vector<Inherited> programs;
    for (auto& [tag, program] : by_tag) {
        program.memory = memory::extents_of(all, owner, program.purpose, tag);
        program.state = memory::extents_of(all, owner, Purpose::state, tag);
        programs.push_back(std::move(program));
    }
    return programs;
}

Status claim_memory(memory::Pool& pool, PoolOwner from, PoolOwner heir, Legacy& legacy) {
    std::set<std::uint64_t> tags;
    for (const Inherited& known : legacy.programs) {
        tags.insert(known.tag);
    }
    // Before the first claim: if one fails, the next call still knows which programs came along.
    for (Inherited& program : GODWIT_TRY(programs_of(pool, from))) {
        if (tags.insert(program.tag).second) {
            legacy.programs.push_back(std::move(program));
        }
    }
    for (const Extent& extent : GODWIT_TRY(pool.table().snapshot())) {
        if (extent.owner == from) {
            legacy.claimed.push_back(GODWIT_TRY(pool.table().claim(extent, heir)));
            fault_point("partition.inherit.claim");
        }
    }
    legacy.programs = GODWIT_TRY(programs_of(pool, heir));
    std::erase_if(legacy.programs,
                  [&](const Inherited& program) { return !tags.contains(program.tag); });
    return ok();
}

Status scrub_memory(memory::Pool& pool, Legacy& legacy) {
    const auto has_program = [&](std::uint64_t tag) {
        return std::ranges::find(legacy.programs, tag, &Inherited::tag) != legacy.programs.end();
    };
    std::vector<Extent> own;
    for (const Extent& extent : legacy.claimed) {
        const Purpose purpose = extent.label.purpose;
        const bool is_orphan = purpose == Purpose::instance ||
                               (purpose == Purpose::state && !has_program(extent.label.tag));
        if (!pool.table().check_current(extent).has_value()) {
            continue; // Freed by a call before.
        }
        if (is_orphan) {
            own.push_back(extent);
        } else if (purpose == Purpose::free) {
            GODWIT_TRY(pool.scrub(extent.run));
        }
        legacy.frames_scrubbed += is_orphan || purpose == Purpose::free ? extent.run.frames : 0;
    }
    return pool.free(own);
}

Status claim_tokens(Region& region, InstanceId from, InstanceId heir, Legacy& legacy) {
    for (std::size_t slot = 0; slot < Region::programs_max; ++slot) {
        const MaybeOwnership now = region.program_owner(slot);
        if (now.has_value() && now->owner == from) {
            GODWIT_TRY(region.claim_program(slot, *now, heir));
        }
    }
    for (const std::uint32_t cpu : region.cpus_of(from)) {
        if (const MaybeOwnership now = region.cpu_owner(cpu);
            now.has_value() && now->owner == from) {
            GODWIT_TRY(region.claim_cpu(cpu, *now, heir));
            legacy.cpus.push_back(cpu);
        }
    }
    return ok();
}

} // namespace godwit::exchange::partition
