#include "memory/guest_memory.h"

#include <array>

namespace godwit::memory {
namespace {

std::shared_ptr<GuestMemory> make_memory(std::uint64_t bytes) {
    const RamBacking backing = GODWIT_MUST(
        RamBacking::create("test", {.bytes = bytes, .kind = RamKind::memfd, .path = {}}));
    return GODWIT_MUST(GuestMemory::map(backing, sys::MapMode::shared));
}

TEST(Layout, more_than_three_gib_continues_at_four) {
    const auto regions = GODWIT_MUST(layout_of(4 * gib));
    ASSERT_EQ(regions.size(), 2U);
    EXPECT_EQ(regions[0].bytes, 3 * gib);
    EXPECT_EQ(regions[1].start, Gpa{4 * gib});
    EXPECT_EQ(regions[1].offset, 3 * gib);
    EXPECT_EQ(regions[1].bytes, 1 * gib);
}

TEST(Layout, odd_or_tiny_sizes_are_refused) {
    EXPECT_FALSE(layout_of(31 * mib).has_value());
    EXPECT_FALSE(layout_of(32 * mib + 4096).has_value());
    EXPECT_TRUE(layout_of(32 * mib).has_value());
}

TEST(RamBacking, more_than_the_host_has_says_so) {
    const auto backing =
        RamBacking::create("test", {.bytes = 8192 * gib, .kind = RamKind::memfd, .path = {}});
    ASSERT_FALSE(backing.has_value());
    EXPECT_EQ(backing.error().code(), ErrorCode::resource_exhausted);
}

TEST(GuestMemory, store_then_load_gives_the_value) {
    auto memory = make_memory(32 * mib);
    ASSERT_TRUE(memory->store(Gpa{0x1000}, std::uint64_t{0x1122334455667788}).has_value());
    EXPECT_EQ(GODWIT_MUST(memory->load<std::uint32_t>(Gpa{0x1004})), 0x11223344U);
}

TEST(GuestMemory, ranges_that_leave_ram_are_refused) {
    auto memory = make_memory(32 * mib);
    EXPECT_FALSE(memory->view(Gpa{32 * mib - 4}, 8).has_value());
    EXPECT_FALSE(memory->view(Gpa{~0ULL - 3}, 8).has_value());
    EXPECT_FALSE(memory->view(Gpa{0}, ~0ULL).has_value());
    EXPECT_TRUE(memory->view(Gpa{32 * mib - 8}, 8).has_value());
}

TEST(GuestMemory, write_log_holds_exactly_the_written_pages) {
    auto memory = make_memory(32 * mib);
    ASSERT_TRUE(memory->store(Gpa{0}, std::uint8_t{1}).has_value());
    memory->start_write_log();
    const std::array<std::byte, 2> two{};
    ASSERT_TRUE(memory->write(Gpa{64 * page_size - 1}, two).has_value());
    const auto words = memory->take_write_log();
    EXPECT_EQ(words[0], 1ULL << 63U);
    EXPECT_EQ(words[1], 1ULL);
    EXPECT_EQ(memory->take_write_log()[0], 0U);
}

TEST(GuestMemory, released_pages_read_as_zero) {
    auto memory = make_memory(32 * mib);
    ASSERT_TRUE(memory->store(Gpa{8 * page_size}, std::uint32_t{7}).has_value());
    ASSERT_TRUE(memory->release(Gpa{8 * page_size}, page_size).has_value());
    EXPECT_EQ(GODWIT_MUST(memory->load<std::uint32_t>(Gpa{8 * page_size})), 0U);
}

/// Two mapped pages of a file, for memory made of parts.
struct AssembledMemory : ::testing::Test {
    AssembledMemory()
        : object(GODWIT_MUST(sys::create_memfd("parts", 2 * page_size))), // memory is to be had
          mapping(std::make_shared<sys::MappedRegion>(GODWIT_MUST( // of an object of that size
              sys::MappedRegion::create(object, 0, 2 * page_size, sys::MapMode::shared)))) {}
    [[nodiscard]] Result<std::shared_ptr<GuestMemory>>
    assemble(const std::vector<GuestMemory::Part>& parts) const {
        return GuestMemory::assemble(parts, mapping);
    }
    [[nodiscard]] std::span<std::byte> page(std::size_t index) const {
        return mapping->bytes().subspan(index * page_size, page_size);
    }
    sys::Fd object;
    std::shared_ptr<sys::MappedRegion> mapping;
};

TEST_F(AssembledMemory, parts_lie_where_they_are_said_to_lie_and_nowhere_else) {
    auto memory = GODWIT_MUST(
        assemble({{.start = Gpa{gib}, .bytes = page(1)}, {.start = Gpa{0}, .bytes = page(0)}}));
    mapping.reset(); // the memory keeps it
    ASSERT_TRUE(memory->store(Gpa{gib + 8}, std::uint32_t{5}).has_value());
    std::uint32_t seen = 0;
    ASSERT_TRUE(sys::pread_exact(object, std::as_writable_bytes(std::span(&seen, 1)), page_size + 8)
                    .has_value());
    EXPECT_EQ(seen, 5U);
    EXPECT_FALSE(memory->contains(Gpa{page_size}, 1));
    EXPECT_FALSE(memory->view(Gpa{gib + page_size - 4}, 8).has_value());
    EXPECT_EQ(memory->ram_bytes(), 2 * page_size);
    memory->start_write_log();
    memory->note_written(Gpa{0}, 1);
    EXPECT_EQ(memory->take_write_log()[0], 2U); // the second page in the order of the parts
}

TEST_F(AssembledMemory, overlaps_and_odd_parts_are_refused) {
    EXPECT_FALSE(
        assemble({{.start = Gpa{0}, .bytes = page(0)}, {.start = Gpa{0}, .bytes = page(1)}})
            .has_value());
    EXPECT_FALSE(assemble({{.start = Gpa{512}, .bytes = page(0)}}).has_value());
    EXPECT_FALSE(assemble({{.start = Gpa{0}, .bytes = page(0).subspan(512)}}).has_value());
    EXPECT_FALSE(assemble({{.start = Gpa{0}, .bytes = page(0).first(0)}}).has_value());
    EXPECT_FALSE(assemble({{.start = Gpa{~std::uint64_t{4095}}, .bytes = page(0)}}).has_value());
    EXPECT_TRUE(assemble({{.start = Gpa{0}, .bytes = page(0).first(100)}}).has_value());
}

} // namespace
} // namespace godwit::memory
