#include "doors/exported_disk.h"

#include "base/log.h"
#include "block/decorate/throttle_device.h"
#include "block/file_device.h"
#include "block/image.h"
#include "memory/data_runs.h"

#include <algorithm>
#include <optional>

namespace godwit::doors {

namespace {

constexpr std::chrono::milliseconds lock_pause(20);

struct LockedImage {
    block::ImagePlace place;
    sys::Fd image;
};

/// Opens the image where the note says it lies; nothing if the note says something else once the
/// lock is ours: a predecessor has moved it meanwhile.
Result<std::optional<LockedImage>> open_noted(const DiskOptions& options, const PlaceNote& note) {
    block::ImagePlace place = GODWIT_TRY(note.read());
    place.direct = place.direct && options.direct;
    sys::Fd image = GODWIT_TRY(
        block::open_image(place.path, {.read_only = options.read_only, .direct = place.direct}));
    const block::ImagePlace now = GODWIT_TRY(note.read());
    if (now.path != place.path) {
        return std::optional<LockedImage>();
    }
    return std::optional(LockedImage{.place = std::move(place), .image = std::move(image)});
}

/// A killed predecessor's lock ends with its last write, of which nobody is told: asked again.
Result<LockedImage>
open_when_free(const DiskOptions& options, const PlaceNote& note, const sys::Clock& clock) {
    const auto loop = GODWIT_TRY(sys::EventLoop::create());
    const sys::Moment end = clock.now() + options.lock_wait;
    for (;;) {
        Result<std::optional<LockedImage>> opened = open_noted(options, note);
        if (opened.has_value() && opened->has_value()) {
            return std::move(**opened);
        }
        const bool busy = !opened.has_value() && opened.error().code() == ErrorCode::busy;
        if (!opened.has_value() && (!busy || clock.now() >= end)) {
            return std::move(opened.error());
        }
        if (opened.has_value() && clock.now() >= end) {
            return Error(ErrorCode::busy, "'" + note.origin() + "' is being moved by others");
        }
        GODWIT_TRY(loop->run_once(lock_pause));
    }
}

} // namespace

Result<std::unique_ptr<ExportedDisk>> ExportedDisk::open(const DiskOptions& options,
                                                         const sys::Clock& clock) {
    PlaceNote note = GODWIT_TRY(PlaceNote::of(options.path, options.place));
    LockedImage opened = GODWIT_TRY(open_when_free(options, note, clock));
    if (opened.place.path != note.origin()) {
        log::info("image_lies_elsewhere",
                  {{"image", note.origin()}, {"place", opened.place.path}, {"note", note.path()}});
    }
    return create(
        options, std::move(note), std::move(opened.place), std::move(opened.image), clock);
}

Result<std::unique_ptr<ExportedDisk>> ExportedDisk::adopt(const DiskOptions& options,
                                                          block::ImagePlace place,
                                                          sys::Fd image,
                                                          const sys::Clock& clock) {
    PlaceNote note = GODWIT_TRY(PlaceNote::of(options.path, options.place));
    return create(options, std::move(note), std::move(place), std::move(image), clock);
}

Result<std::unique_ptr<ExportedDisk>> ExportedDisk::create(const DiskOptions& options,
                                                           PlaceNote note,
                                                           block::ImagePlace place,
                                                           sys::Fd image,
                                                           const sys::Clock& clock) {
    std::optional<block::DeviceProfile> profile;
    if (!options.profile.empty()) {
        profile = GODWIT_TRY(block::load_profile(options.profile));
    }
    auto thread = GODWIT_TRY(sys::IoThread::create("disk"));
    std::unique_ptr<ExportedDisk> made(
        new ExportedDisk(options, std::move(note), std::move(thread), clock));
    made->place_ = std::move(place);
    made->image_ = std::move(image);
    const auto start = [&]() -> Status {
        sys::Fd copy = GODWIT_TRY(made->image_.duplicate());
        std::unique_ptr<block::BlockDevice> file = GODWIT_TRY(
            block::FileDevice::create(std::move(copy), made->loop(), {.name = made->place_.path}));
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
    loop().run_and_wait([this] {
        if (move_ != nullptr) {
            move_->abandon();
        }
        disk_.reset();
        move_.reset();
    });
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
    return std::make_unique<DiskView>(*disk_, clock_, times_);
}

} // namespace godwit::doors
