#pragma once

/// Names of CPU features as /proc/cpuinfo has them, for messages. Pure functions; any thread.

#include <cstdint>
#include <optional>
#include <string_view>

namespace godwit::machine {

enum class CpuidPart : std::uint8_t { eax, ebx, ecx, edx };

/// One bit of CPUID.
struct CpuFeature {
    std::uint32_t leaf = 0;
    std::uint32_t index = 0;
    CpuidPart part = CpuidPart::eax;
    unsigned bit = 0;
    friend bool operator==(const CpuFeature&, const CpuFeature&) = default;
};

/// Empty for bits without a name here.
[[nodiscard]] std::string_view name_of(const CpuFeature& feature) noexcept;
[[nodiscard]] std::optional<CpuFeature> cpu_feature_named(std::string_view name) noexcept;

} // namespace godwit::machine
