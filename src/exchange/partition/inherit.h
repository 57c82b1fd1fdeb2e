#pragma once

/// Takes everything over that an instance has left whose end is proven: by the partition map, not
/// by what it said. Both sides use it: the new one for the estate, the old one when the new one has
/// died. Calling it again goes on where it stopped. Owner thread only.

#include "exchange/partition/region.h"
#include "memory/pool/pool.h"

#include <cstdint>
#include <vector>

namespace godwit::exchange::partition {

/// A program found in the frames of a dead instance.
struct Inherited {
    std::uint64_t tag = 0;
    memory::Purpose purpose = memory::Purpose::program;
    std::vector<memory::Extent> memory; ///< The heir's now, in order of position, bytes untouched.
    std::vector<memory::Extent> state;  ///< What had been saved of it, if anything.
};

struct Legacy {
    std::vector<Inherited> programs;     ///< Those of which the dead instance had at least a part.
    std::vector<memory::Extent> claimed; ///< Everything, as it was right after its claim.
    std::uint64_t frames_scrubbed = 0;   ///< What belonged to no program.
    std::vector<std::uint32_t> cpus;
};

/// Claims each extent `from` still owns for `heir`, and adds to `legacy`. Programs' bytes are left
/// as they are.
[[nodiscard]] Status
claim_memory(memory::Pool& pool, memory::PoolOwner from, memory::PoolOwner heir, Legacy& legacy);
/// Gives the bytes of what was claimed and belongs to no program back to the host: the dead
/// instance's own memory, its free frames, state of programs that are gone. All of it becomes free.
[[nodiscard]] Status scrub_memory(memory::Pool& pool, Legacy& legacy);
/// Claims programs' words and CPU tokens of `from`.
[[nodiscard]] Status claim_tokens(Region& region, InstanceId from, InstanceId heir, Legacy& legacy);

/// What `owner` holds of programs, by tag.
[[nodiscard]] Result<std::vector<Inherited>> programs_of(const memory::Pool& pool,
                                                         memory::PoolOwner owner);

} // namespace godwit::exchange::partition
