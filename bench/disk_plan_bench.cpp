// What many moves over shared devices cost when they are planned (HS-7): a plan that mixes schemes,
// and the best plan of each scheme alone, carried out in simulated time over device profiles.
// bench/disk_plan.py makes the table.
//
//     disk_plan_bench PROFILES SCENARIO MIB SEED all|safe
//
// safe: without lr. Prints one JSON line per gamma: the mixed plan's measured and forecast cost,
// and each scheme's.
#include "blank_disk.h"
#include "block/decorate/throttle_device.h"
#include "block/move/moving_device.h"
#include "block/move/speed_probe.h"
#include "block/plan/move_plan.h"
#include "simulated_guest.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>

namespace {

using namespace godwit;
using namespace godwit::block;
using namespace godwit::bench;

constexpr std::array gammas{0.0, 0.25, 0.5, 0.75, 1.0};
constexpr std::uint64_t threshold = std::uint64_t{256} * 1024;
constexpr std::uint32_t depth = 4;
/// Guests that share a turning disk must leave it some time.
constexpr int think_factor = 8;
constexpr std::chrono::seconds watched{20};

struct Route {
    std::size_t source;
    std::size_t destination;
    std::size_t count;
};
struct Scenario {
    std::string_view name;
    std::vector<std::string_view> devices;
    std::vector<Route> routes;
};

std::vector<Scenario> scenarios() {
    return {
        {.name = "to_flash", .devices = {"hdd", "hdd", "ssd"}, .routes = {{0, 2, 4}, {1, 2, 4}}},
        {.name = "to_turning", .devices = {"ssd", "hdd", "hdd"}, .routes = {{0, 1, 4}, {0, 2, 4}}},
        {.name = "flash", .devices = {"ssd", "ssd"}, .routes = {{0, 1, 8}}},
        {.name = "turning", .devices = {"hdd", "hdd"}, .routes = {{0, 1, 8}}},
        {.name = "both_ways", .devices = {"hdd", "ssd"}, .routes = {{0, 1, 4}, {1, 0, 4}}},
        {.name = "both_ways_twice",
         .devices = {"hdd", "hdd", "ssd", "ssd"},
         .routes = {{0, 2, 3}, {1, 3, 3}, {2, 1, 3}, {3, 0, 3}}},
    };
}

struct Bed {
    std::vector<DeviceProfile> profiles; ///< By device.
    std::vector<MovePlaces> places;      ///< By disk.
    std::vector<Shape> guests;           ///< By disk.
    std::vector<double> best_latencies;  ///< By disk: of its faster device, alone.
    std::uint64_t bytes = 0;             ///< Of each disk.
    std::uint64_t seed = 0;
    bool allows_lr = true;
};

std::unique_ptr<BlockDevice>
open_device(const Bed& bed, std::size_t device, testing::SimulatedTime& time) {
    return GODWIT_MUST(ThrottleDevice::create( // Simulated alarms.
        std::make_unique<BlankDisk>(2 * bed.places.size() * bed.bytes, time),
        time,
        bed.profiles[device]));
}

/// All guests at work on their sources, for so long as this lives.
class World {
  public:
    explicit World(const Bed& bed) : bed_(bed), time_(bed.seed) {
        for (std::size_t i = 0; i < bed.profiles.size(); ++i) {
            devices_.push_back(open_device(bed, i, time_));
        }
        for (std::size_t i = 0; i < bed.places.size(); ++i) {
            disks_.push_back(GODWIT_MUST(MovingDevice::create( // Simulated alarms.
                slice(bed.places[i].source, i),
                time_)));
            GODWIT_MUST(disks_.back()->observe({})); // Valid options.
            guests_.push_back(std::make_unique<Guest>(*disks_.back(), time_, bed.guests[i]));
        }
    }
    ~World() {
        for (const std::unique_ptr<Guest>& guest : guests_) {
            guest->stop();
        }
    }
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    void pass(std::chrono::seconds span) {
        const sys::Moment end = time_.now() + span;
        while (time_.now() < end) {
            GODWIT_ASSERT(time_.step());
        }
    }
    void step() { GODWIT_ASSERT(time_.step()); }
    [[nodiscard]] double seconds() const {
        return std::chrono::duration<double>(time_.now().time_since_epoch()).count();
    }
    [[nodiscard]] MovingDevice& disk(std::size_t i) { return *disks_[i]; }
    [[nodiscard]] Guest& guest(std::size_t i) { return *guests_[i]; }
    [[nodiscard]] std::unique_ptr<BlockDevice> destination(std::size_t i) {
        return slice(bed_.places[i].destination, bed_.places.size() + i);
    }

  private:
    std::unique_ptr<BlockDevice> slice(std::size_t device, std::size_t place) {
        return std::make_unique<SliceDevice>(*devices_[device], place * bed_.bytes, bed_.bytes);
    }

