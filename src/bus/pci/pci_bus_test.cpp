#include "bus/pci/pci_bus.h"
#include "bus/testing/fakes.h"
#include "state/testing/golden.h"

namespace godwit::bus {
namespace {

constexpr std::uint64_t ecam_base = 0xe000'0000;
constexpr std::uint64_t slot_3 = ecam_base + (3U << 15U);

/// Registers that remember the last write.
struct Registers final : BusDevice {
    void read(std::uint64_t offset, std::span<std::byte> out) override {
        std::ranges::fill(out, static_cast<std::byte>(offset));
    }
    void write(std::uint64_t offset, std::span<const std::byte>) override { last_write = offset; }
    std::uint64_t last_write = 0;
};

/// A device with one BAR and MSI-X, as the real ones are made.
struct TestFunction final : ConfigTarget {
    TestFunction(AddressSpace& space, MsiRouter& router, Gpa bar)
        : function({.vendor = 0x1af4,
                    .device = 0x1042,
                    .revision = 1,
                    .class_code = 0x01'0000,
                    .subsystem_vendor = 0x1af4,
                    .subsystem = 0x42},
                   space) {
        GODWIT_MUST(function.add_bar(0, 0x4000, bar, registers)); // right by construction
        GODWIT_MUST(function.add_msix(GODWIT_MUST(Msix::create(router, 2)), 0, 0x1000, 0x2000));
        function.connect();
    }
    void read_config(std::uint32_t offset, std::span<std::byte> out) override {
        function.read_config(offset, out);
    }
    void write_config(std::uint32_t offset, std::span<const std::byte> data) override {
        function.write_config(offset, data);
    }
    Registers registers;
    PciFunction function;
};

struct PciBusTest : ::testing::Test {
    PciBusTest()
        : bus(GODWIT_MUST(PciBus::create(memory))), // cannot fail
          bar(GODWIT_MUST(bus->take_bar_address(0x4000))), device(memory, router, bar) {
        GODWIT_MUST(memory.add(ecam_base, ecam_bytes, bus->ecam())); // an empty address space
        GODWIT_MUST(ports.add(config_ports_start, config_ports_count, bus->ports()));
        GODWIT_MUST(bus->add(3, device));
    }
    testing::FakeAddressSpace memory;
    testing::FakeAddressSpace ports;
    testing::FakeMsiRouter router;
    std::unique_ptr<PciBus> bus;
    Gpa bar;
    TestFunction device;
};

TEST_F(PciBusTest, golden_sections_are_read_and_written_again) {
    ports.write(config_ports_start, 4, 0x8000'1810);
    memory.write(ecam_base + 4, 2, 0x0006);  // command: memory, bus master
    memory.write(ecam_base + 0x3c, 1, 0x0b); // interrupt line
    const auto resave = [](const state::Section& section) -> Result<state::Section> {
        testing::FakeAddressSpace space;
        const auto restored = GODWIT_TRY(PciBus::restore(space, section));
        return std::get<state::Section>(GODWIT_TRY(restored->save()));
    };
    const auto saved = std::get<state::Section>(GODWIT_MUST(bus->save())); // always saves
    EXPECT_EQ(state::testing::check_goldens(saved, resave), "");
}

TEST_F(PciBusTest, host_bridge_and_device_are_found_and_nothing_else) {
    EXPECT_EQ(memory.read(ecam_base, 4), 0x0008'1b36U);
    EXPECT_EQ(memory.read(ecam_base + 8, 4), 0x0600'0000U);
    EXPECT_EQ(memory.read(slot_3, 4), 0x1042'1af4U);
    EXPECT_EQ(memory.read(ecam_base + (1U << 15U), 4), 0xffff'ffffU);
    EXPECT_EQ(memory.read(slot_3 + 0x1000, 4), 0xffff'ffffU) << "function 1";
}

TEST_F(PciBusTest, ports_reach_the_same_registers) {
    ports.write(0xcf8, 4, 0x8000'0000 | (3U << 11U));
    EXPECT_EQ(ports.read(0xcf8, 4), 0x8000'1800U);
    EXPECT_EQ(ports.read(0xcfc, 4), 0x1042'1af4U);
    EXPECT_EQ(ports.read(0xcfe, 2), 0x1042U);
    ports.write(0xcf8, 4, 0x8000'0000 | (3U << 11U) | 0x3c);
    ports.write(0xcfc, 1, 11);
    EXPECT_EQ(memory.read(slot_3 + 0x3c, 1), 11U);
}

TEST_F(PciBusTest, ports_without_enable_or_of_odd_shape_do_nothing) {
    ports.write(0xcf8, 4, 3U << 11U);
    EXPECT_EQ(ports.read(0xcfc, 4), 0xffff'ffffU);
    ports.write(0xcf9, 1, 6);
    EXPECT_EQ(ports.read(0xcf8, 4), 3U << 11U);
    ports.write(0xcf8, 4, 0x8001'0000);
    EXPECT_EQ(ports.read(0xcfc, 4), 0xffff'ffffU) << "there is no bus 1";
}

TEST_F(PciBusTest, read_only_registers_stay) {
    memory.write(slot_3, 4, 0xdead'beef);
    memory.write(slot_3 + 8, 4, 0xdead'beef);
    memory.write(slot_3 + 0x100, 4, 0xdead'beef);
    EXPECT_EQ(memory.read(slot_3, 4), 0x1042'1af4U);
    EXPECT_EQ(memory.read(slot_3 + 8, 4), 0x0100'0001U);
    EXPECT_EQ(memory.read(slot_3 + 0x100, 4), 0U);
}

TEST_F(PciBusTest, bar_answers_its_size_and_moves) {
    EXPECT_EQ(memory.read(bar.value + 8, 1), 8U) << "decoded from the start";
    memory.write(slot_3 + 4, 2, 0);
    EXPECT_FALSE(memory.has(bar.value));
    memory.write(slot_3 + 0x10, 4, 0xffff'ffff);
    EXPECT_EQ(memory.read(slot_3 + 0x10, 4), 0xffff'c000U);
    memory.write(slot_3 + 0x10, 4, 0xc100'0000);
    memory.write(slot_3 + 4, 2, 2);
    EXPECT_FALSE(memory.has(bar.value));
    EXPECT_EQ(memory.read(0xc100'0008, 1), 8U);
    EXPECT_EQ(device.function.decoded_at(0), Gpa{0xc100'0000});
}

TEST_F(PciBusTest, bar_on_top_of_another_range_is_not_decoded) {
    memory.write(slot_3 + 0x10, 4, ecam_base);
    EXPECT_EQ(device.function.decoded_at(0), std::nullopt);
    EXPECT_EQ(memory.read(ecam_base, 4), 0x0008'1b36U);
    memory.write(slot_3 + 0x10, 4, static_cast<std::uint32_t>(bar.value));
    EXPECT_EQ(device.function.decoded_at(0), bar);
}

TEST_F(PciBusTest, capability_list_leads_to_msix) {
    EXPECT_EQ(memory.read(slot_3 + 6, 2) & 0x10U, 0x10U);
    const std::uint64_t at = memory.read(slot_3 + 0x34, 1);
    EXPECT_EQ(memory.read(slot_3 + at, 2), 0x0011U);
    EXPECT_EQ(memory.read(slot_3 + at + 2, 2), 1U) << "two vectors";
    EXPECT_EQ(memory.read(slot_3 + at + 4, 4), 0x1000U);
    memory.write(slot_3 + at + 2, 2, 0xffff);
    EXPECT_EQ(memory.read(slot_3 + at + 2, 2), 0xc001U);
    EXPECT_TRUE(device.function.msix()->save().enabled);
}

TEST_F(PciBusTest, taken_slot_and_slot_beyond_are_refused) {
    EXPECT_EQ(bus->add(3, device).error().code(), ErrorCode::already_exists);
    EXPECT_FALSE(bus->add(0, device).has_value());
    EXPECT_FALSE(bus->add(32, device).has_value());
}

TEST_F(PciBusTest, bar_window_runs_out_politely) {
    EXPECT_EQ(GODWIT_MUST(bus->take_bar_address(0x8000)), Gpa{0xc000'8000});
    EXPECT_FALSE(bus->take_bar_address(0x2000'0000).has_value());
    EXPECT_FALSE(bus->take_bar_address(0x3000).has_value());
    EXPECT_FALSE(bus->take_bar_address(0).has_value());
}

TEST_F(PciBusTest, restored_bus_saves_the_same_bytes) {
    ports.write(0xcf8, 4, 0x8000'1810);
    memory.write(ecam_base + 4, 2, 6);
    const auto section = std::get<state::Section>(GODWIT_MUST(bus->save()));
    testing::FakeAddressSpace other;
    const auto restored = GODWIT_MUST(PciBus::restore(other, section));
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST(restored->save())).payload, section.payload);
}

TEST_F(PciBusTest, truncated_bus_section_is_refused) {
    auto section = std::get<state::Section>(GODWIT_MUST(bus->save()));
    while (!section.payload.empty()) {
        section.payload.pop_back();
        EXPECT_FALSE(PciBus::restore(memory, section).has_value()) << section.payload.size();
    }
}

TEST(PciFunction, hostile_state_is_refused) {
    testing::FakeAddressSpace memory;
    testing::FakeMsiRouter router;
    TestFunction device(memory, router, Gpa{0xc000'0000});
    const PciFunctionState good = device.function.save();
    const auto refused = [&](auto change) {
        PciFunctionState state = good;
        change(state);
        return !device.function.load(state).has_value();
    };
    EXPECT_FALSE(refused([](PciFunctionState&) {}));
    EXPECT_TRUE(refused([](PciFunctionState& s) { s.command = 1; }));
    EXPECT_TRUE(refused([](PciFunctionState& s) { s.bars[0] = 0xc000'0010; }));
    EXPECT_TRUE(refused([](PciFunctionState& s) { s.bars[1] = 0x1000; }));
    EXPECT_TRUE(refused([](PciFunctionState& s) { s.msix.reset(); }));
    EXPECT_TRUE(refused([](PciFunctionState& s) { s.msix->entries.resize(300); }));
}

TEST(PciFunction, destroyed_function_leaves_the_address_space) {
    testing::FakeAddressSpace memory;
    testing::FakeMsiRouter router;
    {
        const TestFunction device(memory, router, Gpa{0xc000'0000});
        EXPECT_EQ(memory.ranges(), 1U);
    }
    EXPECT_EQ(memory.ranges(), 0U);
}

TEST(PciFunction, capabilities_that_do_not_fit_are_refused) {
    testing::FakeAddressSpace memory;
    PciFunction function({}, memory);
    const std::vector<std::byte> large(100);
    EXPECT_TRUE(function.add_capability(capability_vendor_specific, large).has_value());
    EXPECT_FALSE(function.add_capability(capability_vendor_specific, large).has_value());
}

} // namespace
} // namespace godwit::bus
