#include "doors/exported_disk.h"

#include "block/file_device.h"
#include "block/image.h"

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
    sys::Fd image = GODWIT_TRY(open_when_free(options, clock));
    auto thread = GODWIT_TRY(sys::IoThread::create("disk"));
    std::unique_ptr<ExportedDisk> made(new ExportedDisk(options.path, std::move(thread), clock));
    const auto start = [&]() -> Status {
        auto file = GODWIT_TRY(
            block::FileDevice::create(std::move(image), made->loop(), {.name = options.path}));
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

std::unique_ptr<block::BlockDevice> ExportedDisk::view() {
    return std::make_unique<View>(*disk_);
}

} // namespace godwit::doors
