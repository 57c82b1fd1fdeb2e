#include "exchange/partition/region.h"
#include "exchange/partition/region_layout.h"

#include <atomic>
#include <thread>

namespace godwit::exchange::partition {
namespace {

constexpr InstanceId old_one{0x11};
constexpr InstanceId new_one{0x22};
constexpr RegionNames names{.old_instance = old_one, .new_instance = new_one, .pool_id = 5};

Region make_region() {
    return GODWIT_MUST(Region::create(names));
}

Region adopt(const Region& region) {
    return GODWIT_MUST(Region::adopt(GODWIT_MUST(region.fd().duplicate())));
}

memory::Extent extent(std::uint64_t first) {
    return {.run = {.first = first, .frames = 4},
            .owner = {old_one.value},
            .epoch = 9,
            .label = {.purpose = memory::Purpose::program, .tag = 7, .position = 2}};
}

ProgramOffer make_program() {
    return {.name = "kv",
            .kind = ProgramKind::processes,
            .tag = 7,
            .memory = {extent(0), extent(8)},
            .state = {extent(16)},
            .state_bytes = 100};
}

template <typename T>
void overwrite(const Region& region, std::uint64_t offset, T value) {
    GODWIT_MUST(sys::pwrite_all(
        region.fd(), std::as_bytes(std::span(&value, 1)), offset)); // Within a file of our own.
}

TEST(Region, adopt_sees_the_names_and_refuses_what_is_no_region) {
    auto region = make_region();
    EXPECT_EQ(adopt(region).names().pool_id, 5U);
    EXPECT_EQ(adopt(region).id_of(Side::new_instance), new_one);
    EXPECT_FALSE(Region::adopt(GODWIT_MUST(sys::create_memfd("x", 0))).has_value());
    EXPECT_FALSE(
        Region::adopt(GODWIT_MUST(sys::create_memfd("x", layout::region_bytes))).has_value());
    overwrite(region, offsetof(layout::Header, new_instance), old_one.value);
    EXPECT_FALSE(Region::adopt(GODWIT_MUST(region.fd().duplicate())).has_value());
}

TEST(Region, two_names_that_are_one_are_refused) {
    EXPECT_FALSE(Region::create({.old_instance = old_one, .new_instance = old_one}).has_value());
    EXPECT_FALSE(Region::create({.old_instance = {}, .new_instance = new_one}).has_value());
}

TEST(Region, messages_arrive_in_order_and_only_at_the_other_side) {
    auto region = make_region();
    auto peer = adopt(region);
    const Message offer{.type = MessageType::offer, .subject = 3, .value = 9};
    const Message cpu{.type = MessageType::cpu, .subject = 1, .value = 2};
    ASSERT_TRUE(region.send(Side::old_instance, offer).has_value());
    ASSERT_TRUE(region.send(Side::old_instance, cpu).has_value());
    EXPECT_EQ(GODWIT_MUST(region.receive(Side::old_instance)), std::nullopt);
    EXPECT_EQ(GODWIT_MUST(peer.receive(Side::new_instance)), offer);
    EXPECT_EQ(GODWIT_MUST(peer.receive(Side::new_instance)), cpu);
    EXPECT_EQ(GODWIT_MUST(peer.receive(Side::new_instance)), std::nullopt);
}

TEST(Region, a_ring_whose_reader_sleeps_is_busy_and_loses_nothing) {
    auto region = make_region();
    for (std::uint32_t i = 0; i < layout::ring_slots; ++i) {
        ASSERT_TRUE(
            region.send(Side::new_instance, {.type = MessageType::cpu, .subject = i}).has_value());
    }
    EXPECT_EQ(region.send(Side::new_instance, {}).error().code(), ErrorCode::busy);
    for (std::uint32_t i = 0; i < layout::ring_slots; ++i) {
        ASSERT_EQ(GODWIT_MUST(region.receive(Side::old_instance))->subject, i);
    }
    EXPECT_TRUE(region.send(Side::new_instance, {}).has_value());
}

TEST(Region, impossible_ring_indexes_and_broken_messages_are_corrupt) {
    auto region = make_region();
    ASSERT_TRUE(region.send(Side::old_instance, {}).has_value());
    const std::uint64_t ring = offsetof(layout::Region, rings);
    overwrite(region, ring + offsetof(layout::Ring, slots) + 8, std::uint32_t{3});
    EXPECT_EQ(region.receive(Side::new_instance).error().code(), ErrorCode::corrupt);
    overwrite(region, ring + offsetof(layout::Ring, written), std::uint64_t{1000});
    EXPECT_EQ(region.receive(Side::new_instance).error().code(), ErrorCode::corrupt);
    overwrite(region, ring + offsetof(layout::Ring, read), std::uint64_t{2000});
    EXPECT_EQ(region.send(Side::old_instance, {}).error().code(), ErrorCode::corrupt);
}

TEST(Region, program_on_offer_reads_back_as_written) {
    auto region = make_region();
    auto peer = adopt(region);
    const Ownership offered = GODWIT_MUST(region.offer(4, old_one, make_program()));
    EXPECT_EQ(peer.program_owner(4), offered);
    EXPECT_EQ(GODWIT_MUST(peer.read_program(4)), make_program());
    EXPECT_EQ(peer.program_owner(5), std::nullopt);
}

TEST(Region, claim_against_taking_back_has_one_winner) {
    auto region = make_region();
    auto peer = adopt(region);
    for (int round = 0; round < 100; ++round) {
        const Ownership offered = GODWIT_MUST(region.offer(0, old_one, make_program()));
        std::atomic<int> winners{0};
        {
            const std::jthread claim(
                [&] { winners += peer.claim_program(0, offered, new_one).has_value() ? 1 : 0; });
            winners += region.claim_program(0, offered, old_one).has_value() ? 1 : 0;
        }
        ASSERT_EQ(winners.load(), 1);
        if (region.program_owner(0)->owner == new_one) {
            EXPECT_FALSE(region.offer(0, old_one, make_program()).has_value());
            ASSERT_TRUE(region.claim_program(0, *region.program_owner(0), old_one).has_value());
        }
    }
}

TEST(Region, program_that_is_not_whole_is_refused) {
    const std::uint64_t body = offsetof(layout::Region, program) + offsetof(layout::Program, body);
    auto region = make_region();
    GODWIT_MUST(region.offer(0, old_one, make_program())); // The slot was never used.
    overwrite(region, body + offsetof(layout::ProgramBody, memory_extents), ~std::uint32_t{0});
    EXPECT_EQ(region.read_program(0).error().code(), ErrorCode::corrupt);
    EXPECT_FALSE(region.read_program(1).has_value());
    EXPECT_FALSE(region.read_program(Region::programs_max).has_value());
}

TEST(Region, offers_that_do_not_fit_are_refused) {
    auto region = make_region();
    ProgramOffer program = make_program();
    program.memory.assign(600, extent(0));
    EXPECT_FALSE(region.offer(0, old_one, program).has_value());
    program = make_program();
    program.name = std::string(64, 'x');
    EXPECT_FALSE(region.offer(0, old_one, program).has_value());
    EXPECT_FALSE(region.offer(Region::programs_max, old_one, make_program()).has_value());
}

TEST(Region, cpu_token_changes_hands_once) {
    auto region = make_region();
    auto peer = adopt(region);
    ASSERT_TRUE(region.add_cpu(1, old_one).has_value());
    const Ownership token = *peer.cpu_owner(1);
    EXPECT_EQ(GODWIT_MUST(peer.claim_cpu(1, token, new_one)).epoch, token.epoch + 1);
    EXPECT_FALSE(region.claim_cpu(1, token, old_one).has_value());
    EXPECT_EQ(region.cpus_of(new_one), std::vector<std::uint32_t>{1});
    EXPECT_FALSE(region.add_cpu(Region::cpus_max, old_one).has_value());
    EXPECT_EQ(region.cpu_owner(Region::cpus_max), std::nullopt);
}

TEST(Region, estate_is_read_only_once_it_is_sealed_and_whole) {
    auto region = make_region();
    auto peer = adopt(region);
    const Estate estate{.generation = 1,
                        .written_at = sys::Moment(sys::Nanoseconds(10)),
                        .deadline = sys::Moment(sys::Nanoseconds(20)),
                        .last_cpu = 1,
                        .extents = {extent(0)}};
    ASSERT_TRUE(region.write_estate(estate).has_value());
    EXPECT_EQ(GODWIT_MUST(peer.read_estate()), std::nullopt);
    region.seal_estate(1);
    EXPECT_EQ(GODWIT_MUST(peer.read_estate()), estate);
    EXPECT_FALSE(region.write_estate(estate).has_value()) << "a sealed one cannot be changed";
    region.seal_estate(2);
    EXPECT_EQ(peer.read_estate().error().code(), ErrorCode::corrupt);
    region.seal_estate(1);
    overwrite(region,
              offsetof(layout::Region, estate) + offsetof(layout::Estate, body) +
                  offsetof(layout::EstateBody, deadline_ns),
              std::int64_t{5});
    EXPECT_EQ(peer.read_estate().error().code(), ErrorCode::corrupt);
}

TEST(Region, heartbeats_are_counted) {
    auto region = make_region();
    region.beat(Side::old_instance, sys::Moment(sys::Nanoseconds(7)));
    EXPECT_EQ(adopt(region).beats(Side::old_instance), 1U);
    EXPECT_EQ(region.beats(Side::new_instance), 0U);
}

} // namespace
} // namespace godwit::exchange::partition
