#include "bus/pci/pci_bus.h"
#include "kvm/kvm.h"
#include "machine/machine.h"
#include "machine/testing/guest_image.h"
#include "state/kvm_vm.pb.h"
#include "state/section_check.h"
#include "state/vcpu.pb.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

namespace godwit::machine {
namespace {

using namespace std::chrono_literals;

/// What a guest said and how it ended.
class Witness {
  public:
    MachineEvents events() {
        MachineEvents events;
        events.stopped = [this](StopReason reason, std::string detail) {
            const std::scoped_lock lock(mutex_);
            reason_ = reason;
            detail_ = std::move(detail);
            changed_.notify_all();
        };
        events.console_output = [this](std::string_view, std::span<const std::byte> bytes) {
            const std::scoped_lock lock(mutex_);
            for (const std::byte byte : bytes) {
                said_.push_back(std::to_integer<char>(byte));
            }
        };
        return events;
    }
    std::optional<StopReason> wait_stopped() {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, 20s, [this] { return reason_.has_value(); });
        return reason_;
    }
    std::string said() {
        const std::scoped_lock lock(mutex_);
        return said_;
    }
    std::string detail() {
        const std::scoped_lock lock(mutex_);
        return detail_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::optional<StopReason> reason_;
    std::string said_;
    std::string detail_;
};

class MachineVmTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (::access("/dev/kvm", R_OK | W_OK) != 0) {
            GTEST_SKIP() << "no usable /dev/kvm";
        }
    }
    static MachineSpec spec_for(const testing::TemporaryFile& kernel, std::uint32_t vcpus = 1) {
        MachineSpec spec;
        spec.name = "test";
        spec.vcpus = vcpus;
        spec.memory.bytes = 32 * mib;
        spec.kernel.path = kernel.path();
        return spec;
    }
    std::unique_ptr<Machine> build(const MachineSpec& spec, Resources resources) {
        auto built = Machine::build(
            spec, std::move(resources), RamMapping::shared, witness_.events(), sys::system_clock());
        EXPECT_TRUE(built.has_value()) << built.error().to_string();
        return built.has_value() ? std::move(*built) : nullptr;
    }
    std::unique_ptr<Machine> build(const MachineSpec& spec) {
        auto resources = open_resources(spec);
        EXPECT_TRUE(resources.has_value());
        return build(spec, std::move(*resources));
    }
    std::unique_ptr<Machine> boot(const MachineSpec& spec) {
        auto machine = build(spec);
        const Status booted = machine->boot();
        EXPECT_TRUE(booted.has_value()) << booted.error().to_string();
        return machine;
    }
    /// The guest's counter at 0x200000.
    static std::uint32_t count_of(Machine& machine) {
        return *machine.memory().load<std::uint32_t>(Gpa{0x20'0000});
    }
    /// Waits until the guest has counted on from `from`.
    static bool counts_on(Machine& machine, std::uint32_t from) {
        for (int i = 0; i < 20'000; ++i) {
            if (count_of(machine) != from) {
                return true;
            }
            std::this_thread::sleep_for(1ms);
        }
        return false;
    }

    Witness witness_;
};

TEST_F(MachineVmTest, guest_prints_and_powers_off) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::hello_code()));
    const auto machine = boot(spec_for(kernel));
    ASSERT_TRUE(machine->start().has_value());
    EXPECT_EQ(witness_.wait_stopped(), StopReason::powered_off) << witness_.detail();
    EXPECT_EQ(witness_.said(), "hi");
    EXPECT_FALSE(machine->running());
    EXPECT_EQ(machine->start().error().code(), ErrorCode::conflict);
}

TEST_F(MachineVmTest, triple_fault_stops_the_machine) {
    // lidt of nothing, then ud2.
    const testing::Bytes code{0x0F, 0x01, 0x1D, 0x00, 0x00, 0x30, 0x00, 0x0F, 0x0B};
    const testing::TemporaryFile kernel(testing::pvh_elf(code));
    const auto machine = boot(spec_for(kernel));
    ASSERT_TRUE(machine->start().has_value());
    EXPECT_EQ(witness_.wait_stopped(), StopReason::triple_fault) << witness_.detail();
}

TEST_F(MachineVmTest, reset_register_reports_a_reboot) {
    // mov $0xcf9,%dx; mov $6,%al; out %al,%dx; hlt
    const testing::Bytes code{0x66, 0xBA, 0xF9, 0x0C, 0xB0, 0x06, 0xEE, 0xF4};
    const testing::TemporaryFile kernel(testing::pvh_elf(code));
    const auto machine = boot(spec_for(kernel));
    ASSERT_TRUE(machine->start().has_value());
    EXPECT_EQ(witness_.wait_stopped(), StopReason::rebooted) << witness_.detail();
}

