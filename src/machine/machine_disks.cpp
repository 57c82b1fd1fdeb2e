/// Disks that move to another place while the guest uses them, and what is told of disks. Freezing
/// and merging: machine_layers.cpp.

#include "base/log.h"
#include "block/move/disk_move.h"
#include "machine/machine_impl.h"
#include "machine/resources.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::machine {

Result<std::size_t> Machine::Impl::disk_index(std::string_view disk) const {
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        if (disk_resource_name(i) == disk) {
            return i;
        }
    }
    return Error(ErrorCode::not_found,
                 "the machine has no disk '" + std::string(disk.substr(0, 40)) + "'");
}

Status Machine::Impl::check_disk_idle(std::size_t index) const {
    const std::string name = disk_resource_name(index);
    if (!ready || ended) {
        return Error(ErrorCode::conflict,
                     "only a disk of a machine with a guest is moved, frozen or merged");
    }
    const DiskBackEnd& back_end = back_ends->disk(index);
    if (back_end.move != nullptr) {
        return Error(ErrorCode::conflict,
                     name + " is being moved to '" + back_end.move->destination_path() +
                         "' already: wait for its end or cancel it");
    }
    if (back_end.merge != nullptr || back_end.freeze != nullptr) {
        return Error(ErrorCode::conflict,
                     name + (back_end.merge != nullptr
                                 ? " is being merged: wait for its end or cancel it"
                                 : " is being frozen: wait for its end"));
    }
    if (spec.disks[index].read_only) {
        return Error(ErrorCode::unsupported,
                     name + " is attached for reading only, and such a disk is neither moved nor "
                            "frozen: copy its image");
    }
    return ok();
}

/// Every image the machine has, by name.
Result<std::vector<block::OwnImage>> Machine::Impl::own_images() const {
    std::vector<block::OwnImage> images;
    const auto add = [&](std::string name) -> Status {
        const sys::Fd& image = GODWIT_TRY(find_resource(resources, name)).get();
        images.push_back({.name = std::move(name), .image = &image});
        return ok();
    };
    // Bases first: an image is found by its disk's index.
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        GODWIT_TRY(add(disk_resource_name(i)));
    }
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        for (std::size_t delta = 0; delta < spec.disks[i].deltas.size(); ++delta) {
            GODWIT_TRY(add(delta_resource_name(i, delta)));
        }
    }
    return images;
}

namespace {

/// A disk that lies elsewhere now.
DiskSpec moved(DiskSpec spec, const block::ImagePlace& now) {
    spec.path = now.path;
    spec.direct = now.direct;
    return spec;
}

block::DiskMoveHooks
hooks_for(const MachineEvents& events, std::size_t index, const DiskSpec& spec) {
    return {.note =
                [&events, index, spec](const block::ImagePlace& now) {
                    return events.disk_moved ? events.disk_moved(index, moved(spec, now)) : ok();
                },
            .ended = events.disk_move_ended};
}

} // namespace

Result<std::uint64_t> Machine::start_disk_move(const block::DiskMoveRequest& request) {
    Impl& m = *impl_;
    GODWIT_TRY(block::validate(request));
    const std::size_t index = GODWIT_TRY(m.disk_index(request.disk));
    GODWIT_TRY(m.check_disk_idle(index));
    const DiskSpec& spec = m.spec.disks[index];
    DiskBackEnd& back_end = m.back_ends->disk(index);
    const std::vector<block::OwnImage> own = GODWIT_TRY(m.own_images());
    sys::EventLoop& loop = back_end.thread->loop();
    block::BlockGeometry geometry;
    loop.run_and_wait([&] { geometry = back_end.moving->geometry(); });
    block::DiskDestination destination = GODWIT_TRY(block::DiskDestination::open(
        {.path = request.destination,
         .bytes = geometry.bytes,
         .logical_block_bytes = geometry.logical_block_bytes,
         .direct = spec.direct,
         .own = own,
         .existing = request.must_make ? block::Existing::nothing : block::Existing::anything}));
    block::DiskMove::Args args{.name = request.disk,
                               .source = spec.path,
                               .disk = *back_end.moving,
                               .loop = loop,
                               .clock = *back_end.clock,
                               .hooks = hooks_for(m.events, index, spec),
                               .request = request,
                               .queue_depth = back_end.queue_depth,
                               .source_wear = block::wear_weight_of(*own[index].image)};
    Result<std::unique_ptr<block::DiskMove>> started(nullptr);
    loop.run_and_wait([&] { started = block::DiskMove::start(std::move(args), destination); });
    if (!started.has_value()) {
        destination.remove();
        return std::move(started.error());
    }
    back_end.move = std::move(*started);
    log::info(
        "disk_move_started",
        {{"disk", request.disk}, {"destination", request.destination}, {"scheme", request.scheme}});
    return back_end.move->state().id;
}

