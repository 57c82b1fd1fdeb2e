#include "sys/process.h"

#include <unistd.h>

#include <array>
#include <csignal>

namespace godwit::sys {
namespace {

constexpr std::chrono::seconds long_enough{10};

TEST(Process, spawn_exit_code_comes_back) {
    const auto child = GODWIT_MUST(
        Process::spawn({.program = "/bin/sh", .arguments = {"-c", "exit 7"}, .fds = {}}));
    const auto status = GODWIT_MUST(child.wait(long_enough));
    ASSERT_TRUE(status.has_value());
    EXPECT_FALSE(status->signalled);
    EXPECT_EQ(status->code, 7);
}

TEST(Process, spawn_missing_program_names_it) {
    const auto child = Process::spawn({.program = "/nowhere/at/all", .arguments = {}, .fds = {}});
    ASSERT_FALSE(child.has_value());
    EXPECT_EQ(child.error().code(), ErrorCode::not_found);
    EXPECT_NE(child.error().to_string().find("/nowhere/at/all"), std::string::npos);
}

TEST(Process, spawn_passed_descriptor_has_its_number) {
    const Fd memory = GODWIT_MUST(create_memfd("passed", 4096));
    const auto child = GODWIT_MUST(Process::spawn({.program = "/bin/sh",
                                                   .arguments = {"-c", "printf hello >&9"},
                                                   .fds = {{.fd = &memory, .number = 9}}}));
    const auto status = GODWIT_MUST(child.wait(long_enough));
    ASSERT_TRUE(status.has_value());
    EXPECT_EQ(status->code, 0);
    std::array<std::byte, 5> text{};
    ASSERT_TRUE(pread_exact(memory, text, 0).has_value());
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(text.data()), text.size()), "hello");
}

TEST(Process, signal_running_child_ends_it) {
    const auto child = GODWIT_MUST(
        Process::spawn({.program = "/bin/sh", .arguments = {"-c", "read x"}, .fds = {}}));
    ASSERT_TRUE(child.signal(SIGKILL).has_value());
    const auto status = GODWIT_MUST(child.wait(long_enough));
    ASSERT_TRUE(status.has_value());
}

} // namespace
} // namespace godwit::sys
