#include "handover/engine.h"

#include <algorithm>
#include <optional>

namespace godwit::handover {
namespace {

const std::string machine_id = "6f1f2f43-2c5e-4c53-9f0e-000000000001";
constexpr InstanceId source_id{0x11};
constexpr InstanceId destination_id{0x22};

/// A clock that moves one microsecond at each look.
class StepClock final : public sys::Clock {
  public:
    [[nodiscard]] sys::Moment now() const noexcept override {
        return sys::Moment(std::chrono::microseconds(++ticks_));
    }
    [[nodiscard]] std::int64_t unix_nanoseconds() const noexcept override { return 0; }

    void advance(std::chrono::microseconds by) { ticks_ += by.count(); }

  private:
    mutable std::int64_t ticks_ = 0;
};

/// Every fallible call of a run goes through here; the n-th one fails.
class Script {
  public:
    explicit Script(int failing) : failing_(failing) {}
    Status call(std::string name) {
        history.push_back(name);
        if (++calls_ == failing_) {
            return Error(ErrorCode::io, "injected at " + name);
        }
        return ok();
    }
    [[nodiscard]] int calls() const { return calls_; }
    std::vector<std::string> history;

  private:
    int calls_ = 0;
    int failing_;
};

OwnerRecord make_record() {
    return GODWIT_MUST(OwnerRecord::create(machine_id, source_id));
}

enum class GuestAt : std::uint8_t { source, nowhere, destination };

/// One guest and who runs it; two at once is the failure this project exists to prevent.
struct World {
    Script script;
    OwnerRecord record = make_record();
    GuestAt guest = GuestAt::source;
    bool devices_quiet = false;
    bool destination_aborted = false;
    int prepared_carriers = 0;
    int aborted_carriers = 0;
    bool lose_answer = false;
    StepClock clock;
    std::chrono::microseconds carry_time{0};
    bool taken_back = false; ///< By the daemon, before the claim.
    bool confirms = true;
    bool lie = false; ///< The destination says that it runs the guest, and has not claimed it.
};

class FakeMachine final : public SourceMachine {
  public:
    explicit FakeMachine(World& world) : world_(world) {}
    std::vector<std::string> found_blockers;
    [[nodiscard]] std::vector<std::string> blockers() const override { return found_blockers; }
    Status quiesce(std::chrono::milliseconds) override {
        world_.devices_quiet = true;
        return world_.script.call("quiesce");
    }
    Status pause(std::chrono::milliseconds limit) override {
        EXPECT_LE(limit, Limits{}.commit_timeout);
        world_.guest = GuestAt::nowhere;
        return world_.script.call("pause");
    }
    Status resume() override {
        EXPECT_NE(world_.guest, GuestAt::destination) << "the guest would run twice";
        world_.guest = GuestAt::source;
        world_.devices_quiet = false;
        return ok();
    }
    [[nodiscard]] sys::Moment stopped_at() const override {
        return sys::Moment(std::chrono::microseconds(0));
    }

  private:
    World& world_;
};

class FakeDestination final : public Destination {
  public:
    explicit FakeDestination(World& world) : world_(world) {}
    Status introduce(std::vector<std::string>&, std::chrono::milliseconds) override {
        return world_.script.call("introduce");
    }
    [[nodiscard]] std::string build_id() const override { return "new"; }
    Status prepare(std::chrono::milliseconds) override {
        return world_.script.call("destination prepare");
    }
    Status offer() override {
        GODWIT_TRY(world_.script.call("offer"));
        Status loaded = world_.script.call("destination load");
        if (!loaded.has_value()) {
            return ok(); // It dies silently; the source only finds that no answer comes.
        }
        if (world_.lie) {
            return ok();
        }
        const Ownership offered = world_.record.read();
        if (world_.taken_back) {
            EXPECT_TRUE(world_.record.transfer(offered, source_id).has_value());
        }
        const auto claim = world_.record.claim(offered, destination_id);
        claimed_ = claim.has_value() && world_.confirms;
        if (claimed_) {
            EXPECT_TRUE(world_.record.confirm(*claim).has_value());
            EXPECT_EQ(world_.guest, GuestAt::nowhere);
            world_.guest = GuestAt::destination;
        }
        return ok();
    }
    Result<Resumed> await_resumed(std::chrono::milliseconds) override {
        if (world_.lie) {
            return Resumed{.ownership = {.owner = destination_id, .epoch = 2}};
        }
        if (!claimed_ || world_.lose_answer) {
            return Error(ErrorCode::timeout, "no answer");
        }
        return Resumed{.ownership = world_.record.read(),
                       .claimed_at = sys::Moment(std::chrono::microseconds(400)),
                       .first_entry_at = sys::Moment(std::chrono::microseconds(500))};
    }
    Result<Settled> settle(std::chrono::milliseconds) override {
        return Settled{.frames_sampled = 8, .frames_identical = 8};
    }
    void abort(const Error&) noexcept override { world_.destination_aborted = true; }

