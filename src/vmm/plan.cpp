#include "vmm/plan.h"

#include "base/version.h"
#include "machine/cpuid.h"
#include "state/section_check.h"
#include "vmm/consoles.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>

namespace godwit::vmm {

namespace {

using nlohmann::json;

/// More than any processor has; a description comes from another program.
constexpr std::size_t cpuid_entries_max = 512;
constexpr std::size_t sections_described_max = 256;

json json_of_cpuid(std::span<const kvm_cpuid_entry2> entries) {
    json list = json::array();
    for (const kvm_cpuid_entry2& entry : entries) {
        list.push_back({entry.function, entry.index, entry.eax, entry.ebx, entry.ecx, entry.edx});
    }
    return list;
}

Result<kvm::CpuidEntries> read_cpuid(const json& list) {
    const Error wrong(ErrorCode::corrupt, "its description of the processor makes no sense");
    if (!list.is_array() || list.size() > cpuid_entries_max) {
        return wrong;
    }
    kvm::CpuidEntries entries;
    for (const json& row : list) {
        std::array<std::uint32_t, 6> words{};
        if (!row.is_array() || row.size() != words.size()) {
            return wrong;
        }
        for (std::size_t i = 0; i < words.size(); ++i) {
            if (!row[i].is_number_unsigned() ||
                row[i].get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max()) {
                return wrong;
            }
            words[i] = row[i].get<std::uint32_t>();
        }
        kvm_cpuid_entry2 entry{};
        entry.function = words[0];
        entry.index = words[1];
        entry.eax = words[2];
        entry.ebx = words[3];
        entry.ecx = words[4];
        entry.edx = words[5];
        entries.push_back(entry);
    }
    return entries;
}

std::uint32_t number_of(const json& object, const char* key) {
    const auto found = object.is_object() ? object.find(key) : object.end();
    return found != object.end() && found->is_number_unsigned() &&
                   found->get<std::uint64_t>() <= std::numeric_limits<std::uint32_t>::max()
               ? found->get<std::uint32_t>()
               : 0;
}

struct DescribedSection {
    std::string name;
    std::uint32_t version = 0;
};

Result<std::vector<DescribedSection>> read_sections(const json& list) {
    const Error wrong(ErrorCode::corrupt, "its list of sections makes no sense");
    if (!list.is_array() || list.empty() || list.size() > sections_described_max) {
        return wrong;
    }
    std::vector<DescribedSection> sections;
    for (const json& row : list) {
        if (!row.is_object() || !row.contains("name") || !row["name"].is_string()) {
            return wrong;
        }
        sections.push_back({.name = row["name"], .version = number_of(row, "version")});
    }
    return sections;
}

void check_sections(const json& list,
                    const std::vector<exchange::SectionKind>& wanted,
                    std::vector<std::string>& refusals) {
    const Result<std::vector<DescribedSection>> described = read_sections(list);
    if (!described.has_value()) {
        refusals.push_back(described.error().to_string());
        return;
    }
    std::vector<state::SectionType> known;
    for (const DescribedSection& section : *described) {
        known.push_back({.name = section.name, .version = section.version});
    }
    for (const exchange::SectionKind& kind : wanted) {
        const Status readable = state::check_readable(
            known, {.name = kind.name, .version = kind.version, .required = kind.required});
        if (!readable.has_value()) {
            refusals.push_back(readable.error().to_string());
        }
    }
}

} // namespace

std::string describe_build() {
    json sections = json::array();
    for (const state::SectionType& type : machine::Machine::known_sections()) {
        sections.push_back({{"name", type.name}, {"version", type.version}});
    }
    const state::SectionType consoles = state::on_trial(Consoles::section);
    sections.push_back({{"name", consoles.name}, {"version", consoles.version}});
    json description{{"program", "godwit-vmm"},
                     {"version", version()},
                     {"build_id", build_id()},
                     {"handover_protocol", exchange::protocol_version},
                     {"sections", std::move(sections)}};
    const Result<kvm::CpuidEntries> cpuid = machine::offered_cpuid();
    if (cpuid.has_value()) {
        description["cpuid"] = json_of_cpuid(*cpuid);
    } else {
        description["trouble"] = cpuid.error().to_string();
    }
    return description.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::vector<std::string> refusals_of(const json& description,
                                     const std::vector<exchange::SectionKind>& sections,
                                     std::span<const kvm_cpuid_entry2> cpuid) {
    if (!description.is_object()) {
        return {"the new build does not describe itself"};
    }
    std::vector<std::string> refusals;
    const std::uint32_t protocol = number_of(description, "handover_protocol");
    if (protocol != exchange::protocol_version) {
        refusals.push_back("the new build speaks handover protocol " + std::to_string(protocol) +
                           ", the present one " + std::to_string(exchange::protocol_version));
    }
    check_sections(description.value("sections", json()), sections, refusals);
    const Result<kvm::CpuidEntries> offered = read_cpuid(description.value("cpuid", json()));
    if (!offered.has_value()) {
        const json trouble = description.value("trouble", json());
        refusals.push_back(trouble.is_string() ? trouble.get<std::string>()
                                               : offered.error().to_string());
    } else if (const Status fits = machine::check_cpuid(cpuid, *offered); !fits.has_value()) {
        refusals.push_back(fits.error().to_string());
    }
    for (std::string& refusal : refusals) {
        refusal = refusal.starts_with("the new build") ? refusal : "the new build: " + refusal;
    }
    return refusals;
}

} // namespace godwit::vmm
