// The section of the consoles, as a successor takes it with its clients' descriptors. What is
// accepted is saved, and that is accepted and saved again as it is.

#include "state/state_unit.h"
#include "sys/io_thread.h"
#include "vmm/consoles.h"

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <variant>

using namespace godwit;

namespace {

sys::IoThread& io_thread() {
    static const auto thread = GODWIT_MUST(sys::IoThread::create("consoles")); // is to be had
    return *thread;
}

sys::FdManifest clients() {
    sys::FdManifest manifest;
    for (const char* name :
         {"console-serial.0", "console-serial.1", "console-virtio.0", "console-virtio.1"}) {
        std::array<int, 2> ends{};
        GODWIT_ASSERT(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
        const sys::Fd far(ends[1]);
        GODWIT_MUST(manifest.add(name, sys::Fd(ends[0]))); // four different names
    }
    return manifest;
}

/// What consoles that have taken `section` save; empty if they refuse it.
std::optional<state::Section> take_and_save(const state::Section& section) {
    machine::MachineSpec spec;
    spec.serial = true;
    spec.virtio_console = true;
    auto consoles = std::make_unique<vmm::Consoles>(
        io_thread().loop(), spec, [](std::string_view, std::span<const std::byte>) { return 0U; });
    std::optional<state::Section> again;
    if (const auto taken = consoles->adopt(section, clients()); taken.has_value()) {
        consoles->freeze();
        again = std::get<state::Section>(GODWIT_MUST(consoles->save())); // descriptors are left
    }
    // Ports and clients belong to the loop's thread.
    io_thread().loop().run_and_wait([&] { consoles.reset(); });
    return again;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    state::Section section;
    section.id = vmm::Consoles::section.id();
    section.payload.assign(reinterpret_cast<const char*>(data), size);
    const auto once = take_and_save(section);
    if (once.has_value()) {
        const auto twice = take_and_save(*once);
        GODWIT_ASSERT(twice.has_value() && twice->payload == once->payload);
    }
    return 0;
}
