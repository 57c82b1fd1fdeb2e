#include "virtio/blk/blk_request.h"

#include "base/units.h"
#include "block/segments.h"
#include "virtio/blk/blk_config.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace godwit::virtio {

namespace {

// Request types (section 5.2.6).
constexpr std::uint32_t type_in = 0;
constexpr std::uint32_t type_out = 1;
constexpr std::uint32_t type_flush = 4;
constexpr std::uint32_t type_get_id = 8;
constexpr std::uint32_t type_discard = 11;
constexpr std::uint32_t type_write_zeroes = 13;

struct Header {
    std::uint32_t type;
    std::uint32_t reserved;
    std::uint64_t sector;
};
static_assert(sizeof(Header) == 16);

/// struct virtio_blk_discard_write_zeroes.
struct Range {
    std::uint64_t sector;
    std::uint32_t sectors;
    std::uint32_t flags;
};
static_assert(sizeof(Range) == 16);
constexpr std::uint32_t range_unmap = 1;

constexpr std::uint64_t status_bytes = 1;

using Answer = std::optional<BlkStatus>;

/// Sets offset and length if they lie on whole blocks of the disk.
bool place(const block::BlockGeometry& disk,
           std::uint64_t sector,
           std::uint64_t bytes,
           block::BlockRequest& request) {
    if (bytes == 0 || sector > disk.bytes / sector_size) {
        return false;
    }
    const std::uint64_t offset = sector * sector_size;
    if (bytes > disk.bytes - offset || offset % disk.logical_block_bytes != 0 ||
        bytes % disk.logical_block_bytes != 0) {
        return false;
    }
    request.offset = offset;
    request.bytes = bytes;
    return true;
}

Answer read_transfer(const Chain& chain,
                     const Header& header,
                     const BlkRules& rules,
                     block::BlockRequest& request,
                     std::vector<iovec>& segments) {
    const bool writes = header.type == type_out;
    const std::uint64_t bytes =
        writes ? chain.readable_bytes - sizeof(Header) : chain.writable_bytes - status_bytes;
    if ((writes && rules.geometry.read_only) ||
        !place(rules.geometry, header.sector, bytes, request)) {
        return BlkStatus::io_error;
    }
    request.operation = writes ? block::BlockOperation::write : block::BlockOperation::read;
    request.force_unit_access = writes && rules.write_through;
    block::slice(
        writes ? chain.readable : chain.writable, writes ? sizeof(Header) : 0, bytes, segments);
    request.segments = segments;
    return std::nullopt;
}

Answer read_range(const Chain& chain,
                  const Header& header,
                  const BlkRules& rules,
                  block::BlockRequest& request) {
    const bool discards = header.type == type_discard;
    if (discards ? !rules.discard : !rules.write_zeroes) {
        return BlkStatus::unsupported;
    }
    if (rules.geometry.read_only || chain.readable_bytes != sizeof(Header) + sizeof(Range)) {
        return BlkStatus::io_error;
    }
    Range range{};
    chain.copy_out(sizeof(Header), std::as_writable_bytes(std::span(&range, 1)));
    if ((range.flags & ~(discards ? 0 : range_unmap)) != 0) {
        return BlkStatus::unsupported; // section 5.2.6.2
    }
    if (range.sectors > blk_discard_sectors_max ||
        !place(rules.geometry, range.sector, range.sectors * sector_size, request)) {
        return BlkStatus::io_error;
    }
    request.operation =
        discards ? block::BlockOperation::discard : block::BlockOperation::write_zeroes;
    request.may_unmap = (range.flags & range_unmap) != 0;
    request.force_unit_access = rules.write_through;
    return std::nullopt;
}

BlkStatus answer_serial(const Chain& chain, std::string_view serial) {
    if (chain.writable_bytes < blk_serial_bytes + status_bytes) {
        return BlkStatus::io_error;
    }
    std::array<std::byte, blk_serial_bytes> text{};
    std::memcpy(text.data(), serial.data(), std::min(serial.size(), text.size()));
    chain.copy_in(0, text);
    return BlkStatus::ok;
}

} // namespace

Result<Answer> read_blk_request(const Chain& chain,
                                const BlkRules& rules,
                                block::BlockRequest& request,
                                std::vector<iovec>& segments) {
    Header header{};
    if (chain.copy_out(0, std::as_writable_bytes(std::span(&header, 1))) != sizeof(header)) {
        return Error(ErrorCode::corrupt, "virtio-blk: request shorter than its header");
    }
    if (chain.writable_bytes < status_bytes) {
        return Error(ErrorCode::corrupt, "virtio-blk: request without a place for its status");
    }
    request = {};
    switch (header.type) {
    case type_in:
    case type_out:
        return read_transfer(chain, header, rules, request, segments);
    case type_flush:
        request.operation = block::BlockOperation::flush;
        return Answer(std::nullopt);
    case type_get_id:
        return Answer(answer_serial(chain, rules.serial));
    case type_discard:
    case type_write_zeroes:
        return read_range(chain, header, rules, request);
    default:
        return Answer(BlkStatus::unsupported);
    }
}

} // namespace godwit::virtio
