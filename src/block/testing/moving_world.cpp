#include "block/testing/moving_world.h"

#include <utility>

namespace godwit::block::testing {

MovingWorld::MovingWorld() {
    for (std::uint64_t i = 0; i < moving_disk_bytes; ++i) {
        source.current[i] = original(i / moving_block_bytes);
    }
    source.durable = source.current;
    auto simulated = disk(source);
    source_disk = simulated.get();
    auto faults = faulty(std::move(simulated));
    source_faults = faults.get();
    device = GODWIT_MUST(MovingDevice::create(std::move(faults), time)); // Simulated alarms.
}

std::unique_ptr<SimulatedDisk> MovingWorld::disk(Medium& medium) {
    return std::make_unique<SimulatedDisk>(
        medium,
        time,
        SimulatedDiskOptions{.latency_min = sys::Nanoseconds(1000),
                             .latency_max = sys::Nanoseconds(1000)});
}

std::unique_ptr<FaultDevice> MovingWorld::faulty(std::unique_ptr<SimulatedDisk> disk) {
    return GODWIT_MUST(FaultDevice::create(std::move(disk), time)); // Simulated alarms.
}

Status MovingWorld::start(MoveOptions options, MoveHooks hooks) {
    auto faults = faulty(destination);
    destination_faults = faults.get();
    options.chunk_bytes = 16 * moving_block_bytes;
    options.depth = 2;
    hooks.finished = [this](const MoveReport& result) { report = result; };
    return device->start(std::move(faults), options, std::move(hooks));
}

void MovingWorld::run_to(std::uint64_t block) {
    while (device->moving() && device->progress()->cursor_bytes < block * moving_block_bytes) {
        GODWIT_ASSERT(time.step());
    }
}

void MovingWorld::run_to_end() {
    while (!report.has_value()) {
        GODWIT_ASSERT(time.step());
    }
}

void MovingRequest::submit(MovingWorld& world) {
    world.device->submit(block);
    world.device->kick();
}

bool MovingRequest::run(MovingWorld& world) {
    submit(world);
    while (!outcome.has_value()) {
        GODWIT_ASSERT(world.time.step());
    }
    return outcome->has_value();
}

} // namespace godwit::block::testing
