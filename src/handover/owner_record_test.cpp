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

TEST(OwnerRecord, claim_is_reversible_until_it_is_confirmed) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    const Ownership claimed = GODWIT_MUST(record.claim(record.read(), destination));
    EXPECT_EQ(claimed, (Ownership{.owner = destination, .epoch = 2, .tenure = Tenure::claimed}));
    EXPECT_EQ(record.read(), claimed);
    const Ownership back = GODWIT_MUST(record.transfer(claimed, source));
    EXPECT_EQ(back, (Ownership{.owner = source, .epoch = 3}));
    EXPECT_FALSE(record.confirm(claimed).has_value());
    EXPECT_EQ(record.read(), back);
}

TEST(OwnerRecord, confirmed_claim_cannot_be_reversed) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    const Ownership claimed = GODWIT_MUST(record.claim(record.read(), destination));
    const Ownership confirmed = GODWIT_MUST(record.confirm(claimed));
    EXPECT_EQ(confirmed, (Ownership{.owner = destination, .epoch = 2}));
    EXPECT_FALSE(record.transfer(claimed, source).has_value());
    EXPECT_FALSE(record.confirm(claimed).has_value());
    EXPECT_EQ(record.read(), confirmed);
}

// Whoever takes an offer back, the owner or the host's daemon: the claim that comes late fails.
TEST(OwnerRecord, claim_after_the_offer_was_taken_back_fails) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    const Ownership offered = record.read();
    ASSERT_TRUE(record.transfer(offered, source).has_value());
    const auto late = record.claim(offered, destination);
    ASSERT_FALSE(late.has_value());
    EXPECT_EQ(late.error().code(), ErrorCode::conflict);
    EXPECT_EQ(record.read(), (Ownership{.owner = source, .epoch = 2}));
}

TEST(OwnerRecord, epochs_end_without_touching_the_claim) {
    auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
    const Ownership last{.owner = source, .epoch = (1U << 31U) - 1};
    const auto beyond = record.claim(last, destination);
    ASSERT_FALSE(beyond.has_value());
    EXPECT_EQ(beyond.error().code(), ErrorCode::resource_exhausted);
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

// A confirmation and a recovery that race: exactly one wins, every time.
TEST(OwnerRecord, confirm_against_recovery_has_one_winner) {
    for (int round = 0; round < 200; ++round) {
        auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
        const Ownership claimed = GODWIT_MUST(record.claim(record.read(), destination));
        std::atomic<int> winners{0};
        {
            const std::jthread confirm(
                [&] { winners += record.confirm(claimed).has_value() ? 1 : 0; });
            winners += record.transfer(claimed, source).has_value() ? 1 : 0;
        }
        ASSERT_EQ(winners.load(), 1);
        ASSERT_EQ(record.read().tenure, Tenure::running);
    }
}

// A claim and a revocation that race: exactly one wins, every time.
TEST(OwnerRecord, claim_against_revoke_has_one_winner) {
    for (int round = 0; round < 200; ++round) {
        auto record = GODWIT_MUST(OwnerRecord::create(id_a, source));
        const Ownership before = record.read();
        std::atomic<int> winners{0};
        {
            const std::jthread claim(
                [&] { winners += record.claim(before, destination).has_value() ? 1 : 0; });
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
