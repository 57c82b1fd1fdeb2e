#include "kvm/vcpu.h"

#include "kvm/ioctl.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace godwit::kvm {

Result<Vcpu> Vcpu::adopt(sys::Fd fd, std::uint32_t id, std::size_t run_bytes, VcpuTraits traits) {
    sys::MappedRegion mapping =
        GODWIT_TRY(sys::MappedRegion::create(fd, 0, run_bytes, sys::MapMode::shared));
    return Vcpu(std::move(fd), std::move(mapping), id, traits);
}

Result<Vcpu::RunEnd> Vcpu::run() noexcept {
    if (::ioctl(fd_.raw(), KVM_RUN, 0) == 0) {
        return RunEnd::exit;
    }
    // EAGAIN: the vCPU waits for its start-up interrupt and was woken for another reason.
    if (errno == EINTR || errno == EAGAIN) {
        return RunEnd::interrupted;
    }
    // An exit reason may come with an error (KVM_EXIT_MEMORY_FAULT with EFAULT); the errno says
    // enough.
    return Error::from_errno(errno, "KVM_RUN of vCPU " + std::to_string(id_));
}

std::span<std::byte> Vcpu::io_data() noexcept {
    const std::uint64_t offset = run_->io.data_offset;
    const std::uint64_t bytes = std::uint64_t{run_->io.size} * run_->io.count;
    if (offset > mapping_.size() || bytes > mapping_.size() - offset) {
        return {};
    }
    return mapping_.bytes().subspan(offset, bytes);
}

void Vcpu::request_exit() noexcept {
    std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_release);
}

void Vcpu::clear_exit_request() noexcept {
    std::atomic_ref(run_->immediate_exit).store(0, std::memory_order_release);
}

bool Vcpu::exit_requested() const noexcept {
    return std::atomic_ref(run_->immediate_exit).load(std::memory_order_acquire) != 0;
}

Status Vcpu::set_cpuid(std::span<const kvm_cpuid_entry2> entries) const {
    CpuidBuffer buffer(entries.size());
    buffer.header()->count = static_cast<std::uint32_t>(entries.size());
    std::ranges::copy(entries, buffer.entries().begin());
    return call_with(fd_, set_cpuid2, buffer.header(), "KVM_SET_CPUID2");
}

Status Vcpu::pre_fault(Gpa start, std::uint64_t bytes) const {
    PreFaultMemory range{.start = start.value, .bytes = bytes};
    // It says how far it came; a signal may end it early.
    while (range.bytes != 0) {
        const Status done = call_with(fd_, pre_fault_memory, &range, "KVM_PRE_FAULT_MEMORY");
        if (!done.has_value() && done.error().os_errno() != EINTR &&
            done.error().os_errno() != EAGAIN) {
            return done;
        }
    }
    return ok();
}

namespace {

template <typename T>
Result<T> get(const sys::Fd& fd, unsigned long request, const char* what) {
    T value{};
    GODWIT_TRY(call_with(fd, request, &value, what));
    return value;
}

template <typename T>
Status set(const sys::Fd& fd, unsigned long request, const T& value, const char* what) {
    T copy = value;
    return call_with(fd, request, &copy, what);
}

kvm_sregs2 newer_form(const kvm_sregs& old) {
    kvm_sregs2 sregs{};
    // Both structures begin with the same segments, tables and control registers, up to apic_base.
    static_assert(offsetof(kvm_sregs, interrupt_bitmap) == offsetof(kvm_sregs2, flags));
    std::memcpy(&sregs, &old, offsetof(kvm_sregs, interrupt_bitmap));
    return sregs;
}

} // namespace

Result<kvm_regs> Vcpu::regs() const {
    return get<kvm_regs>(fd_, KVM_GET_REGS, "KVM_GET_REGS");
}

Status Vcpu::set_regs(const kvm_regs& regs) const {
    return set(fd_, KVM_SET_REGS, regs, "KVM_SET_REGS");
}

Result<kvm_sregs2> Vcpu::sregs() const {
    if (traits_.has_sregs2) {
        return get<kvm_sregs2>(fd_, KVM_GET_SREGS2, "KVM_GET_SREGS2");
    }
    return newer_form(GODWIT_TRY(get<kvm_sregs>(fd_, KVM_GET_SREGS, "KVM_GET_SREGS")));
}

Status Vcpu::set_sregs(const kvm_sregs2& sregs) const {
    if (traits_.has_sregs2) {
        return set(fd_, KVM_SET_SREGS2, sregs, "KVM_SET_SREGS2");
    }
    kvm_sregs old{};
    std::memcpy(&old, &sregs, offsetof(kvm_sregs, interrupt_bitmap));
    return set(fd_, KVM_SET_SREGS, old, "KVM_SET_SREGS");
}

Result<kvm_xcrs> Vcpu::xcrs() const {
    return get<kvm_xcrs>(fd_, KVM_GET_XCRS, "KVM_GET_XCRS");
}

