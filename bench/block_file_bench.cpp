// How much our block device costs over the bare kernel: 4 KiB random reads and writes with O_DIRECT
// at queue depth 1 and 32, as operations per second. bench/block_file.py runs fio's io_uring engine
// on the same file in turns with this and prints the ratio.
//
//     block_file_bench IMAGE read|write DEPTH SECONDS [movable]
//
// movable: under a MovingDevice without a move, as a guest's disk is (HS-1).
#include "block/file_device.h"
#include "block/move/moving_device.h"
#include "sys/clock.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace godwit;

constexpr std::uint64_t block_bytes = 4096;

/// Keeps `depth` requests in flight until the deadline.
class Load {
  public:
    Load(block::BlockDevice& device, sys::EventLoop& loop, block::BlockOperation operation)
        : device_(device), loop_(loop), operation_(operation),
          blocks_(device.geometry().bytes / block_bytes) {}

    /// Operations per second.
    Result<double> run(std::size_t depth, std::chrono::seconds duration) {
        std::vector<block::BlockRequest> requests(depth);
        std::vector<iovec> segments(depth);
        deadline_ = sys::system_clock().now() + duration;
        const sys::Moment start = sys::system_clock().now();
        for (std::size_t i = 0; i < depth; ++i) {
            void* memory = std::aligned_alloc(block_bytes, block_bytes);
            std::memset(memory, static_cast<int>(i), block_bytes);
            segments[i] = {.iov_base = memory, .iov_len = block_bytes};
            requests[i].operation = operation_;
            requests[i].segments = {&segments[i], 1};
            requests[i].owner = this;
            requests[i].done = [](block::BlockRequest& request, Status status) noexcept {
                static_cast<Load*>(request.owner)->done(request, std::move(status));
            };
            submit(requests[i]);
        }
        device_.kick();
        GODWIT_TRY(loop_.run());
        GODWIT_TRY(std::move(outcome_));
        for (const iovec& segment : segments) {
            std::free(segment.iov_base);
        }
        const auto elapsed = sys::microseconds_between(start, sys::system_clock().now());
        return static_cast<double>(completed_) * 1e6 / static_cast<double>(elapsed);
    }

  private:
    void submit(block::BlockRequest& request) {
        request.offset = random_() % blocks_ * block_bytes;
        request.bytes = block_bytes;
        device_.submit(request);
    }
    void done(block::BlockRequest& request, Status status) noexcept {
        ++completed_;
        if (!status.has_value()) {
            outcome_ = std::move(status);
        }
        if (outcome_.has_value() && sys::system_clock().now() < deadline_) {
            submit(request);
        } else if (device_.in_flight() == 0) {
            loop_.stop();
        }
    }

    block::BlockDevice& device_;
    sys::EventLoop& loop_;
    block::BlockOperation operation_;
    std::uint64_t blocks_;
    std::minstd_rand random_{1};
    sys::Moment deadline_;
    std::uint64_t completed_ = 0;
    Status outcome_;
};

enum class Layers : std::uint8_t { file, movable };

Result<double>
measure(const std::string& path, bool writes, std::size_t depth, long seconds, Layers layers) {
    auto loop = GODWIT_TRY(sys::EventLoop::create());
    sys::LoopAlarmClock clock(*loop, sys::system_clock());
    sys::Fd image = GODWIT_TRY(block::open_image(path, {}));
    std::unique_ptr<block::BlockDevice> device =
        GODWIT_TRY(block::FileDevice::create(std::move(image), *loop, {.name = path}));
    if (layers == Layers::movable) {
        device = GODWIT_TRY(block::MovingDevice::create(std::move(device), clock));
    }
    Load load(*device, *loop, writes ? block::BlockOperation::write : block::BlockOperation::read);
    return load.run(depth, std::chrono::seconds(seconds));
}

} // namespace

int main(int argc, char** argv) {
    const bool movable = argc == 6 && std::string_view(argv[5]) == "movable";
    if (argc != 5 && !movable) {
        std::fprintf(stderr, "usage: %s IMAGE read|write DEPTH SECONDS [movable]\n", argv[0]);
        return 2;
    }
    const auto rate = measure(argv[1],
                              std::string_view(argv[2]) == "write",
                              std::strtoul(argv[3], nullptr, 10),
                              std::strtol(argv[4], nullptr, 10),
                              movable ? Layers::movable : Layers::file);
    if (!rate.has_value()) {
        std::fprintf(stderr, "%s\n", rate.error().to_string().c_str());
        return 1;
    }
    std::printf("%.0f\n", *rate);
    return 0;
}
