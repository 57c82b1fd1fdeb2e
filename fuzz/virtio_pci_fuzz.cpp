// The PCI transport against a guest that touches any register: configuration space (BAR, MSI-X and
// the access window among it), every structure in the BAR, doorbells; and in between the device
// speaks up, the transport is brought to rest, or everything goes to the next owner. What one owner
// saves the next one must take, whatever the guest has written, and save again as it is.

#include "input.h"
#include "virtio/pci_transport.h"
#include "virtio/testing/driver_registers.h"
#include "virtio/testing/fake_device.h"

#include <array>
#include <variant>

using namespace godwit;

namespace {

constexpr std::uint8_t slot = 1;
constexpr std::size_t operations_max = 512;

const std::shared_ptr<memory::GuestMemory>& shared_memory() {
    static const auto memory = virtio::testing::make_memory();
    return memory;
}

/// One owner of the device: buses, transport and a guest's access to them.
struct Owner {
    Owner() : bus(GODWIT_MUST(bus::PciBus::create(space))) { // never fails
        GODWIT_MUST(space.add(virtio::testing::test_ecam_base, bus::ecam_bytes, bus->ecam()));
    }
    virtio::PciTransport::Args args() {
        return {.memory = shared_memory(),
                .bus = *bus,
                .address_space = space,
                .msi_router = msi,
                .doorbells = doorbells,
                .slot = slot};
    }
    [[nodiscard]] state::Section save() const {
        return std::get<state::Section>(GODWIT_MUST(transport->save())); // it always saves
    }
    bus::testing::FakeAddressSpace space;
    bus::testing::FakeMsiRouter msi;
    bus::testing::FakeDoorbells doorbells;
    std::unique_ptr<bus::PciBus> bus;
    virtio::testing::DriverRegisters registers{space, slot};
    virtio::testing::FakeDevice* device = nullptr;
    std::unique_ptr<virtio::PciTransport> transport;
};

std::unique_ptr<Owner> first_owner() {
    auto owner = std::make_unique<Owner>();
    auto device = std::make_unique<virtio::testing::FakeDevice>();
    owner->device = device.get();
    owner->transport = GODWIT_MUST(virtio::PciTransport::create(owner->args(), std::move(device)));
    return owner;
}

std::unique_ptr<Owner> next_owner(const Owner& before) {
    before.transport->quiesce();
    const state::Section section = before.save();
    auto owner = std::make_unique<Owner>();
    auto device = std::make_unique<virtio::testing::FakeDevice>();
    owner->device = device.get();
    owner->transport =
        GODWIT_MUST(virtio::PciTransport::restore(owner->args(), std::move(device), section));
    GODWIT_ASSERT(owner->save().payload == section.payload);
    return owner;
}

/// Where an access goes and how long it is.
struct Access {
    std::uint64_t offset = 0;
    std::size_t bytes = 1;
};

Access take_access(fuzz::Input& input, unsigned sizes) {
    const std::uint64_t offset = input.take<std::uint16_t>();
    return {.offset = offset, .bytes = std::size_t{1} << (input.take<std::uint8_t>() % sizes)};
}

void use_config(fuzz::Input& input, Owner& owner, bool write) {
    const Access access = take_access(input, 3);
    const std::uint64_t offset = access.offset % bus::config_space_bytes;
    if (write) {
        owner.registers.config_write(offset, access.bytes, input.take<std::uint64_t>());
    } else {
        static_cast<void>(owner.registers.config_read(offset, access.bytes));
    }
}

/// The BAR, wherever the guest has put it.
void use_bar(fuzz::Input& input, Owner& owner, bool write) {
    const Access access = take_access(input, 4);
    const std::uint64_t address = (owner.registers.bar() & ~std::uint64_t{0xf}) + access.offset;
    if (write) {
        owner.space.write(address, access.bytes, input.take<std::uint64_t>());
    } else {
        static_cast<void>(owner.space.read(address, access.bytes));
    }
}

void device_event(fuzz::Input& input, const Owner& owner) {
    switch (input.take<std::uint8_t>() % 3) {
    case 0:
        owner.device->host().notify_queue(input.take<std::uint8_t>() % 2U);
        break;
    case 1:
        owner.device->host().notify_config();
        break;
    default:
        owner.device->host().needs_reset(Error(ErrorCode::corrupt, "the input says so"));
        break;
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input({data, size});
    auto owner = first_owner();
    for (std::size_t i = 0; i < operations_max && !input.empty(); ++i) {
        const auto operation = input.take<std::uint8_t>() % 7U;
        switch (operation) {
        case 0:
        case 1:
            use_config(input, *owner, operation == 1);
            break;
        case 2:
        case 3:
            use_bar(input, *owner, operation == 3);
            break;
        case 4:
            owner->transport->wake();
            break;
        case 5:
            device_event(input, *owner);
            break;
        default:
            owner = next_owner(*owner);
            break;
        }
    }
    return 0;
}
