#include "machine/vcpu_state.h"

#include "machine/cpuid.h"

#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

namespace godwit::machine {

namespace {

constexpr std::uint32_t msr_tsc = 0x10;
constexpr std::uint32_t msr_tsc_deadline = 0x6E0;

/// MSRs that only inform: a host that refuses their value harms nobody. Everything else that is not
/// zero and cannot be set fails the restore.
constexpr std::array<std::uint32_t, 2> informative_msrs{
    0x8B, // IA32_BIOS_SIGN_ID, microcode revision
    0xCE, // MSR_PLATFORM_INFO
};

std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%lx", value);
    return text.data();
}

kvm::MsrBuffer buffer_of(std::span<const std::uint32_t> indices) {
    kvm::MsrBuffer buffer(indices.size());
    std::ranges::transform(indices, buffer.entries().begin(), [](std::uint32_t index) {
        kvm_msr_entry entry{};
        entry.index = index;
        return entry;
    });
    return buffer;
}

} // namespace

namespace {

/// State that KVM has but does not list (arch/x86/kvm/x86.c, msrs_to_save, Linux 6.1): a family is
/// there if its first register can be read.
struct MsrFamily {
    std::uint32_t first;
    std::uint32_t count;
};
constexpr std::array unlisted_msrs{
    MsrFamily{0x2FF, 1},      // MTRR default type
    MsrFamily{0x200, 16},     // MTRRs of variable range
    MsrFamily{0x250, 1},      // MTRRs of fixed range: 64 KiB,
    MsrFamily{0x258, 2},      // 16 KiB,
    MsrFamily{0x268, 8},      // 4 KiB
    MsrFamily{0x400, 4 * 32}, // machine check banks
};

Result<std::vector<std::uint32_t>> readable_unlisted_msrs(const kvm::Vcpu& vcpu) {
    std::vector<std::uint32_t> indices;
    for (const MsrFamily& family : unlisted_msrs) {
        kvm::MsrBuffer first = buffer_of(std::array{family.first});
        if (GODWIT_TRY(vcpu.read_msrs(first)) == 1) {
            for (std::uint32_t i = 0; i < family.count; ++i) {
                indices.push_back(family.first + i);
            }
        }
    }
    return indices;
}

} // namespace

Result<VcpuStateTraits> probe_vcpu(const kvm::Vcpu& vcpu, std::span<const std::uint32_t> listed) {
    VcpuStateTraits traits;
    traits.has_tsc_offset = vcpu.tsc_offset().has_value();
    traits.host_tsc_khz = GODWIT_TRY(vcpu.tsc_khz());
    traits.guest_tsc_khz = traits.host_tsc_khz;
    std::vector<std::uint32_t>& indices = traits.msr_indices;
    indices.assign(listed.begin(), listed.end());
    for (const std::uint32_t index : GODWIT_TRY(readable_unlisted_msrs(vcpu))) {
        if (std::ranges::find(listed, index) == listed.end()) {
            indices.push_back(index);
        }
    }
    std::erase(indices, msr_tsc);
    // KVM stops at the first MSR it refuses: leave that one out and try again.
    for (;;) {
        kvm::MsrBuffer buffer = buffer_of(indices);
        const std::size_t read = GODWIT_TRY(vcpu.read_msrs(buffer));
        if (read >= indices.size()) {
            for (const kvm_msr_entry& entry : buffer.entries()) {
                if (entry.data == 0) {
                    traits.zero_when_new.push_back(entry.index);
                }
            }
            std::ranges::sort(traits.zero_when_new);
            return traits;
        }
        indices.erase(indices.begin() + static_cast<std::ptrdiff_t>(read));
    }
}

