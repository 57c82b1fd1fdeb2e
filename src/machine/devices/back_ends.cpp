#include "machine/devices/back_ends.h"

#include "block/file_device.h"
#include "block/move/disk_move.h"
#include "machine/resources.h"

#include <algorithm>
#include <future>

namespace godwit::machine {

namespace {

/// Operations of one disk that the kernel is given at once.
constexpr std::uint32_t disk_queue_depth_max = 256;

} // namespace

BackEnds::BackEnds(const MachineEvents& events, const sys::Clock& clock)
    : events_(events), clock_(clock) {}

Result<std::unique_ptr<BackEnds>> BackEnds::create(const MachineSpec& spec,
                                                   const Resources& resources,
                                                   const MachineEvents& events,
                                                   const sys::Clock& clock) {
    std::unique_ptr<BackEnds> made(new BackEnds(events, clock));
    made->common_ = GODWIT_TRY(sys::IoThread::create("io"));
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        const sys::Fd& image = GODWIT_TRY(find_resource(resources, disk_resource_name(i))).get();
        std::vector<sys::Fd> deltas;
        for (std::size_t delta = 0; delta < spec.disks[i].deltas.size(); ++delta) {
            const sys::Fd& one =
                GODWIT_TRY(find_resource(resources, delta_resource_name(i, delta))).get();
            deltas.push_back(GODWIT_TRY(one.duplicate()));
        }
        GODWIT_TRY(made->add_disk(spec.disks[i], image, std::move(deltas)));
    }
    for (std::size_t i = 0; i < spec.nets.size(); ++i) {
        std::vector<sys::Fd> queues;
        for (std::size_t pair = 0; pair < spec.nets[i].queue_pairs; ++pair) {
            const sys::Fd& queue =
                GODWIT_TRY(find_resource(resources, net_resource_name(i, pair))).get();
            queues.push_back(GODWIT_TRY(queue.duplicate()));
        }
        GODWIT_TRY(made->add_net(spec.nets[i], std::move(queues)));
    }
    return made;
}

Status BackEnds::add_disk(const DiskSpec& disk, const sys::Fd& image, std::vector<sys::Fd> deltas) {
    sys::Fd copy = GODWIT_TRY(image.duplicate());
    DiskBackEnd& made = disks_.emplace_back();
    made.thread = GODWIT_TRY(sys::IoThread::create("disk" + std::to_string(disks_.size() - 1)));
    sys::EventLoop& loop = made.thread->loop();
    made.clock = std::make_unique<sys::LoopAlarmClock>(loop, clock_);
    made.queue_depth = std::min(disk_queue_depth_max, std::uint32_t{disk.queues} * disk.queue_size);
    const auto open = [&]() -> Result<std::unique_ptr<DiskLayers>> {
        auto file = GODWIT_TRY(block::FileDevice::create(
            std::move(copy), loop, {.name = disk.path, .queue_depth = made.queue_depth}));
        auto moving = GODWIT_TRY(block::MovingDevice::create(std::move(file), *made.clock));
        made.moving = moving.get();
        return DiskLayers::create({.index = disks_.size() - 1,
                                   .loop = loop,
                                   .clock = *made.clock,
                                   .events = events_,
                                   .queue_depth = made.queue_depth},
                                  disk,
                                  std::move(moving),
                                  std::move(deltas));
    };
    Result<std::unique_ptr<DiskLayers>> opened(nullptr);
    loop.run_and_wait([&] { opened = open(); });
    made.layers = GODWIT_TRY(std::move(opened));
    return ok();
}

Status BackEnds::add_net(const NetSpec& net, std::vector<sys::Fd> queues) {
    NetBackEnd& made = nets_.emplace_back();
    made.thread = GODWIT_TRY(sys::IoThread::create("net" + std::to_string(nets_.size() - 1)));
    made.tap = GODWIT_TRY(sys::Tap::adopt(std::move(queues)).with_context("tap '" + net.tap + "'"));
    return ok();
}

std::vector<sys::EventLoop::Hold> BackEnds::hold_loops() {
    std::vector<sys::EventLoop::Hold> holds;
    holds.push_back(common_->loop().hold());
    for (DiskBackEnd& disk : disks_) {
        holds.push_back(disk.thread->loop().hold());
    }
    for (NetBackEnd& net : nets_) {
        holds.push_back(net.thread->loop().hold());
    }
    return holds;
}

void BackEnds::open_layers() {
    for (const DiskBackEnd& back_end : disks_) {
        back_end.thread->loop().post([layers = back_end.layers.get()] { layers->open(); });
    }
}

Status BackEnds::commit_layers(sys::Moment deadline) {
    std::vector<std::future<Status>> committed;
    for (const DiskBackEnd& back_end : disks_) {
        auto promise = std::make_shared<std::promise<Status>>();
        committed.push_back(promise->get_future());
        back_end.thread->loop().post([layers = back_end.layers.get(), promise] {
            layers->commit([promise](Status status) { promise->set_value(std::move(status)); });
        });
    }
    for (std::size_t i = 0; i < committed.size(); ++i) {
        const std::string name = disk_resource_name(i);
        if (committed[i].wait_until(std::chrono::steady_clock::time_point(deadline)) !=
            std::future_status::ready) {
            return Error(ErrorCode::timeout, "the delta of " + name + " is not durable in time");
        }
        GODWIT_TRY(committed[i].get().with_context("the delta of " + name));
    }
    return ok();
}

void BackEnds::abandon_disks() {
    for (DiskBackEnd& back_end : disks_) {
        back_end.thread->loop().run_and_wait([&back_end] {
            back_end.layers->abandon();
            if (back_end.move != nullptr) {
                back_end.move->abandon();
            }
            if (back_end.merge != nullptr) {
                back_end.merge->abandon();
            }
        });
    }
}

BackEnds::~BackEnds() {
    for (DiskBackEnd& back_end : disks_) {
        if (back_end.layers != nullptr) {
            back_end.thread->loop().run_and_wait([&back_end] {
                back_end.layers->take_device().reset();
                back_end.move.reset();
                back_end.merge.reset();
                back_end.layers.reset();
            });
        }
    }
}

Result<sys::Tap> BackEnds::take_tap(std::size_t net) {
    std::optional<sys::Tap>& tap = nets_[net].tap;
    if (!tap.has_value()) {
        return Error(ErrorCode::conflict, "the tap is in use by this machine already");
    }
    sys::Tap taken = std::move(*tap);
    tap.reset();
    return taken;
}

} // namespace godwit::machine
