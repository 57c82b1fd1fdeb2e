#include "block/plan/forecast.h"

#include "base/result.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace godwit::block {

namespace {

/// Of a device's time that guests take: more would mean that they wait without an end, which they
/// do not, as each asks only when it has been answered.
constexpr double guests_use_max = 0.9;
/// Less of a move is none.
constexpr double part_min = 1e-9;

enum class Stage : std::uint8_t { waiting, under_way, done };

struct Course {
    Stage stage = Stage::waiting;
    double part_done = 0; ///< 0..1
    MoveForecast so_far;
    double latency_time = 0;      ///< The guest's latency, summed up over time.
    double best_latency_time = 0; ///< Of the faster device alone, likewise.
};

/// What guests and copiers ask of a device.
struct DeviceLoad {
    double guests_use = 0;
    double guests_requests = 0;
    std::uint32_t streams = 0; ///< Copiers that read or write there.
    double copier_time = 1;    ///< Of its time, for all copiers.
    double copier_use = 0;     ///< Of its time, what they take of that.
};

/// One copier's way through two devices, under way.
struct Stream {
    std::size_t disk = 0;
    double source_seconds = 0;      ///< Of the source's time, for a byte.
    double destination_seconds = 0; ///< Likewise.
    double rate = 0;                ///< Bytes per second.
    bool settled = false;
};

} // namespace

std::vector<MovePlaces> places_of(const PlanSituation& situation) {
    std::vector<MovePlaces> places;
    places.reserve(situation.disks.size());
    for (const PlanDisk& disk : situation.disks) {
        places.push_back(disk.places);
    }
    return places;
}

namespace {

class Fluid {
  public:
    Fluid(const PlanSituation& now, const std::vector<Scheme>& schemes)
        : now_(now), schemes_(schemes), courses_(now.disks.size()), loads_(now.devices.size()) {}

    Forecast run(const MoveOrder& order) {
        MoveQueue queue(order, places_of(now_));
        double time = 0;
        while (!queue.idle()) {
            while (const std::optional<std::size_t> disk = queue.next()) {
                courses_[*disk].stage = Stage::under_way;
                courses_[*disk].so_far.begins_seconds = time;
                streams_.push_back({.disk = *disk});
            }
            GODWIT_ASSERT(!streams_.empty()); // Each device has room for one.
            time += pass(queue);
        }
        Forecast forecast{.disks = {}, .cost = 0, .seconds = time};
        for (std::size_t disk = 0; disk < courses_.size(); ++disk) {
            forecast.disks.push_back(courses_[disk].so_far);
            forecast.cost += forecast.disks.back().cost;
        }
        return forecast;
    }

  private:
    /// Until the next move is over; gives how long that takes.
    double pass(MoveQueue& queue) {
        find_guests();
        find_streams();
        share();
        double time = std::numeric_limits<double>::max();
        estimates_.clear();
        for (const Stream& stream : streams_) {
            estimates_.push_back(estimate(situation_of(stream), schemes_[stream.disk]));
            const double left = 1 - courses_[stream.disk].part_done;
            time = std::min(time, left * estimates_.back().bill.seconds);
        }
        for (std::size_t i = 0; i < streams_.size(); ++i) {
            get_on(courses_[streams_[i].disk], estimates_[i], time);
        }
        std::erase_if(streams_, [&](const Stream& stream) {
            if (courses_[stream.disk].part_done < 1 - part_min) {
                return false;
            }
            end(stream.disk);
            queue.ended(stream.disk);
            return true;
        });
        return time;
    }

    static void get_on(Course& course, const SchemeEstimate& estimate, double time) {
        const double part =
            std::min(1 - course.part_done, time / std::max(1e-12, estimate.bill.seconds));
        MoveForecast& sum = course.so_far;
        course.part_done += part;
        course.latency_time += estimate.bill.guest_latency_seconds * time;
        course.best_latency_time += estimate.bill.best_guest_latency_seconds * time;
        sum.bill.seconds += time;
        sum.bill.source_written_bytes += estimate.bill.source_written_bytes * part;
        sum.bill.destination_written_bytes += estimate.bill.destination_written_bytes * part;
        sum.pause_seconds += estimate.pause_seconds * part;
    }

