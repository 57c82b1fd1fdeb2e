// The console against a hostile driver and an operator who types and changes the terminal's size.
// The first byte chooses the features; see hostile_driver.h for the rest.

#include "hostile_driver.h"
#include "virtio/console/console_device.h"

using namespace godwit;

namespace {

virtio::ConsoleDevice::Args args() {
    return {.instance = 0,
            .size = {},
            .output = [](std::span<const std::byte>) {},
            .ready = {},
            .loop = &fuzz::io_thread().loop()};
}

void operator_event(fuzz::Input& input, virtio::VirtioDevice& device) {
    auto& console = static_cast<virtio::ConsoleDevice&>(device);
    if ((input.take<std::uint8_t>() & 1U) != 0) {
        const auto cols = input.take<std::uint16_t>();
        console.set_size({.cols = cols, .rows = input.take<std::uint16_t>()});
        return;
    }
    const auto typed = input.take_bytes(input.take<std::uint8_t>());
    GODWIT_ASSERT(console.input(std::as_bytes(typed)) <= typed.size());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    const auto choice = input.take<std::uint8_t>();
    const std::uint64_t features = virtio::feature_version_1 | (choice & 1U); // F_SIZE
    fuzz::HostileDriver driver(
        GODWIT_MUST(virtio::ConsoleDevice::create(args())), // an eventfd is to be had
        [](const state::Section& section) -> Result<fuzz::HostileDriver::Device> {
            return GODWIT_TRY(virtio::ConsoleDevice::restore(args(), section));
        },
        operator_event);
    driver.run(input, features);
    return 0;
}
