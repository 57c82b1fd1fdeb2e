#pragma once

/// One move of a disk from a device to another while its guest uses it: phases and decisions. The
/// copying is the Copier's, the guest's requests are the GuestPath's; what they share is MoveState.
///
///     starting -> copying -> passes -> flushing -> pausing -> last_pass -> last_flush ->
///     committing
///                  |            \-> turning -^          (tracked schemes only)            ->
///                  finished
///                  +-- cancel or a failure, until committing: returning -> closing -> finished
///                                                             returning -> stranded -> returning
///
/// The point of no return is the commit's answer. Before it a cancel brings back a complete source
/// in every scheme (HS-9). Nothing is ever waited for without an end: passes that do not get
/// smaller turn into mirroring (PD-8).
///
/// Thread rule: the disk's loop.

#include "block/move/copier.h"
#include "block/move/guest_path.h"
#include "block/move/move_report.h"
#include "sys/alarm.h"

#include <functional>
#include <memory>

namespace godwit::block {

struct MoveHooks {
    /// Notes for good that the disk lies at the destination, then gives its answer, at once or
    /// later, on the loop; the guest waits. Empty: nothing is to be noted.
    std::move_only_function<void(std::move_only_function<void(Status)> answer)> commit;
    /// The move is over, or stranded. On the loop, from none of the move's own calls.
    std::move_only_function<void(const MoveReport&)> finished;
};

class Mover final : private GuestPath::Listener, private Copier::Plan {
  public:
    /// `filter`: what was observed before the move; null: a tiered move observes on its own.
    [[nodiscard]] static Result<std::unique_ptr<Mover>>
    create(GuestPath& path,
           sys::AlarmClock& clock,
           std::unique_ptr<BlockDevice> destination,
           const MoveOptions& options,
           MoveHooks hooks,
           HotFilter* filter);
    Mover(const Mover&) = delete;
    Mover& operator=(const Mover&) = delete;
    ~Mover() override = default;

    /// Conflict once the commit is under way. Of a stranded move: tries again to bring back.
    [[nodiscard]] Status cancel(Error reason);
    /// The devices are about to go, and nothing is to follow from that.
    void abandon() noexcept {
        abandoned_ = true;
        copier_->abandon();
    }
    /// Another scheme from now on, as far as may_change() allows it; tracked ones change when the
    /// pass is over. Conflict if it does not, or the end is near.
    [[nodiscard]] Status change_scheme(Scheme scheme);
    [[nodiscard]] bool finished() const noexcept { return phase_ == MovePhase::finished; }
    [[nodiscard]] MoveProgress progress() const;
    void set_limit(std::uint64_t bytes_per_second) noexcept;
    /// The device that the guest does not use any more, once finished; to be destroyed later.
    [[nodiscard]] std::unique_ptr<BlockDevice> take_retired() { return std::move(retired_); }

  private:
    enum class Pass : std::uint8_t { first, marked, back };

    Mover(GuestPath& path, sys::AlarmClock& clock, const MoveOptions& options, MoveHooks hooks);
    [[nodiscard]] Status prepare(HotFilter* filter);

    // GuestPath::Listener, Copier::Plan
    void path_drained() noexcept override { advance(); }
    void destination_failed(const Error& reason) noexcept override;
    [[nodiscard]] std::optional<BlockRange> next_range(std::uint64_t blocks_max) override;
    void select(const BlockRange& range, std::vector<BlockRange>& runs) override;
    void copied(const BlockRange& run) override;
    void copy_failed(Copier::FailedAt where, const Error& reason) override;
    void range_finished() override { advance(); }

    void advance();
    void step();
    void begin_pass(Pass pass);
    /// True when the copier has nothing left to do in this pass.
    [[nodiscard]] bool pass_is_over();
    void first_pass_over();
    void marked_pass_over();
    void decide();
    void turn_to(Scheme mirrored);
    void pause();
    void paused();
    void last_pass_over();
    void commit();
    void committed(Status answer);
    [[nodiscard]] bool too_much_is_left() const noexcept;
    enum class FlushFor : std::uint8_t { pause, commit, close };
    void flush(BlockDevice& device, FlushFor what);
    static void flush_done(BlockRequest& request, Status status) noexcept;
    void flushed(Status status);

    // mover_return.cpp
    void give_up(Error reason);
    void step_returning();
    void close_return();
    void back_failed(const Error& reason);
    void strand();
    void finish(MoveOutcome outcome);
    void ring();

    // mover_plan.cpp
    void select_first(const BlockRange& range, std::vector<BlockRange>& runs);
    void select_marked(const BlockRange& range, std::vector<BlockRange>& runs);
    void select_cold(const BlockRange& range, std::vector<BlockRange>& runs);
    [[nodiscard]] bool defers(const BlockRange& part) const;
    [[nodiscard]] bool tracked() const noexcept { return state_.routing == Routing::tracked; }
    void sample() noexcept;
    [[nodiscard]] std::uint64_t tracking_bytes() const noexcept;

    GuestPath& path_;
    sys::AlarmClock& clock_;
    MoveOptions options_;
    MoveHooks hooks_;
    MoveState state_;
    std::optional<HotFilter> own_filter_;
    HotFilter* filter_ = nullptr;
    std::unique_ptr<Copier> copier_;

    MovePhase phase_ = MovePhase::starting;
    Pass pass_ = Pass::first;
    std::optional<Scheme> wanted_; ///< When this pass is over.
    std::uint64_t scan_ = 0;       ///< Where the pass over marks, or back, goes on.
    std::uint64_t pass_copied_blocks_ = 0;
    sys::Moment pass_started_;
    bool advancing_ = false;
    bool again_ = false;
    BlockRequest own_flush_;
    FlushFor flush_for_ = FlushFor::pause;
    bool flushing_ = false;
    bool going_back_ = false; ///< The copier works towards the source.
    std::uint32_t back_failures_ = 0;
    bool brought_back_ = false; ///< Something went back that has to be made durable.
    bool retry_due_ = false;
    bool telling_ = false;
    bool abandoned_ = false;
    sys::Moment started_;
    sys::Moment paused_at_;
    sys::Moment return_started_;
    std::uint64_t copied_blocks_ = 0;
    MoveReport report_;
    std::unique_ptr<BlockDevice> retired_;
    /// Goes with the mover: an answer to the commit that comes later finds nobody.
    std::shared_ptr<Mover*> self_ = std::make_shared<Mover*>(this);

    /// Copied and changed bytes at moments at least sample_distance apart, for rates.
    struct Sample {
        sys::Moment at;
        std::uint64_t copied = 0;
        std::uint64_t changed = 0;
    };
    static constexpr std::size_t samples_max = 16;
    std::array<Sample, samples_max> samples_{};
    std::size_t next_sample_ = 0;

    std::unique_ptr<sys::Alarm> alarm_; ///< Last: tells the end, and tries again.
};

} // namespace godwit::block
