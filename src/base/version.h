#pragma once

/// What this binary is: its version and the ELF build id the linker gave it. Any thread.

#include <string_view>

namespace godwit {

/// "0.1.0", or with a label "0.1.0+label".
[[nodiscard]] std::string_view version() noexcept;
/// The build id as lower-case hex; "none" if the binary was linked without one.
[[nodiscard]] std::string_view build_id() noexcept;

} // namespace godwit
