#pragma once

/// Lets an executable differ in its saved state from the version it is made of, so that tests can
/// exchange machines between builds that do not write the same. Programs that are installed
/// do not: the two symbols in the source are empty unless an executable defines them
/// (apps/godwit-vmm). Any thread.

#include "state/saved_state.h"

namespace godwit::state {

/// `type`, one version newer if this executable is to be ahead in this section.
[[nodiscard]] SectionType on_trial(SectionType type) noexcept;
/// Adds an optional section that no version knows, if this executable is to have one.
[[nodiscard]] Status add_trial_section(SavedState& state);

} // namespace godwit::state
