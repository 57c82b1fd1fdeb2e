#include "kvm/kvm.h"
#include "machine/boot/boot.h"
#include "machine/cpuid.h"
#include "machine/testing/guest_image.h"
#include "machine/vcpu_state.h"
#include "machine/vcpu_thread.h"
#include "memory/guest_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <thread>

namespace godwit::machine {
namespace {

using namespace std::chrono_literals;

/// The other side of hammer_code(): the numbers must come one by one, each exactly once.
class Counterpart final : public bus::BusDevice {
  public:
    void read(std::uint64_t, std::span<std::byte> out) override {
        const std::uint32_t value = reads_++;
        std::memcpy(out.data(), &value, out.size());
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        std::uint32_t value = 0;
        std::memcpy(&value, data.data(), data.size());
        if (offset == 8) {
            guest_complained_ = true;
        } else if (value != writes_++) {
            lost_or_doubled_ = true;
        }
    }
    [[nodiscard]] bool exact() const { return !guest_complained_ && !lost_or_doubled_; }
    [[nodiscard]] std::uint32_t writes() const { return writes_; }

  private:
    std::atomic<std::uint32_t> reads_{0};
    std::atomic<std::uint32_t> writes_{0};
    std::atomic<bool> guest_complained_{false};
    std::atomic<bool> lost_or_doubled_{false};
};

/// One vCPU on 32 MiB with only the counterparts on its buses.
struct SmallMachine {
    SmallMachine(std::shared_ptr<memory::GuestMemory> ram, kvm::Kvm host_kvm, kvm::Vm host_vm)
        : memory(std::move(ram)), kvm(std::move(host_kvm)), vm(std::move(host_vm)) {}
    std::shared_ptr<memory::GuestMemory> memory;
    kvm::Kvm kvm;
    kvm::Vm vm;
    kvm::CpuidEntries cpuid;
    VcpuStateTraits traits;
    AddressMap ports;
    AddressMap addresses;
    ExitServer exits{ports, addresses, [](StopReason, std::string) {}};
    FirstEntry first_entry{sys::system_clock()};
    std::atomic<bool> ended{false};
    std::unique_ptr<VcpuThread> thread;
};

class VcpuThreadVmTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (::access("/dev/kvm", R_OK | W_OK) != 0) {
            GTEST_SKIP() << "no usable /dev/kvm";
        }
        memory::RamSpec spec;
        spec.bytes = 32 * mib;
        auto backing = memory::RamBacking::create("test", spec);
        memory_ = *memory::GuestMemory::map(*backing, sys::MapMode::shared);
    }

    std::unique_ptr<SmallMachine> build() {
        auto kvm = *kvm::Kvm::open();
        auto vm = *kvm.create_vm();
        auto made = std::make_unique<SmallMachine>(memory_, std::move(kvm), std::move(vm));
        const auto& region = memory_->regions().front();
        EXPECT_TRUE(made->vm
                        .set_memory_slot({.number = 0,
                                          .start = region.ram.start,
                                          .bytes = region.ram.bytes,
                                          .host = region.host})
                        .has_value());
        EXPECT_TRUE(made->vm.create_irqchip().has_value());
        EXPECT_TRUE(made->ports.add(0x500, 0x10, port_side_).has_value());
        EXPECT_TRUE(made->addresses.add(0xD000'0000, 0x10, memory_side_).has_value());
        kvm::Vcpu vcpu = *made->vm.create_vcpu(0);
        made->cpuid = guest_cpuid(*made->kvm.supported_cpuid(), {}, 0);
        EXPECT_TRUE(vcpu.set_cpuid(made->cpuid).has_value());
        made->traits = *probe_vcpu(vcpu, *made->kvm.msr_indices());
        made->thread = *VcpuThread::create(std::move(vcpu),
                                           {.exits = &made->exits,
                                            .clock = &sys::system_clock(),
                                            .first_entry = &made->first_entry,
                                            .ended = &made->ended});
        return made;
    }

    std::shared_ptr<memory::GuestMemory> memory_;
    Counterpart port_side_;
    Counterpart memory_side_;
};

TEST_F(VcpuThreadVmTest, pauses_and_moves_neither_lose_nor_double_an_access) {
    const testing::TemporaryFile kernel(testing::pvh_elf(testing::hammer_code()));
    KernelSpec spec;
    spec.path = kernel.path();
    const auto entry = boot::load_kernel(*memory_, spec, Gpa{0xE0000});
    ASSERT_TRUE(entry.has_value()) << entry.error().to_string();
    auto machine = build();
    ASSERT_TRUE(boot::set_entry(machine->thread->vcpu(), *entry).has_value());
    for (int move = 0; move < 10; ++move) {
        for (int pause = 0; pause < 30; ++pause) {
            const std::uint32_t before = port_side_.writes();
            machine->thread->resume();
            while (port_side_.writes() < before + 3) {
                std::this_thread::yield();
            }
            machine->thread->request_pause();
            machine->thread->wait_parked();
        }
        const auto saved = save_vcpu(machine->thread->vcpu(), machine->traits, machine->cpuid);
        ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
        auto next = build();
        const VcpuLoad load{.traits = &next->traits, .cpuid = next->cpuid, .tsc_offset_change = 0};
        const auto loaded = load_vcpu(*saved, next->thread->vcpu(), load);
        ASSERT_TRUE(loaded.has_value()) << loaded.error().to_string();
        machine = std::move(next);
    }
    EXPECT_TRUE(port_side_.exact());
    EXPECT_TRUE(memory_side_.exact());
    EXPECT_GE(port_side_.writes(), 900U);
}

TEST_F(VcpuThreadVmTest, damaged_sections_are_refused_without_harm) {
    auto machine = build();
    const kvm::Vcpu& vcpu = machine->thread->vcpu();
    const auto saved = save_vcpu(vcpu, machine->traits, machine->cpuid);
    ASSERT_TRUE(saved.has_value()) << saved.error().to_string();
    const VcpuLoad load{
        .traits = &machine->traits, .cpuid = machine->cpuid, .tsc_offset_change = 0};
    const state::Section whole = encode_vcpu_section(*saved, vcpu.id());
    ASSERT_TRUE(parse_vcpu_section(whole).has_value());
    for (std::size_t length = 0; length < whole.payload.size(); length += 61) {
        state::Section damaged = whole;
        damaged.payload.resize(length);
        const auto record = parse_vcpu_section(damaged);
        const bool accepted = record.has_value() && check_vcpu(*record, vcpu, load).has_value() &&
                              load_vcpu(*record, vcpu, load).has_value();
        EXPECT_FALSE(accepted) << "prefix of " << length << " bytes";
    }
}

} // namespace
} // namespace godwit::machine
