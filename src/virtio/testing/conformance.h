#pragma once

/// What every virtio device must do, as one typed test suite (style T8). A device joins with:
///
///     struct BlkMaker {
///         std::unique_ptr<VirtioDevice> fresh(sys::EventLoop& loop);
///         Result<std::unique_ptr<VirtioDevice>> restored(sys::EventLoop& loop,
///                                                        const state::Section& section);
///         state::Section canonical(); // left out by a device without state
///     };
///     INSTANTIATE_TYPED_TEST_SUITE_P(Blk, DeviceConformance, BlkMaker);
///
/// canonical() is the section of a device in which every field says something, for its golden files
/// (state/testing/golden.h). A maker keeps what the device needs to live. A device without state is
/// never asked for restored(). Devices are not attached yet when they come out of the maker.

#include "bus/pci/pci_bus.h"
#include "bus/testing/fakes.h"
#include "state/testing/golden.h"
#include "sys/io_thread.h"
#include "virtio/pci_transport.h"
#include "virtio/testing/driver_queue.h"
#include "virtio/testing/driver_registers.h"
#include "virtio/testing/fake_device_host.h"
#include "virtio/virtio_device.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace godwit::virtio::testing {

template <typename Maker>
class DeviceConformance : public ::testing::Test {
  protected:
    DeviceConformance()
        : io_(GODWIT_MUST(sys::IoThread::create("conformance"))), // a thread is to be had
          memory_(make_memory()) {}

    [[nodiscard]] std::unique_ptr<VirtioDevice> fresh() { return maker_.fresh(io_->loop()); }
    /// Restored from its section, or made anew if it has none.
    [[nodiscard]] Result<std::unique_ptr<VirtioDevice>> successor(const VirtioDevice& device) {
        const state::Saved saved = GODWIT_TRY(device.save());
        if (const auto* section = std::get_if<state::Section>(&saved)) {
            return maker_.restored(io_->loop(), *section);
        }
        return fresh();
    }
    /// The device's payload; empty if it has no state.
    [[nodiscard]] static std::string payload(const VirtioDevice& device) {
        const auto saved = GODWIT_MUST(device.save()); // at rest, so it can be saved
        const auto* section = std::get_if<state::Section>(&saved);
        return section != nullptr ? section->payload : std::string();
    }

    [[nodiscard]] static Gpa rings_of(std::size_t queue) {
        return Gpa{0x10'0000 + 0x1'0000 * static_cast<std::uint64_t>(queue)};
    }
    /// One good, empty ring for every queue of the device.
    [[nodiscard]] std::vector<QueueState> good_queues(const VirtioDevice& device) {
        std::vector<QueueState> states;
        for (const std::uint16_t size : device.queue_sizes()) {
            const DriverQueue driver(memory_, {.rings = rings_of(states.size()), .size = size});
            states.push_back(driver.state());
        }
        return states;
    }
    [[nodiscard]] Result<Activation> activation(const VirtioDevice& device,
                                                const std::vector<QueueState>& states) {
        Activation made;
        made.features = device.features() | feature_version_1 | feature_indirect_descriptors;
        for (const QueueState& state : states) {
            made.queues.emplace_back(GODWIT_TRY(
                VirtQueue::create(memory_, state, {.event_index = false, .indirect = true})));
            made.doorbells.push_back(GODWIT_TRY(sys::EventFd::create()));
        }
        return made;
    }
    /// An activated device, at rest.
    [[nodiscard]] Status activate(VirtioDevice& device) {
        return device.activate(GODWIT_TRY(activation(device, good_queues(device))));
    }
    /// The same with no queue enabled.
    [[nodiscard]] Status activate_without_queues(VirtioDevice& device) {
        Activation none;
        none.features = feature_version_1;
        for (std::size_t i = 0; i < device.queue_sizes().size(); ++i) {
            none.queues.emplace_back(std::nullopt);
            none.doorbells.push_back(GODWIT_TRY(sys::EventFd::create()));
        }
        return device.activate(std::move(none));
    }

    std::unique_ptr<sys::IoThread> io_;
    std::shared_ptr<memory::GuestMemory> memory_;
    FakeDeviceHost host_;
    Maker maker_;
};

TYPED_TEST_SUITE_P(DeviceConformance);

