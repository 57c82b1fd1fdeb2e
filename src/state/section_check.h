#pragma once

/// Whether a build can read what another one wrote: the same or a newer build reads older sections,
/// nobody reads newer ones. Pure functions; errors name the section and say what to do.

#include "base/result.h"
#include "state/state_unit.h"

#include <cstdint>
#include <span>
#include <string_view>

namespace godwit::state {

/// A section as somebody announces it, before it is there.
struct AnnouncedSection {
    std::string_view name;
    std::uint32_t version = 0;
    bool required = true;
};

/// unsupported unless version is 1 to `type.version`.
[[nodiscard]] Status check_version(const SectionType& type, std::uint32_t version);
/// unsupported if `known` lacks the section and it is required, or has an older version of it.
[[nodiscard]] Status check_readable(std::span<const SectionType> known,
                                    const AnnouncedSection& section);

} // namespace godwit::state
