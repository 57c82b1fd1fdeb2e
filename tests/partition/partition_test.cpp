// A partitioned exchange between two real instances, with groups of processes for programs
// (requirement MP-9): each group has a writer and an auditor over its data in the pool. The judge
// samples the ownership table all the time and checks everything in the end.

#include "base/fault_point.h"
#include "exchange/partition/cpu_partition.h"
#include "exchange/partition/inherit.h"
#include "memory/pool/pool.h"
#include "program_memory.h"
#include "shared_report.h"
#include "sys/process.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace godwit::partition_test {
namespace {

using namespace std::chrono_literals;
namespace partition = exchange::partition;
using memory::PoolOwner;
using memory::Purpose;

constexpr std::uint32_t judge_id = 0x33;
constexpr auto patience = 60s;

struct Pipe {
    sys::Fd read;
    sys::Fd write;
};

Pipe make_pipe() {
    int raw[2] = {-1, -1};
    EXPECT_EQ(::pipe2(raw, O_CLOEXEC), 0);
    return {sys::Fd(raw[0]), sys::Fd(raw[1])};
}

memory::Pool make_pool() {
    return GODWIT_MUST(memory::Pool::create(pool_frames * memory::pool_frame_bytes, {old_id}, 77));
}

partition::Region make_region() {
    return GODWIT_MUST(partition::Region::create(
        {.old_instance = {old_id}, .new_instance = {new_id}, .pool_id = 77}));
}

class PartitionSystemTest : public ::testing::Test {
  protected:
    void SetUp() override {
        if (GODWIT_MUST(partition::allowed_cpus(::getpid())).size() < 2) {
            GTEST_SKIP() << "a computer with one CPU cannot be divided";
        }
        fault_point("none"); // Reads the environment now: faults are for the instances, not for us.
    }
    void TearDown() override {
        ::unsetenv("GODWIT_FAULT");
        ::unsetenv("GODWIT_TEST_LINGER");
        for (const std::string& name : cpu_partitions_) {
            // A process leaves its cgroup a moment after its descriptors are closed.
            const std::string folder = partition::CpuRoots{}.cpuset_v1 + "/" + name;
            for (int i = 0; i < 2000 && ::access(folder.c_str(), F_OK) == 0; ++i) {
                partition::CpuPartition::remove_left(name);
                ::poll(nullptr, 0, 1);
            }
            partition::CpuPartition::remove_left(name);
        }
    }

    /// Starts the old instance, which does the rest; returns when somebody serves alone or all have
    /// ended.
    void run() {
        Pipe everyone = make_pipe();
        Pipe line = make_pipe();
        const sys::EventFd old_bell = GODWIT_MUST(sys::EventFd::create());
        const sys::EventFd new_bell = GODWIT_MUST(sys::EventFd::create());
        old_.emplace(
            GODWIT_MUST(sys::Process::spawn({.program = GODWIT_BIN "/partition_old",
                                             .arguments = {"old", GODWIT_BIN "/partition_new"},
                                             .fds = {{&pool_.memory_fd(), memory_number},
                                                     {&pool_.table().fd(), table_number},
                                                     {&region_.fd(), region_number},
                                                     {&report_fd_, report_number},
                                                     {&everyone.write, everyone_number},
                                                     {&line.write, own_line_number},
                                                     {&line.read, peer_line_number},
                                                     {&old_bell.fd(), old_bell_number},
                                                     {&new_bell.fd(), new_bell_number}}})));
        everyone.write.reset();
        line.write.reset();
        cpu_partitions_.push_back("godwit-test-old-" + std::to_string(old_->pid()));
        everyone_ = std::move(everyone.read);
        EXPECT_TRUE(sample_until([&] { return report().survivor != 0; })) << "nobody serves";
        survivor_ = report().survivor;
        report().stop = 1;
        EXPECT_TRUE(sample_until([] { return false; })) << "somebody does not end";
        cpu_partitions_.push_back("godwit-test-new-" + std::to_string(report().new_pid.load()));
        EXPECT_EQ(report().errors.load(), 0U) << "a program's oracle";
        EXPECT_GT(samples_, 0U);
    }

