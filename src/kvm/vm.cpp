#include "kvm/vm.h"

#include "kvm/ioctl.h"

namespace godwit::kvm {

namespace {
/// Four pages that KVM on Intel uses for real mode without unrestricted guests; the customary place
/// just below the firmware flash, in the PCI hole (Documentation/virt/kvm/api.rst,
/// KVM_SET_TSS_ADDR).
constexpr std::uint64_t identity_map_address = 0xFFFB'C000;
constexpr std::uintptr_t tss_address = 0xFFFB'D000;
} // namespace

Result<Vm> Vm::adopt(sys::Fd fd, std::size_t run_bytes) {
    return Vm(std::move(fd), run_bytes);
}

Status Vm::set_memory_slot(const MemorySlot& slot) const {
    kvm_userspace_memory_region region{};
    region.slot = slot.number;
    region.guest_phys_addr = slot.start.value;
    region.memory_size = slot.bytes;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(slot.host);
    return call_with(fd_, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

Status Vm::create_irqchip() const {
    std::uint64_t identity_map = identity_map_address;
    GODWIT_TRY(
        call_with(fd_, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR"));
    GODWIT_TRY(call(fd_, KVM_SET_TSS_ADDR, tss_address, "KVM_SET_TSS_ADDR"));
    GODWIT_TRY(call(fd_, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP"));
    return ok();
}

Status Vm::create_pit() const {
    kvm_pit_config config{};
    config.flags = KVM_PIT_SPEAKER_DUMMY;
    return call_with(fd_, KVM_CREATE_PIT2, &config, "KVM_CREATE_PIT2");
}

Result<Vcpu> Vm::create_vcpu(std::uint32_t id) const {
    sys::Fd vcpu{GODWIT_TRY(call(fd_, KVM_CREATE_VCPU, id, "KVM_CREATE_VCPU"))};
    VcpuTraits traits;
    traits.has_sregs2 = extension(KVM_CAP_SREGS2) > 0;
    const int xsave2 = extension(KVM_CAP_XSAVE2);
    traits.has_xsave2 = xsave2 > 0;
    traits.xsave_bytes = xsave2 > 0 ? static_cast<std::size_t>(xsave2) : sizeof(XsaveBase);
    return Vcpu::adopt(std::move(vcpu), id, run_bytes_, traits);
}

int Vm::extension(unsigned capability) const noexcept {
    const Result<int> answer = call(fd_, KVM_CHECK_EXTENSION, capability, "KVM_CHECK_EXTENSION");
    return answer.has_value() ? *answer : 0;
}

Result<IrqchipState> Vm::irqchips() const {
    IrqchipState state{};
    for (std::uint32_t i = 0; i < state.size(); ++i) {
        state[i].chip_id = i;
        GODWIT_TRY(call_with(fd_, KVM_GET_IRQCHIP, &state[i], "KVM_GET_IRQCHIP"));
    }
    return state;
}

Status Vm::set_irqchips(const IrqchipState& state) const {
    for (std::uint32_t i = 0; i < state.size(); ++i) {
        kvm_irqchip chip = state[i];
        chip.chip_id = i;
        GODWIT_TRY(call_with(fd_, KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP"));
    }
    return ok();
}

Result<kvm_pit_state2> Vm::pit() const {
    kvm_pit_state2 state{};
    GODWIT_TRY(call_with(fd_, KVM_GET_PIT2, &state, "KVM_GET_PIT2"));
    return state;
}

Status Vm::set_pit(const kvm_pit_state2& state) const {
    kvm_pit_state2 copy = state;
    return call_with(fd_, KVM_SET_PIT2, &copy, "KVM_SET_PIT2");
}

Result<kvm_clock_data> Vm::clock() const {
    kvm_clock_data data{};
    GODWIT_TRY(call_with(fd_, KVM_GET_CLOCK, &data, "KVM_GET_CLOCK"));
    return data;
}

Status Vm::set_clock(const kvm_clock_data& clock) const {
    kvm_clock_data copy = clock;
    return call_with(fd_, KVM_SET_CLOCK, &copy, "KVM_SET_CLOCK");
}

Status Vm::set_routing(const RoutingTable& table) const {
    return call_with(fd_, set_gsi_routing, table.header(), "KVM_SET_GSI_ROUTING");
}

namespace {

Status ioeventfd(const sys::Fd& vm, Gpa address, const sys::EventFd& event, std::uint32_t flags) {
    kvm_ioeventfd request{};
    request.addr = address.value;
    request.len = 0; // any length
    request.fd = event.fd().raw();
    request.flags = flags;
    return call_with(vm, KVM_IOEVENTFD, &request, "KVM_IOEVENTFD");
}

} // namespace

Status Vm::add_irqfd(Gsi gsi, const sys::EventFd& event) const {
    kvm_irqfd request{};
    request.fd = static_cast<std::uint32_t>(event.fd().raw());
    request.gsi = gsi.value;
    return call_with(fd_, KVM_IRQFD, &request, "KVM_IRQFD");
}

Status Vm::add_ioeventfd(Gpa address, const sys::EventFd& event) const {
    return ioeventfd(fd_, address, event, 0);
}

void Vm::remove_ioeventfd(Gpa address, const sys::EventFd& event) const noexcept {
    discard(ioeventfd(fd_, address, event, KVM_IOEVENTFD_FLAG_DEASSIGN),
            "it goes with the VM at the latest");
}

Status Vm::set_irq_line(Gsi gsi, LineLevel level) const {
    kvm_irq_level request{};
    request.irq = gsi.value;
    request.level = level == LineLevel::high ? 1 : 0;
    return call_with(fd_, KVM_IRQ_LINE, &request, "KVM_IRQ_LINE");
}

} // namespace godwit::kvm
