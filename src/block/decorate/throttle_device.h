#pragma once

/// A BlockDevice that is as slow as a profile says, or keeps within a bandwidth and a rate of
/// operations: requests start one after the other in the order they came and complete not before
/// their time. What the device below needs longer, it takes longer.
///
/// Thread rule: as BlockDevice. Nothing is refused: the queue has no end, as its links are the
/// requests' own.

#include "block/block_device.h"
#include "block/decorate/device_profile.h"
#include "block/decorate/interception.h"
#include "block/request_queue.h"
#include "sys/alarm.h"

#include <memory>
#include <vector>

namespace godwit::block {

class ThrottleDevice final : public BlockDevice {
  public:
    [[nodiscard]] static Result<std::unique_ptr<ThrottleDevice>>
    create(std::unique_ptr<BlockDevice> below, sys::AlarmClock& clock, DeviceProfile profile);
    ThrottleDevice(const ThrottleDevice&) = delete;
    ThrottleDevice& operator=(const ThrottleDevice&) = delete;
    /// What the device below ends is done at once, what has not started fails.
    ~ThrottleDevice() override;

    /// For requests that come from now on.
    void set_profile(DeviceProfile profile) { profile_ = std::move(profile); }
    [[nodiscard]] const DeviceProfile& profile() const noexcept { return profile_; }

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override {
        return below_->geometry();
    }
    void submit(BlockRequest& request) override;
    void kick() override;
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return in_flight_; }
    [[nodiscard]] Result<BlockGeometry> refresh() override { return below_->refresh(); }
    [[nodiscard]] std::string description() const override {
        return below_->description() + " as " + profile_.name;
    }

  private:
    ThrottleDevice(std::unique_ptr<BlockDevice> below, sys::AlarmClock& clock, DeviceProfile p)
        : below_(std::move(below)), clock_(clock), profile_(std::move(p)) {}
    void start_due();
    void start(BlockRequest& request);
    static void done(BlockRequest& request, Status status) noexcept;
    void finish(Interception& taken);
    void ring();
    void set_alarm() noexcept;

    std::unique_ptr<BlockDevice> below_;
    sys::AlarmClock& clock_;
    DeviceProfile profile_;
    RequestQueue waiting_;             ///< Not started.
    std::vector<Interception*> early_; ///< Done below before their time; a heap by `due`.
    InterceptionPool pool_;
    sys::Moment free_;              ///< When the next transfer may start.
    std::uint64_t next_offset_ = 0; ///< Where a transfer starts that needs no seek.
    std::uint32_t in_flight_ = 0;
    bool kick_due_ = false;
    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::block
