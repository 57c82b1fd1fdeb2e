#include "machine/vcpu_record.h"

#include "state/section_codec.h"
#include "state/vcpu.pb.h"

#include <cstring>
#include <span>

namespace godwit::machine {

namespace {

constexpr std::size_t cpuid_entries_max = 512;
constexpr std::size_t msrs_max = 4096;

template <typename T>
void put(std::string& out, const T& value) {
    out.assign(reinterpret_cast<const char*>(&value), sizeof(value));
}

} // namespace

state::Section encode_vcpu_section(const VcpuRecord& record, std::uint32_t vcpu) {
    state::VcpuState saved;
    saved.set_mp_state(record.mp_state.mp_state);
    put(*saved.mutable_regs(), record.regs);
    put(*saved.mutable_sregs2(), record.sregs);
    put(*saved.mutable_xcrs(), record.xcrs);
    saved.set_xsave(record.xsave);
    put(*saved.mutable_debug_registers(), record.debug_registers);
    saved.mutable_msr_indices()->Reserve(static_cast<int>(record.msrs.size()));
    saved.mutable_msr_values()->Reserve(static_cast<int>(record.msrs.size()));
    for (const kvm_msr_entry& entry : record.msrs) {
        saved.add_msr_indices(entry.index);
        saved.add_msr_values(entry.data);
    }
    put(*saved.mutable_lapic(), record.lapic);
    put(*saved.mutable_events(), record.events);
    saved.set_tsc_khz(record.tsc_khz);
    saved.set_tsc_offset(record.tsc_offset);
    const std::span cpuid(record.cpuid);
    saved.mutable_cpuid()->assign(reinterpret_cast<const char*>(cpuid.data()), cpuid.size_bytes());
    return state::encode_section(vcpu_section, vcpu, saved);
}

namespace {

template <typename T>
Status take(const state::Section& section, const std::string& bytes, const char* what, T& out) {
    if (bytes.size() != sizeof(T)) {
        return state::bad_section(section, std::string(what) + " has the wrong length");
    }
    std::memcpy(&out, bytes.data(), sizeof(out));
    return ok();
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

Result<std::vector<kvm_msr_entry>> msrs_of(const state::Section& section,
                                           const state::VcpuState& saved) {
    if (saved.msr_indices_size() != saved.msr_values_size() ||
        static_cast<std::size_t>(saved.msr_indices_size()) > msrs_max) {
        return state::bad_section(section, "MSR indices and values do not match");
    }
    std::vector<kvm_msr_entry> msrs;
    msrs.reserve(static_cast<std::size_t>(saved.msr_indices_size()));
    for (int i = 0; i < saved.msr_indices_size(); ++i) {
        kvm_msr_entry entry{};
        entry.index = saved.msr_indices(i);
        entry.data = saved.msr_values(i);
        msrs.push_back(entry);
    }
    return msrs;
}

} // namespace

Result<VcpuRecord> parse_vcpu_section(const state::Section& section) {
    const auto saved = GODWIT_TRY(state::decode_section<state::VcpuState>(vcpu_section, section));
    VcpuRecord record;
    record.mp_state.mp_state = saved.mp_state();
    GODWIT_TRY(take(section, saved.regs(), "regs", record.regs));
    GODWIT_TRY(take(section, saved.sregs2(), "sregs2", record.sregs));
    GODWIT_TRY(take(section, saved.xcrs(), "xcrs", record.xcrs));
    record.xsave = saved.xsave();
    GODWIT_TRY(take(section, saved.debug_registers(), "debug_registers", record.debug_registers));
    record.msrs = GODWIT_TRY(msrs_of(section, saved));
    GODWIT_TRY(take(section, saved.lapic(), "lapic", record.lapic));
    GODWIT_TRY(take(section, saved.events(), "events", record.events));
    record.tsc_khz = saved.tsc_khz();
    record.tsc_offset = saved.tsc_offset();
    record.cpuid = GODWIT_TRY(cpuid_of(section, saved.cpuid()));
    return record;
}

} // namespace godwit::machine
