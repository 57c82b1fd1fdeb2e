#include "doors/nbd/command.h"

#include <algorithm>
#include <string>

namespace godwit::doors::nbd {

namespace {

std::uint16_t flags_allowed(CommandType type) {
    switch (type) {
    case CommandType::write_zeroes:
        return command_flag::fua | command_flag::no_hole;
    case CommandType::block_status:
        return command_flag::fua | command_flag::request_one;
    case CommandType::read:
    case CommandType::write:
    case CommandType::trim:
    case CommandType::flush:
    case CommandType::disconnect:
        break;
    }
    return command_flag::fua; // Valid everywhere, though it means something for changes only.
}

Failure check_range(const Command& command, const block::BlockGeometry& geometry) {
    if (command.bytes == 0 || command.offset > geometry.bytes ||
        command.bytes > geometry.bytes - command.offset) {
        return command.type == CommandType::write ? Failure::no_space : Failure::invalid;
    }
    const bool whole = command.offset % geometry.logical_block_bytes == 0 &&
                       command.bytes % geometry.logical_block_bytes == 0;
    return whole ? Failure::none : Failure::invalid;
}

ReplyHead head_of(std::span<const std::byte> bytes) {
    ReplyHead head;
    head.size = bytes.size();
    std::copy(bytes.begin(), bytes.end(), head.bytes.begin());
    return head;
}

std::vector<std::byte>
chunk(const Command& command, std::uint16_t type, std::uint32_t payload_bytes) {
    std::vector<std::byte> out;
    out.reserve(sizeof(ReplyHead::bytes));
    put(out, magic_structured_reply);
    put(out, chunk_done);
    put(out, type);
    put(out, command.cookie);
    put(out, payload_bytes);
    return out;
}

} // namespace

Result<Command> read_command(std::span<const std::byte> in) {
    if (get<std::uint32_t>(in, 0) != magic_request) {
        return Error(ErrorCode::corrupt, "a request without its magic number");
    }
    const Command command{.type = static_cast<CommandType>(get<std::uint16_t>(in, 6)),
                          .flags = get<std::uint16_t>(in, 4),
                          .cookie = get<std::uint64_t>(in, 8),
                          .offset = get<std::uint64_t>(in, 16),
                          .bytes = get<std::uint32_t>(in, 24)};
    if (command.payload_bytes() > payload_bytes_max) {
        return Error(ErrorCode::corrupt,
                     "a write of " + std::to_string(command.bytes) + " bytes, at most " +
                         std::to_string(payload_bytes_max) + " are possible");
    }
    return command;
}

Failure to_request(const Command& command,
                   const block::BlockGeometry& geometry,
                   block::BlockRequest& request) {
    request = {};
    switch (command.type) {
    case CommandType::read:
        request.operation = block::BlockOperation::read;
        break;
    case CommandType::write:
        request.operation = block::BlockOperation::write;
        break;
    case CommandType::trim:
        request.operation = block::BlockOperation::discard;
        break;
    case CommandType::write_zeroes:
        request.operation = block::BlockOperation::write_zeroes;
        request.may_unmap = (command.flags & command_flag::no_hole) == 0;
        break;
    case CommandType::flush:
        request.operation = block::BlockOperation::flush; // Offset and length mean nothing.
        return (command.flags & ~flags_allowed(command.type)) != 0 ? Failure::invalid
                                                                   : Failure::none;
    case CommandType::block_status:
    case CommandType::disconnect:
    default:
        return Failure::invalid;
    }
    if ((command.flags & ~flags_allowed(command.type)) != 0) {
        return Failure::invalid;
    }
    if (block::changes_data(request.operation) && geometry.read_only) {
        return Failure::not_permitted;
    }
    if (command.type == CommandType::read && command.bytes > payload_bytes_max) {
        return Failure::invalid;
    }
    request.force_unit_access =
        block::changes_data(request.operation) && (command.flags & command_flag::fua) != 0;
    request.offset = command.offset;
    request.bytes = command.bytes;
    return check_range(command, geometry);
}

Failure check_status(const Command& command, const block::BlockGeometry& geometry) {
    if ((command.flags & ~flags_allowed(command.type)) != 0) {
        return Failure::invalid;
    }
    return check_range(command, geometry);
}

ReplyHead read_reply(const Command& command, ReplyForm form) {
    if (form == ReplyForm::simple) {
        return plain_reply(command, form, Failure::none);
    }
    std::vector<std::byte> out =
        chunk(command,
              chunk_offset_data,
              static_cast<std::uint32_t>(sizeof(std::uint64_t)) + command.bytes);
    put(out, command.offset);
    return head_of(out);
}

ReplyHead plain_reply(const Command& command, ReplyForm form, Failure failure) {
    if (form == ReplyForm::structured && failure != Failure::none) {
        std::vector<std::byte> out = chunk(command, chunk_error, 6);
        put(out, static_cast<std::uint32_t>(failure));
        put(out, std::uint16_t{0}); // No text.
        return head_of(out);
    }
    std::vector<std::byte> out;
    if (form == ReplyForm::structured) {
        out = chunk(command, 0, 0); // NBD_REPLY_TYPE_NONE
        return head_of(out);
    }
    put(out, magic_simple_reply);
    put(out, static_cast<std::uint32_t>(failure));
    put(out, command.cookie);
    return head_of(out);
}

ReplyHead status_reply(const Command& command, std::uint32_t extents_bytes) {
    std::vector<std::byte> out =
        chunk(command,
              chunk_block_status,
              static_cast<std::uint32_t>(sizeof(allocation_context_id)) + extents_bytes);
    put(out, allocation_context_id);
    return head_of(out);
}

} // namespace godwit::doors::nbd
