#pragma once

/// UNIX sockets that carry messages with descriptors (SOCK_SEQPACKET, SCM_RIGHTS).
///
/// One message is at most message_bytes_max bytes and message_fds_max descriptors; larger ones are
/// an error on both sides. Thread rule: one sender and one receiver at a time.

#include "base/result.h"
#include "sys/fd.h"

#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace godwit::sys {

inline constexpr std::size_t message_bytes_max = std::size_t{128} * 1024;
inline constexpr std::size_t message_fds_max = 250; // SCM_MAX_FD is 253 (include/net/scm.h).

struct Message {
    std::string bytes;
    std::vector<Fd> fds;
};

/// Who is at the other end, as the kernel vouches (SO_PEERCRED).
struct PeerCredentials {
    int pid = 0;
    unsigned uid = 0;
    unsigned gid = 0;
};

class MessageSocket {
  public:
    explicit MessageSocket(Fd fd) noexcept : fd_(std::move(fd)) {}
    /// A connected pair.
    [[nodiscard]] static Result<std::pair<MessageSocket, MessageSocket>> pair();
    /// Connects to a listener's path; not_found or peer_closed if nobody listens.
    [[nodiscard]] static Result<MessageSocket> connect(const std::string& path);

    /// Sends one message. `fds` are borrowed.
    [[nodiscard]] Status send(std::string_view bytes, std::span<const Fd* const> fds = {}) const;
    /// Waits up to `timeout` (negative: for ever) for one message; timeout or peer_closed
    /// otherwise.
    [[nodiscard]] Result<Message> receive(std::chrono::milliseconds timeout) const;
    /// Waits for something to receive; cancelled as soon as `cancel` is readable.
    [[nodiscard]] Status wait_readable(std::chrono::milliseconds timeout, const Fd& cancel) const;
    [[nodiscard]] Result<PeerCredentials> peer() const;
    [[nodiscard]] const Fd& fd() const noexcept { return fd_; }
    [[nodiscard]] Fd take() && noexcept { return std::move(fd_); }

  private:
    Fd fd_;
};

enum class SocketKind : std::uint8_t { messages, stream };

/// A listening socket bound to a path, which it removes again if it is still its own.
class Listener {
  public:
    /// Binds under a temporary name and renames, so that the path changes hands atomically. The
    /// socket is non-blocking and readable by `mode` (octal).
    [[nodiscard]] static Result<Listener>
    create(const std::string& path, SocketKind kind, unsigned mode = 0600);
    /// Only the first half: bound at `path`, nobody is let in yet. For a process that may not bind
    /// there itself and goes on with listen(), so that the kernel names it to whoever connects.
    [[nodiscard]] static Result<Fd>
    bind(const std::string& path, SocketKind kind, unsigned mode = 0600);
    /// The second half, of a socket that was bound to `path` elsewhere.
    [[nodiscard]] static Result<Listener> listen(Fd bound, const std::string& path);
    /// One that another process listens with at `path`, which stays when this object goes, unless
    /// find_path() has said that it is ours now.
    [[nodiscard]] static Listener adopt(Fd listening, std::string path) {
        return {std::move(listening), std::move(path), 0};
    }
    Listener(Listener&&) noexcept;
    Listener& operator=(Listener&&) noexcept;
    Listener(const Listener&) = delete;
    Listener& operator=(const Listener&) = delete;
    ~Listener();

    /// The next connection, or busy when none is waiting.
    [[nodiscard]] Result<Fd> accept() const;
    [[nodiscard]] const Fd& fd() const noexcept { return fd_; }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// After listen() or adopt(), once the path can be seen: it is removed with this object from
    /// now on.
    void find_path() noexcept;
    /// Leaves the path in place when this object goes (someone else has taken it over).
    void abandon_path() noexcept { path_.clear(); }

  private:
    Listener(Fd fd, std::string path, std::uint64_t inode)
        : fd_(std::move(fd)), path_(std::move(path)), inode_(inode) {}
    void remove_path() noexcept;
    Fd fd_;
    std::string path_;
    std::uint64_t inode_ = 0;
};

/// Connects a stream socket to `path`.
[[nodiscard]] Result<Fd> connect_stream(const std::string& path);

} // namespace godwit::sys
