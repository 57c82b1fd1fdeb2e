#include "exchange/partition/new_instance.h"
#include "exchange/partition/old_instance.h"

#include <array>

namespace godwit::exchange::partition {
namespace {

using namespace std::chrono_literals;
using memory::Purpose;

constexpr InstanceId old_id{0x11};
constexpr InstanceId new_id{0x22};
constexpr std::uint64_t frames = 64;
constexpr std::uint64_t program_tag = 7;

class FakeClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override { return time; }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override { return 0; }
    sys::Moment time{1000s};
};

class FakeWitness final : public Witness {
  public:
    [[nodiscard]] Liveness liveness(sys::Moment) override { return state; }
    [[nodiscard]] Status fence() override {
        ++fences;
        state = Liveness::terminated;
        return ok();
    }
    Liveness state = Liveness::alive;
    int fences = 0;
};

memory::Pool make_pool() {
    return GODWIT_MUST(memory::Pool::create(frames * memory::pool_frame_bytes, {old_id.value}, 5));
}

Region make_region() {
    return GODWIT_MUST(
        Region::create({.old_instance = old_id, .new_instance = new_id, .pool_id = 5}));
}

/// Both instances in one thread, each with its own mapping of pool and region, as two processes
/// have them.
class PartitionTest : public ::testing::Test {
  protected:
    void SetUp() override {
        const auto own =
            GODWIT_MUST(pool_.allocate({old_id.value}, 2, Purpose::instance, old_id.value));
        write(own[0].run.first, "old instance's own");
        const auto memory =
            GODWIT_MUST(pool_.allocate({old_id.value}, 8, Purpose::program, program_tag));
        first_frame_ = memory[0].run.first;
        write(first_frame_, "program's data");
        ASSERT_TRUE(old_.partition({.frames = 10, .cpus = {1}, .host_cpus = {0, 1}}).has_value());
        ASSERT_TRUE(new_.hello().has_value());
        EXPECT_EQ(GODWIT_MUST(old_.mover().news()).at(0).type, MessageType::hello);
    }
    void write(std::uint64_t frame, std::string_view text) {
        GODWIT_MUST(sys::pwrite_all(pool_.memory_fd(),
                                    std::as_bytes(std::span(text)),
                                    frame * memory::pool_frame_bytes)); // In the pool.
    }
    std::string read(std::uint64_t frame, std::size_t bytes) {
        std::string text(bytes, '?');
        GODWIT_MUST(sys::pread_exact(pool_.memory_fd(),
                                     std::as_writable_bytes(std::span(text)),
                                     frame * memory::pool_frame_bytes)); // In the pool.
        return text;
    }
    std::size_t give() {
        return GODWIT_MUST(
            old_.mover().give({.name = "kv", .kind = ProgramKind::processes, .tag = program_tag}));
    }
    News next_offer(ProgramMover& mover) {
        for (const News& news : GODWIT_MUST(mover.news())) {
            if (news.type == MessageType::offer) {
                return news;
            }
        }
        ADD_FAILURE() << "no offer";
        return {};
    }
    Taken move_over() {
        give();
        const Taken taken = GODWIT_MUST(new_.mover().take(next_offer(new_.mover())));
        EXPECT_TRUE(new_.mover().running(taken).has_value());
        return taken;
    }
    void seal_estate() {
        ASSERT_TRUE(old_.drain().has_value());
        ASSERT_TRUE(old_.write_estate(3s).has_value());
        ASSERT_TRUE(old_.seal().has_value());
    }
    std::uint64_t frames_of(InstanceId id) {
        return memory::frames_of(GODWIT_MUST(pool_.table().snapshot()), {id.value});
    }
    void expect_everything_is(InstanceId owner) {
        EXPECT_EQ(frames_of(owner), frames);
        EXPECT_EQ(region_.cpus_of(owner), (std::vector<std::uint32_t>{0, 1}));
        const auto proven = pool_.table().prove(GODWIT_MUST(pool_.table().snapshot()));
        EXPECT_TRUE(proven.has_value()) << proven.error().to_string();
    }

