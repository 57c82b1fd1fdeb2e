#pragma once

/// A BlockDevice that fails, tears, delays or holds back chosen requests of the device below it.
///
/// Deterministic: rules count requests, not time. Held requests stay until release_held().
/// Thread rule: as BlockDevice.

#include "block/block_device.h"
#include "block/decorate/interception.h"
#include "block/request_queue.h"
#include "sys/alarm.h"
#include "sys/file_ring.h"

#include <memory>
#include <optional>
#include <vector>

namespace godwit::block {

enum class Fault : std::uint8_t {
    fail,  ///< done() with an error; the device below never sees it.
    tear,  ///< A write that reaches the device with its first half only, then fails. Else: fail.
    delay, ///< Passed on, done() later than it would be.
    hold,  ///< Kept until release_held().
};

/// Which requests get a fault: of those that match, `skip` pass, then `count` get it.
struct FaultRule {
    Fault fault = Fault::fail;
    std::optional<BlockOperation> operation = {}; ///< Empty: any.
    /// Only requests that touch a byte of it. Flushes touch none.
    std::optional<sys::FileRange> range = {};
    std::uint64_t skip = 0;
    std::uint64_t count = 1;
    int os_errno = 5; ///< For fail and tear; EIO.
    sys::Nanoseconds delay{0};
};

class FaultDevice final : public BlockDevice {
  public:
    [[nodiscard]] static Result<std::unique_ptr<FaultDevice>>
    create(std::unique_ptr<BlockDevice> below, sys::AlarmClock& clock);
    FaultDevice(const FaultDevice&) = delete;
    FaultDevice& operator=(const FaultDevice&) = delete;
    /// What the device below ends is done at once, what is held fails.
    ~FaultDevice() override;

    /// Rules are tried in the order they were added; the first that gives a fault decides.
    void add(const FaultRule& rule) { rules_.push_back(rule); }
    void clear_rules() { rules_.clear(); }
    /// Passes everything held on to the device below, oldest first.
    void release_held();
    /// Faults given so far.
    [[nodiscard]] std::uint64_t faults() const noexcept { return faults_; }

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override {
        return below_->geometry();
    }
    void submit(BlockRequest& request) override;
    void kick() override { below_->kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override {
        return below_->in_flight() + own_;
    }
    [[nodiscard]] Result<BlockGeometry> refresh() override { return below_->refresh(); }
    [[nodiscard]] std::string description() const override {
        return "faults over " + below_->description();
    }

  private:
    struct Tearing {
        BlockRequest half;
        std::vector<iovec> segments;
        Interception* of = nullptr;
    };

    FaultDevice(std::unique_ptr<BlockDevice> below, sys::AlarmClock& clock)
        : below_(std::move(below)), clock_(clock) {}
    [[nodiscard]] const FaultRule* match(const BlockRequest& request);
    void finish_at(Interception& taken, sys::Moment due);
    void tear(BlockRequest& request, int os_errno);
    static void half_done(BlockRequest& half, Status status) noexcept;
    static void delayed_done(BlockRequest& request, Status status) noexcept;
    void ring();
    void set_alarm() noexcept;

    std::unique_ptr<BlockDevice> below_;
    sys::AlarmClock& clock_;
    std::vector<FaultRule> rules_;
    RequestQueue held_;
    InterceptionPool pool_;
    std::vector<Interception*> due_; ///< Wait for their moment.
    std::uint32_t own_ = 0;          ///< In flight here and not below.
    std::uint64_t faults_ = 0;
    std::unique_ptr<sys::Alarm> alarm_; ///< Last: it calls into this.
};

} // namespace godwit::block
