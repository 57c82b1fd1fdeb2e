#pragma once

/// One connection to the control socket of a godwit-vmm: requests with time limits, and its events.
///
/// Whatever the VMM sends is checked; a message that makes no sense ends the connection. Callbacks
/// come on the loop's thread, never from inside connect() or call(), and may destroy the client.
/// Control thread only.

#include "base/result.h"
#include "control/json_text.h"
#include "control/reply.h"
#include "sys/event_loop.h"
#include "sys/unix_socket.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace godwit::control {

/// Requests under way on one connection.
inline constexpr std::size_t vmm_requests_max = 16;

/// What a VMM says about itself (method "status").
struct VmmStatus {
    std::string role; ///< "owner", "successor" or "retired"
    std::string state;
    std::string build_id;
    std::string version;
    std::uint64_t epoch = 0;
    std::uint64_t uptime_seconds = 0;
    bool confined = false; ///< In a service partition it has not left.
    /// Of a frozen one: nobody has run the guest since it stopped. Older builds do not say.
    bool reclaimable = true;
};
[[nodiscard]] VmmStatus vmm_status_of(const Json& result);

/// An answer and what came with it.
struct VmmAnswer {
    std::shared_ptr<Json> result; ///< Never null.
    std::vector<sys::Fd> fds;
};

class VmmClient : public std::enable_shared_from_this<VmmClient> {
  public:
    struct Callbacks {
        std::function<void(const Json& event)> event;
        /// The connection is gone; calls under way have been answered with the same error.
        std::function<void(const Error& reason)> closed;
    };
    [[nodiscard]] static Result<std::shared_ptr<VmmClient>>
    connect(sys::EventLoop& loop, const std::string& path, Callbacks callbacks);
    VmmClient(const VmmClient&) = delete;
    VmmClient& operator=(const VmmClient&) = delete;
    ~VmmClient();

    /// Asks; the answer is the "result" member, or the VMM's error, timeout or peer_closed.
    /// `passed` is borrowed during the call.
    void call(std::string_view method,
              const Json& params,
              std::chrono::milliseconds timeout,
              Reply<Json> reply,
              const sys::Fd* passed = nullptr);
    /// As call(), for an answer that brings descriptors.
    void call_for_fds(std::string_view method,
                      const Json& params,
                      std::chrono::milliseconds timeout,
                      Reply<VmmAnswer> reply,
                      const sys::Fd* passed = nullptr);
    /// The process at the other end as the kernel vouches.
    [[nodiscard]] int peer_pid() const noexcept { return peer_pid_; }
    /// Takes in everything that has arrived, without waiting.
    void drain();

  private:
    struct Pending;
    VmmClient(sys::EventLoop& loop, sys::MessageSocket socket, Callbacks callbacks);
    /// Handles one message; false when there is none or the connection is gone.
    bool receive_one();
    void handle(sys::Message packet);
    void close(const Error& reason);
    void fail_later(Reply<VmmAnswer> reply, Error error);

    sys::EventLoop& loop_;
    sys::MessageSocket socket_;
    Callbacks callbacks_;
    int peer_pid_ = -1;
    bool closed_ = false;
    std::uint64_t next_id_ = 1;
    std::map<std::uint64_t, Pending> pending_;
    sys::EventLoop::Handle watch_;
};

} // namespace godwit::control
