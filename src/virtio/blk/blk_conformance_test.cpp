#include "virtio/blk/blk_device.h"
#include "virtio/testing/conformance.h"
#include "virtio/testing/memory_disk.h"

namespace godwit::virtio::testing {
namespace {

struct BlkMaker {
    static constexpr block::BlockGeometry geometry{.bytes = 64 * kib,
                                                   .logical_block_bytes = 512,
                                                   .physical_block_bytes = 512,
                                                   .read_only = false,
                                                   .can_discard = true,
                                                   .can_write_zeroes = true,
                                                   .memory_alignment_bytes = 1};
    static BlkOptions options() {
        return {.instance = 3, .serial = "disk3", .queues = 2, .queue_size = 64};
    }
    static state::Section canonical() {
        return encode(BlkState{.options = options(), .geometry = geometry}, 3);
    }
    static BlkDevice::Args args(sys::EventLoop& loop) {
        return {.options = options(),
                .disk = std::make_unique<MemoryDisk>(
                    loop, geometry, std::make_shared<MemoryDiskControl>()),
                .loop = loop,
                .health_changed = {}};
    }
    static std::unique_ptr<VirtioDevice> fresh(sys::EventLoop& loop) {
        return GODWIT_MUST(BlkDevice::create(args(loop))); // good options
    }
    static Result<std::unique_ptr<VirtioDevice>> restored(sys::EventLoop& loop,
                                                          const state::Section& section) {
        return GODWIT_TRY(BlkDevice::restore(args(loop), section));
    }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Blk, DeviceConformance, BlkMaker);

} // namespace
} // namespace godwit::virtio::testing
