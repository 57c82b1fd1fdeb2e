#pragma once

/// A protobuf message as a saved section and back. Templates, so that no generated header is needed
/// here; used by the sources that include one.

#include "base/result.h"
#include "state/state_unit.h"

namespace godwit::machine {

template <typename Message>
[[nodiscard]] state::Section encode_section(const state::SectionId& id, const Message& message) {
    state::Section section;
    section.id = id;
    message.SerializeToString(&section.payload);
    return section;
}

/// corrupt, naming the section, if the payload is not such a message.
template <typename Message>
[[nodiscard]] Result<Message> decode_section(const state::Section& section) {
    Message message;
    if (section.version != 1) {
        return Error(ErrorCode::unsupported,
                     "section " + section.id.to_string() + " has version " +
                         std::to_string(section.version) + ", this build reads 1");
    }
    if (!message.ParseFromString(section.payload)) {
        return Error(ErrorCode::corrupt, "section " + section.id.to_string() + " is malformed");
    }
    return message;
}

[[nodiscard]] inline Error bad_section(const state::Section& section, std::string_view what) {
    return Error(ErrorCode::corrupt,
                 "section " + section.id.to_string() + ": " + std::string(what));
}

} // namespace godwit::machine
