/// Machines whose RAM lies in the host's memory pool: where they are placed, when their frames are
/// given back, how a new godwitd finds the pool.

#include "base/log.h"
#include "control/supervisor.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {

std::set<std::string> Supervisor::pool_machines() const {
    std::set<std::string> names;
    for (const auto& [name, entry] : machines_) {
        if (entry->document.in_pool) {
            names.insert(name);
        }
    }
    for (const auto& [name, users] : leaving_) {
        names.insert(name);
    }
    return names;
}

std::set<std::string> Supervisor::pool_keepers() const {
    std::set<std::string> names = pool_machines();
    for (const auto& [name, entry] : machines_) {
        names.insert(name);
    }
    return names;
}

Json Supervisor::pool_facts() const {
    return pool_.facts(pool_keepers());
}

Status Supervisor::place_memory(MachineDocument& document) {
    if (!document.in_pool) {
        return ok();
    }
    if (pool_.pool() == nullptr && !pool_machines().empty()) {
        return Error(ErrorCode::busy,
                     "the memory pool of the machines that run has not been found yet: try again");
    }
    auto runs = GODWIT_TRY(pool_.place(document.name, document.memory_bytes));
    Result<MachineDocument> placed = placed_machine_document(document.json, std::move(runs));
    if (!placed.has_value()) {
        discard(pool_.give_back(document.name), "the first error counts");
        return std::move(placed.error());
    }
    document = std::move(*placed);
    return ok();
}

std::vector<InheritedFd> Supervisor::pool_descriptors(const MachineDocument& document) {
    memory::Pool* const pool = pool_.pool();
    if (!document.in_pool || pool == nullptr) {
        return {};
    }
    return {{.flag = "--pool-fd", .fd = &pool->memory_fd()},
            {.flag = "--pool-table-fd", .fd = &pool->table().fd()}};
}

void Supervisor::release_memory(const std::string& name,
                                std::vector<std::shared_ptr<VmmInstance>> users) {
    leaving_[name] = std::move(users);
    release_ended();
}

void Supervisor::release_ended() {
    std::erase_if(leaving_, [this](const auto& machine) {
        if (std::ranges::any_of(machine.second, [](const auto& vmm) { return vmm->alive(); })) {
            return false;
        }
        const Status given = pool_.give_back(machine.first);
        if (!given.has_value()) {
            log::error("pool_memory_lost",
                       {{"machine", machine.first}, {"reason", given.error().to_string()}});
        }
        return true;
    });
}

void Supervisor::find_pool(const MachineEntry& entry, VmmInstance& vmm) {
    if (!entry.document.in_pool || pool_.pool() != nullptr || !entry.stands_for(vmm)) {
        return;
    }
    vmm.fetch_pool(Reply<VmmAnswer>([this, name = vmm.machine()](Result<VmmAnswer> answer) {
        Status found = answer.has_value() ? ok() : Status(answer.error());
        if (found.has_value() && answer->fds.size() != 2) {
            found = Error(ErrorCode::corrupt, "its VMM hands out no memory pool");
        }
        const bool first = pool_.pool() == nullptr;
        if (found.has_value()) {
            found = pool_.adopt(std::move(answer->fds[0]), std::move(answer->fds[1]), name);
        }
        if (found.has_value() && first) {
            found = pool_.keep_only(pool_keepers());
        }
        if (!found.has_value()) {
            log::warn("pool_not_found", {{"machine", name}, {"reason", found.error().to_string()}});
        }
        check_settled();
    }));
}

void Supervisor::inherit_pool(memory::Pool pool, memory::PoolOwner self) {
    pool_.take_over(std::move(pool), self);
}

} // namespace godwit::control
