#pragma once

/// Many disks that move over devices they share: in which order, how many at a time, and each by
/// which scheme, so that the sum of their costs is least (HS-7). Pure functions of numbers; any
/// thread. Takes a tenth of a second at most, whatever the number of disks.
///
/// The forecast is a fluid one (forecast.h). The search begins with the best plan by a single
/// scheme and changes one thing at a time as long as that makes it better, so that its outcome is
/// never worse than the best single scheme's.

#include "block/move/estimate.h"
#include "block/plan/forecast.h"

#include <array>
#include <optional>
#include <vector>

namespace godwit::block {

inline constexpr std::size_t plan_disks_max = 256;
inline constexpr std::size_t plan_devices_max = 64;
/// Of moves at one device.
inline constexpr std::uint32_t plan_at_once_max = 8;

struct MovePlan {
    MoveOrder order;
    std::vector<Scheme> schemes; ///< By disk.
    Forecast forecast;
    struct Single {
        Scheme scheme = Scheme::slr;
        MoveOrder order;
        Forecast forecast;
    };
    /// What each scheme alone would cost, planned in the same way.
    std::vector<Single> singles;
};

/// invalid_argument beyond the limits, or for a disk at a device that is none.
[[nodiscard]] Result<MovePlan> plan_moves(const PlanSituation& situation);

/// By which plans are compared; less is better. Half the time is worth a twentieth of the cost.
[[nodiscard]] double worth_of(const Forecast& forecast) noexcept;

} // namespace godwit::block
