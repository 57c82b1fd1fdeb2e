#include "doors/vhost/channel.h"

#include "sys/fd_stream.h"
#include "sys/stream.h"

#include <string>
#include <utility>

namespace godwit::doors::vhost {

Error Message::wrong_length(std::size_t expected) const {
    return Error(ErrorCode::corrupt,
                 "message " + std::to_string(header.request) + " is " +
                     std::to_string(payload.size()) + " bytes long, not " +
                     std::to_string(expected));
}

namespace {
constexpr std::chrono::seconds reply_patience(5);
} // namespace

Result<sys::Fd> Message::take_fd() {
    if (fds.size() != 1) {
        return Error(ErrorCode::corrupt,
                     "message " + std::to_string(header.request) + " came with " +
                         std::to_string(fds.size()) + " descriptors, not 1");
    }
    sys::Fd fd = std::move(fds.front());
    fds.clear();
    return fd;
}

/// The part of the message that follows its first `before` bytes, as far as it has not come yet.
Status Channel::fill(std::span<std::byte> out, std::size_t before, const sys::Fd& cancel) {
    while (got_ < before + out.size()) {
        GODWIT_TRY(sys::wait_readable(socket_, cancel));
        got_ +=
            GODWIT_TRY(sys::receive_with_fds(socket_, out.subspan(got_ - before), incoming_.fds));
        if (incoming_.fds.size() > message_fds_max) {
            return Error(ErrorCode::corrupt, "a message with too many descriptors");
        }
    }
    return ok();
}

Result<Message> Channel::receive(const sys::Fd& cancel) {
    const Header& header = incoming_.header;
    GODWIT_TRY(fill(std::as_writable_bytes(std::span(&incoming_.header, 1)), 0, cancel));
    if ((header.flags & flag_version_mask) != flag_version || (header.flags & flag_reply) != 0) {
        return Error(ErrorCode::corrupt,
                     "message " + std::to_string(header.request) + " with flags " +
                         std::to_string(header.flags));
    }
    if (header.bytes > payload_bytes_max) {
        return Error(ErrorCode::corrupt,
                     "message " + std::to_string(header.request) + " of " +
                         std::to_string(header.bytes) + " bytes");
    }
    incoming_.payload.resize(header.bytes);
    GODWIT_TRY(fill(incoming_.payload, sizeof(header), cancel));
    got_ = 0;
    return std::exchange(incoming_, Message());
}

Status Channel::reply(const Message& message,
                      std::span<const std::byte> payload,
                      const sys::Fd* fd) const {
    const Header header{.request = message.header.request,
                        .flags = flag_version | flag_reply,
                        .bytes = static_cast<std::uint32_t>(payload.size())};
    std::vector<std::byte> bytes(sizeof(header) + payload.size());
    std::memcpy(bytes.data(), &header, sizeof(header));
    if (!payload.empty()) {
        std::memcpy(bytes.data() + sizeof(header), payload.data(), payload.size());
    }
    // As short as it is, it fits whenever there is room at all.
    if (!GODWIT_TRY(sys::wait_ready(socket_, sys::Direction::output, reply_patience))) {
        return Error(ErrorCode::timeout, "the front end does not read its answers");
    }
    const sys::Fd* const fds[] = {fd};
    return sys::send_with_fds(socket_, bytes, std::span(fds).first(fd == nullptr ? 0 : 1));
}

} // namespace godwit::doors::vhost
