#pragma once

/// The machine document as godwitd sees it: checked by the machine's own reader, with an identity
/// and every default written out. Values; any thread.

#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace godwit::control {

struct MachineDocument {
    std::string name;
    std::string id; ///< UUID text.
    std::uint32_t vcpus = 1;
    std::uint64_t memory_bytes = 0;
    std::string json; ///< The whole document.
};

/// Reads a document; makes an id if it has none. Errors name the JSON path and the value.
[[nodiscard]] Result<MachineDocument> read_machine_document(std::string_view json);
/// The same machine under another name with an id of its own.
[[nodiscard]] Result<MachineDocument> renamed_machine_document(std::string_view json,
                                                               std::string_view name);
/// A random (version 4) UUID.
[[nodiscard]] Result<std::string> fresh_uuid();

} // namespace godwit::control