TYPED_TEST_P(DeviceConformance, saved_restored_and_saved_again_gives_equal_bytes) {
    const auto device = this->fresh();
    device->attach(this->host_);
    ASSERT_TRUE(this->activate(*device).has_value());
    device->wake();
    device->quiesce();
    const auto other = this->successor(*device);
    ASSERT_TRUE(other.has_value()) << other.error().to_string();
    EXPECT_EQ(this->payload(**other), this->payload(*device));
    EXPECT_EQ((*other)->section_id(), device->section_id());
    EXPECT_EQ((*other)->features(), device->features());
}

TYPED_TEST_P(DeviceConformance, golden_sections_are_read_and_written_again) {
    if constexpr (requires(TypeParam maker) { maker.canonical(); }) {
        const auto resave = [this](const state::Section& section) -> Result<state::Section> {
            const auto device = GODWIT_TRY(this->maker_.restored(this->io_->loop(), section));
            device->attach(this->host_);
            return std::get<state::Section>(GODWIT_TRY(device->save()));
        };
        EXPECT_EQ(state::testing::check_goldens(this->maker_.canonical(), resave), "");
    } else {
        EXPECT_FALSE(this->fresh()->section_type().written()) << "its maker needs canonical()";
    }
}

TYPED_TEST_P(DeviceConformance, every_truncated_section_is_refused) {
    const auto device = this->fresh();
    device->attach(this->host_);
    const state::Saved saved = GODWIT_MUST(device->save()); // at rest
    if (const auto* whole = std::get_if<state::Section>(&saved)) {
        state::Section section = *whole;
        while (!section.payload.empty()) {
            section.payload.pop_back();
            EXPECT_FALSE(this->maker_.restored(this->io_->loop(), section).has_value())
                << section.payload.size() << " bytes";
        }
        section = *whole;
        section.version = 1000; // Newer than any.
        EXPECT_FALSE(this->maker_.restored(this->io_->loop(), section).has_value()) << "version";
    }
}

TYPED_TEST_P(DeviceConformance, flipped_bytes_of_the_section_do_no_harm) {
    const auto device = this->fresh();
    device->attach(this->host_);
    const state::Saved saved = GODWIT_MUST(device->save()); // at rest
    if (const auto* whole = std::get_if<state::Section>(&saved)) {
        for (std::size_t i = 0; i < whole->payload.size(); ++i) {
            state::Section section = *whole;
            section.payload[i] = static_cast<char>(section.payload[i] ^ 0x41);
            const auto other = this->maker_.restored(this->io_->loop(), section);
            if (other.has_value()) {
                (*other)->attach(this->host_);
                EXPECT_TRUE((*other)->save().has_value());
            }
        }
    }
}

TYPED_TEST_P(DeviceConformance, wake_and_quiesce_may_be_repeated) {
    const auto device = this->fresh();
    device->attach(this->host_);
    device->quiesce();
    ASSERT_TRUE(this->activate(*device).has_value());
    const auto before = device->queue_states();
    ASSERT_EQ(before.size(), device->queue_sizes().size());
    device->wake();
    device->wake();
    EXPECT_GE(this->host_.queue_notices(0), 1U) << "wake raises every queue's interrupt";
    device->quiesce();
    device->quiesce();
    EXPECT_EQ(device->queue_states(), before) << "nothing was offered";
    device->wake();
    device->quiesce();
    EXPECT_EQ(this->host_.resets_asked(), 0U);
}

TYPED_TEST_P(DeviceConformance, reset_works_in_every_state) {
    const auto device = this->fresh();
    device->attach(this->host_);
    device->reset(); // never activated
    ASSERT_TRUE(this->activate(*device).has_value());
    device->reset(); // activated, at rest
    EXPECT_FALSE(device->queue_states().at(0).has_value());
    device->wake();
    device->reset(); // awake, not activated
    ASSERT_TRUE(this->activate(*device).has_value());
    device->reset(); // awake and activated
    ASSERT_TRUE(this->activate_without_queues(*device).has_value());
    device->quiesce();
    device->reset(); // at rest again
    ASSERT_TRUE(this->activate(*device).has_value());
    EXPECT_TRUE(device->queue_states().at(0).has_value());
}

