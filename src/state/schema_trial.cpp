#include "state/schema_trial.h"

// Not const: the compiler would take the empty texts for the only ones (as in base/version.cpp).
extern "C" {
__attribute__((weak)) const char* godwit_trial_newer_section = "";
__attribute__((weak)) const char* godwit_trial_optional_section = "";
}

namespace godwit::state {

SectionType on_trial(SectionType type) noexcept {
    if (type.name == godwit_trial_newer_section) {
        ++type.version;
    }
    return type;
}

Status add_trial_section(SavedState& state) {
    const std::string name = godwit_trial_optional_section;
    if (name.empty()) {
        return ok();
    }
    return state.add({.id = {.name = name, .instance = 0},
                      .version = 1,
                      .required = false,
                      .payload = "what a later version may want to keep"});
}

} // namespace godwit::state
