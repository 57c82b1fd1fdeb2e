/// Saving and loading a machine.
///
/// Sections in order: "kvm-vm", "vcpu" 0.., platform devices, "pci-bus", PCI functions.
/// Loading: 1 refuse what is newer than this build, 2 vCPUs with their LAPICs, on their own
/// threads, and meanwhile devices, as far as they did not go ahead (preload_devices), 3 interrupt
/// controllers, which take the lines' levels over, 4 clock, after the TSCs it is reckoned from, 5
/// interrupt routes in one table. Each part checks its sections before it uses them.

#include "machine/boot/boot_layout.h"
#include "machine/machine_impl.h"
#include "machine/vm_state.h"
#include "state/section_check.h"
#include "sys/wait_awake.h"
#include "virtio/balloon/balloon_state.h"
#include "virtio/blk/blk_state.h"
#include "virtio/console/console_state.h"
#include "virtio/net/net_state.h"
#include "virtio/pci_transport_state.h"

#include <array>
#include <atomic>
#include <utility>

namespace godwit::machine {

/// Each vCPU thread reads its own vCPU, but none before all have left the guest: until then one may
/// still send another an interrupt. A thread that does not get a CPU soon is not waited for:
/// whoever claims its vCPU first reads it.
struct Machine::Impl::Collection {
    explicit Collection(std::size_t vcpus)
        : inside(static_cast<int>(vcpus)), claimed(vcpus),
          sections(vcpus, Error(ErrorCode::internal, "not read")) {}

