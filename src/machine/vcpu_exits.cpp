#include "machine/vcpu_exits.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>

namespace godwit::machine {

void ExitServer::serve_port(kvm::Vcpu& vcpu) const {
    const auto& io = vcpu.exit().io;
    const std::span<std::byte> data = vcpu.io_data();
    const std::size_t size = io.size;
    // A string instruction brings several elements for the same port.
    for (std::size_t at = 0; size != 0 && at + size <= data.size(); at += size) {
        const std::span<std::byte> element = data.subspan(at, size);
        if (io.direction == KVM_EXIT_IO_OUT) {
            ports_.write(io.port, element);
        } else {
            ports_.read(io.port, element);
        }
    }
}

void ExitServer::serve_memory(kvm::Vcpu& vcpu) const {
    auto& mmio = vcpu.exit().mmio;
    const std::size_t size = std::min<std::size_t>(mmio.len, sizeof(mmio.data));
    const auto data = std::as_writable_bytes(std::span(mmio.data)).first(size);
    if (mmio.is_write != 0) {
        memory_.write(mmio.phys_addr, data);
    } else {
        memory_.read(mmio.phys_addr, data);
    }
}

namespace {

std::string hex(std::uint64_t value) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    do {
        text.insert(text.begin(), digits[value & 0xFU]);
        value >>= 4U;
    } while (value != 0);
    return "0x" + text;
}

std::string where(const kvm::Vcpu& vcpu) {
    const Result<kvm_regs> regs = vcpu.regs();
    return "vCPU " + std::to_string(vcpu.id()) +
           (regs.has_value() ? " at rip " + hex(regs->rip) : std::string());
}

/// KVM_EXIT_INTERNAL_ERROR: for a failed emulation the kernel adds the instruction's bytes
/// (Documentation/virt/kvm/api.rst, struct kvm_run emulation_failure).
std::string internal_error_text(kvm::Vcpu& vcpu) {
    const kvm_run& run = vcpu.exit();
    std::string text =
        "KVM gave up (suberror " + std::to_string(run.internal.suberror) + ") on " + where(vcpu);
    if (run.internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        return text;
    }
    text += ", an instruction it cannot emulate";
    const auto& failure = run.emulation_failure;
    if (failure.ndata >= 1 &&
        (failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0) {
        text += ":";
        const std::size_t count = std::min<std::size_t>(failure.insn_size, 15);
        for (const std::uint8_t byte : std::span(failure.insn_bytes).first(count)) {
            text += " " + hex(byte).substr(2);
        }
    }
    return text;
}

struct Stop {
    StopReason reason;
    std::string detail;
};

Stop stop_of_system_event(kvm::Vcpu& vcpu) {
    const std::uint32_t type = vcpu.exit().system_event.type;
    switch (type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        return {StopReason::powered_off, "KVM system event"};
    case KVM_SYSTEM_EVENT_RESET:
        return {StopReason::rebooted, "KVM system event"};
    default:
        return {StopReason::internal_error,
                "system event " + std::to_string(type) + " on " + where(vcpu)};
    }
}

Stop stop_of(kvm::Vcpu& vcpu) {
    const kvm_run& run = vcpu.exit();
    switch (run.exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        return {StopReason::triple_fault, "triple fault on " + where(vcpu)};
    case KVM_EXIT_SYSTEM_EVENT:
        return stop_of_system_event(vcpu);
    case KVM_EXIT_INTERNAL_ERROR:
        return {StopReason::internal_error, internal_error_text(vcpu)};
    case KVM_EXIT_FAIL_ENTRY:
        return {StopReason::internal_error,
                "the processor refused to enter the guest, reason " +
                    hex(run.fail_entry.hardware_entry_failure_reason) + ", " + where(vcpu)};
    default:
        return {StopReason::internal_error,
                "unexpected KVM exit " + std::to_string(run.exit_reason) + " on " + where(vcpu)};
    }
}

} // namespace

ExitServer::Next ExitServer::serve(kvm::Vcpu& vcpu, ExitCounters& counters) const {
    switch (vcpu.exit().exit_reason) {
    case KVM_EXIT_IO:
        ++counters.port;
        serve_port(vcpu);
        return Next::run_on;
    case KVM_EXIT_MMIO:
        ++counters.memory;
        serve_memory(vcpu);
        return Next::run_on;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        ++counters.other;
        return Next::run_on;
    default: {
        ++counters.other;
        Stop stop = stop_of(vcpu);
        stop_(stop.reason, std::move(stop.detail));
        return Next::stay_stopped;
    }
    }
}

void ExitServer::run_failed(const kvm::Vcpu& vcpu, const Error& error) const {
    stop_(StopReason::internal_error, error.to_string() + ", " + where(vcpu));
}

} // namespace godwit::machine