  private:
    World& world_;
    bool claimed_ = false;
};

class FakeCarrier final : public Carrier {
  public:
    explicit FakeCarrier(World& world) : world_(world) {}
    [[nodiscard]] std::string_view resource() const noexcept override { return "memory"; }
    [[nodiscard]] std::vector<std::string> blockers() const override { return {}; }
    Status prepare() override {
        ++world_.prepared_carriers;
        return world_.script.call("carrier prepare");
    }
    Result<Remaining> sync() override {
        GODWIT_TRY(world_.script.call("carrier sync"));
        return rounds_left_-- > 0 ? Remaining{.bytes = 1U << 30U, .bytes_per_second = 1}
                                  : Remaining{};
    }
    Status carry_paused() override {
        world_.clock.advance(world_.carry_time);
        return world_.script.call("carrier carry");
    }
    Status settle() override { return ok(); }
    void abort() noexcept override { ++world_.aborted_carriers; }
    [[nodiscard]] CarriedResource carried() const override {
        return {.resource = "memory", .carrier = "pointer"};
    }

  private:
    World& world_;
    int rounds_left_ = 2;
};

Report run(World& world,
           const std::vector<std::string>& blockers = {},
           const std::atomic<bool>* cancel = nullptr,
           const std::optional<Ownership>& expected = std::nullopt) {
    FakeMachine machine(world);
    machine.found_blockers = blockers;
    FakeDestination destination(world);
    FakeCarrier carrier(world);
    Carrier* const carriers[] = {&carrier};
    return run_handover({.machine = machine,
                         .destination = destination,
                         .carriers = carriers,
                         .record = world.record,
                         .self = source_id,
                         .expected = expected.value_or(world.record.read()),
                         .limits = {},
                         .clock = world.clock,
                         .cancel = cancel,
                         .progress = {}},
                        Report{.machine = "m"});
}

TEST(Engine, undisturbed_run_moves_the_guest) {
    World world{.script = Script(0)};
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::done);
    EXPECT_EQ(world.guest, GuestAt::destination);
    EXPECT_EQ(report.after, (Ownership{.owner = destination_id, .epoch = 2}));
    EXPECT_EQ(report.blackout_us, 500);
    EXPECT_EQ(report.frames_identical, 8U);
    EXPECT_EQ(report.phase_us[static_cast<std::size_t>(Phase::resume)] > 0, true);
}

// Requirement X-7: whichever fallible call fails, the guest runs at the source and nothing
// temporary is left.
TEST(Engine, every_failure_before_the_commit_rolls_back) {
    World undisturbed{.script = Script(0)};
    ASSERT_EQ(run(undisturbed).outcome, Outcome::done);
    const int calls = undisturbed.script.calls();
    ASSERT_GT(calls, 8);
    for (int failing = 1; failing <= calls; ++failing) {
        World world{.script = Script(failing)};
        const Report report = run(world);
        SCOPED_TRACE(world.script.history.back());
        EXPECT_EQ(report.outcome, Outcome::rolled_back);
        EXPECT_EQ(world.guest, GuestAt::source);
        EXPECT_FALSE(world.devices_quiet);
        EXPECT_EQ(world.record.read().owner, source_id);
        EXPECT_EQ(world.prepared_carriers, world.aborted_carriers);
        EXPECT_TRUE(world.destination_aborted);
        EXPECT_FALSE(report.reason.empty());
        EXPECT_FALSE(report.failed_step.empty());
    }
}

// A lost last answer leaves the guest where it was claimed, never running twice (design section 5).
TEST(Engine, lost_answer_after_the_claim_never_resumes_the_source) {
    World world{.script = Script(0)};
    world.lose_answer = true;
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::failed_after_commit);
    EXPECT_EQ(world.guest, GuestAt::destination);
    EXPECT_EQ(world.record.read().owner, destination_id);
}

