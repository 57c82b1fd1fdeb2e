#include "block/plan/move_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace godwit::block {

namespace {

/// What half the time is worth: with ln 2 = 0.69, a twentieth of the cost.
constexpr double time_worth = 0.07;
/// So that a move that costs nothing does not make every other thing worthless.
constexpr double cost_floor = 0.01;
/// A change has to bring that much.
constexpr double gain_min = 1e-4;
/// And another scheme that much of one disk's cost: forecasts are not finer.
constexpr double scheme_gain_min = 0.03;
constexpr int sweeps_max = 8;
/// Estimates of one move under one condition; each takes under a microsecond.
constexpr std::size_t estimates_max = 400'000;
constexpr std::size_t evaluations_min = 16;

bool usable(const DeviceSpeed& speed) {
    const auto positive = [](double value) { return std::isfinite(value) && value > 0; };
    const auto not_negative = [](double value) { return std::isfinite(value) && value >= 0; };
    return positive(speed.read_bytes_per_second) && positive(speed.write_bytes_per_second) &&
           not_negative(speed.read_operation_seconds) &&
           not_negative(speed.write_operation_seconds) &&
           not_negative(speed.read_latency_seconds) && not_negative(speed.write_latency_seconds) &&
           not_negative(speed.wear_weight);
}

Status check(const PlanSituation& now) {
    if (now.disks.size() > plan_disks_max || now.devices.size() > plan_devices_max) {
        return Error(ErrorCode::invalid_argument,
                     "at most " + std::to_string(plan_disks_max) + " disks at " +
                         std::to_string(plan_devices_max) + " devices are planned together");
    }
    if (!std::ranges::all_of(now.devices, usable)) {
        return Error(ErrorCode::invalid_argument, "the speed of a device makes no sense");
    }
    for (const PlanDisk& disk : now.disks) {
        if (disk.bytes == 0 || disk.places.source >= now.devices.size() ||
            disk.places.destination >= now.devices.size()) {
            return Error(ErrorCode::invalid_argument, "a disk is empty, or lies nowhere");
        }
    }
    return ok();
}

/// One plan and how it would go.
struct Candidate {
    MoveOrder order;
    std::vector<Scheme> schemes;
    Forecast forecast;
    double worth = 0;
};

class Search {
  public:
    explicit Search(const PlanSituation& now)
        : now_(now),
          evaluations_left_(std::max(
              evaluations_min,
              estimates_max / std::max<std::size_t>(1, now.disks.size() * at_once_mean(now)))) {
        for (const Scheme scheme : all_schemes) {
            if (scheme != Scheme::lr || now.allows_lr) {
                allowed_.push_back(scheme);
            }
        }
    }

    MovePlan run() {
        const MoveOrder first = first_order();
        MovePlan plan;
        // Each gets its share of the evaluations; what is left over is for mixing.
        const std::size_t share = evaluations_left_ / (2 * allowed_.size());
        std::optional<Candidate> best;
        for (const Scheme scheme : allowed_) {
            Candidate single = evaluate(first, std::vector(now_.disks.size(), scheme));
            improve(single, Changes::order_only, share);
            plan.singles.push_back(
                {.scheme = scheme, .order = single.order, .forecast = single.forecast});
            take_better(best, std::move(single));
        }
        Candidate mixed = evaluate(best->order, cheapest_under(best->order, best->schemes));
        take_better(best, std::move(mixed));
        improve(*best, Changes::all, evaluations_left_);
        tighten(*best);
        plan.order = std::move(best->order);
        plan.schemes = std::move(best->schemes);
        plan.forecast = std::move(best->forecast);
        return plan;
    }

  private:
    enum class Changes : std::uint8_t { order_only, all };

    static std::size_t at_once_mean(const PlanSituation& now) {
        return std::clamp<std::size_t>(now.devices.size(), 1, plan_at_once_max);
    }

    [[nodiscard]] Candidate evaluate(MoveOrder order, std::vector<Scheme> schemes) {
        Candidate made{.order = std::move(order), .schemes = std::move(schemes), .forecast = {}};
        made.forecast = foresee(now_, made.order, made.schemes);
        made.worth = worth_of(made.forecast);
        evaluations_left_ -= std::min<std::size_t>(1, evaluations_left_);
        return made;
    }

    static void take_better(std::optional<Candidate>& best, Candidate other) {
        if (!best.has_value() || other.worth < best->worth) {
            best = std::move(other);
        }
    }

    /// Long moves first, so that none is left alone at the end; one at a time at each device.
    [[nodiscard]] MoveOrder first_order() const {
        MoveOrder order{.disks = std::vector<std::size_t>(now_.disks.size()),
                        .at_once = std::vector<std::uint32_t>(now_.devices.size(), 1)};
        std::iota(order.disks.begin(), order.disks.end(), std::size_t{0});
        std::ranges::stable_sort(order.disks, std::greater{}, [&](std::size_t disk) {
            const PlanDisk& plan = now_.disks[disk];
            return ideal_seconds(plan.bytes,
                                 now_.devices[plan.places.source],
                                 now_.devices[plan.places.destination]);
        });
        return order;
    }

