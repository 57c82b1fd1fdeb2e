#include "exchange/partition/witness.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>

namespace godwit::exchange::partition {
namespace {

using namespace std::chrono_literals;

constexpr sys::Moment start{1000s};

Region make_region() {
    return GODWIT_MUST(Region::create({.old_instance = {1}, .new_instance = {2}, .pool_id = 5}));
}

/// A process that waits, with the write end of a lifeline that it shares with us.
class WitnessTest : public ::testing::Test {
  protected:
    void SetUp() override {
        int raw[2] = {-1, -1};
        ASSERT_EQ(::pipe2(raw, O_CLOEXEC), 0);
        read_ = sys::Fd(raw[0]);
        write_ = sys::Fd(raw[1]);
        process_.emplace(GODWIT_MUST(sys::Process::spawn(
            {.program = "/bin/sleep", .arguments = {"100"}, .fds = {{&write_, 3}}})));
    }
    void TearDown() override {
        discard(process_->signal(SIGKILL), "it may have ended");
        EXPECT_TRUE(GODWIT_MUST(process_->wait(10s)).has_value());
    }
    ProcessWitness watch() {
        std::vector<sys::Process> processes;
        processes.push_back(GODWIT_MUST(sys::Process::adopt(process_->pid())));
        return {region_, Side::old_instance, std::move(processes), std::move(read_)};
    }

    Region region_ = make_region();
    sys::Fd read_;
    sys::Fd write_;
    std::optional<sys::Process> process_;
};

TEST_F(WitnessTest, running_process_is_alive_until_its_heartbeat_stops) {
    ProcessWitness witness = watch();
    EXPECT_EQ(witness.liveness(start), Liveness::alive);
    EXPECT_EQ(witness.liveness(start + silence_limit), Liveness::alive);
    EXPECT_EQ(witness.liveness(start + silence_limit + 1ns), Liveness::silent);
    region_.beat(Side::old_instance, start);
    EXPECT_EQ(witness.liveness(start + silence_limit + 2ns), Liveness::alive);
}

TEST_F(WitnessTest, ended_process_is_terminated_only_when_nobody_holds_its_lifeline) {
    ProcessWitness witness = watch();
    ASSERT_TRUE(witness.fence().has_value());
    ASSERT_TRUE(GODWIT_MUST(process_->wait(10s)).has_value());
    EXPECT_EQ(witness.liveness(start), Liveness::alive) << "we hold the lifeline still";
    write_.reset();
    EXPECT_EQ(witness.liveness(start), Liveness::terminated);
}

TEST_F(WitnessTest, closed_lifeline_of_a_running_process_proves_nothing) {
    int raw[2] = {-1, -1};
    ASSERT_EQ(::pipe2(raw, O_CLOEXEC), 0);
    read_ = sys::Fd(raw[0]);
    sys::Fd(raw[1]).reset();
    EXPECT_EQ(watch().liveness(start), Liveness::alive);
}

TEST_F(WitnessTest, nobody_named_is_never_terminated) {
    ProcessWitness witness(region_, Side::old_instance, {}, {});
    EXPECT_EQ(witness.liveness(start), Liveness::alive);
}

} // namespace
} // namespace godwit::exchange::partition
