#include "control/run_directory.h"

#include <sys/stat.h>

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace godwit::control {
namespace {

class run_directory : public testing::Test {
  protected:
    void SetUp() override {
        std::filesystem::remove_all(root_);
        std::filesystem::create_directory(root_);
    }
    void TearDown() override { std::filesystem::remove_all(root_); }
    std::string root_ = "/tmp/godwit-run-" + std::to_string(::getpid());
};

TEST_F(run_directory, prepare_makes_it_private) {
    const RunDirectory run = GODWIT_MUST(RunDirectory::at(root_ + "/new/")); // A short path.
    ASSERT_TRUE(run.prepare().has_value());
    struct stat info{};
    ASSERT_EQ(::stat(run.path().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0700U);
    EXPECT_EQ(run.path(), root_ + "/new");
    EXPECT_TRUE(GODWIT_MUST(run.list_machines()).empty());
}

TEST_F(run_directory, open_to_others_is_refused) {
    const RunDirectory run = GODWIT_MUST(RunDirectory::at(root_)); // A short path.
    std::filesystem::permissions(root_, std::filesystem::perms(0755));
    const Status refused = run.prepare();
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), ErrorCode::permission_denied);
}

TEST_F(run_directory, path_too_long_for_a_socket_is_refused) {
    const Result<RunDirectory> run = RunDirectory::at(root_ + "/" + std::string(90, 'x'));
    ASSERT_FALSE(run.has_value());
    EXPECT_EQ(run.error().code(), ErrorCode::invalid_argument);
    EXPECT_NE(run.error().to_string().find("GODWIT_RUN_DIR"), std::string::npos);
}

TEST_F(run_directory, machine_name_can_make_the_socket_path_too_long) {
    const RunDirectory run =
        GODWIT_MUST(RunDirectory::at("/tmp/" + std::string(40, 'x'))); // A short path.
    EXPECT_TRUE(run.check_socket_paths("web1").has_value());
    EXPECT_FALSE(run.check_socket_paths(std::string(48, 'w')).has_value());
}

TEST_F(run_directory, lists_machines_and_instances_and_skips_the_rest) {
    const RunDirectory run = GODWIT_MUST(RunDirectory::at(root_ + "/r")); // A short path.
    ASSERT_TRUE(run.prepare().has_value());
    ASSERT_TRUE(run.create_machine("web1").has_value());
    ASSERT_FALSE(run.create_machine("web1").has_value());
    std::filesystem::create_directory(run.machines() + "/NOT A NAME");
    for (const char* name :
         {"/vmm-0123abcd.sock", "/vmm-0123ABCD.sock", "/vmm-1.sock", "/vmm.log"}) {
        std::ofstream(run.machine("web1") + name) << "x";
    }
    EXPECT_EQ(GODWIT_MUST(run.list_machines()), std::vector<std::string>{"web1"});
    EXPECT_EQ(GODWIT_MUST(run.list_instances("web1")), std::vector<std::string>{"0123abcd"});
    EXPECT_TRUE(run.remove_machine("web1").has_value());
    EXPECT_TRUE(GODWIT_MUST(run.list_machines()).empty());
}

TEST(machine_name, only_short_lower_case_names_pass) {
    for (const char* good : {"a", "web1", "a-b-c"}) {
        EXPECT_TRUE(check_machine_name(good).has_value()) << good;
    }
    for (const std::string& bad : {std::string(),
                                   std::string("1a"),
                                   std::string("Web"),
                                   std::string("a/b"),
                                   std::string(".."),
                                   std::string("a b"),
                                   std::string(49, 'a'),
                                   std::string("a\0b", 3)}) {
        EXPECT_FALSE(check_machine_name(bad).has_value()) << bad;
    }
}

} // namespace
} // namespace godwit::control
