/// Saving and loading a machine.
///
/// Sections in order: "kvm-vm", "vcpu" 0.., platform devices, "pci-bus", PCI functions.
/// Loading: 0 refuse what is newer than this build, 1 take and check every section, 2 devices
/// (their interrupt lines first), 3 interrupt controllers, which take the lines' levels over, 4
/// vCPUs with LAPICs, 5 clock, after the TSCs it is reckoned from, 6 interrupt routes in one table.

#include "machine/boot/boot_layout.h"
#include "machine/machine_impl.h"
#include "machine/vm_state.h"
#include "state/section_check.h"
#include "virtio/balloon/balloon_state.h"
#include "virtio/blk/blk_state.h"
#include "virtio/console/console_state.h"
#include "virtio/net/net_state.h"
#include "virtio/pci_transport_state.h"

#include <array>

namespace godwit::machine {

Status Machine::Impl::save_into(state::SavedState& state) const {
    GODWIT_TRY(state.add(encode_vm_section(GODWIT_TRY(read_vm_state(vm, clock)))));
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        GODWIT_TRY(state.add(
            encode_vcpu_section(GODWIT_TRY(save_vcpu(vcpus[i]->vcpu(), vcpu_traits, cpuid[i])),
                                static_cast<std::uint32_t>(i))));
    }
    for (const state::StateUnit* unit : units()) {
        GODWIT_TRY(state.add(*unit));
    }
    return ok();
}

std::vector<const state::StateUnit*> Machine::Impl::units() const {
    std::vector<const state::StateUnit*> all = platform->units();
    all.push_back(pci.get());
    const std::vector<const state::StateUnit*> of_devices = devices->units();
    all.insert(all.end(), of_devices.begin(), of_devices.end());
    return all;
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

std::vector<Machine::PlannedSection> Machine::planned_sections() const {
    const Impl& m = *impl_;
    if (!m.ready) {
        return {};
    }
    std::vector<PlannedSection> planned{{.id = vm_section.id(), .version = vm_section.version}};
    for (std::uint32_t i = 0; i < m.spec.vcpus; ++i) {
        planned.push_back({.id = vcpu_section.id(i), .version = vcpu_section.version});
    }
    for (const state::StateUnit* unit : m.units()) {
        const state::SectionType type = unit->section_type();
        if (type.written()) {
            planned.push_back({.id = unit->section_id(), .version = type.version});
        }
    }
    return planned;
}

std::span<const state::SectionType> Machine::known_sections() noexcept {
    static constexpr std::array known{vm_section,
                                      vcpu_section,
                                      platform::Serial::section,
                                      platform::Rtc::section,
                                      platform::AcpiPm::section,
                                      platform::ResetControl::section,
                                      bus::PciBus::section,
                                      virtio::transport_section,
                                      virtio::blk_section,
                                      virtio::net_section,
                                      virtio::console_section,
                                      virtio::balloon_section};
    return known;
}

std::vector<std::string> Machine::save_blockers() const {
    const Impl& m = *impl_;
    if (!m.ready) {
        return {"the machine has no state yet: boot or restore it first"};
    }
    std::vector<std::string> blockers;
    if (m.ended) {
        blockers.emplace_back("the guest has stopped by itself: start the machine anew");
    }
    for (const state::StateUnit* unit : m.units()) {
        const std::string blocker = unit->save_blocker();
        if (!blocker.empty()) {
            blockers.push_back(unit->section_id().to_string() + ": " + blocker);
        }
    }
    return blockers;
}

namespace {

struct KvmSections {
    VmState vm;
    std::vector<VcpuRecord> vcpus;
};

Result<KvmSections> take_kvm_sections(state::SavedState& state, std::uint32_t vcpus) {
    KvmSections sections;
    sections.vm = GODWIT_TRY(parse_vm_section(GODWIT_TRY(state.take(vm_section.id()))));
    for (std::uint32_t i = 0; i < vcpus; ++i) {
        sections.vcpus.push_back(
            GODWIT_TRY(parse_vcpu_section(GODWIT_TRY(state.take(vcpu_section.id(i))))));
    }
    return sections;
}

} // namespace

Status Machine::Impl::load_devices(state::SavedState& state, ClockPolicy policy) {
    const auto timer_policy = policy == ClockPolicy::running ? platform::TimerPolicy::running
                                                             : platform::TimerPolicy::frozen;
    auto pci_section = GODWIT_TRY(state.take(bus::PciBus::section.id()));
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
    for (const state::Section& section : state.sections()) {
        GODWIT_TRY(state::check_readable(
            known_sections(),
            {.name = section.id.name, .version = section.version, .required = section.required}));
    }
    const KvmSections sections = GODWIT_TRY(take_kvm_sections(state, m.spec.vcpus));
    VcpuLoad load{.traits = &m.vcpu_traits,
                  .cpuid = {},
                  .tsc_offset_change = policy == ClockPolicy::frozen
                                           ? frozen_tsc_offset_change(sections.vm.clock)
                                           : 0};
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        load.cpuid = m.cpuid[i];
        GODWIT_TRY(check_vcpu(sections.vcpus[i], m.vcpus[i]->vcpu(), load));
    }
    m.msi->hold();
    GODWIT_TRY(m.load_devices(state, policy));
    GODWIT_TRY(state.finish());
    GODWIT_TRY(load_interrupt_controllers(m.vm, sections.vm));
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        load.cpuid = m.cpuid[i];
        GODWIT_TRY(load_vcpu(sections.vcpus[i], m.vcpus[i]->vcpu(), load));
        m.cpuid[i] = sections.vcpus[i].cpuid;
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
