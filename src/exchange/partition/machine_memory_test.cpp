#include "exchange/partition/machine_memory.h"
#include "exchange/partition/old_instance.h"

namespace godwit::exchange::partition {
namespace {

constexpr InstanceId old_id{0x11};
constexpr InstanceId new_id{0x22};
constexpr std::uint64_t tag = 9;

/// A machine of 32 MiB on offer, as its successor's process sees it.
class MachineMemoryTest : public ::testing::Test {
  protected:
    void SetUp() override {
        const auto memory = GODWIT_MUST(
            pool_.allocate({old_id.value}, 16, memory::Purpose::machine, tag)); // There is room.
        spec_.name = "web1";
        spec_.memory = {
            .bytes = 32 * mib, .kind = memory::RamKind::pool, .runs = memory::ram_runs(memory)};
        ASSERT_TRUE(old_.partition({.frames = 4, .cpus = {1}, .host_cpus = {0, 1}}).has_value());
        slot_ = GODWIT_MUST(old_.mover().give({.name = "web1", .tag = tag})); // It is there.
    }
    std::unique_ptr<MachineMemory> offered() {
        return GODWIT_MUST(
            MachineMemory::create({.pool_memory = GODWIT_MUST(pool_.memory_fd().duplicate()),
                                   .pool_table = GODWIT_MUST(pool_.table().fd().duplicate()),
                                   .region = GODWIT_MUST(region_.fd().duplicate()),
                                   .slot = static_cast<std::uint32_t>(slot_),
                                   .epoch = region_.program_owner(slot_)->epoch},
                                  sys::system_clock())); // They belong together.
    }
    std::uint64_t frames_of(InstanceId id) {
        return memory::frames_of(GODWIT_MUST(pool_.table().snapshot()), {id.value});
    }

    memory::Pool pool_ = *memory::Pool::create(32 * memory::pool_frame_bytes, {old_id.value}, 5);
    Region region_ =
        *Region::create({.old_instance = old_id, .new_instance = new_id, .pool_id = 5});
    OldInstance old_ = *OldInstance::create({.pool = pool_,
                                             .region = region_,
                                             .clock = sys::system_clock(),
                                             .self = Side::old_instance});
    machine::MachineSpec spec_;
    std::size_t slot_ = 0;
};

TEST_F(MachineMemoryTest, goes_over_in_two_steps_and_back) {
    const auto memory = offered();
    ASSERT_TRUE(memory->check(spec_).has_value());
    ASSERT_TRUE(memory->claim().has_value());
    EXPECT_EQ(frames_of(new_id), 4U);
    ASSERT_TRUE(memory->take().has_value());
    EXPECT_EQ(frames_of(new_id), 20U);
    memory->give_back();
    EXPECT_EQ(frames_of(new_id), 4U);
    EXPECT_EQ(old_.mover().fate_of(slot_), Fate::ours);
}

// MP-7: extents that are not the machine's memory are refused before anything is claimed.
TEST_F(MachineMemoryTest, of_another_machine_or_place_is_refused) {
    const auto memory = offered();
    machine::MachineSpec other = spec_;
    other.name = "web2";
    EXPECT_FALSE(memory->check(other).has_value());
    other = spec_;
    other.memory.runs.front().offset += memory::pool_frame_bytes;
    EXPECT_FALSE(memory->check(other).has_value());
    other = spec_;
    other.memory = {.bytes = 32 * mib};
    EXPECT_FALSE(memory->check(other).has_value());
    EXPECT_FALSE(memory->claim().has_value()) << "what was not checked is not claimed";
    memory->give_back();
    EXPECT_EQ(frames_of(new_id), 4U);
    EXPECT_EQ(old_.mover().fate_of(slot_), Fate::offered);
}

TEST_F(MachineMemoryTest, that_the_giver_has_taken_back_is_not_to_be_had) {
    const auto memory = offered();
    ASSERT_TRUE(memory->check(spec_).has_value());
    ASSERT_TRUE(old_.mover().take_back(slot_).has_value());
    EXPECT_FALSE(memory->claim().has_value());
    memory->give_back();
    EXPECT_EQ(old_.mover().fate_of(slot_), Fate::ours);
}

} // namespace
} // namespace godwit::exchange::partition