Status Vcpu::set_xcrs(const kvm_xcrs& xcrs) const {
    return set(fd_, KVM_SET_XCRS, xcrs, "KVM_SET_XCRS");
}

Status Vcpu::xsave(std::span<std::byte> out) const {
    if (out.size() != traits_.xsave_bytes) {
        return Error(ErrorCode::internal, "XSAVE buffer of the wrong size");
    }
    return traits_.has_xsave2 ? call_with(fd_, kvm::get_xsave2, out.data(), "KVM_GET_XSAVE2")
                              : call_with(fd_, kvm::get_xsave, out.data(), "KVM_GET_XSAVE");
}

Status Vcpu::set_xsave(std::span<const std::byte> area) const {
    if (area.size() > traits_.xsave_bytes) {
        return Error(ErrorCode::unsupported,
                     "the XSAVE area has " + std::to_string(area.size()) +
                         " bytes, this host's vCPUs take " + std::to_string(traits_.xsave_bytes));
    }
    std::vector<std::byte> padded(traits_.xsave_bytes);
    std::ranges::copy(area, padded.begin());
    return call_with(fd_, kvm::set_xsave, padded.data(), "KVM_SET_XSAVE");
}

Result<kvm_lapic_state> Vcpu::lapic() const {
    return get<kvm_lapic_state>(fd_, KVM_GET_LAPIC, "KVM_GET_LAPIC");
}

Status Vcpu::set_lapic(const kvm_lapic_state& lapic) const {
    return set(fd_, KVM_SET_LAPIC, lapic, "KVM_SET_LAPIC");
}

Result<kvm_vcpu_events> Vcpu::events() const {
    return get<kvm_vcpu_events>(fd_, KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS");
}

Status Vcpu::set_events(const kvm_vcpu_events& events) const {
    return set(fd_, KVM_SET_VCPU_EVENTS, events, "KVM_SET_VCPU_EVENTS");
}

Result<kvm_mp_state> Vcpu::mp_state() const {
    return get<kvm_mp_state>(fd_, KVM_GET_MP_STATE, "KVM_GET_MP_STATE");
}

Status Vcpu::set_mp_state(const kvm_mp_state& mp_state) const {
    return set(fd_, KVM_SET_MP_STATE, mp_state, "KVM_SET_MP_STATE");
}

Result<kvm_debugregs> Vcpu::debug_registers() const {
    return get<kvm_debugregs>(fd_, KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS");
}

Status Vcpu::set_debug_registers(const kvm_debugregs& registers) const {
    return set(fd_, KVM_SET_DEBUGREGS, registers, "KVM_SET_DEBUGREGS");
}

Result<std::size_t> Vcpu::read_msrs(MsrBuffer& msrs) const {
    msrs.header()->count = static_cast<std::uint32_t>(msrs.size());
    const auto argument = reinterpret_cast<std::uintptr_t>(msrs.header());
    return static_cast<std::size_t>(GODWIT_TRY(call(fd_, get_msrs, argument, "KVM_GET_MSRS")));
}

Result<std::size_t> Vcpu::write_msrs(const MsrBuffer& msrs) const {
    const auto argument = reinterpret_cast<std::uintptr_t>(msrs.header());
    return static_cast<std::size_t>(GODWIT_TRY(call(fd_, set_msrs, argument, "KVM_SET_MSRS")));
}

Result<std::uint32_t> Vcpu::tsc_khz() const {
    return static_cast<std::uint32_t>(GODWIT_TRY(call(fd_, KVM_GET_TSC_KHZ, 0, "KVM_GET_TSC_KHZ")));
}

Status Vcpu::set_tsc_khz(std::uint32_t khz) const {
    GODWIT_TRY(call(fd_, KVM_SET_TSC_KHZ, khz, "KVM_SET_TSC_KHZ"));
    return ok();
}

namespace {

kvm_device_attr tsc_offset_attribute(std::uint64_t* value) {
    kvm_device_attr attribute{};
    attribute.group = KVM_VCPU_TSC_CTRL;
    attribute.attr = KVM_VCPU_TSC_OFFSET;
    attribute.addr = reinterpret_cast<std::uintptr_t>(value);
    return attribute;
}

} // namespace

Result<std::uint64_t> Vcpu::tsc_offset() const {
    std::uint64_t value = 0;
    kvm_device_attr attribute = tsc_offset_attribute(&value);
    GODWIT_TRY(call_with(fd_, KVM_GET_DEVICE_ATTR, &attribute, "read the TSC offset"));
    return value;
}

Status Vcpu::set_tsc_offset(std::uint64_t offset) const {
    std::uint64_t value = offset;
    kvm_device_attr attribute = tsc_offset_attribute(&value);
    return call_with(fd_, KVM_SET_DEVICE_ATTR, &attribute, "set the TSC offset");
}

Status Vcpu::notify_paused() const {
    GODWIT_TRY(call(fd_, KVM_KVMCLOCK_CTRL, 0, "KVM_KVMCLOCK_CTRL"));
    return ok();
}

} // namespace godwit::kvm