    const Bed& bed_;
    testing::SimulatedTime time_;
    std::vector<std::unique_ptr<BlockDevice>> devices_;
    std::vector<std::unique_ptr<MovingDevice>> disks_;
    std::vector<std::unique_ptr<Guest>> guests_;
};

double latency_alone(const Bed& bed, std::size_t device, const Shape& shape) {
    testing::SimulatedTime time(bed.seed);
    const auto disk = open_device(bed, device, time);
    SliceDevice slice(*disk, 0, bed.bytes);
    Guest guest(slice, time, shape);
    while (guest.latencies().size() < 800) {
        GODWIT_ASSERT(time.step());
    }
    guest.stop();
    return mean(guest.latencies());
}

DeviceSpeed probe(const Bed& bed, std::size_t device) {
    testing::SimulatedTime time(bed.seed);
    const auto disk = open_device(bed, device, time);
    SpeedProbe measuring(*disk, time, SpeedProbe::May::read_and_write);
    std::optional<DeviceSpeed> found;
    measuring.start([&](Result<DeviceSpeed> speed) { found = GODWIT_MUST(std::move(speed)); }); // -
    while (!found.has_value()) {
        GODWIT_ASSERT(time.step());
    }
    found->wear_weight = bed.profiles[device].wear_thousandths / 1000.0;
    return *found;
}

/// What is known before anything moves: measured speeds, and the guests watched for a while.
PlanSituation observe(const Bed& bed) {
    PlanSituation now{.devices = {},
                      .disks = {},
                      .threshold_bytes = threshold,
                      .depth = depth,
                      .allows_lr = bed.allows_lr};
    for (std::size_t i = 0; i < bed.profiles.size(); ++i) {
        now.devices.push_back(probe(bed, i));
    }
    World world(bed);
    world.pass(watched);
    for (std::size_t i = 0; i < bed.places.size(); ++i) {
        MovingDevice& disk = world.disk(i);
        now.disks.push_back(
            {.bytes = bed.bytes,
             .places = bed.places[i],
             .workload = workload_between({}, disk.traffic(), watched, disk.observed())});
    }
    return now;
}

struct Measured {
    std::array<double, gammas.size()> costs{}; ///< Of all disks together.
    double seconds = 0;
};

/// One disk's part of it.
CostParts
parts_of_move(const Bed& bed, std::size_t disk, const MoveReport& report, double latency) {
    const MovePlaces& places = bed.places[disk];
    return parts_of(
        {.seconds = std::chrono::duration<double>(report.duration).count(),
         .source_written_bytes = static_cast<double>(report.counters.source.total()),
         .destination_written_bytes = static_cast<double>(report.counters.destination.total()),
         .guest_latency_seconds = latency,
         .best_guest_latency_seconds = bed.best_latencies[disk]},
        bed.bytes,
        speed_of(bed.profiles[places.source]),
        speed_of(bed.profiles[places.destination]));
}

Measured carry_out(const Bed& bed, const MoveOrder& order, const std::vector<Scheme>& schemes) {
    World world(bed);
    world.pass(std::chrono::seconds(5));
    MoveQueue queue(order, bed.places);
    std::vector<MoveReport> reports(bed.places.size());
    const double start = world.seconds();
    std::vector<std::size_t> ended;
    while (!queue.idle()) {
        while (const std::optional<std::size_t> disk = queue.next()) {
            world.guest(*disk).begin_measuring();
            MoveHooks hooks;
            hooks.finished = [&, disk = *disk](const MoveReport& report) {
                GODWIT_ASSERT(report.outcome == MoveOutcome::moved); // Nothing fails here.
                reports[disk] = report;
                world.guest(disk).end_measuring();
                ended.push_back(disk);
            };
            const auto seek_of = [&](std::size_t device) { return bed.profiles[device].read.seek; };
            const MovePlaces& places = bed.places[*disk];
            GODWIT_MUST(world.disk(*disk).start( // The same size.
                world.destination(*disk),
                {.scheme = schemes[*disk],
                 .reads_from_destination = seek_of(places.destination) < seek_of(places.source),
                 .threshold_bytes = threshold,
                 .depth = depth},
                std::move(hooks)));
        }
        while (ended.empty()) {
            world.step();
        }
        for (const std::size_t disk : ended) {
            queue.ended(disk);
        }
        ended.clear();
    }
    Measured measured{.costs = {}, .seconds = world.seconds() - start};
    world.pass(std::chrono::seconds(5)); // What was held for the last switch.
    for (std::size_t disk = 0; disk < reports.size(); ++disk) {
        const CostParts parts =
            parts_of_move(bed, disk, reports[disk], mean(world.guest(disk).latencies()));
        for (std::size_t i = 0; i < gammas.size(); ++i) {
            measured.costs[i] += migration_cost(parts, gammas[i]);
        }
    }
    return measured;
}

/// The same plan for two gammas is carried out once.
class Runs {
  public:
    explicit Runs(const Bed& bed) : bed_(bed) {}
    const Measured& of(const MoveOrder& order, const std::vector<Scheme>& schemes) {
        const auto key = std::tuple(order.disks, order.at_once, schemes);
        const auto found = done_.find(key);
        return found != done_.end()
                   ? found->second
                   : done_.emplace(key, carry_out(bed_, order, schemes)).first->second;
    }

