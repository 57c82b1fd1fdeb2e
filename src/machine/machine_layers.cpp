/// Disks that are frozen, and whose deltas are merged again, while the guest uses them.

#include "base/log.h"
#include "machine/machine_impl.h"
#include "machine/resources.h"

#include <algorithm>

namespace godwit::machine {

namespace {

std::size_t deltas_of(const MachineSpec& spec) {
    std::size_t deltas = 0;
    for (const DiskSpec& disk : spec.disks) {
        deltas += disk.deltas.size();
    }
    return deltas;
}

std::int64_t microseconds(sys::Nanoseconds time) {
    return std::chrono::duration_cast<std::chrono::microseconds>(time).count();
}

Status check_room(const MachineSpec& spec, std::size_t disk) {
    if (spec.disks[disk].deltas.size() >= deltas_per_disk_max || deltas_of(spec) >= deltas_max) {
        return Error(ErrorCode::resource_exhausted,
                     "a disk has at most " + std::to_string(deltas_per_disk_max) +
                         " deltas and a machine " + std::to_string(deltas_max) +
                         ": merge some first, with 'godwit disk merge " + spec.name + ":" +
                         disk_resource_name(disk) + "'");
    }
    return ok();
}

} // namespace

Status Machine::freeze_disk(const DiskFreezeRequest& request, DiskFrozen frozen) {
    Impl& m = *impl_;
    const std::size_t index = GODWIT_TRY(m.disk_index(request.disk));
    GODWIT_TRY(m.check_disk_idle(index));
    GODWIT_TRY(check_room(m.spec, index));
    DiskBackEnd& back_end = m.back_ends->disk(index);
    sys::EventLoop& loop = back_end.thread->loop();
    block::BlockGeometry geometry;
    loop.run_and_wait([&] { geometry = back_end.moving->geometry(); });
    const sys::Moment begun = m.clock.now();
    const std::vector<block::OwnImage> own = GODWIT_TRY(m.own_images());
    DiskSpec spec = m.spec.disks[index];
    DeltaPlace place =
        GODWIT_TRY(DeltaPlace::create({.path = request.delta,
                                       .bytes = request.bytes,
                                       .disk_bytes = geometry.bytes,
                                       .logical_block_bytes = geometry.logical_block_bytes,
                                       .direct = spec.direct,
                                       .own = own}));
    spec.deltas.push_back(place.spec());
    auto freeze = std::make_shared<DiskBackEnd::Freeze>(std::move(place), std::move(spec), begun);
    Status started;
    loop.run_and_wait([&] {
        started = back_end.layers->freeze(
            freeze->spec,
            freeze->delta,
            [freeze, &events = m.events, disk = request.disk](Result<sys::Nanoseconds> ended) {
                freeze->outcome.emplace(std::move(ended));
                freeze->ended = true;
                if (events.disk_move_ended) {
                    events.disk_move_ended(disk);
                }
            });
    });
    if (!started.has_value()) {
        freeze->delta.remove();
        return started;
    }
    m.frozen.resize(m.spec.disks.size());
    m.frozen[index] = std::move(frozen);
    back_end.freeze = std::move(freeze);
    return ok();
}

void Machine::Impl::settle_freeze(std::size_t disk) {
    const std::shared_ptr<DiskBackEnd::Freeze> freeze =
        std::exchange(back_ends->disk(disk).freeze, nullptr);
    DiskFrozen tell = std::move(frozen[disk]);
    const DeltaSpec& delta = freeze->delta.spec();
    if (!freeze->outcome->has_value()) {
        freeze->delta.remove();
        tell(std::move(freeze->outcome->error()));
        return;
    }
    const std::vector<DeltaSpec>& before = spec.disks[disk].deltas;
    DiskFreezeReport report{
        .disk = disk_resource_name(disk),
        .base = before.empty() ? spec.disks[disk].path : before.back().path,
        .delta = delta.path,
        .snapshot = delta.snapshot,
        .delta_bytes = freeze->delta.bytes(),
        .written_bytes = freeze->delta.written_bytes(),
        .duration_us = microseconds(clock.now() - freeze->begun),
        .pause_us = microseconds(**freeze->outcome),
    };
    resources.push_back(
        {.name = delta_resource_name(disk, before.size()), .fd = std::move(freeze->delta).keep()});
    spec.disks[disk] = freeze->spec;
    log::info("disk_frozen",
              {{"disk", report.disk},
               {"base", report.base},
               {"delta", report.delta},
               {"snapshot", report.snapshot},
               {"pause_us", report.pause_us}});
    tell(std::move(report));
}

Result<std::uint64_t> Machine::start_disk_merge(std::string_view disk) {
    Impl& m = *impl_;
    const std::size_t index = GODWIT_TRY(m.disk_index(disk));
    GODWIT_TRY(m.check_disk_idle(index));
    if (m.spec.disks[index].deltas.empty()) {
        return Error(ErrorCode::not_found,
                     std::string(disk) + " has no delta: there is nothing to merge");
    }
    DiskBackEnd& back_end = m.back_ends->disk(index);
    Result<std::unique_ptr<DiskMerge>> started(nullptr);
    back_end.thread->loop().run_and_wait([&] {
        if (!back_end.layers->opened()) {
            back_end.layers->open();
            started = Error(ErrorCode::busy,
                            "the deltas of " + std::string(disk) + " are not open yet: try again");
            return;
        }
        started = DiskMerge::start({.index = index,
                                    .layers = *back_end.layers,
                                    .clock = *back_end.clock,
                                    .events = m.events,
                                    .spec = m.spec.disks[index]});
    });
    back_end.merge = GODWIT_TRY(std::move(started));
    log::info("disk_merge_started", {{"disk", disk}});
    return back_end.merge->state().id;
}

void Machine::Impl::settle_merge(std::size_t disk) {
    DiskBackEnd& back_end = back_ends->disk(disk);
    const DiskMergeState state = back_end.merge->state();
    last_merges[disk] = to_json(state);
    const std::vector<DeltaSpec> left = back_end.merge->spec().deltas;
    std::vector<DeltaSpec>& deltas = spec.disks[disk].deltas;
    while (deltas.size() > left.size()) {
        const auto resource = std::ranges::find(
            resources, delta_resource_name(disk, deltas.size() - 1), &Resource::name);
        remove_delta(deltas.back(), resource->fd);
        resources.erase(resource);
        deltas.pop_back();
    }
    log::info("disk_merge_ended",
              {{"disk", state.disk}, {"report", std::string_view(last_merges[disk])}});
    back_end.thread->loop().run_and_wait([&] { back_end.merge.reset(); });
}

} // namespace godwit::machine
