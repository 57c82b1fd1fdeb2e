#include "machine/vm_state.h"

#include "state/kvm_vm.pb.h"
#include "state/section_codec.h"

#include <x86intrin.h>

#include <cstring>

namespace godwit::machine {

namespace {

bool has_host_tsc(const kvm_clock_data& data) {
    return (data.flags & KVM_CLOCK_HOST_TSC) != 0;
}

template <typename T>
void put(std::string& out, const T& value) {
    out.assign(reinterpret_cast<const char*>(&value), sizeof(value));
}

} // namespace

Result<VmState> read_vm_state(const kvm::Vm& vm, const sys::Clock& clock) {
    VmState state;
    state.irqchips = GODWIT_TRY(vm.irqchips());
    state.pit = GODWIT_TRY(vm.pit());
    for (kvm_pit_channel_state& channel : state.pit.channels) {
        // The host's time, which KVM takes anew when it loads the counters.
        channel.count_load_time = 0;
    }
    const kvm_clock_data data = GODWIT_TRY(vm.clock());
    state.clock = {.kvmclock_ns = data.clock,
                   .host_tsc = has_host_tsc(data) ? data.host_tsc : __rdtsc(),
                   .monotonic_ns = clock.now().time_since_epoch().count(),
                   .host_tsc_exact = has_host_tsc(data)};
    return state;
}

state::Section encode_vm_section(const VmState& state) {
    state::KvmVmState saved;
    for (const kvm_irqchip& chip : state.irqchips) {
        put(*saved.add_irqchips(), chip);
    }
    put(*saved.mutable_pit(), state.pit);
    state::ClockState& moment = *saved.mutable_clock();
    moment.set_kvmclock_ns(state.clock.kvmclock_ns);
    moment.set_host_tsc(state.clock.host_tsc);
    moment.set_monotonic_ns(state.clock.monotonic_ns);
    moment.set_host_tsc_exact(state.clock.host_tsc_exact);
    return state::encode_section(vm_section, 0, saved);
}

namespace {

template <typename T>
Status take(const state::Section& section, const std::string& bytes, T& out) {
    if (bytes.size() != sizeof(T)) {
        return state::bad_section(section, "a structure has the wrong length");
    }
    std::memcpy(&out, bytes.data(), sizeof(out));
    return ok();
}

} // namespace

Result<VmState> parse_vm_section(const state::Section& section) {
    const auto saved = GODWIT_TRY(state::decode_section<state::KvmVmState>(vm_section, section));
    VmState state;
    if (saved.irqchips_size() != static_cast<int>(state.irqchips.size())) {
        return state::bad_section(section, "there must be three interrupt controllers");
    }
    for (int i = 0; i < saved.irqchips_size(); ++i) {
        GODWIT_TRY(take(section, saved.irqchips(i), state.irqchips[static_cast<std::size_t>(i)]));
    }
    GODWIT_TRY(take(section, saved.pit(), state.pit));
    if (!saved.has_clock()) {
        return state::bad_section(section, "the clock is missing");
    }
    state.clock = {.kvmclock_ns = saved.clock().kvmclock_ns(),
                   .host_tsc = saved.clock().host_tsc(),
                   .monotonic_ns = saved.clock().monotonic_ns(),
                   .host_tsc_exact = saved.clock().host_tsc_exact()};
    return state;
}

Status load_interrupt_controllers(const kvm::Vm& vm, const VmState& state) {
    GODWIT_TRY(vm.set_irqchips(state.irqchips));
    return vm.set_pit(state.pit);
}

namespace {

std::uint64_t nanoseconds_of(std::uint64_t tsc_ticks, std::uint32_t khz) {
    constexpr std::uint64_t nanoseconds_per_millisecond = 1'000'000;
    // Milliseconds and rest apart, so that nothing overflows.
    return tsc_ticks / khz * nanoseconds_per_millisecond +
           tsc_ticks % khz * nanoseconds_per_millisecond / khz;
}

/// Takes away what the way from a time here to the kernel's has cost: KVM says what its clock, the
/// TSC and the real time are at one moment, and adds the real time that passes until it sets the
/// clock (Documentation/virt/kvm/api.rst, KVM_SET_CLOCK).
Status correct_kvmclock(const kvm::Vm& vm, const ClockMoment& saved, std::uint32_t khz) {
    kvm_clock_data now = GODWIT_TRY(vm.clock());
    const bool usable = saved.host_tsc_exact && has_host_tsc(now) && khz != 0 &&
                        (now.flags & KVM_CLOCK_REALTIME) != 0 && now.host_tsc >= saved.host_tsc;
    if (!usable) {
        return ok();
    }
    now.clock = saved.kvmclock_ns + nanoseconds_of(now.host_tsc - saved.host_tsc, khz);
    now.flags = KVM_CLOCK_REALTIME;
    return vm.set_clock(now);
}

} // namespace

Status continue_kvmclock(const kvm::Vm& vm,
                         const ClockMoment& saved,
                         const sys::Clock& clock,
                         std::uint32_t host_tsc_khz) {
    const std::int64_t elapsed_ns = clock.now().time_since_epoch().count() - saved.monotonic_ns;
    if (elapsed_ns < 0) {
        return Error(ErrorCode::conflict,
                     "the machine was saved in the future of this host's clock: it comes from "
                     "another host or another boot; restore it with a frozen clock");
    }
    kvm_clock_data data{};
    data.clock = saved.kvmclock_ns + static_cast<std::uint64_t>(elapsed_ns);
    GODWIT_TRY(vm.set_clock(data));
    return correct_kvmclock(vm, saved, host_tsc_khz);
}

Status resume_kvmclock(const kvm::Vm& vm, const ClockMoment& saved) {
    kvm_clock_data data{};
    data.clock = saved.kvmclock_ns;
    return vm.set_clock(data);
}

std::uint64_t frozen_tsc_offset_change(const ClockMoment& saved) noexcept {
    return saved.host_tsc - __rdtsc();
}

} // namespace godwit::machine
