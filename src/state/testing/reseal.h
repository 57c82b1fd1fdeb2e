#pragma once

/// For tests and fuzzing of the reader behind the checksums: makes the checksums of a damaged saved
/// state right again. A value; any thread.

#include <string>

namespace godwit::state::testing {

/// Walks the framing of docs/formats/saved-state.md as far as it goes and rewrites each section's
/// checksum, then the last eight bytes as the trailer. Framing that leads nowhere ends the walk.
void reseal(std::string& bytes);

} // namespace godwit::state::testing