    void end(std::size_t disk) {
        Course& course = courses_[disk];
        course.stage = Stage::done;
        MoveForecast& sum = course.so_far;
        if (sum.bill.seconds > 0) {
            sum.bill.guest_latency_seconds = course.latency_time / sum.bill.seconds;
            sum.bill.best_guest_latency_seconds = course.best_latency_time / sum.bill.seconds;
        }
        const PlanDisk& plan = now_.disks[disk];
        sum.parts = parts_of(sum.bill,
                             plan.bytes,
                             now_.devices[plan.places.source],
                             now_.devices[plan.places.destination]);
        sum.cost = migration_cost(sum.parts, now_.gamma);
    }

    [[nodiscard]] GuestShares shares_now(std::size_t disk) const {
        switch (courses_[disk].stage) {
        case Stage::waiting:
            return shares_before_move;
        case Stage::done:
            return shares_after_move;
        case Stage::under_way:
            break;
        }
        const MovePlaces& places = now_.disks[disk].places;
        return shares_of(schemes_[disk],
                         now_.devices[places.destination].read_latency_seconds <
                             now_.devices[places.source].read_latency_seconds);
    }

    void find_guests() {
        std::ranges::fill(loads_, DeviceLoad{});
        for (std::size_t i = 0; i < courses_.size(); ++i) {
            const PlanDisk& disk = now_.disks[i];
            const GuestShares shares = shares_now(i);
            add_guest(disk.places.source, disk.workload, shares.source_reads, shares.source_writes);
            add_guest(disk.places.destination,
                      disk.workload,
                      shares.destination_reads,
                      shares.destination_writes);
        }
        for (const Stream& stream : streams_) {
            const MovePlaces& places = now_.disks[stream.disk].places;
            ++loads_[places.source].streams;
            ++loads_[places.destination].streams;
        }
    }

    void add_guest(std::size_t device, const Workload& load, double reads, double writes) {
        DeviceLoad& sum = loads_[device];
        sum.guests_use += guest_use(now_.devices[device], load, reads, writes);
        sum.guests_requests += load.reads * reads + load.writes * writes;
    }

    /// The seek that each chunk of a stream costs where another stream comes between.
    [[nodiscard]] double source_seek(std::size_t device) const {
        return loads_[device].streams > 1 ? now_.devices[device].read_operation_seconds : 0;
    }
    [[nodiscard]] double destination_seek(std::size_t device) const {
        return loads_[device].streams > 1 ? now_.devices[device].write_operation_seconds : 0;
    }

    void find_streams() {
        const double chunk = now_.chunk_bytes;
        for (Stream& stream : streams_) {
            const MovePlaces& places = now_.disks[stream.disk].places;
            stream.source_seconds = 1 / now_.devices[places.source].read_bytes_per_second +
                                    source_seek(places.source) / chunk;
            stream.destination_seconds =
                1 / now_.devices[places.destination].write_bytes_per_second +
                destination_seek(places.destination) / chunk;
            stream.rate = 0;
            stream.settled = false;
        }
        for (std::size_t i = 0; i < loads_.size(); ++i) {
            DeviceLoad& load = loads_[i];
            // Each of a guest's requests costs the copier a seek back as well.
            const double seek_back =
                load.guests_requests * std::min(now_.devices[i].read_operation_seconds,
                                                now_.devices[i].write_operation_seconds);
            load.copier_time = std::max(copier_time_min, 1 - load.guests_use - seek_back);
        }
    }

    /// Of one device's time, for a byte of this stream.
    [[nodiscard]] double seconds_at(const Stream& stream, std::size_t device) const {
        const MovePlaces& places = now_.disks[stream.disk].places;
        return (places.source == device ? stream.source_seconds : 0) +
               (places.destination == device ? stream.destination_seconds : 0);
    }

    /// All get faster together until a device or the limit stops them; the others go on.
    void share() {
        for (std::size_t round = 0; round < streams_.size() + loads_.size(); ++round) {
            double more = std::numeric_limits<double>::max();
            for (std::size_t i = 0; i < loads_.size(); ++i) {
                const double each = open_seconds(i);
                if (each > 0) {
                    more = std::min(more, (loads_[i].copier_time - loads_[i].copier_use) / each);
                }
            }
            if (now_.limit_bytes_per_second != 0) {
                for (const Stream& stream : streams_) {
                    if (!stream.settled) {
                        more = std::min(
                            more, static_cast<double>(now_.limit_bytes_per_second) - stream.rate);
                    }
                }
            }
            if (more == std::numeric_limits<double>::max()) {
                return; // All are settled.
            }
            raise(std::max(0.0, more));
        }
    }
    [[nodiscard]] double open_seconds(std::size_t device) const {
        double sum = 0;
        for (const Stream& stream : streams_) {
            sum += stream.settled ? 0 : seconds_at(stream, device);
        }
        return sum;
    }
    void raise(double more) {
        for (std::size_t i = 0; i < loads_.size(); ++i) {
            loads_[i].copier_use += more * open_seconds(i);
        }
        for (Stream& stream : streams_) {
            if (!stream.settled) {
                stream.rate += more;
            }
        }
        for (Stream& stream : streams_) {
            const MovePlaces& places = now_.disks[stream.disk].places;
            const bool limited =
                now_.limit_bytes_per_second != 0 &&
                stream.rate >= static_cast<double>(now_.limit_bytes_per_second) * (1 - part_min);
            stream.settled =
                stream.settled || limited || full(places.source) || full(places.destination);
        }
    }
    [[nodiscard]] bool full(std::size_t device) const {
        return loads_[device].copier_use >= loads_[device].copier_time * (1 - part_min);
    }