/// The payload without what measures time.
std::string timeless(const state::Section& section) {
    if (section.id.name == "acpi-pm") {
        return {};
    }
    if (section.id.name != "kvm-vm") {
        return section.payload;
    }
    state::KvmVmState vm;
    EXPECT_TRUE(vm.ParseFromString(section.payload));
    vm.clear_clock();
    return vm.SerializeAsString();
}

/// Names of the sections that differ.
std::string differences(const state::SavedState& a, const state::SavedState& b) {
    if (a.sections().size() != b.sections().size()) {
        return "number of sections";
    }
    std::string names;
    for (std::size_t i = 0; i < a.sections().size(); ++i) {
        if (a.sections()[i].id != b.sections()[i].id ||
            timeless(a.sections()[i]) != timeless(b.sections()[i])) {
            names += a.sections()[i].id.to_string() + " ";
        }
    }
    return names;
}

TEST_F(MachineVmTest, state_saved_loaded_and_saved_again_is_the_same) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel, 2);
    const auto first = boot(spec);
    ASSERT_TRUE(first->start().has_value());
    ASSERT_TRUE(counts_on(*first, 0));
    ASSERT_TRUE(first->pause().has_value());
    const auto saved = first->save();
    ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
    const auto second = build(spec, *first->duplicate_resources());
    const Status loaded = second->load(*saved, {.clock = Machine::ClockPolicy::running});
    ASSERT_TRUE(loaded.has_value()) << loaded.error().to_string();
    const auto again = second->save();
    ASSERT_TRUE(again.has_value()) << again.error().to_string();
    EXPECT_EQ(differences(*again, *saved), "");
}

TEST_F(MachineVmTest, state_read_on_the_way_to_rest_is_the_state_at_rest) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const auto machine = boot(spec_for(kernel, 2));
    for (int round = 0; round < 200; ++round) {
        ASSERT_TRUE(machine->start().has_value());
        ASSERT_TRUE(machine->pause_to_save().has_value());
        const auto on_the_way = machine->save();
        ASSERT_TRUE(on_the_way.has_value()) << on_the_way.error().to_string();
        const auto at_rest = machine->save();
        ASSERT_TRUE(at_rest.has_value()) << at_rest.error().to_string();
        ASSERT_EQ(differences(*on_the_way, *at_rest), "") << "round " << round;
    }
}

TEST_F(MachineVmTest, guest_that_ends_before_it_is_saved_can_be_destroyed_by_another_thread) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::hello_code()));
    auto machine = boot(spec_for(kernel));
    ASSERT_TRUE(machine->start().has_value());
    ASSERT_EQ(witness_.wait_stopped(), StopReason::powered_off) << witness_.detail();
    std::thread([&] {
        EXPECT_TRUE(machine->pause_to_save().has_value());
        EXPECT_EQ(machine->save().error().code(), ErrorCode::conflict);
    }).join();
    machine.reset();
}

/// "r--s", "rw-s": the rights of the mapping that holds `address`.
std::string rights_at(const std::byte* address) {
    std::ifstream maps("/proc/self/maps");
    const auto wanted = reinterpret_cast<std::uintptr_t>(address);
    for (std::string line; std::getline(maps, line);) {
        std::uintptr_t start = 0;
        std::uintptr_t end = 0;
        char rights[5] = {};
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &start, &end, rights) == 3 &&
            wanted >= start && wanted < end) {
            return rights;
        }
    }
    return "none";
}