TEST(Engine, answer_without_a_claim_is_not_believed) {
    World world{.script = Script(0)};
    world.lie = true;
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(report.error_code, "corrupt");
    EXPECT_EQ(world.guest, GuestAt::source);
    EXPECT_EQ(world.record.read(), (Ownership{.owner = source_id, .epoch = 2}));
}

// Every part of the standstill counts: what takes too long before the offer is undone.
TEST(Engine, state_that_takes_too_long_rolls_back_before_the_offer) {
    World world{.script = Script(0)};
    world.carry_time = Limits{}.commit_timeout;
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(report.failed_step, "offer");
    EXPECT_EQ(report.error_code, "timeout");
    EXPECT_EQ(world.guest, GuestAt::source);
    EXPECT_EQ(world.record.read().epoch, 1U) << "nothing was offered, nothing to take back";
}

// The host's daemon may take the offer back for us: that is ours as well.
TEST(Engine, offer_taken_back_by_somebody_else_rolls_back) {
    World world{.script = Script(0)};
    world.taken_back = true;
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(world.guest, GuestAt::source);
    EXPECT_EQ(world.record.read(), (Ownership{.owner = source_id, .epoch = 2}));
}

TEST(Engine, unconfirmed_claim_is_not_undone_by_the_source) {
    World world{.script = Script(0)};
    world.confirms = false;
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::failed_after_commit);
    EXPECT_EQ(report.after.tenure, Tenure::claimed);
    EXPECT_NE(report.reason.find("claimed"), std::string::npos);
}

TEST(Engine, blockers_stop_in_plan_with_nothing_touched) {
    World world{.script = Script(0)};
    const Report report = run(world, {"a device cannot be saved", "another"});
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(report.blockers.size(), 2U);
    EXPECT_EQ(world.prepared_carriers, 0);
    EXPECT_NE(report.reason.find("a device cannot be saved; another"), std::string::npos);
}

TEST(Engine, cancel_is_obeyed_before_the_pause) {
    World world{.script = Script(0)};
    const std::atomic<bool> cancel{true};
    const Report report = run(world, {}, &cancel);
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(report.error_code, "cancelled");
    EXPECT_EQ(world.guest, GuestAt::source);
}

// The daemon fences a handover and then kills the successor: the source must not begin in between.
TEST(Engine, handover_fenced_before_it_began_is_refused) {
    World world{.script = Script(0)};
    const Ownership asked_for = world.record.read();
    ASSERT_TRUE(world.record.transfer(asked_for, source_id).has_value());
    const Report report = run(world, {}, nullptr, asked_for);
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(report.failed_step, "plan");
    EXPECT_EQ(report.error_code, "conflict");
    EXPECT_EQ(world.guest, GuestAt::source);
    EXPECT_EQ(world.prepared_carriers, 0);
}

TEST(Engine, stale_owner_is_refused) {
    World world{.script = Script(0)};
    ASSERT_TRUE(world.record.transfer(world.record.read(), destination_id).has_value());
    const Report report = run(world);
    EXPECT_EQ(report.outcome, Outcome::rolled_back);
    EXPECT_EQ(report.failed_step, "plan");
    EXPECT_EQ(report.error_code, "conflict");
}

} // namespace
} // namespace godwit::handover