    /// Checks the table's invariant until `is_done`, or until every process has ended (MP-3).
    template <typename Done>
    bool sample_until(Done is_done) {
        const sys::Moment start = sys::system_clock().now();
        while (sys::system_clock().now() - start < patience) {
            const auto all = pool_.table().snapshot();
            EXPECT_TRUE(all.has_value()) << all.error().to_string();
            EXPECT_TRUE(all.has_value() && memory::check_partition(*all, pool_frames).has_value());
            ++samples_;
            pollfd waiting{.fd = everyone_.raw(), .events = 0, .revents = 0};
            if (is_done() || ::poll(&waiting, 1, 1) == 1) {
                return true;
            }
        }
        return false;
    }

    /// Nobody is left: the judge inherits like a third instance would.
    std::uint32_t inherit() {
        partition::Legacy legacy;
        EXPECT_TRUE(pool_.table().register_owner({judge_id}).has_value());
        for (const std::uint32_t dead : {old_id, new_id}) {
            EXPECT_TRUE(partition::claim_memory(pool_, {dead}, {judge_id}, legacy).has_value());
            EXPECT_TRUE(partition::claim_tokens(region_, {dead}, {judge_id}, legacy).has_value());
        }
        EXPECT_TRUE(partition::scrub_memory(pool_, legacy).has_value());
        return judge_id;
    }

    /// MP-6, and that no write was lost or doubled.
    void expect_all_is(std::uint32_t owner) {
        const auto all = GODWIT_MUST(pool_.table().snapshot());
        EXPECT_EQ(memory::frames_of(all, {owner}), pool_frames);
        const auto proven = pool_.table().prove(all);
        EXPECT_TRUE(proven.has_value()) << proven.error().to_string();
        for (std::size_t i = 0; i < programs; ++i) {
            const auto extents = memory::extents_of(all, {owner}, Purpose::program, first_tag + i);
            if (extents.empty()) {
                EXPECT_EQ(report().program[i].acknowledged.load(), 0U) << "its memory is gone";
                continue;
            }
            const auto memory = GODWIT_MUST(ProgramMemory::map(
                pool_.memory_fd(), memory::ram_runs(extents), sys::MapMode::shared_read_only));
            const auto sum = memory.sum();
            const std::uint64_t acknowledged = report().program[i].acknowledged;
            ASSERT_TRUE(sum.has_value());
            EXPECT_GE(*sum, acknowledged);
            EXPECT_LE(*sum, acknowledged + 1);
        }
    }

    void expect_cpus_are(std::uint32_t owner) {
        EXPECT_EQ(region_.cpus_of({owner}), (std::vector<std::uint32_t>{0, 1}));
    }

    /// The old instance wrote 'S' into its own memory.
    void expect_free_memory_is_zero() {
        for (const memory::Extent& extent : GODWIT_MUST(pool_.table().snapshot())) {
            for (std::uint64_t i = 0;
                 extent.label.purpose == Purpose::free && i < extent.run.frames;
                 ++i) {
                std::vector<std::byte> page(page_size);
                ASSERT_TRUE(sys::pread_exact(pool_.memory_fd(),
                                             page,
                                             (extent.run.first + i) * memory::pool_frame_bytes)
                                .has_value());
                EXPECT_EQ(std::ranges::count(page, std::byte{0}), std::ptrdiff_t{page_size});
            }
        }
    }

    Report& report() { return *reinterpret_cast<Report*>(report_map_.data()); }

