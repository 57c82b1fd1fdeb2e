#include "memory/pool/extent_check.h"
#include "memory/pool/extent_table.h"
#include "memory/pool/table_layout.h"

#include <sys/wait.h>

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <thread>

namespace godwit::memory {
namespace {

constexpr PoolOwner old_one{0x11};
constexpr PoolOwner new_one{0x22};
constexpr Label program{.purpose = Purpose::program, .tag = 7};

ExtentTable make_table(std::uint64_t frames = 64) {
    return GODWIT_MUST(
        ExtentTable::create({.frames = frames, .pool_id = 1, .log_records = 1U << 18U}, old_one));
}

ExtentTable adopt(const ExtentTable& table) {
    return GODWIT_MUST(ExtentTable::adopt(GODWIT_MUST(table.fd().duplicate())));
}

TEST(ExtentTable, new_table_is_one_free_extent_of_its_first_owner) {
    const auto all = GODWIT_MUST(make_table().snapshot());
    ASSERT_EQ(all.size(), 1U);
    EXPECT_EQ(all[0], (Extent{.run = {.first = 0, .frames = 64}, .owner = old_one, .epoch = 1}));
}

TEST(ExtentTable, split_gives_two_parts_that_are_the_whole) {
    auto table = make_table();
    const auto parts = GODWIT_MUST(table.split(GODWIT_MUST(table.snapshot())[0], 10, program));
    EXPECT_EQ(parts.second.run, (FrameRun{.first = 54, .frames = 10}));
    EXPECT_EQ(GODWIT_MUST(table.snapshot()), (std::vector{parts.first, parts.second}));
}

TEST(ExtentTable, merge_undoes_a_split_in_a_later_epoch) {
    auto table = make_table();
    const auto parts = GODWIT_MUST(table.split(GODWIT_MUST(table.snapshot())[0], 10, {}));
    const auto joined = GODWIT_MUST(table.merge(parts.first, parts.second));
    EXPECT_EQ(joined.run, (FrameRun{.first = 0, .frames = 64}));
    EXPECT_GT(joined.epoch, parts.second.epoch);
    EXPECT_EQ(GODWIT_MUST(table.snapshot()), std::vector{joined});
}

TEST(ExtentTable, claim_moves_an_extent_to_an_owner_seen_by_the_other_mapping) {
    auto table = make_table();
    auto other = adopt(table);
    ASSERT_TRUE(other.register_owner(new_one).has_value());
    const auto tail =
        GODWIT_MUST(table.split(GODWIT_MUST(table.snapshot())[0], 10, program)).second;
    const auto claimed = GODWIT_MUST(other.claim(tail, new_one));
    EXPECT_EQ(claimed.owner, new_one);
    EXPECT_EQ(GODWIT_MUST(table.snapshot())[1], claimed);
}

TEST(ExtentTable, claim_from_a_stale_view_is_refused_and_changes_nothing) {
    auto table = make_table();
    ASSERT_TRUE(table.register_owner(new_one).has_value());
    const Extent seen = GODWIT_MUST(table.snapshot())[0];
    const Extent relabelled = GODWIT_MUST(table.relabel(seen, program));
    const auto claim = table.claim(seen, new_one);
    ASSERT_FALSE(claim.has_value());
    EXPECT_EQ(claim.error().code(), ErrorCode::conflict);
    EXPECT_EQ(GODWIT_MUST(table.snapshot())[0], relabelled);
}

TEST(ExtentTable, an_extent_that_was_merged_away_cannot_be_claimed) {
    auto table = make_table();
    ASSERT_TRUE(table.register_owner(new_one).has_value());
    const auto parts = GODWIT_MUST(table.split(GODWIT_MUST(table.snapshot())[0], 10, {}));
    ASSERT_TRUE(table.merge(parts.first, parts.second).has_value());
    EXPECT_FALSE(table.claim(parts.second, new_one).has_value());
}

TEST(ExtentTable, claim_for_or_from_an_unknown_instance_is_refused) {
    auto table = make_table();
    Extent all = GODWIT_MUST(table.snapshot())[0];
    EXPECT_EQ(table.claim(all, PoolOwner{99}).error().code(), ErrorCode::not_found);
    all.owner = {98};
    EXPECT_EQ(table.claim(all, old_one).error().code(), ErrorCode::not_found);
}

TEST(ExtentTable, frames_out_of_the_pool_are_refused_by_every_change) {
    auto table = make_table();
    Extent wild = GODWIT_MUST(table.snapshot())[0];
    wild.run = {.first = ~0ULL, .frames = 2};
    EXPECT_FALSE(table.claim(wild, old_one).has_value());
    EXPECT_FALSE(table.relabel(wild, program).has_value());
    EXPECT_FALSE(table.split(wild, 1, program).has_value());
    EXPECT_FALSE(table.check_current(wild).has_value());
}

TEST(ExtentTable, an_instance_that_owns_memory_cannot_be_forgotten) {
    auto table = make_table();
    ASSERT_TRUE(table.register_owner(new_one).has_value());
    EXPECT_EQ(table.unregister_owner(old_one).error().code(), ErrorCode::conflict);
    EXPECT_TRUE(table.unregister_owner(new_one).has_value());
    EXPECT_TRUE(table.unregister_owner(new_one).has_value()) << "again";
    EXPECT_FALSE(table.claim(GODWIT_MUST(table.snapshot())[0], new_one).has_value());
}

TEST(ExtentTable, adopt_refuses_what_is_no_sealed_table) {
    auto table = make_table();
    EXPECT_FALSE(ExtentTable::adopt(GODWIT_MUST(sys::create_memfd("x", 0))).has_value());
    EXPECT_FALSE(ExtentTable::adopt(GODWIT_MUST(sys::create_memfd("x", 1 * mib))).has_value());
    const std::uint64_t frames = 1;
    ASSERT_TRUE(sys::pwrite_all(table.fd(),
                                std::as_bytes(std::span(&frames, 1)),
                                offsetof(table::Header, frames))
                    .has_value());
    EXPECT_FALSE(ExtentTable::adopt(GODWIT_MUST(table.fd().duplicate())).has_value());
}

// MP-7: whatever another instance writes over the entries, a snapshot is refused or good.
TEST(ExtentTable, overwritten_entries_are_refused_without_a_fault) {
    auto table = make_table(8);
    ASSERT_TRUE(table.split(GODWIT_MUST(table.snapshot())[0], 4, program).has_value());
    const std::array<std::uint64_t, 5> words{
        0,                                                   // no owner, no length
        ~0ULL,                                               // out of the pool
        table::pack({.slot = 1, .epoch = 9, .frames = 0}),   // a chain that never ends
        table::pack({.slot = 200, .epoch = 9, .frames = 8}), // an unknown owner
        table::pack({.slot = 1, .epoch = 9, .frames = 9}),   // leaves the pool
    };
    for (const std::uint64_t word : words) {
        ASSERT_TRUE(
            sys::pwrite_all(table.fd(), std::as_bytes(std::span(&word, 1)), table::entries_offset)
                .has_value());
        const auto snapshot = table.snapshot();
        ASSERT_FALSE(snapshot.has_value());
        EXPECT_EQ(snapshot.error().code(), ErrorCode::corrupt);
    }
}

TEST(ExtentTable, claim_against_taking_back_has_one_winner) {
    auto table = make_table();
    ASSERT_TRUE(table.register_owner(new_one).has_value());
    Extent now = GODWIT_MUST(table.snapshot())[0];
    for (int round = 0; round < 200; ++round) {
        std::atomic<int> winners{0};
        {
            const std::jthread claim(
                [&] { winners += table.claim(now, new_one).has_value() ? 1 : 0; });
            winners += table.claim(now, old_one).has_value() ? 1 : 0;
        }
        ASSERT_EQ(winners.load(), 1);
        now = GODWIT_MUST(table.snapshot())[0];
        now = GODWIT_MUST(table.claim(now, old_one));
    }
}

/// What one instance does to the table in the sampling test: takes, gives back, hands over.
class Churn {
  public:
    Churn(ExtentTable& table, PoolOwner self, PoolOwner other, std::uint64_t seed)
        : table_(table), self_(self), other_(other), seed_(seed) {}

