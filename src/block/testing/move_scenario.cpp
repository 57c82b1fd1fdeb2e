#include "block/testing/move_scenario.h"

#include "block/move/moving_device.h"
#include "block/testing/guest_load.h"
#include "block/testing/perform.h"
#include "block/testing/simulated_disk.h"

#include <algorithm>
#include <utility>

namespace godwit::block::testing {

namespace {

constexpr std::uint32_t block_bytes = 512;
constexpr std::uint64_t steps_max = 300'000;

/// What the seed chooses.
struct Choices {
    std::uint64_t blocks = 0;
    MoveOptions move;
    GuestLoadOptions load;
    SimulatedDiskOptions source{.name = "source"};
    SimulatedDiskOptions destination{.name = "destination"};
    std::uint64_t start_after = 0;            ///< Steps before the move.
    std::uint64_t cancel_after = 0;           ///< 0: not.
    std::uint64_t crash_after = 0;            ///< 0: not.
    bool crash_at_flush = false;              ///< The next one that succeeds from then on.
    std::uint64_t destination_dies_after = 0; ///< 0: not.
    enum class Commit : std::uint8_t { none, at_once, later, refused } commit = Commit::none;
    bool observes = false;
    std::uint64_t change_after = 0; ///< 0: the scheme stays.

    [[nodiscard]] bool faultless() const noexcept {
        return source.fail_one_in == 0 && destination.fail_one_in == 0 &&
               destination_dies_after == 0;
    }
};

void choose_speed(SimulatedTime& time, SimulatedDiskOptions& disk) {
    const std::uint64_t slowness = time.below(4);
    disk.latency_min = sys::Nanoseconds(slowness == 3 ? 100'000 : 1000);
    disk.latency_max = sys::Nanoseconds(slowness == 0 ? 2000 : slowness == 3 ? 1'000'000 : 100'000);
    disk.slow_one_in = time.one_in(4) ? 20 : 0;
}

Choices choose(SimulatedTime& time) {
    Choices chosen;
    chosen.blocks = 32 + time.below(256);
    chosen.move.scheme = all_schemes[time.below(all_schemes.size())];
    chosen.move.safe = time.one_in(3);
    chosen.move.reads_from_destination = time.one_in(2);
    chosen.move.chunk_bytes = block_bytes * static_cast<std::uint32_t>(1 + time.below(24));
    chosen.move.depth = static_cast<std::uint32_t>(1 + time.below(5));
    chosen.move.threshold_bytes = block_bytes * time.below(40);
    chosen.move.passes_max = static_cast<std::uint32_t>(2 + time.below(10));
    chosen.move.hot_by = time.one_in(2) ? HotBy::position : HotBy::frequency;
    chosen.move.filter = time.one_in(2) ? FilterKind::bloom : FilterKind::multi_stage;
    chosen.move.granule_bytes = block_bytes << time.below(4);
    chosen.move.hot_threshold = static_cast<std::uint8_t>(1 + time.below(4));
    chosen.move.deferred_bytes_max = block_bytes * time.below(64);
    chosen.move.limit_bytes_per_second = time.one_in(4) ? 5'000'000 : 0;
    chosen.load.depth = static_cast<std::uint32_t>(1 + time.below(8));
    chosen.load.requests = 50 + time.below(350);
    chosen.load.hot_blocks = time.one_in(2) ? 8 : 0;
    chosen.load.writes_per_hundred = 10 + time.below(70);
    chosen.load.think = sys::Nanoseconds(1 + time.below(60'000));
    choose_speed(time, chosen.source);
    choose_speed(time, chosen.destination);
    if (time.one_in(4)) {
        chosen.source.fail_one_in = 30 + time.below(300);
    }
    if (time.one_in(4)) {
        chosen.destination.fail_one_in = 30 + time.below(1000);
    }
    chosen.source.fail_flush_one_in = time.one_in(4) ? 2 + time.below(20) : 0;
    chosen.destination.fail_flush_one_in = time.one_in(8) ? 2 + time.below(20) : 0;
    chosen.destination_dies_after = time.one_in(12) ? 1 + time.below(500) : 0;
    chosen.start_after = time.below(200);
    chosen.cancel_after = time.one_in(3) ? 1 + time.below(500) : 0;
    chosen.crash_after = time.one_in(3) ? 1 + time.below(800) : 0;
    chosen.crash_at_flush = time.one_in(2);
    chosen.commit = static_cast<Choices::Commit>(time.below(4));
    if (chosen.commit == Choices::Commit::refused && time.one_in(2)) {
        chosen.commit = Choices::Commit::later;
    }
    chosen.observes = time.one_in(3);
    chosen.change_after = time.one_in(4) ? 1 + time.below(300) : 0;
    return chosen;
}

class Scenario {
  public:
    explicit Scenario(std::uint64_t seed)
        : time_(seed), chosen_(choose(time_)), source_(chosen_.blocks * block_bytes),
          destination_(chosen_.blocks * block_bytes), oracle_(chosen_.blocks, block_bytes),
          commit_alarm_(GODWIT_MUST(time_.create_alarm([this] { answer_commit(); }))) {
        // Simulated alarms never fail. What the destination had before must never be seen.
        std::ranges::fill(destination_.current, std::byte{0x77});
        std::ranges::fill(destination_.durable, std::byte{0x77});
        auto disk = std::make_unique<SimulatedDisk>(source_, time_, chosen_.source);
        source_disk_ = disk.get();
        device_ = GODWIT_MUST(MovingDevice::create(std::move(disk), time_)); // Simulated alarms.
        load_.emplace(*device_, time_, oracle_, chosen_.load);
    }
    Scenario(const Scenario&) = delete;
    Scenario& operator=(const Scenario&) = delete;
    ~Scenario() = default;

    MoveScenarioResult run() {
        while (result_.violation.empty() && !over()) {
            act();
            if (result_.crashed) {
                break;
            }
            if (!time_.step()) {
                violate("nothing is to happen any more, but not everything is over");
            } else if (time_.steps() > steps_max) {
                violate("it does not end: phase " +
                        std::string(device_->moving() ? name_of(device_->progress()->phase) : ""));
            }
            note(load_->violation());
        }
        if (result_.violation.empty() && !result_.crashed) {
            check_end();
        }
        result_.steps = time_.steps();
        result_.story = story();
        return std::move(result_);
    }

  private:
    [[nodiscard]] bool over() const {
        return load_->finished() && device_->in_flight() == 0 && started_ && report_.has_value() &&
               !device_->moving();
    }

    void act() {
        const std::uint64_t step = time_.steps();
        if (!started_ && (step >= chosen_.start_after || load_->finished())) {
            start();
        }
        if (started_ && chosen_.cancel_after != 0 &&
            step >= chosen_.start_after + chosen_.cancel_after && device_->moving() &&
            !cancelled_) {
            cancelled_ = device_->cancel().has_value();
        }
        if (chosen_.change_after != 0 && started_ &&
            step >= chosen_.start_after + chosen_.change_after && !changed_) {
            changed_ = true; // Where the scheme does not allow it, it says so.
            discard(device_->change_scheme(time_.one_in(2) ? Scheme::aio : Scheme::mirror),
                    "refused where it is not possible");
        }
        if (chosen_.destination_dies_after != 0 && started_ && device_->moving() &&
            step >= chosen_.start_after + chosen_.destination_dies_after &&
            chosen_.move.scheme != Scheme::lr) {
            destination_disk_->set_fail_one_in(1);
        }
        if (step > steps_max / 2) {
            heal();
        }
        if (chosen_.crash_after != 0 && step >= chosen_.start_after + chosen_.crash_after) {
            if (!flushes_before_crash_.has_value()) {
                flushes_before_crash_ = load_->flushes();
            }
            if (!chosen_.crash_at_flush || load_->flushes() != *flushes_before_crash_) {
                crash();
            }
        }
    }

    /// Late in the run nothing fails any more, so that what is tried again comes to its end.
    void heal() {
        if (!report_.has_value()) {
            source_disk_->set_fail_one_in(0);
            if (destination_disk_ != nullptr) {
                destination_disk_->set_fail_one_in(0);
            }
        }
    }

    void start() {
        started_ = true;
        if (chosen_.observes) {
            note_error(device_->observe({.kind = chosen_.move.filter,
                                         .granule_bytes = chosen_.move.granule_bytes,
                                         .threshold = chosen_.move.hot_threshold}));
        }
        source_written_before_ = source_.written_bytes;
        auto disk = std::make_unique<SimulatedDisk>(destination_, time_, chosen_.destination);
        destination_disk_ = disk.get();
        MoveHooks hooks;
        hooks.finished = [this](const MoveReport& report) { finished(report); };
        if (chosen_.commit != Choices::Commit::none) {
            hooks.commit = [this](std::move_only_function<void(Status)> answer) {
                commit_answer_ = std::move(answer);
                check_switch();
                chosen_.commit == Choices::Commit::at_once
                    ? answer_commit()
                    : commit_alarm_->set(time_.now() + sys::Nanoseconds(time_.below(1'000'000)));
            };
        }
        note_error(device_->start(std::move(disk), chosen_.move, std::move(hooks)));
    }

    void answer_commit() {
        auto answer = std::move(commit_answer_);
        if (chosen_.commit == Choices::Commit::refused) {
            answer(Error(ErrorCode::io, "the record cannot be written"));
        } else {
            answer(ok());
        }
    }

    /// Drained, nothing in flight: the destination has to be the disk.
    void check_switch() {
        note(oracle_.check(0, destination_.current, oracle_.now()), "destination at the switch: ");
        note(oracle_.check_after_crash(destination_.durable), "destination's durable part: ");
        source_written_at_switch_ = source_.written_bytes;
        destination_written_at_switch_ = destination_.written_bytes;
        if (device_->progress()->scheme == Scheme::lr) {
            return;
        }
        for (std::uint64_t block = 0; block < chosen_.blocks; ++block) {
            const auto at = static_cast<std::ptrdiff_t>(block * block_bytes);
            if (chosen_.source.fail_one_in == 0 && oracle_.settled(block) &&
                !std::equal(source_.current.begin() + at,
                            source_.current.begin() + at + block_bytes,
                            destination_.current.begin() + at)) {
                violate("block " + std::to_string(block) + " differs at the switch");
            }
        }
    }

    void finished(const MoveReport& report) {
        if (report.outcome == MoveOutcome::stranded) {
            heal();
            note_error(device_->cancel());
            return;
        }
        report_ = report;
        result_.outcome = report.outcome;
        const MoveCounters& bytes = report.counters;
        const std::uint64_t written =
            report.outcome == MoveOutcome::moved
                ? destination_written_at_switch_.value_or(bytes.destination.total())
                : destination_.written_bytes;
        if (bytes.destination.total() != written) {
            violate("destination: " + std::to_string(written) + " bytes written, " +
                    std::to_string(bytes.destination.total()) + " counted");
        }
        if (report.outcome == MoveOutcome::moved) {
            check_moved(report);
        }
        retired_ = device_->take_retired();
    }

    void check_moved(const MoveReport& report) {
        const MoveCounters& bytes = report.counters;
        if (source_written_at_switch_.has_value() &&
            bytes.source.total() != *source_written_at_switch_ - source_written_before_) {
            violate(
                "source: " + std::to_string(*source_written_at_switch_ - source_written_before_) +
                " bytes written, " + std::to_string(bytes.source.total()) + " counted");
        }
        if (report.ended_as == Scheme::lr && !chosen_.move.safe &&
            bytes.source.redundant + bytes.destination.redundant != 0) {
            violate("lr has written something twice");
        }
        const bool tracked = routing_of(report.ended_as) == Routing::tracked;
        if (tracked && bytes.destination.first_copy != chosen_.blocks * block_bytes) {
            violate("not every block was copied for the first time exactly once");
        }
        if (tracked && bytes.last_pass_bytes >
                           chosen_.move.threshold_bytes + chosen_.move.deferred_bytes_max) {
            violate("the last pass was larger than the threshold");
        }
    }

    /// Both devices lose their power; which side counts follows from what was committed.
    void crash() {
        result_.crashed = true;
        const bool asked = static_cast<bool>(commit_answer_); // May be found either way.
        const bool on_destination = started_ && &device_->current() == destination_disk_;
        const bool in_pieces =
            device_->moving() && chosen_.move.scheme == Scheme::lr && !chosen_.move.safe;
        source_disk_->cut_power();
        if (destination_disk_ != nullptr) {
            destination_disk_->cut_power();
        }
        if (on_destination || asked) {
            note(oracle_.check_after_crash(destination_.current), "destination after a crash: ");
        }
        if (!on_destination && !in_pieces) {
            note(oracle_.check_after_crash(source_.current), "source after a crash: ");
        }
    }

    /// The guest flushes, and then the power goes.
    void check_end() {
        const bool moved = report_->outcome == MoveOutcome::moved;
        const Medium& disk = moved ? destination_ : source_;
        note(oracle_.check(0, disk.current, oracle_.now()), "at the end: ");
        const std::uint64_t since = oracle_.now();
        SingleRequest flush(BlockOperation::flush);
        device_->submit(flush.block);
        device_->kick();
        while (!flush.outcome.has_value() && time_.step()) {
        }
        if (!flush.outcome.has_value()) {
            violate("the last flush never ends");
        } else if (flush.outcome->has_value()) {
            oracle_.flushed(since);
        } else {
            oracle_.flush_failed(since);
        }
        (moved ? destination_disk_ : source_disk_)->cut_power();
        note(oracle_.check_after_crash(disk.current), "after the end: ");
    }

    [[nodiscard]] std::string story() const {
        return std::string(name_of(chosen_.move.scheme)) + (chosen_.move.safe ? " safe" : "") +
               ", " + std::to_string(chosen_.blocks) + " blocks, " +
               std::to_string(load_->errors()) + " errors, " +
               (report_.has_value() && report_->reason.has_value() ? report_->reason->to_string()
                                                                   : "no reason");
    }

    void violate(const std::string& what) {
        if (result_.violation.empty()) {
            result_.violation = what;
        }
    }
    void note(const std::string& what, const std::string& where = {}) {
        if (!what.empty()) {
            violate(where + what);
        }
    }
    void note_error(const Status& status) {
        if (!status.has_value()) {
            violate(status.error().to_string());
        }
    }

    SimulatedTime time_;
    Choices chosen_;
    Medium source_;
    Medium destination_;
    BlockOracle oracle_;
    MoveScenarioResult result_;
    std::unique_ptr<sys::Alarm> commit_alarm_;
    std::move_only_function<void(Status)> commit_answer_;
    bool started_ = false;
    bool cancelled_ = false;
    bool changed_ = false;
    std::optional<std::uint64_t> flushes_before_crash_;
    std::uint64_t source_written_before_ = 0;
    std::optional<std::uint64_t> source_written_at_switch_;
    std::optional<std::uint64_t> destination_written_at_switch_;
    std::optional<MoveReport> report_;
    SimulatedDisk* source_disk_ = nullptr;
    SimulatedDisk* destination_disk_ = nullptr;
    std::unique_ptr<BlockDevice> retired_;
    std::unique_ptr<MovingDevice> device_;
    std::optional<GuestLoad> load_;
};

} // namespace

MoveScenarioResult run_move_scenario(std::uint64_t seed) {
    return Scenario(seed).run();
}

} // namespace godwit::block::testing
