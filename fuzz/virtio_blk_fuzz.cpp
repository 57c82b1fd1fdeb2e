// The disk against a hostile driver, over a disk in memory that the input may let fail. The first
// byte chooses the features; see hostile_driver.h for the rest.

#include "hostile_driver.h"
#include "virtio/blk/blk_device.h"
#include "virtio/testing/memory_disk.h"

#include <cerrno>

using namespace godwit;

namespace {

constexpr block::BlockGeometry geometry{.bytes = 64 * kib,
                                        .logical_block_bytes = 512,
                                        .physical_block_bytes = 512,
                                        .read_only = false,
                                        .can_discard = true,
                                        .can_write_zeroes = true,
                                        .memory_alignment_bytes = 1};

using Control = std::shared_ptr<virtio::testing::MemoryDiskControl>;

virtio::BlkDevice::Args args(const Control& control) {
    auto& loop = fuzz::io_thread().loop();
    return {.options = {.instance = 0, .serial = "fuzz", .queues = 2, .queue_size = 16},
            .disk = std::make_unique<virtio::testing::MemoryDisk>(loop, geometry, control),
            .loop = loop,
            .health_changed = {}};
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    const auto choice = input.take<std::uint8_t>();
    const std::uint64_t features = virtio::feature_version_1 |
                                   ((choice & 1U) != 0 ? virtio::blk_feature::flush : 0U) |
                                   ((choice & 2U) != 0 ? virtio::blk_feature::discard : 0U) |
                                   ((choice & 4U) != 0 ? virtio::blk_feature::write_zeroes : 0U);
    const auto control = std::make_shared<virtio::testing::MemoryDiskControl>();
    fuzz::HostileDriver driver(
        GODWIT_MUST(virtio::BlkDevice::create(args(control))), // good options
        [&](const state::Section& section) -> Result<fuzz::HostileDriver::Device> {
            return GODWIT_TRY(virtio::BlkDevice::restore(args(control), section));
        },
        [&](fuzz::Input& in, virtio::VirtioDevice&) {
            control->fail_with((in.take<std::uint8_t>() & 1U) != 0 ? EIO : 0);
        });
    driver.run(input, features);
    return 0;
}
