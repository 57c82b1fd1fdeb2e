#include "machine/vcpu_state.h"

#include "machine/cpuid.h"
#include "state/section_codec.h"
#include "state/vcpu.pb.h"

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

constexpr std::size_t cpuid_entries_max = 512;
constexpr std::size_t msrs_max = 4096;

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
            return traits;
        }
        indices.erase(indices.begin() + static_cast<std::ptrdiff_t>(read));
    }
}

namespace {

template <typename T>
void put(std::string& out, const T& value) {
    out.assign(reinterpret_cast<const char*>(&value), sizeof(value));
}

Status save_msrs(const kvm::Vcpu& vcpu, const VcpuStateTraits& traits, state::VcpuState& saved) {
    kvm::MsrBuffer buffer = buffer_of(traits.msr_indices);
    const std::size_t read = GODWIT_TRY(vcpu.read_msrs(buffer));
    if (read != traits.msr_indices.size()) {
        return Error(ErrorCode::io,
                     "KVM no longer reads MSR " + hex(traits.msr_indices[read]) + " of vCPU " +
                         std::to_string(vcpu.id()));
    }
    saved.mutable_msr_indices()->Reserve(static_cast<int>(read));
    saved.mutable_msr_values()->Reserve(static_cast<int>(read));
    for (const kvm_msr_entry& entry : buffer.entries()) {
        saved.add_msr_indices(entry.index);
        saved.add_msr_values(entry.data);
    }
    return ok();
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

Result<state::Section> save_vcpu(const kvm::Vcpu& vcpu,
                                 const VcpuStateTraits& traits,
                                 std::span<const kvm_cpuid_entry2> cpuid) {
    state::VcpuState saved;
    // The multiprocessing state first: reading it lets KVM settle a pending INIT or SIPI.
    saved.set_mp_state(GODWIT_TRY(vcpu.mp_state()).mp_state);
    put(*saved.mutable_regs(), GODWIT_TRY(vcpu.regs()));
    put(*saved.mutable_sregs2(), GODWIT_TRY(vcpu.sregs()));
    put(*saved.mutable_xcrs(), GODWIT_TRY(vcpu.xcrs()));
    std::string& area = *saved.mutable_xsave();
    area.resize(vcpu.traits().xsave_bytes);
    GODWIT_TRY(vcpu.xsave(std::as_writable_bytes(std::span(area))));
    put(*saved.mutable_debug_registers(), GODWIT_TRY(vcpu.debug_registers()));
    GODWIT_TRY(save_msrs(vcpu, traits, saved));
    put(*saved.mutable_lapic(), GODWIT_TRY(vcpu.lapic()));
    put(*saved.mutable_events(), GODWIT_TRY(vcpu.events()));
    saved.set_tsc_khz(GODWIT_TRY(vcpu.tsc_khz()));
    saved.set_tsc_offset(GODWIT_TRY(read_tsc_offset(vcpu, traits)));
    saved.mutable_cpuid()->assign(reinterpret_cast<const char*>(cpuid.data()), cpuid.size_bytes());
    return state::encode_section(vcpu_section, vcpu.id(), saved);
}

namespace {

template <typename T>
Result<T> structure_of(const state::Section& section, const std::string& bytes, const char* what) {
    if (bytes.size() != sizeof(T)) {
        return state::bad_section(section, std::string(what) + " has the wrong length");
    }
    T value{};
    std::memcpy(&value, bytes.data(), sizeof(value));
    return value;
}

Result<std::vector<kvm_cpuid_entry2>> cpuid_of(const state::Section& section,
                                               const std::string& bytes) {
    const std::size_t count = bytes.size() / sizeof(kvm_cpuid_entry2);
    if (bytes.size() % sizeof(kvm_cpuid_entry2) != 0 || count == 0 || count > cpuid_entries_max) {
        return state::bad_section(section, "CPUID has the wrong length");
    }
    std::vector<kvm_cpuid_entry2> entries(count);
    std::memcpy(entries.data(), bytes.data(), bytes.size());
    return entries;
}

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

Status
check_vcpu_section(const state::Section& section, const kvm::Vcpu& vcpu, const VcpuLoad& load) {
    const auto saved = GODWIT_TRY(state::decode_section<state::VcpuState>(vcpu_section, section));
    const auto cpuid = GODWIT_TRY(cpuid_of(section, saved.cpuid()));
    if (!same(cpuid, load.cpuid)) {
        GODWIT_TRY(check_cpuid(cpuid, load.cpuid));
    }
    if (saved.msr_indices_size() != saved.msr_values_size() ||
        static_cast<std::size_t>(saved.msr_indices_size()) > msrs_max) {
        return state::bad_section(section, "MSR indices and values do not match");
    }
    if (saved.xsave().size() > vcpu.traits().xsave_bytes) {
        return Error(ErrorCode::unsupported,
                     "the machine's XSAVE area has " + std::to_string(saved.xsave().size()) +
                         " bytes, this host's KVM takes " +
                         std::to_string(vcpu.traits().xsave_bytes));
    }
    return set_tsc_frequency(vcpu, saved.tsc_khz(), load.traits->host_tsc_khz);
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

SavedMsrs msrs_of(const state::VcpuState& saved) {
    SavedMsrs msrs;
    msrs.early.reserve(static_cast<std::size_t>(saved.msr_indices_size()));
    for (int i = 0; i < saved.msr_indices_size(); ++i) {
        kvm_msr_entry entry{};
        entry.index = saved.msr_indices(i);
        entry.data = saved.msr_values(i);
        (entry.index == msr_tsc_deadline ? msrs.deadline : msrs.early).push_back(entry);
    }
    return msrs;
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

} // namespace

Result<std::vector<kvm_cpuid_entry2>>
load_vcpu(const state::Section& section, const kvm::Vcpu& vcpu, const VcpuLoad& load) {
    const auto saved = GODWIT_TRY(state::decode_section<state::VcpuState>(vcpu_section, section));
    auto cpuid = GODWIT_TRY(cpuid_of(section, saved.cpuid()));
    const auto regs = GODWIT_TRY(structure_of<kvm_regs>(section, saved.regs(), "regs"));
    const auto sregs = GODWIT_TRY(structure_of<kvm_sregs2>(section, saved.sregs2(), "sregs2"));
    const auto xcrs = GODWIT_TRY(structure_of<kvm_xcrs>(section, saved.xcrs(), "xcrs"));
    const auto debug = GODWIT_TRY(
        structure_of<kvm_debugregs>(section, saved.debug_registers(), "debug_registers"));
    const auto lapic = GODWIT_TRY(structure_of<kvm_lapic_state>(section, saved.lapic(), "lapic"));
    const auto events =
        GODWIT_TRY(structure_of<kvm_vcpu_events>(section, saved.events(), "events"));
    const SavedMsrs msrs = msrs_of(saved);

    if (!same(cpuid, load.cpuid)) {
        GODWIT_TRY(vcpu.set_cpuid(cpuid));
    }
    // The order matters: sregs switch the modes that decide what the rest may hold (x2APIC before
    // the LAPIC), XCR0 before the area it lays out, TSC and LAPIC before the deadline timer,
    // events and MP state last because the others may change them.
    GODWIT_TRY(vcpu.set_sregs(sregs));
    GODWIT_TRY(vcpu.set_regs(regs));
    GODWIT_TRY(vcpu.set_xcrs(xcrs));
    GODWIT_TRY(vcpu.set_xsave(std::as_bytes(std::span(saved.xsave()))));
    GODWIT_TRY(vcpu.set_debug_registers(debug));
    GODWIT_TRY(set_msrs(vcpu, msrs.early));
    GODWIT_TRY(set_tsc(vcpu, *load.traits, saved.tsc_offset() + load.tsc_offset_change));
    GODWIT_TRY(vcpu.set_lapic(lapic));
    GODWIT_TRY(set_msrs(vcpu, msrs.deadline));
    GODWIT_TRY(vcpu.set_events(events));
    GODWIT_TRY(vcpu.set_mp_state({.mp_state = saved.mp_state()}));
    return cpuid;
}

} // namespace godwit::machine