    FakeClock clock_;
    FakeWitness witness_;
    memory::Pool pool_ = make_pool();
    Region region_ = make_region();
    memory::Pool new_pool_ =
        *memory::Pool::adopt(*pool_.memory_fd().duplicate(), *pool_.table().fd().duplicate());
    Region new_region_ = *Region::adopt(*region_.fd().duplicate());
    OldInstance old_ = *OldInstance::create(
        {.pool = pool_, .region = region_, .clock = clock_, .self = Side::old_instance});
    NewInstance new_ = *NewInstance::create(
        {.pool = new_pool_, .region = new_region_, .clock = clock_, .self = Side::new_instance},
        witness_,
        {});
    std::uint64_t first_frame_ = 0;
};

TEST_F(PartitionTest, division_gives_frames_and_cpus_and_keeps_the_sum) {
    EXPECT_EQ(frames_of(new_id), 10U);
    EXPECT_EQ(frames_of(old_id), frames - 10);
    EXPECT_EQ(region_.cpus_of(new_id), std::vector<std::uint32_t>{1});
}

TEST_F(PartitionTest, division_without_a_cpu_for_each_side_is_refused) {
    EXPECT_FALSE(old_.partition({.cpus = {}, .host_cpus = {0, 1}}).has_value());
    EXPECT_FALSE(old_.partition({.cpus = {0, 1}, .host_cpus = {0, 1}}).has_value());
    EXPECT_FALSE(old_.partition({.cpus = {2}, .host_cpus = {0, 1}}).has_value());
}

TEST_F(PartitionTest, freed_cpu_goes_over_and_is_announced) {
    ASSERT_TRUE(region_.add_cpu(2, old_id).has_value());
    ASSERT_TRUE(old_.mover().give_cpu(2).has_value());
    EXPECT_EQ(new_region_.cpus_of(new_id), (std::vector<std::uint32_t>{1, 2}));
    EXPECT_EQ(GODWIT_MUST(new_.mover().news()).back(),
              (News{.type = MessageType::cpu, .subject = 2, .value = 2}));
    EXPECT_FALSE(old_.mover().give_cpu(2).has_value()) << "it is not ours any more";
}

// A machine that was not to be had after all, by the record: word and extents go back, with bytes.
TEST_F(PartitionTest, claimer_gives_back_what_it_has_claimed_in_part_or_whole) {
    for (const bool whole : {false, true}) {
        const std::size_t slot = give();
        const News offer = next_offer(new_.mover());
        Taken taken = GODWIT_MUST(new_.mover().look(offer)); // It is a good offer.
        ASSERT_TRUE(new_.mover().claim_word(offer).has_value());
        EXPECT_FALSE(old_.mover().take_back(slot).has_value());
        if (whole) {
            ASSERT_TRUE(new_.mover().claim_extents(taken).has_value());
        }
        ASSERT_TRUE(new_.mover().give_back(taken).has_value());
        EXPECT_EQ(old_.mover().fate_of(slot), Fate::ours);
        EXPECT_EQ(frames_of(old_id), frames - 10);
        ASSERT_TRUE(old_.mover().take_back_claimed(slot).has_value());
    }
    EXPECT_EQ(read(first_frame_, 14), "program's data");
    EXPECT_TRUE(pool_.table().prove(GODWIT_MUST(pool_.table().snapshot())).has_value());
}

TEST_F(PartitionTest, giver_takes_back_what_a_dead_claimer_has_begun_to_claim) {
    const std::size_t slot = give();
    const News offer = next_offer(new_.mover());
    Taken taken = GODWIT_MUST(new_.mover().look(offer)); // It is a good offer.
    ASSERT_TRUE(new_.mover().claim_word(offer).has_value());
    ASSERT_TRUE(new_.mover().claim_extents(taken).has_value());
    ASSERT_TRUE(old_.mover().take_back_claimed(slot).has_value());
    EXPECT_EQ(old_.mover().fate_of(slot), Fate::ours);
    EXPECT_EQ(frames_of(old_id), frames - 10);
    EXPECT_TRUE(old_.mover()
                    .give({.name = "kv", .kind = ProgramKind::processes, .tag = program_tag})
                    .has_value());
}

// The giver dies while the program goes over: its heir and the process that claims are one
// instance.
TEST_F(PartitionTest, extents_the_instance_has_just_inherited_count_as_claimed) {
    give();
    Taken taken = GODWIT_MUST(new_.mover().look(next_offer(new_.mover()))); // It is a good offer.
    Legacy legacy;
    ASSERT_TRUE(claim_memory(new_pool_, {old_id.value}, {new_id.value}, legacy).has_value());
    ASSERT_TRUE(new_.mover().claim_extents(taken).has_value());
    EXPECT_EQ(taken.program.memory[0].owner, memory::PoolOwner{new_id.value});
}

TEST_F(PartitionTest, offer_that_was_taken_back_cannot_be_claimed) {
    const std::size_t slot = give();
    const News offer = next_offer(new_.mover());
    ASSERT_TRUE(old_.mover().take_back(slot).has_value());
    EXPECT_FALSE(new_.mover().claim_word(offer).has_value());
}

// MP-8: nobody is left to accept what is sealed.
TEST_F(PartitionTest, sealed_estate_without_an_heir_is_taken_back) {
    move_over();
    seal_estate();
    EXPECT_FALSE(old_.reclaim().has_value());
    old_.heir_ended();
    EXPECT_FALSE(GODWIT_MUST(region_.read_estate()).has_value());
    ASSERT_TRUE(old_.reclaim().has_value());
    expect_everything_is(old_id);
}

TEST_F(PartitionTest, program_goes_over_in_the_same_frames_with_its_bytes) {
    const Taken taken = move_over();
    EXPECT_EQ(taken.program.memory[0].run, (memory::FrameRun{.first = first_frame_, .frames = 8}));
    EXPECT_EQ(taken.program.memory[0].owner, memory::PoolOwner{new_id.value});
    EXPECT_EQ(old_.mover().fate_of(taken.slot), Fate::given);
    EXPECT_EQ(read(first_frame_, 14), "program's data");
    EXPECT_EQ(GODWIT_MUST(old_.mover().news()).at(0).type, MessageType::running);
}

TEST_F(PartitionTest, offer_taken_back_cannot_be_claimed) {
    const std::size_t slot = give();
    EXPECT_EQ(old_.mover().fate_of(slot), Fate::offered);
    ASSERT_TRUE(old_.mover().take_back(slot).has_value());
    EXPECT_EQ(old_.mover().fate_of(slot), Fate::ours);
    EXPECT_FALSE(new_.mover().take(next_offer(new_.mover())).has_value());
    EXPECT_FALSE(new_.mover().is_ours(slot));
    EXPECT_EQ(frames_of(new_id), 10U);
}

TEST_F(PartitionTest, offer_claimed_cannot_be_taken_back) {
    const Taken taken = move_over();
    EXPECT_EQ(old_.mover().take_back(taken.slot).error().code(), ErrorCode::conflict);
}

// MP-7: the offer names frames that are another's, or that changed since.
TEST_F(PartitionTest, offer_with_foreign_or_stale_extents_is_refused_untouched) {
    give();
    const auto all = GODWIT_MUST(pool_.table().snapshot());
    const auto mine = memory::extents_of(all, {old_id.value}, Purpose::program, program_tag);
    ASSERT_TRUE(pool_.table().relabel(mine[0], mine[0].label).has_value());
    const auto before = GODWIT_MUST(pool_.table().snapshot());
    EXPECT_EQ(new_.mover().take(next_offer(new_.mover())).error().code(), ErrorCode::corrupt);
    EXPECT_EQ(GODWIT_MUST(pool_.table().snapshot()), before);
    EXPECT_FALSE(new_.mover().is_ours(0));
}

TEST_F(PartitionTest, state_goes_along_and_its_frames_are_free_and_zero_afterwards) {
    const auto state = GODWIT_MUST(pool_.allocate({old_id.value}, 1, Purpose::state, program_tag));
    write(state[0].run.first, "registers");
    ASSERT_TRUE(old_.mover()
                    .give({.name = "kv",
                           .kind = ProgramKind::processes,
                           .tag = program_tag,
                           .state_bytes = 9})
                    .has_value());
    const Taken taken = GODWIT_MUST(new_.mover().take(next_offer(new_.mover())));
    EXPECT_EQ(read(taken.program.state[0].run.first, taken.program.state_bytes), "registers");
    ASSERT_TRUE(new_.mover().running(taken).has_value());
    EXPECT_EQ(read(taken.program.state[0].run.first, 9), std::string(9, '\0'));
    EXPECT_EQ(frames_of(new_id), 10U + 8U + 1U);
}

TEST_F(PartitionTest, saved_state_larger_than_its_frames_is_refused) {
    ASSERT_TRUE(old_.mover()
                    .give({.name = "kv",
                           .kind = ProgramKind::processes,
                           .tag = program_tag,
                           .state_bytes = 1})
                    .has_value());
    EXPECT_FALSE(new_.mover().take(next_offer(new_.mover())).has_value());
}

// MP-8: a program that has moved comes back by the same way, its bytes as they are.
TEST_F(PartitionTest, abort_brings_everything_back) {
    move_over();
    ASSERT_TRUE(old_.drain().has_value());
    ASSERT_TRUE(old_.abort().has_value());
    EXPECT_EQ(old_.stage(), OldStage::serving);
    EXPECT_EQ(GODWIT_MUST(new_.mover().news()).back().type, MessageType::goodbye);
    ASSERT_TRUE(new_.mover()
                    .give({.name = "kv", .kind = ProgramKind::processes, .tag = program_tag})
                    .has_value());
    const Taken back = GODWIT_MUST(old_.mover().take(next_offer(old_.mover())));
    EXPECT_EQ(back.program.memory[0].run.first, first_frame_);
    EXPECT_EQ(read(first_frame_, 14), "program's data");
    GODWIT_MUST(old_.reclaim()); // The new instance has ended; nothing is sealed.
    expect_everything_is(old_id);
}

TEST_F(PartitionTest, estate_is_claimed_after_deadline_and_end_and_is_scrubbed) {
    move_over();
    seal_estate();
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::armed);
    witness_.state = Liveness::terminated;
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::armed) << "ended early: the timer runs";
    EXPECT_EQ(frames_of(old_id), frames - 10 - 8);
    clock_.time += 3s;
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::done);
    expect_everything_is(new_id);
    EXPECT_TRUE(new_.legacy().programs.empty());
    EXPECT_EQ(new_.legacy().cpus, std::vector<std::uint32_t>{0});
    EXPECT_EQ(read(frames - 2, 18), std::string(18, '\0')) << "the old one's own memory";
    EXPECT_EQ(read(first_frame_, 14), "program's data");
}

