#include "machine/machine.h"

#include "machine/acpi/tables.h"
#include "machine/boot/boot.h"
#include "machine/machine_impl.h"

#include <nlohmann/json.hpp>

namespace godwit::machine {

Machine::Machine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Machine::~Machine() {
    // Device threads work again before their devices go: whoever held them may be another thread.
    impl_->held_loops.clear();
    if (impl_->back_ends != nullptr) {
        impl_->back_ends->abandon_disks();
    }
    discard(pause(std::chrono::hours(24)), "the machine goes anyway");
    impl_->doorbells->end();
}

platform::Platform::Args Machine::Impl::platform_args() {
    return {
        .vm = &vm,
        .ports = &ports,
        .loop = &back_ends->common_loop(),
        .clock = &clock,
        .stop = [this](StopReason reason, std::string detail) { stop(reason, std::move(detail)); },
        .pci_ports = &pci->ports(),
        .serial = spec.serial,
        .serial_output =
            [this](std::span<const std::byte> bytes) {
                if (events.console_output) {
                    events.console_output("serial", bytes);
                }
            },
        .serial_ready =
            [this] {
                if (events.console_ready) {
                    events.console_ready("serial");
                }
            },
    };
}

DeviceSet::Args Machine::Impl::device_args() {
    return {.spec = &spec,
            .events = &events,
            .back_ends = back_ends.get(),
            .memory = memory,
            .pci = pci.get(),
            .addresses = &addresses,
            .msi = msi.get(),
            .doorbells = doorbells.get()};
}

namespace {

/// As firmware leaves it: memory is write-back wherever no MTRR says otherwise. Kernels distrust
/// MTRRs that are off. Hosts without MTRRs refuse; their guests see none either.
void set_default_memory_type(const kvm::Vcpu& vcpu) {
    constexpr std::uint32_t msr_mtrr_default_type = 0x2FF;
    constexpr std::uint64_t enabled = 1U << 11U;
    constexpr std::uint64_t write_back = 6;
    kvm::MsrBuffer buffer(1);
    buffer.header()->count = 1;
    buffer.entries()[0].index = msr_mtrr_default_type;
    buffer.entries()[0].data = enabled | write_back;
    discard(vcpu.write_msrs(buffer), "the host has no MTRRs");
}

/// All state components on. Kernels do this themselves; but where KVM itself runs on an emulated
/// processor that does not let it see XSETBV (QEMU's TCG), it would go on restoring the value of
/// power-on and report sizes of it in CPUID.
Status enable_state_components(const kvm::Vcpu& vcpu, const kvm::CpuidEntries& cpuid) {
    constexpr std::uint32_t state_leaf = 0xD;
    for (const kvm_cpuid_entry2& entry : cpuid) {
        if (entry.function == state_leaf && entry.index == 0) {
            kvm_xcrs xcrs{};
            xcrs.nr_xcrs = 1;
            xcrs.xcrs[0].value = (std::uint64_t{entry.edx} << 32U) | entry.eax;
            return vcpu.set_xcrs(xcrs);
        }
    }
    return ok();
}

} // namespace

Status Machine::boot() {
    Impl& m = *impl_;
    if (m.ready) {
        return Error(ErrorCode::conflict, "the machine has a state already");
    }
    const acpi::Tables tables = acpi::build_tables(m.spec.vcpus, boot::acpi_tables_start);
    GODWIT_TRY(m.memory->write(tables.start, tables.bytes));
    const boot::Entry entry = GODWIT_TRY(boot::load_kernel(*m.memory, m.spec.kernel, tables.rsdp));
    m.platform = GODWIT_TRY(platform::Platform::create(m.platform_args()));
    m.devices = GODWIT_TRY(DeviceSet::create(m.device_args()));
    for (std::size_t i = 0; i < m.vcpus.size(); ++i) {
        set_default_memory_type(m.vcpus[i]->vcpu());
        GODWIT_TRY(enable_state_components(m.vcpus[i]->vcpu(), m.cpuid[i]));
    }
    GODWIT_TRY(boot::set_entry(m.vcpus.front()->vcpu(), entry));
    m.ready = true;
    return ok();
}

Result<Resources> Machine::duplicate_resources() const {
    Resources copies;
    for (const Resource& resource : impl_->resources) {
        copies.push_back({resource.name, GODWIT_TRY(resource.fd.duplicate())});
    }
    return copies;
}

RamMapping Machine::ram_mapping() const noexcept {
    return impl_->ram_mapping;
}

memory::GuestMemory& Machine::memory() noexcept {
    return *impl_->memory;
}

const MachineSpec& Machine::spec() const noexcept {
    return impl_->spec;
}

std::string Machine::statistics_json() const {
    nlohmann::json vcpus = nlohmann::json::array();
    for (const auto& vcpu : impl_->vcpus) {
        const ExitCounters counters = vcpu->counters();
        vcpus.push_back({{"port_exits", counters.port}, {"memory_exits", counters.memory}});
    }
    nlohmann::json document = nlohmann::json::object();
    if (impl_->devices != nullptr) {
        document = nlohmann::json::parse(impl_->devices->statistics_json());
    }
    document["vcpus"] = std::move(vcpus);
    return document.dump();
}

std::size_t Machine::console_input(std::string_view port, std::span<const std::byte> bytes) {
    Impl& m = *impl_;
    if (!m.ready) {
        return 0;
    }
    if (port == "serial" && m.platform->serial() != nullptr) {
        return m.platform->serial()->input(bytes);
    }
    return port == "virtio" ? m.devices->console_input(bytes) : 0;
}

Status Machine::press_power_button() {
    if (!running()) {
        return Error(ErrorCode::conflict, "the machine does not run");
    }
    impl_->platform->acpi_pm().press_power_button();
    return ok();
}

namespace {

Error not_ready() {
    return Error(ErrorCode::conflict, "the machine has neither booted nor been restored");
}

} // namespace

Status Machine::refresh_disk(std::string_view disk) {
    return impl_->ready ? impl_->devices->refresh_disk(disk) : not_ready();
}

Status Machine::set_balloon(std::uint64_t bytes) {
    return impl_->ready ? impl_->devices->set_balloon(bytes) : not_ready();
}

} // namespace godwit::machine
