// The balloon against a hostile driver. The first byte chooses the features; see hostile_driver.h
// for the rest. The balloon gives back pages of a RAM of its own, so that what the rings say stays.

#include "hostile_driver.h"
#include "virtio/balloon/balloon_device.h"

using namespace godwit;

namespace {

virtio::BalloonDevice::Args args() {
    static const auto memory = virtio::testing::make_memory();
    return {.instance = 0,
            .memory = memory,
            .reporting = virtio::FreePageReporting::on,
            .loop = &fuzz::io_thread().loop()};
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    const std::uint64_t features = virtio::feature_version_1 | (input.take<std::uint8_t>() & 0x3FU);
    fuzz::HostileDriver driver(
        GODWIT_MUST(virtio::BalloonDevice::create(args())), // nothing to fail
        [](const state::Section& section) -> Result<fuzz::HostileDriver::Device> {
            return GODWIT_TRY(virtio::BalloonDevice::restore(args(), section));
        },
        [](fuzz::Input& in, virtio::VirtioDevice& device) {
            auto& balloon = static_cast<virtio::BalloonDevice&>(device);
            discard(balloon.set_target(in.take<std::uint16_t>() * page_size), "may exceed RAM");
            static_cast<void>(balloon.statistics());
        });
    driver.run(input, features);
    return 0;
}
