#pragma once

/// Golden sections: what builds of the past have written, kept under tests/compat/golden/<section>/
/// as 1.bin, 2.bin, ...; each holds one saved state with one section. A unit proves with them that
/// it still reads everything and writes what it says it writes.
///
///     tests/compat/add_goldens         adds what is new; never overwrites (GODWIT_ADD_GOLDENS=1)
///
/// For tests; one thread.

#include "base/result.h"
#include "state/state_unit.h"

#include <functional>
#include <string>
#include <vector>

namespace godwit::state::testing {

inline constexpr std::size_t goldens_max = 1000;

/// All of a section type, oldest first; an error if one cannot be read.
[[nodiscard]] Result<std::vector<Section>> read_goldens(const SectionType& type);

/// Loads a section into a freshly made unit and saves it again.
using Resave = std::function<Result<Section>(const Section&)>;

/// What is wrong, empty if nothing is. `canonical` is a section of a unit with a state in which
/// every field says something. The newest golden must equal it; every golden must load; the newest
/// must be saved again as it is, older ones as something that is loaded and saved again as it is.
[[nodiscard]] std::string check_goldens(const Section& canonical, const Resave& resave);

} // namespace godwit::state::testing
