#pragma once

/// A look at a delta that no machine uses: `godwit disk check`. Changes nothing. Any thread; waits
/// for storage.

#include "base/result.h"

#include <string>

namespace godwit::machine {

struct DeltaReport {
    bool good = false;
    /// One JSON object: `findings` (level "error", "warning" or "note", and text), and what the
    /// header says.
    std::string json;
};

/// `base`: the image it is to fit; empty: none. An error if it cannot be looked at, busy if a
/// machine has it.
[[nodiscard]] Result<DeltaReport> check_delta_file(const std::string& path,
                                                   const std::string& base);

} // namespace godwit::machine
