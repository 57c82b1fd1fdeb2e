#include "machine/devices/back_ends.h"

#include "block/file_device.h"
#include "block/move/disk_move.h"
#include "machine/resources.h"

#include <algorithm>

namespace godwit::machine {

namespace {

/// Operations of one disk that the kernel is given at once.
constexpr std::uint32_t disk_queue_depth_max = 256;

} // namespace

BackEnds::BackEnds(const sys::Clock& clock) : clock_(clock) {}

Result<std::unique_ptr<BackEnds>>
BackEnds::create(const MachineSpec& spec, const Resources& resources, const sys::Clock& clock) {
    std::unique_ptr<BackEnds> made(new BackEnds(clock));
    made->common_ = GODWIT_TRY(sys::IoThread::create("io"));
    for (std::size_t i = 0; i < spec.disks.size(); ++i) {
        const sys::Fd& image = GODWIT_TRY(find_resource(resources, disk_resource_name(i))).get();
        GODWIT_TRY(made->add_disk(spec.disks[i], image));
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

Status BackEnds::add_disk(const DiskSpec& disk, const sys::Fd& image) {
    sys::Fd copy = GODWIT_TRY(image.duplicate());
    DiskBackEnd& made = disks_.emplace_back();
    made.thread = GODWIT_TRY(sys::IoThread::create("disk" + std::to_string(disks_.size() - 1)));
    sys::EventLoop& loop = made.thread->loop();
    made.clock = std::make_unique<sys::LoopAlarmClock>(loop, clock_);
    made.queue_depth = std::min(disk_queue_depth_max, std::uint32_t{disk.queues} * disk.queue_size);
    const auto open = [&]() -> Result<std::unique_ptr<block::MovingDevice>> {
        auto file = GODWIT_TRY(block::FileDevice::create(
            std::move(copy), loop, {.name = disk.path, .queue_depth = made.queue_depth}));
        return block::MovingDevice::create(std::move(file), *made.clock);
    };
    Result<std::unique_ptr<block::MovingDevice>> opened(nullptr);
    loop.run_and_wait([&] { opened = open(); });
    made.disk = GODWIT_TRY(std::move(opened));
    made.moving = made.disk.get();
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

void BackEnds::abandon_moves() {
    for (DiskBackEnd& back_end : disks_) {
        if (back_end.move != nullptr) {
            back_end.thread->loop().run_and_wait([&back_end] { back_end.move->abandon(); });
        }
    }
}

BackEnds::~BackEnds() {
    for (DiskBackEnd& back_end : disks_) {
        if (back_end.disk != nullptr || back_end.move != nullptr) {
            back_end.thread->loop().run_and_wait([&back_end] {
                back_end.disk.reset();
                back_end.move.reset();
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