namespace {

Result<std::vector<kvm_msr_entry>> read_msrs(const kvm::Vcpu& vcpu, const VcpuStateTraits& traits) {
    kvm::MsrBuffer buffer = buffer_of(traits.msr_indices);
    const std::size_t read = GODWIT_TRY(vcpu.read_msrs(buffer));
    if (read != traits.msr_indices.size()) {
        return Error(ErrorCode::io,
                     "KVM no longer reads MSR " + hex(traits.msr_indices[read]) + " of vCPU " +
                         std::to_string(vcpu.id()));
    }
    const auto entries = buffer.entries();
    return std::vector<kvm_msr_entry>(entries.begin(), entries.end());
}

/// The guest's TSC minus the host's, read or computed.
Result<std::uint64_t> read_tsc_offset(const kvm::Vcpu& vcpu, const VcpuStateTraits& traits) {
    if (traits.has_tsc_offset) {
        return vcpu.tsc_offset();
    }
    kvm::MsrBuffer buffer = buffer_of(std::array{msr_tsc});
    GODWIT_TRY(vcpu.read_msrs(buffer));
    return buffer.entries()[0].data - __rdtsc();
}

} // namespace

Result<VcpuRecord> save_vcpu(const kvm::Vcpu& vcpu,
                             const VcpuStateTraits& traits,
                             std::span<const kvm_cpuid_entry2> cpuid) {
    VcpuRecord record;
    // The multiprocessing state first: reading it lets KVM settle a pending INIT or SIPI.
    record.mp_state = GODWIT_TRY(vcpu.mp_state());
    record.regs = GODWIT_TRY(vcpu.regs());
    record.sregs = GODWIT_TRY(vcpu.sregs());
    record.xcrs = GODWIT_TRY(vcpu.xcrs());
    record.xsave.resize(vcpu.traits().xsave_bytes);
    GODWIT_TRY(vcpu.xsave(std::as_writable_bytes(std::span(record.xsave))));
    record.debug_registers = GODWIT_TRY(vcpu.debug_registers());
    record.msrs = GODWIT_TRY(read_msrs(vcpu, traits));
    record.lapic = GODWIT_TRY(vcpu.lapic());
    record.events = GODWIT_TRY(vcpu.events());
    record.tsc_khz = traits.guest_tsc_khz;
    record.tsc_offset = GODWIT_TRY(read_tsc_offset(vcpu, traits));
    record.cpuid.assign(cpuid.begin(), cpuid.end());
    return record;
}

