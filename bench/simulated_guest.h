#pragma once

// Guests of simulated disks: they keep their requests coming, with a pause after each. One thread.
#include "block/aligned_buffer.h"
#include "block/block_device.h"
#include "block/testing/simulated_time.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace godwit::bench {

struct Shape {
    std::string_view name;
    std::uint32_t depth;
    std::uint64_t bytes;
    std::uint32_t reads_per_hundred;
    std::uint32_t flush_every; ///< 0: never.
    double hot_part;           ///< Of the disk.
    double hot_share;          ///< Of the requests.
    bool sequential;
    std::chrono::microseconds think;
};

inline constexpr std::array shapes{
    Shape{"random_read", 2, 4096, 100, 0, 0, 0, false, std::chrono::milliseconds(20)},
    Shape{"random_write", 2, 4096, 0, 0, 0, 0, false, std::chrono::milliseconds(20)},
    Shape{"skewed_80_20", 4, 4096, 50, 0, 0.2, 0.8, false, std::chrono::milliseconds(20)},
    Shape{"sequential", 1, 65536, 0, 0, 0, 0, true, std::chrono::milliseconds(10)},
    Shape{"oltp", 4, 8192, 70, 20, 0.1, 0.9, false, std::chrono::milliseconds(20)},
    Shape{"mail", 2, 16384, 30, 4, 0.05, 0.5, false, std::chrono::milliseconds(15)},
};

/// A guest that keeps its requests coming, with a pause after each.
class Guest {
  public:
    Guest(block::BlockDevice& disk, block::testing::SimulatedTime& time, const Shape& shape)
        : disk_(disk), time_(time), shape_(shape), slots_(shape.depth) {
        for (Slot& slot : slots_) {
            slot.guest = this;
            slot.memory = block::AlignedBuffer(shape.bytes);
            std::memset(slot.memory.bytes().data(), 0x5a, shape.bytes);
            slot.alarm = GODWIT_MUST( // Simulated alarms.
                time.create_alarm([this, &slot] { ask(slot); }));
            slot.alarm->set(time.now());
        }
    }
    void begin_measuring() { latencies_.clear(); }
    /// What has been asked for by now still counts.
    void end_measuring() { until_ = time_.now(); }
    /// Asks for nothing more and waits for the answers.
    void stop() {
        stopped_ = true;
        while (disk_.in_flight() > 0) {
            GODWIT_ASSERT(time_.step());
        }
    }
    [[nodiscard]] std::vector<double>& latencies() { return latencies_; }

  private:
    struct Slot {
        Guest* guest = nullptr;
        block::AlignedBuffer memory;
        iovec segment{};
        block::BlockRequest request;
        sys::Moment asked;
        std::unique_ptr<sys::Alarm> alarm;
    };

    void ask(Slot& slot) {
        if (stopped_) {
            return;
        }
        const std::uint64_t places = disk_.geometry().bytes / shape_.bytes;
        const bool hot = time_.below(1000) < static_cast<std::uint64_t>(shape_.hot_share * 1000);
        const auto hot_places =
            static_cast<std::uint64_t>(static_cast<double>(places) * shape_.hot_part);
        const std::uint64_t place =
            shape_.sequential ? next_++ % places
                              : time_.below(hot ? std::max<std::uint64_t>(1, hot_places) : places);
        slot.segment = {.iov_base = slot.memory.bytes().data(), .iov_len = shape_.bytes};
        slot.request = {.operation = time_.below(100) < shape_.reads_per_hundred
                                         ? block::BlockOperation::read
                                         : block::BlockOperation::write,
                        .offset = place * shape_.bytes,
                        .bytes = shape_.bytes,
                        .segments = {&slot.segment, 1},
                        .done = &Guest::done,
                        .owner = &slot};
        if (shape_.flush_every != 0 && ++asked_ % shape_.flush_every == 0) {
            slot.request = {
                .operation = block::BlockOperation::flush, .done = &Guest::done, .owner = &slot};
        }
        slot.asked = time_.now();
        disk_.submit(slot.request);
        disk_.kick();
    }
    // NOLINTNEXTLINE(performance-unnecessary-value-param): the interface passes it by value.
    static void done(block::BlockRequest& request, Status status) noexcept {
        GODWIT_ASSERT(status.has_value()); // Nothing fails here.
        Slot& slot = *static_cast<Slot*>(request.owner);
        Guest& guest = *slot.guest;
        if (request.operation != block::BlockOperation::flush && slot.asked <= guest.until_) {
            guest.latencies_.push_back(
                std::chrono::duration<double>(guest.time_.now() - slot.asked).count());
        }
        const auto mean = static_cast<std::uint64_t>(sys::Nanoseconds(guest.shape_.think).count());
        slot.alarm->set(guest.time_.now() + sys::Nanoseconds(guest.time_.below(2 * mean)));
    }

    block::BlockDevice& disk_;
    block::testing::SimulatedTime& time_;
    const Shape& shape_;
    std::vector<Slot> slots_;
    std::vector<double> latencies_;
    std::uint64_t next_ = 0;
    std::uint64_t asked_ = 0;
    bool stopped_ = false;
    sys::Moment until_ = sys::Moment::max();
};

inline double mean(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) {
        sum += value;
    }
    return values.empty() ? 0 : sum / static_cast<double>(values.size());
}
inline double percentile_99(std::vector<double>& values) {
    if (values.empty()) {
        return 0;
    }
    const auto place = values.begin() + static_cast<std::ptrdiff_t>(values.size() * 99 / 100);
    std::ranges::nth_element(values, place);
    return *place;
}

} // namespace godwit::bench
