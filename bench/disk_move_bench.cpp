// What each scheme of moving a disk costs: one cell of scheme x device pair x workload, in
// simulated time over device profiles, so that it gives the same numbers everywhere (HS-10).
// bench/disk_move.py makes the table.
//
//     disk_move_bench SOURCE.profile DESTINATION.profile WORKLOAD MIB SEED
//
// Prints one JSON line per scheme: time, latencies, bytes by device and class, and the cost at five
// gammas; then one with what "auto" would take for each gamma from measured speeds: where lr is
// allowed, and safe, without it.
#include "block/decorate/throttle_device.h"
#include "block/move/estimate.h"
#include "block/move/moving_device.h"
#include "block/move/speed_probe.h"
#include "block/testing/simulated_disk.h"
#include "simulated_guest.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

using namespace godwit;
using namespace godwit::block;
using namespace godwit::bench;

constexpr std::array gammas{0.0, 0.25, 0.5, 0.75, 1.0};
constexpr std::uint64_t warm_requests = 400;

std::unique_ptr<BlockDevice>
open_disk(testing::Medium& medium, testing::SimulatedTime& time, const DeviceProfile& profile) {
    auto disk = std::make_unique<testing::SimulatedDisk>(
        medium,
        time,
        testing::SimulatedDiskOptions{.latency_min = sys::Nanoseconds(1),
                                      .latency_max = sys::Nanoseconds(1),
                                      .block_bytes = 4096});
    return GODWIT_MUST(ThrottleDevice::create(std::move(disk), time, profile)); // Simulated alarms.
}

struct Cell {
    DeviceProfile source;
    DeviceProfile destination;
    const Shape* shape = nullptr;
    std::uint64_t bytes = 0;
    std::uint64_t seed = 0;
    /// Of the faster device, without a move.
    double best_latency = 0;
};

double latency_alone(const Cell& cell, const DeviceProfile& profile) {
    testing::SimulatedTime time(cell.seed);
    testing::Medium medium(cell.bytes);
    const auto disk = open_disk(medium, time, profile);
    Guest guest(*disk, time, *cell.shape);
    while (guest.latencies().size() < 2 * warm_requests) {
        GODWIT_ASSERT(time.step());
    }
    guest.stop();
    return mean(guest.latencies());
}

struct Measured {
    MoveReport report;
    double mean_latency = 0;
    double p99_latency = 0;
    std::size_t requests = 0; ///< Of the guest's, while it moved.
    std::array<double, gammas.size()> costs{};
};

Measured run_scheme(const Cell& cell, Scheme scheme) {
    testing::SimulatedTime time(cell.seed);
    testing::Medium source(cell.bytes);
    testing::Medium destination(cell.bytes);
    std::ranges::fill(source.current, std::byte{0x11}); // No zeros, which would be skipped.
    auto device = GODWIT_MUST(MovingDevice::create(     // Simulated alarms.
        open_disk(source, time, cell.source),
        time));
    GODWIT_MUST(device->observe({})); // Valid options.
    Guest guest(*device, time, *cell.shape);
    while (guest.latencies().size() < warm_requests) {
        GODWIT_ASSERT(time.step());
    }
    guest.begin_measuring();
    std::optional<MoveReport> report;
    MoveHooks hooks;
    hooks.finished = [&](const MoveReport& result) { report = result; };
    const bool fast_destination = cell.destination.read.seek < cell.source.read.seek;
    GODWIT_MUST(device->start( // The same size.
        open_disk(destination, time, cell.destination),
        {.scheme = scheme,
         .reads_from_destination = fast_destination,
         .threshold_bytes = std::uint64_t{256} * 1024,
         .depth = 4},
        std::move(hooks)));
    while (!report.has_value()) {
        GODWIT_ASSERT(time.step());
    }
    guest.stop();
    Measured measured{.report = *report,
                      .mean_latency = mean(guest.latencies()),
                      .p99_latency = percentile_99(guest.latencies()),
                      .requests = guest.latencies().size()};
    const MoveBill bill{
        .seconds = std::chrono::duration<double>(report->duration).count(),
        .source_written_bytes = static_cast<double>(report->counters.source.total()),
        .destination_written_bytes = static_cast<double>(report->counters.destination.total()),
        .guest_latency_seconds = measured.mean_latency,
        .best_guest_latency_seconds = cell.best_latency};
    const CostParts parts =
        parts_of(bill, cell.bytes, speed_of(cell.source), speed_of(cell.destination));
    for (std::size_t i = 0; i < gammas.size(); ++i) {
        measured.costs[i] = migration_cost(parts, gammas[i]);
    }
    return measured;
}

DeviceSpeed probe(const Cell& cell, const DeviceProfile& profile) {
    testing::SimulatedTime time(cell.seed);
    testing::Medium medium(cell.bytes);
    const auto disk = open_disk(medium, time, profile);
    SpeedProbe measuring(*disk, time, SpeedProbe::May::read_and_write);
    std::optional<DeviceSpeed> found;
    measuring.start([&](Result<DeviceSpeed> speed) { found = GODWIT_MUST(std::move(speed)); }); // -
    while (!found.has_value()) {
        GODWIT_ASSERT(time.step());
    }
    found->wear_weight = profile.wear_thousandths / 1000.0;
    return *found;
}

