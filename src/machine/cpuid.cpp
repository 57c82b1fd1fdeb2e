#include "machine/cpuid.h"

#include "base/fault_point.h"
#include "machine/cpu_features.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <string>
#include <tuple>

namespace godwit::machine {

namespace {

// Leaves and bits: Intel SDM volume 2 (CPUID), AMD APM volume 3 appendix E, and for 0x4000'0000 on
// Linux Documentation/virt/kvm/x86/cpuid.rst.

using Part = CpuidPart;

std::uint32_t& part_of(kvm_cpuid_entry2& entry, Part part) {
    switch (part) {
    case Part::eax:
        return entry.eax;
    case Part::ebx:
        return entry.ebx;
    case Part::ecx:
        return entry.ecx;
    case Part::edx:
        return entry.edx;
    }
    return entry.eax;
}

constexpr std::uint32_t bit(unsigned number) {
    return 1U << number;
}

/// Bits that are never shown.
struct Mask {
    std::uint32_t leaf;
    std::uint32_t index;
    Part part;
    std::uint32_t hidden;
};

constexpr std::array masks{
    // DTES64, MONITOR, DS-CPL, VMX, SMX, EST, TM2, CNXT-ID, SDBG; xTPR, PDCM; OSXSAVE follows CR4.
    Mask{1,
         0,
         Part::ecx,
         bit(2) | bit(3) | bit(4) | bit(5) | bit(6) | bit(7) | bit(8) | bit(10) | bit(11) |
             bit(14) | bit(15) | bit(27)},
    Mask{1, 0, Part::edx, bit(21) | bit(22) | bit(29) | bit(31)}, // DS, ACPI, TM, PBE
    Mask{6, 0, Part::eax, ~bit(2)},                               // all but ARAT
    Mask{6, 0, Part::ebx, ~0U},
    Mask{6, 0, Part::ecx, ~0U},
    Mask{7, 0, Part::ebx, bit(2) | bit(25)},                      // SGX, processor trace
    Mask{7, 0, Part::ecx, bit(5) | bit(30)},                      // WAITPKG, SGX_LC
    Mask{7, 0, Part::edx, bit(18) | bit(22) | bit(24) | bit(25)}, // PCONFIG, AMX
    Mask{7, 1, Part::eax, bit(21)},                               // AMX_FP16
    Mask{0xD, 0, Part::eax, bit(17) | bit(18)},                   // AMX state
    // SVM, IBS, SKINIT, WDT, performance counters.
    Mask{0x8000'0001,
         0,
         Part::ecx,
         bit(2) | bit(10) | bit(12) | bit(13) | bit(23) | bit(24) | bit(28)},
};

/// Leaves that are left out: MONITOR, performance counters, SGX, trace, frequencies, AMX tiles, v2
/// topology (0xB is made anew), SVM, IBS, SEV, performance counters v2.
constexpr std::array<std::uint32_t, 15> dropped_leaves{5,
                                                       0xA,
                                                       0xB,
                                                       0x12,
                                                       0x14,
                                                       0x15,
                                                       0x16,
                                                       0x1D,
                                                       0x1E,
                                                       0x1F,
                                                       0x8000'000A,
                                                       0x8000'001B,
                                                       0x8000'001F,
                                                       0x8000'0022,
                                                       0x8000'0026};

bool is_dropped(const kvm_cpuid_entry2& entry) {
    const bool amx_state = entry.function == 0xD && (entry.index == 17 || entry.index == 18);
    return amx_state || std::ranges::find(dropped_leaves, entry.function) != dropped_leaves.end();
}

void hide_features(kvm_cpuid_entry2& entry) {
    for (const Mask& mask : masks) {
        if (mask.leaf == entry.function && mask.index == entry.index) {
            part_of(entry, mask.part) &= ~mask.hidden;
        }
    }
}

struct Topology {
    std::uint32_t vcpus;
    std::uint32_t id;
    [[nodiscard]] std::uint32_t id_bits() const {
        return static_cast<std::uint32_t>(std::bit_width(vcpus - 1));
    }
};

std::uint32_t with_field(std::uint32_t value, unsigned low, unsigned bits, std::uint32_t field) {
    const std::uint32_t mask = (bits == 32 ? ~0U : (1U << bits) - 1U) << low;
    return (value & ~mask) | ((field << low) & mask);
}

void describe_basics(kvm_cpuid_entry2& entry, const Topology& topology, bool tsc_deadline_timer) {
    entry.ebx = with_field(entry.ebx, 24, 8, topology.id);
    entry.ebx = with_field(entry.ebx, 16, 8, topology.vcpus);
    entry.ecx |= bit(31) | bit(21); // hypervisor, x2APIC
    entry.ecx = with_field(entry.ecx, 24, 1, tsc_deadline_timer ? 1 : 0);
    entry.edx = with_field(entry.edx, 28, 1, topology.vcpus > 1 ? 1 : 0);
}

/// Leaf 4 and its AMD twin 0x8000001d: level 3 is everybody's, the others belong to one core.
void describe_cache(kvm_cpuid_entry2& entry, const Topology& topology) {
    const std::uint32_t type = entry.eax & 0x1FU;
    if (type == 0) {
        return;
    }
    const std::uint32_t level = entry.eax >> 5U & 7U;
    entry.eax = with_field(entry.eax, 14, 12, level >= 3 ? topology.vcpus - 1 : 0);
    if (entry.function == 4) {
        entry.eax = with_field(entry.eax, 26, 6, topology.vcpus - 1);
    }
}

void describe_topology(kvm_cpuid_entry2& entry, const Topology& topology, bool tsc_deadline_timer) {
    switch (entry.function) {
    case 1:
        describe_basics(entry, topology, tsc_deadline_timer);
        break;
    case 4:
    case 0x8000'001D:
        describe_cache(entry, topology);
        break;
    case 0x8000'0001: // CmpLegacy
        entry.ecx = with_field(entry.ecx, 1, 1, topology.vcpus > 1 ? 1 : 0);
        break;
    case 0x8000'0008:
        entry.ecx =
            with_field(0, 0, 8, topology.vcpus - 1) | with_field(0, 12, 4, topology.id_bits());
        break;
    case 0x8000'001E:
        entry.eax = topology.id;
        entry.ebx = with_field(0, 0, 8, topology.id);
        entry.ecx = 0;
        break;
    default:
        break;
    }
}

/// Leaf 0xB: a level of threads (one per core) and one of cores.
void add_extended_topology(kvm::CpuidEntries& entries, const Topology& topology) {
    constexpr std::uint32_t level_thread = 1;
    constexpr std::uint32_t level_core = 2;
    for (std::uint32_t index = 0; index < 3; ++index) {
        kvm_cpuid_entry2 entry{};
        entry.function = 0xB;
        entry.index = index;
        entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        entry.ecx = index;
        entry.edx = topology.id;
        if (index == 0) {
            entry.ebx = 1;
            entry.ecx |= level_thread << 8U;
        } else if (index == 1) {
            entry.eax = topology.id_bits();
            entry.ebx = topology.vcpus;
            entry.ecx |= level_core << 8U;
        }
        entries.push_back(entry);
    }
}

} // namespace

kvm::CpuidEntries
guest_cpuid(const kvm::CpuidEntries& supported, const CpuidOptions& options, std::uint32_t index) {
    const Topology topology{.vcpus = options.vcpus, .id = index};
    kvm::CpuidEntries entries;
    std::uint32_t basic_leaf_max = 0;
    for (kvm_cpuid_entry2 entry : supported) {
        if (is_dropped(entry)) {
            continue;
        }
        hide_features(entry);
        describe_topology(entry, topology, options.tsc_deadline_timer);
        basic_leaf_max = entry.function == 0 ? entry.eax : basic_leaf_max;
        entries.push_back(entry);
    }
    if (basic_leaf_max >= 0xB) {
        add_extended_topology(entries, topology);
    }
    std::ranges::sort(entries, {}, [](const kvm_cpuid_entry2& entry) {
        return std::tuple(entry.function, entry.index);
    });
    return entries;
}

namespace {

/// Registers whose bits are features: every bit the guest has, the host must have.
struct FeatureWord {
    std::uint32_t leaf;
    std::uint32_t index;
    Part part;
};

constexpr std::array feature_words{
    FeatureWord{1, 0, Part::ecx},           FeatureWord{1, 0, Part::edx},
    FeatureWord{6, 0, Part::eax},           FeatureWord{7, 0, Part::ebx},
    FeatureWord{7, 0, Part::ecx},           FeatureWord{7, 0, Part::edx},
    FeatureWord{7, 1, Part::eax},           FeatureWord{7, 1, Part::edx},
    FeatureWord{7, 2, Part::edx},           FeatureWord{0xD, 0, Part::eax},
    FeatureWord{0xD, 0, Part::edx},         FeatureWord{0xD, 1, Part::eax},
    FeatureWord{0xD, 1, Part::ecx},         FeatureWord{0x19, 0, Part::ebx},
    FeatureWord{0x4000'0001, 0, Part::eax}, FeatureWord{0x8000'0001, 0, Part::ecx},
    FeatureWord{0x8000'0001, 0, Part::edx}, FeatureWord{0x8000'0007, 0, Part::edx},
    FeatureWord{0x8000'0008, 0, Part::ebx}, FeatureWord{0x8000'0021, 0, Part::eax},
};

constexpr std::array<const char*, 4> part_names{"eax", "ebx", "ecx", "edx"};

kvm_cpuid_entry2
entry_of(std::span<const kvm_cpuid_entry2> entries, std::uint32_t leaf, std::uint32_t index) {
    const auto found = std::ranges::find_if(entries, [&](const kvm_cpuid_entry2& entry) {
        return entry.function == leaf && entry.index == index;
    });
    return found == entries.end() ? kvm_cpuid_entry2{} : *found;
}

std::string hex(std::uint32_t value) {
    std::array<char, 16> text{};
    std::snprintf(text.data(), text.size(), "0x%x", value);
    return text.data();
}

/// "5 (avx2), 31".
std::string bits_of(const FeatureWord& place, std::uint32_t word) {
    std::string text;
    for (unsigned i = 0; i < 32; ++i) {
        if ((word & bit(i)) != 0) {
            const std::string_view name =
                name_of({.leaf = place.leaf, .index = place.index, .part = place.part, .bit = i});
            text += text.empty() ? "" : ", ";
            text += std::to_string(i);
            text += name.empty() ? "" : " (" + std::string(name) + ")";
        }
    }
    return text;
}

} // namespace

Result<kvm::CpuidEntries> supported_cpuid(const kvm::Kvm& kvm) {
    kvm::CpuidEntries entries = GODWIT_TRY(kvm.supported_cpuid());
    const auto without = cpu_feature_named(fault_action("machine.cpuid.without"));
    for (kvm_cpuid_entry2& entry : entries) {
        if (without.has_value() && entry.function == without->leaf &&
            entry.index == without->index) {
            part_of(entry, without->part) &= ~bit(without->bit);
        }
    }
    return entries;
}

Result<kvm::CpuidEntries> offered_cpuid() {
    const kvm::Kvm kvm = GODWIT_TRY(kvm::Kvm::open());
    return guest_cpuid(
        GODWIT_TRY(supported_cpuid(kvm)),
        // Several: bits that only tell that there are more than one are no lack.
        {.vcpus = 2, .tsc_deadline_timer = kvm.extension(KVM_CAP_TSC_DEADLINE_TIMER) > 0},
        0);
}

Status check_cpuid(std::span<const kvm_cpuid_entry2> saved,
                   std::span<const kvm_cpuid_entry2> offered) {
    const kvm_cpuid_entry2 theirs = entry_of(saved, 0, 0);
    const kvm_cpuid_entry2 ours = entry_of(offered, 0, 0);
    if (std::tie(theirs.ebx, theirs.ecx, theirs.edx) != std::tie(ours.ebx, ours.ecx, ours.edx)) {
        return Error(ErrorCode::unsupported,
                     "the machine was saved on a processor of another maker (CPUID leaf 0x0): "
                     "restore it on a host of that kind");
    }
    std::string missing;
    for (const FeatureWord& word : feature_words) {
        kvm_cpuid_entry2 wanted = entry_of(saved, word.leaf, word.index);
        kvm_cpuid_entry2 present = entry_of(offered, word.leaf, word.index);
        const std::uint32_t lacking = part_of(wanted, word.part) & ~part_of(present, word.part);
        if (lacking != 0) {
            missing += missing.empty() ? "" : "; ";
            missing += "leaf " + hex(word.leaf) + " index " + std::to_string(word.index) + " " +
                       part_names[static_cast<std::size_t>(word.part)] + " bits " +
                       bits_of(word, lacking);
        }
    }
    if (!missing.empty()) {
        return Error(ErrorCode::unsupported,
                     "the machine uses CPU features this host does not offer: CPUID " + missing);
    }
    return ok();
}

} // namespace godwit::machine
