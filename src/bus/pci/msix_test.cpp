#include "bus/little_endian.h"
#include "bus/pci/msix.h"
#include "bus/testing/fakes.h"

#include <array>

namespace godwit::bus {
namespace {

void write32(Msix& msix, std::uint64_t offset, std::uint32_t value) {
    std::array<std::byte, 4> data{};
    store_little(data, value);
    msix.write_table(offset, data);
}

std::uint64_t read32(const Msix& msix, std::uint64_t offset) {
    std::array<std::byte, 4> out{};
    msix.read_table(offset, out);
    return load_little(out);
}

std::uint64_t pending(const Msix& msix) {
    std::array<std::byte, 8> out{};
    msix.read_pending(0, out);
    return load_little(out);
}

void program(Msix& msix, std::uint64_t vector, MsiMessage message) {
    write32(msix, 16 * vector, static_cast<std::uint32_t>(message.address));
    write32(msix, 16 * vector + 4, static_cast<std::uint32_t>(message.address >> 32U));
    write32(msix, 16 * vector + 8, message.data);
    write32(msix, 16 * vector + 12, 0);
}

struct MsixTest : ::testing::Test {
    MsixTest() : msix(GODWIT_MUST(Msix::create(router, 3))) {} // three are within the limit
    testing::FakeMsiRouter router;
    std::unique_ptr<Msix> msix;
    MsiMessage message{.address = 0xfee0'1000, .data = 0x41};
};

TEST_F(MsixTest, fresh_vectors_are_masked) {
    EXPECT_EQ(read32(*msix, 12), 1U);
    msix->set_control(true, false);
    EXPECT_FALSE(router.vector(0).routed.has_value());
}

TEST_F(MsixTest, unmasked_vector_is_routed_and_signals) {
    msix->set_control(true, false);
    program(*msix, 1, message);
    ASSERT_EQ(router.vector(1).routed, message);
    msix->signal(1);
    EXPECT_EQ(router.vector(1).signals, 1U);
    EXPECT_EQ(pending(*msix), 0U);
}

TEST_F(MsixTest, masked_signal_waits_as_pending_bit) {
    msix->set_control(true, false);
    program(*msix, 2, message);
    write32(*msix, 16 * 2 + 12, 1);
    EXPECT_FALSE(router.vector(2).routed.has_value());
    msix->signal(2);
    msix->signal(2);
    EXPECT_EQ(pending(*msix), 4U);
    write32(*msix, 16 * 2 + 12, 0);
    EXPECT_EQ(pending(*msix), 0U);
    EXPECT_EQ(router.vector(2).signals, 1U);
    EXPECT_EQ(router.vector(2).lost, 0U);
}

TEST_F(MsixTest, function_mask_holds_every_vector) {
    msix->set_control(true, true);
    program(*msix, 0, message);
    EXPECT_FALSE(router.vector(0).routed.has_value());
    msix->signal(0);
    msix->set_control(true, false);
    EXPECT_EQ(router.vector(0).signals, 1U);
}

TEST_F(MsixTest, disabled_function_raises_nothing) {
    program(*msix, 0, message);
    msix->signal(0);
    EXPECT_EQ(pending(*msix), 0U);
    EXPECT_EQ(router.vector(0).signals + router.vector(0).lost, 0U);
}

TEST_F(MsixTest, new_message_of_an_unmasked_vector_is_routed) {
    msix->set_control(true, false);
    program(*msix, 0, message);
    write32(*msix, 8, 0x55);
    EXPECT_EQ(router.vector(0).routed->data, 0x55U);
}

TEST_F(MsixTest, accesses_beyond_or_across_are_ignored) {
    msix->set_control(true, false);
    write32(*msix, 16 * 3, 0xffff'ffff);
    const std::array<std::byte, 2> two{std::byte{0xff}, std::byte{0xff}};
    msix->write_table(8, two);
    msix->write_table(~0ULL - 7, std::array<std::byte, 8>{});
    EXPECT_EQ(read32(*msix, 8), 0U);
    EXPECT_EQ(read32(*msix, 16 * 3), 0U);
    msix->signal(99);
}

TEST_F(MsixTest, refused_route_keeps_the_interrupt_pending) {
    msix->set_control(true, false);
    router.refuse_routes(true);
    program(*msix, 0, message);
    msix->signal(0);
    EXPECT_EQ(pending(*msix), 1U);
    router.refuse_routes(false);
    write32(*msix, 12, 1);
    write32(*msix, 12, 0);
    EXPECT_EQ(router.vector(0).signals, 1U);
}

TEST_F(MsixTest, pending_while_masked_survives_save_and_load) {
    msix->set_control(true, false);
    program(*msix, 1, message);
    write32(*msix, 16 + 12, 1);
    msix->signal(1);
    testing::FakeMsiRouter other_router;
    auto other = GODWIT_MUST(Msix::create(other_router, 3));
    ASSERT_TRUE(other->load(msix->save()).has_value());
    EXPECT_EQ(other->save().entries, msix->save().entries);
    EXPECT_EQ(other_router.vector(1).signals, 0U);
    write32(*other, 16 + 12, 0);
    EXPECT_EQ(other_router.vector(1).signals, 1U);
}

TEST_F(MsixTest, table_of_another_size_is_refused) {
    MsixState state = msix->save();
    state.entries.pop_back();
    EXPECT_FALSE(msix->load(state).has_value());
}

TEST_F(MsixTest, no_vectors_or_too_many_are_refused) {
    EXPECT_FALSE(Msix::create(router, 0).has_value());
    EXPECT_FALSE(Msix::create(router, msix_vectors_max + 1).has_value());
    router.limit_vectors(5);
    EXPECT_FALSE(Msix::create(router, 3).has_value());
}

} // namespace
} // namespace godwit::bus
