#include "machine/boot/boot.h"
#include "machine/boot/bzimage.h"
#include "machine/boot/pvh_elf.h"
#include "machine/testing/guest_image.h"

#include <asm/bootparam.h>

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>

namespace godwit::machine::boot {
namespace {

using testing::Bytes;
using testing::poke;
using testing::TemporaryFile;

constexpr std::size_t load_header = sizeof(Elf64_Ehdr);
constexpr std::size_t note_header = load_header + sizeof(Elf64_Phdr);
constexpr Gpa rsdp{0xE'0000};

class BootTest : public ::testing::Test {
  protected:
    void SetUp() override {
        memory::RamSpec spec;
        spec.bytes = 32 * mib;
        const auto backing = memory::RamBacking::create("test", spec);
        memory_ = *memory::GuestMemory::map(*backing, sys::MapMode::shared);
    }
    Result<Entry> load(const Bytes& image, const std::string& initrd = {}) {
        const TemporaryFile file(image);
        KernelSpec kernel;
        kernel.path = file.path();
        kernel.initrd = initrd;
        kernel.command_line = "console=ttyS0";
        return load_kernel(*memory_, kernel, rsdp);
    }
    std::string error_of(const Bytes& image) {
        const auto loaded = load(image);
        return loaded.has_value() ? "accepted" : loaded.error().to_string();
    }
    std::shared_ptr<memory::GuestMemory> memory_;
};

TEST_F(BootTest, pvh_image_is_loaded_at_its_address_with_start_info) {
    const auto entry = load(testing::pvh_elf(testing::hello_code()));
    ASSERT_TRUE(entry.has_value()) << entry.error().to_string();
    EXPECT_EQ(entry->mode, Entry::Mode::protected_32);
    EXPECT_EQ(entry->instruction.value, testing::code_address);
    EXPECT_EQ(*memory_->load<std::uint8_t>(Gpa{testing::code_address}), testing::hello_code()[0]);
    EXPECT_EQ(*memory_->load<std::uint32_t>(info_address), 0x336EC578U);
    char text[14] = {};
    ASSERT_TRUE(
        memory_->read(command_line_address, std::as_writable_bytes(std::span(text))).has_value());
    EXPECT_STREQ(text, "console=ttyS0");
}

TEST_F(BootTest, memory_behind_the_file_part_is_zeroed) {
    const std::uint64_t behind = testing::code_address + testing::hello_code().size();
    ASSERT_TRUE(memory_->store<std::uint8_t>(Gpa{behind}, 0xAA).has_value());
    ASSERT_TRUE(load(testing::pvh_elf(testing::hello_code())).has_value());
    EXPECT_EQ(*memory_->load<std::uint8_t>(Gpa{behind}), 0);
}

TEST_F(BootTest, initrd_goes_to_the_top_of_low_memory) {
    const TemporaryFile initrd(Bytes(5000, 0x55));
    const auto entry = load(testing::pvh_elf(testing::hello_code()), initrd.path());
    ASSERT_TRUE(entry.has_value()) << entry.error().to_string();
    const auto module_at = *memory_->load<std::uint64_t>(Gpa{info_address.value + 16});
    const auto start = *memory_->load<std::uint64_t>(Gpa{module_at});
    EXPECT_EQ(start, 32 * mib - 8192);
    EXPECT_EQ(*memory_->load<std::uint64_t>(Gpa{module_at + 8}), 5000U);
    EXPECT_EQ(*memory_->load<std::uint8_t>(Gpa{start + 4999}), 0x55);
}

TEST_F(BootTest, missing_and_empty_initrds_are_named) {
    const auto missing = load(testing::pvh_elf(testing::hello_code()), "/nonexistent/initrd");
    ASSERT_FALSE(missing.has_value());
    EXPECT_NE(missing.error().to_string().find("/nonexistent/initrd"), std::string::npos);
    const TemporaryFile empty(Bytes{});
    EXPECT_FALSE(load(testing::pvh_elf(testing::hello_code()), empty.path()).has_value());
}

TEST_F(BootTest, segment_beyond_ram_advises_more_memory) {
    Bytes image = testing::pvh_elf(testing::hello_code());
    poke<std::uint64_t>(image, load_header + offsetof(Elf64_Phdr, p_memsz), 64 * mib);
    const std::string text = error_of(image);
    EXPECT_NE(text.find("65 MiB"), std::string::npos) << text;
    EXPECT_NE(text.find("--memory"), std::string::npos) << text;
}

TEST_F(BootTest, hostile_elf_images_are_refused) {
    const Bytes good = testing::pvh_elf(testing::hello_code());
    const auto with = [&good](std::size_t offset, std::uint64_t value) {
        Bytes bad = good;
        poke<std::uint64_t>(bad, offset, value);
        return bad;
    };
    constexpr std::uint64_t huge = ~std::uint64_t{0};
    for (const Bytes& bad : {
             with(load_header + offsetof(Elf64_Phdr, p_offset), huge),
             with(load_header + offsetof(Elf64_Phdr, p_offset), good.size()),
             with(load_header + offsetof(Elf64_Phdr, p_filesz), huge),
             with(load_header + offsetof(Elf64_Phdr, p_memsz), 1),
             with(load_header + offsetof(Elf64_Phdr, p_memsz), huge),
             with(load_header + offsetof(Elf64_Phdr, p_paddr), 0),
             with(load_header + offsetof(Elf64_Phdr, p_paddr), huge),
             with(load_header + offsetof(Elf64_Phdr, p_paddr), 0xC000'0000),
             with(load_header + offsetof(Elf64_Phdr, p_paddr), 0x11'0000), // entry outside
             with(note_header + offsetof(Elf64_Phdr, p_offset), huge),
             with(note_header + offsetof(Elf64_Phdr, p_filesz), 8),
             with(offsetof(Elf64_Ehdr, e_phoff), huge),
             with(offsetof(Elf64_Ehdr, e_phoff), good.size() - 1),
         }) {
        EXPECT_NE(error_of(bad), "accepted");
    }
}

TEST_F(BootTest, every_truncation_of_an_elf_image_is_refused) {
    const Bytes good = testing::pvh_elf(testing::hello_code());
    for (std::size_t length = 0; length < good.size(); ++length) {
        EXPECT_NE(error_of(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))),
                  "accepted")
            << length;
    }
}

TEST_F(BootTest, elf_without_pvh_note_says_so) {
    Bytes image = testing::pvh_elf(testing::hello_code());
    poke<std::uint32_t>(image, note_header, PT_NULL);
    EXPECT_NE(error_of(image).find("CONFIG_PVH"), std::string::npos);
}

TEST_F(BootTest, bzimage_is_loaded_with_zero_page_and_page_tables) {
    const auto entry = load(testing::bzimage(4096));
    ASSERT_TRUE(entry.has_value()) << entry.error().to_string();
    EXPECT_EQ(entry->mode, Entry::Mode::long_64);
    EXPECT_EQ(entry->instruction.value, 0x100'0200U);
    EXPECT_EQ(*memory_->load<std::uint8_t>(Gpa{0x100'0000}), 0x90);
    const auto params = *memory_->load<boot_params>(info_address);
    EXPECT_EQ(params.acpi_rsdp_addr, rsdp.value);
    EXPECT_EQ(params.hdr.cmd_line_ptr, command_line_address.value);
    EXPECT_GE(params.e820_entries, 4);
    EXPECT_EQ(*memory_->load<std::uint64_t>(page_tables_address),
              page_tables_address.value + 0x1003);
    EXPECT_EQ(*memory_->load<std::uint64_t>(Gpa{page_tables_address.value + 0x2008}), 0x20'0083U);
}

TEST_F(BootTest, hostile_bzimages_are_refused) {
    const Bytes good = testing::bzimage(4096);
    const auto with = [&good](std::size_t offset, std::uint32_t value) {
        Bytes bad = good;
        poke<std::uint32_t>(bad, offset, value);
        return bad;
    };
    EXPECT_NE(error_of(with(0x1F4, 0xFFFF'FFFF)), "accepted"); // syssize
    EXPECT_NE(error_of(with(0x258, 0)), "accepted");           // pref_address
    EXPECT_NE(error_of(with(0x25C, 0xFFFF'FFFF)), "accepted"); // its upper half
    EXPECT_NE(error_of(with(0x260, 0xFFFF'FFFF)), "accepted"); // init_size
    EXPECT_NE(error_of(with(0x236, 0)), "accepted");           // no 64-bit entry
    Bytes long_setup = good;
    long_setup[0x1F1] = 255;
    EXPECT_NE(error_of(long_setup), "accepted");
    for (std::size_t length = 0; length < good.size(); length += 37) {
        EXPECT_NE(error_of(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))),
                  "accepted")
            << length;
    }
}

TEST_F(BootTest, command_line_longer_than_the_kernel_takes_is_refused) {
    Bytes image = testing::bzimage(4096);
    poke<std::uint32_t>(image, 0x238, 5);
    EXPECT_NE(error_of(image).find("command line"), std::string::npos);
}

TEST_F(BootTest, something_else_is_neither) {
    EXPECT_NE(error_of(Bytes(4096, 0)).find("neither"), std::string::npos);
}

TEST_F(BootTest, memory_map_leaves_out_the_hole_and_overlaps_nothing) {
    const auto map = memory_map(*memory_);
    for (std::size_t i = 1; i < map.size(); ++i) {
        EXPECT_GE(map[i].start.value, map[i - 1].start.value + map[i - 1].bytes);
    }
    EXPECT_EQ(map.back().start.value, ecam_start);
}

} // namespace
} // namespace godwit::machine::boot
