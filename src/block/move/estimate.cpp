#include "block/move/estimate.h"

#include "block/move/hot_filter.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace godwit::block {

namespace {

constexpr double change_gain = 0.8; ///< A change has to bring the cost below this part of it.
constexpr int passes_max = 30;
/// Of the threshold: what is left for the pause when several passes have led to it, each of a tenth
/// of the one before or less. The root of the mean square, as requests wait for it so long.
constexpr double dirty_at_end = 0.33;

double seconds(sys::Nanoseconds time) noexcept {
    return std::chrono::duration<double>(time).count();
}

} // namespace

Workload workload_between(const GuestTraffic& before,
                          const GuestTraffic& after,
                          sys::Nanoseconds passed,
                          const HotFilter* filter) {
    const double time = std::max(1e-6, seconds(passed));
    const auto rate = [time](std::uint64_t from, std::uint64_t to) {
        return static_cast<double>(to - from) / time;
    };
    Workload load{.reads = rate(before.reads, after.reads),
                  .read_bytes = rate(before.read_bytes, after.read_bytes),
                  .writes = rate(before.changes, after.changes),
                  .written_bytes = rate(before.changed_bytes, after.changed_bytes)};
    if (filter == nullptr) {
        return load;
    }
    const auto counts = filter->histogram();
    const double granule = static_cast<double>(filter->granule_bytes());
    double writes = 0;
    double hot_writes = 0;
    for (std::size_t times = 1; times < counts.size(); ++times) {
        const double granules = static_cast<double>(counts[times]);
        load.working_set_bytes += granules * granule;
        writes += granules * static_cast<double>(times);
        if (times >= filter->threshold()) {
            load.hot_bytes += granules * granule;
            hot_writes += granules * static_cast<double>(times);
        }
    }
    load.hot_share = writes > 0 ? hot_writes / writes : 0;
    return load;
}

DeviceSpeed speed_of(const DeviceProfile& profile) {
    const auto rate = [](std::uint64_t bytes) {
        return bytes == 0 ? 1e11 : static_cast<double>(bytes);
    };
    const auto busy = [](const TransferProfile& side) {
        return seconds(side.operation + side.seek);
    };
    return {.read_bytes_per_second = rate(profile.read.bytes_per_second),
            .write_bytes_per_second = rate(profile.write.bytes_per_second),
            .read_operation_seconds = busy(profile.read),
            .write_operation_seconds = busy(profile.write),
            .read_latency_seconds = busy(profile.read) + seconds(profile.read.latency),
            .write_latency_seconds = busy(profile.write) + seconds(profile.write.latency),
            .wear_weight = profile.wear_thousandths / 1000.0};
}

namespace {

/// How much of the working set is written at least once in `time`.
double unique_bytes(double bytes_per_second, double working_set, double time) noexcept {
    return working_set <= 0 ? 0
                            : working_set * (1 - std::exp(-bytes_per_second * time / working_set));
}
/// The same for blocks that count from the moment the cursor has passed them on.
double unique_behind_cursor(double bytes_per_second, double working_set, double time) noexcept {
    const double ratio = working_set <= 0 ? 0 : bytes_per_second * time / working_set;
    return ratio < 1e-9 ? 0 : working_set * (1 - (1 - std::exp(-ratio)) / ratio);
}

class Model {
  public:
    Model(const MoveSituation& situation, Scheme scheme)
        : now_(situation), load_(situation.workload), scheme_(scheme),
          disk_(static_cast<double>(situation.disk_bytes)),
          set_(load_.working_set_bytes <= 0 ? disk_ : std::min(disk_, load_.working_set_bytes)),
          shares_(shares_of(scheme,
                            situation.destination.read_latency_seconds <
                                situation.source.read_latency_seconds)) {}

    SchemeEstimate run() {
        estimate_.scheme = scheme_;
        rates_ = rates(shares_);
        rate_ = copy_rate(rates_);
        switch (routing_of(scheme_)) {
        case Routing::tracked:
            run_passes();
            break;
        case Routing::redirected:
            run_redirected();
            break;
        default:
            run_mirrored();
            break;
        }
        find_latency();
        MoveBill& bill = estimate_.bill;
        bill.source_written_bytes = load_.written_bytes * bill.seconds * shares_.source_writes;
        estimate_.parts = parts_of(bill, now_.disk_bytes, now_.source, now_.destination);
        estimate_.cost = migration_cost(estimate_.parts, now_.gamma);
        return estimate_;
    }

