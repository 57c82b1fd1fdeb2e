// The messages of a handover, as a hostile peer could send them: any bytes, with any number of
// descriptors.

#include "exchange/wire.h"

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    godwit::sys::Message packet;
    // The first byte says how many descriptors come along; the rest is the message.
    for (unsigned i = 0; i < data[0] % 4U; ++i) {
        auto event = godwit::sys::EventFd::create();
        if (event.has_value()) {
            auto copy = event->fd().duplicate();
            if (copy.has_value()) {
                packet.fds.push_back(std::move(*copy));
            }
        }
    }
    packet.bytes.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
    auto message = godwit::exchange::decode(std::move(packet));
    godwit::discard(std::move(message), "only crashes matter here");
    return 0;
}
