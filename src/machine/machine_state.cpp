/// Saving and loading a machine.
///
/// Sections in order: "kvm-vm", "vcpu" 0.., platform devices, "pci-bus", PCI functions.
/// Loading: 1 refuse what is newer than this build, take and check every section, 2 vCPUs with
/// their LAPICs, on their own threads, and meanwhile devices, 3 interrupt controllers, which take
/// the lines' levels over, 4 clock, after the TSCs it is reckoned from, 5 interrupt routes in one
/// table.

#include "machine/boot/boot_layout.h"
#include "machine/machine_impl.h"
#include "machine/vm_state.h"
#include "state/section_check.h"
#include "virtio/balloon/balloon_state.h"
#include "virtio/blk/blk_state.h"
#include "virtio/console/console_state.h"
#include "virtio/net/net_state.h"
#include "virtio/pci_transport_state.h"

#include <immintrin.h>

#include <array>
#include <atomic>
#include <utility>

namespace godwit::machine {

/// Each vCPU thread reads its own vCPU, but none before all have left the guest: until then one may
/// still send another an interrupt.
struct Machine::Impl::Collection {
    explicit Collection(std::size_t vcpus)
        : inside(static_cast<int>(vcpus)), sections(vcpus, Error(ErrorCode::internal, "not read")) {
    }

    /// Called by each vCPU thread; false if the pause was given up.
    bool wait_for_all() {
        if (inside.fetch_sub(1) == 1) {
            inside.notify_all();
        }
        // The others are out in microseconds, sooner than this thread would sleep and wake again.
        for (int turn = 0; turn < turns_before_sleep && inside.load() > 0; ++turn) {
            _mm_pause();
        }
        for (int left = inside.load(); left != 0; left = inside.load()) {
            if (left < 0) {
                return false;
            }
            inside.wait(left);
        }
        return true;
    }
    void give_up() {
        inside.store(given_up);
        inside.notify_all();
    }

    static constexpr int given_up = -(1 << 20);
    static constexpr int turns_before_sleep = 2000;
    std::atomic<int> inside;
    std::vector<Result<state::Section>> sections;
};

void Machine::Impl::begin_collecting() {
    collection = std::make_shared<Collection>(vcpus.size());
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        vcpus[i]->begin([this, i, kept = collection] {
            if (kept->wait_for_all()) {
                kept->sections[i] = read_vcpu_section(i);
            }
        });
    }
}

void Machine::Impl::give_up_collecting() {
    if (collection == nullptr) {
        return;
    }
    collection->give_up();
    for (const auto& vcpu : vcpus) {
        vcpu->drop_task(); // Of one that never left the guest.
        vcpu->finish();
    }
}

Result<state::Section> Machine::Impl::read_vcpu_section(std::size_t i) const {
    return encode_vcpu_section(GODWIT_TRY(save_vcpu(vcpus[i]->vcpu(), vcpu_traits, cpuid[i])),
                               static_cast<std::uint32_t>(i));
}

Result<std::vector<state::Section>> Machine::Impl::vcpu_sections() const {
    std::vector<state::Section> sections;
    const auto read = std::exchange(collection, nullptr);
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        vcpus[i]->finish();
        sections.push_back(
            GODWIT_TRY(read != nullptr ? std::move(read->sections[i]) : read_vcpu_section(i)));
    }
    return sections;
}

