#include "exchange/partition/cpu_partition.h"
#include "sys/fd.h"
#include "sys/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace godwit::exchange::partition {
namespace {

namespace fs = std::filesystem;

TEST(CpuSet, lists_are_read_and_written_as_the_kernel_does) {
    EXPECT_EQ(GODWIT_MUST(parse_cpu_set("0-3,8")), (CpuSet{0, 1, 2, 3, 8}));
    EXPECT_EQ(to_string(CpuSet{0, 1, 2, 3, 8}), "0-3,8");
    EXPECT_EQ(to_string(CpuSet{}), "");
    EXPECT_TRUE(GODWIT_MUST(parse_cpu_set("")).empty());
}

TEST(CpuSet, what_is_no_list_is_refused) {
    for (const char* bad : {"a", "1-", "3-1", "0,,1", "0,", "1024", "0-4294967295", "-1", "1 2"}) {
        EXPECT_FALSE(parse_cpu_set(bad).has_value()) << bad;
    }
}

/// A folder that stands for a mounted hierarchy.
class CpuPartitionTest : public ::testing::Test {
  protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "godwit-cpu-XXXXXX").string();
        ASSERT_NE(::mkdtemp(name.data()), nullptr);
        root_ = name;
    }
    void TearDown() override { fs::remove_all(root_); }
    void put(const std::string& path, const std::string& text) {
        fs::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path) << text;
    }
    std::string text_of(const std::string& path) {
        return GODWIT_MUST(sys::read_file((root_ / path).string(), 4096));
    }
    CpuRoots roots(const std::string& unified, const std::string& v1) {
        return {.unified = {(root_ / unified).string()}, .cpuset_v1 = (root_ / v1).string()};
    }
    fs::path root_;
};

TEST_F(CpuPartitionTest, unified_hierarchy_with_cpuset_is_preferred) {
    put("u/cgroup.controllers", "cpu cpuset memory\n");
    put("u/cgroup.subtree_control", "");
    for (const char* file : {"cpuset.cpus", "cpuset.cpus.partition", "cgroup.procs"}) {
        put(std::string("u/new/") + file, "");
    }
    auto partition = GODWIT_MUST(CpuPartition::create("new", {1, 2}, roots("u", "v1")));
    EXPECT_EQ(partition.mechanism(), CpuMechanism::cgroup2);
    EXPECT_EQ(text_of("u/cgroup.subtree_control"), "+cpuset");
    EXPECT_EQ(text_of("u/new/cpuset.cpus"), "1-2");
    EXPECT_EQ(text_of("u/new/cpuset.cpus.partition"), "root");
    ASSERT_TRUE(partition.add_process(77).has_value());
    EXPECT_EQ(text_of("u/new/cgroup.procs"), "77");
    EXPECT_EQ(partition.note(), "");
}

TEST_F(CpuPartitionTest, old_hierarchy_serves_where_the_unified_one_has_no_cpuset) {
    put("u/cgroup.controllers", "hugetlb\n");
    put("v1/cpuset.mems", "0\n");
    for (const char* file : {"cpuset.cpus", "cpuset.mems"}) {
        put(std::string("v1/new/") + file, "");
    }
    const auto partition = GODWIT_MUST(CpuPartition::create("new", {0}, roots("u", "v1")));
    EXPECT_EQ(partition.mechanism(), CpuMechanism::cgroup1);
    EXPECT_EQ(text_of("v1/new/cpuset.mems"), "0");
    EXPECT_EQ(text_of("v1/new/cpuset.cpus"), "0");
    EXPECT_NE(partition.note().find("no cpuset controller"), std::string::npos);
}

// A cgroup that takes nothing (full, read-only): the exchange goes on by affinity and says so.
TEST_F(CpuPartitionTest, hierarchies_that_refuse_are_told_and_affinity_is_used) {
    put("u/cgroup.controllers", "cpuset\n"); // No subtree_control to write to.
    const auto partition = GODWIT_MUST(CpuPartition::create("new", {0}, roots("u", "v1")));
    EXPECT_EQ(partition.mechanism(), CpuMechanism::affinity);
    EXPECT_NE(partition.note().find("cgroup.subtree_control"), std::string::npos)
        << partition.note();
    EXPECT_NE(partition.note().find("by affinity"), std::string::npos);
}

TEST_F(CpuPartitionTest, affinity_holds_for_a_process_and_follows_the_set) {
    const auto child = GODWIT_MUST(
        sys::Process::spawn({.program = "/bin/sleep", .arguments = {"100"}, .fds = {}}));
    const CpuSet before = GODWIT_MUST(allowed_cpus(child.pid()));
    const CpuSet first{*before.begin()};
    auto partition = GODWIT_MUST(CpuPartition::create("new", first, roots("u", "v1")));
    ASSERT_TRUE(partition.add_process(child.pid()).has_value());
    EXPECT_EQ(GODWIT_MUST(allowed_cpus(child.pid())), first);
    ASSERT_TRUE(partition.set_cpus(before).has_value());
    EXPECT_EQ(GODWIT_MUST(allowed_cpus(child.pid())), before);
    ASSERT_TRUE(child.signal(SIGKILL).has_value());
    EXPECT_TRUE(GODWIT_MUST(child.wait(std::chrono::seconds(10))).has_value());
}

TEST_F(CpuPartitionTest, no_cpus_or_a_name_with_a_path_is_refused) {
    EXPECT_FALSE(CpuPartition::create("new", {}, roots("u", "v1")).has_value());
    EXPECT_FALSE(CpuPartition::create("../new", {0}, roots("u", "v1")).has_value());
    EXPECT_FALSE(CpuPartition::create("", {0}, roots("u", "v1")).has_value());
}

} // namespace
} // namespace godwit::exchange::partition