namespace {

bool same(std::span<const kvm_cpuid_entry2> a, std::span<const kvm_cpuid_entry2> b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// As KVM's own tolerance (tsc_tolerance_ppm): nearer frequencies count as equal.
bool same_frequency(std::uint32_t a_khz, std::uint32_t b_khz) {
    constexpr std::uint64_t tolerance_ppm = 250;
    const std::uint64_t difference = a_khz > b_khz ? a_khz - b_khz : b_khz - a_khz;
    return difference * 1'000'000 <= tolerance_ppm * b_khz;
}

Status set_tsc_frequency(const kvm::Vcpu& vcpu, std::uint32_t khz, std::uint32_t host_khz) {
    if (same_frequency(khz, host_khz)) {
        return ok();
    }
    const Status set = vcpu.set_tsc_khz(khz);
    if (set.has_value() && GODWIT_TRY(vcpu.tsc_khz()) == khz) {
        return ok();
    }
    // A kernel without scaling may have taken the number nevertheless.
    discard(vcpu.set_tsc_khz(host_khz), "back to the host's frequency; the machine is given up");
    return Error(ErrorCode::unsupported,
                 "the machine's time stamp counter runs at " + std::to_string(khz) +
                     " kHz, this host's at " + std::to_string(host_khz) +
                     " kHz and KVM cannot scale it here: use a host with TSC scaling");
}

} // namespace

Status check_vcpu(const VcpuRecord& record, const kvm::Vcpu& vcpu, const VcpuLoad& load) {
    if (!same(record.cpuid, load.cpuid)) {
        GODWIT_TRY(check_cpuid(record.cpuid, load.cpuid));
    }
    if (record.xsave.size() > vcpu.traits().xsave_bytes) {
        return Error(ErrorCode::unsupported,
                     "the machine's XSAVE area has " + std::to_string(record.xsave.size()) +
                         " bytes, this host's KVM takes " +
                         std::to_string(vcpu.traits().xsave_bytes));
    }
    return set_tsc_frequency(vcpu, record.tsc_khz, load.traits->host_tsc_khz);
}

namespace {

/// Sets the MSRs but the TSC deadline, which only counts once LAPIC and TSC are there.
Status set_msrs(const kvm::Vcpu& vcpu, std::span<const kvm_msr_entry> entries) {
    while (!entries.empty()) {
        kvm::MsrBuffer buffer(entries.size());
        buffer.header()->count = static_cast<std::uint32_t>(entries.size());
        std::ranges::copy(entries, buffer.entries().begin());
        const std::size_t written = GODWIT_TRY(vcpu.write_msrs(buffer));
        if (written >= entries.size()) {
            return ok();
        }
        const kvm_msr_entry& refused = entries[written];
        const bool harmless =
            refused.data == 0 ||
            std::ranges::find(informative_msrs, refused.index) != informative_msrs.end();
        if (!harmless) {
            return Error(ErrorCode::unsupported,
                         "KVM does not take value " + hex(refused.data) + " of MSR " +
                             hex(refused.index) + " of vCPU " + std::to_string(vcpu.id()));
        }
        entries = entries.subspan(written + 1);
    }
    return ok();
}

struct SavedMsrs {
    std::vector<kvm_msr_entry> early;
    std::vector<kvm_msr_entry> deadline; ///< The TSC deadline, if it is there.
};

/// Setting them has KVM, or a hypervisor interface it offers, write to guest memory or start
/// something.
bool acts_at_once(std::uint32_t index) {
    constexpr std::uint32_t kvm_first = 0x4B56'4D00; // MSR_KVM_*
    constexpr std::uint32_t kvm_last = 0x4B56'4DFF;
    constexpr std::uint32_t hyperv_first = 0x4000'0000;
    constexpr std::uint32_t hyperv_last = 0x4000'0FFF;
    constexpr std::uint32_t old_wall_clock = 0x11;
    constexpr std::uint32_t old_system_time = 0x12;
    return (index >= kvm_first && index <= kvm_last) ||
           (index >= hyperv_first && index <= hyperv_last) || index == old_wall_clock ||
           index == old_system_time || index == msr_tsc_deadline;
}

/// Whether the vCPU holds this value already: a new one by nature, or by preload_vcpu().
bool holds(const VcpuLoad& load, const kvm_msr_entry& entry, std::size_t position) {
    if (load.preloaded != nullptr && !acts_at_once(entry.index)) {
        const std::vector<kvm_msr_entry>& before = load.preloaded->msrs;
        return position < before.size() && before[position].index == entry.index &&
               before[position].data == entry.data;
    }
    return entry.data == 0 && std::ranges::binary_search(load.traits->zero_when_new, entry.index);
}

SavedMsrs split_msrs(std::span<const kvm_msr_entry> entries, const VcpuLoad& load) {
    SavedMsrs msrs;
    msrs.early.reserve(entries.size());
    for (std::size_t i = 0; i < entries.size(); ++i) {
        if (!holds(load, entries[i], i)) {
            (entries[i].index == msr_tsc_deadline ? msrs.deadline : msrs.early)
                .push_back(entries[i]);
        }
    }
    return msrs;
}

template <typename T>
bool same_bytes(const T& a, const T& b) {
    return std::memcmp(&a, &b, sizeof(T)) == 0;
}

Status set_tsc(const kvm::Vcpu& vcpu, const VcpuStateTraits& traits, std::uint64_t offset) {
    if (traits.has_tsc_offset) {
        return vcpu.set_tsc_offset(offset);
    }
    kvm_msr_entry entry{};
    entry.index = msr_tsc;
    entry.data = __rdtsc() + offset;
    return set_msrs(vcpu, std::span(&entry, 1));
}

/// No exception, interrupt or NMI waits or is being delivered.
bool nothing_pending(const kvm_vcpu_events& events) {
    return (events.exception.injected | events.exception.pending | events.interrupt.injected |
            events.interrupt.shadow | events.nmi.injected | events.nmi.pending | events.nmi.masked |
            events.smi.smm | events.smi.pending | events.smi.smm_inside_nmi |
            events.smi.latched_init | events.triple_fault.pending) == 0;
}

/// Setting `b` after `a` would change nothing.
bool same_events(const kvm_vcpu_events& a, const kvm_vcpu_events& b) {
    return nothing_pending(a) && nothing_pending(b) && a.sipi_vector == b.sipi_vector;
}

} // namespace

Status preload_vcpu(const VcpuRecord& record, const kvm::Vcpu& vcpu, const VcpuLoad& load) {
    if (!same(record.cpuid, load.cpuid)) {
        GODWIT_TRY(vcpu.set_cpuid(record.cpuid));
    }
    SavedMsrs msrs = split_msrs(record.msrs, load);
    std::erase_if(msrs.early, [](const kvm_msr_entry& entry) { return acts_at_once(entry.index); });
    GODWIT_TRY(vcpu.set_sregs(record.sregs));
    GODWIT_TRY(vcpu.set_xcrs(record.xcrs));
    GODWIT_TRY(vcpu.set_debug_registers(record.debug_registers));
    GODWIT_TRY(vcpu.set_xsave(std::as_bytes(std::span(record.xsave))));
    GODWIT_TRY(set_msrs(vcpu, msrs.early));
    GODWIT_TRY(set_tsc(vcpu, *load.traits, record.tsc_offset + load.tsc_offset_change));
    if (nothing_pending(record.events)) {
        GODWIT_TRY(vcpu.set_events(record.events));
    }
    return vcpu.set_mp_state(record.mp_state);
}

Status load_vcpu(const VcpuRecord& record, const kvm::Vcpu& vcpu, const VcpuLoad& load) {
    const SavedMsrs msrs = split_msrs(record.msrs, load);

    const VcpuRecord* const before = load.preloaded;
    if (!same(record.cpuid, before != nullptr ? std::span(before->cpuid) : load.cpuid)) {
        GODWIT_TRY(vcpu.set_cpuid(record.cpuid));
    }
    // The order matters: sregs switch the modes that decide what the rest may hold (x2APIC before
    // the LAPIC), XCR0 before the area it lays out, TSC and LAPIC before the deadline timer,
    // events and MP state last because the others may change them.
    if (before == nullptr || !same_bytes(before->sregs, record.sregs)) {
        GODWIT_TRY(vcpu.set_sregs(record.sregs));
    }
    GODWIT_TRY(vcpu.set_regs(record.regs));
    if (before == nullptr || !same_bytes(before->xcrs, record.xcrs)) {
        GODWIT_TRY(vcpu.set_xcrs(record.xcrs));
    }
    if (before == nullptr || before->xsave != record.xsave) {
        GODWIT_TRY(vcpu.set_xsave(std::as_bytes(std::span(record.xsave))));
    }
    if (before == nullptr || !same_bytes(before->debug_registers, record.debug_registers)) {
        GODWIT_TRY(vcpu.set_debug_registers(record.debug_registers));
    }
    if (!msrs.early.empty()) {
        GODWIT_TRY(set_msrs(vcpu, msrs.early));
    }
    if (before == nullptr || before->tsc_offset != record.tsc_offset ||
        !load.traits->has_tsc_offset) {
        GODWIT_TRY(set_tsc(vcpu, *load.traits, record.tsc_offset + load.tsc_offset_change));
    }
    GODWIT_TRY(vcpu.set_lapic(record.lapic));
    GODWIT_TRY(set_msrs(vcpu, msrs.deadline));
    if (before == nullptr || !same_events(before->events, record.events)) {
        GODWIT_TRY(vcpu.set_events(record.events));
    }
    return before != nullptr && same_bytes(before->mp_state, record.mp_state)
               ? ok()
               : vcpu.set_mp_state(record.mp_state);
}

} // namespace godwit::machine
