#include "block/move/speed_probe.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace godwit::block {

namespace {
constexpr std::uint64_t large_bytes = std::uint64_t{1} << 20U;
constexpr std::uint64_t small_bytes = 4096;
constexpr std::uint32_t requests_per_series = 10;
/// Contents that no device makes smaller on its way.
constexpr std::uint64_t odd_step = 0x9e3779b97f4a7c15;
} // namespace

SpeedProbe::SpeedProbe(BlockDevice& device, const sys::Clock& clock, May may)
    : device_(device), clock_(clock), may_(may), buffer_(large_bytes) {
    std::uint64_t word = odd_step;
    for (std::size_t at = 0; at + sizeof(word) <= buffer_.size(); at += sizeof(word)) {
        std::memcpy(buffer_.bytes().data() + at, &word, sizeof(word));
        word = word * odd_step + 1;
    }
}

void SpeedProbe::start(Answer answer) {
    answer_ = std::move(answer);
    begin_series();
}

void SpeedProbe::begin_series() {
    requests_ = 0;
    started_ = clock_.now();
    next();
}

void SpeedProbe::next() {
    constexpr std::array operations{BlockOperation::read, BlockOperation::write};
    const std::uint64_t block = device_.geometry().logical_block_bytes;
    const std::uint64_t disk = device_.geometry().bytes;
    const bool large = series_ % 2 == 0;
    bytes_ = std::min(large ? large_bytes : std::max(small_bytes, block), disk) / block * block;
    const std::uint64_t places = disk / bytes_;
    // Small ones go where neither the disk's head nor its reading ahead expects them.
    place_ = large ? requests_ % places : (requests_ + 1) * (odd_step >> 20U) % places;
    segment_ = {.iov_base = buffer_.bytes().data(), .iov_len = bytes_};
    request_ = {.operation = operations[series_ / 2],
                .offset = place_ * bytes_,
                .bytes = bytes_,
                .segments = {&segment_, 1},
                .done = &SpeedProbe::done,
                .owner = this};
    device_.submit(request_);
    device_.kick();
}

void SpeedProbe::done(BlockRequest& request, Status status) noexcept {
    auto& probe = *static_cast<SpeedProbe*>(request.owner);
    if (!probe.answer_) {
        return;
    }
    if (status.has_value() && probe.stopped_) {
        status = Error(ErrorCode::cancelled, "measuring a device was stopped");
    }
    if (!status.has_value()) {
        Answer answer = std::move(probe.answer_);
        answer(std::move(status.error()));
        return;
    }
    if (++probe.requests_ < requests_per_series) {
        probe.next();
    } else {
        probe.end_series();
    }
}

void SpeedProbe::end_series() {
    const double seconds =
        std::max(1e-9, std::chrono::duration<double>(clock_.now() - started_).count()) /
        requests_per_series;
    const bool reads = series_ / 2 == 0;
    if (series_ % 2 == 0) {
        (reads ? speed_.read_bytes_per_second : speed_.write_bytes_per_second) =
            static_cast<double>(bytes_) / seconds;
    } else {
        (reads ? speed_.read_latency_seconds : speed_.write_latency_seconds) = seconds;
        (reads ? speed_.read_operation_seconds : speed_.write_operation_seconds) = seconds;
    }
    ++series_;
    if (series_ == (may_ == May::read ? 2U : 4U)) {
        if (may_ == May::read) { // Not to be tried: taken to be as quick as reading.
            speed_.write_bytes_per_second = speed_.read_bytes_per_second;
            speed_.write_latency_seconds = speed_.read_latency_seconds;
            speed_.write_operation_seconds = speed_.read_operation_seconds;
        }
        Answer answer = std::move(answer_);
        answer(speed_);
        return;
    }
    begin_series();
}

} // namespace godwit::block
