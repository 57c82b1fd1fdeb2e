#pragma once

/// vhost-user messages over a stream socket. Everything that arrives is hostile: lengths, versions
/// and descriptors are checked here, what they mean is the session's business.
///
/// Thread rule: one thread, which waits in receive() until something comes or `cancel` is readable.

#include "base/result.h"
#include "doors/vhost/protocol.h"
#include "sys/fd.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace godwit::doors::vhost {

struct Message {
    Header header;
    std::vector<std::byte> payload; ///< As long as the header says.
    std::vector<sys::Fd> fds;

    [[nodiscard]] Request request() const noexcept { return static_cast<Request>(header.request); }
    [[nodiscard]] bool needs_reply() const noexcept {
        return (header.flags & flag_need_reply) != 0;
    }
    /// The payload's first sizeof(T) bytes; corrupt if it is not exactly `bytes` long.
    template <typename T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] Result<T> body(std::size_t bytes = sizeof(T)) const {
        if (payload.size() != bytes) {
            return wrong_length(bytes);
        }
        T value{};
        std::memcpy(&value, payload.data(), bytes < sizeof(T) ? bytes : sizeof(T));
        return value;
    }
    /// The only descriptor; corrupt if there is none, or more.
    [[nodiscard]] Result<sys::Fd> take_fd();
    [[nodiscard]] Error wrong_length(std::size_t expected) const;
};

class Channel {
  public:
    explicit Channel(sys::Fd socket) : socket_(std::move(socket)) {}

    /// The next message; peer_closed at the end, cancelled by `cancel`: then a later call goes on
    /// with what came already.
    [[nodiscard]] Result<Message> receive(const sys::Fd& cancel);
    /// A message has come in part.
    [[nodiscard]] bool in_message() const noexcept { return got_ > 0; }
    [[nodiscard]] const sys::Fd& socket() const noexcept { return socket_; }
    /// The answer to `message`.
    [[nodiscard]] Status reply(const Message& message,
                               std::span<const std::byte> payload,
                               const sys::Fd* fd = nullptr) const;
    template <typename T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] Status reply_with(const Message& message, const T& value) const {
        return reply(message, std::as_bytes(std::span(&value, 1)));
    }

  private:
    [[nodiscard]] Status fill(std::span<std::byte> out, std::size_t before, const sys::Fd& cancel);
    sys::Fd socket_;
    Message incoming_;
    std::size_t got_ = 0; ///< Bytes of it.
};

} // namespace godwit::doors::vhost
