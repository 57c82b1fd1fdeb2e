#include "machine/resources.h"

#include "block/image.h"
#include "sys/tap.h"

#include <algorithm>
#include <set>

namespace godwit::machine {

std::string disk_resource_name(std::size_t disk) {
    return "disk" + std::to_string(disk);
}

std::string delta_resource_name(std::size_t disk, std::size_t delta) {
    return disk_resource_name(disk) + ".delta" + std::to_string(delta);
}

std::string net_resource_name(std::size_t net, std::size_t queue_pair) {
    return "net" + std::to_string(net) + "." + std::to_string(queue_pair);
}

std::vector<std::string> resource_names(const MachineSpec& spec) {
    std::vector<std::string> names{std::string(ram_resource_name)};
    if (spec.memory.kind == memory::RamKind::pool) {
        names.emplace_back(pool_table_resource_name);
    }
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        names.push_back(disk_resource_name(i));
        for (std::size_t delta = 0; delta < spec.disks[i].deltas.size(); ++delta) {
            names.push_back(delta_resource_name(i, delta));
        }
    }
    for (std::size_t i = 0; i < spec.nets.size(); ++i) {
        for (std::size_t pair = 0; pair < spec.nets[i].queue_pairs; ++pair) {
            names.push_back(net_resource_name(i, pair));
        }
    }
    return names;
}

Status check_resources(const MachineSpec& spec, const Resources& resources) {
    const std::vector<std::string> names = resource_names(spec);
    std::set<std::string_view> missing(names.begin(), names.end());
    for (const Resource& resource : resources) {
        if (missing.erase(resource.name) == 0) {
            return Error(ErrorCode::invalid_argument,
                         "resource '" + resource.name + "' does not belong to this machine");
        }
        if (!resource.fd.valid()) {
            return Error(ErrorCode::invalid_argument,
                         "resource '" + resource.name + "' came without a descriptor");
        }
    }
    if (!missing.empty()) {
        return Error(ErrorCode::invalid_argument,
                     "resource '" + std::string(*missing.begin()) + "' is missing");
    }
    return ok();
}

Result<std::reference_wrapper<const sys::Fd>> find_resource(const Resources& resources,
                                                            std::string_view name) {
    const auto found = std::ranges::find(resources, name, &Resource::name);
    if (found == resources.end()) {
        return Error(ErrorCode::not_found, "no resource '" + std::string(name) + "'");
    }
    return std::cref(found->fd);
}

Result<Resources> open_resources(const MachineSpec& spec) {
    const auto ram =
        GODWIT_TRY(memory::RamBacking::create(spec.name, spec.memory).with_context("guest memory"));
    Resources resources = GODWIT_TRY(open_resources_except_ram(spec));
    resources.push_back({std::string(ram_resource_name), GODWIT_TRY(ram.fd().duplicate())});
    return resources;
}

Result<Resources> open_resources_except_ram(const MachineSpec& spec) {
    Resources resources;
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        const DiskSpec& disk = spec.disks[i];
        resources.push_back(
            {disk_resource_name(i),
             GODWIT_TRY(block::open_image(disk.path,
                                          {.read_only = disk.read_only, .direct = disk.direct}))});
        for (std::size_t delta = 0; delta < disk.deltas.size(); ++delta) {
            const DeltaSpec& spec_of = disk.deltas[delta];
            resources.push_back(
                {delta_resource_name(i, delta),
                 GODWIT_TRY(block::open_image(spec_of.path,
                                              {.read_only = false, .direct = spec_of.direct}))});
        }
    }
    for (std::size_t i = 0; i < spec.nets.size(); ++i) {
        const NetSpec& net = spec.nets[i];
        auto queues = GODWIT_TRY(sys::Tap::open(net.tap, net.queue_pairs)).take();
        for (std::size_t pair = 0; pair < queues.size(); ++pair) {
            resources.push_back({net_resource_name(i, pair), std::move(queues[pair])});
        }
    }
    return resources;
}

} // namespace godwit::machine
