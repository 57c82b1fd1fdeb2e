#include "block/block_device.h"

namespace godwit::block {

namespace {

Status validate_segments(const BlockRequest& request) {
    if (request.segments.size() > segments_max || request.bytes > transfer_bytes_max) {
        return Error(ErrorCode::invalid_argument,
                     "a disk request of " + std::to_string(request.bytes) + " bytes in " +
                         std::to_string(request.segments.size()) + " segments is too large");
    }
    std::uint64_t total = 0;
    for (const iovec& segment : request.segments) {
        if (segment.iov_len > request.bytes - total) {
            return Error(ErrorCode::invalid_argument,
                         "the segments of a disk request are longer than the request");
        }
        total += segment.iov_len;
    }
    if (total != request.bytes) {
        return Error(ErrorCode::invalid_argument,
                     "the segments of a disk request are shorter than the request");
    }
    return ok();
}

} // namespace

Status validate(const BlockRequest& request, const BlockGeometry& geometry) {
    if (changes_data(request.operation) && geometry.read_only) {
        return Error(ErrorCode::permission_denied, "the disk is read-only");
    }
    if (request.operation == BlockOperation::flush) {
        return ok();
    }
    const std::uint64_t block = geometry.logical_block_bytes;
    if (request.bytes == 0 || request.bytes % block != 0 || request.offset % block != 0) {
        return Error(ErrorCode::invalid_argument,
                     "a disk request of " + std::to_string(request.bytes) + " bytes at " +
                         std::to_string(request.offset) + " is not made of whole blocks of " +
                         std::to_string(block) + " bytes");
    }
    if (request.offset > geometry.bytes || request.bytes > geometry.bytes - request.offset) {
        return Error(ErrorCode::invalid_argument,
                     "a disk request of " + std::to_string(request.bytes) + " bytes at " +
                         std::to_string(request.offset) + " goes beyond the disk's " +
                         std::to_string(geometry.bytes) + " bytes");
    }
    if (request.operation == BlockOperation::read || request.operation == BlockOperation::write) {
        return validate_segments(request);
    }
    return ok();
}

} // namespace godwit::block