    void run(int rounds) {
        for (int i = 0; i < rounds; ++i) {
            step();
        }
    }
    [[nodiscard]] std::uint64_t done() const { return done_; }

  private:
    std::uint64_t draw(std::uint64_t below) {
        seed_ = seed_ * 6364136223846793005ULL + 1442695040888963407ULL;
        return (seed_ >> 33U) % below;
    }
    template <typename T>
    void count(const Result<T>& result) {
        done_ += result.has_value() ? 1U : 0U; // A lost race is part of the test.
    }
    void step() {
        const auto all = table_.snapshot();
        if (!all.has_value()) {
            return;
        }
        const std::size_t i = draw(all->size());
        const Extent& extent = (*all)[i];
        if (extent.owner != self_) {
            return;
        }
        const std::uint64_t dice = draw(16);
        if (dice < 5) {
            if (extent.run.frames > 1) {
                count(table_.split(extent, 1 + draw(extent.run.frames - 1), extent.label));
            }
        } else if (dice < 10) {
            if (i + 1 < all->size()) {
                count(table_.merge(extent, (*all)[i + 1]));
            }
        } else if (dice < 11) {
            count(table_.claim(extent, other_));
        } else {
            count(
                table_.relabel(extent, extent.label.purpose == Purpose::free ? program : Label{}));
        }
    }

