#include "state/testing/golden.h"
#include "virtio/pci_transport.h"
#include "virtio/testing/driver_registers.h"
#include "virtio/testing/fake_device.h"

namespace godwit::virtio {
namespace {

using testing::DriverQueue;
using testing::DriverRegisters;
using testing::FakeDevice;

constexpr std::uint8_t slot = 2;
constexpr bus::MsiMessage message{.address = 0xfee0'0000, .data = 0x30};

/// A host to put transports on; two of them play the two sides of a handover.
struct Host {
    explicit Host(std::shared_ptr<memory::GuestMemory> ram)
        : memory(std::move(ram)), bus(GODWIT_MUST(bus::PciBus::create(space))), // cannot fail
          registers(space, slot) {
        GODWIT_MUST(space.add(testing::test_ecam_base, bus::ecam_bytes, bus->ecam()));
    }
    [[nodiscard]] PciTransport::Args args() {
        return {.memory = memory,
                .bus = *bus,
                .address_space = space,
                .msi_router = msi,
                .doorbells = doorbells,
                .slot = slot};
    }
    std::shared_ptr<memory::GuestMemory> memory;
    bus::testing::FakeAddressSpace space;
    bus::testing::FakeMsiRouter msi;
    bus::testing::FakeDoorbells doorbells;
    std::unique_ptr<bus::PciBus> bus;
    DriverRegisters registers;
};

struct PciTransportTest : ::testing::Test {
    PciTransportTest() : host(memory), driver(memory, {}) {
        auto made = std::make_unique<FakeDevice>();
        device = made.get();
        transport = GODWIT_MUST(PciTransport::create(host.args(), std::move(made))); // all fakes
    }
    /// Negotiates, sets up queue 0 with vector 1 and the configuration with vector 0, and goes.
    void bring_up(std::uint64_t features = feature_version_1 | feature_event_index) {
        host.registers.negotiate(features);
        host.registers.enable_msix();
        host.registers.program_vector(0, message);
        host.registers.program_vector(1, message);
        host.registers.write(0x10, 2, 0);
        host.registers.set_queue(0, driver.state(), 1);
        host.registers.driver_ok();
    }
    [[nodiscard]] state::Section save() const {
        return std::get<state::Section>(GODWIT_MUST(transport->save())); // fakes always save
    }
    std::shared_ptr<memory::GuestMemory> memory = testing::make_memory();
    Host host;
    DriverQueue driver;
    FakeDevice* device = nullptr;
    std::unique_ptr<PciTransport> transport;
};

TEST_F(PciTransportTest, function_says_who_it_is) {
    EXPECT_EQ(host.registers.config_read(0, 4), 0x1042'1af4U);
    EXPECT_EQ(host.registers.config_read(8, 4), 0x0100'0001U);
    EXPECT_EQ(host.registers.bar(), 0xc000'0000U);
    EXPECT_EQ(host.registers.read(0x12, 2), 2U) << "queues";
}

TEST_F(PciTransportTest, good_negotiation_activates_the_device) {
    EXPECT_EQ(host.registers.offered_features(),
              feature_version_1 | feature_event_index | feature_indirect_descriptors |
                  FakeDevice::own_feature);
    bring_up();
    ASSERT_TRUE(device->active.has_value());
    EXPECT_EQ(device->active->features, feature_version_1 | feature_event_index);
    EXPECT_EQ(device->active->queues.at(0)->state(), driver.state());
    EXPECT_FALSE(device->active->queues.at(1).has_value());
    EXPECT_EQ(host.registers.status(), 0x0fU);
}

TEST_F(PciTransportTest, features_without_version_1_are_refused) {
    EXPECT_EQ(host.registers.negotiate(feature_event_index) & status_features_ok, 0);
    host.registers.driver_ok();
    EXPECT_FALSE(device->active.has_value());
}

TEST_F(PciTransportTest, features_not_offered_are_refused) {
    EXPECT_EQ(host.registers.negotiate(feature_version_1 | (1ULL << 40U)) & status_features_ok, 0);
}

TEST_F(PciTransportTest, features_are_settled_after_features_ok) {
    host.registers.negotiate(feature_version_1);
    host.registers.set_features(feature_version_1 | FakeDevice::own_feature);
    host.registers.driver_ok();
    EXPECT_EQ(device->active->features, feature_version_1);
}

TEST_F(PciTransportTest, queue_registers_are_settled_after_enabling) {
    host.registers.negotiate(feature_version_1);
    host.registers.set_queue(0, driver.state(), 1);
    host.registers.write(0x20, 8, 0x1234000);
    host.registers.write(0x18, 2, 8);
    EXPECT_EQ(host.registers.read(0x20, 8), driver.state().descriptors.value);
    EXPECT_EQ(host.registers.read(0x18, 2), 16U);
}

TEST_F(PciTransportTest, bad_queue_sizes_and_selectors_are_ignored) {
    host.registers.negotiate(feature_version_1);
    host.registers.write(0x18, 2, 24);
    EXPECT_EQ(host.registers.read(0x18, 2), 16U);
    host.registers.write(0x18, 2, 32);
    EXPECT_EQ(host.registers.read(0x18, 2), 16U);
    host.registers.write(0x1a, 2, 77);
    EXPECT_EQ(host.registers.read(0x1a, 2), no_vector);
    host.registers.write(0x16, 2, 2);
    EXPECT_EQ(host.registers.read(0x18, 2), 0U);
    host.registers.write(0x1c, 2, 1);
}

TEST_F(PciTransportTest, queue_outside_ram_asks_for_a_reset) {
    QueueState bad = driver.state();
    bad.device_area = Gpa{1ULL << 40U};
    host.registers.negotiate(feature_version_1);
    host.registers.set_queue(0, bad, 1);
    EXPECT_EQ(host.registers.driver_ok() & status_needs_reset, status_needs_reset);
    EXPECT_FALSE(device->active.has_value());
    host.registers.set_status(0);
    EXPECT_EQ(host.registers.status(), 0U);
}

TEST_F(PciTransportTest, refused_activation_asks_for_a_reset) {
    device->refuse_activation = true;
    bring_up();
    EXPECT_EQ(host.registers.status() & status_needs_reset, status_needs_reset);
    EXPECT_EQ(host.msi.vector(0).signals, 1U) << "told by a configuration interrupt";
}

TEST_F(PciTransportTest, reset_takes_everything_back) {
    bring_up();
    const int before = device->resets;
    host.registers.set_status(0);
    EXPECT_EQ(device->resets, before + 1);
    EXPECT_FALSE(device->active.has_value());
    EXPECT_TRUE(host.doorbells.addresses().empty());
    EXPECT_EQ(host.registers.read(0x1c, 2), 0U);
    EXPECT_EQ(host.registers.read(0x10, 2), no_vector);
    bring_up();
    EXPECT_TRUE(device->active.has_value());
}

TEST_F(PciTransportTest, queue_interrupt_goes_to_its_vector) {
    bring_up();
    device->host().notify_queue(0);
    device->host().notify_queue(1);
    EXPECT_EQ(host.msi.vector(1).signals, 1U);
    EXPECT_EQ(host.msi.vector(0).signals, 0U);
}

TEST_F(PciTransportTest, config_change_counts_and_interrupts) {
    bring_up();
    const std::uint64_t before = host.registers.read(0x15, 1);
    device->host().notify_config();
    EXPECT_EQ(host.registers.read(0x15, 1), before + 1);
    EXPECT_EQ(host.msi.vector(0).signals, 1U);
    EXPECT_EQ(host.space.read(host.registers.structure(3), 1), 2U);
    EXPECT_EQ(host.space.read(host.registers.structure(3), 1), 0U) << "reading clears it";
}

TEST_F(PciTransportTest, broken_rules_are_told_once_per_reset) {
    bring_up();
    device->host().needs_reset(Error(ErrorCode::corrupt, "test"));
    device->host().needs_reset(Error(ErrorCode::corrupt, "test"));
    EXPECT_EQ(host.registers.status(), 0x4fU);
    EXPECT_EQ(host.msi.vector(0).signals, 1U);
}

TEST_F(PciTransportTest, doorbells_hang_at_their_addresses_and_follow_the_bar) {
    bring_up();
    ASSERT_EQ(host.doorbells.addresses(), std::vector{host.registers.doorbell(0)});
    EXPECT_TRUE(host.doorbells.ring(host.registers.doorbell(0)));
    EXPECT_TRUE(device->active->doorbells.at(0).drain());
    host.registers.config_write(0x10, 4, 0xd000'0000);
    EXPECT_EQ(host.doorbells.addresses(), std::vector{Gpa{0xd000'3000}});
    host.registers.config_write(4, 2, 0);
    EXPECT_TRUE(host.doorbells.addresses().empty());
}

TEST_F(PciTransportTest, kick_reaches_the_device_without_a_kernel_doorbell) {
    host.doorbells.refuse(true);
    bring_up();
    host.space.write(host.registers.doorbell(0).value, 2, 0);
    EXPECT_TRUE(device->active->doorbells.at(0).drain());
    host.space.write(host.registers.structure(2) + 0xffc, 4, 0);
}

TEST_F(PciTransportTest, device_configuration_is_reached_through_the_bar) {
    const std::uint64_t at = host.registers.structure(4);
    host.space.write(at + 2, 2, 0xabcd);
    EXPECT_EQ(host.space.read(at, 4), 0xabcd'0000U);
    EXPECT_EQ(host.space.read(at + 0x800, 4), 0U);
}

TEST_F(PciTransportTest, configuration_window_reaches_the_bar) {
    const std::uint64_t at = host.registers.capability(0x09, 5);
    host.registers.config_write(at + 4, 1, 0);
    host.registers.config_write(at + 8, 4, 0x12);
    host.registers.config_write(at + 12, 4, 2);
    EXPECT_EQ(host.registers.config_read(at + 16, 2), 2U) << "the number of queues";
    host.registers.config_write(at + 8, 4, 0x14);
    host.registers.config_write(at + 12, 4, 1);
    host.registers.config_write(at + 16, 1, 3);
    EXPECT_EQ(host.registers.status(), 3U);
}

TEST_F(PciTransportTest, configuration_window_beyond_the_bar_reads_as_nothing) {
    const std::uint64_t at = host.registers.capability(0x09, 5);
    host.registers.config_write(at + 8, 4, 0xffff'fffc);
    host.registers.config_write(at + 12, 4, 4);
    EXPECT_EQ(host.registers.config_read(at + 16, 4), 0U);
    host.registers.config_write(at + 4, 1, 5);
    EXPECT_EQ(host.registers.config_read(at + 16, 4), 0U);
}

TEST_F(PciTransportTest, wake_and_quiesce_reach_the_device) {
    transport->wake();
    transport->quiesce();
    EXPECT_EQ(device->wakes, 1);
    EXPECT_EQ(device->quiesces, 1);
}

TEST_F(PciTransportTest, taken_slot_is_refused_and_its_owner_stays) {
    EXPECT_FALSE(PciTransport::create(host.args(), std::make_unique<FakeDevice>()).has_value());
    EXPECT_EQ(host.registers.config_read(0, 4), 0x1042'1af4U);
}

TEST_F(PciTransportTest, gone_transport_leaves_nothing_behind) {
    bring_up();
    transport.reset();
    EXPECT_TRUE(host.doorbells.addresses().empty());
    EXPECT_EQ(host.space.ranges(), 1U) << "only ECAM";
    EXPECT_EQ(host.registers.config_read(0, 4), 0xffff'ffffU);
}

// --- saving and restoring ---

struct RestoreTest : PciTransportTest {
    Result<std::unique_ptr<PciTransport>> restore(const state::Section& section) {
        auto made = std::make_unique<FakeDevice>();
        other_device = made.get();
        return PciTransport::restore(other.args(), std::move(made), section);
    }
    Host other{memory};
    FakeDevice* other_device = nullptr;
};

TEST_F(RestoreTest, fresh_transport_saves_the_same_bytes_again) {
    const state::Section section = save();
    const auto restored = GODWIT_MUST(restore(section)); // our own section
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(restored->save())).payload, section.payload);
}

TEST_F(RestoreTest, running_transport_goes_on_where_it_was) {
    bring_up();
    host.registers.config_write(0x10, 4, 0xd000'0000);
    Chain chain;
    driver.chain().writable(8).offer();
    ASSERT_TRUE(GODWIT_MUST(device->active->queues.at(0)->pop(chain)));
    device->active->queues.at(0)->push(chain, 8);
    const state::Section section = save();
    const auto restored = GODWIT_MUST(restore(section));
    ASSERT_TRUE(other_device->active.has_value());
    EXPECT_EQ(other_device->active->queues.at(0)->state().next_used, 1);
    EXPECT_EQ(other.registers.status(), 0x0fU);
    EXPECT_EQ(other.doorbells.addresses(), std::vector{Gpa{0xd000'3000}});
    EXPECT_EQ(other.msi.vector(1).routed, message);
    EXPECT_EQ(other_device->wakes, 0) << "restored at rest";
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(restored->save())).payload, section.payload);
}

TEST_F(RestoreTest, interrupt_pending_while_masked_is_delivered_after_restore) {
    bring_up();
    host.registers.mask_vector(1, true);
    device->host().notify_queue(0);
    const auto restored = GODWIT_MUST(restore(save()));
    EXPECT_EQ(other.msi.vector(1).signals, 0U);
    other.registers.mask_vector(1, false);
    EXPECT_EQ(other.msi.vector(1).signals, 1U);
}

TEST_F(RestoreTest, broken_device_stays_broken_until_reset) {
    bring_up();
    device->host().needs_reset(Error(ErrorCode::corrupt, "test"));
    const state::Section section = save();
    const auto restored = GODWIT_MUST(restore(section));
    EXPECT_FALSE(other_device->active.has_value());
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(restored->save())).payload, section.payload);
    other.registers.set_status(0);
    EXPECT_EQ(other.registers.status(), 0U);
}

TEST_F(RestoreTest, truncated_section_is_refused_and_leaves_nothing) {
    bring_up();
    state::Section section = save();
    while (!section.payload.empty()) {
        section.payload.pop_back();
        EXPECT_FALSE(restore(section).has_value()) << section.payload.size();
    }
    EXPECT_EQ(other.space.ranges(), 1U);
    EXPECT_TRUE(other.doorbells.addresses().empty());
}

TEST_F(RestoreTest, flipped_bytes_never_do_harm) {
    bring_up();
    const state::Section good = save();
    for (std::size_t i = 0; i < good.payload.size(); ++i) {
        state::Section section = good;
        section.payload[i] = static_cast<char>(section.payload[i] ^ 0x55);
        const auto restored = restore(section);
        if (restored.has_value()) {
            EXPECT_TRUE((*restored)->save().has_value());
        }
    }
}

TEST_F(RestoreTest, golden_sections_are_read_and_written_again) {
    bring_up();
    const auto resave = [this](const state::Section& section) -> Result<state::Section> {
        const auto restored = GODWIT_TRY(restore(section));
        return std::get<state::Section>(GODWIT_TRY(restored->save()));
    };
    EXPECT_EQ(state::testing::check_goldens(save(), resave), "");
}

TEST_F(RestoreTest, unknown_version_is_refused) {
    state::Section section = save();
    section.version = 2;
    EXPECT_FALSE(restore(section).has_value());
}

TEST_F(PciTransportTest, device_unit_tells_what_blocks_its_device) {
    EXPECT_TRUE(transport->device_unit().save_blocker().empty());
    device->blocker = "it is on fire: put it out";
    EXPECT_EQ(transport->device_unit().save_blocker(), "it is on fire: put it out");
}

} // namespace
} // namespace godwit::virtio
