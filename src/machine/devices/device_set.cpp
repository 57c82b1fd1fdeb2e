#include "machine/devices/device_set.h"

#include "machine/mac_address.h"
#include "machine/resources.h"
#include "sys/entropy.h"
#include "virtio/balloon/balloon_device.h"
#include "virtio/blk/blk_device.h"
#include "virtio/console/console_device.h"
#include "virtio/net/net_device.h"
#include "virtio/pci_transport.h"
#include "virtio/pci_transport_state.h"
#include "virtio/rng/rng_device.h"

#include <nlohmann/json.hpp>

namespace godwit::machine {

namespace {

/// What a device writes itself, beside its transport.
state::SectionType device_section(DeviceKind kind) noexcept {
    switch (kind) {
    case DeviceKind::disk:
        return virtio::BlkDevice::section;
    case DeviceKind::net:
        return virtio::NetDevice::section;
    case DeviceKind::console:
        return virtio::ConsoleDevice::section;
    case DeviceKind::rng:
        return virtio::RngDevice::section;
    case DeviceKind::balloon:
        return virtio::BalloonDevice::section;
    }
    return {};
}

} // namespace

DeviceSet::DeviceSet(const Args& args) : args_(args) {}

DeviceSet::~DeviceSet() = default;

Result<std::unique_ptr<DeviceSet>> DeviceSet::create(const Args& args) {
    std::unique_ptr<DeviceSet> made(new DeviceSet(args));
    for (const PlannedDevice& planned : plan_devices(*args.spec)) {
        GODWIT_TRY(made->add(planned, nullptr));
    }
    return made;
}

Result<std::unique_ptr<DeviceSet>> DeviceSet::restore(const Args& args, state::SavedState& state) {
    std::unique_ptr<DeviceSet> made(new DeviceSet(args));
    for (const PlannedDevice& planned : plan_devices(*args.spec)) {
        GODWIT_TRY(made->add(planned, &state));
    }
    return made;
}

Status DeviceSet::add(const PlannedDevice& planned, state::SavedState* state) {
    names_.push_back(device_name(planned));
    const virtio::PciTransport::Args place{.memory = args_.memory,
                                           .bus = *args_.pci,
                                           .address_space = *args_.addresses,
                                           .msi_router = *args_.msi,
                                           .doorbells = *args_.doorbells,
                                           .slot = planned.slot};
    if (state == nullptr) {
        auto device = GODWIT_TRY(make_device(planned, nullptr));
        transports_.push_back(GODWIT_TRY(virtio::PciTransport::create(place, std::move(device))));
        return ok();
    }
    std::optional<state::Section> section;
    const state::SectionType type = device_section(planned.kind);
    if (type.written()) {
        section = GODWIT_TRY(state->take(type.id(static_cast<std::uint32_t>(planned.index))));
    }
    auto device = GODWIT_TRY(make_device(planned, section.has_value() ? &*section : nullptr));
    const auto transport = GODWIT_TRY(state->take(virtio::transport_section.id(planned.slot)));
    transports_.push_back(
        GODWIT_TRY(virtio::PciTransport::restore(place, std::move(device), transport)));
    return ok();
}

namespace {

using Device = std::unique_ptr<virtio::VirtioDevice>;

/// Makes or restores a device of type T and keeps a pointer to it through `keep`.
template <typename T, typename Keep>
Result<Device> make(typename T::Args args, const state::Section* section, Keep keep) {
    auto device = section == nullptr ? GODWIT_TRY(T::create(std::move(args)))
                                     : GODWIT_TRY(T::restore(std::move(args), *section));
    keep(device.get());
    return Device(std::move(device));
}

} // namespace

Result<Device> DeviceSet::make_device(const PlannedDevice& planned, const state::Section* section) {
    switch (planned.kind) {
    case DeviceKind::disk:
        return make_disk(planned.index, section);
    case DeviceKind::net:
        return make_net(planned.index, section);
    case DeviceKind::console:
        return make_console(section);
    case DeviceKind::rng:
        return Device(GODWIT_TRY(virtio::RngDevice::create({.instance = 0,
                                                            .loop = args_.back_ends->common_loop(),
                                                            .random = sys::system_random()})));
    case DeviceKind::balloon:
        return make_balloon(section);
    }
    return Error(ErrorCode::internal, "unknown kind of device");
}

Result<Device> DeviceSet::make_disk(std::size_t index, const state::Section* section) {
    const DiskSpec& spec = args_.spec->disks[index];
    auto health_changed = [events = args_.events,
                           name = disk_resource_name(index)](const Error* reason) {
        if (reason != nullptr && events->disk_error) {
            events->disk_error(name, reason->to_string());
        }
    };
    virtio::BlkDevice::Args args{.options = {.instance = static_cast<std::uint32_t>(index),
                                             .serial = spec.serial,
                                             .queues = spec.queues,
                                             .queue_size = spec.queue_size},
                                 .disk = args_.back_ends->take_disk(index),
                                 .loop = args_.back_ends->disk_loop(index),
                                 .health_changed = std::move(health_changed)};
    if (args.disk == nullptr) {
        return Error(ErrorCode::conflict, "the disk is in use by this machine already");
    }
    return make<virtio::BlkDevice>(
        std::move(args), section, [this](virtio::BlkDevice* disk) { disks_.push_back(disk); });
}

Result<Device> DeviceSet::make_net(std::size_t index, const state::Section* section) {
    const NetSpec& spec = args_.spec->nets[index];
    sys::Tap tap = GODWIT_TRY(args_.back_ends->take_tap(index));
    virtio::NetDevice::Args args{.instance = static_cast<std::uint32_t>(index),
                                 .mac = GODWIT_TRY(parse_mac_address(spec.mac)),
                                 .mtu = std::nullopt,
                                 .port = std::make_unique<virtio::TapPort>(std::move(tap)),
                                 .loop = &args_.back_ends->net_loop(index)};
    return make<virtio::NetDevice>(
        std::move(args), section, [this](virtio::NetDevice* net) { nets_.push_back(net); });
}

Result<Device> DeviceSet::make_console(const state::Section* section) {
    const MachineEvents* events = args_.events;
    virtio::ConsoleDevice::Args args{.instance = 0,
                                     .size = {},
                                     .output =
                                         [events](std::span<const std::byte> bytes) {
                                             if (events->console_output) {
                                                 events->console_output("virtio", bytes);
                                             }
                                         },
                                     .ready =
                                         [events] {
                                             if (events->console_ready) {
                                                 events->console_ready("virtio");
                                             }
                                         },
                                     .loop = &args_.back_ends->common_loop()};
    return make<virtio::ConsoleDevice>(
        std::move(args), section, [this](virtio::ConsoleDevice* console) { console_ = console; });
}

Result<Device> DeviceSet::make_balloon(const state::Section* section) {
    virtio::BalloonDevice::Args args{.instance = 0,
                                     .memory = args_.memory,
                                     .reporting = args_.spec->balloon->free_page_reporting
                                                      ? virtio::FreePageReporting::on
                                                      : virtio::FreePageReporting::off,
                                     .loop = &args_.back_ends->common_loop()};
    return make<virtio::BalloonDevice>(
        std::move(args), section, [this](virtio::BalloonDevice* balloon) { balloon_ = balloon; });
}

void DeviceSet::wake() {
    for (const auto& transport : transports_) {
        transport->wake();
    }
}

void DeviceSet::quiesce() {
    for (const auto& transport : transports_) {
        transport->quiesce();
    }
}

Status DeviceSet::quiesce_until(std::chrono::steady_clock::time_point deadline) {
    for (std::size_t i = 0; i < transports_.size(); ++i) {
        if (transports_[i]->quiesce_until(deadline)) {
            continue;
        }
        for (std::size_t resting = 0; resting < i; ++resting) {
            transports_[resting]->wake();
        }
        return Error(ErrorCode::timeout, names_[i] + " does not come to rest in time");
    }
    return ok();
}

std::vector<const state::StateUnit*> DeviceSet::units() const {
    std::vector<const state::StateUnit*> units;
    for (const auto& transport : transports_) {
        units.insert(units.end(), {&transport->device_unit(), transport.get()});
    }
    return units;
}

std::size_t DeviceSet::console_input(std::span<const std::byte> bytes) {
    return console_ == nullptr ? 0 : console_->input(bytes);
}

Status DeviceSet::refresh_disk(std::string_view name) {
    for (std::size_t i = 0; i < disks_.size(); ++i) {
        if (disk_resource_name(i) == name) {
            GODWIT_TRY(disks_[i]->refresh());
            return ok();
        }
    }
    return Error(ErrorCode::not_found, "the machine has no disk '" + std::string(name) + "'");
}

std::uint64_t DeviceSet::disk_bytes(std::size_t disk) const {
    return disks_[disk]->capacity_bytes();
}

Status DeviceSet::set_balloon(std::uint64_t bytes) {
    if (balloon_ == nullptr) {
        return Error(ErrorCode::not_found, "the machine has no balloon");
    }
    return balloon_->set_target(bytes);
}

void DeviceSet::announce() {
    for (virtio::NetDevice* net : nets_) {
        net->announce();
    }
}

namespace {

nlohmann::json to_json(const virtio::NetDirectionCounters& counters) {
    return {
        {"packets", counters.packets}, {"bytes", counters.bytes}, {"dropped", counters.dropped}};
}

nlohmann::json to_json(const virtio::BlkStatistics& disk) {
    return {{"requests", disk.requests},
            {"read_bytes", disk.read_bytes},
            {"written_bytes", disk.written_bytes},
            {"errors", disk.errors}};
}

nlohmann::json to_json(const virtio::BalloonDevice& balloon) {
    const virtio::BalloonUsage usage = balloon.usage();
    nlohmann::json guest = nlohmann::json::object();
    const virtio::BalloonStatistics statistics = balloon.statistics();
    for (std::size_t i = 0; i < virtio::balloon_statistics_count; ++i) {
        if (statistics.values[i].has_value()) {
            guest[std::string(virtio::balloon_statistic_names[i])] = *statistics.values[i];
        }
    }
    return {{"target_bytes", usage.target_bytes},
            {"actual_bytes", usage.actual_bytes},
            {"released_bytes", usage.released_bytes},
            {"kept_bytes", usage.kept_bytes},
            {"guest", std::move(guest)}};
}

} // namespace

std::string DeviceSet::statistics_json() const {
    nlohmann::json document{{"disks", nlohmann::json::array()}, {"nets", nlohmann::json::array()}};
    for (const virtio::BlkDevice* disk : disks_) {
        document["disks"].push_back(to_json(disk->statistics()));
    }
    for (const virtio::NetDevice* net : nets_) {
        const virtio::NetCounters counters = net->counters();
        document["nets"].push_back(
            {{"received", to_json(counters.received)}, {"sent", to_json(counters.sent)}});
    }
    if (balloon_ != nullptr) {
        document["balloon"] = to_json(*balloon_);
    }
    return document.dump();
}

} // namespace godwit::machine