TEST_F(PartitionTest, old_instance_alive_after_its_deadline_is_fenced_and_then_claimed) {
    move_over();
    seal_estate();
    clock_.time += 3s;
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::expired);
    EXPECT_EQ(witness_.fences, 0);
    EXPECT_EQ(frames_of(new_id), 18U);
    clock_.time += EstateLimits{}.grace;
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::fencing);
    EXPECT_EQ(witness_.fences, 1);
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::done);
    expect_everything_is(new_id);
}

TEST_F(PartitionTest, old_instance_that_died_with_a_program_leaves_it_untouched) {
    witness_.state = Liveness::terminated;
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::done);
    expect_everything_is(new_id);
    ASSERT_EQ(new_.legacy().programs.size(), 1U);
    EXPECT_EQ(new_.legacy().programs[0].tag, program_tag);
    EXPECT_EQ(new_.legacy().programs[0].memory[0].run.first, first_frame_);
    EXPECT_EQ(read(first_frame_, 14), "program's data");
}

TEST_F(PartitionTest, new_instance_that_died_after_its_claims_is_reclaimed_by_epoch) {
    const Taken taken = move_over();
    const Legacy legacy = GODWIT_MUST(old_.reclaim());
    ASSERT_EQ(legacy.programs.size(), 1U);
    EXPECT_EQ(legacy.programs[0].memory[0].run.first, first_frame_);
    EXPECT_EQ(old_.mover().fate_of(taken.slot), Fate::ours);
    expect_everything_is(old_id);
}

