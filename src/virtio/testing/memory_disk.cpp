#include "virtio/testing/memory_disk.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

namespace godwit::virtio::testing {

std::vector<MemoryDiskControl::Seen> MemoryDiskControl::seen() const {
    const std::lock_guard lock(mutex_);
    return seen_;
}

std::uint32_t MemoryDiskControl::kicks() const {
    const std::lock_guard lock(mutex_);
    return kicks_;
}

void MemoryDiskControl::fail_with(int os_errno) {
    const std::lock_guard lock(mutex_);
    os_errno_ = os_errno;
}

void MemoryDiskControl::hold(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
}

void MemoryDiskControl::hold_for_room() {
    const std::lock_guard lock(mutex_);
    held_ = true;
    for_room_ = true;
}

void MemoryDiskControl::release() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    for_room_ = false;
    if (disk_ != nullptr) {
        loop_->post([disk = disk_] { disk->complete_all(); });
    }
}

bool MemoryDiskControl::wait_for_requests(std::size_t count) {
    std::unique_lock lock(mutex_);
    return arrived_.wait_for(lock, std::chrono::seconds(10), [&] { return seen_.size() >= count; });
}

void MemoryDiskControl::resize(std::uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    bytes_ = bytes;
}

MemoryDisk::MemoryDisk(sys::EventLoop& loop,
                       block::BlockGeometry geometry,
                       std::shared_ptr<MemoryDiskControl> control)
    : loop_(loop), geometry_(geometry), control_(std::move(control)), content_(geometry.bytes) {
    const std::lock_guard lock(control_->mutex_);
    control_->bytes_ = geometry.bytes;
    control_->disk_ = this;
    control_->loop_ = &loop;
}

MemoryDisk::~MemoryDisk() {
    GODWIT_ASSERT(waiting_.empty());
    const std::lock_guard lock(control_->mutex_);
    control_->disk_ = nullptr;
}

void MemoryDisk::submit(block::BlockRequest& request) {
    waiting_.push_back(&request);
    const std::lock_guard lock(control_->mutex_);
    control_->seen_.push_back({.operation = request.operation,
                               .offset = request.offset,
                               .bytes = request.bytes,
                               .force_unit_access = request.force_unit_access,
                               .may_unmap = request.may_unmap});
    control_->arrived_.notify_all();
}

void MemoryDisk::set_patience(block::Patience patience) {
    const std::lock_guard lock(control_->mutex_);
    if (patience == block::Patience::waits || !control_->for_room_) {
        return;
    }
    loop_.post([this] {
        for (block::BlockRequest* request : std::exchange(waiting_, {})) {
            request->done(*request, Error(ErrorCode::cancelled, "there is no room"));
        }
    });
}

void MemoryDisk::kick() {
    const std::lock_guard lock(control_->mutex_);
    ++control_->kicks_;
    if (!control_->held_ && !waiting_.empty()) {
        loop_.post([this] { complete_all(); });
    }
}

void MemoryDisk::complete_all() {
    for (block::BlockRequest* request : std::exchange(waiting_, {})) {
        request->done(*request, perform(*request));
    }
}

Status MemoryDisk::perform(const block::BlockRequest& request) {
    {
        const std::lock_guard lock(control_->mutex_);
        if (control_->os_errno_ != 0) {
            return Error::from_errno(control_->os_errno_, "the test lets the disk fail");
        }
    }
    std::byte* at = content_.data() + request.offset;
    for (const iovec& segment : request.segments) {
        const bool reads = request.operation == block::BlockOperation::read;
        std::memcpy(reads ? segment.iov_base : at, reads ? at : segment.iov_base, segment.iov_len);
        at += segment.iov_len;
    }
    if (request.operation == block::BlockOperation::discard ||
        request.operation == block::BlockOperation::write_zeroes) {
        std::fill_n(at, request.bytes, std::byte{0});
    }
    return ok();
}

Result<block::BlockGeometry> MemoryDisk::refresh() {
    const std::lock_guard lock(control_->mutex_);
    geometry_.bytes = control_->bytes_;
    content_.resize(std::max<std::size_t>(content_.size(), geometry_.bytes));
    return geometry_;
}

} // namespace godwit::virtio::testing