  private:
    using Key =
        std::tuple<std::vector<std::size_t>, std::vector<std::uint32_t>, std::vector<Scheme>>;
    const Bed& bed_;
    std::map<Key, Measured> done_;
};

template <typename List, typename Text>
std::string joined(const List& list, Text text) {
    std::string all;
    for (const auto& each : list) {
        all += (all.empty() ? "" : ", ") + text(each);
    }
    return "[" + all + "]";
}

void print_run(const char* begin,
               const Measured& run,
               std::size_t gamma,
               const Forecast& forecast) {
    std::printf("%s\"cost\": %.4f, \"forecast\": %.4f, \"seconds\": %.2f, "
                "\"forecast_seconds\": %.2f",
                begin,
                run.costs[gamma],
                forecast.cost,
                run.seconds,
                forecast.seconds);
}

void run_bed(const Bed& bed, std::string_view scenario) {
    PlanSituation situation = observe(bed);
    Runs runs(bed);
    for (std::size_t i = 0; i < gammas.size(); ++i) {
        situation.gamma = gammas[i];
        const MovePlan plan = GODWIT_MUST(plan_moves(situation)); // Within its limits.
        std::printf("{\"scenario\": \"%s\", \"gamma\": %.2f, \"disks\": %zu, \"mixed\": {",
                    std::string(scenario).c_str(),
                    gammas[i],
                    bed.places.size());
        print_run("", runs.of(plan.order, plan.schemes), i, plan.forecast);
        std::printf(
            ", \"schemes\": %s, \"order\": %s, \"at_once\": %s}, \"single\": [",
            joined(plan.schemes,
                   [](Scheme scheme) { return "\"" + std::string(name_of(scheme)) + "\""; })
                .c_str(),
            joined(plan.order.disks, [](std::size_t n) { return std::to_string(n); }).c_str(),
            joined(plan.order.at_once, [](std::uint32_t n) { return std::to_string(n); }).c_str());
        const char* between = "";
        for (const MovePlan::Single& single : plan.singles) {
            std::printf(
                "%s{\"scheme\": \"%s\"", between, std::string(name_of(single.scheme)).c_str());
            print_run(", ",
                      runs.of(single.order, std::vector(bed.places.size(), single.scheme)),
                      i,
                      single.forecast);
            std::printf("}");
            between = ", ";
        }
        std::printf("]}\n");
        std::fflush(stdout);
    }
}

Result<Bed> make_bed(char** argv) {
    const std::vector<Scenario> all = scenarios();
    const auto scenario = std::ranges::find(all, std::string_view(argv[2]), &Scenario::name);
    if (scenario == all.end()) {
        return Error(ErrorCode::invalid_argument, "no scenario of that name");
    }
    Bed bed;
    std::uint64_t mebibytes = 0;
    for (auto [text, value] : {std::pair(argv[3], &mebibytes), std::pair(argv[4], &bed.seed)}) {
        if (std::from_chars(text, text + std::strlen(text), *value).ec != std::errc()) {
            return Error(ErrorCode::invalid_argument, "sizes and seeds are numbers");
        }
    }
    if (mebibytes < 4 || mebibytes > 65536) {
        return Error(ErrorCode::invalid_argument, "between 4 and 65536 MiB");
    }
    bed.bytes = mebibytes << 20U;
    bed.allows_lr = std::string_view(argv[5]) != "safe";
    for (const std::string_view device : scenario->devices) {
        bed.profiles.push_back(GODWIT_TRY(
            load_profile(std::string(argv[1]) + "/" + std::string(device) + ".profile")));
    }
    for (const Route& route : scenario->routes) {
        for (std::size_t i = 0; i < route.count; ++i) {
            Shape guest = shapes[bed.places.size() % shapes.size()];
            guest.think *= think_factor;
            bed.places.push_back({.source = route.source, .destination = route.destination});
            bed.guests.push_back(guest);
        }
    }
    for (std::size_t i = 0; i < bed.places.size(); ++i) {
        bed.best_latencies.push_back(
            std::min(latency_alone(bed, bed.places[i].source, bed.guests[i]),
                     latency_alone(bed, bed.places[i].destination, bed.guests[i])));
    }
    return bed;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 6) {
        std::fprintf(stderr, "usage: %s PROFILES SCENARIO MIB SEED all|safe\n", argv[0]);
        return 2;
    }
    const Result<Bed> bed = make_bed(argv);
    if (!bed.has_value()) {
        std::fprintf(stderr, "%s\n", bed.error().to_string().c_str());
        return 2;
    }
    run_bed(*bed, argv[2]);
    return 0;
}
