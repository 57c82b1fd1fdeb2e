#include "vmm/plan.h"

#include <linux/kvm.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <set>

namespace godwit::vmm {
namespace {

using nlohmann::json;

const std::vector<exchange::SectionKind> sections{{.name = "vcpu", .version = 1},
                                                  {.name = "virtio-blk", .version = 2}};

std::vector<kvm_cpuid_entry2> processor() {
    kvm_cpuid_entry2 features{};
    features.function = 1;
    features.ecx = 0x5;
    return {features};
}

json fitting() {
    return {{"handover_protocol", exchange::protocol_version},
            {"sections",
             {{{"name", "vcpu"}, {"version", 1}}, {{"name", "virtio-blk"}, {"version", 3}}}},
            {"cpuid", {{1, 0, 0, 0, 0x7, 0}}}};
}

std::vector<std::string> refusals(const json& description) {
    const auto cpuid = processor();
    // As a program says it: numbers that are not negative are read as unsigned ones.
    return refusals_of(json::parse(description.dump()), sections, cpuid);
}

TEST(refusals_of, build_that_fits_has_none) {
    EXPECT_EQ(refusals(fitting()), std::vector<std::string>());
}

TEST(refusals_of, every_reason_is_told_at_once) {
    json other = fitting();
    other["handover_protocol"] = 9;
    other["sections"][1]["version"] = 1;
    other["cpuid"][0][4] = 1;
    const std::vector<std::string> found = refusals(other);
    ASSERT_EQ(found.size(), 3U);
    EXPECT_NE(found[0].find("protocol 9"), std::string::npos) << found[0];
    EXPECT_NE(found[1].find("virtio-blk"), std::string::npos) << found[1];
    EXPECT_NE(found[2].find("ecx bits 2"), std::string::npos) << found[2];
}

TEST(refusals_of, missing_device_is_named) {
    json other = fitting();
    other["sections"].erase(1);
    const std::vector<std::string> found = refusals(other);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_NE(found[0].find("virtio-blk"), std::string::npos) << found[0];
}

TEST(refusals_of, nonsense_is_a_reason_and_no_crash) {
    for (const char* text :
         {"null",
          "7",
          "[]",
          "{}",
          R"({"sections":[7],"cpuid":[[1]]})",
          R"({"handover_protocol":-1,"sections":[{"name":5}],"cpuid":[["a",0,0,0,0,0]]})",
          R"({"sections":"x","cpuid":{"a":1},"trouble":3})"}) {
        EXPECT_FALSE(refusals(json::parse(text)).empty()) << text;
    }
}

TEST(describe_build, names_every_section_once) {
    const json description = json::parse(describe_build());
    std::set<std::string> names;
    for (const json& section : description["sections"]) {
        EXPECT_TRUE(names.insert(section["name"]).second) << section;
    }
    EXPECT_TRUE(names.contains("vcpu") && names.contains("vmm-consoles"));
    EXPECT_TRUE(description.contains("cpuid") || description.contains("trouble"));
}

} // namespace
} // namespace godwit::vmm