/// vCPUs come last, though first in the state: their threads may still be reading them.
Status Machine::Impl::save_into(state::SavedState& state) const {
    GODWIT_TRY(state.add(encode_vm_section(GODWIT_TRY(read_vm_state(vm, clock)))));
    state::SavedState devices_state;
    for (const state::StateUnit* unit : units()) {
        GODWIT_TRY(devices_state.add(*unit));
    }
    for (state::Section& section : GODWIT_TRY(vcpu_sections())) {
        GODWIT_TRY(state.add(std::move(section)));
    }
    return state.append(std::move(devices_state));
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
    const Status saved = m.save_into(state);
    m.held_loops.clear();
    GODWIT_TRY(saved);
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

std::span<const kvm_cpuid_entry2> Machine::cpuid() const noexcept {
    return impl_->cpuid.front();
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
    for (const DiskMoving& move : disks_moving()) {
        if (move.work == DiskWork::merge) {
            blockers.push_back(move.disk +
                               " is being merged: wait for its end, or stop it with 'godwit disk "
                               "cancel " +
                               m.spec.name + ":" + move.disk + "', and merge again afterwards");
            continue;
        }
        if (move.work == DiskWork::freeze) {
            blockers.push_back("a snapshot of " + move.disk + " is being made: wait for its end");
            continue;
        }
        blockers.push_back(move.disk + " is moving to '" + move.destination +
                           "': wait for its end, or cancel it with 'godwit disk cancel " +
                           m.spec.name + ":" + move.disk + "'");
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

/// Every vCPU on its own thread, and `meanwhile` on this one. Nothing of it delivers an interrupt
/// to a LAPIC: devices are at rest, and the interrupt controllers are new, with every pin masked.
Status Machine::Impl::load_vcpus(const std::vector<VcpuRecord>& records,
                                 std::uint64_t tsc_offset_change,
                                 const std::function<Status()>& meanwhile) {
    std::vector<Status> loaded(vcpus.size(), Error(ErrorCode::internal, "not loaded"));
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        vcpus[i]->begin([&, i] {
            loaded[i] = load_vcpu(records[i],
                                  vcpus[i]->vcpu(),
                                  {.traits = &vcpu_traits,
                                   .cpuid = cpuid[i],
                                   .tsc_offset_change = tsc_offset_change,
                                   .preloaded = i < preloaded.size() ? &preloaded[i] : nullptr});
        });
    }
    const Status other = meanwhile();
    for (const auto& vcpu : vcpus) {
        vcpu->finish();
    }
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        GODWIT_TRY(loaded[i]);
        cpuid[i] = records[i].cpuid;
    }
    return other;
}

Status Machine::load(state::SavedState state, const LoadOptions& options) {
    Impl& m = *impl_;
    if (m.ready) {
        return Error(ErrorCode::conflict, "the machine has a state already");
    }
    for (const state::Section& section : state.sections()) {
        GODWIT_TRY(state::check_readable(
            known_sections(),
            {.name = section.id.name, .version = section.version, .required = section.required}));
    }
    const auto mark = [&](std::string_view name) {
        if (options.times != nullptr) {
            options.times->mark(name);
        }
    };
    const KvmSections sections = GODWIT_TRY(take_kvm_sections(state, m.spec.vcpus));
    const std::uint64_t tsc_offset_change =
        options.clock == ClockPolicy::frozen ? frozen_tsc_offset_change(sections.vm.clock) : 0;
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        GODWIT_TRY(check_vcpu(sections.vcpus[i],
                              m.vcpus[i]->vcpu(),
                              {.traits = &m.vcpu_traits,
                               .cpuid = m.cpuid[i],
                               .tsc_offset_change = tsc_offset_change}));
    }
    m.vcpu_traits.guest_tsc_khz = sections.vcpus.front().tsc_khz;
    mark("check");
    m.msi->hold();
    GODWIT_TRY(m.load_vcpus(sections.vcpus, tsc_offset_change, [&]() -> Status {
        GODWIT_TRY(m.load_devices(state, options.clock));
        GODWIT_TRY(state.finish());
        mark("devices");
        return ok();
    }));
    GODWIT_TRY(load_interrupt_controllers(m.vm, sections.vm));
    mark("vcpus");
    GODWIT_TRY(options.clock == ClockPolicy::running
                   ? continue_kvmclock(m.vm, sections.vm.clock, m.clock, m.vcpu_traits.host_tsc_khz)
                   : resume_kvmclock(m.vm, sections.vm.clock));
    GODWIT_TRY(m.msi->commit());
    mark("clock and routes");
    m.ready = true;
    m.stood_still = true;
    m.announce_due = options.clock == ClockPolicy::frozen;
    return ok();
}

Result<state::SavedState> Machine::preview() const {
    const Impl& m = *impl_;
    if (!m.ready || m.ended) {
        return Error(ErrorCode::conflict, "only a machine with a guest has a state");
    }
    std::vector<Result<state::Section>> sections(m.vcpus.size(),
                                                 Error(ErrorCode::internal, "not read"));
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        m.vcpus[i]->begin([&m, &sections, i] { sections[i] = m.read_vcpu_section(i); });
        m.vcpus[i]->finish();
    }
    state::SavedState state;
    for (Result<state::Section>& section : sections) {
        GODWIT_TRY(state.add(GODWIT_TRY(std::move(section))));
    }
    return state;
}

Status Machine::preload(state::SavedState preview) {
    Impl& m = *impl_;
    if (m.ready) {
        return Error(ErrorCode::conflict, "the machine has a state already");
    }
    std::vector<VcpuRecord> records;
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        records.push_back(GODWIT_TRY(parse_vcpu_section(
            GODWIT_TRY(preview.take(vcpu_section.id(static_cast<std::uint32_t>(i)))))));
        const VcpuLoad load{.traits = &m.vcpu_traits, .cpuid = m.cpuid[i]};
        const kvm::Vcpu& vcpu = m.vcpus[i]->vcpu();
        GODWIT_TRY(check_vcpu(records[i], vcpu, load));
        Status set;
        m.vcpus[i]->begin([&] { set = preload_vcpu(records[i], vcpu, load); });
        m.vcpus[i]->finish();
        GODWIT_TRY(set);
    }
    m.preloaded = std::move(records);
    GODWIT_TRY(preview.finish());
    return ok();
}

Wiring Machine::wired() const {
    return {.routes = impl_->msi->set_routes(), .doorbells = impl_->doorbells->hung()};
}

Wiring Machine::wiring() const {
    return {.routes = impl_->msi->routes(), .doorbells = impl_->doorbells->addresses()};
}

Status Machine::prewire(const Wiring& wiring) {
    if (impl_->ready) {
        return Error(ErrorCode::conflict, "the machine has a state already");
    }
    GODWIT_TRY(impl_->msi->prewire(wiring.routes));
    GODWIT_TRY(impl_->doorbells->prewire(wiring.doorbells));
    if (impl_->held_loops.empty() && impl_->back_ends != nullptr) {
        impl_->held_loops = impl_->back_ends->hold_loops();
    }
    return ok();
}

} // namespace godwit::machine
