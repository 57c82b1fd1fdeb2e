#include "control/host_pool.h"

#include "base/log.h"
#include "control/division_words.h"
#include "exchange/partition/cpu_partition.h"
#include "exchange/partition/inherit.h"
#include "sys/entropy.h"

#include <sys/sysinfo.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace godwit::control {

using memory::Extent;
using memory::pool_frame_bytes;
using memory::Purpose;

namespace {

Result<std::uint64_t> random_number() {
    std::uint64_t number = 0;
    GODWIT_TRY(sys::system_random().random_bytes(std::as_writable_bytes(std::span(&number, 1))));
    return number;
}

Result<std::uint64_t> host_memory_bytes() {
    struct sysinfo info{};
    if (::sysinfo(&info) != 0) {
        return Error::from_errno(errno, "ask how much memory the host has");
    }
    return std::uint64_t{info.totalram} * info.mem_unit;
}

std::string mebibytes(std::uint64_t bytes) {
    return std::to_string(bytes / mib) + " MiB";
}

} // namespace

std::uint64_t HostPool::tag_of(std::string_view machine) noexcept {
    std::uint64_t hash = 0xCBF2'9CE4'8422'2325; // FNV-1a; names are short and few.
    for (const char c : machine) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100'0000'01B3;
    }
    return hash == 0 ? 1 : hash;
}

Status HostPool::make() {
    if (pool_.has_value()) {
        return ok();
    }
    if (wanted_bytes_ == 0) {
        return Error(ErrorCode::unsupported,
                     "this host has no memory pool: start godwitd with --pool SIZE, or give the "
                     "machine memory of its own");
    }
    const std::uint64_t bytes =
        wanted_bytes_.has_value() ? *wanted_bytes_ : GODWIT_TRY(host_memory_bytes());
    std::uint64_t self = 0;
    while (static_cast<std::uint32_t>(self) == 0) {
        self = GODWIT_TRY(random_number());
    }
    self_ = memory::PoolOwner{static_cast<std::uint32_t>(self)};
    pool_ = GODWIT_TRY(memory::Pool::create(
        round_down(bytes, pool_frame_bytes), self_, GODWIT_TRY(random_number())));
    log::info("pool_made", {{"bytes", pool_->bytes()}, {"owner", self_.value}});
    return ok();
}

Result<std::vector<memory::PoolRun>> HostPool::place(std::string_view machine,
                                                     std::uint64_t bytes) {
    GODWIT_TRY(make());
    const std::uint64_t tag = tag_of(machine);
    const auto all = GODWIT_TRY(pool_->table().snapshot());
    if (std::ranges::any_of(all, [&](const Extent& e) { return e.label.tag == tag; })) {
        return Error(ErrorCode::conflict,
                     "the memory of an earlier machine '" + std::string(machine) +
                         "' has not been given back to the pool yet: try again");
    }
    const std::uint64_t free_bytes = free_frames() * pool_frame_bytes;
    if (bytes > free_bytes) {
        return Error(ErrorCode::resource_exhausted,
                     "the host's memory pool of " + mebibytes(pool_->bytes()) + " has " +
                         mebibytes(free_bytes) + " free, the machine wants " + mebibytes(bytes) +
                         ": stop a machine, or give this one less with --memory");
    }
    const auto taken =
        GODWIT_TRY(pool_->allocate(self_, bytes / pool_frame_bytes, Purpose::machine, tag));
    auto runs = memory::ram_runs(taken);
    if (runs.size() > memory::pool_runs_max) {
        discard(pool_->free(taken), "it was ours a moment ago");
        return Error(ErrorCode::resource_exhausted,
                     "the free memory of the host's pool lies in too many pieces for a machine");
    }
    return runs;
}

Status HostPool::give_back(std::string_view machine) {
    if (!pool_.has_value()) {
        return ok();
    }
    const auto all = GODWIT_TRY(pool_->table().snapshot());
    return pool_->free(memory::extents_of(all, self_, Purpose::machine, tag_of(machine)));
}