  private:
    /// What the copier gets of a device. Each of the guest's requests costs it a seek back as well.
    [[nodiscard]] static double
    left_of(double bytes_per_second, double guest_use, double requests, double seek) noexcept {
        return bytes_per_second * std::max(copier_time_min, 1 - guest_use - requests * seek);
    }
    /// What each device lets the copier have.
    struct Rates {
        double source = 0;
        double destination = 0;
    };
    [[nodiscard]] Rates rates(const GuestShares& shares) const noexcept {
        const DeviceSpeed& from = now_.source;
        const DeviceSpeed& to = now_.destination;
        return {
            .source =
                left_of(from.read_bytes_per_second,
                        guest_use(from, load_, shares.source_reads, shares.source_writes),
                        load_.reads * shares.source_reads + load_.writes * shares.source_writes,
                        from.read_operation_seconds),
            .destination = left_of(
                to.write_bytes_per_second,
                guest_use(to, load_, shares.destination_reads, shares.destination_writes),
                load_.reads * shares.destination_reads + load_.writes * shares.destination_writes,
                to.write_operation_seconds)};
    }
    [[nodiscard]] double copy_rate(const Rates& each) const noexcept {
        double rate = std::min(each.source, each.destination);
        if (now_.sharing.has_value()) {
            rate = std::min(rate, now_.sharing->copy_bytes_per_second);
        }
        return now_.limit_bytes_per_second == 0
                   ? rate
                   : std::min(rate, static_cast<double>(now_.limit_bytes_per_second));
    }

    void run_passes() {
        const bool defers = scheme_ == Scheme::tiered;
        const double written = load_.written_bytes * (defers ? 1 - load_.hot_share : 1);
        const double set = std::max(1.0, set_ - (defers ? load_.hot_bytes : 0));
        const double deferred = defers ? std::min(load_.hot_bytes, disk_) : 0;
        double time = (disk_ - deferred) / rate_;
        double dirty = scheme_ == Scheme::dbt ? unique_bytes(written, set, time)
                                              : unique_behind_cursor(written, set, time);
        double total = time;
        double again = 0;
        const double threshold = static_cast<double>(now_.threshold_bytes);
        int passes = 0;
        int stalled = 0;
        while (dirty > threshold && stalled < 3 && passes++ < passes_max) {
            time = dirty / rate_;
            total += time;
            again += dirty;
            const double next = unique_bytes(written, set, time);
            stalled = next > dirty * 0.9 ? stalled + 1 : 0;
            dirty = next;
        }
        estimate_.ends = dirty <= threshold;
        if (passes > 0 || dirty > threshold / 2) {
            // Which pass is the first below the threshold nobody knows so exactly.
            dirty = std::max(dirty, dirty_at_end * threshold);
        }
        if (!estimate_.ends) { // Mirrored from there on: each marked block once more.
            time = dirty / copy_rate(rates({.destination_writes = 1}));
            total += time;
            again += dirty + load_.written_bytes * time;
            dirty = 0;
        }
        again += dirty;
        // The last pass goes from place to place, in pieces of the guest's writes.
        const double piece = load_.writes > 0 ? std::max(512.0, load_.written_bytes / load_.writes)
                                              : static_cast<double>(now_.chunk_bytes);
        estimate_.pause_seconds =
            (dirty + deferred) / rate_ +
            (dirty + deferred) / piece * now_.destination.write_operation_seconds;
        estimate_.bill.seconds = total + estimate_.pause_seconds;
        estimate_.redundant_bytes = again;
        estimate_.bill.destination_written_bytes = disk_ + again;
    }

    void run_mirrored() {
        estimate_.bill.seconds = disk_ / rate_;
        estimate_.redundant_bytes = load_.written_bytes * estimate_.bill.seconds / 2;
        estimate_.bill.destination_written_bytes = disk_ + estimate_.redundant_bytes;
    }

    void run_redirected() {
        // What the guest writes before the cursor comes need not be copied; that makes it shorter,
        // and so less: two rounds are near enough.
        double time = disk_ / rate_;
        for (int round = 0; round < 2; ++round) {
            time = (disk_ - unique_behind_cursor(load_.written_bytes, set_, time)) / rate_;
        }
        estimate_.bill.seconds = time;
        estimate_.bill.destination_written_bytes = time * rate_ + load_.written_bytes * time;
    }

    [[nodiscard]] double
    wait_for_copier(double busy, double bytes_per_second, double seek) const noexcept {
        return busy * busy * now_.chunk_bytes / bytes_per_second * now_.depth / 2 + busy * seek;
    }

