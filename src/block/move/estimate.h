#pragma once

/// What each scheme would cost for a disk, its guest and two devices, and which is best ("auto").
/// Pure functions of numbers (HS-6, HS-7); any thread. The model is a fluid one: the copier gets of
/// each device what the guest leaves, the guest waits for the transfers of the copier before it.

#include "block/decorate/device_profile.h"
#include "block/move/cost.h"
#include "block/move/guest_path.h"
#include "block/move/guest_shares.h"
#include "block/move/scheme.h"

#include <array>
#include <optional>
#include <span>
#include <string>

namespace godwit::block {

/// Between two looks at a disk's traffic.
[[nodiscard]] Workload workload_between(const GuestTraffic& before,
                                        const GuestTraffic& after,
                                        sys::Nanoseconds passed,
                                        const HotFilter* filter);

[[nodiscard]] DeviceSpeed speed_of(const DeviceProfile& profile);

/// What a move has of devices that others use as well.
struct DeviceSharing {
    double copy_bytes_per_second = 0; ///< Of its copier, at most.
    double source_wait_seconds = 0; ///< Before a request of its guest, for all copiers and guests.
    double destination_wait_seconds = 0;
};

struct MoveSituation {
    std::uint64_t disk_bytes = 0;
    DeviceSpeed source;
    DeviceSpeed destination;
    Workload workload;
    double gamma = 0.5;
    std::uint64_t threshold_bytes = std::uint64_t{1} << 20U;
    std::uint64_t limit_bytes_per_second = 0;
    std::uint32_t chunk_bytes = 256 * 1024;
    std::uint32_t depth = 8;
    /// lr is left out unless the destination's loss may be the disk's.
    bool allows_lr = true;
    std::optional<DeviceSharing> sharing{}; ///< Nothing: the devices are the move's alone.
};

struct SchemeEstimate {
    Scheme scheme = Scheme::slr;
    MoveBill bill;
    double redundant_bytes = 0;
    double pause_seconds = 0;
    CostParts parts;
    double cost = 0;
    bool ends = true; ///< Passes come to an end without turning into mirroring.
};

[[nodiscard]] SchemeEstimate estimate(const MoveSituation& situation, Scheme scheme);
using Estimates = std::array<SchemeEstimate, all_schemes.size()>;
[[nodiscard]] Estimates estimate_all(const MoveSituation& situation);

struct SchemeChoice {
    Scheme scheme = Scheme::slr;
    std::string why; ///< One line for people: the winner, its parts, the runner-up.
};
[[nodiscard]] SchemeChoice choose(const Estimates& estimates, const MoveSituation& situation);

/// Whether a move may change from one scheme to the other on its way.
[[nodiscard]] bool may_change(Scheme from, Scheme to) noexcept;
/// The scheme to change to when what is measured now contradicts the choice: one that may be
/// changed to and costs at least a fifth less; nothing if there is none.
[[nodiscard]] std::optional<Scheme> reconsider(Scheme now, const Estimates& estimates) noexcept;

} // namespace godwit::block
