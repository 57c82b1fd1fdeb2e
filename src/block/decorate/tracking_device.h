#pragma once

/// A BlockDevice that remembers which blocks were changed. A block is marked when its change is
/// done, before the caller hears of it, whether or not it succeeded: who takes the marks and then
/// reads misses nothing (HS-2, PD-2). Changes on their way are marked when they end.
///
/// Thread rule: as BlockDevice.

#include "block/block_device.h"
#include "block/block_set.h"
#include "block/decorate/interception.h"

#include <memory>

namespace godwit::block {

class TrackingDevice final : public BlockDevice {
  public:
    /// `granule_bytes`: what one bit stands for; a multiple of the logical block.
    TrackingDevice(std::unique_ptr<BlockDevice> below, std::uint32_t granule_bytes);
    TrackingDevice(const TrackingDevice&) = delete;
    TrackingDevice& operator=(const TrackingDevice&) = delete;
    /// What is in flight ends as the device below ends it.
    ~TrackingDevice() override { below_.reset(); }

    [[nodiscard]] const BlockSet& changed() const noexcept { return changed_; }
    /// The marks so far; from now on they start anew.
    [[nodiscard]] BlockSet take_changed();

    [[nodiscard]] const BlockGeometry& geometry() const noexcept override {
        return below_->geometry();
    }
    void submit(BlockRequest& request) override;
    void kick() override { below_->kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return below_->in_flight(); }
    /// Blocks beyond the size at the start are marked as the last one.
    [[nodiscard]] Result<BlockGeometry> refresh() override { return below_->refresh(); }
    [[nodiscard]] std::string description() const override { return below_->description(); }

  private:
    static void done(BlockRequest& request, Status status) noexcept;
    void mark(const BlockRequest& request);

    std::unique_ptr<BlockDevice> below_;
    std::uint64_t granule_bytes_;
    BlockSet changed_;
    InterceptionPool pool_;
};

} // namespace godwit::block