TEST_F(MachineVmTest, successor_mirrors_the_machine_before_it_may_write) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    auto first = boot(spec);
    ASSERT_TRUE(first->start().has_value());
    Resources resources = *first->duplicate_resources();
    const sys::Fd& ram = std::ranges::find(resources, "ram", &Resource::name)->fd;
    auto second = *Machine::build_without_rights(
        spec, *sys::reopen_read_only(ram), MachineEvents{}, sys::system_clock());
    const std::byte* const host = second->memory().regions().front().host;
    EXPECT_EQ(rights_at(host), "r--s");
    const Wiring wiring = first->wiring();
    ASSERT_TRUE(second->prewire(wiring).has_value());
    EXPECT_EQ(difference(*first->mirror(wiring), *second->mirror(second->wired())), "");
    Wiring other = wiring;
    other.doorbells.push_back(Gpa{0xd000'3000});
    ASSERT_TRUE(second->prewire(other).has_value());
    EXPECT_EQ(difference(*first->mirror(wiring), *second->mirror(second->wired())), "wiring");
    ASSERT_TRUE(second->prewire(wiring).has_value());

    Resources foreign = *open_resources(spec);
    EXPECT_FALSE(second->grant(std::move(foreign)).has_value()) << "other memory than was mirrored";
    EXPECT_EQ(rights_at(host), "r--s");
    const Status granted = second->grant(std::move(resources));
    ASSERT_TRUE(granted.has_value()) << granted.error().to_string();
    EXPECT_EQ(rights_at(host), "rw-s");
    ASSERT_TRUE(first->pause_to_save().has_value());
    const Status loaded = second->load(*first->save(), {});
    ASSERT_TRUE(loaded.has_value()) << loaded.error().to_string();
    const std::uint32_t count = count_of(*second);
    ASSERT_TRUE(second->start().has_value());
    EXPECT_TRUE(counts_on(*second, count));
}

TEST_F(MachineVmTest, prepared_successor_takes_over_what_has_changed_since) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel, 2);
    auto first = boot(spec);
    ASSERT_TRUE(first->start().has_value());
    std::uint32_t count = 0;
    for (int round = 0; round < 5; ++round) {
        ASSERT_TRUE(counts_on(*first, count));
        auto second = build(spec, *first->duplicate_resources());
        ASSERT_TRUE(second->prewire(first->wiring()).has_value());
        auto preview = first->preview();
        ASSERT_TRUE(preview.has_value()) << preview.error().to_string();
        ASSERT_TRUE(second->preload(std::move(*preview)).has_value());
        count = count_of(*first);
        ASSERT_TRUE(counts_on(*first, count)) << "a preview does not stop the guest";
        ASSERT_TRUE(first->pause_to_save().has_value());
        const auto saved = first->save();
        ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
        const Status loaded = second->load(*saved, {});
        ASSERT_TRUE(loaded.has_value()) << loaded.error().to_string();
        const auto again = second->save();
        ASSERT_TRUE(again.has_value()) << again.error().to_string();
        EXPECT_EQ(differences(*again, *saved), "");
        count = count_of(*second);
        ASSERT_TRUE(second->start().has_value());
        first = std::move(second);
    }
    EXPECT_TRUE(counts_on(*first, count));
}

TEST_F(MachineVmTest, devices_go_ahead_while_the_guest_runs) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    MachineSpec spec = spec_for(kernel, 2);
    spec.balloon = BalloonSpec{};
    auto first = boot(spec);
    ASSERT_TRUE(first->start().has_value());
    ASSERT_TRUE(counts_on(*first, 0));
    EXPECT_FALSE(first->save_devices().has_value()) << "the devices work";
    // Each round gives the successor the devices as often as it has number; the state of the last
    // two has them once more, as if the guest had reached them since.
    for (int round = 0; round < 4; ++round) {
        auto second = build(spec, *first->duplicate_resources());
        ASSERT_TRUE(second->prewire(first->wiring()).has_value());
        ASSERT_TRUE(first->quiesce_devices().has_value());
        auto ahead = first->save_devices();
        ASSERT_TRUE(ahead.has_value()) << ahead.error().to_string();
        for (int times = 0; times < round; ++times) {
            const Status loaded = second->preload_devices(ahead->state);
            ASSERT_TRUE(loaded.has_value()) << loaded.error().to_string();
        }
        const std::uint32_t before = count_of(*first);
        ASSERT_TRUE(counts_on(*first, before)) << "only the devices rest";
        ASSERT_TRUE(first->pause_to_save().has_value());
        const state::SavedState all = *first->save();
        const bool functions_too = round == 0 || round > 1;
        auto saved =
            *first->save(functions_too ? Machine::Save::all : Machine::Save::without_functions);
        EXPECT_EQ(saved.has(bus::PciBus::section.id()), functions_too);
        if (round == 0) {
            EXPECT_FALSE(second->load(saved, {.devices_ahead = true}).has_value())
                << "none went ahead";
        }
        const Status loaded = second->load(saved, {.devices_ahead = !functions_too});
        ASSERT_TRUE(loaded.has_value()) << round << ": " << loaded.error().to_string();
        EXPECT_EQ(differences(*second->save(), all), "");
        const std::uint32_t count = count_of(*second);
        ASSERT_TRUE(second->start().has_value());
        EXPECT_TRUE(counts_on(*second, count));
        first = std::move(second);
    }
}

