#pragma once

// Disks in simulated time whose contents do not matter: as large as one likes, and many on one
// device. One thread.
#include "block/decorate/interception.h"
#include "block/testing/simulated_time.h"

#include <cstring>
#include <memory>
#include <vector>

namespace godwit::bench {

/// Takes no time, gives no zeros, keeps nothing.
class BlankDisk final : public block::BlockDevice {
  public:
    BlankDisk(std::uint64_t bytes, block::testing::SimulatedTime& time)
        : time_(time), geometry_{.bytes = bytes,
                                 .logical_block_bytes = 4096,
                                 .can_discard = true,
                                 .can_write_zeroes = true},
          alarm_(GODWIT_MUST(time.create_alarm([this] { ring(); }))) {} // Simulated alarms.

    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept override {
        return geometry_;
    }
    void submit(block::BlockRequest& request) override {
        pending_.push_back(&request);
        alarm_->set(time_.now() + sys::Nanoseconds(1));
    }
    void kick() override {}
    [[nodiscard]] std::uint32_t in_flight() const noexcept override {
        return static_cast<std::uint32_t>(pending_.size());
    }
    [[nodiscard]] Result<block::BlockGeometry> refresh() override { return geometry_; }
    [[nodiscard]] std::string description() const override { return "blank disk"; }

  private:
    void ring() {
        std::vector<block::BlockRequest*> due;
        due.swap(pending_);
        for (block::BlockRequest* const request : due) {
            if (request->operation == block::BlockOperation::read) {
                for (const iovec& segment : request->segments) {
                    std::memset(segment.iov_base, 0x11, segment.iov_len);
                }
            }
            request->done(*request, block::validate(*request, geometry_));
        }
    }

    block::testing::SimulatedTime& time_;
    block::BlockGeometry geometry_;
    std::vector<block::BlockRequest*> pending_;
    std::unique_ptr<sys::Alarm> alarm_;
};

/// A part of a device that others have parts of as well; the device outlives it.
class SliceDevice final : public block::BlockDevice {
  public:
    SliceDevice(block::BlockDevice& whole, std::uint64_t begin, std::uint64_t bytes)
        : whole_(whole), begin_(begin), geometry_(whole.geometry()) {
        geometry_.bytes = bytes;
    }

    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept override {
        return geometry_;
    }
    void submit(block::BlockRequest& request) override {
        pool_.intercept(request, this, &SliceDevice::done);
        request.offset += begin_;
        whole_.submit(request);
    }
    void kick() override { whole_.kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override {
        return static_cast<std::uint32_t>(pool_.in_flight());
    }
    [[nodiscard]] Result<block::BlockGeometry> refresh() override { return geometry_; }
    [[nodiscard]] std::string description() const override { return "slice"; }

  private:
    // NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
    static void done(block::BlockRequest& request, Status status) noexcept {
        auto& taken = *static_cast<block::Interception*>(request.owner);
        auto& slice = *static_cast<SliceDevice*>(taken.device);
        request.offset -= slice.begin_;
        slice.pool_.restore(taken).done(request, std::move(status));
    }

    block::BlockDevice& whole_;
    std::uint64_t begin_;
    block::BlockGeometry geometry_;
    block::InterceptionPool pool_;
};

} // namespace godwit::bench
