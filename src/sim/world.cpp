#include "sim/world.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace godwit::sim {

namespace {

const std::string no_machine = "00000000-0000-4000-8000-000000000000";

std::string text_of(const handover::Ownership& now) {
    return to_string(now.owner) + " in epoch " + std::to_string(now.epoch) + " (" +
           std::string(handover::name_of(now.tenure)) + ")";
}

} // namespace

Machine& World::add_machine() {
    std::string id = no_machine;
    const std::string number = std::to_string(machines_.size() + 1);
    id.replace(id.size() - number.size(), number.size(), number);
    const handover::InstanceId first{next_id_};
    // A memfd of one page: only a host without memory refuses it.
    machines_.push_back(std::make_unique<Machine>(
        Machine{.name = "m" + number,
                .id = id,
                .record = GODWIT_MUST(handover::OwnerRecord::create(id, first))}));
    Machine& machine = *machines_.back();
    Process& process = add_process(machine);
    process.copy = machine.version;
    process.executes = true;
    return machine;
}

Process& World::add_process(Machine& machine) {
    // As in add_machine().
    auto own = GODWIT_MUST(
        handover::OwnerRecord::adopt(GODWIT_MUST(machine.record.fd().duplicate()), machine.id));
    const handover::InstanceId id{next_id_++};
    machine.processes.push_back(std::make_unique<Process>(
        Process{.id = id,
                .machine = machine,
                .name = machine.name + "." + std::to_string(machine.processes.size()),
                .record = std::move(own)}));
    return *machine.processes.back();
}

Process* World::living(const Machine& machine, handover::InstanceId id) {
    const auto found = std::ranges::find_if(machine.processes,
                                            [&](const auto& process) { return process->id == id; });
    return found != machine.processes.end() && (*found)->alive ? found->get() : nullptr;
}

Process* World::viable(const Machine& machine) {
    const handover::Ownership now = machine.record.read();
    const auto complete = [&](handover::InstanceId id) {
        Process* const process = living(machine, id);
        return process != nullptr && process->copy == machine.version ? process : nullptr;
    };
    Process* const owner = complete(now.owner);
    return owner == nullptr && now.tenure == handover::Tenure::claimed
               ? complete(machine.claimed_from)
               : owner;
}

void World::begin_executing(Process& process) {
    if (!process.alive) {
        return;
    }
    Machine& machine = process.machine;
    if (process.copy != machine.version) {
        violate(process.name + " runs the guest from copy " + std::to_string(process.copy) +
                ", the guest is at " + std::to_string(machine.version));
    }
    process.executes = true;
    process.frozen = false;
    process.copy = ++machine.version;
    note(process.name + " runs the guest, by the record " + text_of(machine.record.read()));
    check();
}

void World::stop_executing(Process& process) {
    if (process.alive && process.executes) {
        process.executes = false;
        note(process.name + " stops the guest");
    }
}

void World::vanish(Process& process) {
    process.alive = false;
    process.executes = false;
    process.frozen = false;
    process.calls.clear();
    // What its stack still does while it is unwound happens to a record of no machine. As in
    // add_machine().
    process.record = GODWIT_MUST(handover::OwnerRecord::create(no_machine, process.id));
    executor_.kill(process.task);
}

void World::shut_down() {
    for (const auto& machine : machines_) {
        for (const auto& process : machine->processes) {
            process->alive = false;
            executor_.kill(process->task);
        }
    }
    executor_.finish_killed();
}

void World::end(Process& process, std::string_view why) {
    if (!process.alive) {
        return;
    }
    note(process.name + " ends: " + std::string(why));
    vanish(process);
    Machine& machine = process.machine;
    if (!machine.lost && viable(machine) == nullptr) {
        violate("with " + process.name + " the last copy of " + machine.name +
                " was thrown away, by the record " + text_of(machine.record.read()));
    }
}

void World::crash(Process& process) {
    if (!process.alive) {
        return;
    }
    note("kill -9 of " + process.name);
    vanish(process);
    process.machine.lost = process.machine.lost || viable(process.machine) == nullptr;
}

void World::check_report(const Process& source, const handover::Report& report) {
    if (!source.alive) {
        return;
    }
    const handover::Ownership now = source.machine.record.read();
    const bool own = now.owner == source.id && now.tenure == handover::Tenure::running;
    const bool says_own = report.outcome == handover::Outcome::rolled_back;
    note(source.name + " reports " + std::string(handover::name_of(report.outcome)) +
         (report.failed_step.empty() ? "" : " at " + report.failed_step + ": " + report.reason));
    if (own != says_own) {
        violate(source.name + " reports " + std::string(handover::name_of(report.outcome)) +
                ", the record says " + text_of(now));
    }
    if (report.outcome == handover::Outcome::done &&
        (report.after.owner == source.id || report.after.epoch != report.before.epoch + 1 ||
         report.after.tenure != handover::Tenure::running)) {
        violate(source.name + " reports done and names " + text_of(report.after));
    }
}

void World::check() {
    for (const auto& machine : machines_) {
        const handover::Ownership now = machine->record.read();
        std::size_t executing = 0;
        for (const auto& process : machine->processes) {
            if (!process->executes) {
                continue;
            }
            ++executing;
            if (now.owner != process->id || now.tenure != handover::Tenure::running) {
                violate(process->name + " runs the guest, the record says " + text_of(now));
            }
        }
        if (executing > 1) {
            violate(std::to_string(executing) + " processes run the guest of " + machine->name);
        }
        if (!machine->lost && viable(*machine) == nullptr) {
            violate("no copy of " + machine->name + " can be run or recovered, by the record " +
                    text_of(now));
        }
    }
}

void World::violate(const std::string& what) {
    if (violation_.empty()) {
        violation_ = what;
        note("VIOLATION: " + what);
    }
}

void World::note(const std::string& text) {
    const auto since = executor_.now().time_since_epoch();
    std::array<char, 32> moment{};
    std::snprintf(
        moment.data(), moment.size(), "%12.6f ", std::chrono::duration<double>(since).count());
    trace_.push_back(moment.data() + text);
}

} // namespace godwit::sim
