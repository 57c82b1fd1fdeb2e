#pragma once

/// A disk whose layers change under a guest: a snapshot puts an overlay on top, a fold takes it
/// away again. Requests that come while a change goes on wait; before the change everything on its
/// way has ended and what was done is durable, so that a base that is frozen is complete (LS-1,
/// LS-2). The change itself comes from the loop, never from within a call of the old layers, so
/// that they may be destroyed in it.
///
/// Layers that must not be touched before the guest is ours are put on by an opening: it comes with
/// the first request, or open(). Until it succeeds requests wait; it is tried again and again.
///
/// Thread rule: as BlockDevice.

#include "block/block_device.h"
#include "block/decorate/interception.h"
#include "block/request_queue.h"
#include "sys/alarm.h"

#include <functional>
#include <memory>
#include <optional>

namespace godwit::block {

class LayeredDevice final : public BlockDevice {
  public:
    /// Makes new layers of the old ones. After an error these must be as they were.
    using Change = std::move_only_function<Status(std::unique_ptr<BlockDevice>& layers)>;
    using Changed = std::move_only_function<void(Status)>;
    struct Opening {
        Change open; ///< Empty: the layers are complete.
        /// How the opening went, each time. May be empty.
        std::function<void(const Status&)> tried;
    };

    [[nodiscard]] static Result<std::unique_ptr<LayeredDevice>>
    create(std::unique_ptr<BlockDevice> layers, sys::AlarmClock& clock, Opening opening);
    LayeredDevice(const LayeredDevice&) = delete;
    LayeredDevice& operator=(const LayeredDevice&) = delete;
    ~LayeredDevice() override { layers_.reset(); }

    /// Opens the layers from the loop, if they are not.
    void open();
    [[nodiscard]] bool opened() const noexcept { return !opening_.open; }
    /// Conflict while another change goes on, or before the layers are open. `changed` comes on the
    /// loop, with an error if the flush before or the change failed: then nothing has changed.
    [[nodiscard]] Status change(Change change, Changed changed);
    [[nodiscard]] BlockDevice& layers() noexcept { return *layers_; }

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override { return geometry_; }
    void submit(BlockRequest& request) override;
    void kick() override { layers_->kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return in_flight_; }
    /// The size stays as it is before the layers are open.
    [[nodiscard]] Result<BlockGeometry> refresh() override;
    void set_patience(Patience patience) override;
    [[nodiscard]] std::string description() const override { return layers_->description(); }

  private:
    LayeredDevice(std::unique_ptr<BlockDevice> layers, sys::AlarmClock& clock, Opening opening)
        : clock_(clock), layers_(std::move(layers)), geometry_(layers_->geometry()),
          opening_(std::move(opening)) {}
    static void done(BlockRequest& request, Status status) noexcept;
    static void flushed(BlockRequest& request, Status status) noexcept;
    void flush_when_drained();
    void ring();
    void try_opening();
    void make_change();
    void let_held_go();

    sys::AlarmClock& clock_;
    std::unique_ptr<BlockDevice> layers_;
    BlockGeometry geometry_;
    Opening opening_;
    Patience patience_ = Patience::waits;
    InterceptionPool pool_;
    RequestQueue held_;
    std::uint32_t in_flight_ = 0; ///< Held ones included.
    bool changing_ = false;
    bool flushing_ = false; ///< The change's own flush is on its way, or has ended.
    Status flushed_status_;
    /// The flush before a change failed: the guest's next one does as well.
    std::optional<Error> owed_failure_;
    Change change_;
    Changed changed_;
    BlockRequest flush_;
    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::block