Status HostPool::adopt(sys::Fd memory, sys::Fd table, std::string_view machine) {
    memory::Pool found = GODWIT_TRY(memory::Pool::adopt(std::move(memory), std::move(table)));
    if (pool_.has_value()) {
        return pool_->table().pool_id() == found.table().pool_id()
                   ? ok()
                   : Error(ErrorCode::conflict, "the machine lies in another memory pool");
    }
    const std::uint64_t tag = tag_of(machine);
    const auto all = GODWIT_TRY(found.table().snapshot());
    const auto its = std::ranges::find_if(all, [&](const Extent& extent) {
        return extent.label.tag == tag && extent.label.purpose == Purpose::machine;
    });
    if (its == all.end()) {
        return Error(ErrorCode::corrupt, "the pool its VMM handed out knows nothing of it");
    }
    take_over(std::move(found), its->owner);
    return ok();
}

void HostPool::take_over(memory::Pool pool, memory::PoolOwner self) {
    pool_ = std::move(pool);
    self_ = self;
    log::info("pool_found", {{"bytes", pool_->bytes()}, {"owner", self_.value}});
}

Status HostPool::inherit_all() {
    std::set<memory::PoolOwner> others;
    for (const Extent& extent : GODWIT_TRY(pool_->table().snapshot())) {
        if (extent.owner != self_) {
            others.insert(extent.owner);
        }
    }
    for (const memory::PoolOwner other : others) {
        exchange::partition::Legacy legacy;
        GODWIT_TRY(exchange::partition::claim_memory(*pool_, other, self_, legacy));
        GODWIT_TRY(exchange::partition::scrub_memory(*pool_, legacy));
        GODWIT_TRY(pool_->table().unregister_owner(other));
        for (const memory::PoolOwner owner : {other, self_}) { // Nothing is divided any more.
            exchange::partition::CpuPartition::remove_left(
                division::cpu_partition_name(owner.value));
        }
        log::info("pool_inherited", {{"from", other.value}, {"extents", legacy.claimed.size()}});
    }
    return ok();
}

Status HostPool::keep_only(const std::set<std::string>& machines) {
    if (!pool_.has_value()) {
        return ok();
    }
    GODWIT_TRY(inherit_all());
    std::set<std::uint64_t> tags;
    for (const std::string& machine : machines) {
        tags.insert(tag_of(machine));
    }
    std::vector<Extent> left;
    for (const Extent& extent : GODWIT_TRY(pool_->table().snapshot())) {
        const bool wanted =
            extent.label.purpose == Purpose::machine && tags.contains(extent.label.tag);
        if (extent.owner == self_ && extent.label.purpose != Purpose::free && !wanted) {
            left.push_back(extent);
        }
    }
    return pool_->free(left);
}

std::uint64_t HostPool::free_frames() const {
    if (!pool_.has_value()) {
        return 0;
    }
    const auto all = pool_->table().snapshot();
    return all.has_value()
               ? memory::frames_of(memory::extents_of(*all, self_, Purpose::free, 0), self_)
               : 0;
}

Json HostPool::facts(const std::set<std::string>& machines) const {
    if (!pool_.has_value()) {
        return {{"bytes", 0}, {"free_bytes", 0}, {"extents", Json::array()}};
    }
    std::map<std::uint64_t, std::string> names;
    for (const std::string& machine : machines) {
        names.emplace(tag_of(machine), machine);
    }
    constexpr std::array<std::string_view, 5> purposes{
        "free", "machine", "program", "state", "instance"};
    Json list = Json::array();
    const auto all = pool_->table().snapshot();
    for (const Extent& extent : all.value_or(std::vector<Extent>())) {
        const auto name = names.find(extent.label.tag);
        list.push_back({{"first_frame", extent.run.first},
                        {"frames", extent.run.frames},
                        {"owner", extent.owner.value},
                        {"epoch", extent.epoch},
                        {"purpose", purposes[static_cast<std::size_t>(extent.label.purpose)]},
                        {"machine", name == names.end() ? Json() : Json(name->second)}});
    }
    const auto proven =
        all.has_value() ? pool_->table().prove(*all) : Result<std::size_t>(all.error());
    static bool warned = false; // Control thread; once per process, facts are asked for often.
    if (!proven.has_value() && !std::exchange(warned, true)) {
        log::warn("pool_changes_not_proven", {{"reason", proven.error().to_string()}});
    }
    return {{"pool_id", std::to_string(pool_->table().pool_id())},
            {"bytes", pool_->bytes()},
            {"free_bytes", free_frames() * pool_frame_bytes},
            {"instance", self_.value},
            {"changes_proven", proven.has_value() ? Json(*proven) : Json()},
            {"changes_not_proven", proven.has_value() ? Json() : Json(proven.error().to_string())},
            {"extents", std::move(list)}};
}

} // namespace godwit::control