TEST_F(PartitionTest, estate_with_programs_left_or_two_cpus_is_not_written) {
    ASSERT_TRUE(old_.drain().has_value());
    EXPECT_EQ(old_.write_estate(3s).error().code(), ErrorCode::busy);
    EXPECT_EQ(old_.stage(), OldStage::draining);
    EXPECT_EQ(old_.mover().give_cpu(0).error().code(), ErrorCode::conflict) << "the last";
}

TEST_F(PartitionTest, deadline_in_the_past_is_refused_and_a_better_one_accepted) {
    move_over();
    ASSERT_TRUE(old_.drain().has_value());
    ASSERT_TRUE(old_.write_estate(-1s).has_value());
    ASSERT_TRUE(old_.seal().has_value());
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::waiting);
    const News refusal = GODWIT_MUST(old_.mover().news()).back();
    ASSERT_EQ(refusal.type, MessageType::estate_refused);
    ASSERT_TRUE(old_.estate_refused(refusal.value).has_value());
    ASSERT_TRUE(old_.write_estate(3s).has_value());
    ASSERT_TRUE(old_.seal().has_value());
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::armed);
}

TEST_F(PartitionTest, estate_that_names_the_heirs_own_memory_is_refused) {
    move_over();
    ASSERT_TRUE(old_.drain().has_value());
    ASSERT_TRUE(old_.write_estate(3s).has_value());
    Estate lie{.generation = 1, .written_at = clock_.time, .deadline = clock_.time + 3s};
    lie.extents = memory::extents_of(
        GODWIT_MUST(pool_.table().snapshot()), {new_id.value}, Purpose::program, program_tag);
    ASSERT_TRUE(region_.write_estate(lie).has_value());
    ASSERT_TRUE(old_.seal().has_value());
    EXPECT_EQ(GODWIT_MUST(new_.settle_estate()), NewStage::waiting);
    EXPECT_EQ(GODWIT_MUST(old_.mover().news()).back().type, MessageType::estate_refused);
}

