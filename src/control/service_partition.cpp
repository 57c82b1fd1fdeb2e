#include "control/service_partition.h"

#include "base/log.h"

#include <sys/epoll.h>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace godwit::control {

namespace {

struct PolicyName {
    PartitionPolicy policy;
    std::string_view name;
};
constexpr std::array<PolicyName, 3> policies{{{PartitionPolicy::require, "require"},
                                              {PartitionPolicy::prefer, "prefer"},
                                              {PartitionPolicy::off, "off"}}};

/// First of 2^24 user ids behind those that systemd gives to containers (UIDS-GIDS.md of systemd).
constexpr unsigned first_own_uid = 0x70000000;
constexpr std::uint32_t own_uids = 1U << 24U;
constexpr std::uint64_t map_bytes_max = 64ULL << 10U;

/// Whether all user ids can be given away here: as root, and not in a container with few of them.
bool may_give_any_user() {
    const auto map = sys::read_file("/proc/self/uid_map", map_bytes_max);
    return ::geteuid() == 0 && map.has_value() && map->find("4294967295") != std::string::npos;
}

/// Programs need their loader and the C library, a VMM /dev/kvm; the map of its own memory tells it
/// what to touch before the pause.
std::vector<std::string> visible_paths() {
    return {"/usr", "/lib", "/lib64", "/dev/kvm", "/proc/self/maps"};
}

} // namespace

std::string_view name_of(PartitionPolicy policy) noexcept {
    const auto* const found = std::ranges::find(policies, policy, &PolicyName::policy);
    return found == policies.end() ? "unknown" : found->name;
}

Result<PartitionPolicy> partition_policy_named(std::string_view name) {
    const auto* const found = std::ranges::find(policies, name, &PolicyName::name);
    if (found == policies.end()) {
        return Error(ErrorCode::invalid_argument,
                     "the service partition is 'require', 'prefer' or 'off', not '" +
                         std::string(name.substr(0, 80)) + "'");
    }
    return found->policy;
}

ServicePartition::~ServicePartition() = default;

Result<ServicePartition::Started> ServicePartition::start(sys::EventLoop& loop,
                                                          const sys::SpawnOptions& options,
                                                          std::uint32_t seed,
                                                          Watcher watcher) {
    sys::Confinement confinement{.visible = visible_paths(),
                                 .uid = ::geteuid(),
                                 .gid = ::getegid(),
                                 .filter = GODWIT_TRY(vmm_filter())};
    if (may_give_any_user()) {
        confinement.uid = confinement.gid = first_own_uid + seed % own_uids;
    }
    sys::ConfinedProcess confined = GODWIT_TRY(sys::spawn_confined(options, confinement));
    std::unique_ptr<ServicePartition> partition(
        new ServicePartition(confinement.uid, std::move(confined.refusals), std::move(watcher)));
    ServicePartition* const raw = partition.get();
    auto watch =
        loop.watch(raw->refusals_, EPOLLIN, [raw](std::uint32_t events) { raw->serve(events); });
    if (watch.has_value()) {
        partition->watch_ = std::move(*watch);
    } else {
        partition->refusals_.reset(); // Its calls fail without us.
        log::warn("partition_not_watched", {{"reason", watch.error().to_string()}});
    }
    return Started{.process = std::move(confined.process), .partition = std::move(partition)};
}

/// True if there was one.
bool ServicePartition::take_refusal() {
    const Result<std::optional<sys::Refusal>> refusal = sys::next_refusal(refusals_);
    if (!refusal.has_value() || !refusal->has_value()) {
        return false;
    }
    ++refused_;
    if (listed_.size() < refusals_listed_max) {
        listed_.push_back(describe(**refusal));
        watcher_(listed_.back());
    }
    return true;
}

void ServicePartition::serve(std::uint32_t events) {
    if (!take_refusal() && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        watch_.reset(); // The process has gone.
    }
}

Json ServicePartition::report() {
    // What it was refused as its last act may not have been served yet.
    // Not all of a process that goes on trying: it is served by the loop.
    for (std::size_t i = 0; i < refusals_listed_max && refusals_.valid() && take_refusal(); ++i) {
    }
    return {{"confined", true},
            {"reason", nullptr},
            {"user", uid_},
            {"namespaces", {"user", "mount", "pid", "network", "ipc"}},
            {"refused", refused_},
            {"refused_calls", listed_},
            {"left", left_}};
}

Json report_without_partition(std::string_view reason) {
    return {{"confined", false}, {"reason", reason}};
}

} // namespace godwit::control