/// KVM's pvclock structure (Linux arch/x86/include/asm/pvclock-abi.h).
struct PvClock {
    std::uint32_t version;
    std::uint32_t pad;
    std::uint64_t tsc;
    std::uint64_t system_ns;
    std::uint32_t multiplier;
    std::int8_t shift;
    std::uint8_t flags;
    std::uint16_t pad2;
};

TEST_F(MachineVmTest, sections_saved_are_the_sections_announced) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const auto machine = boot(spec_for(kernel, 2));
    const auto saved = machine->save();
    ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
    std::vector<Machine::PlannedSection> written;
    for (const state::Section& section : saved->sections()) {
        EXPECT_TRUE(state::check_readable(Machine::known_sections(),
                                          {.name = section.id.name, .version = section.version})
                        .has_value());
        written.push_back({.id = section.id, .version = section.version});
    }
    EXPECT_EQ(written, machine->planned_sections());
}

TEST_F(MachineVmTest, newer_or_unknown_sections_are_refused_by_name) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    auto machine = boot(spec);
    const auto saved = machine->save();
    ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
    state::SavedState newer;
    for (state::Section section : saved->sections()) {
        section.version += section.id.name == "rtc" ? 1U : 0U;
        ASSERT_TRUE(newer.add(std::move(section)).has_value());
    }
    state::SavedState unknown = *saved;
    ASSERT_TRUE(unknown.add(state::Section{.id = {.name = "gpu"}, .payload = {}}).has_value());
    const auto refuse = [&](state::SavedState state) {
        auto successor = build(spec);
        return successor->load(std::move(state), {.clock = Machine::ClockPolicy::frozen})
            .error()
            .to_string();
    };
    EXPECT_NE(refuse(newer).find("'rtc' has version 2"), std::string::npos) << refuse(newer);
    EXPECT_NE(refuse(unknown).find("'gpu'"), std::string::npos) << refuse(unknown);
}

TEST_F(MachineVmTest, blockers_are_told_while_it_runs) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    EXPECT_EQ(build(spec)->save_blockers().size(), 1U) << "it has no state yet";
    const auto machine = boot(spec);
    ASSERT_TRUE(machine->start().has_value());
    EXPECT_TRUE(machine->save_blockers().empty());
}

TEST_F(MachineVmTest, clocks_go_on_across_ten_hand_overs) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    auto machine = boot(spec);
    ASSERT_TRUE(machine->start().has_value());
    ASSERT_TRUE(counts_on(*machine, 0));
    std::uint64_t last_ns = 0;
    for (int i = 0; i < 10; ++i) {
        ASSERT_TRUE(machine->pause().has_value());
        const auto saved = machine->save();
        ASSERT_TRUE(saved.has_value());
        auto next = build(spec, *machine->duplicate_resources());
        ASSERT_TRUE(next->load(*saved, {.clock = Machine::ClockPolicy::running}).has_value());
        const std::uint32_t count = count_of(*next);
        ASSERT_TRUE(next->start().has_value());
        EXPECT_GE(next->first_entry_at(), sys::Moment{});
        ASSERT_TRUE(counts_on(*next, count)) << "hand-over " << i << witness_.detail();
        const auto clock = *next->memory().load<PvClock>(Gpa{0x3000});
        EXPECT_GT(clock.system_ns, last_ns);
        last_ns = clock.system_ns;
        machine = std::move(next);
    }
    EXPECT_EQ(witness_.said(), "") << "the TSC went back";
}

TEST_F(MachineVmTest, frozen_clocks_continue_where_they_stopped) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    const auto first = boot(spec);
    ASSERT_TRUE(first->start().has_value());
    ASSERT_TRUE(counts_on(*first, 0));
    ASSERT_TRUE(first->pause().has_value());
    const auto saved = first->save();
    const auto saved_again = first->save();
    ASSERT_TRUE(saved.has_value() && saved_again.has_value());
    std::this_thread::sleep_for(300ms); // the time the guest must not see
    const auto second = build(spec, *first->duplicate_resources());
    ASSERT_TRUE(second->load(*saved, {.clock = Machine::ClockPolicy::frozen}).has_value());
    const auto after = second->save();
    ASSERT_TRUE(after.has_value());
    const auto clock_of = [](const state::SavedState& state) {
        state::KvmVmState vm;
        EXPECT_TRUE(vm.ParseFromString(state.sections()[0].payload));
        return vm.clock().kvmclock_ns();
    };
    EXPECT_GE(clock_of(*after), clock_of(*saved));
    EXPECT_LT(clock_of(*after) - clock_of(*saved), 100'000'000U);
    const std::uint32_t count = count_of(*second);
    ASSERT_TRUE(second->start().has_value());
    EXPECT_TRUE(counts_on(*second, count));
    EXPECT_EQ(witness_.said(), "");
}

