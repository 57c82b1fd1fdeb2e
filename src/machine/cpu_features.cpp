#include "machine/cpu_features.h"

#include <algorithm>

namespace godwit::machine {

namespace {

struct NamedFeature {
    CpuFeature feature;
    std::string_view name;
};

// Names: Linux arch/x86/include/asm/cpufeatures.h. What a guest may notice the lack of.
// clang-format off
constexpr NamedFeature named_features[] = {
    {{0x1, 0, CpuidPart::ecx, 0}, "pni"},
    {{0x1, 0, CpuidPart::ecx, 1}, "pclmulqdq"},
    {{0x1, 0, CpuidPart::ecx, 9}, "ssse3"},
    {{0x1, 0, CpuidPart::ecx, 12}, "fma"},
    {{0x1, 0, CpuidPart::ecx, 13}, "cx16"},
    {{0x1, 0, CpuidPart::ecx, 17}, "pcid"},
    {{0x1, 0, CpuidPart::ecx, 19}, "sse4_1"},
    {{0x1, 0, CpuidPart::ecx, 20}, "sse4_2"},
    {{0x1, 0, CpuidPart::ecx, 21}, "x2apic"},
    {{0x1, 0, CpuidPart::ecx, 22}, "movbe"},
    {{0x1, 0, CpuidPart::ecx, 23}, "popcnt"},
    {{0x1, 0, CpuidPart::ecx, 24}, "tsc_deadline_timer"},
    {{0x1, 0, CpuidPart::ecx, 25}, "aes"},
    {{0x1, 0, CpuidPart::ecx, 26}, "xsave"},
    {{0x1, 0, CpuidPart::ecx, 28}, "avx"},
    {{0x1, 0, CpuidPart::ecx, 29}, "f16c"},
    {{0x1, 0, CpuidPart::ecx, 30}, "rdrand"},
    {{0x1, 0, CpuidPart::edx, 4}, "tsc"},
    {{0x1, 0, CpuidPart::edx, 5}, "msr"},
    {{0x1, 0, CpuidPart::edx, 6}, "pae"},
    {{0x1, 0, CpuidPart::edx, 8}, "cx8"},
    {{0x1, 0, CpuidPart::edx, 9}, "apic"},
    {{0x1, 0, CpuidPart::edx, 11}, "sep"},
    {{0x1, 0, CpuidPart::edx, 12}, "mtrr"},
    {{0x1, 0, CpuidPart::edx, 13}, "pge"},
    {{0x1, 0, CpuidPart::edx, 15}, "cmov"},
    {{0x1, 0, CpuidPart::edx, 16}, "pat"},
    {{0x1, 0, CpuidPart::edx, 17}, "pse36"},
    {{0x1, 0, CpuidPart::edx, 19}, "clflush"},
    {{0x1, 0, CpuidPart::edx, 23}, "mmx"},
    {{0x1, 0, CpuidPart::edx, 24}, "fxsr"},
    {{0x1, 0, CpuidPart::edx, 25}, "sse"},
    {{0x1, 0, CpuidPart::edx, 26}, "sse2"},
    {{0x6, 0, CpuidPart::eax, 2}, "arat"},
    {{0x7, 0, CpuidPart::ebx, 0}, "fsgsbase"},
    {{0x7, 0, CpuidPart::ebx, 1}, "tsc_adjust"},
    {{0x7, 0, CpuidPart::ebx, 3}, "bmi1"},
    {{0x7, 0, CpuidPart::ebx, 5}, "avx2"},
    {{0x7, 0, CpuidPart::ebx, 7}, "smep"},
    {{0x7, 0, CpuidPart::ebx, 8}, "bmi2"},
    {{0x7, 0, CpuidPart::ebx, 9}, "erms"},
    {{0x7, 0, CpuidPart::ebx, 10}, "invpcid"},
    {{0x7, 0, CpuidPart::ebx, 16}, "avx512f"},
    {{0x7, 0, CpuidPart::ebx, 17}, "avx512dq"},
    {{0x7, 0, CpuidPart::ebx, 18}, "rdseed"},
    {{0x7, 0, CpuidPart::ebx, 19}, "adx"},
    {{0x7, 0, CpuidPart::ebx, 20}, "smap"},
    {{0x7, 0, CpuidPart::ebx, 21}, "avx512ifma"},
    {{0x7, 0, CpuidPart::ebx, 23}, "clflushopt"},
    {{0x7, 0, CpuidPart::ebx, 24}, "clwb"},
    {{0x7, 0, CpuidPart::ebx, 28}, "avx512cd"},
    {{0x7, 0, CpuidPart::ebx, 29}, "sha_ni"},
    {{0x7, 0, CpuidPart::ebx, 30}, "avx512bw"},
    {{0x7, 0, CpuidPart::ebx, 31}, "avx512vl"},
    {{0x7, 0, CpuidPart::ecx, 1}, "avx512vbmi"},
    {{0x7, 0, CpuidPart::ecx, 2}, "umip"},
    {{0x7, 0, CpuidPart::ecx, 3}, "pku"},
    {{0x7, 0, CpuidPart::ecx, 6}, "avx512_vbmi2"},
    {{0x7, 0, CpuidPart::ecx, 8}, "gfni"},
    {{0x7, 0, CpuidPart::ecx, 9}, "vaes"},
    {{0x7, 0, CpuidPart::ecx, 10}, "vpclmulqdq"},
    {{0x7, 0, CpuidPart::ecx, 11}, "avx512_vnni"},
    {{0x7, 0, CpuidPart::ecx, 12}, "avx512_bitalg"},
    {{0x7, 0, CpuidPart::ecx, 14}, "avx512_vpopcntdq"},
    {{0x7, 0, CpuidPart::ecx, 16}, "la57"},
    {{0x7, 0, CpuidPart::ecx, 22}, "rdpid"},
    {{0x7, 0, CpuidPart::edx, 4}, "fsrm"},
    {{0x7, 0, CpuidPart::edx, 10}, "md_clear"},
    {{0x7, 0, CpuidPart::edx, 14}, "serialize"},
    {{0x7, 0, CpuidPart::edx, 23}, "avx512_fp16"},
    {{0x7, 0, CpuidPart::edx, 26}, "spec_ctrl"},
    {{0x7, 0, CpuidPart::edx, 27}, "stibp"},
    {{0x7, 0, CpuidPart::edx, 29}, "arch_capabilities"},
    {{0x7, 0, CpuidPart::edx, 31}, "ssbd"},
    {{0x7, 1, CpuidPart::eax, 4}, "avx_vnni"},
    {{0x7, 1, CpuidPart::eax, 5}, "avx512_bf16"},
    {{0xd, 1, CpuidPart::eax, 0}, "xsaveopt"},
    {{0xd, 1, CpuidPart::eax, 1}, "xsavec"},
    {{0xd, 1, CpuidPart::eax, 2}, "xgetbv1"},
    {{0xd, 1, CpuidPart::eax, 3}, "xsaves"},
    {{0x8000'0001, 0, CpuidPart::ecx, 0}, "lahf_lm"},
    {{0x8000'0001, 0, CpuidPart::ecx, 5}, "abm"},
    {{0x8000'0001, 0, CpuidPart::ecx, 6}, "sse4a"},
    {{0x8000'0001, 0, CpuidPart::ecx, 8}, "3dnowprefetch"},
    {{0x8000'0001, 0, CpuidPart::ecx, 11}, "xop"},
    {{0x8000'0001, 0, CpuidPart::ecx, 16}, "fma4"},
    {{0x8000'0001, 0, CpuidPart::ecx, 22}, "topoext"},
    {{0x8000'0001, 0, CpuidPart::edx, 11}, "syscall"},
    {{0x8000'0001, 0, CpuidPart::edx, 20}, "nx"},
    {{0x8000'0001, 0, CpuidPart::edx, 26}, "pdpe1gb"},
    {{0x8000'0001, 0, CpuidPart::edx, 27}, "rdtscp"},
    {{0x8000'0001, 0, CpuidPart::edx, 29}, "lm"},
    {{0x8000'0007, 0, CpuidPart::edx, 8}, "constant_tsc"},
    {{0x8000'0008, 0, CpuidPart::ebx, 0}, "clzero"},
    {{0x8000'0008, 0, CpuidPart::ebx, 2}, "xsaveerptr"},
    {{0x8000'0008, 0, CpuidPart::ebx, 9}, "wbnoinvd"},
    {{0x8000'0008, 0, CpuidPart::ebx, 12}, "ibpb"},
    {{0x8000'0008, 0, CpuidPart::ebx, 14}, "ibrs"},
    {{0x8000'0008, 0, CpuidPart::ebx, 15}, "stibp_amd"},
    {{0x8000'0008, 0, CpuidPart::ebx, 24}, "amd_ssbd"},
};
// clang-format on

} // namespace

std::string_view name_of(const CpuFeature& feature) noexcept {
    const auto* const found = std::ranges::find(named_features, feature, &NamedFeature::feature);
    return found == std::end(named_features) ? std::string_view() : found->name;
}

std::optional<CpuFeature> cpu_feature_named(std::string_view name) noexcept {
    const auto* const found = std::ranges::find(named_features, name, &NamedFeature::name);
    return found == std::end(named_features) ? std::nullopt : std::optional(found->feature);
}

} // namespace godwit::machine
