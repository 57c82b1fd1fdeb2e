#include "sim/scenario.h"

#include "sim/daemon.h"
#include "sim/vmm.h"
#include "sim/world.h"

#include <algorithm>
#include <array>
#include <memory>

namespace godwit::sim {

namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t machines_max = 4;
constexpr std::uint64_t handovers_max = 4;
constexpr std::uint64_t faults_max = 6;
constexpr std::uint64_t claimed_odds = 8;
constexpr std::uint64_t steps_max = 50'000;
/// A handover that nobody disturbs any more, its recovery and the daemon's patience together.
constexpr std::chrono::minutes calm_max{60};
/// Longer than any patience and any standstill.
constexpr std::chrono::minutes aftermath{11};

struct Faults {
    std::uint32_t left = 0;
    std::uint64_t odds = 0; ///< Of one at each step.
};

class Scenario {
  public:
    explicit Scenario(std::uint64_t seed) : executor_(seed), world_(executor_) {
        Random& random = executor_.dice();
        const std::uint64_t machines = 1 + random.below(machines_max);
        faults_ = {.left = static_cast<std::uint32_t>(random.below(faults_max + 1)),
                   .odds = 5 + random.below(80)};
        options_ = {
            .vmm_faults = {.step_fails_odds = random.one_in(3) ? 12U : 0U,
                           .step_time_max = random.one_in(4) ? seconds(4) : milliseconds(20)},
            .link_faults = {.lost_odds = random.one_in(3) ? 8U : 0U,
                            .repeated_odds = random.one_in(4) ? 8U : 0U,
                            .delay_max = random.one_in(3) ? seconds(3) : milliseconds(1)},
            .cancel_odds = random.one_in(3) ? 3U : 0U};
        handovers_left_.resize(machines);
        for (std::uint64_t i = 0; i < machines; ++i) {
            handovers_left_[i] = static_cast<std::uint32_t>(1 + random.below(handovers_max));
            result_.handovers += handovers_left_[i];
            Machine& machine = world_.add_machine();
            start_vmm(world_, *machine.processes.front(), options_.vmm_faults, nullptr);
        }
        start_daemon();
    }

    ~Scenario() {
        kill_daemon();
        world_.shut_down();
    }
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;

    ScenarioResult run() {
        // Settled must stay so: those that stand still wake up, those that wait give up.
        sys::Moment settled_since = executor_.now();
        sys::Moment calm_since = executor_.now();
        while (world_.violation().empty() && executor_.now() - settled_since < aftermath) {
            calm_since = disturb() ? executor_.now() : calm_since;
            if (!executor_.step()) {
                world_.violate("nothing can ever happen any more");
            }
            world_.check();
            settled_since = settled() ? settled_since : executor_.now();
            if (executor_.steps() > steps_max || executor_.now() - calm_since > calm_max) {
                world_.violate("it does not come to rest");
            }
        }
        count();
        return std::move(result_);
    }

  private:
    void start_daemon() {
        daemon_alive_ = std::make_shared<bool>(true);
        for (std::size_t i = 0; i < world_.machines().size(); ++i) {
            DaemonOptions options = options_;
            options.handovers_left = &handovers_left_[i];
            Machine& machine = *world_.machines()[i];
            daemons_.push_back(executor_.spawn("godwitd/" + machine.name,
                                               [this, options, &machine, alive = daemon_alive_] {
                                                   run_daemon(world_, machine, *alive, options);
                                               }));
        }
    }

    void kill_daemon() {
        *daemon_alive_ = false;
        for (const TaskId task : daemons_) {
            executor_.kill(task);
        }
        daemons_.clear();
    }

    [[nodiscard]] Machine* claimed_machine() const {
        const auto found = std::ranges::find_if(world_.machines(), [](const auto& machine) {
            return machine->record.read().tenure == handover::Tenure::claimed;
        });
        return found == world_.machines().end() ? nullptr : found->get();
    }

    /// One fault, perhaps, before the next step; true if there was one.
    bool disturb() {
        Random& random = executor_.dice();
        if (faults_.left == 0) {
            return false;
        }
        // Between claim and confirm the most depends on who dies; it is over in a few steps.
        Machine* const claimed = claimed_machine();
        if (!random.one_in(claimed != nullptr ? claimed_odds : faults_.odds)) {
            return false;
        }
        --faults_.left;
        if (random.one_in(4)) {
            world_.note("kill -9 of godwitd, and a new one");
            kill_daemon();
            start_daemon();
            return true;
        }
        Machine& machine = claimed != nullptr
                               ? *claimed
                               : *world_.machines()[random.below(world_.machines().size())];
        std::vector<Process*> living;
        for (const auto& process : machine.processes) {
            if (process->alive) {
                living.push_back(process.get());
            }
        }
        if (living.empty()) {
            return true;
        }
        Process& victim = *living[random.below(living.size())];
        if (random.one_in(2)) {
            ++result_.crashes;
            world_.crash(victim);
        } else {
            constexpr std::array<sys::Nanoseconds, 3> longest{
                milliseconds(50), seconds(10), seconds(300)};
            const sys::Nanoseconds stall = random.up_to(longest[random.below(longest.size())]);
            world_.note(victim.name + " stands still");
            executor_.stall(victim.task, stall);
        }
        return true;
    }

    /// Every machine runs at its owner, or was taken by a crash, and the operator wants no more.
    [[nodiscard]] bool settled() const {
        for (std::size_t i = 0; i < world_.machines().size(); ++i) {
            const Machine& machine = *world_.machines()[i];
            const Process* const owner = World::living(machine, machine.record.read().owner);
            const bool runs = owner != nullptr && owner->executes && handovers_left_[i] == 0;
            if (!runs && !machine.lost) {
                return false;
            }
        }
        // Faults that find nothing more to hit are forgone.
        return true;
    }

    void count() {
        for (const auto& machine : world_.machines()) {
            result_.lost += machine->lost ? 1U : 0U;
            for (const auto& process : machine->processes) {
                result_.left_over += process->alive && !process->executes ? 1U : 0U;
            }
        }
        for (const std::uint32_t left : handovers_left_) {
            result_.handovers -= left;
        }
        result_.violation = world_.violation();
        result_.trace = world_.trace();
        result_.steps = executor_.steps();
    }

    Executor executor_;
    World world_;
    ScenarioResult result_;
    Faults faults_;
    DaemonOptions options_;
    std::vector<std::uint32_t> handovers_left_;
    std::vector<TaskId> daemons_;
    std::shared_ptr<bool> daemon_alive_;
};

} // namespace

ScenarioResult run_scenario(std::uint64_t seed) {
    return Scenario(seed).run();
}

} // namespace godwit::sim
