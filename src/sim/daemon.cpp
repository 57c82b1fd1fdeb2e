#include "sim/daemon.h"

#include <algorithm>
#include <utility>

namespace godwit::sim {

namespace {

using std::chrono::seconds;

// As in control/: how long each may take.
constexpr seconds claim_time_max{3};
constexpr seconds leave_time_max{5};
constexpr seconds forward_time_max{3};
constexpr seconds reclaim_time_max{10};
constexpr seconds owner_search_time_max{10};
constexpr seconds idle_max{60};
constexpr sys::Nanoseconds operator_pause_max = seconds(2);

class Daemon {
  public:
    Daemon(World& world, Machine& machine, const bool& alive, const DaemonOptions& options)
        : world_(world), machine_(machine), alive_(alive), options_(options) {}

    void live() {
        while (alive_) {
            Executor& executor = world_.executor();
            executor.let_pass(executor.dice().up_to(operator_pause_max));
            if (!alive_) {
                return;
            }
            const handover::Ownership now = read();
            Process* const owner = World::living(machine_, now.owner);
            if (now.tenure == handover::Tenure::claimed) {
                recover();
            } else if (owner != nullptr && owner->executes && *options_.handovers_left > 0) {
                --*options_.handovers_left;
                exchange(*owner, now);
            } else if (owner == nullptr) {
                end_without_owner();
            } else {
                // Nothing to do until something happens to the machine.
                wait(idle_max, [&] { return read() != now || !owner->alive; });
            }
        }
    }

  private:
    [[nodiscard]] handover::Ownership read() const { return machine_.record.read(); }

    bool swap_to_next_epoch(const handover::Ownership& seen) {
        world_.executor().yield();
        return alive_ && machine_.record.transfer(seen, seen.owner).has_value();
    }

    void kill(Process& process, std::string_view why) {
        world_.executor().yield();
        if (alive_) {
            world_.end(process, why);
        }
    }

    // exchange_run.cpp

    void exchange(Process& source, const handover::Ownership& asked_for) {
        Process& successor = world_.add_process(machine_);
        world_.note("the operator hands " + source.name + " over to " + successor.name);
        auto [successor_end, source_end] = LinkEnd::pair(world_.executor(), options_.link_faults);
        start_vmm(world_, successor, options_.vmm_faults, std::move(successor_end));
        world_.executor().yield();
        if (!alive_) {
            return;
        }
        const auto call = std::make_shared<Call>();
        call->successor = std::move(source_end);
        call->epoch = asked_for.epoch;
        if (source.alive) {
            source.calls.push_back(call);
        } else {
            call->successor.reset();
        }
        await_report(source, *call);
        if (!alive_) {
            return;
        }
        if (!call->outcome.has_value()) {
            decide(source, successor);
        } else if (*call->outcome != handover::Outcome::rolled_back &&
                   read().owner == successor.id) {
            committed(source, successor);
        } else if (*call->outcome == handover::Outcome::rolled_back) {
            wait(leave_time_max, [&] { return !successor.alive; });
            undo(source, successor);
        } else {
            decide(source, successor);
        }
    }

    void await_report(const Process& source, Call& call) {
        Executor& executor = world_.executor();
        const handover::Limits limits;
        const auto over = [&] { return call.answered || !source.alive; };
        if (executor.dice().one_in(options_.cancel_odds)) {
            executor.wait(over, executor.dice().up_to(limits.commit_timeout));
            call.cancelled = alive_;
        }
        executor.wait(over, limits.commit_timeout + limits.prepare_timeout + seconds(30));
    }

    void decide(Process& source, Process& successor) {
        world_.note("no report: the record decides");
        if (read().owner != successor.id && !source.alive && successor.alive) {
            // The offer of the dead source may be under way.
            wait(claim_time_max, [&] { return read().owner == successor.id || !successor.alive; });
        }
        if (!alive_) {
            return;
        }
        if (read().owner == successor.id) {
            committed(source, successor);
        } else {
            undo(source, successor);
        }
    }

    void undo(Process& source, Process& successor) {
        if (fence(successor)) {
            kill(successor, "its exchange was given up");
        } else if (alive_) {
            committed(source, successor);
        }
    }

    /// Makes sure that the successor does not own the machine, now or later.
    bool fence(const Process& successor) {
        while (alive_) {
            const handover::Ownership now = read();
            if (now.owner == successor.id) {
                return false;
            }
            if (!successor.alive || now.tenure == handover::Tenure::claimed ||
                swap_to_next_epoch(now)) {
                return alive_;
            }
        }
        return false;
    }

    void committed(Process& source, Process& successor) {
        wait(leave_time_max, [&] { return !source.alive; });
        const handover::Ownership now = read();
        if (now.owner == successor.id && now.tenure == handover::Tenure::running &&
            successor.alive) {
            kill(source, "it lost its machine and does not end by itself");
        }
    }

    // recover_run.cpp

    void recover() {
        const handover::Ownership before = read();
        Process* const holder = World::living(machine_, before.owner);
        if (holder != nullptr) {
            wait(forward_time_max,
                 [&] { return read().tenure == handover::Tenure::running || !holder->alive; });
        }
        const auto kept = std::ranges::find_if(machine_.processes, [&](const auto& vmm) {
            return vmm->alive && vmm->frozen && vmm->lost_to == before;
        });
        if (!alive_ || read() != before || kept == machine_.processes.end()) {
            return;
        }
        world_.note("the operator recovers " + machine_.name + " with " + (*kept)->name);
        const auto call = std::make_shared<Call>();
        call->method = Call::Method::reclaim;
        (*kept)->calls.push_back(call);
        const Process& source = **kept;
        wait(reclaim_time_max, [&] { return call->answered || !source.alive; });
        if (alive_ && call->succeeded && holder != nullptr && read().owner != before.owner) {
            kill(*holder, "its claim was reversed by a recovery");
        }
    }

    // supervisor.cpp

    void end_without_owner() {
        const auto left = [this] {
            return std::ranges::any_of(machine_.processes,
                                       [](const auto& vmm) { return vmm->alive; });
        };
        const auto found = [&, this] {
            return World::living(machine_, read().owner) != nullptr || !left();
        };
        if (wait(owner_search_time_max, found) || !alive_) {
            wait(seconds(60), [] { return false; });
            return;
        }
        const handover::Ownership now = read();
        const bool frozen = std::ranges::any_of(
            machine_.processes, [](const auto& vmm) { return vmm->alive && vmm->frozen; });
        if (frozen || now.tenure == handover::Tenure::claimed ||
            World::living(machine_, now.owner) != nullptr || !swap_to_next_epoch(now)) {
            return;
        }
        for (std::size_t i = 0; i < machine_.processes.size(); ++i) {
            kill(*machine_.processes[i], "its machine has no owner any more");
        }
    }

    bool wait(sys::Nanoseconds limit, const std::function<bool()>& condition) {
        return world_.executor().wait(condition, limit);
    }

    World& world_;
    Machine& machine_;
    const bool& alive_;
    DaemonOptions options_;
};

} // namespace

void run_daemon(World& world, Machine& machine, const bool& alive, const DaemonOptions& options) {
    Daemon(world, machine, alive, options).live();
}

} // namespace godwit::sim
