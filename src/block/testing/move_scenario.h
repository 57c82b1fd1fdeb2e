#pragma once

/// One simulation of a disk that is moved while a guest uses it, all from one seed: scheme and
/// options, speeds of both devices, failures, a cancel or a power cut at any step. The same seed
/// gives the same run.
///
/// What must hold: every read is right (BlockOracle); at the switch the destination has everything,
/// durable if it was flushed, and equals the source unless the scheme leaves it behind; after a
/// cancel the source has; after a power cut the side that counts has what was durable; every byte
/// written to a device is accounted for; lr writes nothing twice; nothing hangs.

#include "block/move/move_report.h"

#include <cstdint>
#include <optional>
#include <string>

namespace godwit::block::testing {

struct MoveScenarioResult {
    std::string violation; ///< Empty if everything held.
    std::string story;     ///< What the seed chose, for people.
    std::uint64_t steps = 0;
    bool crashed = false;
    std::optional<MoveOutcome> outcome; ///< Nothing: the power was cut before.
};

[[nodiscard]] MoveScenarioResult run_move_scenario(std::uint64_t seed);

} // namespace godwit::block::testing
