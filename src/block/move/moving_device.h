#pragma once

/// A disk that can be moved to another device while it is used (HS, PD). It lies between a guest
/// and its image for good; without a move it adds a look-up per request (HS-1).
///
///     auto disk = GODWIT_TRY(MovingDevice::create(std::move(file), clock));
///     GODWIT_TRY(disk->start(std::move(destination), {.scheme = Scheme::lr}, hooks));
///
/// After a move that came to its end the guest's disk is the destination, with the size the guest
/// knew until refresh(). The device that is left over is given by take_retired().
/// Thread rule: as BlockDevice; start, cancel and progress on the same thread. Not destroyed from
/// within done() or a hook.

#include "block/block_device.h"
#include "block/move/mover.h"

#include <memory>
#include <optional>

namespace godwit::block {

class MovingDevice final : public BlockDevice {
  public:
    [[nodiscard]] static Result<std::unique_ptr<MovingDevice>>
    create(std::unique_ptr<BlockDevice> disk, sys::AlarmClock& clock);
    MovingDevice(const MovingDevice&) = delete;
    MovingDevice& operator=(const MovingDevice&) = delete;
    /// Nothing of the guest may be in flight. A move that goes on ends as if the process died.
    ~MovingDevice() override;

    /// Begins a move; conflict while another goes on. Also from the hook that tells a move's end.
    [[nodiscard]] Status
    start(std::unique_ptr<BlockDevice> destination, const MoveOptions& options, MoveHooks hooks);
    /// Brings the disk back to its source; not_found without a move, conflict when it is too late.
    [[nodiscard]] Status cancel();
    [[nodiscard]] bool moving() const noexcept { return mover_ != nullptr && !mover_->finished(); }
    /// Of the move that goes on.
    [[nodiscard]] std::optional<MoveProgress> progress() const;
    /// Another scheme on the way (Mover::change_scheme); not_found without a move.
    [[nodiscard]] Status change_scheme(Scheme scheme);
    void set_limit(std::uint64_t bytes_per_second) noexcept;
    /// Begins to learn which parts are written often, for a tiered move later (PD-6); again: anew.
    [[nodiscard]] Status observe(FilterOptions options);
    /// Learns no more; conflict while a move goes on, which may use it.
    [[nodiscard]] Status stop_observing();
    /// What has been learnt since; null without observe().
    [[nodiscard]] const HotFilter* observed() const noexcept {
        return observed_.has_value() ? &*observed_ : nullptr;
    }
    /// What the guest has asked for so far.
    [[nodiscard]] const GuestTraffic& traffic() const noexcept { return path_->traffic(); }
    /// The guest's device at this moment.
    [[nodiscard]] BlockDevice& current() noexcept { return path_->source(); }
    /// The device that the last move left over; null if there is none, or a move goes on.
    [[nodiscard]] std::unique_ptr<BlockDevice> take_retired();

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override { return geometry_; }
    void submit(BlockRequest& request) override { path_->submit(request); }
    void kick() override { path_->kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return path_->in_flight(); }
    /// The size stays as it is while a move goes on.
    [[nodiscard]] Result<BlockGeometry> refresh() override;
    [[nodiscard]] std::string description() const override;

  private:
    MovingDevice(std::unique_ptr<GuestPath> path, sys::AlarmClock& clock)
        : clock_(clock), path_(std::move(path)), geometry_(path_->source().geometry()) {}

    sys::AlarmClock& clock_;
    std::unique_ptr<GuestPath> path_;
    BlockGeometry geometry_;
    std::optional<HotFilter> observed_;
    std::unique_ptr<Mover> mover_; ///< The last one stays until the next.
    /// The one before it: it may be telling its end, and goes with the loop's next turn.
    std::unique_ptr<Mover> former_;
    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::block
