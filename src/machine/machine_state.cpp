/// Saving and loading a machine.
///
/// Sections in order: "kvm-vm", "vcpu" 0.., platform devices, "pci-bus", PCI functions.
/// Loading: 1 take and check every section, 2 devices (their interrupt lines first), 3 interrupt
/// controllers, which take the lines' levels over, 4 vCPUs with LAPICs, 5 clock, after the TSCs it
/// is reckoned from, 6 interrupt routes in one table.

#include "machine/boot/boot_layout.h"
#include "machine/machine_impl.h"
#include "machine/vm_state.h"

#include <algorithm>
#include <array>

namespace godwit::machine {

Status Machine::Impl::save_into(state::SavedState& state) const {
    GODWIT_TRY(state.add(GODWIT_TRY(save_vm(vm, clock))));
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        GODWIT_TRY(state.add(GODWIT_TRY(save_vcpu(vcpus[i]->vcpu(), vcpu_traits, cpuid[i]))));
    }
    GODWIT_TRY(platform->save(state));
    GODWIT_TRY(state.add(*pci));
    return devices->save(state);
}

Result<state::SavedState> Machine::save() const {
    const Impl& m = *impl_;
    if (!m.ready || m.running || m.ended) {
        return Error(ErrorCode::conflict, "only a paused machine can be saved");
    }
    state::SavedState state;
    GODWIT_TRY(m.save_into(state));
    return state;
}

std::vector<state::SectionId> Machine::section_ids() const {
    const MachineSpec& spec = impl_->spec;
    std::vector<state::SectionId> ids{{.name = "kvm-vm", .instance = 0}};
    for (std::uint32_t i = 0; i < spec.vcpus; ++i) {
        ids.push_back({.name = "vcpu", .instance = i});
    }
    if (spec.serial) {
        ids.push_back({.name = "serial", .instance = 0});
    }
    for (const char* name : {"rtc", "acpi-pm", "reset", "pci-bus"}) {
        ids.push_back({.name = name, .instance = 0});
    }
    for (const PlannedDevice& device : plan_devices(spec)) {
        if (has_section(device.kind)) {
            ids.push_back(device_section_id(device));
        }
        ids.push_back(transport_section_id(device));
    }
    return ids;
}

bool Machine::knows_section(std::string_view name, std::uint32_t version) noexcept {
    constexpr std::array<std::string_view, 12> known{"kvm-vm",
                                                     "vcpu",
                                                     "serial",
                                                     "rtc",
                                                     "acpi-pm",
                                                     "reset",
                                                     "pci-bus",
                                                     "virtio-pci",
                                                     "virtio-blk",
                                                     "virtio-net",
                                                     "virtio-console",
                                                     "virtio-balloon"};
    return version == 1 && std::ranges::find(known, name) != known.end();
}

std::vector<std::string> Machine::save_blockers() const {
    return {};
}

namespace {

struct KvmSections {
    VmState vm;
    std::vector<state::Section> vcpus;
};

Result<KvmSections> take_kvm_sections(state::SavedState& state, std::uint32_t vcpus) {
    KvmSections sections;
    sections.vm =
        GODWIT_TRY(parse_vm_section(GODWIT_TRY(state.take({.name = "kvm-vm", .instance = 0}))));
    for (std::uint32_t i = 0; i < vcpus; ++i) {
        sections.vcpus.push_back(GODWIT_TRY(state.take({.name = "vcpu", .instance = i})));
    }
    return sections;
}

} // namespace

Status Machine::Impl::load_devices(state::SavedState& state, ClockPolicy policy) {
    const auto timer_policy = policy == ClockPolicy::running ? platform::TimerPolicy::running
                                                             : platform::TimerPolicy::frozen;
    auto pci_section = GODWIT_TRY(state.take({.name = "pci-bus", .instance = 0}));
    addresses.remove(boot::ecam_start);
    pci = GODWIT_TRY(bus::PciBus::restore(addresses, pci_section));
    GODWIT_TRY(addresses.add(boot::ecam_start, boot::ecam_bytes, pci->ecam()));
    platform = GODWIT_TRY(platform::Platform::restore(platform_args(), state, timer_policy));
    devices = GODWIT_TRY(DeviceSet::restore(device_args(), state));
    return ok();
}

Status Machine::load(state::SavedState state, ClockPolicy policy) {
    Impl& m = *impl_;
    if (m.ready) {
        return Error(ErrorCode::conflict, "the machine has a state already");
    }
    const KvmSections sections = GODWIT_TRY(take_kvm_sections(state, m.spec.vcpus));
    VcpuLoad load{.traits = &m.vcpu_traits,
                  .cpuid = {},
                  .tsc_offset_change = policy == ClockPolicy::frozen
                                           ? frozen_tsc_offset_change(sections.vm.clock)
                                           : 0};
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        load.cpuid = m.cpuid[i];
        GODWIT_TRY(check_vcpu_section(sections.vcpus[i], m.vcpus[i]->vcpu(), load));
    }
    m.msi->hold();
    GODWIT_TRY(m.load_devices(state, policy));
    GODWIT_TRY(state.finish());
    GODWIT_TRY(load_interrupt_controllers(m.vm, sections.vm));
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        load.cpuid = m.cpuid[i];
        m.cpuid[i] = GODWIT_TRY(load_vcpu(sections.vcpus[i], m.vcpus[i]->vcpu(), load));
    }
    GODWIT_TRY(policy == ClockPolicy::running
                   ? continue_kvmclock(m.vm, sections.vm.clock, m.clock, m.vcpu_traits.host_tsc_khz)
                   : resume_kvmclock(m.vm, sections.vm.clock));
    GODWIT_TRY(m.msi->commit());
    m.ready = true;
    m.stood_still = true;
    m.announce_due = policy == ClockPolicy::frozen;
    return ok();
}

} // namespace godwit::machine
