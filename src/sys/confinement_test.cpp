#include "sys/confinement.h"
#include "sys/fd.h"
#include "sys/refusal.h"
#include "sys/stream.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>

namespace godwit::sys {
namespace {

/// Everything but one call, which goes to the listener.
std::vector<sock_filter> all_but(std::uint32_t call) {
    return {
        {.code = BPF_LD | BPF_W | BPF_ABS, .jt = 0, .jf = 0, .k = offsetof(seccomp_data, nr)},
        {.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 0, .jf = 1, .k = call},
        {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_USER_NOTIF},
        {.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ALLOW},
    };
}

/// A shell command in a confinement, and what it prints.
class ConfinedOnHost : public ::testing::Test {
  protected:
    Result<ConfinedProcess> start(const std::string& command, unsigned uid = ::geteuid()) {
        Pipe pipe = GODWIT_TRY(create_pipe());
        SpawnOptions options{.program = "/bin/sh",
                             .arguments = {"-c", command},
                             .fds = {},
                             .standard_error = &pipe.write_end};
        Result<ConfinedProcess> made =
            spawn_confined(options,
                           {.visible = {"/usr", "/lib", "/lib64", "/bin", "/dev/null", "/absent"},
                            .uid = uid,
                            .gid = ::getegid(),
                            .filter = all_but(SYS_uname)});
        output_ = std::move(pipe.read_end);
        return made;
    }

    /// Starts, waits for the end, gives the output.
    std::string output_of(const std::string& command, unsigned uid = ::geteuid()) {
        Result<ConfinedProcess> made = start(command, uid);
        if (!made.has_value()) {
            return made.error().to_string();
        }
        std::string text;
        std::array<std::byte, 4096> bytes{};
        for (;;) {
            const Result<std::size_t> got = read_some(output_, bytes);
            if (!got.has_value() || *got == 0) {
                break;
            }
            text.append(reinterpret_cast<const char*>(bytes.data()), *got);
        }
        EXPECT_TRUE(made->process.wait(std::chrono::seconds(30)).has_value());
        return text;
    }

    /// Hosts without user namespaces cannot run these tests.
    void SetUp() override {
        const Result<ConfinedProcess> tried = start("exit 0");
        if (!tried.has_value() && tried.error().code() == ErrorCode::unsupported) {
            GTEST_SKIP() << tried.error().to_string();
        }
        ASSERT_TRUE(tried.has_value()) << tried.error().to_string();
        ASSERT_TRUE(tried->process.wait(std::chrono::seconds(30)).has_value());
    }

    Fd output_;
};

TEST_F(ConfinedOnHost, process_sees_only_what_it_is_shown) {
    EXPECT_EQ(output_of("cd /; echo *"), "bin dev lib lib64 usr\n");
}

TEST_F(ConfinedOnHost, process_is_the_first_of_its_own_and_changes_nothing_it_sees) {
    EXPECT_EQ(output_of("echo $$; (: >/usr/godwit) 2>/dev/null || echo refused"), "1\nrefused\n");
}

TEST_F(ConfinedOnHost, process_of_root_has_its_own_user) {
    if (::geteuid() != 0) {
        GTEST_SKIP() << "only root may give a process another user";
    }
    EXPECT_EQ(output_of("[ -O /usr ] && echo root || echo own", 1879048193), "own\n");
}

TEST_F(ConfinedOnHost, program_that_is_not_there_is_told_as_such) {
    const SpawnOptions options{.program = "/no/such/program", .arguments = {}, .fds = {}};
    const auto made = spawn_confined(options, {.visible = {}, .filter = all_but(SYS_uname)});
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code(), ErrorCode::not_found);
}

TEST_F(ConfinedOnHost, relative_path_to_show_is_refused) {
    const SpawnOptions options{.program = "/bin/sh", .arguments = {}, .fds = {}};
    const auto made = spawn_confined(options, {.visible = {"usr"}, .filter = all_but(SYS_uname)});
    ASSERT_FALSE(made.has_value());
    EXPECT_EQ(made.error().code(), ErrorCode::invalid_argument);
}

TEST_F(ConfinedOnHost, refused_call_is_told_and_fails_in_the_process) {
    Result<ConfinedProcess> made = start("uname || echo refused");
    ASSERT_TRUE(made.has_value()) << made.error().to_string();
    ASSERT_TRUE(
        wait_ready(made->refusals, Direction::input, std::chrono::seconds(30)).value_or(false));
    const auto refusal = next_refusal(made->refusals);
    ASSERT_TRUE(refusal.has_value() && refusal->has_value());
    EXPECT_EQ((*refusal)->call, SYS_uname);
    const auto ended = made->process.wait(std::chrono::seconds(30));
    ASSERT_TRUE(ended.has_value() && ended->has_value());
    EXPECT_EQ((*ended)->code, 0);
    const auto none = next_refusal(made->refusals);
    EXPECT_TRUE(none.has_value() && !none->has_value());
}

} // namespace
} // namespace godwit::sys
