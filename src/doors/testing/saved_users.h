#pragma once

/// Users of an export as a predecessor hands them over, for tests and fuzzing of those who read
/// them: a front end with two rings and two regions of memory, and two NBD clients. Values.

#include "doors/exchange/export_state.h"

namespace godwit::doors::testing {

inline constexpr std::uint64_t saved_region_bytes = 64ULL << 10U;

[[nodiscard]] exchange::Users saved_users();
/// The descriptors alone that go over with such users.
[[nodiscard]] sys::FdManifest descriptors_for(exchange::Users users);

} // namespace godwit::doors::testing
