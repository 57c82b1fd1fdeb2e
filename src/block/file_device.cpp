#include "block/file_device.h"

#include "base/log.h"
#include "block/file_operation.h"

#include <sys/epoll.h>

#include <array>
#include <chrono>

namespace godwit::block {

namespace {
constexpr std::size_t completions_per_round = 64;
/// Rounds per wake-up; then other watches of the loop have their turn.
constexpr int rounds_max = 4;
/// When the kernel is short of memory for requests.
constexpr std::chrono::milliseconds submit_retry_delay(1);
} // namespace

Result<std::unique_ptr<FileDevice>>
FileDevice::create(sys::Fd image, sys::EventLoop& loop, FileDeviceOptions options) {
    ImageFacts facts = GODWIT_TRY(inspect_image(image, options.name));
    auto ring = GODWIT_TRY(sys::FileRing::create(image, options.queue_depth));
    BouncePool pool = GODWIT_TRY(BouncePool::create());
    std::unique_ptr<FileDevice> device(new FileDevice(
        std::move(image), loop, std::move(ring), std::move(pool), options.queue_depth));
    device->context_ = std::make_unique<FileContext>(FileContext{.name = std::move(options.name),
                                                                 .facts = facts,
                                                                 .ring = *device->ring_,
                                                                 .pool = device->pool_});
    device->watch_ =
        GODWIT_TRY(loop.watch(device->ring_->event().fd(),
                              EPOLLIN | EPOLLET,
                              [raw = device.get()](std::uint32_t) { raw->on_ready(); }));
    return device;
}

FileDevice::FileDevice(sys::Fd image,
                       sys::EventLoop& loop,
                       std::unique_ptr<sys::FileRing> ring,
                       BouncePool pool,
                       std::uint32_t queue_depth)
    : image_(std::move(image)), loop_(loop), ring_(std::move(ring)), pool_(std::move(pool)),
      operations_(queue_depth) {
    idle_.reserve(queue_depth);
    starved_.reserve(queue_depth);
    for (std::uint32_t index = queue_depth; index-- > 0;) {
        idle_.push_back(index);
    }
}

FileDevice::~FileDevice() {
    watch_.reset();
    while (in_flight_ > 0) {
        const Status status = ring_->submit_and_wait();
        // Only a shortage passes; anything else is a call from the wrong thread.
        GODWIT_ASSERT(status.has_value() || status.error().code() == ErrorCode::busy);
        on_ready();
    }
}

const BlockGeometry& FileDevice::geometry() const noexcept {
    return context_->facts.geometry;
}

void FileDevice::submit(BlockRequest& request) {
    ++in_flight_;
    if (held_.empty() && !idle_.empty()) {
        start(request);
    } else {
        held_.push(request);
    }
}

void FileDevice::start(BlockRequest& request) {
    const std::uint32_t index = idle_.back();
    idle_.pop_back();
    if (operations_[index].begin(request, index, *context_) ==
        FileOperation::Progress::needs_buffer) {
        starved_.push_back(index);
    }
}

void FileDevice::kick() {
    if (ring_->unsubmitted() > 0) {
        submit_to_kernel();
    }
}

void FileDevice::submit_to_kernel() {
    const Status status = ring_->submit();
    if (ring_->unsubmitted() == 0) {
        retry_.reset();
        return;
    }
    if (retry_.active()) {
        return;
    }
    log::warn("block_submit_delayed",
              {{"disk", context_->name},
               {"reason", status.has_value() ? "partly taken" : status.error().to_string()}});
    auto timer =
        loop_.schedule(submit_retry_delay, submit_retry_delay, [this] { submit_to_kernel(); });
    if (timer.has_value()) {
        retry_ = std::move(*timer);
    } // Else the next kick() or completion tries again.
}

void FileDevice::on_ready() {
    ring_->disarm();
    for (int round = 0; round < rounds_max; ++round) {
        std::array<sys::Completion, completions_per_round> batch{};
        const std::size_t count = ring_->reap(batch);
        for (const sys::Completion& completion : std::span(batch).first(count)) {
            complete(completion);
        }
        start_waiting();
        kick();
        if (ring_->arm()) {
            return;
        }
        ring_->disarm();
    }
    // More is there; come back after the loop's other watches had their turn.
    if (!ring_->arm()) {
        ring_->event().signal();
    }
}

void FileDevice::complete(const sys::Completion& completion) {
    FileOperation& operation = operations_[completion.token];
    const auto index = static_cast<std::uint32_t>(completion.token);
    switch (operation.complete(completion.result, *context_)) {
    case FileOperation::Progress::in_ring:
        return;
    case FileOperation::Progress::needs_buffer:
        starved_.push_back(index);
        return;
    case FileOperation::Progress::done:
        break;
    }
    FileOperation::Result result = operation.take_result();
    idle_.push_back(index);
    --in_flight_;
    result.request->done(*result.request, std::move(result.status));
}

void FileDevice::start_waiting() {
    // The oldest first. Order among them is not promised to anyone, but none may wait for ever.
    std::size_t resumed = 0;
    while (resumed < starved_.size() &&
           operations_[starved_[resumed]].resume(*context_) == FileOperation::Progress::in_ring) {
        ++resumed;
    }
    starved_.erase(starved_.begin(), starved_.begin() + static_cast<std::ptrdiff_t>(resumed));
    while (!held_.empty() && !idle_.empty()) {
        start(*held_.try_pop());
    }
}

Result<BlockGeometry> FileDevice::refresh() {
    context_->facts = GODWIT_TRY(inspect_image(image_, context_->name));
    return context_->facts.geometry;
}

std::string FileDevice::description() const {
    return std::string(context_->facts.block_device ? "block device " : "file ") + context_->name;
}

} // namespace godwit::block
