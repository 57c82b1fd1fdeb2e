#pragma once

/// An NBD server for one disk, at a UNIX path or a TCP address. Several clients at once; a flush of
/// one covers what was answered to all of them, so that one client may use several connections.
///
/// Thread rule: create(), stop() and the destructor on the thread that wires the process; all work
/// is done on the disk's loop.

#include "base/result.h"
#include "doors/exported_disk.h"
#include "doors/nbd/connection.h"
#include "sys/clock.h"
#include "sys/event_loop.h"
#include "sys/fd.h"
#include "sys/unix_socket.h"

#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace godwit::doors::nbd {

/// Further clients are turned away.
inline constexpr std::size_t clients_max = 64;

class Server {
  public:
    /// `address`: a path with a '/' in it, or HOST:PORT. The disk outlives the server.
    [[nodiscard]] static Result<std::unique_ptr<Server>>
    create(const std::string& address, ExportedDisk& disk, const std::string& name);
    struct Adopted {
        std::string address; ///< As create() was given it.
        std::string name;
        std::string uri;
        sys::Fd listening;
    };
    /// A predecessor's socket, at which nobody is let in before begin().
    [[nodiscard]] static std::unique_ptr<Server> adopt(Adopted adopted, ExportedDisk& disk);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    ~Server();

    /// Where it listens, as nbd:// or nbd+unix:// address.
    [[nodiscard]] const std::string& uri() const noexcept { return uri_; }
    [[nodiscard]] const sys::Fd& listening_socket() const noexcept {
        return path_.has_value() ? path_->fd() : tcp_;
    }

    // For an exchange of this process:
    /// Lets nobody in any more and brings all clients to rest, then copies what a successor needs;
    /// on an error, too, it takes begin() to go on.
    [[nodiscard]] Result<std::vector<SavedConnection>> freeze(sys::Moment deadline);
    /// A predecessor's clients, before begin().
    void restore(std::vector<SavedConnection> clients);
    /// Serves, from rest.
    [[nodiscard]] Status begin();
    /// After freeze(): all is somebody else's now and hears nothing of the end.
    void let_go();

    /// Lets nobody in any more, answers what was taken, and closes. Idempotent.
    void stop();

  private:
    Server(ExportedDisk& disk, std::string name) : disk_(disk), name_(std::move(name)) {}
    [[nodiscard]] Status listen(const std::string& address);
    [[nodiscard]] Export description() const;
    void accept();
    void finish_pass();

    ExportedDisk& disk_;
    std::string name_;
    std::string uri_;
    std::optional<sys::Listener> path_; ///< Of a UNIX socket.
    sys::Fd tcp_;
    // On the loop.
    std::vector<std::unique_ptr<Connection>> clients_;
    std::uint64_t turned_away_ = 0;
    std::optional<std::promise<void>> stopped_; ///< Kept when the last client has gone.
    std::optional<std::promise<void>> at_rest_; ///< Kept when nothing is in flight any more.
    sys::EventLoop::Handle listening_;
    sys::EventLoop::Handle before_wait_;
};

} // namespace godwit::doors::nbd