    /// How long a request waits at a device: half of what each copier keeps there, and the guests'.
    [[nodiscard]] double wait_at(std::size_t device, std::size_t own_disk) const {
        const DeviceLoad& load = loads_[device];
        const DeviceSpeed& speed = now_.devices[device];
        double wait = 0;
        for (const Stream& stream : streams_) {
            const MovePlaces& places = now_.disks[stream.disk].places;
            const double use = stream.rate * seconds_at(stream, device);
            if (use <= 0) {
                continue;
            }
            // How near it comes to what it could get here: so much of its queue lies here.
            const double others = load.copier_use - use;
            const double busy = std::min(1.0, use / std::max(1e-6, load.copier_time - others));
            const bool reads = places.source == device;
            const double seek =
                reads ? speed.read_operation_seconds : speed.write_operation_seconds;
            const double chunk = now_.chunk_bytes / (reads ? speed.read_bytes_per_second
                                                           : speed.write_bytes_per_second);
            const bool interleaves = load.streams > 1;
            wait += busy * busy * now_.depth / 2 * (chunk + (interleaves ? seek : 0)) +
                    (interleaves ? 0 : busy * seek);
        }
        return wait + wait_for_guests(device, own_disk);
    }

    /// The mean of a queue of even requests that come at random, without one's own guest's.
    [[nodiscard]] double wait_for_guests(std::size_t device, std::size_t own_disk) const {
        const DeviceLoad& load = loads_[device];
        const PlanDisk& own = now_.disks[own_disk];
        const GuestShares shares = shares_now(own_disk);
        double use = load.guests_use;
        double requests = load.guests_requests;
        const auto take = [&](double reads, double writes) {
            use -= guest_use(now_.devices[device], own.workload, reads, writes);
            requests -= own.workload.reads * reads + own.workload.writes * writes;
        };
        if (own.places.source == device) {
            take(shares.source_reads, shares.source_writes);
        }
        if (own.places.destination == device) {
            take(shares.destination_reads, shares.destination_writes);
        }
        if (use <= 0 || requests <= 0) {
            return 0;
        }
        const double service = use / requests;
        const double busy = std::min(use, guests_use_max);
        return service * busy / 2 / (1 - busy);
    }

    [[nodiscard]] MoveSituation situation_of(const Stream& stream) const {
        const PlanDisk& disk = now_.disks[stream.disk];
        return {.disk_bytes = disk.bytes,
                .source = now_.devices[disk.places.source],
                .destination = now_.devices[disk.places.destination],
                .workload = disk.workload,
                .gamma = now_.gamma,
                .threshold_bytes = now_.threshold_bytes,
                .limit_bytes_per_second = now_.limit_bytes_per_second,
                .chunk_bytes = now_.chunk_bytes,
                .depth = now_.depth,
                .allows_lr = now_.allows_lr,
                .sharing = DeviceSharing{
                    .copy_bytes_per_second = stream.rate,
                    .source_wait_seconds = wait_at(disk.places.source, stream.disk),
                    .destination_wait_seconds = wait_at(disk.places.destination, stream.disk)}};
    }

    const PlanSituation& now_;
    const std::vector<Scheme>& schemes_;
    std::vector<Course> courses_;           ///< By disk.
    std::vector<DeviceLoad> loads_;         ///< By device.
    std::vector<Stream> streams_;           ///< Under way.
    std::vector<SchemeEstimate> estimates_; ///< Of each stream, now.
};

} // namespace

Forecast foresee(const PlanSituation& situation,
                 const MoveOrder& order,
                 const std::vector<Scheme>& schemes) {
    return Fluid(situation, schemes).run(order);
}

} // namespace godwit::block