TEST_F(MachineVmTest, state_with_a_cpu_feature_the_host_lacks_is_refused) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    const auto first = boot(spec);
    auto saved = first->save();
    ASSERT_TRUE(saved.has_value());
    auto vcpu = *saved->take({.name = "vcpu", .instance = 0});
    state::VcpuState message;
    ASSERT_TRUE(message.ParseFromString(vcpu.payload));
    // ecx of leaf 1: VMX. Entries are 40 bytes; leaf 1 is the second.
    (*message.mutable_cpuid())[40 + 20] |= 0x20;
    vcpu.payload = message.SerializeAsString();
    ASSERT_TRUE(saved->add(std::move(vcpu)).has_value());
    const auto second = build(spec, *first->duplicate_resources());
    const Status loaded = second->load(std::move(*saved), {.clock = Machine::ClockPolicy::frozen});
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().code(), ErrorCode::unsupported);
    EXPECT_NE(loaded.error().to_string().find("leaf 0x1 index 0 ecx bits 5"), std::string::npos)
        << loaded.error().to_string();
}

/// Where KVM cannot give a guest another frequency.
class UnscaledTscOnHost : public MachineVmTest {};

TEST_F(UnscaledTscOnHost, another_tsc_frequency_is_refused) {
    if (kvm::Kvm::open()->extension(KVM_CAP_TSC_CONTROL) > 0) {
        GTEST_SKIP() << "this host scales the TSC";
    }
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    const auto first = boot(spec);
    auto saved = first->save();
    ASSERT_TRUE(saved.has_value());
    auto vcpu = *saved->take({.name = "vcpu", .instance = 0});
    state::VcpuState message;
    ASSERT_TRUE(message.ParseFromString(vcpu.payload));
    message.set_tsc_khz(message.tsc_khz() - 100'000);
    vcpu.payload = message.SerializeAsString();
    ASSERT_TRUE(saved->add(std::move(vcpu)).has_value());
    const auto second = build(spec, *first->duplicate_resources());
    const Status loaded = second->load(std::move(*saved), {.clock = Machine::ClockPolicy::frozen});
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().code(), ErrorCode::unsupported);
    EXPECT_NE(loaded.error().to_string().find("kHz"), std::string::npos);
    EXPECT_EQ(second->start().error().code(), ErrorCode::conflict);
}

TEST_F(MachineVmTest, leftover_and_missing_sections_are_refused_by_name) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::clock_code()));
    const MachineSpec spec = spec_for(kernel);
    const auto first = boot(spec);
    const auto saved = first->save();
    ASSERT_TRUE(saved.has_value());
    auto without = *saved;
    ASSERT_TRUE(without.take({.name = "rtc", .instance = 0}).has_value());
    const Status missing = build(spec, *first->duplicate_resources())
                               ->load(std::move(without), {.clock = Machine::ClockPolicy::frozen});
    ASSERT_FALSE(missing.has_value());
    EXPECT_NE(missing.error().to_string().find("rtc"), std::string::npos);
    auto with = *saved;
    state::Section unknown;
    unknown.id = {.name = "unheard-of", .instance = 0};
    ASSERT_TRUE(with.add(std::move(unknown)).has_value());
    const Status leftover = build(spec, *first->duplicate_resources())
                                ->load(std::move(with), {.clock = Machine::ClockPolicy::frozen});
    ASSERT_FALSE(leftover.has_value());
    EXPECT_NE(leftover.error().to_string().find("unheard-of"), std::string::npos);
}

TEST_F(MachineVmTest, missing_kernel_is_named) {
    MachineSpec spec;
    spec.name = "test";
    spec.memory.bytes = 32 * mib;
    spec.kernel.path = "/nonexistent/vmlinux";
    const auto machine = build(spec, *open_resources(spec));
    const Status booted = machine->boot();
    ASSERT_FALSE(booted.has_value());
    EXPECT_EQ(booted.error().code(), ErrorCode::not_found);
    EXPECT_NE(booted.error().to_string().find("/nonexistent/vmlinux"), std::string::npos);
}

} // namespace
} // namespace godwit::machine
