#include "block/file_operation.h"

#include "block/segments.h"

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

namespace godwit::block {

namespace {

/// Times an operation is tried again when the kernel says EAGAIN or EINTR.
constexpr std::uint32_t retries_max = 64;
/// Segments of zeros per write: 1 MiB.
constexpr std::uint64_t zero_segments_max = 8;

std::string_view name_of(BlockOperation operation) noexcept {
    switch (operation) {
    case BlockOperation::read:
        return "read";
    case BlockOperation::write:
        return "write";
    case BlockOperation::flush:
        return "flush";
    case BlockOperation::discard:
        return "discard";
    case BlockOperation::write_zeroes:
        return "write-zeroes";
    }
    return "request";
}

std::string describe(const BlockRequest& request, const std::string& image) {
    return std::string(name_of(request.operation)) + " of " + std::to_string(request.bytes) +
           " bytes at " + std::to_string(request.offset) + " of '" + image + "'";
}

bool is_refusal(std::int32_t result) noexcept {
    return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENODEV;
}

} // namespace

FileOperation::Progress
FileOperation::begin(BlockRequest& request, std::uint64_t token, FileContext& context) {
    request_ = &request;
    token_ = token;
    retries_ = 0;
    moved_bytes_ = 0;
    status_ = validate(request, context.facts.geometry);
    bounced_ = context.facts.direct &&
               !is_aligned(request.segments,
                           {.address_bytes = context.facts.geometry.memory_alignment_bytes,
                            .length_bytes = context.facts.transfer_alignment_bytes});
    step_ = status_.has_value() ? first_step(context) : Step::nothing;
    return issue(context);
}

FileOperation::Step FileOperation::first_step(const FileContext& context) const noexcept {
    switch (request_->operation) {
    case BlockOperation::read:
    case BlockOperation::write:
        return Step::transfer;
    case BlockOperation::flush:
        return context.facts.geometry.read_only ? Step::nothing : Step::flush;
    case BlockOperation::discard:
        // A hint: an image that cannot give space back keeps it.
        return context.facts.geometry.can_discard && context.punches_holes ? Step::change_space
                                                                           : Step::nothing;
    case BlockOperation::write_zeroes:
        return context.zero_method == ZeroMethod::write ? Step::write_zeros : Step::change_space;
    }
    return Step::nothing;
}

namespace {

sys::SpaceChange space_change_for(const BlockRequest& request, const FileContext& context) {
    const bool punch = request.operation == BlockOperation::discard ||
                       context.zero_method == ZeroMethod::punch_hole ||
                       (request.may_unmap && context.punches_holes);
    return punch ? sys::SpaceChange::punch_hole : sys::SpaceChange::zero_range;
}

} // namespace

sys::WriteMode FileOperation::write_mode() const noexcept {
    return request_->force_unit_access ? sys::WriteMode::durable : sys::WriteMode::buffered;
}

FileOperation::Progress FileOperation::issue(FileContext& context) {
    switch (step_) {
    case Step::nothing:
        context.ring.nothing(token_);
        return Progress::in_ring;
    case Step::transfer:
        return issue_transfer(context);
    case Step::write_zeros:
        issue_write_zeros(context);
        return Progress::in_ring;
    case Step::change_space:
        change_ = space_change_for(*request_, context);
        context.ring.change_space(
            token_, change_, {.offset = request_->offset, .bytes = request_->bytes});
        return Progress::in_ring;
    case Step::flush:
        context.ring.flush(token_);
        return Progress::in_ring;
    }
    std::unreachable();
}

FileOperation::Progress FileOperation::issue_transfer(FileContext& context) {
    const bool writes = request_->operation == BlockOperation::write;
    std::span<const iovec> segments = request_->segments;
    if (bounced_) {
        if (buffer_.empty()) {
            buffer_ = context.pool.try_take();
        }
        if (buffer_.empty()) {
            return Progress::needs_buffer;
        }
        const auto piece =
            buffer_.first(std::min<std::uint64_t>(buffer_.size(), request_->bytes - moved_bytes_));
        if (writes) {
            gather(request_->segments, moved_bytes_, piece);
        }
        part_.assign(1, {.iov_base = piece.data(), .iov_len = piece.size()});
        segments = part_;
    } else if (moved_bytes_ != 0) {
        slice(request_->segments, moved_bytes_, request_->bytes - moved_bytes_, part_);
        segments = part_;
    }
    const std::uint64_t offset = request_->offset + moved_bytes_;
    if (writes) {
        context.ring.write(token_, segments, offset, write_mode());
    } else {
        context.ring.read(token_, segments, offset);
    }
    return Progress::in_ring;
}

void FileOperation::issue_write_zeros(FileContext& context) {
    const std::span<std::byte> zeros = context.pool.zeros();
    part_.clear();
    std::uint64_t left = request_->bytes - moved_bytes_;
    while (left > 0 && part_.size() < zero_segments_max) {
        const std::uint64_t length = std::min<std::uint64_t>(left, zeros.size());
        part_.push_back({.iov_base = zeros.data(), .iov_len = length});
        left -= length;
    }
    context.ring.write(token_, part_, request_->offset + moved_bytes_, write_mode());
}

FileOperation::Progress FileOperation::complete(std::int32_t result, FileContext& context) {
    if ((result == -EAGAIN || result == -EINTR) && retries_ < retries_max) {
        ++retries_;
        return issue(context);
    }
    if (step_ == Step::nothing) {
        return finish(std::move(status_), context);
    }
    if (step_ == Step::change_space && is_refusal(result)) {
        return after_refused_space_change(context);
    }
    if (result < 0) {
        return finish(Error::from_errno(-result, describe(*request_, context.name)), context);
    }
    if (step_ == Step::transfer || step_ == Step::write_zeros) {
        return after_transfer(static_cast<std::uint64_t>(result), context);
    }
    if (step_ == Step::change_space) {
        return after_data(context);
    }
    return finish(ok(), context);
}

FileOperation::Progress FileOperation::after_transfer(std::uint64_t bytes, FileContext& context) {
    if (bytes == 0) {
        return finish(Error(ErrorCode::io,
                            describe(*request_, context.name) +
                                ": the image ends there, it was made smaller under the machine"),
                      context);
    }
    if (bounced_ && request_->operation == BlockOperation::read) {
        scatter(buffer_.first(bytes), request_->segments, moved_bytes_);
    }
    moved_bytes_ += bytes;
    if (moved_bytes_ < request_->bytes) {
        return issue(context);
    }
    // A durable write is durable by itself.
    return finish(ok(), context);
}

FileOperation::Progress FileOperation::after_refused_space_change(FileContext& context) {
    if (change_ == sys::SpaceChange::punch_hole) {
        context.punches_holes = false;
        if (context.zero_method == ZeroMethod::punch_hole) {
            context.zero_method = ZeroMethod::write;
        }
    } else {
        context.zero_method = context.punches_holes ? ZeroMethod::punch_hole : ZeroMethod::write;
    }
    step_ = first_step(context);
    return issue(context);
}

FileOperation::Progress FileOperation::after_data(FileContext& context) {
    if (!request_->force_unit_access) {
        return finish(ok(), context);
    }
    step_ = Step::flush;
    return issue(context);
}

FileOperation::Progress FileOperation::finish(Status status, FileContext& context) {
    if (!buffer_.empty()) {
        context.pool.give_back(std::exchange(buffer_, {}));
    }
    status_ = std::move(status);
    return Progress::done;
}

FileOperation::Result FileOperation::take_result() noexcept {
    return {.request = std::exchange(request_, nullptr), .status = std::exchange(status_, ok())};
}

} // namespace godwit::block