    /// Before a request of the guest lie the copier's, as far as it keeps the device busy: the
    /// faster one rests most of the time.
    [[nodiscard]] std::pair<double, double> waits() const noexcept {
        if (now_.sharing.has_value()) {
            return {now_.sharing->source_wait_seconds, now_.sharing->destination_wait_seconds};
        }
        return {wait_for_copier(rate_ / rates_.source,
                                now_.source.read_bytes_per_second,
                                now_.source.read_operation_seconds),
                wait_for_copier(rate_ / rates_.destination,
                                now_.destination.write_bytes_per_second,
                                now_.destination.write_operation_seconds)};
    }

    void find_latency() {
        const auto [source_wait, destination_wait] = waits();
        const double source_read = now_.source.read_latency_seconds + source_wait;
        const double destination_read = now_.destination.read_latency_seconds + destination_wait;
        const double source_write = now_.source.write_latency_seconds + source_wait;
        const double destination_write = now_.destination.write_latency_seconds + destination_wait;
        double write = source_write;
        if (scheme_ == Scheme::mirror) {
            write = (source_write + std::max(source_write, destination_write)) / 2;
        } else if (scheme_ == Scheme::aio) {
            write = (source_write + std::min(source_write, destination_write)) / 2;
        } else if (scheme_ == Scheme::lr) {
            write = destination_write;
        }
        const double read =
            shares_.source_reads * source_read + shares_.destination_reads * destination_read;
        const double requests = load_.reads + load_.writes;
        const double reads_part = requests > 0 ? load_.reads / requests : 0.5;
        // What comes while requests are held waits half of that on average.
        const double held =
            estimate_.bill.seconds > 0
                ? estimate_.pause_seconds * estimate_.pause_seconds / 2 / estimate_.bill.seconds
                : 0;
        estimate_.bill.guest_latency_seconds = reads_part * read + (1 - reads_part) * write + held;
        const auto alone = [&](const DeviceSpeed& device) {
            return reads_part * device.read_latency_seconds +
                   (1 - reads_part) * device.write_latency_seconds;
        };
        estimate_.bill.best_guest_latency_seconds =
            std::min(alone(now_.source), alone(now_.destination));
    }

    const MoveSituation& now_;
    const Workload& load_;
    Scheme scheme_;
    double disk_;
    double set_;
    GuestShares shares_;
    Rates rates_;
    double rate_ = 0;
    SchemeEstimate estimate_;
};

} // namespace

SchemeEstimate estimate(const MoveSituation& situation, Scheme scheme) {
    return Model(situation, scheme).run();
}

Estimates estimate_all(const MoveSituation& situation) {
    Estimates estimates;
    for (std::size_t i = 0; i < all_schemes.size(); ++i) {
        estimates[i] = estimate(situation, all_schemes[i]);
    }
    return estimates;
}

namespace {

std::string two_digits(double value) {
    const auto hundredths = static_cast<long long>(std::llround(value * 100));
    const std::string rest = std::to_string(hundredths % 100);
    return std::to_string(hundredths / 100) + (rest.size() < 2 ? ".0" : ".") + rest;
}

} // namespace

SchemeChoice choose(const Estimates& estimates, const MoveSituation& situation) {
    const SchemeEstimate* best = nullptr;
    const SchemeEstimate* second = nullptr;
    for (const SchemeEstimate& each : estimates) {
        if (each.scheme == Scheme::lr && !situation.allows_lr) {
            continue;
        }
        if (best == nullptr || each.cost < best->cost) {
            second = best;
            best = &each;
        } else if (second == nullptr || each.cost < second->cost) {
            second = &each;
        }
    }
    GODWIT_ASSERT(best != nullptr && second != nullptr); // At most one of six was left out.
    return {.scheme = best->scheme,
            .why = std::string(name_of(best->scheme)) + " costs " + two_digits(best->cost) +
                   " (time " + two_digits(best->parts.time) + ", wear " +
                   two_digits(best->parts.wear) + ", input and output " +
                   two_digits(best->parts.io) + "), next " + std::string(name_of(second->scheme)) +
                   " " + two_digits(second->cost)};
}

bool may_change(Scheme from, Scheme to) noexcept {
    const bool to_mirrored = routing_of(to) == Routing::mirrored;
    return from != to && to_mirrored && routing_of(from) != Routing::redirected;
}

std::optional<Scheme> reconsider(Scheme now, const Estimates& estimates) noexcept {
    const SchemeEstimate* standing = nullptr;
    const SchemeEstimate* best = nullptr;
    for (const SchemeEstimate& each : estimates) {
        if (each.scheme == now) {
            standing = &each;
        } else if (may_change(now, each.scheme) && (best == nullptr || each.cost < best->cost)) {
            best = &each;
        }
    }
    if (standing == nullptr || best == nullptr || best->cost > standing->cost * change_gain) {
        return std::nullopt;
    }
    return best->scheme;
}

} // namespace godwit::block