TEST_F(PartitionTest, after_the_seal_nothing_comes_back) {
    move_over();
    seal_estate();
    EXPECT_FALSE(old_.abort().has_value());
    EXPECT_FALSE(old_.reclaim().has_value());
}

/// Changes of the table that the move of one program of `program_frames` costs.
std::size_t changes_of_a_move(std::uint64_t program_frames) {
    auto pool = GODWIT_MUST(
        memory::Pool::create((program_frames + 1) * memory::pool_frame_bytes, {old_id.value}, 5));
    Region region = make_region();
    FakeClock clock;
    const auto mover = [&](Side side) {
        return GODWIT_MUST(
            ProgramMover::create({.pool = pool, .region = region, .clock = clock, .self = side}));
    };
    ProgramMover giver = mover(Side::old_instance);
    ProgramMover taker = mover(Side::new_instance);
    GODWIT_MUST(pool.table().register_owner({new_id.value})); // The second of 255.
    GODWIT_MUST(pool.allocate({old_id.value}, program_frames, Purpose::machine, program_tag));
    const std::size_t before = pool.table().claim_log().changes.size();
    GODWIT_MUST(giver.give({.name = "web1", .tag = program_tag}));
    GODWIT_MUST(taker.take(GODWIT_MUST(taker.news())[0])); // As in every test above.
    return pool.table().claim_log().changes.size() - before;
}

// MP-2: the cost of a move is counted in extents, whatever their size.
TEST(PartitionParts, move_of_256_gib_costs_what_one_of_32_mib_costs) {
    EXPECT_EQ(changes_of_a_move(16), 1U);
    EXPECT_EQ(changes_of_a_move(128 * 1024), 1U);
}

TEST(PartitionParts, region_of_another_pool_is_refused) {
    memory::Pool pool = make_pool();
    Region region =
        GODWIT_MUST(Region::create({.old_instance = old_id, .new_instance = new_id, .pool_id = 6}));
    EXPECT_FALSE(ProgramMover::create({.pool = pool,
                                       .region = region,
                                       .clock = sys::system_clock(),
                                       .self = Side::new_instance})
                     .has_value());
}

} // namespace
} // namespace godwit::exchange::partition