    memory::Pool pool_ = make_pool();
    partition::Region region_ = make_region();
    sys::Fd report_fd_ = *sys::create_memfd("godwit-report", sizeof(Report));
    sys::MappedRegion report_map_ =
        *sys::MappedRegion::create(report_fd_, 0, sizeof(Report), sys::MapMode::shared);
    sys::Fd everyone_;
    std::optional<sys::Process> old_;
    std::vector<std::string> cpu_partitions_;
    std::uint32_t survivor_ = 0;
    std::uint64_t samples_ = 0;
};

// MP-1, MP-2, MP-4, MP-5, MP-6, MP-9.
TEST_F(PartitionSystemTest, process_groups_move_by_pointers_and_the_estate_follows) {
    run();
    ASSERT_EQ(survivor_, new_id);
    EXPECT_GE(report().together_ns.load(), 1'000'000'000) << "both at once before the first move";
    EXPECT_GT(report().beats_together[0].load(), 50U);
    EXPECT_GT(report().beats_together[1].load(), 50U);
    // Two of three moves happen while another group runs on the old side.
    EXPECT_GE(report().moved_while_others_ran.load() + 1, programs - 1);
    expect_all_is(new_id);
    expect_cpus_are(new_id);
    expect_free_memory_is_zero();
    const auto estate = GODWIT_MUST(region_.read_estate());
    ASSERT_TRUE(estate.has_value());
    EXPECT_GE(report().inherited_ns.load(), estate->deadline.time_since_epoch().count());
    EXPECT_GE(report().frames_scrubbed.load(), 2U);
    for (const auto& bytes : report().io_bytes) {
        // Includes what children that were waited for have read; the programs have 12 MiB.
        EXPECT_LT(bytes.load(), 1 * mib);
    }
}

class PartitionFramesOnHost : public PartitionSystemTest {};

TEST_F(PartitionFramesOnHost, pages_stay_where_they_were) {
    if (::geteuid() != 0) {
        GTEST_SKIP() << "frame numbers are shown to root only";
    }
    run();
    ASSERT_EQ(survivor_, new_id);
    for (const ProgramReport& program : report().program) {
        for (std::size_t i = 0; i < sampled_pages; ++i) {
            EXPECT_NE(program.frames[0][i].load(), 0U);
            EXPECT_EQ(program.frames[0][i].load(), program.frames[1][i].load());
        }
    }
}

TEST_F(PartitionSystemTest, old_instance_that_does_not_end_is_fenced_after_its_deadline) {
    ::setenv("GODWIT_TEST_LINGER", "1", 1);
    run();
    EXPECT_EQ(survivor_, new_id);
    expect_all_is(new_id);
    expect_cpus_are(new_id);
    expect_free_memory_is_zero();
}

struct Kill {
    const char* point;
    std::uint32_t survivor; ///< 0: the other side is not there yet, or has ended already.
};

void PrintTo(const Kill& kill, std::ostream* out) {
    *out << kill.point;
}

class PartitionKillTest : public PartitionSystemTest, public ::testing::WithParamInterface<Kill> {};

// X-6, MP-5, MP-8: either side is killed at each numbered step; one is left, or a third can go on.
TEST_P(PartitionKillTest, exactly_one_owner_is_left_and_no_write_is_lost) {
    ::setenv("GODWIT_FAULT", (std::string(GetParam().point) + ":kill").c_str(), 1);
    run();
    EXPECT_EQ(survivor_, GetParam().survivor);
    const std::uint32_t owner = survivor_ == 0 ? inherit() : survivor_;
    expect_all_is(owner);
    if (survivor_ != 0) {
        expect_cpus_are(owner);
    }
}

INSTANTIATE_TEST_SUITE_P(AtEachStep,
                         PartitionKillTest,
                         ::testing::Values(Kill{"memory.pool.split.begun", 0},
                                           Kill{"memory.pool.split.done", 0},
                                           Kill{"memory.pool.swap.begun", 0},
                                           Kill{"memory.pool.swap.done", 0},
                                           Kill{"partition.old.1", 0},
                                           Kill{"partition.old.2", 0},
                                           Kill{"partition.give.1", new_id},
                                           Kill{"partition.give.2", new_id},
                                           Kill{"partition.old.3", new_id},
                                           Kill{"partition.old.4", new_id},
                                           Kill{"partition.old.5", new_id},
                                           Kill{"partition.old.6", new_id},
                                           Kill{"partition.new.1", old_id},
                                           Kill{"partition.take.1", old_id},
                                           Kill{"partition.take.2", old_id},
                                           Kill{"partition.take.3", old_id},
                                           Kill{"partition.take.extent", old_id},
                                           Kill{"partition.take.4", old_id},
                                           Kill{"partition.new.2", 0},
                                           Kill{"partition.new.3", 0},
                                           Kill{"partition.inherit.claim", 0},
                                           Kill{"partition.new.4", 0},
                                           Kill{"partition.new.5", 0},
                                           Kill{"partition.new.6", 0}),
                         [](const auto& instance) {
                             std::string name = instance.param.point;
                             std::ranges::replace(name, '.', '_');
                             return name;
                         });

} // namespace
} // namespace godwit::partition_test
