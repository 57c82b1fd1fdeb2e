#pragma once

/// For tests: a disk that moves between two simulated ones with fault injectors on them, and
/// requests to it. Owner thread only.

#include "block/decorate/fault_device.h"
#include "block/move/moving_device.h"
#include "block/testing/perform.h"
#include "block/testing/simulated_disk.h"

#include <cstdint>
#include <memory>
#include <optional>

namespace godwit::block::testing {

inline constexpr std::uint32_t moving_block_bytes = 512;
inline constexpr std::uint64_t moving_disk_bytes = 256 * 1024;
inline constexpr std::uint64_t moving_blocks = moving_disk_bytes / moving_block_bytes;

/// What each byte of a block of the source is at the beginning.
[[nodiscard]] constexpr std::byte original(std::uint64_t block) {
    return static_cast<std::byte>((block + 1) % 256);
}
/// What requests write.
inline constexpr std::byte written{0xa5};

[[nodiscard]] inline std::byte first_byte_of(const Medium& medium, std::uint64_t block) {
    return medium.current[block * moving_block_bytes];
}

struct MovingWorld {
    SimulatedTime time{1};
    Medium source{moving_disk_bytes};
    Medium destination{moving_disk_bytes};
    SimulatedDisk* source_disk = nullptr;
    FaultDevice* source_faults = nullptr;
    FaultDevice* destination_faults = nullptr;
    std::unique_ptr<MovingDevice> device;
    std::optional<MoveReport> report;

    MovingWorld();
    [[nodiscard]] std::unique_ptr<SimulatedDisk> disk(Medium& medium);
    /// A disk on `medium` that fails as it is told.
    [[nodiscard]] std::unique_ptr<FaultDevice> faulty(Medium& medium) {
        return faulty(disk(medium));
    }
    [[nodiscard]] std::unique_ptr<FaultDevice> faulty(std::unique_ptr<SimulatedDisk> disk);
    /// Begins a move to `destination`, two ranges of 16 blocks at a time; its end goes to `report`.
    [[nodiscard]] Status start(MoveOptions options, MoveHooks hooks = {});
    /// Until the cursor has come to a block, or the move is over.
    void run_to(std::uint64_t block);
    /// Until `report` is there.
    void run_to_end();
};

/// Of whole blocks.
struct MovingRequest : SingleRequest {
    MovingRequest(BlockOperation operation,
                  std::uint64_t first,
                  std::uint64_t count,
                  std::byte fill = written)
        : SingleRequest(operation, first * moving_block_bytes, count * moving_block_bytes, fill) {}
    void submit(MovingWorld& world);
    /// To its end; whether it succeeded.
    bool run(MovingWorld& world);
};

} // namespace godwit::block::testing