Status Machine::cancel_disk_move(std::string_view disk) {
    Impl& m = *impl_;
    const std::size_t index = GODWIT_TRY(m.disk_index(disk));
    DiskBackEnd* const back_end = m.back_ends == nullptr ? nullptr : &m.back_ends->disk(index);
    if (back_end == nullptr || (back_end->move == nullptr && back_end->merge == nullptr)) {
        return Error(ErrorCode::not_found,
                     std::string(disk) + " is being neither moved nor merged");
    }
    Status cancelled;
    m.back_ends->disk_loop(index).run_and_wait([&] {
        cancelled =
            back_end->move != nullptr ? back_end->move->cancel() : back_end->merge->cancel();
    });
    return cancelled;
}

std::vector<Machine::DiskMoving> Machine::disks_moving() const {
    std::vector<DiskMoving> moving;
    const Impl& m = *impl_;
    for (std::size_t i = 0; m.back_ends != nullptr && i < m.back_ends->disk_count(); ++i) {
        const DiskBackEnd& back_end = m.back_ends->disk(i);
        if (back_end.move != nullptr) {
            moving.push_back({.work = DiskWork::move,
                              .disk = back_end.move->name(),
                              .destination = back_end.move->destination_path(),
                              .stuck = back_end.move->stranded(),
                              .safe = back_end.move->state().safe});
        } else if (back_end.merge != nullptr || back_end.freeze != nullptr) {
            moving.push_back(
                {.work = back_end.merge != nullptr ? DiskWork::merge : DiskWork::freeze,
                 .disk = disk_resource_name(i),
                 .destination = {}});
        }
    }
    return moving;
}

void Machine::Impl::settle_move(std::size_t i) {
    DiskBackEnd& back_end = back_ends->disk(i);
    const block::DiskMoveState state = back_end.move->state();
    last_moves[i] = to_json(state);
    block::DiskDestination destination = back_end.move->take_destination();
    if (state.report->outcome == block::MoveOutcome::moved) {
        spec.disks[i] = moved(spec.disks[i], back_end.move->place());
        const auto resource = std::ranges::find(resources, disk_resource_name(i), &Resource::name);
        resource->fd = std::move(destination).keep(); // Closes the old image and its lock.
    } else {
        destination.remove();
    }
    log::info("disk_move_ended",
              {{"disk", state.disk}, {"report", std::string_view(last_moves[i])}});
    back_end.thread->loop().run_and_wait([&] { back_end.move.reset(); });
}

std::vector<Machine::DiskSettled> Machine::settle_disks() {
    Impl& m = *impl_;
    std::vector<DiskSettled> settled;
    m.last_moves.resize(m.spec.disks.size());
    m.last_merges.resize(m.spec.disks.size());
    for (std::size_t i = 0; i < m.spec.disks.size(); ++i) {
        const DiskBackEnd& back_end = m.back_ends->disk(i);
        const std::string name = disk_resource_name(i);
        if (back_end.move != nullptr && back_end.move->over()) {
            m.settle_move(i);
            settled.push_back({.disk = name, .work = DiskWork::move});
        } else if (back_end.merge != nullptr && back_end.merge->over()) {
            m.settle_merge(i);
            settled.push_back({.disk = name, .work = DiskWork::merge});
        } else if (back_end.freeze != nullptr && back_end.freeze->ended.load()) {
            m.settle_freeze(i);
            settled.push_back({.disk = name, .work = DiskWork::freeze});
        }
    }
    return settled;
}

std::string Machine::disks_json() const {
    using Json = nlohmann::json;
    const Impl& m = *impl_;
    Json list = Json::array();
    for (std::size_t i = 0; i < m.spec.disks.size(); ++i) {
        const DiskSpec& spec = m.spec.disks[i];
        const block::DiskMove* const move =
            m.back_ends == nullptr ? nullptr : m.back_ends->disk(i).move.get();
        Json disk{{"disk", disk_resource_name(i)},
                  {"path", spec.path},
                  {"read_only", spec.read_only},
                  {"direct", spec.direct},
                  {"bytes", m.devices == nullptr ? 0 : m.devices->disk_bytes(i)},
                  {"move", nullptr},
                  {"last_move", nullptr},
                  {"deltas", Json::array()},
                  {"merge", nullptr},
                  {"last_merge", nullptr}};
        if (m.back_ends != nullptr) {
            const DiskBackEnd& back_end = m.back_ends->disk(i);
            disk["deltas"] = Json::parse(to_json(back_end.layers->deltas()));
            if (back_end.merge != nullptr) {
                disk["merge"] = Json::parse(to_json(back_end.merge->state()));
            }
        }
        if (i < m.last_merges.size() && !m.last_merges[i].empty()) {
            disk["last_merge"] = Json::parse(m.last_merges[i]);
        }
        if (move != nullptr) {
            disk["move"] = Json::parse(to_json(move->state()));
        }
        if (i < m.last_moves.size() && !m.last_moves[i].empty()) {
            disk["last_move"] = Json::parse(m.last_moves[i]);
        }
        list.push_back(std::move(disk));
    }
    return list.dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace godwit::machine
