#include "control/operations.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace godwit::control {
namespace {

using std::chrono::milliseconds;

std::unique_ptr<sys::EventLoop> fresh_loop() {
    return GODWIT_MUST(sys::EventLoop::create()); // Descriptors are plenty in a test.
}

class operations : public testing::Test {
  protected:
    [[nodiscard]] Json shown(std::uint64_t id) const {
        const Result<std::string> text = table_.describe(id);
        return text.has_value() ? Json::parse(*text) : Json();
    }
    /// Starts to wait; the answer lands in answer_.
    void wait(std::uint64_t id, std::uint64_t revision, milliseconds time) {
        table_.wait(id, revision, time, Reply<std::string>([this](const Result<std::string>& text) {
                        ++answers_;
                        answer_ = text.has_value() ? Json::parse(*text) : json_of(text.error());
                    }));
    }

    std::unique_ptr<sys::EventLoop> loop_ = fresh_loop();
    EventLog events_{sys::system_clock()};
    Metrics metrics_;
    Operations table_{*loop_, events_, metrics_, sys::system_clock()};
    Json answer_;
    int answers_ = 0;
};

TEST_F(operations, goes_through_its_life) {
    const std::uint64_t id = table_.begin("exchange", "web1", {});
    EXPECT_TRUE(table_.running(id));
    EXPECT_EQ(shown(id)["state"], "running");
    table_.set_phase(id, "prepare");
    EXPECT_EQ(shown(id)["phase"], "prepare");
    table_.succeed(id, {{"outcome", "done"}});
    EXPECT_FALSE(table_.running(id));
    EXPECT_EQ(shown(id)["result"]["outcome"], "done");
    table_.fail(id, Error(ErrorCode::io, "too late"), Json());
    EXPECT_EQ(shown(id)["state"], "succeeded");
    EXPECT_EQ(events_.read(0, 9, milliseconds(0)).events.size(), 2U);
}

TEST_F(operations, waiter_hears_of_each_change_or_only_of_the_end) {
    const std::uint64_t id = table_.begin("exchange", "web1", {});
    wait(id, Operations::until_end, milliseconds(60'000));
    table_.set_phase(id, "prepare");
    EXPECT_EQ(answers_, 0);
    wait(id, shown(id)["revision"], milliseconds(60'000));
    EXPECT_EQ(answers_, 0);
    table_.set_phase(id, "pause");
    EXPECT_EQ(answers_, 1);
    EXPECT_EQ(answer_["phase"], "pause");
    table_.fail(id, Error(ErrorCode::conflict, "no"), Json());
    EXPECT_EQ(answers_, 2);
    EXPECT_EQ(answer_["error"]["code"], "conflict");
}

TEST_F(operations, waiting_ends_by_itself_and_when_everything_closes) {
    const std::uint64_t id = table_.begin("exchange", "web1", {});
    wait(id, Operations::until_end, milliseconds(1));
    ASSERT_TRUE(loop_->run_once(milliseconds(10'000)).has_value());
    EXPECT_EQ(answer_["state"], "running");
    wait(id, Operations::until_end, milliseconds(60'000));
    table_.close();
    EXPECT_EQ(answers_, 2);
    EXPECT_EQ(answer_["code"], "cancelled");
}

TEST_F(operations, cancel_asks_once_and_only_what_can_be_cancelled) {
    int asked = 0;
    const std::uint64_t id = table_.begin("exchange", "web1", [&]() -> Status {
        ++asked;
        return ok();
    });
    EXPECT_TRUE(shown(id)["cancellable"]);
    EXPECT_TRUE(table_.cancel(id).has_value());
    EXPECT_TRUE(table_.cancel(id).has_value());
    EXPECT_EQ(asked, 1);
    table_.fail(id, Error(ErrorCode::cancelled, "cancelled"), Json());
    EXPECT_EQ(shown(id)["state"], "cancelled");
    EXPECT_FALSE(table_.cancel(id).has_value());
    EXPECT_FALSE(table_.cancel(12345).has_value());
    EXPECT_FALSE(table_.cancel(table_.begin("run", "web2", {})).has_value());
}

TEST_F(operations, old_ones_are_forgotten_but_never_running_ones) {
    const std::uint64_t kept = table_.begin("exchange", "web1", {});
    for (std::size_t i = 0; i < operations_kept_max + 10; ++i) {
        table_.succeed(table_.begin("run", "web2", {}), Json());
    }
    EXPECT_TRUE(table_.running(kept));
    EXPECT_LE(table_.describe_all().size(), operations_kept_max + 1);
}

} // namespace
} // namespace godwit::control
