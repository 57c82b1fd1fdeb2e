#include "virtio/balloon/balloon_device.h"
#include "virtio/testing/conformance.h"

namespace godwit::virtio::testing {
namespace {

struct BalloonMaker {
    std::unique_ptr<VirtioDevice> fresh(sys::EventLoop& loop) {
        auto device = GODWIT_MUST(BalloonDevice::create(args(loop))); // nothing to fail
        return device;
    }
    Result<std::unique_ptr<VirtioDevice>> restored(sys::EventLoop& loop,
                                                   const state::Section& section) {
        return GODWIT_TRY(BalloonDevice::restore(args(loop), section));
    }
    static state::Section canonical() {
        return save_balloon({.target_pages = 512, .actual_pages = 300}, 0);
    }
    BalloonDevice::Args args(sys::EventLoop& loop) {
        return {.instance = 0, .memory = memory, .reporting = FreePageReporting::on, .loop = &loop};
    }
    std::shared_ptr<memory::GuestMemory> memory = make_memory();
};

} // namespace

INSTANTIATE_TYPED_TEST_SUITE_P(Balloon, DeviceConformance, BalloonMaker);

} // namespace godwit::virtio::testing
