#pragma once

/// Measures how fast a device is, with few requests, one after the other: large ones in sequence
/// and small ones here and there. A source is only read; a destination, whose contents are nobody's
/// yet, is written as well.
///
/// Thread rule: the device's loop. Takes under 50 requests; a failure ends it with its error.

#include "block/aligned_buffer.h"
#include "block/block_device.h"
#include "block/move/cost.h"
#include "sys/clock.h"

#include <functional>

namespace godwit::block {

class SpeedProbe {
  public:
    enum class May : std::uint8_t { read, read_and_write };
    using Answer = std::move_only_function<void(Result<DeviceSpeed>)>;

    SpeedProbe(BlockDevice& device, const sys::Clock& clock, May may);
    SpeedProbe(const SpeedProbe&) = delete;
    SpeedProbe& operator=(const SpeedProbe&) = delete;
    ~SpeedProbe() = default;

    /// `answer` comes on the loop, once; it may destroy the probe.
    void start(Answer answer);
    /// Ends early: the answer, an error, comes when the request on its way is done.
    void stop() noexcept { stopped_ = true; }
    /// The device is about to go; nothing is answered any more.
    void abandon() noexcept { answer_ = nullptr; }

  private:
    void next();
    void begin_series();
    void end_series();
    static void done(BlockRequest& request, Status status) noexcept;

    BlockDevice& device_;
    const sys::Clock& clock_;
    May may_;
    Answer answer_;
    bool stopped_ = false;
    DeviceSpeed speed_;
    std::size_t series_ = 0;
    std::uint32_t requests_ = 0;
    std::uint64_t place_ = 0;
    std::uint64_t bytes_ = 0;
    sys::Moment started_;
    AlignedBuffer buffer_;
    iovec segment_{};
    BlockRequest request_;
};

} // namespace godwit::block
