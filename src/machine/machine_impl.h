#pragma once

/// The parts of a Machine, in the order they must outlive each other. Private to src/machine; built
/// by build.cpp, state in machine_state.cpp, running in machine_run.cpp.

#include "block/move/disk_destination.h"
#include "bus/pci/pci_bus.h"
#include "kvm/kvm.h"
#include "machine/address_map.h"
#include "machine/cpuid.h"
#include "machine/devices/back_ends.h"
#include "machine/devices/device_set.h"
#include "machine/kvm_bus.h"
#include "machine/machine.h"
#include "machine/platform/platform.h"
#include "machine/vcpu_exits.h"
#include "machine/vcpu_state.h"
#include "machine/vcpu_thread.h"
#include "memory/guest_memory.h"
#include "sys/cpu_placement.h"

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

namespace godwit::machine {

struct Machine::Impl {
    Impl(MachineSpec machine_spec,
         MachineEvents machine_events,
         const sys::Clock& system_clock,
         kvm::Kvm host_kvm,
         kvm::Vm host_vm)
        : spec(std::move(machine_spec)), events(std::move(machine_events)), clock(system_clock),
          kvm(std::move(host_kvm)), vm(std::move(host_vm)), first_entry(system_clock) {}

    MachineSpec spec;
    MachineEvents events;
    const sys::Clock& clock;
    Resources resources;                 ///< Duplicates for a handover; what devices use, they own.
    std::vector<std::string> last_moves; ///< JSON of each disk's last move; empty: none.
    std::vector<std::string> last_merges;
    std::vector<DiskFrozen> frozen; ///< Of each disk's freeze that is not settled.

    RamMapping ram_mapping = RamMapping::shared;
    std::shared_ptr<memory::GuestMemory> memory;
    kvm::Kvm kvm;
    kvm::Vm vm;
    std::unique_ptr<BackEnds> back_ends;

    /// While something must be quick. Of the thread that does it.
    std::vector<sys::EventLoop::Hold> held_loops;

    AddressMap ports;
    AddressMap addresses;
    std::unique_ptr<KvmMsiRouter> msi;
    std::unique_ptr<KvmDoorbells> doorbells;
    std::unique_ptr<bus::PciBus> pci;
    // Made by boot() or load().
    std::unique_ptr<platform::Platform> platform;
    std::unique_ptr<DeviceSet> devices;

    std::unique_ptr<ExitServer> exits;
    FirstEntry first_entry;
    std::atomic<bool> ended{false}; ///< The guest has stopped by itself.
    std::atomic<bool> built{false}; ///< `vcpus` is complete.
    VcpuStateTraits vcpu_traits;
    std::vector<kvm::CpuidEntries> cpuid; ///< As given to each vCPU.

    bool ready = false; ///< boot() or load() has succeeded.
    bool running = false;
    bool devices_awake = false;
    bool announce_due = false; ///< Loaded elsewhere: the network is told at the first start().
    bool stood_still = false;  ///< The guest has run before: its watchdogs are told at start().
    sys::Moment stopped_at;

    std::vector<std::unique_ptr<VcpuThread>> vcpus; ///< Last: they use all of the above.

    /// The vCPUs' reading of their own state, from pause_to_save() until save() takes it or the
    /// guest runs again.
    struct Collection;
    mutable std::shared_ptr<Collection> collection;
    sys::StayOffCpus off_vcpus;               ///< As long as `collection`.
    std::vector<VcpuRecord> preloaded;        ///< By preload(), of each vCPU; empty without it.
    std::vector<std::uint32_t> guest_tsc_khz; ///< Of each vCPU loaded.

    /// The guest has ended: tells once, and keeps every vCPU out. Any thread.
    void stop(StopReason reason, std::string detail);
    // machine_disks.cpp
    [[nodiscard]] Result<std::size_t> disk_index(std::string_view disk) const;
    /// Whether something may be begun with it.
    [[nodiscard]] Status check_disk_idle(std::size_t index) const;
    [[nodiscard]] Result<std::vector<block::OwnImage>> own_images() const;
    void settle_move(std::size_t disk);
    // machine_layers.cpp
    void settle_merge(std::size_t disk);
    void settle_freeze(std::size_t disk);
    [[nodiscard]] platform::Platform::Args platform_args();
    [[nodiscard]] DeviceSet::Args device_args();
    [[nodiscard]] static Result<std::unique_ptr<Machine>> build(const MachineSpec& spec,
                                                                const sys::Fd& ram,
                                                                RamMapping ram_mapping,
                                                                MachineEvents events,
                                                                const sys::Clock& clock);
    [[nodiscard]] Status build_buses();
    [[nodiscard]] Status build_vcpus();
    void begin_collecting();
    void give_up_collecting();
    [[nodiscard]] Result<std::vector<state::Section>> vcpu_sections() const;
    [[nodiscard]] Status save_into(state::SavedState& state, Save what) const;
    /// What is saved after the sections of KVM, in order; once ready.
    [[nodiscard]] std::vector<const state::StateUnit*> units() const;
    /// The last of them: PCI bus and functions.
    [[nodiscard]] std::vector<const state::StateUnit*> functions() const;
    /// That were served so far.
    [[nodiscard]] std::uint64_t exits_served() const noexcept;
    [[nodiscard]] Status load_functions(state::SavedState& state);
    [[nodiscard]] Status drop_functions();
    [[nodiscard]] Status load_platform(state::SavedState& state, ClockPolicy policy);
    [[nodiscard]] Result<state::Section> read_vcpu_section(std::size_t i) const;
    [[nodiscard]] Status load_vcpu_section(std::size_t i,
                                           const state::Section& section,
                                           std::uint64_t tsc_offset_change);
    [[nodiscard]] Status load_vcpus(const std::vector<state::Section>& sections,
                                    std::uint64_t tsc_offset_change,
                                    const std::function<Status()>& meanwhile);
};

} // namespace godwit::machine
