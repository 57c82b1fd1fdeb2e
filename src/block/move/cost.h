#pragma once

/// What a move costs: `MC = Ltime * (g * Lwear + (1 - g) * Lio)` (HS, migration cost; HS-6). Pure
/// functions of numbers; any thread. The definitions of the three parts are ours:
///
/// - Ltime = duration / ideal, ideal = disk / min(read rate of the source, write rate of the
///   destination);
/// - Lwear = bytes written to devices that wear while the move goes on, weighted, / disk;
/// - Lio = (best - during) / best, where performance is the inverse of the guest's mean latency,
///   and best is that of the faster device without a move. At most 1, at least 0.

#include <algorithm>
#include <cstdint>

namespace godwit::block {

/// What a device does, measured or from a profile.
struct DeviceSpeed {
    double read_bytes_per_second = 1e9;
    double write_bytes_per_second = 1e9;
    double read_operation_seconds = 0; ///< That one small read keeps others back.
    double write_operation_seconds = 0;
    double read_latency_seconds = 0; ///< Of one small read alone.
    double write_latency_seconds = 0;
    double wear_weight = 0; ///< 0 for what does not wear.
};

struct CostParts {
    double time = 0;
    double wear = 0;
    double io = 0;
};

/// `gamma` 0 thinks of users alone, 1 of the devices' wear.
[[nodiscard]] constexpr double migration_cost(const CostParts& parts, double gamma) noexcept {
    return parts.time * (gamma * parts.wear + (1 - gamma) * parts.io);
}

[[nodiscard]] constexpr double ideal_seconds(std::uint64_t disk_bytes,
                                             const DeviceSpeed& source,
                                             const DeviceSpeed& destination) noexcept {
    return static_cast<double>(disk_bytes) /
           std::min(source.read_bytes_per_second, destination.write_bytes_per_second);
}

/// What a move did, as estimated or as measured.
struct MoveBill {
    double seconds = 0;
    double source_written_bytes = 0;
    double destination_written_bytes = 0;
    double guest_latency_seconds = 0;      ///< Mean, during the move.
    double best_guest_latency_seconds = 0; ///< Of the faster device, without a move.
};

[[nodiscard]] constexpr CostParts parts_of(const MoveBill& bill,
                                           std::uint64_t disk_bytes,
                                           const DeviceSpeed& source,
                                           const DeviceSpeed& destination) noexcept {
    const double worn = bill.source_written_bytes * source.wear_weight +
                        bill.destination_written_bytes * destination.wear_weight;
    const double io = bill.guest_latency_seconds <= 0
                          ? 0
                          : 1 - bill.best_guest_latency_seconds / bill.guest_latency_seconds;
    return {.time = bill.seconds / ideal_seconds(disk_bytes, source, destination),
            .wear = worn / static_cast<double>(disk_bytes),
            .io = std::clamp(io, 0.0, 1.0)};
}

} // namespace godwit::block
