#include "machine/acpi/table_writer.h"
#include "machine/acpi/tables.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

namespace godwit::machine::acpi {
namespace {

constexpr Gpa start{0xE'0000};

template <typename T>
T at(const Tables& tables, std::uint64_t address) {
    T value{};
    const std::uint64_t offset = address - tables.start.value;
    if (offset + sizeof(T) <= tables.bytes.size()) {
        std::memcpy(&value, tables.bytes.data() + offset, sizeof(T));
    }
    return value;
}

std::span<const std::byte> table_at(const Tables& tables, std::uint64_t address) {
    return std::span(tables.bytes)
        .subspan(address - tables.start.value, at<std::uint32_t>(tables, address + 4));
}

std::string signature_at(const Tables& tables, std::uint64_t address) {
    return {reinterpret_cast<const char*>(tables.bytes.data()) + (address - tables.start.value), 4};
}

/// Addresses of all tables by signature, found as a kernel does.
std::map<std::string, std::uint64_t> walk(const Tables& tables) {
    std::map<std::string, std::uint64_t> found;
    const auto xsdt = at<std::uint64_t>(tables, tables.rsdp.value + 24);
    found["XSDT"] = xsdt;
    const std::size_t bytes = table_at(tables, xsdt).size();
    for (std::uint64_t offset = 36; offset + 8 <= bytes; offset += 8) {
        const auto address = at<std::uint64_t>(tables, xsdt + offset);
        found[signature_at(tables, address)] = address;
    }
    found["DSDT"] = at<std::uint64_t>(tables, found["FACP"] + 140);
    return found;
}

TEST(AcpiTables, root_pointer_lies_where_kernels_look_and_adds_up) {
    const Tables tables = build_tables(2, start);
    EXPECT_EQ(tables.rsdp, start);
    EXPECT_EQ(std::memcmp(tables.bytes.data(), "RSD PTR ", 8), 0);
    EXPECT_EQ(checksum_of(std::span(tables.bytes).first(20)), 0);
    EXPECT_EQ(checksum_of(std::span(tables.bytes).first(36)), 0);
}

TEST(AcpiTables, every_table_is_there_and_adds_up) {
    const Tables tables = build_tables(2, start);
    const auto found = walk(tables);
    for (const char* name : {"XSDT", "FACP", "APIC", "MCFG", "DSDT"}) {
        ASSERT_TRUE(found.contains(name)) << name;
        EXPECT_EQ(checksum_of(table_at(tables, found.at(name))), 0) << name;
        EXPECT_EQ(signature_at(tables, found.at(name)), name);
    }
}

TEST(AcpiTables, fadt_has_the_length_of_its_version) {
    const Tables tables = build_tables(1, start);
    const std::uint64_t fadt = walk(tables)["FACP"];
    EXPECT_EQ(table_at(tables, fadt).size(), 276U);
    EXPECT_EQ(at<std::uint32_t>(tables, fadt + 56), 0x600U);  // PM1a event block
    EXPECT_EQ(at<std::uint32_t>(tables, fadt + 64), 0x604U);  // PM1a control block
    EXPECT_EQ(at<std::uint32_t>(tables, fadt + 76), 0x608U);  // PM timer
    EXPECT_EQ(at<std::uint64_t>(tables, fadt + 120), 0xCF9U); // reset register
    EXPECT_EQ(at<std::uint8_t>(tables, fadt + 128), 6);       // and its value
    const auto facs = at<std::uint64_t>(tables, fadt + 132);
    EXPECT_EQ(signature_at(tables, facs), "FACS");
    EXPECT_EQ(facs % 64, 0U);
}

TEST(AcpiTables, madt_lists_every_processor) {
    const Tables tables = build_tables(64, start);
    const auto madt = table_at(tables, walk(tables)["APIC"]);
    std::size_t processors = 0;
    std::size_t offset = 44;
    while (offset + 2 <= madt.size()) {
        processors += madt[offset] == std::byte{0} ? 1U : 0U;
        const auto length = std::to_integer<std::size_t>(madt[offset + 1]);
        ASSERT_GE(length, 2U);
        offset += length;
    }
    EXPECT_EQ(offset, madt.size());
    EXPECT_EQ(processors, 64U);
}

TEST(AcpiTables, largest_machine_fits_below_one_mebibyte) {
    EXPECT_LE(build_tables(64, start).bytes.size(), 0x10'0000 - start.value);
}

} // namespace
} // namespace godwit::machine::acpi
