#pragma once

/// Which part of a guest's requests each device gets, and how much of a device's time they take.
/// For estimates; values and pure functions, any thread.

#include "block/move/cost.h"
#include "block/move/scheme.h"

namespace godwit::block {

/// What the guest does, per second.
struct Workload {
    double reads = 0;
    double read_bytes = 0;
    double writes = 0;
    double written_bytes = 0;
    double working_set_bytes = 0; ///< That its writes go to; 0: the whole disk.
    double hot_bytes = 0;         ///< Of it, written again and again.
    double hot_share = 0;         ///< Of the writes that go there, 0..1.
};

/// Of its reads and writes, on average while a scheme is at work.
struct GuestShares {
    double source_reads = 1;
    double source_writes = 1;
    double destination_reads = 0;
    double destination_writes = 0;
};

inline constexpr GuestShares shares_before_move{};
inline constexpr GuestShares shares_after_move{
    .source_reads = 0, .source_writes = 0, .destination_reads = 1, .destination_writes = 1};

[[nodiscard]] constexpr GuestShares shares_of(Scheme scheme,
                                              bool destination_reads_faster) noexcept {
    switch (scheme) {
    case Scheme::dbt:
    case Scheme::slr:
    case Scheme::tiered:
        return {};
    case Scheme::mirror:
        return {.destination_writes = 0.5};
    case Scheme::aio:
        return destination_reads_faster ? GuestShares{.source_reads = 0.5,
                                                      .destination_reads = 0.5,
                                                      .destination_writes = 0.5}
                                        : GuestShares{.destination_writes = 0.5};
    case Scheme::lr:
        return {.source_reads = 0.5,
                .source_writes = 0,
                .destination_reads = 0.5,
                .destination_writes = 1};
    }
    return {};
}

/// Which part of a device's time a guest's requests take.
[[nodiscard]] constexpr double guest_use(const DeviceSpeed& device,
                                         const Workload& load,
                                         double reads_share,
                                         double writes_share) noexcept {
    return reads_share * (load.reads * device.read_operation_seconds +
                          load.read_bytes / device.read_bytes_per_second) +
           writes_share * (load.writes * device.write_operation_seconds +
                           load.written_bytes / device.write_bytes_per_second);
}

/// Of a device's time, for copying: the guest waits its turn as the copier does.
inline constexpr double copier_time_min = 0.3;

} // namespace godwit::block