TYPED_TEST_P(DeviceConformance, rings_full_of_rubbish_ask_for_a_reset_at_most) {
    for (const int filler : {0x00, 0x01, 0x7f, 0xff}) {
        const auto device = this->fresh();
        device->attach(this->host_);
        const auto states = this->good_queues(*device);
        for (std::size_t i = 0; i < states.size(); ++i) {
            const std::vector<std::byte> rubbish(0x8000, static_cast<std::byte>(filler));
            ASSERT_TRUE(this->memory_->write(this->rings_of(i), rubbish).has_value());
        }
        auto activation = this->activation(*device, states);
        ASSERT_TRUE(activation.has_value());
        discard(device->activate(std::move(*activation)), "a device may refuse it");
        device->wake();
        device->quiesce();
        EXPECT_TRUE(device->save().has_value());
        device->reset();
        ASSERT_TRUE(this->activate(*device).has_value()) << "works again after the reset";
    }
}

TYPED_TEST_P(DeviceConformance, indexes_from_a_hostile_state_ask_for_a_reset_at_most) {
    const auto device = this->fresh();
    device->attach(this->host_);
    auto states = this->good_queues(*device);
    for (QueueState& state : states) {
        state.next_available = 0x8001; // Far from the driver's index, which is 0.
        state.next_used = 0xffff;
    }
    auto activation = this->activation(*device, states);
    ASSERT_TRUE(activation.has_value());
    discard(device->activate(std::move(*activation)), "a device may refuse it");
    device->wake();
    device->quiesce();
    EXPECT_TRUE(device->save().has_value());
}

TYPED_TEST_P(DeviceConformance, transport_restores_the_activated_device_at_rest) {
    struct Host {
        explicit Host(std::shared_ptr<memory::GuestMemory> ram)
            : memory(std::move(ram)), bus(GODWIT_MUST(bus::PciBus::create(space))) { // never fails
            GODWIT_MUST(space.add(test_ecam_base, bus::ecam_bytes, bus->ecam()));
        }
        [[nodiscard]] PciTransport::Args args() {
            return {.memory = memory,
                    .bus = *bus,
                    .address_space = space,
                    .msi_router = msi,
                    .doorbells = doorbells,
                    .slot = 1};
        }
        std::shared_ptr<memory::GuestMemory> memory;
        bus::testing::FakeAddressSpace space;
        bus::testing::FakeMsiRouter msi;
        bus::testing::FakeDoorbells doorbells;
        std::unique_ptr<bus::PciBus> bus;
    };
    Host host(this->memory_);
    const auto transport = GODWIT_MUST(PciTransport::create(host.args(), this->fresh()));
    const DriverRegisters registers(host.space, 1);
    registers.negotiate(registers.offered_features());
    registers.enable_msix();
    std::uint16_t index = 0;
    for (const QueueState& state : this->good_queues(transport->device())) {
        registers.set_queue(index, state, static_cast<std::uint16_t>(index + 1));
        ++index;
    }
    ASSERT_EQ(registers.driver_ok(), 0x0f);
    transport->wake();
    transport->quiesce();
    const auto section = std::get<state::Section>(GODWIT_MUST(transport->save())); // at rest

    Host other(this->memory_);
    auto device = this->successor(transport->device());
    ASSERT_TRUE(device.has_value()) << device.error().to_string();
    const auto restored = PciTransport::restore(other.args(), std::move(*device), section);
    ASSERT_TRUE(restored.has_value()) << restored.error().to_string();
    EXPECT_EQ(std::get<state::Section>(GODWIT_MUST((*restored)->save())).payload, section.payload);
    (*restored)->wake();
    (*restored)->quiesce();
    EXPECT_EQ(DriverRegisters(other.space, 1).status(), 0x0f);
}

REGISTER_TYPED_TEST_SUITE_P(DeviceConformance,
                            saved_restored_and_saved_again_gives_equal_bytes,
                            golden_sections_are_read_and_written_again,
                            every_truncated_section_is_refused,
                            flipped_bytes_of_the_section_do_no_harm,
                            wake_and_quiesce_may_be_repeated,
                            reset_works_in_every_state,
                            rings_full_of_rubbish_ask_for_a_reset_at_most,
                            indexes_from_a_hostile_state_ask_for_a_reset_at_most,
                            transport_restores_the_activated_device_at_rest);

} // namespace godwit::virtio::testing
