#include "state/section_check.h"

#include <algorithm>

namespace godwit::state {

Status check_version(const SectionType& type, std::uint32_t version) {
    if (version >= 1 && version <= type.version) {
        return ok();
    }
    return Error(ErrorCode::unsupported,
                 "saved section '" + std::string(type.name) + "' has version " +
                     std::to_string(version) + ", this build reads up to " +
                     std::to_string(type.version) +
                     ": use a build at least as new as the one that wrote it");
}

Status check_readable(std::span<const SectionType> known, const AnnouncedSection& section) {
    const auto type = std::ranges::find(known, section.name, &SectionType::name);
    if (type != known.end()) {
        return check_version(*type, section.version);
    }
    if (!section.required) {
        return ok();
    }
    return Error(ErrorCode::unsupported,
                 "saved section '" + std::string(section.name) + "' version " +
                     std::to_string(section.version) +
                     " is not known to this build: use a build at least as new as the one that "
                     "wrote it");
}

} // namespace godwit::state
