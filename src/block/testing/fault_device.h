#pragma once

/// For tests: a BlockDevice that fails or holds back chosen requests of the device below it.
///
/// Deterministic: rules count requests, not time. Held requests stay until release_held(). Owner
/// thread only, which is the loop's.

#include "block/block_device.h"
#include "block/request_queue.h"
#include "sys/event_loop.h"

#include <memory>
#include <optional>
#include <vector>

namespace godwit::block::testing {

enum class Fault : std::uint8_t {
    fail, ///< done() with an error; the device below never sees it.
    hold, ///< Kept until release_held().
};

/// Which requests get a fault: of those that match, `skip` pass, then `count` get it.
struct FaultRule {
    Fault fault = Fault::fail;
    std::optional<BlockOperation> operation = {}; ///< Empty: any.
    std::uint64_t skip = 0;
    std::uint64_t count = 1;
    int os_errno = 5; ///< For Fault::fail; EIO.
};

class FaultDevice final : public BlockDevice {
  public:
    FaultDevice(std::unique_ptr<BlockDevice> below, sys::EventLoop& loop)
        : below_(std::move(below)), loop_(loop) {}
    FaultDevice(const FaultDevice&) = delete;
    FaultDevice& operator=(const FaultDevice&) = delete;
    /// Nothing may be in flight.
    ~FaultDevice() override { GODWIT_ASSERT(in_flight() == 0); }

    /// Rules are tried in the order they were added; the first that gives a fault decides.
    void add(const FaultRule& rule) { rules_.push_back(rule); }
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
    [[nodiscard]] const FaultRule* match(const BlockRequest& request);

    std::unique_ptr<BlockDevice> below_;
    sys::EventLoop& loop_;
    std::vector<FaultRule> rules_;
    RequestQueue held_;
    std::uint32_t own_ = 0; ///< Held, or about to fail.
    std::uint64_t faults_ = 0;
};

} // namespace godwit::block::testing
