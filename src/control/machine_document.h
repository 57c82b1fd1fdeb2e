#pragma once

/// The machine document as godwitd sees it: checked by the machine's own reader, with an identity
/// and every default written out. Values; any thread.

#include "base/result.h"
#include "memory/ram.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::control {

struct MachineDocument {
    std::string name;
    std::string id; ///< UUID text.
    std::uint32_t vcpus = 1;
    std::uint64_t memory_bytes = 0;
    std::string json; ///< The whole document.
    /// Its RAM lies in the host's memory pool: in these runs, or nowhere yet.
    bool in_pool = false;
    std::vector<memory::PoolRun> runs{};
};

/// Reads a document; makes an id if it has none. Errors name the JSON path and the value.
[[nodiscard]] Result<MachineDocument> read_machine_document(std::string_view json);
/// The same machine under another name with an id of its own.
[[nodiscard]] Result<MachineDocument> renamed_machine_document(std::string_view json,
                                                               std::string_view name);
/// The same machine with its RAM in these runs of the host's memory pool; none: without a place.
[[nodiscard]] Result<MachineDocument> placed_machine_document(std::string_view json,
                                                              std::vector<memory::PoolRun> runs);
/// A random (version 4) UUID.
[[nodiscard]] Result<std::string> fresh_uuid();

} // namespace godwit::control