    ExtentTable& table_;
    PoolOwner self_;
    PoolOwner other_;
    std::uint64_t seed_;
    std::uint64_t done_ = 0;
};

// MP-3: two instances split, merge, label and hand over at full speed; a thread samples the
// invariant, and the log proves it again afterwards.
TEST(ExtentTable, every_sample_has_one_owner_per_frame_and_the_log_proves_it) {
    auto table = make_table(256);
    auto other = adopt(table);
    ASSERT_TRUE(table.register_owner(new_one).has_value());
    Churn first(table, old_one, new_one, 1);
    Churn second(other, new_one, old_one, 2);
    std::atomic<bool> stop{false};
    std::atomic<int> samples{0};
    std::atomic<int> broken{0};
    {
        const std::jthread sampler([&] {
            while (!stop.load()) {
                const auto seen = table.snapshot();
                if (seen.has_value()) {
                    broken += check_partition(*seen, 256).has_value() ? 0 : 1;
                    ++samples;
                } else {
                    broken += seen.error().code() == ErrorCode::busy ? 0 : 1;
                }
            }
        });
        // On a busy host one may be through, with nothing left of its own, before the other begins.
        for (int round = 0; round < 100 && first.done() + second.done() <= 100; ++round) {
            const std::jthread peer([&] { second.run(2000); });
            first.run(2000);
        }
        stop = true;
    }
    EXPECT_GT(first.done() + second.done(), 100U);
    EXPECT_GT(samples.load(), 0);
    EXPECT_EQ(broken.load(), 0);
    const auto end = GODWIT_MUST(table.snapshot());
    const auto proven = table.prove(end);
    ASSERT_TRUE(proven.has_value()) << proven.error().to_string();
    EXPECT_GE(*proven, first.done() + second.done());
}

// X-6, MP-3: an instance that is killed anywhere in a change leaves a table that is whole, and a
// log that explains it.
TEST(ExtentTable, a_process_killed_while_it_changes_the_table_leaves_a_whole_one) {
    for (std::uint64_t round = 0; round < 25; ++round) {
        auto table = make_table(64);
        ASSERT_TRUE(table.register_owner(new_one).has_value());
        const pid_t child = ::fork();
        if (child == 0) {
            for (;;) {
                Churn(table, old_one, new_one, round).run(50);
                Churn(table, new_one, old_one, round).run(50);
            }
        }
        while (table.claim_log().changes.size() < 20 + round * 7) {
        }
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        const auto left = table.snapshot();
        ASSERT_TRUE(left.has_value()) << left.error().to_string();
        ASSERT_TRUE(check_partition(*left, 64).has_value());
        const auto proven = table.prove(*left);
        ASSERT_TRUE(proven.has_value()) << proven.error().to_string();
    }
}

TEST(ExtentTable, a_log_that_is_full_proves_nothing_and_says_so) {
    auto table =
        GODWIT_MUST(ExtentTable::create({.frames = 4, .pool_id = 1, .log_records = 1}, old_one));
    const Extent one = GODWIT_MUST(table.relabel(GODWIT_MUST(table.snapshot())[0], program));
    ASSERT_TRUE(table.relabel(one, {}).has_value());
    EXPECT_EQ(table.prove(GODWIT_MUST(table.snapshot())).error().code(),
              ErrorCode::resource_exhausted);
}

} // namespace
} // namespace godwit::memory