    /// Called by each vCPU thread; false if the pause was given up.
    bool wait_for_all() {
        if (inside.fetch_sub(1) == 1) {
            inside.notify_all();
        }
        [[maybe_unused]] const bool out =
            sys::wait_awake([this] { return inside.load() <= 0; }, awake_for_others);
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

    [[nodiscard]] bool claim(std::size_t vcpu) { return !claimed[vcpu].exchange(true); }

    static constexpr int given_up = -(1 << 20);
    static constexpr auto awake_for_others = std::chrono::microseconds(200);
    std::atomic<int> inside;
    std::vector<std::atomic<bool>> claimed;
    std::vector<Result<state::Section>> sections;
};

sys::StayOffCpus Machine::stay_off_vcpus() const {
    std::vector<std::uint32_t> cpus;
    for (const auto& vcpu : impl_->vcpus) {
        if (const auto cpu = vcpu->last_cpu()) {
            cpus.push_back(*cpu);
        }
    }
    return sys::StayOffCpus(cpus);
}

void Machine::Impl::begin_collecting() {
    collection = std::make_shared<Collection>(vcpus.size());
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        // In one order: a vCPU that has read its state must not enter the guest again.
        vcpus[i]->request_pause([this, i, kept = collection] {
            if (kept->wait_for_all() && kept->claim(i)) {
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
        [[maybe_unused]] const auto never_begun = vcpu->take_back();
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
    std::vector<bool> reads_its_own(vcpus.size(), true);
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        if (read == nullptr || read->claim(i)) {
            sections.push_back(GODWIT_TRY(read_vcpu_section(i)));
            reads_its_own[i] = false;
        } else {
            sections.emplace_back();
        }
    }
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        if (reads_its_own[i]) {
            vcpus[i]->finish();
            sections[i] = GODWIT_TRY(std::move(read->sections[i]));
        }
    }
    return sections;
}

/// vCPUs come last, though first in the state: their threads may still be reading them.
Status Machine::Impl::save_into(state::SavedState& state, Save what) const {
    GODWIT_TRY(state.add(encode_vm_section(GODWIT_TRY(read_vm_state(vm, clock)))));
    state::SavedState devices_state;
    for (const state::StateUnit* unit : what == Save::all ? units() : platform->units()) {
        GODWIT_TRY(devices_state.add(*unit));
    }
    for (state::Section& section : GODWIT_TRY(vcpu_sections())) {
        GODWIT_TRY(state.add(std::move(section)));
    }
    return state.append(std::move(devices_state));
}

std::vector<const state::StateUnit*> Machine::Impl::units() const {
    std::vector<const state::StateUnit*> all = platform->units();
    std::ranges::copy(functions(), std::back_inserter(all));
    return all;
}

std::vector<const state::StateUnit*> Machine::Impl::functions() const {
    std::vector<const state::StateUnit*> all{pci.get()};
    std::ranges::copy(devices->units(), std::back_inserter(all));
    return all;
}

std::uint64_t Machine::Impl::exits_served() const noexcept {
    std::uint64_t served = 0;
    for (const auto& vcpu : vcpus) {
        const ExitCounters counters = vcpu->counters();
        served += counters.port + counters.memory;
    }
    return served;
}

Result<state::SavedState> Machine::save(Save what) const {
    const Impl& m = *impl_;
    if (!m.ready || m.running || m.ended) {
        return Error(ErrorCode::conflict, "only a paused machine can be saved");
    }
    state::SavedState state;
    GODWIT_TRY(m.save_into(state, what));
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

Status Machine::Impl::load_functions(state::SavedState& state) {
    auto pci_section = GODWIT_TRY(state.take(bus::PciBus::section.id()));
    addresses.remove(boot::ecam_start);
    pci = GODWIT_TRY(bus::PciBus::restore(addresses, pci_section));
    GODWIT_TRY(addresses.add(boot::ecam_start, boot::ecam_bytes, pci->ecam()));
    devices = GODWIT_TRY(DeviceSet::restore(device_args(), state));
    return ok();
}

/// Back to what build() and prewire() made. What the devices stood on went with them.
Status Machine::Impl::drop_functions() {
    held_loops.clear();
    devices.reset();
    back_ends.reset();
    GODWIT_TRY(msi->begin_again());
    doorbells->begin_again();
    back_ends = GODWIT_TRY(BackEnds::create(spec, resources, events, clock));
    held_loops = back_ends->hold_loops();
    return ok();
}

Status Machine::Impl::load_platform(state::SavedState& state, ClockPolicy policy) {
    const auto timer_policy = policy == ClockPolicy::running ? platform::TimerPolicy::running
                                                             : platform::TimerPolicy::frozen;
    platform = GODWIT_TRY(platform::Platform::restore(platform_args(), state, timer_policy));
    return ok();
}

Status Machine::Impl::load_vcpu_section(std::size_t i,
                                        const state::Section& section,
                                        std::uint64_t tsc_offset_change) {
    VcpuRecord record = GODWIT_TRY(parse_vcpu_section(section));
    const kvm::Vcpu& vcpu = vcpus[i]->vcpu();
    const VcpuLoad how{.traits = &vcpu_traits,
                       .cpuid = cpuid[i],
                       .tsc_offset_change = tsc_offset_change,
                       .preloaded = i < preloaded.size() ? &preloaded[i] : nullptr};
    GODWIT_TRY(check_vcpu(record, vcpu, how));
    GODWIT_TRY(load_vcpu(record, vcpu, how));
    cpuid[i] = std::move(record.cpuid);
    guest_tsc_khz[i] = record.tsc_khz;
    return ok();
}

/// Every vCPU on its own thread, and `meanwhile` on this one. Nothing of it delivers an interrupt
/// to a LAPIC: devices are at rest, and the interrupt controllers are new, with every pin masked.
Status Machine::Impl::load_vcpus(const std::vector<state::Section>& sections,
                                 std::uint64_t tsc_offset_change,
                                 const std::function<Status()>& meanwhile) {
    std::vector<Status> loaded(vcpus.size(), Error(ErrorCode::internal, "not loaded"));
    guest_tsc_khz.resize(vcpus.size());
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        vcpus[i]->begin(
            [&, i] { loaded[i] = load_vcpu_section(i, sections[i], tsc_offset_change); },
            VcpuThread::Afterwards::stay_awake);
    }
    const Status other = meanwhile();
    // Those whose thread has not woken by now are loaded from here.
    for (const auto& vcpu : vcpus) {
        if (auto task = vcpu->take_back()) {
            task();
        }
    }
    for (const auto& vcpu : vcpus) {
        vcpu->finish();
    }
    for (Status& one : loaded) {
        GODWIT_TRY(std::move(one));
    }
    vcpu_traits.guest_tsc_khz = guest_tsc_khz.front();
    return other;
}

namespace {

Status check_versions(const state::SavedState& state) {
    for (const state::Section& section : state.sections()) {
        GODWIT_TRY(state::check_readable(
            Machine::known_sections(),
            {.name = section.id.name, .version = section.version, .required = section.required}));
    }
    return ok();
}

} // namespace

Status Machine::load(state::SavedState state, const LoadOptions& options) {
    Impl& m = *impl_;
    if (m.ready) {
        return Error(ErrorCode::conflict, "the machine has a state already");
    }
    if (options.devices_ahead && m.devices == nullptr) {
        return Error(ErrorCode::corrupt, "the state counts on devices that were not loaded before");
    }
    GODWIT_TRY(check_versions(state));
    const auto mark = [&](std::string_view name) {
        if (options.times != nullptr) {
            options.times->mark(name);
        }
    };
    const VmState vm_state = GODWIT_TRY(parse_vm_section(GODWIT_TRY(state.take(vm_section.id()))));
    std::vector<state::Section> vcpu_sections;
    for (std::uint32_t i = 0; i < m.spec.vcpus; ++i) {
        vcpu_sections.push_back(GODWIT_TRY(state.take(vcpu_section.id(i))));
    }
    const std::uint64_t tsc_offset_change =
        options.clock == ClockPolicy::frozen ? frozen_tsc_offset_change(vm_state.clock) : 0;
    mark("check");
    m.msi->hold();
    GODWIT_TRY(m.load_vcpus(vcpu_sections, tsc_offset_change, [&]() -> Status {
        if (!options.devices_ahead) {
            GODWIT_TRY(m.devices != nullptr ? m.drop_functions() : ok());
            GODWIT_TRY(m.load_functions(state));
        }
        GODWIT_TRY(m.load_platform(state, options.clock));
        GODWIT_TRY(state.finish());
        if (options.meanwhile) {
            GODWIT_TRY(options.meanwhile());
        }
        mark("devices");
        return ok();
    }));
    GODWIT_TRY(load_interrupt_controllers(m.vm, vm_state));
    mark("vcpus");
    GODWIT_TRY(options.clock == ClockPolicy::running
                   ? continue_kvmclock(m.vm, vm_state.clock, m.clock, m.vcpu_traits.host_tsc_khz)
                   : resume_kvmclock(m.vm, vm_state.clock));
    GODWIT_TRY(m.msi->commit());
    mark("clock and routes");
    m.ready = true;
    m.stood_still = !options.starts_at_once;
    m.announce_due = options.clock == ClockPolicy::frozen;
    return ok();
}

Result<Machine::DevicesAtRest> Machine::save_devices() const {
    const Impl& m = *impl_;
    if (!m.ready || m.devices_awake || m.ended) {
        return Error(ErrorCode::conflict, "only devices at rest can be saved");
    }
    // Counted first: an exit that is being served now is counted when its work is done.
    DevicesAtRest saved{.state = {}, .exits = m.exits_served()};
    for (const state::StateUnit* unit : m.functions()) {
        GODWIT_TRY(saved.state.add(*unit));
    }
    return saved;
}

bool Machine::untouched_since(const DevicesAtRest& devices) const noexcept {
    return !impl_->running && impl_->exits_served() == devices.exits;
}

Status Machine::preload_devices(state::SavedState saved) {
    Impl& m = *impl_;
    if (m.ready || m.back_ends == nullptr) {
        return Error(ErrorCode::conflict,
                     m.ready ? "the machine has a state already"
                             : "the machine has no right to its devices yet");
    }
    GODWIT_TRY(check_versions(saved));
    GODWIT_TRY(m.devices != nullptr ? m.drop_functions() : ok());
    m.msi->hold();
    GODWIT_TRY(m.load_functions(saved));
    GODWIT_TRY(saved.finish());
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
