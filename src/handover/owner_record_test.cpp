#include "base/units.h"
#include "handover/owner_record.h"

#include <atomic>
#include <thread>

namespace godwit::handover {
namespace {

const std::string id_a = "6f1f2f43-2c5e-4c53-9f0e-000000000001";
const std::string id_b = "6f1f2f43-2c5e-4c53-9f0e-000000000002";
constexpr InstanceId source{0x11};
constexpr InstanceId destination{0x22};

TEST(OwnerRecord, transfer_moves_owner_and_epoch) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    const Ownership before = record.read();
    const Ownership after = GODWIT_MUST(record.transfer(before, destination));
    EXPECT_EQ(after, (Ownership{.owner = destination, .epoch = 2}));
    EXPECT_EQ(record.read(), after);
}

TEST(OwnerRecord, transfer_from_a_stale_view_is_refused_and_changes_nothing) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    const Ownership before = record.read();
    const Ownership after = GODWIT_MUST(record.transfer(before, destination));
    const auto revoked = record.transfer(before, source);
    ASSERT_FALSE(revoked.has_value());
    EXPECT_EQ(revoked.error().code(), ErrorCode::conflict);
    EXPECT_EQ(record.read(), after);
}

TEST(OwnerRecord, adopt_shares_the_word) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    auto other = GODWIT_MUST(OwnerRecord::adopt(GODWIT_MUST(record.fd().duplicate()), id_a));
    ASSERT_TRUE(other.transfer(other.read(), destination).has_value());
    EXPECT_EQ(record.read().owner, destination);
}

TEST(OwnerRecord, adopt_refuses_what_is_not_this_machines_record) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    EXPECT_FALSE(OwnerRecord::adopt(GODWIT_MUST(record.fd().duplicate()), id_b).has_value());
    EXPECT_FALSE(
        OwnerRecord::adopt(GODWIT_MUST(sys::create_memfd("x", page_size)), id_a).has_value());
    EXPECT_FALSE(OwnerRecord::adopt(GODWIT_MUST(sys::create_memfd("x", 0)), id_a).has_value());
}

// A claim and a revocation that race: exactly one wins, every time.
TEST(OwnerRecord, claim_against_revoke_has_one_winner) {
    for (int round = 0; round < 200; ++round) {
        auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
        const Ownership before = record.read();
        std::atomic<int> winners{0};
        {
            const std::jthread claim(
                [&] { winners += record.transfer(before, destination).has_value() ? 1 : 0; });
            winners += record.transfer(before, source).has_value() ? 1 : 0;
        }
        ASSERT_EQ(winners.load(), 1);
        ASSERT_EQ(record.read().epoch, 2U);
    }
}

TEST(InstanceId, text_round_trip_and_refusals) {
    EXPECT_EQ(GODWIT_MUST(parse_instance_id(to_string(InstanceId{0xa1b2c3}))).value, 0xa1b2c3U);
    for (const char* bad : {"", "0", "00000000", "xyzxyzxy", "123456789", "1234567 "}) {
        EXPECT_FALSE(parse_instance_id(bad).has_value()) << bad;
    }
}

} // namespace
} // namespace godwit::handover