    /// Each disk's cheapest scheme if the others do as they are said to.
    [[nodiscard]] std::vector<Scheme> cheapest_under(const MoveOrder& order,
                                                     const std::vector<Scheme>& schemes) {
        std::vector<Scheme> cheapest = schemes;
        std::vector<double> costs;
        for (const MoveForecast& disk : evaluate(order, schemes).forecast.disks) {
            costs.push_back(disk.cost * (1 - scheme_gain_min));
        }
        for (const Scheme scheme : allowed_) {
            const Candidate all = evaluate(order, std::vector(now_.disks.size(), scheme));
            for (std::size_t i = 0; i < cheapest.size(); ++i) {
                const double cost = all.forecast.disks[i].cost;
                if (cost < costs[i]) {
                    costs[i] = cost;
                    cheapest[i] = scheme;
                }
            }
        }
        return cheapest;
    }

    /// Changes one thing at a time, as long as that helps and evaluations are left.
    void improve(Candidate& best, Changes changes, std::size_t evaluations) {
        stop_at_ = evaluations_left_ - std::min(evaluations, evaluations_left_);
        for (int sweep = 0; sweep < sweeps_max; ++sweep) {
            const double before = best.worth;
            try_at_once(best);
            if (changes == Changes::all) {
                try_schemes(best);
            }
            try_swaps(best);
            if (before - best.worth < gain_min) {
                return;
            }
        }
    }
    [[nodiscard]] bool may_try() const noexcept { return evaluations_left_ > stop_at_; }

    void
    try_one(Candidate& best, MoveOrder order, std::vector<Scheme> schemes, double gain = gain_min) {
        Candidate other = evaluate(std::move(order), std::move(schemes));
        if (other.worth < best.worth - gain) {
            best = std::move(other);
        }
    }

    [[nodiscard]] std::uint32_t at_once_max() const noexcept {
        return now_.at_once_max == 0 ? plan_at_once_max
                                     : std::min(now_.at_once_max, plan_at_once_max);
    }

    void try_at_once(Candidate& best) {
        for (std::uint32_t all = 2; all <= at_once_max() && may_try(); all *= 2) {
            MoveOrder order = best.order;
            std::ranges::fill(order.at_once, all);
            try_one(best, std::move(order), best.schemes);
        }
        for (std::size_t device = 0; device < now_.devices.size(); ++device) {
            for (std::uint32_t at_once = 1; at_once <= at_once_max() && may_try(); ++at_once) {
                if (best.order.at_once[device] != at_once) {
                    MoveOrder order = best.order;
                    order.at_once[device] = at_once;
                    try_one(best, std::move(order), best.schemes);
                }
            }
        }
    }

    /// Room that is never taken says nothing to people.
    void tighten(Candidate& best) {
        for (std::uint32_t& at_once : best.order.at_once) {
            while (at_once > 1) {
                --at_once;
                Candidate other = evaluate(best.order, best.schemes);
                if (other.worth > best.worth) {
                    ++at_once;
                    break;
                }
            }
        }
    }

    void try_schemes(Candidate& best) {
        const double gain = scheme_gain_min / static_cast<double>(now_.disks.size());
        for (std::size_t disk = 0; disk < now_.disks.size(); ++disk) {
            for (const Scheme scheme : allowed_) {
                if (!may_try()) {
                    return;
                }
                if (best.schemes[disk] != scheme) {
                    std::vector<Scheme> schemes = best.schemes;
                    schemes[disk] = scheme;
                    try_one(best, best.order, std::move(schemes), gain);
                }
            }
        }
    }

    void try_swaps(Candidate& best) {
        const std::size_t count = now_.disks.size();
        for (std::size_t one = 0; one < count; ++one) {
            for (std::size_t other = one + 1; other < count && may_try(); ++other) {
                MoveOrder order = best.order;
                std::swap(order.disks[one], order.disks[other]);
                try_one(best, std::move(order), best.schemes);
            }
        }
    }

    const PlanSituation& now_;
    std::vector<Scheme> allowed_;
    std::size_t evaluations_left_;
    std::size_t stop_at_ = 0;
};

} // namespace

double worth_of(const Forecast& forecast) noexcept {
    return std::log(forecast.cost + cost_floor) + time_worth * std::log(forecast.seconds + 1e-6);
}

Result<MovePlan> plan_moves(const PlanSituation& situation) {
    GODWIT_TRY(check(situation));
    if (situation.disks.empty()) {
        return MovePlan{
            .order = {.disks = {},
                      .at_once = std::vector<std::uint32_t>(situation.devices.size(), 1)},
            .schemes = {},
            .forecast = {},
            .singles = {}};
    }
    return Search(situation).run();
}

} // namespace godwit::block
