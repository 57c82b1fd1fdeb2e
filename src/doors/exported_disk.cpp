#include "doors/exported_disk.h"

#include "block/decorate/throttle_device.h"
#include "block/file_device.h"
#include "block/image.h"
#include "memory/data_runs.h"

#include <algorithm>
#include <optional>

namespace godwit::doors {

namespace {

/// Passes everything on. Requests carry their own way back, so that nothing is to be kept here.
class View final : public block::BlockDevice {
  public:
    explicit View(block::BlockDevice& disk) : disk_(disk) {}
    [[nodiscard]] const block::BlockGeometry& geometry() const noexcept override {
        return disk_.geometry();
    }
    void submit(block::BlockRequest& request) override { disk_.submit(request); }
    void kick() override { disk_.kick(); }
    [[nodiscard]] std::uint32_t in_flight() const noexcept override { return disk_.in_flight(); }
    [[nodiscard]] Result<block::BlockGeometry> refresh() override { return disk_.refresh(); }
    [[nodiscard]] std::string description() const override { return disk_.description(); }

  private:
    block::BlockDevice& disk_;
};

constexpr std::chrono::milliseconds lock_pause(20);

/// A killed predecessor's lock ends with its last write, of which nobody is told: asked again.
Result<sys::Fd> open_when_free(const DiskOptions& options, const sys::Clock& clock) {
    const auto loop = GODWIT_TRY(sys::EventLoop::create());
    const sys::Moment end = clock.now() + options.lock_wait;
    for (;;) {
        Result<sys::Fd> image = block::open_image(
            options.path, {.read_only = options.read_only, .direct = options.direct});
        if (image.has_value() || image.error().code() != ErrorCode::busy || clock.now() >= end) {
            return image;
        }
        GODWIT_TRY(loop->run_once(lock_pause));
    }
}

} // namespace

Result<std::unique_ptr<ExportedDisk>> ExportedDisk::open(const DiskOptions& options,
                                                         const sys::Clock& clock) {
    std::optional<block::DeviceProfile> profile;
    if (!options.profile.empty()) {
        profile = GODWIT_TRY(block::load_profile(options.profile));
    }
    sys::Fd image = GODWIT_TRY(open_when_free(options, clock));
    auto thread = GODWIT_TRY(sys::IoThread::create("disk"));
    std::unique_ptr<ExportedDisk> made(new ExportedDisk(options.path, std::move(thread), clock));
    const auto start = [&]() -> Status {
        std::unique_ptr<block::BlockDevice> file = GODWIT_TRY(
            block::FileDevice::create(std::move(image), made->loop(), {.name = options.path}));
        if (profile.has_value()) {
            file = GODWIT_TRY(
                block::ThrottleDevice::create(std::move(file), made->alarms_, std::move(*profile)));
        }
        made->disk_ = GODWIT_TRY(block::MovingDevice::create(std::move(file), made->alarms_));
        made->geometry_ = made->disk_->geometry();
        return ok();
    };
    Status started;
    made->loop().run_and_wait([&] { started = start(); });
    GODWIT_TRY(std::move(started));
    return made;
}

ExportedDisk::~ExportedDisk() {
    loop().run_and_wait([this] { disk_.reset(); });
}

std::vector<ExportedDisk::Extent>
ExportedDisk::extents(std::uint64_t offset, std::uint64_t bytes, std::size_t count) {
    const auto* const file = dynamic_cast<const block::FileDevice*>(&disk_->current());
    if (disk_->moving() || file == nullptr) {
        return {{.bytes = bytes, .hole = false}};
    }
    std::vector<Extent> found;
    const std::uint64_t block = disk_->geometry().logical_block_bytes;
    const std::uint64_t end = offset + bytes;
    while (offset < end && found.size() < count) {
        const auto run = memory::next_data(file->image(), offset, end);
        if (!run.has_value()) {
            found.push_back({.bytes = end - offset, .hole = false});
            break;
        }
        // Whole blocks, and what is data in part is data.
        const bool data_left = run->start < run->end;
        const std::uint64_t start = data_left ? run->start / block * block : end;
        if (start > offset) {
            found.push_back({.bytes = start - offset, .hole = true});
            offset = start;
        } else {
            const std::uint64_t stop = std::min(round_up(run->end, block), end);
            found.push_back({.bytes = stop - offset, .hole = false});
            offset = stop;
        }
    }
    return found;
}

std::unique_ptr<block::BlockDevice> ExportedDisk::view() {
    return std::make_unique<View>(*disk_);
}

} // namespace godwit::doors
