/// Building a machine. Steps; each is undone by the owners when a later one fails:
///
///   1 resources   names and count are those of the spec; RAM is mapped
///   2 KVM         VM, memory slots, then irqchip, PIT (the order matters for speed: kvm/vm.h)
///   3 buses       interrupt routes, doorbells, PCI with ECAM
///   4 vCPUs       created, CPUID given, MSRs probed, threads parked
///   5 back ends   threads, open disks with their rings, taps
///
/// After it nothing slow is left for boot() or load(). A successor stops after step 4, with RAM
/// mapped for reading only, until it is granted the rest.

#include "machine/boot/boot_layout.h"
#include "machine/machine_impl.h"
#include "machine/resources.h"

namespace godwit::machine {

namespace {

sys::MapMode mode_of(RamMapping mapping) {
    switch (mapping) {
    case RamMapping::shared:
        return sys::MapMode::shared;
    case RamMapping::private_copy:
        return sys::MapMode::private_copy;
    case RamMapping::read_only:
        break;
    }
    return sys::MapMode::shared_read_only;
}

Result<std::shared_ptr<memory::GuestMemory>>
map_ram(const MachineSpec& spec, const sys::Fd& ram, RamMapping mapping) {
    const auto backing =
        GODWIT_TRY(memory::RamBacking::adopt(GODWIT_TRY(ram.duplicate()), spec.memory));
    return memory::GuestMemory::map(backing, mode_of(mapping));
}

Status build_memory_slots(const kvm::Vm& vm, const memory::GuestMemory& memory) {
    std::uint32_t number = 0;
    for (const auto& region : memory.regions()) {
        GODWIT_TRY(vm.set_memory_slot({.number = number++,
                                       .start = region.ram.start,
                                       .bytes = region.ram.bytes,
                                       .host = region.host}));
    }
    return ok();
}

} // namespace

Result<std::unique_ptr<Machine>> Machine::Impl::build(const MachineSpec& spec,
                                                      const sys::Fd& ram,
                                                      RamMapping ram_mapping,
                                                      MachineEvents events,
                                                      const sys::Clock& clock) {
    kvm::Kvm kvm = GODWIT_TRY(kvm::Kvm::open());
    kvm::Vm vm = GODWIT_TRY(kvm.create_vm());
    auto impl =
        std::make_unique<Impl>(spec, std::move(events), clock, std::move(kvm), std::move(vm));
    impl->ram_mapping = ram_mapping;
    impl->memory = GODWIT_TRY(map_ram(spec, ram, ram_mapping));
    GODWIT_TRY(build_memory_slots(impl->vm, *impl->memory));
    GODWIT_TRY(impl->vm.create_irqchip());
    GODWIT_TRY(impl->vm.create_pit());
    GODWIT_TRY(impl->build_buses());
    GODWIT_TRY(impl->build_vcpus());
    impl->built = true;
    return std::unique_ptr<Machine>(new Machine(std::move(impl)));
}

Result<std::unique_ptr<Machine>> Machine::build(const MachineSpec& spec,
                                                Resources resources,
                                                RamMapping ram_mapping,
                                                MachineEvents events,
                                                const sys::Clock& clock) {
    GODWIT_TRY(check_resources(spec, resources));
    const sys::Fd& ram = GODWIT_TRY(find_resource(resources, ram_resource_name)).get();
    auto machine = GODWIT_TRY(Impl::build(spec, ram, ram_mapping, std::move(events), clock));
    machine->impl_->back_ends =
        GODWIT_TRY(BackEnds::create(spec, resources, machine->impl_->events, clock));
    machine->impl_->resources = std::move(resources);
    return machine;
}

Result<std::unique_ptr<Machine>> Machine::build_without_rights(const MachineSpec& spec,
                                                               sys::Fd ram,
                                                               MachineEvents events,
                                                               const sys::Clock& clock) {
    auto machine =
        GODWIT_TRY(Impl::build(spec, ram, RamMapping::read_only, std::move(events), clock));
    machine->impl_->resources.push_back(
        {.name = std::string(ram_resource_name), .fd = std::move(ram)});
    return machine;
}

Status Machine::grant(Resources resources) {
    Impl& m = *impl_;
    if (m.ram_mapping != RamMapping::read_only) {
        return Error(ErrorCode::conflict, "the machine has its rights already");
    }
    GODWIT_TRY(check_resources(m.spec, resources));
    const MirrorDigest before = GODWIT_TRY(mirror({}));
    std::swap(m.resources, resources);
    if (before != GODWIT_TRY(mirror({}))) {
        std::swap(m.resources, resources);
        return Error(ErrorCode::invalid_argument,
                     "the memory granted is not the memory the machine was built over");
    }
    const sys::Fd& ram = GODWIT_TRY(find_resource(m.resources, ram_resource_name)).get();
    const auto backing =
        GODWIT_TRY(memory::RamBacking::adopt(GODWIT_TRY(ram.duplicate()), m.spec.memory));
    GODWIT_TRY(m.memory->grant(backing));
    m.ram_mapping = RamMapping::shared;
    m.back_ends = GODWIT_TRY(BackEnds::create(m.spec, m.resources, m.events, m.clock));
    m.held_loops = m.back_ends->hold_loops();
    return ok();
}

Status Machine::Impl::build_buses() {
    msi = GODWIT_TRY(KvmMsiRouter::create(vm));
    doorbells = std::make_unique<KvmDoorbells>(vm);
    pci = GODWIT_TRY(bus::PciBus::create(addresses));
    return addresses.add(boot::ecam_start, boot::ecam_bytes, pci->ecam());
}

Status Machine::Impl::build_vcpus() {
    exits = std::make_unique<ExitServer>(
        ports, addresses, [this](StopReason reason, std::string detail) {
            stop(reason, std::move(detail));
        });
    const auto supported = GODWIT_TRY(supported_cpuid(kvm));
    const auto msrs = GODWIT_TRY(kvm.msr_indices());
    const CpuidOptions options{.vcpus = spec.vcpus,
                               .tsc_deadline_timer = kvm.extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
    for (std::uint32_t i = 0; i < spec.vcpus; ++i) {
        kvm::Vcpu vcpu = GODWIT_TRY(vm.create_vcpu(i));
        cpuid.push_back(guest_cpuid(supported, options, i));
        GODWIT_TRY(vcpu.set_cpuid(cpuid.back()));
        if (i == 0) {
            vcpu_traits = GODWIT_TRY(probe_vcpu(vcpu, msrs));
        }
        vcpus.push_back(GODWIT_TRY(VcpuThread::create(std::move(vcpu),
                                                      {.exits = exits.get(),
                                                       .clock = &clock,
                                                       .first_entry = &first_entry,
                                                       .ended = &ended})));
    }
    return ok();
}

} // namespace godwit::machine
