#include "control/service_partition.h"

#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace godwit::control {
namespace {

TEST(PartitionPolicy, names_are_read_back_and_others_refused) {
    for (const auto policy :
         {PartitionPolicy::require, PartitionPolicy::prefer, PartitionPolicy::off}) {
        const auto read = partition_policy_named(name_of(policy));
        ASSERT_TRUE(read.has_value());
        EXPECT_EQ(*read, policy);
    }
    const auto wrong = partition_policy_named("maybe");
    ASSERT_FALSE(wrong.has_value());
    EXPECT_EQ(wrong.error().code(), ErrorCode::invalid_argument);
}

TEST(VmmFilter, what_it_does_not_know_goes_to_the_orchestrator) {
    const auto filter = vmm_filter();
    ASSERT_TRUE(filter.has_value()) << filter.error().to_string();
    const auto returns = [&](std::uint32_t action) {
        return std::ranges::any_of(*filter, [&](const sock_filter& step) {
            return step.code == (BPF_RET | BPF_K) && step.k == action;
        });
    };
    EXPECT_TRUE(returns(SECCOMP_RET_USER_NOTIF));
    EXPECT_TRUE(returns(SECCOMP_RET_ALLOW));
    EXPECT_FALSE(returns(SECCOMP_RET_LOG));
}

TEST(Refusal, description_names_the_call_or_the_address) {
    EXPECT_EQ(describe({.call = SYS_mount, .arguments = {16, 32}}),
              "system call mount (0x10, 0x20)");
    EXPECT_EQ(describe({.call = 999'999, .arguments = {}}), "system call 999999 (0x0, 0x0)");
    const auto written = static_cast<std::uint64_t>(sys::Trespass::memory_written);
    EXPECT_EQ(describe({.call = sys::trespass_call, .arguments = {written, 0x7000}}),
              "write to memory at 0x7000 that may only be read");
    // It comes from a process that is not trusted.
    EXPECT_EQ(describe({.call = sys::trespass_call, .arguments = {99}}),
              "something it did not name");
}

TEST(ServicePartition, report_without_one_says_why) {
    EXPECT_EQ(report_without_partition("switched off"),
              (Json{{"confined", false}, {"reason", "switched off"}}));
}

} // namespace
} // namespace godwit::control
