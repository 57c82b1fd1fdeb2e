#include "virtio/console/console_device.h"
#include "virtio/testing/conformance.h"

namespace godwit::virtio::testing {
namespace {

struct ConsoleMaker {
    std::unique_ptr<VirtioDevice> fresh(sys::EventLoop& loop) {
        return GODWIT_MUST(ConsoleDevice::create(args(loop))); // an eventfd is to be had
    }
    Result<std::unique_ptr<VirtioDevice>> restored(sys::EventLoop& loop,
                                                   const state::Section& section) {
        return GODWIT_TRY(ConsoleDevice::restore(args(loop), section));
    }
    static state::Section canonical() {
        return save_console({.size = {.cols = 132, .rows = 43}, .pending_input = "typed ahead\n"},
                            0);
    }
    static ConsoleDevice::Args args(sys::EventLoop& loop) {
        return {.instance = 0,
                .size = {},
                .output = [](std::span<const std::byte>) {},
                .ready = {},
                .loop = &loop};
    }
};

} // namespace

INSTANTIATE_TYPED_TEST_SUITE_P(Console, DeviceConformance, ConsoleMaker);

} // namespace godwit::virtio::testing
