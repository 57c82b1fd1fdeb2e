#pragma once

/// A protobuf message as a saved section and back. Templates, so that no generated header is needed
/// here; used by the sources that include one.

#include "base/result.h"
#include "state/section_check.h"
#include "state/state_unit.h"

namespace godwit::state {

/// A required section of the newest version.
template <typename Message>
[[nodiscard]] Section
encode_section(const SectionType& type, std::uint32_t instance, const Message& message) {
    Section section;
    section.id = type.id(instance);
    section.version = type.version;
    message.SerializeToString(&section.payload);
    return section;
}

[[nodiscard]] inline Error bad_section(const Section& section, std::string_view what) {
    return Error(ErrorCode::corrupt,
                 "section " + section.id.to_string() + ": " + std::string(what));
}

/// unsupported if the version is newer than `type`'s, corrupt if the payload is not such a message;
/// both name the section. Values are for the caller to check.
template <typename Message>
[[nodiscard]] Result<Message> decode_section(const SectionType& type, const Section& section) {
    GODWIT_TRY(check_version(type, section.version));
    Message message;
    if (!message.ParseFromString(section.payload)) {
        return bad_section(section, "it is not a message of its kind");
    }
    return message;
}

} // namespace godwit::state
