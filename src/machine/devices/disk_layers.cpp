#include "machine/devices/disk_layers.h"

#include "base/fault_point.h"
#include "base/log.h"
#include "block/file_device.h"
#include "machine/resources.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <utility>

namespace godwit::machine {

namespace {
/// How often the state is published.
constexpr std::chrono::milliseconds tick_distance(500);
} // namespace

std::string_view name_of(block::DeltaPressure pressure) noexcept {
    switch (pressure) {
    case block::DeltaPressure::low:
        return "low";
    case block::DeltaPressure::high:
        return "high";
    case block::DeltaPressure::full:
        break;
    }
    return "full";
}

DiskLayers::DiskLayers(const Args& args) : args_(args), name_(disk_resource_name(args.index)) {}

Result<std::unique_ptr<DiskLayers>> DiskLayers::create(const Args& args,
                                                       const DiskSpec& disk,
                                                       std::unique_ptr<block::BlockDevice> base,
                                                       std::vector<sys::Fd> images) {
    std::unique_ptr<DiskLayers> made(new DiskLayers(args));
    DiskLayers* const raw = made.get();
    raw->geometry_ = base->geometry();
    GODWIT_TRY(raw->add_closed(disk, std::move(images)));
    raw->alarm_ = GODWIT_TRY(args.clock.create_alarm([raw] { raw->publish(); }));
    block::LayeredDevice::Opening opening;
    if (!raw->closed_.empty()) {
        opening.open = [raw](auto& layers) { return raw->open_all(layers); };
        opening.tried = [raw](const Status& status) { raw->tried(status); };
    }
    raw->owned_ =
        GODWIT_TRY(block::LayeredDevice::create(std::move(base), args.clock, std::move(opening)));
    raw->layered_ = raw->owned_.get();
    raw->publish();
    return made;
}

Status DiskLayers::add_closed(const DiskSpec& disk, std::vector<sys::Fd> images) {
    GODWIT_ASSERT(images.size() == disk.deltas.size());
    for (std::size_t i = 0; i < images.size(); ++i) {
        const DeltaSpec& spec = disk.deltas[i];
        block::DeltaFile storage(images[i]);
        const block::DeltaHeader header =
            GODWIT_TRY(block::read_delta_header(storage).with_context("'" + spec.path + "'"));
        if (block::to_text(header.snapshot_id) != spec.snapshot) {
            return Error(ErrorCode::conflict,
                         "'" + spec.path + "' is the delta of snapshot " +
                             block::to_text(header.snapshot_id) +
                             ", the document of the machine "
                             "says " +
                             spec.snapshot);
        }
        if (header.disk_bytes != geometry_.bytes) {
            return Error(ErrorCode::conflict,
                         "'" + spec.path + "' is the delta of a disk of " +
                             std::to_string(header.disk_bytes) + " bytes, '" + disk.path +
                             "' has " + std::to_string(geometry_.bytes));
        }
        closed_.push_back({.spec = spec,
                           .image = std::move(images[i]),
                           .epoch = header.epoch,
                           .state = std::nullopt});
    }
    return ok();
}

// --- opening ---

void DiskLayers::open() {
    layered_->open();
}

Status DiskLayers::open_state(Closed& closed) const {
    if (closed.state.has_value()) {
        return ok();
    }
    block::DeltaFile storage(closed.image);
    const block::DeltaHeader header = GODWIT_TRY(block::read_delta_header(storage));
    if (header.epoch != closed.epoch ||
        block::to_text(header.snapshot_id) != closed.spec.snapshot) {
        return Error(ErrorCode::conflict,
                     "somebody else has opened it: its epoch is " + std::to_string(header.epoch) +
                         ", not " + std::to_string(closed.epoch));
    }
    closed.state = GODWIT_TRY(block::open_delta(storage, closed.epoch + 1));
    closed.epoch = closed.state->header.epoch;
    return ok();
}

Status DiskLayers::open_all(std::unique_ptr<block::BlockDevice>& layers) {
    fault_point("machine.disk_layers.open");
    std::vector<std::unique_ptr<block::OverlayDevice>> overlays;
    for (Closed& closed : closed_) {
        GODWIT_TRY(open_state(closed).with_context("the delta '" + closed.spec.path + "'"));
    }
    for (Closed& closed : closed_) {
        block::DeltaState state = std::move(*closed.state);
        closed.state.reset();
        overlays.push_back(GODWIT_TRY(overlay_of(closed.spec, closed.image, std::move(state))));
    }
    for (std::unique_ptr<block::OverlayDevice>& overlay : overlays) {
        overlays_.push_back(overlay.get());
        overlay->put_over(std::move(layers));
        layers = std::move(overlay);
    }
    for (const Closed& closed : closed_) {
        specs_.push_back(closed.spec);
    }
    closed_.clear();
    return ok();
}

Result<std::unique_ptr<block::OverlayDevice>>
DiskLayers::overlay_of(const DeltaSpec& spec, const sys::Fd& image, block::DeltaState state) {
    auto file = GODWIT_TRY(
        block::FileDevice::create(GODWIT_TRY(image.duplicate()),
                                  args_.loop,
                                  {.name = spec.path, .queue_depth = args_.queue_depth}));
    return block::OverlayDevice::create_over(
        geometry_,
        std::move(file),
        std::move(state),
        args_.clock,
        {},
        {.pressure = [this, path = spec.path](block::DeltaPressure now) { pressure(path, now); }});
}

/// A delta that cannot be opened is told once; the guest's requests wait.
void DiskLayers::tried(const Status& status) {
    if (status.has_value()) {
        if (std::exchange(told_closed_, false)) {
            log::info("disk_layers_open", {{"disk", name_}});
        }
        publish();
        return;
    }
    if (std::exchange(told_closed_, true)) {
        return;
    }
    log::error("disk_layers_closed", {{"disk", name_}, {"reason", status.error().to_string()}});
    if (!abandoned_ && args_.events.disk_error) {
        args_.events.disk_error(name_, "its writes wait: " + status.error().to_string());
    }
}

void DiskLayers::abandon() noexcept {
    abandoned_ = true;
    alarm_->clear();
}

// --- changes ---

Status DiskLayers::note(const DiskSpec& disk) const {
    return args_.events.disk_moved ? args_.events.disk_moved(args_.index, disk) : ok();
}

Status DiskLayers::freeze(const DiskSpec& disk, DeltaPlace& delta, Frozen frozen) {
    auto overlay = GODWIT_TRY(overlay_of(delta.spec(), delta.image(), delta.take_state()));
    auto change = [this, disk, made = std::move(overlay)](auto& layers) mutable -> Status {
        fault_point("machine.disk_snapshot.note");
        GODWIT_TRY(note(disk));
        fault_point("machine.disk_snapshot.noted");
        overlays_.push_back(made.get());
        specs_ = disk.deltas;
        made->put_over(std::move(layers));
        layers = std::move(made);
        return ok();
    };
    const sys::Moment begun = args_.clock.now();
    return layered_->change(
        std::move(change), [this, begun, tell = std::move(frozen)](Status status) mutable {
            publish();
            tell(status.has_value() ? Result<sys::Nanoseconds>(args_.clock.now() - begun)
                                    : Result<sys::Nanoseconds>(std::move(status.error())));
        });
}

Status DiskLayers::take_all_away(const DiskSpec& disk, Frozen changed) {
    auto change = [this, disk](std::unique_ptr<block::BlockDevice>& layers) -> Status {
        fault_point("machine.disk_merge.note");
        GODWIT_TRY(note(disk));
        fault_point("machine.disk_merge.noted");
        for (; !overlays_.empty(); overlays_.pop_back()) {
            layers = overlays_.back()->take_base();
        }
        specs_.clear();
        return ok();
    };
    const sys::Moment begun = args_.clock.now();
    return layered_->change(
        std::move(change), [this, begun, tell = std::move(changed)](Status status) mutable {
            publish();
            tell(status.has_value() ? Result<sys::Nanoseconds>(args_.clock.now() - begun)
                                    : Result<sys::Nanoseconds>(std::move(status.error())));
        });
}

void DiskLayers::commit(std::move_only_function<void(Status)> committed) {
    const bool due =
        layered_->opened() && !std::ranges::all_of(overlays_, &block::OverlayDevice::committed);
    if (!due) {
        committed(ok());
        return;
    }
    // A change that changes nothing: its flush, and the guest hears of one that fails.
    auto shared = std::make_shared<std::move_only_function<void(Status)>>(std::move(committed));
    Status begun = layered_->change([](auto&) { return ok(); },
                                    [shared](Status status) { (*shared)(std::move(status)); });
    if (!begun.has_value()) {
        (*shared)(std::move(begun));
    }
}

// --- telling ---

void DiskLayers::pressure(const std::string& path, block::DeltaPressure now) {
    if (abandoned_) {
        return;
    }
    log::warn("disk_delta_pressure",
              {{"disk", name_}, {"delta", path}, {"pressure", name_of(now)}});
    if (args_.events.disk_pressure) {
        args_.events.disk_pressure(name_, path, name_of(now));
    }
    alarm_->set(args_.clock.now());
}

void DiskLayers::publish() {
    if (abandoned_) {
        return;
    }
    std::vector<DeltaUse> now;
    for (const Closed& closed : closed_) {
        now.push_back({.path = closed.spec.path,
                       .snapshot = closed.spec.snapshot,
                       .status = std::nullopt,
                       .cluster_bytes = 0});
    }
    for (std::size_t i = 0; i < overlays_.size(); ++i) {
        now.push_back({.path = specs_[i].path,
                       .snapshot = specs_[i].snapshot,
                       .status = overlays_[i]->status(),
                       .cluster_bytes = overlays_[i]->header().cluster_bytes});
    }
    if (!now.empty()) {
        alarm_->set(args_.clock.now() + tick_distance);
    }
    const std::lock_guard lock(mutex_);
    published_ = std::move(now);
}

std::vector<DeltaUse> DiskLayers::deltas() const {
    const std::lock_guard lock(mutex_);
    return published_;
}

std::string to_json(const std::vector<DeltaUse>& deltas) {
    nlohmann::json list = nlohmann::json::array();
    for (const DeltaUse& delta : deltas) {
        nlohmann::json one{{"path", delta.path}, {"snapshot", delta.snapshot}, {"open", false}};
        if (delta.status.has_value()) {
            const block::OverlayStatus& status = *delta.status;
            one["open"] = true;
            one["room_bytes"] = status.slots * delta.cluster_bytes;
            one["used_bytes"] = status.slots_used * delta.cluster_bytes;
            one["mapped_bytes"] = status.clusters_mapped * delta.cluster_bytes;
            one["base_written_bytes"] = status.base_written_bytes;
            one["waiting_requests"] = status.waiting;
            one["pressure"] = name_of(status.pressure);
        }
        list.push_back(std::move(one));
    }
    return list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

} // namespace godwit::machine
