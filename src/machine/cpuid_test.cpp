#include "machine/cpu_features.h"
#include "machine/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace godwit::machine {
namespace {

kvm_cpuid_entry2
entry(std::uint32_t leaf, std::uint32_t index, std::array<std::uint32_t, 4> registers) {
    kvm_cpuid_entry2 made{};
    made.function = leaf;
    made.index = index;
    made.eax = registers[0];
    made.ebx = registers[1];
    made.ecx = registers[2];
    made.edx = registers[3];
    return made;
}

/// A host with every bit of every leaf.
kvm::CpuidEntries generous_host() {
    return {
        entry(0x8000'0008, 0, {0x3030, ~0U, 0, 0}),
        entry(0, 0, {0x1F, 0x68747541, 0x444D4163, 0x69746E65}),
        entry(1, 0, {0xA20F10, ~0U, ~0U, ~0U}),
        entry(4, 0, {0x121, 0, 0, 0}),
        entry(4, 3, {0x163, 0, 0, 0}),
        entry(7, 0, {2, ~0U, ~0U, ~0U}),
        entry(0xA, 0, {~0U, ~0U, ~0U, ~0U}),
        entry(0x1F, 0, {~0U, ~0U, ~0U, ~0U}),
        entry(0x8000'0001, 0, {0, 0, ~0U, ~0U}),
        entry(0x8000'000A, 0, {~0U, ~0U, ~0U, ~0U}),
        entry(0x8000'001E, 0, {~0U, ~0U, ~0U, ~0U}),
    };
}

kvm_cpuid_entry2 find(const kvm::CpuidEntries& entries, std::uint32_t leaf, std::uint32_t index) {
    const auto found = std::ranges::find_if(
        entries, [&](const auto& e) { return e.function == leaf && e.index == index; });
    return found == entries.end() ? kvm_cpuid_entry2{} : *found;
}

const CpuidOptions four{.vcpus = 4, .tsc_deadline_timer = true};

TEST(Cpuid, nested_virtualization_and_counters_are_hidden) {
    const auto guest = guest_cpuid(generous_host(), four, 0);
    EXPECT_EQ(find(guest, 1, 0).ecx & (1U << 5U), 0U);
    EXPECT_EQ(find(guest, 0x8000'0001, 0).ecx & (1U << 2U), 0U);
    EXPECT_EQ(find(guest, 0x8000'000A, 0).eax, 0U);
    EXPECT_EQ(find(guest, 0xA, 0).eax, 0U);
    EXPECT_EQ(find(guest, 0x1F, 0).ebx, 0U);
}

TEST(Cpuid, hypervisor_x2apic_and_deadline_bits_are_shown) {
    kvm::CpuidEntries host = generous_host();
    host[2].ecx = 0;
    const auto guest = guest_cpuid(host, four, 0);
    EXPECT_EQ(find(guest, 1, 0).ecx, (1U << 31U) | (1U << 24U) | (1U << 21U));
    const auto plain = guest_cpuid(generous_host(), {.vcpus = 1}, 0);
    EXPECT_EQ(find(plain, 1, 0).ecx & (1U << 24U), 0U);
}

TEST(Cpuid, topology_is_one_thread_per_core_of_one_socket) {
    const auto guest = guest_cpuid(generous_host(), four, 3);
    EXPECT_EQ(find(guest, 1, 0).ebx >> 24U, 3U);
    EXPECT_EQ(find(guest, 1, 0).ebx >> 16U & 0xFFU, 4U);
    EXPECT_EQ(find(guest, 0xB, 0).ebx, 1U);
    EXPECT_EQ(find(guest, 0xB, 1).eax, 2U);
    EXPECT_EQ(find(guest, 0xB, 1).ebx, 4U);
    EXPECT_EQ(find(guest, 0xB, 1).edx, 3U);
    EXPECT_EQ(find(guest, 4, 0).eax >> 14U & 0xFFFU, 0U);
    EXPECT_EQ(find(guest, 4, 3).eax >> 14U & 0xFFFU, 3U);
    EXPECT_EQ(find(guest, 0x8000'0008, 0).ecx, 0x2003U);
    EXPECT_EQ(find(guest, 0x8000'001E, 0).eax, 3U);
    EXPECT_EQ(find(guest, 0x8000'001E, 0).ebx, 3U);
}

TEST(Cpuid, single_vcpu_has_no_hyperthreading_bit) {
    const auto guest = guest_cpuid(generous_host(), {.vcpus = 1}, 0);
    EXPECT_EQ(find(guest, 1, 0).edx & (1U << 28U), 0U);
    EXPECT_EQ(find(guest, 0xB, 1).eax, 0U);
}

TEST(Cpuid, entries_are_sorted_and_the_same_every_time) {
    const auto once = guest_cpuid(generous_host(), four, 1);
    kvm::CpuidEntries shuffled = generous_host();
    std::ranges::reverse(shuffled);
    const auto again = guest_cpuid(shuffled, four, 1);
    ASSERT_EQ(once.size(), again.size());
    EXPECT_EQ(std::memcmp(once.data(), again.data(), once.size() * sizeof(once[0])), 0);
}

TEST(Cpuid, same_host_takes_its_own_guests_back) {
    const auto guest = guest_cpuid(generous_host(), four, 1);
    EXPECT_TRUE(check_cpuid(guest, guest).has_value());
}

TEST(Cpuid, missing_feature_is_named_by_leaf_and_bit) {
    const auto guest = guest_cpuid(generous_host(), four, 0);
    kvm::CpuidEntries poorer = guest;
    for (auto& e : poorer) {
        if (e.function == 7 && e.index == 0) {
            e.ebx &= ~((1U << 5U) | (1U << 16U));
        }
    }
    const Status checked = check_cpuid(guest, poorer);
    ASSERT_FALSE(checked.has_value());
    EXPECT_EQ(checked.error().code(), ErrorCode::unsupported);
    EXPECT_NE(checked.error().to_string().find("leaf 0x7 index 0 ebx bits 5 (avx2), 16 (avx512f)"),
              std::string::npos)
        << checked.error().to_string();
    EXPECT_TRUE(check_cpuid(poorer, guest).has_value());
}

TEST(Cpuid, names_of_features_are_read_back) {
    const auto avx2 = cpu_feature_named("avx2");
    ASSERT_TRUE(avx2.has_value());
    EXPECT_EQ(*avx2, (CpuFeature{.leaf = 7, .index = 0, .part = CpuidPart::ebx, .bit = 5}));
    EXPECT_EQ(name_of(*avx2), "avx2");
    EXPECT_EQ(name_of(CpuFeature{.leaf = 7, .index = 9, .part = CpuidPart::ebx, .bit = 5}), "");
    EXPECT_FALSE(cpu_feature_named("").has_value());
}

TEST(Cpuid, other_maker_is_refused) {
    const auto guest = guest_cpuid(generous_host(), four, 0);
    kvm::CpuidEntries other = guest;
    other[0].ebx ^= 1U;
    EXPECT_EQ(check_cpuid(guest, other).error().code(), ErrorCode::unsupported);
}

} // namespace
} // namespace godwit::machine
