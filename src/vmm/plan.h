#pragma once

/// What an exchange would do, before anything is touched: a build says what it takes over, a
/// machine says what speaks against it. Format: docs/formats/vmm-control.md, "plan". Control loop's
/// thread.

#include "exchange/source.h"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <vector>

namespace godwit::vmm {

/// This build as one JSON object in one line: protocol, sections and processor. Needs no machine;
/// what it cannot find out stands in "trouble".
[[nodiscard]] std::string describe_build();

/// Why a build that describes itself so cannot take a machine with these sections and this
/// processor; each reason once. A description that makes no sense is a reason.
[[nodiscard]] std::vector<std::string>
refusals_of(const nlohmann::json& description,
            const std::vector<exchange::SectionKind>& sections,
            std::span<const kvm_cpuid_entry2> cpuid);

} // namespace godwit::vmm
