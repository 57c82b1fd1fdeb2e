#pragma once

/// One console of a machine on a UNIX stream socket: output is kept in a backlog, so that clients
/// may come and go without losing lines; a new client first gets what no client has read yet.
///
/// Thread rule: the loop's thread, except write(), which any thread may call and which never
/// blocks.

#include "base/result.h"
#include "sys/event_loop.h"
#include "sys/unix_socket.h"

#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace godwit::vmm {

/// Output kept for readers that are away or slow; older bytes are dropped and counted.
inline constexpr std::size_t backlog_bytes_max = 1U << 20U;
inline constexpr std::size_t console_clients_max = 8;

/// A client and how far it has got, for handing over.
struct ConsoleClientState {
    sys::Fd fd;
    std::uint64_t offset = 0;
    std::string pending_input;
};

struct ConsolePortState {
    std::string backlog;
    std::uint64_t backlog_offset = 0;
    std::uint64_t read_offset = 0;
    std::vector<ConsoleClientState> clients;
};

class ConsolePort {
  public:
    /// Takes as many bytes of input as the guest has room for.
    using Input = std::function<std::size_t(std::span<const std::byte>)>;

    ConsolePort(sys::EventLoop& loop, Input input) : loop_(loop), input_(std::move(input)) {}
    ConsolePort(const ConsolePort&) = delete;
    ConsolePort& operator=(const ConsolePort&) = delete;
    ~ConsolePort() = default;

    /// Listens on `path`, taking it over from a predecessor.
    [[nodiscard]] Status listen(const std::string& path);
    /// Output of the guest.
    void write(std::span<const std::byte> bytes);
    /// The guest has room for input again.
    void input_ready();

    /// Stops moving bytes to and from clients; output still goes to the backlog.
    void freeze();
    void thaw();
    /// What a successor needs; while frozen.
    [[nodiscard]] Result<ConsolePortState> save() const;
    /// Keeps a predecessor's state, which thaw() or freeze() takes. Any thread, before all else.
    void adopt(ConsolePortState state);
    /// Everything printed so far that is still kept, for tests and post-mortems.
    [[nodiscard]] std::uint64_t dropped_bytes() const noexcept { return dropped_; }
    /// Removes the socket only if it is still ours; clients are closed with this object.
    void close();
    /// Sends what is left before the process ends; waits only for clients that still read.
    void flush_all();

  private:
    struct Client {
        sys::Fd fd;
        sys::EventLoop::Handle watch;
        std::uint64_t offset = 0;
        std::string pending_input;
        std::uint32_t events = 0;
    };
    using Clients = std::list<Client>;

    [[nodiscard]] Status watch_listener();
    void accept_clients();
    void add_client(sys::Fd fd, std::uint64_t offset, std::string pending_input);
    void serve(Clients::iterator client, std::uint32_t events);
    [[nodiscard]] bool read_input(Client& client);
    [[nodiscard]] bool flush(Client& client);
    void flush_clients();
    void schedule_flush();
    void take_adopted();
    void absorb_fresh();
    void update_events(Client& client);

    sys::EventLoop& loop_;
    Input input_;
    std::optional<sys::Listener> listener_;
    sys::EventLoop::Handle listen_watch_;
    sys::EventLoop::Handle flush_timer_;
    Clients clients_;
    std::string backlog_;
    std::uint64_t backlog_offset_ = 0;
    std::uint64_t read_offset_ = 0;
    std::uint64_t dropped_ = 0;
    bool frozen_ = false;
    std::optional<ConsolePortState> adopted_; ///< Not taken yet.
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

    mutable std::mutex mutex_;
    std::uint64_t fresh_dropped_ = 0; ///< Guarded by mutex_.
    std::string fresh_;               ///< Output not yet in the backlog; guarded by mutex_.
    bool flush_posted_ = false;       ///< Guarded by mutex_.
};

} // namespace godwit::vmm