/// What "auto" knows before the move: measured speeds, and the guest watched for a while.
MoveSituation observe(const Cell& cell) {
    testing::SimulatedTime time(cell.seed + 1);
    testing::Medium medium(cell.bytes);
    auto device = GODWIT_MUST( // Simulated alarms.
        MovingDevice::create(open_disk(medium, time, cell.source), time));
    GODWIT_MUST(device->observe({})); // Valid options.
    Guest guest(*device, time, *cell.shape);
    const sys::Moment start = time.now();
    while (guest.latencies().size() < warm_requests) {
        GODWIT_ASSERT(time.step());
    }
    guest.stop();
    return {.disk_bytes = cell.bytes,
            .source = probe(cell, cell.source),
            .destination = probe(cell, cell.destination),
            .workload =
                workload_between({}, device->traffic(), time.now() - start, device->observed()),
            .threshold_bytes = std::uint64_t{256} * 1024,
            .depth = 4};
}

void print(std::string_view key, const std::array<double, gammas.size()>& values) {
    std::printf("\"%.*s\": [", static_cast<int>(key.size()), key.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
        std::printf("%s%.4f", i == 0 ? "" : ", ", values[i]);
    }
    std::printf("]");
}

void print_choices(MoveSituation situation) {
    for (std::size_t i = 0; i < gammas.size(); ++i) {
        situation.gamma = gammas[i];
        const SchemeChoice choice = choose(estimate_all(situation), situation);
        std::printf("%s{\"gamma\": %.2f, \"scheme\": \"%s\", \"why\": \"%s\"}",
                    i == 0 ? "" : ", ",
                    gammas[i],
                    std::string(name_of(choice.scheme)).c_str(),
                    choice.why.c_str());
    }
}

void run_cell(const Cell& cell) {
    for (const Scheme scheme : all_schemes) {
        const Measured measured = run_scheme(cell, scheme);
        const MoveCounters& bytes = measured.report.counters;
        std::printf(
            "{\"scheme\": \"%s\", \"ended_as\": \"%s\", \"seconds\": %.4f, \"mean_ms\": %.3f, "
            "\"p99_ms\": %.3f, \"requests\": %zu, \"pause_ms\": %.3f, \"source_guest\": %lu, "
            "\"source_redundant\": %lu, \"destination_guest\": %lu, \"first_copy\": %lu, "
            "\"destination_redundant\": %lu, \"passes\": %zu, \"tracking_bytes\": %lu, ",
            std::string(name_of(scheme)).c_str(),
            std::string(name_of(measured.report.ended_as)).c_str(),
            std::chrono::duration<double>(measured.report.duration).count(),
            measured.mean_latency * 1e3,
            measured.p99_latency * 1e3,
            measured.requests,
            std::chrono::duration<double, std::milli>(measured.report.pause).count(),
            bytes.source.guest,
            bytes.source.redundant,
            bytes.destination.guest,
            bytes.destination.first_copy,
            bytes.destination.redundant,
            measured.report.passes.size(),
            measured.report.tracking_bytes);
        print("cost", measured.costs);
        std::printf("}\n");
    }
    MoveSituation situation = observe(cell);
    const char* between = "{";
    for (const auto& [key, allows_lr] : {std::pair("auto", true), std::pair("auto_safe", false)}) {
        std::printf("%s\"%s\": [", between, key);
        situation.allows_lr = allows_lr;
        print_choices(situation);
        std::printf("]");
        between = ", ";
    }
    std::printf("}\n");
}

Result<Cell> parse(char** argv) {
    Cell cell{.source = GODWIT_TRY(load_profile(argv[1])),
              .destination = GODWIT_TRY(load_profile(argv[2]))};
    const auto* const shape = std::ranges::find(shapes, std::string_view(argv[3]), &Shape::name);
    if (shape == shapes.end()) {
        return Error(ErrorCode::invalid_argument, "no workload of that name");
    }
    cell.shape = shape;
    std::uint64_t mebibytes = 0;
    for (auto [text, value] : {std::pair(argv[4], &mebibytes), std::pair(argv[5], &cell.seed)}) {
        if (std::from_chars(text, text + std::strlen(text), *value).ec != std::errc()) {
            return Error(ErrorCode::invalid_argument, "sizes and seeds are numbers");
        }
    }
    if (mebibytes < 4 || mebibytes > 4096) {
        return Error(ErrorCode::invalid_argument, "between 4 and 4096 MiB");
    }
    cell.bytes = mebibytes << 20U;
    return cell;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: %s SOURCE DESTINATION WORKLOAD MIB SEED\n", argv[0]);
        return 2;
    }
    Result<Cell> cell = parse(argv);
    if (!cell.has_value()) {
        std::fprintf(stderr, "%s\n", cell.error().to_string().c_str());
        return 2;
    }
    cell->best_latency =
        std::min(latency_alone(*cell, cell->source), latency_alone(*cell, cell->destination));
    run_cell(*cell);
    return 0;
}
